//! A large file out and one in at the same time, over disks that are slower than the network: each exact, in flat memory, and
//! nobody else waits for them. One test, because it measures the memory of its process.
//!
//! 16 MiB at 64 MiB/s; `FILES_BYTES` and `FILES_RATE` (bytes per second) ask for more: scripts/files.sh. How long another session
//! waits for an answer is printed, not asserted.
#![cfg(unix)]

use mainspring::{Context, Outcome, Protocol, Reactor, Terminator};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Two files may take this much more memory than before: two pieces each, and what is read at once.
const MORE_MAX: u64 = 3 << 20;

/// Nobody's answer should take longer, on a machine that has nothing else to do.
const LATE: Duration = Duration::from_millis(10);

/// A smaller file each way comes first.
const WARM: u64 = 4 << 20;

/// A prime, so that no piece looks like another.
const PERIOD: u64 = 65_521;

fn pattern(at: u64) -> u8 {
    (at % PERIOD % 251) as u8 ^ ((at % PERIOD) >> 8) as u8
}

/// What stands there from `at` on.
fn fill(piece: &mut [u8], at: u64) {
    piece.iter_mut().zip(at..).for_each(|(byte, at)| *byte = pattern(at));
}

/// Whether it is that.
fn is_right(piece: &[u8], at: u64) -> bool {
    piece.iter().zip(at..).all(|(&byte, at)| byte == pattern(at))
}

/// Moves at most this many bytes per second, by waiting.
struct Pace {
    rate: u64,
    began: Instant,
    moved: u64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, began: Instant::now(), moved: 0 }
    }

    fn moves(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        let due = Duration::from_secs_f64(self.moved as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}

/// A descriptor that blocks, and gives the pattern at this rate.
fn slow_source(bytes: u64, rate: u64) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().expect("two descriptors");
    thread::spawn(move || {
        let (mut pace, mut piece) = (Pace::new(rate), [0; 16 << 10]);
        while pace.moved < bytes {
            let most = piece.len().min((bytes - pace.moved) as usize);
            fill(&mut piece[..most], pace.moved);
            theirs.write_all(&piece[..most]).expect("it is read");
            pace.moves(most);
        }
    });
    ours
}

/// One that blocks, and takes this much per second; how much that was in all, of which each byte was right.
fn slow_sink(rate: u64) -> (UnixStream, JoinHandle<u64>) {
    let (ours, mut theirs) = UnixStream::pair().expect("two descriptors");
    let drains = thread::spawn(move || {
        let (mut pace, mut piece) = (Pace::new(rate), [0; 16 << 10]);
        while let Ok(bytes @ 1..) = theirs.read(&mut piece) {
            assert!(is_right(&piece[..bytes], pace.moved), "what is saved is what was sent");
            pace.moves(bytes);
        }
        pace.moved
    });
    (ours, drains)
}

/// `get BYTES`, `put BYTES`, or a line that is echoed.
struct Files {
    rate: u64,
}

/// Where uploads go, each to one of its own.
struct Sinks(Vec<UnixStream>);

impl Protocol<Sinks> for Files {
    fn connected(&mut self, ctx: &mut Context<'_, Sinks>, _: &mut Sinks) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Sinks>, sinks: &mut Sinks, line: &[u8]) -> Outcome {
        let line = std::str::from_utf8(line)?.to_owned();
        match line.split_once(' ') {
            Some(("get", bytes)) => {
                let bytes: u64 = bytes.parse()?;
                ctx.send_from(slow_source(bytes, self.rate), move |_: &mut Self, ctx, _, sent| {
                    assert_eq!(sent?, bytes);
                    ctx.close();
                    Ok(())
                });
            }
            Some(("put", bytes)) => {
                ctx.set_terminator(Terminator::Stream(bytes.parse()?));
                let sink = sinks.0.pop().ok_or("there is no other disk")?;
                ctx.save(sink, |_: &mut Self, ctx, _, saved| {
                    drop(saved?);
                    ctx.send("saved\n");
                    Ok(())
                });
            }
            _ => ctx.send(format!("{line}\n")),
        }
        Ok(())
    }
}

/// The most memory that this process had in RAM, and has.
fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some((kibibytes("VmHWM:")? << 10, kibibytes("VmRSS:")? << 10))
}

fn download(at: SocketAddr, bytes: u64) {
    let mut peer = TcpStream::connect(at).expect("the server listens");
    writeln!(peer, "get {bytes}").expect("there is room");
    let (mut piece, mut got) = ([0; 16 << 10], 0);
    while let bytes @ 1.. = peer.read(&mut piece).expect("it comes") {
        assert!(is_right(&piece[..bytes], got), "what comes is the file");
        got += bytes as u64;
    }
    assert_eq!(got, bytes);
}

