//! The rules of the fine print, each with its test.

mod common;

use common::{
    Bare, Call, Ctx, FINISHED, Journal, LONG, Nothing, On, PATIENCE, PEER_FINISHED, Recorder, SHORT, SHUT_DOWN, STUFF, Stranger,
    TICK, closing_of, count, dial, ends_with, guest, hang_up, is_closed, keep_log, lines, listen, logged, nobody, note, opened,
    pass, post, quiet, read_exactly, read_to_end, recorder, reset, say, settle, start, start_with, stuff, tell, unread, until,
    until_net,
};
use mainspring::{Config, Key, Limit, Listen, Net, Outcome, Produced, Protocol, Reactor, Reason, Refusal, Terminator};
use std::{
    cell::{Cell, RefCell},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

// ------------------------------------------------------------------------------------------------- when reading is on

#[test]
fn resume_lifts_the_pause_and_not_a_throttle() {
    let (mut reactor, mut journal) = start();
    let (reader, source) = guest(&mut reactor, &mut journal, quiet);
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().link(reader).expect("open").pause();
    say(&source, "x");
    reactor.net().link(reader).expect("open").resume();
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "the throttle still holds");
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_throttle_that_is_lifted_leaves_the_pause() {
    let (mut reactor, mut journal) = start();
    let (reader, source) = guest(&mut reactor, &mut journal, quiet);
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().link(reader).expect("open").pause();
    say(&source, "x");
    reactor.net().unthrottle(reader, writer);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "the pause still holds");
    reactor.net().link(reader).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn resume_does_not_lift_the_hold_back() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "x");
    reactor.net().link(key).expect("open").resume();
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "its own congestion holds");
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn the_end_of_congestion_does_not_lift_the_pause() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "x");
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "the pause holds");
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn hold_back_can_be_switched_off_while_it_holds() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    say(&peer, "x");
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    reactor.net().link(key).expect("open").set_hold_back(false);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_pause_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "one\ntwo\nthree\n");
    for frames in [&["one"][..], &["one", "two"], &["one", "two", "three"]] {
        until(&mut reactor, &mut journal, |journal| journal.frames().len() == frames.len());
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.frames(), frames);
        reactor.net().link(key).expect("open").resume();
    }
}

#[test]
fn congestion_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if *call == Call::Frame(b"one".to_vec()) {
            ctx.send(vec![b'.'; STUFF]);
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.frames(), ["one"]);
    assert_eq!(unread(&mut reactor, key), 4);
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

#[test]
fn a_throttle_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        if *call == Call::Frame(b"one".to_vec()) {
            ctx.throttle(writer);
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.frames(), ["one"]);
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

#[test]
fn a_target_that_becomes_congested_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        match call {
            Call::Connected => ctx.throttle(writer),
            Call::Frame(line) if line == b"one" => _ = ctx.net.send(writer, vec![b'.'; STUFF]),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.frames(), ["one"]);
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

#[test]
fn eof_waits_while_reading_is_off() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "one\ntail");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key).len(), 2);
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"tail".to_vec())));
}

#[test]
fn tells_and_timers_do_not_wait_for_reading() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().link(key).expect("open").pause();
    let note = |ctx: &mut Ctx<'_>, journal: &mut Journal, what: &str| journal.note(ctx.key, Call::Frame(what.into()));
    assert!(reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, journal| {
        note(ctx, journal, "told");
        ctx.after(TICK, move |_: &mut Recorder<On>, ctx, journal| {
            note(ctx, journal, "fired");
            Ok(())
        });
        Ok(())
    }));
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["told", "fired"]);
}

#[test]
fn exceeded_and_writable_do_not_wait_for_reading() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    reactor.net().link(key).expect("open").set_deadline(TICK);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Deadline)));
    stuff(&mut reactor, &mut journal, key);
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
}

#[test]
fn a_reset_ends_a_paused_connection_at_once_and_drops_its_unread_input() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "never read");
    settle(&mut reactor, &mut journal);
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key).len(), 2, "connected and closed: {:?}", journal.of(key));
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_reset_ends_a_connection_paused_with_frames_in_its_buffer() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["one"]);
}

#[test]
fn a_reset_lifts_hold_back_so_that_the_last_words_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    say(&peer, "last words");
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.received(), b"last words");
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_reset_lifts_a_throttle_so_that_the_last_words_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().throttle(key, writer);
    say(&peer, "last words");
    settle(&mut reactor, &mut journal);
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.received(), b"last words");
}

// ----------------------------------------------------------------------------------------------------------- time-outs

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
fn limits_leave_out_the_delimiter() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::line(3));
        }
        Ok(())
    });
    say(&peer, "abc\r\nabc\nabcd\nabc\n");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 3);
    let [Call::Connected, Call::Frame(_), Call::Frame(_), Call::Exceeded(Limit::FrameBytes), Call::Frame(_)] =
        &journal.calls.iter().map(|(_, call)| call.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", journal.calls)
    };
}

#[test]
fn a_declared_length_beyond_the_limit_is_exceeded_before_it_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::exactly(1));
            Ok(())
        }
        Call::Frame(_) => {
            ctx.set_terminator(Terminator::declared(1 << 40, 1 << 10));
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    say(&peer, "!");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert!(journal.has(&Call::Exceeded(Limit::FrameBytes)));
}

#[test]
fn a_prefix_beyond_the_limit_is_exceeded_before_it_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::prefixed(mainspring::Width::U32, mainspring::Endian::Big, 1000));
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    say(&peer, 1001_u32.to_be_bytes());
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::FrameBytes).to_string());
}

// --------------------------------------------------------------------------------- what an answer to `exceeded` means

fn bare(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> (Key, TcpStream) {
    let (_, addr) = listen(reactor, || Bare);
    let peer = dial(addr);
    until(reactor, journal, |journal| journal.has(&Call::Connected));
    (journal.calls[0].0, peer)
}

#[test]
fn the_default_answer_of_exceeded_gives_the_limit_as_reason() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = bare(&mut reactor, &mut journal);
    reactor.net().link(key).expect("open").set_idle_timeout(TICK);
    ends_with(&mut reactor, &mut journal, key, "Limit(Idle)");
}

