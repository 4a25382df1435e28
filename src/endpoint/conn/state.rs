//! What is true of a connection, and what follows from it: questions about its phase and flags, which change nothing.

use super::{Conn, Phase};
#[cfg(feature = "tls")]
use crate::secured::Tls;
use crate::{
    config::Marks,
    cx::Cx,
    flags::*,
    framing::Framing,
    key::Key,
    stats::{Connection, Kind, timeouts},
    stopwatch::Situation,
    time::Time,
    world::{Stream, Ways},
};
use std::{io, net::SocketAddr};

/// The common case, told apart by one compare each.
impl Conn {
    /// The common case, recognised by one compare: it talks, and nothing is out of the ordinary. `ready`: what else has to
    /// be true.
    #[inline]
    fn is_plain(&self, ready: Flags) -> bool {
        self.flags.has_just(ESTABLISHED | ready, ESTABLISHED | ready | UNUSUAL)
    }

    #[inline]
    pub(crate) fn is_plainly_readable(&self) -> bool {
        self.is_plain(READABLE)
    }

    #[inline]
    pub(crate) fn is_plainly_writable(&self) -> bool {
        self.is_plain(WRITABLE) && self.output.is_some()
    }

    /// All output has left, and nothing was waiting for that.
    #[inline]
    pub(crate) fn is_plainly_sent(&self) -> bool {
        self.is_plain(ESTABLISHED) && self.output.is_none()
    }

    #[inline]
    pub(crate) fn takes_plainly(&self, bytes: usize, default: Marks) -> bool {
        self.is_plain(ESTABLISHED) && self.queued().saturating_add(bytes) <= self.marks(default).high
    }

    /// Nothing has to be done for it, and nothing has to be timed.
    #[inline]
    pub(crate) fn is_plainly_idle(&self) -> bool {
        self.is_plainly_sent() && !self.is(READABLE)
    }
}

/// What it could do next.
impl Conn {
    /// Neither connecting nor ending.
    pub(crate) fn is_talking(&self) -> bool {
        self.is_open() && self.is_settled()
    }

    /// Connected, and secured if it is to be.
    pub(crate) fn is_settled(&self) -> bool {
        self.flags.has_just(ESTABLISHED, ESTABLISHED | SHAKING)
    }

    /// The rule that carries everything under edge triggering: it is on the ready queue exactly when it could make progress.
    pub(crate) fn can_progress(&self) -> bool {
        let can_flush = self.can_write() && self.has_writable_output();
        match self.phase {
            Phase::Open | Phase::Flushing if !self.is(ESTABLISHED) => {
                (self.stream.is_some() || self.is_racing()) && (self.is(WRITABLE | FAILED) || self.is_ready_to_shake())
            }
            Phase::Open => {
                let is_owed = self.is(OWES_CONNECTED) || self.may_be_told_draining() || self.may_be_told_writable();
                let is_lost = self.is(FAILED) || self.write_error().is_some();
                is_owed || is_lost || can_flush || self.can_send_fin() || (self.has_input() && self.reads())
            }
            Phase::Flushing => can_flush || self.is(FAILED),
            Phase::Guest => self.is_ready_to_shake(),
            Phase::Ended => false,
            Phase::Lingering => can_flush || self.can_send_fin() || self.is(READABLE | FAILED),
        }
    }

    /// Its handshake may go on.
    fn is_ready_to_shake(&self) -> bool {
        self.is(SHAKING) && self.is(READABLE | WRITABLE | FAILED)
    }

    /// Its side is to end, in words for which there was no room.
    fn can_send_fin(&self) -> bool {
        let is_due = self.phase == Phase::Lingering || (self.is(FIN_ASKED) && !self.is(CUT | SHAKING));
        is_due && !self.is(FIN_SENT) && self.output.is_none() && self.can_write()
    }

    /// Whether its handler is to be called: something is owed to it, or there may be input for it.
    pub(crate) fn wants_callback(&self) -> bool {
        if !self.is_talking() {
            return false;
        }
        let is_owed = self.is(OWES_CONNECTED) || self.may_be_told_draining();
        is_owed || self.write_error().is_some() || (self.has_input() && self.reads())
    }

    /// Whether there may be something to deliver, if it may be delivered.
    pub(crate) fn has_input(&self) -> bool {
        self.is(MAY_HAVE_FRAME) || self.may_read() || (self.is(EOF_SEEN) && !self.is(EOF_TOLD))
    }

    /// Whether there may be something to read, and its rate allows it. What a lost connection still has comes at once.
    pub(crate) fn may_read(&self) -> bool {
        self.flags.has_just(READABLE, READABLE | SPENT_IN) || (self.is(READABLE) && self.is(LOST))
    }

