//! The program as its users meet it, with the real server if that was built beside it.
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
use started::certs;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

struct Server {
    /// Ends before its folder goes.
    program: started::Server,
    root: Folder,
}

impl Server {
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_ftp_client")).with_file_name("ftp_server");
        if !program.exists() {
            skips::skip("ftp_server was not built beside the client");
            return None;
        }
        let root = Folder::new(name);
        let (cert, key) = (certs("p256.pem"), certs("p256.key"));
        let mut command = Command::new(program);
        command.args(["--user", "user:12345:rw", "--tls", &cert, &key]).args(options).arg(&root.0).arg("127.0.0.1:0");
        Some(Self { program: started::Server::start(&mut command), root })
    }

    fn port(&self) -> u16 {
        self.program.at.port()
    }
}

/// The exit status, what was printed, what was complained about.
fn client(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ftp_client")).env("FTP_PASSWORD", "12345").args(args).output().expect("built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_tree_goes_there_and_back_in_every_way() {
    let here = Folder::new("tree-here");
    let (tree, back) = (here.path("tree"), here.path("back"));
    fs::create_dir_all(tree.join("größe 1/leer")).expect("room");
    for n in 0..20 {
        fs::write(tree.join(format!("größe 1/f {n}")), vec![n as u8; n * 10_000]).expect("room");
    }
    let (tree_name, back_name, ca) = (tree.to_str().expect("text"), back.to_str().expect("text"), certs("ca.pem"));
    let clear = Server::start("tree", &[]);
    let Some(server) = clear else { return };
    let implicit = Server::start("tree-implicit", &["--implicit-tls", "--require-tls"]).expect("it was there");
    let explicit = Server::start("tree-explicit", &["--require-tls"]).expect("it was there");
    let ways: [(&Server, &str, &[&str]); 6] = [
        (&server, "ftp", &[]),
        (&server, "ftp", &["--active"]),
        (&explicit, "ftp", &["--tls", "--ca", &ca]),
        (&explicit, "ftp", &["--tls", "--ca", &ca, "--active"]),
        (&implicit, "ftps", &["--ca", &ca]),
        (&implicit, "ftps", &["--ca", &ca, "--active"]),
    ];
    for (n, (server, scheme, options)) in ways.into_iter().enumerate() {
        let url = format!("{scheme}://user@localhost:{}/", server.port());
        let run = |args: &[&str]| client(&[options, &[&url], args].concat());
        let there = format!("there {n}");
        let nothing = (Some(0), String::new(), String::new());
        assert_eq!(run(&["mirror", "--upload", tree_name, &there]), nothing, "{options:?}");
        assert_eq!(run(&["mirror", &there, back_name]), nothing, "{options:?}");
        for copy in [server.root.path(&there), back.clone()] {
            let same = Command::new("diff").arg("-r").args([&tree, &copy]).status().expect("diff(1) exists");
            assert!(same.success(), "{}", copy.display());
        }
        let same_inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("it is there"));
        let before = same_inode(&back.join("größe 1/f 3"));
        assert_eq!(run(&["mirror", &there, back_name]), nothing);
        assert_eq!(before, same_inode(&back.join("größe 1/f 3")), "what is the same is not moved again");
        fs::remove_dir_all(&back).expect("ours");
    }
    // Without TLS neither password nor file goes to who wants it, and who cannot is not talked to in clear.
    let url = format!("ftp://user@localhost:{}/", explicit.port());
    let (code, _, complaint) = client(&[&url, "ls"]);
    assert!(code == Some(1) && complaint.starts_with("error: localhost: 550 "), "{complaint}");
    let other = certs("other.pem");
    let (code, _, complaint) = client(&["--tls", "--ca", &other, &url, "ls"]);
    assert!(code == Some(1) && complaint.contains("issuer"), "{complaint}");
}

