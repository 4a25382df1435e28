//! The way in: lending the read buffer, filling it, cutting it into frames.

use super::Hub;
use crate::{
    conn::Filled,
    input::Input,
    key::Key,
    reason::Reason,
    terminator::{Found, Terminator},
};
use std::io;

/// A connection that holds less than this reads into the shared buffer behind a copy of it; one that holds more reads into
/// a buffer of its own. So no byte is copied more than a bounded number of times, however few come at once.
const COPY_MAX: usize = 1024;

/// The least room that is worth a system call.
const READ_MIN: usize = 4096;

/// What a connection reads into for the time of its turn: the reactor's one buffer, or its own if it holds much.
pub(crate) struct LentInput<'a> {
    shared: &'a mut Input,
    /// The connection's own; while it is not used it is empty, and kept for the next rest.
    own: Option<Box<Input>>,
    uses_own: bool,
}

impl<'a> LentInput<'a> {
    pub(crate) fn new(shared: &'a mut Input) -> Self {
        shared.clear(); // a panic may have left something in it
        Self { shared, own: None, uses_own: false }
    }

    /// Copies what a connection holds, unless it is much.
    #[inline]
    fn take_held(&mut self, held: &mut Option<Box<Input>>) -> bool {
        let Some(own) = held else { return true };
        if own.len() > COPY_MAX {
            return false;
        }
        own.move_into(self.shared);
        self.own = held.take();
        true
    }

    #[inline]
    pub(crate) fn input(&mut self) -> &mut Input {
        match &mut self.own {
            Some(own) if self.uses_own => own,
            _ => self.shared,
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
    /// Takes the turn of a connection in the common case: there is something to read and nothing else to think of, and
    /// bytes come. What it may still read and deliver. Otherwise nothing is said of it, and the general way is to be gone.
    #[inline]
    pub(crate) fn read_plainly(&mut self, key: Key, lent: &mut LentInput<'_>) -> Option<Budget> {
        let conn = self.slots.conn_mut(key)?;
        if !conn.is_plainly_readable() || !lent.take_held(&mut conn.held) {
            return None;
        }
        match conn.fill(lent.shared, 1) {
            Filled::Bytes(bytes) => {
                (conn.in_ready, conn.in_vain, conn.has_backlog) = (false, 0, true);
                let Budget { bytes: most, frames } = self.budget();
                return Some(Budget { bytes: most.saturating_sub(bytes), frames });
            }
            Filled::Lost(error) => {
                if let Filled::Lost(error) = self.look_at_loss(key.index(), error) {
                    self.end_lost(key.index(), error);
                }
            }
            Filled::Drained | Filled::Interrupted | Filled::End => {}
        }
        self.return_input(key.index(), lent);
        None
    }

    pub(crate) fn lend_input<'a>(&mut self, index: usize, shared: &'a mut Input) -> LentInput<'a> {
        let mut lent = LentInput::new(shared);
        let held = &mut self.slots.conn_at_mut(index).held;
        if !lent.take_held(held) {
            (lent.own, lent.uses_own) = (held.take(), true);
        }
        lent
    }

    /// What is not consumed stays with the connection.
    #[inline]
    pub(crate) fn return_input(&mut self, index: usize, lent: &mut LentInput<'_>) {
        let conn = self.slots.conn_at_mut(index);
        if !lent.input().is_empty() && conn.is_open() {
            let mut held = lent.own.take().unwrap_or_default();
            if !lent.uses_own {
                lent.shared.move_into(&mut held);
            }
            conn.held = Some(held);
        }
        if self.frame_ended && conn.extra.is_some() {
            self.frame_moved(index);
        }
    }

    #[inline]
    pub(crate) fn budget(&self) -> Budget {
        Budget { bytes: self.config.turn_bytes, frames: self.config.turn_frames }
    }

