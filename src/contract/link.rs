//! One connection, by key: every command of it, free of your state's type.

use super::context::NOWHERE;
use crate::{
    address::Address,
    config::Marks,
    cx::Cx,
    endpoint::Conn,
    flags::*,
    framing::{Endian, Terminator, Width},
    hold::Hold,
    hub::Hub,
    key::Key,
    output::Producer,
    rate::Way,
    reason::{Fault, Limit, Reason},
};
use socket2::SockRef;
use std::{fmt, io, panic::Location, rc::Rc, time::Duration};

/// One connection: what [`Net::link`](crate::Net::link) finds for a key. It is an [`io::Write`].
///
/// Nothing here calls your code; effects come after the callback that is running. Once the connection has begun to end,
/// each command does nothing, and those that answer say `false`.
pub struct Link<'a> {
    pub(super) hub: &'a mut Hub,
    /// It is there: until `closed` has run, nobody else has the slot. Unless it is that of a context with another reactor's
    /// net, which names nobody.
    pub(super) key: Key,
}

impl Link<'_> {
    fn conn(&self) -> Option<&Conn> {
        self.hub.slots.conn(self.key)
    }

    /// What others see of it follows when this returns.
    #[inline]
    fn lend<T: Default>(&mut self, run: impl FnOnce(&mut Conn, &mut Cx) -> T) -> T {
        self.hub.lend_if_there(self.key, run).unwrap_or_default()
    }

    /// The same, unless it has begun to end.
    pub(super) fn lend_if_open(&mut self, run: impl FnOnce(&mut Conn, &mut Cx)) {
        if self.conn().is_some_and(Conn::is_open) {
            self.lend(run);
        }
    }

    /// Queues bytes. What a callback sends to its own connection leaves when it returns, in one system call; what is sent
    /// to others leaves at the end of the turn, in one for each. Queued bytes beyond the hard cap end the connection with
    /// [`Reason::Overflow`]; but one message of any size is taken on an empty queue.
    ///
    /// `false`: not queued, because the connection has begun to end, by this call perhaps, or was
    /// [half-closed](Self::half_close).
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send(bytes.as_ref(), cx))
    }

    /// The same for bytes that many connections are sent: they are not copied, unless there are few of them.
    pub fn send_shared(&mut self, bytes: &Rc<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send_shared(bytes, cx))
    }

    /// The bytes after their length: what [`Terminator::prefixed`] reads. More than the width can say ends the connection
    /// with [`Reason::Overflow`].
    pub fn send_prefixed(&mut self, width: Width, order: Endian, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        match width.encode(order, bytes.len()) {
            Some((prefix, used)) => self.lend(|conn, cx| conn.send_parts(&[&prefix[used], bytes], cx)),
            None if self.conn().is_some_and(Conn::takes_output) => {
                self.hub.end(self.key, Reason::Overflow);
                false
            }
            None => false,
        }
    }

    /// The bytes as a netstring: what [`Terminator::netstring`] reads.
    pub fn send_netstring(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.lend(|conn, cx| conn.send_parts(&[format!("{}:", bytes.len()).as_bytes(), bytes, b","], cx))
    }

    /// Queues whatever the producer makes; it is asked when its turn has come and the kernel takes more. More than one that
    /// waits counts as congestion. What it makes counts for the marks, not for the cap. `closed` may come first, and drops it.
    pub fn produce(&mut self, producer: impl Producer) -> bool {
        self.lend(|conn, cx| conn.produce(Box::new(producer), cx))
    }

    /// A producer that said [`NotYet`](crate::Produced::NotYet) has something: it is asked again, at the latest next turn.
    /// After a polite close, or when both ends have ended, only [`Net::wake`](crate::Net::wake) still finds it, and it has until
    /// the linger deadline.
    pub fn wake(&mut self) {
        self.lend(Conn::wake);
    }

    /// Where the next frame ends. What is already received is cut by it; nothing is lost.
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.lend_if_open(|conn, cx| conn.set_terminator(terminator, cx));
    }

    fn set_time_out(&mut self, limit: Limit, after: Option<Duration>) {
        self.lend_if_open(|conn, cx| conn.set_time_out(limit, after, cx));
    }

    /// `exceeded(Idle)` when no byte was received for so long. The clock stands still while reading is off or held back by
    /// its [rate](Self::set_read_rate), or output is queued. `None` takes it back. As for all time-outs, 1 ms is the least.
    pub fn set_idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Idle, after.into());
    }

    /// `exceeded(Stalled)` when output was queued and the peer took no byte of it for so long. What stands behind a producer
    /// that said [`NotYet`](crate::Produced::NotYet) does not count: nobody could take it. `None` takes it back.
    pub fn set_stall_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Stalled, after.into());
    }

    /// `exceeded(Deadline)` so long from now, whatever happens. A polite close that still flushes then is cut off, and the
    /// reason is [`Limit::Deadline`]. `None` takes it back.
    pub fn set_deadline(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Deadline, after.into());
    }

    /// `exceeded(FrameTime)` when a frame is not finished so long after its first byte: the answer to peers that drip. The
    /// clock is off between frames, and stands still while reading is off. `None` takes it back.
    pub fn set_frame_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::FrameTime, after.into());
    }

    /// Reads no more than so many bytes per second in the long run, and a quarter of a second's worth at once after silence
    /// (a token bucket). What is not read stays with the kernel, which slows the peer down. The idle and frame clocks stand
    /// still while the limit holds reading back; what was read is delivered at once. A connection that was reset ends at
    /// once, with what it still has. Zero counts as one. `None` takes it back, but not what its listener has
    /// [for all](crate::Listen::total_read_rate).
    pub fn set_read_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.lend_if_open(|conn, cx| conn.limit_rate(Way::In, bytes_per_second.into(), cx));
    }

    /// The same for writing: what is more stays queued, and counts for the marks. The stall clock and the linger deadline
    /// stand still while the limit holds output back. A polite close flushes at this rate, however long it takes; a FIN, a
    /// reset and the one last write after an `Err` do not wait for it. Zero counts as one. `None` takes it back.
    pub fn set_write_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.lend_if_open(|conn, cx| conn.limit_rate(Way::Out, bytes_per_second.into(), cx));
    }

    /// The output queue's marks in bytes, as [`Config::output_limits`](crate::Config::output_limits) has them for all.
    pub fn set_output_limits(&mut self, low: usize, high: usize, cap: usize) {
        self.lend_if_open(|conn, cx| conn.set_marks(Marks::new(low, high, cap), cx));
    }

    /// Whether reading stops while our own output is above the high mark. It does for accepted connections, so that a
    /// server survives a reader that is slower than its own questions; it does not for opened ones, because two ends that
    /// both hold back can wait for each other for ever.
    pub fn set_hold_back(&mut self, on: bool) {
        self.lend_if_open(|conn, cx| conn.set_hold_back(on, cx));
    }

    /// Stops reading, at once: `received`, `frame` and `eof` wait, also for what is already buffered. A connection that is
    /// reset ends nevertheless.
    pub fn pause(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, true, cx));
    }

    /// Takes [`pause`](Self::pause) back; other reasons not to read stay.
    pub fn resume(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, false, cx));
    }

    /// Stops reading as [`pause`](Self::pause) does, until this hold is [released](crate::Net::release): any number may be out,
    /// and no other nor [`resume`](Self::resume) takes it back. A successor by [`upgrade`](crate::Context::upgrade) begins without
    /// any. Where each was taken, and when, stands in [`Connection::holds`](crate::Connection::holds). Of a connection that has
    /// begun to end it holds nothing.
    #[track_caller]
    pub fn hold(&mut self) -> Hold {
        let by = Location::caller();
        match self.hub.find_open(self.key) {
            Some(_) => self.hub.lend(self.key, |conn, cx| conn.hold(by, cx)),
            None => Hold::NOTHING,
        }
    }

    /// After what is queued, a FIN: the peer sees our end. Reading goes on. A stream whose two directions have ended closes
    /// itself.
    pub fn half_close(&mut self) {
        self.lend_if_open(Conn::half_close);
    }

    /// [`close`](Self::close) once nothing is under way, with [`Reason::Drained`] (or `Eof`). Until then everything goes on. Under way
    /// is what the loop can tell: input that was not delivered, a frame that was begun, output, a `writable`, tell or offload that
    /// is to come, an answer of a request handler, a pause; and the same of those who are tied to it by a
    /// [throttle](crate::Net::throttle). Without a terminator a stream is one frame: it is begun by the first byte, and counts as
    /// over when something was sent since. A stream of which one direction has ended is under way until the other has: who has
    /// finished asking waits for the answer.
    pub fn close_when_quiet(&mut self) {
        self.lend_if_open(Conn::close_when_quiet);
    }

    /// Politely: no more input is delivered at once; what is queued is flushed, then `closed` comes with
    /// [`Reason::Finish`], or [`Reason::Eof`] if the peer had ended before. A peer that takes nothing for
    /// [`Config::linger_max`](crate::Config::linger_max) is reset, with `Limit(Linger)`.
    pub fn close(&mut self) {
        self.lend(Conn::close);
    }

    /// At once, with a reset (RST); what is queued is dropped. [`Reason::Abort`].
    pub fn abort(&mut self) {
        self.lend(Conn::abort);
    }

    /// As if its callback had returned this `Err`.
    pub fn fail(&mut self, why: impl Into<Fault>) {
        self.lend_if_open(|conn, cx| _ = conn.end(Reason::from_fault(why.into()), cx));
    }

    /// Whether the output is above the high mark, or was and is not yet down to the low one. Also when nothing can be sent
    /// any more, so that `while !link.is_congested() { link.send(…) }` ends.
    pub fn is_congested(&self) -> bool {
        self.conn().is_none_or(Conn::is_congested)
    }

    /// Bytes sent and not yet taken by the kernel.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.queued_in(&self.hub.cx))
    }

    /// Bytes received and not yet delivered: of an unfinished frame, or of what waits for reading to be on again.
    pub fn unread(&self) -> usize {
        self.conn().map_or(0, |conn| conn.unread(&self.hub.cx))
    }

    /// Since the last byte was received; if none was, since it was accepted or opened. The time is kept for connections that
    /// have a time-out, a rate, a throttle or anything else beyond the usual, and for those that were asked: of one that is asked
    /// for the first time, and has talked before, it counts from now.
    pub fn silent_for(&mut self) -> Duration {
        self.lend(|conn, cx| conn.silent_for(cx))
    }

    /// Whether the peer sends no more, as far as the system has said: also while reading is off, and what it sent before waits
    /// to be read. The end of its side need not be the end of everything: it may still read. A reset counts too.
    pub fn peer_ended(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is(EOF_SEEN | PEER_ENDED))
    }

    /// The other end. While connecting, the target that was asked for.
    pub fn peer(&self) -> &Address {
        self.conn().map_or(&NOWHERE, |conn| &conn.peer)
    }

    /// Our end. [`Address::Fd`] if there is no socket (yet).
    pub fn local(&self) -> &Address {
        self.conn().map_or(&NOWHERE, Conn::local)
    }

    /// The socket, for options that are not wrapped here ([`SockRef`]). `None` if there is none (yet). Reading, writing and
    /// closing it is the loop's.
    pub fn with_socket<T>(&self, with: impl FnOnce(SockRef<'_>) -> T) -> Option<T> {
        self.conn()?.stream.as_ref()?.socket().map(with)
    }
}

