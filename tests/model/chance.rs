//! What chance decides, and what is sent.

use std::{sync::OnceLock, time::Duration};

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub(super) fn millis(&mut self, most: usize) -> Duration {
        Duration::from_millis(self.below(most + 1) as u64)
    }
}

/// How long until what everybody says begins to repeat: a prime, so that no two streams go in step.
pub(super) const PERIOD: usize = 65_521;

/// What everybody says: random bytes, many of them ends of lines and parts of delimiters.
pub(super) fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut dice = Dice(1);
        let mut bytes = Vec::with_capacity(PERIOD);
        while bytes.len() < PERIOD {
            match dice.below(16) {
                0 => bytes.push(b'\n'),
                1 => bytes.extend(b"\r\n"),
                2 => bytes.push(b'\r'),
                3..=8 => bytes.push(b'a'),
                9 | 10 => bytes.push(b'b'),
                _ => bytes.push(dice.roll() as u8),
            }
        }
        bytes.truncate(PERIOD);
        bytes
    })
}

/// The bytes from a place of the pattern on.
pub(super) fn words(from: usize, mut bytes: usize) -> Vec<u8> {
    let (pattern, mut at) = (pattern(), from % PERIOD);
    let mut words = Vec::with_capacity(bytes);
    while bytes > 0 {
        let piece = bytes.min(PERIOD - at);
        words.extend_from_slice(&pattern[at..at + piece]);
        (at, bytes) = (0, bytes - piece);
    }
    words
}
