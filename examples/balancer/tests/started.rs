//! The program as its users meet it: with servers and clients of others, too.
#![cfg(unix)]

#[allow(dead_code)] // it has more
#[path = "../../../tests/common/skips.rs"]
mod skips;
#[path = "../../../tests/common/started.rs"]
mod started;

use skips::skip;
use started::certs;
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs, and does not outlive its test.
struct Program {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    fn balancer(args: &[&str]) -> (Self, SocketAddr) {
        let mut program = Self::start(Command::new(env!("CARGO_BIN_EXE_balancer")).args(args));
        let line = program.says();
        let at = line.strip_prefix("listening on ").and_then(|at| at.parse().ok());
        (program, at.unwrap_or_else(|| panic!("{line}")))
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn is_asked_to_end(&self) {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }

    /// By Ctrl-C; the exit status, and what it said then on both outputs.
    fn ends(mut self) -> (Option<i32>, String, String) {
        self.is_asked_to_end();
        let (mut said, mut complained) = (String::new(), String::new());
        self.output.read_to_string(&mut said).expect("text");
        self.child.stderr.take().expect("piped").read_to_string(&mut complained).expect("text");
        (self.child.wait().expect("it is ours").code(), said, complained)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn client(at: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(at).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket
}

/// A server that echoes until the end, with its name in front; those who say nothing only look whether it is there.
fn echoes(listener: TcpListener, name: &'static str) -> String {
    let at = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("somebody comes");
            thread::spawn(move || {
                let mut bytes = [0; 65536];
                let mut is_named = false;
                loop {
                    match socket.read(&mut bytes) {
                        Ok(0) | Err(_) => return socket.shutdown(Shutdown::Write),
                        Ok(n) => {
                            if !std::mem::replace(&mut is_named, true) {
                                socket.write_all(name.as_bytes())?;
                            }
                            socket.write_all(&bytes[..n])?;
                        }
                    }
                }
            });
        }
    });
    at
}

fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn nobody() -> String {
    bound().local_addr().expect("it was free").to_string()
}

/// Says it, ends, and gives what came back.
fn asked(at: SocketAddr, question: &[u8]) -> String {
    let mut socket = client(at);
    socket.write_all(question).expect("it reads");
    socket.shutdown(Shutdown::Write).expect("connected");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an end");
    answer
}

fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skip(format_args!("{program} is not installed"));
            None
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn connections_are_shared_out_and_counted() {
    let to = [nobody(), echoes(bound(), "a "), echoes(bound(), "b ")];
    let (program, at) = Program::balancer(&["127.0.0.1:0", &to[0], &to[1], &to[2]]);
    let mut answers: Vec<String> = (0..10).map(|_| asked(at, b"hello")).collect();
    answers.sort();
    let (a, b) = ("a hello".to_owned(), "b hello".to_owned());
    assert_eq!(answers, [[(); 5].map(|()| a.clone()), [(); 5].map(|()| b.clone())].concat());
    let (status, said, _) = program.ends();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(status, Some(0));
    assert_eq!(lines[0], "10 accepted, 0 refused, 120 bytes in, 120 out");
    assert_eq!(lines[1..], [format!("{}: 0 served", to[0]), format!("{}: 5 served", to[1]), format!("{}: 5 served", to[2])]);
}

#[test]
fn a_server_is_told_who_comes() {
    for (version, is_binary) in [("v1", false), ("v2", true)] {
        let backend = bound();
        let to = echoes(backend, "");
        let (program, at) = Program::balancer(&["--proxy", version, "127.0.0.1:0", &to]);
        let mut socket = client(at);
        let from = socket.local_addr().expect("connected").port();
        socket.write_all(b"hello").expect("it reads");
        socket.shutdown(Shutdown::Write).expect("connected");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an end");
        let mut wanted = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {}\r\nhello", at.port()).into_bytes();
        if is_binary {
            wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
            wanted.extend([from.to_be_bytes(), at.port().to_be_bytes()].concat());
            wanted.extend(b"hello");
        }
        assert_eq!(text(&answer), text(&wanted));
        assert_eq!(program.ends().0, Some(0));
    }
}

