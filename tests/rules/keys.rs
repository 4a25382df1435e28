//! A key never names another's socket.

use crate::common::{
    Call, FINISHED, Journal, Nothing, On, Talk, assert_sleeps_at_once, by_default, dial, ends_with, guest, is_closed, listen,
    quiet, read_exactly, recorder, say, settle, start, until,
};
use mainspring::{Address, Key, Net, Reactor};
use std::{cell::Cell, io::Write, net::TcpListener, rc::Rc, str, time::Duration};

#[test]
fn a_key_is_never_used_again() {
    let (mut reactor, mut journal) = start();
    let mut keys = Vec::new();
    for _ in 0..20 {
        let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().abort(key);
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(!keys.contains(&key));
        keys.push(key);
    }
    let (alive, _peer) = guest(&mut reactor, &mut journal, quiet);
    for key in keys {
        let mut net = reactor.net();
        assert!(net.link(key).is_none() && net.peer(key).is_none() && net.local(key).is_none());
        assert!(!net.send(key, "x") && !net.close(key) && !net.abort(key) && !net.fail(key, "x") && !net.is_open(key));
        assert!(!net.throttle(key, alive) && !net.throttle(alive, key));
    }
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(alive), [Call::Connected]);
}

#[test]
fn after_closed_a_key_finds_nothing_even_while_its_socket_lingers() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    assert!(reactor.net().peer(key).is_some() && reactor.net().local(key).is_some());
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let net = reactor.net();
    assert!(net.peer(key).is_none() && net.local(key).is_none());
}

#[test]
fn an_event_for_the_gone_reaches_no_successor() {
    let (mut reactor, mut journal) = start();
    let (victim, peer) = guest(&mut reactor, &mut journal, quiet);
    let (_, addr) = listen(&mut reactor, || recorder(quiet as On));
    // In one turn: bytes for the one that is aborted before they are served, and a new one for its slot.
    say(&peer, "for the dead");
    let next = dial(addr);
    reactor.net().abort(victim);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1 && journal.keys().len() >= 2);
    let newcomer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count() == 3);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    drop((next, newcomer));
}

/// Flaw 7: In one turn, A closed B, and C took B's descriptor: C got B's event.
#[test]
fn flaw_07_events_of_the_closed_reach_nobody_else() {
    let ways: [fn(&mut Net<'_, Journal>, Key) -> bool; 3] =
        [|net, key| net.close(key), |net, key| net.abort(key), |net, key| net.fail(key, "kicked")];
    for end in ways {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let silent_at = silent.local_addr().expect("bound");
        let guests: Rc<Cell<[Option<Key>; 2]>> = Rc::default();
        let opened: Rc<Cell<Option<Key>>> = Rc::default();
        let (by_guest, by_opened) = (Rc::clone(&guests), Rc::clone(&opened));
        let (_, addr) = listen(&mut reactor, move || {
            let (guests, opened) = (Rc::clone(&by_guest), Rc::clone(&by_opened));
            recorder(move |ctx, _, call| {
                if let (Call::Received(_), [Some(a), Some(b)]) = (call, guests.get()) {
                    let other = if ctx.key == a { b } else { a };
                    assert!(end(&mut ctx.net, other));
                    opened.set(Some(ctx.net.connect(silent_at, recorder(by_default))));
                }
                Ok(())
            })
        });
        let peers = [dial(addr), dial(addr)];
        until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
        guests.set([Some(journal.calls[0].0), Some(journal.calls[1].0)]);
        // Both are ready in the same turn: whoever is served first ends the other.
        for peer in &peers {
            say(peer, "for you alone");
        }
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        settle(&mut reactor, &mut journal);
        let third = opened.get().expect("one of them opened it");
        assert_eq!(journal.of(third), [Call::Connected], "nobody speaks to it");
        let of_guests = guests.get().map(|key| journal.of(key.expect("set above")));
        let ended = of_guests.iter().find(|calls| calls.iter().any(|call| matches!(call, Call::Closed(_))));
        assert!(matches!(ended.expect("one has ended")[..], [Call::Connected, Call::Closed(_)]), "{of_guests:?}");
        assert_eq!(journal.received(), b"for you alone", "the other had its own, once");
    }
}

/// Both reactors have the same slots with the same histories.
#[test]
fn a_key_and_a_timer_of_another_reactor_find_nothing() {
    let mut all = [start(), start()].map(|(mut reactor, mut journal)| {
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        let timer = reactor.net().after(Duration::from_secs(3600), |_, _| panic!("taken back"));
        (reactor, journal, key, timer, peer)
    });
    let [(_, _, first, first_timer, _), (reactor, journal, own, own_timer, _)] = &mut all;
    let (first, own) = (*first, *own);
    assert!(first != own && first.to_string() == own.to_string() && first_timer != own_timer, "{first} and {own}");
    let mut net = reactor.net();
    assert!(net.link(first).is_none() && net.peer(first).is_none() && net.local(first).is_none() && !net.is_open(first));
    assert!(!net.send(first, "x") && !net.send_shared(first, &b"x"[..].into()) && !net.wake(first));
    assert!(!net.close(first) && !net.abort(first) && !net.half_close(first) && !net.fail(first, "x"));
    assert!(!net.throttle(first, own) && !net.throttle(own, first));
    assert!(!net.tell(first, |_: &mut Nothing, _, _| panic!("told to nobody")));
    assert!(!net.offload_for(first, || (), |_: &mut Nothing, _, _, _: Result<(), _>| panic!("told to nobody")));
    let timer = net.tell_after(first, Duration::ZERO, |_: &mut Nothing, _, _| panic!("told to nobody"));
    assert!(!net.cancel(timer) && !net.cancel(*first_timer) && net.cancel(*own_timer));
    settle(reactor, journal);
    assert_eq!(journal.of(own), [Call::Connected]);
}

/// The first part of a key's text.
fn slot(key: Key) -> Option<String> {
    key.to_string().split('.').next().map(str::to_owned)
}

/// Slots are used again, names are not: elsewhere the wrong entry was removed, or a successor got what was meant for
/// another (sozu, calloop).
#[test]
fn a_stale_key_finds_nothing_when_its_slot_is_used_again() {
    let mut talk = Talk::new(by_default);
    let old = talk.key;
    assert!(talk.reactor.net().abort(old));
    talk.until(|journal| journal.closings() == 1);
    talk.settle();
    let addr = talk.reactor.net().local(talk.listener).and_then(Address::ip).expect("an IP listener");
    let mut peer = dial(addr);
    talk.until(|journal| journal.calls.last().is_some_and(|(_, call)| *call == Call::Connected));
    let new = talk.journal.calls.last().expect("just looked at").0;
    assert!(old != new && slot(old) == slot(new), "{old} and {new}");

    let mut net = talk.reactor.net();
    assert!(net.link(old).is_none() && !net.is_open(old) && net.peer(old).is_none() && net.local(old).is_none());
    assert!(!net.send(old, "x") && !net.close(old) && !net.abort(old) && !net.half_close(old) && !net.fail(old, "x"));
    assert!(!net.throttle(old, new) && !net.throttle(new, old));
    assert!(!net.tell(old, |_: &mut Nothing, _, _| panic!("told to nobody")));
    let timer = net.tell_after(old, Duration::ZERO, |_: &mut Nothing, _, _| panic!("told to nobody"));
    assert!(!net.cancel(timer), "it is not even set");
    talk.settle();
    assert!(talk.reactor.net().send(new, "alive"));
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut peer, 5), b"alive");
    assert_eq!(talk.journal.of(new), [Call::Connected]);
}

