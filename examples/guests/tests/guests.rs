//! The programs as their users meet them.
#![cfg(target_os = "linux")]
// The room of examples/chat.rs, unchanged, with all that belongs to it.
#[allow(dead_code)]
#[path = "../../chat.rs"]
mod chat;

use mainspring::{Reactor, Remote};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

// ---------------------------------------------------------------------------------------------------- the programs

/// A server that runs, and does not outlive its test.
struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("it was built");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn address(&mut self, what: &str) -> SocketAddr {
        let line = self.line();
        line.strip_prefix(what).and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no address: {line}"))
    }

    /// After a signal: its exit status, what it still said, and its complaints.
    fn ends(mut self) -> (Option<i32>, String, String) {
        let (mut rest, mut complaints) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).expect("text");
        self.child.stderr.take().expect("piped").read_to_string(&mut complaints).expect("text");
        (self.child.wait().expect("ours").code(), rest, complaints)
    }

    #[track_caller]
    fn drains(self, signal: &str) -> String {
        kill(&self.child, signal);
        let (code, rest, complaints) = self.ends();
        assert_eq!((code, &*complaints), (Some(0), ""), "{rest}");
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(child: &Child, signal: &str) {
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(killed.expect("kill(1) exists").success());
}

/// A client that speaks in lines.
struct Client(BufReader<TcpStream>);

impl Client {
    fn to(at: SocketAddr) -> Self {
        Self::of(TcpStream::connect(at).expect("it listens"))
    }

    fn of(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self(BufReader::new(socket))
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it is open");
    }

    #[track_caller]
    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// Lines until such a one.
    #[track_caller]
    fn hears_of(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        for _ in 0..1000 {
            let line = self.hears();
            if is_it(&line) {
                return line;
            }
            assert!(!line.is_empty(), "it has ended");
        }
        panic!("not among a thousand lines");
    }
}

#[test]
fn help_fits_and_a_wrong_command_line_is_told() {
    let programs = [
        env!("CARGO_BIN_EXE_in_calloop"),
        env!("CARGO_BIN_EXE_screen"),
        env!("CARGO_BIN_EXE_game"),
        env!("CARGO_BIN_EXE_nested"),
        env!("CARGO_BIN_EXE_multicore"),
    ];
    for program in programs {
        let help = Command::new(program).arg("--help").output().expect("it was built");
        let text = String::from_utf8(help.stdout).expect("text");
        let (_, name) = program.rsplit_once('/').expect("a path");
        assert!(help.status.success() && text.contains(&format!("usage: {name} ")), "{program}: {text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{program}: {text}");
        for wrong in [&["--nonsense"][..], &["nowhere"], &["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"]] {
            let run = Command::new(program).args(wrong).stdin(Stdio::null()).output().expect("it was built");
            let complaint = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!((run.status.code(), complaint.lines().count()), (Some(2), 1), "{program} {wrong:?}: {complaint}");
            assert_eq!(run.stdout, b"", "{program} {wrong:?}");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("it listens").to_string();
    for program in [programs[0], programs[2], programs[3], programs[4]] {
        let run = Command::new(program).arg(&taken).output().expect("it was built");
        let complaint = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!((run.status.code(), complaint.lines().count()), (Some(1), 1), "{program}: {complaint}");
    }
}

#[test]
fn in_calloop_both_the_server_and_the_timer_go_on() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_in_calloop"), &["--tick", "2", "127.0.0.1:0"]);
    let at = server.address("listening on ");
    let mut client = Client::to(at);
    for number in 0..200 {
        client.says(&format!("{number}\n"));
        assert_eq!(client.hears(), number.to_string());
    }
    drop(client);
    let said = server.drains("-INT");
    assert!(said.starts_with("200 pieces echoed; "), "{said}");
}

#[test]
fn nested_the_inner_one_serves_too_and_finishes_first() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_nested"), &["127.0.0.1:0", "127.0.0.1:0"]);
    let at = server.address("listening on ");
    let status_at = server.address("status on ");
    let (mut client, mut asker) = (Client::to(at), Client::to(status_at));
    for number in 0..50 {
        client.says(&format!("{number}\n"));
        assert_eq!(client.hears(), number.to_string());
    }
    // The news of the outer one reaches the inner by their clock: it is asked until it has.
    let began = Instant::now();
    loop {
        asker.says("well?\n");
        let answer = asker.hears();
        if answer.starts_with("50 pieces echoed, up for ") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{answer}");
    }
    // And its own timers run while nobody asks.
    thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut asker = Client::to(status_at);
                    for _ in 0..100 {
                        asker.says("well?\n");
                        assert!(asker.hears().contains("asked"));
                    }
                })
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().expect("it is answered"));
    });
    assert_eq!(server.drains("-TERM"), "");
    assert_eq!((client.hears(), asker.hears()), (String::new(), String::new()), "both were closed politely");
}

