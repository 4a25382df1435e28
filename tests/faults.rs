//! Faults on real sockets: what the kernel refuses, interrupts and resets, and peers that do not do their part.
//!
//! The small ones run with every `cargo test`. The ignored ones take tools, room or time; scripts/faults.sh runs them, with
//! their figures. What needs a process of its own (a server that is traced or has few descriptors, a peer that is stopped)
//! is this binary again, in a role.
#![cfg(target_os = "linux")]

mod common;

use common::{PATIENCE, dial, has_room_for, listen, reset, say, skip, until, until_net};
use mainspring::{
    Context, Dispatcher, Drained, Fault, Key, Limit, Net, Outcome, Produced, Protocol, Reactor, Reason, Refusal, Scope,
    Source as Descriptor,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// No role outlives it, whatever becomes of the process that asked for it.
const LIFE: Duration = Duration::from_secs(580);

/// What scripts/faults.sh prints.
fn figures(text: impl fmt::Display) {
    println!("\nfigures: {text}");
}

// --------------------------------------------------------------------------------------------------- what a server saw

/// What a server counts.
#[derive(Debug, Default)]
struct Tally {
    turns: usize,
    connected: usize,
    closed: usize,
    /// By kind; errors of the system by their number.
    ends: BTreeMap<String, usize>,
    keys: Vec<Key>,
    peers: Vec<TcpStream>,
}

impl Tally {
    fn end(&mut self, why: &Reason) {
        self.closed += 1;
        *self.ends.entry(kind(why)).or_default() += 1;
    }
}

fn kind(why: &Reason) -> String {
    let number = |errno: Option<i32>| errno.map_or_else(|| "?".into(), |errno| errno.to_string());
    match why {
        Reason::Io(error) => format!("io{}", number(error.raw_os_error())),
        Reason::Connect(error) => format!("connect{}", number(error.raw_os_error())),
        Reason::Finish => "finish".into(),
        Reason::Eof => "eof".into(),
        Reason::Limit(limit) => format!("{limit:?}"),
        other => format!("{other:?}").replace(char::is_whitespace, "_"),
    }
}

struct Echo;

impl Protocol<Tally> for Echo {
    fn connected(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        tally.end(&why);
    }
}

/// What a server in a role says of itself.
#[derive(Debug)]
struct Report {
    turns: usize,
    connected: usize,
    closed: usize,
    slots: usize,
    descriptors: usize,
    /// Bytes of the pages that it has written to.
    written: usize,
    ends: BTreeMap<String, usize>,
}

impl Report {
    fn of(net: &Net<'_, Tally>, tally: &Tally) -> Self {
        Self {
            turns: tally.turns,
            connected: tally.connected,
            closed: tally.closed,
            slots: slots(net),
            descriptors: descriptors(),
            written: written(),
            ends: tally.ends.clone(),
        }
    }

    fn parse(line: &str) -> Self {
        let mut numbers = HashMap::new();
        let mut ends = BTreeMap::new();
        for word in line.split_whitespace() {
            let (name, value) = word.split_once('=').expect("name=number");
            let value: usize = value.parse().expect("a number");
            match name.strip_prefix("end:") {
                Some(kind) => ends.insert(kind.into(), value),
                None => numbers.insert(name, value),
            };
        }
        let [turns, connected, closed, slots, descriptors, written] =
            ["turns", "connected", "closed", "slots", "descriptors", "written"].map(|name| numbers[name]);
        Self { turns, connected, closed, slots, descriptors, written, ends }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, connected, closed, slots, descriptors, written, ends } = self;
        write!(
            f,
            "turns={turns} connected={connected} closed={closed} slots={slots} descriptors={descriptors} written={written}"
        )?;
        ends.iter().try_for_each(|(kind, count)| write!(f, " end:{kind}={count}"))
    }
}

/// Connections, listeners and lingering sockets.
fn slots<S>(net: &Net<'_, S>) -> usize {
    let text = format!("{net:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("Debug shows the number of slots, and no other")
}

fn descriptors() -> usize {
    // One of them is the directory itself.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() - 1)
}

fn written() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok()).map_or(0, |kib| kib << 10)
}

// ---------------------------------------------------------------------------------------------------------------- roles

const ROLE: &str = "MAINSPRING_FAULTS_ROLE";
const AS_A_ROLE: [&str; 5] = ["--exact", "plays_a_role", "--ignored", "--nocapture", "--test-threads=1"];

