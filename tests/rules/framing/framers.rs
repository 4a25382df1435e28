//! Framers of your own.

use super::{Dialogue, joined, piece};
use crate::common::{
    Call, Journal, Talk, closed, closing_of, dial, frame, guest, is_closed, listen, quiet, read_exactly, recorder, say, start,
    until, until_net,
};
use mainspring::{Context, Fault, Framer, Reactor, Reason, Step, Terminator};
use std::{cell::Cell, io::Write, rc::Rc};

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

/// Always says the same.
struct Says(fn(&[u8]) -> Result<Step, Fault>);

impl Framer for Says {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        (self.0)(input)
    }
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

fn failed(why: &str) -> Call {
    closed(&Reason::Failed(why.into()))
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

struct Repeats(Step);

impl Framer for Repeats {
    fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_framers_step_without_progress_or_beyond_the_input_is_failed() {
    let steps = [
        Step::Frame { bytes: 0..0, consumed: 0 },
        Step::Piece { bytes: 0..0, consumed: 0 },
        Step::Need(0),
        Step::Need(1),
        Step::Frame { bytes: 0..9, consumed: 1 },
        Step::Frame { bytes: 0..1, consumed: 9 },
        Step::Piece { bytes: std::ops::Range { start: 1, end: 0 }, consumed: 1 },
    ];
    for step in steps {
        let name = format!("{step:?}");
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(Terminator::custom(Repeats(step), 100));
        say(&peer, "abc");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("failed: "), "{name}");
    }
}

/// Counts what it is shown.
struct Counting {
    asked: Rc<Cell<(usize, usize)>>,
}

impl Framer for Counting {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, mainspring::Fault> {
        let (times, bytes) = self.asked.get();
        self.asked.set((times + 1, bytes + input.len()));
        const WHOLE: usize = 20_000;
        if input.len() < WHOLE {
            return Ok(Step::Need(WHOLE));
        }
        Ok(Step::Frame { bytes: 0..WHOLE, consumed: WHOLE })
    }
}

/// And a framer of your own is not asked again before there is what it needs.
#[test]
fn flaw_15_a_framer_is_asked_only_when_it_can_answer() {
    let asked: Rc<Cell<(usize, usize)>> = Rc::default();
    let mut talk = Talk::cut_by(Terminator::custom(Counting { asked: Rc::clone(&asked) }, 20_000));
    for n in 1..=200 {
        say(&talk.peer, [b'x'; 100]);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, journal| {
            journal.frames().len() == 1 || net.link(key).expect("open").unread() == n * 100
        });
    }
    talk.until(|journal| journal.frames().len() == 1);
    assert_eq!(asked.get(), (2, 100 + 20_000), "at the first bytes, and at the whole");
}
