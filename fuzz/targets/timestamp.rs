//! The protocol of the example `timestamp`: each line is answered with the time and the line, however it came.
#![no_main]

#[path = "../../examples/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../../examples/timestamp/server.rs"]
mod server;

use libfuzzer_sys::fuzz_target;
use mainspring::testing::Scene;
use mainspring_fuzz::Tape;
use server::{IDLE_MAX, LINE_MAX, Stamper};

const AT: &str = "127.0.0.1:7013";

/// As `[Sat Nov 21 10:15:00 2026] ` is.
const STAMP: usize = 27;

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    let mut scene = Scene::new(0, ());
    scene.sim().keep_trace(false);
    scene.net().listen(AT, || Stamper { idle_max: IDLE_MAX }).expect("a free port");
    let peer = scene.dials(AT);
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    while !tape.is_over() {
        let times = if tape.once_in(8) { 1 + tape.below(64) } else { 1 };
        let length = 1 + tape.below(100);
        let piece = tape.bytes(length).repeat(times);
        scene.says(peer, &piece);
        said.extend(piece);
        heard.extend(scene.hears_some(peer, usize::MAX));
    }
    scene.ends(peer);
    heard.extend(scene.hears_some(peer, usize::MAX));
    scene.hears_end(peer);
    compare(&said, &heard);
});

/// Line by line; the time itself is not looked at.
fn compare(said: &[u8], mut heard: &[u8]) {
    let (whole, unfinished) = said.split_at(said.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1));
    for line in whole.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("it is whole");
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let answer = if line.len() > LINE_MAX { too_long() } else { [line, b"\n"].concat() };
        if line.len() <= LINE_MAX {
            let (stamp, rest) = heard.split_at(STAMP.min(heard.len()));
            assert!(stamp.starts_with(b"[") && stamp.ends_with(b"] "), "\"{}\" is no time", stamp.escape_ascii());
            heard = rest;
        }
        heard = heard.strip_prefix(&answer[..]).unwrap_or_else(|| panic!("\"{}\" is another answer", heard.escape_ascii()));
    }
    let unfinished = unfinished.strip_suffix(b"\r").unwrap_or(unfinished);
    let last = if unfinished.len() > LINE_MAX { too_long() } else { Vec::new() };
    assert!(heard == last, "\"{}\" was not asked for", heard.escape_ascii());
}

fn too_long() -> Vec<u8> {
    format!("line too long: {LINE_MAX} bytes at most\n").into()
}
