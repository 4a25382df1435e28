//! Everything outside the loop: the clock, chance, readiness, opening sockets. The loop is written against [`World`] and
//! sees neither a selector nor a system call.

mod os;
mod packets;
#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod transport;
mod registered;
mod readiness;
#[cfg(unix)]
mod unix_stream;

use crate::{
    address::Address,
    adopted::{Adopted, AdoptedListener},
    flags::Flags,
    key::Number,
    names::{Lookup, Question},
    pool::{Capacity, Job, Purpose, Refused, Ticket},
    time::Time,
};
pub(crate) use os::OsWorld;
#[cfg(feature = "udp-batch")]
pub(crate) use packets::{Batch, MESSAGE, MESSAGES_MAX, Message, SourceAddress};
pub(crate) use packets::{BindHow, Opened, PacketTransport};
pub use packets::{Interface, PacketSocket};
#[cfg(all(unix, feature = "signals"))]
pub(crate) use signals::Signals;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
#[cfg(feature = "tls")]
pub(crate) use transport::Transport;
pub(crate) use transport::{Moved, Stream, Ways, broken_pipe};

/// Where a dispatcher's readiness comes from.
pub enum Source<'a> {
    /// Anything that mio can register.
    Mio(&'a mut dyn mio::event::Source),
    /// A descriptor: a pipe, a terminal, a device, inotify, a socket of another library. It is made non-blocking; a terminal
    /// that blocks is refused, because the shell shares it. One that the system cannot wait for (a plain file, /dev/null) is
    /// ready at once, and reported once.
    #[cfg(unix)]
    Fd(BorrowedFd<'a>),
    /// Nothing that a system could report. It is told only what [`Net::want_readable`](crate::Net::want_readable) and
    /// [`Net::want_writable`](crate::Net::want_writable) ask for. Use it for a library that has to be asked now and then, or
    /// whose news comes from another thread.
    Nothing,
}

impl Source<'_> {
    /// The same source again.
    pub(crate) fn again(&mut self) -> Source<'_> {
        match self {
            Self::Mio(source) => Source::Mio(&mut **source),
            #[cfg(unix)]
            Self::Fd(fd) => Source::Fd(*fd),
            Self::Nothing => Source::Nothing,
        }
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mio(_) => f.write_str("Mio"),
            #[cfg(unix)]
            Self::Fd(fd) => write!(f, "Fd({fd:?})"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// [`Key::token`](crate::key::Key::token) of whatever was registered.
    pub(crate) token: usize,
    /// Of `READABLE`, `WRITABLE`, `READ_UNTIL_BLOCKED`, `PEER_ENDED`, `FAILED` and `PRIORITY`: what has become possible, as far
    /// as the selector knows. A hint: the system call decides.
    pub(crate) ready: Flags,
}

/// How to open a listening socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenHow {
    pub(crate) backlog: u32,
    pub(crate) reuse_port: bool,
    /// For an IPv6 socket; `None` is what the system does.
    pub(crate) v6only: Option<bool>,
}

/// Windows' sockets: a send is taken as a whole, a reset shows only by reading, and each datagram may bring an error.
pub(crate) const IS_WINSOCK: bool = cfg!(windows);

/// Whether the selector arms a descriptor again by itself. poll(2) does not: mio arms its own sockets when they answer
/// `WouldBlock`, and everything else is armed by us.
pub(crate) const ARMS_BY_ITSELF: bool = transport::EDGES_FOLLOW;

