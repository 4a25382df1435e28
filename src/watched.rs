//! What the loop knows of one dispatcher: a source that the program owns, reads and writes itself.

use crate::{flags::*, key::Key};

pub(crate) struct Watched {
    pub(crate) key: Key,
    /// The selector reports it; otherwise it is always ready, and was reported once.
    pub(crate) is_registered: bool,
    /// Of `READABLE`, `WRITABLE` and `PRIORITY`: what it has not yet said to be drained. And `IN_READY`, `IN_DIRTY`, `SHUT`.
    pub(crate) flags: Flags,
    /// It is not read while one of these connections is congested.
    pub(crate) targets: Vec<Key>,
    /// How often in a row it said that there is more.
    pub(crate) never_drained: u32,
}

impl Watched {
    pub(crate) fn new(key: Key, is_registered: bool) -> Self {
        let mut ready = Flags::default();
        ready.insert_if(READABLE | WRITABLE, !is_registered);
        Self { key, is_registered, flags: ready, targets: Vec::new(), never_drained: 0 }
    }
}
