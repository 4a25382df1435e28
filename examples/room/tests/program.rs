//! The program as its users meet it; and the promise that it makes: a line that was confirmed is in the history, whatever
//! happens to the server.
#![cfg(unix)]

#[path = "../../../tests/common/folder.rs"]
#[allow(dead_code)]
mod folder;
mod support;

use folder::Folder;
use room::history::{Origin, Store};
use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{frame, request, typed};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, and does not outlive its test.
struct Server {
    child: Child,
    lines: SocketAddr,
    web: SocketAddr,
    inspector: SocketAddr,
}

impl Server {
    fn start(folder: &Folder, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_room"));
        command
            .args(["--lines", "127.0.0.1:0", "--web", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--unix", "socket"])
            .args(more);
        let mut child =
            command.current_dir(&folder.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        let [first, _, browser, inspector] = [(); 4].map(|()| line());
        let lines = first.strip_prefix("listening on ").and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("{first}"));
        let url = |line: &str| line.rsplit_once("://")?.1.split('/').next()?.parse().ok();
        let web = url(&browser).unwrap_or_else(|| panic!("{browser}"));
        Self { child, lines, web, inspector: url(&inspector).unwrap_or_else(|| panic!("{inspector}")) }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }

    /// Its exit status, and what it has complained of.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut complaints = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut complaints).expect("text");
        (self.child.wait().expect("ours").code(), complaints)
    }

    fn enters(&self, name: &str) -> Client<TcpStream> {
        let mut client = Client::of(TcpStream::connect(self.lines).expect("it listens"));
        client.enters(name);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

trait Socket: Read + Write {
    fn be_patient(&self);
}

impl Socket for TcpStream {
    fn be_patient(&self) {
        self.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    }
}

impl Socket for UnixStream {
    fn be_patient(&self) {
        self.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    }
}

struct Client<T>(BufReader<T>);

impl<T: Socket> Client<T> {
    fn of(socket: T) -> Self {
        socket.be_patient();
        Self(BufReader::new(socket))
    }

    fn says(&mut self, text: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        line.strip_suffix('\n').map(str::to_owned).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    #[track_caller]
    fn hears(&mut self, wanted: &str) {
        let line = self.line().expect("a line in time");
        assert_eq!(line, wanted);
    }

    #[track_caller]
    fn enters(&mut self, name: &str) {
        self.says(&format!("{name}\n")).expect("it is open");
        self.hears("Your name?");
        self.hears(&format!("Welcome, {name}! You are in lobby. /help lists the commands."));
        while !self.line().expect("a line in time").starts_with("* here: ") {}
    }
}

/// A browser, as far as that matters.
struct Browser {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Browser {
    fn enters(server: &Server, name: &str) -> Self {
        let mut socket = TcpStream::connect(server.web).expect("it listens");
        socket.be_patient();
        socket
            .write_all(request(&format!("/chat?name={name}")).replace("10.0.0.1:8080", "room.example").as_bytes())
            .expect("open");
        let mut input = Vec::new();
        while !input.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a head in time");
            input.push(byte[0]);
        }
        assert!(input.starts_with(b"HTTP/1.1 101 "), "{}", input.escape_ascii());
        Self { socket, input: Vec::new() }
    }

    fn says(&mut self, line: &str) {
        self.socket.write_all(&typed(line)).expect("it is open");
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = frame(&mut self.input) {
                return frame;
            }
            let mut more = [0; 4096];
            let read = self.socket.read(&mut more).expect("something in time");
            assert!(read > 0, "it has ended");
            self.input.extend(&more[..read]);
        }
    }

    #[track_caller]
    fn hears(&mut self, of: &str) -> String {
        for _ in 0..1000 {
            let (_, text) = self.frame();
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(of) {
                return text;
            }
        }
        panic!("not among a thousand messages");
    }
}

#[test]
fn terminals_and_browsers_are_in_one_room_and_its_end_is_told_to_all() {
    let folder = Folder::new("room");
    let server = Server::start(&folder, &[]);
    let mut ann = server.enters("ann");
    let mut bob = Client::of(UnixStream::connect(folder.0.join("socket")).expect("it listens"));
    bob.enters("bob");
    let mut cleo = Browser::enters(&server, "cleo");
    cleo.hears("\"names\":[\"ann\",\"bob\",\"cleo\"]");
    ann.hears("* bob joined");
    ann.hears("* cleo joined");
    bob.hears("* cleo joined");
    ann.says("hello, you two\n").expect("open");
    for line in [ann.line(), bob.line()] {
        assert_eq!(line.expect("a line"), "<ann> hello, you two");
    }
    cleo.hears("\"from\":\"ann\",\"text\":\"hello, you two\"");
    cleo.says("/me waves");
    ann.hears("~ cleo waves");
    bob.hears("~ cleo waves");
    let mut looks = TcpStream::connect(server.inspector).expect("it listens");
    looks.be_patient();
    looks.write_all(b"GET /inspect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("open");
    let mut page = String::new();
    looks.read_to_string(&mut page).expect("text");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    server.signal("-INT");
    ann.hears("* the room closes");
    assert_eq!(ann.line().map_err(|error| error.kind()), Err(ErrorKind::UnexpectedEof));
    bob.hears("* the room closes");
    cleo.hears("the room closes");
    assert_eq!(cleo.frame(), (8, 1001u16.to_be_bytes().to_vec()));
    drop(cleo);
    assert_eq!(server.ends(), (Some(0), String::new()));
    assert!(!folder.0.join("socket").exists());
    // What was said is there when it comes back.
    let server = Server::start(&folder, &[]);
    let mut ann = Client::of(TcpStream::connect(server.lines).expect("it listens"));
    ann.says("ann\n/quit\n").expect("open");
    let mut heard = String::new();
    ann.0.read_to_string(&mut heard).expect("text");
    assert!(heard.contains(" <ann> hello, you two\n") && heard.contains(" ~ cleo waves\n"), "{heard}");
}

#[test]
fn what_is_piped_in_is_said_and_answered() {
    let folder = Folder::new("room");
    let server = Server::start(&folder, &[]);
    let mut socket = TcpStream::connect(server.lines).expect("it listens");
    socket.be_patient();
    socket.write_all(b"ann\nhello\n/who\n").expect("open");
    socket.shutdown(Shutdown::Write).expect("open");
    let mut heard = String::new();
    socket.read_to_string(&mut heard).expect("text");
    assert!(heard.ends_with("* here: ann\n<ann> hello\n* here: ann\n"), "{heard}");
}

#[test]
fn help_and_mistakes_are_told_in_one_line() {
    let folder = Folder::new("room");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_room"));
        command.current_dir(&folder.0).args(arguments).stdin(Stdio::null()).output().expect("it was built")
    };
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("usage: room"));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    fs::write(folder.0.join("text.db"), "this is no database, though it is as long as one may be. ".repeat(100)).expect("a file");
    let _ = fs::create_dir(folder.0.join("folder.db"));
    let sql = |name: &str, sql: &str| {
        rusqlite::Connection::open(folder.0.join(name)).and_then(|db| db.execute_batch(sql)).expect("SQL")
    };
    sql("other.db", "create table t (x)");
    drop(Store::open(&folder.0.join("newer.db")).expect("a new one"));
    sql("newer.db", "pragma user_version = 7");
    let server = Server::start(&folder, &["--db", "taken.db"]);
    let taken = server.lines.to_string();
    let wrong: [(&[&str], i32, &str); 14] = [
        (&["--nonsense"], 2, "nonsense"),
        (&["word"], 2, "word"),
        (&["--lines", "nonsense"], 2, "nonsense"),
        (&["--members", "0"], 2, "--members"),
        (&["--tls", "cert"], 2, "two values"),
        (&["--tls", "no.pem", "no.key"], 1, "cannot read 'no.pem'"),
        (&["--db", ""], 2, "--db"),
        (&["--db", "/nowhere/room.db"], 1, "cannot use '/nowhere/room.db': "),
        (&["--db", "folder.db"], 1, "cannot use 'folder.db': "),
        (&["--db", "text.db"], 1, "cannot use 'text.db': file is not a database"),
        (&["--db", "other.db"], 1, "cannot use 'other.db': it is the database of another program"),
        (&["--db", "newer.db"], 1, "cannot use 'newer.db': it is of version 7"),
        (&["--db", "taken.db"], 1, "cannot use 'taken.db': database is locked"),
        (&["--lines", &taken], 1, &taken),
    ];
    for (arguments, code, word) in wrong {
        let output = run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("error: ") && complaint.lines().count() == 1, "{arguments:?}: {complaint}");
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
}

const CLIENTS: usize = 20;
const LINES: usize = 600;
const KILLS: usize = 10;

/// Says lines until enough are confirmed to all clients together; whoever loses the server comes again. What was confirmed, in
/// order.
fn say_lines(client: usize, at: &Mutex<SocketAddr>, confirmed: &AtomicUsize) -> Vec<String> {
    let (mut mine, mut connection, mut came) = (Vec::new(), None, 0);
    let began = Instant::now();
    for number in 0.. {
        assert!(began.elapsed() < 5 * PATIENCE, "the server does not come again");
        if confirmed.load(Ordering::Relaxed) >= LINES {
            break;
        }
        let address = *at.lock().expect("no panic");
        let text = format!("client {client} line {number}");
        let name = format!("c{client}-{came}");
        let mut say = || -> std::io::Result<bool> {
            if connection.is_none() {
                came += 1;
                let mut client = Client::of(TcpStream::connect(address)?);
                client.says(&format!("{name}\n"))?;
                while !client.line()?.starts_with("* here: ") {}
                connection = Some(client);
            }
            let client = connection.as_mut().expect("just made");
            client.says(&format!("{text}\n"))?;
            loop {
                let line = client.line()?;
                if line.starts_with("* not said") {
                    return Ok(false);
                }
                if line.ends_with(&format!("> {text}")) {
                    return Ok(true);
                }
            }
        };
        match say() {
            Ok(true) => {
                mine.push(text);
                confirmed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => thread::sleep(Duration::from_millis(500)), // it is to be slower
            // Not confirmed: it may be there or not. The next line has another text.
            Err(_) => {
                connection = None;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    mine
}

#[test]
fn no_confirmed_line_is_lost_when_the_server_is_killed_ten_times() {
    let folder = Folder::new("room");
    let server = Server::start(&folder, &[]);
    let (at, confirmed) = (Mutex::new(server.lines), AtomicUsize::new(0));
    let (promised, server) = thread::scope(|scope| {
        let say = |client| {
            let (at, confirmed) = (&at, &confirmed);
            move || say_lines(client, at, confirmed)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(say(client))).collect();
        let mut server = server;
        let chance = RandomState::new();
        for kill in 0..KILLS {
            // At some moment after so many more lines: also in the middle of a commit.
            let next = confirmed.load(Ordering::Relaxed) + 1 + chance.hash_one(kill) as usize % (LINES / KILLS - 20);
            let began = Instant::now();
            while confirmed.load(Ordering::Relaxed) < next {
                assert!(began.elapsed() < PATIENCE, "only {} lines are confirmed", confirmed.load(Ordering::Relaxed));
                thread::sleep(Duration::from_millis(1));
            }
            server.signal("-KILL");
            drop(server);
            server = Server::start(&folder, &[]);
            *at.lock().expect("no panic") = server.lines;
        }
        let promised: Vec<Vec<String>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        (promised, server)
    });
    server.signal("-INT");
    assert_eq!(server.ends().0, Some(0));
    let db = rusqlite::Connection::open(folder.0.join("room.db")).expect("it is free now");
    let origin: String = db.query_row("select value from meta where name = 'origin'", [], |row| row.get(0)).expect("SQL");
    drop(db);
    let store = Store::open(&folder.0.join("room.db")).expect("it is sound");
    let origin: Origin = origin.parse().expect("an origin");
    let all = store.lines_after(origin, 0, usize::MAX >> 1).expect("they can be read");
    let numbers: Vec<u64> = all.iter().map(|line| line.n).collect();
    assert!(numbers.iter().copied().eq(1..=all.len() as u64), "from 1 on, without gaps");
    let texts: Vec<&str> = all.iter().map(|line| &*line.text).collect();
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), texts.len(), "none is there twice");
    for mine in &promised {
        let places =
            mine.iter().map(|text| texts.iter().position(|there| there == text).unwrap_or_else(|| panic!("lost: {text}")));
        assert!(places.collect::<Vec<_>>().is_sorted(), "the lines of one client are in order");
    }
    let total: usize = promised.iter().map(Vec::len).sum();
    println!("{total} confirmed lines, {KILLS} kills, {} lines in the database", all.len());
}
