//! A connection's way out: sending, water marks, writing. Nothing here calls the program, except its producers: they are
//! asked only while it flushes.

use super::{Conn, Phase, Stuck};
use crate::{
    config::Marks,
    cx::{Cx, Note},
    flags::*,
    output::{Broken, FileRange, Output, Producer, SLICES_MAX, Spares},
    panics::{Payload, guard},
    rate::Way,
    reason::{Fault, Reason},
    world::{Moved, Stream, broken_pipe},
};
use std::{
    fs::File,
    io::{self, IoSlice},
    ops::Range,
    rc::Rc,
};

/// Shared bytes no longer than this are copied: cheaper than another piece in the queue.
const COPY_MAX: usize = 1024;

/// More producers than these in a queue, and it is congested.
const PRODUCERS_MAX: usize = 1;

/// A connection that cannot be written to any more is still read, but it must not be answered for ever. A producer counts as
/// this much.
const UNHEARD_MAX: usize = 4 << 10;

/// A lent buffer that is not full is copied into the queue up to here, and beyond it becomes part of the queue.
const MOVE_MIN: usize = 4096;

/// What it is sent.
impl Conn {
    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8], cx: &mut Cx) -> bool {
        if bytes.is_empty() {
            return self.takes_output();
        }
        if self.is_current(cx) {
            return cx.lent.push(bytes) || self.send_checked(bytes, cx);
        }
        if self.takes_plainly(bytes.len(), cx.config.marks) {
            self.output(&mut cx.spares).push(bytes);
            self.mark_dirty(cx);
            return true;
        }
        self.send_checked(bytes, cx)
    }

    pub(crate) fn send_checked(&mut self, bytes: &[u8], cx: &mut Cx) -> bool {
        if !self.admit(bytes.len(), cx) {
            return false;
        }
        self.push(bytes, cx);
        self.queued_more(cx);
        true
    }

    /// From its mate, no more than it has room for.
    pub(crate) fn send_below_high(&mut self, bytes: &[u8], cx: &mut Cx) {
        if self.takes_output() && !bytes.is_empty() {
            self.output(&mut cx.spares).push(bytes);
            self.queued_more(cx);
        } else if self.has_lost_writer() && !bytes.is_empty() {
            self.extra().odds().lost_output.get_or_insert_with(broken_pipe); // they are lost like what was queued
        }
    }

    /// The parts of one message: whole or not at all.
    pub(crate) fn send_parts(&mut self, parts: &[&[u8]], cx: &mut Cx) -> bool {
        if !self.admit(parts.iter().map(|part| part.len()).sum(), cx) {
            return false;
        }
        for part in parts {
            self.push(part, cx);
        }
        self.queued_more(cx);
        true
    }

    fn push(&mut self, bytes: &[u8], cx: &mut Cx) {
        if self.has_lent_output(cx) {
            cx.lent.out.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.output(&mut cx.spares).push(bytes);
        }
    }

    pub(crate) fn send_shared(&mut self, bytes: &Rc<[u8]>, cx: &mut Cx) -> bool {
        if bytes.len() <= COPY_MAX {
            return self.send(bytes, cx);
        }
        if !self.admit(bytes.len(), cx) {
            return false;
        }
        self.queue_lent(cx);
        self.output(&mut cx.spares).push_shared(bytes);
        self.queued_more(cx);
        true
    }

    pub(crate) fn produce(&mut self, producer: Box<dyn Producer>, cx: &mut Cx) -> bool {
        self.queue_source(|output| output.push_producer(producer), cx)
    }

    /// A part of a file: by the kernel if that was asked for, otherwise by a producer of it.
    pub(crate) fn send_file(&mut self, file: File, range: Range<u64>, cx: &mut Cx) -> bool {
        let Some(file) = FileRange::new(file, range) else { return self.takes_output() };
        if !cx.config.sendfile {
            return self.produce(Box::new(file), cx);
        }
        self.queue_source(|output| output.push_file(file), cx)
    }

    /// What gives its bytes when there is room for them.
    fn queue_source(&mut self, push: impl FnOnce(&mut Output), cx: &mut Cx) -> bool {
        if !self.takes_output() {
            self.count_unheard(UNHEARD_MAX, cx);
            return false;
        }
        self.queue_lent(cx);
        push(self.output(&mut cx.spares));
        self.queued_more(cx);
        true
    }

    /// Also on one that is still flushing. Returns whether it was there.
    pub(crate) fn wake(&mut self, cx: &mut Cx) -> bool {
        let is_there = matches!(self.phase, Phase::Open | Phase::Flushing);
        if let Some(output) = self.output.as_mut().filter(|_| is_there) {
            output.wake();
            self.touch(cx);
        }
        is_there
    }

    /// Whether this much more may be queued. Beyond the cap the connection ends, except with one large message on an empty
    /// queue. For one that is lost no more is queued than up to the high mark, and its reason is the loss.
    fn admit(&mut self, bytes: usize, cx: &mut Cx) -> bool {
        let queued = self.queued_in(cx);
        if !self.takes_output() {
            self.count_unheard(bytes, cx);
            return false;
        }
        let marks = self.marks(cx.config.marks);
        let most = if self.is(LOST) { marks.high } else { marks.cap };
        let is_behind = bytes > 0 && queued > 0 && !cx.lent.has_whole_queue;
        let fits = !is_behind || queued.saturating_add(bytes) <= most;
        if !fits && !self.is(LOST) {
            self.end(Reason::Overflow, cx);
        } else if !fits && self.is(HOLDS_BACK) {
            self.end_by_failure(cx); // it would be congested now, and not read any more
        }
        fits
    }

    /// A write has failed, and its protocol goes on answering: if that would congest it, it is not read any more.
    #[cold]
    fn count_unheard(&mut self, bytes: usize, cx: &mut Cx) {
        let most = self.marks(cx.config.marks).high.min(UNHEARD_MAX);
        if self.write_error().is_none() || !(self.is_open() && self.is(HOLDS_BACK) && self.is_current(cx)) {
            return;
        }
        let odds = self.extra().odds();
        odds.unheard = odds.unheard.saturating_add(bytes);
        if odds.unheard > most {
            self.end_if_lost(cx);
        }
    }

    /// Something was queued, or the marks changed.
    fn queued_more(&mut self, cx: &mut Cx) {
        self.look_at_marks(cx);
        self.touch(cx);
    }

    /// What still waits to go to the kernel.
    pub(crate) fn queued_in(&self, cx: &Cx) -> usize {
        self.queued() + if self.has_lent_output(cx) { cx.lent.out.len() } else { 0 }
    }

    /// Also true from the moment when it begins to end, so that a source that asks first stops.
    pub(crate) fn is_congested(&self) -> bool {
        self.is(CONGESTED) || !self.takes_output()
    }
}

