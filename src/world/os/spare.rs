//! The descriptor that is used to see whether a client waits to be accepted when there is no other descriptor left. The
//! listener's owner decides what happens to the client.

use socket2::{Domain, Socket, Type};
use std::{cell::Cell, io};

/// A descriptor kept for the time when no other is left, one for all listeners.
#[derive(Default)]
pub(super) struct Spare(Cell<Option<Socket>>);

impl Spare {
    /// # Errors
    /// If there is no descriptor.
    pub(super) fn fill(&self) -> io::Result<()> {
        self.0.set(Some(self.0.take().map_or_else(open_spare, Ok)?));
        Ok(())
    }

    pub(super) fn keep(&self) {
        let _ = self.fill(); // if there is no descriptor now, it is looked for again when it is needed
    }

    /// Makes a descriptor free for what comes next.
    pub(super) fn give_way(&self) -> io::Result<()> {
        self.fill()?;
        self.0.take();
        Ok(())
    }
}

/// A socket, because it counts in the whole system as a connection does (ENFILE).
pub(super) fn open_spare() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}
