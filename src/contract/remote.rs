//! Into the loop from any other thread.

use super::Net;
use crate::{
    alarm::Alarm,
    mailbox::{Letters, Mailbox},
};
use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

/// A job of another thread.
pub(super) type RemoteJob<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S) + Send>;

/// Posts jobs into a reactor, from any thread. While one exists, [`run`](crate::Reactor::run) does not end by itself.
///
/// Jobs of one thread run in the order in which they were posted, each between callbacks. Many posts are one wake-up.
pub struct Remote<S = ()> {
    mailbox: Arc<Mailbox<RemoteJob<S>>>,
    /// Counts the remotes. An option so that it goes before the loop is told to look.
    alive: Option<Arc<()>>,
}

/// The reactor does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor does not exist any more")
    }
}

impl Error for Gone {}

impl<S> Remote<S> {
    /// Runs `job` on the loop's thread, soon.
    ///
    /// # Errors
    /// [`Gone`] once the reactor was dropped. `Ok` is no promise that it runs: the reactor may be dropped before.
    pub fn post(&self, job: impl FnOnce(&mut Net<'_, S>, &mut S) + Send + 'static) -> Result<(), Gone> {
        if self.mailbox.post(Box::new(job)) { Ok(()) } else { Err(Gone) }
    }

    /// Has [`run`](crate::Reactor::run) return: [`Net::stop`] from another thread.
    ///
    /// # Errors
    /// [`Gone`] once the reactor was dropped.
    pub fn stop(&self) -> Result<(), Gone> {
        self.post(|net, _| net.stop())
    }
}

impl<S> Clone for Remote<S> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox), alive: self.alive.clone() }
    }
}

/// The loop looks whether it was the last one.
impl<S> Drop for Remote<S> {
    fn drop(&mut self) {
        self.alive = None;
        self.mailbox.alarm.ring();
    }
}

impl<S> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// The loop's end.
pub(super) struct Inbox<S> {
    jobs: Letters<RemoteJob<S>>,
    alarm: Arc<Alarm>,
    alive: Arc<()>,
    /// The last look did not come to the end.
    has_more: bool,
}

impl<S> Inbox<S> {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self { jobs: Letters::new(Arc::clone(&alarm)), alarm, alive: Arc::new(()), has_more: false }
    }

    pub(super) fn remote(&self) -> Remote<S> {
        Remote { mailbox: Arc::clone(self.jobs.mailbox()), alive: Some(Arc::clone(&self.alive)) }
    }

    pub(super) fn has_remotes(&self) -> bool {
        let has_remotes = Arc::strong_count(&self.alive) > 1;
        fence(Ordering::Acquire); // what the last one posted before it went is seen by whoever looks after this
        has_remotes
    }

    /// Whether the next wait must not sleep.
    pub(super) fn has_more(&self) -> bool {
        self.has_more || self.alarm.is_rung()
    }

    /// Call before a round of [`next`](Self::next): who posts from here on rings again.
    #[inline]
    pub(super) fn open(&mut self) -> bool {
        if !self.has_more() {
            return false;
        }
        let is_rung = self.alarm.take();
        std::mem::take(&mut self.has_more) || is_rung
    }

    pub(super) fn next(&mut self) -> Option<RemoteJob<S>> {
        self.jobs.next()
    }

    pub(super) fn leave_the_rest(&mut self) {
        self.has_more = true;
    }
}
