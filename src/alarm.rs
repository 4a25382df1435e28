//! What other threads wake the loop with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Wakes the loop, and remembers that it was rung: many rings before the loop looks cost one system call.
pub(crate) struct Alarm {
    wake: Arc<dyn Fn() + Send + Sync>,
    is_rung: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { wake, is_rung: AtomicBool::new(false) })
    }

    pub(crate) fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Called by the loop's own thread, which does not sleep: it looks in its next turn.
    pub(crate) fn mark(&self) {
        self.is_rung.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_rung(&self) -> bool {
        self.is_rung.load(Ordering::Acquire)
    }

    /// Call before you look at what may have come: a thread that brings more from here on rings again.
    pub(crate) fn take(&self) -> bool {
        self.is_rung.swap(false, Ordering::AcqRel)
    }
}
