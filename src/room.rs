//! Gives back memory of what has grown: queues and lists whose length follows what happens, not how much there is.

use std::collections::VecDeque;

/// Room for this many is kept: less is not worth giving back.
pub(crate) const KEPT_MAX: usize = 1024;

/// A list that can be asked how much of its room is empty.
pub(crate) trait Room {
    /// How many it holds, and how many there is room for.
    fn measure(&self) -> (usize, usize);

    fn cut_down(&mut self, room: usize);

    /// Gives memory back once three quarters are empty, and keeps room for twice what there is. Call it where the list has
    /// become shorter, or before it is cleared: so each entry that is moved was paid for by three that have gone.
    #[inline]
    fn give_back(&mut self) {
        let (len, room) = self.measure();
        if is_sparse(len, room) {
            self.cut_down(2 * len);
        }
    }

    /// The same for a list that holds each of `most` things once at most, and is full and empty in turns.
    fn give_back_beyond(&mut self, most: usize) {
        if is_sparse(most, self.measure().1) {
            self.cut_down(2 * most);
        }
    }
}

#[inline]
pub(crate) fn is_sparse(len: usize, room: usize) -> bool {
    room > KEPT_MAX && len < room / 4
}

impl<T> Room for Vec<T> {
    #[inline]
    fn measure(&self) -> (usize, usize) {
        (self.len(), self.capacity())
    }

    #[cold]
    fn cut_down(&mut self, room: usize) {
        self.shrink_to(room);
    }
}

impl<T> Room for VecDeque<T> {
    #[inline]
    fn measure(&self) -> (usize, usize) {
        (self.len(), self.capacity())
    }

    /// One by one: `shrink_to` moves them in place, which is much code for each of the types that are queued.
    #[cold]
    fn cut_down(&mut self, room: usize) {
        let mut smaller = Self::with_capacity(room);
        while let Some(first) = self.pop_front() {
            smaller.push_back(first);
        }
        *self = smaller;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_a_quarter_memory_is_given_back_but_for_room_for_as_many_again() {
        let mut list = Vec::with_capacity(8 * KEPT_MAX);
        list.resize(2 * KEPT_MAX, 0);
        list.give_back();
        assert_eq!(list.capacity(), 8 * KEPT_MAX, "a quarter is used");
        list.pop();
        list.give_back();
        assert!((list.len()..=2 * list.len()).contains(&list.capacity()), "{}", list.capacity());
    }

    #[test]
    fn little_memory_is_kept() {
        let mut queue = VecDeque::<u8>::with_capacity(KEPT_MAX);
        let room = queue.capacity();
        queue.give_back();
        assert_eq!((room, queue.capacity()), (KEPT_MAX, KEPT_MAX));
    }
}
