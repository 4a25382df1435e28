//! What is done: connecting, looking up, listening.

use super::{
    checks::with_hall,
    plays::FULL,
    run::{NAMES, Site},
    securing::Secured,
    shadow::{Alive, Conn, Dialect, Hall, Model, Peer, Why, promise},
};
use mainspring::{Connect, Endian, Listen, Net, Refusal, Width, testing::NameFate};
use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

impl Model {
    pub(super) fn some_dialect(&mut self) -> Dialect {
        match self.dice.below(10) {
            0 => {
                let width = self.dice.pick(&[Width::U8, Width::U16, Width::U32, Width::U64]);
                Dialect::Prefixed(width, self.dice.pick(&[Endian::Big, Endian::Little]))
            }
            1 => Dialect::Netstrings,
            _ => Dialect::Raw,
        }
    }

    pub(super) fn connect(&mut self, host: usize, net: &mut Net<'_, Site>) {
        if self.places[host].conns.len() >= 6 {
            return;
        }
        let there = self.dice.below(self.places.len()) + 1;
        let target = match self.dice.below(60) {
            0 => format!("10.0.9.{}:1", 1 + self.dice.below(4)),
            1 => format!("10.0.0.{there}:9"),
            2 => "nowhere.example:80".to_owned(),
            3 => "unix:/nowhere".to_owned(),
            _ => format!("10.0.0.{there}:{}", 1 + self.dice.below(2)),
        };
        let (to, port) = target.rsplit_once(':').unwrap_or_default();
        let is_there = to == format!("10.0.0.{there}");
        let port = port.parse().unwrap_or(0);
        let by_name = self.dice.one_in(5);
        let number = self.conns.len() as u16;
        let own = match by_name {
            true => SocketAddr::new([10, 1, (number >> 8) as u8, number as u8].into(), 0),
            false => SocketAddr::new([10, 0, 0, host as u8 + 1].into(), 20_000 + number),
        };
        let (target, is_there, port) = if by_name {
            let name = self.some_name(there);
            let port = 1 + self.dice.below(2) as u16;
            (format!("{name}:{port}"), true, port)
        } else {
            (target, is_there, port)
        };
        let options = Connect::new().local(own);
        let (mut options, speaks_tls, is_wrong) = self.connect_by_tls(if is_there { there - 1 } else { 99 }, port, options);
        let timeout = self.dice.one_in(4).then(|| self.some_delay());
        options = timeout.into_iter().fold(options, Connect::timeout);
        let owner = self.some_owner(host, 12);
        let owner_key = owner.and_then(|owner| self.conns[owner].key);
        options = owner_key.into_iter().fold(options, Connect::owner);
        let is_orphan = owner_key.is_some_and(|key| !net.is_open(key));
        let id = self.conns.len();
        self.story.note(|| format!("      {id}, of {owner:?}, connects from host {host} to {target}"));
        let key = net.connect_with(target, options, Peer { id, life: 0, _alive: Alive::one_more(&self.alive) });
        if net.peer(key).is_none() {
            let place = &self.places[host];
            promise!(self.story, place.is_shutting_down || place.was_drained, "nothing was opened for {id}");
            return;
        }
        let (speaks, hears) = (self.some_dialect(), self.some_dialect());
        let place = &self.places[host];
        let mut conn = Conn::new(host, false, place.marks, speaks, hears);
        conn.gives_up_at = Some(net.now() + timeout.unwrap_or(place.connect_max));
        conn.owner = owner;
        conn.secured = if speaks_tls { Secured::Yes } else { Secured::No };
        conn.is_muddled = is_wrong;
        self.conns.push(conn);
        if is_orphan {
            self.breaks_off(id, Why::Abort);
        }
        self.figures.connections += 1;
        self.introduce(id, key);
        self.clients.insert(own, id);
        self.observe(id, net);
    }

    /// One in this many has one.
    fn some_owner(&mut self, host: usize, one_in: usize) -> Option<usize> {
        let all = &self.places[host].conns;
        let has_one = self.ties.one_in(one_in) && !all.is_empty();
        has_one.then(|| self.ties.pick(all))
    }

    pub(super) fn client_at(&self, addr: SocketAddr) -> Option<usize> {
        self.clients.get(&addr).or_else(|| self.clients.get(&SocketAddr::new(addr.ip(), 0))).copied()
    }

