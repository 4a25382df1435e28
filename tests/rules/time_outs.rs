//! Idle, stalled, too slow, too late: when a limit is exceeded.

use crate::common::{
    Call, Ctx, Journal, LONG, PATIENCE, SHORT, STUFF, Talk, closed, count, dial, guest, lines, listen, ms, opened, pass, quiet,
    read_exactly, recorder, say, start, stuff, turn, until, until_net,
};
use mainspring::{Address, Fault, Framer, Key, Limit, Listen, Net, Reactor, Reason, Refusal, Step, Terminator};
use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

#[test]
fn idle_is_never_early_and_restarted_by_each_byte() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_idle_timeout(LONG);
    pass(&mut reactor, &mut journal, LONG / 2);
    // It may have run out before, on a machine that is busy.
    let before = count(&journal, key, &Call::Exceeded(Limit::Idle));
    let spoke = Instant::now();
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Idle)) > before);
    assert!(spoke.elapsed() >= LONG);
}

/// What everybody else does meanwhile waits, and is no fault of theirs.
fn be_long(reactor: &mut Reactor<Journal>, mut meanwhile: impl FnMut() + 'static) {
    reactor.net().post(move |_, _| {
        meanwhile();
        thread::sleep(2 * LONG);
    });
}

#[test]
fn what_came_during_a_long_callback_comes_before_the_time_out_that_it_was_in_time_for() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    let mut net = reactor.net();
    net.link(key).expect("open").set_idle_timeout(LONG);
    net.link(key).expect("open").set_frame_timeout(LONG);
    say(&peer, "an unfinished ");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() > 0);
    be_long(&mut reactor, move || say(&peer, "line\n"));
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() > 1);
    assert_eq!(journal.of(key)[1], Call::Frame(b"an unfinished line".to_vec()));
}

#[test]
fn output_that_the_peer_would_have_taken_during_a_long_callback_did_not_stall() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").set_stall_timeout(LONG);
    peer.set_nonblocking(true).expect("a socket option");
    let mut piece = vec![0; 64 << 10];
    be_long(&mut reactor, move || while peer.read(&mut piece).is_ok() {});
    for _ in 0..2 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)));
}

#[test]
fn a_time_out_of_nothing_that_starts_afresh_does_not_keep_the_loop_awake() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| Ok(()));
    reactor.net().link(key).expect("open").set_idle_timeout(Duration::ZERO);
    let began = Instant::now();
    pass(&mut reactor, &mut journal, LONG);
    let told = journal.of(key).iter().filter(|call| **call == Call::Exceeded(Limit::Idle)).count();
    assert!(0 < told && told as u128 <= began.elapsed().as_millis(), "{told} times");
}

#[test]
fn the_idle_clock_stands_still_while_paused() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.pause();
    link.set_idle_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::Idle)));
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
}

#[test]
fn the_idle_clock_stops_when_a_callback_pauses_and_runs_on_afterwards() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_idle_timeout(SHORT),
            Call::Received(bytes) if bytes == b"wait" => ctx.pause(),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "wait");
    until(&mut reactor, &mut journal, |journal| journal.of(key).contains(&Call::Received(b"wait".to_vec())));
    let before = count(&journal, key, &Call::Exceeded(Limit::Idle));
    pass(&mut reactor, &mut journal, LONG);
    assert_eq!(count(&journal, key, &Call::Exceeded(Limit::Idle)), before);
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Idle)) > before);
}

#[test]
fn the_idle_clock_stands_still_while_output_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").set_idle_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::Idle)));
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
}

#[test]
fn the_idle_clock_stands_still_while_throttled() {
    let (mut reactor, mut journal) = start();
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().throttle(key, writer);
    reactor.net().link(key).expect("open").set_idle_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::Idle)));
    reactor.net().unthrottle(key, writer);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
}

