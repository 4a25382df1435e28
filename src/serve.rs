//! One ready entry: check its handler out, deliver, obey, write, check it in.

use crate::{
    contract::{self, Context, Core, Handler},
    endpoint::{Budget, Conn, Entry, Next, Phase},
    flags::*,
    framing::{Input, ReadBuffers},
    hub::{Accepted, Hub},
    key::Key,
    panics::{self, Payload, discard, guard},
    reason::{Outcome, Reason},
    records::{Cause, Manner},
    stats::Kind,
    text::OneLine,
};
use log::Level;

/// Serves one key of the ready queue, then the tells and posts that it caused. `buffers` are the reactor's.
pub(crate) fn serve<S>(core: &mut Core<S>, key: Key, state: &mut S, buffers: &mut ReadBuffers) {
    if let Some(bytes) = core.hub.read_plainly(key, buffers) {
        serve_plainly(core, key, state, buffers, bytes);
    } else {
        match core.hub.take_turn(key) {
            Some(Kind::Listener) => serve_listener(core, key, state),
            Some(Kind::Dispatcher) => {
                if let Some(serve) = core.dispatchers.as_ref().map(|all| all.serve) {
                    serve(core, key, state);
                }
            }
            Some(Kind::Datagrams) => {
                if let Some(serve) = core.datagrams.as_ref().map(|all| all.serve) {
                    serve(core, key, state);
                }
            }
            Some(Kind::Accepted | Kind::Opened | Kind::Lingering) => serve_conn(core, key, state, buffers),
            None => return,
        }
    }
    core.run_deferred(state);
}

// ------------------------------------------------------------------------------------------------------ connections

/// The common case, which must be cheap: something was read, and nothing else has to be considered.
fn serve_plainly<S>(core: &mut Core<S>, key: Key, state: &mut S, buffers: &mut ReadBuffers, bytes: usize) {
    let is_idle = core.call(key, state, Hub::write_current, |handler, ctx, state| {
        let cx = &mut ctx.hub().cx;
        cx.lent.is_given = true;
        let mut frames = cx.config.turn_frames;
        handler.deliver(ctx, state, buffers.input(), &mut frames)?;
        let (conn, cx) = ctx.pair();
        if conn.ends_plainly(buffers, cx) {
            return Ok(());
        }
        let bytes = ctx.hub().cx.config.turn_bytes.saturating_sub(bytes);
        read_and_deliver(handler, ctx, state, buffers, Budget { bytes, frames })
    });
    if !is_idle {
        finish_turn(core, key, state, buffers);
    }
}

/// Finishes connecting, reads and delivers within the budget, then writes.
#[inline(never)]
fn serve_conn<S>(core: &mut Core<S>, key: Key, state: &mut S, buffers: &mut ReadBuffers) {
    let before = core.hub.progress(key);
    #[cfg(feature = "tls")]
    if core.hub.puts_off_shaking(key) {
        return;
    }
    let conn = core.hub.slots.conn_at(key.index());
    match conn.phase {
        Phase::Lingering => return core.hub.serve_lingering(key, buffers),
        #[cfg(feature = "tls")]
        Phase::Guest => return serve_guest(core, key, state),
        _ if !conn.is(ESTABLISHED) => finish_connecting(core, key),
        _ => core.hub.lend(key, Conn::look_at_failure),
    }
    if core.hub.slots.conn_at(key.index()).wants_callback() {
        core.call(key, state, Hub::write_current, |handler, ctx, state| converse(handler, ctx, state, buffers));
    } else {
        core.hub.lend(key, Conn::flush);
    }
    finish_turn(core, key, state, buffers);
    if core.hub.gets_nowhere(key, before) && !core.hub.slots.conn_at(key.index()).is(SHAKING) {
        let manner = core.hub.manner(key, Cause::GetsNowhere, Level::Warn);
        let (peer, name) = (&core.hub.slots.conn_at(key.index()).peer, core.type_name(key));
        let text = "is ready again and again, and gets nowhere";
        log::log!(target: "mainspring", manner.level, "{key} {peer} {name} {text}{manner}");
    }
}

/// Calls `writable`, if its turn let the output fall; then does whatever follows from what was done.
#[inline(never)]
fn finish_turn<S>(core: &mut Core<S>, key: Key, state: &mut S, buffers: &mut ReadBuffers) {
    let (conn, cx) = core.hub.pair(key);
    if conn.is(SHUT) {
        conn.end_input(buffers, cx);
    }
    if conn.takes_owed_writable() {
        core.call(key, state, Hub::queue_current, |handler, ctx, state| handler.writable(ctx, state));
        core.hub.mark_dirty(key);
    }
    core.hub.lend(key, Conn::settle);
}

