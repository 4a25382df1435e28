//! Rate limits of connections: how much may be moved now, and when to go on.

use super::Hub;
use crate::{
    conn::Conn,
    flags::*,
    key::Key,
    listener::Listen,
    rate::{Bucket, Rate, Way},
    slots::Entry,
    time::Time,
    timers::What,
};

impl Hub {
    /// Bytes per second, from now on.
    pub(crate) fn limit_rate(&mut self, index: usize, way: Way, rate: Option<u64>) {
        self.set_rate(index, way, rate);
        self.touch(index);
    }

    /// The same for whoever settles it afterwards.
    pub(super) fn set_rate(&mut self, index: usize, way: Way, rate: Option<u64>) {
        let now = self.world.now();
        let conn = self.slots.conn_at_mut(index);
        if rate.is_none() && conn.extra.as_ref().is_none_or(|extra| extra.rates.is_none()) {
            return;
        }
        let own = conn.extra().rates.get_or_insert_default().of(way);
        own.bucket = rate.map(|rate| match own.bucket {
            Some(bucket) => bucket.at_rate(rate, now),
            None => Bucket::new(rate, now),
        });
        conn.put(RATED_OUT, if way == Way::Out { rate.is_some() } else { conn.is(RATED_OUT) });
        self.look_at_rate(index, way, now);
    }

    /// What its listener has for each that it accepts.
    pub(super) fn set_default_rates(&mut self, index: usize) {
        let listener = self.slots.conn_at(index).listener;
        let Some(listening) = listener.and_then(|listener| self.slots.listener(listener)) else { return };
        let Listen { read_rate, write_rate, .. } = listening.options;
        for (way, rate) in [(Way::In, read_rate), (Way::Out, write_rate)] {
            if rate.is_some() {
                self.slots.conn_at_mut(index).extra().rates.get_or_insert_default().of(way).default = rate;
                self.set_rate(index, way, rate);
            }
        }
    }

    /// A successor begins with what the listener has; what its predecessor has used up stays used up.
    pub(super) fn reset_rates(&mut self, index: usize) {
        for way in [Way::In, Way::Out] {
            let default = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.default);
            self.set_rate(index, way, default);
        }
    }

    /// What is left of a connection that is lost comes at once: the peer sends no more.
    pub(super) fn allowed_to_read(&mut self, index: usize) -> usize {
        if self.slots.conn_at(index).is(LIFTED) { usize::MAX } else { self.allowed(index, Way::In) }
    }

    /// How many bytes may be moved now; not 0, unless it waits for its timer already.
    pub(super) fn allowed(&mut self, index: usize, way: Way) -> usize {
        let Some(bucket) = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.bucket.as_mut()) else {
            return usize::MAX;
        };
        bucket.allowed(self.world.now())
    }

    /// So many were moved.
    pub(super) fn moved(&mut self, index: usize, way: Way, bytes: usize) {
        let conn = self.slots.conn_at_mut(index);
        let Some(bucket) = rate_of(conn, way).and_then(|rate| rate.bucket.as_mut()) else { return };
        bucket.take(bytes);
        let now = self.world.now();
        self.look_at_rate(index, way, now);
    }

    /// Whether the bucket holds too little; then a timer comes when it has enough again.
    fn look_at_rate(&mut self, index: usize, way: Way, now: Time) {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(rate) = rate_of(conn, way) else { return };
        let ready = rate.bucket.as_mut().map_or(now, |bucket| bucket.ready_at(now));
        let is_spent = ready > now;
        match (rate.timer, is_spent) {
            (Some(timer), true) => self.timers.set_again(timer, ready),
            (None, true) => rate.timer = Some(self.timers.set(ready, What::Rate(key, way))),
            (Some(timer), false) => {
                self.timers.cancel(timer);
                rate.timer = None;
            }
            (None, false) => {}
        }
        conn.put(spent(way), is_spent);
    }

    /// The timer of a bucket fired.
    pub(crate) fn rate_is_ready(&mut self, key: Key, way: Way) {
        let now = self.world.now();
        let Some(Entry::Stream(conn)) = self.slots.get_mut(key) else { return };
        let Some(rate) = rate_of(conn, way) else { return };
        rate.timer = None;
        self.look_at_rate(key.index(), way, now);
        self.settle(key.index());
    }

    pub(super) fn stop_rates(&mut self, index: usize) {
        for way in [Way::In, Way::Out] {
            let timer = rate_of(self.slots.conn_at_mut(index), way).and_then(|rate| rate.timer.take());
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
        }
    }
}

fn rate_of(conn: &mut Conn, way: Way) -> Option<&mut Rate> {
    Some(conn.extra.as_mut()?.rates.as_mut()?.of(way))
}

fn spent(way: Way) -> Flags {
    match way {
        Way::In => SPENT_IN,
        Way::Out => SPENT_OUT,
    }
}
