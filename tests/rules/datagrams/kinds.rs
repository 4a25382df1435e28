//! What is no plain UDP socket: options, groups, sockets of the program's own.

use super::common::*;
use mainspring::Interface;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[test]
fn a_target_that_is_no_address_is_told() {
    let (mut reactor, _) = reactor();
    for (target, kind) in [("localhost:53", ErrorKind::Unsupported), ("7000", ErrorKind::InvalidInput)] {
        let error = reactor.net().bind(target, silent()).expect_err("no address");
        assert_eq!(error.kind(), kind, "{error}");
        let error = reactor.net().bind_to(target, silent()).expect_err("no address");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let taken = local(&mut reactor, key);
    let error = reactor.net().bind(taken, silent()).expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot take datagrams on {taken}: ")), "{error}");
    let error = reactor.net().bind_with("127.0.0.1:0", Bind::new().peer("[::1]:9"), silent()).expect_err("two families");
    assert!(error.to_string().starts_with("cannot take datagrams on 127.0.0.1:0: "), "{error}");
}

/// A service has the port that it has for datagrams.
#[test]
fn a_port_may_be_the_name_of_a_service_of_udp() {
    let (mut reactor, _) = reactor();
    let key = reactor.net().bind_to("127.0.0.1:syslog", silent()).expect("a service");
    assert_eq!(reactor.net().peer(key).map(Address::to_string).as_deref(), Some("127.0.0.1:514"));
}

#[cfg(unix)]
#[test]
fn a_port_is_shared_by_those_who_all_ask_for_it() {
    let (mut reactor, _) = reactor();
    let shared = || Bind::new().reuse_port();
    let key = reactor.net().bind_with("127.0.0.1:0", shared(), silent()).expect("a free port");
    let at = local(&mut reactor, key);
    reactor.net().bind_with(at, shared(), silent()).expect("both have asked for it");
    reactor.net().bind(at, silent()).expect_err("this one has not");
}

#[test]
fn a_broadcast_needs_leave() {
    let (mut reactor, mut journal) = reactor();
    let to = Address::Ip("255.255.255.255:9".parse().expect("a literal"));
    let key = reactor.net().bind("0.0.0.0:0", silent()).expect("a free port");
    assert!(reactor.net().send_to(key, &to, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.failures(), [(to.clone(), ErrorKind::PermissionDenied)]);
    let key = reactor.net().bind_with("0.0.0.0:0", Bind::new().broadcast(), silent()).expect("a free port");
    assert!(reactor.net().send_to(key, &to, "x"));
    settle(&mut reactor, &mut journal);
    let told = journal.of(key);
    assert!(!told.iter().any(|told| matches!(told, Told::Failed(_, ErrorKind::PermissionDenied, _))), "{told:?}");
}

#[test]
fn buffers_and_other_options_are_the_sockets_own() {
    let (mut reactor, _) = reactor();
    let options = Bind::new().buffers(20_000, 30_000).v6only(true);
    let key = reactor.net().bind_with("[::1]:0", options, silent()).expect("a free port");
    let listener = reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
    let net = reactor.net();
    let socket = net.socket(key).expect("it is one");
    assert!(socket.only_v6().expect("an option"));
    let (received, sent) = (socket.recv_buffer_size().expect("an option"), socket.send_buffer_size().expect("an option"));
    assert!((20_000..=40_000).contains(&received) && (30_000..=60_000).contains(&sent), "{received} {sent}");
    socket.set_unicast_hops_v6(7).expect("an option");
    assert!(net.socket(listener).is_none());
}

// ------------------------------------------------------------------------------------------------------- groups

#[test]
fn who_has_joined_a_group_hears_it_and_who_has_left_does_not() {
    let (mut reactor, mut journal) = reactor();
    let group = Ipv4Addr::new(239, 255, 77, 99);
    let on = Interface::Address(Ipv4Addr::LOCALHOST);
    let key = reactor.net().bind("0.0.0.0:0", silent()).expect("a free port");
    let port = local(&mut reactor, key).port();
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a descriptor");
    sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("an interface");
    let sender = UdpSocket::from(sender);
    sender.send_to(b"too early", (group, port)).expect("it is sent");
    let mut net = reactor.net();
    net.join(key, group.into(), on).expect("a group");
    let twice = net.join(key, group.into(), on).expect_err("it is joined");
    assert_eq!((twice.kind(), twice.to_string().split(':').next()), (ErrorKind::AddrInUse, Some("cannot join 239.255.77.99")));
    sender.send_to(b"news", (group, port)).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    let mut net = reactor.net();
    net.leave(key, group.into(), on).expect("it was joined");
    let error = net.leave(key, group.into(), on).expect_err("it is not joined any more");
    assert!(error.kind() == ErrorKind::AddrNotAvailable || cfg!(windows), "{error}");
    sender.send_to(b"too late", (group, port)).expect("it is sent");
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), [b"news"]);
}

