//! Work on other threads, by ticket: given out, taken back, returned. What is to follow it is kept by who gave it out.

use crate::{
    alarm::Alarm,
    key::{Key, Timer},
    mailbox::Letters,
    names::Resolved,
    panics::{self, discard, guard},
    pool::{Capacity, Job, Purpose, Refused, Ticket},
    reason::OffloadError,
    table::Table,
    world::{self, Workers, World},
};
use std::{any::Any, io, sync::Arc};

/// What a thread brings back. Of what type it is knows who gave the work out.
pub(crate) type Product = Box<dyn Any + Send>;

pub(crate) struct Threads {
    /// Once they were needed.
    workers: Option<Box<dyn Workers>>,
    pub(crate) alarm: Arc<Alarm>,
    returned: Letters<Returned>,
    next: Ticket,
    /// What was known without asking anybody: told in the next turn.
    pub(crate) known: Vec<LookedUp>,
    /// Offloads that die with their connection.
    pub(crate) owned: Table<Ticket, Key>,
}

pub(crate) struct Returned {
    pub(crate) purpose: Purpose,
    pub(crate) ticket: Ticket,
    pub(crate) product: Result<Product, OffloadError>,
}

/// Who has asked for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Connection(Key),
    /// What follows is kept under the timer of its deadline.
    Job(Timer),
}

/// What a lookup brings back.
#[derive(Debug)]
pub(crate) struct LookedUp {
    pub(crate) asker: Asker,
    pub(crate) found: io::Result<Resolved>,
}

impl Threads {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let alarm = Alarm::new(wake);
        let returned = Letters::new(Arc::clone(&alarm));
        Self { workers: None, alarm, returned, next: 0, known: Vec::new(), owned: Table::default() }
    }

    /// Made at first use.
    pub(crate) fn workers(&mut self, world: &dyn World) -> &mut dyn Workers {
        &mut **self.workers.get_or_insert_with(|| world::workers(world))
    }

    /// Has another thread do it. What comes back has the ticket.
    pub(crate) fn give_out(
        &mut self,
        world: &dyn World,
        purpose: Purpose,
        capacity: Capacity,
        work: impl FnOnce() -> Product + Send + 'static,
    ) -> Result<Ticket, Refused> {
        self.next += 1;
        let ticket = self.next;
        let mailbox = Arc::clone(self.returned.mailbox());
        let job: Job = Box::new(move || {
            let product = guard(work).map_err(|payload| OffloadError::Panicked(panics::text(&payload)));
            mailbox.post(Returned { purpose, ticket, product }); // which is dropped once the reactor is gone
        });
        self.workers(world).spawn(purpose, capacity, ticket, job).map(|()| ticket)
    }

    /// Work that nobody waits for any more does not begin. If it has, it still comes back.
    pub(crate) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) {
        if let Some(job) = self.workers.as_mut().and_then(|workers| workers.take_back(purpose, ticket)) {
            discard("offloaded work", job);
        }
    }

    /// A ticket for what was not given out, whose end is still to be told.
    pub(crate) fn refuse(&mut self, key: Key) -> Ticket {
        self.next += 1;
        self.owned.put(self.next, key);
        self.next
    }

    pub(crate) fn has_work_of(&self, key: Key) -> bool {
        self.owned.values().any(|&owner| owner == key)
    }

    /// The offloads of a connection are nobody's any more.
    pub(crate) fn drop_own(&mut self, key: Key, mut dropped: impl FnMut(Ticket)) {
        self.owned.retain(|ticket, &owner| {
            let lives = owner != key;
            if !lives {
                dropped(ticket);
            }
            lives
        });
    }

    /// What has come back, in that order. Look after [`Alarm::take`].
    pub(crate) fn next_returned(&mut self) -> Option<Returned> {
        self.returned.next()
    }
}
