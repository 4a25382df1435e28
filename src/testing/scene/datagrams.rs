//! Peers of a scene that send and take datagrams: they have no connection, and nothing to end.

use super::{Scene, literal};
use crate::{
    address::Address,
    world::{
        BindHow,
        sim::{BoxId, Errno},
    },
};
use std::fmt;

/// More than a datagram can have.
const BUFFER: usize = 1 << 16;

/// A scripted peer of a [`Scene`] that [takes datagrams](Scene::binds); in another scene it names somebody else, or nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer(BoxId);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:x})", self.0)
    }
}

/// Peers without a connection, which send and take datagrams.
impl<S: 'static> Scene<S> {
    /// Adds a peer that takes datagrams at this address, and sends from it. With port 0 the network chooses one; then
    /// [`peer_address`](Self::peer_address) says which.
    ///
    /// # Panics
    /// If `address` is not an IP address and port, or somebody else takes datagrams there.
    #[track_caller]
    pub fn binds(&mut self, address: &str) -> Peer {
        self.assert_own_sim();
        let how = BindHow { at: Some(literal(address)), broadcast: true, ..BindHow::default() };
        let bound = self.sim.network().borrow_mut().bind(self.outside, &how, usize::MAX);
        match bound {
            Ok((id, ..)) => Peer(id),
            Err(Errno::AddressInUse) => panic!("`{address}` cannot take datagrams: somebody else does so there"),
            Err(errno) => panic!("`{address}` cannot take datagrams: {errno:?}"),
        }
    }

    /// Where a peer takes datagrams.
    ///
    /// # Panics
    /// If it does not take any more, or belongs to another scene, as for every method that takes a peer.
    #[track_caller]
    pub fn peer_address(&mut self, who: Peer) -> Address {
        self.assert_own_sim();
        match self.sim.network().borrow().box_address(who.0) {
            Some(address) => address.into(),
            None => panic!("there is no such peer in this scene: it takes no datagrams any more, or is another one's"),
        }
    }

    /// The peer sends a datagram, and everything happens that it causes without time passing. It may be lost on the way.
    ///
    /// # Panics
    /// If `to` is not an IP address and port, or one to which it cannot send, or if there are too many bytes for one
    /// datagram.
    #[track_caller]
    pub fn sends(&mut self, who: Peer, to: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer_address(who);
        let at = literal(to).ip();
        let sent = self.sim.network().borrow_mut().send_packet(who.0, bytes.as_ref(), at);
        if let Err(errno) = sent {
            panic!("{} bytes cannot be sent to `{to}` as a datagram: {errno:?}", bytes.as_ref().len());
        }
        self.settles()
    }

    /// Checks that exactly these, in this order, were sent to the peer since it was last asked.
    ///
    /// # Panics
    /// If anything else came.
    #[track_caller]
    pub fn takes_datagrams(&mut self, who: Peer, wanted: &[&[u8]]) -> &mut Self {
        let taken: Vec<_> = self.datagrams(who).into_iter().map(|(_, bytes)| bytes).collect();
        let show = |all: &[&[u8]]| all.iter().map(|bytes| format!("\n  \"{}\"", bytes.escape_ascii())).collect::<String>();
        let got: Vec<&[u8]> = taken.iter().map(Vec::as_slice).collect();
        assert!(
            got == wanted,
            "{} datagrams came, {} were expected\ngot:{}\nexpected:{}",
            got.len(),
            wanted.len(),
            show(&got),
            show(wanted)
        );
        self
    }

    /// Everything that was sent to the peer since it was last asked, and from where.
    #[track_caller]
    pub fn datagrams(&mut self, who: Peer) -> Vec<(Address, Vec<u8>)> {
        self.peer_address(who);
        self.settles();
        let (mut all, mut buf) = (Vec::new(), vec![0; BUFFER]);
        let mut network = self.sim.network().borrow_mut();
        while let Ok((bytes, from)) = network.recv_packet(who.0, &mut buf) {
            all.push((from.into(), buf[..bytes].to_vec()));
        }
        all
    }

    /// The peer takes no datagrams any more: a socket that is connected to it is told so when it sends.
    #[track_caller]
    pub fn unbinds(&mut self, who: Peer) -> &mut Self {
        self.peer_address(who);
        self.sim.network().borrow_mut().close_box(who.0);
        self.settles()
    }
}
