//! Streams, as sockets see them: bytes, the end, resets, and the events that tell of them. `opening` has how a stream
//! begins.

use super::{
    super::{errno::Errno, weather::Kernel},
    EndId, Network,
    agenda::Happening,
    chance::Chance,
    merge,
};
use crate::{
    address::Address,
    flags::*,
    world::{Moved, Ways, readiness::Ended},
};
use std::{io::IoSlice, time::Duration};

impl Network {
    pub(crate) fn recv(&mut self, id: EndId, buf: &mut [u8]) -> Result<Moved, Errno> {
        self.operate_or_nudge(id, "recv", READABLE)?;
        self.nudge_by_chance(id);
        let available = self.ends[&id].inbox.len().min(buf.len());
        if available == 0 {
            let end = self.ends.get_mut(&id).expect("an open socket");
            if let Some(errno) = end.hidden {
                return Err(errno);
            }
            if end.fin_arrived {
                return Ok(Moved { bytes: 0, drained: true });
            }
            return match end.error.take() {
                Some(errno) => Err(errno),
                None if end.is_broken => Ok(Moved { bytes: 0, drained: true }),
                None => Err(Errno::Again),
            };
        }
        let short = self.weather.short_reads;
        let bytes = match self.strikes(id, Chance::ShortRead, short) {
            Some(mut rng) if available > 1 => rng.usize(1..available),
            _ => available,
        };
        let end = self.ends.get_mut(&id).expect("an open socket");
        for (to, from) in buf.iter_mut().zip(end.inbox.drain(..bytes)) {
            *to = from;
        }
        let is_drained = end.inbox.is_empty() && bytes < buf.len();
        let (peer, host) = (end.peer, end.host);
        self.machines[host].bytes += bytes as u64;
        self.note_end(id, format_args!("receives {bytes} from"));
        if let Some(peer) = peer.filter(|peer| self.ends.get(peer).is_some_and(|peer| peer.is_awaited)) {
            self.ends.get_mut(&peer).expect("just seen").is_awaited = false;
            self.send_after(id, 0, Happening::Room { to: peer });
        }
        Ok(Moved { bytes, drained: is_drained })
    }

    /// Only what is taken of the slices is copied: behind a small window there may be a long queue.
    pub(crate) fn send(&mut self, id: EndId, slices: &[IoSlice<'_>]) -> Result<Moved, Errno> {
        self.operate_or_nudge(id, "send", WRITABLE)?;
        self.nudge_by_chance(id);
        let end = self.ends.get_mut(&id).expect("an open socket");
        if let Some(errno) = end.hidden.or_else(|| end.error.take()) {
            return Err(errno);
        }
        if end.fin_sent || end.is_broken {
            return Err(Errno::BrokenPipe);
        }
        let Some(peer) = end.peer else { return Err(Errno::Again) };
        let (window, short) = (self.weather.window, self.weather.short_writes);
        // A peer that is gone answers with a reset; until then the bytes leave.
        let free = self.ends.get(&peer).map_or(window, |peer| window.saturating_sub(peer.inbox.len() + peer.arriving));
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let takes_all = free > 0 && self.weather.kernel == Kernel::Windows;
        let possible = if takes_all { offered } else { free.min(offered) };
        if possible == 0 && offered > 0 {
            self.ends.get_mut(&id).expect("an open socket").is_awaited = true;
            return Err(Errno::Again);
        }
        let taken = match self.strikes(id, Chance::ShortWrite, short) {
            Some(mut rng) if possible > 1 => rng.usize(1..possible),
            _ => possible,
        };
        let is_full = taken == free && taken < offered;
        let end = self.ends.get_mut(&id).expect("an open socket");
        end.is_awaited = is_full;
        self.machines[end.host].bytes += taken as u64;
        if let Some(peer) = self.ends.get_mut(&peer) {
            peer.arriving += taken;
        }
        self.note_end(id, format_args!("sends {taken} of {offered} to"));
        let resets = if self.ends[&id].ways == Ways::Both { self.weather.resets } else { 0 };
        if self.strikes(id, Chance::Reset, resets).is_some() {
            self.send_after(id, 0, Happening::Reset { to: peer });
            self.send_after(id, 0, Happening::Reset { to: id });
        } else {
            self.send_after(id, taken, Happening::Data { from: id, to: peer, bytes: first_of(slices, taken) });
        }
        Ok(Moved { bytes: taken, drained: is_full })
    }

    pub(super) fn arrive(&mut self, from: EndId, to: EndId, bytes: &[u8]) {
        let Some(end) = self.ends.get_mut(&to) else {
            // Nobody has this socket any more: the answer is a reset.
            let delay = self.delay(from);
            let at = self.now + delay;
            self.plan(at, Happening::Reset { to: from });
            return;
        };
        end.arriving -= bytes.len().min(end.arriving);
        if !end.is_broken {
            end.inbox.extend(bytes);
            self.tell(to, READABLE);
        }
    }

    pub(crate) fn shutdown_write(&mut self, id: EndId) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if std::mem::replace(&mut end.fin_sent, true) {
            return;
        }
        let peer = end.peer;
        self.note_end(id, format_args!("ends its side towards"));
        if let Some(peer) = peer {
            self.send_after(id, 0, Happening::Fin { to: peer });
        }
    }

