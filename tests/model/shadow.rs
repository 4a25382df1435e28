//! The shadow: what is known of each connection, alarm, errand and place.

use super::{
    OPERATIONS, SECOND,
    adopting::{Spare, Ways},
    chance::Dice,
    datagrams::Datagrams,
    elsewhere::{Laned, Made, Save, Saved, Sent, Source},
    framing::Framing,
    run::{Figures, Site},
    securing::{Secrets, Secured},
};
use mainspring::{
    Config, Context, Endian, Fault, Hold, Key, Limit, Net, OffloadError, Outcome, Produced, Producer, Protocol, Reason, Timer,
    Width,
    testing::{Kernel, Losses, Weather},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How one direction of a connection is spoken: bytes that any terminator may cut, or frames of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dialect {
    Raw,
    Prefixed(Width, Endian),
    Netstrings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) high: usize,
    pub(super) cap: usize,
}

/// A reason without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Finish,
    Eof,
    Drained,
    Abort,
    Shutdown,
    Resolve,
    Connect,
    Tls,
    Io,
    Limit(Limit),
    Overflow,
    Failed,
    Detached,
    Other,
}

impl Why {
    pub(super) fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Finish => Self::Finish,
            Reason::Eof => Self::Eof,
            Reason::Drained => Self::Drained,
            Reason::Abort => Self::Abort,
            Reason::Shutdown => Self::Shutdown,
            Reason::Resolve(_) => Self::Resolve,
            Reason::Connect(_) => Self::Connect,
            Reason::Tls(_) => Self::Tls,
            Reason::Io(_) => Self::Io,
            Reason::Limit(limit) => Self::Limit(*limit),
            Reason::Overflow => Self::Overflow,
            Reason::Failed(_) => Self::Failed,
            Reason::Detached(_) => Self::Detached,
            _ => Self::Other,
        }
    }

    pub(super) fn of_fault(fault: &Fault) -> Self {
        fault.downcast_ref::<Limit>().map_or(Self::Failed, |&limit| Self::Limit(limit))
    }

    pub(super) fn is_clean(self) -> bool {
        matches!(self, Self::Finish | Self::Eof | Self::Drained)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Eof => "eof",
            Self::Drained => "drained",
            Self::Abort => "abort",
            Self::Shutdown => "shutdown",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Io => "io",
            Self::Limit(_) => "limit",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
            Self::Detached => "detached",
            Self::Other => "other",
        }
    }
}

/// One end of a connection.
pub(super) struct Conn {
    pub(super) host: usize,
    /// An accepted one's is known from its first callback on.
    pub(super) key: Option<Key>,
    pub(super) is_accepted: bool,
    /// Nobody has connected it: it was made as one end of two, or was given back before.
    pub(super) is_adopted: bool,
    /// By one that was accepted.
    pub(super) was_accepted: bool,
    /// It has a pipe for each direction, or one only.
    pub(super) is_apart: bool,
    pub(super) ways: Ways,
    /// It was given back, and is nobody's: it is not closed.
    pub(super) is_detached: bool,
    /// This much had been received and sent before it was adopted.
    pub(super) base_in: usize,
    pub(super) base_out: usize,
    /// Refused before a protocol was made: only its last words are known.
    pub(super) is_ghost: bool,
    /// The other end.
    pub(super) peer: Option<usize>,
    pub(super) speaks: Dialect,
    pub(super) hears: Dialect,

    // What it was told.
    /// Upgrades so far.
    pub(super) life: u32,
    pub(super) is_connected: bool,
    pub(super) was_connected: bool,
    pub(super) has_eof: bool,
    pub(super) had_eof: bool,
    pub(super) was_drained: bool,
    pub(super) closed: Option<Why>,
    /// `closed` is over too.
    pub(super) is_gone: bool,

