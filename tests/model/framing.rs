//! Framing, once more: a pure re-framing of the bytes, to compare with.

use mainspring::{Endian, Fault, Framer, Step, Terminator, Width};
use std::ops::Range;

/// A terminator as the model sees it: a function of the bytes that were sent, from here to wherever they end.
#[derive(Clone, Debug)]
pub(super) enum Framing {
    None,
    Line {
        limit: usize,
    },
    Delimiter {
        bytes: &'static [u8],
        limit: usize,
    },
    Through {
        bytes: &'static [u8],
        limit: usize,
    },
    Length {
        bytes: usize,
        limit: usize,
    },
    Stream {
        left: usize,
    },
    Until {
        bytes: &'static [u8],
        seen: usize,
    },
    Prefixed {
        width: Width,
        order: Endian,
        limit: usize,
    },
    Netstring {
        limit: usize,
    },
    Blocks,
    /// A frame was refused: nothing of it is told, then something else holds.
    Skip {
        rest: Box<Framing>,
        then: Box<Framing>,
    },
}

/// What stands next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Frame {
        bytes: Range<usize>,
        through: usize,
    },
    /// A piece of any length up to this.
    Piece {
        most: usize,
    },
    /// As many masked bytes as their length says, after it, as a frame or as a piece.
    Block {
        is_frame: bool,
        bytes: usize,
    },
    TooLong,
    Broken,
    Nothing,
}

