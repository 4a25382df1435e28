//! Frames that a [`Framer`] of the program cuts, or its protocol.

use super::{Found, Framer, Input, Step};
use crate::reason::Fault;
use std::{num::NonZeroU64, ops::Range};

pub(crate) struct Custom {
    /// `None`: the protocol is asked.
    pub(super) framer: Option<Box<dyn Framer>>,
    /// What follows from what the protocol has said, or what either of them failed with.
    pub(super) said: Option<Result<Found, Fault>>,
    pub(super) limit: usize,
    /// It is not asked before there are this many bytes.
    pub(super) need: usize,
    /// Pieces of a frame were handed over.
    pub(super) begun: bool,
    /// It refused the frame, and said how many bytes that has.
    pub(super) refused: Option<NonZeroU64>,
}

impl Custom {
    /// Nobody can hold more than half of the address space: what is declared beyond it is refused.
    pub(super) fn new(framer: Option<Box<dyn Framer>>, limit: usize) -> Self {
        let limit = limit.min(isize::MAX as usize);
        Self { framer, said: None, limit, need: 1, begun: false, refused: None }
    }

    pub(super) fn next(&mut self, input: &mut Input) -> Found {
        match self.said.take() {
            Some(Ok(found)) => return found,
            Some(Err(fault)) => return self.fail(fault),
            None => {}
        }
        if input.len() < self.need {
            return Found::Nothing;
        }
        if self.limit == 0 {
            return Found::TooLong; // there is nothing that it could be shown
        }
        let shown = input.len().min(self.limit);
        let Some(framer) = &mut self.framer else { return Found::Asks(shown) };
        let step = framer.next(&mut input.unread_mut()[..shown]);
        step.and_then(|step| self.follow(step, shown, input)).unwrap_or_else(|fault| self.fail(fault))
    }

    fn fail(&mut self, fault: Fault) -> Found {
        self.said = Some(Err(fault));
        Found::Broken
    }

    pub(super) fn follow(&mut self, step: Step, shown: usize, input: &mut Input) -> Result<Found, Fault> {
        self.need = 1;
        self.begun = matches!(step, Step::Piece { .. }) || (self.begun && matches!(step, Step::Need(_)));
        Ok(match step {
            Step::Need(bytes) if bytes > self.limit => Found::TooLong,
            Step::Need(bytes) if bytes <= shown => {
                return Err(format!("a framer with {shown} bytes before it asked for {bytes}: no progress").into());
            }
            Step::Need(bytes) => {
                self.need = bytes;
                Found::Nothing
            }
            Step::TooLong { bytes } => {
                let none = "a framer's frame that is too long has no bytes: no progress";
                self.refused = Some(NonZeroU64::new(bytes).ok_or(none)?);
                Found::TooLong
            }
            Step::Frame { bytes, consumed } => {
                take_checked(input, &bytes, consumed, shown)?;
                Found::Frame
            }
            Step::Piece { bytes, consumed } => {
                take_checked(input, &bytes, consumed, shown)?;
                Found::Piece
            }
        })
    }
}

fn take_checked(input: &mut Input, bytes: &Range<usize>, consumed: usize, shown: usize) -> Result<(), Fault> {
    if consumed == 0 {
        return Err("a framer's step consumed nothing: no progress".into());
    }
    if bytes.start > bytes.end || bytes.end > shown || consumed > shown {
        return Err(format!("a framer's step {bytes:?}, consumed {consumed}, is beyond its input of {shown} bytes").into());
    }
    input.take_within(bytes, consumed);
    Ok(())
}
