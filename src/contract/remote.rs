//! Into the loop from any other thread.

use super::Net;
use crate::alarm::Alarm;
use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{Ordering, fence},
        mpsc::{Receiver, Sender},
    },
};

/// A job of another thread.
pub(super) type RemoteJob<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S) + Send>;

/// Posts jobs into a reactor, from any thread. While one exists, [`run`](crate::Reactor::run) does not end by itself.
///
/// Jobs of one thread run in the order in which they were posted, each between callbacks. Many posts are one wake-up.
pub struct Remote<S = ()> {
    sender: Sender<RemoteJob<S>>,
    alarm: Arc<Alarm>,
    /// Counts the remotes. An option so that it goes before the loop is told to look.
    life: Option<Arc<()>>,
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
        self.sender.send(Box::new(job)).map_err(|_| Gone)?;
        self.alarm.ring();
        Ok(())
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
        Self { sender: self.sender.clone(), alarm: Arc::clone(&self.alarm), life: self.life.clone() }
    }
}

/// The loop looks whether it was the last one.
impl<S> Drop for Remote<S> {
    fn drop(&mut self) {
        self.life = None;
        self.alarm.ring();
    }
}

impl<S> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// The loop's end.
pub(super) struct Inbox<S> {
    receiver: Receiver<RemoteJob<S>>,
    sender: Sender<RemoteJob<S>>,
    alarm: Arc<Alarm>,
    life: Arc<()>,
    /// The last look did not come to the end.
    has_more: bool,
}

impl<S> Inbox<S> {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        Self { receiver, sender, alarm, life: Arc::new(()), has_more: false }
    }

    pub(super) fn remote(&self) -> Remote<S> {
        Remote { sender: self.sender.clone(), alarm: Arc::clone(&self.alarm), life: Some(Arc::clone(&self.life)) }
    }

    pub(super) fn has_remotes(&self) -> bool {
        let has_remotes = Arc::strong_count(&self.life) > 1;
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
        self.receiver.try_recv().ok()
    }

    pub(super) fn leave_the_rest(&mut self) {
        self.has_more = true;
    }
}
