//! What a callback is given: [`Context`] for a connection's own callbacks, [`Scope`] for what is not a stream.

use super::{Core, Link, Net, Next, Protocol};
use crate::{
    address::Address,
    cx::Cx,
    endpoint::Conn,
    framing::{Endian, Terminator, Width},
    hold::Hold,
    hub::Hub,
    key::{Key, Timer},
    output::Producer,
    reason::{Fault, Outcome},
};
#[cfg(feature = "tls")]
use crate::{secured::Tls, tls::TlsSide};
use std::{fmt, fs::File, io, net::IpAddr, ops::Range, rc::Rc, time::Duration};

/// The address where there is no connection.
pub(super) static NOWHERE: Address = Address::Fd;

/// What a connection's callback may do: the commands of its own connection, and everything else through `net`.
///
/// In this order: [sending](#sending), [framing](#framing), [ending](#ending), [time](#time), [flow](#flow), [this
/// connection and others](#this-connection-and-others), [work elsewhere](#work-elsewhere). The manual goes on with
/// [protocols](crate::manual::protocols).
///
/// * Nothing here calls your code, and nothing waits: the effects of a command come after the callback that is running.
/// * Commands return nothing, and except for [`abort`](Self::abort) and [`wake`](Self::wake) they do nothing once the
///   connection has begun to end; [`link`](Self::link) has the same commands with their answers.
/// * `net` and `key` are fields so that the borrow checker sees them apart: you can read one while you use the other. Only
///   read them: a command goes to the connection whose callback is running, whatever you write into `key`, and does nothing
///   while another reactor's net is in the place of `net`. When the callback returns, the loop goes on with the connection
///   that it has served.
#[non_exhaustive]
pub struct Context<'a, S = ()> {
    /// Every other connection, timers, the loop itself.
    pub net: Net<'a, S>,
    /// This connection.
    pub key: Key,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(core: &'a mut Core<S>, key: Key) -> Self {
        Self { net: Net { core }, key }
    }

    /// One for the program, which may write into it whatever it likes. Code that goes on after a callback keeps its own.
    #[inline(always)]
    pub(crate) fn lent(&mut self) -> Context<'_, S> {
        Context::new(self.net.core, self.key)
    }

    pub(crate) fn hub(&mut self) -> &mut Hub {
        &mut self.net.core.hub
    }

    /// Runs one callback, with a context of its own; the watchdog, if it is on, looks at the clock.
    #[inline(always)]
    pub(crate) fn timed<T>(
        &mut self,
        protocol: &'static str,
        callback: &'static str,
        run: impl FnOnce(&mut Context<'_, S>) -> T,
    ) -> T {
        self.hub().begin_timing();
        let result = run(&mut self.lent());
        let key = self.key;
        self.hub().end_timing(Some(key), protocol, callback);
        result
    }

    /// The connection, with what it needs of the loop; for what concerns no other connection. Only for the loop's own
    /// context.
    #[inline]
    pub(crate) fn pair(&mut self) -> (&mut Conn, &mut Cx) {
        self.net.core.hub.pair(self.key)
    }

    /// The connection whose callback is running: what the loop says, not what `key` says. If `net` is another reactor's,
    /// none is running, and this is a key that names nothing.
    pub(crate) fn own(&self) -> Key {
        self.conn().map_or(Key::NOBODY, |conn| conn.key)
    }

    fn conn(&self) -> Option<&Conn> {
        self.net.core.hub.current()
    }
}

