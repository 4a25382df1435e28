//! Blocking work on other threads: given out here, done there, and told here.

use super::{Context, Core, Handler, Net, Protocol, deferred::to_protocol};
use crate::{
    config::Config,
    key::Key,
    panics::discard,
    pool::{Purpose, Refused, Ticket},
    reason::{OffloadError, Outcome},
    table::Table,
    threads::{Product, Returned, Work, forget},
};

/// What to do when the work is done.
pub(crate) enum Done<S> {
    Job(Box<dyn FnOnce(&mut Net<'_, S>, &mut S, Result<Product, OffloadError>)>),
    /// For one life of this connection.
    Tell(Key, DoneTell<S>),
}

pub(crate) type DoneTell<S> =
    Box<dyn FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S, Result<Product, OffloadError>) -> Outcome>;

impl<S> Done<S> {
    /// For no connection.
    pub(super) fn job<T: Send + 'static>(done: impl FnOnce(&mut Net<'_, S>, &mut S, Result<T, OffloadError>) + 'static) -> Self {
        Self::Job(Box::new(move |net, state, product| done(net, state, product.map(unpack))))
    }

    pub(super) fn owner(&self) -> Option<Key> {
        if let Self::Tell(key, _) = self { Some(*key) } else { None }
    }
}

/// Work that was given out.
struct Given<S> {
    done: Done<S>,
    is_held: bool,
}

/// An offload for which there was no room.
struct Refusing<S> {
    done: Done<S>,
    error: OffloadError,
    /// That of its connection.
    ticket: Ticket,
}

/// What follows the work that other threads do. What is done with it is named here, so that a program that gives none out
/// links nothing of it.
pub(super) struct Offloads<S> {
    given: Table<Ticket, Given<S>>,
    /// How many of them are held.
    held: usize,
    /// The same for those for which there was no room.
    refused: Vec<Refusing<S>>,
    tell_refused: fn(&mut Core<S>, &mut S),
    forget: fn(&mut Core<S>, Ticket) -> bool,
    drop_all: fn(&mut Core<S>),
}

impl<S> Offloads<S> {
    fn new() -> Self {
        Self {
            given: Table::default(),
            held: 0,
            refused: Vec::new(),
            tell_refused: Core::tell_refused,
            forget: Core::forget_given,
            drop_all: Core::drop_all_given,
        }
    }

    fn len(&self) -> usize {
        self.given.len() + self.refused.len()
    }

    fn take(&mut self, ticket: Ticket) -> Option<Done<S>> {
        let Given { done, is_held } = self.given.remove(ticket)?;
        self.held -= usize::from(is_held);
        Some(done)
    }
}

/// What is done about lookups whose answer was known at once.
pub(super) type OnKnown<S> = fn(&mut Core<S>, &mut S);

/// What becomes of it.
pub(crate) type OnReturn<S> = fn(&mut Core<S>, Ticket, Result<Product, OffloadError>, &mut S);

/// For the log.
pub(super) const FOLLOWS: &str = "what follows offloaded work";

/// # Work elsewhere
///
/// The chapter is [work elsewhere](crate::manual::blocking_work).
impl<S> Net<'_, S> {
    /// Has another thread do `work`, which may block: a file, a database, a long calculation. When it is done, `done` runs
    /// on the loop, where it need not be `Send` and has the network and your state at hand.
    ///
    /// At most [`Config::offload_threads`](crate::Config::offload_threads) pieces of work run at a time, begun in the order
    /// in which they were given out, and [`Config::offload_queue`](crate::Config::offload_queue) wait; they may end in any
    /// order. `done` never runs inside this call. Work that never returns keeps its thread busy, and
    /// [`run`](crate::Reactor::run) going; no thread is waited for at the end of the program.
    ///
    /// Pending work keeps [`run`](crate::Reactor::run) running, also in a [drain](Self::drain), up to its grace. A
    /// [shutdown](crate::Reactor::shutdown) and the end of that grace drop `done` uncalled, and work that has not begun; so
    /// does this call from then on, until everything has ended.
    ///
    /// # Errors
    /// `done` is told an [`OffloadError`] when the work panicked, and when there was no room for it.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut Net<'_, S>, &mut S, Result<T, OffloadError>) + 'static,
    ) {
        self.core.offload(false, Box::new(move || Box::new(work())), Done::job(done));
    }

    /// Has another thread do `work` for the connection of this key: `done` is called like one of its callbacks, and is
    /// dropped when it ends. `false`: the connection is not open (any more), and nothing is done. [`Context::offload`] says
    /// more.
    pub fn offload_for<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        key: Key,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) -> bool {
        self.core.offload_for(false, key, work, done)
    }
}

