//! Every bound of one reactor, each default with its reason.

use crate::{names::Resolver, time::PAUSE_MIN};
use std::{io, net::IpAddr, time::Duration};

/// The bounds of one reactor. Each has a default that suits a server of a few thousand connections;
/// [a page](crate::manual::limits) lists them all with their reasons, and
/// [the chapter on the loop](crate::manual::the_loop#everything-has-its-bound) says why everything is bounded. Change what you
/// have to:
///
/// ```
/// # use mainspring::{Config, Reactor};
/// # use std::time::Duration;
/// let config = Config::new().output_limits(16 << 10, 64 << 10, 8 << 20).linger_max(Duration::from_secs(3));
/// let reactor = Reactor::<()>::with_config(config)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) marks: Marks,
    pub(crate) read_bytes: usize,
    pub(crate) turn_bytes: usize,
    pub(crate) turn_frames: usize,
    pub(crate) turn_datagrams: usize,
    pub(crate) turn_accepts: usize,
    pub(crate) turn_jobs: usize,
    pub(crate) turn_tells: usize,
    pub(crate) turn_timers: usize,
    pub(crate) turn_closings: usize,
    pub(crate) turn_time: Option<Duration>,
    pub(crate) linger_max: Duration,
    pub(crate) lingering_max: usize,
    pub(crate) waits_for_lingering: bool,
    pub(crate) connect_max: Duration,
    #[cfg(feature = "tls")]
    pub(crate) handshake_max: Duration,
    #[cfg(feature = "tls")]
    pub(crate) turn_handshakes: usize,
    pub(crate) accept_back_off: Duration,
    pub(crate) resolve_threads: usize,
    pub(crate) resolve_queue: usize,
    pub(crate) resolver: Option<Resolver>,
    pub(crate) offload_threads: usize,
    pub(crate) offload_queue: usize,
    pub(crate) lane_threads: usize,
    pub(crate) panics: Panics,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) spin: Duration,
    pub(crate) sendfile: bool,
}

/// The smallest amount that is worth a system call.
const READ_MIN: usize = 4096;

/// More than any kernel gives at once; it is allocated when the reactor is made.
const READ_MAX: usize = 16 << 20;

/// The marks of one output queue, in bytes. low <= high <= cap
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) cap: usize,
}

impl Marks {
    pub(crate) fn new(low: usize, high: usize, cap: usize) -> Self {
        let high = high.min(cap);
        Self { low: low.min(high), high, cap }
    }
}