    // What was asked of it, and what follows from that.
    /// It has begun to end: nothing but tells and `closed` any more.
    pub(super) is_over: bool,
    pub(super) is_closing: bool,
    /// It is to close when nothing is under way.
    pub(super) asks_quiet: bool,
    /// The peer's end was told before we asked for ours.
    pub(super) peer_was_first: Option<bool>,
    /// Then connecting takes too long.
    pub(super) gives_up_at: Option<Instant>,
    /// The only reason that is left.
    pub(super) must: Option<Why>,
    /// Reasons that may have come first.
    pub(super) may: Vec<Why>,
    /// Some of its output will never leave: whatever its end, it is not clean.
    pub(super) is_lost: bool,
    /// It was given data in spite of a hold-back, throttle or rate: then it must be lost, and end.
    pub(super) is_lifted: bool,
    pub(super) is_half_closed: bool,
    pub(super) is_paused: bool,
    /// Those that are out.
    pub(super) holds: Vec<Hold>,
    pub(super) holds_back: bool,
    pub(super) targets: Vec<usize>,
    pub(super) marks: Marks,
    pub(super) was_congested: bool,
    /// How often its producers made something: that may congest it while nobody looks.
    pub(super) pulls: Rc<Cell<u32>>,
    /// Idle, stalled, deadline, frame time: how long, and since when.
    pub(super) limits: [Option<(Duration, Instant)>; 4],
    /// It was given a deadline of its own, or none.
    pub(super) has_own_deadline: bool,
    /// Reading, writing: bytes per second, and since when and how many bytes.
    pub(super) rates: [Option<(u64, Instant, u64)>; 2],
    /// Whose guest it is.
    pub(super) hall: Option<usize>,
    /// With whom it ends.
    pub(super) owner: Option<usize>,
    pub(super) secured: Secured,
    /// How many bytes it had received and sent when it was last seen, and not lost.
    pub(super) moved: [u64; 2],
    /// What comes is saved.
    pub(super) saving: Option<usize>,
    /// Something was sent from elsewhere.
    pub(super) has_sources: bool,
    /// A producer was queued.
    pub(super) has_produced: bool,
    /// More than a piece of it.
    pub(super) has_big: bool,
    /// With whom it is a pair, or was when that one ended.
    pub(super) mate: Option<usize>,
    /// Nothing more of what its mate receives is sent, and all that was is known.
    pub(super) feed_is_over: bool,
    /// This much of what it has sent may not have been passed on yet.
    pub(super) ahead: usize,
    /// That, or it is lost.
    pub(super) may_be_half_closed: bool,
    /// Its mate has ended, and nobody knows what that has passed on last: it is broken off.
    pub(super) is_muddled: bool,

    // The bytes.
    /// Everything that was accepted for sending, also what its producers will make.
    pub(super) sent: Vec<u8>,
    /// This much of what the peer sent was told.
    pub(super) got: usize,
    pub(super) framing: Framing,
    /// This many bytes of a delimiter or the like stood behind the last frame; unless a framer has decoded that.
    pub(super) behind: Option<usize>,
    /// Some of what it got was lost with a writer that failed, and where that ends only the loop knows.
    pub(super) is_loose: bool,
    /// And this many came back with what the last callback put back.
    pub(super) came_back: usize,
    /// Where the last refused frame ends; it may not have come so far.
    pub(super) skipped_to: usize,
    /// It did.
    pub(super) has_skipped: bool,
    /// A frame was refused whose end only its framer could tell.
    pub(super) cannot_skip: bool,
}

impl Conn {
    pub(super) fn new(host: usize, is_accepted: bool, marks: Marks, speaks: Dialect, hears: Dialect) -> Self {
        Self {
            host,
            key: None,
            is_accepted,
            is_adopted: false,
            was_accepted: false,
            is_apart: false,
            ways: Ways::Both,
            is_detached: false,
            base_in: 0,
            base_out: 0,
            is_ghost: false,
            peer: None,
            speaks,
            hears,
            life: 0,
            is_connected: false,
            was_connected: false,
            has_eof: false,
            had_eof: false,
            was_drained: false,
            closed: None,
            is_gone: false,
            is_over: false,
            is_closing: false,
            asks_quiet: false,
            peer_was_first: None,
            gives_up_at: None,
            must: None,
            may: Vec::new(),
            is_lost: false,
            is_lifted: false,
            is_half_closed: false,
            is_paused: false,
            holds: Vec::new(),
            holds_back: is_accepted,
            targets: Vec::new(),
            marks,
            was_congested: false,
            pulls: Rc::default(),
            limits: [None; 4],
            has_own_deadline: false,
            rates: [None; 2],
            hall: None,
            owner: None,
            secured: Secured::No,
            moved: [0; 2],
            saving: None,
            has_sources: false,
            has_produced: false,
            has_big: false,
            mate: None,
            feed_is_over: false,
            ahead: 0,
            may_be_half_closed: false,
            is_muddled: false,
            sent: Vec::new(),
            got: 0,
            framing: Framing::None,
            behind: None,
            is_loose: false,
            came_back: 0,
            skipped_to: 0,
            has_skipped: false,
            cannot_skip: false,
        }
    }

