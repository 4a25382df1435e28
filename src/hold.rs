//! Reasons not to read a connection, each with its own owner: nobody takes back another's.

use crate::{key::Key, time::Time};
use std::{panic::Location, time::Duration};

/// Keeps a connection from being read: [`Context::hold`](crate::Context::hold). Give it back with
/// [`Context::release`](crate::Context::release) or [`Net::release`](crate::Net::release). One that is dropped instead holds
/// for as long as the connection lives, or until it is [upgraded](crate::Context::upgrade). Other reasons not to read are in
/// the chapter on [back-pressure](crate::manual::back_pressure#pausing-four-reasons-not-to-read).
#[must_use = "nothing is read or delivered until it is released"]
#[derive(Debug, PartialEq, Eq)]
pub struct Hold {
    pub(crate) key: Key,
    number: u64,
}

impl Hold {
    /// Of a connection that is not open: it holds nothing.
    pub(crate) const NOTHING: Self = Self { key: Key::NOBODY, number: 0 };
}

/// Those of one connection that are out.
#[derive(Debug, Default)]
pub(crate) struct Holds(Vec<Held>);

#[derive(Debug)]
struct Held {
    number: u64,
    by: &'static Location<'static>,
    since: Time,
}

impl Holds {
    /// No other hold of this reactor has this `number`.
    pub(crate) fn add(&mut self, key: Key, number: u64, by: &'static Location<'static>, since: Time) -> Hold {
        self.0.push(Held { number, by, since });
        Hold { key, number }
    }

    /// Whether it was out.
    pub(crate) fn remove(&mut self, hold: &Hold) -> bool {
        let at = self.0.iter().position(|held| held.number == hold.number);
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where in the program they were taken, and how long ago.
    pub(crate) fn list(&self, now: Time) -> Vec<(&'static Location<'static>, Duration)> {
        self.0.iter().map(|held| (held.by, now.since(held.since))).collect()
    }
}
