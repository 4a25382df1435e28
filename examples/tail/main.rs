//! Follows a FIFO, a pipe or a device, and sends its lines to everybody who is connected: a `Dispatcher` is a source that
//! is yours, the loop only says when to read it.
//!
//! It is for Unix, and all of it is in `follow.rs`.

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
    Err(common::unable("this is for Unix: elsewhere a pipe or a device is no source that the loop can wait for"))
}
