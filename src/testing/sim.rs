//! The simulated network as a whole, and the scheduler that steps its hosts.

use super::scene::literal;
use crate::{
    address,
    adopted::Adopted,
    config::{Config, Panics},
    contract::Net,
    key::Key,
    panics::with_those_of_drops,
    reactor::Reactor,
    time::Time,
    world::sim::{self, Errno, Fate, HostId, NameFate, Network, SharedNetwork, SimWorld, Torture, WakeTime, Weather},
};
use std::{
    any::Any,
    cell::Cell,
    cell::RefCell,
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

/// More than any host needs to do at one moment: beyond this it spins. One turn may be a thousand callbacks, or a quarter of
/// a megabyte, so with turns alone it would take minutes to notice.
const MOST: Work = Work { turns: 100_000, callbacks: 5_000_000, bytes: 1 << 30 };

const NO_SUCH_HOST: &str = "there is no such host in this simulation: it belongs to another";

/// Names a host of a [`Sim`], whose state is an `S`; in another simulation it names another host, or none.
pub struct Host<S> {
    id: HostId,
    _state: PhantomData<fn() -> S>,
}

impl<S> Clone for Host<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Host<S> {}

impl<S> fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.id)
    }
}

/// Several hosts on one simulated network, in one thread and virtual time. There is more in [the
/// chapter](crate::manual::testing#weather-and-what-you-do-yourself).
pub struct Sim {
    seed: u64,
    network: SharedNetwork,
    /// By `HostId`; `None` for those that are not reactors.
    seats: Vec<Option<Box<dyn Seat>>>,
}

/// What a host has done.
#[derive(Clone, Copy, Default)]
struct Work {
    turns: u64,
    callbacks: u64,
    bytes: u64,
}

impl Work {
    fn since(self, before: Self) -> Self {
        Self { turns: self.turns - before.turns, callbacks: self.callbacks - before.callbacks, bytes: self.bytes - before.bytes }
    }

    fn exceeds(self, most: Self) -> bool {
        self.turns > most.turns || self.callbacks > most.callbacks || self.bytes > most.bytes
    }
}

/// A moment of virtual time.
pub(super) struct Moment {
    at: Time,
    /// What each host had done when it began.
    done: Vec<Work>,
}

/// A reactor and its state, of whatever type.
trait Seat {
    /// One turn that does not sleep.
    fn turn(&mut self);
    /// Turns and callbacks so far.
    fn work(&mut self) -> (u64, u64);
    /// Until when it would sleep.
    fn sleeps_until(&self) -> Time;
    /// Something was done to it from outside.
    fn poke(&self);
    fn as_any(&mut self) -> &mut dyn Any;
}

struct Seated<S> {
    reactor: Reactor<S>,
    state: S,
    alarm: WakeTime,
    has_stopped: bool,
}

