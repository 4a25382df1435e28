//! In a network that is slow, so that UDP itself has no room, and that refuses what is sent to port 7777: scripts/loss.sh makes
//! one, and runs these in it.

use super::common::*;

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

/// News other than that nobody has a port is about an earlier one too (icmp(7)).
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

/// Only what is sent to the one that asked, while it is answered, leaves from the address that it asked.
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
    assert_eq!(uninterrupted(|| asker.recv_from(&mut buf)).expect("it is answered").1.ip().to_string(), "127.0.0.2");
    assert!(reactor.net().send_to(key, &Address::Ip(to), "later"));
    assert_eq!(uninterrupted(|| asker.recv_from(&mut buf)).expect("it is sent").1.ip().to_string(), "127.0.0.1");
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