/// # Sending
///
/// What a connection sends in its turn (`connected`, `received`, `frame`, `draining`, `eof`) leaves when these callbacks are
/// over, in one system call; what is sent from elsewhere (`writable`, a time-out, a timer, a tell) leaves at the end of the
/// turn. Queued bytes beyond the hard cap ([`set_output_limits`](Self::set_output_limits)) end the connection with
/// [`Reason::Overflow`](crate::Reason::Overflow), but one message of any size is accepted on an empty queue. After a
/// [`half_close`](Self::half_close) nothing is queued any more.
impl<S> Context<'_, S> {
    /// Queues bytes for the peer. They are copied.
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.net.core.hub.send_current(bytes.as_ref());
    }

    /// Formats into the output, as one message: `writeln!(ctx, "{} points", n)`. It returns nothing, so no `?` follows.
    ///
    /// # Panics
    /// If a `Display` fails: half a message must not pass for a whole one.
    pub fn write_fmt(&mut self, args: fmt::Arguments<'_>) {
        // It fails when the connection has begun to end; sending does nothing then.
        let _ = io::Write::write_fmt(&mut self.link(), args);
    }

    /// Queues bytes that many connections are sent. They are not copied, unless they are 1,024 or fewer.
    /// [`Net::send_shared`] sends them to the others.
    pub fn send_shared(&mut self, bytes: &Rc<[u8]>) {
        self.link().send_shared(bytes);
    }

    /// Queues the bytes after their length, as [`Terminator::prefixed`] reads them. A length that does not fit the width
    /// ends the connection with [`Reason::Overflow`](crate::Reason::Overflow).
    pub fn send_prefixed(&mut self, width: Width, order: Endian, bytes: impl AsRef<[u8]>) {
        self.link().send_prefixed(width, order, bytes);
    }

    /// Queues the bytes as a netstring, `5:hello,`, as [`Terminator::netstring`] reads it.
    pub fn send_netstring(&mut self, bytes: impl AsRef<[u8]>) {
        self.link().send_netstring(bytes);
    }

    /// Queues what a [`Producer`] makes, so that a large answer is never in memory as a whole. The loop asks it when its
    /// turn has come and the kernel takes more, never from inside a call. What is sent afterwards leaves behind it.
    ///
    /// What it makes counts for the marks, not for the cap. More than one waiting producer is
    /// [congestion](Self::is_congested). If `closed` comes first, it drops the producer.
    ///
    /// # Errors
    /// If the producer returns an `Err`, the connection ends with [`Reason::Failed`](crate::Reason::Failed).
    pub fn produce(&mut self, producer: impl Producer) {
        self.link().produce(producer);
    }

    /// Queues a part of a file, which is read when its turn has come, as by [`Link::send_file`].
    pub fn send_file(&mut self, file: File, range: Range<u64>) {
        self.link().send_file(file, range);
    }

    /// Has a producer that said [`NotYet`](crate::Produced::NotYet) asked again, in the next turn at the latest. After a
    /// polite close, or when both directions have ended, only [`Net::wake`] still finds it, and it has until the linger
    /// deadline.
    pub fn wake(&mut self) {
        self.link().wake();
    }
}

/// # Framing
///
/// You say once where a frame ends, and can change it in any callback. The chapter on [framing](crate::manual::framing) has
/// all the kinds there are.
impl<S> Context<'_, S> {
    /// Says where the next frame ends. What has already been received is cut by it too; nothing is lost. If you set it in
    /// [`exceeded`](Protocol::exceeded), for a frame, it applies after what is skipped.
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.link().set_terminator(terminator);
    }

    /// Makes the last `bytes` bytes that this [`frame`](Protocol::frame) or [`received`](Protocol::received) was given
    /// unread again, for the next terminator or a [successor](Self::upgrade). So one port can find out by the first bytes
    /// which protocol is spoken. What stands behind them comes back with them: the delimiter that ended the frame (which
    /// counts as [`unread`](Self::unread) only when the callback has returned). If you call it again, it puts back that many
    /// more.
    ///
    /// If you set no other terminator, nothing is delivered until more bytes come, or reading goes on after a pause; then
    /// they are cut together with the new bytes. At the end of the stream they are the tail of `eof`. If what you put back
    /// has no bound, you keep as much as the peer wants you to keep. What a framer has decoded in place comes back decoded.
    ///
    /// # Panics
    /// If the callback was given less. Only `frame` and `received` are given anything, so in every other callback it is a
    /// mistake.
    #[track_caller]
    pub fn put_back(&mut self, bytes: usize) {
        if self.conn().is_some_and(|conn| conn.is_open() || conn.is_detaching()) {
            self.hub().cx.put_back(bytes);
        }
    }

    /// How many bytes were received but not delivered: bytes of an unfinished frame, or bytes that wait until reading is on
    /// again. Inside `frame` and `received`, it is what follows this one in the same read. What the kernel still holds does
    /// not count.
    pub fn unread(&self) -> usize {
        self.conn().map_or(0, |conn| conn.unread(&self.net.core.hub.cx))
    }
}

