//! What happened, in order, as text: the same seed gives the same lines.

use crate::time::Time;
use std::fmt;

/// Beyond this many lines only their digest is kept up: a long run must not fill the memory.
const LINES_MAX: usize = 200_000;

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) is_kept: bool,
    lines: Vec<String>,
    left_out: usize,
    digest: u64,
}

impl Default for Trace {
    fn default() -> Self {
        // FNV-1a's offset basis.
        Self { is_kept: true, lines: Vec::new(), left_out: 0, digest: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Trace {
    pub(crate) fn note(&mut self, now: Time, who: &str, what: fmt::Arguments<'_>) {
        if !self.is_kept {
            return;
        }
        let line = format!("{} {who}: {what}", Self::stamp(now));
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.left_out += 1;
        }
    }

    /// Seconds and microseconds.
    pub(crate) fn stamp(now: Time) -> String {
        format!("{:>10}.{:06}", now.0 / 1_000_000_000, now.0 / 1000 % 1_000_000)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        if self.left_out > 0 {
            text += &format!("\n({} more)", self.left_out);
        }
        text
    }
}
