//! A datagram that writes down what it is called with.

pub(super) use crate::common::{Nothing, PATIENCE, settle, uninterrupted, until};
pub(super) use mainspring::{Address, Bind, Datagram, Full, Key, Outcome, Reactor, Reason, Scope};
pub(super) use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    time::Duration,
};

/// What it was called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Received(Vec<u8>, Address),
    Oversized(usize, Address),
    Failed(Address, ErrorKind, Option<i32>),
    Writable,
    Closed(String),
}

#[derive(Default)]
pub(super) struct Journal {
    pub(super) told: Vec<(Key, Told)>,
}

impl Journal {
    pub(super) fn of(&self, key: Key) -> Vec<Told> {
        self.told.iter().filter(|(owner, _)| *owner == key).map(|(_, told)| told.clone()).collect()
    }

    /// The bytes of each that was received whole.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let bytes = self.told.iter().filter_map(|(_, told)| match told {
            Told::Received(bytes, _) => Some(bytes.clone()),
            _ => None,
        });
        bytes.collect()
    }

    pub(super) fn failures(&self) -> Vec<(Address, ErrorKind)> {
        let failed = self.told.iter().filter_map(|(_, told)| match told {
            Told::Failed(to, kind, _) => Some((to.clone(), *kind)),
            _ => None,
        });
        failed.collect()
    }

    #[cfg(feature = "sim")]
    pub(super) fn count(&self, told: &Told) -> usize {
        self.told.iter().filter(|(_, other)| other == told).count()
    }
}

/// Notes each call and then runs `on`.
pub(super) struct Recorder<F>(pub(super) F);

pub(super) fn recorder<F>(on: F) -> Recorder<F>
where
    F: FnMut(&mut Scope<'_, Journal>, &Told) -> Outcome + 'static,
{
    Recorder(on)
}

/// One that only writes down.
pub(super) fn silent() -> impl Datagram<Journal> {
    recorder(|_, _| Ok(()))
}

/// One that sends back what it is sent.
pub(super) fn echo() -> impl Datagram<Journal> {
    recorder(|scope, told| {
        if let Told::Received(bytes, _) = told {
            scope.reply(bytes);
        }
        Ok(())
    })
}

impl<F> Recorder<F>
where
    F: FnMut(&mut Scope<'_, Journal>, &Told) -> Outcome + 'static,
{
    fn note(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, told: Told) -> Outcome {
        journal.told.push((scope.key, told.clone()));
        (self.0)(scope, &told)
    }
}

impl<F> Datagram<Journal> for Recorder<F>
where
    F: FnMut(&mut Scope<'_, Journal>, &Told) -> Outcome + 'static,
{
    fn received(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, bytes: &[u8], from: &Address) -> Outcome {
        self.note(scope, journal, Told::Received(bytes.to_vec(), from.clone()))
    }

    fn oversized(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, bytes: &[u8], from: &Address) -> Outcome {
        self.note(scope, journal, Told::Oversized(bytes.len(), from.clone()))
    }

    fn failed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, to: &Address, error: io::Error) -> Outcome {
        self.note(scope, journal, Told::Failed(to.clone(), error.kind(), error.raw_os_error()))
    }

    fn writable(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Outcome {
        self.note(scope, journal, Told::Writable)
    }

    fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
        let _ = self.note(scope, journal, Told::Closed(why.to_string()));
    }
}

pub(super) fn reactor() -> (Reactor<Journal>, Journal) {
    (Reactor::new().expect("a selector"), Journal::default())
}

/// Of many at once where the feature has it, and the system what quinn-udp asks of a socket.
pub(super) fn many() -> Bind {
    #[cfg(feature = "udp-batch")]
    if cfg!(unix) || quinn_udp::UdpSocketState::new((&peer()).into()).is_ok() {
        return Bind::new().batch();
    }
    #[cfg(feature = "udp-batch")]
    crate::common::skip("Wine: refuses what quinn-udp asks of a socket, so it goes one by one");
    Bind::new()
}

/// Where an IPv4 socket can send nothing.
pub(super) fn nowhere() -> Address {
    Address::Ip(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9)))
}

/// At `[::]` both families, as Linux has it by default.
pub(super) fn of_both() -> Bind {
    if cfg!(windows) { Bind::new().v6only(false) } else { Bind::new() }
}

pub(super) fn local(reactor: &mut Reactor<Journal>, key: Key) -> SocketAddr {
    reactor.net().local(key).and_then(Address::ip).expect("it is bound to an IP address")
}

/// For a dispatcher, which nobody sends to.
pub(super) fn watched() -> mio::net::UdpSocket {
    mio::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
}

/// A socket of somebody else.
pub(super) fn peer() -> UdpSocket {
    peer_at("127.0.0.1:0")
}

pub(super) fn peer_at(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

pub(super) fn hears(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 70_000];
    let (bytes, _) = uninterrupted(|| socket.recv_from(&mut buf)).expect("somebody answers");
    buf.truncate(bytes);
    buf
}

/// Whether it has been told its end.
pub(super) fn closed(journal: &Journal, key: Key) -> bool {
    journal.of(key).iter().any(|told| matches!(told, Told::Closed(_)))
}
