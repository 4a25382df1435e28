//! A body that comes in chunks (RFC 9112, 7.1), cut as one frame: everything that is not part of the body is skipped. Pure.

use mainspring::Step;

/// The longest line between chunks.
pub const LINE_MAX: usize = 1024;
const TRAILERS_MAX: usize = 32;

pub struct Chunked {
    part: Part,
    /// The sum of all chunks so far.
    pub bytes: u64,
    /// The most that is allowed.
    most: u64,
    /// The status to refuse it with; reading ends then.
    pub fault: Option<u16>,
}

#[derive(Clone, Copy)]
enum Part {
    Size,
    Chunk { left: u64 },
    Trailer(usize),
}

impl Chunked {
    pub fn new(most: u64) -> Self {
        Self { part: Part::Size, bytes: 0, most, fault: None }
    }

    pub fn cut(&mut self, input: &[u8]) -> Step {
        self.next(input).unwrap_or_else(|status| {
            self.fault = Some(status);
            Step::Frame { bytes: 0..0, consumed: 1 }
        })
    }

    fn next(&mut self, input: &[u8]) -> Result<Step, u16> {
        if let Part::Chunk { left: left @ 1.. } = &mut self.part {
            let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= n as u64;
            return Ok(Step::Piece { bytes: 0..n, consumed: n });
        }
        let Some(length) = input.windows(2).position(|two| two == b"\r\n") else {
            let most = if let Part::Chunk { .. } = self.part { 2 } else { LINE_MAX };
            return if input.len() < most { Ok(Step::Need(input.len() + 1)) } else { Err(400) };
        };
        let line = &input[..length];
        self.part = match self.part {
            Part::Trailer(_) if line.is_empty() => return Ok(Step::Frame { bytes: 0..0, consumed: length + 2 }),
            Part::Trailer(TRAILERS_MAX) => return Err(431),
            Part::Trailer(_) if !is_field(line) => return Err(400),
            Part::Trailer(n) => Part::Trailer(n + 1),
            Part::Chunk { .. } if line.is_empty() => Part::Size,
            Part::Chunk { .. } => return Err(400),
            Part::Size => match chunk_size(line).ok_or(400u16)? {
                0 => Part::Trailer(0),
                n => Part::Chunk { left: n },
            },
        };
        if let Part::Chunk { left } = self.part {
            self.bytes = self.bytes.saturating_add(left);
        }
        if self.bytes > self.most { Err(413) } else { Ok(Step::Piece { bytes: 0..0, consumed: length + 2 }) }
    }
}

/// Whether it is a header, no part of which could be taken for a line of its own.
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_token = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    !name.is_empty() && name.len() < line.len() && is_token && !line.iter().any(|byte| b"\r\n\0".contains(byte))
}

/// The size in a chunk's first line, without extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    if line.iter().any(|&b| b == b'\r' || b == b'\n') {
        return None;
    }
    let end = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let rest = line[end..].trim_ascii_start();
    if end == 0 || end > 15 || !(rest.is_empty() || rest[0] == b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..end]).ok()?, 16).ok()
}
