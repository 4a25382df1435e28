//! The way out: send, marks, writing. Nothing here calls the program, except for its producers, and them only in
//! [`Hub::flush`].

use super::{Cx, Hub, NOBODY};
use crate::{
    conn::{Conn, Phase, Stuck},
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
        if self.cx.out.len() + bytes.len() <= self.cx.room {
            self.cx.out.extend_from_slice(bytes);
            return true;
        }
        self.send_checked(self.cx.current, bytes)
    }

    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return self.slots.conn_at(index).takes_output();
        }
        if index == self.cx.current {
            return self.send_current(bytes);
        }
        let conn = self.slots.conn_at_mut(index);
        if conn.takes_plainly(bytes.len(), self.cx.config.marks) {
            conn.output(&mut self.cx.spares).push(bytes);
            if !conn.mark(IN_DIRTY) {
                self.cx.dirty.push(conn.key);
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
        if index == self.cx.current && self.cx.is_lent {
            self.cx.out.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.slots.conn_at_mut(index).output(&mut self.cx.spares).push(bytes);
        }
    }

    pub(crate) fn send_shared(&mut self, index: usize, bytes: &Rc<[u8]>) -> bool {
        if bytes.len() <= COPY_MAX {
            return self.send(index, bytes);
        }
        if !self.admit(index, bytes.len()) {
            return false;
        }
        self.slots.conn_at_mut(index).queue_lent(&mut self.cx);
        self.slots.conn_at_mut(index).output(&mut self.cx.spares).push_shared(bytes);
        self.queued_more(index);
        true
    }

    pub(crate) fn produce(&mut self, index: usize, producer: Box<dyn Producer>) -> bool {
        if !self.slots.conn_at(index).takes_output() {
            return false;
        }
        self.slots.conn_at_mut(index).queue_lent(&mut self.cx);
        self.slots.conn_at_mut(index).output(&mut self.cx.spares).push_producer(producer);
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
        let is_behind = bytes > 0 && queued > 0 && !self.cx.has_whole_queue;
        if is_behind && queued.saturating_add(bytes) > conn.marks(self.cx.config.marks).cap {
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
        self.slots.conn_at(index).queued_in(&self.cx)
    }

    /// Also true from the moment it begins to end, so that a source that asks first stops.
    pub(crate) fn is_congested(&self, index: usize) -> bool {
        let conn = self.slots.conn_at(index);
        conn.is(CONGESTED) || !conn.takes_output()
    }

    /// To be flushed and settled, now or later in the turn.
    pub(super) fn touch(&mut self, index: usize) {
        if index != self.cx.current {
            self.mark_dirty(self.slots.conn_at(index).key);
        }
    }

    // ----------------------------------------------------------------------------------------------------- marks

    pub(crate) fn set_marks(&mut self, index: usize, marks: crate::config::Marks) {
        let conn = self.slots.conn_at_mut(index);
        conn.extra().marks = Some(marks);
        if conn.takes_output() && index == self.cx.current && self.cx.is_lent {
            self.cx.room = marks.high;
        }
        self.queued_more(index);
    }

    pub(crate) fn throttle(&mut self, reader: Key, writer: Key) -> bool {
        if self.slots.conn(writer).is_none_or(|conn| !conn.is_open()) {
            return false;
        }
        let targets = match self.slots.get_mut(reader) {
            Some(Entry::Stream(conn)) if conn.is_open() => &mut conn.extra().targets,
            Some(Entry::Watched(watched)) if !watched.flags.has_any(SHUT) => &mut watched.targets,
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
        self.cx.interrupt = true;
        if reader.index() != self.cx.current {
            self.mark_dirty(reader);
        }
    }

    // --------------------------------------------------------------------------------------------------- writing

    /// The callbacks of the connection that is being served are over: what they sent leaves now, in one system call,
    /// straight from the lent buffer if the kernel takes it.
    pub(crate) fn write_current(&mut self) {
        let index = self.cx.current;
        let (conn, cx) = (self.slots.conn_at_mut(index), &mut self.cx);
        if !(cx.is_lent && conn.can_write_all()) {
            conn.queue_lent(cx);
            cx.end_lending();
            return self.flush(index);
        }
        if !conn.write_lent(cx) {
            self.tell_readers();
        }
    }

    /// The same for a callback outside its turn: it leaves with the others at the end of the turn.
    pub(crate) fn queue_current(&mut self) {
        let index = self.cx.current;
        self.slots.conn_at_mut(index).queue_lent(&mut self.cx);
        self.cx.end_lending();
    }

    /// Writes what is queued, once.
    pub(crate) fn flush(&mut self, index: usize) {
        let (conn, cx) = (self.slots.conn_at_mut(index), &mut self.cx);
        if conn.is(RATED_OUT) && conn.can_write() && conn.has_writable_output() {
            self.flush_at_rate(index);
        } else {
            conn.flush_all(cx);
        }
        self.tell_readers();
    }

    #[inline(never)]
    fn flush_at_rate(&mut self, index: usize) {
        let most = self.allowed(index, Way::Out);
        if most == 0 {
            return;
        }
        let flushed = self.slots.conn_at_mut(index).flush(&mut self.cx.spares, most);
        if let Ok(taken) = &flushed {
            self.moved(index, Way::Out, *taken);
        }
        self.slots.conn_at_mut(index).flushed(flushed, &mut self.cx);
    }

    pub(super) fn look_at_marks(&mut self, index: usize) {
        self.slots.conn_at_mut(index).look_at_marks(&mut self.cx);
        self.tell_readers();
    }

    /// Those who read only while a connection is not congested that has changed.
    #[inline]
    pub(super) fn tell_readers(&mut self) {
        if !self.cx.changed.is_empty() {
            for reader in std::mem::take(&mut self.cx.changed) {
                self.mark_dirty(reader);
            }
        }
    }
}

impl Cx {
    fn end_lending(&mut self) {
        (self.current, self.is_lent, self.room) = (NOBODY, false, 0);
    }
}

/// One connection's way out, with the cx that the loop hands it.
impl Conn {
    /// Whether all of it has left, and nothing follows from that.
    #[inline(always)]
    fn write_lent(&mut self, cx: &mut Cx) -> bool {
        let written = if cx.out.is_empty() { Ok(0) } else { self.write(&cx.out) };
        let is_plain = self.is_plainly_sent();
        cx.end_lending();
        match written {
            Ok(sent) if sent == cx.out.len() => {
                cx.out.clear();
                if !is_plain {
                    self.wrote(sent, cx);
                }
                return is_plain;
            }
            Ok(sent) => {
                let out = std::mem::take(&mut cx.out);
                self.queue(out, sent, cx);
                self.wrote(sent, cx);
            }
            Err(error) => {
                cx.out.clear();
                self.write_failed(error, cx);
            }
        }
        false
    }

    /// The lent buffer becomes part of the queue, so that something else can stand behind it.
    fn queue_lent(&mut self, cx: &mut Cx) {
        if self.key.index() != cx.current || !cx.is_lent {
            return;
        }
        (cx.is_lent, cx.room) = (false, 0);
        if !cx.out.is_empty() {
            let out = std::mem::take(&mut cx.out);
            self.queue(out, 0, cx);
        }
    }

    fn queue(&mut self, out: Vec<u8>, sent: usize, cx: &mut Cx) {
        let output = self.output(&mut cx.spares);
        if out.len() - sent < MOVE_MIN {
            output.push(&out[sent..]);
            cx.out = out;
            cx.out.clear();
        } else {
            output.push_vec(out, sent);
        }
    }

    fn flush_all(&mut self, cx: &mut Cx) {
        if !(self.can_write() && self.has_writable_output()) {
            return self.conclude(cx);
        }
        let flushed = self.flush(&mut cx.spares, usize::MAX);
        self.flushed(flushed, cx);
    }

    /// What follows from having written once.
    pub(super) fn flushed(&mut self, flushed: Result<usize, Stuck>, cx: &mut Cx) {
        match flushed {
            Ok(taken) => self.wrote(taken, cx),
            Err(Stuck::Socket(error)) => self.write_failed(error, cx),
            Err(Stuck::Producer(Broken::Error(error))) => self.producer_failed(Ok(error.into()), cx),
            Err(Stuck::Producer(Broken::NoProgress)) => {
                self.producer_failed(Ok("a producer said that there is more, and made nothing".into()), cx);
            }
            Err(Stuck::Panicked(payload)) => self.producer_failed(Err(payload), cx),
        }
    }

    /// What stands behind it must not leave: the peer would get a stream with a gap.
    #[cold]
    fn producer_failed(&mut self, failure: Result<Fault, Payload>, cx: &mut Cx) {
        self.drop_output();
        self.set(CUT);
        self.end_failed(failure, cx);
    }

    fn wrote(&mut self, taken: usize, cx: &mut Cx) {
        if self.is_plainly_sent() {
            return;
        }
        if taken > 0 {
            if let Some(extra) = &mut self.extra {
                extra.limits.output_moved(cx.world.now());
            }
        }
        self.look_at_marks(cx);
        self.conclude(cx);
    }

    pub(super) fn queued_in(&self, cx: &Cx) -> usize {
        let lent = if self.key.index() == cx.current && cx.is_lent { cx.out.len() } else { 0 };
        self.queued() + lent
    }

    /// Congested from above the high mark until down to the low one; several producers that wait count as above, or a peer
    /// that asks and never reads could pile them up.
    pub(super) fn look_at_marks(&mut self, cx: &mut Cx) {
        let queued = self.queued_in(cx);
        let marks = self.marks(cx.config.marks);
        let has_pile = self.output.as_ref().is_some_and(|output| output.producers() > PRODUCERS_MAX);
        if !self.is(CONGESTED) && (queued > marks.high || has_pile) {
            self.set(CONGESTED);
            self.readers_changed(cx);
        } else if self.is(CONGESTED) && queued <= marks.low && !has_pile {
            self.clear(CONGESTED);
            self.put(OWES_WRITABLE, self.takes_output());
            self.readers_changed(cx);
        }
    }

    pub(super) fn readers_changed(&self, cx: &mut Cx) {
        cx.interrupt = true;
        if let Some(extra) = &self.extra {
            cx.changed.extend_from_slice(&extra.readers);
        }
    }

    /// The first error of a write is remembered: what the peer said before is read and delivered, then it is the reason.
    pub(super) fn write_failed(&mut self, error: io::Error, cx: &mut Cx) {
        self.drop_output();
        self.set(CUT); // what was to be written did not leave
        if !self.is_open() {
            self.end(Reason::Io(error), cx);
            return;
        }
        self.extra().write_error.get_or_insert(error);
        self.set(LIFTED);
        self.clear(OWES_WRITABLE);
        self.set_if(READABLE, !self.is(EOF_SEEN));
        self.look_at_marks(cx);
    }

    /// What follows from an output that has left: the FIN, the end of a polite close.
    pub(super) fn conclude(&mut self, cx: &mut Cx) {
        if self.output.is_some() {
            return;
        }
        if self.is(FIN_ASKED) && !self.is(FIN_SENT) && !self.is(CUT) && self.is(ESTABLISHED) && self.is_open() {
            self.set(FIN_SENT);
            if let Some(stream) = &mut self.stream {
                let _ = stream.shutdown_write(); // of a connection that is lost; reading says how
            }
        }
        if self.phase == Phase::Flushing {
            let lost = self.extra.as_mut().and_then(|extra| extra.write_error.take());
            let reason = match lost {
                Some(error) => Reason::Io(error),
                None if self.is(PEER_FIRST) => Reason::Eof,
                None => Reason::Finish,
            };
            self.end(reason, cx);
        }
    }
}
