//! What a callback is given: [`Context`] for a connection's own, [`Scope`] for what is no stream.

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
use std::{fmt, io, rc::Rc, time::Duration};

/// Where nobody is.
pub(super) static NOWHERE: Address = Address::Fd;

/// What a connection's callback may do: the commands of its own connection, and everything else through `net`.
///
/// `net` and `key` are fields, so that the borrow checker sees them apart: you can read one while you use the other. They
/// are there to be read: a command of this context goes to the connection whose callback is running, whatever you write into
/// `key`; and does nothing while another reactor's net is in the place of `net`. When the callback returns, the loop goes on
/// with what it has served.
///
/// Commands of its own say nothing back, and do nothing once the connection has begun to end; [`link`](Self::link) has
/// the same ones with their answers.
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

    /// One for the program, which may write into it what it likes. Whoever goes on after a callback keeps its own.
    #[inline(always)]
    pub(crate) fn lent(&mut self) -> Context<'_, S> {
        Context::new(self.net.core, self.key)
    }

    pub(crate) fn hub(&mut self) -> &mut Hub {
        &mut self.net.core.hub
    }

    /// Runs one callback, with a context that is its own; the watchdog, if it is on, looks at the clock.
    #[inline(always)]
    pub(crate) fn timed<T>(&mut self, protocol: &str, callback: &'static str, run: impl FnOnce(&mut Context<'_, S>) -> T) -> T {
        let began = self.hub().begin_timing();
        let result = run(&mut self.lent());
        let key = self.key;
        self.hub().end_timing(Some(key), protocol, callback, began);
        result
    }

    /// The connection, with what it needs of the loop; for what concerns no other one. Of the loop's own context only.
    #[inline]
    pub(crate) fn pair(&mut self) -> (&mut Conn, &mut Cx) {
        self.net.core.hub.pair(self.key)
    }

    /// The connection whose callback is running: what the loop says, and not what stands in `key`. A key that names nothing
    /// if none is, because `net` is another reactor's.
    pub(crate) fn own(&self) -> Key {
        self.conn().map_or(Key::NOBODY, |conn| conn.key)
    }

    fn conn(&self) -> Option<&Conn> {
        self.net.core.hub.current()
    }

    /// This connection's commands, with their answers.
    pub fn link(&mut self) -> Link<'_> {
        Link { key: self.own(), hub: &mut self.net.core.hub }
    }

    /// [`Link::send`].
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.net.core.hub.send_current(bytes.as_ref());
    }

    /// For `writeln!(ctx, "{} points", n)`: formats into the output.
    pub fn write_fmt(&mut self, args: fmt::Arguments<'_>) {
        // It fails when the connection has begun to end, where sending does nothing.
        let _ = io::Write::write_fmt(&mut self.link(), args);
    }

    /// [`Link::send_shared`].
    pub fn send_shared(&mut self, bytes: &Rc<[u8]>) {
        self.link().send_shared(bytes);
    }

    /// [`Link::send_prefixed`].
    pub fn send_prefixed(&mut self, width: Width, order: Endian, bytes: impl AsRef<[u8]>) {
        self.link().send_prefixed(width, order, bytes);
    }

    /// [`Link::send_netstring`].
    pub fn send_netstring(&mut self, bytes: impl AsRef<[u8]>) {
        self.link().send_netstring(bytes);
    }

    /// [`Link::produce`].
    pub fn produce(&mut self, producer: impl Producer) {
        self.link().produce(producer);
    }

    /// [`Link::wake`].
    pub fn wake(&mut self) {
        self.link().wake();
    }

    /// [`Link::set_terminator`].
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.link().set_terminator(terminator);
    }

    /// The last `bytes` bytes of what this [`frame`](Protocol::frame) or [`received`](Protocol::received) was given are unread
    /// again, for the next terminator or a [successor](Self::upgrade): so one port finds out by the first bytes which protocol
    /// is spoken. With them comes what stands behind them, the delimiter that ended the frame (which counts as
    /// [`unread`](Self::unread) only when the callback has returned). Called again, it puts back so many more.
    ///
    /// If no other terminator follows, nothing is delivered until more comes, or reading goes on after a pause; then they are
    /// cut together with what is new. At the end of the stream they are the tail of `eof`. Who puts back what has no bound
    /// keeps what the peer wants it to keep. What a framer has decoded in place comes back decoded.
    ///
    /// # Panics
    /// If the call was given less. Only `frame` and `received` are given anything, so it is a mistake in every other callback.
    #[track_caller]
    pub fn put_back(&mut self, bytes: usize) {
        if self.conn().is_some_and(Conn::is_open) {
            self.hub().cx.put_back(bytes);
        }
    }

    /// [`Link::set_idle_timeout`].
    pub fn set_idle_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_idle_timeout(after);
    }

    /// [`Link::set_stall_timeout`].
    pub fn set_stall_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_stall_timeout(after);
    }

    /// [`Link::set_deadline`].
    pub fn set_deadline(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_deadline(after);
    }

    /// [`Link::set_frame_timeout`].
    pub fn set_frame_timeout(&mut self, after: impl Into<Option<Duration>>) {
        self.link().set_frame_timeout(after);
    }

    /// [`Link::set_read_rate`].
    pub fn set_read_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.link().set_read_rate(bytes_per_second);
    }

    /// [`Link::set_write_rate`].
    pub fn set_write_rate(&mut self, bytes_per_second: impl Into<Option<u64>>) {
        self.link().set_write_rate(bytes_per_second);
    }

    /// [`Link::set_output_limits`].
    pub fn set_output_limits(&mut self, low: usize, high: usize, cap: usize) {
        self.link().set_output_limits(low, high, cap);
    }

    /// [`Link::set_hold_back`].
    pub fn set_hold_back(&mut self, on: bool) {
        self.link().set_hold_back(on);
    }

    /// [`Link::pause`].
    pub fn pause(&mut self) {
        self.link().pause();
    }

    /// [`Link::resume`].
    pub fn resume(&mut self) {
        self.link().resume();
    }

    /// Stops reading until this hold is [released](Self::release): `received`, `frame` and `eof` wait, also for what is already
    /// buffered. Any number may be out, of whoever has a reason; none takes another back, nor does [`resume`](Self::resume).
    /// [`Link::hold`] has the fine print.
    #[track_caller]
    pub fn hold(&mut self) -> Hold {
        self.link().hold()
    }

    /// Takes a hold back, of this connection or of another one. Reading goes on once none is out, and nothing else is in the way.
    pub fn release(&mut self, hold: Hold) {
        self.net.release(hold);
    }

    /// [`Net::throttle`]: this connection is not read while `writer` is congested.
    pub fn throttle(&mut self, writer: Key) {
        let own = self.own();
        self.net.throttle(own, writer);
    }

    /// [`Link::half_close`].
    pub fn half_close(&mut self) {
        self.link().half_close();
    }

    /// [`Link::close_when_quiet`].
    pub fn close_when_quiet(&mut self) {
        self.link().close_when_quiet();
    }

    /// [`Link::close`].
    pub fn close(&mut self) {
        self.link().close();
    }

    /// [`Link::abort`].
    pub fn abort(&mut self) {
        self.link().abort();
    }

    /// [`Link::fail`].
    pub fn fail(&mut self, why: impl Into<Fault>) {
        self.link().fail(why);
    }

    /// [`Link::is_congested`].
    pub fn is_congested(&self) -> bool {
        self.conn().is_none_or(Conn::is_congested)
    }

    /// [`Link::queued`].
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.queued_in(&self.net.core.hub.cx))
    }

    /// [`Link::unread`].
    pub fn unread(&self) -> usize {
        self.conn().map_or(0, |conn| conn.unread(&self.net.core.hub.cx))
    }

    /// How long the frame that is being delivered took to come: since its first byte, as [`set_frame_timeout`](Self::set_frame_timeout)
    /// counts, which stands still while reading is off. So what is left of the time for a whole request can be the deadline of
    /// the rest of it. It is kept for those who have a frame time-out; otherwise it is zero. Outside of `frame` and `received`
    /// it is that of the frame that was begun.
    pub fn frame_age(&self) -> Duration {
        self.conn().map_or(Duration::ZERO, |conn| conn.frame_age(&self.net.core.hub.cx))
    }

    /// [`Link::peer`].
    pub fn peer(&self) -> &Address {
        self.conn().map_or(&NOWHERE, |conn| &conn.peer)
    }

    /// [`Link::local`].
    pub fn local(&self) -> &Address {
        self.conn().map_or(&NOWHERE, Conn::local)
    }

    /// This connection becomes something else when the callback returns `Ok`: `next` gets the unread bytes and its own
    /// `connected`, and starts clean: terminator `None`, not paused, holding back as a new one does, no throttle, and of time-outs,
    /// rate limits and output limits those that its [listener](crate::Listen) has for each, or the
    /// [`Config`](crate::Config::output_limits); none of the timers, tells and offloads
    /// of its predecessor, which is dropped without `closed`. A [pair](Net::pair), and what it owns, are the connection's, and stay. A deadline of the listener runs on. Queued output stays. In `eof`, `tail` counts as unread: `next`
    /// is given it, and the end, again. A `writable` that its predecessor was owed comes to it, a `draining` that was told does
    /// not: ask [`Net::is_draining`](crate::Net::is_draining). If the connection has begun to end, `next` is dropped.
    pub fn upgrade(&mut self, next: impl Protocol<S>) {
        if self.conn().is_none() {
            return;
        }
        self.net.core.next = Some(Next::Successor(Box::new((next,))));
        self.hub().cx.lent.interrupt = true;
    }

    /// Calls back after `delay`, unless the connection has begun to end by then. Never early.
    pub fn after<P: Protocol<S>>(
        &mut self,
        delay: Duration,
        then: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        let own = self.own();
        self.net.tell_after(own, delay, then)
    }

    /// Calls back every `period` (at least 1 ms) until it is cancelled or the connection begins to end. It keeps its phase:
    /// what a long callback made it miss is skipped.
    pub fn every<P: Protocol<S>>(
        &mut self,
        period: Duration,
        then: impl FnMut(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        let own = self.own();
        self.net.tell_every(own, period, then)
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("key", &self.key).field("peer", self.peer()).finish_non_exhaustive()
    }
}

/// What a dispatcher's callback may do. Its fields are there to be read, as those of a [`Context`].
pub struct Scope<'a, S = ()> {
    /// Every connection, timers, the loop itself.
    pub net: Net<'a, S>,
    /// This dispatcher.
    pub key: Key,
    own: Key,
}

impl<'a, S> Scope<'a, S> {
    pub(crate) fn new(core: &'a mut Core<S>, key: Key) -> Self {
        Self { net: Net { core }, key, own: key }
    }

    /// Ends it: `closed` comes at the end of the turn.
    pub fn close(&mut self) {
        let own = self.own;
        self.net.close(own);
    }
}

impl<S> fmt::Debug for Scope<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("key", &self.key).finish_non_exhaustive()
    }
}
