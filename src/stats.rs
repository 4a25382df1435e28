//! What a reactor has done and what it holds, for the people who operate it.

use crate::{
    address::Address,
    key::Key,
    reason::{Limit, Reason},
    stopwatch::Clocks,
};
use std::{panic::Location, time::Duration};

/// What one reactor has done since it was made, from [`Net::stats`](crate::Net::stats). The [log](crate::manual::logging)
/// tells the life of a single connection.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Turns of the loop.
    pub turns: u64,
    /// Events of the selector.
    pub events: u64,
    /// Events for sockets that were gone.
    pub stale_events: u64,
    /// How often your code was called: callbacks of protocols and dispatchers, factories, tells, timers, posts, jobs of
    /// other threads, and what follows offloaded work and lookups. Producers and framers do not count.
    pub callbacks: u64,
    /// Bytes received on all connections, those that have ended included.
    pub bytes_in: u64,
    /// Bytes that the kernel took, of all connections.
    pub bytes_out: u64,
    /// Datagrams received, those that were too long included.
    pub datagrams_in: u64,
    /// Datagrams that the kernel took.
    pub datagrams_out: u64,
    /// Datagrams that your program sent and that did not leave: refused by the kernel (perhaps with an error about an
    /// earlier one), without room in the queue, or still waiting when the socket ended.
    pub datagrams_dropped: u64,
    /// Datagrams that came and were longer than their socket takes.
    pub datagrams_oversized: u64,
    /// Connections accepted, without those that were refused.
    pub accepted: u64,
    /// Connections that were refused, by a limit of their listener or by its factory, or because the factory panicked.
    pub refused: u64,
    /// Connections that were closed at once because no descriptor was left for them.
    pub shed: u64,
    /// Connections that we opened, whether or not they were connected.
    pub opened: u64,
    /// TLS handshakes that were completed, as either side, including resumed ones.
    #[cfg(feature = "tls")]
    pub handshakes: u64,
    /// Of these, those that resumed an earlier session.
    #[cfg(feature = "tls")]
    pub handshakes_resumed: u64,
    /// TLS handshakes that failed or took too long; also those of accepted connections, for which no protocol was made.
    #[cfg(feature = "tls")]
    pub handshakes_failed: u64,
    /// Connections, dispatchers and datagram sockets that have ended, by their [`Reason`].
    pub closed: Closed,
    /// Connections with a protocol, now.
    pub connections: usize,
    /// Sockets that wait for their peer's end after `closed`, now.
    pub lingering: usize,
    /// Bytes queued on all connections, now.
    pub queued: usize,
    /// Timers that are set, now; time-outs of connections included.
    pub timers: usize,
    /// How many connections there were when the last [`drain`](crate::Net::drain) began. Those that are left are in
    /// `connections`.
    pub to_drain: usize,
    /// How many were left when its grace was over, and were ended then; 0 as long as it is not over.
    pub undrained: usize,
    /// Blocking work that was given out and whose end was not told yet, now.
    pub offloads: usize,
    /// How long the longest of the `callbacks` took. Measured only with [`Config::watchdog`](crate::Config::watchdog), which
    /// names those that take too long in the log.
    pub longest_callback: Duration,
    /// Whose callback that was: the type of its protocol, dispatcher or datagram, `listener` for a factory. Empty for what
    /// belongs to no connection, and as long as nothing was measured.
    pub longest_callback_of: &'static str,
    /// Which callback that was: `frame`, `a timer`, …, as in the log. Empty as long as nothing was measured.
    pub longest_callback_name: &'static str,
    /// Time spent waiting for events. Measured only with [`Config::watchdog`](crate::Config::watchdog).
    pub waited: Duration,
}

/// How many have ended for each [`Reason`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// [`Reason::Finish`].
    pub finish: u64,
    /// [`Reason::Eof`].
    pub eof: u64,
    /// [`Reason::Drained`].
    pub drained: u64,
    /// [`Reason::Abort`].
    pub abort: u64,
    /// [`Reason::Shutdown`].
    pub shutdown: u64,
    /// [`Reason::Detached`].
    pub detached: u64,
    /// Never connected: [`Reason::Resolve`], [`Reason::Connect`], [`Reason::Tls`].
    pub connect: u64,
    /// [`Reason::Io`].
    pub io: u64,
    /// [`Reason::Limit`].
    pub limit: u64,
    /// [`Reason::Overflow`].
    pub overflow: u64,
    /// [`Reason::Failed`].
    pub failed: u64,
    /// [`Reason::Panicked`].
    pub panicked: u64,
}

