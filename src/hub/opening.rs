//! How things begin: listening, accepting, connecting, watching.

use super::{Hub, NEVER_DRAINED_MAX, connecting::is_lost_already};
use crate::{
    address::{Address, Place, Target},
    conn::{Conn, Phase},
    connector::{Connect, RETRY},
    flags::*,
    key::Key,
    listener::{AcceptError, Bounds, Listen, Listening},
    reason::{ConnectError, Limit, Reason},
    slots::Entry,
    timers::What,
    transport::Stream,
    watched::Watched,
    world::Source,
};
use std::io;

/// What accepting brought.
pub(crate) enum Accepted {
    /// Somebody to make a protocol for.
    Guest(Key),
    /// Somebody who was sent away, or nobody after all: look again.
    Nobody,
    /// Enough for this turn.
    Done,
}

impl Hub {
    fn next_key(&self) -> io::Result<Key> {
        self.slots.next_key().ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "all slots of this reactor are taken"))
    }

    fn refuse_if_shut(&self) -> io::Result<()> {
        if !self.cx.is_shut {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the reactor is shutting down: nothing is opened any more"))
    }

    pub(crate) fn listen(&mut self, target: &Target, options: Listen) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let at = target.address()?;
        let key = self.next_key()?;
        let (socket, local) = self
            .cx
            .world
            .listen(&at, options.how(), key.token())
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {at}: {error}")))?;
        log::info!(target: "mainspring", "{key} listening on {local}");
        let shared_rates = self.share_rates(&options);
        let mut listening = Listening::new(key, socket, local, options);
        listening.shared_rates = shared_rates;
        self.slots.insert(Entry::Listener(Box::new(listening)));
        self.counts.listeners += 1;
        Ok(key)
    }

    pub(crate) fn accept(&mut self, key: Key) -> Accepted {
        let next = self.slots.next_key();
        let Some(listening) = self.slots.listener(key) else { return Accepted::Done };
        let Some(socket) = &mut listening.socket else { return Accepted::Done };
        let accepted = match next {
            Some(next) => socket.accept(next.token()).map(|accepted| (next, accepted)),
            None => Err(io::Error::new(io::ErrorKind::OutOfMemory, "all slots of this reactor are taken")),
        };
        match accepted {
            Ok((next, (stream, peer))) => {
                (listening.is_reported, listening.passed) = (false, 0);
                listening.accepted += 1;
                let refusal = listening.refusal(peer.ip());
                if listening.has_had_enough() {
                    self.end(key.index(), Reason::Finish);
                }
                self.admit_guest(next, key, stream, peer);
                let was_full = self.slots.listener(key).is_some_and(|it| std::mem::replace(&mut it.is_full, refusal.is_some()));
                let Some(last_words) = refusal else { return Accepted::Guest(next) };
                // Once until there is room again: a flood of peers is to be no flood of records.
                let level = if was_full { log::Level::Debug } else { log::Level::Warn };
                log::log!(target: "mainspring", level, "{next} {} refused: {key} is full", self.slots.conn_at(next.index()).peer);
                self.refuse(next, &last_words);
                Accepted::Nobody
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Drained => {
                    listening.flags.remove(READABLE);
                    listening.passed = 0;
                    Accepted::Done
                }
                AcceptError::Pass if listening.passed < self.cx.config.turn_accepts => {
                    listening.passed += 1;
                    Accepted::Nobody
                }
                // So many in a row are no single connection's: a policy forbids accepting, and they stay where they are.
                AcceptError::Pass => {
                    listening.passed = 0;
                    self.back_off(key, &error);
                    Accepted::Done
                }
                AcceptError::Shed => self.shed(key, &error),
                AcceptError::BackOff => {
                    self.back_off(key, &error);
                    Accepted::Done
                }
            },
        }
    }

    /// No descriptor is left. Who waits would wait for somebody else to close, perhaps for ever: it is sent away, and can go
    /// elsewhere.
    fn shed(&mut self, key: Key, want: &io::Error) -> Accepted {
        let Some(listening) = self.slots.listener(key) else { return Accepted::Done };
        let Some(socket) = &mut listening.socket else { return Accepted::Done };
        match socket.shed() {
            Ok(()) => {
                if !std::mem::replace(&mut listening.is_reported, true) {
                    let at = &listening.local;
                    log::warn!(target: "mainspring", "{key} on {at} closes who comes until there are descriptors again: {want}");
                }
                self.cx.stats.shed += 1;
                Accepted::Nobody
            }
            // The system may say that there is no descriptor before it looks whether anybody waits.
            Err(error) if AcceptError::of(&error) == AcceptError::Drained => {
                listening.flags.remove(READABLE);
                Accepted::Done
            }
            Err(_) => {
                self.back_off(key, want);
                Accepted::Done
            }
        }
    }

    /// Edge triggering brings no second event for those who are waiting already: a timer looks again.
    fn back_off(&mut self, key: Key, error: &io::Error) {
        let again = self.cx.world.now() + self.cx.config.accept_back_off;
        let Some(listening) = self.slots.listener(key) else { return };
        listening.is_backing_off = true;
        if !std::mem::replace(&mut listening.is_reported, true) {
            log::warn!(target: "mainspring", "{key} on {} cannot accept, and tries again until it can: {error}", listening.local);
        }
        self.cx.timers.set(again, What::Accept(key));
    }

    fn admit_guest(&mut self, key: Key, listener: Key, stream: Stream, peer: Address) {
        let ip = peer.ip();
        let mut conn = Conn::new(key, Some(stream), peer, self.stamp());
        conn.listener = Some(listener);
        conn.enter(Phase::Guest);
        conn.set(HOLDS_BACK);
        conn.set(ESTABLISHED | WRITABLE);
        self.slots.insert(Entry::Stream(conn));
        // Before its factory runs, which may ask for a drain: it is somebody to wait for.
        self.counts.accepted += 1;
        if let Some(listening) = self.slots.listener(listener) {
            listening.count_guest(ip);
        }
    }

    /// It is let in: `connected` is owed.
    pub(crate) fn welcome(&mut self, key: Key) {
        let conn = self.slots.conn_at_mut(key.index());
        conn.enter(Phase::Open);
        conn.set(OWES_CONNECTED);
        let listener = conn.listener;
        self.cx.stats.accepted += 1;
        self.set_listeners_rates(key.index());
        if let Some(listening) = listener.and_then(|listener| self.slots.listener(listener)) {
            let bounds = listening.options.bounds;
            self.bound(key.index(), bounds);
        }
        self.settle(key.index());
    }

    fn bound(&mut self, index: usize, bounds: Bounds) {
        let Bounds { idle, stalled, deadline, marks } = bounds;
        for (limit, after) in [(Limit::Idle, idle), (Limit::Stalled, stalled), (Limit::Deadline, deadline)] {
            if after.is_some() {
                self.set_limit(index, limit, after);
            }
        }
        if let Some(marks) = marks {
            self.set_marks(index, marks);
        }
    }

    /// It is not let in: some last words, at once if the kernel takes them, and the end.
    pub(crate) fn refuse(&mut self, key: Key, last_words: &[u8]) {
        self.uncount_guest(key);
        self.cx.stats.refused += 1;
        if last_words.is_empty() {
            return self.free_stream(key.index()); // there is nothing that a reset could destroy
        }
        let conn = self.slots.conn_at_mut(key.index());
        conn.output(&mut self.cx.spares).push(last_words);
        let _ = conn.flush(&mut self.cx.spares, usize::MAX); // of one that is gone already: lingering finds out
        self.linger(key.index());
    }

    /// A key at once; what becomes of it comes as a callback.
    pub(crate) fn connect(&mut self, target: &Target, options: &Connect) -> Option<Key> {
        if self.cx.is_shut {
            return None;
        }
        let key = self.slots.next_key()?;
        let (peer, named) = match target.place() {
            Ok(Place::At(address)) => (address, Ok(None)),
            Ok(Place::Named(host, port)) => (Address::Name(target.name()), Ok(Some((host, port)))),
            Err(error) => (Address::Name(target.name()), Err(error)),
        };
        let mut conn = Conn::new(key, None, peer, self.cx.world.now());
        conn.extra().from = options.local;
        conn.extra().limits.connect.set(Some(options.timeout.unwrap_or(self.cx.config.connect_max)));
        self.slots.insert(Entry::Stream(conn));
        self.counts.opened += 1;
        self.cx.stats.opened += 1;
        let index = key.index();
        match named {
            Ok(None) => self.begin_connect(index),
            Ok(Some((host, port))) => self.connect_by_name(index, host, port),
            Err(error) => _ = self.end(index, Reason::Resolve(error)),
        }
        self.settle(index);
        Some(key)
    }

    fn begin_connect(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        let (key, from) = (conn.key, conn.extra().from);
        match self.cx.world.connect(&conn.peer, from, key.token()) {
            Ok(stream) => conn.stream = Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let again = self.cx.world.now() + RETRY;
                self.cx.timers.set(again, What::Connect(key));
            }
            Err(error) => self.connect_failed(index, error),
        }
    }

    fn connect_failed(&mut self, index: usize, error: io::Error) {
        let peer = self.slots.conn_at(index).peer.clone();
        self.end(index, Reason::Connect(ConnectError::new(vec![(peer, error)])));
    }

    /// An event for a connection that is still connecting: is it done?
    pub(crate) fn serve_connecting(&mut self, index: usize) {
        let checked = match &mut self.slots.conn_at_mut(index).stream {
            Some(stream) => Some(stream.connected()),
            None => self.serve_race(index),
        };
        let Some(checked) = checked else { return };
        let conn = self.slots.conn_at_mut(index);
        match checked {
            Ok(true) => {
                conn.set(ESTABLISHED | WRITABLE);
                conn.clear(FAILED);
                conn.put(OWES_CONNECTED, conn.phase == Phase::Open);
                self.slim_down(index);
            }
            Ok(false) => conn.clear(WRITABLE | FAILED),
            Err(error) if is_lost_already(&error) => {
                conn.set(ESTABLISHED);
                conn.clear(FAILED);
                conn.put(OWES_CONNECTED, conn.is_open());
                conn.write_failed(error, &mut self.cx);
                self.tell_readers();
                self.slim_down(index);
            }
            Err(error) => self.connect_failed(index, error),
        }
    }

    /// An idle connection stays small: connecting needed what it will perhaps never need again.
    fn slim_down(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        let Some(extra) = &mut conn.extra else { return };
        extra.limits.connect.set(None);
        let timer = extra.limits.timer;
        if extra.is_idle() {
            conn.extra = None;
            conn.clear(SPECIAL);
            if let Some((timer, _)) = timer {
                self.cx.timers.cancel(timer);
            }
        }
    }

    /// A listener has waited long enough.
    pub(crate) fn accept_again(&mut self, key: Key) {
        if let Some(listening) = self.slots.listener(key) {
            listening.is_backing_off = false;
            self.requeue(key);
        }
    }

    /// So has a connect, unless it has ended.
    pub(crate) fn connect_again(&mut self, key: Key) {
        if self.slots.conn(key).is_some_and(|conn| conn.stream.is_none() && conn.phase != Phase::Ended) {
            self.begin_connect(key.index());
            self.settle(key.index());
        }
    }

    /// What is to be told to a dispatcher.
    pub(crate) fn dispatcher_ready(&self, key: Key) -> Flags {
        match self.slots.get(key) {
            Some(Entry::Watched(watched)) if watched.flags.has_any(SHUT) => Flags::default(),
            Some(Entry::Watched(watched)) if self.is_any_congested(&watched.targets) => watched.flags.without(READABLE),
            Some(Entry::Watched(watched)) => watched.flags,
            _ => Flags::default(),
        }
    }

    /// It has met `WouldBlock`: nothing more until the next edge.
    pub(crate) fn dispatcher_drained(&mut self, key: Key, what: Flags, source: Source<'_>) {
        let Some(watched) = self.slots.watched(key) else { return };
        watched.never_drained = 0;
        watched.flags.remove(what);
        if watched.is_registered && !watched.flags.has_any(SHUT) {
            if let Err(error) = self.cx.world.drained(source, key.token()) {
                self.end(key.index(), Reason::Io(error));
            }
        }
    }

    /// It says that there is more.
    pub(crate) fn dispatcher_not_drained(&mut self, key: Key, protocol: &str) {
        let Some(watched) = self.slots.watched(key) else { return };
        watched.never_drained = watched.never_drained.saturating_add(1);
        if watched.never_drained == NEVER_DRAINED_MAX {
            log::warn!(target: "mainspring", "{key} {protocol} has said {NEVER_DRAINED_MAX} times in a row that there is more");
        }
    }

    pub(crate) fn watch(&mut self, source: Source<'_>) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let key = self.next_key()?;
        let is_registered = self.cx.world.watch(source, key.token())?;
        self.slots.insert(Entry::Watched(Box::new(Watched::new(key, is_registered))));
        self.counts.watched += 1;
        self.requeue(key);
        Ok(key)
    }
}
