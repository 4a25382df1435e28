//! Listening: the options.

#[cfg(feature = "tls")]
use crate::tls::TlsServer;
use crate::{
    config::Marks,
    key::Key,
    peers::{self, Peers},
    world,
};
use std::{borrow::Cow, rc::Rc, time::Duration};

/// How to listen. Everything has a default; [the chapter](crate::manual::serving#bounds-that-a-public-server-wants) says
/// which bounds a public server wants.
///
/// ```
/// # use mainspring::Listen;
/// # use std::time::Duration;
/// let options = Listen::new()
///     .connections_max(1000, "421 too many connections\r\n")
///     .per_peer_max(10, "421 too many connections from you\r\n")
///     .idle_timeout(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Listen {
    pub(crate) accepts_max: Option<u64>,
    pub(crate) admits_max: Option<u64>,
    pub(crate) owner: Option<Key>,
    pub(crate) connections_max: Option<usize>,
    pub(crate) refusal: Option<Rc<[u8]>>,
    pub(crate) pause_at: Option<usize>,
    pub(crate) per_peer_max: Option<PerPeer>,
    pub(crate) behind_proxy: bool,
    pub(crate) backlog: Option<u32>,
    pub(crate) reuse_port: bool,
    pub(crate) read_rate: Option<u64>,
    pub(crate) write_rate: Option<u64>,
    pub(crate) total_read_rate: Option<u64>,
    pub(crate) total_write_rate: Option<u64>,
    pub(crate) v6only: Option<bool>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsServer>,
    pub(crate) bounds: Bounds,
}

/// How many connections of one address there may be, and what counts them.
#[derive(Clone, Debug)]
pub(crate) struct PerPeer {
    pub(crate) most: usize,
    pub(crate) refusal: Rc<[u8]>,
    pub(crate) count: fn() -> Box<dyn Peers>,
}

/// What applies to each connection from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) idle: Option<Duration>,
    pub(crate) stalled: Option<Duration>,
    pub(crate) frame: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) marks: Option<Marks>,
}

/// What the kernel keeps for us until we accept; it cuts it to net.core.somaxconn (listen(2)).
const BACKLOG: u32 = 4096;

impl Listen {
    /// Makes options with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes the listener after this many connections, at least one; refused ones count. Default: never.
    #[must_use]
    pub fn accepts_max(mut self, connections: u64) -> Self {
        self.accepts_max = Some(connections);
        self
    }

    /// Closes the listener after it has let in this many connections. Refused ones do not count, whether they are given a
    /// refusal here or by the factory, nor do those whose factory panicked. A port that waits for one peer needs
    /// `admits_max(1)`: a stranger who knocks first does not close it. Default: never.
    #[must_use]
    pub fn admits_max(mut self, connections: u64) -> Self {
        self.admits_max = Some(connections);
        self
    }

    /// Makes the listener, and the connections that it lets in, belong to this connection. When the owner has ended, after
    /// its `closed`, the listener closes itself, and they are aborted, unless they have begun to end by then. It is part of
    /// what is under way there: a [drain](crate::Net::drain) leaves it open as long as its owner is open, and it is logged
    /// at debug, not info. An upgrade changes nothing: the successor closes what it does not want. Listening fails if the
    /// owner has begun to end. The chapter on [sessions](crate::manual::sessions) shows what it is good for. Default:
    /// nobody's.
    #[must_use]
    pub fn owner(mut self, connection: Key) -> Self {
        self.owner = Some(connection);
        self
    }

    /// Beyond this many connections at a time a new one is given the `refusal` and closed; no protocol is made for it.
    /// Sockets that linger after `closed` do not count: up to [`Config::lingering_max`](crate::Config::lingering_max)
    /// descriptors come on top. Default: no limit but descriptors.
    #[must_use]
    pub fn connections_max(mut self, connections: usize, refusal: impl AsRef<[u8]>) -> Self {
        self.connections_max = Some(connections);
        self.refusal = Some(refusal.as_ref().into());
        self
    }

