//! How a connection ends: politely, at once, with a cause; and what remains of it after `closed`.

use super::{Conn, Filled, Phase};
use crate::{
    cx::{Cx, Note},
    flags::*,
    framing::ReadBuffers,
    key::Key,
    output::Output,
    panics::{Payload, discard},
    rate::Way,
    reason::{Detached, Fault, Reason},
    world::{Stream, Ways},
};
use std::io;

/// No system keeps more than this for us until we read: a peer that never stops sending does not delay a drain by more.
const ARRIVED_MAX: u64 = 8 << 20;

impl Conn {
    /// Politely: no further frame from now on, and `closed` once all output has left or nobody takes it. Returns whether it
    /// was open.
    pub(crate) fn close(&mut self, cx: &mut Cx) -> bool {
        if let Some(extra) = self.extra.as_mut().filter(|_| self.phase == Phase::Open) {
            extra.closes_when_quiet = false; // it does not wait for that
        }
        self.begin_to_close(cx)
    }

    /// The same for one that is open, once nothing is under way.
    pub(crate) fn close_when_quiet(&mut self, cx: &mut Cx) {
        self.extra().closes_when_quiet = true;
        cx.some_wait_for_quiet = true;
        self.touch(cx);
    }

    /// `draining` comes once what has arrived is delivered: nobody has looked yet.
    pub(crate) fn owe_draining(&mut self, cx: &mut Cx) {
        if matches!(self.phase, Phase::Guest | Phase::Open) {
            let arrived = self.bytes_in.saturating_add(ARRIVED_MAX);
            self.extra().odds().drains_at = arrived;
            self.set(OWES_DRAINING);
            self.set_if(READABLE, self.is(ESTABLISHED) && !self.is(EOF_SEEN) && self.reads());
            #[cfg(feature = "tls")]
            if self.phase == Phase::Guest {
                self.hurry(cx);
            }
            self.mark_dirty(cx);
        }
    }

    /// A connection is not throttled by it any more. It may have waited for that one to be quiet.
    pub(crate) fn lose_reader(&mut self, reader: Key, cx: &mut Cx) {
        if let Some(ties) = self.extra.as_mut().and_then(|extra| extra.ties.as_mut()) {
            ties.readers.retain(|&key| key != reader);
        }
        if self.closes_when_quiet() {
            self.touch(cx);
        }
    }

    /// Those that wait for it to be quiet have to look: itself, and what is tied to it.
    pub(super) fn note_quiet(&mut self, cx: &mut Cx) {
        if !cx.some_wait_for_quiet || !self.is_quiet(cx) {
            return;
        }
        let Some(extra) = &self.extra else { return };
        if extra.closes_when_quiet {
            cx.lists.notes.push(Note::Quiet(self.key));
        }
        cx.lists.notes.extend(extra.ties.iter().flat_map(|ties| ties.throttled()).map(Note::Quiet));
    }

    pub(crate) fn begin_to_close(&mut self, cx: &mut Cx) -> bool {
        if !self.is_open() {
            return false;
        }
        self.enter(Phase::Flushing);
        if !self.is(FIN_ASKED) || self.ways() == Ways::In {
            self.put(PEER_FIRST, self.has_peer_ended());
        }
        self.held = None;
        self.stop_callbacks(cx);
        self.touch(cx);
        true
    }

    /// From what is only written to, nothing else can be heard.
    fn has_peer_ended(&self) -> bool {
        self.is(EOF_SEEN) && self.ways() != Ways::Out
    }

    pub(crate) fn half_close(&mut self, cx: &mut Cx) {
        if !self.is(FIN_ASKED) {
            self.set(FIN_ASKED);
            self.put(PEER_FIRST, self.has_peer_ended());
            if self.is_current(cx) {
                cx.lent.room = 0; // what is sent from here on is refused
            }
            self.touch(cx);
            self.close_if_both_ended(cx);
        }
    }

    /// A stream whose two directions have ended closes itself, unless it is held.
    pub(crate) fn close_if_both_ended(&mut self, cx: &mut Cx) {
        if self.is(FIN_ASKED) && self.is(EOF_TOLD) && !self.is(HELD) {
            self.close(cx);
        }
    }