#[test]
fn the_default_answer_of_eof_gives_eof_as_reason() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = bare(&mut reactor, &mut journal);
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, "Eof");
}

#[test]
fn the_default_answer_of_draining_is_to_close() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = bare(&mut reactor, &mut journal);
    reactor.net().drain(PATIENCE);
    ends_with(&mut reactor, &mut journal, key, "Finish");
}

#[test]
fn the_default_answers_of_received_and_frame_fail() {
    for terminator in [Terminator::None, Terminator::line(9)] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = bare(&mut reactor, &mut journal);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, "x\n");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("Failed(\"unexpected"));
    }
}

#[test]
fn a_limit_as_err_closes_with_the_limit() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_, _, call| match call {
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    reactor.net().link(key).expect("open").set_deadline(TICK);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Deadline).to_string());
}

#[test]
fn any_other_err_of_exceeded_closes_with_the_limit_too() {
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Fussy);
    let peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert!(journal.has(&Call::Closed("Limit(Deadline)".into())), "{:?}", journal.calls);
    drop(peer);
}

/// Its deadline is soon, and it has an error of its own for that.
struct Fussy;

impl Protocol<Journal> for Fussy {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        ctx.set_deadline(TICK);
        Ok(())
    }

    fn exceeded(&mut self, _: &mut Ctx<'_>, _: &mut Journal, _: Limit) -> Outcome {
        Err("too slow for me".into())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(format!("{why:?}")));
    }
}

#[test]
fn idle_starts_afresh_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Idle)) == 3);
    assert!(began.elapsed() >= SHORT * 3);
}

#[test]
fn stalled_starts_afresh_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Stalled)) == 3);
    assert!(began.elapsed() >= SHORT * 3);
}

#[test]
fn the_deadline_is_off_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_deadline(TICK);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Deadline)));
    pass(&mut reactor, &mut journal, LONG);
    assert_eq!(count(&journal, key, &Call::Exceeded(Limit::Deadline)), 1);
}

/// Lines of at most three bytes; a longer one is answered, and the next is welcome.
fn three(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(3)),
        Call::Exceeded(Limit::FrameBytes) => ctx.send("500 line too long\n"),
        _ => {}
    }
    Ok(())
}

#[test]
fn the_rest_of_a_line_too_long_is_skipped_and_the_next_one_comes() {
    for pieces in [&["abcdefgh\nok\n"][..], &["abcd", "ef", "gh", "\n", "ok\n"], &["abcd", "efgh\nok", "\n"]] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer) = guest(&mut reactor, &mut journal, three);
        for piece in pieces {
            say(&peer, piece);
            reactor.turn(&mut journal, TICK).expect("the selector works");
        }
        read_exactly(&mut reactor, &mut journal, &mut peer, 18);
        until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
        let expected = [Call::Connected, Call::Exceeded(Limit::FrameBytes), Call::Frame(b"ok".to_vec())];
        assert_eq!(journal.of(key), expected, "{pieces:?}");
    }
}

#[test]
fn of_a_frame_that_is_skipped_no_tail_comes_with_eof() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, three);
    say(&peer, "abcdef");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "gh");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
}

#[test]
fn the_rest_of_a_frame_too_slow_is_skipped_and_the_next_one_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    reactor.net().link(key).expect("open").set_frame_timeout(TICK);
    say(&peer, "slo");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "w\nquick\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    assert_eq!(journal.frames(), ["quick"]);
    assert_eq!(count(&journal, key, &Call::Exceeded(Limit::FrameTime)), 1);
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(3)),
            Call::Exceeded(_) => ctx.set_terminator(Terminator::exactly(2)),
            Call::Frame(_) => ctx.set_terminator(Terminator::delimiter(&b";"[..], 9)),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "abcdef");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "gh\nokx\ny;");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    assert_eq!(journal.frames(), ["ok", "x\ny"]);
}

#[test]
fn a_delimiter_stays_after_a_skip_also_when_it_comes_in_two_pieces() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::delimiter(&b"--"[..], 3));
        }
        Ok(())
    });
    say(&peer, "abcdef-");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "-ok--on--");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["ok", "on"]);
}

#[test]
fn a_length_becomes_none_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::declared(5, 3));
        }
        Ok(())
    });
    say(&peer, "abc");
    settle(&mut reactor, &mut journal);
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"rest");
    assert!(journal.frames().is_empty());
    assert_eq!(journal.calls.iter().filter(|(_, call)| matches!(call, Call::Exceeded(_))).count(), 1);
}

#[test]
fn a_length_too_slow_is_skipped_to_its_end() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::exactly(5));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "abc");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"rest");
    assert!(journal.frames().is_empty());
}

#[test]
fn a_custom_frame_cannot_be_skipped_and_ok_closes_politely() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::netstring(3)),
            Call::Exceeded(_) => ctx.send("too long"),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "4:abcd,2:ok,");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"too long");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.frames().is_empty());
}

// ------------------------------------------------------------------------------------------------- half-close and close

#[test]
fn half_close_sends_a_fin_after_what_is_queued_and_reading_goes_on() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, vec![b'.'; STUFF]);
    assert!(reactor.net().half_close(key));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), STUFF);
    say(&peer, "still here");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"still here");
    assert!(!is_closed(&journal, key));
}

#[test]
fn after_half_close_nothing_can_be_sent() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().half_close(key);
    assert!(!reactor.net().send(key, "too late"));
    assert!(reactor.net().link(key).expect("it is open").is_congested(), "or a source would never stop");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
}

#[test]
fn a_stream_whose_two_directions_have_ended_closes_itself() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().half_close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert_eq!(count(&journal, key, &Call::Eof(Vec::new())), 1);
}

#[test]
fn a_stream_that_its_peer_ended_first_closes_itself_with_eof() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    reactor.net().send(key, "an answer");
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key), "the other direction is open");
    reactor.net().half_close(key);
    ends_with(&mut reactor, &mut journal, key, PEER_FINISHED);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"an answer");
}

