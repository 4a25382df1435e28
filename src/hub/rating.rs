//! Rate limits of connections: how much may be moved now, and when to go on.

use super::Hub;
use crate::{
    conn::Conn,
    flags::*,
    key::{Key, Timer},
    listener::Listen,
    rate::{Bucket, Rate, SharedRate, Way},
    slots::Entry,
    time::Time,
    timers::{Timers, What},
};

const WAYS: [Way; 2] = [Way::In, Way::Out];

impl Hub {
    /// Bytes per second, from now on.
    pub(crate) fn limit_rate(&mut self, index: usize, way: Way, rate: Option<u64>) {
        self.set_rate(index, way, rate);
        self.touch(index);
    }

    /// The same for whoever settles it afterwards.
    pub(super) fn set_rate(&mut self, index: usize, way: Way, rate: Option<u64>) {
        let now = self.cx.world.now();
        let conn = self.slots.conn_at_mut(index);
        if rate.is_none() && conn.extra.as_ref().is_none_or(|extra| extra.rates.is_none()) {
            return;
        }
        let own = conn.extra().rates.get_or_insert_default().of(way);
        own.bucket = rate.map(|rate| match own.bucket {
            Some(bucket) => bucket.at_rate(rate, now),
            None => Bucket::new(rate, now),
        });
        let is_rated = own.bucket.is_some() || own.shared.is_some();
        if way == Way::Out {
            conn.put(RATED_OUT, is_rated);
        }
        self.look_at_rate(index, way, now);
    }

    /// What its listener has for each that it accepts, and for all together.
    pub(super) fn set_listeners_rates(&mut self, index: usize) {
        let listener = self.slots.conn_at(index).listener;
        let Some(listening) = listener.and_then(|listener| self.slots.listener(listener)) else { return };
        let shared_rates = listening.shared_rates;
        let Listen { read_rate, write_rate, .. } = listening.options;
        for (way, rate) in [(Way::In, read_rate), (Way::Out, write_rate)] {
            let shared = shared_rates[way as usize];
            if rate.is_none() && shared.is_none() {
                continue;
            }
            if let Some(shared) = shared {
                self.shared_rates[shared].users += 1;
            }
            let own = self.slots.conn_at_mut(index).extra().rates.get_or_insert_default().of(way);
            (own.default, own.shared) = (rate, shared);
            self.set_rate(index, way, rate);
        }
    }

