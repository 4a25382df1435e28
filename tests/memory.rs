//! What an idle connection costs, and that it is given back.
//!
//! Counted in the pages that a process has written to (`Private_Dirty` of /proc/self/smaps_rollup, proc(5)), because
//! counting allocations would take an allocator of our own. Divided by thousands of connections a page is nothing; what
//! counts is what the heap really takes, the allocator's own share included. So the server is a process of its own, with
//! an allocator that gives back what is free, and its clients are another.
//!
//! The same binary plays the servers that scripts/strace_bars.sh traces.

#[path = "common/skips.rs"]
#[allow(dead_code)] // a part of it
mod skips;
#[cfg(feature = "tls")]
#[path = "common/tls.rs"]
mod tls;
#[path = "common/uninterrupted.rs"]
mod uninterrupted;

use mainspring::{
    Address, Config, Context, Datagram, Key, Net, Outcome, Produced, Protocol, Reactor, Reason, Refusal, Scope, Timer,
};
use std::{
    collections::HashMap,
    io::{BufRead, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};
use uninterrupted::uninterrupted;

/// Nothing is waited for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// With the listener a power of two: a table that has just doubled would be charged for room that it does not use.
const CONNECTIONS: usize = 8191;

/// What an idle connection may cost, in bytes, besides its protocol's own; the one here has nothing.
const BYTES_MAX: usize = 220;

/// The same of a datagram socket; this many, a power of two, are bound.
const DATAGRAM_SOCKET_BYTES_MAX: usize = 400;
const DATAGRAM_SOCKETS: usize = 8192;

/// The same of an adopted stream that is read by one pipe and written to by another; this many, a power of two.
const PIPES_BYTES_MAX: usize = 420;
const PIPES: usize = 2048;

/// The same of a connection over TLS, of which rustls and its cipher take all but the 220 and what stands between; this
/// many, with the listener a power of two.
#[cfg(feature = "tls")]
const TLS_BYTES_MAX: usize = 4200;
#[cfg(feature = "tls")]
const TLS_CONNECTIONS: usize = 2047;

/// More than the cache of sessions has room for: what it takes is not of each connection.
#[cfg(feature = "tls")]
const TLS_SESSIONS: usize = 300;

/// The buffer of datagrams has this many bytes, and there is none before the first one.
const DATAGRAM_BUFFER: usize = 64 << 10;

/// The second selector is made of tables in user space, and is not what anybody runs by choice.
const HAS_KERNEL_SELECTOR: bool = cfg!(target_os = "linux") && !cfg!(mio_unsupported_force_poll_poll);

// ------------------------------------------------------------------------------------------------------- the figures

/// In bytes of written pages.
#[derive(Debug, Default)]
struct Figures {
    connections: usize,
    baseline: usize,
    fresh: usize,
    echoed: usize,
    closed: usize,
    /// The same again, twice.
    fresh_third: usize,
    closed_third: usize,
    dropped: usize,
}

impl Figures {
    fn each(&self, now: usize) -> usize {
        now.saturating_sub(self.baseline) / self.connections
    }

    fn parse(text: &str) -> Option<Self> {
        let values: HashMap<&str, usize> =
            text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, n)| Some((name, n.parse().ok()?))).collect();
        let value = |name: &str| values.get(name).copied();
        Some(Self {
            connections: value("connections")?,
            baseline: value("baseline")?,
            fresh: value("fresh")?,
            echoed: value("echoed")?,
            closed: value("closed")?,
            fresh_third: value("fresh_third")?,
            closed_third: value("closed_third")?,
            dropped: value("dropped")?,
        })
    }
}

fn an_idle_connection_costs_at_most_220_bytes_before_and_after_it_has_said_something(figures: &Figures) {
    let (fresh, echoed) = (figures.each(figures.fresh), figures.each(figures.echoed));
    println!("an idle connection: {fresh} bytes, {echoed} after an echo");
    assert!(fresh > 0, "nothing was measured");
    if HAS_KERNEL_SELECTOR {
        assert!(fresh <= BYTES_MAX, "{fresh} bytes a connection, before it has said anything");
        assert!(echoed <= BYTES_MAX, "{echoed} bytes a connection, after an echo");
    }
}

fn connections_that_come_and_go_leave_nothing(figures: &Figures) {
    let kept = figures.closed.saturating_sub(figures.baseline) >> 10;
    println!("when all have closed: {kept} KiB above the baseline");
    let (first, third) = (figures.each(figures.fresh), figures.each(figures.fresh_third));
    let most = if HAS_KERNEL_SELECTOR { first + first / 10 } else { 2 * first };
    assert!(third <= most, "{first} bytes a connection at first, {third} the third time");
    let grown = figures.closed_third.saturating_sub(figures.closed);
    assert!(
        !HAS_KERNEL_SELECTOR || grown <= 128 << 10,
        "{grown} bytes more after each had closed for the third time than for the first"
    );
}

fn a_dropped_reactor_leaves_nothing(figures: &Figures) {
    let left = figures.dropped.saturating_sub(figures.baseline);
    println!("when the reactor is gone: {} KiB above the baseline", left >> 10);
    let most = if HAS_KERNEL_SELECTOR { 128 << 10 } else { 1 << 20 };
    assert!(left <= most, "{left} bytes are left of the reactor");
}

