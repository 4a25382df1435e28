//! What the loop knows of one dispatcher: a source that the program owns, reads and writes itself.

use crate::{flags::*, key::Key};

pub(crate) struct Watched {
    pub(crate) key: Key,
    /// The selector reports it; otherwise it is always ready, and was reported once.
    pub(crate) is_registered: bool,
    /// Of `READABLE`, `WRITABLE` and `PRIORITY`: what it has not yet said to be drained.
    pub(crate) ready: Flags,
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
        let mut ready = Flags::default();
        ready.insert_if(READABLE | WRITABLE, !is_registered);
        Self {
            key,
            is_registered,
            ready,
            targets: Vec::new(),
            is_ending: false,
            in_ready: false,
            in_dirty: false,
            never_drained: 0,
        }
    }

    /// Only what it is told of: an error makes it readable and writable.
    pub(crate) fn note(&mut self, ready: Flags) {
        self.ready.insert(ready.without(READ_ON | FAILED));
    }
}
