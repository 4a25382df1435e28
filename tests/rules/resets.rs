//! What a reset ends, and which last words come before it.

use crate::common::{
    Call, Ctx, Journal, TICK, Talk, by_default, closing_of, guest, is_closed, lines, quiet, recorder, reset, say, settle, start,
    stuff, until,
};
#[cfg(feature = "sim")]
use crate::common::{Recorded, dialogue};
#[cfg(feature = "sim")]
use mainspring::Reason;
use mainspring::{Config, Terminator};
use std::{thread, time::Duration};

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn last_words_before_a_reset_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "413\nto");
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["413"]);
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
    assert!(!journal.calls.iter().any(|(_, call)| matches!(call, Call::Eof(_))), "a reset is no end of the stream");
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn last_words_are_delivered_before_a_write_fails() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    say(&peer, "413\n");
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["413"]);
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn last_words_are_delivered_when_a_write_meets_the_reset_first() {
    let (mut reactor, mut journal) = start();
    let (writer, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "413\n");
    reset(peer);
    // Sent from outside: whether the write comes before the read or after it, both are told in order.
    reactor.net().send(writer, "the rest of the upload");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, writer));
    assert_eq!(journal.frames(), ["413"]);
    assert!(closing_of(&journal, writer).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_reset_ends_a_paused_connection_at_once_and_drops_its_unread_input() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "never read");
    settle(&mut reactor, &mut journal);
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key).len(), 2, "connected and closed: {:?}", journal.of(key));
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_reset_ends_a_connection_paused_with_frames_in_its_buffer() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["one"]);
}

/// A peer that asks and does not take the answers has said its last words when it is lost: nobody hears what would be
/// answered.
#[test]
fn a_reset_ends_at_once_who_is_held_back_by_its_own_output() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    say(&peer, "never heard");
    settle(&mut reactor, &mut journal);
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.received(), b"");
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

const ANSWER: [u8; 1000] = [b'x'; 1000];

/// It was served everything that it had asked, the answers piled up to the cap, and its end was called an overflow.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn answers_to_who_is_lost_do_not_pile_up() {
    for holds_back in [true, false] {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Connected => {
                    ctx.set_terminator(Terminator::line(9));
                    ctx.set_hold_back(holds_back);
                    ctx.set_output_limits(1000, 4000, 20_000);
                }
                Call::Frame(_) => {
                    ctx.send(ANSWER);
                    assert!(ctx.queued() <= 4000, "{} bytes are queued", ctx.queued());
                }
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "a\n".repeat(300));
        reset(talk.peer);
        until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
        let end = closing_of(&talk.journal, talk.key).expect("closed");
        assert!(end.starts_with("connection lost"), "{end}");
        let served = talk.journal.frames().len();
        assert_eq!(served, if holds_back { 5 } else { 300 }, "who is congested now is not read on");
    }
}

/// Each answer was small enough, so all that it had sent was read and answered for nobody.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn who_answers_a_peer_that_is_lost_is_not_read_on_for_long() {
    for (answers, holds_back) in [(true, true), (true, false), (false, true)] {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Connected => {
                    ctx.set_terminator(Terminator::line(9));
                    ctx.set_hold_back(holds_back);
                }
                Call::Frame(_) if answers => ctx.send(&ANSWER[..100]),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "a\n".repeat(3000));
        reset(talk.peer);
        until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
        assert!(closing_of(&talk.journal, talk.key).expect("closed").starts_with("connection lost"));
        let served = talk.journal.frames().len();
        if answers && holds_back {
            // A turn's, if the first write meets the reset; then 4096 bytes.
            assert!((40..=1024 + 41).contains(&served), "{served} of 3000 lines were answered");
        } else {
            assert_eq!(served, 3000, "answers: {answers}, holds back: {holds_back}");
        }
    }
}

/// Others speak to it meanwhile: that is no answer to what it says.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn what_others_send_to_who_is_lost_does_not_cut_its_last_words() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "a\n".repeat(300));
    reset(peer);
    while !is_closed(&journal, key) {
        reactor.net().send(key, [b'x'; 2000]);
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(journal.frames().len(), 300);
}

