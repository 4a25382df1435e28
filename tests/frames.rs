//! Where frames end, through the whole loop: every kind of terminator, what changing one does to bytes that are already
//! here, what one end writes and the other reads. That no cut matters is the subject of cuts.rs.

mod common;

use common::{
    Call, Journal, Nothing, On, PATIENCE, Recorder, closed, dial, frame, listen, read_exactly, recorder, settle, until, until_net,
};
use mainspring::{
    Config, Context, Endian, Fault, Framer, Key, Limit, Link, Outcome, Protocol, Reactor, Reason, Step, Terminator, Width,
};
use std::{
    borrow::Cow,
    cell::Cell,
    io::Write,
    net::{Shutdown, TcpStream},
    rc::Rc,
    str,
    time::{Duration, Instant},
};

// ------------------------------------------------------------------------------------------------------- a dialogue

/// A peer and the connection that was accepted from it.
struct Dialogue {
    reactor: Reactor<Journal>,
    journal: Journal,
    peer: TcpStream,
    key: Key,
}

impl Dialogue {
    /// With this terminator from the start. `exceeded` goes on, the peer's end is the end.
    fn with(terminator: impl Fn() -> Terminator + Clone + 'static) -> Self {
        Self::answering(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    }

    fn answering<F>(on: F) -> Self
    where
        F: Fn(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + Clone + 'static,
    {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let (_, addr) = listen(&mut reactor, move || recorder(on.clone()));
        let peer = dial(addr);
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        assert_eq!(journal.calls[0].1, Call::Connected);
        let (key, _) = journal.calls.remove(0);
        Self { reactor, journal, peer, key }
    }

    fn says(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer.write_all(bytes.as_ref()).expect("the reactor takes it");
        self
    }

    fn ends(&mut self) -> &mut Self {
        self.peer.shutdown(Shutdown::Write).expect("connected");
        self
    }

    /// What the connection is called with, from what it heard last. Pieces are joined.
    #[track_caller]
    fn hears(&mut self, expected: &[Call]) -> &mut Self {
        let began = Instant::now();
        while joined(&self.journal) != expected && began.elapsed() < PATIENCE / 4 {
            self.reactor.turn(&mut self.journal, Duration::from_millis(5)).expect("the selector works");
        }
        assert_eq!(joined(&self.journal), expected);
        self.journal.calls.clear();
        self
    }

    #[track_caller]
    fn hears_nothing(&mut self) -> &mut Self {
        settle(&mut self.reactor, &mut self.journal);
        self.hears(&[])
    }

    /// So many bytes were received and not delivered.
    #[track_caller]
    fn holds(&mut self, bytes: usize) -> &mut Self {
        let key = self.key;
        until_net(&mut self.reactor, &mut self.journal, |net, _| net.link(key).is_some_and(|link| link.unread() == bytes));
        self
    }

    /// From outside: not in a callback.
    #[track_caller]
    fn link(&mut self, with: impl FnOnce(&mut Link<'_>)) -> &mut Self {
        with(&mut self.reactor.net().link(self.key).expect("it is open"));
        self
    }
}

fn joined(journal: &Journal) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for (_, call) in &journal.calls {
        match (calls.last_mut(), call) {
            (Some(Call::Received(pieces)), Call::Received(piece)) => pieces.extend_from_slice(piece),
            _ => calls.push(call.clone()),
        }
    }
    calls
}

fn piece(bytes: impl AsRef<[u8]>) -> Call {
    Call::Received(bytes.as_ref().to_vec())
}

fn eof(tail: impl AsRef<[u8]>) -> Call {
    Call::Eof(tail.as_ref().to_vec())
}

fn failed(why: &str) -> Call {
    closed(&Reason::Failed(why.into()))
}

const TOO_LONG: Call = Call::Exceeded(Limit::FrameBytes);

// ------------------------------------------------------------------------------------------------------- every kind

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

// ------------------------------------------------------------------------------------------------------------ limits

#[test]
fn a_frame_at_its_limit_passes_and_one_byte_more_is_skipped() {
    let mut talk = Dialogue::with(|| Terminator::line(3));
    talk.says("abc\r\nabcd\r\nx\n").hears(&[frame("abc"), TOO_LONG, frame("x")]);
    // It is refused before its end comes, once, and memory stays flat.
    talk.says("abcd").hears(&[TOO_LONG]).holds(0).says("efgh").hears_nothing().holds(0);
    talk.says("\ny\nabcd").hears(&[frame("y"), TOO_LONG]);
    // The rest of a refused frame is no tail.
    talk.says("e\r").ends().hears(&[eof(""), closed(&Reason::Eof)]);

    let mut talk = Dialogue::with(|| Terminator::delimiter(&b"--"[..], 3));
    talk.says("abc--abcd--x-").hears(&[frame("abc"), TOO_LONG]).says("-").hears(&[frame("x")]);
    talk.says("abcd-").hears(&[TOO_LONG]).ends().hears(&[eof(""), closed(&Reason::Eof)]);
}

#[test]
fn a_limit_that_is_not_answered_ends_the_connection() {
    let on = |terminator: fn() -> Terminator| {
        move |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| match call {
            Call::Connected => {
                ctx.set_terminator(terminator());
                Ok(())
            }
            Call::Exceeded(limit) => Err((*limit).into()),
            _ => Ok(()),
        }
    };
    let over = closed(&Reason::Limit(Limit::FrameBytes));
    let cases: [(fn() -> Terminator, &[u8]); 6] = [
        (|| Terminator::line(3), b"abcd"),
        (|| Terminator::crlf(3), b"abcd\r\nx\r\n"),
        (|| Terminator::prefixed(Width::U8, Endian::Big, 3), b"\x04"),
        (|| Terminator::prefixed(Width::U64, Endian::Little, 3), b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (|| Terminator::netstring(3), b"4"),
        (|| Terminator::custom(Needs(4), 3), b"a"),
    ];
    for (terminator, bytes) in cases {
        Dialogue::answering(on(terminator)).says(bytes).hears(&[TOO_LONG, over.clone()]);
    }
}

#[test]
fn a_declared_length_over_its_limit_is_refused_before_it_comes() {
    let mut talk = Dialogue::with(|| Terminator::declared(6, 5));
    talk.hears(&[TOO_LONG]);
    talk.says("123456rest").hears(&[piece("rest")]);
    Dialogue::with(|| Terminator::declared(5, 5)).says("12345").hears(&[frame("12345")]);
}

#[test]
fn the_end_of_a_custom_frame_is_not_known_so_that_going_on_closes_politely() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::prefixed(Width::U8, Endian::Big, 3)),
            Call::Exceeded(_) => ctx.send("too long"),
            _ => {}
        }
        Ok(())
    });
    talk.says(b"\x03abc\x04").hears(&[frame("abc"), TOO_LONG, closed(&Reason::Finish)]);
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 8), b"too long");
}