#[test]
fn closing_twice_is_nothing() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    assert!(reactor.net().close(key));
    assert!(!reactor.net().close(key));
    assert!(!reactor.net().half_close(key));
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 1);
    assert!(!reactor.net().close(key));
}

#[test]
fn abort_after_close_wins() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key), "it is flushing");
    assert!(reactor.net().abort(key));
    ends_with(&mut reactor, &mut journal, key, &Reason::Abort.to_string());
    assert!(read_to_end(&mut reactor, &mut journal, &mut peer).len() < STUFF);
}

#[test]
fn close_is_polite_and_flushes_first() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), STUFF);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn closed_comes_in_the_turn_in_which_the_last_byte_left() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, "bye");
    reactor.net().close(key);
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some(FINISHED));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"bye");
}

#[test]
fn a_peer_that_takes_nothing_is_let_go_at_the_linger_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(began.elapsed() >= SHORT);
    assert!(!journal.has(&Call::Exceeded(Limit::Linger)), "nothing but `closed` follows a close");
}

#[test]
fn the_linger_deadline_counts_from_the_last_byte_taken() {
    let linger = Duration::from_millis(400);
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(linger));
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    // A small buffer, so that the kernel takes some whenever the peer has read some.
    let is_small = |socket: socket2::SockRef<'_>| socket.set_send_buffer_size(64 << 10);
    reactor.net().link(key).expect("open").with_socket(is_small).expect("a socket").expect("a socket option");
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().close(key);
    // A slow download that takes longer than the linger deadline as a whole, in steps that are far shorter than it.
    let mut taken = 0;
    while began.elapsed() <= linger * 5 / 4 {
        assert!(!is_closed(&journal, key));
        taken += read_exactly(&mut reactor, &mut journal, &mut peer, 512 << 10).len();
        pass(&mut reactor, &mut journal, linger / 8);
    }
    let rest = read_to_end(&mut reactor, &mut journal, &mut peer);
    assert_eq!(taken + rest.len(), STUFF);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn the_linger_deadline_also_runs_once_half_close_was_asked_and_eof_delivered() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().half_close(key);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!is_closed(&journal, key), "the peer may still say something");
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(journal.has(&Call::Eof(Vec::new())));
}

/// Whether the peer's stream was reset, perhaps after its end had come.
fn was_reset(peer: &TcpStream) -> bool {
    peer.take_error().expect("a socket option").is_some()
}

#[test]
fn a_lingering_socket_destroys_nothing_that_was_just_sent() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.send("bye");
            ctx.close();
        }
        Ok(())
    });
    say(&peer, "quit\nand much more");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    // A closed socket would answer this with a reset, which overtakes what was not read yet.
    say(&peer, "late");
    settle(&mut reactor, &mut journal);
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 3), b"bye");
    assert!(!was_reset(&peer));
}

#[test]
fn a_lingering_socket_is_reset_at_the_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(TICK));
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    until(&mut reactor, &mut journal, |_| was_reset(&peer));
}

#[test]
fn lingering_sockets_are_bounded_and_the_oldest_is_reset() {
    let (mut reactor, mut journal) = start_with(Config::new().lingering_max(2));
    let guests: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    for (key, _) in &guests {
        reactor.net().close(*key);
        ends_with(&mut reactor, &mut journal, *key, FINISHED);
    }
    settle(&mut reactor, &mut journal);
    let were_reset: Vec<bool> = guests.iter().map(|(_, peer)| was_reset(peer)).collect();
    assert_eq!(were_reset, [true, false, false]);
}

#[test]
fn a_lingering_socket_has_no_key_any_more() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let mut net = reactor.net();
    assert!(!net.is_open(key) && net.link(key).is_none() && !net.abort(key) && !net.close(key) && !net.send(key, "x"));
}

// --------------------------------------------------------------------------------------------------------- becoming

#[test]
fn an_upgrade_happens_on_ok_and_the_unread_bytes_go_to_the_successor() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.send("yes\n");
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    say(&peer, "upgrade\nraw\nbytes");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"raw\nbytes");
    let calls = journal.of(key);
    assert_eq!(calls[..3], [Call::Connected, Call::Frame(b"upgrade".to_vec()), Call::Connected]);
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 4), b"yes\n", "queued output stays");
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert_eq!(journal.closings(), 1, "only the successor is told");
}

#[test]
fn an_upgrade_with_an_err_does_not_happen() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| match call {
        Call::Received(_) => {
            ctx.upgrade(Stranger::default());
            Err("no".into())
        }
        _ => Ok(()),
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, "failed: no");
    assert_eq!(count(&journal, key, &Call::Connected), 1);
}

#[test]
fn the_successor_of_a_connection_that_has_begun_to_end_is_dropped_uncalled() {
    let ends: [fn(&mut Ctx<'_>); 3] = [|ctx| ctx.close(), |ctx| ctx.abort(), |ctx| ctx.fail("gone")];
    for end in ends {
        let (mut reactor, mut journal) = start();
        let dropped = Rc::new(Cell::new(false));
        let seen = Rc::clone(&dropped);
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                ctx.upgrade(Stranger { dropped: Some(Rc::clone(&seen)) });
                end(ctx);
            }
            Ok(())
        });
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(dropped.get());
        assert_eq!(count(&journal, key, &Call::Connected), 1);
    }
}

#[test]
fn the_predecessor_is_dropped_without_closed() {
    let (mut reactor, mut journal) = start();
    let dropped = Rc::new(Cell::new(false));
    let seen = Rc::clone(&dropped);
    let (_, addr) = listen(&mut reactor, move || Stranger { dropped: Some(Rc::clone(&seen)) });
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.calls[0].0;
    reactor.net().tell(key, |_: &mut Stranger, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Connected) == 2);
    assert!(dropped.get());
}

