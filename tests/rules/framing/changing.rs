//! What changing the terminator does to bytes that are already here.

use crate::common::{
    Call, Journal, On, PATIENCE, Recorded, Recorder, TOO_LONG, cut_by, cut_from_outside, dialogue, eof, frame, lines, piece,
};
use mainspring::{Context, Outcome, Protocol, Terminator};
use std::{str, time::Duration};

#[test]
fn a_terminator_set_in_frame_cuts_what_follows_in_the_same_read() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(line) if line.starts_with(b"len ") => {
                let bytes = str::from_utf8(&line[4..])?.parse()?;
                ctx.set_terminator(Terminator::declared(bytes, 99));
            }
            Call::Frame(body) if body == b"s\ntream" => ctx.set_terminator(Terminator::Stream(3)),
            Call::Frame(_) => ctx.set_terminator(Terminator::line(9)),
            _ => {}
        }
        Ok(())
    });
    t.receives("len 3\na\nblen 0\nhi\nlen 7\ns\ntreamxyzbye\n");
    t.gets(&[
        frame("len 3"),
        frame("a\nb"),
        frame("len 0"),
        frame(""),
        frame("hi"),
        frame("len 7"),
        frame("s\ntream"),
        piece("xyz"),
        frame(""),
        frame("bye"),
    ]);
}

#[test]
fn a_terminator_set_in_received_cuts_what_was_held_back() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::stream_until(&b"\n.\n"[..])),
            Call::Received(_) => ctx.set_terminator(Terminator::line(9)),
            _ => {}
        }
        Ok(())
    });
    t.receives("x\n.").gets(&[piece("x"), frame("")]).holds(1);
    t.receives("y\n").gets(&[frame(".y")]);
}

#[test]
fn a_terminator_set_in_received_cuts_what_comes() {
    let mut t = dialogue(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.set_terminator(Terminator::line(9));
        }
        Ok(())
    });
    t.receives("x\n").gets(&[piece("x\n")]).receives("y\nz\n").gets(&[frame("y"), frame("z")]);
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_what_is_skipped() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(3)),
            Call::Exceeded(_) => ctx.set_terminator(Terminator::exactly(2)),
            _ => {}
        }
        Ok(())
    });
    t.receives("abcd").gets(&[TOO_LONG]).receives("ef\nxyz").gets(&[frame("xy"), piece("z")]);
}

/// More than any socket takes at once, and less than may be queued.
const FLOOD: usize = 1 << 20;

/// Lines; `draining` and `writable` set another terminator.
fn two_bytes_later(ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(99)),
        Call::Frame(line) if line == b"flood" => ctx.send(vec![b'.'; FLOOD]),
        Call::Writable | Call::Draining => ctx.set_terminator(Terminator::exactly(2)),
        _ => {}
    }
    Ok(())
}

#[test]
fn a_terminator_set_in_a_tell_or_a_timer_cuts_what_is_held() {
    for delay in [None, Some(Duration::ZERO)] {
        let mut t = dialogue(two_bytes_later as On);
        t.receives("abc").holds(3);
        let two = |_: &mut Recorder<On>, ctx: &mut Context<'_, Journal>, _: &mut Journal| {
            ctx.set_terminator(Terminator::exactly(2));
            Ok(())
        };
        let key = t.key();
        match delay {
            None => assert!(t.scene().net().tell(key, two)),
            Some(delay) => _ = t.scene().net().tell_after(key, delay, two),
        }
        t.gets(&[frame("ab"), piece("c")]);
    }
}

#[test]
fn a_terminator_set_in_draining_cuts_what_is_held() {
    let mut t = dialogue(two_bytes_later);
    t.receives("abc").holds(3);
    t.scene().net().drain(PATIENCE);
    t.gets(&[Call::Draining, frame("ab"), piece("c")]);
}

#[test]
fn a_terminator_set_in_writable_cuts_what_is_held() {
    let mut t = dialogue(two_bytes_later);
    t.peer_stops_reading().receives("flood\nabc").gets(&[frame("flood")]).gets_nothing();
    assert_eq!(t.peer_reads().sent().len(), FLOOD);
    t.gets(&[Call::Writable, frame("ab"), piece("c")]);
}

#[test]
fn no_frame_follows_the_end_not_even_one_of_nothing() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Eof(_) => ctx.set_terminator(Terminator::exactly(0)),
            _ => {}
        }
        Ok(())
    });
    t.receives("abc").peer_ends().gets(&[eof("abc")]).gets_nothing();
    t.link(|link| link.set_terminator(Terminator::Stream(0))).gets_nothing();
    t.link(|link| link.set_terminator(Terminator::declared(2, 1))).gets_nothing();
}

