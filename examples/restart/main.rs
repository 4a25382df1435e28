//! Puts a new process in its own place on SIGHUP, and nobody is lost: the successor is given the listening socket as its standard
//! input, and says that it is ready before this one finishes what is under way.
//!
//! It is for Unix. What it serves is in `server.rs`, and what any server needs for this in `../common/succession.rs`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(unix)]
mod server;
#[cfg(unix)]
#[path = "../common/succession.rs"]
mod succession;

#[cfg(unix)]
use server::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::exit(run())
}

#[cfg(not(unix))]
fn run() -> Result<(), common::Failure> {
    Err(common::unable("this is for Unix, where a process hands its listening socket to its successor as a descriptor"))
}
