//! The operating system as a world: mio's selector, sockets made through socket2. Each kind of socket has its own file,
//! which opens it and accepts from it; what is here applies to all of them.

mod adopting;
mod blocking;
#[cfg(unix)]
mod descriptor;
mod split;
mod stdio;
mod tcp;
mod packets;
#[cfg(unix)]
mod sequenced;
#[cfg(feature = "udp-batch")]
mod batch;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod socket_file;
mod sources;
mod spare;
mod workers;

#[cfg(all(unix, feature = "signals"))]
use super::Signals;
#[cfg(unix)]
use super::registered::Registration;
use super::{BindHow, Event, ListenHow, Listener, Opened, PacketSocket, Source, Stands, Stream, Which, World};
use crate::{address::Address, flags::Flags, time::Time};
use blocking::{Notices, Notifier, lock};
use mio::{Events, Poll, Registry, Token, Waker};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use sources::{every_interest, interests, is_always_ready, make_non_blocking, ready, register_again, with_source};
use spare::Spare;
use std::{
    cell::OnceCell,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
pub(crate) use workers::OsWorkers;

/// No slot has this index.
const WAKER: Token = Token(usize::MAX);

/// One wait reports at most this many; the others come with the next.
const EVENTS_MAX: usize = 1024;

pub(crate) struct OsWorld {
    poll: Poll,
    /// A second handle of the selector, shared by all listeners, which register what they accept.
    registry: Rc<Registry>,
    events: Events,
    began: Instant,
    /// 0: nobody has asked yet.
    random: u64,
    spin: Duration,
    spare: Rc<Spare>,
    /// Made with the first thread that has something to report.
    notices: OnceCell<Notices>,
    /// Wakes the loop, from any thread.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl OsWorld {
    /// `spin`: how long it keeps looking for events before it sleeps.
    pub(crate) fn new(spin: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = Rc::new(poll.registry().try_clone()?);
        Ok(Self {
            poll,
            registry,
            events: Events::with_capacity(EVENTS_MAX),
            began: Instant::now(),
            random: 0,
            spin,
            spare: Rc::default(),
            notices: OnceCell::new(),
            wake: None,
        })
    }

    fn poll(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        if self.spin.is_zero() || at_most == Some(Duration::ZERO) {
            return self.poll.poll(&mut self.events, at_most);
        }
        let began = Instant::now();
        let spin = at_most.map_or(self.spin, |at_most| at_most.min(self.spin));
        while began.elapsed() < spin {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
        }
        self.poll.poll(&mut self.events, at_most.map(|at_most| at_most.saturating_sub(began.elapsed())))
    }
}

impl World for OsWorld {
    fn now(&self) -> Time {
        Time::default() + self.began.elapsed()
    }

    fn instant(&self, at: Time) -> Instant {
        self.began + at.since(Time::default())
    }

    fn wait(&mut self, into: &mut Vec<Event>, at_most: Option<Duration>) -> io::Result<()> {
        match self.poll(at_most) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            if event.token() != WAKER {
                into.push(Event { token: event.token().0, ready: ready(event) });
            }
        }
        if let Some(notices) = self.notices.get() {
            into.append(&mut lock(notices));
        }
        Ok(())
    }

    fn register_again(&mut self, stream: &mut Stream, token: usize) -> io::Result<()> {
        register_again(&self.registry, stream, token)
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        let waker = Waker::new(&self.registry, WAKER)?;
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Err(error) = waker.wake() {
                log::error!(target: "mainspring", "cannot wake the loop: {error}");
            }
        });
        self.wake = Some(Arc::clone(&wake));
        Ok(wake)
    }

    #[cfg(all(
        any(
            target_os = "linux",
            target_os = "android",
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "dragonfly",
            target_os = "netbsd",
            target_os = "openbsd"
        ),
        not(mio_unsupported_force_poll_poll)
    ))]
    fn selector(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&*self.registry))
    }

    fn which(&mut self) -> Which<'_> {
        Which::Os(self)
    }
}

