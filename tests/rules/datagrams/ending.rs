use super::common::*;
#[cfg(unix)]
use std::os::unix::net::UnixDatagram;

#[test]
fn run_goes_on_while_there_is_one_and_a_drain_ends_it() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    assert!(reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"), "something may come");
    reactor.net().drain(Duration::from_secs(60));
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.of(key), [Told::Closed(Reason::Drained.to_string())]);
}

/// As of streams: what had come is received, and what waits leaves.
#[test]
fn what_had_come_when_a_drain_begins_is_received_and_answered() {
    let (mut reactor, mut journal) = reactor();
    let options = Bind::new().buffers(4 << 20, 4 << 20);
    let key = reactor.net().bind_with("127.0.0.1:0", options, echo()).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    for _ in 0..500 {
        peer.send_to(b"x", to).expect("it is sent");
    }
    reactor.net().drain(Duration::from_secs(60));
    reactor.run(&mut journal).expect("the selector works");
    let told = journal.of(key);
    assert_eq!((told.len(), told.last()), (501, Some(&Told::Closed(Reason::Drained.to_string()))));
    assert_eq!(reactor.stats().datagrams_out, 500);
}

/// What is sent at the very end, and fails, is told.
#[test]
fn what_fails_in_a_drain_is_told_before_the_end() {
    let (mut reactor, mut journal) = reactor();
    let datagram = recorder(|scope, told| {
        if matches!(told, Told::Received(..)) {
            let key = scope.key;
            scope.net.send_to(key, &nowhere(), "x");
        }
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", datagram).expect("a free port");
    peer().send_to(b"hello", local(&mut reactor, key)).expect("it is sent");
    reactor.net().drain(PATIENCE);
    reactor.run(&mut journal).expect("the selector works");
    let told = journal.of(key);
    let [Told::Received(..), Told::Failed(to, ..), Told::Closed(why)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((to, why), (&nowhere(), &Reason::Drained.to_string()));
}

/// One that finishes in `draining` is waited for, and no longer than the grace.
#[test]
fn who_drains_by_itself_is_waited_for() {
    struct Asks(Address);
    impl Datagram<Vec<String>> for Asks {
        fn received(&mut self, scope: &mut Scope<'_, Vec<String>>, log: &mut Vec<String>, _: &[u8], _: &Address) -> Outcome {
            log.push("answered".into());
            scope.close();
            Ok(())
        }
        fn draining(&mut self, scope: &mut Scope<'_, Vec<String>>, log: &mut Vec<String>) -> Outcome {
            log.push("draining".into());
            let key = scope.key;
            scope.net.send_to(key, &self.0, "one question more");
            Ok(())
        }
        fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
            log.push(why.to_string());
        }
    }
    for answers in [true, false] {
        let (mut reactor, mut log) = (Reactor::new().expect("a selector"), Vec::new());
        let peer = peer();
        let to = Address::Ip(peer.local_addr().expect("it is bound"));
        reactor.net().bind("127.0.0.1:0", Asks(to)).expect("a free port");
        reactor.net().drain(if answers { PATIENCE } else { Duration::from_millis(50) });
        until(&mut reactor, &mut log, |log| !log.is_empty());
        let mut buf = [0; 100];
        let (_, from) = uninterrupted(|| peer.recv_from(&mut buf)).expect("it asks");
        if answers {
            peer.send_to(b"answer", from).expect("it is sent");
        }
        reactor.run(&mut log).expect("the selector works");
        let wanted: &[&str] =
            if answers { &["draining", "answered", "finished"] } else { &["draining", "the reactor was shut down"] };
        assert_eq!(log, wanted);
    }
}

#[test]
fn an_err_or_a_panic_in_draining_ends_this_socket_alone() {
    struct Fails(bool);
    impl Datagram<Vec<String>> for Fails {
        fn received(&mut self, _: &mut Scope<'_, Vec<String>>, _: &mut Vec<String>, _: &[u8], _: &Address) -> Outcome {
            Ok(())
        }
        fn draining(&mut self, _: &mut Scope<'_, Vec<String>>, _: &mut Vec<String>) -> Outcome {
            if self.0 { panic!("on purpose") } else { Err("on purpose".into()) }
        }
        fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
            log.push(why.to_string());
        }
    }
    let (mut reactor, mut log) = (Reactor::new().expect("a selector"), Vec::new());
    reactor.net().bind("127.0.0.1:0", Fails(true)).expect("a free port");
    reactor.net().bind("127.0.0.1:0", Fails(false)).expect("a free port");
    reactor.net().drain(PATIENCE);
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(log, ["panicked: on purpose", "failed: on purpose"]);
}

/// What others say in their `closed` still leaves.
#[test]
fn in_a_drain_and_in_a_shutdown_it_is_the_last() {
    struct Last(Rc<RefCell<Vec<&'static str>>>, Key, Address);
    impl mainspring::Protocol<Journal> for Last {
        fn closed(&mut self, ctx: &mut mainspring::Context<'_, Journal>, _: &mut Journal, _: Reason) {
            self.0.borrow_mut().push("connection");
            ctx.net.send_to(self.1, &self.2, "last words");
        }
    }
    for drains in [true, false] {
        let (mut reactor, mut journal) = reactor();
        let order = Rc::new(RefCell::new(Vec::new()));
        let inner = Rc::clone(&order);
        let datagram = recorder(move |_, told| {
            if matches!(told, Told::Closed(_)) {
                inner.borrow_mut().push("datagrams");
            }
            Ok(())
        });
        let peer = peer();
        let to = Address::Ip(peer.local_addr().expect("it is bound"));
        let key = reactor.net().bind("127.0.0.1:0", datagram).expect("a free port");
        let listener = reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("it listens");
        reactor.net().connect(at, Last(Rc::clone(&order), key, to));
        settle(&mut reactor, &mut journal);
        if drains {
            reactor.net().drain(Duration::from_secs(60));
            reactor.run(&mut journal).expect("the selector works");
            assert_eq!(*order.borrow(), ["connection", "datagrams"]);
            assert_eq!(hears(&peer), b"last words");
        } else {
            reactor.shutdown(&mut journal);
            assert_eq!(*order.borrow(), ["connection", "datagrams"]);
        }
    }
}

#[test]
fn nothing_is_bound_during_a_shutdown() {
    let (mut reactor, mut journal) = reactor();
    let seen = Rc::new(RefCell::new(None));
    let inner = Rc::clone(&seen);
    let datagram = recorder(move |scope, told| {
        if matches!(told, Told::Closed(_)) {
            *inner.borrow_mut() = scope.net.bind("127.0.0.1:0", silent()).err().map(|error| error.kind());
        }
        Ok(())
    });
    reactor.net().bind("127.0.0.1:0", datagram).expect("a free port");
    reactor.shutdown(&mut journal);
    assert_eq!(*seen.borrow(), Some(ErrorKind::NotConnected));
}

/// In each of its callbacks; the other goes on.
#[test]
fn an_err_or_a_panic_in_any_callback_ends_this_socket_alone() {
    for (which, panics) in (0..4).flat_map(|which| [(which, false), (which, true)]) {
        let (mut reactor, mut journal) = reactor();
        let fails = recorder(move |_, told| {
            let is_it = match told {
                Told::Received(..) => which == 0,
                Told::Oversized(..) => which == 1,
                Told::Failed(..) => which == 2,
                Told::Closed(_) => which == 3,
                Told::Writable => false,
            };
            match is_it {
                true if panics => panic!("on purpose"),
                true => Err("on purpose".into()),
                false => Ok(()),
            }
        });
        let options = Bind::new().largest(10);
        let key = reactor.net().bind_with("127.0.0.1:0", options, fails).expect("a free port");
        let other = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
        let (to, other_at, peer) = (local(&mut reactor, key), local(&mut reactor, other), peer());
        match which {
            0 => _ = peer.send_to(b"x", to).expect("it is sent"),
            1 => _ = peer.send_to(&[0; 100], to).expect("it is sent"),
            2 => _ = reactor.net().send_to(key, &Address::Unix(None), "x"),
            _ => _ = reactor.net().close(key),
        }
        until(&mut reactor, &mut journal, |journal| journal.of(key).iter().any(|told| matches!(told, Told::Closed(_))));
        peer.send_to(b"ping", other_at).expect("it is sent");
        until(&mut reactor, &mut journal, |journal| journal.of(other).len() == 1);
        assert_eq!(hears(&peer), b"ping");
        let why = match which {
            3 => Reason::Finish.to_string(),
            _ if panics => "panicked: on purpose".to_owned(),
            _ => "on purpose".to_owned(),
        };
        let last = journal.of(key).last().cloned();
        assert!(matches!(&last, Some(Told::Closed(text)) if text.contains(&why)), "{which} {panics}: {last:?}");
        assert_eq!(journal.of(key).iter().filter(|told| matches!(told, Told::Closed(_))).count(), 1);
    }
}

#[test]
fn what_is_dropped_with_the_reactor_is_told_nothing() {
    let (mut reactor, journal) = reactor();
    reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    drop(reactor);
    assert!(journal.told.is_empty());
}

#[test]
fn it_is_named_among_the_connections() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
    let (at, peer) = (local(&mut reactor, key), peer());
    peer.send_to(b"hello", at).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    let all = reactor.net().connections();
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.key, one.kind, one.peer.clone()), (key, mainspring::Kind::Datagrams, Address::Ip(at)));
    assert_eq!((one.bytes_in, one.bytes_out, one.queued), (5, 5, 0));
    assert!(one.protocol.contains("Recorder"), "{}", one.protocol);
}

