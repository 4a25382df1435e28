//! Datagram sockets, as boxes into which packets fall: where each one is, whom it hears, its groups. `packets` has what
//! passes from one to another.

use super::{
    super::{super::Interface, errno::Errno},
    EPHEMERAL, EndId, HostId, Network,
    chance::CHANCES,
};
use crate::{address::Address, flags::*, time::Time, world::BindHow};
use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Its host, and its number on that host, with a bit that tells it from an end of a stream.
pub(crate) type BoxId = EndId;

const BOX: BoxId = 1 << 61;

/// The one interface that each host has.
const INTERFACE: u32 = 1;

pub(super) struct PacketBox {
    pub(super) host: HostId,
    pub(super) token: usize,
    pub(super) local: SocketAddr,
    /// The only peer that it hears.
    pub(super) peer: Option<SocketAddr>,
    pub(super) only_v6: bool,
    pub(super) broadcasts: bool,
    reuses_port: bool,
    pub(super) groups: BTreeSet<IpAddr>,
    pub(super) inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    /// What the inbox holds, in the way it is counted.
    pub(super) held: usize,
    /// Its own, if it was asked for.
    pub(super) window: Option<usize>,
    /// Reported once, by whatever comes first.
    pub(super) error: Option<Errno>,
    /// It is registered for writing.
    wants_writable: bool,
    /// It has no room for what is sent until then.
    pub(super) blocked_until: Time,
    /// How often each chance was asked about.
    pub(super) asked: [u32; CHANCES],
}

impl PacketBox {
    /// Whether something that is sent to this address is for this box, as far as the address tells.
    pub(super) fn is_at(&self, to: SocketAddr) -> bool {
        self.local == to || is_one_of(to, self.local, self.only_v6)
    }

    /// A connected socket hears nobody but its peer.
    pub(super) fn hears(&self, from: SocketAddr) -> bool {
        self.peer.is_none_or(|peer| peer == from)
    }
}

impl Network {
    /// Where it is, and to whom it is connected.
    pub(crate) fn bind(
        &mut self,
        host: HostId,
        how: &BindHow,
        token: usize,
    ) -> Result<(BoxId, SocketAddr, Option<SocketAddr>), Errno> {
        self.operate(host, "bind")?;
        self.spend_socket(host)?;
        let peer = how.peer.as_ref().map(ip_address).transpose()?;
        let at = how.at.as_ref().map(ip_address).transpose()?;
        let mut socket = PacketBox {
            host,
            token,
            local: at.unwrap_or_else(|| every_like(peer)),
            peer: None,
            only_v6: how.v6only == Some(true),
            broadcasts: how.broadcast,
            reuses_port: how.reuse_port,
            groups: BTreeSet::new(),
            inbox: VecDeque::new(),
            held: 0,
            window: how.recv_buffer,
            error: None,
            wants_writable: false,
            blocked_until: Time::default(),
            asked: [0; CHANCES],
        };
        self.settle_address(&mut socket)?;
        if let Some(peer) = peer {
            let (local, peer) = self.path(&socket, peer)?;
            socket.peer = Some(peer);
            if socket.local.ip().is_unspecified() {
                socket.local = local;
            }
        }
        let (local, peer) = (socket.local, socket.peer);
        let machine = &mut self.machines[host];
        machine.sockets += 1;
        machine.binds += 1;
        let id = BOX | (host as BoxId) << 32 | BoxId::from(machine.binds);
        self.boxes.insert(id, socket);
        match peer {
            Some(peer) => self.note(host, format_args!("takes datagrams on {local} from {peer}")),
            None => self.note(host, format_args!("takes datagrams on {local}")),
        }
        Ok((id, local, peer))
    }

