//! What a peer says and what a protocol answers, as the fuzzer made it up.

use super::Tape;
use mainspring::{Endian, Fault, Framer, Step, Terminator, Width};

/// Of one run, when all repetitions are written out. Long enough for a buffer of its own (see src/framing/buffers.rs).
const BODY_MAX: usize = 8 << 10;

/// So many bytes come one by one; the rest would take its time and show nothing else.
const BYTEWISE_MAX: usize = 300;

/// What bodies and delimiters are mostly made of, so that they meet.
const LETTERS: [u8; 8] = *b"ab\r\n0:,1";

/// A terminator that can be made again and again.
#[derive(Clone, Debug)]
pub(super) enum Term {
    None,
    Line(usize),
    Delimiter(Vec<u8>, usize),
    Through(Vec<u8>, usize),
    Length(usize, usize),
    Stream(u64),
    Until(Vec<u8>, usize),
    Prefixed(Width, Endian, usize),
    Netstring(usize),
    Triples(usize),
    Chunked(usize),
}

impl Term {
    pub(super) fn made_up(tape: &mut Tape<'_>) -> Self {
        let kind = tape.byte();
        match kind % 10 {
            0 => Self::None,
            1 => Self::Line(limit(tape)),
            2 if kind >= 128 => Self::Through(delimiter(tape), limit(tape)),
            2 => Self::Delimiter(delimiter(tape), limit(tape)),
            3 => Self::Length(tape.size(), limit(tape)),
            4 => Self::Stream(tape.number()),
            5 => Self::Until(delimiter(tape), tape.below(8)),
            6 => Self::Prefixed(width(tape), order(tape), limit(tape)),
            7 => Self::Netstring(limit(tape)),
            8 => Self::Triples(limit(tape)),
            _ => Self::Chunked(limit(tape)),
        }
    }

    pub(super) fn make(&self) -> Terminator {
        match self {
            Self::None => Terminator::None,
            Self::Line(limit) => Terminator::line(*limit),
            Self::Delimiter(bytes, limit) => Terminator::delimiter(bytes.clone(), *limit),
            Self::Through(bytes, limit) => Terminator::through(bytes.clone(), *limit),
            Self::Length(bytes, limit) => Terminator::declared(*bytes, *limit),
            Self::Stream(bytes) => Terminator::Stream(*bytes),
            Self::Until(bytes, seen) => Terminator::StreamUntil { bytes: bytes.clone().into(), seen: *seen },
            Self::Prefixed(width, order, limit) => Terminator::prefixed(*width, *order, *limit),
            Self::Netstring(limit) => Terminator::netstring(*limit),
            Self::Triples(limit) => Terminator::custom(Triples, *limit),
            Self::Chunked(limit) => Terminator::custom(Chunked { left: 0 }, *limit),
        }
    }
}

fn limit(tape: &mut Tape<'_>) -> usize {
    match tape.below(8) {
        0..4 => tape.below(24),
        4..6 => tape.size(),
        _ => usize::MAX,
    }
}

fn delimiter(tape: &mut Tape<'_>) -> Vec<u8> {
    (0..tape.below(7)).map(|_| LETTERS[tape.below(4)]).collect()
}

pub(super) fn width(tape: &mut Tape<'_>) -> Width {
    [Width::U8, Width::U16, Width::U32, Width::U64][tape.below(4)]
}

pub(super) fn order(tape: &mut Tape<'_>) -> Endian {
    [Endian::Big, Endian::Little][tape.below(2)]
}

/// Frames of three bytes.
struct Triples;

impl Framer for Triples {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(if input.len() < 3 { Step::Need(3) } else { Step::Frame { bytes: 0..3, consumed: 3 } })
    }
}

/// A digit, then a piece of so many bytes, handed over as it comes; after a zero, the frame.
struct Chunked {
    left: usize,
}

