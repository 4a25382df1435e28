//! How things end: politely, at once, with a cause; what lingers after `closed`.

use super::{Cx, Hub, ReadBuffers};
use crate::{
    config::Panics,
    conn::{Conn, Filled, Phase},
    flags::*,
    key::Key,
    panics::{self, Payload, discard},
    rate::Way,
    reason::{Fault, Reason},
    slots::Entry,
};

impl Conn {
    /// Begins to end: no more callbacks but tells and `closed`, which comes at the end of the turn. The first cause wins.
    pub(super) fn end(&mut self, reason: Reason, cx: &mut Cx) -> bool {
        if matches!(self.phase, Phase::Guest | Phase::Ended | Phase::Lingering) {
            discard("an error that came too late", reason);
            return false;
        }
        self.end_stream(&reason, cx);
        cx.closing.push_back((self.key, reason));
        true
    }

    #[cold]
    pub(super) fn end_failed(&mut self, failure: Result<Fault, Payload>, cx: &mut Cx) {
        match failure {
            Ok(fault) => _ = self.end(Reason::from_fault(fault), cx),
            Err(payload) => {
                self.end(Reason::Panicked(panics::text(&payload)), cx);
                cx.pass_on(payload);
            }
        }
    }

    pub(super) fn end_stream(&mut self, reason: &Reason, cx: &mut Cx) {
        let is_current = cx.current == self.key.index();
        self.enter(Phase::Ended);
        self.held = None;
        if !reason.allows_last_write() {
            // It goes before `closed`, not now: this may be inside somebody's callback, and there may be producers in it.
            self.set_if(CUT, self.output.is_some());
            if is_current {
                self.set_if(CUT, !cx.out.is_empty());
                cx.out.clear();
            }
        }
        if self.take(CONGESTED) {
            self.readers_changed(cx);
        }
        self.stop_callbacks(cx);
        self.stop_limits(cx);
        self.stop_opening(cx);
    }

    /// Its own timers and offloads die, and delivering to it ends.
    fn stop_callbacks(&mut self, cx: &mut Cx) {
        if cx.current == self.key.index() {
            cx.interrupt = true;
            cx.room = 0;
        }
        self.clear(OWES_CONNECTED | OWES_WRITABLE | OWES_DRAINING);
        self.drop_own_timers(cx);
        cx.elsewhere.drop_own(self.key);
    }
}

impl Cx {
    /// A  panic that is not to be isolated goes on at the end of the turn, when everything is in order.
    pub(crate) fn pass_on(&mut self, payload: Payload) {
        if self.config.panics == Panics::Propagate {
            self.panicked.get_or_insert(payload);
        }
    }
}

impl Hub {
    /// Polite: no further frame at once, `closed` once all output has left or nobody takes it. Whether it was open.
    pub(crate) fn close(&mut self, key: Key) -> bool {
        match self.slots.get_mut(key) {
            Some(Entry::Stream(conn)) if conn.is_open() => {
                conn.enter(Phase::Flushing);
                conn.put(PEER_FIRST, if conn.is(FIN_ASKED) { conn.is(PEER_FIRST) } else { conn.is(EOF_SEEN) });
                conn.held = None;
                let index = key.index();
                self.slots.conn_at_mut(index).stop_callbacks(&mut self.cx);
                self.touch(index);
                true
            }
            Some(Entry::Stream(_)) | None => false,
            Some(_) => self.end(key.index(), Reason::Finish),
        }
    }

    pub(crate) fn half_close(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if !conn.is(FIN_ASKED) {
            conn.set(FIN_ASKED);
            conn.put(PEER_FIRST, conn.is(EOF_SEEN));
            if self.is_current(index) {
                self.cx.room = 0; // what is sent from here on is refused
            }
            self.touch(index);
            self.close_if_both_ended(index);
        }
    }

    /// A stream whose two directions have ended closes itself.
    pub(crate) fn close_if_both_ended(&mut self, index: usize) {
        let conn = self.slots.conn_at(index);
        if conn.is(FIN_ASKED) && conn.is(EOF_TOLD) {
            self.close(conn.key);
        }
    }

