//! The examples `gopher_server` and `gopher_client`, as their users and real clients meet them; their pure parts with the
//! tests that stand beside them; and the server's protocol on a simulated network.
//!
//! `cargo test` builds the programs; a command that selects tests does not: then `cargo build --examples` comes first.
#![cfg(unix)]

mod common;
#[allow(dead_code)] // what only the programs need
#[path = "../examples/gopher/gopher.rs"]
mod gopher;
#[path = "../examples/common/printable.rs"]
mod printable;
#[allow(dead_code)]
#[path = "../examples/gopher/client/reply.rs"]
mod reply;
#[cfg(feature = "sim")]
#[path = "../examples/gopher/server/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../examples/gopher/server/site.rs"]
mod site;

use common::{PATIENCE, dial, has_room_for, reset, say, skip, uninterrupted};
use socket2::{Domain, Socket, Type};
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

// ----------------------------------------------------------------------------------------------------- the programs

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mainspring-gopher-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new name");
        Self(path.canonicalize().expect("it was just made"))
    }

    /// With a file and the folders that lead to it.
    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
        fs::write(path, content).expect("writable");
        self
    }

    fn with_link(self, name: &str, to: impl AsRef<Path>) -> Self {
        symlink(to, self.path(name)).expect("writable");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a test that fails may have left it odd
    }
}

/// A program that runs, and does not outlive its test.
struct Running(Child);

impl Running {
    fn interrupt(&self) {
        let killed = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// Beside the test, where Cargo puts them.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test is a file");
    let path = test.ancestors().nth(2).expect("target/debug/deps/this").join("examples").join(name);
    assert!(path.exists(), "{} is not there: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

/// Runs to its end, which must come.
#[track_caller]
fn run(mut command: Command) -> Output {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(command.stdin(Stdio::null()).output()));
    receiver.recv_timeout(PATIENCE).expect("the program ends").expect("it was built")
}

struct Server {
    running: Running,
    addr: SocketAddr,
}

fn serve_with(options: &[&str], root: &Path) -> Server {
    serve_at(options, root, "127.0.0.1:0")
}

fn serve_at(options: &[&str], root: &Path, at: &str) -> Server {
    let mut command = program("gopher_server");
    let mut child = command.args(options).arg(root).arg(at).stdout(Stdio::piped()).spawn().expect("it was built");
    let stdout = child.stdout.take().expect("piped");
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("text");
    let addr = line.trim().strip_prefix("listening on ").expect("the first line tells the address").parse();
    Server { running, addr: addr.expect("an IP address") }
}

fn serve(folder: &Folder) -> Server {
    serve_with(&[], &folder.0)
}

impl Server {
    /// What it answers to these bytes, to the end.
    #[track_caller]
    fn answer(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        let mut peer = dial(self.addr);
        say(&peer, request);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).expect("an orderly end");
        answer
    }

    #[track_caller]
    fn text(&self, request: impl AsRef<[u8]>) -> String {
        String::from_utf8(self.answer(request)).expect("text")
    }

    /// The lines of a menu of this server, without what is the same in all.
    #[track_caller]
    fn menu(&self, request: &str) -> Vec<String> {
        let text = self.text(format!("{request}\r\n"));
        let (lines, end) = text.split_at(text.len() - 3);
        assert_eq!(end, ".\r\n");
        let place = format!("\t127.0.0.1\t{}", self.addr.port());
        assert!(!lines.contains("\n.\r\n") && lines.matches('\n').count() == lines.matches("\r\n").count());
        lines.lines().map(|line| line.strip_suffix(&place).unwrap_or(line).to_owned()).collect()
    }

    /// Fetches with our client.
    #[track_caller]
    fn fetch(&self, arguments: &[&str]) -> Fetched {
        fetch_at(self.addr, arguments)
    }
}

/// What our client said and left.
struct Fetched {
    code: Option<i32>,
    stdout: Vec<u8>,
    complaint: String,
}

#[track_caller]
fn fetch_at(addr: SocketAddr, arguments: &[&str]) -> Fetched {
    let mut command = program("gopher_client");
    command.args(["--port", &addr.port().to_string(), &addr.ip().to_string()]).args(arguments);
    fetched(run(command))
}

fn fetched(output: Output) -> Fetched {
    let complaint = String::from_utf8(output.stderr).expect("text");
    Fetched { code: output.status.code(), stdout: output.stdout, complaint }
}

impl Fetched {
    #[track_caller]
    fn text(self) -> String {
        assert_eq!((self.code, self.complaint.as_str()), (Some(0), ""));
        String::from_utf8(self.stdout).expect("text")
    }

    /// Failed with this code and one line that has these words.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.complaint);
        assert!(self.complaint.starts_with("error: ") && self.complaint.matches('\n').count() == 1, "{}", self.complaint);
        for word in words {
            assert!(self.complaint.contains(word), "{word}: {}", self.complaint);
        }
    }
}

/// Bytes that are not the same anywhere else.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

const NOT_FOUND: &str = "' does not exist\t\t-\t0\r\n.\r\n";

// ---------------------------------------------------------------------------------------------------------- serving

#[test]
fn a_folder_is_a_menu_of_what_is_in_it_folders_first() {
    let folder = Folder::new()
        .with("b.txt", "text")
        .with("README", "text by its bytes")
        .with("data", "\0binary by its bytes")
        .with("pic.gif", "")
        .with("photo.JPG", "")
        .with("page.html", "")
        .with("pack.tar.gz", "")
        .with("zoo/ape.txt", "");
    let server = serve(&folder);
    let root = [
        "1zoo\t/zoo",
        "0README\t/README",
        "0b.txt\t/b.txt",
        "9data\t/data",
        "9pack.tar.gz\t/pack.tar.gz",
        "hpage.html\t/page.html",
        "Iphoto.JPG\t/photo.JPG",
        "gpic.gif\t/pic.gif",
        "7Search names and texts\tsearch",
    ];
    assert_eq!(server.menu(""), root);
    assert_eq!(server.menu("/"), root);
    for zoo in ["/zoo", "/zoo/", "zoo", "//zoo"] {
        assert_eq!(server.menu(zoo), ["0ape.txt\t/zoo/ape.txt"], "{zoo}");
    }
    assert_eq!(server.text("\n"), server.text("\r\n"), "a line may end without a CR");
}

