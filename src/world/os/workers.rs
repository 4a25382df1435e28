//! Threads of the system, and its resolver.

use super::spare::open_spare;
use crate::{
    names::{Lookup, Question, ask_the_system},
    pool::{Capacity, Job, PURPOSES, Pool, Purpose, Refused, Ticket},
    world::{Workers, wants_descriptor},
};
use std::io;

/// `None` if there are as many as a resolver has open at a time.
fn want_of_descriptors() -> Option<io::Error> {
    let all: io::Result<Vec<_>> = (0..3).map(|_| open_spare()).collect();
    all.err().filter(wants_descriptor)
}

#[derive(Default)]
pub(crate) struct OsWorkers {
    /// By purpose, made when they are first needed.
    pools: [Option<Pool>; PURPOSES],
}

impl OsWorkers {
    fn pool(&mut self, purpose: Purpose, threads_max: usize) -> &Pool {
        self.pools[purpose as usize].get_or_insert_with(|| Pool::new(purpose, threads_max))
    }
}

impl Workers for OsWorkers {
    fn lookup(&mut self, question: Question) -> Lookup {
        // A resolver that cannot open its files or sockets may say that there is no such name.
        Box::new(move || match want_of_descriptors() {
            Some(want) => Err(want),
            None => ask_the_system(&question).map_err(|error| want_of_descriptors().unwrap_or(error)),
        })
    }

    fn spawn(&mut self, purpose: Purpose, capacity: Capacity, ticket: Ticket, job: Job) -> Result<(), (Refused, Job)> {
        self.pool(purpose, capacity.threads).spawn(capacity.queue, ticket, job)
    }

    fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> Option<Job> {
        self.pools[purpose as usize].as_ref()?.take_back(ticket)
    }

    fn do_chore(&mut self, purpose: Purpose, threads_max: usize, chore: Job) -> Result<(), Job> {
        self.pool(purpose, threads_max).do_chore(chore)
    }
}