    /// Whether it was there to be aborted: also one that is flushing.
    pub(crate) fn abort(&mut self, key: Key) -> bool {
        if let Some(Entry::Stream(conn)) = self.slots.get_mut(key) {
            conn.set_if(CUT, matches!(conn.phase, Phase::Open | Phase::Flushing));
        }
        self.slots.get(key).is_some() && self.end(key.index(), Reason::Abort)
    }

    /// Begins to end: no more callbacks but tells and `closed`, which comes at the end of the turn. The first cause wins.
    pub(crate) fn end(&mut self, index: usize, reason: Reason) -> bool {
        match self.begin_to_end(index, &reason) {
            Some(key) => {
                self.cx.closing.push_back((key, reason));
                self.tell_readers();
                true
            }
            None => {
                discard("an error that came too late", reason);
                false
            }
        }
    }

    fn begin_to_end(&mut self, index: usize, reason: &Reason) -> Option<Key> {
        match self.slots.at(index)? {
            Entry::Stream(conn) => {
                if matches!(conn.phase, Phase::Guest | Phase::Ended | Phase::Lingering) {
                    return None;
                }
                conn.end_stream(reason, &mut self.cx);
                Some(conn.key)
            }
            Entry::Listener(listening) => listening.socket.take().map(|_| listening.key),
            Entry::Watched(watched) => (!watched.flags.mark(SHUT)).then_some(watched.key),
            Entry::Retired => None,
        }
    }

    /// By a callback that failed or panicked.
    #[cold]
    pub(crate) fn end_failed(&mut self, index: usize, failure: Result<Fault, Payload>) {
        match failure {
            Ok(fault) => _ = self.end(index, Reason::from_fault(fault)),
            Err(payload) => {
                self.end(index, Reason::Panicked(panics::text(&payload)));
                self.pass_on(payload);
            }
        }
    }

    pub(crate) fn pass_on(&mut self, payload: Payload) {
        self.cx.pass_on(payload);
    }

    // ------------------------------------------------------------------------------------------- draining, shutting down

    /// Listeners close, accepted connections are asked to finish.
    pub(crate) fn ask_to_drain(&mut self) {
        for key in self.all_keys() {
            match self.slots.get_mut(key) {
                Some(Entry::Listener(_)) => _ = self.end(key.index(), Reason::Finish),
                Some(Entry::Stream(conn)) if conn.listener.is_some() => self.owe_draining(key),
                _ => {}
            }
        }
    }

    pub(crate) fn ask_opened_to_drain(&mut self) {
        for key in self.all_keys() {
            self.owe_draining(key);
        }
    }

    fn owe_draining(&mut self, key: Key) {
        let Some(Entry::Stream(conn)) = self.slots.get_mut(key) else { return };
        if matches!(conn.phase, Phase::Guest | Phase::Open) {
            conn.set(OWES_DRAINING);
            self.mark_dirty(key);
        }
    }

    /// Everything that has not begun to end does now, connections first.
    pub(crate) fn end_all(&mut self, why: fn() -> Reason) {
        let (streams, rest): (Vec<Key>, Vec<Key>) = self.all_keys().into_iter().partition(|&key| self.slots.conn(key).is_some());
        for key in streams.into_iter().chain(rest) {
            self.end(key.index(), why());
        }
    }

    /// Sockets without a handler go at once.
    pub(crate) fn free_lingering(&mut self) {
        for key in std::mem::take(&mut self.lingering) {
            if self.slots.conn(key).is_some() {
                self.free_stream(key.index());
            }
        }
    }

    /// All sockets at once, without another word.
    pub(crate) fn discard_all(&mut self) {
        for (_, why) in std::mem::take(&mut self.cx.closing) {
            discard("an error", why);
        }
        for key in self.all_keys() {
            if let Entry::Stream(conn) = self.slots.remove(key.index()) {
                conn.discard();
            }
        }
    }

    fn all_keys(&self) -> Vec<Key> {
        self.slots.keys().collect()
    }

