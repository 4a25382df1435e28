//! Every socket and timer of one reactor: the same API before the loop runs as inside a callback.

use super::{
    Context, Core, Datagram, Deferred, Dispatcher, Link, Protocol, Remote, TimerJob,
    core::Factory,
    deferred::{addressed, to_protocol},
};
use crate::{
    address::{Address, Target},
    adopted::{Adopted, AdoptedListener},
    bind::Bind,
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
    world::{Interface, PacketSocket},
};
use socket2::SockRef;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::{
    fmt, io,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

/// Every connection, listener, dispatcher and timer of a reactor: the same before the loop runs as inside a callback.
///
/// In this order: [serving](#serving), [listening and connecting](#listening-and-connecting), [datagrams](#datagrams), [by
/// key](#by-key), [between connections](#between-connections), [other protocols](#other-protocols), [timers](#timers), [the
/// loop itself](#the-loop-itself), [work elsewhere](#work-elsewhere), [names](#names); and with their features
/// [children](#children) and [signals](#signals). The manual goes on with [the loop](crate::manual::the_loop) and [sharing
/// state](crate::manual::sharing_state).
///
/// It never calls your code (except [`Dispatcher::source`]): what you ask for happens after the callback that is running.
/// Where you give a key, a `bool` says only whether something of that name was open; a stale [`Key`] finds nothing.
pub struct Net<'a, S = ()> {
    pub(crate) core: &'a mut Core<S>,
}

