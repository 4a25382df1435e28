//! Every socket of one reactor, without a callback: what is ready, and what lies between one socket and another. Each
//! socket's own file decides what it could do next; what is told to its protocol is not decided here. Compiled once,
//! whatever the program's state.
//!
//! Code that works with a connection is lent it together with what it needs of the loop ([`Cx`]): [`Hub::lend`]. It cannot
//! reach another connection; what concerns others it leaves as notes, which are worked off when the loan ends.

mod opening;
mod adopting;
mod datagrams;
mod dispatching;
mod draining;
mod figures;
mod lingering;
#[cfg(feature = "tls")]
mod shaking;
#[cfg(debug_assertions)]
mod soundness;
mod throttles;
mod ties;

use crate::{
    config::Config,
    cx::{Cx, NOBODY, Note},
    endpoint::{Conn, Entry, Phase, Slots},
    flags::*,
    framing::ReadBuffers,
    key::{Key, Timer},
    panics::{Payload, discard},
    reason::{Fault, Reason},
    room::Room,
    stats::Kind,
    time::Time,
    timers::{TimerKind, Timers},
    world::{Event, World},
};
use draining::Drain;
pub(crate) use opening::Accepted;
use std::{collections::VecDeque, io};

/// All sockets, and what is lent with each.
pub(crate) struct Hub {
    pub(crate) slots: Slots,
    pub(crate) cx: Cx,
    pub(crate) counts: Counts,
    /// The notes of a loan are being worked off.
    works_off_notes: bool,
    look_at_clock: fn(&mut Self, Option<Key>, &'static str, &'static str),
    /// The first is the next to go when there are too many: those that were refused, then the others in order of age. It may
    /// still name some that have ended.
    lingering: VecDeque<Key>,
    drain: Option<Drain>,
    /// The end of the drain's grace.
    grace: Option<Timer>,
    #[cfg(debug_assertions)]
    turns_unchecked: u32,
}

/// What keeps a reactor running.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Connections with a handler.
    pub(crate) accepted: usize,
    pub(crate) opened: usize,
    pub(crate) listeners: usize,
    pub(crate) dispatchers: usize,
    pub(crate) datagrams: usize,
}

impl Counts {
    /// Nothing else is left.
    pub(crate) fn has_datagrams_alone(&self) -> bool {
        self.handlers() == self.datagrams
    }

    pub(crate) fn handlers(&self) -> usize {
        self.accepted + self.opened + self.listeners + self.dispatchers + self.datagrams
    }
}

impl Hub {
    pub(crate) fn new(config: Config, mut world: Box<dyn World>) -> io::Result<Self> {
        let number = world.number();
        let mut cx = Cx::new(config, world)?;
        cx.timers = Timers::new(number);
        Ok(Self {
            slots: Slots::new(number),
            cx,
            counts: Counts::default(),
            works_off_notes: false,
            look_at_clock: |_, _, _, _| {},
            lingering: VecDeque::new(),
            drain: None,
            grace: None,
            #[cfg(debug_assertions)]
            turns_unchecked: 0,
        })
    }