#[cfg(unix)]
#[test]
fn a_thousand_rounds_of_bind_and_close_leave_no_descriptor() {
    let open = || std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
    let (mut reactor, mut journal) = reactor();
    let mut round = || {
        let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
        reactor.net().close(key);
        let closed = journal.told.len();
        until(&mut reactor, &mut journal, |journal| journal.told.len() > closed);
    };
    round();
    let before = open();
    (0..1_000).for_each(|_| round());
    // Other tests of this process open and close some meanwhile.
    assert!(open() < before + 500, "{} descriptors, and {before} before", open());
}

/// by an `Err` too, what waits to be sent leaves if the kernel takes it at once.
#[cfg(unix)]
#[test]
fn what_waits_leaves_when_an_err_ends_the_socket() {
    for fails in [false, true] {
        let (slow, other) = UnixDatagram::pair().expect("two descriptors");
        slow.set_nonblocking(true).expect("a socket option");
        let slow = Rc::new(slow);
        let inner = Rc::clone(&slow);
        let (mut reactor, mut journal) = reactor();
        let datagram = recorder(move |scope, told| {
            let Told::Received(..) = told else { return Ok(()) };
            while inner.recv(&mut [0; 10]).is_ok() {}
            if fails {
                return Err("on purpose".into());
            }
            scope.close();
            Ok(())
        });
        let key = reactor.net().bind_on(other, Bind::new(), datagram).expect("a socket of packets");
        while reactor.net().connections()[0].queued == 0 {
            assert!(reactor.net().send(key, "fill"));
        }
        slow.send(b"end").expect("it is sent");
        until(&mut reactor, &mut journal, |journal| closed(journal, key));
        assert_eq!(uninterrupted(|| slow.recv(&mut [0; 10])).ok(), Some(4), "what waited, by an Err: {fails}");
    }
}