#[test]
fn the_successor_starts_with_no_terminator_pause_throttle_or_time_out() {
    let (mut reactor, mut journal) = start();
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (key, peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(Terminator::line(9));
        ctx.pause();
        ctx.throttle(writer);
        ctx.set_idle_timeout(SHORT);
        ctx.set_stall_timeout(SHORT);
        ctx.set_frame_timeout(SHORT);
        ctx.set_deadline(SHORT);
        ctx.after(SHORT, |_: &mut Recorder<On>, ctx, journal| {
            journal.note(ctx.key, Call::Frame(b"a timer of the predecessor".to_vec()));
            Ok(())
        });
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    say(&peer, "raw");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"raw");
    pass(&mut reactor, &mut journal, LONG);
    assert_eq!(journal.of(key), [Call::Connected, Call::Connected, Call::Received(b"raw".to_vec())]);
}

#[test]
fn a_tell_for_the_predecessor_is_dropped_with_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    net.tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    assert!(net.tell(key, |_: &mut Recorder<On>, ctx, journal| {
        journal.note(ctx.key, Call::Frame(b"for the predecessor".to_vec()));
        Ok(())
    }));
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Connected) == 2);
    settle(&mut reactor, &mut journal);
    assert!(journal.frames().is_empty());
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn connected_of_a_successor_comes_once_and_only_when_connected() {
    let (mut reactor, mut journal) = start();
    let (key, _listener) = opened(&mut reactor, quiet);
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                journal.note(ctx.key, Call::Frame(b"the successor".to_vec()));
            }
            Ok(())
        }));
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key), [Call::Connected, Call::Frame(b"the successor".to_vec())]);
}

#[test]
fn eof_that_was_seen_before_comes_to_the_successor_too() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet as On);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Eof(Vec::new())) == 2);
    assert_eq!(journal.of(key), [Call::Connected, Call::Eof(Vec::new()), Call::Connected, Call::Eof(Vec::new())]);
}

#[test]
fn an_upgrade_inside_eof_hands_the_tail_over() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Eof(_)) {
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    say(&peer, "tail");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 5);
    let expected =
        [Call::Connected, Call::Eof(b"tail".to_vec()), Call::Connected, Call::Received(b"tail".to_vec()), Call::Eof(Vec::new())];
    assert_eq!(journal.of(key), expected);
}

#[test]
fn nothing_comes_to_a_successor_before_its_connected() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            // Congested, and all of it taken by the write that follows: `writable` is owed.
            ctx.set_output_limits(10, 20, 1 << 20);
            ctx.send([b'.'; 100]);
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Connected) == 2);
    assert_eq!(journal.of(key)[..3], [Call::Connected, Call::Received(b"x".to_vec()), Call::Connected]);
}

// --------------------------------------------------------------------------------------------------------- throttles

#[test]
fn a_writer_holds_several_readers() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let readers: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    stuff(&mut reactor, &mut journal, writer);
    for (reader, peer) in &readers {
        assert!(reactor.net().throttle(*reader, writer));
        say(peer, "x");
    }
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"xxx");
}

#[test]
fn a_reader_hangs_on_several_writers() {
    let (mut reactor, mut journal) = start();
    let mut writers: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    let (reader, peer) = guest(&mut reactor, &mut journal, quiet);
    for (writer, _) in &writers {
        stuff(&mut reactor, &mut journal, *writer);
        reactor.net().throttle(reader, *writer);
    }
    say(&peer, "x");
    for (_, sink) in &mut writers {
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.received(), b"", "one of them is still congested");
        read_exactly(&mut reactor, &mut journal, sink, STUFF);
    }
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_throttle_lasts_until_its_writer_is_gone() {
    for polite in [false, true] {
        let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
        let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
        let (reader, peer) = guest(&mut reactor, &mut journal, quiet);
        stuff(&mut reactor, &mut journal, writer);
        reactor.net().throttle(reader, writer);
        say(&peer, "x");
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.received(), b"");
        if polite {
            reactor.net().close(writer)
        } else {
            reactor.net().abort(writer)
        };
        until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    }
}

#[test]
fn a_throttle_lasts_until_its_reader_is_gone() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let (reader, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().abort(reader);
    ends_with(&mut reactor, &mut journal, reader, &Reason::Abort.to_string());
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
}

#[test]
fn a_throttle_is_open_to_the_open_only() {
    let (mut reactor, mut journal) = start();
    let (open, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (gone, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().abort(gone);
    let mut net = reactor.net();
    assert!(!net.throttle(open, gone) && !net.throttle(gone, open));
    net.unthrottle(open, gone);
}

// ----------------------------------------------------------------------------------------------------- tells and posts

#[test]
fn tells_and_posts_are_one_fifo() {
    let (mut reactor, mut journal) = start();
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (b, _other) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    tell(&mut net, a, "1");
    post(&mut net, a, "2");
    tell(&mut net, b, "3");
    tell(&mut net, a, "4");
    post(&mut net, a, "5");
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn what_tells_and_posts_queue_goes_last() {
    let (mut reactor, mut journal) = start();
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    net.post(move |net, _| {
        net.post(move |net, _| post(net, a, "last"));
        tell(net, a, "third");
    });
    tell(&mut net, a, "first");
    post(&mut net, a, "second");
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["first", "second", "third", "last"]);
}

#[test]
fn the_loop_does_not_sleep_on_tells_over_the_budget() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(2));
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    for text in ["1", "2", "3", "4", "5"] {
        tell(&mut reactor.net(), a, text);
    }
    for told in [2, 4, 5] {
        // A turn that slept would not come back.
        reactor.turn(&mut journal, None).expect("the selector works");
        assert_eq!(journal.frames().len(), told);
    }
}

