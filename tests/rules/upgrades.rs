//! A connection becomes something else.

use crate::common::{
    Call, Ctx, FINISHED, HUGE, Journal, LONG, Nothing, On, Recorder, SHORT, Stranger, Talk, count, dial, ends_with, guest,
    is_closed, lines, listen, opened, pass, quiet, read_exactly, recorder, say, settle, start, stuff, until, until_net,
};
use mainspring::Terminator;
use std::{cell::Cell, net::Shutdown, rc::Rc};

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

/// The successor's marks are the defaults again, but what was queued above them did not count as congestion.
#[test]
fn an_upgrade_looks_at_the_marks_anew() {
    let mut talk = Talk::new(|ctx, _, call| {
        match call {
            Call::Connected => {
                ctx.set_output_limits(2 * HUGE, 2 * HUGE, 2 * HUGE);
                ctx.send(vec![0; HUGE]);
            }
            Call::Received(_) => ctx.upgrade(Nothing),
            _ => {}
        }
        Ok(())
    });
    assert!(!talk.is_congested(), "it is below the marks that it has set");
    say(&talk.peer, "x");
    talk.until(|journal| journal.calls.len() == 2);
    talk.settle();
    assert!(talk.is_congested(), "queued {}", talk.queued());
}
