//! What may be asked and done while a connection is not there yet, and how that ends.

use crate::common::{
    Call, Ctx, Journal, Nothing, On, PATIENCE, TICK, assert_sleeps, by_default, closing_of, dial, is_closed, listen, ms, nobody,
    opened, pass, quiet, read_exactly, recorder, reset, start, turn, until,
};
use mainspring::{Address, Config, Connect, Context, Listen, Net, Outcome, Protocol, Reactor, Reason, Refusal, Target};
use std::{
    cell::RefCell,
    io::ErrorKind,
    net::TcpListener,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn a_send_to_a_connecting_key_is_counted_and_leaves_before_what_connected_sends() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.send("second");
        }
        Ok(())
    });
    assert!(reactor.net().send(key, "first "));
    assert_eq!(reactor.net().link(key).expect("open").queued(), 6);
    let (mut peer, _) = listener.accept().expect("it connects");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 12), b"first second");
}

#[test]
fn a_send_to_a_connecting_key_is_dropped_with_it() {
    let (mut reactor, mut journal) = start();
    let (_socket, nobody) = nobody();
    let key = reactor.net().connect(nobody, recorder(quiet as On));
    reactor.net().send(key, "never");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key).len(), 1);
    assert!(closing_of(&journal, key).expect("closed").contains(&nobody.to_string()));
}

/// Asks for its ends in every callback.
struct Asks {
    to: String,
    asked: Rc<RefCell<Vec<(bool, String)>>>,
}

impl Asks {
    fn ask(&self, ctx: &Ctx<'_>) {
        let _ = ctx.local();
        self.asked.borrow_mut().push((ctx.peer().to_string() == self.to, ctx.peer().to_string()));
    }
}

impl Protocol<Journal> for Asks {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        self.ask(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        self.ask(ctx);
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn peer_never_panics_and_is_the_target_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let there = listener.local_addr().expect("bound").to_string();
    let (_socket, nobody) = nobody();
    for to in [there.as_str(), &nobody.to_string(), "unix:/nowhere/at/all", "no.such.name.example:80", "not an address"] {
        let (mut reactor, mut journal) = start();
        let asked = Rc::new(RefCell::new(Vec::new()));
        let key = reactor.net().connect(to, Asks { to: to.into(), asked: Rc::clone(&asked) });
        assert_eq!(reactor.net().peer(key).expect("the key is good at once").to_string(), to);
        reactor.net().tell(key, |asks: &mut Asks, ctx, _| {
            asks.ask(ctx);
            Ok(())
        });
        pass(&mut reactor, &mut journal, TICK);
        reactor.net().abort(key);
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(!asked.borrow().is_empty() && asked.borrow().iter().all(|(same, _)| *same), "{to}: {asked:?}");
        assert!(reactor.net().peer(key).is_none());
    }
}

#[test]
fn nodelay_is_on_for_accepted_and_opened_connections() {
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || recorder(quiet as On));
    let opened = reactor.net().connect(addr, recorder(quiet as On));
    until(&mut reactor, &mut journal, |journal| journal.keys().len() == 2);
    assert!(journal.keys().contains(&opened));
    for key in journal.keys() {
        let mut net = reactor.net();
        let link = net.link(key).expect("it is open");
        assert!(link.with_socket(|socket| socket.tcp_nodelay().expect("a TCP socket")).expect("there is a socket"));
    }
}

/// Closed while it was connecting, with something queued, and reset before the loop looked: it stayed until the linger
/// deadline, and its reason was that.
#[test]
fn a_connect_that_is_closed_and_reset_before_it_is_looked_at_ends_at_once() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    server.set_nonblocking(true).expect("a socket option");
    let at = server.local_addr().expect("it is bound");
    let config = || Config::new().linger_max(PATIENCE * 100).resolver(move |_| Ok(vec![at.ip()]));
    // Straight to an address, and by a race.
    for target in [Target::from(at), Target::from(("some.host", at.port()))] {
        let mut reactor = Reactor::with_config(config()).expect("a selector");
        let mut journal = Journal::default();
        let key = reactor.net().connect(target, recorder(quiet));
        assert!(reactor.net().send(key, "hello") && reactor.net().close(key));
        until(&mut reactor, &mut journal, |_| {
            server.accept().is_ok_and(|(peer, _)| {
                reset(peer);
                true
            })
        });
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        let calls = journal.of(key);
        assert!(matches!(&calls[..], [Call::Closed(why)] if why.starts_with("connection lost")), "{calls:?}");
    }
}