pub(super) fn find(needle: &[u8], hay: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The length of the longest proper prefix of the needle with which the hay ends.
pub(super) fn begun(needle: &[u8], hay: &[u8]) -> usize {
    (1..needle.len()).rev().find(|&n| hay.ends_with(&needle[..n])).unwrap_or(0)
}

pub(super) fn width_bytes(width: Width) -> usize {
    match width {
        Width::U8 => 1,
        Width::U16 => 2,
        Width::U32 => 4,
        Width::U64 => 8,
    }
}

pub(super) fn prefix(width: Width, order: Endian, length: usize) -> Vec<u8> {
    let (bytes, width) = ((length as u64).to_le_bytes(), width_bytes(width));
    let mut prefix = bytes[..width].to_vec();
    if order == Endian::Big {
        prefix.reverse();
    }
    prefix
}

impl Framing {
    pub(super) fn terminator(&self) -> Terminator {
        match *self {
            Self::None => Terminator::None,
            Self::Line { limit } => Terminator::line(limit),
            Self::Delimiter { bytes, limit } => Terminator::delimiter(bytes, limit),
            Self::Through { bytes, limit } => Terminator::through(bytes, limit),
            Self::Length { bytes, limit } => Terminator::declared(bytes, limit),
            Self::Stream { left } => Terminator::Stream(left as u64),
            Self::Until { bytes, seen } => Terminator::StreamUntil { bytes: bytes.into(), seen },
            Self::Prefixed { width, order, limit } => Terminator::prefixed(width, order, limit),
            Self::Netstring { limit } => Terminator::netstring(limit),
            Self::Blocks => Terminator::custom(Blocks, BLOCK_MAX),
            Self::Skip { .. } => unreachable!("nobody asks for it"),
        }
    }

    pub(super) fn next(&self, rest: &[u8]) -> Next {
        match *self {
            Self::None if rest.is_empty() => Next::Nothing,
            Self::None => Next::Piece { most: rest.len() },
            Self::Line { limit } => next_line(limit, rest),
            Self::Delimiter { bytes, limit } => match find(bytes, rest) {
                Some(at) if at > limit => Next::TooLong,
                Some(at) => Next::Frame { bytes: 0..at, through: at + bytes.len() },
                None if rest.len() - begun(bytes, rest) > limit => Next::TooLong,
                None => Next::Nothing,
            },
            Self::Through { bytes, limit } => match find(bytes, rest).map(|at| at + bytes.len()) {
                Some(end) if end > limit => Next::TooLong,
                Some(end) => Next::Frame { bytes: 0..end, through: end },
                // The shortest frame that this may still become.
                None if !rest.is_empty() && rest.len() - begun(bytes, rest) + bytes.len() > limit => Next::TooLong,
                None => Next::Nothing,
            },
            Self::Length { bytes, limit } if bytes > limit => Next::TooLong,
            Self::Length { bytes, .. } if rest.len() < bytes => Next::Nothing,
            Self::Length { bytes, .. } => Next::Frame { bytes: 0..bytes, through: bytes },
            Self::Stream { left: 0 } => Next::Frame { bytes: 0..0, through: 0 },
            Self::Stream { .. } if rest.is_empty() => Next::Nothing,
            Self::Stream { left } => Next::Piece { most: left.min(rest.len()) },
            Self::Until { bytes, seen } => next_until(bytes, seen, rest),
            Self::Prefixed { width, order, limit } => next_prefixed(width_bytes(width), order, limit, rest),
            Self::Netstring { limit } => next_netstring(limit, rest),
            Self::Blocks => match rest.first().map(|&first| block(first)) {
                Some((is_frame, bytes)) if rest.len() > bytes => Next::Block { is_frame, bytes },
                _ => Next::Nothing,
            },
            Self::Skip { .. } => Next::Nothing,
        }
    }

    /// What is saved of what stands next, up to the end of the frame or of what was sent; and where the frame ends.
    pub(super) fn saved(&self, rest: &[u8]) -> (Range<usize>, Option<usize>) {
        match *self {
            Self::None => (0..rest.len(), None),
            Self::Stream { left } => (0..left.min(rest.len()), (left <= rest.len()).then_some(left)),
            Self::Until { bytes, seen } => match (until_end(bytes, seen, rest), self.next(rest)) {
                (Some((at, end)), _) => (0..at, Some(end)),
                (None, Next::Piece { most }) => (0..most, None),
                (None, _) => (0..0, None),
            },
            _ => match self.next(rest) {
                Next::Frame { bytes, through } => (bytes, Some(through)),
                _ => (0..0, None),
            },
        }
    }

    /// What holds after the frame that was just told.
    pub(super) fn after_frame(&mut self) {
        match self {
            Self::Length { .. } | Self::Stream { .. } => *self = Self::None,
            Self::Until { seen, .. } => *seen = 0,
            _ => {}
        }
    }

    pub(super) fn after_piece(&mut self, bytes: usize) {
        match self {
            Self::Stream { left } => *left -= bytes,
            Self::Until { seen, .. } => *seen = 0,
            _ => {}
        }
    }

    /// Where the refused frame that stands next ends, if that was sent.
    pub(super) fn skip_end(&self, rest: &[u8]) -> Option<usize> {
        match *self {
            Self::Line { .. } => Some(find(b"\n", rest)? + 1),
            Self::Delimiter { bytes, .. } | Self::Through { bytes, .. } => Some(find(bytes, rest)? + bytes.len()),
            Self::Length { bytes, .. } => (rest.len() >= bytes).then_some(bytes),
            Self::Stream { left } => (rest.len() >= left).then_some(left),
            Self::Until { bytes, seen } => until_end(bytes, seen, rest).map(|(_, end)| end),
            Self::Prefixed { width, order, .. } => through(&next_prefixed(width_bytes(width), order, usize::MAX, rest)),
            Self::Netstring { .. } => netstring_end(rest).filter(|&end| end <= rest.len()), // whatever stands for its comma
            Self::Blocks => {
                let mut end = 0;
                loop {
                    let (is_frame, bytes) = block(*rest.get(end)?);
                    end += bytes + 1;
                    if is_frame {
                        return (rest.len() >= end).then_some(end);
                    }
                }
            }
            Self::None | Self::Skip { .. } => unreachable!("they have no frames"),
        }
    }

    /// Whether the refused frame that stands next is none after all: its framer says so.
    pub(super) fn skip_breaks(&self, rest: &[u8]) -> bool {
        let has_end = netstring_end(rest).is_some();
        matches!(self, Self::Netstring { .. }) && !has_end && next_netstring(usize::MAX, rest) == Next::Broken
    }

    /// The frame that stands next is refused; whether its end can be told.
    pub(super) fn skip(&mut self) -> bool {
        let then = match *self {
            Self::Line { .. } | Self::Delimiter { .. } | Self::Through { .. } => self.clone(),
            Self::Until { bytes, .. } => Self::Until { bytes, seen: 0 },
            Self::Length { .. } | Self::Stream { .. } => Self::None,
            Self::Prefixed { .. } | Self::Netstring { .. } | Self::Blocks => self.clone(),
            Self::None | Self::Skip { .. } => return false,
        };
        *self = Self::Skip { rest: Box::new(self.clone()), then: Box::new(then) };
        true
    }
}

/// Where a frame ends that is there.
fn through(next: &Next) -> Option<usize> {
    if let Next::Frame { through, .. } = next { Some(*through) } else { None }
}

pub(super) fn next_line(limit: usize, rest: &[u8]) -> Next {
    let end = find(b"\n", rest);
    let line = &rest[..end.unwrap_or(rest.len())];
    let bytes = line.len() - usize::from(line.ends_with(b"\r"));
    match end {
        _ if bytes > limit => Next::TooLong,
        Some(end) => Next::Frame { bytes: 0..bytes, through: end + 1 },
        None => Next::Nothing,
    }
}

/// Where the first delimiter begins and ends, if the bytes that were seen before count.
pub(super) fn until_end(needle: &[u8], seen: usize, rest: &[u8]) -> Option<(usize, usize)> {
    let hay = [&needle[..seen], rest].concat();
    let at = find(needle, &hay)?;
    Some((at.saturating_sub(seen), at + needle.len() - seen))
}

pub(super) fn next_until(needle: &[u8], seen: usize, rest: &[u8]) -> Next {
    match until_end(needle, seen, rest) {
        Some((0, through)) => Next::Frame { bytes: 0..0, through },
        Some((at, _)) => Next::Piece { most: at },
        None => {
            let hay = [&needle[..seen], rest].concat();
            match rest.len().saturating_sub(begun(needle, &hay)) {
                0 => Next::Nothing,
                most => Next::Piece { most },
            }
        }
    }
}

pub(super) fn next_prefixed(width: usize, order: Endian, limit: usize, rest: &[u8]) -> Next {
    let Some(prefix) = rest.get(..width) else { return Next::Nothing };
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(prefix);
    if order == Endian::Big {
        bytes[..width].reverse();
    }
    let length = u64::from_le_bytes(bytes);
    if length > limit as u64 {
        return Next::TooLong;
    }
    let end = width.saturating_add(length as usize);
    if rest.len() < end { Next::Nothing } else { Next::Frame { bytes: width..end, through: end } }
}

pub(super) fn next_netstring(limit: usize, rest: &[u8]) -> Next {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 1 && rest[0] == b'0' {
        return Next::Broken;
    }
    if digits > 20 {
        return Next::TooLong;
    }
    match rest.get(digits) {
        None => return Next::Nothing,
        Some(b':') if digits > 0 => {}
        Some(_) => return Next::Broken,
    }
    let length = rest[..digits].iter().fold(0_u128, |length, digit| length * 10 + u128::from(digit - b'0'));
    if length > limit as u128 {
        return Next::TooLong;
    }
    let end = usize::try_from(length).map_or(usize::MAX, |length| (digits + 1).saturating_add(length));
    match rest.get(end) {
        None => Next::Nothing,
        Some(b',') => Next::Frame { bytes: digits + 1..end, through: end + 1 },
        Some(_) => Next::Broken,
    }
}

/// Where it would end by the length that it says.
fn netstring_end(rest: &[u8]) -> Option<usize> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_length = (1..=20).contains(&digits) && rest.get(digits) == Some(&b':') && (digits == 1 || rest[0] != b'0');
    let length: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok().filter(|_| is_length)?;
    (digits + 2).checked_add(length)
}

/// A framer of our own: a byte that says how many follow, and whether they are a frame; they are unmasked in place.
pub(super) struct Blocks;

pub(super) const BLOCK_MAX: usize = 8;
pub(super) const MASK: u8 = 0x55;

pub(super) fn block(first: u8) -> (bool, usize) {
    (first & 8 == 0, 1 + usize::from(first) % (BLOCK_MAX - 1))
}

impl Framer for Blocks {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let (is_frame, bytes) = block(input[0]);
        if input.len() <= bytes {
            return Ok(Step::Need(bytes + 1));
        }
        for byte in &mut input[1..=bytes] {
            *byte ^= MASK;
        }
        let (bytes, consumed) = (1..bytes + 1, bytes + 1);
        Ok(if is_frame { Step::Frame { bytes, consumed } } else { Step::Piece { bytes, consumed } })
    }
}
