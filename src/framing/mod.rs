//! Where a frame ends: [`Terminator`] is what you say, `Framing` is what the loop keeps of it. Pure: no socket, no callback,
//! no clock. A search never starts over: what was searched once is not searched again, except for the last few bytes in
//! which a delimiter may have begun.

mod terminator;
mod until;
mod custom;
mod skip;
mod framers;
mod needle;
mod buffers;
mod input;

use crate::{reason::Fault, seldom::Apart};
pub(crate) use buffers::{COPY_MAX, ReadBuffers};
use custom::Custom;
pub(crate) use input::Input;
pub(crate) use needle::Needle;
use skip::Skip;
use std::fmt;
pub use terminator::{Endian, Framer, Step, Terminator, Width};
use until::Until;

/// A terminator at work. 24 bytes, because every connection has one.
#[derive(Default)]
pub(crate) enum Framing {
    #[default]
    None,
    Line {
        limit: usize,
    },
    Delimiter {
        needle: Needle,
        bound: Bound,
    },
    Length {
        bytes: usize,
        limit: usize,
    },
    /// `begun`: some of it has come.
    Stream {
        left: u64,
        begun: bool,
    },
    Until(Apart<Until>),
    Custom(Apart<Custom>),
    /// The rest of a refused frame is dropped.
    Skip(Apart<Skip>),
}

/// How long a frame may be, and whether its delimiter is part of it: in one word, because every connection has room for it.
#[derive(Clone, Copy)]
pub(crate) struct Bound(usize);

/// What is done under a terminator. Whoever sets one names it, so that a program that sets none links nothing of it.
pub(crate) struct Cutting {
    next: fn(&mut Framing, &mut Input) -> Found,
    pub(crate) skip: fn(&mut Framing, bool) -> bool,
    pub(crate) said: fn(&mut Framing, Result<Step, Fault>, usize, &mut Input),
}

impl Cutting {
    /// As long as no connection has a terminator.
    pub(crate) const NONE: &Self = &Self { next: |_, _| Found::Nothing, skip: |_, _| false, said: |_, _, _, _| {} };
    pub(crate) const ALL: &Self = &Self { next: Framing::next_other, skip: Framing::skip, said: Framing::said };
}

/// What is next in the input: a frame or piece is [`Input::given`].
pub(crate) enum Found {
    Frame,
    Piece,
    /// Nothing until more bytes come.
    Nothing,
    /// The frame is beyond its limit: `skip` it, or end.
    TooLong,
    /// The protocol has to say where this many unread bytes are cut, [`Framing::said`]; then this is asked again.
    Asks(usize),
    /// The framer failed: [`Framing::take_fault`].
    Broken,
}

impl From<Terminator> for Framing {
    fn from(terminator: Terminator) -> Self {
        match terminator {
            Terminator::None => Self::None,
            Terminator::Line { limit } => Self::Line { limit },
            Terminator::Delimiter { bytes, .. } | Terminator::Through { bytes, .. } | Terminator::StreamUntil { bytes, .. }
                if bytes.is_empty() =>
            {
                Self::None
            }
            Terminator::Delimiter { bytes, limit } => {
                Self::Delimiter { needle: Needle::new(&bytes), bound: Bound::new(limit, false) }
            }
            Terminator::Through { bytes, limit } => {
                Self::Delimiter { needle: Needle::new(&bytes), bound: Bound::new(limit, true) }
            }
            Terminator::Length { bytes, limit } => Self::Length { bytes, limit },
            Terminator::Stream(left) => Self::Stream { left, begun: false },
            Terminator::StreamUntil { bytes, seen } => {
                let seen = seen.min(bytes.len() - 1);
                Self::Until(Apart::new(Until { needle: Needle::new(&bytes), seen, begun: false }))
            }
            Terminator::Own { limit } => Self::Custom(Apart::new(Custom::new(None, limit))),
            Terminator::Custom { framer, limit } => Self::Custom(Apart::new(Custom::new(Some(framer), limit))),
        }
    }
}

