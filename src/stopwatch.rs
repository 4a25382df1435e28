//! The time-outs of one connection: stopwatches that stand still while the peer is not to blame. Starting one anew is a
//! store, not a change of a timer: the connection has one timer for all, which looks again when it fires.

use crate::{
    key::Timer,
    reason::Limit,
    time::{Time, nanos},
};
use std::time::Duration;

const OFF: u64 = u64::MAX;

/// Runs out when it has run for `limit` nanoseconds since it was last started anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    /// `OFF`: it never runs out.
    limit: u64,
    /// How long it ran before `since`.
    spent: u64,
    /// `NEVER`: it stands still.
    since: Time,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { limit: OFF, spent: 0, since: Time::NEVER }
    }
}

impl Stopwatch {
    pub(crate) fn set(&mut self, limit: Option<Duration>) {
        *self = Self { limit: limit.map_or(OFF, |limit| nanos(limit).min(OFF - 1)), ..Self::default() };
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.is_set().then(|| Duration::from_nanos(self.limit))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.limit != OFF
    }

    /// Starts again from zero; it goes on running if it ran. Not from before it began to run: `now` may be when the turn
    /// began.
    pub(crate) fn restart(&mut self, now: Time) {
        self.spent = 0;
        if self.since != Time::NEVER {
            self.since = self.since.max(now);
        }
    }

    pub(crate) fn run(&mut self, on: bool, now: Time) {
        if on && self.since == Time::NEVER {
            self.since = now;
        } else if !on && self.since != Time::NEVER {
            self.spent = self.spent.saturating_add(nanos(now.since(self.since)));
            self.since = Time::NEVER;
        }
    }

    /// How long it has run.
    pub(crate) fn elapsed(&self, now: Time) -> Duration {
        let running = if self.since == Time::NEVER { Duration::ZERO } else { now.since(self.since) };
        Duration::from_nanos(self.spent).saturating_add(running)
    }

    /// When it runs out if nothing changes.
    fn ends(&self) -> Time {
        if self.limit == OFF || self.since == Time::NEVER {
            return Time::NEVER;
        }
        self.since + Duration::from_nanos(self.limit.saturating_sub(self.spent))
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        let ends = self.ends();
        ends != Time::NEVER && ends <= now
    }
}

/// All stopwatches of one connection, and the timer that watches them.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) idle: Stopwatch,
    pub(crate) stalled: Stopwatch,
    /// Those that most connections lack, or have for a moment. `None`: none of them is set. It stays when one is off again,
    /// because some protocols set one for every request.
    others: Option<Box<Others>>,
    /// Fires at this time or before any of the above; then it is set again.
    pub(crate) timer: Option<(Timer, Time)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Others {
    deadline: Stopwatch,
    frame: Stopwatch,
    linger: Stopwatch,
    connect: Stopwatch,
}

impl Others {
    fn all(&self) -> [Stopwatch; 4] {
        [self.deadline, self.frame, self.linger, self.connect]
    }

    fn is_idle(&self) -> bool {
        !self.all().iter().any(Stopwatch::is_set)
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Limit(Limit),
    Connect,
}

/// What decides which of them run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) is_established: bool,
    /// `connected` has not run: none of the stopwatches does, or `exceeded` could come first.
    pub(crate) owes_connected: bool,
    /// Only the linger clock and the deadline run, and, before it is established, that of connecting.
    pub(crate) is_closing: bool,
    pub(crate) is_reading: bool,
    /// It waits for the peer, not for a producer that stands in front of it.
    pub(crate) has_output: bool,
    /// Output waits for its rate limit, not for the peer.
    pub(crate) is_out_of_rate: bool,
    pub(crate) is_amid_frame: bool,
}

impl Situation {
    /// Of the clocks of a connection only the idle one runs, and its deadline.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_established && !self.owes_connected && !self.is_closing && self.is_reading && !self.has_output
    }
}

impl Clocks {
    pub(crate) fn deadline(&self) -> Stopwatch {
        self.others.as_ref().map_or_else(Stopwatch::default, |others| others.deadline)
    }

    pub(crate) fn frame(&self) -> Stopwatch {
        self.others.as_ref().map_or_else(Stopwatch::default, |others| others.frame)
    }

    pub(crate) fn linger(&self) -> Stopwatch {
        self.others.as_ref().map_or_else(Stopwatch::default, |others| others.linger)
    }

    pub(crate) fn connect(&self) -> Stopwatch {
        self.others.as_ref().map_or_else(Stopwatch::default, |others| others.connect)
    }

    pub(crate) fn set(&mut self, limit: Limit, after: Option<Duration>) {
        match limit {
            Limit::Idle => self.idle.set(after),
            Limit::Stalled => self.stalled.set(after),
            Limit::Deadline => self.set_other(|others| &mut others.deadline, after),
            Limit::FrameTime => self.set_other(|others| &mut others.frame, after),
            Limit::Linger => self.set_other(|others| &mut others.linger, after),
            Limit::FrameBytes => unreachable!("a frame's bytes are counted by its terminator"),
        }
    }

    pub(crate) fn set_connect(&mut self, after: Option<Duration>) {
        self.set_other(|others| &mut others.connect, after);
        self.others.take_if(|others| others.is_idle());
    }

