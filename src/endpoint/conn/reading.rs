//! A connection's way in: filling the buffer that is lent to it, cutting it into frames, pausing.

use super::{Conn, Filled};
use crate::{
    cx::{Cx, Note},
    flags::*,
    framing::{COPY_MAX, Cutting, Found, Input, ReadBuffers, Step, Terminator},
    hold::Hold,
    key::Key,
    panics::discard,
    rate::Way,
    reason::{Fault, Reason},
    world::Moved,
};
use std::{io, panic::Location};

/// For a lost connection, in one turn.
const LOST_FRAMES: usize = 8;

/// What a turn of a connection may still read and deliver.
pub(crate) struct Budget {
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
}

/// What comes next in a connection's turn.
pub(crate) enum Next {
    /// There may be a frame in what it holds.
    Deliver,
    /// All that it holds goes to this one.
    Forward(Key),
    /// Everything was delivered, and the peer's end was seen.
    Eof,
    /// Nothing more in this turn.
    Rest,
}

impl Conn {
    /// Takes its turn in the common case, and returns how many bytes came: it is readable, and there is nothing else to
    /// consider. `None` says nothing about it: the general way finds out.
    #[inline(always)]
    pub(crate) fn read_plainly(&mut self, buffers: &mut ReadBuffers, cx: &mut Cx) -> Option<usize> {
        // A buffer of its own may have room for much more than a turn's bytes.
        if !self.is_plainly_readable() || self.held.as_ref().is_some_and(|held| held.len() > COPY_MAX) {
            return None;
        }
        buffers.lend(&mut self.held);
        match self.fill(&mut buffers.shared, 1, usize::MAX) {
            Filled::Bytes(bytes) => {
                self.clear(IN_READY);
                self.set(MAY_HAVE_FRAME | UNANSWERED);
                self.in_vain = 0;
                if self.extra.is_some() {
                    self.restart_idle_clock(cx);
                }
                return Some(bytes);
            }
            Filled::Lost(error) => {
                if let Filled::Lost(error) = self.look_at_loss(error, cx) {
                    self.end_lost(error, cx);
                }
            }
            Filled::Drained | Filled::Interrupted | Filled::End => {}
        }
        self.give_back(buffers);
        None
    }

    /// Whether there is no more to deliver and to read, nor anything else to consider; then its input is returned.
    #[inline(always)]
    pub(crate) fn ends_plainly(&mut self, buffers: &mut ReadBuffers, cx: &Cx) -> bool {
        let is_used_up = buffers.input().is_empty();
        if is_used_up {
            self.put(MAY_HAVE_FRAME, self.framing.fires_on_nothing());
        }
        if cx.lent.interrupt || self.is(MAY_HAVE_FRAME | READABLE | EOF_SEEN) {
            return false;
        }
        if !is_used_up {
            self.held = Some(buffers.hold());
        }
        true
    }

    /// What a turn may read and deliver. The last words of many that are gone must not keep the living waiting.
    pub(crate) fn budget(&self, cx: &Cx) -> Budget {
        let (bytes, frames) = (cx.config.turn_bytes, cx.config.turn_frames);
        if self.is(LOST) {
            return Budget { bytes: bytes.min(cx.config.read_bytes), frames: frames.min(LOST_FRAMES) };
        }
        Budget { bytes, frames }
    }

    pub(crate) fn lend_input(&mut self, buffers: &mut ReadBuffers) {
        buffers.lend(&mut self.held);
    }

    /// What is not consumed stays with the connection.
    pub(crate) fn return_input(&mut self, buffers: &mut ReadBuffers, cx: &mut Cx) {
        self.give_back(buffers);
        if cx.lent.frame_ended && self.extra.is_some() {
            self.frame_moved(cx);
        }
    }

    /// It has begun to end. A callback that failed has left its input where it was: if the socket is given back, the input
    /// goes with it.
    #[cold]
    pub(crate) fn end_input(&mut self, buffers: &mut ReadBuffers, cx: &mut Cx) {
        if self.is_detaching() {
            let input = buffers.input();
            let bytes = cx.take_put_back().min(input.given().len());
            if bytes > 0 {
                input.put_back(bytes);
            }
            self.give_back(buffers);
        }
        buffers.clear();
    }

