//! A refused frame: the rest of it is dropped as it comes, and the next one is treated as if nothing had happened.

use super::{Found, Framing, Input, Needle, Until};
use crate::{panics::discard, seldom::Apart};

pub(crate) struct Skip {
    pub(super) rest: Framing,
    /// What applies afterwards. `None`: the framer that is being asked where the frame ends, for the next one.
    pub(super) then: Option<Framing>,
}

/// How far dropping a refused frame has come.
enum Dropped {
    All,
    NotYet,
    /// The framer says no more.
    Stuck(Found),
}

impl Framing {
    /// Drops the rest of the frame that has begun, as it comes. `false`: its end is not known, because a framer refused the
    /// frame and did not say where it ends.
    pub(crate) fn skip(&mut self, is_refused: bool) -> bool {
        let then = match self {
            Self::Line { limit } => Some(Self::Line { limit: *limit }),
            Self::Delimiter { needle, bound } => Some(Self::Delimiter { needle: needle.clone(), bound: *bound }),
            Self::Until(until) => Some(Self::Until(Apart::new(Until { needle: until.needle.clone(), seen: 0, begun: false }))),
            Self::Length { .. } | Self::Stream { .. } => Some(Self::None),
            Self::Custom(custom) if is_refused && custom.refused.is_none() => return false,
            Self::Custom(_) => None,
            Self::None | Self::Skip(_) => return false,
        };
        let mut skip = Skip { rest: std::mem::take(self), then };
        skip.learns_its_length();
        *self = Self::Skip(Apart::new(skip));
        true
    }

    /// While a refused frame is being dropped, and after it.
    #[cold]
    pub(super) fn next_behind_skip(&mut self, input: &mut Input) -> Found {
        let Self::Skip(skip) = self else { unreachable!("`next_other` knows it") };
        match skip.rest.drop_rest(input) {
            Dropped::All => {
                self.end_skip();
                if let Self::None = self {
                    // a piece of nothing: whether its partner gets what follows is asked before each
                    input.take(0, 0);
                    return Found::Piece;
                }
            }
            Dropped::NotYet => return Found::Nothing,
            Dropped::Stuck(Found::TooLong) if skip.learns_its_length() => {}
            Dropped::Stuck(found) => return found,
        }
        self.next(input)
    }

    /// The refused frame has ended.
    fn end_skip(&mut self) {
        let Self::Skip(skip) = std::mem::take(self) else { return };
        let Skip { rest, then } = skip.into_inner();
        match then {
            Some(then) => {
                *self = then;
                discard("a framer", rest);
            }
            None => *self = rest,
        }
    }

    /// Drops what has come of a refused frame.
    fn drop_rest(&mut self, input: &mut Input) -> Dropped {
        let is_all = match self {
            Self::Line { .. } => drop_until(&Needle::Byte(b'\n'), input),
            Self::Delimiter { needle, .. } => drop_until(needle, input),
            Self::Until(_) | Self::Custom(_) => return self.drop_found(input),
            Self::Length { bytes, .. } => {
                let dropped = input.len().min(*bytes);
                input.consume(dropped);
                *bytes -= dropped;
                *bytes == 0
            }
            Self::Stream { left, .. } => {
                let dropped = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                input.consume(dropped);
                *left -= dropped as u64;
                *left == 0
            }
            Self::None | Self::Skip(_) => true,
        };
        if is_all { Dropped::All } else { Dropped::NotYet }
    }

    /// Drops what it finds, up to the end of the frame.
    fn drop_found(&mut self, input: &mut Input) -> Dropped {
        loop {
            match self.next(input) {
                Found::Frame => return Dropped::All,
                Found::Piece => {}
                Found::Nothing => return Dropped::NotYet,
                stuck => return Dropped::Stuck(stuck),
            }
        }
    }
}

impl Skip {
    /// If the framer that is asked where the frame ends has said how long it is, that many bytes are dropped, and the framer
    /// is for the next frame. Returns whether it has.
    fn learns_its_length(&mut self) -> bool {
        let Framing::Custom(custom) = &mut self.rest else { return false };
        let Some(left) = custom.refused.take() else { return false };
        let framer = std::mem::replace(&mut self.rest, Framing::Stream { left: left.get(), begun: true });
        match &self.then {
            None => self.then = Some(framer),
            Some(_) => discard("a framer", framer),
        }
        true
    }
}

/// Drops everything up to and including the delimiter, or all that cannot be a part of it; returns whether it has come.
fn drop_until(needle: &Needle, input: &mut Input) -> bool {
    match needle.find_in(input) {
        Some(at) => {
            input.consume(at + needle.bytes().len());
            true
        }
        None => {
            input.consume(input.len() - needle.begun(input.unread()));
            false
        }
    }
}