#[test]
fn a_tell_runs_before_the_closed_of_a_target_that_begins_to_end() {
    let ends: [fn(&mut Net<'_, Journal>, Key) -> bool; 3] =
        [|net, key| net.close(key), |net, key| net.abort(key), |net, key| net.fail(key, "x")];
    for end in ends {
        let (mut reactor, mut journal) = start();
        let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
        let mut net = reactor.net();
        assert!(tell(&mut net, key, "told"));
        end(&mut net, key);
        assert!(!tell(&mut net, key, "too late"));
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.of(key)[..2], [Call::Connected, Call::Frame(b"told".to_vec())]);
        assert_eq!(journal.of(key).len(), 3);
    }
}

#[test]
fn closed_waits_for_tells_that_are_over_the_budget() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(1));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    for text in ["1", "2", "3"] {
        assert!(tell(&mut net, key, text));
    }
    net.abort(key);
    for _ in 0..4 {
        reactor.turn(&mut journal, None).expect("the selector works");
    }
    assert_eq!(journal.frames(), ["1", "2", "3"]);
    assert!(matches!(journal.of(key).last(), Some(Call::Closed(_))));
}

#[test]
fn a_tell_to_a_paused_connection_runs() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().link(key).expect("open").pause();
    assert!(tell(&mut reactor.net(), key, "told"));
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["told"]);
}

#[test]
fn a_tell_to_a_connecting_target_runs_before_its_closed() {
    let (mut reactor, mut journal) = start();
    let (_socket, nobody) = nobody();
    let key = reactor.net().connect(nobody, recorder(quiet as On));
    assert!(tell(&mut reactor.net(), key, "told"));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key)[0], Call::Frame(b"told".to_vec()));
    assert_eq!(journal.of(key).len(), 2);
}

#[test]
fn a_tell_for_another_type_is_dropped_and_logged_with_both_names() {
    keep_log();
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Bare);
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.calls[0].0;
    reactor.net().tell(key, |_: &mut Stranger, ctx, journal| {
        note(journal, ctx.key, "mistaken");
        Ok(())
    });
    settle(&mut reactor, &mut journal);
    assert!(journal.frames().is_empty());
    let names = [std::any::type_name::<Bare>(), std::any::type_name::<Stranger>()];
    let records = logged(|text| names.iter().all(|name| text.contains(name)));
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].1.contains(&key.to_string()), "{records:?}");
    assert_eq!(records[0].0, log::Level::Warn);
}

/// A Unix client chooses its own name, and a protocol may quote what it was sent.
#[test]
#[cfg(target_os = "linux")]
fn no_peer_begins_a_line_of_the_log_or_speaks_to_the_terminal() {
    use socket2::{Domain, SockAddr, Socket, Type};
    keep_log();
    let pid = std::process::id();
    let name = |of: &str| SockAddr::unix(format!("\0mainspring-{pid}-{of}")).expect("a short name");
    let (mut reactor, mut journal) = start();
    let quotes = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes[0] == b'!' => {
            std::panic::resume_unwind(Box::new(String::from_utf8_lossy(bytes).into_owned()))
        }
        Call::Received(bytes) => Err(String::from_utf8_lossy(bytes).into()),
        _ => Ok(()),
    };
    reactor.net().listen(format!("unix:@mainspring-{pid}-listener"), move || recorder(quotes)).expect("a free name");
    let forged = "\n1.1 forged\r\u{1b}[2J\u{9b}";
    for said in ["said ", "!"] {
        let peer = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor");
        peer.bind(&name(&format!("{said}{forged}"))).expect("a free name");
        peer.connect(&name("listener")).expect("it listens");
        (&peer).write_all(format!("{said}{forged}").as_bytes()).expect("connected");
        let before = journal.closings();
        until(&mut reactor, &mut journal, |journal| journal.closings() > before);
    }
    let records = logged(|text| text.contains("forged"));
    let ends: Vec<_> = records.iter().filter(|(_, text)| text.matches("forged").count() == 2).collect();
    assert!(records.len() >= 4 && ends.len() == 2, "both were accepted, and both ends were told: {records:?}");
    assert!(records.iter().all(|(_, text)| !text.contains(char::is_control)), "{records:?}");
    let shown = r"\n1.1 forged\r\u{1b}[2J\u{9b}";
    assert!(ends.iter().all(|(_, text)| text.matches(shown).count() == 2), "{ends:?}");
    assert!(journal.calls.iter().all(|(_, call)| !matches!(call, Call::Closed(why) if why.contains(char::is_control))));
}

// ------------------------------------------------------------------------------------- connecting, and outside a turn

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
fn now_is_always_fresh() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    reactor.net().post(|net, _| {
        let before = net.now();
        thread::sleep(Duration::from_millis(2)); // a callback that takes its time
        assert!(net.now() >= before + Duration::from_millis(2));
        net.stop();
    });
    reactor.run(&mut ()).expect("the selector works");
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

// ------------------------------------------------------------------------------------------------------ when run returns

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
fn a_remote_dropped_by_a_callback_lets_run_return() {
    let (mut reactor, mut journal) = start();
    let remote = reactor.remote();
    reactor.net().post(move |_, _| drop(remote));
    reactor.run(&mut journal).expect("the selector works");
}

#[test]
fn a_live_remote_keeps_run_running_until_another_thread_drops_it() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::new().expect("a selector");
    let (remote, other) = (reactor.remote(), reactor.remote());
    let began = Instant::now();
    let thread = thread::spawn(move || {
        remote.post(|_, seen| seen.push(1)).expect("the reactor lives");
        drop(other);
        thread::sleep(SHORT); // the loop sleeps by then
        drop(remote);
    });
    let mut seen = Vec::new();
    reactor.run(&mut seen).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
    assert_eq!(seen, [1]);
    thread.join().expect("it does not panic");
}

#[test]
fn run_does_not_return_before_the_jobs_of_a_dropped_remote_have_run() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::with_config(Config::new().turn_jobs(1)).expect("a selector");
    let remote = reactor.remote();
    for n in 0..5 {
        remote.post(move |_, seen| seen.push(n)).expect("the reactor lives");
    }
    drop(remote);
    let mut seen = Vec::new();
    reactor.run(&mut seen).expect("the selector works");
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn remote_stop_ends_run() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
    let thread = thread::spawn(move || remote.stop().expect("the reactor lives"));
    reactor.run(&mut ()).expect("the selector works");
    thread.join().expect("it does not panic");
}

