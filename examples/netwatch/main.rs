//! Says which network interfaces and addresses there are, and tells when some come, change or go: netlink(7), by a socket that
//! another crate opens and the loop takes over.
//!
//! The socket is in `watch.rs`, the bytes of the kernel in `route.rs`, what is known and what is new in `table.rs`.

#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
#[path = "../common/printable.rs"]
mod printable;
#[cfg(target_os = "linux")]
mod route;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod watch;

use common::{Failure, arguments_and_flags, exit};
use std::process::ExitCode;
#[cfg(target_os = "linux")]
use watch::watch;

const HELP: &str = "\
Says which network interfaces and addresses this machine has, and then, until
Ctrl-C, what comes, changes and goes.

usage: netwatch [--once]

  --once  say what there is, and end

A line begins with = for what is there, + for what has come, ~ for what has
changed, - for what has gone; then come the number of the interface and its
name, and its state or one of its addresses:

  = 2 eth0: up, mtu 1500, 02:00:00:00:00:ab
  = 2 eth0 10.0.0.1/24

It is for Linux (netlink(7)), and ends with 2 elsewhere. It needs no privilege.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match arguments_and_flags(HELP, 0, &[], &["once"])? {
        Some(given) => watch(given.has("once")),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn watch(_: bool) -> Result<(), Failure> {
    Err(common::unable("this is for Linux, whose kernel tells of links and addresses by netlink(7)"))
}
