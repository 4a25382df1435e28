//! What is done: pairs. What the one receives goes to the other, and nobody is told: so how much that was is seen from
//! outside before anything else is done on that host.
//!
//! On the other hosts nobody can look, and what comes there may have been passed on since: then all that there is counts as
//! passed on, until somebody looks.

use super::{
    chance::Dice,
    checks::moved,
    framing::Framing,
    run::Site,
    securing::Secured,
    shadow::{Conn, Dialect, Model, Why, promise},
};
use mainspring::{Key, Net};

impl Model {
    pub(super) fn pair_some(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let dice: &mut Dice = &mut self.pairs;
        if self.often == 0 || !dice.one_in(8) {
            return;
        }
        let all = &self.places[self.conns[id].host].conns;
        if all.is_empty() {
            return;
        }
        let other = dice.pick(all);
        if self.may_be_paired(id, other) && self.may_be_paired(other, id) {
            self.pair(id, other, net);
        }
    }

    /// Not in a circle, where bytes would go round for ever; and all of it plainly spoken.
    fn may_be_paired(&self, id: usize, other: usize) -> bool {
        let conn = &self.conns[id];
        let has_free_peer = conn.peer != Some(other) && conn.peer.is_none_or(|peer| self.conns[peer].mate.is_none());
        // Much in small pieces looks like spinning.
        let has_big = conn.has_big || conn.peer.is_some_and(|peer| self.conns[peer].has_big);
        let is_clear = |conn: &Conn| !conn.is_muddled && !matches!(conn.secured, Secured::IsToStart { .. });
        let is_clear = is_clear(conn) && conn.peer.is_none_or(|peer| is_clear(&self.conns[peer]));
        has_free_peer && !has_big && is_clear && [conn.speaks, conn.hears] == [Dialect::Raw; 2]
    }

    fn pair(&mut self, id: usize, other: usize, net: &mut Net<'_, Site>) {
        let (Some(a), Some(b)) = (self.conns[id].key, self.conns[other].key) else { return };
        let is_free = |one: usize, other: usize| self.conns[one].mate.is_none_or(|mate| mate == other);
        let are_free = id != other && is_free(id, other) && is_free(other, id);
        let expected = are_free && net.is_open(a) && net.is_open(b);
        let answer = net.pair(a, b);
        self.story.note(|| format!("      {id} and {other} are a pair: {answer}"));
        promise!(self.story, answer == expected, "pairing {id} with {other} says {answer}");
        if !answer {
            return;
        }
        self.figures.pairs += 1;
        for (one, other) in [(id, other), (other, id)] {
            self.conns[one].mate = Some(other);
            self.tie(one);
        }
        for (one, other) in [(id, other), (other, id)] {
            if self.conns[one].has_eof {
                self.end_half(other);
            }
            self.look_at_half(one, other, net); // it may be told only when what it saves is written
        }
    }

    /// It is read while its mate can take it.
    pub(super) fn tie(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        let Some(mate) = conn.mate else { return };
        conn.holds_back = false;
        if !conn.targets.contains(&mate) {
            conn.targets.push(mate);
        }
    }

    /// What it receives goes to its mate, as far as it is read.
    pub(super) fn forwards(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        conn.mate.is_some() && conn.saving.is_none() && matches!(conn.framing, Framing::None)
    }

    /// The end of its mate's peer was passed on.
    pub(super) fn end_half(&mut self, id: usize) {
        let conn = &mut self.conns[id];
        conn.feed_is_over = true;
        if !std::mem::replace(&mut conn.is_half_closed, true) {
            conn.asked_to_end();
            self.close_if_both_ended(id);
        }
    }

    /// It, or its mate, is read no more, and all that was passed on so far is known.
    pub(super) fn end_feeds(&mut self, id: usize) {
        self.conns[id].feed_is_over = true;
        if let Some(mate) = self.conns[id].mate {
            self.conns[mate].feed_is_over = true;
        }
    }

    /// Whether this one, at the other end of somebody, says no more.
    pub(super) fn has_said_its_end(&self, id: Option<usize>) -> bool {
        let Some(id) = id else { return true }; // it was refused, or is a socket that lost a race
        let conn = &self.conns[id];
        let passed_on = conn.mate.is_some_and(|mate| {
            let mate = &self.conns[mate];
            mate.closed.is_some() || mate.peer.is_none_or(|peer| self.conns[peer].has_ended())
        });
        conn.has_ended() || !conn.was_connected || passed_on || self.has_lost_writer(id)
    }

    /// Both directions of a pair have ended, as far as this one is concerned.
    pub(super) fn both_have_ended(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        let Some(mate) = conn.mate else { return false };
        self.has_said_its_end(conn.peer) && (conn.is_half_closed || self.has_said_its_end(self.conns[mate].peer))
    }

    /// What was passed on by this host until now. Before anything else is done there.
    pub(super) fn look_at_pairs(&mut self, host: usize, net: &mut Net<'_, Site>) {
        if self.figures.pairs == 0 {
            return;
        }
        for at in 0..self.places[host].conns.len() {
            let id = self.places[host].conns[at];
            if let Some(mate) = self.conns[id].mate {
                self.look_at_pair(id, mate, net);
            }
        }
    }