/// What this process has written to and nobody shares, in bytes.
fn written() -> Option<usize> {
    if cfg!(windows) {
        return None; // Wine shows that of its own
    }
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? << 10)
}

fn measure() -> Result<Figures, String> {
    if skips::descriptors_max() < CONNECTIONS + 100 {
        return Err(format!("{} descriptors are needed, the limit is {}", CONNECTIONS + 100, skips::descriptors_max()));
    }
    Ok(Figures::parse(&run_as(&["as-idle-server"])).expect("the server prints each figure"))
}

/// What this program prints in another role.
fn run_as(role: &[&str]) -> String {
    let me = std::env::current_exe().expect("a program knows where it is");
    // glibc: large blocks are mapped one by one, and what is free goes back at once (mallopt(3)), small blocks too. Others
    // ignore it.
    let tuned = [
        ("MALLOC_MMAP_THRESHOLD_", "65536"),
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("MALLOC_TOP_PAD_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0"),
    ];
    let output = Command::new(me).args(role).envs(tuned).stderr(Stdio::inherit()).output().expect("it ran once already");
    assert!(output.status.success(), "{role:?}: {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

// --------------------------------------------------------------------------------------------------------- a server

#[derive(Default)]
struct Tally {
    connected: usize,
    received: usize,
    closed: usize,
    fired: usize,
    is_enough: bool,
}

struct Echo;

impl Protocol<Tally> for Echo {
    fn connected(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally, bytes: &[u8]) -> Outcome {
        tally.received += bytes.len();
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, _: Reason) {
        tally.closed += 1;
    }
}

impl Datagram<Tally> for Echo {
    fn received(&mut self, scope: &mut Scope<'_, Tally>, tally: &mut Tally, bytes: &[u8], _: &Address) -> Outcome {
        tally.received += bytes.len();
        scope.reply(bytes);
        Ok(())
    }
}

fn listen<S, P: Protocol<S>>(reactor: &mut Reactor<S>, factory: impl FnMut() -> P + 'static) -> SocketAddr {
    let mut net = reactor.net();
    let key = net.listen("127.0.0.1:0", factory).expect("a free port");
    net.local(key).and_then(|address| address.ip()).expect("an IP listener")
}

fn until<S>(reactor: &mut Reactor<S>, state: &mut S, what: &str, done: impl Fn(&Reactor<S>, &S) -> bool) {
    let began = Instant::now();
    while !done(reactor, state) {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        reactor.turn(state, Duration::from_millis(10)).expect("the selector works");
    }
}

/// This binary again, in another role, which does what it is told on its standard input and ends with that.
struct Players {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Players {
    fn new(args: &[&str]) -> Self {
        let me = std::env::current_exe().expect("a program knows where it is");
        let mut child = Command::new(me).args(args).stdin(Stdio::piped()).spawn().expect("it ran once already");
        let orders = child.stdin.take();
        Self { child, orders }
    }

    fn tell(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("open until the end");
        writeln!(orders, "{order}").expect("it listens");
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        self.orders = None;
        // Its work is done, or ours has failed, and it would wait for an answer for ever.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MESSAGE: usize = 32;

/// More than anything else of a burst may leave behind, the allocator's own crumbs included.
const CRUMBS: usize = 2 << 20;

/// A burst of this many is worth tens of mebibytes.
const BURST: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };

/// What takes much for a while. One timer lives meanwhile, as in every server.
type Burst = (&'static str, fn(&mut Reactor<Tally>, &mut Tally, usize));

const HOUR: Duration = Duration::from_secs(3600);

fn timers(reactor: &mut Reactor<Tally>, delay: Duration, most: usize) -> Vec<Timer> {
    (0..most).map(|n| reactor.net().after(delay, move |_, tally| tally.fired += n.min(1))).collect()
}

fn cancel(reactor: &mut Reactor<Tally>, timers: impl IntoIterator<Item = Timer>) {
    timers.into_iter().for_each(|timer| assert!(reactor.net().cancel(timer)));
}

/// A connection that connects for ever: it needs no descriptor before its name is known.
fn pending(reactor: &mut Reactor<Tally>) -> Key {
    let listener = reactor.net().listen("127.0.0.1:0", || Echo).expect("a free port");
    let at = reactor.net().local(listener).cloned().expect("it listens");
    let key = reactor.net().connect(&at, Echo);
    reactor.net().close(listener);
    key
}

const BURSTS: [Burst; 12] = [
    ("timers_cancelled_in_order", |reactor, _, most| {
        let all = timers(reactor, HOUR, most);
        cancel(reactor, all);
    }),
    ("timers_cancelled_backwards", |reactor, _, most| {
        let all = timers(reactor, HOUR, most);
        cancel(reactor, all.into_iter().rev());
    }),
    ("timers_cancelled_but_the_last", |reactor, _, most| {
        let all = timers(reactor, HOUR, most);
        reactor.net().every(HOUR, |_, _| ());
        cancel(reactor, all);
    }),
    ("timers_cancelled_but_a_hundred", |reactor, _, most| {
        // Without a box of the program's own each, or those that stay would keep the allocator from giving back the rest.
        let all: Vec<Timer> = (0..most).map(|_| reactor.net().after(HOUR, |_, _| ())).collect();
        cancel(reactor, all.into_iter().enumerate().filter(|(n, _)| n % (most / 100) != 7).map(|(_, timer)| timer));
    }),
    ("timers_fired", |reactor, tally, most| {
        timers(reactor, Duration::ZERO, most);
        let done = tally.fired + most - 1;
        until(reactor, tally, "all have fired", |_, tally| tally.fired == done);
    }),
    ("timers_of_a_connection_that_ends", |reactor, tally, most| {
        let key = pending(reactor);
        for _ in 0..most {
            reactor.net().tell_after(key, HOUR, |_: &mut Echo, _, _| Ok(()));
        }
        let closed = tally.closed + 1;
        reactor.net().abort(key);
        until(reactor, tally, "it is closed", |_, tally| tally.closed == closed);
    }),
    ("tells", |reactor, tally, most| {
        let key = pending(reactor);
        let done = tally.fired + most;
        for n in 0..most {
            reactor.net().tell(key, move |_: &mut Echo, _, tally: &mut Tally| {
                tally.fired += usize::from(n < most);
                Ok(())
            });
        }
        until(reactor, tally, "all were told", |_, tally| tally.fired == done);
        reactor.net().abort(key);
    }),
    ("posts", |reactor, tally, most| {
        let done = tally.fired + most;
        for n in 0..most {
            reactor.net().post(move |_, tally| tally.fired += usize::from(n < most));
        }
        until(reactor, tally, "all have run", |_, tally| tally.fired == done);
    }),
    ("posts_that_never_end", |reactor, tally, most| {
        fn again(net: &mut Net<'_, Tally>) {
            net.post(|net, tally| {
                if !tally.is_enough {
                    again(net)
                }
            });
        }
        tally.is_enough = false;
        again(&mut reactor.net());
        let done = tally.fired + most;
        for n in 0..most {
            reactor.net().post(move |_, tally| tally.fired += usize::from(n < most));
        }
        until(reactor, tally, "all have run", |_, tally| tally.fired == done);
    }),
    ("jobs_of_another_thread", |reactor, tally, most| {
        let done = tally.fired + most;
        let remote = reactor.remote();
        for n in 0..most {
            remote.post(move |_, tally: &mut Tally| tally.fired += usize::from(n < most)).expect("it is there");
        }
        until(reactor, tally, "all have run", |_, tally| tally.fired == done);
    }),
    ("closings", |reactor, tally, most| {
        // Each fails at once, without a descriptor: its `closed` comes at the end of a turn.
        let done = tally.closed + most / 4;
        for _ in 0..most / 4 {
            reactor.net().connect("no address", Echo);
        }
        until(reactor, tally, "all are closed", |_, tally| tally.closed == done);
    }),
    ("lookups", |reactor, tally, most| {
        let done = tally.fired + most / 4;
        for _ in 0..most / 4 {
            reactor.net().resolve("127.0.0.1", |_, tally, _| tally.fired += 1);
        }
        until(reactor, tally, "all are told", |_, tally| tally.fired == done);
    }),
];

/// What was written to at its end.
fn run_burst(
    burst: fn(&mut Reactor<Tally>, &mut Tally, usize),
    reactor: &mut Reactor<Tally>,
    tally: &mut Tally,
    most: usize,
) -> usize {
    burst(reactor, tally, most);
    tally.is_enough = true;
    let written = now_written();
    for _ in 0..8 {
        reactor.turn(tally, Duration::ZERO).expect("the selector works");
    }
    written
}

/// One of them, in a process of its own: what lies above a hole would keep the allocator from giving it back.
fn play_burst(name: &str) {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    reactor.net().every(HOUR, |_, _| ());
    let (_, burst) = BURSTS.into_iter().find(|(known, _)| *known == name).expect("one of them");
    for (_, burst) in BURSTS {
        run_burst(burst, &mut reactor, &mut tally, 400); // lists that keep a little room have it now
    }
    report("before", now_written());
    report("most", run_burst(burst, &mut reactor, &mut tally, BURST));
    report("after", now_written());
}

fn what_a_burst_took_is_given_back_while_one_timer_lives() {
    for (name, _) in BURSTS {
        let text = run_as(&["as-burst", name]);
        let figure =
            |what| text.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<usize>().ok()).expect("a figure");
        let [before, most, after] = ["before", "most", "after"].map(figure);
        println!("{name}: {} KiB before, {} KiB at its end, {} KiB after", before >> 10, most >> 10, after >> 10);
        assert!(after <= before + CRUMBS, "{name}: {} KiB are left", (after - before) >> 10);
    }
}

/// The value of this name among those that a role has reported.
fn figure(text: &str, name: &str) -> usize {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no figure \"{name}\" in {text:?}"))
}

fn a_datagram_socket_costs_at_most_400_bytes_and_a_buffer_comes_with_the_first_datagram() {
    if skips::descriptors_max() < DATAGRAM_SOCKETS + 100 {
        return skips::skip(format_args!("{} descriptors are needed", DATAGRAM_SOCKETS + 100));
    }
    let text = run_as(&["as-datagram-sockets"]);
    let [before, one, first, few, bound, used] =
        ["before", "one", "first", "few", "bound", "used"].map(|name| figure(&text, name));
    println!("the first datagram socket: {} KiB, {} with the first datagram", (one - before) >> 10, (first - before) >> 10);
    assert!(one - before < DATAGRAM_BUFFER, "{} bytes for one socket that has received nothing", one - before);
    let each = |now: usize| now.saturating_sub(few) / (DATAGRAM_SOCKETS - FEW);
    println!("a datagram socket: {} bytes, {} after a datagram there and back", each(bound), each(used));
    assert!(each(bound) > 0, "nothing was measured");
    if HAS_KERNEL_SELECTOR {
        assert!(each(bound) <= DATAGRAM_SOCKET_BYTES_MAX, "{} bytes a datagram socket", each(bound));
        assert!(each(used) <= DATAGRAM_SOCKET_BYTES_MAX, "{} bytes a datagram socket, after a datagram", each(used));
    }
}

/// With this many, what there is only one of has grown to its usual size.
const FEW: usize = 64;

fn datagram_sockets() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    reactor.turn(&mut tally, Duration::ZERO).expect("the selector works");
    // Our own list is written to before anything is measured.
    let mut places = vec![SocketAddr::from(([127, 0, 0, 1], 7)); DATAGRAM_SOCKETS];
    places.clear();
    report("before", now_written());
    bind_datagrams(&mut reactor, &mut tally, &mut places, 1);
    report("one", now_written());
    ask_datagrams(&mut reactor, &mut tally, &places);
    report("first", now_written());
    bind_datagrams(&mut reactor, &mut tally, &mut places, FEW);
    ask_datagrams(&mut reactor, &mut tally, &places);
    report("few", now_written());
    bind_datagrams(&mut reactor, &mut tally, &mut places, DATAGRAM_SOCKETS);
    report("bound", now_written());
    ask_datagrams(&mut reactor, &mut tally, &places);
    report("used", now_written());
}

/// Until there are this many.
fn bind_datagrams(reactor: &mut Reactor<Tally>, tally: &mut Tally, places: &mut Vec<SocketAddr>, count: usize) {
    while places.len() < count {
        let mut net = reactor.net();
        let key = net.bind("127.0.0.1:0", Echo).expect("a free port");
        places.push(net.local(key).and_then(Address::ip).expect("an IP address"));
    }
    reactor.turn(tally, Duration::ZERO).expect("the selector works");
}

/// Each is sent a datagram and answers it.
fn ask_datagrams(reactor: &mut Reactor<Tally>, tally: &mut Tally, places: &[SocketAddr]) {
    let asker = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for at in places {
        asker.send_to(&[b'x'; MESSAGE], at).expect("it is bound");
        let done = tally.received + MESSAGE;
        until(reactor, tally, "it was received", |_, tally| tally.received == done);
        assert_eq!(uninterrupted(|| asker.recv(&mut [0; 2 * MESSAGE])).expect("an answer"), MESSAGE);
    }
}

fn an_adopted_pair_of_pipes_costs_at_most_420_bytes_before_and_after_it_has_said_something() {
    if skips::descriptors_max() < 2 * PIPES + 100 {
        return skips::skip(format_args!("{} descriptors are needed", 2 * PIPES + 100));
    }
    let text = run_as(&["as-pipes"]);
    let [few, adopted, used] = ["few", "adopted", "used"].map(|name| figure(&text, name));
    let each = |now: usize| now.saturating_sub(few) / (PIPES - FEW);
    println!("an adopted pair of pipes: {} bytes, {} after it has said something", each(adopted), each(used));
    assert!(each(adopted) > 0, "nothing was measured");
    if HAS_KERNEL_SELECTOR {
        assert!(each(adopted) <= PIPES_BYTES_MAX, "{} bytes a pair of pipes", each(adopted));
        assert!(each(used) <= PIPES_BYTES_MAX, "{} bytes a pair of pipes, after it has said something", each(used));
    }
}

/// Two by two they read what the other one writes.
fn pipes() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let mut keys = Vec::with_capacity(PIPES);
    for (count, name) in [(FEW, "few"), (PIPES, "adopted")] {
        while keys.len() < count {
            adopt_two(&mut reactor, &mut keys);
        }
        until(&mut reactor, &mut tally, "all are connected", |_, tally| tally.connected == count);
        report(name, now_written());
        // One after the other: much at once is measured elsewhere.
        for &key in &keys {
            let said = tally.received + MESSAGE;
            assert!(reactor.net().send(key, [b'x'; MESSAGE]));
            until(&mut reactor, &mut tally, "it was heard", |_, tally| tally.received == said);
        }
    }
    report("used", now_written());
}