impl Framer for Chunked {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        if self.left > 0 {
            let piece = self.left.min(input.len());
            self.left -= piece;
            return Ok(Step::Piece { bytes: 0..piece, consumed: piece });
        }
        match input[0] {
            b'0' => Ok(Step::Frame { bytes: 1..1, consumed: 1 }),
            digit @ b'1'..=b'9' => {
                self.left = usize::from(digit - b'0') * 16;
                Ok(Step::Piece { bytes: 0..0, consumed: 1 })
            }
            other => Err(format!("{other} is no digit").into()),
        }
    }
}

/// What `exceeded` answers.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Err,
    Ok,
    OkAndSet(Term),
}

/// What happens from outside, between two bytes.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Set(Term),
    /// The time of the frame that has begun, if one has, is over.
    TimeOut,
}

/// A whole conversation.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) first: Term,
    /// Set after each frame, one by one; `None` sets nothing. What was set last stays.
    pub(super) after_frames: Vec<Option<Term>>,
    /// So many bytes of that frame are put back before.
    pub(super) put_back: Vec<usize>,
    /// To each `exceeded`; then `Err`.
    pub(super) answers: Vec<Answer>,
    /// After so many bytes, in order.
    pub(super) events: Vec<(usize, Event)>,
    /// After so many bytes, in order; together with those of the events.
    pub(super) cuts: Vec<usize>,
    pub(super) body: Vec<u8>,
}

impl Script {
    pub(super) fn made_up(tape: &mut Tape<'_>) -> Self {
        let first = Term::made_up(tape);
        let (after_frames, put_back) = (0..tape.below(7)).map(|_| after_frame(tape)).unzip();
        let answers = (0..tape.below(4)).map(|_| answer(tape)).collect();
        let events: Vec<_> = (0..tape.below(8).saturating_sub(4)).map(|_| (tape.size(), event(tape))).collect();
        let wanted: Vec<usize> = (0..tape.below(9)).map(|_| tape.size()).collect();
        let is_bytewise = tape.once_in(16);
        let body = body(tape);
        let place = |at: usize| at % (body.len() + 1);
        let mut events: Vec<_> = events.into_iter().map(|(at, event)| (place(at), event)).collect();
        events.sort_by_key(|&(at, _)| at);
        let mut cuts: Vec<usize> = wanted.into_iter().map(place).chain(events.iter().map(|&(at, _)| at)).collect();
        if is_bytewise {
            cuts.extend(0..body.len().min(BYTEWISE_MAX));
        }
        cuts.sort_unstable();
        cuts.dedup();
        Self { first, after_frames, put_back, answers, events, cuts, body }
    }
}

/// Another terminator, and how much is put back for it.
fn after_frame(tape: &mut Tape<'_>) -> (Option<Term>, usize) {
    let byte = tape.byte();
    let sets = byte % 2 == 1;
    (sets.then(|| Term::made_up(tape)), if sets && byte >= 128 { usize::from(byte >> 1) % 8 } else { 0 })
}

fn answer(tape: &mut Tape<'_>) -> Answer {
    match tape.below(4) {
        0 => Answer::Err,
        1 | 2 => Answer::Ok,
        _ => Answer::OkAndSet(Term::made_up(tape)),
    }
}

fn event(tape: &mut Tape<'_>) -> Event {
    if tape.once_in(2) { Event::TimeOut } else { Event::Set(Term::made_up(tape)) }
}

/// As it stands there, or of few letters and long repetitions.
fn body(tape: &mut Tape<'_>) -> Vec<u8> {
    if tape.once_in(4) {
        return tape.bytes(BODY_MAX).to_vec();
    }
    let mut body = Vec::new();
    while !tape.is_over() && body.len() < BODY_MAX {
        let byte = tape.byte();
        match (byte, body.last()) {
            (0xff, Some(&last)) => body.resize((body.len() + 1500).min(BODY_MAX), last),
            (0xf8.., Some(&last)) => body.resize((body.len() + 12).min(BODY_MAX), last),
            (0xe0..0xf8, _) => body.push(byte),
            _ => body.push(LETTERS[usize::from(byte) % LETTERS.len()]),
        }
    }
    body
}
