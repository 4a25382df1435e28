//! The way in: lending the read buffer, filling it, cutting it into frames.

use super::Hub;
use crate::{
    conn::Filled,
    flags::*,
    input::Input,
    key::Key,
    panics::discard,
    rate::Way,
    reason::Reason,
    terminator::{Found, Terminator},
};
use std::io;

/// A connection that holds less than this reads into the shared buffer behind a copy of it; one that holds more reads into
/// a buffer of its own. So no byte is copied more than a bounded number of times, however few come at once.
const COPY_MAX: usize = 1024;

/// So many buffers are kept for small rests, with no more room than this each.
const SPARES_MAX: usize = 16;
const SPARE_MAX: usize = 2 * COPY_MAX;

/// A buffer of its own that has more than so many times the room of what is left in it does not stay with a connection.
const SLACK_MAX: usize = 8;

/// The least room that is worth a system call.
const READ_MIN: usize = 4096;

/// What connections read into, each for the time of its turn; the reactor has one of these. A connection that holds little
/// or nothing reads into the shared buffer, one that holds much into its own.
pub(crate) struct ReadBuffers {
    shared: Input,
    /// Of the connection whose turn it is.
    own: Option<Box<Input>>,
    /// Small empty ones: rests come and go without allocations.
    #[allow(clippy::vec_box, reason = "a connection keeps the box")]
    spare: Vec<Box<Input>>,
}

impl ReadBuffers {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { shared: Input::with_capacity(bytes), own: None, spare: Vec::new() }
    }

    /// What the connection whose turn it is reads into.
    #[inline]
    pub(crate) fn input(&mut self) -> &mut Input {
        match &mut self.own {
            Some(own) => own,
            None => &mut self.shared,
        }
    }

    /// So much room is made for the next read: a long frame comes in pieces as large as what is there of it.
    #[inline]
    fn least(&self, most: usize) -> usize {
        self.own.as_ref().map_or(1, |own| own.len().clamp(READ_MIN, most))
    }

    /// A turn begins. What a panic may have left in them is gone.
    #[inline]
    fn lend(&mut self, held: &mut Option<Box<Input>>) {
        self.shared.clear();
        if held.is_some() || self.own.is_some() {
            self.take_over(held);
        }
    }

    #[inline(never)]
    fn take_over(&mut self, held: &mut Option<Box<Input>>) {
        self.own = None;
        match held.take() {
            Some(mut little) if little.len() <= COPY_MAX => {
                little.move_into(&mut self.shared);
                if self.spare.len() < SPARES_MAX && little.capacity() <= SPARE_MAX {
                    self.spare.push(little);
                }
            }
            much => self.own = much,
        }
    }

    /// A turn ends: what is left becomes the connection's.
    fn hold(&mut self) -> Box<Input> {
        match self.own.take() {
            Some(own) => self.fit(own),
            None => {
                let mut rest = self.spare.pop().unwrap_or_default();
                self.shared.move_into(&mut rest);
                rest
            }
        }
    }

    /// A long frame's buffer is not kept for the first bytes of the next one: they may be all that comes for hours.
    fn fit(&mut self, mut own: Box<Input>) -> Box<Input> {
        if own.capacity() <= SPARE_MAX.max(own.len() * SLACK_MAX) {
            return own;
        }
        let mut rest = if own.len() <= COPY_MAX { self.spare.pop().unwrap_or_default() } else { Box::default() };
        own.move_into(&mut rest);
        rest
    }

    /// A long unfinished frame moves to a buffer of its own; an own one that is used up goes.
    #[inline]
    fn choose(&mut self) {
        if self.own.as_ref().is_some_and(|own| own.is_empty()) {
            self.own = None;
        } else if self.own.is_none() && self.shared.len() > COPY_MAX {
            let mut own = Input::with_capacity(self.shared.len() * 2);
            self.shared.move_into(&mut own);
            self.own = Some(Box::new(own));
        }
    }
}

/// What a turn of a connection may still read and deliver.
pub(crate) struct Budget {
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
}

/// What comes next in a connection's turn.
pub(crate) enum Step {
    /// There may be a frame in what it holds.
    Deliver,
    /// Everything was delivered, and the peer's end was seen.
    Eof,
    /// Nothing more in this turn.
    Rest,
}

impl Hub {
    /// Takes the turn of a connection in the common case, and says how many bytes came: it is readable, and there is nothing
    /// else to think of. `None` says nothing of it: the general way finds out.
    #[inline(always)]
    pub(crate) fn read_plainly(&mut self, key: Key, buffers: &mut ReadBuffers) -> Option<usize> {
        let conn = self.slots.conn_mut(key)?;
        // A buffer of its own may have room for much more than a turn's bytes.
        if !conn.is_plainly_readable() || conn.held.as_ref().is_some_and(|held| held.len() > COPY_MAX) {
            return None;
        }
        buffers.lend(&mut conn.held);
        match conn.fill(&mut buffers.shared, 1, usize::MAX) {
            Filled::Bytes(bytes) => {
                conn.clear(IN_READY);
                conn.set(BACKLOG);
                conn.in_vain = 0;
                if conn.extra.is_some() {
                    self.has_spoken(key.index());
                }
                return Some(bytes);
            }
            Filled::Lost(error) => {
                if let Filled::Lost(error) = self.look_at_loss(key.index(), error) {
                    self.end_lost(key.index(), error);
                }
            }
            Filled::Drained | Filled::Interrupted | Filled::End => {}
        }
        self.give_back(key.index(), buffers);
        None
    }

