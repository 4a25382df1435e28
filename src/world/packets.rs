//! The seam to sockets that carry packets: each is sent and received by itself, whole or not at all.

use crate::address::Address;
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

/// A socket of yours that carries packets, for [`Net::bind_on`](crate::Net::bind_on). Made from a [`std::net::UdpSocket`], a
/// [`std::os::unix::net::UnixDatagram`], or a [`socket2::Socket`] of type DGRAM, RAW or SEQPACKET. It is made non-blocking,
/// and is closed with the datagram socket that it becomes.
pub struct PacketSocket(pub(crate) Socket);

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketSocket({:?})", self.0)
    }
}

impl From<UdpSocket> for PacketSocket {
    fn from(socket: UdpSocket) -> Self {
        Self(socket.into())
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixDatagram> for PacketSocket {
    fn from(socket: std::os::unix::net::UnixDatagram) -> Self {
        Self(Socket::from(std::os::fd::OwnedFd::from(socket)))
    }
}

impl From<Socket> for PacketSocket {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl PacketSocket {
    /// # Errors
    /// For a stream socket, and where the system does not say what it is.
    pub(crate) fn domain(&self) -> io::Result<Domain> {
        if self.0.r#type()? == Type::STREAM {
            let text = "a socket of type STREAM carries no packets";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        domain(&self.0)
    }
}

/// The system is asked where it can say it; otherwise its address tells.
fn domain(socket: &Socket) -> io::Result<Domain> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket.domain();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return socket.local_addr().map(|addr| addr.domain());
}

/// One of the interfaces of this machine, for [`Net::join`](crate::Net::join).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interface {
    /// The one that the system chooses.
    #[default]
    Any,
    /// By its number, if_nametoindex(3).
    Index(u32),
    /// By an address that it has; only for IPv4.
    Address(Ipv4Addr),
}

impl Interface {
    /// As IPv6 knows it; 0 is any.
    ///
    /// # Errors
    /// If it is known by an address.
    pub(super) fn number(self) -> io::Result<u32> {
        match self {
            Self::Any => Ok(0),
            Self::Index(index) => Ok(index),
            Self::Address(address) => {
                let text = format!("IPv6 knows interfaces by their number: not {address}, but Interface::Index");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }
}

/// How to open a datagram socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct BindHow {
    /// Our address; `None`: any.
    pub(crate) at: Option<Address>,
    /// It is connected to this one: nobody else is heard.
    pub(crate) peer: Option<Address>,
    pub(crate) reuse_port: bool,
    pub(crate) v6only: Option<bool>,
    pub(crate) broadcast: bool,
    /// It receives many at once.
    #[cfg(feature = "udp-batch")]
    pub(crate) batches: bool,
    /// The kernel's buffers, in bytes.
    pub(crate) recv_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
}

/// A datagram socket that was opened and registered.
pub(crate) struct Opened {
    pub(crate) socket: Box<dyn PacketTransport>,
    /// Where it really is (port 0).
    pub(crate) local: Address,
    pub(crate) peer: Option<Address>,
}

/// What moves packets. It is registered for reading; for writing only while that is asked for, because the kernel reports
/// every packet that leaves.
pub(crate) trait PacketTransport {
    /// Receives the next one: its first bytes if `buf` has no room for all. Writes the sender to `from`. `UnexpectedEof`:
    /// its peer has ended, which only one of SEQPACKET can.
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize>;
    /// Sends it as a whole or not at all. `None`: to its peer.
    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()>;
    /// Whether an error may be about an earlier one: ICMP's news for a connected socket.
    fn hears_news(&self) -> bool {
        false
    }
    /// Sends as many pieces of this size as leave at once, the first ones; returns how many bytes have left. An error is
    /// about the first piece.
    fn send_segments(&mut self, bytes: &[u8], segment: usize, to: Option<&Address>) -> io::Result<usize> {
        let first = &bytes[..segment.min(bytes.len())];
        self.send_to(first, to).map(|()| first.len())
    }
    /// Whether many are received at once.
    fn batches(&self) -> bool {
        false
    }
    /// Whatever has come, as far as there is room.
    #[cfg(feature = "udp-batch")]
    fn recv_batch(&mut self, _: &mut Batch) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// What is sent to this address leaves from this one of ours, until something else is said.
    #[cfg(feature = "udp-batch")]
    fn set_source(&mut self, _: Option<SourceAddress>) {}
    /// The address from which something sent there would leave, if that was said.
    #[cfg(feature = "udp-batch")]
    fn source_of(&self, _: Option<&Address>) -> Option<SourceAddress> {
        None
    }
    /// Whether it is to be reported that there is room.
    fn want_writable(&mut self, on: bool) -> io::Result<()>;
    fn join(&mut self, _group: IpAddr, _on: Interface) -> io::Result<()> {
        Err(no_groups())
    }
    fn leave(&mut self, _group: IpAddr, _on: Interface) -> io::Result<()> {
        Err(no_groups())
    }
    fn socket(&self) -> Option<SockRef<'_>>;
}

/// For an address that a socket cannot send to, whatever it is.
pub(super) fn not_there(to: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{to}` cannot be reached by a socket of this kind"))
}

fn no_groups() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "only UDP has multicast groups")
}

/// What many datagrams are received into at once; made when it is first needed.
#[cfg(feature = "udp-batch")]
#[derive(Default)]
pub(crate) struct Batch {
    /// Room for this many messages of [`MESSAGE`] bytes.
    pub(crate) bytes: Vec<u8>,
    pub(crate) messages: Vec<Message>,
}

/// At most this many messages are received at once.
#[cfg(feature = "udp-batch")]
pub(crate) const MESSAGES_MAX: usize = 32;

/// The most that the kernel gives as one message.
#[cfg(feature = "udp-batch")]
pub(crate) const MESSAGE: usize = 1 << 16;

/// Datagrams of one size (except for the last) from one peer.
#[cfg(feature = "udp-batch")]
pub(crate) struct Message {
    pub(crate) bytes: usize,
    /// The size of each.
    pub(crate) stride: usize,
    pub(crate) from: Address,
    /// Which of our addresses they were sent to.
    pub(crate) to: Option<IpAddr>,
}

/// One of our addresses, and the peer that it is the sender's address for.
#[cfg(feature = "udp-batch")]
#[derive(Clone, Copy)]
pub(crate) struct SourceAddress {
    pub(crate) ours: IpAddr,
    pub(crate) to: std::net::SocketAddr,
}
