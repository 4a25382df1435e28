//! Peace, the end, and what must be so then.

use super::{
    SECOND,
    framing::{Framing, Next},
    run::Site,
    shadow::{Alarm, AlarmState, Errand, Model, Work, promise},
};
use mainspring::Net;
use std::sync::atomic::Ordering;

impl Model {
    pub(super) fn begin_shutdown(&mut self, host: usize) {
        self.story.note(|| format!("host {host} is shut down"));
        self.forget_lanes(host);
        self.forget_datagrams(host);
        self.drop_spares(host);
        let place = &mut self.places[host];
        place.is_shutting_down = true;
        place.errands.clear();
        place.jobs.clear();
        place.lookups.clear();
        for alarm in &mut place.alarms {
            alarm.state = AlarmState::Done;
        }
        for work in &mut place.works {
            work.is_pending = false;
        }
        for id in place.conns.clone() {
            self.conns[id].is_over = true;
            self.forget_elsewhere(id);
        }
    }

    pub(super) fn finish_shutdown(&mut self, host: usize, sockets: usize) {
        let left = self.conns.iter().position(|conn| conn.host == host && conn.closed.is_none());
        promise!(self.story, left.is_none(), "host {host} was shut down, and {left:?} was not closed");
        self.look_at_last_datagrams(host);
        promise!(self.story, sockets == 0, "host {host} was shut down, and {sockets} sockets are open");
        let place = &mut self.places[host];
        // It is an empty one now, which goes on.
        (place.is_shutting_down, place.must_have_stopped) = (false, false);
        place.listeners.clear();
    }

    /// Nothing keeps anybody from reading any more.
    pub(super) fn pacify(&mut self, host: usize, net: &mut Net<'_, Site>) {
        self.look_at_pairs(host, net);
        self.settle_spares(host, net);
        for id in self.places[host].conns.clone() {
            let conn = &mut self.conns[id];
            let Some(key) = conn.key else { continue };
            let (tied, targets) = std::mem::take(&mut conn.targets).into_iter().partition(|&target| conn.mate == Some(target));
            conn.targets = tied;
            let targets: Vec<usize> = targets;
            for target in targets {
                if let Some(writer) = self.conns[target].key {
                    net.unthrottle(key, writer);
                }
            }
            let conn = &mut self.conns[id];
            let (was_paused, held_back) = (std::mem::take(&mut conn.is_paused), std::mem::take(&mut conn.holds_back));
            for hold in std::mem::take(&mut conn.holds) {
                net.release(hold);
            }
            self.close_if_both_ended(id);
            self.start_some(id, net);
            let Some(mut link) = net.link(key) else { continue };
            // No more than it takes: what was asked for must come by itself.
            if was_paused {
                link.resume();
            }
            if held_back {
                link.set_hold_back(false);
            }
            link.wake();
        }
        for index in 0..self.places[host].alarms.len() {
            if self.places[host].alarms[index].period.is_some() && self.places[host].alarms[index].state == AlarmState::Set {
                self.cancel_one(host, net, index);
            }
        }
    }

    /// All that could happen has happened.
    pub(super) fn look_at_rest(&mut self, host: usize, net: &mut Net<'_, Site>, has_stopped: bool) {
        self.look_at_lanes_at_rest(host);
        self.look_at_datagrams_at_rest(host, net);
        let place = &self.places[host];
        promise!(self.story, has_stopped || !place.must_have_stopped, "host {host} was asked to stop, and goes on");
        let place = &self.places[host];
        promise!(self.story, !has_stopped || place.may_have_stopped, "host {host} has stopped, and nobody asked for that");
        let is_waiting = |errand: &&Errand| !matches!(errand, Errand::Tell { conn, life } if self.conns[*conn].life != *life);
        let waiting = self.places[host].errands.values().filter(is_waiting).count() + self.places[host].jobs.len();
        promise!(self.story, waiting == 0, "{waiting} tells, posts and jobs of host {host} did not run");
        let place = &self.places[host];
        let due = place.lookups.first().filter(|_| !place.was_drained);
        promise!(self.story, due.is_none(), "lookup {due:?} of host {host} was never told");
        let now = net.now();
        let is_late = |alarm: &Alarm| {
            let is_orphan = alarm.owner.is_some_and(|(id, _)| self.is_over(id, net));
            alarm.state == AlarmState::Set && !is_orphan && alarm.deadline < now
        };
        let late = self.places[host].alarms.iter().position(is_late);
        promise!(self.story, late.is_none(), "timer {late:?} of host {host} did not fire");
        // What a drain's grace has dropped is not known here.
        let is_owed = |work: &Work| {
            let is_orphan = work.owner.is_some_and(|(id, life)| self.is_over(id, net) || self.conns[id].life != life);
            work.is_pending && !is_orphan && !self.places[host].was_drained
        };
        let owed = self.places[host].works.iter().position(is_owed).filter(|_| !self.had_long_work);
        promise!(self.story, owed.is_none(), "the end of work {owed:?} of host {host} was not told");
        let stats = net.stats();
        let (came, went) = (stats.accepted + stats.opened, stats.closed.total() - self.places[host].datagrams_ended);
        let is_right = came == went + stats.connections as u64;
        promise!(self.story, is_right, "host {host} counts {came} who came, {went} who went, {} who are here", stats.connections);
        let is_listening = self.places[host].drained.iter().any(|&key| net.is_open(key));
        promise!(self.story, !is_listening, "host {host} drains, and listens");
        for id in self.places[host].conns.clone() {
            self.look_at_one_at_rest(id, net);
        }
    }