#[test]
fn lingering_sockets_do_not_keep_run_running() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(PATIENCE * 100));
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, "bye");
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
    let mut buf = [0; 4];
    assert_eq!(peer.read(&mut buf).expect("the bytes are there"), 3);
}

// -------------------------------------------------------------------------------------------------- drain and shutdown

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
fn a_shutdown_gives_closed_to_all_flushes_nothing_and_drops_tells_timers_and_jobs() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (connecting, _listener) = opened(&mut reactor, quiet);
    let remote = reactor.remote();
    let mut net = reactor.net();
    net.send(key, "never leaves");
    tell(&mut net, key, "told");
    post(&mut net, key, "posted");
    net.after(Duration::ZERO, move |_, journal| journal.note(key, Call::Frame(b"fired".to_vec())));
    remote.post(move |_, journal| journal.note(key, Call::Frame(b"job".to_vec()))).expect("the reactor lives");
    reactor.shutdown(&mut journal);
    for key in [key, connecting] {
        assert_eq!(closing_of(&journal, key).as_deref(), Some(SHUT_DOWN));
    }
    drop(remote);
    reactor.run(&mut journal).expect("nothing is left");
    assert!(journal.frames().is_empty(), "{:?}", journal.frames());
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
}

#[test]
fn what_closed_sets_up_during_a_shutdown_is_dropped() {
    let (mut reactor, mut journal) = start();
    let (other, _second) = guest(&mut reactor, &mut journal, quiet as On);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.key;
            ctx.net.after(Duration::ZERO, move |_, journal| journal.note(key, Call::Frame(b"fired".to_vec())));
            post(&mut ctx.net, key, "posted");
            tell(&mut ctx.net, other, "told");
            assert!(ctx.net.listen("127.0.0.1:0", || Nothing).is_err());
            journal.note(key, Call::Frame(b"asked".to_vec()));
        }
        Ok(())
    });
    reactor.shutdown(&mut journal);
    assert_eq!(journal.closings(), 2);
    reactor.run(&mut journal).expect("nothing is left");
    assert_eq!(journal.frames(), ["asked"]);
}

#[test]
fn a_reactor_can_be_used_again_after_a_shutdown() {
    let (mut reactor, mut journal) = start();
    let (_, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.shutdown(&mut journal);
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    assert!(reactor.net().is_open(key));
}

// ---------------------------------------------------------------------------------------------------------- producers

/// What a test lets a producer say, and how often it was asked.
#[derive(Clone, Default)]
struct Tap {
    ready: Rc<RefCell<Vec<u8>>>,
    is_done: Rc<Cell<bool>>,
    asked: Rc<Cell<usize>>,
}

impl Tap {
    fn fill(&self, bytes: &str) {
        self.ready.borrow_mut().extend_from_slice(bytes.as_bytes());
    }
}

impl mainspring::Producer for Tap {
    fn more(&mut self, out: &mut Vec<u8>) -> std::io::Result<Produced> {
        self.asked.set(self.asked.get() + 1);
        out.append(&mut self.ready.borrow_mut());
        Ok(if self.is_done.get() { Produced::Done } else { Produced::NotYet })
    }
}

/// A guest, and what it produces.
fn tapped(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> (Key, TcpStream, Tap) {
    let (key, peer) = guest(reactor, journal, quiet);
    let tap = Tap::default();
    assert!(reactor.net().link(key).expect("open").produce(tap.clone()));
    (key, peer, tap)
}

#[test]
fn a_producer_that_said_not_yet_is_asked_again_when_woken() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    let tap = Tap::default();
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.send("<");
    link.produce(tap.clone());
    link.send(">");
    settle(&mut reactor, &mut journal);
    assert_eq!(tap.asked.get(), 1, "nobody woke it");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 1), b"<");
    tap.fill("some ");
    reactor.net().link(key).expect("open").wake();
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"some ");
    tap.fill("more");
    tap.is_done.set(true);
    reactor.net().link(key).expect("open").wake();
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"more>", "it kept its place in the queue");
    assert_eq!(tap.asked.get(), 3);
}

#[test]
fn close_waits_for_a_producer() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    let mut left = 200;
    reactor.net().link(key).expect("open").produce(move |out: &mut Vec<u8>| {
        out.extend_from_slice(&[b'.'; 64 << 10]);
        left -= 1;
        Ok(if left == 0 { Produced::Done } else { Produced::More })
    });
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), 200 * (64 << 10));
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn close_waits_for_a_producer_that_said_not_yet_up_to_the_linger_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(LONG));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    reactor.net().link(key).expect("open").produce(Tap::default());
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(began.elapsed() >= LONG);
}

#[test]
fn a_producer_that_said_not_yet_counts_neither_for_idle_nor_for_stalled() {
    let (mut reactor, mut journal) = start();
    let (key, _peer, _) = tapped(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.set_stall_timeout(TICK);
    link.set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)));
}

#[test]
fn what_stands_behind_a_producer_that_said_not_yet_does_not_stall_before_that_is_woken() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer, tap) = tapped(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.send(">");
    link.set_stall_timeout(TICK);
    link.set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)), "the peer is not to blame");
    tap.fill(&"<".repeat(STUFF));
    tap.is_done.set(true);
    reactor.net().link(key).expect("open").wake();
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Stalled)));
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, STUFF + 1).last(), Some(&b'>'));
}

#[test]
fn a_producer_is_woken_also_while_its_connection_flushes() {
    for peer_ends in [false, true] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer, tap) = tapped(&mut reactor, &mut journal);
        let mut net = reactor.net();
        let mut link = net.link(key).expect("open");
        if peer_ends {
            link.half_close();
            peer.shutdown(Shutdown::Write).expect("connected");
        } else {
            link.close();
        }
        until_net(&mut reactor, &mut journal, |net, _| net.link(key).is_none());
        settle(&mut reactor, &mut journal);
        tap.fill("late");
        tap.is_done.set(true);
        assert!(reactor.net().wake(key), "it is still there");
        assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 4), b"late");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(!reactor.net().wake(key), "it is gone");
    }
}

