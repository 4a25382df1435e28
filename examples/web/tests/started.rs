//! The program as its users meet it.
#![cfg(unix)]

#[path = "../../../tests/common/started.rs"]
mod started;

use started::{Server, certs};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

struct Web(Server);

impl Web {
    fn start(args: &[&str]) -> Self {
        Self(Server::start(Command::new(env!("CARGO_BIN_EXE_web_server")).args(args)))
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.0.at).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
        socket
    }

    /// The head of the answer, and what comes behind it up to the end of the connection.
    fn asked(&self, request: &str) -> (String, Vec<u8>) {
        let mut socket = self.connect();
        write!(socket, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut all = Vec::new();
        socket.read_to_end(&mut all).expect("an end in time");
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let rest = all.split_off(end);
        (String::from_utf8(all).expect("text"), rest)
    }

    fn end(self) {
        assert_eq!(self.0.ends().0, Some(0));
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("started-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("index.html"), "hello\n").expect("a disk");
    folder
}

#[test]
fn a_large_file_is_served_and_what_was_answered_is_logged() {
    let folder = folder("large");
    let much: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect(); // more than all buffers hold
    fs::write(folder.join("much"), &much).expect("a disk");
    let root = folder.to_str().expect("text");
    let log = folder.join("log");
    let log_text = log.to_str().expect("text");
    for args in [&["--log", log_text, root, "127.0.0.1:0"][..], &["--inline", "--log", log_text, root, "127.0.0.1:0"]] {
        let server = Web::start(args);
        let (head, had) = server.asked("GET /much");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Date: ") && had == much, "{head}");
        server.asked("HEAD /");
        server.asked("GET /nowhere\"");
        server.end();
        let told = fs::read_to_string(&log).expect("a log");
        fs::remove_file(&log).expect("ours");
        let lines: Vec<&str> = told.lines().collect();
        for (line, end) in lines.iter().zip(["\"GET /much HTTP/1.1\" 200 20000000", "\"HEAD / HTTP/1.1\" 200 6", "404 14"]) {
            assert!(line.starts_with("127.0.0.1 - - [") && line.contains(" +0000] \"") && line.ends_with(end), "{line}");
        }
        assert_eq!(lines.len(), 3, "{told}");
    }
    fs::remove_dir_all(folder).expect("ours");
}

/// Clients that never pause, and restarts meanwhile.
#[test]
fn a_restart_loses_no_request() {
    let folder = folder("restart");
    let mut server = Web::start(&["--grace", "60", "--inspect", "127.0.0.1:0", folder.to_str().expect("text"), "127.0.0.1:0"]);
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (at, is_over, answered) = (server.0.at, Arc::clone(&is_over), Arc::clone(&answered));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let socket = TcpStream::connect(at).expect("somebody listens");
                    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
                    let mut socket = BufReader::new(socket);
                    while ask(&mut socket) && !is_over.load(Ordering::Relaxed) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let seen = || answered.load(Ordering::Relaxed);
    let wait_for = |count| {
        while seen() < count && clients.iter().all(|client| !client.is_finished()) {
            thread::yield_now();
        }
    };
    wait_for(100);
    server.0.signal("-HUP");
    assert_eq!(server.0.child.wait().expect("it is ours").code(), Some(0)); // so all of them have met the successor
    wait_for(seen() + 100);
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no request was lost"));
    // The successor has our end of its output, and is nobody's child here.
    let mut socket = server.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is there");
    let successors = Command::new("pkill").args(["-TERM", "-f", folder.to_str().expect("text")]).status();
    assert!(successors.expect("pkill(1) exists").success());
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("its end");
    assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
    fs::remove_dir_all(folder).expect("ours");
}

/// Whether another request may follow.
fn ask(socket: &mut BufReader<TcpStream>) -> bool {
    socket.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let (mut keeps, mut line) = (true, String::new());
    socket.read_line(&mut line).expect("an answer");
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        socket.read_line(&mut line).expect("a head");
        keeps &= line != "Connection: close\r\n";
    }
    let mut body = [0; 6];
    socket.read_exact(&mut body).expect("a body");
    assert_eq!(&body, b"hello\n");
    keeps
}

#[test]
fn it_speaks_tls_and_websocket_and_shows_itself() {
    let folder = folder("tls");
    let (cert, key, ca) = (certs("p256.pem"), certs("p256.key"), certs("ca.pem"));
    let root = folder.to_str().expect("text");
    let server = Web::start(&["--tls", &cert, &key, "--echo", "/echo", root, "127.0.0.1:0"]);
    let at = format!("https://localhost:{}/", server.0.at.port());
    let told = Command::new("curl").args(["-sS", "--max-time", "60", "--cacert", &ca, &at]).output();
    match told {
        Ok(told) => assert_eq!(String::from_utf8_lossy(&told.stdout), "hello\n", "{}", String::from_utf8_lossy(&told.stderr)),
        Err(error) => eprintln!("no TLS is tried: there is no curl: {error}"),
    }
    server.end();
    let server = Web::start(&["--echo", "/echo", root, "127.0.0.1:0"]);
    let mut socket = server.connect();
    let wish = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    write!(socket, "GET /echo HTTP/1.1\r\nHost: a\r\n{wish}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .expect("it reads");
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x80, 0, 0, 0, 0]).expect("it reads");
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).expect("an end");
    assert!(heard.starts_with(b"HTTP/1.1 101 ") && heard.ends_with(b"\r\n\r\n\x81\x02hi\x88\x00"));
    drop(socket); // its end is waited for
    server.end();
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn a_wrong_command_line_is_refused_in_one_line() {
    for (args, status) in [
        (&[][..], 2),
        (&["--nonsense"], 2),
        (&["--tls", "one", "."], 2),
        (&[".", "127.0.0.1:0", "--tls", "one"], 2),
        (&[".", "nowhere"], 2),
        (&["--grace", "never", "."], 2),
        (&["/nowhere/at/all", "127.0.0.1:0"], 1),
        (&["--log", "/nowhere/at/all", ".", "127.0.0.1:0"], 1),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_web_server")).args(args).output().expect("it was built");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(status), &b""[..]), "{args:?}: {complaint}");
        assert!(complaint.starts_with("error: ") && complaint.lines().count() == 1, "{args:?}: {complaint}");
    }
}
