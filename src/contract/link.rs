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
#[cfg(feature = "tls")]
use crate::{secured::Tls, tls::TlsSide};
use socket2::SockRef;
use std::{fmt, fs::File, io, net::SocketAddr, ops::Range, panic::Location, rc::Rc, time::Duration};

/// One connection: every command of it, with its answer. An [`io::Write`].
///
/// [`Net::link`](crate::Net::link) finds one for a key, [`Context::link`](crate::Context::link) has that of the
/// callback that is running. Nothing here calls your code; effects come after the callback that is running. Once the
/// connection has begun to end, each command but [`abort`](Self::abort) and [`wake`](Self::wake) does nothing, and
/// those that answer say `false`. The manual goes on with [sharing state](crate::manual::sharing_state).
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
}

/// # Sending
///
/// What a connection sends to itself leaves when the callbacks of its turn are over, in one system call; what is sent to others
/// leaves at the end of the turn, in one for each; before it is connected it is kept. Queued bytes beyond the hard cap
/// end the connection with [`Reason::Overflow`]; but one message of any size is taken on an empty queue.
///
/// `false`: not queued, because the connection has begun to end, by this call perhaps, was
/// [half-closed](Self::half_close), or a write to it has failed, and only what it had received is still delivered.
impl Link<'_> {
    /// Queues bytes for the peer. They are copied.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send(bytes.as_ref(), cx))
    }

    /// Queues bytes that many connections are sent: they are not copied, but for 1,024 or fewer.
    pub fn send_shared(&mut self, bytes: &Rc<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send_shared(bytes, cx))
    }

    /// Queues the bytes after their length: what [`Terminator::prefixed`] reads. More than the width can say ends the
    /// connection with [`Reason::Overflow`].
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

    /// Queues the bytes as a netstring, `5:hello,`: what [`Terminator::netstring`] reads.
    pub fn send_netstring(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.lend(|conn, cx| conn.send_parts(&[format!("{}:", bytes.len()).as_bytes(), bytes, b","], cx))
    }

    /// Queues what a [`Producer`] makes; it is asked when its turn has come and the kernel takes more, never from
    /// inside a call. As [`Context::produce`](crate::Context::produce).
    pub fn produce(&mut self, producer: impl Producer) -> bool {
        self.lend(|conn, cx| conn.produce(Box::new(producer), cx))
    }

    /// Queues a part of a file, by bytes: `0..length` is all of it. It is read when its turn has come and the kernel takes more, 64 KiB at
    /// a time, so that nothing of it stands in memory for long; what is sent afterwards leaves behind it. Its length is what was
    /// asked for: what the file grows by meanwhile is not sent, and an end before that, or an error, ends the
    /// connection with [`Reason::Failed`], and a reset, because the peer must not take a part for the whole. An empty range sends
    /// nothing. As any [producer](Self::produce) it counts for the marks, not for the cap.
    ///
    /// It is read on the loop, which waits for a disk that is slow; [`send_from`](crate::Context::send_from) has another thread read.
    /// With [`Config::sendfile`](crate::Config::sendfile) the kernel sends it by itself.
    pub fn send_file(&mut self, file: File, range: Range<u64>) -> bool {
        self.lend(|conn, cx| conn.send_file(file, range, cx))
    }

    /// Has a producer asked again that said [`NotYet`](crate::Produced::NotYet), at the latest in the next turn. After
    /// a polite close, or when both ends have ended, only [`Net::wake`](crate::Net::wake) still finds it, and it has
    /// until the linger deadline.
    pub fn wake(&mut self) {
        self.lend(Conn::wake);
    }
}

/// # Framing
impl Link<'_> {
    /// Says where the next frame ends. What is already received is cut by it, without waiting for the next byte;
    /// nothing is lost.
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.lend_if_open(|conn, cx| conn.set_terminator(terminator, cx));
    }

    /// How many bytes were received and are not delivered: of an unfinished frame, or of what waits for reading to be
    /// on again. What the kernel still holds does not count.
    pub fn unread(&self) -> usize {
        self.conn().map_or(0, |conn| conn.unread(&self.hub.cx))
    }
}

