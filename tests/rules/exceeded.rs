//! What an answer to `exceeded` means, what is skipped, and the answers that are given by default.

use crate::common::{
    Bare, Call, Ctx, Journal, PATIENCE, Recorded, SECOND, TOO_LONG, closed, cut_by, dialogue, eof, frame, lines, piece, quiet,
};
use mainspring::{Endian, Limit, Outcome, Protocol, Reason, Terminator, Width, testing::Transcript};

fn bare() -> Transcript<Bare, Journal> {
    let mut t = Transcript::new(Bare);
    t.gets(&[Call::Connected]);
    t
}

#[test]
fn the_default_answer_of_exceeded_gives_the_limit_as_reason() {
    bare().link(|link| link.set_idle_timeout(SECOND)).passes(SECOND).gets(&[Call::Closed("Limit(Idle)".into())]);
}

#[test]
fn the_default_answer_of_eof_gives_eof_as_reason() {
    bare().peer_ends().gets(&[Call::Closed("Eof".into())]);
}

#[test]
fn the_default_answer_of_draining_is_to_close_once_it_is_quiet() {
    let mut t = bare();
    t.scene().net().drain(PATIENCE);
    t.gets(&[Call::Closed("Drained".into())]);
}

#[test]
fn the_default_answers_of_received_and_frame_fail() {
    for terminator in [Terminator::None, Terminator::line(9)] {
        let calls = bare().link(|link| link.set_terminator(terminator)).receives("x\n").calls();
        assert!(matches!(&calls[..], [Call::Closed(why)] if why.starts_with("Failed(\"unexpected")), "{calls:?}");
    }
}

#[test]
fn a_limit_as_err_closes_with_the_limit() {
    let mut t = dialogue(|_, _, call| match call {
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    let expected = [Call::Exceeded(Limit::Deadline), closed(&Reason::Limit(Limit::Deadline))];
    t.link(|link| link.set_deadline(SECOND)).passes(SECOND).gets(&expected);
}

/// It has a deadline, and an error of its own for that.
struct Fussy;

impl Protocol<Journal> for Fussy {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        ctx.set_deadline(SECOND);
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
    Transcript::new(Fussy).passes(SECOND).gets(&[Call::Closed("Limit(Deadline)".into())]);
}

#[test]
fn idle_starts_afresh_after_ok() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_idle_timeout(SECOND));
    for _ in 0..3 {
        t.exceeds(Limit::Idle, SECOND);
    }
}

#[test]
fn stalled_starts_afresh_after_ok() {
    let mut t = dialogue(quiet);
    t.stuffs().link(|link| link.set_stall_timeout(SECOND));
    for _ in 0..3 {
        t.exceeds(Limit::Stalled, SECOND);
    }
}

#[test]
fn the_deadline_is_off_after_ok() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_deadline(SECOND)).exceeds(Limit::Deadline, SECOND);
    t.passes(10 * SECOND).gets_nothing();
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
        let mut t = dialogue(three);
        for piece in pieces {
            t.receives(piece);
        }
        assert_eq!(t.sends("500 line too long\n").calls(), [TOO_LONG, frame("ok")], "{pieces:?}");
    }
}

#[test]
fn of_a_frame_that_is_skipped_no_tail_comes_with_eof() {
    dialogue(three).receives("abcdef").gets(&[TOO_LONG]).receives("gh").peer_ends().gets(&[eof("")]);
}

#[test]
fn the_rest_of_a_frame_too_slow_is_skipped_and_the_next_one_comes() {
    let mut t = dialogue(lines);
    t.link(|link| link.set_frame_timeout(SECOND)).receives("slo").exceeds(Limit::FrameTime, SECOND);
    t.receives("w\nquick\n").gets(&[frame("quick")]).passes(10 * SECOND).gets_nothing();
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_the_skip() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(3)),
            Call::Exceeded(_) => ctx.set_terminator(Terminator::exactly(2)),
            Call::Frame(_) => ctx.set_terminator(Terminator::delimiter(&b";"[..], 9)),
            _ => {}
        }
        Ok(())
    });
    t.receives("abcdef").gets(&[TOO_LONG]).receives("gh\nokx\ny;").gets(&[frame("ok"), frame("x\ny")]);
}

#[test]
fn a_delimiter_stays_after_a_skip_also_when_it_comes_in_two_pieces() {
    let mut t = cut_by(|| Terminator::delimiter(&b"--"[..], 3));
    t.receives("abcdef-").gets(&[TOO_LONG]).receives("-ok--on--").gets(&[frame("ok"), frame("on")]);
}

#[test]
fn a_length_becomes_none_after_the_skip() {
    let mut t = cut_by(|| Terminator::declared(5, 3));
    t.receives("abc").gets(&[TOO_LONG]).receives("derest").gets(&[piece("rest")]);
}

