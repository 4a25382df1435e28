//! Polite closes: what is flushed, for how long, and the sockets that stay behind.

use crate::common::{
    Call, FINISHED, Journal, PATIENCE, SHORT, STUFF, TICK, Talk, closed, closing_of, dial, ends_with, guest, is_closed, lines,
    listen, opened, pass, quiet, read_exactly, read_to_end, recorder, reset, say, settle, start, start_with, stuff,
    uninterrupted, until, until_net,
};
use mainspring::{Config, Limit, Reactor, Reason, Terminator};
use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn closing_twice_is_nothing() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    assert!(reactor.net().close(key));
    assert!(!reactor.net().close(key));
    assert!(!reactor.net().half_close(key));
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 1);
    assert!(!reactor.net().close(key));
}

#[test]
fn abort_after_close_wins() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key), "it is flushing");
    assert!(reactor.net().abort(key));
    ends_with(&mut reactor, &mut journal, key, &Reason::Abort.to_string());
    assert!(read_to_end(&mut reactor, &mut journal, &mut peer).len() < STUFF);
}

#[test]
fn close_is_polite_and_flushes_first() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), STUFF);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn closed_comes_in_the_turn_in_which_the_last_byte_left() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, "bye");
    reactor.net().close(key);
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some(FINISHED));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"bye");
}

#[test]
fn a_peer_that_takes_nothing_is_let_go_at_the_linger_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(began.elapsed() >= SHORT);
    assert!(!journal.has(&Call::Exceeded(Limit::Linger)), "nothing but `closed` follows a close");
}

#[test]
fn the_linger_deadline_counts_from_the_last_byte_taken() {
    let linger = Duration::from_millis(400);
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(linger));
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    // A small buffer, so that the kernel takes some whenever the peer has read some.
    let is_small = |socket: socket2::SockRef<'_>| socket.set_send_buffer_size(64 << 10);
    reactor.net().link(key).expect("open").with_socket(is_small).expect("a socket").expect("a socket option");
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().close(key);
    // A slow download that takes longer than the linger deadline as a whole, in steps that are far shorter than it.
    let mut taken = 0;
    while began.elapsed() <= linger * 5 / 4 {
        assert!(!is_closed(&journal, key));
        taken += read_exactly(&mut reactor, &mut journal, &mut peer, 512 << 10).len();
        pass(&mut reactor, &mut journal, linger / 8);
    }
    let rest = read_to_end(&mut reactor, &mut journal, &mut peer);
    assert_eq!(taken + rest.len(), STUFF);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

/// Whether the peer's stream was reset, perhaps after its end had come.
fn was_reset(peer: &TcpStream) -> bool {
    if cfg!(unix) {
        return peer.take_error().expect("a socket option").is_some();
    }
    peer.set_nonblocking(true).expect("a socket option");
    let peeked = peer.peek(&mut [0]);
    peer.set_nonblocking(false).expect("a socket option");
    peeked.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_lingering_socket_destroys_nothing_that_was_just_sent() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.send("bye");
            ctx.close();
        }
        Ok(())
    });
    say(&peer, "quit\nand much more");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    // A closed socket would answer this with a reset, which overtakes what was not read yet.
    say(&peer, "late");
    settle(&mut reactor, &mut journal);
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 3), b"bye");
    assert!(!was_reset(&peer));
}

#[test]
fn a_lingering_socket_is_reset_at_the_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(TICK));
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    until(&mut reactor, &mut journal, |_| was_reset(&peer));
}

#[test]
fn lingering_sockets_are_bounded_and_the_oldest_is_reset() {
    let (mut reactor, mut journal) = start_with(Config::new().lingering_max(2));
    let guests: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    for (key, _) in &guests {
        reactor.net().close(*key);
        ends_with(&mut reactor, &mut journal, *key, FINISHED);
    }
    settle(&mut reactor, &mut journal);
    let were_reset: Vec<bool> = guests.iter().map(|(_, peer)| was_reset(peer)).collect();
    assert_eq!(were_reset, [true, false, false]);
}

#[test]
fn a_lingering_socket_has_no_key_any_more() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let mut net = reactor.net();
    assert!(!net.is_open(key) && net.link(key).is_none() && !net.abort(key) && !net.close(key) && !net.send(key, "x"));
}

#[test]
fn a_polite_close_while_connecting_still_flushes_and_gives_closed_alone() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().send(key, "goodbye");
    reactor.net().close(key);
    let (mut peer, _) = listener.accept().expect("it connects");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"goodbye");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key), [Call::Closed(FINISHED.into())]);
}