/// The time-out of a connect that the kernel had finished long ago, while somebody's callback held the loop up.
#[test]
fn a_connect_that_is_done_is_not_given_up_because_nobody_has_looked() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = server.local_addr().expect("it is bound");
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    reactor.net().post(move |net, _| {
        net.connect_with(at, Connect::new().timeout(ms(1)), recorder(quiet));
        let began = Instant::now();
        while began.elapsed() < ms(5) {
            std::hint::spin_loop();
        }
    });
    until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
    assert_eq!(journal.calls[0].1, Call::Connected);
}

/// `local` asked for before there was a socket was remembered as "no socket" for ever.
#[cfg(target_os = "linux")] // elsewhere a full backlog refuses
#[test]
fn local_is_asked_again_once_there_is_a_socket() {
    let path = std::env::temp_dir().join(format!("mainspring-rules-{}.sock", std::process::id()));
    let mut server = Reactor::<()>::new().expect("a selector");
    let accept = |_: &mut Net<'_, ()>, _: &mut (), _: &Address| -> Result<Nothing, Refusal> { Ok(Nothing) };
    server.net().listen_with(path.clone(), Listen::new().backlog(0), accept).expect("a free path");
    let _first = std::os::unix::net::UnixStream::connect(&path).expect("there is room for one");
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let key = reactor.net().connect(path, recorder(quiet));
    assert_eq!(reactor.net().local(key), Some(&Address::Fd), "the backlog is full, so there is no socket");
    until(&mut reactor, &mut journal, |journal| {
        turn(&mut server, &mut (), ms(1));
        !journal.calls.is_empty()
    });
    assert_eq!(journal.calls[0].1, Call::Connected);
    assert_eq!(reactor.net().local(key), Some(&Address::Unix(None)));
}

/// Keeps the reason itself.
struct Ending;

impl Protocol<Vec<Reason>> for Ending {
    fn connected(&mut self, _: &mut Context<'_, Vec<Reason>>, _: &mut Vec<Reason>) -> Outcome {
        panic!("nobody is there")
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<Reason>>, endings: &mut Vec<Reason>, why: Reason) {
        endings.push(why);
    }
}

/// Flaw 4: A failed connect came as an "uncaptured python exception", through the handler of errors of one's own.
#[test]
fn flaw_04_a_failed_connect_is_closed_alone_with_its_stage_and_errno() {
    let refusing = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (mut reactor, mut endings) = (Reactor::new().expect("a selector"), Vec::new());
    let key = reactor.net().connect(refusing, Ending);
    assert!(reactor.net().send(key, "queued, and dropped"), "it is not known yet");
    reactor.run(&mut endings).expect("the selector works");
    let [Reason::Connect(error)] = &endings[..] else { panic!("{endings:?}") };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.raw_os_error().is_some());
    assert_eq!(error.tried()[0].0, Address::Ip(refusing));
    assert!(endings[0].is_connect());
}

/// The same for a socket that is not connected yet: the listener's queue is full, and Linux does not answer.
#[cfg(target_os = "linux")]
#[test]
fn flaw_08_a_connection_that_waits_is_left_alone() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let loopback: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&loopback.into()).expect("a free port");
    listener.listen(0).expect("it is bound");
    let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound");
    let _first = dial(addr);
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let key = reactor.net().connect(addr, recorder(by_default));
    for _ in 0..50 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_sleeps(&mut reactor, &mut journal);
    assert!(journal.calls.is_empty(), "{journal:?}");
    assert!(reactor.net().is_open(key));
}

/// Flaw 19: `connected` was still False inside handle_connect.
#[test]
fn flaw_19_inside_connected_it_is_connected() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let key = reactor.net().connect(
        addr,
        recorder(move |ctx, _, call| {
            if *call == Call::Connected {
                let key = ctx.key;
                assert!(ctx.net.is_open(key));
                assert!(format!("{:?}", ctx.link()).contains("is_connected: true"));
                assert_eq!(ctx.peer(), &Address::Ip(addr));
                assert!(ctx.link().with_socket(|socket| socket.peer_addr().is_ok()).expect("there is a socket"));
                write!(ctx, "I am {}", ctx.local().clone());
            }
            by_default(ctx, &mut Journal::default(), call)
        }),
    );
    let (mut peer, from) = listener.accept().expect("it dialled");
    let text = format!("I am {from}");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, text.len()), text.as_bytes());
    assert_eq!(journal.of(key), [Call::Connected], "its assertions hold");
}