/// # Listening and connecting
///
/// The chapters are [protocols](crate::manual::protocols), [serving](crate::manual::serving) and
/// [connecting](crate::manual::connecting).
impl<S> Net<'_, S> {
    /// Listens; each connection that comes gets its own protocol from the factory.
    ///
    /// A Unix socket file that a dead server left behind is replaced; if several start at once, by one of them. The file is
    /// removed with the listener.
    ///
    /// # Errors
    /// For a target that is not an address, an address in use, a lack of descriptors or rights, and during a shutdown; the
    /// text says where.
    pub fn listen<P: Protocol<S>>(&mut self, at: impl Into<Target>, mut factory: impl FnMut() -> P + 'static) -> io::Result<Key> {
        self.listen_with(at, Listen::new(), move |_, _, _| Ok(factory()))
    }

    /// Listens with options, and with a factory that sees the state and the peer, and may refuse it, with some last words.
    /// The factory runs between callbacks; if it panics, the connection is reset. By key the connection is not open before
    /// it is let in: whatever you want to send it or ask of it belongs in its `connected`.
    ///
    /// # Errors
    /// The same as for [`listen`](Self::listen); and if the [owner](Listen::owner) has begun to end.
    pub fn listen_with<P: Protocol<S>>(
        &mut self,
        at: impl Into<Target>,
        options: Listen,
        factory: impl FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<P, Refusal> + 'static,
    ) -> io::Result<Key> {
        let key = self.core.hub.listen(&at.into(), options)?;
        self.core.factories.put(key, boxed(factory));
        Ok(key)
    }

    /// Listens on a socket that already listens: one that the program has opened itself with its own options, or that the
    /// process which started it has left to it, so that a restart loses nobody. Otherwise it is like
    /// [`listen_with`](Self::listen_with). Of the options, those for the connections that come apply; the backlog and the
    /// like are the socket's own. It is made close-on-exec and non-blocking, and then every duplicate of it is non-blocking
    /// too. A Unix socket's file stays when it is closed. The chapter is [restarting](crate::manual::restarting).
    ///
    /// # Errors
    /// `InvalidInput` for a socket that carries packets, or does not listen (as far as the system can tell: Linux, Android
    /// and FreeBSD can); for a lack of descriptors, and during a shutdown. On an error the socket is closed.
    pub fn listen_on<P: Protocol<S>>(
        &mut self,
        socket: impl Into<AdoptedListener>,
        options: Listen,
        factory: impl FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<P, Refusal> + 'static,
    ) -> io::Result<Key> {
        let key = self.core.hub.listen_on(socket.into(), options)?;
        self.core.factories.put(key, boxed(factory));
        Ok(key)
    }

    /// The listener whose factory is running. A factory that several listeners share, or that closes its own, can tell by it
    /// which one is calling; the protocol that it makes may keep it. `None` everywhere else.
    pub fn accepting(&self) -> Option<Key> {
        self.core.accepting
    }

    /// Connects to a target. The key is good at once: what is sent to it is kept, and leaves when it is connected. Later,
    /// never from inside this call, `connected` comes, or `closed` alone, with the reason.
    ///
    /// Nothing is opened during a shutdown, after the grace of a [drain](Self::drain) until everything has ended, and when
    /// all slots of the reactor are taken: the key is stale then, and the protocol is dropped without a call.
    pub fn connect(&mut self, to: impl Into<Target>, protocol: impl Protocol<S>) -> Key {
        self.connect_with(to, Connect::new(), protocol)
    }

    /// Connects with options: how long it may take, from which address, for which owner. Otherwise it is like
    /// [`connect`](Self::connect).
    pub fn connect_with(&mut self, to: impl Into<Target>, options: Connect, protocol: impl Protocol<S>) -> Key {
        self.core.on_return[Purpose::Names as usize] = Some(Core::looked_up); // perhaps by name
        let Some(key) = self.core.hub.connect(&to.into(), &options) else {
            return self.core.hub.slots.stale_key();
        };
        self.core.install_opened(key, Box::new((protocol,)));
        key
    }

    /// Takes over a stream that is already open: a socket of another library, a child's output, a pipe, a terminal, standard
    /// input. It is a connection like one that you connected: `connected` comes in the next turn, and everything else as
    /// usual. For a socket, [`peer`](Self::peer) and [`local`](Self::local) are its addresses; for anything else they are
    /// [`Address::Fd`]. The descriptor is made non-blocking and close-on-exec; its other options stay. The chapter is [other
    /// descriptors](crate::manual::other_descriptors).
    ///
    /// What is not a socket does not [linger](crate::manual::closing), except a [pair](Adopted::pair) of pipes. A C program
    /// that embeds us and does not ignore SIGPIPE dies of a write to a pipe that nobody reads (pipe(7)); Rust programs
    /// ignore it.
    ///
    /// # Errors
    /// `InvalidInput` for what is not a stream (a packet socket, a directory), for a descriptor that is not open for what it
    /// is to be used for, and for a terminal that blocks; `NotConnected` for a socket that is not connected or listens, and
    /// during a shutdown; and whatever the kernel says. What was handed over is closed then.
    pub fn adopt(&mut self, stream: impl Into<Adopted>, protocol: impl Protocol<S>) -> io::Result<Key> {
        let key = self.core.hub.adopt(stream.into())?;
        self.core.install_opened(key, Box::new((protocol,)));
        Ok(key)
    }

    /// Takes over a stream that is read through one descriptor and written through another: [`Adopted::pair`]. Otherwise it
    /// is like [`adopt`](Self::adopt).
    ///
    /// # Errors
    /// The same as for [`adopt`](Self::adopt).
    #[cfg(unix)]
    pub fn adopt_pair(
        &mut self,
        reader: impl Into<OwnedFd>,
        writer: impl Into<OwnedFd>,
        protocol: impl Protocol<S>,
    ) -> io::Result<Key> {
        self.adopt(Adopted::pair(reader, writer), protocol)
    }

    /// Gives a connection's socket or descriptors back, out of the loop. It ends with
    /// [`Reason::Detached`](crate::Reason::Detached), which carries them, the bytes that were received and not delivered,
    /// and those that were sent and have not left. Nothing is closed and nothing is lost; its timers and offloaded work end
    /// as at any other end. It also works for a connection that was accepted.
    ///
    /// `false`, and nothing is done, if it is not open, its `connected` has not run, or it has failed; if a
    /// [producer](Link::produce) is queued, if it is one of a [pair](Self::pair), or if it is being [saved](Context::save);
    /// if it speaks TLS; or if a thread reads or writes it ([`Adopted::stdin`]).
    pub fn detach(&mut self, key: Key) -> bool {
        self.core.hub.detach(key)
    }

    /// Watches a source that you own: its [`Dispatcher`] is told when the source is ready.
    ///
    /// # Errors
    /// If the system cannot wait for it, if it is a terminal that blocks, and during a shutdown.
    pub fn watch(&mut self, dispatcher: impl Dispatcher<S>) -> io::Result<Key> {
        self.core.watch(Box::new(dispatcher))
    }

    /// Has a dispatcher's `readable` called in the next turn, whether or not there is anything to read: because it has
    /// answered [`Drained::Unwanted`](crate::Drained::Unwanted), or because something else is due, such as a deadline of
    /// what it reads. If you call this inside the dispatcher's own `readable`, the value that it returns counts instead:
    /// return [`Drained::No`](crate::Drained::No) there. `false`: there is no such dispatcher, or it has begun to end.
    pub fn want_readable(&mut self, dispatcher: Key) -> bool {
        self.core.hub.dispatcher_wants(dispatcher, READABLE)
    }

    /// Has a dispatcher's `writable` called again, because a write of its own met `WouldBlock`. Otherwise it is like
    /// [`want_readable`](Self::want_readable).
    pub fn want_writable(&mut self, dispatcher: Key) -> bool {
        self.core.hub.dispatcher_wants(dispatcher, WRITABLE)
    }
}