/// # Work elsewhere
///
/// What may block (a disk, a database, a long calculation) is done by other threads, and `done` is called like a callback of
/// this connection: never inside the call, and its `Err` ends the connection. Once the connection has begun to end, or has
/// become something else, `done` is dropped uncalled, and so is work that has not begun. The chapter is [work
/// elsewhere](crate::manual::blocking_work).
impl<S> Context<'_, S> {
    /// Has another thread do `work`, and then calls `done` with the result. Frames go on being delivered meanwhile, so a
    /// peer decides how much is given out; [`offload_held`](Self::offload_held) answers one request after the other.
    /// [`Net::offload`] says how much runs and waits at a time.
    ///
    /// # Errors
    /// `done` is told an [`OffloadError`] when the work panicked, and when there was no room for it.
    pub fn offload<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) {
        let own = self.own();
        self.net.core.offload_for(false, own, work, done);
    }

    /// Has another thread do `work`, and reads and delivers nothing until `done` has returned, whatever it returns: requests
    /// are answered one after the other, in order. It is a [hold](Self::hold), so a [`resume`](Self::resume) meanwhile does
    /// not end it. It always finds room in the queue.
    ///
    /// # Errors
    /// `done` is told an [`OffloadError`] when the work panicked, and when the system gives no thread.
    #[track_caller]
    pub fn offload_held<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) {
        let (own, hold) = (self.own(), self.hold());
        self.net.core.offload_for(true, own, work, move |protocol: &mut P, ctx: &mut Context<'_, S>, state: &mut S, result| {
            let outcome = done(protocol, &mut ctx.lent(), state, result);
            ctx.release(hold);
            outcome
        });
    }
}

/// What follows work of a connection, for whatever handler the connection has then.
pub(super) fn told<S, P: Protocol<S>, T: 'static>(
    done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
) -> DoneTell<S> {
    Box::new(move |handler, ctx, state, product| {
        to_protocol(handler, ctx, |protocol, ctx| done(protocol, ctx, state, product.map(unpack)))
    })
}

pub(super) fn unpack<T: 'static>(product: Product) -> T {
    *product.downcast().expect("a ticket brings back what its own work has made")
}

impl<S> Core<S> {
    /// Held work waits for as long as it takes: there is never more of it than there are connections that wait for it.
    pub(super) fn offload(&mut self, is_held: bool, work: Work, done: Done<S>) {
        self.on_return[Purpose::Offload as usize] = Some(Self::finish_offload);
        let hub = &mut self.hub;
        if hub.cx.is_shut {
            hub.cx.discard_elsewhere(Purpose::Offload, work);
            return discard(FOLLOWS, done);
        }
        let Config { offload_threads: threads, offload_queue, .. } = hub.cx.config;
        let queue = if is_held { usize::MAX } else { offload_queue };
        let ticket = hub.cx.threads.ticket(done.owner());
        // Work that is done and not told yet counts too: quick work could come in faster than its ends are told.
        let offloads = self.offloads.get_or_insert_with(Offloads::new);
        let is_full = !is_held && offloads.given.len() - offloads.held >= threads.max(1).saturating_add(queue);
        let given = match is_full {
            true => {
                hub.cx.discard_elsewhere(Purpose::Offload, work);
                Err(Refused::Full)
            }
            false => hub.cx.give_out(Purpose::Offload, queue, ticket, work),
        };
        match given {
            Ok(()) => {
                offloads.held += usize::from(is_held);
                offloads.given.put(ticket, Given { done, is_held });
            }
            Err(refused) => self.refuse_work(ticket, refused, done),
        }
    }