/// This binary again, in a process of its own.
struct Player {
    child: Child,
    orders: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Player {
    fn new(role: &str) -> Self {
        Self::behind(&[], role)
    }

    /// Started by another program, which is given ours and its arguments behind its own.
    fn behind(starter: &[&str], role: &str) -> Self {
        Self::with(starter, role, &[])
    }

    fn with(starter: &[&str], role: &str, envs: &[(&str, &str)]) -> Self {
        let me = std::env::current_exe().expect("a program knows where it is");
        let mut words = starter.iter().map(std::ffi::OsStr::new).chain([me.as_os_str()]);
        let mut command = Command::new(words.next().expect("at least our own"));
        command.args(words).args(AS_A_ROLE).env(ROLE, role).envs(envs.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, orders, lines }
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("open until the end");
        writeln!(orders, "{order}").expect("it listens");
    }

    /// The rest of the next line that begins so; a role marks its lines, because the test harness prints too.
    #[track_caller]
    fn hear(&mut self, what: &str) -> String {
        let mut seen = String::new();
        loop {
            let at = seen.len();
            let count = self.lines.read_line(&mut seen).expect("text");
            assert!(count > 0, "it ended without a word of `{what}`: {seen}");
            if let Some(rest) = seen[at..].strip_prefix('@').and_then(|line| line.strip_prefix(what)) {
                return rest.trim().into();
            }
        }
    }

    fn addresses(&mut self) -> Vec<SocketAddr> {
        self.hear("at").split_whitespace().map(|at| at.parse().expect("an address")).collect()
    }

    #[track_caller]
    fn report(&mut self) -> Report {
        self.order("report");
        Report::parse(&self.hear("report"))
    }

    /// Asks again and again until it says so, or somebody loses patience.
    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Report) -> bool) -> Report {
        let began = Instant::now();
        loop {
            let report = self.report();
            if done(&report) {
                return report;
            }
            assert!(began.elapsed() < 3 * PATIENCE, "never: {what}: {report}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often its loop turns while nobody does anything, and in what time; the reports are among the turns.
    fn turns_in(&mut self, time: Duration) -> (usize, Duration) {
        let began = Instant::now();
        let before = self.report().turns;
        thread::sleep(time);
        (self.report().turns - before, began.elapsed())
    }

    /// Sends it home, and sees that it goes well.
    #[track_caller]
    fn dismiss(mut self) {
        self.orders = None;
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}: {rest}");
    }

    fn wait(mut self) -> (ExitStatus, String) {
        self.orders = None;
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it is our child"), rest)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.kill(); // it has gone already, or we have failed
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "a role that the other tests give to a process of its own"]
fn plays_a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    thread::spawn(|| {
        thread::sleep(LIFE);
        std::process::exit(86);
    });
    println!(); // the harness has begun a line
    let words: Vec<&str> = role.split_whitespace().collect();
    let number = |word: &str| word.parse::<usize>().expect("a number");
    match &words[..] {
        ["serve", at @ ..] => serve(at),
        ["call", at, count] => call(at, number(count)),
        ["tick"] => tick(),
        ["read", at] => read_all(at),
        ["crowd", at, first, idle, active] => crowd(at, number(first), number(idle), number(active)),
        ["churn", count, at @ ..] => churn(number(count), at),
        ["break-pipes", who, how] => break_pipes(who, how),
        _ => panic!("no such role: {role}"),
    }
}

/// An echo server that ends with its standard input, and must leave nothing behind.
fn serve(at: &[&str]) {
    let before = descriptors();
    let mut reactor = match Reactor::new() {
        Ok(reactor) => reactor,
        Err(error) => return println!("@error {error}"),
    };
    let mut addresses = String::new();
    for at in at {
        let mut net = reactor.net();
        match net.listen(*at, || Echo) {
            Ok(key) => addresses += &format!(" {}", net.local(key).expect("it listens")),
            Err(error) => return println!("@error {error}"),
        }
    }
    println!("@at{addresses}");
    let remote = reactor.remote();
    let listening = thread::spawn(move || {
        for order in std::io::stdin().lines() {
            assert_eq!(order.expect("text"), "report");
            let asked = remote.post(|net, tally: &mut Tally| println!("@report {}", Report::of(net, tally)));
            asked.expect("the reactor is there");
        }
        remote.stop().expect("the reactor is there");
    });
    let mut tally = Tally::default();
    while reactor.turn(&mut tally, None).expect("no peer can make the selector fail") {
        tally.turns += 1;
    }
    listening.join().expect("it does not fail");
    reactor.shutdown(&mut tally);
    assert_eq!(tally.connected, tally.closed, "each exactly once");
    drop(reactor);
    assert_eq!(descriptors(), before, "descriptors are left");
}

/// This many connections that we open; each says something, and goes when it has its answer.
fn call(at: &str, count: usize) {
    struct Caller;
    impl Protocol<Tally> for Caller {
        fn connected(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
            tally.connected += 1;
            ctx.send("hello");
            Ok(())
        }

        fn received(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally, _: &[u8]) -> Outcome {
            ctx.close();
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
            tally.end(&why);
        }
    }
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    for _ in 0..count {
        reactor.net().connect(at, Caller);
    }
    reactor.run(&mut tally).expect("no peer can make the selector fail");
    println!("@report {}", Report::of(&reactor.net(), &tally));
}

/// A hundred timers, none of which may be early.
fn tick() {
    let (mut reactor, mut fired) = (Reactor::<Vec<u64>>::new().expect("a selector"), Vec::new());
    for n in (1..=100).rev() {
        let (set_at, delay) = (Instant::now(), Duration::from_millis(n));
        reactor.net().after(delay, move |_, fired| {
            assert!(set_at.elapsed() >= delay, "a timer of {delay:?} came early");
            fired.push(n);
        });
    }
    reactor.run(&mut fired).expect("a signal is no failure");
    assert_eq!(fired.len(), 100);
    println!("@fired {}", fired.len());
}

/// Reads to the end of the stream.
fn read_all(at: &str) {
    let at: SocketAddr = at.parse().expect("an address");
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // Or the kernel, which lets a buffer grow with what is read from it, might take all for one that is stopped later.
    peer.set_recv_buffer_size(256 << 10).expect("a socket option");
    peer.connect(&at.into()).expect("somebody listens");
    let mut peer = TcpStream::from(peer);
    println!("@connected {}", std::process::id());
    let mut buf = vec![0; 64 << 10];
    let mut bytes = 0_usize;
    loop {
        match peer.read(&mut buf) {
            Ok(0) => return println!("@read {bytes}"),
            Ok(n) => {
                let is_right = buf[..n].iter().enumerate().all(|(at, byte)| *byte == sample(bytes + at));
                assert!(is_right, "other bytes than were sent, after {bytes}");
                bytes += n;
            }
            Err(error) => return println!("@lost {error}"),
        }
    }
}

/// The byte at a place of the stream that the tests send.
fn sample(at: usize) -> u8 {
    ((at * 31) ^ (at >> 8) ^ (at >> 16)) as u8
}

fn ping(mut peer: &TcpStream) -> std::io::Result<()> {
    peer.write_all(b"ping")?;
    let mut answer = [0; 4];
    peer.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

// --------------------------------------------------------------------------------------- errors injected by strace(1)

/// A process in a role, some of whose system calls fail.
struct Traced {
    player: Player,
    trace: std::path::PathBuf,
}

impl Traced {
    /// `calls` fail with `errno`, `when` as strace counts them; nothing if strace may not trace here, which is printed.
    fn new(role: &str, calls: &str, errno: &str, when: &str) -> Option<Self> {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let probe = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            skip("strace is not installed, or may not trace (ptrace(2))");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let trace = std::env::temp_dir().join(format!("mainspring-faults-{}-{number}", std::process::id()));
        let (file, traced) = (trace.to_string_lossy(), format!("trace={calls}"));
        let inject = format!("inject={calls}:error={errno}:when={when}");
        let strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", &file, "-e", "signal=none", "-e", &traced, "-e", &inject];
        Some(Self { player: Player::behind(&strace, role), trace })
    }

    fn lines(&self) -> Vec<String> {
        let trace = std::fs::read_to_string(&self.trace).expect("strace writes it");
        trace.lines().map(str::to_owned).collect()
    }

    fn injected(&self) -> usize {
        self.lines().iter().filter(|line| line.contains("(INJECTED)")).count()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.trace);
    }
}

const SERVE: &str = "serve 127.0.0.1:0";

/// The second selector asks the kernel otherwise.
fn has_epoll() -> bool {
    let has = !cfg!(mio_unsupported_force_poll_poll);
    if !has {
        skip("the second selector does not use epoll(7)");
    }
    has
}

#[test]
#[ignore = "takes strace"]
fn whoever_waits_is_accepted_after_each_error_of_accept() {
    // For want of descriptors it accepts once more, with the spare one: an even number, so that this fails too.
    let errors = [
        ("EMFILE", 4),
        ("ENFILE", 4),
        ("ENOBUFS", 3),
        ("ENOMEM", 3),
        ("ECONNABORTED", 3),
        ("EPERM", 3),
        ("EPROTO", 3),
        ("EINTR", 3),
        ("ENETDOWN", 3),
    ];
    for (errno, times) in errors {
        let Some(mut server) = Traced::new(SERVE, "accept4", errno, &format!("1..{times}")) else { return };
        let at = server.player.addresses()[0];
        let peers: Vec<TcpStream> = (0..10).map(|_| dial(at)).collect();
        for peer in &peers {
            ping(peer).unwrap_or_else(|error| panic!("after {errno}: {error}"));
        }
        drop(peers);
        let report = server.player.until("all are closed", |report| report.closed == 10);
        assert_eq!((report.connected, report.slots), (10, 1), "{errno}");
        assert_eq!(server.injected(), times, "{errno}");
    }
    figures("3 or 4 failures each of nine errors: 10 of 10 served each time");
}

/// No descriptors for good, or a policy that forbids accepting: the connection stays in the queue, and the loop must not spin.
#[test]
#[ignore = "takes strace"]
fn a_listener_that_can_never_accept_lets_the_loop_sleep() {
    // An error of the system is believed at once, one of a connection when a whole turn met nothing else: one accept and
    // two turns (the timer's, and the one that looks) for each look, for want of descriptors also one with the spare one, or one accept more than a turn may make and three turns.
    let errors = [("EMFILE", 2, 2), ("ENOBUFS", 1, 2), ("EPERM", 65, 3), ("EACCES", 65, 3)];
    let mut looks = Vec::new();
    for (errno, accepts_each, turns_each) in errors {
        let Some(mut server) = Traced::new(SERVE, "accept4", errno, "1+") else { return };
        let at = server.player.addresses()[0];
        let began = Instant::now();
        let _waiting = dial(at);
        thread::sleep(Duration::from_millis(300));
        let (turns, time) = server.player.turns_in(Duration::from_secs(2));
        let accepts = server.injected();
        looks.push(format!("{errno} {accepts} accepts, {turns} turns"));
        assert!(turns <= turns_each * looks_in(time) + REPORTS, "{errno}: {turns} turns in {time:?}");
        assert!((5..=accepts_each * looks_in(began.elapsed())).contains(&accepts), "{errno}: {accepts} accepts");
    }
    figures(format_args!("2 s of nothing but errors: {}", looks.join("; ")));
}

/// How often a listener that backs off looks again: ten times a second, the default of `Config`, and once to begin with.
fn looks_in(time: Duration) -> usize {
    1 + usize::try_from(time.as_millis() / 100).expect("seconds")
}

/// The turns that a report takes: it is a job of another thread.
const REPORTS: usize = 2;

#[test]
#[ignore = "takes strace"]
fn a_wait_that_is_interrupted_is_no_failure_and_no_timer_is_early() {
    if !has_epoll() {
        return;
    }
    let waits = "?epoll_wait,epoll_pwait,epoll_pwait2";
    let Some(mut server) = Traced::new("tick", waits, "EINTR", "1+2") else { return };
    assert_eq!(server.player.hear("fired"), "100");
    let ticking = server.injected();
    let Some(mut server) = Traced::new(SERVE, waits, "EINTR", "1+2") else { return };
    let at = server.player.addresses()[0];
    let peers: Vec<TcpStream> = (0..10).map(|_| dial(at)).collect();
    for _ in 0..10 {
        peers.iter().for_each(|peer| ping(peer).expect("the server goes on"));
    }
    drop(peers);
    server.player.until("all are closed", |report| report.closed == 10);
    let serving = server.injected();
    assert!(ticking > 10 && serving > 10, "{ticking} and {serving} waits were interrupted");
    figures(format_args!("{ticking} interrupted waits among 100 timers, none early; {serving} among 100 echoes, none lost"));
}

/// One connection is ended by it, with its errno; the others do not notice.
#[test]
#[ignore = "takes strace"]
fn an_error_of_reading_or_writing_ends_one_connection() {
    let errors = [
        ("recvfrom", "ECONNRESET", 104),
        ("recvfrom", "ETIMEDOUT", 110),
        ("recvfrom", "EHOSTUNREACH", 113),
        ("recvfrom", "ENOMEM", 12),
        ("sendto", "EPIPE", 32),
        ("sendto", "ECONNRESET", 104),
        ("sendto", "ENOBUFS", 105),
        ("sendto", "ETIMEDOUT", 110),
    ];
    for (call, errno, number) in errors {
        // Under poll(2) the first connection reads once more, to meet `WouldBlock`.
        let second = if call == "recvfrom" && cfg!(mio_unsupported_force_poll_poll) { "3" } else { "2" };
        let Some(mut server) = Traced::new(SERVE, call, errno, second) else { return };
        let at = server.player.addresses()[0];
        let peers: Vec<TcpStream> = (0..3).map(|_| dial(at)).collect();
        ping(&peers[0]).expect("the first call works");
        assert!(ping(&peers[1]).is_err(), "{call} {errno}");
        ping(&peers[2]).expect("another connection");
        ping(&peers[0]).expect("another connection");
        assert_eq!(server.player.report().ends, BTreeMap::from([(format!("io{number}"), 1)]), "{call} {errno}");
        drop(peers);
        let report = server.player.until("all are closed", |report| report.closed == 3);
        assert_eq!((report.connected, report.slots), (3, 1), "{call} {errno}");
        assert_eq!(server.injected(), 1);
    }
    let names: Vec<String> = errors.iter().map(|(call, errno, _)| format!("{call} {errno}")).collect();
    figures(format_args!("{}: 1 of 3 connections ended by it, once, each time", names.join(", ")));
}

#[test]
#[ignore = "takes strace"]
fn an_interrupted_read_or_write_is_tried_again() {
    for call in ["recvfrom", "sendto"] {
        let Some(mut server) = Traced::new(SERVE, call, "EINTR", "1..5") else { return };
        let at = server.player.addresses()[0];
        let peers: Vec<TcpStream> = (0..3).map(|_| dial(at)).collect();
        peers.iter().for_each(|peer| ping(peer).expect("the server tries again"));
        assert_eq!(server.player.report().closed, 0);
        assert_eq!(server.injected(), 5);
    }
    figures("5 interrupted reads, 5 interrupted writes: 3 of 3 answered each time");
}

/// /proc/sys/fs/epoll/max_user_watches: what cannot be watched cannot be served.
#[test]
#[ignore = "takes strace"]
fn a_connection_that_cannot_be_registered_is_closed_and_the_next_one_served() {
    if !has_epoll() {
        return;
    }
    // The waker and the listener come before it.
    let Some(mut server) = Traced::new(SERVE, "epoll_ctl", "ENOSPC", "3") else { return };
    let at = server.player.addresses()[0];
    let unlucky = dial(at);
    assert!(ping(&unlucky).is_err());
    let peers: Vec<TcpStream> = (0..3).map(|_| dial(at)).collect();
    peers.iter().for_each(|peer| ping(peer).expect("served after the back-off"));
    assert_eq!(server.player.report().connected, 3);
    assert_eq!(server.injected(), 1);

    let Some(mut deaf) = Traced::new(SERVE, "epoll_ctl", "ENOSPC", "2") else { return };
    let error = deaf.player.hear("error");
    assert!(error.starts_with("cannot listen on 127.0.0.1:0: "), "{error}");

    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let role = format!("call {} 1", server.local_addr().expect("bound"));
    let Some(mut caller) = Traced::new(&role, "epoll_ctl", "ENOSPC", "2") else { return };
    let report = Report::parse(&caller.player.hear("report"));
    assert_eq!((report.connected, report.ends), (0, BTreeMap::from([("connect28".into(), 1)])));
    figures("epoll_ctl ENOSPC: an accepted one closed and 3 of 3 others served, `listen` an error, `connect` closed(Connect)");
}

#[test]
#[ignore = "takes strace"]
fn what_cannot_be_connected_is_closed_alone_with_its_errno() {
    let errors = [
        ("socket", "EMFILE", 24),
        ("socket", "ENFILE", 23),
        ("socket", "ENOBUFS", 105),
        ("connect", "ENETUNREACH", 101),
        ("connect", "EADDRNOTAVAIL", 99),
        ("connect", "EPERM", 1),
    ];
    let mut server = Player::new(SERVE);
    let at = server.addresses()[0];
    for (call, errno, number) in errors {
        let Some(mut caller) = Traced::new(&format!("call {at} 5"), call, errno, "1..2") else { return };
        let report = Report::parse(&caller.player.hear("report"));
        let ends = BTreeMap::from([(format!("connect{number}"), 2), ("finish".into(), 3)]);
        assert_eq!((report.connected, report.closed, report.ends), (3, 5, ends), "{call} {errno}");
        assert_eq!(caller.injected(), 2);
    }
    let Some(mut caller) = Traced::new(&format!("call {at} 5"), "shutdown", "ENOTCONN", "1+") else { return };
    let report = Report::parse(&caller.player.hear("report"));
    assert_eq!((report.connected, report.ends), (5, BTreeMap::from([("finish".into(), 5)])));
    assert_eq!(caller.injected(), 5);
    server.until("all are closed", |report| report.closed == report.connected && report.slots == 1);
    server.dismiss();
    let names: Vec<String> = errors.iter().map(|(call, errno, _)| format!("{call} {errno}")).collect();
    figures(format_args!("{}: 2 of 5 closed by it, 3 of 5 answered, each time; shutdown ENOTCONN: no harm", names.join(", ")));
}

#[test]
#[ignore = "takes strace"]
fn a_reactor_that_gets_no_descriptors_is_an_error() {
    if !has_epoll() {
        return;
    }
    for call in ["eventfd2", "epoll_create1", "socket", "bind", "listen"] {
        let Some(mut server) = Traced::new(SERVE, call, "EMFILE", "1") else { return };
        let error = server.player.hear("error");
        assert!(error.contains("Too many open files"), "{call}: {error}");
        assert_eq!(server.injected(), 1);
    }
    figures("EMFILE of eventfd2, epoll_create1, socket, bind, listen: an error of `new` or `listen`");
}

// ----------------------------------------------------------------------------------------------------- few descriptors

/// What became of a client: an answer, or an end without one.
fn is_answered(peer: &TcpStream) -> bool {
    let mut answer = [0; 4];
    match (&*peer).read(&mut answer) {
        Ok(4) => {
            assert_eq!(&answer, b"ping");
            true
        }
        Ok(n) => {
            assert_eq!(n, 0, "an answer or an end");
            false
        }
        Err(error) => {
            assert!(error.kind() != ErrorKind::WouldBlock, "it hangs: {error}");
            false
        }
    }
}

#[test]
fn of_500_clients_a_server_with_64_descriptors_serves_some_closes_the_rest_and_sleeps() {
    const CLIENTS: usize = 500;
    if !has_room_for(CLIENTS + 100) {
        return;
    }
    let limited = ["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""];
    let mut server = Player::behind(&limited, SERVE);
    let at = server.addresses()[0];
    let mut peers: Vec<TcpStream> = (0..CLIENTS).map(|_| dial(at)).collect();
    for mut peer in &peers {
        let _ = peer.write_all(b"ping"); // some have been closed already
    }
    let began = Instant::now();
    peers.retain(is_answered);
    let (served, time) = (peers.len(), began.elapsed());
    let full = server.report();
    assert_eq!((full.connected, full.closed), (served, 0), "{full}");
    assert!((40..64).contains(&served), "{served} connections with 64 descriptors: {full}");
    let (turns, quiet) = server.turns_in(Duration::from_millis(500));
    assert!(turns <= REPORTS, "{turns} turns in {quiet:?} in which nothing happens");

    // Whoever comes while there is no descriptor is told, also after the loop has slept.
    assert!(!is_answered(&dial(at)), "there is no descriptor");
    drop(peers);
    server.until("all are closed", |report| report.closed == served);
    let peer = dial(at);
    ping(&peer).expect("service has resumed");
    drop(peer);
    server.until("the last is closed", |report| report.closed == served + 1);
    server.dismiss();
    figures(format_args!(
        "{served} of 500 served, the others closed, all told within {} ms; then served again",
        time.as_millis()
    ));
}

// --------------------------------------------------------------------------------------------------- peers that stop

/// Sends this many samples as the peer takes them, then closes.
struct Source {
    sent: usize,
    end: usize,
    stall_timeout: Option<Duration>,
}

impl Source {
    fn send_on(&mut self, ctx: &mut Context<'_, Tally>) -> Outcome {
        while !ctx.is_congested() && self.sent < self.end {
            let next = self.end.min(self.sent + (16 << 10));
            ctx.send((self.sent..next).map(sample).collect::<Vec<u8>>());
            self.sent = next;
        }
        if self.sent == self.end {
            ctx.close();
        }
        Ok(())
    }
}

impl Protocol<Tally> for Source {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        ctx.set_stall_timeout(self.stall_timeout);
        self.send_on(ctx)
    }

    fn writable(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally) -> Outcome {
        self.send_on(ctx)
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        tally.end(&why);
    }
}

/// A reader that can be stopped, and is killed all the same if we do not come back to it.
fn stoppable(at: SocketAddr) -> (Player, u32) {
    let mut reader = Player::behind(&["timeout", "--foreground", "-s", "KILL", "120"], &format!("read {at}"));
    let pid = reader.hear("connected").parse().expect("a process");
    (reader, pid)
}

/// By kill(1), and waits until it is so.
fn signal(pid: u32, name: &str, state: char) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("a shell");
    assert!(sent.success(), "it is our child");
    let began = Instant::now();
    let is_so = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T') == (state == 'T'))
    };
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{pid} does not take SIG{name}");
        thread::yield_now();
    }
}

