//! Connecting by name: looking up, racing the addresses, failing by stage; on real sockets and, with the feature `sim`, in
//! virtual time.

mod common;

use common::{Call, Echo, Journal, On, SECOND, dial, listen, quiet, read_exactly, read_to_end, recorder, say, until};
use mainspring::{Address, Config, Connect, Context, Key, NameError, Outcome, Protocol, Reactor, Reason};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// A reactor that finds each name at these addresses.
fn with_names<S>(names: &'static [(&'static str, &'static [&'static str])]) -> Reactor<S> {
    with_resolver(Config::new(), move |host| match names.iter().find(|(name, _)| *name == host) {
        Some((_, addresses)) => Ok(addresses.iter().map(|text| ip(text)).collect()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("`{host}`: there is no such name"))),
    })
}

fn with_resolver<S>(config: Config, resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Reactor<S> {
    Reactor::with_config(config.resolver(resolve)).expect("a selector")
}

/// How one connection ended.
fn ending(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key) -> String {
    until(reactor, journal, |journal| matches!(journal.of(key).last(), Some(Call::Closed(_))));
    match &journal.of(key)[..] {
        [Call::Closed(why)] => why.clone(),
        more => panic!("`closed` alone: {more:?}"),
    }
}

/// Keeps its reason, and where it was connected to.
#[derive(Default)]
struct Ends {
    connected: Vec<Address>,
    reasons: Vec<Reason>,
}

struct Caller;

impl Protocol<Ends> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends) -> Outcome {
        ends.connected.push(ctx.peer().clone());
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Ends>, ends: &mut Ends, why: Reason) {
        ends.reasons.push(why);
    }
}

// ------------------------------------------------------------------------------------------------------- the race

/// An address of the loopback that never answers, and one that does, with the same port: a listener whose backlog is full,
/// beside one that accepts.
#[cfg(target_os = "linux")]
fn dead_and_live() -> (Vec<socket2::Socket>, TcpListener, u16) {
    use socket2::{Domain, Socket, Type};
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    loop {
        let live = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = live.local_addr().expect("it is bound").port();
        let (deaf, at) = (socket(), SocketAddr::from(([127, 0, 0, 2], port)));
        if deaf.bind(&at.into()).is_err() {
            continue; // somebody has that port there
        }
        deaf.listen(0).expect("a backlog of nothing");
        let mut all = vec![deaf];
        for _ in 0..4 {
            let filler = socket();
            filler.set_nonblocking(true).expect("a socket option");
            let _ = filler.connect(&at.into()); // in progress
            all.push(filler);
        }
        return (all, live, port);
    }
}

/// The bar of 300 ms, in real time. A busy machine may be late; not each of ten times.
#[test]
#[cfg(target_os = "linux")]
fn a_name_with_one_dead_and_one_live_address_is_connected_within_300_ms() {
    let (_deaf, _live, port) = dead_and_live();
    let took = |_| {
        let (mut reactor, mut ends) = (with_names(&[("both.test", &["127.0.0.2", "127.0.0.1"])]), Ends::default());
        let began = Instant::now();
        reactor.net().connect(("both.test", port), Caller);
        until(&mut reactor, &mut ends, |ends| !ends.connected.is_empty());
        assert_eq!(ends.connected[0].ip(), Some(SocketAddr::from(([127, 0, 0, 1], port))), "the peer is who answered");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250), "the dead one has its delay first: {took:?}");
        took
    };
    let fastest = (0..10).map(took).find(|took| *took < Duration::from_millis(300));
    assert!(fastest.is_some(), "always later");
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_refuses_makes_way_at_once() {
    let (mut reactor, mut ends) = (with_names(&[("both.test", &["127.0.0.3", "::1", "127.0.0.1"])]), Ends::default());
    let (_, at) = listen(&mut reactor, || Caller);
    let key = reactor.net().connect(("both.test", at.port()), Caller);
    assert_eq!(reactor.net().peer(key).map(ToString::to_string), Some(format!("both.test:{}", at.port())));
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 2);
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
    assert!(reactor.net().local(key).and_then(Address::ip).is_some_and(|local| local.ip() == at.ip()));
}

#[test]
#[cfg(unix)]
fn with_all_dead_the_error_lists_each_with_its_errno() {
    let (mut reactor, mut ends) = (with_names(&[("dead.test", &["127.0.0.1", "127.0.0.2", "127.0.0.1"])]), Ends::default());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let port = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound").port();
    reactor.net().connect(format!("dead.test:{port}"), Caller);
    until(&mut reactor, &mut ends, |ends| !ends.reasons.is_empty());
    assert!(ends.connected.is_empty(), "`closed` alone");
    let [Reason::Connect(error)] = &ends.reasons[..] else { panic!("{:?}", ends.reasons) };
    let tried: Vec<_> = error.tried().iter().map(|(at, error)| (at.to_string(), error.raw_os_error())).collect();
    let refused = Some(libc_econnrefused());
    assert_eq!(tried, [(format!("127.0.0.1:{port}"), refused), (format!("127.0.0.2:{port}"), refused)]);
    assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::ConnectionRefused, refused));
    let text = ends.reasons[0].to_string();
    assert!(text.starts_with(&format!("could not connect to 127.0.0.1:{port}: ")) && !text.contains('\n'), "{text}");
    assert!(text.contains(&format!("; 127.0.0.2:{port}: ")), "{text}");
}

/// Of this system, without libc among the tests' own dependencies.
fn libc_econnrefused() -> i32 {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let error = std::net::TcpStream::connect(nobody).expect_err("nobody listens there any more");
    error.raw_os_error().expect("an error of the system")
}

