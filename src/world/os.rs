//! The operating system as a world: mio's selector, sockets made through socket2.

#[cfg(unix)]
use super::ARMS_BY_ITSELF;
use super::{Event, ListenHow, Listener, Source, Stream, World};
use crate::{
    address::Address,
    flags::*,
    names::{Lookup, Question, ask_the_system},
    pool::{Capacity, Job, Pool, Purpose, Refused, Ticket},
    time::Time,
};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// No slot has this index.
const WAKER: Token = Token(usize::MAX);

/// One wait reports at most so many; the others come with the next.
const EVENTS_MAX: usize = 1024;

pub(crate) struct OsWorld {
    poll: Poll,
    /// A second handle of the selector, shared by all listeners, which register what they accept.
    registry: Rc<Registry>,
    events: Events,
    began: Instant,
    random: u64,
    spin: Duration,
    spare: Rc<Spare>,
    /// By purpose, made when they are first needed.
    pools: [Option<Pool>; 2],
}

/// For both directions, and for what is neither: TCP's urgent data would stop a reader that is not told of it.
fn every_interest() -> Interest {
    let both = Interest::READABLE | Interest::WRITABLE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let both = both | Interest::PRIORITY;
    both
}

impl OsWorld {
    /// It looks for so long whether something has come before it sleeps.
    pub(crate) fn new(spin: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = Rc::new(poll.registry().try_clone()?);
        let random = RandomState::new().hash_one(0) | 1;
        Ok(Self {
            poll,
            registry,
            events: Events::with_capacity(EVENTS_MAX),
            began: Instant::now(),
            random,
            spin,
            spare: Rc::default(),
            pools: [None, None],
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

    /// xorshift64*, for jitter: not for secrets.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
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
        Ok(())
    }

    fn listen(&mut self, at: &Address, how: ListenHow, token: usize) -> io::Result<(Box<dyn Listener>, Address)> {
        let registry = Rc::clone(&self.registry);
        let spare = Rc::clone(&self.spare);
        let listening = match at {
            Address::Ip(addr) => tcp::listen(*addr, how, registry, spare, token),
            #[cfg(unix)]
            Address::Unix(Some(_)) | Address::Abstract(_) => unix::listen(at, how, registry, spare, token),
            _ => Err(unsupported(at)),
        }?;
        self.spare.keep();
        Ok(listening)
    }

    fn connect(&mut self, to: &Address, from: Option<SocketAddr>, token: usize) -> io::Result<Stream> {
        let mut stream = match to {
            Address::Ip(addr) => Stream::Tcp(tcp::connect(*addr, from)?),
            #[cfg(unix)]
            Address::Unix(Some(_)) | Address::Abstract(_) => Stream::Unix(unix::connect(to)?),
            _ => return Err(unsupported(to)),
        };
        register(&self.registry, &mut stream, token)?;
        Ok(stream)
    }

    fn register_again(&mut self, stream: &mut Stream, token: usize) -> io::Result<()> {
        if let Some(source) = source_of(stream) {
            let _ = self.registry.deregister(source); // it says again that it is not there
        }
        register(&self.registry, stream, token)
    }

    fn watch(&mut self, source: Source<'_>, token: usize) -> io::Result<bool> {
        let registered = with_source(source, |source| self.registry.register(source, Token(token), every_interest()));
        match registered {
            #[cfg(unix)]
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false), // epoll_ctl(2): a file, /dev/null
            other => other.map(|()| true),
        }
    }

    #[cfg_attr(not(unix), allow(unused_variables, reason = "only plain descriptors are armed again here"))]
    fn drained(&mut self, source: Source<'_>, token: usize) -> io::Result<()> {
        match source {
            // poll(2) has disarmed a plain descriptor, and nobody else will arm it; mio's own sources arm themselves.
            #[cfg(unix)]
            Source::Fd(_) if !ARMS_BY_ITSELF => {
                with_source(source, |source| match self.registry.reregister(source, Token(token), every_interest()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.registry.register(source, Token(token), every_interest())
                    }
                    other => other,
                })
            }
            _ => Ok(()),
        }
    }

    fn unwatch(&mut self, source: Source<'_>) -> io::Result<()> {
        with_source(source, |source| self.registry.deregister(source))
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        let waker = Waker::new(&self.registry, WAKER)?;
        Ok(Arc::new(move || {
            if let Err(error) = waker.wake() {
                log::error!(target: "mainspring", "cannot wake the loop: {error}");
            }
        }))
    }

