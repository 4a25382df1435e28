//! Sockets that carry packets: UDP, Unix datagrams, and those that the program has opened itself.

use super::{
    super::{BindHow, IS_WINSOCK, Interface, Opened, PacketSocket, PacketTransport, packets::not_there, registered::Registered},
    unsupported,
};
#[cfg(unix)]
use super::{sequenced::SequencedPackets, socket_file::SocketFile};
use crate::address::Address;
#[cfg(unix)]
use mio::net::UnixDatagram;
use mio::{Registry, net::UdpSocket};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

/// Every address of a family.
fn any(like: IpAddr) -> SocketAddr {
    let ip = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}

pub(super) fn bind(how: &BindHow, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    match how.at.as_ref().or(how.peer.as_ref()) {
        Some(Address::Ip(addr)) => {
            bind_udp(how.at.as_ref().and_then(Address::ip).unwrap_or(any(addr.ip())), how, registry, token)
        }
        #[cfg(unix)]
        Some(Address::Unix(Some(_)) | Address::Abstract(_)) => bind_unix(how, registry, token),
        other => Err(unsupported(other.unwrap_or(&Address::Fd))),
    }
}

fn bind_udp(at: SocketAddr, how: &BindHow, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    if how.reuse_port && !cfg!(unix) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"));
    }
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if let (true, Some(only)) = (at.is_ipv6(), how.v6only) {
        socket.set_only_v6(only)?;
    }
    #[cfg(unix)]
    socket.set_reuse_port(how.reuse_port)?;
    set_options(&socket, how)?;
    socket.bind(&at.into())?;
    let peer = connect_ip(&socket, how, at.is_ipv6())?;
    adopt_ip(socket, peer, how, registry, token)
}

/// Connects it to the peer that is asked for, if there is one.
fn connect_ip(socket: &Socket, how: &BindHow, is_v6: bool) -> io::Result<Option<SocketAddr>> {
    let Some(peer) = &how.peer else { return Ok(None) };
    let peer = peer.ip().ok_or_else(|| not_there(peer))?;
    socket.connect(&if is_v6 { mapped(peer) } else { peer }.into())?;
    Ok(Some(unmapped(peer)))
}

/// The same.
#[cfg(unix)]
fn connect_unix(socket: &Socket, how: &BindHow) -> io::Result<Option<Address>> {
    if let Some(peer) = &how.peer {
        socket.connect(&peer.to_socket()?)?;
    }
    Ok(how.peer.clone())
}

fn set_options(socket: &Socket, how: &BindHow) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if how.broadcast {
        socket.set_broadcast(true)?;
    }
    if let Some(bytes) = how.recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = how.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(unix)]
fn bind_unix(how: &BindHow, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    set_options(&socket, how)?;
    let name = how.at.as_ref().map(Address::to_socket).transpose()?;
    let file = match (&how.at, &name) {
        (Some(Address::Unix(Some(path))), _) => Some(SocketFile::bind(&socket, path)?),
        (_, Some(name)) => {
            socket.bind(name)?;
            None
        }
        (_, None) => None,
    };
    let peer = connect_unix(&socket, how)?;
    let local = how.at.clone().unwrap_or(Address::Unix(None));
    adopt_unix(socket, local, peer, Type::DGRAM, file, registry, token)
}

