//! Blocking work on other threads: given out here, done there, told here.

use super::{Context, Core, Handler, Net, Protocol, deferred::mistaken};
use crate::{
    key::Key,
    panics::discard,
    pool::{Capacity, Purpose, Refused, Ticket},
    reason::{OffloadError, Outcome},
    table::Table,
    threads::{Product, Returned},
};

/// What to do when the work is done.
pub(crate) enum Done<S> {
    Job(Box<dyn FnOnce(&mut Net<'_, S>, &mut S, Result<Product, OffloadError>)>),
    /// For one life of this connection.
    Tell(Key, Box<dyn FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S, Result<Product, OffloadError>) -> Outcome>),
}

/// An offload for which there was no room.
pub(crate) struct Refusing<S> {
    done: Done<S>,
    error: OffloadError,
    /// Of its connection.
    ticket: Ticket,
    /// As `OnReturn`: named by who refuses.
    tell: fn(&mut Core<S>, Self, &mut S),
}

/// What becomes of it.
pub(crate) type OnReturn<S> = fn(&mut Core<S>, Ticket, Result<Product, OffloadError>, &mut S);

/// Of what was known without another thread.
const NO_TICKET: Ticket = 0;

/// For the log.
const FOLLOWS: &str = "what follows offloaded work";

impl<S> Net<'_, S> {
    /// Has another thread do `work`, which may block: a file, a database, a long calculation. When it is done, `done` runs
    /// on the loop, where it needs to be neither `Send` nor quick to get at: it has the network and your state.
    ///
    /// At most [`Config::offload_threads`](crate::Config::offload_threads) pieces of work run at a time, begun in the order
    /// in which they were given out, and [`Config::offload_queue`](crate::Config::offload_queue) wait; they end in any
    /// order. `done` never runs inside this call. Work that never returns keeps its thread, and [`run`](crate::Reactor::run);
    /// no thread is waited for at the end of the program.
    ///
    /// Pending work keeps [`run`](crate::Reactor::run) running, also in a [drain](Self::drain), up to its grace. A
    /// [shutdown](crate::Reactor::shutdown) and the end of that grace drop `done` uncalled, and work that has not begun; so
    /// does this call then, until everything has ended.
    ///
    /// # Errors
    /// `done` is told in [`OffloadError`] when the work panicked, and when there was no room for it.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut Net<'_, S>, &mut S, Result<T, OffloadError>) + 'static,
    ) {
        self.core.offload(work, Done::Job(Box::new(move |net, state, product| done(net, state, product.map(unpack)))));
    }

    /// [`Context::offload`], for the connection of this key. `false`: it is not open (any more), and nothing is done.
    pub fn offload_for<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        key: Key,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) -> bool {
        if self.core.hub.find_open(key).is_none() {
            return false;
        }
        let tell =
            Box::new(move |handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S, product: Result<_, _>| {
                match handler.as_any().downcast_mut::<P>() {
                    Some(protocol) => done(protocol, ctx, state, product.map(unpack)),
                    None => {
                        mistaken::<P>(ctx.key, handler.type_name());
                        Ok(())
                    }
                }
            });
        self.core.offload(work, Done::Tell(key, tell));
        true
    }
}

impl<S> Context<'_, S> {
    /// [`Net::offload`] for this connection: `done` is called like a callback of its own, and its `Err` ends the connection.
    ///
    /// It dies with the connection: once that has begun to end, or has become something else, `done` is dropped uncalled,
    /// and so is work that has not begun. Frames go on being delivered meanwhile; call [`pause`](Self::pause) and, in
    /// `done`, [`resume`](Self::resume) to answer one after the other.
    pub fn offload<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) {
        let own = self.own();
        self.net.offload_for(own, work, done);
    }

    /// [`Context::offload`], and nothing is read or delivered until `done` has returned, whatever it returns: requests are
    /// answered one after the other, in order. It is a [hold](Self::hold), so a [`resume`](Self::resume) meanwhile does not end it.
    #[track_caller]
    pub fn offload_held<P: Protocol<S>, T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Outcome + 'static,
    ) {
        let hold = self.hold();
        self.offload(work, move |protocol: &mut P, ctx, state, result| {
            let outcome = done(protocol, &mut ctx.lent(), state, result);
            ctx.release(hold);
            outcome
        });
    }
}

fn unpack<T: 'static>(product: Product) -> T {
    *product.downcast().expect("a ticket brings back what its own work has made")
}

