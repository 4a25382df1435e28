//! One connection: its phase and its flags, what it reads and writes, how it begins and ends. What it needs of the loop is
//! lent to it ([`Cx`]). It knows no callback, and no other connection.

mod clocks;
mod connecting;
mod ending;
mod rates;
mod reading;
#[cfg(feature = "tls")]
mod shaking;
mod state;
mod writing;

use crate::{
    address::Address,
    config::Marks,
    cx::{Cx, NOBODY, Note},
    flags::*,
    framing::{Framing, Input},
    hold::Holds,
    key::Key,
    listen::Bounds,
    output::{Broken, Output, Spares},
    panics::{Payload, discard},
    rate::Rates,
    reason::Detached,
    seldom::Seldom,
    stopwatch::Clocks,
    time::Time,
    timers::{Cue, NO_TIMER},
    world::{Stream, Ways},
};
use connecting::Connecting;
pub(crate) use reading::{Budget, Next};
#[cfg(feature = "tls")]
pub(crate) use shaking::Shaken;
use std::{cell::OnceCell, io, rc::Rc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted, and its factory is running: no key leads to it, because it may come to nothing.
    Guest,
    /// Connecting or connected.
    Open,
    /// Closed politely: the output is still flushing.
    Flushing,
    /// On the list of those to be closed; only tells and `closed` are left.
    Ended,
    /// `closed` was called. The rest of the output and the FIN leave; then what the peer still sends is dropped until its
    /// end.
    Lingering,
}

/// One connection, from its beginning to the end of its socket.
pub(crate) struct Conn {
    pub(crate) key: Key,
    /// `None` while a connect waits for its next try, or could not even begin. ESTABLISHED ∈ flags ⇒ some
    pub(crate) stream: Option<Stream>,
    pub(crate) peer: Address,
    /// Asked for once: most programs never need it.
    local: OnceCell<Box<Address>>,
    pub(crate) framing: Framing,
    /// What of the input is not consumed, between turns. Never empty. phase ≠ Open ⇒ none
    pub(crate) held: Option<Box<Input>>,
    /// Never empty: what can be written at once needs no queue.
    pub(crate) output: Option<Box<Output>>,
    /// What is not needed every day.
    pub(crate) extra: Option<Box<Extra>>,
    /// Whose guest it is; connections that we opened have none.
    pub(crate) listener: Option<Key>,
    /// Tells that wait; `closed` waits for them.
    pub(crate) tells: u32,
    /// Counts upgrades: a tell is for one life only.
    pub(crate) upgrades: u32,
    /// When it was accepted or opened.
    pub(crate) born: Time,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) phase: Phase,
    /// SHUT ⇔ phase ≠ Open; THROTTLED ⇔ one of `extra.targets` has CONGESTED; EOF_TOLD ⇒ EOF_SEEN
    pub(crate) flags: Flags,
    /// Turns in a row in which nothing was achieved; it stops counting at its maximum.
    pub(crate) in_vain: u8,
    /// It came through a proxy, which may say for whom.
    pub(crate) is_by_proxy: bool,
    /// Somebody else has opened it, and may have a duplicate.
    pub(crate) is_adopted: bool,
    /// It counts for its peer's address at its listener.
    pub(crate) counts_for_peer: bool,
}

/// Every connection that has a time-out or a mark has this, so it is small: what fewer have is in boxes.
pub(crate) struct Extra {
    pub(crate) clocks: Clocks,
    /// Its own, if `has_marks`.
    marks: Marks,
    has_marks: bool,
    /// It has set a deadline, or taken the listener's back.
    pub(crate) has_own_deadline: bool,
    /// It closes once nothing is under way.
    pub(crate) closes_when_quiet: bool,
    /// For one that is owed the news of being connected: it was connected before, and is secured now.
    pub(crate) owes_secured: bool,
    /// The chain of its own timers.
    pub(crate) timers: u32,
    /// What its listener has for each connection that it accepts.
    pub(crate) bounds: Option<Rc<Bounds>>,
    /// When the last byte came. `NEVER`: none has come since this struct exists. Connections that have it are asked for the
    /// time anyway.
    pub(crate) heard: Time,
    /// What it is tied to.
    pub(crate) ties: Option<Box<Ties>>,
    pub(crate) odds: Option<Box<Odds>>,
}

