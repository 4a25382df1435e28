//! Tells and posts: what runs between callbacks, in one queue.

use super::{Context, Core, Handler, Net, Protocol};
use crate::{hub::Hub, key::Key, panics::discard, reason::Outcome, records::Cause, room::Room};
use log::Level;
use std::collections::VecDeque;

pub(crate) type PostedJob<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S)>;
pub(crate) type Tell<S> = Box<dyn FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome>;

/// What waits to run between callbacks.
pub(crate) enum Deferred<S> {
    /// For one life of one connection: not for its successor after an upgrade.
    Tell {
        key: Key,
        upgrades: u32,
        run: Tell<S>,
    },
    Post(PostedJob<S>),
}

/// What is done with them. The code that defers the first names it, so that a program that defers nothing links nothing of
/// it.
pub(super) struct OnDeferred<S> {
    run: fn(&mut Core<S>, &mut S),
    pub(super) drop_all: fn(&mut Core<S>),
}

impl<S> OnDeferred<S> {
    pub(super) const NONE: Self = Self { run: |_, _| {}, drop_all: |_| {} };
    const ALL: Self = Self { run: Core::run_some_deferred, drop_all: Core::drop_deferred };
}

impl<S> Core<S> {
    pub(super) fn tell(&mut self, key: Key, run: Tell<S>) -> bool {
        let Some(conn) = self.hub.slots.conn_mut(key).filter(|conn| conn.is_open()) else { return false };
        conn.tells += 1;
        let tell = Deferred::Tell { key, upgrades: conn.upgrades, run };
        self.defer(tell);
        true
    }

    pub(super) fn defer(&mut self, call: Deferred<S>) {
        self.on_deferred = OnDeferred::ALL;
        self.deferred.push_back(call);
    }

    /// Runs after each entry, job, timer and `closed`; a bounded number in a turn. What they queue themselves goes last.
    #[inline]
    pub(crate) fn run_deferred(&mut self, state: &mut S) {
        if !self.deferred.is_empty() {
            (self.on_deferred.run)(self, state);
        }
    }

    fn run_some_deferred(&mut self, state: &mut S) {
        while self.deferred_left > 0 {
            let Some(call) = self.deferred.pop_front() else { break };
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
                        self.hub.mark_dirty(key); // it may have waited for that
                    }
                }
            }
        }
        self.deferred.give_back();
    }

    fn drop_deferred(&mut self) {
        while let Some(call) = self.deferred.pop_front() {
            if let Deferred::Tell { key, .. } = &call {
                self.hub.slots.conn_at_mut(key.index()).tells = 0;
            }
            discard("a tell or post", call);
        }
        self.deferred = VecDeque::new();
    }

    pub(super) fn tell_now(
        &mut self,
        key: Key,
        what: &'static str,
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
        what: &'static str,
        state: &mut S,
        tell: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome,
    ) {
        self.call(key, state, Hub::queue_current, |handler, ctx, state| {
            let name = handler.type_name();
            ctx.timed(name, what, |ctx| tell(handler, ctx, state))
        });
        self.hub.mark_dirty(key);
    }
}

/// A tell finds its target by type as well as by key.
pub(super) fn addressed<S, P: Protocol<S>>(
    tell: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S) -> Outcome + 'static,
) -> Tell<S> {
    Box::new(move |handler, ctx, state| to_protocol(handler, ctx, |protocol, ctx| tell(protocol, ctx, state)))
}

/// Runs `run` with the protocol, if it is of this type; otherwise that is logged.
pub(super) fn to_protocol<S, P: Protocol<S>>(
    handler: &mut dyn Handler<S>,
    ctx: &mut Context<'_, S>,
    run: impl FnOnce(&mut P, &mut Context<'_, S>) -> Outcome,
) -> Outcome {
    match handler.as_any().downcast_mut::<P>() {
        Some(protocol) => run(protocol, ctx),
        None => {
            mistaken::<S, P>(ctx, handler.type_name());
            Ok(())
        }
    }
}

fn mistaken<S, P>(ctx: &mut Context<'_, S>, actual: &str) {
    let (key, meant) = (ctx.own(), std::any::type_name::<P>());
    let manner = ctx.hub().manner(key, Cause::Mistaken, Level::Warn);
    log::log!(target: "mainspring", manner.level, "{key} is a {actual}: a tell for a {meant} was dropped{manner}");
}