    /// A successor begins with what the listener has; what its predecessor has used up stays used up.
    pub(super) fn reset_rates(&mut self, index: usize) {
        for way in WAYS {
            let default = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.default);
            self.set_rate(index, way, default);
        }
    }

    /// What is left of a connection that is lost comes at once: the peer sends no more.
    pub(super) fn allowed_to_read(&mut self, index: usize) -> usize {
        if self.slots.conn_at(index).is(LIFTED) { usize::MAX } else { self.allowed(index, Way::In) }
    }

    /// How many bytes may be moved now. 0: others go first at the rate that it shares, and it waits behind them from now on.
    /// For its own rate it waits already, if that is used up.
    pub(super) fn allowed(&mut self, index: usize, way: Way) -> usize {
        let Some(rate) = limited(self.slots.conn_at_mut(index), way) else { return usize::MAX };
        let now = self.cx.world.now();
        let own = rate.bucket.as_mut().map_or(usize::MAX, |bucket| bucket.allowed(now));
        let Some(shared) = rate.shared else { return own };
        if rate.share > 0 {
            return own.min(rate.share);
        }
        let most = own.min(self.shared_rates[shared].allowed(now));
        if most == 0 {
            self.wait_for_shared_rate(index, way, shared, now);
        }
        most
    }

    /// So many were moved.
    pub(super) fn moved(&mut self, index: usize, way: Way, bytes: usize) {
        let Some(rate) = limited(self.slots.conn_at_mut(index), way) else { return };
        if let Some(bucket) = &mut rate.bucket {
            bucket.take(bytes);
        }
        let now = self.cx.world.now();
        if let Some(shared) = rate.shared {
            let share = self.take_share(index, way);
            self.shared_rates[shared].moved(share, bytes);
            self.deal(shared, now);
        }
        self.look_at_rate(index, way, now);
    }

    /// Whether the bucket holds too little; then a timer comes when it has enough again.
    fn look_at_rate(&mut self, index: usize, way: Way, now: Time) {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(rate) = rate_of(conn, way) else { return };
        let ready = rate.bucket.as_mut().map(|bucket| bucket.ready_at(now)).filter(|&ready| ready > now);
        run_timer(&mut self.cx.timers, &mut rate.timer, ready, What::Rate(key, way));
        if ready.is_some() {
            conn.set(spent(way));
            self.wait_no_more(index, way, now);
        } else if rate.ticket.is_none() {
            conn.clear(spent(way));
        }
    }

    /// The timer of a bucket fired.
    pub(crate) fn rate_is_ready(&mut self, key: Key, way: Way) {
        let now = self.cx.world.now();
        let Some(Entry::Stream(conn)) = self.slots.get_mut(key) else { return };
        let Some(rate) = rate_of(conn, way) else { return };
        rate.timer = None;
        self.look_at_rate(key.index(), way, now);
        self.settle(key.index());
    }

    pub(super) fn stop_rates(&mut self, index: usize) {
        for way in WAYS {
            self.leave_shared_rate(index, way);
            let timer = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.timer.take());
            if let Some(timer) = timer {
                self.cx.timers.cancel(timer);
            }
        }
    }

    // ------------------------------------------------------------------------------------------- what a listener's share

    /// What all that a listener accepts will share.
    pub(super) fn share_rates(&mut self, options: &Listen) -> [Option<usize>; 2] {
        let now = self.cx.world.now();
        [(Way::In, options.total_read_rate), (Way::Out, options.total_write_rate)]
            .map(|(way, rate)| Some(self.shared_rates.insert(SharedRate::new(way, rate?, now))))
    }

    fn wait_for_shared_rate(&mut self, index: usize, way: Way, shared: usize, now: Time) {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        if let Some(rate) = rate_of(conn, way) {
            rate.ticket = Some(self.shared_rates[shared].wait(key));
            conn.set(spent(way));
        }
        self.deal(shared, now);
    }

    /// Lets those go for whom there is a portion, and sees to it that somebody comes when there is one for the next.
    fn deal(&mut self, shared: usize, now: Time) {
        let rate = &mut self.shared_rates[shared];
        while let Some((key, share)) = rate.next(now) {
            let conn = self.slots.conn_at_mut(key.index());
            conn.clear(spent(rate.way));
            conn.set(LET_GO);
            if let Some(own) = rate_of(conn, rate.way) {
                (own.ticket, own.share) = (None, share);
            }
            if !conn.mark(IN_DIRTY) {
                self.cx.dirty.push(key); // settling finds out whether it can move anything now
            }
        }
        let ready = rate.ready_at(now);
        run_timer(&mut self.cx.timers, &mut rate.timer, ready, What::SharedRate(shared));
    }

    pub(super) fn could_move(&self, index: usize, way: Way) -> bool {
        let conn = self.slots.conn_at(index);
        match way {
            Way::In => conn.is_open() && conn.may_read() && self.is_reading(conn),
            Way::Out => conn.can_write() && conn.has_writable_output(),
        }
    }

    /// Who was let go and cannot move anything after all must not keep the others waiting.
    #[inline]
    pub(super) fn take_back_unused(&mut self, index: usize) {
        if self.slots.conn_at(index).is(LET_GO) {
            let now = self.cx.world.now();
            for way in WAYS {
                if !self.could_move(index, way) {
                    self.take_back_share(index, way, now);
                }
            }
        }
    }

    fn take_back_share(&mut self, index: usize, way: Way, now: Time) {
        let Some(shared) = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.shared) else { return };
        let share = self.take_share(index, way);
        if share > 0 {
            self.shared_rates[shared].moved(share, 0);
            self.deal(shared, now);
        }
    }

    /// What was kept for it, which it has no more.
    fn take_share(&mut self, index: usize, way: Way) -> usize {
        let conn = self.slots.conn_at_mut(index);
        let Some(rates) = conn.extra.as_mut().and_then(|extra| extra.rates.as_mut()) else { return 0 };
        let share = std::mem::take(&mut rates.of(way).share);
        let is_let_go = WAYS.into_iter().any(|way| rates.get(way).share > 0);
        conn.put(LET_GO, is_let_go);
        share
    }

    /// For the rate that it shares.
    fn wait_no_more(&mut self, index: usize, way: Way, now: Time) {
        self.take_back_share(index, way, now);
        let conn = self.slots.conn_at_mut(index);
        let Some(rate) = rate_of(conn, way) else { return };
        let (Some(shared), Some(ticket)) = (rate.shared, rate.ticket.take()) else { return };
        let is_spent = rate.timer.is_some();
        conn.put(spent(way), is_spent);
        self.shared_rates[shared].leave(ticket);
        self.deal(shared, now);
    }

    /// For good.
    pub(super) fn leave_shared_rate(&mut self, index: usize, way: Way) {
        if rate_of(self.slots.conn_at_mut(index), way).is_some_and(|rate| rate.shared.is_some()) {
            let now = self.cx.world.now();
            self.wait_no_more(index, way, now);
            if let Some(shared) = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.shared.take()) {
                self.uses_no_more(shared);
            }
        }
    }

    /// A connection, or the listener; the last one takes it along.
    pub(super) fn uses_no_more(&mut self, shared: usize) {
        let rate = &mut self.shared_rates[shared];
        rate.users -= 1;
        if rate.users == 0 {
            debug_assert!(rate.timer.is_none(), "nobody waits for it");
            self.shared_rates.remove(shared);
        }
    }

    /// There is a portion for the next one.
    pub(crate) fn shared_rate_is_ready(&mut self, shared: usize) {
        let now = self.cx.world.now();
        self.shared_rates[shared].timer = None;
        self.deal(shared, now);
    }
}

fn rate_of(conn: &mut Conn, way: Way) -> Option<&mut Rate> {
    Some(conn.extra.as_mut()?.rates.as_mut()?.of(way))
}

/// Where there is a limit.
fn limited(conn: &mut Conn, way: Way) -> Option<&mut Rate> {
    rate_of(conn, way).filter(|rate| rate.bucket.is_some() || rate.shared.is_some())
}

fn run_timer(timers: &mut Timers, timer: &mut Option<Timer>, at: Option<Time>, what: What) {
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