/// What few connections have, or have only for a short time.
#[derive(Default)]
pub(crate) struct Odds {
    /// Until it is connected. By name ⇒ `stream` is none, and phase ≠ Ended
    pub(crate) connecting: Seldom<Connecting>,
    pub(crate) rates: Option<Box<Rates>>,
    /// Not empty ⇔ HELD ∈ flags
    pub(crate) holds: Holds,
    /// What it receives is written elsewhere.
    pub(crate) is_saving: bool,
    /// `draining` comes when this many bytes were received, at the latest.
    pub(crate) drains_at: u64,
    /// What the first failed write said.
    pub(crate) write_error: Option<io::Error>,
    /// For a stream whose directions are apart: nobody reads what it writes any more. It is still read; `write_error` is for
    /// the others.
    pub(crate) has_lost_writer: bool,
    /// What was lost with that, which is its reason if it ends cleanly otherwise.
    pub(crate) lost_output: Option<io::Error>,
    /// It ends by being given back: what it has is kept for that. The code that asks for it names this, so that a program
    /// that never does links nothing of it.
    pub(crate) hand_over: Option<fn(&mut Conn, &mut Detached, &mut Cx)>,
    /// Bytes that its protocol has sent it since the write failed.
    pub(crate) unheard: usize,
}

impl Odds {
    fn are_plain(&self) -> bool {
        self.connecting.is_none() && self.write_error.is_none() && self.rates.as_ref().is_none_or(|rates| rates.is_idle())
    }

    fn are_idle(&self) -> bool {
        self.are_plain()
            && self.holds.is_empty()
            && !self.is_saving
            && self.drains_at == 0
            && !self.has_lost_writer
            && self.hand_over.is_none()
    }
}

/// What a connection is tied to: by throttles, as long as these are wanted; by the rest until one of them has ended, also
/// over an upgrade.
#[derive(Default)]
pub(crate) struct Ties {
    /// Reading is off while one of these is congested. t ∈ targets ⇔ this ∈ t.readers
    pub(crate) targets: Vec<Key>,
    /// The connections that read only while this one is not congested.
    pub(crate) readers: Vec<Key>,
    /// What one of the two receives goes to the other. m = mate(c) ⇔ c = mate(m)
    pub(crate) mate: Option<Key>,
    /// It ends when its owner, this one, has ended. c ∈ owned(o) ⇔ o = owner(c)
    pub(crate) owner: Option<Key>,
    /// Connections and listeners that end with it.
    pub(crate) owned: Vec<Key>,
}

impl Ties {
    fn are_none(&self) -> bool {
        self.mate.is_none() && self.owner.is_none() && self.owned.is_empty() && self.throttled().next().is_none()
    }

    /// Those that depend on it, and those that it depends on.
    pub(crate) fn throttled(&self) -> impl Iterator<Item = Key> {
        self.targets.iter().chain(&self.readers).copied()
    }
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            clocks: Clocks::default(),
            marks: Marks::new(0, 0, 0),
            has_marks: false,
            has_own_deadline: false,
            closes_when_quiet: false,
            owes_secured: false,
            timers: NO_TIMER,
            bounds: None,
            heard: Time::NEVER,
            ties: None,
            odds: None,
        }
    }
}

impl Extra {
    pub(crate) fn odds(&mut self) -> &mut Odds {
        self.odds.get_or_insert_default()
    }

    fn set_marks(&mut self, marks: Option<Marks>) {
        self.has_marks = marks.is_some();
        self.marks = marks.unwrap_or(self.marks);
    }

    /// A turn in which nothing else happens needs nothing of it, except that the idle clock is started anew.
    pub(crate) fn is_plain(&self) -> bool {
        !self.clocks.frame().is_set()
            && !self.closes_when_quiet
            && self.odds.as_ref().is_none_or(|odds| odds.are_plain())
            && self.ties.as_ref().is_none_or(|ties| ties.mate.is_none() && ties.throttled().next().is_none())
    }

    /// Nothing in it is needed any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.clocks.is_idle()
            && !self.has_marks
            && !self.closes_when_quiet
            && !self.owes_secured
            && self.timers == NO_TIMER
            && self.ties.as_ref().is_none_or(|ties| ties.are_none())
            && self.odds.as_ref().is_none_or(|odds| odds.are_idle())
    }
}

/// What reading brought.
pub(crate) enum Filled {
    Bytes(usize),
    /// Nothing until the next event.
    Drained,
    /// A signal came in between, or others go first at the rate that it shares.
    Interrupted,
    End,
    Lost(io::Error),
}