/// Whoever comes again and again to a port of its own machine where nobody listens is given that very port to come from one
/// day, and TCP connects the socket to itself. Here it asks for that port, so that it need not wait for the day.
#[test]
fn a_socket_that_meets_itself_was_refused() {
    let mut reactor = with_names(&[("self.test", &["127.0.0.1"])]);
    for is_named in [false, true] {
        let at = TcpListener::bind("127.0.0.1:0").and_then(|nobody| nobody.local_addr()).expect("a free port");
        let (options, mut ends) = (Connect::new().local(at), Ends::default());
        match is_named {
            true => reactor.net().connect_with(("self.test", at.port()), options, Caller),
            false => reactor.net().connect_with(at, options, Caller),
        };
        until(&mut reactor, &mut ends, |ends| !ends.reasons.is_empty() || !ends.connected.is_empty());
        match &ends.reasons[..] {
            [Reason::Connect(error)] => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}"),
            other => panic!("{other:?}, connected to {:?}", ends.connected),
        }
        TcpListener::bind(at).expect("the port is free for its server");
    }
}

#[test]
fn what_is_sent_while_connecting_leaves_before_what_connected_sends() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("it is bound").port();
    let (mut reactor, mut journal) = (with_names(&[("here.test", &["127.0.0.1"])]), Journal::default());
    let on: On = |ctx, _, call| {
        if *call == Call::Connected {
            ctx.send("two");
        }
        Ok(())
    };
    let key = reactor.net().connect(("here.test", port), recorder(on));
    assert!(reactor.net().send(key, "one "), "it is kept");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let (mut peer, _) = server.accept().expect("it has connected");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 7), b"one two");
    say(&peer, "three");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"three");
}

#[test]
fn a_polite_close_while_the_name_is_looked_up_still_flushes() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("it is bound").port();
    let (mut reactor, mut journal) = (with_names(&[("here.test", &["127.0.0.1"])]), Journal::default());
    let key = reactor.net().connect(("here.test", port), recorder(quiet as On));
    reactor.net().send(key, "last words");
    reactor.net().close(key);
    assert_eq!(ending(&mut reactor, &mut journal, key), "finished");
    let (mut peer, _) = server.accept().expect("it has connected");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"last words");
}

#[test]
fn a_local_address_leaves_the_other_family_out() {
    let (mut reactor, mut ends) = (with_names(&[("both.test", &["::1", "127.0.0.1"]), ("six.test", &["::1"])]), Ends::default());
    let (_, at) = listen(&mut reactor, || Caller);
    let local = |port| Connect::new().local(SocketAddr::from(([127, 0, 0, 1], port)));
    let key = reactor.net().connect_with(("both.test", at.port()), local(0), Caller);
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 2);
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
    reactor.net().connect_with(("six.test", at.port()), local(0), Caller);
    until(&mut reactor, &mut ends, |ends| !ends.reasons.is_empty());
    assert!(
        matches!(&ends.reasons[..], [Reason::Resolve(error)] if error.to_string().contains("other family")),
        "{:?}",
        ends.reasons
    );
}

// ------------------------------------------------------------------------------------------------- what is no target

#[test]
fn a_target_that_leads_to_no_address_says_so_by_stage() {
    let (mut reactor, mut ends) = (with_names(&[("none.test", &[])]), Ends::default());
    let cases = [
        ("missing.test:80", "no such name"),
        ("none.test:80", "has no address"),
        ("example.test:no-such-service", "no service is called"),
        ("a..b:80", "two dots"),
        ("nonsense", "HOST:PORT"),
    ];
    for (to, what) in cases {
        let key = reactor.net().connect(to, Caller);
        assert_eq!(reactor.net().peer(key).map(ToString::to_string), Some(to.to_owned()));
        until(&mut reactor, &mut ends, |ends| !ends.reasons.is_empty());
        let why = ends.reasons.pop().expect("it is closed");
        assert!(matches!(&why, Reason::Resolve(_)) && why.is_connect(), "{to}: {why:?}");
        assert!(why.to_string().starts_with("could not resolve: ") && why.to_string().contains(what), "{to}: {why}");
        assert!(!reactor.net().send(key, "too late"), "nothing can be sent on it afterwards");
    }
    let error = reactor.net().listen("example.test:80", || Caller).expect_err("listening does not wait for a resolver");
    assert!(error.to_string().contains("only an address"), "{error}");
    assert!(ends.connected.is_empty());
}

#[test]
fn services_are_for_literal_addresses_too() {
    let (mut reactor, mut ends) = (Reactor::new().expect("a selector"), Ends::default());
    reactor.net().connect("127.0.0.1:discard", Caller);
    until(&mut reactor, &mut ends, |ends| !ends.reasons.is_empty() || !ends.connected.is_empty());
    if let Some(Reason::Connect(error)) = ends.reasons.first() {
        assert_eq!(error.tried()[0].0.to_string(), "127.0.0.1:9");
    }
}

/// The machine's own resolver, once.
#[test]
fn localhost_is_found_by_the_system() {
    let (mut reactor, mut ends) = (Reactor::new().expect("a selector"), Ends::default());
    let (_, at) = listen(&mut reactor, || Caller);
    reactor.net().connect(format!("localhost:{}", at.port()), Caller);
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 2);
}

// ------------------------------------------------------------------------------------------ a resolver that hangs

/// Names that begin with `slow` hang until the other end is dropped; how many do.
fn hanging(config: Config) -> (Reactor<Journal>, mpsc::SyncSender<()>, Arc<AtomicUsize>) {
    let (let_go, wait) = mpsc::sync_channel::<()>(0);
    let (wait, hang) = (Arc::new(std::sync::Mutex::new(wait)), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&hang);
    let reactor = with_resolver(config, move |host| {
        if host.starts_with("slow") {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().map(|wait| wait.recv());
        }
        Ok(vec![ip("127.0.0.1")])
    });
    (reactor, let_go, hang)
}

