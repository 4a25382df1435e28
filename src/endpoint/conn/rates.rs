//! How much a connection may move now by its rate limits, its own and the one that it shares, and when it goes on.

use super::Conn;
use crate::{
    cx::{Cx, Note},
    flags::*,
    key::Timer,
    rate::{Bucket, Rate, Way},
    time::Time,
    timers::{Cue, TimerKind, Timers},
};

const WAYS: [Way; 2] = [Way::In, Way::Out];

impl Conn {
    /// Bytes per second, from now on.
    pub(crate) fn limit_rate(&mut self, way: Way, rate: Option<u64>, cx: &mut Cx) {
        self.set_rate(way, rate, cx);
        self.touch(cx);
    }

    /// The same for callers that settle it afterwards.
    pub(crate) fn set_rate(&mut self, way: Way, rate: Option<u64>, cx: &mut Cx) {
        let now = cx.world.now();
        if rate.is_none() && self.odds().is_none_or(|odds| odds.rates.is_none()) {
            return;
        }
        let own = self.extra().odds().rates.get_or_insert_default().of(way);
        own.bucket = rate.map(|rate| match own.bucket {
            Some(bucket) => bucket.at_rate(rate, now),
            None => Bucket::new(rate, now),
        });
        let is_rated = own.bucket.is_some() || own.shared.is_some();
        if way == Way::Out {
            self.put(RATED_OUT, is_rated);
        }
        self.look_at_rate(way, now, cx);
    }

    /// What its listener has for each connection that it accepts, and for all together.
    pub(crate) fn set_listeners_rate(&mut self, way: Way, rate: Option<u64>, shared: Option<usize>, cx: &mut Cx) {
        if rate.is_none() && shared.is_none() {
            return;
        }
        if let Some(shared) = shared {
            cx.shared_rates[shared].users += 1;
        }
        let own = self.extra().odds().rates.get_or_insert_default().of(way);
        (own.default, own.shared) = (rate, shared);
        self.set_rate(way, rate, cx);
    }

    /// A successor begins with what the listener has; what its predecessor has used up stays used up.
    pub(super) fn reset_rates(&mut self, cx: &mut Cx) {
        for way in WAYS {
            let default = self.rate(way).and_then(|rate| rate.default);
            self.set_rate(way, default, cx);
        }
    }

    fn rate(&mut self, way: Way) -> Option<&mut Rate> {
        Some(self.odds_mut()?.rates.as_mut()?.of(way))
    }

    /// Where there is a limit.
    fn limited(&mut self, way: Way) -> Option<&mut Rate> {
        self.rate(way).filter(|rate| rate.bucket.is_some() || rate.shared.is_some())
    }

    /// What is left of a lost connection comes at once: the peer sends no more.
    pub(super) fn allowed_to_read(&mut self, cx: &mut Cx) -> usize {
        if self.is(LOST) { usize::MAX } else { self.allowed(Way::In, cx) }
    }

    /// How many bytes may be moved now. 0: others go first at the rate that it shares, and it waits behind them from now on.
    /// If its own rate is used up, it is already waiting for that.
    pub(crate) fn allowed(&mut self, way: Way, cx: &mut Cx) -> usize {
        let Some(rate) = self.limited(way) else { return usize::MAX };
        let now = cx.world.now();
        let own = rate.bucket.as_mut().map_or(usize::MAX, |bucket| bucket.allowed(now));
        let Some(shared) = rate.shared else { return own };
        if rate.share > 0 {
            return own.min(rate.share);
        }
        let most = own.min(cx.shared_rates[shared].allowed(now));
        if most == 0 {
            self.wait_for_shared_rate(way, shared, now, cx);
        }
        most
    }

    /// This many were moved.
    pub(crate) fn moved(&mut self, way: Way, bytes: usize, cx: &mut Cx) {
        let Some(rate) = self.limited(way) else { return };
        if let Some(bucket) = &mut rate.bucket {
            bucket.take(bytes);
        }
        let now = cx.world.now();
        if let Some(shared) = rate.shared {
            let share = self.take_share(way);
            cx.shared_rates[shared].moved(share, bytes);
            cx.deal(shared, now);
        }
        self.look_at_rate(way, now, cx);
    }

    /// Whether the bucket holds too little; then a timer comes when it has enough again.
    fn look_at_rate(&mut self, way: Way, now: Time, cx: &mut Cx) {
        let key = self.key;
        let Some(rate) = self.rate(way) else { return };
        let ready = rate.bucket.as_mut().map(|bucket| bucket.ready_at(now)).filter(|&ready| ready > now);
        run_timer(&mut cx.timers, &mut rate.timer, ready, TimerKind::Entry(key, Cue::Rate(way)));
        if ready.is_some() {
            self.set(spent(way));
            self.wait_no_more(way, now, cx);
        } else if rate.ticket.is_none() {
            self.clear(spent(way));
        }
    }

    /// The timer of a bucket fired.
    pub(super) fn rate_is_ready(&mut self, way: Way, cx: &mut Cx) {
        let now = cx.world.now();
        let Some(rate) = self.rate(way) else { return };
        rate.timer = None;
        self.look_at_rate(way, now, cx);
        self.settle(cx);
    }

