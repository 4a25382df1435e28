//! Blocking work in virtual time: a pool whose threads are places in a list. A job is run, on the loop's own thread, at the
//! moment at which a thread would have finished it.

use crate::{
    pool::{Capacity, Job, Refused, Ticket},
    time::Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

#[derive(Default)]
pub(super) struct Crew {
    /// One for each busy thread, by when it is done, then by ticket.
    at_work: BTreeMap<(Time, Ticket), Job>,
    queue: VecDeque<(Ticket, Duration, Job)>,
}

impl Crew {
    pub(super) fn spawn(
        &mut self,
        capacity: Capacity,
        now: Time,
        takes: Duration,
        ticket: Ticket,
        job: Job,
    ) -> Result<(), (Refused, Job)> {
        if self.at_work.len() < capacity.threads.max(1) {
            self.at_work.insert((now + takes, ticket), job);
        } else if self.queue.len() < capacity.queue {
            self.queue.push_back((ticket, takes, job));
        } else {
            return Err((Refused::Full, job));
        }
        Ok(())
    }

    pub(super) fn take_back(&mut self, ticket: Ticket) -> Option<Job> {
        let at = self.queue.iter().position(|(queued, ..)| *queued == ticket)?;
        self.queue.remove(at).map(|(.., job)| job)
    }

    pub(super) fn next_end(&self) -> Option<Time> {
        self.at_work.keys().next().map(|&(end, _)| end)
    }

    /// The next job that is done by now; its thread begins another.
    pub(super) fn finish(&mut self, now: Time) -> Option<Job> {
        let next = self.at_work.first_entry().filter(|next| next.key().0 <= now)?;
        let ((end, _), job) = next.remove_entry();
        if let Some((ticket, takes, next)) = self.queue.pop_front() {
            self.at_work.insert((end + takes, ticket), next);
        }
        Some(job)
    }
}
