//! Scripted peers around one reactor.

mod datagrams;

use super::sim::{Host, Sim};
use crate::{
    address::{Address, Target},
    config::Config,
    contract::Net,
    world::{
        ListenHow,
        sim::{EndId, Errno, Fate, HostId, NameFate, Network, PortId, SharedNetwork, Weather},
    },
};
pub use datagrams::Peer;
use std::{fmt, io::IoSlice, rc::Rc, time::Duration};

/// How many bytes of a mismatch are shown.
const SHOWN_MAX: usize = 200;

/// A simulated network around a reactor: you play the peers, by a script.
///
/// The reactor may listen on and connect to any IP address; whatever it listens on you can dial, and whatever it connects to
/// you can serve. A listener on `0.0.0.0` or `::`, yours or the reactor's, can be reached at any address from the other
/// side. Time passes only when you say so. There is more in [the chapter](crate::manual::testing#several-peers).
pub struct Scene<S> {
    sim: Sim,
    /// That of `sim`, unless somebody has put another one in its place.
    network: SharedNetwork,
    host: Host<S>,
    outside: HostId,
    actors: Vec<Role>,
}

/// One of the scripted peers of a [`Scene`]; in another scene it names somebody else, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor(usize);

/// What an actor is.
struct Role {
    address: Address,
    /// It serves there, as long as nobody has come.
    port: Option<PortId>,
    /// As long as it has neither closed nor reset it.
    end: Option<EndId>,
    /// It has sent its FIN.
    has_ended: bool,
    /// What was received and not yet asked for.
    heard: Vec<u8>,
    /// The error that it got when it wrote; after that, reading tells no more than the end.
    error: Option<Errno>,
    /// How the reactor's side ended, once the actor has read that far.
    ending: Option<Ending>,
    reads: bool,
}

#[derive(Clone, Copy)]
enum Ending {
    /// A FIN.
    Finish,
    Broken(Errno),
}

impl Role {
    /// What keeps the actor from doing anything with its connection.
    fn obstacle(&self, network: &Network) -> Option<String> {
        let broken = match (self.ending, self.error) {
            (Some(Ending::Broken(errno)), _) | (_, Some(errno)) => Some(format!("its connection is gone: {errno:?}")),
            _ => None,
        };
        let is_unanswered = self.end.is_some_and(|end| network.is_unanswered(end));
        let unanswered = || is_unanswered.then(|| "it is not connected: nobody has answered it yet".to_owned());
        self.absence().or(broken).or_else(unanswered)
    }

    /// Why it has no connection.
    fn absence(&self) -> Option<String> {
        match (self.port, self.end) {
            (Some(_), _) => Some(format!("nobody has connected to it yet: it serves {}", self.address)),
            (None, None) => Some("it has closed its connection, or broken it off, before".to_owned()),
            (None, Some(_)) => None,
        }
    }

    /// What explains that something did not come.
    fn remark(&self, network: &Network) -> String {
        match (self.obstacle(network), self.ending) {
            (Some(obstacle), _) => format!(" ({obstacle})"),
            (None, Some(_)) => " (the reactor has ended its side)".to_owned(),
            (None, None) if !self.reads => " (the actor does not read)".to_owned(),
            (None, None) => String::new(),
        }
    }
}

