//! The socketserver half: one request in, one answer out, in order. [`RequestHandler`] is for handlers with a life of their
//! own, [`Net::serve_lines`] for a function that answers lines.

use crate::{
    address::{Address, Target},
    contract::{Context, Net, Protocol},
    framing::Terminator,
    key::Key,
    listen::{Listen, Refusal},
    reason::{Fault, Limit, OffloadError, Outcome, Reason},
};
use std::{any::Any, cell::RefCell, fmt, io, rc::Rc};

/// What one connection of a server that answers requests does: one request at a time, in the order in which they came, even
/// if an answer takes a while. [`Net::serve`] makes one for each connection.
///
/// ```text
/// verify (setup (handle | exceeded)*)? finish
/// ```
///
/// While an answer is [on its way](Answer::later), no other request is delivered, and the connection is not read: a client
/// that sends faster than it is answered waits, and one that has closed politely keeps its place until then. This is not a
/// [`pause`](Context::pause): nobody's [`resume`](Context::resume) lets the next request in, and a pause of your own stays.
/// When the reactor is [drained](Net::drain), a connection closes after the answer that it is working on. An `Err` ends the
/// connection without an answer; so does a panic.
///
/// You may call everything from inside a handler, [`drain`](Net::drain) and [`stop`](Net::stop) too. If you need answers
/// without a request, several requests answered together, or tells from other connections, write a [`Protocol`]. The chapter
/// is [serving](crate::manual::serving#a-request-handler).
///
/// ```
/// use mainspring::{Answer, Context, Fault, Listen, Reactor, RequestHandler};
///
/// /// Counts the requests of its connection.
/// #[derive(Default)]
/// struct Count(u32);
/// impl<S> RequestHandler<S> for Count {
///     fn handle(&mut self, _: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Result<Answer<Self, S>, Fault> {
///         self.0 += 1;
///         Ok(match line {
///             b"quit" => Answer::last("bye\n"),
///             _ => Answer::now(format!("{}\n", self.0)),
///         })
///     }
/// }
///
/// let mut reactor = Reactor::<()>::new()?;
/// reactor.net().serve("127.0.0.1:0", Listen::new(), Count::default)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request handler for the state `{S}`",
    label = "this has to be a `RequestHandler<{S}>`",
    note = "write `impl RequestHandler<{S}> for {Self}`: all but its `handle` has a default",
    note = "a `Protocol` goes to `Net::listen` instead of `Net::serve`"
)]
#[allow(unused_variables)]
pub trait RequestHandler<S = ()>: Any + Sized {
    /// Says whether this peer is served, before there is a protocol for the connection. It runs between callbacks. Default:
    /// it is.
    ///
    /// # Errors
    /// The peer is given the last words and closed; nothing else is called.
    fn verify(&mut self, net: &mut Net<'_, S>, state: &mut S, peer: &Address) -> Result<(), Refusal> {
        Ok(())
    }

    /// Connected: say where a request ends, set time-outs, greet. Default: requests are lines of at most 1,024 bytes.
    ///
    /// # Errors
    /// They end the connection.
    fn setup(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(1024));
        Ok(())
    }

    /// A request came; it is without its delimiter. What you send by `ctx` leaves before the answer. An unfinished request
    /// at the end of the stream does not count as one.
    ///
    /// # Errors
    /// They end the connection.
    fn handle(&mut self, ctx: &mut Context<'_, S>, state: &mut S, request: &[u8]) -> Result<Answer<Self, S>, Fault>;

    /// A time-out passed, or a request is too long; [`Protocol::exceeded`] says what `Ok` does then. Default: an `Err`.
    ///
    /// # Errors
    /// They end the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        Err(limit.into())
    }

    /// The end, exactly once, for every connection that was verified. There are two exceptions. If the connection became
    /// something else by an [`upgrade`](Context::upgrade), its end is the successor's, and so is what you keep for it in
    /// your state. If the reactor is dropped without a [`shutdown`](crate::Reactor::shutdown), nobody is called.
    fn finish(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {}
}

/// The answer to one request; [a table](crate::manual::serving#a-request-handler) compares the kinds.
pub struct Answer<H, S = ()>(Reply<H, S>);

enum Reply<H, S> {
    Now {
        bytes: Vec<u8>,
        is_last: bool,
    },
    /// Gives the work out.
    Later(Box<dyn FnOnce(&mut Served<H>, &mut Context<'_, S>)>),
}

impl<H: RequestHandler<S>, S> Answer<H, S> {
    /// Answers with this, now.
    pub fn now(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Reply::Now { bytes: bytes.into(), is_last: false })
    }

    /// Answers with this, and then closes the connection: no further request is handled, and everything that was sent leaves
    /// first.
    pub fn last(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Reply::Now { bytes: bytes.into(), is_last: true })
    }

