//! The program as its users meet it: Python's ftplib, curl and lftp.
#![cfg(unix)]

#[allow(dead_code)] // it has more
#[path = "../../../tests/common/folder.rs"]
mod folder;
#[allow(dead_code)] // it has more
#[path = "../../../tests/common/skips.rs"]
mod skips;
#[path = "../../../tests/common/started.rs"]
mod started;

use folder::Folder;
use skips::skip;
use started::certs;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    /// Ends before its folder goes.
    program: started::Server,
    root: Folder,
}

impl Server {
    fn start(name: &str, options: &[&str]) -> Self {
        let root = Folder::new(name);
        let (cert, key) = (certs("p256.pem"), certs("p256.key"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftp_server"));
        command.args(["--user", "user:12345:rw", "--tls", &cert, &key]).args(options).arg(&root.0).arg("127.0.0.1:0");
        Self { program: started::Server::start(&mut command), root }
    }

    fn port(&self) -> u16 {
        self.program.at.port()
    }

    fn url(&self) -> String {
        format!("ftp://user:12345@localhost:{}", self.port())
    }

    /// By SIGTERM; the exit status.
    fn ends(self) -> Option<i32> {
        self.program.ends().0
    }
}

/// Runs another program, if it is there.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skip(format_args!("{program} is not installed"));
            None
        }
    }
}

fn runs_well(program: &str, args: &[&str]) -> Option<String> {
    let output = run(program, args)?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {said}{complained}");
    Some(said.into_owned())
}

