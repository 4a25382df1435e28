//! Many at once: `Bind::batch` and `send_segments`; without the feature the latter is a loop of sends.

use super::common::*;

/// EMSGSIZE, or WSAEMSGSIZE.
#[cfg(unix)]
const TOO_LONG: i32 = libc::EMSGSIZE;
#[cfg(windows)]
const TOO_LONG: i32 = 10040;

/// Of this size, numbered.
fn pieces(count: usize, size: usize, last: usize) -> Vec<u8> {
    let sizes = (0..count).map(|number| if number + 1 == count { last } else { size });
    sizes.enumerate().flat_map(|(number, size)| vec![number as u8; size]).collect()
}

#[test]
fn segments_arrive_one_by_one_and_whole_whatever_their_number_and_the_last_ones_size() {
    for (count, size, last) in
        [(1, 100, 100), (2, 100, 1), (64, 1_000, 1_000), (65, 10, 10), (100, 1_200, 7), (3, 60_000, 60_000)]
    {
        let (mut reactor, mut journal) = reactor();
        let receiver = many().buffers(4 << 20, None);
        let to = reactor.net().bind_with("127.0.0.1:0", receiver, silent()).expect("a free port");
        let from = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        let (at, ours) = (Address::Ip(local(&mut reactor, to)), Address::Ip(local(&mut reactor, from)));
        assert!(reactor.net().send_segments(from, &at, pieces(count, size, last), size));
        until(&mut reactor, &mut journal, |journal| journal.told.len() >= count);
        let told = journal.of(to);
        let wanted = |number: usize| {
            let size = if number + 1 == count { last } else { size };
            Told::Received(vec![number as u8; size], ours.clone())
        };
        assert!((0..count).all(|number| told[number] == wanted(number)), "{count} of {size}, the last of {last}");
        let stats = reactor.stats();
        assert_eq!((stats.datagrams_in, stats.datagrams_out, stats.datagrams_dropped), (count as u64, count as u64, 0));
        assert_eq!(journal.told.len(), count);
    }
}

#[test]
fn a_segment_of_nothing_sends_nothing_and_one_larger_than_all_sends_one() {
    let (mut reactor, _) = reactor();
    let peer = peer();
    let at = Address::Ip(peer.local_addr().expect("it is bound"));
    let key = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
    let mut net = reactor.net();
    assert!(!net.send_segments(key, &at, "abc", 0) && net.send_segments(key, &at, "", 10));
    assert!(net.send_segments(key, &at, "abc", usize::MAX) && net.send_segments(key, &at, "abcd", 3));
    assert_eq!([hears(&peer), hears(&peer), hears(&peer)], [b"abc".to_vec(), b"abc".to_vec(), b"d".to_vec()]);
    net.close(key);
    assert!(!net.send_segments(key, &at, "abc", 1));
}

/// The others of a group leave nevertheless.
#[test]
fn a_segment_that_is_too_long_is_failed_by_itself() {
    let (mut reactor, mut journal) = reactor();
    let peer = peer();
    let at = Address::Ip(peer.local_addr().expect("it is bound"));
    let key = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
    assert!(reactor.net().send_segments(key, &at, [vec![1; 65_508], vec![2; 10]].concat(), 65_508));
    assert_eq!(hears(&peer), [2; 10]);
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert!(matches!(&journal.of(key)[..], [Told::Failed(to, _, Some(TOO_LONG))] if *to == at), "{:?}", journal.told);
}

#[cfg(feature = "udp-batch")]
mod with_the_feature {
    use super::*;
    use mainspring::Interface;
    use quinn_udp::{RecvMeta, UdpSocketState};
    use socket2::{Domain, Socket, Type};
    use std::{
        io::IoSliceMut,
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };

