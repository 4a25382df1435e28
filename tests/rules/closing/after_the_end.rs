//! Nothing but accepted tells and `closed` comes after the end, and the first cause wins.

use super::deaf;
use crate::common::{
    ABORTED, Call, Ctx, FINISHED, Journal, Nothing, On, PEER_FINISHED, Recorder, SHORT, STUFF, TICK, Talk, closed, closing_of,
    dial, ends_with, frame, guest, is_closed, lines, listen, nobody, note, pass, quiet, read_to_end, recorder, reset, say,
    settle, start, stuff, uninterrupted, until,
};
use mainspring::{Limit, Outcome, Protocol, Reason, Terminator};
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    rc::Rc,
    time::Duration,
};

type End = fn(&mut Ctx<'_>) -> Outcome;

const ENDS: [End; 4] = [
    |ctx| {
        ctx.close();
        Ok(())
    },
    |ctx| {
        ctx.abort();
        Ok(())
    },
    |ctx| {
        ctx.fail("asked to fail");
        Ok(())
    },
    |_| Err("asked to fail".into()),
];

#[test]
fn frames_after_the_end_are_not_delivered() {
    for end in ENDS {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            lines(ctx, journal, call)?;
            if matches!(call, Call::Frame(_)) { end(ctx) } else { Ok(()) }
        });
        say(&peer, "one\ntwo\nthree\n");
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.of(key).len(), 3, "{:?}", journal.of(key));
    }
}

/// Sets timers and asks for a tell, and ends.
struct Ends(End);

impl Ends {
    fn note(text: &'static str) -> impl FnMut(&mut Self, &mut Ctx<'_>, &mut Journal) -> Outcome {
        move |_, ctx, journal| {
            note(journal, ctx.key, text);
            Ok(())
        }
    }
}

impl Protocol<Journal> for Ends {
    fn received(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, _: &[u8]) -> Outcome {
        let key = ctx.key;
        // It cannot leave as a whole, so that a polite close takes its time.
        ctx.send(vec![b'.'; STUFF]);
        ctx.set_deadline(Duration::ZERO);
        ctx.set_stall_timeout(Duration::ZERO);
        ctx.after(Duration::ZERO, Self::note("a timer"));
        ctx.every(TICK, Self::note("a period"));
        ctx.net.tell_after(key, Duration::ZERO, Self::note("a tell by timer"));
        assert!(ctx.net.tell(key, Self::note("told")));
        note(journal, key, "ended");
        let outcome = self.0(ctx);
        if outcome.is_ok() {
            assert!(!ctx.net.tell(key, Self::note("told too late")));
        }
        outcome
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, limit: Limit) -> Outcome {
        journal.note(ctx.key, Call::Exceeded(limit));
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn timers_and_time_outs_stop_at_the_end_and_only_tells_accepted_before_follow_it() {
    for end in ENDS {
        let (mut reactor, mut journal) = start();
        let (_, addr) = listen(&mut reactor, move || Ends(end));
        let peer = dial(addr);
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
        let key = journal.calls[0].0;
        pass(&mut reactor, &mut journal, SHORT);
        reactor.net().abort(key);
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.frames(), ["ended", "told"]);
        assert_eq!(journal.calls.len(), 3, "{:?}", journal.calls);
        assert!(!closing_of(&journal, key).expect("closed").contains("panicked"));
    }
}

#[test]
fn by_key_a_connection_that_ends_is_not_open_any_more() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    stuff(&mut reactor, &mut journal, key);
    let mut net = reactor.net();
    assert!(net.is_open(key) && net.close(key));
    assert!(!net.is_open(key) && net.link(key).is_none());
    assert!(!net.send(key, "x") && !net.send_shared(key, &Rc::from(&b"x"[..])));
    assert!(!net.tell(key, |_: &mut Recorder<On>, _, _| Ok(())));
    assert!(!net.close(key) && !net.half_close(key) && !net.fail(key, "x"));
    assert!(!net.throttle(key, key));
    let timer = net.tell_after(key, Duration::ZERO, |_: &mut Recorder<On>, _, _| Ok(()));
    assert!(!net.cancel(timer), "it was never set");
    assert!(net.peer(key).is_some() && net.local(key).is_some() && net.wake(key), "it is flushing, and still there");
    assert!(net.abort(key));
    assert!(!net.abort(key));
    ends_with(&mut reactor, &mut journal, key, ABORTED);
}