#[test]
fn single_files_and_what_fails_is_one_line() {
    let Some(server) = Server::start("single", &[]) else { return };
    let here = Folder::new("single-here");
    let url = format!("ftp://user:12345@127.0.0.1:{}", server.port());
    let file = here.path("file");
    fs::write(&file, "hello\n").expect("room");
    let name = file.to_str().expect("text");
    let nothing = (Some(0), String::new(), String::new());
    assert_eq!(client(&[&url, "mkdir", "folder"]), nothing);
    assert_eq!(client(&[&format!("{url}/folder"), "put", name]), nothing);
    assert_eq!(client(&[&url, "cat", "folder/file"]), (Some(0), "hello\n".into(), String::new()));
    assert_eq!(client(&[&url, "mv", "folder/file", "folder/other"]), nothing);
    let (code, listed, _) = client(&[&url, "ls", "folder"]);
    assert!(code == Some(0) && listed.ends_with(" other\n") && listed.lines().count() == 1, "{listed}");
    // Cut short before: on from there.
    fs::write(here.path("other.part"), "hel").expect("room");
    assert_eq!(client(&["--continue", &url, "get", "folder/other", here.path("other").to_str().expect("text")]), nothing);
    assert_eq!(fs::read(here.path("other")).expect("it came"), b"hello\n");
    fs::write(server.root.path(".file.part"), "hel").expect("room");
    assert_eq!(client(&["--continue", &url, "put", name]), nothing);
    assert_eq!(fs::read(server.root.path("file")).expect("it came"), b"hello\n");
    assert_eq!(client(&[&url, "rm", "folder/other"]), nothing);
    assert_eq!(client(&[&url, "put", name, "folder/"]), nothing);
    let (code, _, complaint) = client(&[&url, "rm", "folder"]);
    assert!(code == Some(1) && complaint.ends_with("; 550 Directory not empty.\n"), "{complaint}");
    assert_eq!(client(&[&url, "mkdir", "folder/a", "folder/b", "folder/c"]), nothing);
    assert_eq!(client(&[&url, "rm", "folder/a", "folder/b", "folder/c", "folder/file", "folder"]), nothing);
    for (args, complaint) in [
        (&["get", "nope", name][..], "error: nope: 550 No such file or directory.\n"),
        (&["rm", "nope"], "error: nope: 550 No such file or directory.\n"),
        (&["put", "/nowhere", "x"], "error: x: '/nowhere': No such file or directory (os error 2)\n"),
        (&["mirror", "--upload", "/nowhere", "x"], "error: x: '/nowhere': No such file or directory (os error 2)\n"),
        (&["get", "file", "/nowhere/x"], "error: file: No such file or directory (os error 2)\n"),
    ] {
        assert_eq!(client(&[&[url.as_str()], args].concat()), (Some(1), String::new(), complaint.into()));
    }
    let wrong = format!("ftp://user:wrong@127.0.0.1:{}", server.port());
    assert_eq!(client(&[&wrong, "ls"]), (Some(1), String::new(), "error: 127.0.0.1: 530 Wrong name or password.\n".into()));
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (args, what) in [
        (&[][..], "URL is missing"),
        (&["http://x", "ls"], "is not an FTP URL"),
        (&["ftp://", "ls"], "is not an FTP URL"),
        (&["ftp://x:y", "ls"], "is not an FTP URL"),
        (&["ftp://x"], "the command is missing"),
        (&["ftp://x", "fly"], "`fly` is not a command"),
        (&["ftp://x", "get"], "get: REMOTE is missing"),
        (&["ftp://x", "put"], "put: LOCAL is missing"),
        (&["ftp://x", "mirror", "a"], "mirror: LOCAL is missing"),
        (&["ftp://x", "rm"], "rm: REMOTE is missing"),
        (&["ftp://x", "put", ".."], "put: REMOTE is missing"),
        (&["ftp://x", "ls", "a", "b"], "ls: `b` is one word too many"),
        (&["ftp://x", "get", "a", "b", "c"], "get: `c` is one word too many"),
        (&["ftp://x", "mv", "a", "b", "c"], "mv: `c` is one word too many"),
        (&["ftp://x", "rm", "a", ""], "rm: REMOTE is missing"),
        (&["ftp://x", "get", "a", "--upload"], "get: --upload is for mirror"),
        (&["ftp://x", "rm", "a", "--continue"], "rm: --continue is for get, put, mirror"),
        (&["ftp://x", "ls", "--ca", "file"], "--ca is for TLS"),
        (&["ftp://x", "ls", "--password-file", "file"], "--password-file is for a USER in the URL"),
        (&["--timeout", "0", "ftp://x", "ls"], "--timeout takes a whole number"),
    ] {
        let (code, _, complaint) = client(args);
        assert!(code == Some(2) && complaint.contains(what) && complaint.lines().count() == 1, "{args:?}: {complaint}");
    }
    let (code, _, complaint) = client(&["ftp://127.0.0.1:1", "ls"]);
    assert!(code == Some(1) && complaint.lines().count() == 1, "{complaint}");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let Some(server) = Server::start("pipe", &[]) else { return };
    let here = Folder::new("pipe-here");
    let (pipe, tree) = (here.path("pipe"), here.0.to_str().expect("text").to_owned());
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo(1) exists").success());
    fs::write(here.path("file"), "hello\n").expect("room");
    let (pipe, url) = (pipe.to_str().expect("text").to_owned(), format!("ftp://user@127.0.0.1:{}", server.port()));
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(client(&[&url, "put", &pipe])); // it has failed who does not wait
        let _ = tell.send(client(&[&url, "mirror", "--upload", &tree, "tree"]));
        let _ = tell.send(client(&[&url, "get", "tree/file", &pipe])); // nor does a file take its place
    });
    for what in ["is not a file\n", "/pipe: not a file or folder\n", "/pipe' is not a file\n"] {
        let (code, _, complaint) = told.recv_timeout(Duration::from_secs(60)).expect("it does not wait");
        assert!(code == Some(1) && complaint.ends_with(what) && complaint.lines().count() == 1, "{complaint}");
    }
    assert_eq!(fs::read(server.root.path("tree/file")).expect("it came"), b"hello\n");
}

