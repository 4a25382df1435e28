//! Datagram sockets: opening them, sending by key, and the end of one.

use super::Hub;
use crate::{
    address::{Address, Target},
    bind::Bind,
    endpoint::{Arrival, DatagramSocket, Entry},
    key::Key,
    reason::Reason,
    world::{Interface, Opened, PacketSocket, PacketTransport},
};
#[cfg(feature = "udp-batch")]
use crate::{
    config::Config,
    world::{Batch, MESSAGE, MESSAGES_MAX, SourceAddress},
};
use socket2::SockRef;
use std::{io, net::IpAddr};

/// The kernel joins at most this many datagrams (UDP_MAX_SEGMENTS of Linux).
#[cfg(feature = "udp-batch")]
const JOINED_MAX: usize = 64;

impl Hub {
    pub(crate) fn bind(&mut self, at: Option<&Target>, options: &Bind) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let how = options.how(at)?;
        match self.open(|cx, key| cx.world.bind(&how, key.token())) {
            Ok((key, opened)) => Ok(self.admit_datagrams(key, opened, options)),
            Err(error) => {
                let text = match (&how.at, &how.peer) {
                    (None, Some(peer)) => format!("cannot exchange datagrams with {peer}: {error}"),
                    (at, _) => format!("cannot take datagrams on {}: {error}", at.as_ref().unwrap_or(&Address::Fd)),
                };
                Err(io::Error::new(error.kind(), text))
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
        if self.drains_datagrams() {
            self.owe_datagrams_draining(key);
        }
        key
    }

    pub(super) fn owe_datagrams_draining(&mut self, key: Key) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.owe_draining(&mut self.cx);
        }
    }

    /// Returns whether it has left, waits, or will be told as failed.
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

    /// Its turn begins: what waits leaves. Returns how large a buffer it needs.
    #[inline]
    pub(crate) fn begin_datagrams_turn(&mut self, key: Key) -> usize {
        self.cx.lent.has_spent = false;
        let Some(socket) = self.slots.datagrams(key) else { return 0 };
        socket.begin_turn(&mut self.cx);
        socket.room()
    }

    /// Whatever has come, at once.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_batch(&mut self, key: Key, batch: &mut Batch) -> Arrival {
        let Config { turn_bytes, turn_datagrams, turn_time, .. } = self.cx.config;
        // Each has up to 64 datagrams, and none of them can be left for the next turn.
        let most = (turn_bytes / MESSAGE).min(turn_datagrams / JOINED_MAX);
        let messages = if turn_time.is_some() { 1 } else { most.clamp(1, MESSAGES_MAX) };
        batch.bytes.resize(messages * MESSAGE, 0);
        match self.slots.datagrams(key) {
            Some(socket) => socket.receive_batch(batch, &mut self.cx),
            None => Arrival::Nothing,
        }
    }

    /// While those of one message are told: what is sent to their sender leaves from the address that they were sent to.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn set_datagram_source(&mut self, key: Key, source: Option<SourceAddress>) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.socket.set_source(source);
        }
    }

    /// One of those.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_one_of_batch(&mut self, key: Key, bytes: usize) -> Arrival {
        match self.slots.datagrams(key) {
            Some(socket) => socket.receive_one_of_batch(bytes, &mut self.cx),
            None => Arrival::Nothing,
        }
    }

    /// Its turn is over: what has failed in it is told in the next one.
    #[inline]
    pub(crate) fn end_datagrams_turn(&mut self, key: Key) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.requeue(&mut self.cx);
        }
    }

    pub(crate) fn close_datagrams_when_quiet(&mut self, key: Key) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.close_when_quiet(&mut self.cx);
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
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{group} is not a multicast group")));
        }
        match self.slots.datagrams(key).filter(|socket| socket.is_open()) {
            Some(socket) => Ok(&mut *socket.socket),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("{key} is not a datagram socket, or has begun to end"))),
        }
    }

    pub(crate) fn packet_socket(&self, key: Key) -> Option<SockRef<'_>> {
        match self.slots.get(key)? {
            Entry::Datagrams(socket) => socket.socket.socket(),
            _ => None,
        }
    }

    pub(crate) fn finish_datagrams(&mut self, key: Key, why: &Reason) {
        if let Some(socket) = self.slots.datagrams(key) {
            socket.finish(why, &mut self.cx);
        }
    }
}
