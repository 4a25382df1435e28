//! What callbacks bring, against what was promised.

use super::{
    adopting::Ways,
    framing::{Framing, MASK, Next},
    plays::FULL,
    run::{Site, is_nobodys},
    shadow::{AlarmState, Call, Conn, Dialect, Errand, Hall, Marks, Model, Peer, Why, limit_index, promise},
};
use mainspring::{Context, Key, Limit, Listen, Net, OffloadError, Outcome};
use std::time::Instant;

impl Model {
    /// A callback began: may it be, and is it right?
    pub(super) fn enter(&mut self, me: &Peer, ctx: &mut Context<'_, Site>, call: &Call<'_>) {
        self.figures.callbacks += 1;
        let (id, key) = (me.id, ctx.key);
        self.look_at_pairs(self.conns[id].host, &mut ctx.net);
        self.look_ahead(id, key, &ctx.net);
        self.notice_lost_writer(id, &mut ctx.net);
        self.conns[id].came_back = 0;
        self.story.note(|| format!("   {id} on {} {call:?}", key));
        if self.conns[id].key.is_none() {
            self.introduce(id, key);
        }
        let conn = &mut self.conns[id];
        if matches!(call, Call::Tell(_) | Call::Closed(Why::Io)) && conn.life == me.life + 1 && !conn.is_connected {
            // It was lost just when it was to be succeeded: then it was not.
            (conn.life, conn.is_over, conn.must) = (me.life, true, Some(Why::Io));
        }
        promise!(self.story, conn.key == Some(key), "{id} is called under another's key");
        promise!(self.story, conn.closed.is_none(), "{call:?} after `closed` of {id}");
        promise!(self.story, conn.life == me.life, "{call:?} of {id} for one that has been succeeded");
        if !matches!(call, Call::Tell(_) | Call::Closed(_)) {
            let is_over = self.conns[id].is_over || !ctx.net.is_open(key);
            promise!(self.story, !is_over, "{call:?} of {id}, which has begun to end");
        }
        let is_timed = self.conns[id].limits[3].is_some();
        promise!(self.story, is_timed || ctx.frame_age().is_zero(), "{id} has no frame time-out, and a frame has an age");
        self.look_at_secured(id, &ctx.net, call);
        match call {
            Call::Secured => {}
            Call::Connected => self.on_connected(id, ctx),
            Call::Received(bytes) => {
                self.on_data(id, ctx, true);
                self.on_piece(id, bytes);
            }
            Call::Frame(frame) => {
                // An empty one may come of nothing, by a length of 0; an empty line is what the peer has said.
                let is_of_nothing = frame.is_empty() && matches!(self.conns[id].framing.next(b""), Next::Frame { .. });
                self.on_data(id, ctx, !is_of_nothing);
                self.on_frame(id, frame);
            }
            Call::Writable => self.on_writable(id, ctx),
            Call::Exceeded(limit) => {
                self.meet_peer(id, ctx.unread() > 0);
                self.on_exceeded(id, *limit, ctx.net.now());
            }
            Call::Draining => {
                let conn = &mut self.conns[id];
                let is_right = self.places[conn.host].was_drained && !std::mem::replace(&mut conn.was_drained, true);
                promise!(self.story, is_right, "`draining` of {id}, twice or without a drain");
            }
            Call::Eof(tail) => {
                // An end without a word: for want of descriptors nobody was made for it.
                self.on_data(id, ctx, !tail.is_empty());
                self.on_eof(id, tail, ctx.net.now());
            }
            Call::Alarm(alarm) => self.on_alarm(self.conns[id].host, *alarm, &ctx.net),
            Call::Done(work, result) => self.on_done(self.conns[id].host, *work, result),
            Call::Piece(lane, piece, made) => self.on_made(self.conns[id].host, *lane, *piece, made),
            Call::Saved(save, saved) => self.on_saved(id, *save, saved, ctx),
            Call::Sent(source, sent) => self.on_sent(id, *source, sent),
            Call::Tell(errand) => self.on_errand(self.conns[id].host, *errand),
            Call::Closed(why) => self.on_closed(id, *why),
        }
    }

