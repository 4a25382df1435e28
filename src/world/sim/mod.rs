//! The simulated world: a host on a simulated network, in virtual time. A wait never sleeps: it says until when it would
//! have slept, and the scheduler decides who has the next turn.

mod adopting;
mod errno;
mod network;
mod trace;
mod weather;
mod work;

#[cfg(all(unix, feature = "signals"))]
use super::Signals;
use super::{
    BindHow, Event, Interface, ListenHow, Listener, Moved, Opened, PacketSocket, PacketTransport, Source, Stands, Stream, Which,
    Workers, World,
    packets::not_there,
    transport::{SEND_MAX, Transport, first},
};
use crate::{
    address::Address,
    adopted::Adopted,
    flags::Flags,
    key::Number,
    names::{Lookup, Question as NameQuestion},
    pool::{Capacity, Job, PURPOSES, Purpose, Refused, Ticket},
    time::Time,
};
use adopting::Handed;
pub(crate) use adopting::{pair, pipe, pipes};
pub use errno::Errno;
pub(crate) use network::{BoxId, EndId, HostId, Mercy, Network, PortId, Question, Torture, question_of, question_text};
pub use network::{Fate, NameFate};
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
pub use weather::{Kernel, Weather};
use work::Crew;

pub(crate) type SharedNetwork = Rc<RefCell<Network>>;

/// What the last wait of a host asked for.
pub(crate) type WakeTime = Rc<std::cell::Cell<Time>>;

pub(crate) struct SimWorld {
    network: SharedNetwork,
    host: HostId,
    /// It would have slept until then.
    sleeps_until: WakeTime,
    /// What virtual time zero is for code that asks for an `Instant`; only differences mean anything.
    epoch: Instant,
    was_interrupted: bool,
    crews: Crews,
}

/// By purpose.
type Crews = Rc<RefCell<[Crew; PURPOSES]>>;

impl SimWorld {
    pub(crate) fn new(network: SharedNetwork, host: HostId, sleeps_until: WakeTime) -> Self {
        network.borrow_mut().machines[host].has_reactor = true;
        Self { network, host, sleeps_until, epoch: Instant::now(), was_interrupted: false, crews: Crews::default() }
    }
}

impl World for SimWorld {
    fn now(&self) -> Time {
        self.network.borrow().now
    }

    fn instant(&self, at: Time) -> Instant {
        self.epoch + at.since(Time::default())
    }

    /// The host's number, so that a run is the same whatever else the process has run before.
    fn number(&mut self) -> Number {
        Number(self.host as u8)
    }

    fn wait(&mut self, into: &mut Vec<Event>, at_most: Option<Duration>) -> io::Result<()> {
        let has_worked = self.work();
        let mut network = self.network.borrow_mut();
        match network.operate(self.host, "wait") {
            // An interruption brings nothing, once; no other failure of a wait can be survived.
            Err(Errno::Interrupted) if !std::mem::replace(&mut self.was_interrupted, true) => {}
            _ => into.extend(network.take_events(self.host).into_iter().map(|(token, ready)| Event { token, ready })),
        }
        let until = match at_most {
            None => Time::NEVER,
            Some(Duration::ZERO) => network.now,
            Some(most) => network.now + most + network.pause(),
        };
        let work = self.crews.borrow().iter().filter_map(Crew::next_end).min();
        let is_awake = has_worked || !into.is_empty();
        self.sleeps_until.set(if is_awake { network.now } else { work.into_iter().fold(until, Time::min) });
        Ok(())
    }

    fn register_again(&mut self, _: &mut Stream, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        let is_woken = Arc::clone(&self.network.borrow().machines[self.host].is_woken);
        Ok(Arc::new(move || is_woken.store(true, Ordering::Release)))
    }

    fn workers(&self) -> Option<Box<dyn Workers>> {
        Some(Box::new(SimWorkers {
            network: Rc::clone(&self.network),
            host: self.host,
            crews: Rc::clone(&self.crews),
            lookup_takes: Duration::ZERO,
        }))
    }

    fn which(&mut self) -> Which<'_> {
        Which::Sim(self)
    }
}

/// What not every program asks of it.
impl SimWorld {
    pub(super) fn random(&mut self) -> u64 {
        self.network.borrow_mut().dice.programs.u64(..)
    }

