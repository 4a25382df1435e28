//! A call of a socket that may say that it was interrupted.

use std::io::{ErrorKind, Result};

/// Calls until it is not interrupted. A socket with a time-out says so when the process was stopped meanwhile, or frozen
/// with its machine, without any handler of a signal (signal(7)); std calls again for `accept` and `read_exact` alone.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