/// Why output could not leave.
pub(crate) enum Stuck {
    Socket(io::Error),
    Producer(Broken),
    Panicked(Payload),
}

impl Conn {
    pub(crate) fn new(key: Key, stream: Option<Stream>, peer: Address, born: Time) -> Self {
        Self {
            key,
            stream,
            peer,
            local: OnceCell::new(),
            framing: Framing::None,
            held: None,
            output: None,
            extra: None,
            listener: None,
            tells: 0,
            upgrades: 0,
            born,
            bytes_in: 0,
            bytes_out: 0,
            phase: Phase::Open,
            flags: Flags::default(),
            in_vain: 0,
            is_by_proxy: false,
            is_adopted: false,
            counts_for_peer: false,
        }
    }

    #[inline]
    pub(crate) fn is(&self, any: Flags) -> bool {
        self.flags.has_any(any)
    }

    #[inline]
    pub(crate) fn set(&mut self, these: Flags) {
        self.flags.insert(these);
    }

    #[inline]
    pub(crate) fn clear(&mut self, these: Flags) {
        self.flags.remove(these);
    }

    #[inline]
    pub(crate) fn put(&mut self, these: Flags, on: bool) {
        self.flags.put(these, on);
    }

    #[inline]
    pub(crate) fn set_if(&mut self, these: Flags, on: bool) {
        if on {
            self.set(these);
        }
    }

    /// Clears it; returns whether it was set.
    #[inline]
    pub(crate) fn take(&mut self, flag: Flags) -> bool {
        let was_set = self.is(flag);
        self.clear(flag);
        was_set
    }

    /// Sets it; returns whether it was set before.
    #[inline]
    pub(crate) fn mark(&mut self, flag: Flags) -> bool {
        self.flags.mark(flag)
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The only place where the phase changes.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.put(SHUT, phase != Phase::Open);
    }

    #[inline]
    pub(crate) fn takes_owed_writable(&mut self) -> bool {
        self.is(OWES_WRITABLE) && self.may_be_told_writable() && self.take(OWES_WRITABLE)
    }

    pub(crate) fn takes_owed_draining(&mut self) -> bool {
        self.may_be_told_draining() && self.take(OWES_DRAINING)
    }

    /// A timer of its own is due, which calls nobody.
    pub(super) fn fire(&mut self, cue: Cue, cx: &mut Cx) {
        match cue {
            Cue::TryAgain => self.try_to_connect_again(cx),
            Cue::NextAddress => self.go_on_connecting(cx),
            Cue::Rate(way) => self.rate_is_ready(way, cx),
        }
    }

    /// After its turn, and after anything else that changes what it could do next.
    pub(crate) fn settle(&mut self, cx: &mut Cx) {
        let has_extra = self.extra.is_some();
        self.requeue(cx);
        if self.phase == Phase::Flushing {
            self.linger_from_now(cx);
        } else if has_extra {
            self.run_clocks(cx);
        }
        if has_extra {
            self.return_unused_shares(cx);
            self.note_quiet(cx);
        }
    }

    #[inline]
    pub(crate) fn settle_unless_idle(&mut self, cx: &mut Cx) {
        if !self.is_plainly_idle() {
            self.settle(cx);
        }
    }

    fn requeue(&mut self, cx: &mut Cx) {
        if self.can_progress() {
            self.mark_ready(cx);
        }
    }

    #[inline]
    pub(crate) fn mark_ready(&mut self, cx: &mut Cx) {
        if !self.mark(IN_READY) {
            cx.lists.ready.push(self.key);
        }
    }

    /// Something was done to it from outside its turn: it is flushed and settled later in this turn, or by the next one,
    /// which does not sleep first. While its own callback runs there is no need: its turn ends with both.
    fn touch(&mut self, cx: &mut Cx) {
        match self.is_current(cx) {
            true => {}
            false if cx.lists.notes.is_empty() => self.mark_dirty(cx),
            false => cx.lists.notes.push(Note::Dirty(self.key)), // behind those whom it concerns
        }
    }

    #[inline]
    pub(crate) fn mark_dirty(&mut self, cx: &mut Cx) {
        if !self.mark(IN_DIRTY) {
            cx.lists.dirty.push(self.key);
        }
    }

