//! Follows a FIFO, a pipe or a device, and sends its lines to everybody who is connected. A `Dispatcher` is a source of your
//! own; the loop only says when to read it.
//!
//! It is for Unix; the code is in `follow.rs`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(unix)]
mod follow;

#[cfg(unix)]
use follow::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::exit(run())
}

#[cfg(not(unix))]
fn run() -> Result<(), common::Failure> {
    Err(common::unable("this works on Unix only: elsewhere the loop cannot wait for a pipe or a device"))
}
