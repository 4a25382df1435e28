//! Datagrams over a network that loses a fifth of those to the server: each that came is answered, byte for byte, and nobody
//! takes the others for an error. scripts/loss.sh makes such a network, and runs this in it.
#![cfg(target_os = "linux")]

mod common;

#[cfg(feature = "udp-batch")]
use common::uninterrupted;
use common::{skip, until};
use mainspring::{Address, Datagram, Outcome, Reactor, Reason, Scope};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

const DATAGRAMS: usize = 10_000;

/// This many are under way at most, so that no buffer of the kernel overflows: what is lost is lost by the network.
const BATCH: usize = 32;

#[derive(Default)]
struct Tally {
    received: u64,
    failed: Vec<String>,
    closed: Vec<String>,
}

struct Echo;

impl Datagram<Tally> for Echo {
    fn received(&mut self, scope: &mut Scope<'_, Tally>, tally: &mut Tally, bytes: &[u8], _: &Address) -> Outcome {
        tally.received += 1;
        scope.reply(bytes);
        Ok(())
    }

    fn failed(&mut self, _: &mut Scope<'_, Tally>, tally: &mut Tally, to: &Address, error: io::Error) -> Outcome {
        tally.failed.push(format!("{to}: {error}"));
        Ok(())
    }

    fn closed(&mut self, _: &mut Scope<'_, Tally>, tally: &mut Tally, why: Reason) {
        tally.closed.push(why.to_string());
    }
}

/// The one of this number: up to 1,200 bytes, and no two alike.
fn datagram(number: usize) -> Vec<u8> {
    let mut bytes = (number as u32).to_be_bytes().to_vec();
    bytes.extend((0..number * 7 % 1_197).map(|place| (number * 31 + place * 17) as u8));
    bytes
}

/// All answers that are there, each of which must be what was sent.
fn hear(client: &UdpSocket, answered: &mut BTreeSet<usize>) {
    let mut buf = [0; 2_048];
    loop {
        let length = match client.recv(&mut buf) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("the client cannot receive: {error}"),
        };
        let number = buf.first_chunk().map(|number| u32::from_be_bytes(*number) as usize).expect("an answer has a number");
        assert!(number < DATAGRAMS && buf[..length] == datagram(number), "an answer that nobody asked for");
        assert!(answered.insert(number), "the answer to {number} came twice");
    }
}

#[test]
#[ignore = "wants a network that loses, which scripts/loss.sh makes"]
fn as_many_are_answered_as_have_come() {
    let Ok(at) = std::env::var("LOSS_AT") else { return skip("LOSS_AT does not say where a network loses: scripts/loss.sh") };
    let at: SocketAddr = at.parse().expect("LOSS_AT is an address");
    let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
    let key = reactor.net().bind(at, Echo).expect("a network of our own has every port free");
    let client = UdpSocket::bind((at.ip(), 0)).expect("a free port");
    client.connect(at).expect("an address");
    client.set_nonblocking(true).expect("a socket option");
    let mut answered = BTreeSet::new();
    for first in (0..DATAGRAMS).step_by(BATCH) {
        for number in first..DATAGRAMS.min(first + BATCH) {
            client.send(&datagram(number)).expect("what is lost is lost without a word");
        }
        reactor.turn(&mut tally, Duration::ZERO).expect("the selector works");
        hear(&client, &mut answered);
    }
    // One that follows in a while would be missed by a condition that holds already.
    for _ in 0..20 {
        reactor.turn(&mut tally, Duration::from_millis(10)).expect("the selector works");
    }
    until(&mut reactor, &mut tally, |tally| {
        hear(&client, &mut answered);
        answered.len() as u64 == tally.received
    });
    let stats = reactor.stats();
    println!("\nfigures: {} of {DATAGRAMS} came, {} were answered", stats.datagrams_in, answered.len());
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (tally.received, tally.received));
    assert_eq!(answered.len() as u64, stats.datagrams_in);
    assert_eq!(stats.datagrams_dropped + stats.datagrams_oversized, 0, "all that came were whole, and all answers left");
    let expected = DATAGRAMS as u64 * 7 / 10..DATAGRAMS as u64 * 9 / 10;
    assert!(expected.contains(&stats.datagrams_in), "{} came: the network does not lose a fifth", stats.datagrams_in);
    assert_eq!((tally.failed, tally.closed), (Vec::new(), Vec::new()));
    assert!(reactor.net().is_open(key), "it goes on");
}

/// IP cuts it on the way and puts it together again; a socket that receives and sends many at once has asked that nothing is
/// cut.
#[cfg(feature = "udp-batch")]
#[test]
#[ignore = "wants a network of packets of 1,500 bytes, which scripts/loss.sh makes"]
fn what_is_longer_than_the_way_is_cut_by_it_but_not_for_a_batch() {
    use mainspring::Bind;
    if std::env::var("LOSS_AT").is_err() {
        return skip("LOSS_AT does not say where a network of short packets is: scripts/loss.sh");
    }
    for batches in [false, true] {
        let (mut reactor, mut tally) = (Reactor::new().expect("a selector"), Tally::default());
        let options = if batches { Bind::new().batch() } else { Bind::new() };
        let key = reactor.net().bind_with("127.0.0.1:0", options, Echo).expect("a free port");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        let to = Address::Ip(client.local_addr().expect("it is bound"));
        for bytes in [9_000, 1_472] {
            assert!(reactor.net().send_to(key, &to, vec![7; bytes]));
        }
        let mut buf = [0; 10_000];
        if !batches {
            assert_eq!(uninterrupted(|| client.recv(&mut buf)).expect("it comes"), 9_000);
        }
        assert_eq!(uninterrupted(|| client.recv(&mut buf)).expect("it comes"), 1_472);
        for _ in 0..20 {
            reactor.turn(&mut tally, Duration::from_millis(1)).expect("the selector works");
        }
        let failed: Vec<String> =
            if batches { vec![format!("{to}: {}", io::Error::from_raw_os_error(libc::EMSGSIZE))] } else { Vec::new() };
        assert_eq!(tally.failed, failed);
    }
    println!("\nfigures: 9000 bytes in pieces come, and are failed where nothing is cut");
}
