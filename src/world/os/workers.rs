//! Threads of the system, and its resolver.

use crate::{
    names::{Lookup, Question, ask_the_system},
    pool::{Capacity, Job, Pool, Purpose, Refused, Ticket},
    world::Workers,
};

#[derive(Default)]
pub(crate) struct OsWorkers {
    /// By purpose, made when they are first needed.
    pools: [Option<Pool>; 2],
}

impl Workers for OsWorkers {
    fn lookup(&mut self, question: Question) -> Lookup {
        Box::new(move || ask_the_system(&question))
    }

    fn spawn(&mut self, purpose: Purpose, capacity: Capacity, ticket: Ticket, job: Job) -> Result<(), Refused> {
        self.pools[purpose as usize].get_or_insert_with(|| Pool::new(purpose, capacity)).spawn(ticket, job)
    }

    fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> Option<Job> {
        self.pools[purpose as usize].as_ref()?.take_back(ticket)
    }
}
