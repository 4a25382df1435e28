//! What comes when in a turn.

use super::{free_place, guest, say, turn};
use crate::common::{Call, Ctx, Journal, LocalStream, On, TICK, note, quiet, recorder, settle, start};
use mainspring::{Key, Net};
use std::{
    cell::Cell,
    io::{ErrorKind, Read},
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn jobs_come_before_serving_then_timers_and_closed_is_last() {
    let (mut reactor, mut journal) = start();
    let (served, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        if matches!(call, Call::Received(_)) {
            note(journal, ctx.key, "served");
        }
        Ok(())
    });
    let (victim, _other) = guest(&mut reactor, &mut journal, quiet);
    let remote = reactor.remote();
    let mut net = reactor.net();
    // In the opposite order.
    net.abort(victim);
    net.after(Duration::ZERO, move |_, journal| note(journal, served, "timer"));
    say(&peer, "x");
    net.post(move |_, journal| note(journal, served, "posted"));
    remote.post(move |_, journal| note(journal, served, "job")).expect("the reactor lives");
    journal.calls.clear();
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["job", "posted", "served", "timer"]);
    assert_eq!(journal.calls.last(), Some(&(victim, Call::Closed("aborted".into()))));
}

#[test]
fn all_events_are_folded_before_any_callback() {
    let (mut reactor, mut journal) = start();
    let pair: Rc<Cell<Option<(Key, Key)>>> = Rc::default();
    let known = Rc::clone(&pair);
    // Whoever is served first aborts the other, whose bytes have come in the same turn.
    let kill = move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            let (a, b) = known.get().expect("both are there");
            let other = if ctx.key == a { b } else { a };
            assert!(ctx.net.abort(other));
        }
        Ok(())
    };
    let (a, peer_of_a) = guest(&mut reactor, &mut journal, kill.clone());
    let (b, peer_of_b) = guest(&mut reactor, &mut journal, kill);
    pair.set(Some((a, b)));
    say(&peer_of_a, "x");
    say(&peer_of_b, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"x");
    assert_eq!(journal.closings(), 1);
}

/// What the peer has got by now.
fn heard(mut peer: &LocalStream) -> String {
    let mut buf = [0; 4096];
    match peer.read(&mut buf) {
        Ok(bytes) => String::from_utf8_lossy(&buf[..bytes]).into_owned(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_connections_own_output_is_written_before_the_next_phase() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if let Call::Received(bytes) = call {
            ctx.send(bytes);
        }
        Ok(())
    });
    let far_end = peer.try_clone().expect("a descriptor");
    reactor.net().after(Duration::ZERO, move |_, journal| note(journal, key, heard(&far_end)));
    say(&peer, "echo");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["echo"]);
}

#[test]
fn a_connections_own_output_is_written_before_its_tells() {
    let (mut reactor, mut journal) = start();
    let peer: Rc<Cell<Option<LocalStream>>> = Rc::default();
    let far_end = Rc::clone(&peer);
    let (_, near) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if let Call::Received(bytes) = call {
            ctx.send(bytes);
            let (key, far_end) = (ctx.key, far_end.take().expect("it was put there"));
            ctx.net.post(move |_, journal| note(journal, key, heard(&far_end)));
        }
        Ok(())
    });
    peer.set(Some(near.try_clone().expect("a descriptor")));
    say(&near, "echo");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["echo"]);
}

#[test]
fn tells_and_posts_run_after_each_entry() {
    let (mut reactor, mut journal) = start();
    let on = |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            let key = ctx.key;
            note(journal, key, "served");
            ctx.net.post(move |_, journal| note(journal, key, "posted"));
        }
        Ok(())
    };
    let (a, peer_of_a) = guest(&mut reactor, &mut journal, on);
    let (b, peer_of_b) = guest(&mut reactor, &mut journal, on);
    say(&peer_of_a, "x");
    say(&peer_of_b, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["served", "posted", "served", "posted"]);
    for key in [a, b] {
        assert_eq!(journal.of(key).iter().filter(|call| matches!(call, Call::Frame(_))).count(), 2);
    }
}

#[test]
fn tells_and_posts_run_after_each_job_each_timer_and_each_closed() {
    let (mut reactor, mut journal) = start();
    let ended = |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.key;
            ctx.net.post(move |_, journal| note(journal, key, "after closed"));
        }
        Ok(())
    };
    let (a, _peer_of_a) = guest(&mut reactor, &mut journal, ended);
    let (b, _peer_of_b) = guest(&mut reactor, &mut journal, ended);
    fn then(net: &mut Net<'_, Journal>, journal: &mut Journal, key: Key, text: &'static str) {
        note(journal, key, text);
        net.post(move |_, journal| note(journal, key, format!("after {text}")));
    }
    let remote = reactor.remote();
    for _ in 0..2 {
        remote.post(move |net, journal| then(net, journal, a, "job")).expect("the reactor lives");
        reactor.net().after(Duration::ZERO, move |net, journal| then(net, journal, a, "timer"));
    }
    reactor.net().abort(a);
    reactor.net().abort(b);
    journal.calls.clear();
    turn(&mut reactor, &mut journal, None);
    let expected =
        ["job", "after job", "job", "after job", "timer", "after timer", "timer", "after timer", "after closed", "after closed"];
    assert_eq!(journal.frames(), expected);
    let closed = |key| journal.calls.iter().position(|(owner, call)| *owner == key && matches!(call, Call::Closed(_)));
    let posted = journal.calls.iter().position(|(_, call)| *call == Call::Frame(b"after closed".to_vec()));
    assert!(closed(a) < posted && posted < closed(b), "{:?}", journal.calls);
}

