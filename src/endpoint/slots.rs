//! Where everything with a key lives: a slab, and a serial for each of its slots, so that a key never names another's
//! socket.

use crate::{
    endpoint::{Conn, DatagramSocket, Dispatching, Entry, Listening},
    key::{Key, Number, SLOTS_MAX, serial_after},
};
use slab::Slab;
use std::num::NonZeroU32;

#[derive(Default)]
pub(crate) struct Slots {
    entries: Slab<Entry>,
    /// The serial of the slot's present owner, or of its next one. As long as the slab ever was.
    serials: Vec<NonZeroU32>,
    /// The number of its reactor.
    number: Number,
    /// With this few owners it is worth checking whether memory can be given back.
    shrinks_at: usize,
}

/// Below this many slots memory is not worth giving back.
pub(crate) const SHRINK_MIN: usize = 1024;

impl Slots {
    pub(crate) fn new(number: Number) -> Self {
        Self { number, ..Self::default() }
    }

    /// The key of what is inserted next; known beforehand, so that opening and registering are one call.
    pub(crate) fn next_key(&self) -> Option<Key> {
        let index = self.entries.vacant_key();
        (index < SLOTS_MAX).then(|| Key::new(index, self.serials.get(index).copied().unwrap_or(self.number.first_serial())))
    }

    /// Under [`next_key`](Self::next_key).
    pub(crate) fn insert(&mut self, entry: impl Into<Entry>) {
        let entry = entry.into();
        debug_assert_eq!(entry.key(), self.next_key());
        let index = self.entries.insert(entry);
        if index == self.serials.len() {
            self.serials.push(self.number.first_serial());
        }
        self.shrinks_at = self.shrinks_at.max(self.entries.len() / 4);
    }

    /// The slot's keys are stale from here on.
    pub(crate) fn remove(&mut self, index: usize) -> Entry {
        let entry = self.entries.remove(index);
        self.bump(index);
        self.shrink();
        entry
    }

    /// Gives memory back when three quarters are empty, and again after each further half, as far as the empty slots are at
    /// the end. The serials stay, so no key comes again.
    fn shrink(&mut self) {
        if self.entries.capacity() > SHRINK_MIN && self.entries.len() <= self.shrinks_at {
            self.shrinks_at = self.entries.len() / 2;
            self.entries.shrink_to_fit();
        }
    }

    /// No owner's index is larger.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// A key that names nothing and never will.
    pub(crate) fn stale_key(&mut self) -> Key {
        let index = self.entries.vacant_key();
        if index == self.serials.len() {
            self.serials.push(self.number.first_serial());
        }
        let key = Key::new(index, self.serials[index]);
        self.bump(index);
        key
    }

    fn bump(&mut self, index: usize) {
        match serial_after(self.serials[index]) {
            Some(next) => self.serials[index] = next,
            None => {
                // The slab hands out the slot that was freed last.
                debug_assert_eq!(self.entries.vacant_key(), index);
                self.entries.insert(Entry::Retired);
            }
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key.index()).filter(|entry| entry.key() == Some(key))
    }

    /// Of whatever has this index now: compare its key.
    pub(crate) fn at(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(key.index()).filter(|entry| entry.key() == Some(key))
    }

    #[inline]
    pub(crate) fn conn(&self, key: Key) -> Option<&Conn> {
        match self.entries.get(key.index()) {
            Some(Entry::Conn(conn)) if conn.key == key => Some(conn),
            _ => None,
        }
    }

