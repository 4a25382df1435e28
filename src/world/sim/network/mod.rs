//! The simulated network: hosts, streams and datagrams between them, an agenda of what will happen, and the weather, which
//! makes things happen late, in pieces, or not at all. Everything is drawn from one seed; nothing here asks the real clock.

mod opening;
mod adopting;
mod streams;
mod boxes;
mod packets;
mod names;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod agenda;
mod chance;

use super::{errno::Errno, trace::Trace, weather::Weather};
use crate::{address::Address, flags::*, time::Time, world::Ways};
use agenda::Happening;
pub(crate) use boxes::BoxId;
use boxes::PacketBox;
use chance::{CHANCES, mix};
pub(crate) use chance::{Mercy, Question, Torture, question_of, question_text};
use fastrand::Rng;
use names::Name;
pub use names::NameFate;
pub use opening::Fate;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) type HostId = usize;
/// The connecting end: its host, and its number on that host. The accepting end: the same with [`ACCEPTING`]. So a name does
/// not depend on what happens to others.
pub(crate) type EndId = u64;

const ACCEPTING: EndId = 1 << 63;

/// A lookup: its host, and its number on that host.
const LOOKING_UP: EndId = 1 << 62;

pub(crate) type PortId = u64;

/// Ports that the system chooses begin here, as on Linux.
const EPHEMERAL: u16 = 32768;

/// Chance that belongs to nobody in particular: each kind by itself, so that none disturbs another.
pub(crate) struct Dice {
    /// For choosing who has the next turn.
    pub(crate) turns: Rng,
    /// For programs that ask.
    pub(crate) programs: Rng,
    pauses: Rng,
}

impl Dice {
    fn new(seed: u64) -> Self {
        let [turns, programs, pauses] = [1, 2, 3].map(|which| Rng::with_seed(mix(mix(seed) ^ which)));
        Self { turns, programs, pauses }
    }
}

pub(crate) struct Network {
    pub(crate) now: Time,
    agenda: BTreeMap<(Time, u64), Happening>,
    planned: u64,
    seed: u64,
    pub(crate) dice: Dice,
    pub(crate) machines: Vec<Machine>,
    ends: BTreeMap<EndId, End>,
    boxes: BTreeMap<BoxId, PacketBox>,
    ports: BTreeMap<PortId, (Address, Port)>,
    port_names: u64,
    pub(crate) weather: Weather,
    /// Pairs of hosts that cannot reach each other; what is under way between them waits, or is lost if it is a datagram.
    partitions: BTreeSet<(HostId, HostId)>,
    held: Vec<(HostId, HostId, Happening)>,
    /// The host of each IP address that a socket was bound to.
    homes: BTreeMap<IpAddr, HostId>,
    /// What happens when something connects to an address, by script.
    pub(crate) fates: BTreeMap<Address, Fate>,
    names: BTreeMap<String, Name>,
    pub(crate) trace: Trace,
    /// Faults by chance that struck, each with its line.
    pub(crate) struck: Vec<(Question, String)>,
    /// Pairs of addresses: an end that was reset, or failed on purpose, and the other one.
    pub(crate) losses: BTreeSet<(SocketAddr, SocketAddr)>,
    /// The same by the token that the end had then.
    pub(crate) lost_tokens: BTreeSet<usize>,
    pub(crate) mercy: Mercy,
}

/// One end of a stream.
struct End {
    host: HostId,
    /// The token under which its host registered it; `None` while it waits to be accepted or adopted.
    token: Option<usize>,
    /// It costs its host a descriptor.
    has_descriptor: bool,
    /// One end of a pipe goes one way only.
    ways: Ways,
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
    /// It was reset on a Windows host: whatever moves bytes fails with this from now on, and the socket has no error.
    hidden: Option<Errno>,
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
    only_v6: bool,
    waiting: VecDeque<EndId>,
}

