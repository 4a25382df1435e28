//! Many seeds, and the few faults that make one of them fail; every cutting of some bytes.

use super::{sim::Sim, transcript::Transcript};
use crate::{
    contract::Protocol,
    panics::{guard, text},
};
use std::{collections::BTreeSet, ops::Range};

/// The environment variable that names one seed to be run alone.
const SEED: &str = "MAINSPRING_SEED";

/// How many runs are spent on making the faults of a failing one fewer.
const SHRINKING_RUNS: usize = 400;

/// How much of the trace is shown with a failure.
const TRACE_LINES: usize = 60;

/// Runs a test with every seed of a range. What it does with the [`Sim`] should depend on nothing else.
///
/// With `MAINSPRING_SEED=17` in the environment only that seed is run, with its whole trace.
///
/// # Panics
/// If the test panics with a seed. First the run is repeated with ever fewer of its faults; the message says what panicked,
/// the seed, how many faults are left, the end of the trace, and the command that runs it again.
///
/// ```
/// # use mainspring::{testing::{check, Weather}, Context, Outcome, Protocol};
/// # use std::time::Duration;
/// # struct Echo;
/// # impl<S> Protocol<S> for Echo {
/// #     fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
/// #         ctx.send(bytes);
/// #         Ok(())
/// #     }
/// # }
/// check(0..20, |sim| {
///     sim.set_weather(Weather::rough());
///     let server = sim.host("10.0.0.1", ());
///     sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
///     // … clients, assertions …
///     sim.run_for(Duration::from_secs(60));
/// });
/// ```
pub fn check(seeds: Range<u64>, test: impl Fn(&mut Sim)) {
    if let Some(seed) = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap_or_else(|_| panic!("{SEED}={seed} is no seed"))) {
        let run = attempt(seed, &BTreeSet::new(), true, &test);
        println!("{}", run.trace);
        if let Some(why) = run.why {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    for seed in seeds {
        let first = attempt(seed, &BTreeSet::new(), false, &test);
        if first.why.is_some() {
            report(seed, first, &test);
        }
    }
}

/// One run of a test.
struct Attempt {
    /// What it panicked with.
    why: Option<String>,
    struck: Vec<u64>,
    trace: String,
}

fn attempt(seed: u64, muted: &BTreeSet<u64>, with_trace: bool, test: &impl Fn(&mut Sim)) -> Attempt {
    let mut sim = Sim::new(seed);
    sim.keep_trace(with_trace);
    sim.network().borrow_mut().muted.clone_from(muted);
    let outcome = guard(|| test(&mut sim));
    let (struck, trace) = {
        let network = sim.network().borrow();
        (network.struck.clone(), network.trace.text())
    };
    Attempt { why: outcome.err().map(|payload| text(&payload)), struck, trace }
}

/// Leaves out ever smaller parts of the faults, as long as it still fails without them (delta debugging).
fn shrink(seed: u64, first: Attempt, test: &impl Fn(&mut Sim)) -> (BTreeSet<u64>, usize) {
    let (mut muted, mut struck) = (BTreeSet::new(), first.struck);
    let (mut part, mut runs) = (struck.len(), 0);
    while part > 0 && runs < SHRINKING_RUNS {
        let mut at = 0;
        while at < struck.len() && runs < SHRINKING_RUNS {
            let mut tried = muted.clone();
            tried.extend(struck[at..].iter().take(part));
            let run = attempt(seed, &tried, false, test);
            runs += 1;
            if run.why.is_some() {
                (muted, struck) = (tried, run.struck);
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    (muted, struck.len())
}

fn report(seed: u64, first: Attempt, test: &impl Fn(&mut Sim)) -> ! {
    let faults = first.struck.len();
    let (muted, left) = shrink(seed, first, test);
    let last = attempt(seed, &muted, true, test);
    let lines: Vec<&str> = last.trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n");
    let name = std::thread::current().name().unwrap_or("the_test").to_owned();
    panic!(
        "seed {seed}: {}\n{left} of its {faults} faults are enough. The end of the trace:\n{tail}\nto run it again:\n    {SEED}={seed} \
         cargo test {name} -- --nocapture",
        last.why.unwrap_or_else(|| "it fails with all of its faults only".into())
    );
}

/// Feeds a protocol the same bytes whole, one by one, and cut in two at every place, and compares what it sent.
///
/// # Panics
/// If it sends anything else for some cutting; the message says for which.
pub fn every_cut<P, S>(bytes: impl AsRef<[u8]>, protocol: impl Fn() -> P)
where
    P: Protocol<S>,
    S: Default + 'static,
{
    let bytes = bytes.as_ref();
    let run = |pieces: &[&[u8]]| {
        let mut t: Transcript<P, S> = Transcript::new(protocol());
        for piece in pieces {
            if t.end_reason().is_none() {
                t.receives(piece);
            }
        }
        (t.all_sent(), t.end_reason())
    };
    let whole = run(&[bytes]);
    for cut in 1..bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert!(
            run(&[a, b]) == whole,
            "cut after {cut} bytes it answers differently than to \"{}\" at once",
            bytes.escape_ascii()
        );
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert!(run(&single) == whole, "byte by byte it answers differently than to \"{}\" at once", bytes.escape_ascii());
}
