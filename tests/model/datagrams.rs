//! What is done: datagrams. Each has a number and the bytes that belong to it, so what comes is known again: that somebody sent
//! it, to this one, just so, and how often. An empty one is as good as any other that the same one sent there.

use super::{
    chance::{Dice, words},
    run::Site,
    shadow::{Alive, Model, Why, promise},
};
use mainspring::{Address, Bind, Datagram, Full, Interface, Key, Net, Outcome, Reason, Scope, testing::Weather};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 1));

/// What a number takes.
const NUMBER: usize = 4;

/// What IPv4 carries at most.
const LARGEST: usize = 65_507;

/// A datagram counts as at least this much while it waits.
const COST_MIN: usize = 64;

/// How much is done in one run.
const PACKETS: u32 = 400;
const BYTES: usize = 400_000;

/// All of a run's, and what is left to be done.
pub(super) struct Datagrams {
    dice: Dice,
    /// One act in this many has to do with them; 0: none.
    pub(super) often: usize,
    pub(super) sockets: Vec<Udp>,
    packets: Vec<Packet>,
    packets_left: u32,
    bytes_left: usize,
    /// Now they may come twice.
    doubles: bool,
    /// Operations have failed on purpose, and not only with EAGAIN.
    pub(super) had_errors: bool,
}

impl Datagrams {
    pub(super) fn new(seed: u64, as_before: bool) -> Self {
        let mut dice = Dice(!seed.rotate_left(24));
        let often = if as_before { 0 } else { dice.pick(&[0, 3, 10, 40]) };
        Self {
            dice,
            often,
            sockets: Vec::new(),
            packets: Vec::new(),
            packets_left: PACKETS,
            bytes_left: BYTES,
            doubles: false,
            had_errors: false,
        }
    }
}

/// One socket.
pub(super) struct Udp {
    host: usize,
    key: Key,
    /// From where it sends.
    local: SocketAddr,
    /// It is bound to every address of its host.
    is_everywhere: bool,
    peer: Option<SocketAddr>,
    queue_max: usize,
    full: Full,
    largest: usize,
    /// Those that it is in, and those that it has ever been in.
    groups: BTreeSet<IpAddr>,
    had_groups: BTreeSet<IpAddr>,
    sent_to: Vec<Address>,
    /// To whom some were sent that the kernel refuses, each time.
    refused: Vec<Address>,
    /// Something has had to wait since `writable`.
    waits: bool,
    waits_for_quiet: bool,
    is_over: bool,
    /// The only reason that is left.
    must: Option<Why>,
    closed: Option<Why>,
}

struct Packet {
    by: usize,
    to: Address,
    bytes: usize,
    /// How often it may come to each.
    copies: usize,
    /// It did not leave at once.
    has_waited: bool,
    /// To whom, how often.
    came: BTreeMap<usize, usize>,
    /// In peace: to these it must have come.
    owed_to: Vec<usize>,
    is_refused: bool,
}

/// What has a number, and what belongs to it.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    match bytes {
        0 => Vec::new(),
        _ => [&(number as u32).to_be_bytes()[..], &words(number * 31, bytes - NUMBER)].concat(),
    }
}

/// What waits on it.
fn queued(key: Key, net: &Net<'_, Site>) -> usize {
    net.connections().into_iter().find(|one| one.key == key).map_or(0, |one| one.queued)
}

/// The datagram: it tells the model, and does what the model says.
struct Ear {
    id: usize,
    _alive: Alive,
}

impl Ear {
    fn called(
        &mut self,
        scope: &mut Scope<'_, Site>,
        site: &mut Site,
        name: &'static str,
        tell: impl FnOnce(&mut Model, &mut Scope<'_, Site>),
    ) -> Outcome {
        let shared = Rc::clone(&site.model);
        let model = &mut *shared.borrow_mut();
        if model.is_over_for_all() {
            return Ok(());
        }
        model.enter_datagram(self.id, scope, name);
        tell(model, scope);
        if model.is_over_for_all() || name == "closed" {
            return Ok(());
        }
        model.answer_datagram(self.id, scope)
    }
}

impl Datagram<Site> for Ear {
    fn received(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site, bytes: &[u8], from: &Address) -> Outcome {
        let id = self.id;
        self.called(scope, site, "received", |model, _| model.came(id, bytes, from, false))
    }