    /// A successor starts clean, but for what the listener has for each; a deadline of the listener runs on.
    pub(super) fn upgraded(&mut self, marks: Marks, [idle, stalled, deadline]: [Option<Duration>; 3], now: Instant) {
        self.life += 1;
        (self.is_connected, self.has_eof, self.is_paused) = (false, self.ways == Ways::Out, false);
        self.holds_back = self.is_accepted;
        self.targets.clear();
        self.holds.clear();
        let runs_on = self.limits[2].filter(|_| !self.has_own_deadline);
        self.limits = [idle, stalled, deadline, None].map(|after| Some((after?, now)));
        if deadline.is_some() && !self.has_own_deadline {
            self.limits[2] = runs_on;
        }
        self.has_own_deadline = false;
        self.marks = marks;
        self.framing = Framing::None;
    }

    /// It is told nothing of its peer.
    pub(super) fn is_off(&self) -> bool {
        self.is_paused || !self.holds.is_empty()
    }

    /// Nothing more comes of it.
    pub(super) fn has_ended(&self) -> bool {
        self.is_half_closed || ((self.is_over || self.closed.is_some()) && !self.is_detached)
    }

    /// Of what is only read or only written to the other direction is over from the beginning.
    pub(super) fn set_ways(&mut self, ways: Ways) {
        self.ways = ways;
        self.is_half_closed |= ways == Ways::In;
        self.has_eof |= ways == Ways::Out;
    }

    pub(super) fn asked_to_end(&mut self) {
        self.peer_was_first.get_or_insert(self.had_eof);
    }
}

pub(super) fn limit_index(limit: Limit) -> Option<usize> {
    [Limit::Idle, Limit::Stalled, Limit::Deadline, Limit::FrameTime].iter().position(|&one| one == limit)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AlarmState {
    Set,
    Done,
}

/// A timer.
pub(super) struct Alarm {
    pub(super) owner: Option<(usize, u32)>,
    pub(super) deadline: Instant,
    pub(super) order: u64,
    pub(super) period: Option<Duration>,
    pub(super) state: AlarmState,
    pub(super) handle: Timer,
    pub(super) firings: u32,
}

/// Blocking work that was given to another thread.
pub(super) struct Work {
    pub(super) owner: Option<(usize, u32)>,
    pub(super) is_pending: bool,
    /// It panics.
    pub(super) is_bad: bool,
    /// There was a thread or a place in the queue for it.
    pub(super) has_place: bool,
    /// And less was untold than is allowed; not so sure where a thread could not be started on purpose.
    pub(super) has_room: bool,
}

/// What waits in the one queue of tells and posts.
pub(super) enum Errand {
    Tell { conn: usize, life: u32 },
    Post,
}

/// What a listener has for those whom it lets in.
#[derive(Clone, Copy, Default)]
pub(super) struct Hall {
    /// Reading, writing: for each, and for all together.
    pub(super) rates: [Option<u64>; 2],
    pub(super) total_rates: [Option<u64>; 2],
    pub(super) opened: Option<Instant>,
    pub(super) marks: Option<(usize, Marks)>,
    /// Idle, stalled, deadline.
    pub(super) limits: [Option<Duration>; 3],
    /// At this many connections, whoever comes waits.
    pub(super) pauses_at: Option<usize>,
    /// How many it lets in, and how many it has.
    pub(super) admits: Option<usize>,
    pub(super) admitted: usize,
    pub(super) speaks_tls: bool,
    /// Its own key, once it listens, and whose it is.
    pub(super) key: Option<Key>,
    pub(super) owner: Option<usize>,
}

/// One host.
pub(super) struct Place {
    pub(super) connect_max: Duration,
    pub(super) marks: Marks,
    /// Its connections with a key that have not been closed.
    pub(super) conns: Vec<usize>,
    pub(super) listeners: Vec<(Key, u16)>,
    /// Those that were there when a drain began.
    pub(super) drained: Vec<Key>,
    pub(super) keys: BTreeSet<Key>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) works: Vec<Work>,
    pub(super) lanes: Vec<Laned>,
    /// Pieces of work that exist, begun or not.
    pub(super) works_given: Arc<AtomicUsize>,
    /// Those whose end is still to be told.
    pub(super) works_untold: Arc<AtomicUsize>,
    pub(super) works_max: usize,
    pub(super) anchor: Option<Timer>,
    pub(super) orders: u64,
    pub(super) last_fired: Option<(Instant, u64)>,
    pub(super) errands: BTreeMap<u64, Errand>,
    pub(super) errands_so_far: u64,
    /// Names that are being looked up, without a connection.
    pub(super) lookups: BTreeSet<u64>,
    pub(super) lookups_so_far: u64,
    /// Of "another thread".
    pub(super) jobs: VecDeque<u64>,
    /// Datagram sockets that were closed.
    pub(super) datagrams_ended: u64,
    pub(super) may_have_stopped: bool,
    pub(super) must_have_stopped: bool,
    pub(super) was_drained: bool,
    pub(super) is_shutting_down: bool,
}