#[test]
fn a_producer_without_progress_and_one_with_an_error_fail() {
    let (mut reactor, mut journal) = start();
    let (lazy, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (broken, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(lazy).expect("open").produce(|_: &mut Vec<u8>| Ok(Produced::More));
    reactor.net().link(broken).expect("open").produce(|_: &mut Vec<u8>| Err(ErrorKind::NotFound.into()));
    for key in [lazy, broken] {
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("failed: "));
    }
}

#[test]
fn a_loop_on_is_congested_is_a_source() {
    const PIECES: usize = 3000;
    let (mut reactor, mut journal) = start();
    let sent = Rc::new(Cell::new(0));
    let seen = Rc::clone(&sent);
    let (key, mut peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Connected | Call::Writable) {
            while !ctx.is_congested() && sent.get() < PIECES {
                ctx.send([b'.'; 4 << 10]);
                sent.set(sent.get() + 1);
            }
            if sent.get() == PIECES {
                ctx.close();
            }
        }
        Ok(())
    });
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().link(key).is_none_or(|link| link.queued() <= (64 + 4) << 10));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), PIECES * (4 << 10));
    assert_eq!(seen.get(), PIECES);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.has(&Call::Writable));
}

#[test]
fn a_half_close_from_inside_received_sends_its_fin_with_and_without_an_answer() {
    for answer in ["", "bye"] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                ctx.send(answer);
                ctx.half_close();
            }
            Ok(())
        });
        settle(&mut reactor, &mut journal);
        say(&peer, "hello");
        assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), answer.as_bytes());
        assert!(reactor.net().is_open(key), "it still reads");
    }
}

#[test]
fn congestion_begins_above_the_high_mark_and_ends_at_the_low_one() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| Ok(()));
    settle(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("it is open");
    link.set_output_limits(10, 100, 1000);
    for (bytes, is_congested) in [(50, false), (50, false), (1, true)] {
        assert!(link.send(vec![b'.'; bytes]));
        assert_eq!(link.is_congested(), is_congested, "{} queued", link.queued());
    }
    settle(&mut reactor, &mut journal);
    assert!(!reactor.net().link(key).expect("it is open").is_congested());
    assert_eq!(journal.of(key).iter().filter(|call| **call == Call::Writable).count(), 1);
}

#[test]
fn congestion_lasts_while_more_is_queued_than_the_low_mark() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("it is open");
    let queued = link.queued();
    for (low, high, is_congested) in
        [(0, 1, true), (queued - 1, queued, true), (queued, queued, false), (queued - 1, queued, false)]
    {
        link.set_output_limits(low, high, 2 * queued);
        assert_eq!(link.is_congested(), is_congested, "{queued} queued, marks {low} and {high}");
    }
}

#[test]
fn is_congested_is_true_from_the_moment_a_connection_begins_to_end() {
    let ends: [fn(&mut Ctx<'_>); 3] = [|ctx| ctx.close(), |ctx| ctx.abort(), |ctx| ctx.fail("gone")];
    for end in ends {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                assert!(!ctx.is_congested());
                end(ctx);
                assert!(ctx.is_congested());
                note(journal, ctx.key, "asked");
            }
            Ok(())
        });
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.frames(), ["asked"]);
    }
}

#[test]
fn writable_comes_only_after_congestion_and_once_for_each() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, [b'.'; 1000]);
    read_exactly(&mut reactor, &mut journal, &mut peer, 1000);
    settle(&mut reactor, &mut journal);
    assert!(!journal.has(&Call::Writable));
    for times in 1..=2 {
        stuff(&mut reactor, &mut journal, key);
        read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
        settle(&mut reactor, &mut journal);
        assert_eq!(count(&journal, key, &Call::Writable), times);
    }
}

#[test]
fn a_refusal_says_its_last_words_and_no_protocol_is_made() {
    let (mut reactor, mut journal) = start();
    let mut net = reactor.net();
    let options = Listen::new().connections_max(1, "421 full\r\n");
    let mut seen = 0;
    let listener = net
        .listen_with("127.0.0.1:0", options, move |_, _, _| {
            seen += 1;
            if seen == 1 { Err(Refusal::from("421 busy\r\n")) } else { Ok(recorder(quiet as On)) }
        })
        .expect("a free port");
    let addr = net.local(listener).and_then(|address| address.ip()).expect("an IP listener");
    let mut refused = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut refused), b"421 busy\r\n");
    let _guest = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let mut third = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut third), b"421 full\r\n");
    assert_eq!(journal.keys().len(), 1);
}

fn connected(journal: &Journal) -> usize {
    journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count()
}

/// Where a new listener is.
fn listen_how(reactor: &mut Reactor<Journal>, at: &str, options: Listen, on: On) -> SocketAddr {
    let mut net = reactor.net();
    let listener = net.listen_with(at, options, move |_, _, _| Ok(recorder(on))).expect("a free port");
    net.local(listener).and_then(|address| address.ip()).expect("an IP listener")
}

#[test]
fn one_address_has_so_many_connections_and_the_next_is_told_its_last_words() {
    let (mut reactor, mut journal) = start();
    let options = Listen::new().connections_max(3, "full\r\n").per_peer_max(2, "enough\r\n");
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, hang_up);
    let from = |ip: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
        socket.bind(&SocketAddr::from((ip, 0)).into()).expect("a loopback address");
        socket.connect(&addr.into()).expect("it listens");
        TcpStream::from(socket)
    };
    let (first, second) = (from([127, 0, 0, 1]), from([127, 0, 0, 1]));
    until(&mut reactor, &mut journal, |journal| connected(journal) == 2);
    let refused = read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 1]));
    assert_eq!(refused, b"enough\r\n");
    drop(first);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let third = from([127, 0, 0, 1]);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 3);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 1])), b"enough\r\n");
    let other = from([127, 0, 0, 2]);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 4);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 3])), b"full\r\n", "the limit of all comes first");
    drop((second, third, other));
    until(&mut reactor, &mut journal, |journal| journal.closings() == 4);
}

