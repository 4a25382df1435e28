//! A table in order of its keys: one sorted list, with a fraction of a tree's code. It is quick at both ends and slow in the
//! middle, so it holds things that there are few of, or that come and go nearly in the order of their keys.

use crate::room::Room;
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Table<K, V>(VecDeque<(K, Option<V>)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy + Ord, V> Table<K, V> {
    #[inline(never)]
    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// Puts in a new value, or the old one back in its place.
    pub(crate) fn put(&mut self, key: K, value: V) {
        match self.find(key) {
            Ok(at) => self.0[at].1 = Some(value),
            Err(at) => self.0.insert(at, (key, Some(value))),
        }
    }

    /// As a set: returns whether it is new.
    pub(crate) fn add(&mut self, key: K) -> bool
    where
        V: Default,
    {
        let is_new = !self.has(key);
        if is_new {
            self.put(key, V::default());
        }
        is_new
    }

    /// Also `true` while its value is checked out.
    pub(crate) fn has(&self, key: K) -> bool {
        self.find(key).is_ok()
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.0[self.find(key).ok()?].1.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0[at].1.as_mut()
    }

    /// Checks the value out; its place is kept for it.
    pub(crate) fn take(&mut self, key: K) -> Option<V> {
        let at = self.find(key).ok()?;
        self.0[at].1.take()
    }

    /// The same, together with its place, for [`check_in`](Self::check_in).
    #[inline]
    pub(crate) fn check_out(&mut self, key: K) -> Option<(usize, V)> {
        if let Some((_, value)) = self.0.front_mut().filter(|(first, _)| *first == key) {
            return Some((0, value.take()?)); // often there is only one
        }
        let at = self.find(key).ok()?;
        Some((at, self.0[at].1.take()?))
    }

    /// Puts it back into its place, which others may have moved.
    #[inline]
    pub(crate) fn check_in(&mut self, at: usize, key: K, value: V) {
        match self.0.get_mut(at) {
            Some((there, place)) if *there == key => *place = Some(value),
            _ => self.put(key, value),
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.find(key).ok()?;
        let (_, value) = self.0.remove(at)?;
        self.0.give_back();
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(K, &V) -> bool) {
        self.0.retain(|(key, value)| value.as_ref().is_none_or(|value| keep(*key, value)));
        self.0.give_back();
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().filter_map(|(_, value)| value.as_ref())
    }

    /// Takes all of it; the table is empty afterwards.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        std::mem::take(&mut self.0).into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_was_put_in_whatever_the_order() {
        let mut table = Table::default();
        for key in [5, 1, 9, 3, 7] {
            table.put(key, key * 10);
        }
        assert_eq!((table.get(3), table.get(4), table.len()), (Some(&30), None, 5));
        assert_eq!((table.remove(9), table.remove(9), table.len()), (Some(90), None, 4));
        table.put(1, 11);
        assert_eq!(table.take_all().collect::<Vec<_>>(), [(1, 11), (3, 30), (5, 50), (7, 70)]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn memory_is_given_back_whoever_is_left() {
        for left in [0, 5_000, 9_999] {
            let mut table = Table::default();
            (0..10_000).for_each(|key| table.put(key, key));
            (0..10_000).filter(|&key| key != left).for_each(|key| assert_eq!(table.remove(key), Some(key)));
            assert!(table.0.capacity() <= 1024 && table.get(left) == Some(&left), "{}", table.0.capacity());
            (0..10_000).for_each(|key| table.put(key, key));
            table.retain(|key, _| key == left);
            assert!(table.0.capacity() <= 1024 && table.len() == 1, "{}", table.0.capacity());
        }
    }

    #[test]
    fn who_is_checked_out_keeps_its_place_and_may_be_removed_meanwhile() {
        let mut table = Table::default();
        table.put('a', 1);
        assert_eq!((table.take('a'), table.take('a'), table.get('a'), table.has('a')), (Some(1), None, None, true));
        table.put('a', 2);
        assert_eq!(table.take('a'), Some(2));
        assert_eq!((table.remove('a'), table.has('a')), (None, false));
    }
}
