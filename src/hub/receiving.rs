//! The way in: lending the read buffer, filling it, cutting it into frames.

use super::Hub;
use crate::{
    conn::Filled,
    input::Input,
    reason::Reason,
    terminator::{Found, Terminator},
};
use std::io;

/// A connection that holds less than this reads into the shared buffer behind a copy of it; one that holds more reads into
/// a buffer of its own. So no byte is copied more than a bounded number of times, however few come at once.
const COPY_MAX: usize = 1024;

/// The least room that is worth a system call.
const READ_MIN: usize = 4096;

/// What a connection reads into for the time of its turn.
pub(crate) struct LentInput {
    pub(crate) input: Input,
    /// It is the connection's own, not the shared one.
    is_own: bool,
    /// The connection's own, empty: it is not allocated anew for the next rest.
    spare: Option<Box<Input>>,
}

impl Hub {
    pub(crate) fn lend_input(&mut self, index: usize) -> LentInput {
        self.frame_ended = false;
        match self.slots.conn_at_mut(index).held.take() {
            Some(held) if held.len() > COPY_MAX => LentInput { input: *held, is_own: true, spare: None },
            Some(mut held) => {
                let mut input = self.take_shared();
                held.move_into(&mut input);
                LentInput { input, is_own: false, spare: Some(held) }
            }
            None => LentInput { input: self.take_shared(), is_own: false, spare: None },
        }
    }

    /// What is not consumed stays with the connection.
    pub(crate) fn return_input(&mut self, index: usize, mut lent: LentInput) {
        let conn = self.slots.conn_at_mut(index);
        let keeps = conn.is_open() && !lent.input.is_empty();
        if lent.is_own {
            conn.held = keeps.then(|| Box::new(lent.input));
        } else {
            conn.held = keeps.then(|| {
                let mut held = lent.spare.unwrap_or_default();
                lent.input.move_into(&mut held);
                held
            });
            lent.input.clear();
            self.input = lent.input;
        }
        if self.frame_ended && conn.extra.is_some() {
            self.frame_moved(index);
        }
    }

    /// A panic may have dropped it.
    fn take_shared(&mut self) -> Input {
        let input = std::mem::take(&mut self.input);
        if input.capacity() > 0 { input } else { Input::with_capacity(self.config.read_bytes) }
    }

    /// Reads once.
    pub(crate) fn fill(&mut self, index: usize, lent: &mut LentInput) -> Filled {
        self.choose_buffer(lent);
        let least = if lent.is_own { lent.input.len().clamp(READ_MIN, self.config.read_bytes) } else { 1 };
        let conn = self.slots.conn_at_mut(index);
        let filled = conn.fill(&mut lent.input, least);
        match filled {
            Filled::Bytes(_) => {
                conn.has_backlog = true;
                if let Some(extra) = &mut conn.extra {
                    extra.limits.idle.restart(self.now);
                }
            }
            Filled::Lost(error) if error.kind() == io::ErrorKind::NotFound => return self.register_again(index),
            _ => {}
        }
        filled
    }

    /// A long unfinished frame moves to a buffer of its own; an own one that is used up goes.
    fn choose_buffer(&mut self, lent: &mut LentInput) {
        if !lent.is_own && lent.input.len() > COPY_MAX {
            let mut own = Input::with_capacity(lent.input.len() * 2);
            lent.input.move_into(&mut own);
            self.input = std::mem::replace(&mut lent.input, own);
            lent.is_own = true;
        } else if lent.is_own && lent.input.is_empty() {
            lent.input = self.take_shared();
            lent.is_own = false;
        }
    }

    /// poll(2) lets go of a descriptor with an error, and mio then does not know it.
    fn register_again(&mut self, index: usize) -> Filled {
        let conn = self.slots.conn_at_mut(index);
        (conn.is_readable, conn.read_on) = (false, false);
        let token = conn.key.token();
        match conn.stream.as_mut().map_or(Ok(()), |stream| self.world.register_again(stream, token)) {
            Ok(()) => Filled::Drained,
            Err(error) => Filled::Lost(error),
        }
    }

    /// The next frame or piece of what the connection that is being served has received.
    #[inline]
    pub(crate) fn next_frame(&mut self, index: usize, input: &mut Input) -> Found {
        let found = self.slots.conn_at_mut(index).framing.next(input);
        self.unread = input.len();
        self.frame_ended |= matches!(found, Found::Frame(_) | Found::TooLong);
        found
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

    /// Whether the connection that is being served may be given what has come.
    pub(crate) fn may_deliver(&self, index: usize) -> bool {
        let conn = self.slots.conn_at(index);
        conn.is_open() && conn.is_established && self.is_reading(conn)
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

    /// There is nothing more to read of a connection that can no more be written to.
    pub(crate) fn end_if_lost(&mut self, index: usize) {
        if let Some(extra) = &mut self.slots.conn_at_mut(index).extra {
            if let Some(error) = extra.write_error.take() {
                self.end(index, Reason::Io(error));
            }
        }
    }
}
