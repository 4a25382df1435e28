//! The simulated network: hosts, streams between them, an agenda of what will happen, and the weather that makes it happen
//! late, in pieces, or not at all. Everything is drawn from one seed; nothing here asks the real clock.

use super::{errno::Errno, trace::Trace, weather::Weather};
use crate::{
    address::Address,
    flags::*,
    names::{Found, NameError, Question as NameQuestion},
    time::{Time, nanos},
    world::Moved,
};
use fastrand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) type HostId = usize;
/// The connecting end: its host, and the how manieth of that host. The accepting end: the same with [`ACCEPTING`]. So a name
/// does not depend on what happens to others.
pub(crate) type EndId = u64;

const ACCEPTING: EndId = 1 << 63;

/// A lookup: its host, and the how manieth of that host.
const LOOKING_UP: EndId = 1 << 62;

/// What may happen by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chance {
    Delay,
    ShortRead,
    ShortWrite,
    Reset,
    Spurious,
    Refusal,
    Silence,
    Lookup,
}

/// How many kinds there are.
const CHANCES: usize = 8;

/// A question of chance: of which end, about what, for the how manieth time. The answer depends on these and the seed alone,
/// so that leaving one fault out changes no other.
pub(crate) type Question = (EndId, Chance, u32);
pub(crate) type PortId = u64;

/// Ports that the system chooses begin here, as on Linux.
const EPHEMERAL: u16 = 32768;

/// Time passes when an operation fails on purpose: one that is tried again at once would else be tried for ever.
const FAILURE_TAKES: Duration = Duration::from_millis(10);

/// One end of a stream.
struct End {
    host: HostId,
    /// Under which its host registered it; nothing while it waits to be accepted.
    token: Option<usize>,
    local: Address,
    remote: Address,
    /// The other end, as long as there is one.
    peer: Option<EndId>,
    is_connected: bool,
    inbox: VecDeque<u8>,
    /// Bytes under way to it.
    arriving: usize,
    fin_arrived: bool,
    fin_sent: bool,
    /// Reported once, by whatever comes first.
    error: Option<Errno>,
    /// It was reset: reading gives the end, writing EPIPE.
    is_broken: bool,
    /// Its peer met a full window and waits for room.
    is_awaited: bool,
    /// What is sent next arrives after this.
    busy_until: Time,
    /// How often each chance was asked about.
    asked: [u32; CHANCES],
}

struct Port {
    host: HostId,
    token: usize,
    backlog: usize,
    waiting: VecDeque<EndId>,
}

/// One machine of the network.
pub(crate) struct Node {
    pub(crate) name: String,
    ready: BTreeMap<usize, Flags>,
    pub(crate) is_woken: Arc<AtomicBool>,
    /// Sockets that are open, and how many may be.
    sockets: usize,
    pub(crate) sockets_max: usize,
    next_port: u16,
    /// How many connections it has opened.
    connects: u32,
    /// Every address that is nobody's own is its.
    is_anywhere: bool,
    /// It was switched off: nothing arrives, nothing leaves, nobody is told.
    is_dead: bool,
    /// Operations so far, and the one that is to fail.
    pub(crate) operations: u64,
    /// Jobs that it gave to other threads, and names that it looked up.
    jobs: u32,
    lookups: u32,
    pub(crate) torture: Option<Torture>,
}

/// One operation fails, or all from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Torture {
    pub(crate) at: u64,
    pub(crate) errno: Errno,
    pub(crate) is_persistent: bool,
}

enum Happening {
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
}