    /// Reads until there may be a frame to deliver, within the budget, and as long as delivering is allowed.
    pub(crate) fn step(&mut self, index: usize, lent: &mut LentInput<'_>, budget: &mut Budget) -> Step {
        loop {
            let conn = self.slots.conn_at(index);
            if !(conn.is_open() && conn.is_established && self.is_reading(conn)) {
                if conn.is_paused {
                    self.end_if_lost(index);
                }
                return Step::Rest;
            }
            if conn.has_backlog {
                self.interrupt = false;
                return if budget.frames > 0 { Step::Deliver } else { Step::Rest };
            }
            if !conn.is_readable {
                let owes_eof = conn.eof_seen && !conn.eof_told;
                let is_lost = self.end_if_lost(index);
                return if owes_eof && !is_lost { Step::Eof } else { Step::Rest };
            }
            if budget.bytes == 0 {
                return Step::Rest;
            }
            match self.fill(index, lent) {
                Filled::Bytes(bytes) => budget.bytes = budget.bytes.saturating_sub(bytes),
                Filled::Drained | Filled::End => {}
                Filled::Interrupted => return Step::Rest,
                Filled::Lost(error) => self.end_lost(index, error),
            }
        }
    }

    /// Reads once.
    pub(crate) fn fill(&mut self, index: usize, lent: &mut LentInput<'_>) -> Filled {
        choose_buffer(lent);
        let least = if lent.uses_own { lent.input().len().clamp(READ_MIN, self.config.read_bytes) } else { 1 };
        let conn = self.slots.conn_at_mut(index);
        let filled = conn.fill(lent.input(), least);
        match filled {
            Filled::Bytes(bytes) => {
                conn.has_backlog = true;
                if conn.extra.is_some() {
                    let now = self.stamp();
                    self.slots.conn_at_mut(index).extra().limits.idle.restart(now);
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
        (conn.is_readable, conn.read_on) = (false, false);
        let token = conn.key.token();
        match conn.stream.as_mut().map_or(Ok(()), |stream| self.world.register_again(stream, token)) {
            Ok(()) => Filled::Drained,
            Err(error) => Filled::Lost(error),
        }
    }

    /// The next frame or piece of what the connection that is being served has received.
    #[inline(always)]
    pub(crate) fn next_frame(&mut self, index: usize, input: &mut Input) -> Found {
        let conn = self.slots.conn_at_mut(index);
        let found = conn.framing.next(input);
        self.unread = input.len();
        found
    }

    /// All of what has come is consumed.
    pub(crate) fn used_up(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        conn.has_backlog = conn.framing.fires_on_nothing();
    }

    pub(crate) fn set_terminator(&mut self, index: usize, terminator: Terminator) {
        let conn = self.slots.conn_at_mut(index);
        conn.framing.set(terminator);
        if let Some(held) = &mut conn.held {
            held.search_anew();
        }
        conn.has_backlog |= !conn.eof_told && (conn.held.is_some() || conn.framing.fires_on_nothing());
        self.touch(index);
    }

    /// The rest of the frame that has begun is dropped as it comes. `false`: its end cannot be told.
    pub(crate) fn skip_frame(&mut self, index: usize) -> bool {
        let conn = self.slots.conn_at_mut(index);
        let skips = conn.framing.skip();
        conn.has_backlog |= skips && conn.held.is_some();
        skips
    }

    /// Bytes received and not yet delivered.
    pub(crate) fn unread(&self, index: usize) -> usize {
        if self.is_current(index) {
            return self.unread;
        }
        self.slots.conn_at(index).held.as_ref().map_or(0, |held| held.len())
    }

    pub(crate) fn set_paused(&mut self, index: usize, on: bool) {
        let conn = self.slots.conn_at_mut(index);
        conn.is_paused = on;
        conn.has_failed |= on && conn.is_lifted; // who does not read on is told at once
        let key = conn.key;
        self.reading_changed(key);
    }

    pub(crate) fn set_hold_back(&mut self, index: usize, on: bool) {
        let conn = self.slots.conn_at_mut(index);
        conn.holds_back = on;
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

#[inline]
/// A long unfinished frame moves to a buffer of its own; an own one that is used up goes.
fn choose_buffer(lent: &mut LentInput<'_>) {
    if lent.uses_own {
        if lent.input().is_empty() {
            (lent.own, lent.uses_own) = (None, false);
        }
    } else if lent.shared.len() > COPY_MAX {
        let mut own = Input::with_capacity(lent.shared.len() * 2);
        lent.shared.move_into(&mut own);
        (lent.own, lent.uses_own) = (Some(Box::new(own)), true);
    }
}