#[test]
fn what_is_no_group_and_what_is_no_interface_is_told() {
    let (mut reactor, _) = reactor();
    let v4 = reactor.net().bind("0.0.0.0:0", silent()).expect("a free port");
    let v6 = reactor.net().bind("[::]:0", silent()).expect("a free port");
    let listener = reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
    let group4 = IpAddr::from([239, 255, 77, 98]);
    let group6 = IpAddr::from(Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0x77));
    let mut net = reactor.net();
    let mut kind = |key, group, on| net.join(key, group, on).map_err(|error| error.kind());
    assert_eq!(kind(v4, IpAddr::from([10, 0, 0, 1]), Interface::Any), Err(ErrorKind::InvalidInput));
    assert_eq!(kind(listener, group4, Interface::Any), Err(ErrorKind::NotFound));
    assert!(kind(v4, group4, Interface::Index(99_999)).is_err() && kind(v6, group6, Interface::Index(99_999)).is_err());
    assert!(kind(v4, group4, Interface::Address(Ipv4Addr::new(203, 0, 113, 77))).is_err());
    assert_eq!(kind(v6, group6, Interface::Address(Ipv4Addr::LOCALHOST)), Err(ErrorKind::InvalidInput));
    assert!(kind(v4, group6, Interface::Index(1)).is_err(), "a group of the other family");
    assert_eq!(kind(v6, group6, Interface::Index(1)), Ok(()));
    // Wine takes the number for an address.
    assert!(kind(v4, group4, Interface::Index(1)) == Ok(()) || cfg!(windows));
}

// -------------------------------------------------------------------------------------- sockets of the program's own

#[test]
fn a_socket_of_streams_is_refused() {
    let (mut reactor, _) = reactor();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    let error = reactor.net().bind_on(socket, Bind::new(), silent()).expect_err("it carries no packets");
    assert_eq!((error.kind(), error.to_string().contains("STREAM")), (ErrorKind::InvalidInput, true), "{error}");
}

#[test]
fn sockets_of_std_are_taken_as_they_are() {
    let (mut reactor, mut journal) = reactor();
    let (ours, peer) = (peer(), peer());
    let at = ours.local_addr().expect("it is bound");
    let key = reactor.net().bind_on(ours, Bind::new(), echo()).expect("a socket of packets");
    assert_eq!(local(&mut reactor, key), at);
    peer.send_to(b"udp", at).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 1);
    assert_eq!(hears(&peer), b"udp");
}

/// One whose descriptor lives on elsewhere is not registered any more.
#[test]
fn a_duplicate_of_what_was_closed_brings_no_event() {
    let (mut reactor, mut journal) = reactor();
    let ours = peer();
    let (at, duplicate) = (ours.local_addr().expect("it is bound"), ours.try_clone().expect("a descriptor"));
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 1);
    let other = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let before = reactor.stats();
    peer().send_to(b"x", at).expect("it is sent");
    settle(&mut reactor, &mut journal);
    let stats = reactor.stats();
    assert_eq!((stats.events, stats.stale_events), (before.events, before.stale_events));
    assert!(reactor.net().is_open(other));
    drop(duplicate);
}

#[test]
fn a_socket_of_the_programs_own_is_connected_if_a_peer_is_asked_for() {
    let (mut reactor, mut journal) = reactor();
    let (ours, peer) = (peer(), peer());
    let at = peer.local_addr().expect("it is bound");
    let key = reactor.net().bind_on(ours, Bind::new().peer(at), silent()).expect("a socket of packets");
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
    assert!(reactor.net().send(key, "x"));
    assert_eq!(hears(&peer), b"x");
    settle(&mut reactor, &mut journal);
    assert!(journal.told.is_empty());
}
