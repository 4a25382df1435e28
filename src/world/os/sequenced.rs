//! Sequenced packets of Unix sockets (SEQPACKET, unix(7)): a connection that carries messages.

use super::{
    super::{PacketTransport, registered::Registered},
    sources::look,
};
use crate::address::Address;
use mio::{Interest, net::UnixDatagram, unix::SourceFd};
use socket2::SockRef;
use std::{io, os::fd::AsRawFd};

/// If its peer has ended, this many empty messages in a row are not messages but the end, read again and again.
const EMPTY_MAX: u32 = 4096;

pub(super) struct SequencedPackets {
    socket: Registered<UnixDatagram>,
    peer: Option<Address>,
    ahead: Option<Ahead>,
}

/// What was received after an empty message, because an empty message reads like the end.
struct Ahead {
    /// This many more are to be told before it.
    empty: u32,
    /// `None`: nothing was there.
    next: Option<io::Result<Box<[u8]>>>,
}

impl SequencedPackets {
    pub(super) fn new(socket: Registered<UnixDatagram>, peer: Option<Address>) -> Self {
        Self { socket, peer, ahead: None }
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.socket.recv(buf).or_else(|error| self.socket.look_at(error))
    }

    /// An empty message and the end read the same. A second selector tells whether there can be an end.
    fn may_have_ended(&self) -> bool {
        let looked = look(&mut SourceFd(&self.socket.socket.as_raw_fd()), Interest::READABLE);
        looked.map_or(true, |events| events.iter().any(|event| event.is_read_closed()))
    }

    /// Empty messages, or the end: what comes behind them tells which.
    fn look_ahead(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut empty = 0;
        let next = loop {
            match self.recv(buf) {
                Ok(0) if empty == EMPTY_MAX => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => empty += 1,
                Ok(bytes) => break Some(Ok(buf[..bytes].into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                Err(error) => break Some(Err(error)),
            }
        };
        self.ahead = Some(Ahead { empty, next });
        Ok(0)
    }
}

impl PacketTransport for SequencedPackets {
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        *from = self.peer.clone().unwrap_or(Address::Unix(None));
        match &mut self.ahead {
            Some(ahead) if ahead.empty > 0 => {
                ahead.empty -= 1;
                return Ok(0);
            }
            _ => {}
        }
        if let Some(next) = self.ahead.take().and_then(|ahead| ahead.next) {
            let bytes = next?;
            buf[..bytes.len()].copy_from_slice(&bytes);
            return Ok(bytes.len());
        }
        match self.recv(buf)? {
            0 if self.may_have_ended() => self.look_ahead(buf),
            bytes => Ok(bytes),
        }
    }

    fn send_to(&mut self, bytes: &[u8], _: Option<&Address>) -> io::Result<()> {
        self.socket.socket.send(bytes).map(drop).or_else(|error| self.socket.look_at(error))
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.socket.want_writable(on)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(&self.socket.socket))
    }
}
