//! The heap of timers against a list that is searched from end to end.

use super::Tape;
use mainspring::{
    Timer,
    inside::{NO_TIMER, Timers, key},
};

/// How many owners the timers have; each holds its own in a chain.
const OWNERS: usize = 3;

/// More do not find more.
const TIMERS_MAX: usize = 600;

#[derive(Clone, Copy)]
struct Entry {
    deadline: u64,
    order: u64,
    timer: Timer,
    owner: Option<usize>,
}

#[derive(Default)]
struct Pair {
    timers: Timers,
    heads: [Option<u32>; OWNERS],
    model: Vec<Entry>,
    /// Names of timers that are set no more.
    gone: Vec<Timer>,
    order: u64,
    now: u64,
}

/// Setting, setting again, cancelling, firing and chaining, in any order.
pub fn timers(data: &[u8]) {
    let (mut tape, mut pair) = (Tape::new(data), Pair::default());
    while !tape.is_over() {
        pair.step(&mut tape);
        pair.check(&mut tape);
    }
    while let Some(entry) = pair.model.pop() {
        pair.cancel(entry);
    }
    assert_eq!(pair.timers.next(), None, "nothing is left behind");
}

impl Pair {
    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(10) {
            0..4 => {
                for _ in 0..if tape.once_in(16) { 200 } else { 1 } {
                    self.set(tape);
                }
            }
            4 => {
                if let Some(at) = self.choose(tape) {
                    let entry = self.model.swap_remove(at);
                    self.cancel(entry);
                }
            }
            5 => {
                if let Some(at) = self.choose(tape) {
                    let deadline = self.deadline(tape);
                    let order = self.next_order();
                    let entry = &mut self.model[at];
                    (entry.deadline, entry.order) = (deadline, order);
                    self.timers.set_again(entry.timer, deadline);
                }
            }
            6 => self.stale(tape),
            _ => {
                self.now = self.now.saturating_add(tape.number());
                self.fire(tape);
            }
        }
    }

    fn choose(&self, tape: &mut Tape<'_>) -> Option<usize> {
        let at = tape.below(256);
        if self.model.is_empty() { None } else { Some(at % self.model.len()) }
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order - 1
    }

    fn deadline(&self, tape: &mut Tape<'_>) -> u64 {
        self.now.saturating_add(tape.number())
    }

    fn set(&mut self, tape: &mut Tape<'_>) {
        if self.model.len() >= TIMERS_MAX {
            return;
        }
        let (deadline, order) = (self.deadline(tape), self.next_order());
        let owner = Some(tape.below(OWNERS + 1)).filter(|&owner| owner < OWNERS);
        let timer = self.timers.set(deadline, owner.map(key));
        if let Some(owner) = owner {
            self.heads[owner] = Some(self.timers.link(self.head(owner), timer));
        }
        self.model.push(Entry { deadline, order, timer, owner });
    }

    fn head(&self, owner: usize) -> u32 {
        self.heads[owner].unwrap_or(NO_TIMER)
    }

    fn cancel(&mut self, Entry { timer, owner, .. }: Entry) {
        assert_eq!(self.timers.owner(timer), owner.map(key));
        if let Some(owner) = owner {
            self.heads[owner] = Some(self.timers.unlink(self.head(owner), timer));
        }
        assert_eq!(self.timers.cancel(timer), Some(owner.map(key)));
        assert_eq!(self.timers.cancel(timer), None);
        self.gone.push(timer);
    }

    /// A name that names nothing changes nothing.
    fn stale(&mut self, tape: &mut Tape<'_>) {
        let timer = if tape.once_in(2) {
            self.next_order();
            self.timers.stale()
        } else {
            let at = tape.below(256);
            let Some(&timer) = self.gone.get(at % self.gone.len().max(1)) else { return };
            timer
        };
        assert!(!self.timers.is_set(timer));
        assert_eq!(self.timers.cancel(timer), None);
        assert_eq!(self.timers.owner(timer), None);
        self.timers.set_again(timer, self.now);
    }

    /// All that is due now and was set before; what is set or set again meanwhile is not.
    fn fire(&mut self, tape: &mut Tape<'_>) {
        let (mark, now) = (self.timers.mark(), self.now);
        let mut due: Vec<Entry> = self.model.iter().filter(|entry| entry.deadline <= now).copied().collect();
        due.sort_unstable_by_key(|entry| (entry.deadline, entry.order));
        for entry in due {
            let fired = self.timers.due(now, mark).expect("one is due");
            assert_eq!(fired, (entry.timer, entry.deadline));
            let at = self.model.iter().position(|other| other.timer == entry.timer).expect("it is set");
            match tape.below(4) {
                0 => {
                    let order = self.next_order();
                    self.model[at].order = order;
                    self.model[at].deadline = now;
                    self.timers.set_again(entry.timer, now);
                }
                1 => {
                    self.set(tape);
                    self.model.swap_remove(at);
                    self.cancel(entry);
                }
                _ => {
                    self.model.swap_remove(at);
                    self.cancel(entry);
                }
            }
        }
        assert!(self.timers.due(now, mark).is_none(), "one fires that is not due, or was set meanwhile");
    }

    fn check(&self, tape: &mut Tape<'_>) {
        assert_eq!(self.timers.next(), self.model.iter().map(|entry| entry.deadline).min());
        assert_eq!(self.timers.mark(), self.order);
        if tape.once_in(8) {
            for entry in &self.model {
                assert!(self.timers.is_set(entry.timer));
            }
            for owner in 0..OWNERS {
                let newest = self.timers.at_head(self.head(owner));
                assert_eq!(newest.is_some(), self.model.iter().any(|entry| entry.owner == Some(owner)));
                assert!(newest.is_none_or(|timer| self.timers.owner(timer) == Some(key(owner))));
            }
        }
    }
}
