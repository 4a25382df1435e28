//! Everything the loop has a key for: a connection, a listener, a dispatcher, a datagram socket. What the loop asks of each,
//! whatever its kind, is here, so that queueing, marking, timers and the end need not know the kind.

mod conn;
mod datagrams;
mod dispatching;
mod listening;
mod slots;

use crate::{
    address::Address,
    cx::Cx,
    flags::*,
    key::Key,
    panics::discard,
    reason::Reason,
    seldom::Apart,
    stats::{Connection, Kind},
    time::Time,
    timers::Cue,
};
#[cfg(debug_assertions)]
pub(crate) use conn::Extra;
#[cfg(feature = "tls")]
pub(crate) use conn::Shaken;
pub(crate) use conn::{Budget, Conn, Next, Phase};
pub(crate) use datagrams::{Arrival, DatagramSocket};
pub(crate) use dispatching::Dispatching;
pub(crate) use listening::{Arrived, Listening};
pub(crate) use slots::{SHRINK_MIN, Slots};

pub(crate) enum Entry {
    Conn(Conn),
    /// Boxed: few, and larger than a connection.
    Listener(Box<Listening>),
    Dispatcher(Box<Dispatching>),
    Datagrams(Apart<DatagramSocket>),
    /// A slot whose serials are used up. No key leads to it.
    Retired,
}

impl From<Conn> for Entry {
    fn from(conn: Conn) -> Self {
        Self::Conn(conn)
    }
}

impl From<Listening> for Entry {
    fn from(listening: Listening) -> Self {
        Self::Listener(Box::new(listening))
    }
}

impl From<Dispatching> for Entry {
    fn from(dispatching: Dispatching) -> Self {
        Self::Dispatcher(Box::new(dispatching))
    }
}

impl From<DatagramSocket> for Entry {
    fn from(socket: DatagramSocket) -> Self {
        Self::Datagrams(Apart::new(socket))
    }
}

impl Entry {
    pub(crate) fn key(&self) -> Option<Key> {
        match self {
            Self::Conn(conn) => Some(conn.key),
            Self::Listener(listening) => Some(listening.key),
            Self::Dispatcher(dispatching) => Some(dispatching.key),
            Self::Datagrams(socket) => Some(socket.key),
            Self::Retired => None,
        }
    }

