//! Lists the network interfaces and addresses, and reports when they come, change or go, by netlink(7): another crate opens the
//! socket, and the loop takes it over.
//!
//! `watch.rs` has the socket, `route.rs` reads the messages of the kernel, `table.rs` knows what there is and finds what is new.

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
Lists the network interfaces and addresses of this machine, and then reports
changes until Ctrl-C.

usage: netwatch [--once]

  --once  print the list, and end

Each line begins with a sign: = is there, + is new, ~ has changed, - is gone.
Then follow the number and the name of the interface, and its state or one of
its addresses:

  = 2 eth0: up, mtu 1500, 02:00:00:00:00:ab
  = 2 eth0 10.0.0.1/24

It works on Linux only (netlink(7)); on other systems the exit status is 2. It
needs no privileges.";

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
    Err(common::unable("this works on Linux only, whose kernel reports links and addresses by netlink(7)"))
}
