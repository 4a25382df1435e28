//! The order of a turn, and its budgets: what is over a budget comes in the next turn, which does not sleep. Over Unix
//! sockets, where what one end has written is there at the other without any delay.
#![cfg(unix)]

mod common;

use common::{
    Call, Ctx, Journal, On, TICK, lines, next_connected, note, quiet, recorder, settle, start, start_with, turn, until,
};
use mainspring::{Config, Key, Listen, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    cell::Cell,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

fn free_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mainspring-turn-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

fn dial(path: &PathBuf) -> UnixStream {
    let peer = UnixStream::connect(path).expect("somebody listens");
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// An accepted connection with nothing left to do, and its peer, which does not block.
fn guest<F>(reactor: &mut Reactor<Journal>, journal: &mut Journal, on: F) -> (Key, UnixStream)
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static,
{
    let path = free_path();
    let listener = reactor.net().listen(path.clone(), move || recorder(on.clone())).expect("a free path");
    let before = journal.calls.len();
    let peer = dial(&path);
    let key = next_connected(reactor, journal, before);
    reactor.net().close(listener);
    settle(reactor, journal);
    (key, peer)
}

fn say(mut peer: &UnixStream, bytes: impl AsRef<[u8]>) {
    peer.write_all(bytes.as_ref()).expect("the kernel takes it");
}

/// What the peer has got by now.
fn heard(mut peer: &UnixStream) -> String {
    let mut buf = [0; 4096];
    match peer.read(&mut buf) {
        Ok(bytes) => String::from_utf8_lossy(&buf[..bytes]).into_owned(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
        Err(error) => panic!("{error}"),
    }
}

// ------------------------------------------------------------------------------------------------------- the order

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
    let peer: Rc<Cell<Option<UnixStream>>> = Rc::default();
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
    let listener = reactor.net().listen(free_path(), || recorder(quiet as On)).expect("a free path");
    assert!(!reactor.turn(&mut journal, None).expect("the selector works"), "it was stopped");
    assert!(reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"), "once");
    reactor.net().close(listener);
}

// ----------------------------------------------------------------------------------------------------- the budgets

#[test]
fn frames_over_the_budget_come_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_frames(2));
    let (_, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "1\n2\n3\n4\n5\n");
    for frames in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.frames().len(), frames);
    }
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn eof_behind_frames_over_the_budget_comes_too() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_frames(1));
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "1\n2\n3");
    drop(peer);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"3".to_vec())));
    assert_eq!(journal.of(key).len(), 4);
}

#[test]
fn bytes_over_the_budget_are_read_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().read_bytes(4096).turn_bytes(4096));
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, [b'.'; 3 * 4096]);
    for blocks in 1..=3 {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.received().len(), blocks * 4096);
    }
}

/// A long frame has a buffer of its own, and one read took whatever there was room for in that.
#[test]
fn a_long_frame_is_read_in_turns_too() {
    const LONG: usize = 2 << 20;
    let (mut reactor, mut journal) = start_with(Config::new().read_bytes(4096).turn_bytes(16 << 10));
    let (_, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Connected) {
            ctx.set_terminator(Terminator::exactly(LONG));
        }
        Ok(())
    });
    let (long, mut said) = (vec![b'.'; LONG], 0);
    while journal.frames().is_empty() {
        // All that the kernel takes.
        while let Ok(bytes @ 1..) = peer.write(&long[said..]) {
            said += bytes;
        }
        let before = reactor.stats().bytes_in;
        turn(&mut reactor, &mut journal, None);
        let read = reactor.stats().bytes_in - before;
        assert!((1..=20 << 10).contains(&read), "{read} bytes in one turn");
    }
}

#[test]
fn connections_over_the_budget_are_accepted_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_accepts(2));
    let accepted = Rc::new(Cell::new(0));
    let count = Rc::clone(&accepted);
    let path = free_path();
    let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &mainspring::Address| {
        count.set(count.get() + 1);
        Ok(recorder(quiet as On))
    };
    reactor.net().listen_with(path.clone(), Listen::new(), factory).expect("a free path");
    let _peers: Vec<_> = (0..5).map(|_| dial(&path)).collect();
    for accepts in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(accepted.get(), accepts);
    }
}

#[test]
fn jobs_over_the_budget_run_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_jobs(2));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let remote = reactor.remote();
    for n in 1..=5 {
        remote.post(move |_, journal| note(journal, key, n.to_string())).expect("the reactor lives");
    }
    for jobs in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.frames().len(), jobs);
    }
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn tells_over_the_budget_run_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(2));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    for n in 1..=5 {
        reactor.net().post(move |_, journal| note(journal, key, n.to_string()));
    }
    for tells in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.frames().len(), tells);
    }
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_post_that_posts_itself_again_does_not_hold_up_the_loop() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(10));
    fn again(net: &mut Net<'_, Journal>, _: &mut Journal) {
        net.post(again);
    }
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().post(again);
    say(&peer, "x");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.received(), b"x");
}

#[test]
fn timers_over_the_budget_fire_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_timers(2));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    for n in 1..=5 {
        reactor.net().after(Duration::ZERO, move |_, journal| note(journal, key, n.to_string()));
    }
    for timers in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.frames().len(), timers);
    }
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn closings_over_the_budget_come_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_closings(2));
    let guests: Vec<_> = (0..5).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    // The listeners of `guest` had closings of their own.
    settle(&mut reactor, &mut journal);
    for (key, _) in &guests {
        reactor.net().abort(*key);
    }
    for closings in [2, 4, 5] {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.closings(), closings);
    }
}

#[test]
fn one_that_floods_leaves_the_others_their_turn() {
    const BUDGET: usize = 10;
    let (mut reactor, mut journal) = start_with(Config::new().turn_frames(BUDGET));
    let (flood, peer_of_flood) = guest(&mut reactor, &mut journal, lines);
    let (_, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer_of_flood, "flood\n".repeat(1000));
    turn(&mut reactor, &mut journal, None);
    say(&peer, "ping\n");
    turn(&mut reactor, &mut journal, None);
    assert!(journal.frames().contains(&"ping".to_owned()));
    let floods = journal.of(flood).iter().filter(|call| matches!(call, Call::Frame(_))).count();
    assert_eq!(floods, 2 * BUDGET);
}

/// Can be named by a tell.
struct Told;

impl Protocol<Journal> for Told {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn closed_waits_for_the_tells_that_were_accepted_also_over_several_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(1));
    let (_, addr) = common::listen(&mut reactor, || Told);
    let _peer = common::dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.keys()[0];
    for n in 1..=3 {
        let is_accepted = reactor.net().tell(key, move |_: &mut Told, ctx, journal: &mut Journal| {
            note(journal, ctx.key, n.to_string());
            Ok(())
        });
        assert!(is_accepted);
    }
    reactor.net().abort(key);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert_eq!(journal.frames(), ["1", "2", "3"]);
    assert!(matches!(journal.of(key).last(), Some(Call::Closed(_))), "last of all");
}