// -------------------------------------------------------------------------------- changing the terminator, in callbacks

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

/// More than any socket takes at once.
const FLOOD: usize = 16 << 20;

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

// ------------------------------------------------------------------------------ changing the terminator, from outside

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

// --------------------------------------------------------------------------------------------------- frames of nothing

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

// -------------------------------------------------------------------------------- what one end writes, the other reads

/// Both ends in one reactor: the frames that came of what `send` sent.
fn heard_by_a_twin(terminator: fn() -> Terminator, send: impl FnOnce(&mut Link<'_>)) -> Vec<Vec<u8>> {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, move || {
        recorder(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    });
    let sender = reactor.net().connect(addr, recorder(|_, _, _| Ok(())));
    let mut net = reactor.net();
    send(&mut net.link(sender).expect("connecting"));
    net.close(sender);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    let calls = journal.calls.iter().filter(|(key, _)| *key != sender).map(|(_, call)| call);
    let frames = calls.filter_map(|call| match call {
        Call::Frame(frame) => Some(frame.clone()),
        Call::Connected | Call::Closed(_) => None,
        Call::Eof(tail) if tail.is_empty() => None,
        other => panic!("{other:?}"),
    });
    frames.collect()
}

/// Without printing them: they are long.
#[track_caller]
fn assert_same(heard: &[Vec<u8>], sent: &[Vec<u8>]) {
    let sizes = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(heard), sizes(sent));
    assert!(heard == sent, "the bytes differ");
}

