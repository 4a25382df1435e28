//! Cutting a stream into frames: in MB/s, by kind and by the size of the chunks in which it arrives.

use crate::{Failure, Random, median, timed};
use bytes::BytesMut;
#[cfg(bench)]
use mainspring::inside::{self, Found};
use mainspring::{Endian, Terminator, Width};
use std::hint::black_box;
use tokio_util::codec::{AnyDelimiterCodec, Decoder, LengthDelimitedCodec, LinesCodec};

const CHUNKS: [usize; 3] = [64, 1_460, 65_536];
const LIMIT: usize = 1 << 20;
const PASSES: usize = 9;

/// What takes a text in chunks of such a size, and how many frames it found.
type Cutter<'a> = Box<dyn Fn(&[u8], usize) -> usize + 'a>;

pub(crate) fn table() -> Result<String, Failure> {
    if !cfg!(bench) {
        return Ok("(terminators: left out; --help says why)\n".into());
    }
    let mut text =
        "### Terminators: MB/s by size of the chunks\n\nFrames of 16 to 112 bytes. All but memchr also copy each chunk into \
                    their buffer, as a read would. tokio's codecs make an owned frame of each.\n\n| |"
            .to_owned();
    for chunk in CHUNKS {
        text += &format!(" {chunk} bytes |");
    }
    text += "\n|---|--:|--:|--:|\n";
    let bounded = lines(b"\r\n--frame--");
    let (lines, prefixed, netstrings) = (lines(b"\r\n"), prefixed(), netstrings());
    let rows: Vec<(&str, &[u8], Cutter<'_>)> = vec![
        ("memchr alone, of LF", &lines, Box::new(memchr_alone)),
        ("`Terminator::line`", &lines, ours(|| Terminator::line(LIMIT))),
        ("tokio-util LinesCodec", &lines, theirs(|| LinesCodec::new_with_max_length(LIMIT))),
        ("`Terminator::crlf`", &lines, ours(|| Terminator::crlf(LIMIT))),
        ("tokio-util AnyDelimiterCodec, of LF", &lines, theirs(|| AnyDelimiterCodec::new(b"\n".to_vec(), Vec::new()))),
        ("`Delimiter` of 11 bytes", &bounded, ours(|| Terminator::Delimiter { bytes: b"\r\n--frame--".into(), limit: LIMIT })),
        ("`Terminator::prefixed`, u16", &prefixed, ours(|| Terminator::prefixed(Width::U16, Endian::Big, LIMIT))),
        (
            "tokio-util LengthDelimitedCodec, u16",
            &prefixed,
            theirs(|| LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()),
        ),
        ("`Terminator::netstring`", &netstrings, ours(|| Terminator::netstring(LIMIT))),
        ("`Terminator::None`", &lines, ours(|| Terminator::None)),
    ];
    let mut times = vec![vec![Vec::new(); CHUNKS.len()]; rows.len()];
    for _ in 0..PASSES {
        for ((_, text, cutter), times) in rows.iter().zip(&mut times) {
            for (chunk, times) in CHUNKS.iter().zip(times) {
                let (took, frames) = timed(|| cutter(black_box(text), *chunk));
                if frames == 0 {
                    return Err("no frame was found".into());
                }
                times.push(took);
            }
        }
    }
    for ((name, of, _), times) in rows.iter().zip(&mut times) {
        text += &format!("| {name} |");
        for times in times {
            text += &format!(" {:.0} |", of.len() as f64 * 1e3 / median(times));
        }
        text += "\n";
    }
    Ok(text)
}

fn memchr_alone(text: &[u8], chunk: usize) -> usize {
    let ends = text.chunks(chunk).flat_map(|chunk| memchr::memchr_iter(b'\n', chunk));
    // One by one: counting has a shortcut of its own.
    ends.map(black_box).fold(0, |count, _| count + 1)
}

#[cfg(bench)]
fn ours<'a>(terminator: impl Fn() -> Terminator + 'a) -> Cutter<'a> {
    Box::new(move |text, chunk| {
        let (mut cutter, mut frames) = (inside::Cutter::new(terminator(), 64 << 10), 0);
        for chunk in text.chunks(chunk) {
            cutter.arrives(chunk);
            loop {
                match cutter.step() {
                    Found::Piece(&[]) => {}
                    Found::Frame(bytes) | Found::Piece(bytes) => {
                        black_box(bytes);
                        frames += 1;
                    }
                    Found::Nothing => break,
                    Found::TooLong | Found::Broken => panic!("a frame is too long, or its framer has failed"),
                }
            }
        }
        frames
    })
}

#[cfg(not(bench))]
fn ours<'a>(_: impl Fn() -> Terminator + 'a) -> Cutter<'a> {
    Box::new(|_, _| 0)
}

fn theirs<'a, C: Decoder>(codec: impl Fn() -> C + 'a) -> Cutter<'a> {
    Box::new(move |text, chunk| {
        let (mut codec, mut input, mut frames) = (codec(), BytesMut::with_capacity(65_536), 0);
        for chunk in text.chunks(chunk) {
            input.extend_from_slice(chunk);
            while let Ok(Some(frame)) = codec.decode(&mut input) {
                black_box(frame);
                frames += 1;
            }
        }
        frames
    })
}

/// 4 MB of bodies, each wrapped into a frame.
fn frames(mut wrap: impl FnMut(&mut Vec<u8>, &[u8])) -> Vec<u8> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut text = Vec::new();
    while text.len() < 4_000_000 {
        let length = 16 + random.below(97);
        let body: Vec<u8> = (0..length).map(|_| b'a' + random.below(26) as u8).collect();
        wrap(&mut text, &body);
    }
    text
}

fn lines(end: &[u8]) -> Vec<u8> {
    frames(|text, body| text.extend(body.iter().chain(end)))
}

fn prefixed() -> Vec<u8> {
    frames(|text, body| {
        text.extend((body.len() as u16).to_be_bytes());
        text.extend(body);
    })
}

fn netstrings() -> Vec<u8> {
    frames(|text, body| {
        text.extend(body.len().to_string().bytes());
        text.push(b':');
        text.extend(body);
        text.push(b',');
    })
}