    fn oversized(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site, bytes: &[u8], from: &Address) -> Outcome {
        let id = self.id;
        self.called(scope, site, "oversized", |model, _| model.came(id, bytes, from, true))
    }

    fn failed(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site, to: &Address, error: io::Error) -> Outcome {
        let id = self.id;
        self.called(scope, site, "failed", |model, _| model.did_not_reach(id, to, &error))
    }

    fn writable(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site) -> Outcome {
        let id = self.id;
        self.called(scope, site, "writable", |model, scope| model.has_room(id, &scope.net))
    }

    fn draining(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site) -> Outcome {
        let id = self.id;
        self.called(scope, site, "draining", |model, scope| model.is_to_finish(id, scope))
    }

    fn closed(&mut self, scope: &mut Scope<'_, Site>, site: &mut Site, why: Reason) {
        let id = self.id;
        let _ = self.called(scope, site, "closed", |model, _| model.ended(id, &why));
    }
}

/// What callbacks bring.
impl Model {
    fn enter_datagram(&mut self, id: usize, scope: &mut Scope<'_, Site>, name: &'static str) {
        self.figures.callbacks += 1;
        self.look_at_pairs(self.udp(id).host, &mut scope.net);
        self.story.note(|| format!("   datagram socket {id} {name}"));
        let udp = &self.datagrams.sockets[id];
        promise!(self.story, udp.key == scope.key, "datagram socket {id} is called under another's key");
        promise!(self.story, udp.closed.is_none(), "{name} after `closed` of datagram socket {id}");
        let is_over = name != "closed" && (udp.is_over || !scope.net.is_open(scope.key));
        promise!(self.story, !is_over, "{name} of datagram socket {id}, which has begun to end");
    }

    fn came(&mut self, id: usize, bytes: &[u8], from: &Address, is_cut: bool) {
        self.story.note(|| format!("   {} bytes from {from}", bytes.len()));
        self.figures.arrived += 1;
        let udp = &self.datagrams.sockets[id];
        let is_from_peer = udp.peer.is_none_or(|peer| Address::Ip(peer) == *from);
        promise!(self.story, is_from_peer, "datagram socket {id} is connected, and hears {from}");
        promise!(self.story, bytes.len() <= udp.largest, "{} bytes are more than {id} takes whole", bytes.len());
        let number = match bytes.first_chunk() {
            Some(number) => Some(u32::from_be_bytes(*number) as usize).filter(|_| udp.largest >= NUMBER),
            None => self.some_like(id, bytes, from, is_cut),
        };
        let Some(packet) = number.and_then(|number| self.datagrams.packets.get_mut(number)) else {
            return self.story.breaks(format!("{id} was given {} bytes from {from} that nobody sent", bytes.len()));
        };
        let (sender, udp) = (&self.datagrams.sockets[packet.by], &self.datagrams.sockets[id]);
        promise!(self.story, Address::Ip(sender.local) == *from, "{} sent it, and {id} has it from {from}", packet.by);
        promise!(self.story, udp.is_meant(&packet.to), "{id} has one that was sent to {}", packet.to);
        promise!(self.story, !packet.is_refused, "{id} has one of {} bytes to {}, which cannot be", packet.bytes, packet.to);
        let whole = payload(number.unwrap_or(0), packet.bytes);
        let is_whole = if is_cut { whole.len() > udp.largest && whole.starts_with(bytes) } else { whole == bytes };
        let is_long_enough = !is_cut || bytes.len() == udp.largest;
        promise!(self.story, is_whole && is_long_enough, "{id} has {} of {} bytes, or others", bytes.len(), whole.len());
        let times = packet.came.entry(id).or_default();
        *times += 1;
        promise!(self.story, *times <= packet.copies, "{number:?} came {times} times to {id}");
    }

