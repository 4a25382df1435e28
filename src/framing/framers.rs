//! The two framings by length that the crate provides: after a number of bytes, and netstrings.

use super::{Endian, Framer, Step, Width};
use crate::reason::Fault;

pub(super) struct Prefixed {
    pub(super) width: Width,
    pub(super) order: Endian,
    pub(super) limit: usize,
}

impl Framer for Prefixed {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let width = self.width.bytes();
        let Some(prefix) = input.get(..width) else { return Ok(Step::Need(width)) };
        let length = self.width.decode(self.order, prefix);
        if length > self.limit as u64 {
            return Ok(Step::TooLong { bytes: length.saturating_add(width as u64) });
        }
        let end = width.saturating_add(length as usize);
        Ok(if input.len() < end { Step::Need(end) } else { Step::Frame { bytes: width..end, consumed: end } })
    }
}

/// The digits of 2^64 - 1.
pub(super) const LENGTH_DIGITS_MAX: usize = 20;

pub(super) struct Netstring {
    pub(super) limit: usize,
}

impl Framer for Netstring {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 1 && input[0] == b'0' {
            return Err("netstring: a length begins with 0".into());
        }
        if digits > LENGTH_DIGITS_MAX {
            return Ok(Step::TooLong { bytes: u64::MAX }); // no frame is that long
        }
        match input.get(digits) {
            None => return Ok(Step::Need(digits + 1)),
            Some(b':') if digits > 0 => {}
            Some(&other) => {
                return Err(format!("netstring: `{}` where a length and a colon should be", other.escape_ascii()).into());
            }
        }
        let length = decimal(&input[..digits]);
        if length > self.limit as u64 {
            return Ok(Step::TooLong { bytes: length.saturating_add(digits as u64 + 2) });
        }
        let end = (digits + 1).saturating_add(length as usize);
        match input.get(end) {
            None => Ok(Step::Need(end.saturating_add(1))),
            Some(b',') => Ok(Step::Frame { bytes: digits + 1..end, consumed: end + 1 }),
            Some(&other) => Err(format!("netstring: `{}` where the comma should be", other.escape_ascii()).into()),
        }
    }
}

fn decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |length: u64, &digit| length.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}