fn of_sizes(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().map(|&size| (0..size).map(|at| at as u8).collect()).collect()
}

#[test]
fn what_send_prefixed_writes_the_twin_terminator_reads() {
    fn check<const WIDTH: usize, const ORDER: usize>(sizes: &[usize]) {
        const WIDTHS: [Width; 4] = [Width::U8, Width::U16, Width::U32, Width::U64];
        const ORDERS: [Endian; 2] = [Endian::Big, Endian::Little];
        let frames = of_sizes(sizes);
        let heard = heard_by_a_twin(
            || Terminator::prefixed(WIDTHS[WIDTH], ORDERS[ORDER], 70_000),
            |link| {
                for frame in &frames {
                    assert!(link.send_prefixed(WIDTHS[WIDTH], ORDERS[ORDER], frame));
                }
            },
        );
        assert_same(&heard, &frames);
    }
    check::<0, 0>(&[0, 1, 255, 0]);
    check::<0, 1>(&[0, 1, 255, 0]);
    check::<1, 0>(&[0, 1, 255, 256, 65_535, 3]);
    check::<1, 1>(&[0, 1, 255, 256, 65_535, 3]);
    check::<2, 0>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<2, 1>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<3, 0>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<3, 1>(&[0, 1, 256, 65_536, 70_000, 3]);
}

#[test]
fn what_send_netstring_writes_the_twin_terminator_reads() {
    let frames = of_sizes(&[0, 1, 9, 10, 99, 100, 70_000, 0]);
    let heard = heard_by_a_twin(
        || Terminator::netstring(70_000),
        |link| {
            for frame in &frames {
                assert!(link.send_netstring(frame));
            }
        },
    );
    assert_same(&heard, &frames);
}

#[test]
fn a_frame_too_long_for_its_prefix_is_an_overflow() {
    for (width, bytes) in [(Width::U8, 256), (Width::U16, 65_536)] {
        let mut talk = Dialogue::with(|| Terminator::None);
        talk.link(|link| {
            assert!(!link.send_prefixed(width, Endian::Big, vec![0; bytes]));
            assert!(!link.send_prefixed(width, Endian::Big, "x"), "it has begun to end");
            assert!(!link.send_netstring("x"), "it has begun to end");
        });
        talk.hears(&[closed(&Reason::Overflow)]);
    }
}

#[test]
fn a_frame_too_long_for_its_prefix_leaves_no_half_frame() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.send_prefixed(Width::U8, Endian::Big, "whole");
            ctx.send_prefixed(Width::U8, Endian::Big, [0; 256]);
        }
        Ok(())
    });
    talk.says("go").hears(&[piece("go"), closed(&Reason::Overflow)]);
    let got = common::read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert!(got.is_empty() || got == b"\x05whole", "{got:?}");
}

// ----------------------------------------------------------------------------------------------------- custom framers

/// Asks for so many bytes at once.
struct Needs(usize);

impl Framer for Needs {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(if input.len() < self.0 { Step::Need(self.0) } else { Step::Frame { bytes: 0..self.0, consumed: self.0 } })
    }
}

/// Always says the same.
struct Says(fn(&[u8]) -> Result<Step, Fault>);

impl Framer for Says {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        (self.0)(input)
    }
}

/// A length, a mask, and so many bytes, each XORed with the mask. Asked too early, it would unmask bytes twice.
struct Masked {
    asked_for: usize,
}