impl Framing {
    /// As in [`Terminator`], and `Skip`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Line { .. } => "Line",
            Self::Delimiter { bound, .. } if bound.is_through() => "Through",
            Self::Delimiter { .. } => "Delimiter",
            Self::Length { .. } => "Length",
            Self::Stream { .. } => "Stream",
            Self::Until(_) => "StreamUntil",
            Self::Custom(custom) if custom.framer.is_none() => "Own",
            Self::Custom(_) => "Custom",
            Self::Skip(_) => "Skip",
        }
    }

    /// Sets it from here on. While a refused frame is being skipped, it applies after that. If the previous one was a framer
    /// of the program, it is returned, because its `drop` may panic.
    pub(crate) fn set(&mut self, terminator: Terminator) -> Option<Apart<Custom>> {
        let place = if let Self::Skip(skip) = self { skip.then.get_or_insert_default() } else { self };
        match std::mem::replace(place, terminator.into()) {
            Self::Custom(custom) => Some(custom),
            _ => None,
        }
    }

    /// What the protocol says of the bytes that it was shown, the first of the input: what follows from it is found next.
    fn said(&mut self, step: Result<Step, Fault>, shown: usize, input: &mut Input) {
        let asked = if let Self::Skip(skip) = self { &mut skip.rest } else { self };
        if let Self::Custom(custom) = asked {
            custom.said = Some(step.and_then(|step| custom.follow(step, shown, input)));
        }
    }

    /// What a framer failed with.
    pub(crate) fn take_fault(&mut self) -> Fault {
        let asked = if let Self::Skip(skip) = self { &mut skip.rest } else { self };
        let said = if let Self::Custom(custom) = asked { custom.said.take() } else { None };
        said.and_then(Result::err).unwrap_or_else(|| "a framer failed".into())
    }

    /// This many bytes of the piece that it has just handed over are unread again. If another terminator was set since then,
    /// that one has counted nothing yet.
    pub(crate) fn counts_again(&mut self, bytes: usize) {
        if let Self::Stream { left, begun: true } = self {
            *left += bytes as u64;
        }
    }

    /// Whether it may find something without any further byte.
    #[inline]
    pub(crate) fn fires_on_nothing(&self) -> bool {
        match self {
            Self::Length { bytes, limit } => *bytes == 0 || bytes > limit,
            Self::Stream { left, .. } => *left == 0,
            _ => false,
        }
    }

    /// Whether a frame was begun of which `unread` bytes are held; a refused one does not count.
    pub(crate) fn is_amid(&self, unread: usize) -> bool {
        match self {
            Self::None | Self::Skip(_) => false,
            Self::Stream { begun, .. } => *begun,
            Self::Until(until) => until.begun || unread > 0,
            Self::Custom(custom) => custom.begun || unread > 0,
            _ => unread > 0,
        }
    }

    /// Whether the rest of a refused frame is being dropped.
    pub(crate) fn is_skipping(&self) -> bool {
        matches!(self, Self::Skip(_))
    }

    /// Which of the unread bytes are handed over with `eof`: all, except for the rest of a frame that was refused.
    pub(crate) fn has_tail(&self) -> bool {
        !self.is_skipping()
    }

    /// The next frame or piece; each call makes progress or returns [`Found::Nothing`].
    pub(crate) fn next(&mut self, input: &mut Input) -> Found {
        self.next_by(Cutting::ALL, input)
    }

    #[inline(always)]
    pub(crate) fn next_by(&mut self, cutting: &Cutting, input: &mut Input) -> Found {
        match self {
            Self::None if input.is_empty() => Found::Nothing,
            Self::None => {
                input.take(input.len(), input.len());
                Found::Piece
            }
            Self::Line { limit } => next_line(*limit, input),
            _ => (cutting.next)(self, input),
        }
    }

    fn next_other(&mut self, input: &mut Input) -> Found {
        match self {
            Self::None | Self::Line { .. } => unreachable!("`next` knows them"),
            Self::Delimiter { needle, bound } => next_delimited(needle, *bound, input),
            Self::Length { bytes, limit } if *bytes > *limit => Found::TooLong,
            Self::Length { bytes, .. } if input.len() < *bytes => Found::Nothing,
            Self::Length { bytes, .. } => {
                input.take(*bytes, *bytes);
                *self = Self::None;
                Found::Frame
            }
            Self::Stream { left: 0, .. } => {
                *self = Self::None;
                input.take(0, 0);
                Found::Frame
            }
            Self::Stream { .. } if input.is_empty() => Found::Nothing,
            Self::Stream { left, begun } => {
                let piece = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= piece as u64;
                *begun = true;
                input.take(piece, piece);
                Found::Piece
            }
            Self::Until(until) => until.next(input),
            Self::Custom(custom) => custom.next(input),
            Self::Skip(_) => self.next_behind_skip(input),
        }
    }
}