/// a drain, and a shutdown, end it last; until then others may answer by it.
#[test]
fn others_may_answer_by_it_until_they_have_ended() {
    use mainspring::{Context, Dispatcher, Protocol, Source};

    struct Last(Key, Address);
    impl Protocol<Journal> for Last {
        fn closed(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal, _: Reason) {
            ctx.net.send_to(self.0, &self.1, "connection");
        }
    }
    struct Watch(mio::net::UdpSocket, Key, Address);
    impl Dispatcher<Journal> for Watch {
        fn source(&mut self) -> Source<'_> {
            Source::Mio(&mut self.0)
        }
        fn closed(&mut self, scope: &mut Scope<'_, Journal>, _: &mut Journal, _: Reason) {
            scope.net.send_to(self.1, &self.2, "dispatcher");
        }
    }

    let mut wrong = Vec::new();
    for (drains, dispatches) in [(true, false), (false, false), (true, true), (false, true)] {
        let (mut reactor, mut journal) = reactor();
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = Address::Ip(peer.local_addr().expect("it is bound"));
        peer.set_nonblocking(true).expect("a socket option");
        let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
        if dispatches {
            reactor.net().watch(Watch(watched(), key, to)).expect("it can be watched");
        } else {
            let listener = reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
            let at = reactor.net().local(listener).and_then(Address::ip).expect("it listens");
            reactor.net().connect(at, Last(key, to));
            settle(&mut reactor, &mut journal);
        }
        if drains {
            reactor.net().drain(Duration::from_secs(60));
            reactor.run(&mut journal).expect("the selector works");
        } else {
            reactor.shutdown(&mut journal);
        }
        if uninterrupted(|| peer.recv(&mut [0; 20])).is_err() {
            wrong.push((if drains { "drain" } else { "shutdown" }, if dispatches { "dispatcher" } else { "connection" }));
        }
    }
    assert!(wrong.is_empty(), "not heard: {wrong:?}");
}

