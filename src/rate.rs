//! Rate limits: a token bucket for each direction of a connection, and one that all connections of a listener share. `now`
//! is an argument. Which connection reads or writes is not known here.

use crate::{
    key::{Key, Timer},
    room::Room,
    time::Time,
};
use std::collections::VecDeque;

/// A full bucket is worth this much time at its rate: what leaves at once after a silence, and how late the loop may be
/// without losing any of the rate.
const BURST_MILLIS: u64 = 250;

/// Less than what is due in this time is not worth a system call: it is waited for.
const PORTION_MILLIS: u64 = 20;

/// Levels are counted in these, so that a nanosecond's worth of a byte a second is not lost.
const PARTS: u128 = 1_000_000_000;

/// In any time `t` no more than `rate * t` plus a full bucket is taken out; in the long run, if there is always demand for
/// more, no less than `rate * t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Bytes per second, at least one.
    rate: u64,
    /// In parts of a byte, at `since`. level <= full
    level: u128,
    since: Time,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: u64, now: Time) -> Self {
        let rate = rate.max(1);
        Self { rate, level: full(rate), since: now }
    }

    /// Has another rate from now on. What is in it stays, as far as it fits: the next look cuts it.
    pub(crate) fn at_rate(mut self, rate: u64, now: Time) -> Self {
        self.fill(now);
        Self { rate: rate.max(1), ..self }
    }

    /// How many bytes may be moved now.
    pub(crate) fn allowed(&mut self, now: Time) -> usize {
        self.fill(now);
        bytes(self.level)
    }

    /// This many were moved. If they were more than allowed, nothing is left.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub(bytes as u128 * PARTS);
    }

    /// When enough is in it to be worth moving: now, or later.
    pub(crate) fn ready_at(&mut self, now: Time) -> Time {
        self.reaches_at(portion(self.rate), now)
    }

    /// When it is this full: now, or later. level <= full
    fn reaches_at(&mut self, level: u128, now: Time) -> Time {
        self.fill(now);
        let missing = level.saturating_sub(self.level);
        if missing == 0 {
            return now;
        }
        let nanos = u64::try_from(missing.div_ceil(u128::from(self.rate))).expect("it is full within a second");
        Time(self.since.0.saturating_add(nanos))
    }

    fn fill(&mut self, now: Time) {
        let passed = now.0.saturating_sub(self.since.0);
        self.level = self.level.saturating_add(u128::from(passed) * u128::from(self.rate)).min(full(self.rate));
        self.since = self.since.max(now);
    }
}

/// A full bucket. At least a byte fits, or the slowest rates would allow nothing.
fn full(rate: u64) -> u128 {
    worth(rate, BURST_MILLIS)
}

fn portion(rate: u64) -> u128 {
    worth(rate, PORTION_MILLIS)
}

fn bytes(parts: u128) -> usize {
    usize::try_from(parts / PARTS).unwrap_or(usize::MAX)
}

fn worth(rate: u64, millis: u64) -> u128 {
    (u128::from(rate) * u128::from(millis) * (PARTS / 1000)).max(PARTS)
}

/// A bucket that many share, and those that wait for it, in the order in which they came.
///
/// A connection that wants more than there is waits behind the others. When there is a portion, the one that has waited
/// longest is let go: a share is kept for it, which it uses once, or gives back. So all that always want more get the same,
/// and none starves.
#[derive(Debug)]
pub(crate) struct SharedRate {
    pub(crate) way: Way,
    bucket: Bucket,
    /// Bytes kept for those that were let go. kept * PARTS <= bucket.level
    kept: usize,
    /// In the order of their tickets.
    waiting: VecDeque<(u64, Key)>,
    tickets: u64,
    /// Set while something waits, and nothing that is kept for others has still to come back.
    pub(crate) timer: Option<Timer>,
    /// Its listener, and the connections that share it: the last one takes it along.
    pub(crate) users: usize,
}

