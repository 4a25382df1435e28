//! What the net borrows: the hub, and everything of it that is yours: handlers, tells, jobs. Runs your code between
//! callbacks, and never lets a panic of it out of the turn unless you asked for that.

use super::{
    Context, Dispatcher, Handler, Net, Protocol,
    dispatcher::AnyDispatcher,
    offload::{Done, OnReturn, Refusing},
    remote::Inbox,
    resolve::Then,
};
use crate::{
    address::Address,
    endpoint::{Conn, SHRINK_MIN},
    hub::{Counts, Hub},
    key::{Key, Timer},
    listen::Refusal,
    panics::{self, Payload, discard, guard},
    pool::Ticket,
    reason::{Outcome, Reason},
    stats::Stats,
    table::Table,
    time::Time,
    timers::TimerKind,
};
use std::{collections::VecDeque, time::Duration};

pub(crate) type PostedJob<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S)>;
pub(crate) type Tell<S> = Box<dyn FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome>;
pub(crate) type Factory<S> = Box<dyn FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<Box<dyn Handler<S>>, Refusal>>;

/// What waits to be run between callbacks.
pub(crate) enum Deferred<S> {
    /// For one life of one connection: not for its successor after an upgrade.
    Tell {
        key: Key,
        upgrades: u32,
        run: Tell<S>,
    },
    Post(PostedJob<S>),
}