    /// Whether there is no more to deliver and to read, nor anything else to think of; then its input is returned.
    #[inline(always)]
    pub(crate) fn ends_plainly(&mut self, index: usize, buffers: &mut ReadBuffers) -> bool {
        let conn = self.slots.conn_at_mut(index);
        let is_used_up = buffers.input().is_empty();
        if is_used_up {
            conn.put(BACKLOG, conn.framing.fires_on_nothing());
        }
        if self.cx.interrupt || conn.is(BACKLOG | READABLE | EOF_SEEN) {
            return false;
        }
        if !is_used_up {
            conn.held = Some(buffers.hold());
        }
        true
    }

    pub(crate) fn lend_input(&mut self, index: usize, buffers: &mut ReadBuffers) {
        buffers.lend(&mut self.slots.conn_at_mut(index).held);
    }

    /// What is not consumed stays with the connection.
    pub(crate) fn return_input(&mut self, index: usize, buffers: &mut ReadBuffers) {
        self.give_back(index, buffers);
        if self.cx.frame_ended && self.slots.conn_at(index).extra.is_some() {
            self.frame_moved(index);
        }
    }

    fn give_back(&mut self, index: usize, buffers: &mut ReadBuffers) {
        let conn = self.slots.conn_at_mut(index);
        if !buffers.input().is_empty() && conn.is_open() {
            conn.held = Some(buffers.hold());
        }
    }

    #[inline]
    pub(crate) fn budget(&self) -> Budget {
        Budget { bytes: self.cx.config.turn_bytes, frames: self.cx.config.turn_frames }
    }

    /// Reads until there may be a frame to deliver, within the budget, and as long as delivering is allowed.
    pub(crate) fn step(&mut self, index: usize, buffers: &mut ReadBuffers, budget: &mut Budget) -> Step {
        loop {
            let conn = self.slots.conn_at_mut(index);
            if buffers.input().is_empty() && conn.is(BACKLOG) {
                conn.put(BACKLOG, conn.framing.fires_on_nothing());
            }
            let conn = self.slots.conn_at(index);
            if !(conn.is_open() && conn.is(ESTABLISHED) && self.is_reading(conn)) {
                if conn.is(PAUSED | OWES_ANSWER) {
                    self.end_if_lost(index);
                }
                return Step::Rest;
            }
            if conn.is(BACKLOG) {
                self.cx.interrupt = false;
                return if budget.frames > 0 { Step::Deliver } else { Step::Rest };
            }
            if !conn.is(READABLE) {
                let owes_eof = conn.is(EOF_SEEN) && !conn.is(EOF_TOLD);
                let is_lost = self.end_if_lost(index);
                return if owes_eof && !is_lost { Step::Eof } else { Step::Rest };
            }
            if budget.bytes == 0 || !conn.may_read() {
                return Step::Rest;
            }
            match self.fill(index, buffers, budget.bytes) {
                Filled::Bytes(bytes) => budget.bytes = budget.bytes.saturating_sub(bytes),
                Filled::Drained | Filled::End => {}
                Filled::Interrupted => return Step::Rest,
                Filled::Lost(error) => self.end_lost(index, error),
            }
        }
    }

    /// Reads once, no more than the turn still has, or a plain read: a buffer of its own may have room for far more.
    pub(crate) fn fill(&mut self, index: usize, buffers: &mut ReadBuffers, budget: usize) -> Filled {
        buffers.choose();
        let least = buffers.least(self.cx.config.read_bytes);
        let allowed = if self.slots.conn_at(index).extra.is_some() { self.allowed_to_read(index) } else { usize::MAX };
        let most = allowed.min(budget.max(self.cx.config.read_bytes));
        if most == 0 {
            return Filled::Interrupted; // a read of nothing would look like the end
        }
        let conn = self.slots.conn_at_mut(index);
        let filled = conn.fill(buffers.input(), least, most);
        match filled {
            Filled::Bytes(bytes) => {
                conn.set(BACKLOG);
                if conn.extra.is_some() {
                    let now = self.stamp();
                    self.slots.conn_at_mut(index).extra().limits.idle.restart(now);
                    self.moved(index, Way::In, bytes);
                }
                Filled::Bytes(bytes)
            }
            Filled::Lost(error) => self.look_at_loss(index, error),
            other => other,
        }
    }

