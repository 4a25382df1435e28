//! What all the peers share: the command line, the first line of output, and answering lines.
#![allow(dead_code, reason = "not every peer needs all of it")]

use std::{fmt::Display, net::SocketAddr};

/// Everybody reads with a buffer of this size.
pub const READ_BYTES: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Echo,
    Line,
    Sink,
    Source,
    Udp,
}

/// One clear line, and a non-zero exit code.
pub fn fail(what: impl Display) -> ! {
    eprintln!("error: {what}");
    std::process::exit(1)
}

/// `MODE PORT [VARIANT]`.
pub fn arguments(variants: &[&str]) -> (Mode, SocketAddr, String) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mode, port, variant) = match &words[..] {
        [mode, port] => (mode, port, ""),
        [mode, port, variant] => (mode, port, variant.as_str()),
        _ => fail(format!("usage: MODE PORT [VARIANT], a variant of {variants:?}")),
    };
    let mode = match mode.as_str() {
        "echo" => Mode::Echo,
        "line" => Mode::Line,
        "sink" => Mode::Sink,
        "source" => Mode::Source,
        "udp" => Mode::Udp,
        _ => fail(format!("there is no mode \"{mode}\": echo, line, sink, source or udp")),
    };
    let Ok(port) = port.parse::<u16>() else { fail(format!("\"{port}\" is not a port: a number up to 65535")) };
    if !variant.is_empty() && !variants.contains(&variant) {
        fail(format!("there is no variant \"{variant}\": one of {variants:?}"));
    }
    (mode, ([127, 0, 0, 1], port).into(), variant.to_owned())
}

/// The first line of output: whoever started us may connect now.
pub fn announce(at: impl Display) {
    println!("listening on {at}");
}

/// What a user's handler would be: one call for each line.
#[inline(never)]
fn on_line(line: &[u8], replies: &mut Vec<u8>) {
    replies.extend_from_slice(line);
    replies.extend_from_slice(b"\r\n");
}

/// Answers each complete line of `bytes`, and says how many bytes that were.
pub fn answer_lines(bytes: &[u8], replies: &mut Vec<u8>) -> usize {
    let mut answered = 0;
    while let Some(length) = memchr::memchr(b'\n', &bytes[answered..]) {
        let line = &bytes[answered..answered + length];
        on_line(line.strip_suffix(b"\r").unwrap_or(line), replies);
        answered += length + 1;
    }
    answered
}

/// The same where the first line may have begun in what was read before; what is left unfinished is kept in `begun`.
pub fn answer(begun: &mut Vec<u8>, bytes: &[u8], replies: &mut Vec<u8>) {
    let mut answered = 0;
    if !begun.is_empty() {
        let Some(length) = memchr::memchr(b'\n', bytes) else {
            begun.extend_from_slice(bytes);
            return;
        };
        answered = length + 1;
        begun.extend_from_slice(&bytes[..answered]);
        answer_lines(begun, replies);
        begun.clear();
    }
    answered += answer_lines(&bytes[answered..], replies);
    begun.extend_from_slice(&bytes[answered..]);
}
