//! What a review found: each fails as long as it is so.

use super::common::*;
use socket2::{Domain, Socket, Type};
use std::{cell::RefCell, os::unix::net::UnixDatagram, rc::Rc, time::Duration};

fn closed(journal: &Journal, key: Key) -> bool {
    journal.of(key).iter().any(|told| matches!(told, Told::Closed(_)))
}

/// Its end is no empty message, also if the selector has not said yet that it has come.
#[test]
fn the_end_of_a_sequenced_peer_amid_a_turn_is_no_empty_message() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    theirs.send(b"one").expect("it is sent");
    let theirs = RefCell::new(Some(theirs));
    let datagram = recorder(move |_, _| {
        theirs.borrow_mut().take();
        Ok(())
    });
    let key = reactor.net().bind_on(ours, Bind::new(), datagram).expect("a socket of packets");
    until(&mut reactor, &mut journal, |journal| closed(journal, key));
    assert_eq!(journal.received().len(), 1, "messages that nobody has sent");
}

#[test]
fn what_a_sequenced_peer_sent_after_an_empty_message_comes_before_its_end() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    for bytes in [&b"one"[..], b"", b"last"] {
        theirs.send(bytes).expect("it is sent");
    }
    drop(theirs);
    until(&mut reactor, &mut journal, |journal| closed(journal, key));
    assert_eq!(journal.received(), [&b"one"[..], b"", b"last"]);
}

