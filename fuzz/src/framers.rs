//! Framers and hostile peers: lengths that nobody will ever send, and framers that say anything.

use super::{Tape, script};
use mainspring::{
    Fault, Framer, Step, Terminator,
    inside::{Cutter, Found},
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
    let (mut cutter, mut fed) = (Cutter::new(terminator, 64), 0);
    while !tape.is_over() {
        let length = 1 + tape.below(40);
        let piece = tape.bytes(length);
        cutter.arrives(piece);
        fed += piece.len();
        said.borrow_mut().unread = cutter.unread().to_vec();
        if !deliver(&mut cutter, &said, is_hostile) {
            return;
        }
        assert!(cutter.capacity() <= 64 + 4 * fed, "{} bytes for {fed} that came", cutter.capacity());
    }
}

/// Whether it goes on.
fn deliver(cutter: &mut Cutter, said: &RefCell<Said>, is_hostile: bool) -> bool {
    loop {
        let (before, had) = (cutter.unread().len(), said.borrow().asked);
        let found = cutter.step();
        let mut said = said.borrow_mut();
        if is_hostile && matches!(found, Found::Frame(_) | Found::Piece(_) | Found::Broken) {
            assert_eq!(said.asked, had + 1, "it is asked once for each step");
        }
        match (found, said.step.take()) {
            (Found::Nothing, _) => {
                assert_eq!(cutter.unread().len(), before);
                return true;
            }
            (Found::Frame(frame), step) => {
                if let Some(Step::Frame { bytes, consumed }) = step {
                    assert_eq!(frame, &said.unread[bytes]);
                    assert_eq!(before - cutter.unread().len(), consumed);
                } else {
                    assert!(!is_hostile, "a frame that nobody said");
                }
                assert!(cutter.unread().len() < before || !is_hostile, "no progress");
            }
            (Found::Piece(piece), step) => {
                let Some(Step::Piece { bytes, consumed }) = step else { panic!("a piece that nobody said") };
                assert_eq!(piece, &said.unread[bytes]);
                assert_eq!(before - cutter.unread().len(), consumed);
                assert!(consumed > 0, "no progress");
            }
            (Found::TooLong, _) => {
                assert!(!(is_hostile && cutter.skip(true)), "the end of what asks for more than its limit is not known");
                return false;
            }
            (Found::Broken, _) => {
                assert!(!cutter.take_fault().to_string().is_empty());
                return false;
            }
        }
        said.unread = cutter.unread().to_vec();
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
