//! What is done: commands to a connection, its end included.

use super::{
    checks::moved,
    framing::Framing,
    plays::DELIMITERS,
    run::Site,
    shadow::{Hall, Marks, Model, Peer, Why, promise},
};
use mainspring::{Endian, Key, Net, Width};
use std::collections::BTreeMap;

impl Model {
    pub(super) fn some_framing(&mut self) -> Framing {
        match self.some_older_framing() {
            Framing::Delimiter { bytes, limit } if self.later.one_in(2) => Framing::Through { bytes, limit },
            framing => framing,
        }
    }

    /// By the other dice.
    pub(super) fn some_later_framing(&mut self) -> Framing {
        std::mem::swap(&mut self.dice, &mut self.later);
        let framing = self.some_older_framing();
        std::mem::swap(&mut self.dice, &mut self.later);
        framing
    }

    fn some_older_framing(&mut self) -> Framing {
        let dice = &mut self.dice;
        let limit = dice.pick(&[0, 4, 20, 20, 100, 100_000]);
        match dice.below(16) {
            0..3 => Framing::Line { limit },
            3 => Framing::Delimiter { bytes: b"\r\n", limit },
            4 | 5 => Framing::Delimiter { bytes: dice.pick(&DELIMITERS), limit },
            6 => {
                let bytes = dice.below(60);
                Framing::Length { bytes, limit: bytes }
            }
            7 => Framing::Length { bytes: dice.below(60), limit },
            8 => Framing::Stream { left: dice.below(200) },
            9 | 10 => {
                let bytes = dice.pick(&DELIMITERS);
                Framing::Until { bytes, seen: dice.below(bytes.len()) }
            }
            11 | 12 => Framing::Blocks,
            13 if dice.one_in(4) => Framing::Netstring { limit },
            13 if dice.one_in(4) => Framing::Prefixed { width: Width::U16, order: Endian::Big, limit: 40_000 },
            _ => Framing::None,
        }
    }

    pub(super) fn set_framing(&mut self, id: usize, net: &mut Net<'_, Site>, framing: Framing) {
        if self.conns[id].saving.is_some() {
            return; // what it saves has its own
        }
        self.story.note(|| format!("      {id} is to read {framing:?}"));
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        link.set_terminator(framing.terminator());
        self.skip(id);
        match &mut self.conns[id].framing {
            Framing::Skip { then, .. } => **then = framing,
            current => *current = framing,
        }
    }

    pub(super) fn set_paused(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let on = !self.conns[id].is_paused && self.dice.one_in(2);
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        if on {
            link.pause();
        } else {
            link.resume();
        }
        self.story.note(|| format!("      {id} is paused: {on}"));
        self.conns[id].is_paused = on;
        if self.later.one_in(3) {
            self.set_held(id, net);
        }
    }

    fn set_held(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let released = if self.later.one_in(2) { self.conns[id].holds.pop() } else { None };
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        match released {
            Some(hold) => net.release(hold),
            None => self.conns[id].holds.push(link.hold()),
        }
        self.close_if_both_ended(id);
        self.story.note(|| format!("      {id} has {} holds", self.conns[id].holds.len()));
    }

    pub(super) fn throttle(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(target) = self.some_conn(self.conns[id].host) else { return };
        let (Some(reader), Some(writer)) = (self.conns[id].key, self.conns[target].key) else { return };
        if self.conns[id].targets.contains(&target) {
            net.unthrottle(reader, writer);
            self.conns[id].targets.retain(|&other| other != target);
            if self.conns[id].mate == Some(target) {
                self.conns[target].may.push(Why::Overflow); // the cap decides
            }
            return;
        }
        let expected = net.is_open(reader) && net.is_open(writer);
        let answer = net.throttle(reader, writer);
        self.story.note(|| format!("      {id} is throttled by {target}: {answer}"));
        promise!(self.story, answer == expected, "throttling {id} by {target} says {answer}");
        if answer {
            self.conns[id].targets.push(target);
        }
    }

    pub(super) fn set_output(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let (low, marks) = self.some_marks();
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        let conn = &mut self.conns[id];
        if self.dice.one_in(2) {
            conn.holds_back = self.dice.one_in(2);
            link.set_hold_back(conn.holds_back);
        } else {
            link.set_output_limits(low, marks.high, marks.cap);
            conn.marks = marks;
        }
        let (holds_back, marks) = (conn.holds_back, conn.marks);
        self.story.note(|| format!("      {id} holds back: {holds_back}, {marks:?}"));
    }