    /// Whether a callback of it is running.
    #[inline]
    pub(crate) fn is_current(&self, cx: &Cx) -> bool {
        cx.lent.to == self.key.index()
    }

    /// And its output is the lent buffer.
    #[inline]
    fn has_lent_output(&self, cx: &Cx) -> bool {
        cx.lent.has_out && self.is_current(cx)
    }

    /// A callback of it is about to run: the output buffer is lent to it.
    #[inline]
    pub(crate) fn lend_output(&self, cx: &mut Cx) {
        let lent = &mut cx.lent;
        debug_assert!(lent.to == NOBODY && lent.out.is_empty(), "no callback runs inside another");
        lent.to = self.key.index();
        (lent.interrupt, lent.frame_ended, lent.is_given, lent.has_spent) = (false, false, false, false);
        lent.has_out = self.output.is_none() && self.takes_output();
        lent.room = if lent.has_out { self.marks(cx.config.marks).high } else { 0 };
        lent.unread = self.held.as_ref().map_or(0, |held| held.len());
    }

    #[inline]
    pub(crate) fn write_error(&self) -> Option<&io::Error> {
        self.odds()?.write_error.as_ref()
    }

    #[inline]
    pub(crate) fn marks(&self, default: Marks) -> Marks {
        self.extra.as_ref().filter(|extra| extra.has_marks).map_or(default, |extra| extra.marks)
    }

    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.queued())
    }

    /// What it has beyond the usual: made if it does not exist, and looked at when its turn ends.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.set(NEEDS_SETTLING);
        self.extra.get_or_insert_default()
    }

    pub(crate) fn odds(&self) -> Option<&Odds> {
        self.extra.as_ref()?.odds.as_deref()
    }

    pub(crate) fn odds_mut(&mut self) -> Option<&mut Odds> {
        self.extra.as_mut()?.odds.as_deref_mut()
    }

    pub(crate) fn known_ties(&self) -> Option<&Ties> {
        self.extra.as_ref()?.ties.as_deref()
    }

    pub(crate) fn ties(&mut self) -> &mut Ties {
        self.extra().ties.get_or_insert_default()
    }

    pub(crate) fn output(&mut self, spares: &mut Spares) -> &mut Output {
        self.output.get_or_insert_with(|| spares.get())
    }

    /// Asked for once, when it is connected, and remembered afterwards.
    pub(crate) fn local(&self) -> &Address {
        static NONE: Address = Address::Fd;
        match (&self.stream, self.is(ESTABLISHED | SHAKING)) {
            (Some(stream), true) => self.local.get_or_init(|| Box::new(stream.local().unwrap_or(Address::Fd))),
            _ => self.local.get().map_or(&NONE, |local| &**local), // it was given back
        }
    }

    /// Drops it, and, one by one, what in it belongs to the program.
    pub(crate) fn discard(mut self) {
        self.drop_output();
        discard("a framer", self);
    }

    /// A successor has none of its predecessor's limits, timers and offloads, only what the listener has for each
    /// connection. Queued output stays, and unread bytes are its own.
    pub(crate) fn begin_anew(&mut self, cx: &mut Cx) {
        self.stop_timers(cx);
        cx.stop_work_of(self.key);
        discard("a framer", std::mem::take(&mut self.framing));
        self.upgrades += 1;
        self.clear(PAUSED | HELD);
        self.put(HOLDS_BACK, self.listener.is_some());
        self.set_if(FAILED, self.is(LOST));
        if let Some(extra) = &mut self.extra {
            extra.set_marks(extra.bounds.as_ref().and_then(|bounds| bounds.marks));
            extra.owes_secured = false;
            if let Some(odds) = &mut extra.odds {
                (odds.holds, odds.is_saving, odds.unheard) = (Holds::default(), false, 0);
            }
        }
        self.put(OWES_CONNECTED, self.is(ESTABLISHED) && !self.is(SHAKING));
        #[cfg(feature = "tls")]
        self.shakes_for_successor();
        self.put(EOF_TOLD, self.ways() == Ways::Out); // what is only written to is not told anything
        self.put(MAY_HAVE_FRAME, self.held.is_some());
        if let Some(held) = &mut self.held {
            held.search_anew();
        }
        self.reset_rates(cx);
        self.look_at_marks(cx);
        self.begin_clocks_anew(cx);
        self.close_if_both_ended(cx); // its predecessor's holds are gone
    }
}