#[test]
fn who_finds_nobody_is_reset_and_that_is_said() {
    let (program, at) = Program::balancer(&["127.0.0.1:0", &nobody()]);
    for _ in 0..3 {
        let mut socket = client(at);
        let ended = socket.read(&mut [0]).expect_err("a reset");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    }
    let (status, said, complained) = program.ends();
    assert_eq!((status, said.lines().nth(1).is_some_and(|line| line.ends_with(": 0 served"))), (Some(0), true));
    assert!(complained.starts_with("WARN balancer: 127.0.0.1:") && complained.ends_with(" is down\n"), "{complained}");
}

#[test]
fn whoever_sends_nonsense_makes_no_line() {
    let to = echoes(bound(), "");
    let (cert, key) = (certs("p256.pem"), certs("p256.key"));
    for options in [&["--accept-proxy"][..], &["--tls", &cert, &key], &["--accept-proxy", "--tls", &cert, &key]] {
        let (program, at) = Program::balancer(&[options, &["127.0.0.1:0", &to]].concat());
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY UNKNOWN\r\nhello", b"\x16\x03\x01\0\x01\x01", b""] {
            let mut socket = client(at);
            socket.write_all(nonsense).expect("it reads");
            let _ = socket.shutdown(Shutdown::Write); // it may have ended
            let _ = socket.read_to_end(&mut Vec::new());
        }
        let (status, _, complained) = program.ends();
        assert_eq!((status, complained.as_str()), (Some(0), ""), "{options:?}");
    }
}

#[test]
fn what_is_under_way_finishes_after_ctrl_c_within_the_grace() {
    let to = echoes(bound(), "");
    let (program, at) = Program::balancer(&["127.0.0.1:0", &to]);
    let (mut one, idle) = (client(at), client(at));
    let mut bytes = [0; 5];
    one.write_all(b"hello").expect("it reads");
    one.read_exact(&mut bytes).expect("an answer");
    program.is_asked_to_end();
    // The one through whom nothing was said is let go; the other one goes on.
    let _ = (&idle).read_to_end(&mut Vec::new());
    one.write_all(b"again").expect("it reads");
    one.read_exact(&mut bytes).expect("an answer");
    one.shutdown(Shutdown::Write).expect("connected");
    assert_eq!((bytes, one.read(&mut bytes).expect("an end")), (*b"again", 0));
    let mut program = program;
    assert_eq!(program.child.wait().expect("it is ours").code(), Some(0));

    let (mut program, at) = Program::balancer(&["--grace", "1", "127.0.0.1:0", &to]);
    let mut stays = client(at);
    stays.write_all(b"hello").expect("it reads");
    stays.read_exact(&mut bytes).expect("an answer");
    program.is_asked_to_end();
    assert_eq!(stays.read(&mut bytes).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(program.child.wait().expect("it is ours").code(), Some(0));
}

#[test]
fn unix_sockets_and_names_are_as_good() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("balancer-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).expect("a free name");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("somebody comes");
            let mut all = Vec::new();
            let _ = socket.read_to_end(&mut all).and_then(|_| socket.write_all(&all));
        }
    });
    let unix = format!("unix:{}", path.to_str().expect("text"));
    let (program, at) = Program::balancer(&["127.0.0.1:0", &unix]);
    assert_eq!(asked(at, b"hello"), "hello");
    assert_eq!(program.ends().0, Some(0));

    let port = echoes(bound(), "").rsplit(':').next().expect("a port").to_owned();
    let (program, at) = Program::balancer(&["127.0.0.1:0", &format!("localhost:{port}")]);
    assert_eq!(asked(at, b"hello"), "hello");
    assert_eq!(program.ends().0, Some(0));
    fs::remove_dir_all(dir).expect("ours");
}

