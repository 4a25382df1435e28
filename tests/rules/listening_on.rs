//! Sockets that listen already.

use crate::common::{Echo, Journal, PATIENCE, by_default, recorder, until};
use mainspring::{AdoptedListener, Listen, Reactor};
use socket2::Socket;
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};
#[cfg(unix)]
use std::{
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

#[cfg(unix)]
fn free_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mainspring-{name}-{}", std::process::id()))
}

#[test]
fn whoever_waits_in_their_backlog_is_let_in() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = tcp.local_addr().expect("it listens");
    let early = TcpStream::connect(at).expect("it listens");
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let tcp = reactor.net().listen_on(tcp, Listen::new(), |_, _, _| Ok(recorder(by_default))).expect("it listens");
    assert_eq!(reactor.net().local(tcp).and_then(|local| local.ip()), Some(at));
    (&early).write_all(b"early").expect("it is open");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"early");
    drop(early);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
}

#[cfg(unix)]
#[test]
fn a_unix_socket_lets_in_who_comes_and_its_file_stays() {
    let path = free_path("listens");
    let unix = UnixListener::bind(&path).expect("a path of its own");
    let early = UnixStream::connect(&path).expect("it listens");
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let unix = reactor.net().listen_on(unix, Listen::new(), |_, _, _| Ok(recorder(by_default))).expect("it listens");
    assert_eq!(reactor.net().local(unix).map(ToString::to_string), Some(format!("unix:{}", path.display())));
    let late = UnixStream::connect(&path).expect("it listens");
    (&early).write_all(b"early").expect("it is open");
    (&late).write_all(b"late").expect("it is open");
    until(&mut reactor, &mut journal, |journal| journal.received().len() == 9);
    reactor.net().close(unix);
    drop((early, late));
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    assert!(path.exists(), "the file is whose it was");
    std::fs::remove_file(path).expect("ours");
}

#[test]
fn options_hold_for_who_comes() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("it listens");
    let mut reactor = Reactor::new().expect("a selector");
    let options = Listen::new().connections_max(1, "full\n");
    reactor.net().listen_on(socket, options, |_, _, _| Ok(Echo)).expect("it listens");
    let first = TcpStream::connect(at).expect("it listens");
    until(&mut reactor, &mut (), |_| true);
    while reactor.stats().accepted == 0 {
        reactor.turn(&mut (), Duration::from_millis(5)).expect("the selector works");
    }
    let mut second = TcpStream::connect(at).expect("it listens");
    while reactor.stats().refused == 0 {
        reactor.turn(&mut (), Duration::from_millis(5)).expect("the selector works");
    }
    second.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut said = String::new();
    second.read_to_string(&mut said).expect("last words");
    assert_eq!(said, "full\n");
    drop(first);
}

#[test]
fn what_does_not_listen_is_refused() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    #[cfg(unix)]
    let (pair, _other) = UnixStream::pair().expect("a pair");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    #[cfg(unix)]
    let bound = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    for (socket, text) in [
        (Socket::from(udp), "carries packets"),
        // Winsock is not asked.
        #[cfg(unix)]
        (OwnedFd::from(pair).into(), "does not listen"),
        #[cfg(unix)]
        (bound, "does not listen"),
    ] {
        let error = reactor.net().listen_on(socket, Listen::new(), |_, _, _| Ok(Echo)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(text), "{error}");
    }
    #[cfg(unix)]
    {
        let file = std::fs::File::open("/dev/null").expect("null(4)");
        assert!(reactor.net().listen_on(OwnedFd::from(file), Listen::new(), |_, _, _| Ok(Echo)).is_err());
    }
    assert!(reactor.net().connections().is_empty());
}

/// As before a restart: two processes, or here reactors, have the same socket, and one of them lets go.
#[test]
fn one_that_is_shared_goes_on_when_the_other_has_closed_it() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("it listens");
    let mut old = Reactor::new().expect("a selector");
    let mut new = Reactor::new().expect("a selector");
    let duplicate = socket.try_clone().expect("a descriptor");
    let first = old.net().listen_on(socket, Listen::new(), |_, _, _| Ok(Echo)).expect("it listens");
    new.net().listen_on(duplicate, Listen::new(), |_, _, _| Ok(Echo)).expect("it listens");
    old.net().close(first);
    old.run(&mut ()).expect("the selector works");
    let mut client = TcpStream::connect(at).expect("it listens still");
    client.write_all(b"hello").expect("it is open");
    client.set_nonblocking(true).expect("a socket option");
    let mut buf = [0; 5];
    until(&mut new, &mut (), |_| client.read_exact(&mut buf).is_ok());
    assert_eq!(&buf, b"hello");
}

/// It is listened on by a reactor that closes it again, and then comes a guest.
fn is_not_woken_for<G>(socket: impl Into<AdoptedListener>, guest: impl FnOnce() -> G) {
    let mut reactor = Reactor::new().expect("a selector");
    let key = reactor.net().listen_on(socket, Listen::new(), |_, _, _| Ok(Echo)).expect("it listens");
    reactor.turn(&mut (), Duration::ZERO).expect("the selector works");
    reactor.net().close(key);
    reactor.run(&mut ()).expect("the selector works");
    let _guest = guest();
    let before = reactor.stats().stale_events;
    reactor.turn(&mut (), Duration::from_millis(50)).expect("the selector works");
    assert_eq!(reactor.stats().stale_events, before);
}

/// epoll(7) keeps what it was told of an open file until the last duplicate is gone, and the successor has one.
#[test]
fn who_has_closed_one_that_others_have_is_not_woken_for_it() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = tcp.local_addr().expect("it listens");
    let _kept = tcp.try_clone().expect("a descriptor");
    is_not_woken_for(tcp, || TcpStream::connect(at).expect("it listens"));
    #[cfg(unix)]
    {
        let path = free_path("forgotten");
        let unix = UnixListener::bind(&path).expect("a path of its own");
        let _kept = unix.try_clone().expect("a descriptor");
        is_not_woken_for(unix, || UnixStream::connect(&path).expect("it listens"));
        std::fs::remove_file(&path).expect("ours");
    }
}

#[cfg(unix)]
#[test]
fn a_thousand_rounds_leave_no_descriptor() {
    if !crate::common::is_alone("listening_on::a_thousand_rounds_leave_no_descriptor", "") {
        return;
    }
    let path = free_path("rounds");
    let mut reactor = Reactor::new().expect("a selector");
    let mut round = || {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let duplicate = tcp.try_clone().expect("a descriptor");
        let unix = UnixListener::bind(&path).expect("a path of its own");
        let guests = (TcpStream::connect(tcp.local_addr().expect("it listens")), UnixStream::connect(&path));
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(reactor.net().listen_on(OwnedFd::from(udp), Listen::new(), |_, _, _| Ok(Echo)).is_err());
        let keys = [tcp.into(), AdoptedListener::from(unix)]
            .map(|socket| reactor.net().listen_on(socket, Listen::new(), |_, _, _| Ok(Echo)).expect("it listens"));
        reactor.turn(&mut (), Duration::ZERO).expect("the selector works");
        for key in keys {
            reactor.net().close(key);
        }
        drop((guests, duplicate));
        std::fs::remove_file(&path).expect("ours");
        reactor.run(&mut ()).expect("the selector works");
        std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
    };
    let first = round();
    let rounds: Vec<usize> = (0..1_000).map(|_| round()).collect();
    assert!(rounds.iter().all(|&count| count == first), "{first}: {:?}", rounds.iter().max());
}
