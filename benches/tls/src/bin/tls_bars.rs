//! What TLS costs: this crate beside a bare loop over rustls and beside tokio-rustls, in one run and in turns, and whether the
//! bars are held. docs/benchmarks.md says how to read it.

use mainspring_benches::{
    load::Failure,
    machine,
    process::{Server, succeed},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread::sleep,
    time::Duration,
};
use tls::{
    load::{self, Dialer},
    tls as side,
};

const HELP: &str = "\
Measures what TLS costs, and checks whether the bars are held.

usage: tls_bars [ROUNDS]

ROUNDS  how often each server is measured, in turns; 7 if not given

It needs Linux, two processors, and valgrind for the instructions.";

/// An echo of this many bytes, on this many connections at a time.
const SIZE: usize = 64;
const CONNECTIONS: usize = 32;
const ECHOES: usize = 1_500;
const MEBIBYTES: usize = 192;
const HANDSHAKES: usize = 300;

/// Connections that are idle, and the message that each of them has had besides: a whole record.
const IDLE: usize = 2_000;
const RECORD: usize = 16 << 10;

/// What is counted: the difference of this many rounds on this many connections.
const COUNTED_ROUNDS: [usize; 2] = [100, 400];
const COUNTED_CONNECTIONS: usize = 8;

/// So that the server is at rest.
const REST: Duration = Duration::from_millis(200);

struct Peer {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    variant: Option<&'static str>,
    is_clear: bool,
    /// Only its memory is looked at.
    only_memory: bool,
}

const fn peer(name: &'static str, package: &'static str, program: &'static str) -> Peer {
    Peer { name, package, program, variant: None, is_clear: false, only_memory: false }
}

const OURS: usize = 0;
const BARE: usize = 1;
const EXAMPLE: usize = 2;
const TOKIO: usize = 3;

const PEERS: [Peer; 6] = [
    peer("mainspring", "tls", "tls_server"),
    peer("bare mio loop, buffered rustls", "peer-tls-mio", "peer-tls-mio"),
    Peer { variant: Some("example"), ..peer("the same, as rustls' example has it", "peer-tls-mio", "peer-tls-mio") },
    peer("tokio-rustls, 64 KiB buffer", "peer-tls-tokio", "peer-tls-tokio"),
    Peer { variant: Some("small"), only_memory: true, ..peer("tokio-rustls, 4 KiB buffer", "peer-tls-tokio", "peer-tls-tokio") },
    Peer { is_clear: true, ..peer("mainspring, in clear", "server", "server") },
];

/// Of one server: a figure for each round, in µs of its processor's time.
#[derive(Default)]
struct Figures {
    echo: Vec<f64>,
    mebibyte: Vec<f64>,
    full: Vec<f64>,
    resumed: Vec<f64>,
    instructions: Option<f64>,
    /// Bytes each: after the handshake, after an echo, after a whole record.
    idle: [f64; 3],
}

/// A figure of each round.
type Column = fn(&Figures) -> &Vec<f64>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds = match &words[..] {
        [] => Ok(7),
        [word] => word.parse(),
        _ => Ok(0),
    };
    let Ok(rounds @ 1..=100) = rounds else {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    };
    match measure(rounds) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: usize) -> Result<bool, Failure> {
    let [for_servers, for_us, ..] = machine::processors()?[..] else { return Err("two processors are needed".into()) };
    machine::allow_descriptors()?;
    let place = Place { target: build()?, for_servers, for_us };
    let mut figures: [Figures; PEERS.len()] = Default::default();
    if Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        for (peer, figures) in PEERS.iter().zip(&mut figures).filter(|(peer, _)| !peer.only_memory) {
            figures.instructions = Some(place.instructions(peer)?);
        }
    }
    for _ in 0..rounds {
        for (peer, figures) in PEERS.iter().zip(&mut figures).filter(|(peer, _)| !peer.only_memory) {
            place.round(peer, figures)?;
        }
    }
    for (peer, figures) in PEERS.iter().zip(&mut figures) {
        figures.idle = place.idle(peer)?;
    }
    print_table(rounds, &figures);
    Ok(print_bars(&figures))
}

// ------------------------------------------------------------------------------------------------ measuring

/// Where the servers run, and where we do.
struct Place {
    target: PathBuf,
    for_servers: usize,
    for_us: usize,
}