#[cfg(unix)]
fn adopt_two(reactor: &mut Reactor<Tally>, keys: &mut Vec<Key>) {
    let [(one_writes, other_reads), (other_writes, one_reads)] =
        [(); 2].map(|()| mio::unix::pipe::new().expect("two descriptors"));
    for (reads, writes) in [(one_reads, one_writes), (other_reads, other_writes)] {
        keys.push(reactor.net().adopt_pair(reads, writes, Counts).expect("a pair of pipes"));
    }
}

#[cfg(not(unix))]
fn adopt_two(_: &mut Reactor<Tally>, _: &mut Vec<Key>) {
    unreachable!("nothing is measured here");
}

struct Counts;

impl Protocol<Tally> for Counts {
    fn connected(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, bytes: &[u8]) -> Outcome {
        tally.received += bytes.len();
        Ok(())
    }
}

fn idle_server() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let at = listen(&mut reactor, || Echo).to_string();
    let mut clients = Players::new(&["as-clients", &at]);

    // What is there once: the read buffer, the tables of events.
    wave(&mut reactor, &mut tally, &mut clients, 64, "reset");
    report("connections", CONNECTIONS);
    report("baseline", now_written());
    let (fresh, echoed, closed) = wave(&mut reactor, &mut tally, &mut clients, CONNECTIONS, "reset");
    report("fresh", fresh);
    report("echoed", echoed);
    report("closed", closed);
    wave(&mut reactor, &mut tally, &mut clients, CONNECTIONS, "reset");
    let (fresh, _, closed) = wave(&mut reactor, &mut tally, &mut clients, CONNECTIONS, "close");
    report("fresh_third", fresh);
    report("closed_third", closed);
    drop(reactor);
    report("dropped", now_written());
}

