//! The example programs, as their users meet them: by arguments, output, exit code, and bytes over the loopback.
//!
//! `cargo test` builds them; a command that selects tests (`--tests`, `--test examples`) does not: then `cargo build
//! --examples` comes first.
#![cfg(unix)]
// Each of the programs that are taken in here brings its own `common`.
#![allow(clippy::duplicate_mod)]

mod common;
#[cfg(feature = "tls")]
#[path = "common/tls.rs"]
mod configs;
#[cfg(feature = "tls")]
#[path = "examples/tls.rs"]
mod tls;

use common::{PATIENCE, dial, say, skip, uninterrupted};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

// ----------------------------------------------------------------------------------------------------- the programs

/// An example that runs, and does not outlive its test.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_in("UTC0", name, arguments)
    }

    fn start_in(zone: &str, name: &str, arguments: &[&str]) -> Self {
        Self::start_with(Stdio::piped(), zone, name, arguments)
    }

    fn start_with(complaints: Stdio, zone: &str, name: &str, arguments: &[&str]) -> Self {
        Self::run(complaints, Command::new(path(name)).args(arguments).env("TZ", zone))
    }

    /// A shell that reads commands in a network of its own (network_namespaces(7)), where it may do what only root may elsewhere;
    /// with it ends all that it has started. Nothing, and a word about it, where the system does not allow that.
    fn shell_with_a_network() -> Option<Self> {
        let unshare = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "sh"];
        let tried = Command::new("unshare").args(unshare).args(["-c", "ip link set lo up"]).output();
        if !tried.is_ok_and(|output| output.status.success()) {
            skip("no network of its own: `unshare --user --net` is not allowed here, or ip(8) is missing");
            return None;
        }
        Some(Self::run(Stdio::piped(), Command::new("unshare").args(unshare).arg("-s")))
    }

    fn run(complaints: Stdio, command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn().expect("a program that was built");
        let stdout = lines_of(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().map_or_else(|| channel().1, lines_of);
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// A server, and where it listens: its first line.
    fn serve(name: &str, arguments: &[&str]) -> (Self, SocketAddr) {
        let program = Self::start(name, arguments);
        let addr = program.address().parse().expect("an IP address");
        (program, addr)
    }

    /// A server that cannot complain: nobody reads what it writes there (EPIPE).
    fn serve_unheard(name: &str, arguments: &[&str]) -> (Self, SocketAddr) {
        let (ours, its) = UnixStream::pair().expect("descriptors");
        drop(ours);
        let program = Self::start_with(OwnedFd::from(its).into(), "UTC0", name, arguments);
        let addr = program.address().parse().expect("an IP address");
        (program, addr)
    }

    #[track_caller]
    fn address(&self) -> String {
        let line = self.line();
        line.strip_prefix("listening on ").expect("the first line tells the address").to_owned()
    }

    /// The next line of standard output.
    #[track_caller]
    fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("another line of output")
    }

    #[track_caller]
    fn complaint(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a line of standard error")
    }

    fn types(&mut self, text: &str) {
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).expect("the program reads");
    }

    fn end_of_input(&mut self) {
        self.stdin = None;
    }

    fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }

    /// Waits for the end, and says how it was, and what had not been read of the output and of the complaints.
    #[track_caller]
    fn end(&mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let rest = (rest_of(&self.stdout), rest_of(&self.stderr));
        (self.child.wait().expect("ours"), rest.0, rest.1)
    }

    #[track_caller]
    fn ends_well(mut self) -> Vec<String> {
        let (status, stdout, stderr) = self.end();
        assert_eq!(stderr, [""; 0]);
        assert_eq!(status.code(), Some(0));
        stdout
    }

    /// With exit code 1 and one line of standard error.
    #[track_caller]
    fn ends_badly(self) -> (Vec<String>, String) {
        self.ends_with(1)
    }

    /// With exit code 2 and one line of standard error, which says how to learn more.
    #[track_caller]
    fn ends_misused(self) -> String {
        let (stdout, complaint) = self.ends_with(2);
        assert_eq!(stdout, [""; 0], "{complaint}");
        assert!(complaint.starts_with("error: ") && complaint.ends_with("; --help shows how it is used"), "{complaint}");
        complaint
    }

    #[track_caller]
    fn ends_with(mut self, code: i32) -> (Vec<String>, String) {
        let (status, stdout, mut stderr) = self.end();
        assert_eq!((status.code(), stderr.len()), (Some(code), 1), "{stderr:?}");
        (stdout, stderr.remove(0))
    }

    /// By Ctrl-C, what it was asked for is not done: with exit code 130, as shells count, and without a complaint.
    #[track_caller]
    fn ends_interrupted(self) -> Vec<String> {
        self.ends_by_interrupt(130)
    }

    /// By Ctrl-C, which is how a server ends.
    #[track_caller]
    fn ends_drained(self) -> Vec<String> {
        self.ends_by_interrupt(0)
    }

    #[track_caller]
    fn ends_by_interrupt(mut self, code: i32) -> Vec<String> {
        self.interrupt();
        let (status, stdout, stderr) = self.end();
        assert_eq!((status.code(), stderr), (Some(code), vec![]));
        stdout
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Beside the test, where Cargo puts them.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let program = test.ancestors().nth(2).expect("target/debug/deps/this").join("examples").join(name);
    assert!(program.exists(), "{} is not there: `cargo build --examples` makes it", program.display());
    program
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[track_caller]
fn rest_of(lines: &Receiver<String>) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("the program does not end"),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- peers

/// A client that speaks in lines.
struct Caller {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Caller {
    fn new(to: SocketAddr) -> Self {
        Self::of(dial(to))
    }

    fn of(socket: TcpStream) -> Self {
        let lines = BufReader::new(socket.try_clone().expect("a descriptor"));
        Self { socket, lines }
    }

    fn says(&self, text: impl AsRef<[u8]>) {
        say(&self.socket, text);
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line in time");
        line.strip_suffix('\n').expect("a line before the end").to_owned()
    }

    #[track_caller]
    fn hears_the_end(&mut self) {
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    fn hangs_up(&self) {
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }
}

/// An address where nobody listens, and nobody else can as long as the socket lives.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("literal");
    socket.bind(&any.into()).expect("a free port");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    (socket, addr)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).expect("a socket option"); // of its accept, on Linux
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

#[track_caller]
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("somebody comes");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
    stream
}

/// The path of a Unix socket that no other test uses; what is there goes with the test.
struct UnixPath(PathBuf);

impl UnixPath {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mainspring-{name}-{}", std::process::id())))
    }

    fn address(&self) -> String {
        format!("unix:{}", self.0.display())
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // its server may have done so
    }
}

// ----------------------------------------------------------------------------------------------------- all of them

/// Each with arguments that start a server on a free port; but `echo`, which leaves an interrupt to the system.
const SERVERS: [(&str, &[&str]); 9] = [
    ("in_a_game", &["127.0.0.1:0"]),
    ("timestamp", &["serve", "127.0.0.1:0"]),
    ("timestamp", &[]),
    ("chat", &["127.0.0.1:0"]),
    ("proxy", &["127.0.0.1:0", "127.0.0.1:1"]),
    ("guess", &["127.0.0.1:0"]),
    ("timestamp_handler", &["127.0.0.1:0"]),
    ("gopher_server", &["examples", "127.0.0.1:0"]),
    ("transfer", &["receive", "/tmp", "127.0.0.1:0"]),
];

/// All that are built beside this test and have help: a file or a folder each, but `gopher`, which is two, and `echo`.
/// (Packages of their own have tests of their own.)
fn all_with_help() -> Vec<String> {
    let mut all = vec!["gopher_server".to_owned(), "gopher_client".to_owned()];
    for entry in std::fs::read_dir("examples").expect("where Cargo runs tests") {
        let entry = entry.expect("readable");
        let is_package = entry.path().join("Cargo.toml").exists();
        let name = entry.file_name().into_string().expect("ASCII");
        let name = name.trim_end_matches(".rs").to_owned();
        let needs_signals = ["lines", "restart"].contains(&name.as_str());
        let needs_tls = ["tls_echo", "starttls", "https_get"].contains(&name.as_str());
        let is_built =
            (!needs_signals || cfg!(all(feature = "children", feature = "signals"))) && (!needs_tls || cfg!(feature = "tls"));
        if is_built && !is_package && !["README.md", "common", "echo", "gopher"].contains(&name.as_str()) {
            all.push(name);
        }
    }
    assert!(all.len() >= 11, "{all:?}");
    all
}