#[test]
fn what_could_not_be_asked_for_is_not_shown() {
    let folder = Folder::new().with(".hidden", "").with(".git/config", "").with("tab\there", "").with("end\nhere", "");
    let deep = ["x".repeat(130), "y".repeat(122), "y".repeat(123)];
    let folder = folder.with(&format!("{}/{}", deep[0], deep[1]), "").with(&format!("{}/{}", deep[0], deep[2]), "");
    fs::write(folder.0.join(OsStr::from_bytes(b"\xff")), "").expect("writable");
    let server = serve(&folder);
    assert_eq!(server.menu("").len(), 2, "a folder, and the search");
    let longest = format!("/{}/{}", deep[0], deep[1]);
    assert_eq!(longest.len(), 254);
    let listed = server.menu(&format!("/{}", deep[0]));
    assert_eq!(listed.len(), 2, "both can be asked for: 254 and 255 bytes");
    fs::write(folder.path(&format!("{}/{}", deep[0], "y".repeat(124))), "").expect("writable");
    assert_eq!(server.menu(&format!("/{}", deep[0])).len(), 2, "256 bytes cannot");
}

#[test]
fn a_folder_without_end_is_shown_up_to_a_bound_and_that_is_said() {
    let folder = Folder::new();
    for number in 0..1005 {
        fs::write(folder.path(&format!("{number}.txt")), "").expect("writable");
    }
    let menu = serve(&folder).menu("");
    assert_eq!(menu.iter().filter(|line| line.starts_with('0')).count(), 1000);
    assert!(menu[1000].starts_with("iThere is more"), "{}", menu[1000]);
}

#[test]
fn a_text_comes_in_lines_and_a_binary_as_it_is() {
    let binary = noise(5 << 20);
    let dots = "..\r\n.\r\n".repeat(100_000);
    let folder = Folder::new()
        .with("a.txt", ".\n..a\nb")
        .with("empty.txt", "")
        .with("crlf.txt", "a\r\nb\r\n")
        .with("long.txt", "..\r\n.\n".repeat(100_000))
        .with("empty.bin", "")
        .with("page.html", ".\n.\r\n")
        .with("noise.bin", &binary);
    let server = serve(&folder);
    assert_eq!(server.text("/a.txt\r\n"), "..\r\n...a\r\nb\r\n.\r\n");
    assert_eq!(server.text("/empty.txt\r\n"), ".\r\n");
    assert_eq!(server.text("/crlf.txt\r\n"), "a\r\nb\r\n.\r\n");
    assert_eq!(server.text("/page.html\r\n"), ".\n.\r\n");
    assert!(server.text("/long.txt\r\n") == dots.replace("..\r\n.\r\n", "...\r\n..\r\n") + ".\r\n");
    assert_eq!(server.text("/empty.bin\r\n"), "");
    assert!(server.answer("/noise.bin\r\n") == binary);
}

#[test]
fn nothing_outside_of_the_root_or_hidden_is_served() {
    let outside = Folder::new().with("secret.txt", "secret").with("folder/secret.txt", "secret");
    let outside_name = outside.0.file_name().and_then(|name| name.to_str()).expect("ours").to_owned();
    let folder = Folder::new()
        .with("in.txt", "fine")
        .with("folder/in.txt", "fine")
        .with(".hidden.txt", "secret")
        .with(".hidden/in.txt", "secret")
        .with_link("file", outside.path("secret.txt"))
        .with_link("relative", format!("../{outside_name}/secret.txt"))
        .with_link("out", &outside.0)
        .with_link("out2", "out")
        .with_link("up", "..")
        .with_link("shown", ".hidden.txt")
        .with_link("shown-folder", ".hidden")
        .with_link("dangling", "nowhere")
        .with_link("loop", "loop");
    let made = Command::new("mkfifo").arg(folder.path("pipe")).status().expect("mkfifo(1) exists");
    assert!(made.success());
    let server = serve(&folder);
    assert_eq!(server.menu(""), ["1folder\t/folder", "0in.txt\t/in.txt", "7Search names and texts\tsearch"]);
    for selector in [
        "..",
        "/..",
        "../",
        "/../secret.txt",
        "/folder/../in.txt",
        "/folder/../../../../../../etc/passwd",
        "/etc/passwd",
        "/./in.txt",
        &format!("../{outside_name}/secret.txt"),
        &format!("{}", outside.path("secret.txt").display()),
        "/file",
        "/relative",
        "/out",
        "/out/secret.txt",
        "/out/folder/secret.txt",
        "/out2/secret.txt",
        "/up",
        "/.hidden.txt",
        "/.hidden",
        "/.hidden/in.txt",
        "/shown",
        "/shown-folder",
        "/shown-folder/in.txt",
        "/dangling",
        "/pipe",
        "/in.txt/x",
        "/nothing",
        "/%2e%2e/",
        "URL:http://example.org/",
        "GET / HTTP/1.0",
    ] {
        assert_eq!(server.text(format!("{selector}\r\n")), format!("3'{selector}{NOT_FOUND}"));
    }
    assert!(server.text("/loop\r\n").starts_with("3'/loop' "));
    let found = server.menu("search\tsecret");
    assert_eq!(found, ["iNothing was found.\t\t-\t0"]);
}

#[test]
fn a_link_inside_of_the_root_is_followed_and_the_root_may_be_one() {
    let folder = Folder::new().with("docs/a.txt", "a").with_link("short", "docs").with_link("b", "docs/a.txt");
    let elsewhere = Folder::new().with_link("root", &folder.0);
    let server = serve_with(&[], &elsewhere.path("root"));
    assert_eq!(server.menu("")[..3], ["1docs\t/docs", "1short\t/short", "0b\t/b"]);
    assert_eq!(server.menu("/short"), ["0a.txt\t/short/a.txt"]);
    assert_eq!(server.text("/short/a.txt\r\n"), "a\r\n.\r\n");
    assert_eq!(server.text("/b\r\n"), "a\r\n.\r\n");
}

