//! Names for what the loop holds: [`Key`] for a connection, listener or dispatcher, [`Timer`] for a timer.
//!
//! Both are plain values, cheap to copy and to keep. Neither keeps anything alive, and neither is ever used again for
//! something else: a stale one finds nothing.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicU8, Ordering},
};

/// How many low bits of an event's token name the slot; the rest is the serial, as far as it fits.
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

/// The most slots that a token can name.
pub(crate) const SLOTS_MAX: usize = if usize::BITS >= 64 { u32::MAX as usize } else { (1 << 20) - 1 };

/// Tells the reactors of a process apart: it is in the high bits of the serials of their keys and timers, so it costs
/// nothing to compare. After 256 of them the numbers start again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u8);

/// How many low bits of a key's serial count the owners of its slot.
const COUNT_BITS: u32 = 24;

/// How many low bits of a timer's serial count timers.
const TIMER_BITS: u32 = 56;

impl Number {
    /// For a reactor in the process's own world.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Of the first owner of a slot.
    pub(crate) fn first_serial(self) -> NonZeroU32 {
        NonZeroU32::MIN | u32::from(self.0) << COUNT_BITS
    }

    pub(crate) fn first_timer(self) -> u64 {
        u64::from(self.0) << TIMER_BITS
    }
}

/// The serial of the slot's next owner; none if there can be no more.
pub(crate) fn serial_after(serial: NonZeroU32) -> Option<NonZeroU32> {
    let is_last = count(serial) == (1 << COUNT_BITS) - 1;
    serial.checked_add(1).filter(|_| !is_last)
}

fn count(serial: NonZeroU32) -> u32 {
    serial.get() & ((1 << COUNT_BITS) - 1)
}

/// Names a connection, a listener, a dispatcher or a datagram socket of one reactor.
///
/// It stays valid until `closed` has run, and finds nothing afterwards: slots are used again, keys are not (a serial number
/// tells the owners of a slot apart, and a slot whose serials are used up is retired). It finds nothing in another reactor
/// either; of one process, 256 reactors are told apart. The chapter is [sharing
/// state](crate::manual::sharing_state#keys-not-references).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    serial: NonZeroU32,
}

impl Key {
    /// No slot has this index.
    pub(crate) const NOBODY: Self = Self { index: u32::MAX, serial: NonZeroU32::MAX };

    pub(crate) fn new(index: usize, serial: NonZeroU32) -> Self {
        Self { index: u32::try_from(index).expect("slots are bounded by SLOTS_MAX"), serial }
    }

    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// What the selector gives back with an event. Where a `usize` has 32 bits the serial is cut to 12: an event for a dead
    /// connection could then reach a successor once in 4,096 times. That does no harm, because readiness is a hint.
    pub(crate) fn token(self) -> usize {
        self.index() | (self.serial.get() as usize) << INDEX_BITS
    }

    pub(crate) fn index_of(token: usize) -> usize {
        token & ((1 << INDEX_BITS) - 1)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, count(self.serial))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Names a timer of one reactor, so that you can [`cancel`](crate::Net::cancel) it. It is never used again for another
/// timer, nor for one of another reactor; of one process, 256 reactors are told apart. The chapter is [timers and
/// threads](crate::manual::timers_and_threads).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    pub(crate) index: u32,
    /// Counts every timer that was ever set, from the reactor's own first number on, so this is also what makes the name
    /// unique.
    pub(crate) serial: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_slot_and_tells_serials_apart() {
        let serial = |n| NonZeroU32::new(n).expect("not zero");
        let (old, new) = (Key::new(7, serial(1)), Key::new(7, serial(2)));
        assert_eq!(Key::index_of(old.token()), 7);
        assert_eq!(Key::index_of(new.token()), 7);
        assert_ne!(old.token(), new.token());
    }

    #[test]
    fn an_absent_key_costs_nothing() {
        assert_eq!(size_of::<Option<Key>>(), size_of::<Key>());
    }
}