impl SharedRate {
    pub(crate) fn new(way: Way, rate: u64, now: Time) -> Self {
        let bucket = Bucket::new(rate, now);
        Self { way, bucket, kept: 0, waiting: VecDeque::new(), tickets: 0, timer: None, users: 1 }
    }

    /// How many bytes may be moved now by a connection that nothing is kept for. 0: it has to wait.
    pub(crate) fn allowed(&mut self, now: Time) -> usize {
        if self.waiting.is_empty() && self.has_portion(now) { bytes(self.free(now)) } else { 0 }
    }

    /// It waits behind all others, under the ticket.
    pub(crate) fn wait(&mut self, key: Key) -> u64 {
        self.tickets += 1;
        self.waiting.push_back((self.tickets, key));
        self.tickets
    }

    /// It does not wait any more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |&(ticket, _)| ticket) {
            self.waiting.remove(at);
            self.waiting.give_back();
        }
    }

    /// Whose turn it is, and what is kept for it. It does not wait any more.
    pub(crate) fn next(&mut self, now: Time) -> Option<(Key, usize)> {
        if !self.has_portion(now) {
            return None;
        }
        let among = self.waiting.len() as u128;
        let (_, key) = self.waiting.pop_front()?;
        self.waiting.give_back();
        let share = bytes((self.free(now) / among).max(portion(self.bucket.rate)));
        self.kept += share;
        Some((key, share))
    }

    /// This many bytes were moved by a connection that a share was kept for, or 0. If they were more than there were,
    /// nothing is left.
    pub(crate) fn moved(&mut self, share: usize, bytes: usize) {
        self.kept -= share;
        let kept = self.kept as u128 * PARTS;
        self.bucket.level = (self.bucket.level.saturating_sub(bytes as u128 * PARTS)).max(kept);
    }

    /// When to look for the next one, if there is one. Perhaps a share has to be used or given back first.
    pub(crate) fn ready_at(&mut self, now: Time) -> Option<Time> {
        let level = self.kept as u128 * PARTS + portion(self.bucket.rate);
        (!self.waiting.is_empty() && level <= full(self.bucket.rate)).then(|| self.bucket.reaches_at(level, now))
    }

    fn has_portion(&mut self, now: Time) -> bool {
        self.free(now) >= portion(self.bucket.rate)
    }

    /// In parts of a byte.
    fn free(&mut self, now: Time) -> u128 {
        self.bucket.fill(now);
        self.bucket.level - self.kept as u128 * PARTS
    }

    #[cfg(debug_assertions)]
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    #[cfg(debug_assertions)]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (u64, Key)> + '_ {
        self.waiting.iter().copied()
    }
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Rates([Rate; 2]);

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    pub(crate) bucket: Option<Bucket>,
    /// Set while the bucket holds too little.
    pub(crate) timer: Option<Timer>,
    /// What its listener sets for each connection: a successor begins with it.
    pub(crate) default: Option<u64>,
    /// Which one it shares with the other connections of its listener.
    pub(crate) shared: Option<usize>,
    /// Its ticket while it waits for the shared one.
    pub(crate) ticket: Option<u64>,
    /// How many bytes of the shared one are kept for it.
    pub(crate) share: usize,
}

impl Rates {
    pub(crate) fn of(&mut self, way: Way) -> &mut Rate {
        &mut self.0[way as usize]
    }

    pub(crate) fn get(&self, way: Way) -> &Rate {
        &self.0[way as usize]
    }

    /// Nothing is limited, nor will be.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.iter().all(|rate| rate.bucket.is_none() && rate.default.is_none() && rate.shared.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Takes all that it can as soon as it is worth it, until `end`.
    fn taken(bucket: &mut Bucket, from: u64, end: u64) -> usize {
        let (mut now, mut sum) = (Time(from), 0);
        loop {
            let ready = bucket.ready_at(now);
            if ready > Time(end) {
                return sum;
            }
            now = ready;
            let allowed = bucket.allowed(now);
            assert!(allowed > 0, "a bucket that is ready has something");
            bucket.take(allowed);
            sum += allowed;
        }
    }

