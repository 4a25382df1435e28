//! Framers and hostile peers: lengths that nobody will ever send, and framers that say anything.

use super::{Tape, script};
use crate::{
    input::Input,
    reason::Fault,
    terminator::{Found, Framer, Framing, Step, Terminator},
};
use std::{cell::RefCell, rc::Rc};

/// Nothing panics, nothing is allocated for a length before its bytes come, each step makes progress, and what is given out is
/// what the framer said.
pub fn framers(data: &[u8]) {
    let mut tape = Tape::new(data);
    let limit = match tape.below(4) {
        0 => usize::MAX - tape.below(24),
        1 => tape.size(),
        _ => tape.below(64),
    };
    let said = Rc::new(RefCell::new(Said::default()));
    let (is_hostile, terminator) = match tape.below(8) {
        0 | 1 => (false, Terminator::prefixed(script::width(&mut tape), script::order(&mut tape), limit)),
        2 => (false, Terminator::netstring(limit)),
        _ => {
            let plan = tape.bytes(64).to_vec();
            (true, Terminator::custom(Hostile { plan, at: 0, limit, need: 0, said: Rc::clone(&said) }, limit))
        }
    };
    let (mut framing, mut input) = (Framing::from(terminator), Input::with_capacity(64));
    let mut fed = 0;
    while !tape.is_over() {
        let length = 1 + tape.below(40);
        let piece = tape.bytes(length);
        input.room(piece.len())[..piece.len()].copy_from_slice(piece);
        input.filled(piece.len());
        fed += piece.len();
        said.borrow_mut().unread = input.unread().to_vec();
        if !deliver(&mut framing, &mut input, &said, is_hostile) {
            return;
        }
        assert!(input.capacity() <= 64 + 4 * fed, "{} bytes for {fed} that came", input.capacity());
    }
}

/// Whether it goes on.
fn deliver(framing: &mut Framing, input: &mut Input, said: &RefCell<Said>, is_hostile: bool) -> bool {
    loop {
        let (before, had) = (input.len(), said.borrow().asked);
        let found = framing.next(input);
        let mut said = said.borrow_mut();
        if is_hostile && matches!(found, Found::Frame(_) | Found::Piece(_) | Found::Broken) {
            assert_eq!(said.asked, had + 1, "it is asked once for each step");
        }
        match (found, said.step.take()) {
            (Found::Nothing, _) => {
                assert_eq!(input.len(), before);
                return true;
            }
            (Found::Frame(range), step) => {
                assert!(input.len() < before || !is_hostile, "no progress");
                if let Some(Step::Frame { bytes, consumed }) = step {
                    assert_eq!(input.slice(range), &said.unread[bytes]);
                    assert_eq!(before - input.len(), consumed);
                } else {
                    assert!(!is_hostile, "a frame that nobody said");
                }
            }
            (Found::Piece(range), step) => {
                let Some(Step::Piece { bytes, consumed }) = step else { panic!("a piece that nobody said") };
                assert_eq!(input.slice(range), &said.unread[bytes]);
                assert_eq!(before - input.len(), consumed);
                assert!(consumed > 0, "no progress");
            }
            (Found::TooLong, _) => {
                assert!(!framing.skip(), "the end of a custom frame is not known");
                return false;
            }
            (Found::Broken, _) => {
                assert!(!framing.take_fault().to_string().is_empty());
                return false;
            }
        }
        said.unread = input.unread().to_vec();
    }
}

#[derive(Default)]
struct Said {
    unread: Vec<u8>,
    step: Option<Step>,
    asked: usize,
}

/// Says whatever its plan has, round and round.
struct Hostile {
    plan: Vec<u8>,
    at: usize,
    limit: usize,
    /// What it asked for.
    need: usize,
    said: Rc<RefCell<Said>>,
}

impl Framer for Hostile {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        assert!(!input.is_empty(), "it is shown nothing");
        assert!(input.len() <= self.limit, "it is shown more than its limit");
        assert!(input.len() >= self.need, "it is asked before there is what it needs");
        let mut tape = Tape::new(&self.plan[self.at..]);
        let near = |tape: &mut Tape<'_>| if tape.once_in(8) { tape.size() } else { tape.below(input.len().clamp(1, 254) + 2) };
        let step = match tape.below(8) {
            0..3 => Ok(Step::Frame { bytes: near(&mut tape)..near(&mut tape), consumed: near(&mut tape) }),
            3..5 => Ok(Step::Piece { bytes: near(&mut tape)..near(&mut tape), consumed: near(&mut tape) }),
            5..7 => Ok(Step::Need(near(&mut tape))),
            _ => Err("it gives up".into()),
        };
        self.need = if let Ok(Step::Need(bytes)) = step { bytes } else { 0 };
        let used = self.plan.len() - self.at - tape.rest().len();
        self.at = if self.at + used >= self.plan.len() { 0 } else { self.at + used };
        let mut said = self.said.borrow_mut();
        assert_eq!(&said.unread[..input.len()], &input[..], "it is shown what comes next");
        input[0] ^= 0x55;
        said.unread[0] ^= 0x55;
        said.asked += 1;
        said.step = step.as_ref().ok().cloned();
        step
    }
}
