//! mainspring beside its peers: every cell against every server, interleaved over several rounds, each server alone with
//! the load generator. Writes docs/benchmarks.md and docs/benchmarks.svg.

mod cost;
mod peers;
mod plot;
mod report;

use lexopt::prelude::*;
use mainspring_benches::{
    cells::{self, Cell},
    load::{self, Failure, Figures, Load, Run},
    machine,
    process::Server,
};
use peers::{Build, PEERS, Peer, REFERENCE};
use std::{
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the whole comparison waits for others to calm down.
const PATIENCE: Duration = Duration::from_secs(180);

const HELP: &str = "\
Measures mainspring beside its peers, and writes docs/benchmarks.md and
docs/benchmarks.svg.

usage: compare [OPTIONS]

--rounds N      how often each cell is run; 3 if not given
--secs S        how long each run is measured; 0.8
--cells A,B     only these
--peers A,B     only these, and the reference
--idle N        how many idle connections; 10,000
--profile P     peak (fat LTO) or release
--noise S       a run in which other processes took more than this share of a
                processor is repeated, twice at most; 0.12. From 1 on none is,
                and nobody waits for the others to calm down
--without X     micro or cost: without the micro-benchmarks, or the cost of
                building
--print         write nothing, print the tables; with --cells, --peers, --idle or
                --profile nothing is written either. What fails is in the page
--list          name the cells and the peers, and end

It takes about ten minutes, and needs two processors, Linux and a quiet machine.";

pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) secs: f64,
    pub(crate) cells: Vec<Cell>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) idle: usize,
    pub(crate) profile: String,
    pub(crate) noise: f64,
    pub(crate) with_micro: bool,
    pub(crate) with_cost: bool,
    pub(crate) writes: bool,
}

/// One run of one server in one cell.
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) cell: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) figures: Figures,
    /// What share of a processor others took meanwhile.
    pub(crate) foreign: f64,
}

/// What is reported.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    pub(crate) errors: Vec<String>,
    pub(crate) repeated: usize,
    pub(crate) took: Duration,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|options| options.map_or(Ok(true), |options| compare(&options)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Option<Options>, Failure> {
    let mut options = Options {
        rounds: 3,
        secs: 0.8,
        cells: Vec::new(),
        peers: PEERS.to_vec(),
        idle: 10_000,
        profile: "peak".into(),
        noise: 0.12,
        with_micro: true,
        with_cost: true,
        writes: true,
    };
    let mut cells = String::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("list") => {
                list();
                return Ok(None);
            }
            Long("rounds") => options.rounds = parser.value()?.parse_with(|text| within(text, 1..=100))?,
            Long("secs") => options.secs = parser.value()?.parse_with(|text| within(text, 0.05..=60.0))?,
            Long("idle") => {
                options.idle = parser.value()?.parse_with(|text| within(text, 1..=1_000_000))?;
                options.writes = false;
            }
            Long("noise") => options.noise = parser.value()?.parse_with(|text| within(text, 0.0..=100.0))?,
            Long("cells") => (cells, options.writes) = (parser.value()?.string()?, false),
            Long("peers") => {
                let wanted = parser.value()?.string()?;
                options.peers = peers::named(&wanted)?;
                options.writes = false;
            }
            Long("profile") => match parser.value()?.string()?.as_str() {
                profile @ ("peak" | "release") => (options.profile, options.writes) = (profile.to_owned(), false),
                other => return Err(format!("there is no profile \"{other}\": peak or release").into()),
            },
            Long("without") => match parser.value()?.string()?.as_str() {
                "micro" => options.with_micro = false,
                "cost" => options.with_cost = false,
                other => return Err(format!("\"{other}\" cannot be left out: micro or cost").into()),
            },
            Long("print") => options.writes = false,
            other => return Err(format!("{}; --help shows how it is used", other.unexpected()).into()),
        }
    }
    options.cells = match cells.as_str() {
        "" => cells::all(options.idle),
        names => names.split(',').map(|name| cells::named(name, options.idle)).collect::<Result<_, _>>()?,
    };
    Ok(Some(options))
}

fn within<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, String> {
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| format!("not a number from {} to {}", range.start(), range.end()))
}

fn list() {
    for cell in cells::all(10_000) {
        println!("{:12} {}", cell.name, cell.says);
    }
    for peer in PEERS {
        println!("{:12} {}", peer.name, peer.says);
    }
}

