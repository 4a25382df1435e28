//! Bytes to and from what may block, in a bounded amount of memory: [`Context::save`] and [`Context::send_from`]. Each is a
//! lane; another thread works on one piece while the next one is gathered, or sent.

use super::{
    Context, Core, Handler, Lane, Net, Protocol,
    offload::{Done, unpack},
    refuse_frame,
};
use crate::{
    cx::Cx,
    endpoint::Conn,
    flags::*,
    framing::{Found, Input},
    hold::Hold,
    output::{Produced, Producer},
    reason::{Limit, OffloadError, Outcome, Reason},
    threads::Product,
};
use std::{
    any::Any,
    cell::RefCell,
    io::{self, Read, Write},
    marker::PhantomData,
    rc::Rc,
};

/// A piece has at most about this many bytes.
const PIECE_BYTES: usize = 128 << 10;

/// What a thread has brought: bytes, or room for some.
fn piece_of(product: Result<Product, OffloadError>) -> io::Result<Vec<u8>> {
    product.map_err(io::Error::other).and_then(unpack)
}

/// What a handler becomes when its callback is over.
pub(crate) enum Next<S> {
    /// Another follows: an upgrade.
    Successor(Box<dyn Handler<S>>),
    /// Another stands in front of it for a while.
    Behind(Put<S>),
    /// The one in front has finished.
    Bare,
}

/// Puts another in front of it.
pub(crate) type Put<S> = Box<dyn FnOnce(Box<dyn Handler<S>>) -> Box<dyn Handler<S>>>;

/// # To and from what blocks
///
/// Files, read and written by other threads in a bounded amount of memory; [the
/// chapter](crate::manual::blocking_work#files-in-and-out) has an example.
impl<S: 'static> Context<'_, S> {
    /// Writes what would be delivered next to `writer`, on another thread: up to the end of the frame that comes, or of the
    /// stream. `received` and `frame` are not called meanwhile; everything else is. At most two pieces of about 128 KiB are
    /// in memory: if the writer is slower than the peer, reading waits.
    ///
    /// The terminator says where it ends: after a number of bytes with [`Stream`](crate::Terminator::Stream), at a delimiter
    /// with [`StreamUntil`](crate::Terminator::StreamUntil), at the end of the stream with
    /// [`None`](crate::Terminator::None). Then `done` gets the writer back, flushed, before anything else is delivered,
    /// `eof` included. Until then the writer is touched only on other threads. If `done` is never called, the writer is
    /// dropped on one of them: if its [`Drop`] removes a file that is not complete, none is left behind, whenever the
    /// connection ends. It is a [`Lane`](crate::Lane).
    ///
    /// # Errors
    /// `done` is told the writer's error at once, or [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the stream ended
    /// within a frame; the writer is dropped then. The rest of the frame is delivered as usual: close, or save it into an
    /// [`io::sink`]. A `save` while another one is under way ends the connection with [`Reason::Failed`].
    pub fn save<P: Protocol<S>, W: Write + Send + 'static>(
        &mut self,
        writer: W,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, io::Result<W>) -> Outcome + 'static,
    ) {
        let lane = self.net.core.lane(writer);
        let Some((conn, cx)) = self.pair_if_open() else { return };
        if conn.is_saving() {
            self.fail("a `save` while another one is under way");
            return;
        }
        conn.extra().odds().is_saving = true;
        conn.set_if(MAY_HAVE_FRAME, conn.held.is_some() && !conn.is(EOF_TOLD));
        cx.lent.recut = cx.stats.callbacks; // what was put back goes there too
        let end = conn.is(EOF_TOLD).then(|| End { tail: None, error: conn.cut_short() });
        let has_ended = end.is_some();
        let saved = Saved { lane, gathered: Vec::new(), is_at_work: false, end, hold: None, done: Some(Box::new(done)) };
        let saved = Rc::new(RefCell::new(saved));
        if has_ended {
            go_on(&saved, self);
        }
        let put = |behind| -> Box<dyn Handler<S>> { Box::new(Saving { behind: Some(behind), saved, of: PhantomData::<P> }) };
        self.net.core.next = Some(Next::Behind(Box::new(put)));
        self.hub().cx.lent.interrupt = true;
    }
}

