//! Bounds, and connections that are amid the handshake when something ends.

use crate::{
    common::{
        Call, Ctx, Journal, SECOND, SHUT_DOWN, closing_of, dial, keep_log, ms, quiet, read_to_end, recorder, run_out, say,
        settle, start, start_with, take_log, turn, uninterrupted, until, until_net,
    },
    configs::sides,
    ending::Talk,
    peers::{End, Peer, Talker},
    talking::{answers, listen, listen_how},
};
use mainspring::{Config, Connect, Listen, Outcome, Reactor};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

/// A client that has agreed, and has been told so by an echo.
#[track_caller]
fn agrees(reactor: &mut Reactor<Journal>, journal: &mut Journal, at: SocketAddr) -> Peer {
    let mut peer = Peer::dials(at, sides().1);
    peer.talker.says("x");
    peer.hears(reactor, journal, "x");
    peer
}

/// A client that has said half of its hello; the rest of it.
fn knocks(reactor: &mut Reactor<Journal>, journal: &mut Journal, at: SocketAddr) -> (Peer, Vec<u8>) {
    let mut peer = Peer::new(Talker::client(sides().1), dial(at));
    let hello = peer.talker.speech();
    let (first, rest) = hello.split_at(hello.len() / 2);
    peer.injects(first);
    settle(reactor, journal);
    (peer, rest.to_vec())
}

#[test]
fn a_full_listener_says_nothing_in_clear() {
    for options in [Listen::new().connections_max(1, "full\r\n"), Listen::new().per_peer_max(1, "enough\r\n")] {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen_how(&mut reactor, options.tls(sides().0), answers);
        let _first = agrees(&mut reactor, &mut journal, at);
        let mut second = dial(at);
        assert_eq!(read_to_end(&mut reactor, &mut journal, &mut second), b"");
        assert_eq!((reactor.net().stats().refused, reactor.net().stats().handshakes_failed), (1, 0));
    }
}

/// A client that has only knocked has a place, until it goes.
#[test]
fn who_is_amid_the_handshake_counts_for_a_full_listener() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen_how(&mut reactor, Listen::new().connections_max(1, "full\r\n").tls(sides().0), answers);
    let (first, _) = knocks(&mut reactor, &mut journal, at);
    let mut second = dial(at);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut second), b"");
    drop(first);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().handshakes_failed == 1);
    agrees(&mut reactor, &mut journal, at);
}

#[test]
fn an_idle_tls_connection_owns_no_buffer() {
    let mut talk = Talk::new(answers);
    for text in ["x".repeat(10), "y".repeat(100_000)] {
        talk.peer.talker.says(&text);
        talk.hears(&text);
    }
    let mut net = talk.reactor.net();
    let link = net.link(talk.key).expect("it is open");
    assert_eq!((link.queued(), link.unread()), (0, 0));
    let all = net.connections();
    let it = all.iter().find(|connection| connection.key == talk.key).expect("it is there");
    assert_eq!(it.queued, 0);
    crate::common::assert_sleeps(&mut talk.reactor, &mut talk.journal);
}

/// Many say hello at once: a bounded number of them is answered in a turn, and a connection that has agreed has its turn
/// each time.
#[test]
fn a_flood_of_hellos_leaves_the_others_their_turn() {
    const HELLOS: usize = 60;
    const EACH: usize = 5;
    let (mut reactor, mut journal) = start_with(Config::new().turn_handshakes(EACH).wait_for_lingering(false));
    let (_, at) = listen(&mut reactor, sides().0, answers);
    let mut peer = agrees(&mut reactor, &mut journal, at);
    let crowd: Vec<_> = (0..HELLOS)
        .map(|_| {
            let mut peer = Peer::new(Talker::client(sides().1), dial(at));
            let hello = peer.talker.speech();
            peer.injects(&hello);
            peer
        })
        .collect();
    let mut crowd = crowd;
    let (mut turns, mut echoes) = (0, 0);
    peer.talker.says("x");
    peer.pump();
    while crowd.iter().any(|peer| peer.talker.wire.is_empty()) {
        turns += 1;
        assert!(turns < 1_000, "they are never answered");
        let before = crowd.iter().filter(|peer| !peer.talker.wire.is_empty()).count();
        turn(&mut reactor, &mut journal, Duration::ZERO);
        crowd.iter_mut().for_each(Peer::pull);
        let after = crowd.iter().filter(|peer| !peer.talker.wire.is_empty()).count();
        assert!(after - before <= EACH, "{} in one turn", after - before);
        peer.pump();
        if !peer.talker.plain.is_empty() {
            echoes += 1;
            peer.talker.plain.clear();
            peer.talker.says("x");
            peer.pump();
        }
    }
    assert!(turns >= HELLOS / EACH, "{turns} turns");
    assert!(echoes + 3 >= turns.min(HELLOS / EACH), "{echoes} echoes in {turns} turns");
}