    fn give_back(&mut self, buffers: &mut ReadBuffers) {
        let is_kept = self.is_open() || (self.is_detaching() && !self.is(EOF_TOLD));
        if is_kept && !buffers.input().is_empty() {
            self.held = Some(buffers.hold());
        }
    }

    /// Reads until there may be a frame to deliver, within the budget, and as long as delivering is allowed.
    pub(crate) fn step(&mut self, buffers: &mut ReadBuffers, budget: &mut Budget, cx: &mut Cx) -> Next {
        if cx.is_share_spent() {
            *budget = Budget { bytes: 0, frames: 0 };
        }
        loop {
            if buffers.input().is_empty() && self.is(MAY_HAVE_FRAME) {
                self.put(MAY_HAVE_FRAME, self.framing.fires_on_nothing());
            }
            if !(self.is_talking() && self.reads()) {
                if self.is_not_read_on() {
                    self.end_if_lost(cx);
                }
                return Next::Rest;
            }
            if self.is(MAY_HAVE_FRAME) {
                cx.lent.interrupt = false;
                return match self.forwards_to() {
                    Some(mate) => Next::Forward(mate),
                    None if budget.frames > 0 => Next::Deliver,
                    None => Next::Rest,
                };
            }
            if !self.is(READABLE) {
                let owes_eof = self.is(EOF_SEEN) && !self.is(EOF_TOLD);
                let is_lost = self.end_if_lost(cx);
                return if owes_eof && !is_lost { Next::Eof } else { Next::Rest };
            }
            if budget.bytes == 0 || !self.may_read() {
                return Next::Rest;
            }
            match self.read(buffers, budget.bytes, cx) {
                Filled::Bytes(bytes) => budget.bytes = budget.bytes.saturating_sub(bytes),
                Filled::Drained | Filled::End => {}
                Filled::Interrupted => return Next::Rest,
                Filled::Lost(error) => self.end_lost(error, cx),
            }
        }
    }

    /// Reads once, no more than the turn still has, or a plain read: a buffer of its own may have room for far more.
    pub(crate) fn read(&mut self, buffers: &mut ReadBuffers, budget: usize, cx: &mut Cx) -> Filled {
        buffers.choose();
        let least = buffers.least(cx.config.read_bytes);
        let allowed = if self.extra.is_some() { self.allowed_to_read(cx) } else { usize::MAX };
        let most = allowed.min(budget.max(cx.config.read_bytes));
        if most == 0 {
            return Filled::Interrupted; // a read of nothing would look like the end
        }
        match self.fill(buffers.input(), least, most) {
            Filled::Bytes(bytes) => {
                self.set(MAY_HAVE_FRAME | UNANSWERED);
                if self.extra.is_some() {
                    self.heard(cx);
                    self.moved(Way::In, bytes, cx);
                }
                Filled::Bytes(bytes)
            }
            Filled::Lost(error) => self.look_at_loss(error, cx),
            other => other,
        }
    }

    /// Something came; its mate is not idle either.
    fn heard(&mut self, cx: &mut Cx) {
        let now = cx.stamp();
        let extra = self.extra();
        extra.clocks.idle.restart(now);
        extra.heard = now;
        cx.lists.notes.extend(self.mate().map(Note::Heard));
    }

    /// poll(2) drops a descriptor that has an error, and mio then does not know it.
    fn look_at_loss(&mut self, error: io::Error, cx: &mut Cx) -> Filled {
        if error.kind() != io::ErrorKind::NotFound {
            return Filled::Lost(error);
        }
        self.clear(READABLE | READ_UNTIL_BLOCKED);
        match self.register_again(cx) {
            Ok(()) => Filled::Drained,
            Err(error) => Filled::Lost(error),
        }
    }

    pub(super) fn register_again(&mut self, cx: &mut Cx) -> io::Result<()> {
        let token = self.key.token();
        self.stream.as_mut().map_or(Ok(()), |stream| cx.world.register_again(stream, token))
    }

