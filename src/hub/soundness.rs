//! What must hold after every turn, checked wherever debug assertions are on. Each line is an invariant that some promise
//! depends on.

use super::Hub;
use crate::{
    cx::NOBODY,
    endpoint::{Conn, Entry, Extra, Phase},
    flags::*,
    key::Key,
    rate::{Rates, Way},
    stats::Kind,
};

/// Large tables are looked at only now and then, or the looking would take most of a test's time.
const EVERY_TURN_MAX: usize = 256;

impl Hub {
    /// # Panics
    /// If something does not hold.
    pub(crate) fn assert_sound(&mut self) {
        self.turns_unchecked += 1;
        if self.slots.len() > EVERY_TURN_MAX && self.turns_unchecked < 64 {
            return;
        }
        self.turns_unchecked = 0;
        assert!(
            self.cx.lent.to == NOBODY && self.cx.lent.out.is_empty() && self.cx.lists.notes.is_empty(),
            "nothing is lent between turns"
        );
        let (mut accepted, mut opened, mut listeners, mut dispatchers, mut datagrams, mut lingering) = (0, 0, 0, 0, 0, 0);
        for key in self.slots.keys() {
            match self.slots.get(key).and_then(Entry::kind) {
                Some(Kind::Accepted) => accepted += 1,
                Some(Kind::Opened) => opened += 1,
                Some(Kind::Listener) => listeners += 1,
                Some(Kind::Dispatcher) => {
                    let is_waited_for = matches!(self.slots.get(key), Some(Entry::Dispatcher(it)) if !it.is_background);
                    dispatchers += usize::from(is_waited_for);
                }
                Some(Kind::Datagrams) => datagrams += 1,
                Some(Kind::Lingering) => lingering += 1,
                None => {}
            }
            if let Some(conn) = self.slots.conn(key) {
                self.assert_conn_sound(conn);
            }
            if let Some(Entry::Datagrams(socket)) = self.slots.get(key) {
                socket.assert_sound();
            }
            #[cfg(feature = "tls")]
            self.assert_handshakes_counted(key);
            self.assert_entry_sound(key);
        }
        let counts = self.counts;
        assert_eq!(
            (accepted, opened, listeners, dispatchers, datagrams, lingering),
            (counts.accepted, counts.opened, counts.listeners, counts.dispatchers, counts.datagrams, self.cx.lingering_now),
            "accepted, opened, listeners, dispatchers, datagrams, lingering: as counted"
        );
        self.assert_shared_rates_sound();
        for &key in self.cx.threads.owned.values() {
            assert!(self.find_open(key).is_some(), "{key} has ended, and its offload lives");
        }
        for (key, _) in &self.cx.lists.closing {
            if let Some(conn) = self.slots.conn(*key) {
                assert_eq!(conn.phase, Phase::Ended, "{key} is to be closed");
            }
        }
    }

    /// Whatever it is. The rule that carries everything: an entry that could make progress is on the ready queue, or will be
    /// looked at.
    fn assert_entry_sound(&self, key: Key) {
        let entry = self.slots.get(key).expect("a key of the table");
        let flags = entry.flags();
        assert_eq!(flags.has_any(THROTTLED), self.is_any_congested(entry.targets()), "{key} hangs on who is congested");
        let (in_ready, in_dirty) = (flags.has_any(IN_READY), flags.has_any(IN_DIRTY));
        assert!(in_ready || in_dirty || !entry.can_progress(), "{key} could make progress, and nobody will come");
        if self.slots.len() <= EVERY_TURN_MAX {
            let listed = |list: &[Key]| list.iter().filter(|&&listed| listed == key).count();
            assert_eq!(listed(&self.cx.lists.ready), usize::from(in_ready), "{key} on the ready queue");
            assert_eq!(listed(&self.cx.lists.dirty), usize::from(in_dirty), "{key} among the dirty");
        }
    }

