//! Every timer of one reactor: a 4-ary heap whose entries can be found again, so that cancelling takes O(log n) and leaves
//! nothing behind, memory included, whichever timers remain. `now` is an argument. What a timer does is not known here: see
//! `TimerKind`.

use crate::{
    key::{Key, Number, Timer},
    rate::Way,
    room::is_sparse,
    time::Time,
};
use slab::Slab;
use std::collections::BinaryHeap;

/// What a timer wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerKind {
    /// A job of the program.
    Job,
    /// A job of one connection, which is dropped with it.
    Owned(Key),
    /// The time-outs of one connection, which are told to its protocol.
    Clocks(Key),
    /// Something of an entry's own, which calls nobody.
    Entry(Key, Cue),
    /// The next of those that wait for a rate that they share.
    SharedRate(usize),
    /// The end of a drain's grace.
    Grace,
}

/// What an entry has asked to be reminded of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    /// To try again what could not be done: accepting, for want of descriptors or memory; connecting, for want of backlog.
    TryAgain,
    /// To try the next address of a name.
    NextAddress,
    /// Its rate limit was used up, and is not any more.
    Rate(Way),
}

/// Four children share a cache line and a half; measured against two, sifting is a third cheaper at a million.
const ARITY: usize = 4;

/// No timer: the end of a chain.
pub(crate) const NO_TIMER: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: Time,
    /// Timers of one deadline fire in the order in which they were set.
    order: u64,
    index: u32,
}

impl Node {
    fn rank(&self) -> (Time, u64) {
        (self.deadline, self.order)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    serial: u64,
    /// `heap[at].index` is this slot.
    at: u32,
    what: TimerKind,
    /// The other timers of the same owner; `NO_TIMER` at both ends.
    before: u32,
    after: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// No node ranks before its parent, `heap[(n - 1) / ARITY]`.
    heap: Vec<Node>,
    slots: Slab<Slot>,
    set_so_far: u64,
    /// By serial: where the timers that were moved together are now; some of them may be gone.
    /// moved.len() <= slots.capacity()
    moved: Vec<(u64, u32)>,
}

/// A timer that is due. It stays set until it is cancelled or set again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) timer: Timer,
    pub(crate) deadline: Time,
    pub(crate) what: TimerKind,
}

impl Timers {
    pub(crate) fn new(number: Number) -> Self {
        Self { set_so_far: number.first_timer(), ..Self::default() }
    }

    pub(crate) fn set(&mut self, deadline: Time, what: TimerKind) -> Timer {
        let order = self.next_order();
        let slot = Slot { serial: order, at: 0, what, before: NO_TIMER, after: NO_TIMER };
        let index = u32::try_from(self.slots.insert(slot)).expect("fewer timers than 2^32");
        self.heap.push(Node { deadline, order, index });
        self.sift_up(self.heap.len() - 1);
        Timer { index, serial: order }
    }

    /// Sets it again under the same name, for another deadline. It ranks behind all that were set before.
    pub(crate) fn set_again(&mut self, timer: Timer, deadline: Time) {
        let Some(index) = self.index(timer) else { return };
        let (at, order) = (self.slots[index as usize].at as usize, self.next_order());
        self.heap[at] = Node { deadline, order, index };
        self.sift(at);
    }

