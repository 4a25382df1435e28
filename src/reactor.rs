//! The loop. [`Reactor::turn`] reads like its own table of contents; `serve.rs` says what serving one entry means.

use crate::{
    config::Config,
    contract::{Core, Net, Remote, exceed},
    endpoint::Conn,
    framing::ReadBuffers,
    hub::Hub,
    key::Key,
    reason::{Limit, Reason},
    room::Room,
    serve::{finish_close, serve},
    stats::Stats,
    stopwatch::Expired,
    time::Time,
    timers::{Due, TimerKind},
    world::{Event, OsWorld, World},
};
use std::{
    fmt, io,
    time::{Duration, Instant},
};

/// After this many callbacks the loop looks at the sockets again: some that have much to say may have gone long ago.
const SERVED_MAX: u64 = 4096;

/// The loop: it owns the sockets, the buffers and the time, and calls your protocols.
///
/// `S` is what your program has one of, lent to every callback as `&mut`; it need not be `'static`. The chapter is
/// [the loop](crate::manual::the_loop).
///
/// Dropping a reactor drops everything in it without a callback, because there is no state to lend;
/// [`shutdown`](Self::shutdown) calls `closed` on all.
///
/// # In several threads
///
/// A reactor stays in the thread that made it: `thread::spawn(move || reactor.run(…))` does not compile ("cannot be sent
/// between threads safely"), because the protocols and closures in it need not be `Send`. What you give to other threads is
/// its [`Remote`]. To use several cores, each thread makes a reactor of its own, and the kernel distributes the connections
/// among them:
///
/// ```
/// use mainspring::{Listen, Reactor};
/// use std::{io, thread};
/// # struct Echo;
/// # impl<S> mainspring::Protocol<S> for Echo {}
///
/// fn serve(at: &str) -> io::Result<()> {
///     let mut reactor = Reactor::new()?; // here, and not outside of the thread
///     reactor.net().listen_with(at, Listen::new().reuse_port(), |_, _, _| Ok(Echo))?;
/// #   reactor.net().stop(); // or nobody would
///     reactor.run(&mut ())
/// }
///
/// # #[cfg(unix)]
/// # fn main() -> io::Result<()> {
/// let at = "127.0.0.1:7000";
/// # let at = "127.0.0.1:0";
/// let threads: Vec<_> = (0..4).map(|_| thread::spawn(move || serve(at))).collect();
/// threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
/// # }
/// # #[cfg(not(unix))]
/// # fn main() {}
/// ```
pub struct Reactor<S = ()> {
    core: Core<S>,
    events: Vec<Event>,
    /// The ready queue of this turn: what becomes ready meanwhile has its turn in the next.
    serving: Vec<Key>,
    /// Lent to whoever is served.
    buffers: ReadBuffers,
    /// How many of those that were ready at one look at the sockets have not had their turn yet: the first ones of the ready
    /// queue.
    put_off: usize,
    /// When that look was.
    put_off_since: Time,
    /// Timers due later than this have to wait: what came before they were due is not served yet.
    due_by: Time,
}

impl<S> Reactor<S> {
    /// Makes a reactor with the defaults of [`Config`].
    ///
    /// # Errors
    /// When the system has no descriptor for a selector.
    pub fn new() -> io::Result<Self> {
        let config = Config::default();
        debug_assert!(config.watchdog.is_none() && config.turn_time.is_none(), "nobody is timed who did not ask for it");
        Self::in_system(config)
    }

    /// Makes a reactor with bounds of your own.
    ///
    /// # Errors
    /// When the system has no descriptor for a selector.
    pub fn with_config(config: Config) -> io::Result<Self> {
        let mut reactor = Self::in_system(config)?;
        reactor.core.hub.time_callbacks();
        Ok(reactor)
    }

    fn in_system(config: Config) -> io::Result<Self> {
        let made = OsWorld::new(config.spin).and_then(|world| Self::in_world(Box::new(world), config));
        made.map_err(|error| io::Error::new(error.kind(), format!("cannot make an event loop: {error}")))
    }

    #[cfg(feature = "sim")]
    pub(crate) fn core(&mut self) -> &mut Core<S> {
        &mut self.core
    }

    #[cfg(feature = "sim")]
    pub(crate) fn with_world(world: Box<dyn World>, config: Config) -> io::Result<Self> {
        let mut reactor = Self::in_world(world, config)?;
        reactor.core.hub.time_callbacks();
        Ok(reactor)
    }