/// Water marks.
impl Conn {
    pub(crate) fn set_marks(&mut self, marks: Marks, cx: &mut Cx) {
        self.extra().set_marks(Some(marks));
        if self.takes_output() && self.has_lent_output(cx) {
            cx.lent.room = marks.high;
        }
        self.queued_more(cx);
    }

    /// Congested from above the high mark until down to the low one. Several producers that wait count as above, or a peer
    /// that asks and never reads could pile them up.
    pub(crate) fn look_at_marks(&mut self, cx: &mut Cx) {
        let queued = self.queued_in(cx);
        let marks = self.marks(cx.config.marks);
        let has_pile = self.output.as_ref().is_some_and(|output| output.producers() > PRODUCERS_MAX);
        if !self.is(CONGESTED) && (queued > marks.high || has_pile) {
            self.set(CONGESTED);
            self.set_if(FAILED, self.is(LOST) && self.is(HOLDS_BACK)); // as by a pause
            self.readers_changed(cx);
        } else if self.is(CONGESTED) && queued <= marks.low && !has_pile {
            self.clear(CONGESTED);
            self.put(OWES_WRITABLE, self.takes_output());
            self.readers_changed(cx);
        }
    }

    /// Those that read only while this one is not congested.
    pub(super) fn readers_changed(&self, cx: &mut Cx) {
        cx.lent.interrupt = true;
        if let Some(ties) = self.known_ties() {
            cx.lists.notes.extend(ties.readers.iter().map(|&reader| Note::Reader(reader)));
        }
    }
}

/// Writing.
impl Conn {
    /// Its callbacks are over: what they sent leaves now, in one system call, straight from the lent buffer if the kernel
    /// takes it. Returns whether nothing is to be done for it afterwards.
    #[inline(always)]
    pub(crate) fn write_lent(&mut self, cx: &mut Cx) -> bool {
        if !(cx.lent.has_out && self.can_write_all()) {
            self.queue_lent(cx);
            cx.lent.end();
            self.flush(cx);
            return false;
        }
        let written = if cx.lent.out.is_empty() { Ok(0) } else { self.write(&cx.lent.out) };
        cx.lent.end();
        match written {
            Ok(sent) if sent == cx.lent.out.len() => {
                cx.lent.out.clear();
                if self.is_plainly_idle() {
                    return true;
                }
                self.wrote(sent, cx);
            }
            Ok(sent) => {
                let out = std::mem::take(&mut cx.lent.out);
                self.queue(out, sent, cx);
                self.wrote(sent, cx);
            }
            Err(error) => {
                cx.lent.out.clear();
                self.write_failed(error, cx);
            }
        }
        false
    }

