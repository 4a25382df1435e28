//! Listening: the options ([`Listen`], [`Refusal`]), and what the loop knows of one listener.

use crate::{address::Address, config::Marks, flags::Flags, key::Key, world};
use std::{
    borrow::Cow,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

/// How to listen. All of it has a default:
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
    pub(crate) connections_max: Option<usize>,
    pub(crate) refusal: Option<Rc<[u8]>>,
    pub(crate) per_peer_max: Option<(usize, Rc<[u8]>)>,
    pub(crate) backlog: Option<u32>,
    pub(crate) reuse_port: bool,
    pub(crate) read_rate: Option<u64>,
    pub(crate) write_rate: Option<u64>,
    pub(crate) total_read_rate: Option<u64>,
    pub(crate) total_write_rate: Option<u64>,
    pub(crate) v6only: Option<bool>,
    pub(crate) bounds: Bounds,
}

/// What holds for each connection from its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) idle: Option<Duration>,
    pub(crate) stalled: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) marks: Option<Marks>,
}

/// What the kernel keeps for us until we accept; it cuts it to net.core.somaxconn (listen(2)).
const BACKLOG: u32 = 4096;

impl Listen {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// After so many connections, at least one, the listener closes itself; refused ones count. Default: never.
    #[must_use]
    pub fn accepts_max(mut self, connections: u64) -> Self {
        self.accepts_max = Some(connections);
        self
    }

    /// Beyond so many connections at a time a new one is given the `refusal` and closed; no protocol is made for it. Sockets
    /// that linger after `closed` do not count: up to [`Config::lingering_max`](crate::Config::lingering_max) descriptors come
    /// on top. Default: no limit but descriptors.
    #[must_use]
    pub fn connections_max(mut self, connections: usize, refusal: impl AsRef<[u8]>) -> Self {
        self.connections_max = Some(connections);
        self.refusal = Some(refusal.as_ref().into());
        self
    }

    /// Beyond so many connections of one IP address at a time a new one is given the `refusal` and closed, as with
    /// [`connections_max`](Self::connections_max), which comes first. An IPv4 address and the same one mapped to IPv6 count as
    /// one; clients of a Unix socket do not count. Many people may share an address (NAT). Default: no limit.
    #[must_use]
    pub fn per_peer_max(mut self, connections: usize, refusal: impl AsRef<[u8]>) -> Self {
        self.per_peer_max = Some((connections, refusal.as_ref().into()));
        self
    }

    /// [`Context::set_idle_timeout`](crate::Context::set_idle_timeout) of each connection that is let in, before `connected`,
    /// which may change it. As any time-out it is off after an [`upgrade`](crate::Context::upgrade). Default: none.
    #[must_use]
    pub fn idle_timeout(mut self, after: Duration) -> Self {
        self.bounds.idle = Some(after);
        self
    }

    /// The same for [`Context::set_stall_timeout`](crate::Context::set_stall_timeout). Default: none.
    #[must_use]
    pub fn stall_timeout(mut self, after: Duration) -> Self {
        self.bounds.stalled = Some(after);
        self
    }

    /// The same for [`Context::set_deadline`](crate::Context::set_deadline). Default: none.
    #[must_use]
    pub fn deadline(mut self, after: Duration) -> Self {
        self.bounds.deadline = Some(after);
        self
    }

    /// The same for [`Context::set_output_limits`](crate::Context::set_output_limits), in bytes; as with the time-outs, a
    /// successor does not have them. Default: those of [`Config::output_limits`](crate::Config::output_limits).
    #[must_use]
    pub fn output_limits(mut self, low: usize, high: usize, cap: usize) -> Self {
        self.bounds.marks = Some(Marks::new(low, high, cap));
        self
    }

    /// How many connections the kernel keeps until they are accepted; it may cut the number (listen(2)).
    /// Default: 4,096.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Several listeners, of several reactors or processes, share one address, and the kernel deals connections out
    /// (SO_REUSEPORT, socket(7)). Default: off.
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Each connection that it accepts begins with this rate of reading, in bytes per second, and so does what it becomes by
    /// an upgrade: [`Link::set_read_rate`](crate::Link::set_read_rate). Default: no limit.
    #[must_use]
    pub fn read_rate(mut self, bytes_per_second: u64) -> Self {
        self.read_rate = Some(bytes_per_second);
        self
    }

    /// The same for writing: [`Link::set_write_rate`](crate::Link::set_write_rate). Default: no limit.
    #[must_use]
    pub fn write_rate(mut self, bytes_per_second: u64) -> Self {
        self.write_rate = Some(bytes_per_second);
        self
    }

    /// All connections that it accepts read no more than so many bytes per second together in the long run, and a quarter of a
    /// second's worth at once after silence. Those who want more than there is take turns of equal size: each of them has an
    /// equal share, and what one does not want the others have. Each keeps to its [own rate](Self::read_rate) besides, and
    /// [the same](crate::Link::set_read_rate) is held back, or is not. But the limit is the listener's: no protocol takes it
    /// back, a successor has it too, and those who were let in share it also when the listener is closed. Zero counts as one.
    /// Default: no limit.
    #[must_use]
    pub fn total_read_rate(mut self, bytes_per_second: u64) -> Self {
        self.total_read_rate = Some(bytes_per_second);
        self
    }

    /// The same for writing: [`Link::set_write_rate`](crate::Link::set_write_rate) says what does not wait for it; nor do the
    /// last words to those who are not let in. Default: no limit.
    #[must_use]
    pub fn total_write_rate(mut self, bytes_per_second: u64) -> Self {
        self.total_write_rate = Some(bytes_per_second);
        self
    }