    /// Returns whether it was there to be aborted; also one that is flushing.
    pub(crate) fn abort(&mut self, cx: &mut Cx) -> bool {
        self.set_if(CUT, matches!(self.phase, Phase::Open | Phase::Flushing));
        self.end(Reason::Abort, cx)
    }

    /// It ends by being given back, with everything that belongs to it. Returns whether it can be.
    pub(crate) fn detach(&mut self, cx: &mut Cx) -> bool {
        if !self.can_be_detached() {
            return false;
        }
        self.queue_lent(cx);
        self.extra().odds().hand_over = Some(Self::give_up_stream);
        self.end(Reason::Detached(Box::default()), cx)
    }

    /// Before `closed`: puts in all that it has.
    pub(crate) fn hand_over(&mut self, detached: &mut Detached, cx: &mut Cx) {
        if let Some(hand_over) = self.odds().and_then(|odds| odds.hand_over) {
            hand_over(self, detached, cx);
        }
    }

    fn give_up_stream(&mut self, detached: &mut Detached, cx: &mut Cx) {
        let _ = self.local(); // which is remembered
        if let Some(stream) = self.stream.take() {
            detached.socket = cx.world.detach(stream);
        }
        detached.unread = self.held.take().map_or_else(Vec::new, |held| held.unread().to_vec());
        detached.unsent = self.output.take().map_or_else(Vec::new, |output| output.unsent());
    }

    /// Begins to end: no more callbacks except tells and `closed`, which comes at the end of the turn. The first cause wins;
    /// returns whether this is it.
    pub(crate) fn end(&mut self, reason: Reason, cx: &mut Cx) -> bool {
        if matches!(self.phase, Phase::Guest | Phase::Ended | Phase::Lingering) {
            discard("an error that came too late", reason);
            return false;
        }
        self.enter(Phase::Ended);
        if !self.is_detaching() {
            self.held = None;
        }
        if !reason.allows_last_write() {
            // It goes before `closed`, not now: this may be inside somebody's callback, and there may be producers in it.
            self.set_if(CUT, self.output.is_some());
            if self.is_current(cx) {
                self.set_if(CUT, !cx.lent.out.is_empty());
                cx.lent.out.clear();
            }
        }
        // What comes from its mate is not complete, even if nothing of it is queued.
        self.set_if(CUT, !reason.is_clean() && self.mate().is_some() && !self.is(FIN_SENT));
        if self.take(CONGESTED) {
            self.readers_changed(cx);
        }
        self.stop_callbacks(cx);
        self.stop_clocks(cx);
        self.stop_connecting(cx);
        cx.lists.closing.push_back((self.key, reason));
        true
    }

    /// By a callback that failed or panicked.
    #[cold]
    pub(crate) fn end_failed(&mut self, failure: Result<Fault, Payload>, cx: &mut Cx) {
        let (reason, panic) = Reason::from_failure(failure);
        self.end(reason, cx);
        if let Some(payload) = panic {
            cx.pass_on(payload);
        }
    }

    /// Its own timers and offloads end with it, and delivering to it stops.
    fn stop_callbacks(&mut self, cx: &mut Cx) {
        if self.is_current(cx) {
            cx.lent.interrupt = true;
            cx.lent.room = 0;
        }
        self.clear(OWES_CONNECTED | OWES_WRITABLE | OWES_DRAINING);
        self.stop_timers(cx);
        cx.stop_work_of(self.key);
    }

    /// Tries one write of what an `Err` left queued, unless a producer or a file is in front; what does not leave now, or
    /// must not, never will.
    pub(crate) fn write_last(&mut self, why: &Reason, cx: &mut Cx) {
        let is_possible = why.allows_last_write() && self.is(ESTABLISHED) && self.is(WRITABLE) && self.write_error().is_none();
        let is_there = |output: &Output| output.queued() > 0 && !output.wants_pull() && output.front_file().is_none();
        let mut goes_on = is_possible;
        while goes_on && self.output.as_deref().is_some_and(is_there) {
            let written = self.flush_once(&mut cx.spares, usize::MAX); // it ends for another reason already
            // What is encrypted leaves in several writes, and so does what is sent through Winsock.
            let most = self.stream.as_ref().map_or(0, Stream::send_max);
            let is_a_part = |taken: usize| taken > 0 && (self.ends_in_words() || taken == most);
            goes_on = self.is(WRITABLE) && written.is_ok_and(is_a_part);
        }
        self.drop_output();
    }

