//! Sockets that stay after `closed`, without a protocol and without a key, until their peers have received everything.

use super::Hub;
use crate::{
    endpoint::{Conn, Phase},
    flags::*,
    framing::ReadBuffers,
    key::Key,
    reason::{Limit, Reason},
    room::Room,
};

impl Hub {
    pub(super) fn linger(&mut self, key: Key) {
        self.forget_throttles(key);
        if self.cx.config.lingering_max == 0 {
            return self.free(key);
        }
        let was_guest = self.slots.conn_at(key.index()).phase == Phase::Guest;
        if was_guest {
            self.lingering.push_front(key); // a flood of refused clients must not reset one that reads a last answer
        } else {
            self.lingering.push_back(key);
        }
        self.cx.lingering_now += 1;
        self.lend(key, Conn::begin_to_linger);
        if self.cx.lingering_now > self.cx.config.lingering_max {
            self.reset_first_lingering();
        }
        if self.lingering.len() > 64 + 2 * self.cx.lingering_now {
            let slots = &self.slots;
            self.lingering.retain(|&key| slots.conn(key).is_some());
            self.lingering.give_back();
        }
        self.lend_if_there(key, |conn, cx| {
            let _ = conn.finish_lingering_output(); // it may be lost
            conn.settle(cx);
        });
    }

    /// Makes room for a connection that is alive; returns whether there was a lingering one.
    pub(super) fn reset_first_lingering(&mut self) -> bool {
        while let Some(key) = self.lingering.pop_front() {
            if let Some(conn) = self.slots.conn_mut(key) {
                conn.set(CUT);
                self.free(key);
                return true;
            }
        }
        false
    }

    /// Whether the program is to go on until the peers of lingering sockets have received everything. Not beyond the grace
    /// of a drain.
    pub(crate) fn waits_for_lingering(&self) -> bool {
        self.cx.lingering_now > 0 && self.cx.config.waits_for_lingering && !self.cx.is_shut
    }

    /// One turn of a lingering socket.
    pub(crate) fn serve_lingering(&mut self, key: Key, buffers: &mut ReadBuffers) {
        let is_over = self.lend(key, |conn, cx| conn.serve_lingering(buffers, cx));
        buffers.clear(); // what came for it belongs to nobody
        if is_over {
            self.free(key);
        }
    }

    /// Its peer took nothing, or did not end, for too long.
    pub(crate) fn linger_is_over(&mut self, key: Key) {
        let conn = self.slots.conn_at_mut(key.index());
        if conn.phase == Phase::Lingering {
            conn.set(CUT);
            self.free(key);
        } else {
            self.end(key, Reason::Limit(Limit::Linger));
        }
    }

    /// Sockets without a handler go at once.
    pub(crate) fn free_lingering(&mut self) {
        for key in std::mem::take(&mut self.lingering) {
            if self.slots.conn(key).is_some() {
                self.free(key);
            }
        }
    }
}
