//! Into the loop from any other thread.

use super::{Core, Net};
use crate::{
    alarm::Alarm,
    mailbox::{Letters, Mailbox},
    panics::discard,
    seldom::Seldom,
};
use std::{
    cell::OnceCell,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

/// A job of another thread.
pub(super) type RemoteJob<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S) + Send>;

/// Posts jobs into a reactor, from any thread. While a remote exists, [`run`](crate::Reactor::run) does not end by itself.
/// [`Reactor::remote`](crate::Reactor::remote) and [`Net::remote`] make one. The chapter is [timers and
/// threads](crate::manual::timers_and_threads#other-threads).
///
/// Jobs of one thread run in the order in which they were posted, each between callbacks. Many posts cost one wake-up.
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
    /// [`Gone`] once the reactor was dropped. `Ok` does not promise that the job runs: the reactor may be dropped before.
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

/// Makes the loop check whether this was the last one.
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
    /// Made with the first remote.
    jobs: OnceCell<Jobs<S>>,
    alarm: Arc<Alarm>,
    alive: Arc<()>,
    /// The last look did not come to the end.
    has_more: bool,
}

/// What is done with them is named here, so that a program without a remote links nothing of it.
struct Jobs<S> {
    letters: Seldom<Letters<RemoteJob<S>>>,
    run: fn(&mut Core<S>, &mut S),
    discard: fn(&mut Core<S>),
}

impl<S> Inbox<S> {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self { jobs: OnceCell::new(), alarm, alive: Arc::new(()), has_more: false }
    }

    pub(super) fn remote(&self) -> Remote<S> {
        let jobs = self.jobs.get_or_init(|| Jobs {
            letters: Seldom::new(Letters::new(Arc::clone(&self.alarm))),
            run: Core::run_remote_jobs,
            discard: Core::discard_remote_jobs,
        });
        let letters = jobs.letters.as_ref().expect("they were made with it");
        Remote { mailbox: Arc::clone(letters.mailbox()), alive: Some(Arc::clone(&self.alive)) }
    }

    /// Whether another thread may still bring something, or has; `by_remotes` says whether remotes keep the loop running.
    pub(super) fn is_awaited(&self, by_remotes: bool) -> bool {
        Self::LOOKS[usize::from(!by_remotes)..].iter().any(|look| look(self))
    }

    /// The inbox after the remotes: a thread posts and then lets its remote go. If it does both in between, the second look
    /// finds what it has posted; in the other order neither look would.
    const LOOKS: [fn(&Self) -> bool; 2] = [Self::has_remotes, Self::has_more];

    fn has_remotes(&self) -> bool {
        let has_remotes = Arc::strong_count(&self.alive) > 1;
        fence(Ordering::Acquire); // what the last one posted before it went is seen by a look after this
        has_remotes
    }

    /// Whether the next wait must not sleep.
    pub(super) fn has_more(&self) -> bool {
        self.has_more || self.alarm.is_rung()
    }

    /// Call before a look at the jobs: a thread that posts from here on rings again.
    #[inline]
    pub(super) fn open(&mut self) -> bool {
        if !self.has_more() {
            return false;
        }
        let is_rung = self.alarm.take();
        std::mem::take(&mut self.has_more) || is_rung
    }

    fn letters(&mut self) -> Option<&mut Letters<RemoteJob<S>>> {
        self.jobs.get_mut()?.letters.as_mut()
    }

    pub(super) fn leave_the_rest(&mut self) {
        self.has_more = true;
    }
}

impl<S> Core<S> {
    pub(super) fn run_jobs(&mut self, state: &mut S) {
        if let Some(run) = self.inbox.jobs.get().map(|jobs| jobs.run) {
            run(self, state);
        }
    }

    fn run_remote_jobs(&mut self, state: &mut S) {
        let mut left = self.hub.cx.config.turn_jobs;
        while let Some(mut some) = self.inbox.letters().map(Letters::take_some) {
            let were_all = some.is_empty();
            while let Some(job) = some.pop_front() {
                self.run_job("a job of another thread", state, job);
                self.run_deferred(state);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            if let Some(letters) = self.inbox.letters() {
                letters.put_back(some);
            }
            if left == 0 {
                return self.inbox.leave_the_rest();
            }
            if were_all {
                return;
            }
        }
    }

    /// Without a callback: there is no state to lend.
    pub(super) fn discard_jobs(&mut self) {
        if let Some(discard) = self.inbox.jobs.get().map(|jobs| jobs.discard) {
            discard(self);
        }
    }

    fn discard_remote_jobs(&mut self) {
        while let Some(job) = self.inbox.letters().and_then(Letters::next) {
            discard("a job of another thread", job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries every order in which one thread can post and let its remote go while the loop looks. Each step is one that
    /// others see as a whole: what is in the mailbox, that it has rung, how many remotes there are.
    #[test]
    fn whoever_posts_and_goes_between_two_looks_is_not_missed() {
        let looks = Inbox::<()>::LOOKS;
        for posts_before in 0..=looks.len() {
            for goes_before in posts_before..=looks.len() {
                let inbox = Inbox::<()>::new(Alarm::new(Arc::new(|| ())));
                let mut remote = Some(inbox.remote());
                let mut is_awaited = false;
                for at in 0..=looks.len() {
                    if at == posts_before {
                        remote.as_ref().expect("it goes later").post(|_, ()| ()).expect("the loop is there");
                    }
                    if at == goes_before {
                        // Without its ring, which comes after it has gone, and perhaps after the looks.
                        remote.as_mut().expect("it goes once").alive = None;
                    }
                    is_awaited |= looks.get(at).is_some_and(|look| look(&inbox));
                }
                assert!(is_awaited, "it posts before look {posts_before} and goes before look {goes_before}");
            }
        }
    }
}
