//! Where a frame ends: what you say. What the loop makes of it is `Framing`.

use super::framers::{LENGTH_DIGITS_MAX, Netstring, Prefixed};
use crate::reason::Fault;
use std::{borrow::Cow, fmt, ops::Range};

/// Where a frame ends: what `frame` is called with, and what `received` is called with.
///
/// Set it with [`set_terminator`](crate::Context::set_terminator), from any callback: what is already buffered is cut by the
/// new one. A new connection has [`None`](Self::None). Limits are in bytes of the frame as you get it, without its prefix or
/// a delimiter that is not part of it; a frame beyond its limit is `exceeded(Limit::FrameBytes)`.
///
/// At the end of the stream, the unfinished rest comes with `eof`, including the bytes of a half-seen delimiter. The chapter
/// is [framing](crate::manual::framing).
#[non_exhaustive]
#[derive(Default)]
pub enum Terminator {
    /// Whatever arrives goes to `received`.
    #[default]
    None,
    /// A line ends with LF or CRLF; neither is part of the frame.
    Line {
        /// The longest line.
        limit: usize,
    },
    /// A frame ends with exactly these bytes; they are not part of it. An empty delimiter means [`None`](Self::None).
    Delimiter {
        /// The delimiter.
        bytes: Cow<'static, [u8]>,
        /// The longest frame.
        limit: usize,
    },
    /// A frame ends with exactly these bytes, and they are its last ones. An empty delimiter means [`None`](Self::None).
    Through {
        /// The delimiter.
        bytes: Cow<'static, [u8]>,
        /// The longest frame, including its delimiter.
        limit: usize,
    },
    /// A frame of exactly this many bytes; 0 is a legal frame. It fires once and falls back to [`None`](Self::None).
    Length {
        /// How long the frame is.
        bytes: usize,
        /// A frame longer than this is refused before it comes.
        limit: usize,
    },
    /// This many bytes go to `received` as they come, then `frame` is called once, with nothing; then it falls back to
    /// [`None`](Self::None).
    Stream(u64),
    /// Everything up to the delimiter goes to `received` as it comes, then `frame` is called with nothing, again and again.
    /// Only what may be the beginning of a delimiter is held back, so memory stays bounded: asynchat's own way.
    StreamUntil {
        /// The delimiter. An empty one means [`None`](Terminator::None).
        bytes: Cow<'static, [u8]>,
        /// This many bytes of the first delimiter came before, with something else: 2 for the CRLF of SMTP's DATA line,
        /// which is also the beginning of an empty mail's CRLF.CRLF (RFC 5321, 4.5.2). At most all but one.
        seen: usize,
    },
    /// The protocol's own [`cut`](crate::Protocol::cut).
    Own {
        /// The most bytes that it is shown at once.
        limit: usize,
    },
    /// Your own framer.
    Custom {
        /// The framer that is asked where the next frame ends.
        framer: Box<dyn Framer>,
        /// The most bytes that it is shown at once.
        limit: usize,
    },
}

impl Terminator {
    /// Lines that end with LF or CRLF.
    pub fn line(limit: usize) -> Self {
        Self::Line { limit }
    }

    /// Lines that end with CRLF exactly; a bare LF or CR is part of the line.
    pub fn crlf(limit: usize) -> Self {
        Self::delimiter(&b"\r\n"[..], limit)
    }

    /// Frames that end with exactly these bytes.
    pub fn delimiter(bytes: impl Into<Cow<'static, [u8]>>, limit: usize) -> Self {
        Self::Delimiter { bytes: bytes.into(), limit }
    }

    /// Frames up to and including these bytes: the head of a message with its blank line, for a parser that wants to see it.
    /// The limit counts the delimiter too, so no frame is longer than `limit`.
    pub fn through(bytes: impl Into<Cow<'static, [u8]>>, limit: usize) -> Self {
        Self::Through { bytes: bytes.into(), limit }
    }

    /// One frame of a length that you chose.
    pub fn exactly(bytes: usize) -> Self {
        Self::Length { bytes, limit: bytes }
    }

    /// One frame of a length that the peer chose: beyond `limit` it is refused before it comes.
    pub fn declared(bytes: usize, limit: usize) -> Self {
        Self::Length { bytes, limit }
    }

    /// Everything up to a delimiter, in pieces.
    pub fn stream_until(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::StreamUntil { bytes: bytes.into(), seen: 0 }
    }

    /// Frames after their length, an unsigned integer that counts the frame only.
    /// [`send_prefixed`](crate::Context::send_prefixed) writes them. Nothing is allocated for a length before its bytes
    /// come.
    pub fn prefixed(width: Width, order: Endian, limit: usize) -> Self {
        let limit_with_prefix = limit.saturating_add(width.bytes());
        Self::custom(Prefixed { width, order, limit }, limit_with_prefix)
    }

