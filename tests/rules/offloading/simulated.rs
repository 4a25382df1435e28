//! In virtual time, by the same thread, the same again for the same seed.

use crate::common::SECOND;
use mainspring::{
    Config, Context, OffloadError, Outcome, Protocol, Reason, Terminator,
    testing::{Errno, Sim, Transcript, Weather, every_cut},
};
use std::{thread, time::Duration};

/// Answers each line with its length, which another thread has counted.
struct Lengths;

impl<S> Protocol<S> for Lengths {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        let line = line.to_vec();
        ctx.pause();
        ctx.offload(
            move || line.len(),
            |_: &mut Self, ctx, _, length| {
                ctx.send(format!("{}\n", length?));
                ctx.resume();
                Ok(())
            },
        );
        Ok(())
    }
}

#[test]
fn in_a_transcript_work_takes_no_time() {
    let mut t = Transcript::<Lengths>::new(Lengths);
    t.receives("four\nthree\n").sends("4\n5\n").peer_ends().closes(|why| matches!(why, Reason::Eof));
}

#[test]
fn every_cut_is_answered_alike() {
    every_cut::<Lengths, ()>("one\r\ntwo\n\nthree\n", || Lengths);
}

#[test]
fn work_takes_the_time_that_the_weather_says() {
    let mut t = Transcript::<Lengths>::new(Lengths);
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.receives("four\n").sends("");
    t.passes(SECOND).sends("4\n");
    // It dies with its connection, at whatever time.
    t.receives("four\n").peer_resets();
    t.passes(SECOND).closes(|why| matches!(why, Reason::Io(_)));
}

#[derive(Default)]
struct Log {
    ended: Vec<(u32, Duration)>,
    turns: Vec<u64>,
    refused: Vec<String>,
}

/// This many pieces of work at once; when each ended.
fn run(seed: u64, config: Config, pieces: u32) -> (Log, u64) {
    let mut sim = Sim::new(seed);
    sim.set_weather(Weather::fair().work(SECOND));
    let host = sim.host_with("10.0.0.1", Log::default(), config);
    let here = thread::current().id();
    let began = sim.net(host).now();
    for number in 0..pieces {
        sim.net(host).offload(
            move || {
                assert_eq!(thread::current().id(), here);
                number
            },
            move |net, log: &mut Log, number| match number {
                Ok(number) => {
                    log.ended.push((number, net.now() - began));
                    log.turns.push(net.stats().turns);
                }
                Err(error) => log.refused.push(error.to_string()),
            },
        );
    }
    sim.run_for(Duration::from_secs(u64::from(pieces)));
    assert!(sim.has_stopped(host), "nothing is left");
    let digest = sim.digest();
    (std::mem::take(sim.state(host)), digest)
}

#[test]
fn a_single_thread_does_one_piece_after_the_other() {
    let (log, _) = run(1, Config::new().offload_threads(1), 20);
    let numbers: Vec<u32> = log.ended.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(log.ended.windows(2).all(|pair| pair[0].1 < pair[1].1));
    assert!(log.ended[19].1 > 5 * SECOND, "twenty times half a second, by and large");
}

#[test]
fn many_threads_end_in_any_order_and_the_same_one_for_the_same_seed() {
    let config = || Config::new().offload_threads(20);
    let (log, digest) = run(2, config(), 20);
    assert!(log.ended.iter().all(|(_, at)| *at < SECOND));
    assert!(log.ended.windows(2).any(|pair| pair[0].0 > pair[1].0), "not in the order in which they began");
    let (again, digest_again) = run(2, config(), 20);
    assert_eq!((log.ended, digest), (again.ended, digest_again));
}

#[test]
fn what_is_beyond_threads_and_queue_is_refused() {
    let (log, _) = run(3, Config::new().offload_threads(2).offload_queue(3), 10);
    assert_eq!((log.ended.len(), log.refused.len()), (5, 5));
    assert_eq!(log.refused[0], OffloadError::Full.to_string());
}

#[test]
fn so_many_ends_are_told_in_a_turn() {
    let mut sim = Sim::new(4);
    let host = sim.host_with("10.0.0.1", Log::default(), Config::new().turn_jobs(1));
    for _ in 0..3 {
        sim.net(host).offload(|| (), |net, log: &mut Log, _| log.turns.push(net.stats().turns));
    }
    sim.settle();
    let turns = &sim.state(host).turns;
    assert_eq!(turns.len(), 3);
    assert!(turns.windows(2).all(|pair| pair[1] == pair[0] + 1), "{turns:?}: one a turn, without a sleep between");
}

#[test]
fn a_system_that_gives_no_thread_is_an_error_for_done() {
    let mut sim = Sim::new(5);
    let host = sim.host("10.0.0.1", Log::default());
    let next = sim.operations(host);
    sim.fail_operation(host, next, Errno::Again, false);
    sim.net(host).offload(
        || unreachable!("there is no thread"),
        |_, log: &mut Log, result: Result<(), _>| log.refused.push(result.expect_err("there is no thread").to_string()),
    );
    sim.net(host).offload(|| 7, |net, log: &mut Log, number| log.ended.push((number.expect("a thread"), net.now() - net.now())));
    sim.run_for(SECOND);
    let log = sim.state(host);
    assert_eq!(log.ended[0].0, 7);
    assert!(log.refused[0].starts_with("no thread could be started for blocking work: "), "{}", log.refused[0]);
}

#[test]
fn a_host_that_is_switched_off_does_no_work() {
    let mut sim = Sim::new(6);
    sim.set_weather(Weather::fair().work(SECOND));
    let host = sim.host("10.0.0.1", Log::default());
    sim.net(host).offload(|| unreachable!("it is off"), |_, _: &mut Log, _: Result<(), _>| unreachable!("it is off"));
    sim.kill(host);
    sim.run_for(2 * SECOND);
}