    #[test]
    fn mixed_sizes_of_two_peers_and_empty_ones_come_as_they_were_sent() {
        let (mut reactor, mut journal) = reactor();
        let key = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        let (at, one, other) = (local(&mut reactor, key), peer(), peer());
        let mut sent = Vec::new();
        for (peer, size) in [(&one, 100), (&other, 7), (&one, 0), (&one, 100), (&other, 1_200), (&other, 1_200), (&one, 33)] {
            peer.send_to(&vec![size as u8; size], at).expect("it is sent");
            sent.push(Told::Received(vec![size as u8; size], Address::Ip(peer.local_addr().expect("it is bound"))));
        }
        until(&mut reactor, &mut journal, |journal| journal.told.len() == sent.len());
        assert_eq!(journal.of(key), sent);
    }

    #[test]
    fn what_is_longer_than_the_largest_is_oversized_of_a_batch_too() {
        let (mut reactor, mut journal) = reactor();
        let key = reactor.net().bind_with("127.0.0.1:0", many().largest(10), silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        let (at, from) = (Address::Ip(local(&mut reactor, key)), Address::Ip(local(&mut reactor, sender)));
        assert!(reactor.net().send_segments(sender, &at, vec![3; 11 + 11 + 10], 11));
        until(&mut reactor, &mut journal, |journal| journal.told.len() == 3);
        let wanted = [Told::Oversized(10, from.clone()), Told::Oversized(10, from.clone()), Told::Received(vec![3; 10], from)];
        assert_eq!(journal.of(key), wanted);
    }

    #[test]
    fn who_closes_amid_a_batch_is_told_no_more_of_it() {
        let (mut reactor, mut journal) = reactor();
        let closer = recorder(|scope, _| {
            scope.close();
            Ok(())
        });
        let key = reactor.net().bind_with("127.0.0.1:0", many(), closer).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        let at = Address::Ip(local(&mut reactor, key));
        assert!(reactor.net().send_segments(sender, &at, vec![3; 3_000], 100));
        until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
        settle(&mut reactor, &mut journal);
        assert!(matches!(&journal.of(key)[..], [Told::Received(..), Told::Closed(_)]), "{:?}", journal.told);
    }

    /// Behind every address a reply leaves from the one that was asked; also when it had to wait.
    #[test]
    #[cfg_attr(windows, ignore = "Wine: refuses what quinn-udp asks of an IPv4 socket")]
    fn a_reply_comes_from_the_address_that_was_asked() {
        for (bound, asked, client) in
            [("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"), ("[::]:0", "127.0.0.3", "127.0.0.1:0"), ("[::]:0", "::1", "[::1]:0")]
        {
            let (mut reactor, mut journal) = reactor();
            let to = Rc::new(Cell::new(None));
            let inner = Rc::clone(&to);
            let datagram = recorder(move |scope, _| {
                inner.set(scope.to());
                assert!(scope.reply("answer"));
                Ok(())
            });
            let key = reactor.net().bind_with(bound, of_both().batch(), datagram).expect("a free port");
            let asked: IpAddr = asked.parse().expect("a literal");
            let at = SocketAddr::new(asked, local(&mut reactor, key).port());
            let peer = peer_at(client);
            peer.send_to(b"question", at).expect("it is sent");
            until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
            assert_eq!(to.get(), Some(asked), "{bound}");
            let mut buf = [0; 10];
            assert_eq!(uninterrupted(|| peer.recv_from(&mut buf)).expect("it is answered"), (6, at), "{bound}");
        }
    }

    /// As one by one: a flood of them leaves the others their turn.
    #[test]
    fn a_flood_of_batches_leaves_the_others_their_turn() {
        let (mut reactor, mut journal) = reactor();
        let receiver = many().buffers(8 << 20, None);
        let flooded = reactor.net().bind_with("127.0.0.1:0", receiver, silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        let other = reactor.net().bind("127.0.0.1:0", silent()).expect("a free port");
        let at = Address::Ip(local(&mut reactor, flooded));
        for _ in 0..20 {
            assert!(reactor.net().send_segments(sender, &at, vec![1; 60_000], 1_200));
        }
        peer().send_to(b"other", local(&mut reactor, other)).expect("it is sent");
        until(&mut reactor, &mut journal, |journal| journal.told.iter().any(|(key, _)| *key == other));
        let before = journal.told.iter().filter(|(key, _)| *key == flooded).count();
        assert!(before <= 2 * 4 * 64, "{before} of the flood came first");
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_takes_them_one_by_one() {
        let (mut reactor, mut journal) = reactor();
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().expect("two descriptors");
        let key = reactor.net().bind_on(ours, many(), echo()).expect("a socket of packets");
        theirs.send(b"x").expect("it is sent");
        until(&mut reactor, &mut journal, |journal| journal.told.len() == 1);
        assert_eq!(uninterrupted(|| theirs.recv(&mut [0; 10])).expect("it is answered"), 1);
        assert!(reactor.net().is_open(key));
    }

    /// A group cannot be the source of anything.
    #[test]
    fn what_was_sent_to_a_group_is_answered_from_an_address_of_ours() {
        for options in [Bind::new(), many()] {
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
            assert_eq!(uninterrupted(|| sender.recv(&mut buf)).ok(), Some(13), "it is answered");
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
    #[cfg_attr(windows, ignore = "Winsock: joins what comes for who asks for that, as quinn-udp does not")]
    fn one_who_cannot_be_sent_to_does_not_take_the_cutting_from_the_others() {
        let (mut reactor, _) = reactor();
        let peer = peer();
        let state = UdpSocketState::new((&peer).into()).expect("a socket");
        let at = Address::Ip(peer.local_addr().expect("it is bound"));
        let key = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
        assert!(reactor.net().send_segments(key, &at, [1; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one");
        let nowhere = Address::Ip("127.0.0.1:0".parse().expect("a literal"));
        assert!(reactor.net().send_segments(key, &nowhere, [2; 1_000], 100));
        assert!(reactor.net().send_segments(key, &at, [3; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one again");
    }

    /// A datagram from port 0; `false`: only the superuser may send one.
    fn send_from_port_0(to: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::UDP)) else { return false };
        let mut packet = vec![0, 0];
        packet.extend(to.port().to_be_bytes());
        packet.extend((8 + bytes.len() as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(bytes);
        raw.send_to(&packet, &to.into()).is_ok()
    }

    /// The same by a reply to one who has asked from there.
    #[test]
    #[cfg_attr(windows, ignore = "Winsock: joins what comes for who asks for that, as quinn-udp does not")]
    fn one_who_cannot_be_answered_does_not_take_the_cutting_from_the_others() {
        let (mut reactor, mut journal) = reactor();
        let peer = peer();
        let state = UdpSocketState::new((&peer).into()).expect("a socket");
        let at = Address::Ip(peer.local_addr().expect("it is bound"));
        let key = reactor.net().bind_with("0.0.0.0:0", many(), echo()).expect("a free port");
        assert!(reactor.net().send_segments(key, &at, [1; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one");
        let ours = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local(&mut reactor, key).port());
        if !send_from_port_0(ours, b"who are you?") {
            return;
        }
        until(&mut reactor, &mut journal, |journal| !journal.failures().is_empty());
        assert!(reactor.net().send_segments(key, &at, [3; 1_000], 100));
        assert_eq!(receive(&state, &peer).len, 1_000, "they leave as one again");
    }

    /// docs/datagrams.md: a turn has `Config::turn_datagrams` of them. Those that come as one may come to more, but not by far.
    #[test]
    fn a_turn_has_no_more_datagrams_than_it_may() {
        let config = mainspring::Config::new().turn_datagrams(8);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let options = many().buffers(4 << 20, None);
        let key = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
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
        let options = many();
        let key = reactor.net().bind_with("127.0.0.1:0", options, silent()).expect("a free port");
        let sender = reactor.net().bind_with("127.0.0.1:0", many(), silent()).expect("a free port");
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
