//! The example `ping`: whatever comes is an answer or nothing; what is asked is read again when it comes back, and not if a byte of
//! it has changed.
#![no_main]

#[allow(dead_code)]
#[path = "../../examples/ping/icmp.rs"]
mod icmp;

use icmp::{Echo, Version, checksum};
use libfuzzer_sys::fuzz_target;
use mainspring_fuzz::Tape;

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    let version = if tape.once_in(2) { Version::V6 } else { Version::V4 };
    if tape.once_in(2) { there_and_back(version, tape) } else { any_bytes(version, tape) }
});

fn any_bytes(version: Version, mut tape: Tape<'_>) {
    let bytes = tape.rest();
    let Some(echo) = Echo::of_reply(version, bytes) else { return };
    assert!(bytes.ends_with(echo.data));
    let answer = answer(version, &echo);
    assert_eq!(Echo::of_reply(version, &answer), Some(echo));
    assert!(version == Version::V4 || answer[4..] == bytes[4..]);
}

fn there_and_back(version: Version, mut tape: Tape<'_>) {
    let (id, sequence) = (tape.number() as u16, tape.number() as u16);
    let (words, at, bit) = (tape.below(17), tape.size(), 1 << tape.below(8));
    let echo = Echo { id, sequence, data: tape.rest() };
    let question = echo.request(version);
    assert_eq!(Echo::of_reply(version, &question), None, "a question is no answer");
    let mut answer = answer(version, &echo);
    assert_eq!(Echo::of_reply(version, &answer), Some(echo));
    if version == Version::V6 {
        return;
    }
    if words >= 5 && words < 16 {
        let header = vec![0x40 | words as u8; words * 4];
        assert_eq!(Echo::of_reply(version, &[header, answer.clone()].concat()), Some(echo));
    }
    let at = at % answer.len();
    if (at, bit) == (0, 0x40) {
        return; // it would be the header of IPv4, and the answer in what follows
    }
    answer[at] ^= bit;
    assert_eq!(Echo::of_reply(version, &answer), None, "byte {at} has changed");
}

/// What the host would answer.
fn answer(version: Version, echo: &Echo<'_>) -> Vec<u8> {
    let mut bytes = echo.request(version);
    bytes[0] = if version == Version::V4 { 0 } else { 129 };
    bytes[2..4].fill(0);
    if version == Version::V4 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}
