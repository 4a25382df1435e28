//! Work on other threads, by ticket: given out, taken back, returned. Whoever gave it out keeps what is to follow.

use crate::{
    alarm::Alarm,
    key::{Key, Timer},
    mailbox::Letters,
    names::Resolved,
    panics::{self, discard, guard},
    pool::{Capacity, Job, Purpose, Refused, Ticket},
    reason::OffloadError,
    seldom::Seldom,
    table::Table,
    world::{self, Workers, World},
};
use std::{
    any::Any,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) type Work = Box<dyn FnOnce() -> Product + Send>;

/// What a thread brings back. Whoever gave the work out knows its type.
pub(crate) type Product = Box<dyn Any + Send>;

pub(crate) struct Threads {
    /// Made when it is needed.
    crew: Seldom<Crew>,
    pub(crate) alarm: Arc<Alarm>,
    next: Ticket,
    /// What was known without asking anybody: told in the next turn.
    pub(crate) known: Seldom<Vec<LookedUp>>,
    /// Work that is dropped with its connection.
    pub(crate) owned: Table<Ticket, Key>,
    /// Named by whoever gives out the first of it.
    drop_own: Option<DropOwn>,
}

/// Takes it out of the table, and says which it was.
type DropOwn = fn(&mut Table<Ticket, Key>, Key, &mut dyn FnMut(Ticket));

/// The threads that work. What is done with them is named here, so that a program that gives no work out links nothing of
/// it.
struct Crew {
    workers: Box<dyn Workers>,
    returned: Letters<Returned>,
    /// Work that has begun, and whose end is not to be told: what it brings is dropped where it was done.
    unwanted: Arc<Mutex<Vec<Ticket>>>,
    next_returned: fn(&mut Self) -> Option<Returned>,
    take_back: fn(&mut Self, Purpose, Ticket) -> bool,
    do_chore: fn(&mut Self, Purpose, usize, Job),
    discard_returned: fn(&mut Self, &dyn Fn(Purpose) -> usize),
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
        Self {
            crew: Seldom::none(),
            alarm: Alarm::new(wake),
            next: 0,
            known: Seldom::none(),
            owned: Table::default(),
            drop_own: None,
        }
    }

    /// Made at first use.
    pub(crate) fn workers(&mut self, world: &dyn World) -> &mut dyn Workers {
        &mut *self.crew(world).workers
    }

    fn crew(&mut self, world: &dyn World) -> &mut Crew {
        self.crew.get_or_insert_with(|| Crew {
            workers: world::workers(world),
            returned: Letters::new(Arc::clone(&self.alarm)),
            unwanted: Arc::default(),
            next_returned: Crew::next_returned,
            take_back: Crew::take_back_unless_begun,
            do_chore: Crew::do_chore,
            discard_returned: Crew::discard_returned,
        })
    }

    /// The name of another piece of work; if it belongs to a connection, it is dropped with that.
    pub(crate) fn ticket(&mut self, owner: Option<Key>) -> Ticket {
        self.next += 1;
        if let Some(key) = owner {
            self.drop_own = Some(drop_own);
            self.owned.put(self.next, key);
        }
        self.next
    }

    /// Has another thread do it. What comes back carries the ticket.
    pub(crate) fn give_out(
        &mut self,
        world: &dyn World,
        purpose: Purpose,
        capacity: Capacity,
        ticket: Ticket,
        work: Work,
    ) -> Result<(), Refused> {
        let crew = self.crew(world);
        let (mailbox, unwanted) = (Arc::clone(crew.returned.mailbox()), Arc::clone(&crew.unwanted));
        let job: Job = Box::new(move || {
            let product = guard(work).map_err(|payload| OffloadError::Panicked(panics::text(&payload)));
            if remove(&mut lock(&unwanted), ticket) {
                forget(product);
            } else {
                mailbox.post(Returned { purpose, ticket, product }); // the result is dropped once the reactor is gone
            }
        });
        crew.workers.spawn(purpose, capacity, ticket, job).map_err(|(refused, job)| {
            crew.do_chore(purpose, capacity.threads, discarding(job));
            refused
        })
    }

    /// Work that nobody waits for any more does not begin. If it has begun, its end is not told.
    pub(crate) fn take_back(&mut self, purpose: Purpose, ticket: Ticket) {
        if !self.crew.is_none() && !self.take_back_unless_begun(purpose, ticket) {
            if let Some(crew) = self.crew.as_mut() {
                lock(&crew.unwanted).push(ticket);
            }
        }
    }

    /// The same, but what has begun is told. Says whether it had not begun.
    pub(crate) fn take_back_unless_begun(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        self.crew.as_mut().is_some_and(|crew| (crew.take_back)(crew, purpose, ticket))
    }

    /// Has another thread do what nobody waits for. If there is no thread, because nothing was ever given out, it is done
    /// here.
    pub(crate) fn do_chore(&mut self, purpose: Purpose, threads_max: usize, chore: Job) {
        match self.crew.as_mut() {
            Some(crew) => (crew.do_chore)(crew, purpose, threads_max, chore),
            None => chore(),
        }
    }

    pub(crate) fn has_work_of(&self, key: Key) -> bool {
        self.owned.values().any(|&owner| owner == key)
    }

    /// The offloads of a connection belong to nobody any more.
    pub(crate) fn drop_own(&mut self, key: Key, dropped: &mut dyn FnMut(Ticket)) {
        if let Some(drop_own) = self.drop_own {
            drop_own(&mut self.owned, key, dropped);
        }
    }

    /// What has come back, in that order. Call [`Alarm::take`] before you look.
    pub(crate) fn next_returned(&mut self) -> Option<Returned> {
        let crew = self.crew.as_mut()?;
        (crew.next_returned)(crew)
    }

    /// Has another thread drop what has come back; `threads_max` says how many there may be.
    pub(crate) fn discard_returned(&mut self, threads_max: &dyn Fn(Purpose) -> usize) {
        if let Some(crew) = self.crew.as_mut() {
            (crew.discard_returned)(crew, threads_max);
        }
    }
}