#[test]
fn a_peer_that_is_stopped_costs_nothing_and_gets_everything_when_it_goes_on() {
    const BYTES: usize = 32 << 20;
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let (_, at) = listen(&mut reactor, || Source { sent: 0, end: BYTES, stall_timeout: None });
    let (_, echo_at) = listen(&mut reactor, || Echo);
    let pinger = dial(echo_at);
    pinger.set_nonblocking(true).expect("a socket option");
    let (mut reader, pid) = stoppable(at);
    signal(pid, "STOP", 'T');
    until(&mut reactor, &mut tally, |tally| tally.connected == 2);
    // Until the kernel takes no more: a turn that waits for long then comes to nothing.
    let began = Instant::now();
    let slept = loop {
        let before = Instant::now();
        reactor.turn(&mut tally, Duration::from_millis(100)).expect("the selector works");
        if before.elapsed() >= Duration::from_millis(100) {
            break before.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "the loop does not come to rest");
    };
    assert_eq!(tally.ends, BTreeMap::new(), "it is only slow");
    for _ in 0..10 {
        (&pinger).write_all(b"ping").expect("room in an empty buffer");
        until(&mut reactor, &mut tally, |_| (&pinger).read(&mut [0; 4]).is_ok());
    }
    assert_eq!(tally.ends, BTreeMap::new(), "it is only slow");
    signal(pid, "CONT", '-');
    until(&mut reactor, &mut tally, |tally| tally.closed == 1);
    assert_eq!(tally.ends, BTreeMap::from([("finish".into(), 1)]));
    // It lingers: the end of the stream leaves behind the last byte.
    let reading = thread::spawn(move || (reader.hear("read"), reader.dismiss()).0);
    until(&mut reactor, &mut tally, |_| reading.is_finished());
    assert_eq!(reading.join().expect("every byte is right"), BYTES.to_string());
    figures(format_args!(
        "10 others answered meanwhile, the loop slept {} ms at once, {BYTES} of {BYTES} bytes",
        slept.as_millis()
    ));
}