#[test]
fn a_resolver_that_sleeps_for_60_seconds_delays_nobody_else() {
    let mut reactor = with_resolver(Config::new(), |host| {
        if host == "asleep.test" {
            thread::sleep(60 * SECOND); // it ends with the process, and nobody waits for it
        }
        Ok(vec![ip("127.0.0.1")])
    });
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || Echo);
    let asleep: Vec<Key> = (0..7).map(|_| reactor.net().connect(("asleep.test", at.port()), recorder(quiet as On))).collect();
    // One thread of eight is left: another name is found, and who needs none has all there is.
    let on: On = |ctx, _, call| {
        match call {
            Call::Connected => ctx.send("ping"),
            Call::Received(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    };
    for to in [format!("awake.test:{}", at.port()), at.to_string(), format!("awake.test:{}", at.port())] {
        let key = reactor.net().connect(to, recorder(on));
        until(&mut reactor, &mut journal, |journal| journal.of(key).contains(&Call::Closed("finished".into())));
    }
    let mut client = dial(at);
    say(&client, "pong");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut client, 4), b"pong");
    assert!(asleep.iter().all(|&key| reactor.net().is_open(key) && journal.of(key).is_empty()), "they still wait");
    // Nor does the end wait.
    let began = Instant::now();
    reactor.shutdown(&mut journal);
    drop(reactor);
    assert!(began.elapsed() < 30 * SECOND);
    assert!(asleep.iter().all(|&key| journal.of(key) == [Call::Closed("the reactor was shut down".into())]));
}

#[test]
fn when_every_thread_hangs_and_the_queue_is_full_a_lookup_fails_at_once() {
    let (mut reactor, _let_go, hang) = hanging(Config::new().resolve_threads(2).resolve_queue(1));
    let mut journal = Journal::default();
    let slow: Vec<Key> = (0..2).map(|_| reactor.net().connect("slow.test:80", recorder(quiet as On))).collect();
    until(&mut reactor, &mut journal, |_| hang.load(Ordering::SeqCst) >= 1);
    let queued = reactor.net().connect("quick.test:80", recorder(quiet as On));
    let refused = reactor.net().connect("other.test:80", recorder(quiet as On));
    let why = ending(&mut reactor, &mut journal, refused);
    assert!(why.starts_with("could not resolve: `other.test`: too many names"), "{why}");
    assert!(reactor.net().is_open(queued) && slow.iter().all(|&key| reactor.net().is_open(key)));
    // One that gives up makes room in the queue.
    reactor.net().abort(queued);
    let next = reactor.net().connect_with("next.test:80", Connect::new().timeout(SECOND / 20), recorder(quiet as On));
    let why = ending(&mut reactor, &mut journal, next);
    assert!(why.contains("`next.test:80` was not resolved in time"), "{why}");
}

#[test]
fn a_literal_address_asks_nobody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut reactor = with_resolver(Config::new().resolve_queue(0), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    });
    let mut ends = Ends::default();
    let (_, at) = listen(&mut reactor, || Caller);
    reactor.net().connect(("127.0.0.1", at.port()), Caller);
    reactor.net().connect(at.to_string(), Caller);
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 4);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_connection_ends_while_its_name_is_looked_up_as_it_would_at_any_time() {
    let (mut reactor, let_go, hang) = hanging(Config::new());
    let mut journal = Journal::default();
    let begin = |reactor: &mut Reactor<Journal>, journal: &mut Journal, options: Connect| {
        let key = reactor.net().connect_with("slow.test:80", options, recorder(quiet as On));
        let before = hang.load(Ordering::SeqCst);
        until(reactor, journal, |_| hang.load(Ordering::SeqCst) > before || before > 0);
        key
    };
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().abort(key);
    assert_eq!(ending(&mut reactor, &mut journal, key), "aborted");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().close(key);
    assert_eq!(ending(&mut reactor, &mut journal, key), "finished");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().link(key).expect("it is open").set_deadline(SECOND / 20);
    assert_eq!(ending(&mut reactor, &mut journal, key), "the deadline passed");
    let key = begin(&mut reactor, &mut journal, Connect::new().timeout(SECOND / 20));
    assert_eq!(ending(&mut reactor, &mut journal, key), "could not resolve: `slow.test:80` was not resolved in time");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().fail(key, "no more");
    assert_eq!(ending(&mut reactor, &mut journal, key), "failed: no more");
    // The answers come, and find nobody.
    drop(let_go);
    common::settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 5);
    assert_eq!(reactor.stats().timers, 0, "no timer is left behind");
}

// ------------------------------------------------------------------------------------------------------- net.resolve

/// What lookups have brought: their number, and all addresses or what failed.
type Heard = Vec<(usize, Result<Vec<IpAddr>, (io::ErrorKind, Option<NameError>)>)>;

fn resolve(reactor: &mut Reactor<Heard>, number: usize, host: &str) -> mainspring::Timer {
    reactor.net().resolve(host, move |_, heard, found| {
        heard.push((number, found.map_err(|error| (error.kind(), NameError::of(&error)))));
    })
}

#[test]
fn resolve_gives_all_addresses_once_and_later() {
    let (mut reactor, mut heard) = (with_names(&[("two.test", &["192.0.2.1", "::1", "192.0.2.1"])]), Heard::new());
    resolve(&mut reactor, 0, "two.test");
    resolve(&mut reactor, 1, "127.0.0.1");
    resolve(&mut reactor, 2, "missing.test");
    resolve(&mut reactor, 3, "a\0b");
    resolve(&mut reactor, 4, "::1");
    reactor.run(&mut heard).expect("it ends when the last is told");
    heard.sort_by_key(|(number, _)| *number);
    assert_eq!(
        heard,
        [
            (0, Ok(vec![ip("192.0.2.1"), ip("::1")])),
            (1, Ok(vec![ip("127.0.0.1")])),
            (2, Err((io::ErrorKind::NotFound, None))),
            (3, Err((io::ErrorKind::InvalidInput, None))),
            (4, Ok(vec![ip("::1")])),
        ]
    );
}

