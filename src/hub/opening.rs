//! Listening and accepting, and connecting.

use super::Hub;
use crate::{
    address::{Address, Place, Target},
    adopted::AdoptedListener,
    connect::Connect,
    cx::Cx,
    endpoint::{Arrived, Conn, Listening, Phase},
    flags::*,
    key::Key,
    listen::Listen,
    reason::Reason,
    records::Cause,
    world::{Listener, Stream, wants_descriptor},
};
use std::{io, net::SocketAddr};

/// What accepting brought.
pub(crate) enum Accepted {
    /// A client to make a protocol for.
    Guest(Key),
    /// A client that was sent away, or nobody after all: look again.
    Nobody,
    /// Enough for this turn.
    Done,
}

impl Hub {
    pub(crate) fn listen(&mut self, target: &Target, options: Listen) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let at = target.address()?;
        self.refuse_if_orphan(&at, &options)?;
        let (key, (socket, local)) = self
            .open(|cx, key| cx.world.listen(&at, options.how(), key.token()))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {at}: {error}")))?;
        self.admit_listener(key, socket, local, options);
        Ok(key)
    }

    pub(crate) fn listen_on(&mut self, listener: AdoptedListener, options: Listen) -> io::Result<Key> {
        self.refuse_if_shut()?;
        self.refuse_if_orphan(&Address::Fd, &options)?;
        let key = self.next_key()?;
        let (socket, local) = self.cx.world.take_over_listener(listener, key.token())?;
        self.admit_listener(key, socket, local, options);
        Ok(key)
    }

    fn admit_listener(&mut self, key: Key, socket: Box<dyn Listener>, local: Address, options: Listen) {
        let owner = options.owner;
        match owner {
            None => log::info!(target: "mainspring", "{key} listening on {local}"),
            Some(owner) => log::debug!(target: "mainspring", "{key} listening on {local} for {owner}"),
        }
        let mut listening = Listening::new(key, socket, local, options);
        listening.share_rates(&mut self.cx);
        self.slots.insert(listening);
        self.counts.listeners += 1;
        if let Some(owner) = owner {
            self.own(owner, key);
        }
    }

    fn refuse_if_orphan(&self, at: &Address, options: &Listen) -> io::Result<()> {
        let Some(owner) = options.owner.filter(|&owner| self.find_open(owner).is_none()) else { return Ok(()) };
        let text = format!("cannot listen on {at} for {owner}: that is not a connection, or has begun to end");
        Err(io::Error::new(io::ErrorKind::NotConnected, text))
    }

    /// Opens under the next key, and with the descriptor of a lingering one if there is no other.
    pub(super) fn open<T>(&mut self, open: impl Fn(&mut Cx, Key) -> io::Result<T>) -> io::Result<(Key, T)> {
        loop {
            let key = self.next_key()?; // each time: a lingering one that goes frees its slot
            match open(&mut self.cx, key) {
                Ok(opened) => return Ok((key, opened)),
                Err(error) if wants_descriptor(&error) && self.reset_first_lingering() => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn accept(&mut self, key: Key) -> Accepted {
        let next = self.slots.next_key();
        let Some(listening) = self.slots.listener(key) else { return Accepted::Done };
        let (next, stream, peer, on_spare) = match listening.accept(next, &mut self.cx) {
            Arrived::Guest { key, stream, peer, on_spare } => (key, stream, peer, on_spare),
            Arrived::Nobody => return Accepted::Nobody,
            Arrived::NoRoom => {
                self.make_room(key);
                return Accepted::Nobody;
            }
            Arrived::Done => return Accepted::Done,
        };
        let (refusal, is_in_clear) = (listening.refusal(peer.ip()), listening.options.is_in_clear());
        if listening.has_had_enough() && is_in_clear {
            self.end(key, Reason::Finish); // with TLS its factory is still needed
        }
        self.admit_guest(next, key, stream, peer);
        if on_spare {
            self.make_room(key);
        }
        let Some((last_words, cause)) = refusal else { return Accepted::Guest(next) };
        let manner = self.cx.manner(Some(key), cause, log::Level::Warn);
        let (peer, for_whom) =
            (&self.slots.conn_at(next.index()).peer, if cause == Cause::Full { "" } else { " for its address" });
        log::log!(target: "mainspring", manner.level, "{next} {peer} refused: {key} is full{for_whom}{manner}");
        self.refuse(next, if is_in_clear { &last_words } else { b"" });
        #[cfg(feature = "tls")]
        self.end_listener_if_done(key);
        Accepted::Nobody
    }

    /// For a listener, which has taken the spare descriptor.
    fn make_room(&mut self, listener: Key) {
        self.reset_first_lingering();
        if let Some(socket) = self.slots.listener(listener).and_then(|listening| listening.socket.as_mut()) {
            socket.keep_spare();
        }
    }

    fn admit_guest(&mut self, key: Key, listener: Key, stream: Stream, peer: Address) {
        let mut conn = Conn::new(key, Some(stream), peer, self.cx.stamp());
        conn.listener = Some(listener);
        conn.enter(Phase::Guest);
        conn.set(HOLDS_BACK | ESTABLISHED | WRITABLE);
        if let Some(listening) = self.slots.listener(listener) {
            listening.guests += 1;
            conn.is_by_proxy = listening.options.behind_proxy;
            conn.counts_for_peer = !conn.is_by_proxy && listening.count_peer(conn.peer.ip());
        }
        self.slots.insert(conn);
        // Before its factory runs, which may ask for a drain: it is somebody to wait for.
        self.counts.accepted += 1;
    }

    /// The proxy has said which client it came for. `false`: there is no proxy, or the connection is over, or this address
    /// has enough.
    pub(crate) fn set_peer(&mut self, key: Key, peer: SocketAddr) -> bool {
        let Some(conn) = self.find_open(key).filter(|conn| conn.is_by_proxy) else { return false };
        let (listener, counted_for) = (conn.listener, conn.counted_for());
        let (mut counts, mut refusal) = (false, None);
        if let Some(listening) = listener.and_then(|listener| self.slots.listener(listener)) {
            listening.uncount_peer(counted_for);
            refusal = listening.peer_refusal(Some(peer));
            counts = refusal.is_none() && listening.count_peer(Some(peer));
        }
        let (conn, cx) = self.pair(key);
        log::debug!(target: "mainspring", "{key} {} comes for {peer}", conn.peer);
        (conn.peer, conn.counts_for_peer) = (Address::Ip(peer), counts);
        let Some(last_words) = refusal else { return true };
        let manner = cx.manner(listener, Cause::PeerFull, log::Level::Warn);
        log::log!(target: "mainspring", manner.level, "{key} {peer} refused: its address has enough connections{manner}");
        self.lend(key, |conn, cx| {
            conn.send(&last_words, cx);
            conn.close(cx);
        });
        false
    }

    /// It is let in: `connected` is owed.
    pub(crate) fn welcome(&mut self, key: Key) {
        let conn = self.slots.conn_at_mut(key.index());
        conn.enter(Phase::Open);
        conn.set(OWES_CONNECTED);
        let listener = conn.listener;
        self.cx.stats.accepted += 1;
        let listening = listener.and_then(|listener| self.slots.listener(listener));
        let is_draining = listening.as_ref().is_some_and(|listening| listening.is_draining());
        let (options, owner, is_last) = match listening {
            Some(listening) => (Some(listening.for_guests()), listening.options.owner, listening.admits_the_last()),
            None => (None, None, false),
        };
        if let Some(owner) = owner {
            self.own(owner, key);
        }
        self.lend(key, |conn, cx| {
            if let Some((bounds, rates)) = options {
                for (way, rate, shared) in rates {
                    conn.set_listeners_rate(way, rate, shared, cx);
                }
                if let Some(bounds) = bounds {
                    conn.set_bounds(bounds, cx);
                }
            }
            if is_draining {
                conn.owe_draining(cx);
            }
            conn.settle(cx);
        });
        if let Some(listener) = listener.filter(|_| is_last) {
            self.end(listener, Reason::Finish);
        }
    }

    /// It is not let in: some last words, at once if the kernel takes them, and the end.
    pub(crate) fn refuse(&mut self, key: Key, last_words: &[u8]) {
        self.uncount_guest(key);
        self.cx.stats.refused += 1;
        if last_words.is_empty() {
            return self.free(key); // there is nothing that a reset could destroy
        }
        let (conn, cx) = self.pair(key);
        conn.output(&mut cx.spares).push(last_words);
        let _ = conn.flush_once(&mut cx.spares, usize::MAX); // if the client is gone already, lingering finds out
        self.linger(key);
    }

    /// No protocol was made for it: it is reset.
    pub(crate) fn turn_away(&mut self, key: Key) {
        self.uncount_guest(key);
        self.cx.stats.refused += 1;
        self.slots.conn_at_mut(key.index()).set(CUT);
        self.free(key);
    }

    pub(super) fn uncount_guest(&mut self, key: Key) {
        self.counts.accepted -= 1;
        let conn = self.slots.conn_at(key.index());
        let (listener, counted_for) = (conn.listener, conn.counted_for());
        let Some(listener) = listener else { return };
        let Some(listening) = self.slots.listener(listener) else { return };
        let was_paused = listening.is_paused();
        listening.guests -= 1;
        listening.uncount_peer(counted_for);
        if was_paused {
            self.requeue(listener);
        }
    }

    /// Returns a key at once; what becomes of the connection comes as a callback.
    pub(crate) fn connect(&mut self, target: &Target, options: &Connect) -> Option<Key> {
        if self.cx.is_shut {
            return None;
        }
        let key = self.slots.next_key()?;
        let (peer, named) = match target.place() {
            Ok(Place::At(address)) => (address, Ok(None)),
            Ok(Place::Named(host, port)) => (Address::Name(target.name()), Ok(Some((host, port)))),
            Err(error) => (Address::Name(target.name()), Err(error)),
        };
        let mut conn = Conn::new(key, None, peer, self.cx.world.now());
        conn.is_to_connect(options.local);
        #[cfg(feature = "tls")]
        let nameless = options.tls.as_ref().and_then(|client| {
            let name = client.name_for(&named, &conn.peer);
            name.map(|name| conn.is_to_speak_tls(client.clone(), name, &self.cx)).err()
        });
        conn.extra().clocks.set_connect(Some(options.timeout.unwrap_or(self.cx.config.connect_max)));
        self.slots.insert(conn);
        self.counts.opened += 1;
        self.cx.stats.opened += 1;
        let is_orphan = options.owner.is_some_and(|owner| self.find_open(owner).is_none());
        if let Some(owner) = options.owner.filter(|_| !is_orphan) {
            self.own(owner, key);
        }
        self.lend(key, |conn, cx| {
            #[cfg(feature = "tls")]
            if let Some(error) = nameless {
                conn.end(Reason::Tls(error.into()), cx);
                return;
            }
            match named {
                _ if is_orphan => _ = conn.end(Reason::Abort, cx),
                Ok(None) => conn.begin_to_connect(cx),
                Ok(Some((host, port))) => conn.connect_by_name(host, port, cx),
                Err(error) => _ = conn.end(Reason::Resolve(error), cx),
            }
            conn.settle(cx);
        });
        Some(key)
    }
}