#[test]
fn a_length_too_slow_is_skipped_to_its_end() {
    let mut t = cut_by(|| Terminator::exactly(5));
    t.link(|link| link.set_frame_timeout(SECOND)).receives("abc").exceeds(Limit::FrameTime, SECOND);
    t.receives("derest").gets(&[piece("rest")]);
}

/// Frames after their length: what cuts them, one of 4 bytes, which is one too many, and `ok`.
const DECLARED: [(fn() -> Terminator, &[u8], &[u8]); 6] = [
    (|| Terminator::netstring(3), b"4:abcd,", b"2:ok,"),
    (|| Terminator::prefixed(Width::U8, Endian::Big, 3), b"\x04abcd", b"\x02ok"),
    (|| Terminator::prefixed(Width::U16, Endian::Big, 3), b"\0\x04abcd", b"\0\x02ok"),
    (|| Terminator::prefixed(Width::U16, Endian::Little, 3), b"\x04\0abcd", b"\x02\0ok"),
    (|| Terminator::prefixed(Width::U32, Endian::Big, 3), b"\0\0\0\x04abcd", b"\0\0\0\x02ok"),
    (|| Terminator::prefixed(Width::U64, Endian::Little, 3), b"\x04\0\0\0\0\0\0\0abcd", b"\x02\0\0\0\0\0\0\0ok"),
];

#[test]
fn a_frame_that_is_too_long_by_its_prefix_is_skipped_and_the_next_one_comes() {
    for (terminator, long, ok) in DECLARED {
        let bytes = [long, ok].concat();
        for cut in 1..bytes.len() {
            let mut t = cut_by(terminator);
            t.receives(&bytes[..cut]).receives(&bytes[cut..]);
            assert_eq!(t.calls(), [TOO_LONG, frame("ok")], "{:?} cut at {cut}", terminator());
        }
    }
}

#[test]
fn a_frame_with_a_prefix_that_is_too_slow_is_skipped_and_the_next_one_comes() {
    for (terminator, _, ok) in DECLARED {
        for cut in 1..ok.len() {
            let mut t = cut_by(terminator);
            t.link(|link| link.set_frame_timeout(SECOND)).receives(&ok[..cut]).exceeds(Limit::FrameTime, SECOND);
            t.receives(&ok[cut..]).gets_nothing().receives(ok).gets(&[frame("ok")]);
        }
    }
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_a_frame_with_a_prefix() {
    for (terminator, long, _) in DECLARED {
        let mut t = dialogue(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Exceeded(_) => ctx.set_terminator(Terminator::line(9)),
                _ => {}
            }
            Ok(())
        });
        t.receives(long).gets(&[TOO_LONG]).receives("line\n").gets(&[frame("line")]);
    }
}

#[test]
fn a_stream_too_slow_is_skipped_to_its_end_and_becomes_none() {
    let mut t = cut_by(|| Terminator::Stream(5));
    t.link(|link| link.set_frame_timeout(SECOND)).receives("abc").gets(&[piece("abc")]).exceeds(Limit::FrameTime, SECOND);
    t.receives("derest").gets(&[piece("rest")]);
}

#[test]
fn a_stream_until_too_slow_is_skipped_and_goes_on_with_the_next() {
    let mut t = cut_by(|| Terminator::stream_until(&b";;"[..]));
    t.link(|link| link.set_frame_timeout(SECOND)).receives("slow;").gets(&[piece("slow")]).exceeds(Limit::FrameTime, SECOND);
    t.receives(";quick;;").gets(&[piece("quick"), frame("")]);
}

#[test]
fn a_pause_inside_exceeded_holds_what_comes_after_the_skip() {
    let mut t = dialogue(|ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.pause();
        }
        Ok(())
    });
    t.receives("abcdefgh\nok\n").gets(&[TOO_LONG]).link(|link| link.resume()).gets(&[frame("ok")]);
}

#[test]
fn a_close_inside_exceeded_is_the_end() {
    let mut t = dialogue(|ctx, journal, call| {
        three(ctx, journal, call)?;
        if matches!(call, Call::Exceeded(_)) {
            ctx.close();
        }
        Ok(())
    });
    t.receives("abcdefgh\nok\n").sends("500 line too long\n").closes(|why| matches!(why, Reason::Finish));
    t.gets(&[TOO_LONG, closed(&Reason::Finish)]);
}

/// A length of more digits than there can be ended the connection, politely and by a clean reason.
#[test]
fn the_rest_of_a_netstring_is_skipped_however_long_it_says_it_is() {
    for length in ["6", "99999999999999999999999999"] {
        let mut t = cut_by(|| Terminator::netstring(5));
        t.receives(format!("{length}:too")).gets(&[TOO_LONG]).receives("big,");
        t.link(|link| assert_eq!(link.unread(), 0));
        if length == "6" {
            t.receives("2:ok,").gets(&[frame("ok")]);
        } else {
            t.receives("2:ok,").gets_nothing();
        }
    }
}
