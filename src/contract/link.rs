//! One connection, by key: all its commands, free of your state's type.

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

/// One connection: every command of it, with its answer. It is also an [`io::Write`].
///
/// [`Net::link`](crate::Net::link) finds one for a key, [`Context::link`](crate::Context::link) gives that of the callback
/// that is running. Nothing here calls your code; effects come after the callback that is running. Once the connection has
/// begun to end, each command except [`abort`](Self::abort) and [`wake`](Self::wake) does nothing, and those that answer
/// return `false`. The manual goes on with [sharing state](crate::manual::sharing_state).
pub struct Link<'a> {
    pub(super) hub: &'a mut Hub,
    /// It exists: until `closed` has run, nobody else has the slot. The exception is the link of a context with another
    /// reactor's net, which names nobody.
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
/// What a connection sends to itself leaves when the callbacks of its turn are over, in one system call. What is sent to
/// others leaves at the end of the turn, in one call for each. Before a connection is connected, it is kept. Queued bytes
/// beyond the hard cap end the connection with [`Reason::Overflow`], but one message of any size is accepted on an empty
/// queue.
///
/// `false`: the bytes are not queued, because the connection has begun to end (perhaps by this very call), because it was
/// [half-closed](Self::half_close), or because a write to it has failed and only what it had received is still delivered.
impl Link<'_> {
    /// Queues bytes for the peer. They are copied.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send(bytes.as_ref(), cx))
    }

    /// Queues bytes that many connections are sent. They are not copied, unless they are 1,024 or fewer.
    pub fn send_shared(&mut self, bytes: &Rc<[u8]>) -> bool {
        self.lend(|conn, cx| conn.send_shared(bytes, cx))
    }

    /// Queues the bytes after their length, as [`Terminator::prefixed`] reads them. A length that does not fit the width
    /// ends the connection with [`Reason::Overflow`].
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

    /// Queues the bytes as a netstring, `5:hello,`, as [`Terminator::netstring`] reads it.
    pub fn send_netstring(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.lend(|conn, cx| conn.send_parts(&[format!("{}:", bytes.len()).as_bytes(), bytes, b","], cx))
    }

    /// Queues what a [`Producer`] makes. It is asked when its turn has come and the kernel takes more, never from inside a
    /// call. See [`Context::produce`](crate::Context::produce).
    pub fn produce(&mut self, producer: impl Producer) -> bool {
        self.lend(|conn, cx| conn.produce(Box::new(producer), cx))
    }

    /// Queues a part of a file, by bytes: `0..length` is all of it. It is read when its turn has come and the kernel takes
    /// more, 64 KiB at a time, so that none of it stays in memory for long; what is sent afterwards leaves behind it.
    /// Exactly the length that you asked for is sent: what the file grows by meanwhile is not sent. If the file ends before
    /// that, or there is an error, the connection ends with [`Reason::Failed`], and with a reset, because the peer must not
    /// take a part for the whole. An empty range sends nothing. Like any [producer](Self::produce) it counts for the marks,
    /// not for the cap.
    ///
    /// It is read on the loop, which waits if the disk is slow; [`send_from`](crate::Context::send_from) has another thread
    /// read. With [`Config::sendfile`](crate::Config::sendfile) the kernel sends it by itself.
    pub fn send_file(&mut self, file: File, range: Range<u64>) -> bool {
        self.lend(|conn, cx| conn.send_file(file, range, cx))
    }

    /// Has a producer that said [`NotYet`](crate::Produced::NotYet) asked again, in the next turn at the latest. After a
    /// polite close, or when both directions have ended, only [`Net::wake`](crate::Net::wake) still finds it, and it has
    /// until the linger deadline.
    pub fn wake(&mut self) {
        self.lend(Conn::wake);
    }
}

/// # Framing
impl Link<'_> {
    /// Says where the next frame ends. What has already been received is cut by it, without waiting for the next byte;
    /// nothing is lost.
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.lend_if_open(|conn, cx| conn.set_terminator(terminator, cx));
    }

    /// How many bytes were received but not delivered: bytes of an unfinished frame, or bytes that wait until reading is on
    /// again. What the kernel still holds does not count.
    pub fn unread(&self) -> usize {
        self.conn().map_or(0, |conn| conn.unread(&self.hub.cx))
    }
}

