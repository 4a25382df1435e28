use super::common::*;

fn address(text: &str) -> Address {
    Address::Ip(text.parse().expect("a literal address"))
}

/// Before the call returns, and so without a turn.
#[test]
fn a_send_leaves_at_once_when_nothing_waits() {
    let (mut reactor, _) = reactor();
    let peer = peer();
    let at = Address::Ip(peer.local_addr().expect("it is bound"));
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let mut net = reactor.net();
    assert!(net.send_to(key, &at, "one") && net.send_to(key, &at, "") && net.send_to(key, &at, vec![3; 65_507]));
    assert_eq!((hears(&peer), hears(&peer), hears(&peer)), (b"one".to_vec(), Vec::new(), vec![3; 65_507]));
}

#[test]
fn net_send_goes_to_the_peer_of_who_is_connected_and_nowhere_otherwise() {
    let (mut reactor, _) = reactor();
    let peer = peer();
    let at = peer.local_addr().expect("it is bound");
    let connected = reactor.net().bind_to(at, silent()).expect("a free port");
    let options = Bind::new().peer(at);
    let bound = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
    let alone = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let mut net = reactor.net();
    assert!(net.send(connected, "one") && net.send(bound, "two") && !net.send(alone, "nobody"));
    assert!(net.send_to(connected, &Address::Ip(at), "three"));
    assert_eq!((hears(&peer), hears(&peer), hears(&peer)), (b"one".to_vec(), b"two".to_vec(), b"three".to_vec()));
}

/// An address of the wrong family, port 0, one that may not be sent to, one that is too long: all of one datagram.
#[test]
fn errors_of_one_datagram_never_end_the_socket() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let peer = peer();
    let at = Address::Ip(peer.local_addr().expect("it is bound"));
    let refused = ["[::1]:9", "255.255.255.255:9", "127.0.0.1:0"].map(address);
    let refused = if cfg!(windows) { &refused[..2] } else { &refused[..] }; // Winsock: port 0 swallows it
    for to in refused {
        assert!(reactor.net().send_to(key, to, "x"), "`failed` will say of {to}");
    }
    for bytes in [65_508, 65_535] {
        assert!(reactor.net().send_to(key, &at, vec![0; bytes]));
    }
    assert!(reactor.net().send_to(key, &Address::Unix(None), "x") && reactor.net().send_to(key, &Address::Fd, "x"));
    assert!(journal.told.is_empty(), "nobody is called inside of a call");
    until(&mut reactor, &mut journal, |journal| journal.failures().len() == refused.len() + 4);
    let told: Vec<Address> = journal.failures().into_iter().map(|(to, _)| to).collect();
    let (first, others) = told.split_at(refused.len());
    assert_eq!(first, refused);
    assert_eq!(others, [at.clone(), at.clone(), Address::Unix(None), Address::Fd]);
    assert!(reactor.net().send_to(key, &at, "still there"));
    assert_eq!(hears(&peer), b"still there");
    assert_eq!(reactor.stats().datagrams_dropped, told.len() as u64);
}

#[test]
#[cfg_attr(windows, ignore = "Wine: the news that nobody has a port is lost")]
fn that_nobody_has_the_port_is_told_and_the_socket_works_once_somebody_has() {
    let (mut reactor, mut journal) = reactor();
    let gone = peer().local_addr().expect("it was bound");
    let key = reactor.net().bind_to(gone, silent()).expect("a free port");
    assert!(reactor.net().send(key, "one"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.failures(), [(Address::Ip(gone), ErrorKind::ConnectionRefused)]);
    let peer = UdpSocket::bind(gone).expect("the port is free");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert!(reactor.net().send(key, "two"));
    assert_eq!(hears(&peer), b"two");
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().is_open(key) && journal.told.len() == 1);
}

/// Each send meets the news of the one before; no list grows, and nothing else is late.
#[test]
#[cfg_attr(windows, ignore = "Wine: the news that nobody has a port is lost")]
fn many_sends_to_nobody_without_a_turn_are_told_and_bounded() {
    for sends in [100, 1_000] {
        sends_to_nobody(sends);
    }
}

fn sends_to_nobody(sends: usize) {
    let (mut reactor, mut journal) = reactor();
    let gone = peer().local_addr().expect("it was bound");
    let key = reactor.net().bind_to(gone, silent()).expect("a free port");
    let other = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
    for _ in 0..sends {
        assert!(reactor.net().send(key, "x"));
    }
    let peer = peer();
    peer.send_to(b"ping", local(&mut reactor, other)).expect("it is sent");
    reactor.turn(&mut journal, PATIENCE).expect("the selector works");
    settle(&mut reactor, &mut journal);
    assert_eq!(hears(&peer), b"ping");
    let failures = journal.failures();
    assert!((1..=65).contains(&failures.len()), "{} were told", failures.len());
    assert!(failures.iter().all(|failure| *failure == (Address::Ip(gone), ErrorKind::ConnectionRefused)));
    assert!(reactor.net().is_open(key));
}