    #[test]
    fn in_the_long_run_it_is_the_rate_and_a_full_bucket() {
        for rate in [1, 3, 7, 50, 999, 1_000, 123_457, 1 << 30, 100_000_000_000] {
            let mut bucket = Bucket::new(rate, Time(0));
            let most = rate as usize * 100 + (rate as usize / 4).max(1);
            let sum = taken(&mut bucket, 0, 100 * SECOND);
            let last_portion = (rate as usize / 50).max(1);
            assert!((most - last_portion..=most).contains(&sum), "{rate}: {sum} instead of {most}");
        }
    }

    #[test]
    fn silence_is_saved_up_to_a_full_bucket_only() {
        let mut bucket = Bucket::new(1_000, Time(0));
        assert_eq!(bucket.allowed(Time(3_600 * SECOND)), 250);
        bucket.take(250);
        assert_eq!(bucket.allowed(Time(3_600 * SECOND)), 0);
        assert_eq!(bucket.allowed(Time(3_601 * SECOND - SECOND / 2 - SECOND / 4)), 250);
    }

    #[test]
    fn it_is_ready_exactly_when_a_portion_is_in_it() {
        let mut bucket = Bucket::new(3_000, Time(0));
        assert_eq!(bucket.ready_at(Time(5)), Time(5));
        bucket.take(750);
        let ready = bucket.ready_at(Time(5));
        assert_eq!(bucket.ready_at(Time(ready.0 - 1)), ready, "never early");
        assert_eq!(bucket.ready_at(ready), ready);
        assert_eq!(bucket.allowed(ready), 60);
    }

    #[test]
    fn another_rate_keeps_what_is_in_it_as_far_as_it_fits() {
        let mut bucket = Bucket::new(1_000, Time(0));
        bucket.take(150);
        assert_eq!(bucket.at_rate(4_000, Time(0)).allowed(Time(0)), 100);
        assert_eq!(bucket.at_rate(40, Time(0)).allowed(Time(0)), 10);
    }

    #[test]
    fn a_rate_of_nothing_is_a_byte_a_second() {
        let mut bucket = Bucket::new(0, Time(0));
        assert_eq!(bucket.allowed(Time(0)), 1);
        bucket.take(1);
        assert_eq!(bucket.ready_at(Time(0)), Time(SECOND));
    }

    fn key(index: usize) -> Key {
        Key::new(index, std::num::NonZeroU32::MIN)
    }

    /// Each of `wants` takes this many bytes at a time as often as it may. Returns what each has taken after this many
    /// seconds; checks that at no time it is more than it may be.
    fn shared(rate: u64, wants: &[usize], seconds: u64) -> Vec<usize> {
        let mut shared = SharedRate::new(Way::In, rate, Time(0));
        let mut taken = vec![0; wants.len()];
        let mut now = Time(0);
        let mut free: Vec<usize> = (0..wants.len()).collect();
        while now <= Time(seconds * SECOND) {
            for index in std::mem::take(&mut free) {
                let most = shared.allowed(now).min(wants[index]);
                shared.moved(0, most);
                taken[index] += most;
                shared.wait(key(index));
            }
            while let Some((key, share)) = shared.next(now) {
                let used = share.min(wants[key.index()]);
                shared.moved(share, used);
                taken[key.index()] += used;
                free.push(key.index());
            }
            let most = u128::from(rate) * u128::from(now.0) + full(rate);
            assert!(taken.iter().sum::<usize>() as u128 * PARTS <= most, "{taken:?} at {now:?}");
            now = match shared.ready_at(now) {
                _ if !free.is_empty() => Time(now.0 + SECOND / 10_000),
                Some(ready) => ready.max(Time(now.0 + SECOND / 10_000)),
                None => unreachable!("somebody waits"),
            };
        }
        taken
    }