    /// At this many connections at a time, at least one, the listener accepts no more: a client that comes waits in the
    /// kernel's backlog until one of them has ended. It is not refused and not told anything: as far as it can see, it is
    /// connected to somebody who does not answer. Use this for a server that can serve everybody in the end, only not at
    /// once. Where some clients stay all day, those who wait would wait as long: use
    /// [`connections_max`](Self::connections_max), which tells them, and which counts in the same way, without sockets that
    /// linger. A drain lets in all that wait, at once, and then closes the listener: nobody who had come is lost. Default:
    /// no limit but descriptors; when they run out, a client that comes is closed.
    #[must_use]
    pub fn pause_at(mut self, connections: usize) -> Self {
        self.pause_at = Some(connections);
        self
    }

    /// Beyond this many connections of one IP address at a time a new one is given the `refusal` and closed, as with
    /// [`connections_max`](Self::connections_max), which is checked first. An IPv4 address and the same one mapped to IPv6
    /// count as one; clients of a Unix socket do not count. Many people may share an address (NAT). Default: no limit.
    #[must_use]
    pub fn per_peer_max(mut self, connections: usize, refusal: impl AsRef<[u8]>) -> Self {
        self.per_peer_max = Some(PerPeer { most: connections, refusal: refusal.as_ref().into(), count: peers::new });
        self
    }

    /// Says that a proxy connects here and tells for which client: by the header of the PROXY protocol, or one of your own.
    /// Once your protocol has read that, [`Link::set_peer`](crate::Link::set_peer) names the client, and from then on
    /// [`per_peer_max`](Self::per_peer_max) counts the connection as the client's; until then it counts for nobody. The
    /// limit is the listener's, and ends with it. Default: the one that connects is the client.
    #[must_use]
    pub fn behind_proxy(mut self) -> Self {
        self.behind_proxy = true;
        self
    }

    /// Sets the [idle time-out](crate::Context::set_idle_timeout) of each connection that is let in, before `connected`,
    /// which may change it. A successor by [`upgrade`](crate::Context::upgrade) begins with it again. Default: none.
    #[must_use]
    pub fn idle_timeout(mut self, after: Duration) -> Self {
        self.bounds.idle = Some(after);
        self
    }

    /// Sets the [stall time-out](crate::Context::set_stall_timeout) of each connection that is let in, in the same way as
    /// [`idle_timeout`](Self::idle_timeout). Default: none.
    #[must_use]
    pub fn stall_timeout(mut self, after: Duration) -> Self {
        self.bounds.stalled = Some(after);
        self
    }

    /// Sets the [frame time-out](crate::Context::set_frame_timeout) of each connection that is let in, in the same way as
    /// [`idle_timeout`](Self::idle_timeout). Default: none.
    #[must_use]
    pub fn frame_timeout(mut self, after: Duration) -> Self {
        self.bounds.frame = Some(after);
        self
    }

    /// Sets the [deadline](crate::Context::set_deadline) of each connection that is let in. No upgrade gives a connection
    /// more time: the deadline keeps running, unless a predecessor has set another one or taken it back. Default: none.
    #[must_use]
    pub fn deadline(mut self, after: Duration) -> Self {
        self.bounds.deadline = Some(after);
        self
    }

    /// Sets the [marks of the output](crate::Context::set_output_limits) of each connection that is let in, in bytes, in the
    /// same way as [`idle_timeout`](Self::idle_timeout). Default: those of
    /// [`Config::output_limits`](crate::Config::output_limits).
    #[must_use]
    pub fn output_limits(mut self, low: usize, high: usize, cap: usize) -> Self {
        self.bounds.marks = Some(Marks::new(low, high, cap));
        self
    }

    /// How many connections the kernel keeps until they are accepted; it may reduce the number (listen(2)). Default: 4,096.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Lets several listeners, of several reactors or processes, share one address; the kernel distributes connections among
    /// them (SO_REUSEPORT, socket(7)). On Unix; elsewhere listening fails. Default: off.
    /// [`Reactor`](crate::Reactor#in-several-threads) has a program.
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Each connection that it accepts begins with this rate of reading, in bytes per second, and so does its successor
    /// after an upgrade: [`Context::set_read_rate`](crate::Context::set_read_rate). Default: no limit.
    #[must_use]
    pub fn read_rate(mut self, bytes_per_second: u64) -> Self {
        self.read_rate = Some(bytes_per_second);
        self
    }

