//! What the loop knows of one dispatcher: a source that the program owns, reads and writes itself.

use crate::{
    cx::Cx,
    flags::*,
    key::Key,
    time::PAUSE_MIN,
    timers::{Cue, TimerKind},
    world::{ARMS_BY_ITSELF, Source, Stands},
};
use std::{io, time::Duration};

/// A dispatcher that says this often in a row that there is more is named in the log.
const NEVER_DRAINED_MAX: u32 = 100_000;

/// What is called drained and is not rests for this long at most.
const REST_MAX: Duration = Duration::from_millis(100);

/// What may be ready.
fn every() -> Flags {
    let both = READABLE | WRITABLE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let both = both | PRIORITY;
    both
}

pub(crate) struct Dispatching {
    pub(crate) key: Key,
    /// The selector reports it; otherwise it is always ready, and was reported once.
    is_registered: bool,
    /// It keeps nothing waiting: neither `run` nor a drain.
    pub(crate) is_background: bool,
    /// Of `READABLE`, `WRITABLE` and `PRIORITY`: what it has not said to be drained yet. And `THROTTLED`, `IN_READY`,
    /// `IN_DIRTY`, `SHUT`.
    pub(crate) flags: Flags,
    /// Of these three: what it has not called unwanted. Of `flags` it has only these.
    wanted: Flags,
    /// Of these: what the selector reports. armed ⊆ wanted
    armed: Flags,
    /// Of these: what it has called drained, and was not. Told again when its timer is due, which is set ⇔ some
    resting: Flags,
    /// How often in a row that was so.
    in_vain: u32,
    /// It is not read while one of these connections is congested.
    pub(crate) targets: Vec<Key>,
    /// How often in a row it said that there is more.
    never_drained: u32,
}

impl Dispatching {
    pub(crate) fn new(key: Key, is_registered: bool) -> Self {
        let mut flags = Flags::default();
        flags.insert_if(READABLE | WRITABLE, !is_registered);
        let (wanted, armed) = (every(), every());
        let (resting, in_vain, never_drained) = (Flags::default(), 0, 0);
        Self {
            key,
            is_registered,
            is_background: false,
            flags,
            wanted,
            armed,
            resting,
            in_vain,
            targets: Vec::new(),
            never_drained,
        }
    }

    /// There is nothing that the selector could report: it is told only what was asked for.
    pub(crate) fn of_nothing(key: Key) -> Self {
        let mut this = Self::new(key, false);
        this.flags.remove(every());
        this.wanted.remove(every());
        this
    }

    /// What is to be told to it.
    pub(crate) fn ready(&self) -> Flags {
        let ready = self.flags.only(every());
        match () {
            () if self.flags.has_any(SHUT) => Flags::default(),
            () if self.flags.has_any(THROTTLED) => ready.without(READABLE),
            () => ready,
        }
    }

    /// An event; an error makes it ready.
    pub(crate) fn note(&mut self, ready: Flags) {
        self.flags.insert(ready.only(self.wanted));
        if !ARMS_BY_ITSELF {
            self.armed.remove(ready);
        }
    }

    /// Whether the selector may know it.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_registered && (self.armed.has_any(every()) || !ARMS_BY_ITSELF)
    }

    fn is_to_be_armed(&self) -> bool {
        self.is_registered && !self.flags.has_any(SHUT)
    }

    /// It has met `WouldBlock`: nothing more until the next edge.
    pub(crate) fn drained(&mut self, what: Flags, mut source: Source<'_>, cx: &mut Cx) -> io::Result<()> {
        self.never_drained = 0;
        self.flags.remove(what);
        if !self.is_to_be_armed() || self.armed.has_any(what) {
            return Ok(());
        }
        let stands = if ARMS_BY_ITSELF { Stands::No } else { cx.world.stands(source.again(), what) };
        match stands {
            Stands::No => {
                self.in_vain = 0;
                self.armed.insert(what);
                cx.world.watch_for(source, self.armed, self.key.token())
            }
            Stands::Yes => {
                self.rest(what, cx);
                Ok(())
            }
            Stands::ArmsItself => {
                self.armed.insert(what);
                Ok(())
            }
        }
    }

    /// A selector that reports what is so, and not what changes, would report it at once, again and again: so it is told
    /// again after a while.
    pub(crate) fn rest(&mut self, what: Flags, cx: &mut Cx) {
        let pause = PAUSE_MIN.saturating_mul(1 << (2 * self.in_vain.min(4))).min(REST_MAX);
        self.in_vain = self.in_vain.saturating_add(1);
        if !self.resting.has_any(every()) {
            cx.timers.set(cx.world.now() + pause, TimerKind::Entry(self.key, Cue::TryAgain));
        }
        self.resting.insert(what);
    }

    /// Its timer is due.
    pub(super) fn rested(&mut self) {
        let rested = std::mem::take(&mut self.resting);
        self.flags.insert(rested.only(self.wanted));
    }

    /// It is not to be told of this any more.
    pub(crate) fn unwanted(&mut self, what: Flags, source: Source<'_>, cx: &mut Cx) -> io::Result<()> {
        self.never_drained = 0;
        self.flags.remove(what);
        self.wanted.remove(what);
        if !self.is_to_be_armed() || !self.armed.has_any(what) {
            return Ok(());
        }
        self.armed.remove(what);
        cx.world.watch_for(source, self.armed, self.key.token())
    }

    /// It is told of this at once, whether or not there is anything: what it then calls drained is armed.
    pub(crate) fn want(&mut self, what: Flags) {
        self.wanted.insert(what);
        self.flags.insert(what);
    }

    /// It says that there is more.
    pub(crate) fn not_drained(&mut self, protocol: &str) {
        self.never_drained = self.never_drained.saturating_add(1);
        if self.never_drained == NEVER_DRAINED_MAX {
            let key = self.key;
            log::warn!(target: "mainspring", "{key} {protocol} has said {NEVER_DRAINED_MAX} times in a row that there is more");
        }
    }
}
