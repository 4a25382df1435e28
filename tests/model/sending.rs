//! What is done: sending and producing.

use super::{
    chance::{Dice, words},
    framing::prefix,
    run::Site,
    shadow::{Alive, Dialect, Model, Supply, SupplyEnds, Why, promise},
};
use mainspring::{Net, Width};
use std::rc::Rc;

impl Model {
    /// What the program would send, and the bytes that it comes to.
    pub(super) fn some_message(&mut self, id: usize) -> (Vec<u8>, Vec<u8>) {
        let most = if self.dice.one_in(4) { self.message_max } else { self.message_max.min(40) };
        let bytes = self.dice.below(most + 1).min(self.bytes_left);
        self.bytes_left -= bytes;
        self.message_of(id, bytes)
    }

    pub(super) fn message_of(&mut self, id: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let conn = &self.conns[id];
        let from = id * 7919 + conn.sent.len();
        match conn.speaks {
            Dialect::Raw => {
                let words = words(from, bytes);
                (words.clone(), words)
            }
            Dialect::Prefixed(width, order) => {
                let words = words(from, if width == Width::U8 { bytes.min(255) } else { bytes.min(65_535) });
                let wire = [&prefix(width, order, words.len())[..], &words].concat();
                (words, wire)
            }
            Dialect::Netstrings => {
                let words = words(from, bytes);
                let wire = [format!("{}:", words.len()).as_bytes(), &words, b","].concat();
                (words, wire)
            }
        }
    }

    pub(super) fn send(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let Some(key) = self.conns[id].key else { return };
        let (payload, wire) = self.some_message(id);
        let kind = self.dice.below(10);
        self.story.note(|| format!("      {id} is sent {} in way {kind}", wire.len()));
        let was_open = net.is_open(key);
        let before = net.link(key).map_or(0, |link| link.queued());
        match kind {
            0..3 => {
                let accepted = net.send(key, &wire);
                self.sent(id, net, before, was_open, accepted, &wire);
            }
            3 | 4 => {
                let accepted = net.send_shared(key, &Rc::from(&wire[..]));
                self.sent(id, net, before, was_open, accepted, &wire);
            }
            5 | 6 => {
                let speaks = self.conns[id].speaks;
                let accepted = net.link(key).is_some_and(|mut link| match speaks {
                    Dialect::Raw => std::io::Write::write(&mut link, &wire).is_ok_and(|written| written == wire.len()),
                    Dialect::Prefixed(width, order) => link.send_prefixed(width, order, &payload),
                    Dialect::Netstrings => link.send_netstring(&payload),
                });
                self.sent(id, net, before, was_open, accepted, &wire);
            }
            7 | 8 => self.produce(id, net, wire),
            _ => self.send_to_all(id, net),
        }
    }

    /// One message for everybody on this host who speaks plainly.
    pub(super) fn send_to_all(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let bytes = self.dice.below(self.message_max.min(3000)).min(self.bytes_left);
        let shared: Rc<[u8]> = words(id * 7919, bytes).into();
        for id in self.places[self.conns[id].host].conns.clone() {
            let Some(key) = self.conns[id].key.filter(|_| self.conns[id].speaks == Dialect::Raw) else { continue };
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            let was_open = net.is_open(key);
            let before = net.link(key).map_or(0, |link| link.queued());
            let accepted = net.send_shared(key, &shared);
            self.sent(id, net, before, was_open, accepted, &shared);
        }
    }

    pub(super) fn produce(&mut self, id: usize, net: &mut Net<'_, Site>, wire: Vec<u8>) {
        let ends = match self.dice.below(30) {
            0 => SupplyEnds::WithAnError,
            1 => SupplyEnds::InVain,
            _ => SupplyEnds::Well,
        };
        let supply = Supply {
            bytes: wire.clone(),
            said: 0,
            dice: Dice(self.dice.roll()),
            ends,
            quiet: Rc::clone(&self.quiet),
            pulls: Rc::clone(&self.conns[id].pulls),
            _alive: Alive::one_more(&self.alive),
        };
        if self.conns[id].mate.is_some() {
            return; // what its mate has would stand somewhere in between
        }
        let accepted = self.conns[id].key.and_then(|key| net.link(key)).is_some_and(|mut link| link.produce(supply));
        let conn = &mut self.conns[id];
        if accepted {
            conn.has_produced = true;
            conn.sent.extend(wire);
            if ends != SupplyEnds::Well {
                conn.may.push(Why::Failed);
            }
        } else if !conn.is_half_closed && !conn.is_apart && !self.is_over(id, net) {
            self.conns[id].is_lost = true;
        }
        self.observe(id, net);
    }

    /// A message was taken, or refused: rightly so?
    pub(super) fn sent(
        &mut self,
        id: usize,
        net: &mut Net<'_, Site>,
        before: usize,
        was_open: bool,
        accepted: bool,
        wire: &[u8],
    ) {
        let is_open = !self.is_over(id, net);
        let after = self.conns[id].key.and_then(|key| net.link(key)).map_or(0, |link| link.queued());
        if wire.is_empty() {
            promise!(self.story, is_open == was_open, "{id} was sent nothing, and ends by that");
            return self.observe(id, net);
        }
        let was_lost = self.was_lost(id, net);
        let conn = &mut self.conns[id];
        let (bytes, cap, is_half_closed) = (wire.len(), conn.marks.cap, conn.is_half_closed);
        let is_too_much = before > 0 && before + bytes > cap;
        if accepted {
            conn.sent.extend_from_slice(wire);
            promise!(self.story, was_open && is_open && !is_half_closed, "{id} took output, and was not open");
            promise!(self.story, !is_too_much, "{id} took {bytes} bytes after {before}, above its cap of {cap}");
            promise!(self.story, after == before + bytes, "{id} took {bytes} bytes after {before}, which is not {after}");
        } else if was_open && !is_open && was_lost {
            // Above the high mark nothing is queued for one that is lost; above the cap it may not be known yet.
            conn.is_over = true;
            conn.may.extend([Why::Io, Why::Overflow]);
        } else if was_open && !is_open {
            promise!(self.story, is_too_much, "{id} has overflown with {bytes} bytes after {before}, below its cap of {cap}");
            self.breaks_off(id, Why::Overflow);
        } else if was_open && !is_half_closed && !conn.may_be_half_closed && !conn.is_apart {
            conn.is_lost = true; // an earlier write failed
        }
        self.observe(id, net);
    }
}