    #[test]
    fn those_who_always_want_more_of_a_shared_rate_get_the_same() {
        for (rate, many) in [(50_000, 1), (50_000, 3), (1_000_000, 50), (97, 7), (3, 5)] {
            let taken = shared(rate, &vec![usize::MAX; many], 600);
            let (least, most) = (taken.iter().min().expect("some"), taken.iter().max().expect("some"));
            let burst = (rate as usize / 4).max(1); // whoever comes first has it
            assert!(most - least <= burst + (rate as usize / 50).max(1), "{rate}: {taken:?}");
            let sum: usize = taken.iter().sum();
            assert!(sum >= rate as usize * 599, "{rate}: {sum} are too few");
        }
    }

    #[test]
    fn what_one_does_not_want_of_a_shared_rate_the_others_have() {
        let taken = shared(50_000, &[10, usize::MAX, usize::MAX], 100);
        assert!(taken.iter().sum::<usize>() >= 50_000 * 99, "{taken:?}");
        assert!(taken[0] < taken[1] / 50 && taken[1].abs_diff(taken[2]) <= 12_500 + 1_000, "{taken:?}");
    }

    #[test]
    fn who_waits_for_a_shared_rate_goes_first() {
        let mut shared = SharedRate::new(Way::Out, 1_000, Time(0));
        shared.moved(0, 250);
        assert_eq!((shared.allowed(Time(0)), shared.next(Time(0))), (0, None));
        let first = shared.wait(key(1));
        shared.wait(key(2));
        shared.wait(key(3));
        let ready = shared.ready_at(Time(0)).expect("somebody waits");
        assert_eq!(ready, Time(SECOND / 50));
        assert_eq!(shared.allowed(ready), 0, "there is a portion, and it is another's");
        shared.leave(first);
        assert_eq!(shared.next(ready), Some((key(2), 20)));
        assert_eq!((shared.next(ready), shared.allowed(ready)), (None, 0), "it is kept");
        shared.moved(20, 0);
        assert_eq!(shared.next(ready), Some((key(3), 20)), "it came back");
        assert_eq!(shared.ready_at(ready), None);
    }

    #[test]
    fn a_full_bucket_is_shared_by_all_who_wait_for_it() {
        let mut shared = SharedRate::new(Way::In, 1_000, Time(0));
        shared.moved(0, 250);
        for index in 0..3 {
            shared.wait(key(index));
        }
        let late = Time(SECOND);
        for (index, share) in [(0, 83), (1, 83), (2, 84)] {
            assert_eq!(shared.next(late), Some((key(index), share)));
        }
        assert_eq!(shared.ready_at(late), None);
        shared.wait(key(9));
        assert_eq!(shared.ready_at(late), None, "first somebody must use what is kept");
        shared.moved(83, 83);
        assert_eq!(shared.next(late), None, "what is kept does not count twice");
        assert_eq!(shared.ready_at(late), Some(Time(SECOND + SECOND / 50)));
    }

    /// A connection that is lost keeps reading; but it does not use what is kept for others.
    #[test]
    fn what_is_kept_of_a_shared_rate_nobody_else_can_take() {
        let mut shared = SharedRate::new(Way::In, 1_000, Time(0));
        shared.wait(key(1));
        shared.wait(key(2));
        let (_, share) = shared.next(Time(0)).expect("there is enough");
        shared.moved(0, 10_000);
        shared.moved(share, share);
        assert_eq!((share, shared.next(Time(0)), shared.next(Time(SECOND))), (125, None, Some((key(2), 250))));
    }

    #[test]
    fn time_that_goes_back_and_the_greatest_rates_do_no_harm() {
        let mut bucket = Bucket::new(u64::MAX, Time(9));
        let all = bucket.allowed(Time(3));
        bucket.take(all);
        assert_eq!(bucket.allowed(Time(8)), 0);
        assert!(bucket.allowed(Time::NEVER) >= all);
        let mut slow = Bucket::new(1, Time(0));
        slow.take(1);
        assert_eq!(slow.ready_at(Time(0)), Time(SECOND));
    }
}