/// Whole or not at all; [`io::ErrorKind::BrokenPipe`] once the connection has begun to end. `flush` does nothing: output
/// leaves by itself.
impl io::Write for Link<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.send(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// One message, of however many pieces it is formatted.
    ///
    /// # Panics
    /// If a `Display` fails, as in every [`io::Write`]: half a message must not pass for a whole one.
    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        self.hub.cx.lent.has_whole_queue = self.queued() == 0;
        if fmt::Write::write_fmt(&mut Message(self), args).is_ok() {
            return Ok(());
        }
        assert!(!self.conn().is_some_and(Conn::takes_output), "a value that was to be sent could not be formatted");
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

struct Message<'a, 'b>(&'a mut Link<'b>);

impl fmt::Write for Message<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.send(text) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Also when formatting panicked.
impl Drop for Message<'_, '_> {
    fn drop(&mut self) {
        self.0.hub.cx.lent.has_whole_queue = false;
    }
}

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(conn) = self.conn() else { return f.debug_struct("Link").finish_non_exhaustive() };
        f.debug_struct("Link")
            .field("key", &conn.key)
            .field("peer", &conn.peer)
            .field("phase", &conn.phase)
            .field("is_connected", &conn.is(ESTABLISHED))
            .field("is_paused", &conn.is(PAUSED))
            .field("queued", &self.queued())
            .field("unread", &self.unread())
            .field("terminator", &conn.framing)
            .finish()
    }
}
