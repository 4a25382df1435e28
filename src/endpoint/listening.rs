//! What the loop knows of one listener: which clients it lets in, and what an error of accept(2) calls for.

use crate::{
    address::Address,
    cx::Cx,
    flags::*,
    key::Key,
    listen::{Bounds, Listen},
    peers::Peers,
    rate::{SharedRate, Way},
    records::Cause,
    timers::{Cue, TimerKind},
    world::{self, Stream},
};
use log::Level;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

/// One listener.
pub(crate) struct Listening {
    pub(crate) key: Key,
    /// `None` once it has begun to end.
    pub(crate) socket: Option<Box<dyn world::Listener>>,
    pub(crate) local: Address,
    pub(crate) options: Listen,
    /// Those of `options`, if there are any.
    bounds: Option<Rc<Bounds>>,
    /// `READABLE`: there may be a connection to accept. And `IN_READY`.
    pub(crate) flags: Flags,
    /// It waits for a timer: there are no descriptors, or no memory.
    pub(super) is_backing_off: bool,
    /// Errors of single connections in a row.
    passed: usize,
    pub(crate) accepted: u64,
    /// Of these, those that were let in.
    admitted: u64,
    /// OWES_DRAINING ∈ flags ⇒ it accepts no more than this many in all.
    ends_at: u64,
    /// Connections accepted and not yet closed.
    pub(crate) guests: usize,
    /// Of these, those that still have to agree on TLS.
    pub(crate) shaking: usize,
    /// How many of them each address has, where that is limited.
    peers: Option<Box<dyn Peers>>,
    /// The rates of reading and of writing that they all share.
    pub(crate) shared_rates: [Option<usize>; 2],
}

impl Listening {
    pub(crate) fn new(key: Key, socket: Box<dyn world::Listener>, local: Address, options: Listen) -> Self {
        let peers = options.per_peer_max.as_ref().map(|limit| (limit.count)());
        let bounds = (options.bounds != Bounds::default()).then(|| Rc::new(options.bounds));
        Self {
            key,
            socket: Some(socket),
            local,
            options,
            bounds,
            flags: Flags::default(),
            is_backing_off: false,
            passed: 0,
            accepted: 0,
            admitted: 0,
            ends_at: 0,
            guests: 0,
            shaking: 0,
            peers,
            shared_rates: [None; 2],
        }
    }

    /// The last words to a newcomer that there is no room for, and why there is none.
    pub(crate) fn refusal(&self, peer: Option<SocketAddr>) -> Option<(Rc<[u8]>, Cause)> {
        if self.options.connections_max.is_some_and(|most| self.guests >= most) {
            return Some((self.options.refusal.clone().unwrap_or_default(), Cause::Full));
        }
        let peer = peer.filter(|_| !self.options.behind_proxy);
        Some((self.peer_refusal(peer)?, Cause::PeerFull))
    }

    /// The last words to a client whose address has enough connections.
    pub(crate) fn peer_refusal(&self, peer: Option<SocketAddr>) -> Option<Rc<[u8]>> {
        let (limit, peers) = (self.options.per_peer_max.as_ref()?, self.peers.as_ref()?);
        (peers.has(counted(peer)?) >= limit.most).then(|| Rc::clone(&limit.refusal))
    }

    /// Whether it is counted.
    pub(crate) fn count_peer(&mut self, peer: Option<SocketAddr>) -> bool {
        let (Some(peers), Some(ip)) = (&mut self.peers, counted(peer)) else { return false };
        peers.add(ip);
        true
    }

    pub(crate) fn uncount_peer(&mut self, peer: Option<SocketAddr>) {
        if let (Some(peers), Some(ip)) = (&mut self.peers, counted(peer)) {
            peers.remove(ip);
        }
    }

    /// A client is let in. Returns whether it was the last.
    pub(crate) fn admits_the_last(&mut self) -> bool {
        self.admitted += 1;
        self.options.admits_max.is_some_and(|most| self.admitted >= most)
    }

    pub(crate) fn has_had_enough(&self) -> bool {
        self.options.accepts_max.is_some_and(|most| self.accepted >= most.max(1))
    }
}

/// Accepting.
impl Listening {
    pub(crate) fn can_progress(&self) -> bool {
        self.socket.is_some()
            && self.flags.has_any(READABLE)
            && !self.is_backing_off
            && !self.is_paused()
            && !self.has_had_enough()
    }

