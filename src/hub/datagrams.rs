//! Datagram sockets: opening them, sending by key, and the end of one.

use super::Hub;
#[cfg(feature = "udp-batch")]
use crate::world::{Batch, MESSAGE, SourceAddress};
use crate::{
    address::{Address, Target},
    bind::Bind,
    endpoint::{Arrival, DatagramSocket, Entry},
    key::Key,
    world::{Interface, Opened, PacketSocket, PacketTransport, wants_descriptor},
};
use socket2::SockRef;
use std::{io, net::IpAddr};

/// So many messages are received at once, at most.
#[cfg(feature = "udp-batch")]
const MESSAGES_MAX: usize = 32;

impl Hub {
    pub(crate) fn bind(&mut self, at: Option<&Target>, options: &Bind) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let how = options.how(at)?;
        loop {
            let key = self.next_key()?;
            match self.cx.world.bind(&how, key.token()) {
                Ok(opened) => return Ok(self.admit_datagrams(key, opened, options)),
                Err(error) if wants_descriptor(&error) && self.reset_first_lingering() => {}
                Err(error) => {
                    let text = match (&how.at, &how.peer) {
                        (None, Some(peer)) => format!("cannot exchange datagrams with {peer}: {error}"),
                        (at, _) => format!("cannot take datagrams on {}: {error}", at.as_ref().unwrap_or(&Address::Fd)),
                    };
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
    }

    pub(crate) fn bind_on(&mut self, socket: PacketSocket, options: &Bind) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let key = self.next_key()?;
        let opened = self.cx.world.bind_on(socket, &options.how(None)?, key.token())?;
        Ok(self.admit_datagrams(key, opened, options))
    }

    fn admit_datagrams(&mut self, key: Key, opened: Opened, options: &Bind) -> Key {
        log::info!(target: "mainspring", "{key} takes datagrams on {}", opened.local);
        self.slots.insert(DatagramSocket::new(key, opened, options));
        self.counts.datagrams += 1;
        key
    }

    /// Whether it has left, waits, or is to be told as failed.
    #[inline]
    pub(crate) fn send_datagram(&mut self, key: Key, to: Option<&Address>, bytes: &[u8]) -> bool {
        self.slots.datagrams(key).is_some_and(|socket| socket.send(to, bytes, &mut self.cx))
    }

    pub(crate) fn send_segments(&mut self, key: Key, to: Option<&Address>, bytes: &[u8], segment: usize) -> bool {
        self.slots.datagrams(key).is_some_and(|socket| socket.send_segments(to, bytes, segment, &mut self.cx))
    }

    /// What is to be told to it next.
    #[inline]
    pub(crate) fn next_arrival(&mut self, key: Key, buffer: &mut [u8], from: &mut Address) -> Arrival {
        match self.slots.datagrams(key) {
            Some(socket) => socket.next_arrival(buffer, from, &mut self.cx),
            None => Arrival::Nothing,
        }
    }

    /// Its turn begins: what waits leaves. How large a buffer it needs.
    #[inline]
    pub(crate) fn begin_datagrams(&mut self, key: Key) -> usize {
        self.cx.lent.has_spent = false;
        let Some(socket) = self.slots.datagrams(key) else { return 0 };
        socket.flush(&mut self.cx);
        socket.room()
    }

    /// Whatever has come, at once.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_batch(&mut self, key: Key, batch: &mut Batch) -> Arrival {
        let messages = (self.cx.config.turn_bytes / MESSAGE).clamp(1, MESSAGES_MAX);
        batch.bytes.resize(messages * MESSAGE, 0);
        match self.slots.datagrams(key) {
            Some(socket) => socket.receive_batch(batch, &mut self.cx),
            None => Arrival::Nothing,
        }
    }

    /// One of those, and what is sent to its sender meanwhile leaves from where it was sent to.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_one_of_batch(&mut self, key: Key, bytes: usize, source: Option<SourceAddress>) -> Arrival {
        match self.slots.datagrams(key) {
            Some(socket) => {
                socket.socket.set_source(source);
                socket.receive_one_of_batch(bytes, &mut self.cx)
            }
            None => Arrival::Nothing,
        }
    }

    #[cfg(feature = "udp-batch")]
    pub(crate) fn end_batch(&mut self, key: Key) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.socket.set_source(None);
        }
    }

    /// Its turn is over.
    #[inline]
    pub(crate) fn end_datagrams(&mut self, key: Key) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.requeue(&mut self.cx);
        }
    }

    pub(crate) fn join_group(&mut self, key: Key, group: IpAddr, on: Interface) -> io::Result<()> {
        let joined = self.group_socket(key, group)?.join(group, on);
        joined.map_err(|error| io::Error::new(error.kind(), format!("cannot join {group}: {error}")))
    }

    pub(crate) fn leave_group(&mut self, key: Key, group: IpAddr, on: Interface) -> io::Result<()> {
        let left = self.group_socket(key, group)?.leave(group, on);
        left.map_err(|error| io::Error::new(error.kind(), format!("cannot leave {group}: {error}")))
    }

    fn group_socket(&mut self, key: Key, group: IpAddr) -> io::Result<&mut dyn PacketTransport> {
        if !group.is_multicast() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{group} is no multicast group")));
        }
        match self.slots.datagrams(key).filter(|socket| socket.is_open()) {
            Some(socket) => Ok(&mut *socket.socket),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("{key} is no datagram socket, or has begun to end"))),
        }
    }

    pub(crate) fn packet_socket(&self, key: Key) -> Option<SockRef<'_>> {
        match self.slots.get(key)? {
            Entry::Datagrams(socket) => socket.socket.socket(),
            _ => None,
        }
    }

    pub(crate) fn finish_datagrams(&mut self, key: Key, is_clean: bool) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.finish(is_clean, &mut self.cx);
        }
    }
}
