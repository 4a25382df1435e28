//! What a callback puts back of what it was given is unread again.

use super::Says;
use crate::common::{Call, Ctx, Journal, Recorded, closed, dialogue, eof, frame, piece, recorder};
use mainspring::{
    Context, Outcome, Protocol, Reason, Step, Terminator,
    testing::{Transcript, every_cut},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Answers each line.
struct Lines;

impl<S> Protocol<S> for Lines {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(99));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        ctx.send([b"line ", line, b"\n"].concat());
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, tail: &[u8]) -> Outcome {
        ctx.send([b"tail ", tail].concat());
        ctx.close();
        Ok(())
    }
}

/// Answers each block of two bytes after the first byte, which says that there are such.
struct Blocks;

impl<S> Protocol<S> for Blocks {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::exactly(1));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, block: &[u8]) -> Outcome {
        ctx.send([b"block ", block, b"\n"].concat());
        ctx.set_terminator(Terminator::exactly(2));
        Ok(())
    }
}

/// One port for both: the first byte says which.
struct Sniffer(fn() -> Terminator);

impl Sniffer {
    fn becomes<S>(ctx: &mut Context<'_, S>, bytes: &[u8]) -> Outcome {
        ctx.put_back(bytes.len());
        match bytes[0] {
            0x16 => ctx.upgrade(Blocks),
            _ => ctx.upgrade(Lines),
        }
        Ok(())
    }
}

impl<S> Protocol<S> for Sniffer {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator((self.0)());
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        Self::becomes(ctx, bytes)
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        Self::becomes(ctx, bytes)
    }
}

#[test]
fn a_successor_gets_what_was_put_back_however_it_was_cut() {
    let ways: [fn() -> Terminator; 3] = [|| Terminator::exactly(1), || Terminator::None, || Terminator::Stream(1000)];
    for terminator in ways {
        for text in [&b"\x16abcdefg"[..], b"GET /\r\n\r\nrest\n", b"x", b"\n"] {
            every_cut::<_, ()>(text, || Sniffer(terminator));
        }
    }
    let mut t = Transcript::<_, ()>::new(Sniffer(|| Terminator::exactly(1)));
    t.receives("GET /\r\nmo").sends("line GET /\n").receives("re\n").sends("line more\n");
    let mut t = Transcript::<_, ()>::new(Sniffer(|| Terminator::None));
    t.receives("tail").peer_ends().sends("tail tail").closes(Reason::is_clean);
}

/// Lines; from one that begins with a digit, that many bytes from its second byte on are a block.
fn lines_and_blocks(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(99)),
        Call::Frame(line) if line.first().is_some_and(u8::is_ascii_digit) && line.len() > 1 => {
            ctx.put_back(line.len() - 1);
            ctx.set_terminator(Terminator::exactly(usize::from(line[0] - b'0')));
        }
        Call::Frame(_) => ctx.set_terminator(Terminator::line(99)),
        Call::Eof(_) => ctx.close(),
        _ => {}
    }
    Ok(())
}

#[test]
fn the_next_terminator_cuts_what_was_put_back_and_the_delimiter_behind_it() {
    let text = b"hello\r\n9ab\r\ncdefgXY\r\n2ab\n1ab\n\n";
    let whole = [
        frame("hello"),
        frame("9ab"),
        frame("ab\r\ncdefg"),
        frame("XY"),
        frame("2ab"),
        frame("ab"),
        frame(""),
        frame("1ab"),
        frame("a"),
        frame("b"),
        frame(""),
    ];
    for cut in 0..=text.len() {
        let mut t = dialogue(lines_and_blocks);
        t.receives(&text[..cut]).receives(&text[cut..]).gets(&whole).holds(0);
    }
    let mut t = dialogue(lines_and_blocks);
    t.receives_bytewise(text).gets(&whole).holds(0);
}

#[test]
fn of_a_delimiter_a_framer_and_a_through_the_last_bytes_come_back_with_what_stands_behind_them() {
    let bracket: fn(&[u8]) -> Result<Step, mainspring::Fault> = |input| {
        Ok(match input.iter().position(|&byte| byte == b'>') {
            None => Step::Need(input.len() + 1),
            Some(end) => Step::Frame { bytes: 1..end, consumed: end + 1 },
        })
    };
    let rows: [(Box<dyn Fn() -> Terminator>, &str, &str, &str); 4] = [
        (Box::new(|| Terminator::delimiter(&b"--"[..], 9)), "abc--de", "abc", "bc--de"),
        (Box::new(|| Terminator::through(&b"--"[..], 9)), "abc--de", "abc--", "--de"),
        (Box::new(move || Terminator::custom(Says(bracket), 9)), "<abc>de", "abc", "bc>de"),
        (Box::new(|| Terminator::exactly(3)), "abcde", "abc", "bcde"),
    ];
    for (terminator, input, first, rest) in rows {
        let mut t = dialogue(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Frame(_) => {
                    ctx.set_terminator(Terminator::None);
                    ctx.put_back(1);
                    ctx.put_back(1); // this many more
                }
                _ => {}
            }
            Ok(())
        });
        t.receives(input).gets(&[frame(first), piece(rest)]).holds(0);
    }
}