impl Framer for Masked {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        assert!(input.len() >= self.asked_for, "asked with {} of {} bytes", input.len(), self.asked_for);
        let end = if let [length, _, ..] = *input { 2 + usize::from(length) } else { 2 };
        if input.len() < end {
            self.asked_for = end;
            return Ok(Step::Need(end));
        }
        self.asked_for = 1;
        let (head, body) = input[..end].split_at_mut(2);
        body.iter_mut().for_each(|byte| *byte ^= head[1]);
        Ok(Step::Frame { bytes: 2..end, consumed: end })
    }
}

#[test]
fn a_framer_may_decode_in_place() {
    let mut talk = Dialogue::with(|| Terminator::custom(Masked { asked_for: 1 }, 99));
    talk.says(b"\x03\x20a").holds(3).says("b").holds(4).hears_nothing();
    talk.says(b"c\x02\x01bc\x00\x00\x01").hears(&[frame("ABC"), frame("cb"), frame("")]).holds(1);
    talk.says(b"\xff").hears_nothing().says(b"\x00").hears(&[frame(b"\xff")]);
}

#[test]
fn a_framer_may_leave_out_what_stands_around_the_frame() {
    let mut talk = Dialogue::with(|| {
        Terminator::custom(
            Says(|input| {
                Ok(match input.iter().position(|&byte| byte == b'>') {
                    None => Step::Need(input.len() + 1),
                    Some(end) => Step::Frame { bytes: 1..end, consumed: end + 1 },
                })
            }),
            9,
        )
    });
    talk.says("<a><").hears(&[frame("a")]).says("bc><>").hears(&[frame("bc"), frame("")]);
}

#[test]
fn pieces_of_a_framer_come_as_they_come_and_never_empty() {
    // `+` is skipped: an empty piece.
    let terminator = || {
        Terminator::custom(
            Says(|input| {
                Ok(match input[0] {
                    b'+' => Step::Piece { bytes: 0..0, consumed: 1 },
                    b'.' => Step::Frame { bytes: 0..0, consumed: 1 },
                    _ => Step::Piece { bytes: 0..1, consumed: 1 },
                })
            }),
            9,
        )
    };
    let mut talk = Dialogue::with(terminator);
    talk.says("a+").hears(&[piece("a")]).holds(0).hears_nothing();
    talk.says("+b+c.").hears(&[piece("bc"), frame("")]);
    let mut talk = Dialogue::with(terminator);
    talk.says("++.").hears(&[frame("")]);
}

#[test]
fn a_framer_that_fails_ends_the_connection_with_its_words() {
    let mut talk = Dialogue::with(|| {
        Terminator::custom(
            Says(|input| match input[0] {
                b'!' => Err("no such thing".into()),
                _ => Ok(Step::Frame { bytes: 0..1, consumed: 1 }),
            }),
            9,
        )
    });
    talk.says("ab!c").hears(&[frame("a"), frame("b"), failed("no such thing")]);
    Dialogue::with(|| Terminator::netstring(9)).says("1:a;").hears(&[failed("netstring: `;` where the comma should be")]);
}

#[test]
fn a_framer_without_progress_or_beyond_its_input_fails() {
    #[expect(clippy::reversed_empty_ranges, reason = "a framer may say anything")]
    let steps: [fn(&[u8]) -> Result<Step, Fault>; 7] = [
        |_| Ok(Step::Frame { bytes: 0..0, consumed: 0 }),
        |_| Ok(Step::Piece { bytes: 0..1, consumed: 0 }),
        |input| Ok(Step::Need(input.len())),
        |_| Ok(Step::Need(0)),
        |input| Ok(Step::Frame { bytes: 0..input.len() + 1, consumed: 1 }),
        |input| Ok(Step::Piece { bytes: 0..1, consumed: input.len() + 1 }),
        |_| Ok(Step::Frame { bytes: 2..1, consumed: 1 }),
    ];
    for (at, step) in steps.into_iter().enumerate() {
        let mut talk = Dialogue::with(move || Terminator::custom(Says(step), 9));
        talk.says("abcd");
        until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
        let calls = joined(&talk.journal);
        assert!(matches!(&calls[..], [Call::Closed(why)] if why.starts_with("failed: ")), "step {at}: {calls:?}");
    }
}

