//! What is done: streams that nobody has connected, pairs and pipes, are adopted, one end now and the other perhaps later; and
//! connections are given back, to be adopted again, or to be dropped.
//!
//! What was given back and is adopted again is another connection here, which goes on where that one was: with what that has
//! sent and was told.

use super::{
    checks::moved,
    framing::Framing,
    run::Site,
    shadow::{Alive, Conn, Dialect, Model, Peer, Why, promise},
};
use mainspring::{Adopted, Context, Detached, Net};

/// In which directions a stream goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ways {
    Both,
    In,
    Out,
}

/// What is made to be adopted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ends {
    /// Of one stream.
    Pair,
    /// What reads, and what writes.
    Pipe,
    /// Each with a pipe for each direction.
    Pipes,
}

/// Nobody's connection: it was never one, or is one no more.
pub(super) struct Spare {
    id: usize,
    adopted: Adopted,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Model {
    /// Whether two ends are to be made for this host.
    pub(super) fn some_ends(&mut self, host: usize) -> Option<Ends> {
        if self.adopts == 0 || !self.adopting.one_in(35) || self.places[host].conns.len() >= 6 {
            return None;
        }
        Some(self.adopting.pick(&[Ends::Pair, Ends::Pipes, Ends::Pipe]))
    }

    pub(super) fn take_ends(&mut self, host: usize, kind: Ends, (one, other): (Adopted, Adopted), net: &mut Net<'_, Site>) {
        self.figures.ends_made += 1;
        let dialects = [(); 2].map(|()| self.adopting.pick(&[Dialect::Raw, Dialect::Raw, Dialect::Raw, Dialect::Netstrings]));
        let first = self.conns.len();
        self.story.note(|| format!("      {kind:?} on host {host}: {first} and {}", first + 1));
        for at in 0..2 {
            let mut conn = Conn::new(host, false, self.places[host].marks, dialects[at], dialects[1 - at]);
            conn.peer = Some(first + 1 - at);
            (conn.is_adopted, conn.is_apart) = (true, kind != Ends::Pair);
            conn.set_ways(if kind == Ends::Pipe { [Ways::In, Ways::Out][at] } else { Ways::Both });
            self.conns.push(conn);
            self.figures.connections += 1;
        }
        let mut spares =
            [(first, one), (first + 1, other)].map(|(id, adopted)| Spare { id, adopted, unread: Vec::new(), unsent: Vec::new() });
        if self.adopting.one_in(2) {
            spares.reverse();
        }
        for (at, spare) in spares.into_iter().enumerate() {
            if at == 0 || self.adopting.one_in(2) {
                self.adopt(spare, net);
            } else {
                self.spares.push(spare);
            }
        }
    }

    /// Seldom: something that is nobody's becomes a connection, or is dropped; or this one is nobody's from now on.
    pub(super) fn hand_over_some(&mut self, id: usize, net: &mut Net<'_, Site>) {
        if self.adopts == 0 || !self.adopting.one_in(self.adopts) {
            return;
        }
        let host = self.conns[id].host;
        let spare = self.spares.iter().position(|spare| self.conns[spare.id].host == host);
        match spare {
            Some(at) if self.adopting.one_in(2) => {
                let spare = self.spares.swap_remove(at);
                if self.adopting.one_in(5) {
                    self.let_go(spare);
                } else {
                    self.adopt(spare, net);
                }
            }
            _ => self.detach(id, net),
        }
    }

    fn detach(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        self.notice_lost_writer(id, net);
        let was_open = net.is_open(key);
        let may_have_failed = self.was_lost(id, net) || self.has_lost_writer(id);
        let answer = net.detach(key);
        self.story.note(|| format!("      {id} is to be detached: {answer}"));
        let conn = &self.conns[id];
        let is_bound = conn.mate.is_some() || conn.saving.is_some() || conn.secured.is_begun();
        let may_be_refused = is_bound || conn.has_produced || conn.has_sources || conn.is_lost || may_have_failed;
        let must_be = was_open && conn.is_connected && !may_be_refused;
        promise!(self.story, answer || !must_be, "{id} could not be detached");
        promise!(self.story, !answer || conn.is_connected, "{id} was detached before it was told that it is connected");
        promise!(self.story, !answer || (was_open && !is_bound), "{id} was detached, which could not be");
        if answer {
            self.figures.detached += 1;
            self.breaks_off(id, Why::Detached);
            self.conns[id].is_detached = true;
            promise!(self.story, self.is_over(id, net), "{id} was detached, and is open");
        }
    }

    /// Here it is: nothing of it is lost, and nothing is there twice.
    pub(super) fn on_detached(&mut self, id: usize, detached: Detached, ctx: &mut Context<'_, Site>) {
        let Detached { socket, unread, unsent, .. } = detached;
        let [come, gone] = moved(ctx.key, &ctx.net).unwrap_or_default().map(|bytes| bytes as usize);
        let (come, gone) = (self.conns[id].base_in + come, self.conns[id].base_out + gone);
        self.meet_peer(id, come > 0);
        let told = come - unread.len();
        let conn = &self.conns[id];
        let (all, got) = (conn.sent.len(), conn.got);
        promise!(
            self.story,
            gone + unsent.len() == all && conn.sent.ends_with(&unsent),
            "{id} was sent {all} bytes, {gone} have left, and {} come back",
            unsent.len()
        );
        let may_be_skipping = matches!(conn.framing, Framing::Skip { .. }) || got == conn.skipped_to;
        let has_eof = conn.has_eof; // and of a tail nobody has said yet that it was told
        let is_known = !(may_be_skipping || conn.is_loose || has_eof || self.is_murky(id));
        promise!(self.story, !has_eof || unread.is_empty(), "{id} was told the end, and {} bytes come back", unread.len());
        promise!(self.story, !is_known || told == got, "{id} was told {got} bytes, and those from {told} on come back");
        let conn = &self.conns[id];
        let sent = conn.peer.and_then(|peer| self.conns[peer].sent.get(told..come));
        let is_right = unread.is_empty() || sent == Some(&unread[..]) || self.is_murky(id);
        promise!(self.story, is_right, "{id} gives back {} bytes as unread that were not sent", unread.len());
        let conn = &mut self.conns[id];
        (conn.got, conn.base_in, conn.base_out) = (told, come, gone);
        let spare = Spare { id, adopted: socket, unread, unsent };
        let is_over = self.places[self.conns[id].host].is_shutting_down;
        match self.adopting.below(6) {
            _ if is_over => self.let_go(spare),
            0 => self.let_go(spare),
            1..4 => self.adopt(spare, &mut ctx.net),
            _ if self.quiet.get() => self.let_go(spare),
            _ => self.spares.push(spare),
        }
    }

    fn adopt(&mut self, spare: Spare, net: &mut Net<'_, Site>) {
        let Spare { id: before, adopted, unread, unsent } = spare;
        let host = self.conns[before].host;
        let is_new = !self.conns[before].is_detached;
        let id = if is_new { before } else { self.succeed(before) };
        let is_half_closed = self.conns[before].is_half_closed;
        let bytes = (unread.len(), unsent.len());
        let peer = Peer { id, life: 0, _alive: Alive::one_more(&self.alive) };
        let adopted = net.adopt(adopted.unread(unread), peer);
        self.story.note(|| {
            format!("      {id}, which was {before}, is adopted with {bytes:?}, half-closed {is_half_closed}: {adopted:?}")
        });
        let key = match adopted {
            Ok(key) => key,
            Err(error) => {
                let place = &self.places[host];
                let is_over = is_half_closed && self.conns[id].ways == Ways::Out; // nothing of it was left
                let may_fail = is_over || self.had_faults || place.is_shutting_down || place.was_drained;
                promise!(self.story, may_fail, "{id} could not be adopted: {error}");
                return self.is_closed(id, unsent.len());
            }
        };
        self.introduce(id, key);
        if !unsent.is_empty() {
            let answer = net.send(key, &unsent);
            promise!(self.story, answer, "{id} does not take what {before} has not sent");
        }
        if is_half_closed && !is_new {
            net.half_close(key);
            self.close_if_both_ended(id);
        }
        self.observe(id, net);
    }

    /// Another connection goes on where this one was.
    fn succeed(&mut self, before: usize) -> usize {
        let id = self.conns.len();
        let one = &mut self.conns[before];
        one.is_detached = false;
        let mut conn = Conn::new(one.host, false, self.places[one.host].marks, one.speaks, one.hears);
        (conn.is_adopted, conn.was_accepted) = (true, one.is_accepted || one.was_accepted);
        (conn.peer, conn.is_apart) = (one.peer, one.is_apart);
        (conn.secured, conn.is_muddled) = (one.secured, one.is_muddled);
        (conn.got, conn.base_in, conn.base_out) = (one.got, one.base_in, one.base_out);
        conn.sent.clone_from(&one.sent);
        conn.set_ways(one.ways);
        if one.is_half_closed {
            conn.is_half_closed = true;
            conn.asked_to_end();
        }
        self.figures.connections += 1;
        if let Some(peer) = conn.peer {
            self.conns[peer].peer = Some(id);
        }
        for client in self.clients.values_mut().filter(|client| **client == before) {
            *client = id;
        }
        self.conns.push(conn);
        id
    }

    /// It was nobody's, and is no more.
    fn let_go(&mut self, spare: Spare) {
        self.story.note(|| format!("      {}, which is nobody's, is dropped", spare.id));
        self.is_closed(spare.id, spare.unsent.len());
        drop(spare.adopted);
    }

    fn is_closed(&mut self, id: usize, unsent: usize) {
        let conn = &mut self.conns[id];
        (conn.is_detached, conn.is_over, conn.is_gone) = (false, true, true);
        conn.closed.get_or_insert(Why::Abort);
        let has = conn.sent.len() - unsent;
        self.shorten(id, has);
    }

    /// It has said no more. One that skips a frame has looked ahead, and what was passed on by others counts until somebody
    /// looks.
    fn shorten(&mut self, id: usize, has: usize) {
        let conn = &mut self.conns[id];
        conn.sent.truncate(has);
        let Some(peer) = conn.peer.map(|peer| &mut self.conns[peer]).filter(|peer| peer.got > has) else { return };
        let (more, mate, saving) = (peer.got - has, peer.mate, peer.saving);
        (peer.got, peer.skipped_to) = (has, has);
        if let Some(save) = saving {
            self.shorten_save(save, has);
        }
        if let Some(mate) = mate {
            let feed = &mut self.conns[mate];
            let back = more.min(feed.ahead);
            feed.ahead -= back;
            let has = feed.sent.len() - back;
            self.shorten(mate, has);
        }
    }

    /// What is nobody's on this host becomes a connection again, or is dropped.
    pub(super) fn settle_spares(&mut self, host: usize, net: &mut Net<'_, Site>) {
        for spare in self.spares_of(host) {
            if self.adopting.one_in(2) {
                self.let_go(spare);
            } else {
                self.adopt(spare, net);
            }
        }
    }

    pub(super) fn drop_spares(&mut self, host: usize) {
        self.spares_of(host).into_iter().for_each(|spare| self.let_go(spare));
    }

    fn spares_of(&mut self, host: usize) -> Vec<Spare> {
        let (of_host, others) = std::mem::take(&mut self.spares).into_iter().partition(|spare| self.conns[spare.id].host == host);
        self.spares = others;
        of_host
    }

    // ----------------------------------------------------------------------------------------------- directions apart

    /// Its writer is broken, as the network knows; what comes the other way is another matter.
    pub(super) fn has_lost_writer(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        conn.is_apart && conn.key.is_some_and(|key| self.losses.includes_key(key))
    }

    /// What it has sent may end anywhere, and a pipe does not tell.
    pub(super) fn may_be_cut(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        let is_broken_off = conn.closed.is_some_and(|why| !why.is_clean()) || (conn.is_over && !conn.is_closing);
        conn.is_apart && (is_broken_off || conn.is_lost || self.has_lost_writer(id))
    }

    /// The end was told of one that may have been cut: then it has said no more than this.
    pub(super) fn meet_cut(&mut self, id: usize, peer: usize, tail: usize) {
        let conn = &self.conns[id];
        if self.may_be_cut(peer) && !matches!(conn.framing, Framing::Skip { .. }) {
            let end = conn.got + tail;
            self.conns[peer].sent.truncate(end);
        }
    }

    /// The loop has met that: nothing more is sent.
    pub(super) fn notice_lost_writer(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let conn = &self.conns[id];
        let Some(key) = conn.key.filter(|_| conn.is_apart && !conn.is_half_closed) else { return };
        if net.is_open(key) && !net.send(key, b"") {
            promise!(self.story, self.has_lost_writer(id), "{id} takes no output, and its writer is not broken");
            let conn = &mut self.conns[id];
            (conn.is_half_closed, conn.feed_is_over) = (true, true);
            if conn.mate.is_some() {
                conn.may.extend([Why::Finish, Why::Eof]); // or its partner has passed an end on before
            } else {
                conn.peer_was_first.get_or_insert(true);
            }
        }
    }
}