#[test]
fn what_is_no_selector_is_refused() {
    let folder = Folder::new().with("in.txt", "fine");
    let server = serve(&folder);
    let long = |bytes: usize| "x".repeat(bytes);
    assert!(server.text(format!("{}\r\n", long(255))).ends_with(NOT_FOUND));
    let too_long = "3the selector is longer than 255 bytes\t\t-\t0\r\n.\r\n";
    assert_eq!(server.text(format!("{}\r\n", long(256))), too_long);
    assert_eq!(server.text(format!("{}\tx\r\n", long(256))), too_long);
    assert_eq!(server.text(format!("{}\r\n", long(100_000))), too_long);
    assert_eq!(server.text("/in.txt\0\r\n"), "3the selector contains a zero byte\t\t-\t0\r\n.\r\n");
    assert_eq!(server.text("/in.txt\0.png\r\n"), "3the selector contains a zero byte\t\t-\t0\r\n.\r\n");
    assert_eq!(server.text(b"/\xff\xfe\r\n"), "3the selector is not UTF-8\t\t-\t0\r\n.\r\n");
    assert_eq!(server.text("/no\x1b[2Jthing\r\n"), format!("3'/no [2Jthing{NOT_FOUND}"));
    assert_eq!(server.text("/in.txt\t$\r\n"), "fine\r\n.\r\n", "Gopher+ asks like this, and is answered plainly");
    assert_eq!(server.text("/in.txt\r\n/in.txt\r\n"), "fine\r\n.\r\n", "one question, one answer");
}

#[test]
fn a_search_finds_all_its_words_in_names_and_texts() {
    let folder = Folder::new()
        .with("apple.txt", "red and green")
        .with("b/Banana.txt", "YELLOW, größe")
        .with("b/apple tree/leaf.txt", "green")
        .with("apple.bin", "\0red")
        .with(".apple.txt", "red")
        .with("long.txt", "x".repeat(64 << 10) + "behind the bound")
        .with_link("again", "b");
    let server = serve(&folder);
    let found = |words: &str| -> Vec<String> {
        let lines = server.menu(&format!("search\t{words}"));
        lines.into_iter().map(|line| line.rsplit_once('\t').expect("a selector").1.to_owned()).collect()
    };
    assert_eq!(found("APPLE"), ["/b/apple tree", "/apple.bin", "/apple.txt"]);
    assert_eq!(found("green apple"), ["/apple.txt"], "each in the name or in the text");
    assert_eq!(found("yellow GRÖSSE"), ["0"]);
    assert_eq!(found("yellow Größe"), ["/b/Banana.txt"]);
    assert_eq!(found("red"), ["/apple.txt"], "texts are read, and nothing else");
    assert_eq!(found("behind"), ["0"]);
    assert_eq!(server.menu("search\tnothing like it"), ["iNothing was found.\t\t-\t0"]);
    for none in ["search", "search\t", "search\t  "] {
        assert_eq!(server.menu(none), ["3no words to search for\t\t-\t0"], "{none:?}");
    }
}

#[test]
fn a_search_stops_at_its_bounds_and_says_so() {
    let many = Folder::new();
    for number in 0..150 {
        fs::write(many.path(&format!("{number:03}.txt")), "").expect("writable");
    }
    let found = serve(&many).menu("search\ttxt");
    assert_eq!(found.len(), 101);
    assert!(found[99].starts_with("0/099.txt") && found[100].starts_with("iThe search stopped"), "{found:?}");
    let deep = Folder::new().with(&format!("{}end.txt", "d/".repeat(40)), "");
    let found = serve(&deep).menu("search\tend.txt");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("iThe search stopped"), "{found:?}");
}

#[test]
fn menus_tell_the_host_that_they_are_to_tell() {
    let folder = Folder::new().with("a.txt", "");
    for host in ["gopher.example", "bücher.example.", "under_score", "192.0.2.1", "2001:db8::1"] {
        let server = serve_with(&["--host", host], &folder.0);
        let line = format!("0a.txt\t/a.txt\t{host}\t{}\r\n", server.addr.port());
        assert!(server.text("\r\n").starts_with(&line));
    }
}

#[test]
fn menus_tell_a_client_of_ipv4_an_address_of_ipv4() {
    let folder = Folder::new().with("a.txt", "");
    if TcpListener::bind("[::]:0").is_err() {
        return; // this system has no IPv6
    }
    let server = serve_at(&[], &folder.0, "[::]:0");
    let server = Server { addr: ([127, 0, 0, 1], server.addr.port()).into(), ..server };
    assert!(server.menu("").starts_with(&["0a.txt\t/a.txt".to_owned()]), "{:?}", server.menu(""));
}

#[test]
fn who_does_not_ask_in_time_is_let_go_and_not_too_early() {
    let folder = Folder::new();
    let server = serve_with(&["--patience", "1"], &folder.0);
    let began = Instant::now();
    let (mut silent, mut dripping) = (dial(server.addr), dial(server.addr));
    dripping.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket option");
    let ended = loop {
        // Dripping resets every idle clock there is.
        if dripping.write_all(b"x").is_err() {
            break true;
        }
        match uninterrupted(|| dripping.read(&mut [0])) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => break true,
            Ok(_) => break false,
        }
        assert!(began.elapsed() < PATIENCE, "it is never let go");
    };
    assert!(ended && began.elapsed().as_secs() >= 1);
    assert_eq!(uninterrupted(|| silent.read(&mut [0])).expect("an orderly end"), 0);
}

