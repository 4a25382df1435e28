//! The watchdog, and the figures: what this reactor has done, what it holds.

use super::Hub;
use crate::{
    endpoint::Entry,
    flags::*,
    key::Key,
    records::{Cause, Manner},
    stats::{Connection, Stats},
    world::Stream,
};

/// A connection that was ready this often and got nowhere is named in the log.
const IN_VAIN_MAX: u8 = u8::MAX - 1;

impl Hub {
    /// Before a callback: counts it, and looks at the clock if somebody wants to know.
    #[inline]
    pub(crate) fn begin_timing(&mut self) {
        self.cx.stats.callbacks += 1;
        if self.cx.clock.is_timed {
            self.cx.clock.began = self.cx.world.now();
        }
    }

    /// After one.
    #[inline]
    pub(crate) fn end_timing(&mut self, key: Option<Key>, protocol: &'static str, callback: &'static str) {
        if self.cx.clock.is_timed {
            (self.look_at_clock)(self, key, protocol, callback);
        }
    }

    /// If there is a bound for it. The code that makes a config of its own names this, so that a program without one links
    /// nothing of it.
    pub(crate) fn time_callbacks(&mut self) {
        self.cx.clock.is_timed = self.cx.config.turn_time.is_some() || self.cx.config.watchdog.is_some();
        self.look_at_clock = Self::look_at_clock;
    }

    /// Takes the time of a callback off its share of the turn, and names it if it was too long.
    fn look_at_clock(&mut self, key: Option<Key>, protocol: &'static str, callback: &'static str) {
        let took = self.cx.world.now().since(self.cx.clock.began);
        self.cx.spend(took);
        let Some(most) = self.cx.config.watchdog else { return };
        let stats = &mut self.cx.stats;
        if took > stats.longest_callback {
            (stats.longest_callback, stats.longest_callback_of, stats.longest_callback_name) = (took, protocol, callback);
        }
        if took <= most {
            return;
        }
        let conn = key.and_then(|key| self.slots.conn(key));
        let listener = match key.and_then(|key| self.slots.get(key)) {
            Some(Entry::Conn(conn)) => conn.listener,
            Some(Entry::Listener(listening)) => Some(listening.key),
            _ => None,
        };
        let listener = if key.is_some() { listener } else { Some(Key::NOBODY) };
        let manner = self.cx.manner(listener, Cause::Slow(callback), log::Level::Warn);
        let text = format!("was {took:?} in `{callback}`: all others waited{manner}");
        match (key, conn) {
            (Some(key), Some(conn)) => log::log!(target: "mainspring", manner.level, "{key} {} {protocol} {text}", conn.peer),
            (Some(key), None) => log::log!(target: "mainspring", manner.level, "{key} {protocol} {text}"),
            (None, _) => log::log!(target: "mainspring", manner.level, "{callback} took {took:?}: all others waited{manner}"),
        }
    }

    /// How something that its peer may have caused is to be logged.
    pub(crate) fn manner(&mut self, key: Key, cause: Cause, level: log::Level) -> Manner {
        let listener = self.slots.conn(key).and_then(|conn| conn.listener);
        self.cx.manner(listener, cause, level)
    }

    /// After a turn of a connection: if no byte moved and no callback ran, and it is ready again nevertheless, it spins.
    /// This is said once, after a number of such turns in a row.
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
        let heard = conn.stream.as_ref().map_or(0, Stream::heard); // also what is TLS' own
        conn.bytes_in.wrapping_add(conn.bytes_out).wrapping_add(heard).wrapping_add(self.cx.stats.callbacks)
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.cx.stats.clone();
        stats.connections = self.counts.accepted + self.counts.opened;
        stats.lingering = self.cx.lingering_now;
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
        self.slots.keys().filter_map(|key| self.slots.get(key)?.describe(now, name(key))).collect()
    }
}
