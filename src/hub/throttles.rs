//! Connections and dispatchers that read only while some other connections are not congested.
//!
//! A reader knows its targets, a target its readers: w ∈ targets(r) ⇔ r ∈ readers(w). A reader has `THROTTLED` exactly while
//! one of its targets has `CONGESTED`.

use super::Hub;
use crate::{endpoint::Entry, flags::*, key::Key};

impl Hub {
    pub(crate) fn throttle(&mut self, reader: Key, writer: Key) -> bool {
        if self.find_open(writer).is_none() {
            return false;
        }
        let Some(targets) = self.slots.get_mut(reader).filter(|entry| entry.is_open()).and_then(Entry::targets_mut) else {
            return false;
        };
        if targets.contains(&writer) {
            return true;
        }
        targets.push(writer);
        self.slots.conn_at_mut(writer.index()).ties().readers.push(reader);
        self.targets_changed(reader);
        true
    }

    pub(crate) fn unthrottle(&mut self, reader: Key, writer: Key) {
        let Some(targets) = self.slots.get_mut(reader).and_then(Entry::targets_mut) else { return };
        targets.retain(|&key| key != writer);
        if let Some(conn) = self.slots.conn_mut(writer) {
            conn.lose_reader(reader, &mut self.cx);
        }
        self.targets_changed(reader);
    }

    /// Before a connection's slot is free, or when it lingers: nothing depends on it, and it depends on nothing.
    pub(super) fn forget_throttles(&mut self, key: Key) {
        self.forget_targets(key);
        let extra = &mut self.slots.conn_at_mut(key.index()).extra;
        let Some(ties) = extra.as_mut().and_then(|extra| extra.ties.as_mut()) else { return };
        for reader in std::mem::take(&mut ties.readers) {
            self.unthrottle(reader, key);
        }
    }

    /// A connection does not depend on any other any more.
    pub(crate) fn forget_targets(&mut self, key: Key) {
        let conn = self.slots.conn_at_mut(key.index());
        conn.clear(THROTTLED);
        let Some(ties) = conn.extra.as_mut().and_then(|extra| extra.ties.as_mut()) else { return };
        let targets = std::mem::take(&mut ties.targets);
        self.forget_reader(key, &targets);
    }

    pub(super) fn forget_reader(&mut self, reader: Key, targets: &[Key]) {
        for &target in targets {
            if let Some(conn) = self.slots.conn_mut(target) {
                conn.lose_reader(reader, &mut self.cx);
            }
        }
    }

    fn targets_changed(&mut self, reader: Key) {
        self.cx.lent.interrupt = true;
        self.put_throttled(reader);
        if reader.index() != self.cx.lent.to {
            self.mark_dirty(reader);
        }
    }

    /// One of its targets is congested now, or is not any more.
    pub(super) fn look_at_throttles(&mut self, reader: Key) {
        self.put_throttled(reader);
        self.mark_dirty(reader);
    }

    fn put_throttled(&mut self, reader: Key) {
        let Some(targets) = self.slots.get(reader).map(Entry::targets) else { return };
        let is_throttled = self.is_any_congested(targets);
        if let Some(entry) = self.slots.get_mut(reader) {
            entry.flags_mut().put(THROTTLED, is_throttled);
        }
    }

    pub(super) fn is_any_congested(&self, targets: &[Key]) -> bool {
        targets.iter().any(|&target| self.slots.conn(target).is_some_and(|conn| conn.is(CONGESTED)))
    }
}
