//! A connection's time-outs and its own timers.

use super::Conn;
use crate::{
    cx::{Cx, Orphan},
    flags::NEEDS_SETTLING,
    key::Timer,
    listen::Bounds,
    reason::Limit,
    stopwatch::Expired,
    time::{PAUSE_MIN, Time},
    timers::TimerKind,
};
use std::{rc::Rc, time::Duration};

impl Conn {
    pub(crate) fn set_time_out(&mut self, limit: Limit, after: Option<Duration>, cx: &mut Cx) {
        self.extra().has_own_deadline |= limit == Limit::Deadline;
        self.set_clock(limit, after, cx);
    }

    fn set_clock(&mut self, limit: Limit, after: Option<Duration>, cx: &mut Cx) {
        self.extra().clocks.set(limit, after.map(|after| after.max(PAUSE_MIN)));
        self.run_clocks(cx);
    }

    /// Sets what its listener has for each connection that it accepts; also for its successors.
    pub(crate) fn set_bounds(&mut self, bounds: Rc<Bounds>, cx: &mut Cx) {
        self.set_listeners_clocks(&bounds, cx);
        if let Some(marks) = bounds.marks {
            self.set_marks(marks, cx);
        }
        self.extra().bounds = Some(bounds);
    }

    fn set_listeners_clocks(&mut self, bounds: &Bounds, cx: &mut Cx) {
        let &Bounds { idle, stalled, frame, deadline, .. } = bounds;
        for (limit, after) in
            [(Limit::Idle, idle), (Limit::Stalled, stalled), (Limit::FrameTime, frame), (Limit::Deadline, deadline)]
        {
            if after.is_some() {
                self.set_clock(limit, after, cx);
            }
        }
    }

    /// A successor has none of its predecessor's time-outs, only those of the listener; a deadline of the listener keeps
    /// running.
    pub(super) fn begin_clocks_anew(&mut self, cx: &mut Cx) {
        let Some(extra) = &mut self.extra else { return };
        let deadline = extra.clocks.deadline();
        let runs_on = extra.bounds.is_some() && !extra.has_own_deadline;
        extra.clocks.begin_anew();
        if let Some(bounds) = extra.bounds.clone() {
            self.set_listeners_clocks(&bounds, cx);
            let extra = self.extra();
            extra.has_own_deadline = false;
            if runs_on {
                extra.clocks.put_deadline(deadline);
            }
        }
        self.run_clocks(cx);
    }

    /// Starts and stops the clocks by what the connection is doing, and makes sure that its timer comes in time.
    pub(super) fn run_clocks(&mut self, cx: &mut Cx) {
        let now = self.run_stopwatches(cx);
        let key = self.key;
        let Some(extra) = &mut self.extra else { return };
        let clocks = &mut extra.clocks;
        let ends = clocks.ends().max(now); // one that has run out waits for the next turn, and is in nobody's way there
        if ends == Time::NEVER {
            return; // an idle timer fires once in vain; cancelling and setting for each request would cost more
        }
        match clocks.timer {
            Some((_, at)) if at <= ends => {}
            Some((timer, _)) => {
                cx.timers.set_again(timer, ends);
                clocks.timer = Some((timer, ends));
            }
            None => clocks.timer = Some((cx.timers.set(ends, TimerKind::Clocks(key)), ends)),
        }
    }

    /// Runs them by what the connection is doing now; returns the time.
    fn run_stopwatches(&mut self, cx: &mut Cx) -> Time {
        let situation = self.situation();
        let now = cx.world.now();
        if let Some(extra) = &mut self.extra {
            extra.clocks.run(situation, now);
            let is_plain = situation.is_plain() && extra.is_plain();
            self.put(NEEDS_SETTLING, !is_plain);
        }
        now
    }