    /// poll(2) lets go of a descriptor with an error, and mio then does not know it.
    fn look_at_loss(&mut self, index: usize, error: io::Error) -> Filled {
        if error.kind() != io::ErrorKind::NotFound {
            return Filled::Lost(error);
        }
        let conn = self.slots.conn_at_mut(index);
        conn.clear(READABLE | READ_ON);
        let token = conn.key.token();
        match conn.stream.as_mut().map_or(Ok(()), |stream| self.cx.world.register_again(stream, token)) {
            Ok(()) => Filled::Drained,
            Err(error) => Filled::Lost(error),
        }
    }

    /// The next frame or piece of what the connection that is being served has received.
    #[inline(always)]
    pub(crate) fn next_frame(&mut self, index: usize, input: &mut Input) -> Found {
        let conn = self.slots.conn_at_mut(index);
        let found = conn.framing.next(input);
        self.cx.unread = input.len();
        found
    }

    pub(crate) fn set_terminator(&mut self, index: usize, terminator: Terminator) {
        let conn = self.slots.conn_at_mut(index);
        if let Some(framer) = conn.framing.set(terminator) {
            discard("a framer", framer);
        }
        if let Some(held) = &mut conn.held {
            held.search_anew();
        }
        conn.set_if(BACKLOG, !conn.is(EOF_TOLD) && (conn.held.is_some() || conn.framing.fires_on_nothing()));
        self.touch(index);
    }

    /// The rest of the frame that has begun is dropped as it comes. `false`: its end cannot be told.
    pub(crate) fn skip_frame(&mut self, index: usize) -> bool {
        let conn = self.slots.conn_at_mut(index);
        let skips = conn.framing.skip();
        conn.set_if(BACKLOG, skips && conn.held.is_some());
        skips
    }

    /// Bytes received and not yet delivered.
    pub(crate) fn unread(&self, index: usize) -> usize {
        if self.is_current(index) {
            return self.cx.unread;
        }
        self.slots.conn_at(index).held.as_ref().map_or(0, |held| held.len())
    }

    /// `by`: its protocol's pause or the answer that it owes, neither of which takes the other back.
    pub(crate) fn set_paused(&mut self, index: usize, by: Flags, on: bool) {
        let conn = self.slots.conn_at_mut(index);
        conn.put(by, on);
        conn.set_if(FAILED, on && conn.is(LIFTED)); // who does not read on is told at once
        let key = conn.key;
        self.reading_changed(key);
    }

    pub(crate) fn set_hold_back(&mut self, index: usize, on: bool) {
        let conn = self.slots.conn_at_mut(index);
        conn.put(HOLDS_BACK, on);
        let key = conn.key;
        self.reading_changed(key);
    }

    /// Reading failed; but an earlier error of a write came first.
    pub(crate) fn end_lost(&mut self, index: usize, error: io::Error) {
        self.end_if_lost(index);
        self.end(index, Reason::Io(error));
    }

    /// There is nothing more to read of a connection that can no more be written to. Whether that was its end.
    pub(crate) fn end_if_lost(&mut self, index: usize) -> bool {
        let Some(extra) = &mut self.slots.conn_at_mut(index).extra else { return false };
        let Some(error) = extra.write_error.take() else { return false };
        self.end(index, Reason::Io(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection keeps of a long frame that was consumed up to so many bytes: their number, and its buffer's size.
    fn held_after(long: usize, rest: usize) -> (usize, usize) {
        let mut buffers = ReadBuffers::new(64_000);
        let mut held = None;
        buffers.lend(&mut held);
        for _ in 0..long.div_ceil(40_000) {
            buffers.choose();
            let least = buffers.least(64_000);
            buffers.input().room(least)[..40_000].fill(7);
            buffers.input().filled(40_000);
        }
        let all = buffers.input().len();
        buffers.input().take(all - rest, all - rest);
        buffers.input().mark_searched();
        let held = buffers.hold();
        assert!(held.unread().iter().all(|&byte| byte == 7) && held.searched() == rest, "what is left is as it was");
        (held.len(), held.capacity())
    }

    #[test]
    fn what_a_connection_keeps_is_of_the_size_of_what_is_left() {
        for long in [40_000, 200_000, 3_000_000] {
            for rest in [1, 100, COPY_MAX, COPY_MAX + 1, 5_000, 40_000] {
                let (len, capacity) = held_after(long, rest);
                assert_eq!(len, rest);
                assert!(capacity <= SPARE_MAX.max(rest * SLACK_MAX), "{capacity} bytes for {rest} of {long}");
            }
        }
    }

    #[test]
    fn a_frame_that_grows_keeps_its_buffer_from_turn_to_turn() {
        let mut buffers = ReadBuffers::new(64_000);
        let mut held = None;
        let (mut moves, mut place) = (0, std::ptr::null());
        for _ in 0..1_000 {
            buffers.lend(&mut held);
            buffers.choose();
            let least = buffers.least(64_000);
            buffers.input().room(least)[..1_000].fill(7);
            buffers.input().filled(1_000);
            let now = buffers.input().unread().as_ptr();
            moves += usize::from(now != place && buffers.own.is_some());
            place = now;
            held = Some(buffers.hold());
        }
        assert_eq!(held.map(|held| held.len()), Some(1_000_000));
        assert!(moves < 16, "moved {moves} times");
    }
}