fn boxed<S, P: Protocol<S>>(
    mut factory: impl FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<P, Refusal> + 'static,
) -> Factory<S> {
    Box::new(move |net, state, peer| factory(net, state, peer).map(|protocol| Box::new((protocol,)) as Box<_>))
}

/// # Datagrams
///
/// The chapter is [datagrams](crate::manual::datagrams).
impl<S> Net<'_, S> {
    /// Opens a datagram socket: UDP, or a Unix socket. It hears everybody, and [`send_to`](Self::send_to) sends to anybody.
    /// It is open when this returns; the only callbacks that follow are for what it receives.
    ///
    /// A Unix socket file that a dead program left behind is replaced, as by [`listen`](Self::listen), and is removed with
    /// the socket.
    ///
    /// # Errors
    /// For a target that is not an address, an address in use, a lack of descriptors or rights, and during a shutdown; the
    /// text says where.
    pub fn bind(&mut self, at: impl Into<Target>, datagram: impl Datagram<S>) -> io::Result<Key> {
        self.bind_with(at, Bind::new(), datagram)
    }

    /// Opens a datagram socket with options. Otherwise it is like [`bind`](Self::bind).
    ///
    /// # Errors
    /// The same as for [`bind`](Self::bind), and what the kernel says of an option.
    pub fn bind_with(&mut self, at: impl Into<Target>, options: Bind, datagram: impl Datagram<S>) -> io::Result<Key> {
        self.core.bind(Some(&at.into()), &options, Box::new(datagram))
    }

    /// Opens a datagram socket that is connected to this peer, from any address of ours (a Unix socket has no address then,
    /// so it cannot be answered). It is [`bind_with`](Self::bind_with) with a [`Bind::peer`].
    ///
    /// # Errors
    /// The same as for [`bind`](Self::bind); and for a Unix socket, if nobody is bound there.
    pub fn bind_to(&mut self, peer: impl Into<Target>, datagram: impl Datagram<S>) -> io::Result<Key> {
        self.core.bind(None, &Bind::new().peer(peer), Box::new(datagram))
    }

    /// Takes a socket that the program has opened itself, of type DGRAM, RAW or SEQPACKET (connected), of IP, Unix, netlink,
    /// …: bound and connected as it is, or connected to a [`Bind::peer`]. (A raw socket that was connected to port 0 does
    /// not say so on Linux: let `Bind::peer` do that.) Of the options, those for datagrams apply, and of the kernel's
    /// `broadcast` and `buffers`. An address of a kind that we do not have (netlink's) is [`Address::Fd`]; to send there is
    /// to send to the socket's peer, by send(2). When a SEQPACKET peer ends, `closed` comes with [`Reason::Eof`]. On an
    /// error the socket is closed.
    ///
    /// # Errors
    /// For a socket of type STREAM, for what the kernel says, and during a shutdown.
    pub fn bind_on(&mut self, socket: impl Into<PacketSocket>, options: Bind, datagram: impl Datagram<S>) -> io::Result<Key> {
        self.core.bind_on(socket.into(), &options, Box::new(datagram))
    }

    /// Sends one datagram: at once if none waits, otherwise behind those that wait. A datagram that the kernel has no room
    /// for [waits](Bind::queue).
    ///
    /// `true`: it has left, or it waits, or [`failed`](Datagram::failed) will say why not, in a later turn, unless the
    /// socket ends before. (`failed` is told of the first 64 until then; others are only counted.) `false`: there is no such
    /// datagram socket, it has begun to end, or the queue is full.
    ///
    /// A Unix datagram socket that is not connected cannot wait for another one that is full: that is `failed` with ENOBUFS.
    pub fn send_to(&mut self, key: Key, to: &Address, bytes: impl AsRef<[u8]>) -> bool {
        self.core.send_datagram(key, Some(to), bytes.as_ref())
    }

    /// Sends many datagrams of one size to one peer: `bytes`, cut into pieces of `segment`, of which the last may be
    /// shorter. One system call sends up to 64 of them if the socket was bound by `Bind::batch` (feature `udp-batch`) and
    /// the system can do it; otherwise they are sent one by one. Each is treated as by [`send_to`](Self::send_to); when one
    /// has no room in the queue, those behind it are not sent. If there are no bytes, nothing is sent.
    ///
    /// `false`: what [`send_to`](Self::send_to) says, for the first one that was not sent; or `segment` is 0.
    pub fn send_segments(&mut self, key: Key, to: &Address, bytes: impl AsRef<[u8]>, segment: usize) -> bool {
        self.core.hub.send_segments(key, Some(to), bytes.as_ref(), segment)
    }

    /// Receives what is sent to a multicast group, on one interface (ip(7), ipv6(7)).
    ///
    /// # Errors
    /// `NotFound` if there is no such datagram socket; errors for an address that is not a group, an interface that does not
    /// exist, and a group that was joined before; `Unsupported` where the system has no groups.
    pub fn join(&mut self, key: Key, group: IpAddr, on: Interface) -> io::Result<()> {
        self.core.hub.join_group(key, group, on)
    }

    /// Takes [`join`](Self::join) back.
    ///
    /// # Errors
    /// The same as for [`join`](Self::join), and for a group that was not joined.
    pub fn leave(&mut self, key: Key, group: IpAddr, on: Interface) -> io::Result<()> {
        self.core.hub.leave_group(key, group, on)
    }

    /// Lends the socket of a datagram socket, for options that are not here: time to live, multicast loops, and so on.
    /// `None`: there is no such datagram socket, or it is simulated.
    pub fn socket(&self, key: Key) -> Option<SockRef<'_>> {
        self.core.hub.packet_socket(key)
    }
}