#[test]
fn a_peer_that_is_stopped_for_longer_than_the_stall_time_out_is_given_up() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let stall_timeout = Some(Duration::from_millis(100));
    let (_, at) = listen(&mut reactor, move || Source { sent: 0, end: 64 << 20, stall_timeout });
    let (mut reader, pid) = stoppable(at);
    signal(pid, "STOP", 'T');
    until(&mut reactor, &mut tally, |tally| tally.closed == 1);
    assert_eq!(tally.ends, BTreeMap::from([(format!("{:?}", Limit::Stalled), 1)]));
    signal(pid, "CONT", '-');
    let error = reader.hear("lost");
    assert!(error.contains("reset"), "it must not take the rest for the end: {error}");
    reader.dismiss();
}

// ------------------------------------------------------------------------------------------------------ nothing to be done

/// Only reads, and has nothing to read; `writable` is the default one.
struct Drainer(std::os::unix::net::UnixStream);

impl Dispatcher<usize> for Drainer {
    fn source(&mut self) -> Descriptor<'_> {
        Descriptor::Fd(self.0.as_fd())
    }

    fn readable(&mut self, _: &mut Scope<'_, usize>, calls: &mut usize) -> Result<Drained, Fault> {
        *calls += 1;
        Ok(Drained::Yes)
    }
}

