//! What is done: in answer to a callback, and to anyone.

use super::{
    framing::Framing,
    run::Site,
    shadow::{Alive, Call, Dialect, Model, Peer, Why, promise},
};
use mainspring::{Context, Net, Outcome};
use std::time::Duration;

/// What a full listener says.
pub(super) const FULL: &str = "full\r\n";

pub(super) const DELIMITERS: [&[u8]; 6] = [b"\n", b"\r\n", b"aab", b"abab", b"aa", b"\r\naa\r\n"];

impl Model {
    /// What a callback does, and what it returns; whether it asked to be succeeded.
    pub(super) fn answer(&mut self, id: usize, ctx: &mut Context<'_, Site>, call: &Call<'_>) -> (Outcome, bool) {
        let mut upgrades = false;
        if let Call::Connected = call {
            self.set_first_terminator(id, ctx);
        }
        if let Call::Frame(frame) = call {
            self.put_back(id, ctx, frame.len());
        }
        self.act_elsewhere(id, ctx);
        if !self.quiet.get() {
            for _ in 0..self.dice.pick(&[0, 0, 1, 1, 2]) {
                if self.ops_left == 0 || self.story.broken.is_some() {
                    break;
                }
                if self.dice.one_in(2) {
                    self.act(self.conns[id].host, &mut ctx.net);
                } else {
                    self.ops_left -= 1;
                    self.figures.operations += 1;
                    upgrades |= self.act_on_itself(id, ctx);
                }
            }
        }
        if !matches!(call, Call::Closed(_) | Call::Eof(_)) && !upgrades {
            upgrades |= self.start_some_itself(id, ctx);
        }
        let outcome = match call {
            Call::Exceeded(limit) if self.dice.one_in(2) => Err((*limit).into()),
            Call::Eof(_) if self.dice.one_in(2) => {
                self.close(id, &mut ctx.net);
                Ok(())
            }
            Call::Draining if !self.dice.one_in(4) => {
                self.close(id, &mut ctx.net);
                Ok(())
            }
            Call::Closed(_) => Ok(()),
            _ if !self.quiet.get() && self.dice.one_in(150) => Err("of its own".into()),
            _ => Ok(()),
        };
        self.story.note(|| format!("   {id} {outcome:?}"));
        (outcome, upgrades)
    }

    /// Some of what it was given, for another terminator.
    pub(super) fn put_back(&mut self, id: usize, ctx: &mut Context<'_, Site>, given: usize) {
        let conn = &self.conns[id];
        let may_be = given > 0 && conn.hears == Dialect::Raw && !self.quiet.get() && !self.is_murky(id);
        let Some(behind) = conn.behind.filter(|_| may_be) else { return };
        if !self.later.one_in(8) {
            return;
        }
        let bytes = 1 + self.later.below(given);
        let framing = self.some_later_framing();
        self.story.note(|| format!("      {id} puts {bytes} bytes back"));
        let (was_unread, is_first) = (ctx.unread(), self.later.one_in(2));
        if is_first {
            ctx.put_back(bytes);
        }
        self.conns[id].got -= behind + bytes;
        self.conns[id].came_back = behind;
        self.set_framing(id, &mut ctx.net, framing);
        if !is_first {
            ctx.put_back(bytes);
        }
        promise!(self.story, ctx.unread() == was_unread + bytes, "{id} has put {bytes} back, and they are not unread");
    }

    /// As the other end speaks.
    pub(super) fn set_first_terminator(&mut self, id: usize, ctx: &mut Context<'_, Site>) {
        let framing = match self.conns[id].hears {
            Dialect::Prefixed(width, order) => Framing::Prefixed { width, order, limit: 1 << 20 },
            Dialect::Netstrings => Framing::Netstring { limit: 1 << 20 },
            Dialect::Raw => self.some_framing(),
        };
        self.set_framing(id, &mut ctx.net, framing);
    }