/// Counted while it exists: protocols, closures, producers.
pub(super) struct Alive(pub(super) Rc<Cell<usize>>);

impl Alive {
    pub(super) fn one_more(counter: &Rc<Cell<usize>>) -> Self {
        counter.set(counter.get() + 1);
        Self(Rc::clone(counter))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A piece of work, as long as it exists: it is `Send`. Also what is to follow it.
pub(super) struct Given(pub(super) Arc<AtomicUsize>);

impl Given {
    pub(super) fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct Model {
    pub(super) dice: Dice,
    /// For what was thought of later: the other dice would fall otherwise, and the seeds that once failed be other programs.
    pub(super) later: Dice,
    /// And for what was thought of after that: owners.
    pub(super) ties: Dice,
    /// After that: lanes, saves and sends from elsewhere; and pairs.
    pub(super) elsewhere: Dice,
    pub(super) pairs: Dice,
    /// They have dice of their own, too.
    pub(super) datagrams: Datagrams,
    /// And so has what is adopted and given back.
    pub(super) adopting: Dice,
    /// One act in this many has to do with that; 0: none.
    pub(super) adopts: usize,
    pub(super) spares: Vec<Spare>,
    /// And TLS.
    pub(super) secrets: Secrets,
    /// One callback in this many has to do with these; 0: none.
    pub(super) often: usize,
    /// This much more that needs more than one piece may be sent from elsewhere.
    pub(super) big_left: usize,
    /// Operations have failed on purpose.
    pub(super) had_faults: bool,
    /// Work on other threads may last longer than peace.
    pub(super) had_long_work: bool,
    pub(super) saves: Vec<Save>,
    pub(super) sources: Vec<Source>,
    pub(super) ops_left: u32,
    pub(super) bytes_left: usize,
    /// With it all that is said has come when peace has lasted.
    pub(super) slow_rate: u64,
    /// The largest message.
    pub(super) message_max: usize,
    pub(super) window: usize,
    pub(super) kernel: Kernel,
    pub(super) quiet: Rc<Cell<bool>>,
    pub(super) alive: Rc<Cell<usize>>,
    pub(super) places: Vec<Place>,
    pub(super) conns: Vec<Conn>,
    pub(super) halls: Vec<Hall>,
    /// Clients by their own address: that is how the two ends find each other.
    /// One that comes by name has an IP address of its own, and lets the system choose the port, so that addresses can race.
    pub(super) clients: BTreeMap<SocketAddr, usize>,
    /// What the network broke off, as it knows it itself.
    pub(super) losses: Losses,
    pub(super) story: Story,
    pub(super) figures: Figures,
}

/// What a callback was called with.
#[derive(Debug)]
pub(super) enum Call<'a> {
    Connected,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody is"))]
    Secured,
    Received(&'a [u8]),
    Frame(&'a [u8]),
    Writable,
    Exceeded(Limit),
    Draining,
    Eof(&'a [u8]),
    Alarm(usize),
    Done(usize, &'a Result<usize, OffloadError>),
    /// A piece of a lane.
    Piece(usize, usize, &'a Made),
    Saved(usize, &'a Saved),
    Sent(usize, &'a Sent),
    Tell(u64),
    Closed(Why),
}

/// The protocol: it tells the model, and does what the model says.
pub(super) struct Peer {
    pub(super) id: usize,
    pub(super) life: u32,
    pub(super) _alive: Alive,
}

impl Peer {
    pub(super) fn called(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, call: &Call<'_>) -> Outcome {
        let shared = Rc::clone(&site.model);
        let model = &mut *shared.borrow_mut();
        if !model.is_over_for_all() {
            model.enter(self, ctx, call);
        }
        if model.is_over_for_all() {
            return Ok(()); // what follows would only hide it
        }
        let (outcome, upgrades) = model.answer(self.id, ctx, call);
        model.leave(self.id, ctx, call, &outcome, upgrades);
        outcome
    }
}

impl Protocol<Site> for Peer {
    fn connected(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site) -> Outcome {
        self.called(ctx, site, &Call::Connected)
    }

    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site) -> Outcome {
        self.called(ctx, site, &Call::Secured)
    }

    fn received(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, bytes: &[u8]) -> Outcome {
        self.called(ctx, site, &Call::Received(bytes))
    }

    fn frame(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, frame: &[u8]) -> Outcome {
        self.called(ctx, site, &Call::Frame(frame))
    }

    fn writable(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site) -> Outcome {
        self.called(ctx, site, &Call::Writable)
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, limit: Limit) -> Outcome {
        self.called(ctx, site, &Call::Exceeded(limit))
    }

    fn draining(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site) -> Outcome {
        self.called(ctx, site, &Call::Draining)
    }

    fn eof(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, tail: &[u8]) -> Outcome {
        self.called(ctx, site, &Call::Eof(tail))
    }

    fn closed(&mut self, ctx: &mut Context<'_, Site>, site: &mut Site, why: Reason) {
        let _ = self.called(ctx, site, &Call::Closed(Why::of(&why)));
        let shared = Rc::clone(&site.model);
        let model = &mut *shared.borrow_mut();
        if let (Reason::Detached(detached), false) = (why, model.is_over_for_all()) {
            model.on_detached(self.id, *detached, ctx);
        }
    }
}

/// Says its bytes in pieces, and not always when it is asked.
pub(super) struct Supply {
    pub(super) bytes: Vec<u8>,
    pub(super) said: usize,
    pub(super) dice: Dice,
    pub(super) ends: SupplyEnds,
    pub(super) quiet: Rc<Cell<bool>>,
    pub(super) pulls: Rc<Cell<u32>>,
    pub(super) _alive: Alive,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum SupplyEnds {
    Well,
    WithAnError,
    /// It says that there is more, and makes nothing.
    InVain,
}

impl Producer for Supply {
    fn more(&mut self, out: &mut Vec<u8>) -> std::io::Result<Produced> {
        if !self.quiet.get() && self.dice.one_in(4) {
            return Ok(Produced::NotYet);
        }
        let left = self.bytes.len() - self.said;
        if self.ends != SupplyEnds::Well && self.dice.one_in(3) {
            return if self.ends == SupplyEnds::InVain { Ok(Produced::More) } else { Err(std::io::ErrorKind::NotFound.into()) };
        }
        let piece = if left > 1 { 1 + self.dice.below(left) } else { left };
        out.extend_from_slice(&self.bytes[self.said..self.said + piece]);
        self.said += piece;
        self.pulls.set(self.pulls.get() + 1);
        Ok(if self.said == self.bytes.len() { Produced::Done } else { Produced::More })
    }
}

macro_rules! promise {
    ($story:expr, $holds:expr, $($text:tt)+) => {
        if !$holds {
            $story.breaks(format!($($text)+));
        }
    };
}
pub(super) use promise;

/// What happened, and the first promise that was broken. Apart from the rest of the model, so that it can be told while
/// the rest is looked at.
pub(super) struct Story {
    pub(super) is_kept: bool,
    pub(super) lines: Vec<String>,
    /// What follows cannot be judged.
    pub(super) gives_up: bool,
    pub(super) broken: Option<String>,
}

impl Story {
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.is_kept {
            self.lines.push(line());
        }
    }

    pub(super) fn breaks(&mut self, text: String) {
        self.note(|| format!("BROKEN: {text}"));
        self.broken.get_or_insert(text);
    }
}

/// Where it all begins, and what is common.
impl Model {
    pub(super) fn new(seed: u64, is_traced: bool, as_before: bool, losses: Losses) -> Self {
        let mut dice = Dice(seed);
        // Tiny windows make a turn of each byte: then little is said.
        let (window, message_max, bytes_left) = match dice.below(8) {
            0 => (1 + dice.below(16), 60, 2_000),
            1..4 => (1_000, 600, 20_000),
            4..7 => (8_000, 5_000, 60_000),
            _ => (100_000, 100_000, 400_000),
        };
        let mut elsewhere = Dice(!seed.rotate_left(16));
        let often = if as_before { 0 } else { elsewhere.pick(&[0, 6, 15, 60]) };
        let mut adopting = Dice((!seed).rotate_left(24));
        let adopts = if as_before { 0 } else { adopting.pick(&[0, 8, 25, 100]) };
        let mut model = Self {
            dice,
            later: Dice(!seed),
            ties: Dice(!seed.rotate_left(32)),
            elsewhere,
            pairs: Dice(!seed.rotate_left(48)),
            datagrams: Datagrams::new(seed, as_before),
            adopting,
            adopts,
            spares: Vec::new(),
            secrets: Secrets::new(seed, as_before),
            often,
            big_left: 0,
            had_faults: false,
            had_long_work: false,
            saves: Vec::new(),
            sources: Vec::new(),
            ops_left: OPERATIONS,
            bytes_left,
            slow_rate: bytes_left as u64 / 50,
            message_max,
            window,
            kernel: if std::env::var_os("MODEL_KERNEL").is_some_and(|name| name == "windows") {
                Kernel::Windows
            } else {
                Kernel::Linux
            },
            quiet: Rc::default(),
            alive: Rc::default(),
            places: Vec::new(),
            conns: Vec::new(),
            halls: Vec::new(),
            clients: BTreeMap::new(),
            losses,
            story: Story { is_kept: is_traced, lines: Vec::new(), gives_up: false, broken: None },
            figures: Figures::default(),
        };
        model.allow_big();
        model
    }

    pub(super) fn is_over_for_all(&self) -> bool {
        self.story.broken.is_some() || self.story.gives_up
    }

    pub(super) fn add_host(&mut self) -> Config {
        let dice = &mut self.dice;
        let (low, high, cap) = dice.pick(&[
            (0, 1, 50),
            (10, 100, 1_000),
            (100, 1_000, 5_000),
            (1_000, 4_000, 20_000),
            (16 << 10, 64 << 10, 1 << 20),
        ]);
        let (threads, queue) = dice.pick(&[(1, 0), (1, 3), (4, 1024)]);
        let config = Config::new()
            .output_limits(low, high, cap)
            .read_bytes(dice.pick(&[4096, 16 << 10]))
            .turn_bytes(dice.pick(&[1, 1_000, 256 << 10]))
            .turn_frames(dice.pick(&[1, 3, 20, 1024]))
            .turn_accepts(dice.pick(&[1, 64]))
            .turn_jobs(dice.pick(&[1, 1024]))
            .turn_tells(dice.pick(&[1, 3, 1024]))
            .turn_timers(dice.pick(&[1, 1024]))
            .turn_closings(dice.pick(&[1, 1024]))
            .linger_max(dice.pick(&[SECOND, 10 * SECOND]))
            .lingering_max(dice.pick(&[0, 1, 1024]));
        let connect_max = dice.pick(&[SECOND, 30 * SECOND]);
        let turn_datagrams = self.some_turn_datagrams();
        let dice = &mut self.dice;
        let lane_threads = if self.often > 0 { self.elsewhere.pick(&[1, 1, 8]) } else { 8 };
        self.places.push(Place {
            connect_max,
            marks: Marks { high, cap },
            conns: Vec::new(),
            listeners: Vec::new(),
            drained: Vec::new(),
            keys: BTreeSet::new(),
            alarms: Vec::new(),
            works: Vec::new(),
            lanes: Vec::new(),
            works_given: Arc::default(),
            works_untold: Arc::default(),
            works_max: threads + queue,
            anchor: None,
            orders: 0,
            last_fired: None,
            errands: BTreeMap::new(),
            errands_so_far: 0,
            lookups: BTreeSet::new(),
            lookups_so_far: 0,
            jobs: VecDeque::new(),
            datagrams_ended: 0,
            may_have_stopped: false,
            must_have_stopped: false,
            was_drained: false,
            is_shutting_down: false,
        });
        config
            .connect_max(connect_max)
            .turn_datagrams(turn_datagrams)
            .lane_threads(lane_threads)
            .offload_threads(threads)
            .offload_queue(queue)
            .resolve_threads(dice.pick(&[1, 3, 8]))
            .resolve_queue(dice.pick(&[0, 2, 1024]))
    }

    pub(super) fn weather(&mut self) -> Weather {
        let (dice, window) = (&mut self.dice, self.window);
        let weather = match dice.below(4) {
            0 => Weather::fair(),
            1 => Weather::rough(),
            _ => {
                let (latency, jitter) = (dice.millis(30), dice.millis(30));
                Weather::fair()
                    .latency(latency, jitter)
                    .bandwidth(dice.pick(&[None, Some(1 << 16), Some(1 << 20)]))
                    .short(dice.pick(&[0, 300, 900]), dice.pick(&[0, 300, 900]))
                    .resets(dice.pick(&[0, 0, 5, 30]))
                    .spurious(dice.pick(&[0, 50, 500]))
                    .refusals(dice.pick(&[0, 0, 100]), dice.pick(&[0, 0, 50]))
                    .pauses(dice.pick(&[0, 20]))
                    .work(dice.pick(&[Duration::ZERO, SECOND]))
                    .lookups(dice.pick(&[0, 0, 200]))
            }
        };
        let weather = weather.window(window).kernel(self.kernel);
        let weather = self.datagrams_in(weather);
        if self.big_left > 0 && self.elsewhere.one_in(2) {
            return weather.work(SECOND);
        }
        if self.often > 0 && self.elsewhere.one_in(60) {
            self.had_long_work = true;
            self.story.note(|| "      work may last for hours".to_owned());
            return weather.work(10_000 * SECOND);
        }
        weather
    }

    /// How long nothing is done from outside.
    pub(super) fn pause(&mut self) -> Duration {
        match self.dice.below(10) {
            0..4 => Duration::ZERO,
            4..9 => self.dice.millis(50),
            _ => self.dice.millis(3000),
        }
    }

    /// Keeps the host's run from ending by itself.
    pub(super) fn anchor(&mut self, host: usize, net: &mut Net<'_, Site>) {
        self.places[host].anchor = Some(net.after(86_400 * SECOND, |_, _| ()));
        self.places[host].orders += 1;
    }

    pub(super) fn is_over(&self, id: usize, net: &Net<'_, Site>) -> bool {
        !self.conns[id].key.is_some_and(|key| net.is_open(key))
    }

    pub(super) fn breaks_off(&mut self, id: usize, why: Why) {
        let conn = &mut self.conns[id];
        conn.is_over = true;
        conn.must.get_or_insert(why);
    }

    /// After everything that was done to a connection: what can be seen of it from outside.
    pub(super) fn observe(&mut self, id: usize, net: &mut Net<'_, Site>) {
        self.notice_lost_writer(id, net);
        let conn = &mut self.conns[id];
        let Some(key) = conn.key else { return };
        let Some(link) = net.link(key) else {
            conn.is_over = true;
            return;
        };
        let (queued, is_congested) = (link.queued(), link.is_congested());
        conn.was_congested |= is_congested && !conn.is_half_closed;
        let (is_over, high) = (conn.is_over, conn.marks.high);
        promise!(self.story, !is_over, "connection {id} had begun to end, and is open again");
        promise!(
            self.story,
            is_congested || queued <= high,
            "{queued} bytes are queued on {id}, above {high}, and it is not congested"
        );
    }
}
