//! Time-outs and timers of connections.

use super::{Cx, Hub};
use crate::{
    conn::Conn,
    flags::SPECIAL,
    key::{Key, Timer},
    limits::{Expired, Limits, Stopwatch},
    reason::Limit,
    slots::Entry,
    time::{PAUSE_MIN, Time},
    timers::What,
};
use std::time::Duration;

impl Hub {
    pub(crate) fn set_limit(&mut self, index: usize, limit: Limit, after: Option<Duration>) {
        let limits = &mut self.slots.conn_at_mut(index).extra().limits;
        stopwatch(limits, limit).set(after.map(|after| after.max(PAUSE_MIN)));
        self.run_limits(index);
    }

    /// Starts and stops the clocks of a connection by what it is doing, and sees to it that its timer comes in time.
    pub(super) fn run_limits(&mut self, index: usize) {
        let now = self.run_stopwatches(index);
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(extra) = &mut conn.extra else { return };
        let limits = &mut extra.limits;
        let ends = limits.ends().max(now); // one that has run out waits for the next turn, and is in nobody's way there
        if ends == Time::NEVER {
            return; // an idle timer fires once in vain; cancelling and setting for each request would cost more
        }
        match limits.timer {
            Some((_, at)) if at <= ends => {}
            Some((timer, _)) => {
                self.cx.timers.set_again(timer, ends);
                limits.timer = Some((timer, ends));
            }
            None => limits.timer = Some((self.cx.timers.set(ends, What::Limits(key)), ends)),
        }
    }

    /// By what the connection is doing now; the time.
    fn run_stopwatches(&mut self, index: usize) -> Time {
        let conn = self.slots.conn_at(index);
        let situation = conn.situation(self.is_reading(conn));
        let now = self.cx.world.now();
        let conn = self.slots.conn_at_mut(index);
        if let Some(extra) = &mut conn.extra {
            extra.limits.run(situation, now);
            let is_plain = situation.is_plain() && extra.is_plain();
            conn.put(SPECIAL, !is_plain);
        }
        now
    }

    /// The timer of its limits fired: what had run out when the loop last looked at its sockets, if anything. What has run out
    /// since, the next turn finds: the peer may have done its part while somebody's callback kept us from seeing it.
    pub(crate) fn expire_limits(&mut self, key: Key) -> Option<Expired> {
        self.limits(key)?.timer = None;
        // First what has been asked of it since: a clock that stands still does not run out.
        let now = self.run_stopwatches(key.index());
        let looked = self.cx.looked;
        let expired = self.limits(key)?.expire(looked, now);
        self.run_limits(key.index());
        expired
    }

    fn limits(&mut self, key: Key) -> Option<&mut Limits> {
        match self.slots.get_mut(key) {
            Some(Entry::Stream(conn)) => Some(&mut conn.extra.as_mut()?.limits),
            _ => None,
        }
    }

    /// A polite close has output left: the peer has `linger_max` to take the next byte.
    pub(super) fn linger_from_now(&mut self, index: usize) {
        if self.slots.conn_at_mut(index).extra().limits.linger.is_set() {
            self.run_limits(index);
        } else {
            let most = self.cx.config.linger_max;
            self.set_limit(index, Limit::Linger, Some(most));
        }
    }

    /// A plain turn of a connection that has more than the usual: it was not idle.
    #[inline(never)]
    pub(super) fn has_spoken(&mut self, index: usize) {
        let now = self.stamp();
        if let Some(extra) = &mut self.slots.conn_at_mut(index).extra {
            extra.limits.idle.restart(now);
        }
    }

    /// A frame ended: the next one's time begins with its first byte.
    pub(super) fn frame_moved(&mut self, index: usize) {
        let now = self.cx.world.now();
        self.slots.conn_at_mut(index).extra().limits.frame.restart(now);
    }

    /// A timer that dies with its connection.
    pub(crate) fn set_owned(&mut self, key: Key, deadline: Time) -> Timer {
        let timer = self.cx.timers.set(deadline, What::Owned(key));
        let extra = self.slots.conn_at_mut(key.index()).extra();
        extra.timers = self.cx.timers.link(extra.timers, timer);
        timer
    }

    /// Whether it was still set.
    pub(crate) fn cancel(&mut self, timer: Timer) -> bool {
        if let Some(key) = self.cx.timers.owner(timer) {
            let extra = self.slots.conn_at_mut(key.index()).extra();
            extra.timers = self.cx.timers.unlink(extra.timers, timer);
        }
        self.cx.timers.cancel(timer).is_some()
    }

    /// A successor has none of its predecessor's time-outs, throttles, timers and offloads.
    pub(crate) fn begin_anew(&mut self, index: usize) {
        self.slots.conn_at_mut(index).drop_own_timers(&mut self.cx);
        let key = self.slots.conn_at(index).key;
        self.cx.elsewhere.drop_own(key);
        self.forget_targets(index);
        self.slots.conn_at_mut(index).begin_anew();
        self.reset_rates(index);
        self.look_at_marks(index);
        if let Some(extra) = &mut self.slots.conn_at_mut(index).extra {
            extra.limits.begin_anew();
            self.run_limits(index);
        }
    }
}

fn stopwatch(limits: &mut Limits, limit: Limit) -> &mut Stopwatch {
    match limit {
        Limit::Idle => &mut limits.idle,
        Limit::Stalled => &mut limits.stalled,
        Limit::Deadline => &mut limits.deadline,
        Limit::FrameTime => &mut limits.frame,
        Limit::Linger => &mut limits.linger,
        Limit::FrameBytes => unreachable!("a frame's bytes are counted by its terminator"),
    }
}

impl Conn {
    pub(super) fn drop_own_timers(&mut self, cx: &mut Cx) {
        let Some(extra) = &mut self.extra else { return };
        while let Some(timer) = cx.timers.at_head(extra.timers) {
            extra.timers = cx.timers.unlink(extra.timers, timer);
            cx.timers.cancel(timer);
            cx.jobs_set -= 1;
            cx.jobs_dead.push(timer);
        }
    }

    pub(super) fn stop_limits(&mut self, cx: &mut Cx) {
        if let Some(extra) = &mut self.extra {
            let limits = std::mem::take(&mut extra.limits);
            if let Some((timer, _)) = limits.timer {
                cx.timers.cancel(timer);
            }
        }
    }
}
