//! A server that on SIGHUP starts a new process in its place, without losing a client: the successor gets the listening socket as
//! its standard input, and says that it is ready before the old process finishes what is under way.
//!
//! It is for Unix. The service is in `server.rs`, and what any server needs for this is in `../common/succession.rs`.

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
    Err(common::unable("this works on Unix only, where a process can hand its listening socket to its successor as a descriptor"))
}
