//! What is over a budget comes in the next turn.

use super::{arrives, dial, free_place, guest, say, turn};
use crate::common::{
    Call, Ctx, Journal, LocalStream, On, PATIENCE, lines, ms, note, quiet, recorder, settle, start, start_with, until,
};
use mainspring::{Config, Key, Listen, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    cell::Cell,
    io::Write,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

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

/// Each frame takes longer than this.
const LONG: Duration = Duration::from_micros(50);

/// Lines, each of which takes its time.
fn slow_lines(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    let began = Instant::now();
    while matches!(call, Call::Frame(line) if line != b"quick") && began.elapsed() <= LONG {}
    lines(ctx, journal, call)
}

#[test]
fn frames_over_the_time_of_a_turn_come_in_the_next_turns() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_time(LONG));
    let (_, peer) = guest(&mut reactor, &mut journal, slow_lines);
    say(&peer, "1\n2\n3\n4");
    for frames in 1..=3 {
        turn(&mut reactor, &mut journal, None);
        assert_eq!(journal.frames().len(), frames, "one alone takes all of it");
    }
    drop(peer);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"4".to_vec())));
}

#[test]
fn one_whose_frames_take_long_leaves_the_others_their_turn() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_time(LONG));
    let (slow, peer_of_slow) = guest(&mut reactor, &mut journal, slow_lines);
    let (_, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer_of_slow, "slow\n".repeat(1000));
    turn(&mut reactor, &mut journal, None);
    say(&peer, "ping\n");
    turn(&mut reactor, &mut journal, None);
    assert!(journal.frames().contains(&"ping".to_owned()));
    let slow = journal.of(slow).iter().filter(|call| matches!(call, Call::Frame(_))).count();
    assert_eq!(slow, 2);
}

/// The time is one turn's: what earlier ones took does not count, nor what others take.
#[test]
fn what_takes_no_time_comes_in_one_turn() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_time(PATIENCE));
    let (_, peer) = guest(&mut reactor, &mut journal, slow_lines);
    say(&peer, "quick\n".repeat(500));
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames().len(), 500);
    assert_eq!(reactor.stats().longest_callback, Duration::ZERO, "nobody asked for times");
}

#[test]
fn a_turns_time_is_each_turns_own() {
    const SHARE: Duration = Duration::from_millis(50);
    let (mut reactor, mut journal) = start_with(Config::new().turn_time(SHARE));
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        let began = Instant::now();
        while matches!(call, Call::Frame(line) if line == b"long") && began.elapsed() <= SHARE {}
        lines(ctx, journal, call)
    });
    say(&peer, format!("long\n{}", "quick\n".repeat(500)));
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames(), ["long"]);
    let before = reactor.stats().turns;
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 501);
    assert!(reactor.stats().turns - before < 100, "what the long one took counts no more");
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
    let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &mainspring::Address| {
        count.set(count.get() + 1);
        Ok(recorder(quiet as On))
    };
    let listener = reactor.net().listen_with(free_place(), Listen::new(), factory).expect("a free place");
    let _peers: Vec<_> = (0..5).map(|_| dial(&mut reactor, listener)).collect();
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

/// Or many who flood could keep the loop from seeing that they are gone.
#[test]
fn after_4096_callbacks_the_sockets_are_looked_at_again_and_the_rest_come_first() {
    const EACH: usize = 1000;
    let (mut reactor, mut journal) = start();
    let guests: Vec<_> = (0..7).map(|_| guest(&mut reactor, &mut journal, lines)).collect();
    for (_, peer) in &guests {
        say(peer, "a\n".repeat(EACH));
    }
    let frames = |journal: &Journal, key| journal.of(key).iter().filter(|call| matches!(call, Call::Frame(_))).count();
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames().len(), 5 * EACH);
    let late =
        |journal: &Journal| -> Vec<_> { guests.iter().map(|&(key, _)| key).filter(|&key| frames(journal, key) == 0).collect() };
    assert_eq!(late(&journal).len(), 2);
    let first = guests.iter().find(|&&(key, _)| !late(&journal).contains(&key)).expect("five were served");
    say(&first.1, "again\n");
    turn(&mut reactor, &mut journal, None);
    assert_eq!(late(&journal), []);
    assert_eq!(journal.frames().last().map(String::as_str), Some("again"));
}

