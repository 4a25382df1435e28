//! Many at once, and much at once. What is bounded is counted in turns, bytes and calls, never in time.

mod common;

use common::{PATIENCE, dial, has_room_for, listen, reset, until, until_net};
use mainspring::{Config, Context, Key, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    collections::{HashMap, HashSet},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const ANY: &str = "127.0.0.1:0";

fn nonblocking(to: SocketAddr) -> TcpStream {
    let peer = dial(to);
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// What is there, at most this much; `None` at the end of the stream.
fn take(mut peer: &TcpStream, into: &mut Vec<u8>, at_most: usize) -> Option<usize> {
    let mut buf = vec![0; at_most.min(64 << 10)];
    let mut taken = 0;
    while taken < at_most {
        let room = buf.len().min(at_most - taken);
        match peer.read(&mut buf[..room]) {
            Ok(0) => return None,
            Ok(n) => {
                into.extend_from_slice(&buf[..n]);
                taken += n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("the connection broke: {error}"),
        }
    }
    Some(taken)
}

/// One byte of a stream that does not repeat within any buffer.
fn pattern() -> Vec<u8> {
    let mut seed: u32 = 7;
    let bytes = (0..65_521).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    bytes.collect()
}

/// A stream of this many bytes of the pattern, over and over.
struct Source<'a> {
    pattern: &'a [u8],
    at: usize,
    end: usize,
}

impl Source<'_> {
    /// Writes until the kernel takes no more.
    fn pour(&mut self, mut into: &TcpStream) {
        while self.at < self.end {
            let from = self.at % self.pattern.len();
            let to = self.pattern.len().min(from + self.end - self.at);
            match into.write(&self.pattern[from..to]) {
                Ok(n) => self.at += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }
}

/// The same at the other end: every byte in its place.
struct Sink<'a> {
    pattern: &'a [u8],
    at: usize,
}

impl Sink<'_> {
    fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let from = self.at % self.pattern.len();
            let n = bytes.len().min(self.pattern.len() - from);
            assert!(bytes[..n] == self.pattern[from..from + n], "other bytes than were sent, after {}", self.at);
            self.at += n;
            bytes = &bytes[n..];
        }
    }
}

// -------------------------------------------------------------------------------------------------------------- chat

#[derive(Default)]
struct Room {
    members: Vec<Key>,
    ends: Vec<(Key, Reason)>,
}

struct Member;