/// # By key
///
/// The answer says whether there was something open of that name to which this can be done; for `send` and `send_shared`,
/// whether the bytes are queued. A [`Link`] has every command of one connection.
impl<S> Net<'_, S> {
    /// Finds a connection that is open (or connecting), for several commands at once.
    pub fn link(&mut self, key: Key) -> Option<Link<'_>> {
        self.core.hub.find_open(key)?;
        Some(Link { hub: &mut self.core.hub, key })
    }

    /// Whether it exists and has not begun to end: a connection (also one that is connecting), a listener, a dispatcher, or
    /// a datagram socket.
    pub fn is_open(&self, key: Key) -> bool {
        self.core.hub.slots.get(key).is_some_and(Entry::is_open)
    }

    /// The address of our end of a connection; or where a listener really listens (port 0), or where a datagram socket is
    /// really bound.
    pub fn local(&self, key: Key) -> Option<&Address> {
        self.core.hub.slots.get(key)?.local()
    }

    /// The address of the other end of a connection; while connecting, the target that was asked for. For a datagram socket,
    /// its [peer](Bind::peer).
    pub fn peer(&self, key: Key) -> Option<&Address> {
        self.core.hub.slots.get(key)?.peer()
    }

    /// What a connection's TLS has agreed on; `None` if it is in clear, or its handshake is not done yet.
    #[cfg(feature = "tls")]
    pub fn tls(&self, key: Key) -> Option<crate::secured::Tls<'_>> {
        self.core.hub.slots.conn(key)?.tls()
    }

    /// Queues bytes for a connection; they leave at the end of the turn, or when it is connected. `false`: they are not
    /// queued, because the connection has begun to end (perhaps by this very call, [`Reason::Overflow`]), was half-closed,
    /// or a write to it has failed. It is [`Link::send`], by key.
    ///
    /// On a datagram socket that has a [peer](Bind::peer) it sends one datagram to that peer, at once, as
    /// [`send_to`](Self::send_to) does.
    pub fn send(&mut self, key: Key, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.core.hub.lend_if_open(key, |conn, cx| conn.send(bytes, cx)) || self.core.send_datagram(key, None, bytes)
    }

    /// Queues one message for many, by reference: it is framed once, and not copied unless it has 1,024 bytes or fewer.
    /// Otherwise it is like [`send`](Self::send).
    pub fn send_shared(&mut self, key: Key, bytes: &Rc<[u8]>) -> bool {
        self.core.hub.lend_if_open(key, |conn, cx| conn.send_shared(bytes, cx))
    }

    /// Has a producer that said [`NotYet`](crate::Produced::NotYet) asked again, also on a connection that is still flushing
    /// after a polite close. Says whether the connection was there. It is [`Link::wake`], by key.
    pub fn wake(&mut self, key: Key) -> bool {
        self.core.hub.lend_if_there(key, Conn::wake).unwrap_or(false)
    }

    /// Closes a connection politely, or a listener, a dispatcher or a datagram socket. What is queued is flushed, and
    /// `closed` comes at the end of a turn, never from inside this call. It is [`Link::close`], by key.
    pub fn close(&mut self, key: Key) -> bool {
        self.core.hub.close(key)
    }

    /// Ends our side of a connection: a FIN after what is queued, and reading goes on. It is [`Link::half_close`], by key.
    pub fn half_close(&mut self, key: Key) -> bool {
        self.link(key).map(|mut link| link.half_close()).is_some()
    }

    /// Breaks a connection off with a reset, or ends a listener, a dispatcher or a datagram socket, with [`Reason::Abort`]
    /// at the end of the turn. It also works on a connection that is still flushing after a polite close. It is
    /// [`Link::abort`], by key.
    pub fn abort(&mut self, key: Key) -> bool {
        self.core.hub.abort(key)
    }

    /// Ends a connection as if its callback had returned this `Err`, or a dispatcher, a listener or a datagram socket. It is
    /// [`Link::fail`], by key.
    pub fn fail(&mut self, key: Key, why: impl Into<Fault>) -> bool {
        self.is_open(key) && self.core.hub.end(key, Reason::from_fault(why.into()))
    }
}

