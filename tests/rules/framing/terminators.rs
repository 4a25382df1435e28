//! Every kind of terminator, and what comes at the end of the stream.

use crate::common::{
    Call, Journal, Recorded, closed, cut_by, cut_from_outside, dialogue, eof, frame, lines, piece, quiet, recorder,
};
use mainspring::{Config, Context, Endian, Reason, Terminator, Width, testing::Scene};
use std::borrow::Cow;

#[test]
fn without_a_terminator_bytes_come_as_they_are() {
    let mut t = cut_by(|| Terminator::None);
    t.receives("ab\r\n").gets(&[piece("ab\r\n")]).holds(0);
    t.receives("c").peer_ends().gets(&[piece("c"), eof(""), closed(&Reason::Eof)]);
}

#[test]
fn a_line_ends_with_lf_or_crlf() {
    let mut t = cut_by(|| Terminator::line(9));
    t.receives("one\r\ntw").gets(&[frame("one")]).holds(2);
    t.receives("o\n\nth\rree\r\n").gets(&[frame("two"), frame(""), frame("th\rree")]).holds(0);
    t.receives("x\r").peer_ends().gets(&[eof("x\r"), closed(&Reason::Eof)]);
}

#[test]
fn crlf_takes_nothing_else() {
    let mut t = cut_by(|| Terminator::crlf(9));
    t.receives("a\nb\r").gets_nothing().holds(4);
    t.receives("\r\n\r\nc\n").gets(&[frame("a\nb\r"), frame("")]).holds(2);
    t.peer_ends().gets(&[eof("c\n"), closed(&Reason::Eof)]);
}

#[test]
fn a_delimiter_may_have_any_length() {
    let mut t = cut_by(|| Terminator::delimiter(&b"--END--"[..], 9));
    t.receives("a--EN").holds(5).receives("D----END--b--END").gets(&[frame("a"), frame("")]).holds(6);
    t.peer_ends().gets(&[eof("b--END"), closed(&Reason::Eof)]);

    let mut t = cut_by(|| Terminator::delimiter(vec![0], 9));
    t.receives("a\0\0b").gets(&[frame("a"), frame("")]).peer_ends().gets(&[eof("b"), closed(&Reason::Eof)]);
}

#[test]
fn a_frame_through_its_delimiter_ends_with_it() {
    let mut t = cut_by(|| Terminator::through(&b"\r\n\r\n"[..], 20));
    t.receives("GET /\r\nHost: a\r").gets_nothing().holds(15);
    t.receives("\n\r\n\r\n\r\nb").gets(&[frame("GET /\r\nHost: a\r\n\r\n"), frame("\r\n\r\n")]).holds(1);
    t.receives("\r\n\r").peer_ends().gets(&[eof("b\r\n\r"), closed(&Reason::Eof)]);
    for (delimiter, input, frames) in [("\n", "a\r\n\nb", ["a\r\n", "\n"]), ("\r\n", "a\n\r\n\r\r\nb", ["a\n\r\n", "\r\r\n"])] {
        let mut t = cut_by(move || Terminator::through(delimiter.as_bytes(), 9));
        t.receives(input).gets(&frames.map(frame)).holds(1);
    }
}

#[test]
fn no_delimiter_at_all_means_none() {
    let none: [fn() -> Terminator; 3] =
        [|| Terminator::delimiter(&b""[..], 9), || Terminator::through(&b""[..], 9), || Terminator::stream_until(&b""[..])];
    for terminator in none {
        cut_by(terminator).receives("abc").gets(&[piece("abc")]);
    }
}

