//! Puts a new process in its own place on SIGHUP, and nobody is lost: the successor is given the listening socket as its standard
//! input, and says that it is ready before this one finishes what is under way.
//!
//! It is for Unix, and all of it is in `succession.rs`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(unix)]
mod succession;

use std::process::ExitCode;
#[cfg(unix)]
use succession::run;

fn main() -> ExitCode {
    common::exit(run())
}

#[cfg(not(unix))]
fn run() -> Result<(), common::Failure> {
    Err(common::unable("this is for Unix, where a process hands its listening socket to its successor as a descriptor"))
}