impl Protocol<Room> for Member {
    fn connected(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room) -> Outcome {
        room.members.push(ctx.key);
        ctx.set_terminator(Terminator::line(8 << 10));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, line: &[u8]) -> Outcome {
        let said: Rc<[u8]> = [line, b"\n"].concat().into();
        for &member in room.members.iter().filter(|member| **member != ctx.key) {
            ctx.net.send_shared(member, &said);
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, why: Reason) {
        room.members.retain(|member| *member != ctx.key);
        room.ends.push((ctx.key, why));
    }
}

/// Says a line, and turns until each of the listeners has heard it; how many turns that took.
fn say_to_all(reactor: &mut Reactor<Room>, room: &mut Room, mut speaker: &TcpStream, peers: &[TcpStream], line: &[u8]) -> usize {
    speaker.write_all(line).expect("room in an empty buffer");
    let mut heard = vec![Vec::new(); peers.len()];
    for turns in 1..=100 {
        reactor.turn(room, Duration::from_secs(5)).expect("the selector works");
        for (peer, heard) in peers.iter().zip(&mut heard) {
            take(peer, heard, line.len() + 1).expect("still connected");
        }
        if heard.iter().all(|heard| heard.len() >= line.len()) {
            assert!(heard.iter().all(|heard| heard == line), "the line, once and whole");
            return turns;
        }
    }
    panic!("{} of {} heard it", heard.iter().filter(|heard| heard.len() == line.len()).count(), peers.len());
}

#[test]
fn a_line_reaches_999_others_and_one_who_never_reads_is_let_go_at_the_cap_unnoticed() {
    const MEMBERS: usize = 1000;
    if !has_room_for(2 * MEMBERS + 500) {
        return;
    }
    let config = Config::new().output_limits(4 << 10, 16 << 10, 64 << 10);
    let (mut reactor, mut room) = (Reactor::with_config(config).expect("a selector"), Room::default());
    let (_, at) = listen(&mut reactor, || Member);
    let mut peers: Vec<TcpStream> = (1..MEMBERS).map(|_| nonblocking(at)).collect();
    until(&mut reactor, &mut room, |room| room.members.len() == MEMBERS - 1);
    let deaf_peer = nonblocking(at);
    until(&mut reactor, &mut room, |room| room.members.len() == MEMBERS);
    let deaf = room.members[MEMBERS - 1];
    // So that little stands in the kernel, and the cap is soon met.
    socket2::SockRef::from(&deaf_peer).set_recv_buffer_size(4096).expect("a socket option");
    let small = reactor.net().link(deaf).expect("it is open").with_socket(|socket| socket.set_send_buffer_size(4096));
    small.expect("it has a socket").expect("a socket option");
    let speaker = peers.remove(0);

    peers.push(deaf_peer);
    let turns = say_to_all(&mut reactor, &mut room, &speaker, &peers, b"hello, all 999\n");
    assert!(turns <= 4, "{turns} turns with everybody reading");
    let deaf_peer = peers.pop().expect("it came last");

    let line = [&[b'x'; 2047][..], b"\n"].concat();
    let (mut rounds, mut most_queued) = (0, 0);
    while room.ends.is_empty() {
        assert!(rounds < 500, "it is not let go");
        let turns = say_to_all(&mut reactor, &mut room, &speaker, &peers, &line);
        assert!(turns <= 4, "{turns} turns beside one who does not read");
        most_queued = most_queued.max(reactor.net().link(deaf).map_or(0, |link| link.queued()));
        rounds += 1;
    }
    assert!(matches!(room.ends[..], [(key, Reason::Overflow)] if key == deaf), "{:?}", room.ends);
    assert!(most_queued > 60 << 10 && most_queued <= 64 << 10, "{most_queued} bytes were queued at most");
    let turns = say_to_all(&mut reactor, &mut room, &speaker, &peers, b"and then we were 999\n");
    assert!(turns <= 4, "{turns} turns afterwards");
    assert_eq!((room.members.len(), room.ends.len()), (MEMBERS - 1, 1));
    drop(deaf_peer);
}

// -------------------------------------------------------------------------------------------------------------- ends

#[derive(Default)]
struct Ends {
    connected: HashSet<Key>,
    closed: HashMap<Key, usize>,
}

struct Visitor;

impl Protocol<Ends> for Visitor {
    fn connected(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends) -> Outcome {
        ends.connected.insert(ctx.key);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Ends>, _: &mut Ends, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends, _: Reason) {
        *ends.closed.entry(ctx.key).or_default() += 1;
    }
}

#[test]
fn five_thousand_opened_connections_that_end_by_resets_and_fins_are_closed_once_each() {
    const ROUNDS: usize = 20;
    const EACH: usize = 250;
    if !has_room_for(2 * EACH + 500) {
        return;
    }
    let (mut reactor, mut ends) = (Reactor::new().expect("a selector"), Ends::default());
    let door = TcpListener::bind(ANY).expect("a free port");
    let to = door.local_addr().expect("bound");
    for round in 1..=ROUNDS {
        // Fewer at once than any listen backlog is long.
        let mut peers = Vec::new();
        let mut keys = Vec::new();
        while peers.len() < EACH {
            keys.extend((0..50).map(|_| reactor.net().connect(to, Visitor)));
            peers.extend((0..50).map(|_| door.accept().expect("the kernel has connected it").0));
        }
        until(&mut reactor, &mut ends, |ends| ends.connected.len() == round * EACH);
        for (n, (peer, key)) in peers.into_iter().zip(keys).enumerate() {
            // Its own order each round: 7 has no factor in common with 5.
            match (n * 7 + round) % 5 {
                0 => reset(peer),
                1 => drop(peer),
                2 => {
                    let _ = (&peer).write_all(b"last words"); // our echo meets a reset
                }
                3 => assert!(reactor.net().close(key)),
                _ => assert!(reactor.net().abort(key)),
            }
        }
        until(&mut reactor, &mut ends, |ends| ends.closed.len() == round * EACH);
    }
    assert!(ends.closed.values().all(|times| *times == 1), "exactly once");
    assert_eq!(ends.closed.len(), ROUNDS * EACH);
    while !format!("{reactor:?}").contains("slots: 0,") {
        reactor.turn(&mut ends, Duration::from_secs(5)).expect("the selector works");
    }
    assert!(!reactor.turn(&mut ends, None).expect("the selector works"), "nothing is left to wait for");
}

// ------------------------------------------------------------------------------------------------------------- flood

/// Answers each line; the empty ones are counted.
struct Ponger;

impl Protocol<usize> for Ponger {
    fn connected(&mut self, ctx: &mut Context<'_, usize>, _: &mut usize) -> Outcome {
        ctx.set_terminator(Terminator::line(64));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, usize>, flooded: &mut usize, line: &[u8]) -> Outcome {
        *flooded += usize::from(line.is_empty());
        ctx.send(line);
        Ok(())
    }
}

struct Sponge;

impl Protocol<usize> for Sponge {
    fn received(&mut self, _: &mut Context<'_, usize>, flooded: &mut usize, bytes: &[u8]) -> Outcome {
        *flooded += bytes.len();
        Ok(())
    }
}

/// A hundred ping, beside one who sends as fast as it can: the most turns that a ping took, and the most of the flood that
/// came in one turn.
fn worst_beside(mut reactor: Reactor<usize>, flood_at: SocketAddr, pong_at: SocketAddr) -> (usize, usize) {
    let mut flooder = nonblocking(flood_at);
    let pingers: Vec<TcpStream> = (0..100).map(|_| nonblocking(pong_at)).collect();
    let (flood, mut worst, mut most) = (vec![b'\n'; 1 << 20], 0, 0);
    for _ in 0..5 {
        reactor.turn(&mut 0, Duration::from_millis(10)).expect("the selector works");
    }
    for _ in 0..50 {
        for mut pinger in &pingers {
            pinger.write_all(b"ping\n").expect("room in an empty buffer");
        }
        let mut answers = vec![Vec::new(); pingers.len()];
        let mut turns = 0;
        while answers.iter().any(|answer| answer != b"ping") {
            while let Ok(1..) = flooder.write(&flood) {}
            let mut flooded = 0;
            reactor.turn(&mut flooded, Duration::from_secs(5)).expect("the selector works");
            most = most.max(flooded);
            turns += 1;
            assert!(turns < 100, "a ping is not answered");
            for (pinger, answer) in pingers.iter().zip(&mut answers) {
                take(pinger, answer, 5).expect("still connected");
            }
        }
        worst = worst.max(turns);
    }
    (worst, most)
}

#[test]
fn a_flood_of_bytes_is_read_so_much_a_turn_and_a_hundred_pings_beside_it_are_answered() {
    if !has_room_for(600) {
        return;
    }
    const A_TURN: usize = 256 << 10;
    let mut reactor = Reactor::with_config(Config::new().turn_bytes(A_TURN)).expect("a selector");
    let (_, flood_at) = listen(&mut reactor, || Sponge);
    let (_, pong_at) = listen(&mut reactor, || Ponger);
    let (worst, most) = worst_beside(reactor, flood_at, pong_at);
    assert!(worst <= 3, "a ping took {worst} turns");
    assert!(most < A_TURN + (64 << 10), "{most} bytes in one turn: the budget, and less than one read");
    assert!(most >= A_TURN, "it was no flood: {most} bytes in a turn at most");
}

#[test]
fn a_flood_of_empty_lines_is_delivered_so_many_a_turn_and_a_hundred_pings_beside_it_are_answered() {
    if !has_room_for(600) {
        return;
    }
    const A_TURN: usize = 1000;
    let mut reactor = Reactor::with_config(Config::new().turn_frames(A_TURN)).expect("a selector");
    let (_, pong_at) = listen(&mut reactor, || Ponger);
    let (worst, most) = worst_beside(reactor, pong_at, pong_at);
    assert!(worst <= 3, "a ping took {worst} turns");
    assert_eq!(most, A_TURN, "lines in one turn");
}

// ---------------------------------------------------------------------------------------------------------- much data

#[derive(Default)]
struct Traffic {
    keys: Vec<Key>,
    received: usize,
    most_queued: usize,
    ends: Vec<Reason>,
}

impl Traffic {
    /// Between turns.
    fn look_at_queues(&mut self, net: &mut Net<'_, Self>) {
        for &key in &self.keys {
            let queued = net.link(key).map_or(0, |link| link.queued());
            self.most_queued = self.most_queued.max(queued);
        }
    }
}

struct Echo;

impl Protocol<Traffic> for Echo {
    fn connected(&mut self, ctx: &mut Context<'_, Traffic>, traffic: &mut Traffic) -> Outcome {
        traffic.keys.push(ctx.key);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Traffic>, traffic: &mut Traffic, bytes: &[u8]) -> Outcome {
        traffic.received += bytes.len();
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Traffic>, traffic: &mut Traffic, why: Reason) {
        traffic.ends.push(why);
    }
}

/// The defaults of `Config`: the high mark, and one read.
const QUEUED_MAX: usize = (64 << 10) + (64 << 10);

#[test]
fn an_echo_of_32_mib_to_a_slow_reader_loses_nothing_and_queues_no_more_than_the_high_mark_and_one_read() {
    const BYTES: usize = 32 << 20;
    let pattern = pattern();
    let (mut reactor, mut traffic) = (Reactor::new().expect("a selector"), Traffic::default());
    let (_, at) = listen(&mut reactor, || Echo);
    let peer = nonblocking(at);
    let mut source = Source { pattern: &pattern, at: 0, end: BYTES };
    let mut sink = Sink { pattern: &pattern, at: 0 };
    let (mut bytes, mut quiet) = (Vec::new(), 0);
    let began = Instant::now();
    while sink.at < BYTES {
        assert!(began.elapsed() < 3 * PATIENCE, "it stands still after {} bytes", sink.at);
        source.pour(&peer);
        let before = traffic.received;
        reactor.turn(&mut traffic, Duration::ZERO).expect("the selector works");
        traffic.look_at_queues(&mut reactor.net());
        // Only now and then: when the server can do nothing more.
        quiet = if traffic.received == before { quiet + 1 } else { 0 };
        if quiet > 2 {
            bytes.clear();
            take(&peer, &mut bytes, 64 << 10).expect("still connected");
            sink.check(&bytes);
        }
    }
    let most = traffic.most_queued;
    assert!(most <= QUEUED_MAX, "{most} bytes were queued");
    assert!(most > 64 << 10, "the reader was too fast to show anything: {most} bytes were queued at most");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut traffic, |traffic| !traffic.ends.is_empty());
    assert!(matches!(traffic.ends[..], [Reason::Eof]), "{:?}", traffic.ends);
    assert_eq!((traffic.received, sink.at), (BYTES, BYTES));
}

