//! Runs a command, and stamps and marks each line of its two outputs: a child's pipes are connections, its end and a signal
//! are callbacks.
//!
//! It is for Unix, and all of it is in `stamp.rs`.

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
    Err(common::unable("this is for Unix, where the ends of children and signals are callbacks"))
}