    /// Whether what is sent is queued; otherwise it is refused.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.is_open() && !self.is(FIN_ASKED) && self.write_error().is_none()
    }

    /// Whether `writable` is owed, and makes sense.
    pub(crate) fn may_be_told_writable(&self) -> bool {
        self.is(OWES_WRITABLE) && self.is_settled() && !self.is(OWES_CONNECTED) && self.takes_output() && !self.is(CONGESTED)
    }

    /// Whether `draining` is owed, and what had arrived before is delivered; or its protocol has paused and does not want
    /// it, or its rate delays it, perhaps for hours.
    pub(crate) fn may_be_told_draining(&self) -> bool {
        let waits = !self.is(PAUSED | SPENT_IN) && self.has_unread() && !self.has_come_since_drain();
        self.is(OWES_DRAINING) && self.is_talking() && !waits
    }

    /// Whether there may be something that was not delivered, whatever prevents that.
    fn has_unread(&self) -> bool {
        self.is(READABLE | MAY_HAVE_FRAME) || (self.is(EOF_SEEN) && !self.is(EOF_TOLD))
    }

    /// More than can have arrived when the drain began.
    fn has_come_since_drain(&self) -> bool {
        self.odds().is_some_and(|odds| self.bytes_in >= odds.drains_at)
    }

    pub(crate) fn closes_when_quiet(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.closes_when_quiet)
    }

    /// Nothing is under way here: everything is read, delivered, answered and sent, as far as the loop can tell.
    pub(crate) fn is_quiet(&self, cx: &Cx) -> bool {
        let is_owed_writable = self.is(OWES_WRITABLE) && self.takes_output();
        let waits = self.is(OWES_CONNECTED | OWES_DRAINING | HELD | PAUSED) || is_owed_writable || self.tells > 0;
        let waits = waits || self.is_saving();
        let is_amid_frame = self.framing.is_amid(0) || self.framing.is_skipping() || self.is_amid_stream();
        let is_amid_record = self.stream.as_ref().is_some_and(Stream::is_amid_input);
        let is_amid_input = self.has_unread() || self.held.is_some() || is_amid_frame || is_amid_record;
        // A peer that has only finished asking waits for the answer.
        let has_one_end = self.ways() == Ways::Both && !self.has_lost_writer() && self.is(EOF_TOLD) != self.is(FIN_ASKED);
        self.is_talking()
            && !waits
            && !is_amid_input
            && !has_one_end
            && self.output.is_none()
            && self.write_error().is_none()
            && !cx.threads.has_work_of(self.key)
    }

    /// What the end of the stream means to a protocol that wants a whole frame; `None` if the stream is one.
    pub(crate) fn cut_short(&self) -> Option<io::Error> {
        let is_one = matches!(self.framing, Framing::None);
        (!is_one).then(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a frame"))
    }

    /// In which directions it goes.
    pub(super) fn ways(&self) -> Ways {
        self.stream.as_ref().map_or(Ways::Both, Stream::ways)
    }

    /// A write that fails says nothing of what can still be read; but a connection that is to speak TLS needs both.
    pub(super) fn writes_apart(&self) -> bool {
        !self.is(SHAKING) && self.stream.as_ref().is_some_and(Stream::writes_apart)
    }

    /// Nobody reads what it writes any more; it is still read.
    pub(crate) fn has_lost_writer(&self) -> bool {
        self.odds().is_some_and(|odds| odds.has_lost_writer)
    }

    pub(crate) fn is_detaching(&self) -> bool {
        self.odds().is_some_and(|odds| odds.hand_over.is_some())
    }

    /// Whether it can be given back with everything that belongs to it.
    pub(super) fn can_be_detached(&self) -> bool {
        let has_failed = self.write_error().is_some() || self.odds().is_some_and(|odds| odds.lost_output.is_some());
        let has_producers = self.output.as_ref().is_some_and(|output| output.producers() > 0);
        let is_bound = self.mate().is_some() || self.is_saving() || has_producers;
        let is_known = !self.is(OWES_CONNECTED); // its protocol has been told of it
        self.is_talking() && is_known && !has_failed && !is_bound && self.stream.as_ref().is_some_and(Stream::detaches)
    }

    /// The connection it is paired with.
    #[inline]
    pub(crate) fn mate(&self) -> Option<Key> {
        self.known_ties()?.mate
    }

    /// What it receives is written elsewhere.
    pub(crate) fn is_saving(&self) -> bool {
        self.odds().is_some_and(|odds| odds.is_saving)
    }

    /// Where what it receives goes, as long as no terminator cuts it for its protocol.
    pub(crate) fn forwards_to(&self) -> Option<Key> {
        self.mate().filter(|_| matches!(self.framing, Framing::None) && !self.is_saving())
    }

    /// How much more can be sent to it before it is congested, and the byte that makes it so; 0 if it is.
    pub(crate) fn room_below_high(&self, default: Marks) -> usize {
        let high = self.marks(default).high;
        if self.is(CONGESTED) { 0 } else { (high + 1).saturating_sub(self.queued()) }
    }

    /// Without a terminator the stream is one frame, which may be over when it was answered. The same goes for what a length
    /// that was set is for; a stream of a length is not over before that.
    fn is_amid_stream(&self) -> bool {
        let is_begun = match self.framing {
            // What was answered through a pair is perhaps no answer to anything, or not the last part of it.
            Framing::None if self.mate().is_some() => self.bytes_in > 0,
            Framing::None => self.is(UNANSWERED),
            Framing::Length { bytes, .. } => bytes > 0 && self.is(UNANSWERED),
            Framing::Stream { left, .. } => left > 0,
            _ => false,
        };
        is_begun && !self.is(EOF_TOLD)
    }

    /// Whether a write may be tried now.
    #[inline]
    pub(crate) fn can_write(&self) -> bool {
        let is_possible = self.flags.has_just(ESTABLISHED | WRITABLE, ESTABLISHED | WRITABLE | SPENT_OUT);
        is_possible && self.phase != Phase::Ended && self.write_error().is_none()
    }

    /// Whether it may be tried with any number of bytes.
    #[inline]
    pub(crate) fn can_write_all(&self) -> bool {
        !self.is(RATED_OUT) && self.can_write()
    }

    /// Reading is on when all of these are off: the user's pause and holds, its own congestion, a congested throttle target.
    /// What a lost connection has received does not wait for others.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        !self.is(PAUSED | HELD | SHAKING) && !self.is_held_back() && (self.is(LOST) || !self.is(THROTTLED))
    }

    /// Its own output is congested, and it asked not to be read meanwhile.
    #[inline]
    pub(crate) fn is_held_back(&self) -> bool {
        self.flags.has_just(CONGESTED | HOLDS_BACK, CONGESTED | HOLDS_BACK)
    }

    /// Nobody reads it who could meet its end behind the last bytes.
    pub(crate) fn is_not_read_on(&self) -> bool {
        self.is(PAUSED | HELD | SHAKING) || self.is_held_back()
    }

    /// Whether there is something that can be written now, or made.
    pub(crate) fn has_writable_output(&self) -> bool {
        self.output.as_ref().is_some_and(|output| !output.is_parked())
    }

    pub(crate) fn situation(&self) -> Situation {
        let held = self.held.as_ref().map_or(0, |held| held.len());
        // For its rate, or because of its few frames in a turn.
        let waits = if self.is(LOST) { self.is(READABLE | MAY_HAVE_FRAME) } else { self.is(SPENT_IN) };
        Situation {
            is_established: self.is_settled(),
            owes_connected: self.is(OWES_CONNECTED),
            is_closing: !self.is_open(),
            is_reading: self.reads() && !waits,
            has_output: self.has_writable_output() && self.output.as_ref().is_some_and(|output| output.waits()),
            is_out_of_rate: self.is(SPENT_OUT),
            is_amid_frame: self.framing.is_amid(held),
        }
    }

    /// What was agreed on.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<Tls<'_>> {
        self.stream.as_ref()?.tls()
    }

    /// The address that its listener counts it for.
    pub(crate) fn counted_for(&self) -> Option<SocketAddr> {
        self.peer.ip().filter(|_| self.counts_for_peer)
    }

    pub(crate) fn is_racing(&self) -> bool {
        self.odds().and_then(|odds| odds.connecting.as_ref()).is_some_and(|connecting| connecting.is_racing())
    }
}

/// What it shows.
impl Conn {
    pub(crate) fn kind(&self) -> Kind {
        match (self.phase, self.listener) {
            (Phase::Lingering, _) => Kind::Lingering,
            (_, Some(_)) => Kind::Accepted,
            (_, None) => Kind::Opened,
        }
    }

    pub(crate) fn describe(&self, now: Time, name: &'static str) -> Connection {
        Connection {
            age: now.since(self.born),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queued: self.queued(),
            unread: self.held.as_ref().map_or(0, |held| held.len()),
            is_connected: self.is(ESTABLISHED),
            is_ending: !matches!(self.phase, Phase::Guest | Phase::Open),
            is_paused: self.is(PAUSED),
            is_congested: self.is(CONGESTED),
            terminator: self.framing.name(),
            timeouts: self.extra.as_ref().map(|extra| timeouts(&extra.clocks)).unwrap_or_default(),
            holds: self.odds().map(|odds| odds.holds.list(now)).unwrap_or_default(),
            ..Connection::new(self.key, self.kind(), name, self.peer.clone())
        }
    }
}
