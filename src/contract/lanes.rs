//! Lanes: things that other threads work on, one piece of work after another. What is said to a lane where no net is at hand
//! is an [`Ask`], and is done in the next turn.

use super::{
    Context, Core, Net, Protocol,
    offload::{Done, FOLLOWS, told},
};
use crate::{
    alarm::Alarm,
    cx::Cx,
    panics::{discard, guard, report},
    pool::{Job, Purpose, Ticket},
    reason::{OffloadError, Outcome},
    table::Table,
    threads::{Product, Work},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Something that other threads work on, one piece of work after another, in order: a file, a database, a socket that
/// blocks. Made by [`Net::lane`].
///
/// At most one piece is worked on at a time, however many wait, so a lane never takes more than one of the
/// [`Config::lane_threads`](crate::Config::lane_threads), and never finds them [full](OffloadError::Full). The thing itself
/// is touched and dropped only on these threads: closing a file may block too. A lane that is dropped is
/// [finished](Self::finish) with nothing to do. The chapter is [work
/// elsewhere](crate::manual::blocking_work#things-that-are-worked-on-lanes).
pub struct Lane<T: Send + 'static> {
    /// `None` once it is finished.
    thing: Option<Thing<T>>,
    id: LaneId,
    asks: Rc<Asks>,
    pending: Rc<Cell<usize>>,
}

type Thing<T> = Arc<Worked<T>>;

/// What is worked on.
struct Worked<T> {
    /// Locked by the thread that works on it, never by two. `None` once it is finished.
    thing: Mutex<Option<T>>,
    /// What is to be done with it last.
    last: Mutex<Option<Box<dyn FnOnce(T) + Send>>>,
    /// That is due: if a thread is working, it does this when it is through. Nobody waits for it.
    is_due: AtomicBool,
}

impl<T> Worked<T> {
    /// Unless a thread is working.
    fn finish(&self) {
        let thing = match self.thing.try_lock() {
            Ok(mut thing) => thing.take(),
            Err(TryLockError::Poisoned(thing)) => thing.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(thing) = thing {
            let last = lock(&self.last).take();
            last.map_or_else(|| (), |last| last(thing));
        }
    }
}

pub(crate) type LaneId = u64;

impl<T: Send + 'static> Lane<T> {
    /// Has another thread do `work` on the thing, after all that was given before. When it is done, `done` is called like a
    /// callback of this connection, and its `Err` ends it. If the connection begins to end, or becomes something else,
    /// before that, `done` is dropped uncalled, and work that has not begun is not done: what must be done belongs in
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// `done` is told an [`OffloadError`] when the work panicked, and when the system gives no thread. The lane goes on,
    /// with the thing as it was left.
    pub fn offload<P: Protocol<S>, S, R: Send + 'static>(
        &mut self,
        ctx: &mut Context<'_, S>,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
        done: impl FnOnce(&mut P, &mut Context<'_, S>, &mut S, Result<R, OffloadError>) -> Outcome + 'static,
    ) {
        let own = ctx.own();
        if ctx.net.core.hub.find_open(own).is_some() {
            self.push(ctx.net.core, work, Done::Tell(own, told(done)));
        }
    }

    /// Has another thread do `work` on the thing, after all that was given before, for no connection: for a timer, a
    /// datagram, or work that must be done although the connection that asked for it has ended meanwhile. When it is done,
    /// `done` runs on the loop, like that of [`Net::offload`]; never inside this call. The chapter on [an
    /// application](crate::manual::an_application#one-order) shows a database that all connections share.
    ///
    /// A shutdown, and the end of a drain's grace, drop work that has not begun, and `done` uncalled: what must be done even
    /// then belongs in [`finish`](Self::finish). With another reactor's net nothing is done.
    ///
    /// # Errors
    /// `done` is told an [`OffloadError`] when the work panicked, and when the system gives no thread. The lane goes on,
    /// with the thing as it was left.
    pub fn offload_net<S, R: Send + 'static>(
        &mut self,
        net: &mut Net<'_, S>,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
        done: impl FnOnce(&mut Net<'_, S>, &mut S, Result<R, OffloadError>) + 'static,
    ) {
        self.push(net.core, work, Done::job(done));
    }