/// This many come, say something, and go; what was written to after each.
fn wave(
    reactor: &mut Reactor<Tally>,
    tally: &mut Tally,
    clients: &mut Players,
    count: usize,
    end: &str,
) -> (usize, usize, usize) {
    *tally = Tally::default();
    clients.tell(&format!("connect {count}"));
    until(reactor, tally, "all are connected", |_, tally| tally.connected == count);
    let fresh = now_written();
    clients.tell("echo");
    until(reactor, tally, "all have said something", |_, tally| tally.received == count * MESSAGE);
    let echoed = now_written();
    clients.tell(end);
    until(reactor, tally, "all are closed", |reactor, tally| {
        tally.closed == count && format!("{reactor:?}").contains("slots: 1,")
    });
    (fresh, echoed, now_written())
}

fn now_written() -> usize {
    written().expect("the parent has looked")
}

fn report(name: &str, value: usize) {
    println!("{name} {value}");
}

fn clients(at: &str) {
    let mut sockets: Vec<TcpStream> = Vec::new();
    for order in std::io::stdin().lock().lines() {
        let order = order.expect("text");
        match order.split_once(' ') {
            Some(("connect", count)) => {
                let count: usize = count.parse().expect("a number");
                sockets.extend((0..count).map(|_| TcpStream::connect(at).expect("somebody listens")));
            }
            _ if order == "echo" => {
                for mut socket in &sockets {
                    socket.write_all(&[b'x'; MESSAGE]).expect("connected");
                }
                for mut socket in &sockets {
                    socket.read_exact(&mut [0; MESSAGE]).expect("an answer");
                }
            }
            _ => {
                if order == "reset" {
                    sockets.iter().for_each(reset); // so that no port stays taken for a minute
                }
                sockets.clear();
            }
        }
    }
}

