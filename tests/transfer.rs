//! The example `transfer`: both programs, hostile senders, broken lines and killed receivers; its pure parts with the tests
//! that stand beside them.
//!
//! `cargo test` builds the program; a command that selects tests does not: then `cargo build --examples` comes first.
#![cfg(unix)]

mod common;
#[allow(dead_code)] // what only the program needs
#[path = "../examples/transfer/line.rs"]
mod line;
#[path = "../examples/common/printable.rs"]
mod printable;
#[path = "../examples/transfer/sha256.rs"]
mod sha256;

use common::{PATIENCE, dial, say};
use line::{Answer, Header};
use sha256::Sha256;
use socket2::SockRef;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
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
        let name = format!("mainspring-transfer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new name");
        Self(path)
    }

    fn with(self, name: &str, content: &[u8]) -> Self {
        fs::write(self.0.join(name), content).expect("writable");
        self
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a temporary path").to_owned()
    }

    /// The names in it.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ours")).collect();
        names.sort();
        names
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).expect("it is there")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program() -> Command {
    let test = std::env::current_exe().expect("this test is a file");
    let path = test.ancestors().nth(2).expect("target/debug/deps/this").join("examples").join("transfer");
    assert!(path.exists(), "{} is not there: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

/// Runs to its end, which must come.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments).stdin(Stdio::null());
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(command.output()));
    receiver.recv_timeout(3 * PATIENCE).expect("the program ends").expect("it was built")
}