    /// Whether a listener on an IPv6 address takes IPv6 alone (IPV6_V6ONLY, ipv6(7)). One on `[::]` that does not takes IPv4
    /// too; the peer is then an address such as `::ffff:192.0.2.1`. Nothing to IPv4 and Unix sockets. Default: what the system
    /// does.
    #[must_use]
    pub fn v6only(mut self, only: bool) -> Self {
        self.v6only = Some(only);
        self
    }

    pub(crate) fn how(&self) -> world::ListenHow {
        world::ListenHow { backlog: self.backlog.unwrap_or(BACKLOG), reuse_port: self.reuse_port, v6only: self.v6only }
    }
}

/// The last words to somebody who is not let in; may be empty.
#[derive(Clone, Debug)]
pub struct Refusal(pub(crate) Cow<'static, [u8]>);

impl Refusal {
    /// Close without a word, and at once.
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

/// One listener.
pub(crate) struct Listening {
    pub(crate) key: Key,
    /// Nothing once it has begun to end.
    pub(crate) socket: Option<Box<dyn world::Listener>>,
    pub(crate) local: Address,
    pub(crate) options: Listen,
    /// `READABLE`: there may be a connection to accept. And `IN_READY`, `IN_DIRTY`.
    pub(crate) flags: Flags,
    /// It waits for a timer: there are no descriptors, or no memory.
    pub(crate) is_backing_off: bool,
    /// Its want of descriptors was logged; once is enough.
    pub(crate) is_reported: bool,
    /// The last one who came found no room.
    pub(crate) is_full: bool,
    /// Errors of single connections in a row.
    pub(crate) passed: usize,
    pub(crate) accepted: u64,
    /// Connections accepted and not yet closed.
    pub(crate) guests: usize,
    /// How many of them each address has, where that is limited; never 0.
    peers: HashMap<IpAddr, usize>,
    /// The rates of reading and of writing that they all share.
    pub(crate) shared_rates: [Option<usize>; 2],
}

impl Listening {
    pub(crate) fn new(key: Key, socket: Box<dyn world::Listener>, local: Address, options: Listen) -> Self {
        Self {
            key,
            socket: Some(socket),
            local,
            options,
            flags: Flags::default(),
            is_backing_off: false,
            is_reported: false,
            is_full: false,
            passed: 0,
            accepted: 0,
            guests: 0,
            peers: HashMap::new(),
            shared_rates: [None; 2],
        }
    }

    /// The last words to a newcomer for whom there is no room.
    pub(crate) fn refusal(&self, peer: Option<SocketAddr>) -> Option<Rc<[u8]>> {
        if self.options.connections_max.is_some_and(|most| self.guests >= most) {
            return Some(self.options.refusal.clone().unwrap_or_default());
        }
        let (most, refusal) = self.options.per_peer_max.as_ref()?;
        let has = self.peers.get(&counted(peer)?).copied().unwrap_or_default();
        (has >= *most).then(|| Rc::clone(refusal))
    }

    pub(crate) fn count_guest(&mut self, peer: Option<SocketAddr>) {
        self.guests += 1;
        if self.options.per_peer_max.is_some() {
            if let Some(ip) = counted(peer) {
                *self.peers.entry(ip).or_default() += 1;
            }
        }
    }

    pub(crate) fn uncount_guest(&mut self, peer: Option<SocketAddr>) {
        self.guests -= 1;
        if self.peers.is_empty() {
            return;
        }
        let Some(ip) = counted(peer) else { return };
        if let Some(has) = self.peers.get_mut(&ip) {
            *has -= 1;
            if *has == 0 {
                self.peers.remove(&ip);
            }
        }
    }

    pub(crate) fn has_had_enough(&self) -> bool {
        self.options.accepts_max.is_some_and(|most| self.accepted >= most)
    }
}

/// Whom a connection counts for.
fn counted(peer: Option<SocketAddr>) -> Option<IpAddr> {
    Some(peer?.ip().to_canonical())
}

/// What an error of accept(2) calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// Nobody is waiting.
    Drained,
    /// It concerns one connection, which is gone: look for the next.
    Pass,
    /// No descriptor is left: who waits is sent away.
    #[cfg_attr(not(unix), allow(dead_code, reason = "it is told by errno"))]
    Shed,
    /// The system cannot give us another one now.
    BackOff,
}

impl AcceptError {
    /// After accept(2), whose page asks to treat a connection's own network errors as if it had not been there.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::WouldBlock => return Self::Drained,
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted | ErrorKind::PermissionDenied => {
                return Self::Pass;
            }
            _ => {}
        }
        #[cfg(unix)]
        if let Some(libc::EMFILE | libc::ENFILE) = error.raw_os_error() {
            return Self::Shed;
        }
        #[cfg(unix)]
        if let Some(
            libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EOPNOTSUPP,
        ) = error.raw_os_error()
        {
            return Self::Pass;
        }
        Self::BackOff
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn errors_of_one_connection_pass_want_of_descriptors_sheds_and_of_memory_backs_off() {
        let of = |errno| AcceptError::of(&Error::from_raw_os_error(errno));
        for errno in [libc::ECONNABORTED, libc::EINTR, libc::EPERM, libc::EPROTO, libc::ENETDOWN] {
            assert_eq!(of(errno), AcceptError::Pass, "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE] {
            assert_eq!(of(errno), AcceptError::Shed, "{errno}");
        }
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC] {
            assert_eq!(of(errno), AcceptError::BackOff, "{errno}");
        }
        assert_eq!(of(libc::EAGAIN), AcceptError::Drained);
    }
}