/// # Ending
///
/// What follows is the same as for a [`Context`](crate::Context#ending): `closed` comes once, at the earliest at the end of
/// this turn, never from inside a call.
impl Link<'_> {
    /// Closes politely: what is queued is flushed, then `closed` comes with [`Reason::Finish`], or [`Reason::Eof`] if
    /// the peer had ended before. A peer that takes nothing for [`Config::linger_max`](crate::Config::linger_max) is
    /// reset, with `Limit(Linger)`. One that is still connecting ends at once, unless something is queued.
    pub fn close(&mut self) {
        self.lend(Conn::close);
    }

    /// Ends our side: a FIN after what is queued. Reading goes on; what is sent from here on is not queued. A stream closes
    /// by itself when both its directions have ended and no [hold](Self::hold) is out.
    pub fn half_close(&mut self) {
        self.lend_if_open(Conn::half_close);
    }

    /// Closes once nothing is under way, with [`Reason::Drained`] (or `Eof`); until then everything goes on.
    /// [`Context::close_when_quiet`](crate::Context::close_when_quiet) says what counts as under way.
    pub fn close_when_quiet(&mut self) {
        self.lend_if_open(Conn::close_when_quiet);
    }

    /// Breaks off with a reset (RST): what is queued is dropped, and `closed` comes at the end of the turn with
    /// [`Reason::Abort`]. It also works while a polite close is flushing; by key, only [`Net::abort`](crate::Net::abort)
    /// finds the connection then.
    pub fn abort(&mut self) {
        self.lend(Conn::abort);
    }

    /// Ends it as if its callback had returned this `Err`: one write of what is queued is tried, and `closed` comes at the
    /// end of the turn with [`Reason::Failed`], or, if it is a [`Limit`], with [`Reason::Limit`].
    pub fn fail(&mut self, why: impl Into<Fault>) {
        self.lend_if_open(|conn, cx| _ = conn.end(Reason::from_fault(why.into()), cx));
    }
}

/// # Time
///
/// The time-outs are off unless they are set. One that runs out is told to [`exceeded`](crate::Protocol::exceeded), or,
/// while the connection is connecting, ends it at once. `None` turns a time-out off, and the shortest is 1 ms.
impl Link<'_> {
    fn set_time_out(&mut self, limit: Limit, after: Option<Duration>) {
        self.lend_if_open(|conn, cx| conn.set_time_out(limit, after, cx));
    }

    /// Calls `exceeded(Idle)` when no byte was received for this long. The clock stands still while reading is off or held
    /// back by its [rate](Self::set_read_rate), or output is queued.
    pub fn set_idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Idle, after.into());
    }

    /// Calls `exceeded(Stalled)` when output was queued and the peer took no byte of it for this long. What stands behind a
    /// producer that said [`NotYet`](crate::Produced::NotYet) does not count.
    pub fn set_stall_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Stalled, after.into());
    }

    /// Calls `exceeded(FrameTime)` when a frame is not finished this long after its first byte. The clock is off between
    /// frames, and stands still while reading is off.
    pub fn set_frame_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::FrameTime, after.into());
    }

    /// Calls `exceeded(Deadline)` this long from now, once, whatever happens. A connection that is still connecting then, or
    /// flushing after a polite close, ends at once, with [`Limit::Deadline`].
    pub fn set_deadline(&mut self, after: impl Into<Option<Duration>>) {
        self.set_time_out(Limit::Deadline, after.into());
    }

    /// How long ago the last byte was received; if none was, how long ago the connection was accepted or opened. The time is
    /// kept for connections that have a time-out, a rate, a throttle or anything else beyond the usual, and for those that
    /// were asked before. For one that is asked for the first time, and has received something before, it counts from now.
    pub fn silent_for(&mut self) -> Duration {
        self.lend(|conn, cx| conn.silent_for(cx))
    }
}