#[test]
fn curl_fetches_by_tls_from_pythons_server() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("balancer-http-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(dir.join("file"), &bytes).expect("room");
    let script = "import sys, http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); \
                  print(s.server_port, flush=True); s.serve_forever()";
    if run("python3", &["--version"]).and(run("curl", &["--version"])).is_none() {
        return;
    }
    let mut http = Program::start(Command::new("python3").args(["-c", script]).current_dir(&dir));
    let to = format!("127.0.0.1:{}", http.says());
    let (cert, key, ca) = (certs("p256.pem"), certs("p256.key"), certs("ca.pem"));
    for proxied in [false, true] {
        let mut options = vec!["--tls", &cert, &key, "127.0.0.1:0", &to];
        let mut curl = vec!["-sS", "--cacert", &ca];
        if proxied {
            options.insert(0, "--accept-proxy");
            curl.push("--haproxy-protocol"); // a line in clear, and then TLS
        }
        let (program, at) = Program::balancer(&options);
        let url = format!("https://localhost:{}/file", at.port());
        let output = run("curl", &[&curl[..], &[&url]].concat()).expect("it is there");
        assert!(output.status.success() && output.stdout == bytes, "{}", text(&output.stderr));
        assert_eq!(program.ends().0, Some(0));
    }
    fs::remove_dir_all(dir).expect("ours");
}

#[test]
fn nginx_understands_what_it_is_told() {
    let nginx = ["nginx", "/usr/sbin/nginx"].into_iter().find(|name| Command::new(name).arg("-v").output().is_ok());
    let Some(nginx) = nginx else { return skip("nginx is not installed") };
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("balancer-nginx-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    let to = nobody();
    let place = dir.to_str().expect("text");
    let config = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log crit;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};\n\
         uwsgi_temp_path {place}; scgi_temp_path {place};\n\
         server {{ listen {to} proxy_protocol; return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }} }}\n"
    );
    let file = dir.join("conf");
    fs::write(&file, config).expect("room");
    let _nginx = Program::start(Command::new(nginx).args(["-e", "/dev/null", "-c", file.to_str().expect("text")]));
    let to_at: SocketAddr = to.parse().expect("an address");
    while TcpStream::connect(to_at).is_err() {
        thread::yield_now(); // until it listens
    }
    for version in ["v1", "v2"] {
        let (program, at) = Program::balancer(&["--proxy", version, "127.0.0.1:0", &to]);
        let mut socket = client(at);
        let from = socket.local_addr().expect("connected");
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an end");
        assert!(answer.ends_with(&format!("\r\n\r\n127.0.0.1 {}", from.port())), "{answer}");
        drop(socket);
        assert_eq!(program.ends().0, Some(0));
    }
    fs::remove_dir_all(dir).expect("ours");
}

#[test]
fn it_is_looked_at_while_it_runs() {
    let to = echoes(bound(), "");
    let inspect = nobody();
    let (program, at) = Program::balancer(&["--inspect", &inspect, "127.0.0.1:0", &to]);
    let mut stays = client(at);
    stays.write_all(b"hello").expect("it reads");
    stays.read_exact(&mut [0; 5]).expect("an answer");
    let inspect = inspect.parse().expect("an address");
    let metrics = asked(inspect, format!("GET /metrics HTTP/1.0\r\nHost: {inspect}\r\n\r\n").as_bytes());
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("connections"), "{metrics}");
    drop(stays);
    assert_eq!(program.ends().0, Some(0));
}

#[test]
fn a_wrong_command_line_is_refused() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["127.0.0.1:0"],
        &["--nonsense"],
        &["127.0.0.1:0", "nowhere"],
        &["127.0.0.1:0", "127.0.0.1:0"],
        &["not an address", "127.0.0.1:1"],
        &["--proxy", "v3", "127.0.0.1:0", "127.0.0.1:1"],
        &["--idle", "0", "127.0.0.1:0", "127.0.0.1:1"],
        &["--tls", "cert", "127.0.0.1:0", "127.0.0.1:1"],
    ];
    for args in wrong {
        let output = Command::new(env!("CARGO_BIN_EXE_balancer")).args(args).output().expect("it was built");
        let complained = text(&output.stderr);
        let found = (output.stdout.as_slice(), complained.lines().count());
        assert_eq!(found, (&b""[..], 1), "{args:?}: {complained}");
        assert!([Some(1), Some(2)].contains(&output.status.code()), "{args:?}");
    }
    let many: Vec<String> = (0..65).map(|_| "127.0.0.1:1".to_owned()).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_balancer")).arg("127.0.0.1:0").args(many).output().expect("it was built");
    assert_eq!(output.status.code(), Some(2));
    let help = Command::new(env!("CARGO_BIN_EXE_balancer")).arg("--help").output().expect("it was built").stdout;
    assert!(text(&help).lines().all(|line| line.chars().count() <= 80));
}