fn reset(socket: &TcpStream) {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("a socket option");
}

// ----------------------------------------------------------------------------------------------------- over TLS

#[cfg(feature = "tls")]
fn an_idle_tls_connection_costs_at_most_4200_bytes_whatever_it_has_said() {
    if skips::descriptors_max() < TLS_CONNECTIONS + 100 {
        return skips::skip(format_args!("{} descriptors are needed", TLS_CONNECTIONS + 100));
    }
    let text = run_as(&["as-idle-tls-server"]);
    let baseline = figure(&text, "baseline");
    let each = |name| figure(&text, name).saturating_sub(baseline) / TLS_CONNECTIONS;
    let [fresh, little, whole, again] = ["fresh", "little", "whole", "again"].map(each);
    println!(
        "an idle connection over TLS: {fresh} bytes, {little} after 64 bytes, {whole} after 16 KiB, {again} the second time"
    );
    assert!(fresh > 0, "nothing was measured");
    // Sessions for the next time lie between what is free, which does not go back to the system, but is taken again.
    assert!(again <= whole + whole / 10, "{whole} bytes a connection at most at first, {again} the second time");
    if HAS_KERNEL_SELECTOR {
        assert!(fresh <= TLS_BYTES_MAX, "{fresh} bytes a connection, before it has said anything");
        assert!(little <= TLS_BYTES_MAX, "{little} bytes a connection, after an echo of 64 bytes");
        assert!(whole <= TLS_BYTES_MAX, "{whole} bytes a connection, after an echo of a whole record");
    }
}