    /// An accepted connection shows its key.
    pub(super) fn introduce(&mut self, id: usize, key: Key) {
        let conn = &mut self.conns[id];
        conn.key = Some(key);
        let place = &mut self.places[conn.host];
        place.conns.push(id);
        let is_new = place.keys.insert(key);
        promise!(self.story, is_new, "{key} was another's before it was {id}'s");
    }

    pub(super) fn on_connected(&mut self, id: usize, ctx: &Context<'_, Site>) {
        let conn = &mut self.conns[id];
        let is_first = !conn.is_connected && (!conn.has_eof || conn.ways == Ways::Out);
        (conn.is_connected, conn.was_connected) = (true, true);
        let is_unnamed = conn.is_adopted && ctx.peer().ip().is_none();
        let is_accepted = conn.is_accepted || conn.was_accepted;
        promise!(self.story, is_first, "`connected` of {id} twice");
        if is_unnamed {
            return;
        }
        promise!(self.story, ctx.peer().ip().is_some(), "{id} is connected to {}", ctx.peer());
        let Some(local) = ctx.local().ip() else {
            self.story.breaks(format!("{id} is connected, and its own address is `{}`", ctx.local()));
            return;
        };
        let is_right = is_accepted || self.client_at(local) == Some(id);
        promise!(self.story, is_right, "{id} is connected from {local}");
        if !is_accepted && ctx.peer().ip().is_some_and(|peer| is_nobodys(peer.ip())) {
            self.part(id);
        }
    }

    /// An address that answers nobody has won the race, by a fault on purpose: whatever was accepted has met a socket that
    /// lost.
    pub(super) fn part(&mut self, id: usize) {
        if let Some(peer) = self.conns[id].peer.take() {
            self.conns[peer].peer = None;
        }
    }

    /// Data may be told only to those that read.
    pub(super) fn on_data(&mut self, id: usize, ctx: &mut Context<'_, Site>, is_of_peer: bool) {
        let (is_congested, queued) = (ctx.is_congested(), ctx.queued());
        let conn = &self.conns[id];
        let is_throttled = conn.targets.iter().any(|&target| {
            if self.was_lost(target, &ctx.net) {
                return false; // it takes nothing more, and is not congested for that
            }
            let target = &self.conns[target];
            let link = target.key.filter(|_| !target.is_half_closed).and_then(|key| ctx.net.link(key));
            link.is_some_and(|link| link.is_congested() && link.queued() > 0)
        });
        let is_held_back = conn.holds_back && !conn.is_half_closed && is_congested && queued > 0;
        let is_cut_off = self.was_lost(id, &ctx.net);
        promise!(self.story, !is_held_back, "data for {id}, which is held back");
        promise!(self.story, is_cut_off || !is_throttled, "data for {id}, which is throttled, and is not lost");
        let conn = &mut self.conns[id];
        conn.is_lifted |= is_throttled;
        let (is_connected, has_eof, is_paused) = (conn.is_connected, conn.has_eof, conn.is_off());
        promise!(self.story, is_connected && !has_eof, "data for {id} before `connected` or after `eof`");
        promise!(self.story, !is_paused, "data for {id}, which is paused");
        let saving = self.conns[id].saving;
        promise!(self.story, saving.is_none(), "data for {id}, which saves it by {saving:?}");
        let (got, unread) = (self.conns[id].got, ctx.unread());
        self.meet_peer(id, is_of_peer || unread > 0);
        let sent = got + self.rest(id).len();
        promise!(
            self.story,
            got + unread <= sent || matches!(self.conns[id].framing, Framing::Skip { .. }) || self.is_murky(id),
            "{id} holds {unread} bytes after {got} of {sent}"
        );
    }

    /// What the other end has sent, or will, and was not told yet.
    pub(super) fn rest(&self, id: usize) -> &[u8] {
        let conn = &self.conns[id];
        conn.peer.and_then(|peer| self.conns[peer].sent.get(conn.got..)).unwrap_or_default()
    }

    /// Something came, and nobody was told of this connection there: it was refused without being asked.
    pub(super) fn meet_peer(&mut self, id: usize, has_heard: bool) {
        if self.conns[id].peer.is_none() && has_heard {
            let ghost = self.add_ghost(FULL.as_bytes());
            self.conns[ghost].is_muddled = self.conns[id].is_muddled;
            self.conns[id].peer = Some(ghost);
        }
    }

