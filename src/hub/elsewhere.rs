//! Work on other threads, by ticket: given out, taken back, returned.

use super::Hub;
use crate::{
    alarm::Alarm,
    panics::{self, guard},
    pool::{Bounds, Job, Purpose, Refused, Ticket},
};
use std::{
    any::Any,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// What a thread brings back. Of what type it is knows who gave the work out.
pub(crate) type Product = Box<dyn Any + Send>;

pub(crate) struct Elsewhere {
    pub(crate) alarm: Arc<Alarm>,
    sender: Sender<Returned>,
    receiver: Receiver<Returned>,
    next: Ticket,
}

pub(crate) struct Returned {
    pub(crate) purpose: Purpose,
    pub(crate) ticket: Ticket,
    /// Or what it panicked with.
    pub(crate) product: Result<Product, String>,
}

impl Elsewhere {
    pub(super) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (sender, receiver) = channel();
        Self { alarm: Alarm::new(wake), sender, receiver, next: 0 }
    }

    /// What has come back, in that order. Look after [`Alarm::take`].
    pub(crate) fn next_returned(&mut self) -> Option<Returned> {
        self.receiver.try_recv().ok()
    }
}

impl Hub {
    /// Has another thread do it. What comes back has the ticket; of each purpose they count up.
    pub(crate) fn give_out(
        &mut self,
        purpose: Purpose,
        bounds: Bounds,
        work: impl FnOnce() -> Product + Send + 'static,
    ) -> Result<Ticket, Refused> {
        let ticket = self.elsewhere.next;
        self.elsewhere.next += 1;
        let (sender, alarm) = (self.elsewhere.sender.clone(), Arc::clone(&self.elsewhere.alarm));
        let job: Job = Box::new(move || {
            let (product, payload) = match guard(work) {
                Ok(product) => (Ok(product), None),
                Err(payload) => (Err(panics::text(&payload)), Some(payload)),
            };
            // Nobody listens any more when the reactor is gone.
            let _ = sender.send(Returned { purpose, ticket, product });
            alarm.ring();
            drop(payload); // last, because that may panic too
        });
        self.world.spawn(purpose, bounds, ticket, job)?;
        Ok(ticket)
    }

    /// Work that nobody waits for any more does not begin. If it has, it still comes back; `false` says so.
    pub(crate) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        let Some(job) = self.world.take_back(purpose, ticket) else { return false };
        if guard(|| drop(job)).is_err() {
            log::error!(target: "mainspring", "offloaded work panicked while it was dropped");
        }
        true
    }
}