impl Place {
    fn start(&self, peer: &Peer, under: &[&str]) -> Result<Server, Failure> {
        let program = self.target.join("release").join(peer.program);
        let mut command = match under {
            [] => Command::new(program),
            [tool, options @ ..] => {
                let mut command = Command::new(tool);
                command.args(options).arg(program);
                command
            }
        };
        command.args(["echo", "0"]).args(peer.variant);
        Server::start(command, self.target.join("tls_server.stderr"), self.for_servers, self.for_us)
    }

    fn dialer(peer: &Peer, server: &Server) -> Result<Dialer, Failure> {
        let config = if peer.is_clear { None } else { Some(side::client()?) };
        Ok(Dialer { port: server.port, config })
    }

    /// Of an echo, in user space.
    fn instructions(&self, peer: &Peer) -> Result<f64, Failure> {
        let mut counts = [0.0; 2];
        for (rounds, count) in COUNTED_ROUNDS.into_iter().zip(&mut counts) {
            let server = self.start(peer, &["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"])?;
            let mut clients = Self::dialer(peer, &server)?.dial_all(COUNTED_CONNECTIONS)?;
            load::echo(&mut clients, rounds, SIZE)?;
            let said = server.end()?;
            let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
            *count = collected.ok_or_else(|| format!("callgrind says no count: {said}"))?;
        }
        Ok((counts[1] - counts[0]) / ((COUNTED_ROUNDS[1] - COUNTED_ROUNDS[0]) * COUNTED_CONNECTIONS) as f64)
    }

    fn round(&self, peer: &Peer, figures: &mut Figures) -> Result<(), Failure> {
        let server = self.start(peer, &[])?;
        let dialer = Self::dialer(peer, &server)?;
        let cpu = || machine::cpu_of(server.pid());
        let mut clients = dialer.dial_all(CONNECTIONS)?;
        load::echo(&mut clients, 50, SIZE)?;
        let began = cpu()?;
        load::echo(&mut clients, ECHOES, SIZE)?;
        figures.echo.push((cpu()? - began) * 1e6 / (ECHOES * CONNECTIONS) as f64);
        let mut one = dialer.dial()?;
        load::bulk(&mut one, MEBIBYTES / 8)?;
        let began = cpu()?;
        load::bulk(&mut one, MEBIBYTES)?;
        figures.mebibyte.push((cpu()? - began) * 1e6 / MEBIBYTES as f64);
        if peer.is_clear {
            return Ok(());
        }
        for (resumed, into) in [(false, &mut figures.full), (true, &mut figures.resumed)] {
            let began = cpu()?;
            load::handshakes(server.port, HANDSHAKES, resumed)?;
            into.push((cpu()? - began) * 1e6 / HANDSHAKES as f64);
        }
        Ok(())
    }

    fn idle(&self, peer: &Peer) -> Result<[f64; 3], Failure> {
        let server = self.start(peer, &[])?;
        let dialer = Self::dialer(peer, &server)?;
        // What the first connection alone costs is not of each, nor the sessions that are kept for the next time.
        if !peer.is_clear {
            load::handshakes(server.port, HANDSHAKES, false)?;
        }
        let mut first = [dialer.dial()?];
        load::echo(&mut first, 1, RECORD)?;
        let written = || {
            sleep(REST);
            machine::dirty_bytes_of(server.pid())
        };
        let empty = written()?;
        let mut clients = dialer.dial_all(IDLE)?;
        let fresh = written()?;
        load::echo(&mut clients, 1, SIZE)?;
        let used = written()?;
        // One after the other: what is under way is not what is kept.
        for client in &mut clients {
            load::echo(std::slice::from_mut(client), 1, RECORD)?;
        }
        Ok([fresh, used, written()?].map(|bytes| (bytes - empty) / IDLE as f64))
    }
}

/// All servers; each by itself, or one would get its crates with the features that another one wants.
fn build() -> Result<PathBuf, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target directory")?.to_owned();
    for peer in &PEERS {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--release", "--locked", "-p", peer.package, "--bin", peer.program]);
        cargo.current_dir(&folder).env("CARGO_TARGET_DIR", &target);
        succeed(cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    }
    Ok(target)
}