    /// With another reactor's net nothing is done.
    pub(super) fn push<S, R: Send + 'static>(
        &mut self,
        core: &mut Core<S>,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
        done: Done<S>,
    ) {
        let is_of_this = core.lanes.as_ref().is_some_and(|lanes| Rc::ptr_eq(&self.asks, &lanes.asks));
        if let Some(thing) = self.thing.as_ref().filter(|_| is_of_this) {
            core.push_piece(self.id, work_on(thing, work), Some(done));
        }
    }

    /// Makes pieces of work that are always the same.
    pub(super) fn maker<R: Send + 'static>(&self, work: fn(&mut T) -> R) -> impl Fn() -> Option<Work> + use<T, R> {
        let thing = self.thing.clone();
        move || Some(work_on(thing.as_ref()?, work))
    }

    /// How many pieces of work were given and have not ended.
    pub fn pending(&self) -> usize {
        self.pending.get()
    }

    /// Has `last` done after the last piece of work, always: also when the connection is gone, or the reactor was drained or
    /// shut down. It is the place to remove a file that was not completed, for fsync(2), and for closing. Nobody is told of
    /// its end; a panic is logged. [`run`](crate::Reactor::run) waits for it, but not beyond the grace of a drain or a
    /// shutdown: the program may end before it does.
    pub fn finish(mut self, last: impl FnOnce(T) + Send + 'static) {
        self.end(last);
    }

    fn end(&mut self, last: impl FnOnce(T) + Send + 'static) {
        let Some(thing) = self.thing.take() else { return };
        *lock(&thing.last) = Some(Box::new(last));
        let last = Last::work(move || {
            thing.is_due.store(true, Ordering::SeqCst);
            thing.finish();
        });
        self.asks.ask(Ask::Last(self.id, Some(last)));
    }

    /// The thing, if no thread is working on it. The lane is finished then.
    pub(super) fn take_back(&mut self) -> Option<T> {
        let thing = self.thing.take()?;
        self.asks.ask(Ask::Last(self.id, None));
        thing.thing.try_lock().ok()?.take()
    }

    /// Has a piece made, by what the lane was [set up](Core::refill_by) with.
    pub(super) fn puller(&self) -> impl Fn() + use<T> {
        let (asks, id) = (Rc::clone(&self.asks), self.id);
        move || asks.ask(Ask::Refill(id))
    }

    pub(super) fn id(&self) -> LaneId {
        self.id
    }
}

impl<T: Send + 'static> Drop for Lane<T> {
    fn drop(&mut self) {
        self.end(drop);
    }
}

impl<T: Send + 'static> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

fn work_on<T: Send + 'static, R: Send + 'static>(thing: &Thing<T>, work: impl FnOnce(&mut T) -> R + Send + 'static) -> Work {
    let thing = Arc::clone(thing);
    Box::new(move || {
        let result = guard(|| lock(&thing.thing).as_mut().map(work));
        if thing.is_due.load(Ordering::SeqCst) {
            thing.finish();
        }
        match result {
            Ok(Some(result)) => Box::new(result),
            Ok(None) => Box::new(()), // it is finished: nobody waits for this
            Err(payload) => payload.go_on(),
        }
    })
}

/// A panic of a piece leaves the thing to the next.
fn lock<T>(thing: &Mutex<T>) -> MutexGuard<'_, T> {
    thing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked of the lanes of one reactor.
pub(crate) struct Asks {
    list: RefCell<Vec<Ask>>,
    /// Tells the loop to look.
    alarm: Arc<Alarm>,
    /// The reactor is gone.
    is_over: Cell<bool>,
}

enum Ask {
    /// No further piece comes, after this one.
    Last(LaneId, Option<Work>),
    /// A piece is to be made.
    Refill(LaneId),
}

impl Asks {
    fn ask(&self, ask: Ask) {
        match ask {
            Ask::Last(_, last) if self.is_over.get() => drop(last),
            ask => {
                self.list.borrow_mut().push(ask);
                self.alarm.mark();
            }
        }
    }
}

/// The lanes of one reactor, made with the first. What is done with them is named here, so that a program that has none
/// links nothing of it.
pub(super) struct Lanes<S> {
    so_far: LaneId,
    queues: Table<LaneId, Queue<S>>,
    /// Which lane each piece that has not ended belongs to.
    pieces: Table<Ticket, LaneId>,
    asks: Rc<Asks>,
    pub(super) do_asks: fn(&mut Core<S>),
    pub(super) forget: fn(&mut Core<S>, Ticket),
    pub(super) drop_all: fn(&mut Core<S>),
}

/// What is to be done on one thing.
struct Queue<S> {
    waiting: VecDeque<Piece<S>>,
    at_work: Option<AtWork<S>>,
    /// No further piece comes.
    is_over: bool,
    refill: Option<Refill<S>>,
    pending: Rc<Cell<usize>>,
}

