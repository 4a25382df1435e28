//! Asking all to finish, and ending all.

use super::Hub;
use crate::{
    endpoint::{Entry, Phase},
    flags::*,
    key::Key,
    reason::Reason,
    stats::Kind,
};

impl Hub {
    /// Listeners close, accepted connections are asked to finish.
    pub(crate) fn ask_to_drain(&mut self) {
        for key in self.slots.all_keys() {
            match self.slots.get(key).and_then(Entry::kind) {
                Some(Kind::Listener) => _ = self.end(key, Reason::Finish),
                Some(Kind::Accepted) => self.owe_draining(key),
                _ => {}
            }
        }
    }

    pub(crate) fn ask_opened_to_drain(&mut self) {
        for key in self.slots.all_keys() {
            self.owe_draining(key);
        }
    }

    fn owe_draining(&mut self, key: Key) {
        self.lend_if_there(key, |conn, cx| {
            if matches!(conn.phase, Phase::Guest | Phase::Open) {
                conn.set(OWES_DRAINING);
                conn.mark_dirty(cx);
            }
        });
    }

    /// Everything that has not begun to end does now, connections first.
    pub(crate) fn end_all(&mut self, why: fn() -> Reason) {
        let (conns, rest): (Vec<Key>, Vec<Key>) =
            self.slots.all_keys().into_iter().partition(|&key| self.slots.conn(key).is_some());
        for key in conns.into_iter().chain(rest) {
            self.end(key, why());
        }
    }
}
