//! On real sockets: the edges of a selector, and what the kernel has.

use crate::common::{Call, Journal, by_default, dial, guest, listen, quiet, recorder, say, settle, start, start_with, until};
use mainspring::{Config, Reactor};
use std::{io::Write, net::Shutdown};

#[test]
fn readiness_is_remembered_while_nobody_reads() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "an edge that comes once");
    settle(&mut reactor, &mut journal);
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received().len() == 23);
}

#[test]
fn urgent_data_does_not_stall_a_stream() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    let out_of_band = |byte: &[u8]| {
        socket2::SockRef::from(&peer).send_out_of_band(byte).expect("connected");
    };
    for n in 1..=5 {
        out_of_band(b"!");
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| journal.received().iter().filter(|byte| **byte == b'x').count() == n);
    }
}

#[test]
fn more_than_a_turn_may_read_comes_without_another_edge() {
    let (mut reactor, mut journal) = start_with(Config::new().read_bytes(4096).turn_bytes(4096));
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, vec![b'.'; 60_000]);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    assert_eq!(journal.received().len(), 60_000);
}

/// Flaw 12: The end that came with the last bytes cost them: one read, then handle_close; 4,096 of 20,000 bytes arrived.
#[test]
fn flaw_12_what_came_before_the_end_is_delivered_before_the_end() {
    for turn_bytes in [4096, 256 << 10] {
        let config = Config::new().read_bytes(4096).turn_bytes(turn_bytes);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let (_, addr) = listen(&mut reactor, || recorder(by_default));
        let mut peer = dial(addr);
        peer.write_all(&[b'x'; 20_000]).expect("the kernel takes it");
        drop(peer); // before it is accepted
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        assert_eq!(journal.received().len(), 20_000);
        let ending = &journal.calls[journal.calls.len() - 2..];
        assert!(matches!(ending, [(_, Call::Eof(_)), (_, Call::Closed(_))]), "{ending:?}");
    }
}