/// One half of a proxy; its first half opens the second.
struct Pipe {
    target: Option<SocketAddr>,
    other: Option<Key>,
}

impl Protocol<Traffic> for Pipe {
    fn connected(&mut self, ctx: &mut Context<'_, Traffic>, traffic: &mut Traffic) -> Outcome {
        traffic.keys.push(ctx.key);
        ctx.link().set_hold_back(false);
        if let Some(target) = self.target {
            let other = ctx.net.connect(target, Self { target: None, other: Some(ctx.key) });
            ctx.net.throttle(ctx.key, other);
            ctx.net.throttle(other, ctx.key);
            self.other = Some(other);
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Traffic>, traffic: &mut Traffic, bytes: &[u8]) -> Outcome {
        traffic.received += bytes.len();
        let other = self.other.expect("set when it connected");
        assert!(ctx.net.send(other, bytes), "the other half is there until both have ended");
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, Traffic>, _: &mut Traffic, _: &[u8]) -> Outcome {
        ctx.net.half_close(self.other.expect("set when it connected"));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Traffic>, traffic: &mut Traffic, why: Reason) {
        traffic.ends.push(why);
    }
}

#[test]
fn a_proxy_passes_64_mib_both_ways_at_once_exactly_with_bounded_queues() {
    pass_on([64 << 20; 2]);
}

/// Nothing that comes the other way wakes whoever is throttled.
#[test]
fn a_proxy_passes_32_mib_one_way_exactly_with_bounded_queues() {
    pass_on([32 << 20, 1]);
    pass_on([1, 32 << 20]);
}

fn pass_on(amounts: [usize; 2]) {
    let pattern = pattern();
    let (mut reactor, mut traffic) = (Reactor::new().expect("a selector"), Traffic::default());
    let door = TcpListener::bind(ANY).expect("a free port");
    let target = door.local_addr().expect("bound");
    let (_, at) = listen(&mut reactor, move || Pipe { target: Some(target), other: None });
    let front = nonblocking(at);
    until(&mut reactor, &mut traffic, |traffic| traffic.keys.len() == 2);
    let (back, _) = door.accept().expect("the kernel has connected it");
    back.set_nonblocking(true).expect("a socket option");

    let ends = [&front, &back];
    let mut sources = amounts.map(|end| Source { pattern: &pattern, at: 0, end });
    let mut sinks = [0, 1].map(|_| Sink { pattern: &pattern, at: 0 });
    let (mut bytes, mut have_ended) = (Vec::new(), [false; 2]);
    let (mut turns, began) = (0_usize, Instant::now());
    while have_ended != [true; 2] {
        assert!(began.elapsed() < 3 * PATIENCE, "it stands still: {:?}", sinks.map(|sink| sink.at));
        // It must not sleep: a few bytes taken from the kernel open no window, and bring no event.
        reactor.turn(&mut traffic, Duration::ZERO).expect("the selector works");
        traffic.look_at_queues(&mut reactor.net());
        turns += 1;
        for n in [0, 1] {
            let was_done = sources[n].at == sources[n].end;
            sources[n].pour(ends[n]);
            if sources[n].at == sources[n].end && !was_done {
                ends[n].shutdown(Shutdown::Write).expect("connected");
            }
            // The two are fast and slow by turns, so that each direction is congested for a while.
            let is_slow = (turns / 64) % 2 == n;
            bytes.clear();
            have_ended[n] |= take(ends[n], &mut bytes, if is_slow { 16 << 10 } else { 1 << 20 }).is_none();
            sinks[n].check(&bytes);
        }
    }
    assert_eq!(sinks.map(|sink| sink.at), [amounts[1], amounts[0]], "all of it, both ways, before the end");
    let most = traffic.most_queued;
    assert!(most <= QUEUED_MAX, "{most} bytes were queued");
    if most <= 64 << 10 {
        println!("the kernel took nearly all: {most} bytes were queued at most");
    }
    until(&mut reactor, &mut traffic, |traffic| traffic.ends.len() == 2);
    assert!(traffic.ends.iter().all(Reason::is_clean), "{:?}", traffic.ends);
}

// ------------------------------------------------------------------------------------------------- threads, accepting

#[test]
fn two_hundred_thousand_posts_of_four_threads_come_in_each_threads_order_and_so_many_a_turn() {
    const THREADS: usize = 4;
    const EACH: usize = 50_000;
    const A_TURN: usize = 500;
    let mut reactor = Reactor::<[usize; THREADS]>::with_config(Config::new().turn_jobs(A_TURN)).expect("a selector");
    let posters: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = reactor.remote();
            thread::spawn(move || {
                for n in 0..EACH {
                    let posted = remote.post(move |_, seen: &mut [usize; THREADS]| {
                        assert_eq!(seen[thread], n, "in the order of thread {thread}");
                        seen[thread] += 1;
                    });
                    posted.expect("the reactor is there");
                }
            })
        })
        .collect();
    let mut seen = [0; THREADS];
    loop {
        let before: usize = seen.iter().sum();
        let goes_on = reactor.turn(&mut seen, Duration::from_secs(5)).expect("the selector works");
        let ran = seen.iter().sum::<usize>() - before;
        assert!(ran <= A_TURN, "{ran} jobs in one turn");
        if !goes_on && ran == 0 {
            break; // every remote is gone, and no job is left
        }
    }
    for poster in posters {
        poster.join().expect("no post fails");
    }
    assert_eq!(seen, [EACH; THREADS], "a job that failed its order would be missing here");
}