    fn lookup(&mut self, question: Question) -> Lookup {
        Box::new(move || ask_the_system(&question))
    }

    fn spawn(&mut self, purpose: Purpose, capacity: Capacity, ticket: Ticket, job: Job) -> Result<(), Refused> {
        self.pools[purpose as usize].get_or_insert_with(|| Pool::new(purpose, capacity)).spawn(ticket, job)
    }

    fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> Option<Job> {
        self.pools[purpose as usize].as_ref()?.take_back(ticket)
    }
}

/// A descriptor kept for the time when no other is left, one for all listeners.
#[derive(Default)]
struct Spare(Cell<Option<Socket>>);

impl Spare {
    fn keep(&self) {
        // Nothing, if there is no descriptor now: it is looked for again when it is needed.
        self.0.set(self.0.take().or_else(|| open_spare().ok()));
    }

    /// Runs `accept` with one descriptor free, and drops what it accepted.
    fn lend<T>(&self, accept: impl FnOnce() -> io::Result<T>) -> io::Result<()> {
        let spare = self.0.take().map_or_else(open_spare, Ok)?;
        drop(spare);
        let shed = accept().map(drop);
        self.keep();
        shed
    }
}

/// A socket, because it takes as much of the whole system as a connection does (ENFILE).
fn open_spare() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

#[inline]
fn ready(event: &mio::event::Event) -> Flags {
    let mut ready = Flags::default();
    ready.insert_if(READABLE, event.is_readable());
    ready.insert_if(WRITABLE, event.is_writable());
    if event.is_read_closed() || event.is_write_closed() || event.is_priority() || event.is_error() {
        ready.insert_if(READABLE | READ_UNTIL_BLOCKED, event.is_read_closed());
        ready.insert_if(WRITABLE, event.is_write_closed());
        ready.insert_if(READ_UNTIL_BLOCKED | PRIORITY, event.is_priority());
        ready.insert_if(READABLE | WRITABLE | FAILED, event.is_error());
    }
    ready
}

fn with_source<T>(source: Source<'_>, run: impl FnOnce(&mut dyn AnySource) -> T) -> T {
    match source {
        Source::Mio(source) => run(&mut Borrowed(source)),
        #[cfg(unix)]
        Source::Fd(fd) => {
            use std::os::fd::AsRawFd;
            run(&mut Borrowed(&mut mio::unix::SourceFd(&fd.as_raw_fd())))
        }
    }
}

use mio::event::Source as AnySource;

/// mio registers sized sources only.
struct Borrowed<'a>(&'a mut dyn AnySource);

impl AnySource for Borrowed<'_> {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

fn source_of(stream: &mut Stream) -> Option<&mut dyn AnySource> {
    match stream {
        Stream::Tcp(socket) => Some(socket),
        #[cfg(unix)]
        Stream::Unix(socket) => Some(socket),
        Stream::Dyn(_) => None,
    }
}

fn register(registry: &Registry, stream: &mut Stream, token: usize) -> io::Result<()> {
    match source_of(stream) {
        Some(source) => Borrowed(source).register(registry, Token(token), every_interest()),
        None => Ok(()),
    }
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

mod tcp {
    use super::*;
    use mio::net::{TcpListener, TcpStream};

    pub(super) fn listen(
        at: SocketAddr,
        how: ListenHow,
        registry: Rc<Registry>,
        spare: Rc<Spare>,
        token: usize,
    ) -> io::Result<(Box<dyn Listener>, Address)> {
        if how.reuse_port && !cfg!(unix) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"));
        }
        let socket = non_blocking(Domain::for_address(at), Some(Protocol::TCP))?;
        // On Windows SO_REUSEADDR would let a second program take the port away (pyftpdlib had to learn it).
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(how.reuse_port)?;
        if let (true, Some(only)) = (at.is_ipv6(), how.v6only) {
            socket.set_only_v6(only)?;
        }
        // What is accepted inherits it (Linux): no system call for each connection.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&at.into())?;
        socket.listen(i32::try_from(how.backlog).unwrap_or(i32::MAX))?;
        let mut socket = TcpListener::from_std(socket.into());
        let local = socket.local_addr()?;
        registry.register(&mut socket, Token(token), Interest::READABLE)?;
        Ok((Box::new(OsTcpListener { socket, registry, spare }), Address::Ip(local)))
    }

    pub(super) fn connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
        let socket = non_blocking(Domain::for_address(to), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(&from.into())?;
        }
        begin_connect(&socket, &to.into())?;
        Ok(TcpStream::from_std(socket.into()))
    }

    struct OsTcpListener {
        socket: TcpListener,
        registry: Rc<Registry>,
        spare: Rc<Spare>,
    }

    impl Listener for OsTcpListener {
        fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
            let (socket, peer) = self.socket.accept()?;
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let _ = socket.set_nodelay(true); // of a socket that is gone already; the first read will say so
            let mut stream = Stream::Tcp(socket);
            register(&self.registry, &mut stream, token)?;
            Ok((stream, Address::Ip(peer)))
        }

        fn shed(&mut self) -> io::Result<()> {
            self.spare.lend(|| self.socket.accept())
        }
    }
}