    /// The lent buffer becomes part of the queue, so that something else can be put behind it.
    pub(crate) fn queue_lent(&mut self, cx: &mut Cx) {
        if !self.has_lent_output(cx) {
            return;
        }
        (cx.lent.has_out, cx.lent.room) = (false, 0);
        if !cx.lent.out.is_empty() {
            let out = std::mem::take(&mut cx.lent.out);
            self.queue(out, 0, cx);
        }
    }

    fn queue(&mut self, out: Vec<u8>, sent: usize, cx: &mut Cx) {
        let output = self.output(&mut cx.spares);
        if out.len() - sent < MOVE_MIN {
            output.push(&out[sent..]);
            cx.lent.out = out;
            cx.lent.out.clear();
        } else {
            output.push_vec(out, sent);
        }
    }

    /// Writes what is queued, once, as far as its rate allows.
    pub(crate) fn flush(&mut self, cx: &mut Cx) {
        if !(self.can_write() && self.has_writable_output()) {
            return self.conclude(cx);
        }
        let is_rated = self.is(RATED_OUT);
        let most = if is_rated { self.allowed(Way::Out, cx) } else { usize::MAX };
        if most == 0 {
            return;
        }
        let flushed = self.flush_once(&mut cx.spares, most);
        if let (true, Ok(taken)) = (is_rated, &flushed) {
            self.moved(Way::Out, *taken, cx);
        }
        self.flushed(flushed, cx);
    }

    /// Writes what others have queued; returns whether that was all, and nothing follows from it.
    #[inline]
    pub(crate) fn flushes_plainly(&mut self, cx: &mut Cx) -> bool {
        if self.is_plainly_writable() {
            let flushed = self.flush_once(&mut cx.spares, usize::MAX);
            if flushed.is_ok() && self.is_plainly_idle() {
                return true;
            }
            self.flushed(flushed, cx);
        } else if self.phase != Phase::Lingering {
            self.flush(cx);
        }
        false
    }

    /// What follows from having written once.
    fn flushed(&mut self, flushed: Result<usize, Stuck>, cx: &mut Cx) {
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

    /// What is behind it must not leave: the peer would get a stream with a gap.
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
        if taken > 0 && self.extra.is_some() {
            let now = cx.world.now();
            self.extra().clocks.output_moved(now);
        }
        self.look_at_marks(cx);
        self.conclude(cx);
    }

    /// The first error of a write is remembered: what the peer said before is read and delivered, then this is the reason.
    pub(super) fn write_failed(&mut self, error: io::Error, cx: &mut Cx) {
        if !self.is(LOST) {
            cx.served_at_most = 0; // others that are to be served may have gone with it
        }
        if self.is_open() && self.writes_apart() {
            return self.lose_writer(Some(error), cx);
        }
        self.drop_output();
        self.set(CUT); // what was to be written did not leave
        // A peer that does not take our answers has no more questions; and one that was to speak TLS next is not read before
        // that.
        if !self.is_open() || self.is_held_back() || self.is(SHAKING) {
            self.end(Reason::Io(error), cx);
            return;
        }
        self.extra().odds().write_error.get_or_insert(error);
        self.set(LOST);
        self.clear(OWES_WRITABLE);
        self.set_if(READABLE, !self.is(EOF_SEEN));
        self.look_at_marks(cx);
    }

    /// Nobody reads what it writes any more; what comes the other way is another matter. `lost`: the error, if something was
    /// still to be written.
    pub(super) fn lose_writer(&mut self, lost: Option<io::Error>, cx: &mut Cx) {
        self.drop_output();
        self.set(FIN_ASKED | FIN_SENT | PEER_FIRST);
        self.clear(OWES_WRITABLE);
        if self.is_current(cx) {
            cx.lent.room = 0;
        }
        if let Some(stream) = &mut self.stream {
            let _ = stream.shutdown_write(); // it is broken
        }
        let odds = self.extra().odds();
        odds.has_lost_writer = true;
        if lost.is_some() {
            odds.lost_output = lost;
        }
        self.look_at_marks(cx);
        self.touch(cx);
        self.close_if_both_ended(cx);
    }

