//! Rate limits: a token bucket for each direction of a connection, `now` being an argument. Who reads and who writes is not
//! known here.

use crate::{key::Timer, time::Time};

/// A full bucket is worth so long of its rate: what leaves at once after silence, and how late the loop may be without
/// losing any of the rate.
const BURST_MILLIS: u64 = 250;

/// Less than what is due in so long is not worth a system call: it is waited for.
const PORTION_MILLIS: u64 = 20;

/// Levels are counted in these, so that a nanosecond's worth of a byte a second is not lost.
const PARTS: u128 = 1_000_000_000;

/// In any time `t` no more than `rate * t` plus a full bucket is taken out; in the long run, if always somebody wants more,
/// no less than `rate * t`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Bytes per second, at least one.
    rate: u64,
    /// In parts of a byte, at `since`. level <= full
    level: u128,
    since: Time,
}

impl Bucket {
    /// Full.
    pub(crate) fn new(rate: u64, now: Time) -> Self {
        let rate = rate.max(1);
        Self { rate, level: full(rate), since: now }
    }

    /// From now on another rate; what is in it stays, as far as it fits.
    pub(crate) fn at_rate(mut self, rate: u64, now: Time) -> Self {
        self.fill(now);
        let rate = rate.max(1);
        Self { rate, level: self.level.min(full(rate)), ..self }
    }

    /// How many bytes may be moved now.
    pub(crate) fn allowed(&mut self, now: Time) -> usize {
        self.fill(now);
        usize::try_from(self.level / PARTS).unwrap_or(usize::MAX)
    }

    /// So many were. More than were allowed leave nothing.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.level = self.level.saturating_sub(bytes as u128 * PARTS);
    }

    /// When enough is in it to be worth moving: now, or later.
    pub(crate) fn ready_at(&mut self, now: Time) -> Time {
        self.fill(now);
        let missing = portion(self.rate).saturating_sub(self.level);
        if missing == 0 {
            return now;
        }
        let nanos = u64::try_from(missing.div_ceil(u128::from(self.rate))).expect("a portion is there within a second");
        Time(self.since.0.saturating_add(nanos))
    }

    fn fill(&mut self, now: Time) {
        let passed = now.0.saturating_sub(self.since.0);
        self.level = self.level.saturating_add(u128::from(passed) * u128::from(self.rate)).min(full(self.rate));
        self.since = self.since.max(now);
    }
}

/// A full bucket. At least a byte fits, or the slowest rates would be none.
fn full(rate: u64) -> u128 {
    worth(rate, BURST_MILLIS)
}

fn portion(rate: u64) -> u128 {
    worth(rate, PORTION_MILLIS)
}

fn worth(rate: u64, millis: u64) -> u128 {
    (u128::from(rate) * u128::from(millis) * (PARTS / 1000)).max(PARTS)
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
    /// What its listener has for all: a successor begins with it.
    pub(crate) default: Option<u64>,
}

impl Rates {
    pub(crate) fn of(&mut self, way: Way) -> &mut Rate {
        &mut self.0[way as usize]
    }

    #[cfg(debug_assertions)]
    pub(crate) fn get(&self, way: Way) -> &Rate {
        &self.0[way as usize]
    }

    /// Nothing is limited, nor will be.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.iter().all(|rate| rate.bucket.is_none() && rate.default.is_none())
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