// ------------------------------------------------------------------------------------------------ printing

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the rounds' ratios: a machine that has a slow minute has it for both.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// The largest by the smallest.
fn spread(of: &[f64]) -> f64 {
    of.iter().fold(0.0, |most, &one| f64::max(most, one)) / of.iter().fold(f64::INFINITY, |least, &one| least.min(one))
}

/// A figure, or a dash where there is none.
struct Cell(f64, usize);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() { f.write_str("–") } else { write!(f, "{:.*}", self.1, self.0) }
    }
}

fn print_table(rounds: usize, figures: &[Figures]) {
    println!(
        "{}; medians of {rounds} rounds, the servers in turns; in µs of the server's processor, and in bytes.\n",
        machine::described()
    );
    println!(
        "| | instructions an echo | an echo | a MiB there and back | full handshake | resumed | idle connection | after {SIZE} bytes | after {RECORD} |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (peer, figures) in PEERS.iter().zip(figures) {
        let Figures { echo, mebibyte, full, resumed, instructions, idle: [fresh, used, whole] } = figures;
        let instructions = Cell(instructions.unwrap_or(f64::NAN), 0);
        let [echo, mebibyte, full, resumed] =
            [(echo, 2), (mebibyte, 0), (full, 0), (resumed, 0)].map(|(of, digits)| Cell(median(of), digits));
        println!(
            "| {} | {instructions} | {echo} | {mebibyte} | {full} | {resumed} | {fresh:.0} | {used:.0} | {whole:.0} |",
            peer.name
        );
    }
    let Figures { echo, mebibyte, full, resumed, .. } = &figures[BARE];
    let [echo, mebibyte, full, resumed] = [echo, mebibyte, full, resumed].map(|of| spread(of));
    println!("| the bare loop against itself | | {echo:.2} | {mebibyte:.2} | {full:.2} | {resumed:.2} | | | |\n");
}

fn print_bars(figures: &[Figures]) -> bool {
    let [ours, bare, example, tokio] = [OURS, BARE, EXAMPLE, TOKIO].map(|index| &figures[index]);
    let mut is_held = true;
    let mut bar = |what: &str, figure: f64, most: f64, digits: usize| {
        let verdict = if figure <= most { "PASS" } else { "FAIL" };
        is_held &= verdict == "PASS";
        println!("{verdict}  {what:62} {figure:8.digits$}, at most {most:.digits$}");
    };
    let instructions = |of: &Figures| of.instructions.map(|count| ours.instructions.unwrap_or(f64::NAN) / count);
    match (instructions(bare), instructions(tokio)) {
        (Some(bare), Some(tokio)) => {
            bar("instructions an echo, of the bare loop's", bare, 1.12, 3);
            bar("instructions an echo, of tokio-rustls'", tokio, 0.85, 3);
        }
        _ => println!("SKIP  instructions: valgrind is not installed"),
    }
    bar("CPU time a MiB, of the example's", ratio(&ours.mebibyte, &example.mebibyte), 0.70, 3);
    bar("CPU time a MiB, of tokio-rustls'", ratio(&ours.mebibyte, &tokio.mebibyte), 0.80, 3);
    for ((when, ours), example) in ["", ", after 64 bytes", ", after a whole record"].iter().zip(ours.idle).zip(example.idle) {
        bar(&format!("bytes of an idle connection{when}"), ours, 4_200.0, 0);
        bar(&format!("bytes of an idle connection{when}, of the example's"), ours / example, 0.50, 3);
    }
    println!("\nNo bars, but ratios of the rounds, to the bare loop, the example and tokio-rustls:");
    let times: [(&str, Column); 4] = [
        ("CPU time an echo", |of| &of.echo),
        ("CPU time a MiB", |of| &of.mebibyte),
        ("CPU time of a full handshake", |of| &of.full),
        ("CPU time of a resumed one", |of| &of.resumed),
    ];
    for (what, of) in times {
        let [bare, example, tokio] = [bare, example, tokio].map(|theirs| ratio(of(ours), of(theirs)));
        println!("      {what:62} {bare:.2} {example:.2} {tokio:.2}");
    }
    let [bare, example, tokio] = [bare, example, tokio].map(|theirs| ours.idle[0] / theirs.idle[0]);
    println!("      {:62} {bare:.2} {example:.2} {tokio:.2}", "bytes of an idle connection");
    is_held
}
