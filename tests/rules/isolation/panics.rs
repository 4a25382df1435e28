//! Errors and panics of callbacks, factories, timers, tells, producers and framers.

use crate::common::{
    Call, Ctx, Journal, On, PATIENCE, Recorder, STUFF, closing_of, dial, ends_with, guest, is_closed, keep_log, lines, listen,
    note, quiet, read_exactly, read_to_end, recorder, run_out, say, settle, start, stuff, until, until_net,
};
use mainspring::{Fault, Framer, Outcome, Protocol, Reason, Step, Terminator};
use std::{net::Shutdown, time::Duration};

#[test]
fn an_err_or_a_panic_ends_one_connection_and_never_the_turn() {
    let (mut reactor, mut journal) = start();
    let behave = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes == b"err" => Err("asked to fail".into()),
        Call::Received(bytes) if bytes == b"panic" => panic!("asked to panic"),
        _ => Ok(()),
    };
    let (err, peer_of_err) = guest(&mut reactor, &mut journal, behave);
    let (panic, peer_of_panic) = guest(&mut reactor, &mut journal, behave);
    let (fine, peer) = guest(&mut reactor, &mut journal, behave);
    say(&peer_of_err, "err");
    say(&peer_of_panic, "panic");
    say(&peer, "fine");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2 && journal.of(fine).len() == 2);
    assert_eq!(closing_of(&journal, err).as_deref(), Some("failed: asked to fail"));
    assert_eq!(closing_of(&journal, panic).as_deref(), Some("panicked: asked to panic"));
    assert!(reactor.net().is_open(fine));
}

#[test]
fn every_callback_may_fail_or_panic() {
    let calls: [fn(&Call) -> bool; 6] = [
        |call| *call == Call::Connected,
        |call| matches!(call, Call::Frame(_)),
        |call| matches!(call, Call::Exceeded(_)),
        |call| *call == Call::Draining,
        |call| *call == Call::Writable,
        |call| matches!(call, Call::Eof(_)),
    ];
    for panics in [false, true] {
        for (n, is_it) in calls.into_iter().enumerate() {
            let (mut reactor, mut journal) = start();
            let on = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                lines(ctx, journal, call)?;
                match is_it(call) {
                    true if panics => panic!("asked to"),
                    true => Err("asked to".into()),
                    false => Ok(()),
                }
            };
            let (key, mut peer) = guest(&mut reactor, &mut journal, on);
            match n {
                1 => say(&peer, "line\n"),
                2 => _ = reactor.net().link(key).map(|mut link| link.set_deadline(Duration::ZERO)),
                3 => reactor.net().drain(PATIENCE),
                4 => {
                    stuff(&mut reactor, &mut journal, key);
                    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
                }
                5 => peer.shutdown(Shutdown::Write).expect("connected"),
                _ => {}
            }
            until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
            let why = closing_of(&journal, key).expect("closed");
            let expected = if panics { "panicked: asked to" } else { "failed: asked to" };
            assert!(why == expected || n == 2 && !panics, "{n}: {why}");
            assert_eq!(journal.closings(), 1);
        }
    }
}

#[test]
fn a_panic_in_closed_is_isolated_and_the_slot_is_free() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_, _, call| match call {
        Call::Closed(_) => panic!("in closed"),
        _ => Ok(()),
    });
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 1);
    assert!(!reactor.net().is_open(key));
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_panic_of_a_factory_resets_that_guest_only() {
    let (mut reactor, mut journal) = start();
    let mut guests = 0;
    let (_, addr) = listen(&mut reactor, move || {
        guests += 1;
        assert!(guests != 1, "the first one is not welcome");
        recorder(quiet as On)
    });
    let mut first = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut first), b"");
    let _second = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    assert_eq!(journal.keys().len(), 1);
}

#[test]
fn a_panic_of_a_timer_a_post_or_a_tell_is_isolated() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    net.post(|_, _| panic!("a post"));
    net.after(Duration::ZERO, |_, _| panic!("a timer"));
    net.every(Duration::from_millis(1), |_, _| panic!("a period"));
    net.tell(key, |_: &mut Recorder<On>, _, _| panic!("a tell"));
    net.post(move |_, journal| note(journal, key, "the next one"));
    ends_with(&mut reactor, &mut journal, key, "panicked: a tell");
    assert_eq!(journal.frames(), ["the next one"]);
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_panic_of_a_connections_own_timer_ends_the_connection() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell_after(key, Duration::ZERO, |_: &mut Recorder<On>, _, _| panic!("a timer"));
    ends_with(&mut reactor, &mut journal, key, "panicked: a timer");
}

/// Panics when it is dropped.
struct Grenade;

impl Protocol<Journal> for Grenade {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[test]
fn a_panic_of_a_handlers_own_drop_is_isolated() {
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Grenade);
    for closings in 1..=3 {
        let peer = dial(addr);
        until(&mut reactor, &mut journal, |journal| journal.keys().len() == closings);
        drop(peer);
        until(&mut reactor, &mut journal, |journal| journal.closings() == closings);
        settle(&mut reactor, &mut journal);
    }
}

#[test]
fn a_panic_of_a_producer_or_framer_ends_its_connection() {
    struct Bomb;
    impl Framer for Bomb {
        fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
            panic!("a framer")
        }
    }
    let (mut reactor, mut journal) = start();
    let (a, peer) = guest(&mut reactor, &mut journal, quiet);
    let (b, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(a).expect("open").set_terminator(Terminator::custom(Bomb, 9));
    reactor.net().link(b).expect("open").produce(|_: &mut Vec<u8>| panic!("a producer"));
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, a, "panicked: a framer");
    ends_with(&mut reactor, &mut journal, b, "panicked: a producer");
}

/// An error that panics when it is shown, and when it is dropped.
struct Mine;

impl std::fmt::Debug for Mine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mine")
    }
}

impl std::fmt::Display for Mine {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("shown")
    }
}

impl std::error::Error for Mine {}

impl Drop for Mine {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "an error dropped");
    }
}

/// Fails with one of these, and has ended before or not.
struct Miner;

impl Protocol<Journal> for Miner {
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        if bytes == b"late" {
            ctx.abort();
        }
        Err(Mine.into())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(format!("{why:?}")));
    }
}

#[test]
fn a_panic_of_an_errors_own_display_or_drop_is_isolated() {
    keep_log(); // which shows it
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Miner);
    for (word, why) in [("x", "Failed(Mine)"), ("late", "Abort")] {
        let peer = dial(addr);
        say(&peer, word);
        until(&mut reactor, &mut journal, |journal| {
            journal.calls.pop().is_some_and(|(_, call)| call == Call::Closed(why.into()))
        });
        settle(&mut reactor, &mut journal);
    }
    let _peer = dial(addr);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().connections == 1);
    let key = reactor.net().connections().iter().find(|one| one.kind == mainspring::Kind::Accepted).expect("it is open").key;
    reactor.net().fail(key, Mine);
    drop(reactor);
}
