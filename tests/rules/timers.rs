//! Timers, and the time that they go by.

use crate::common::{
    Call, Ctx, FINISHED, Journal, Nothing, On, PATIENCE, Recorder, SHORT, TICK, ends_with, guest, ms, note, quiet, run_out, say,
    settle, start, until,
};
use mainspring::{Outcome, Reactor, Timer};
use std::{
    cell::Cell,
    net::TcpListener,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_timer_is_never_early_and_never_twice() {
    let mut reactor: Reactor<Vec<Duration>> = Reactor::new().expect("a selector");
    let mut fired = Vec::new();
    for millis in [7, 1, 12, 3, 0] {
        let delay = Duration::from_millis(millis);
        let set = Instant::now();
        reactor.net().after(delay, move |_, fired| {
            assert!(set.elapsed() >= delay, "early");
            fired.push(delay);
        });
    }
    reactor.run(&mut fired).expect("the selector works");
    let expected: Vec<Duration> = [0, 1, 3, 7, 12].map(Duration::from_millis).into();
    assert_eq!(fired, expected);
}

#[test]
fn timers_of_one_deadline_fire_in_the_order_of_setting() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::new().expect("a selector");
    let mut fired = Vec::new();
    for n in 0..100 {
        reactor.net().after(Duration::ZERO, move |_, fired: &mut Vec<u32>| fired.push(n));
    }
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_timer_set_by_a_timer_fires_in_a_later_turn() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    reactor.net().after(Duration::ZERO, |net, fired| {
        *fired += 1;
        net.after(Duration::ZERO, |_, fired| *fired += 1);
    });
    let mut fired = 0;
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 1);
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 2);
}

/// When most of them are gone the rest is moved together; nobody can tell.
#[test]
fn timers_keep_their_names_and_their_owners_when_most_others_are_gone() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (other, _its_peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    let long = Duration::from_secs(3600);
    let mut all = Vec::new();
    let mut of = [Vec::new(), Vec::new()];
    for n in 0..8000 {
        all.push(net.after(long, |_, _| panic!("taken back")));
        if n % 1000 == 999 {
            let told = |_: &mut Recorder<On>, _: &mut Ctx<'_>, _: &mut Journal| -> Outcome {
                panic!("taken back, or it died with its connection");
            };
            of[0].push(net.tell_after(key, long, told));
            of[1].push(net.tell_after(other, long, told));
        }
    }
    let fires = net.tell_after(other, Duration::from_millis(20), move |_: &mut Recorder<On>, ctx, journal| {
        note(journal, ctx.key, "fired");
        Ok(())
    });
    let again = net.every(Duration::from_millis(1), move |_, journal| note(journal, other, "again"));
    all.into_iter().for_each(|timer| assert!(net.cancel(timer)));
    settle(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let dead = of[0].pop().expect("set above");
    assert!(net.cancel(dead) && !net.cancel(dead));
    of[1].iter().for_each(|&timer| assert!(net.cancel(timer)));
    net.close(key);
    let set_anew = net.after(long, |_, _| panic!("taken back"));
    until(&mut reactor, &mut journal, |journal| journal.frames().iter().any(|text| text == "fired"));
    let again_and = |journal: &Journal| journal.frames().iter().filter(|text| *text == "again").count();
    let before = again_and(&journal);
    until(&mut reactor, &mut journal, |journal| again_and(journal) > before + 3);
    let mut net = reactor.net();
    assert!(of[0].iter().all(|&timer| !net.cancel(timer)), "they died with their connection");
    assert!(net.cancel(set_anew) && net.cancel(again) && !net.cancel(fires));
}

#[test]
fn a_delay_of_nothing_does_not_sleep_first() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    reactor.net().every(PATIENCE * 100, |_, _| {});
    reactor.net().after(Duration::ZERO, |_, fired| *fired += 1);
    let mut fired = 0;
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 1);
}

