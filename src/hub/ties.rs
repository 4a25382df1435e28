//! How connections are tied to each other beyond a throttle. What a connection owns ends with it. In a pair what one
//! receives goes to the other, and the end of one is the end of the other; no protocol is asked.
//!
//! m = mate(c) ⇔ c = mate(m), and each is throttled by the other unless the program took that back.

use super::Hub;
use crate::{
    cx::Cx,
    endpoint::{Conn, Entry},
    flags::*,
    framing::Input,
    key::Key,
    reason::Reason,
};

/// What is owned.
impl Hub {
    /// The owner's `closed` has not run.
    pub(super) fn own(&mut self, owner: Key, owned: Key) {
        debug_assert!(self.find(owner).is_some(), "who owns something is there");
        self.slots.conn_at_mut(owner.index()).ties().owned.push(owned);
        if let Some(conn) = self.slots.conn_mut(owned) {
            conn.ties().owner = Some(owner);
        }
    }

    pub(super) fn disown(&mut self, owner: Key, owned: Key) {
        if let Some(ties) = self.slots.conn_mut(owner).and_then(|conn| conn.extra.as_mut()?.ties.as_mut()) {
            ties.owned.retain(|&key| key != owned);
        }
    }

    fn end_owned(&mut self, owned: Key) {
        match self.slots.get_mut(owned) {
            Some(Entry::Listener(listening)) => {
                listening.options.owner = None;
                self.end(owned, Reason::Finish);
            }
            Some(Entry::Conn(conn)) => {
                conn.ties().owner = None;
                self.abort_if_open(owned);
            }
            _ => {}
        }
    }
}

/// Pairs.
impl Hub {
    /// Returns whether both are open, and neither has another mate.
    pub(crate) fn join(&mut self, a: Key, b: Key) -> bool {
        let is_free = |key, other| {
            let conn = self.find_open(key);
            conn.is_some_and(|conn| conn.mate().is_none_or(|mate| mate == other))
        };
        if a == b || !is_free(a, b) || !is_free(b, a) {
            return false;
        }
        for (key, mate) in [(a, b), (b, a)] {
            self.pair(key).0.ties().mate = Some(mate);
            self.tie_reading(key, mate);
        }
        for (key, mate) in [(a, b), (b, a)] {
            if self.slots.conn_at(key.index()).is(EOF_TOLD) {
                self.half_close(mate);
            }
        }
        true
    }

    /// A successor is paired with what its predecessor was paired with, too.
    pub(crate) fn tie_reading_anew(&mut self, key: Key) {
        if let Some(mate) = self.slots.conn_at(key.index()).mate() {
            self.tie_reading(key, mate);
        }
    }

    /// It is read while its mate can take it, and for no other reason: the two directions do not wait for each other.
    fn tie_reading(&mut self, key: Key, mate: Key) {
        self.throttle(key, mate);
        self.lend(key, |conn, cx| {
            conn.set_if(MAY_HAVE_FRAME, conn.held.is_some()); // it goes another way from now on
            conn.set_hold_back(false, cx);
        });
    }

    /// What was received goes to the mate, as much as that takes before it is congested; the rest waits like any input of a
    /// throttled connection.
    pub(crate) fn forward(&mut self, from: Key, to: Key, input: &mut Input) {
        let is_lost = self.slots.conn_at(from.index()).is(LOST);
        let all = input.unread();
        let forward = |conn: &mut Conn, cx: &mut Cx| match conn.room_below_high(cx.config.marks) {
            0 if is_lost => None,
            0 => {
                conn.send(all, cx); // the program took the throttle back: the cap decides
                Some(all.len())
            }
            room => {
                let some = &all[..all.len().min(room)];
                conn.send_below_high(some, cx);
                Some(some.len())
            }
        };
        let taken = match self.find_open(to) {
            Some(_) => self.lend(to, forward),
            None => Some(all.len()), // nobody is to have it any more
        };
        input.consume(taken.unwrap_or(all.len()));
        if self.find_open(to).is_some_and(Conn::has_lost_writer) {
            self.lend(from, |conn, cx| conn.set_paused(PAUSED, true, cx)); // more of it would be lost too
        }
        if taken.is_none() {
            // It breaks off, and its mate with it: nothing is passed on behind this, and no end either.
            self.lend(from, Conn::end_lost_now);
        }
        let (conn, cx) = self.pair(from);
        conn.put(MAY_HAVE_FRAME, !input.is_empty());
        cx.lent.unread = input.len();
    }

    /// The peer of one has ended: so does our side of the other, behind what it was sent.
    pub(crate) fn pass_end_on(&mut self, key: Key) {
        if let Some(mate) = self.slots.conn_at(key.index()).mate() {
            self.half_close(mate);
        }
    }

    fn half_close(&mut self, key: Key) {
        self.lend_if_open(key, |conn, cx| {
            conn.half_close(cx);
            true
        });
    }
}

/// The end.
impl Hub {
    /// It has ended: so does its mate, and what it owns.
    pub(super) fn untie(&mut self, key: Key, is_clean: bool) {
        let Some(ties) = self.slots.conn_mut(key).and_then(|conn| conn.extra.as_mut()?.ties.as_mut()) else { return };
        let (mate, owner, owned) = (ties.mate.take(), ties.owner.take(), std::mem::take(&mut ties.owned));
        if let Some(mate) = mate {
            self.lose_mate(mate, is_clean);
        }
        if let Some(owner) = owner {
            self.disown(owner, key);
        }
        for owned in owned {
            self.end_owned(owned);
        }
    }

    /// It ends as its mate has; but one that has begun to end by itself goes on with that.
    fn lose_mate(&mut self, key: Key, is_clean: bool) {
        let Some(conn) = self.slots.conn_mut(key) else { return };
        conn.ties().mate = None;
        if is_clean {
            self.lend_if_open(key, Conn::close);
        } else {
            self.abort_if_open(key);
        }
    }

    fn abort_if_open(&mut self, key: Key) {
        self.lend_if_open(key, |conn: &mut Conn, cx: &mut Cx| conn.abort(cx));
    }
}
