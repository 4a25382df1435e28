//! How the network behaves by chance.

use std::time::Duration;

/// How the network behaves by chance. Probabilities are in thousandths of each operation or message; the default is a
/// perfect network: everything arrives at once and whole. The chapter has
/// [a table](crate::manual::testing#weather-and-what-you-do-yourself).
#[derive(Clone, Debug)]
pub struct Weather {
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    pub(crate) bandwidth: Option<u64>,
    pub(crate) window: usize,
    pub(crate) kernel: Kernel,
    pub(crate) short_reads: u32,
    pub(crate) short_writes: u32,
    pub(crate) resets: u32,
    pub(crate) spurious: u32,
    pub(crate) refusals: u32,
    pub(crate) silences: u32,
    pub(crate) lookups: u32,
    pub(crate) pauses: u32,
    pub(crate) work: Duration,
    /// Lost, doubled, overtaken.
    pub(crate) datagrams: (u32, u32, u32),
}

/// Which system's sockets the hosts have, where systems differ in what a program may notice: [what Windows does
/// differently](crate::manual::platforms#what-windows-does-differently).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// A send is taken as far as there is room, and what had come before a reset can still be read.
    #[default]
    Linux,
    /// As long as there is any room a send is taken as a whole, however long it is. A reset takes away what had come and was
    /// not read yet, and is an error of every operation that follows.
    Windows,
}

/// Roughly what a socket's buffers hold on Linux before they grow.
const WINDOW: usize = 128 << 10;

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: None,
            window: WINDOW,
            kernel: Kernel::Linux,
            short_reads: 0,
            short_writes: 0,
            resets: 0,
            spurious: 0,
            refusals: 0,
            silences: 0,
            lookups: 0,
            pauses: 0,
            work: Duration::ZERO,
            datagrams: (0, 0, 0),
        }
    }
}

impl Weather {
    /// Weather in which nothing is late and nothing is lost.
    pub fn fair() -> Self {
        Self::default()
    }

    /// Weather in which everything is late and comes in pieces. Some streams are reset, some connects refused or never
    /// answered; some datagrams are lost, doubled or overtaken; the process oversleeps at times.
    pub fn rough() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(80),
            bandwidth: Some(1 << 20),
            window: 8 << 10,
            kernel: Kernel::Linux,
            short_reads: 300,
            short_writes: 300,
            resets: 3,
            spurious: 20,
            refusals: 50,
            silences: 20,
            lookups: 20,
            pauses: 10,
            work: Duration::from_millis(200),
            datagrams: (100, 50, 200),
        }
    }

    /// How long a message takes: at least `latency`, and by chance up to `jitter` longer. Streams stay in order; each
    /// datagram travels by itself.
    #[must_use]
    pub fn latency(mut self, latency: Duration, jitter: Duration) -> Self {
        (self.latency, self.jitter) = (latency, jitter);
        self
    }

    /// How many bytes a second each stream carries each way; `None` is no bound. Datagrams have none.
    #[must_use]
    pub fn bandwidth(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.bandwidth = bytes.into();
        self
    }

    /// How many bytes may be sent and not yet read, at least 1. Beyond that a sender's `send` would block, and a datagram is
    /// lost. A datagram of fewer than 64 bytes counts as 64, and the last one may exceed the bound.
    #[must_use]
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = bytes.max(1);
        self
    }

    /// Which system's sockets all hosts have.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// How often a read gives fewer bytes than it could, and a write takes fewer.
    #[must_use]
    pub fn short(mut self, reads: u32, writes: u32) -> Self {
        (self.short_reads, self.short_writes) = (reads, writes);
        self
    }

    /// How often a message resets its stream instead of arriving.
    #[must_use]
    pub fn resets(mut self, thousandths: u32) -> Self {
        self.resets = thousandths;
        self
    }

    /// How often a datagram is lost, how often it comes twice, and how often it is overtaken. An overtaken one, and the
    /// second of two, comes up to 200 milliseconds later. If one is sent to several, each copy has its own chances.
    #[must_use]
    pub fn datagrams(mut self, lost: u32, doubled: u32, overtaken: u32) -> Self {
        self.datagrams = (lost, doubled, overtaken);
        self
    }

    /// How often an operation is followed by an event that means nothing, for a socket that is alive or one that is gone.
    #[must_use]
    pub fn spurious(mut self, thousandths: u32) -> Self {
        self.spurious = thousandths;
        self
    }

    /// How often a connect is refused, and how often it is never answered.
    #[must_use]
    pub fn refusals(mut self, refused: u32, silent: u32) -> Self {
        (self.refusals, self.silences) = (refused, silent);
        self
    }

    /// How often looking a name up fails, with [`NameError::TryAgain`](crate::NameError::TryAgain). It takes as long as a
    /// message there and back.
    #[must_use]
    pub fn lookups(mut self, failed: u32) -> Self {
        self.lookups = failed;
        self
    }

    /// How often a wait oversleeps, up to a second.
    #[must_use]
    pub fn pauses(mut self, thousandths: u32) -> Self {
        self.pauses = thousandths;
        self
    }

    /// How long blocking work that is done [elsewhere](crate::Net::offload) takes: by chance, less than this. It is run on
    /// the simulation's own thread when that time has passed. If more work is given out than there are threads, it waits for
    /// one.
    #[must_use]
    pub fn work(mut self, less_than: Duration) -> Self {
        self.work = less_than;
        self
    }
}