/// # Ending
///
/// Each connection ends once, with `closed` and one [`Reason`](crate::Reason). From `close`, `abort`, `fail` or an `Err` on,
/// nothing more is delivered; its timers, and what was to follow its work elsewhere, are dropped; only tells that were
/// accepted before still come. The first cause counts, but a polite close that is still flushing is overtaken by an abort,
/// an error or a limit. The chapter on [closing](crate::manual::closing) compares the ways.
impl<S> Context<'_, S> {
    /// Closes politely: what is queued is flushed, then `closed` comes with [`Reason::Finish`](crate::Reason::Finish), or
    /// [`Eof`](crate::Reason::Eof) if the peer had ended before. A peer that takes nothing for
    /// [`Config::linger_max`](crate::Config::linger_max) is reset, with `Limit(Linger)`; a [deadline](Self::set_deadline)
    /// keeps running.
    pub fn close(&mut self) {
        self.link().close();
    }

    /// Ends our side: a FIN after what is queued. Reading goes on; what is sent from here on is not queued. A stream closes
    /// by itself when both its directions have ended and no [hold](Self::hold) is out.
    pub fn half_close(&mut self) {
        self.link().half_close();
    }

    /// Closes, as [`close`](Self::close) does, once nothing is under way, with [`Reason::Drained`](crate::Reason::Drained)
    /// (or `Eof`). Until then everything goes on. This is what [`draining`](Protocol::draining) does by default.
    ///
    /// "Under way" is what the loop can tell: input that was not delivered, a frame that was begun, output, a `writable`,
    /// tell or offload that is still to come, a pending answer of a request handler, a pause, a hold or a
    /// [save](Self::save); and the same of connections that are tied to it by a [throttle](Self::throttle). Without a
    /// terminator a stream is one frame: it begins with the first byte, and counts as over once something was sent after it.
    /// A stream of which one direction has ended is under way until the other has ended too: a peer that has finished asking
    /// waits for the answer.
    pub fn close_when_quiet(&mut self) {
        self.link().close_when_quiet();
    }

    /// Breaks off with a reset (RST): what is queued is dropped, and `closed` comes at the end of the turn with
    /// [`Reason::Abort`](crate::Reason::Abort). It also works while a polite close is flushing.
    pub fn abort(&mut self) {
        self.link().abort();
    }

    /// Ends it as if this callback had returned this `Err`: one write of what is queued is tried, and `closed` comes at the
    /// end of the turn with [`Reason::Failed`](crate::Reason::Failed), or, if it is a [`Limit`](crate::Limit), with
    /// [`Reason::Limit`](crate::Reason::Limit).
    pub fn fail(&mut self, why: impl Into<Fault>) {
        self.link().fail(why);
    }
}