    fn set_other(&mut self, which: fn(&mut Others) -> &mut Stopwatch, after: Option<Duration>) {
        if after.is_some() {
            which(self.others.get_or_insert_default()).set(after);
        } else if let Some(others) = &mut self.others {
            which(others).set(None);
        }
    }

    /// It keeps running as it did.
    pub(crate) fn put_deadline(&mut self, deadline: Stopwatch) {
        self.set(Limit::Deadline, deadline.limit());
        if let Some(others) = &mut self.others {
            others.deadline = deadline;
        }
    }

    /// The next frame's time begins.
    pub(crate) fn restart_frame(&mut self, now: Time) {
        if let Some(others) = &mut self.others {
            others.frame.restart(now);
        }
    }

    /// What a predecessor asked for is off; connecting is still bounded.
    pub(crate) fn begin_anew(&mut self) {
        let others = self.others.take().filter(|others| others.connect.is_set());
        let others = others.map(|others| Box::new(Others { connect: others.connect, ..Others::default() }));
        *self = Self { others, timer: self.timer, ..Self::default() };
    }

    /// Starts and stops what the situation says.
    pub(crate) fn run(&mut self, situation: Situation, now: Time) {
        let Situation { is_established, owes_connected, is_closing, is_reading, has_output, is_out_of_rate, is_amid_frame } =
            situation;
        let is_talking = is_established && !owes_connected && !is_closing;
        self.idle.run(is_talking && is_reading && !has_output, now);
        self.stalled.run(is_talking && has_output && !is_out_of_rate, now);
        if let Some(others) = &mut self.others {
            others.deadline.run(!owes_connected, now);
            others.connect.run(!is_established, now);
            others.linger.run(is_established && is_closing && !is_out_of_rate, now);
            if !is_amid_frame {
                others.frame.restart(now);
            }
            others.frame.run(is_talking && is_reading && is_amid_frame, now);
        }
        if !has_output {
            self.stalled.restart(now); // also while a producer is in front: the peer could take nothing
        }
    }

    /// The kernel took some output.
    pub(crate) fn output_moved(&mut self, now: Time) {
        self.stalled.restart(now);
        if let Some(others) = &mut self.others {
            others.linger.restart(now);
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn run_plainly(&self) -> bool {
        let runs = |clock: &Stopwatch| clock.since != Time::NEVER;
        runs(&self.idle) && ![&self.stalled, &self.linger(), &self.connect()].into_iter().any(runs)
    }

    /// None of them is set.
    pub(crate) fn is_idle(&self) -> bool {
        !self.idle.is_set() && !self.stalled.is_set() && self.others.as_ref().is_none_or(|others| others.is_idle())
    }

    pub(crate) fn ends(&self) -> Time {
        let usual = self.idle.ends().min(self.stalled.ends());
        let others = self.others.iter().flat_map(|others| others.all()).map(|stopwatch| stopwatch.ends());
        others.fold(usual, Time::min)
    }

    /// One that had run out at `by`. It starts afresh, or is off if it happens only once.
    pub(crate) fn expire(&mut self, by: Time, now: Time) -> Option<Expired> {
        if self.connect().is_over(by) {
            self.set_connect(None);
            return Some(Expired::Connect);
        }
        for (stopwatch, limit) in [(self.linger(), Limit::Linger), (self.deadline(), Limit::Deadline)] {
            if stopwatch.is_over(by) {
                self.set(limit, None);
                return Some(Expired::Limit(limit));
            }
        }
        if self.stalled.is_over(by) {
            self.stalled.restart(now);
            return Some(Expired::Limit(Limit::Stalled));
        }
        if self.frame().is_over(by) {
            self.restart_frame(now);
            return Some(Expired::Limit(Limit::FrameTime));
        }
        if self.idle.is_over(by) {
            self.idle.restart(now);
            return Some(Expired::Limit(Limit::Idle));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_counts_only_while_it_runs() {
        let mut watch = Stopwatch::default();
        watch.set(Some(Duration::from_nanos(10)));
        assert_eq!(watch.ends(), Time::NEVER);
        watch.run(true, Time(100));
        assert_eq!(watch.ends(), Time(110));
        watch.run(false, Time(104));
        watch.run(true, Time(200));
        assert_eq!(watch.ends(), Time(206));
        assert!(!watch.is_over(Time(205)) && watch.is_over(Time(206)));
        watch.restart(Time(206));
        assert_eq!(watch.ends(), Time(216));
    }

    /// A connection whose time-out was set late in a turn, and that then received something, counted as idle at once.
    #[test]
    fn a_stopwatch_that_is_started_anew_at_an_older_time_is_not_set_back() {
        let mut watch = Stopwatch::default();
        watch.set(Some(Duration::from_nanos(10)));
        watch.run(true, Time(120));
        watch.restart(Time(105));
        assert_eq!(watch.ends(), Time(130));
    }

    #[test]
    fn for_ever_is_for_ever() {
        let mut watch = Stopwatch::default();
        watch.set(Some(Duration::MAX));
        watch.run(true, Time(1));
        assert!(!watch.is_over(Time(u64::MAX - 1)));
        watch.set(None);
        assert!(!watch.is_set());
    }
}
