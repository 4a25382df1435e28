//! What is done: work on lanes, input that is saved, output that is read elsewhere.

use super::{
    adopting::Ways,
    chance::{Dice, words},
    checks::moved,
    framing::{Framing, Next},
    plays::DELIMITERS,
    run::Site,
    shadow::{Alive, Call, Dialect, Model, Peer, Why, promise},
};
use mainspring::{Context, Lane, Limit, Net, OffloadError};
use std::{
    io::{self, Read, Write},
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// More than a piece of what is saved or sent from somewhere; but in frames of a few bytes not so many turns that it looks like
/// spinning.
const BIG: usize = 340_000;

/// What is known of a thing on other threads: it says so itself. Nobody who panics on purpose holds the lock.
type Log<T> = Arc<Mutex<T>>;

fn look<T>(log: &Log<T>) -> MutexGuard<'_, T> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

// ------------------------------------------------------------------------------------------------------------- lanes

/// What a lane works on.
pub(super) struct Bench(Log<BenchLog>);

#[derive(Default)]
struct BenchLog {
    /// Which piece was done last, of all and of those whose number is known.
    done: Vec<usize>,
    /// A shutdown or the end of a drain's grace forgets what is at work, which comes to its end behind what is given out then.
    is_forgotten: bool,
    /// How often the last of all was done.
    lasts: u32,
    drops: u32,
    wrong: Option<String>,
}

impl Bench {
    fn work(&mut self, piece: usize) {
        let log = &mut *look(&self.0);
        if log.lasts > 0 || log.drops > 0 {
            log.wrong = Some(format!("piece {piece} is done after the last"));
        }
        if let Some(before) = log.done.last().filter(|&&before| before >= piece && !log.is_forgotten) {
            log.wrong = Some(format!("piece {piece} is done after {before}"));
        }
        log.done.push(piece);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        look(&self.0).drops += 1;
    }
}

/// A lane of a host.
pub(super) struct Laned {
    /// Nothing once it is finished.
    lane: Option<Lane<Bench>>,
    log: Log<BenchLog>,
    pieces: Vec<Piece>,
    told: Option<usize>,
    /// It was given something to do last.
    has_last: bool,
}

struct Piece {
    owner: (usize, u32),
    is_pending: bool,
    does: Does,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Well,
    Fail,
    Panic,
}

pub(super) type Made = Result<Result<usize, String>, OffloadError>;

// ------------------------------------------------------------------------------------------------- saving and sending

/// Keeps what is written, in pieces of its own; and fails, perhaps.
struct Disk {
    log: Log<DiskLog>,
    dice: Dice,
    /// When it has this much; or when it is flushed.
    fails_at: usize,
    panics: bool,
    flush_fails: bool,
}

#[derive(Default)]
struct DiskLog {
    kept: Vec<u8>,
    is_flushed: bool,
    has_failed: bool,
    is_back: bool,
    drops: u32,
    wrong: Option<&'static str>,
}

impl Disk {
    fn fails(&self) -> io::Error {
        look(&self.log).has_failed = true;
        if self.panics {
            resume_unwind(Box::new("the disk panics"));
        }
        io::Error::other("the disk fails")
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.dice.one_in(20) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = self.fails_at - look(&self.log).kept.len();
        if room == 0 {
            return Err(self.fails());
        }
        let most = bytes.len().min(room);
        let taken = if self.dice.one_in(3) && most > 1 { 1 + self.dice.below(most) } else { most };
        let log = &mut *look(&self.log);
        if log.is_flushed || log.has_failed || log.is_back {
            log.wrong = Some("something is written after the end");
        }
        log.kept.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flush_fails {
            return Err(self.fails());
        }
        look(&self.log).is_flushed = true;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        look(&self.log).drops += 1;
    }
}

/// What a connection saves, or has saved.
pub(super) struct Save {
    owner: (usize, u32),
    is_pending: bool,
    /// What stood next, and where.
    framing: Framing,
    from: usize,
    log: Log<DiskLog>,
    /// A limit was exceeded meanwhile.
    has_exceeded: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Saved {
    Whole,
    CutShort,
    Exceeded,
    NoThread,
    #[expect(dead_code, reason = "it is printed")]
    Failed(String),
}

impl Saved {
    fn of(result: io::Result<Disk>) -> Self {
        let error = match result {
            Ok(disk) => {
                look(&disk.log).is_back = true;
                return Self::Whole;
            }
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::CutShort;
        }
        match error.get_ref() {
            Some(inner) if inner.is::<Limit>() => Self::Exceeded,
            Some(inner) if is_no_thread(inner) => Self::NoThread,
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn is_no_thread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(OffloadError::NoThread(_)))
}

/// Gives its bytes in pieces, then ends or fails.
struct Spring {
    log: Log<SpringLog>,
    bytes: Vec<u8>,
    given: usize,
    dice: Dice,
    fails_at: Option<usize>,
    panics: bool,
}

#[derive(Default)]
struct SpringLog {
    has_ended: bool,
    drops: u32,
    wrong: Option<&'static str>,
}

impl Read for Spring {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.dice.one_in(20) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = self.fails_at.unwrap_or(self.bytes.len());
        let most = into.len().min(end - self.given);
        if most == 0 {
            let log = &mut *look(&self.log);
            if std::mem::replace(&mut log.has_ended, true) {
                log.wrong = Some("it is read after its end");
            }
        }
        if most == 0 && self.fails_at.is_some() {
            if self.panics {
                resume_unwind(Box::new("the spring panics"));
            }
            return Err(io::Error::other("the spring fails"));
        }
        let piece = if self.dice.one_in(2) && most > 1 { 1 + self.dice.below(most) } else { most };
        into[..piece].copy_from_slice(&self.bytes[self.given..self.given + piece]);
        self.given += piece;
        Ok(piece)
    }
}

impl Drop for Spring {
    fn drop(&mut self) {
        look(&self.log).drops += 1;
    }
}

/// What is sent from somewhere else.
pub(super) struct Source {
    owner: (usize, u32),
    is_pending: bool,
    is_told: bool,
    /// Where it stands in what its connection has sent, and how much of it.
    at: usize,
    bytes: usize,
    fails_at: Option<usize>,
    log: Log<SpringLog>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Sent {
    Whole(u64),
    NoThread,
    #[expect(dead_code, reason = "it is printed")]
    Failed(String),
}

impl Sent {
    fn of(result: io::Result<u64>) -> Self {
        match result {
            Ok(bytes) => Self::Whole(bytes),
            Err(error) if error.get_ref().is_some_and(is_no_thread) => Self::NoThread,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- commands

impl Model {
    /// Something of all this, in a callback; seldom, or never.
    pub(super) fn act_elsewhere(&mut self, id: usize, ctx: &mut Context<'_, Site>) {
        if self.often == 0 || self.quiet.get() || self.story.broken.is_some() {
            return;
        }
        if self.conns[id].peer.is_some_and(|peer| self.conns[peer].has_big) && self.conns[id].saving.is_none() {
            return self.save(id, ctx); // or it would seldom be saved
        }
        if !self.elsewhere.one_in(self.often) {
            return;
        }
        match self.elsewhere.below(10) {
            0..4 => self.work_on_a_lane(id, ctx),
            4..7 => self.save(id, ctx),
            _ => self.send_from(id, ctx),
        }
    }

    fn work_on_a_lane(&mut self, id: usize, ctx: &mut Context<'_, Site>) {
        let host = self.conns[id].host;
        let open: Vec<usize> =
            (0..self.places[host].lanes.len()).filter(|&at| self.places[host].lanes[at].lane.is_some()).collect();
        let number = if open.is_empty() || (open.len() < 4 && self.elsewhere.one_in(3)) {
            let log = Log::<BenchLog>::default();
            look(&log).is_forgotten = self.places[host].was_drained;
            let lane = Some(ctx.net.lane(Bench(Arc::clone(&log))));
            self.places[host].lanes.push(Laned { lane, log, pieces: Vec::new(), told: None, has_last: false });
            self.places[host].lanes.len() - 1
        } else {
            self.elsewhere.pick(&open)
        };
        for _ in 0..self.elsewhere.below(4) {
            self.give_piece(id, ctx, number);
        }
        if self.elsewhere.one_in(4) {
            self.finish_lane(host, number);
        }
    }

    fn give_piece(&mut self, id: usize, ctx: &mut Context<'_, Site>, number: usize) {
        let (host, life) = (self.conns[id].host, self.conns[id].life);
        let does = self.elsewhere.pick(&[Does::Well, Does::Well, Does::Well, Does::Fail, Does::Panic]);
        let is_open = ctx.net.is_open(ctx.key);
        let laned = &mut self.places[host].lanes[number];
        let Some(lane) = &mut laned.lane else { return };
        let piece = laned.pieces.len();
        let token = Alive::one_more(&self.alive);
        let before = lane.pending();
        lane.offload(
            ctx,
            move |bench| {
                bench.work(piece);
                match does {
                    Does::Well => Ok(piece),
                    Does::Fail => Err("on purpose".to_owned()),
                    Does::Panic => resume_unwind(Box::new("a piece")),
                }
            },
            move |peer: &mut Peer, ctx, site, made: Made| {
                let _token = &token;
                peer.called(ctx, site, &Call::Piece(number, piece, &made))
            },
        );
        let added = lane.pending() - before;
        laned.pieces.push(Piece { owner: (id, life), is_pending: is_open, does });
        self.story.note(|| format!("      piece {piece} for lane {number} of host {host}, of {id}: {does:?}"));
        // One that finds no thread at once is over already.
        promise!(self.story, added <= usize::from(is_open), "lane {number} has {added} more pieces");
    }

    pub(super) fn forget_lanes(&mut self, host: usize) {
        for laned in &self.places[host].lanes {
            look(&laned.log).is_forgotten = true;
        }
    }

    /// Or drops it.
    fn finish_lane(&mut self, host: usize, number: usize) {
        let (has_last, panics) = (!self.elsewhere.one_in(3), self.elsewhere.one_in(5));
        let laned = &mut self.places[host].lanes[number];
        let Some(lane) = laned.lane.take() else { return };
        laned.has_last = has_last;
        self.story.note(|| format!("      lane {number} of host {host} is finished, with a last piece: {has_last}"));
        if has_last {
            lane.finish(move |bench| {
                look(&bench.0).lasts += 1;
                if panics {
                    resume_unwind(Box::new("the last"));
                }
            });
        }
    }

    /// Each, or each by chance.
    pub(super) fn finish_lanes(&mut self, host: usize, all: bool) {
        for number in 0..self.places[host].lanes.len() {
            if self.places[host].lanes[number].lane.is_some() && (all || self.elsewhere.one_in(2)) {
                self.finish_lane(host, number);
            }
        }
    }

    fn save(&mut self, id: usize, ctx: &mut Context<'_, Site>) {
        let conn = &self.conns[id];
        let is_open = ctx.net.is_open(ctx.key);
        let is_second = conn.saving.is_some();
        if !conn.is_connected || conn.has_eof || (is_second && !self.elsewhere.one_in(8)) {
            return;
        }
        self.skip(id);
        if !is_second && self.conns[id].hears == Dialect::Raw {
            let has_big = self.conns[id].peer.is_some_and(|peer| self.conns[peer].has_big);
            let framing = if has_big { Framing::None } else { self.some_framing_to_save() };
            self.set_framing(id, &mut ctx.net, framing);
        }
        let conn = &self.conns[id];
        if !is_second && matches!(conn.framing, Framing::Skip { .. } | Framing::Blocks) {
            return;
        }
        let (number, from, framing, life) = (self.saves.len(), conn.got, conn.framing.clone(), conn.life);
        let log = Log::<DiskLog>::default();
        let dice = &mut self.elsewhere;
        let disk = Disk {
            log: Arc::clone(&log),
            fails_at: if dice.one_in(6) { dice.pick(&[0, 1, 30, 1_000]) } else { usize::MAX },
            panics: dice.one_in(3),
            flush_fails: dice.one_in(20),
            dice: Dice(dice.roll()),
        };
        self.story.note(|| format!("      {id} saves by {number}, from {from} on, by {framing:?}"));
        let token = Alive::one_more(&self.alive);
        ctx.save(disk, move |peer: &mut Peer, ctx, site, saved| {
            let _token = &token;
            peer.called(ctx, site, &Call::Saved(number, &Saved::of(saved)))
        });
        let is_pending = is_open && !is_second;
        self.saves.push(Save { owner: (id, life), is_pending, framing, from, log, has_exceeded: false });
        if is_pending {
            self.conns[id].saving = Some(number);
        } else if is_open {
            self.breaks_off(id, Why::Failed);
        }
    }

    fn some_framing_to_save(&mut self) -> Framing {
        let dice = &mut self.elsewhere;
        match dice.below(10) {
            0..3 => Framing::None,
            3..5 => Framing::Stream { left: dice.below(dice.0 as usize % 3_000 + 1) },
            5..7 => Framing::Until { bytes: dice.pick(&DELIMITERS), seen: 0 },
            7 => Framing::Line { limit: dice.pick(&[4, 100, 100_000]) },
            8 => Framing::Length { bytes: dice.below(200), limit: 200 },
            _ => Framing::Through { bytes: dice.pick(&DELIMITERS), limit: 100_000 },
        }
    }

    fn send_from(&mut self, id: usize, ctx: &mut Context<'_, Site>) {
        if self.conns[id].mate.is_some() {
            return; // what its mate has would stand somewhere in between
        }
        let (is_open, takes) = (ctx.net.is_open(ctx.key), ctx.net.send(ctx.key, b""));
        let has_pair = self.conns[id].peer.is_some_and(|peer| self.conns[peer].mate.is_some());
        let is_big = self.big_left > 0 && !has_pair && self.elsewhere.one_in(4) && self.conns[id].speaks == Dialect::Raw;
        let queued = ctx.queued();
        if is_big && takes && queued == 0 {
            // At once, so that the one that saves it has to hold.
            self.big_left -= 1;
            let wire = words(id * 7919 + self.conns[id].sent.len(), BIG - self.elsewhere.below(BIG / 8));
            self.conns[id].has_big = true;
            let accepted = ctx.net.send(ctx.key, &wire);
            return self.sent(id, &mut ctx.net, queued, is_open, accepted, &wire);
        }
        let dice = &mut self.elsewhere;
        let bytes = if is_big {
            self.big_left -= 1;
            dice.below(BIG)
        } else {
            let most = if dice.one_in(3) { self.message_max } else { 60 };
            let bytes = dice.below(most + 1).min(self.bytes_left);
            self.bytes_left -= bytes;
            bytes
        };
        let wire = match self.conns[id].speaks {
            Dialect::Raw => words(id * 7919 + self.conns[id].sent.len(), bytes),
            _ => self.message_of(id, bytes).1,
        };
        let dice = &mut self.elsewhere;
        let fails_at = dice.one_in(8).then(|| if dice.one_in(2) { 0 } else { dice.below(wire.len() + 1) });
        let (number, log) = (self.sources.len(), Log::<SpringLog>::default());
        let spring = Spring {
            log: Arc::clone(&log),
            bytes: wire.clone(),
            given: 0,
            dice: Dice(dice.roll()),
            fails_at,
            panics: dice.one_in(3),
        };
        let bytes = wire.len();
        self.story.note(|| format!("      {id} sends {bytes} from {number}, which fails at {fails_at:?}; it may: {takes}"));
        let token = Alive::one_more(&self.alive);
        ctx.send_from(spring, move |peer: &mut Peer, ctx, site, sent| {
            let _token = &token;
            peer.called(ctx, site, &Call::Sent(number, &Sent::of(sent)))
        });
        let conn = &mut self.conns[id];
        let at = conn.sent.len();
        self.sources.push(Source { owner: (id, conn.life), is_pending: takes, is_told: !takes, at, bytes, fails_at, log });
        if takes {
            conn.has_sources = true;
            conn.has_big |= is_big;
            conn.sent.extend_from_slice(&wire[..fails_at.unwrap_or(bytes)]);
            if fails_at.is_some() {
                conn.may.push(Why::Failed);
            }
        } else if is_open && !conn.is_half_closed && !conn.is_apart {
            conn.is_lost = true;
        }
        self.observe(id, &mut ctx.net);
    }

    /// A big one needs its time.
    pub(super) fn allow_big(&mut self) {
        if self.often > 0 && self.window >= 100_000 && self.elsewhere.one_in(2) {
            self.big_left = 2;
            self.slow_rate += (2 * BIG) as u64 / 50;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ checks

impl Model {
    pub(super) fn on_made(&mut self, host: usize, number: usize, piece: usize, made: &Made) {
        self.figures.pieces += 1;
        let laned = &mut self.places[host].lanes[number];
        let one = &mut laned.pieces[piece];
        let was_pending = std::mem::take(&mut one.is_pending);
        let (does, (id, life)) = (one.does, one.owner);
        let log = look(&laned.log);
        let was_done = log.done.contains(&piece);
        let wrong = log.wrong.clone();
        drop(log);
        let is_right = match made {
            Ok(Ok(made)) => does == Does::Well && *made == piece && was_done,
            Ok(Err(_)) => does == Does::Fail && was_done,
            Err(OffloadError::Panicked(text)) => does == Does::Panic && was_done && text == "a piece",
            Err(OffloadError::NoThread(_)) => self.had_faults && !was_done,
            Err(_) => false,
        };
        let is_in_order = !was_done || laned.told < Some(piece);
        if was_done {
            laned.told = Some(piece);
        }
        promise!(self.story, was_pending, "piece {piece} of lane {number} of host {host} was not pending");
        promise!(self.story, is_right, "piece {piece} of lane {number} of host {host}, {does:?}, done {was_done}, made {made:?}");
        promise!(self.story, is_in_order, "piece {piece} of lane {number} of host {host} is told out of order");
        promise!(self.story, wrong.is_none(), "lane {number} of host {host}: {wrong:?}");
        promise!(self.story, self.conns[id].life == life, "piece {piece} of lane {number} is of {id}'s predecessor");
    }

    /// It is over: what was written is what was sent, and what comes next stands behind that.
    pub(super) fn on_saved(&mut self, id: usize, number: usize, saved: &Saved, ctx: &mut Context<'_, Site>) {
        self.figures.saves += 1;
        let was_pending = self.saves[number].is_pending && self.conns[id].saving == Some(number);
        promise!(self.story, was_pending, "the end of save {number}, for which {id} does not wait");
        self.saves[number].is_pending = false;
        self.conns[id].saving = None;
        if !was_pending {
            return;
        }
        let read = self.conns[id].base_in + moved(ctx.key, &ctx.net).map_or(0, |moved| moved[0] as usize) - ctx.unread();
        let from = self.saves[number].from;
        self.meet_peer(id, read > from);
        let has_end = self.has_said_its_end(self.conns[id].peer);
        // Also where a refused frame ends of which the rest never came.
        let may_be_cut = self.conns[id].peer.is_some_and(|peer| self.may_be_cut(peer));
        let is_murky = self.is_murky(id) || may_be_cut || (from > 0 && self.conns[id].skipped_to == from);
        let save = &self.saves[number];
        let rest = self.conns[id].peer.map_or(&[][..], |peer| &self.conns[peer].sent[from.min(self.conns[peer].sent.len())..]);
        let (range, through) = save.framing.saved(rest);
        let log = look(&save.log);
        let (kept, is_flushed, has_failed) = (log.kept.len(), log.is_flushed, log.has_failed);
        // Where the end was passed on before, nobody was told.
        let may_be_at_the_end = self.conns[id].mate.is_some() && through == Some(0);
        let is_right = match saved {
            Saved::Whole => is_flushed && !has_failed && log.is_back,
            Saved::CutShort => {
                is_flushed
                    && !has_failed
                    && (is_murky || may_be_at_the_end || through.is_none())
                    && (is_murky || !matches!(save.framing, Framing::None))
            }
            Saved::Exceeded => save.has_exceeded,
            Saved::NoThread => self.had_faults,
            Saved::Failed(_) => has_failed,
        };
        let is_whole = matches!(saved, Saved::Whole | Saved::CutShort);
        let is_kept = is_murky || (range.len() >= kept && rest[range.start..range.start + kept] == log.kept);
        let (wrong, drops) = (log.wrong, log.drops);
        self.story.note(|| format!("      read {read} unread {} from {from} through {through:?} range {range:?}", ctx.unread()));
        self.story.note(|| {
            format!(
                "      it has kept \"{}\"; \"{}\" were sent",
                log.kept.escape_ascii(),
                rest[..rest.len().min(80)].escape_ascii()
            )
        });
        drop(log);
        let is_ended = matches!((saved, through), (Saved::Whole, Some(_))) || !is_whole || has_end;
        let (start, end) = (from + range.start, range.end);
        self.figures.saved += kept as u64;
        promise!(self.story, is_right, "save {number} of {id} ended as {saved:?}, with {kept} bytes kept");
        promise!(self.story, is_ended, "save {number} of {id} ended as {saved:?}, and the stream goes on");
        promise!(self.story, is_kept, "save {number} of {id} has kept {kept} bytes, which are not those from {start} on");
        let is_all = !is_whole || kept == range.len() || is_murky;
        promise!(self.story, is_all, "save {number} of {id} has kept {kept} bytes of {}", range.len());
        promise!(self.story, wrong.is_none() && drops <= 1, "save {number} of {id}: {wrong:?}, dropped {drops} times");
        // What was cut has not come.
        let (through, end) = if may_be_cut && matches!(saved, Saved::CutShort) { (None, kept) } else { (through, end) };
        let conn = &mut self.conns[id];
        match saved {
            Saved::Whole | Saved::CutShort => {
                conn.got = if may_be_cut { read.max(from) } else { from + through.unwrap_or(end) };
                conn.behind = None;
                conn.framing.after_piece(end);
                if through.is_some() {
                    conn.framing.after_frame();
                }
                let got = conn.got;
                let is_exact = has_end || read == got || conn.skipped_to > read || is_murky;
                promise!(self.story, is_exact, "save {number} of {id} ends at {got}, and {read} bytes were taken");
            }
            Saved::Exceeded => {}
            Saved::NoThread | Saved::Failed(_) if self.saves[number].has_exceeded => {}
            Saved::NoThread | Saved::Failed(_) => {
                // What was gathered is lost with the writer; only the loop knows how much that was.
                conn.got = read.max(from);
                conn.is_loose = true;
                if !conn.has_eof {
                    let framing = if number % 2 == 0 { Framing::None } else { Framing::Line { limit: 100_000 } };
                    self.set_framing(id, &mut ctx.net, framing);
                }
            }
        }
    }

    pub(super) fn on_sent(&mut self, id: usize, number: usize, sent: &Sent) {
        self.figures.sources += 1;
        let source = &mut self.sources[number];
        let was_pending = std::mem::take(&mut source.is_pending);
        source.is_told = true;
        let (owner, life) = source.owner;
        let (at, bytes, fails_at) = (source.at, source.bytes, source.fails_at);
        let is_right = match sent {
            Sent::Whole(told) => fails_at.is_none() && *told == bytes as u64 && look(&source.log).has_ended,
            Sent::NoThread => self.had_faults,
            Sent::Failed(_) => fails_at == Some(0),
        };
        let wrong = look(&source.log).wrong;
        promise!(self.story, was_pending && owner == id, "the end of source {number}, for which {id} does not wait");
        promise!(
            self.story,
            is_right,
            "source {number} of {id}, of {bytes} bytes, which fails at {fails_at:?}, ended as {sent:?}"
        );
        promise!(self.story, wrong.is_none(), "source {number} of {id}: {wrong:?}");
        promise!(self.story, self.conns[id].life == life, "source {number} is of {id}'s predecessor");
        if let (Sent::NoThread, true) = (sent, was_pending) {
            self.take_out(id, at, fails_at.unwrap_or(bytes));
        }
    }

    /// A clean end of one whose source has failed, and nobody was told.
    pub(super) fn look_at_clean_end(&mut self, id: usize) {
        let lacks = |source: &Source| source.owner.0 == id && source.fails_at.is_some() && !source.is_told;
        let lacking = self.sources.iter().position(lacks);
        promise!(self.story, lacking.is_none(), "{id} ends well, and lacks what source {lacking:?} did not give");
    }

    /// It was never read, and nothing of it will leave.
    fn take_out(&mut self, id: usize, at: usize, bytes: usize) {
        self.conns[id].sent.drain(at..at + bytes);
        for other in &mut self.sources {
            if other.owner.0 == id && other.at > at {
                other.at -= bytes;
            }
        }
        // One that skips a frame has looked ahead.
        if self.conns[id].peer.is_some_and(|peer| self.conns[peer].got > at) {
            self.story.gives_up = true;
        }
    }

    /// What it looked ahead to was never said.
    pub(super) fn shorten_save(&mut self, number: usize, has: usize) {
        let save = &mut self.saves[number];
        save.from = save.from.min(has);
    }

    pub(super) fn exceeds_save(&mut self, number: usize) {
        self.saves[number].has_exceeded = true;
    }

    /// A connection has begun to end, or to be another.
    pub(super) fn forget_elsewhere(&mut self, id: usize) {
        if let Some(number) = self.conns[id].saving.take() {
            self.saves[number].is_pending = false;
        }
        for source in self.sources.iter_mut().filter(|source| source.owner.0 == id) {
            source.is_pending = false;
        }
        let host = self.conns[id].host;
        for laned in &mut self.places[host].lanes {
            for piece in laned.pieces.iter_mut().filter(|piece| piece.owner.0 == id) {
                piece.is_pending = false;
            }
        }
    }

    /// All that was to be done has been.
    pub(super) fn look_at_lanes_at_rest(&mut self, host: usize) {
        if self.had_long_work {
            return;
        }
        for (number, laned) in self.places[host].lanes.iter().enumerate() {
            let owed = laned.pieces.iter().position(|piece| piece.is_pending && !self.places[host].was_drained);
            promise!(self.story, owed.is_none(), "the end of piece {owed:?} of lane {number} of host {host} was not told");
            let pending = laned.lane.as_ref().map_or(0, Lane::pending);
            promise!(self.story, pending == 0, "lane {number} of host {host} has {pending} pieces at rest");
        }
        self.look_at_lasts(host);
    }

    fn look_at_lasts(&mut self, host: usize) {
        for (number, laned) in self.places[host].lanes.iter().enumerate() {
            let BenchLog { lasts, drops, wrong, .. } = &*look(&laned.log);
            let is_over = laned.lane.is_none();
            let is_right = *drops == u32::from(is_over) && *lasts == u32::from(is_over && laned.has_last);
            promise!(
                self.story,
                is_right,
                "lane {number} of host {host}, finished {is_over}: its last was done {lasts} times, and it was dropped {drops} times"
            );
            promise!(self.story, wrong.is_none(), "lane {number} of host {host}: {wrong:?}");
        }
    }

    /// All that has come is written, and more is to come.
    pub(super) fn look_at_save_at_rest(&mut self, id: usize, unread: usize) {
        let Some(number) = self.conns[id].saving.filter(|_| !self.had_long_work) else { return };
        let save = &self.saves[number];
        let Some(peer) = self.conns[id].peer else { return };
        let rest = &self.conns[peer].sent[save.from..];
        let (range, through) = save.framing.saved(rest);
        let (kept, missing) = (look(&save.log).kept.len(), rest.len() - range.end);
        let too_long = matches!(save.framing.next(rest), Next::TooLong | Next::Broken);
        promise!(self.story, through.is_none() && !too_long, "save {number} of {id} is to end, and goes on");
        promise!(self.story, kept == range.len(), "save {number} of {id} has kept {kept} bytes of {}", range.len());
        promise!(self.story, unread == missing, "{id}, which saves, holds {unread} bytes, and {missing} are of no frame");
    }

    /// At rest, with nothing queued.
    pub(super) fn look_at_sources_at_rest(&mut self, id: usize) {
        let is_owed = |source: &Source| source.is_pending && source.owner.0 == id;
        let owed = self.sources.iter().position(is_owed).filter(|_| !self.had_long_work);
        promise!(self.story, owed.is_none(), "source {owed:?} of {id} was not told its end");
    }

    /// Everything was given back, and what was written is what was sent.
    pub(super) fn look_back_elsewhere(&mut self) {
        if self.had_long_work {
            return; // a thread has it for ever
        }
        (0..self.places.len()).for_each(|host| self.look_at_lasts(host));
        for (number, save) in self.saves.iter().enumerate() {
            let (id, log) = (save.owner.0, look(&save.log));
            let rest = self.conns[id].peer.map_or(&[][..], |peer| &self.conns[peer].sent[..]);
            let rest = rest.get(save.from..).unwrap_or_default();
            let range = save.framing.saved(rest).0;
            let is_of_known =
                self.conns[id].peer.is_some_and(|peer| !self.conns[peer].is_muddled && self.conns[peer].mate.is_none());
            let is_kept = !is_of_known || (range.len() >= log.kept.len() && rest[range].starts_with(&log.kept));
            let (kept, drops, wrong) = (log.kept.len(), log.drops, log.wrong);
            drop(log);
            promise!(self.story, is_kept, "save {number} of {id} has kept {kept} bytes, which are not what was sent");
            promise!(self.story, drops == 1 && wrong.is_none(), "save {number} of {id}: {wrong:?}, dropped {drops} times");
        }
        for (number, source) in self.sources.iter().enumerate() {
            let SpringLog { drops, wrong, .. } = *look(&source.log);
            promise!(self.story, drops == 1 && wrong.is_none(), "source {number}: {wrong:?}, dropped {drops} times");
        }
    }

    /// What cannot be wrong of them, whenever anybody looks.
    pub(super) fn probe_peer_ended(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(has_ended) = self.conns[id].key.and_then(|key| net.link(key)).map(|link| link.peer_ended()) else { return };
        let is_so = self.has_said_its_end(self.conns[id].peer)
            || self.conns[id].ways == Ways::Out
            || self.was_lost(id, net)
            || self.had_faults;
        promise!(self.story, !has_ended || is_so, "the peer of {id} is said to have ended");
    }
}
