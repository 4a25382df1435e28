//! The load generator: one thread on epoll(7), which depends on none of the servers. It checks each byte that comes back,
//! is bounded in time, and says in one line what went wrong. Loopback only.

mod bulk;
mod churn;
mod datagrams;
mod idle;
mod requests;
mod window;

use crate::machine;
use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::AsFd,
    net::{AddressFamily, SocketType, bind, connect, socket, sockopt},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::Duration,
};
use window::{Phase, Window};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the clients do. Sizes in bytes, depths in requests that are under way on each connection or socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// A server that echoes.
    Echo { connections: usize, size: usize, depth: usize },
    /// A server that echoes lines of 32 to 96 bytes. Writes are cut anywhere, and it must not answer half a line.
    Lines { connections: usize, depth: usize },
    /// A server that echoes datagrams, on one socket.
    Datagrams { size: usize, depth: usize },
    /// A server that only reads.
    Sink,
    /// A server that only writes.
    Source,
    /// Connect, 64 bytes there and back, close.
    Churn { connections: usize },
    /// Echo on 64 connections amid this many that are open and silent; and what memory these take.
    Idle { connections: usize },
}

/// How long, against whom.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub port: u16,
    /// Of the server, whose CPU time and memory are looked at.
    pub pid: u32,
    pub warm_secs: f64,
    pub secs: f64,
}

/// What was measured, after it was warm.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests, lines or connections; of `Sink` and `Source` pieces of 64 KiB.
    pub requests: f64,
    pub secs: f64,
    /// CPU time of the server and of this program, in seconds.
    pub server_cpu: f64,
    pub own_cpu: f64,
    /// Of a request, in microseconds. Not of `Sink` and `Source`.
    pub latency: Option<Latency>,
    /// Of `Idle`.
    pub memory: Option<Memory>,
}

#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Of the server's private dirty memory, in bytes for each idle connection.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Accepted, and never used.
    pub fresh: f64,
    /// After 64 bytes there and back.
    pub used: f64,
}

impl Figures {
    pub fn rate(&self) -> f64 {
        self.requests / self.secs
    }

    /// In nanoseconds.
    pub fn cpu_per_request(&self) -> f64 {
        self.server_cpu * 1e9 / self.requests
    }
}

/// Runs it from this thread, wherever that is pinned to.
pub fn run(load: Load, run: Run) -> Result<Figures, Failure> {
    machine::allow_descriptors()?;
    match load {
        Load::Echo { connections, size, depth } => requests::run(requests::echo(size, depth), &dial_all(connections, run)?, run),
        Load::Lines { connections, depth } => requests::run(requests::lines(64, depth), &dial_all(connections, run)?, run),
        Load::Datagrams { size, depth } => datagrams::run(&requests::echo(size, depth), depth, run),
        Load::Sink => bulk::run(true, run),
        Load::Source => bulk::run(false, run),
        Load::Churn { connections } => churn::run(connections, run),
        Load::Idle { connections } => idle::run(connections, run),
    }
}

fn dial_all(connections: usize, run: Run) -> Result<Vec<TcpStream>, Failure> {
    (0..connections).map(|_| dial(run.port, Ipv4Addr::LOCALHOST)).collect()
}

/// Connected, from this address; then non-blocking. It is reset when it is dropped, so that its port is free for the next run.
fn dial(port: u16, from: Ipv4Addr) -> Result<TcpStream, Failure> {
    let stream = dialling(from, |stream| connect(stream, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A socket of this address, without Nagle's delay. One address has 28,000 ports at most, so a load that opens many connections
/// has many addresses: all of 127.0.0.0/8 is here. It is bound even if the system would choose the same address: a port that
/// other addresses use is free for `bind`, and not for a connection of a socket that is not bound.
fn dialling(from: Ipv4Addr, dial: impl FnOnce(&TcpStream) -> rustix::io::Result<()>) -> Result<TcpStream, Failure> {
    let stream = TcpStream::from(socket(AddressFamily::INET, SocketType::STREAM, None)?);
    sockopt::set_tcp_nodelay(&stream, true)?;
    bind(&stream, &SocketAddrV4::new(from, 0)).map_err(|why| format!("cannot bind to {from}: {why}"))?;
    dial(&stream).map_err(|why| format!("cannot connect: {why}"))?;
    Ok(stream)
}

/// Epoll, and the events that it told.
struct Selector {
    epoll: rustix::fd::OwnedFd,
    events: Vec<Event>,
}

impl Selector {
    fn new() -> Result<Self, Failure> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(1024) })
    }

    fn add(&self, source: impl AsFd, name: usize, wanted: EventFlags) -> Result<(), Failure> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(name as u64), wanted)?)
    }

    /// At most 100 ms; with `spins` not at all.
    fn wait(&mut self, spins: bool) -> Result<impl Iterator<Item = (usize, EventFlags)> + use<>, Failure> {
        let at_most = Timespec { tv_sec: 0, tv_nsec: if spins { 0 } else { 100_000_000 } };
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&at_most))?;
        let events = self.events.iter().map(|&Event { flags, data }| (data.u64() as usize, flags));
        Ok(events.collect::<Vec<_>>().into_iter())
    }
}

/// What it read: nothing if there is nothing yet.
fn received(outcome: io::Result<usize>) -> Result<Option<usize>, Failure> {
    match outcome {
        Ok(0) => Err("the server has closed a connection".into()),
        Ok(length) => Ok(Some(length)),
        Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(why) => Err(format!("cannot receive: {why}").into()),
    }
}

/// What it wrote: nothing if the socket is full.
fn sent(outcome: io::Result<usize>) -> Result<Option<usize>, Failure> {
    match outcome {
        Ok(length) => Ok(Some(length)),
        Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(why) => Err(format!("cannot send: {why}").into()),
    }
}

/// From 100 ns to a minute.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("these bounds are in order")
}

/// xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 32
    }

    fn below(&mut self, end: usize) -> usize {
        ((self.next() * end as u64) >> 32) as usize
    }
}