#[cfg(feature = "tls")]
fn idle_tls_server() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let options = mainspring::Listen::new().tls(std::sync::Arc::new(tls::server("p256")));
    let listener = reactor.net().listen_with("127.0.0.1:0", options, |_, _, _| Ok(Echo)).expect("a free port");
    let at = reactor.net().local(listener).and_then(|address| address.ip()).expect("an IP listener").to_string();
    let mut clients = Players::new(&["as-tls-clients", &at]);
    // One after the other: much at once is measured elsewhere.
    clients.tell(&format!("greet {TLS_SESSIONS}"));
    until(&mut reactor, &mut tally, "all have been here", |_, tally| tally.closed == TLS_SESSIONS);
    report("baseline", now_written());
    clients.tell(&format!("connect {TLS_CONNECTIONS}"));
    let all = TLS_SESSIONS + TLS_CONNECTIONS;
    until(&mut reactor, &mut tally, "all are shaken", |_, tally| tally.connected == all);
    report("fresh", now_written());
    for (name, size) in [("little", 64), ("whole", 16 << 10)] {
        clients.tell(&format!("echo {size}"));
        let said = tally.received + size * TLS_CONNECTIONS;
        until(&mut reactor, &mut tally, "all have echoed", |_, tally| tally.received == said);
        report(name, now_written());
    }
    clients.tell("end");
    until(&mut reactor, &mut tally, "all are closed", |reactor, tally| {
        tally.closed == all && format!("{reactor:?}").contains("slots: 1,")
    });
    clients.tell(&format!("connect {TLS_CONNECTIONS}"));
    until(&mut reactor, &mut tally, "all are shaken again", |_, tally| tally.connected == all + TLS_CONNECTIONS);
    report("again", now_written());
}