pub(crate) struct Network {
    pub(crate) now: Time,
    agenda: BTreeMap<(Time, u64), Happening>,
    planned: u64,
    seed: u64,
    /// For who has the next turn, for programs that ask, for pauses: each apart, so that none disturbs another.
    pub(crate) turns: Rng,
    pub(crate) programs: Rng,
    pauses: Rng,
    pub(crate) nodes: Vec<Node>,
    ends: BTreeMap<EndId, End>,
    ports: BTreeMap<PortId, (Address, Port)>,
    port_names: u64,
    pub(crate) weather: Weather,
    /// Pairs of hosts that cannot reach each other; what is under way between them waits.
    partitions: BTreeSet<(HostId, HostId)>,
    held: Vec<(HostId, HostId, Happening)>,
    /// Whose it is, of IP addresses that a socket was bound to.
    homes: BTreeMap<IpAddr, HostId>,
    /// What connecting to an address comes to, by script.
    pub(crate) fates: BTreeMap<Address, Fate>,
    names: BTreeMap<String, Name>,
    pub(crate) trace: Trace,
    /// Faults by chance that struck, each with its line.
    pub(crate) struck: Vec<(Question, String)>,
    /// Whose end was reset, or failed on purpose, and the other one.
    pub(crate) losses: BTreeSet<(SocketAddr, SocketAddr)>,
    pub(crate) mercy: Mercy,
}

/// In a form that a command line can carry: `10000002a.ShortRead.7`.
pub(crate) fn question_text(&(id, chance, number): &Question) -> String {
    format!("{id:x}.{chance:?}.{number}")
}

/// The other way round.
pub(crate) fn question_of(text: &str) -> Option<Question> {
    let mut parts = text.split('.');
    let id = EndId::from_str_radix(parts.next()?, 16).ok()?;
    let name = parts.next()?;
    use Chance::{Delay, Lookup, Refusal, Reset, ShortRead, ShortWrite, Silence, Spurious};
    let all = [Delay, ShortRead, ShortWrite, Reset, Spurious, Refusal, Silence, Lookup];
    let chance = all.into_iter().find(|chance| format!("{chance:?}") == name)?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((id, chance, number))
}

/// Which faults may strike.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mercy {
    #[default]
    None,
    AllBut(BTreeSet<Question>),
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    fate: Option<NameFate>,
}

/// What looking a name up comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFate {
    /// There is no such name.
    NotFound,
    /// The resolver has no answer for now.
    TryAgain,
    /// The resolver cannot answer.
    Failed,
    /// The answer is right, and takes so long. A thread is busy with it meanwhile.
    Slow(Duration),
    /// No answer ever comes; a thread waits for it for ever.
    Silent,
}

