//! Runs a command, and puts the time and a mark in front of each line of its two outputs. The child's pipes are connections; its
//! end and signals are callbacks.
//!
//! It is for Unix; the code is in `stamp.rs`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(unix)]
mod stamp;

#[cfg(unix)]
use stamp::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(status) => status.into(),
        Err(why) => common::exit(Err(why)),
    }
}

#[cfg(not(unix))]
fn run() -> Result<u8, common::Failure> {
    Err(common::unable("this works on Unix only, where the ends of children and signals are callbacks"))
}