/// A connection that is put off by others that flood: what it says waits for its turn while they are served.
fn beside_a_flood(on: impl FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static) -> Flooded {
    let (mut reactor, mut journal) = start();
    let floods = (0..6).map(|_| guest(&mut reactor, &mut journal, lines).1).collect();
    let (key, peer) = guest(&mut reactor, &mut journal, on);
    Flooded { reactor, journal, floods, key, peer }
}

struct Flooded {
    reactor: Reactor<Journal>,
    journal: Journal,
    floods: Vec<LocalStream>,
    key: Key,
    peer: LocalStream,
}

impl Flooded {
    /// All have spoken, and then a callback is long.
    fn while_a_callback_is_long(&mut self, says: &str) {
        self.floods.iter().for_each(|flood| say(flood, "a\n".repeat(1000)));
        say(&self.peer, says);
        arrives();
        self.reactor.net().post(|_, _| thread::sleep(2 * crate::common::LONG));
    }
}

#[test]
fn who_is_put_off_is_not_idle() {
    let mut flooded = beside_a_flood(lines);
    flooded.reactor.net().link(flooded.key).expect("open").set_idle_timeout(crate::common::LONG);
    flooded.while_a_callback_is_long("in time\n");
    let Flooded { mut reactor, mut journal, key, peer: _peer, floods: _floods } = flooded;
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() > 1);
    assert_eq!(journal.of(key)[1], Call::Frame(b"in time".to_vec()));
}

#[test]
fn what_came_before_a_timer_was_due_is_served_before_it_also_by_who_is_put_off() {
    let mut flooded = beside_a_flood(lines);
    let key = flooded.key;
    flooded.while_a_callback_is_long("before\n");
    flooded.reactor.net().after(Duration::ZERO, move |_, journal: &mut Journal| journal.note(key, Call::Writable));
    let Flooded { mut reactor, mut journal, peer: _peer, floods: _floods, .. } = flooded;
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() > 2);
    assert_eq!(journal.of(key)[1..], [Call::Frame(b"before".to_vec()), Call::Writable]);
}

/// Those who flood never end, so that every turn is cut.
#[test]
fn timers_fire_while_all_turns_are_cut() {
    let mut flooded = beside_a_flood(lines);
    let key = flooded.key;
    flooded.reactor.net().every(ms(1), move |_, journal: &mut Journal| journal.note(key, Call::Writable));
    let Flooded { mut reactor, mut journal, floods, .. } = flooded;
    for _ in 0..200 {
        floods.iter().for_each(|flood| say(flood, "a\n".repeat(1000)));
        turn(&mut reactor, &mut journal, None);
        if journal.calls.iter().filter(|(_, call)| *call == Call::Writable).count() > 3 {
            return;
        }
        journal.calls.retain(|(_, call)| *call == Call::Writable);
    }
    panic!("no timer fired");
}

/// Where one has gone, those who are to be served in the same turn may have gone too. (Over TCP the first write to who has gone
/// does not fail.)
#[cfg(unix)]
#[test]
fn when_a_write_fails_the_sockets_are_looked_at_before_others_are_served() {
    use std::cell::RefCell;
    const LINES: usize = 20;
    let peers = Rc::new(RefCell::new(Vec::new()));
    let (mut reactor, mut journal) = start();
    for _ in 0..3 {
        let peers_of_all = Rc::clone(&peers);
        let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            if let Call::Frame(_) = call {
                drop(peers_of_all.take());
                ctx.send("answer");
            }
            lines(ctx, journal, call)
        });
        peers.borrow_mut().push(peer);
    }
    peers.borrow().iter().for_each(|peer| say(peer, "a\n".repeat(LINES)));
    turn(&mut reactor, &mut journal, None);
    assert_eq!(journal.frames().len(), LINES, "the first one, and nobody else");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 3);
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
    let (_, addr) = crate::common::listen(&mut reactor, || Told);
    let _peer = crate::common::dial(addr);
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