impl<S> Context<'_, S> {
    /// Queues what `reader` gives, which another thread reads. It has its place in the output as a [producer](Self::produce)
    /// has, and is read when its turn has come and there is room, 128 KiB at a time. What is sent afterwards follows behind
    /// it. When the reader is at its end, and all of it is queued, `done` is told how many bytes it had. By then the peer
    /// may have taken them all and have answered, because the end is found by one more read. The reader is dropped on
    /// another thread. It is a [`Lane`](crate::Lane).
    ///
    /// `done` is not called once the connection has begun to end (what is queued still leaves, if it ends politely) or has
    /// become something else.
    ///
    /// # Errors
    /// If the reader fails before it has given anything, `done` is told, and may send something else. After that, or if
    /// `done` is not called any more, the error ends the connection with [`Reason::Failed`]: what was begun cannot be
    /// completed.
    pub fn send_from<P: Protocol<S>, R: Read + Send + 'static>(
        &mut self,
        reader: R,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, io::Result<u64>) -> Outcome + 'static,
    ) {
        let lane = self.net.core.lane(reader);
        let Some((key, life)) = self.pair_if_open().map(|(conn, _)| (conn.key, conn.upgrades)) else { return };
        let feed = Rc::new(RefCell::new(Feed::default()));
        let read = lane.maker(read_piece);
        let (of_refill, mut done) = (Rc::clone(&feed), Some(done));
        let done = Rc::new(RefCell::new(move |core: &mut Core<S>, state: &mut S, result| {
            if let Some(done) = done.take() {
                core.tell_life(key, life, "what follows `send_from`", state, |protocol, ctx, state| {
                    done(protocol, ctx, state, result)
                });
            }
        }));
        self.net.core.refill_by(lane.id(), move || {
            let (feed, done) = (Rc::clone(&of_refill), Rc::clone(&done));
            let arrived = move |net: &mut Net<'_, S>, state: &mut S, product: Result<Product, OffloadError>| {
                let is_heard = net.core.hub.find_open(key).is_some_and(|conn| conn.upgrades == life);
                let result = feed.borrow_mut().arrives(piece_of(product), is_heard);
                net.wake(key);
                if let Some(result) = result {
                    (done.borrow_mut())(net.core, state, result);
                }
            };
            Some((read()?, Done::Job(Box::new(arrived))))
        });
        let pull = lane.puller();
        self.produce(Sending { feed, pull, _lane: lane });
    }

    /// This connection, if it has not begun to end, with what it needs of the loop.
    fn pair_if_open(&mut self) -> Option<(&mut Conn, &mut Cx)> {
        let own = self.own();
        self.net.core.hub.find_open(own)?;
        Some(self.net.core.hub.pair(own))
    }
}

// ------------------------------------------------------------------------------------------------------------ saving

/// Stands in front of a protocol whose input goes elsewhere.
struct Saving<S, P, W: Send + 'static> {
    behind: Option<Box<dyn Handler<S>>>,
    saved: Rc<RefCell<Saved<S, P, W>>>,
    of: PhantomData<P>,
}

type SaveDone<S, P, W> = Box<dyn FnOnce(&mut P, &mut Context<'_, S>, &mut S, io::Result<W>) -> Outcome>;

struct Saved<S, P, W: Send + 'static> {
    lane: Lane<W>,
    /// What has come while the previous piece is being written.
    gathered: Vec<u8>,
    is_at_work: bool,
    /// Nothing more comes.
    end: Option<End>,
    hold: Option<Hold>,
    /// `None` once it is over.
    done: Option<SaveDone<S, P, W>>,
}

struct End {
    /// The end of the stream: the protocol is owed `eof`, with this.
    tail: Option<Vec<u8>>,
    /// What came is not complete.
    error: Option<io::Error>,
}