/// What connecting to an address comes to.
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
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::default(),
            agenda: BTreeMap::new(),
            planned: 0,
            seed,
            turns: Rng::with_seed(mix(mix(seed) ^ 1)),
            programs: Rng::with_seed(mix(mix(seed) ^ 2)),
            pauses: Rng::with_seed(mix(mix(seed) ^ 3)),
            nodes: Vec::new(),
            ends: BTreeMap::new(),
            ports: BTreeMap::new(),
            port_names: 0,
            weather: Weather::default(),
            partitions: BTreeSet::new(),
            held: Vec::new(),
            homes: BTreeMap::new(),
            fates: BTreeMap::new(),
            names: BTreeMap::new(),
            trace: Trace::default(),
            struck: Vec::new(),
            losses: BTreeSet::new(),
            mercy: Mercy::None,
        }
    }

    pub(crate) fn add_node(&mut self, name: &str, is_anywhere: bool) -> HostId {
        self.nodes.push(Node {
            name: name.to_owned(),
            ready: BTreeMap::new(),
            is_woken: Arc::new(AtomicBool::new(false)),
            sockets: 0,
            sockets_max: usize::MAX,
            next_port: EPHEMERAL,
            connects: 0,
            is_anywhere,
            is_dead: false,
            operations: 0,
            jobs: 0,
            lookups: 0,
            torture: None,
        });
        self.nodes.len() - 1
    }

    // ---------------------------------------------------------------------------------------------------- chance

    /// The answer to the next question of this kind: a generator of its own.
    fn ask(&mut self, id: EndId, chance: Chance) -> (Question, Rng) {
        let asked = self.ends.get_mut(&id).map(|end| &mut end.asked[chance as usize]);
        let number = asked.map_or(0, |asked| {
            *asked += 1;
            *asked - 1
        });
        let of_end = mix(mix(self.seed) ^ id);
        let mixed = mix(of_end ^ (chance as u64) << 32 ^ u64::from(number));
        ((id, chance, number), Rng::with_seed(mixed))
    }

    /// Whether a fault strikes; then a generator for how.
    fn strikes(&mut self, id: EndId, chance: Chance, thousandths: u32) -> Option<Rng> {
        if thousandths == 0 {
            return None;
        }
        let (question, mut rng) = self.ask(id, chance);
        let is_spared = match &self.mercy {
            Mercy::None => false,
            Mercy::AllBut(chosen) => !chosen.contains(&question),
        };
        if rng.u32(0..1000) >= thousandths || is_spared {
            return None;
        }
        if let Some(end) = self.ends.get(&id) {
            let line = format!("{} {} {chance:?} towards {}", Trace::stamp(self.now), end.local, end.remote);
            self.struck.push((question, line));
        }
        self.note_end(id, format_args!("meets a fault by chance, {chance:?}, towards"));
        Some(rng)
    }

    /// Before each operation of a host: whether it is the one that is to fail.
    pub(crate) fn operate(&mut self, host: HostId, what: &str) -> Result<(), Errno> {
        let node = &mut self.nodes[host];
        let number = node.operations;
        node.operations += 1;
        match node.torture {
            Some(torture) if number == torture.at || (torture.is_persistent && number > torture.at) => {
                let errno = torture.errno;
                self.now = self.now + FAILURE_TAKES;
                self.note(host, format_args!("{what} fails on purpose: {errno:?}"));
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn note(&mut self, host: HostId, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, &self.nodes[host].name, what);
    }

    fn note_end(&mut self, id: EndId, what: std::fmt::Arguments<'_>) {
        let Some(end) = self.ends.get(&id) else { return };
        self.trace.note(self.now, &self.nodes[end.host].name, format_args!("{} {what} {}", end.local, end.remote));
    }

    // ---------------------------------------------------------------------------------------------------- agenda

    fn plan(&mut self, at: Time, happening: Happening) {
        self.agenda.insert((at, self.planned), happening);
        self.planned += 1;
    }

    fn delay(&mut self, from: EndId) -> Duration {
        match nanos(self.weather.jitter) {
            0 => self.weather.latency,
            jitter => self.weather.latency + Duration::from_nanos(self.ask(from, Chance::Delay).1.u64(0..jitter)),
        }
    }

    /// By how much a wait oversleeps.
    pub(crate) fn pause(&mut self) -> Duration {
        let is_paused = self.weather.pauses > 0 && self.pauses.u32(0..1000) < self.weather.pauses;
        if is_paused { Duration::from_micros(self.pauses.u64(0..1_000_000)) } else { Duration::ZERO }
    }

    /// How long the next job that this host gives to another thread takes: of the seed and the job's number alone.
    pub(crate) fn work_takes(&mut self, host: HostId) -> Duration {
        let node = &mut self.nodes[host];
        node.jobs += 1;
        match nanos(self.weather.work) {
            0 => Duration::ZERO,
            most => {
                let of_job = mix(mix(self.seed ^ !(host as u64)) ^ u64::from(node.jobs));
                Duration::from_nanos(Rng::with_seed(of_job).u64(0..most))
            }
        }
    }

    /// Behind everything that this end has sent before.
    fn send_after(&mut self, from: EndId, bytes: usize, happening: Happening) {
        let delay = self.delay(from);
        let takes = self.weather.bandwidth.map_or(0, |rate| bytes as u64 * 1_000_000_000 / rate.max(1));
        let earliest = self.now + delay;
        let Some(end) = self.ends.get_mut(&from) else { return };
        let at = end.busy_until.max(earliest) + Duration::from_nanos(takes);
        end.busy_until = at;
        self.plan(at, happening);
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.agenda.keys().next().map(|&(at, _)| at)
    }

    /// Everything that happens up to `now`.
    pub(crate) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
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
            if self.nodes[to].is_dead || self.nodes[from].is_dead {
                return;
            }
            if self.partitions.contains(&(from.min(to), from.max(to))) {
                self.held.push((from, to, happening));
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
            Happening::Nudge { host, token, ready } => merge(&mut self.nodes[host].ready, token, ready),
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
            Happening::Look { .. } | Happening::Nudge { .. } => None,
        }
    }

    /// Whose it is: who listens there, whose own address it is, who has connected from it, or who is anywhere.
    fn host_of(&self, address: &Address) -> Option<HostId> {
        let listening = self.ports.values().find(|(at, _)| at == address).map(|(_, port)| port.host);
        let ip = address.ip()?.ip();
        let name = ip.to_string();
        let owner = || self.nodes.iter().position(|node| node.name == name);
        let home = || self.homes.get(&ip).copied();
        let anywhere = || self.nodes.iter().position(|node| node.is_anywhere);
        listening.or_else(owner).or_else(home).or_else(anywhere)
    }
}

