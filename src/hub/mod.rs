//! Every socket of one reactor and the lists that drive a turn, without a callback: what each connection could do next is
//! decided here, what is told to its protocol is not. Compiled once, whatever the program's state.
//!
//! The rule that carries everything under edge triggering is [`Hub::can_progress`]: a key is on the ready queue exactly
//! when it could make progress. Whoever changes something that the rule reads calls [`Hub::settle`] afterwards, or marks
//! the connection [`dirty`](Hub::mark_dirty), which settles it later in the turn:
//!
//! | what has changed | call |
//! |---|---|
//! | more is queued, or the marks moved | `queued_more`: looks at the marks, then `touch` |
//! | something else that flushing or settling should see | `touch`: dirty, unless it is being served, which ends with both |
//! | pause, hold-back, throttles | `reading_changed`: `touch`, and who delivers looks again |
//! | whatever, of the one that was served, or when its own turn is over | `settle`: its clocks, then `requeue` |
//! | whether a listener or dispatcher is ready, which have no clocks | `requeue`: onto the ready queue if it can progress |

mod connecting;
mod elsewhere;
mod ending;
mod opening;
mod rating;
mod receiving;
mod sending;
#[cfg(debug_assertions)]
mod soundness;
mod timing;
mod watching;

use crate::{
    config::Config,
    conn::{Conn, Phase},
    flags::*,
    key::Key,
    output::Spares,
    panics::Payload,
    rate::SharedRate,
    reason::Reason,
    slots::{Entry, Slots},
    stats::Stats,
    time::Time,
    timers::Timers,
    world::{Event, World},
};
pub(crate) use connecting::{Asker, LookedUp};
pub(crate) use elsewhere::{Elsewhere, Product, Returned};
pub(crate) use opening::Accepted;
pub(crate) use receiving::{Budget, ReadBuffers, Step};
use slab::Slab;
use std::collections::VecDeque;
pub(crate) use watching::NEVER_DRAINED_MAX;

/// No connection's callback is running.
const NOBODY: usize = usize::MAX;

/// Whose turn it is.
pub(crate) enum Turn {
    Stream,
    Listener,
    Dispatcher,
    /// It has ended, or there is nothing to do any more.
    Over,
}

pub(crate) struct Hub {
    pub(crate) slots: Slots,
    lingering: VecDeque<Key>,
    lingering_now: usize,
    shared_rates: Slab<SharedRate>,
    pub(crate) counts: Counts,
    pub(crate) cx: Cx,
}

/// What the loop hands to whoever is served.
pub(crate) struct Cx {
    pub(crate) config: Config,
    pub(crate) world: Box<dyn World>,
    pub(crate) stamp: Option<Time>,
    pub(crate) looked: Time,
    pub(crate) timers: Timers,
    pub(crate) jobs_set: usize,
    pub(crate) jobs_dead: Vec<crate::key::Timer>,
    pub(crate) ready: Vec<Key>,
    pub(crate) dirty: Vec<Key>,
    pub(crate) closing: VecDeque<(Key, Reason)>,
    pub(crate) elsewhere: Elsewhere,
    pub(crate) stats: Stats,
    pub(crate) is_shut: bool,
    pub(crate) current: usize,
    pub(crate) is_lent: bool,
    pub(crate) out: Vec<u8>,
    pub(crate) room: usize,
    pub(crate) has_whole_queue: bool,
    pub(crate) unread: usize,
    pub(crate) interrupt: bool,
    pub(crate) frame_ended: bool,
    #[cfg(debug_assertions)]
    turns_unchecked: u32,
    pub(crate) spares: Spares,
    pub(crate) panicked: Option<Payload>,
    /// Who reads only while another is not congested that has changed: to be looked at.
    pub(crate) changed: Vec<Key>,
}

/// What keeps a reactor running.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Connections with a handler.
    pub(crate) accepted: usize,
    pub(crate) opened: usize,
    pub(crate) listeners: usize,
    pub(crate) watched: usize,
}

impl Counts {
    pub(crate) fn handlers(&self) -> usize {
        self.accepted + self.opened + self.listeners + self.watched
    }
}

impl Hub {
    pub(crate) fn new(config: Config, mut world: Box<dyn World>) -> std::io::Result<Self> {
        let elsewhere = Elsewhere::new(world.waker()?);
        let cx = Cx {
            config,
            world,
            stamp: None,
            looked: Time::default(),
            timers: Timers::default(),
            jobs_set: 0,
            jobs_dead: Vec::new(),
            ready: Vec::new(),
            dirty: Vec::new(),
            closing: VecDeque::new(),
            elsewhere,
            stats: Stats::default(),
            is_shut: false,
            current: NOBODY,
            is_lent: false,
            out: Vec::new(),
            room: 0,
            has_whole_queue: false,
            unread: 0,
            interrupt: false,
            frame_ended: false,
            #[cfg(debug_assertions)]
            turns_unchecked: 0,
            spares: Spares::default(),
            panicked: None,
            changed: Vec::new(),
        };
        Ok(Self {
            slots: Slots::default(),
            lingering: VecDeque::new(),
            lingering_now: 0,
            shared_rates: Slab::new(),
            counts: Counts::default(),
            cx,
        })
    }