    /// It, and all whom what it sends goes through: peers, and the mates of pairs.
    fn row_of(&self, id: usize) -> Vec<usize> {
        let mut row = vec![id];
        let mut at = 0;
        while let Some(&id) = row.get(at) {
            at += 1;
            let conn = &self.conns[id];
            row.extend(conn.peer.into_iter().chain(conn.mate).filter(|other| !row.contains(other)).collect::<Vec<_>>());
        }
        row
    }

    pub(super) fn look_at_one_at_rest(&mut self, id: usize, net: &mut Net<'_, Site>) {
        if !self.conns[id].key.is_some_and(|key| net.is_open(key)) {
            self.story.breaks(format!("{id} has begun to end, and is not closed"));
            return;
        }
        self.notice_lost_writer(id, net);
        let Some(link) = self.conns[id].key.and_then(|key| net.link(key)) else { return };
        let (queued, is_congested, unread) = (link.queued(), link.is_congested(), link.unread());
        let now = net.now();
        self.look_at_rates(id, net);
        promise!(self.story, !self.is_securing(id), "{id} has still to agree on TLS, and nobody does anything");
        let conn = &self.conns[id];
        promise!(self.story, conn.is_connected, "{id} is neither connected nor closed");
        promise!(self.story, !conn.is_lost && !conn.is_lifted, "{id} is lost, and not closed");
        let row = self.row_of(id);
        let is_elsewhere = |&id: &usize| self.conns[id].has_sources || self.conns[id].saving.is_some();
        if self.had_long_work && row.iter().any(is_elsewhere) {
            return; // what stands in front is still read
        }
        let waits = |&id: &usize| self.conns[id].mate.is_some_and(|mate| self.conns[mate].peer.is_none());
        if row.iter().any(waits) {
            return; // what is passed on waits in the backlog of a listener that pauses
        }
        let conn = &self.conns[id];
        let is_owed = conn.was_congested && !conn.is_half_closed && !is_congested;
        let is_stuck = is_congested && queued == 0 && !conn.is_half_closed && !conn.may_be_half_closed;
        promise!(self.story, !is_stuck, "{id} is congested, and nothing is queued");
        promise!(self.story, !is_owed, "{id} was congested, and is not told that it is no more");
        let conn = &self.conns[id];
        let is_late = conn.limits[2].is_some_and(|(after, since)| now.duration_since(since) > after + SECOND);
        promise!(self.story, !is_late, "the deadline of {id} is over, and it was not told");
        let Some(peer) = self.conns[id].peer else {
            // One that was shed for want of descriptors has been told the end, and may keep its own half.
            let conn = &self.conns[id];
            let is_full = |hall: usize| self.halls[hall].pauses_at.is_some_and(|most| self.guests_of(hall) >= most);
            let may_wait = (0..self.halls.len()).any(is_full);
            let may_wait = may_wait || conn.mate.is_some() || (self.had_long_work && conn.saving.is_some());
            promise!(
                self.story,
                conn.is_accepted || conn.was_accepted || conn.has_eof || may_wait,
                "{id} is connected to nobody"
            );
            return;
        };
        self.skip(id);
        let other_is_muddled = self.conns[peer].is_muddled;
        let (conn, other) = (&self.conns[id], &self.conns[peer]);
        promise!(self.story, queued == 0 || other.is_over, "{queued} bytes of {id} did not leave");
        let has_ended = other.closed.is_some() || other.is_half_closed;
        let has_passed_on = conn.mate.is_some_and(|mate| self.conns[mate].is_half_closed);
        let is_told = conn.has_eof || has_passed_on || self.forwards(id) || (self.had_long_work && conn.saving.is_some());
        promise!(self.story, is_told || !has_ended, "{peer} has ended, and {id} was not told");
        let is_passed_on = !self.forwards(id)
            || conn.mate.is_none_or(|mate| {
                let mate = &self.conns[mate];
                mate.is_half_closed || mate.may_be_half_closed
            });
        promise!(self.story, is_passed_on || !has_ended, "{peer} has ended, and that of {id} was not passed on");
        let is_tied = !conn.targets.is_empty() || self.conns.iter().any(|one| one.targets.contains(&id));
        // Of the others only the loop knows whether something was sent since anything came.
        let is_framed = matches!(
            conn.framing,
            Framing::Line { .. }
                | Framing::Delimiter { .. }
                | Framing::Through { .. }
                | Framing::Prefixed { .. }
                | Framing::Netstring { .. }
        );
        let is_quiet = is_framed && !conn.is_off() && !is_tied && queued == 0 && unread == 0;
        let is_quiet = is_quiet && !conn.has_eof && !conn.is_half_closed && conn.saving.is_none() && !self.had_long_work;
        promise!(self.story, !(conn.asks_quiet && is_quiet), "{id} was to close when it is quiet, and is");
        let (conn, other) = (&self.conns[id], &self.conns[peer]);
        if queued == 0 && !other.is_over && !is_congested && !self.places[conn.host].was_drained {
            self.look_at_sources_at_rest(id);
        }
        if has_passed_on && has_ended {
            return; // nobody was told, and nothing more is read
        }
        if self.conns[id].saving.is_some() {
            return self.look_at_save_at_rest(id, unread);
        }
        let conn = &self.conns[id];
        // One that would pass it on to a connection that nobody reads is paused.
        let is_in_vain = conn.mate.is_some_and(|mate| self.has_lost_writer(mate));
        let is_known = !conn.is_loose && !other_is_muddled && !is_in_vain;
        if !conn.has_eof && is_known {
            let other = &self.conns[peer];
            let rest = &other.sent[conn.got..];
            let (next, missing) = (conn.framing.next(rest), rest.len());
            let is_skipping = matches!(conn.framing, Framing::Skip { .. });
            promise!(self.story, next == Next::Nothing, "{next:?} is owed to {id}");
            promise!(self.story, is_skipping || unread == missing, "{id} holds {unread} bytes, and {missing} were sent");
        }
    }