#[test]
fn multicore_what_is_said_on_one_thread_is_told_on_all_with_one_number() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_multicore"), &["--threads", "3", "127.0.0.1:0"]);
    let at = server.address("listening on ");
    let mut clients: Vec<_> = (0..24).map(|_| Client::to(at)).collect();
    // Who is told what he has said himself is known to his thread, and so told what others say.
    for (number, client) in clients.iter_mut().enumerate() {
        client.says(&format!("here {number}\n"));
        let said = format!("{}: here {number}", number + 1);
        client.hears_of(|line| line == said);
    }
    for number in 0..clients.len() {
        clients[number].says(&format!("from {number} \u{1b}[2J\n"));
        let said = format!("{}: from {number}  [2J", 24 + number + 1);
        for client in &mut clients {
            let heard = client.hears_of(|line| line.contains(&format!(": from {number} ")));
            assert_eq!(heard, said);
        }
    }
    let said = server.drains("-TERM");
    let threads = said.trim_end().strip_prefix("48 lines; connections of each thread: ").expect("what it says at its end");
    let came: Vec<u32> = threads.split(", ").map(|came| came.parse().expect("a number")).collect();
    assert_eq!((came.len(), came.iter().sum::<u32>()), (3, 24), "{said}");
    assert!(clients.iter_mut().all(|client| client.hears().is_empty()), "all were closed");
}

#[test]
fn game_the_network_is_beside_it() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_game"), &["127.0.0.1:0"]);
    let at = server.address("listening on ");
    let mut player = Client::to(at);
    assert_eq!(player.hears(), "left, right, up, down, stop, quit");
    player.says("right\n");
    player.hears_of(|line| line.ends_with(": 1 at 3,0"));
    let mut second = Client::to(at);
    second.says("dance\n");
    second.hears_of(|line| line == "left, right, up, down, stop, or quit?");
    player.hears_of(|line| line.contains(" 2 at 0,0"));
    second.says("quit\n");
    player.hears_of(|line| line.starts_with("step ") && !line.contains(" 2 at "));
    kill(&server.child, "-INT");
    player.hears_of(|line| line.starts_with("the game is over after "));
    let (code, said, complaints) = server.ends();
    assert_eq!((code, &*complaints), (Some(0), ""), "{said}");
    let run = Command::new(env!("CARGO_BIN_EXE_game")).args(["--steps", "3", "127.0.0.1:0"]).output().expect("it was built");
    let said = String::from_utf8(run.stdout).expect("text");
    assert!(run.status.success() && said.lines().nth(1).is_some_and(|line| line.starts_with("3 steps; ")), "{said}");
}

// ----------------------------------------------------------------------------------------------------- the screen

/// The room, in a thread.
struct Chat {
    at: SocketAddr,
    remote: Remote<chat::Room>,
    thread: Option<JoinHandle<()>>,
}