    /// The low one, and the others.
    pub(super) fn some_marks(&mut self) -> (usize, Marks) {
        let (low, high, cap) = self.dice.pick(&[(0, 0, 10), (5, 40, 400), (100, 2_000, 9_000), (0, 60_000, 200_000)]);
        (low, Marks { high, cap })
    }

    pub(super) fn set_limit(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let (now, which) = (net.now(), self.dice.below(4));
        let after = (!self.dice.one_in(4)).then(|| self.some_delay());
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        match which {
            0 => link.set_idle_timeout(after),
            1 => link.set_stall_timeout(after),
            2 => link.set_deadline(after),
            _ => link.set_frame_timeout(after),
        }
        self.story.note(|| format!("      {id} has limit {which} of {after:?}"));
        self.conns[id].limits[which] = after.map(|after| (after, now));
        self.conns[id].has_own_deadline |= which == 2;
    }

    pub(super) fn some_rate(&mut self) -> u64 {
        let slow = self.slow_rate;
        self.dice.pick(&[slow, slow, slow * 5, slow * 50, 1 << 30, u64::MAX])
    }

    pub(super) fn set_rate(&mut self, id: usize, net: &mut Net<'_, Site>) {
        self.look_at_rates(id, net);
        let (now, way) = (net.now(), self.dice.below(2));
        let rate = (!self.dice.one_in(4)).then(|| self.some_rate());
        let Some(key) = self.conns[id].key else { return };
        let Some(moved) = moved(key, net) else { return };
        let Some(mut link) = net.link(key) else { return };
        match way {
            0 => link.set_read_rate(rate),
            _ => link.set_write_rate(rate),
        }
        self.story.note(|| format!("      {id} has rate {way} of {rate:?}"));
        self.conns[id].rates[way] = rate.map(|rate| (rate, now, moved[way]));
    }

    /// No more is written than the rate allows, and no more read, except of one that is lost, which must end then.
    pub(super) fn look_at_rates(&mut self, id: usize, net: &mut Net<'_, Site>) {
        self.look_at_total_rates(id, net);
        let conn = &self.conns[id];
        let Some(key) = conn.key.filter(|&key| net.is_open(key)) else { return };
        let Some(moved) = moved(key, net).filter(|_| !conn.is_lost && !conn.is_lifted) else { return };
        for (way, (rate, moved)) in conn.rates.into_iter().zip(moved).enumerate() {
            let Some((rate, since, before)) = rate else { continue };
            let due = u128::from(rate) * net.now().duration_since(since).as_nanos() / 1_000_000_000;
            let (most, moved) = (due + u128::from(rate / 4), moved - before);
            if way == 0 && u128::from(moved) > most && self.was_lost(id, net) {
                self.conns[id].is_lifted = true;
                return;
            }
            promise!(
                self.story,
                u128::from(moved) <= most,
                "{id} has moved {moved} bytes {way}, and {rate} per second are {most}"
            );
        }
    }

    /// The same for all that have its listener; for those that are lost or gone, what was seen before counts.
    pub(super) fn look_at_total_rates(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let conn = &self.conns[id];
        let Some(number) = conn.hall.filter(|&hall| self.halls[hall].total_rates != [None; 2]) else { return };
        let bytes: BTreeMap<Key, [u64; 2]> =
            net.connections().into_iter().map(|one| (one.key, [one.bytes_in, one.bytes_out])).collect();
        for id in self.places[conn.host].conns.clone() {
            let conn = &self.conns[id];
            let is_seen = conn.hall == Some(number) && !conn.is_lost && !conn.is_lifted;
            let Some(key) = conn.key.filter(|&key| is_seen && net.is_open(key) && !self.was_lost(id, net)) else { continue };
            self.conns[id].moved = bytes[&key];
        }
        let guests = self.conns.iter().filter(|conn| conn.hall == Some(number));
        let moved = guests.fold([0; 2], |[read, written], conn| [read + conn.moved[0], written + conn.moved[1]]);
        let Hall { total_rates, opened, .. } = self.halls[number];
        let opened = opened.expect("somebody was let in");
        for (way, (rate, moved)) in total_rates.into_iter().zip(moved).enumerate() {
            let Some(rate) = rate else { continue };
            let most = u128::from(rate) * net.now().duration_since(opened).as_nanos() / 1_000_000_000 + u128::from(rate / 4);
            let is_kept = u128::from(moved) <= most;
            promise!(
                self.story,
                is_kept,
                "the guests of {number} have moved {moved} bytes {way}, and {rate} per second are {most}"
            );
        }
    }