#[test]
fn what_we_write_is_not_the_peers_activity() {
    let (mut reactor, mut journal) = start();
    let (_, _peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(SHORT);
            let key = ctx.key;
            ctx.net.every(Duration::from_millis(1), move |net, _| _ = net.send(key, "tick"));
        }
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
}

#[test]
fn a_time_out_can_be_taken_back() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    for (set, limit) in [(Some(SHORT), "set"), (None, "taken back")] {
        let mut net = reactor.net();
        let mut link = net.link(key).expect(limit);
        link.set_idle_timeout(set);
        link.set_stall_timeout(set);
        link.set_deadline(set);
        link.set_frame_timeout(set);
    }
    say(&peer, "unfinished");
    pass(&mut reactor, &mut journal, LONG);
    assert_eq!(journal.of(key), [Call::Connected]);
}

#[test]
fn stalled_is_output_of_which_no_byte_is_taken() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Stalled)));
    assert!(began.elapsed() >= SHORT);
}

#[test]
fn nothing_stalls_while_nothing_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    reactor.net().send(key, "x");
    read_exactly(&mut reactor, &mut journal, &mut peer, 1);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)));
}

#[test]
fn what_the_peer_sends_does_not_take_our_output() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| {
        say(&peer, "x");
        journal.has(&Call::Exceeded(Limit::Stalled))
    });
    assert!(!journal.received().is_empty());
}

#[test]
fn the_deadline_counts_from_the_call_whatever_happens() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if let Call::Received(bytes) = call {
            ctx.send(bytes);
        }
        Ok(())
    });
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_deadline(LONG);
    while !journal.has(&Call::Exceeded(Limit::Deadline)) {
        assert!(began.elapsed() < PATIENCE, "no deadline");
        say(&peer, "x");
        read_exactly(&mut reactor, &mut journal, &mut peer, 1);
    }
    assert!(began.elapsed() >= LONG);
}

#[test]
fn a_deadline_set_again_counts_anew() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_deadline(LONG);
    pass(&mut reactor, &mut journal, SHORT);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_deadline(LONG);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Deadline)));
    assert!(began.elapsed() >= LONG);
}

#[test]
fn a_dripping_frame_has_its_time_from_the_first_byte() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::line(1 << 20));
            ctx.set_frame_timeout(SHORT);
        }
        Ok(())
    });
    let began = Instant::now();
    until(&mut reactor, &mut journal, |journal| {
        say(&peer, "x");
        journal.has(&Call::Exceeded(Limit::FrameTime))
    });
    assert!(began.elapsed() >= SHORT);
    assert_eq!(journal.of(key)[1], Call::Exceeded(Limit::FrameTime));
}

#[test]
fn the_frame_clock_is_off_between_frames() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    reactor.net().link(key).expect("open").set_frame_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    say(&peer, "one\n");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one"]);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::FrameTime)));
    let began = Instant::now();
    say(&peer, "tw");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    assert!(began.elapsed() >= SHORT);
}

#[test]
fn the_frame_clock_stands_still_while_reading_is_off() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "unfinished");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 10);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.pause();
    link.set_frame_timeout(SHORT);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!journal.has(&Call::Exceeded(Limit::FrameTime)));
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
}

#[test]
fn the_idle_clock_does_not_run_while_connecting() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_idle_timeout(SHORT);
    let (_peer, _) = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
    assert!(began.elapsed() >= SHORT);
    assert_eq!(journal.of(key), [Call::Connected, Call::Exceeded(Limit::Idle)]);
}

/// A limit that expired and went on set itself a timer in the past, which hid all others that were due: one a turn.
#[test]
fn a_limit_that_goes_on_does_not_keep_other_due_timers_from_this_turn() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || recorder(quiet));
    let peers: Vec<_> = (0..50).map(|_| dial(at)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == peers.len());
    for key in journal.keys() {
        reactor.net().link(key).expect("it is open").set_idle_timeout(ms(2));
    }
    let asked = Instant::now();
    while asked.elapsed() < ms(10) {
        std::hint::spin_loop(); // a program that is long in coming back to the loop
    }
    turn(&mut reactor, &mut journal, Duration::ZERO);
    let told = journal.calls.iter().filter(|(_, call)| *call == Call::Exceeded(Limit::Idle)).count();
    assert_eq!(told, peers.len(), "idle limits told in one turn, of those long due");
}