    pub(super) fn listen(&mut self, at: &Address, how: ListenHow, token: usize) -> io::Result<(Box<dyn Listener>, Address)> {
        let listening = self.network.borrow_mut().listen(self.host, at, how, token);
        let (port, local) = listening.map_err(Errno::to_error)?;
        Ok((Box::new(SimListener { network: Rc::clone(&self.network), port }), local))
    }

    pub(super) fn connect(&mut self, to: &Address, from: Option<SocketAddr>, token: usize) -> io::Result<Stream> {
        let end = self.network.borrow_mut().connect(self.host, to, from, token).map_err(Errno::to_error)?;
        Ok(stream(&self.network, end))
    }

    pub(super) fn bind(&mut self, how: &BindHow, token: usize) -> io::Result<Opened> {
        let bound = self.network.borrow_mut().bind(self.host, how, token);
        let (id, local, peer) = bound.map_err(Errno::to_error)?;
        let socket = Box::new(SimPackets { network: Rc::clone(&self.network), id });
        Ok(Opened { socket, local: local.into(), peer: peer.map(Address::from) })
    }

    pub(super) fn bind_on(&mut self, socket: PacketSocket, _: &BindHow, _: usize) -> io::Result<Opened> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{socket:?} is of the real system: a simulated world cannot wait for it"),
        ))
    }

    #[cfg(all(unix, feature = "signals"))]
    pub(super) fn hook_signals(&mut self, signals: &[i32], token: usize) -> io::Result<Signals> {
        super::signals::check(signals)?;
        let mut network = self.network.borrow_mut();
        network.operate(self.host, "signals").map_err(Errno::to_error)?;
        network.hook_signals(self.host, signals, token);
        Ok(Signals::Sim(SimSignals { network: Rc::clone(&self.network), host: self.host, token }))
    }

    pub(super) fn watch(&mut self, source: Source<'_>, _: usize) -> io::Result<bool> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{source:?} is of the real system: a simulated world cannot wait for it"),
        ))
    }

    pub(super) fn watch_for(&mut self, _: Source<'_>, _: Flags, _: usize) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn stands(&mut self, _: Source<'_>, _: Flags) -> Stands {
        Stands::No
    }

    pub(super) fn unwatch(&mut self, _: Source<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Signals of one host.
#[cfg(all(unix, feature = "signals"))]
pub(crate) struct SimSignals {
    network: SharedNetwork,
    host: HostId,
    token: usize,
}

#[cfg(all(unix, feature = "signals"))]
impl SimSignals {
    pub(super) fn take(&mut self) -> Vec<i32> {
        self.network.borrow_mut().take_signals(self.host, self.token)
    }
}

#[cfg(all(unix, feature = "signals"))]
impl Drop for SimSignals {
    fn drop(&mut self) {
        self.network.borrow_mut().unhook_signals(self.host, self.token);
    }
}

struct SimWorkers {
    network: SharedNetwork,
    host: HostId,
    crews: Crews,
    /// How long the lookup that is given to a thread next takes.
    lookup_takes: Duration,
}

impl Workers for SimWorkers {
    fn lookup(&mut self, question: NameQuestion) -> Lookup {
        let (found, takes) = self.network.borrow_mut().look_up(self.host, &question);
        self.lookup_takes = takes;
        Box::new(move || found)
    }

    /// Where an operation fails on purpose, it fails like a system that gives no thread. The wait of the next turn, which
    /// does not sleep, sees the work.
    fn spawn(&mut self, purpose: Purpose, capacity: Capacity, ticket: Ticket, job: Job) -> Result<(), (Refused, Job)> {
        let mut network = self.network.borrow_mut();
        if let Err(errno) = network.operate(self.host, "spawn") {
            return Err((Refused::NoThread(errno.to_error()), job));
        }
        let takes = match purpose {
            Purpose::Names => std::mem::take(&mut self.lookup_takes),
            Purpose::Offload | Purpose::Lanes => network.work_takes(self.host),
        };
        self.crews.borrow_mut()[purpose as usize].spawn(capacity, network.now, takes, ticket, job)
    }

    fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> Option<Job> {
        self.crews.borrow_mut()[purpose as usize].take_back(ticket)
    }

    /// There is no other thread here, and no time is lost.
    fn do_chore(&mut self, _: Purpose, _: usize, chore: Job) -> Result<(), Job> {
        Err(chore)
    }
}

impl SimWorld {
    /// Runs the work that is done by now; returns whether there was any.
    fn work(&mut self) -> bool {
        let mut has_worked = false;
        loop {
            let now = self.network.borrow().now; // the network must not be borrowed here: a job may drop one of its sockets
            let job = self.crews.borrow_mut().iter_mut().find_map(|crew| crew.finish(now));
            let Some(job) = job else { return has_worked };
            job();
            has_worked = true;
        }
    }
}

struct SimListener {
    network: SharedNetwork,
    port: PortId,
}

impl Listener for SimListener {
    fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        let (end, peer) = self.network.borrow_mut().accept(self.port, token).map_err(Errno::to_error)?;
        Ok((stream(&self.network, end), peer))
    }

    fn accept_on_spare(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        let (end, peer) = self.network.borrow_mut().accept_on_spare(self.port, token).map_err(Errno::to_error)?;
        Ok((stream(&self.network, end), peer))
    }

    fn keep_spare(&mut self) {}
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.borrow_mut().stop_listening(self.port);
    }
}