#[test]
fn the_next_terminator_finds_a_frame_in_what_was_put_back_alone() {
    let mut t = dialogue(lines_and_blocks);
    t.receives("2ab\n").gets(&[frame("2ab"), frame("ab"), frame("")]).holds(0);
    t.receives("3ab\n").gets(&[frame("3ab"), frame("ab\n")]).holds(0);
    t.receives("9ab\n").gets(&[frame("9ab")]).holds(3).peer_ends().gets(&[eof("ab\n"), closed(&Reason::Eof)]);
}

/// Pairs of letters, of what comes as it comes: what is half is put back.
fn pairs(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    if let Call::Received(bytes) = call {
        for pair in bytes.chunks_exact(2) {
            journal.note(ctx.key, Call::Frame(pair.to_vec()));
        }
        ctx.put_back(bytes.len() % 2);
    }
    Ok(())
}

#[test]
fn what_is_put_back_under_the_same_terminator_waits_for_more() {
    let mut t = dialogue(pairs);
    t.receives("abc").gets(&[piece("abc"), frame("ab")]).holds(1).gets_nothing();
    t.receives("d").gets(&[piece("cd"), frame("cd")]).holds(0);
    t.receives("ef").gets(&[piece("ef"), frame("ef")]).receives("g").gets(&[piece("g")]).holds(1);
    assert_eq!(t.scene().net().stats().closed.total(), 0);
    t.peer_ends().gets(&[eof("g")]);
}

#[test]
fn the_loop_does_not_spin_over_what_was_put_back() {
    let mut t = dialogue(pairs);
    t.receives("a").gets(&[piece("a")]);
    let turns = t.scene().net().stats().turns;
    t.passes(Duration::from_secs(10)).gets_nothing();
    assert!(t.scene().net().stats().turns - turns < 10);
}

#[test]
fn what_is_put_back_and_paused_comes_again_when_reading_goes_on() {
    let mut is_first = true;
    let mut t = dialogue(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(line) if std::mem::take(&mut is_first) => {
                ctx.put_back(line.len());
                ctx.pause();
            }
            _ => {}
        }
        Ok(())
    });
    t.receives("one\ntwo\n").gets(&[frame("one")]).holds(8).gets_nothing();
    t.link(|link| link.resume()).gets(&[frame("one"), frame("two")]).holds(0);
}

#[test]
fn a_terminator_set_from_outside_cuts_what_was_put_back() {
    let mut t = dialogue(pairs);
    t.receives("a").gets(&[piece("a")]).link(|link| link.set_terminator(Terminator::exactly(1))).gets(&[frame("a")]).holds(0);
}

#[test]
fn a_stream_counts_again_what_was_put_back() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::Stream(6)),
            Call::Received(piece) if piece == b"abc" || piece == b"cdef" => ctx.put_back(1),
            _ => {}
        }
        Ok(())
    });
    t.receives("abc").gets(&[piece("abc")]).holds(1);
    t.receives("def").gets(&[piece("cdef")]).holds(1);
    t.receives("xyz").gets(&[piece("f"), frame(""), piece("xyz")]);
}

#[test]
fn it_counts_as_unread_at_once() {
    let mut t = dialogue(|ctx, _, call| {
        if let Call::Received(_) = call {
            assert_eq!(ctx.unread(), 0);
            ctx.put_back(2);
            assert_eq!((ctx.unread(), ctx.link().unread()), (2, 2));
        }
        Ok(())
    });
    t.receives("abc").gets(&[piece("abc")]).holds(2);
}

/// With what text it does.
fn panics(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it does not panic");
    *payload.downcast::<String>().expect("it says why")
}

const NOTHING_GIVEN: &str = "put_back(1): only `frame` and `received` are given something";

#[test]
fn more_than_was_given_panics() {
    let mut t = dialogue(|ctx, _, call| {
        if let Call::Received(bytes) = call {
            ctx.put_back(bytes.len() + 1);
        }
        Ok(())
    });
    assert_eq!(panics(|| _ = t.receives("abc")), "put_back(4): `frame` or `received` was given only 3 bytes");
    // Nothing of the one before it counts.
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(line) if line == b"x" => ctx.put_back(2),
            _ => {}
        }
        Ok(())
    });
    assert_eq!(panics(|| _ = t.receives("abc\nx\n")), "put_back(2): `frame` or `received` was given only 1 bytes");
}