    fn look_at_pair(&mut self, id: usize, mate: usize, net: &mut Net<'_, Site>) {
        let (Some(key), Some(other)) = (self.conns[id].key, self.conns[mate].key) else { return };
        if self.conns[id].peer.is_none() {
            let has_heard = self.read_of(id, key, net) > 0;
            self.meet_peer(id, has_heard); // it was refused
        }
        self.skip(id);
        let read = net.link(key).map(|link| link.unread()).map(|unread| self.read_of(id, key, net) - unread);
        if !net.is_open(other) {
            // Nobody is to have it any more.
            let ahead = std::mem::take(&mut self.conns[mate].ahead);
            self.conns[mate].is_muddled |= !self.conns[mate].feed_is_over;
            self.conns[mate].feed_is_over = true;
            self.conns[id].got -= ahead;
            if let Some(read) = read.filter(|_| self.forwards(id)) {
                self.conns[id].got = self.conns[id].got.max(read);
            }
            return;
        }
        match read {
            Some(read) if self.forwards(id) => self.passed_on(id, mate, read),
            Some(_) => {}
            // It has begun to end, and what it still had is gone. Unless all was well, its mate is broken off.
            None => self.conns[mate].is_muddled |= !self.conns[mate].feed_is_over,
        }
        self.look_at_half(id, mate, net);
    }

    /// Whether its end was passed on.
    fn look_at_half(&mut self, id: usize, mate: usize, net: &mut Net<'_, Site>) {
        let Some(other) = self.conns[mate].key.filter(|&key| net.is_open(key)) else { return };
        let may_be_over = !self.conns[mate].is_half_closed && self.has_said_its_end(self.conns[id].peer);
        if may_be_over && !net.send(other, b"") {
            match self.was_lost(mate, net) || self.has_lost_writer(mate) {
                true => self.conns[mate].may_be_half_closed = true,
                false => self.end_half(mate),
            }
        }
    }

    /// This much was read of it, and passed on: no more, and no less.
    fn passed_on(&mut self, id: usize, mate: usize, read: usize) {
        let ahead = std::mem::take(&mut self.conns[mate].ahead);
        let before = self.conns[id].got - ahead;
        let read = read.max(before);
        self.meet_peer(id, read > before);
        let kept = self.conns[mate].sent.len() - ahead;
        self.conns[mate].sent.truncate(kept);
        let Some(peer) = self.conns[id].peer else { return };
        let is_said = read <= self.conns[peer].sent.len();
        promise!(self.story, is_said, "{id} has read {read} bytes, and {peer} has not said so much");
        if is_said && read > before && !self.conns[mate].is_half_closed {
            self.story.note(|| format!("   {id} has passed {} bytes on to {mate}", read - before));
            self.figures.passed_on += (read - before) as u64;
            let more = self.conns[peer].sent[before..read].to_vec();
            self.conns[mate].sent.extend(more);
        }
        self.conns[id].got = read;
        let (has, got) = (self.conns[mate].sent.len(), self.conns[mate].peer.map_or(0, |peer| self.conns[peer].got));
        if got > has && self.conns[mate].peer.is_some_and(|peer| self.conns[peer].skipped_to == got) {
            self.conns[mate].is_muddled = true; // one that skips a frame has looked ahead
            return;
        }
        promise!(self.story, got <= has, "{mate} was sent {has} bytes, and its peer has got {got}");
    }

    /// What comes to this one may have been passed on to its peer, by whom that was told.
    pub(super) fn look_ahead(&mut self, id: usize, key: Key, net: &Net<'_, Site>) {
        let Some(feed) = self.conns[id].peer else { return };
        let Some(source) = self.conns[feed].mate else { return };
        if self.conns[feed].host == self.conns[id].host {
            return; // somebody has just looked
        }
        let has_heard = self.read_of(source, key, net) > self.conns[feed].sent.len();
        self.meet_peer(source, has_heard); // it was refused
        self.skip(source);
        if self.conns[feed].feed_is_over || self.conns[feed].is_half_closed || !self.forwards(source) {
            return;
        }
        let Some(peer) = self.conns[source].peer else { return };
        let got = self.conns[source].got;
        let more = self.conns[peer].sent[got..].to_vec();
        self.conns[source].got += more.len();
        let feed = &mut self.conns[feed];
        feed.ahead += more.len();
        feed.sent.extend(more);
    }

    /// A partner has ended: so does this one, but if it has begun to already.
    pub(super) fn end_mate(&mut self, id: usize, why: Why, net: &Net<'_, Site>) {
        let Some(mate) = self.conns[id].mate else { return };
        if self.conns[mate].closed.is_some() || !self.conns[mate].key.is_some_and(|key| net.is_open(key)) {
            return;
        }
        if why.is_clean() {
            self.end_feeds(mate);
            let conn = &mut self.conns[mate];
            (conn.is_over, conn.is_closing) = (true, true);
            conn.asked_to_end();
        } else {
            self.breaks_off(mate, Why::Abort);
        }
    }

    /// Since its stream began.
    fn read_of(&self, id: usize, key: Key, net: &Net<'_, Site>) -> usize {
        self.conns[id].base_in + moved(key, net).map_or(0, |moved| moved[0] as usize)
    }
}
