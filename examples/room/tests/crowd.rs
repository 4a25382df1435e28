//! Five thousand browsers in one room: what each costs the server, how a line reaches all of them, and that it does when many
//! are lost at once.
//!
//! Counted in the pages of the server that no file has (`Anonymous` of /proc/PID/smaps_rollup, proc(5)), with an allocator that
//! gives back what is free: what the heap really takes, the allocator's own share included.
#![cfg(target_os = "linux")]

#[path = "../../../tests/common/skips.rs"]
mod skips;
mod support;

use mainspring::{Context, Key, Outcome, Protocol, Reactor};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{frame, masked, request, typed};

const PATIENCE: Duration = Duration::from_secs(240);

const MEMBERS: usize = 5000;

/// All included: its connection, its WebSocket, and what the room knows of it.
const BYTES_MAX: usize = 900;

#[derive(Default)]
struct Crowd {
    keys: Vec<Key>,
    is_in: usize,
    /// How often it was heard what is listened for.
    heard: usize,
    wanted: &'static str,
}

struct Browser {
    input: Vec<u8>,
    is_open: bool,
}

impl Protocol<Crowd> for Browser {
    fn received(&mut self, ctx: &mut Context<'_, Crowd>, crowd: &mut Crowd, bytes: &[u8]) -> Outcome {
        self.input.extend(bytes);
        if !self.is_open {
            let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            self.input.drain(..end + 4);
            self.is_open = true;
        }
        while let Some((opcode, payload)) = frame(&mut self.input) {
            if opcode == 9 {
                ctx.send(masked(10, &payload));
            }
            crowd.is_in += usize::from(payload.starts_with(b"{\"type\":\"who\""));
            let has = |wanted: &[u8]| !wanted.is_empty() && payload.windows(wanted.len()).any(|part| part == wanted);
            crowd.heard += usize::from(has(crowd.wanted.as_bytes()));
        }
        Ok(())
    }
}

fn until(reactor: &mut Reactor<Crowd>, crowd: &mut Crowd, what: &str, is_so: impl Fn(&Crowd) -> bool) {
    let began = Instant::now();
    while !is_so(crowd) {
        assert!(began.elapsed() < PATIENCE, "{what}: {} are in, {} have heard it", crowd.is_in, crowd.heard);
        reactor.turn(crowd, Some(Duration::from_millis(100))).expect("the loop goes on");
    }
}

fn enter(reactor: &mut Reactor<Crowd>, crowd: &mut Crowd, web: SocketAddr, members: usize) {
    for _ in 0..members {
        let key = reactor.net().connect(web, Browser { input: Vec::new(), is_open: false });
        let name = format!("m{}", crowd.keys.len());
        reactor.net().send(key, request(&format!("/chat?name={name}")).replace("10.0.0.1:8080", "room.example"));
        crowd.keys.push(key);
        let all = crowd.keys.len();
        until(reactor, crowd, "entering", |crowd| crowd.is_in + 100 > all);
    }
    let all = crowd.keys.len();
    until(reactor, crowd, "entering", |crowd| crowd.is_in == all);
}

fn say(reactor: &mut Reactor<Crowd>, crowd: &mut Crowd, text: &'static str, hearers: usize) -> Duration {
    (crowd.heard, crowd.wanted) = (0, text);
    let began = Instant::now();
    let last = *crowd.keys.last().expect("somebody is in");
    reactor.net().send(last, typed(text));
    until(reactor, crowd, text, |crowd| crowd.heard > 0);
    let first = began.elapsed();
    until(reactor, crowd, text, |crowd| crowd.heard == hearers);
    first
}

/// What a crowd is told late is told then, and nothing is under way.
fn rest(reactor: &mut Reactor<Crowd>, crowd: &mut Crowd) {
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        reactor.turn(crowd, Some(Duration::from_millis(100))).expect("the loop goes on");
    }
}

struct Server(Child);

impl Server {
    fn written(&self) -> usize {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id())).expect("Linux has it");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("Linux says it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "wants optimisation: cargo test --profile sim --test crowd -- --ignored"]
fn five_thousand_members_are_small_and_hear_what_is_said() {
    if !skips::has_room_for(2 * MEMBERS + 200) {
        return;
    }
    let tuned = [
        ("MALLOC_MMAP_THRESHOLD_", "4096"),
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("MALLOC_TOP_PAD_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0"),
    ];
    let folder = std::env::temp_dir().join(format!("mainspring-crowd-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new name");
    let arguments = ["--lines", "127.0.0.1:0", "--web", "127.0.0.1:0", "--inspect", "no", "--members", "8000"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_room"));
    let mut child =
        command.args(arguments).envs(tuned).current_dir(&folder).stdout(Stdio::piped()).spawn().expect("it was built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let server = Server(child);
    let url = lines.nth(2).expect("a third line");
    let web: SocketAddr = url.rsplit_once("://").and_then(|(_, at)| at.trim_end_matches('/').parse().ok()).expect("an address");

    let (mut reactor, mut crowd) = (Reactor::new().expect("a loop"), Crowd::default());
    enter(&mut reactor, &mut crowd, web, 200);
    say(&mut reactor, &mut crowd, "before", 200);
    rest(&mut reactor, &mut crowd);
    let before = server.written();
    enter(&mut reactor, &mut crowd, web, MEMBERS);
    say(&mut reactor, &mut crowd, "to all of you", MEMBERS + 200);
    rest(&mut reactor, &mut crowd);
    let after = server.written();
    let each = after.saturating_sub(before) / MEMBERS;
    let calm = say(&mut reactor, &mut crowd, "in the calm", MEMBERS + 200);
    for key in crowd.keys.drain(..500) {
        reactor.net().abort(key);
    }
    reactor.turn(&mut crowd, Some(Duration::ZERO)).expect("the loop goes on");
    let storm = say(&mut reactor, &mut crowd, "in the storm", MEMBERS - 300);
    eprintln!(
        "{before} bytes, then {after}: {each} a member; a line is heard after {calm:?}, and when 500 are lost at once after {storm:?}"
    );
    drop(server);
    let _ = std::fs::remove_dir_all(folder);
    assert!(each <= BYTES_MAX, "{each} bytes each");
}