/// What happens after a panic in your code. The chapter is [protocols](crate::manual::protocols#errors-and-panics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panics {
    /// It ends the connection whose callback it was, with [`Reason::Panicked`](crate::Reason::Panicked), and is logged as an
    /// error; all other connections go on.
    #[default]
    Isolate,
    /// It also leaves [`turn`](crate::Reactor::turn), at the end of the turn, when everything is in order: the connection
    /// has ended as above, and the next turn goes on with the others. If there are several in one turn, the first one
    /// leaves.
    Propagate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // 64 KiB is what the kernel takes at once on a good line, and asyncio's choice; resuming at a quarter of it
            // keeps the socket busy. The cap is for programs that send without asking: sixteen times the high mark.
            marks: Marks { low: 16 << 10, high: 64 << 10, cap: 1 << 20 },
            // A larger buffer is not faster: it falls out of the second-level cache. And it is not a multiple of a page:
            // full reads that follow each other would all be copied at one distance, modulo a page, between the kernel's
            // bytes and ours; some processors are five times slower at some distances, and would stay there
            // (docs/benchmarks.md, "Sink").
            read_bytes: 64_000,
            // Four full reads: about 20 µs of kernel time, so a thousand busy connections take turns of 20 ms.
            turn_bytes: 256_000,
            // A full read of the shortest lines would be 64,000 frames; this is about 100 µs of your code.
            turn_frames: 1024,
            // about 100 µs of the kernel's time
            turn_datagrams: 128,
            // An accept costs about 3 µs; the rest of the backlog waits one turn.
            turn_accepts: 64,
            turn_jobs: 1024,
            turn_tells: 1024,
            turn_timers: 1024,
            turn_closings: 1024,
            // Two looks at the clock for each callback, as for the watchdog.
            turn_time: None,
            // What RFC 9293 leaves to us: long enough for the last window of a slow line, short enough for a restart.
            linger_max: Duration::from_secs(10),
            // Each is a descriptor without a user.
            lingering_max: 1024,
            // A program that ends closes them, and a peer that has not ended may lose what it has not read yet.
            waits_for_lingering: true,
            // Linux gives up by itself after 127 s; no user waits that long.
            connect_max: Duration::from_secs(30),
            // Three round trips and a slow phone: a peer that needs longer has gone.
            #[cfg(feature = "tls")]
            handshake_max: Duration::from_secs(10),
            // A step takes from 0.2 ms (P-256) to 1 ms (RSA-2048): the others wait 10 ms at the worst.
            #[cfg(feature = "tls")]
            turn_handshakes: 10,
            // Descriptors come back when some connection closes; ten looks a second cost nothing.
            accept_back_off: Duration::from_millis(100),
            // A name server that does not answer blocks a thread for 5 to 30 s (resolv.conf(5)): with seven such names, the
            // next one still finds a thread.
            resolve_threads: 8,
            // Each that waits is a short text, and has a deadline.
            resolve_queue: 1024,
            resolver: None,
            // Blocking work waits for a disk or a lock more than it computes: a few threads keep either busy, and each costs
            // a stack.
            offload_threads: 4,
            // At a millisecond each this is a quarter of a second of waiting: work that comes later had better be refused.
            offload_queue: 1024,
            lane_threads: 8,
            panics: Panics::Isolate,
            // Two looks at the clock for each callback: about 40 ns.
            watchdog: None,
            // A sleeping loop costs nothing; a spinning one a whole core.
            spin: Duration::ZERO,
            // A signal kills a process that does not ignore it.
            sendfile: false,
        }
    }
}

impl Config {
    /// Makes a config with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the marks of each connection's output queue, in bytes: above `high` it is congested (16 to 64 KiB is plenty), at
    /// `low` it is not any more, and a send that would go beyond `cap` ends the connection with
    /// [`Reason::Overflow`](crate::Reason::Overflow). `high` is at most `cap`, `low` at most `high`. Default: 16 KiB, 64
    /// KiB, 1 MiB.
    #[must_use]
    pub fn output_limits(mut self, low: usize, high: usize, cap: usize) -> Self {
        self.marks = Marks::new(low, high, cap);
        self
    }

    /// The size of the one read buffer, in bytes, from 4,096 to 16 MiB. Default: 64,000, which is better than 65,536: a
    /// multiple of 4,096 can make a stream of full reads several times slower on some processors.
    #[must_use]
    pub fn read_bytes(mut self, bytes: usize) -> Self {
        self.read_bytes = bytes.clamp(READ_MIN, READ_MAX);
        self
    }

    /// How much is read from one connection before the others have their turn, in bytes; the last read may go beyond it, by
    /// less than [`read_bytes`](Self::read_bytes). Default: 256,000.
    #[must_use]
    pub fn turn_bytes(mut self, bytes: usize) -> Self {
        self.turn_bytes = bytes.max(1);
        self
    }

    /// How many frames or pieces one connection is given before the others have their turn. Default: 1,024.
    #[must_use]
    pub fn turn_frames(mut self, frames: usize) -> Self {
        self.turn_frames = frames.max(1);
        self
    }

    /// How many datagrams a socket receives in a turn, and how many of those that wait leave;
    /// [`turn_bytes`](Self::turn_bytes) also bounds what it receives. This many receive errors in a row, but at least 16,
    /// end the socket. Default: 128.
    #[must_use]
    pub fn turn_datagrams(mut self, datagrams: usize) -> Self {
        self.turn_datagrams = datagrams.max(1);
        self
    }

    /// How many connections a listener accepts in a turn. Default: 64.
    #[must_use]
    pub fn turn_accepts(mut self, connections: usize) -> Self {
        self.turn_accepts = connections.max(1);
        self
    }

    /// How many jobs of other threads are run in a turn, and how many ends of offloaded work are told. Default: 1,024.
    #[must_use]
    pub fn turn_jobs(mut self, jobs: usize) -> Self {
        self.turn_jobs = jobs.max(1);
        self
    }