    pub(super) fn stop_rates(&mut self, cx: &mut Cx) {
        for way in WAYS {
            self.leave_shared_rate(way, cx);
            let timer = self.rate(way).and_then(|rate| rate.timer.take());
            if let Some(timer) = timer {
                cx.timers.cancel(timer);
            }
        }
    }

    // ------------------------------------------------------------------------------------------- what a listener's share

    fn wait_for_shared_rate(&mut self, way: Way, shared: usize, now: Time, cx: &mut Cx) {
        let key = self.key;
        if let Some(rate) = self.rate(way) {
            rate.ticket = Some(cx.shared_rates[shared].wait(key));
            self.set(spent(way));
        }
        cx.deal(shared, now);
    }

    /// It waited longest, and this many bytes are kept for it now. `false`: it has stopped waiting meanwhile.
    pub(crate) fn receive_share(&mut self, way: Way, share: usize, cx: &mut Cx) -> bool {
        let Some(rate) = self.rate(way).filter(|rate| rate.ticket.is_some()) else { return false };
        (rate.ticket, rate.share) = (None, share);
        self.clear(spent(way));
        self.set(HAS_SHARE);
        self.mark_dirty(cx); // settling finds out whether it can move anything now
        true
    }

    pub(crate) fn could_move(&self, way: Way) -> bool {
        match way {
            Way::In => self.is_open() && self.may_read() && self.reads(),
            Way::Out => self.can_write() && self.has_writable_output(),
        }
    }

    /// A connection that has a share and cannot move anything after all must not keep the others waiting.
    #[inline]
    pub(super) fn return_unused_shares(&mut self, cx: &mut Cx) {
        if self.is(HAS_SHARE) {
            let now = cx.world.now();
            for way in WAYS {
                if !self.could_move(way) {
                    self.return_share(way, now, cx);
                }
            }
        }
    }

    fn return_share(&mut self, way: Way, now: Time, cx: &mut Cx) {
        let Some(shared) = self.rate(way).and_then(|rate| rate.shared) else { return };
        let share = self.take_share(way);
        if share > 0 {
            cx.return_share(shared, share, now);
        }
    }

    /// Takes what was kept for it, which it then does not have any more.
    fn take_share(&mut self, way: Way) -> usize {
        let Some(rates) = self.odds_mut().and_then(|odds| odds.rates.as_mut()) else { return 0 };
        let share = std::mem::take(&mut rates.of(way).share);
        let has_share = WAYS.into_iter().any(|way| rates.get(way).share > 0);
        self.put(HAS_SHARE, has_share);
        share
    }

    /// For the rate that it shares.
    fn wait_no_more(&mut self, way: Way, now: Time, cx: &mut Cx) {
        self.return_share(way, now, cx);
        let Some(rate) = self.rate(way) else { return };
        let (Some(shared), Some(ticket)) = (rate.shared, rate.ticket.take()) else { return };
        let is_spent = rate.timer.is_some();
        self.put(spent(way), is_spent);
        cx.shared_rates[shared].leave(ticket);
        cx.deal(shared, now);
    }

    /// For good.
    pub(crate) fn leave_shared_rate(&mut self, way: Way, cx: &mut Cx) {
        if self.rate(way).is_some_and(|rate| rate.shared.is_some()) {
            let now = cx.world.now();
            self.wait_no_more(way, now, cx);
            if let Some(shared) = self.rate(way).and_then(|rate| rate.shared.take()) {
                cx.leave_shared_rate(shared);
            }
        }
    }
}

/// The rates that many share.
impl Cx {
    /// Lets go those for which there is a portion, and makes sure that somebody looks when there is one for the next.
    fn deal(&mut self, shared: usize, now: Time) {
        let rate = &mut self.shared_rates[shared];
        while let Some((key, bytes)) = rate.next(now) {
            self.lists.notes.push(Note::Share { key, way: rate.way, shared, bytes });
        }
        let ready = rate.ready_at(now);
        run_timer(&mut self.timers, &mut rate.timer, ready, TimerKind::SharedRate(shared));
    }

    /// What was kept for a connection that does not use it.
    pub(crate) fn return_share(&mut self, shared: usize, bytes: usize, now: Time) {
        if let Some(rate) = self.shared_rates.get_mut(shared) {
            rate.moved(bytes, 0);
            self.deal(shared, now);
        }
    }

    /// A connection, or the listener, does not use it any more; the last one removes it.
    pub(crate) fn leave_shared_rate(&mut self, shared: usize) {
        let rate = &mut self.shared_rates[shared];
        rate.users -= 1;
        if rate.users == 0 {
            debug_assert!(rate.timer.is_none(), "nobody waits for it");
            self.shared_rates.remove(shared);
        }
    }

    /// There is a portion for the next one.
    pub(crate) fn shared_rate_is_ready(&mut self, shared: usize) {
        let now = self.world.now();
        self.shared_rates[shared].timer = None;
        self.deal(shared, now);
    }
}

fn run_timer(timers: &mut Timers, timer: &mut Option<Timer>, at: Option<Time>, what: TimerKind) {
    match (*timer, at) {
        (Some(timer), Some(at)) => timers.set_again(timer, at),
        (None, Some(at)) => *timer = Some(timers.set(at, what)),
        (Some(set), None) => {
            timers.cancel(set);
            *timer = None;
        }
        (None, None) => {}
    }
}

fn spent(way: Way) -> Flags {
    match way {
        Way::In => SPENT_IN,
        Way::Out => SPENT_OUT,
    }
}
