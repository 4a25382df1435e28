//! What will happen, and when. What it affects is looked up only when it happens: a host that is switched off by then is
//! spared, and what cannot pass between two hosts waits; a datagram is lost then.

use super::{super::errno::Errno, BoxId, EndId, HostId, Network, merge, packets::Packet};
use crate::{address::Address, flags::*, time::Time};
use std::{net::SocketAddr, time::Duration};

pub(super) enum Happening {
    /// A connect arrives at what it asked for.
    Knock {
        client: EndId,
        to: Address,
    },
    /// The client learns that it is connected.
    Welcome {
        client: EndId,
    },
    Refuse {
        client: EndId,
        errno: Errno,
    },
    Data {
        from: EndId,
        to: EndId,
        bytes: Vec<u8>,
    },
    Fin {
        to: EndId,
    },
    Reset {
        to: EndId,
    },
    /// The reader has made room.
    Room {
        to: EndId,
    },
    /// An event for a socket, with what holds then.
    Look {
        at: EndId,
        ready: Flags,
    },
    /// An event for whatever has this token.
    Nudge {
        host: HostId,
        token: usize,
        ready: Flags,
    },
    Packet(Packet),
    /// The sender of a datagram learns from this host that nobody has that address.
    Unreachable {
        host: HostId,
        at: BoxId,
        of: SocketAddr,
    },
    /// An event for a datagram socket, with what holds then.
    LookAtBox {
        at: BoxId,
        ready: Flags,
    },
}

impl Network {
    pub(super) fn plan(&mut self, at: Time, happening: Happening) {
        self.agenda.insert((at, self.planned), happening);
        self.planned += 1;
    }

    /// Behind everything that this end has sent before.
    pub(super) fn send_after(&mut self, from: EndId, bytes: usize, happening: Happening) {
        let delay = self.delay(from);
        let takes = self.weather.bandwidth.map_or(0, |rate| (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1));
        let earliest = self.now + delay;
        let Some(end) = self.ends.get_mut(&from) else { return };
        let at = end.busy_until.max(earliest) + Duration::from_nanos(takes);
        end.busy_until = at;
        self.plan(at, happening);
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.agenda.keys().next().map(|&(at, _)| at).filter(|&at| at != Time::NEVER)
    }

    /// Everything that happens up to `now`.
    pub(crate) fn advance(&mut self, now: Time) {
        self.reach(now);
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let happening = entry.remove();
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some((from, to)) = self.between(&happening) {
            if self.machines[to].is_dead || self.machines[from].is_dead {
                return;
            }
            if self.partitions.contains(&(from.min(to), from.max(to))) {
                if !matches!(happening, Happening::Packet(_) | Happening::Unreachable { .. }) {
                    self.held.push((from, to, happening));
                }
                return;
            }
        }
        match happening {
            Happening::Knock { client, to } => self.knock(client, &to),
            Happening::Welcome { client } => self.welcome(client),
            Happening::Refuse { client, errno } => self.fail_end(client, errno),
            Happening::Data { from, to, bytes } => self.arrive(from, to, &bytes),
            Happening::Fin { to } => {
                if let Some(end) = self.ends.get_mut(&to).filter(|end| !end.is_broken) {
                    end.fin_arrived = true;
                    self.tell(to, READABLE | READ_UNTIL_BLOCKED);
                }
            }
            Happening::Reset { to } => self.fail_end(to, Errno::ConnectionReset),
            Happening::Room { to } => {
                if self.ends.get(&to).is_some_and(|end| !end.is_broken) {
                    self.tell(to, WRITABLE);
                }
            }
            Happening::Look { at, ready } => self.tell(at, ready),
            Happening::Nudge { host, token, ready } => merge(&mut self.machines[host].ready, token, ready),
            Happening::Packet(packet) => self.fall(packet),
            Happening::Unreachable { at, of, .. } => self.refuse_packet(at, of),
            Happening::LookAtBox { at, ready } => self.tell_box(at, ready),
        }
    }

    /// From whose host to whose it goes.
    fn between(&self, happening: &Happening) -> Option<(HostId, HostId)> {
        let of = |id: &EndId| self.ends.get(id);
        match happening {
            Happening::Knock { client, to } => Some((of(client)?.host, self.host_of(to)?)),
            Happening::Welcome { client } | Happening::Refuse { client, .. } => {
                let end = of(client)?;
                let other = end.peer.and_then(|peer| Some(of(&peer)?.host)).or_else(|| self.host_of(&end.remote))?;
                Some((other, end.host))
            }
            Happening::Data { from, to, .. } if of(to).is_none() => {
                let end = of(from)?;
                Some((end.host, self.host_of(&end.remote)?))
            }
            Happening::Data { to, .. } | Happening::Fin { to } | Happening::Reset { to } | Happening::Room { to } => {
                let end = of(to)?;
                let other = end.peer.and_then(|peer| Some(of(&peer)?.host)).or_else(|| self.host_of(&end.remote))?;
                Some((other, end.host))
            }
            Happening::Packet(packet) => Some((packet.host, self.goes_to(packet)?)),
            Happening::Unreachable { host, at, .. } => Some((*host, self.boxes.get(at)?.host)),
            Happening::Look { .. } | Happening::Nudge { .. } | Happening::LookAtBox { .. } => None,
        }
    }
}