#[test]
fn its_own_commands_do_nothing_after_the_end() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        if matches!(call, Call::Received(_) | Call::Closed(_)) {
            if matches!(call, Call::Received(_)) {
                ctx.send("bye");
                ctx.close();
            }
            ctx.send("more");
            write!(ctx, "and {call:?}");
            ctx.send_netstring("more");
            ctx.send_shared(&Rc::from(&b"more"[..]));
            ctx.produce(|_: &mut Vec<u8>| panic!("it was asked"));
            ctx.set_terminator(Terminator::line(1));
            ctx.set_deadline(Duration::ZERO);
            ctx.set_idle_timeout(Duration::ZERO);
            ctx.set_output_limits(0, 0, 0);
            ctx.set_hold_back(false);
            ctx.pause();
            ctx.resume();
            ctx.half_close();
            ctx.close();
            ctx.fail("too late");
            assert!(!ctx.link().send("more"));
            assert!(ctx.link().write_all(b"more").is_err());
            let timer = ctx.every(TICK, |_: &mut Nothing, _, _| panic!("it fired"));
            assert!(!ctx.net.cancel(timer));
            note(journal, ctx.key, "asked");
        }
        Ok(())
    });
    say(&peer, "x");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"bye");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert_eq!(journal.frames(), ["asked", "asked"]);
}

#[test]
fn a_deadline_while_connecting_gives_closed_alone() {
    let (_sockets, addr) = deaf();
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect(addr, recorder(quiet as On));
    reactor.net().link(key).expect("the key is good at once").set_deadline(TICK);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key), [Call::Closed(Reason::Limit(Limit::Deadline).to_string())]);
}

#[test]
fn an_error_while_connecting_gives_closed_alone() {
    let (_socket, addr) = nobody();
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect(addr, recorder(quiet as On));
    reactor.net().send(key, "queued");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key).len(), 1);
}

#[test]
fn the_first_cause_wins() {
    let orders: [(fn(&mut Ctx<'_>), &str); 3] = [
        (
            |ctx| {
                ctx.fail("first");
                ctx.abort();
            },
            "failed: first",
        ),
        (
            |ctx| {
                ctx.abort();
                ctx.fail("second");
                ctx.close();
            },
            ABORTED,
        ),
        (
            |ctx| {
                ctx.fail("first");
                ctx.fail("second");
                ctx.close();
            },
            "failed: first",
        ),
    ];
    for (order, why) in orders {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                order(ctx);
                return Err("last".into());
            }
            Ok(())
        });
        say(&peer, "x");
        ends_with(&mut reactor, &mut journal, key, why);
    }
}

#[test]
fn a_polite_close_still_flushing_is_overtaken_by_an_error() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_close_inside_a_callback_that_then_fails_is_overtaken() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.close();
            return Err("after all".into());
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, "failed: after all");
}

#[test]
fn the_reason_is_eof_when_the_peer_had_ended_before_we_asked() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Eof(_)) {
            ctx.send("answer");
            ctx.close();
        }
        Ok(())
    });
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, PEER_FINISHED);
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn err_tries_one_write_of_what_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send("500 sorry\n");
            return Err("gave up".into());
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, "failed: gave up");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"500 sorry\n");
}

#[test]
fn err_does_not_linger_over_output_that_does_not_leave() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().fail(key, "gave up");
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some("failed: gave up"));
    assert!(read_to_end(&mut reactor, &mut journal, &mut peer).len() < STUFF);
}

#[test]
fn abort_drops_what_is_queued_and_resets() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send("never");
            ctx.abort();
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, ABORTED);
    let error = uninterrupted(|| peer.read(&mut [0; 9])).expect_err("a reset is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Flaw 3: Callbacks went on after `close()` in found_terminator: all later frames, and the rest, were delivered.
#[test]
fn flaw_03_nothing_is_delivered_after_close() {
    let ways: [(fn(&mut Ctx<'_>) -> Outcome, Reason); 4] = [
        (
            |ctx| {
                ctx.close();
                Ok(())
            },
            Reason::Finish,
        ),
        (
            |ctx| {
                ctx.abort();
                Ok(())
            },
            Reason::Abort,
        ),
        (|_| Err("enough".into()), Reason::Failed("enough".into())),
        (
            |ctx| {
                ctx.fail("enough");
                Ok(())
            },
            Reason::Failed("enough".into()),
        ),
    ];
    for (end, why) in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(Terminator::line(100)),
                Call::Frame(_) => return end(ctx),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "a\nb\nc\nrest");
        talk.peer.shutdown(Shutdown::Write).expect("connected");
        talk.until(|journal| journal.closings() == 1);
        talk.settle();
        assert_eq!(talk.calls(), [frame("a"), closed(&why)]);
    }
}
