//! How streams begin: listening, connecting, accepting, as sockets see it. `streams` has what moves on a stream once it is
//! there.

use super::{
    super::errno::Errno,
    ACCEPTING, EPHEMERAL, End, EndId, HostId, Network, Port, PortId,
    agenda::Happening,
    chance::{CHANCES, Chance},
    merge,
};
use crate::{
    address::Address,
    flags::*,
    time::Time,
    world::{ListenHow, Ways},
};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};

/// What happens when something connects to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// ECONNREFUSED: nobody listens there.
    Refused,
    /// EHOSTUNREACH.
    Unreachable,
    /// Nothing ever comes back.
    Silent,
}

impl Network {
    pub(crate) fn listen(
        &mut self,
        host: HostId,
        at: &Address,
        how: ListenHow,
        token: usize,
    ) -> Result<(PortId, Address), Errno> {
        self.operate(host, "listen")?;
        self.spend_socket(host)?;
        let Address::Ip(mut addr) = at.clone() else { return Err(Errno::AddressNotAvailable) };
        if addr.port() == 0 {
            addr.set_port(self.choose_port(host));
        }
        let has_it = self.machines[host].is_anywhere || addr.ip().is_unspecified() || self.ip_of(host) == addr.ip();
        if !has_it {
            return Err(Errno::AddressNotAvailable);
        }
        let local = Address::Ip(addr);
        let only_v6 = how.v6only == Some(true);
        let is_taken = |(taken, port): &(Address, Port)| match port.host == host {
            true => *taken == local || is_one_of(&local, taken, port.only_v6) || is_one_of(taken, &local, only_v6),
            false => *taken == local && !addr.ip().is_unspecified(),
        };
        if self.ports.values().any(is_taken) {
            return Err(Errno::AddressInUse);
        }
        self.port_names += 1;
        self.machines[host].sockets += 1;
        let backlog = (how.backlog as usize).max(1);
        let port = Port { host, token, backlog, only_v6, waiting: VecDeque::new() };
        self.ports.insert(self.port_names, (local.clone(), port));
        self.note(host, format_args!("listens on {local}"));
        Ok((self.port_names, local))
    }

    pub(crate) fn stop_listening(&mut self, id: PortId) {
        let Some((_, port)) = self.ports.remove(&id) else { return };
        self.machines[port.host].sockets -= 1;
        self.machines[port.host].ready.remove(&port.token);
        for waiting in port.waiting {
            self.close(waiting, true);
        }
    }

    pub(crate) fn accept(&mut self, id: PortId, token: usize) -> Result<(EndId, Address), Errno> {
        let Some((_, port)) = self.ports.get(&id) else { return Err(Errno::Again) };
        let (host, listener) = (port.host, port.token);
        if let Err(errno) = self.operate(host, "accept") {
            let soon = self.now + Duration::from_millis(1);
            let ready = READABLE;
            self.plan(soon, Happening::Nudge { host, token: listener, ready });
            return Err(errno);
        }
        self.spend_socket(host)?;
        self.take_waiting(id, host, token)
    }

    /// The descriptor that is kept for this comes on top of the host's number, and is gone if more are open than there may
    /// be.
    pub(crate) fn accept_on_spare(&mut self, id: PortId, token: usize) -> Result<(EndId, Address), Errno> {
        let Some((_, port)) = self.ports.get(&id) else { return Err(Errno::Again) };
        let host = port.host;
        let machine = &self.machines[host];
        if machine.sockets > machine.sockets_max {
            return Err(Errno::TooManyFiles);
        }
        self.take_waiting(id, host, token)
    }

    fn take_waiting(&mut self, id: PortId, host: HostId, token: usize) -> Result<(EndId, Address), Errno> {
        let Some(end) = self.ports.get_mut(&id).and_then(|(_, port)| port.waiting.pop_front()) else { return Err(Errno::Again) };
        let accepted = self.ends.get_mut(&end).expect("it waits, so it is there");
        accepted.token = Some(token);
        let remote = accepted.remote.clone();
        self.keep_descriptor(end, true);
        let mut ready = WRITABLE;
        ready.insert_if(READABLE, self.is_readable(end));
        self.tell(end, ready);
        self.note(host, format_args!("accepts {remote}"));
        Ok((end, remote))
    }

    pub(crate) fn connect(&mut self, host: HostId, to: &Address, from: Option<SocketAddr>, token: usize) -> Result<EndId, Errno> {
        self.operate(host, "connect")?;
        self.spend_socket(host)?;
        let asked = to;
        let Address::Ip(to) = *asked else { return Err(Errno::AddressNotAvailable) };
        let to = Address::Ip(self.destination(host, to));
        let mut local = from.unwrap_or_else(|| SocketAddr::new(self.ip_of(host), 0));
        if local.ip().is_unspecified() {
            local.set_ip(self.ip_of(host));
        }
        self.homes.insert(local.ip(), host);
        if local.port() == 0 {
            local.set_port(self.choose_port(host));
        }
        self.machines[host].connects += 1;
        let client = (host as EndId) << 32 | EndId::from(self.machines[host].connects);
        self.new_end(client, host, Address::Ip(local), to.clone());
        self.ends.get_mut(&client).expect("just made").token = Some(token);
        self.note(host, format_args!("connects to {to}"));
        let (refused, silent) = (self.weather.refusals, self.weather.silences);
        let fate = self.fates.get(asked).or_else(|| self.fates.get(&to)).copied();
        let is_silent = fate == Some(Fate::Silent) || self.strikes(client, Chance::Silence, silent).is_some();
        let errno = match fate {
            Some(Fate::Silent) => None,
            Some(Fate::Refused) => Some(Errno::ConnectionRefused),
            Some(Fate::Unreachable) => Some(Errno::HostUnreachable),
            _ if self.strikes(client, Chance::Refusal, refused).is_some() => Some(Errno::ConnectionRefused),
            _ if self.host_of(&to).is_none() => Some(Errno::HostUnreachable),
            _ => None,
        };
        if let Some(errno) = errno {
            self.send_after(client, 0, Happening::Refuse { client, errno });
        } else if !is_silent {
            self.send_after(client, 0, Happening::Knock { client, to });
        }
        Ok(client)
    }