    /// `false`: the connection is not open.
    fn offload_for<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        is_held: bool,
        key: Key,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) -> bool {
        let is_open = self.hub.find_open(key).is_some();
        if is_open {
            self.offload(is_held, Box::new(move || Box::new(work())), Done::Tell(key, told(done)));
        }
        is_open
    }

    /// It is told like the end of other work, in the next turn.
    pub(super) fn refuse_work(&mut self, ticket: Ticket, refused: Refused, done: Done<S>) {
        let error = match refused {
            Refused::Full => OffloadError::Full,
            Refused::NoThread(error) => OffloadError::NoThread(error),
        };
        self.offloads.get_or_insert_with(Offloads::new).refused.push(Refusing { done, error, ticket });
        self.has_known = true;
    }

    /// What needed no other thread. Only what was there when this began: a peer may have caused it by the thousand, and more
    /// would come than could ever be told.
    pub(super) fn run_known(&mut self, state: &mut S) {
        if let Some(do_asks) = self.lanes.as_ref().filter(|lanes| lanes.has_asks()).map(|lanes| lanes.do_asks) {
            do_asks(self);
        }
        if let Some(on_known) = self.on_known {
            on_known(self, state);
        }
        if let Some(tell_refused) = self.offloads.as_ref().map(|offloads| offloads.tell_refused) {
            tell_refused(self, state);
        }
        self.look_for_known();
    }

    /// Checks whether there is still some of it.
    fn look_for_known(&mut self) {
        let has_refused = self.offloads.as_ref().is_some_and(|offloads| !offloads.refused.is_empty());
        self.has_known = has_refused || self.hub.cx.threads.known.as_ref().is_some_and(|known| !known.is_empty());
    }

    fn tell_refused(&mut self, state: &mut S) {
        let refused = self.offloads.as_mut().map(|offloads| std::mem::take(&mut offloads.refused));
        for Refusing { done, error, ticket } in refused.unwrap_or_default() {
            self.tell_done(Purpose::Offload, ticket, Some(done), Err(error), state);
            self.run_deferred(state);
        }
    }

    /// What follows work that has come to an end, unless nobody waits for it any more.
    pub(super) fn tell_done(
        &mut self,
        purpose: Purpose,
        ticket: Ticket,
        done: Option<Done<S>>,
        product: Result<Product, OffloadError>,
        state: &mut S,
    ) {
        match done {
            Some(Done::Job(done)) => _ = self.run_job(FOLLOWS, state, |net, state| done(net, state, product)),
            Some(Done::Tell(key, done)) if self.hub.cx.threads.owned.remove(ticket).is_some() => {
                self.tell_now(key, FOLLOWS, state, |handler, ctx, state| done(handler, ctx, state, product));
            }
            nobodys => {
                discard(FOLLOWS, nobodys);
                self.hub.cx.do_chore(purpose, Box::new(move || forget(product)));
            }
        }
    }

    pub(crate) fn offloads(&self) -> usize {
        self.offloads.as_ref().map_or(0, Offloads::len)
    }

    /// What other threads have done, a bounded number in a turn.
    pub(super) fn run_returned(&mut self, state: &mut S) {
        for _ in 0..self.hub.cx.config.turn_jobs {
            let Some(Returned { purpose, ticket, product }) = self.hub.cx.threads.next_returned() else { return };
            if let Some(on_return) = self.on_return[purpose as usize] {
                on_return(self, ticket, product, state);
            }
            self.run_deferred(state);
        }
        self.inbox.leave_the_rest();
    }

    fn finish_offload(&mut self, ticket: Ticket, product: Result<Product, OffloadError>, state: &mut S) {
        let done = self.offloads.as_mut().and_then(|offloads| offloads.take(ticket));
        self.tell_done(Purpose::Offload, ticket, done, product, state);
    }

    pub(super) fn drop_all_offloads(&mut self) {
        if let Some(drop_all) = self.offloads.as_ref().map(|offloads| offloads.drop_all) {
            drop_all(self);
        }
        self.hub.cx.threads.owned = Table::default();
        if let Some(drop_all) = self.lanes.as_ref().map(|lanes| lanes.drop_all) {
            drop_all(self);
        }
    }

    fn drop_all_given(&mut self) {
        let Some(offloads) = self.offloads.take() else { return };
        let Offloads { mut given, refused, .. } = *offloads;
        for (ticket, given) in given.take_all() {
            self.drop_offload(ticket, given.done);
        }
        for Refusing { done, .. } in refused {
            discard(FOLLOWS, done);
        }
        self.look_for_known();
    }

    /// Drops what was to follow the work of a connection that has ended, and the work if it has not begun.
    pub(super) fn forget_offload(&mut self, ticket: Ticket) {
        let forget = self.offloads.as_ref().map(|offloads| offloads.forget);
        if forget.is_some_and(|forget| forget(self, ticket)) {
            return;
        }
        if let Some(forget) = self.lanes.as_ref().map(|lanes| lanes.forget) {
            forget(self, ticket);
        }
    }

    /// Whether it was there.
    fn forget_given(&mut self, ticket: Ticket) -> bool {
        let done = self.offloads.as_mut().and_then(|offloads| offloads.take(ticket));
        done.map(|done| self.drop_offload(ticket, done)).is_some()
    }

    fn drop_offload(&mut self, ticket: Ticket, done: Done<S>) {
        self.hub.cx.threads.take_back(Purpose::Offload, ticket);
        discard(FOLLOWS, done);
    }

    /// Without a callback: there is no state to lend.
    pub(super) fn discard_returned(&mut self) {
        self.hub.cx.discard_returned();
        discard("what was looked up", std::mem::take(&mut self.hub.cx.threads.known));
        self.look_for_known();
    }
}