/// One machine of the network.
pub(crate) struct Machine {
    pub(crate) name: String,
    ready: BTreeMap<usize, Flags>,
    pub(crate) is_woken: Arc<AtomicBool>,
    /// Sockets that are open, and how many may be.
    sockets: usize,
    pub(crate) sockets_max: usize,
    next_port: u16,
    /// The same for datagrams, which have their own ports.
    next_box_port: u16,
    /// How many connections it has opened.
    connects: u32,
    /// And how many datagram sockets.
    binds: u32,
    #[cfg(all(unix, feature = "signals"))]
    hooks: Vec<signals::Hook>,
    /// Every address that belongs to nobody is its own.
    is_anywhere: bool,
    /// It was switched off: nothing arrives, nothing leaves, nobody is told.
    is_dead: bool,
    /// It has a reactor, and so a selector; scripted peers have none.
    pub(crate) has_reactor: bool,
    /// Received and sent so far.
    pub(crate) bytes: u64,
    /// Operations so far, and the one that is to fail.
    pub(crate) operations: u64,
    /// Jobs that it gave to other threads, and names that it looked up.
    jobs: u32,
    lookups: u32,
    pub(crate) torture: Option<Torture>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::default(),
            agenda: BTreeMap::new(),
            planned: 0,
            seed,
            dice: Dice::new(seed),
            machines: Vec::new(),
            ends: BTreeMap::new(),
            boxes: BTreeMap::new(),
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
            lost_tokens: BTreeSet::new(),
            mercy: Mercy::None,
        }
    }

    pub(crate) fn add_machine(&mut self, name: &str, is_anywhere: bool) -> HostId {
        self.machines.push(Machine {
            name: name.to_owned(),
            ready: BTreeMap::new(),
            is_woken: Arc::new(AtomicBool::new(false)),
            sockets: 0,
            sockets_max: usize::MAX,
            next_port: EPHEMERAL,
            next_box_port: EPHEMERAL,
            connects: 0,
            binds: 0,
            #[cfg(all(unix, feature = "signals"))]
            hooks: Vec::new(),
            is_anywhere,
            is_dead: false,
            has_reactor: false,
            bytes: 0,
            operations: 0,
            jobs: 0,
            lookups: 0,
            torture: None,
        });
        self.machines.len() - 1
    }

    /// Time goes on to this moment, but never to the one that never comes.
    pub(super) fn reach(&mut self, moment: Time) {
        self.now = self.now.max(moment).min(Time::LAST);
    }

    pub(crate) fn note(&mut self, host: HostId, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, &self.machines[host].name, what);
    }

    fn note_end(&mut self, id: EndId, what: std::fmt::Arguments<'_>) {
        let Some(end) = self.ends.get(&id) else { return };
        self.trace.note(self.now, &self.machines[end.host].name, format_args!("{} {what} {}", end.local, end.remote));
    }

    /// Which host it belongs to: the one that listens there, has it as its own address, has connected from it, or is
    /// anywhere.
    fn host_of(&self, address: &Address) -> Option<HostId> {
        let listening = self.ports.values().find(|(at, _)| at == address).map(|(_, port)| port.host);
        let ip = address.ip()?.ip();
        let name = ip.to_string();
        let owner = || self.machines.iter().position(|machine| machine.name == name);
        let home = || self.homes.get(&ip).copied();
        let anywhere = || self.machines.iter().position(|machine| machine.is_anywhere);
        listening.or_else(owner).or_else(home).or_else(anywhere)
    }

    /// What `0.0.0.0` and `::` are to a host that connects: itself, as on Linux.
    fn destination(&self, host: HostId, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            ip if !ip.is_unspecified() => to,
            IpAddr::V6(_) if self.machines[host].is_anywhere => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), to.port()),
            _ => SocketAddr::new(self.ip_of(host), to.port()),
        }
    }

    fn ip_of(&self, host: HostId) -> IpAddr {
        self.machines[host].name.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }
}

/// Hosts, as the scheduler sees them.
impl Network {
    pub(crate) fn has_events(&self, host: HostId) -> bool {
        let machine = &self.machines[host];
        !machine.is_dead && (!machine.ready.is_empty() || machine.is_woken.load(Ordering::Acquire))
    }

    pub(crate) fn take_events(&mut self, host: HostId) -> BTreeMap<usize, Flags> {
        self.machines[host].is_woken.store(false, Ordering::Release);
        std::mem::take(&mut self.machines[host].ready)
    }

    pub(crate) fn is_dead(&self, host: HostId) -> bool {
        self.machines[host].is_dead
    }

    /// Nothing passes between the two until they are joined again; what is under way waits, except datagrams.
    pub(crate) fn part(&mut self, a: HostId, b: HostId) {
        self.advance(self.now); // what is due already arrives
        self.partitions.insert((a.min(b), a.max(b)));
        let other = self.machines[b].name.clone();
        self.note(a, format_args!("is cut off from {other}"));
    }

    pub(crate) fn join(&mut self, a: HostId, b: HostId) {
        self.advance(self.now); // what is already due is held up with the rest, in order
        self.partitions.remove(&(a.min(b), a.max(b)));
        let other = self.machines[b].name.clone();
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
        self.machines[host].is_dead = true;
    }

    /// The sockets that a host has open.
    pub(crate) fn sockets(&self, host: HostId) -> usize {
        self.machines[host].sockets
    }
}

fn merge(all: &mut BTreeMap<usize, Flags>, token: usize, more: Flags) {
    all.entry(token).or_default().insert(more);
}
