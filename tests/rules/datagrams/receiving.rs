use super::common::*;
use std::net::IpAddr;

#[test]
fn a_datagram_comes_whole_and_is_answered_over_ipv4_ipv6_and_both() {
    for (at, from) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")] {
        let (mut reactor, mut journal) = reactor();
        let key = reactor.net().bind_with(at, of_both(), echo()).expect("a free port");
        let peer = peer_at(from);
        let ours = peer.local_addr().expect("it is bound");
        let to = SocketAddr::new(ours.ip(), local(&mut reactor, key).port());
        for bytes in [&b"hello"[..], b"", &[7; 9_000]] {
            peer.send_to(bytes, to).expect("it is sent");
            until(&mut reactor, &mut journal, |journal| journal.received().last().is_some_and(|last| last == bytes));
            assert_eq!(hears(&peer), bytes, "from {from} to {at}");
        }
        assert!(journal.told.iter().all(|(_, told)| matches!(told, Told::Received(_, of) if *of == Address::Ip(ours))));
        let stats = reactor.stats();
        assert_eq!((stats.datagrams_in, stats.datagrams_out, stats.datagrams_dropped), (3, 3, 0));
    }
}

/// It is shown as IPv4 and may be answered as such, by the key too.
#[test]
fn an_ipv4_peer_of_an_ipv6_socket_is_shown_as_ipv4() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_with("[::]:0", of_both(), silent()).expect("a free port");
    let peer = peer();
    let ours = peer.local_addr().expect("it is bound");
    peer.send_to(b"x", ("127.0.0.1", local(&mut reactor, key).port())).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.of(key), [Told::Received(b"x".to_vec(), Address::Ip(ours))]);
    assert!(reactor.net().send_to(key, &Address::Ip(ours), "y"));
    assert_eq!(hears(&peer), b"y");
}

#[test]
fn what_is_longer_than_the_largest_is_oversized() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_with("127.0.0.1:0", Bind::new().largest(100), silent()).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    for bytes in [100, 101, 65_507, 0] {
        peer.send_to(&vec![1; bytes], to).expect("it is sent");
    }
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 4);
    let from = Address::Ip(peer.local_addr().expect("it is bound"));
    let wanted = [
        Told::Received(vec![1; 100], from.clone()),
        Told::Oversized(100, from.clone()),
        Told::Oversized(100, from.clone()),
        Told::Received(Vec::new(), from),
    ];
    assert_eq!(journal.of(key), wanted);
    assert_eq!((reactor.stats().datagrams_in, reactor.stats().datagrams_oversized), (4, 2));
}

#[test]
fn with_a_largest_of_nothing_only_empty_ones_are_whole() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_with("127.0.0.1:0", Bind::new().largest(0), silent()).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    peer.send_to(b"", to).expect("it is sent");
    peer.send_to(b"x", to).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
    let from = Address::Ip(peer.local_addr().expect("it is bound"));
    assert_eq!(journal.of(key), [Told::Received(Vec::new(), from.clone()), Told::Oversized(0, from)]);
}

#[test]
fn who_is_connected_hears_nobody_else() {
    let (mut reactor, mut journal) = reactor();
    let (friend, stranger) = (peer(), peer());
    let at = friend.local_addr().expect("it is bound");
    let key = reactor.net().bind_to(at, silent()).expect("a free port");
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
    let to = local(&mut reactor, key);
    stranger.send_to(b"stranger", to).expect("it is sent");
    friend.send_to(b"friend", to).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key), [Told::Received(b"friend".to_vec(), Address::Ip(at))]);
}

/// The kernel reports each that leaves, to whoever is registered for room.
#[test]
fn a_datagram_there_and_back_is_one_event() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    let before = reactor.stats().events;
    for count in 1..=1_000 {
        peer.send_to(b"paced", to).expect("it is sent");
        until(&mut reactor, &mut journal, |journal| journal.told.len() == count);
        assert_eq!(hears(&peer), b"paced");
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"); // in which it would hear of room
    }
    let events = reactor.stats().events - before;
    assert!((1_000..=1_010).contains(&events), "{events}");
}