#[test]
fn a_storm_of_two_thousand_connects_is_accepted_so_many_a_turn_and_keeps_nobody_waiting() {
    const A_TURN: usize = 16;
    let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
    let count = backlog.unwrap_or(128).min(2000_usize);
    if !has_room_for(2 * count + 500) {
        return;
    }
    let mut reactor = Reactor::with_config(Config::new().turn_accepts(A_TURN)).expect("a selector");
    let mut ends = Ends::default();
    let (_, echo_at) = listen(&mut reactor, || Visitor);
    let pinger = nonblocking(echo_at);
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 1);
    let (_, at) = listen(&mut reactor, || Visitor);
    let peers: Vec<TcpStream> = (0..count).map(|_| dial(at)).collect();

    let (mut answer, mut asked_at, mut worst, mut turns) = (Vec::new(), 0, 0, 0);
    (&pinger).write_all(b"ping").expect("room in an empty buffer");
    while ends.connected.len() < count + 1 {
        let before = ends.connected.len();
        reactor.turn(&mut ends, Duration::from_secs(5)).expect("the selector works");
        turns += 1;
        // What was accepted in one turn is told of in the next, beside as many as that one accepts.
        let let_in = ends.connected.len() - before;
        assert!(let_in <= A_TURN, "{let_in} connections in one turn");
        take(&pinger, &mut answer, 64).expect("still connected");
        if answer == b"ping" {
            worst = worst.max(turns - asked_at);
            (asked_at, answer) = (turns, Vec::new());
            (&pinger).write_all(b"ping").expect("room in an empty buffer");
        }
        assert!(turns < 2 * count, "not all come in");
    }
    assert!(turns >= count / A_TURN, "{turns} turns for {count} connections");
    worst = worst.max(turns - asked_at);
    assert!(worst <= 3, "a ping took {worst} turns");
    drop((peers, pinger));
    until_net(&mut reactor, &mut ends, |_, ends| ends.closed.len() == count + 1);
    assert!(ends.closed.values().all(|times| *times == 1), "exactly once");
}