    /// With a reset if that was asked for, or if something that came was not read (tcp(7)). A pipe breaks when it is not
    /// read any more, and never otherwise (pipe(7)).
    pub(crate) fn close(&mut self, id: EndId, reset: bool) {
        let Some(end) = self.ends.get(&id) else { return };
        let (host, peer) = (end.host, end.peer);
        let resets = match end.ways {
            Ways::Both => reset || !end.inbox.is_empty() || end.arriving > 0,
            ways => ways == Ways::In,
        };
        self.machines[host].sockets -= usize::from(end.has_descriptor);
        self.note_end(id, format_args!("{}", if resets { "resets" } else { "closes" }));
        if let (Some(peer), false) = (peer, self.ends[&id].is_broken) {
            if resets {
                self.send_after(id, 0, Happening::Reset { to: peer });
            } else {
                self.shutdown_write(id);
            }
        }
        self.forget_events(id);
        self.ends.remove(&id);
    }

    /// Those that nobody has taken yet. For a pipe they may belong to another one, which is registered as the same; that
    /// does no harm, because an event for what is gone finds nobody.
    pub(super) fn forget_events(&mut self, id: EndId) {
        let end = &self.ends[&id];
        if let (Some(token), Ways::Both) = (end.token, end.ways) {
            self.machines[end.host].ready.remove(&token);
        }
    }

    pub(super) fn fail_end(&mut self, id: EndId, errno: Errno) {
        self.note_loss(id);
        let Some(end) = self.ends.get_mut(&id) else { return };
        if std::mem::replace(&mut end.is_broken, true) {
            return;
        }
        if end.is_connected && end.ways == Ways::Both && self.weather.kernel == Kernel::Windows {
            end.hidden = Some(errno);
            end.inbox.clear();
        } else {
            // A reset behind the end is EPIPE, as on Linux.
            let is_behind_the_end = (end.fin_arrived || end.ways == Ways::Out) && errno == Errno::ConnectionReset;
            end.error = Some(if is_behind_the_end { Errno::BrokenPipe } else { errno });
        }
        end.is_connected = false;
        end.arriving = 0;
        let told = if end.ways == Ways::Out { WRITABLE | FAILED } else { READABLE | WRITABLE | READ_UNTIL_BLOCKED };
        self.note_end(id, format_args!("hears {errno:?} from"));
        self.tell(id, told);
    }

    /// The addresses of both ends of what was cut off.
    pub(super) fn note_loss(&mut self, id: EndId) {
        self.lost_tokens.extend(self.ends.get(&id).and_then(|end| end.token));
        if let Some((Some(local), Some(remote))) = self.ends.get(&id).map(|end| (end.local.ip(), end.remote.ip())) {
            self.losses.insert((local, remote));
        }
    }

