//! Every kind of terminator, and what comes at the end of the stream.

use super::{Dialogue, eof, piece};
use crate::common::{
    Call, Journal, Nothing, PATIENCE, Talk, closed, dial, frame, guest, lines, listen, quiet, recorder, say, settle, start, until,
};
use mainspring::{Config, Context, Endian, Reactor, Reason, Terminator, Width};
use std::{
    borrow::Cow,
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

#[test]
fn without_a_terminator_bytes_come_as_they_are() {
    let mut talk = Dialogue::with(|| Terminator::None);
    talk.says("ab\r\n").hears(&[piece("ab\r\n")]).holds(0);
    talk.says("c").ends().hears(&[piece("c"), eof(""), closed(&Reason::Eof)]);
}

#[test]
fn a_line_ends_with_lf_or_crlf() {
    let mut talk = Dialogue::with(|| Terminator::line(9));
    talk.says("one\r\ntw").hears(&[frame("one")]).holds(2);
    talk.says("o\n\nth\rree\r\n").hears(&[frame("two"), frame(""), frame("th\rree")]).holds(0);
    talk.says("x\r").ends().hears(&[eof("x\r"), closed(&Reason::Eof)]);
}

#[test]
fn crlf_takes_nothing_else() {
    let mut talk = Dialogue::with(|| Terminator::crlf(9));
    talk.says("a\nb\r").hears_nothing().holds(4);
    talk.says("\r\n\r\nc\n").hears(&[frame("a\nb\r"), frame("")]).holds(2);
    talk.ends().hears(&[eof("c\n"), closed(&Reason::Eof)]);
}

#[test]
fn a_delimiter_may_have_any_length() {
    let mut talk = Dialogue::with(|| Terminator::delimiter(&b"--END--"[..], 9));
    talk.says("a--EN").holds(5).says("D----END--b--END").hears(&[frame("a"), frame("")]).holds(6);
    talk.ends().hears(&[eof("b--END"), closed(&Reason::Eof)]);

    let mut talk = Dialogue::with(|| Terminator::delimiter(vec![0], 9));
    talk.says("a\0\0b").hears(&[frame("a"), frame("")]).ends().hears(&[eof("b"), closed(&Reason::Eof)]);
}

#[test]
fn no_delimiter_at_all_means_none() {
    for terminator in [|| Terminator::delimiter(&b""[..], 9), || Terminator::stream_until(&b""[..])] {
        Dialogue::with(terminator).says("abc").hears(&[piece("abc")]);
    }
}

#[test]
fn a_length_fires_once() {
    let mut talk = Dialogue::with(|| Terminator::exactly(4));
    talk.says("abc").hears_nothing().holds(3);
    talk.says("defghi").hears(&[frame("abcd"), piece("efghi")]);
    talk.says("jklm").ends().hears(&[piece("jklm"), eof(""), closed(&Reason::Eof)]);

    Dialogue::with(|| Terminator::exactly(4)).says("abc").ends().hears(&[eof("abc"), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_hands_over_its_pieces_before_it_is_complete() {
    let mut talk = Dialogue::with(|| Terminator::Stream(5));
    talk.says("ab").hears(&[piece("ab")]).holds(0);
    talk.says("cdefg").hears(&[piece("cde"), frame(""), piece("fg")]);

    Dialogue::with(|| Terminator::Stream(5)).says("ab").ends().hears(&[piece("ab"), eof(""), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_until_holds_back_what_may_be_its_delimiter() {
    let mut talk = Dialogue::with(|| Terminator::stream_until(&b"\r\n.\r\n"[..]));
    talk.says("x\r\n.").hears(&[piece("x")]).holds(3);
    talk.says("y").hears(&[piece("\r\n.y")]).holds(0);
    talk.says("\r\n.\r\n\r\n.\r\nz\r\n.").hears(&[frame(""), frame(""), piece("z")]).holds(3);
    talk.ends().hears(&[eof("\r\n."), closed(&Reason::Eof)]);
}

#[test]
fn a_stream_until_may_have_begun_before() {
    let seen = |seen| Terminator::StreamUntil { bytes: Cow::Borrowed(b"\r\n.\r\n"), seen };
    Dialogue::with(move || seen(2)).says(".").hears_nothing().holds(1).says("\r\nx").hears(&[frame(""), piece("x")]);
    Dialogue::with(move || seen(2)).says(".").holds(1).says(".").hears(&[piece("..")]);
    Dialogue::with(move || seen(2)).says(".\r").ends().hears(&[eof(".\r"), closed(&Reason::Eof)]);
    // Of the first one only.
    Dialogue::with(move || seen(2)).says(".\r\n.\r\nx").hears(&[frame(""), piece(".\r\nx")]);
    // All of it cannot have been seen.
    Dialogue::with(move || seen(99)).says("\n").hears(&[frame("")]);
}

#[test]
fn the_unfinished_rest_of_what_has_a_length_comes_with_its_prefix() {
    let mut talk = Dialogue::with(|| Terminator::prefixed(Width::U16, Endian::Big, 9));
    talk.says(b"\x00\x02ab\x00").hears(&[frame("ab")]).holds(1);
    talk.says(b"\x03a").ends().hears(&[eof(b"\x00\x03a"), closed(&Reason::Eof)]);

    let mut talk = Dialogue::with(|| Terminator::netstring(9));
    talk.says("2:ab,3:abc").hears(&[frame("ab")]).holds(5);
    talk.ends().hears(&[eof("3:abc"), closed(&Reason::Eof)]);
}

#[test]
fn a_length_of_nothing_fires_without_input_wherever_it_is_set() {
    for nothing in [|| Terminator::exactly(0), || Terminator::declared(0, 5), || Terminator::Stream(0)] {
        let mut talk = Dialogue::with(nothing);
        talk.hears(&[frame("")]).hears_nothing();
        talk.link(|link| link.set_terminator(nothing())).hears(&[frame("")]).hears_nothing();
        talk.link(|link| link.pause()).link(|link| link.set_terminator(nothing())).hears_nothing();
        talk.link(|link| link.resume()).hears(&[frame("")]).hears_nothing();
        talk.says("rest").hears(&[piece("rest")]);
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
    let mut reactor = Reactor::with_config(Config::new().turn_frames(100)).expect("a selector");
    let (mut journal, (_, addr)) = (Journal::default(), listen(&mut reactor, move || recorder(on)));
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 5000);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.calls.len(), 5000);
}

#[test]
fn a_length_of_nothing_that_is_set_while_connecting_fires_when_connected() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, || Nothing);
    let key = reactor.net().connect(addr, recorder(|_, _, _| Ok(())));
    reactor.net().link(key).expect("connecting").set_terminator(Terminator::exactly(0));
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
    assert_eq!(journal.of(key), [Call::Connected, frame("")]);
}

#[test]
fn any_cutting_of_the_same_bytes_gives_the_same_frames() {
    let text = b"one\r\n\ntwo\nthree\r\r\nfour";
    let frames = ["one", "", "two", "three\r"];
    for cut in 0..=text.len() {
        let (mut reactor, mut journal) = start();
        let (_, mut peer) = guest(&mut reactor, &mut journal, lines);
        say(&peer, &text[..cut]);
        reactor.turn(&mut journal, Duration::from_millis(1)).expect("the selector works");
        say(&peer, &text[cut..]);
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"four".to_vec())));
        assert_eq!(journal.frames(), frames, "cut at {cut}");
        reactor.shutdown(&mut journal);
        let _ = peer.read(&mut [0]);
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
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, tail);
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(tail.into())));
        assert_eq!(journal.of(key).len(), 2);
    }
}

