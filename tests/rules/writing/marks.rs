//! The marks: congestion, `writable`, and holding back.

use crate::common::{
    Call, Ctx, FINISHED, HUGE, Journal, Nothing, On, STUFF, Talk, count, echo, ends_with, guest, is_closed, note, quiet,
    read_exactly, read_to_end, recorder, say, settle, start, stuff, until,
};
use mainspring::Config;
use std::{
    cell::Cell,
    io::{ErrorKind, Write},
    net::TcpListener,
    rc::Rc,
    time::Duration,
};

#[test]
fn an_accepted_connection_stops_reading_above_the_high_mark_and_goes_on_at_the_low_one() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, echo);
    peer.set_nonblocking(true).expect("a socket option");
    let (mut sent, mut most) = (0, 0);
    let block = [b'.'; 64 << 10];
    // Until neither end takes any more, however long we offer it.
    let mut refused = 0;
    while refused < 20 {
        match peer.write(&block) {
            Ok(n) => (sent, refused) = (sent + n, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        reactor.turn(&mut journal, Duration::from_millis(1)).expect("the selector works");
        most = most.max(reactor.net().link(key).expect("open").queued());
    }
    assert!(most > 64 << 10, "it was congested");
    assert!(most <= (64 + 64) << 10, "the high mark and one read: {most}");
    peer.set_nonblocking(false).expect("a socket option");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, sent).len(), sent);
}

#[test]
fn a_connecting_one_does_not_hold_back_unless_asked_to() {
    for hold_back in [false, true] {
        let (mut reactor, mut journal) = start();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let key = reactor.net().connect(listener.local_addr().expect("bound"), recorder(quiet as On));
        let (peer, _) = listener.accept().expect("it connects");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        if hold_back {
            reactor.net().link(key).expect("open").set_hold_back(true);
        }
        stuff(&mut reactor, &mut journal, key);
        say(&peer, "x");
        if hold_back {
            settle(&mut reactor, &mut journal);
            assert_eq!(journal.received(), b"");
        } else {
            until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
        }
    }
}

#[test]
fn congestion_begins_above_the_high_mark_and_ends_at_the_low_one() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| Ok(()));
    settle(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("it is open");
    link.set_output_limits(10, 100, 1000);
    for (bytes, is_congested) in [(50, false), (50, false), (1, true)] {
        assert!(link.send(vec![b'.'; bytes]));
        assert_eq!(link.is_congested(), is_congested, "{} queued", link.queued());
    }
    settle(&mut reactor, &mut journal);
    assert!(!reactor.net().link(key).expect("it is open").is_congested());
    assert_eq!(journal.of(key).iter().filter(|call| **call == Call::Writable).count(), 1);
}

#[test]
fn congestion_lasts_while_more_is_queued_than_the_low_mark() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("it is open");
    let queued = link.queued();
    for (low, high, is_congested) in
        [(0, 1, true), (queued - 1, queued, true), (queued, queued, false), (queued - 1, queued, false)]
    {
        link.set_output_limits(low, high, 2 * queued);
        assert_eq!(link.is_congested(), is_congested, "{queued} queued, marks {low} and {high}");
    }
}

#[test]
fn is_congested_is_true_from_the_moment_a_connection_begins_to_end() {
    let ends: [fn(&mut Ctx<'_>); 3] = [|ctx| ctx.close(), |ctx| ctx.abort(), |ctx| ctx.fail("gone")];
    for end in ends {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                assert!(!ctx.is_congested());
                end(ctx);
                assert!(ctx.is_congested());
                note(journal, ctx.key, "asked");
            }
            Ok(())
        });
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.frames(), ["asked"]);
    }
}

#[test]
fn writable_comes_only_after_congestion_and_once_for_each() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, [b'.'; 1000]);
    read_exactly(&mut reactor, &mut journal, &mut peer, 1000);
    settle(&mut reactor, &mut journal);
    assert!(!journal.has(&Call::Writable));
    for times in 1..=2 {
        stuff(&mut reactor, &mut journal, key);
        read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
        settle(&mut reactor, &mut journal);
        assert_eq!(count(&journal, key, &Call::Writable), times);
    }
}

#[test]
fn a_loop_on_is_congested_is_a_source() {
    const PIECES: usize = 3000;
    let (mut reactor, mut journal) = start();
    let sent = Rc::new(Cell::new(0));
    let seen = Rc::clone(&sent);
    let (key, mut peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Connected | Call::Writable) {
            while !ctx.is_congested() && sent.get() < PIECES {
                ctx.send([b'.'; 4 << 10]);
                sent.set(sent.get() + 1);
            }
            if sent.get() == PIECES {
                ctx.close();
            }
        }
        Ok(())
    });
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().link(key).is_none_or(|link| link.queued() <= (64 + 4) << 10));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), PIECES * (4 << 10));
    assert_eq!(seen.get(), PIECES);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.has(&Call::Writable));
}