/// # Between connections
///
/// Which connection is read while another can take more; the chapter is [back-pressure](crate::manual::back_pressure).
impl<S> Net<'_, S> {
    /// Stops reading `reader` (a connection or a dispatcher) while the output of `writer` is congested. It copies nothing,
    /// and lasts until it is taken back, the reader is [upgraded](Context::upgrade), or either is gone. A writer may hold
    /// several readers back, and a reader may depend on several writers. [`pair`](Self::pair) sets two of them. `false`: one
    /// of them is not open.
    pub fn throttle(&mut self, reader: Key, writer: Key) -> bool {
        self.core.hub.throttle(reader, writer)
    }

    /// Takes [`throttle`](Self::throttle) back.
    pub fn unthrottle(&mut self, reader: Key, writer: Key) {
        self.core.hub.unthrottle(reader, writer);
    }

    /// Takes a [hold](Link::hold) back, of whichever connection. Reading goes on once no hold is out and nothing else is in
    /// the way. It does nothing once the connection has begun to end, or has become something else.
    pub fn release(&mut self, hold: Hold) {
        self.core.hub.lend_if_there(hold.key, |conn, cx| conn.release(&hold, cx));
    }

    /// Makes one stream of two connections, until one of them has ended: the loop sends what either receives, while it has
    /// no terminator, to the other. The receiver's protocol then gets neither `received` nor `eof`, but everything else.
    ///
    /// * Each is read while the other can take it: there is a [`throttle`](Self::throttle) each way, and
    ///   [hold-back](Link::set_hold_back) is off. So a pair alone never causes [`Reason::Overflow`].
    /// * When the peer of one ends, the other gets a [`half_close`](Self::half_close), behind the last byte; also if that
    ///   end was told before they were a pair. When both directions have ended, both close by themselves.
    /// * When one has ended in any other way, the other follows after its `closed`: a clean end [closes](Self::close) it,
    ///   any other [aborts](Self::abort) it, unless it has begun to end by itself. By an end that is not clean the peers of
    ///   both see a reset, because what they have received is only a part.
    /// * `exceeded(Idle)` comes when neither has received a byte for that long.
    /// * [`close_when_quiet`](Link::close_when_quiet), and with it the default of `draining`, closes a pair on which nothing
    ///   was ever said. Any other pair is under way: only its two ends know what they owe each other.
    ///
    /// If you have to look at what passes, or to count it, set a terminator: then the protocol gets what it cuts, as usual,
    /// and sends it on itself, including the `tail` in `eof`; `Terminator::Stream(u64::MAX)` hands everything over in
    /// pieces. From `Terminator::None` on the loop forwards again. What was queued before stays in front. A connection that
    /// is still connecting is sent what it can keep. Pauses, rates and time-outs apply as usual. After an upgrade of either
    /// they are still a pair.
    ///
    /// `false`, and nothing is changed: they are one and the same connection, or one of them has begun to end or has another
    /// partner.
    pub fn pair(&mut self, a: Key, b: Key) -> bool {
        self.core.hub.join(a, b)
    }
}