    /// Netstrings: `5:hello,` (<https://cr.yp.to/proto/netstrings.txt>). [`send_netstring`](crate::Context::send_netstring)
    /// writes them.
    pub fn netstring(limit: usize) -> Self {
        Self::custom(Netstring { limit }, limit.saturating_add(LENGTH_DIGITS_MAX + 2))
    }

    /// Frames cut by the protocol itself, in [`Protocol::cut`](crate::Protocol::cut), which is shown at most `limit` bytes
    /// at once: for a cut that depends on what the protocol knows, or that finds something the protocol has to answer.
    pub fn own(limit: usize) -> Self {
        Self::Own { limit }
    }

    /// Frames cut by your own code, which is shown at most `limit` bytes at once.
    pub fn custom(framer: impl Framer, limit: usize) -> Self {
        Self::Custom { framer: Box::new(framer), limit }
    }
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Line { limit } => write!(f, "Line(limit {limit})"),
            Self::Delimiter { bytes, limit } => write!(f, "Delimiter(\"{}\", limit {limit})", bytes.escape_ascii()),
            Self::Through { bytes, limit } => write!(f, "Through(\"{}\", limit {limit})", bytes.escape_ascii()),
            Self::Length { bytes, limit } => write!(f, "Length({bytes}, limit {limit})"),
            Self::Stream(bytes) => write!(f, "Stream({bytes})"),
            Self::StreamUntil { bytes, seen } => write!(f, "StreamUntil(\"{}\", {seen} seen)", bytes.escape_ascii()),
            Self::Own { limit } => write!(f, "Own(limit {limit})"),
            Self::Custom { limit, .. } => write!(f, "Custom(limit {limit})"),
        }
    }
}

/// Cuts frames in a way of its own, under [`Terminator::custom`]; [the chapter](crate::manual::framing#your-own) has an
/// example.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a framer",
    label = "this has to be a `Framer`",
    note = "write `impl Framer for {Self}`: its `next` says where the next frame ends",
    note = "lines, lengths and delimiters need none: `Terminator` has functions for them"
)]
pub trait Framer: 'static {
    /// Says where the next frame or piece is, or how many bytes it takes to tell.
    ///
    /// `input` begins where the last step ended, is never empty, and is at most as long as the terminator's limit. You may
    /// decode it in place (unmask, unescape). This is called again only when there is as much as it said it needs.
    ///
    /// # Errors
    /// An error ends the connection with [`Reason::Failed`](crate::Reason::Failed); so does a step without progress or
    /// beyond the input.
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault>;
}

/// What a [`Framer`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame: `bytes` of the input go to `frame`, and the input goes on after `consumed`.
    Frame {
        /// Where the frame stands in the input.
        bytes: Range<usize>,
        /// How many bytes are consumed, at least 1.
        consumed: usize,
    },
    /// A part of a frame that is handed over as it comes: `bytes` of the input go to `received`.
    Piece {
        /// Where the piece stands in the input.
        bytes: Range<usize>,
        /// How many bytes are consumed, at least 1.
        consumed: usize,
    },
    /// Ask again when there are this many bytes in all. More than the terminator's limit is `Limit::FrameBytes` at once,
    /// before they come; where that frame ends is not known then, so an `exceeded` that returns `Ok` closes politely.
    Need(usize),
    /// The frame that begins here is too long, and known to have this many bytes: `Limit::FrameBytes` at once. If `exceeded`
    /// returns `Ok`, they are dropped as they come, and the framer is asked for what follows.
    TooLong {
        /// From here to the frame's end, including its prefix: at least 1.
        bytes: u64,
    },
}

/// How wide a length prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }

    /// The prefix for a frame of `length` bytes; `None` if the length does not fit.
    pub(crate) fn encode(self, order: Endian, length: usize) -> Option<([u8; 8], Range<usize>)> {
        let (length, width) = (length as u64, self.bytes());
        if width < 8 && length >> (width * 8) != 0 {
            return None;
        }
        Some(match order {
            Endian::Big => (length.to_be_bytes(), 8 - width..8),
            Endian::Little => (length.to_le_bytes(), 0..width),
        })
    }

    pub(super) fn decode(self, order: Endian, prefix: &[u8]) -> u64 {
        let fold = |length: u64, &byte: &u8| length << 8 | u64::from(byte);
        match order {
            Endian::Big => prefix.iter().fold(0, fold),
            Endian::Little => prefix.iter().rev().fold(0, fold),
        }
    }
}

/// The order of a length prefix's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Most significant first: network order.
    Big,
    /// Least significant first.
    Little,
}