#[test]
fn a_panic_that_propagates_ends_the_socket_first_and_the_others_go_on() {
    let config = mainspring::Config::new().panics(mainspring::Panics::Propagate).turn_datagrams(1).turn_bytes(1);
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let panics = recorder(|_, told| if matches!(told, Told::Received(..)) { panic!("on purpose") } else { Ok(()) });
    let key = reactor.net().bind("127.0.0.1:0", panics).expect("a free port");
    let other = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
    let (to, other_at, peer) = (local(&mut reactor, key), local(&mut reactor, other), peer());
    peer.send_to(b"x", to).expect("it is sent");
    peer.send_to(b"x", to).expect("it is sent");
    let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        (0..10).for_each(|_| _ = reactor.turn(&mut journal, PATIENCE).expect("the selector works"));
    }));
    assert!(turned.is_err() && journal.of(key).len() == 2 && closed(&journal, key), "{:?}", journal.told);
    peer.send_to(b"ping", other_at).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.of(other).len() == 1);
    assert_eq!(hears(&peer), b"ping");
}

/// It ends others, itself, and is ended by others, in each callback; each `closed` comes once, and is the last.
#[test]
fn who_ends_itself_and_others_anywhere_is_told_its_end_once_and_last() {
    for which in 0..3 {
        let (mut reactor, mut journal) = reactor();
        let keys: Rc<RefCell<Vec<Key>>> = Rc::default();
        let make = || {
            let keys = Rc::clone(&keys);
            recorder(move |scope: &mut Scope<'_, Journal>, told: &Told| {
                let is_it = match told {
                    Told::Received(..) => which == 0,
                    Told::Failed(..) => which == 1,
                    Told::Closed(_) => which == 2,
                    _ => false,
                };
                if is_it {
                    for &key in &*keys.borrow() {
                        scope.net.abort(key);
                        scope.net.send_to(key, &Address::Fd, "x");
                    }
                }
                Ok(())
            })
        };
        for _ in 0..3 {
            let key = reactor.net().bind("127.0.0.1:0", make()).expect("a free port");
            keys.borrow_mut().push(key);
        }
        let peer = peer();
        for &key in &*keys.borrow() {
            let at = local(&mut reactor, key);
            peer.send_to(b"x", at).expect("it is sent");
            reactor.net().send_to(key, &Address::Fd, "x");
        }
        if which == 2 {
            reactor.net().close(keys.borrow()[1]);
        }
        until(&mut reactor, &mut journal, |journal| keys.borrow().iter().all(|&key| closed(journal, key)));
        settle(&mut reactor, &mut journal);
        for &key in &*keys.borrow() {
            let told = journal.of(key);
            assert_eq!(told.iter().filter(|told| matches!(told, Told::Closed(_))).count(), 1);
            assert!(matches!(told.last(), Some(Told::Closed(_))), "{told:?}");
        }
    }
}