impl<S> Core<S> {
    fn offload<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static, done: Done<S>) {
        self.on_return[Purpose::Offload as usize] = Some(Self::finish_offload);
        let hub = &mut self.hub;
        if hub.cx.is_shut {
            return;
        }
        let capacity = Capacity { threads: hub.cx.config.offload_threads, queue: hub.cx.config.offload_queue };
        // What is done and not told yet counts too: quick work could come in faster than its ends are told.
        let given = if self.offloads.len() < capacity.threads.max(1).saturating_add(capacity.queue) {
            hub.cx.give_out(Purpose::Offload, capacity, move || Box::new(work()))
        } else {
            Err(Refused::Full)
        };
        let error = match given {
            Ok(ticket) => {
                if let Done::Tell(key, _) = done {
                    hub.cx.threads.owned.put(ticket, key);
                }
                self.offloads.put(ticket, done);
                return;
            }
            Err(Refused::Full) => OffloadError::Full,
            Err(Refused::NoThread(error)) => OffloadError::NoThread(error),
        };
        let ticket = if let Done::Tell(key, _) = done { hub.cx.threads.refuse(key) } else { NO_TICKET };
        self.refused.push(Refusing { done, error, ticket, tell: Self::tell_refused });
    }

    /// What needed no other thread: all that stood there when this began, because a peer may have caused it by the thousand,
    /// and more would come than could ever be told.
    pub(super) fn run_known(&mut self, state: &mut S) {
        for found in std::mem::take(&mut self.hub.cx.threads.known) {
            if let Some(on_return) = self.on_return[Purpose::Names as usize] {
                on_return(self, NO_TICKET, Ok(Box::new(found)), state);
            }
            self.run_deferred(state);
        }
        for refusing in std::mem::take(&mut self.refused) {
            (refusing.tell)(self, refusing, state);
            self.run_deferred(state);
        }
    }

    fn tell_refused(&mut self, Refusing { done, error, ticket, .. }: Refusing<S>, state: &mut S) {
        match done {
            Done::Job(done) => _ = self.run_job(FOLLOWS, state, |net, state| done(net, state, Err(error))),
            Done::Tell(key, done) if self.hub.cx.threads.owned.remove(ticket).is_some() => {
                self.tell_now(key, FOLLOWS, state, |handler, ctx, state| done(handler, ctx, state, Err(error)));
            }
            nobodys => discard(FOLLOWS, nobodys),
        }
    }

    pub(super) fn has_known(&self) -> bool {
        !(self.refused.is_empty() && self.hub.cx.threads.known.is_empty())
    }

    pub(crate) fn offloads(&self) -> usize {
        self.offloads.len() + self.refused.len()
    }

    /// What other threads have done, so much a turn.
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
        match self.offloads.remove(ticket) {
            Some(Done::Job(done)) => _ = self.run_job(FOLLOWS, state, |net, state| done(net, state, product)),
            Some(Done::Tell(key, done)) if self.hub.cx.threads.owned.remove(ticket).is_some() => {
                self.tell_now(key, FOLLOWS, state, |handler, ctx, state| done(handler, ctx, state, product));
            }
            nobodys => {
                if let Err(error @ OffloadError::Panicked(_)) = &product {
                    log::error!(target: "mainspring", "{error}, and nobody waits for it any more");
                }
                discard(FOLLOWS, nobodys);
                discard("offloaded work", product);
            }
        }
    }

    pub(super) fn drop_all_offloads(&mut self) {
        for (ticket, done) in self.offloads.take_all() {
            self.drop_offload(ticket, done);
        }
        for Refusing { done, .. } in std::mem::take(&mut self.refused) {
            discard(FOLLOWS, done);
        }
        self.hub.cx.threads.owned = Table::default();
    }

    /// Drops what was to follow the work of a connection that has ended, and the work if it has not begun.
    pub(super) fn forget_offload(&mut self, ticket: Ticket) {
        if let Some(done) = self.offloads.remove(ticket) {
            self.drop_offload(ticket, done);
        }
    }

    fn drop_offload(&mut self, ticket: Ticket, done: Done<S>) {
        self.hub.cx.threads.take_back(Purpose::Offload, ticket);
        discard(FOLLOWS, done);
    }

    /// Without a callback: there is no state to lend.
    pub(super) fn discard_returned(&mut self) {
        while let Some(returned) = self.hub.cx.threads.next_returned() {
            discard("offloaded work", returned.product);
        }
        for found in std::mem::take(&mut self.hub.cx.threads.known) {
            discard("what was looked up", found);
        }
    }
}