/// Streams, as sockets see them.
impl Network {
    fn new_end(&mut self, id: EndId, host: HostId, local: Address, remote: Address) {
        self.nodes[host].sockets += 1;
        let end = End {
            host,
            token: None,
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
            is_awaited: false,
            busy_until: Time::default(),
            asked: [0; CHANCES],
        };
        self.ends.insert(id, end);
    }

    /// A descriptor, if the host still has one.
    fn spend_socket(&mut self, host: HostId) -> Result<(), Errno> {
        let node = &self.nodes[host];
        if node.sockets >= node.sockets_max { Err(Errno::TooManyFiles) } else { Ok(()) }
    }

    fn choose_port(&mut self, host: HostId) -> u16 {
        let node = &mut self.nodes[host];
        let port = node.next_port;
        node.next_port = node.next_port.checked_add(1).unwrap_or(EPHEMERAL);
        port
    }

    pub(crate) fn listen(
        &mut self,
        host: HostId,
        at: &Address,
        backlog: usize,
        token: usize,
    ) -> Result<(PortId, Address), Errno> {
        self.operate(host, "listen")?;
        self.spend_socket(host)?;
        let Address::Ip(mut addr) = at.clone() else { return Err(Errno::AddressNotAvailable) };
        if addr.port() == 0 {
            addr.set_port(self.choose_port(host));
        }
        if addr.ip().is_unspecified() {
            addr.set_ip(self.ip_of(host));
        }
        if !self.nodes[host].is_anywhere && self.ip_of(host) != addr.ip() {
            return Err(Errno::AddressNotAvailable);
        }
        let local = Address::Ip(addr);
        if self.ports.values().any(|(taken, _)| *taken == local) {
            return Err(Errno::AddressInUse);
        }
        self.port_names += 1;
        self.nodes[host].sockets += 1;
        let port = Port { host, token, backlog: backlog.max(1), waiting: VecDeque::new() };
        self.ports.insert(self.port_names, (local.clone(), port));
        self.note(host, format_args!("listens on {local}"));
        Ok((self.port_names, local))
    }