#[test]
fn of_a_stream_until_a_delimiter_only_the_half_seen_one_is_the_tail() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_terminator(Terminator::stream_until(&b"--end"[..]));
    say(&peer, "body--en");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"--en".to_vec())));
    assert_eq!(journal.received(), b"body");
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
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        settle(&mut reactor, &mut journal);
        say(&peer, input);
        until(&mut reactor, &mut journal, |journal| journal.received().ends_with(b"rest"));
        assert_eq!(journal.frames().len(), frames, "{name}");
    }
}

#[test]
fn an_empty_delimiter_means_none() {
    for terminator in [Terminator::delimiter(&b""[..], 9), Terminator::stream_until(&b""[..])] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, "raw");
        until(&mut reactor, &mut journal, |journal| journal.received() == b"raw");
        assert!(journal.frames().is_empty());
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
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.peer.shutdown(Shutdown::Write).expect("connected");
        talk.until(|journal| journal.closings() == 1);
        assert_eq!(talk.journal.received(), received.as_bytes(), "{shown}");
        assert!(talk.journal.has(&Call::Eof(tail.into())), "{shown}: {:?}", talk.calls());
    }
}

/// Flaw 2: A count of 0 never fired: after `Content-Length: 0` the next request was swallowed as a body.
#[test]
fn flaw_02_a_length_of_nothing_is_a_frame_of_nothing() {
    let ways: [fn() -> Terminator; 3] = [|| Terminator::exactly(0), || Terminator::declared(0, 100), || Terminator::Stream(0)];
    for body in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Frame(line) if line == b"len 0" => ctx.set_terminator(body()),
                Call::Connected | Call::Frame(_) => ctx.set_terminator(Terminator::line(100)),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "len 0\nGET /2\n");
        talk.until(|journal| journal.calls.len() == 4);
        assert_eq!(talk.calls(), [frame("len 0"), frame(""), frame("GET /2")], "{:?}", body());
    }
}

/// Flaw 15: The buffer was sliced anew for each frame and each read, and searched from its beginning: quadratic work.
///
/// A line of 4 MiB, 64 bytes a turn. Searched from its beginning each time that would be 128 GiB, far beyond the test's
/// patience; and so would be copying.
#[cfg(unix)]
#[test]
fn flaw_15_a_long_line_in_small_pieces_is_searched_once() {
    const LINE: usize = 4 << 20;
    let dir = std::env::temp_dir().join(format!("mainspring-flaws-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a place for temporary files");
    let path = dir.join("socket");
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    reactor
        .net()
        .listen(path.as_path(), || {
            recorder(|ctx, _, call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::crlf(LINE));
                }
                Ok(())
            })
        })
        .expect("a new directory");
    let mut peer = std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
    std::fs::remove_dir_all(&dir).expect("they have met");
    let began = Instant::now();
    for _ in 0..LINE / 64 {
        assert!(began.elapsed() < PATIENCE, "the work grows with the square");
        // Bare halves of the delimiter everywhere: none of them may make it begin again.
        peer.write_all(&[b"x".repeat(62).as_slice(), b"\n\r"].concat()).expect("there is room");
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    peer.write_all(b"\r\n").expect("there is room");
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
    assert!(matches!(&journal.calls[1].1, Call::Frame(line) if line.len() == LINE));
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
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.until(|journal| journal.frames().len() == expected.len());
        talk.settle();
        assert_eq!(talk.journal.frames(), expected, "{shown}");
        assert_eq!(talk.unread(), 0, "{shown}");
    }
}