    /// The next frame or piece of what it has received.
    #[inline(always)]
    pub(crate) fn next_frame(&mut self, input: &mut Input, cx: &mut Cx) -> Found {
        if self.is(NEEDS_SETTLING) {
            // Connections with a frame time-out or a mate have it set.
            cx.lent.is_later_frame = cx.lent.frame_ended;
            if self.forwards_to().is_some() {
                cx.lent.interrupt = true; // its terminator is over, or was taken back: what follows is its mate's
                input.take(0, 0);
                return Found::Piece;
            }
        }
        let found = self.framing.next_by(cx.cutting, input);
        cx.lent.unread = input.len();
        found
    }

    /// After a callback: what it put back of what it was given. The terminator that has found it would find it again, so it
    /// waits for more to come, or for reading to go on.
    #[cold]
    pub(crate) fn put_back(&mut self, input: &mut Input, cx: &mut Cx) {
        let bytes = cx.take_put_back();
        if !self.is_open() && !self.is_detaching() {
            return;
        }
        let given = input.given().len();
        assert!(bytes <= given, "put_back({bytes}): `frame` or `received` was given only {given} bytes");
        input.put_back(bytes);
        let is_recut = cx.lent.recut == cx.stats.callbacks;
        if !is_recut {
            self.framing.counts_again(bytes);
        }
        self.put(MAY_HAVE_FRAME, is_recut || !self.reads() || self.forwards_to().is_some());
    }

    /// The handler in front of its protocol was told the end: the end comes again, with this tail, once reading is on.
    pub(crate) fn owe_eof(&mut self, tail: &[u8], cx: &mut Cx) {
        self.clear(EOF_TOLD);
        if !tail.is_empty() {
            self.held = Some(Box::new(Input::of(tail)));
        }
        cx.lent.unread = tail.len();
    }

    pub(crate) fn set_terminator(&mut self, terminator: Terminator, cx: &mut Cx) {
        cx.cutting = Cutting::ALL;
        if let Some(framer) = self.framing.set(terminator) {
            discard("a framer", framer);
        }
        if let Some(held) = &mut self.held {
            held.search_anew();
        }
        self.set_if(MAY_HAVE_FRAME, !self.is(EOF_TOLD) && (self.held.is_some() || self.framing.fires_on_nothing()));
        if self.is_current(cx) {
            cx.lent.recut = cx.stats.callbacks;
        }
        self.touch(cx);
    }

    /// What its protocol has said of the first bytes of the input.
    pub(crate) fn said(&mut self, step: Result<Step, Fault>, shown: usize, input: &mut Input, cx: &Cx) {
        (cx.cutting.said)(&mut self.framing, step, shown, input);
    }

    /// Drops the rest of the frame that has begun, as it comes. `false`: nobody can tell where it ends.
    pub(crate) fn skip_frame(&mut self, is_refused: bool, cx: &Cx) -> bool {
        let skips = (cx.cutting.skip)(&mut self.framing, is_refused);
        self.set_if(MAY_HAVE_FRAME, skips && self.held.is_some());
        skips
    }

    /// Bytes received and not yet delivered.
    pub(crate) fn unread(&self, cx: &Cx) -> usize {
        if self.is_current(cx) { cx.lent.unread + cx.put_back_so_far() } else { self.held.as_ref().map_or(0, |held| held.len()) }
    }

    /// `by`: its protocol's pause, or its holds, neither of which takes the other back.
    pub(crate) fn set_paused(&mut self, by: Flags, on: bool, cx: &mut Cx) {
        self.put(by, on);
        self.set_if(FAILED, on && self.is(LOST)); // a connection that does not read on is told at once
        self.reading_changed(cx);
    }

    pub(crate) fn hold(&mut self, by: &'static Location<'static>, cx: &mut Cx) -> Hold {
        cx.holds_so_far += 1;
        let (key, number, now) = (self.key, cx.holds_so_far, cx.stamp());
        let hold = self.extra().odds().holds.add(key, number, by, now);
        self.set_paused(HELD, true, cx);
        hold
    }