#[test]
fn who_reads_no_more_ends_it_in_silence() {
    let Some(server) = Server::start("reader", &[]) else { return };
    // More than a pipe holds: a program that another test starts just now may have a copy of its reading end for a moment.
    fs::write(server.root.path("file"), vec![b'x'; 1 << 20]).expect("room");
    (0..2000).for_each(|n| fs::write(server.root.path(&format!("{n:060}")), "").expect("room"));
    let url = format!("ftp://user@127.0.0.1:{}", server.port());
    for args in [&["ls"][..], &["cat", "file", "file"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ftp_client"));
        program.env("FTP_PASSWORD", "12345").arg(&url).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().expect("built");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it is ours");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()), (Some(141), String::new()));
    }
}

#[test]
fn the_password_of_the_environment_is_for_a_user_of_the_url() {
    for (who, password) in [("", "anonymous@"), ("FTP@", "anonymous@"), ("anonymous:me@", "me"), ("user@", "12345")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ftp://{who}{}", listener.local_addr().expect("bound"));
        let program = thread::spawn(move || client(&[&url, "--timeout", "20", "ls"]));
        let (mut stream, _) = listener.accept().expect("it comes");
        let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
        stream.write_all(b"220 ok\r\n").expect("it listens");
        lines.next();
        stream.write_all(b"331 ok\r\n").expect("it listens");
        assert_eq!(lines.next().expect("a line").expect("text"), format!("PASS {password}"));
        stream.write_all(b"530 no\r\n").expect("it listens");
        assert_eq!(program.join().expect("no panic").0, Some(1));
    }
}