/// A turn of it has a bounded number; whatever else is ready has its turn in between.
#[test]
fn a_flood_leaves_the_others_their_turn() {
    let config = mainspring::Config::new().turn_datagrams(8);
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let flooded = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let other = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let (to, other_at, peer) = (local(&mut reactor, flooded), local(&mut reactor, other), peer());
    for _ in 0..100 {
        peer.send_to(b"flood", to).expect("it is sent");
    }
    peer.send_to(b"other", other_at).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 101);
    let before = journal.told.iter().position(|(key, _)| *key == other).expect("it was told");
    assert!(before <= 16, "{before} of the flood came first");
}

#[test]
fn what_a_datagram_was_sent_to_is_the_bound_address() {
    for (at, wanted) in [("127.0.0.1:0", Some(IpAddr::from([127, 0, 0, 1]))), ("0.0.0.0:0", None)] {
        let (mut reactor, mut journal) = reactor();
        let asked = Rc::new(Cell::new(None));
        let inner = Rc::clone(&asked);
        let datagram = recorder(move |scope, told| {
            inner.set(Some((scope.to(), matches!(told, Told::Received(..)))));
            Ok(())
        });
        let key = reactor.net().bind(at, datagram).expect("a free port");
        let port = local(&mut reactor, key).port();
        peer().send_to(b"x", ("127.0.0.1", port)).expect("it is sent");
        until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
        assert_eq!(asked.get(), Some((wanted, true)));
        reactor.net().close(key);
        until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
        assert_eq!(asked.get(), Some((None, false)), "outside of received it was sent nowhere");
    }
}

#[test]
fn who_closes_is_told_nothing_of_what_still_waits() {
    let (mut reactor, mut journal) = reactor();
    let closer = recorder(|scope, told| {
        if matches!(told, Told::Received(..)) {
            scope.close();
        }
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", closer).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    for _ in 0..100 {
        peer.send_to(b"x", to).expect("it is sent");
    }
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
    settle(&mut reactor, &mut journal);
    let from = Address::Ip(peer.local_addr().expect("it is bound"));
    assert_eq!(journal.of(key), [Told::Received(b"x".to_vec(), from), Told::Closed(Reason::Finish.to_string())]);
}

/// An IPv4 peer is shown as IPv4; so is where it was heard.
#[test]
fn the_ipv4_address_of_an_ipv6_socket_is_shown_as_ipv4() {
    let (mut reactor, mut journal) = reactor();
    let peer = peer();
    let at = peer.local_addr().expect("it is bound");
    let to = Rc::new(RefCell::new(None));
    let inner = Rc::clone(&to);
    let datagram = recorder(move |scope, _| {
        *inner.borrow_mut() = scope.to();
        Ok(())
    });
    let key = reactor.net().bind_with("[::]:0", of_both().peer(at), datagram).expect("both families");
    peer.send_to(b"x", ("127.0.0.1", local(&mut reactor, key).port())).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(*to.borrow(), Some(at.ip()));
}

/// A peer is one, however it was written: `received` and `Net::peer` show the same.
#[test]
fn a_peer_that_was_written_as_mapped_is_the_one_who_is_received() {
    let (mut reactor, mut journal) = reactor();
    let peer = peer();
    let at = peer.local_addr().expect("it is bound");
    let mapped = format!("[::ffff:127.0.0.1]:{}", at.port());
    let key = match cfg!(windows) {
        true => reactor.net().bind_with("[::]:0", of_both().peer(mapped), silent()),
        false => reactor.net().bind_to(mapped, silent()),
    };
    let key = key.expect("both families");
    peer.send_to(b"x", ("127.0.0.1", local(&mut reactor, key).port())).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
}

// ------------------------------------------------------------------------------------------- what turned out sound