#[test]
fn who_takes_nothing_is_let_go_who_is_slow_is_not_and_nobody_costs_memory() {
    let bytes = noise((1 << 20) - 1).repeat(48);
    let folder = Folder::new().with("big.bin", &bytes).with("a.txt", "fine");
    let server = serve_with(&["--patience", "1"], &folder.0);
    let small = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.set_recv_buffer_size(64 << 10).expect("a socket option");
        socket.connect(&server.addr.into()).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        TcpStream::from(socket)
    };
    let (mut slow, mut deaf) = (small(), small());
    say(&slow, "/big.bin\r\n");
    say(&deaf, "/big.bin\r\n");
    let mut taken = Vec::new();
    let began = Instant::now();
    while began.elapsed().as_millis() < 1500 {
        let mut piece = vec![0; 64 << 10];
        let read = uninterrupted(|| slow.read(&mut piece)).expect("it is waited for");
        taken.extend_from_slice(&piece[..read]);
        assert_eq!(server.text("/a.txt\r\n"), "fine\r\n.\r\n", "the others are served meanwhile");
        thread::sleep(Duration::from_millis(20)); // this is what a slow reader is
    }
    slow.read_to_end(&mut taken).expect("an orderly end");
    assert!(taken == bytes);
    let error = deaf.read_to_end(&mut Vec::new()).expect_err("a part is not taken for the whole");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    if cfg!(target_os = "linux") {
        assert!(memory_max(&server.running) < 24 << 20, "{} bytes", memory_max(&server.running));
    }
}

/// The most memory that it had resident, in bytes: proc(5), VmHWM.
fn memory_max(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.0.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_the_connection_off() {
    let folder = Folder::new().with("big.bin", vec![7; 64 << 20]);
    let server = serve(&folder);
    let mut peer = dial(server.addr);
    say(&peer, "/big.bin\r\n");
    peer.read_exact(&mut [0; 1000]).expect("the beginning in time");
    let file = fs::OpenOptions::new().write(true).open(folder.path("big.bin")).expect("it is there");
    file.set_len(1000).expect("writable");
    let error = peer.read_to_end(&mut Vec::new()).expect_err("a part is not taken for the whole");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn clients_that_leave_at_any_time_cost_nothing() {
    let folder = Folder::new().with("big.bin", vec![7; 8 << 20]);
    let server = serve(&folder);
    for round in 0..60 {
        let mut peer = dial(server.addr);
        say(&peer, ["", "/big", "/big.bin\r\n"][round % 3]);
        if round % 3 == 2 {
            peer.read_exact(&mut [0; 1000]).expect("the beginning in time");
        }
        if round % 2 == 0 { reset(peer) } else { drop(peer) }
    }
    assert_eq!(server.menu("").len(), 2);
    let asked = dial(server.addr);
    say(&asked, "/big.bin\r\n");
    asked.shutdown(Shutdown::Write).expect("connected");
    let mut all = Vec::new();
    (&asked).read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all.len(), 8 << 20, "who only ended its own side is answered");
}

#[test]
fn one_too_many_waits_until_another_has_gone() {
    if !has_room_for(600) {
        return;
    }
    let folder = Folder::new();
    let server = serve(&folder);
    let mut guests: Vec<TcpStream> = (0..400).map(|_| dial(server.addr)).collect();
    let last = guests.pop().expect("one of them");
    let waits = dial(server.addr);
    for mut guest in [last, waits] {
        say(&guest, "\r\n");
        let mut words = String::new();
        guest.read_to_string(&mut words).expect("an orderly end");
        assert!(!words.starts_with('3') && words.ends_with("\r\n.\r\n"), "{words}");
    }
}

#[test]
fn whom_it_lets_in_it_serves_however_few_descriptors_it_has() {
    let folder = Folder::new().with("a.txt", "fine\n");
    let server = program("gopher_server");
    let server = Path::new(server.get_program()).display();
    let line = format!("ulimit -n 32 && exec '{server}' '{}' 127.0.0.1:0", folder.0.display());
    let mut child = Command::new("sh").args(["-c", &line]).stdout(Stdio::piped()).spawn().expect("sh(1)");
    let stdout = child.stdout.take().expect("piped");
    let _running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("text");
    let addr = line.trim().strip_prefix("listening on ").and_then(|addr| addr.parse().ok()).expect("an IP address");
    for _ in 0..3 {
        let guests: Vec<TcpStream> = (0..100).map(|_| dial(addr)).collect();
        let mut served = 0;
        for mut guest in guests {
            let _ = guest.write_all(b"/a.txt\r\n"); // it may be closed already
            let mut answer = Vec::new();
            let is_whole = guest.read_to_end(&mut answer).is_ok();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            served += usize::from(answer == "fine\r\n.\r\n");
            // All, or the refusal of a server that has no room, or its end: never that the file cannot be read.
            let is_refusal = answer.starts_with("3the server is busy") || answer.is_empty();
            assert!(answer == "fine\r\n.\r\n" || is_refusal, "{answer:?}, whole: {is_whole}");
        }
        assert!(served >= 3, "{served} of 100");
    }
}

#[test]
fn an_interrupt_lets_an_answer_that_is_under_way_finish() {
    let folder = Folder::new().with("a.bin", noise(20 << 20));
    let mut server = serve(&folder);
    let mut guest = dial(server.addr);
    say(&guest, "/a.bin\r\n");
    guest.read_exact(&mut [0]).expect("it begins");
    server.running.interrupt();
    while TcpStream::connect(server.addr).is_ok() {
        thread::yield_now(); // until it listens no more
    }
    let mut rest = Vec::new();
    guest.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(rest.len(), (20 << 20) - 1);
    assert_eq!(server.running.0.wait().expect("ours").code(), Some(0));
}

#[test]
fn the_server_says_what_it_cannot_do_and_ends_when_it_is_interrupted() {
    let folder = Folder::new().with("a.txt", "");
    let busy = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr().map(|addr| (socket, addr)));
    let (_busy, addr) = busy.expect("a free port");
    let (root, file, nothing) = (folder.0.display().to_string(), folder.path("a.txt"), folder.path("nothing"));
    let wrong: [(&[&str], i32, &str); 15] = [
        (&[], 2, "ROOT"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["", "127.0.0.1:0"], 2, "ROOT '' names nothing"),
        (&[&root, "127.0.0.1:0", "--host", ""], 2, "--host takes the name of a host or an IP address, not ''"),
        (&[&root, "127.0.0.1:0", "--host", "a\r\n1evil\t/\thost\t70"], 2, "--host takes"),
        (&[&root, "127.0.0.1:0", "--host", "example.org:70"], 2, "--host takes"),
        (&[&root, "127.0.0.1:0", "--host", "two words"], 2, "--host takes"),
        (&[&root, "127.0.0.1:0", "--host", "a..b"], 2, "--host takes"),
        (&[&root, "127.0.0.1:0", "--host", "[::1]"], 2, "--host takes"),
        (&[&root, "127.0.0.1:0", "surplus"], 2, "surplus"),
        (&[&root, "nonsense"], 2, "nonsense"),
        (&[&root, "--patience", "x"], 2, "--patience takes a whole number from 1 to 31536000, not 'x'"),
        (&[&root, &addr.to_string()], 1, &addr.to_string()),
        (&[&file.display().to_string(), "127.0.0.1:0"], 1, "a.txt"),
        (&[&nothing.display().to_string(), "127.0.0.1:0"], 1, "nothing"),
    ];
    for (arguments, code, word) in wrong {
        let mut command = program("gopher_server");
        command.args(arguments);
        fetched(run(command)).fails(code, &[word]);
    }
    let mut server = serve(&folder);
    let _guest = dial(server.addr);
    server.running.interrupt();
    assert_eq!(server.running.0.wait().expect("ours").code(), Some(0));
    for name in ["gopher_server", "gopher_client"] {
        let mut command = program(name);
        command.arg("--help");
        assert!(fetched(run(command)).text().contains(&format!("usage: {name}")));
    }
}