/// At eight frames a turn they may take longer than the time-out, and nothing is missing.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn who_is_lost_is_not_idle_before_its_last_words_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        by_default(ctx, journal, call)
    });
    reactor.net().link(key).expect("open").set_idle_timeout(TICK);
    say(&peer, "a\n".repeat(1000));
    reset(peer);
    while !is_closed(&journal, key) {
        reactor.net().post(|_, _| thread::sleep(TICK / 20));
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(journal.frames().len(), 1000);
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_successor_of_who_is_lost_is_not_charged_for_its_predecessors_answers() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        match call {
            Call::Frame(line) if line == b"up" => {
                ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                    if let Call::Frame(_) = call {
                        ctx.send(&ANSWER[..200]);
                    }
                    lines(ctx, journal, call)
                }))
            }
            Call::Frame(_) => ctx.send(&ANSWER[..100]),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "a\n".repeat(45) + "up\n" + &"b\n".repeat(15));
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames().iter().filter(|frame| *frame == "b").count(), 15);
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn the_last_words_of_many_do_not_keep_who_lives_waiting() {
    const DEAD: usize = 20;
    let (mut reactor, mut journal) = start();
    let dead: Vec<_> = (0..DEAD).map(|_| guest(&mut reactor, &mut journal, lines).1).collect();
    let (_, peer) = guest(&mut reactor, &mut journal, lines);
    for peer in dead {
        say(&peer, "a\n".repeat(1000));
        reset(peer);
    }
    say(&peer, "ping\n");
    until(&mut reactor, &mut journal, |journal| journal.frames().contains(&"ping".to_owned()));
    let before = journal.frames().len();
    assert!(before <= 2 * DEAD * 8, "{before} lines of the dead came first");
    until(&mut reactor, &mut journal, |journal| journal.closings() == DEAD);
    assert_eq!(journal.frames().len(), DEAD * 1000 + 1);
}

/// The same of what was held back when the reset came.
#[cfg(feature = "sim")]
#[test]
fn who_is_held_back_when_it_is_lost_is_not_read_on() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(_) => ctx.send(ANSWER),
            _ => {}
        }
        Ok(())
    });
    t.peer_stops_reading().receives("a\n".repeat(3000));
    let served = t.calls().len();
    assert!(served < 1000, "{served} lines are answered");
    t.peer_resets().closes(|why| matches!(why, Reason::Io(_)));
    assert_eq!(t.calls().len(), 1, "`closed`, and nothing else");
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_reset_lifts_a_throttle_so_that_the_last_words_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().throttle(key, writer);
    say(&peer, "last words");
    settle(&mut reactor, &mut journal);
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.received(), b"last words");
}

/// The reset was noted while the connection was not yet paused, and forgotten: it stayed for ever.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_reset_that_came_with_the_last_bytes_ends_a_connection_that_pauses_on_them() {
    let mut talk = Talk::new(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.pause();
        }
        Ok(())
    });
    say(&talk.peer, "GET /long-poll\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.received(), b"GET /long-poll\n");
}

/// The same when somebody else pauses it, before its budget has reached the error.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_reset_ends_a_connection_that_another_pauses_before_the_error_is_read() {
    let mut talk = Talk::with(Config::new().turn_frames(1), |ctx, _, call| {
        if let Call::Connected = call {
            ctx.set_terminator(Terminator::line(9));
        }
        Ok(())
    });
    let key = talk.key;
    say(&talk.peer, "a\nb\nc\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| !journal.frames().is_empty());
    assert_eq!(talk.journal.frames(), ["a"], "the error is still ahead");
    talk.reactor.net().link(key).expect("it is open").pause();
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.frames(), ["a"], "it was paused");
}

/// A FIN, and behind it a reset.
#[cfg(feature = "sim")]
mod simulated {
    use mainspring::{Config, Context, Outcome, Protocol, Reason, testing::Sim};
    use std::time::Duration;

    const MILLI: Duration = Duration::from_millis(1);

    /// Its last words, its end, and soon afterwards a reset.
    struct Server;

    impl<S> Protocol<S> for Server {
        fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
            ctx.after(5 * MILLI, |_: &mut Self, ctx, _| {
                ctx.send("no\r\n");
                ctx.half_close();
                Ok(())
            });
            ctx.after(6 * MILLI, |_: &mut Self, ctx, _| {
                ctx.abort();
                Ok(())
            });
            Ok(())
        }
    }

    struct Client;

    impl Protocol<Vec<String>> for Client {
        fn received(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, bytes: &[u8]) -> Outcome {
            log.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(())
        }

        fn eof(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, _: &[u8]) -> Outcome {
            log.push("eof".to_owned());
            Ok(())
        }

        fn closed(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
            log.push(if why.is_clean() { "clean" } else { "lost" }.to_owned());
        }
    }

    /// It once depended on whether the last words and the end were read in one turn.
    #[test]
    fn the_peers_end_is_told_before_the_reset_behind_it() {
        for turn_bytes in [1, 64 << 10] {
            let mut sim = Sim::new(1);
            let server = sim.host("10.0.0.1", ());
            sim.net(server).listen("10.0.0.1:80", || Server).expect("a free port");
            let client = sim.host_with("10.0.0.2", Vec::new(), Config::new().turn_bytes(turn_bytes));
            sim.net(client).connect("10.0.0.1:80", Client);
            sim.run_for(4 * MILLI); // it is connected; the rest comes at once
            sim.part(server, client).run_for(10 * MILLI);
            sim.join(server, client).run_for(1_000 * MILLI);
            assert_eq!(*sim.state(client), ["no\r\n", "eof", "lost"], "{turn_bytes} bytes a turn");
        }
    }
}