    pub(super) fn close_all(&mut self, host: usize, net: &mut Net<'_, Site>) {
        for id in self.places[host].conns.clone() {
            self.close(id, net);
        }
        self.end_all_datagrams(host, net);
        while !self.places[host].listeners.is_empty() {
            self.close_listener(host, net);
        }
        for index in 0..self.places[host].alarms.len() {
            if self.places[host].alarms[index].state == AlarmState::Set {
                self.cancel_one(host, net, index);
            }
        }
        if let Some(anchor) = self.places[host].anchor.take() {
            promise!(self.story, net.cancel(anchor), "the last timer of host {host} was not set");
        }
    }

    /// Nothing is left that could keep a host running.
    pub(super) fn look_at_end(&mut self, host: usize, sockets: usize, has_stopped: bool) {
        self.look_at_last_datagrams(host);
        let left = self.places[host].conns.clone();
        promise!(self.story, left.is_empty(), "all of host {host} were closed, and {left:?} are not");
        promise!(self.story, sockets == 0, "all of host {host} are closed, and {sockets} sockets are open");
        let has_stopped = has_stopped || self.had_long_work;
        promise!(self.story, has_stopped, "nothing is left of host {host}, and it goes on");
    }

    /// Everything was given back.
    pub(super) fn look_back(&mut self) {
        self.look_back_elsewhere();
        self.count_lost();
        let left = self.alive.get();
        promise!(self.story, left == 0, "{left} protocols, closures and producers were not dropped");
        let given: usize = self.places.iter().map(|place| place.works_given.load(Ordering::Relaxed)).sum();
        // Where every thread was busy, work has begun that nobody waits for any more.
        let busy: usize = self.places.iter().map(|place| place.works_max.min(4)).sum();
        promise!(self.story, given <= busy, "{given} pieces of work were neither done nor dropped");
    }
}