/// One that was refused is one, and told once.
#[test]
fn a_unix_peer_that_has_gone_fails_each_datagram_once() {
    let path = std::env::temp_dir().join(format!("mainspring-review-gone-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let theirs = UnixDatagram::bind(&path).expect("a free path");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_to(path.as_path(), silent()).expect("somebody is there");
    drop(theirs);
    assert!(reactor.net().send(key, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    settle(&mut reactor, &mut journal);
    let _ = std::fs::remove_file(&path);
    assert_eq!((journal.failures().len(), reactor.stats().datagrams_dropped), (1, 1), "{:?}", journal.told);
}

/// The same while something waits for it.
#[test]
fn a_unix_peer_that_goes_while_something_waits_fails_each_once() {
    let path = std::env::temp_dir().join(format!("mainspring-review-waits-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let theirs = UnixDatagram::bind(&path).expect("a free path");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_to(path.as_path(), silent()).expect("somebody is there");
    let mut waiting = 0;
    while waiting < 3 {
        assert!(reactor.net().send(key, "x"));
        waiting += usize::from(reactor.net().connections()[0].queued > 0);
    }
    drop(theirs);
    until(&mut reactor, &mut journal, |journal| journal.told.contains(&(key, Told::Writable)));
    let _ = std::fs::remove_file(&path);
    assert_eq!((journal.failures().len(), reactor.stats().datagrams_dropped), (3, 3), "{:?}", journal.told);
}

/// Who asks again when he hears that nobody is there.
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
    let nowhere = Address::Ip("127.0.0.1:0".parse().expect("a literal"));
    let to = nowhere.clone();
    let again = recorder(move |scope, told| {
        if matches!(told, Told::Failed(..)) {
            let key = scope.key;
            scope.net.send_to(key, &to, "again");
        }
        Ok(())
    });
    let key = reactor.net().bind("127.0.0.1:0", again).expect("a free port");
    assert!(reactor.net().send_to(key, &nowhere, "x"));
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
    let nowhere = Address::Ip("127.0.0.1:0".parse().expect("a literal"));
    let datagram = recorder(move |scope, told| {
        if matches!(told, Told::Received(..)) {
            let key = scope.key;
            scope.net.send_to(key, &nowhere, "x");
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

/// docs/datagrams.md: by an `Err` too, what waits to be sent leaves if the kernel takes it at once.
#[test]
fn what_waits_leaves_when_an_err_ends_the_socket() {
    for fails in [false, true] {
        let (slow, other) = UnixDatagram::pair().expect("two descriptors");
        slow.set_nonblocking(true).expect("a socket option");
        let slow = Rc::new(slow);
        let inner = Rc::clone(&slow);
        let (mut reactor, mut journal) = reactor();
        let datagram = recorder(move |scope, told| {
            let Told::Received(..) = told else { return Ok(()) };
            while inner.recv(&mut [0; 10]).is_ok() {}
            if fails {
                return Err("on purpose".into());
            }
            scope.close();
            Ok(())
        });
        let key = reactor.net().bind_on(other, Bind::new(), datagram).expect("a socket of packets");
        while reactor.net().connections()[0].queued == 0 {
            assert!(reactor.net().send(key, "fill"));
        }
        slow.send(b"end").expect("it is sent");
        until(&mut reactor, &mut journal, |journal| closed(journal, key));
        assert_eq!(slow.recv(&mut [0; 10]).ok(), Some(4), "what waited, by an Err: {fails}");
    }
}

/// docs/datagrams.md: a drain, and a shutdown, end it last; until then others may answer by it.
#[test]
fn others_may_answer_by_it_until_they_have_ended() {
    use mainspring::{Context, Dispatcher, Protocol, Source};
    use std::os::fd::AsFd;

    struct Last(Key, Address);
    impl Protocol<Journal> for Last {
        fn closed(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal, _: Reason) {
            ctx.net.send_to(self.0, &self.1, "connection");
        }
    }
    struct Watch(UnixDatagram, Key, Address);
    impl Dispatcher<Journal> for Watch {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }
        fn closed(&mut self, scope: &mut Scope<'_, Journal>, _: &mut Journal, _: Reason) {
            scope.net.send_to(self.1, &self.2, "dispatcher");
        }
    }
    struct Quiet;
    impl Protocol<Journal> for Quiet {}

    let mut wrong = Vec::new();
    for (drains, dispatches) in [(true, false), (false, false), (true, true), (false, true)] {
        let (mut reactor, mut journal) = reactor();
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = Address::Ip(peer.local_addr().expect("it is bound"));
        peer.set_nonblocking(true).expect("a socket option");
        let key = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
        if dispatches {
            let (ours, _) = UnixDatagram::pair().expect("two descriptors");
            reactor.net().watch(Watch(ours, key, to)).expect("it can be watched");
        } else {
            let listener = reactor.net().listen("127.0.0.1:0", || Quiet).expect("a free port");
            let at = reactor.net().local(listener).and_then(Address::ip).expect("it listens");
            reactor.net().connect(at, Last(key, to));
            settle(&mut reactor, &mut journal);
        }
        if drains {
            reactor.net().drain(Duration::from_secs(60));
            reactor.run(&mut journal).expect("the selector works");
        } else {
            reactor.shutdown(&mut journal);
        }
        if peer.recv(&mut [0; 20]).is_err() {
            wrong.push((if drains { "drain" } else { "shutdown" }, if dispatches { "dispatcher" } else { "connection" }));
        }
    }
    assert!(wrong.is_empty(), "not heard: {wrong:?}");
}

/// Also where the selector is poll(2), whose own errors have the same kind.
#[test]
fn a_unix_path_where_nobody_is_is_failed_as_such() {
    let (mut reactor, mut journal) = reactor();
    let (ours, _theirs) = UnixDatagram::pair().expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    let nowhere = Address::Unix(Some("/nowhere/at/all".into()));
    assert!(reactor.net().send_to(key, &nowhere, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.of(key), [Told::Failed(nowhere, ErrorKind::NotFound, Some(libc::ENOENT))]);
}

/// Whoever hears of it first, the receive or the next send.
#[test]
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
    let key = reactor.net().bind_with("[::]:0", Bind::new().peer(at), datagram).expect("both families");
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
    let key = reactor.net().bind_to(format!("[::ffff:127.0.0.1]:{}", at.port()), silent()).expect("both families");
    peer.send_to(b"x", ("127.0.0.1", local(&mut reactor, key).port())).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(reactor.net().peer(key), Some(&Address::Ip(at)));
}

// ------------------------------------------------------------------------------------------- what turned out sound

/// Both ways connected: then only the send buffer says that there is no room.
#[test]
fn a_pair_with_a_tiny_send_buffer_waits_and_gets_all() {
    let (slow, ours) = UnixDatagram::pair().expect("two descriptors");
    slow.set_nonblocking(true).expect("a socket option");
    let (mut reactor, mut journal) = reactor();
    let options = Bind::new().buffers(None, 1);
    let key = reactor.net().bind_on(ours, options, silent()).expect("a socket of packets");
    (0..200_u32).for_each(|number| assert!(reactor.net().send(key, number.to_be_bytes())));
    assert!(reactor.net().connections()[0].queued > 0);
    let (mut got, mut buf) = (Vec::new(), [0; 10]);
    until(&mut reactor, &mut journal, |journal| {
        while let Ok(4) = slow.recv(&mut buf) {
            got.push(u32::from_be_bytes(buf[..4].try_into().expect("four bytes")));
        }
        journal.told.contains(&(key, Told::Writable)) && got.len() == 200
    });
    assert_eq!(got, (0..200).collect::<Vec<_>>());
    assert_eq!(journal.told.len(), 1);
}

#[test]
fn a_panic_that_propagates_ends_the_socket_first_and_the_others_go_on() {
    let config = mainspring::Config::new().panics(mainspring::Panics::Propagate).turn_datagrams(1).turn_bytes(1);
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let panics = recorder(|_, told| if matches!(told, Told::Received(..)) { panic!("on purpose") } else { Ok(()) });
    let key = reactor.net().bind("127.0.0.1:0", panics).expect("a free port");
    let other = reactor.net().bind("127.0.0.1:0", echo()).expect("a free port");
    let (to, other_at, peer) = (local(&mut reactor, key), local(&mut reactor, other), peer());
    peer.send_to(b"x", to).expect("it is sent");
    peer.send_to(b"x", to).expect("it is sent");
    let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        (0..10).for_each(|_| _ = reactor.turn(&mut journal, PATIENCE).expect("the selector works"));
    }));
    assert!(turned.is_err() && journal.of(key).len() == 2 && closed(&journal, key), "{:?}", journal.told);
    peer.send_to(b"ping", other_at).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.of(other).len() == 1);
    assert_eq!(hears(&peer), b"ping");
}

/// It ends others, itself, and is ended by others, in each callback; each `closed` comes once, and is the last.
#[test]
fn who_ends_itself_and_others_anywhere_is_told_its_end_once_and_last() {
    for which in 0..3 {
        let (mut reactor, mut journal) = reactor();
        let keys: Rc<RefCell<Vec<Key>>> = Rc::default();
        let make = || {
            let keys = Rc::clone(&keys);
            recorder(move |scope: &mut Scope<'_, Journal>, told: &Told| {
                let is_it = match told {
                    Told::Received(..) => which == 0,
                    Told::Failed(..) => which == 1,
                    Told::Closed(_) => which == 2,
                    _ => false,
                };
                if is_it {
                    for &key in &*keys.borrow() {
                        scope.net.abort(key);
                        scope.net.send_to(key, &Address::Fd, "x");
                    }
                }
                Ok(())
            })
        };
        for _ in 0..3 {
            let key = reactor.net().bind("127.0.0.1:0", make()).expect("a free port");
            keys.borrow_mut().push(key);
        }
        let peer = peer();
        for &key in &*keys.borrow() {
            let at = local(&mut reactor, key);
            peer.send_to(b"x", at).expect("it is sent");
            reactor.net().send_to(key, &Address::Fd, "x");
        }
        if which == 2 {
            reactor.net().close(keys.borrow()[1]);
        }
        until(&mut reactor, &mut journal, |journal| keys.borrow().iter().all(|&key| closed(journal, key)));
        settle(&mut reactor, &mut journal);
        for &key in &*keys.borrow() {
            let told = journal.of(key);
            assert_eq!(told.iter().filter(|told| matches!(told, Told::Closed(_))).count(), 1);
            assert!(matches!(told.last(), Some(Told::Closed(_))), "{told:?}");
        }
    }
}

#[cfg(feature = "udp-batch")]
mod batches {
    use super::*;
    use mainspring::Interface;
    use quinn_udp::{RecvMeta, UdpSocketState};
    use std::{io::IoSliceMut, net::Ipv4Addr};

    /// A group cannot be the source of anything.
    #[test]
    fn what_was_sent_to_a_group_is_answered_from_an_address_of_ours() {
        for options in [Bind::new(), Bind::new().batch()] {
            let (mut reactor, mut journal) = reactor();
            let group = Ipv4Addr::new(239, 255, 77, 101);
            let key = reactor.net().bind_with("0.0.0.0:0", options.clone(), echo()).expect("a free port");
            reactor.net().join(key, group.into(), Interface::Address(Ipv4Addr::LOCALHOST)).expect("a group");
            let sender = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a descriptor");
            sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("an interface");
            sender.set_read_timeout(Some(Duration::from_secs(2))).expect("an option");
            let sender = UdpSocket::from(sender);
            sender.send_to(b"who is there?", (group, local(&mut reactor, key).port())).expect("it is sent");
            until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
            settle(&mut reactor, &mut journal);
            assert!(journal.failures().is_empty(), "{options:?}: {:?}", journal.told);
            let mut buf = [0; 100];
            assert_eq!(sender.recv(&mut buf).ok(), Some(13), "it is answered");
        }
    }

    /// How large the first message is that the kernel has joined, and what is said of its ECN.
    fn receive(state: &UdpSocketState, socket: &UdpSocket) -> RecvMeta {
        let (mut buf, mut metas) = (vec![0; 1 << 16], [RecvMeta::default()]);
        socket.set_nonblocking(false).expect("an option");
        state.recv(socket.into(), &mut [IoSliceMut::new(&mut buf)], &mut metas).expect("something has come");
        metas[0]
    }

    /// Anybody can send from port 0, which cannot be answered.
    #[test]
    fn one_who_cannot_be_sent_to_does_not_take_the_cutting_from_the_others() {
        let (mut reactor, _) = reactor();
        let peer = peer();
        let state = UdpSocketState::new((&peer).into()).expect("a socket");
        let at = Address::Ip(peer.local_addr().expect("it is bound"));
        let key = reactor.net().bind_with("127.0.0.1:0", Bind::new().batch(), silent()).expect("a free port");
        assert!(reactor.net().send_segments(key, &at, [1; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one");
        let nowhere = Address::Ip("127.0.0.1:0".parse().expect("a literal"));
        assert!(reactor.net().send_segments(key, &nowhere, [2; 1_000], 100));
        assert!(reactor.net().send_segments(key, &at, [3; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one again");
    }

    /// What was set on the socket itself holds for these too.
    #[test]
    fn the_type_of_service_is_that_of_the_socket() {
        let (mut reactor, _) = reactor();
        let peer = peer();
        let state = UdpSocketState::new((&peer).into()).expect("a socket");
        let at = Address::Ip(peer.local_addr().expect("it is bound"));
        let key = reactor.net().bind_with("127.0.0.1:0", Bind::new().batch(), silent()).expect("a free port");
        reactor.net().socket(key).expect("it is open").set_tos_v4(0xb8 | 2).expect("an option");
        assert!(reactor.net().send_to(key, &at, "x"));
        let single = receive(&state, &peer).ecn;
        assert!(single.is_some());
        assert!(reactor.net().send_segments(key, &at, [1; 1_000], 100));
        assert_eq!(receive(&state, &peer).ecn, single);
    }

    /// docs/datagrams.md: a turn has `Config::turn_datagrams` of them. Those that come as one may come to more, but not by far.
    #[test]
    fn a_turn_has_no_more_datagrams_than_it_may() {
        let config = mainspring::Config::new().turn_datagrams(8);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let options = Bind::new().batch().buffers(4 << 20, None);
        let key = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", Bind::new().batch(), silent()).expect("a free port");
        let at = Address::Ip(local(&mut reactor, key));
        for _ in 0..40 {
            assert!(reactor.net().send_segments(sender, &at, [1; 640], 10));
        }
        while journal.told.is_empty() {
            reactor.turn(&mut journal, PATIENCE).expect("the selector works");
        }
        assert!(journal.told.len() <= 8 + 64, "{} in one turn", journal.told.len());
    }

    /// And no more time.
    #[test]
    fn a_turn_takes_no_more_time_than_it_may_but_for_one_callback() {
        let config = mainspring::Config::new().turn_time(Duration::from_nanos(1));
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let options = Bind::new().batch();
        let key = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", Bind::new().batch(), silent()).expect("a free port");
        let at = Address::Ip(local(&mut reactor, key));
        for _ in 0..3 {
            assert!(reactor.net().send_segments(sender, &at, [1; 640], 10));
        }
        while journal.told.is_empty() {
            reactor.turn(&mut journal, PATIENCE).expect("the selector works");
        }
        assert!(journal.told.len() <= 64, "{} in one turn", journal.told.len());
    }
}

/// In a network that is slow, so that UDP itself has no room:
/// `unshare -n sh -c 'ip link set lo up; tc qdisc add dev lo root tbf rate 4mbit burst 3000 latency 20s; exec "$@"' - TEST --ignored review`.
mod slow {
    use super::*;

    fn options(batch: bool) -> Bind {
        let options = Bind::new().buffers(1 << 20, 1).queue(1 << 20, Full::DropNewest);
        #[cfg(feature = "udp-batch")]
        return if batch { options.batch() } else { options };
        #[cfg(not(feature = "udp-batch"))]
        return (options, batch).0;
    }

    #[test]
    #[ignore = "it takes a network of its own"]
    fn what_waits_for_the_network_leaves_in_order_and_costs_no_turns() {
        for (batch, segments, connected) in (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0)) {
            let (mut reactor, mut journal) = reactor();
            let peer = peer();
            let at = Address::Ip(peer.local_addr().expect("it is bound"));
            let options = options(batch);
            let options = if connected { options.peer(peer.local_addr().expect("it is bound")) } else { options };
            let key = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
            let piece = |number: u32| [number.to_be_bytes().to_vec(), vec![0; 996]].concat();
            for first in (0..60).step_by(15) {
                let all = (first..first + 15).flat_map(piece).collect::<Vec<_>>();
                match segments {
                    true => assert!(reactor.net().send_segments(key, &at, all, 1_000)),
                    false => all.chunks(1_000).for_each(|one| assert!(reactor.net().send_to(key, &at, one))),
                }
            }
            assert!(reactor.net().connections()[0].queued > 0, "it is slow");
            let turns = reactor.stats().turns;
            until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
            assert_eq!(journal.of(key), [Told::Writable]);
            let turns = reactor.stats().turns - turns;
            assert!(turns <= 80, "{turns} turns");
            let got: Vec<u32> = (0..60).map(|_| u32::from_be_bytes(hears(&peer)[..4].try_into().expect("four"))).collect();
            assert_eq!(got, (0..60).collect::<Vec<_>>(), "{batch} {segments} {connected}");
            let stats = reactor.stats();
            assert_eq!((stats.datagrams_out, stats.datagrams_dropped), (60, 0));
            println!("batch {batch} segments {segments} connected {connected}: {turns} turns");
        }
    }

    /// Also other news than that nobody has a port is of an earlier one (icmp(7)). It takes
    /// `nft add table inet t; nft add chain inet t i '{ type filter hook input priority 0; }';
    /// nft add rule inet t i udp dport 7777 reject with icmp type admin-prohibited`.
    #[test]
    #[ignore = "it takes a network of its own"]
    fn what_is_sent_when_the_news_of_an_earlier_one_come_is_sent_nevertheless() {
        let (mut reactor, mut journal) = reactor();
        let (other, peer) = (peer(), Address::Ip("127.0.0.1:7777".parse().expect("a literal")));
        let at = Address::Ip(other.local_addr().expect("it is bound"));
        let key = reactor.net().bind_to("127.0.0.1:7777", silent()).expect("a free port");
        assert!(reactor.net().send(key, "one") && reactor.net().send_to(key, &at, "two"));
        until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
        assert_eq!(journal.failures(), [(peer, ErrorKind::HostUnreachable)]);
        assert_eq!(hears(&other), b"two");
    }

    /// Only what is sent to who has asked, while he is answered, leaves from where he asked.
    #[cfg(feature = "udp-batch")]
    #[test]
    #[ignore = "it takes a network of its own"]
    fn the_source_of_an_answer_that_has_waited_is_not_that_of_what_comes_later() {
        let (mut reactor, mut journal) = reactor();
        let (asker, other) = (peer(), peer());
        let (to, elsewhere) = (asker.local_addr().expect("it is bound"), other.local_addr().expect("it is bound"));
        let key = reactor.net().bind_with("0.0.0.0:0", options(true), echo()).expect("a free port");
        asker.send_to(b"x", ("127.0.0.2", local(&mut reactor, key).port())).expect("it is sent");
        (0..50).for_each(|_| assert!(reactor.net().send_to(key, &Address::Ip(elsewhere), [0; 1_000])));
        assert!(reactor.net().connections()[0].queued > 0, "it is slow");
        until(&mut reactor, &mut journal, |journal| journal.told.contains(&(key, Told::Writable)) && journal.told.len() == 2);
        let mut buf = [0; 10];
        assert_eq!(asker.recv_from(&mut buf).expect("it is answered").1.ip().to_string(), "127.0.0.2");
        assert!(reactor.net().send_to(key, &Address::Ip(to), "later"));
        assert_eq!(asker.recv_from(&mut buf).expect("it is sent").1.ip().to_string(), "127.0.0.1");
    }

    /// The zone of a link-local address is kept from `received` to `reply`.
    #[test]
    #[ignore = "it takes an interface with a link-local address: ZONED=fe80::…%eth0"]
    fn a_link_local_peer_is_answered() {
        let Ok(at) = std::env::var("ZONED") else { return };
        for (batch, bound) in
            [(false, format!("[{at}]:0")), (false, "[::]:0".into()), (true, format!("[{at}]:0")), (true, "[::]:0".into())]
        {
            let (mut reactor, mut journal) = reactor();
            let key = reactor.net().bind_with(bound.as_str(), options(batch), echo()).expect("a free port");
            let theirs = reactor.net().bind(format!("[{at}]:0"), silent()).expect("a free port");
            let (port, mut to) = (local(&mut reactor, key).port(), local(&mut reactor, theirs));
            to.set_port(port);
            assert!(reactor.net().send_to(theirs, &Address::Ip(to), "x"));
            until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
            assert_eq!(journal.of(theirs), [Told::Received(b"x".to_vec(), Address::Ip(to))], "{batch} {bound}");
        }
    }
}