/// What not every program asks of it.
impl OsWorld {
    /// xorshift64*, for jitter: not for secrets.
    pub(super) fn random(&mut self) -> u64 {
        if self.random == 0 {
            self.random = RandomState::new().hash_one(0) | 1;
        }
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn listen(&mut self, at: &Address, how: ListenHow, token: usize) -> io::Result<(Box<dyn Listener>, Address)> {
        let registry = Rc::clone(&self.registry);
        let spare = Rc::clone(&self.spare);
        let listening = match at {
            Address::Ip(addr) => tcp::listen(*addr, how, registry, spare, token),
            #[cfg(unix)]
            Address::Unix(Some(_)) | Address::Abstract(_) => unix::listen(at, how, registry, spare, token),
            _ => Err(unsupported(at)),
        }?;
        // Without it nobody could be let in, or sent away: new clients would wait for ever.
        self.spare.fill()?;
        Ok(listening)
    }

    pub(super) fn connect(&mut self, to: &Address, from: Option<SocketAddr>, token: usize) -> io::Result<Stream> {
        match to {
            Address::Ip(addr) => tcp::connect(*addr, from, &self.registry, token),
            #[cfg(unix)]
            Address::Unix(Some(_)) | Address::Abstract(_) => unix::connect(to, Rc::clone(&self.registry), token),
            _ => Err(unsupported(to)),
        }
    }

    pub(super) fn bind(&mut self, how: &BindHow, token: usize) -> io::Result<Opened> {
        packets::bind(how, Rc::clone(&self.registry), token)
    }

    pub(super) fn bind_on(&mut self, socket: PacketSocket, how: &BindHow, token: usize) -> io::Result<Opened> {
        packets::bind_on(socket, how, Rc::clone(&self.registry), token)
    }

    #[cfg(all(unix, feature = "signals"))]
    pub(super) fn hook_signals(&mut self, signals: &[i32], _: usize) -> io::Result<Signals> {
        super::signals::hook(signals)
    }

    pub(super) fn watch(&mut self, mut source: Source<'_>, token: usize) -> io::Result<bool> {
        if is_always_ready(&source) {
            return Ok(false);
        }
        match with_source(source.again(), |source| self.registry.register(source, Token(token), every_interest())) {
            #[cfg(unix)]
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(false), // epoll_ctl(2): a file, /dev/null
            other => other?,
        }
        make_non_blocking(&source).inspect_err(|_| _ = self.unwatch(source)).map(|()| true)
    }

    pub(super) fn watch_for(&mut self, source: Source<'_>, what: Flags, token: usize) -> io::Result<()> {
        let Some(interests) = interests(what) else {
            let _ = self.unwatch(source); // poll(2) may have dropped it
            return Ok(());
        };
        with_source(source, |source| match self.registry.reregister(source, Token(token), interests) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = self.registry.deregister(source); // one of mio's own still believes that it is registered
                self.registry.register(source, Token(token), interests)
            }
            other => other,
        })
    }

    pub(super) fn stands(&mut self, source: Source<'_>, what: Flags) -> Stands {
        sources::stands(source, what).unwrap_or(Stands::No)
    }

    pub(super) fn unwatch(&mut self, source: Source<'_>) -> io::Result<()> {
        with_source(source, |source| self.registry.deregister(source))
    }
}

/// What those need that register by themselves, or wake the loop.
impl OsWorld {
    #[cfg(unix)]
    fn registration(&self, token: usize) -> Registration {
        Registration::new(Rc::clone(&self.registry), token)
    }

    fn notifier(&self, token: usize) -> io::Result<Notifier> {
        let wake = self.wake.clone().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Notifier { notices: Arc::clone(self.notices.get_or_init(Notices::default)), wake, token })
    }
}

/// The caller has to ask for something else.
fn refused(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

fn unsupported(address: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("`{address}` names nothing that this system can listen on or connect to"))
}

fn non_blocking(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connecting goes on in the background.
fn begin_connect(socket: &Socket, to: &SockAddr) -> io::Result<()> {
    match socket.connect(to) {
        #[cfg(unix)]
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        #[cfg(windows)]
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}
