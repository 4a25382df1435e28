//! Draining: asking everything to finish, stage by stage, and ending everything.

use super::{Counts, Hub};
use crate::{
    endpoint::{Conn, Entry},
    key::Key,
    reason::Reason,
    stats::{Kind, Stats},
    timers::TimerKind,
};
use std::time::Duration;

/// How far draining has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Accepted connections finish.
    Accepted,
    /// Those that we opened for them finish too.
    Opened,
    /// Nothing is left but what is not a connection: that ends.
    Rest,
    /// Nothing is left but datagram sockets, which all others may have used for answers to the last: these finish.
    Datagrams,
}

impl Hub {
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Returns whether this is its beginning, and not another grace.
    pub(crate) fn begin_drain(&mut self, grace: Duration) -> bool {
        let deadline = self.cx.world.now() + grace;
        if let Some(previous) = self.grace.replace(self.cx.timers.set(deadline, TimerKind::Grace)) {
            self.cx.timers.cancel(previous);
        }
        if self.drain.is_some() {
            return false;
        }
        self.drain = Some(Drain::Accepted);
        let Counts { accepted, opened, .. } = self.counts;
        (self.cx.stats.to_drain, self.cx.stats.undrained) = (accepted + opened, 0);
        log::info!(target: "mainspring", "draining {accepted} accepted and {opened} opened connections, {grace:?} at most");
        self.ask_to_drain();
        true
    }

    /// What is left has to end now, and nothing is opened any more.
    pub(crate) fn end_grace(&mut self) {
        self.grace = None;
        self.drain = Some(Drain::Rest);
        self.cx.is_shut = true;
        let left = self.counts.accepted + self.counts.opened;
        self.cx.stats.undrained = left;
        if left > 0 {
            log::warn!(target: "mainspring", "the grace of the drain is over, and {left} connections are left: they end now");
        }
    }

    /// Nothing is left, and the reactor may be used again.
    pub(crate) fn start_afresh(&mut self) {
        if self.drain.take().is_some() {
            let Stats { to_drain, undrained, .. } = self.cx.stats;
            let ended = to_drain.saturating_sub(undrained);
            log::info!(target: "mainspring", "drained: {ended} of {to_drain} connections ended in time");
        }
        self.cx.is_shut = false;
        if let Some(grace) = self.grace.take() {
            self.cx.timers.cancel(grace);
        }
    }

    /// Goes to the next stage once the present one has nothing left; through all of them at once, because nothing would wake
    /// the loop in between.
    pub(crate) fn advance_drain(&mut self, has_work_elsewhere: bool) {
        let Counts { accepted, opened, .. } = self.counts;
        if self.drain == Some(Drain::Accepted) && accepted == 0 && !self.some_still_wait() {
            self.drain = Some(Drain::Opened);
            self.ask_opened_to_drain();
        }
        if self.drain == Some(Drain::Opened) && accepted + opened == 0 && !has_work_elsewhere {
            self.drain = Some(Drain::Rest);
        }
        if matches!(self.drain, Some(Drain::Rest | Drain::Datagrams)) && accepted + opened == 0 {
            self.end_all_but_datagrams(|| Reason::Shutdown, false); // also what `closed` has opened meanwhile
        }
        if self.drain == Some(Drain::Rest) && self.counts.has_datagrams_alone() {
            self.drain = Some(Drain::Datagrams);
            self.ask_datagrams_to_drain();
        }
        if self.drain == Some(Drain::Datagrams) && self.cx.is_shut && self.counts.has_datagrams_alone() {
            self.end_all_datagrams();
        }
    }

    /// Whether one that is bound now is asked to finish at once.
    pub(super) fn drains_datagrams(&self) -> bool {
        self.drain == Some(Drain::Datagrams)
    }

    fn ask_datagrams_to_drain(&mut self) {
        for key in self.slots.all_keys() {
            self.owe_datagrams_draining(key);
        }
    }