/// A descriptor with room to write is ready for ever; a selector that goes by levels must not say so for ever.
#[test]
fn a_dispatcher_that_only_reads_and_has_nothing_to_read_lets_the_loop_sleep() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors");
    ours.set_nonblocking(true).expect("a socket option");
    let (mut reactor, mut calls) = (Reactor::new().expect("a selector"), 0);
    reactor.net().watch(Drainer(ours)).expect("a socket can be watched");
    let nap = Duration::from_millis(2);
    let naps = (0..50).filter(|_| {
        let began = Instant::now();
        reactor.turn(&mut calls, nap).expect("the selector works");
        began.elapsed() >= nap
    });
    // The first turns tell it that it is there.
    assert!(naps.count() >= 45, "the loop does not sleep, without anything happening");
}

// ------------------------------------------------------------------------------------------------------- connections killed

#[test]
#[ignore = "takes ss(8) and the right to use it"]
fn connections_that_the_kernel_kills_are_closed_once_each_and_the_others_live() {
    const COUNT: usize = 300;
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let (_, at) = listen(&mut reactor, || Echo);
    let peers: Vec<TcpStream> = (0..COUNT).map(|_| dial(at)).collect();
    until(&mut reactor, &mut tally, |tally| tally.connected == COUNT);
    let port_of = |peer: &TcpStream| peer.local_addr().expect("connected").port();
    // A hundred by the server's end, a hundred by the client's: an abort here, a reset from there.
    for (range, own, other) in [(0..100, "sport", "dport"), (100..200, "dport", "sport")] {
        for chunk in peers[range].chunks(20) {
            let peers: Vec<String> = chunk.iter().map(|peer| format!("{other} = :{}", port_of(peer))).collect();
            let filter = format!("src 127.0.0.1 and dst 127.0.0.1 and {own} = :{} and ( {} )", at.port(), peers.join(" or "));
            let killed = Command::new("ss").args(["-K", "-t", "-n", "state", "established", &filter]).output();
            if !killed.is_ok_and(|output| output.status.success()) {
                return skip("ss is not installed, or fails");
            }
        }
        if own == "sport" {
            for _ in 0..20 {
                reactor.turn(&mut tally, Duration::from_millis(10)).expect("the selector works");
            }
            if tally.closed == 0 {
                return skip("ss -K kills nothing here (no CAP_NET_ADMIN, or no CONFIG_INET_DIAG_DESTROY)");
            }
        }
    }
    until(&mut reactor, &mut tally, |tally| tally.closed == 200);
    assert_eq!(tally.ends, BTreeMap::from([("io103".into(), 100), ("io104".into(), 100)]));
    for peer in &peers[200..] {
        peer.set_nonblocking(true).expect("a socket option");
        say(peer, "ping");
    }
    let mut answered = vec![false; 100];
    until(&mut reactor, &mut tally, |_| {
        for (mut peer, is_answered) in peers[200..].iter().zip(&mut answered) {
            *is_answered |= peer.read(&mut [0; 4]).is_ok();
        }
        answered.iter().all(|is_answered| *is_answered)
    });
    drop(peers);
    until_net(&mut reactor, &mut tally, |net, tally| tally.closed == COUNT && slots(net) == 1);
    figures("200 of 300 killed: 100 closed(ECONNABORTED), 100 closed(ECONNRESET), each once; 100 of 100 others answered");
}