    /// Mostly one that leads to a host.
    pub(super) fn some_name(&mut self, there: usize) -> String {
        let (kind, ..) = if self.dice.one_in(3) { self.dice.pick(NAMES) } else { self.dice.pick(&NAMES[..3]) };
        format!("{kind}{there}.test")
    }

    pub(super) fn look_up(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let there = self.dice.below(self.places.len()) + 1;
        let kind = self.dice.below(NAMES.len() + 2);
        let name = match NAMES.get(kind) {
            Some((kind, ..)) => format!("{kind}{there}.test"),
            None => ["10.0.0.1", "a..b"][kind - NAMES.len()].to_owned(),
        };
        let place = &mut self.places[host];
        let number = place.lookups_so_far;
        place.lookups_so_far += 1;
        let is_kept = !place.is_shutting_down;
        if is_kept {
            place.lookups.insert(number);
        }
        let may_be_dropped = place.is_shutting_down || place.was_drained;
        self.story.note(|| format!("      host {host} looks {name} up, {number}"));
        let token = Alive::one_more(&self.alive);
        let timer = net.resolve(&name, move |net, site, found| {
            let _token = &token;
            let shared = Rc::clone(&site.model);
            let model = &mut *shared.borrow_mut();
            model.story.note(|| format!("   lookup {number} of host {}: {found:?}", site.host));
            let was_due = model.places[site.host].lookups.remove(&number);
            promise!(model.story, was_due, "lookup {number} of host {} was told, and nobody waited", site.host);
            let own = |ip: &IpAddr| *ip == IpAddr::from([10, 0, 0, there as u8]);
            match (NAMES.get(kind), found) {
                (Some((.., Some(NameFate::NotFound | NameFate::TryAgain | NameFate::Silent))), Ok(found)) => {
                    model.story.breaks(format!("lookup {number} found {found:?}"));
                }
                (Some((_, before, _)), Ok(found)) => {
                    let is_all = found.len() == before.len() + 1 && found.last().is_some_and(own);
                    promise!(model.story, is_all, "lookup {number} found {found:?}");
                }
                (None, found) => {
                    let is_literal = kind == NAMES.len();
                    promise!(model.story, found.is_ok() == is_literal, "lookup {number}, which asks nobody, found {found:?}");
                }
                (Some(_), Err(_)) => {}
            }
            model.act_in_job(site.host, net);
        });
        if self.dice.one_in(4) {
            let answer = net.cancel(timer);
            self.places[host].lookups.remove(&number);
            promise!(self.story, answer || may_be_dropped, "lookup {number} of host {host} could not be taken back");
        }
    }

    pub(super) fn listen_at(&mut self, host: usize, net: &mut Net<'_, Site>, port: u16) {
        let options = match self.dice.below(6) {
            0 => Listen::new().connections_max(1 + self.dice.below(3), FULL),
            3 => Listen::new().per_peer_max(1 + self.dice.below(3), FULL),
            1 => Listen::new().accepts_max(1 + self.dice.below(3) as u64),
            2 => Listen::new().backlog(1),
            _ => Listen::new(),
        };
        let mut hall = self.some_hall();
        hall.owner = self.some_owner(host, 6);
        let owner = hall.owner.and_then(|owner| self.conns[owner].key);
        let is_orphan = owner.is_some_and(|key| !net.is_open(key));
        let options = owner.into_iter().fold(options, Listen::owner);
        let options = with_hall(options, &hall);
        let (options, speaks_tls) = self.listen_by_tls(host, port, options);
        hall.speaks_tls = speaks_tls;
        hall.opened = Some(net.now());
        let number = self.halls.len();
        self.halls.push(hall);
        self.places[host].listeners.retain(|&(key, _)| net.is_open(key));
        let is_taken = self.places[host].listeners.iter().any(|&(_, taken)| taken == port);
        let token = Alive::one_more(&self.alive);
        let listening = net.listen_with(format!("10.0.0.{}:{port}", host + 1), options, move |net, site, peer| {
            let _token = &token;
            let shared = Rc::clone(&site.model);
            let model = &mut *shared.borrow_mut();
            model.admit(site.host, net, peer.ip(), number)
        });
        self.story.note(|| format!("      host {host} listens on {port}: {listening:?}"));
        promise!(self.story, !(is_orphan && listening.is_ok()), "host {host} listens for one that has begun to end");
        self.halls[number].key = listening.as_ref().ok().copied();
        if let Ok(key) = listening {
            let place = &mut self.places[host];
            place.listeners.push((key, port));
            let is_new = place.keys.insert(key);
            promise!(self.story, is_new, "{key} was another's before it was a listener's");
            promise!(self.story, !is_taken, "port {port} of host {host} is listened on twice");
        }
    }

