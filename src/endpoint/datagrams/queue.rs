//! What waits to be sent by one datagram socket, in order.

use crate::address::Address;
#[cfg(feature = "udp-batch")]
use crate::world::SourceAddress;
use std::collections::VecDeque;

/// What it costs to keep one, at least.
const COST_MIN: usize = 64;

pub(super) struct Waiting {
    /// `None`: the peer.
    pub(super) to: Option<Address>,
    pub(super) bytes: Box<[u8]>,
    /// The address that it is to leave from.
    #[cfg(feature = "udp-batch")]
    pub(super) source: Option<SourceAddress>,
}

impl Waiting {
    fn cost(&self) -> usize {
        cost(&self.bytes)
    }
}

/// In a box, because hardly ever anything waits.
#[derive(Default)]
pub(super) struct Queue(Option<Box<Queued>>);

#[derive(Default)]
struct Queued {
    waiting: VecDeque<Waiting>,
    /// Of them together.
    cost: usize,
}

impl Queue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queued| queued.waiting.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queued| queued.waiting.len())
    }

    pub(super) fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |queued| queued.cost)
    }

    pub(super) fn push_back(&mut self, last: Waiting) {
        let queued = self.0.get_or_insert_default();
        queued.cost += last.cost();
        queued.waiting.push_back(last);
    }

    pub(super) fn push_front(&mut self, first: Waiting) {
        let queued = self.0.get_or_insert_default();
        queued.cost += first.cost();
        queued.waiting.push_front(first);
    }

    pub(super) fn pop_front(&mut self) -> Option<Waiting> {
        let queued = self.0.as_mut()?;
        let first = queued.waiting.pop_front()?;
        queued.cost -= first.cost();
        Some(first)
    }

    /// Once it is empty.
    pub(super) fn give_back(&mut self) {
        debug_assert!(self.is_empty());
        self.0 = None;
    }

    #[cfg(debug_assertions)]
    pub(super) fn assert_sound(&self) {
        let sum = self.0.iter().flat_map(|queued| &queued.waiting).map(Waiting::cost).sum::<usize>();
        assert_eq!(self.cost(), sum, "what waits is counted");
    }
}

pub(super) fn cost(bytes: &[u8]) -> usize {
    bytes.len().max(COST_MIN)
}
