//! Every socket and timer of one reactor: the same API before the loop as inside a callback.

use super::{
    Context, Core, Deferred, Dispatcher, Link, Protocol, Remote, TimerJob,
    core::Factory,
    deferred::{addressed, to_protocol},
};
use crate::{
    address::{Address, Target},
    connect::Connect,
    endpoint::{Conn, Entry},
    flags::{READABLE, WRITABLE},
    hold::Hold,
    key::{Key, Timer},
    listen::{Listen, Refusal},
    pool::Purpose,
    reason::{Fault, Outcome, Reason},
    stats::{Connection, Stats},
    time::PAUSE_MIN,
};
use std::{
    fmt, io,
    rc::Rc,
    time::{Duration, Instant},
};

/// Every connection, listener, dispatcher and timer of a reactor.
///
/// It never calls your code (but for [`Dispatcher::source`]): what you ask for happens after the callback that is running. By
/// key, a `bool` tells only whether there was something open of that name; a stale [`Key`] finds nothing.
pub struct Net<'a, S = ()> {
    pub(crate) core: &'a mut Core<S>,
}

impl<S> Net<'_, S> {
    // ------------------------------------------------------------------------------------------------ opening

    /// Listens; each connection that comes gets a protocol of its own from the factory.
    ///
    /// A Unix socket file that a dead server left is replaced, by one of those who start, and the file goes with the listener.
    ///
    /// # Errors
    /// For a target that is no address, an address in use, a lack of descriptors or rights; the text says where.
    pub fn listen<P: Protocol<S>>(&mut self, at: impl Into<Target>, mut factory: impl FnMut() -> P + 'static) -> io::Result<Key> {
        self.listen_with(at, Listen::new(), move |_, _, _| Ok(factory()))
    }

    /// The same with options, and a factory that sees the state and the peer, and may refuse it, with some last words.
    /// The factory runs between callbacks; if it panics, the connection is reset. By key that is not open before it is let
    /// in: what is to be said or asked of it belongs into its `connected`.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn listen_with<P: Protocol<S>>(
        &mut self,
        at: impl Into<Target>,
        options: Listen,
        mut factory: impl FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<P, Refusal> + 'static,
    ) -> io::Result<Key> {
        let factory: Factory<S> =
            Box::new(move |net, state, peer| factory(net, state, peer).map(|protocol| Box::new((protocol,)) as Box<_>));
        let key = self.core.hub.listen(&at.into(), options)?;
        self.core.factories.put(key, factory);
        Ok(key)
    }

    /// The listener whose factory is running. A factory that several of them share, or that closes its own, knows by it which
    /// one that is; what it makes may keep it. `None` everywhere else.
    pub fn accepting(&self) -> Option<Key> {
        self.core.accepting
    }

    /// Connects. The key is good at once: what is sent to it is kept, and leaves when it is connected. `connected` or
    /// `closed` alone, with the reason, comes later, never from inside this call.
    ///
    /// During a shutdown, after the grace of a [drain](Self::drain) until everything has ended, and when all slots of the
    /// reactor are taken, nothing is opened: the key is stale, and the protocol is dropped uncalled.
    pub fn connect(&mut self, to: impl Into<Target>, protocol: impl Protocol<S>) -> Key {
        self.connect_with(to, Connect::new(), protocol)
    }

    /// The same with options.
    pub fn connect_with(&mut self, to: impl Into<Target>, options: Connect, protocol: impl Protocol<S>) -> Key {
        self.core.on_return[Purpose::Names as usize] = Some(Core::looked_up); // by name, perhaps
        let Some(key) = self.core.hub.connect(&to.into(), &options) else {
            return self.core.hub.slots.stale_key();
        };
        self.core.install(key, Box::new((protocol,)));
        if self.core.hub.drains_opened() {
            self.core.hub.owe_draining(key);
        }
        key
    }

    /// Watches a source that you own.
    ///
    /// # Errors
    /// If the system cannot wait for it, or if it is a terminal that blocks.
    pub fn watch(&mut self, dispatcher: impl Dispatcher<S>) -> io::Result<Key> {
        let mut dispatcher = Core::dispatcher(dispatcher);
        let key = self.core.hub.watch(dispatcher.source())?;
        self.core.dispatchers.put(key, dispatcher);
        Ok(key)
    }

    /// A dispatcher that answered `readable` by [`Drained::Unwanted`](crate::Drained::Unwanted) is told of it again, and
    /// first in the next turn. `false`: there is no such dispatcher, or it has begun to end.
    pub fn want_readable(&mut self, dispatcher: Key) -> bool {
        self.core.hub.dispatcher_wants(dispatcher, READABLE)
    }

    /// The same for `writable`: a write met `WouldBlock`.
    pub fn want_writable(&mut self, dispatcher: Key) -> bool {
        self.core.hub.dispatcher_wants(dispatcher, WRITABLE)
    }

    // ------------------------------------------------------------------------------------------------- by key

    /// A connection that is open (or connecting), for several commands at once.
    pub fn link(&mut self, key: Key) -> Option<Link<'_>> {
        self.core.hub.find_open(key)?;
        Some(Link { hub: &mut self.core.hub, key })
    }

    /// Whether it is there and has not begun to end: a connection (also one that is connecting), a listener, a dispatcher.
    pub fn is_open(&self, key: Key) -> bool {
        self.core.hub.slots.get(key).is_some_and(Entry::is_open)
    }

    /// [`Link::send`].
    pub fn send(&mut self, key: Key, bytes: impl AsRef<[u8]>) -> bool {
        self.core.hub.lend_if_open(key, |conn, cx| conn.send(bytes.as_ref(), cx))
    }

    /// [`Link::send_shared`]: one message for many, framed once and queued by reference.
    pub fn send_shared(&mut self, key: Key, bytes: &Rc<[u8]>) -> bool {
        self.core.hub.lend_if_open(key, |conn, cx| conn.send_shared(bytes, cx))
    }

    /// [`Link::close`]; also closes a listener or a dispatcher.
    pub fn close(&mut self, key: Key) -> bool {
        self.core.hub.close(key)
    }

    /// [`Link::half_close`].
    pub fn half_close(&mut self, key: Key) -> bool {
        self.link(key).map(|mut link| link.half_close()).is_some()
    }

    /// [`Link::wake`]; also for a connection that is still flushing after a polite close. Whether it was there.
    pub fn wake(&mut self, key: Key) -> bool {
        self.core.hub.lend_if_there(key, Conn::wake).unwrap_or(false)
    }

    /// [`Link::abort`]; also for a connection that is still flushing after a polite close, a listener, a dispatcher.
    pub fn abort(&mut self, key: Key) -> bool {
        self.core.hub.abort(key)
    }

    /// [`Link::fail`]; also for a dispatcher or a listener.
    pub fn fail(&mut self, key: Key, why: impl Into<Fault>) -> bool {
        self.is_open(key) && self.core.hub.end(key, Reason::from_fault(why.into()))
    }

    /// Our end of a connection, or where a listener really listens (port 0).
    pub fn local(&self, key: Key) -> Option<&Address> {
        self.core.hub.slots.get(key)?.local()
    }

    /// The other end of a connection; while connecting, the target that was asked for.
    pub fn peer(&self, key: Key) -> Option<&Address> {
        self.core.hub.find(key).map(|conn| &conn.peer)
    }

    /// `reader` (a connection or a dispatcher) is not read while the output of `writer` is congested. Copies nothing, and
    /// lasts until it is taken back or either is gone. A writer may hold
    /// several readers, a reader may hang on several writers. [`pair`](Self::pair) sets two of them.
    pub fn throttle(&mut self, reader: Key, writer: Key) -> bool {
        self.core.hub.throttle(reader, writer)
    }

    /// Takes [`throttle`](Self::throttle) back.
    pub fn unthrottle(&mut self, reader: Key, writer: Key) {
        self.core.hub.unthrottle(reader, writer);
    }

    /// Takes a [hold](Link::hold) back, of whichever connection. Reading goes on once none is out, and nothing else is in the way.
    /// Does nothing once the connection has begun to end, or has become something else.
    pub fn release(&mut self, hold: Hold) {
        self.core.hub.lend_if_there(hold.key, |conn, cx| conn.release(&hold, cx));
    }

    /// Makes one stream of two connections, until one of them has ended: what either receives, and has no terminator, goes to
    /// the other, by the loop. Its protocol gets neither `received` nor `eof` then, and everything else.
    ///
    /// * Each is read while the other can take it: a [`throttle`](Self::throttle) each way, and
    ///   [hold-back](Link::set_hold_back) off. So a pair alone never brings [`Reason::Overflow`].
    /// * The peer's end of the one, behind its last byte, is a [`half_close`](Self::half_close) of the other; also an end that
    ///   was told before they were a pair. When both directions have ended, both close by themselves.
    /// * When the one has ended otherwise, the other follows after its `closed`: a clean end
    ///   [closes](Self::close) it, any other [aborts](Self::abort) it; unless it has begun to end itself.
    /// * `exceeded(Idle)` comes when neither has received a byte for so long.
    /// * [`close_when_quiet`](Link::close_when_quiet), and with it the default of `draining`, closes a pair on which nothing
    ///   was ever said. Any other is under way: only its two ends know what they owe each other.
    ///
    /// Whoever has to look at what passes, or to count it, sets a terminator: then its protocol gets what that cuts, as ever,
    /// and sends it on itself, the `tail` in `eof` too; `Terminator::Stream(u64::MAX)` hands everything over in pieces. From
    /// `Terminator::None` on the loop forwards again. What was queued before stays in front, one that is still connecting is
    /// sent what it can keep, and pauses, rates and time-outs hold as ever. An upgrade of either leaves them a pair.
    ///
    /// `false`, and nothing is changed: they are one and the same, one has begun to end, or has another partner.
    pub fn pair(&mut self, a: Key, b: Key) -> bool {
        self.core.hub.join(a, b)
    }

    // ------------------------------------------------------------------------------- speaking to other protocols

    /// Another connection's protocol, to be looked at. `None`: it is of another type, has begun to end, or its own callback is
    /// running.
    pub fn peek<P: Protocol<S>>(&self, key: Key) -> Option<&P> {
        self.core.hub.find_open(key)?;
        self.core.handlers.get(key.index())?.as_ref()?.as_any_ref().downcast_ref()
    }

    /// Runs `tell` with another connection's protocol, after the entry that is being served. `true` means that it will run,
    /// and before the target's `closed`, also if that is paused, connecting, or begins to end in between, unless an upgrade
    /// comes first. One for another type than the target's is logged and dropped.
    pub fn tell<P: Protocol<S>>(
        &mut self,
        key: Key,
        tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> bool {
        self.core.tell(key, addressed(tell))
    }

    /// Runs `job` soon: not now, and not inside anything. Tells and posts are one queue, in order.
    pub fn post(&mut self, job: impl FnOnce(&mut Net<'_, S>, &mut S) + 'static) {
        self.core.deferred.push_back(Deferred::Post(Box::new(job)));
    }

    /// [`tell`](Self::tell), after `delay`, unless the target has begun to end by then. If it has already, the timer is not
    /// set.
    pub fn tell_after<P: Protocol<S>>(
        &mut self,
        key: Key,
        delay: Duration,
        tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        self.core.set_owned_timer(key, delay, TimerJob::Tell(addressed(tell)))
    }

    pub(super) fn tell_every<P: Protocol<S>>(
        &mut self,
        key: Key,
        period: Duration,
        mut tell: impl FnMut(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> Timer {
        let period = period.max(PAUSE_MIN);
        let later = TimerJob::TellEvery(
            period,
            Box::new(move |handler, ctx, state| to_protocol(handler, ctx, |protocol, ctx| tell(protocol, ctx, state))),
        );
        self.core.set_owned_timer(key, period, later)
    }

    // -------------------------------------------------------------------------------- time, threads, the loop itself

    /// The time, read from the clock now.
    pub fn now(&self) -> Instant {
        let world = &self.core.hub.cx.world;
        world.instant(world.now())
    }

    /// For jitter, not for secrets. Seeded where the world is simulated, so that a failing run comes again.
    pub fn random(&mut self) -> u64 {
        self.core.hub.cx.world.random()
    }

    /// Runs `then` after `delay`: never early, and in the order of deadlines, then of setting.
    pub fn after(&mut self, delay: Duration, then: impl FnOnce(&mut Net<'_, S>, &mut S) + 'static) -> Timer {
        self.core.set_timer(delay, TimerJob::Once(Box::new(then)))
    }

    /// Runs `then` every `period` (at least 1 ms), until it is cancelled or panics. It keeps its phase: what a long
    /// callback made it miss is skipped.
    pub fn every(&mut self, period: Duration, then: impl FnMut(&mut Net<'_, S>, &mut S) + 'static) -> Timer {
        let period = period.max(PAUSE_MIN);
        self.core.set_timer(period, TimerJob::Every(period, Box::new(then)))
    }

    /// Takes a timer back, at once and without a trace. `false`: it has fired, or was taken back before.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        self.core.cancel(timer)
    }

    /// What this reactor has done, and what it holds. Takes a look at every connection.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Everything that holds a slot: connections, lingering sockets, listeners, dispatchers.
    pub fn connections(&self) -> Vec<Connection> {
        self.core.hub.connections(|key| self.core.type_name(key))
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.core.inbox.remote()
    }

    /// Lets the program end: listeners close once who waits in their backlog was accepted, accepted connections get `draining`
    /// once what had arrived is delivered, those that we opened get it when no accepted one remains, and
    /// [`run`](crate::Reactor::run) returns when nothing is left; timers and remotes do not keep it any longer. What is left after
    /// `grace` ends with [`Reason::Shutdown`]; called again, it sets another grace. Until then `connect` stays allowed; one that is
    /// still connecting gets `draining` in the turn of its `connected`. [`listen`](Self::listen) does too, for whoever needs
    /// it to finish, and what was opened before for [one that owns it](Listen::owner) stays open: who comes there is waited for and gets no `draining`, and the listener itself does not keep `run`. How
    /// many there were and how many were left is in [`Stats`] (`to_drain`, `connections`, `undrained`), and in the log.
    ///
    /// Asked for again, it counts the grace anew from then, and asks nobody twice.
    pub fn drain(&mut self, grace: Duration) {
        self.core.begin_drain(grace);
    }

    /// Whether [`drain`](Self::drain) was called, and something is left.
    pub fn is_draining(&self) -> bool {
        self.core.hub.is_draining()
    }

    /// [`run`](crate::Reactor::run) returns when this turn is done, and [`turn`](crate::Reactor::turn) says `false`.
    /// Connections stay as they are.
    pub fn stop(&mut self) {
        self.core.is_stopped = true;
    }
}

impl<S> fmt::Debug for Net<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("slots", &self.core.hub.slots.len()).finish_non_exhaustive()
    }
}