    pub(super) fn some_hall(&mut self) -> Hall {
        let mut rates = |in_all| [(); 2].map(|()| self.dice.one_in(in_all).then(|| self.some_rate()));
        let (rates, total_rates) = (rates(6), rates(3));
        let marks = self.dice.one_in(6).then(|| self.some_marks());
        let limits = [(); 3].map(|()| self.dice.one_in(12).then(|| self.some_delay()));
        let pauses_at = self.later.one_in(6).then(|| 1 + self.later.below(3));
        let admits = self.ties.one_in(6).then(|| 1 + self.ties.below(3));
        Hall { rates, total_rates, marks, limits, pauses_at, admits, ..Hall::default() }
    }

    /// A factory is asked.
    pub(super) fn admit(
        &mut self,
        host: usize,
        net: &mut Net<'_, Site>,
        peer: Option<SocketAddr>,
        hall: usize,
    ) -> Result<Peer, Refusal> {
        self.look_at_pairs(host, net);
        if !self.quiet.get() && self.dice.one_in(10) {
            self.act(host, net);
        }
        let is_over = self.halls[hall].pauses_at.is_some_and(|most| self.guests_of(hall) >= most);
        let is_over = is_over && !self.places[host].was_drained; // then all who wait are let in
        promise!(self.story, !is_over, "somebody is let in where {} are, and the listener pauses", self.guests_of(hall));
        let Hall { key, admits, admitted, .. } = self.halls[hall];
        promise!(self.story, net.accepting() == key, "the factory of {key:?} works for {:?}", net.accepting());
        promise!(self.story, admits.is_none_or(|most| admitted < most), "{admitted} were let in where {admits:?} are");
        let client = peer.and_then(|addr| self.client_at(addr));
        if let Some(client) = client {
            promise!(self.story, self.conns[client].peer.is_none(), "{client} was accepted twice");
        }
        if self.dice.one_in(20) {
            let words = self.dice.pick(&["", "no\r\n", "not today, and not tomorrow\n"]);
            let ghost = self.add_ghost(words.as_bytes());
            if let Some(client) = client {
                self.conns[ghost].is_muddled = self.conns[client].is_muddled;
                self.conns[client].peer = Some(ghost);
            }
            return Err(Refusal::from(words));
        }
        let id = self.conns.len();
        self.story.note(|| format!("      {id} is accepted for {client:?}"));
        let (speaks, hears) =
            client.map_or((Dialect::Raw, Dialect::Raw), |client| (self.conns[client].hears, self.conns[client].speaks));
        let Hall { rates, marks, limits: [idle, stalled, deadline], .. } = self.halls[hall];
        let mut conn = Conn::new(host, true, marks.map_or(self.places[host].marks, |(_, marks)| marks), speaks, hears);
        (conn.peer, conn.hall, conn.owner) = (client, Some(hall), self.halls[hall].owner);
        conn.secured = if self.halls[hall].speaks_tls { Secured::Yes } else { Secured::No };
        conn.is_muddled = client.is_some_and(|client| self.conns[client].is_muddled);
        self.halls[hall].admitted += 1;
        conn.rates = rates.map(|rate| Some((rate?, net.now(), 0)));
        conn.limits = [idle, stalled, deadline, None].map(|after| Some((after?, net.now())));
        self.conns.push(conn);
        self.figures.connections += 1;
        if let Some(client) = client {
            self.conns[client].peer = Some(id);
        }
        Ok(Peer { id, life: 0, _alive: Alive::one_more(&self.alive) })
    }

    /// How many of its connections have not been closed.
    pub(super) fn guests_of(&self, hall: usize) -> usize {
        self.conns.iter().filter(|conn| conn.hall == Some(hall) && conn.closed.is_none()).count()
    }

    pub(super) fn close_listener(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let place = &mut self.places[host];
        if place.listeners.is_empty() {
            return;
        }
        let (key, port) = place.listeners.swap_remove(self.dice.below(place.listeners.len()));
        let was_open = net.is_open(key);
        let answer = if self.dice.one_in(2) { net.close(key) } else { net.abort(key) };
        self.story.note(|| format!("      host {host} listens no more on {port}"));
        promise!(self.story, answer == was_open && !net.is_open(key), "a listener was closed, and says {answer}");
    }
}
