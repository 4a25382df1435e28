//! Datagrams on their way: each travels alone, so that it may be lost, doubled, or overtaken, and nobody is told. `boxes`
//! has what they come from and fall into.

use super::{
    super::{errno::Errno, trace::Trace},
    HostId, Network,
    agenda::Happening,
    boxes::{BoxId, is_broadcast},
    chance::{Chance, Question, mix},
};
use crate::{flags::*, time::nanos};
use fastrand::Rng;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The most that one may carry: the length of an IP packet has 16 bits, and includes the headers of IPv4 and UDP (RFC 791,
/// 768).
const LARGEST: usize = 65_507;

/// With IPv6 the length does not include its own header (RFC 8200).
const LARGEST_V6: usize = 65_527;

/// The least that a datagram that has arrived costs.
const COST_MIN: usize = 64;

/// One that is overtaken, or comes a second time, comes less than this later.
const LATE: Duration = Duration::from_millis(200);

/// An injected EAGAIN is over after this.
const BLOCKED: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(super) struct Packet {
    sender: BoxId,
    pub(super) host: HostId,
    from: SocketAddr,
    to: SocketAddr,
    /// If it was sent to a group, or to all: which of them this copy is for.
    copy_for: Option<BoxId>,
    bytes: Vec<u8>,
    /// How long it is on its way.
    takes: Duration,
}

/// A fault that was drawn, and what decides how it strikes.
type Drawn = Option<(Question, Rng)>;

impl Network {
    /// To its peer, or to somebody else.
    pub(crate) fn send_packet(&mut self, id: BoxId, bytes: &[u8], to: Option<SocketAddr>) -> Result<(), Errno> {
        self.operate_box(id, "send", WRITABLE)?;
        self.nudge_by_chance(id);
        let socket = self.boxes.get_mut(&id).expect("an open socket");
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let to = to.or(socket.peer).filter(|to| to.port() != 0).ok_or(Errno::InvalidArgument)?;
        let host = socket.host;
        let (from, to) = self.path(&self.boxes[&id], to)?;
        if bytes.len() > if to.is_ipv4() { LARGEST } else { LARGEST_V6 } {
            return Err(Errno::MessageTooLong);
        }
        self.machines[host].bytes += bytes.len() as u64;
        self.note(host, format_args!("{from} sends a datagram of {} bytes to {to}", bytes.len()));
        let packet = Packet { sender: id, host, from, to, copy_for: None, bytes: bytes.to_vec(), takes: Duration::ZERO };
        if to.ip().is_multicast() || is_broadcast(to.ip()) {
            for member in self.members(to) {
                self.launch(Packet { copy_for: Some(member), ..packet.clone() });
            }
        } else {
            self.launch(packet);
        }
        Ok(())
    }

    /// The members of the group, or the boxes that a broadcast reaches: the sender too, if it is one of them.
    fn members(&self, to: SocketAddr) -> Vec<BoxId> {
        let all = self.boxes.iter().filter(|(_, socket)| socket.is_at(to));
        all.filter(|(_, socket)| is_broadcast(to.ip()) || socket.groups.contains(&to.ip())).map(|(&id, _)| id).collect()
    }

    /// Every chance is asked about, whatever happens to the packet: so leaving one fault out changes no other.
    fn launch(&mut self, mut packet: Packet) {
        let (lost, doubled, overtaken) = self.weather.datagrams;
        let id = packet.sender;
        let loss = self.draws(id, Chance::Loss, lost);
        let double = self.draws(id, Chance::Double, doubled);
        let overtake = self.draws(id, Chance::Overtake, overtaken);
        packet.takes = self.delay(id);
        if self.befalls(&packet, loss).is_some() {
            return;
        }
        if let Some(mut rng) = self.befalls(&packet, double) {
            let mut second = packet.clone();
            second.takes = later(second.takes, &mut rng);
            self.send_off(second);
        }
        if let Some(mut rng) = self.befalls(&packet, overtake) {
            packet.takes = later(packet.takes, &mut rng);
        }
        self.send_off(packet);
    }

    /// A fault strikes this packet: writes a line about it.
    fn befalls(&mut self, packet: &Packet, fault: Drawn) -> Option<Rng> {
        let (question, rng) = fault?;
        let (Packet { from, to, host, .. }, chance) = (packet, question.1);
        self.struck.push((question, format!("{} {from} {chance:?} towards {to}", Trace::stamp(self.now))));
        self.note(*host, format_args!("{from} meets a fault by chance, {chance:?}, towards {to}"));
        Some(rng)
    }

    /// By itself, and not behind what was sent before.
    fn send_off(&mut self, packet: Packet) {
        let at = self.now + packet.takes;
        self.plan(at, Happening::Packet(packet));
    }

    /// The host that it is for, if there is one.
    pub(super) fn goes_to(&self, packet: &Packet) -> Option<HostId> {
        match self.box_for(packet) {
            Some(id) => Some(self.boxes[&id].host),
            None => self.host_of(&packet.to.into()),
        }
    }

    /// It arrives.
    pub(super) fn fall(&mut self, packet: Packet) {
        let Some(id) = self.box_for(&packet) else { return self.turn_back(&packet) };
        let window = self.weather.window;
        let Packet { from, bytes, .. } = packet;
        let socket = self.boxes.get_mut(&id).expect("just found");
        let (host, local) = (socket.host, socket.local);
        if socket.held >= socket.window.unwrap_or(window) {
            return self.note(host, format_args!("{local} has no room for a datagram from {from}"));
        }
        socket.held += cost(&bytes);
        socket.inbox.push_back((from, bytes));
        self.tell_box(id, READABLE);
    }

    /// Which box gets it. A connected socket comes first, then one at exactly this address; among several that share a port
    /// the sender decides, so that what one sender sends goes to one box.
    fn box_for(&self, packet: &Packet) -> Option<BoxId> {
        let &Packet { from, to, host, .. } = packet;
        let takes = |id: BoxId| {
            let socket = self.boxes.get(&id)?;
            let reaches = packet.copy_for.is_some() || self.has(socket.host, to.ip(), host) || socket.local == to;
            (socket.is_at(to) && socket.hears(from) && reaches).then_some(socket)
        };
        if let Some(id) = packet.copy_for {
            let is_member = |groups: &std::collections::BTreeSet<IpAddr>| is_broadcast(to.ip()) || groups.contains(&to.ip());
            return takes(id).filter(|socket| is_member(&socket.groups)).map(|_| id);
        }
        let rank = |id: BoxId| takes(id).map(|socket| (socket.peer.is_some(), socket.local == to, socket.host != host));
        let all: Vec<_> = self.boxes.keys().filter_map(|&id| Some((rank(id)?, id))).collect();
        let best = all.iter().map(|&(rank, _)| rank).max()?;
        let best: Vec<_> = all.into_iter().filter(|&(rank, _)| rank == best).collect();
        Some(best[(of_sender(from) % best.len() as u64) as usize].1)
    }

    /// Whether it is an address of that host, for a sender at this one.
    fn has(&self, host: HostId, ip: IpAddr, from: HostId) -> bool {
        self.ip_of(host) == ip || (self.machines[host].is_anywhere && host != from)
    }

    /// Nobody has that port: ICMP says so to the sender, after as much time as the packet has taken.
    fn turn_back(&mut self, packet: &Packet) {
        let &Packet { sender, to, takes, copy_for: None, .. } = packet else { return };
        let Some(host) = self.host_of(&to.into()) else { return };
        let at = self.now + takes;
        self.plan(at, Happening::Unreachable { host, at: sender, of: to });
    }

    /// Only a connected socket is told (udp(7)).
    pub(super) fn refuse_packet(&mut self, id: BoxId, of: SocketAddr) {
        let Some(socket) = self.boxes.get_mut(&id).filter(|socket| socket.peer == Some(of)) else { return };
        socket.error = Some(Errno::ConnectionRefused);
        let (host, local) = (socket.host, socket.local);
        self.note(host, format_args!("{local} hears that nobody is at {of}"));
        self.tell_box(id, READABLE);
    }

    /// The next one, or its first bytes: the rest is lost.
    pub(crate) fn recv_packet(&mut self, id: BoxId, buf: &mut [u8]) -> Result<(usize, SocketAddr), Errno> {
        self.operate_box(id, "recv", READABLE)?;
        self.nudge_by_chance(id);
        let socket = self.boxes.get_mut(&id).expect("an open socket");
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let (from, bytes) = socket.inbox.pop_front().ok_or(Errno::Again)?;
        socket.held -= cost(&bytes);
        let taken = bytes.len().min(buf.len());
        buf[..taken].copy_from_slice(&bytes[..taken]);
        let (host, local) = (socket.host, socket.local);
        self.machines[host].bytes += taken as u64;
        self.note(host, format_args!("{local} receives {taken} of a datagram of {} bytes from {from}", bytes.len()));
        Ok((taken, from))
    }

    /// An injected EAGAIN promises an event, or the socket would sleep for ever; for writing, to a socket that asks for it.
    fn operate_box(&mut self, id: BoxId, what: &str, ready: Flags) -> Result<(), Errno> {
        let operated = self.operate(self.boxes[&id].host, what);
        if operated == Err(Errno::Again) {
            let soon = self.now + BLOCKED;
            if ready.has_any(WRITABLE) {
                self.boxes.get_mut(&id).expect("an open socket").blocked_until = soon;
            }
            self.plan(soon, Happening::LookAtBox { at: id, ready });
        }
        operated
    }
}

fn cost(bytes: &[u8]) -> usize {
    bytes.len().max(COST_MIN)
}

fn later(than: Duration, rng: &mut Rng) -> Duration {
    than.saturating_add(Duration::from_nanos(rng.u64(1..nanos(LATE))))
}

fn of_sender(from: SocketAddr) -> u64 {
    let ip = match from.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    mix(mix(ip as u64 ^ (ip >> 64) as u64) ^ u64::from(from.port()))
}
