//! A file sent by `send_file`, as it is and with `Config::sendfile`, and by plain loops on sockets that block: of read and write, and of
//! sendfile(2). Each in a process of its own, to a reader that compares each byte. docs/benchmarks.md.

use lexopt::prelude::*;
use mainspring::{Config, Context, Listen, Outcome, Protocol, Reactor, Reason};
use mainspring_benches::machine;
use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

type Failure = Box<dyn Error + Send + Sync>;

const HELP: &str = "\
usage: send_file [BYTES [RATE]]

Sends a file of BYTES (1073741824) by each way of `send_file` and by plain
loops, to a reader that takes RATE bytes a second (50000000), and to one that
takes what comes; says how much memory that took, how fast it was, and by how
much processor time: the best round of each, because whatever else a machine
does only adds. Each byte is compared. Fails where a bar is missed.";

/// What the memory of a sender may grow by.
const GROWTH_MAX: u64 = 2 << 20;
/// Of that of a plain loop that moves bytes in the same way.
const RATE_MIN: f64 = 0.9;
/// By sendfile(2), of the processor time that the plain loop of read and write takes.
const CPU_MAX: f64 = 0.6;
const ROUNDS: usize = 9;
const ROUNDS_SLOW: usize = 5;

/// A prime, so that no piece looks like another.
const PERIOD: usize = 65_521;
const READ_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    PlainKernel,
    Read,
    Kernel,
}

impl Way {
    const ALL: [(Self, &str); 4] = [
        (Self::Plain, "read and write"),
        (Self::PlainKernel, "sendfile(2)"),
        (Self::Read, "send_file"),
        (Self::Kernel, "send_file, Config::sendfile"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(way, _)| *way == self).expect("all are there").1
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Read | Self::Kernel)
    }

    fn of(name: &str) -> Result<Self, Failure> {
        let found = Self::ALL.iter().find(|(_, other)| *other == name);
        Ok(found.ok_or_else(|| format!("there is no '{name}'"))?.0)
    }
}

// ----------------------------------------------------------------------------------------------------------- senders

/// Two files, one after the other: the first makes room for all that is always there.
fn send(way: Way, path: &str, bytes: u64) -> Result<(), Failure> {
    match way {
        Way::Plain => plain(path, bytes, copy),
        Way::PlainKernel => plain(path, bytes, by_kernel),
        Way::Read | Way::Kernel => by_reactor(way == Way::Kernel, path, bytes),
    }
}

/// The first line, and after each file another one.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush())
}

fn say_figures() -> io::Result<()> {
    let (peak, now) = memory().unwrap_or_default();
    say(&format!("{} {peak} {now}", machine::own_cpu()))
}

fn copy(file: &File, peer: &mut TcpStream, length: u64) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; 64 << 10], 0);
    while at < length {
        let most = piece.len().min((length - at) as usize);
        let read = file.read_at(&mut piece[..most], at)?;
        peer.write_all(&piece[..read])?;
        at += read as u64;
    }
    Ok(())
}

fn by_kernel(file: &File, peer: &mut TcpStream, length: u64) -> io::Result<()> {
    let mut at = 0;
    while at < length {
        let most = (length - at).min(1 << 20) as usize;
        rustix::fs::sendfile(&*peer, file, Some(&mut at), most)?;
    }
    Ok(())
}

fn plain(path: &str, bytes: u64, send: fn(&File, &mut TcpStream, u64) -> io::Result<()>) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&listener.local_addr()?.to_string())?;
    for length in [bytes / 16, bytes] {
        let (mut peer, _) = listener.accept()?;
        send(&File::open(path)?, &mut peer, length)?;
        drop(peer);
        say_figures()?;
    }
    Ok(())
}

struct Sending {
    path: String,
    lengths: Vec<u64>,
}

struct Sender;