#[test]
fn a_thousand_connections_reset_at_any_stage_are_closed_once_each() {
    flood(1000);
}

#[test]
#[ignore = "takes seconds"]
fn ten_thousand_connections_reset_at_any_stage_are_closed_once_each() {
    flood(10_000);
}

fn flood(count: usize) {
    const WAVE: usize = 250;
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let (_, at) = listen(&mut reactor, || Echo);
    let before = descriptors();
    for wave in 1..=count / WAVE {
        // Before it is accepted, with nothing or something to read; once in, with an answer that nobody reads.
        let mut inside = Vec::new();
        for n in 0..WAVE {
            let peer = dial(at);
            match n % 4 {
                0 => reset(peer),
                1 => {
                    say(&peer, "something that is never answered");
                    reset(peer);
                }
                2 => {
                    say(&peer, "last words");
                    peer.shutdown(Shutdown::Write).expect("connected");
                    reset(peer);
                }
                _ => {
                    say(&peer, "something that is answered");
                    inside.push(peer);
                }
            }
        }
        until(&mut reactor, &mut tally, |tally| tally.connected == wave * WAVE);
        inside.into_iter().for_each(reset);
        until_net(&mut reactor, &mut tally, |net, tally| tally.closed == wave * WAVE && slots(net) == 1);
    }
    let known = ["eof", "io104", "io32"];
    assert!(tally.ends.keys().all(|kind| known.contains(&kind.as_str())), "{:?}", tally.ends);
    assert_eq!(descriptors(), before, "descriptors are left");
    let peer = dial(at);
    peer.set_nonblocking(true).expect("a socket option");
    say(&peer, "ping");
    until(&mut reactor, &mut tally, |_| (&peer).read(&mut [0; 4]).is_ok());
    figures(format_args!("{count} connected, {} closed, {:?}, no descriptor left", tally.closed, tally.ends));
}

// --------------------------------------------------------------------------------------------------------- tiny buffers

/// With the smallest buffers that the kernel grants.
struct Tiny;

impl Protocol<Tally> for Tiny {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        tally.keys.push(ctx.key);
        let shrunk = ctx.link().with_socket(|socket| tiny(&socket));
        Ok(shrunk.expect("it has a socket")?)
    }

    fn received(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        tally.end(&why);
    }
}

fn tiny(socket: &socket2::Socket) -> std::io::Result<()> {
    socket.set_send_buffer_size(4 << 10)?;
    socket.set_recv_buffer_size(4 << 10)
}

#[test]
fn with_buffers_of_4_kib_at_both_ends_128_kib_come_back_once_and_in_order() {
    squeeze(128 << 10);
}

#[test]
#[ignore = "takes half a minute: the kernel waits for room, by its timers"]
fn with_buffers_of_4_kib_at_both_ends_1_mib_comes_back_once_and_in_order() {
    squeeze(1 << 20);
}

fn squeeze(bytes: usize) {
    // The high mark, and one read: the defaults of `Config`.
    const QUEUED_MAX: usize = (64 << 10) + (64 << 10);
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let (_, at) = listen(&mut reactor, || Tiny);
    let mut peers = Vec::new();
    for _ in 0..4 {
        let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        tiny(&peer).expect("socket options");
        peer.connect(&at.into()).expect("somebody listens");
        peer.set_nonblocking(true).expect("a socket option");
        peers.push((TcpStream::from(peer), 0, 0));
    }
    let (mut buf, mut most) = (vec![0; 64 << 10], 0);
    let (mut turns, began) = (0_usize, Instant::now());
    while peers.iter().any(|(_, _, back)| *back < bytes) {
        assert!(began.elapsed() < 3 * PATIENCE, "it stands still: {peers:?}");
        reactor.turn(&mut tally, Duration::ZERO).expect("the selector works");
        turns += 1;
        for (n, (peer, sent, back)) in peers.iter_mut().enumerate() {
            let end = bytes.min(*sent + 8192);
            let piece: Vec<u8> = (*sent..end).map(sample).collect();
            *sent += peer.write(&piece).or_else(would_block).expect("connected");
            // They are slow by turns, so that the echo is congested now and then.
            if (turns >> 6) % 4 != n {
                let got = peer.read(&mut buf).or_else(would_block).expect("connected");
                let is_right = buf[..got].iter().enumerate().all(|(at, byte)| *byte == sample(*back + at));
                assert!(is_right, "other bytes than were sent, after {back}");
                *back += got;
            }
        }
        let mut net = reactor.net();
        let queues = tally.keys.iter().filter_map(|key| net.link(*key).map(|link| link.queued()));
        most = queues.fold(most, usize::max);
    }
    assert!(most <= QUEUED_MAX, "{most} bytes were queued");
    assert!(most > 0, "nothing ever had to wait");
    drop(peers);
    until(&mut reactor, &mut tally, |tally| tally.closed == 4);
    assert!(tally.ends.keys().all(|kind| kind == "eof" || kind == "io104"), "{:?}", tally.ends);
    figures(format_args!("4 times {bytes} bytes came back, {most} bytes queued at most in the server"));
}