#[test]
fn ftplib_is_content() {
    let server = Server::start("ftplib", &[]);
    let script = format!("{}/tests/clients.py", env!("CARGO_MANIFEST_DIR"));
    let (port, root) = (server.port().to_string(), server.root.0.to_str().expect("text").to_owned());
    runs_well("python3", &[&script, &port, &root, &certs("ca.pem")]);
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn curl_stores_fetches_and_goes_on() {
    let server = Server::start("curl", &[]);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let here = Folder::new("curl-here");
    let (whole, back) = (here.path("whole"), here.path("back"));
    fs::write(&whole, &bytes).expect("room");
    let (whole, back_name, ca) = (whole.to_str().expect("text"), back.to_str().expect("text"), certs("ca.pem"));
    for options in [&["-sS"][..], &["-sS", "--ssl-reqd", "--cacert", &ca]] {
        let curl = |args: &[&str]| runs_well("curl", &[options, args].concat());
        if curl(&["-T", whole, &format!("{}/sub/new", server.url()), "--ftp-create-dirs"]).is_none() {
            return;
        }
        assert!(fs::read(server.root.path("sub/new")).expect("it is there") == bytes);
        fs::write(server.root.path("cut"), &bytes[..1_000_000]).expect("room");
        curl(&["-C", "-", "-T", whole, &format!("{}/cut", server.url())]);
        assert!(fs::read(server.root.path("cut")).expect("it is there") == bytes);
        fs::write(&back, &bytes[..1_000_000]).expect("room");
        curl(&["-C", "-", "-o", back_name, &format!("{}/cut", server.url())]);
        assert!(fs::read(&back).expect("it is there") == bytes);
        let listed = curl(&[&format!("{}/sub/", server.url())]).expect("curl is there");
        assert!(listed.contains(" 3000000 ") && listed.trim_end().ends_with(" new"), "{listed}");
    }
}

#[test]
fn lftp_mirrors_a_tree_there_and_back() {
    let server = Server::start("lftp", &[]);
    let here = Folder::new("lftp-here");
    let (tree, port) = (here.path("tree"), server.port());
    for n in 0..200 {
        let folder = tree.join(format!("größe {}", n % 7)).join((n % 3).to_string());
        fs::create_dir_all(&folder).expect("room");
        fs::write(folder.join(format!("f {n}")), vec![n as u8; n * 37]).expect("room");
    }
    for (n, protected) in [("1", false), ("2", true)] {
        let back = here.path(&format!("back{n}"));
        let set = format!(
            "set net:max-retries 1; set net:timeout 60; set ssl:ca-file {}; set ftp:ssl-force {protected}; \
             set ftp:ssl-protect-data {protected}; set ftp:ssl-protect-list {protected}; set ftp:ssl-allow {protected}; \
             open -u user,12345 localhost:{port}; mirror -R --parallel=4 {} there{n}; mirror --parallel=4 there{n} {}",
            certs("ca.pem"),
            tree.display(),
            back.display()
        );
        if runs_well("lftp", &["-c", &set]).is_none() {
            return;
        }
        for copy in [server.root.path(&format!("there{n}")), back] {
            let same = Command::new("diff").arg("-r").args([&tree, &copy]).status().expect("diff(1) exists");
            assert!(same.success(), "{}", copy.display());
        }
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

    fn logs_in(&mut self) {
        for (line, answer) in [("", "220"), ("USER user", "331"), ("PASS 12345", "230"), ("TYPE I", "200")] {
            if line.is_empty() {
                self.hears(answer)
            } else {
                self.asks(line, answer)
            };
        }
    }

    fn passive(&mut self) -> Self {
        let reply = self.asks("EPSV", "229");
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok()).expect("a port");
        Self::to((self.0.get_ref().peer_addr().expect("connected").ip(), port).into())
    }
}

#[test]
fn a_full_disk_costs_the_file_that_does_not_fit_and_nothing_else() {
    let root = Folder::new("full");
    let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" && exec \"$0\" --user user:12345:rw \"$1\" 127.0.0.1:0";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    let can = command.args(["mount -t tmpfs tmpfs \"$0\""]).arg(&root.0).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("nothing can be mounted here");
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_ftp_server")]).arg(&root.0);
    let server = Server { program: started::Server::start(&mut command), root };
    let mut client = Client::to(server.program.at);
    client.logs_in();
    let mut data = client.passive();
    client.asks("STOR large", "125");
    let _ = data.0.get_mut().write_all(&vec![7; 5_000_000]); // it may be cut
    drop(data);
    client.hears("452");
    let mut data = client.passive();
    client.asks("STOR small", "125");
    data.0.get_mut().write_all(&vec![7; 1_500_000]).expect("there is room again");
    drop(data);
    client.hears("226");
    let mut data = client.passive();
    client.asks("NLST", "125");
    let mut names = String::new();
    data.0.read_to_string(&mut names).expect("a list");
    assert_eq!(names, "small\r\n");
    client.hears("226");
}

#[test]
fn the_log_the_inspector_and_limits() {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ftp-{}.log", std::process::id()));
    let _ = fs::remove_file(&log);
    let log_name = log.to_str().expect("text");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let inspect = free.to_string();
    let options = ["--log", log_name, "--inspect", &inspect, "--max-clients", "2", "--limit-rate", "100000000", "--require-tls"];
    let server = Server::start("log", &options);
    let mut one = Client::to(server.program.at);
    one.hears("220");
    one.asks("USER user", "550 SSL/TLS");
    let mut two = Client::to(server.program.at);
    two.hears("220");
    Client::to(server.program.at).hears("421 Too many clients");
    drop(two);
    if let Some(said) = run("curl", &["-sS", &format!("http://{inspect}/metrics")]) {
        assert!(String::from_utf8_lossy(&said.stdout).contains("accepted"), "{said:?}");
        let wrong = format!("ftp://user:se\u{a1}cret@localhost:{}", server.port());
        assert!(
            !run("curl", &["-sS", "--ssl-reqd", "--cacert", &certs("ca.pem"), &wrong]).expect("it is there").status.success()
        );
        let url = format!("{}/x\u{a1}y", server.url());
        runs_well("curl", &["-sS", "--ssl-reqd", "--cacert", &certs("ca.pem"), "-T", &certs("ca.pem"), &url]);
        drop(one);
        assert_eq!(server.ends(), Some(0));
        let text = fs::read_to_string(&log).expect("it was written");
        assert!(text.contains(" user failed to log in\n") && text.contains(" user logged in\n"), "{text}");
        assert!(text.contains(" user STOR /x\u{a1}y: 226 Done.\n"), "{text}");
        assert!(!text.contains("cret") && !text.contains("12345"), "{text}");
    }
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    let root = env!("CARGO_TARGET_TMPDIR");
    let cases = [
        (&[][..], "ROOT is missing"),
        (&["--user", "me", root], "--user: a user is NAME:PASSWORD"),
        (&["--require-tls", root], "--require-tls needs --tls"),
        (&["--implicit-tls", root], "--implicit-tls needs --tls"),
        (&["--passive-ports", "5-1", root], "--passive-ports takes a range"),
        (&["--public-address", "::1", root], "--public-address takes an IPv4 address"),
        (&["--idle", "0", root], "--idle takes a whole number"),
        (&["--nope", root], "invalid option '--nope'"),
        (&["/nowhere/at/all"], "cannot serve '/nowhere/at/all'"),
        (&[root, "nonsense"], "nonsense"),
    ];
    for (args, what) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_ftp_server")).args(args).output().expect("it was built");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && complaint.contains(what), "{args:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{args:?}: {complaint}");
    }
}
