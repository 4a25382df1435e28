//! What a selector says of the end of a stream, in mio's words, and what that means to the loop.

use crate::flags::*;

/// The facts of one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) read_closed: bool,
    pub(super) write_closed: bool,
    pub(super) error: bool,
}

impl Ended {
    /// `is_winsock`: a reset closes it both ways, and is no error.
    pub(super) fn flags(self, is_winsock: bool) -> Flags {
        let mut flags = Flags::default();
        flags.insert_if(READABLE | READ_UNTIL_BLOCKED | PEER_ENDED, self.read_closed);
        flags.insert_if(WRITABLE, self.write_closed);
        flags.insert_if(READABLE | WRITABLE | FAILED, self.error || is_winsock && self.write_closed);
        flags
    }
}
