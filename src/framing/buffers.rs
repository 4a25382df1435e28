//! What connections read into: one buffer for all, lent to each for its turn, and one of its own for a connection that holds
//! much. Pure: no socket, no callback.

use crate::framing::Input;

/// A connection that holds no more than this reads into the shared buffer behind a copy of it; one that holds more reads
/// into a buffer of its own. So no byte is copied more than a bounded number of times, however few come at once.
pub(crate) const COPY_MAX: usize = 1024;

/// This many buffers are kept for small rests, each with no more room than this.
const SPARES_MAX: usize = 16;
const SPARE_MAX: usize = 2 * COPY_MAX;

/// A buffer of its own with more than this many times the room of what is left in it does not stay with a connection.
const SLACK_MAX: usize = 8;

/// The least room that is worth a system call.
const READ_MIN: usize = 4096;

/// What connections read into, each during its turn; the reactor has one of these. A connection that holds little or nothing
/// reads into the shared buffer, one that holds much into its own.
pub(crate) struct ReadBuffers {
    pub(crate) shared: Input,
    /// That of the connection whose turn it is.
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

    /// How much room is made for the next read: a long frame comes in pieces as large as what is already there of it.
    #[inline]
    pub(crate) fn least(&self, most: usize) -> usize {
        self.own.as_ref().map_or(1, |own| own.len().clamp(READ_MIN, most))
    }

    /// A turn begins. What a panic may have left in the buffers is gone.
    #[inline]
    pub(crate) fn lend(&mut self, held: &mut Option<Box<Input>>) {
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

    /// What a failed callback has left belongs to nobody.
    pub(crate) fn clear(&mut self) {
        self.shared.clear();
        self.own = None;
    }

    /// A turn ends: what is left becomes the connection's.
    pub(crate) fn hold(&mut self) -> Box<Input> {
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

    /// A long unfinished frame moves to a buffer of its own; one that is used up goes.
    #[inline]
    pub(crate) fn choose(&mut self) {
        if self.own.as_ref().is_some_and(|own| own.is_empty()) {
            self.own = None;
        } else if self.own.is_none() && self.shared.len() > COPY_MAX {
            let mut own = Input::with_capacity(self.shared.len() * 2);
            self.shared.move_into(&mut own);
            self.own = Some(Box::new(own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection keeps of a long frame that was consumed up to a number of bytes: their number, and its buffer's
    /// size.
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
