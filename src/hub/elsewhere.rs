//! Work on other threads, by ticket: given out, taken back, returned.

use super::{Hub, LookedUp};
use crate::{
    alarm::Alarm,
    key::Key,
    mailbox::Letters,
    panics::{self, discard, guard},
    pool::{Capacity, Job, Purpose, Refused, Ticket},
    reason::OffloadError,
    table::Table,
};
use std::{any::Any, sync::Arc};

/// What a thread brings back. Of what type it is knows who gave the work out.
pub(crate) type Product = Box<dyn Any + Send>;

pub(crate) struct Elsewhere {
    pub(crate) alarm: Arc<Alarm>,
    returned: Letters<Returned>,
    next: Ticket,
    /// What was known without asking anybody: told in the next turn.
    pub(crate) known: Vec<LookedUp>,
    /// Offloads that die with their connection.
    pub(crate) owned: Table<Ticket, Key>,
    /// Those that did; what would have followed is dropped by whoever keeps it.
    pub(crate) dead: Vec<Ticket>,
}

pub(crate) struct Returned {
    pub(crate) purpose: Purpose,
    pub(crate) ticket: Ticket,
    pub(crate) product: Result<Product, OffloadError>,
}

impl Elsewhere {
    pub(super) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let alarm = Alarm::new(wake);
        let returned = Letters::new(Arc::clone(&alarm));
        Self { alarm, returned, next: 0, known: Vec::new(), owned: Table::default(), dead: Vec::new() }
    }

    /// The offloads of a connection that ends or becomes something else.
    pub(super) fn drop_own(&mut self, key: Key) {
        let Elsewhere { owned, dead, .. } = self;
        owned.retain(|ticket, &owner| {
            let lives = owner != key;
            if !lives {
                dead.push(ticket);
            }
            lives
        });
    }

    /// What has come back, in that order. Look after [`Alarm::take`].
    pub(crate) fn next_returned(&mut self) -> Option<Returned> {
        self.returned.next()
    }
}

impl Hub {
    /// Has another thread do it. What comes back has the ticket.
    pub(crate) fn give_out(
        &mut self,
        purpose: Purpose,
        capacity: Capacity,
        work: impl FnOnce() -> Product + Send + 'static,
    ) -> Result<Ticket, Refused> {
        self.cx.elsewhere.next += 1;
        let ticket = self.cx.elsewhere.next;
        let mailbox = Arc::clone(self.cx.elsewhere.returned.mailbox());
        let job: Job = Box::new(move || {
            let product = guard(work).map_err(|payload| OffloadError::Panicked(panics::text(&payload)));
            mailbox.post(Returned { purpose, ticket, product }); // which is dropped once the reactor is gone
        });
        self.cx.world.spawn(purpose, capacity, ticket, job).map(|()| ticket)
    }

    /// Work that nobody waits for any more does not begin. If it has, it still comes back; `false` says so.
    pub(crate) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        self.cx.take_back(purpose, ticket)
    }
}

impl super::Cx {
    pub(super) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        let Some(job) = self.world.take_back(purpose, ticket) else { return false };
        discard("offloaded work", job);
        true
    }
}