#[test]
fn help_tells_how_each_is_used_and_fits_a_terminal() {
    for name in all_with_help() {
        for option in ["--help", "-h"] {
            let help = Program::start(&name, &[option]).ends_well().join("\n");
            assert!(help.contains(&format!("usage: {name}")), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        }
    }
    let packages = [
        ("notes", include_str!("../examples/notes/src/main.rs")),
        ("web_server", include_str!("../examples/web/src/server/main.rs")),
        ("room", include_str!("../examples/room/src/main.rs")),
        ("ftp_server", include_str!("../examples/ftp_server/src/main.rs")),
        ("ftp_client", include_str!("../examples/ftp_client/src/main.rs")),
        ("mail_sink", include_str!("../examples/mail_sink/src/main.rs")),
        ("balancer", include_str!("../examples/balancer/src/main.rs")),
    ];
    for (name, source) in packages {
        let (_, help) = source.split_once("const HELP: &str = \"\\\n").expect("it has help");
        let (help, _) = help.split_once("\";").expect("it ends");
        assert!(help.contains(&format!("usage: {name}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}

#[test]
fn help_that_cannot_be_written_is_an_error_and_help_that_nobody_reads_none() {
    for name in all_with_help() {
        if cfg!(target_os = "linux") {
            let full = File::options().write(true).open("/dev/full").expect("full(4)");
            let output = Command::new(path(&name)).arg("--help").stdout(full).output().expect("it was built");
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{name}: {complaint}");
            assert!(complaint.starts_with("error: cannot write to standard output: No space left"), "{name}: {complaint}");
            assert_eq!(complaint.lines().count(), 1, "{name}: {complaint}");
        }
        let (ours, its) = UnixStream::pair().expect("descriptors");
        drop(ours); // EPIPE
        let output = Command::new(path(&name)).arg("--help").stdout(OwnedFd::from(its)).output().expect("it was built");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]), "{name}: as by SIGPIPE");
        for closed in ["<&-", ">&-", "2>&-"] {
            let line = format!("'{}' --help {closed}", path(&name).display());
            let output = Command::new("sh").args(["-c", &line]).output().expect("sh(1)");
            assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{name} {closed}");
        }
    }
}

#[test]
fn a_server_that_cannot_say_where_it_listens_ends_with_an_error() {
    if !cfg!(target_os = "linux") {
        return; // full(4)
    }
    for (name, arguments) in SERVERS.iter().chain(&[("echo", &["127.0.0.1:0"][..])]) {
        let full = File::options().write(true).open("/dev/full").expect("full(4)");
        let output = Command::new(path(name)).args(*arguments).stdout(full).output().expect("it was built");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{name}: {complaint}");
        assert!(complaint.contains("No space left"), "{name}: {complaint}");
    }
}

/// Its own README is where one looks for them.
#[test]
fn the_table_of_examples_has_each_of_them() {
    let table = include_str!("../examples/README.md");
    for entry in std::fs::read_dir("examples").expect("where Cargo runs tests") {
        let name = entry.expect("readable").file_name().into_string().expect("ASCII");
        let is_listed = table.contains(&format!("| [{}]({name}) |", name.trim_end_matches(".rs")));
        assert!(is_listed || ["common", "README.md"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn help_tells_after_how_long_who_says_nothing_is_let_go() {
    for name in ["tail", "timestamp", "chat", "timestamp_handler"] {
        let help = Program::start(name, &["--help"]).ends_well().join(" ");
        assert!(help.contains("60 seconds") && help.contains("disconnected"), "{help}");
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_refused_in_one_line() {
    let wrong: [(&str, &[&str], &str); 76] = [
        ("in_a_game", &["--nonsense"], "--nonsense"),
        ("in_a_game", &["127.0.0.1:0", "surplus"], "surplus"),
        ("in_a_game", &["--steps", "-1"], "--steps takes a whole number from 1 to 18446744073709551615, not '-1'"),
        ("in_a_game", &["--steps"], "--steps"),
        ("in_a_game", &["nonsense"], "nonsense"),
        ("uplink", &["--nonsense"], "--nonsense"),
        ("uplink", &[], "ADDR"),
        ("uplink", &["127.0.0.1:1", "surplus"], "surplus"),
        ("uplink", &["127.0.0.1:1", "--tries", "nonsense"], "--tries takes a whole number from 1 to 4294967295"),
        ("uplink", &["127.0.0.1:1", "--tries", "0"], "not '0'"),
        ("uplink", &["nonsense"], "nonsense"),
        ("tail", &["--nonsense"], "--nonsense"),
        ("tail", &[], "SOURCE"),
        ("ping", &["--nonsense"], "--nonsense"),
        ("ping", &[], "HOST"),
        ("ping", &["127.0.0.1", "surplus"], "surplus"),
        ("ping", &["-c", "0", "127.0.0.1"], "-c takes a whole number from 1 to 18446744073709551615, not '0'"),
        ("ping", &["--c", "1", "127.0.0.1"], "--c"),
        ("ping", &["-i", "0", "127.0.0.1"], "-i takes seconds from 0.01 to 3600, not '0'"),
        ("ping", &["-i", "NaN", "127.0.0.1"], "not 'NaN'"),
        ("ping", &["-W", "61", "127.0.0.1"], "-W takes seconds from 0.01 to 60, not '61'"),
        ("ping", &["-46", "127.0.0.1"], "it cannot be both"),
        ("ping", &["-c1", ""], "is not a host name: it is empty"),
        ("ping", &["-c1", "a b"], "a b"),
        ("ping", &["-c1", "127.0.0.1:80"], "127.0.0.1:80"),
        ("ping", &["-c1", "fe80::1%no-such-link"], "no-such-link"),
        ("netwatch", &["--nonsense"], "--nonsense"),
        ("netwatch", &["surplus"], "surplus"),
        ("netwatch", &["--once=1"], "--once"),
        ("tail", &["a", "127.0.0.1:0", "surplus"], "surplus"),
        ("tail", &["/dev/tty0-is-not-asked", "127.0.0.1:0", "--x"], "--x"),
        ("timestamp", &["--nonsense"], "--nonsense"),
        ("timestamp", &["127.0.0.1:1"], "serve or ask?"),
        ("timestamp", &["ask"], "ADDR is missing"),
        ("timestamp", &["serve", "127.0.0.1:0", "surplus"], "surplus"),
        ("timestamp", &["serve", "--idle", "nonsense"], "--idle takes a whole number from 1 to 31536000, not 'nonsense'"),
        ("timestamp", &["serve", "--idle", "18446744073709551616"], "--idle takes a whole number"),
        ("timestamp", &["serve", "--idle", "two\nlines"], "--idle takes a whole number"),
        ("timestamp", &["serve", "--timeout", "1"], "--timeout is for ask"),
        ("timestamp", &["--idle", "1"], "--idle is for serve"),
        ("timestamp", &["ask", "127.0.0.1:1", "--timeout", "1.5"], "not '1.5'"),
        ("timestamp", &["ask", "nonsense", "hello"], "nonsense"),
        ("timestamp", &["serve", "nonsense"], "nonsense"),
        ("timestamp", &["ask", "127.0.0.1:1", "--idle", "1"], "--idle is for serve"),
        ("timestamp", &["--udp"], "--udp is for serve and ask"),
        ("timestamp", &["serve", "--udp", "--idle", "1"], "--idle is for serve, without --udp"),
        ("timestamp", &["serve", "--udp", "unix:/tmp/x"], "--udp needs IP:PORT"),
        ("timestamp", &["serve", "--udp=127.0.0.1:0"], "--udp"),
        ("timestamp", &["ask", "--udp", "unix:/tmp/x", "hello"], "--udp needs IP:PORT"),
        ("timestamp", &["ask", "--udp", "127.0.0.1:1"], "--udp needs a question"),
        ("chat", &["--nonsense"], "--nonsense"),
        ("chat", &["127.0.0.1:0", "surplus"], "surplus"),
        ("chat", &["--cert", "x"], if cfg!(feature = "tls") { "TLS needs both" } else { "which this build lacks" }),
        ("guess", &["--nonsense"], "--nonsense"),
        ("guess", &["127.0.0.1:0", "surplus"], "surplus"),
        ("timestamp_handler", &["--clients", "nonsense"], "--clients takes a whole number from 1 to 4294967295"),
        ("timestamp_handler", &["localhost:7013"], "localhost"),
        ("guess", &["127.0.0.1:99999"], "99999"),
        ("chat", &["unix:"], "unix:"),
        ("timestamp_handler", &["127.0.0.1:0", "surplus"], "surplus"),
        ("proxy", &["--nonsense"], "--nonsense"),
        ("proxy", &[], "TARGET"),
        ("proxy", &["127.0.0.1:0"], "TARGET"),
        ("proxy", &["127.0.0.1:0", "127.0.0.1:1", "surplus"], "surplus"),
        ("proxy", &["nonsense", "127.0.0.1:1"], "nonsense"),
        ("proxy", &["127.0.0.1:0", "nonsense"], "TARGET: `nonsense` is not an address"),
        ("proxy", &["127.0.0.1:0", "http://example.org:80"], "TARGET: "),
        ("proxy", &["127.0.0.1:0", "127.0.0.1:99999"], "TARGET: "),
        ("proxy", &["127.0.0.1:0", "host:no-such-service"], "no-such-service"),
        ("proxy", &["127.0.0.1:0", "no..host:80"], "TARGET: "),
        ("talk", &["--nonsense"], "--nonsense"),
        ("talk", &[], "ADDR"),
        ("talk", &["127.0.0.1:1", "surplus"], "surplus"),
        ("tail", &["", "127.0.0.1:0"], "SOURCE '' names nothing"),
        ("transfer", &["receive", "", "127.0.0.1:0"], "FOLDER '' names nothing"),
        ("transfer", &["send", "127.0.0.1:1", "Cargo.toml", ""], "FILE '' names nothing"),
    ];
    for (name, arguments, word) in wrong {
        let complaint = Program::start(name, arguments).ends_misused();
        assert!(complaint.contains(word), "{name} {arguments:?}: {complaint}");
    }
}

#[test]
fn an_address_that_is_none_is_a_wrong_command_line_of_whoever_is_given_it() {
    let long = format!("unix:/tmp/{}", "x".repeat(150));
    let both = ["nonsense", "", "unix:", long.as_str(), "127.0.0.1:", "127.0.0.1:0x", "127.0.0.1:+80", "127.0.0.1:99999"];
    let zoned = ["[fe80::1%no-such-link]:80", "[::1%lo]:80"]; // RFC 4007
    for at in both.iter().chain(&zoned).chain(&["localhost:7001", "localhost:0"]) {
        let servers: [(&str, &[&str]); 10] = [
            ("timestamp", &["serve", at]),
            ("timestamp", &["serve", "--udp", at]),
            ("chat", &[at]),
            ("proxy", &[at, "127.0.0.1:1"]),
            ("guess", &[at]),
            ("timestamp_handler", &[at]),
            ("in_a_game", &[at]),
            ("gopher_server", &["examples", at]),
            ("transfer", &["receive", "/tmp", at]),
            ("tail", &["/dev/tty", at]),
        ];
        for (name, arguments) in servers {
            if name == "tail" && File::open("/dev/tty").is_err() {
                continue; // no terminal to follow
            }
            let complaint = Program::start(name, arguments).ends_misused();
            assert!(!complaint.contains("HOST"), "{name}: it is told no form that it cannot use: {complaint}");
        }
    }
    for to in both.iter().chain(&zoned).chain(&["127.0.0.1:0", "[::1]:0", "localhost:0", "no..host:80", "a b:80", "a/b:80"]) {
        let clients: [(&str, &[&str]); 6] = [
            ("timestamp", &["ask", to, "hello"]),
            ("timestamp", &["ask", "--udp", to, "hello"]),
            ("transfer", &["send", to, "Cargo.toml"]),
            ("uplink", &[to]),
            ("talk", &[to]),
            ("proxy", &["127.0.0.1:0", to]),
        ];
        for (name, arguments) in clients {
            let complaint = Program::start(name, arguments).ends_misused();
            assert!(!complaint.contains("SUN_LEN"), "{name}: {complaint}");
        }
    }
}

/// A program with too few descriptors says what it could not do; and one that listens has one for whoever comes.
#[test]
fn however_few_descriptors_there_are_nobody_waits_for_nothing() {
    let (target, to) = listener();
    thread::spawn(move || while target.accept().is_ok() {}); // each is closed at once; it ends with the test
    let proxy = format!("127.0.0.1:0 {to}");
    let servers = [
        ("echo", "127.0.0.1:0"),
        ("chat", "127.0.0.1:0"),
        ("guess", "127.0.0.1:0"),
        ("in_a_game", "127.0.0.1:0"),
        ("timestamp", "serve 127.0.0.1:0"),
        ("timestamp_handler", "127.0.0.1:0"),
        ("proxy", &proxy),
        ("gopher_server", "examples 127.0.0.1:0"),
        ("transfer", "receive /tmp 127.0.0.1:0"),
    ];
    for (name, arguments) in servers {
        let mut heard = 0;
        for most in 4..=14 {
            let program = start_with_descriptors(most, name, arguments);
            match program.stdout.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let addr = line.strip_prefix("listening on ").and_then(|addr| addr.parse().ok()).expect("an IP address");
                    let mut client = dial(addr);
                    let _ = client.write_all(b"x\n"); // it may be reset already
                    let outcome = uninterrupted(|| client.read(&mut [0; 100])).map_err(|error| error.kind());
                    assert_ne!(outcome, Err(ErrorKind::WouldBlock), "{name} with {most}: an answer, an end or a reset");
                    heard += 1;
                }
                Err(_) => {
                    let (_, complaint) = program.ends_badly();
                    let said = complaint.to_lowercase();
                    assert!(
                        said.starts_with("error: c") && said.contains("too many open files"),
                        "{name} with {most}: {complaint}"
                    );
                }
            }
        }
        assert!(heard > 0, "{name}: so many descriptors are enough");
    }
}

#[test]
fn what_is_not_there_or_will_not_do_is_another_error_than_a_wrong_command_line() {
    let wrong: [(&str, &[&str], &str); 8] = [
        ("tail", &["/nowhere/at/all"], "'/nowhere/at/all': No such file"),
        ("tail", &["Cargo.toml"], "'Cargo.toml': a file cannot be waited for"),
        ("tail", &["src"], "'src': a file cannot be waited for"),
        ("proxy", &["127.0.0.1:0", "no-such-host.invalid:80"], "error: TARGET: "), // RFC 6761: never resolved
        ("ping", &["-c1", "no-such-host.invalid"], "error: `no-such-host.invalid`: "),
        ("ping", &["-c1", "-6", "127.0.0.1"], "error: `127.0.0.1` has no address of the version of IP"),
        ("transfer", &["receive", "/nowhere/at/all", "127.0.0.1:0"], "'/nowhere/at/all' is not a folder"),
        ("chat", &["unix:/nowhere/at/all"], "unix:/nowhere/at/all: No such file"),
    ];
    for (name, arguments, word) in wrong {
        let (stdout, complaint) = Program::start(name, arguments).ends_badly();
        assert_eq!(stdout, [""; 0], "{name} {arguments:?}");
        assert!(complaint.contains(word), "{name} {arguments:?}: {complaint}");
    }
}

#[test]
fn an_address_in_use_is_an_error_that_names_it_and_one_without_sense_is_misuse() {
    let (_busy, addr) = listener();
    for (at, code) in [(addr.to_string(), 1), ("nonsense".into(), 2)] {
        let servers: [(&str, &[&str]); 9] = [
            ("echo", &[&at]),
            ("timestamp", &["serve", &at]),
            ("chat", &[&at]),
            ("proxy", &[&at, "127.0.0.1:1"]),
            ("guess", &[&at]),
            ("timestamp_handler", &[&at]),
            ("in_a_game", &[&at]),
            ("gopher_server", &["examples", &at]),
            ("transfer", &["receive", "/tmp", &at]),
        ];
        for (name, arguments) in servers {
            let code = if name == "echo" { 1 } else { code }; // which knows no command line
            let (stdout, complaint) = Program::start(name, arguments).ends_with(code);
            assert_eq!(stdout, [""; 0], "{name}");
            assert!(complaint.contains(&at), "{name}: {complaint}");
        }
    }
}

#[test]
fn an_interrupt_ends_each_cleanly_also_while_somebody_is_connected() {
    for (name, arguments) in SERVERS {
        let (mut program, addr) = Program::serve(name, arguments);
        assert_ne!(addr.port(), 0, "{name} tells the port that it was given");
        let _guest = dial(addr);
        program.interrupt();
        let (status, _, complaints) = program.end();
        assert_eq!(status.code(), Some(0), "{name} {arguments:?}: {complaints:?}");
        let is_of_target = |line: &String| name == "proxy" && line.starts_with("could not connect to 127.0.0.1:1: ");
        assert!(complaints.iter().all(is_of_target), "{name} {arguments:?}: {complaints:?}");
    }
}

/// Whoever is asking then is answered, or finds an orderly end: a reset would destroy an answer on its way.
#[test]
fn under_load_sigterm_leaves_nobody_without_an_answer_that_is_owed() {
    for (name, arguments, question) in [
        ("timestamp", &["serve", "127.0.0.1:0"][..], "hello\n"),
        ("timestamp_handler", &["127.0.0.1:0"], "hello\n"),
        ("guess", &["127.0.0.1:0"], "7\n"),
        ("chat", &["127.0.0.1:0"], "hello\n"),
    ] {
        let (mut program, addr) = Program::serve(name, arguments);
        let answered = Arc::new(AtomicUsize::new(0));
        let askers: Vec<_> = (0..8)
            .map(|_| {
                let (mut caller, answered) = (Caller::new(addr), Arc::clone(&answered));
                thread::spawn(move || {
                    let mut answer = String::new();
                    loop {
                        // It may have ended meanwhile: what it said before is still to be read, and then its end.
                        let _ = caller.socket.write_all(question.as_bytes());
                        answer.clear();
                        match caller.lines.read_line(&mut answer).expect("an answer or an orderly end") {
                            0 => return,
                            _ => assert!(answer.ends_with('\n'), "half of an answer: {answer}"),
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while answered.load(Ordering::Relaxed) < 1_000 {
            thread::yield_now();
        }
        program.signal("-TERM");
        for asker in askers {
            asker.join().unwrap_or_else(|_| panic!("{name} has left somebody without an answer"));
        }
        let (status, _, complaints) = program.end();
        assert_eq!((status.code(), complaints), (Some(0), vec![]), "{name}");
    }
}

#[test]
fn sigterm_ends_each_as_an_interrupt_does() {
    for (name, arguments) in SERVERS {
        let (mut program, _) = Program::serve(name, arguments);
        program.signal("-TERM");
        assert_eq!(program.end().0.code(), Some(0), "{name}");
    }
}

// ------------------------------------------------------------------------------------------------------------ echo

#[test]
fn echo_sends_back_what_it_gets() {
    let (_program, addr) = Program::serve("echo", &["127.0.0.1:0"]);
    let mut caller = Caller::new(addr);
    caller.says("one\r\n\0two\n");
    caller.hears("one\r");
    caller.hears("\0two");
    caller.says("the end");
    caller.hangs_up();
    let mut rest = String::new();
    caller.lines.read_to_string(&mut rest).expect("an orderly end");
    assert_eq!(rest, "the end");
}

#[test]
fn echo_is_told_no_address_that_is_no_text() {
    let mut command = Command::new(path("echo"));
    let output = command.arg(OsStr::from_bytes(b"\xff:1")).output().expect("it was built");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(complaint.contains("an address is text"), "{complaint}");
}

#[test]
fn the_readme_shows_echo_as_it_is() {
    let (readme, echo) = (include_str!("../README.md"), include_str!("../examples/echo.rs"));
    let (_, code) = echo.split_once('\n').expect("a line that says what it is");
    assert!(readme.contains(&format!("```rust,no_run\n{code}```")), "one of the two has changed");
}

#[test]
fn echo_is_not_stopped_by_a_client_that_sends_on_and_on_and_never_reads() {
    let (_program, addr) = Program::serve("echo", &["127.0.0.1:0"]);
    let greedy = dial(addr);
    let bytes = noise(5, 48 << 20);
    let (sender, taken) = send_all(&greedy, &bytes);
    until_quiet(&taken);
    let mut caller = Caller::new(addr);
    caller.says("is anybody there?\n");
    caller.hears("is anybody there?");
    assert_same(&read_all(&greedy), &bytes);
    sender.join().expect("no panic");
}

#[test]
fn echo_leaves_signals_to_the_system_and_what_it_leaves_behind_is_not_in_the_way() {
    let path = UnixPath::new("echo");
    for _ in 0..2 {
        let mut program = Program::start("echo", &[&path.address()]);
        assert_eq!(program.address(), path.address());
        let mut peer = UnixStream::connect(&path.0).expect("it listens");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        peer.write_all(b"x").expect("connected");
        assert_eq!(uninterrupted(|| peer.read(&mut [0])).expect("an echo in time"), 1);
        program.signal("-TERM"); // a shell may have had us ignore SIGINT, and then the program does too
        let (status, stdout, stderr) = program.end();
        assert_eq!((status.signal(), stdout, stderr), (Some(15), vec![], vec![]));
        assert_eq!(uninterrupted(|| peer.read(&mut [0])).expect("an end"), 0);
        assert!(path.0.exists(), "nobody was there to take it away");
    }
}

// ------------------------------------------------------------------------------------------------------------ tail

/// A pipe with a name, which goes with its test.
struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mainspring-{name}-{}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo(1) exists").success());
        Self(path)
    }

    /// A program that follows it, and what is written to it from here.
    fn follow(&self) -> (Program, SocketAddr, File) {
        let (program, addr) = Program::serve("tail", &[self.0.to_str().expect("ASCII"), "127.0.0.1:0"]);
        (program, addr, File::options().write(true).open(&self.0).expect("it is open for reading"))
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn listen(addr: SocketAddr) -> Caller {
    let mut caller = Caller::new(addr);
    caller.hears("* following");
    caller
}

#[test]
fn tail_sends_whole_lines_to_all_and_ends_with_its_source() {
    let fifo = Fifo::new("tail");
    let (program, addr, mut source) = fifo.follow();
    let (mut ann, mut bob) = (listen(addr), listen(addr));
    source.write_all(b"one\n\ntw").expect("it reads");
    for listener in [&mut ann, &mut bob] {
        listener.hears("one");
        listener.hears("");
    }
    let mut late = listen(addr);
    ann.says("is anybody there?\n".repeat(1000)); // nobody answers
    bob.hangs_up();
    bob.hears_the_end();
    source.write_all(b"o\n\x00\xff\n").expect("it reads");
    source.write_all("x".repeat(100_000).as_bytes()).expect("it reads"); // a line that does not end
    source.write_all(b"\nthe rest").expect("it reads");
    drop(source);
    for listener in [&mut ann, &mut late] {
        listener.hears("two");
        let mut line = Vec::new();
        listener.lines.read_until(b'\n', &mut line).expect("a line in time");
        assert_eq!(line, b"\0\xff\n");
        listener.hears(&"x".repeat(100_000));
        let mut rest = String::new();
        listener.lines.read_to_string(&mut rest).expect("an orderly end");
        assert_eq!(rest, "the rest");
    }
    assert_eq!(program.ends_well(), [""; 0]);
}

#[test]
fn tail_follows_what_is_piped_into_it() {
    if !cfg!(target_os = "linux") {
        return; // elsewhere /dev/stdin is the same open file, which others would share without blocking
    }
    let (mut program, addr) = Program::serve("tail", &["/dev/stdin", "127.0.0.1:0"]);
    let mut listener = listen(addr);
    program.types("hello\n");
    listener.hears("hello");
    program.end_of_input();
    listener.hears_the_end();
    program.ends_well();
}

#[test]
fn who_does_not_keep_up_is_told_how_many_lines_were_missed_and_nobody_waits_for_it() {
    const LINES: usize = 16 << 10;
    let fifo = Fifo::new("tail-slow");
    let (program, addr, mut source) = fifo.follow();
    let mut quick = listen(addr);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    socket.connect(&addr.into()).expect("there is room");
    let mut sleeper = Caller::of(socket.into());
    sleeper.hears("* following");
    let text = "z".repeat(1000);
    for batch in 0..LINES / 32 {
        let numbers = batch * 32..(batch + 1) * 32;
        let lines: String = numbers.clone().map(|n| format!("{n} {text}\n")).collect();
        source.write_all(lines.as_bytes()).expect("it reads");
        for n in numbers {
            quick.hears(&format!("{n} {text}"));
        }
    }
    if cfg!(target_os = "linux") {
        assert!(memory_max(&program) < 16 << 20, "{} bytes", memory_max(&program));
    }
    drop(source);
    quick.hears_the_end();
    let (mut next, mut missed) = (0, 0);
    for line in sleeper.lines.lines().map(|line| line.expect("an orderly end")) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["*", number, "lines", "were", "missed"] = words[..] {
            let number: usize = number.parse().expect("a number");
            next += number;
            missed += number;
        } else {
            assert_eq!(words[0], next.to_string(), "each line is there, or was counted");
            next += 1;
        }
    }
    assert!(missed > 0, "nobody keeps all of that for one who does not read");
    assert_eq!(next, LINES);
    program.ends_well();
}

#[test]
fn tail_can_be_interrupted_while_somebody_listens_or_killed() {
    let fifo = Fifo::new("tail-end");
    let (program, addr, mut source) = fifo.follow();
    let mut listener = listen(addr);
    source.write_all(b"the last\n").expect("it reads");
    listener.hears("the last");
    program.ends_drained();
    listener.hears_the_end();
    assert_eq!(source.write_all(b"x").expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);

    let (program, addr, mut source) = fifo.follow();
    let mut listener = listen(addr);
    drop(program); // by SIGKILL
    assert!(
        uninterrupted(|| listener.socket.read(&mut [0])).map_or(true, |bytes| bytes == 0),
        "an end, of one kind or the other"
    );
    assert_eq!(source.write_all(b"x").expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);
}

#[test]
fn one_more_listener_than_there_may_be_is_told_so() {
    let fifo = Fifo::new("tail-full");
    let (_program, addr, mut source) = fifo.follow();
    let mut listeners: Vec<Caller> = (0..100).map(|_| listen(addr)).collect();
    let mut surplus = Caller::new(addr);
    surplus.hears("* too many are here already");
    surplus.hears_the_end();
    source.write_all(b"hello\n").expect("it reads");
    for listener in &mut listeners {
        listener.hears("hello");
    }
}

// ---------------------------------------------------------------------------------------------------------- uplink

/// With the dialogue test that stands at its end.
#[allow(dead_code)] // its `main`
#[path = "../examples/uplink.rs"]
mod uplink;

fn uplink(arguments: &[&str]) -> (Program, TcpListener) {
    let (server, addr) = listener();
    (Program::start("uplink", &[&[addr.to_string().as_str()], arguments].concat()), server)
}

#[test]
fn uplink_sends_what_is_typed_and_comes_back_after_it_was_reset() {
    let (mut program, server) = uplink(&[]);
    program.types("one\n\ntwo\n");
    let mut first = Caller::of(accept(&server));
    assert!(program.complaint().starts_with("connected to 127.0.0.1:"));
    for line in ["one", "", "two"] {
        first.hears(line);
    }
    first.says("h\x1b[2Ji,\u{202e} caf\u{e9}\r\n");
    assert_eq!(program.line(), "h [2Ji,\u{fffd} caf\u{e9}");
    let Caller { socket, lines } = first;
    drop(lines);
    common::reset(socket);
    assert!(program.complaint().ends_with("; trying again"));
    program.types("meanwhile\n");
    let mut second = Caller::of(accept(&server));
    second.hears("meanwhile");
    program.types("no line's end");
    program.end_of_input();
    let mut rest = String::new();
    second.lines.read_to_string(&mut rest).expect("an orderly end");
    assert_eq!(rest, "no line's end");
    drop(second);
    let (status, stdout, complaints) = program.end();
    assert_eq!((status.code(), stdout, complaints.len()), (Some(0), vec![], 1), "{complaints:?}");
}

#[test]
fn uplink_prints_what_is_answered_after_the_end_of_its_input() {
    for is_ended_by_server in [true, false] {
        let (mut program, server) = uplink(&[]);
        program.types("one\ntwo\n");
        program.end_of_input();
        let mut peer = Caller::of(accept(&server));
        peer.hears("one");
        peer.hears("two");
        peer.hears_the_end();
        peer.says("answers\nto both\n");
        if is_ended_by_server {
            peer.hangs_up();
        }
        let (status, said, complaints) = program.end(); // otherwise when it has said nothing for a while
        assert_eq!((status.code(), complaints.len()), (Some(0), 1), "{complaints:?}");
        assert_eq!(said, ["answers", "to both"]);
    }
}

#[test]
fn uplink_finds_a_server_that_starts_later() {
    let path = UnixPath::new("uplink");
    let mut program = Program::start("uplink", &[&path.address()]);
    program.types("early\n");
    program.end_of_input();
    assert!(program.complaint().starts_with("could not connect to unix:"));
    let server = UnixListener::bind(&path.0).expect("a free path");
    SockRef::from(&server).set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let (mut peer, _) = server.accept().expect("it comes back");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut all = String::new();
    peer.read_to_string(&mut all).expect("an orderly end");
    assert_eq!(all, "early\n");
    drop(peer);
    assert_eq!(program.end().0.code(), Some(0));
}

/// It takes no more of its input than it may keep while the peer does not read, and all of it when that does.
#[track_caller]
fn holds_its_input_up(program: &mut Program, peer: &mut TcpStream, bytes: &[u8]) {
    let mut stdin = program.stdin.take().expect("open");
    let (input, taken) = (bytes.to_vec(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    let typist = thread::spawn(move || {
        for piece in input.chunks(64 << 10) {
            stdin.write_all(piece).expect("the program reads on");
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    until_quiet(&taken);
    assert!(taken.load(Ordering::Relaxed) < bytes.len(), "nobody reads, and nobody keeps it all");
    let mut all = Vec::new();
    peer.read_to_end(&mut all).expect("an orderly end");
    assert_same(&all, bytes);
    typist.join().expect("no panic");
}

#[test]
fn uplink_holds_its_input_up_while_the_server_does_not_read_and_loses_nothing() {
    let (mut program, server) = uplink(&[]);
    let mut peer = accept(&server);
    holds_its_input_up(&mut program, &mut peer, &noise(6, 16 << 20));
    if cfg!(target_os = "linux") && program.child.try_wait().expect("ours").is_none() {
        assert!(memory_max(&program) < 16 << 20, "{} bytes", memory_max(&program));
    }
    drop(peer);
    assert_eq!(program.end().0.code(), Some(0));
}

#[test]
fn uplink_gives_up_when_it_is_told_to_and_says_why() {
    let (_socket, addr) = nobody();
    let program = Program::start("uplink", &["--tries", "1", &addr.to_string()]);
    let (stdout, complaint) = program.ends_badly();
    assert_eq!(stdout, [""; 0]);
    assert!(complaint.starts_with("error: could not connect to") && complaint.contains(&addr.to_string()), "{complaint}");
}

#[test]
fn uplink_gives_up_when_it_cannot_print_what_the_server_says() {
    if !cfg!(target_os = "linux") {
        return; // full(4)
    }
    let (server, addr) = listener();
    let full = File::options().write(true).open("/dev/full").expect("full(4)");
    let mut command = Command::new(path("uplink"));
    let child = command.arg(addr.to_string()).stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn();
    let peer = accept(&server);
    say(&peer, "hello\n");
    read_all(&peer);
    drop(peer);
    let output = child.expect("it was built").wait_with_output().expect("ours");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    assert!(complaints.lines().last().is_some_and(|last| last.starts_with("error: cannot write to standard output: ")));
}

#[test]
fn uplink_can_be_interrupted_while_it_pauses_and_while_it_is_connected() {
    let (_socket, addr) = nobody();
    let mut program = Program::start("uplink", &[&addr.to_string()]);
    program.complaint();
    program.interrupt();
    assert_eq!(program.end().0.code(), Some(130));
    let (mut program, server) = uplink(&[]);
    let mut peer = accept(&server);
    program.complaint();
    program.interrupt();
    assert_eq!(program.end().0.code(), Some(130));
    assert_eq!(uninterrupted(|| peer.read(&mut [0])).expect("an end"), 0);
}

// ------------------------------------------------------------------------------------------------------------ talk

/// Its output and complaints are piped; `addr` is of a server of ours.
fn talk(addr: impl ToString, input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
    let mut command = Command::new(path("talk"));
    command.arg(addr.to_string()).stdin(input).stdout(output).stderr(Stdio::piped()).spawn().expect("it was built")
}

/// How it has ended, and what of its output and complaints nobody has taken.
#[track_caller]
fn ended(child: Child) -> Output {
    let (id, (sender, outcome)) = (child.id().to_string(), channel());
    thread::spawn(move || sender.send(child.wait_with_output()));
    outcome.recv_timeout(PATIENCE).map_or_else(
        |_| {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
            panic!("the program does not end")
        },
        |output| output.expect("ours"),
    )
}

/// What it has printed, by when it has ended well.
#[track_caller]
fn talked(child: Child) -> Vec<u8> {
    let output = ended(child);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""));
    output.stdout
}

/// What it has complained of, in one line.
#[track_caller]
fn talked_badly(child: Child) -> String {
    let output = ended(child);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    complaint
}

/// Both ends of a pipe, so to speak.
fn cat() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat(1)")
}

/// A file that has these bytes, and stands at its beginning. It has no name any more.
fn file_of(name: &str, bytes: &[u8]) -> File {
    let path = UnixPath::new(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path.0).expect("a free path");
    file.write_all(bytes).expect("room");
    file.rewind().expect("a file");
    file
}

#[test]
fn talk_carries_a_pipe_and_a_file_both_ways_at_once_exactly() {
    let (there, back) = (noise(7, 8 << 20), noise(8, 8 << 20));
    for is_file in [true, false] {
        let (server, addr) = listener();
        let input = if is_file { file_of("talk", &there).into() } else { Stdio::piped() };
        let mut child = talk(addr, input, Stdio::piped());
        let (stdin, all) = (child.stdin.take(), there.clone());
        let typist = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&all).expect("it reads on")));
        let peer = accept(&server);
        let (sender, _) = send_all(&peer, &back);
        let reader = thread::spawn(move || read_all(&peer));
        assert_same(&talked(child), &back);
        assert_same(&reader.join().expect("no panic"), &there);
        sender.join().expect("no panic");
        typist.join().expect("no panic");
    }
}

#[test]
fn talk_passes_the_end_of_its_input_on_and_waits_for_the_answer() {
    let path = UnixPath::new("talk");
    let server = UnixListener::bind(&path.0).expect("a free path");
    SockRef::from(&server).set_read_timeout(Some(PATIENCE)).expect("a socket option");
    for input in ["", "question"] {
        let mut child = talk(path.address(), Stdio::piped(), Stdio::piped());
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("room in the pipe");
        let (mut peer, _) = server.accept().expect("it comes");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut all = String::new();
        peer.read_to_string(&mut all).expect("an orderly end");
        assert_eq!(all, input);
        peer.write_all(b"answer").expect("connected");
        drop(peer);
        assert_eq!(talked(child), b"answer");
    }
}

#[test]
fn talk_holds_back_whoever_is_faster_and_loses_nothing() {
    let bytes = noise(9, 32 << 20);
    let (server, addr) = listener();
    let mut program = Program::start("talk", &[&addr.to_string()]);
    let mut peer = accept(&server);
    holds_its_input_up(&mut program, &mut peer, &bytes);
    if cfg!(target_os = "linux") {
        assert!(memory_max(&program) < 16 << 20, "{} bytes", memory_max(&program));
    }
    drop(peer);
    assert_eq!(program.ends_well(), [""; 0]);

    let mut child = talk(addr, Stdio::null(), Stdio::piped());
    let peer = accept(&server);
    let (sender, taken) = send_all(&peer, &bytes);
    until_quiet(&taken);
    assert!(taken.load(Ordering::Relaxed) < bytes.len(), "nobody reads, and nobody keeps it all");
    let mut all = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut all).expect("a pipe");
    assert_same(&all, &bytes);
    sender.join().expect("no panic");
    talked(child);
}

#[test]
fn talk_ends_when_its_server_has_ended_and_its_input_says_nothing() {
    let (server, addr) = listener();
    let mut program = Program::start("talk", &[&addr.to_string()]);
    let mut peer = Caller::of(accept(&server));
    program.types("bye\n");
    peer.hears("bye");
    peer.says("and bye\n");
    drop(peer);
    assert_eq!(program.line(), "and bye");
    let (status, rest, complaints) = program.end();
    assert_eq!((status.code(), rest, complaints), (Some(0), vec![], vec![]));
    assert!(program.stdin.is_some(), "which is open to the last");
}

#[test]
fn talk_sends_all_that_its_input_has_also_to_a_server_that_ended_first() {
    let bytes = noise(10, 8 << 20);
    let (server, addr) = listener();
    let child = talk(addr, file_of("talk-first", &bytes), Stdio::piped());
    let peer = accept(&server);
    say(&peer, "hello");
    peer.shutdown(Shutdown::Write).expect("connected");
    assert_same(&read_all(&peer), &bytes);
    assert_eq!(talked(child), b"hello");
}

#[test]
fn talk_writes_behind_what_stands_in_its_output() {
    let mut log = file_of("talk-log", b"one\n");
    log.seek(SeekFrom::End(0)).expect("a file");
    let (server, addr) = listener();
    for word in ["two\n", "three\n"] {
        let child = talk(addr, Stdio::null(), log.try_clone().expect("a descriptor"));
        say(&accept(&server), word);
        talked(child);
    }
    log.rewind().expect("a file");
    let mut all = String::new();
    log.read_to_string(&mut all).expect("text");
    assert_eq!(all, "one\ntwo\nthree\n");
}

#[test]
fn talk_leaves_what_it_shares_with_others_as_it_was() {
    let (server, addr) = listener();
    let mut cat = cat();
    let (ours, its) = UnixStream::pair().expect("descriptors");
    let (reader, mut writer) = (cat.stdout.take().expect("piped"), cat.stdin.take().expect("piped"));
    let shared: [(OwnedFd, &mut dyn Write); 2] = [(reader.into(), &mut writer), (its.into(), &mut &ours)];
    for (input, typist) in shared {
        let child = talk(addr, input.try_clone().expect("a descriptor"), Stdio::piped());
        let mut peer = Caller::of(accept(&server));
        typist.write_all(b"one\n").expect("room");
        peer.hears("one");
        assert!(!SockRef::from(&input).nonblocking().expect("fcntl(2)"), "whoever else reads it would meet EAGAIN");
        drop(peer);
        talked(child);
        assert!(!SockRef::from(&input).nonblocking().expect("fcntl(2)"));
    }
    drop(writer);
    cat.wait().expect("ours");
}

#[test]
fn talk_takes_nothing_of_its_input_for_a_server_that_is_not_there() {
    let (_socket, addr) = nobody();
    let mut file = file_of("talk-nobody", b"for somebody else");
    let complaint = talked_badly(talk(addr, file.try_clone().expect("a descriptor"), Stdio::piped()));
    assert!(complaint.starts_with(&format!("error: could not connect to {addr}: ")), "{complaint}");
    assert_eq!(file.stream_position().expect("a file"), 0);
}

#[test]
fn talk_says_in_one_line_that_the_server_broke_off_and_prints_what_it_said() {
    let (server, addr) = listener();
    let mut program = Program::start("talk", &[&addr.to_string()]);
    let peer = accept(&server);
    say(&peer, "last words\n");
    assert_eq!(program.line(), "last words");
    common::reset(peer);
    let (status, _, complaints) = program.end();
    assert_eq!((status.code(), complaints.len()), (Some(1), 1), "{complaints:?}");
    assert!(complaints[0].starts_with(&format!("error: lost the server {addr}: ")), "{complaints:?}");
}

#[test]
fn talk_says_what_it_cannot_read_or_write_while_its_input_is_open() {
    if !cfg!(target_os = "linux") {
        return; // full(4)
    }
    let (server, addr) = listener();
    let full = File::options().write(true).open("/dev/full").expect("full(4)");
    let child = talk(addr, Stdio::piped(), full);
    let mut peer = accept(&server);
    say(&peer, "hello");
    let error = uninterrupted(|| peer.read(&mut [0])).expect_err("a reset: what it was sent may be a part");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(talked_badly(child), "error: cannot write to standard output: No space left on device (os error 28)\n");

    let mut child = talk(addr, Stdio::piped(), Stdio::piped());
    let _peer = accept(&server);
    child.stdout = None; // whoever read it has gone
    let output = ended(child);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]), "as by SIGPIPE");

    let mut cat = cat();
    let complaint = talked_badly(talk(addr, cat.stdin.take().expect("piped"), Stdio::piped()));
    cat.wait().expect("ours");
    assert_eq!(complaint, "error: standard input is not open for reading (EBADF)\n");
    let complaint = talked_badly(talk(addr, File::open("/").expect("a folder"), Stdio::piped()));
    assert_eq!(complaint, "error: standard input: a directory is not a stream\n");
}

#[test]
fn talk_leaves_signals_to_the_system() {
    let (server, addr) = listener();
    let mut program = Program::start("talk", &[&addr.to_string()]);
    let _peer = accept(&server);
    program.interrupt();
    assert_eq!(program.end().0.signal(), Some(2));
}

// ------------------------------------------------------------------------------------------------------- in_a_game

/// With the test that stands at its end.
#[allow(dead_code)] // its `main`
#[path = "../examples/in_a_game.rs"]
mod in_a_game;

/// The number of a step, and where everybody is in it.
#[track_caller]
fn step(line: &str) -> (u64, &str) {
    let (number, rest) = line.strip_prefix("step ").and_then(|rest| rest.split_once(':')).expect(line);
    (number.parse().expect(line), rest.trim_start())
}

/// What a player hears next besides the steps.
#[track_caller]
fn hears_besides(player: &mut Caller) -> String {
    loop {
        let line = player.line();
        if !line.starts_with("step ") {
            return line;
        }
    }
}

const FAREWELL: &str = "the game is over after ";

#[test]
fn a_player_walks_one_field_a_step_until_the_game_is_over() {
    let (program, addr) = Program::serve("in_a_game", &["--steps", "12", "127.0.0.1:0"]);
    let mut player = Caller::new(addr);
    player.says("right\n");
    player.hears("you are 1: left, right, up, down, stop, quit");
    let (began, mut steps) = (Instant::now(), Vec::new());
    let farewell = loop {
        let line = player.line();
        if line.starts_with(FAREWELL) {
            break line;
        }
        let (number, at) = step(&line);
        let at = at.strip_prefix("1 at ").and_then(|at| at.strip_suffix(",0")).expect(&line);
        steps.push((number, at.parse::<u64>().expect(&line)));
    };
    assert_eq!(farewell, "the game is over after 12 steps");
    player.hears_the_end();
    drop(player);
    assert_eq!(steps.last().map(|(number, _)| *number), Some(12));
    for pair in steps.windows(2) {
        let ((one, from), (next, to)) = (pair[0], pair[1]);
        // It may stand for the first ones, until what it said has come.
        assert!(next == one + 1 && (to == from + 1 || (from, to) == (0, 0)), "{steps:?}");
    }
    let between = u32::try_from(steps.len()).expect("few").saturating_sub(2);
    assert!(began.elapsed() >= Duration::from_millis(50) * between, "twenty steps a second, and no more");
    let told = program.ends_well();
    assert!(told.len() == 1 && told[0].starts_with("12 steps; the latest was "), "{told:?}");
}

#[test]
fn what_a_player_says_wrong_harms_nobody_else() {
    let (_program, addr) = Program::serve("in_a_game", &["127.0.0.1:0"]);
    let mut player = Caller::new(addr);
    hears_besides(&mut player);
    for nonsense in [&b""[..], b"LEFT", b"jump", b"\0", b"left right", b"\xff"] {
        player.says([nonsense, b"\n"].concat());
        assert_eq!(hears_besides(&mut player), "left, right, up, down, stop, or quit?");
    }
    let talker = dial(addr);
    say(&talker, "x".repeat(33));
    read_all(&talker); // to its end
    let breaker = Caller::new(addr);
    breaker.says("down\n");
    let Caller { socket, lines } = breaker;
    drop(lines);
    common::reset(socket);
    let quitter = dial(addr);
    say(&quitter, "quit\nleft\n");
    read_all(&quitter);
    player.says(" stop \r\nmore\n");
    assert_eq!(hears_besides(&mut player), "left, right, up, down, stop, or quit?");
}

#[test]
fn the_steps_come_whatever_the_network_does() {
    let (program, addr) = Program::serve("in_a_game", &["--steps", "40", "127.0.0.1:0"]);
    let mut watcher = Caller::new(addr);
    watcher.hears("you are 1: left, right, up, down, stop, quit");
    let floods = (0..14).map(|n| {
        let mut socket = dial(addr);
        let text = if n % 2 == 0 { "left\n" } else { "nonsense\n" }.repeat(1000);
        // Until the game is over. Half of them are answered, and do not read that.
        thread::spawn(move || while socket.write_all(text.as_bytes()).is_ok() {})
    });
    let floods: Vec<_> = floods.collect();
    let comers = thread::spawn(move || (0..500).for_each(|_| drop(TcpStream::connect(addr)))); // and gone at once
    let mut last = step(&watcher.line()).0;
    let farewell = loop {
        let line = watcher.line();
        if line.starts_with(FAREWELL) {
            break line;
        }
        assert_eq!(step(&line).0, last + 1, "no step is left out");
        last += 1;
    };
    assert_eq!((last, farewell.as_str()), (40, "the game is over after 40 steps"));
    drop(watcher);
    let told = program.ends_well();
    assert!(told[0].starts_with("40 steps; "), "{told:?}");
    comers.join().expect("no panic");
    for flood in floods {
        flood.join().expect("no panic");
    }
}

#[test]
fn an_interrupt_ends_the_game_and_all_are_told() {
    let (mut program, addr) = Program::serve("in_a_game", &["127.0.0.1:0"]);
    let mut player = Caller::new(addr);
    while !player.line().starts_with("step ") {}
    program.interrupt();
    let told = hears_besides(&mut player);
    assert!(told.starts_with(FAREWELL), "{told}");
    player.hears_the_end();
    drop(player);
    let (status, told, _) = program.end();
    assert_eq!((status.code(), told.len()), (Some(0), 1));
}

#[test]
fn one_more_player_than_the_field_has_room_for_is_told_so() {
    let (_program, addr) = Program::serve("in_a_game", &["127.0.0.1:0"]);
    let mut players: Vec<Caller> = (0..16).map(|_| Caller::new(addr)).collect();
    for player in &mut players {
        assert!(player.line().starts_with("you are "));
    }
    let mut surplus = Caller::new(addr);
    surplus.hears("the field is full");
    surplus.hears_the_end();
    players.pop().expect("one").says("quit\n");
    while players[0].line().matches(" at ").count() > 15 {}
    assert!(Caller::new(addr).line().starts_with("you are 17"));
}

// ------------------------------------------------------------------------------------------------------- timestamp

#[test]
fn a_server_listens_at_a_path_too_and_takes_the_file_away() {
    let path = UnixPath::new("timestamp");
    let program = Program::start("timestamp", &["serve", &path.address()]);
    assert_eq!(program.address(), path.address());
    let mut peer = UnixStream::connect(&path.0).expect("it listens");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    peer.write_all(b"hello\n").expect("connected");
    peer.shutdown(Shutdown::Write).expect("connected");
    let mut all = String::new();
    peer.read_to_string(&mut all).expect("an orderly end");
    assert!(all.ends_with("] hello\n"), "{all}");
    program.ends_drained();
    assert!(!path.0.exists());
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // since 1 January 1970

/// Takes `[Sat Nov 21 10:15:00 2026] text` apart, and is strict about each character: seconds since 1970 as the clock on
/// the wall counts them, and the text.
#[track_caller]
fn unstamp(line: &str) -> (i64, &str) {
    let (stamp, text) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).expect(line);
    assert_eq!(stamp.len(), 24, "{line}");
    let field = |at: usize, len: usize| &stamp[at..at + len];
    let number = |at: usize, len: usize| -> i64 {
        assert!(field(at, len).bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        field(at, len).parse().expect(line)
    };
    for (at, separator) in [(3, " "), (7, " "), (10, " "), (13, ":"), (16, ":"), (19, " ")] {
        assert_eq!(field(at, 1), separator, "{line}");
    }
    let month = 1 + MONTHS.iter().position(|month| *month == field(4, 3)).expect(line) as i64;
    let day = if field(8, 1) == " " { number(9, 1) } else { number(8, 2) };
    assert!(day > 9 || field(8, 1) == " ", "ctime pads the day with a space: {line}");
    let (hour, minute, second, year) = (number(11, 2), number(14, 2), number(17, 2), number(20, 4));
    assert!(hour < 24 && minute < 60 && second <= 60 && (1..=31).contains(&day), "{line}");
    let days = days_since_1970(year, month, day);
    assert_eq!(DAYS[days.rem_euclid(7) as usize], field(0, 3), "{line}");
    (((days * 24 + hour) * 60 + minute) * 60 + second, text)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let of_month = |month: i64| match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum::<i64>() + (1..month).map(of_month).sum::<i64>() + day - 1
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().try_into().expect("before the year 292 billion")
}

fn time_server() -> (Program, SocketAddr) {
    Program::serve("timestamp", &["serve", "127.0.0.1:0"])
}

#[test]
fn the_check_of_stamps_knows_a_good_one() {
    assert_eq!(unstamp("[Sat Nov 21 10:15:00 2026] a] b"), (1_795_256_100, "a] b"));
    assert_eq!(unstamp("[Thu Jan  1 00:00:07 1970] "), (7, ""));
    for wrong in [
        "[Fri Nov 21 10:15:00 2026] x",
        "[Sat Nov 21 10:15:00 2026]x",
        "[Thu Jan 01 00:00:07 1970] x",
        "[Sat Nov 21 24:15:00 2026] x",
        "[Sat Nov 21 10:15:00 2026 ] x",
    ] {
        assert!(std::panic::catch_unwind(|| unstamp(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn what_netcat_sends_comes_back_stamped_and_the_connection_closes() {
    let (_program, addr) = time_server();
    let mut caller = Caller::new(addr);
    caller.says("hello\r\nworld\n");
    caller.hangs_up();
    assert_eq!(unstamp(&caller.line()).1, "hello");
    assert_eq!(unstamp(&caller.line()).1, "world");
    caller.hears_the_end();
}

#[test]
fn the_time_is_the_local_time_now() {
    for (zone, ahead) in [("UTC0", 0), ("EAST-5:30", 5 * 3600 + 1800), ("WEST8", -8 * 3600)] {
        let program = Program::start_in(zone, "timestamp", &["serve", "127.0.0.1:0"]);
        let mut caller = Caller::new(program.address().parse().expect("an IP address"));
        let before = now();
        caller.says("x\n");
        let answer = caller.line();
        let (stamp, text) = unstamp(&answer);
        assert_eq!(text, "x");
        assert!((before + ahead..=now() + ahead).contains(&stamp), "{zone}");
    }
}

#[test]
fn any_number_of_lines_is_stamped_in_order_however_they_are_cut() {
    let (_program, addr) = time_server();
    let mut caller = Caller::new(addr);
    let many: String = (0..5000).map(|n| format!("line {n}{}", ["\n", "\r\n"][n % 2])).collect();
    caller.says(&many);
    for n in 0..5000 {
        assert_eq!(unstamp(&caller.line()).1, format!("line {n}"));
    }
    for byte in "one\r\n\ntwo\n".bytes() {
        caller.says([byte]);
    }
    for text in ["one", "", "two"] {
        assert_eq!(unstamp(&caller.line()).1, text);
    }
    caller.says(b"\xff\x00\n");
    let mut line = Vec::new();
    caller.lines.read_until(b'\n', &mut line).expect("an answer in time");
    assert!(line.ends_with(b"] \xff\x00\n"), "{}", line.escape_ascii());
}

#[test]
fn too_long_a_line_is_refused_and_the_next_is_stamped() {
    let (_program, addr) = time_server();
    let mut caller = Caller::new(addr);
    caller.says(format!("{}\n{}\nnext\n", "x".repeat(4096), "y".repeat(500_000)));
    assert_eq!(unstamp(&caller.line()).1, "x".repeat(4096));
    caller.hears("line too long: 4096 bytes at most");
    assert_eq!(unstamp(&caller.line()).1, "next");
}

#[test]
fn who_says_nothing_is_let_go_and_not_too_early() {
    let (_program, addr) = Program::serve("timestamp", &["serve", "--idle", "1", "127.0.0.1:0"]);
    let mut caller = Caller::new(addr);
    caller.says("hello\n");
    assert_eq!(unstamp(&caller.line()).1, "hello");
    let said = Instant::now();
    caller.says("unfinish");
    caller.hears_the_end();
    assert!(said.elapsed() >= Duration::from_secs(1));
}

#[test]
fn who_asks_on_and_on_but_does_not_read_is_let_go() {
    let (_program, addr) = Program::serve("timestamp", &["serve", "--idle", "1", "127.0.0.1:0"]);
    let mut caller = dial(addr);
    let lines = "hello?\n".repeat(1000);
    let error = (0..10_000).find_map(|_| caller.write_all(lines.as_bytes()).err()).expect("it does not go on for ever");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn without_arguments_both_sides_are_shown_and_what_it_suggests_works() {
    let (mut program, addr) = Program::serve("timestamp", &[]);
    for _ in 0..2 {
        let said = program.line().strip_prefix("client: ").expect("what the client sent").to_owned();
        let answer = program.line();
        assert_eq!(unstamp(answer.strip_prefix("server: ").expect("what came back")).1, said);
    }
    program.line(); // an empty one
    program.line(); // what to do with the next two
    let netcat = program.line();
    let hint = format!("printf 'hello\\r\\nworld\\n' | nc -N 127.0.0.1 {}  # ncat: without -N", addr.port());
    assert_eq!(netcat.trim(), hint);
    let suggested = program.line();
    let ask = suggested.trim().strip_prefix("cargo run --release --example timestamp -- ").expect("a command");
    let client = Program::start("timestamp", &[ask.split(' ').collect::<Vec<_>>().as_slice(), &["good", "morning"]].concat());
    assert_eq!(unstamp(&client.ends_well()[0]).1, "good morning");
    program.end_of_input();
    let mut caller = Caller::new(addr);
    caller.says("still here?\n");
    assert_eq!(unstamp(&caller.line()).1, "still here?");
}

#[test]
fn ask_sends_its_arguments_as_a_line() {
    let (_program, addr) = time_server();
    let to = addr.to_string();
    for (words, line) in [(&["one"][..], "one"), (&["one", "two  three"], "one two  three"), (&[""], ""), (&["--", "-x"], "-x")] {
        let answers = Program::start("timestamp", &[&["ask", &to], words].concat()).ends_well();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(unstamp(&answers[0]).1, line);
    }
    let answers = Program::start("timestamp", &["ask", &to, "one\ntwo"]).ends_well();
    assert_eq!(answers.iter().map(|answer| unstamp(answer).1).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn ask_reads_lines_up_to_an_empty_one_and_prompts_nobody_who_is_no_terminal() {
    let (_program, addr) = time_server();
    for empty in ["\n", "\r\n"] {
        let mut client = Program::start("timestamp", &["ask", &addr.to_string()]);
        client.types("one\n");
        assert_eq!(unstamp(&client.line()).1, "one");
        client.types(&format!("two\r\nthree\n{empty}not asked\n"));
        let rest = client.ends_well();
        assert_eq!(rest.iter().map(|answer| unstamp(answer).1).collect::<Vec<_>>(), ["two", "three"]);
    }
}

#[test]
fn ask_stops_at_the_end_of_input_and_asks_an_unfinished_line_too() {
    let (_program, addr) = time_server();
    let mut client = Program::start("timestamp", &["ask", &addr.to_string()]);
    client.types("one\ntwo");
    client.end_of_input();
    let answers = client.ends_well();
    assert_eq!(answers.iter().map(|answer| unstamp(answer).1).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn ask_prompts_on_a_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let (_program, addr) = time_server();
    // script(1) runs it on a terminal of its own, and writes down what is to be seen there.
    let line = format!("'{}' ask {addr}", path("timestamp").display());
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = command.spawn().expect("script(1)");
    let mut typist = terminal.stdin.take().expect("piped");
    let mut screen = BufReader::new(terminal.stdout.take().expect("piped"));
    let mut seen = Vec::new();
    screen.read_until(b'>', &mut seen).expect("a prompt");
    typist.write_all(b"hello\n").expect("it reads");
    screen.read_until(b'>', &mut seen).expect("the next one");
    typist.write_all(b"\n").expect("it reads");
    screen.read_to_end(&mut seen).expect("the end");
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.starts_with('>') && seen.contains("] hello\r\n> "), "{seen:?}");
    assert!(terminal.wait().expect("ours").success());
}

#[test]
fn ask_shows_what_a_server_says_without_harm_to_a_terminal() {
    let (listener, addr) = listener();
    let client = Program::start("timestamp", &["ask", &addr.to_string(), "hello"]);
    let server = accept(&listener);
    BufReader::new(&server).read_line(&mut String::new()).expect("the question in time");
    say(&server, "\x1b[2Jgone\u{202e}fdp.exe\u{9b}31m\n");
    let shown = client.ends_well();
    assert_eq!(shown, [" [2Jgone\u{fffd}fdp.exe 31m"]);
}

#[test]
fn ask_gives_a_server_up_that_does_not_answer_or_drips() {
    for piece in ["", "x"] {
        let (listener, addr) = listener();
        let client = Program::start("timestamp", &["ask", "--timeout", "1", &addr.to_string(), "hello"]);
        let mut server = accept(&listener);
        let dripping = thread::spawn(move || {
            let _ = uninterrupted(|| server.read(&mut [0; 100])); // the question
            while server.write_all(piece.as_bytes()).is_ok() && !matches!(uninterrupted(|| server.read(&mut [0])), Ok(0)) {}
        });
        let (_, complaint) = client.ends_badly();
        assert_eq!(complaint, format!("error: the server {addr} has not answered for 1 seconds"));
        dripping.join().expect("no panic");
    }
}

#[test]
fn ask_and_the_show_say_that_they_cannot_print() {
    if !cfg!(target_os = "linux") {
        return; // full(4)
    }
    let (_program, addr) = time_server();
    let to = addr.to_string();
    for arguments in [&["ask", &to, "hello"][..], &["ask", &to], &[]] {
        let full = File::options().write(true).open("/dev/full").expect("full(4)");
        let mut command = Command::new(path("timestamp"));
        let child = command.args(arguments).stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("it was built");
        let _ = child.stdin.take().expect("piped").write_all(b"hello\n"); // it may have ended
        let output = child.wait_with_output().expect("ours");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert_eq!(complaint, "error: cannot write to standard output: No space left on device (os error 28)\n");
    }
}

#[test]
fn ask_says_that_standard_input_cannot_be_read() {
    let (_program, addr) = time_server();
    let folder = File::open("/").expect("a folder");
    let output = Command::new(path("timestamp")).args(["ask", &addr.to_string()]).stdin(folder).output().expect("it was built");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.starts_with("error: cannot read standard input: ") && complaint.lines().count() == 1, "{complaint}");
}

#[test]
fn ask_says_in_one_line_that_the_server_cannot_be_reached() {
    let (_socket, addr) = nobody();
    for text in [&["hello"][..], &[]] {
        let (stdout, complaint) = Program::start("timestamp", &[&["ask", &addr.to_string()], text].concat()).ends_badly();
        assert_eq!(stdout, [""; 0]);
        assert!(complaint.contains("connect") && complaint.contains(&addr.to_string()), "{complaint}");
    }
}

#[test]
fn ask_says_in_one_line_that_the_server_broke_off() {
    let (listener, addr) = listener();
    for text in [&["hello"][..], &[]] {
        let mut client = Program::start("timestamp", &[&["ask", &addr.to_string()], text].concat());
        let server = accept(&listener);
        client.types("hello\n");
        let mut line = String::new();
        BufReader::new(server).read_line(&mut line).expect("the question in time");
        assert_eq!(line, "hello\n");
        let (_, complaint) = client.ends_badly();
        assert!(complaint.contains("lost") && complaint.contains(&addr.to_string()), "{complaint}");
    }
}

#[test]
fn ask_does_not_listen_to_a_server_that_talks_unasked() {
    let (listener, addr) = listener();
    let client = Program::start("timestamp", &["ask", &addr.to_string()]);
    let server = accept(&listener);
    say(&server, "news\n".repeat(10));
    let (_, complaint) = client.ends_badly();
    assert!(complaint.contains("more than it was asked"), "{complaint}");
}

#[test]
fn ask_can_be_interrupted_at_the_prompt() {
    let (_program, addr) = time_server();
    let mut client = Program::start("timestamp", &["ask", &addr.to_string()]);
    client.types("one\n");
    client.line();
    client.ends_interrupted();
}

// ------------------------------------------------------------------------------------------------ timestamp by UDP

/// A socket that nobody is waited for at longer than a test may take.
fn udp(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    socket
}

fn is_there(at: &str) -> bool {
    let is_there = UdpSocket::bind(at).is_ok();
    if !is_there {
        skip(format_args!("{at} cannot be bound: this system has no IPv6"));
    }
    is_there
}

/// One that asks by datagrams.
struct Inquirer {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Inquirer {
    fn new(server: SocketAddr) -> Self {
        let at = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        Self { socket: udp(at), server }
    }

    fn says(&self, question: impl AsRef<[u8]>) {
        self.socket.send_to(question.as_ref(), self.server).expect("loopback");
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut answer = [0; 65_536];
        let (bytes, from) = uninterrupted(|| self.socket.recv_from(&mut answer)).expect("an answer in time");
        assert_eq!(from, self.server);
        String::from_utf8(answer[..bytes].to_vec()).expect("as it was asked")
    }

    /// One line, stamped.
    #[track_caller]
    fn hears_stamped(&self, text: &str) {
        let answer = self.hears();
        let line = answer.strip_suffix('\n').expect("a whole line");
        assert_eq!(unstamp(line).1, text);
    }
}

#[test]
fn a_datagram_is_answered_with_one_stamped_line_whatever_lines_it_has() {
    for at in ["127.0.0.1:0", "[::1]:0"].into_iter().filter(|at| is_there(at)) {
        let (program, addr) = Program::serve("timestamp", &["serve", "--udp", at]);
        assert_ne!(addr.port(), 0);
        let inquirer = Inquirer::new(addr);
        let cases = [("hello\n", "hello"), ("hello", "hello"), ("hello\r\n", "hello"), ("", ""), ("\n", "")];
        for (question, text) in cases.into_iter().chain([("one\r\ntwo\nthree", "one two three"), ("a\n\nb\n", "a  b")]) {
            inquirer.says(question);
            inquirer.hears_stamped(text);
        }
        program.ends_drained();
    }
}

#[test]
fn an_answer_is_longer_than_its_question_by_a_stamp_and_the_end_of_a_line_at_most() {
    let (_program, addr) = Program::serve("timestamp", &["serve", "--udp", "127.0.0.1:0"]);
    let inquirer = Inquirer::new(addr);
    let stamp = "[Sat Nov 21 10:15:00 2026] ".len();
    for question in ["", "\n", "x", "x\ny\n", &"\n".repeat(4096), &"x".repeat(4096), &"x".repeat(4097), &"\n".repeat(65_507)] {
        inquirer.says(question);
        let answer = inquirer.hears();
        assert!(answer.len() <= question.len() + stamp + 1, "{} bytes were answered by {}", question.len(), answer.len());
        assert_eq!(answer.matches('\n').count(), 1);
        assert_eq!(answer.contains("too long"), question.len() > 4096);
    }
}

#[test]
fn two_servers_do_not_answer_each_other_for_ever() {
    let (_program, addr) = Program::serve("timestamp", &["serve", "--udp", "127.0.0.1:0"]);
    let inquirer = Inquirer::new(addr);
    inquirer.says("hello\n");
    let answer = inquirer.hears();
    inquirer.says(&answer);
    inquirer.says(answer.repeat(1000));
    inquirer.says([answer.as_bytes(), b"\xff"].concat());
    inquirer.says("the next");
    inquirer.hears_stamped("the next"); // and nothing before it
}

#[test]
fn ask_by_udp_prints_one_line_and_finds_a_server_by_its_name() {
    for at in ["127.0.0.1:0", "[::1]:0"].into_iter().filter(|at| is_there(at)) {
        let (_program, addr) = Program::serve("timestamp", &["serve", "--udp", at]);
        for to in [addr.to_string(), format!("localhost:{}", addr.port())] {
            if to.starts_with("local") && addr.is_ipv6() {
                continue; // a name may have an address of IPv4 only
            }
            let answers = Program::start("timestamp", &["ask", "--udp", &to, "two", "words"]).ends_well();
            assert_eq!(answers.iter().map(|answer| unstamp(answer).1).collect::<Vec<_>>(), ["two words"]);
        }
    }
}

#[test]
fn ask_by_udp_asks_three_times_and_then_says_that_nobody_answers() {
    let silent = udp("127.0.0.1:0");
    let addr = silent.local_addr().expect("bound");
    let client = Program::start("timestamp", &["ask", "--udp", "--timeout", "1", &addr.to_string(), "hello"]);
    for _ in 0..3 {
        let mut question = [0; 100];
        let bytes = uninterrupted(|| silent.recv(&mut question)).expect("asked in time");
        assert_eq!(&question[..bytes], b"hello\n");
    }
    let (stdout, complaint) = client.ends_badly();
    assert_eq!(stdout, [""; 0]);
    assert_eq!(complaint, format!("error: the server {addr} was asked 3 times, and has not answered for 1 seconds each"));
    silent.set_nonblocking(true).expect("a socket option");
    assert_eq!(uninterrupted(|| silent.recv(&mut [0])).expect_err("not a fourth time").kind(), ErrorKind::WouldBlock);
}

#[test]
fn ask_by_udp_takes_a_late_answer_and_shows_it_without_harm_to_a_terminal() {
    let server = udp("127.0.0.1:0");
    let addr = server.local_addr().expect("bound").to_string();
    let client = Program::start("timestamp", &["ask", "--udp", "--timeout", "1", &addr, "hello"]);
    let first = uninterrupted(|| server.recv_from(&mut [0; 100])).expect("asked").1;
    uninterrupted(|| server.recv_from(&mut [0; 100])).expect("asked again");
    server.send_to(b"\x1b[2Jgone\n", first).expect("loopback");
    assert_eq!(client.ends_well(), [" [2Jgone"]);
}

#[test]
fn ask_by_udp_says_at_once_that_nobody_is_there() {
    let deaf = udp("127.0.0.1:0");
    let gone = deaf.local_addr().expect("bound");
    deaf.connect("127.0.0.1:1").expect("loopback"); // so it is nobody for others, and the port is not free
    let (stdout, complaint) = Program::start("timestamp", &["ask", "--udp", &gone.to_string(), "hello"]).ends_badly();
    assert_eq!(stdout, [""; 0]);
    assert!(complaint.starts_with(&format!("error: cannot ask {gone}: ")), "{complaint}");
}

// ------------------------------------------------------------------------------------------------------------ ping

#[allow(dead_code)] // what only the program needs
#[path = "../examples/ping/icmp.rs"]
mod icmp;

/// Whether this process may; skips if not.
fn may_ping() -> bool {
    let may = [Type::DGRAM, Type::RAW].iter().any(|kind| Socket::new(Domain::IPV4, *kind, Some(Protocol::ICMPV4)).is_ok());
    if !may {
        skip("neither net.ipv4.ping_group_range nor CAP_NET_RAW allows ICMP here");
    }
    may
}

/// What `ping` says of answers to this many questions, all in order.
#[track_caller]
fn assert_answers(lines: &[String], host: &str, count: usize) {
    assert_eq!(lines.len(), count + 3, "{lines:?}");
    assert!(lines[0].starts_with(&format!("asking {host} at ")) && lines[0].ends_with(", 56 bytes of data"), "{lines:?}");
    for (n, line) in lines[1..=count].iter().enumerate() {
        assert!(line.starts_with(&format!("56 bytes, answer to {}: ", n + 1)) && line.ends_with(" ms"), "{lines:?}");
    }
    assert_eq!(lines[count + 1], format!("{count} asked, {count} answered, 0% lost"));
    assert!(lines[count + 2].starts_with("least "), "{lines:?}");
}

#[test]
fn ping_asks_so_often_and_sums_up() {
    if !may_ping() {
        return;
    }
    for (host, at) in [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0"), ("localhost", "127.0.0.1:0")] {
        if is_there(at) {
            let lines = Program::start("ping", &["-c", "3", "-i", "0.01", host]).ends_well();
            assert_answers(&lines, host, 3);
        }
    }
    let lines = Program::start("ping", &["-4", "-c1", "localhost"]).ends_well();
    assert!(lines[0].starts_with("asking localhost at 127."), "{lines:?}");
}

#[test]
fn ping_sums_up_when_it_is_interrupted() {
    if !may_ping() {
        return;
    }
    let program = Program::start("ping", &["127.0.0.1", "-i", "3600"]);
    let begin = [program.line(), program.line()];
    let lines = [begin.to_vec(), program.ends_interrupted()].concat();
    assert_answers(&lines, "127.0.0.1", 1);
}

#[test]
fn ping_says_that_it_cannot_print() {
    if !may_ping() || !cfg!(target_os = "linux") {
        return; // full(4)
    }
    let full = File::options().write(true).open("/dev/full").expect("full(4)");
    let output = Command::new(path("ping")).args(["-c1", "127.0.0.1"]).stdout(full).output().expect("it was built");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert_eq!(complaint, "error: cannot write to standard output: No space left on device (os error 28)\n");
}

#[test]
fn ping_says_who_does_not_answer() {
    let Some(mut shell) = Program::shell_with_a_network() else { return };
    let ping = path("ping").display().to_string();
    shell.types("ip link set lo up; echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all\n");
    shell.types(&format!("exec '{ping}' -c 2 -i 0.01 -W 0.05 127.0.0.1\n"));
    let (lines, complaint) = shell.ends_badly();
    assert_eq!(complaint, "error: 127.0.0.1 has not answered");
    let expected = ["no answer to 1 in 0.05 seconds", "no answer to 2 in 0.05 seconds", "2 asked, 0 answered, 100% lost"];
    assert_eq!(lines[1..], expected);
}

#[test]
fn ping_says_that_there_is_no_way_to_a_host() {
    let Some(mut shell) = Program::shell_with_a_network() else { return };
    shell.types(&format!("exec '{}' -c 1 192.0.2.1\n", path("ping").display()));
    let (_, complaint) = shell.ends_badly();
    assert!(complaint.starts_with("error: cannot reach 192.0.2.1: "), "{complaint}");
}

/// Without the capability; first without the sysctl, too.
#[test]
fn ping_needs_no_privilege_where_the_system_allows_it_and_says_what_is_missing_where_not() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return skip("setpriv(1) is not installed");
    }
    let Some(mut shell) = Program::shell_with_a_network() else { return };
    let ping = format!("setpriv --bounding-set -net_raw '{}' -c 1", path("ping").display());
    shell.types("ip link set lo up\n");
    for (host, _) in [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0")].into_iter().filter(|(_, at)| is_there(at)) {
        shell.types(&format!("{ping} {host}; echo $?\n"));
        let complaint = shell.complaint();
        assert!(complaint.starts_with("error: not allowed to ask by ICMP: "), "{complaint}");
        assert!(complaint.contains("net.ipv4.ping_group_range (now: ") && complaint.contains("CAP_NET_RAW"), "{complaint}");
        assert_eq!(shell.line(), "2");
    }
    shell.types(&format!("echo 0 0 >/proc/sys/net/ipv4/ping_group_range; {ping} 127.0.0.1\n"));
    shell.end_of_input();
    assert_answers(&shell.ends_well(), "127.0.0.1", 1);
}

// -------------------------------------------------------------------------------------------------------- netwatch

#[path = "../examples/common/printable.rs"]
mod printable;
#[allow(dead_code)] // what only the program needs
#[path = "../examples/netwatch/route.rs"]
mod route;
#[path = "../examples/netwatch/table.rs"]
mod table;

#[test]
fn netwatch_says_what_there_is_and_needs_no_privilege() {
    if !cfg!(target_os = "linux") {
        let (_, complaint) = Program::start("netwatch", &["--once"]).ends_with(2);
        assert!(complaint.contains("Linux"), "{complaint}");
        return;
    }
    let lines = Program::start("netwatch", &["--once"]).ends_well();
    assert!(lines.iter().all(|line| line.starts_with("= ")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("= 1 lo: ")), "{lines:?}");
    assert!(lines.contains(&"= 1 lo 127.0.0.1/8".to_owned()), "{lines:?}");
}

#[test]
fn netwatch_can_be_interrupted() {
    if cfg!(target_os = "linux") {
        let program = Program::start("netwatch", &[]);
        while program.line() != "watching until Ctrl-C" {}
        program.ends_interrupted();
    }
}

/// A shell in which it watches, and has said what was there: the loopback.
fn watched_network() -> Option<Program> {
    let mut shell = Program::shell_with_a_network()?;
    shell.types(&format!("'{}' & pid=$!\n", path("netwatch").display()));
    assert_eq!(shell.line(), "= 1 lo: down, mtu 65536");
    assert_eq!(shell.line(), "watching until Ctrl-C");
    shell.types("ip link set lo up\n");
    assert_eq!(shell.line(), "~ 1 lo: up, mtu 65536");
    while shell.line() != "+ 1 lo 127.0.0.1/8" {} // that of IPv6 may come first
    Some(shell)
}

#[test]
fn netwatch_tells_what_comes_changes_and_goes() {
    let Some(mut shell) = watched_network() else { return };
    let mut sees = |command: &str, line: &str| {
        shell.types(&format!("{command}\n"));
        while shell.line() != line {}
    };
    sees("ip addr add 10.0.0.1/24 dev lo", "+ 1 lo 10.0.0.1/24");
    sees("ip addr del 10.0.0.1/24 dev lo", "- 1 lo 10.0.0.1/24");
    sees("ip link set lo mtu 1400", "~ 1 lo: up, mtu 1400");
    // Not every kernel has each kind of link.
    let red = "ip link add red address 02:00:00:00:00:ab type $kind 2>/dev/null";
    shell.types(&format!("for kind in dummy ifb veth bridge none; do {red} && break; done; echo $kind\n"));
    let line = loop {
        match shell.line() {
            line if line == "none" => return skip("this kernel has no link that could be made"),
            line if line.contains(" red: ") => break line,
            _ => {}
        }
    };
    let number = line.strip_prefix("+ ").and_then(|line| line.strip_suffix(" red: down, mtu 1500, 02:00:00:00:00:ab"));
    let number = number.expect(&line);
    let mut sees = |command: &str, line: String| {
        shell.types(&format!("{command}\n"));
        while shell.line() != line {}
    };
    sees("ip link set red name blue", format!("~ {number} blue: down, mtu 1500, 02:00:00:00:00:ab"));
    sees("ip addr add 10.0.0.2/30 dev blue", format!("+ {number} blue 10.0.0.2/30"));
    sees("ip link del blue", format!("- {number} blue 10.0.0.2/30"));
    sees("", format!("- {number} blue: down, mtu 1500, 02:00:00:00:00:ab"));
}

#[test]
fn netwatch_looks_at_all_again_when_news_were_lost() {
    let Some(mut shell) = watched_network() else { return };
    // While it stands still more comes than the kernel keeps for it: the address comes before that, and goes behind it.
    shell.types("kill -STOP $pid; ip addr add 10.9.9.9/32 dev lo\n");
    shell.types("for n in 1 2 3 4 5 6 7 8; do for m in $(seq 100); do for what in add del; do echo addr $what 10.0.$n.$m/32 dev lo; done; done; done | ip -batch -\n");
    shell.types("ip addr del 10.9.9.9/32 dev lo; kill -CONT $pid\n");
    while shell.line() != "+ 1 lo 10.9.9.9/32" {}
    while shell.line() != "- 1 lo 10.9.9.9/32" {}
    assert_eq!(shell.complaint(), "some news was lost: looking at everything again");
    shell.types("kill -INT $pid; wait $pid; exit $?\n");
    assert_eq!(shell.end().0.code(), Some(130));
}

// ------------------------------------------------------------------------------------------------------------ chat

fn room() -> (Program, SocketAddr) {
    Program::serve("chat", &["127.0.0.1:0"])
}

/// Somebody who has been asked for a name, has given it, and was let in.
#[track_caller]
fn enter(room: SocketAddr, name: &str) -> Caller {
    let mut guest = Caller::new(room);
    guest.hears("Your name?");
    guest.says(format!("{name}\r\n"));
    assert!(guest.line().starts_with(&format!("Welcome, {name}!")));
    guest
}

#[test]
fn what_one_says_all_others_read() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    ann.hears("* bob joined");
    let mut eve = enter(addr, "eve");
    for other in [&mut ann, &mut bob] {
        other.hears("* eve joined");
    }
    ann.says("hello\r\n");
    bob.says("\n  \nhi ann \n"); // nothing is said by an empty line
    ann.hears("<bob> hi ann");
    bob.hears("<ann> hello");
    let mut heard = [eve.line(), eve.line()];
    heard.sort();
    assert_eq!(heard, ["<ann> hello", "<bob> hi ann"]);
}

#[test]
fn a_name_that_is_taken_or_empty_is_refused_and_asked_for_again() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut guest = Caller::new(addr);
    guest.hears("Your name?");
    guest.says("\r\n  \n");
    for _ in 0..2 {
        guest.hears("A name has 1 to 32 characters. Your name?");
    }
    guest.says(format!("{}\n", "x".repeat(33)));
    guest.hears("A name has 1 to 32 characters. Your name?");
    guest.says("ann\n ann \nann\x07\n");
    for _ in 0..3 {
        guest.hears("ann is here already. Your name?");
    }
    guest.says("bob\n");
    assert!(guest.line().starts_with("Welcome, bob!"));
    ann.hears("* bob joined"); // and nothing before
    ann.says("/quit\n");
    guest.hears("* ann left");
    enter(addr, "ann"); // the name is free again
    guest.hears("* ann joined");
}

#[test]
fn a_command_that_there_is_not_is_not_said_aloud() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    ann.hears("* bob joined");
    bob.says("/qiut\n/me waves\n / \nbye\n");
    for _ in 0..3 {
        bob.hears("Not said: there is /who and /quit, and no other command.");
    }
    ann.hears("<bob> bye");
    let mut unnamed = Caller::new(addr);
    unnamed.hears("Your name?");
    unnamed.says("/who\n/quit\n");
    unnamed.hears("A name must have none of < > * in it, and no / in front. Your name?");
    unnamed.hears_the_end();
}

#[test]
fn all_are_told_when_the_room_closes() {
    let (mut program, addr) = room();
    let (mut ann, mut unnamed) = (enter(addr, "ann"), Caller::new(addr));
    unnamed.hears("Your name?");
    program.interrupt();
    for guest in [&mut ann, &mut unnamed] {
        guest.hears("* the room closes");
        guest.hears_the_end();
    }
    let (status, _, complaints) = program.end();
    assert_eq!((status.code(), complaints), (Some(0), vec![]));
}

#[test]
fn one_more_than_the_room_has_places_is_told_so() {
    let (_program, addr) = room();
    let mut guests: Vec<TcpStream> = (0..500).map(|_| dial(addr)).collect();
    let mut last = Caller::of(guests.pop().expect("one of them"));
    last.hears("Your name?");
    let mut surplus = Caller::new(addr);
    surplus.hears("* the room is full, try again later");
    surplus.hears_the_end();
}

#[test]
fn members_who_do_not_read_cost_little() {
    if !cfg!(target_os = "linux") {
        return; // proc(5)
    }
    let (program, addr) = room();
    let silent: Vec<TcpStream> = (0..200)
        .map(|n| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
            socket.set_recv_buffer_size(4096).expect("a socket option");
            socket.connect(&addr.into()).expect("the room is open");
            let socket = TcpStream::from(socket);
            say(&socket, format!("silent {n}\n"));
            socket
        })
        .collect();
    let ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    // All that their queues may hold, and more than any kernel keeps.
    let text = "z".repeat(1000);
    for batch in 0..400 {
        ann.says(format!("{text}\n").repeat(16) + &format!("{batch}\n"));
        while bob.line() != format!("<ann> {batch}") {}
    }
    assert!(memory_max(&program) < 64 << 20, "{} bytes", memory_max(&program));
    drop(silent);
}

#[test]
fn who_names_those_who_are_there_and_quit_leaves() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    let mut unnamed = Caller::new(addr);
    unnamed.hears("Your name?");
    ann.hears("* bob joined");
    ann.says("/who\n");
    let here = ann.line();
    let mut names: Vec<_> = here.strip_prefix("* here: ").expect("a list").split(", ").collect();
    names.sort_unstable();
    assert_eq!(names, ["ann", "bob"]);
    bob.says("/quit\nnot said any more\n");
    bob.hears_the_end();
    ann.hears("* bob left");
    ann.says("/who\n");
    ann.hears("* here: ann");
    unnamed.hangs_up();
    unnamed.hears_the_end();
    ann.says("/who\n");
    ann.hears("* here: ann"); // nobody left who had not come
}

#[test]
fn hanging_up_and_being_reset_are_leaving_too() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    ann.hears("* bob joined");
    bob.says("half a line is not sai");
    bob.hangs_up();
    ann.hears("* bob left");
    bob.hears_the_end();
    let Caller { socket, lines } = enter(addr, "eve");
    ann.hears("* eve joined");
    drop(lines);
    common::reset(socket);
    ann.hears("* eve left");
}

#[test]
fn nothing_that_is_said_garbles_the_terminals_of_others() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut guest = Caller::new(addr);
    guest.hears("Your name?");
    guest.says("b\x1b[2Job\n");
    assert!(guest.line().starts_with("Welcome, b [2Job!"));
    ann.hears("* b [2Job joined");
    guest.says("red: \x1b[31m bell: \x07 over:\rwrite C1: \u{9b}2J é no text: ");
    guest.says(b"\xff\n");
    ann.hears("<b [2Job> red:  [31m bell:   over: write C1:  2J é no text: \u{fffd}");
}

#[test]
fn too_long_a_line_is_not_said_and_its_writer_stays() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    ann.hears("* bob joined");
    bob.says(format!("{}\nshort\n", "x".repeat(100_000)));
    bob.hears("That was too long: 1024 bytes at most.");
    ann.hears("<bob> short");
}

#[test]
fn a_member_who_does_not_read_is_let_go_and_the_others_miss_nothing() {
    let (_program, addr) = room();
    let mut ann = enter(addr, "ann");
    let mut bob = enter(addr, "bob");
    ann.hears("* bob joined");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    socket.connect(&addr.into()).expect("the room is open");
    let sleeper = TcpStream::from(socket);
    say(&sleeper, "sleeper\n");
    for other in [&mut ann, &mut bob] {
        other.hears("* sleeper joined");
    }
    // A few lines at a time, so that it is only the sleeper who falls behind; up to 64 MB, more than any kernel keeps.
    let text = "z".repeat(1000);
    let mut has_left = false;
    for batch in 0..2000 {
        let numbers = batch * 32..(batch + 1) * 32;
        ann.says(numbers.clone().map(|n| format!("{n} {text}\n")).collect::<String>());
        for n in numbers {
            let mut line = bob.line();
            if line == "* sleeper left" {
                has_left = true;
                line = bob.line();
            }
            assert_eq!(line, format!("<ann> {n} {text}"));
        }
        if has_left {
            break;
        }
    }
    assert!(has_left, "the sleeper was let go");
    ann.hears("* sleeper left");
    ann.says("/who\n");
    let here = ann.line();
    assert!(here.contains("ann") && here.contains("bob") && !here.contains("sleeper"), "{here}");
    bob.says("good riddance\n");
    ann.hears("<bob> good riddance");
}

// ----------------------------------------------------------------------------------------------------------- proxy

/// A proxy before a target of ours.
fn proxy() -> (Program, SocketAddr, TcpListener) {
    let (target, to) = listener();
    let (program, addr) = Program::serve("proxy", &["127.0.0.1:0", &to.to_string()]);
    (program, addr, target)
}

/// Bytes that are not the same anywhere else.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[track_caller]
fn assert_same(got: &[u8], sent: &[u8]) {
    let differs = got.iter().zip(sent).position(|(got, sent)| got != sent);
    assert!(got.len() == sent.len() && differs.is_none(), "{} of {} bytes, first difference: {differs:?}", got.len(), sent.len());
}

/// Sends in a thread, then ends that direction; counts what was taken.
fn send_all(socket: &TcpStream, bytes: &[u8]) -> (thread::JoinHandle<()>, Arc<AtomicUsize>) {
    let (mut socket, bytes, taken) = (socket.try_clone().expect("a descriptor"), bytes.to_vec(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    let sender = thread::spawn(move || {
        for piece in bytes.chunks(64 << 10) {
            socket.write_all(piece).expect("the other side reads on");
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
        socket.shutdown(Shutdown::Write).expect("connected");
    });
    (sender, taken)
}

fn read_all(mut socket: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).expect("an orderly end");
    all
}

#[test]
fn proxy_carries_both_ways_at_once_exactly() {
    let (_program, addr, listener) = proxy();
    let client = dial(addr);
    let target = accept(&listener);
    let (there, back) = (noise(1, 24 << 20), noise(2, 24 << 20));
    let (one, _) = send_all(&client, &there);
    let (other, _) = send_all(&target, &back);
    let reader = thread::spawn(move || read_all(&target));
    assert_same(&read_all(&client), &back);
    assert_same(&reader.join().expect("no panic"), &there);
    one.join().expect("no panic");
    other.join().expect("no panic");
}

#[test]
fn proxy_holds_back_whoever_is_faster_and_loses_nothing() {
    let (program, addr, listener) = proxy();
    let client = dial(addr);
    let target = accept(&listener);
    let bytes = noise(3, 48 << 20);
    for (from, to) in [(&client, &target), (&target, &client)] {
        let (sender, taken) = send_all(from, &bytes);
        until_quiet(&taken);
        assert!(taken.load(Ordering::Relaxed) < bytes.len(), "nobody reads, and nobody keeps it all");
        assert_same(&read_all(to), &bytes);
        sender.join().expect("no panic");
    }
    if cfg!(target_os = "linux") {
        assert!(memory_max(&program) < 16 << 20, "{} bytes", memory_max(&program));
    }
}

/// Until the kernel's buffers and the proxy's marks are full: it has not moved for a while. (If that was only a hiccup, what
/// follows proves less, and still holds.)
fn until_quiet(taken: &AtomicUsize) {
    let began = Instant::now();
    let mut last = usize::MAX;
    loop {
        let now = taken.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nobody reads, and it goes on and on");
        last = now;
        thread::sleep(Duration::from_millis(100));
    }
}

/// The most memory that it had resident, in bytes: proc(5), VmHWM.
fn memory_max(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn proxy_passes_the_end_of_one_direction_on_and_keeps_the_other_open() {
    let (_program, addr, listener) = proxy();
    for client_first in [true, false] {
        let client = dial(addr);
        let target = accept(&listener);
        let (mut first, mut second) =
            if client_first { (Caller::of(client), Caller::of(target)) } else { (Caller::of(target), Caller::of(client)) };
        first.says("question\n");
        first.hangs_up();
        second.hears("question");
        second.hears_the_end();
        second.says("answer\n");
        first.hears("answer");
        second.says("more\n");
        second.hangs_up();
        first.hears("more");
        first.hears_the_end();
    }
}

#[test]
fn proxy_passes_a_reset_on() {
    let (_program, addr, listener) = proxy();
    for client_first in [true, false] {
        let (client, target) = (dial(addr), accept(&listener));
        let (first, mut second) = if client_first { (client, target) } else { (target, client) };
        say(&second, "x");
        let mut byte = [0];
        (&first).read_exact(&mut byte).expect("a byte in time"); // so both ways are open
        common::reset(first);
        let error = uninterrupted(|| second.read(&mut byte)).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn proxy_breaks_off_when_the_target_refuses_and_says_so_once() {
    let (_socket, to) = nobody();
    let (program, addr) = Program::serve("proxy", &["127.0.0.1:0", &to.to_string()]);
    for _ in 0..2 {
        let mut client = dial(addr);
        let error = uninterrupted(|| client.read(&mut [0])).expect_err("a reset, not an end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let complaint = program.complaint();
        assert!(complaint.contains("connect") && complaint.contains(&to.to_string()), "{complaint}");
    }
    assert_eq!(program.ends_drained(), [""; 0]);
}

#[test]
fn proxy_lets_its_clients_go_also_when_nobody_can_be_told_why() {
    let (_socket, to) = nobody();
    let (program, addr) = Program::serve_unheard("proxy", &["127.0.0.1:0", &to.to_string()]);
    for _ in 0..2 {
        let error = uninterrupted(|| dial(addr).read(&mut [0])).expect_err("a reset, not silence");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(program.ends_drained(), [""; 0]);
}

#[test]
fn proxy_lets_what_is_under_way_finish_when_it_is_interrupted() {
    let (mut program, addr, listener) = proxy();
    let mut client = Caller::new(addr);
    let mut target = Caller::of(accept(&listener));
    client.says("question\n");
    target.hears("question");
    target.says("half of ");
    let mut half = [0; 8];
    client.lines.read_exact(&mut half).expect("in time");
    program.signal("-TERM");
    while TcpStream::connect(addr).is_ok() {
        thread::yield_now(); // until it listens no more
    }
    target.says("the answer\n");
    client.hears("the answer");
    target.hangs_up();
    client.hears_the_end();
    client.hangs_up();
    let (status, stdout, stderr) = program.end();
    assert_eq!((status.code(), stdout, stderr), (Some(0), vec![], vec![]));
}

#[test]
fn proxy_keeps_nobody_through_whom_nothing_was_said_when_it_is_interrupted() {
    let (mut program, addr, listener) = proxy();
    let (client, target) = (dial(addr), accept(&listener));
    program.interrupt();
    assert_eq!((read_all(&client), read_all(&target)), (vec![], vec![]));
    drop((client, target));
    assert_eq!(program.end().0.code(), Some(0));
}

#[test]
fn proxy_ends_what_is_under_way_at_the_second_interrupt() {
    let both = [proxy(), proxy()];
    let held = both.each_ref().map(|(_, addr, listener)| {
        let (client, mut target) = (dial(*addr), accept(listener));
        say(&client, "x"); // where nothing was said nothing is under way
        target.read_exact(&mut [0]).expect("a byte in time");
        (client, target)
    });
    for (program, addr, _) in &both {
        program.interrupt();
        while TcpStream::connect(addr).is_ok() {
            thread::yield_now(); // until it listens no more
        }
    }
    let [(mut waits, ..), (mut program, ..)] = both;
    program.interrupt();
    assert_eq!(program.end().0.signal(), Some(2), "of the second one it dies");
    assert_eq!(waits.child.try_wait().expect("ours"), None, "the one that was asked once, and earlier, goes on");
    drop(held);
}

#[test]
fn proxy_finds_its_target_by_name() {
    let (target, to) = listener();
    let (_program, addr) = Program::serve("proxy", &["127.0.0.1:0", &format!("localhost:{}", to.port())]);
    let client = Caller::new(addr);
    client.says("hello\n");
    Caller::of(accept(&target)).hears("hello");
}

/// A server that may have no more than this many descriptors.
fn serve_with_descriptors(most: u32, name: &str, arguments: &str) -> (Program, SocketAddr) {
    let program = start_with_descriptors(most, name, arguments);
    let addr = program.address().parse().expect("an IP address");
    (program, addr)
}

fn start_with_descriptors(most: u32, name: &str, arguments: &str) -> Program {
    let line = format!("ulimit -n {most} && exec '{}' {arguments}", path(name).display());
    Program::run(Stdio::piped(), Command::new("sh").args(["-c", &line]))
}

#[test]
fn proxy_serves_everybody_in_the_end_however_few_descriptors_it_has() {
    let (target, to) = listener();
    let echoing = thread::spawn(move || {
        while let Ok((mut stream, _)) = target.accept() {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    let (mut program, addr) = serve_with_descriptors(32, "proxy", &format!("127.0.0.1:0 {to}"));
    let clients: Vec<TcpStream> = (0..100).map(|_| dial(addr)).collect();
    for mut client in clients {
        client.write_all(b"x").expect("it is let in, or waits until it is");
        client.read_exact(&mut [0]).expect("it is served as soon as those before it have gone");
    }
    program.interrupt();
    let (status, _, complaints) = program.end();
    assert_eq!((status.code(), complaints), (Some(0), vec![]));
    drop(echoing); // it waits for whoever comes next, and ends with the test
}

#[test]
fn gopher_server_answers_everybody_in_the_end_however_few_descriptors_it_has() {
    let (mut program, addr) = serve_with_descriptors(32, "gopher_server", "examples 127.0.0.1:0");
    let clients: Vec<TcpStream> = (0..100).map(|_| dial(addr)).collect();
    for client in &clients {
        (&*client).write_all(b"/echo.rs\r\n").expect("room in the kernel");
    }
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("it is answered as soon as those before it have gone");
        assert!(answer.contains("fn main()"), "{answer}");
    }
    program.interrupt();
    let (status, _, complaints) = program.end();
    assert_eq!((status.code(), complaints), (Some(0), vec![]));
}

/// A target whose backlog is full: the second one that calls it waits until the first was accepted.
fn busy_target(name: &str) -> (UnixListener, UnixPath, UnixStream) {
    let path = UnixPath::new(name);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor");
    socket.bind(&SockAddr::unix(&path.0).expect("a short path")).expect("a free path");
    socket.listen(0).expect("bound");
    let first = UnixStream::connect(&path.0).expect("there is room for one");
    (socket.into(), path, first)
}

#[track_caller]
fn accept_second(listener: &UnixListener) -> UnixStream {
    listener.accept().expect("the first");
    let (second, _) = listener.accept().expect("the proxy comes back");
    second.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    second
}

#[test]
fn proxy_keeps_what_comes_before_the_target_is_reached() {
    let (listener, path, _first) = busy_target("proxy");
    let (_program, addr) = Program::serve("proxy", &["127.0.0.1:0", &path.address()]);
    let client = dial(addr);
    SockRef::from(&client).set_send_buffer_size(64 << 10).expect("a socket option");
    let early = noise(4, 16 << 20);
    let (sender, taken) = send_all(&client, &early);
    until_quiet(&taken);
    assert!(taken.load(Ordering::Relaxed) < early.len(), "the proxy does not take in without end");
    let mut target = accept_second(&listener);
    let mut all = Vec::new();
    target.read_to_end(&mut all).expect("an orderly end");
    assert_same(&all, &early);
    target.write_all(b"got it").expect("connected");
    drop(target);
    assert_eq!(read_all(&client), b"got it");
    sender.join().expect("no panic");
}

#[test]
fn proxy_keeps_an_end_that_comes_before_the_target_is_reached() {
    let (listener, path, _first) = busy_target("proxy-end");
    let (_program, addr) = Program::serve("proxy", &["127.0.0.1:0", &path.address()]);
    let mut client = Caller::new(addr);
    client.says("all that I have to say");
    client.hangs_up();
    let mut target = accept_second(&listener);
    let mut all = String::new();
    target.read_to_string(&mut all).expect("an orderly end");
    assert_eq!(all, "all that I have to say");
    target.write_all(b"well\n").expect("connected");
    client.hears("well");
    drop(target);
    client.hears_the_end();
}

// ----------------------------------------------------------------------------------------- guess, timestamp_handler

#[test]
fn guess_is_played_by_halving_and_a_hit_begins_the_next_round_for_all() {
    let (program, addr) = Program::serve("guess", &["127.0.0.1:0"]);
    let (mut player, mut other) = (Caller::new(addr), Caller::new(addr));
    for nonsense in ["", "0", "101", "-1", "seven", "1e1", "18446744073709551616"] {
        other.says(format!("{nonsense}\n"));
        other.hears("round 1: that is not a number from 1 to 100");
    }
    let (mut low, mut high) = (1, 100);
    let mut guesses = 0;
    let answer = loop {
        let guess = (low + high) / 2;
        guesses += 1;
        player.says(format!(" {guess} \r\n"));
        match player.line().as_str() {
            "more" => low = guess + 1,
            "less" => high = guess - 1,
            answer => break answer.to_owned(),
        }
        assert!(low <= high, "there is a number");
    };
    assert_eq!(answer, format!("yes! round 1 took {guesses} guesses; round 2 begins"));
    let told = program.line();
    assert!(told.starts_with("round 1: 127.0.0.1:") && told.ends_with(&format!("with guess number {guesses}")), "{told}");
    other.says("?\n");
    other.hears("round 2: that is not a number from 1 to 100");
    other.says("9".repeat(81) + "\n");
    other.hears_the_end();
}

#[test]
fn timestamp_handler_answers_in_order_refuses_beyond_its_limit_and_counts() {
    let (program, addr) = Program::serve("timestamp_handler", &["--clients", "1", "127.0.0.1:0"]);
    let mut first = Caller::new(addr);
    first.says("one\ntwo\r\n\n");
    for text in ["one", "two", ""] {
        let line = first.line();
        assert!(line.starts_with('[') && line.ends_with(&format!("] {text}")) && line.len() == 27 + text.len(), "{line}");
    }
    first.says("x".repeat(4097) + "\n");
    first.hears("line too long: 4096 bytes at most");
    let mut second = Caller::new(addr);
    second.hears("too many clients; try again later");
    second.hears_the_end();
    assert!(program.line().ends_with(" is refused"));
    first.says("bye\nmore\n");
    first.hears("bye");
    first.hears_the_end();
    let told = program.line();
    assert!(told.ends_with(": 4 requests; finished"), "{told}");
    // There is room again.
    let mut third = Caller::new(addr);
    third.says("three\n");
    assert!(third.line().ends_with("] three"));
}

#[test]
fn a_second_interrupt_ends_each_at_once_by_that_signal() {
    let (mut program, addr) = Program::serve("timestamp_handler", &["127.0.0.1:0"]);
    let mut client = Caller::new(addr);
    client.says("one\nhalf of ");
    assert!(client.line().ends_with("] one"));
    program.interrupt();
    while TcpStream::connect(addr).is_ok() {
        thread::yield_now(); // until it listens no more
    }
    program.signal("-TERM");
    let (status, _, complaints) = program.end();
    assert_eq!((status.signal(), complaints), (Some(15), vec![]));
}

// ----------------------------------------------------------------------------------------------------------- lines

#[cfg(all(feature = "children", feature = "signals"))]
mod lines {
    use super::*;

    fn lines(command: &[&str]) -> Program {
        Program::start("lines", &[&["--"], command].concat())
    }

    /// Without the stamps, which are as long as `12:34:56.789 `.
    fn unstamped(lines: Vec<String>) -> Vec<String> {
        let mut all: Vec<String> = lines.iter().map(|line| line[13..].to_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn each_line_of_both_outputs_is_marked_and_the_exit_status_is_the_commands() {
        let mut program = lines(&["sh", "-c", "echo a; echo b >&2; printf 'no end'; exit 7"]);
        let (status, told, complaints) = program.end();
        assert_eq!((status.code(), complaints), (Some(7), vec![]));
        assert_eq!(unstamped(told), ["err  b", "out  a", "out  no end"]);
        let (status, _, _) = lines(&["sh", "-c", "kill -9 $$"]).end();
        assert_eq!(status.code(), Some(137));
    }

    #[test]
    fn it_ends_soon_after_the_command_whoever_holds_its_outputs() {
        let mut program = lines(&["sh", "-c", "sleep 600 & printf x; echo $! >&2"]);
        let (status, told, _) = program.end();
        let told = unstamped(told);
        assert_eq!((status.code(), told.last().map(String::as_str)), (Some(0), Some("out  x")));
        let sleeper = told[0].trim_start_matches("err  ");
        assert!(Command::new("kill").arg(sleeper).status().expect("a program").success(), "it sleeps still");
    }

    /// It is cut off in the middle of what it writes, and what came before is lines like all others.
    #[test]
    fn of_who_writes_on_after_the_command_each_line_is_marked() {
        for word in ["y", ""] {
            let (status, told, _) = lines(&["sh", "-c", &format!("yes '{word}' &")]).end();
            assert_eq!(status.code(), Some(0));
            let marked = format!("out  {word}");
            assert!(told.len() > 1_000 && told.iter().all(|line| line.get(13..) == Some(&*marked)), "{:?}", told.last());
        }
    }

    #[test]
    fn a_signal_is_the_commands_affair() {
        for (signal, code) in [("-INT", 5), ("-TERM", 6)] {
            let script = "trap 'exit 5' INT; trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done";
            let mut program = lines(&["sh", "-c", script]);
            program.stdin = None;
            assert!(program.line().ends_with("out  ready"));
            program.signal(signal);
            assert_eq!(program.end().0.code(), Some(code));
        }
    }

    #[test]
    fn it_passes_on_more_than_any_pipe_holds_and_stops_when_nobody_reads() {
        let mut program = lines(&["sh", "-c", "yes | head -n 50000; yes | head -n 50000 >&2"]);
        let (status, told, _) = program.end();
        assert_eq!((status.code(), told.len()), (Some(0), 100_000));
        let mut program = lines(&["yes"]);
        assert!(program.line().ends_with("out  y"));
        program.stdout = channel().1;
        assert_eq!(program.end().0.code(), Some(141));
    }

    #[test]
    fn what_cannot_be_run_is_an_error() {
        let (_, complaint) = lines(&["/nowhere/at/all"]).ends_with(1);
        assert!(complaint.contains("cannot run '/nowhere/at/all': No such file"), "{complaint}");
        assert!(Program::start("lines", &[]).ends_misused().contains("COMMAND"));
    }
}

// --------------------------------------------------------------------------------------------------------- restart

#[cfg(all(feature = "children", feature = "signals", target_os = "linux"))]
mod restart {
    use super::*;

    /// The program at a place of its own, where another one can be put.
    struct Installed {
        program: PathBuf,
        server: Program,
        addr: SocketAddr,
        /// Processes that are no children of ours.
        others: Vec<String>,
    }

    impl Installed {
        fn new(name: &str, options: &[&str]) -> Self {
            let program = Self::install(name);
            let server = Program::run(Stdio::piped(), Command::new(&program).args(options).arg("127.0.0.1:0"));
            let addr = server.address().parse().expect("an IP address");
            Self { program, server, addr, others: Vec::new() }
        }

        fn install(name: &str) -> PathBuf {
            let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("restart-{name}-{}", std::process::id()));
            let _ = std::fs::remove_file(&program); // of an earlier run
            std::fs::hard_link(path("restart"), &program).expect("a file system with links");
            program
        }

        /// A new version of it. A shell writes it: what we had open for writing while another test starts something, nobody can run.
        fn replace(&self, script: &str) {
            std::fs::remove_file(&self.program).expect("it is there");
            let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod +x \"$0\"";
            let written = Command::new("sh").args(["-c", write]).arg(&self.program).arg(script).status();
            assert!(written.expect("sh(1)").success());
        }

        fn hang_up(&self) {
            self.server.signal("-HUP");
        }

        /// What it tells next, without its number.
        #[track_caller]
        fn tells(&self) -> String {
            let line = self.server.complaint();
            let (number, what) = line.split_once(": ").expect("who tells");
            assert!(number.parse::<u32>().is_ok(), "{line}");
            what.to_owned()
        }

        /// The number of the process that is to take over.
        #[track_caller]
        fn starts_another(&mut self) -> String {
            let told = self.tells();
            let number = told.strip_prefix("process ").and_then(|rest| rest.strip_suffix(" is to take over"));
            let number = number.unwrap_or_else(|| panic!("{told}")).to_owned();
            self.others.push(number.clone());
            number
        }

        /// Who has answered.
        #[track_caller]
        fn asked(&self) -> String {
            let caller = Caller::new(self.addr);
            caller.says("hello\n");
            answered(caller)
        }

        fn number(&self) -> String {
            self.server.child.id().to_string()
        }
    }

    impl Drop for Installed {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.program);
            for other in &self.others {
                let _ = Command::new("kill").args(["-KILL", other]).stderr(Stdio::null()).status();
            }
        }
    }

    #[track_caller]
    fn answered(mut caller: Caller) -> String {
        let line = caller.line();
        let (number, said) = line.split_once(' ').expect("a number and what was said");
        assert_eq!(said, "hello");
        caller.hears_the_end();
        number.to_owned()
    }

    #[test]
    fn a_successor_takes_over_at_the_same_port_and_who_is_connected_has_his_answer_from_the_old_one() {
        let mut installed = Installed::new("takes-over", &[]);
        assert_eq!(installed.asked(), installed.number());
        let silent = Caller::new(installed.addr); // whose line is on its way
        let speaking = Caller::new(installed.addr);
        speaking.says("hel");
        assert_eq!(installed.asked(), installed.number(), "both were let in before");
        installed.hang_up();
        let successor = installed.starts_another();
        assert_eq!(installed.tells(), "the successor is ready: finishing what is under way");
        while installed.asked() != successor {} // as long as the old one lets in whoever waits at its door
        silent.says("hello\n");
        assert_eq!(answered(silent), installed.number());
        speaking.says("lo\n");
        assert_eq!(answered(speaking), installed.number());
        let status = installed.server.child.wait().expect("ours");
        assert_eq!(status.code(), Some(0));
        for _ in 0..10 {
            assert_eq!(installed.asked(), successor);
        }
        // The successor has the same standard error, and can be restarted too; nothing of the socket stays open when all have ended.
        assert_eq!(installed.tells(), "ended");
        let signalled = Command::new("kill").args(["-HUP", &successor]).status();
        assert!(signalled.expect("kill(1)").success());
        let third = installed.starts_another();
        assert_eq!(installed.tells(), "the successor is ready: finishing what is under way");
        assert_eq!(installed.tells(), "ended");
        assert_eq!(installed.asked(), third);
        let waiting = Caller::new(installed.addr);
        assert_eq!(installed.asked(), third);
        let signalled = Command::new("kill").args(["-TERM", &third]).status();
        assert!(signalled.expect("kill(1)").success());
        let began = Instant::now();
        while TcpStream::connect(installed.addr).is_ok() {
            assert!(began.elapsed() < PATIENCE, "somebody has the listening socket still");
            thread::yield_now();
        }
        waiting.says("hello\n");
        assert_eq!(answered(waiting), third);
        assert_eq!(installed.tells(), "ended");
    }

    #[test]
    fn a_successor_that_ends_before_it_is_ready_is_told_and_the_old_one_goes_on() {
        let mut installed = Installed::new("ends", &[]);
        for (script, how) in
            [("exit 7", "exit status: 7"), ("kill -9 $$", "signal: 9 (SIGKILL)"), ("echo no; exit 0", "exit status: 0")]
        {
            installed.replace(script);
            installed.hang_up();
            let successor = installed.starts_another();
            assert_eq!(installed.tells(), format!("no restart: process {successor} has ended before it was ready: {how}"));
            assert_eq!(installed.asked(), installed.number());
        }
        std::fs::remove_file(&installed.program).expect("it is there");
        installed.hang_up();
        let told = installed.tells();
        assert!(told.starts_with("no restart: cannot start '") && told.contains("': No such file"), "{told}");
        assert_eq!(installed.asked(), installed.number());
        // When it has been mended, it works.
        Installed::install("ends");
        installed.hang_up();
        let successor = installed.starts_another();
        assert_eq!(installed.tells(), "the successor is ready: finishing what is under way");
        assert_eq!(installed.server.child.wait().expect("ours").code(), Some(0));
        assert_eq!(installed.asked(), successor);
    }

    #[test]
    fn a_successor_that_says_nothing_is_given_up_and_another_restart_meanwhile_is_refused() {
        let mut installed = Installed::new("says-nothing", &["--patience", "1", "--grace", "1"]);
        installed.replace("trap '' TERM; echo what is this; while :; do sleep 0.1; done");
        installed.hang_up();
        let successor = installed.starts_another();
        installed.hang_up();
        assert_eq!(installed.tells(), "no restart: a successor is being started already");
        assert_eq!(installed.asked(), installed.number());
        assert_eq!(installed.tells(), format!("no restart: process {successor} was not ready in 1 s"));
        assert_eq!(installed.asked(), installed.number());
        let began = Instant::now();
        while PathBuf::from(format!("/proc/{successor}")).exists() {
            assert!(began.elapsed() < PATIENCE, "it is neither killed nor reaped");
            thread::sleep(Duration::from_millis(10));
        }
        installed.server.signal("-TERM");
        assert_eq!(installed.server.child.wait().expect("ours").code(), Some(0));
    }

    #[test]
    fn sigterm_ends_it_also_while_a_successor_starts_which_ends_too() {
        let mut installed = Installed::new("sigterm", &[]);
        let under_way = Caller::new(installed.addr);
        assert_eq!(installed.asked(), installed.number());
        installed.replace("trap 'exit 0' TERM; while :; do sleep 0.1; done");
        installed.hang_up();
        let successor = installed.starts_another();
        installed.server.signal("-TERM");
        let began = Instant::now();
        // It is a zombie until its parent, which does not wait for it any more, has ended.
        let has_ended = || std::fs::read_to_string(format!("/proc/{successor}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !has_ended() {
            assert!(began.elapsed() < PATIENCE, "it goes on");
            thread::sleep(Duration::from_millis(10));
        }
        installed.hang_up();
        assert_eq!(installed.tells(), "no restart: this process is ending");
        under_way.says("hello\n");
        assert_eq!(answered(under_way), installed.number());
        assert_eq!(installed.server.child.wait().expect("ours").code(), Some(0));
        let mut installed = Installed::new("sigterm", &[]);
        let _silent = Caller::new(installed.addr);
        assert_eq!(installed.asked(), installed.number());
        installed.server.signal("-TERM");
        while TcpStream::connect(installed.addr).is_ok() {
            thread::yield_now(); // until it listens no more
        }
        installed.server.signal("-TERM");
        assert_eq!(installed.server.child.wait().expect("ours").signal(), Some(15));
    }

    /// As systemd hands sockets over (sd_listen_fds(3)): from the third descriptor on, and the variables name the process.
    #[test]
    fn it_serves_a_socket_that_systemd_has_opened() {
        let (socket, addr) = listener();
        let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" 127.0.0.1:1";
        let mut command = Command::new("sh");
        let child = command.args(["-c", script]).arg(path("restart")).stdin(OwnedFd::from(socket));
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sh(1)");
        drop(command); // which has the socket too
        let lines = lines_of(child.stdout.take().expect("piped"));
        assert_eq!(lines.recv_timeout(PATIENCE), Ok(format!("listening on {addr}")));
        let caller = Caller::new(addr);
        caller.says("hello\n");
        assert_eq!(answered(caller), child.id().to_string());
        let killed = Command::new("kill").arg(child.id().to_string()).status();
        assert!(killed.expect("kill(1)").success());
        assert_eq!(child.wait().expect("ours").code(), Some(0));
        assert_eq!(TcpStream::connect(addr).expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_standard_input_that_is_no_listener_is_an_error() {
        let (pair, _other) = UnixStream::pair().expect("a pair");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let null = File::open("/dev/null").expect("null(4)");
        let wrong: [(Stdio, &str); 3] = [
            (OwnedFd::from(pair).into(), "does not listen"),
            (OwnedFd::from(udp).into(), "carries packets"),
            (null.into(), "Socket operation on non-socket"),
        ];
        for (stdin, word) in wrong {
            let output = Command::new(path("restart")).arg("-").stdin(stdin).output().expect("it was built");
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{complaint}");
            assert!(complaint.starts_with("error: cannot listen on '-': ") && complaint.contains(word), "{complaint}");
        }
        let (_busy, addr) = listener();
        let (_, complaint) = Program::start("restart", &[&addr.to_string()]).ends_with(1);
        assert!(complaint.contains(&addr.to_string()), "{complaint}");
        for wrong in ["nonsense", "localhost:7001", "127.0.0.1:99999", "", "127.0.0.1"] {
            assert!(Program::start("restart", &[wrong]).ends_misused().contains(wrong));
        }
        assert!(Program::start("restart", &["--patience", "0"]).ends_misused().contains("--patience"));
    }
}