/// An owed `writable` that could not be told, the output being congested again, kept the loop from ever sleeping.
#[test]
fn a_writable_that_is_owed_to_a_congested_connection_does_not_spin() {
    let mut talk = Talk::new(quiet);
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_output_limits(10, 20, 2 * HUGE);
    // In the timer phase above the high mark, and all of it taken when others' output leaves: `writable` is owed.
    talk.reactor.net().after(Duration::ZERO, move |net, _| _ = net.send(key, [0; 100]));
    talk.turn();
    // Before it is told: far more than the kernel takes.
    talk.reactor.net().post(move |net, _| _ = net.send(key, vec![0; HUGE]));
    talk.settle();
    assert!(talk.queued() > 1 << 20);
    talk.assert_sleeps();
    assert!(!talk.journal.has(&Call::Writable), "it is still congested");
}

/// The same by what a broadcaster does to a peer that has stopped reading: it sends on, little and much, whenever it may.
#[test]
fn a_broadcaster_whose_peer_does_not_read_sleeps_and_writable_comes_when_it_does() {
    let mut talk = Talk::with(Config::new().output_limits(10 << 10, 20 << 10, HUGE), quiet);
    let key = talk.key;
    let mut sent = 0;
    for bytes in [40_000, 3_000_000].into_iter().cycle() {
        if talk.is_congested() {
            talk.settle(); // a kernel may take more for a while
        }
        if talk.is_congested() {
            break;
        }
        assert!(sent < 2 * HUGE, "no kernel takes that much");
        sent += bytes;
        talk.reactor.net().post(move |net, _| _ = net.send(key, vec![1; bytes]));
        talk.turn();
    }
    talk.assert_sleeps();
    let writables = |journal: &Journal| journal.calls.iter().filter(|(_, call)| *call == Call::Writable).count();
    let (told, is_congested) = (writables(&talk.journal), talk.is_congested());
    assert!(is_congested || cfg!(windows), "it is told before anybody has read"); // Wine goes on taking for a while
    read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, sent);
    talk.until(|journal| writables(journal) == told + usize::from(is_congested));
}

/// Higher marks left a congested connection congested until the next write happened to succeed.
#[test]
fn raising_the_marks_lets_a_congested_connection_go_on() {
    let mut talk = Talk::new(quiet);
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_output_limits(10, 20, 3 * HUGE);
    talk.reactor.net().send(key, vec![0; HUGE]);
    talk.settle();
    assert!(talk.is_congested());
    assert!(!talk.journal.has(&Call::Writable));
    talk.reactor.net().link(key).expect("it is open").set_output_limits(2 * HUGE, 2 * HUGE, 3 * HUGE);
    talk.until(|journal| journal.has(&Call::Writable));
    assert!(!talk.is_congested(), "queued {}", talk.queued());
}

/// Questions were read faster than their answers left (CVE-2019-9512 and its kin): an accepted connection is not read while
/// its own output stands above the high mark.
#[test]
fn questions_are_not_read_faster_than_their_answers_leave() {
    const HIGH: usize = 64 << 10;
    let mut talk = Talk::with(Config::new().read_bytes(4096).output_limits(16 << 10, HIGH, 1 << 20), |ctx, journal, call| {
        if let Call::Received(bytes) = call {
            journal.calls.pop(); // how much was read is counted by the peer
            for _ in bytes {
                ctx.send([b'x'; 16]); // sixteen times as much
            }
        }
        Ok(())
    });
    talk.peer.set_nonblocking(true).expect("a socket option");
    let key = talk.key;
    let (mut most, mut asked, mut stuck) = (0, 0, 0);
    // Until the peer, who reads nothing, can ask no more.
    while stuck < 20 {
        match talk.peer.write(&[b'?'; 16 << 10]) {
            Ok(bytes) => (asked, stuck) = (asked + bytes, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("after {asked} questions: {error}"),
        }
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
        most = most.max(talk.reactor.net().link(key).expect("it is not closed").queued());
    }
    assert!(most <= HIGH + 16 * 4096, "{most} bytes were queued");
}

/// The successor's marks are the defaults again, but what was queued above them did not count as congestion.
#[test]
fn an_upgrade_looks_at_the_marks_anew() {
    let mut talk = Talk::new(|ctx, _, call| {
        match call {
            Call::Connected => {
                ctx.set_output_limits(2 * HUGE, 2 * HUGE, 2 * HUGE);
                ctx.send(vec![0; HUGE]);
            }
            Call::Received(_) => ctx.upgrade(Nothing),
            _ => {}
        }
        Ok(())
    });
    assert!(!talk.is_congested(), "it is below the marks that it has set");
    say(&talk.peer, "x");
    talk.until(|journal| journal.calls.len() == 2);
    talk.settle();
    assert!(talk.is_congested(), "queued {}", talk.queued());
}
