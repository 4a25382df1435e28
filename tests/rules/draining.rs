//! Drains.

use crate::common::{
    Call, Ctx, FINISHED, Journal, LONG, On, PATIENCE, SHORT, SHUT_DOWN, Stranger, Talk, closing_of, count, dial, ends_with,
    guest, is_closed, listen, opened, pass, quiet, recorder, settle, start, stuff, turn, until,
};
use mainspring::{Address, Dispatcher, Listen, Net, Outcome, Reactor, Reason, Refusal, Scope, Source};
use std::{
    cell::Cell,
    net::TcpListener,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn a_drain_closes_listeners_and_asks_accepted_connections_to_finish() {
    let (mut reactor, mut journal) = start();
    let (listener, addr) = listen(&mut reactor, || recorder(quiet as On));
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.calls[0].0;
    reactor.net().link(key).expect("open").pause();
    reactor.net().drain(PATIENCE);
    assert!(reactor.net().is_draining());
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    assert!(!reactor.net().is_open(listener) && reactor.net().local(listener).is_none());
    assert!(reactor.net().is_open(key), "it may take its time");
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some(FINISHED));
    assert_eq!(count(&journal, key, &Call::Draining), 1);
    assert!(!reactor.net().is_draining());
}

#[test]
fn a_drain_counts_those_it_found_and_those_its_grace_was_too_short_for() {
    let (mut reactor, mut journal) = start();
    let stay: On = |_, _, _| Ok(());
    let (stays, _peer) = guest(&mut reactor, &mut journal, stay);
    let (goes, _other) = guest(&mut reactor, &mut journal, stay);
    reactor.net().drain(SHORT);
    assert_eq!((reactor.stats().to_drain, reactor.stats().undrained), (2, 0));
    reactor.net().close(goes);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!((reactor.stats().to_drain, reactor.stats().undrained), (2, 1));
    assert_eq!(journal.of(stays).last(), Some(&Call::Closed(Reason::Shutdown.to_string())));
}

/// The last word counts, be it longer or shorter.
#[cfg(feature = "sim")]
#[test]
fn a_drain_that_is_asked_for_again_counts_its_grace_anew() {
    use crate::common::{Recorded, SECOND, dialogue};
    for (first, second) in [(2, 10), (10, 2)] {
        let mut t = dialogue(quiet);
        t.scene().net().drain(first * SECOND);
        t.passes(SECOND).gets(&[Call::Draining]);
        t.scene().net().drain(second * SECOND);
        t.passes(second * SECOND - Duration::from_nanos(1)).gets(&[]);
        t.passes(Duration::from_nanos(1)).gets(&[Call::Closed(SHUT_DOWN.into())]);
        t.passes(20 * SECOND).gets(&[]);
    }
}

#[test]
fn connections_that_we_opened_are_asked_when_no_accepted_one_remains() {
    let (mut reactor, mut journal) = start();
    let (accepted, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (ours, listener) = opened(&mut reactor, quiet);
    let _other = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| !journal.of(ours).is_empty());
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| count(journal, accepted, &Call::Draining) == 1);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(ours), [Call::Connected]);
    reactor.net().close(accepted);
    until(&mut reactor, &mut journal, |journal| count(journal, ours, &Call::Draining) == 1);
    reactor.net().close(ours);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.closings(), 2);
}

#[test]
fn one_still_connecting_gets_draining_right_after_connected() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().drain(PATIENCE);
    let _peer = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 2);
    assert_eq!(journal.of(key), [Call::Connected, Call::Draining]);
}

#[test]
fn connect_stays_allowed_during_a_drain() {
    let (mut reactor, mut journal) = start();
    let (accepted, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    let (key, listener) = opened(&mut reactor, quiet);
    let _other = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
    assert_eq!(journal.of(key), [Call::Connected]);
    reactor.net().close(accepted);
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 2);
    assert_eq!(journal.of(key)[1], Call::Draining);
}

/// As for the data connection of a transfer that is to finish.
#[test]
fn whom_a_listener_lets_in_that_is_opened_during_a_drain_is_waited_for_and_not_asked() {
    let (mut reactor, mut journal) = start();
    let (control, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| count(journal, control, &Call::Draining) == 1);
    let (listener, addr) = listen(&mut reactor, || recorder(quiet as On));
    let _other = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.iter().any(|(key, _)| *key != control));
    let data = journal.calls.last().expect("just seen").0;
    reactor.net().close(control);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(data), [Call::Connected]);
    assert!(reactor.net().is_open(listener) && reactor.net().is_draining());
    reactor.net().close(data);
    reactor.run(&mut journal).expect("the selector works");
    assert!(!reactor.net().is_open(listener), "nobody is left who could want it");
    assert_eq!(closing_of(&journal, data).as_deref(), Some(FINISHED));
}