    /// How many tells and posts are run in a turn. Default: 1,024.
    #[must_use]
    pub fn turn_tells(mut self, tells: usize) -> Self {
        self.turn_tells = tells.max(1);
        self
    }

    /// How many timers fire in a turn. Default: 1,024.
    #[must_use]
    pub fn turn_timers(mut self, timers: usize) -> Self {
        self.turn_timers = timers.max(1);
        self
    }

    /// How often `closed` is called in a turn. Default: 1,024.
    #[must_use]
    pub fn turn_closings(mut self, closings: usize) -> Self {
        self.turn_closings = closings.max(1);
        self
    }

    /// How long the callbacks of one connection may take together before the others have their turn. It is for protocols
    /// whose frames cost very different times, so that no [number of frames](Self::turn_frames) is right. The callback that
    /// goes beyond it is the last one of this turn; what else has come waits for the next. Default: off, because it looks at
    /// the clock twice for each callback. (On the simulated network no time passes inside a callback, so there it ends
    /// nothing.)
    #[must_use]
    pub fn turn_time(mut self, most: impl Into<Option<Duration>>) -> Self {
        self.turn_time = most.into();
        self
    }

    /// How long a connection that was closed politely waits for its peer to take the next byte; and, after `closed`, for its
    /// peer to end. After that it is reset, which may destroy what the peer has not read yet. Default: 10 s.
    #[must_use]
    pub fn linger_max(mut self, most: Duration) -> Self {
        self.linger_max = most;
        self
    }

    /// How many sockets may wait for their peer's end after `closed`. Beyond that one is reset: of those that were refused,
    /// the latest; if there are none, the oldest. One makes room in the same way when a descriptor is needed and no other is
    /// left. With 0 none waits. Default: 1,024.
    #[must_use]
    pub fn lingering_max(mut self, sockets: usize) -> Self {
        self.lingering_max = sockets;
        self
    }

    /// Whether [`run`](crate::Reactor::run) goes on until the sockets that wait for their peer's end after `closed` are done
    /// too. This takes no longer than [`linger_max`](Self::linger_max), nor than the grace of a [drain](crate::Net::drain).
    /// If it is off and the program ends, a peer may lose the last of what it was sent. [`stop`](crate::Net::stop) and
    /// [`shutdown`](crate::Reactor::shutdown) wait for nobody. Default: on.
    #[must_use]
    pub fn wait_for_lingering(mut self, on: bool) -> Self {
        self.waits_for_lingering = on;
        self
    }

    /// How long connecting may take, including looking the name up, if [`Connect::timeout`](crate::Connect::timeout) says
    /// nothing else; and how long [`Net::resolve`](crate::Net::resolve) waits for an answer. Default: 30 s.
    #[must_use]
    pub fn connect_max(mut self, most: Duration) -> Self {
        self.connect_max = most;
        self
    }