/// # Other protocols
///
/// What is told or posted runs between callbacks, never inside the call. The chapter is [sharing
/// state](crate::manual::sharing_state).
impl<S> Net<'_, S> {
    /// Lends another connection's protocol, for you to look at. `None`: it is of another type, has begun to end, or its own
    /// callback is running.
    pub fn peek<P: Protocol<S>>(&self, key: Key) -> Option<&P> {
        self.core.hub.find_open(key)?;
        self.core.handlers.get(key.index())?.as_ref()?.as_any_ref().downcast_ref()
    }

    /// Runs `tell` with another connection's protocol, after the entry that is being served. `true` means that it will run,
    /// and before the target's `closed`, even if the target is paused, connecting, or begins to end in between; unless an
    /// upgrade comes first. A tell for a type other than the target's is logged and dropped.
    pub fn tell<P: Protocol<S>>(
        &mut self,
        key: Key,
        tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
    ) -> bool {
        self.core.tell(key, addressed(tell))
    }

    /// Runs `job` soon: not now, and not inside anything. Tells and posts are in one queue, in order.
    pub fn post(&mut self, job: impl FnOnce(&mut Net<'_, S>, &mut S) + 'static) {
        self.core.defer(Deferred::Post(Box::new(job)));
    }

    /// Runs `tell` with another connection's protocol after `delay`, unless the target has begun to end, or was upgraded, by
    /// then. If it has already begun to end, the timer is not set.
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
}

