//! Options of binding: how a datagram socket is opened, and how much it takes and keeps.

use crate::{
    address::{Address, Target},
    services::IpProtocol,
    world::BindHow,
};
use std::io;

/// The most that an IP datagram can have: RFC 768, 16 bits of length.
pub(crate) const LARGEST: usize = 65_535;

/// How much may wait to be sent: roughly what a socket's own buffer holds on Linux.
const QUEUE: usize = 256 << 10;

/// What happens to a datagram for which there is no room in the queue.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Full {
    /// It is dropped, and [`send_to`](crate::Net::send_to) returns `false`.
    #[default]
    DropNewest,
    /// Those that have waited longest are dropped to make room: the newest is worth more. A datagram that is larger than the
    /// queue is dropped itself.
    DropOldest,
    /// The socket ends with [`Reason::Overflow`](crate::Reason::Overflow).
    Close,
}

/// Options of a datagram socket. The chapter is [datagrams](crate::manual::datagrams).
#[derive(Clone, Debug)]
pub struct Bind {
    pub(crate) largest: usize,
    pub(crate) queue: usize,
    pub(crate) full: Full,
    how: BindHow,
    peer: Option<Target>,
}

impl Default for Bind {
    fn default() -> Self {
        Self { largest: LARGEST, queue: QUEUE, full: Full::default(), how: BindHow::default(), peer: None }
    }
}

impl Bind {
    /// Makes options with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest datagram that is received whole, in bytes. A longer one is [`oversized`](crate::Datagram::oversized). The
    /// default is also the maximum: 65,535, which no IP datagram exceeds. The loop has one buffer, of the largest size of
    /// all its sockets.
    #[must_use]
    pub fn largest(mut self, bytes: usize) -> Self {
        self.largest = bytes.min(LARGEST);
        self
    }

    /// How many bytes may wait to be sent while the kernel takes none, and what happens to more. A datagram of fewer than 64
    /// bytes counts as 64, because it costs that much to keep. Default: 262,144, [`Full::DropNewest`]; with 0 none waits.
    #[must_use]
    pub fn queue(mut self, bytes: usize, full: Full) -> Self {
        (self.queue, self.full) = (bytes, full);
        self
    }

    /// Connects the socket to this peer: it hears nobody else, [`Net::send`](crate::Net::send) sends there, and if nobody
    /// has that port this is told as [`failed`](crate::Datagram::failed) (connect(2), udp(7)).
    #[must_use]
    pub fn peer(mut self, peer: impl Into<Target>) -> Self {
        self.peer = Some(peer.into());
        self
    }

    /// Allows sending to broadcast addresses (SO_BROADCAST, socket(7)). Without it that is `failed` with EACCES.
    #[must_use]
    pub fn broadcast(mut self) -> Self {
        self.how.broadcast = true;
        self
    }

    /// Lets others have the same port if they ask for it too: the kernel distributes unicast datagrams among them, and each
    /// gets those of a multicast group (SO_REUSEPORT, socket(7)). Not on Windows: there binding fails.
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.how.reuse_port = true;
        self
    }

    /// Whether an IPv6 socket takes IPv6 only. Default: what the system does; at `[::]` Linux takes both.
    #[must_use]
    pub fn v6only(mut self, only: bool) -> Self {
        self.how.v6only = Some(only);
        self
    }

    /// How many bytes the kernel keeps for the socket: received and not yet read, sent and not yet gone (SO_RCVBUF,
    /// SO_SNDBUF, socket(7)); `None` leaves it to the system. What comes beyond the first is lost without a word.
    #[must_use]
    pub fn buffers(mut self, received: impl Into<Option<usize>>, sent: impl Into<Option<usize>>) -> Self {
        (self.how.recv_buffer, self.how.send_buffer) = (received.into(), sent.into());
        self
    }

    /// Receives many datagrams by one system call, and sends [many](crate::Net::send_segments) by one. It is for a lot of
    /// data of one size to or from one peer (media, files), which the kernel then joins and cuts; single packets cost a
    /// little more. Behind `0.0.0.0` and `::` it tells [which address was used](crate::Scope::to), and a
    /// [reply](crate::Scope::reply) leaves from that one.
    ///
    /// Its packets are not cut on the way (IP_MTU_DISCOVER, ip(7)): one that is longer than the path has room for is
    /// [`failed`](crate::Datagram::failed) with EMSGSIZE, where it would otherwise have come in pieces. What leaves as one
    /// has a type of service of 0 (IP_TOS). UDP only: other sockets receive and send one by one.
    #[cfg(feature = "udp-batch")]
    #[cfg_attr(docsrs, doc(cfg(feature = "udp-batch")))]
    #[must_use]
    pub fn batch(mut self) -> Self {
        self.how.batches = true;
        self
    }

    /// # Errors
    /// For text that is not an address.
    pub(crate) fn how(&self, at: Option<&Target>) -> io::Result<BindHow> {
        let address = |target: &Target| target.address_of(IpProtocol::Udp);
        let (at, peer): (Option<Address>, Option<Address>) =
            (at.map(address).transpose()?, self.peer.as_ref().map(address).transpose()?);
        Ok(BindHow { at, peer, ..self.how.clone() })
    }
}