/// # Ending
///
/// What follows is the same as at [`Context`](crate::Context#ending): `closed` comes once, at the earliest at the end
/// of this turn, never from inside a call.
impl Link<'_> {
    /// Closes politely: what is queued is flushed, then `closed` comes with [`Reason::Finish`], or [`Reason::Eof`] if
    /// the peer had ended before. A peer that takes nothing for [`Config::linger_max`](crate::Config::linger_max) is
    /// reset, with `Limit(Linger)`. One that is still connecting ends at once, unless something is queued.
    pub fn close(&mut self) {
        self.lend(Conn::close);
    }

    /// Ends our side: a FIN after what is queued. Reading goes on; what is sent from here on is not queued. A stream
    /// whose two directions have ended closes itself, once no [hold](Self::hold) is out.
    pub fn half_close(&mut self) {
        self.lend_if_open(Conn::half_close);
    }

    /// Closes once nothing is under way, with [`Reason::Drained`] (or `Eof`); until then everything goes on. As
    /// [`Context::close_when_quiet`](crate::Context::close_when_quiet), which says what counts as under way.
    pub fn close_when_quiet(&mut self) {
        self.lend_if_open(Conn::close_when_quiet);
    }

    /// Breaks off, with a reset (RST): what is queued is dropped, and `closed` comes at the end of the turn with
    /// [`Reason::Abort`]. Also while a polite close is flushing; by key only [`Net::abort`](crate::Net::abort) finds it
    /// then.
    pub fn abort(&mut self) {
        self.lend(Conn::abort);
    }

    /// Ends it as if its callback had returned this `Err`: one write of what is queued is tried, and `closed` comes at
    /// the end of the turn with [`Reason::Failed`]; of a [`Limit`], with [`Reason::Limit`].
    pub fn fail(&mut self, why: impl Into<Fault>) {
        self.lend_if_open(|conn, cx| _ = conn.end(Reason::from_fault(why.into()), cx));
    }
}

/// # Time
///
/// The time-outs are off unless they are set. One that runs out is told to [`exceeded`](crate::Protocol::exceeded), or,
/// while it is connecting, ends the connection at once. `None` takes it back, and 1 ms is the least.
impl Link<'_> {
    fn set_time_out(&mut self, limit: Limit, after: Option<Duration>) {
        self.lend_if_open(|conn, cx| conn.set_time_out(limit, after, cx));
    }

    /// Calls `exceeded(Idle)` when no byte was received for so long. The clock stands still while reading is off or
    /// held back by its [rate](Self::set_read_rate), or output is queued.
    pub fn set_idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Idle, after.into());
    }

    /// Calls `exceeded(Stalled)` when output was queued and the peer took no byte of it for so long. What stands behind
    /// a producer that said [`NotYet`](crate::Produced::NotYet) does not count.
    pub fn set_stall_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Stalled, after.into());
    }

    /// Calls `exceeded(FrameTime)` when a frame is not finished so long after its first byte. The clock is off between
    /// frames, and stands still while reading is off.
    pub fn set_frame_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::FrameTime, after.into());
    }

    /// Calls `exceeded(Deadline)` so long from now, once, whatever happens. A connection that is still connecting then,
    /// or flushing after a polite close, ends at once, with [`Limit::Deadline`].
    pub fn set_deadline(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Deadline, after.into());
    }

    /// How long it is since the last byte was received; if none was, since it was accepted or opened. The time is kept
    /// for connections that have a time-out, a rate, a throttle or anything else beyond the usual, and for those that
    /// were asked: of one that is asked for the first time, and has talked before, it counts from now.
    pub fn silent_for(&mut self) -> Duration {
        self.lend(|conn, cx| conn.silent_for(cx))
    }
}

/// # Flow
///
/// The reasons not to read a connection are independent, and each lifts only itself; [`Context`](crate::Context#flow)
/// has them, and what waits meanwhile.
impl Link<'_> {
    /// Stops reading, at once, until [`resume`](Self::resume). A connection that is reset ends nevertheless.
    pub fn pause(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, true, cx));
    }

    /// Takes [`pause`](Self::pause) back; other reasons not to read stay.
    pub fn resume(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, false, cx));
    }

    /// Stops reading, at once, until this hold is [released](crate::Net::release): any number may be out, and no other
    /// nor [`resume`](Self::resume) takes it back. Where each was taken, and when, stands in
    /// [`Connection::holds`](crate::Connection::holds). Of a connection that has begun to end it holds nothing.
    #[track_caller]
    pub fn hold(&mut self) -> Hold {
        let by = Location::caller();
        match self.hub.find_open(self.key) {
            Some(_) => self.hub.lend(self.key, |conn, cx| conn.hold(by, cx)),
            None => Hold::NOTHING,
        }
    }

    /// Says whether reading stops while its own output is congested. It does for accepted connections, and does not for
    /// opened ones, because two ends that both hold back can wait for each other for ever.
    pub fn set_hold_back(&mut self, on: bool) {
        self.lend_if_open(|conn, cx| conn.set_hold_back(on, cx));
    }

    /// Whether the output is above the high mark, or was and is not yet down to the low one. Also when nothing can be sent
    /// any more, so that `while !link.is_congested() { link.send(…) }` ends.
    pub fn is_congested(&self) -> bool {
        self.conn().is_none_or(Conn::is_congested)
    }

    /// How many bytes were sent and are not yet taken by the kernel. What a producer has still to make does not count.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.queued_in(&self.hub.cx))
    }

    /// Sets the marks of the output, in bytes: above `high` it is congested, at `low` it is no more, and what would
    /// lead beyond `cap` ends the connection. As [`Config::output_limits`](crate::Config::output_limits) for all.
    pub fn set_output_limits(&mut self, low: usize, high: usize, cap: usize) {
        self.lend_if_open(|conn, cx| conn.set_marks(Marks::new(low, high, cap), cx));
    }

    /// Reads no more than so many bytes per second in the long run; what is not read stays with the kernel, which slows
    /// the peer down. Zero counts as one; `None` takes it back. As
    /// [`Context::set_read_rate`](crate::Context::set_read_rate).
    pub fn set_read_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.lend_if_open(|conn, cx| conn.limit_rate(Way::In, bytes_per_second.into(), cx));
    }

    /// Writes no more than so many bytes per second in the long run; what is more stays queued, and counts for the
    /// marks. Zero counts as one; `None` takes it back. As [`Context::set_write_rate`](crate::Context::set_write_rate).
    pub fn set_write_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.lend_if_open(|conn, cx| conn.limit_rate(Way::Out, bytes_per_second.into(), cx));
    }
}