    /// For a slot that may hold anything, or not exist.
    pub(crate) fn conn_of(&self, index: usize) -> Option<&Conn> {
        match self.entries.get(index) {
            Some(Entry::Conn(conn)) => Some(conn),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn conn_mut(&mut self, key: Key) -> Option<&mut Conn> {
        match self.entries.get_mut(key.index()) {
            Some(Entry::Conn(conn)) if conn.key == key => Some(conn),
            _ => None,
        }
    }

    /// For a slot that is known to hold a connection.
    #[inline]
    pub(crate) fn conn_at(&self, index: usize) -> &Conn {
        match self.entries.get(index) {
            Some(Entry::Conn(conn)) => conn,
            _ => unreachable!("the slot of a connection that is being served"),
        }
    }

    #[inline]
    pub(crate) fn conn_at_mut(&mut self, index: usize) -> &mut Conn {
        match self.entries.get_mut(index) {
            Some(Entry::Conn(conn)) => conn,
            _ => unreachable!("the slot of a connection that is being served"),
        }
    }

    pub(crate) fn listener(&mut self, key: Key) -> Option<&mut Listening> {
        match self.get_mut(key) {
            Some(Entry::Listener(listening)) => Some(listening),
            _ => None,
        }
    }

    pub(crate) fn dispatcher(&mut self, key: Key) -> Option<&mut Dispatching> {
        match self.get_mut(key) {
            Some(Entry::Dispatcher(dispatching)) => Some(dispatching),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn datagrams(&mut self, key: Key) -> Option<&mut DatagramSocket> {
        match self.entries.get_mut(key.index()) {
            Some(Entry::Datagrams(socket)) if socket.key == key => Some(socket),
            _ => None,
        }
    }

    /// Of all that are there now: what is done to one may add others, or take them away.
    pub(crate) fn all_keys(&self) -> Vec<Key> {
        self.keys().collect()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.iter().filter_map(|(_, entry)| entry.key())
    }

    pub(crate) fn conns(&self) -> impl Iterator<Item = &Conn> {
        self.entries.iter().filter_map(|(_, entry)| if let Entry::Conn(conn) = entry { Some(conn) } else { None })
    }

    #[cfg(debug_assertions)]
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listening> {
        self.entries
            .iter()
            .filter_map(|(_, entry)| if let Entry::Listener(listening) = entry { Some(&**listening) } else { None })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, time::Time};

    fn open(slots: &mut Slots) -> Key {
        let key = slots.next_key().expect("room");
        slots.insert(Conn::new(key, None, Address::Fd, Time::default()));
        key
    }

    #[test]
    fn a_slot_is_used_again_and_its_old_key_finds_nothing() {
        let mut slots = Slots::default();
        let old = open(&mut slots);
        slots.remove(old.index());
        let new = open(&mut slots);
        assert_eq!(old.index(), new.index());
        assert!(slots.conn(old).is_none() && slots.conn(new).is_some());
    }

    #[test]
    fn a_stale_key_stays_stale() {
        let mut slots = Slots::default();
        let stale = slots.stale_key();
        let live = open(&mut slots);
        assert_ne!(stale, live);
        assert!(slots.get(stale).is_none());
    }

    #[test]
    fn a_slot_whose_serial_would_wrap_is_retired() {
        let mut slots = Slots::default();
        let first = open(&mut slots);
        slots.remove(first.index());
        slots.serials[0] = NonZeroU32::new((1 << 24) - 1).expect("not zero");
        let last = open(&mut slots);
        assert_eq!(last.index(), 0);
        slots.remove(last.index());
        assert_eq!(open(&mut slots).index(), 1);
        assert!(slots.conn(last).is_none());
    }

    #[test]
    fn keys_of_two_reactors_differ_however_often_a_slot_is_used() {
        for number in [0, 1, 254, 255] {
            let (mut one, mut next) = (Slots::new(Number(number)), Slots::new(Number(number.wrapping_add(1))));
            let first = open(&mut next);
            for _ in 0..3 {
                let key = open(&mut one);
                assert_eq!(key.index(), first.index());
                assert!(key != first && next.get(key).is_none() && one.get(first).is_none());
                one.remove(0);
            }
        }
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back_and_keeps_its_serials() {
        let mut slots = Slots::default();
        let stays = open(&mut slots);
        let all: Vec<Key> = (0..3000).map(|_| open(&mut slots)).collect();
        for key in &all {
            slots.remove(key.index());
        }
        assert!(slots.capacity() <= SHRINK_MIN && slots.conn(stays).is_some());
        let again = open(&mut slots);
        assert!(all.iter().all(|&key| key != again && slots.conn(key).is_none()));
    }

    #[test]
    fn memory_is_given_back_at_a_quarter_and_then_at_each_half() {
        let mut slots = Slots::default();
        let keys: Vec<Key> = (0..8000).map(|_| open(&mut slots)).collect();
        let full = slots.capacity();
        assert!(full >= 8000);
        // Removes from the end until this many are left, and returns how many there is room for then.
        let mut len = keys.len();
        let mut down_to = |left: usize| {
            keys[left..len].iter().rev().for_each(|key| drop(slots.remove(key.index())));
            len = left;
            assert_eq!(slots.len(), left);
            slots.capacity()
        };
        assert_eq!(down_to(2001), full);
        assert!((2000..3000).contains(&down_to(2000)));
        assert!((2000..3000).contains(&down_to(1001)));
        assert!((1000..1500).contains(&down_to(1000)));
        assert!((1000..1500).contains(&down_to(0)), "so little is kept");
    }

    #[test]
    fn little_memory_is_kept() {
        let mut slots = Slots { entries: Slab::with_capacity(SHRINK_MIN), ..Slots::default() };
        let key = open(&mut slots);
        slots.remove(key.index());
        assert_eq!(slots.capacity(), SHRINK_MIN);
    }

    #[test]
    fn what_is_open_is_found_by_its_key_and_as_what_it_is() {
        let mut slots = Slots::default();
        let stale = slots.stale_key();
        let conn = open(&mut slots);
        let watched = slots.next_key().expect("room");
        slots.insert(Dispatching::new(watched, true));
        for key in [conn, watched] {
            assert!(slots.get(key).is_some() && slots.get_mut(key).is_some() && slots.at(key.index()).is_some());
            assert_eq!((slots.conn(key).is_some(), slots.conn_mut(key).is_some()), (key == conn, key == conn));
            assert_eq!(slots.dispatcher(key).is_some(), key == watched);
            assert!(slots.listener(key).is_none());
        }
        assert_eq!((slots.conn_at(conn.index()).key, slots.conn_at_mut(conn.index()).key), (conn, conn));
        assert!(slots.get(stale).is_none() && slots.get_mut(stale).is_none());
        assert!(slots.conn(stale).is_none() && slots.conn_mut(stale).is_none());
        assert_eq!(slots.keys().collect::<Vec<_>>(), [conn, watched]);
        assert_eq!(slots.conns().map(|conn| conn.key).collect::<Vec<_>>(), [conn]);
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn a_connection_takes_few_bytes() {
        assert!(size_of::<Entry>() <= 192, "{}", size_of::<Entry>());
    }
}