    pub(super) fn add_ghost(&mut self, words: &[u8]) -> usize {
        let mut ghost = Conn::new(usize::MAX, true, Marks { high: 0, cap: 0 }, Dialect::Raw, Dialect::Raw);
        ghost.is_ghost = true;
        ghost.closed = Some(Why::Finish);
        ghost.sent = words.to_vec();
        self.conns.push(ghost);
        self.conns.len() - 1
    }

    /// Past refused frames whose end was sent.
    pub(super) fn skip(&mut self, id: usize) {
        while let Framing::Skip { rest, then } = &self.conns[id].framing {
            let Some(end) = rest.skip_end(self.rest(id)) else { return };
            let then = (**then).clone();
            let conn = &mut self.conns[id];
            conn.got += end;
            (conn.skipped_to, conn.has_skipped, conn.framing) = (conn.got, true, then);
        }
    }

    pub(super) fn on_piece(&mut self, id: usize, bytes: &[u8]) {
        self.figures.bytes += bytes.len() as u64;
        promise!(self.story, !self.forwards(id), "`received` of {id}, whose input goes to its partner");
        if self.is_murky(id) {
            return;
        }
        self.skip(id);
        let rest = self.rest(id);
        let next = self.conns[id].framing.next(rest);
        let through = match next {
            Next::Piece { most } if !bytes.is_empty() && bytes.len() <= most && rest.starts_with(bytes) => bytes.len(),
            Next::Block { is_frame: false, bytes: length } if is_unmasked(bytes, &rest[1..=length]) => length + 1,
            _ => return self.misread(id, "received", bytes, &next),
        };
        let conn = &mut self.conns[id];
        conn.got += through;
        conn.framing.after_piece(bytes.len());
    }

    pub(super) fn on_frame(&mut self, id: usize, frame: &[u8]) {
        self.figures.bytes += frame.len() as u64;
        self.figures.frames += 1;
        if self.is_murky(id) {
            return;
        }
        self.skip(id);
        let rest = self.rest(id);
        let next = self.conns[id].framing.next(rest);
        let (through, behind) = match &next {
            Next::Frame { bytes, through } if rest[bytes.clone()] == *frame => (*through, Some(through - bytes.end)),
            Next::Block { is_frame: true, bytes } if is_unmasked(frame, &rest[1..=*bytes]) => (bytes + 1, None),
            _ => return self.misread(id, "frame", frame, &next),
        };
        let conn = &mut self.conns[id];
        conn.got += through;
        conn.behind = behind;
        conn.framing.after_frame();
    }

    pub(super) fn misread(&mut self, id: usize, what: &str, bytes: &[u8], next: &Next) {
        let (got, framing) = (self.conns[id].got, self.conns[id].framing.clone());
        let (bytes, rest) = (bytes.escape_ascii(), self.rest(id));
        let sent = rest[..rest.len().min(40)].escape_ascii();
        let text = format!("`{what}` of {id} after {got} bytes under {framing:?}: \"{bytes}\", and not {next:?} of \"{sent}\"");
        self.story.breaks(text);
    }

    pub(super) fn on_writable(&mut self, id: usize, ctx: &Context<'_, Site>) {
        let conn = &mut self.conns[id];
        let was_congested = std::mem::take(&mut conn.was_congested) | (conn.pulls.take() > 0);
        let was_congested = was_congested || conn.has_sources || conn.mate.is_some(); // nobody looks at what comes so
        let (is_connected, is_half_closed) = (conn.is_connected, conn.is_half_closed);
        promise!(self.story, is_connected, "`writable` of {id}, which is not connected");
        promise!(self.story, !is_half_closed, "`writable` of {id}, which is half-closed");
        promise!(self.story, was_congested, "`writable` of {id}, which was not congested");
        promise!(self.story, !ctx.is_congested(), "`writable` of {id}, which is congested");
    }

