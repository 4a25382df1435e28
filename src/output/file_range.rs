//! A part of a file that is to be sent.

use super::{Produced, Producer};
use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
};

/// The size of one read.
const READ_BYTES: usize = 64 << 10;

/// Never empty. Its length was fixed when it was sent: bytes that the file grows by meanwhile are not sent, and if it
/// becomes shorter that is an error.
pub(crate) struct FileRange {
    file: File,
    left: Range<u64>,
}

impl FileRange {
    /// `None` if there is nothing to send.
    pub(crate) fn new(file: File, range: Range<u64>) -> Option<Self> {
        (!range.is_empty()).then_some(Self { file, left: range })
    }

    /// What the kernel can send by itself, this much at most: the file, the place in it, and how much.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn next(&self, most: usize) -> (&File, u64, usize) {
        let left = self.left.end - self.left.start;
        (&self.file, self.left.start, usize::try_from(left).unwrap_or(usize::MAX).min(most))
    }

    /// This much has left. Returns whether that was all.
    pub(crate) fn advance(&mut self, bytes: usize) -> bool {
        self.left.start += bytes as u64;
        self.left.is_empty()
    }

    pub(crate) fn is_too_short(&self) -> io::Error {
        let Range { start, end } = self.left;
        let text = format!("the file to be sent ends at {start}, and was to be sent up to {end}");
        io::Error::new(ErrorKind::UnexpectedEof, text)
    }
}

impl Producer for FileRange {
    fn more(&mut self, out: &mut Vec<u8>) -> io::Result<Produced> {
        let left = self.left.end - self.left.start;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
        let begin = out.len();
        out.resize(begin + wanted, 0);
        let read = loop {
            match read_at(&self.file, &mut out[begin..], self.left.start) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let bytes = read.map_err(|error| io::Error::new(error.kind(), format!("the file to be sent cannot be read: {error}")))?;
        if bytes == 0 {
            return Err(self.is_too_short());
        }
        out.truncate(begin + bytes);
        Ok(if self.advance(bytes) { Produced::Done } else { Produced::More })
    }
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}