/// Each piece that a framer handed over stopped the clock, so that a frame of pieces could take any time.
#[test]
fn a_framer_of_pieces_does_not_escape_the_frame_time_out() {
    struct Pieces;
    impl Framer for Pieces {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            let is_last = input[0] == b'\n';
            Ok(match is_last {
                true => Step::Frame { bytes: 0..0, consumed: 1 },
                false => Step::Piece { bytes: 0..1, consumed: 1 },
            })
        }
    }
    let ways: [(&str, fn() -> Terminator); 2] =
        [("stream_until", || Terminator::stream_until(&b"\n"[..])), ("framer", || Terminator::custom(Pieces, 10))];
    for (name, terminator) in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
                ctx.set_frame_timeout(ms(30));
            }
            Ok(())
        });
        let asked = Instant::now();
        let mut dripping = &talk.peer;
        let exceeded = Call::Exceeded(Limit::FrameTime);
        until(&mut talk.reactor, &mut talk.journal, |journal| {
            let _ = dripping.write(b"x"); // until it is closed
            journal.has(&exceeded)
        });
        assert!(asked.elapsed() >= ms(30), "{name}: never early");

        // One byte, and then silence.
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
                ctx.set_frame_timeout(ms(5));
            }
            Ok(())
        });
        say(&talk.peer, "x");
        talk.until(|journal| journal.has(&exceeded));
        assert_eq!(talk.journal.received(), b"x", "{name}");
    }
}

/// A time-out that the listener had for its guests ran from when one was let in: in a slow turn it was exceeded before
/// `connected`, which is in the next turn.
#[test]
fn no_time_out_is_exceeded_before_connected() {
    let bounds: [fn(Listen) -> Listen; 2] = [|listen| listen.idle_timeout(ms(1)), |listen| listen.deadline(ms(1))];
    for (number, bound) in bounds.into_iter().enumerate() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let slow = |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| -> Result<_, Refusal> {
            let began = Instant::now();
            while began.elapsed() < ms(5) {
                std::hint::spin_loop();
            }
            Ok(recorder(quiet))
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", bound(Listen::new()), slow).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let _peers = [dial(at), dial(at)];
        let is_exceeded = |call: &&(Key, Call)| matches!(call.1, Call::Exceeded(_));
        until(&mut reactor, &mut journal, |journal| journal.calls.iter().filter(is_exceeded).count() >= 2);
        for key in journal.keys() {
            let calls = journal.of(key);
            assert_eq!(calls.first(), Some(&Call::Connected), "{number}: {calls:?}");
        }
    }
}

/// A server waited without bound for a version line (CVE-2022-21716). Waiting has a deadline, dripping has another.
#[test]
fn a_first_line_that_does_not_come_is_not_waited_for() {
    let wait = Duration::from_millis(20);
    let mut talk = Talk::cut_by(Terminator::crlf(100));
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_deadline(wait);
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls(), [Call::Exceeded(Limit::Deadline), closed(&Reason::Limit(Limit::Deadline))]);

    let mut talk = Talk::cut_by(Terminator::crlf(1 << 20));
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_frame_timeout(wait);
    talk.peer.set_nonblocking(true).expect("a socket option");
    let mut drip = talk.peer.try_clone().expect("a descriptor");
    talk.until(|journal| {
        let _ = drip.write(b"x"); // it is reset in the end
        journal.closings() == 1
    });
    assert_eq!(talk.calls(), [Call::Exceeded(Limit::FrameTime), closed(&Reason::Limit(Limit::FrameTime))]);
}