    pub(super) fn on_exceeded(&mut self, id: usize, limit: Limit, now: Instant) {
        self.skip(id);
        let is_right = match (limit, limit_index(limit)) {
            (Limit::FrameBytes, _) => {
                let conn = &self.conns[id];
                conn.is_connected && (conn.framing.next(self.rest(id)) == Next::TooLong || self.is_murky(id))
            }
            (_, Some(index)) => {
                let conn = &mut self.conns[id];
                let is_over = conn.limits[index].is_some_and(|(after, since)| now.duration_since(since) >= after);
                conn.limits[index] = conn.limits[index].filter(|_| limit != Limit::Deadline).map(|(after, _)| (after, now));
                is_over
            }
            _ => false,
        };
        promise!(self.story, is_right, "`exceeded` of {id}: {limit:?}, which is not so");
        promise!(self.story, self.conns[id].is_connected, "`exceeded` of {id}: {limit:?}, which is not connected");
        if matches!(limit, Limit::FrameBytes | Limit::FrameTime) {
            let is_murky = self.is_murky(id);
            let conn = &mut self.conns[id];
            conn.cannot_skip = !conn.framing.skip() && !is_murky;
            if let Some(save) = conn.saving {
                self.exceeds_save(save);
            }
        }
    }

    pub(super) fn on_eof(&mut self, id: usize, tail: &[u8], now: Instant) {
        self.skip(id);
        let conn = &mut self.conns[id];
        (conn.has_eof, conn.had_eof) = (true, true);
        let Some(peer) = conn.peer else { return };
        if self.is_murky(id) {
            return;
        }
        let may_be_cut = self.may_be_cut(peer) || self.conns[peer].closed == Some(Why::Detached);
        self.meet_cut(id, peer, tail.len());
        if std::mem::take(&mut self.conns[id].is_loose) && self.conns[peer].sent.ends_with(tail) {
            self.conns[id].got = self.conns[peer].sent.len() - tail.len();
        }
        let has_passed_on = self.has_said_its_end(Some(peer)) && self.conns[peer].mate.is_some();
        let (conn, other) = (&self.conns[id], &self.conns[peer]);
        let rest = &other.sent[conn.got..];
        let (next, is_skipping) = (conn.framing.next(rest), matches!(conn.framing, Framing::Skip { .. }));
        let is_right = if is_skipping { tail.is_empty() } else { tail == rest };
        let missing = rest.len() - tail.len().min(rest.len());
        // One that is made or asked to end while its addresses race, or races too long, lets go of their sockets at once,
        // before `closed`.
        let is_too_late = other.gives_up_at.is_some_and(|at| now >= at);
        let was_drained = self.places.get(other.host).is_some_and(|place| place.was_drained);
        let is_too_late = is_too_late || was_drained; // its grace may be over
        let has_given_up = !other.was_connected && (other.must.is_some() || other.is_closing || is_too_late);
        let has_closed = other.closed.is_some() && !other.is_detached;
        let has_ended = other.is_half_closed || has_closed || has_given_up || has_passed_on || self.has_lost_writer(peer);
        promise!(self.story, is_right, "{id} was told the end, and misses {missing} bytes of {peer}");
        // The end of the frame that was refused was sent, and may not have come.
        let may_still_skip = may_be_cut && conn.has_skipped && conn.got == conn.skipped_to;
        promise!(self.story, next == Next::Nothing || may_still_skip, "{id} was told the end before {next:?}");
        promise!(self.story, has_ended, "{id} was told the end, which {peer} did not say");
    }

    pub(super) fn on_alarm(&mut self, host: usize, index: usize, net: &Net<'_, Site>) {
        let now = net.now();
        let place = &mut self.places[host];
        let alarm = &mut place.alarms[index];
        let rank = (alarm.deadline, alarm.order);
        let is_set = alarm.state == AlarmState::Set;
        let is_early = now < alarm.deadline;
        let is_in_order = place.last_fired < Some(rank);
        place.last_fired = Some(rank);
        alarm.firings += 1;
        match alarm.period {
            None => alarm.state = AlarmState::Done,
            Some(period) => {
                let missed = now.saturating_duration_since(alarm.deadline).as_nanos() / period.as_nanos();
                alarm.deadline += period * (missed as u32 + 1);
                alarm.order = place.orders;
                place.orders += 1;
            }
        }
        let owner = alarm.owner;
        promise!(self.story, is_set, "timer {index} of host {host} was not set");
        promise!(self.story, !is_early, "timer {index} of host {host} is early");
        promise!(self.story, is_in_order, "timer {index} of host {host} is out of order");
        if let Some((id, life)) = owner {
            promise!(self.story, self.conns[id].life == life, "timer {index} of host {host} is of {id}'s predecessor");
        }
    }