impl<S: 'static> Seat for Seated<S> {
    fn turn(&mut self) {
        // Not for ever: a reactor that has nothing left to wait for would not wait at all.
        let goes_on = with_those_of_drops(|| self.reactor.turn(&mut self.state, Duration::MAX));
        let goes_on = goes_on.expect("a simulated wait does not fail");
        self.has_stopped |= !goes_on;
    }

    fn work(&mut self) -> (u64, u64) {
        let stats = &self.reactor.core().hub.cx.stats;
        (stats.turns, stats.callbacks)
    }

    fn sleeps_until(&self) -> Time {
        self.alarm.get()
    }

    fn poke(&self) {
        self.alarm.set(Time::default());
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Sim {
    /// Makes an empty network. Everything that happens by chance is drawn from the seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, network: Rc::new(RefCell::new(Network::new(seed))), seats: Vec::new() }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets how the network behaves from now on.
    pub fn set_weather(&mut self, weather: Weather) -> &mut Self {
        self.network.borrow_mut().weather = weather;
        self
    }

    /// Adds a host, with its own IP address.
    ///
    /// # Panics
    /// If `ip` is not an IP address that a host can have, or is another host's, however it is written.
    #[track_caller]
    pub fn host<S: 'static>(&mut self, ip: &str, state: S) -> Host<S> {
        self.host_with(ip, state, Config::default())
    }

    /// Adds a host, with its own IP address and bounds. Panics always leave the simulation.
    ///
    /// # Panics
    /// The same as for [`host`](Self::host).
    #[track_caller]
    pub fn host_with<S: 'static>(&mut self, ip: &str, state: S, config: Config) -> Host<S> {
        let address = ip_address(ip);
        assert_can_be_a_host(address);
        let name = address.to_string(); // in one spelling
        assert!(self.network.borrow().machines.iter().all(|machine| machine.name != name), "{name} is another host's");
        self.seat(&name, false, state, config)
    }

    #[track_caller]
    pub(super) fn seat<S: 'static>(&mut self, name: &str, is_anywhere: bool, state: S, config: Config) -> Host<S> {
        let id = self.add_machine(name, is_anywhere);
        let alarm: WakeTime = Rc::new(Cell::new(Time::default()));
        let world = SimWorld::new(Rc::clone(&self.network), id, Rc::clone(&alarm));
        let reactor =
            Reactor::with_world(Box::new(world), config.panics(Panics::Propagate)).expect("a simulated selector is there");
        self.seats[id] = Some(Box::new(Seated { reactor, state, alarm, has_stopped: false }));
        Host { id, _state: PhantomData }
    }

    /// A machine without a reactor.
    pub(super) fn add_machine(&mut self, name: &str, is_anywhere: bool) -> HostId {
        self.seats.push(None);
        self.network.borrow_mut().add_machine(name, is_anywhere)
    }

    #[track_caller]
    fn seated<S: 'static>(&mut self, host: Host<S>) -> &mut Seated<S> {
        let seat = self.seats.get_mut(host.id).and_then(Option::as_mut);
        seat.and_then(|seat| {
            seat.poke();
            seat.as_any().downcast_mut()
        })
        .expect(NO_SUCH_HOST)
    }

    /// Which machine it is.
    #[track_caller]
    fn id_of<S>(&self, host: Host<S>) -> HostId {
        assert!(host.id < self.seats.len(), "{NO_SUCH_HOST}");
        host.id
    }

    /// Every socket and timer of one host, as before the loop runs.
    #[track_caller]
    pub fn net<S: 'static>(&mut self, host: Host<S>) -> Net<'_, S> {
        self.seated(host).reactor.net()
    }

    /// The state of one host.
    #[track_caller]
    pub fn state<S: 'static>(&mut self, host: Host<S>) -> &mut S {
        &mut self.seated(host).state
    }

    /// The [`net`](Self::net) and the [`state`](Self::state) of one host at once, for functions that take both.
    #[track_caller]
    pub fn with<S: 'static, T>(&mut self, host: Host<S>, run: impl FnOnce(&mut Net<'_, S>, &mut S) -> T) -> T {
        let seated = self.seated(host);
        run(&mut seated.reactor.net(), &mut seated.state)
    }

    #[track_caller]
    pub(super) fn reactor<S: 'static>(&mut self, host: Host<S>) -> &mut Reactor<S> {
        &mut self.seated(host).reactor
    }

    pub(super) fn network(&self) -> &SharedNetwork {
        &self.network
    }

    /// Makes the two ends of a stream within one host, as by socketpair(2), for the host to [adopt](Net::adopt). The weather
    /// does to this stream what it does to others.
    #[track_caller]
    pub fn pair<S>(&mut self, host: Host<S>) -> (Adopted, Adopted) {
        let id = self.id_of(host);
        sim::pair(&self.network, id)
    }

    /// Sends a signal to the process of one host: whoever waits for it there by [`Net::on_signal`] is told in the host's
    /// next turn. `false`: nobody waits, and a real process would do what the signal does by default.
    #[cfg(all(unix, feature = "signals"))]
    #[track_caller]
    pub fn raise<S>(&mut self, host: Host<S>, signal: i32) -> bool {
        let id = self.id_of(host);
        self.network.borrow_mut().raise(id, signal)
    }

    /// Makes a pipe within one host: the end that is read, and the end that is written to. The weather delays and cuts it
    /// like any stream, but it does not reset a pipe: a pipe breaks when nobody has its reader any more.
    #[track_caller]
    pub fn pipe<S>(&mut self, host: Host<S>) -> (Adopted, Adopted) {
        let id = self.id_of(host);
        sim::pipe(&self.network, id)
    }

    /// Makes two pipes within one host, crossed: each of the two reads what the other writes, like a program and its child.
    #[track_caller]
    pub fn pipes<S>(&mut self, host: Host<S>) -> (Adopted, Adopted) {
        let id = self.id_of(host);
        sim::pipes(&self.network, id)
    }

    /// Ends everything of one host now, by its [`Reactor::shutdown`].
    #[track_caller]
    pub fn shutdown<S: 'static>(&mut self, host: Host<S>) {
        let seated = self.seated(host);
        with_those_of_drops(|| seated.reactor.shutdown(&mut seated.state));
    }

    /// Whether its `run` would have returned by now.
    #[track_caller]
    pub fn has_stopped<S: 'static>(&mut self, host: Host<S>) -> bool {
        self.seated(host).has_stopped
    }

    // -------------------------------------------------------------------------------------------------------- time

    /// The time since the simulation began.
    pub fn now(&self) -> Duration {
        self.network.borrow().now.since(Time::default())
    }

    /// Lets everything happen that can happen without time passing. (Time does pass when an operation fails on purpose.)
    ///
    /// # Panics
    /// If a host spins: without time passing, it has had more than a hundred thousand turns, or five million callbacks, or
    /// has moved more than a gigabyte.
    #[track_caller]
    pub fn settle(&mut self) -> &mut Self {
        let mut moment = self.moment();
        self.settle_in(&mut moment)
    }

    /// The current moment, of which nothing has been spent yet.
    pub(super) fn moment(&mut self) -> Moment {
        let done = (0..self.seats.len()).map(|host| self.work(host)).collect();
        Moment { at: self.network.borrow().now, done }
    }

    /// The same as [`settle`](Self::settle), as a part of what happens at one moment.
    #[track_caller]
    pub(super) fn settle_in(&mut self, moment: &mut Moment) -> &mut Self {
        let now = self.network.borrow().now;
        if now > moment.at {
            *moment = self.moment();
        }
        self.network.borrow_mut().advance(now);
        while let Some(host) = self.choose_runnable() {
            self.seats[host].as_mut().expect("chosen among seats").turn();
            self.assert_no_spin(host, moment);
            let mut network = self.network.borrow_mut();
            if network.now > now {
                break;
            }
            network.advance(now);
        }
        self
    }

    fn work(&mut self, host: HostId) -> Work {
        let (turns, callbacks) = self.seats[host].as_mut().map_or((0, 0), |seat| seat.work());
        Work { turns, callbacks, bytes: self.network.borrow().machines[host].bytes }
    }

    #[track_caller]
    fn assert_no_spin(&mut self, host: HostId, moment: &Moment) {
        let work = self.work(host).since(moment.done[host]);
        if work.exceeds(MOST) {
            let Work { turns, callbacks, bytes } = work;
            let (seed, now, name) = (self.seed, self.now(), self.network.borrow().machines[host].name.clone());
            panic!(
                "seed {seed}: a host spins: at {now:?} {name} has had {turns} turns and {callbacks} callbacks, and moved {bytes} \
                 bytes, and no time has passed; if so much is meant, let the weather take time for it (latency, bandwidth)"
            );
        }
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    ///
    /// # Panics
    /// If a host spins, as for [`settle`](Self::settle).
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) -> &mut Self {
        let end = self.network.borrow().now + time;
        self.settle();
        while self.step(end) {}
        self.network.borrow_mut().advance(end);
        self.settle()
    }

    /// Lets time pass until `done`, for at most this long; returns whether it came true. If not, all of that time has
    /// passed.
    ///
    /// # Panics
    /// If a host spins, as for [`settle`](Self::settle).
    #[track_caller]
    pub fn run_until(&mut self, most: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.network.borrow().now + most;
        self.settle();
        loop {
            if done(self) {
                return true;
            }
            self.settle(); // `done` may have poked somebody
            if !self.step(end) {
                self.network.borrow_mut().advance(end);
                return done(self.settle()); // it may ask for the time
            }
        }
    }

    /// Goes to the next moment at which something happens, unless that is later than `end`.
    #[track_caller]
    pub(super) fn step(&mut self, end: Time) -> bool {
        let Some(next) = self.next_moment().filter(|&next| next <= end) else { return false };
        self.network.borrow_mut().advance(next);
        self.settle();
        true
    }

    fn next_moment(&self) -> Option<Time> {
        let network = self.network.borrow();
        let awake = self.seats.iter().enumerate().filter_map(|(id, seat)| Some((id, seat.as_ref()?)));
        let awake = awake.filter(|&(id, _)| !network.is_dead(id));
        let alarms = awake.map(|(id, seat)| if network.has_events(id) { network.now } else { seat.sleeps_until() });
        let next = alarms.filter(|&at| at != Time::NEVER).chain(network.next_time()).min()?;
        Some(next.max(network.now))
    }

    /// A host that can have a turn now; chance decides among several.
    fn choose_runnable(&mut self) -> Option<HostId> {
        let mut network = self.network.borrow_mut();
        let now = network.now;
        let is_runnable =
            |id: HostId, seat: &dyn Seat| !network.is_dead(id) && (network.has_events(id) || seat.sleeps_until() <= now);
        let runnable: Vec<HostId> =
            self.seats.iter().enumerate().filter_map(|(id, seat)| is_runnable(id, seat.as_deref()?).then_some(id)).collect();
        match runnable.len() {
            0 => None,
            1 => Some(runnable[0]),
            several => Some(runnable[network.dice.turns.usize(0..several)]),
        }
    }

    // ------------------------------------------------------------------------------------------------------ faults

    /// Lets nothing pass between the two hosts until they are [joined](Self::join); what is under way waits, or is lost if
    /// it is a datagram.
    #[track_caller]
    pub fn part<A, B>(&mut self, a: Host<A>, b: Host<B>) -> &mut Self {
        let (a, b) = (self.id_of(a), self.id_of(b));
        self.network.borrow_mut().part(a, b);
        self
    }

    /// Lets what was parted pass again.
    #[track_caller]
    pub fn join<A, B>(&mut self, a: Host<A>, b: Host<B>) -> &mut Self {
        let (a, b) = (self.id_of(a), self.id_of(b));
        self.network.borrow_mut().join(a, b);
        self
    }

    /// Switches the host off: it has no more turns, and nobody is told.
    #[track_caller]
    pub fn kill<S>(&mut self, host: Host<S>) -> &mut Self {
        let host = self.id_of(host);
        self.network.borrow_mut().kill(host);
        self
    }

    /// Sets what happens when something connects to an address, whoever listens there.
    ///
    /// # Panics
    /// If `address` is not an IP address and port.
    #[track_caller]
    pub fn set_fate(&mut self, address: &str, fate: Fate) -> &mut Self {
        let address = literal(address);
        self.network.borrow_mut().fates.insert(address, fate);
        self
    }

    /// Sets the addresses of a name, the preferred one first. No other name exists.
    ///
    /// # Panics
    /// If `host` is not a name, or one of them is not an IP address.
    #[track_caller]
    pub fn name(&mut self, host: &str, addresses: &[&str]) -> &mut Self {
        assert_name(host);
        let mut all = Vec::new();
        for text in addresses {
            all.push(ip_address(text));
        }
        self.network.borrow_mut().set_name(host, all);
        self
    }

    /// Sets what happens when a name is looked up; `None` means that it is found.
    ///
    /// # Panics
    /// If `host` is not a name.
    #[track_caller]
    pub fn set_name_fate(&mut self, host: &str, fate: impl Into<Option<NameFate>>) -> &mut Self {
        assert_name(host);
        self.network.borrow_mut().set_name_fate(host, fate.into());
        self
    }

    /// Sets how many sockets the host may have open. Beyond that the system says EMFILE, and its listeners close new
    /// clients. If the number is below what is open now, even their spare descriptor is gone: new clients wait until there
    /// are descriptors again.
    #[track_caller]
    pub fn set_sockets_max<S>(&mut self, host: Host<S>, sockets: usize) -> &mut Self {
        self.network.borrow_mut().machines[self.id_of(host)].sockets_max = sockets;
        self
    }

    /// Makes the host's `number`th operation from the beginning fail (wait, listen, accept, connect, connected, adopt, bind,
    /// recv, send, signals, spawn), once or from there on.
    #[track_caller]
    pub fn fail_operation<S>(&mut self, host: Host<S>, number: u64, errno: Errno, is_persistent: bool) -> &mut Self {
        self.network.borrow_mut().machines[self.id_of(host)].torture = Some(Torture { at: number, errno, is_persistent });
        self
    }

    /// How many operations the host has made.
    #[track_caller]
    pub fn operations<S>(&self, host: Host<S>) -> u64 {
        self.network.borrow().machines[self.id_of(host)].operations
    }

    /// How many sockets the host has open, listeners included.
    #[track_caller]
    pub fn sockets<S>(&self, host: Host<S>) -> usize {
        self.network.borrow().sockets(self.id_of(host))
    }

    /// A random number, from the simulation's seed.
    pub fn random(&mut self, below: u64) -> u64 {
        self.network.borrow_mut().dice.programs.u64(0..below.max(1))
    }

    /// Which connections were broken off, now and later: you can also ask it inside a callback.
    pub fn losses(&self) -> Losses {
        Losses { network: Rc::clone(&self.network) }
    }

    // ------------------------------------------------------------------------------------------------------- trace

    /// Every event so far, one line each.
    pub fn trace(&self) -> String {
        self.network.borrow().trace.text()
    }

    /// A digest of the trace: equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.network.borrow().trace.digest()
    }

    /// Adds a line of your own to the trace, so that you find the place.
    pub fn note(&mut self, text: &str) -> &mut Self {
        let mut network = self.network.borrow_mut();
        let now = network.now;
        network.trace.note(now, "test", format_args!("{text}"));
        drop(network);
        self
    }

    /// Sets whether a trace is kept: a simulation without one is faster.
    pub fn keep_trace(&mut self, on: bool) -> &mut Self {
        self.network.borrow_mut().trace.is_kept = on;
        self
    }
}