// ------------------------------------------------------------------------------------------- restarts under load

const RESTARTS: usize = 3;
const CLIENTS: usize = 8;
const REQUESTS: usize = 10_000;

/// Serves on a port that others have too, until it is told to go; what was answered.
fn serve_lines_until(go: &mpsc::Receiver<()>, listens: &mpsc::Sender<()>, at: SocketAddr, by_handler: bool) -> u64 {
    struct Echo;
    impl mainspring::RequestHandler<u64> for Echo {
        fn handle(
            &mut self,
            _: &mut Context<'_, u64>,
            answered: &mut u64,
            line: &[u8],
        ) -> Result<mainspring::Answer<Self, u64>, mainspring::Fault> {
            *answered += 1;
            Ok(mainspring::Answer::now([line, b"\n"].concat()))
        }
    }
    struct Lines;
    impl Protocol<u64> for Lines {
        fn connected(&mut self, ctx: &mut Context<'_, u64>, _: &mut u64) -> Outcome {
            ctx.set_terminator(Terminator::line(99));
            Ok(())
        }
        fn frame(&mut self, ctx: &mut Context<'_, u64>, answered: &mut u64, line: &[u8]) -> Outcome {
            *answered += 1;
            ctx.send([line, b"\n"].concat());
            Ok(())
        }
    }
    let (mut reactor, mut answered) = (Reactor::new().expect("a selector"), 0);
    let how = mainspring::Listen::new().reuse_port();
    let listening = match by_handler {
        true => reactor.net().serve(at, how, || Echo),
        false => reactor.net().listen_with(at, how, |_, _, _| Ok(Lines)),
    };
    listening.expect("a port that is shared");
    listens.send(()).expect("somebody waits for it");
    while go.try_recv().is_err() {
        reactor.turn(&mut answered, Duration::from_millis(1)).expect("the selector works");
    }
    reactor.net().drain(PATIENCE);
    reactor.run(&mut answered).expect("the selector works");
    assert_eq!((reactor.stats().undrained, reactor.stats().closed.shutdown), (0, 0));
    answered
}