    /// What it is to somebody who looks from outside.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Conn(conn) => Some(conn.kind()),
            Self::Listener(_) => Some(Kind::Listener),
            Self::Dispatcher(_) => Some(Kind::Dispatcher),
            Self::Datagrams(_) => Some(Kind::Datagrams),
            Self::Retired => None,
        }
    }

    /// Our end of a connection whose `closed` has not run, or where a listener really listens, or where a datagram socket
    /// is.
    pub(crate) fn local(&self) -> Option<&Address> {
        match self {
            Self::Conn(conn) => (conn.phase != Phase::Lingering).then(|| conn.local()),
            Self::Listener(listening) => Some(&listening.local),
            Self::Datagrams(socket) => Some(&socket.local),
            _ => None,
        }
    }

    /// The other end of a connection whose `closed` has not run, or of a datagram socket that has one.
    pub(crate) fn peer(&self) -> Option<&Address> {
        match self {
            Self::Conn(conn) => (conn.phase != Phase::Lingering).then_some(&conn.peer),
            Self::Datagrams(socket) => socket.peer.as_deref(),
            _ => None,
        }
    }

    /// A line of the list of all; `name` is its protocol's.
    pub(crate) fn describe(&self, now: Time, name: &'static str) -> Option<Connection> {
        match self {
            Self::Conn(conn) => Some(conn.describe(now, name)),
            Self::Listener(listening) => Some(Connection::new(listening.key, Kind::Listener, name, listening.local.clone())),
            Self::Dispatcher(dispatching) => Some(Connection::new(dispatching.key, Kind::Dispatcher, name, Address::Fd)),
            Self::Datagrams(socket) => Some(socket.describe(name)),
            Self::Retired => None,
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Conn(conn) => conn.flags,
            Self::Listener(listening) => listening.flags,
            Self::Dispatcher(dispatching) => dispatching.flags,
            Self::Datagrams(socket) => socket.flags,
            Self::Retired => Flags::default(),
        }
    }

    pub(crate) fn flags_mut(&mut self) -> &mut Flags {
        match self {
            Self::Conn(conn) => &mut conn.flags,
            Self::Listener(listening) => &mut listening.flags,
            Self::Dispatcher(dispatching) => &mut dispatching.flags,
            Self::Datagrams(socket) => &mut socket.flags,
            Self::Retired => unreachable!("no key leads to a retired slot"),
        }
    }

    /// It has not begun to end.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Conn(conn) => conn.is_open(),
            Self::Listener(listening) => listening.socket.is_some(),
            Self::Dispatcher(dispatching) => !dispatching.flags.has_any(SHUT),
            Self::Datagrams(socket) => socket.is_open(),
            Self::Retired => false,
        }
    }

    pub(crate) fn can_progress(&self) -> bool {
        match self {
            Self::Conn(conn) => conn.can_progress(),
            Self::Listener(listening) => listening.can_progress(),
            Self::Dispatcher(dispatching) => dispatching.ready().has_any(READABLE | WRITABLE | PRIORITY),
            Self::Datagrams(socket) => socket.can_progress(),
            Self::Retired => false,
        }
    }

    /// An event for one that is not a connection.
    pub(crate) fn note(&mut self, ready: Flags) {
        match self {
            Self::Listener(listening) => listening.flags.insert(READABLE), // whatever it is: accepting finds out
            Self::Dispatcher(dispatching) => dispatching.note(ready),
            Self::Datagrams(socket) => socket.note(ready),
            Self::Conn(_) | Self::Retired => unreachable!("these are noted elsewhere, or not at all"),
        }
    }

    /// Onto the ready queue if it could make progress and is not there yet.
    pub(crate) fn requeue(&mut self, cx: &mut Cx) {
        if self.can_progress() && !self.flags_mut().mark(IN_READY) {
            cx.lists.ready.extend(self.key());
        }
    }

    /// It is looked at later in this turn, or by the next one, which does not sleep first.
    pub(crate) fn mark_dirty(&mut self, cx: &mut Cx) {
        if !self.flags_mut().mark(IN_DIRTY) {
            cx.lists.dirty.extend(self.key());
        }
    }

    /// A timer of its own is due.
    pub(crate) fn fire(&mut self, cue: Cue, cx: &mut Cx) {
        match self {
            Self::Conn(conn) => conn.fire(cue, cx),
            Self::Listener(listening) => {
                listening.is_backing_off = false;
                self.requeue(cx);
            }
            Self::Dispatcher(dispatching) => {
                dispatching.rested();
                self.requeue(cx);
            }
            Self::Datagrams(_) | Self::Retired => {}
        }
    }

    /// Begins to end; returns whether this is the cause. `closed` comes at the end of the turn.
    pub(crate) fn end(&mut self, reason: Reason, cx: &mut Cx) -> bool {
        let begins = match self {
            Self::Conn(conn) => return conn.end(reason, cx),
            Self::Listener(listening) => listening.socket.take().is_some(),
            Self::Dispatcher(dispatching) => !dispatching.flags.mark(SHUT),
            Self::Datagrams(socket) => return socket.end(reason, cx),
            Self::Retired => false,
        };
        match self.key().filter(|_| begins) {
            Some(key) => cx.lists.closing.push_back((key, reason)),
            None => discard("an error that came too late", reason),
        }
        begins
    }

    /// The connections that it is throttled by.
    pub(crate) fn targets(&self) -> &[Key] {
        match self {
            Self::Conn(conn) => conn.known_ties().map_or(&[], |ties| &ties.targets),
            Self::Dispatcher(dispatching) => &dispatching.targets,
            _ => &[],
        }
    }

    pub(crate) fn targets_mut(&mut self) -> Option<&mut Vec<Key>> {
        match self {
            Self::Conn(conn) => Some(&mut conn.ties().targets),
            Self::Dispatcher(dispatching) => Some(&mut dispatching.targets),
            _ => None,
        }
    }
}