fn would_block(error: std::io::Error) -> std::io::Result<usize> {
    if error.kind() == ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

// -------------------------------------------------------------------------------------------------------------- SIGPIPE

/// Writes to peers that have just gone, in the way that their first byte names.
struct Breaker;

const WAYS: usize = 6;

impl Protocol<Tally> for Breaker {
    fn connected(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally, bytes: &[u8]) -> Outcome {
        let is_ours = |peer: &TcpStream| peer.local_addr().ok() == ctx.peer().ip();
        let peer = tally.peers.iter().position(is_ours).expect("it said something");
        break_off(tally.peers.swap_remove(peer));
        let shared: Rc<[u8]> = vec![b's'; 4096].into();
        match usize::from(bytes[0]) % WAYS {
            0 => ctx.send("at once"),
            1 => (0..3).for_each(|_| ctx.send_shared(&shared)),
            2 => ctx.produce(|out: &mut Vec<u8>| {
                out.extend_from_slice(b"produced");
                Ok(Produced::Done)
            }),
            3 => {
                ctx.send("before a FIN");
                ctx.half_close();
            }
            4 => {
                ctx.send("before the end");
                ctx.close();
            }
            _ => {
                ctx.send("one last write");
                return Err("failed".into());
            }
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        tally.end(&why);
    }
}

/// A FIN, then a reset: the next write finds EPIPE, which is what raises the signal (send(2)).
fn break_off(peer: TcpStream) {
    peer.shutdown(Shutdown::Write).expect("connected");
    reset(peer);
}

/// Writes to peers that have gone: the `loop`, or `std` by a plain writev(2), to show that the signal would be noticed.
/// It is `watched` by a handler, or has its `default` action, which is death.
fn break_pipes(who: &str, how: &str) {
    let raised = Arc::new(AtomicBool::new(false));
    match how {
        "watched" => _ = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&raised)).expect("a handler"),
        _ => assert!(sigpipe_is_deadly(), "somebody ignores or handles SIGPIPE"),
    }
    let broken = match who {
        "loop" => break_pipes_of_the_loop(),
        _ => break_a_pipe_of_std(),
    };
    println!("@pipes {broken} {}", raised.load(Ordering::SeqCst));
}

fn sigpipe_is_deadly() -> bool {
    // Of this thread: the main one blocks every signal while it starts another.
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc(5)");
    let has = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5)");
        u64::from_str_radix(mask.trim(), 16).expect("a mask") & (1 << (signal_hook::consts::SIGPIPE - 1)) != 0
    };
    !has("SigIgn:") && !has("SigCgt:") && !has("SigBlk:")
}

fn break_pipes_of_the_loop() -> usize {
    const COUNT: usize = 10 * WAYS;
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let (_, at) = listen(&mut reactor, || Breaker);
    let refuse = |_: &mut Net<'_, Tally>, tally: &mut Tally, _: &mainspring::Address| {
        break_off(tally.peers.pop().expect("the last that connected"));
        Err::<Breaker, _>(Refusal::from("not you"))
    };
    let refusing = reactor.net().listen_with("127.0.0.1:0", mainspring::Listen::new(), refuse).expect("a free port");
    let refusing = reactor.net().local(refusing).and_then(|at| at.ip()).expect("an IP listener");
    for n in 0..COUNT {
        let peer = dial(at);
        say(&peer, [n as u8]);
        tally.peers.push(peer);
    }
    until(&mut reactor, &mut tally, |tally| tally.closed == COUNT);
    for _ in 0..10 {
        tally.peers.push(dial(refusing));
        until(&mut reactor, &mut tally, |tally| tally.peers.is_empty());
    }
    until_net(&mut reactor, &mut tally, |net, _| slots(net) == 2);
    tally.ends.get("io32").copied().unwrap_or_default()
}

fn break_a_pipe_of_std() -> usize {
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = dial(door.local_addr().expect("bound"));
    let (mut guest, _) = door.accept().expect("it is connected");
    break_off(peer);
    usize::from(guest.write_vectored(&[IoSlice::new(b"one"), IoSlice::new(b"two")]).is_err())
}

/// How many writes found nobody, and whether that was a signal.
fn pipes_broken(player: &mut Player) -> (usize, bool) {
    let said = player.hear("pipes");
    let (broken, raised) = said.split_once(' ').expect("two words");
    (broken.parse().expect("a number"), raised == "true")
}

#[test]
fn writing_to_peers_that_have_gone_raises_no_signal() {
    let (broken, raised) = pipes_broken(&mut Player::new("break-pipes loop watched"));
    assert!(broken >= 20, "only {broken} writes found nobody");
    assert!(!raised, "SIGPIPE");
    let (broken, raised) = pipes_broken(&mut Player::new("break-pipes std watched"));
    assert_eq!((broken, raised), (1, true), "a plain writev does raise it, and is seen to");
}

/// scripts/faults.sh compiles the C program, which hands its default of SIGPIPE on.
#[test]
#[ignore = "takes a C compiler"]
fn a_c_program_that_embeds_the_loop_survives_writing_to_peers_that_have_gone() {
    let Ok(host) = std::env::var("MAINSPRING_C_HOST") else { return skip("scripts/faults.sh sets MAINSPRING_C_HOST") };
    let mut player = Player::behind(&[&host], "break-pipes loop default");
    let (broken, _) = pipes_broken(&mut player);
    assert!(broken >= 20, "only {broken} writes found nobody");
    player.dismiss();
    let (status, said) = Player::behind(&[&host], "break-pipes std default").wait();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(signal_hook::consts::SIGPIPE), "a plain writev does kill it: {said}");
    figures(format_args!(
        "{broken} writes to nobody in {WAYS} ways survived; a plain writev in the same host was killed by SIGPIPE"
    ));
}

// ------------------------------------------------------------------------------------------------------------------ many