impl Protocol<Sending> for Sender {
    fn connected(&mut self, ctx: &mut Context<'_, Sending>, sending: &mut Sending) -> Outcome {
        let length = sending.lengths.pop().ok_or("both were sent")?;
        ctx.send_file(File::open(&sending.path)?, 0..length);
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Sending>, _: &mut Sending, why: Reason) {
        if !why.is_clean() {
            eprintln!("{why}");
        }
        let _ = say_figures(); // nobody is there to be told
    }
}

fn by_reactor(kernel: bool, path: &str, bytes: u64) -> Result<(), Failure> {
    let mut reactor = Reactor::with_config(Config::new().sendfile(kernel))?;
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new().accepts_max(2), |_, _, _| Ok(Sender))?;
    say(&reactor.net().local(listener).expect("it listens").to_string())?;
    reactor.run(&mut Sending { path: path.into(), lengths: vec![bytes, bytes / 16] })?;
    Ok(())
}

/// The most memory that this process had in RAM, and has.
fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some((kibibytes("VmHWM:")? << 10, kibibytes("VmRSS:")? << 10))
}

// ------------------------------------------------------------------------------------------------------------ reader

/// The content from the beginning on, two periods and more of it.
fn pattern() -> Vec<u8> {
    (0..PERIOD * 2 + READ_BYTES).map(|at| ((at % PERIOD) % 251) as u8 ^ ((at % PERIOD) >> 8) as u8).collect()
}

/// What a sender took for the second file.
#[derive(Clone, Copy)]
struct Figures {
    took: Duration,
    cpu: f64,
    growth: u64,
}

impl Figures {
    fn better_of(self, other: Self) -> Self {
        let (took, growth) = (self.took.min(other.took), self.growth.max(other.growth));
        Self { took, cpu: self.cpu.min(other.cpu), growth }
    }

    fn told(&self, bytes: u64) -> String {
        let rate = bytes as f64 / 1e6 / self.took.as_secs_f64();
        format!("{:>4} KiB more memory, {rate:.0} MB/s, {:.3} s of processor time", self.growth >> 10, self.cpu)
    }
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended, if all is well
        let _ = self.0.wait();
    }
}

fn receive(way: Way, path: &str, bytes: u64, rate: Option<u64>, pattern: &[u8]) -> Result<Figures, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--as", way.name(), path, &bytes.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut sender = Guard(command.spawn()?);
    let mut told = BufReader::new(sender.0.stdout.take().expect("piped")).lines();
    let mut line = || told.next().ok_or("the sender has ended")?.map_err(Failure::from);
    let at = line()?;
    let mut figures = || -> Result<Vec<f64>, Failure> { Ok(line()?.split(' ').map(str::parse).collect::<Result<_, _>>()?) };
    read_exactly(&at, bytes / 16, None, pattern)?;
    let before = figures()?;
    let took = read_exactly(&at, bytes, rate, pattern)?;
    let after = figures()?;
    Ok(Figures { took, cpu: after[0] - before[0], growth: (after[1] - before[2]).max(0.0) as u64 })
}