#[test]
fn a_lookup_can_be_taken_back_and_has_a_deadline() {
    let mut reactor = with_resolver(Config::new().connect_max(SECOND / 20), |_| {
        thread::sleep(60 * SECOND);
        Ok(Vec::new())
    });
    let mut heard = Heard::new();
    let taken_back = resolve(&mut reactor, 0, "slow.test");
    assert!(reactor.net().cancel(taken_back) && !reactor.net().cancel(taken_back));
    resolve(&mut reactor, 1, "slow.test");
    reactor.run(&mut heard).expect("nothing is left after the deadline");
    assert_eq!(heard, [(1, Err((io::ErrorKind::TimedOut, Some(NameError::TimedOut))))]);
}

#[test]
fn each_failure_of_a_lookup_names_what_was_asked() {
    let failures = |config: Config, hosts: &[&str]| {
        let resolver = |host: &str| {
            if host == "slow.test" {
                thread::sleep(60 * SECOND);
            }
            Ok(Vec::new())
        };
        let (mut reactor, mut heard) = (with_resolver(config, resolver), Vec::new());
        for &host in hosts {
            reactor.net().resolve(host, |_, heard: &mut Vec<_>, found| heard.push(found.expect_err("no address").to_string()));
        }
        reactor.run(&mut heard).expect("each is told");
        heard
    };
    assert_eq!(failures(Config::new(), &["none.test"]), ["`none.test` has no address"]);
    let narrow = Config::new().connect_max(SECOND / 20).resolve_threads(1).resolve_queue(0);
    let busy = "`busy.test`: too many names are being looked up: every thread is busy, and the queue is full";
    assert_eq!(failures(narrow, &["slow.test", "busy.test"]), [busy, "`slow.test` was not resolved in time"]);
}

#[test]
fn a_lookup_that_is_taken_back_makes_room_for_another() {
    let mut reactor = with_resolver(Config::new().resolve_threads(1).resolve_queue(1), |_| {
        thread::sleep(60 * SECOND);
        Ok(Vec::new())
    });
    let mut heard = Heard::new();
    // The queue has room for one beside what the thread is to take next, or has taken.
    let all: Vec<_> = (0..4).map(|number| resolve(&mut reactor, number, "slow.test")).collect();
    common::settle(&mut reactor, &mut heard);
    assert!(heard.len() >= 2 && heard.iter().all(|(_, found)| matches!(found, Err((_, Some(NameError::Busy))))), "{heard:?}");
    for timer in all {
        reactor.net().cancel(timer);
    }
    heard.clear();
    resolve(&mut reactor, 4, "slow.test");
    common::settle(&mut reactor, &mut heard);
    assert_eq!(heard, [], "it waits in the queue");
}

#[test]
fn lookups_beyond_the_bounds_fail_at_once_and_one_that_panics_is_told() {
    let mut reactor = with_resolver(Config::new().resolve_threads(1).resolve_queue(1), |host| match host {
        "odd.test" => std::panic::resume_unwind(Box::new("on purpose")),
        _ => Ok(vec![ip("192.0.2.1")]),
    });
    let mut heard = Heard::new();
    resolve(&mut reactor, 0, "odd.test");
    reactor.run(&mut heard).expect("a selector");
    assert_eq!(heard, [(0, Err((io::ErrorKind::Other, Some(NameError::Failed))))]);
    heard.clear();
    for number in 0..50 {
        resolve(&mut reactor, number, "here.test");
    }
    reactor.run(&mut heard).expect("a selector");
    let busy = heard.iter().filter(|(_, found)| *found == Err((io::ErrorKind::ResourceBusy, Some(NameError::Busy)))).count();
    assert_eq!(heard.len(), 50, "each is told");
    assert!(busy < 50, "{busy} were refused");
}

#[test]
fn a_shutdown_drops_what_was_to_follow_a_lookup() {
    let (mut reactor, mut heard) = (with_names(&[("here.test", &["192.0.2.1"])]), Heard::new());
    resolve(&mut reactor, 0, "here.test");
    reactor.shutdown(&mut heard);
    common::settle(&mut reactor, &mut heard);
    assert_eq!(heard, []);
    resolve(&mut reactor, 1, "here.test");
    reactor.run(&mut heard).expect("it may be used again");
    assert_eq!(heard, [(1, Ok(vec![ip("192.0.2.1")]))]);
}

#[test]
#[cfg(feature = "names")]
fn the_way_back_finds_a_name_or_says_that_there_is_none() {
    let mut reactor: Reactor<Vec<io::Result<String>>> = Reactor::new().expect("a selector");
    let mut heard = Vec::new();
    for text in ["127.0.0.1", "192.0.2.1"] {
        reactor.net().resolve_back(ip(text), |_, heard: &mut Vec<_>, found| heard.push(found));
    }
    reactor.run(&mut heard).expect("a selector");
    assert_eq!(heard.len(), 2);
    for found in heard {
        match found {
            Ok(name) => assert!(name.parse::<IpAddr>().is_err(), "`{name}` is an address, not a name"),
            Err(error) => assert!(NameError::of(&error).is_some(), "{error:?}"),
        }
    }
}

// ----------------------------------------------------------------------------------------------------- in virtual time