    /// The selector reported an error. Who reads will meet it behind the last bytes; who does not read is told now.
    pub(crate) fn look_at_failure(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if !conn.take(FAILED) {
            return;
        }
        if conn.is_open() && !conn.is(PAUSED | OWES_ANSWER) && !conn.is(EOF_SEEN) {
            conn.set(LIFTED);
            return;
        }
        if let Some(error) = conn.stream.as_mut().and_then(|stream| stream.take_error()) {
            self.end_lost(index, error);
        }
    }

    /// Nobody was made for it: it is reset.
    pub(crate) fn turn_away(&mut self, key: Key) {
        self.uncount_guest(key);
        self.cx.stats.refused += 1;
        self.slots.conn_at_mut(key.index()).set(CUT);
        self.free_stream(key.index());
    }

    pub(super) fn uncount_guest(&mut self, key: Key) {
        self.counts.accepted -= 1;
        let conn = self.slots.conn_at(key.index());
        let (listener, peer) = (conn.listener, conn.peer.ip());
        if let Some(listening) = listener.and_then(|listener| self.slots.listener(listener)) {
            listening.uncount_guest(peer);
        }
    }

    /// One write of what an `Err` left queued; what does not leave now, or must not, never will.
    pub(crate) fn write_last(&mut self, index: usize, why: &Reason) {
        let conn = self.slots.conn_at_mut(index);
        let is_possible = why.allows_last_write() && conn.is(ESTABLISHED) && conn.is(WRITABLE) && conn.write_error().is_none();
        if is_possible && conn.output.as_ref().is_some_and(|output| output.queued() > 0 && !output.wants_pull()) {
            let _ = conn.flush(&mut self.cx.spares, usize::MAX); // it ends for another reason already
        }
        conn.drop_output();
    }

    /// `closed` was called, and the handler is gone. The socket goes too, or lingers until the peer has had it all.
    pub(crate) fn bury(&mut self, key: Key, is_clean: bool) {
        let index = key.index();
        match self.slots.get_mut(key) {
            Some(Entry::Stream(conn)) => {
                let lingers = is_clean && conn.is(ESTABLISHED) && !conn.is(EOF_SEEN) && !conn.is(CUT);
                match conn.listener {
                    Some(_) => self.uncount_guest(key),
                    None => self.counts.opened -= 1,
                }
                if lingers {
                    self.linger(index);
                } else {
                    self.free_stream(index);
                }
            }
            Some(Entry::Listener(listening)) => {
                for shared in std::mem::take(&mut listening.shared_rates).into_iter().flatten() {
                    self.uses_no_more(shared);
                }
                self.counts.listeners -= 1;
                self.slots.remove(index);
            }
            Some(Entry::Watched(watched)) => {
                let targets = std::mem::take(&mut watched.targets);
                self.counts.watched -= 1;
                self.slots.remove(index);
                self.forget_reader(key, &targets);
            }
            _ => {}
        }
    }

    /// A slot without a handler: what is queued leaves, then a FIN, then what still comes is dropped until the peer has
    /// ended. Closing at once would answer late bytes with a reset, which destroys what the peer has not read yet
    /// (RFC 9112, 9.6).
    pub(super) fn linger(&mut self, index: usize) {
        self.forget_throttles(index);
        let conn = self.slots.conn_at_mut(index);
        if self.cx.config.lingering_max == 0 {
            return self.free_stream(index);
        }
        let key = conn.key;
        let was_guest = conn.phase == Phase::Guest;
        conn.enter(Phase::Lingering);
        debug_assert_eq!(conn.tells, 0, "`closed` waits for them");
        if was_guest {
            self.lingering.push_front(key); // a flood of those who are refused must not reset who reads a last answer
        } else {
            self.lingering.push_back(key);
        }
        self.lingering_now += 1;
        self.set_rate(index, Way::In, None); // what is dropped costs nobody anything
        self.leave_shared_rate(index, Way::In);
        self.linger_from_now(index);
        if self.lingering_now > self.cx.config.lingering_max {
            self.reset_first();
        }
        if self.lingering.len() > 64 + 2 * self.lingering_now {
            let slots = &self.slots;
            self.lingering.retain(|&key| slots.conn(key).is_some());
        }
        if self.slots.conn(key).is_some() {
            self.finish_lingering_output(index);
            self.settle(index);
        }
    }