pub(crate) trait World {
    /// Never goes back.
    fn now(&self) -> Time;
    /// The same moment for people.
    fn instant(&self, at: Time) -> Instant;
    /// Which reactor of the process this one is, as far as its keys can tell. Asked for once.
    fn number(&mut self) -> Number {
        Number::next()
    }
    /// Waits until something is ready, somebody calls the waker, or this much time has passed; `None` is for ever. An
    /// interruption is not an error, and brings no events.
    fn wait(&mut self, into: &mut Vec<Event>, at_most: Option<Duration>) -> io::Result<()>;
    /// For a stream that answered `NotFound`: the selector had dropped it.
    fn register_again(&mut self, stream: &mut Stream, token: usize) -> io::Result<()>;
    /// Ends a wait, from any thread. Asked for once.
    fn waker(&mut self) -> io::Result<Arc<dyn Fn() + Send + Sync>>;
    /// What works for a simulated world.
    #[cfg(feature = "sim")]
    fn workers(&self) -> Option<Box<dyn Workers>> {
        None
    }
    /// What becomes readable when a wait would return.
    #[cfg(unix)]
    fn selector(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn which(&mut self) -> Which<'_>;
}

/// A stream that already existed, and is now registered.
pub(crate) struct TakenOver {
    pub(crate) stream: Stream,
    pub(crate) peer: Address,
    /// It has to be read before the selector has said so.
    pub(crate) reads_at_once: bool,
    pub(crate) unread: Vec<u8>,
}

/// Which world it is: for what is asked of it by name and not through a table of functions, so that a program that never
/// asks links nothing of the answer.
pub(crate) enum Which<'a> {
    Os(&'a mut OsWorld),
    #[cfg(feature = "sim")]
    Sim(&'a mut sim::SimWorld),
}

macro_rules! ask {
    ($world:expr, $which:ident => $answer:expr) => {
        match $world.which() {
            Which::Os($which) => $answer,
            #[cfg(feature = "sim")]
            Which::Sim($which) => $answer,
        }
    };
}

impl dyn World {
    pub(crate) fn random(&mut self) -> u64 {
        ask!(self, world => world.random())
    }

    /// A listening socket, registered, and where it really listens (port 0).
    pub(crate) fn listen(&mut self, at: &Address, how: ListenHow, token: usize) -> io::Result<(Box<dyn Listener>, Address)> {
        ask!(self, world => world.listen(at, how, token))
    }

    /// A socket that has begun to connect, registered. `WouldBlock`: try again later.
    pub(crate) fn connect(&mut self, to: &Address, from: Option<SocketAddr>, token: usize) -> io::Result<Stream> {
        ask!(self, world => world.connect(to, from, token))
    }

    /// A datagram socket, registered.
    pub(crate) fn bind(&mut self, how: &BindHow, token: usize) -> io::Result<Opened> {
        ask!(self, world => world.bind(how, token))
    }

    /// The same for a socket that the program has opened itself.
    pub(crate) fn bind_on(&mut self, socket: PacketSocket, how: &BindHow, token: usize) -> io::Result<Opened> {
        ask!(self, world => world.bind_on(socket, how, token))
    }

    /// A stream that already exists, registered.
    pub(crate) fn take_over(&mut self, adopted: Adopted, token: usize) -> io::Result<TakenOver> {
        ask!(self, world => world.take_over(adopted, token))
    }

    /// The reverse: not registered any more.
    pub(crate) fn detach(&mut self, stream: Stream) -> Adopted {
        ask!(self, world => world.detach(stream))
    }

    /// Signals of the process from now on, which this token is told of.
    #[cfg(all(unix, feature = "signals"))]
    pub(crate) fn hook_signals(&mut self, signals: &[i32], token: usize) -> io::Result<Signals> {
        ask!(self, world => world.hook_signals(signals, token))
    }

    /// A socket that already listens, registered, and where it does.
    pub(crate) fn take_over_listener(
        &mut self,
        listener: AdoptedListener,
        token: usize,
    ) -> io::Result<(Box<dyn Listener>, Address)> {
        ask!(self, world => world.take_over_listener(listener, token))
    }

    /// Says whether readiness will be reported; a source that is always ready is not registered.
    pub(crate) fn watch(&mut self, source: Source<'_>, token: usize) -> io::Result<bool> {
        ask!(self, world => world.watch(source, token))
    }

    /// From now on it reports these of a source, `READABLE`, `WRITABLE`, `PRIORITY`, and nothing else.
    pub(crate) fn watch_for(&mut self, source: Source<'_>, what: Flags, token: usize) -> io::Result<()> {
        ask!(self, world => world.watch_for(source, what, token))
    }

    /// Whether the source is as ready as if it had never been drained. Asked only where nothing arms by itself.
    pub(crate) fn stands(&mut self, source: Source<'_>, what: Flags) -> Stands {
        ask!(self, world => world.stands(source, what))
    }

    pub(crate) fn unwatch(&mut self, source: Source<'_>) -> io::Result<()> {
        ask!(self, world => world.unwatch(source))
    }
}

/// For a source that is said to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It is drained.
    No,
    /// It is ready.
    Yes,
    /// It is one of mio's own, and is armed by the read or write that met `WouldBlock`.
    ArmsItself,
}

/// What other threads do. It has its own seam, so that a program that never needs them links nothing of it.
pub(crate) trait Workers {
    /// Makes what looks a name up, on the thread that it is given to next.
    fn lookup(&mut self, question: Question) -> Lookup;
    /// Runs `job` on another thread, one of those for this purpose. Never waits: what finds no room is refused, and given
    /// back. The job tells the loop itself. (In the simulated world it runs on this thread, in a later wait.)
    fn spawn(&mut self, purpose: Purpose, capacity: Capacity, ticket: Ticket, job: Job) -> Result<(), (Refused, Job)>;
    /// Takes back what was spawned and has not begun.
    fn take_back(&mut self, purpose: Purpose, ticket: Ticket) -> Option<Job>;
    /// Has another thread, one of at most `threads_max`, do what nobody waits for, even when this has gone. It is given back
    /// if there is none.
    fn do_chore(&mut self, purpose: Purpose, threads_max: usize, chore: Job) -> Result<(), Job>;
}

/// Those of the world, made when they are first needed.
pub(crate) fn workers(world: &dyn World) -> Box<dyn Workers> {
    #[cfg(feature = "sim")]
    if let Some(simulated) = world.workers() {
        return simulated;
    }
    let _ = world;
    Box::new(os::OsWorkers::default())
}

/// Whether an error says that the process, or the whole system, has no descriptor left.
pub(crate) fn wants_descriptor(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    #[cfg(not(unix))]
    return matches!(error.raw_os_error(), Some(10024)); // WSAEMFILE
}

pub(crate) trait Listener {
    /// The next connection, registered.
    fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)>;
    /// The same when `accept` finds no descriptor: it uses the one that is kept for this, to see whether anybody waits.
    fn accept_on_spare(&mut self, token: usize) -> io::Result<(Stream, Address)>;
    /// Keeps a spare one again, if there is one.
    fn keep_spare(&mut self);
}