#[test]
fn what_others_wrote_leaves_after_the_timers_and_before_closed() {
    let (mut reactor, mut journal) = start();
    let (other, peer_of_other) = guest(&mut reactor, &mut journal, quiet);
    let far_end = Rc::new(peer_of_other);
    let at_closed = Rc::clone(&far_end);
    let (victim, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            note(journal, ctx.key, format!("closed: {}", heard(&at_closed)));
        }
        Ok(())
    });
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            ctx.net.send(other, "for ");
            ctx.net.abort(victim);
            ctx.net.send(other, "another");
        }
        Ok(())
    });
    reactor.net().after(Duration::ZERO, move |_, journal| note(journal, other, format!("timer: {}", heard(&far_end))));
    say(&peer, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["timer: ", "closed: for another"]);
}

#[test]
fn writable_follows_the_write_that_let_the_own_output_fall() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.set_output_limits(10, 20, 1 << 20);
            ctx.send([b'.'; 100]);
        }
        Ok(())
    });
    say(&peer, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.of(key)[1..], [Call::Received(b"x".to_vec()), Call::Writable]);
    assert_eq!(heard(&peer).len(), 100);
}

#[test]
fn a_key_whose_output_fell_at_the_end_of_a_turn_is_served_in_the_next_without_an_edge() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.set_output_limits(10, 20, 1 << 20);
    link.send([b'.'; 100]);
    assert!(link.is_congested());
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.of(key), [Call::Connected]);
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.of(key), [Call::Connected, Call::Writable]);
}

#[test]
fn a_throttled_reader_whose_writer_fell_is_served_in_the_next_turn_without_an_edge() {
    let (mut reactor, mut journal) = start();
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    let (reader, peer) = guest(&mut reactor, &mut journal, quiet);
    let mut net = reactor.net();
    net.throttle(reader, writer);
    let mut link = net.link(writer).expect("open");
    link.set_output_limits(10, 20, 1 << 20);
    link.send([b'.'; 100]);
    say(&peer, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"", "its writer was congested when it would have been served");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"x");
}

#[test]
fn only_what_was_to_be_closed_when_the_phase_began_is_closed_in_it() {
    let (mut reactor, mut journal) = start();
    let (second, _peer_of_second) = guest(&mut reactor, &mut journal, quiet);
    let (first, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            ctx.net.abort(second);
        }
        Ok(())
    });
    reactor.net().abort(first);
    for closings in 1..=2 {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.closings(), closings);
    }
}

#[test]
fn what_closed_sends_is_not_stranded() {
    let (mut reactor, mut journal) = start();
    let (other, peer_of_other) = guest(&mut reactor, &mut journal, quiet);
    let (key, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            ctx.net.send(other, "it has left");
        }
        Ok(())
    });
    reactor.net().abort(key);
    turn(&mut reactor, &mut journal, None);
    turn(&mut reactor, &mut journal, None);
    assert_eq!(heard(&peer_of_other), "it has left");
}

#[test]
fn what_becomes_ready_while_the_ready_are_served_has_its_turn_in_the_next() {
    let (mut reactor, mut journal) = start();
    let (paused, peer_of_paused) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(paused).expect("open").pause();
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            ctx.net.link(paused).expect("open").resume();
        }
        Ok(())
    });
    say(&peer_of_paused, "waits");
    settle(&mut reactor, &mut journal);
    say(&peer, "!");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"!");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"!waits");
}

#[test]
fn a_turn_sleeps_until_the_next_timer_and_not_less() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    reactor.net().after(TICK, move |_, journal| note(journal, key, "timer"));
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["timer"], "one turn, and no busy ones before");
    assert!(began.elapsed() >= TICK);
}

#[test]
fn a_turn_with_nothing_to_do_sleeps_for_as_long_as_it_may() {
    let (mut reactor, mut journal) = start();
    let (_, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    assert!(reactor.turn(&mut journal, TICK).expect("the selector works"), "a connection is left");
    assert!(began.elapsed() >= TICK);
}

#[test]
fn a_turn_says_whether_anything_is_left() {
    let (mut reactor, mut journal) = start();
    assert!(!reactor.turn(&mut journal, None).expect("nothing is left to sleep for"));
    let timer = reactor.net().after(TICK, |_, _| {});
    assert!(reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"));
    reactor.net().cancel(timer);
    assert!(!reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"));
    reactor.net().stop();
    let listener = reactor.net().listen(free_place(), || recorder(quiet as On)).expect("a free place");
    assert!(!reactor.turn(&mut journal, None).expect("the selector works"), "it was stopped");
    assert!(reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"), "once");
    reactor.net().close(listener);
}