    /// Sends nothing: the request has no answer, or it was sent by `ctx`.
    pub fn none() -> Self {
        Self::now([])
    }

    /// Answers with what `done` makes of the result, after another thread has done `work`, which may block:
    /// [`Context::offload`]. The next request waits until then. What `done` returns may be a `later` again.
    pub fn later<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut H, &mut Context<'_, S>, &mut S, Result<T, OffloadError>) -> Result<Self, Fault> + 'static,
    ) -> Self {
        Self(Reply::Later(Box::new(|_, ctx| {
            ctx.offload_held(work, |served: &mut Served<H>, ctx, state, result| {
                let answer = done(&mut served.handler, &mut ctx.lent(), state, result)?;
                served.answer(ctx, answer);
                Ok(())
            });
        })))
    }
}

impl<H, S> fmt::Debug for Answer<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reply::Now { bytes, is_last: false } => write!(f, "Now(\"{}\")", bytes.escape_ascii()),
            Reply::Now { bytes, is_last: true } => write!(f, "Last(\"{}\")", bytes.escape_ascii()),
            Reply::Later(_) => f.write_str("Later"),
        }
    }
}

/// A request handler, as a protocol.
struct Served<H> {
    handler: H,
}

impl<H> Served<H> {
    fn answer<S>(&mut self, ctx: &mut Context<'_, S>, answer: Answer<H, S>) {
        match answer.0 {
            Reply::Now { bytes, is_last } => {
                ctx.send(bytes);
                if is_last {
                    ctx.close();
                }
            }
            Reply::Later(give_out) => give_out(self, ctx),
        }
    }
}

impl<S, H: RequestHandler<S>> Protocol<S> for Served<H> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.handler.setup(ctx, state)
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, request: &[u8]) -> Outcome {
        let answer = self.handler.handle(&mut ctx.lent(), state, request)?;
        self.answer(ctx, answer);
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        self.handler.exceeded(ctx, state, limit)
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        self.handler.finish(ctx, state, why);
    }
}

/// # Serving
///
/// The chapter is [serving](crate::manual::serving).
impl<S> Net<'_, S> {
    /// Listens, and answers requests: each connection gets its own handler, which may refuse it.
    ///
    /// # Errors
    /// The same as for [`listen`](Self::listen).
    pub fn serve<H: RequestHandler<S>>(
        &mut self,
        at: impl Into<Target>,
        options: Listen,
        mut make: impl FnMut() -> H + 'static,
    ) -> io::Result<Key> {
        self.listen_with(at, options, move |net, state, peer| {
            let mut handler = make();
            handler.verify(net, state, peer)?;
            Ok(Served { handler })
        })
    }

    /// Listens, and answers each line with what `reply` makes of it: the shortest server there is. `reply` gets the network,
    /// your state, the peer and the line, without its end. What it returns is sent as it is, so include the line's end. A
    /// client that sends a line of more than `limit` bytes is cut off, and so is one for which `reply` panics. A line that
    /// is cut short by the end of the stream does not count.
    ///
    /// A client may stay as long as it likes and say nothing; a [`RequestHandler`] can have time-outs.
    ///
    /// ```
    /// # let mut reactor = mainspring::Reactor::<u32>::new()?;
    /// reactor.net().serve_lines("127.0.0.1:0", 1024, |_, count, peer, line| {
    ///     *count += 1;
    ///     format!("{count}: {} bytes from {peer}\n", line.len())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The same as for [`listen`](Self::listen).
    pub fn serve_lines<R: AsRef<[u8]>>(
        &mut self,
        at: impl Into<Target>,
        limit: usize,
        reply: impl FnMut(&mut Net<'_, S>, &mut S, &Address, &[u8]) -> R + 'static,
    ) -> io::Result<Key> {
        let reply = Rc::new(RefCell::new(reply));
        self.listen_with(at, Listen::new(), move |_, _, peer| {
            Ok(LineServer { reply: Rc::clone(&reply), peer: peer.clone(), limit })
        })
    }
}

/// All connections of one listener share the function: no callback runs inside another, so it is always free.
struct LineServer<F> {
    reply: Rc<RefCell<F>>,
    peer: Address,
    limit: usize,
}

impl<S, R: AsRef<[u8]>, F: FnMut(&mut Net<'_, S>, &mut S, &Address, &[u8]) -> R + 'static> Protocol<S> for LineServer<F> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(self.limit));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, line: &[u8]) -> Outcome {
        let reply = &mut *self.reply.borrow_mut();
        let answer = reply(&mut ctx.lent().net, state, &self.peer, line);
        ctx.send(answer);
        Ok(())
    }
}
