//! What the loop lends to whatever is served: the world, the time, the timers, the lists of a turn, the buffers. It knows no
//! socket, so code that has it cannot reach another connection: what concerns others is a [`Note`], which the hub works off
//! when the loan ends.

#[cfg(feature = "tls")]
use crate::tls::Scratch;
use crate::{
    address::Address,
    config::{Config, Panics},
    framing::Cutting,
    key::{Key, Timer},
    names::{Lookup, NameError, Question},
    output::Spares,
    panics::Payload,
    pool::{Capacity, Job, Purpose, Refused, Ticket},
    rate::{SharedRate, Way},
    reason::Reason,
    records::{Cause, Manner, Records},
    stats::Stats,
    threads::{Asker, LookedUp, Threads, Work, discarding},
    time::Time,
    timers::Timers,
    world::{Stream, World, wants_descriptor},
};
use slab::Slab;
#[cfg(feature = "tls")]
use std::rc::Rc;
use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

/// No connection's callback is running.
pub(crate) const NOBODY: usize = usize::MAX;

/// What is lent to everything that is served: see above.
pub(crate) struct Cx {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) world: Box<dyn World>,
    /// Forgets a stream that was adopted: a duplicate of its descriptor, held by somebody else, would keep it registered.
    /// Named with the first one.
    pub(crate) forget_adopted: fn(&mut (dyn World + 'static), Stream),
    pub(crate) timers: Timers,
    /// Timers of the program that are set: they keep `run` running.
    pub(crate) jobs_set: usize,
    pub(crate) lists: Lists,
    pub(crate) threads: Threads,
    /// When this many callbacks have run, the sockets are looked at again.
    pub(crate) served_at_most: u64,
    /// Without what each connection counts itself as long as it lives.
    pub(crate) stats: Stats,
    /// How many connections are in the phase `Lingering`: each holds a descriptor that others need more.
    pub(crate) lingering_now: usize,
    /// Some connection has asked for it once.
    pub(crate) some_wait_for_quiet: bool,
    /// Nothing is opened any more.
    pub(crate) is_shut: bool,
    pub(crate) lent: Lent,
    /// What the connections of a listener share, if it has a rate for all.
    pub(crate) shared_rates: Slab<SharedRate>,
    pub(crate) spares: Spares,
    pub(crate) cutting: &'static Cutting,
    /// What connections that speak TLS work in: made with the first.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Rc<Scratch>>,
    /// The turn in which a step of a handshake was last made, and how many it had.
    #[cfg(feature = "tls")]
    shaken: (u64, usize),
    /// All others have had their turn.
    #[cfg(feature = "tls")]
    pub(crate) shakes_now: bool,
    records: Records,
    /// Numbers them.
    pub(crate) holds_so_far: u64,
    /// The first panic that is to leave the turn, at its end.
    pub(crate) panicked: Option<Payload>,
}

/// What has been read from the world's clock.
#[derive(Default)]
pub(crate) struct Clock {
    /// The time of this turn, once something has asked for it: [`Cx::stamp`].
    pub(crate) stamp: Option<Time>,
    /// When the loop last looked at its sockets, if a timer was set then. If a time-out ran out later, what has come since
    /// may contradict it.
    pub(crate) polled: Time,
    /// There is a `turn_time` or a watchdog: how long callbacks take is measured.
    pub(crate) is_timed: bool,
    /// When the callback that is running, or ran last, began, if that is measured.
    pub(crate) began: Time,
}

/// What is to be looked at in this turn, and what is to be done for others.
#[derive(Default)]
pub(crate) struct Lists {
    /// Those that could make progress, each once. Between turns: key ∈ ready ⇔ `IN_READY`.
    pub(crate) ready: Vec<Key>,
    /// Those to be flushed and settled at the end of the turn. Between turns, each once: key ∈ dirty ⇔ `IN_DIRTY`.
    pub(crate) dirty: Vec<Key>,
    /// Those that have begun to end, each once, with the cause. Of connections between turns: key ∈ closing ⇔ `Phase::Ended`.
    pub(crate) closing: VecDeque<(Key, Reason)>,
    /// Those whose handshake may go on, once all others have had their turn. Between turns: none.
    #[cfg(feature = "tls")]
    pub(crate) shaking: Vec<Key>,
    /// Between loans: none.
    pub(crate) notes: Vec<Note>,
    /// What died with its connection; what would have followed is dropped by its keeper, when no callback runs.
    pub(crate) orphans: Vec<Orphan>,
}

/// What the connection whose callback is running works with.
pub(crate) struct Lent {
    /// Its slot, or `NOBODY`.
    pub(crate) to: usize,
    /// `out` is its output; otherwise what it sends goes to its queue.
    /// has_out ⇒ to ≠ NOBODY, and that connection's queue is empty
    pub(crate) has_out: bool,
    /// to = NOBODY ⇒ empty
    pub(crate) out: Vec<u8>,
    /// Up to this length `out` grows without a second look; 0 when nothing may be sent.
    pub(crate) room: usize,
    /// A message that began on an empty queue is being queued piece by piece: it may be of any size.
    pub(crate) has_whole_queue: bool,
    /// Bytes received and not delivered, of the connection that is being delivered to.
    pub(crate) unread: usize,
    /// How much of what it was given a callback has put back, with that callback's number: so it need not be reset before
    /// the next.
    pub(crate) put_back: (u64, usize),
    /// The number of the last callback that set a terminator of its own connection.
    pub(crate) recut: u64,
    /// Something happened, anywhere, that may end delivering to the connection that is being served: look again.
    pub(crate) interrupt: bool,
    /// A frame ended in this turn.
    pub(crate) frame_ended: bool,
    /// And one before the one that is being delivered. Kept only for connections with a frame time-out; for others it stays
    /// as it was.
    pub(crate) is_later_frame: bool,
    /// The callback is `frame` or `received`.
    pub(crate) is_given: bool,
    /// `spent` is this turn's.
    pub(crate) has_spent: bool,
    /// How long its callbacks took, if that is measured.
    spent: Duration,
}

/// What a connection has left behind.
pub(crate) enum Orphan {
    Timer(Timer),
    Work(Ticket),
}

/// What something has done to others.
#[derive(Clone, Copy)]
pub(crate) enum Note {
    /// The output of some connection has become congested, or is gone: this one reads only while it is not.
    Reader(Key),
    /// It, or something that is tied to it, is quiet now: perhaps it closes.
    Quiet(Key),
    /// The connection that was lent is to be looked at too. A note, because the notes above come first: a connection that
    /// may read again does so before the other writes.
    Dirty(Key),
    /// Its mate has received something.
    Heard(Key),
    /// It found no descriptor: a lingering one makes room, and it tries again.
    Room,
    /// It waited longest at the rate that it shares, and this many bytes are kept for it now.
    Share { key: Key, way: Way, shared: usize, bytes: usize },
}

impl Cx {
    pub(crate) fn new(config: Config, mut world: Box<dyn World>) -> io::Result<Self> {
        let threads = Threads::new(world.waker()?);
        Ok(Self {
            config,
            clock: Clock::default(),
            world,
            forget_adopted: |_, stream| drop(stream),
            timers: Timers::default(),
            jobs_set: 0,
            lists: Lists::default(),
            threads,
            served_at_most: 0,
            stats: Stats::default(),
            lingering_now: 0,
            some_wait_for_quiet: false,
            is_shut: false,
            lent: Lent::default(),
            shared_rates: Slab::new(),
            spares: Spares::default(),
            cutting: Cutting::NONE,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            shaken: (0, 0),
            #[cfg(feature = "tls")]
            shakes_now: false,
            records: Records::default(),
            holds_so_far: 0,
            panicked: None,
        })
    }

    /// The time, read once in a turn: good enough for idle clocks, which count in seconds.
    pub(crate) fn stamp(&mut self) -> Time {
        *self.clock.stamp.get_or_insert_with(|| self.world.now())
    }

    /// A callback took this long. A connection that has used up its share is looked at before the next callback.
    #[cold]
    pub(crate) fn spend(&mut self, took: Duration) {
        let before = if self.lent.has_spent { self.lent.spent } else { Duration::ZERO };
        (self.lent.has_spent, self.lent.spent) = (true, before.saturating_add(took));
        self.lent.interrupt |= self.is_share_spent();
    }

    /// Whether its callbacks have taken all the time that it has in a turn.
    pub(crate) fn is_share_spent(&self) -> bool {
        self.lent.has_spent && self.config.turn_time.is_some_and(|most| self.lent.spent > most)
    }

    /// Makes the last `bytes` bytes of what the callback that is running was given, `frame` or `received`, unread again when
    /// it has returned.
    #[track_caller]
    pub(crate) fn put_back(&mut self, bytes: usize) {
        assert!(self.lent.is_given || bytes == 0, "put_back({bytes}): only `frame` and `received` are given something");
        self.lent.put_back = (self.stats.callbacks, self.put_back_so_far() + bytes);
        self.lent.interrupt = true;
    }

    /// How much the callback that is running, or ran last, has put back.
    pub(crate) fn put_back_so_far(&self) -> usize {
        let (callback, bytes) = self.lent.put_back;
        if callback == self.stats.callbacks { bytes } else { 0 }
    }

    pub(crate) fn take_put_back(&mut self) -> usize {
        let bytes = self.put_back_so_far();
        self.lent.put_back.1 = 0;
        bytes
    }

    /// Whether one more step of a handshake may be made in this turn. Each may take a millisecond, and the others wait.
    #[cfg(feature = "tls")]
    pub(crate) fn may_shake(&mut self) -> bool {
        let (turn, steps) = self.shaken;
        let steps = if turn == self.stats.turns { steps } else { 0 };
        let may = steps < self.config.turn_handshakes;
        self.shaken = (self.stats.turns, steps + usize::from(may));
        may
    }

    /// Whether the next wait must not sleep.
    pub(crate) fn has_work(&self) -> bool {
        !(self.lists.ready.is_empty() && self.lists.dirty.is_empty() && self.lists.closing.is_empty())
    }

    /// How something that peers may cause is to be logged, for a listener or a connection that it let in.
    pub(crate) fn manner(&mut self, listener: Option<Key>, cause: Cause, level: log::Level) -> Manner {
        self.records.manner(listener, cause, level, self.world.now())
    }

    /// A panic that is not to be isolated goes on at the end of the turn, when everything is in order.
    pub(crate) fn pass_on(&mut self, payload: Payload) {
        if self.config.panics == Panics::Propagate {
            self.panicked.get_or_insert(payload);
        }
    }

    /// Has another thread do it; it comes back with the ticket. At most `queue` wait for a thread.
    pub(crate) fn give_out(&mut self, purpose: Purpose, queue: usize, ticket: Ticket, work: Work) -> Result<(), Refused> {
        let capacity = Capacity { threads: self.threads_max(purpose), queue };
        self.threads.give_out(&*self.world, purpose, capacity, ticket, work)
    }

    fn threads_max(&self, purpose: Purpose) -> usize {
        threads_max(&self.config, purpose)
    }

    /// What other threads have brought is dropped by them.
    pub(crate) fn discard_returned(&mut self) {
        let config = &self.config;
        self.threads.discard_returned(&|purpose| threads_max(config, purpose));
    }

    /// Has another thread drop what may block while it is being dropped.
    pub(crate) fn discard_elsewhere(&mut self, purpose: Purpose, what: impl Send + 'static) {
        self.do_chore(purpose, discarding(what));
    }

    /// Has another thread do what nobody waits for.
    pub(crate) fn do_chore(&mut self, purpose: Purpose, chore: Job) {
        let threads_max = self.threads_max(purpose);
        self.threads.do_chore(purpose, threads_max, chore);
    }

    /// A connection ends or becomes something else: its offloads end with it.
    pub(crate) fn stop_work_of(&mut self, key: Key) {
        let Self { threads, lists, .. } = self;
        threads.drop_own(key, &mut |ticket| lists.orphans.push(Orphan::Work(ticket)));
    }

    /// A socket that has begun to connect. `WouldBlock`: try again later. `ResourceBusy`: the same, because a lingering one
    /// makes room meanwhile.
    pub(crate) fn connect(&mut self, to: &Address, from: Option<SocketAddr>, token: usize) -> io::Result<Stream> {
        self.world.connect(to, from, token).map_err(|error| {
            if self.lingering_now == 0 || !wants_descriptor(&error) {
                return error;
            }
            self.lists.notes.push(Note::Room);
            io::ErrorKind::ResourceBusy.into()
        })
    }

    /// On another thread; a [`LookedUp`] comes back.
    pub(crate) fn look_up(&mut self, question: Question, asker: Asker) -> io::Result<Ticket> {
        let queue = self.config.resolve_queue;
        let asked = question.to_string();
        let lookup: Lookup = match (&self.config.resolver, &question) {
            (Some(own), Question::Addresses(host)) => own.lookup(host),
            _ => self.threads.workers(&*self.world).lookup(question),
        };
        let ticket = self.threads.ticket(None);
        let given = self.give_out(Purpose::Names, queue, ticket, Box::new(move || Box::new(LookedUp { asker, found: lookup() })));
        given.map(|()| ticket).map_err(|refused| match refused {
            Refused::Full => {
                let text = "too many names are being looked up: every thread is busy, and the queue is full";
                NameError::Busy.error(format!("`{asked}`: {text}"))
            }
            Refused::NoThread(error) => {
                io::Error::new(error.kind(), format!("`{asked}`: no thread could be started to look it up: {error}"))
            }
        })
    }
}

fn threads_max(config: &Config, purpose: Purpose) -> usize {
    match purpose {
        Purpose::Names => config.resolve_threads,
        Purpose::Offload => config.offload_threads,
        Purpose::Lanes => config.lane_threads,
    }
}

impl Lent {
    /// Adds bytes for the connection that `out` is lent to: one compare and a copy. `false`: that needs a second look.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = self.out.len() + bytes.len() <= self.room;
        if fits {
            self.out.extend_from_slice(bytes);
        }
        fits
    }

    /// No callback is running any more; `out` is empty, or becomes so at once.
    #[inline]
    pub(crate) fn end(&mut self) {
        (self.to, self.has_out, self.room) = (NOBODY, false, 0);
    }
}

impl Default for Lent {
    fn default() -> Self {
        Self {
            to: NOBODY,
            has_out: false,
            out: Vec::new(),
            room: 0,
            has_whole_queue: false,
            unread: 0,
            put_back: (0, 0),
            recut: 0,
            interrupt: false,
            frame_ended: false,
            is_later_frame: false,
            is_given: false,
            has_spent: false,
            spent: Duration::ZERO,
        }
    }
}