    /// The timer of its clocks fired: returns what had run out when the loop last looked at its sockets, if anything. The
    /// next turn finds what has run out since: the peer may have done its part while somebody's callback kept us from seeing
    /// it.
    pub(crate) fn expire_clocks(&mut self, cx: &mut Cx) -> Option<Expired> {
        self.extra.as_mut()?.clocks.timer = None;
        // First what has been asked of it since: a clock that stands still does not run out.
        let now = self.run_stopwatches(cx);
        let expired = self.extra.as_mut()?.clocks.expire(cx.clock.polled, now);
        self.run_clocks(cx);
        expired
    }

    pub(super) fn stop_clocks(&mut self, cx: &mut Cx) {
        if let Some(extra) = &mut self.extra {
            let clocks = std::mem::take(&mut extra.clocks);
            if let Some((timer, _)) = clocks.timer {
                cx.timers.cancel(timer);
            }
        }
    }

    /// A polite close has output left: the peer has `linger_max` to take the next byte.
    pub(crate) fn linger_from_now(&mut self, cx: &mut Cx) {
        if self.extra().clocks.linger().is_set() {
            self.run_clocks(cx);
        } else {
            let most = cx.config.linger_max;
            self.set_clock(Limit::Linger, Some(most), cx);
        }
    }

    /// A plain turn of a connection that has more than the usual: it was not idle.
    #[inline(never)]
    pub(super) fn restart_idle_clock(&mut self, cx: &mut Cx) {
        let now = cx.stamp();
        if let Some(extra) = &mut self.extra {
            extra.clocks.idle.restart(now);
            extra.heard = now;
        }
    }

    /// Its mate has received something: as long as one of the two is talking, neither is idle.
    pub(crate) fn mate_was_heard(&mut self, cx: &mut Cx) {
        let now = cx.stamp();
        if let Some(extra) = &mut self.extra {
            extra.clocks.idle.restart(now);
        }
    }

    /// How long ago the last byte came, as far as that is known.
    pub(crate) fn silent_for(&mut self, cx: &Cx) -> Duration {
        let now = cx.world.now();
        let unknown = if self.bytes_in == 0 { self.born } else { now };
        let heard = match &mut self.extra {
            Some(extra) => &mut extra.heard,
            None => &mut self.extra().heard, // it is kept from now on
        };
        if *heard == Time::NEVER {
            *heard = unknown;
        }
        now.since(*heard)
    }

    /// How long ago the frame that is being delivered, or was begun, got its first byte; as its stopwatch counts, if it has
    /// one.
    pub(crate) fn frame_age(&self, cx: &Cx) -> Duration {
        let Some(extra) = self.extra.as_ref().filter(|extra| extra.clocks.frame().is_set()) else { return Duration::ZERO };
        let now = cx.world.now();
        match cx.lent.frame_ended && cx.lent.is_later_frame && self.is_current(cx) {
            true => cx.clock.stamp.map_or(Duration::ZERO, |stamp| now.since(stamp)),
            false => extra.clocks.frame().elapsed(now),
        }
    }

    /// A frame ended: the next one's time begins with its first byte.
    pub(super) fn frame_moved(&mut self, cx: &mut Cx) {
        let now = cx.world.now();
        self.extra().clocks.restart_frame(now);
    }

    /// Sets a timer that is dropped with its connection.
    pub(crate) fn set_timer(&mut self, deadline: Time, cx: &mut Cx) -> Timer {
        let timer = cx.timers.set(deadline, TimerKind::Owned(self.key));
        let extra = self.extra();
        extra.timers = cx.timers.link(extra.timers, timer);
        timer
    }

    /// One of its own fires, or is taken back.
    pub(crate) fn forget_timer(&mut self, timer: Timer, cx: &mut Cx) {
        let extra = self.extra();
        extra.timers = cx.timers.unlink(extra.timers, timer);
    }

    pub(crate) fn stop_timers(&mut self, cx: &mut Cx) {
        let Some(extra) = &mut self.extra else { return };
        while let Some(timer) = cx.timers.at_head(extra.timers) {
            extra.timers = cx.timers.unlink(extra.timers, timer);
            cx.timers.cancel(timer);
            cx.jobs_set -= 1;
            cx.lists.orphans.push(Orphan::Timer(timer));
        }
    }
}
