//! What the loop knows of one dispatcher: a source that the program owns, reads and writes itself.

use crate::{cx::Cx, flags::*, key::Key, world::Source};
use std::io;

/// A dispatcher that says so often in a row that there is more is named in the log.
const NEVER_DRAINED_MAX: u32 = 100_000;

pub(crate) struct Dispatching {
    pub(crate) key: Key,
    /// The selector reports it; otherwise it is always ready, and was reported once.
    pub(crate) is_registered: bool,
    /// Of `READABLE`, `WRITABLE` and `PRIORITY`: what it has not yet said to be drained. And `THROTTLED`, `IN_READY`,
    /// `IN_DIRTY`, `SHUT`.
    pub(crate) flags: Flags,
    /// It is not read while one of these connections is congested.
    pub(crate) targets: Vec<Key>,
    /// How often in a row it said that there is more.
    never_drained: u32,
}

impl Dispatching {
    pub(crate) fn new(key: Key, is_registered: bool) -> Self {
        let mut flags = Flags::default();
        flags.insert_if(READABLE | WRITABLE, !is_registered);
        Self { key, is_registered, flags, targets: Vec::new(), never_drained: 0 }
    }

    /// What is to be told to it.
    pub(crate) fn ready(&self) -> Flags {
        let ready = self.flags.only(READABLE | WRITABLE | PRIORITY);
        match () {
            () if self.flags.has_any(SHUT) => Flags::default(),
            () if self.flags.has_any(THROTTLED) => ready.without(READABLE),
            () => ready,
        }
    }

    /// It has met `WouldBlock`: nothing more until the next edge.
    pub(crate) fn drained(&mut self, what: Flags, source: Source<'_>, cx: &mut Cx) -> io::Result<()> {
        self.never_drained = 0;
        self.flags.remove(what);
        if self.is_registered && !self.flags.has_any(SHUT) { cx.world.drained(source, self.key.token()) } else { Ok(()) }
    }

    /// It says that there is more.
    pub(crate) fn not_drained(&mut self, protocol: &str) {
        self.never_drained = self.never_drained.saturating_add(1);
        if self.never_drained == NEVER_DRAINED_MAX {
            let key = self.key;
            log::warn!(target: "mainspring", "{key} {protocol} has said {NEVER_DRAINED_MAX} times in a row that there is more");
        }
    }
}
