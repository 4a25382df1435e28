//! The programs as their users meet them.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs, and does not outlive its test.
struct Server {
    child: Child,
    at: SocketAddr,
}

impl Server {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program).args(args).stdout(Stdio::piped()).spawn().expect("it was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
        let at = line.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
        Self { child, at }
    }

    fn client(&self) -> Client {
        Client::to(self.at)
    }

    /// By SIGTERM; the exit status.
    fn ends(mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(killed.expect("kill(1) exists").success());
        self.child.wait().expect("it is ours").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn to(at: SocketAddr) -> Self {
        let socket = TcpStream::connect(at).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Self(BufReader::new(socket))
    }

    fn hears(&mut self, begin: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        assert!(line.starts_with(begin), "{begin}: {line}");
        line
    }

    fn asks(&mut self, line: &str, answer: &str) -> String {
        write!(self.0.get_mut(), "{line}\r\n").expect("it reads");
        self.hears(answer)
    }

    fn passive(&mut self) -> Self {
        let reply = self.asks("EPSV", "229");
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        Self::to((self.0.get_ref().peer_addr().expect("connected").ip(), port).into())
    }

    fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("an end in time");
        bytes
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("started-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// More than all buffers hold.
fn much() -> Vec<u8> {
    (0..20_000_000u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn files_go_and_come_both_ways_and_sigterm_waits_for_the_last() {
    let folder = folder("ftp");
    let server = Server::start(env!("CARGO_BIN_EXE_ftpd"), &[folder.to_str().expect("text"), "127.0.0.1:0"]);
    let mut client = server.client();
    client.hears("220");
    for (line, answer) in [("USER user", "331"), ("PASS 12345", "230"), ("TYPE I", "200")] {
        client.asks(line, answer);
    }
    let mut data = client.passive();
    client.asks("STOR much", "125");
    data.0.get_mut().write_all(&much()).expect("it reads");
    drop(data);
    client.hears("226");
    assert!(fs::read(folder.join("much")).expect("it is there") == much());

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    write!(client.0.get_mut(), "EPRT |1|127.0.0.1|{}|\r\nREST 5\r\nRETR much\r\n", at.port()).expect("it reads");
    for answer in ["200", "350", "125"] {
        client.hears(answer);
    }
    let (socket, _) = listener.accept().expect("the server comes");
    let ends = thread::spawn(move || server.ends());
    client.asks("NOOP", "200"); // it has been told, or will be while we read
    assert!(Client(BufReader::new(socket)).rest() == much()[5..]);
    client.hears("226");
    drop(client);
    assert_eq!(ends.join().expect("no panic"), Some(0));
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn a_mail_is_a_file_when_it_was_acknowledged() {
    let folder = folder("smtp");
    let server = Server::start(env!("CARGO_BIN_EXE_smtpd"), &[folder.to_str().expect("text"), "127.0.0.1:0"]);
    let mut client = server.client();
    client.hears("220");
    for (line, answer) in [("HELO me", "250"), ("MAIL FROM:<a@x>", "250"), ("RCPT TO:<b@y>", "250"), ("DATA", "354")] {
        client.asks(line, answer);
    }
    client.asks("hello\r\n..\r\n.", "250 Stored");
    let names: Vec<_> = fs::read_dir(&folder).expect("ours").map(|entry| entry.expect("readable").path()).collect();
    assert_eq!(fs::read_to_string(&names[0]).expect("text"), "X-From: <a@x>\r\nX-To: <b@y>\r\nhello\r\n.\r\n");
    client.asks("QUIT", "221");
    drop(client);
    assert_eq!((names.len(), server.ends()), (1, Some(0)));
    fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn what_is_balanced_is_passed_on_with_who_it_comes_from() {
    let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("it was free");
    let to = [nobody.to_string(), backend.local_addr().expect("bound").to_string()];
    let server = Server::start(env!("CARGO_BIN_EXE_balancer"), &["127.0.0.1:0", &to[0], &to[1]]);
    let client = server.client();
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} ", client.0.get_ref().local_addr().expect("connected").port());
    let echoes = thread::spawn(move || {
        loop {
            let mut socket = BufReader::new(backend.accept().expect("somebody comes").0);
            let (mut line, mut all) = (String::new(), Vec::new());
            if socket.read_line(&mut line).is_ok_and(|_| line.starts_with(&header)) {
                socket.read_to_end(&mut all).expect("an end");
                return socket.get_mut().write_all(&all).expect("it reads");
            }
        } // others only look whether we are there
    });
    client.0.get_ref().write_all(b"hello").expect("it reads");
    client.0.get_ref().shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.rest(), b"hello");
    echoes.join().expect("no panic");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn a_wrong_command_line_is_refused() {
    for program in [env!("CARGO_BIN_EXE_ftpd"), env!("CARGO_BIN_EXE_smtpd"), env!("CARGO_BIN_EXE_balancer")] {
        for args in [&[][..], &["--nonsense"]] {
            let output = Command::new(program).args(args).output().expect("it was built");
            assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{program} {args:?}");
        }
    }
}
