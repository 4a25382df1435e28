//! Framers of your own.

use super::Says;
use crate::common::{Call, Recorded, closed, cut_by, cut_from_outside, dialogue, frame, piece, quiet};
use mainspring::{Fault, Framer, Reason, Step, Terminator};
use std::{cell::Cell, rc::Rc};

/// A length, a mask, and that many bytes, each XORed with the mask. Asked too early, it would unmask bytes twice.
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
    let mut t = cut_by(|| Terminator::custom(Masked { asked_for: 1 }, 99));
    t.receives(b"\x03\x20a").holds(3).receives("b").holds(4).gets_nothing();
    t.receives(b"c\x02\x01bc\x00\x00\x01").gets(&[frame("ABC"), frame("cb"), frame("")]).holds(1);
    t.receives(b"\xff").gets_nothing().receives(b"\x00").gets(&[frame(b"\xff")]);
}

#[test]
fn a_framer_may_leave_out_what_stands_around_the_frame() {
    let mut t = cut_by(|| {
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
    t.receives("<a><").gets(&[frame("a")]).receives("bc><>").gets(&[frame("bc"), frame("")]);
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
    let mut t = cut_by(terminator);
    t.receives("a+").gets(&[piece("a")]).holds(0).gets_nothing();
    t.receives("+b+c.").gets(&[piece("bc"), frame("")]);
    let mut t = cut_by(terminator);
    t.receives("++.").gets(&[frame("")]);
}

fn failed(why: &str) -> Call {
    closed(&Reason::Failed(why.into()))
}

#[test]
fn a_framer_that_fails_ends_the_connection_with_its_words() {
    let mut t = cut_by(|| {
        Terminator::custom(
            Says(|input| match input[0] {
                b'!' => Err("no such thing".into()),
                _ => Ok(Step::Frame { bytes: 0..1, consumed: 1 }),
            }),
            9,
        )
    });
    t.receives("ab!c").gets(&[frame("a"), frame("b"), failed("no such thing")]);
    cut_by(|| Terminator::netstring(9)).receives("1:a;").gets(&[failed("netstring: `;` where the comma should be")]);
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
        let mut t = cut_by(move || Terminator::custom(Says(step), 9));
        let calls = t.receives("abcd").calls();
        assert!(matches!(&calls[..], [Call::Closed(why)] if why.starts_with("failed: ")), "step {at}: {calls:?}");
    }
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
    let mut t = dialogue(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(Once { _alive: Rc::clone(&theirs) }, 9)),
            Call::Frame(_) => ctx.set_terminator(Terminator::line(9)),
            _ => {}
        }
        Ok(())
    });
    let unused = Rc::strong_count(&alive);
    t.receives("abc\nd\n").gets(&[frame("a"), frame("bc"), frame("d")]);
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
    let mut t = cut_by(move || Terminator::custom(Watching(Rc::clone(&theirs)), 5));
    t.receives([b'-'; 3000]).gets(&[piece([b'-'; 3000])]);
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
        let mut t = dialogue(quiet);
        t.link(|link| link.set_terminator(Terminator::custom(Repeats(step), 100)));
        let calls = t.receives("abc").calls();
        assert!(matches!(calls.last(), Some(Call::Closed(why)) if why.starts_with("failed: ")), "{name}: {calls:?}");
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
    let mut t = cut_from_outside(Terminator::custom(Counting { asked: Rc::clone(&asked) }, 20_000));
    for n in 1..200 {
        t.receives([b'x'; 100]).gets_nothing().holds(n * 100);
    }
    t.receives([b'x'; 100]).gets(&[frame([b'x'; 20_000])]);
    assert_eq!(asked.get(), (2, 100 + 20_000), "at the first bytes, and at the whole");
}
