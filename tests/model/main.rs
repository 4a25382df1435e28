//! The model test: some hosts on a simulated network do random things to each other in random weather, and a shadow model,
//! which knows what was promised and nothing of how it is kept, looks at every callback and every answer.
//!
//! What it holds the loop to: exactly one `closed` for each connection, last; the grammar of calls; the bytes of each
//! direction, none twice, none missing, all of them where the end was told; frames as a pure re-framing of those bytes has
//! them, however they were cut; nothing but tells after the end; what is paused, held back or throttled gets no data;
//! `writable` after congestion only, once for each; timers never early, never twice, in order; tells and posts in order;
//! what is owned ends with its owner; what is given back is all that was not told and all that has not left, and goes on so where it is
//! adopted again; what one of a pair receives comes out of the other, and so does its end;
//! what speaks TLS is told the same, and nothing before both have agreed;
//! pieces of a lane in order, and its last always; what is saved, and what is sent from elsewhere, byte for byte; offloaded work told once, unless its connection has ended or become something else, and refused only for lack of room;
//! of each datagram that comes that it was sent, by that one, to this one, just so, and once, unless the weather doubles; queues within their cap; no more bytes than the rates of each and of all allow; the reason that was caused; nothing left lying when the weather clears; every socket given back.
//!
//! `MODEL_SEEDS=n` runs n seeds (from `MODEL_FIRST` on), `MODEL_SEED=n` one, with everything that happened. With `MODEL_BEFORE`
//! set they are the programs that the seeds below 15,490,000 were when they were run: without lanes, saves, pairs, datagrams and
//! what is adopted. With `MODEL_KERNEL=windows` all hosts have sockets as Windows has them.
#![cfg(feature = "sim")]

mod run;
mod chance;
mod framing;
mod shadow;
mod checks;
mod plays;
mod opening;
mod sending;
mod commands;
mod tells;
mod elsewhere;
mod pairs;
mod adopting;
mod datagrams;
mod securing;
mod peace;
#[cfg(feature = "tls")]
mod transparent;

#[cfg(feature = "tls")]
#[path = "../common/tls.rs"]
mod configs;

use run::{Figures, Run};
use std::time::Duration;

/// How much is done in one run, from outside and from inside callbacks.
const OPERATIONS: u32 = 500;

/// How many seeds a plain `cargo test` runs.
const SEEDS: u64 = 500;

const SECOND: Duration = Duration::from_secs(1);

/// How much of what happened is shown with a failure.
const LINES_SHOWN: usize = 60;

#[test]
fn what_is_promised_holds_whatever_is_done_in_whatever_weather() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("MODEL_SEED") {
        let run = Run::of(seed, true);
        println!("{}", run.story(usize::MAX));
        assert!(run.broken.is_none(), "seed {seed}: {}", run.broken.unwrap_or_default());
        return;
    }
    let (first, seeds) = (number("MODEL_FIRST").unwrap_or(0), number("MODEL_SEEDS").unwrap_or(SEEDS));
    let mut figures = Figures::default();
    for seed in first..first + seeds {
        let run = Run::of(seed, false);
        if let Some(broken) = run.broken {
            let again = Run::of(seed, true);
            panic!(
                "seed {seed}: {broken}\n{}\nto run it again:\n    \
                 MODEL_SEED={seed} cargo test --features sim --test model -- --nocapture",
                again.story(LINES_SHOWN)
            );
        }
        figures.add(&run.figures);
    }
    println!("{seeds} seeds from {first} on: {figures}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let (one, other) = (Run::of(seed, true), Run::of(seed, true));
        assert_eq!(one.broken, other.broken);
        assert_eq!(one.digest, other.digest, "seed {seed}");
        assert_eq!(one.journal, other.journal, "seed {seed}");
    }
}

/// Each once broke a promise, or what the model took for one; the name of the fault first. The programs are those of then.
#[test]
fn the_seeds_that_once_failed_hold() {
    let seeds = [
        ("a connect that fails on purpose is a loss", &[44245, 5044926, 5134322, 5251179, 5256759, 5284606][..]),
        ("who gives up a race ends before `closed`", &[47911, 70801, 5083943, 5211725, 13818102, 14326262, 14589843]),
        ("work is taken while a refusal is untold", &[5279817]),
        ("a fault lets a silent address win a race", &[7021198, 7046895]),
        ("output stays queued on who was lost before it was connected", &[7119100]),
        ("an empty line behind a skipped frame is all that a refusal leaves", &[7473283]),
        ("a long turn lets the deadline of a known answer pass", &[12161871]),
        ("what a failed one has put back is put back of another's", &[14834664, 14840495, 14851224, 14898638]),
    ];
    for (fault, seeds) in seeds {
        for &seed in seeds {
            assert_eq!(Run::as_before(seed).broken, None, "{fault}: seed {seed}");
        }
    }
}

/// Prints what scripts/traces.sh compares between builds: no clock, address or hash of the machine may be in a trace, nor
/// anything that only an assertion does.
#[test]
fn the_traces_have_a_digest() {
    let digest = (0..200).fold(0_u64, |all, seed| all.rotate_left(7) ^ Run::of(seed, true).digest);
    println!("the traces of 200 seeds: {digest:016x}");
}