#[track_caller]
fn ip_address(text: &str) -> IpAddr {
    match text.parse() {
        Ok(ip) => ip,
        Err(_) => panic!("`{}` is not an IP address", text.escape_debug()),
    }
}

/// RFC 1122, 3.2.1.3, and RFC 4291, 2.5.2, 2.5.5.2 and 2.7.
#[track_caller]
fn assert_can_be_a_host(ip: IpAddr) {
    let own = ip.to_canonical();
    assert!(own == ip, "`{ip}` is {own} in the form of IPv6: name the host by that");
    assert!(!ip.is_unspecified(), "`{ip}` is every address of a host, and no host's own");
    let is_reserved = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    assert!(!ip.is_multicast() && !is_reserved, "`{ip}` is not an address of one host");
}

/// Checks that it would be looked up.
#[track_caller]
fn assert_name(host: &str) {
    match address::literal(host) {
        Ok(None) => {}
        Ok(Some(_)) => panic!("`{host}` is an address: nobody looks it up"),
        Err(error) => panic!("{error}"),
    }
}

/// What the network of a [`Sim`] has broken off.
pub struct Losses {
    network: SharedNetwork,
}

impl Losses {
    /// Whether the end at `local` of a connection with `remote` was reset, or one of its operations failed on purpose: what
    /// it had received before may still be read.
    pub fn includes(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.network.borrow().losses.contains(&(local, remote))
    }

    /// Whether that is so for the connection that has this key, or had it, whatever its addresses are.
    pub fn includes_key(&self, key: Key) -> bool {
        self.network.borrow().lost_tokens.contains(&key.token())
    }
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Losses").field("count", &self.network.borrow().losses.len()).finish()
    }
}

/// What the program asserts when it is dropped counts at the end of a test too, unless the test has failed already.
impl Drop for Sim {
    fn drop(&mut self) {
        let seats = std::mem::take(&mut self.seats);
        if !std::thread::panicking() {
            with_those_of_drops(|| drop(seats));
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).field("hosts", &self.seats.len()).field("now", &self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_of_anything_is_a_spin() {
        let just = |turns, callbacks, bytes| Work { turns, callbacks, bytes };
        assert!(!MOST.exceeds(MOST));
        for more in [just(1, 0, 0), just(0, 1, 0), just(0, 0, 1)] {
            let before = just(7, 8, 9);
            let Work { turns, callbacks, bytes } = MOST;
            let after = just(7 + turns + more.turns, 8 + callbacks + more.callbacks, 9 + bytes + more.bytes);
            assert!(after.since(before).exceeds(MOST));
        }
    }
}