    /// Without its number: one that may have been this.
    fn some_like(&self, id: usize, bytes: &[u8], from: &Address, is_cut: bool) -> Option<usize> {
        let Datagrams { sockets, packets, .. } = &self.datagrams;
        packets.iter().enumerate().position(|(number, packet)| {
            let has_come = packet.came.get(&id).copied().unwrap_or(0) >= packet.copies;
            let is_like = if is_cut { packet.bytes > bytes.len() } else { packet.bytes == bytes.len() };
            let is_its = Address::Ip(sockets[packet.by].local) == *from && sockets[id].is_meant(&packet.to);
            is_like && is_its && !has_come && !packet.is_refused && payload(number, packet.bytes).starts_with(bytes)
        })
    }

    fn did_not_reach(&mut self, id: usize, to: &Address, error: &io::Error) {
        self.story.note(|| format!("   {to}: {error}"));
        self.figures.failed += 1;
        let had_errors = self.datagrams.had_errors;
        let udp = &mut self.datagrams.sockets[id];
        let is_peer = udp.peer.is_some_and(|peer| Address::Ip(peer) == *to);
        let is_known = udp.sent_to.contains(to) || is_peer || (*to == Address::Fd && had_errors);
        promise!(self.story, is_known, "{id} has sent nothing to {to}, and that failed");
        if error.kind() == ErrorKind::ConnectionRefused {
            promise!(self.story, is_peer, "{id} hears that {to} refuses, and is not connected to it");
        } else if !had_errors {
            let known = udp.refused.iter().position(|refused| refused == to).map(|at| udp.refused.swap_remove(at));
            promise!(self.story, known.is_some(), "{id} has sent nothing to {to} that could fail, and that did: {error}");
        }
    }

    fn has_room(&mut self, id: usize, net: &Net<'_, Site>) {
        let udp = &mut self.datagrams.sockets[id];
        promise!(self.story, std::mem::take(&mut udp.waits), "`writable` of datagram socket {id}, where nothing waited");
        let waiting = queued(udp.key, net);
        promise!(self.story, waiting == 0, "`writable` of datagram socket {id}, where {waiting} bytes wait");
    }

    /// Mostly when it is quiet; or by itself, or when the grace is over.
    fn is_to_finish(&mut self, id: usize, scope: &mut Scope<'_, Site>) {
        let place = &self.places[self.udp(id).host];
        promise!(self.story, place.was_drained, "datagram socket {id} is to finish, and nobody has asked for that");
        if !self.datagrams.dice.one_in(4) {
            self.close_datagram_when_quiet(id, scope);
        }
    }

    fn close_datagram_when_quiet(&mut self, id: usize, scope: &mut Scope<'_, Site>) {
        self.story.note(|| format!("      datagram socket {id} is to close when it is quiet"));
        self.datagrams.sockets[id].waits_for_quiet = true;
        scope.close_when_quiet();
    }

    fn ended(&mut self, id: usize, why: &Reason) {
        let (had_errors, why) = (self.datagrams.had_errors, Why::of(why));
        let udp = &mut self.datagrams.sockets[id];
        (udp.closed, udp.is_over) = (Some(why), true);
        let place = &mut self.places[udp.host];
        place.datagrams_ended += 1;
        let may_be = match why {
            Why::Drained => udp.waits_for_quiet,
            Why::Shutdown => place.was_drained || place.is_shutting_down,
            Why::Io => had_errors,
            _ => false,
        };
        let is_right = udp.must.map_or(may_be, |must| must == why);
        promise!(self.story, is_right, "datagram socket {id} ends with {why:?}, and not {:?}", udp.must);
    }

    fn answer_datagram(&mut self, id: usize, scope: &mut Scope<'_, Site>) -> Outcome {
        if self.quiet.get() {
            return Ok(());
        }
        match self.datagrams.dice.below(20) {
            0..6 => {
                let bytes = self.some_length();
                self.send_datagram(id, scope, bytes);
            }
            6..8 => self.act(self.udp(id).host, &mut scope.net),
            8..10 => self.act_with_datagrams(self.udp(id).host, &mut scope.net),
            10 if self.datagrams.dice.one_in(4) => self.end_datagram(id, &mut scope.net),
            12 if self.datagrams.dice.one_in(8) => self.close_datagram_when_quiet(id, scope),
            11 if self.datagrams.dice.one_in(8) => {
                let udp = &mut self.datagrams.sockets[id];
                udp.is_over = true;
                udp.must.get_or_insert(Why::Failed);
                return Err("of its own".into());
            }
            _ => {}
        }
        Ok(())
    }