    /// Returns what it would have woken, if it was still set.
    pub(crate) fn cancel(&mut self, timer: Timer) -> Option<TimerKind> {
        let slot = self.slots.remove(self.index(timer)? as usize);
        let at = slot.at as usize;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.sift(at);
        }
        Some(slot.what)
    }

    /// The connection that it is dropped with.
    pub(crate) fn owner(&self, timer: Timer) -> Option<Key> {
        match self.slots[self.index(timer)? as usize].what {
            TimerKind::Owned(key) => Some(key),
            _ => None,
        }
    }

    /// If it is set, and is the program's (a name of another reactor may be one of the loop's own): the same timer under the
    /// index that it has now.
    pub(crate) fn job(&self, timer: Timer) -> Option<Timer> {
        let index = self.index(timer)?;
        let is_job = matches!(self.slots[index as usize].what, TimerKind::Job | TimerKind::Owned(_));
        is_job.then_some(Timer { index, ..timer })
    }

    /// A name that is not set, and never was.
    pub(crate) fn stale(&mut self) -> Timer {
        Timer { index: NO_TIMER, serial: self.next_order() }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.index(timer).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.first().map(|node| node.deadline)
    }

    /// Timers set from here on belong to a later turn.
    pub(crate) fn mark(&self) -> u64 {
        self.set_so_far
    }

    /// The first timer due at `now` of those set before `mark`. A timer set later ranks behind, as long as nobody sets one
    /// for a time that has passed.
    pub(crate) fn due(&self, now: Time, mark: u64) -> Option<Due> {
        let node = self.heap.first().filter(|node| node.deadline <= now && node.order < mark)?;
        let slot = &self.slots[node.index as usize];
        let timer = Timer { index: node.index, serial: slot.serial };
        Some(Due { timer, deadline: node.deadline, what: slot.what })
    }

    /// Puts a timer into the chain that begins at `head`; returns the new head.
    pub(crate) fn link(&mut self, head: u32, timer: Timer) -> u32 {
        let Some(index) = self.index(timer) else { return head };
        self.slots[index as usize].after = head;
        if head != NO_TIMER {
            self.slots[head as usize].before = index;
        }
        index
    }

    /// Takes a timer that is set out of the chain that begins at `head`; returns the new head.
    pub(crate) fn unlink(&mut self, head: u32, timer: Timer) -> u32 {
        let Some(index) = self.index(timer) else { return head };
        let Slot { before, after, .. } = self.slots[index as usize];
        if before != NO_TIMER {
            self.slots[before as usize].after = after;
        }
        if after != NO_TIMER {
            self.slots[after as usize].before = before;
        }
        if head == index { after } else { head }
    }

    /// The timer at the head of a chain.
    pub(crate) fn at_head(&self, head: u32) -> Option<Timer> {
        let slot = self.slots.get(head as usize).filter(|_| head != NO_TIMER)?;
        Some(Timer { index: head, serial: slot.serial })
    }

    /// Where a timer that is set is: where it was set, unless it was moved since.
    #[inline]
    fn index(&self, timer: Timer) -> Option<u32> {
        if self.has(timer.index, timer.serial) { Some(timer.index) } else { self.index_of_moved(timer.serial) }
    }

    #[inline]
    fn has(&self, index: u32, serial: u64) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| slot.serial == serial)
    }

    #[cold]
    fn index_of_moved(&self, serial: u64) -> Option<u32> {
        let at = self.moved.binary_search_by_key(&serial, |&(serial, _)| serial).ok()?;
        Some(self.moved[at].1).filter(|&index| self.has(index, serial))
    }

    /// Whether so many places are empty that it is worth moving together what is left.
    #[inline]
    pub(crate) fn is_sparse(&self) -> bool {
        is_sparse(self.heap.len(), self.slots.capacity())
    }

    /// Moves all timers together, so that memory can be given back whichever of them are left, and returns each old and new
    /// place, in order: none moves up. Their names stay valid. `headed` is told where the chain of an owner begins now.
    pub(crate) fn move_together(&mut self, mut headed: impl FnMut(Key, u32)) -> Vec<(u32, u32)> {
        let old = std::mem::take(&mut self.slots);
        let mut moves = Vec::with_capacity(self.heap.len());
        for ((index, slot), new) in old.iter().zip(0..) {
            self.heap[slot.at as usize].index = new;
            moves.push((index as u32, new));
        }
        let whither = |index| if index == NO_TIMER { index } else { self.heap[old[index as usize].at as usize].index };
        self.slots = Slab::with_capacity(moves.len());
        self.moved = Vec::with_capacity(moves.len());
        for (_, slot) in &old {
            let slot = Slot { before: whither(slot.before), after: whither(slot.after), ..*slot };
            let index = self.slots.insert(slot) as u32;
            self.moved.push((slot.serial, index));
            match slot.what {
                TimerKind::Owned(key) if slot.before == NO_TIMER => headed(key, index),
                _ => {}
            }
        }
        self.moved = BinaryHeap::from(std::mem::take(&mut self.moved)).into_sorted_vec(); // less code than a sort, and it is rare
        self.heap.shrink_to_fit();
        moves
    }

    fn next_order(&mut self) -> u64 {
        self.set_so_far += 1;
        self.set_so_far - 1
    }

    fn sift(&mut self, at: usize) {
        if at > 0 && self.heap[at].rank() < self.heap[(at - 1) / ARITY].rank() {
            self.sift_up(at);
        } else {
            self.sift_down(at);
        }
    }

    fn sift_up(&mut self, mut at: usize) {
        let node = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].rank() <= node.rank() {
                break;
            }
            self.place(at, self.heap[parent]);
            at = parent;
        }
        self.place(at, node);
    }

    fn sift_down(&mut self, mut at: usize) {
        let node = self.heap[at];
        loop {
            let first = at * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].rank()) else { break };
            if node.rank() <= self.heap[least].rank() {
                break;
            }
            self.place(at, self.heap[least]);
            at = least;
        }
        self.place(at, node);
    }

    fn place(&mut self, at: usize, node: Node) {
        self.heap[at] = node;
        self.slots[node.index as usize].at = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::KEPT_MAX;
    use std::num::NonZeroU32;

    fn fire_all(timers: &mut Timers, now: Time) -> Vec<Timer> {
        let (mark, mut fired) = (timers.mark(), Vec::new());
        while let Some(due) = timers.due(now, mark) {
            timers.cancel(due.timer);
            fired.push(due.timer);
        }
        fired
    }

    #[test]
    fn they_fire_in_order_of_deadline_then_of_setting() {
        let mut timers = Timers::default();
        let late = timers.set(Time(9), TimerKind::Job);
        let first = timers.set(Time(5), TimerKind::Job);
        let second = timers.set(Time(5), TimerKind::Job);
        assert_eq!(timers.next(), Some(Time(5)));
        assert_eq!(fire_all(&mut timers, Time(4)), []);
        assert_eq!(fire_all(&mut timers, Time(20)), [first, second, late]);
    }

    #[test]
    fn one_set_after_the_mark_waits_for_a_later_turn() {
        let mut timers = Timers::default();
        let mark = timers.mark();
        timers.set(Time(1), TimerKind::Job);
        assert!(timers.due(Time(9), mark).is_none());
        assert!(timers.due(Time(9), timers.mark()).is_some());
    }

    #[test]
    fn a_stale_name_finds_nothing() {
        let mut timers = Timers::default();
        let old = timers.set(Time(1), TimerKind::Job);
        assert_eq!(timers.cancel(old), Some(TimerKind::Job));
        let new = timers.set(Time(1), TimerKind::Job);
        assert_eq!(old.index, new.index);
        assert_eq!(timers.cancel(old), None);
        assert!(timers.is_set(new));
    }

    #[test]
    fn a_timer_says_whose_it_is_until_it_is_cancelled() {
        let mut timers = Timers::default();
        let key = Key::new(3, NonZeroU32::MIN);
        let kinds = [
            (TimerKind::Job, true, None),
            (TimerKind::Owned(key), true, Some(key)),
            (TimerKind::Clocks(key), false, None),
            (TimerKind::Entry(key, Cue::TryAgain), false, None),
            (TimerKind::Entry(key, Cue::Rate(Way::Out)), false, None),
            (TimerKind::Grace, false, None),
        ];
        let all = kinds.map(|(what, ..)| timers.set(Time(1), what));
        assert_eq!(timers.len(), all.len());
        for (timer, (what, is_job, owner)) in all.into_iter().zip(kinds) {
            let job = is_job.then_some(timer);
            assert_eq!((timers.is_set(timer), timers.job(timer), timers.owner(timer)), (true, job, owner), "{what:?}");
            assert_eq!(timers.cancel(timer), Some(what));
            assert_eq!((timers.is_set(timer), timers.job(timer), timers.owner(timer)), (false, None, None), "{what:?}");
        }
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn a_name_that_was_never_set_is_not_given_to_another() {
        let mut timers = Timers::default();
        let stale = [timers.stale(), timers.stale()];
        assert_ne!(stale[0], stale[1]);
        let set = timers.set(Time(1), TimerKind::Job);
        assert!(stale.iter().all(|&stale| stale != set && !timers.is_set(stale)));
    }

    /// The timers of the chain that begins at `head`.
    fn chain(timers: &Timers, head: u32) -> Vec<Timer> {
        let after = |timer: &Timer| timers.at_head(timers.slots[timer.index as usize].after);
        std::iter::successors(timers.at_head(head), after).collect()
    }

    #[test]
    fn a_chain_loses_its_head_its_middle_and_its_end() {
        let mut timers = Timers::default();
        let all: Vec<Timer> = (0..4).map(|n| timers.set(Time(n), TimerKind::Job)).collect();
        let mut head = all.iter().fold(NO_TIMER, |head, &timer| timers.link(head, timer));
        let mut left: Vec<Timer> = all.iter().rev().copied().collect();
        assert_eq!(chain(&timers, head), left);
        for gone in [all[3], all[1], all[0], all[2]] {
            head = timers.unlink(head, gone);
            timers.cancel(gone);
            left.retain(|&timer| timer != gone);
            assert_eq!(chain(&timers, head), left);
        }
        assert_eq!(head, NO_TIMER);
    }

    /// Where a timer is may change, and with it the index of its name.
    fn serials(timers: &[Timer]) -> Vec<u64> {
        timers.iter().map(|timer| timer.serial).collect()
    }

    #[test]
    fn it_agrees_with_a_sorted_list_over_random_operations_and_moves() {
        let (mut timers, mut model) = (Timers::default(), Vec::<(Time, u64, Timer)>::new());
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        let mut now = Time(0);
        for order in 0..60_000_u64 {
            match random(8) {
                0..4 => {
                    let deadline = Time(now.0 + random(1000));
                    let timer = timers.set(deadline, TimerKind::Job);
                    model.push((deadline, order, timer));
                }
                4..6 if !model.is_empty() => {
                    let (_, _, timer) = model.swap_remove(random(model.len() as u64) as usize);
                    assert_eq!(timers.cancel(timer), Some(TimerKind::Job));
                }
                6 if !model.is_empty() => {
                    let at = random(model.len() as u64) as usize;
                    model[at] = (Time(now.0 + random(1000)), order, model[at].2);
                    timers.set_again(model[at].2, model[at].0);
                }
                _ => {
                    now.0 += random(200);
                    model.sort_unstable_by_key(|&(deadline, order, _)| (deadline, order));
                    let due = model.iter().take_while(|(deadline, ..)| *deadline <= now).count();
                    let expected: Vec<Timer> = model.drain(..due).map(|(.., timer)| timer).collect();
                    let fired = fire_all(&mut timers, now);
                    assert_eq!(serials(&fired), serials(&expected));
                }
            }
            assert_eq!(timers.heap.len(), model.len());
            if order % 97 == 0 {
                timers.move_together(|_, _| ());
            }
        }
    }

    /// As the loop does when no callback runs.
    fn tidy(timers: &mut Timers) {
        if timers.is_sparse() {
            timers.move_together(|_, _| ());
        }
    }

    fn assert_small(timers: &Timers) {
        let room = [timers.heap.capacity(), timers.slots.capacity(), timers.moved.capacity()];
        assert!(room.iter().all(|&room| room <= KEPT_MAX), "{room:?}");
    }

    #[test]
    fn memory_is_given_back_whichever_timer_is_left() {
        for lives in [0, 1, 50_000, 99_999] {
            for backwards in [false, true] {
                let mut timers = Timers::default();
                let mut all: Vec<Timer> = (0..100_000).map(|n| timers.set(Time(n), TimerKind::Job)).collect();
                let living = all.remove(lives);
                if backwards {
                    all.reverse();
                }
                for (n, &timer) in all.iter().enumerate() {
                    assert_eq!(timers.cancel(timer), Some(TimerKind::Job));
                    if n % 1000 == 0 {
                        tidy(&mut timers);
                    }
                }
                tidy(&mut timers);
                assert_small(&timers);
                assert!(timers.is_set(living) && all.iter().all(|&timer| !timers.is_set(timer)));
                timers.set_again(living, Time(7));
                assert_eq!(timers.due(Time(7), timers.mark()).map(|due| due.deadline), Some(Time(7)));
                assert_eq!((timers.cancel(living), timers.len()), (Some(TimerKind::Job), 0));
            }
        }
    }

    #[test]
    fn what_was_moved_is_forgotten_when_it_is_gone() {
        let mut timers = Timers::default();
        let all: Vec<Timer> = (0..100_000).map(|n| timers.set(Time(n), TimerKind::Job)).collect();
        all[20_000..].iter().for_each(|&timer| assert!(timers.cancel(timer).is_some()));
        tidy(&mut timers);
        assert_eq!(timers.moved.len(), 20_000);
        all[1..20_000].iter().for_each(|&timer| assert!(timers.cancel(timer).is_some()));
        tidy(&mut timers);
        assert_small(&timers);
        assert!(timers.is_set(all[0]));
    }

    #[test]
    fn the_chains_of_owners_are_whole_after_a_move() {
        let mut timers = Timers::default();
        let keys = [1, 2, 3].map(|index| Key::new(index, NonZeroU32::MIN));
        let mut heads = [NO_TIMER; 3];
        let mut chains: [Vec<Timer>; 3] = Default::default();
        for n in 0..5000_usize {
            let (owner, others) = (n % 3, timers.set(Time(n as u64), TimerKind::Job));
            let timer = timers.set(Time(n as u64 / 7), TimerKind::Owned(keys[owner]));
            heads[owner] = timers.link(heads[owner], timer);
            chains[owner].insert(0, timer);
            timers.cancel(others);
            if n % 4 != 0 {
                heads[owner] = timers.unlink(heads[owner], timer);
                timers.cancel(timer);
                chains[owner].remove(0);
            }
        }
        timers.move_together(|key, head| heads[key.index() - 1] = head);
        for (head, expected) in heads.iter_mut().zip(&mut chains) {
            let serials = |timers: &Timers, head| chain(timers, head).iter().map(|timer| timer.serial).collect::<Vec<_>>();
            while !expected.is_empty() {
                assert_eq!(serials(&timers, *head), expected.iter().map(|timer| timer.serial).collect::<Vec<_>>());
                let gone = expected.remove(expected.len() / 2);
                *head = timers.unlink(*head, gone);
                assert!(timers.cancel(gone).is_some());
            }
            assert_eq!(*head, NO_TIMER);
        }
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn little_memory_is_kept() {
        let (heap, slots) = (Vec::with_capacity(KEPT_MAX), Slab::with_capacity(KEPT_MAX));
        let mut timers = Timers { heap, slots, ..Timers::default() };
        let timer = timers.set(Time(1), TimerKind::Job);
        timers.cancel(timer);
        assert!(!timers.is_sparse());
        assert_eq!((timers.heap.capacity(), timers.slots.capacity()), (KEPT_MAX, KEPT_MAX));
    }
}