fn read_exactly(at: &str, bytes: u64, rate: Option<u64>, pattern: &[u8]) -> Result<Duration, Failure> {
    let mut peer = TcpStream::connect(at)?;
    peer.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (began, mut piece, mut got) = (Instant::now(), vec![0; READ_BYTES], 0);
    loop {
        let read = peer.read(&mut piece)?;
        if read == 0 {
            break;
        }
        let from = got as usize % PERIOD;
        if piece[..read] != pattern[from..from + read] {
            return Err(format!("what comes after {got} bytes is not the file").into());
        }
        got += read as u64;
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(got as f64 / rate as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    if got == bytes { Ok(began.elapsed()) } else { Err(format!("{got} of {bytes} bytes have come").into()) }
}

/// The best round of each way; the rate as a part of that of the plain loop that moves bytes in the same way, the processor time as one
/// of the loop of read and write.
fn compare(
    rounds: usize,
    path: &str,
    bytes: u64,
    rate: Option<u64>,
    pattern: &[u8],
) -> Result<Vec<(Way, Figures, f64, f64)>, Failure> {
    let mut best: Vec<Option<Figures>> = vec![None; Way::ALL.len()];
    for _ in 0..rounds {
        // In turn, so that what disturbs one disturbs all.
        for ((way, _), best) in Way::ALL.iter().zip(&mut best) {
            let figures = receive(*way, path, bytes, rate, pattern)?;
            *best = Some(best.map_or(figures, |best| best.better_of(figures)));
        }
    }
    let best: Vec<Figures> = best.into_iter().flatten().collect();
    let beside = Way::ALL.iter().zip(&best).map(|(&(way, _), &figures)| {
        let same = best[if way == Way::Kernel { 1 } else { 0 }];
        (way, figures, same.took.as_secs_f64() / figures.took.as_secs_f64(), figures.cpu / best[0].cpu)
    });
    Ok(beside.collect())
}

struct Report {
    is_missed: bool,
}

impl Report {
    /// Some have no bar.
    fn says(&mut self, holds: Option<bool>, way: Way, figures: &str) {
        let word = holds.map_or("", |holds| if holds { "PASS" } else { "FAIL" });
        println!("{word:<4}  {:<28} {figures}", way.name());
        self.is_missed |= holds == Some(false);
    }
}

/// A file that goes when it is dropped.
struct Scratch(String);

impl Scratch {
    fn new(bytes: u64, pattern: &[u8]) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("mainspring-send-file-{}", std::process::id()));
        let scratch = Self(path.to_string_lossy().into_owned());
        let mut file = io::BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut left = bytes;
        while left > 0 {
            let most = left.min(PERIOD as u64) as usize;
            file.write_all(&pattern[..most])?;
            left -= most as u64;
        }
        file.flush()?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn measure(bytes: u64, rate: u64) -> Result<bool, Failure> {
    let pattern = pattern();
    let file = Scratch::new(bytes, &pattern)?;
    let mut report = Report { is_missed: false };
    println!("{} MB; {}", bytes / 1_000_000, machine::described());
    println!("to a reader of {} MB/s, once:", rate / 1_000_000);
    for way in [Way::Read, Way::Kernel] {
        let figures = receive(way, &file.0, bytes, Some(rate), &pattern)?;
        report.says(Some(figures.growth <= GROWTH_MAX), way, &figures.told(bytes));
    }
    let few = (bytes / 4).max(1);
    println!("the same, {} MB, the best of {ROUNDS_SLOW} rounds:", few / 1_000_000);
    for (way, figures, of_rate, of_cpu) in compare(ROUNDS_SLOW, &file.0, few, Some(rate), &pattern)? {
        let holds = of_rate >= RATE_MIN && (way != Way::Kernel || of_cpu <= CPU_MAX);
        report.says(way.is_ours().then_some(holds), way, &format!("{}, {of_cpu:.2} of the first", figures.told(few)));
    }
    println!("to a reader that takes what comes, the best of {ROUNDS} rounds:");
    for (way, figures, of_rate, of_cpu) in compare(ROUNDS, &file.0, bytes, None, &pattern)? {
        let holds = of_rate >= RATE_MIN && figures.growth <= GROWTH_MAX;
        report.says(way.is_ours().then_some(holds), way, &format!("{}, {of_cpu:.2} of the first", figures.told(bytes)));
    }
    Ok(!report.is_missed)
}

fn main() -> Result<(), Failure> {
    let (mut parser, mut words, mut way) = (lexopt::Parser::from_env(), Vec::new(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("as") => way = Some(Way::of(&parser.value()?.string()?)?),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let number = |at: usize, otherwise: u64| words.get(at).map_or(Ok(otherwise), |word| word.parse());
    match way {
        Some(way) => send(way, words.first().ok_or("which file?")?, number(1, 0)?),
        None if measure(number(0, 1 << 30)?, number(1, 50_000_000)?)? => Ok(()),
        None => Err("a bar is missed".into()),
    }
}