    /// Makes sure that the host has its address, and nobody else has its port, unless all of them have agreed to that.
    fn settle_address(&mut self, socket: &mut PacketBox) -> Result<(), Errno> {
        let ip = socket.local.ip();
        let is_everybodys = ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip);
        if !(is_everybodys || self.machines[socket.host].is_anywhere || self.ip_of(socket.host) == ip) {
            return Err(Errno::AddressNotAvailable);
        }
        if socket.local.port() != 0 {
            return if self.is_taken(socket) { Err(Errno::AddressInUse) } else { Ok(()) };
        }
        for _ in EPHEMERAL..=u16::MAX {
            let next = &mut self.machines[socket.host].next_box_port;
            socket.local.set_port(*next);
            *next = next.checked_add(1).unwrap_or(EPHEMERAL);
            if !self.is_taken(socket) {
                return Ok(());
            }
        }
        Err(Errno::AddressInUse)
    }

    fn is_taken(&self, by: &PacketBox) -> bool {
        self.boxes.values().any(|other| {
            let is_same = match other.host == by.host {
                true => other.is_at(by.local) || by.is_at(other.local),
                false => other.local == by.local && !is_on_every_host(by.local.ip()),
            };
            is_same && !(other.reuses_port && by.reuses_port)
        })
    }

    /// The address that it sends from, and the one it sends to.
    pub(super) fn path(&self, socket: &PacketBox, to: SocketAddr) -> Result<(SocketAddr, SocketAddr), Errno> {
        let host = socket.host;
        let to = self.destination(host, canonical(to));
        let (ours, own) = (socket.local.ip(), self.ip_of(host));
        match (ours.is_ipv4(), to.is_ipv4()) {
            (true, false) => return Err(Errno::FamilyNotSupported),
            (false, true) if socket.only_v6 || !ours.is_unspecified() => return Err(Errno::NetworkUnreachable),
            _ => {}
        }
        if is_broadcast(to.ip()) && !socket.broadcasts {
            return Err(Errno::AccessDenied);
        }
        let from = match () {
            () if !is_on_every_host(ours) => ours,
            () if own.is_ipv4() == to.is_ipv4() => own,
            () if self.machines[host].is_anywhere => Ipv6Addr::LOCALHOST.into(),
            () => return Err(Errno::NetworkUnreachable),
        };
        Ok((SocketAddr::new(from, socket.local.port()), to))
    }

    /// Where it is, if it still exists.
    pub(crate) fn box_address(&self, id: BoxId) -> Option<SocketAddr> {
        self.boxes.get(&id).map(|socket| socket.local)
    }

    pub(crate) fn is_box_connected(&self, id: BoxId) -> bool {
        self.boxes.get(&id).is_some_and(|socket| socket.peer.is_some())
    }

    pub(crate) fn close_box(&mut self, id: BoxId) {
        let Some(socket) = self.boxes.remove(&id) else { return };
        self.machines[socket.host].sockets -= 1;
        self.machines[socket.host].ready.remove(&socket.token);
        self.note(socket.host, format_args!("takes no more datagrams on {}", socket.local));
    }

    pub(crate) fn join_group(&mut self, id: BoxId, group: IpAddr, on: Interface) -> Result<(), Errno> {
        let host = self.boxes[&id].host;
        let has_it = match on {
            Interface::Any => true,
            Interface::Index(index) => index == 0 || index == INTERFACE,
            Interface::Address(ip) => ip.is_unspecified() || self.machines[host].is_anywhere || self.ip_of(host) == ip,
        };
        if !has_it {
            return Err(Errno::NoDevice);
        }
        let socket = self.boxes.get_mut(&id).expect("an open socket");
        if group.is_ipv6() && socket.local.is_ipv4() {
            return Err(Errno::ProtocolNotAvailable);
        }
        if !socket.groups.insert(group) {
            return Err(Errno::AddressInUse);
        }
        let local = socket.local;
        self.note(host, format_args!("{local} joins {group}"));
        Ok(())
    }

    pub(crate) fn leave_group(&mut self, id: BoxId, group: IpAddr) -> Result<(), Errno> {
        let socket = self.boxes.get_mut(&id).expect("an open socket");
        if !socket.groups.remove(&group) {
            return Err(Errno::AddressNotAvailable);
        }
        let (host, local) = (socket.host, socket.local);
        self.note(host, format_args!("{local} leaves {group}"));
        Ok(())
    }

    /// It is registered anew, and so it is told what is so now (epoll_ctl(2)).
    pub(crate) fn want_writable(&mut self, id: BoxId, on: bool) {
        self.boxes.get_mut(&id).expect("an open socket").wants_writable = on;
        self.tell_box(id, Flags::default());
    }

    /// An event for whatever has it registered, if there is anything to report: with everything that is so at that moment.
    pub(super) fn tell_box(&mut self, id: BoxId, mut ready: Flags) {
        let Some(socket) = self.boxes.get(&id) else { return };
        ready.insert_if(READABLE, !socket.inbox.is_empty() || socket.error.is_some());
        ready.insert_if(FAILED, socket.error.is_some());
        ready.insert_if(WRITABLE, self.now >= socket.blocked_until);
        if !socket.wants_writable {
            ready.remove(WRITABLE);
        }
        if ready.has_any(READABLE | WRITABLE | FAILED) {
            super::merge(&mut self.machines[socket.host].ready, socket.token, ready);
        }
    }
}

/// Every address of a family.
fn every_like(peer: Option<SocketAddr>) -> SocketAddr {
    match peer {
        Some(SocketAddr::V6(_)) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        _ => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    }
}

/// The only addresses that there are.
fn ip_address(address: &Address) -> Result<SocketAddr, Errno> {
    address.ip().map(canonical).ok_or(Errno::FamilyNotSupported)
}

/// IPv4 as IPv4, and nothing but address and port.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Of the network that a host is in (RFC 919).
pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    ip == Ipv4Addr::BROADCAST
}

/// It may stand for any host, and so it is nobody's own.
fn is_on_every_host(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip)
}

/// As in `opening` for listeners.
fn is_one_of(address: SocketAddr, every: SocketAddr, only_v6: bool) -> bool {
    super::opening::is_one_of(&Address::Ip(address), &Address::Ip(every), only_v6)
}