    /// Each connection that it accepts begins with this rate of writing, in bytes per second, and so does its successor
    /// after an upgrade: [`Context::set_write_rate`](crate::Context::set_write_rate). Default: no limit.
    #[must_use]
    pub fn write_rate(mut self, bytes_per_second: u64) -> Self {
        self.write_rate = Some(bytes_per_second);
        self
    }

    /// Limits what all connections that it accepts read together: this many bytes per second in the long run, and a quarter
    /// of a second's worth at once after a silence. If they want more than there is, they take turns of equal size: each has
    /// an equal share, and what one does not want the others get. Each also keeps to its [own rate](Self::read_rate).
    /// [`Context::set_read_rate`](crate::Context::set_read_rate) says what is held back and what is not; this is the same
    /// here. But the limit is the listener's: no protocol can take it back, a successor has it too, and the connections that
    /// were let in still share it when the listener is closed. Zero counts as one. Default: no limit.
    #[must_use]
    pub fn total_read_rate(mut self, bytes_per_second: u64) -> Self {
        self.total_read_rate = Some(bytes_per_second);
        self
    }

    /// Limits what all connections that it accepts write together, shared out as by
    /// [`total_read_rate`](Self::total_read_rate). [`Context::set_write_rate`](crate::Context::set_write_rate) says what
    /// does not wait for it; nor do the last words to clients that are not let in. Default: no limit.
    #[must_use]
    pub fn total_write_rate(mut self, bytes_per_second: u64) -> Self {
        self.total_write_rate = Some(bytes_per_second);
        self
    }

    /// Whether a listener on an IPv6 address takes IPv6 only (IPV6_V6ONLY, ipv6(7)). One on `[::]` that does not takes IPv4
    /// too; the peer is then an address such as `::ffff:192.0.2.1`. It means nothing for IPv4 and Unix sockets. Default:
    /// what the system does.
    #[must_use]
    pub fn v6only(mut self, only: bool) -> Self {
        self.v6only = Some(only);
        self
    }

    /// Makes every client speak TLS, with us as the server. Takes an `Arc<rustls::ServerConfig>`, or a [`TlsServer`]. The
    /// factory runs after the handshake: no protocol is made for a client that knocks and goes.
    /// [`Context::tls`](crate::Context::tls) says what was agreed on. A handshake that fails, or takes longer than
    /// [`Config::handshake_max`](crate::Config::handshake_max), is told to no protocol: it is a debug record, and counted in
    /// [`Stats`](crate::Stats). A client that is [one too many](Self::connections_max) is closed without words. Where a
    /// proxy first says in clear [for whom](Self::behind_proxy) it comes, use [`start_tls`](crate::Context::start_tls)
    /// instead. The chapter is [TLS](crate::manual::tls). Default: in clear.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, server: impl Into<TlsServer>) -> Self {
        self.tls = Some(server.into());
        self
    }

    /// Nobody who comes is asked to speak TLS.
    pub(crate) fn is_in_clear(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_none();
        #[cfg(not(feature = "tls"))]
        true
    }

    pub(crate) fn how(&self) -> world::ListenHow {
        world::ListenHow { backlog: self.backlog.unwrap_or(BACKLOG), reuse_port: self.reuse_port, v6only: self.v6only }
    }
}

/// The last words to a client that is not let in; may be empty.
#[derive(Clone, Debug)]
pub struct Refusal(pub(crate) Cow<'static, [u8]>);

impl Refusal {
    /// Makes a refusal that closes without a word, and at once.
    pub fn silent() -> Self {
        Self(Cow::Borrowed(b""))
    }
}

impl From<&'static str> for Refusal {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<&'static [u8]> for Refusal {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Refusal {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into()))
    }
}