#[test]
fn a_key_that_is_no_datagram_socket_sends_nothing() {
    let (mut reactor, mut journal) = reactor();
    let to = address("127.0.0.1:9");
    let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
    let listener = reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
    let conn = reactor.net().connect("127.0.0.1:9", Nothing);
    assert!(!reactor.net().send_to(listener, &to, "x") && !reactor.net().send_to(conn, &to, "x"));
    reactor.net().close(key);
    assert!(!reactor.net().send_to(key, &to, "x"), "it has begun to end");
    reactor.net().abort(listener);
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert!(!reactor.net().send_to(key, &to, "x"), "the key is stale");
}

#[test]
fn a_reply_outside_of_received_goes_nowhere() {
    let (mut reactor, mut journal) = reactor();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&answers);
    let datagram = recorder(move |scope, _| {
        let is_sent = scope.reply("x");
        inner.borrow_mut().push(is_sent);
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", datagram).expect("a free port");
    reactor.net().send_to(key, &nowhere(), "x");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 1);
    assert_eq!(*answers.borrow(), [false], "in failed");
}

/// Asks again when it hears that nobody is there.
#[test]
fn a_refusal_is_no_error_for_ever() {
    let (mut reactor, mut journal) = reactor();
    let gone = peer().local_addr().expect("it was bound");
    let again = recorder(|scope, told| {
        if matches!(told, Told::Failed(..)) {
            let key = scope.key;
            scope.net.send(key, "again");
        }
        Ok(())
    });
    let key = reactor.net().bind_to(gone, again).expect("a free port");
    assert!(reactor.net().send(key, "x"));
    for _ in 0..10 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert!(reactor.net().is_open(key), "{:?}", journal.told.last());
}

/// What fails again and again leaves what has come its turn.
#[test]
fn failures_do_not_keep_what_has_come_waiting_for_ever() {
    let (mut reactor, mut journal) = reactor();
    let again = recorder(|scope, told| {
        if matches!(told, Told::Failed(..)) {
            let key = scope.key;
            scope.net.send_to(key, &nowhere(), "again");
        }
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", again).expect("a free port");
    assert!(reactor.net().send_to(key, &nowhere(), "x"));
    peer().send_to(b"hello", local(&mut reactor, key)).expect("it is sent");
    for _ in 0..20 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(journal.received(), [b"hello"], "{} failures were told", journal.failures().len());
}

/// As `Net::send_to` says.
#[test]
fn a_failure_is_told_in_a_later_turn() {
    let (mut reactor, mut journal) = reactor();
    let datagram = recorder(|scope, told| {
        if matches!(told, Told::Received(..)) {
            let key = scope.key;
            scope.net.send_to(key, &nowhere(), "x");
        }
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", datagram).expect("a free port");
    peer().send_to(b"hello", local(&mut reactor, key)).expect("it is sent");
    while journal.told.is_empty() {
        reactor.turn(&mut journal, PATIENCE).expect("the selector works");
    }
    assert_eq!(journal.told.len(), 1, "{:?}", journal.told);
}

/// Whoever hears of it first, the receive or the next send.
#[test]
#[cfg_attr(windows, ignore = "Wine: the news that nobody has a port is lost")]
fn a_refusal_is_counted_the_same_whoever_hears_of_it() {
    let dropped = |sends: usize| {
        let (mut reactor, mut journal) = reactor();
        let gone = peer().local_addr().expect("it was bound");
        let key = reactor.net().bind_to(gone, silent()).expect("a free port");
        (0..sends).for_each(|_| assert!(reactor.net().send(key, "x")));
        settle(&mut reactor, &mut journal);
        let told = journal.failures().len() as u64;
        (told, reactor.stats().datagrams_dropped)
    };
    let ((one, dropped_of_one), (two, dropped_of_two)) = (dropped(1), dropped(2));
    assert_eq!((one, two), (1, 2));
    assert_eq!(dropped_of_two, 2 * dropped_of_one, "told {two}, counted {dropped_of_two}; told {one}, counted {dropped_of_one}");
}

/// Each of many has left, or is dropped and counted.
#[cfg(unix)]
#[test]
fn of_many_that_have_no_room_each_is_counted() {
    let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().expect("two descriptors");
    let (mut reactor, _journal) = reactor();
    let key = reactor.net().bind_on(ours, Bind::new().queue(0, Full::DropNewest), silent()).expect("a socket of packets");
    assert!(!reactor.net().send_segments(key, &Address::Unix(None), [7; 100_000], 10), "nobody receives");
    let stats = reactor.stats();
    assert_eq!(stats.datagrams_out + stats.datagrams_dropped, 10_000, "{} left", stats.datagrams_out);
}