    /// What follows when the output has left: the FIN, the end of a polite close.
    pub(super) fn conclude(&mut self, cx: &mut Cx) {
        #[cfg(feature = "tls")]
        if self.is(SHAKING) {
            self.has_left_in_clear(cx);
        }
        if self.output.is_some() {
            return;
        }
        if self.is(FIN_ASKED) && !self.is(CUT) && self.is(ESTABLISHED) && self.is_open() {
            if let Err(error) = self.send_fin() {
                self.write_failed(error, cx);
                return;
            }
        }
        if self.phase == Phase::Flushing {
            let lost = self.odds_mut().and_then(|odds| odds.write_error.take().or(odds.lost_output.take()));
            let reason = match lost {
                Some(error) => Reason::Io(error),
                None if self.is(PEER_FIRST) => Reason::Eof,
                None if self.closes_when_quiet() => Reason::Drained,
                None => Reason::Finish,
            };
            self.end(reason, cx);
        }
    }

    /// Once. Where the end is said in words, there may be no room for them: then it is tried again when there is. `Err`:
    /// they could not be written.
    pub(super) fn send_fin(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.flags.mark(FIN_SENT)) else { return Ok(()) };
        match stream.shutdown_write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear(FIN_SENT | WRITABLE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && self.ends_in_words() => self.clear(FIN_SENT),
            Err(error) if self.ends_in_words() => return Err(error),
            _ => {} // it is lost: the next read says so
        }
        Ok(())
    }
}

/// One write.
impl Conn {
    /// Writes once; returns how much the kernel took.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let moved = stream.send(bytes);
        self.note_written(moved)
    }

    /// Writes what is queued, once, no more than `most`, after having a producer make more if one is in front; returns how
    /// much the kernel took.
    #[inline]
    pub(crate) fn flush_once(&mut self, spares: &mut Spares, most: usize) -> Result<usize, Stuck> {
        let (Some(stream), Some(output)) = (&mut self.stream, &mut self.output) else { return Ok(0) };
        let moved = match output.single() {
            Some(bytes) => stream.send(&bytes[..bytes.len().min(most)]),
            None => send_pieces(stream, output, most)?,
        };
        let taken = self.note_written(moved).map_err(Stuck::Socket)?;
        if let Some(output) = &mut self.output {
            output.advance(taken);
        }
        spares.take_if_empty(&mut self.output);
        Ok(taken)
    }

    #[inline]
    fn note_written(&mut self, moved: io::Result<Moved>) -> io::Result<usize> {
        match moved {
            Ok(moved) => {
                self.clear(if moved.drained { WRITABLE | UNANSWERED } else { UNANSWERED });
                self.bytes_out += moved.bytes as u64;
                Ok(moved.bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear(WRITABLE);
                Ok(0)
            }
            // It stays writable: the next turn tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// What is queued will never leave.
    pub(crate) fn drop_output(&mut self) {
        if let Some(output) = self.output.take() {
            self.set(CUT);
            output.discard();
        }
    }
}

/// What is in front, if that is a file that the kernel takes.
fn send_file(stream: &mut Stream, output: &mut Output, most: usize) -> Option<Result<io::Result<Moved>, Stuck>> {
    let sent = stream.send_file(output.front_file()?, most);
    match sent {
        Some(Ok(Moved { bytes: 0, .. })) => {
            let error = output.front_file().map_or_else(|| io::ErrorKind::UnexpectedEof.into(), FileRange::is_too_short);
            Some(Err(Stuck::Producer(Broken::Error(error))))
        }
        Some(sent) => Some(Ok(sent)),
        None => {
            output.read_front_file();
            None
        }
    }
}

#[inline(never)]
fn send_pieces(stream: &mut Stream, output: &mut Output, most: usize) -> Result<io::Result<Moved>, Stuck> {
    if let Some(sent) = send_file(stream, output, most) {
        return sent;
    }
    while output.wants_pull() {
        guard(|| output.pull()).map_err(Stuck::Panicked)?.map_err(Stuck::Producer)?;
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    Ok(match output.slices(&mut slices, most.min(stream.send_max())) {
        0 => Ok(Moved { bytes: 0, drained: false }),
        1 => stream.send(&slices[0]),
        count => stream.send_vectored(&slices[..count]),
    })
}
