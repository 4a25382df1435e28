//! Asks a host whether it is there, by ICMP, over a socket that the program opens itself and gives to the loop.
//!
//! `pinging.rs` asks and counts, `socket.rs` opens the socket, `icmp.rs` knows the bytes of ICMP.

#[path = "../common/mod.rs"]
mod common;
mod icmp;
mod pinging;
mod socket;

use common::{Arguments, Failure, arguments_and_flags, dashed, exit, misused};
use icmp::Version;
use pinging::{Asked, ping};
use std::{ops::RangeInclusive, process::ExitCode, time::Duration};

const HELP: &str = "\
Asks a host whether it is there, and measures how long its answers take, by ICMP
echoes (RFC 792, RFC 4443).

usage: ping [-4 | -6] [-c COUNT] [-i SECS] [-W SECS] HOST

HOST is a name, or an address of IPv4 or IPv6.

  -4, -6    use IPv4, or IPv6; if not given, what the system prefers for a name
  -c COUNT  ask so many times; if not given, until Ctrl-C
  -i SECS   the time from one question to the next; 1 if not given, 0.01 at
            least
  -W SECS   how long to wait for an answer; 5 if not given

The system must allow it. Linux does so without privileges for the groups in the
sysctl net.ipv4.ping_group_range, and for programs with the capability
CAP_NET_RAW.

exit codes:
    0  there was an answer
    1  there was no answer, or the host is unknown or cannot be reached
    2  a wrong command line, or the system does not allow it
  130  interrupted; the counts so far are printed";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    asked()?.map_or(Ok(()), ping)
}

/// Nothing if only help was wanted.
fn asked() -> Result<Option<Asked>, Failure> {
    let Some(mut given) = arguments_and_flags(HELP, 1, &["c", "i", "W"], &["4", "6"])? else { return Ok(None) };
    let version = match (given.has("4"), given.has("6")) {
        (true, true) => return Err(misused("-4 or -6? it cannot be both")),
        (true, _) => Some(Version::V4),
        (_, true) => Some(Version::V6),
        _ => None,
    };
    let count = given.number("c", 1..=u64::MAX)?;
    let interval = seconds(&given, "i", 0.01..=3600.0)?.unwrap_or(Duration::from_secs(1));
    let timeout = seconds(&given, "W", 0.01..=60.0)?.unwrap_or(Duration::from_secs(5));
    let host = given.text()?.ok_or_else(|| misused("HOST is missing: the host to ask"))?;
    Ok(Some(Asked { host, version, count, interval, timeout }))
}

/// A time in seconds, which may have a fraction.
fn seconds(given: &Arguments, name: &str, range: RangeInclusive<f64>) -> Result<Option<Duration>, Failure> {
    let Some(value) = given.option_text(name)? else { return Ok(None) };
    let seconds = value.parse().ok().filter(|seconds| range.contains(seconds)).map(Duration::from_secs_f64);
    let (least, most) = (range.start(), range.end());
    seconds.map(Some).ok_or_else(|| misused(format!("{} takes seconds from {least} to {most}, not '{value}'", dashed(name))))
}
