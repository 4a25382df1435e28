//! When reading is on, what it waits for, and what is delivered.

use crate::common::{
    Call, Ctx, Journal, On, Recorder, STUFF, TICK, by_default, dial, guest, lines, listen, opened, quiet, read_exactly, recorder,
    say, settle, start, start_with, stuff, unread, until, until_net,
};
use mainspring::{Config, Limit, Reactor};
use std::{io::Write, net::Shutdown};

#[test]
fn readiness_is_remembered_while_nobody_reads() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "an edge that comes once");
    settle(&mut reactor, &mut journal);
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received().len() == 23);
}

#[test]
fn urgent_data_does_not_stall_a_stream() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    let out_of_band = |byte: &[u8]| {
        socket2::SockRef::from(&peer).send_out_of_band(byte).expect("connected");
    };
    for n in 1..=5 {
        out_of_band(b"!");
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| journal.received().iter().filter(|byte| **byte == b'x').count() == n);
    }
}

#[test]
fn more_than_a_turn_may_read_comes_without_another_edge() {
    let (mut reactor, mut journal) = start_with(Config::new().read_bytes(4096).turn_bytes(4096));
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, vec![b'.'; 60_000]);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    assert_eq!(journal.received().len(), 60_000);
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
fn nothing_is_held_between_frames() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "one\ntw");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 2);
    say(&peer, "o\n");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    assert_eq!(reactor.net().link(key).expect("open").unread(), 0);
    assert_eq!(reactor.net().link(key).expect("open").queued(), 0);
}

/// Flaw 12: The end that came with the last bytes cost them: one read, then handle_close; 4,096 of 20,000 bytes arrived.
#[test]
fn flaw_12_what_came_before_the_end_is_delivered_before_the_end() {
    for turn_bytes in [4096, 256 << 10] {
        let config = Config::new().read_bytes(4096).turn_bytes(turn_bytes);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let (_, addr) = listen(&mut reactor, || recorder(by_default));
        let mut peer = dial(addr);
        peer.write_all(&[b'x'; 20_000]).expect("the kernel takes it");
        drop(peer); // before it is accepted
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        assert_eq!(journal.received().len(), 20_000);
        let ending = &journal.calls[journal.calls.len() - 2..];
        assert!(matches!(ending, [(_, Call::Eof(_)), (_, Call::Closed(_))]), "{ending:?}");
    }
}
