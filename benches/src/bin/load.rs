//! The load generator by hand: against a server that runs already, under a profiler for example.

use lexopt::prelude::*;
use mainspring_benches::{
    cells,
    load::{self, Failure, Run},
    machine,
};
use std::process::ExitCode;

const HELP: &str = "\
Runs one cell of the comparison against a server that runs already.

usage: load CELL PORT PID [--secs S] [--cpu N]

CELL    what to do; the server must be of its mode:
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let (mut values, mut secs, mut cpu) = (Vec::new(), 2.0, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                print!("{HELP}");
                for cell in cells::all(10_000) {
                    println!("        {:12} {}", cell.name, cell.mode);
                }
                return Ok(());
            }
            Long("secs") => secs = parser.value()?.parse()?,
            Long("cpu") => cpu = Some(parser.value()?.parse()?),
            Value(value) if values.len() < 3 => values.push(value.string()?),
            other => return Err(format!("{}; --help shows how it is used", other.unexpected()).into()),
        }
    }
    let [name, port, pid] = &values[..] else { return Err("CELL, PORT and PID are needed; --help names the cells".into()) };
    let cell = cells::named(name, 10_000)?;
    if let Some(cpu) = cpu {
        machine::pin(cpu)?;
    }
    let run = Run { port: port.parse()?, pid: pid.parse()?, warm_secs: 0.2, secs };
    let figures = load::run(cell.load, run)?;
    println!("{:.1} {}, {:.1} ns of server CPU each", figures.rate() * cell.scale, cell.unit, figures.cpu_per_request());
    if let Some(latency) = figures.latency {
        println!("{:.1} µs, 99 of 100 within {:.1} µs", latency.p50, latency.p99);
    }
    if let Some(memory) = figures.memory {
        println!("{:.0} bytes for each idle connection, {:.0} after use", memory.fresh, memory.used);
    }
    Ok(())
}