    fn send_datagram(&mut self, id: usize, scope: &mut Scope<'_, Site>, bytes: usize) {
        let to = self.some_address(self.udp(id).host);
        self.send_packet(id, &mut scope.net, bytes, &to);
    }

    fn udp(&self, id: usize) -> &Udp {
        &self.datagrams.sockets[id]
    }
}

impl Udp {
    /// Whether it gets what is sent there.
    fn is_meant(&self, to: &Address) -> bool {
        let Some(to) = to.ip() else { return false };
        to == self.local || (self.had_groups.contains(&to.ip()) && to.port() == self.local.port())
    }
}

/// What is done.
impl Model {
    pub(super) fn some_acts_with_datagrams(&mut self, host: usize, net: &mut Net<'_, Site>) {
        if self.datagrams.often > 0 && self.datagrams.dice.one_in(self.datagrams.often) {
            self.act_with_datagrams(host, net);
        }
    }

    pub(super) fn act_with_datagrams(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let choice = self.datagrams.dice.below(20);
        if choice < 4 {
            return self.bind(host, net);
        }
        let Some(id) = self.some_udp(host) else { return };
        match choice {
            4 => self.end_datagram(id, net),
            5 | 6 => self.join(id, net),
            7..10 => {
                let (to, count) = (self.some_address(host), 1 + self.datagrams.dice.below(20));
                (0..count).for_each(|_| self.send_packet(id, net, NUMBER, &to));
            }
            _ => {
                let (to, bytes) = (self.some_address(host), self.some_length());
                self.send_packet(id, net, bytes, &to);
            }
        }
    }

    /// One of the host's, that is there or was.
    fn some_udp(&mut self, host: usize) -> Option<usize> {
        let Datagrams { dice, sockets, .. } = &mut self.datagrams;
        let is_there = |udp: &Udp| udp.host == host && udp.closed.is_none();
        let open: Vec<usize> = (0..sockets.len()).filter(|&id| is_there(&sockets[id])).collect();
        if !open.is_empty() && !dice.one_in(20) {
            return Some(dice.pick(&open));
        }
        let id = dice.below(sockets.len());
        sockets.get(id).filter(|udp| udp.host == host).map(|_| id)
    }

    fn some_length(&mut self) -> usize {
        let dice = &mut self.datagrams.dice;
        match dice.below(20) {
            0 | 1 => 0,
            2..14 => NUMBER + dice.below(100),
            14..18 => NUMBER + dice.below(3_000),
            18 => dice.pick(&[LARGEST, LARGEST - 1, 20_000]),
            _ => dice.pick(&[LARGEST + 1, 70_000]),
        }
    }

    /// Somebody's, mostly.
    fn some_address(&mut self, host: usize) -> Address {
        let Datagrams { dice, sockets, .. } = &mut self.datagrams;
        let hosts = self.places.len();
        let text = match dice.below(20) {
            0 => "10.0.0.1:9".to_owned(),
            1 => "10.0.9.1:1".to_owned(),
            2 => ["[::1]:1", "255.255.255.255:1", "10.0.0.1:0"][dice.below(3)].to_owned(),
            3 | 4 => format!("{GROUP}:{}", 1 + dice.below(2)),
            5 => format!("10.0.0.{}:{}", host + 1, 1 + dice.below(2)),
            6..14 if !sockets.is_empty() => sockets[dice.below(sockets.len())].local.to_string(),
            _ => format!("10.0.0.{}:{}", 1 + dice.below(hosts), 1 + dice.below(2)),
        };
        Address::Ip(text.parse().expect("a literal address"))
    }

    /// Two that have a port, as far as chance and the network allow it.
    pub(super) fn bind_some(&mut self, host: usize, net: &mut Net<'_, Site>) {
        if self.datagrams.often > 0 {
            (0..3).for_each(|_| self.bind(host, net));
        }
    }