    pub(crate) fn release(&mut self, hold: &Hold, cx: &mut Cx) {
        let Some(odds) = self.odds_mut() else { return };
        if odds.holds.remove(hold) && odds.holds.is_empty() {
            self.set(NEEDS_SETTLING);
            self.set_paused(HELD, false, cx);
            self.close_if_both_ended(cx);
        }
    }

    pub(crate) fn set_hold_back(&mut self, on: bool, cx: &mut Cx) {
        self.put(HOLDS_BACK, on);
        self.set_if(FAILED, on && self.is(LOST)); // as by a pause, if it is congested
        self.reading_changed(cx);
    }

    /// Its pause, hold-back or throttles changed.
    pub(crate) fn reading_changed(&mut self, cx: &mut Cx) {
        cx.lent.interrupt = true;
        self.touch(cx);
    }

    /// Reading failed; but an earlier error of a write came first.
    fn end_lost(&mut self, error: io::Error, cx: &mut Cx) {
        self.end_if_lost(cx);
        self.end(Reason::Io(error), cx);
    }

    /// It is lost, and what it still has belongs to nobody.
    pub(crate) fn end_lost_now(&mut self, cx: &mut Cx) {
        if !self.end_if_lost(cx) {
            self.end_by_failure(cx);
        }
        if self.is_open() {
            self.end(Reason::Io(io::ErrorKind::ConnectionReset.into()), cx);
        }
    }

    /// There is nothing more to read of a connection that cannot be written to any more. Returns whether that was its end.
    pub(super) fn end_if_lost(&mut self, cx: &mut Cx) -> bool {
        let Some(error) = self.odds_mut().and_then(|odds| odds.write_error.take()) else { return false };
        self.end(Reason::Io(error), cx)
    }

    /// The selector reported an error. A connection that reads will meet it behind the last bytes; one that does not is told
    /// now.
    pub(crate) fn look_at_failure(&mut self, cx: &mut Cx) {
        let is_apart = self.is_open() && self.writes_apart();
        if is_apart && self.is(OWES_CONNECTED) {
            return; // if its writer is broken already, it is told that it is connected, and looked at again
        }
        if !self.take(FAILED) {
            return;
        }
        if is_apart {
            return self.look_at_writer(cx);
        }
        if self.is_open() && !self.is_not_read_on() && !self.is(EOF_SEEN) {
            self.set(LOST);
            return;
        }
        self.end_by_failure(cx);
    }

    /// Its reader reports by itself what fails there.
    fn look_at_writer(&mut self, cx: &mut Cx) {
        if let Some(error) = self.stream.as_mut().and_then(|stream| stream.take_error()) {
            let loses = self.output.is_some();
            self.lose_writer(loses.then_some(error), cx);
        }
    }

    /// It ends by the error that the socket has, if it has one.
    pub(super) fn end_by_failure(&mut self, cx: &mut Cx) {
        if let Some(error) = self.stream.as_mut().and_then(|stream| stream.take_error()) {
            self.end_lost(error, cx);
        }
    }

    /// Reads once, no more than `most`, which is not 0.
    #[inline(always)]
    fn fill(&mut self, input: &mut Input, least: usize, most: usize) -> Filled {
        let Some(stream) = &mut self.stream else { return Filled::Drained };
        let room = input.room(least);
        let most = most.min(room.len());
        match stream.recv(&mut room[..most]) {
            Ok(Moved { bytes: 0, .. }) => {
                self.set(EOF_SEEN);
                self.clear(READABLE);
                self.set_if(FAILED, self.is(LOST)); // an error that came with the end is looked at now
                Filled::End
            }
            Ok(Moved { bytes, drained }) => {
                input.filled(bytes);
                self.bytes_in += bytes as u64;
                if drained && !self.is(READ_UNTIL_BLOCKED) {
                    self.clear(READABLE);
                }
                Filled::Bytes(bytes)
            }
            // It stays readable: the next turn tries again, after the others have had theirs.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Filled::Interrupted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear(READABLE | READ_UNTIL_BLOCKED);
                Filled::Drained
            }
            Err(error) => Filled::Lost(error),
        }
    }
}