    /// Whether the network has broken it off: then what it still had is read at once.
    pub(super) fn was_lost(&self, id: usize, net: &Net<'_, Site>) -> bool {
        let Some(key) = self.conns[id].key else { return false };
        if self.conns[id].is_adopted {
            return !self.conns[id].is_apart && self.losses.includes_key(key);
        }
        let (local, peer) = (net.local(key).and_then(|at| at.ip()), net.peer(key).and_then(|at| at.ip()));
        local.zip(peer).is_some_and(|(local, peer)| self.losses.includes(local, peer))
    }

    // ------------------------------------------------------------------------------------------- ending

    pub(super) fn close(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let was_open = net.is_open(key);
        let answer = net.close(key);
        self.story.note(|| format!("      {id} is to close: {answer}"));
        promise!(self.story, answer == was_open, "closing {id} says {answer}");
        self.closed(id, net, was_open);
    }

    pub(super) fn closed(&mut self, id: usize, net: &mut Net<'_, Site>, was_open: bool) {
        if was_open {
            self.end_feeds(id);
            let conn = &mut self.conns[id];
            (conn.is_over, conn.is_closing) = (true, true);
            conn.asked_to_end();
            promise!(self.story, self.is_over(id, net), "{id} was closed, and is open");
        }
    }

    pub(super) fn abort(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let was_open = net.is_open(key);
        let answer = net.abort(key);
        self.story.note(|| format!("      {id} is to abort: {answer}"));
        let conn = &self.conns[id];
        let may_flush = conn.is_closing || conn.asks_quiet || conn.mate.is_some() || self.has_lost_writer(id);
        let may_be = was_open || (may_flush && conn.must.is_none() && conn.closed.is_none());
        promise!(self.story, (answer || !was_open) && (may_be || !answer), "aborting {id} says {answer}");
        if answer {
            self.breaks_off(id, Why::Abort);
        }
    }

    pub(super) fn fail(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let was_open = net.is_open(key);
        let answer = net.fail(key, "kicked");
        self.story.note(|| format!("      {id} is to fail: {answer}"));
        promise!(self.story, answer == was_open, "failing {id} says {answer}");
        if answer {
            self.breaks_off(id, Why::Failed);
        }
    }

    pub(super) fn close_when_quiet(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        link.close_when_quiet();
        self.story.note(|| format!("      {id} is to close when it is quiet"));
        self.conns[id].asks_quiet = true;
    }

    pub(super) fn half_close(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let was_open = net.is_open(key);
        let answer = net.half_close(key);
        self.story.note(|| format!("      {id} is to half-close: {answer}"));
        promise!(self.story, answer == was_open, "half-closing {id} says {answer}");
        if answer {
            let conn = &mut self.conns[id];
            conn.feed_is_over = true;
            if !std::mem::replace(&mut conn.is_half_closed, true) {
                conn.asked_to_end();
                self.close_if_both_ended(id);
            }
        }
    }

    /// Questions, and what a stale key must not find.
    pub(super) fn probe(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let (conn, is_open) = (&self.conns[id], net.is_open(key));
        promise!(self.story, !(conn.is_over && is_open), "{id} had begun to end, and is open again");
        promise!(self.story, net.link(key).is_some() == is_open, "{id} is open by one name only");
        promise!(self.story, !(conn.is_gone && net.peer(key).is_some()), "{id} was closed, and has a peer");
        promise!(self.story, is_open || !net.send(key, "x"), "{id} has begun to end, and takes output");
        let is_told = !is_open && net.tell(key, |_: &mut Peer, _, _| Ok(()));
        promise!(self.story, !is_told, "{id} has begun to end, and can be told");
        let is_owner = |hall: &&Hall| conn.is_gone && hall.owner == Some(id);
        let left = self.halls.iter().filter(is_owner).find_map(|hall| hall.key.filter(|&key| net.is_open(key)));
        promise!(self.story, left.is_none(), "{id} is gone, and its {left:?} listens");
        self.look_at_rates(id, net);
        self.probe_peer_ended(id, net);
    }
}