    fn bind(&mut self, host: usize, net: &mut Net<'_, Site>) {
        let is_there = |udp: &&Udp| udp.host == host && udp.closed.is_none();
        if self.datagrams.sockets.iter().filter(is_there).count() >= 4 {
            return;
        }
        let peer = self.datagrams.dice.one_in(3).then(|| self.some_address(host)).and_then(|to| to.ip());
        let dice = &mut self.datagrams.dice;
        let own = IpAddr::from([10, 0, 0, host as u8 + 1]);
        let at = dice.pick(&[own, Ipv4Addr::UNSPECIFIED.into()]);
        let at = SocketAddr::new(at, if peer.is_some() { 0 } else { 1 + dice.below(2) as u16 });
        let (queue_max, full) = dice.pick(&[
            (256 << 10, Full::DropNewest),
            (0, Full::DropNewest),
            (300, Full::DropNewest),
            (64, Full::DropOldest),
            (300, Full::DropOldest),
            (5_000, Full::Close),
        ]);
        let largest = dice.pick(&[65_535, 65_535, 65_535, 100, NUMBER, 0]);
        let options = Bind::new().queue(queue_max, full).largest(largest);
        let options = peer.into_iter().fold(options, |options, peer| options.peer(peer));
        let is_taken = self.datagrams.sockets.iter().filter(is_there).any(|udp| udp.local.port() == at.port());
        let id = self.datagrams.sockets.len();
        let bound = net.bind_with(at, options, Ear { id, _alive: Alive::one_more(&self.alive) });
        self.story.note(|| format!("      host {host} binds {at}, {peer:?}, as {id}: {bound:?}"));
        let Ok(key) = bound else { return };
        promise!(self.story, !is_taken, "{at} of host {host} is bound twice");
        let is_new = self.places[host].keys.insert(key);
        promise!(self.story, is_new, "{key} was another's before it was a datagram socket's");
        let Some(local) = net.local(key).and_then(|at| at.ip()) else {
            return self.story.breaks(format!("datagram socket {id} is nowhere"));
        };
        self.datagrams.sockets.push(Udp {
            host,
            key,
            local: SocketAddr::new(own, local.port()),
            is_everywhere: local.ip().is_unspecified(),
            peer,
            queue_max,
            full,
            largest,
            groups: BTreeSet::new(),
            had_groups: BTreeSet::new(),
            sent_to: Vec::new(),
            refused: Vec::new(),
            waits: false,
            waits_for_quiet: false,
            is_over: false,
            must: None,
            closed: None,
        });
    }

    fn join(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let udp = &mut self.datagrams.sockets[id];
        let is_open = net.is_open(udp.key);
        let was_in = udp.groups.contains(&GROUP);
        let leaves = self.datagrams.dice.one_in(3);
        let answer = match leaves {
            true => net.leave(udp.key, GROUP, Interface::Any),
            false => net.join(udp.key, GROUP, Interface::Any),
        };
        let expected = is_open && was_in == leaves;
        self.story.note(|| format!("      datagram socket {id} is to be in the group, {}: {answer:?}", !leaves));
        promise!(self.story, answer.is_ok() == expected, "{id} was in the group: {was_in}, leaves: {leaves}: {answer:?}");
        if answer.is_ok() {
            if leaves {
                udp.groups.remove(&GROUP)
            } else {
                udp.had_groups.insert(GROUP) | udp.groups.insert(GROUP)
            };
        }
    }

    fn end_datagram(&mut self, id: usize, net: &mut Net<'_, Site>) {
        let udp = &mut self.datagrams.sockets[id];
        let was_open = net.is_open(udp.key);
        let (answer, why) = match self.datagrams.dice.below(4) {
            0 => (net.abort(udp.key), Why::Abort),
            1 => (net.fail(udp.key, "kicked"), Why::Failed),
            _ => (net.close(udp.key), Why::Finish),
        };
        self.story.note(|| format!("      datagram socket {id} is to end, {why:?}: {answer}"));
        promise!(self.story, answer == was_open, "ending datagram socket {id} says {answer}");
        promise!(self.story, !net.is_open(udp.key), "datagram socket {id} was ended, and is open");
        if was_open {
            udp.is_over = true;
            udp.must.get_or_insert(why);
        }
    }