impl Chat {
    fn open() -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (config, options) = chat::bounds();
            let mut reactor = Reactor::with_config(config).expect("a selector");
            let listener = reactor.net().listen_with("127.0.0.1:0", options, |_, _, _| Ok(chat::Guest)).expect("a port");
            let at = reactor.net().local(listener).and_then(|local| local.ip()).expect("it listens");
            sender.send((at, reactor.remote())).expect("somebody waits");
            reactor.run(&mut chat::Room::default()).expect("the selector works");
        });
        let (at, remote) = receiver.recv().expect("it listens");
        Self { at, remote, thread: Some(thread) }
    }

    fn enters(&self, name: &str) -> Client {
        let mut client = Client::to(self.at);
        client.says(&format!("{name}\n"));
        client.hears_of(|line| line.starts_with("Welcome, "));
        client
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.remote.stop();
        let ended = self.thread.take().expect("it was started").join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// The program in a terminal.
struct Screen {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    before: Termios,
}

impl Screen {
    fn open(name: &str, at: SocketAddr) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
        let path = ptsname(&ours, Vec::new()).expect("it has a name");
        let terminal = open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("it is there");
        tcsetwinsize(&terminal, Winsize { ws_row: ROWS as u16, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })
            .expect("it is a terminal");
        let before = tcgetattr(&terminal).expect("it is a terminal");
        let its = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let child = Command::new(env!("CARGO_BIN_EXE_screen"))
            .args(["--name", name, &at.to_string()])
            .env("TERM", "xterm")
            .env_remove("RUST_BACKTRACE")
            .stdin(its())
            .stdout(its())
            .stderr(its())
            .spawn()
            .expect("it was built");
        let mut output = File::from(ours.try_clone().expect("a descriptor"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&shown);
        // Until the last descriptor of the terminal is closed: that is EIO.
        thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buf) {
                sink.lock().expect("no panic").extend_from_slice(&buf[..count]);
            }
        });
        Self { child, keys: File::from(ours), terminal, shown, before }
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("it is open");
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no panic")).into_owned()
    }

    /// What stands in its rows now.
    fn rows(&self) -> Vec<String> {
        rows_of(&self.text())
    }

    #[track_caller]
    fn shows(&self, what: &str) {
        self.until(what, || self.rows().iter().any(|row| row.contains(what)));
    }

    /// The line that is typed is this one.
    #[track_caller]
    fn shows_typed(&self, what: &str) {
        let row = format!("> {what}");
        self.until(&row, || self.rows()[ROWS - 1].trim_end() == row.trim_end());
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "{what:?} is not shown: {:?}", self.rows());
            thread::yield_now();
        }
    }

    /// With this exit status, and the terminal is as it was; what was shown after that.
    #[track_caller]
    fn ends(mut self, code: i32) -> String {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::yield_now();
        };
        assert_eq!(status.code(), Some(code), "{:?}", self.text());
        self.until("the cursor", || self.text().ends_with("\u{1b}[?25h") || code == 101);
        let after = tcgetattr(&self.terminal).expect("it is a terminal");
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        let text = self.text();
        let (_, rest) = text.split_once("\u{1b}[?1049l").expect("the other screen was left");
        rest.to_owned()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ROWS: usize = 24;

