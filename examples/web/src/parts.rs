//! What to send of a file: all of it, a part, or several parts with a head each (RFC 9110, 14). Nothing here knows about
//! connections.

use crate::request::number;
use std::{
    collections::VecDeque,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

/// If more parts are asked for, the answer is the whole file (14.2).
const PARTS_MAX: usize = 16;

/// A part: the offset of its first byte, and the offset after its last one.
pub type Part = (u64, u64);

/// What a Range asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// One at least.
    Parts(Vec<Part>),
    /// Nothing that the file has: 416.
    Nothing,
}

/// For a file of `total` bytes. A range that we do not understand is ignored, and so are parts that add up to more than the
/// file.
pub fn wanted(range: &str, total: u64) -> Wanted {
    let Some(list) = range.strip_prefix("bytes=") else { return Wanted::All };
    let Some(parts) = list.split(',').map(|part| one(part.trim(), total)).collect::<Option<Vec<_>>>() else { return Wanted::All };
    let parts: Vec<Part> = parts.into_iter().filter(|(from, to)| from < to).collect();
    let bytes = parts.iter().fold(0u64, |bytes, (from, to)| bytes.saturating_add(to - from));
    match parts.len() {
        0 => Wanted::Nothing,
        n if n > PARTS_MAX || n > 1 && bytes > total => Wanted::All,
        _ => Wanted::Parts(parts),
    }
}

/// One range; it is empty if it lies behind the end. `None`: it is not a range.
fn one(part: &str, total: u64) -> Option<Part> {
    let (from, to) = part.split_once('-')?;
    match (from.trim(), to.trim()) {
        ("", last) => Some((total.saturating_sub(number(last)?), total)),
        (from, "") => Some((number(from)?, total)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then(|| (from, to.saturating_add(1).min(total)))
        }
    }
}

enum Segment {
    Text(Vec<u8>),
    /// From where the file has been read to.
    Bytes {
        from: u64,
        left: u64,
    },
}

/// A file's parts, one after the other, read to their end. A file that has become shorter ends them early.
pub struct Parts {
    file: File,
    segments: VecDeque<Segment>,
    /// The file is positioned where the first of them begins.
    is_there: bool,
    left: u64,
}

impl Parts {
    /// No parts yet; the file was just opened.
    fn nothing(file: File) -> Self {
        Self { file, segments: VecDeque::new(), is_there: false, left: 0 }
    }

    /// One part, as it is.
    pub fn one(file: File, (from, to): Part) -> Self {
        let mut this = Self::nothing(file);
        this.is_there = from == 0;
        this.push(Segment::Bytes { from, left: to - from });
        this
    }

    /// Several parts; returns the Content-Type of the whole too.
    pub fn several(file: File, parts: &[Part], kind: &str, total: u64) -> (Self, String) {
        let boundary = format!("{:016x}", RandomState::new().hash_one(total)); // random, so it cannot have been put into the file
        let mut this = Self::nothing(file);
        for &(from, to) in parts {
            let head = format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {from}-{}/{total}\r\n\r\n", to - 1);
            this.push(Segment::Text(head.into()));
            this.push(Segment::Bytes { from, left: to - from });
            this.push(Segment::Text(b"\r\n".into()));
        }
        this.push(Segment::Text(format!("--{boundary}--\r\n").into()));
        (this, format!("multipart/byteranges; boundary={boundary}"))
    }

    fn push(&mut self, segment: Segment) {
        self.left += match &segment {
            Segment::Text(text) => text.len() as u64,
            Segment::Bytes { left, .. } => *left,
        };
        self.segments.push_back(segment);
    }

    /// How much has not been read yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The rest, if it is one part of the file.
    pub fn into_range(self) -> Result<(File, Range<u64>), Self> {
        match self.segments.iter().collect::<Vec<_>>()[..] {
            [&Segment::Bytes { from, left }] => Ok((self.file, from..from + left)),
            _ => Err(self),
        }
    }

    /// Reads at most so much more. A file that has become shorter is an error, because its length was sent already.
    pub fn read_more(&mut self, most: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let wanted = most.min(self.left);
        into.reserve_exact(wanted as usize); // in one read
        if self.take(wanted).read_to_end(into)? as u64 == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Read for Parts {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self.segments.front_mut() {
                None => return Ok(0),
                Some(Segment::Text(text)) if text.is_empty() => None,
                Some(Segment::Text(text)) => {
                    let n = text.len().min(buf.len());
                    buf[..n].copy_from_slice(&text[..n]);
                    text.drain(..n);
                    Some(n)
                }
                Some(Segment::Bytes { left: 0, .. }) => None,
                Some(Segment::Bytes { from, left }) => {
                    if !self.is_there {
                        self.file.seek(SeekFrom::Start(*from))?;
                        self.is_there = true;
                    }
                    let most = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let n = self.file.read(&mut buf[..most])?;
                    *from += n as u64;
                    *left -= n as u64;
                    Some(n)
                }
            };
            if let Some(n) = read {
                self.left -= n as u64;
                return Ok(n);
            }
            self.segments.pop_front();
            self.is_there = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_the_rfc_says_and_no_more_than_the_file() {
        let parts = |parts: &[Part]| Wanted::Parts(parts.to_vec());
        let many = "bytes=".to_owned() + &["0-0"; PARTS_MAX + 1].join(",");
        let asked = [
            ("bytes=0-4", parts(&[(0, 5)])),
            ("bytes=5-", parts(&[(5, 100)])),
            ("bytes=-5", parts(&[(95, 100)])),
            ("bytes=-500", parts(&[(0, 100)])),
            ("bytes=90-200", parts(&[(90, 100)])),
            ("bytes=99-18446744073709551615", parts(&[(99, 100)])),
            ("bytes=0-0, 99-99 ,-1", parts(&[(0, 1), (99, 100), (99, 100)])),
            ("bytes=0-0,200-300", parts(&[(0, 1)])),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=100-200,300-", Wanted::Nothing),
            ("bytes=4-0", Wanted::All),
            ("bytes=", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=0-1,x", Wanted::All),
            ("bytes=0-,0-", Wanted::All),
            ("lines=0-4", Wanted::All),
            (many.as_str(), Wanted::All),
        ];
        for (range, expected) in asked {
            assert_eq!(wanted(range, 100), expected, "{range}");
        }
    }
}