    pub(crate) fn take_error(&mut self, id: EndId) -> Option<Errno> {
        self.ends.get_mut(&id).and_then(|end| end.error.take())
    }

    pub(crate) fn hidden_reset(&self, id: EndId) -> Option<Errno> {
        self.ends.get(&id).and_then(|end| end.hidden)
    }

    pub(crate) fn local(&self, id: EndId) -> Option<Address> {
        self.ends.get(&id).map(|end| end.local.clone())
    }

    /// Its connect was not answered.
    pub(crate) fn is_unanswered(&self, id: EndId) -> bool {
        self.ends.get(&id).is_some_and(|end| end.peer.is_none() && !end.is_broken)
    }

    pub(super) fn is_readable(&self, id: EndId) -> bool {
        let end = &self.ends[&id];
        !end.inbox.is_empty() || end.fin_arrived || end.is_broken
    }

    /// An event for whatever has it registered: with everything that is so at that moment, as epoll does it.
    pub(super) fn tell(&mut self, id: EndId, ready: Flags) {
        let Some(end) = self.ends.get(&id) else { return };
        let Some(token) = end.token else { return };
        let host = end.host;
        let level = self.level(id);
        merge(&mut self.machines[host].ready, token, ready);
        merge(&mut self.machines[host].ready, token, level);
    }

    /// What could be done with a socket now.
    fn level(&self, id: EndId) -> Flags {
        let end = &self.ends[&id];
        let peer = end.peer.and_then(|peer| self.ends.get(&peer));
        let has_room = peer.is_none_or(|peer| peer.inbox.len() + peer.arriving < self.weather.window);
        let ended =
            Ended { read_closed: end.fin_arrived || end.is_broken, write_closed: end.is_broken, error: end.error.is_some() };
        let mut ready = ended.flags(self.weather.kernel == Kernel::Windows);
        ready.insert_if(READABLE, !end.inbox.is_empty());
        ready.insert_if(WRITABLE, end.is_connected && has_room);
        match end.ways {
            Ways::Both => ready,
            Ways::In => ready.without(WRITABLE),
            Ways::Out => ready.only(WRITABLE | FAILED),
        }
    }

    /// An injected EAGAIN promises an event, or the socket would sleep for ever.
    fn operate_or_nudge(&mut self, id: EndId, what: &str, ready: Flags) -> Result<(), Errno> {
        let host = self.ends[&id].host;
        let operated = self.operate(host, what);
        match operated {
            Err(Errno::Again) => {
                let soon = self.now + Duration::from_millis(1);
                self.plan(soon, Happening::Look { at: id, ready });
            }
            Err(_) => self.note_loss(id),
            Ok(()) => {}
        }
        operated
    }

    /// An event that means nothing: selectors are allowed to lie.
    pub(super) fn nudge_by_chance(&mut self, id: EndId) {
        let of_end = self.ends.get(&id).map(|end| end.host);
        let Some(host) = of_end.or_else(|| Some(self.boxes.get(&id)?.host)) else { return };
        let spurious = self.weather.spurious;
        if !self.machines[host].has_reactor {
            return; // nobody is told
        }
        if let Some(mut rng) = self.strikes(id, Chance::Spurious, spurious) {
            let token = rng.usize(0..8) | rng.usize(0..4) << 32;
            let mut ready = Flags::default();
            ready.insert_if(READABLE, rng.bool());
            ready.insert_if(WRITABLE, rng.bool());
            let now = self.now;
            self.plan(now, Happening::Nudge { host, token, ready });
        }
    }
}

/// The first `count` bytes.
fn first_of(slices: &[IoSlice<'_>], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for slice in slices {
        bytes.extend_from_slice(&slice[..slice.len().min(count - bytes.len())]);
    }
    bytes
}
