//! The fixed loads of the gate. Server and clients are one thread: all clients have written before the loop takes its
//! turn, so each run does the same, to the instruction. What counts stands inside functions named `counted…`, which
//! callgrind is told to look into. The clients' system calls are counted here, to be taken off.

use mainspring::{Listen, Protocol, Reactor};
use mainspring_benches::{
    by_name::{self, Done},
    load::Failure,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use server::{Echo, Lines, Member, Room};
use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Runs one of the gate's loads; `gate` runs all of them under callgrind and
strace.

usage: loads NAME [TIMES]

NAME    echo-1, echo-64, timed-64, line-16x16, line-16x256, broadcast-1000,
        timer-cancel, timer-fire, post-1000, udp-1, udp-64, unix-1
TIMES   how many times it is done; 1 if not given";

fn main() -> ExitCode {
    by_name::main(HELP, run)
}

fn run(name: &str, times: usize) -> Result<Done, Failure> {
    match name {
        "echo-1" => echo(1, Listen::new(), 1_000 * times),
        "echo-64" => echo(64, Listen::new(), 20 * times),
        "timed-64" => echo(64, Listen::new().idle_timeout(Duration::from_secs(60)), 20 * times),
        "line-16x16" => lines(16, 16, 20 * times),
        "line-16x256" => lines(16, 256, 4 * times),
        "broadcast-1000" => broadcast(1_000, 3 * times),
        "timer-cancel" => timers(1_000, 1_000 * times, timer_cancelled),
        "timer-fire" => timers(1_000, 10 * times, timers_fired),
        "post-1000" => posts(1_000, 10 * times),
        "udp-1" => datagrams(1, 1_000 * times),
        "udp-64" => datagrams(64, 20 * times),
        "unix-1" => adopted(1_000 * times),
        _ => by_name::unknown(),
    }
}

// ------------------------------------------------------------------------------------------------ what is counted

/// One turn.
#[inline(never)]
fn counted<S>(reactor: &mut Reactor<S>, state: &mut S) -> io::Result<bool> {
    reactor.turn(state, None)
}

/// A timer among others that is set and taken back.
#[inline(never)]
fn counted_timer_cancelled(reactor: &mut Reactor) {
    let timer = reactor.net().after(Duration::from_secs(1_800), |_, _| {});
    reactor.net().cancel(timer);
}

/// A hundred timers among others that are due at once, and the turn in which they fire.
#[inline(never)]
fn counted_timers_fired(reactor: &mut Reactor) -> io::Result<bool> {
    for _ in 0..100 {
        reactor.net().after(Duration::ZERO, |_, _| {});
    }
    reactor.turn(&mut (), None)
}

/// A burst of jobs, and the turn in which they run.
#[inline(never)]
fn counted_posts(reactor: &mut Reactor<usize>, jobs: usize, ran: &mut usize) -> Result<bool, Failure> {
    let remote = reactor.remote();
    for _ in 0..jobs {
        remote.post(|_, ran| *ran += 1)?;
    }
    Ok(reactor.turn(ran, None)?)
}

// ------------------------------------------------------------------------------------------------ the loads

fn echo(connections: usize, options: Listen, rounds: usize) -> Result<Done, Failure> {
    let (mut reactor, mut clients) = connected(connections, options, || Echo, &mut ())?;
    let request = [b'x'; 64];
    repeated(rounds, |done| {
        for client in &mut clients {
            client.says(&request, done)?;
        }
        counted(&mut reactor, &mut ())?;
        for client in &mut clients {
            client.hears(&request, done)?;
        }
        done.requests += connections;
        Ok(())
    })
}

/// Lines of 32 to 96 bytes, `depth` of them in each write; each write is cut somewhere in its last line, whose rest comes
/// with the next one.
fn lines(connections: usize, depth: usize, rounds: usize) -> Result<Done, Failure> {
    let (mut reactor, mut clients) = connected(connections, Listen::new(), || Lines, &mut ())?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut begun = vec![Vec::new(); connections];
    repeated(rounds, |done| {
        let mut expected = Vec::new();
        for (client, begun) in clients.iter_mut().zip(&mut begun) {
            let begun: &mut Vec<u8> = begun;
            let held = begun.len();
            let mut text = std::mem::take(begun);
            for _ in 0..depth {
                let length = 30 + random.below(65);
                text.extend((0..length).map(|_| b'a' + random.below(26) as u8));
                text.extend_from_slice(b"\r\n");
            }
            // A few bytes of the line that comes next are sent now.
            let complete = text.len();
            text.extend((0..1 + random.below(30)).map(|_| b'z'));
            client.says(&text[held..], done)?;
            *begun = text.split_off(complete);
            expected.push(text);
        }
        counted(&mut reactor, &mut ())?;
        for (client, expected) in clients.iter_mut().zip(&expected) {
            client.hears(expected, done)?;
        }
        done.requests += connections * depth;
        Ok(())
    })
}

/// One says 64 bytes to all.
fn broadcast(members: usize, rounds: usize) -> Result<Done, Failure> {
    let mut room = Room::default();
    let (mut reactor, mut clients) = connected(members, Listen::new(), || Member, &mut room)?;
    let said = [b'x'; 64];
    repeated(rounds, |done| {
        clients[0].says(&said, done)?;
        counted(&mut reactor, &mut room)?;
        for client in &mut clients {
            client.hears(&said, done)?;
        }
        done.requests += members;
        Ok(())
    })
}

fn timers(live: u64, rounds: usize, run: fn(&mut Reactor) -> Result<usize, Failure>) -> Result<Done, Failure> {
    let mut reactor = Reactor::new()?;
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for _ in 0..live {
        reactor.net().after(Duration::from_secs(600 + random.below(2_400)), |_, _| {});
    }
    repeated(rounds, |done| {
        done.requests += run(&mut reactor)?;
        Ok(())
    })
}

fn timer_cancelled(reactor: &mut Reactor) -> Result<usize, Failure> {
    counted_timer_cancelled(reactor);
    Ok(1)
}

fn timers_fired(reactor: &mut Reactor) -> Result<usize, Failure> {
    counted_timers_fired(reactor)?;
    Ok(100)
}

fn posts(jobs: usize, rounds: usize) -> Result<Done, Failure> {
    let mut reactor = Reactor::<usize>::new()?;
    repeated(rounds, |done| {
        let mut ran = 0;
        // A turn runs this many at most.
        counted_posts(&mut reactor, jobs, &mut ran)?;
        if ran != jobs {
            return Err(format!("{ran} of {jobs} jobs ran in one turn").into());
        }
        done.requests += jobs;
        Ok(())
    })
}

/// 100 bytes there and back, this many datagrams of one client at a time.
fn datagrams(under_way: usize, rounds: usize) -> Result<Done, Failure> {
    let mut reactor = Reactor::new()?;
    let key = reactor.net().bind("127.0.0.1:0", Echo)?;
    let at = reactor.net().local(key).expect("a socket that was just bound has an address").to_string();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(&at)?;
    socket.set_nonblocking(true)?;
    let mut client = Client(File::from(OwnedFd::from(socket)));
    settled(&mut reactor, &mut ())?;
    let request = [b'x'; 100];
    repeated(rounds, |done| {
        for _ in 0..under_way {
            client.says(&request, done)?;
        }
        counted(&mut reactor, &mut ())?;
        for _ in 0..under_way {
            client.hears(&request, done)?;
        }
        done.requests += under_way;
        Ok(())
    })
}

/// The same as `echo-1` over a pair of Unix sockets, of which the loop was handed one. What the kernel says of room when the client
/// has read would be a wait of its own.
fn adopted(rounds: usize) -> Result<Done, Failure> {
    let mut reactor = Reactor::new()?;
    let (ours, theirs) = UnixStream::pair()?;
    reactor.net().adopt(ours, Echo)?;
    theirs.set_nonblocking(true)?;
    let mut client = Client(File::from(OwnedFd::from(theirs)));
    settled(&mut reactor, &mut ())?;
    let request = [b'x'; 64];
    repeated(rounds, |done| {
        client.says(&request, done)?;
        counted(&mut reactor, &mut ())?;
        client.hears(&request, done)?;
        done.requests += 1;
        let events = reactor.stats().events;
        reactor.turn(&mut (), Duration::ZERO)?;
        done.own_calls += 1;
        if reactor.stats().events > events {
            return Err("it was woken in vain".into());
        }
        Ok(())
    })
}

// ------------------------------------------------------------------------------------------------ clients

/// The far end of a connection, or of datagrams. As a file, so that its calls are read(2) and write(2).
struct Client(File);

impl Client {
    fn says(&mut self, bytes: &[u8], done: &mut Done) -> io::Result<()> {
        done.own_calls += 1;
        let written = self.0.write(bytes)?;
        if written < bytes.len() {
            return Err(io::Error::other("a client's write was cut"));
        }
        Ok(())
    }

    /// Exactly this, which is there already: it does not wait.
    fn hears(&mut self, expected: &[u8], done: &mut Done) -> Result<(), Failure> {
        let mut heard = vec![0; expected.len() + 1];
        let mut length = 0;
        while length < expected.len() {
            done.own_calls += 1;
            match self.0.read(&mut heard[length..]) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(more) => length += more,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    return Err(format!("{length} of {} bytes came in one turn", expected.len()).into());
                }
                Err(why) => return Err(why.into()),
            }
        }
        if heard[..length] != *expected { Err("a wrong reply".into()) } else { Ok(()) }
    }
}

