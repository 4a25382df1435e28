//! The watchdog, and the figures: what this reactor has done, what it holds.

use super::Hub;
use crate::{
    endpoint::{Conn, Entry, Phase},
    flags::*,
    key::Key,
    stats::{Connection, Kind, Stats, timeouts},
    time::Time,
};
use std::time::Duration;

/// A connection that was ready so often and got nowhere is named in the log.
const IN_VAIN_MAX: u8 = u8::MAX - 1;

impl Hub {
    /// Before a callback: counts it, and looks at the clock if the watchdog is on.
    #[inline]
    pub(crate) fn begin_callback(&mut self) -> Option<Time> {
        self.cx.stats.callbacks += 1;
        self.cx.config.watchdog.map(|_| self.cx.world.now())
    }

    /// After one that the watchdog has timed: names it if it took too long.
    pub(crate) fn end_callback(&mut self, key: Option<Key>, protocol: &str, callback: &str, began: Time) {
        let took = self.cx.world.now().since(began);
        self.cx.stats.longest_callback = self.cx.stats.longest_callback.max(took);
        if self.cx.config.watchdog.is_some_and(|most| took > most) {
            match key.map(|key| (key, self.slots.conn(key).map(|conn| &conn.peer))) {
                Some((key, Some(peer))) => {
                    log::warn!(target: "mainspring", "{key} {peer} {protocol} was {took:?} in `{callback}`: all others waited");
                }
                Some((key, None)) => {
                    log::warn!(target: "mainspring", "{key} {protocol} was {took:?} in `{callback}`: all others waited")
                }
                None => log::warn!(target: "mainspring", "{callback} took {took:?}: all others waited"),
            }
        }
    }

    /// After a turn of a connection: if no byte moved and no callback ran, and it is ready again nevertheless, it spins.
    /// Said once, after so many turns in a row.
    pub(crate) fn gets_nowhere(&mut self, key: Key, before: u64) -> bool {
        let has_progressed = before != self.progress(key);
        let conn = self.slots.conn_at_mut(key.index());
        if has_progressed || !conn.is(IN_READY) {
            conn.in_vain = 0;
            return false;
        }
        conn.in_vain = conn.in_vain.saturating_add(1);
        conn.in_vain == IN_VAIN_MAX
    }

    /// Changes whenever something was achieved.
    #[inline]
    pub(crate) fn progress(&self, key: Key) -> u64 {
        let conn = self.slots.conn_at(key.index());
        conn.bytes_in.wrapping_add(conn.bytes_out).wrapping_add(self.cx.stats.callbacks)
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.cx.stats.clone();
        stats.connections = self.counts.accepted + self.counts.opened;
        stats.lingering = self.lingering_now;
        stats.timers = self.cx.timers.len();
        for conn in self.slots.conns() {
            stats.bytes_in += conn.bytes_in;
            stats.bytes_out += conn.bytes_out;
            stats.queued += conn.queued();
        }
        stats
    }

    pub(crate) fn connections(&self, name: impl Fn(Key) -> &'static str) -> Vec<Connection> {
        let now = self.cx.world.now();
        let describe = |key: Key| match self.slots.get(key)? {
            Entry::Conn(conn) => Some(describe_stream(conn, now.since(conn.born), name(key))),
            Entry::Listener(listening) => Some(Connection::new(key, Kind::Listener, name(key), listening.local.clone())),
            Entry::Dispatcher(_) => Some(Connection::new(key, Kind::Dispatcher, name(key), crate::address::Address::Fd)),
            Entry::Retired => None,
        };
        self.slots.keys().filter_map(describe).collect()
    }
}

fn describe_stream(conn: &Conn, age: Duration, name: &'static str) -> Connection {
    let kind = match (conn.phase, conn.listener) {
        (Phase::Lingering, _) => Kind::Lingering,
        (_, Some(_)) => Kind::Accepted,
        (_, None) => Kind::Opened,
    };
    Connection {
        age,
        bytes_in: conn.bytes_in,
        bytes_out: conn.bytes_out,
        queued: conn.queued(),
        unread: conn.held.as_ref().map_or(0, |held| held.len()),
        is_connected: conn.is(ESTABLISHED),
        is_ending: !matches!(conn.phase, Phase::Guest | Phase::Open),
        is_paused: conn.is(PAUSED),
        is_congested: conn.is(CONGESTED),
        terminator: conn.framing.name(),
        timeouts: conn.extra.as_ref().map(|extra| timeouts(&extra.clocks)).unwrap_or_default(),
        ..Connection::new(conn.key, kind, name, conn.peer.clone())
    }
}