impl Closed {
    pub(crate) fn count(&mut self, why: &Reason) {
        let counter = match why {
            Reason::Finish => &mut self.finish,
            Reason::Eof => &mut self.eof,
            Reason::Drained => &mut self.drained,
            Reason::Abort => &mut self.abort,
            Reason::Shutdown => &mut self.shutdown,
            Reason::Detached(_) => &mut self.detached,
            Reason::Resolve(_) | Reason::Connect(_) | Reason::Tls(_) => &mut self.connect,
            Reason::Io(_) => &mut self.io,
            Reason::Limit(_) => &mut self.limit,
            Reason::Overflow => &mut self.overflow,
            Reason::Failed(_) => &mut self.failed,
            Reason::Panicked(_) => &mut self.panicked,
        };
        *counter += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { finish, eof, drained, abort, shutdown, detached, connect, io, limit, overflow, failed, panicked } = self;
        finish + eof + drained + abort + shutdown + detached + connect + io + limit + overflow + failed + panicked
    }
}

/// What holds a slot.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A connection that a listener accepted.
    Accepted,
    /// A connection that we opened.
    Opened,
    /// A socket that waits for its peer's end after `closed`.
    Lingering,
    /// A listener.
    Listener,
    /// A dispatcher.
    Dispatcher,
    /// A datagram socket.
    Datagrams,
}

/// One connection, listener, dispatcher or datagram socket, from [`Net::connections`](crate::Net::connections).
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its key.
    pub key: Key,
    /// What it is.
    pub kind: Kind,
    /// The type of its protocol, dispatcher or datagram; `listener` for a listener. `-` for a lingering socket, for a guest
    /// whose factory is running, and for the one whose callback is running: its protocol is in use there.
    pub protocol: &'static str,
    /// The other end; for a listener where it listens, for a datagram socket without a peer where it is bound.
    pub peer: Address,
    /// How long ago it was accepted or opened. Zero for listeners, dispatchers and datagram sockets.
    pub age: Duration,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel took.
    pub bytes_out: u64,
    /// Bytes sent and not yet taken by the kernel.
    pub queued: usize,
    /// Bytes received and not yet delivered.
    pub unread: usize,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Whether it has begun to end.
    pub is_ending: bool,
    /// Whether [`pause`](crate::Link::pause) is on.
    pub is_paused: bool,
    /// Whether its output is above the high mark, or not yet down to the low one.
    pub is_congested: bool,
    /// The terminator that is set, by its name.
    pub terminator: &'static str,
    /// The time-outs that are set.
    pub timeouts: Vec<(Limit, Duration)>,
    /// The [holds](crate::Context::hold) that are out: where in the program each was taken, and how long ago.
    pub holds: Vec<(&'static Location<'static>, Duration)>,
}

impl Connection {
    pub(crate) fn new(key: Key, kind: Kind, protocol: &'static str, peer: Address) -> Self {
        Self {
            key,
            kind,
            protocol,
            peer,
            age: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            queued: 0,
            unread: 0,
            is_connected: false,
            is_ending: false,
            is_paused: false,
            is_congested: false,
            terminator: "None",
            timeouts: Vec::new(),
            holds: Vec::new(),
        }
    }
}

/// The time-outs that are set, by the limit that they are.
pub(crate) fn timeouts(clocks: &Clocks) -> Vec<(Limit, Duration)> {
    let all = [
        (Limit::Idle, clocks.idle),
        (Limit::Stalled, clocks.stalled),
        (Limit::Deadline, clocks.deadline()),
        (Limit::FrameTime, clocks.frame()),
        (Limit::Linger, clocks.linger()),
    ];
    all.into_iter().filter_map(|(limit, stopwatch)| Some((limit, stopwatch.limit()?))).collect()
}