// ----------------------------------------------------------------------------------------------------- real clients

/// Whether a program is there to be tried.
fn has(name: &str) -> bool {
    let is_there =
        Command::new("sh").args(["-c", &format!("command -v {name}")]).output().is_ok_and(|found| found.status.success());
    if !is_there {
        skip(format_args!("{name} is not installed"));
    }
    is_there
}

fn site() -> (Folder, Vec<u8>) {
    let binary = noise(3 << 20);
    let folder = Folder::new().with("docs/read me.txt", "one\n.two\n.\nthree\n").with("noise.bin", &binary);
    (folder, binary)
}

#[test]
fn curl_reads_menus_texts_and_binaries_byte_exact() {
    if !has("curl") {
        return;
    }
    let (folder, binary) = site();
    let server = serve(&folder);
    let curl = |path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "--max-time", "15", &format!("gopher://{}{path}", server.addr)]);
        let output = run(command);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{path}");
        output.stdout
    };
    assert!(curl("/") == server.answer("\r\n"));
    assert!(curl("/1/docs") == server.answer("/docs\r\n"));
    assert!(curl("/0/docs/read%20me.txt") == b"one\r\n..two\r\n..\r\nthree\r\n.\r\n");
    assert!(curl("/9/noise.bin") == binary);
    assert!(curl("/7search%09three") == server.answer("search\tthree\r\n"));
    assert!(curl("/0/../../etc/passwd").starts_with(b"3"));
}

#[test]
fn lynx_reads_menus_texts_and_binaries() {
    if !has("lynx") {
        return;
    }
    let (folder, binary) = site();
    let server = serve(&folder);
    let lynx = |how: &str, path: &str| {
        let mut command = Command::new("lynx");
        command.args([how, &format!("gopher://{}{path}", server.addr)]).env("HOME", &folder.0).env("TERM", "dumb");
        let output = run(command);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let menu = String::from_utf8(lynx("-dump", "/")).expect("text");
    assert!(menu.contains("(DIR) [1]docs") && menu.contains("(BIN) [2]noise.bin"), "{menu}");
    assert!(menu.contains("Search names and texts"), "{menu}");
    let text = String::from_utf8(lynx("-dump", "/0/docs/read%20me.txt")).expect("text");
    assert!(text.starts_with("one\n") && text.contains("three\n"), "{text}");
    assert!(lynx("-source", "/9/noise.bin") == binary);
}

// --------------------------------------------------------------------------------------------------------- fetching

#[test]
fn the_client_shows_menus_and_texts_and_finds_by_words() {
    let (folder, _) = site();
    let server = serve(&folder);
    let words = |shown: String| -> Vec<String> {
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let root = ["menu docs /docs", "binary noise.bin /noise.bin", "search Search names and texts search"];
    assert_eq!(words(server.fetch(&[]).text()), root);
    assert_eq!(words(server.fetch(&["/"]).text()), root);
    assert_eq!(words(server.fetch(&["/docs"]).text()), ["text read me.txt /docs/read me.txt"]);
    assert_eq!(server.fetch(&["/docs/read me.txt"]).text(), "one\n.two\n.\nthree\n");
    assert_eq!(server.fetch(&["--type", "9", "/docs/read me.txt"]).text(), "one\r\n..two\r\n..\r\nthree\r\n.\r\n");
    let found = server.fetch(&["--search", "three one", "search"]).text();
    assert_eq!(words(found), ["text /docs/read me.txt /docs/read me.txt"]);
}

#[test]
fn the_client_writes_binaries_and_texts_byte_exact_into_a_file() {
    let (folder, binary) = site();
    let server = serve(&folder);
    let (target, into) = (Folder::new(), |target: &Folder, name: &str| target.path(name).display().to_string());
    let said = server.fetch(&["/noise.bin", "--output", &into(&target, "copy")]).text();
    assert_eq!(said, format!("{} bytes in {}\n", binary.len(), into(&target, "copy")));
    assert!(fs::read(target.path("copy")).expect("it is there") == binary);
    server.fetch(&["/docs/read me.txt", "--output", &into(&target, "text")]).text();
    assert_eq!(fs::read(target.path("text")).expect("it is there"), b"one\n.two\n.\nthree\n");
    for to_stdout in [&["/noise.bin"][..], &["/noise.bin", "--output", "-"]] {
        assert!(server.fetch(to_stdout).stdout == binary, "what is no terminal takes it");
    }
    assert_eq!(fs::read_dir(&target.0).expect("ours").count(), 2, "no parts are left");
}

#[test]
fn the_client_does_not_put_a_file_in_the_place_of_a_pipe_a_device_or_a_folder() {
    let folder = Folder::new().with("a.txt", "a\n").with("folder/b", "");
    let server = serve(&folder);
    let made = Command::new("mkfifo").arg(folder.path("pipe")).status().expect("coreutils");
    assert!(made.success());
    for name in ["pipe", "folder"] {
        let path = folder.path(name).display().to_string();
        server.fetch(&["/a.txt", "--output", &path]).fails(1, &[&path, "not a plain file"]);
        assert!(!folder.path(name).is_file() && !folder.path(&format!("{name}.part")).exists(), "{name}");
    }
}

/// A server that plays a part, once: it hears the question and does what it is told to.
fn plays(part: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let player = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody comes");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("the question in time");
        part(stream);
        line
    });
    (addr, player)
}