/// This many connections to a new reactor, all accepted.
fn connected<S: 'static, P: Protocol<S>>(
    count: usize,
    options: Listen,
    factory: fn() -> P,
    state: &mut S,
) -> Result<(Reactor<S>, Vec<Client>), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.net().listen_with("127.0.0.1:0", options, move |_, _, _| Ok(factory()))?;
    let at = reactor.net().local(listener).expect("a listener that was just opened has an address").to_string();
    let mut clients = Vec::new();
    for n in 1..=count {
        let stream = TcpStream::connect(&at)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        clients.push(Client(File::from(OwnedFd::from(stream))));
        for _ in 0..100 {
            if reactor.stats().accepted >= n as u64 {
                break;
            }
            reactor.turn(state, Duration::from_millis(100))?;
        }
    }
    settled(&mut reactor, state)?;
    Ok((reactor, clients))
}

/// The first edge of each socket is seen: it is writable.
fn settled<S>(reactor: &mut Reactor<S>, state: &mut S) -> io::Result<()> {
    for _ in 0..3 {
        reactor.turn(state, Duration::ZERO)?;
    }
    Ok(())
}

fn repeated(rounds: usize, mut round: impl FnMut(&mut Done) -> Result<(), Failure>) -> Result<Done, Failure> {
    let mut done = Done::default();
    for _ in 0..rounds {
        round(&mut done)?;
    }
    Ok(done)
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
