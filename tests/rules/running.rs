//! What `run` waits for, and what is done outside a turn.

use crate::common::{
    Call, Journal, On, PATIENCE, Recorder, TICK, dial, guest, is_closed, listen, post, quiet, read_exactly, read_to_end,
    recorder, say, start, tell, until,
};
use mainspring::{Config, Reactor, Terminator};
use std::{
    cell::Cell,
    io::Read,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn a_line_is_echoed_and_the_end_of_the_peer_is_the_end() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(Terminator::line(100)),
                Call::Frame(line) => writeln!(ctx, "{}!", line.escape_ascii()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    });
    let mut peer = dial(addr);
    say(&peer, "one\r\ntwo\nthr");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 10), b"one!\ntwo!\n");
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<Call> = journal.calls.into_iter().map(|(_, call)| call).collect();
    assert_eq!(
        calls,
        [
            Call::Connected,
            Call::Frame(b"one".to_vec()),
            Call::Frame(b"two".to_vec()),
            Call::Eof(b"thr".to_vec()),
            Call::Closed("the peer finished".into())
        ]
    );
}

#[test]
fn a_loop_that_spins_first_serves_at_once_and_no_timer_is_early() {
    let mut reactor = Reactor::with_config(Config::new().spin(Duration::from_millis(2))).expect("a selector");
    let mut journal = Journal::default();
    let (_, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            if let Call::Received(bytes) = call {
                ctx.send(bytes);
            }
            Ok(())
        })
    });
    let mut peer = dial(addr);
    say(&peer, "ping");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 4), b"ping");
    for delay in [1, 5] {
        let (delay, began) = (Duration::from_millis(delay), Instant::now());
        reactor.net().after(delay, |net, _| net.stop());
        reactor.run(&mut journal).expect("a working selector");
        assert!(began.elapsed() >= delay, "{delay:?} after {:?}", began.elapsed());
    }
    // Nothing to wait for but a moment: it neither sleeps longer nor spins on.
    let began = Instant::now();
    assert!(reactor.turn(&mut journal, Duration::from_millis(3)).expect("a working selector"));
    assert!(began.elapsed() >= Duration::from_millis(3));
}

#[test]
fn run_returns_when_nothing_is_left() {
    let (mut reactor, mut journal) = start();
    reactor.run(&mut journal).expect("nothing was there to begin with");
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    let fired = Rc::new(Cell::new(0));
    let (first, second) = (Rc::clone(&fired), Rc::clone(&fired));
    reactor.net().post(move |net, _| {
        net.after(TICK, move |net, _| {
            first.set(first.get() + 1);
            net.close(key);
            net.after(TICK, move |net, _| net.post(move |_, _| second.set(second.get() + 1)));
        });
    });
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(fired.get(), 2);
    assert!(is_closed(&journal, key));
    drop(peer);
}

#[test]
fn a_cancelled_timer_does_not_keep_run() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    let timer = reactor.net().after(PATIENCE * 100, |_, ()| {});
    let other = reactor.net().every(PATIENCE * 100, |_, ()| {});
    assert!(reactor.net().cancel(timer) && reactor.net().cancel(other));
    reactor.run(&mut ()).expect("the selector works");
}

#[test]
fn a_timer_of_a_connection_does_not_keep_run_beyond_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.after(PATIENCE * 100, |_: &mut Recorder<On>, _, _| Ok(()));
            ctx.set_deadline(PATIENCE * 100);
        }
        Ok(())
    });
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
}

#[test]
fn run_returns_after_stop_and_connections_stay_as_they_are() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().after(TICK, |net, _| net.stop());
    reactor.run(&mut journal).expect("the selector works");
    assert!(reactor.net().is_open(key));
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn what_is_queued_outside_a_turn_leaves_with_the_next_which_does_not_sleep_first() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet as On);
    // None of these turns may wait for ever.
    reactor.net().send(key, "out");
    reactor.turn(&mut journal, None).expect("the selector works");
    let mut buf = [0; 3];
    peer.read_exact(&mut buf).expect("it left with that turn");
    tell(&mut reactor.net(), key, "told");
    reactor.turn(&mut journal, None).expect("the selector works");
    post(&mut reactor.net(), key, "posted");
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["told", "posted"]);
    reactor.net().abort(key);
    reactor.turn(&mut journal, None).expect("the selector works");
    assert!(is_closed(&journal, key));
}

#[test]
fn a_stop_outside_a_turn_is_heard_by_the_next_run() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().stop();
    reactor.run(&mut journal).expect("the selector works");
    assert!(reactor.net().is_open(key));
}

/// Where there is no descriptor that stands for the selector, nobody is promised one: this would be ambiguous if a reactor were
/// `AsFd`.
#[cfg(mio_unsupported_force_poll_poll)]
#[test]
fn under_poll_2_a_reactor_has_no_descriptor() {
    trait IsOrIsNot<A> {
        fn says() {}
    }
    impl<T> IsOrIsNot<()> for T {}
    struct Is;
    impl<T: std::os::fd::AsFd> IsOrIsNot<Is> for T {}
    <Reactor as IsOrIsNot<_>>::says();
}
