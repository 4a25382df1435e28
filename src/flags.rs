//! Facts about an entry, mostly about a connection, and what an event says of it, each a bit of one word: so the questions
//! that the loop asks for every event, such as "may it be read, and is there nothing else to consider?", are one compare
//! each.

use std::ops::BitOr;

/// Any number of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal,)*) => {
        $($(#[$doc])* pub(crate) const $name: Flags = Flags(1 << $bit);)*
    };
}

flags! {
    /// The transport is connected.
    ESTABLISHED = 0,
    /// `connected` is owed.
    OWES_CONNECTED = 1,
    /// `writable` is owed: the output was congested, and has fallen to the low mark; of a datagram socket: all that waited has left.
    OWES_WRITABLE = 2,
    /// `draining` is owed, or, for a listener, the end: once what had arrived is delivered, or accepted.
    OWES_DRAINING = 3,
    /// The transport may have something to read. Cleared when it says that it is drained.
    READABLE = 4,
    /// The transport may have room to write. Cleared when it says that it is full.
    WRITABLE = 5,
    /// A short read does not mean that there is no more.
    READ_UNTIL_BLOCKED = 6,
    /// The selector reported an error. For a datagram socket: some datagrams that were sent have failed, and that has to be
    /// told.
    FAILED = 7,
    /// What is held may contain a frame.
    MAY_HAVE_FRAME = 8,
    /// The peer has ended.
    EOF_SEEN = 9,
    /// `eof` was called.
    EOF_TOLD = 10,
    /// `half_close` was asked for.
    FIN_ASKED = 11,
    /// The FIN has left.
    FIN_SENT = 12,
    /// The peer had ended when we asked to end.
    PEER_FIRST = 13,
    /// Paused by its protocol: nothing is delivered.
    PAUSED = 14,
    /// It is not read while its own output is congested.
    HOLDS_BACK = 15,
    /// The output went above the high mark, and is not yet down to the low one.
    CONGESTED = 16,
    /// The connection is lost, which is never taken back: throttles do not hold back its last input.
    LOST = 17,
    /// Some of the output will never leave: the peer must not take it for the whole.
    CUT = 18,
    /// On the ready queue.
    IN_READY = 19,
    /// Among the dirty.
    IN_DIRTY = 20,
    /// For an event, or a dispatcher: urgent data, or a descriptor's own exceptional condition.
    PRIORITY = 21,
    /// Its rate of reading is used up, or others go first at the one that it shares: it is told when to go on.
    SPENT_IN = 22,
    /// The same for writing.
    SPENT_OUT = 23,
    /// Writing has a rate limit.
    RATED_OUT = 24,
    /// What it has beyond the usual needs a look in each turn. Set by the code that touches that; cleared when its clocks
    /// were seen to be as in a plain turn.
    NEEDS_SETTLING = 25,
    /// Some of a rate that it shares is kept for it.
    HAS_SHARE = 26,
    /// Holds are out: nothing is delivered, also when a pause is taken back.
    HELD = 27,
    /// Its phase is not `Open`; a dispatcher or a datagram socket has begun to end.
    SHUT = 28,
    /// One of the writers that it is throttled by is congested.
    THROTTLED = 29,
    /// Something was received since anything was last sent.
    UNANSWERED = 30,
    /// The selector has said that the peer sends no more; what came before its end may still be unread.
    PEER_ENDED = 31,
}

/// For a connection, which is never told of urgent data (`Hub::fold` leaves that out): TLS is being agreed on, or what comes
/// before that is leaving. ESTABLISHED tells the two apart. Nothing is delivered.
pub(crate) const SHAKING: Flags = PRIORITY;

/// For a datagram socket, which holds nothing back: it ends once what has come is received, and all that waits has left.
pub(crate) const WAITS_FOR_QUIET: Flags = HOLDS_BACK;

/// For a datagram socket, which has no holds: it receives many at once.
pub(crate) const BATCHES: Flags = HELD;

/// An entry with one of these takes the general way: everything except what comes and goes in every plain turn.
pub(crate) const UNUSUAL: Flags = Flags(
    !(ESTABLISHED.0
        | READABLE.0
        | WRITABLE.0
        | READ_UNTIL_BLOCKED.0
        | HOLDS_BACK.0
        | IN_READY.0
        | IN_DIRTY.0
        | UNANSWERED.0
        | PEER_ENDED.0),
);

/// The same for a datagram socket: everything except what comes and goes while it receives one by one.
pub(crate) const UNUSUAL_OF_DATAGRAMS: Flags =
    Flags(FAILED.0 | OWES_WRITABLE.0 | OWES_DRAINING.0 | WAITS_FOR_QUIET.0 | BATCHES.0 | SHUT.0);

impl Flags {
    #[inline]
    pub(crate) fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Of those in `among`, exactly `these`.
    #[inline]
    pub(crate) fn has_just(self, these: Self, among: Self) -> bool {
        self.0 & among.0 == these.0
    }

    #[inline]
    pub(crate) fn insert(&mut self, these: Self) {
        self.0 |= these.0;
    }

    #[inline]
    pub(crate) fn insert_if(&mut self, these: Self, on: bool) {
        self.0 |= if on { these.0 } else { 0 };
    }

    /// Sets it; returns whether it was set before.
    #[inline]
    pub(crate) fn mark(&mut self, flag: Self) -> bool {
        let was_set = self.has_any(flag);
        self.insert(flag);
        was_set
    }

    #[inline]
    pub(crate) fn put(&mut self, these: Self, on: bool) {
        if on { self.insert(these) } else { self.remove(these) }
    }

    #[inline]
    pub(crate) fn only(self, these: Self) -> Self {
        Self(self.0 & these.0)
    }

    #[inline]
    pub(crate) fn without(self, these: Self) -> Self {
        Self(self.0 & !these.0)
    }

    #[inline]
    pub(crate) fn remove(&mut self, these: Self) {
        self.0 &= !these.0;
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_apart() {
        let mut flags = Flags::default();
        flags.insert(READABLE | PAUSED);
        assert!(flags.has_any(PAUSED | CUT) && !flags.has_any(CUT));
        assert!(flags.has_just(READABLE, READABLE | CUT) && !flags.has_just(READABLE, READABLE | PAUSED));
        flags.remove(PAUSED | CUT);
        assert_eq!(flags, READABLE);
    }
}