#[test]
fn a_length_fires_once() {
    let mut t = cut_by(|| Terminator::exactly(4));
    t.receives("abc").gets_nothing().holds(3);
    t.receives("defghi").gets(&[frame("abcd"), piece("efghi")]);
    t.receives("jklm").peer_ends().gets(&[piece("jklm"), eof(""), closed(&Reason::Eof)]);

    cut_by(|| Terminator::exactly(4)).receives("abc").peer_ends().gets(&[eof("abc"), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_hands_over_its_pieces_before_it_is_complete() {
    let mut t = cut_by(|| Terminator::Stream(5));
    t.receives("ab").gets(&[piece("ab")]).holds(0);
    t.receives("cdefg").gets(&[piece("cde"), frame(""), piece("fg")]);

    cut_by(|| Terminator::Stream(5)).receives("ab").peer_ends().gets(&[piece("ab"), eof(""), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_until_holds_back_what_may_be_its_delimiter() {
    let mut t = cut_by(|| Terminator::stream_until(&b"\r\n.\r\n"[..]));
    t.receives("x\r\n.").gets(&[piece("x")]).holds(3);
    t.receives("y").gets(&[piece("\r\n.y")]).holds(0);
    t.receives("\r\n.\r\n\r\n.\r\nz\r\n.").gets(&[frame(""), frame(""), piece("z")]).holds(3);
    t.peer_ends().gets(&[eof("\r\n."), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_until_may_have_begun_before() {
    let seen = |seen| Terminator::StreamUntil { bytes: Cow::Borrowed(b"\r\n.\r\n"), seen };
    cut_by(move || seen(2)).receives(".").gets_nothing().holds(1).receives("\r\nx").gets(&[frame(""), piece("x")]);
    cut_by(move || seen(2)).receives(".").holds(1).receives(".").gets(&[piece("..")]);
    cut_by(move || seen(2)).receives(".\r").peer_ends().gets(&[eof(".\r"), closed(&Reason::Eof)]);
    // Of the first one only.
    cut_by(move || seen(2)).receives(".\r\n.\r\nx").gets(&[frame(""), piece(".\r\nx")]);
    // All of it cannot have been seen.
    cut_by(move || seen(99)).receives("\n").gets(&[frame("")]);
}

#[test]
fn the_unfinished_rest_of_what_has_a_length_comes_with_its_prefix() {
    let mut t = cut_by(|| Terminator::prefixed(Width::U16, Endian::Big, 9));
    t.receives(b"\x00\x02ab\x00").gets(&[frame("ab")]).holds(1);
    t.receives(b"\x03a").peer_ends().gets(&[eof(b"\x00\x03a"), closed(&Reason::Eof)]);

    let mut t = cut_by(|| Terminator::netstring(9));
    t.receives("2:ab,3:abc").gets(&[frame("ab")]).holds(5);
    t.peer_ends().gets(&[eof("3:abc"), closed(&Reason::Eof)]);
}

#[test]
fn a_length_of_nothing_fires_without_input_wherever_it_is_set() {
    for nothing in [|| Terminator::exactly(0), || Terminator::declared(0, 5), || Terminator::Stream(0)] {
        let mut t = cut_by(nothing);
        t.gets(&[frame("")]).gets_nothing();
        t.link(|link| link.set_terminator(nothing())).gets(&[frame("")]).gets_nothing();
        t.link(|link| link.pause()).link(|link| link.set_terminator(nothing())).gets_nothing();
        t.link(|link| link.resume()).gets(&[frame("")]).gets_nothing();
        t.receives("rest").gets(&[piece("rest")]);
    }
}

#[test]
fn a_length_of_nothing_fires_in_a_row_beyond_every_budget_and_then_stops() {
    let on = |ctx: &mut Context<'_, Journal>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Connected | Call::Frame(_)) && journal.calls.len() < 5000 {
            ctx.set_terminator(Terminator::exactly(0));
        }
        Ok(())
    };
    let mut scene = Scene::with_config(0, Journal::default(), Config::new().turn_frames(100));
    scene.net().listen("127.0.0.1:7", move || recorder(on)).expect("a simulated port is free");
    scene.dials("127.0.0.1:7");
    assert_eq!(scene.settles().state().calls.len(), 5000);
    assert!(scene.net().stats().turns >= 50, "not all in one turn");
}

#[test]
fn a_length_of_nothing_that_is_set_while_connecting_fires_when_connected() {
    let mut scene = Scene::new(0, Journal::default());
    scene.serves("10.0.0.1:80");
    let key = scene.net().connect("10.0.0.1:80", recorder(|_, _, _| Ok(())));
    scene.net().link(key).expect("connecting").set_terminator(Terminator::exactly(0));
    assert_eq!(scene.settles().state().of(key), [Call::Connected, frame("")]);
}

#[test]
fn any_cutting_of_the_same_bytes_gives_the_same_frames() {
    let text = b"one\r\n\ntwo\nthree\r\r\nfour";
    let frames = ["one", "", "two", "three\r"];
    for cut in 0..=text.len() {
        let mut t = dialogue(lines);
        t.receives(&text[..cut]).receives(&text[cut..]).peer_ends();
        assert_eq!(t.state().frames(), frames, "cut at {cut}");
        assert_eq!(t.calls().last(), Some(&eof("four")), "cut at {cut}");
    }
}

#[test]
fn at_end_of_stream_the_unfinished_tail_comes_with_eof_the_half_seen_terminator_included() {
    for (terminator, tail) in [
        (Terminator::crlf(99), "tail\r"),
        (Terminator::line(99), "tail\r"),
        (Terminator::exactly(99), "tail"),
        (Terminator::delimiter(&b"--end"[..], 99), "tail--en"),
        (Terminator::netstring(99), "9:tail"),
    ] {
        let mut t = dialogue(quiet);
        t.link(|link| link.set_terminator(terminator)).receives(tail).peer_ends().gets(&[eof(tail)]);
    }
}

#[test]
fn of_a_stream_until_a_delimiter_only_the_half_seen_one_is_the_tail() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_terminator(Terminator::stream_until(&b"--end"[..])));
    t.receives("body--en").peer_ends().gets(&[piece("body"), eof("--en")]);
}

#[test]
fn length_and_stream_fire_once_and_fall_back_to_none() {
    let cases: [(Terminator, &[u8], usize); 4] = [
        (Terminator::exactly(3), b"abcrest", 1),
        (Terminator::exactly(0), b"rest", 1),
        (Terminator::Stream(3), b"abcrest", 1),
        (Terminator::Stream(0), b"rest", 1),
    ];
    for (terminator, input, frames) in cases {
        let name = format!("{terminator:?}");
        let mut t = dialogue(quiet);
        t.link(|link| link.set_terminator(terminator)).receives(input);
        assert!(t.state().received().ends_with(b"rest"), "{name}");
        assert_eq!(t.state().frames().len(), frames, "{name}");
    }
}

#[test]
fn an_empty_delimiter_means_none() {
    for terminator in [Terminator::delimiter(&b""[..], 9), Terminator::stream_until(&b""[..])] {
        dialogue(quiet).link(|link| link.set_terminator(terminator)).receives("raw").gets(&[piece("raw")]);
    }
}

/// Flaw 1: The bytes of a half-seen terminator vanished at the end of the stream: `hello\r` and the end gave only `hello`.
#[test]
fn flaw_01_a_half_seen_terminator_is_handed_over_at_the_end() {
    let rows = [
        (Terminator::crlf(100), "hello\r", "", "hello\r"),
        (Terminator::line(100), "hello\r", "", "hello\r"),
        (Terminator::delimiter(&b"\r\n.\r\n"[..], 100), "body\r\n.\r", "", "body\r\n.\r"),
        (Terminator::stream_until(&b"\r\n.\r\n"[..]), "body\r\n.\r", "body", "\r\n.\r"),
        (Terminator::exactly(10), "hello", "", "hello"),
    ];
    for (terminator, stream, received, tail) in rows {
        let shown = format!("{terminator:?}");
        let mut t = cut_from_outside(terminator);
        t.receives(stream).peer_ends();
        assert_eq!(t.state().received(), received.as_bytes(), "{shown}");
        let calls = t.calls();
        assert_eq!(calls[calls.len() - 2..], [eof(tail), closed(&Reason::Eof)], "{shown}: {calls:?}");
    }
}

/// Flaw 2: A count of 0 never fired: after `Content-Length: 0` the next request was swallowed as a body.
#[test]
fn flaw_02_a_length_of_nothing_is_a_frame_of_nothing() {
    let ways: [fn() -> Terminator; 3] = [|| Terminator::exactly(0), || Terminator::declared(0, 100), || Terminator::Stream(0)];
    for body in ways {
        let mut t = dialogue(move |ctx, _, call| {
            match call {
                Call::Frame(line) if line == b"len 0" => ctx.set_terminator(body()),
                Call::Connected | Call::Frame(_) => ctx.set_terminator(Terminator::line(100)),
                _ => {}
            }
            Ok(())
        });
        let calls = t.receives("len 0\nGET /2\n").calls();
        assert_eq!(calls, [frame("len 0"), frame(""), frame("GET /2")], "{:?}", body());
    }
}

/// A bare LF that ended a mail let strangers smuggle in another (CVE-2023-51764 and its kin). Delimiters are exact; `line`,
/// which takes both, says so.
#[test]
fn a_bare_line_feed_does_not_end_what_crlf_ends() {
    let rows: [(Terminator, &str, &[&str]); 4] = [
        (Terminator::crlf(100), "a\nb\rc\r\n", &["a\nb\rc"]),
        (Terminator::crlf(100), "\n\r\n\r\r\n", &["\n", "\r"]),
        (Terminator::delimiter(&b"\r\n.\r\n"[..], 100), "mail\n.\n\r\n.\nmore\n.\r\n\r\n.\r\n", &["mail\n.\n\r\n.\nmore\n.\r\n"]),
        (Terminator::line(100), "a\nb\rc\r\n", &["a", "b\rc"]),
    ];
    for (terminator, stream, expected) in rows {
        let shown = format!("{terminator:?}");
        let mut t = cut_from_outside(terminator);
        t.receives(stream).holds(0);
        assert_eq!(t.state().frames(), expected, "{shown}");
    }
}