/// What a sender said of files, without what it waited for meanwhile: on a slow machine everything may take a while.
fn said_of_files(output: &Output) -> String {
    let waits = ["waiting for the receiver", "the receiver is busy with it", "read for its checksum", "connecting to"];
    let is_progress =
        |line: &str| waits.iter().any(|wait| line.contains(wait)) || line.ends_with(" bytes") && line.contains(" of ");
    let lines = text(&output.stdout).split_inclusive('\n');
    lines.filter(|line| !is_progress(line.trim_end()) || line.contains("goes on at")).collect()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A receiver that runs, and does not outlive its test.
struct Receiving {
    child: Child,
    lines: Receiver<String>,
    at: SocketAddr,
}

impl Receiving {
    fn into(folder: &Folder, options: &[&str]) -> Self {
        let into = folder.0.to_str().expect("a temporary path");
        let arguments = [&["receive"], options, &[into, "127.0.0.1:0"]].concat();
        let mut child = program().args(arguments).stdout(Stdio::piped()).spawn().expect("a program that was built");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let first = lines.recv_timeout(PATIENCE).expect("a first line");
        let at = first.strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
        Self { child, lines, at }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line of output")
    }

    fn send(&self, files: &[String]) -> Output {
        let at = self.at.to_string();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        run(&[&["send", &at], &files[..]].concat())
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// A sender that does what the test says.
struct Hand {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Hand {
    fn to(receiving: &Receiving) -> Self {
        let socket = dial(receiving.at);
        Self { lines: BufReader::new(socket.try_clone().expect("a descriptor")), socket }
    }

    fn says(&mut self, bytes: impl AsRef<[u8]>) {
        say(&self.socket, bytes);
    }

    #[track_caller]
    fn hears(&mut self) -> Answer {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("a line in time");
            match Answer::parse(line.trim_end().as_bytes()).expect("an answer") {
                Answer::Busy => {} // as long as it may be
                other => return other,
            }
        }
    }

    #[track_caller]
    fn is_refused(&mut self, word: &str) {
        match self.hears() {
            Answer::Refused { why } => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Up to the end of it, and no further; before it the sender may say that it is busy.
fn hears_header(mut sender: &TcpStream) {
    let mut said = Vec::new();
    let mut byte = [0];
    while !(byte == *b"\n" && text(&said).contains("sha256")) {
        sender.read_exact(&mut byte).expect("a header in time");
        said.extend(byte);
    }
}

fn header(name: &str, content: &[u8]) -> Header {
    let mut sha = Sha256::new();
    sha.add(content);
    Header { name: name.into(), size: content.len() as u64, sha256: sha.digest() }
}

/// Bytes of which no two neighbouring pieces are alike.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8 ^ (n / 251) as u8).collect()
}

#[track_caller]
fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "the condition did not come true");
        thread::sleep(Duration::from_millis(1)); // a look at the folder, a thousand times a second
    }
}

// --------------------------------------------------------------------------------------------------------- the tests

#[test]
fn files_arrive_whole_many_on_one_connection() {
    let (from, into) =
        (Folder::new().with("large", &pattern(1_000_000)).with("empty", b"").with("it's ünï", b"x"), Folder::new());
    let receiving = Receiving::into(&into, &[]);
    let files = ["large", "empty", "it's ünï"].map(|name| from.path(name));
    let sent = receiving.send(&files);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let told: Vec<&str> = text(&sent.stdout).lines().filter(|line| line.contains("sent, ")).collect();
    assert_eq!(told, ["large: sent, 1000000 bytes", "empty: sent, 0 bytes", "it's ünï: sent, 1 bytes"]);
    let peers: Vec<String> = (0..3).map(|_| receiving.line().rsplit(' ').next().expect("a word").to_owned()).collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
    assert_eq!(into.names(), ["empty", "it's ünï", "large"]);
    assert_eq!(into.content("large"), pattern(1_000_000));
    // Again: nothing is sent twice.
    let again = receiving.send(&files);
    assert_eq!(said_of_files(&again), "large: is there already\nempty: is there already\nit's ünï: is there already\n");
    assert!(again.status.success());
}

#[test]
fn a_file_that_has_arrived_is_confirmed_also_when_nobody_hears_the_receiver_tell_it() {
    let (from, into) = (Folder::new().with("file", b"content"), Folder::new());
    let into_path = into.0.to_str().expect("a temporary path");
    let mut child = program().args(["receive", into_path, "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("it was built");
    let mut first = String::new();
    let output = child.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut first).expect("a first line"); // what it says now fails (EPIPE)
    let at = first.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
    let receiving = Receiving { child, lines: channel().1, at };
    let sent = receiving.send(&[from.path("file")]);
    assert_eq!((said_of_files(&sent).as_str(), text(&sent.stderr)), ("file: sent, 7 bytes\n", ""));
    assert_eq!(into.content("file"), b"content");
}

#[test]
fn a_sender_says_what_to_do_when_its_receiver_ends_or_it_is_interrupted() {
    let from = Folder::new().with("file", b"content");
    for is_interrupted in [false, true] {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = nobody.local_addr().expect("bound").to_string();
        let sender = program().args(["send", &at, &from.path("file")]).stderr(Stdio::piped()).spawn().expect("it was built");
        let (peer, _) = nobody.accept().expect("the sender comes");
        hears_header(&peer);
        let (words, code) = if is_interrupted {
            let killed = Command::new("kill").args(["-INT", &sender.id().to_string()]).status();
            assert!(killed.expect("kill(1) exists").success());
            ("file: interrupted; send it again, and it goes on", 130)
        } else {
            drop(peer);
            ("file: the receiver ended before it had all; send it again, and it goes on", 1)
        };
        let output = sender.wait_with_output().expect("ours");
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(text(&output.stderr), format!("{words}\nerror: a file was not sent\n"));
    }
}

#[test]
fn what_was_broken_off_goes_on_where_it_stood() {
    let content = pattern(300_000);
    let (from, into) = (Folder::new().with("file", &content), Folder::new());
    let receiving = Receiving::into(&into, &[]);
    let mut hand = Hand::to(&receiving);
    hand.says(header("file", &content).line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says(&content[..123_456]);
    let size_of_part = || into.names().first().and_then(|name| fs::metadata(into.0.join(name)).ok()).map_or(0, |part| part.len());
    until(|| size_of_part() == 123_456);
    assert!(into.names()[0].starts_with(".file."), "it has no name of its own yet");
    drop(hand);
    let told = receiving.line();
    assert!(told.starts_with("file: 123456 of 300000 bytes, from ") && told.contains(": broken off: "), "{told}");
    let sent = receiving.send(&[from.path("file")]);
    assert_eq!(said_of_files(&sent), "file: goes on at 123456 of 300000 bytes\nfile: sent, 300000 bytes\n");
    assert_eq!(into.names(), ["file"]);
    assert_eq!(into.content("file"), content);
}

#[test]
fn a_killed_receiver_loses_nothing_that_it_had() {
    let content = pattern(6_000_000);
    let (from, into) = (Folder::new().with("file", &content), Folder::new());
    let mut kills = 0;
    let sent = loop {
        let receiving = Receiving::into(&into, &[]);
        let at = receiving.at.to_string();
        let sender = program().args(["send", &at, &from.path("file")]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let sender = sender.expect("a program that was built");
        if kills < 3 {
            kills += 1;
            let enough = kills * 1_000_000;
            let has = || {
                into.names().first().and_then(|name| fs::metadata(into.0.join(name)).ok()).is_some_and(|part| part.len() > enough)
            };
            until(has);
            receiving.signal("-KILL");
            let output = sender.wait_with_output().expect("ours");
            assert_eq!(output.status.code(), Some(1));
            assert!(text(&output.stderr).contains("file: ") && text(&output.stderr).contains("a file was not sent"));
            assert!(!into.0.join("file").exists(), "it has its name when it is whole");
        } else {
            break sender.wait_with_output().expect("ours");
        }
    };
    let goes_on = text(&sent.stdout).lines().any(|line| line.starts_with("file: goes on at "));
    assert!(sent.status.success() && goes_on, "{}", text(&sent.stdout));
    assert_eq!(into.names(), ["file"]);
    assert_eq!(into.content("file"), content);
}

#[test]
fn hostile_names_are_refused_and_the_connection_goes_on() {
    let outer = Folder::new();
    let into = Folder(outer.0.join("in"));
    fs::create_dir(&into.0).expect("a new name");
    let receiving = Receiving::into(&into, &["--limit", "100"]);
    let mut hand = Hand::to(&receiving);
    for name in [
        "../up",
        "/etc/passwd",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "nul\0",
        "line\n",
        "",
        "invoice\u{202e}fdp.exe",
        "soft\u{ad}hyphen",
    ] {
        hand.says(header(name, b"x").line());
        hand.is_refused("a name");
    }
    hand.says(header("long", &[0; 101]).line());
    hand.is_refused("too many");
    hand.says(header("good", b"content").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says("content");
    assert_eq!(hand.hears(), Answer::Done);
    assert_eq!((outer.names(), into.names()), (vec!["in".to_owned()], vec!["good".to_owned()]));
    // A line without an end is not kept.
    hand.says("{".repeat(5000));
    let mut rest = Vec::new();
    let _ = hand.lines.read_to_end(&mut rest); // an end or a reset
    assert!(rest.is_empty());
}

#[test]
fn who_says_a_line_that_is_no_header_is_refused_and_let_go() {
    let into = Folder::new();
    let receiving = Receiving::into(&into, &[]);
    for (line, word) in [("x\n", "JSON"), ("GET / HTTP/1.1\r\n", "JSON"), ("\n", "JSON"), ("{\"name\":\"a\"}\n", "size")] {
        let mut hand = Hand::to(&receiving);
        hand.says(line);
        hand.is_refused(word);
        let mut rest = Vec::new();
        hand.lines.read_to_end(&mut rest).expect("an orderly end in time");
        assert!(rest.is_empty());
    }
}

#[test]
fn what_answers_without_being_a_receiver_is_said_to_be_none() {
    let from = Folder::new().with("file", b"content");
    for said in [&b"220 hello\r\n"[..], &[b'x'; 10_000], &[0; 5000], b"{\"state\":\"well\"}\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it listens").to_string();
        let server = thread::spawn(move || {
            let mut sender = listener.accept().expect("it comes").0;
            let _ = sender.write_all(said); // it may have gone
            let _ = sender.read_to_end(&mut Vec::new());
        });
        let sent = run(&["send", &at, &from.path("file")]);
        server.join().expect("it has played its part");
        assert_eq!(sent.status.code(), Some(1));
        let complaints = text(&sent.stderr);
        assert!(complaints.contains("file: the other end is not a receiver of files: "), "{complaints}");
        assert!(!complaints.contains("send it again"), "{complaints}");
    }
}

#[test]
fn what_a_sender_says_on_the_way_may_be_lost_and_the_files_arrive() {
    let (from, into) = (Folder::new().with("file", b"content"), Folder::new());
    let receiving = Receiving::into(&into, &[]);
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else { return }; // full(4)
    let sent = program().args(["send", &receiving.at.to_string(), &from.path("file")]).stdout(full).output();
    assert_eq!(sent.expect("it was built").status.code(), Some(0));
    assert_eq!(into.content("file"), b"content");
}

#[test]
fn a_wrong_checksum_leaves_nothing_behind() {
    let into = Folder::new();
    let receiving = Receiving::into(&into, &[]);
    let mut hand = Hand::to(&receiving);
    hand.says(header("file", b"promised").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says("replaced");
    hand.is_refused("checksum");
    assert_eq!(into.names(), [""; 0]);
    hand.says(header("file", b"promised").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says("promised");
    assert_eq!(hand.hears(), Answer::Done);
    assert_eq!(into.content("file"), b"promised");
}

#[test]
fn a_file_that_is_there_is_not_replaced_and_one_that_is_coming_comes_once() {
    let into = Folder::new().with("there", b"old");
    std::os::unix::fs::symlink("/dev/null", into.0.join("link")).expect("a new name");
    let receiving = Receiving::into(&into, &[]);
    let (mut hand, mut other) = (Hand::to(&receiving), Hand::to(&receiving));
    for name in ["there", "link"] {
        hand.says(header(name, b"new").line());
        hand.is_refused("with another content");
    }
    hand.says(header("there", b"old").line());
    assert_eq!(hand.hears(), Answer::Done);
    hand.says(header("file", b"mine").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    other.says(header("file", b"yours").line());
    other.is_refused("somebody else is sending");
    hand.says("mine");
    assert_eq!(hand.hears(), Answer::Done);
    other.says(header("file", b"yours").line());
    other.is_refused("with another content");
    assert_eq!((into.content("there"), into.content("file")), (b"old".to_vec(), b"mine".to_vec()));
}

#[test]
fn a_sender_says_which_files_were_not_sent_and_sends_the_others() {
    let (from, into) = (Folder::new().with("good", b"good").with(".hidden", b"x"), Folder::new().with("there", b"old"));
    let from = from.with("there", b"new");
    let receiving = Receiving::into(&into, &[]);
    let files = [from.path("missing"), from.path(".hidden"), from.path("."), from.path("there"), from.path("good")];
    let sent = receiving.send(&files);
    assert_eq!(sent.status.code(), Some(1));
    let complaints: Vec<&str> = text(&sent.stderr).lines().collect();
    assert_eq!(complaints.len(), 5, "{complaints:?}");
    assert!(complaints[3].starts_with("there: a file of that name exists"), "{complaints:?}");
    assert_eq!(complaints[4], "error: 4 files were not sent");
    assert_eq!(said_of_files(&sent), "good: sent, 4 bytes\n");
    // Nobody there.
    let at = receiving.at.to_string();
    drop(receiving);
    let sent = run(&["send", &at, &from.path("good")]);
    assert_eq!(sent.status.code(), Some(1));
    assert!(text(&sent.stderr).contains("good: could not connect to "), "{}", text(&sent.stderr));
}

#[test]
fn what_is_no_plain_file_is_not_sent_and_a_pipe_is_not_waited_for() {
    let (from, into) = (Folder::new().with("good", b"good"), Folder::new());
    let made = Command::new("mkfifo").arg(from.path("pipe")).status().expect("coreutils");
    assert!(made.success());
    let receiving = Receiving::into(&into, &[]);
    let at = receiving.at.to_string();
    let sending = program().args(["send", &at, &from.path("pipe"), &from.path("good")]).stderr(Stdio::piped()).spawn();
    let mut sending = sending.expect("a program that was built");
    let (sender, sent) = channel();
    let mut complaints = BufReader::new(sending.stderr.take().expect("piped")).lines();
    thread::spawn(move || sender.send(complaints.next()));
    let first = sent.recv_timeout(PATIENCE);
    let _ = sending.kill(); // if it waits
    let _ = sending.wait();
    let first = first.expect("it does not wait for somebody to write").expect("a line").expect("text");
    assert_eq!(first, format!("{}: it is not a plain file", from.path("pipe")));
}

#[test]
fn what_a_receiver_says_stays_on_one_line_and_does_nothing_to_a_terminal() {
    let from = Folder::new().with("file", b"x");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it listens").to_string();
    let receiver = thread::spawn(move || {
        let mut sender = listener.accept().expect("it comes").0;
        hears_header(&sender);
        let refused = Answer::Refused { why: "no\nfile: sent, 1 bytes\r\u{1b}[2J\u{9b}31m\u{202e}".into() };
        sender.write_all(refused.line().as_bytes()).expect("it listens");
    });
    let sent = run(&["send", &at, &from.path("file")]);
    receiver.join().expect("it has played its part");
    assert_eq!(text(&sent.stderr), "file: no file: sent, 1 bytes  [2J 31m\u{fffd}\nerror: a file was not sent\n");
}

#[test]
fn a_header_alone_leaves_nothing_behind() {
    let into = Folder::new();
    let receiving = Receiving::into(&into, &[]);
    for n in 0..20 {
        let mut hand = Hand::to(&receiving);
        hand.says(Answer::Busy.line()); // it reads the file, and is not answered
        hand.says(header(&format!("file {n}"), b"promised").line());
        assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
        drop(hand);
        assert!(receiving.line().contains(": 0 of 8 bytes, from "));
    }
    assert_eq!(into.names(), [""; 0]);
}

/// A receiver that hears a header, and does no more than the test says.
fn silent_receiver(says: &'static str) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound").to_string();
    let receiver = thread::spawn(move || {
        let mut sender = listener.accept().expect("it comes").0;
        sender.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        hears_header(&sender);
        sender.write_all(says.as_bytes()).expect("it listens");
        let _ = sender.read_to_end(&mut Vec::new()); // until it leaves
    });
    (at, receiver)
}

#[test]
fn a_sender_says_what_it_waits_for_and_gives_a_silent_receiver_up() {
    let from = Folder::new().with("file", b"content").with("next", b"x");
    // On a slow machine other lines may come before.
    let cases = [
        ("", "file: waiting for the receiver's answer, for 2 seconds at most"),
        ("{\"state\":\"busy\"}\n", "file: the receiver is busy with it"),
        ("{\"state\":\"ready\",\"offset\":0}\n", "file: waiting for the receiver's answer, for 2 seconds at most"),
        ("{\"state\":\"rea", "file: waiting for the receiver's answer, for 2 seconds at most"),
    ];
    for (says, told) in cases {
        let (at, receiver) = silent_receiver(says);
        let output = run(&["send", "--timeout", "2", &at, &from.path("file"), &from.path("next")]);
        receiver.join().expect("it has played its part");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout).lines().filter(|line| *line == told).count(), 1, "{says}: {}", text(&output.stdout));
        let next = from.path("next");
        let complaints = format!(
            "file: the receiver has said nothing for 2 seconds; send it again, and it goes on\n\
             {next}: not tried, because the connection ended with file\nerror: 2 files were not sent\n"
        );
        assert_eq!(text(&output.stderr), complaints, "{says}");
    }
}

#[test]
fn a_sender_gives_a_receiver_up_that_takes_nothing() {
    let from = Folder::new().with("file", &vec![b'x'; 8 << 20]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    SockRef::from(&listener).set_recv_buffer_size(4096).expect("a socket option");
    let at = listener.local_addr().expect("bound").to_string();
    let (done, may_end) = channel::<()>();
    let receiver = thread::spawn(move || {
        let mut sender = listener.accept().expect("it comes").0;
        hears_header(&sender);
        sender.write_all(Answer::Ready { offset: 0 }.line().as_bytes()).expect("it listens");
        let _ = may_end.recv();
    });
    let output = run(&["send", "--timeout", "1", &at, &from.path("file")]);
    drop(done);
    receiver.join().expect("it has played its part");
    let complaint =
        "file: the receiver has taken nothing for 1 seconds; send it again, and it goes on\nerror: a file was not sent\n";
    assert_eq!(text(&output.stderr), complaint);
}

#[test]
fn a_sender_says_what_to_do_after_a_reset() {
    let from = Folder::new().with("file", b"content");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound").to_string();
    let receiver = thread::spawn(move || {
        let sender = listener.accept().expect("it comes").0;
        hears_header(&sender);
        common::reset(sender);
    });
    let output = run(&["send", &at, &from.path("file")]);
    receiver.join().expect("it has played its part");
    let first = text(&output.stderr).lines().next().expect("a complaint").to_owned();
    assert!(first.starts_with("file: connection lost") && first.ends_with("; send it again, and it goes on"), "{first}");
}

/// No file of more than 64 KiB, which is as good as a full disk; and with it no signal, but an error (setrlimit(2)).
#[test]
fn a_disk_that_is_full_is_told_at_both_ends_and_no_part_stays() {
    let (from, into) = (Folder::new().with("large", &pattern(1_000_000)).with("next", b"x"), Folder::new());
    let transfer = program();
    let line = format!(
        "trap '' XFSZ && ulimit -f 128 && exec '{}' receive '{}' 127.0.0.1:0",
        Path::new(transfer.get_program()).display(),
        into.0.display()
    );
    let mut child = Command::new("sh").args(["-c", &line]).stdout(Stdio::piped()).spawn().expect("sh(1)");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = channel();
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let first: String = lines.recv_timeout(PATIENCE).expect("a first line");
    let at = first.strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
    let receiving = Receiving { child, lines, at };
    let sent = receiving.send(&[from.path("large"), from.path("next")]);
    let told = receiving.line();
    assert!(told.starts_with("large: ") && told.contains("cannot write it, so it is removed: File too large"), "{told}");
    let complaints: Vec<&str> = text(&sent.stderr).lines().collect();
    assert!(complaints[0].starts_with("large: the receiver cannot write it: File too large"), "{complaints:?}");
    assert!(complaints[1].ends_with("next: not tried, because the connection ended with large"), "{complaints:?}");
    assert_eq!(complaints[2..], ["error: 2 files were not sent"]);
    assert_eq!(into.names(), [""; 0]);
    // What fits still comes.
    assert!(receiving.send(&[from.path("next")]).status.success());
}

#[test]
fn a_file_that_is_coming_comes_also_after_an_interrupt() {
    let into = Folder::new();
    let mut receiving = Receiving::into(&into, &[]);
    let (mut hand, mut idle) = (Hand::to(&receiving), Hand::to(&receiving));
    idle.says(header("else", b"").line());
    assert_eq!(idle.hears(), Answer::Ready { offset: 0 });
    assert_eq!(idle.hears(), Answer::Done);
    hand.says(header("file", b"content").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says("con");
    receiving.signal("-INT");
    assert_eq!(idle.lines.read_line(&mut String::new()).expect("an orderly end"), 0);
    hand.says("tent");
    assert_eq!(hand.hears(), Answer::Done);
    assert_eq!(hand.lines.read_line(&mut String::new()).expect("an orderly end"), 0);
    drop((hand, idle));
    assert_eq!(receiving.child.wait().expect("ours").code(), Some(0));
    assert_eq!((into.names(), into.content("file")), (vec!["else".to_owned(), "file".to_owned()], b"content".to_vec()));
}

#[test]
fn help_mistakes_and_an_interrupt() {
    let help = run(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("usage: transfer receive"));
    let wrong: [(&[&str], i32, &str); 13] = [
        (&["send", "--limit", "5", "127.0.0.1:1", "file"], 2, "--limit is for receive"),
        (&["receive", "--timeout", "5", "/", "127.0.0.1:0"], 2, "--timeout is for send"),
        (&[], 2, "receive or send?"),
        (&["nonsense"], 2, "'nonsense' is neither"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["receive"], 2, "FOLDER"),
        (&["receive", "/nowhere"], 1, "'/nowhere' is not a folder"),
        (&["receive", "/", "127.0.0.1:0", "surplus"], 2, "surplus"),
        (&["send", "127.0.0.1:1"], 2, "FILE"),
        (&["send", "nonsense", "file"], 2, "`nonsense` is not an address"),
        (&["send", "--timeout", "0", "127.0.0.1:1", "file"], 2, "--timeout takes a whole number from 1 to 31536000, not '0'"),
        (&["receive", "--limit", "nonsense", "/"], 2, "--limit takes a whole number from 0 to"),
        (&["receive", "--limit", "1k", "/"], 2, "not '1k'"),
    ];
    for (arguments, code, word) in wrong {
        let output = run(arguments);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(complaint.starts_with("error: ") && complaint.lines().count() == 1, "{arguments:?}: {complaint}");
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
    let into = Folder::new();
    let mut receiving = Receiving::into(&into, &[]);
    let mut hand = Hand::to(&receiving);
    hand.says(header("file", b"never").line());
    assert_eq!(hand.hears(), Answer::Ready { offset: 0 });
    hand.says("ne");
    until(|| !into.names().is_empty());
    receiving.signal("-INT");
    until(|| TcpStream::connect(receiving.at).is_err()); // it listens no more
    receiving.signal("-TERM");
    assert_eq!(receiving.child.wait().expect("ours").signal(), Some(15));
    assert!(!Path::new(&into.path("file")).exists());
}