#[inline(always)]
fn next_line(limit: usize, input: &mut Input) -> Found {
    let Some(end) = input.find(b'\n') else { return unfinished_line(limit, input) };
    let length = line_length(input, end);
    if length > limit {
        return Found::TooLong;
    }
    input.take(length, end + 1);
    Found::Frame
}

#[inline(never)]
fn unfinished_line(limit: usize, input: &mut Input) -> Found {
    input.mark_searched();
    if line_length(input, input.len()) > limit { Found::TooLong } else { Found::Nothing }
}

/// Without the CR of a CRLF.
#[inline]
fn line_length(input: &Input, end: usize) -> usize {
    end - usize::from(input.ends_with_at(b'\r', end))
}

fn next_delimited(needle: &Needle, bound: Bound, input: &mut Input) -> Found {
    let delimiter = needle.bytes().len();
    let (kept, limit) = (if bound.is_through() { delimiter } else { 0 }, bound.limit());
    let found = needle.find_in(input);
    // The search for the half-seen delimiter is worth its time only where it decides.
    let is_too_long = match found {
        Some(end) => end + kept > limit,
        None if input.is_empty() => false,
        None => input.len() + kept > limit && input.len() - needle.begun(input.unread()) + kept > limit,
    };
    match found {
        _ if is_too_long => Found::TooLong,
        Some(end) => {
            input.take(end + kept, end + delimiter);
            Found::Frame
        }
        None => Found::Nothing,
    }
}

impl Bound {
    const THROUGH: usize = 1 << (usize::BITS - 1);

    /// Nobody can hold more than half of the address space, so one bit is free.
    fn new(limit: usize, is_through: bool) -> Self {
        Self(limit.min(!Self::THROUGH) | if is_through { Self::THROUGH } else { 0 })
    }

    fn limit(self) -> usize {
        self.0 & !Self::THROUGH
    }

    fn is_through(self) -> bool {
        self.0 & Self::THROUGH != 0
    }
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    /// What a protocol would be called with; pieces that touch are joined.
    #[derive(Debug, PartialEq)]
    enum Call {
        Frame(Vec<u8>),
        Pieces(Vec<u8>),
        TooLong,
    }