#[cfg(feature = "tls")]
fn tls_clients(at: &str) {
    use mainspring::rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
    let config = std::sync::Arc::new(tls::client());
    let dial = || {
        let mut socket = TcpStream::connect(at).expect("somebody listens");
        let name = ServerName::try_from("localhost").expect("it is a name");
        let mut session = ClientConnection::new(config.clone(), name).expect("a config that works");
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect("it agrees");
        }
        StreamOwned::new(session, socket)
    };
    let echo = |stream: &mut StreamOwned<ClientConnection, TcpStream>, size: usize| {
        stream.write_all(&vec![b'x'; size]).expect("connected");
        stream.read_exact(&mut vec![0; size]).expect("an answer");
    };
    let mut streams = Vec::new();
    for order in std::io::stdin().lock().lines() {
        let order = order.expect("text");
        let (what, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let number: usize = number.parse().expect("a number");
        match what {
            "greet" => {
                for _ in 0..number {
                    let mut stream = dial();
                    echo(&mut stream, MESSAGE); // or the server might not see the end of the handshake before the reset
                    reset(&stream.sock);
                }
            }
            "connect" => streams.extend((0..number).map(|_| dial())),
            "echo" => streams.iter_mut().for_each(|stream| echo(stream, number)),
            _ => {
                streams.iter().for_each(|stream| reset(&stream.sock));
                streams.clear();
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- servers to be traced

/// What the script looks for in the trace.
fn mark(what: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("MARK {what}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody reads");
}

#[derive(Default)]
struct Held {
    keys: Vec<Key>,
    congested: Option<Key>,
}

/// Gets into a state in which nothing can be done, by the first byte that it is sent.
struct Hold;

impl Protocol<Held> for Hold {
    fn received(&mut self, ctx: &mut Context<'_, Held>, held: &mut Held, bytes: &[u8]) -> Outcome {
        match bytes[0] {
            b'p' => ctx.pause(),
            b'c' => {
                ctx.send(vec![b'c'; 16 << 20]); // more than any kernel keeps
                held.congested = Some(ctx.key);
            }
            b't' => {
                ctx.net.link(ctx.key).expect("its own").set_hold_back(false);
                ctx.throttle(held.congested.expect("the first was congested"));
            }
            b'l' => {
                ctx.send("bye");
                ctx.close();
            }
            other => return Err(format!("no such kind: {other}").into()),
        }
        held.keys.push(ctx.key);
        Ok(())
    }
}

/// A hundred connections that wait for their peers, which do nothing; then nothing must happen.
fn held(kind: &str, seconds: u64) {
    const COUNT: usize = 100;
    let mut reactor = Reactor::with_config(Config::new().linger_max(PATIENCE)).expect("a selector");
    let mut held = Held::default();
    let at = listen(&mut reactor, || Hold).to_string();
    let mut clients = Players::new(&["as-held-clients", &at, kind]);
    let all = COUNT + usize::from(kind == "throttled");
    until(&mut reactor, &mut held, "all are held", |_, held| held.keys.len() == all);
    clients.tell("say more");
    for _ in 0..20 {
        reactor.turn(&mut held, Duration::from_millis(20)).expect("the selector works");
    }
    let mut net = reactor.net();
    let is_congested = |key: &&Key| net.link(**key).is_some_and(|link| link.is_congested());
    let congested = held.keys.iter().filter(is_congested).count();
    let expected = match kind {
        "congested" => COUNT,
        "throttled" => 1,
        _ => 0,
    };
    assert_eq!(congested, expected, "congested ones");
    assert!(format!("{reactor:?}").contains(&format!("slots: {},", all + 1)), "{reactor:?}");
    reactor.net().after(Duration::from_secs(seconds), |net, _| net.stop());
    mark("begin");
    reactor.run(&mut held).expect("the selector works");
    mark("end");
}

fn held_clients(at: &str, kind: &str) {
    let mut sockets = Vec::new();
    let mut begin = |letter: u8| {
        let mut socket = TcpStream::connect(at).expect("somebody listens");
        socket.write_all(&[letter]).expect("connected");
        sockets.push(socket);
    };
    if kind == "throttled" {
        begin(b'c');
        // The others hang on it: it must have come first.
        std::thread::sleep(Duration::from_millis(200));
    }
    (0..100).for_each(|_| begin(kind.as_bytes()[0]));
    for order in std::io::stdin().lock().lines() {
        order.expect("text");
        for mut socket in &sockets {
            socket.set_nonblocking(true).expect("a socket option");
            let _ = socket.write(&[b'm'; 8 << 10]); // a connection that does not read leaves it in the kernel
        }
    }
}

/// Answers this many requests on this many warm connections.
fn echo(connections: usize, rounds: usize) {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let at = listen(&mut reactor, || Echo).to_string();
    let mut clients = Players::new(&["as-echo-clients", &at, &connections.to_string(), &rounds.to_string()]);
    until(&mut reactor, &mut tally, "all are warm", |_, tally| tally.received == connections * MESSAGE);
    for _ in 0..5 {
        reactor.turn(&mut tally, Duration::from_millis(20)).expect("the selector works");
    }
    tally.received = 0;
    clients.tell("go");
    mark("begin");
    while tally.received < connections * rounds * MESSAGE {
        reactor.turn(&mut tally, PATIENCE).expect("the selector works");
    }
    mark("end");
}

fn echo_clients(at: &str, connections: usize, rounds: usize) {
    let sockets: Vec<TcpStream> = (0..connections).map(|_| TcpStream::connect(at).expect("somebody listens")).collect();
    let round = || {
        for mut socket in &sockets {
            socket.write_all(&[b'x'; MESSAGE]).expect("connected");
        }
        for mut socket in &sockets {
            socket.read_exact(&mut [0; MESSAGE]).expect("an answer");
        }
    };
    round();
    let _ = std::io::stdin().lock().lines().next();
    (0..rounds).for_each(|_| round());
}

/// Answers this many datagrams, each of which comes when the last one was answered and the loop sleeps again.
fn datagrams(count: usize) {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let key = reactor.net().bind("127.0.0.1:0", Echo).expect("a free port");
    let at = reactor.net().local(key).expect("it is bound").to_string();
    let mut client = Players::new(&["as-datagram-client", &at, &count.to_string()]);
    until(&mut reactor, &mut tally, "it is warm", |_, tally| tally.received == MESSAGE);
    for _ in 0..5 {
        reactor.turn(&mut tally, Duration::from_millis(20)).expect("the selector works");
    }
    tally.received = 0;
    client.tell("go");
    mark("begin");
    while tally.received < count * MESSAGE {
        reactor.turn(&mut tally, PATIENCE).expect("the selector works");
    }
    mark("end");
}

fn datagram_client(at: &str, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(at).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let ask = || {
        socket.send(&[b'x'; MESSAGE]).expect("somebody is bound there");
        assert_eq!(uninterrupted(|| socket.recv(&mut [0; 2 * MESSAGE])).expect("an answer"), MESSAGE);
    };
    ask();
    let _ = std::io::stdin().lock().lines().next();
    for _ in 0..count {
        // The pace: a traced process takes longer to fall asleep than to answer.
        std::thread::sleep(Duration::from_micros(500));
        ask();
    }
}

/// Every way in which bytes can leave.
struct Talker;

impl Protocol<Tally> for Talker {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally) -> Outcome {
        tally.connected += 1;
        ctx.send("hello");
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally, bytes: &[u8]) -> Outcome {
        tally.received += 1;
        let shared: Rc<[u8]> = vec![b's'; 4096].into();
        write!(ctx, "{} bytes", bytes.len());
        ctx.send_shared(&shared);
        ctx.send_shared(&shared);
        ctx.send_netstring("more");
        let mut pieces = 3;
        ctx.produce(move |out: &mut Vec<u8>| {
            out.extend_from_slice(&[b'p'; 100_000]);
            pieces -= 1;
            Ok(if pieces == 0 { Produced::Done } else { Produced::More })
        });
        ctx.send([b't'; 200_000]);
        match tally.received % 4 {
            0 => ctx.close(),
            1 => return Err("so that the last write is tried".into()),
            _ => ctx.half_close(),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, _: Reason) {
        tally.closed += 1;
    }
}

fn every_send() {
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let at = listen(&mut reactor, || Talker).to_string();
    let mut net = reactor.net();
    let options = mainspring::Listen::new();
    let refusing = net.listen_with("127.0.0.1:0", options, |_, _, _| Err::<Talker, _>(Refusal::from("not you")));
    let refusing = refusing.expect("a free port");
    let refusing = net.local(refusing).expect("it listens").to_string();
    let path = std::env::temp_dir().join(format!("mainspring-{}", std::process::id()));
    if cfg!(unix) {
        net.listen(path.as_path(), || Talker).expect("a free path");
        for _ in 0..8 {
            net.connect(path.as_path(), Echo);
        }
    }
    let mut clients = Players::new(&["as-every-send-clients", &at, &refusing]);
    let began = Instant::now();
    // They need us until they are done, so the loop goes on until then.
    while clients.child.try_wait().expect("it is our child").is_none() {
        assert!(began.elapsed() < PATIENCE, "the clients do not come to their end");
        reactor.turn(&mut tally, Duration::from_millis(10)).expect("the selector works");
    }
    until(&mut reactor, &mut tally, "all are closed", |_, tally| tally.closed == tally.connected && tally.closed >= 28);
}

fn every_send_clients(at: &str, refusing: &str) {
    for n in 0..20 {
        let mut socket = TcpStream::connect(at).expect("somebody listens");
        socket.write_all(b"something").expect("connected");
        if n % 4 == 3 {
            reset(&socket); // writes fail, which must not be a signal
            continue;
        }
        let _ = socket.read_to_end(&mut Vec::new());
        let mut refused = TcpStream::connect(refusing).expect("somebody listens");
        let _ = refused.read_to_end(&mut Vec::new());
    }
}

// ----------------------------------------------------------------------------------------------------------- harness

/// Plays a role, if one was asked for.
fn play(args: &[&str]) -> bool {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match args {
        ["as-idle-server"] => idle_server(),
        ["as-burst", name] => play_burst(name),
        ["as-clients", at] => clients(at),
        ["as-held", kind, seconds] => held(kind, number(seconds) as u64),
        ["as-held-clients", at, kind] => held_clients(at, kind),
        ["as-echo", connections, rounds] => echo(number(connections), number(rounds)),
        ["as-echo-clients", at, connections, rounds] => echo_clients(at, number(connections), number(rounds)),
        ["as-datagram-sockets"] => datagram_sockets(),
        ["as-pipes"] => pipes(),
        #[cfg(feature = "tls")]
        ["as-idle-tls-server"] => idle_tls_server(),
        #[cfg(feature = "tls")]
        ["as-tls-clients", at] => tls_clients(at),
        ["as-datagrams", count] => datagrams(number(count)),
        ["as-datagram-client", at, count] => datagram_client(at, number(count)),
        ["as-every-send"] => every_send(),
        ["as-every-send-clients", at, refusing] => every_send_clients(at, refusing),
        _ => return false,
    }
    true
}

type Test = (&'static str, Run);

#[derive(Clone, Copy)]
enum Run {
    /// Looks at what was measured once, for all of these.
    Figures(fn(&Figures)),
    /// Measures by itself.
    Alone(fn()),
}

const TESTS: &[Test] = &[
    (
        "an_idle_connection_costs_at_most_220_bytes_before_and_after_it_has_said_something",
        Run::Figures(an_idle_connection_costs_at_most_220_bytes_before_and_after_it_has_said_something),
    ),
    ("connections_that_come_and_go_leave_nothing", Run::Figures(connections_that_come_and_go_leave_nothing)),
    ("a_dropped_reactor_leaves_nothing", Run::Figures(a_dropped_reactor_leaves_nothing)),
    (
        "a_datagram_socket_costs_at_most_400_bytes_and_a_buffer_comes_with_the_first_datagram",
        Run::Alone(a_datagram_socket_costs_at_most_400_bytes_and_a_buffer_comes_with_the_first_datagram),
    ),
    (
        "an_adopted_pair_of_pipes_costs_at_most_420_bytes_before_and_after_it_has_said_something",
        Run::Alone(an_adopted_pair_of_pipes_costs_at_most_420_bytes_before_and_after_it_has_said_something),
    ),
    #[cfg(feature = "tls")]
    (
        "an_idle_tls_connection_costs_at_most_4200_bytes_whatever_it_has_said",
        Run::Alone(an_idle_tls_connection_costs_at_most_4200_bytes_whatever_it_has_said),
    ),
    ("what_a_burst_took_is_given_back_while_one_timer_lives", Run::Alone(what_a_burst_took_is_given_back_while_one_timer_lives)),
];

/// Why it cannot run here, or whether it passed.
fn outcome(run: Run, figures: &mut Option<Result<Figures, String>>) -> Result<bool, String> {
    if written().is_none() {
        return Err("no /proc/self/smaps_rollup is of this system".into());
    }
    match run {
        Run::Figures(run) => {
            let figures = figures.get_or_insert_with(measure).as_ref().map_err(String::clone)?;
            Ok(std::panic::catch_unwind(|| run(figures)).is_ok())
        }
        Run::Alone(run) => Ok(std::panic::catch_unwind(run).is_ok()),
    }
}

/// As much of libtest's manners as `cargo test` needs.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if play(&words) {
        return ExitCode::SUCCESS;
    }
    let filter = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    let wanted: Vec<Test> =
        TESTS.iter().copied().filter(|(name, _)| name.contains(filter) && !words.contains(&"--ignored")).collect();
    if words.contains(&"--list") {
        for (name, _) in &wanted {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let (began, filtered) = (Instant::now(), TESTS.len() - wanted.len());
    println!("\nrunning {} tests", wanted.len());
    let mut figures = None;
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, run) in wanted {
        match outcome(run, &mut figures) {
            Err(why) => {
                skips::skip(format_args!("{name}: {why}"));
                println!("test {name} ... ignored, {why}");
                ignored += 1;
            }
            Ok(is_ok) => {
                println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
                (passed, failed) = (passed + usize::from(is_ok), failed + usize::from(!is_ok));
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = began.elapsed().as_secs_f32();
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out; \
         finished in {seconds:.2}s\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
