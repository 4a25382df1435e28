//! One direction ends before the other.

use crate::common::{
    Call, Ctx, FINISHED, Journal, LONG, PEER_FINISHED, SHORT, STUFF, Talk, closed, count, dial, ends_with, guest, is_closed,
    listen, opened, pass, quiet, read_exactly, read_to_end, say, settle, start, start_with, stuff, until,
};
use mainspring::{Config, Limit, Outcome, Protocol, Reactor, Reason};
use std::{cell::Cell, net::Shutdown, rc::Rc};

#[test]
fn half_close_sends_a_fin_after_what_is_queued_and_reading_goes_on() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().send(key, vec![b'.'; STUFF]);
    assert!(reactor.net().half_close(key));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), STUFF);
    say(&peer, "still here");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"still here");
    assert!(!is_closed(&journal, key));
}

#[test]
fn after_half_close_nothing_can_be_sent() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().half_close(key);
    assert!(!reactor.net().send(key, "too late"));
    assert!(reactor.net().link(key).expect("it is open").is_congested(), "or a source would never stop");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
}

#[test]
fn a_stream_whose_two_directions_have_ended_closes_itself() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().half_close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert_eq!(count(&journal, key, &Call::Eof(Vec::new())), 1);
}

#[test]
fn a_stream_that_its_peer_ended_first_closes_itself_with_eof() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    reactor.net().send(key, "an answer");
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key), "the other direction is open");
    reactor.net().half_close(key);
    ends_with(&mut reactor, &mut journal, key, PEER_FINISHED);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"an answer");
}

#[test]
fn the_linger_deadline_also_runs_once_half_close_was_asked_and_eof_delivered() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().half_close(key);
    pass(&mut reactor, &mut journal, LONG);
    assert!(!is_closed(&journal, key), "the peer may still say something");
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(journal.has(&Call::Eof(Vec::new())));
}

#[test]
fn a_half_close_from_inside_received_sends_its_fin_with_and_without_an_answer() {
    for answer in ["", "bye"] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                ctx.send(answer);
                ctx.half_close();
            }
            Ok(())
        });
        settle(&mut reactor, &mut journal);
        say(&peer, "hello");
        assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), answer.as_bytes());
        assert!(reactor.net().is_open(key), "it still reads");
    }
}

#[test]
fn a_half_close_while_connecting_sends_the_fin_after_what_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().send(key, "all of it");
    reactor.net().half_close(key);
    let (mut peer, _) = listener.accept().expect("it connects");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"all of it");
    say(&peer, "thanks");
    drop(peer);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let expected = [Call::Connected, Call::Received(b"thanks".to_vec()), Call::Eof(Vec::new()), Call::Closed(FINISHED.into())];
    assert_eq!(journal.of(key), expected);
}

/// What was sent after `half_close` in the same callback left all the same, before the FIN.
#[test]
fn what_is_sent_after_half_close_in_the_same_callback_is_refused() {
    let taken = Rc::new(Cell::new(None));
    let answer = taken.clone();
    let mut talk = Talk::new(move |ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.send("before ");
            ctx.half_close();
            answer.set(Some(ctx.link().send("after")));
            // Nor do new marks open it again.
            ctx.set_output_limits(1 << 10, 1 << 20, 1 << 20);
            ctx.send("later");
        }
        Ok(())
    });
    say(&talk.peer, "x");
    let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert_eq!(String::from_utf8_lossy(&got), "before ");
    assert_eq!(taken.get(), Some(false));
}

/// An upgrade in `eof`, when our own end had been sent: the successor hears of the end too, and closes by itself.
#[test]
fn an_upgrade_in_eof_after_half_close_tells_the_successor_and_ends() {
    struct First;
    struct Second;
    impl Protocol<Journal> for First {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
            ctx.half_close();
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, _: &[u8]) -> Outcome {
            ctx.upgrade(Second);
            Ok(())
        }
    }
    impl Protocol<Journal> for Second {
        fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
            journal.note(ctx.key, Call::Connected);
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, tail: &[u8]) -> Outcome {
            journal.note(ctx.key, Call::Eof(tail.to_vec()));
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
            journal.note(ctx.key, Call::Closed(why.to_string()));
        }
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || First);
    let peer = dial(at);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<_> = journal.calls.iter().map(|(_, call)| call).collect();
    assert!(matches!(calls[..], [Call::Connected, Call::Eof(tail), Call::Closed(_)] if tail.is_empty()), "{calls:?}");
}

/// Flaw 11: The peer's half-close closed us: nobody could answer after the end of the question.
#[test]
fn flaw_11_an_answer_can_follow_the_end_of_the_question() {
    let mut talk = Talk::new(|ctx, journal, call| {
        if let Call::Eof(_) = call {
            write!(ctx, "{} bytes, ", journal.received().len());
        }
        Ok(())
    });
    say(&talk.peer, "question");
    talk.peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 9), b"8 bytes, ");
    talk.settle();
    assert_eq!(talk.journal.closings(), 0, "it is ours to close");
    let key = talk.key;
    let mut net = talk.reactor.net();
    assert!(net.send(key, "and later some more") && net.close(key));
    assert_eq!(read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer), b"and later some more");
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls().last(), Some(&closed(&Reason::Eof)));
}