    fn feed(framing: &mut Framing, input: &mut Input, bytes: &[u8], calls: &mut Vec<Call>) {
        input.room(bytes.len().max(1))[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
        loop {
            match framing.next(input) {
                Found::Frame => calls.push(Call::Frame(input.given().to_vec())),
                Found::Piece => match calls.last_mut() {
                    Some(Call::Pieces(pieces)) => pieces.extend_from_slice(input.given()),
                    _ => calls.push(Call::Pieces(input.given().to_vec())),
                },
                Found::Nothing => break,
                Found::TooLong => {
                    calls.push(Call::TooLong);
                    assert!(framing.skip(true));
                }
                Found::Broken => panic!("{}", framing.take_fault()),
                Found::Asks(_) => unreachable!("no protocol cuts"),
            }
        }
    }

    /// Checks that every cut in two and in three, and single bytes, give the same calls and the same rest.
    fn every_cut(terminator: impl Fn() -> Terminator, bytes: &[u8]) -> (Vec<Call>, Vec<u8>) {
        let run = |cuts: &[usize]| {
            let (mut framing, mut input, mut calls) = (terminator().into(), Input::default(), Vec::new());
            let mut from = 0;
            for &to in cuts.iter().chain([&bytes.len()]) {
                feed(&mut framing, &mut input, &bytes[from..to], &mut calls);
                from = to;
            }
            (calls, input.unread().to_vec())
        };
        let whole = run(&[]);
        for a in 0..=bytes.len() {
            for b in a..=bytes.len() {
                assert_eq!(run(&[a, b]), whole, "cut at {a} and {b}");
            }
        }
        assert_eq!(run(&(0..bytes.len()).collect::<Vec<_>>()), whole, "single bytes");
        whole
    }

    fn frames(frames: &[&str]) -> Vec<Call> {
        frames.iter().map(|frame| Call::Frame(frame.as_bytes().to_vec())).collect()
    }

    #[test]
    fn framing_stays_small() {
        assert!(size_of::<Framing>() <= 24);
    }

    #[test]
    fn lines_take_lf_and_crlf_and_crlf_takes_crlf_only() {
        let text = b"one\r\n\ntwo\nthr\ree\r\n\r\r\nrest\r";
        assert_eq!(every_cut(|| Terminator::line(99), text), (frames(&["one", "", "two", "thr\ree", "\r"]), b"rest\r".to_vec()));
        assert_eq!(every_cut(|| Terminator::crlf(99), text), (frames(&["one", "\ntwo\nthr\ree", "\r"]), b"rest\r".to_vec()));
    }

    #[test]
    fn self_overlapping_delimiters_are_found_first() {
        assert_eq!(every_cut(|| Terminator::delimiter(&b"aab"[..], 99), b"xaaabyaab"), (frames(&["xa", "y"]), vec![]));
        assert_eq!(every_cut(|| Terminator::delimiter(&b"aa"[..], 99), b"aaaxaa"), (frames(&["", "ax"]), vec![]));
        assert_eq!(every_cut(|| Terminator::delimiter(&b"abab"[..], 99), b"ababab abab"), (frames(&["", "ab "]), vec![]));
    }

    #[test]
    fn a_frame_through_its_delimiter_has_it_and_its_limit_counts_it() {
        let through = |bytes: &'static [u8], limit| move || Terminator::through(bytes, limit);
        assert_eq!(every_cut(through(b"\n", 9), b"a\r\n\nb").0, frames(&["a\r\n", "\n"]));
        assert_eq!(every_cut(through(b"\r\n", 9), b"a\n\r\n\r\r\n").0, frames(&["a\n\r\n", "\r\r\n"]));
        assert_eq!(every_cut(through(b"abab", 9), b"ababab abab"), (frames(&["abab", "ab abab"]), vec![]));
        assert_eq!(
            every_cut(through(b"--==", 7), b"abc--==abcd----==x--==--"),
            ([frames(&["abc--=="]), vec![Call::TooLong], frames(&["x--=="])].into_iter().flatten().collect(), b"--".to_vec())
        );
        assert_eq!(every_cut(through(b"--==", 3), b"--==").0, [Call::TooLong], "not even the delimiter alone is so short");
        assert_eq!(every_cut(through(b"--==", usize::MAX), b"x--==").0, frames(&["x--=="]));
        assert!(matches!(after(through(b"--==", 0)(), b"").2, Found::Nothing), "what has not come is not too long");
    }

    #[test]
    fn a_frame_as_long_as_its_limit_passes_and_one_byte_more_is_skipped() {
        assert_eq!(
            every_cut(|| Terminator::line(3), b"abc\r\nabcd\nx\n"),
            ([frames(&["abc"]), vec![Call::TooLong], frames(&["x"])].into_iter().flatten().collect(), vec![])
        );
        assert_eq!(
            every_cut(|| Terminator::delimiter(&b"--=="[..], 3), b"abc--==abcd----==x--==--"),
            ([frames(&["abc"]), vec![Call::TooLong], frames(&["x"])].into_iter().flatten().collect(), b"--".to_vec())
        );
    }

    /// What the terminator says once these bytes have come, and the terminator itself.
    fn after(terminator: Terminator, bytes: &[u8]) -> (Framing, Input, Found) {
        let (mut framing, mut input) = (Framing::from(terminator), Input::default());
        input.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        input.filled(bytes.len());
        let found = framing.next(&mut input);
        (framing, input, found)
    }

    #[test]
    fn a_frame_beyond_its_limit_is_refused_before_its_end_comes_and_a_delimiter_may_take_its_time() {
        let line = || Terminator::line(3);
        let long = || Terminator::delimiter(&b"--=="[..], 3);
        let through = || Terminator::through(&b"--=="[..], 7);
        let too_long: [(Terminator, &[u8]); 6] = [
            (line(), b"abcd"),
            (line(), b"abc\rd"),
            (long(), b"abcd"),
            (long(), b"abc--d"),
            (through(), b"abcd"),
            (through(), b"abc--d"),
        ];
        for (terminator, bytes) in too_long {
            assert!(matches!(after(terminator, bytes).2, Found::TooLong), "{}", bytes.escape_ascii());
        }
        let not_yet: [(Terminator, &[u8]); 6] = [
            (line(), b"abc"),
            (line(), b"abc\r"),
            (long(), b"abc"),
            (long(), b"abc--="),
            (through(), b"abc"),
            (through(), b"abc--="),
        ];
        for (terminator, bytes) in not_yet {
            assert!(matches!(after(terminator, bytes).2, Found::Nothing), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_delimiter_at_all_is_no_terminator() {
        assert!(matches!(Framing::from(Terminator::delimiter(&b""[..], 9)), Framing::None));
        assert!(matches!(Framing::from(Terminator::through(&b""[..], 9)), Framing::None));
        assert!(matches!(Framing::from(Terminator::stream_until(&b""[..])), Framing::None));
    }

    #[test]
    fn a_framing_goes_by_the_name_of_its_terminator() {
        let name = |terminator: Terminator| Framing::from(terminator).name();
        assert_eq!(name(Terminator::None), "None");
        assert_eq!(name(Terminator::line(9)), "Line");
        assert_eq!(name(Terminator::crlf(9)), "Delimiter");
        assert_eq!(name(Terminator::through(&b"\n"[..], 9)), "Through");
        assert_eq!(name(Terminator::exactly(9)), "Length");
        assert_eq!(name(Terminator::Stream(9)), "Stream");
        assert_eq!(name(Terminator::stream_until(&b"."[..])), "StreamUntil");
        assert_eq!(name(Terminator::netstring(9)), "Custom");
        let (mut framing, ..) = after(Terminator::line(1), b"ab");
        assert!(framing.skip(true));
        assert_eq!(framing.name(), "Skip");
    }

    #[test]
    fn only_a_length_of_nothing_or_beyond_its_limit_fires_on_nothing() {
        let fires = |terminator: Terminator| Framing::from(terminator).fires_on_nothing();
        assert!(fires(Terminator::exactly(0)) && fires(Terminator::declared(5, 4)) && fires(Terminator::Stream(0)));
        let waits =
            [Terminator::exactly(4), Terminator::declared(3, 4), Terminator::Stream(1), Terminator::None, Terminator::line(0)];
        assert!(!waits.into_iter().any(fires));
    }

    #[test]
    fn a_frame_is_amid_once_something_of_it_has_come() {
        let amid = |terminator: Terminator, bytes: &[u8]| {
            let (framing, input, _) = after(terminator, bytes);
            framing.is_amid(input.len())
        };
        let until = || Terminator::stream_until(&b"--"[..]);
        assert!(amid(Terminator::line(9), b"x") && !amid(Terminator::line(9), b"") && !amid(Terminator::line(9), b"x\n"));
        assert!(amid(Terminator::exactly(2), b"x") && !amid(Terminator::exactly(2), b""));
        assert!(amid(until(), b"x") && amid(until(), b"-") && !amid(until(), b"") && !amid(until(), b"--"));
        assert!(amid(Terminator::netstring(9), b"1") && !amid(Terminator::netstring(9), b""));
        assert!(amid(Terminator::Stream(2), b"x") && !amid(Terminator::Stream(2), b""));
        // Their bytes are handed over as they come, so what is unread says nothing.
        assert!(!Framing::from(Terminator::Stream(2)).is_amid(1) && !Framing::from(Terminator::None).is_amid(1));
    }

    #[test]
    fn a_framer_is_amid_after_a_piece_until_its_frame() {
        struct Steps(Vec<Step>);
        impl Framer for Steps {
            fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
                Ok(self.0.remove(0))
            }
        }
        let (piece, frame) = (Step::Piece { bytes: 0..1, consumed: 1 }, Step::Frame { bytes: 0..1, consumed: 1 });
        let steps = vec![Step::Need(2), piece, Step::Need(3), frame.clone(), Step::Need(4), frame];
        let mut framing = Framing::from(Terminator::custom(Steps(steps), 9));
        let mut input = Input::default();
        for amid in [false, true, true, false, false, false] {
            input.room(1)[0] = b'x';
            input.filled(1);
            assert!(!matches!(framing.next(&mut input), Found::Broken | Found::TooLong));
            assert_eq!(framing.is_amid(0), amid);
        }
    }

    #[test]
    fn the_rest_of_what_is_skipped_is_no_tail_and_ends_where_its_frame_would() {
        let kinds: [(fn() -> Terminator, &[u8], &[u8]); 6] = [
            (|| Terminator::line(9), b"ab", b"c\n"),
            (|| Terminator::delimiter(&b"--"[..], 9), b"ab-", b"-"),
            (|| Terminator::through(&b"--"[..], 9), b"ab-", b"-"),
            (|| Terminator::stream_until(&b"--"[..]), b"ab", b"cd--"),
            (|| Terminator::exactly(5), b"ab", b"cde"),
            (|| Terminator::Stream(5), b"ab", b"cde"),
        ];
        for (terminator, begin, rest) in kinds {
            for cut in 0..rest.len() {
                let (mut framing, mut input, mut calls) = (Framing::from(terminator()), Input::default(), vec![]);
                feed(&mut framing, &mut input, begin, &mut calls);
                calls.clear();
                assert!(framing.has_tail() && framing.skip(true));
                framing.set(Terminator::line(9));
                for part in [&rest[..cut], &rest[cut..]] {
                    assert!(!framing.has_tail() && !framing.is_amid(1), "{:?} cut at {cut}", terminator());
                    feed(&mut framing, &mut input, part, &mut calls);
                }
                assert!(framing.has_tail(), "{:?} cut at {cut}", terminator());
                feed(&mut framing, &mut input, b"x\n", &mut calls);
                assert_eq!(calls, frames(&["x"]), "{:?} cut at {cut}", terminator());
            }
        }
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_before_it_comes() {
        let mut framing = Framing::from(Terminator::declared(11, 10));
        assert!(framing.fires_on_nothing());
        assert!(matches!(framing.next(&mut Input::default()), Found::TooLong));
        assert_eq!(
            every_cut(|| Terminator::declared(5, 4), b"12345rest"),
            (vec![Call::TooLong, Call::Pieces(b"rest".to_vec())], vec![])
        );
    }

    #[test]
    fn lengths_fire_once_and_fall_back_to_none() {
        let rest = || Call::Pieces(b"xy".to_vec());
        assert_eq!(every_cut(|| Terminator::exactly(3), b"abcxy").0, [Call::Frame(b"abc".to_vec()), rest()]);
        assert_eq!(every_cut(|| Terminator::exactly(3), b"abc").0, frames(&["abc"]));
        assert_eq!(every_cut(|| Terminator::exactly(0), b"xy").0, [Call::Frame(vec![]), rest()]);
        assert_eq!(every_cut(|| Terminator::Stream(3), b"abcxy").0, [Call::Pieces(b"abc".to_vec()), Call::Frame(vec![]), rest()]);
        assert_eq!(every_cut(|| Terminator::Stream(0), b"xy").0, [Call::Frame(vec![]), rest()]);
    }

    #[test]
    fn a_stream_until_hands_over_false_alarms_and_holds_back_only_a_prefix() {
        let until = || Terminator::stream_until(&b"\r\n.\r\n"[..]);
        let pieces = |text: &str| Call::Pieces(text.into());
        assert_eq!(
            every_cut(until, b"a\r\n.b\r\n\r\n.\r\n\r\n.\r\nrest\r\n."),
            (vec![pieces("a\r\n.b\r\n"), Call::Frame(vec![]), Call::Frame(vec![]), pieces("rest")], b"\r\n.".to_vec())
        );
        let mut framing = Framing::from(until());
        let (mut input, mut calls) = (Input::default(), vec![]);
        feed(&mut framing, &mut input, &[b'x'; 5000], &mut calls);
        feed(&mut framing, &mut input, b"\r\n.", &mut calls);
        assert_eq!(input.unread(), b"\r\n.");
    }

    #[test]
    fn a_delimiter_may_have_begun_before() {
        let seen = |seen| move || Terminator::StreamUntil { bytes: Cow::Borrowed(b"\r\n.\r\n"), seen };
        assert_eq!(every_cut(seen(2), b".\r\nNEXT\r\n.\r\n").0[0], Call::Frame(vec![]));
        assert_eq!(every_cut(seen(2), b".\r").0, []);
        assert_eq!(every_cut(seen(2), b"..\r\n.\r\n").0, [Call::Pieces(b"..".to_vec()), Call::Frame(vec![])]);
        // Of "\r\n.\r" only the last byte can still begin one.
        assert_eq!(every_cut(seen(4), b"\n\r\n.\r\n").0, [Call::Frame(vec![]), Call::Frame(vec![])]);
        assert_eq!(every_cut(seen(4), b"x\r\n.\r\n").0, [Call::Pieces(b"x".to_vec()), Call::Frame(vec![])]);
        assert_eq!(every_cut(seen(4), b"\n.\r\n").0[0], Call::Frame(vec![]));
        assert_eq!(every_cut(seen(99), b"\n.\r\n"), every_cut(seen(4), b"\n.\r\n"), "at most all but one can have come");
        let overlapping = || Terminator::StreamUntil { bytes: Cow::Borrowed(b"aab"), seen: 2 };
        assert_eq!(every_cut(overlapping, b"ab").0, [Call::Frame(vec![])]);
    }

    #[test]
    fn prefixes_of_every_width_and_order_are_read_as_they_are_written() {
        for width in [Width::U8, Width::U16, Width::U32, Width::U64] {
            for order in [Endian::Big, Endian::Little] {
                let mut bytes = Vec::new();
                for frame in [&b"hello"[..], b"", b"x"] {
                    let (prefix, used) = width.encode(order, frame.len()).expect("short");
                    bytes.extend([&prefix[used], frame].concat());
                }
                bytes.truncate(bytes.len() - 1);
                let calls = every_cut(|| Terminator::prefixed(width, order, 5), &bytes).0;
                assert_eq!(calls, frames(&["hello", ""]));
            }
        }
        for width in [Width::U16, Width::U32, Width::U64] {
            for order in [Endian::Big, Endian::Little] {
                for length in [255, 256, 0x0102, 0xffff] {
                    let (prefix, used) = width.encode(order, length).expect("two bytes are enough");
                    assert_eq!(width.decode(order, &prefix[used]), length as u64);
                }
            }
        }
        assert!(Width::U8.encode(Endian::Big, 256).is_none() && Width::U16.encode(Endian::Big, 1 << 16).is_none());
    }

    #[test]
    fn a_hostile_prefix_is_refused_at_once() {
        for prefix in [&b"\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x00\x00\x00\x00\x00\x00\x00\x06"] {
            let mut framing = Framing::from(Terminator::prefixed(Width::U64, Endian::Big, 5));
            let mut input = Input::default();
            input.room(8)[..8].copy_from_slice(prefix);
            input.filled(8);
            assert!(matches!(framing.next(&mut input), Found::TooLong));
            assert!(framing.skip(true), "its end is known");
        }
    }

    #[test]
    fn netstrings_are_read_and_malformed_ones_refused() {
        assert_eq!(
            every_cut(|| Terminator::netstring(12), b"5:hello,0:,12:hello world!,").0,
            frames(&["hello", "", "hello world!"])
        );
        let first = |bytes: &[u8]| {
            let mut input = Input::default();
            input.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            input.filled(bytes.len());
            Framing::from(Terminator::netstring(12)).next(&mut input)
        };
        for bad in [&b":,"[..], b"x", b"5;", b"05:hello,", b"1:ab", b"-1:"] {
            assert!(matches!(first(bad), Found::Broken), "{}", bad.escape_ascii());
        }
        for long in [&b"13:"[..], b"18446744073709551616:", b"99999999999999999999999"] {
            assert!(matches!(first(long), Found::TooLong), "{}", long.escape_ascii());
        }
    }

    #[test]
    fn a_framer_that_makes_no_progress_or_points_beyond_its_input_is_broken() {
        struct Fixed(Step);
        impl Framer for Fixed {
            fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
                Ok(self.0.clone())
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "a framer may say anything")]
        let bad = [
            Step::Frame { bytes: 0..0, consumed: 0 },
            Step::Piece { bytes: 0..1, consumed: 0 },
            Step::Frame { bytes: 0..5, consumed: 1 },
            Step::Piece { bytes: 3..1, consumed: 1 },
            Step::Frame { bytes: 0..1, consumed: 5 },
            Step::Need(4),
            Step::Need(0),
        ];
        for step in bad {
            let mut input = Input::default();
            input.room(4)[..4].copy_from_slice(b"abcd");
            input.filled(4);
            let found = Framing::from(Terminator::custom(Fixed(step.clone()), 10)).next(&mut input);
            assert!(matches!(found, Found::Broken), "{step:?}");
        }
    }

    #[test]
    fn a_framer_is_shown_no_more_than_its_limit_and_asked_no_earlier_than_it_said() {
        struct Triples {
            asked_for: usize,
        }
        impl Framer for Triples {
            fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
                assert!((self.asked_for..=3).contains(&input.len()), "shown {}", input.len());
                self.asked_for = if input.len() < 3 { 3 } else { 1 };
                Ok(if input.len() < 3 { Step::Need(3) } else { Step::Frame { bytes: 0..3, consumed: 3 } })
            }
        }
        let calls = every_cut(|| Terminator::custom(Triples { asked_for: 1 }, 3), b"abcdef").0;
        assert_eq!(calls, frames(&["abc", "def"]));
    }

    #[test]
    fn the_longest_begun_prefix_is_held_back() {
        let begun = |needle: &[u8], hay: &[u8]| Needle::new(needle).begun(hay);
        assert_eq!(begun(b"\r\n", b"qwerty\r"), 1);
        assert_eq!(begun(b"\r\n", b"qwertydkjf"), 0);
        assert_eq!(begun(b"aab", b"xaaa"), 2);
        assert_eq!(begun(b"abcab", b"abcab"), 2);
        assert_eq!(begun(b"\n", b"\n"), 0);
        assert_eq!(begun(b"abc", b""), 0);
    }

    #[test]
    fn everything_that_came_counts_as_searched() {
        let long = &b"--=="[..];
        let searching =
            [Terminator::line(99), Terminator::crlf(99), Terminator::delimiter(long, 99), Terminator::through(long, 99)];
        for terminator in searching {
            let (mut framing, mut input, mut calls) = (Framing::from(terminator), Input::default(), vec![]);
            feed(&mut framing, &mut input, b"neither here nor there\r--=", &mut calls);
            assert_eq!(input.searched(), input.len());
        }
    }

    #[test]
    fn what_was_searched_is_not_searched_again() {
        // A megabyte of lone CR, one byte a read: quadratic searching would take minutes.
        let needle = &b"\r\r\n"[..];
        for (terminator, kept) in [(Terminator::delimiter(needle, usize::MAX), 0), (Terminator::through(needle, usize::MAX), 3)] {
            let mut framing = Framing::from(terminator);
            let (mut input, mut calls) = (Input::default(), vec![]);
            for _ in 0..1 << 20 {
                feed(&mut framing, &mut input, b"\r", &mut calls);
            }
            feed(&mut framing, &mut input, b"\n", &mut calls);
            assert!(matches!(&calls[..], [Call::Frame(frame)] if frame.len() == (1 << 20) - 2 + kept));
        }
    }
}