/// # Time
///
/// There are four **time-outs**. They are off unless they are set, here or by the [listener](crate::Listen::idle_timeout)
/// for each connection. One that runs out is told to [`exceeded`](Protocol::exceeded), whose default ends the connection
/// with [`Reason::Limit`](crate::Reason::Limit). `None` turns a time-out off, and the shortest is 1 ms.
///
/// **Timers** are never early. They call the protocol as a callback does: an `Err` ends the connection. They are dropped
/// when it begins to end or is [upgraded](Self::upgrade), and by [`Net::cancel`]. The chapter on [timers and
/// threads](crate::manual::timers_and_threads) has more on both.
impl<S> Context<'_, S> {
    /// Calls `exceeded(Idle)` when no byte was received for this long. The clock stands still while reading is off or held
    /// back by its [rate](Self::set_read_rate), or output is queued.
    pub fn set_idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_idle_timeout(after);
    }

    /// Calls `exceeded(Stalled)` when output was queued and the peer took no byte of it for this long. What stands behind a
    /// producer that said [`NotYet`](crate::Produced::NotYet) does not count: the peer could not take it.
    pub fn set_stall_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_stall_timeout(after);
    }

    /// Calls `exceeded(FrameTime)` when a frame is not finished this long after its first byte: the answer to peers that
    /// send byte by byte. The clock is off between frames, and stands still while reading is off.
    pub fn set_frame_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_frame_timeout(after);
    }

    /// Calls `exceeded(Deadline)` this long from now, once, whatever happens. A connection that is still connecting then, or
    /// flushing after a polite close, ends at once, with `Limit(Deadline)`.
    pub fn set_deadline(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_deadline(after);
    }

    /// How long the frame that is being delivered took to arrive, from its first byte, as
    /// [`set_frame_timeout`](Self::set_frame_timeout) counts it. So if a whole request has a time limit, you can make what
    /// is left of it the deadline of the rest. It is measured only for connections that have a frame time-out; for others it
    /// is zero. Outside of `frame` and `received` it is the age of the frame that was begun.
    pub fn frame_age(&self) -> Duration {
        self.conn().map_or(Duration::ZERO, |conn| conn.frame_age(&self.net.core.hub.cx))
    }

    /// Calls this protocol after `delay`, unless the connection has begun to end by then.
    pub fn after<P: Protocol<S>>(
        &mut self,
        delay: Duration,
        then: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        let own = self.own();
        self.net.tell_after(own, delay, then)
    }

    /// Calls this protocol every `period` (at least 1 ms) until the connection begins to end. It keeps its phase: calls that
    /// a long callback made it miss are skipped.
    pub fn every<P: Protocol<S>>(
        &mut self,
        period: Duration,
        then: impl FnMut(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        let own = self.own();
        self.net.tell_every(own, period, then)
    }
}