/// Takes over after the first line.
struct Successor;

impl Protocol<Journal> for Successor {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        ctx.set_terminator(Terminator::exactly(3));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, frame: &[u8]) -> Outcome {
        journal.note(ctx.key, Call::Frame([b"successor: ", frame].concat()));
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, bytes: &[u8]) -> Outcome {
        journal.note(ctx.key, Call::Received(bytes.to_vec()));
        Ok(())
    }
}

#[test]
fn a_successor_cuts_the_unread_bytes_anew() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(99)),
            Call::Frame(_) => ctx.upgrade(Successor),
            _ => {}
        }
        Ok(())
    });
    t.receives("upgrade\nab\nrest\n").gets(&[frame("upgrade"), frame("successor: ab\n"), piece("rest\n")]);
}

#[test]
fn a_terminator_set_from_outside_cuts_an_unfinished_frame_without_new_input() {
    let mut t = cut_by(|| Terminator::crlf(99));
    t.receives("x\ry").holds(3);
    t.link(|link| link.set_terminator(Terminator::delimiter(&b"\r"[..], 9))).gets(&[frame("x")]).holds(1);
    t.link(|link| link.set_terminator(Terminator::None)).gets(&[piece("y")]).holds(0);
}

#[test]
fn a_terminator_set_from_outside_cuts_what_a_stream_until_held_back() {
    let mut t = cut_by(|| Terminator::stream_until(&b"\n.\n"[..]));
    t.receives("x\n.").gets(&[piece("x")]).holds(2);
    t.link(|link| link.set_terminator(Terminator::line(9))).gets(&[frame("")]).holds(1);
    t.receives("y\n").gets(&[frame(".y")]);
}

#[test]
fn a_terminator_set_from_outside_searches_long_frames_from_their_begin() {
    let mut t = cut_by(|| Terminator::line(1 << 20));
    let long = [b"ab;".as_slice(), &[b'-'; 5000]].concat();
    t.receives(&long).holds(5003).receives("-").holds(5004);
    t.link(|link| link.set_terminator(Terminator::delimiter(&b";"[..], 9999))).gets(&[frame("ab")]).holds(5001);
    t.link(|link| link.set_terminator(Terminator::exactly(5001))).gets(&[frame([b'-'; 5001])]);
}

#[test]
fn a_terminator_set_during_a_pause_cuts_what_waited() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(line) if line == b"a" => ctx.pause(),
            _ => {}
        }
        Ok(())
    });
    t.receives("a\nbc\nd\n").gets(&[frame("a")]).holds(5);
    t.link(|link| link.set_terminator(Terminator::exactly(4))).gets_nothing().holds(5);
    t.link(|link| link.resume()).gets(&[frame("bc\nd"), piece("\n")]);
}

#[test]
fn a_shorter_limit_from_outside_is_applied_to_what_is_held() {
    let mut t = cut_by(|| Terminator::line(9));
    t.receives("abcd").holds(4);
    t.link(|link| link.set_terminator(Terminator::line(3))).gets(&[TOO_LONG]);
    t.receives("e\nx\n").gets(&[frame("x")]);
}

#[test]
fn a_terminator_changed_from_outside_is_tried_on_what_is_held() {
    let mut t = dialogue(lines);
    t.receives("one;two;").holds(8);
    t.link(|link| link.set_terminator(Terminator::delimiter(&b";"[..], 9))).gets(&[frame("one"), frame("two")]);
}

/// Flaw 10: A terminator set from outside a callback was not tried on what was held until more came.
#[test]
fn flaw_10_a_terminator_set_from_outside_is_tried_on_what_is_held() {
    let rows =
        [("x\r", Terminator::delimiter(&b"\r"[..], 100), frame("x")), ("four bytes", Terminator::exactly(4), frame("four"))];
    for (held, terminator, expected) in rows {
        let mut t = cut_from_outside(Terminator::crlf(100));
        t.receives(held).holds(held.len());
        t.link(|link| link.set_terminator(terminator)); // the peer says nothing more
        assert_eq!(t.calls()[0], expected);
    }
}

/// What was searched for one delimiter was not searched for the next.
#[test]
fn what_is_held_is_searched_anew_for_another_delimiter() {
    let mut t = cut_by(|| Terminator::line(9));
    t.receives("a;b;").gets_nothing().link(|link| link.set_terminator(Terminator::delimiter(&b";"[..], 9)));
    t.gets(&[frame("a"), frame("b")]);
}
