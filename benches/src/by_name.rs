//! What the programs that run the gate's loads by name share.

use crate::load::Failure;
use std::process::ExitCode;

/// How often it was done, and how many system calls were the clients'.
#[derive(Default)]
pub struct Done {
    pub requests: usize,
    pub own_calls: usize,
}

/// Runs the load that the arguments name, this many times; says what came of it.
pub fn main(help: &str, run: impl FnOnce(&str, usize) -> Result<Done, Failure>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, times) = match &arguments[..] {
        [name] => (name, Ok(1)),
        [name, times] => (name, times.parse()),
        _ => (&String::new(), Ok(0)),
    };
    let Ok(times @ 1..=1_000) = times else {
        eprintln!("{help}");
        return ExitCode::from(2);
    };
    match run(name, times) {
        Ok(done) => {
            println!("{} {}", done.requests, done.own_calls);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What `run` says of a name that is not a load's.
pub fn unknown() -> Result<Done, Failure> {
    Err("there is no such load; without arguments they are named".into())
}
