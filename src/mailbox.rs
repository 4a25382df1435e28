//! A queue into the loop from other threads, in the order in which they post.

use crate::{alarm::Alarm, panics::discard, room::KEPT_MAX};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The end where others post.
pub(crate) struct Mailbox<T> {
    /// `None` once the loop is gone.
    queue: Mutex<Option<VecDeque<T>>>,
    pub(crate) alarm: Arc<Alarm>,
}

impl<T> Mailbox<T> {
    /// Queues it and wakes the loop. `false`, and it is dropped: the loop is gone.
    pub(crate) fn post(&self, letter: T) -> bool {
        let refused = match &mut *self.lock() {
            Some(queue) => {
                queue.push_back(letter);
                None
            }
            None => Some(letter),
        };
        if refused.is_none() {
            self.alarm.ring();
        }
        refused.is_none()
    }

    /// Nothing that panics runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end where the loop takes letters out.
pub(crate) struct Letters<T> {
    mailbox: Arc<Mailbox<T>>,
    /// What was taken out of the queue at once, so that the lock is taken once for each burst.
    taken: VecDeque<T>,
}

impl<T> Letters<T> {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self { mailbox: Arc::new(Mailbox { queue: Mutex::new(Some(VecDeque::new())), alarm }), taken: VecDeque::new() }
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox<T>> {
        &self.mailbox
    }

    /// Call [`Alarm::take`] before you look: a thread that posts more from then on rings again.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.fetch();
        self.taken.pop_front()
    }

    /// All that [`next`](Self::next) would give before it looks into the mailbox again; what is left of it has to be put
    /// back.
    pub(crate) fn take_some(&mut self) -> VecDeque<T> {
        self.fetch();
        std::mem::take(&mut self.taken)
    }

    pub(crate) fn put_back(&mut self, rest: VecDeque<T>) {
        self.taken = rest;
    }

    fn fetch(&mut self) {
        if self.taken.is_empty() {
            if self.taken.capacity() > KEPT_MAX {
                self.taken = VecDeque::new();
            }
            if let Some(queue) = &mut *self.mailbox.lock() {
                std::mem::swap(queue, &mut self.taken);
            }
        }
    }
}

/// A thread that posts from here on is told so.
impl<T> Drop for Letters<T> {
    fn drop(&mut self) {
        let mut rest = self.mailbox.lock().take().unwrap_or_default();
        while let Some(letter) = self.taken.pop_front().or_else(|| rest.pop_front()) {
            discard("what another thread had brought", letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn letters<T>() -> (Letters<T>, Arc<AtomicUsize>) {
        let rings = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&rings);
        let alarm = Alarm::new(Arc::new(move || _ = count.fetch_add(1, Ordering::Relaxed)));
        (Letters::new(alarm), rings)
    }

    #[test]
    fn letters_come_in_order_also_those_that_come_meanwhile_and_wake_the_loop_once() {
        let (mut letters, rings) = letters();
        let mailbox = Arc::clone(letters.mailbox());
        for number in 0..3 {
            assert!(mailbox.post(number));
        }
        assert!(mailbox.alarm.take());
        assert_eq!(letters.next(), Some(0));
        assert!(mailbox.post(3));
        assert_eq!(std::iter::from_fn(|| letters.next()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(rings.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_many_threads_bring_is_all_there_each_ones_in_order() {
        let (mut letters, _) = letters();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mailbox = Arc::clone(letters.mailbox());
                scope.spawn(move || (0..1_000).for_each(|number| assert!(mailbox.post((thread, number)))));
            }
            let mut next = [0; 4];
            while next != [1_000; 4] {
                let Some((thread, number)) = letters.next() else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(number, next[thread]);
                next[thread] += 1;
            }
        });
    }

    #[test]
    fn when_the_loop_is_gone_everything_is_dropped_and_who_posts_is_told() {
        let (mut letters, rings) = letters();
        let (mailbox, letter) = (Arc::clone(letters.mailbox()), Arc::new(()));
        for _ in 0..3 {
            assert!(mailbox.post(Arc::clone(&letter)));
        }
        drop(letters.next());
        assert!(mailbox.post(Arc::clone(&letter)));
        drop(letters);
        assert_eq!(Arc::strong_count(&letter), 1);
        assert!(!mailbox.post(Arc::clone(&letter)));
        assert_eq!((Arc::strong_count(&letter), rings.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn room_for_a_great_burst_is_given_back() {
        let (mut letters, _) = letters();
        for _ in 0..2 {
            for number in 0..10_000 {
                assert!(letters.mailbox().post(number));
            }
            while letters.next().is_some() {}
        }
        let _ = letters.mailbox().post(0);
        assert_eq!((letters.next(), letters.next()), (Some(0), None));
        let queue = letters.mailbox().lock().as_ref().map_or(0, VecDeque::capacity);
        assert!(letters.taken.capacity().max(queue) <= KEPT_MAX, "{} and {queue}", letters.taken.capacity());
    }
}