impl<S: 'static> Scene<S> {
    /// Makes a scene: a reactor with its state, and a network whose chances are drawn from the seed.
    #[track_caller]
    pub fn new(seed: u64, state: S) -> Self {
        Self::with_config(seed, state, Config::default())
    }

    /// Makes a scene with bounds of your own: a reactor, its state, and a network whose chances are drawn from the seed.
    #[track_caller]
    pub fn with_config(seed: u64, state: S, config: Config) -> Self {
        let mut sim = Sim::new(seed);
        let host = sim.seat("127.0.0.1", true, state, config);
        let outside = sim.add_machine("outside", true);
        let network = Rc::clone(sim.network());
        Self { sim, network, host, outside, actors: Vec::new() }
    }

    #[track_caller]
    pub(super) fn assert_own_sim(&self) {
        let is_own = Rc::ptr_eq(&self.network, self.sim.network());
        assert!(
            is_own,
            "the simulation of this scene has been replaced by another one, in which there is neither its reactor nor an actor"
        );
    }

    /// Every socket and timer of the reactor, as before the loop runs.
    #[track_caller]
    pub fn net(&mut self) -> Net<'_, S> {
        self.assert_own_sim();
        self.sim.net(self.host)
    }

    /// The reactor's state.
    #[track_caller]
    pub fn state(&mut self) -> &mut S {
        self.assert_own_sim();
        self.sim.state(self.host)
    }

    /// The simulation below, for everything that a scene has no method for. You cannot put another one in its place.
    pub fn sim(&mut self) -> &mut Sim {
        &mut self.sim
    }

    pub(super) fn host(&self) -> Host<S> {
        self.host
    }

    /// Sets how the network behaves from now on.
    pub fn set_weather(&mut self, weather: Weather) -> &mut Self {
        self.sim.set_weather(weather);
        self
    }

    /// Sets what happens when something connects to an address.
    ///
    /// # Panics
    /// If `address` is not an IP address and port.
    #[track_caller]
    pub fn set_fate(&mut self, address: &str, how: Fate) -> &mut Self {
        self.sim.set_fate(address, how);
        self
    }

    /// Sets the addresses of a name, the preferred one first. No other name exists.
    ///
    /// # Panics
    /// If `host` is not a name, or one of them is not an IP address.
    #[track_caller]
    pub fn name(&mut self, host: &str, addresses: &[&str]) -> &mut Self {
        self.sim.name(host, addresses);
        self
    }

    /// Sets what happens when a name is looked up; `None` means that it is found.
    ///
    /// # Panics
    /// If `host` is not a name.
    #[track_caller]
    pub fn set_name_fate(&mut self, host: &str, fate: impl Into<Option<NameFate>>) -> &mut Self {
        self.sim.set_name_fate(host, fate);
        self
    }

    fn add(&mut self, address: Address, port: Option<PortId>, end: Option<EndId>) -> Actor {
        self.actors.push(Role {
            address,
            port,
            end,
            has_ended: false,
            heard: Vec::new(),
            error: None,
            ending: None,
            reads: true,
        });
        Actor(self.actors.len() - 1)
    }

    #[track_caller]
    fn role(&mut self, who: Actor) -> &mut Role {
        match self.actors.get_mut(who.0) {
            Some(role) => role,
            None => panic!("there is no such actor in this scene: it belongs to another"),
        }
    }

    #[track_caller]
    fn with_network<T>(&mut self, who: Actor, ask: impl FnOnce(&Role, &Network) -> T) -> T {
        self.role(who);
        ask(&self.actors[who.0], &self.sim.network().borrow())
    }

    /// Adds a client that connects to something the reactor listens on.
    ///
    /// # Panics
    /// If `address` is not an IP address and port.
    #[track_caller]
    pub fn dials(&mut self, address: &str) -> Actor {
        let actor = self.dials_deaf(address);
        self.reads(actor, true);
        actor
    }

    /// Adds a client that connects, and reads nothing until [`reads`](Self::reads) says so: it does not even take a
    /// greeting.
    ///
    /// # Panics
    /// If `address` is not an IP address and port.
    #[track_caller]
    pub fn dials_deaf(&mut self, address: &str) -> Actor {
        self.assert_own_sim();
        let to = literal(address);
        let mut network = self.sim.network().borrow_mut();
        let end = network.connect(self.outside, &to, None, usize::MAX).expect("nothing fails outside");
        let local = network.local(end).expect("it has just been opened");
        drop(network);
        let actor = self.add(local, None, Some(end));
        self.reads(actor, false);
        actor
    }

    /// Adds a server that waits for the reactor's next connect to this address. With port 0 the network chooses one; then
    /// [`address`](Self::address) says which.
    ///
    /// # Panics
    /// If `address` is not an IP address and port, or somebody else listens there.
    #[track_caller]
    pub fn serves(&mut self, address: &str) -> Actor {
        self.assert_own_sim();
        let at = literal(address);
        let how = ListenHow { backlog: 1024, reuse_port: false, v6only: None };
        let listening = self.sim.network().borrow_mut().listen(self.outside, &at, how, usize::MAX);
        let actor = match listening {
            Ok((port, local)) => self.add(local, Some(port), None),
            Err(Errno::AddressInUse) => panic!("`{address}` cannot be served: somebody else listens there"),
            Err(errno) => panic!("`{address}` cannot be served: {errno:?}"),
        };
        self.settles();
        actor
    }

    /// Where the actor is: what a client has connected from, what a server listens on. It keeps the address when the
    /// connection ends.
    ///
    /// # Panics
    /// If the actor belongs to another scene, as for every method that takes an actor.
    #[track_caller]
    pub fn address(&mut self, who: Actor) -> Address {
        self.role(who).address.clone()
    }

    /// The actor sends all of it, as far as the reactor takes it at once. If the reactor ends the connection in the middle
    /// of it, the rest is lost.
    ///
    /// # Panics
    /// If the actor is not connected, has ended its side, or the reactor does not take it all without time passing.
    #[track_caller]
    pub fn says(&mut self, who: Actor, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        let mut rest = bytes;
        if rest.is_empty() {
            return self.settles();
        }
        let end = self.connected(who, "cannot say anything");
        assert!(!self.role(who).has_ended, "the actor cannot say anything: it has ended its side");
        while !rest.is_empty() {
            let sent = self.sim.network().borrow_mut().send(end, &[IoSlice::new(rest)]);
            match sent {
                Ok(moved) => rest = &rest[moved.bytes..],
                Err(Errno::Again) => panic!(
                    "{} bytes cannot be said without time passing: the reactor does not read, or others are still on their way",
                    rest.len()
                ),
                Err(errno) => {
                    self.role(who).error.get_or_insert(errno);
                    assert!(rest.len() < bytes.len(), "the actor cannot say anything: its connection is gone: {errno:?}");
                    break; // it was broken off meanwhile: what follows will say so
                }
            }
            self.settles();
        }
        self
    }

    /// The actor ends its side (FIN), and goes on reading.
    ///
    /// # Panics
    /// If it is not connected, or has already done so.
    #[track_caller]
    pub fn ends(&mut self, who: Actor) -> &mut Self {
        let end = self.connected(who, "cannot end its side");
        let had_ended = std::mem::replace(&mut self.role(who).has_ended, true);
        assert!(!had_ended, "the actor cannot end its side: it has done so before");
        self.sim.network().borrow_mut().shutdown_write(end);
        self.settles()
    }

    /// The actor closes (close(2)): it neither sends nor reads any more. If something is unread, that is a reset.
    ///
    /// # Panics
    /// If it has no connection: it has already closed or reset it, or nobody has connected.
    #[track_caller]
    pub fn closes(&mut self, who: Actor) -> &mut Self {
        self.leaves(who, "cannot close", false)
    }

    /// The actor breaks the connection off (RST).
    ///
    /// # Panics
    /// The same as for [`closes`](Self::closes).
    #[track_caller]
    pub fn resets(&mut self, who: Actor) -> &mut Self {
        self.leaves(who, "cannot reset", true)
    }

    #[track_caller]
    fn leaves(&mut self, who: Actor, in_vain: &str, by_reset: bool) -> &mut Self {
        self.settles();
        let role = self.role(who);
        let (absence, end) = (role.absence(), role.end.take());
        let Some(end) = end else { panic!("the actor {in_vain}: {}", absence.unwrap_or_default()) };
        self.sim.network().borrow_mut().close(end, by_reset);
        self.settles()
    }

    /// Sets whether the actor reads: if not, its window fills.
    #[track_caller]
    pub fn reads(&mut self, who: Actor, on: bool) -> &mut Self {
        self.role(who).reads = on;
        self.settles()
    }

    /// Checks that exactly this was sent to the actor since it was last asked.
    ///
    /// # Panics
    /// If anything else came.
    #[track_caller]
    pub fn hears(&mut self, who: Actor, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.hears_or(who, bytes.as_ref(), |_| None)
    }

    /// The same; `remark` knows better than the actor why nothing more came.
    #[track_caller]
    pub(super) fn hears_or(&mut self, who: Actor, bytes: &[u8], remark: impl FnOnce(&mut Self) -> Option<String>) -> &mut Self {
        self.settles();
        let role = self.role(who);
        let heard = std::mem::take(&mut role.heard);
        if heard != bytes {
            let seen = self.with_network(who, Role::remark);
            let remark = remark(self).unwrap_or(seen);
            panic!("{}{remark}", difference(&heard, bytes));
        }
        self
    }

    /// The next bytes that were sent to the actor, at most this many.
    #[track_caller]
    pub fn hears_some(&mut self, who: Actor, most: usize) -> Vec<u8> {
        self.settles();
        let heard = &mut self.role(who).heard;
        heard.drain(..most.min(heard.len())).collect()
    }

    /// Everything that was sent to the actor since it was last asked.
    #[track_caller]
    pub fn takes(&mut self, who: Actor) -> Vec<u8> {
        self.hears_some(who, usize::MAX)
    }

    /// Checks that the reactor ended its side or broke the connection off, and that everything that was sent was heard.
    ///
    /// # Panics
    /// If that is not so, or there was no connection: it was refused, or nobody has connected.
    #[track_caller]
    pub fn hears_end(&mut self, who: Actor) -> &mut Self {
        self.hears(who, b"");
        match (self.role(who).ending, self.with_network(who, Role::obstacle)) {
            (Some(Ending::Broken(Errno::ConnectionRefused | Errno::HostUnreachable)), Some(obstacle)) => {
                panic!("there was no connection that could end: {obstacle}")
            }
            (Some(_), _) => self,
            (None, obstacle) => panic!("no end has come: {}", obstacle.as_deref().unwrap_or("the connection is still open")),
        }
    }

    /// Checks that the reactor broke the connection off (RST), and that everything that was sent was heard.
    ///
    /// # Panics
    /// If that is not so: it is open, has ended properly, or there was none.
    #[track_caller]
    pub fn hears_reset(&mut self, who: Actor) -> &mut Self {
        self.hears_end(who);
        let is_reset = matches!(self.role(who).ending, Some(Ending::Broken(_)));
        assert!(is_reset, "no reset has come: the reactor ended its side properly");
        self
    }

    /// How many bytes were sent to the actor since it was last asked.
    #[track_caller]
    pub fn heard(&mut self, who: Actor) -> usize {
        self.heard_bytes(who).len()
    }

    /// What was sent to the actor since it was last asked, without asking: [`hears`](Self::hears) and the others still get
    /// it.
    #[track_caller]
    pub fn heard_bytes(&mut self, who: Actor) -> &[u8] {
        self.settles();
        &self.role(who).heard
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    ///
    /// # Panics
    /// If the reactor spins, as for [`Sim::settle`].
    #[track_caller]
    pub fn passes(&mut self, time: Duration) -> &mut Self {
        self.settles();
        let end = self.sim.network().borrow().now + time;
        while self.sim.step(end) {
            self.settles(); // actors read as it comes
        }
        self.sim.network().borrow_mut().advance(end);
        self.settles()
    }

    /// Lets everything happen that can happen without time passing.
    ///
    /// # Panics
    /// If the reactor spins, as for [`Sim::settle`].
    #[track_caller]
    pub fn settles(&mut self) -> &mut Self {
        self.assert_own_sim();
        let mut moment = self.sim.moment();
        loop {
            self.sim.settle_in(&mut moment);
            let acted = (0..self.actors.len()).filter(|&actor| self.act(actor)).count();
            if acted == 0 {
                return self;
            }
        }
    }

    /// The connections that the reactor has, with a handler.
    #[track_caller]
    pub fn connections(&mut self) -> usize {
        self.settles();
        let counts = self.sim.reactor(self.host).core().hub.counts;
        counts.accepted + counts.opened
    }

    /// The actor's end of its connection; it must have one. It may still be on its way.
    #[track_caller]
    fn connected(&mut self, who: Actor, in_vain: &str) -> EndId {
        self.settles();
        match (self.with_network(who, Role::obstacle), self.role(who).end) {
            (None, Some(end)) => end,
            (obstacle, _) => panic!("the actor {in_vain}: {}", obstacle.unwrap_or_default()),
        }
    }

    /// Accepts and reads what it can; says whether anything came.
    fn act(&mut self, actor: usize) -> bool {
        let role = &mut self.actors[actor];
        let mut network = self.sim.network().borrow_mut();
        if let Some(port) = role.port {
            if let Ok((end, _)) = network.accept(port, usize::MAX) {
                network.stop_listening(port);
                (role.port, role.end) = (None, Some(end));
                return true;
            }
        }
        let (Some(end), true, None) = (role.end, role.reads, role.ending) else { return false };
        let mut buf = [0; 4096];
        match network.recv(end, &mut buf) {
            Ok(moved) if moved.bytes > 0 => role.heard.extend_from_slice(&buf[..moved.bytes]),
            Ok(_) => role.ending = Some(role.error.map_or(Ending::Finish, Ending::Broken)),
            Err(Errno::Again) => return false,
            Err(errno) => role.ending = Some(Ending::Broken(errno)),
        }
        true
    }
}

#[track_caller]
pub(super) fn literal(address: &str) -> Address {
    match Target::from(address).address() {
        Ok(address @ Address::Ip(_)) => address,
        Ok(_) => panic!("`{address}` is not an IP address and port, which is all that a simulated network has"),
        Err(error) => panic!("`{}` is not an IP address and port: {error}", address.escape_debug()),
    }
}

fn difference(got: &[u8], wanted: &[u8]) -> String {
    let at = got.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let show =
        |bytes: &[u8]| bytes[at.saturating_sub(20).min(bytes.len())..].iter().take(SHOWN_MAX).copied().collect::<Vec<u8>>();
    format!(
        "{} bytes came, {} were expected; they differ from byte {at} on\n     got: \"{}\"\nexpected: \"{}\"",
        got.len(),
        wanted.len(),
        show(got).escape_ascii(),
        show(wanted).escape_ascii()
    )
}

impl<S> fmt::Debug for Scene<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("sim", &self.sim).field("actors", &self.actors.len()).finish_non_exhaustive()
    }
}