/// Gives out what was gathered, unless a piece is being written; and makes sure that no more comes than may.
fn go_on<S: 'static, P: Protocol<S>, W: Write + Send + 'static>(saved: &Rc<RefCell<Saved<S, P, W>>>, ctx: &mut Context<'_, S>) {
    if ctx.pair_if_open().is_none() {
        return; // nobody waits for it any more
    }
    let this = &mut *saved.borrow_mut();
    let is_last = this.end.is_some();
    if !this.is_at_work && (is_last || !this.gathered.is_empty()) {
        this.is_at_work = true;
        let (mut piece, saved, own) = (std::mem::take(&mut this.gathered), Rc::clone(saved), ctx.own());
        let write = move |writer: &mut W| -> io::Result<Vec<u8>> {
            writer.write_all(&piece)?;
            if is_last {
                writer.flush()?;
            }
            piece.clear();
            Ok(piece)
        };
        let written =
            move |handler: &mut dyn Handler<S>, ctx: &mut Context<'_, S>, state: &mut S, product: Result<Product, _>| {
                written(&saved, handler, ctx, state, piece_of(product), is_last)
            };
        this.lane.push(ctx.net.core, write, Done::Tell(own, Box::new(written)));
    }
    if this.hold.is_none() && (is_last || this.gathered.len() >= PIECE_BYTES) {
        this.hold = Some(ctx.hold());
    }
}

fn written<S: 'static, P: Protocol<S>, W: Write + Send + 'static>(
    saved: &Rc<RefCell<Saved<S, P, W>>>,
    handler: &mut dyn Handler<S>,
    ctx: &mut Context<'_, S>,
    state: &mut S,
    result: io::Result<Vec<u8>>,
    is_last: bool,
) -> Outcome {
    let mut this = saved.borrow_mut();
    this.is_at_work = false;
    let result = match result {
        Ok(spare) if !is_last => {
            let hold = if this.end.is_none() { this.hold.take() } else { None };
            drop(this);
            hold.into_iter().for_each(|hold| ctx.release(hold));
            go_on(saved, ctx);
            let gathered = &mut saved.borrow_mut().gathered;
            if gathered.capacity() == 0 {
                *gathered = spare; // two are enough, however much comes
            }
            return Ok(());
        }
        Ok(_) => match this.end.as_mut().and_then(|end| end.error.take()) {
            Some(error) => Err(error),
            None => this.lane.take_back().ok_or_else(|| io::Error::other("a writer was not given back")),
        },
        Err(error) => Err(error),
    };
    let (done, end, hold) = (this.done.take(), this.end.take(), this.hold.take());
    drop(this);
    ctx.net.core.next = Some(Next::Bare);
    if let Some((conn, cx)) = ctx.pair_if_open() {
        conn.extra().odds().is_saving = false;
        if let Some(tail) = end.and_then(|end| end.tail) {
            conn.owe_eof(&tail, cx);
        }
    }
    if let (Some(done), Some(protocol)) = (done, handler.as_any().downcast_mut::<P>()) {
        done(protocol, &mut ctx.lent(), state, result)?;
    }
    hold.into_iter().for_each(|hold| ctx.release(hold));
    Ok(())
}

impl<S: 'static, P: Protocol<S>, W: Write + Send + 'static> Saving<S, P, W> {
    fn behind(&mut self) -> &mut dyn Handler<S> {
        &mut **self.behind.as_mut().expect("it is taken out when all is over")
    }

    fn gather(&mut self, bytes: &[u8], ends: bool) {
        let this = &mut *self.saved.borrow_mut();
        this.gathered.extend_from_slice(bytes);
        if ends {
            this.end = Some(End { tail: None, error: None });
        }
    }
}