    /// How long a TLS handshake may take, counted from when the connection is there, or from
    /// [`start_tls`](crate::Link::start_tls). For a connection that we open, [`Connect::timeout`](crate::Connect::timeout)
    /// bounds it too, together with everything that came before; for a server,
    /// [`TlsServer::handshake_timeout`](crate::TlsServer::handshake_timeout) may say something else. Default: 10 s.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn handshake_max(mut self, most: Duration) -> Self {
        self.handshake_max = most;
        self
    }

    /// How many steps of TLS handshakes are made in a turn, for all connections together, at least 1; the others wait for
    /// the next turn. A step that signs takes from 0.2 ms (P-256) to 1 ms (RSA-2048), in which nobody else is served.
    /// Default: 10.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn turn_handshakes(mut self, steps: usize) -> Self {
        self.turn_handshakes = steps.max(1);
        self
    }

    /// How long a listener waits when the system has no memory for another connection. (When it has no descriptor, clients
    /// that wait are closed at once, by means of a descriptor kept for this; only when that is gone too does the listener
    /// wait.) At least a millisecond. Default: 100 ms.
    #[must_use]
    pub fn accept_back_off(mut self, wait: Duration) -> Self {
        self.accept_back_off = wait.max(PAUSE_MIN);
        self
    }

    /// How many names are looked up at a time, at least 1; threads are started when they are needed, and end when they are
    /// not. Default: 8.
    #[must_use]
    pub fn resolve_threads(mut self, threads: usize) -> Self {
        self.resolve_threads = threads.max(1);
        self
    }

    /// How many names wait for a thread that looks them up; beyond that a lookup fails at once, with
    /// [`NameError::Busy`](crate::NameError::Busy). Default: 1,024.
    #[must_use]
    pub fn resolve_queue(mut self, names: usize) -> Self {
        self.resolve_queue = names;
        self
    }

    /// Looks names up by a function of yours instead of the system's getaddrinfo(3), for
    /// [`Net::connect`](crate::Net::connect) and [`Net::resolve`](crate::Net::resolve): another resolver, a table of your
    /// own, a test. It runs on the same threads and may block. It returns all addresses, the preferred one first.
    ///
    /// ```
    /// # use mainspring::{Config, NameError};
    /// # use std::net::ToSocketAddrs;
    /// let config = Config::new().resolver(|host| match host {
    ///     "database" => Ok(vec!["10.1.2.3".parse().expect("an address")]),
    ///     _ => Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect()),
    /// });
    /// ```
    #[must_use]
    pub fn resolver(mut self, resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        self.resolver = Some(Resolver::new(resolve));
        self
    }

    /// How many pieces of [offloaded](crate::Net::offload) work run at a time, at least 1; threads are started when they are
    /// needed, and end when they are not. Default: 4.
    #[must_use]
    pub fn offload_threads(mut self, threads: usize) -> Self {
        self.offload_threads = threads.max(1);
        self
    }

    /// How many pieces of offloaded work wait for a thread, or for their end to be told; beyond that they are refused with
    /// [`OffloadError::Full`](crate::OffloadError::Full). Default: 1,024.
    #[must_use]
    pub fn offload_queue(mut self, pieces: usize) -> Self {
        self.offload_queue = pieces;
        self
    }

    /// How many [lanes](crate::Lane) are worked on at a time, including those of [`save`](crate::Context::save) and
    /// [`send_from`](crate::Context::send_from); at least 1. They have their own threads: offloaded work that never returns
    /// does not stop them, and they do not stop it. Default: 8.
    #[must_use]
    pub fn lane_threads(mut self, threads: usize) -> Self {
        self.lane_threads = threads.max(1);
        self
    }

    /// Names a callback that takes longer than this (also a factory, a tell, a timer, a job) in the log, as a warning, with
    /// its key, peer, protocol and callback as far as it has them; and makes [`Stats`](crate::Stats) measure times. Default:
    /// off, because it looks at the clock twice for each callback.
    #[must_use]
    pub fn watchdog(mut self, longer_than: impl Into<Option<Duration>>) -> Self {
        self.watchdog = longer_than.into();
        self
    }

    /// How long the loop keeps looking for events before it sleeps. With few connections that answer quickly, 50 µs
    /// give more than twice the rate and a third of the latency, at the price of a core that is never idle while they talk.
    /// Default: not at all.
    #[must_use]
    pub fn spin(mut self, most: Duration) -> Self {
        self.spin = most;
        self
    }

    /// Has the kernel itself read files that are [sent](crate::Link::send_file) (sendfile(2); Linux, on TCP and Unix
    /// sockets): for large ones that takes about half of the processor time. Default: off, because sendfile(2) on a
    /// connection that is lost raises SIGPIPE, which kills a C program that embeds us and does not ignore it; Rust programs
    /// ignore it. What leaves in TLS is read in the usual way.
    #[must_use]
    pub fn sendfile(mut self, on: bool) -> Self {
        self.sendfile = on;
        self
    }

    /// What happens after a panic in your code. Default: [`Panics::Isolate`].
    #[must_use]
    pub fn panics(mut self, panics: Panics) -> Self {
        self.panics = panics;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read buffer of any size panicked, and a listener that lacked memory and did not wait would have been a busy loop.
    #[test]
    fn no_value_is_one_to_be_refused() {
        for (asked, given) in [(0, READ_MIN), (64_000, 64_000), (usize::MAX, READ_MAX)] {
            assert_eq!(Config::new().read_bytes(asked).read_bytes, given);
        }
        assert_eq!(Config::new().accept_back_off(Duration::ZERO).accept_back_off, PAUSE_MIN);
    }
}