/// What a timer runs.
pub(crate) enum TimerJob<S> {
    Once(PostedJob<S>),
    Every(Duration, Box<dyn FnMut(&mut Net<'_, S>, &mut S)>),
    Tell(Tell<S>),
    /// The deadline of a lookup: its ticket, if another thread looks, and what it is asked for.
    Lookup(Option<Ticket>, String, Then<S>),
    TellEvery(Duration, Box<dyn FnMut(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome>),
}

/// How far draining has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Accepted connections finish.
    Accepted,
    /// Those that we opened for them finish too.
    Opened,
    /// Nothing is left but what is no connection.
    Rest,
}

pub(crate) struct Core<S> {
    pub(crate) hub: Hub,
    /// Protocols, by the slot of their connection. Nothing while its callback is running: it is checked out.
    pub(crate) handlers: Vec<Option<Box<dyn Handler<S>>>>,
    /// What the connection whose callback is running is to become.
    pub(crate) next: Option<Box<dyn Handler<S>>>,
    /// Apart from these, because there are few of them and many connections.
    pub(crate) factories: Table<Key, Factory<S>>,
    pub(crate) dispatchers: Table<Key, Box<dyn AnyDispatcher<S>>>,
    /// Tells and posts: one queue, in order.
    pub(crate) deferred: VecDeque<Deferred<S>>,
    /// How many of them may still run in this turn.
    pub(crate) deferred_left: usize,
    /// By the timer's index, with its serial.
    later: Vec<Option<(u64, TimerJob<S>)>>,
    /// What timers would have run that died with their connection, and whose place was taken since.
    replaced: Vec<TimerJob<S>>,
    /// What follows the work that other threads do.
    pub(super) offloads: Table<Ticket, Done<S>>,
    /// The same of those for which there was no room.
    pub(super) refused: Vec<Refusing<S>>,
    /// What becomes of what other threads bring back, by purpose: set by whoever gives such work out, so that who never does
    /// links nothing of it.
    pub(super) on_return: [Option<OnReturn<S>>; 2],
    pub(super) inbox: Inbox<S>,
    pub(crate) is_stopped: bool,
    pub(crate) drain: Option<Drain>,
    /// The end of the drain's grace.
    grace: Option<Timer>,
    /// How each connection ended, for those who test.
    #[cfg(feature = "sim")]
    pub(crate) ends: Option<Vec<(Key, Reason)>>,
}

impl<S> Core<S> {
    pub(crate) fn new(hub: Hub) -> Self {
        let inbox = Inbox::new(std::sync::Arc::clone(&hub.cx.threads.alarm));
        Self {
            hub,
            handlers: Vec::new(),
            next: None,
            factories: Table::default(),
            dispatchers: Table::default(),
            deferred: VecDeque::new(),
            deferred_left: 0,
            later: Vec::new(),
            replaced: Vec::new(),
            offloads: Table::default(),
            refused: Vec::new(),
            on_return: [None; 2],
            inbox,
            is_stopped: false,
            drain: None,
            grace: None,
            #[cfg(feature = "sim")]
            ends: None,
        }
    }

    // ----------------------------------------------------------------------------------------------- handlers

    pub(crate) fn install(&mut self, key: Key, handler: Box<dyn Handler<S>>) {
        let index = key.index();
        if self.handlers.len() <= index {
            self.handlers.resize_with(index + 1, || None);
        }
        self.handlers[index] = Some(handler);
    }

    /// Gives memory back after the slots did.
    pub(crate) fn shrink(&mut self) {
        let most = self.hub.slots.capacity();
        if self.handlers.capacity() > SHRINK_MIN && self.handlers.len() > most {
            self.handlers.truncate(most);
            self.handlers.shrink_to_fit();
        }
    }

    /// Of whatever has this key, for the log.
    pub(crate) fn type_name(&self, key: Key) -> &'static str {
        if self.factories.has(key) {
            return "listener";
        }
        match (self.dispatchers.get(key), self.handlers.get(key.index())) {
            (Some(dispatcher), _) => dispatcher.type_name(),
            (None, Some(Some(handler))) => handler.type_name(),
            _ => "-",
        }
    }

    /// The protocol itself, if it is of this type.
    #[cfg(feature = "sim")]
    pub(crate) fn protocol<P: Protocol<S>>(&mut self, key: Key) -> Option<&mut P> {
        self.hub.find(key)?;
        self.handlers.get_mut(key.index())?.as_mut()?.as_any().downcast_mut()
    }

    pub(super) fn dispatcher(dispatcher: impl Dispatcher<S>) -> Box<dyn AnyDispatcher<S>> {
        Box::new(dispatcher)
    }

    // ---------------------------------------------------------------------------------------------- calling you

    /// Runs callbacks of one connection, whose handler is checked out meanwhile, so that they may do anything to the rest;
    /// then obeys: an upgrade, an `Err`, a panic. `leave` says how the output leaves: written now, or queued.
    pub(crate) fn call(
        &mut self,
        key: Key,
        state: &mut S,
        leave: fn(&mut Hub),
        run: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome,
    ) {
        let index = key.index();
        let Some(place) = self.handlers.get_mut(index) else { return };
        let Some(mut handler) = place.take() else { return };
        let (conn, cx) = self.hub.pair(key);
        conn.begin_callback(cx);
        let mut ctx = Context::new(self, key);
        let outcome = guard(|| run(&mut *handler, &mut ctx, state));
        if let Some(place) = self.handlers.get_mut(index) {
            std::mem::forget(place.replace(handler)); // its place is empty: there is nothing to be dropped
        }
        self.hub.obey(key, outcome);
        if self.next.is_some() {
            self.succeed(key);
        }
        leave(&mut self.hub);
    }

    /// The handler is followed by another, unless the connection has begun to end.
    fn succeed(&mut self, key: Key) {
        if self.hub.find_open(key).is_some() {
            self.hub.forget_targets(key);
            self.hub.lend(key, Conn::begin_anew);
            std::mem::swap(&mut self.handlers[key.index()], &mut self.next);
        }
        discard("a protocol", self.next.take());
    }

    /// Runs any code of the program that is no connection's, and times it.
    pub(crate) fn guard<T>(
        &mut self,
        key: Option<Key>,
        protocol: &str,
        callback: &str,
        run: impl FnOnce(&mut Net<'_, S>) -> T,
    ) -> Result<T, Payload> {
        let began = self.hub.begin_callback();
        let result = guard(|| run(&mut Net { core: self }));
        self.hub.end_callback(key, protocol, callback, began);
        result
    }

    /// Runs code that belongs to no connection; whether it came to its end.
    pub(crate) fn run_job(&mut self, what: &str, state: &mut S, job: impl FnOnce(&mut Net<'_, S>, &mut S)) -> bool {
        let Err(payload) = self.guard(None, "", what, |net| job(net, state)) else { return true };
        panics::report(what, "panicked", &payload);
        self.hub.cx.pass_on(payload);
        false
    }

    // ------------------------------------------------------------------------------------------ tells and posts

    pub(super) fn tell(&mut self, key: Key, run: Tell<S>) -> bool {
        let Some(conn) = self.hub.slots.conn_mut(key).filter(|conn| conn.is_open()) else { return false };
        conn.tells += 1;
        self.deferred.push_back(Deferred::Tell { key, upgrades: conn.upgrades, run });
        true
    }

    /// After each entry, job, timer and `closed`; so many a turn. What they queue goes last.
    #[inline]
    pub(crate) fn run_deferred(&mut self, state: &mut S) {
        if !self.deferred.is_empty() {
            self.run_some_deferred(state);
        }
    }

    fn run_some_deferred(&mut self, state: &mut S) {
        while self.deferred_left > 0 {
            let Some(call) = self.deferred.pop_front() else { return };
            self.deferred_left -= 1;
            match call {
                Deferred::Post(job) => _ = self.run_job("a posted job", state, job),
                Deferred::Tell { key, upgrades, run } => {
                    let conn = self.hub.slots.conn_at_mut(key.index());
                    conn.tells -= 1;
                    if conn.upgrades == upgrades {
                        self.run_tell(key, "a tell", state, run);
                    } else {
                        log::debug!(target: "mainspring", "{key} a tell was dropped: its target has been upgraded since");
                        discard("a tell", run);
                    }
                }
            }
        }
    }

    // -------------------------------------------------------------------------------------------------- timers

    pub(super) fn set_timer(&mut self, delay: Duration, later: TimerJob<S>) -> Timer {
        let deadline = self.hub.cx.world.now() + delay;
        let timer = self.hub.cx.timers.set(deadline, TimerKind::Job);
        self.keep(timer, later);
        timer
    }

    pub(super) fn set_owned_timer(&mut self, key: Key, delay: Duration, later: TimerJob<S>) -> Timer {
        if self.hub.find_open(key).is_none() {
            return self.hub.cx.timers.stale();
        }
        let deadline = self.hub.cx.world.now() + delay;
        let timer = self.hub.set_owned_timer(key, deadline);
        self.keep(timer, later);
        timer
    }

    pub(super) fn keep(&mut self, timer: Timer, later: TimerJob<S>) {
        let index = timer.index as usize;
        if self.later.len() <= index {
            self.later.resize_with(index + 1, || None);
        }
        if let Some((_, dead)) = self.later[index].replace((timer.serial, later)) {
            self.replaced.push(dead); // not dropped now: a callback may be running
        }
        self.hub.cx.jobs_set += 1;
    }

    pub(super) fn cancel(&mut self, timer: Timer) -> bool {
        let is_job = self.hub.cx.timers.is_job(timer);
        if is_job {
            self.hub.cancel(timer);
            self.hub.cx.jobs_set -= 1;
            self.forget(timer);
        }
        is_job
    }

    pub(super) fn take_timer_job(&mut self, timer: Timer) -> Option<TimerJob<S>> {
        let kept = self.later.get_mut(timer.index as usize)?;
        kept.take_if(|(serial, _)| *serial == timer.serial).map(|(_, later)| later)
    }

    fn forget(&mut self, timer: Timer) {
        if let Some(later) = self.take_timer_job(timer) {
            self.drop_timer_job(later);
        }
        if self.hub.cx.jobs_set == 0 && self.hub.cx.jobs_dead.is_empty() && self.later.len() > 1024 {
            self.later = Vec::new();
        }
    }

    fn drop_timer_job(&mut self, later: TimerJob<S>) {
        if let TimerJob::Lookup(ticket, ..) = &later {
            self.forget_lookup(*ticket);
        }
        discard("a timer", later);
    }

    /// Drops what the timers and offloads of ended connections would have run.
    pub(crate) fn forget_the_dead(&mut self) {
        self.forget_dead_offloads();
        while let Some(timer) = self.hub.cx.jobs_dead.pop() {
            self.forget(timer);
        }
        self.forget_the_replaced();
    }

    fn forget_the_replaced(&mut self) {
        for later in std::mem::take(&mut self.replaced) {
            self.drop_timer_job(later);
        }
    }

    /// A timer of the program is due.
    pub(crate) fn fire(&mut self, timer: Timer, deadline: Time, owner: Option<Key>, state: &mut S) {
        let Some(later) = self.take_timer_job(timer) else { return };
        match later {
            TimerJob::Once(job) => {
                self.cancel(timer);
                self.run_job("a timer", state, job);
            }
            TimerJob::Tell(tell) => {
                self.cancel(timer);
                if let Some(key) = owner {
                    self.tell_now(key, "a timer", state, tell);
                }
            }
            TimerJob::Lookup(ticket, asked, then) => self.lookup_timed_out(timer, ticket, &asked, then, state),
            TimerJob::Every(period, mut job) => {
                self.set_next(timer, deadline, period);
                if !self.run_job("a timer", state, &mut job) {
                    self.cancel(timer);
                }
                self.keep_on(timer, TimerJob::Every(period, job));
            }
            TimerJob::TellEvery(period, mut tell) => {
                self.set_next(timer, deadline, period);
                if let Some(key) = owner {
                    self.tell_now(key, "a timer", state, &mut tell);
                }
                self.keep_on(timer, TimerJob::TellEvery(period, tell));
            }
        }
    }

    pub(super) fn tell_now(
        &mut self,
        key: Key,
        what: &str,
        state: &mut S,
        tell: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome,
    ) {
        if self.hub.find_open(key).is_some() {
            self.run_tell(key, what, state, tell);
        }
    }

    /// Outside the turn of its connection.
    fn run_tell(
        &mut self,
        key: Key,
        what: &str,
        state: &mut S,
        tell: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome,
    ) {
        self.call(key, state, Hub::queue_current, |handler, ctx, state| {
            let name = handler.type_name();
            ctx.timed(name, what, |ctx| tell(handler, ctx, state))
        });
        self.hub.mark_dirty(key);
    }

    /// The next time of its phase that is still to come: what was missed is skipped.
    fn set_next(&mut self, timer: Timer, deadline: Time, period: Duration) {
        let now = self.hub.cx.world.now();
        let missed = now.since(deadline).as_nanos() / period.as_nanos().max(1);
        let periods = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.hub.cx.timers.set_again(timer, deadline + period.saturating_mul(periods));
    }

    /// Unless it was cancelled, or its connection ended, while it ran.
    fn keep_on(&mut self, timer: Timer, later: TimerJob<S>) {
        if self.hub.cx.timers.is_set(timer) {
            self.later[timer.index as usize] = Some((timer.serial, later));
        } else {
            discard("a timer", later);
        }
    }

    // ------------------------------------------------------------------------------------------- other threads

    /// What other threads have done and what they ask for, so much of each a turn.
    #[inline]
    pub(crate) fn run_inbox(&mut self, state: &mut S) {
        if self.inbox.open() || self.has_known() {
            self.empty_inbox(state);
        }
    }

    #[inline(never)]
    fn empty_inbox(&mut self, state: &mut S) {
        self.run_known(state);
        self.run_returned(state);
        for _ in 0..self.hub.cx.config.turn_jobs {
            let Some(job) = self.inbox.next() else { return };
            self.run_job("a job of another thread", state, job);
            self.run_deferred(state);
        }
        self.inbox.leave_the_rest();
    }

    /// What no state will ever be lent to.
    pub(crate) fn drop_all_deferred(&mut self) {
        self.deferred_left = 0;
        self.inbox.open(); // first: what comes from here on rings again
        while let Some(call) = self.deferred.pop_front() {
            if let Deferred::Tell { key, .. } = &call {
                self.hub.slots.conn_at_mut(key.index()).tells = 0;
            }
            discard("a tell or post", call);
        }
        for (index, kept) in std::mem::take(&mut self.later).into_iter().enumerate() {
            let Some((serial, later)) = kept else { continue };
            let timer = Timer { index: u32::try_from(index).expect("the index of a timer"), serial };
            if self.hub.cancel(timer) {
                self.hub.cx.jobs_set -= 1;
            }
            self.drop_timer_job(later);
        }
        self.forget_the_replaced();
        self.drop_all_offloads();
        self.discard_returned();
        while let Some(job) = self.inbox.next() {
            discard("a job of another thread", job);
        }
    }

    /// Without a callback: there is no state to lend.
    pub(crate) fn discard_all(&mut self) {
        self.drop_all_deferred();
        for handler in self.handlers.drain(..).flatten() {
            discard("a protocol", handler);
        }
        for (_, dispatcher) in self.dispatchers.take_all() {
            discard("a dispatcher", dispatcher);
        }
        for (_, factory) in self.factories.take_all() {
            discard("a factory", factory);
        }
        self.hub.discard_all();
    }

    // ------------------------------------------------------------------------------------------------- the end

    pub(super) fn begin_drain(&mut self, grace: Duration) {
        let deadline = self.hub.cx.world.now() + grace;
        if let Some(previous) = self.grace.replace(self.hub.cx.timers.set(deadline, TimerKind::Grace)) {
            self.hub.cx.timers.cancel(previous);
        }
        if self.drain.is_none() {
            self.drain = Some(Drain::Accepted);
            let Counts { accepted, opened, .. } = self.hub.counts;
            (self.hub.cx.stats.to_drain, self.hub.cx.stats.undrained) = (accepted + opened, 0);
            log::info!(target: "mainspring", "draining {accepted} accepted and {opened} opened connections, {grace:?} at most");
            self.hub.ask_to_drain();
            self.inbox.leave_the_rest(); // the next turn does not sleep: at its end the first stage is over, perhaps
        }
    }

    /// The grace is over: what is left ends now, and nothing is opened any more.
    pub(crate) fn end_drain(&mut self) {
        self.grace = None;
        self.drain = Some(Drain::Rest);
        self.hub.cx.is_shut = true;
        let left = self.hub.counts.accepted + self.hub.counts.opened;
        self.hub.cx.stats.undrained = left;
        if left > 0 {
            log::warn!(target: "mainspring", "the grace of the drain is over, and {left} connections are left: they end now");
        }
        self.drop_all_offloads();
        self.hub.end_all(|| Reason::Shutdown);
    }

    /// Nothing is left, and the reactor may be used again.
    pub(crate) fn start_afresh(&mut self) {
        if self.drain.take().is_some() {
            let Stats { to_drain, undrained, .. } = self.hub.cx.stats;
            log::info!(target: "mainspring", "drained: of {to_drain} connections at first, {undrained} were left after the grace");
        }
        self.hub.cx.is_shut = false;
        if let Some(grace) = self.grace.take() {
            self.hub.cx.timers.cancel(grace);
        }
    }

    /// To the next stage, once the present one has nothing left; through all of them at once, because nothing would wake
    /// the loop in between.
    pub(crate) fn advance_drain(&mut self) {
        let Counts { accepted, opened, .. } = self.hub.counts;
        if self.drain == Some(Drain::Accepted) && accepted == 0 {
            self.drain = Some(Drain::Opened);
            self.hub.ask_opened_to_drain();
        }
        if self.drain == Some(Drain::Opened) && accepted + opened == 0 && self.offloads() == 0 {
            self.drain = Some(Drain::Rest);
        }
        if self.drain == Some(Drain::Rest) && accepted + opened == 0 {
            self.hub.end_all(|| Reason::Shutdown); // also what `closed` has opened meanwhile
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { offloads: self.offloads(), ..self.hub.stats() }
    }

    pub(crate) fn remote(&self) -> super::Remote<S> {
        self.inbox.remote()
    }

    /// Whether there may be something to do at the end of a turn in which nothing is to be closed.
    #[inline]
    pub(crate) fn has_to_tidy(&self) -> bool {
        let has_dead = !(self.hub.cx.jobs_dead.is_empty() && self.hub.cx.threads.dead.is_empty());
        has_dead || self.drain.is_some() || self.handlers.len() > self.hub.slots.capacity()
    }

    /// Whether the next wait must not sleep.
    pub(crate) fn has_work(&self) -> bool {
        self.hub.cx.has_work() || !self.deferred.is_empty() || self.inbox.has_more() || self.has_known() || self.is_stopped
    }

    /// Whether anything is left that could ever happen.
    pub(crate) fn is_alive(&self) -> bool {
        let has_no_work = self.hub.cx.closing.is_empty() && self.deferred.is_empty() && self.offloads() == 0;
        let is_busy = self.hub.counts.handlers() > 0 || !has_no_work;
        let is_waited_for = || self.drain.is_none() && (self.hub.cx.jobs_set > 0 || self.inbox.has_remotes());
        // The inbox after the remotes: a thread that posts and then lets its remote go in between is not missed.
        is_busy || is_waited_for() || self.has_known() || self.inbox.has_more()
    }
}

/// A tell finds its target by type as well as by key.
pub(super) fn addressed<S, P: Protocol<S>>(
    tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
) -> Tell<S> {
    Box::new(move |handler, ctx, state| match handler.as_any().downcast_mut::<P>() {
        Some(protocol) => tell(protocol, ctx, state),
        None => {
            mistaken::<P>(ctx.key, handler.type_name());
            Ok(())
        }
    })
}

pub(super) fn mistaken<P>(key: Key, actual: &str) {
    log::warn!(target: "mainspring", "{key} is a {actual}: a tell for a {} was dropped", std::any::type_name::<P>());
}