    /// By key; to its peer without an address.
    fn send_packet(&mut self, id: usize, net: &mut Net<'_, Site>, bytes: usize, to: &Address) {
        let Datagrams { dice, sockets, packets, packets_left, bytes_left, doubles, .. } = &mut self.datagrams;
        if *packets_left == 0 || *bytes_left < bytes {
            return;
        }
        let udp = &mut sockets[id];
        let peer = udp.peer.filter(|_| dice.one_in(2));
        let to = peer.map_or_else(|| to.clone(), Address::Ip);
        *packets_left -= 1;
        *bytes_left -= bytes;
        let (number, cost) = (packets.len(), bytes.max(COST_MIN));
        let (was_open, before) = (net.is_open(udp.key), queued(udp.key, net));
        let wire = payload(number, bytes);
        let answer = if peer.is_some() { net.send(udp.key, wire) } else { net.send_to(udp.key, &to, wire) };
        let (is_open, after) = (net.is_open(udp.key), queued(udp.key, net));
        self.story.note(|| format!("      datagram socket {id} sends {number}, {bytes} to {to}: {answer}, {after} wait"));
        promise!(self.story, after <= udp.queue_max, "{after} bytes wait on {id}, above {}", udp.queue_max);
        promise!(self.story, was_open || !answer, "{id} has begun to end, and sends");
        let keeps = if udp.full == Full::DropOldest { 0 } else { before };
        let has_room = keeps + cost <= udp.queue_max;
        promise!(self.story, answer || !was_open || !has_room, "{id} has room, and does not send");
        let may_grow = !answer || after <= before + cost;
        promise!(
            self.story,
            may_grow && (before == 0 || !answer || after >= cost),
            "{after} bytes wait, after {before} and {cost}"
        );
        if was_open && !answer && udp.full == Full::Close {
            promise!(self.story, !is_open, "{id} is full, and does not end");
            udp.is_over = true;
            udp.must.get_or_insert(Why::Overflow);
        }
        udp.waits |= after > 0 && is_open;
        let is_refused =
            bytes > LARGEST || to.ip().is_none_or(|to| to.is_ipv6() || to.port() == 0 || to.ip() == Ipv4Addr::BROADCAST);
        if answer {
            self.figures.packets += 1;
            if is_refused {
                udp.refused.push(to.clone());
            }
            if !udp.sent_to.contains(&to) {
                udp.sent_to.push(to.clone());
            }
        }
        let copies = if answer { 1 + usize::from(*doubles) } else { 0 };
        let (has_waited, came, owed_to) = (after > 0, BTreeMap::new(), Vec::new());
        packets.push(Packet { by: id, to, bytes, copies, has_waited, came, owed_to, is_refused });
    }

    /// What the weather does to them.
    pub(super) fn datagrams_in(&mut self, weather: Weather) -> Weather {
        let Datagrams { dice, often, packets, doubles, .. } = &mut self.datagrams;
        if *often == 0 {
            return weather;
        }
        let doubled = dice.pick(&[0, 0, 50, 300]);
        *doubles = doubled > 0;
        if *doubles {
            packets.iter_mut().filter(|packet| packet.has_waited && packet.copies > 0).for_each(|packet| packet.copies = 2);
        }
        weather.datagrams(dice.pick(&[0, 100, 500]), doubled, dice.pick(&[0, 200]))
    }

    /// How many come in one turn.
    pub(super) fn some_turn_datagrams(&mut self) -> usize {
        if self.datagrams.often == 0 { 128 } else { self.datagrams.dice.pick(&[1, 3, 128]) }
    }

    pub(super) fn pause_of_datagrams(&mut self) -> Duration {
        self.datagrams.dice.millis(50)
    }