/// A socket that the program has opened itself: bound and connected as it is.
pub(super) fn bind_on(socket: PacketSocket, how: &BindHow, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    let domain = socket.domain()?;
    let socket = socket.0;
    set_options(&socket, how)?;
    match domain {
        #[cfg(unix)]
        Domain::UNIX => {
            let local = Address::of_socket(&socket.local_addr()?);
            let peer = connect_unix(&socket, how)?;
            let peer = peer.or_else(|| socket.peer_addr().ok().map(|peer| Address::of_socket(&peer)));
            let kind = socket.r#type()?;
            adopt_unix(socket, local, peer, kind, None, registry, token)
        }
        Domain::IPV4 | Domain::IPV6 => {
            let peer = connect_ip(&socket, how, domain == Domain::IPV6)?;
            let peer = peer.or_else(|| socket.peer_addr().ok().and_then(|peer| peer.as_socket()).map(unmapped));
            adopt_ip(socket, peer, how, registry, token)
        }
        #[cfg(unix)]
        _ => adopt_other(socket, registry, token),
        #[cfg(not(unix))]
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg_attr(not(feature = "udp-batch"), allow(unused_variables, reason = "`how` may ask for that"))]
fn adopt_ip(socket: Socket, peer: Option<SocketAddr>, how: &BindHow, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let socket = UdpSocket::from_std(socket.into());
    let packets =
        IpPackets { socket: Registered::new(socket, registry, token)?, is_v6: local.is_ipv6(), peer: peer.map(Box::new) };
    let (local_at, peer) = (Address::Ip(unmapped(local)), peer.map(Address::Ip));
    #[cfg(feature = "udp-batch")]
    if how.batches {
        let packets = super::batch::BatchPackets::new(packets, local.ip().is_unspecified())?;
        return Ok(Opened { socket: Box::new(packets), local: local_at, peer });
    }
    Ok(Opened { socket: Box::new(packets), local: local_at, peer })
}

/// Netlink, and whatever else has addresses of a kind that we do not have: it is read and written without addresses.
#[cfg(unix)]
fn adopt_other(socket: Socket, registry: Rc<Registry>, token: usize) -> io::Result<Opened> {
    let socket = UdpSocket::from_std(socket.into());
    let packets = PlainPackets(Registered::new(socket, registry, token)?);
    Ok(Opened { socket: Box::new(packets), local: Address::Fd, peer: Some(Address::Fd) })
}

#[cfg(unix)]
fn adopt_unix(
    socket: Socket,
    local: Address,
    peer: Option<Address>,
    kind: Type,
    file: Option<SocketFile>,
    registry: Rc<Registry>,
    token: usize,
) -> io::Result<Opened> {
    let socket = UnixDatagram::from_std(std::os::fd::OwnedFd::from(socket).into());
    let socket = Registered::new(socket, registry, token)?;
    let packets: Box<dyn PacketTransport> = match kind {
        Type::SEQPACKET => Box::new(SequencedPackets::new(socket, peer.clone())),
        _ => Box::new(UnixPackets { _file: file, socket, peer: peer.clone() }),
    };
    Ok(Opened { socket: packets, local, peer })
}

pub(super) struct IpPackets {
    socket: Registered<UdpSocket>,
    is_v6: bool,
    /// In a box: a server hardly ever has one.
    peer: Option<Box<SocketAddr>>,
}

#[cfg(feature = "udp-batch")]
impl IpPackets {
    pub(super) fn udp(&self) -> &UdpSocket {
        &self.socket.socket
    }

    pub(super) fn is_v6(&self) -> bool {
        self.is_v6
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer.as_deref().copied()
    }

    pub(super) fn look_at<R>(&mut self, error: io::Error) -> io::Result<R> {
        self.socket.look_at(error)
    }
}

/// An IPv4 address in the form of an IPv6 socket (RFC 4291, 2.5.5.2).
pub(super) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// And in the form that everybody else has.
pub(super) fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(addr, |ip| SocketAddr::new(ip.into(), v6.port())),
        SocketAddr::V4(_) => addr,
    }
}

/// This many ICMP errors of earlier datagrams are ignored at once.
const NEWS_MAX: usize = 64;

/// Winsock reports an ICMP error for each datagram that met one, to whatever is asked of the socket next: that nobody has
/// the port (WSAECONNRESET), or that the datagram was on its way for too long (WSAENETRESET). On other systems only a
/// connected socket hears of these, as ECONNREFUSED and EHOSTUNREACH; here it is the same.
#[inline]
pub(super) fn without_news<R>(is_winsock: bool, is_connected: bool, mut ask: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    if !is_winsock {
        return ask();
    }
    for _ in 0..NEWS_MAX {
        let answer = ask();
        match answer.as_ref().err().and_then(io::Error::raw_os_error) {
            Some(10052 | 10054) if !is_connected => {}
            Some(10054) => return Err(io::Error::from_raw_os_error(10061)),
            Some(10052) => return Err(io::Error::from_raw_os_error(10065)),
            _ => return answer,
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

impl PacketTransport for IpPackets {
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        match without_news(IS_WINSOCK, self.peer.is_some(), || self.socket.socket.recv_from(buf)) {
            Ok((bytes, addr)) => {
                let addr = if self.is_v6 { unmapped(addr) } else { addr };
                match from {
                    Address::Ip(from) => *from = addr, // as nearly always: nothing has to be dropped
                    _ => *from = Address::Ip(addr),
                }
                Ok(bytes)
            }
            Err(error) => self.socket.look_at(error),
        }
    }

    fn hears_news(&self) -> bool {
        self.peer.is_some()
    }

    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
        let sent = without_news(IS_WINSOCK, self.peer.is_some(), || match to {
            Some(Address::Ip(to)) if self.peer.as_deref().is_none_or(|peer| peer != to) => {
                let to = if self.is_v6 { mapped(*to) } else { *to };
                self.socket.socket.send_to(bytes, to)
            }
            Some(Address::Ip(_)) | None => self.socket.socket.send(bytes),
            Some(to) => Err(not_there(to)),
        });
        sent.map(drop).or_else(|error| self.socket.look_at(error))
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.socket.want_writable(on)
    }

    fn join(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        let socket = SockRef::from(&self.socket.socket);
        match (group, on) {
            (IpAddr::V6(group), on) => socket.join_multicast_v6(&group, on.number()?),
            (IpAddr::V4(group), Interface::Any) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
            (IpAddr::V4(group), Interface::Address(of)) => socket.join_multicast_v4(&group, &of),
            (IpAddr::V4(group), Interface::Index(index)) => by_number(&socket, group, index, true),
        }
    }

    fn leave(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        let socket = SockRef::from(&self.socket.socket);
        match (group, on) {
            (IpAddr::V6(group), on) => socket.leave_multicast_v6(&group, on.number()?),
            (IpAddr::V4(group), Interface::Any) => socket.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
            (IpAddr::V4(group), Interface::Address(of)) => socket.leave_multicast_v4(&group, &of),
            (IpAddr::V4(group), Interface::Index(index)) => by_number(&socket, group, index, false),
        }
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(&self.socket.socket))
    }
}