#[test]
fn neither_timers_nor_a_live_remote_keep_a_draining_run() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Draining {
            ctx.close();
        }
        Ok(())
    });
    let _remote = reactor.remote();
    reactor.net().every(Duration::from_millis(1), |_, _| {});
    reactor.net().drain(PATIENCE * 100);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
}

#[test]
fn what_is_left_after_the_grace_ends_with_shutdown() {
    let (mut reactor, mut journal) = start();
    let (stubborn, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (flushing, _other) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, flushing);
    reactor.net().close(flushing);
    let began = Instant::now();
    reactor.net().drain(SHORT);
    reactor.run(&mut journal).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
    for key in [stubborn, flushing] {
        assert_eq!(closing_of(&journal, key).as_deref(), Some(SHUT_DOWN));
    }
    assert!(journal.has(&Call::Draining));
}

#[test]
fn after_the_grace_connect_opens_nothing() {
    let (mut reactor, mut journal) = start();
    let dropped = Rc::new(Cell::new(false));
    let seen = Rc::clone(&dropped);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.net.connect("127.0.0.1:1", Stranger { dropped: Some(Rc::clone(&seen)) });
            assert!(!ctx.net.is_open(key) && ctx.net.peer(key).is_none(), "its key is stale");
        }
        Ok(())
    });
    reactor.net().drain(Duration::ZERO);
    reactor.run(&mut journal).expect("the selector works");
    assert!(dropped.get());
    assert_eq!(journal.closings(), 1);
    assert!(!journal.has(&Call::Closed("panicked".into())));
}

#[test]
fn a_second_drain_with_less_grace_is_heard() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE * 100);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    reactor.net().drain(Duration::ZERO);
    ends_with(&mut reactor, &mut journal, key, SHUT_DOWN);
    assert_eq!(count(&journal, key, &Call::Draining), 1);
}

#[test]
fn the_grace_of_a_drain_that_is_over_does_not_cut_the_next_one_short() {
    let (mut reactor, mut journal) = start();
    reactor.net().drain(SHORT);
    reactor.run(&mut journal).expect("nothing is left");
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE * 100);
    pass(&mut reactor, &mut journal, LONG);
    assert!(reactor.net().is_open(key), "its own grace is long");
}

/// A guest was not counted while its factory ran: a drain asked for there took the opened connections first.
#[test]
fn a_drain_asked_for_in_a_factory_does_not_overtake_its_guest() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if matches!(call, Call::Eof(_)) {
            ctx.close();
        }
        Ok(())
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let opened = reactor.net().connect(server.local_addr().expect("it is bound"), recorder(on));
    until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
    let factory = |net: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| -> Result<_, Refusal> {
        net.drain(Duration::from_secs(3600));
        Ok(recorder(on))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    let peer = dial(at);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert!(!journal.of(opened).contains(&Call::Draining), "the accepted one is still there: {:?}", journal.calls);
    drop(peer);
    until(&mut reactor, &mut journal, |journal| journal.of(opened).contains(&Call::Draining));
}

/// What drains at once still went through its stages one a turn, and the loop slept between two of them: for the whole grace.
#[cfg(unix)]
#[test]
fn a_drain_does_not_sleep_between_its_stages() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    struct Watcher(UnixStream);
    impl Dispatcher<Journal> for Watcher {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
            journal.note(scope.key, Call::Closed(why.to_string()));
        }
    }
    let hour = Duration::from_secs(3600);
    for has_guest in [false, true] {
        let (socket, _other) = UnixStream::pair().expect("a pair");
        let mut talk = Talk::new(|ctx, _, call| {
            if matches!(call, Call::Draining) {
                ctx.abort();
            }
            Ok(())
        });
        if !has_guest {
            talk.reactor.shutdown(&mut talk.journal);
        }
        let watcher = talk.reactor.net().watch(Watcher(socket)).expect("it can be watched");
        talk.settle();
        talk.reactor.net().drain(hour);
        let began = Instant::now();
        while turn(&mut talk.reactor, &mut talk.journal, PATIENCE) {
            assert!(began.elapsed() < PATIENCE, "it waits for the whole grace (a guest: {has_guest})");
        }
        assert_eq!(talk.journal.of(watcher), [Call::Closed(Reason::Shutdown.to_string())], "a guest: {has_guest}");
    }
}