    /// Whether the kernel is to take nothing for a while.
    pub(super) fn is_to_be_blocked(&mut self) -> bool {
        self.datagrams.often > 0 && self.datagrams.dice.one_in(6 * self.datagrams.often)
    }
}

/// Peace, and the end.
impl Model {
    /// Something to everybody whom it reaches: that must come.
    pub(super) fn greet_all(&mut self, host: usize, net: &mut Net<'_, Site>) {
        self.datagrams.doubles = false;
        (self.datagrams.packets_left, self.datagrams.bytes_left) = (PACKETS, BYTES);
        for id in self.open_udps().into_iter().filter(|&id| self.udp(id).host == host).collect::<Vec<_>>() {
            for (to, owed_to) in self.reachable(id) {
                let (number, to) = (self.datagrams.packets.len(), Address::Ip(to));
                self.send_packet(id, net, NUMBER + 10, &to);
                let is_kept = self.udp(id).full != Full::DropOldest || queued(self.udp(id).key, net) == 0;
                if let Some(packet) = self.datagrams.packets.get_mut(number) {
                    if packet.copies > 0 && is_kept && packet.to == to {
                        packet.owed_to = owed_to;
                    }
                }
            }
        }
    }

    fn open_udps(&self) -> Vec<usize> {
        (0..self.datagrams.sockets.len()).filter(|&id| self.udp(id).closed.is_none()).collect()
    }

    /// Who hears it, and at which address.
    fn reachable(&self, id: usize) -> Vec<(SocketAddr, Vec<usize>)> {
        let from = self.udp(id).local;
        let mut all = self.open_udps();
        let is_known = |udp: &Udp| udp.largest >= NUMBER; // or nobody could tell which it was
        all.retain(|&other| is_known(self.udp(other)) && self.udp(other).peer.is_none_or(|peer| peer == from));
        let is_member = |id: usize, port| {
            let udp = self.udp(id);
            udp.is_everywhere && udp.groups.contains(&GROUP) && udp.local.port() == port
        };
        let members = |port| all.iter().copied().filter(|&other| is_member(other, port)).collect();
        let groups = [1, 2].map(|port| (SocketAddr::new(GROUP, port), members(port)));
        all.iter().map(|&other| (self.udp(other).local, vec![other])).chain(groups).collect()
    }

    pub(super) fn look_at_datagrams_at_rest(&mut self, host: usize, net: &Net<'_, Site>) {
        let Datagrams { sockets, packets, .. } = &self.datagrams;
        for (id, udp) in sockets.iter().enumerate().filter(|(_, udp)| udp.host == host && udp.closed.is_none()) {
            promise!(self.story, net.is_open(udp.key), "datagram socket {id} has begun to end, and is not closed");
            let waiting = queued(udp.key, net);
            promise!(self.story, !udp.waits && waiting == 0, "{waiting} bytes wait on {id}, and it was not told: {}", udp.waits);
        }
        for (number, packet) in packets.iter().enumerate().filter(|(_, packet)| sockets[packet.by].closed.is_none()) {
            for &to in packet.owed_to.iter().filter(|&&to| sockets[to].host == host && sockets[to].closed.is_none()) {
                let times = packet.came.get(&to).copied().unwrap_or(0);
                promise!(self.story, times == 1, "{number} of {} came {times} times to {to}, in peace", packet.by);
            }
        }
    }

    pub(super) fn end_all_datagrams(&mut self, host: usize, net: &mut Net<'_, Site>) {
        for id in 0..self.datagrams.sockets.len() {
            if self.udp(id).host == host && self.udp(id).closed.is_none() {
                self.end_datagram(id, net);
            }
        }
    }

    pub(super) fn forget_datagrams(&mut self, host: usize) {
        self.datagrams.sockets.iter_mut().filter(|udp| udp.host == host).for_each(|udp| udp.is_over = true);
    }

    pub(super) fn look_at_last_datagrams(&mut self, host: usize) {
        let left = self.datagrams.sockets.iter().position(|udp| udp.host == host && udp.closed.is_none());
        promise!(self.story, left.is_none(), "all of host {host} has ended, and datagram socket {left:?} was not closed");
    }

    pub(super) fn count_lost(&mut self) {
        let lost = |packet: &&Packet| packet.copies > 0 && !packet.is_refused && packet.came.is_empty();
        self.figures.lost += self.datagrams.packets.iter().filter(lost).count() as u64;
    }
}
