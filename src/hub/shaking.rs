//! TLS between a listener and the clients that it accepts: no protocol is made for a guest before both sides have agreed.

use super::Hub;
use crate::{
    endpoint::{Conn, Phase, Shaken},
    flags::*,
    key::Key,
    reason::Reason,
    tls::{TlsError, TlsStage},
};

impl Hub {
    /// A guest has just been accepted: returns whether it has to agree on TLS before a protocol is made for it.
    pub(crate) fn shakes_first(&mut self, guest: Key, listener: Key) -> bool {
        let Some(listening) = self.slots.listener(listener) else { return false };
        let Some(server) = listening.options.tls.clone() else { return false };
        listening.shaking += 1;
        let is_draining = listening.is_draining();
        self.lend(guest, |conn, cx| {
            conn.begin_as_guest(server, cx);
            if is_draining {
                conn.owe_draining(cx);
            }
        });
        true
    }

    /// Whether its turn is put off until all others have had theirs.
    pub(crate) fn puts_off_shaking(&mut self, key: Key) -> bool {
        let (conn, cx) = self.pair(key);
        let waits = conn.is(SHAKING) && !conn.is(ESTABLISHED) && !cx.shakes_now;
        if waits {
            conn.set(IN_READY); // it has its turn; code that touches it until then must not queue it for another
            cx.lists.shaking.push(key);
        }
        waits
    }

    /// One step of a guest's handshake; returns its listener, once it can be let in.
    pub(crate) fn serve_guest(&mut self, guest: Key) -> Option<Key> {
        let listener = self.slots.conn_at(guest.index()).listener?;
        if self.slots.listener(listener).is_none_or(|listening| listening.socket.is_none()) {
            self.turn_away_guest(guest, None); // it has ended: no protocol would be made for this guest
            return None;
        }
        match self.lend(guest, Conn::shake) {
            Shaken::Waits => {
                self.requeue(guest);
                None
            }
            Shaken::Done => {
                self.lend(guest, Conn::end_of_connecting);
                self.has_shaken(listener);
                Some(listener)
            }
            Shaken::Failed(error) => {
                self.turn_away_guest(guest, Some(&error));
                None
            }
        }
    }

    /// Returns whether this was a guest. Its handshake took too long, unless it was only a drain that did not wait for its
    /// first word.
    pub(crate) fn guest_timed_out(&mut self, key: Key) -> bool {
        let (conn, cx) = self.pair(key);
        if conn.phase != Phase::Guest {
            return false;
        }
        if !conn.has_more_time(cx) {
            let error = conn.shaking_took_too_long();
            self.turn_away_guest(key, Some(&error));
        }
        true
    }

    /// It is not let in. An alert is given time to arrive: a reset would destroy it.
    pub(super) fn turn_away_guest(&mut self, guest: Key, error: Option<&TlsError>) {
        let conn = self.slots.conn_at(guest.index());
        let listener = conn.listener;
        if let Some(error) = error {
            self.cx.stats.handshakes_failed += 1;
            log::debug!(target: "mainspring", "{guest} {} refused: could not agree on TLS: {error}", conn.peer);
        }
        self.uncount_guest(guest);
        let is_heard = error.is_some_and(|error| !matches!(error.stage, TlsStage::Cut | TlsStage::TimedOut));
        self.lend(guest, |conn, cx| {
            conn.end_of_connecting(cx);
            conn.clear(SHAKING);
            conn.set_if(ESTABLISHED | READABLE | WRITABLE, is_heard);
            conn.set_if(CUT, error.is_none()); // as the kernel does with clients that nobody has accepted
        });
        if is_heard {
            self.linger(guest);
        } else {
            self.free(guest);
        }
        if let Some(listener) = listener {
            self.has_shaken(listener);
            self.end_listener_if_done(listener);
        }
    }

    fn has_shaken(&mut self, listener: Key) {
        if let Some(listening) = self.slots.listener(listener) {
            listening.shaking -= 1;
        }
    }

    /// Guests that have only knocked do not count yet, and go without a word.
    pub(super) fn without_guests(&mut self, conns: Vec<Key>) -> Vec<Key> {
        let is_guest = |key: &Key| self.slots.conn(*key).is_some_and(|conn| conn.phase == Phase::Guest);
        let (guests, others): (Vec<Key>, Vec<Key>) = conns.into_iter().partition(is_guest);
        for guest in guests {
            self.turn_away_guest(guest, None);
        }
        others
    }

    /// It has ended: no protocol would be made for guests that are in the middle of the handshake, and each of them goes in
    /// its turn.
    pub(super) fn wake_guests_of(&mut self, listener: Key) {
        if self.slots.listener(listener).is_none_or(|listening| listening.shaking == 0) {
            return;
        }
        for key in self.slots.all_keys() {
            let is_its = |conn: &Conn| conn.phase == Phase::Guest && conn.is(SHAKING) && conn.listener == Some(listener);
            if let Some(conn) = self.slots.conn_mut(key).filter(|conn| is_its(conn)) {
                conn.set(READABLE);
                self.requeue(key);
            }
        }
    }

    /// All guests that it was to accept are let in, or sent away.
    pub(crate) fn end_listener_if_done(&mut self, listener: Key) {
        let is_done = self.slots.listener(listener).is_some_and(|listening| listening.has_had_enough() && listening.shaking == 0);
        if is_done {
            self.end(listener, Reason::Finish);
        }
        self.end_listener_if_drained(listener);
    }
}
