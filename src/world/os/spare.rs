//! The descriptor with which somebody who waits to be accepted can be told that there is no other left. When that is done
//! the listener's owner says.

use socket2::{Domain, Socket, Type};
use std::{cell::Cell, io};

/// A descriptor kept for the time when no other is left, one for all listeners.
#[derive(Default)]
pub(super) struct Spare(Cell<Option<Socket>>);

impl Spare {
    pub(super) fn keep(&self) {
        // Nothing, if there is no descriptor now: it is looked for again when it is needed.
        self.0.set(self.0.take().or_else(|| open_spare().ok()));
    }

    /// Runs `accept` with one descriptor free, and drops what it accepted.
    pub(super) fn lend<T>(&self, accept: impl FnOnce() -> io::Result<T>) -> io::Result<()> {
        let spare = self.0.take().map_or_else(open_spare, Ok)?;
        drop(spare);
        let shed = accept().map(drop);
        self.keep();
        shed
    }
}

/// A socket, because it takes as much of the whole system as a connection does (ENFILE).
fn open_spare() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}
