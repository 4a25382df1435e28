//! What the net borrows: the hub, and everything in it that is yours: handlers, tells, jobs. Runs your code between
//! callbacks, and never lets one of its panics out of the turn unless you asked for that.

#[cfg(all(unix, feature = "children"))]
use super::children::Ends;
use super::{
    Context, Deferred, Handler, Net, Next, Put,
    datagram::Datagrams,
    deferred::{OnDeferred, to_protocol},
    dispatcher::Dispatchers,
    lanes::Lanes,
    offload::{Offloads, OnKnown, OnReturn},
    remote::Inbox,
    timing::TimerJobs,
};
use crate::{
    address::Address,
    endpoint::{Conn, SHRINK_MIN},
    hub::Hub,
    key::Key,
    listen::Refusal,
    panics::{self, Payload, discard, guard},
    pool::PURPOSES,
    reason::{Outcome, Reason},
    room::Room,
    seldom::Seldom,
    stats::Stats,
    table::Table,
};
use std::{collections::VecDeque, time::Duration};

pub(crate) type Factory<S> = Box<dyn FnMut(&mut Net<'_, S>, &mut S, &Address) -> Result<Box<dyn Handler<S>>, Refusal>>;

/// What is done about a drain. The code that begins one names it, so that a program that never drains links nothing of it.
pub(crate) struct OnDrain<S> {
    pub(crate) advance: fn(&mut Core<S>),
    /// The grace is over.
    pub(crate) end: fn(&mut Core<S>),
}

pub(crate) struct Core<S> {
    pub(crate) hub: Hub,
    /// Protocols, by the slot of their connection. `None` while a callback of it is running: it is checked out.
    pub(crate) handlers: Vec<Option<Box<dyn Handler<S>>>>,
    /// What the connection whose callback is running is to become.
    pub(crate) next: Option<Next<S>>,
    /// The listener whose factory is running.
    pub(crate) accepting: Option<Key>,
    /// Apart from these, because there are few of them and many connections.
    pub(crate) factories: Table<Key, Factory<S>>,
    pub(crate) dispatchers: Seldom<Dispatchers<S>>,
    pub(crate) datagrams: Seldom<Datagrams<S>>,
    /// What follows the ends of children, by the dispatchers that wait for them.
    #[cfg(all(unix, feature = "children"))]
    pub(super) ends_of_children: Seldom<Ends<S>>,
    /// Tells and posts: one queue, in order.
    pub(crate) deferred: VecDeque<Deferred<S>>,
    pub(super) on_deferred: OnDeferred<S>,
    /// How many of them may still run in this turn.
    pub(crate) deferred_left: usize,
    pub(super) timer_jobs: TimerJobs<S>,
    pub(super) offloads: Seldom<Offloads<S>>,
    /// Made with the first.
    pub(super) lanes: Option<Box<Lanes<S>>>,
    pub(super) on_known: Option<OnKnown<S>>,
    /// Something is known, or refused, without another thread: told in the next turn. ⇔ there is something in
    /// `threads.known`, or `offloads` has some that are refused
    pub(super) has_known: bool,
    /// What becomes of what other threads bring back, by purpose. The code that gives such work out sets it, so that a
    /// program that never does links nothing of it.
    pub(super) on_return: [Option<OnReturn<S>>; PURPOSES],
    pub(super) inbox: Inbox<S>,
    pub(crate) on_drain: OnDrain<S>,
    pub(crate) is_stopped: bool,
    /// How each connection ended, for tests.
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
            accepting: None,
            factories: Table::default(),
            dispatchers: Seldom::none(),
            datagrams: Seldom::none(),
            #[cfg(all(unix, feature = "children"))]
            ends_of_children: Seldom::none(),
            deferred: VecDeque::new(),
            on_deferred: OnDeferred::NONE,
            deferred_left: 0,
            timer_jobs: TimerJobs::none(),
            offloads: Seldom::none(),
            lanes: None,
            on_known: None,
            has_known: false,
            on_return: [None; PURPOSES],
            inbox,
            on_drain: OnDrain { advance: |_| {}, end: |_| {} },
            is_stopped: false,
            #[cfg(feature = "sim")]
            ends: None,
        }
    }

    pub(crate) fn install(&mut self, key: Key, handler: Box<dyn Handler<S>>) {
        let index = key.index();
        if self.handlers.len() <= index {
            self.handlers.resize_with(index + 1, || None);
        }
        self.handlers[index] = Some(handler);
    }

    /// For connections that we have opened. Some drains ask them to finish at once.
    pub(super) fn install_opened(&mut self, key: Key, handler: Box<dyn Handler<S>>) {
        self.install(key, handler);
        if self.hub.drains_opened() {
            self.hub.owe_draining(key);
        }
    }

    /// Gives memory back after the slots did.
    pub(crate) fn shrink(&mut self) {
        let most = self.hub.slots.capacity();
        if self.handlers.capacity() > SHRINK_MIN && self.handlers.len() > most {
            self.handlers.truncate(most);
            self.handlers.shrink_to_fit();
        }
        let most = self.hub.slots.len();
        self.hub.cx.lists.ready.give_back_beyond(most);
        self.hub.cx.lists.dirty.give_back_beyond(most);
    }

    /// Of whatever has this key, for the log.
    pub(crate) fn type_name(&self, key: Key) -> &'static str {
        if self.factories.has(key) {
            return "listener";
        }
        let dispatcher = self.dispatchers.as_ref().and_then(|all| all.type_name(key));
        let datagram = self.datagrams.as_ref().and_then(|all| all.type_name(key));
        match (dispatcher.or(datagram), self.handlers.get(key.index())) {
            (Some(name), _) => name,
            (None, Some(Some(handler))) => handler.type_name(),
            _ => "-",
        }
    }

    /// The protocol itself, if it is of this type.
    #[cfg(feature = "sim")]
    pub(crate) fn protocol<P: super::Protocol<S>>(&mut self, key: Key) -> Option<&mut P> {
        self.hub.find(key)?;
        self.handlers.get_mut(key.index())?.as_mut()?.as_any().downcast_mut()
    }

    // ----------------------------------------------------------------------------------------------------- calling you

    /// Runs callbacks of one connection, whose handler is checked out meanwhile, so that they may do anything to the rest;
    /// then obeys: an upgrade, an `Err`, a panic. `leave` says how the output leaves (written now, or queued), and whether
    /// nothing is to be done for the connection afterwards.
    pub(crate) fn call(
        &mut self,
        key: Key,
        state: &mut S,
        leave: fn(&mut Hub) -> bool,
        run: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome,
    ) -> bool {
        let index = key.index();
        let Some(mut handler) = self.handlers.get_mut(index).and_then(Option::take) else { return false };
        let (conn, cx) = self.hub.pair(key);
        conn.lend_output(cx);
        let mut ctx = Context::new(self, key);
        let outcome = guard(|| run(&mut *handler, &mut ctx, state));
        if let Some(place) = self.handlers.get_mut(index) {
            std::mem::forget(place.replace(handler)); // its place is empty: there is nothing to be dropped
        }
        self.hub.obey(key, outcome);
        if self.next.is_some() {
            self.succeed(key);
        }
        leave(&mut self.hub)
    }

    /// Replaces the handler by the next one, unless the connection has begun to end.
    fn succeed(&mut self, key: Key) {
        let Some(next) = self.next.take() else { return };
        match next {
            _ if self.hub.find_open(key).is_none() => discard("a protocol", next),
            Next::Successor(successor) => {
                self.hub.forget_targets(key);
                self.hub.lend(key, Conn::begin_anew);
                self.hub.tie_reading_anew(key);
                let predecessor = self.handlers[key.index()].replace(successor);
                discard("a protocol", predecessor);
            }
            Next::Behind(put) => self.change_handler(key, put),
            Next::Bare => self.change_handler(key, Box::new(|handler| handler)),
        }
    }

    /// Puts another in front of it, in the place of one that has nothing to do any more.
    #[inline(never)]
    fn change_handler(&mut self, key: Key, put: Put<S>) {
        let place = &mut self.handlers[key.index()];
        let Some(mut handler) = place.take() else { return };
        let bare = handler.take_behind().unwrap_or(handler);
        *place = Some(put(bare));
    }

    /// For one life of a connection that is still open.
    pub(super) fn tell_life<P: super::Protocol<S>>(
        &mut self,
        key: Key,
        life: u32,
        what: &'static str,
        state: &mut S,
        tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome,
    ) {
        if self.hub.find_open(key).is_some_and(|conn| conn.upgrades == life) {
            self.tell_now(key, what, state, |handler, ctx, state| {
                to_protocol(handler, ctx, |protocol, ctx| tell(protocol, ctx, state))
            });
        }
    }

    /// Runs code of the program that belongs to no connection, and times it.
    pub(crate) fn run_guarded<T>(
        &mut self,
        key: Option<Key>,
        protocol: &'static str,
        callback: &'static str,
        run: impl FnOnce(&mut Net<'_, S>) -> T,
    ) -> Result<T, Payload> {
        self.hub.begin_timing();
        let result = guard(|| run(&mut Net { core: self }));
        self.hub.end_timing(key, protocol, callback);
        result
    }

    /// Runs code that belongs to no connection; says whether it ran to its end.
    pub(crate) fn run_job(&mut self, what: &'static str, state: &mut S, job: impl FnOnce(&mut Net<'_, S>, &mut S)) -> bool {
        let Err(payload) = self.run_guarded(None, "", what, |net| job(net, state)) else { return true };
        panics::report(what, "panicked", &payload);
        self.hub.cx.pass_on(payload);
        false
    }

    // --------------------------------------------------------------------------------------------------- other threads

    /// What other threads have done and what they ask for, a bounded number of each in a turn.
    #[inline]
    pub(crate) fn run_inbox(&mut self, state: &mut S) {
        if self.inbox.open() || self.has_known {
            self.empty_inbox(state);
        }
    }

    #[inline(never)]
    fn empty_inbox(&mut self, state: &mut S) {
        self.run_known(state);
        self.run_returned(state);
        self.run_jobs(state);
    }

    // --------------------------------------------------------------------------------------------------------- the end

    /// Drops what no state will ever be lent to.
    pub(crate) fn drop_all_deferred(&mut self) {
        self.deferred_left = 0;
        self.inbox.open(); // first: what comes from here on rings again
        (self.on_deferred.drop_all)(self);
        (self.timer_jobs.on.drop_all)(self);
        self.drop_all_offloads();
        self.discard_returned();
        self.discard_jobs();
    }

    /// Without a callback: there is no state to lend.
    pub(crate) fn discard_all(&mut self) {
        self.drop_all_deferred();
        for handler in self.handlers.drain(..).flatten() {
            discard("a protocol", handler);
        }
        if let Some(mut dispatchers) = self.dispatchers.take() {
            (dispatchers.discard)(&mut dispatchers);
        }
        if let Some(mut datagrams) = self.datagrams.take() {
            (datagrams.discard)(&mut datagrams);
        }
        #[cfg(all(unix, feature = "children"))]
        self.discard_ends_of_children();
        for (_, factory) in self.factories.take_all() {
            discard("a factory", factory);
        }
        self.hub.discard_all();
        self.drop_all_offloads(); // also the lanes of what was just dropped
    }

    pub(super) fn begin_drain(&mut self, grace: Duration) {
        self.on_drain = OnDrain { advance: Self::advance_drain, end: Self::end_drain };
        if self.hub.begin_drain(grace) {
            self.inbox.leave_the_rest(); // the next turn does not sleep: perhaps the first stage is over at its end
        }
    }

    fn advance_drain(&mut self) {
        let has_work_elsewhere = self.offloads() + self.pieces() > 0;
        self.hub.advance_drain(has_work_elsewhere);
    }

    /// The grace is over: what is left ends now, and nothing is opened any more.
    fn end_drain(&mut self) {
        self.hub.end_grace();
        self.drop_all_offloads();
        self.hub.end_all(|| Reason::Shutdown, false);
    }

    // ---------------------------------------------------------------------------------------------------- what is left

    pub(crate) fn stats(&self) -> Stats {
        Stats { offloads: self.offloads() + self.pieces(), ..self.hub.stats() }
    }

    /// Of lanes.
    fn pieces(&self) -> usize {
        self.lanes.as_ref().map_or(0, |lanes| lanes.pending())
    }

    pub(crate) fn remote(&self) -> super::Remote<S> {
        self.inbox.remote()
    }

    /// Whether there may be something to do at the end of a turn in which nothing is to be closed.
    #[inline]
    pub(crate) fn has_to_tidy(&self) -> bool {
        let hub = &self.hub;
        let has_emptied = self.handlers.len() > hub.slots.capacity() || hub.cx.timers.is_sparse();
        !hub.cx.lists.orphans.is_empty() || hub.is_draining() || has_emptied
    }

    /// Whether the next wait must not sleep.
    pub(crate) fn has_work(&self) -> bool {
        self.hub.cx.has_work() || !self.deferred.is_empty() || self.inbox.has_more() || self.has_known || self.is_stopped
    }

    /// Whether anything is left that could ever happen.
    pub(crate) fn is_alive(&self) -> bool {
        self.hub.counts.handlers() > 0 || self.is_awaited()
    }

    /// Whether something may come that no connection brings.
    #[inline(never)]
    fn is_awaited(&self) -> bool {
        let has_work = !self.hub.cx.lists.closing.is_empty() || !self.deferred.is_empty() || self.offloads() + self.pieces() > 0;
        if has_work || self.hub.waits_for_lingering() {
            return true;
        }
        let is_draining = self.hub.is_draining();
        let is_timed = !is_draining && self.hub.cx.jobs_set > 0;
        let has_asks = self.lanes.as_ref().is_some_and(|lanes| lanes.has_asks());
        is_timed || has_asks || self.has_known || self.inbox.is_awaited(!is_draining)
    }
}