#[test]
fn a_listener_that_accepts_one_ends_with_it() {
    for (options, knocks_first) in
        [(Listen::new().accepts_max(1), false), (Listen::new().admits_max(1), false), (Listen::new().admits_max(1), true)]
    {
        let (mut reactor, mut journal) = start();
        let (listener, at) = listen_how(&mut reactor, options.tls(sides().0), answers);
        if knocks_first {
            let (mut peer, _) = knocks(&mut reactor, &mut journal, at);
            peer.fin();
            assert_eq!(peer.ends(&mut reactor, &mut journal), End::Fin);
            assert!(reactor.net().is_open(listener), "nobody was let in");
        }
        let mut peer = agrees(&mut reactor, &mut journal, at);
        settle(&mut reactor, &mut journal);
        assert!(!reactor.net().is_open(listener));
        assert!(std::net::TcpStream::connect(at).is_err());
        peer.says_goodbye();
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        run_out(&mut reactor, &mut journal);
    }
}

/// The only one whom it accepts goes: then there is nobody to wait for.
#[test]
fn a_listener_that_accepts_one_who_cannot_agree_ends_too() {
    let (mut reactor, mut journal) = start();
    let (listener, at) = listen_how(&mut reactor, Listen::new().accepts_max(1).tls(sides().0), answers);
    let (peer, _) = knocks(&mut reactor, &mut journal, at);
    peer.fin();
    until_net(&mut reactor, &mut journal, |net, _| !net.is_open(listener));
    run_out(&mut reactor, &mut journal);
    assert_eq!(journal.calls, []);
}

/// Two at once, where one is to be let in: the other is sent away, and not left.
#[test]
fn of_two_amid_the_handshake_one_is_admitted() {
    let (mut reactor, mut journal) = start();
    let (listener, at) = listen_how(&mut reactor, Listen::new().admits_max(1).tls(sides().0), answers);
    let (mut first, rest_of_first) = knocks(&mut reactor, &mut journal, at);
    let (mut second, rest_of_second) = knocks(&mut reactor, &mut journal, at);
    first.injects(&rest_of_first);
    first.talker.says("x");
    first.hears(&mut reactor, &mut journal, "x");
    until_net(&mut reactor, &mut journal, |net, _| !net.is_open(listener));
    let _ = second.socket.write(&rest_of_second);
    second.ends(&mut reactor, &mut journal);
    assert_eq!(journal.keys().len(), 1);
    first.says_goodbye();
    run_out(&mut reactor, &mut journal);
}

/// It may be a client that has asked for nothing, as one in clear that is closed at once.
#[test]
fn a_drain_does_not_wait_long_for_who_says_nothing() {
    let (mut reactor, mut journal) = start_with(Config::new().wait_for_lingering(false).handshake_max(Duration::MAX));
    let (_, at) = listen(&mut reactor, sides().0, answers);
    let mut silent = dial(at);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().connections == 1);
    reactor.net().drain(Duration::from_secs(3600));
    let waits = dial(at); // in the backlog
    run_out(&mut reactor, &mut journal);
    assert_eq!(journal.calls, []);
    assert!(uninterrupted(|| silent.read(&mut [0])).is_ok_and(|bytes| bytes == 0), "it is ended");
    drop(waits);
}

fn goes_when_it_drains(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Draining => ctx.send("draining"),
        Call::Received(_) => return answers(ctx, journal, call),
        Call::Eof(_) => ctx.close(),
        _ => {}
    }
    Ok(())
}

#[test]
fn a_drain_loses_nobody_who_is_amid_the_handshake() {
    let (mut reactor, mut journal) = start();
    let (listener, at) = listen(&mut reactor, sides().0, goes_when_it_drains);
    let (mut amid, rest) = knocks(&mut reactor, &mut journal, at);
    let mut waits = Peer::dials(at, sides().1); // in the backlog
    reactor.net().drain(20 * SECOND);
    settle(&mut reactor, &mut journal);
    amid.injects(&rest);
    for peer in [&mut amid, &mut waits] {
        peer.talker.says("x");
        peer.until(&mut reactor, &mut journal, |peer, _| peer.talker.plain.len() >= 9);
        let mut got = std::mem::take(&mut peer.talker.plain);
        got.sort_unstable();
        let mut wanted = b"drainingx".to_vec();
        wanted.sort_unstable();
        assert_eq!(got, wanted);
    }
    assert!(!reactor.net().is_open(listener));
    amid.says_goodbye();
    waits.says_goodbye();
    run_out(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 2);
    assert_eq!(reactor.net().stats().undrained, 0);
}

#[test]
fn a_drain_whose_grace_is_over_ends_those_amid_the_handshake() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, quiet);
    let (mut amid, _) = knocks(&mut reactor, &mut journal, at);
    reactor.net().drain(ms(50));
    run_out(&mut reactor, &mut journal);
    amid.ends(&mut reactor, &mut journal);
    assert_eq!(journal.calls, []);
}

