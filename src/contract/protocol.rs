//! The asynchat half: [`Protocol`], which you write, and `Handler`, which is what the loop sees of it.

use super::Context;
use crate::{
    flags::*,
    framing::{Found, Input, Step},
    reason::{Fault, Limit, Outcome, Reason},
    text::OneLine,
};
use std::any::Any;

/// What one connection does. The loop does the input and output; you get bytes and frames.
///
/// The grammar of calls is:
///
/// ```text
/// [connected (received | frame | writable | exceeded | draining | secured)*
///    [eof (writable | exceeded | draining)*]] closed
/// ```
///
/// Its own timers and offloads may come anywhere until it begins to end, and tells that were accepted until `closed`.
/// `closed` without `connected` *is* "could not connect", and its [`Reason`] says at which stage. The exception is a
/// connection that we ended ourselves before it was connected: then the reason says how (`Finish`, `Abort`, `Failed`,
/// `Limit`, `Overflow`, `Panicked`, `Shutdown`), or that it was lost while it was flushing (`Io`). `secured` comes only with
/// the feature `tls`, when TLS has begun in mid-stream; if that fails, the reason is `Tls`.
///
/// Every callback gets what you may do (`ctx`), what you have (`state`: what your program has one of, lent to every
/// callback), and what happened. No callback ever runs inside another, and none may block: the loop has one thread. An `Err`
/// ends this connection with [`Reason::Failed`], and a panic with [`Reason::Panicked`]; neither ends another connection.
/// After [`close`](Context::close), [`abort`](Context::abort) or an `Err`, nothing follows but `closed`. The chapter is
/// [protocols](crate::manual::protocols).
///
/// ```
/// use mainspring::{Context, Outcome, Protocol, Terminator};
///
/// struct Shout;
/// impl<S> Protocol<S> for Shout {
///     fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
///         ctx.set_terminator(Terminator::line(1024));
///         Ok(())
///     }
///     fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
///         ctx.send(line.to_ascii_uppercase());
///         ctx.send("\n");
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a protocol for the state `{S}`",
    label = "this has to be a `Protocol<{S}>`",
    note = "write `impl Protocol<{S}> for {Self}`, or `impl<S> Protocol<S> for {Self}` for any state; every callback has a default",
    note = "the state is the `S` of `Reactor<S>`, and `run` and `turn` are lent one"
)]
#[allow(unused_variables)]
pub trait Protocol<S = ()>: Any {
    /// The connection is there, and TLS is agreed on if it was asked for. This is the first callback, called once; each
    /// protocol that follows by [`upgrade`](Context::upgrade) gets it once too.
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        Ok(())
    }

    /// TLS was agreed on in mid-stream, and this protocol goes on: once after each
    /// [`Link::start_tls`](crate::Link::start_tls). Everything that you are given from now on came encrypted; do not trust
    /// anything that came before. Default: nothing.
    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        Ok(())
    }

    /// Bytes came, and no terminator cuts them into frames (or the terminator hands a frame over in pieces). `bytes` is
    /// never empty. Where one piece ends and the next begins means nothing. Default: an `Err`, unexpected bytes.
    fn received(&mut self, ctx: &mut Context<'_, S>, state: &mut S, bytes: &[u8]) -> Outcome {
        Err("unexpected bytes: no terminator is set, and `received` is not implemented".into())
    }

    /// A frame is complete, as the [`Terminator`](crate::Terminator) that is set defines it. It comes without its delimiter,
    /// unless the terminator is a [`through`](crate::Terminator::through). Default: an `Err`, unexpected frame.
    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, frame: &[u8]) -> Outcome {
        Err("unexpected frame: a terminator is set, and `frame` is not implemented".into())
    }

    /// Says where the next frame or piece is, as a [`Framer`](crate::Framer) does, under
    /// [`Terminator::own`](crate::Terminator::own). What it finds out stays in the protocol, for the `frame` or `received`
    /// that follows at once and can answer. (It is also called while the rest of a refused frame is skipped; then nothing
    /// follows.) You may decode `input` in place. Default: an `Err`.
    ///
    /// # Errors
    /// The same as for [`Framer::next`](crate::Framer::next).
    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Err("`Terminator::own` is set, and `cut` is not implemented".into())
    }

    /// The output was above its high mark and has fallen to the low one: you can go on sending. Called once for each time it
    /// was congested.
    fn writable(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        Ok(())
    }

    /// A bound of this connection was reached. Any `Err` (the default) ends it, with [`Reason::Limit`]. With `Ok` it goes
    /// on: `Idle` and `Stalled` start afresh, and `Deadline` is off. If a frame is too long or too slow, its rest is skipped
    /// up to its end, and a terminator that you set here applies after that (otherwise a delimiter and a framer stay, and a
    /// length becomes [`None`](crate::Terminator::None)). There is one exception: when a [`Framer`](crate::Framer) of your
    /// own refuses a frame by `Need`, its end is not known, and `Ok` closes politely.
    ///
    /// A time-out is told only after the loop has looked at its sockets once more after it ran out, so what the peer did in
    /// time still counts, even if somebody's callback took long.
    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        Err(limit.into())
    }

    /// The reactor is being [drained](crate::Net::drain), and what had arrived by then has been delivered: finish what is
    /// under way. Default: [`close_when_quiet`](Context::close_when_quiet).
    fn draining(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.close_when_quiet();
        Ok(())
    }

    /// The peer will send no more. `tail` is the unfinished frame, including the bytes of a half-seen delimiter: it comes
    /// here and not as a frame, because nothing says that it is complete. You may go on sending. Default:
    /// [`close`](Context::close), which flushes first, with [`Reason::Eof`].
    fn eof(&mut self, ctx: &mut Context<'_, S>, state: &mut S, tail: &[u8]) -> Outcome {
        ctx.close();
        Ok(())
    }

    /// The end: the last callback, exactly once, for every connection that was accepted or opened. Nothing can be sent any
    /// more, but `peer` and `local` still answer. Then the protocol is dropped.
    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {}
}