/// # Timers
///
/// The chapter is [timers and threads](crate::manual::timers_and_threads). A timer keeps [`run`](crate::Reactor::run)
/// running, but not during a [drain](Self::drain).
impl<S> Net<'_, S> {
    /// The time, read from the clock now; in a simulated world, that world's time.
    pub fn now(&self) -> Instant {
        let world = &self.core.hub.cx.world;
        world.instant(world.now())
    }

    /// Runs `then` after `delay`: never early, and in the order of deadlines, then of setting.
    pub fn after(&mut self, delay: Duration, then: impl FnOnce(&mut Net<'_, S>, &mut S) + 'static) -> Timer {
        self.core.set_timer(delay, TimerJob::Once(Box::new(then)))
    }

    /// Runs `then` every `period` (at least 1 ms), until it is cancelled or panics. It keeps its phase: calls that a long
    /// callback made it miss are skipped.
    pub fn every(&mut self, period: Duration, then: impl FnMut(&mut Net<'_, S>, &mut S) + 'static) -> Timer {
        let period = period.max(PAUSE_MIN);
        self.core.set_timer(period, TimerJob::Every(period, Box::new(then)))
    }

    /// Takes a timer back, at once and without a trace. `false`: it has fired, or was taken back before.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        self.core.cancel(timer)
    }
}

/// # The loop itself
impl<S> Net<'_, S> {
    /// A handle for other threads, which can [post](Remote::post) jobs into this loop.
    pub fn remote(&self) -> Remote<S> {
        self.core.inbox.remote()
    }

    /// Ends [`run`](crate::Reactor::run) when this turn is done; [`turn`](crate::Reactor::turn) returns `false`. Connections
    /// stay as they are.
    pub fn stop(&mut self) {
        self.core.is_stopped = true;
    }

    /// Asks everything to finish, so that the program can end. Listeners close once the clients that wait in their backlog
    /// have been accepted. Accepted connections get `draining` once what had arrived is delivered, connections that we
    /// opened get it when no accepted one remains, and datagram sockets when nothing else does. [`run`](crate::Reactor::run)
    /// returns when nothing is left; timers and remotes do not keep it any longer. What is left after `grace` ends with
    /// [`Reason::Shutdown`]. If you ask for it again, the grace counts anew from then, and nobody is asked twice.
    ///
    /// Until then [`connect`](Self::connect) is still allowed; a connection that is still connecting gets `draining` in the
    /// turn of its `connected`. So is [`listen`](Self::listen), for whoever needs it to finish. A listener that was opened
    /// before for [a connection that owns it](Listen::owner) stays open: connections that come there are waited for and get
    /// no `draining`, and the listener itself does not keep `run` going. How many there were and how many were left is in
    /// [`Stats`] (`to_drain`, `connections`, `undrained`), and in the log. The chapter on
    /// [serving](crate::manual::serving#going-down) has more.
    pub fn drain(&mut self, grace: Duration) {
        self.core.begin_drain(grace);
    }

    /// Whether [`drain`](Self::drain) was called, and something is left.
    pub fn is_draining(&self) -> bool {
        self.core.hub.is_draining()
    }

    /// What this reactor has done, and what it holds now. It looks at every connection.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Everything that holds a slot: connections, lingering sockets, listeners, dispatchers, datagram sockets.
    pub fn connections(&self) -> Vec<Connection> {
        self.core.hub.connections(|key| self.core.type_name(key))
    }

    /// A random number, for jitter, not for secrets. In a simulated world it comes from the seed, so that a failing run can
    /// be repeated.
    pub fn random(&mut self) -> u64 {
        self.core.hub.cx.world.random()
    }
}

impl<S> fmt::Debug for Net<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("slots", &self.core.hub.slots.len()).finish_non_exhaustive()
    }
}