/// # Flow
///
/// A connection is read, and given what it holds, unless there is a reason not to: a pause, a hold, its own congestion, a
/// throttle. Each lifts only itself. While reading is off, `received`, `frame` and `eof` wait, also for what is already
/// buffered; a connection that is reset ends nevertheless. A rate delays only what is not read yet. The chapter is
/// [back-pressure](crate::manual::back_pressure).
impl<S> Context<'_, S> {
    /// Stops reading, at once, until [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.link().pause();
    }

    /// Takes [`pause`](Self::pause) back; other reasons not to read remain.
    pub fn resume(&mut self) {
        self.link().resume();
    }

    /// Stops reading, at once, until this hold is [released](Self::release). Any number of holds may be out; none takes
    /// another back, nor does [`resume`](Self::resume). A successor by [`upgrade`](Self::upgrade) begins without any.
    /// [`Connection::holds`](crate::Connection::holds) says where each was taken, and when.
    #[track_caller]
    pub fn hold(&mut self) -> Hold {
        self.link().hold()
    }

    /// Takes a hold back, of this connection or of another one. Reading goes on once no hold is out and nothing else is in
    /// the way.
    pub fn release(&mut self, hold: Hold) {
        self.net.release(hold);
    }

    /// Stops reading this connection while the output of `writer` is congested, so that what comes here and is passed on
    /// does not pile up there. It copies nothing. It lasts until [`Net::unthrottle`], an upgrade of this connection, or the
    /// end of either. [`Net::pair`] sets it both ways, and passes bytes on by itself.
    pub fn throttle(&mut self, writer: Key) {
        let own = self.own();
        self.net.throttle(own, writer);
    }

    /// Says whether reading stops while our own output is congested. The default is yes for accepted connections, so that a
    /// server survives a client that sends requests faster than it reads the answers; and no for opened ones, because two
    /// ends that both hold back can wait for each other for ever.
    pub fn set_hold_back(&mut self, on: bool) {
        self.link().set_hold_back(on);
    }

    /// Whether the output is above the high mark, or was and is not yet down to the low one, at which
    /// [`writable`](Protocol::writable) is called. It is also `true` when nothing can be sent any more, so that
    /// `while !ctx.is_congested() { ctx.send(…) }` ends.
    pub fn is_congested(&self) -> bool {
        self.conn().is_none_or(Conn::is_congested)
    }

    /// How many bytes were sent and not yet taken by the kernel. What a producer still has to make does not count.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.queued_in(&self.net.core.hub.cx))
    }

    /// Sets the marks of the output, in bytes: above `high` it is congested, at `low` it is not any more, and what would go
    /// beyond `cap` ends the connection. `high` is at most `cap`, `low` at most `high`. Default: those of its
    /// [listener](crate::Listen::output_limits), or of the [`Config`](crate::Config::output_limits).
    pub fn set_output_limits(&mut self, low: usize, high: usize, cap: usize) {
        self.link().set_output_limits(low, high, cap);
    }

    /// Reads at most this many bytes per second in the long run, and a quarter of a second's worth at once after a silence
    /// (a token bucket). What is not read stays with the kernel, which slows the peer down; the idle and frame clocks stand
    /// still meanwhile. What was read is delivered at once, and a connection that was reset ends at once, with what it still
    /// has. Zero counts as one. `None` takes the limit back, but not the one that its listener has [for
    /// all](crate::Listen::total_read_rate).
    pub fn set_read_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.link().set_read_rate(bytes_per_second);
    }

    /// Writes at most this many bytes per second, counted as for [`set_read_rate`](Self::set_read_rate). The rest stays
    /// queued, and counts for the marks; the stall clock and the linger deadline stand still meanwhile. A polite close
    /// flushes at this rate, however long it takes; a FIN, a reset and the one last write after an `Err` do not wait for it.
    pub fn set_write_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.link().set_write_rate(bytes_per_second);
    }
}

/// # This connection and others
///
/// You reach all other connections through the field [`net`](Net), by their [`Key`]s.
impl<S> Context<'_, S> {
    /// This connection's commands, with their answers; and what is asked for more rarely, such as its socket.
    pub fn link(&mut self) -> Link<'_> {
        Link { key: self.own(), hub: &mut self.net.core.hub }
    }

    /// The address of the other end. While connecting, the target that was asked for.
    pub fn peer(&self) -> &Address {
        self.conn().map_or(&NOWHERE, |conn| &conn.peer)
    }

    /// The address of our end. [`Address::Fd`] if there is no socket (yet).
    pub fn local(&self) -> &Address {
        self.conn().map_or(&NOWHERE, Conn::local)
    }

    /// Makes this connection something else when the callback returns `Ok`: `next` gets the unread bytes and its own
    /// [`connected`](Protocol::connected), in a later turn, and the predecessor is dropped without `closed`. If the
    /// connection has begun to end, `next` is dropped.
    ///
    /// `next` starts clean: terminator `None`, not paused, holding back as a new connection does, no throttle, and with the
    /// time-outs, rate limits and output limits that its [listener](crate::Listen) has for each connection, or the
    /// [`Config`](crate::Config::output_limits). It gets none of the timers, tells and offloads of its predecessor. What
    /// belongs to the connection stays: queued output, a [pair](Net::pair), and what it owns; a deadline of the listener
    /// keeps running. In `eof`, `tail` counts as unread: `next` is given it, and the end, again. A `writable` that its
    /// predecessor was owed comes to `next`; a `draining` that was already told does not: ask [`Net::is_draining`].
    pub fn upgrade(&mut self, next: impl Protocol<S>) {
        if self.conn().is_none() {
            return;
        }
        self.net.core.next = Some(Next::Successor(Box::new((next,))));
        self.hub().cx.lent.interrupt = true;
    }
}