    /// Whether the socket stays after `closed`, until the peer has received everything.
    pub(crate) fn is_to_linger(&mut self, is_clean: bool) -> bool {
        if !is_clean || !self.is(ESTABLISHED) || self.is(CUT) {
            return false;
        }
        if self.is(EOF_SEEN) {
            return self.ends_in_words() && !self.has_sent_fin();
        }
        self.stream.as_ref().is_some_and(Stream::lingers)
    }

    /// Closing its socket says nothing to the peer.
    pub(super) fn ends_in_words(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::ends_in_words)
    }

    fn has_sent_fin(&mut self) -> bool {
        let _ = self.finish_lingering_output();
        self.is(FIN_SENT)
    }

    /// A socket without a handler: what is queued leaves, then a FIN, then what still comes is dropped until the peer has
    /// ended. Closing at once would answer late bytes with a reset, which destroys what the peer has not read yet (RFC 9112,
    /// 9.6).
    pub(crate) fn begin_to_linger(&mut self, cx: &mut Cx) {
        debug_assert_eq!(self.tells, 0, "`closed` waits for them");
        self.enter(Phase::Lingering);
        if let Some(stream) = &mut self.stream {
            stream.stop_reading();
        }
        self.set_rate(Way::In, None, cx); // what is dropped costs nobody anything
        self.leave_shared_rate(Way::In, cx);
        self.linger_from_now(cx);
    }

    pub(crate) fn finish_lingering_output(&mut self) -> io::Result<()> {
        if self.output.is_none() { self.send_fin() } else { Ok(()) }
    }

    /// One turn of a lingering socket; returns whether it is over.
    pub(crate) fn serve_lingering(&mut self, buffers: &mut ReadBuffers, cx: &mut Cx) -> bool {
        // Where a selector reports only an error, nothing else would come; epoll also says that it is readable.
        if self.take(FAILED) && self.stream.as_mut().is_some_and(|stream| stream.take_error().is_some()) {
            return true;
        }
        if self.can_write() && self.has_writable_output() {
            match self.allowed(Way::Out, cx) {
                0 => {}
                most => match self.flush_once(&mut cx.spares, most) {
                    Ok(taken) => self.moved(Way::Out, taken, cx),
                    Err(_) => return true,
                },
            }
        }
        if self.can_write() && self.finish_lingering_output().is_err() {
            return true;
        }
        let mut budget = cx.config.turn_bytes;
        while self.is(READABLE) && budget > 0 {
            self.lend_input(buffers);
            match self.read(buffers, budget, cx) {
                Filled::Bytes(bytes) => budget = budget.saturating_sub(bytes),
                Filled::Drained | Filled::End => {}
                Filled::Interrupted => break,
                Filled::Lost(_) => return true,
            }
        }
        if self.is(EOF_SEEN) && self.output.is_none() && self.is(FIN_SENT) {
            return true;
        }
        self.settle(cx);
        false
    }

    /// Before its slot is free.
    pub(crate) fn stop_all(&mut self, cx: &mut Cx) {
        self.stop_timers(cx);
        self.stop_clocks(cx);
        self.stop_rates(cx);
    }

    /// Closes the socket: with a reset if the peer must not take what it got for the whole.
    pub(crate) fn free(mut self, cx: &mut Cx) {
        self.set_if(CUT, self.output.is_some());
        let is_cut = self.is(CUT);
        if let Some(stream) = self.stream.as_mut().filter(|_| is_cut) {
            stream.abort();
        }
        if !is_cut && (self.is_adopted || self.ends_in_words()) {
            let _ = self.send_fin(); // to the peer, closing it is no end, or not while somebody has a duplicate
        }
        if self.is_adopted {
            if let Some(stream) = self.stream.take() {
                (cx.forget_adopted)(&mut *cx.world, stream);
            }
        }
        self.discard();
    }
}