fn finish_connecting<S>(core: &mut Core<S>, key: Key) {
    let is_shaking = core.hub.slots.conn_at(key.index()).is(SHAKING);
    core.hub.lend(key, Conn::serve_connecting);
    let conn = core.hub.slots.conn_at(key.index());
    if conn.is(ESTABLISHED) {
        let what = if is_shaking { "agreed on TLS" } else { "connected" };
        log::debug!(target: "mainspring", "{key} {} {} {what}", conn.peer, core.type_name(key));
    }
}

/// Delivers everything that is owed to the handler, then what has come and what comes, until one of the budgets is used up.
fn converse<S>(handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S, buffers: &mut ReadBuffers) -> Outcome {
    if ctx.pair().0.take(OWES_CONNECTED) {
        tell_connected(handler, ctx, state)?;
    }
    let (conn, cx) = ctx.pair();
    conn.lend_input(buffers);
    let budget = conn.budget(cx);
    read_and_deliver(handler, ctx, state, buffers, budget)?;
    if ctx.net.core.next.is_none() && ctx.pair().0.takes_owed_draining() {
        ctx.hub().cx.lent.is_given = false;
        handler.draining(ctx, state)?;
    }
    Ok(())
}

/// Or that it is secured, if it was connected already.
#[inline]
fn tell_connected<S>(handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
    #[cfg(feature = "tls")]
    if ctx.pair().0.takes_owed_secured() {
        return handler.secured(ctx, state);
    }
    handler.connected(ctx, state)
}

#[inline(never)]
fn read_and_deliver<S>(
    handler: &mut dyn Handler<S>,
    ctx: &mut Context<'_, S>,
    state: &mut S,
    buffers: &mut ReadBuffers,
    mut budget: Budget,
) -> Outcome {
    let key = ctx.key;
    loop {
        if ctx.hub().cx.put_back_so_far() > 0 {
            let (conn, cx) = ctx.pair();
            conn.put_back(buffers.input(), cx);
        }
        if ctx.net.core.next.is_some() {
            break;
        }
        match ctx.hub().lend(key, |conn, cx| conn.step(buffers, &mut budget, cx)) {
            Next::Deliver => {
                ctx.hub().cx.lent.is_given = true;
                handler.deliver(ctx, state, buffers.input(), &mut budget.frames)?;
            }
            Next::Forward(mate) => ctx.hub().forward(key, mate, buffers.input()),
            Next::Eof => {
                tell_eof(handler, ctx, state, buffers.input())?;
                break;
            }
            Next::Rest => break,
        }
    }
    let (conn, cx) = ctx.pair();
    conn.return_input(buffers, cx);
    Ok(())
}

