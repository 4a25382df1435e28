//! Scripted peers around one reactor.

use super::sim::{Host, Sim};
use crate::{
    address::{Address, Target},
    config::Config,
    contract::Net,
    world::sim::{EndId, Errno, Fate, HostId, NameFate, PortId, Weather},
};
use std::{fmt, io::IoSlice, time::Duration};

/// How many bytes of a mismatch are shown.
const SHOWN_MAX: usize = 200;

/// A simulated network around a reactor: you play the peers, by a script.
///
/// The reactor may listen on and connect to any IP address; whatever it listens on you can dial, whatever it connects to you
/// can serve. Time passes only when you say so.
pub struct Scene<S> {
    sim: Sim,
    host: Host<S>,
    outside: HostId,
    actors: Vec<Role>,
}

/// One of the scripted peers of a [`Scene`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor(usize);

/// What an actor is.
struct Role {
    /// It serves here, as long as nobody has come.
    port: Option<PortId>,
    end: Option<EndId>,
    /// Received and not yet asked for.
    heard: Vec<u8>,
    has_end: bool,
    reads: bool,
}

impl<S: 'static> Scene<S> {
    /// A reactor with its state, and a network of which the seed draws what happens by chance.
    pub fn new(seed: u64, state: S) -> Self {
        Self::with_config(seed, state, Config::default())
    }

    /// The same with bounds of the reactor.
    pub fn with_config(seed: u64, state: S, config: Config) -> Self {
        let mut sim = Sim::new(seed);
        let host = sim.seat("127.0.0.1", true, state, config);
        let outside = sim.add_machine("outside", true);
        Self { sim, host, outside, actors: Vec::new() }
    }

    /// Everything of the reactor, as before the loop.
    pub fn net(&mut self) -> Net<'_, S> {
        self.sim.net(self.host)
    }

    /// The reactor's state.
    pub fn state(&mut self) -> &mut S {
        self.sim.state(self.host)
    }

    /// The simulation below, for everything that a scene has no word for.
    pub fn sim(&mut self) -> &mut Sim {
        &mut self.sim
    }

    pub(super) fn host(&self) -> Host<S> {
        self.host
    }

    /// How the network behaves from now on.
    pub fn set_weather(&mut self, weather: Weather) -> &mut Self {
        self.sim.set_weather(weather);
        self
    }

    /// What connecting to an address comes to.
    pub fn set_fate(&mut self, address: &str, how: Fate) -> &mut Self {
        self.sim.set_fate(address, how);
        self
    }

    /// The addresses of a name, the preferred one first. No other name exists.
    ///
    /// # Panics
    /// If one of them is no IP address.
    pub fn name(&mut self, host: &str, addresses: &[&str]) -> &mut Self {
        self.sim.name(host, addresses);
        self
    }

    /// What looking a name up comes to; `None` is that it is found.
    pub fn set_name_fate(&mut self, host: &str, fate: impl Into<Option<NameFate>>) -> &mut Self {
        self.sim.set_name_fate(host, fate);
        self
    }

    fn add(&mut self, port: Option<PortId>, end: Option<EndId>) -> Actor {
        self.actors.push(Role { port, end, heard: Vec::new(), has_end: false, reads: true });
        Actor(self.actors.len() - 1)
    }

    /// A client that connects to something the reactor listens on.
    ///
    /// # Panics
    /// If `address` is no IP address and port.
    pub fn dials(&mut self, address: &str) -> Actor {
        let to = literal(address);
        let end = self.sim.network().borrow_mut().connect(self.outside, &to, None, usize::MAX).expect("nothing fails outside");
        let actor = self.add(None, Some(end));
        self.settles();
        actor
    }

    /// A server that waits for the reactor's next connect to this address.
    ///
    /// # Panics
    /// If `address` is no IP address and port, or another actor serves it.
    pub fn serves(&mut self, address: &str) -> Actor {
        let at = literal(address);
        let listening = self.sim.network().borrow_mut().listen(self.outside, &at, 1024, usize::MAX);
        let (port, _) = listening.unwrap_or_else(|errno| panic!("`{address}` cannot be served: {errno:?}"));
        let actor = self.add(Some(port), None);
        self.settles();
        actor
    }

    /// The actor sends, all of it: as far as the reactor takes it at once.
    ///
    /// # Panics
    /// If it is not connected, or the reactor does not take it all without time passing.
    pub fn says(&mut self, who: Actor, bytes: impl AsRef<[u8]>) -> &mut Self {
        let mut rest = bytes.as_ref();
        self.settles();
        while !rest.is_empty() {
            let end = self.connected(who);
            let sent = self.sim.network().borrow_mut().send(end, &[IoSlice::new(rest)]);
            match sent {
                Ok(moved) => rest = &rest[moved.bytes..],
                Err(Errno::Again) => panic!("the reactor does not read: {} bytes could not be said", rest.len()),
                Err(_) => break, // it was broken off: what follows will say so
            }
            self.settles();
        }
        self
    }

    /// The actor ends its side (FIN).
    pub fn ends(&mut self, who: Actor) -> &mut Self {
        let end = self.connected(who);
        self.sim.network().borrow_mut().shutdown_write(end);
        self.settles()
    }

    /// The actor closes (close(2)): it neither sends nor reads any more. With something unread that is a reset.
    pub fn closes(&mut self, who: Actor) -> &mut Self {
        let end = self.connected(who);
        self.actors[who.0].end = None;
        self.sim.network().borrow_mut().close(end, false);
        self.settles()
    }

    /// The actor breaks the connection off (RST).
    pub fn resets(&mut self, who: Actor) -> &mut Self {
        let end = self.connected(who);
        self.actors[who.0].end = None;
        self.sim.network().borrow_mut().close(end, true);
        self.settles()
    }

    /// Whether the actor reads: if not, its window fills.
    pub fn reads(&mut self, who: Actor, on: bool) -> &mut Self {
        self.actors[who.0].reads = on;
        self.settles()
    }

    /// Exactly this was sent to the actor since it was last asked.
    ///
    /// # Panics
    /// If anything else came.
    #[track_caller]
    pub fn hears(&mut self, who: Actor, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.settles();
        let heard = std::mem::take(&mut self.actors[who.0].heard);
        assert_same(&heard, bytes.as_ref());
        self
    }

    /// The next bytes that were sent to the actor, at most so many.
    pub fn hears_some(&mut self, who: Actor, most: usize) -> Vec<u8> {
        self.settles();
        let heard = &mut self.actors[who.0].heard;
        heard.drain(..most.min(heard.len())).collect()
    }

    /// Everything that was sent to the actor since it was last asked.
    pub fn takes(&mut self, who: Actor) -> Vec<u8> {
        self.hears_some(who, usize::MAX)
    }

    /// The reactor ended its side, and nothing that was sent is left unheard.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn hears_end(&mut self, who: Actor) -> &mut Self {
        self.hears(who, b"");
        assert!(self.actors[who.0].has_end, "the connection is still open");
        self
    }

    /// How many bytes were sent to the actor since it was last asked.
    pub fn heard(&mut self, who: Actor) -> usize {
        self.settles();
        self.actors[who.0].heard.len()
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    pub fn passes(&mut self, time: Duration) -> &mut Self {
        let end = self.sim.now() + time;
        self.settles();
        // In steps, so that actors read as it comes.
        while self.sim.now() < end {
            let step = (end - self.sim.now()).min(STEP);
            self.sim.run_for(step);
            self.settles();
        }
        self
    }

    /// Lets everything happen that happens without time passing.
    pub fn settles(&mut self) -> &mut Self {
        loop {
            self.sim.settle();
            let acted = (0..self.actors.len()).filter(|&actor| self.act(actor)).count();
            if acted == 0 {
                return self;
            }
        }
    }

    /// The connections that the reactor has, with a handler.
    pub fn connections(&mut self) -> usize {
        self.settles();
        let counts = self.sim.reactor(self.host).core().hub.counts;
        counts.accepted + counts.opened
    }

    fn connected(&mut self, who: Actor) -> EndId {
        self.settles();
        self.actors[who.0].end.expect("the actor is not connected (or has reset its connection)")
    }

    /// Accepts and reads what it can; whether anything came.
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
        let (Some(end), true, false) = (role.end, role.reads, role.has_end) else { return false };
        let mut buf = [0; 4096];
        match network.recv(end, &mut buf) {
            Ok(moved) if moved.bytes > 0 => role.heard.extend_from_slice(&buf[..moved.bytes]),
            Err(Errno::Again) => return false,
            Ok(_) | Err(_) => role.has_end = true,
        }
        true
    }
}

/// How finely a scene lets time pass.
const STEP: Duration = Duration::from_millis(100);

fn literal(address: &str) -> Address {
    match Target::from(address).address() {
        Ok(address @ Address::Ip(_)) => address,
        _ => panic!("`{address}` is no IP address and port, which is what a scene has"),
    }
}

#[track_caller]
pub(super) fn assert_same(got: &[u8], wanted: &[u8]) {
    if got == wanted {
        return;
    }
    let at = got.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let show =
        |bytes: &[u8]| bytes[at.saturating_sub(20).min(bytes.len())..].iter().take(SHOWN_MAX).copied().collect::<Vec<u8>>();
    panic!(
        "{} bytes came, {} were expected; they differ from byte {at} on\n     got: \"{}\"\nexpected: \"{}\"",
        got.len(),
        wanted.len(),
        show(got).escape_ascii(),
        show(wanted).escape_ascii()
    );
}

impl<S> fmt::Debug for Scene<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("sim", &self.sim).field("actors", &self.actors.len()).finish_non_exhaustive()
    }
}