    fn reset_first(&mut self) {
        while let Some(key) = self.lingering.pop_front() {
            if let Some(Entry::Stream(conn)) = self.slots.get_mut(key) {
                conn.set(CUT);
                self.free_stream(key.index());
                return;
            }
        }
    }

    /// One turn of a lingering socket.
    pub(crate) fn serve_lingering(&mut self, index: usize, buffers: &mut ReadBuffers) {
        let conn = self.slots.conn_at_mut(index);
        if conn.take(FAILED) && conn.stream.as_mut().is_some_and(|stream| stream.take_error().is_some()) {
            self.free_stream(index);
            return;
        }
        if conn.can_write() && conn.has_writable_output() {
            match self.allowed(index, Way::Out) {
                0 => {}
                most => match self.slots.conn_at_mut(index).flush(&mut self.cx.spares, most) {
                    Ok(taken) => self.moved(index, Way::Out, taken),
                    Err(_) => return self.free_stream(index),
                },
            }
            self.finish_lingering_output(index);
        }
        let mut budget = self.cx.config.turn_bytes;
        while self.slots.conn_at(index).is(READABLE) && budget > 0 {
            self.lend_input(index, buffers);
            let filled = self.fill(index, buffers, budget);
            match filled {
                Filled::Bytes(bytes) => budget = budget.saturating_sub(bytes),
                Filled::Drained | Filled::End => {}
                Filled::Interrupted => break,
                Filled::Lost(_) => {
                    self.free_stream(index);
                    return;
                }
            }
        }
        let conn = self.slots.conn_at(index);
        if conn.is(EOF_SEEN) && conn.output.is_none() {
            self.free_stream(index);
        } else {
            self.settle(index);
        }
    }

    /// Its peer took nothing, or did not end, for too long.
    pub(crate) fn linger_is_over(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if conn.phase == Phase::Lingering {
            conn.set(CUT);
            self.free_stream(index);
        } else {
            self.end(index, Reason::Limit(crate::reason::Limit::Linger));
        }
    }

    fn finish_lingering_output(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        if conn.output.is_none() && !conn.mark(FIN_SENT) {
            if let Some(stream) = &mut conn.stream {
                let _ = stream.shutdown_write(); // of one that is lost: the next read says so
            }
        }
    }

    /// The slot is free, and the socket closed: reset if the peer must not take for whole what it got.
    pub(crate) fn free_stream(&mut self, index: usize) {
        self.slots.conn_at_mut(index).drop_own_timers(&mut self.cx);
        self.slots.conn_at_mut(index).stop_limits(&mut self.cx);
        self.stop_rates(index);
        self.forget_throttles(index);
        let Entry::Stream(mut conn) = self.slots.remove(index) else { unreachable!("the slot of a connection") };
        self.lingering_now -= usize::from(conn.phase == Phase::Lingering);
        conn.set_if(CUT, conn.output.is_some());
        self.cx.stats.bytes_in += conn.bytes_in;
        self.cx.stats.bytes_out += conn.bytes_out;
        let is_cut = conn.is(CUT);
        if let Some(stream) = conn.stream.as_mut().filter(|_| is_cut) {
            stream.abort();
        }
        conn.discard();
    }

    fn forget_throttles(&mut self, index: usize) {
        self.forget_targets(index);
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(extra) = &mut conn.extra else { return };
        for reader in std::mem::take(&mut extra.readers) {
            self.unthrottle(reader, key);
        }
    }

    pub(super) fn forget_targets(&mut self, index: usize) {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(extra) = &mut conn.extra else { return };
        let targets = std::mem::take(&mut extra.targets);
        self.forget_reader(key, &targets);
    }

    fn forget_reader(&mut self, reader: Key, targets: &[Key]) {
        for &target in targets {
            if let Some(Entry::Stream(conn)) = self.slots.get_mut(target) {
                if let Some(extra) = &mut conn.extra {
                    extra.readers.retain(|&key| key != reader);
                }
            }
        }
    }
}