/// # TLS
///
/// With the feature `tls`; the chapter is [TLS](crate::manual::tls).
#[cfg(feature = "tls")]
impl<S> Context<'_, S> {
    /// What TLS has agreed on; `None` if the connection is in clear.
    pub fn tls(&self) -> Option<Tls<'_>> {
        self.conn()?.tls()
    }

    /// Goes on in TLS (STARTTLS), with `next`, which is told [`connected`](Protocol::connected) after the handshake, or, if
    /// that fails, only [`closed`](Protocol::closed). Otherwise it is an [`upgrade`](Self::upgrade).
    /// [`Link::start_tls`](crate::Link::start_tls), which goes on with this protocol, says what leaves in clear and what is
    /// refused.
    pub fn start_tls(&mut self, side: impl Into<TlsSide>, next: impl Protocol<S>) {
        if self.link().start_tls(side) {
            self.upgrade(next);
        }
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("key", &self.key).field("peer", self.peer()).finish_non_exhaustive()
    }
}

/// What a callback of a [`Dispatcher`](crate::Dispatcher) or a [`Datagram`](crate::Datagram) may do. Only read its fields,
/// as those of a [`Context`].
pub struct Scope<'a, S = ()> {
    /// Every connection, timers, the loop itself.
    pub net: Net<'a, S>,
    /// This dispatcher, or this datagram socket.
    pub key: Key,
    own: Key,
    /// The sender of the datagram that was received.
    from: Option<&'a Address>,
    #[cfg(feature = "udp-batch")]
    to: Option<IpAddr>,
}

impl<'a, S> Scope<'a, S> {
    pub(crate) fn new(core: &'a mut Core<S>, key: Key) -> Self {
        Self {
            net: Net { core },
            key,
            own: key,
            from: None,
            #[cfg(feature = "udp-batch")]
            to: None,
        }
    }

    pub(crate) fn from(core: &'a mut Core<S>, key: Key, from: &'a Address) -> Self {
        Self { from: Some(from), ..Self::new(core, key) }
    }

    #[cfg(feature = "udp-batch")]
    pub(super) fn sent_to(self, to: Option<IpAddr>) -> Self {
        Self { to, ..self }
    }

    /// Ends it: `closed` comes at the end of the turn.
    pub fn close(&mut self) {
        let own = self.own;
        self.net.close(own);
    }

    /// Ends a datagram socket once what has arrived is received, and all that waits has left, with
    /// [`Reason::Drained`](crate::Reason::Drained). For a dispatcher it is [`close`](Self::close).
    pub fn close_when_quiet(&mut self) {
        let own = self.own;
        if self.net.core.hub.slots.datagrams(own).is_some() {
            self.net.core.hub.close_datagrams_when_quiet(own);
        } else {
            self.net.close(own);
        }
    }

    /// Sends a datagram to the sender of the one that was received. `false`: this is outside of `received` and `oversized`,
    /// or it was not sent, as [`Net::send_to`] says.
    pub fn reply(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let Some(from) = self.from else { return false };
        let own = self.own;
        self.net.send_to(own, from, bytes)
    }

    /// The address that the datagram was sent to: the one that the socket is bound to. `None` outside of `received` and
    /// `oversized`. Behind `0.0.0.0` and `::` it is also `None`, unless the socket was bound by `Bind::batch` (feature
    /// `udp-batch`): the kernel tells the address only then.
    pub fn to(&self) -> Option<IpAddr> {
        self.from?;
        #[cfg(feature = "udp-batch")]
        if self.to.is_some() {
            return self.to;
        }
        let local = self.net.local(self.own)?.ip()?.ip();
        (!local.is_unspecified()).then_some(local)
    }
}

impl<S> fmt::Debug for Scope<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("key", &self.key).finish_non_exhaustive()
    }
}