#[test]
fn the_client_says_that_there_is_no_such_host() {
    let mut command = program("gopher_client");
    command.arg("no-such-host.invalid"); // RFC 6761: never resolved
    let fetched_nothing = fetched(run(command));
    fetched_nothing.fails(3, &["no-such-host.invalid"]);
    // A program without the feature `names` cannot tell it from a name server that is away; the resolver's own text does.
    let told = ["error: no such host: ", "error: could not look the host up: "];
    assert!(told.iter().any(|told| fetched_nothing.complaint.starts_with(told)), "{}", fetched_nothing.complaint);
    let mut command = program("gopher_client");
    command.arg("no..host");
    fetched(run(command)).fails(2, &["`no..host` is not a host name", "--help"]);
}

#[test]
fn the_client_finds_a_host_by_its_name() {
    let folder = Folder::new().with("a.txt", "fine\n");
    let server = serve(&folder);
    let mut command = program("gopher_client");
    command.args(["--port", &server.addr.port().to_string(), "localhost", "/a.txt"]);
    assert_eq!(fetched(run(command)).text(), "fine\n");
}

#[test]
fn the_client_says_that_it_was_refused() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    fetch_at(addr, &[]).fails(4, &["refused", &addr.to_string()]);
}

#[test]
fn the_client_says_that_connecting_or_an_answer_took_too_long() {
    let (addr, player) = plays(|stream| drop(uninterrupted(|| (&stream).read(&mut [0]))));
    fetch_at(addr, &["--timeout", "1", "/x"]).fails(5, &["time-out", "1 seconds"]);
    assert_eq!(player.join().expect("no panic"), "/x\r\n");

    let (addr, _player) = plays(|stream| {
        say(&stream, "begun");
        let _ = uninterrupted(|| (&stream).read(&mut [0])); // until the client leaves
    });
    fetch_at(addr, &["--timeout", "1", "/x"]).fails(5, &["time-out", "1 seconds"]);

    if cfg!(target_os = "linux") {
        // A full backlog: Linux then drops those who knock.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        full.listen(0).expect("bound");
        let addr = full.local_addr().expect("bound").as_socket().expect("an IP address");
        let _first = dial(addr);
        fetch_at(addr, &["--timeout", "1"]).fails(5, &["time-out", &addr.to_string()]);
    }
}

#[test]
fn the_client_says_that_the_server_closed_early_and_leaves_no_part() {
    let target = Folder::new().with("old", "as it was");
    let output = target.path("old").display().to_string();
    let resets = |stream: TcpStream| {
        say(&stream, vec![7; 100_000]);
        reset(stream);
    };
    let parts: [(&str, Box<dyn FnOnce(TcpStream) + Send>); 4] = [
        ("/a.txt", Box::new(drop)),
        ("/a.txt", Box::new(|stream| say(&stream, "one\r\ntwo"))),
        ("/", Box::new(|stream| say(&stream, "0a\t/a\thost\t70\r\n0b\t/b"))),
        ("/a.bin", Box::new(resets)),
    ];
    for (selector, part) in parts {
        let (addr, player) = plays(part);
        fetch_at(addr, &[selector, "--output", &output]).fails(6, &["early"]);
        player.join().expect("no panic");
        assert_eq!(fs::read(target.path("old")).expect("it is there"), b"as it was", "{selector}");
        assert_eq!(fs::read_dir(&target.0).expect("ours").count(), 1, "no part is left");
    }
}

#[test]
fn the_client_knows_the_answer_that_there_is_no_such_thing() {
    let folder = Folder::new();
    let server = serve(&folder);
    let target = Folder::new();
    for (selector, kind) in [("/x", "1"), ("/x.txt", "0"), ("/x.bin", "9"), ("/x", "0")] {
        let output = target.path("x").display().to_string();
        for arguments in [&[selector, "--type", kind][..], &[selector], &[selector, "--output", &output]] {
            let fetched = server.fetch(arguments);
            fetched.fails(7, &["does not exist", selector]);
            assert_eq!(fetched.stdout, b"");
        }
    }
    assert_eq!(fs::read_dir(&target.0).expect("ours").count(), 0, "nothing is written");
    let (addr, _player) = plays(|stream| say(&stream, b"3 is a number and this a file"));
    assert_eq!(fetch_at(addr, &["/x.bin"]).text(), "3 is a number and this a file");
}

#[test]
fn the_client_takes_an_answer_without_its_last_line_and_says_so() {
    for (selector, answer, shown) in [("/a.txt", "one\r\n", "one\n"), ("/", "ione\t\t-\t0\r\n", "         one\n")] {
        let (addr, _player) = plays(move |stream| say(&stream, answer));
        let fetched = fetch_at(addr, &[selector]);
        assert_eq!((fetched.code, String::from_utf8(fetched.stdout).expect("text")), (Some(0), shown.into()));
        assert!(fetched.complaint.starts_with("note: ") && fetched.complaint.contains("last line"), "{}", fetched.complaint);
    }
}