impl Crew {
    fn next_returned(&mut self) -> Option<Returned> {
        let returned = self.returned.next()?;
        remove(&mut lock(&self.unwanted), returned.ticket); // it was on its way when it was taken back
        Some(returned)
    }

    fn take_back_unless_begun(&mut self, purpose: Purpose, ticket: Ticket) -> bool {
        let Some(job) = self.workers.take_back(purpose, ticket) else { return false };
        self.do_chore(purpose, 1, discarding(job)); // its pool exists, with its number of threads
        true
    }

    fn do_chore(&mut self, purpose: Purpose, threads_max: usize, chore: Job) {
        if let Err(chore) = self.workers.do_chore(purpose, threads_max, chore) {
            chore();
        }
    }

    fn discard_returned(&mut self, threads_max: &dyn Fn(Purpose) -> usize) {
        while let Some(Returned { purpose, product, .. }) = self.next_returned() {
            self.do_chore(purpose, threads_max(purpose), Box::new(move || forget(product)));
        }
    }
}

fn drop_own(owned: &mut Table<Ticket, Key>, key: Key, dropped: &mut dyn FnMut(Ticket)) {
    owned.retain(|ticket, &owner| {
        let lives = owner != key;
        if !lives {
            dropped(ticket);
        }
        lives
    });
}

/// A chore: it drops what may block while it is being dropped.
pub(crate) fn discarding(what: impl Send + 'static) -> Job {
    Box::new(move || discard("offloaded work", what))
}

/// Drops the result of work that nobody waits for.
pub(crate) fn forget(product: Result<Product, OffloadError>) {
    if let Err(error @ OffloadError::Panicked(_)) = &product {
        log::error!(target: "mainspring", "{error}, and nobody waits for it any more");
    }
    discard("offloaded work", product);
}

/// Returns whether it was there.
fn remove(unwanted: &mut Vec<Ticket>, ticket: Ticket) -> bool {
    let at = unwanted.iter().position(|&other| other == ticket);
    at.map(|at| unwanted.swap_remove(at)).is_some()
}

/// Nothing that panics runs under the lock.
fn lock(unwanted: &Mutex<Vec<Ticket>>) -> MutexGuard<'_, Vec<Ticket>> {
    unwanted.lock().unwrap_or_else(PoisonError::into_inner)
}