/// Whether all went well.
fn compare(options: &Options) -> Result<bool, Failure> {
    let processors = machine::processors()?;
    let [for_servers, for_us, ..] = processors[..] else {
        return Err("it needs two processors: one for the server, one for the load generator".into());
    };
    let build = Build::all(&options.profile, &options.peers)?;
    let micro = if options.with_micro { Some(cost::micro(&build)?) } else { None };
    let cost = if options.with_cost { Some(cost::table(&build)?) } else { None };
    machine::pin(for_us)?;
    let began = Instant::now();
    let mut stage = Stage { options, build: &build, for_servers, for_us, patience: PATIENCE, results: Results::default() };
    for round in 0..options.rounds {
        for cell in &options.cells {
            for peer in order(round, cell, &build) {
                stage.run(round, cell, peer);
            }
        }
    }
    let mut results = stage.results;
    results.took = began.elapsed();
    let report = report::Report { options, results: &results, build: &build, micro, cost };
    report.show(options.writes)?;
    for error in &results.errors {
        eprintln!("error: {error}");
    }
    Ok(results.errors.is_empty())
}

/// The reference first and last; between them all others, beginning with another one in each round.
fn order(round: usize, cell: &Cell, build: &Build) -> Vec<Peer> {
    let (reference, mut others): (Vec<Peer>, Vec<Peer>) =
        build.peers.iter().filter(|peer| peer.modes.contains(&cell.mode)).partition(|peer| peer.name == REFERENCE);
    if !others.is_empty() {
        let turned = round % others.len();
        others.rotate_left(turned);
    }
    let mut order = reference.clone();
    order.extend(others);
    order.extend(reference);
    order
}

/// Where one server after the other appears.
struct Stage<'a> {
    options: &'a Options,
    build: &'a Build,
    for_servers: usize,
    for_us: usize,
    /// How long we still wait for other processes to calm down.
    patience: Duration,
    results: Results,
}

impl Stage<'_> {
    fn run(&mut self, round: usize, cell: &Cell, peer: Peer) {
        let outcome = self.run_quietly(cell, peer);
        let shown = match &outcome {
            Ok((figures, foreign)) => format!(
                "{:>12.1} {:14} {:>9.1} ns of CPU each; others {foreign:.2}",
                figures.rate() * cell.scale,
                cell.unit,
                figures.cpu_per_request()
            ),
            Err(why) => format!("error: {why}"),
        };
        println!("{round} {:12} {:12} {shown}", cell.name, peer.name);
        match outcome {
            Ok((figures, foreign)) => {
                self.results.samples.push(Sample { round, cell: cell.name, peer: peer.name, figures, foreign });
            }
            Err(why) => self.results.errors.push(format!("{} in {}, round {round}: {why}", peer.name, cell.name)),
        }
    }

    /// The run in which others were least busy: the first one, if they were quiet enough.
    fn run_quietly(&mut self, cell: &Cell, peer: Peer) -> Result<(Figures, f64), Failure> {
        let mut best = self.run_once(cell, peer)?;
        for _ in 0..2 {
            if best.1 <= self.options.noise || self.options.noise >= 1.0 {
                break;
            }
            self.results.repeated += 1;
            let other = self.run_once(cell, peer)?;
            if other.1 < best.1 {
                best = other;
            }
        }
        Ok(best)
    }

    /// With the share of a processor that others took meanwhile.
    fn run_once(&mut self, cell: &Cell, peer: Peer) -> Result<(Figures, f64), Failure> {
        self.wait_for_quiet();
        let (busy, began) = (machine::busy(), Instant::now());
        let mut server =
            Server::start(self.build.command(peer, cell.mode), self.build.complaints(), self.for_servers, self.for_us)?;
        let run = Run { port: server.port, pid: server.pid(), warm_secs: 0.15, secs: self.options.secs };
        let load = match cell.load {
            Load::Idle { connections } => Load::Idle { connections: connections.min(peer.idle_max) },
            other => other,
        };
        let before = machine::own_cpu() + machine::cpu_of(server.pid())?;
        let figures = load::run(load, run).map_err(|why| server.explained(why))?;
        let ours = machine::own_cpu() + machine::cpu_of(server.pid())? - before;
        let foreign = (machine::busy() - busy - ours) / began.elapsed().as_secs_f64();
        Ok((figures, foreign.max(0.0)))
    }

    /// Until nobody else works, or patience is at its end.
    fn wait_for_quiet(&mut self) {
        while self.options.noise < 1.0 && self.patience > Duration::ZERO {
            let (busy, at) = (machine::busy(), Instant::now());
            sleep(Duration::from_millis(80));
            if (machine::busy() - busy) / at.elapsed().as_secs_f64() <= self.options.noise {
                return;
            }
            sleep(Duration::from_millis(300));
            self.patience = self.patience.saturating_sub(at.elapsed());
        }
    }
}