/// Makes a piece.
type Refill<S> = Box<dyn FnMut() -> Option<(Work, Done<S>)>>;

struct Piece<S> {
    ticket: Ticket,
    work: Work,
    done: Option<Done<S>>,
}

struct AtWork<S> {
    ticket: Ticket,
    /// `None` if nobody waits for it (any more).
    done: Option<Done<S>>,
}

impl<S> Lanes<S> {
    pub(super) fn has_asks(&self) -> bool {
        !self.asks.list.borrow().is_empty()
    }

    /// Pieces that have not ended; they keep the reactor running.
    pub(super) fn pending(&self) -> usize {
        self.pieces.len()
    }
}

impl<S> Drop for Lanes<S> {
    fn drop(&mut self) {
        self.asks.is_over.set(true);
        for queue in self.queues.take_all() {
            discard(FOLLOWS, queue);
        }
    }
}

impl<S> Net<'_, S> {
    /// Hands a thing over to other threads, which work on it one piece after another, in order, and drop it: a file, a
    /// database, a socket that blocks. The [`Lane`] gives them the work.
    pub fn lane<T: Send + 'static>(&mut self, thing: T) -> Lane<T> {
        self.core.lane(thing)
    }
}

impl<S> Core<S> {
    pub(super) fn lane<T: Send + 'static>(&mut self, thing: T) -> Lane<T> {
        self.on_return[Purpose::Lanes as usize] = Some(Self::piece_returned);
        let Cx { threads, world, .. } = &mut self.hub.cx;
        threads.workers(&**world); // what is only dropped is dropped there too
        let alarm = &threads.alarm;
        let lanes = self.lanes.get_or_insert_with(|| {
            Box::new(Lanes {
                so_far: 0,
                queues: Table::default(),
                pieces: Table::default(),
                asks: Rc::new(Asks { list: RefCell::default(), alarm: Arc::clone(alarm), is_over: Cell::default() }),
                do_asks: Self::do_asks,
                forget: Self::forget_piece,
                drop_all: Self::drop_all_pieces,
            })
        });
        lanes.so_far += 1;
        let pending = Rc::<Cell<usize>>::default();
        let queue = Queue { waiting: VecDeque::new(), at_work: None, is_over: false, refill: None, pending: Rc::clone(&pending) };
        lanes.queues.put(lanes.so_far, queue);
        let worked = Worked { thing: Mutex::new(Some(thing)), last: Mutex::new(None), is_due: AtomicBool::new(false) };
        Lane { thing: Some(Arc::new(worked)), id: lanes.so_far, asks: Rc::clone(&lanes.asks), pending }
    }

    fn queue(&mut self, id: LaneId) -> Option<&mut Queue<S>> {
        self.lanes.as_mut()?.queues.get_mut(id)
    }

    /// What makes a piece when the lane is asked for one.
    pub(super) fn refill_by(&mut self, id: LaneId, refill: impl FnMut() -> Option<(Work, Done<S>)> + 'static) {
        if let Some(queue) = self.queue(id) {
            queue.refill = Some(Box::new(refill));
        }
    }

    fn push_piece(&mut self, id: LaneId, work: Work, done: Option<Done<S>>) {
        if self.hub.cx.is_shut {
            return self.drop_piece(work, done);
        }
        let ticket = self.hub.cx.threads.ticket(done.as_ref().and_then(Done::owner));
        let Some(lanes) = &mut self.lanes else { return };
        let Some(queue) = lanes.queues.get_mut(id) else { return };
        queue.waiting.push_back(Piece { ticket, work, done });
        queue.pending.set(queue.pending.get() + 1);
        lanes.pieces.put(ticket, id);
        self.go_on(id);
    }

    /// Gives out the next piece, unless one is being worked on. After the last piece the lane is gone.
    fn go_on(&mut self, id: LaneId) {
        while let Some(queue) = self.queue(id).filter(|queue| queue.at_work.is_none()) {
            let Some(Piece { ticket, work, done }) = queue.waiting.pop_front() else {
                if let (true, Some(lanes)) = (queue.is_over, &mut self.lanes) {
                    discard(FOLLOWS, lanes.queues.remove(id));
                }
                return;
            };
            match (self.hub.cx.give_out(Purpose::Lanes, usize::MAX, ticket, work), done) {
                (Ok(()), done) => {
                    if let Some(queue) = self.queue(id) {
                        queue.at_work = Some(AtWork { ticket, done });
                    }
                }
                (Err(refused), Some(done)) => {
                    self.piece_ended(ticket);
                    self.refuse_work(ticket, refused, done);
                }
                (Err(_), None) => _ = self.piece_ended(ticket),
            }
        }
    }

    /// Returns which lane it was of.
    fn piece_ended(&mut self, ticket: Ticket) -> Option<LaneId> {
        let id = self.lanes.as_mut()?.pieces.remove(ticket)?;
        if let Some(queue) = self.queue(id) {
            queue.pending.set(queue.pending.get() - 1);
        }
        Some(id)
    }

    fn piece_returned(&mut self, ticket: Ticket, product: Result<Product, OffloadError>, state: &mut S) {
        let id = self.piece_ended(ticket);
        let queue = id.and_then(|id| self.queue(id));
        let at_work = queue.and_then(|queue| queue.at_work.take_if(|at_work| at_work.ticket == ticket));
        if let Some(id) = id {
            self.go_on(id); // before what follows, so that the thread has something to do meanwhile
        }
        self.tell_done(Purpose::Lanes, ticket, at_work.and_then(|at_work| at_work.done), product, state);
    }

    fn do_asks(&mut self) {
        let asks = self.lanes.as_ref().map(|lanes| lanes.asks.list.take()).unwrap_or_default();
        for ask in asks {
            match ask {
                Ask::Last(id, last) => {
                    if let Some(last) = last {
                        self.push_piece(id, last, None);
                    }
                    if let Some(queue) = self.queue(id) {
                        queue.is_over = true;
                    }
                    self.go_on(id);
                }
                Ask::Refill(id) => {
                    if let Some((work, done)) = self.queue(id).and_then(|queue| queue.refill.as_mut()?()) {
                        self.push_piece(id, work, Some(done));
                    }
                }
            }
        }
    }

    /// Its connection has ended: if the piece has begun, nobody is told.
    fn forget_piece(&mut self, ticket: Ticket) {
        let id = self.lanes.as_ref().and_then(|lanes| lanes.pieces.get(ticket).copied());
        let Some(queue) = id.and_then(|id| self.queue(id)) else { return };
        // From the back: many are forgotten in that order.
        if let Some(at) = queue.waiting.iter().rposition(|piece| piece.ticket == ticket) {
            let piece = queue.waiting.remove(at);
            self.piece_ended(ticket);
            piece.into_iter().for_each(|piece| self.drop_piece(piece.work, piece.done));
        } else if let Some(at_work) = &mut queue.at_work {
            let done = at_work.done.take();
            if self.hub.cx.threads.take_back_unless_begun(Purpose::Lanes, ticket) {
                let id = self.piece_ended(ticket);
                id.and_then(|id| self.queue(id)).and_then(|queue| queue.at_work.take());
                id.into_iter().for_each(|id| self.go_on(id));
            }
            discard(FOLLOWS, done);
        }
    }

    fn drop_piece(&mut self, work: Work, done: Option<Done<S>>) {
        self.hub.cx.discard_elsewhere(Purpose::Lanes, work);
        discard(FOLLOWS, done);
    }

    /// Pieces that have begun are not told, others are dropped, and what was to be done last is done.
    fn drop_all_pieces(&mut self) {
        self.do_asks();
        let Some(lanes) = &mut self.lanes else { return };
        lanes.pieces = Table::default();
        let queues: Vec<_> = lanes.queues.take_all().collect();
        for (id, mut queue) in queues {
            queue.pending.set(0);
            if let Some(AtWork { ticket, done }) = queue.at_work.take() {
                self.hub.cx.threads.take_back(Purpose::Lanes, ticket);
                discard(FOLLOWS, done);
            }
            for piece in queue.waiting.drain(..) {
                self.drop_piece(piece.work, piece.done);
            }
            match &mut self.lanes {
                Some(lanes) if !queue.is_over => lanes.queues.put(id, queue),
                _ => discard(FOLLOWS, queue),
            }
        }
    }
}

/// What is to be done whatever happens: at the latest when this is dropped.
struct Last(Option<Job>);

impl Last {
    fn work(job: impl FnOnce() + Send + 'static) -> Work {
        let mut last = Self(Some(Box::new(job)));
        Box::new(move || {
            last.run();
            Box::new(())
        })
    }

    fn run(&mut self) {
        if let Some(Err(payload)) = self.0.take().map(guard) {
            report("the last piece of a lane", "panicked", &payload);
        }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.run();
    }
}
