//! The way out: send, marks, writing. Nothing here calls the program, except for its producers, and them only in
//! [`Hub::flush`].

use super::{Hub, NOBODY};
use crate::{
    conn::{Phase, Stuck},
    flags::*,
    key::Key,
    output::{Broken, Producer},
    panics::Payload,
    rate::Way,
    reason::{Fault, Reason},
    slots::Entry,
};
use std::{io, rc::Rc};

/// Shared bytes shorter than this are copied: cheaper than another piece in the queue.
const COPY_MAX: usize = 1024;

/// More producers than these in a queue, and it is congested.
const PRODUCERS_MAX: usize = 1;

/// A lent buffer that is not full is copied into the queue up to here, and beyond it becomes part of the queue.
const MOVE_MIN: usize = 4096;

impl Hub {
    /// From the callback that is running, to its own connection: one compare and a copy.
    #[inline]
    pub(crate) fn send_current(&mut self, bytes: &[u8]) -> bool {
        if self.out.len() + bytes.len() <= self.room {
            self.out.extend_from_slice(bytes);
            return true;
        }
        self.send_checked(self.current, bytes)
    }

    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return self.slots.conn_at(index).takes_output();
        }
        if index == self.current {
            return self.send_current(bytes);
        }
        let conn = self.slots.conn_at_mut(index);
        if conn.takes_plainly(bytes.len(), self.config.marks) {
            conn.output(&mut self.spares).push(bytes);
            if !conn.mark(IN_DIRTY) {
                self.dirty.push(conn.key);
            }
            return true;
        }
        self.send_checked(index, bytes)
    }

    fn send_checked(&mut self, index: usize, bytes: &[u8]) -> bool {
        if index == NOBODY || !self.admit(index, bytes.len()) {
            return false;
        }
        self.push(index, bytes);
        self.queued_more(index);
        true
    }

    /// The parts of one message: whole or not at all.
    pub(crate) fn send_parts(&mut self, index: usize, parts: &[&[u8]]) -> bool {
        if !self.admit(index, parts.iter().map(|part| part.len()).sum()) {
            return false;
        }
        for part in parts {
            self.push(index, part);
        }
        self.queued_more(index);
        true
    }

    fn push(&mut self, index: usize, bytes: &[u8]) {
        if index == self.current && self.is_lent {
            self.out.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.slots.conn_at_mut(index).output(&mut self.spares).push(bytes);
        }
    }

    pub(crate) fn send_shared(&mut self, index: usize, bytes: &Rc<[u8]>) -> bool {
        if bytes.len() <= COPY_MAX {
            return self.send(index, bytes);
        }
        if !self.admit(index, bytes.len()) {
            return false;
        }
        self.queue_lent(index);
        self.slots.conn_at_mut(index).output(&mut self.spares).push_shared(bytes);
        self.queued_more(index);
        true
    }

    pub(crate) fn produce(&mut self, index: usize, producer: Box<dyn Producer>) -> bool {
        if !self.slots.conn_at(index).takes_output() {
            return false;
        }
        self.queue_lent(index);
        self.slots.conn_at_mut(index).output(&mut self.spares).push_producer(producer);
        self.queued_more(index);
        true
    }

    /// Also for one that is still flushing. Whether it was there.
    pub(crate) fn wake(&mut self, key: Key) -> bool {
        let conn = self.slots.conn_mut(key).filter(|conn| matches!(conn.phase, Phase::Open | Phase::Flushing));
        let Some(conn) = conn else { return false };
        if let Some(output) = &mut conn.output {
            output.wake();
            self.touch(key.index());
        }
        true
    }

    /// Whether so much more may be queued. Beyond the cap the connection ends, but for one large message on an empty queue.
    fn admit(&mut self, index: usize, bytes: usize) -> bool {
        let queued = self.queued(index);
        let conn = self.slots.conn_at(index);
        if !conn.takes_output() {
            return false;
        }
        let is_behind = bytes > 0 && queued > 0 && !self.has_whole_queue;
        if is_behind && queued.saturating_add(bytes) > conn.marks(self.config.marks).cap {
            self.end(index, Reason::Overflow);
            return false;
        }
        true
    }

    /// Something was queued, or the marks changed.
    fn queued_more(&mut self, index: usize) {
        self.look_at_marks(index);
        self.touch(index);
    }

    /// What stands before the kernel.
    pub(crate) fn queued(&self, index: usize) -> usize {
        let lent = if index == self.current && self.is_lent { self.out.len() } else { 0 };
        self.slots.conn_at(index).queued() + lent
    }

    /// Also true from the moment it begins to end, so that a source that asks first stops.
    pub(crate) fn is_congested(&self, index: usize) -> bool {
        let conn = self.slots.conn_at(index);
        conn.is(CONGESTED) || !conn.takes_output()
    }

    /// Those who read only while this one is not congested.
    pub(super) fn readers_changed(&mut self, index: usize) {
        self.interrupt = true;
        let readers = self.slots.conn_at(index).extra.as_ref().map(|extra| extra.readers.clone());
        for reader in readers.unwrap_or_default() {
            self.mark_dirty(reader);
        }
    }

    /// To be flushed and settled, now or later in the turn.
    pub(super) fn touch(&mut self, index: usize) {
        if index != self.current {
            self.mark_dirty(self.slots.conn_at(index).key);
        }
    }

    // ----------------------------------------------------------------------------------------------------- marks

    pub(crate) fn set_marks(&mut self, index: usize, marks: crate::config::Marks) {
        let conn = self.slots.conn_at_mut(index);
        conn.extra().marks = Some(marks);
        if conn.takes_output() && index == self.current && self.is_lent {
            self.room = marks.high;
        }
        self.queued_more(index);
    }

    pub(crate) fn throttle(&mut self, reader: Key, writer: Key) -> bool {
        if self.slots.conn(writer).is_none_or(|conn| !conn.is_open()) {
            return false;
        }
        let targets = match self.slots.get_mut(reader) {
            Some(Entry::Stream(conn)) if conn.is_open() => &mut conn.extra().targets,
            Some(Entry::Watched(watched)) if !watched.is_ending => &mut watched.targets,
            _ => return false,
        };
        if targets.contains(&writer) {
            return true;
        }
        targets.push(writer);
        self.slots.conn_at_mut(writer.index()).extra().readers.push(reader);
        self.reading_changed(reader);
        true
    }

    pub(crate) fn unthrottle(&mut self, reader: Key, writer: Key) {
        match self.slots.get_mut(reader) {
            Some(Entry::Stream(conn)) => conn.extra().targets.retain(|&key| key != writer),
            Some(Entry::Watched(watched)) => watched.targets.retain(|&key| key != writer),
            _ => return,
        }
        if let Some(Entry::Stream(conn)) = self.slots.get_mut(writer) {
            conn.extra().readers.retain(|&key| key != reader);
        }
        self.reading_changed(reader);
    }

    /// Its pause, hold-back or throttles changed.
    pub(crate) fn reading_changed(&mut self, reader: Key) {
        self.interrupt = true;
        if reader.index() != self.current {
            self.mark_dirty(reader);
        }
    }

    // --------------------------------------------------------------------------------------------------- writing

    /// The callbacks of the connection that is being served are over: what they sent leaves now, in one system call,
    /// straight from the lent buffer if the kernel takes it.
    pub(crate) fn write_current(&mut self) {
        let index = self.current;
        let conn = self.slots.conn_at_mut(index);
        if !(self.is_lent && conn.can_write_all()) {
            self.queue_current();
            self.flush(index);
            return;
        }
        let written = if self.out.is_empty() { Ok(0) } else { conn.write(&self.out) };
        let is_plain = conn.is_plainly_sent();
        self.end_lending();
        match written {
            Ok(sent) if sent == self.out.len() => {
                self.out.clear();
                if !is_plain {
                    self.wrote(index, sent);
                }
            }
            Ok(sent) => {
                let out = std::mem::take(&mut self.out);
                self.queue(index, out, sent);
                self.wrote(index, sent);
            }
            Err(error) => {
                self.out.clear();
                self.write_failed(index, error);
            }
        }
    }

    /// The same for a callback outside its turn: it leaves with the others at the end of the turn.
    pub(crate) fn queue_current(&mut self) {
        let index = self.current;
        self.queue_lent(index);
        self.end_lending();
    }

    fn end_lending(&mut self) {
        (self.current, self.is_lent, self.room) = (NOBODY, false, 0);
    }

    /// The lent buffer becomes part of the queue, so that something else can stand behind it.
    fn queue_lent(&mut self, index: usize) {
        if index != self.current || !self.is_lent {
            return;
        }
        (self.is_lent, self.room) = (false, 0);
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.queue(index, out, 0);
        }
    }

    fn queue(&mut self, index: usize, out: Vec<u8>, sent: usize) {
        let output = self.slots.conn_at_mut(index).output(&mut self.spares);
        if out.len() - sent < MOVE_MIN {
            output.push(&out[sent..]);
            self.out = out;
            self.out.clear();
        } else {
            output.push_vec(out, sent);
        }
    }

    /// Writes what is queued, once.
    pub(crate) fn flush(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if !(conn.can_write() && conn.has_writable_output()) {
            self.conclude(index);
            return;
        }
        let is_rated = conn.is(RATED_OUT);
        let most = if is_rated { self.allowed(index, Way::Out) } else { usize::MAX };
        if most == 0 {
            return;
        }
        let flushed = self.slots.conn_at_mut(index).flush(&mut self.spares, most);
        if let (true, Ok(taken)) = (is_rated, &flushed) {
            self.moved(index, Way::Out, *taken);
        }
        self.flushed(index, flushed);
    }

    /// What follows from having written once.
    pub(super) fn flushed(&mut self, index: usize, flushed: Result<usize, Stuck>) {
        match flushed {
            Ok(taken) => self.wrote(index, taken),
            Err(Stuck::Socket(error)) => self.write_failed(index, error),
            Err(Stuck::Producer(Broken::Error(error))) => self.producer_failed(index, Ok(error.into())),
            Err(Stuck::Producer(Broken::NoProgress)) => {
                self.producer_failed(index, Ok("a producer said that there is more, and made nothing".into()));
            }
            Err(Stuck::Panicked(payload)) => self.producer_failed(index, Err(payload)),
        }
    }

    /// What stands behind it must not leave: the peer would get a stream with a gap.
    #[cold]
    fn producer_failed(&mut self, index: usize, failure: Result<Fault, Payload>) {
        let conn = self.slots.conn_at_mut(index);
        conn.drop_output();
        conn.set(CUT);
        self.end_failed(index, failure);
    }

    fn wrote(&mut self, index: usize, taken: usize) {
        let conn = self.slots.conn_at_mut(index);
        if conn.is_plainly_sent() {
            return;
        }
        if taken > 0 && conn.extra.is_some() {
            self.output_moved(index);
        }
        self.look_at_marks(index);
        self.conclude(index);
    }

    /// Congested from above the high mark until down to the low one; several producers that wait count as above, or a peer
    /// that asks and never reads could pile them up.
    pub(super) fn look_at_marks(&mut self, index: usize) {
        let queued = self.queued(index);
        let conn = self.slots.conn_at_mut(index);
        let marks = conn.marks(self.config.marks);
        let has_pile = conn.output.as_ref().is_some_and(|output| output.producers() > PRODUCERS_MAX);
        if !conn.is(CONGESTED) && (queued > marks.high || has_pile) {
            conn.set(CONGESTED);
            self.readers_changed(index);
        } else if conn.is(CONGESTED) && queued <= marks.low && !has_pile {
            conn.clear(CONGESTED);
            conn.put(OWES_WRITABLE, conn.takes_output());
            self.readers_changed(index);
        }
    }

    /// The first error of a write is remembered: what the peer said before is read and delivered, then it is the reason.
    pub(super) fn write_failed(&mut self, index: usize, error: io::Error) {
        let conn = self.slots.conn_at_mut(index);
        conn.drop_output();
        conn.set(CUT); // what was to be written did not leave
        if !conn.is_open() {
            self.end(index, Reason::Io(error));
            return;
        }
        conn.extra().write_error.get_or_insert(error);
        conn.set(LIFTED);
        conn.clear(OWES_WRITABLE);
        conn.set_if(READABLE, !conn.is(EOF_SEEN));
        self.look_at_marks(index);
    }

    /// What follows from an output that has left: the FIN, the end of a polite close.
    pub(super) fn conclude(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if conn.output.is_some() {
            return;
        }
        if conn.is(FIN_ASKED) && !conn.is(FIN_SENT) && !conn.is(CUT) && conn.is(ESTABLISHED) && conn.is_open() {
            conn.set(FIN_SENT);
            if let Some(stream) = &mut conn.stream {
                let _ = stream.shutdown_write(); // of a connection that is lost; reading says how
            }
        }
        if conn.phase == Phase::Flushing {
            let lost = conn.extra.as_mut().and_then(|extra| extra.write_error.take());
            let reason = match lost {
                Some(error) => Reason::Io(error),
                None if conn.is(PEER_FIRST) => Reason::Eof,
                None => Reason::Finish,
            };
            self.end(index, reason);
        }
    }
}