#[test]
fn a_framer_that_panics_ends_its_own_connection_only() {
    let on = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(
                Says(|input| match input[0] {
                    b'!' => panic!("a framer's panic"),
                    _ => Ok(Step::Frame { bytes: 0..1, consumed: 1 }),
                }),
                9,
            )),
            Call::Frame(frame) => ctx.send(frame),
            _ => {}
        }
        Ok(())
    };
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, move || recorder(on));
    let (mut bad, mut good) = (dial(addr), dial(addr));
    bad.write_all(b"a!b").expect("it reads");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut bad, 1), b"a");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert!(journal.has(&closed(&Reason::Panicked("a framer's panic".into()))), "{journal:?}");
    assert_eq!(journal.frames(), ["a"]);
    good.write_all(b"c").expect("it reads");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut good, 1), b"c");
}

#[test]
fn a_framer_that_is_replaced_is_dropped_and_what_it_left_is_cut_anew() {
    struct Once {
        _alive: Rc<()>,
    }
    impl Framer for Once {
        fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
            Ok(Step::Frame { bytes: 0..1, consumed: 1 })
        }
    }
    let alive = Rc::new(());
    let theirs = Rc::clone(&alive);
    let mut talk = Dialogue::answering(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(Once { _alive: Rc::clone(&theirs) }, 9)),
            Call::Frame(_) => ctx.set_terminator(Terminator::line(9)),
            _ => {}
        }
        Ok(())
    });
    let unused = Rc::strong_count(&alive);
    talk.says("abc\nd\n").hears(&[frame("a"), frame("bc"), frame("d")]);
    assert_eq!(Rc::strong_count(&alive), unused - 1);
}

#[test]
fn a_framer_is_never_shown_more_than_its_limit() {
    struct Watching(Rc<Cell<usize>>);
    impl Framer for Watching {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            self.0.set(self.0.get().max(input.len()));
            Ok(Step::Piece { bytes: 0..1, consumed: 1 })
        }
    }
    let most = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&most);
    let mut talk = Dialogue::with(move || Terminator::custom(Watching(Rc::clone(&theirs)), 5));
    talk.says([b'-'; 3000]).hears(&[piece([b'-'; 3000])]);
    assert!((1..=5).contains(&most.get()), "{}", most.get());
}

// ------------------------------------------------------------------------------------------------------------ memory

/// The most address space that the process ever had, in bytes: reserved memory that nobody touched counts, too.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn address_space_max() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// The other tests of this file run meanwhile: half a declared frame is more than all of them take.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn nothing_is_allocated_for_a_length_before_its_bytes_come() {
    const GIB: usize = 1 << 30;
    let declared: [(fn() -> Terminator, &[u8]); 5] = [
        (|| Terminator::declared(GIB, GIB), b""),
        (|| Terminator::exactly(GIB), b""),
        (|| Terminator::prefixed(Width::U32, Endian::Big, GIB), b"\x40\x00\x00\x00"),
        (|| Terminator::netstring(GIB), b"1073741824:"),
        (|| Terminator::custom(Needs(GIB), GIB), b""),
    ];
    for (terminator, prefix) in declared {
        let before = address_space_max();
        let mut talk = Dialogue::with(terminator);
        talk.says([prefix, b"0123456789"].concat()).holds(prefix.len() + 10).hears_nothing();
        let grown = address_space_max() - before;
        assert!(grown < GIB / 2, "{grown} bytes more for {}", prefix.escape_ascii());
    }
}