    // ------------------------------------------------------------------------------------------- what is ready

    /// All events become flags before any callback runs: what a callback closes or opens cannot meet an older event.
    pub(crate) fn fold(&mut self, events: &[Event]) {
        self.cx.stats.events += events.len() as u64;
        for event in events {
            let ready = event.ready;
            let token = event.token;
            let entry = self.slots.at(Key::index_of(token));
            if let Some(Entry::Stream(conn)) = entry {
                if conn.key.token() == token {
                    conn.set(ready.without(if conn.is(EOF_SEEN) { READABLE | PRIORITY } else { PRIORITY }));
                    let key = conn.key;
                    if !conn.is_plainly_readable() {
                        self.requeue(key);
                    } else if !conn.mark(IN_READY) {
                        self.cx.ready.push(key);
                    }
                    continue;
                }
            }
            let Some(entry) = entry.filter(|entry| entry.key().is_some_and(|key| key.token() == token)) else {
                self.cx.stats.stale_events += 1;
                log::trace!(target: "mainspring", "an event for a socket that is gone");
                continue;
            };
            let (hears, key) = (entry.hears(), entry.key());
            if let (Some(flags), Some(key)) = (entry.flags(), key) {
                flags.insert(ready.only(hears));
                self.requeue(key);
            }
        }
    }

    /// Puts it on the ready queue if it could make progress and is not there yet.
    pub(crate) fn requeue(&mut self, key: Key) {
        if self.can_progress(key) && !self.slots.mark(key, IN_READY) {
            self.cx.ready.push(key);
        }
    }

    /// Takes it off the ready queue for being served, if it still could make progress.
    pub(crate) fn take_turn(&mut self, key: Key) -> Turn {
        let Some(entry) = self.slots.get_mut(key) else { return Turn::Over };
        let turn = match entry {
            Entry::Stream(_) => Turn::Stream,
            Entry::Listener(_) => Turn::Listener,
            Entry::Watched(_) => Turn::Dispatcher,
            Entry::Retired => Turn::Over,
        };
        if let Some(flags) = entry.flags() {
            flags.remove(IN_READY);
        }
        if self.can_progress(key) { turn } else { Turn::Over }
    }

    pub(crate) fn can_progress(&self, key: Key) -> bool {
        match self.slots.get(key) {
            Some(Entry::Stream(conn)) => self.conn_can_progress(conn),
            Some(Entry::Listener(listening)) => {
                listening.socket.is_some() && listening.flags.has_any(READABLE) && !listening.is_backing_off
            }
            Some(Entry::Watched(_)) => self.dispatcher_ready(key).has_any(READABLE | WRITABLE | PRIORITY),
            _ => false,
        }
    }

    fn conn_can_progress(&self, conn: &Conn) -> bool {
        let can_flush = conn.can_write() && conn.has_writable_output();
        match conn.phase {
            Phase::Open | Phase::Flushing if !conn.is(ESTABLISHED) => {
                (conn.stream.is_some() || conn.is_racing()) && (conn.is(WRITABLE) || conn.is(FAILED))
            }
            Phase::Open => {
                let is_owed = conn.is(OWES_CONNECTED) || conn.is(OWES_DRAINING) || conn.may_be_told_writable();
                let has_input = conn.has_input();
                is_owed || conn.is(FAILED) || conn.write_error().is_some() || can_flush || (has_input && self.is_reading(conn))
            }
            Phase::Flushing => can_flush || conn.is(FAILED),
            Phase::Guest | Phase::Ended => false,
            Phase::Lingering => can_flush || conn.is(READABLE) || conn.is(FAILED),
        }
    }

    /// Whether its handler is to be called: something is owed to it, or there may be input for it.
    pub(crate) fn wants_callback(&self, index: usize) -> bool {
        let conn = self.slots.conn_at(index);
        if !conn.is_open() || !conn.is(ESTABLISHED) {
            return false;
        }
        let has_input = conn.has_input();
        let is_owed = conn.is(OWES_CONNECTED) || conn.is(OWES_DRAINING);
        is_owed || conn.write_error().is_some() || (has_input && self.is_reading(conn))
    }

    #[inline]
    pub(crate) fn owes_writable(&mut self, index: usize) -> bool {
        let conn = self.slots.conn_at_mut(index);
        conn.is(OWES_WRITABLE) && conn.may_be_told_writable() && conn.take(OWES_WRITABLE)
    }

    pub(crate) fn owes_draining(&mut self, index: usize) -> bool {
        let conn = self.slots.conn_at_mut(index);
        conn.is_open() && conn.take(OWES_DRAINING)
    }

    /// Reading is on when three things are off: the user's pause, its own congestion, a congested throttle target.
    #[inline]
    pub(crate) fn is_reading(&self, conn: &Conn) -> bool {
        let is_throttled = || conn.extra.as_ref().is_some_and(|extra| self.is_any_congested(&extra.targets));
        conn.reads() && (conn.is(LIFTED) || !is_throttled())
    }