/// One request after the other on one connection. A clean end before any byte of an answer is the server's right: that request
/// was not begun, and is asked again (RFC 9112, 9.3.1).
fn ask_on_one_connection(at: SocketAddr, requests: usize, asked: &AtomicUsize) -> usize {
    let (mut peer, mut again) = (std::io::BufReader::new(dial(at)), 0);
    for number in 0..requests {
        loop {
            let mut line = String::new();
            let said = peer.get_ref().write_all(format!("{number}\n").as_bytes());
            let heard = said.and_then(|()| std::io::BufRead::read_line(&mut peer, &mut line)).expect("no reset");
            if heard > 0 {
                assert_eq!(line, format!("{number}\n"), "whole");
                break;
            }
            again += 1;
            peer = std::io::BufReader::new(dial(at));
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    again
}

/// Two servers at one port.
#[cfg(unix)]
#[test]
fn three_restarts_under_load_lose_no_request_and_cut_none() {
    for by_handler in [false, true] {
        // The port stays ours between two servers, though nobody is accepted here.
        let port = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        port.set_reuse_port(true).expect("a socket option");
        port.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("literal").into()).expect("a free port");
        let at = port.local_addr().expect("it is bound").as_socket().expect("an IP address");
        let asked = Arc::new(AtomicUsize::new(0));
        let start = move || {
            let ((go, told), (ready, listens)) = (mpsc::channel(), mpsc::channel());
            let server = thread::spawn(move || serve_lines_until(&told, &ready, at, by_handler));
            listens.recv().expect("it listens");
            (go, server)
        };
        let mut server = start();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let asked = Arc::clone(&asked);
                thread::spawn(move || ask_on_one_connection(at, REQUESTS / CLIENTS, &asked))
            })
            .collect();
        let mut answered = 0;
        for restart in 1..=RESTARTS {
            let half_way = restart * REQUESTS / (RESTARTS + 1);
            let began = Instant::now();
            while asked.load(Ordering::Relaxed) < half_way {
                assert!(began.elapsed() < PATIENCE * 4, "nothing goes on");
                thread::yield_now();
            }
            let (go, old) = std::mem::replace(&mut server, start());
            go.send(()).expect("it runs");
            answered += old.join().expect("it drains");
        }
        let again: usize = clients.into_iter().map(|client| client.join().expect("every request is answered")).sum();
        server.0.send(()).expect("it runs");
        answered += server.1.join().expect("it drains");
        assert_eq!(answered, REQUESTS as u64, "each is answered once, also those that {again} connections asked again");
    }
}
