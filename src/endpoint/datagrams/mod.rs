//! One datagram socket: what waits to be sent, and what is to be told. No callback is called here.

mod queue;

#[cfg(feature = "udp-batch")]
use crate::world::Batch;
use crate::{
    address::Address,
    bind::{Bind, Full, LARGEST},
    cx::Cx,
    flags::*,
    key::Key,
    panics::discard,
    reason::Reason,
    stats::{Connection, Kind},
    world::{Opened, PacketTransport},
};
use queue::{Queue, Waiting, cost};
use std::{collections::VecDeque, io};

/// This many datagrams that did not reach anybody are told one by one; others until then are only counted.
const FAILURES_MAX: usize = 64;

/// A drain counts a socket as quiet when it has received this many more, whatever still comes: more than the system keeps
/// for it.
const ARRIVED_MAX: u32 = 1 << 16;

/// Fewer errors of receiving in a row than this do not end it, however few datagrams a turn has.
const ERRORS_MIN: usize = 16;

pub(crate) struct DatagramSocket {
    pub(crate) key: Key,
    pub(crate) socket: Box<dyn PacketTransport>,
    pub(crate) local: Address,
    pub(crate) peer: Option<Box<Address>>,
    /// Of `READABLE`, `WRITABLE`: what the selector has said and nothing has contradicted. `FAILED`: failures are to be
    /// told. `OWES_WRITABLE`, `OWES_DRAINING`, `WAITS_FOR_QUIET`. And `IN_READY`, `IN_DIRTY`, `SHUT`.
    pub(crate) flags: Flags,
    /// How many of the failures are told in this turn: those that were there when it began.
    failures_due: u8,
    full: Full,
    /// At most `LARGEST`.
    largest: u16,
    queue_max: usize,
    /// What the kernel would not take. While it is not empty, everything goes behind it. Not empty ⇔ room is reported.
    /// queue.cost() <= queue_max
    queue: Queue,
    /// Between turns: FAILED ⇔ not empty, or SHUT
    #[allow(clippy::box_collection, reason = "an empty list is three words of each socket, and hardly one has any")]
    failures: Option<Box<VecDeque<(Address, io::Error)>>>,
    /// Errors of receiving since one came, one left, or nothing was there.
    errors: u32,
    /// WAITS_FOR_QUIET ⇒ it ends when this many more have come, at the latest.
    arrived_max: u32,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What there is to tell.
pub(crate) enum Arrival {
    /// This many bytes of a datagram are in the buffer.
    Packet(usize),
    /// The same for one that has more.
    Oversized(usize),
    /// One that was sent did not reach this address.
    Failure(Address, io::Error),
    /// Receiving failed.
    NotReceived(Address, io::Error),
    Writable,
    Draining,
    /// Many are to be received at once: [`DatagramSocket::receive_batch`].
    #[cfg(feature = "udp-batch")]
    Batch,
    /// Nothing now.
    Nothing,
}

/// For IP it is always news, and never about the one that is being sent.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// It says that a datagram that was sent did not arrive, and nothing about this socket.
fn is_of_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

/// The same may be sent again.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Arrival {
    /// It did not just come.
    pub(crate) fn was_kept(&self) -> bool {
        matches!(self, Self::Failure(..) | Self::Writable | Self::Draining)
    }
}