    fn in_world(world: Box<dyn World>, config: Config) -> io::Result<Self> {
        let buffers = ReadBuffers::new(config.read_bytes);
        Ok(Self {
            core: Core::new(Hub::new(config, world)?),
            events: Vec::new(),
            serving: Vec::new(),
            buffers,
            put_off: 0,
            put_off_since: Time::default(),
            due_by: Time::NEVER,
        })
    }

    /// Every socket and timer: the same API as inside a callback. What is queued here leaves in the next turn, which does
    /// not sleep first.
    pub fn net(&mut self) -> Net<'_, S> {
        Net { core: &mut self.core }
    }

    /// What this reactor has done, and what it holds.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.core.remote()
    }

    /// Runs turns until [`stop`](Net::stop), or until nothing is left that could ever happen: no connection, listener,
    /// dispatcher, datagram socket, child that is waited for, timer, job, offloaded work or piece of a lane, no socket that
    /// [lingers](Config::wait_for_lingering), and no [`Remote`].
    ///
    /// # Errors
    /// When the selector fails, which no peer can cause.
    pub fn run(&mut self, state: &mut S) -> io::Result<()> {
        while self.turn(state, None)? {}
        Ok(())
    }

    /// Runs one turn: waits for at most `wait_max` (`None`: for ever) if there is nothing to do, does what there is to do,
    /// and returns whether anything is left to wait for. This is how a program with its own loop embeds the reactor.
    ///
    /// In order: 1. wait; 2. fold all events into flags; 3. jobs of other threads, tells and posts; 4. serve what was ready,
    /// within the bounds: each is read, delivered to, and written at once; 5. timers; 6. what others have queued leaves, one
    /// write each; 7. `closed` of those that have begun to end.
    ///
    /// # Errors
    /// When the selector fails, which no peer can cause.
    pub fn turn(&mut self, state: &mut S, wait_max: impl Into<Option<Duration>>) -> io::Result<bool> {
        self.wait(wait_max.into())?;
        self.fold();
        self.run_jobs(state);
        self.serve_ready(state);
        self.fire_timers(state);
        self.flush_dirty();
        self.reap(state);
        #[cfg(debug_assertions)]
        self.core.hub.assert_sound();
        self.let_panics_go_on();
        Ok(self.goes_on())
    }

    /// When [`turn`](Self::turn) has to be called at the latest: now, while anything is left to do, or when the next timer
    /// is due. `None`: not before its descriptor (`AsFd`) is readable. This is for a foreign loop that waits for both; it
    /// has to ask again after every turn, and after every use of [`net`](Self::net) outside of one. The chapter is
    /// [embedding](crate::manual::embedding).
    pub fn next_deadline(&self) -> Option<Instant> {
        let world = &self.core.hub.cx.world;
        if self.core.has_work() {
            return Some(world.instant(world.now()));
        }
        self.core.hub.cx.timers.next().map(|due| world.instant(due))
    }

    /// Ends everything now: each connection, dispatcher and datagram socket gets `closed` with [`Reason::Shutdown`]. Nothing
    /// is flushed. Tells, timers, jobs and what was to follow offloaded work are dropped, also those that `closed` sets;
    /// `connect` and `listen` open nothing meanwhile. Afterwards the reactor is empty, and may be used again.
    pub fn shutdown(&mut self, state: &mut S) {
        self.core.hub.cx.is_shut = true;
        self.core.drop_all_deferred();
        self.core.hub.end_all(|| Reason::Shutdown, true);
        while !self.core.hub.cx.lists.closing.is_empty() {
            self.reap(state);
            self.core.drop_all_deferred();
            self.core.hub.end_all(|| Reason::Shutdown, true); // the last thing to end
        }
        self.core.hub.free_lingering();
        self.core.is_stopped = false;
        self.core.hub.start_afresh();
        self.let_panics_go_on();
    }

    // ------------------------------------------------------------------------------------------------ a turn's phases

    #[inline]
    fn wait(&mut self, wait_max: Option<Duration>) -> io::Result<()> {
        let cx = &mut self.core.hub.cx;
        if cx.timers.next().is_some() {
            cx.clock.polled = cx.world.now();
        }
        let at_most = self.sleep_max(wait_max);
        self.events.clear();
        let hub = &mut self.core.hub;
        let began = hub.cx.config.watchdog.map(|_| hub.cx.world.now());
        hub.cx.world.wait(&mut self.events, at_most)?;
        hub.cx.clock.stamp = None;
        hub.cx.stats.turns += 1;
        if let Some(began) = began {
            hub.cx.stats.waited += hub.cx.world.now().since(began);
        }
        Ok(())
    }

    /// How long the next wait may sleep: not at all while anything is left to do, and until the next timer is due.
    #[inline]
    fn sleep_max(&self, wait_max: Option<Duration>) -> Option<Duration> {
        let is_in_vain = wait_max.is_none() && !self.core.is_alive();
        if is_in_vain || self.core.has_work() {
            return Some(Duration::ZERO);
        }
        let cx = &self.core.hub.cx;
        let until_timer = cx.timers.next().map(|next| next.since(cx.clock.polled));
        wait_max.into_iter().chain(until_timer).min()
    }

    #[inline]
    fn fold(&mut self) {
        self.core.hub.fold(&self.events);
    }

    #[inline]
    fn run_jobs(&mut self, state: &mut S) {
        self.core.deferred_left = self.core.hub.cx.config.turn_tells;
        self.core.run_inbox(state);
        self.core.run_deferred(state);
    }

    /// Serves each ready key once; but if many have much to say, or one of them has gone, it looks at the sockets again
    /// before the rest have their turn.
    #[inline]
    fn serve_ready(&mut self, state: &mut S) {
        debug_assert!(self.serving.is_empty());
        let cx = &mut self.core.hub.cx;
        std::mem::swap(&mut self.serving, &mut cx.lists.ready);
        cx.served_at_most = cx.stats.callbacks + SERVED_MAX;
        let put_off = std::mem::take(&mut self.put_off);
        self.due_by = Time::NEVER;
        let mut at = 0;
        while let Some(&key) = self.serving.get(at) {
            at += 1;
            serve(&mut self.core, key, state, &mut self.buffers);
            let cx = &self.core.hub.cx;
            if cx.stats.callbacks >= cx.served_at_most {
                self.put_off(at, put_off);
            }
        }
        self.serving.clear();
        #[cfg(feature = "tls")]
        if !self.core.hub.cx.lists.shaking.is_empty() {
            self.serve_shaking(state);
        }
    }

    /// Handshakes come after everything else, because each step may take as long as a thousand ordinary turns of a
    /// connection.
    #[cfg(feature = "tls")]
    #[inline(never)]
    fn serve_shaking(&mut self, state: &mut S) {
        self.core.hub.cx.shakes_now = true;
        for key in std::mem::take(&mut self.core.hub.cx.lists.shaking) {
            serve(&mut self.core, key, state, &mut self.buffers);
        }
        self.core.hub.cx.shakes_now = false;
    }

    /// Keys that had no turn are the first ones of the next; `before` had been put off already. As in a turn that is not cut
    /// short, what came before a timer was due is served before it: so timers wait until all that were ready at one look at
    /// the sockets are served, and then only those fire that were due at that look.
    #[cold]
    fn put_off(&mut self, at: usize, before: usize) {
        let rest = self.serving.len() - at;
        if rest == 0 {
            return;
        }
        let cx = &mut self.core.hub.cx;
        let meanwhile = cx.lists.ready.len();
        cx.lists.ready.extend_from_slice(&self.serving[at..]);
        cx.lists.ready.rotate_left(meanwhile);
        self.serving.clear();
        if before > at {
            (self.put_off, self.due_by) = (before - at, Time::default());
        } else {
            self.due_by = if before > 0 { self.put_off_since } else { Time::default() };
            (self.put_off, self.put_off_since) = (rest, cx.clock.polled);
        }
    }

    #[inline]
    fn fire_timers(&mut self, state: &mut S) {
        if self.core.hub.cx.timers.next().is_some() {
            self.fire_due(state);
        }
    }

    #[inline(never)]
    fn fire_due(&mut self, state: &mut S) {
        let hub = &mut self.core.hub;
        hub.cx.clock.polled = hub.cx.clock.polled.min(self.due_by);
        let (now, mark) = (hub.cx.world.now().min(self.due_by), hub.cx.timers.mark());
        for _ in 0..hub.cx.config.turn_timers {
            let Some(due) = self.core.hub.cx.timers.due(now, mark) else { break };
            self.fire(due, state);
            self.core.run_deferred(state);
        }
    }

    #[inline]
    fn flush_dirty(&mut self) {
        if !self.core.hub.cx.lists.dirty.is_empty() {
            self.core.hub.flush_dirty();
        }
    }

    /// Only those that were to be closed when the phase began, once their tells have run.
    #[inline]
    fn reap(&mut self, state: &mut S) {
        if !self.core.hub.cx.lists.closing.is_empty() || self.core.has_to_tidy() {
            self.close_and_tidy(state);
        }
    }

    #[inline(never)]
    fn close_and_tidy(&mut self, state: &mut S) {
        let count = self.core.hub.cx.lists.closing.len().min(self.core.hub.cx.config.turn_closings);
        for _ in 0..count {
            let Some((key, why)) = self.core.hub.cx.lists.closing.pop_front() else { break };
            if self.core.hub.slots.conn(key).is_some_and(|conn| conn.tells > 0) {
                self.core.hub.cx.lists.closing.push_back((key, why));
                continue;
            }
            finish_close(&mut self.core, key, why, state);
            self.core.run_deferred(state);
        }
        self.core.hub.cx.lists.closing.give_back();
        self.core.forget_the_dead();
        self.core.shrink();
        self.serving.give_back_beyond(self.core.hub.slots.len());
        (self.core.on_drain.advance)(&mut self.core);
    }

    /// If you asked for that: now that everything is in order.
    fn let_panics_go_on(&mut self) {
        if let Some(payload) = self.core.hub.cx.panicked.take() {
            payload.go_on();
        }
    }

    fn goes_on(&mut self) -> bool {
        let is_stopped = std::mem::take(&mut self.core.is_stopped);
        let is_alive = self.core.is_alive();
        if !is_alive {
            self.core.hub.start_afresh();
        }
        is_alive && !is_stopped
    }

    // ----------------------------------------------------------------------------------------------------- timers

    fn fire(&mut self, due: Due, state: &mut S) {
        let core = &mut self.core;
        match due.what {
            TimerKind::Job => return core.fire(due.timer, due.deadline, None, state),
            TimerKind::Owned(key) => return core.fire(due.timer, due.deadline, Some(key), state),
            _ => core.hub.cx.timers.cancel(due.timer),
        };
        match due.what {
            TimerKind::Clocks(key) => self.time_out(key, state),
            TimerKind::Grace => (core.on_drain.end)(core),
            what => core.hub.fire(what),
        }
    }

    fn time_out(&mut self, key: Key, state: &mut S) {
        let core = &mut self.core;
        let Some(expired) = core.hub.lend_if_there(key, Conn::expire_clocks).flatten() else { return };
        match expired {
            #[cfg(feature = "tls")]
            Expired::Connect if core.hub.guest_timed_out(key) => {}
            Expired::Connect => core.hub.lend(key, Conn::connect_timed_out),
            Expired::Limit(Limit::Linger) => core.hub.linger_is_over(key),
            // The protocol would hear of it too early, or too late: it is the end at once.
            Expired::Limit(limit) if !core.hub.slots.conn_at(key.index()).is_talking() => {
                core.hub.end(key, Reason::Limit(limit));
            }
            Expired::Limit(limit) => {
                core.call(key, state, Hub::queue_current, |handler, ctx, state| exceed(handler, ctx, state, limit));
                core.hub.mark_dirty(key);
            }
        }
    }
}

/// For a foreign loop, which waits for this descriptor to be readable, or for [`next_deadline`](Reactor::next_deadline),
/// whichever comes first, and then calls [`turn`](Reactor::turn) with `Duration::ZERO`. The descriptor stays readable until
/// a turn has looked, so watch it level-triggered. Available where there is epoll or kqueue. The chapter is
/// [embedding](crate::manual::embedding).
#[cfg(all(
    any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "netbsd",
        target_os = "openbsd"
    ),
    not(mio_unsupported_force_poll_poll)
))]
impl<S> std::os::fd::AsFd for Reactor<S> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.core.hub.cx.world.selector().expect("a reactor of the program has a selector of the system")
    }
}

/// Without a callback, and without letting out a panic of what is dropped.
impl<S> Drop for Reactor<S> {
    fn drop(&mut self) {
        self.core.discard_all();
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("slots", &self.core.hub.slots.len())
            .field("ready", &self.core.hub.cx.lists.ready.len())
            .field("closing", &self.core.hub.cx.lists.closing.len())
            .finish_non_exhaustive()
    }
}
