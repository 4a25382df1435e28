//! Bytes received and not yet consumed: one buffer, three offsets. No socket, no callback, no clock.

use memchr::memchr;
use std::ops::Range;

/// What the terminator works on. The reactor has one such buffer and lends it to each connection for its turn; a connection
/// keeps one of its own only while something of it is unfinished.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Always initialised as a whole, so that reading into it need not clear anything first.
    buf: Vec<u8>,
    /// Bytes received and not yet consumed are `buf[start..end]`; no terminator ends in `buf[start..searched]`.
    /// start <= searched <= end <= buf.len()
    start: usize,
    searched: usize,
    end: usize,
    /// What was given out last.
    /// given.start <= given.end <= start
    given: Range<usize>,
}

impl Input {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { buf: vec![0; bytes], ..Self::default() }
    }

    /// With just these bytes, of which nothing was consumed.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { buf: bytes.to_vec(), end: bytes.len(), ..Self::default() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buf.len()
    }

    /// What [`take`](Self::take) gave last. Valid until the next [`room`](Self::room).
    #[inline]
    pub(crate) fn given(&self) -> &[u8] {
        &self.buf[self.given.clone()]
    }

    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    #[inline]
    pub(crate) fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// How much of [`unread`](Self::unread) was searched already.
    #[inline]
    pub(crate) fn searched(&self) -> usize {
        self.searched - self.start
    }

    /// Where such a byte is first in what was not searched yet.
    #[inline]
    pub(crate) fn find(&self, byte: u8) -> Option<usize> {
        memchr(byte, &self.buf[self.searched..self.end]).map(|at| self.searched + at - self.start)
    }

    /// Whether the first `length` bytes end with this one.
    #[inline]
    pub(crate) fn ends_with_at(&self, byte: u8, length: usize) -> bool {
        length > 0 && self.buf[self.start + length - 1] == byte
    }

    /// All of it was searched: a delimiter can only end in what is still to come.
    #[inline]
    pub(crate) fn mark_searched(&mut self) {
        self.searched = self.end;
    }

    /// Makes the last `bytes` bytes of it unread again, and what is behind them.
    pub(crate) fn put_back(&mut self, bytes: usize) {
        self.given.end -= bytes;
        debug_assert!(bytes > 0 && self.given.start <= self.given.end, "put back nothing, or more than was given");
        (self.start, self.searched) = (self.given.end, self.given.end);
    }

    /// For another terminator.
    pub(crate) fn search_anew(&mut self) {
        self.searched = self.start;
    }

    /// Consumes `through` bytes, in which a frame or piece has ended, and gives the first `keep` of them. Nothing behind
    /// them was searched yet.
    #[inline]
    pub(crate) fn take(&mut self, keep: usize, through: usize) {
        self.take_within(&(0..keep), through);
    }

    /// The same for a range in the middle of what is consumed.
    #[inline]
    pub(crate) fn take_within(&mut self, range: &Range<usize>, through: usize) {
        self.given = self.start + range.start..self.start + range.end;
        self.start += through;
        self.searched = self.start;
        debug_assert!(self.start <= self.end, "took more than there was");
    }

    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.searched = self.searched.max(self.start);
        debug_assert!(self.start <= self.end, "consumed more than there was");
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        (self.start, self.searched, self.end) = (0, 0, 0);
    }

    /// Makes free space at the end, at least `least` bytes: by moving what is unread to the front, then by growing. What is
    /// moved is at most as long as what was consumed or is allocated, so each byte is moved a bounded number of times.
    #[inline]
    pub(crate) fn room(&mut self, least: usize) -> &mut [u8] {
        if self.is_empty() {
            self.clear();
        }
        if self.buf.len() - self.end < least {
            if self.start >= self.len() {
                self.buf.copy_within(self.start..self.end, 0);
                (self.searched, self.end) = (self.searched - self.start, self.end - self.start);
                self.start = 0;
            }
            if self.buf.len() - self.end < least {
                self.buf.resize((self.end + least).max(self.buf.len() * 2), 0);
            }
        }
        &mut self.buf[self.end..]
    }

    /// This many bytes were written into [`room`](Self::room).
    #[inline]
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.buf.len(), "filled more than there was room for");
    }

    /// Moves what is unread into an empty buffer, and remembers how far it was searched.
    pub(crate) fn move_into(&mut self, other: &mut Self) {
        debug_assert!(other.is_empty());
        other.clear();
        let bytes = self.len();
        other.room(bytes)[..bytes].copy_from_slice(self.unread());
        other.filled(bytes);
        other.searched = self.searched();
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(input: &mut Input, bytes: &[u8]) {
        input.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
    }

    #[test]
    fn what_is_unread_survives_consuming_moving_and_growing() {
        let mut input = Input::with_capacity(8);
        push(&mut input, b"abcdef");
        input.take(3, 4);
        assert_eq!(input.given(), b"abc");
        input.mark_searched();
        push(&mut input, b"ghijkl");
        assert_eq!(input.unread(), b"efghijkl");
        assert_eq!(input.searched(), 2);
        let mut other = Input::default();
        input.move_into(&mut other);
        assert_eq!((other.unread(), other.searched(), input.len()), (&b"efghijkl"[..], 2, 0));
    }

    #[test]
    fn one_byte_at_a_time_moves_each_byte_a_bounded_number_of_times() {
        let mut input = Input::with_capacity(64);
        for n in 0..100_000_u32 {
            push(&mut input, &[n as u8]);
            if n % 3 == 0 {
                input.consume(1);
            }
        }
        assert!(input.buf.len() < 4 * input.len(), "{} for {}", input.buf.len(), input.len());
    }

    #[test]
    fn nothing_is_moved_or_allocated_while_there_is_room() {
        let mut input = Input::with_capacity(8);
        push(&mut input, b"abcde");
        input.consume(3);
        push(&mut input, b"fgh");
        assert_eq!((input.start, input.capacity()), (3, 8));
        assert_eq!(input.unread(), b"defgh");
    }

    #[test]
    fn what_is_no_longer_than_what_was_consumed_is_moved_to_the_front() {
        let mut input = Input::with_capacity(8);
        push(&mut input, b"abcdef");
        input.consume(3);
        push(&mut input, b"ghijk");
        assert_eq!((input.start, input.capacity()), (0, 8));
        assert_eq!(input.unread(), b"defghijk");
    }

    #[test]
    fn what_is_longer_stays_where_it_is_and_the_buffer_is_doubled() {
        let mut input = Input::with_capacity(8);
        push(&mut input, b"abcdef");
        input.consume(2);
        push(&mut input, b"ghi");
        assert_eq!((input.start, input.capacity()), (2, 16));
        assert_eq!(input.unread(), b"cdefghi");
    }

    #[test]
    fn what_was_searched_is_forgotten_for_another_terminator() {
        let mut input = Input::default();
        push(&mut input, b"abc");
        input.consume(1);
        input.mark_searched();
        assert_eq!(input.searched(), 2);
        input.search_anew();
        assert_eq!(input.searched(), 0);
    }
}