struct SimPackets {
    network: SharedNetwork,
    id: BoxId,
}

impl PacketTransport for SimPackets {
    fn recv_from(&mut self, buf: &mut [u8], from: &mut Address) -> io::Result<usize> {
        let (bytes, addr) = self.network.borrow_mut().recv_packet(self.id, buf).map_err(Errno::to_error)?;
        *from = addr.into();
        Ok(bytes)
    }

    fn hears_news(&self) -> bool {
        self.network.borrow().is_box_connected(self.id)
    }

    fn send_to(&mut self, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
        let to = to.map(|to| to.ip().ok_or_else(|| not_there(to))).transpose()?;
        self.network.borrow_mut().send_packet(self.id, bytes, to).map_err(Errno::to_error)
    }

    fn want_writable(&mut self, on: bool) -> io::Result<()> {
        self.network.borrow_mut().want_writable(self.id, on);
        Ok(())
    }

    fn join(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        if group.is_ipv6() {
            on.number()?;
        }
        self.network.borrow_mut().join_group(self.id, group, on).map_err(Errno::to_error)
    }

    fn leave(&mut self, group: IpAddr, on: Interface) -> io::Result<()> {
        if group.is_ipv6() {
            on.number()?;
        }
        self.network.borrow_mut().leave_group(self.id, group).map_err(Errno::to_error)
    }

    fn socket(&self) -> Option<socket2::SockRef<'_>> {
        None
    }
}

impl Drop for SimPackets {
    fn drop(&mut self) {
        self.network.borrow_mut().close_box(self.id);
    }
}

fn stream(network: &SharedNetwork, end: EndId) -> Stream {
    Stream::Dyn(Box::new(Box::new(SimStream { network: Rc::clone(network), end, resets: false })))
}

struct SimStream {
    network: SharedNetwork,
    end: EndId,
    resets: bool,
}

impl Transport for SimStream {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        self.network.borrow_mut().recv(self.end, buf).map_err(Errno::to_error)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        self.send_vectored(&[IoSlice::new(first(bytes, self.send_max()))])
    }

    fn send_max(&self) -> usize {
        match self.network.borrow().weather.kernel {
            Kernel::Linux => usize::MAX,
            Kernel::Windows => SEND_MAX,
        }
    }

    fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> {
        self.network.borrow_mut().send(self.end, bytes).map_err(Errno::to_error)
    }

    fn connected(&mut self) -> io::Result<bool> {
        self.network.borrow_mut().connected(self.end).map_err(Errno::to_error)
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.network.borrow_mut().take_error(self.end).map(Errno::to_error)
    }

    fn hidden_reset(&mut self) -> Option<io::Error> {
        self.network.borrow().hidden_reset(self.end).map(Errno::to_error)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.network.borrow_mut().shutdown_write(self.end);
        Ok(())
    }

    fn abort(&mut self) {
        self.resets = true;
    }

    fn local(&self) -> Option<Address> {
        self.network.borrow().local(self.end)
    }

    fn detaches(&self) -> bool {
        true
    }

    fn detach(self: Box<Self>) -> Result<Adopted, Stream> {
        self.network.borrow_mut().let_go(self.end);
        Ok(Handed::Stream(*self).into())
    }

    fn socket(&self) -> Option<socket2::SockRef<'_>> {
        None
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.network.borrow_mut().close(self.end, self.resets);
    }
}