    fn next_key(&self) -> io::Result<Key> {
        self.slots.next_key().ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "all slots of this reactor are taken"))
    }

    pub(crate) fn refuse_if_shut(&self) -> io::Result<()> {
        if !self.cx.is_shut {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the reactor is shutting down: nothing is opened any more"))
    }

    /// A connection whose `closed` has not run.
    pub(crate) fn find(&self, key: Key) -> Option<&Conn> {
        self.slots.conn(key).filter(|conn| conn.phase != Phase::Lingering)
    }

    /// One that has not begun to end.
    pub(crate) fn find_open(&self, key: Key) -> Option<&Conn> {
        self.slots.conn(key).filter(|conn| conn.is_open())
    }

    // ------------------------------------------------------------------------------------------------------- loans

    /// A connection that is known to be there, and what it needs of the loop; for what concerns no other connection.
    #[inline]
    pub(crate) fn pair(&mut self, key: Key) -> (&mut Conn, &mut Cx) {
        let conn = self.slots.conn_at_mut(key.index());
        debug_assert_eq!(conn.key, key, "who is lent by key is there");
        (conn, &mut self.cx)
    }

    /// Lends it, and then does to others what it has left to be done.
    #[inline]
    pub(crate) fn lend<T>(&mut self, key: Key, run: impl FnOnce(&mut Conn, &mut Cx) -> T) -> T {
        let (conn, cx) = self.pair(key);
        let result = run(conn, cx);
        self.work_off_notes();
        result
    }

    /// The same for one that may be gone.
    pub(crate) fn lend_if_there<T>(&mut self, key: Key, run: impl FnOnce(&mut Conn, &mut Cx) -> T) -> Option<T> {
        let result = run(self.slots.conn_mut(key)?, &mut self.cx);
        self.work_off_notes();
        Some(result)
    }

    /// The same for one that may have begun to end; returns whether it was open and did it.
    pub(crate) fn lend_if_open(&mut self, key: Key, run: impl FnOnce(&mut Conn, &mut Cx) -> bool) -> bool {
        let Some(conn) = self.slots.conn_mut(key).filter(|conn| conn.is_open()) else { return false };
        let result = run(conn, &mut self.cx);
        self.work_off_notes();
        result
    }

    #[inline]
    fn work_off_notes(&mut self) {
        if !self.cx.lists.notes.is_empty() && !self.works_off_notes {
            self.work_off_all_notes();
        }
    }

    #[inline(never)]
    fn work_off_all_notes(&mut self) {
        // What one of them leads to lends too, and must not start with them again.
        self.works_off_notes = true;
        let mut at = 0;
        // The list may grow: a share that nobody waits for any more goes to the next.
        while let Some(&note) = self.cx.lists.notes.get(at) {
            at += 1;
            self.work_off(note);
        }
        self.works_off_notes = false;
        self.cx.lists.notes.give_back();
        self.cx.lists.notes.clear();
    }

    fn work_off(&mut self, note: Note) {
        match note {
            Note::Reader(key) => self.look_at_throttles(key),
            Note::Dirty(key) => self.mark_dirty(key),
            Note::Quiet(key) => self.close_if_quiet(key),
            Note::Heard(key) => {
                if let Some(conn) = self.slots.conn_mut(key) {
                    conn.mate_was_heard(&mut self.cx);
                }
            }
            Note::Room => _ = self.reset_first_lingering(),
            Note::Share { key, way, shared, bytes } => {
                let conn = self.slots.conn_mut(key); // it may have made room meanwhile
                if !conn.is_some_and(|conn| conn.receive_share(way, bytes, &mut self.cx)) {
                    let now = self.cx.world.now();
                    self.cx.return_share(shared, bytes, now);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ what is ready

    /// All events become flags before any callback runs: what a callback closes or opens cannot meet an older event.
    pub(crate) fn fold(&mut self, events: &[Event]) {
        self.cx.stats.events += events.len() as u64;
        for event in events {
            let (ready, token) = (event.ready, event.token);
            match self.slots.at(Key::index_of(token)) {
                Some(Entry::Conn(conn)) if conn.key.token() == token => {
                    // A stream that has ended is reported as readable for ever: do not read it again, which would only say
                    // so again.
                    conn.set(ready.without(if conn.is(EOF_SEEN) { READABLE | PRIORITY } else { PRIORITY }));
                    if conn.is_plainly_readable() || conn.can_progress() {
                        conn.mark_ready(&mut self.cx);
                    }
                }
                _ => self.fold_rare(event),
            }
        }
    }

    /// For whatever is not a connection, or is gone.
    #[inline(never)]
    fn fold_rare(&mut self, &Event { token, ready }: &Event) {
        match self.slots.at(Key::index_of(token)) {
            Some(Entry::Datagrams(socket)) if socket.key.token() == token => {
                socket.note(ready);
                socket.requeue(&mut self.cx);
            }
            Some(entry) if entry.key().is_some_and(|key| key.token() == token) => {
                entry.note(ready);
                entry.requeue(&mut self.cx);
            }
            _ => {
                self.cx.stats.stale_events += 1;
                log::trace!(target: "mainspring", "an event for a socket that is gone");
            }
        }
    }

    /// Takes the turn of a connection in the common case, and returns how many bytes came: [`Conn::read_plainly`].
    #[inline(always)]
    pub(crate) fn read_plainly(&mut self, key: Key, buffers: &mut ReadBuffers) -> Option<usize> {
        let bytes = self.slots.conn_mut(key)?.read_plainly(buffers, &mut self.cx);
        if bytes.is_none() {
            self.work_off_notes();
        }
        bytes
    }

    /// Takes it off the ready queue to be served, if it still could make progress.
    pub(crate) fn take_turn(&mut self, key: Key) -> Option<Kind> {
        let entry = self.slots.get_mut(key)?;
        entry.flags_mut().remove(IN_READY);
        if entry.can_progress() { entry.kind() } else { None }
    }

    /// Onto the ready queue if it could make progress.
    pub(crate) fn requeue(&mut self, key: Key) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.requeue(&mut self.cx);
        }
    }

    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(entry) = self.slots.get_mut(key) {
            entry.mark_dirty(&mut self.cx);
        }
    }

    /// Writes what others have queued, one system call for each, and settles what else they have changed.
    pub(crate) fn flush_dirty(&mut self) {
        let mut at = 0;
        // The list grows while it is worked off, by readers that may go on: each can be let go once.
        while let Some(&key) = self.cx.lists.dirty.get(at) {
            at += 1;
            let Some(conn) = self.slots.conn_mut(key) else {
                if let Some(entry) = self.slots.get_mut(key) {
                    entry.flags_mut().remove(IN_DIRTY);
                    entry.requeue(&mut self.cx);
                }
                continue;
            };
            conn.clear(IN_DIRTY);
            if !conn.flushes_plainly(&mut self.cx) {
                self.work_off_notes();
                self.lend(key, Conn::settle_unless_idle);
            }
        }
        self.cx.lists.dirty.clear();
    }

    // ------------------------------------------------------------------------------------ whose callback is running

    /// The connection whose callback is running.
    pub(crate) fn current(&self) -> Option<&Conn> {
        self.slots.conn_of(self.cx.lent.to)
    }

    /// From the callback that is running, to its own connection.
    #[inline]
    pub(crate) fn send_current(&mut self, bytes: &[u8]) -> bool {
        self.cx.lent.push(bytes) || self.send_current_checked(bytes)
    }

    fn send_current_checked(&mut self, bytes: &[u8]) -> bool {
        if self.cx.lent.to == NOBODY {
            return false;
        }
        let sent = self.slots.conn_at_mut(self.cx.lent.to).send_checked(bytes, &mut self.cx);
        self.work_off_notes();
        sent
    }

    /// The callbacks of the connection that is being served are over: what they sent leaves now. Returns whether nothing is
    /// to be done for it any more.
    #[inline]
    pub(crate) fn write_current(&mut self) -> bool {
        let is_idle = self.slots.conn_at_mut(self.cx.lent.to).write_lent(&mut self.cx);
        self.work_off_notes();
        is_idle
    }

    /// The same for a callback outside its turn: its output leaves with that of the others at the end of the turn.
    pub(crate) fn queue_current(&mut self) -> bool {
        self.slots.conn_at_mut(self.cx.lent.to).queue_lent(&mut self.cx);
        self.cx.lent.end();
        false
    }

    // -------------------------------------------------------------------------------------------------- timers

    /// A timer that is dropped with its connection.
    pub(crate) fn set_owned_timer(&mut self, key: Key, deadline: Time) -> Timer {
        let (conn, cx) = self.pair(key);
        conn.set_timer(deadline, cx)
    }

    /// One of the program's timers. Returns whether it was still set.
    pub(crate) fn cancel(&mut self, timer: Timer) -> bool {
        if let Some(key) = self.cx.timers.owner(timer) {
            let (conn, cx) = self.pair(key);
            conn.forget_timer(timer, cx);
        }
        self.cx.timers.cancel(timer).is_some()
    }

    /// Returns each old and new place.
    pub(crate) fn move_timers_together(&mut self) -> Vec<(u32, u32)> {
        let Self { slots, cx, .. } = self;
        cx.timers.move_together(|owner, head| {
            if let Some(extra) = slots.conn_mut(owner).and_then(|conn| conn.extra.as_mut()) {
                extra.timers = head;
            }
        })
    }

    /// A timer of the loop's own, which calls nobody.
    pub(crate) fn fire(&mut self, what: TimerKind) {
        match what {
            TimerKind::Entry(key, cue) => {
                if let Some(entry) = self.slots.get_mut(key) {
                    entry.fire(cue, &mut self.cx);
                }
            }
            TimerKind::SharedRate(shared) => self.cx.shared_rate_is_ready(shared),
            TimerKind::Job | TimerKind::Owned(_) | TimerKind::Clocks(_) | TimerKind::Grace => {
                unreachable!("these may call the program")
            }
        }
        self.work_off_notes();
    }

    // ------------------------------------------------------------------------------------------------ the end

    /// Begins to end, whatever it is. Returns whether this is the cause.
    pub(crate) fn end(&mut self, key: Key, reason: Reason) -> bool {
        let has_ended = match self.slots.get_mut(key) {
            Some(entry) => entry.end(reason, &mut self.cx),
            None => {
                discard("an error that came too late", reason);
                false
            }
        };
        self.work_off_notes();
        #[cfg(feature = "tls")]
        if has_ended {
            self.wake_guests_of(key);
        }
        has_ended
    }

    /// Obeys the outcome of a callback: returns what it said, or nothing, because that was the end.
    pub(crate) fn obey<T>(&mut self, key: Key, outcome: Result<Result<T, Fault>, Payload>) -> Option<T> {
        match outcome {
            Ok(Ok(said)) => return Some(said),
            Ok(Err(fault)) => self.end_failed(key, Ok(fault)),
            Err(payload) => self.end_failed(key, Err(payload)),
        }
        None
    }

    /// By a callback that failed or panicked.
    #[cold]
    pub(crate) fn end_failed(&mut self, key: Key, failure: Result<Fault, Payload>) {
        let (reason, panic) = Reason::from_failure(failure);
        if !self.slots.conn(key).is_some_and(Conn::is_detaching) {
            self.cx.lent.put_back.1 = 0; // nobody has looked at it, and the next callback must not find it
        }
        self.end(key, reason);
        if let Some(payload) = panic {
            self.cx.pass_on(payload);
        }
    }

    /// Politely. Returns whether it was open.
    pub(crate) fn close(&mut self, key: Key) -> bool {
        match self.lend_if_there(key, Conn::close) {
            Some(was_open) => was_open,
            None => self.end(key, Reason::Finish),
        }
    }

    /// Returns whether it was there to be aborted.
    pub(crate) fn abort(&mut self, key: Key) -> bool {
        match self.slots.conn(key) {
            Some(_) => self.lend(key, Conn::abort),
            None => self.end(key, Reason::Abort),
        }
    }

    /// `closed` was called, and the handler is gone. The socket goes too, or lingers until the peer has received everything.
    pub(crate) fn after_closed(&mut self, key: Key, is_clean: bool) {
        self.untie(key, is_clean);
        match self.slots.get_mut(key) {
            Some(Entry::Conn(conn)) => {
                let (lingers, was_accepted) = (conn.is_to_linger(is_clean), conn.listener.is_some());
                if was_accepted {
                    self.uncount_guest(key);
                } else {
                    self.counts.opened -= 1;
                }
                if lingers {
                    self.linger(key);
                } else {
                    self.free(key);
                }
            }
            Some(Entry::Listener(listening)) => {
                for shared in std::mem::take(&mut listening.shared_rates).into_iter().flatten() {
                    self.cx.leave_shared_rate(shared);
                }
                let owner = listening.options.owner;
                self.counts.listeners -= 1;
                self.slots.remove(key.index());
                if let Some(owner) = owner {
                    self.disown(owner, key);
                }
            }
            Some(Entry::Dispatcher(dispatching)) => {
                let targets = std::mem::take(&mut dispatching.targets);
                self.counts.dispatchers -= usize::from(!dispatching.is_background);
                self.slots.remove(key.index());
                self.forget_reader(key, &targets);
            }
            Some(Entry::Datagrams(_)) => {
                self.counts.datagrams -= 1;
                self.slots.remove(key.index());
            }
            _ => {}
        }
    }

    /// The slot of a connection is free, and its socket closed.
    pub(crate) fn free(&mut self, key: Key) {
        self.lend(key, Conn::stop_all);
        self.forget_throttles(key);
        let Entry::Conn(conn) = self.slots.remove(key.index()) else { unreachable!("the slot of a connection") };
        self.cx.lingering_now -= usize::from(conn.phase == Phase::Lingering);
        self.cx.stats.bytes_in += conn.bytes_in;
        self.cx.stats.bytes_out += conn.bytes_out;
        conn.free(&mut self.cx);
    }

    /// All sockets at once, without another word.
    pub(crate) fn discard_all(&mut self) {
        for (_, why) in std::mem::take(&mut self.cx.lists.closing) {
            discard("an error", why);
        }
        for key in self.slots.all_keys() {
            if let Entry::Conn(conn) = self.slots.remove(key.index()) {
                conn.discard();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{Address, Target},
        listen::Listen,
        rate::{SharedRate, Way},
        world::{self, OsWorld},
    };
    use std::{net::TcpStream, time::Duration};

    fn a_hub() -> Hub {
        let world = OsWorld::new(Duration::ZERO).expect("a selector");
        Hub::new(Config::default(), Box::new(world)).expect("a waker")
    }

    fn open(hub: &mut Hub) -> Key {
        let key = hub.slots.next_key().expect("room");
        hub.slots.insert(Conn::new(key, None, Address::Fd, Time::default()));
        key
    }

    #[test]
    fn an_event_for_the_dead_does_not_reach_the_successor() {
        let mut hub = a_hub();
        let old = open(&mut hub);
        hub.slots.remove(old.index());
        let new = open(&mut hub);
        assert_eq!(old.index(), new.index());
        let event = |key: Key| Event { token: key.token(), ready: READABLE };
        hub.fold(&[event(old)]);
        assert!(!hub.slots.conn_at(new.index()).is(READABLE));
        assert_eq!(hub.cx.stats.stale_events, 1);
        hub.fold(&[event(new)]);
        assert!(hub.slots.conn_at(new.index()).is(READABLE));
    }

    /// Every other time the client that it finds has gone again.
    struct Flaky {
        listener: Box<dyn world::Listener>,
        calls: usize,
    }

    impl world::Listener for Flaky {
        fn accept(&mut self, token: usize) -> io::Result<(world::Stream, Address)> {
            self.calls += 1;
            if self.calls % 2 == 1 { Err(io::ErrorKind::ConnectionAborted.into()) } else { self.listener.accept(token) }
        }

        fn accept_on_spare(&mut self, token: usize) -> io::Result<(world::Stream, Address)> {
            self.listener.accept_on_spare(token)
        }

        fn keep_spare(&mut self) {
            self.listener.keep_spare();
        }
    }

    /// This many in a row mean a policy that forbids accepting; this many beside others are clients that did not wait.
    #[test]
    fn those_who_have_gone_again_are_counted_only_in_a_row() {
        const GUESTS: usize = 6;
        let world = OsWorld::new(Duration::ZERO).expect("a selector");
        let mut hub = Hub::new(Config::default().turn_accepts(1), Box::new(world)).expect("a waker");
        let key = hub.listen(&Target::from("127.0.0.1:0"), Listen::new()).expect("a free port");
        let listening = hub.slots.listener(key).expect("it was just opened");
        let at = listening.local.ip().expect("an IP listener");
        let listener = listening.socket.take().expect("it listens");
        listening.socket = Some(Box::new(Flaky { listener, calls: 0 }));
        let _clients: Vec<TcpStream> = (0..GUESTS).map(|_| TcpStream::connect(at).expect("somebody listens")).collect();
        for _ in 0..GUESTS {
            assert!(matches!(hub.accept(key), Accepted::Nobody));
            assert!(matches!(hub.accept(key), Accepted::Guest(_)));
        }
        assert!(matches!((hub.accept(key), hub.accept(key)), (Accepted::Nobody, Accepted::Done)), "nobody is left");
    }

    #[test]
    fn who_has_lingered_and_gone_leaves_nothing_in_the_list() {
        let mut hub = a_hub();
        for _ in 0..10_000 {
            let key = open(&mut hub);
            hub.linger(key);
            hub.free(key);
        }
        assert_eq!(hub.cx.lingering_now, 0);
        assert!(hub.lingering.len() <= 100 && hub.lingering.capacity() <= 1024, "{}", hub.lingering.len());
    }

    /// A lost connection reads without a look at its rates. So it may be given a share because of what it has just read
    /// itself, and at the same time wait for its own rate: then the share is not kept for it.
    #[test]
    fn a_share_for_one_who_ceased_to_wait_in_the_same_loan_goes_back() {
        let mut hub = a_hub();
        let key = open(&mut hub);
        let now = hub.cx.world.now();
        let shared = hub.cx.shared_rates.insert(SharedRate::new(Way::In, 1_000_000, now));
        hub.lend(key, |conn, cx| conn.set_listeners_rate(Way::In, Some(1_000), Some(shared), cx));
        let ticket = hub.cx.shared_rates[shared].wait(key);
        let conn = hub.slots.conn_at_mut(key.index());
        conn.extra().odds().rates.as_mut().expect("it has rates").of(Way::In).ticket = Some(ticket);
        conn.set(SPENT_IN | LOST);
        hub.lend(key, |conn, cx| conn.moved(Way::In, 10_000, cx));
        let conn = hub.slots.conn_at_mut(key.index());
        assert!(conn.is(SPENT_IN) && !conn.is(HAS_SHARE), "it waits for its own rate");
        assert_eq!(conn.extra().odds().rates.as_mut().expect("it has rates").of(Way::In).share, 0);
        let free = hub.cx.shared_rates[shared].allowed(hub.cx.world.now());
        assert!(free > 100_000, "nothing is kept for it: {free}");
    }
}
