//! A stream up to a delimiter: it is handed over as it comes, except for what may be the beginning of the delimiter.

use super::{Found, Input, Needle};

pub(crate) struct Until {
    pub(super) needle: Needle,
    /// Bytes of the delimiter that came before what is unread, and were not held back.
    pub(super) seen: usize,
    pub(super) begun: bool,
}

impl Until {
    pub(super) fn next(&mut self, input: &mut Input) -> Found {
        if self.seen > 0 {
            match self.over_the_seam(input.unread()) {
                Seam::Ends(bytes) => return self.end(input, bytes),
                Seam::Open => return Found::Nothing,
                Seam::None => self.seen = 0,
            }
        }
        match self.needle.find_in(input) {
            Some(0) => self.end(input, self.needle.bytes().len()),
            Some(at) => self.piece(input, at),
            None => match input.len() - self.needle.begun(input.unread()) {
                0 => Found::Nothing,
                bytes => self.piece(input, bytes),
            },
        }
    }

    fn piece(&mut self, input: &mut Input, bytes: usize) -> Found {
        self.begun = true;
        input.take(bytes, bytes);
        input.search_anew(); // another terminator may be set now, and has not seen what is held back
        Found::Piece
    }

    fn end(&mut self, input: &mut Input, bytes: usize) -> Found {
        (self.begun, self.seen) = (false, 0);
        input.take(0, bytes);
        Found::Frame
    }

    /// Whether a delimiter that began in what was seen before goes on here.
    fn over_the_seam(&self, unread: &[u8]) -> Seam {
        let needle = self.needle.bytes();
        for overlap in (1..=self.seen).rev() {
            if needle[..overlap] != needle[self.seen - overlap..self.seen] {
                continue;
            }
            let rest = &needle[overlap..];
            if unread.starts_with(rest) {
                return Seam::Ends(rest.len());
            }
            if rest.starts_with(unread) {
                return Seam::Open;
            }
        }
        Seam::None
    }
}

enum Seam {
    /// It ends with this many of the unread bytes.
    Ends(usize),
    /// More bytes will tell.
    Open,
    None,
}
