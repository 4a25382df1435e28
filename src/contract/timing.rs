//! What the program's timers run. When they run is up to the timers themselves.

use super::{Context, Core, Handler, Net, PostedJob, Tell, resolve::Then};
use crate::{
    cx::Orphan,
    key::{Key, Timer},
    panics::discard,
    pool::Ticket,
    reason::Outcome,
    room::{KEPT_MAX, Room},
    time::Time,
    timers::TimerKind,
};
use std::time::Duration;

/// What a timer runs.
pub(crate) enum TimerJob<S> {
    Once(PostedJob<S>),
    Every(Duration, Box<dyn FnMut(&mut Net<'_, S>, &mut S)>),
    Tell(Tell<S>),
    /// The deadline of a lookup: its ticket, if another thread looks, and what it is asked for.
    Lookup(Option<Ticket>, String, Then<S>),
    TellEvery(Duration, Box<dyn FnMut(&mut dyn Handler<S>, &mut Context<'_, S>, &mut S) -> Outcome>),
}

/// What the timers of the program run.
pub(super) struct TimerJobs<S> {
    /// By the timer's index, with its serial.
    kept: Vec<Option<(u64, TimerJob<S>)>>,
    /// What timers that died with their connection would have run, if their place was taken since.
    replaced: Vec<TimerJob<S>>,
    pub(super) on: OnTimers<S>,
}

impl<S> TimerJobs<S> {
    pub(super) const fn none() -> Self {
        Self { kept: Vec::new(), replaced: Vec::new(), on: OnTimers::NONE }
    }
}

/// What is done with them. The code that keeps the first names it, so that a program that sets none links nothing of it.
pub(super) struct OnTimers<S> {
    fire: fn(&mut Core<S>, Timer, Time, Option<Key>, &mut S),
    forget: fn(&mut Core<S>, Timer),
    tidy: fn(&mut Core<S>),
    moved: fn(&mut Core<S>, Vec<(u32, u32)>),
    pub(super) drop_all: fn(&mut Core<S>),
}

impl<S> OnTimers<S> {
    const NONE: Self = Self { fire: |_, _, _, _, _| {}, forget: |_, _| {}, tidy: |_| {}, moved: |_, _| {}, drop_all: |_| {} };
    const ALL: Self = Self {
        fire: Core::fire_job,
        forget: Core::forget,
        tidy: Core::tidy_timer_jobs,
        moved: Core::move_timer_jobs,
        drop_all: Core::drop_all_timer_jobs,
    };
}

impl<S> Core<S> {
    pub(super) fn set_timer(&mut self, delay: Duration, later: TimerJob<S>) -> Timer {
        let deadline = self.hub.cx.world.now() + delay;
        let timer = self.hub.cx.timers.set(deadline, TimerKind::Job);
        self.keep(timer, later);
        timer
    }

    pub(super) fn set_owned_timer(&mut self, key: Key, delay: Duration, later: TimerJob<S>) -> Timer {
        if self.hub.find_open(key).is_none() {
            return self.hub.cx.timers.stale();
        }
        let deadline = self.hub.cx.world.now() + delay;
        let timer = self.hub.set_owned_timer(key, deadline);
        self.keep(timer, later);
        timer
    }

    pub(super) fn keep(&mut self, timer: Timer, later: TimerJob<S>) {
        let index = timer.index as usize;
        if self.timer_jobs.kept.len() <= index {
            self.timer_jobs.kept.resize_with(index + 1, || None);
            self.timer_jobs.on = OnTimers::ALL;
        }
        if let Some((_, dead)) = self.timer_jobs.kept[index].replace((timer.serial, later)) {
            self.timer_jobs.replaced.push(dead); // not dropped now: a callback may be running
        }
        self.hub.cx.jobs_set += 1;
    }

    pub(super) fn cancel(&mut self, timer: Timer) -> bool {
        let Some(timer) = self.hub.cx.timers.job(timer) else { return false };
        self.hub.cancel(timer);
        self.hub.cx.jobs_set -= 1;
        self.forget(timer);
        true
    }

    /// By the index that it has, or had when it died with its connection.
    pub(super) fn take_timer_job(&mut self, timer: Timer) -> Option<TimerJob<S>> {
        let kept = self.timer_jobs.kept.get_mut(timer.index as usize)?;
        kept.take_if(|(serial, _)| *serial == timer.serial).map(|(_, later)| later)
    }

    fn forget(&mut self, timer: Timer) {
        if let Some(later) = self.take_timer_job(timer) {
            self.drop_timer_job(later);
        }
    }

    fn drop_timer_job(&mut self, later: TimerJob<S>) {
        if let TimerJob::Lookup(ticket, ..) = &later {
            self.forget_lookup(*ticket);
        }
        discard("a timer", later);
    }

    /// Drops what the timers and offloads of ended connections would have run.
    pub(crate) fn forget_the_dead(&mut self) {
        while let Some(orphan) = self.hub.cx.lists.orphans.pop() {
            match orphan {
                Orphan::Timer(timer) => (self.timer_jobs.on.forget)(self, timer),
                Orphan::Work(ticket) => self.forget_offload(ticket),
            }
        }
        self.hub.cx.lists.orphans.give_back();
        if self.hub.cx.timers.is_sparse() {
            let moves = self.hub.move_timers_together();
            (self.timer_jobs.on.moved)(self, moves);
        }
        (self.timer_jobs.on.tidy)(self);
    }

    /// Enough are gone to give memory back.
    #[cold]
    fn move_timer_jobs(&mut self, moves: Vec<(u32, u32)>) {
        for &(from, to) in &moves {
            let moved = self.timer_jobs.kept.get_mut(from as usize).and_then(Option::take);
            if let Some(place) = self.timer_jobs.kept.get_mut(to as usize) {
                *place = moved;
            }
        }
        self.timer_jobs.kept.truncate(moves.len());
        self.timer_jobs.kept.shrink_to_fit();
    }

    fn tidy_timer_jobs(&mut self) {
        if self.hub.cx.jobs_set == 0 && self.timer_jobs.kept.len() > KEPT_MAX {
            self.timer_jobs.kept = Vec::new();
        }
        for job in std::mem::take(&mut self.timer_jobs.replaced) {
            self.drop_timer_job(job);
        }
    }

    fn drop_all_timer_jobs(&mut self) {
        for (index, kept) in std::mem::take(&mut self.timer_jobs.kept).into_iter().enumerate() {
            let Some((serial, job)) = kept else { continue };
            let timer = Timer { index: u32::try_from(index).expect("the index of a timer"), serial };
            if self.hub.cancel(timer) {
                self.hub.cx.jobs_set -= 1;
            }
            self.drop_timer_job(job);
        }
        for job in std::mem::take(&mut self.timer_jobs.replaced) {
            self.drop_timer_job(job);
        }
    }

    /// A timer of the program is due.
    #[inline]
    pub(crate) fn fire(&mut self, timer: Timer, deadline: Time, owner: Option<Key>, state: &mut S) {
        (self.timer_jobs.on.fire)(self, timer, deadline, owner, state);
    }

    fn fire_job(&mut self, timer: Timer, deadline: Time, owner: Option<Key>, state: &mut S) {
        let Some(later) = self.take_timer_job(timer) else { return };
        match later {
            TimerJob::Once(job) => {
                self.cancel(timer);
                self.run_job("a timer", state, job);
            }
            TimerJob::Tell(tell) => {
                self.cancel(timer);
                if let Some(key) = owner {
                    self.tell_now(key, "a timer", state, tell);
                }
            }
            TimerJob::Lookup(ticket, asked, then) => self.lookup_timed_out(timer, ticket, &asked, then, state),
            TimerJob::Every(period, mut job) => {
                self.set_next(timer, deadline, period);
                if !self.run_job("a timer", state, &mut job) {
                    self.cancel(timer);
                }
                self.keep_on(timer, TimerJob::Every(period, job));
            }
            TimerJob::TellEvery(period, mut tell) => {
                self.set_next(timer, deadline, period);
                if let Some(key) = owner {
                    self.tell_now(key, "a timer", state, &mut tell);
                }
                self.keep_on(timer, TimerJob::TellEvery(period, tell));
            }
        }
    }

    /// The next time of its phase that is still to come: what was missed is skipped.
    fn set_next(&mut self, timer: Timer, deadline: Time, period: Duration) {
        let now = self.hub.cx.world.now();
        let missed = now.since(deadline).as_nanos() / period.as_nanos().max(1);
        let periods = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.hub.cx.timers.set_again(timer, deadline + period.saturating_mul(periods));
    }

    /// Unless it was cancelled, or its connection ended, while it ran.
    fn keep_on(&mut self, timer: Timer, later: TimerJob<S>) {
        if self.hub.cx.timers.is_set(timer) {
            self.timer_jobs.kept[timer.index as usize] = Some((timer.serial, later)); // nobody is moved while a callback runs
        } else {
            discard("a timer", later);
        }
    }
}