/// # Flow
///
/// The reasons not to read a connection are independent, and each lifts only itself; [`Context`](crate::Context#flow) lists
/// them, and what waits meanwhile.
impl Link<'_> {
    /// Stops reading, at once, until [`resume`](Self::resume). A connection that is reset ends nevertheless.
    pub fn pause(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, true, cx));
    }

    /// Takes [`pause`](Self::pause) back; other reasons not to read remain.
    pub fn resume(&mut self) {
        self.lend_if_open(|conn, cx| conn.set_paused(PAUSED, false, cx));
    }

    /// Stops reading, at once, until this hold is [released](crate::Net::release). Any number of holds may be out; no other
    /// hold, nor [`resume`](Self::resume), takes it back. [`Connection::holds`](crate::Connection::holds) says where each
    /// was taken, and when. On a connection that has begun to end it holds nothing.
    #[track_caller]
    pub fn hold(&mut self) -> Hold {
        let by = Location::caller();
        match self.hub.find_open(self.key) {
            Some(_) => self.hub.lend(self.key, |conn, cx| conn.hold(by, cx)),
            None => Hold::NOTHING,
        }
    }

    /// Says whether reading stops while its own output is congested. The default is yes for accepted connections, and no for
    /// opened ones, because two ends that both hold back can wait for each other for ever.
    pub fn set_hold_back(&mut self, on: bool) {
        self.lend_if_open(|conn, cx| conn.set_hold_back(on, cx));
    }

    /// Whether the output is above the high mark, or was and is not yet down to the low one. It is also `true` when nothing
    /// can be sent any more, so that `while !link.is_congested() { link.send(…) }` ends.
    pub fn is_congested(&self) -> bool {
        self.conn().is_none_or(Conn::is_congested)
    }

    /// How many bytes were sent and not yet taken by the kernel. What a producer still has to make does not count.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.queued_in(&self.hub.cx))
    }

    /// Sets the marks of the output, in bytes: above `high` it is congested, at `low` it is not any more, and what would go
    /// beyond `cap` ends the connection. [`Config::output_limits`](crate::Config::output_limits) sets them for all.
    pub fn set_output_limits(&mut self, low: usize, high: usize, cap: usize) {
        self.lend_if_open(|conn, cx| conn.set_marks(Marks::new(low, high, cap), cx));
    }

    /// Reads at most this many bytes per second in the long run; what is not read stays with the kernel, which slows the
    /// peer down. Zero counts as one; `None` takes the limit back. [`Context::set_read_rate`](crate::Context::set_read_rate)
    /// says more.
    pub fn set_read_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.lend_if_open(|conn, cx| conn.limit_rate(Way::In, bytes_per_second.into(), cx));
    }

    /// Writes at most this many bytes per second in the long run; the rest stays queued, and counts for the marks. Zero
    /// counts as one; `None` takes the limit back. [`Context::set_write_rate`](crate::Context::set_write_rate) says more.
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

    /// For a connection that a proxy has brought to a listener [`behind_proxy`](crate::Listen::behind_proxy), says which
    /// client it belongs to: [`peer`](Self::peer), the log and [`per_peer_max`](crate::Listen::per_peer_max) use this
    /// address from now on. You may call it again. `false`, and nothing has changed: no such listener accepted the
    /// connection, or it has begun to end. It is also `false` if this address already has as many connections as it may
    /// have: then the connection is sent the refusal and closed, as by [`send`](Self::send) and [`close`](Self::close). In
    /// [`Stats`](crate::Stats) it counts as accepted.
    pub fn set_peer(&mut self, peer: SocketAddr) -> bool {
        self.hub.set_peer(self.key, peer)
    }

    /// The address of our end. [`Address::Fd`] if there is no socket (yet).
    pub fn local(&self) -> &Address {
        self.conn().map_or(&NOWHERE, Conn::local)
    }

    /// Whether the peer sends no more, as far as the system has said: also while reading is off, and what the peer sent
    /// before still waits to be read. The end of its side need not be the end of everything: it may still read. A reset
    /// counts too.
    pub fn peer_ended(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is(EOF_SEEN | PEER_ENDED))
    }

    /// Lends the socket, for options that are not wrapped here ([`SockRef`]). `None` if there is none (yet). Leave reading,
    /// writing and closing it to the loop.
    pub fn with_socket<T>(&self, with: impl FnOnce(SockRef<'_>) -> T) -> Option<T> {
        self.conn()?.stream.as_ref()?.socket().map(with)
    }
}

/// Writes all of it or nothing; [`io::ErrorKind::BrokenPipe`] once the connection has begun to end. `flush` does nothing:
/// output leaves by itself.
impl io::Write for Link<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.send(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// One message, in however many pieces it is formatted.
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
    /// What TLS has agreed on; `None` if the connection is in clear, or its handshake is not done yet.
    pub fn tls(&self) -> Option<Tls<'_>> {
        self.conn()?.tls()
    }

    /// Goes on in TLS (STARTTLS), at any time, as either side, with the same protocol, which is told
    /// [`secured`](crate::Protocol::secured) after the handshake. What is queued now, producers included, leaves in clear
    /// before it; what is sent from here on leaves encrypted behind it. Nothing is received in between. All of it may take
    /// [`Config::handshake_max`](crate::Config::handshake_max), or what the [`TlsServer`](crate::TlsServer) says.
    ///
    /// Anything that has come in clear behind the request for TLS, and was not delivered, ends the connection, half a line
    /// as well as a whole one: somebody on the way may have put it there, for the protocol to obey as if it had come from
    /// its peer (CVE-2011-0411). There is one exception: a server takes what begins a handshake for just that, because a
    /// client behind a proxy waits for nobody. A failed handshake also ends the connection. The reason is [`Reason::Tls`],
    /// although the protocol was told `connected`.
    ///
    /// `false`: it is not connected, or has begun to end, or is about to speak TLS already. For a client without a
    /// [`server_name`](crate::TlsClient::server_name), and for a stream that no longer goes in both directions, this call is
    /// the end, with [`Reason::Tls`]; it returns `false` then too.
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
