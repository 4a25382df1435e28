//! The server as its users meet it; and the promise that it makes: a note that was confirmed is there, whatever happens to
//! the server.
#![cfg(unix)]

#[path = "../../../tests/common/folder.rs"]
#[allow(dead_code)]
mod folder;

use folder::Folder;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, and does not outlive its test.
struct Server {
    child: Child,
    at: SocketAddr,
}

impl Server {
    fn start(folder: &Folder) -> Self {
        Self::start_with(folder, folder.path("notes.db"))
    }

    fn start_with(folder: &Folder, database: impl AsRef<OsStr>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_notes"))
            .current_dir(&folder.0)
            .arg(database)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
        let at = line.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok()).expect("an IP address");
        Self { child, at }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }

    fn client(&self) -> Client {
        Client::to(self.at).expect("it listens")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

struct Client {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn to(at: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { lines: BufReader::new(socket.try_clone()?), socket })
    }

    fn says(&mut self, line: &str) -> std::io::Result<()> {
        self.socket.write_all(format!("{line}\n").as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.to_owned()),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.says(line)?;
        self.line()
    }

    /// The notes of one answer.
    fn notes(&mut self, line: &str) -> Vec<(i64, String)> {
        self.says(line).expect("connected");
        let mut notes = Vec::new();
        loop {
            let line = self.line().expect("an answer");
            let (id, text) = line.split_once(' ').expect("ID TEXT");
            if id == "OK" {
                assert_eq!(text, notes.len().to_string());
                return notes;
            }
            notes.push((id.parse().expect("an ID"), text.to_owned()));
        }
    }

    /// All of them, by as many requests as it takes.
    fn all(&mut self) -> Vec<(i64, String)> {
        let mut all: Vec<(i64, String)> = Vec::new();
        loop {
            let last = all.last().map_or(0, |(id, _)| *id);
            let page = self.notes(&format!("list {last}"));
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

#[test]
fn notes_are_added_listed_and_found() {
    let folder = Folder::new("notes");
    let server = Server::start(&folder);
    let mut client = server.client();
    assert_eq!(client.ask("add Buy Milk").expect("connected"), "OK 1");
    assert_eq!(client.ask("add  it's; drop table notes --  \r").expect("connected"), "OK 2");
    assert_eq!(client.ask("add 100 % of ünïcödé").expect("connected"), "OK 3");
    assert_eq!(client.notes("list").len(), 3);
    assert_eq!(client.notes("list 1")[0], (2, "it's; drop table notes --".to_owned()));
    assert_eq!(client.notes("find milk"), [(1, "Buy Milk".to_owned())]);
    assert_eq!(client.notes("find %"), [(3, "100 % of ünïcödé".to_owned())]);
    assert_eq!(client.notes("find nothing"), []);
    for (wrong, word) in [
        ("", "add TEXT"),
        ("add", "TEXT"),
        ("find  ", "TEXT"),
        ("list x", "number"),
        ("drop", "add"),
        ("add a\tb", "control"),
        ("add a\u{202e}b", "invisible"),
    ] {
        let answer = client.ask(wrong).expect("connected");
        assert!(answer.starts_with("ERROR ") && answer.contains(word), "{wrong:?}: {answer}");
    }
    // Many requests at once are answered in order, and all of them, also when the client has ended.
    let requests: String = (0..250).map(|n| format!("add note {n}\n")).collect();
    client.socket.write_all(requests.as_bytes()).expect("connected");
    client.socket.shutdown(Shutdown::Write).expect("connected");
    for n in 0..250 {
        assert_eq!(client.line().expect("an answer"), format!("OK {}", 4 + n));
    }
    assert!(client.line().is_err(), "the end");
    let all = server.client().all();
    assert_eq!((all.len(), &all[252]), (253, &(253, "note 249".to_owned())));
}

#[test]
fn too_long_a_request_is_answered_with_an_error_and_the_next_one_is_done() {
    let folder = Folder::new("notes");
    let server = Server::start(&folder);
    let mut client = server.client();
    for length in [5000, 500_000] {
        let answer = client.ask(&format!("add {}", "z".repeat(length))).expect("connected");
        assert_eq!(answer, "ERROR a request has at most 4096 bytes; nothing was done");
    }
    assert_eq!(client.ask("add one").expect("connected"), "OK 1");
}

#[test]
fn an_interrupt_lets_what_has_come_finish() {
    let folder = Folder::new("notes");
    let mut server = Server::start(&folder);
    let (mut client, _idle) = (server.client(), server.client());
    assert_eq!(client.ask("add one").expect("connected"), "OK 1");
    server.signal("-INT");
    assert_eq!(server.child.wait().expect("ours").code(), Some(0));
    assert_eq!(Server::start(&folder).client().all(), [(1, "one".to_owned())]);
}

/// SQLite has names for databases that are in memory, or go with the program.
#[test]
fn a_database_is_a_file_whatever_it_is_called() {
    for name in [":memory:", "file:notes?mode=memory"] {
        let folder = Folder::new("notes");
        let server = Server::start_with(&folder, name);
        assert_eq!(server.client().ask("add kept").expect("an answer"), "OK 1", "{name}");
        drop(server);
        assert!(folder.0.join(name).is_file(), "{name}");
        let server = Server::start_with(&folder, name);
        assert_eq!(server.client().all(), [(1, "kept".to_owned())], "{name}");
    }
}

#[test]
fn help_and_mistakes() {
    let folder = Folder::new("notes");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notes"));
        command.current_dir(&folder.0).args(arguments).output().expect("it was built")
    };
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("usage: notes"));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let wrong: [(&[&str], i32); 6] = [
        (&[], 2),
        (&[""], 2),
        (&["--nonsense"], 2),
        (&["/nowhere/notes.db"], 1),
        (&["a", "b", "c"], 2),
        (&["notes.db", "nonsense"], 2),
    ];
    for (arguments, code) in wrong {
        let output = run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(complaint.starts_with("error: ") && complaint.lines().count() == 1, "{arguments:?}: {complaint}");
    }
}

const CLIENTS: usize = 20;
const NOTES: usize = 1000;
const KILLS: usize = 10;

/// Adds notes until enough are confirmed by all clients together; whoever loses the server comes again. What was confirmed,
/// in order.
fn add_notes(client: usize, at: &Mutex<SocketAddr>, confirmed: &AtomicUsize) -> Vec<String> {
    let (mut mine, mut connection) = (Vec::new(), None);
    let began = Instant::now();
    for number in 0.. {
        assert!(began.elapsed() < 5 * PATIENCE, "the server does not come again");
        if confirmed.load(Ordering::Relaxed) >= NOTES {
            break;
        }
        let text = format!("client {client} note {number}");
        let address = *at.lock().expect("no panic");
        let answer = match connection.take().map_or_else(|| Client::to(address), Ok) {
            Ok(mut client) => client.ask(&format!("add {text}")).map(|answer| (client, answer)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((client, answer)) => {
                assert!(answer.starts_with("OK "), "{answer}");
                connection = Some(client);
                mine.push(text);
                confirmed.fetch_add(1, Ordering::Relaxed);
            }
            // Not confirmed: it may be there or not. The next note has another text.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    mine
}

#[test]
fn no_confirmed_note_is_lost_when_the_server_is_killed_ten_times() {
    let folder = Folder::new("notes");
    let server = Server::start(&folder);
    let (at, confirmed) = (Mutex::new(server.at), AtomicUsize::new(0));
    let (promised, server) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let (at, confirmed) = (&at, &confirmed);
                    move || add_notes(client, at, confirmed)
                })
            })
            .collect();
        let mut server = server;
        let chance = RandomState::new();
        for kill in 0..KILLS {
            // At some moment after so many more notes: also in the middle of a commit.
            let next = confirmed.load(Ordering::Relaxed) + 1 + chance.hash_one(kill) as usize % (NOTES / KILLS - 20);
            let began = Instant::now();
            while confirmed.load(Ordering::Relaxed) < next {
                assert!(began.elapsed() < PATIENCE, "only {} notes are confirmed", confirmed.load(Ordering::Relaxed));
                thread::sleep(Duration::from_millis(1));
            }
            server.signal("-KILL");
            server = Server::start(&folder);
            *at.lock().expect("no panic") = server.at;
        }
        let promised: Vec<Vec<String>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        (promised, server)
    });
    let all = server.client().all();
    let places: BTreeMap<&str, i64> = all.iter().map(|(id, text)| (text.as_str(), *id)).collect();
    assert_eq!(places.len(), all.len(), "no note is there twice");
    assert_eq!(all.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), all.len(), "no id is used twice");
    let total: usize = promised.iter().map(Vec::len).sum();
    assert!(total >= NOTES);
    for mine in &promised {
        let ids: Vec<i64> =
            mine.iter().map(|text| *places.get(text.as_str()).unwrap_or_else(|| panic!("lost: {text}"))).collect();
        assert!(ids.is_sorted(), "the notes of one client are in order");
    }
    println!("{total} confirmed notes, {KILLS} kills, {} notes in the database", all.len());
}