#[test]
fn the_client_does_not_wait_for_a_server_that_has_said_its_last_line() {
    let (addr, player) = plays(|stream| {
        say(&stream, "one\r\n.\r\n");
        assert_eq!(uninterrupted(|| (&stream).read(&mut [0])).expect("the client leaves first"), 0);
    });
    assert_eq!(fetch_at(addr, &["/a.txt"]).text(), "one\n");
    player.join().expect("no panic");
}

#[test]
fn the_client_ends_when_it_is_interrupted_and_leaves_no_part() {
    let target = Folder::new();
    let (tell, told) = channel();
    let (addr, _player) = plays(move |stream| {
        say(&stream, "begun");
        tell.send(()).expect("the test waits");
        let _ = uninterrupted(|| (&stream).read(&mut [0])); // until the client leaves
    });
    let mut command = program("gopher_client");
    command.args(["127.0.0.1", "--port", &addr.port().to_string(), "/a.bin", "--output"]).arg(target.path("a"));
    let mut running = Running(command.stderr(Stdio::null()).spawn().expect("it was built"));
    told.recv_timeout(PATIENCE).expect("it asks");
    assert!(target.path("a.part").exists());
    running.interrupt();
    assert_eq!(running.0.wait().expect("ours").code(), Some(130));
    assert_eq!(fs::read_dir(&target.0).expect("ours").count(), 0);
}

#[test]
fn the_client_says_what_is_wrong_with_its_command_line_or_the_disk() {
    let wrong: [(&[&str], &str); 21] = [
        (&[], "HOST"),
        (&["example.org:7070"], "example.org --port 7070"),
        (&["unix:"], "`unix:` is not a host name: it has `:` in it"),
        (&["a b:1"], "`a b:1` is not a host name"),
        (&["example.org:http"], "`example.org:http` is not a host name"),
        (&["example.org:0"], "`example.org:0` is not a host name"),
        (&[":70"], "`:70` is not a host name"),
        (&[""], "it is empty"),
        (&["127.0.0.1", "--output", ""], "--output '' names nothing"),
        (&["gopher://example.org/"], "not a URL"),
        (&["--nonsense"], "--nonsense"),
        (&["host", "/x", "surplus"], "surplus"),
        (&["host", "--port", "70000"], "--port takes a whole number from 1 to 65535, not '70000'"),
        (&["host", "--port", "http"], "not 'http'"),
        (&["host", "--type", "text"], "text"),
        (&["host", "a\tb"], "tab"),
        (&["host", &"x".repeat(256)], "256"),
        (&["host", "--timeout", "soon"], "--timeout takes a whole number from 1 to 31536000, not 'soon'"),
        (&["host", "--port", "0"], "not '0'"),
        (&["host", "--search", "words"], "--search needs the SELECTOR of a search"),
        (&["host", "/", "--search", "words"], "--search needs the SELECTOR of a search"),
    ];
    for (arguments, word) in wrong {
        let mut command = program("gopher_client");
        command.args(arguments);
        fetched(run(command)).fails(2, &[word]);
    }
    let mut command = program("gopher_client");
    command.args(["127.0.0.1", "--output", "/nowhere/x"]);
    fetched(run(command)).fails(1, &["'/nowhere/x.part'"]);
}