impl DatagramSocket {
    pub(crate) fn new(key: Key, opened: Opened, options: &Bind) -> Self {
        let Opened { socket, local, peer } = opened;
        let mut flags = WRITABLE;
        flags.insert_if(BATCHES, socket.batches());
        Self {
            key,
            socket,
            local,
            peer: peer.map(Box::new),
            flags,
            failures_due: 0,
            full: options.full,
            largest: options.largest.min(LARGEST) as u16,
            queue_max: options.queue,
            queue: Queue::default(),
            failures: None,
            errors: 0,
            arrived_max: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[inline]
    fn largest(&self) -> usize {
        self.largest.into()
    }

    fn failures_len(&self) -> usize {
        self.failures.as_ref().map_or(0, |failures| failures.len())
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.flags.has_any(SHUT)
    }

    #[inline]
    pub(crate) fn can_progress(&self) -> bool {
        let is_told = self.flags.has_any(READABLE | FAILED | OWES_WRITABLE | OWES_DRAINING);
        self.is_open() && (is_told || self.can_send() || self.is_quiet())
    }

    /// Something waits, and there may be room for it.
    #[inline]
    fn can_send(&self) -> bool {
        self.flags.has_any(WRITABLE) && !self.queue.is_empty()
    }

    /// An event. An error is found by reading.
    #[inline]
    pub(crate) fn note(&mut self, ready: Flags) {
        self.flags.insert(ready.only(READABLE | WRITABLE));
    }

    pub(crate) fn describe(&self, name: &'static str) -> Connection {
        Connection {
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queued: self.queue.cost(),
            is_connected: self.peer.is_some(),
            is_ending: !self.is_open(),
            is_congested: !self.queue.is_empty(),
            ..Connection::new(self.key, Kind::Datagrams, name, self.peer.as_deref().unwrap_or(&self.local).clone())
        }
    }

    // -------------------------------------------------------------------------------------------------- receiving

    /// How large a buffer it needs: one byte more than is taken, so that a longer datagram is recognised. (Windows has an
    /// error for that, without the sender's address.)
    pub(crate) fn room(&self) -> usize {
        1 + if cfg!(windows) { LARGEST } else { self.largest() }
    }

    /// Its turn begins: what waits leaves.
    #[inline]
    pub(crate) fn begin_turn(&mut self, cx: &mut Cx) {
        if self.can_send() {
            self.flush(cx);
        }
        if self.flags.has_any(FAILED) {
            self.failures_due = self.failures_len() as u8; // no more than FAILURES_MAX
        }
    }

    /// The next thing to tell. A datagram is in the buffer.
    #[inline]
    pub(crate) fn next_arrival(&mut self, buffer: &mut [u8], from: &mut Address, cx: &mut Cx) -> Arrival {
        if self.flags.has_just(READABLE, READABLE | UNUSUAL_OF_DATAGRAMS) {
            self.receive(buffer, from, cx)
        } else {
            self.next_rare_arrival(buffer, from, cx)
        }
    }

    #[inline]
    fn receive(&mut self, buffer: &mut [u8], from: &mut Address, cx: &mut Cx) -> Arrival {
        match self.socket.recv_from(buffer, from) {
            Ok(bytes) if bytes <= self.largest() => {
                self.count_received(bytes, cx);
                Arrival::Packet(bytes)
            }
            Ok(_) => self.received_oversized(cx),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_no_more(),
            Err(error) => self.not_received(error, cx),
        }
    }

    /// What does not happen every day comes first.
    #[cold]
    fn next_rare_arrival(&mut self, buffer: &mut [u8], from: &mut Address, cx: &mut Cx) -> Arrival {
        if !self.is_open() {
            return Arrival::Nothing;
        }
        if let Some((to, error)) = self.next_failure() {
            return Arrival::Failure(to, error);
        }
        if self.flags.has_any(OWES_WRITABLE) {
            self.flags.remove(OWES_WRITABLE);
            return Arrival::Writable;
        }
        if self.flags.has_any(OWES_DRAINING) {
            self.flags.remove(OWES_DRAINING);
            return Arrival::Draining;
        }
        if self.ends_because_it_is_quiet(cx) || !self.flags.has_any(READABLE) {
            return Arrival::Nothing;
        }
        #[cfg(feature = "udp-batch")]
        if self.flags.has_any(BATCHES) {
            return Arrival::Batch;
        }
        self.count_arrived();
        let arrival = self.receive(buffer, from, cx);
        if let Arrival::Nothing = arrival {
            self.ends_because_it_is_quiet(cx);
        }
        arrival
    }

    fn next_failure(&mut self) -> Option<(Address, io::Error)> {
        self.failures_due = self.failures_due.checked_sub(1)?;
        let failure = self.failures.as_mut()?.pop_front();
        if self.failures_len() == 0 {
            self.failures = None;
            self.flags.remove(FAILED);
        }
        failure
    }

    #[inline]
    fn has_no_more(&mut self) -> Arrival {
        self.errors = 0;
        self.flags.remove(READABLE);
        Arrival::Nothing
    }

    /// As many at once as there is room for. [`Arrival::Batch`]: they are in it.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_batch(&mut self, batch: &mut Batch, cx: &mut Cx) -> Arrival {
        match self.socket.recv_batch(batch) {
            Ok(()) => Arrival::Batch,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.has_no_more();
                self.ends_because_it_is_quiet(cx);
                Arrival::Nothing
            }
            Err(error) => self.not_received(error, cx),
        }
    }