impl<S: 'static, P: Protocol<S>, W: Write + Send + 'static> Handler<S> for Saving<S, P, W> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.behind().connected(ctx, state)
    }

    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.behind().secured(ctx, state)
    }

    fn deliver(&mut self, ctx: &mut Context<'_, S>, state: &mut S, input: &mut Input, frames: &mut usize) -> Outcome {
        while *frames > 0 && self.saved.borrow().end.is_none() {
            let (conn, cx) = ctx.pair();
            match conn.next_frame(input, cx) {
                Found::Piece => self.gather(input.given(), false),
                Found::Frame => {
                    cx.lent.frame_ended = true;
                    self.gather(input.given(), true);
                }
                Found::TooLong => refuse_frame(self, ctx, state)?,
                Found::Asks(bytes) => {
                    let asked = &mut input.unread_mut()[..bytes];
                    let step = match self.behind().as_any().downcast_mut::<P>() {
                        Some(protocol) => protocol.cut(asked),
                        None => Err("it has become another".into()),
                    };
                    let (conn, cx) = ctx.pair();
                    conn.said(step, bytes, input, cx);
                    continue;
                }
                Found::Broken => return Err(conn.framing.take_fault()),
                Found::Nothing => {
                    conn.clear(MAY_HAVE_FRAME);
                    break;
                }
            }
            *frames -= 1;
            if ctx.hub().cx.lent.interrupt || input.is_empty() {
                break;
            }
        }
        go_on(&self.saved, ctx);
        Ok(())
    }

    fn writable(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.behind().writable(ctx, state)
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        self.behind().exceeded(ctx, state, limit)?;
        if matches!(limit, Limit::FrameBytes | Limit::FrameTime) {
            // The rest of the frame is skipped, and what comes after it does not belong to this.
            self.saved.borrow_mut().end.get_or_insert(End { tail: None, error: Some(io::Error::other(limit)) });
            go_on(&self.saved, ctx);
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.behind().draining(ctx, state)
    }

    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, tail: &[u8]) -> Outcome {
        let error = ctx.pair().0.cut_short();
        let mut tail = tail.to_vec();
        if error.is_none() {
            self.gather(&std::mem::take(&mut tail), false); // it was put back
        }
        self.saved.borrow_mut().end = Some(End { tail: Some(tail), error });
        go_on(&self.saved, ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        self.behind().closed(ctx, state, why);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self.behind().as_any()
    }

    fn as_any_ref(&self) -> &dyn Any {
        self.behind.as_ref().map_or(&(), |behind| behind.as_any_ref())
    }

    fn type_name(&self) -> &'static str {
        self.behind.as_ref().map_or("-", |behind| behind.type_name())
    }

    fn take_behind(&mut self) -> Option<Box<dyn Handler<S>>> {
        self.behind.take()
    }
}

// ----------------------------------------------------------------------------------------------------------- sending

/// What a reader has given, on its way into the output.
#[derive(Default)]
struct Feed {
    ready: Option<Vec<u8>>,
    is_reading: bool,
    has_ended: bool,
    bytes: u64,
    /// After something was given, or when nobody will be told.
    error: Option<io::Error>,
}

impl Feed {
    /// What is to be told. An error that nobody will be told is not ignored: what is sent would be incomplete.
    fn arrives(&mut self, piece: io::Result<Vec<u8>>, is_heard: bool) -> Option<io::Result<u64>> {
        self.is_reading = false;
        match piece {
            Ok(piece) if piece.is_empty() => {
                self.has_ended = true;
                Some(Ok(self.bytes))
            }
            Ok(piece) => {
                self.bytes += piece.len() as u64;
                self.ready = Some(piece);
                None
            }
            Err(error) if self.bytes == 0 && is_heard => {
                self.has_ended = true;
                Some(Err(error))
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

/// Empty: the end.
fn read_piece(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => {
                piece.truncate(result?);
                return Ok(piece);
            }
        }
    }
}

struct Sending<R: Send + 'static, F> {
    feed: Rc<RefCell<Feed>>,
    /// Has the next piece read.
    pull: F,
    _lane: Lane<R>,
}

impl<R: Send + 'static, F: Fn() + 'static> Producer for Sending<R, F> {
    fn more(&mut self, out: &mut Vec<u8>) -> io::Result<Produced> {
        let feed = &mut *self.feed.borrow_mut();
        let ready = feed.ready.take();
        if let (None, Some(error)) = (&ready, feed.error.take()) {
            return Err(error);
        }
        if !feed.is_reading && !feed.has_ended && feed.error.is_none() {
            feed.is_reading = true;
            (self.pull)();
        }
        match ready {
            Some(bytes) if out.is_empty() => *out = bytes,
            Some(bytes) => out.extend_from_slice(&bytes),
            None if feed.has_ended => return Ok(Produced::Done),
            None => return Ok(Produced::NotYet),
        }
        Ok(Produced::More)
    }
}
