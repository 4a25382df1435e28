//! Frames that the protocol cuts itself.

use crate::common::cut_by;
use mainspring::{
    Context, Fault, Limit, Outcome, Protocol, Reason, Step, Terminator,
    testing::{Transcript, every_cut},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Digits say how many masked bytes follow; `!` is an error that is answered, `?` one that is not, `~` a length that is too
/// large, `+` a piece. Everything is answered.
#[derive(Default)]
struct Cutter {
    refused: bool,
    asked: usize,
    skips: bool,
}

impl<S> Protocol<S> for Cutter {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::own(9));
        Ok(())
    }

    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        assert!((1..=9).contains(&input.len()) && input.len() >= self.asked, "shown {}", input.len());
        self.asked = 0;
        match input[0] {
            b'!' => {
                self.refused = true;
                Ok(Step::Frame { bytes: 0..0, consumed: 1 })
            }
            b'?' => Err("unheard-of".into()),
            b'~' => Ok(Step::TooLong { bytes: 20 }),
            b'>' => Ok(Step::Need(10)),
            b'0' => Ok(Step::Frame { bytes: 0..0, consumed: 0 }),
            b'+' => Ok(Step::Piece { bytes: 0..1, consumed: 1 }),
            b' ' => Ok(Step::Piece { bytes: 0..0, consumed: 1 }),
            digit => {
                let end = 1 + usize::from(digit - b'0');
                if input.len() < end {
                    self.asked = end;
                    return Ok(Step::Need(end));
                }
                input[1..end].iter_mut().for_each(|byte| *byte ^= 0x20);
                Ok(Step::Frame { bytes: 1..end, consumed: end })
            }
        }
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, frame: &[u8]) -> Outcome {
        if self.refused {
            ctx.send("refused");
            ctx.close();
        } else if frame == b"line" {
            ctx.set_terminator(Terminator::line(99));
        } else if frame == b"OWN" {
            ctx.set_terminator(Terminator::own(9));
        } else {
            ctx.send([b"[", frame, b"]"].concat());
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, piece: &[u8]) -> Outcome {
        ctx.send([b"(", piece, b")"].concat());
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, _: &mut S, limit: Limit) -> Outcome {
        ctx.send("{too long}");
        if self.skips { Ok(()) } else { Err(limit.into()) }
    }

    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, tail: &[u8]) -> Outcome {
        ctx.send([b"$", tail].concat());
        ctx.close();
        Ok(())
    }
}

fn skipping() -> Cutter {
    Cutter { skips: true, ..Cutter::default() }
}

#[test]
fn a_protocol_cuts_its_own_frames_and_decodes_them_in_place() {
    let mut t = Transcript::<_, ()>::new(Cutter::default());
    t.receives("3AB").sends("").receives("C1x +2").sends("[abc][X](+)").receives("YZ4").sends("[yz]");
    t.peer_ends().sends("$4").closes(Reason::is_clean);
}

#[test]
fn what_it_found_out_it_answers_in_the_frame_that_follows() {
    let mut t = Transcript::<_, ()>::new(Cutter::default());
    t.receives("1a!1b").sends("[A]refused").peer_ends().closes(Reason::is_clean);
}

#[test]
fn no_cut_of_the_bytes_changes_what_it_does() {
    let texts: [&[u8]; 6] =
        [b"3ABC1x +2YZ4abcd", b"1a!1b", b"1a?1b", b"4LINEabc\nOWN\n1a", b"1a~2345678901234567890123b", b"1a>23456789012"];
    for text in texts {
        every_cut::<_, ()>(text, Cutter::default);
        every_cut::<_, ()>(text, skipping);
    }
}

#[test]
fn its_error_ends_the_connection_as_a_framers_does() {
    for (input, text) in [("?", "failed: unheard-of"), ("0", "failed: a framer's step consumed nothing: no progress")] {
        Transcript::<_, ()>::new(Cutter::default()).receives(input).closes(|why| why.to_string() == text);
    }
}

#[test]
fn what_is_too_long_is_skipped_where_its_length_is_known() {
    let mut t = Transcript::<_, ()>::new(skipping());
    t.receives("1a~23456789").sends("[A]{too long}").receives("01234567890").sends("").receives("1b").sends("[B]");
    let mut t = Transcript::<_, ()>::new(skipping());
    t.receives("1a>").sends("[A]{too long}").peer_ends().closes(Reason::is_clean);
    let mut t = Transcript::<_, ()>::new(Cutter::default());
    t.receives("1a~").sends("[A]{too long}").closes(|why| matches!(why, Reason::Limit(Limit::FrameBytes)));
}

/// Of a frame that is too slow the protocol is asked where it ends, and nothing of it is told.
#[test]
fn what_is_too_slow_is_skipped_up_to_its_end() {
    let mut t = Transcript::<_, ()>::new(skipping());
    let key = t.key();
    let second = std::time::Duration::from_secs(1);
    t.scene().net().link(key).expect("it is open").set_frame_timeout(second);
    t.receives("4ab").passes(second).sends("{too long}").receives("cd1e").sends("[E]");
}

#[test]
fn a_protocol_without_a_cut_fails_clearly() {
    let mut t = cut_by(|| Terminator::own(9));
    t.receives("a");
    t.closes(|why| why.to_string() == "failed: `Terminator::own` is set, and `cut` is not implemented");
}

struct Panics;

impl Protocol for Panics {
    fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
        ctx.set_terminator(Terminator::own(9));
        Ok(())
    }

    fn cut(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
        panic!("while cutting")
    }
}

#[test]
fn a_panic_in_it_ends_its_connection() {
    let mut t = Transcript::new(Panics);
    // In a dialogue it also leaves the turn.
    assert!(catch_unwind(AssertUnwindSafe(|| _ = t.receives("a"))).is_err());
    t.closes(|why| why.to_string() == "panicked: while cutting");
}

#[test]
fn a_limit_of_nothing_is_too_long_at_once() {
    let mut t = Transcript::<_, ()>::new(skipping());
    let key = t.key();
    t.scene().net().link(key).expect("it is open").set_terminator(Terminator::own(0));
    t.receives("1").sends("{too long}");
}