/// # Its socket
impl Link<'_> {
    /// The address of the other end. While connecting, the target that was asked for.
    pub fn peer(&self) -> &Address {
        self.conn().map_or(&NOWHERE, |conn| &conn.peer)
    }

    /// Says whose connection it is that a proxy has brought to a listener [`behind_proxy`](crate::Listen::behind_proxy):
    /// [`peer`](Self::peer), the log and [`per_peer_max`](crate::Listen::per_peer_max) speak of this address from now on. It may
    /// be said again. `false`, and nothing has changed: no such listener accepted it, or it has begun to end. `false` too if there
    /// are as many connections of this address as may be: then it is sent the refusal and closed, as by [`send`](Self::send) and
    /// [`close`](Self::close). In [`Stats`](crate::Stats) it is one that was accepted.
    pub fn set_peer(&mut self, peer: SocketAddr) -> bool {
        self.hub.set_peer(self.key, peer)
    }

    /// The address of our end. [`Address::Fd`] if there is no socket (yet).
    pub fn local(&self) -> &Address {
        self.conn().map_or(&NOWHERE, Conn::local)
    }

    /// Whether the peer sends no more, as far as the system has said: also while reading is off, and what it sent
    /// before waits to be read. The end of its side need not be the end of everything: it may still read. A reset
    /// counts too.
    pub fn peer_ended(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is(EOF_SEEN | PEER_ENDED))
    }

    /// Lends the socket, for options that are not wrapped here ([`SockRef`]). `None` if there is none (yet). Reading,
    /// writing and closing it is the loop's.
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

/// # TLS
///
/// With the feature `tls`; the chapter is [TLS](crate::manual::tls).
#[cfg(feature = "tls")]
impl Link<'_> {
    /// What TLS has agreed on; `None` in clear, and as long as the handshake is not done.
    pub fn tls(&self) -> Option<Tls<'_>> {
        self.conn()?.tls()
    }

    /// Goes on in TLS (STARTTLS), at any time, as either side, with the same protocol, which is told
    /// [`secured`](crate::Protocol::secured) after the handshake. What is queued now, producers included, leaves in clear
    /// before it; what is sent from here on leaves encrypted behind it. Nothing is received in between. All of it may take
    /// [`Config::handshake_max`](crate::Config::handshake_max), or what the [`TlsServer`](crate::TlsServer) says.
    ///
    /// Whatever has come in clear behind what asked for TLS and was not delivered ends the connection, a half line as well as a
    /// whole one: somebody on the way may have put it there, for the protocol to obey as if it had come from its peer
    /// (CVE-2011-0411). Only a server takes what begins a handshake for that: a client behind a proxy waits for nobody. So does a
    /// failed handshake end it. The reason is [`Reason::Tls`], although the protocol was told `connected`.
    ///
    /// `false`: it is not connected, or has begun to end, or is about to speak TLS already. Of a client without a
    /// [`server_name`](crate::TlsClient::server_name), and of a stream that does not go in both directions any more, this call is
    /// the end, with [`Reason::Tls`]; it says `false` then too.
    pub fn start_tls(&mut self, side: impl Into<TlsSide>) -> bool {
        let TlsSide(side) = side.into();
        self.lend(|conn, cx| conn.start_tls(side, cx))
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