    pub(crate) fn is_any_congested(&self, targets: &[Key]) -> bool {
        targets.iter().any(|&target| self.slots.conn(target).is_some_and(|conn| conn.is(CONGESTED)))
    }

    /// A connection whose `closed` has not run.
    pub(crate) fn find(&self, key: Key) -> Option<&Conn> {
        self.slots.conn(key).filter(|conn| conn.phase != Phase::Lingering)
    }

    /// The slot of a connection that has not begun to end.
    pub(crate) fn find_open(&self, key: Key) -> Option<usize> {
        self.slots.conn(key).filter(|conn| conn.is_open()).map(|_| key.index())
    }

    /// After anything that changes what a connection could do next.
    pub(crate) fn settle(&mut self, index: usize) {
        let conn = self.slots.conn_at(index);
        let key = conn.key;
        let (has_limits, is_flushing) = (conn.extra.is_some(), conn.phase == Phase::Flushing);
        self.requeue(key);
        if is_flushing {
            self.linger_from_now(index);
        } else if has_limits {
            self.run_limits(index);
        }
        if has_limits {
            self.take_back_unused(index);
        }
    }

    /// Settled later in this turn, or by the next one, which does not sleep first. What is being served is settled anyway.
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if !self.slots.mark(key, IN_DIRTY) {
            self.cx.dirty.push(key);
        }
    }

    /// Writes what others have queued, one system call for each, and settles what else they have changed.
    pub(crate) fn flush_dirty(&mut self) {
        let mut at = 0;
        // It grows while it is worked off, by readers that may go on: each can be let go once.
        while let Some(&key) = self.cx.dirty.get(at) {
            at += 1;
            let Some(conn) = self.slots.conn_mut(key) else {
                if let Some(flags) = self.slots.get_mut(key).and_then(Entry::flags) {
                    flags.remove(IN_DIRTY);
                    self.requeue(key);
                }
                continue;
            };
            conn.clear(IN_DIRTY);
            let index = key.index();
            if conn.is_plainly_writable() {
                let flushed = conn.flush(&mut self.cx.spares, usize::MAX);
                if flushed.is_ok() && conn.is_plainly_sent() && conn.is_plainly_idle() {
                    continue;
                }
                conn.flushed(flushed, &mut self.cx);
                self.tell_readers();
            } else if conn.phase != Phase::Lingering {
                self.flush(index);
            }
            if !self.slots.conn_at(index).is_plainly_idle() {
                self.settle(index);
            }
        }
        self.cx.dirty.clear();
    }

    /// The time, read once a turn: good enough for idle clocks, which count in seconds.
    pub(crate) fn stamp(&mut self) -> Time {
        *self.cx.stamp.get_or_insert_with(|| self.cx.world.now())
    }

    /// Whether the next wait must not sleep.
    pub(crate) fn has_work(&self) -> bool {
        !(self.cx.ready.is_empty() && self.cx.dirty.is_empty() && self.cx.closing.is_empty())
    }

    // --------------------------------------------------------------------------------- whose callback is running

    /// A callback of this connection is about to run: it is lent the output buffer.
    #[inline]
    pub(crate) fn begin(&mut self, index: usize) {
        debug_assert!(self.cx.current == NOBODY && self.cx.out.is_empty(), "no callback runs inside another");
        self.cx.current = index;
        (self.cx.interrupt, self.cx.frame_ended) = (false, false);
        let conn = self.slots.conn_at(index);
        self.cx.is_lent = conn.output.is_none() && conn.takes_output();
        self.cx.room = if self.cx.is_lent { conn.marks(self.cx.config.marks).high } else { 0 };
        self.cx.unread = conn.held.as_ref().map_or(0, |held| held.len());
    }

    #[inline]
    pub(crate) fn is_current(&self, index: usize) -> bool {
        self.cx.current == index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, world::OsWorld};
    use std::time::Duration;

    #[test]
    fn an_event_for_the_dead_does_not_reach_the_successor() {
        let world = OsWorld::new(Duration::ZERO).expect("a selector");
        let mut hub = Hub::new(Config::default(), Box::new(world)).expect("a waker");
        let open = |hub: &mut Hub| {
            let key = hub.slots.next_key().expect("room");
            hub.slots.insert(Entry::Stream(Conn::new(key, None, Address::Fd, Time::default())));
            key
        };
        let old = open(&mut hub);
        hub.slots.remove(old.index());
        let new = open(&mut hub);
        assert_eq!(old.index(), new.index());
        let event = |key: Key| Event { token: key.token(), ready: READABLE };
        hub.fold(&[event(old)]);
        assert!(!hub.slots.conn_at(new.index()).is(READABLE));
        assert_eq!(hub.cx.stats.stale_events, 1);
        hub.fold(&[event(new)]);
        assert!(hub.slots.conn_at(new.index()).is(READABLE));
    }
}