/// For an IPv4 group, where the system can do that (ip(7), ip_mreqn).
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple", windows))]
fn by_number(socket: &SockRef<'_>, group: Ipv4Addr, index: u32, joins: bool) -> io::Result<()> {
    let interface = socket2::InterfaceIndexOrAddress::Index(index);
    match joins {
        true => socket.join_multicast_v4_n(&group, &interface),
        false => socket.leave_multicast_v4_n(&group, &interface),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple", windows)))]
fn by_number(_: &SockRef<'_>, _: Ipv4Addr, _: u32, _: bool) -> io::Result<()> {
    let text = "this system knows interfaces of IPv4 by their addresses: write Interface::Address";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// Without addresses, by recv(2) and send(2).
#[cfg(unix)]
struct PlainPackets(Registered<UdpSocket>);

#[cfg(unix)]
impl PacketTransport for PlainPackets {
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        *from = Address::Fd;
        self.0.socket.recv(buf).or_else(|error| self.0.look_at(error))
    }

    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
        if let Some(to) = to.filter(|to| **to != Address::Fd) {
            return Err(not_there(to));
        }
        self.0.socket.send(bytes).map(drop).or_else(|error| self.0.look_at(error))
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.0.want_writable(on)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(&self.0.socket))
    }
}

#[cfg(unix)]
struct UnixPackets {
    /// Dropped before the socket.
    _file: Option<SocketFile>,
    socket: Registered<UnixDatagram>,
    peer: Option<Address>,
}

#[cfg(unix)]
impl PacketTransport for UnixPackets {
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        let (bytes, addr) = self.socket.socket.recv_from(buf).or_else(|error| self.socket.look_at(error))?;
        *from = Address::of_unix(&addr);
        Ok(bytes)
    }

    /// It is not possible to wait for another socket that is full: the selector tells when there is room of our own, or of
    /// our peer's.
    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
        let to = to.filter(|to| self.peer.as_ref() != Some(to));
        let socket = &self.socket.socket;
        let sent = match to {
            None => socket.send(bytes),
            Some(to) => {
                let name = to.to_socket()?;
                socket.try_io(|| SockRef::from(socket).send_to(bytes, &name))
            }
        };
        match sent.map(drop).or_else(|error| self.socket.look_at(error)) {
            Err(error) if to.is_some() && error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::from_raw_os_error(libc::ENOBUFS))
            }
            other => other,
        }
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.socket.want_writable(on)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(&self.socket.socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a receive returns when these codes come one after the other.
    fn receive(is_connected: bool, codes: &[i32]) -> Result<usize, Option<i32>> {
        let mut codes = codes.iter();
        let received = without_news(true, is_connected, || match codes.next() {
            Some(code) => Err(io::Error::from_raw_os_error(*code)),
            None => Ok(7),
        });
        received.map_err(|error| error.raw_os_error())
    }

    #[test]
    fn winsocks_news_are_a_refusal_for_who_is_connected_and_nothing_for_others() {
        assert_eq!(receive(false, &[10054, 10052, 10054]), Ok(7));
        assert_eq!(receive(false, &[10054, 10055]), Err(Some(10055)));
        assert_eq!(receive(false, &[10054; NEWS_MAX]), Err(None), "in the next turn");
        assert_eq!(receive(true, &[10054]), Err(Some(10061)));
        assert_eq!(receive(true, &[10052]), Err(Some(10065)));
    }
}
