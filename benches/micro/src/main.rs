//! The parts of mainspring by themselves, beside what does the same elsewhere: tables for docs/benchmarks.md. Each figure
//! is the median of several passes, and what is compared takes turns.

mod broadcast;
mod calls;
mod output;
mod posts;
mod terminators;
mod timers;

use rustix::time::{ClockId, clock_gettime};
use std::{error::Error, process::ExitCode};

const HELP: &str = "\
Measures the parts of mainspring by themselves: terminators, timers, output,
posts, broadcast; and what the way to a system call costs.

usage: RUSTFLAGS='--cfg bench' cargo run --release \\
           --manifest-path benches/Cargo.toml --bin micro [-- PART...]

Without the flag it cannot look into the crate, and leaves the terminators out.";

type Failure = Box<dyn Error + Send + Sync>;

type Part = (&'static str, fn() -> Result<String, Failure>);

const PARTS: [Part; 6] = [
    ("terminators", terminators::table),
    ("timers", timers::table),
    ("output", output::table),
    ("posts", posts::table),
    ("broadcast", broadcast::table),
    ("calls", calls::table),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|word| word == "--help" || word == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.iter().any(|(name, _)| name == word)) {
        eprintln!("error: there is no part \"{unknown}\"; --help names them");
        return ExitCode::from(2);
    }
    for (name, table) in PARTS.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| word == name)) {
        match table() {
            Ok(table) => println!("{table}"),
            Err(why) => {
                eprintln!("error: {name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The CPU time that this thread has used, in nanoseconds: what others do meanwhile is not in it.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// How much of it this takes.
fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let began = cpu_time();
    let result = run();
    (cpu_time() - began, result)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * end) >> 32
    }
}
