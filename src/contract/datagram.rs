//! [`Datagram`]: packets, each by itself, instead of a stream.

use super::{Core, Scope};
#[cfg(feature = "udp-batch")]
use crate::world::{Batch, MESSAGE, Message, SourceAddress};
use crate::{
    address::{Address, Target},
    bind::Bind,
    config::Config,
    endpoint::Arrival,
    key::Key,
    panics::{Payload, discard},
    reason::{Outcome, Reason},
    table::Table,
    world::PacketSocket,
};
use std::{
    any::Any,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

/// What one datagram socket does: UDP, a Unix datagram socket, or one of your own, [bound](crate::Net::bind).
///
/// ```text
/// (received | oversized | failed | writable | draining)* closed
/// ```
///
/// A datagram comes whole or not at all, by itself, and perhaps twice, late, or in another order. An `Err` ends the socket
/// with [`Reason::Failed`], a panic with [`Reason::Panicked`]; but do not return one because something is wrong with one
/// datagram: anybody may send one. The chapter is [datagrams](crate::manual::datagrams).
///
/// ```
/// # use mainspring::{Address, Datagram, Outcome, Scope};
/// struct Echo;
///
/// impl<S> Datagram<S> for Echo {
///     fn received(&mut self, scope: &mut Scope<'_, S>, _: &mut S, bytes: &[u8], _: &Address) -> Outcome {
///         scope.reply(bytes);
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a datagram for the state `{S}`",
    label = "this has to be a `Datagram<{S}>`",
    note = "write `impl Datagram<{S}> for {Self}`: its `received` is called with each datagram that comes",
    note = "for streams of bytes write a `Protocol`: `Net::listen` and `Net::connect` take one"
)]
#[allow(unused_variables)]
pub trait Datagram<S = ()>: Any {
    /// A datagram came, whole; it may be empty. [`Scope::reply`] answers it.
    ///
    /// # Errors
    /// They end the socket.
    fn received(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome;

    /// A datagram came that is longer than the socket takes ([`Bind::largest`]): these are its first bytes; the rest is
    /// lost. Default: it is dropped, and counted in [`Stats`](crate::Stats).
    ///
    /// # Errors
    /// They end the socket.
    fn oversized(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome {
        Ok(())
    }

    /// A datagram that was sent did not reach `to`: the kernel refused it, or a peer has said that nobody has that port
    /// (this is told only to a socket that is [connected](Bind::peer), and it is about some earlier datagram, nobody knows
    /// which). Or receiving failed. The socket stays. [The manual](crate::manual::errors#datagrams) says which error means
    /// what. Default: nothing.
    ///
    /// # Errors
    /// They end the socket.
    fn failed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, to: &Address, error: io::Error) -> Outcome {
        Ok(())
    }

    /// Something had to [wait](Bind::queue), and all of it has left. Default: nothing.
    ///
    /// # Errors
    /// They end the socket.
    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome {
        Ok(())
    }

    /// The reactor is being [drained](crate::Net::drain), and everything that is not a datagram socket has ended: finish
    /// what is under way, and [close](Scope::close). The grace is the time for it. Default: it [closes when it is
    /// quiet](Scope::close_when_quiet).
    ///
    /// # Errors
    /// They end the socket.
    fn draining(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome {
        scope.close_when_quiet();
        Ok(())
    }

    /// The end: the last callback, exactly once. What still waited has left if the kernel took it at once.
    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {}
}

/// The object behind a slot. It hands out no `&mut dyn Datagram<S>`, so `S` need not be `'static`.
pub(crate) trait AnyDatagram<S> {
    fn received(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome;
    fn oversized(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome;
    fn failed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, to: &Address, error: io::Error) -> Outcome;
    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome;
    fn draining(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome;
    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason);
    fn type_name(&self) -> &'static str;
}

impl<S, D: Datagram<S>> AnyDatagram<S> for D {
    fn received(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome {
        Datagram::received(self, scope, state, bytes, from)
    }

    fn oversized(&mut self, scope: &mut Scope<'_, S>, state: &mut S, bytes: &[u8], from: &Address) -> Outcome {
        Datagram::oversized(self, scope, state, bytes, from)
    }

    fn failed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, to: &Address, error: io::Error) -> Outcome {
        Datagram::failed(self, scope, state, to, error)
    }

    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome {
        Datagram::writable(self, scope, state)
    }

    fn draining(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Outcome {
        Datagram::draining(self, scope, state)
    }

    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {
        Datagram::closed(self, scope, state, why);
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }
}

/// Those of one reactor, made with the first. What is done with them is named here, so that a program that has none links
/// nothing of it.
pub(crate) struct Datagrams<S> {
    table: Table<Key, Box<dyn AnyDatagram<S>>>,
    /// The buffer that every socket receives into; made with the first datagram.
    buffer: Vec<u8>,
    #[cfg(feature = "udp-batch")]
    batch: Batch,
    pub(crate) serve: fn(&mut Core<S>, Key, &mut S),
    pub(super) send: fn(&mut Core<S>, Key, Option<&Address>, &[u8]) -> bool,
    pub(crate) finish: fn(&mut Core<S>, Key, Reason, &mut S) -> Result<(), Payload>,
    pub(super) discard: fn(&mut Self),
}

impl<S> Datagrams<S> {
    fn new() -> Self {
        Self {
            table: Table::default(),
            buffer: Vec::new(),
            #[cfg(feature = "udp-batch")]
            batch: Batch::default(),
            serve: Core::serve_datagrams,
            send: |core, key, to, bytes| core.hub.send_datagram(key, to, bytes),
            finish: Core::finish_datagrams,
            discard: Self::discard_all,
        }
    }

    pub(super) fn type_name(&self, key: Key) -> Option<&'static str> {
        Some(self.table.get(key)?.type_name())
    }

    fn discard_all(&mut self) {
        for (_, datagram) in self.table.take_all() {
            discard("a datagram", datagram);
        }
    }
}

/// The sender before a datagram has come: of the kind that nearly all are.
const NOBODY: Address = Address::Ip(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));

impl<S> Core<S> {
    pub(super) fn bind(&mut self, at: Option<&Target>, options: &Bind, datagram: Box<dyn AnyDatagram<S>>) -> io::Result<Key> {
        let key = self.hub.bind(at, options)?;
        self.keep_datagram(key, datagram);
        Ok(key)
    }

    pub(super) fn bind_on(&mut self, socket: PacketSocket, options: &Bind, datagram: Box<dyn AnyDatagram<S>>) -> io::Result<Key> {
        let key = self.hub.bind_on(socket, options)?;
        self.keep_datagram(key, datagram);
        Ok(key)
    }

    fn keep_datagram(&mut self, key: Key, datagram: Box<dyn AnyDatagram<S>>) {
        self.datagrams.get_or_insert_with(Datagrams::new).table.put(key, datagram);
    }

    pub(super) fn send_datagram(&mut self, key: Key, to: Option<&Address>, bytes: &[u8]) -> bool {
        let Some(send) = self.datagrams.as_ref().map(|all| all.send) else { return false };
        send(self, key, to, bytes)
    }

    /// Receives what has come, within the budgets; tells news of what was sent; sends what waits.
    fn serve_datagrams(&mut self, key: Key, state: &mut S) {
        let Some(all) = self.datagrams.as_mut() else { return };
        let Some((at, mut datagram)) = all.table.check_out(key) else { return };
        let mut all_buffers = std::mem::take(&mut all.buffer);
        let name = datagram.type_name();
        let room = self.hub.begin_datagrams_turn(key);
        if all_buffers.len() < room {
            all_buffers.resize(room, 0);
        }
        let buffer = &mut all_buffers[..room];
        let Config { turn_datagrams: mut left, turn_bytes: mut bytes_left, .. } = self.hub.cx.config;
        let mut from = NOBODY;
        while left > 0 && bytes_left > 0 {
            match self.hub.next_arrival(key, buffer, &mut from) {
                Arrival::Packet(bytes) => {
                    self.tell_datagram(key, name, "received", |core| {
                        datagram.received(&mut Scope::from(core, key, &from), state, &buffer[..bytes], &from)
                    });
                    (left, bytes_left) = (left - 1, bytes_left.saturating_sub(bytes));
                }
                Arrival::Nothing => break,
                #[cfg(feature = "udp-batch")]
                Arrival::Batch => {
                    let (datagrams, bytes) = self.tell_batch(key, &mut *datagram, state);
                    (left, bytes_left) = (left.saturating_sub(datagrams.max(1)), bytes_left.saturating_sub(bytes));
                }
                // A datagram that is kept does not take the place of what has come.
                other => {
                    left -= usize::from(!other.was_kept());
                    self.tell_rarely(key, &mut *datagram, other, state, buffer, &from);
                }
            }
            if self.hub.cx.is_share_spent() {
                break;
            }
        }
        if let Some(all) = self.datagrams.as_mut() {
            all.table.check_in(at, key, datagram);
            all.buffer = all_buffers;
        }
        self.hub.end_datagrams_turn(key);
    }

    #[inline]
    fn tell_datagram(
        &mut self,
        key: Key,
        name: &'static str,
        callback: &'static str,
        tell: impl FnOnce(&mut Core<S>) -> Outcome,
    ) {
        match self.run_guarded(Some(key), name, callback, |net| tell(net.core)) {
            Ok(Ok(())) => {}
            failed => _ = self.hub.obey(key, failed),
        }
    }

    #[inline(never)]
    fn tell_rarely(
        &mut self,
        key: Key,
        datagram: &mut dyn AnyDatagram<S>,
        arrival: Arrival,
        state: &mut S,
        buffer: &[u8],
        from: &Address,
    ) {
        let name = datagram.type_name();
        match arrival {
            Arrival::Oversized(bytes) => self.tell_datagram(key, name, "oversized", |core| {
                datagram.oversized(&mut Scope::from(core, key, from), state, &buffer[..bytes], from)
            }),
            Arrival::Failure(to, error) | Arrival::NotReceived(to, error) => {
                self.tell_datagram(key, name, "failed", |core| datagram.failed(&mut Scope::new(core, key), state, &to, error))
            }
            Arrival::Writable => {
                self.tell_datagram(key, name, "writable", |core| datagram.writable(&mut Scope::new(core, key), state));
            }
            Arrival::Draining => {
                self.tell_datagram(key, name, "draining", |core| datagram.draining(&mut Scope::new(core, key), state));
            }
            _ => unreachable!("these are not rare"),
        }
    }

    /// All that has come, joined by the kernel: how many datagrams, and how many bytes.
    #[cfg(feature = "udp-batch")]
    fn tell_batch(&mut self, key: Key, datagram: &mut dyn AnyDatagram<S>, state: &mut S) -> (usize, usize) {
        let mut batch = self.datagrams.as_mut().map(|all| std::mem::take(&mut all.batch)).unwrap_or_default();
        let mut told = (0, 0);
        match self.hub.receive_batch(key, &mut batch) {
            Arrival::Batch => {
                for (message, place) in batch.messages.iter().zip(batch.bytes.chunks(MESSAGE)) {
                    self.tell_message(key, datagram, message, &place[..message.bytes], state);
                    told.0 += message.bytes.div_ceil(message.stride.max(1)).max(1);
                    told.1 += message.bytes;
                }
                self.hub.set_datagram_source(key, None);
            }
            Arrival::Nothing => {}
            other => self.tell_rarely(key, datagram, other, state, &[], &NOBODY),
        }
        if let Some(all) = self.datagrams.as_mut() {
            all.batch = batch;
        }
        told
    }

    #[cfg(feature = "udp-batch")]
    fn tell_message(&mut self, key: Key, datagram: &mut dyn AnyDatagram<S>, message: &Message, bytes: &[u8], state: &mut S) {
        let (name, from) = (datagram.type_name(), &message.from);
        self.hub.set_datagram_source(key, message.to.zip(from.ip()).map(|(ours, to)| SourceAddress { ours, to }));
        let empty = bytes.is_empty().then_some(bytes);
        for one in bytes.chunks(message.stride.max(1)).chain(empty) {
            match self.hub.receive_one_of_batch(key, one.len()) {
                Arrival::Packet(_) => self.tell_datagram(key, name, "received", |core| {
                    datagram.received(&mut Scope::from(core, key, from).sent_to(message.to), state, one, from)
                }),
                Arrival::Oversized(bytes) => self.tell_datagram(key, name, "oversized", |core| {
                    datagram.oversized(&mut Scope::from(core, key, from).sent_to(message.to), state, &one[..bytes], from)
                }),
                _ => return,
            }
        }
    }

    fn finish_datagrams(&mut self, key: Key, why: Reason, state: &mut S) -> Result<(), Payload> {
        self.hub.cx.stats.closed.count(&why);
        self.hub.finish_datagrams(key, &why);
        let Some(mut datagram) = self.datagrams.as_mut().and_then(|all| all.table.remove(key)) else { return Ok(()) };
        let name = datagram.type_name();
        let closed = self.run_guarded(Some(key), name, "closed", |net| {
            datagram.closed(&mut Scope::new(net.core, key), state, why);
        });
        discard("a datagram", datagram);
        closed
    }
}
