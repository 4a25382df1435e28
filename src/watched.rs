//! What the loop knows of one dispatcher: a source that the program owns, reads and writes itself.

use crate::{key::Key, world::Ready};

pub(crate) struct Watched {
    pub(crate) key: Key,
    /// The selector reports it; otherwise it is always ready, and was reported once.
    pub(crate) is_registered: bool,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    pub(crate) has_priority: bool,
    /// It is not read while one of these connections is congested.
    pub(crate) targets: Vec<Key>,
    pub(crate) is_ending: bool,
    pub(crate) in_ready: bool,
    pub(crate) in_dirty: bool,
    /// How often in a row it said that there is more.
    pub(crate) never_drained: u32,
}

impl Watched {
    pub(crate) fn new(key: Key, is_registered: bool) -> Self {
        let is_always_ready = !is_registered;
        Self {
            key,
            is_registered,
            is_readable: is_always_ready,
            is_writable: is_always_ready,
            has_priority: false,
            targets: Vec::new(),
            is_ending: false,
            in_ready: false,
            in_dirty: false,
            never_drained: 0,
        }
    }

    pub(crate) fn note(&mut self, ready: Ready) {
        self.is_readable |= ready.readable;
        self.is_writable |= ready.writable;
        self.has_priority |= ready.priority;
    }
}