#[test]
fn every_keeps_its_phase_and_skips_what_it_missed() {
    let period = Duration::from_millis(10);
    let mut reactor: Reactor<Vec<Duration>> = Reactor::new().expect("a selector");
    let began = Instant::now();
    reactor.net().every(period, move |net, fired: &mut Vec<Duration>| {
        fired.push(began.elapsed());
        if fired.len() == 1 {
            thread::sleep(period * 7 / 2); // a callback that takes its time
        }
        if fired.len() == 4 {
            net.stop();
        }
    });
    let mut fired = Vec::new();
    reactor.run(&mut fired).expect("the selector works");
    // One late call for those that were missed; the others not before the times of their phase.
    let late = fired[1];
    let skipped = u32::try_from(late.as_millis() / period.as_millis()).expect("a short test");
    assert!(fired[0] >= period && late >= period * 4);
    assert!(fired[2] >= period * (skipped + 1), "{fired:?}");
    assert!(fired[3] >= period * (skipped + 2), "{fired:?}");
}

/// A host that oversleeps fires late, and the next time is counted from when it was due.
#[cfg(feature = "sim")]
#[test]
fn every_keeps_its_phase_however_late_it_is_called() {
    use mainspring::testing::{Sim, Weather};
    let mut sim = Sim::new(7);
    sim.set_weather(Weather::fair().pauses(300));
    let host = sim.host("10.0.0.1", Vec::new());
    let period = Duration::from_millis(500);
    let began = sim.net(host).now();
    sim.net(host).every(period, move |net, fired: &mut Vec<Duration>| fired.push(net.now() - began));
    sim.run_for(500 * period);
    let fired = sim.state(host).clone();
    assert!(fired.iter().any(|at| at.as_nanos() % period.as_nanos() != 0), "it was late at least once");
    for (&at, &next) in fired.iter().zip(&fired[1..]) {
        let due = period * u32::try_from(at.as_nanos() / period.as_nanos() + 1).expect("a short test");
        assert!(next >= due, "at {at:?} and then at {next:?}");
    }
    // Whenever the host did not oversleep: exactly at the times of its phase.
    assert!(fired.iter().filter(|at| at.as_nanos() % period.as_nanos() == 0).count() > 100, "{fired:?}");
}

/// By each way of setting one.
#[test]
fn a_timer_that_cancels_itself_fires_once() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let own = Rc::new(Cell::new(None));
    let (by_every, by_tell, job) = (Rc::clone(&own), Rc::new(Cell::new(None)), Rc::new(()));
    let kept = [Rc::clone(&job), Rc::clone(&job)];
    let [of_every, of_tell] = kept;
    own.set(Some(reactor.net().every(Duration::from_millis(1), move |net, journal| {
        note(journal, key, "every");
        let _ = &of_every;
        assert!(net.cancel(by_every.get().expect("it is set")));
        assert!(!net.cancel(by_every.get().expect("it was set")));
    })));
    let of_connection = Rc::clone(&by_tell);
    reactor.net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        let own = Rc::clone(&of_connection);
        of_connection.set(Some(ctx.every(Duration::from_millis(1), move |_: &mut Recorder<On>, ctx, journal| {
            note(journal, ctx.key, "own");
            let _ = &of_tell;
            assert!(ctx.net.cancel(own.get().expect("it is set")));
            Ok(())
        })));
        Ok(())
    });
    until(&mut reactor, &mut journal, |journal| journal.frames().len() >= 2);
    settle(&mut reactor, &mut journal);
    assert_eq!((reactor.stats().timers, Rc::strong_count(&job)), (0, 1), "and nothing of them is left");
    let mut frames = journal.frames();
    frames.sort();
    assert_eq!(frames, ["every", "own"]);
    assert_eq!(journal.closings(), 0);
}

#[test]
fn a_periodic_timer_can_be_cancelled_inside_its_own_callback() {
    let mut reactor: Reactor<(u32, Option<Timer>)> = Reactor::new().expect("a selector");
    let timer = reactor.net().every(Duration::from_millis(1), |net, (fired, timer): &mut (u32, Option<Timer>)| {
        *fired += 1;
        if *fired == 3 {
            assert!(net.cancel(timer.expect("it is set")));
            assert!(!net.cancel(timer.expect("it was set")));
        }
    });
    let mut state = (0, Some(timer));
    reactor.run(&mut state).expect("the selector works");
    assert_eq!(state.0, 3);
}

