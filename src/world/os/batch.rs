//! UDP, many datagrams at once, through quinn-udp: the kernel joins datagrams of one size from one peer into one message
//! (GRO), and cuts what is sent as one (GSO).

use super::{
    super::{Batch, IS_WINSOCK, Interface, MESSAGE, MESSAGES_MAX, Message, PacketTransport, SourceAddress},
    packets::{IpPackets, mapped, unmapped, without_news},
};
use crate::address::Address;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;
use std::{
    array,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

/// What one message may hold, however many datagrams that are.
const SENT_MAX: usize = 65_507;

/// After this many refusals in a row of messages of many, no more are tried.
const REFUSALS_MAX: u32 = 3;

pub(super) struct BatchPackets {
    one_by_one: IpPackets,
    state: UdpSocketState,
    /// It has every address, so that a reply has to be told which one to leave from.
    is_anywhere: bool,
    source: Option<SourceAddress>,
    /// How many messages of many were refused, in a row, although each single datagram was not.
    refusals: u32,
}

impl BatchPackets {
    /// # Errors
    /// For what the system says of the options that this needs.
    pub(super) fn new(one_by_one: IpPackets, is_anywhere: bool) -> io::Result<Self> {
        let state = UdpSocketState::new(one_by_one.udp().into())?;
        Ok(Self { one_by_one, state, is_anywhere, source: None, refusals: 0 })
    }

    /// In the form in which the socket has addresses.
    fn address(&self, addr: SocketAddr) -> SocketAddr {
        if self.one_by_one.is_v6() { mapped(addr) } else { addr }
    }

    fn source_ip(&self, to: SocketAddr) -> Option<IpAddr> {
        let source = self.source.filter(|source| source.to == to)?;
        Some(self.address(SocketAddr::new(source.ours, 0)).ip())
    }

    fn transmit(&mut self, contents: &[u8], segment_size: Option<usize>, to: SocketAddr) -> io::Result<()> {
        let transmit = Transmit { destination: self.address(to), ecn: None, contents, segment_size, src_ip: self.source_ip(to) };
        let socket = self.one_by_one.udp();
        let sent = socket.try_io(|| self.state.try_send(socket.into(), &transmit));
        // quinn-udp takes that for an error of the interface, for ever. It may as well be about an address that somebody has
        // given.
        if sent.as_ref().is_err_and(is_refused) && self.refusals < REFUSALS_MAX {
            self.state = UdpSocketState::new(socket.into())?;
        }
        sent.or_else(|error| self.one_by_one.look_at(error))
    }

    /// For a message of many, which some interfaces cannot cut: each is sent by itself.
    #[cold]
    fn send_first(&mut self, bytes: &[u8], segment: usize, to: Option<&Address>, error: io::Error) -> io::Result<usize> {
        if !is_refused(&error) {
            return Err(error);
        }
        self.send_to(&bytes[..segment], to)?;
        self.refusals += 1;
        if self.refusals == REFUSALS_MAX {
            log::info!(target: "mainspring", "datagrams are sent one by one: the interface does not cut them ({error})");
        }
        Ok(segment)
    }
}

fn is_refused(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL));
    #[cfg(not(unix))]
    return error.kind() == io::ErrorKind::InvalidInput;
}

fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

impl PacketTransport for BatchPackets {
    fn hears_news(&self) -> bool {
        self.one_by_one.hears_news()
    }

    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        self.one_by_one.recv_from(buf, from)
    }

    fn batches(&self) -> bool {
        true
    }

    fn recv_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let (count, mut places) = (batch.bytes.len() / MESSAGE, batch.bytes.chunks_mut(MESSAGE));
        let mut slices: [_; MESSAGES_MAX] = array::from_fn(|_| IoSliceMut::new(places.next().unwrap_or_default()));
        let mut metas = [RecvMeta::default(); MESSAGES_MAX];
        let socket = self.one_by_one.udp();
        // quinn-udp ignores news of an earlier one.
        if let (Some(_), Some(news)) = (self.one_by_one.peer(), socket.take_error()?) {
            return Err(news);
        }
        let received = without_news(IS_WINSOCK, self.one_by_one.peer().is_some(), || {
            socket.try_io(|| self.state.recv(socket.into(), &mut slices[..count], &mut metas[..count]))
        });
        let count = received.or_else(|error| self.one_by_one.look_at(error))?;
        let of = |meta: &RecvMeta| Message {
            bytes: meta.len,
            stride: meta.stride,
            from: Address::Ip(unmapped(meta.addr)),
            to: meta.dst_ip.map(|ip| unmapped(SocketAddr::new(ip, 0)).ip()),
        };
        batch.messages.clear();
        batch.messages.extend(metas[..count].iter().map(of));
        Ok(())
    }

    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
        match to.and_then(Address::ip) {
            Some(to) if self.source_ip(to).is_some() => self.transmit(bytes, None, to),
            _ => self.one_by_one.send_to(bytes, to),
        }
    }

    fn send_segments(&mut self, bytes: &[u8], segment: usize, to: Option<&Address>) -> io::Result<usize> {
        let at_once = self.state.max_gso_segments().min(SENT_MAX / segment).max(1);
        let sent = &bytes[..bytes.len().min(at_once.saturating_mul(segment))];
        let to_ip = to.map_or(self.one_by_one.peer(), Address::ip);
        let Some(to_ip) = to_ip.filter(|_| sent.len() > segment) else {
            let first = &sent[..segment.min(sent.len())];
            return self.send_to(first, to).map(|()| first.len());
        };
        match self.transmit(sent, Some(segment), to_ip) {
            Ok(()) => {
                self.refusals = 0;
                Ok(sent.len())
            }
            Err(error) => self.send_first(bytes, segment, to, error),
        }
    }

    fn set_source(&mut self, source: Option<SourceAddress>) {
        // What was sent to a group is answered from an address of ours.
        self.source = source.filter(|source| self.is_anywhere && !is_of_many(source.ours));
    }

    fn source_of(&self, to: Option<&Address>) -> Option<SourceAddress> {
        let to = to?.ip()?;
        self.source.filter(|source| source.to == to)
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.one_by_one.want_writable(on)
    }

    fn join(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        self.one_by_one.join(group, on)
    }

    fn leave(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        self.one_by_one.leave(group, on)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        self.one_by_one.socket()
    }
}