    fn assert_shared_rates_sound(&self) {
        for (at, shared) in &self.cx.shared_rates {
            let rates = self.slots.conns().filter_map(|conn| Some((conn.key, conn.odds()?.rates.as_ref()?.get(shared.way))));
            let mut members: Vec<_> = rates.filter(|(_, rate)| rate.shared == Some(at)).collect();
            let listens = self.slots.listeners().any(|listening| listening.shared_rates[shared.way as usize] == Some(at));
            assert_eq!(shared.users, members.len() + usize::from(listens), "those who share a rate are counted");
            assert_eq!(shared.kept(), members.iter().map(|(_, rate)| rate.share).sum::<usize>(), "what is kept, is for somebody");
            members.retain(|(_, rate)| rate.ticket.is_some());
            members.sort_by_key(|(_, rate)| rate.ticket);
            let tickets = members.into_iter().filter_map(|(key, rate)| Some((rate.ticket?, key)));
            assert!(tickets.eq(shared.waiting()), "who waits for a shared rate is in its queue, and nobody else");
            let has_timer = shared.timer.is_some_and(|timer| self.cx.timers.is_set(timer));
            assert_eq!(shared.timer.is_some(), has_timer, "a shared rate waits for a timer that is not set");
            let waits = shared.waiting().next().is_some();
            assert!(!has_timer || waits, "a shared rate waits, and nobody for it");
            assert!(!waits || has_timer || shared.kept() > 0, "somebody waits for a shared rate, and nobody will come");
        }
    }

    fn assert_conn_sound(&self, conn: &Conn) {
        let key = conn.key;
        assert!(conn.held.as_ref().is_none_or(|held| !held.is_empty()), "{key} holds an empty buffer");
        assert!(conn.output.as_ref().is_none_or(|output| !output.is_empty()), "{key} has an empty queue");
        let marks = conn.marks(self.cx.config.marks);
        assert!(
            conn.is(CONGESTED) || conn.is(IN_DIRTY) || !conn.is_open() || conn.queued() <= marks.high,
            "{key} is above its high mark"
        );
        let has_producers = conn.output.as_ref().is_some_and(|output| output.producers() > 0);
        let may_be_congested = conn.queued() > marks.low || has_producers || conn.is(IN_DIRTY);
        assert!(!conn.is(CONGESTED) || may_be_congested, "{key} is down to its low mark");
        assert!(!conn.is(EOF_TOLD) || conn.is(EOF_SEEN), "{key} was told of an end that nobody saw");
        assert!(conn.stream.is_some() || !conn.is(ESTABLISHED), "{key} is connected without a socket");
        assert_eq!(conn.is(SHUT), conn.phase != Phase::Open, "{key} is shut exactly as long as it is not open");
        if conn.phase != Phase::Open && !conn.is_detaching() {
            assert!(conn.held.is_none(), "{key} has ended and keeps input");
        }
        if conn.phase == Phase::Ended {
            let times = self.cx.lists.closing.iter().filter(|(closing, _)| *closing == key).count();
            assert_eq!(times, 1, "{key} has ended, and is to be closed once");
        }
        #[cfg(feature = "tls")]
        self.assert_shaking_sound(conn);
        match &conn.extra {
            Some(extra) => self.assert_extra_sound(conn, extra),
            None => assert!(
                !conn.is(NEEDS_SETTLING | SPENT_IN | SPENT_OUT | RATED_OUT),
                "{key} is to be settled, or has a rate limit, for nothing"
            ),
        }
    }

    /// Nobody is told of one that still has to agree on TLS, and no protocol is made for a guest before that.
    #[cfg(feature = "tls")]
    fn assert_shaking_sound(&self, conn: &Conn) {
        let key = conn.key;
        let (is_guest, is_shaking) = (conn.phase == Phase::Guest, conn.is(SHAKING));
        assert!(!is_guest || is_shaking, "{key} was accepted, and is neither let in nor turned away");
        assert!(
            !(is_shaking && conn.is(OWES_CONNECTED)),
            "{key} is to be told that it is connected, and has still to agree on TLS"
        );
        let leaves_in_clear = is_shaking && conn.is(ESTABLISHED) && conn.phase != Phase::Ended;
        let has_barrier = conn.output.as_ref().is_some_and(|output| output.has_barrier());
        assert!(
            !leaves_in_clear || has_barrier,
            "{key} is to speak TLS once what is queued has left, and nothing says where that ends"
        );
        assert!(
            !has_barrier || conn.phase == Phase::Ended || leaves_in_clear,
            "{key} keeps back what is queued, and waits for nothing"
        );
    }