fn tell_eof<S>(handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S, input: &mut Input) -> Outcome {
    let (conn, _) = ctx.pair();
    conn.set(EOF_TOLD);
    let mate = conn.forwards_to();
    if let Some(mate) = mate.filter(|_| !input.is_empty()) {
        let key = ctx.key;
        ctx.hub().forward(key, mate, input);
    }
    let (conn, _) = ctx.pair();
    let has_tail = conn.framing.has_tail();
    let tail = if has_tail { input.unread() } else { &[] };
    (ctx.hub().cx.lent.unread, ctx.hub().cx.lent.is_given) = (0, false);
    if mate.is_none() {
        handler.eof(ctx, state, tail)?;
    }
    let is_upgraded = matches!(ctx.net.core.next, Some(contract::Next::Successor(_)));
    if !is_upgraded || !has_tail {
        input.clear(); // a successor would get it again, but nothing of a frame that was refused
    }
    if !is_upgraded {
        let key = ctx.key;
        ctx.hub().pass_end_on(key);
        let (conn, cx) = ctx.pair();
        conn.close_if_both_ended(cx);
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------------- listeners

#[inline(never)]
fn serve_listener<S>(core: &mut Core<S>, key: Key, state: &mut S) {
    for _ in 0..core.hub.cx.config.turn_accepts {
        match core.hub.accept(key) {
            #[cfg(feature = "tls")]
            Accepted::Guest(guest) if core.hub.shakes_first(guest, key) => {}
            Accepted::Guest(guest) => let_in(core, key, guest, state),
            Accepted::Nobody => {}
            Accepted::Done => break,
        }
    }
    core.hub.requeue(key);
    core.hub.end_listener_if_drained(key);
}

/// No protocol is made for it before it has agreed on TLS.
#[cfg(feature = "tls")]
fn serve_guest<S>(core: &mut Core<S>, guest: Key, state: &mut S) {
    if let Some(listener) = core.hub.serve_guest(guest) {
        let_in(core, listener, guest, state);
        core.hub.end_listener_if_done(listener);
    }
}

/// The factory decides, between callbacks.
fn let_in<S>(core: &mut Core<S>, listener: Key, guest: Key, state: &mut S) {
    let Some(mut factory) = core.factories.take(listener) else {
        return core.hub.refuse(guest, b"");
    };
    let peer = core.hub.slots.conn_at(guest.index()).peer.clone();
    core.accepting = Some(listener);
    let made = core.run_guarded(Some(listener), "listener", "factory", |net| factory(net, state, &peer));
    core.accepting = None;
    core.factories.put(listener, factory);
    match made {
        Ok(Ok(handler)) => {
            log::debug!(target: "mainspring", "{guest} {peer} {} accepted", handler.type_name());
            core.install(guest, handler);
            core.hub.welcome(guest);
        }
        Ok(Err(refusal)) => {
            log::debug!(target: "mainspring", "{guest} {peer} refused by the factory of {listener}");
            core.hub.refuse(guest, &refusal.0);
        }
        Err(payload) => {
            let text = OneLine(panics::text(&payload));
            let manner = core.hub.manner(guest, Cause::FactoryPanicked, Level::Error);
            let whose = format!("the factory of {listener}");
            log::log!(target: "mainspring", manner.level, "{guest} {peer} reset: {whose} panicked: {text}{manner}");
            core.hub.turn_away(guest);
            core.hub.cx.pass_on(payload);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- the end

/// Calls `closed`, then drops the handler; then the slot is free (or lingers).
pub(crate) fn finish_close<S>(core: &mut Core<S>, key: Key, why: Reason, state: &mut S) {
    let is_clean = why.is_clean();
    if let Err(payload) = log_end(core, key, &why) {
        log::error!(target: "mainspring", "{key} an error panicked while it was logged: {}", OneLine(panics::text(&payload)));
        core.hub.cx.pass_on(payload);
    }
    #[cfg(feature = "sim")]
    if let Some(ends) = &mut core.ends {
        match guard(|| why.duplicate()) {
            Ok(end) => ends.push((key, end)),
            Err(payload) => core.hub.cx.pass_on(payload),
        }
    }
    let closed = match core.hub.slots.get(key).and_then(Entry::kind) {
        Some(Kind::Accepted | Kind::Opened) => finish_conn(core, key, why, state),
        Some(Kind::Dispatcher) => match core.dispatchers.as_ref().map(|all| all.finish) {
            Some(finish) => finish(core, key, why, state),
            None => Ok(()),
        },
        Some(Kind::Datagrams) => match core.datagrams.as_ref().map(|all| all.finish) {
            Some(finish) => finish(core, key, why, state),
            None => Ok(()),
        },
        _ => {
            discard("a factory", core.factories.remove(key));
            discard("an error", why);
            Ok(())
        }
    };
    if let Err(payload) = closed {
        let (manner, text) = (core.hub.manner(key, Cause::PanickedInClosed, Level::Error), panics::text(&payload));
        log::log!(target: "mainspring", manner.level, "{key} panicked in `closed`: {}{manner}", OneLine(text));
        core.hub.cx.pass_on(payload);
    }
    core.hub.after_closed(key, is_clean);
}

fn finish_conn<S>(core: &mut Core<S>, key: Key, mut why: Reason, state: &mut S) -> Result<(), Payload> {
    core.hub.cx.stats.closed.count(&why);
    let Some(mut handler) = core.handlers[key.index()].take() else { return Ok(()) };
    let (conn, cx) = core.hub.pair(key);
    if let Reason::Detached(detached) = &mut why {
        conn.hand_over(detached, cx);
    }
    conn.write_last(&why, cx);
    conn.lend_output(cx);
    let mut ctx = Context::new(core, key);
    let closed = guard(|| handler.closed(&mut ctx, state, why));
    discard("a protocol", core.next.take());
    core.hub.queue_current();
    discard("a protocol", handler);
    closed
}

/// The one record of a connection's end. Your own failures are warnings and panics are errors, but not more often than
/// people can read them; everything else is for those who ask. An error's own `Display` is your code too.
fn log_end<S>(core: &mut Core<S>, key: Key, why: &Reason) -> Result<(), Payload> {
    let hub = &mut core.hub;
    let manner = match why {
        Reason::Panicked(_) => hub.manner(key, Cause::Panicked, Level::Error),
        Reason::Failed(_) => hub.manner(key, Cause::Failed, Level::Warn),
        Reason::Overflow => hub.manner(key, Cause::Overflow, Level::Warn),
        _ => Manner::of(Level::Debug),
    };
    let level = manner.level;
    if !log::log_enabled!(target: "mainspring", level) {
        return Ok(());
    }
    let name = core.type_name(key);
    guard(|| match core.hub.slots.conn(key) {
        Some(conn) => log::log!(target: "mainspring", level, "{key} {} {name} closed: {why}{manner}", conn.peer),
        None => log::log!(target: "mainspring", level, "{key} {name} closed: {why}{manner}"),
    })
}