    fn ip_of(&self, host: HostId) -> IpAddr {
        self.nodes[host].name.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    pub(crate) fn stop_listening(&mut self, id: PortId) {
        let Some((_, port)) = self.ports.remove(&id) else { return };
        self.nodes[port.host].sockets -= 1;
        self.nodes[port.host].ready.remove(&port.token);
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

    /// The descriptor that is kept for this is beyond the host's number, and gone where more are open than there may be.
    pub(crate) fn shed(&mut self, id: PortId) -> Result<EndId, Errno> {
        let Some((_, port)) = self.ports.get(&id) else { return Err(Errno::Again) };
        let (host, token) = (port.host, port.token);
        let node = &self.nodes[host];
        if node.sockets > node.sockets_max {
            return Err(Errno::TooManyFiles);
        }
        self.take_waiting(id, host, token).map(|(end, _)| end)
    }

    fn take_waiting(&mut self, id: PortId, host: HostId, token: usize) -> Result<(EndId, Address), Errno> {
        let Some(end) = self.ports.get_mut(&id).and_then(|(_, port)| port.waiting.pop_front()) else { return Err(Errno::Again) };
        let accepted = self.ends.get_mut(&end).expect("it waits, so it is there");
        accepted.token = Some(token);
        let remote = accepted.remote.clone();
        self.nodes[host].sockets += 1;
        let mut ready = WRITABLE;
        ready.insert_if(READABLE, self.is_readable(end));
        self.tell(end, ready);
        self.note(host, format_args!("accepts {remote}"));
        Ok((end, remote))
    }

    pub(crate) fn connect(&mut self, host: HostId, to: &Address, from: Option<SocketAddr>, token: usize) -> Result<EndId, Errno> {
        self.operate(host, "connect")?;
        self.spend_socket(host)?;
        if !matches!(to, Address::Ip(_)) {
            return Err(Errno::AddressNotAvailable);
        }
        let mut local = from.unwrap_or_else(|| SocketAddr::new(self.ip_of(host), 0));
        self.homes.insert(local.ip(), host);
        if local.port() == 0 {
            local.set_port(self.choose_port(host));
        }
        self.nodes[host].connects += 1;
        let client = (host as EndId) << 32 | EndId::from(self.nodes[host].connects);
        self.new_end(client, host, Address::Ip(local), to.clone());
        self.ends.get_mut(&client).expect("just made").token = Some(token);
        self.note(host, format_args!("connects to {to}"));
        let (refused, silent) = (self.weather.refusals, self.weather.silences);
        let fate = self.fates.get(to).copied();
        let is_silent = fate == Some(Fate::Silent) || self.strikes(client, Chance::Silence, silent).is_some();
        let errno = match fate {
            Some(Fate::Silent) => None,
            Some(Fate::Refused) => Some(Errno::ConnectionRefused),
            Some(Fate::Unreachable) => Some(Errno::HostUnreachable),
            _ if self.strikes(client, Chance::Refusal, refused).is_some() => Some(Errno::ConnectionRefused),
            _ if self.host_of(to).is_none() => Some(Errno::HostUnreachable),
            _ => None,
        };
        if let Some(errno) = errno {
            self.send_after(client, 0, Happening::Refuse { client, errno });
        } else if !is_silent {
            self.send_after(client, 0, Happening::Knock { client, to: to.clone() });
        }
        Ok(client)
    }

    fn knock(&mut self, client: EndId, to: &Address) {
        let Some(end) = self.ends.get(&client) else { return };
        let remote = end.local.clone();
        let found = self.ports.iter().find(|(_, (at, _))| at == to).map(|(&id, (_, port))| (id, port.host, port.token));
        let Some((id, host, token)) = found else {
            self.send_after(client, 0, Happening::Refuse { client, errno: Errno::ConnectionRefused });
            return;
        };
        let (_, port) = self.ports.get(&id).expect("just found");
        if port.waiting.len() >= port.backlog {
            // As Linux does: it is not answered, and the client asks again.
            let again = self.now + Duration::from_secs(1);
            self.plan(again, Happening::Knock { client, to: to.clone() });
            return;
        }
        let server = client | ACCEPTING;
        self.new_end(server, host, to.clone(), remote);
        self.nodes[host].sockets -= 1; // it costs a descriptor when it is accepted
        for (end, peer) in [(server, client), (client, server)] {
            self.ends.get_mut(&end).expect("both are there").peer = Some(peer);
        }
        self.ends.get_mut(&server).expect("just made").is_connected = true;
        self.ports.get_mut(&id).expect("just found").1.waiting.push_back(server);
        merge(&mut self.nodes[host].ready, token, READABLE);
        self.send_after(server, 0, Happening::Welcome { client });
    }

    fn welcome(&mut self, client: EndId) {
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

    pub(crate) fn take_error(&mut self, id: EndId) -> Option<Errno> {
        self.ends.get_mut(&id).and_then(|end| end.error.take())
    }

    fn is_readable(&self, id: EndId) -> bool {
        let end = &self.ends[&id];
        !end.inbox.is_empty() || end.fin_arrived || end.is_broken
    }

    pub(crate) fn recv(&mut self, id: EndId, buf: &mut [u8]) -> Result<Moved, Errno> {
        self.operate_or_nudge(id, "recv", READABLE)?;
        self.nudge_by_chance(id);
        let available = self.ends[&id].inbox.len().min(buf.len());
        if available == 0 {
            let end = self.ends.get_mut(&id).expect("an open socket");
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
        let peer = end.peer;
        self.note_end(id, format_args!("receives {bytes} from"));
        if let Some(peer) = peer.filter(|peer| self.ends.get(peer).is_some_and(|peer| peer.is_awaited)) {
            self.ends.get_mut(&peer).expect("just seen").is_awaited = false;
            self.send_after(id, 0, Happening::Room { to: peer });
        }
        Ok(Moved { bytes, drained: is_drained })
    }

    /// What is taken of the slices is copied, and no more: behind a small window there may be a long queue.
    pub(crate) fn send(&mut self, id: EndId, slices: &[IoSlice<'_>]) -> Result<Moved, Errno> {
        self.operate_or_nudge(id, "send", WRITABLE)?;
        self.nudge_by_chance(id);
        let end = self.ends.get_mut(&id).expect("an open socket");
        if let Some(errno) = end.error.take() {
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
        let possible = free.min(offered);
        if possible == 0 && offered > 0 {
            self.ends.get_mut(&id).expect("an open socket").is_awaited = true;
            return Err(Errno::Again);
        }
        let taken = match self.strikes(id, Chance::ShortWrite, short) {
            Some(mut rng) if possible > 1 => rng.usize(1..possible),
            _ => possible,
        };
        let is_full = taken == free && taken < offered;
        self.ends.get_mut(&id).expect("an open socket").is_awaited = is_full;
        if let Some(peer) = self.ends.get_mut(&peer) {
            peer.arriving += taken;
        }
        self.note_end(id, format_args!("sends {taken} of {offered} to"));
        let resets = self.weather.resets;
        if self.strikes(id, Chance::Reset, resets).is_some() {
            self.send_after(id, 0, Happening::Reset { to: peer });
            self.send_after(id, 0, Happening::Reset { to: id });
        } else {
            self.send_after(id, taken, Happening::Data { from: id, to: peer, bytes: first_of(slices, taken) });
        }
        Ok(Moved { bytes: taken, drained: is_full })
    }

    fn arrive(&mut self, from: EndId, to: EndId, bytes: &[u8]) {
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

    /// With a reset if that was asked for, or if something that came was not read (tcp(7)).
    pub(crate) fn close(&mut self, id: EndId, reset: bool) {
        let Some(end) = self.ends.get(&id) else { return };
        let (host, peer, token) = (end.host, end.peer, end.token);
        let resets = reset || !end.inbox.is_empty() || end.arriving > 0;
        if token.is_some() {
            self.nodes[host].sockets -= 1;
        }
        self.note_end(id, format_args!("{}", if resets { "resets" } else { "closes" }));
        if let (Some(peer), false) = (peer, self.ends[&id].is_broken) {
            if resets {
                self.send_after(id, 0, Happening::Reset { to: peer });
            } else {
                self.shutdown_write(id);
            }
        }
        if let Some(token) = token {
            self.nodes[host].ready.remove(&token);
        }
        self.ends.remove(&id);
    }

    /// By whom, and from whom it was cut off.
    fn note_loss(&mut self, id: EndId) {
        if let Some((Some(local), Some(remote))) = self.ends.get(&id).map(|end| (end.local.ip(), end.remote.ip())) {
            self.losses.insert((local, remote));
        }
    }

    fn fail_end(&mut self, id: EndId, errno: Errno) {
        self.note_loss(id);
        let Some(end) = self.ends.get_mut(&id) else { return };
        if std::mem::replace(&mut end.is_broken, true) {
            return;
        }
        // A reset behind the end is EPIPE, as on Linux.
        let is_behind_the_end = end.fin_arrived && errno == Errno::ConnectionReset;
        end.error = Some(if is_behind_the_end { Errno::BrokenPipe } else { errno });
        end.is_connected = false;
        end.arriving = 0;
        self.note_end(id, format_args!("hears {errno:?} from"));
        self.tell(id, READABLE | WRITABLE | READ_UNTIL_BLOCKED | FAILED);
    }

    pub(crate) fn local(&self, id: EndId) -> Option<Address> {
        self.ends.get(&id).map(|end| end.local.clone())
    }

    /// An event for whoever has it registered: with everything that holds at that moment, as epoll has it.
    fn tell(&mut self, id: EndId, ready: Flags) {
        let Some(end) = self.ends.get(&id) else { return };
        let Some(token) = end.token else { return };
        let host = end.host;
        let level = self.level(id);
        merge(&mut self.nodes[host].ready, token, ready);
        merge(&mut self.nodes[host].ready, token, level);
    }

    /// What could be done with a socket now.
    fn level(&self, id: EndId) -> Flags {
        let end = &self.ends[&id];
        let peer = end.peer.and_then(|peer| self.ends.get(&peer));
        let has_room = peer.is_none_or(|peer| peer.inbox.len() + peer.arriving < self.weather.window);
        let has_ended = end.fin_arrived || end.is_broken;
        let mut ready = Flags::default();
        ready.insert_if(READABLE, !end.inbox.is_empty() || has_ended);
        ready.insert_if(WRITABLE, (end.is_connected && has_room) || end.is_broken);
        ready.insert_if(READ_UNTIL_BLOCKED, has_ended);
        ready.insert_if(FAILED, end.error.is_some());
        ready
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
    fn nudge_by_chance(&mut self, id: EndId) {
        let (spurious, host) = (self.weather.spurious, self.ends[&id].host);
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

/// Names.
impl Network {
    pub(crate) fn set_name(&mut self, host: &str, addresses: Vec<IpAddr>) {
        self.names.entry(canonical(host)).or_default().addresses = addresses;
    }

    pub(crate) fn set_name_fate(&mut self, host: &str, fate: Option<NameFate>) {
        self.names.entry(canonical(host)).or_default().fate = fate;
    }

    /// What the next lookup of a host brings, and how long it takes.
    pub(crate) fn look_up(&mut self, host: HostId, question: &NameQuestion) -> (io::Result<Found>, Duration) {
        self.nodes[host].lookups += 1;
        let id = LOOKING_UP | (host as EndId) << 32 | EndId::from(self.nodes[host].lookups);
        let takes = self.delay(id) + self.weather.latency;
        let (found, fate) = self.find(question);
        let asked = found.as_ref().map_or_else(ToString::to_string, |found| format!("{found:?}"));
        self.note(host, format_args!("looks up {question:?}: {asked}"));
        let failures = self.weather.lookups;
        if self.strikes(id, Chance::Lookup, failures).is_some() {
            let line = format!("{} {} Lookup of {question:?}", Trace::stamp(self.now), self.nodes[host].name);
            self.struck.push(((id, Chance::Lookup, 0), line));
            return (Err(NameError::TryAgain.error("the simulated resolver has no answer for now")), takes);
        }
        match fate {
            Some(NameFate::Slow(slow)) => (found, slow),
            Some(NameFate::Silent) => (found, Duration::MAX),
            _ => (found, takes),
        }
    }

    fn find(&self, question: &NameQuestion) -> (io::Result<Found>, Option<NameFate>) {
        match question {
            NameQuestion::Addresses(host) => {
                let name = self.names.get(&canonical(host));
                let found = match name.and_then(|name| name.fate) {
                    Some(NameFate::TryAgain) => Err(NameError::TryAgain.error(format!("`{host}`: no answer for now"))),
                    Some(NameFate::Failed) => Err(NameError::Failed.error(format!("`{host}`: the resolver cannot answer"))),
                    None | Some(NameFate::Slow(_) | NameFate::Silent) if name.is_some_and(|name| !name.addresses.is_empty()) => {
                        let addresses = name.map_or(&[][..], |name| &name.addresses);
                        Ok(Found::Addresses(addresses.iter().map(|&ip| (ip, 0).into()).collect()))
                    }
                    _ => Err(NameError::NotFound.error(format!("`{host}`: there is no such name"))),
                };
                (found, name.and_then(|name| name.fate))
            }
            #[cfg(feature = "names")]
            NameQuestion::Name(ip) => {
                let name = self.names.iter().find(|(_, name)| name.addresses.contains(ip));
                let found = name.map(|(host, _)| Found::Name(host.clone()));
                (found.ok_or_else(|| NameError::NotFound.error(format!("`{ip}`: it has no name"))), None)
            }
        }
    }
}

/// Names are equal in any case, and with the root's dot (RFC 1034, 3.1).
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Hosts, as the scheduler sees them.
impl Network {
    pub(crate) fn has_events(&self, host: HostId) -> bool {
        let node = &self.nodes[host];
        !node.is_dead && (!node.ready.is_empty() || node.is_woken.load(Ordering::Acquire))
    }

    pub(crate) fn take_events(&mut self, host: HostId) -> BTreeMap<usize, Flags> {
        self.nodes[host].is_woken.store(false, Ordering::Release);
        std::mem::take(&mut self.nodes[host].ready)
    }

    pub(crate) fn is_dead(&self, host: HostId) -> bool {
        self.nodes[host].is_dead
    }

    /// Nothing passes between the two until they are joined again; what is under way waits.
    pub(crate) fn part(&mut self, a: HostId, b: HostId) {
        self.advance(self.now); // what is due already arrives
        self.partitions.insert((a.min(b), a.max(b)));
        let other = self.nodes[b].name.clone();
        self.note(a, format_args!("is cut off from {other}"));
    }

    pub(crate) fn join(&mut self, a: HostId, b: HostId) {
        self.advance(self.now); // what is due already is held up with the rest, in order
        self.partitions.remove(&(a.min(b), a.max(b)));
        let other = self.nodes[b].name.clone();
        self.note(a, format_args!("reaches {other} again"));
        let (through, still): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|&(from, to, _)| (from.min(to), from.max(to)) == (a.min(b), a.max(b)));
        self.held = still;
        for (_, _, happening) in through {
            let now = self.now;
            self.plan(now, happening);
        }
    }

    /// The machine stops without a word; its peers are half-open.
    pub(crate) fn kill(&mut self, host: HostId) {
        self.note(host, format_args!("is switched off"));
        self.nodes[host].is_dead = true;
    }

    /// The sockets that a host has open.
    pub(crate) fn sockets(&self, host: HostId) -> usize {
        self.nodes[host].sockets
    }
}

/// So many bytes from the front.
fn first_of(slices: &[IoSlice<'_>], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for slice in slices {
        bytes.extend_from_slice(&slice[..slice.len().min(count - bytes.len())]);
    }
    bytes
}

/// splitmix64's step: neighbouring numbers become far ones.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn merge(all: &mut BTreeMap<usize, Flags>, token: usize, more: Flags) {
    all.entry(token).or_default().insert(more);
}