#[test]
fn on_a_terminal_progress_is_shown_and_a_binary_is_not() {
    if !has("script") {
        return;
    }
    let target = Folder::new();
    let (go_on, may_go_on) = channel();
    let (addr, _player) = plays(move |stream| {
        say(&stream, [7; 1000]);
        may_go_on.recv().expect("the test goes on");
        say(&stream, [7; 234]);
    });
    // script(1) runs it on a terminal of its own, and writes down what is to be seen there.
    let on_terminal = |arguments: &str, addr: SocketAddr| {
        let client = program("gopher_client");
        let client = Path::new(client.get_program()).display();
        let line = format!("{client} --port {} 127.0.0.1 {arguments}", addr.port());
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::piped());
        Running(command.spawn().expect("script(1)"))
    };
    let mut running = on_terminal(&format!("/a.bin --output {}", target.path("a").display()), addr);
    let mut screen = running.0.stdout.take().expect("piped");
    let mut seen = String::new();
    while !seen.contains("\r1000 bytes") {
        let mut piece = [0; 100];
        let read = screen.read(&mut piece).expect("open");
        assert!(read > 0, "no progress: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    go_on.send(()).expect("the server waits");
    screen.read_to_string(&mut seen).expect("text");
    assert!(seen.contains(&format!("1234 bytes in {}", target.path("a").display())), "{seen:?}");
    assert_eq!(fs::read(target.path("a")).expect("it is there").len(), 1234);

    let (addr, _player) = plays(|stream| say(&stream, "\0\x1b"));
    let mut running = on_terminal("/a.bin", addr);
    let mut seen = String::new();
    running.0.stdout.take().expect("piped").read_to_string(&mut seen).expect("text");
    assert!(seen.contains("--output") && !seen.contains('\0'), "{seen:?}");
}

// -------------------------------------------------------------------------------- the protocol on a simulated network

/// The files are real, the network and its time are not.
#[cfg(feature = "sim")]
mod simulated {
    use super::{Folder, NOT_FOUND, noise};
    use crate::{
        server::{Server, Visitor},
        site::Site,
    };
    use mainspring::{
        Config, Context, Limit, Outcome, Protocol, Reason,
        testing::{Scene, Transcript, Weather, check},
    };
    use std::{sync::Arc, time::Duration};

    const MINUTE: Duration = Duration::from_secs(60);

    fn server(folder: &Folder) -> Server {
        let site = Arc::new(Site::new(&folder.0).expect("it is there"));
        Server { site, searches: Arc::default(), host: None, patience: MINUTE }
    }

    fn dialogue(folder: &Folder) -> Transcript<Visitor, Server> {
        Transcript::with_state(Visitor, server(folder))
    }

    #[test]
    fn a_question_however_it_is_cut_gets_one_answer_and_the_end() {
        let folder = Folder::new().with("a.txt", ".a\n");
        dialogue(&folder).receives("/a.t").sends("").receives("xt\r\n").sends("..a\r\n.\r\n").closes(Reason::is_clean);
        dialogue(&folder).receives("/a.txt\r\n/a.txt\r\n").sends("..a\r\n.\r\n").closes(Reason::is_clean);
        dialogue(&folder).receives("/x\n").sends(format!("3'/x{NOT_FOUND}")).closes(Reason::is_clean);
        let menu = dialogue(&folder).receives("\r\n").sent();
        assert!(menu.starts_with(b"0a.txt\t/a.txt\t127.0.0.1\t") && menu.ends_with(b"\r\n.\r\n"));
    }

    #[test]
    fn too_long_a_question_is_refused_before_it_ends() {
        let folder = Folder::new();
        let mut t = dialogue(&folder);
        t.receives("x".repeat(511)).sends("").stays_open();
        t.receives("x").sends("3the selector is longer than 255 bytes\t\t-\t0\r\n.\r\n").closes(Reason::is_clean);
    }

    #[test]
    fn a_question_that_never_ends_has_its_time_however_it_drips() {
        let folder = Folder::new();
        let mut t = dialogue(&folder);
        for _ in 0..59 {
            t.receives("x").passes(Duration::from_secs(1));
        }
        t.stays_open().passes(Duration::from_secs(1));
        t.closes(|why| matches!(why, Reason::Limit(Limit::Deadline)));
    }

    #[test]
    fn half_a_question_is_not_answered() {
        let folder = Folder::new().with("a", "");
        dialogue(&folder).receives("/a").peer_ends().sends("").closes(Reason::is_clean);
        dialogue(&folder).receives("/a").peer_resets().closes(|why| matches!(why, Reason::Io(_)));
    }

    const AT: &str = "127.0.0.1:70";

    #[test]
    fn searches_beyond_two_are_refused_and_folders_do_not_wait_for_them() {
        let folder = Folder::new().with("a.txt", "a");
        let mut scene = Scene::new(1, server(&folder));
        scene.set_weather(Weather::fair().work(MINUTE));
        scene.net().listen(AT, || Visitor).expect("a simulated port is free");
        let [first, second, third, menu] = [(); 4].map(|()| scene.dials(AT));
        for search in [first, second] {
            scene.says(search, "search\ta\r\n");
        }
        scene.resets(second); // what it began goes on without it, and counts
        scene.says(third, "search\ta\r\n");
        scene.hears(third, "3too many searches, try again later\t\t-\t0\r\n.\r\n").hears_end(third);
        scene.says(menu, "\r\n").passes(MINUTE);
        assert!(scene.takes(menu).starts_with(b"0a.txt\t"));
        assert!(scene.takes(first).starts_with(b"0/a.txt\t"));
        let fourth = scene.dials(AT);
        scene.says(fourth, "search\ta\r\n").passes(MINUTE);
        assert!(scene.takes(fourth).starts_with(b"0/a.txt\t"), "the others are done");
    }

    #[test]
    fn who_takes_nothing_has_a_minute_and_who_is_slow_all_the_time_there_is() {
        let bytes = noise(1 << 20);
        let folder = Folder::new().with("big.bin", &bytes);
        let mut scene = Scene::with_config(1, server(&folder), Config::new().linger_max(MINUTE));
        scene.net().listen(AT, || Visitor).expect("a simulated port is free");
        let [deaf, slow] = [(); 2].map(|()| scene.dials(AT));
        for who in [deaf, slow] {
            scene.reads(who, false).says(who, "/big.bin\r\n");
        }
        let mut taken = Vec::new();
        while taken.len() < bytes.len() {
            scene.passes(MINUTE / 2).reads(slow, true);
            let heard = scene.takes(slow);
            assert!(!heard.is_empty(), "it is still sent");
            taken.extend(heard);
            scene.reads(slow, false);
        }
        assert!(taken == bytes);
        scene.passes(2 * MINUTE);
        assert_eq!(scene.connections(), 0);
    }

    /// Asks, and keeps what comes.
    struct Asker {
        selector: &'static str,
    }

    #[derive(Default)]
    struct Heard {
        bytes: Vec<u8>,
        end: Option<Reason>,
    }

    impl Protocol<Heard> for Asker {
        fn connected(&mut self, ctx: &mut Context<'_, Heard>, _: &mut Heard) -> Outcome {
            write!(ctx, "{}\r\n", self.selector);
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_, Heard>, heard: &mut Heard, bytes: &[u8]) -> Outcome {
            heard.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Heard>, heard: &mut Heard, why: Reason) {
            heard.end = Some(why);
        }
    }

    #[test]
    fn in_any_weather_an_answer_is_whole_or_known_not_to_be() {
        let bytes = noise(200_000);
        let folder = Folder::new().with("noise.bin", &bytes);
        check(0..60, |sim| {
            let host = sim.host("10.0.0.1", server(&folder));
            sim.net(host).listen("10.0.0.1:70", || Visitor).expect("a simulated port is free");
            sim.set_weather(Weather::rough().resets(5));
            let homes = [1, 2, 3].map(|number| {
                let home = sim.host(&format!("10.0.1.{number}"), Heard::default());
                sim.net(home).connect("10.0.0.1:70", Asker { selector: "/noise.bin" });
                home
            });
            sim.run_for(10 * MINUTE);
            for home in homes {
                let heard = sim.state(home);
                let why = heard.end.as_ref().expect("it ended, one way or the other");
                assert!(bytes.starts_with(&heard.bytes));
                assert!(!why.is_clean() || heard.bytes.len() == bytes.len(), "{why}");
            }
            assert_eq!(sim.sockets(host), 1, "the listener is left");
        });
    }
}
