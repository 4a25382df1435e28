//! The program as its users meet it.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A server that runs, and does not outlive its test.
struct Server {
    child: Child,
    at: SocketAddr,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_web")).args(args).stdout(Stdio::piped()).spawn().expect("it was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
        let at = line.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
        Self { child, at }
    }

    /// The head of the answer, and what comes behind it up to the end of the connection.
    fn asked(&self, request: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut socket = TcpStream::connect(self.at).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
        write!(socket, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())
            .and_then(|()| socket.write_all(body))
            .expect("it reads");
        let mut all = Vec::new();
        socket.read_to_end(&mut all).expect("an end in time");
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let rest = all.split_off(end);
        (String::from_utf8(all).expect("text"), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[test]
fn a_file_that_is_put_can_be_had_again() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("started-{}", std::process::id()));
    fs::create_dir_all(folder.join("upload")).expect("a folder");
    let much: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect(); // more than all buffers hold
    let root = folder.to_str().expect("text");
    for args in [&[root, "127.0.0.1:0"][..], &["--inline", "yes", root, "127.0.0.1:0"]] {
        let mut server = Server::start(args);
        let (head, said) = server.asked("PUT /upload/much", &much);
        assert!(head.starts_with("HTTP/1.1 201 Created\r\n") && said == b"20000000 bytes\n", "{head}");
        let (head, had) = server.asked("GET /upload/much.done", b"");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Date: ") && had == much, "{head}");
        let killed = Command::new("kill").arg(server.child.id().to_string()).status();
        assert!(killed.expect("kill(1) exists").success());
        assert_eq!(server.child.wait().expect("it is ours").code(), Some(0));
    }
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn a_wrong_command_line_is_refused() {
    for args in [&[][..], &["--nonsense"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_web")).args(args).output().expect("it was built");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
    }
}