    /// A piece of work is done, or was refused.
    pub(super) fn on_done(&mut self, host: usize, index: usize, result: &Result<usize, OffloadError>) {
        self.figures.works += 1;
        let work = &mut self.places[host].works[index];
        let was_pending = std::mem::take(&mut work.is_pending);
        let is_right = match result {
            Ok(brought) => work.has_place && !work.is_bad && *brought == index,
            Err(OffloadError::Panicked(text)) => work.has_place && work.is_bad && text == "work",
            Err(OffloadError::Full) => !work.has_room,
            Err(_) => true, // an operation failed on purpose
        };
        let (has_room, owner) = (work.has_room, work.owner);
        promise!(self.story, was_pending, "work {index} of host {host} was not pending");
        promise!(self.story, is_right, "work {index} of host {host} brings {result:?}; room for it: {has_room}");
        if let Some((id, life)) = owner {
            promise!(self.story, self.conns[id].life == life, "work {index} of host {host} is of {id}'s predecessor");
        }
    }

    /// Nobody knows what its peer has passed on last.
    pub(super) fn is_murky(&self, id: usize) -> bool {
        let Some(peer) = self.conns[id].peer else { return false };
        let peer = &self.conns[peer];
        let is_broken = peer.closed.is_some_and(|why| !why.is_clean()) || (peer.is_over && !peer.is_closing);
        peer.is_muddled || (is_broken && peer.ahead > 0)
    }

    /// The first of its queue that was not dropped by an upgrade.
    pub(super) fn on_errand(&mut self, host: usize, errand: u64) {
        while let Some(first) = self.places[host].errands.first_entry() {
            let (number, first) = (*first.key(), first.remove());
            if number == errand {
                return;
            }
            let is_dropped = matches!(first, Errand::Tell { conn, life } if self.conns[conn].life != life);
            promise!(self.story, is_dropped, "tell or post {errand} of host {host} came before {number}");
        }
        self.story.breaks(format!("tell or post {errand} of host {host} was not awaited"));
    }

    pub(super) fn on_closed(&mut self, id: usize, why: Why) {
        *self.figures.ends.entry(why.name()).or_default() += 1;
        self.skip(id);
        let conn = &self.conns[id];
        let heard = if conn.peer.is_some() { self.rest(id) } else { FULL.as_bytes() };
        let is_broken = || {
            let skip_breaks = matches!(&conn.framing, Framing::Skip { rest, .. } if rest.skip_breaks(heard));
            conn.was_connected && (skip_breaks || conn.framing.next(heard) == Next::Broken)
        };
        let is_shut = self.places[conn.host].is_shutting_down || self.places[conn.host].was_drained;
        let both_ended = self.both_have_ended(id);
        let may_lack_a_thread = conn.has_sources && self.had_faults;
        let is_caused = match (conn.must, why) {
            (Some(must), why) => must == why,
            (None, why) if conn.may.contains(&why) => true,
            (None, Why::Finish) => (conn.is_closing && conn.peer_was_first == Some(false)) || both_ended || self.is_murky(id),
            (None, Why::Eof) if conn.is_apart && self.has_lost_writer(id) => true,
            (None, Why::Eof | Why::Limit(Limit::Linger)) => conn.is_closing || conn.asks_quiet || both_ended || self.is_murky(id),
            (None, Why::Drained) => conn.asks_quiet && !conn.is_closing && !conn.is_off(),
            (None, Why::Shutdown) => is_shut,
            (None, Why::Resolve | Why::Connect) => !conn.is_accepted && !conn.is_adopted && !conn.was_connected,
            // A writer that breaks says nothing of what can still be read.
            (None, Why::Io) if conn.is_apart && conn.ways != Ways::Out && !self.had_faults => {
                conn.had_eof || conn.is_closing || conn.asks_quiet || conn.mate.is_some()
            }
            (None, Why::Tls) => self.is_securing(id) || self.is_murky(id),
            (None, Why::Io) => true,
            (None, Why::Limit(Limit::Deadline)) => {
                let is_mute = !conn.was_connected || self.is_securing(id);
                (is_mute || conn.is_closing || conn.asks_quiet || both_ended) && conn.limits[2].is_some()
            }
            (None, Why::Failed) => is_broken() || may_lack_a_thread || self.is_murky(id),
            (None, _) => self.is_murky(id),
        };
        let (must, first) = (conn.must, conn.peer_was_first);
        promise!(self.story, is_caused, "{id} was closed with {why:?}, not caused: must {must:?}, peer first {first:?}");
        let conn = &mut self.conns[id];
        (conn.closed, conn.is_over) = (Some(why), true);
        self.forget_elsewhere(id);
        if why.is_clean() {
            self.look_at_clean_end(id);
        }
        let conn = &self.conns[id];
        let (host, life, is_lost) = (conn.host, conn.life, conn.is_lost);
        promise!(self.story, !(is_lost && why.is_clean()), "{id} was closed with {why:?}, and not all of its output had left");
        let place = &mut self.places[host];
        place.conns.retain(|&other| other != id);
        let waits = |errand: &Errand| matches!(errand, Errand::Tell { conn, life: of } if *conn == id && *of == life);
        let is_waiting = !place.is_shutting_down && place.errands.values().any(waits);
        promise!(self.story, !is_waiting, "{id} was closed before a tell that was accepted");
    }