/// A program that ended right after `closed` took back what the kernel had of it, though the reason was clean.
#[test]
fn run_goes_on_until_who_lingers_has_had_it_all() {
    const MUCH: usize = 300_000;
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(PATIENCE));
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, "never read by the server");
    reactor.net().send(key, vec![b'x'; MUCH]);
    reactor.net().close(key);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).map(|_| got.len())
    });
    reactor.run(&mut journal).expect("the selector works");
    drop(reactor);
    assert_eq!(closing_of(&journal, key).as_deref(), Some(FINISHED));
    assert_eq!(reader.join().expect("it reads").expect("no reset"), MUCH);
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn who_lingers_keeps_run_no_longer_than_the_linger_deadline_the_grace_or_a_config_allows() {
    let ways = [
        (Config::new().linger_max(TICK), None),
        (Config::new().linger_max(PATIENCE * 100), Some(TICK)),
        (Config::new().linger_max(PATIENCE * 100).wait_for_lingering(false), None),
    ];
    for (config, grace) in ways {
        let (mut reactor, mut journal) = start_with(config);
        let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().send(key, "bye");
        reactor.net().close(key);
        if let Some(grace) = grace {
            reactor.net().drain(grace);
        }
        reactor.run(&mut journal).expect("the selector works");
        assert!(is_closed(&journal, key));
        let mut buf = [0; 4];
        assert_eq!(uninterrupted(|| peer.read(&mut buf)).expect("the bytes are there"), 3);
    }
}

/// `close()` after a failed write saw no output left, and ended as if every byte had been handed over.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_close_after_a_failed_write_is_not_clean() {
    let mut talk = Talk::with(Config::new().turn_frames(1), |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(100)),
            Call::Frame(line) if line == b"quit" => ctx.close(),
            Call::Frame(_) => ctx.send("an answer\n"),
            _ => {}
        }
        Ok(())
    });
    say(&talk.peer, "ask\nquit\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.frames(), ["ask", "quit"], "its last words are heard");
    let Some((_, Call::Closed(why))) = talk.journal.calls.last() else { panic!("`closed` comes last") };
    assert!(why.starts_with("connection lost"), "the answer was lost, and the reason is: {why}");
}

/// Flaw 17: What was pushed after close_when_done was never sent, and nobody was told; and dispatcher_with_send.close dropped what
/// was before it.
#[test]
fn flaw_17_close_flushes_what_was_sent_and_refuses_what_comes_late() {
    const MUCH: usize = 8 << 20;
    let mut talk = Talk::new(|ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send(vec![b'x'; MUCH]);
            ctx.close();
            assert!(!ctx.link().send("late"), "refused, and it says so");
            assert!(ctx.is_congested(), "so that a source that asks first stops");
        }
        Ok(())
    });
    say(&talk.peer, "go");
    let key = talk.key;
    until_net(&mut talk.reactor, &mut talk.journal, |net, _| !net.is_open(key));
    assert!(!talk.reactor.net().send(key, "later"));
    let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert!(got.len() == MUCH && got.iter().all(|&byte| byte == b'x'), "{} of {MUCH} bytes", got.len());
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls().last(), Some(&closed(&Reason::Finish)));
}

/// Peers that never read kept loseConnection from ever completing, until a cluster ran out of sockets (Twisted #7153). A
/// polite close has a linger deadline, then the connection is reset.
#[test]
fn peers_that_never_read_cannot_hold_a_close() {
    const PEERS: usize = 20;
    let config = Config::new().linger_max(Duration::from_millis(20));
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    // More than the kernel takes for somebody who does not read.
    let much: Rc<[u8]> = vec![b'x'; 32 << 20].into();
    let (_, addr) = listen(&mut reactor, move || {
        let much = Rc::clone(&much);
        recorder(move |ctx, _, call| {
            if *call == Call::Connected {
                ctx.send_shared(&much);
                ctx.close();
            }
            Ok(())
        })
    });
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.closings() == PEERS);
    let lingered = journal.calls.iter().filter(|(_, call)| *call == closed(&Reason::Limit(Limit::Linger))).count();
    assert_eq!(lingered, PEERS, "{journal:?}");
    settle(&mut reactor, &mut journal);
    assert!(format!("{reactor:?}").contains("slots: 1"), "only the listener is left: {reactor:?}");
    // A reset, not an end: nobody takes what they got for the whole.
    let error = std::io::copy(&mut peers[0], &mut std::io::sink()).expect_err("it is cut");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