    /// One of them; `None` if it is not to be told any more.
    #[cfg(feature = "udp-batch")]
    pub(crate) fn receive_one_of_batch(&mut self, bytes: usize, cx: &mut Cx) -> Arrival {
        self.count_arrived();
        if !self.is_open() {
            Arrival::Nothing
        } else if bytes > self.largest() {
            self.received_oversized(cx)
        } else {
            self.count_received(bytes, cx);
            Arrival::Packet(bytes)
        }
    }

    #[inline]
    fn count_received(&mut self, bytes: usize, cx: &mut Cx) {
        self.errors = 0;
        self.bytes_in += bytes as u64;
        cx.stats.datagrams_in += 1;
    }

    #[inline(never)]
    fn received_oversized(&mut self, cx: &mut Cx) -> Arrival {
        self.count_received(self.largest(), cx);
        cx.stats.datagrams_oversized += 1;
        Arrival::Oversized(self.largest())
    }

    #[cold]
    fn not_received(&mut self, error: io::Error, cx: &mut Cx) -> Arrival {
        match error.kind() {
            io::ErrorKind::Interrupted => return Arrival::Nothing, // the next turn tries again
            io::ErrorKind::UnexpectedEof => _ = self.end(Reason::Eof, cx),
            _ => {
                self.errors += u32::from(!is_of_the_way(&error)); // Winsock may report one for each sent
                if (self.errors as usize) < cx.config.turn_datagrams.max(ERRORS_MIN) {
                    return Arrival::NotReceived(self.peer.as_deref().cloned().unwrap_or(Address::Fd), error);
                }
                self.end(Reason::Io(error), cx);
            }
        }
        Arrival::Nothing
    }

    // --------------------------------------------------------------------------------------------------- draining

    /// `draining` is to be told.
    pub(crate) fn owe_draining(&mut self, cx: &mut Cx) {
        self.flags.insert(OWES_DRAINING);
        self.requeue(cx);
    }

    /// It ends once what had come is received, nothing waits to be sent, and what has failed is told.
    pub(crate) fn close_when_quiet(&mut self, cx: &mut Cx) {
        if self.is_open() && !self.flags.mark(WAITS_FOR_QUIET) {
            self.arrived_max = ARRIVED_MAX;
            self.flags.insert(READABLE); // it has to be asked in any case
            self.requeue(cx);
        }
    }

    /// It is waiting to be quiet, and now it is.
    #[inline]
    fn is_quiet(&self) -> bool {
        let waits = self.flags.has_any(WAITS_FOR_QUIET);
        waits && !self.flags.has_any(READABLE | FAILED | OWES_WRITABLE) && self.queue.is_empty()
    }

    fn ends_because_it_is_quiet(&mut self, cx: &mut Cx) -> bool {
        let ends = self.is_open() && self.is_quiet();
        if ends {
            self.end(Reason::Drained, cx);
        }
        ends
    }

