//! What peers can cause is logged only once in a while, however often they do it. Nothing is logged here: this only decides
//! at which level.

use crate::{key::Key, panics::PAUSE, time::Time};
use log::Level;
use std::fmt;

/// When the table has more kinds than these, it looks for those that are over.
const KINDS_MIN: usize = 16;

/// What is told of a listener, or of the connections that it let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It has as many connections as it may.
    Full,
    /// An address has as many as one address may.
    PeerFull,
    /// No descriptor is left, and new clients are closed.
    Shed,
    /// It cannot accept for now.
    CannotAccept,
    FactoryPanicked,
    Failed,
    Overflow,
    Panicked,
    PanickedInClosed,
    GetsNowhere,
    /// A tell for a type other than its target's.
    Mistaken,
    /// In this callback.
    Slow(&'static str),
}

/// How something is to be logged. Its `Display` is the end of the record: how many were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) level: Level,
    left_out: u64,
}

impl Manner {
    pub(crate) fn of(level: Level) -> Self {
        Self { level, left_out: 0 }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left_out {
            0 => Ok(()),
            more => write!(f, " (and {more} more of this kind since the last record of it)"),
        }
    }
}

/// When each kind was last logged.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<Kind>);

#[derive(Debug)]
struct Kind {
    listener: Key,
    cause: Cause,
    logged: Time,
    left_out: u64,
}

impl Records {
    /// At `level` for the first of a kind in ten seconds, and for the program's own connections, which have no listener; the
    /// others only for those who ask. What belongs to no connection, and may be caused by any, counts for a listener that
    /// nobody has.
    #[cold]
    pub(crate) fn manner(&mut self, listener: Option<Key>, cause: Cause, level: Level, now: Time) -> Manner {
        let Some(listener) = listener else { return Manner::of(level) };
        match self.0.iter_mut().find(|kind| kind.listener == listener && kind.cause == cause) {
            Some(kind) if now < kind.logged + PAUSE => {
                kind.left_out += 1;
                Manner::of(Level::Debug)
            }
            Some(kind) => {
                kind.logged = now;
                Manner { level, left_out: std::mem::take(&mut kind.left_out) }
            }
            None => {
                self.make_room(now);
                self.0.push(Kind { listener, cause, logged: now, left_out: 0 });
                Manner::of(level)
            }
        }
    }

    /// Listeners come and go.
    fn make_room(&mut self, now: Time) {
        if self.0.len() >= KINDS_MIN && self.0.len() == self.0.capacity() {
            self.0.retain(|kind| now < kind.logged + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{num::NonZeroU32, time::Duration};

    fn key(index: usize) -> Key {
        Key::new(index, NonZeroU32::MIN)
    }

    #[test]
    fn each_kind_is_logged_once_in_ten_seconds_with_how_many_were_left_out() {
        let mut records = Records::default();
        let mut say = |listener, cause, millis| {
            let manner = records.manner(Some(key(listener)), cause, Level::Warn, Time::default() + Duration::from_millis(millis));
            (manner.level, manner.left_out)
        };
        assert_eq!(say(1, Cause::Full, 0), (Level::Warn, 0));
        for millis in 1..=300 {
            assert_eq!(say(1, Cause::Full, millis), (Level::Debug, 0));
        }
        assert_eq!(say(1, Cause::Failed, 301), (Level::Warn, 0), "another cause");
        assert_eq!(say(2, Cause::Full, 302), (Level::Warn, 0), "another listener");
        assert_eq!(say(1, Cause::Full, 9_999), (Level::Debug, 0));
        assert_eq!(say(1, Cause::Full, 10_000), (Level::Warn, 301));
        assert_eq!(say(1, Cause::Full, 20_000), (Level::Warn, 0));
    }

    #[test]
    fn a_connection_of_the_programs_own_is_always_told() {
        let mut records = Records::default();
        for _ in 0..3 {
            assert_eq!(records.manner(None, Cause::Failed, Level::Warn, Time::default()).level, Level::Warn);
        }
    }

    #[test]
    fn listeners_that_come_and_go_leave_nothing() {
        let mut records = Records::default();
        for n in 0..10_000 {
            records.manner(Some(key(n)), Cause::Full, Level::Warn, Time::default() + Duration::from_secs(n as u64));
        }
        assert!(records.0.capacity() <= 64, "{}", records.0.capacity());
    }
}
