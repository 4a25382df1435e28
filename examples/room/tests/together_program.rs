//! Three servers as one room, as programs, with the real server of NATS between them, by TLS and with a password. Without
//! `nats-server` (Debian's package of that name) it is skipped, and says so.
#![cfg(unix)]

#[path = "../../../tests/common/folder.rs"]
#[allow(dead_code)]
mod folder;
#[path = "common/nats_server.rs"]
mod nats_server;

use folder::Folder;
use nats_server::{SECURED, Server};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the room. It is killed when it is dropped.
struct Room {
    child: Child,
    at: SocketAddr,
    /// It says more than where it listens, to somebody.
    _stdout: BufReader<ChildStdout>,
}

impl Room {
    fn start(folder: &Path, number: usize, nats: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_room"));
        command.args(["--lines", "127.0.0.1:0", "--web", "127.0.0.1:0", "--inspect", "no", "--db", &format!("{number}.db")]);
        command.args(["--nats", &format!("anna:secret@localhost:{nats}")]);
        command.args(["--nats-ca", concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/certs/ca.pem")]);
        let mut child = command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it was built");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("a line");
        let at = line.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok());
        Self { child, at: at.unwrap_or_else(|| panic!("{line}")), _stdout: stdout }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.child.kill(); // SIGKILL; it may have ended
        let _ = self.child.wait();
    }
}

/// A member, and all that it was told.
struct Member {
    socket: BufReader<TcpStream>,
    name: &'static str,
    said: u32,
    heard: Vec<String>,
}

impl Member {
    fn enters(room: &Room, name: &'static str, said: u32) -> Self {
        let socket = TcpStream::connect(room.at).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut member = Self { socket: BufReader::new(socket), name, said, heard: Vec::new() };
        member.types(name);
        member.hears_until(|heard| heard.last().is_some_and(|line| line.starts_with("* here: ")));
        member
    }

    fn types(&mut self, line: &str) {
        writeln!(self.socket.get_mut(), "{line}").expect("it is open");
    }

    /// The next of its numbered lines.
    fn says(&mut self) {
        self.said += 1;
        self.types(&format!("{} {}", self.name, self.said));
    }

    #[track_caller]
    fn hears_until(&mut self, is_enough: impl Fn(&[String]) -> bool) {
        while !is_enough(&self.heard) {
            let mut line = String::new();
            let read = self.socket.read_line(&mut line);
            assert!(matches!(read, Ok(1..)), "{} waits for more: {read:?} after {:#?}", self.name, self.heard);
            self.heard.push(line.trim_end().to_owned());
        }
    }

    #[track_caller]
    fn hears(&mut self, wanted: &str) {
        self.hears_until(|heard| heard.iter().any(|line| line == wanted));
    }

    /// Until it knows that these are here.
    #[track_caller]
    fn sees(&mut self, names: &[&str]) {
        self.hears_until(|heard| {
            let here = heard.iter().filter_map(|line| line.strip_prefix("* here: ")).flat_map(|names| names.split(", "));
            let seen: BTreeSet<&str> =
                heard.iter().filter_map(|line| line.strip_prefix("* ")?.strip_suffix(" joined")).chain(here).collect();
            names.iter().all(|name| seen.contains(name))
        });
    }

    /// Until it has heard all to these numbers: each once and in order.
    #[track_caller]
    fn hears_all(&mut self, said: &[(&str, u32)]) {
        self.hears_until(|heard| {
            let numbers = numbers(heard);
            said.iter().all(|(name, number)| numbers.get(*name).is_some_and(|numbers| numbers.last() == Some(number)))
        });
        for (name, number) in said {
            assert_eq!(numbers(&self.heard)[*name], (1..=*number).collect::<Vec<_>>(), "{name}, as {} hears it", self.name);
        }
    }
}

/// What was heard, by who has said it; from the history too.
fn numbers(heard: &[String]) -> BTreeMap<String, Vec<u32>> {
    let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for line in heard {
        let Some((from, text)) = line.split_once("> ") else { continue };
        let (name, number) = text.rsplit_once(' ').expect("a name and a number");
        assert!(from.ends_with(name));
        numbers.entry(name.into()).or_default().push(number.parse().expect("a number"));
    }
    numbers
}

#[test]
fn three_servers_and_nats_each_killed_and_started_again() {
    let Some(mut nats) = Server::start("-1", &SECURED) else { return };
    let port = nats.port;
    let folder = Folder::new("together");
    let [first, second, third] = [1, 2, 3].map(|number| Room::start(&folder.0, number, port));
    let [mut ann, mut bob, mut cleo] =
        [(&first, "ann"), (&second, "bob"), (&third, "cleo")].map(|(room, name)| Member::enters(room, name, 0));
    for member in [&mut ann, &mut bob, &mut cleo] {
        member.sees(&["ann", "bob", "cleo"]);
    }
    for _ in 0..5 {
        for member in [&mut ann, &mut bob, &mut cleo] {
            member.says();
        }
    }
    for member in [&mut ann, &mut bob, &mut cleo] {
        member.hears_all(&[("ann", 5), ("bob", 5), ("cleo", 5)]);
    }
    ann.types("/msg cleo psst");
    cleo.hears("[ann to you] psst");

    drop(nats);
    for member in [&mut ann, &mut bob, &mut cleo] {
        member.hears("* NATS is away: only people on this server hear you");
        member.says();
        let name = member.name;
        member.hears_all(&[(name, 6)]);
    }
    nats = Server::start(&port.to_string(), &SECURED).expect("it was there");
    for member in [&mut ann, &mut bob, &mut cleo] {
        member.hears("* NATS is back: you are one room with the other servers again");
        member.hears_all(&[("ann", 6), ("bob", 6), ("cleo", 6)]);
    }

    drop(second);
    ann.hears("* bob left");
    ann.says();
    cleo.hears_all(&[("ann", 7)]);
    let second = Room::start(&folder.0, 2, port);
    let mut bob = Member::enters(&second, "bob", 6);
    bob.says();
    cleo.says();
    for member in [&mut ann, &mut bob, &mut cleo] {
        member.hears_all(&[("ann", 7), ("bob", 7), ("cleo", 7)]);
    }
    drop((first, second, third, nats));
}