    /// One more has come, or may have: after a number of them it does not wait for others.
    fn count_arrived(&mut self) {
        if self.flags.has_any(WAITS_FOR_QUIET) {
            self.arrived_max = self.arrived_max.saturating_sub(1);
            if self.arrived_max == 0 {
                self.flags.remove(READABLE);
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------- sending

    /// There is somebody to send it to.
    #[inline]
    fn may_send(&self, to: Option<&Address>) -> bool {
        self.is_open() && (to.is_some() || self.peer.is_some())
    }

    /// At once if nothing waits. Returns whether it has left, is queued, or will be told as failed.
    #[inline]
    pub(crate) fn send(&mut self, to: Option<&Address>, bytes: &[u8], cx: &mut Cx) -> bool {
        if !self.may_send(to) {
            return false;
        }
        if !self.queue.is_empty() {
            return self.enqueue(to, bytes, cx);
        }
        match self.socket.send_to(bytes, to) {
            Ok(()) => {
                self.count_sent(bytes, cx);
                true
            }
            Err(error) => self.not_sent(to, bytes, error, cx),
        }
    }

    /// It may be news of an earlier one, which a send hears of first if no receive came between (udp(7)). Then this one has
    /// not been tried, and goes through now.
    fn send_behind_news(&mut self, to: Option<&Address>, bytes: &[u8], news: io::Error, cx: &mut Cx) -> io::Result<()> {
        if !self.socket.hears_news() || is_transient(&news) {
            return Err(news);
        }
        let sent = self.socket.send_to(bytes, to);
        let is_again = sent.as_ref().err().is_some_and(|error| error.raw_os_error() == news.raw_os_error());
        if !is_again || is_refusal(&news) {
            self.fail(None, news, cx);
        }
        sent
    }

    #[inline]
    fn count_sent(&mut self, bytes: &[u8], cx: &mut Cx) {
        self.errors = 0;
        self.bytes_out += bytes.len() as u64;
        cx.stats.datagrams_out += 1;
    }

    #[inline(never)]
    fn not_sent(&mut self, to: Option<&Address>, bytes: &[u8], error: io::Error, cx: &mut Cx) -> bool {
        match self.send_behind_news(to, bytes, error, cx) {
            Ok(()) => {
                self.count_sent(bytes, cx);
                true
            }
            Err(error) if is_transient(&error) => self.enqueue(to, bytes, cx),
            Err(error) => {
                self.drop_failed(to, error, cx);
                true
            }
        }
    }

    /// This one will not leave.
    fn drop_failed(&mut self, to: Option<&Address>, error: io::Error, cx: &mut Cx) {
        cx.stats.datagrams_dropped += 1;
        self.fail(to, error, cx);
    }

    /// A datagram did not reach anybody. It is told in a later turn, because a callback may be running.
    fn fail(&mut self, to: Option<&Address>, error: io::Error, cx: &mut Cx) {
        if self.failures_len() < FAILURES_MAX {
            let is_of_peer = is_refusal(&error) && self.socket.hears_news();
            let to = to.filter(|_| !is_of_peer).or(self.peer.as_deref()).cloned().unwrap_or(Address::Fd);
            self.failures.get_or_insert_default().push_back((to, error));
            self.flags.insert(FAILED);
        }
        self.requeue(cx);
    }

    fn enqueue(&mut self, to: Option<&Address>, bytes: &[u8], cx: &mut Cx) -> bool {
        let needs = cost(bytes);
        while self.full == Full::DropOldest && needs <= self.queue_max && self.queue.cost() + needs > self.queue_max {
            drop(self.queue.pop_front());
            cx.stats.datagrams_dropped += 1;
        }
        if self.queue.cost() + needs > self.queue_max {
            cx.stats.datagrams_dropped += 1;
            if self.full == Full::Close {
                self.end(Reason::Overflow, cx);
            }
            return false;
        }
        if self.queue.is_empty() && !self.wait_for_room(cx) {
            return false;
        }
        self.queue.push_back(Waiting {
            to: to.cloned(),
            bytes: bytes.into(),
            #[cfg(feature = "udp-batch")]
            source: self.socket.source_of(to),
        });
        true
    }

    /// Many of one size, the last perhaps shorter. Returns whether each has left, waits, or will be told as failed.
    pub(crate) fn send_segments(&mut self, to: Option<&Address>, bytes: &[u8], segment: usize, cx: &mut Cx) -> bool {
        if segment == 0 || !self.may_send(to) {
            return false;
        }
        let mut rest = bytes;
        while self.queue.is_empty() && !rest.is_empty() {
            match self.socket.send_segments(rest, segment, to) {
                Ok(sent) => {
                    self.errors = 0;
                    self.bytes_out += sent as u64;
                    cx.stats.datagrams_out += sent.div_ceil(segment) as u64;
                    rest = &rest[sent..];
                }
                Err(error) => {
                    let (first, behind) = rest.split_at(segment.min(rest.len()));
                    rest = behind;
                    if !self.not_sent(to, first, error, cx) {
                        cx.stats.datagrams_dropped += behind.len().div_ceil(segment) as u64;
                        return false;
                    }
                }
            }
        }
        let mut behind = rest.chunks(segment);
        let are_queued = behind.all(|one| self.enqueue(to, one, cx));
        cx.stats.datagrams_dropped += behind.len() as u64; // besides the one that had no room
        are_queued
    }

    /// `false`: the selector does not tell, and that is its end.
    fn wait_for_room(&mut self, cx: &mut Cx) -> bool {
        self.flags.remove(WRITABLE | OWES_WRITABLE); // what is owed is told when this has left, too
        match self.socket.want_writable(true) {
            Ok(()) => true,
            Err(error) => {
                self.end(Reason::Io(error), cx);
                false
            }
        }
    }

    /// What waits leaves, as far as the kernel takes it, but no more than a number of them.
    #[inline(never)]
    fn flush(&mut self, cx: &mut Cx) {
        for _ in 0..cx.config.turn_datagrams {
            if !self.can_send() {
                return;
            }
            self.flush_one(cx);
        }
    }

    fn flush_one(&mut self, cx: &mut Cx) {
        let Some(first) = self.queue.pop_front() else { return };
        let to = first.to.as_ref();
        #[cfg(feature = "udp-batch")]
        self.socket.set_source(first.source);
        let sent = self.socket.send_to(&first.bytes, to);
        let sent = sent.or_else(|error| self.send_behind_news(to, &first.bytes, error, cx));
        #[cfg(feature = "udp-batch")]
        self.socket.set_source(None);
        match sent {
            Ok(()) => self.count_sent(&first.bytes, cx),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.queue.push_front(first),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.flags.remove(WRITABLE);
                return self.queue.push_front(first);
            }
            Err(error) => self.drop_failed(first.to.as_ref(), error, cx),
        }
        if self.queue.is_empty() {
            self.queue.give_back();
            self.flags.insert(OWES_WRITABLE);
            self.flags.insert_if(READABLE, self.flags.has_any(WAITS_FOR_QUIET)); // perhaps it is quiet now
            if let Err(error) = self.socket.want_writable(false) {
                self.end(Reason::Io(error), cx);
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------- the end

    #[inline]
    pub(crate) fn requeue(&mut self, cx: &mut Cx) {
        if self.can_progress() && !self.flags.mark(IN_READY) {
            cx.lists.ready.push(self.key);
        }
    }

    /// Begins to end; returns whether this is the cause. `closed` comes at the end of the turn.
    pub(crate) fn end(&mut self, reason: Reason, cx: &mut Cx) -> bool {
        if self.flags.mark(SHUT) {
            discard("an error that came too late", reason);
            return false;
        }
        cx.lists.closing.push_back((self.key, reason));
        true
    }

    /// Nothing is told any more. What waits leaves if the kernel takes it now: nobody waits for that.
    pub(crate) fn finish(&mut self, why: &Reason, cx: &mut Cx) {
        if why.is_clean() || why.allows_last_write() {
            self.flags.insert(WRITABLE);
            // Twice as often as there are some, and not until all have left: a send may be interrupted again and again.
            for _ in 0..2 * self.queue.len() {
                if !self.can_send() {
                    break;
                }
                self.flush_one(cx);
            }
        }
        cx.stats.datagrams_dropped += self.queue.len() as u64;
    }

    #[cfg(debug_assertions)]
    pub(crate) fn assert_sound(&self) {
        let key = self.key;
        self.queue.assert_sound();
        assert!(self.queue.cost() <= self.queue_max, "{key} keeps more than it may");
        assert!(self.failures_len() <= FAILURES_MAX);
        assert!(self.flags.has_any(SHUT) || self.flags.has_any(FAILED) == (self.failures_len() > 0), "{key} tells what failed");
        let waits = !self.queue.is_empty();
        assert!(self.flags.has_any(WRITABLE | SHUT) || waits, "{key} waits for room, and has nothing to send");
    }
}