#[cfg(unix)]
mod unix {
    use super::*;
    use mio::net::{UnixListener, UnixStream};
    use socket2::SockRef;
    use std::{
        fs,
        os::{
            fd::OwnedFd,
            unix::fs::{FileTypeExt, MetadataExt},
        },
        path::{Path, PathBuf},
    };

    pub(super) fn listen(
        at: &Address,
        how: ListenHow,
        registry: Rc<Registry>,
        spare: Rc<Spare>,
        token: usize,
    ) -> io::Result<(Box<dyn Listener>, Address)> {
        let name = at.to_socket()?;
        let socket = non_blocking(Domain::UNIX, None)?;
        match (socket.bind(&name), at) {
            (Err(error), Address::Unix(Some(path))) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_if_stale(path, &name)?;
                socket.bind(&name)?;
            }
            (bound, _) => bound?,
        }
        let file = if let Address::Unix(Some(path)) = at { Some(SocketFile::new(path)?) } else { None };
        socket.listen(i32::try_from(how.backlog).unwrap_or(i32::MAX))?;
        let mut socket = UnixListener::from_std(OwnedFd::from(socket).into());
        registry.register(&mut socket, Token(token), Interest::READABLE)?;
        Ok((Box::new(OsUnixListener { socket, registry, spare, token, _file: file }), at.clone()))
    }

    pub(super) fn connect(to: &Address) -> io::Result<UnixStream> {
        let socket = non_blocking(Domain::UNIX, None)?;
        // EAGAIN: the listener's backlog is full, and no connect is in progress (connect(2)).
        begin_connect(&socket, &to.to_socket()?)?;
        Ok(UnixStream::from_std(OwnedFd::from(socket).into()))
    }

    /// A socket file whose server has died is in the way, one with a server is in use, and anything else is somebody's file.
    fn remove_if_stale(path: &Path, name: &SockAddr) -> io::Result<()> {
        if !fs::symlink_metadata(path)?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is a file of that name which is no socket"));
        }
        match non_blocking(Domain::UNIX, None)?.connect(name) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        }
    }

    /// Removes the file with the listener, unless it has become another's.
    struct SocketFile {
        path: PathBuf,
        identity: (u64, u64),
    }

    impl SocketFile {
        fn new(path: &Path) -> io::Result<Self> {
            let path = std::path::absolute(path)?;
            let identity = identity(&path)?;
            Ok(Self { path, identity })
        }
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let file = fs::symlink_metadata(path)?;
        Ok((file.dev(), file.ino()))
    }

    impl Drop for SocketFile {
        fn drop(&mut self) {
            if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    struct OsUnixListener {
        socket: UnixListener,
        registry: Rc<Registry>,
        spare: Rc<Spare>,
        token: usize,
        _file: Option<SocketFile>,
    }

    impl OsUnixListener {
        /// Not by mio's `accept`, which panics on a client that is bound to a path of 108 bytes.
        fn accept_plain(&mut self) -> io::Result<(Socket, SockAddr)> {
            let accepted = SockRef::from(&self.socket).accept();
            if !ARMS_BY_ITSELF && accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.registry.reregister(&mut self.socket, Token(self.token), Interest::READABLE)?;
            }
            accepted
        }
    }

    impl Listener for OsUnixListener {
        fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
            let (socket, peer) = self.accept_plain()?;
            socket.set_nonblocking(true)?;
            let mut stream = Stream::Unix(UnixStream::from_std(OwnedFd::from(socket).into()));
            register(&self.registry, &mut stream, token)?;
            Ok((stream, Address::of_socket(&peer)))
        }

        fn shed(&mut self) -> io::Result<()> {
            let spare = Rc::clone(&self.spare);
            spare.lend(|| self.accept_plain())
        }
    }
}
