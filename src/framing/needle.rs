//! Searching for a delimiter, in the way that is fastest for its length.

use super::Input;
use memchr::{memchr, memmem::Finder};

/// A delimiter, ready to be searched for.
pub(crate) enum Needle {
    Byte(u8),
    Pair([u8; 2]),
    /// Behind a table of functions, so that a program without such a delimiter links no searcher; a box of a box, because
    /// every connection has room for this.
    Long(Box<Box<dyn Search>>),
}

pub(crate) trait Search {
    fn bytes(&self) -> &[u8];
    fn find_in(&self, hay: &[u8]) -> Option<usize>;
    fn copy(&self) -> Box<Box<dyn Search>>;
}

impl Search for Finder<'static> {
    fn bytes(&self) -> &[u8] {
        self.needle()
    }

    fn find_in(&self, hay: &[u8]) -> Option<usize> {
        self.find(hay)
    }

    fn copy(&self) -> Box<Box<dyn Search>> {
        Box::new(Box::new(self.clone()))
    }
}

/// It makes no new searcher, and so it links none.
impl Clone for Needle {
    fn clone(&self) -> Self {
        match self {
            Self::Byte(byte) => Self::Byte(*byte),
            Self::Pair(pair) => Self::Pair(*pair),
            Self::Long(needle) => Self::Long(needle.copy()),
        }
    }
}

impl Needle {
    pub(super) fn new(bytes: &[u8]) -> Self {
        match *bytes {
            [byte] => Self::Byte(byte),
            [a, b] => Self::Pair([a, b]),
            _ => Self::Long(Box::new(Box::new(Finder::new(bytes).into_owned()))),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Byte(byte) => std::slice::from_ref(byte),
            Self::Pair(pair) => pair,
            Self::Long(needle) => needle.bytes(),
        }
    }

    /// Where it first begins.
    pub(super) fn find(&self, hay: &[u8]) -> Option<usize> {
        match self {
            Self::Byte(byte) => memchr(*byte, hay),
            Self::Pair([a, b]) => find_pair(*a, *b, hay),
            Self::Long(needle) => needle.find_in(hay),
        }
    }

    /// Where it first begins in what is unread. What was searched is not searched again.
    pub(super) fn find_in(&self, input: &mut Input) -> Option<usize> {
        let from = input.searched().saturating_sub(self.bytes().len() - 1);
        match self.find(&input.unread()[from..]) {
            Some(at) => Some(from + at),
            None => {
                input.mark_searched();
                None
            }
        }
    }

    /// The length of the longest proper prefix of the delimiter with which `hay` ends.
    pub(super) fn begun(&self, hay: &[u8]) -> usize {
        let needle = self.bytes();
        (1..needle.len().min(hay.len() + 1)).rev().find(|&n| hay.ends_with(&needle[..n])).unwrap_or(0)
    }
}

/// The second byte is rarer in text (the LF of CRLF), so that is what is looked for.
fn find_pair(a: u8, b: u8, hay: &[u8]) -> Option<usize> {
    let mut from = 1;
    while let Some(at) = hay.get(from..).and_then(|rest| memchr(b, rest)) {
        if hay[from + at - 1] == a {
            return Some(from + at - 1);
        }
        from += at + 1;
    }
    None
}