/// The object behind a slot. Dispatch is dynamic for each event and static for each frame: `deliver` is compiled for each
/// protocol.
pub(crate) trait Handler<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome;
    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome;
    /// Delivers what is in the input, until there is no more, `frames` is used up, or something happened that may forbid it;
    /// then the caller looks again.
    fn deliver(&mut self, ctx: &mut Context<'_, S>, state: &mut S, input: &mut Input, frames: &mut usize) -> Outcome;
    fn writable(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome;
    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome;
    fn draining(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome;
    fn eof(&mut self, ctx: &mut Context<'_, S>, state: &mut S, tail: &[u8]) -> Outcome;
    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason);
    /// For tells, which name their target's type. (Trait upcasting came with Rust 1.86.)
    fn as_any(&mut self) -> &mut dyn Any;
    /// For those that only look at it.
    fn as_any_ref(&self) -> &dyn Any;
    /// For the log.
    fn type_name(&self) -> &'static str;
    /// The handler that it stands in front of, if there is one. This one has nothing more to do then.
    fn take_behind(&mut self) -> Option<Box<dyn Handler<S>>> {
        None
    }
}

/// A protocol of the program. A tuple, because it is compiled where that is: with a type of ours around it, `deliver` would
/// be compiled elsewhere, and `frame` would not be inlined.
pub(crate) type Own<P> = (P,);

impl<S, P: Protocol<S>> Handler<S> for Own<P> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "connected", |ctx| Protocol::connected(&mut self.0, ctx, state))
    }

    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "secured", |ctx| Protocol::secured(&mut self.0, ctx, state))
    }

    fn deliver(&mut self, ctx: &mut Context<'_, S>, state: &mut S, input: &mut Input, frames: &mut usize) -> Outcome {
        let mut left = *frames;
        while left > 0 {
            let (conn, cx) = ctx.pair();
            match conn.next_frame(input, cx) {
                Found::Frame => {
                    cx.lent.frame_ended = true;
                    let frame = input.given();
                    ctx.timed(std::any::type_name::<P>(), "frame", |ctx| Protocol::frame(&mut self.0, ctx, state, frame))?;
                }
                Found::Piece if input.given().is_empty() => {}
                Found::Piece => {
                    let piece = input.given();
                    ctx.timed(std::any::type_name::<P>(), "received", |ctx| Protocol::received(&mut self.0, ctx, state, piece))?;
                }
                Found::TooLong => refuse_frame(self, ctx, state)?,
                Found::Broken => return Err(conn.framing.take_fault()),
                Found::Asks(bytes) => {
                    let step = Protocol::cut(&mut self.0, &mut input.unread_mut()[..bytes]);
                    let (conn, cx) = ctx.pair();
                    conn.said(step, bytes, input, cx);
                    continue;
                }
                Found::Nothing => {
                    conn.clear(MAY_HAVE_FRAME);
                    break;
                }
            }
            left -= 1;
            if ctx.hub().cx.lent.interrupt || input.is_empty() {
                break;
            }
        }
        *frames = left;
        Ok(())
    }

    fn writable(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "writable", |ctx| Protocol::writable(&mut self.0, ctx, state))
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "exceeded", |ctx| Protocol::exceeded(&mut self.0, ctx, state, limit))
    }

    fn draining(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "draining", |ctx| Protocol::draining(&mut self.0, ctx, state))
    }

    fn eof(&mut self, ctx: &mut Context<'_, S>, state: &mut S, tail: &[u8]) -> Outcome {
        ctx.timed(std::any::type_name::<P>(), "eof", |ctx| Protocol::eof(&mut self.0, ctx, state, tail))
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        ctx.timed(std::any::type_name::<P>(), "closed", |ctx| Protocol::closed(&mut self.0, ctx, state, why));
    }

    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.0
    }

    fn as_any_ref(&self) -> &dyn Any {
        &self.0
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<P>()
    }
}

/// In the middle of delivering.
pub(crate) fn refuse_frame<S>(handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
    let lent = &mut ctx.hub().cx.lent;
    (lent.is_given, lent.frame_ended) = (false, true);
    exceed(handler, ctx, state, Limit::FrameBytes)?;
    ctx.hub().cx.lent.is_given = true;
    Ok(())
}

/// Tells of a limit. If a frame exceeds one, its rest has to be skipped, and that is arranged before the callback, so that a
/// terminator set in it applies afterwards.
pub(crate) fn exceed<S>(handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
    let is_of_frame = matches!(limit, Limit::FrameBytes | Limit::FrameTime);
    let (conn, cx) = ctx.pair();
    let goes_on = !is_of_frame || conn.skip_frame(limit == Limit::FrameBytes, cx);
    if let Err(fault) = handler.exceeded(ctx, state, limit) {
        if !fault.is::<Limit>() {
            log::debug!(target: "mainspring", "{} {} said of its limit: {}", ctx.key, handler.type_name(), OneLine(fault));
        }
        return Err(limit.into());
    }
    if !goes_on {
        ctx.close();
    }
    Ok(())
}