    /// New clients have to wait until one of its connections has ended. Not in a drain: others would come meanwhile, and
    /// nobody could tell them from those that had waited.
    pub(crate) fn is_paused(&self) -> bool {
        self.options.pause_at.is_some_and(|most| self.guests >= most.max(1)) && !self.is_draining()
    }

    /// Accepts the next one, under the key that it will have.
    pub(crate) fn accept(&mut self, next: Option<Key>, cx: &mut Cx) -> Arrived {
        if self.is_paused() || self.has_had_enough() {
            return Arrived::Done;
        }
        let Some(socket) = &mut self.socket else { return Arrived::Done };
        let Some(next) = next else {
            let error = io::Error::new(io::ErrorKind::OutOfMemory, "all slots of this reactor are taken");
            return self.back_off(&error, cx);
        };
        match socket.accept(next.token()) {
            Ok((stream, peer)) => self.let_in(next, stream, peer, false),
            Err(error) => self.accept_failed(next, &error, cx),
        }
    }

    fn let_in(&mut self, key: Key, stream: Stream, peer: Address, on_spare: bool) -> Arrived {
        self.passed = 0;
        self.accepted += 1;
        Arrived::Guest { key, stream, peer, on_spare }
    }

    fn accept_failed(&mut self, next: Key, error: &io::Error, cx: &mut Cx) -> Arrived {
        match AcceptError::of(error) {
            AcceptError::Drained => self.drained(),
            AcceptError::Pass if self.passed < cx.config.turn_accepts => {
                self.passed += 1;
                Arrived::Nobody
            }
            // This many in a row cannot be about single connections: a policy forbids accepting, and they stay where they
            // are.
            AcceptError::Pass => {
                self.passed = 0;
                self.back_off(error, cx)
            }
            AcceptError::WantsDescriptor => self.accept_on_spare(next, error, cx),
            AcceptError::BackOff => self.back_off(error, cx),
        }
    }

    fn drained(&mut self) -> Arrived {
        self.flags.remove(READABLE);
        self.passed = 0;
        Arrived::Done
    }

    /// No descriptor is left, which the system may say before it checks whether anybody waits. A client that waits would
    /// wait for somebody else to close, perhaps for ever: so a lingering socket makes room, or else the client is sent away,
    /// and can go elsewhere.
    fn accept_on_spare(&mut self, next: Key, want: &io::Error, cx: &mut Cx) -> Arrived {
        let Some(socket) = &mut self.socket else { return Arrived::Done };
        let can_make_room = cx.lingering_now > 0;
        match socket.accept_on_spare(next.token()) {
            Ok((stream, peer)) if can_make_room => self.let_in(next, stream, peer, true),
            Ok(shed) => {
                drop(shed);
                socket.keep_spare();
                let (key, at, manner) = (self.key, &self.local, cx.manner(Some(self.key), Cause::Shed, Level::Warn));
                let text = "closes new clients until there are descriptors again";
                log::log!(target: "mainspring", manner.level, "{key} on {at} {text}: {want}{manner}");
                cx.stats.shed += 1;
                self.ends_at = self.ends_at.saturating_sub(1);
                Arrived::Nobody
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Drained => self.drained(),
                AcceptError::WantsDescriptor if can_make_room => Arrived::NoRoom,
                _ => self.back_off(want, cx),
            },
        }
    }

    /// Edge triggering brings no second event for clients that are waiting already: a timer looks again.
    fn back_off(&mut self, error: &io::Error, cx: &mut Cx) -> Arrived {
        let again = cx.world.now() + cx.config.accept_back_off;
        self.is_backing_off = true;
        let (key, at, manner) = (self.key, &self.local, cx.manner(Some(self.key), Cause::CannotAccept, Level::Warn));
        let text = "cannot accept, and tries again until it can";
        log::log!(target: "mainspring", manner.level, "{key} on {at} {text}: {error}{manner}");
        cx.timers.set(again, TimerKind::Entry(self.key, Cue::TryAgain));
        Arrived::Done
    }

    /// It ends once the clients that wait were accepted.
    pub(crate) fn begin_to_drain(&mut self) {
        self.flags.insert(OWES_DRAINING | READABLE);
        self.ends_at = self.accepted.saturating_add(2 * (u64::from(self.options.how().backlog) + 1)); // some systems keep more
    }

    /// A client that is accepted now had come before the drain.
    pub(crate) fn is_draining(&self) -> bool {
        self.flags.has_any(OWES_DRAINING)
    }

