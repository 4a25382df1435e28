//! What is done: tells, timers, work, and the loop itself.

use super::{
    run::Site,
    shadow::{Alarm, AlarmState, Alive, Call, Errand, Given, Model, Peer, Work, promise},
};
use mainspring::{Context, Net, Outcome, Timer};
use std::{
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

impl Model {
    pub(super) fn add_errand(&mut self, host: usize, errand: Errand) -> u64 {
        let place = &mut self.places[host];
        let number = place.errands_so_far;
        place.errands_so_far += 1;
        if !place.is_shutting_down {
            place.errands.insert(number, errand);
        }
        number
    }

    pub(super) fn tell(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let (host, was_open) = (self.conns[id].host, net.is_open(key));
        let (number, token) = (self.places[host].errands_so_far, Alive::one_more(&self.alive));
        let answer = net.tell(key, move |peer: &mut Peer, ctx, site| {
            let _token = &token;
            peer.called(ctx, site, &Call::Tell(number))
        });
        self.story.note(|| format!("      {id} is told {number}: {answer}"));
        promise!(self.story, answer == was_open, "telling {id} says {answer}");
        if answer {
            let life = self.conns[id].life;
            self.add_errand(host, Errand::Tell { conn: id, life });
        }
    }

    pub(super) fn post(&mut self, host: usize, net: &mut Net<'_, Site>) {
        if self.dice.one_in(3) {
            let place = &mut self.places[host];
            let number = place.errands_so_far;
            place.errands_so_far += 1;
            if !place.is_shutting_down {
                place.jobs.push_back(number);
            }
            let posted = net.remote().post(move |net, site| {
                let shared = Rc::clone(&site.model);
                let model = &mut *shared.borrow_mut();
                let first = model.places[site.host].jobs.pop_front();
                promise!(model.story, first == Some(number), "job {number} of host {} came before {first:?}", site.host);
                model.act_in_job(site.host, net);
            });
            promise!(self.story, posted.is_ok(), "the reactor is said to be gone");
            return;
        }
        let number = self.add_errand(host, Errand::Post);
        self.story.note(|| format!("      host {host} posts {number}"));
        let token = Alive::one_more(&self.alive);
        net.post(move |net, site| {
            let _token = &token;
            let shared = Rc::clone(&site.model);
            let model = &mut *shared.borrow_mut();
            model.on_errand(site.host, number);
            model.act_in_job(site.host, net);
        });
    }

    pub(super) fn act_in_job(&mut self, host: usize, net: &mut Net<'_, Site>) {
        self.figures.callbacks += 1;
        self.look_at_pairs(host, net);
        self.story.note(|| format!("   host {host} runs a job"));
        if !self.quiet.get() && self.ops_left > 0 && self.story.broken.is_none() && self.dice.one_in(2) {
            self.act(host, net);
        }
    }

    pub(super) fn tell_after(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let (host, delay, was_open) = (self.conns[id].host, self.some_delay(), net.is_open(key));
        let deadline = net.now() + delay;
        let handle = net.tell_after(key, delay, self.next_alarm(host));
        self.add_alarm(host, Some(id), was_open, deadline, None, handle);
    }

    pub(super) fn set_alarm(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let (delay, is_periodic) = (self.some_delay(), self.dice.one_in(3));
        let (index, token) = (self.places[host].alarms.len(), Alive::one_more(&self.alive));
        let fired = move |net: &mut Net<'_, Site>, site: &mut Site| {
            let _token = &token;
            let shared = Rc::clone(&site.model);
            let model = &mut *shared.borrow_mut();
            model.story.note(|| format!("   timer {index} of host {}", site.host));
            model.on_alarm(site.host, index, net);
            let alarm = &model.places[site.host].alarms[index];
            if alarm.period.is_some() && alarm.firings >= 5 {
                model.cancel_one(site.host, net, index);
            }
            model.act_in_job(site.host, net);
        };
        let (now, period) = (net.now(), delay + Duration::from_millis(20));
        if is_periodic {
            let handle = net.every(period, fired);
            self.add_alarm(host, None, true, now + period, Some(period), handle);
        } else {
            let handle = net.after(delay, fired);
            self.add_alarm(host, None, true, now + delay, None, handle);
        }
    }

    /// What the timer that is set next does, if it is a connection's own.
    pub(super) fn next_alarm(
        &self,
        host: usize,
    ) -> impl FnMut(&mut Peer, &mut Context<'_, Site>, &mut Site) -> Outcome + use<> + 'static {
        let (index, token) = (self.places[host].alarms.len(), Alive::one_more(&self.alive));
        move |peer, ctx, site| {
            let _token = &token;
            peer.called(ctx, site, &Call::Alarm(index))
        }
    }

    pub(super) fn add_alarm(
        &mut self,
        host: usize,
        owner: Option<usize>,
        is_set: bool,
        deadline: Instant,
        period: Option<Duration>,
        handle: Timer,
    ) {
        let owner = owner.map(|id| (id, self.conns[id].life));
        let place = &mut self.places[host];
        let index = place.alarms.len();
        let state = if is_set && !place.is_shutting_down { AlarmState::Set } else { AlarmState::Done };
        place.alarms.push(Alarm { owner, deadline, order: place.orders, period, state, handle, firings: 0 });
        place.orders += 1;
        self.story.note(|| format!("      timer {index} of host {host}, of {owner:?}, every {period:?}: {state:?}"));
    }

    pub(super) fn offload(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let (index, work, untold) = self.add_work(host, None);
        let token = Alive::one_more(&self.alive);
        net.offload(work, move |net, site: &mut Site, result| {
            drop(untold);
            let _token = &token;
            let shared = Rc::clone(&site.model);
            let model = &mut *shared.borrow_mut();
            model.on_done(site.host, index, &result);
            model.act_in_job(site.host, net);
        });
    }

    pub(super) fn offload_for(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let was_open = net.is_open(key);
        let host = self.conns[id].host;
        let (index, work, untold) = self.add_work(host, Some(id));
        self.places[host].works[index].is_pending &= was_open;
        let token = Alive::one_more(&self.alive);
        let answer = net.offload_for(key, work, move |peer: &mut Peer, ctx, site, result| {
            drop(untold);
            let _token = &token;
            peer.called(ctx, site, &Call::Done(index, &result))
        });
        promise!(self.story, answer == was_open, "offloading for {id} says {answer}");
    }

    /// Its number, the work, and what counts it until its end is told or dropped.
    pub(super) fn add_work(
        &mut self,
        host: usize,
        owner: Option<usize>,
    ) -> (usize, impl FnOnce() -> usize + Send + use<>, Option<Given>) {
        let owner = owner.map(|id| (id, self.conns[id].life));
        let is_bad = self.dice.one_in(5);
        let place = &mut self.places[host];
        let index = place.works.len();
        let [given, untold] = [&place.works_given, &place.works_untold].map(|count| count.load(Ordering::Relaxed));
        let (has_place, has_room) = (given < place.works_max, given.max(untold) < place.works_max);
        place.works.push(Work { owner, is_pending: !place.is_shutting_down, is_bad, has_place, has_room });
        self.story.note(|| format!("      work {index} of host {host}, of {owner:?}, room for it: {has_room}"));
        let given = Given::one_more(&place.works_given);
        // Whatever may have been taken: with less there may be no room where we say that there is.
        let untold = has_place.then(|| Given::one_more(&place.works_untold));
        let work = move || {
            drop(given);
            if is_bad {
                std::panic::resume_unwind(Box::new("work"));
            }
            index
        };
        (index, work, untold)
    }

    pub(super) fn cancel(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let alarms = self.places[host].alarms.len();
        if alarms > 0 {
            let index = alarms - 1 - self.dice.below(alarms.min(10));
            self.cancel_one(host, net, index);
        }
    }

    pub(super) fn cancel_one(&mut self, host: usize, net: &mut Net<'_, Site>, index: usize) {
        if self.places[host].is_shutting_down {
            return;
        }
        let alarm = &self.places[host].alarms[index];
        let is_orphan = alarm.owner.is_some_and(|(id, _)| self.is_over(id, net));
        let expected = alarm.state == AlarmState::Set && !is_orphan;
        let answer = net.cancel(alarm.handle);
        self.story.note(|| format!("      timer {index} of host {host} is cancelled: {answer}"));
        self.places[host].alarms[index].state = AlarmState::Done;
        promise!(self.story, answer == expected, "cancelling timer {index} of host {host} says {answer}");
    }

    pub(super) fn drain(&mut self, host: usize, net: &mut Net<'_, Site>, grace: Duration) {
        self.story.note(|| format!("      host {host} drains for {grace:?}"));
        let is_draining = net.is_draining();
        net.drain(grace);
        self.forget_lanes(host);
        let place = &mut self.places[host];
        (place.was_drained, place.may_have_stopped) = (true, true);
        if !is_draining {
            place.drained.extend(place.listeners.iter().map(|&(key, _)| key));
        }
    }
}