#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use mainspring::testing::{Errno, Fate, Host, NameFate, Scene, Sim, Weather, check};

    const MILLI: Duration = Duration::from_millis(1);

    /// Says when and how.
    #[derive(Default)]
    struct Log {
        lines: Vec<String>,
        closed: usize,
    }

    struct Client;

    impl Protocol<Log> for Client {
        fn connected(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
            log.lines.push(format!("connected to {}", ctx.peer()));
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
            log.lines.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(())
        }

        fn draining(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
            log.lines.push("draining".into());
            ctx.close();
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
            log.lines.push(why.to_string());
            log.closed += 1;
        }
    }

    /// Greets, and says how many are here.
    struct Greeter;

    impl Protocol<i32> for Greeter {
        fn connected(&mut self, ctx: &mut Context<'_, i32>, here: &mut i32) -> Outcome {
            *here += 1;
            ctx.send("hello");
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, i32>, here: &mut i32, _: Reason) {
            *here -= 1;
        }
    }

    fn server(sim: &mut Sim, ip: &str) -> Host<i32> {
        let host = sim.host(ip, 0);
        sim.net(host).listen(format!("{ip}:80"), || Greeter).expect("a free port");
        host
    }

    /// A client that has begun to connect to `both.test:80`.
    fn client(sim: &mut Sim) -> (Host<Log>, Key) {
        let host = sim.host("10.0.0.9", Log::default());
        let key = sim.net(host).connect("both.test:http", Client);
        (host, key)
    }

    #[test]
    fn a_name_with_one_dead_and_one_live_address_is_connected_within_300_ms() {
        for fate in [Fate::Silent, Fate::Refused, Fate::Unreachable] {
            let mut sim = Sim::new(1);
            sim.set_weather(Weather::fair().latency(5 * MILLI, Duration::ZERO));
            sim.name("both.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]).set_fate("10.0.0.1:80", fate);
            server(&mut sim, "10.0.0.2");
            let (host, _) = client(&mut sim);
            assert!(sim.run_until(300 * MILLI, |sim| sim.state(host).lines == ["connected to 10.0.0.2:80", "hello"]), "{fate:?}");
            let least = if fate == Fate::Silent { 250 * MILLI } else { Duration::ZERO };
            assert!(sim.now() >= least, "{:?}", sim.now());
            assert_eq!(sim.sockets(host), 1, "the others are closed");
            assert_eq!(sim.net(host).stats().timers, 0, "what connecting needed is gone");
        }
    }

    #[test]
    fn with_all_dead_the_error_lists_each() {
        let mut sim = Sim::new(1);
        sim.name("both.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"]);
        sim.set_fate("10.0.0.1:80", Fate::Refused)
            .set_fate("10.0.0.2:80", Fate::Unreachable)
            .set_fate("10.0.0.3:80", Fate::Silent);
        sim.set_fate("[fd00::4]:80", Fate::Silent);
        let (host, _) = client(&mut sim);
        sim.run_for(31 * SECOND);
        let lines = sim.state(host).lines.join("\n");
        let os = |errno: Errno| errno.to_error();
        assert_eq!(
            lines,
            format!(
                "could not connect to 10.0.0.1:80: {}; [fd00::4]:80: timed out; 10.0.0.2:80: {}; 10.0.0.3:80: timed out",
                os(Errno::ConnectionRefused),
                os(Errno::HostUnreachable)
            )
        );
        assert_eq!(sim.sockets(host), 0);
        assert_eq!(sim.now(), 31 * SECOND);
    }

    /// Both are connected at the same moment and greet at once: closing the one loses nothing of the other.
    #[test]
    fn of_two_that_answer_together_one_is_kept_whole_and_one_is_closed() {
        for seed in 0..50 {
            let mut sim = Sim::new(seed);
            sim.set_weather(Weather::fair().latency(SECOND, Duration::ZERO));
            sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", NameFate::Slow(MILLI));
            let servers = [server(&mut sim, "10.0.0.1"), server(&mut sim, "10.0.0.2")];
            let (host, key) = client(&mut sim);
            sim.run_for(10 * SECOND);
            let peer = sim.net(host).peer(key).expect("it is open").to_string();
            assert_eq!(sim.state(host).lines, [format!("connected to {peer}"), "hello".into()]);
            assert_eq!(sim.sockets(host), 1);
            assert_eq!(servers.map(|server| *sim.state(server)).iter().sum::<i32>(), 1, "who lost the race has seen the end");
        }
    }

    /// Says a last word and breaks off.
    struct Rude;

    impl Protocol<i32> for Rude {
        fn connected(&mut self, ctx: &mut Context<'_, i32>, _: &mut i32) -> Outcome {
            ctx.send("no");
            ctx.after(Duration::ZERO, |_: &mut Self, ctx, _| {
                ctx.abort();
                Ok(())
            });
            Ok(())
        }
    }

    #[test]
    fn last_words_before_a_reset_are_heard_by_who_came_by_name() {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(SECOND, Duration::ZERO)).name("both.test", &["10.0.0.1"]);
        let rude = sim.host("10.0.0.1", 0);
        sim.net(rude).listen("10.0.0.1:80", || Rude).expect("a free port");
        let (host, _) = client(&mut sim);
        sim.run_for(10 * SECOND);
        let lost = format!("connection lost: {}", Errno::ConnectionReset.to_error());
        assert_eq!(sim.state(host).lines, ["connected to 10.0.0.1:80", "no", lost.as_str()]);
    }

    #[test]
    fn a_resolver_that_sleeps_for_60_seconds_delays_nobody_else() {
        let mut sim = Sim::new(1);
        sim.name("both.test", &["10.0.0.1"]).name("slow.test", &["10.0.0.1"]).name("never.test", &["10.0.0.1"]);
        sim.set_name_fate("slow.test", NameFate::Slow(60 * SECOND)).set_name_fate("never.test", NameFate::Silent);
        server(&mut sim, "10.0.0.1");
        let config = Config::new().resolve_threads(3).resolve_queue(1);
        let host = sim.host_with("10.0.0.9", Log::default(), config);
        let patient = Connect::new().timeout(100 * SECOND);
        sim.net(host).connect_with("slow.test:80", patient.clone(), Client);
        sim.net(host).connect_with("never.test:80", patient.clone(), Client);
        for _ in 0..3 {
            let already = sim.state(host).lines.len();
            sim.net(host).connect("both.test:80", Client);
            sim.settle();
            assert_eq!(sim.state(host).lines[already..], ["connected to 10.0.0.1:80", "hello"], "one thread is left");
        }
        // The last thread hangs, the queue fills, and beyond it there is an answer at once.
        sim.net(host).connect_with("never.test:80", patient.clone(), Client);
        sim.net(host).connect_with("both.test:80", patient.clone(), Client);
        sim.net(host).connect("both.test:80", Client);
        let already = sim.state(host).lines.len();
        sim.settle();
        assert!(sim.state(host).lines[already..].iter().all(|line| line.contains("too many names")));
        assert_eq!(sim.state(host).closed, 1);
        // When the slow one is there its thread takes the one that waits.
        sim.run_for(61 * SECOND);
        assert_eq!(sim.state(host).lines.iter().filter(|line| line.starts_with("connected")).count(), 5);
        sim.run_for(50 * SECOND);
        assert_eq!(sim.state(host).lines.iter().filter(|line| line.contains("not resolved in time")).count(), 2);
    }

    #[test]
    fn what_a_name_comes_to_is_told_by_what_it_is() {
        let mut scene = Scene::new(1, Vec::new());
        let all = [
            ("gone.test", Some(NameFate::NotFound), Err(NameError::NotFound)),
            ("later.test", Some(NameFate::TryAgain), Err(NameError::TryAgain)),
            ("broken.test", Some(NameFate::Failed), Err(NameError::Failed)),
            ("silent.test", Some(NameFate::Silent), Err(NameError::TimedOut)),
            ("slow.test", Some(NameFate::Slow(SECOND)), Ok(2)),
            ("Fair.test.", None, Ok(2)),
        ];
        for (host, fate, _) in all {
            scene.name(host, &["10.0.0.1", "fd00::1"]).set_name_fate(host, fate);
            scene.net().resolve(host, move |_, heard: &mut Vec<_>, found| {
                heard.push((host, found.map(|all| all.len()).map_err(|error| NameError::of(&error).expect("a resolver's"))));
            });
        }
        scene.net().resolve("fair.TEST", |_, _, found| assert_eq!(found.expect("names have no case").len(), 2));
        scene.passes(31 * SECOND);
        for (host, _, expected) in all {
            assert!(scene.state().contains(&(host, expected)), "{host}: {:?}", scene.state());
        }
    }

    #[test]
    #[cfg(feature = "names")]
    fn the_way_back_is_in_the_simulated_world_too() {
        let mut scene = Scene::new(1, Vec::new());
        scene.name("printer.test", &["10.0.0.7"]);
        for text in ["10.0.0.7", "10.0.0.8"] {
            scene.net().resolve_back(ip(text), |_, heard: &mut Vec<_>, found| {
                heard.push(found.map_err(|error| (NameError::of(&error), error.to_string())));
            });
        }
        scene.settles();
        let unknown = (Some(NameError::NotFound), "`10.0.0.8`: it has no name".to_owned());
        assert_eq!(*scene.state(), [Ok("printer.test".to_owned()), Err(unknown)]);
    }

    /// As a listener for both families has its peers.
    #[test]
    #[cfg(feature = "names")]
    fn an_ipv4_address_mapped_to_ipv6_has_the_name_of_the_ipv4_address() {
        let mut scene = Scene::new(1, Vec::new());
        scene.name("printer.test", &["10.0.0.7"]);
        scene.net().resolve_back(ip("::ffff:10.0.0.7"), |_, heard: &mut Vec<_>, found| heard.push(found.ok()));
        scene.settles();
        assert_eq!(*scene.state(), [Some("printer.test".to_owned())]);
    }

    #[test]
    fn a_connection_ends_in_a_race_as_it_would_at_any_time() {
        let end: [(&str, fn(&mut Sim, Host<Log>, Key)); 5] = [
            ("aborted", |sim, host, key| _ = sim.net(host).abort(key)),
            ("finished", |sim, host, key| _ = sim.net(host).close(key)),
            ("failed: enough", |sim, host, key| _ = sim.net(host).fail(key, "enough")),
            ("the reactor was shut down", |sim, host, _| sim.shutdown(host)),
            ("the deadline passed", |sim, host, key| {
                sim.net(host).link(key).expect("it is open").set_deadline(MILLI);
            }),
        ];
        for (why, end) in end {
            for after in [0, 100, 300, 600] {
                let mut sim = Sim::new(1);
                sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", NameFate::Slow(10 * MILLI));
                sim.set_fate("10.0.0.1:80", Fate::Silent).set_fate("10.0.0.2:80", Fate::Silent);
                let (host, key) = client(&mut sim);
                sim.run_for(after * MILLI);
                assert_eq!(
                    sim.sockets(host),
                    [0, 1, 2, 2][[0, 100, 300, 600].iter().position(|&at| at == after).expect("listed")]
                );
                end(&mut sim, host, key);
                sim.run_for(SECOND);
                assert_eq!(sim.state(host).lines, [why], "after {after} ms");
                assert_eq!(sim.sockets(host), 0);
                assert!(!sim.net(host).send(key, "too late"));
                assert_eq!(sim.net(host).stats().timers, 0);
            }
        }
    }

    /// Notes every byte and every end.
    struct Witness;

    impl Protocol<Vec<String>> for Witness {
        fn received(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, bytes: &[u8]) -> Outcome {
            log.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
            log.push(why.is_clean().to_string());
        }
    }

    /// A witness at both.test, a tenth of a second away, and a client's host.
    fn a_witness_far_away() -> (Sim, Host<Vec<String>>, Host<Log>) {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(100 * MILLI, Duration::ZERO)).name("both.test", &["10.0.0.1"]);
        sim.set_name_fate("both.test", NameFate::Slow(MILLI));
        let witness = sim.host("10.0.0.1", Vec::new());
        sim.net(witness).listen("10.0.0.1:80", || Witness).expect("a free port");
        let host = sim.host("10.0.0.9", Log::default());
        (sim, witness, host)
    }

    /// The peer has accepted already when the client gives up, and does not know it yet.
    #[test]
    fn who_gives_up_a_race_with_something_to_send_ends_with_a_reset_not_a_fin() {
        for (says, times_out) in [("", false), ("half a word", false), ("half a word", true)] {
            let (mut sim, witness, host) = a_witness_far_away();
            let key = sim.net(host).connect_with("both.test:80", Connect::new().timeout(150 * MILLI), Client);
            sim.net(host).send(key, says);
            if !times_out {
                sim.run_for(150 * MILLI - MILLI);
                sim.net(host).fail(key, "enough");
            }
            sim.run_for(SECOND);
            assert_eq!(sim.state(host).closed, 1);
            assert_eq!(*sim.state(witness), [says.is_empty().to_string()], "clean only if nothing is missing");
        }
    }

    /// Found by the model: the peer may see the end before `closed` runs, which accepted tells may put off for long.
    #[test]
    fn the_sockets_of_a_race_close_at_once_when_it_is_given_up() {
        let (mut sim, witness, host) = a_witness_far_away();
        let key = sim.net(host).connect("both.test:80", Client);
        sim.run_for(150 * MILLI - MILLI);
        assert_eq!(sim.sockets(host), 1);
        sim.net(host).fail(key, "enough");
        assert_eq!((sim.sockets(host), sim.state(host).closed), (0, 0), "not first in `closed`");
        sim.run_for(SECOND);
        assert_eq!((sim.state(host).closed, &sim.state(witness)[..]), (1, &["true".to_owned()][..]));
    }

    /// Found by the model: what was sent in that callback is still in the reactor's buffer.
    #[test]
    fn so_does_who_fails_in_the_callback_in_which_it_sends() {
        let (mut sim, witness, host) = a_witness_far_away();
        let key = sim.net(host).connect("both.test:80", Client);
        sim.run_for(150 * MILLI - MILLI);
        let is_told = sim.net(host).tell(key, |_: &mut Client, ctx, _| {
            ctx.send("half a word");
            Err("enough".into())
        });
        assert!(is_told);
        sim.run_for(SECOND);
        assert_eq!(sim.state(host).closed, 1);
        assert_eq!(*sim.state(witness), ["false"]);
    }

    /// Found by the model: an event for one of several sockets is served before anybody has won.
    #[test]
    fn nobody_is_told_writable_before_connected() {
        #[derive(Default)]
        struct Told(Vec<&'static str>);
        struct Sender;
        impl Protocol<Told> for Sender {
            fn connected(&mut self, _: &mut Context<'_, Told>, told: &mut Told) -> Outcome {
                told.0.push("connected");
                Ok(())
            }

            fn received(&mut self, _: &mut Context<'_, Told>, _: &mut Told, _: &[u8]) -> Outcome {
                Ok(())
            }

            fn writable(&mut self, _: &mut Context<'_, Told>, told: &mut Told) -> Outcome {
                told.0.push("writable");
                Ok(())
            }
        }
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(100 * MILLI, Duration::ZERO));
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Refused);
        server(&mut sim, "10.0.0.2");
        let host = sim.host("10.0.0.9", Told::default());
        let key = sim.net(host).connect("both.test:80", Sender);
        let mut net = sim.net(host);
        let mut link = net.link(key).expect("it is open");
        link.send([0; 100]);
        link.set_output_limits(0, 10, 1000);
        assert!(link.is_congested());
        link.set_output_limits(500, 1000, 1000);
        assert!(!link.is_congested());
        sim.run_for(SECOND);
        assert_eq!(sim.state(host).0, ["connected", "writable"]);
    }

    #[test]
    fn a_drain_waits_for_a_connect_by_name_and_asks_it_right_after_connected() {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(50 * MILLI, Duration::ZERO));
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
        server(&mut sim, "10.0.0.2");
        let (host, _) = client(&mut sim);
        sim.net(host).drain(10 * SECOND);
        sim.run_for(5 * SECOND);
        assert_eq!(sim.state(host).lines, ["connected to 10.0.0.2:80", "draining", "finished"]);
        assert!(sim.has_stopped(host));
    }

    /// A polite close while connecting was bounded by the linger deadline, and what was queued was lost with it.
    #[test]
    fn a_polite_close_leaves_connecting_its_own_time_out() {
        let mut sim = Sim::new(1);
        sim.name("slow.test", &["10.0.0.2"]).set_name_fate("slow.test", NameFate::Slow(15 * SECOND));
        sim.set_fate("10.0.0.1:80", Fate::Silent);
        let serving = server(&mut sim, "10.0.0.2");
        let config = Config::new().linger_max(10 * SECOND);
        let calls = [("slow.test:80", "finished"), ("10.0.0.1:80", "could not connect to 10.0.0.1:80: timed out")];
        for (target, reason) in calls {
            let host = sim.host_with(&format!("10.0.1.{}", target.len()), Log::default(), config.clone());
            let key = sim.net(host).connect_with(target, Connect::new().timeout(60 * SECOND), Client);
            assert!(sim.net(host).send(key, "a message") && sim.net(host).close(key));
            sim.run_for(14 * SECOND);
            assert_eq!(sim.state(host).lines, Vec::<String>::new(), "{target}");
            sim.run_for(47 * SECOND);
            assert_eq!(sim.state(host).lines, [reason]);
        }
        assert_eq!(sim.net(serving).stats().bytes_in, 9);
    }

    #[test]
    fn the_grace_of_a_drain_ends_a_lookup_and_a_race() {
        for fate in [None, Some(NameFate::Silent)] {
            let mut sim = Sim::new(1);
            sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", fate);
            sim.set_fate("10.0.0.1:80", Fate::Silent).set_fate("10.0.0.2:80", Fate::Silent);
            let (host, _) = client(&mut sim);
            sim.net(host).drain(SECOND);
            sim.run_for(2 * SECOND);
            assert_eq!(sim.state(host).lines, ["the reactor was shut down"]);
            assert!(sim.has_stopped(host) && sim.sockets(host) == 0);
        }
    }

    #[test]
    fn with_a_port_of_its_own_one_address_is_tried_after_the_other() {
        let mut sim = Sim::new(1);
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
        server(&mut sim, "10.0.0.2");
        let host = sim.host("10.0.0.9", Log::default());
        let local = Connect::new().local(SocketAddr::from(([10, 0, 0, 9], 4711))).timeout(5 * SECOND);
        sim.net(host).connect_with("both.test:80", local.clone(), Client);
        sim.run_for(4 * SECOND);
        assert_eq!((sim.state(host).lines.len(), sim.sockets(host)), (0, 1));
        sim.run_for(2 * SECOND);
        assert_eq!(sim.state(host).lines, ["could not connect to 10.0.0.1:80: timed out"]);
        sim.set_fate("10.0.0.1:80", Fate::Refused);
        sim.net(host).connect_with("both.test:80", local, Client);
        sim.run_for(SECOND);
        assert_eq!(sim.state(host).lines[1..], ["connected to 10.0.0.2:80", "hello"]);
    }

    /// Whatever the weather does: `closed` once, and nothing is left.
    #[test]
    fn in_rough_weather_each_connect_by_name_ends_once_and_leaves_nothing() {
        check(0..300, |sim| {
            sim.set_weather(Weather::rough());
            sim.name("both.test", &["10.0.0.1", "fd00::1", "10.0.0.2"]).name("dead.test", &["10.0.0.7", "fd00::7"]);
            sim.set_fate("[fd00::1]:80", Fate::Silent);
            sim.set_name_fate("slow.test", NameFate::Slow(20 * SECOND)).name("slow.test", &["10.0.0.2"]);
            server(sim, "10.0.0.1");
            server(sim, "10.0.0.2");
            let config = Config::new().resolve_threads(2).resolve_queue(2);
            let host = sim.host_with("10.0.0.9", Log::default(), config);
            let mut keys = Vec::new();
            for round in 0..12 {
                let to = ["both.test:80", "dead.test:80", "slow.test:80", "missing.test:80"][round % 4];
                let key = sim.net(host).connect(to, Client);
                sim.net(host).send(key, "well?");
                keys.push(key);
                let pause = sim.random(2000);
                sim.run_for(Duration::from_millis(pause));
                if sim.random(4) == 0 {
                    sim.net(host).close(key);
                }
            }
            sim.run_for(60 * SECOND);
            for key in keys {
                sim.net(host).close(key);
            }
            sim.run_for(60 * SECOND);
            assert_eq!(sim.state(host).closed, 12);
            assert_eq!(sim.sockets(host), 0);
        });
    }

    /// Found by the model: who is told `connected` by it reads what the peer has said, whatever holds it back.
    #[test]
    fn a_connect_that_fails_on_purpose_is_a_loss() {
        let losses = |number: u64| {
            let mut sim = Sim::new(1);
            server(&mut sim, "10.0.0.2");
            let host = sim.host("10.0.0.9", Log::default());
            sim.fail_operation(host, number, Errno::ConnectionReset, false);
            sim.net(host).connect("10.0.0.2:80", Client);
            sim.run_for(SECOND);
            let [local, peer] = ["10.0.0.9:32768", "10.0.0.2:80"].map(|at| at.parse().expect("an address"));
            let is_lost = sim.losses().includes(local, peer);
            sim.trace().contains("connected fails on purpose").then_some(is_lost)
        };
        let found: Vec<bool> = (0..20).filter_map(losses).collect();
        assert_eq!(found, [true]);
    }

    /// Found by the model: the sibling of a write that fails.
    #[test]
    fn who_was_lost_before_connected_has_nothing_queued_any_more() {
        struct Sender;
        impl Protocol<Vec<usize>> for Sender {
            fn connected(&mut self, ctx: &mut Context<'_, Vec<usize>>, queued: &mut Vec<usize>) -> Outcome {
                queued.push(ctx.queued());
                Ok(())
            }
        }
        let queued = |number: u64| {
            let mut sim = Sim::new(1);
            server(&mut sim, "10.0.0.2");
            let host = sim.host("10.0.0.9", Vec::new());
            sim.fail_operation(host, number, Errno::ConnectionReset, false);
            let key = sim.net(host).connect("10.0.0.2:80", Sender);
            sim.net(host).send(key, "never leaves");
            sim.run_for(SECOND);
            sim.trace().contains("connected fails on purpose").then(|| sim.state(host).clone())
        };
        assert_eq!((0..20).find_map(queued), Some(vec![0]));
    }

    /// The n-th operation fails, for every n: closed once, nothing left.
    #[test]
    fn whatever_fails_on_the_way_it_ends_once() {
        let run = |fault: Option<(u64, Errno, bool)>| {
            let mut sim = Sim::new(1);
            sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
            server(&mut sim, "10.0.0.2");
            let host = sim.host("10.0.0.9", Log::default());
            if let Some((number, errno, is_persistent)) = fault {
                sim.fail_operation(host, number, errno, is_persistent);
            }
            let key = sim.net(host).connect("both.test:80", Client);
            sim.run_for(40 * SECOND);
            sim.net(host).close(key);
            sim.run_for(40 * SECOND);
            assert_eq!((sim.state(host).closed, sim.sockets(host)), (1, 0), "{fault:?}: {:?}", sim.state(host).lines);
            sim.operations(host)
        };
        let operations = run(None);
        assert!((8..200).contains(&operations), "{operations}");
        for number in 0..operations {
            for errno in [Errno::Again, Errno::Interrupted, Errno::TooManyFiles, Errno::ConnectionReset, Errno::NoMemory] {
                run(Some((number, errno, false)));
            }
        }
    }
}