#[test]
fn what_a_listener_lets_in_has_its_time_outs_and_connected_may_change_them() {
    let (mut reactor, mut journal) = start();
    let addr = listen_how(&mut reactor, "127.0.0.1:0", Listen::new().idle_timeout(TICK), quiet);
    let _silent = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));

    let options = Listen::new().idle_timeout(TICK).stall_timeout(3 * TICK).deadline(100 * TICK).output_limits(1, 2, 3);
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(None);
            ctx.send("four");
            ctx.send("more"); // above its cap
        }
        Ok(())
    });
    let before = journal.calls.len();
    let mut peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.len() > before);
    read_to_end(&mut reactor, &mut journal, &mut peer);
    until(&mut reactor, &mut journal, |journal| journal.calls[before..].iter().any(|(_, call)| matches!(call, Call::Closed(_))));
    assert_eq!(reactor.net().stats().closed.overflow, 1);

    let options = Listen::new().idle_timeout(100 * TICK).stall_timeout(3 * TICK).deadline(200 * TICK);
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(None);
        }
        Ok(())
    });
    let before = journal.calls.len();
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.len() > before);
    let key = journal.calls[before].0;
    let all = reactor.net().connections();
    let timeouts = &all.iter().find(|connection| connection.key == key).expect("it is there").timeouts;
    assert_eq!(*timeouts, [(Limit::Stalled, 3 * TICK), (Limit::Deadline, 200 * TICK)]);
}

#[test]
fn a_listener_on_ipv6_takes_ipv4_too_or_not_as_it_is_asked() {
    let (mut reactor, mut journal) = start();
    if TcpListener::bind("[::1]:0").is_err() {
        return println!("skipped: this machine has no IPv6");
    }
    let both = listen_how(&mut reactor, "[::]:0", Listen::new().v6only(false).per_peer_max(1, "mapped\r\n"), quiet);
    let _peer = dial(([127, 0, 0, 1], both.port()).into());
    until(&mut reactor, &mut journal, |journal| journal.keys().len() == 1);
    let mut again = dial(([127, 0, 0, 1], both.port()).into());
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut again), b"mapped\r\n");
    let six = listen_how(&mut reactor, "[::]:0", Listen::new().v6only(true), quiet);
    let refused = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], six.port())));
    assert_eq!(refused.expect_err("nobody listens there").kind(), std::io::ErrorKind::ConnectionRefused);
    let _peer = dial((std::net::Ipv6Addr::LOCALHOST, six.port()).into());
    until(&mut reactor, &mut journal, |journal| journal.keys().len() == 2);
}

// ------------------------------------------------------------------------------------------- where two rules meet

#[test]
fn a_stream_too_slow_is_skipped_to_its_end_and_becomes_none() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::Stream(5));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "abc");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"abcrest");
    assert!(journal.frames().is_empty());
}

#[test]
fn a_stream_until_too_slow_is_skipped_and_goes_on_with_the_next() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::stream_until(&b";;"[..]));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "slow;");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, ";quick;;");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 1);
    assert_eq!(journal.received(), b"slowquick");
}

#[test]
fn a_pause_inside_exceeded_holds_what_comes_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "abcdefgh\nok\n");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    settle(&mut reactor, &mut journal);
    assert!(journal.frames().is_empty());
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["ok"]);
}

#[test]
fn a_close_inside_exceeded_is_the_end() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.close();
        }
        Ok(())
    });
    say(&peer, "abcdefgh\nok\n");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"500 line too long\n");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.frames().is_empty());
}

#[test]
fn a_successor_cuts_the_unread_bytes_with_a_terminator_of_its_own() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::delimiter(&b";"[..], 99));
                }
                Ok(())
            }));
        }
        Ok(())
    });
    say(&peer, "upgrade\none\ntwo;three;");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["upgrade", "one\ntwo", "three"]);
}

#[test]
fn a_half_close_while_connecting_sends_the_fin_after_what_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().send(key, "all of it");
    reactor.net().half_close(key);
    let (mut peer, _) = listener.accept().expect("it connects");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"all of it");
    say(&peer, "thanks");
    drop(peer);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let expected = [Call::Connected, Call::Received(b"thanks".to_vec()), Call::Eof(Vec::new()), Call::Closed(FINISHED.into())];
    assert_eq!(journal.of(key), expected);
}

#[test]
fn a_polite_close_while_connecting_still_flushes_and_gives_closed_alone() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().send(key, "goodbye");
    reactor.net().close(key);
    let (mut peer, _) = listener.accept().expect("it connects");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"goodbye");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key), [Call::Closed(FINISHED.into())]);
}

#[test]
fn a_pause_while_connecting_holds_from_the_first_byte() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().link(key).expect("open").pause();
    let (peer, _) = listener.accept().expect("it connects");
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
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

#[cfg(unix)]
#[test]
fn a_drain_ends_dispatchers_last_and_with_shutdown() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    struct Watcher(UnixStream);
    impl mainspring::Dispatcher<Journal> for Watcher {
        fn source(&mut self) -> mainspring::Source<'_> {
            mainspring::Source::Fd(self.0.as_fd())
        }

        fn closed(&mut self, scope: &mut mainspring::Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
            journal.note(scope.key, Call::Closed(why.to_string()));
        }
    }
    let (mut reactor, mut journal) = start();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket option");
    let watched = reactor.net().watch(Watcher(ours)).expect("it can be watched");
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().is_open(watched));
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
    assert_eq!(journal.calls.last(), Some(&(watched, Call::Closed(SHUT_DOWN.into()))));
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

#[test]
fn a_stop_outside_a_turn_is_heard_by_the_next_run() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().stop();
    reactor.run(&mut journal).expect("the selector works");
    assert!(reactor.net().is_open(key));
}

#[test]
fn a_tell_that_upgrades_leaves_frames_in_the_buffer_to_the_successor() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines as On);
    say(&peer, "unfinished");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 10);
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.received() == b"unfinished");
}