    /// By the commands of a connection's own context.
    pub(super) fn act_on_itself(&mut self, id: usize, ctx: &mut Context<'_, Site>) -> bool {
        match self.dice.below(40) {
            0..14 => {
                let (_, wire) = self.some_message(id);
                self.story.note(|| format!("      {id} sends {}", wire.len()));
                let was_open = ctx.net.is_open(ctx.key);
                let before = ctx.queued();
                ctx.send(&wire);
                let accepted = was_open && ctx.net.is_open(ctx.key) && ctx.queued() == before + wire.len();
                self.sent(id, &mut ctx.net, before, was_open, accepted, &wire);
            }
            14..18 => {
                let (delay, was_open) = (self.some_delay(), ctx.net.is_open(ctx.key));
                let deadline = ctx.net.now() + delay;
                let handle = ctx.after(delay, self.next_alarm(self.conns[id].host));
                self.add_alarm(self.conns[id].host, Some(id), was_open, deadline, None, handle);
            }
            18..20 => {
                let (period, was_open) = (Duration::from_millis(20) + self.some_delay(), ctx.net.is_open(ctx.key));
                let deadline = ctx.net.now() + period;
                let handle = ctx.every(period, self.next_alarm(self.conns[id].host));
                self.add_alarm(self.conns[id].host, Some(id), was_open, deadline, Some(period), handle);
            }
            20 | 21 => {
                self.story.note(|| format!("      {id} upgrades"));
                let life = self.conns[id].life + 1;
                ctx.upgrade(Peer { id, life, _alive: Alive::one_more(&self.alive) });
                return true;
            }
            22 => {
                self.story.note(|| format!("      {id} closes itself"));
                let was_open = ctx.net.is_open(ctx.key);
                ctx.close();
                self.closed(id, &mut ctx.net, was_open);
            }
            23 if self.dice.one_in(2) => {
                self.story.note(|| format!("      {id} aborts itself"));
                let was_open = ctx.net.is_open(ctx.key);
                ctx.abort();
                if was_open {
                    self.breaks_off(id, Why::Abort);
                } else {
                    self.conns[id].may.push(Why::Abort); // it may have been flushing
                }
            }
            _ => self.act_on(id, &mut ctx.net),
        }
        false
    }

    /// One thing, with everything that a host has.
    pub(super) fn act(&mut self, host: usize, net: &mut Net<'_, Site>) {
        self.ops_left = self.ops_left.saturating_sub(1);
        self.figures.operations += 1;
        self.some_acts_with_datagrams(host, net);
        match self.dice.below(100) {
            0..8 => self.connect(host, net),
            8..12 => {
                let port = 1 + self.dice.below(2) as u16;
                self.listen_at(host, net, port);
            }
            12 => self.close_listener(host, net),
            13..20 => self.set_alarm(host, net),
            20..23 => self.cancel(host, net),
            23..28 => self.post(host, net),
            30 | 31 => self.offload(host, net),
            28 if self.dice.one_in(10) => {
                let grace = self.some_delay();
                self.drain(host, net, grace);
            }
            29 if self.dice.one_in(3) => {
                self.story.note(|| format!("      host {host} stops"));
                net.stop();
                let place = &mut self.places[host];
                (place.may_have_stopped, place.must_have_stopped) = (true, true);
            }
            32 | 33 => self.look_up(host, net),
            _ => {
                if let Some(id) = self.some_conn(host) {
                    self.act_on(id, net);
                }
            }
        }
    }

    /// One of the host's: one that is there, seldom one that was.
    pub(super) fn some_conn(&mut self, host: usize) -> Option<usize> {
        let all = &self.places[host].conns;
        if !all.is_empty() && !self.dice.one_in(15) {
            return Some(self.dice.pick(all));
        }
        let id = self.dice.below(self.conns.len());
        let is_ours = self.conns.get(id).is_some_and(|conn| conn.host == host && conn.key.is_some());
        is_ours.then_some(id)
    }

    /// One thing, to one connection of its host, whether it is there or not.
    pub(super) fn act_on(&mut self, id: usize, net: &mut Net<'_, Site>) {
        self.notice_lost_writer(id, net);
        match self.dice.below(60) {
            0..26 => self.send(id, net),
            26..29 => self.set_paused(id, net),
            29..32 => self.throttle(id, net),
            32..35 => self.set_output(id, net),
            35..40 => {
                let framing = self.some_framing();
                self.set_framing(id, net, framing);
            }
            40..42 => self.set_limit(id, net),
            42 => self.set_rate(id, net),
            43..49 => self.tell(id, net),
            49..52 => self.tell_after(id, net),
            58 => self.offload_for(id, net),
            52 => self.close(id, net),
            53 if self.dice.one_in(2) => self.abort(id, net),
            54 if self.dice.one_in(2) => self.fail(id, net),
            55 if id % 3 == 0 => self.close_when_quiet(id, net), // without a roll: the seeds of before stay what they were
            55 => self.half_close(id, net),
            56..58 => {
                self.story.note(|| format!("      {id} is woken"));
                if let Some(mut link) = self.conns[id].key.and_then(|key| net.link(key)) {
                    link.wake();
                }
            }
            _ => self.probe(id, net),
        }
        self.pair_some(id, net);
        self.hand_over_some(id, net);
        self.start_some(id, net);
        self.observe(id, net);
    }

    pub(super) fn some_delay(&mut self) -> Duration {
        let most = self.dice.pick(&[0, 10, 200, 5000]);
        self.dice.millis(most)
    }
}