#[test]
fn a_cancelled_timer_does_not_fire_even_when_it_is_due() {
    let mut reactor: Reactor<Vec<&'static str>> = Reactor::new().expect("a selector");
    let mut net = reactor.net();
    let victim = Rc::new(Cell::new(None));
    let named = Rc::clone(&victim);
    net.after(Duration::ZERO, move |net, fired: &mut Vec<_>| {
        fired.push("first");
        assert!(net.cancel(named.get().expect("it is set")));
    });
    victim.set(Some(net.after(Duration::ZERO, |_, fired: &mut Vec<_>| fired.push("victim"))));
    let mut fired = Vec::new();
    reactor.run(&mut fired).expect("the selector works");
    assert_eq!(fired, ["first"]);
    let gone = victim.get().expect("it was set");
    assert!(!reactor.net().cancel(gone));
}

#[test]
fn a_timers_name_is_never_used_again() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    let first = reactor.net().after(PATIENCE, |_, ()| {});
    assert!(reactor.net().cancel(first));
    let second = reactor.net().after(PATIENCE, |_, ()| {});
    assert_ne!(first, second);
    assert!(!reactor.net().cancel(first) && reactor.net().cancel(second));
}

#[test]
fn a_deadline_counts_from_a_fresh_reading_of_the_clock() {
    let mut reactor: Reactor<bool> = Reactor::new().expect("a selector");
    reactor.net().post(|net, _| {
        thread::sleep(SHORT); // a callback that takes its time
        let set = Instant::now();
        net.after(SHORT, move |_, fired| {
            assert!(set.elapsed() >= SHORT, "early");
            *fired = true;
        });
    });
    let mut fired = false;
    until(&mut reactor, &mut fired, |fired| *fired);
}

#[test]
fn a_connections_timers_run_with_it_and_die_with_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.every(Duration::from_millis(1), |_: &mut Recorder<On>, ctx, journal| {
            note(journal, ctx.key, "tick");
            if journal.frames().len() == 3 {
                ctx.close();
            }
            Ok(())
        });
        Ok(())
    });
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    run_out(&mut reactor, &mut journal);
    assert_eq!(journal.frames().len(), 3);
}

#[test]
fn an_err_of_a_connections_timer_ends_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell_after(key, TICK, |_: &mut Recorder<On>, _, _| Err("too late".into()));
    ends_with(&mut reactor, &mut journal, key, "failed: too late");
}

#[test]
fn a_period_is_at_least_a_millisecond() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let began = Instant::now();
    reactor.net().every(Duration::ZERO, |net, fired| {
        *fired += 1;
        if *fired == 10 {
            net.stop();
        }
    });
    reactor.run(&mut 0).expect("the selector works");
    assert!(began.elapsed() >= Duration::from_millis(10));
}

#[test]
fn for_ever_is_no_time_at_all_to_set() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    let timers = [
        net.after(Duration::MAX, |_, _| panic!("it fired")),
        net.every(Duration::MAX, |_, _| panic!("it fired")),
        net.tell_after(key, Duration::MAX, |_: &mut Recorder<On>, _, _| panic!("it fired")),
    ];
    let mut link = net.link(key).expect("open");
    link.set_idle_timeout(Duration::MAX);
    link.set_deadline(Duration::MAX);
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    for timer in timers {
        assert!(reactor.net().cancel(timer));
    }
    reactor.net().drain(Duration::MAX);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key), [Call::Connected, Call::Received(b"x".to_vec()), Call::Draining]);
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

/// Its bare number was believed: it hit a timer of the loop's own, and the count of jobs fell below zero.
#[test]
fn a_timer_of_another_reactor_does_not_break_this_one() {
    let mut other = Reactor::<()>::new().expect("a selector");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let foreign = other.net().after(ms(9_000), |_, _| {});
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // Its time-out is the first timer of this reactor.
    reactor.net().connect(server.local_addr().expect("it is bound"), Nothing);
    assert_eq!(reactor.stats().timers, 1);
    assert!(!reactor.net().cancel(foreign), "nothing was set by that name here");
    assert_eq!(reactor.stats().timers, 1, "the time-out is still there");
    settle(&mut reactor, &mut ());
    assert!(other.net().cancel(foreign));
}