    /// A callback is over: what its answer means.
    pub(super) fn leave(&mut self, id: usize, ctx: &mut Context<'_, Site>, call: &Call<'_>, outcome: &Outcome, upgrades: bool) {
        if let Call::Closed(why) = call {
            self.conns[id].is_gone = true;
            self.end_mate(id, *why, &ctx.net);
            self.end_owned(id, &ctx.net);
            return;
        }
        let is_open = ctx.net.is_open(ctx.key);
        let conn = &mut self.conns[id];
        conn.is_over |= !is_open;
        if let Err(fault) = outcome {
            let why = match call {
                Call::Exceeded(limit) => Why::Limit(*limit),
                _ => Why::of_fault(fault),
            };
            if is_open {
                self.breaks_off(id, why);
            } else {
                conn.may.push(why); // it may still have been flushing
            }
            return;
        }
        // Nobody knows where it ends: whatever else was asked for, it closes.
        let is_frame = matches!(call, Call::Exceeded(Limit::FrameBytes | Limit::FrameTime));
        if is_frame && is_open && self.conns[id].cannot_skip {
            self.end_feeds(id);
            let conn = &mut self.conns[id];
            (conn.is_closing, conn.is_over) = (true, true);
            conn.asked_to_end();
            return;
        }
        let asked_to_upgrade = upgrades;
        let upgrades = upgrades && is_open;
        if let (Call::Eof(_), false) = (call, upgrades) {
            let all = self.conns[id].peer.map(|peer| self.conns[peer].sent.len());
            self.conns[id].got = all.unwrap_or(0);
            let mate = self.conns[id].mate.filter(|_| !asked_to_upgrade);
            let mate = mate.filter(|&mate| self.conns[mate].key.is_some_and(|key| ctx.net.is_open(key)));
            mate.into_iter().for_each(|mate| self.end_half(mate));
            self.close_if_both_ended(id);
        }
        if upgrades {
            self.upgrade(id, &mut ctx.net);
        }
    }

    /// What belongs to one that has just ended, and has not begun to end itself.
    fn end_owned(&mut self, owner: usize, net: &Net<'_, Site>) {
        for id in 0..self.conns.len() {
            let conn = &mut self.conns[id];
            match conn.key {
                _ if conn.owner != Some(owner) || conn.closed.is_some() => {}
                _ if conn.mate == Some(owner) && conn.is_over => {} // it has just begun to, with that
                Some(key) if net.is_open(key) => self.breaks_off(id, Why::Abort),
                Some(_) => {}
                None => conn.may.push(Why::Abort), // nobody has seen it yet
            }
        }
    }

    pub(super) fn close_if_both_ended(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        if conn.is_half_closed && conn.has_eof && conn.holds.is_empty() {
            (conn.is_closing, conn.is_over) = (true, true);
        }
    }