/// From one of several addresses of the loopback: each has ports of its own.
fn dial_from(source: Ipv4Addr, at: SocketAddr) -> TcpStream {
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("descriptors are left");
    peer.bind(&SocketAddr::new(IpAddr::V4(source), 0).into()).expect("a free port");
    peer.connect(&at.into()).expect("somebody listens");
    let peer = TcpStream::from(peer);
    peer.set_read_timeout(Some(3 * PATIENCE)).expect("a socket option");
    peer.set_nodelay(true).expect("a socket option");
    peer
}

/// Many connections that do nothing, and some that do.
fn crowd(at: &str, first_source: usize, idle: usize, active: usize) {
    const SOURCES: usize = 4;
    let at: SocketAddr = at.parse().expect("an address");
    let source = |n: usize| Ipv4Addr::new(127, 0, 0, (first_source + n % SOURCES) as u8);
    let sockets: Vec<TcpStream> = (0..idle + active).map(|n| dial_from(source(n), at)).collect();
    let (idle, active) = sockets.split_at(idle);
    println!("@in {}", sockets.len());
    for order in std::io::stdin().lines() {
        let order = order.expect("text");
        let (said_by, rounds) = match order.split_once(' ') {
            Some(("echo", rounds)) => (active, rounds.parse().expect("a number")),
            _ => (idle, 1),
        };
        let mut echoes = 0;
        for _ in 0..rounds {
            said_by.iter().for_each(|peer| say(peer, "ping"));
            for mut peer in said_by {
                let mut answer = [0; 4];
                peer.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"ping");
                echoes += 1;
            }
        }
        println!("@echoed {echoes}");
    }
    for (n, peer) in sockets.into_iter().enumerate() {
        // One in sixteen ends with a FIN, and keeps its port for a minute.
        if n % 16 > 0 {
            reset(peer);
        }
    }
}

#[test]
#[ignore = "takes 18,600 descriptors in a process"]
fn with_18_000_connections_held_500_others_are_served_and_all_of_it_is_given_back() {
    const IDLE: usize = 18_000;
    const ACTIVE: usize = 500;
    const ROUNDS: usize = 200;
    if !has_room_for(IDLE + ACTIVE + 100) {
        return;
    }
    let mut server = Player::new(SERVE);
    let at = server.addresses()[0];
    let before = server.report();
    let role = |first_source| format!("crowd {at} {first_source} {} {}", IDLE / 2, ACTIVE / 2);
    let mut crowds = [1, 11].map(|first_source| Player::new(&role(first_source)));
    crowds.iter_mut().for_each(|crowd| assert_eq!(crowd.hear("in"), ((IDLE + ACTIVE) / 2).to_string()));
    let full = server.until("all are in", |report| report.connected == IDLE + ACTIVE);
    assert_eq!((full.slots, full.closed), (IDLE + ACTIVE + 1, 0));

    let count = |crowds: &mut [Player; 2], order: &str| {
        crowds.iter_mut().for_each(|crowd| crowd.order(order));
        crowds.iter_mut().map(|crowd| crowd.hear("echoed").parse::<usize>().expect("a number")).sum::<usize>()
    };
    assert_eq!(count(&mut crowds, &format!("echo {ROUNDS}")), ACTIVE * ROUNDS);
    let (turns, _) = server.turns_in(Duration::from_secs(1));
    assert!(turns <= REPORTS, "{turns} turns in a second in which nobody says anything");
    assert_eq!(count(&mut crowds, "wake"), IDLE, "each of the silent ones is still served");
    crowds.into_iter().for_each(Player::dismiss);
    let after = server.until("all are closed", |report| report.closed == IDLE + ACTIVE && report.slots == 1);
    assert_eq!(after.descriptors, before.descriptors, "descriptors are left");
    let each = (full.written - before.written) / (IDLE + ACTIVE);
    let kept = after.written.saturating_sub(before.written) >> 10;
    server.dismiss();
    figures(format_args!(
        "{} held at once, {each} bytes each; {} echoes of {ACTIVE} active ones; {turns} turns in a silent second; then {IDLE} \
         of {IDLE} silent ones answered; when all had closed, 0 descriptors and {kept} KiB more than before",
        IDLE + ACTIVE,
        ACTIVE * ROUNDS
    ));
}

/// One after the other: connects, says something or nothing, gets its answer or does not wait for it, ends or resets.
fn churn(count: usize, at: &[&str]) {
    let at: Vec<SocketAddr> = at.iter().map(|at| at.parse().expect("an address")).collect();
    let (mut answered, mut resets) = (0, 0);
    for n in 0..count {
        let peer = dial(at[n % at.len()]);
        let is_answered = !matches!(n % 16, 1..=4);
        if is_answered {
            ping(&peer).expect("an answer");
            answered += 1;
        } else if n % 2 == 0 {
            say(&peer, "who waits for an answer?");
        }
        // One in sixteen ends with a FIN, and keeps its port for a minute.
        if n % 16 > 0 {
            reset(peer);
            resets += 1;
        }
    }
    println!("@done {answered} {resets}");
}

#[test]
#[ignore = "takes a minute"]
fn of_300_000_connections_each_that_was_opened_was_closed() {
    const COUNT: usize = 300_000;
    const PLAYERS: usize = 2;
    let mut server = Player::new("serve 127.0.0.1:0 127.0.0.2:0 127.0.0.3:0 127.0.0.4:0");
    let addresses = server.addresses();
    let before = server.report();
    let at: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let role = format!("churn {} {}", COUNT / PLAYERS, at.join(" "));
    let mut players: Vec<Player> = (0..PLAYERS).map(|_| Player::new(&role)).collect();
    let (mut answered, mut resets) = (0, 0);
    for player in &mut players {
        let done = player.hear("done");
        let (n, m) = done.split_once(' ').expect("two numbers");
        answered += n.parse::<usize>().expect("a number");
        resets += m.parse::<usize>().expect("a number");
    }
    players.into_iter().for_each(Player::dismiss);
    let after = server.until("all are closed", |report| report.closed == COUNT && report.slots == before.slots);
    assert_eq!(after.connected, COUNT);
    assert_eq!(after.descriptors, before.descriptors, "descriptors are left");
    let kept = after.written.saturating_sub(before.written) >> 10;
    server.dismiss();
    figures(format_args!(
        "{} opened, {} closed ({} by FIN, {resets} by RST), {answered} answered, 0 descriptors and {kept} KiB more than before, \
         {:?}",
        after.connected,
        after.closed,
        COUNT - resets,
        after.ends
    ));
}