    /// Also when nobody can be accepted, or more have come than can have waited.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_draining() && self.shaking == 0 && (!self.can_progress() || self.accepted >= self.ends_at)
    }

    /// Makes what all that it accepts will share.
    pub(crate) fn share_rates(&mut self, cx: &mut Cx) {
        let now = cx.world.now();
        let rates = [(Way::In, self.options.total_read_rate), (Way::Out, self.options.total_write_rate)];
        self.shared_rates = rates.map(|(way, rate)| Some(cx.shared_rates.insert(SharedRate::new(way, rate?, now))));
    }

    /// What each that it accepts begins with: bounds, and for each way its own rate and the one that all share.
    pub(crate) fn for_guests(&self) -> (Option<Rc<Bounds>>, [(Way, Option<u64>, Option<usize>); 2]) {
        let Listen { read_rate, write_rate, .. } = self.options;
        let [shared_in, shared_out] = self.shared_rates;
        (self.bounds.clone(), [(Way::In, read_rate, shared_in), (Way::Out, write_rate, shared_out)])
    }
}

/// What accepting once brought.
pub(crate) enum Arrived {
    /// A client, and the key that it will have. `on_spare`: once it is there, a lingering one has to make room, so that
    /// there is a spare descriptor again.
    Guest { key: Key, stream: Stream, peer: Address, on_spare: bool },
    /// A client that was sent away, or nobody after all: look again.
    Nobody,
    /// There is not even a spare descriptor: once a lingering one has made room, look again.
    NoRoom,
    /// Enough for this turn.
    Done,
}

/// The address that a connection counts for.
fn counted(peer: Option<SocketAddr>) -> Option<IpAddr> {
    Some(peer?.ip().to_canonical())
}

/// What an error of accept(2) calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// Nobody is waiting.
    Drained,
    /// It concerns one connection, which is gone: look for the next.
    Pass,
    /// No descriptor is left.
    WantsDescriptor,
    /// The system cannot give us another one now.
    BackOff,
}

impl AcceptError {
    /// As accept(2) says: its page asks to treat a connection's own network errors as if it had not been there.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::WouldBlock => return Self::Drained,
            ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::PermissionDenied
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable => return Self::Pass,
            // The peer is gone, and the system has no address of it any more (macOS, Wine).
            ErrorKind::InvalidInput if error.raw_os_error().is_none() => return Self::Pass,
            _ => {}
        }
        if world::wants_descriptor(error) {
            return Self::WantsDescriptor;
        }
        #[cfg(unix)]
        if let Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN | libc::EOPNOTSUPP) = error.raw_os_error() {
            return Self::Pass;
        }
        Self::BackOff
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::{io::Error, num::NonZeroU32};

    /// A listener that nobody comes to.
    struct Deserted;

    impl world::Listener for Deserted {
        fn accept(&mut self, _: usize) -> io::Result<(Stream, Address)> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn accept_on_spare(&mut self, _: usize) -> io::Result<(Stream, Address)> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn keep_spare(&mut self) {}
    }

    #[test]
    fn an_address_that_has_nobody_left_is_forgotten() {
        let options = Listen::new().per_peer_max(2, "enough");
        let mut listening = Listening::new(Key::new(0, NonZeroU32::MIN), Box::new(Deserted), Address::Fd, options);
        let peers: Vec<_> = (0..1_000u32).map(|n| Some(SocketAddr::from((n.to_be_bytes(), 7)))).collect();
        for &peer in &peers {
            listening.count_peer(peer);
            listening.count_peer(peer);
            assert!(listening.refusal(peer).is_some(), "it has as many as one may");
            listening.uncount_peer(peer);
            assert!(listening.refusal(peer).is_none());
        }
        let addresses = |listening: &Listening| listening.peers.as_ref().map(|peers| peers.len());
        assert_eq!(addresses(&listening), Some(1_000));
        peers.iter().for_each(|&peer| listening.uncount_peer(peer));
        assert_eq!(addresses(&listening), Some(0));
    }

    #[test]
    fn errors_of_one_connection_pass_want_of_descriptors_sheds_and_of_memory_backs_off() {
        let of = |errno| AcceptError::of(&Error::from_raw_os_error(errno));
        for errno in [libc::ECONNABORTED, libc::EINTR, libc::EPERM, libc::EPROTO, libc::ENETDOWN] {
            assert_eq!(of(errno), AcceptError::Pass, "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE] {
            assert_eq!(of(errno), AcceptError::WantsDescriptor, "{errno}");
        }
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC] {
            assert_eq!(of(errno), AcceptError::BackOff, "{errno}");
        }
        assert_eq!(of(libc::EAGAIN), AcceptError::Drained);
    }
}
