//! What an answer to `exceeded` means, what is skipped, and the answers that are given by default.

use crate::common::{
    Bare, Call, Ctx, FINISHED, Journal, LONG, PATIENCE, SHORT, TICK, closing_of, count, dial, ends_with, guest, is_closed, lines,
    listen, pass, quiet, read_exactly, read_to_end, say, settle, start, stuff, until,
};
use mainspring::{Key, Limit, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    net::{Shutdown, TcpStream},
    time::Instant,
};

fn bare(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> (Key, TcpStream) {
    let (_, addr) = listen(reactor, || Bare);
    let peer = dial(addr);
    until(reactor, journal, |journal| journal.has(&Call::Connected));
    (journal.calls[0].0, peer)
}

#[test]
fn the_default_answer_of_exceeded_gives_the_limit_as_reason() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = bare(&mut reactor, &mut journal);
    reactor.net().link(key).expect("open").set_idle_timeout(TICK);
    ends_with(&mut reactor, &mut journal, key, "Limit(Idle)");
}

#[test]
fn the_default_answer_of_eof_gives_eof_as_reason() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = bare(&mut reactor, &mut journal);
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, "Eof");
}

#[test]
fn the_default_answer_of_draining_is_to_close() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = bare(&mut reactor, &mut journal);
    reactor.net().drain(PATIENCE);
    ends_with(&mut reactor, &mut journal, key, "Finish");
}

#[test]
fn the_default_answers_of_received_and_frame_fail() {
    for terminator in [Terminator::None, Terminator::line(9)] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = bare(&mut reactor, &mut journal);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, "x\n");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("Failed(\"unexpected"));
    }
}

#[test]
fn a_limit_as_err_closes_with_the_limit() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_, _, call| match call {
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    reactor.net().link(key).expect("open").set_deadline(TICK);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Deadline).to_string());
}

/// Its deadline is soon, and it has an error of its own for that.
struct Fussy;

impl Protocol<Journal> for Fussy {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        ctx.set_deadline(TICK);
        Ok(())
    }

    fn exceeded(&mut self, _: &mut Ctx<'_>, _: &mut Journal, _: Limit) -> Outcome {
        Err("too slow for me".into())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(format!("{why:?}")));
    }
}

#[test]
fn any_other_err_of_exceeded_closes_with_the_limit_too() {
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Fussy);
    let peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert!(journal.has(&Call::Closed("Limit(Deadline)".into())), "{:?}", journal.calls);
    drop(peer);
}

#[test]
fn idle_starts_afresh_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Idle)) == 3);
    assert!(began.elapsed() >= SHORT * 3);
}

#[test]
fn stalled_starts_afresh_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Exceeded(Limit::Stalled)) == 3);
    assert!(began.elapsed() >= SHORT * 3);
}

#[test]
fn the_deadline_is_off_after_ok() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_deadline(TICK);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Deadline)));
    pass(&mut reactor, &mut journal, LONG);
    assert_eq!(count(&journal, key, &Call::Exceeded(Limit::Deadline)), 1);
}

/// Lines of at most three bytes; a longer one is answered, and the next is welcome.
fn three(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(3)),
        Call::Exceeded(Limit::FrameBytes) => ctx.send("500 line too long\n"),
        _ => {}
    }
    Ok(())
}

#[test]
fn the_rest_of_a_line_too_long_is_skipped_and_the_next_one_comes() {
    for pieces in [&["abcdefgh\nok\n"][..], &["abcd", "ef", "gh", "\n", "ok\n"], &["abcd", "efgh\nok", "\n"]] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer) = guest(&mut reactor, &mut journal, three);
        for piece in pieces {
            say(&peer, piece);
            reactor.turn(&mut journal, TICK).expect("the selector works");
        }
        read_exactly(&mut reactor, &mut journal, &mut peer, 18);
        until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
        let expected = [Call::Connected, Call::Exceeded(Limit::FrameBytes), Call::Frame(b"ok".to_vec())];
        assert_eq!(journal.of(key), expected, "{pieces:?}");
    }
}

#[test]
fn of_a_frame_that_is_skipped_no_tail_comes_with_eof() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, three);
    say(&peer, "abcdef");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "gh");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
}

#[test]
fn the_rest_of_a_frame_too_slow_is_skipped_and_the_next_one_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    reactor.net().link(key).expect("open").set_frame_timeout(TICK);
    say(&peer, "slo");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "w\nquick\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    assert_eq!(journal.frames(), ["quick"]);
    assert_eq!(count(&journal, key, &Call::Exceeded(Limit::FrameTime)), 1);
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(3)),
            Call::Exceeded(_) => ctx.set_terminator(Terminator::exactly(2)),
            Call::Frame(_) => ctx.set_terminator(Terminator::delimiter(&b";"[..], 9)),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "abcdef");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "gh\nokx\ny;");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    assert_eq!(journal.frames(), ["ok", "x\ny"]);
}

#[test]
fn a_delimiter_stays_after_a_skip_also_when_it_comes_in_two_pieces() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::delimiter(&b"--"[..], 3));
        }
        Ok(())
    });
    say(&peer, "abcdef-");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    say(&peer, "-ok--on--");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["ok", "on"]);
}

#[test]
fn a_length_becomes_none_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::declared(5, 3));
        }
        Ok(())
    });
    say(&peer, "abc");
    settle(&mut reactor, &mut journal);
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"rest");
    assert!(journal.frames().is_empty());
    assert_eq!(journal.calls.iter().filter(|(_, call)| matches!(call, Call::Exceeded(_))).count(), 1);
}

#[test]
fn a_length_too_slow_is_skipped_to_its_end() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::exactly(5));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "abc");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"rest");
    assert!(journal.frames().is_empty());
}

#[test]
fn a_custom_frame_cannot_be_skipped_and_ok_closes_politely() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::netstring(3)),
            Call::Exceeded(_) => ctx.send("too long"),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "4:abcd,2:ok,");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"too long");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.frames().is_empty());
}

#[test]
fn a_stream_too_slow_is_skipped_to_its_end_and_becomes_none() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::Stream(5));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "abc");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, "derest");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"abcrest");
    assert!(journal.frames().is_empty());
}

#[test]
fn a_stream_until_too_slow_is_skipped_and_goes_on_with_the_next() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::stream_until(&b";;"[..]));
            ctx.set_frame_timeout(TICK);
        }
        Ok(())
    });
    say(&peer, "slow;");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameTime)));
    say(&peer, ";quick;;");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 1);
    assert_eq!(journal.received(), b"slowquick");
}

#[test]
fn a_pause_inside_exceeded_holds_what_comes_after_the_skip() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.pause();
        }
        Ok(())
    });
    say(&peer, "abcdefgh\nok\n");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::FrameBytes)));
    settle(&mut reactor, &mut journal);
    assert!(journal.frames().is_empty());
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["ok"]);
}

#[test]
fn a_close_inside_exceeded_is_the_end() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.close();
        }
        Ok(())
    });
    say(&peer, "abcdefgh\nok\n");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"500 line too long\n");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert!(journal.frames().is_empty());
}