    #[cfg(feature = "tls")]
    fn assert_handshakes_counted(&self, key: Key) {
        let Some(Entry::Listener(listening)) = self.slots.get(key) else { return };
        let guests = self.slots.conns().filter(|conn| conn.phase == Phase::Guest && conn.listener == Some(key)).count();
        assert_eq!(listening.shaking, guests, "{key} counts its guests who have still to agree on TLS");
    }

    fn assert_extra_sound(&self, conn: &Conn, extra: &Extra) {
        let key = conn.key;
        let is_plain = || conn.situation().is_plain() && extra.is_plain() && extra.clocks.run_plainly();
        assert!(
            conn.is(NEEDS_SETTLING | IN_DIRTY | LOST) || !conn.is_open() || is_plain(),
            "{key} is served plainly, and its {:?} want more",
            extra.clocks
        );
        self.assert_rates_sound(conn, conn.odds().and_then(|odds| odds.rates.as_deref()));
        let is_connecting = !conn.is(ESTABLISHED) && conn.stream.is_none() && conn.phase != Phase::Ended;
        let is_by_name = conn.odds().and_then(|odds| odds.connecting.as_ref()).is_some_and(|connecting| connecting.is_by_name());
        assert!(!is_by_name || is_connecting, "{key} is connected or has ended, and still races");
        self.assert_ties_sound(key, extra);
        for &target in conn.known_ties().map_or(&[][..], |ties| &ties.targets) {
            let readers = self.slots.conn(target).and_then(Conn::known_ties).map(|ties| &ties.readers);
            assert!(readers.is_some_and(|readers| readers.contains(&key)), "{key} hangs on {target}, which does not know it");
        }
    }

    fn assert_ties_sound(&self, key: Key, extra: &Extra) {
        let Some(ties) = &extra.ties else { return };
        let of = |key| self.slots.conn(key).and_then(Conn::known_ties);
        let is_mutual = ties.mate.is_none_or(|mate| of(mate).is_some_and(|other| other.mate == Some(key)));
        assert!(is_mutual, "{key} has a mate that does not know it");
        let is_owned = ties.owner.is_none_or(|owner| of(owner).is_some_and(|other| other.owned.contains(&key)));
        assert!(is_owned, "{key} has an owner that does not know it");
        for &owned in &ties.owned {
            assert!(self.slots.get(owned).is_some(), "{key} owns {owned}, which is gone");
        }
    }

    fn assert_rates_sound(&self, conn: &Conn, rates: Option<&Rates>) {
        let key = conn.key;
        assert!(rates.is_some() || !conn.is(SPENT_IN | SPENT_OUT | RATED_OUT), "{key} has a rate limit without a rate");
        for (way, spent) in [(Way::In, SPENT_IN), (Way::Out, SPENT_OUT)] {
            let Some(rate) = rates.map(|rates| rates.get(way)) else { continue };
            let has_timer = rate.timer.is_some_and(|timer| self.cx.timers.is_set(timer));
            assert_eq!(rate.timer.is_some(), has_timer, "{key} waits for a timer that is not set");
            let waits = rate.ticket.is_some();
            assert!(!(has_timer && waits), "{key} waits for its own rate and for the one that it shares");
            assert_eq!(conn.is(spent), has_timer || waits, "{key} is out of its rate exactly as long as it waits");
            assert!(rate.share == 0 || !conn.is(spent), "{key} has a share, and waits");
            let may_move = conn.is(IN_DIRTY) || conn.phase == Phase::Ended || conn.could_move(way);
            assert!(rate.share == 0 || may_move, "{key} has a share that it cannot use");
        }
        let has_share = rates.is_some_and(|rates| rates.get(Way::In).share + rates.get(Way::Out).share > 0);
        assert_eq!(conn.is(HAS_SHARE), has_share, "{key} has a share exactly as long as some of a rate is kept for it");
    }
}
