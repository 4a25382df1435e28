//! What changing the terminator does to bytes that are already here.

use super::{Dialogue, TOO_LONG, eof, piece};
use crate::common::{
    Call, Journal, On, PATIENCE, Recorder, Talk, frame, guest, lines, read_exactly, say, start, until, until_net,
};
use mainspring::{Context, Outcome, Protocol, Terminator};
use std::{str, time::Duration};

#[test]
fn a_terminator_set_in_frame_cuts_what_follows_in_the_same_read() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
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
    talk.says("len 3\na\nblen 0\nhi\nlen 7\ns\ntreamxyzbye\n");
    talk.hears(&[
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
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::stream_until(&b"\n.\n"[..])),
            Call::Received(_) => ctx.set_terminator(Terminator::line(9)),
            _ => {}
        }
        Ok(())
    });
    talk.says("x\n.").hears(&[piece("x"), frame("")]).holds(1);
    talk.says("y\n").hears(&[frame(".y")]);
}

#[test]
fn a_terminator_set_in_received_cuts_what_comes() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.set_terminator(Terminator::line(9));
        }
        Ok(())
    });
    talk.says("x\n").hears(&[piece("x\n")]).says("y\nz\n").hears(&[frame("y"), frame("z")]);
}

#[test]
fn a_terminator_set_in_exceeded_holds_after_what_is_skipped() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(3)),
            Call::Exceeded(_) => ctx.set_terminator(Terminator::exactly(2)),
            _ => {}
        }
        Ok(())
    });
    talk.says("abcd").hears(&[TOO_LONG]).says("ef\nxyz").hears(&[frame("xy"), piece("z")]);
}

/// More than any socket takes at once.
const FLOOD: usize = 16 << 20;

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
        let mut talk = Dialogue::answering(two_bytes_later as On);
        talk.says("abc").holds(3);
        let two = |_: &mut Recorder<On>, ctx: &mut Context<'_, Journal>, _: &mut Journal| {
            ctx.set_terminator(Terminator::exactly(2));
            Ok(())
        };
        match delay {
            None => assert!(talk.reactor.net().tell(talk.key, two)),
            Some(delay) => _ = talk.reactor.net().tell_after(talk.key, delay, two),
        }
        talk.hears(&[frame("ab"), piece("c")]);
    }
}

#[test]
fn a_terminator_set_in_draining_cuts_what_is_held() {
    let mut talk = Dialogue::answering(two_bytes_later);
    talk.says("abc").holds(3);
    talk.reactor.net().drain(PATIENCE);
    talk.hears(&[Call::Draining, frame("ab"), piece("c")]);
}

#[test]
fn a_terminator_set_in_writable_cuts_what_is_held() {
    let mut talk = Dialogue::answering(two_bytes_later);
    talk.says("flood\nabc").hears(&[frame("flood")]);
    read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, FLOOD);
    talk.hears(&[Call::Writable, frame("ab"), piece("c")]);
}

#[test]
fn no_frame_follows_the_end_not_even_one_of_nothing() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Eof(_) => ctx.set_terminator(Terminator::exactly(0)),
            _ => {}
        }
        Ok(())
    });
    talk.says("abc").ends().hears(&[eof("abc")]).hears_nothing();
    talk.link(|link| link.set_terminator(Terminator::Stream(0))).hears_nothing();
    talk.link(|link| link.set_terminator(Terminator::declared(2, 1))).hears_nothing();
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
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(99)),
            Call::Frame(_) => ctx.upgrade(Successor),
            _ => {}
        }
        Ok(())
    });
    talk.says("upgrade\nab\nrest\n").hears(&[frame("upgrade"), frame("successor: ab\n"), piece("rest\n")]);
}

#[test]
fn a_terminator_set_from_outside_cuts_an_unfinished_frame_without_new_input() {
    let mut talk = Dialogue::with(|| Terminator::crlf(99));
    talk.says("x\ry").holds(3);
    talk.link(|link| link.set_terminator(Terminator::delimiter(&b"\r"[..], 9))).hears(&[frame("x")]).holds(1);
    talk.link(|link| link.set_terminator(Terminator::None)).hears(&[piece("y")]).holds(0);
}

#[test]
fn a_terminator_set_from_outside_cuts_what_a_stream_until_held_back() {
    let mut talk = Dialogue::with(|| Terminator::stream_until(&b"\n.\n"[..]));
    talk.says("x\n.").hears(&[piece("x")]).holds(2);
    talk.link(|link| link.set_terminator(Terminator::line(9))).hears(&[frame("")]).holds(1);
    talk.says("y\n").hears(&[frame(".y")]);
}

#[test]
fn a_terminator_set_from_outside_searches_long_frames_from_their_begin() {
    let mut talk = Dialogue::with(|| Terminator::line(1 << 20));
    let long = [b"ab;".as_slice(), &[b'-'; 5000]].concat();
    talk.says(&long).holds(5003).says("-").holds(5004);
    talk.link(|link| link.set_terminator(Terminator::delimiter(&b";"[..], 9999))).hears(&[frame("ab")]).holds(5001);
    talk.link(|link| link.set_terminator(Terminator::exactly(5001))).hears(&[frame([b'-'; 5001])]);
}

#[test]
fn a_terminator_set_during_a_pause_cuts_what_waited() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(line) if line == b"a" => ctx.pause(),
            _ => {}
        }
        Ok(())
    });
    talk.says("a\nbc\nd\n").hears(&[frame("a")]).holds(5);
    talk.link(|link| link.set_terminator(Terminator::exactly(4))).hears_nothing().holds(5);
    talk.link(|link| link.resume()).hears(&[frame("bc\nd"), piece("\n")]);
}

#[test]
fn a_shorter_limit_from_outside_is_applied_to_what_is_held() {
    let mut talk = Dialogue::with(|| Terminator::line(9));
    talk.says("abcd").holds(4);
    talk.link(|link| link.set_terminator(Terminator::line(3))).hears(&[TOO_LONG]);
    talk.says("e\nx\n").hears(&[frame("x")]);
}

#[test]
fn a_terminator_changed_from_outside_is_tried_on_what_is_held() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "one;two;");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 8);
    reactor.net().link(key).expect("open").set_terminator(Terminator::delimiter(&b";"[..], 9));
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

/// Flaw 10: A terminator set from outside a callback was not tried on what was held until more came.
#[test]
fn flaw_10_a_terminator_set_from_outside_is_tried_on_what_is_held() {
    let rows =
        [("x\r", Terminator::delimiter(&b"\r"[..], 100), frame("x")), ("four bytes", Terminator::exactly(4), frame("four"))];
    for (held, terminator, expected) in rows {
        let mut talk = Talk::cut_by(Terminator::crlf(100));
        say(&talk.peer, held);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, _| net.link(key).expect("open").unread() == held.len());
        talk.reactor.net().link(key).expect("it is open").set_terminator(terminator);
        talk.until(|journal| journal.calls.len() > 1); // the peer says nothing more
        assert_eq!(talk.calls()[0], expected);
    }
}