    /// Whether those that we open now are asked to finish at once.
    pub(crate) fn drains_opened(&self) -> bool {
        self.drain.is_some_and(|stage| stage != Drain::Accepted)
    }

    /// Listeners close once the clients that wait were accepted; accepted connections are asked to finish.
    fn ask_to_drain(&mut self) {
        for key in self.slots.all_keys() {
            match self.slots.get(key).and_then(Entry::kind) {
                Some(Kind::Listener) => self.end_listener_when_drained(key),
                Some(Kind::Accepted) => self.owe_draining(key),
                _ => {}
            }
        }
    }

    /// A listener that belongs to a connection is part of what is under way there.
    fn end_listener_when_drained(&mut self, key: Key) {
        match self.slots.listener(key) {
            Some(listening) if listening.options.owner.is_some() => return,
            Some(listening) => listening.begin_to_drain(),
            None => {}
        }
        self.requeue(key);
        self.end_listener_if_drained(key);
    }

    /// Ends it once there is no client left to wait for that had come before the drain.
    pub(crate) fn end_listener_if_drained(&mut self, key: Key) {
        if self.slots.listener(key).is_some_and(|listening| listening.is_drained()) {
            self.end(key, Reason::Finish);
        }
    }

    /// Whether a listener still accepts those who had come before the drain.
    fn some_still_wait(&self) -> bool {
        let waits = |entry: &Entry| matches!(entry, Entry::Listener(listening) if listening.is_draining());
        self.slots.keys().any(|key| self.slots.get(key).is_some_and(waits))
    }

    fn ask_opened_to_drain(&mut self) {
        for key in self.slots.all_keys() {
            self.owe_draining(key);
        }
    }

    pub(crate) fn owe_draining(&mut self, key: Key) {
        self.lend_if_there(key, Conn::owe_draining);
    }

    /// Nothing is under way at it, nor at what is tied to it by a throttle: what one has just sent may not be all that the
    /// other has to say.
    pub(super) fn close_if_quiet(&mut self, key: Key) {
        let is_quiet = |key: Key| self.slots.conn(key).is_none_or(|conn| conn.is_quiet(&self.cx));
        let Some(conn) = self.find_open(key).filter(|conn| conn.closes_when_quiet()) else { return };
        if is_quiet(key) && conn.known_ties().is_none_or(|ties| ties.throttled().all(is_quiet)) {
            let (conn, cx) = self.pair(key);
            conn.begin_to_close(cx);
        }
    }

    /// Everything that has not begun to end does so now, connections first; datagram sockets when they are all that is left,
    /// because others may use them for answers in their `closed`: call it again then. `with_background`: also what nobody
    /// waits for.
    pub(crate) fn end_all(&mut self, why: fn() -> Reason, with_background: bool) {
        self.end_all_but_datagrams(why, with_background);
        if self.counts.has_datagrams_alone() {
            self.end_all_datagrams();
        }
    }

    fn end_all_but_datagrams(&mut self, why: fn() -> Reason, with_background: bool) {
        let stays = |key: Key| match self.slots.get(key) {
            Some(Entry::Datagrams(_)) => true,
            Some(Entry::Dispatcher(dispatching)) => dispatching.is_background && !with_background,
            _ => false,
        };
        let others = self.slots.all_keys().into_iter().filter(|&key| !stays(key));
        let (conns, rest): (Vec<Key>, Vec<Key>) = others.partition(|&key| self.slots.conn(key).is_some());
        #[cfg(feature = "tls")]
        let conns = self.without_guests(conns);
        for key in conns.into_iter().chain(rest) {
            self.end(key, why());
        }
    }

    fn end_all_datagrams(&mut self) {
        for key in self.slots.all_keys() {
            if self.slots.datagrams(key).is_some() {
                self.end(key, Reason::Shutdown);
            }
        }
    }
}
