use super::common::*;
use std::{cell::RefCell, rc::Rc, time::Duration};

#[test]
fn run_goes_on_while_there_is_one_and_a_drain_ends_it() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    assert!(reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"), "something may come");
    reactor.net().drain(Duration::from_secs(60));
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.of(key), [Told::Closed(Reason::Shutdown.to_string())]);
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
        struct Quiet;
        impl mainspring::Protocol<Journal> for Quiet {}
        let listener = reactor.net().listen("127.0.0.1:0", || Quiet).expect("a free port");
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