#[test]
fn a_shutdown_ends_those_amid_the_handshake() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, quiet);
    let (mut amid, _) = knocks(&mut reactor, &mut journal, at);
    let to_nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = to_nobody.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(to, Connect::new().tls(sides().1), recorder(quiet));
    settle(&mut reactor, &mut journal);
    reactor.shutdown(&mut journal);
    amid.pull();
    assert!(amid.end.is_some());
    assert_eq!(closing_of(&journal, key).as_deref(), Some(SHUT_DOWN));
    assert_eq!(journal.calls.len(), 1);
    // And it may be used again.
    let (_, at) = listen(&mut reactor, sides().0, answers);
    agrees(&mut reactor, &mut journal, at);
}

#[test]
fn a_listener_that_is_closed_leaves_nobody_amid_the_handshake() {
    let (mut reactor, mut journal) = start();
    let (listener, at) = listen(&mut reactor, sides().0, quiet);
    let (mut amid, rest) = knocks(&mut reactor, &mut journal, at);
    reactor.net().close(listener);
    settle(&mut reactor, &mut journal);
    let _ = amid.socket.write(&rest);
    amid.ends(&mut reactor, &mut journal);
    assert_eq!(journal.calls, []);
    run_out(&mut reactor, &mut journal);
}

/// Also one that says nothing more: nothing can come of it, and the loop does not go on for it.
#[test]
fn a_listener_that_is_closed_turns_away_who_says_nothing_more() {
    for by_its_end in [false, true] {
        let (mut reactor, mut journal) = start_with(Config::new().handshake_max(Duration::MAX).wait_for_lingering(false));
        let (listener, at) = listen_how(&mut reactor, Listen::new().admits_max(1).tls(sides().0), answers);
        let (mut silent, _) = knocks(&mut reactor, &mut journal, at);
        if by_its_end {
            agrees(&mut reactor, &mut journal, at);
        } else {
            reactor.net().close(listener);
        }
        settle(&mut reactor, &mut journal);
        assert!(!reactor.net().is_open(listener));
        silent.pull();
        assert!(silent.end.is_some(), "it is still there");
    }
}

#[test]
fn what_fails_amid_the_handshake_is_written_down() {
    keep_log();
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, quiet);
    let mut peer = dial(at);
    take_log();
    say(&peer, "GET / HTTP/1.0\r\n\r\n");
    read_to_end(&mut reactor, &mut journal, &mut peer);
    let log = take_log();
    let wanted = "could not agree on TLS: the peer does not speak TLS: it began with `GET / HTTP/1.0`";
    assert!(log.iter().any(|line| line.1.contains(wanted)), "{log:?}");
}

/// A guest that is idle is so from its `connected` on, not from the time when it was accepted.
#[test]
fn bounds_of_a_listener_count_from_the_end_of_the_handshake() {
    let (mut reactor, mut journal) = start();
    let options = Listen::new().idle_timeout(ms(60)).tls(sides().0);
    let (_, at) = listen_how(&mut reactor, options, crate::common::by_default);
    let (mut peer, rest) = knocks(&mut reactor, &mut journal, at);
    crate::common::pass(&mut reactor, &mut journal, ms(100));
    assert_eq!((journal.calls.len(), peer.end), (0, None));
    peer.injects(&rest);
    peer.until(&mut reactor, &mut journal, |_, journal| journal.has(&Call::Connected));
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
}

fn says_how_many_have_agreed(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    if let Call::Received(_) = call {
        let agreed = ctx.net.stats().handshakes;
        ctx.send(agreed.to_string());
    }
    Ok(())
}

/// A step may take as long as a thousand turns of others: they come first, though the handshake was ready before.
#[test]
fn a_handshake_comes_behind_all_others_in_a_turn() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, says_how_many_have_agreed);
    let mut talks = Peer::dials(at, sides().1);
    talks.talker.says("x");
    talks.hears(&mut reactor, &mut journal, "1");
    let mut shakes = Peer::dials(at, sides().1);
    shakes.pump();
    until(&mut reactor, &mut journal, |_| {
        shakes.pull();
        shakes.talker.is_agreed()
    });
    settle(&mut reactor, &mut journal);
    let last_flight = shakes.talker.speech();
    shakes.injects(&last_flight);
    talks.talker.says("x");
    talks.pump();
    talks.hears(&mut reactor, &mut journal, "1");
    assert_eq!(reactor.net().stats().handshakes, 2, "in the same turn");
}

/// Somebody's callback concerns one whose step is put off to the end of the turn: it is queued once all the same, which is
/// asserted after each turn.
#[test]
fn who_is_put_off_and_touched_meanwhile_is_queued_once() {
    fn drains(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Received(_) => ctx.net.drain(20 * SECOND),
            Call::Draining | Call::Eof(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    }
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, drains);
    let mut other = Peer::dials(at, sides().1);
    other.agrees(&mut reactor, &mut journal);
    let (mut amid, rest) = knocks(&mut reactor, &mut journal, at);
    // Both in one turn, the handshake first.
    amid.injects(&rest);
    other.talker.says("drain");
    other.pump();
    until(&mut reactor, &mut journal, |journal| {
        amid.pump();
        journal.closings() == 2
    });
    assert_eq!(reactor.net().stats().handshakes, 2);
}