    pub(super) fn upgrade(&mut self, id: usize, net: &mut Net<'_, Site>) {
        self.story.note(|| format!("   {id} is succeeded"));
        let is_murky = self.is_murky(id);
        if !self.conns[id].has_eof {
            // It gets what was not skipped of a refused frame, which is what had not come.
            let key = self.conns[id].key;
            let come = net.connections().into_iter().find(|one| Some(one.key) == key).map_or(0, |one| one.bytes_in as usize);
            let come = self.conns[id].base_in + come;
            let unread = key.and_then(|key| net.link(key)).map_or(0, |link| link.unread());
            let conn = &mut self.conns[id];
            let told = come - unread - conn.came_back;
            let may_be_skipping = matches!(conn.framing, Framing::Skip { .. }) || conn.got == conn.skipped_to;
            let may_be_skipping = may_be_skipping || conn.saving.is_some() || conn.is_loose || is_murky;
            promise!(
                self.story,
                may_be_skipping || told == conn.got,
                "{id} was told {} bytes, and the successor gets those from {told} on",
                conn.got
            );
            conn.got = told;
        } else if let Framing::Skip { .. } = self.conns[id].framing {
            let rest = self.rest(id).len();
            let read = self.conns[id].key.and_then(|key| moved(key, net)).map_or(0, |moved| moved[0] as usize);
            let read = self.conns[id].base_in + read;
            let conn = &mut self.conns[id];
            // Of a refusal nobody has told yet what it says.
            conn.got = if conn.peer.is_some() { conn.got + rest } else { read };
        }
        let host = self.conns[id].host;
        self.forget_elsewhere(id);
        let place = &mut self.places[host];
        for alarm in &mut place.alarms {
            if alarm.owner.is_some_and(|(owner, _)| owner == id) {
                alarm.state = AlarmState::Done;
            }
        }
        let queued = self.conns[id].key.and_then(|key| net.link(key)).map_or(0, |link| link.queued());
        let conn = &mut self.conns[id];
        let now = net.now();
        let (marks, limits) = conn.hall.map_or((None, [None; 3]), |hall| (self.halls[hall].marks, self.halls[hall].limits));
        conn.upgraded(marks.map_or(place.marks, |(_, marks)| marks), limits, now);
        let moved = conn.key.and_then(|key| moved(key, net)).unwrap_or_default();
        let rates = conn.hall.map_or([None; 2], |hall| self.halls[hall].rates);
        conn.rates = [0, 1].map(|way| Some((rates[way]?, now, moved[way])));
        conn.was_congested |= queued > conn.marks.high && !conn.is_half_closed;
        self.succeed_secured(id);
        self.tie(id);
        self.close_if_both_ended(id);
    }
}

/// How many bytes were received and sent so far.
pub(super) fn moved(key: Key, net: &Net<'_, Site>) -> Option<[u64; 2]> {
    net.connections().into_iter().find(|one| one.key == key).map(|one| [one.bytes_in, one.bytes_out])
}

pub(super) fn is_unmasked(bytes: &[u8], sent: &[u8]) -> bool {
    bytes.len() == sent.len() && bytes.iter().zip(sent).all(|(byte, sent)| byte ^ MASK == *sent)
}

pub(super) fn with_hall(options: Listen, hall: &Hall) -> Listen {
    let options = hall.rates[0].into_iter().fold(options, Listen::read_rate);
    let options = hall.rates[1].into_iter().fold(options, Listen::write_rate);
    let options = hall.total_rates[0].into_iter().fold(options, Listen::total_read_rate);
    let options = hall.total_rates[1].into_iter().fold(options, Listen::total_write_rate);
    let options = hall.limits[0].into_iter().fold(options, Listen::idle_timeout);
    let options = hall.limits[1].into_iter().fold(options, Listen::stall_timeout);
    let options = hall.limits[2].into_iter().fold(options, Listen::deadline);
    let options = hall.pauses_at.into_iter().fold(options, Listen::pause_at);
    let options = hall.admits.into_iter().map(|most| most as u64).fold(options, Listen::admits_max);
    hall.marks.into_iter().fold(options, |options, (low, Marks { high, cap })| options.output_limits(low, high, cap))
}
