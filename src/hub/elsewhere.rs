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
    /// Offloads that die with their connection.
    pub(crate) owned: Table<(Key, Ticket), ()>,
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
        Self { alarm, returned, next: 0, owned: Table::default(), dead: Vec::new() }
    }

    fn new_ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    fn send_back(&self, returned: Returned) {
        self.returned.mailbox().post(returned);
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
        let ticket = self.elsewhere.new_ticket();
        self.give_out_as(ticket, purpose, capacity, work).map(|()| ticket)
    }

    /// What was known without asking comes back like everything else, in the next turn.
    pub(crate) fn answer(&mut self, answer: LookedUp) {
        let ticket = self.elsewhere.new_ticket();
        self.elsewhere.send_back(Returned { purpose: Purpose::Names, ticket, product: Ok(Box::new(answer)) });
    }

    /// The same for a program's own work: a refusal comes back like an end.
    pub(crate) fn offload(&mut self, capacity: Capacity, work: impl FnOnce() -> Product + Send + 'static) -> Ticket {
        let ticket = self.elsewhere.new_ticket();
        if let Err(refused) = self.give_out_as(ticket, Purpose::Offload, capacity, work) {
            let error = match refused {
                Refused::Full => OffloadError::Full,
                Refused::NoThread(error) => OffloadError::NoThread(error),
            };
            self.elsewhere.send_back(Returned { purpose: Purpose::Offload, ticket, product: Err(error) });
        }
        ticket
    }

    fn give_out_as(
        &mut self,
        ticket: Ticket,
        purpose: Purpose,
        capacity: Capacity,
        work: impl FnOnce() -> Product + Send + 'static,
    ) -> Result<(), Refused> {
        let mailbox = Arc::clone(self.elsewhere.returned.mailbox());
        let job: Job = Box::new(move || {
            let product = guard(work).map_err(|payload| OffloadError::Panicked(panics::text(&payload)));
            mailbox.post(Returned { purpose, ticket, product }); // which is dropped once the reactor is gone
        });
        self.world.spawn(purpose, capacity, ticket, job)
    }

    /// The offloads of a connection that ends or becomes something else.
    pub(super) fn drop_own_offloads(&mut self, key: Key) {
        let Elsewhere { owned, dead, .. } = &mut self.elsewhere;
        owned.retain(|(owner, ticket)| {
            let lives = owner != key;
            if !lives {
                dead.push(ticket);
            }
            lives
        });
    }

    /// Work that nobody waits for any more does not begin. If it has, it still comes back; `false` says so.
    pub(crate) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        let Some(job) = self.world.take_back(purpose, ticket) else { return false };
        discard("offloaded work", job);
        true
    }
}