    pub(super) fn knock(&mut self, client: EndId, to: &Address) {
        let Some(end) = self.ends.get(&client) else { return };
        let remote = end.local.clone();
        let Some(id) = self.listener_at(to, end.host) else {
            self.send_after(client, 0, Happening::Refuse { client, errno: Errno::ConnectionRefused });
            return;
        };
        let (_, port) = self.ports.get(&id).expect("just found");
        let (host, token) = (port.host, port.token);
        if port.waiting.len() >= port.backlog {
            // As on Linux: it is not answered, and the client asks again.
            let again = self.now + Duration::from_secs(1);
            self.plan(again, Happening::Knock { client, to: to.clone() });
            return;
        }
        let server = client | ACCEPTING;
        self.new_end(server, host, to.clone(), remote);
        self.keep_descriptor(server, false); // it costs one when it is accepted
        for (end, peer) in [(server, client), (client, server)] {
            self.ends.get_mut(&end).expect("both are there").peer = Some(peer);
        }
        self.ends.get_mut(&server).expect("just made").is_connected = true;
        self.ports.get_mut(&id).expect("just found").1.waiting.push_back(server);
        merge(&mut self.machines[host].ready, token, READABLE);
        self.send_after(server, 0, Happening::Welcome { client });
    }

    /// Who listens there: at exactly this address, or at every address of a machine that has it. Of two that have every
    /// address it is the other one.
    fn listener_at(&self, to: &Address, from: HostId) -> Option<PortId> {
        let ip = to.ip()?.ip();
        let has_it = |host: HostId| self.ip_of(host) == ip || (self.machines[host].is_anywhere && host != from);
        let just_there = self.ports.iter().find(|(_, (at, _))| at == to);
        let everywhere = self.ports.iter().filter(|(_, (at, port))| is_one_of(to, at, port.only_v6) && has_it(port.host));
        just_there.or_else(|| everywhere.min_by_key(|(_, (_, port))| port.host == from)).map(|(&id, _)| id)
    }

    pub(super) fn welcome(&mut self, client: EndId) {
        if let Some(end) = self.ends.get_mut(&client).filter(|end| !end.is_broken) {
            end.is_connected = true;
            self.tell(client, WRITABLE);
        }
    }

    pub(crate) fn connected(&mut self, id: EndId) -> Result<bool, Errno> {
        let host = self.ends[&id].host;
        self.operate(host, "connected").inspect_err(|_| self.note_loss(id))?;
        let end = self.ends.get_mut(&id).expect("an open socket");
        match end.error.take() {
            Some(errno) => Err(errno),
            None => Ok(end.is_connected),
        }
    }

    pub(super) fn new_end(&mut self, id: EndId, host: HostId, local: Address, remote: Address) {
        self.machines[host].sockets += 1;
        let end = End {
            host,
            token: None,
            has_descriptor: true,
            ways: Ways::Both,
            local,
            remote,
            peer: None,
            is_connected: false,
            inbox: VecDeque::new(),
            arriving: 0,
            fin_arrived: false,
            fin_sent: false,
            error: None,
            is_broken: false,
            hidden: None,
            is_awaited: false,
            busy_until: Time::default(),
            asked: [0; CHANCES],
        };
        self.ends.insert(id, end);
    }

    fn keep_descriptor(&mut self, id: EndId, on: bool) {
        let end = self.ends.get_mut(&id).expect("it is there");
        let sockets = &mut self.machines[end.host].sockets;
        *sockets = if on { *sockets + 1 } else { *sockets - 1 };
        end.has_descriptor = on;
    }

    /// A descriptor, if the host still has one.
    pub(super) fn spend_socket(&mut self, host: HostId) -> Result<(), Errno> {
        let machine = &self.machines[host];
        if machine.sockets >= machine.sockets_max { Err(Errno::TooManyFiles) } else { Ok(()) }
    }

    fn choose_port(&mut self, host: HostId) -> u16 {
        let machine = &mut self.machines[host];
        let port = machine.next_port;
        machine.next_port = machine.next_port.checked_add(1).unwrap_or(EPHEMERAL);
        port
    }
}

/// Whether `every` stands for every address, and this is one of them. `::` has those of IPv4 too, unless it is told not to
/// (ipv6(7)).
pub(super) fn is_one_of(address: &Address, every: &Address, only_v6: bool) -> bool {
    let (Some(address), Some(every)) = (address.ip(), every.ip()) else { return false };
    let is_its_kind = address.is_ipv4() == every.is_ipv4() || (every.is_ipv6() && !only_v6);
    every.ip().is_unspecified() && is_its_kind && address.port() == every.port()
}