fn upload(at: SocketAddr, bytes: u64) {
    let mut peer = TcpStream::connect(at).expect("the server listens");
    writeln!(peer, "put {bytes}").expect("there is room");
    let (mut piece, mut said) = ([0; 16 << 10], 0);
    while said < bytes {
        let most = piece.len().min((bytes - said) as usize);
        fill(&mut piece[..most], said);
        peer.write_all(&piece[..most]).expect("it is taken");
        said += most as u64;
    }
    let mut answer = String::new();
    BufReader::new(peer).read_line(&mut answer).expect("it comes");
    assert_eq!(answer, "saved\n");
}

/// Asks every few milliseconds until all is over: how often, how many answers took long, and the longest.
fn ask(at: SocketAddr, is_over: &AtomicBool) -> (u32, u32, Duration) {
    let mut peer = BufReader::new(TcpStream::connect(at).expect("the server listens"));
    peer.get_ref().set_nodelay(true).expect("it is a socket");
    let (mut asked, mut late, mut longest, mut line) = (0, 0, Duration::ZERO, String::new());
    while !is_over.load(Ordering::SeqCst) {
        let began = Instant::now();
        peer.get_mut().write_all(b"ping\n").expect("there is room");
        line.clear();
        peer.read_line(&mut line).expect("an answer comes");
        assert_eq!(line, "ping\n");
        let took = began.elapsed();
        longest = longest.max(took);
        late += u32::from(took > LATE);
        asked += 1;
        thread::sleep(Duration::from_millis(2));
    }
    (asked, late, longest)
}

fn told((asked, late, longest): (u32, u32, Duration)) -> String {
    let (limit, longest) = (LATE.as_millis(), longest.as_secs_f64() * 1e3);
    format!("{asked} questions, {late} answered later than in {limit} ms, all within {longest:.1} ms")
}

/// One file each way.
fn transfer(at: SocketAddr, bytes: u64) {
    thread::scope(|scope| {
        scope.spawn(|| download(at, bytes));
        scope.spawn(|| upload(at, bytes));
    });
}

#[test]
fn a_large_file_each_way_is_exact_in_flat_memory_and_holds_nobody_up() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (bytes, rate) = (number("FILES_BYTES").unwrap_or(16 << 20), number("FILES_RATE").unwrap_or(64 << 20));
    let mut reactor = Reactor::new().expect("a selector");
    let (ours, theirs): (Vec<_>, Vec<_>) = [(); 2].map(|()| slow_sink(rate)).into_iter().unzip();
    let mut sinks = Sinks(ours);
    let server = reactor.net().listen("127.0.0.1:0", move || Files { rate }).expect("a free port");
    let at = reactor.net().local(server).and_then(|at| at.ip()).expect("it listens");
    let remote = reactor.remote();
    let clients = thread::spawn(move || {
        transfer(at, WARM); // threads, stacks and buffers are there
        let before = memory();
        let is_over = AtomicBool::new(false);
        let began = Instant::now();
        let asked = thread::scope(|scope| {
            let asks = scope.spawn(|| ask(at, &is_over));
            transfer(at, bytes);
            is_over.store(true, Ordering::SeqCst);
            asks.join().expect("each was answered")
        });
        let took = began.elapsed();
        let after = memory();
        if bytes > WARM * 16 {
            is_over.store(false, Ordering::SeqCst);
            let alone = thread::scope(|scope| {
                let asks = scope.spawn(|| ask(at, &is_over));
                thread::sleep(took.min(Duration::from_secs(60)));
                is_over.store(true, Ordering::SeqCst);
                asks.join().expect("each was answered")
            });
            let _ = writeln!(io::stderr(), "without any file: {}", told(alone));
        }
        remote.post(|net, _| net.stop()).unwrap_or_else(|_| unreachable!("the reactor is there"));
        (before, after, asked, took)
    });
    reactor.run(&mut sinks).expect("the selector works");
    let (before, after, asked, took) = clients.join().expect("all is exact");
    let mut taken: Vec<u64> = theirs.into_iter().map(|drains| drains.join().expect("all is exact")).collect();
    taken.sort_unstable();
    assert_eq!(taken, [WARM.min(bytes), WARM.max(bytes)], "the disks have it all");
    let more = after.zip(before).map(|((peak, _), (_, rss))| peak.saturating_sub(rss));
    let _ = writeln!(
        io::stderr(),
        "{} MiB each way in {:.1} s: {} KiB more memory at most; {}",
        bytes >> 20,
        took.as_secs_f64(),
        more.map_or_else(|| "?".to_owned(), |more| (more >> 10).to_string()),
        told(asked),
    );
    assert!(more.is_none_or(|more| more <= MORE_MAX), "{more:?} bytes more, and {MORE_MAX} are what two files may take");
}