#[test]
fn only_who_was_given_something_may_put_back() {
    type When = fn(&Call) -> bool;
    let callbacks: [(&str, When); 5] = [
        ("connected", |call| matches!(call, Call::Connected)),
        ("exceeded", |call| matches!(call, Call::Exceeded(_))),
        ("writable", |call| matches!(call, Call::Writable)),
        ("draining", |call| matches!(call, Call::Draining)),
        ("eof", |call| matches!(call, Call::Eof(_))),
    ];
    for (name, when) in callbacks {
        let says = panics(|| {
            let mut t = Transcript::new(recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                ctx.set_terminator(Terminator::line(3));
                if when(call) {
                    ctx.put_back(0);
                    ctx.put_back(1);
                }
                Ok(())
            }));
            match name {
                "writable" => _ = t.stuffs().peer_reads(),
                "draining" => {
                    t.receives("ab\nc").scene().net().drain(Duration::from_secs(9));
                    t.settles();
                }
                "exceeded" => _ = t.receives("a\nabcdef"),
                _ => _ = t.receives("a\nab").peer_ends(),
            }
        });
        assert_eq!(says, NOTHING_GIVEN, "{name}");
    }
}

/// Puts back from a timer, after it was given something.
struct TooLate;

impl Protocol for TooLate {
    fn received(&mut self, ctx: &mut Context<'_>, _: &mut (), _: &[u8]) -> Outcome {
        ctx.after(Duration::ZERO, |_: &mut Self, ctx, _| {
            ctx.put_back(1);
            Ok(())
        });
        Ok(())
    }
}

#[test]
fn a_timer_was_given_nothing() {
    let mut t = Transcript::new(TooLate);
    assert_eq!(panics(|| _ = t.receives("abc").passes(Duration::from_millis(1))), NOTHING_GIVEN);
}

#[test]
fn who_has_begun_to_end_puts_nothing_back() {
    let mut t = dialogue(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.close();
            ctx.put_back(99);
        }
        Ok(())
    });
    t.receives("abc").peer_ends().gets(&[piece("abc"), closed(&Reason::Finish)]);
}

/// What one has put back when it failed is nobody else's.
#[test]
fn what_was_put_back_before_an_err_or_a_panic_is_gone() {
    let fails: [fn() -> Outcome; 2] = [|| Err("of its own".into()), || panic!("{}", "of its own")];
    for fails in fails {
        let mut t = dialogue(move |ctx, _, call| match call {
            Call::Received(bytes) if bytes == b"bad" => {
                ctx.put_back(2);
                fails()
            }
            _ => Ok(()),
        });
        let (other, peer) = t.beside();
        let _ = catch_unwind(AssertUnwindSafe(|| _ = t.receives("bad")));
        t.scene().says(peer, "good");
        assert_eq!(t.settles().state().of(other), [piece("good")]);
        assert_eq!(t.scene().net().link(other).expect("it is open").unread(), 0);
    }
}

/// Both are served in one turn, and nobody had looked between them: it was put back of what the next one was given.
#[test]
fn what_was_put_back_before_an_err_is_nobody_elses() {
    struct Server;
    impl Protocol<Vec<u8>> for Server {
        fn connected(&mut self, ctx: &mut Context<'_, Vec<u8>>, _: &mut Vec<u8>) -> Outcome {
            ctx.set_frame_timeout(Duration::from_secs(9)); // so that it is served the long way
            Ok(())
        }

        fn received(&mut self, ctx: &mut Context<'_, Vec<u8>>, heard: &mut Vec<u8>, bytes: &[u8]) -> Outcome {
            if bytes == b"bad" {
                ctx.put_back(2);
                return Err("of its own".into());
            }
            heard.extend(bytes);
            Ok(())
        }
    }
    struct Client;
    impl<S> Protocol<S> for Client {}
    let mut sim = mainspring::testing::Sim::new(1);
    let (server, client) = (sim.host("10.0.0.1", Vec::new()), sim.host("10.0.0.2", ()));
    sim.net(server).listen("10.0.0.1:7", || Server).expect("a free port");
    let keys = [(); 2].map(|()| sim.net(client).connect("10.0.0.1:7", Client));
    sim.run_for(Duration::from_secs(1));
    for (key, text) in keys.into_iter().zip(["bad", "good"]) {
        sim.net(client).send(key, text);
    }
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.state(server), b"good");
}