#[cfg(unix)]
mod stale_events {
    use super::*;
    use mainspring::{Dispatcher, Drained, Fault, Scope, Source};
    use std::os::{fd::AsFd, unix::net::UnixStream};

    /// Counts how often it is called.
    struct Watching {
        socket: Rc<UnixStream>,
        /// What it says instead, when it is set: a dispatcher must not do that.
        lie: Rc<Cell<bool>>,
        other: UnixStream,
    }

    impl Watching {
        fn new(socket: &Rc<UnixStream>) -> Self {
            let (other, _) = UnixStream::pair().expect("a pair");
            Self { socket: Rc::clone(socket), lie: Rc::default(), other }
        }
    }

    impl Dispatcher<u32> for Watching {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(if self.lie.get() { self.other.as_fd() } else { self.socket.as_fd() })
        }

        fn readable(&mut self, _: &mut Scope<'_, u32>, calls: &mut u32) -> Result<Drained, Fault> {
            *calls += 1;
            Ok(Drained::Yes)
        }
    }

    fn pair() -> (Rc<UnixStream>, UnixStream) {
        let (socket, peer) = UnixStream::pair().expect("a pair");
        socket.set_nonblocking(true).expect("a socket option");
        (Rc::new(socket), peer)
    }

    /// A descriptor that lives on keeps the selector reporting it. So it is deregistered, and the loop sleeps.
    #[test]
    fn what_a_closed_dispatcher_watched_wakes_nobody() {
        let (socket, mut peer) = pair();
        let (mut reactor, mut calls) = (Reactor::new().expect("a selector"), 0);
        let key = reactor.net().watch(Watching::new(&socket)).expect("a socket");
        settle(&mut reactor, &mut calls);
        reactor.net().close(key);
        settle(&mut reactor, &mut calls);
        peer.write_all(b"anybody?").expect("we have the other end");
        assert_sleeps_at_once(&mut reactor, &mut calls);
        assert_eq!(calls, 0);
    }

    /// Where that fails, events come for a token that nobody has any more (CVE-2024-27308); and its slot may have a new
    /// owner, who is not called.
    #[test]
    fn an_event_for_the_gone_does_not_reach_the_next_owner_of_the_slot() {
        let (socket, mut peer) = pair();
        let (silent, _its_peer) = pair();
        let (mut reactor, mut calls) = (Reactor::new().expect("a selector"), 0);
        let watching = Watching::new(&socket);
        let lie = Rc::clone(&watching.lie);
        let old = reactor.net().watch(watching).expect("a socket");
        settle(&mut reactor, &mut calls);
        lie.set(true);
        reactor.net().close(old);
        settle(&mut reactor, &mut calls);
        let new = reactor.net().watch(Watching::new(&silent)).expect("a socket");
        assert!(old != new && slot(old) == slot(new), "{old} and {new}");
        settle(&mut reactor, &mut calls);
        peer.write_all(b"anybody?").expect("we have the other end");
        settle(&mut reactor, &mut calls);
        assert_eq!(calls, 0);
    }
}