/// As much of a terminal as it takes: text, where the cursor goes, and clearing all.
fn rows_of(output: &str) -> Vec<String> {
    let mut cells = vec![vec![' '; 132]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut rest = output.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                assert_eq!(rest.next().unwrap_or('['), '[', "only what begins so is sent");
                let mut sequence = String::new();
                for c in rest.by_ref() {
                    sequence.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                match (sequence.pop(), &*sequence) {
                    (Some('H'), at) => {
                        let mut at = at.split(';').map(|at| at.parse().map_or(0, |at: usize| at - 1));
                        (row, column) = (at.next().unwrap_or(0), at.next().unwrap_or(0));
                    }
                    (Some('J'), "2") => cells = vec![vec![' '; 132]; ROWS],
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row = (row + 1).min(ROWS - 1),
            c => {
                if let Some(cell) = cells[row].get_mut(column) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    cells.into_iter().map(String::from_iter).collect()
}

#[test]
fn on_a_screen_both_see_what_the_other_says() {
    let room = Chat::open();
    let mut other = room.enters("other");
    let mut screen = Screen::open("me", room.at);
    assert_eq!(other.hears(), "* me joined");
    screen.shows("me, 2 here");
    screen.types("hello\r");
    assert_eq!(other.hears(), "<me> hello");
    screen.types("half a li");
    screen.shows_typed("half a li");
    other.says("welcome\n");
    screen.shows("<other> welcome");
    screen.shows_typed("half a li");
    let narrow = Winsize { ws_row: ROWS as u16, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&screen.terminal, narrow).expect("it is a terminal");
    kill(&screen.child, "-WINCH"); // the kernel tells only those whose terminal it is
    screen.until("the list is gone", || screen.rows().iter().all(|row| !row.contains('│')));
    screen.shows_typed("half a li");
    screen.types("ne\u{1b}[D\u{1b}[D\u{7f}-\u{1b}[F!\r"); // Left, Left, Backspace, End
    assert_eq!(other.hears(), "<me> half a l-ne!");
    screen.types("\u{1b}[200~two\nlines\u{1b}[201~\r"); // pasted
    assert_eq!(other.hears(), "<me> two lines");
    screen.types("/quit\r");
    assert_eq!(other.hears(), "* me left");
    screen.ends(0);
}

#[test]
fn a_terminal_is_left_as_it_was_in_all_ways_out() {
    let room = Chat::open();
    let entered = |name| {
        let screen = Screen::open(name, room.at);
        screen.shows(&format!("{name}, 1 here"));
        screen
    };
    let mut interrupted = entered("a");
    interrupted.types("not said\u{3}");
    interrupted.ends(130);
    let killed = entered("b");
    kill(&killed.child, "-TERM");
    killed.ends(143);
    let mut panicked = entered("c");
    panicked.types("\u{10}"); // Ctrl-P
    panicked.until("the message", || panicked.text().contains("it was asked for"));
    let rest = panicked.ends(101);
    assert!(rest.contains("panicked at") && rest.contains("it was asked for"), "{rest:?}");
    let mut nowhere = Screen::open("d", room.at);
    nowhere.until("a screen", || nowhere.rows()[ROWS - 1].starts_with('>'));
    nowhere.types("\u{4}"); // Ctrl-D, whatever the stage
    nowhere.ends(0);
}

#[test]
fn what_the_room_says_does_nothing_to_the_terminal_and_a_lost_room_is_called_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut screen = Screen::open("me", listener.local_addr().expect("it listens"));
    let mut server = Client::of(listener.accept().expect("it calls").0);
    server.says("Your name?\n");
    assert_eq!(server.hears(), "me");
    server.says("me is here already. Your name?\n");
    screen.shows("another name, please");
    screen.types("myself\r");
    assert_eq!(server.hears(), "myself");
    server.says("Welcome, myself!\n");
    assert_eq!(server.hears(), "/who");
    server.says("* here: myself, zoë\n");
    screen.shows("zoë");
    server.says("<x> \u{1b}]0;evil\u{7}\u{1b}[2J\u{9b}2J\u{202e} done\n");
    screen.shows(" done");
    let shown = screen.text();
    assert!(!shown.contains("\u{1b}]0;") && !shown.contains('\u{7}') && !shown.contains('\u{9b}') && !shown.contains('\u{202e}'));
    // A room that says to us too what we have said, as examples/room does: it is shown once.
    screen.types("said\r");
    assert_eq!(server.hears(), "said");
    server.says("<myself> said\n* zoë is now zoe\n<zoe> heard\n");
    screen.shows("<zoe> heard");
    assert_eq!(screen.rows().iter().filter(|row| row.contains("<myself> said")).count(), 1);
    drop(server);
    screen.shows("lost the room");
    screen.types("kept\r");
    screen.shows("Not said");
    let mut server = Client::of(listener.accept().expect("it calls again").0);
    server.says("Your name?\n");
    assert_eq!(server.hears(), "myself");
    server.says("Welcome, myself!\n");
    assert_eq!(server.hears(), "/who");
    screen.types("\r");
    assert_eq!(server.hears(), "kept");
    screen.types("\u{3}");
    screen.ends(130);
}
