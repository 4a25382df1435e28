//! Asks a host whether it is there, by ICMP: a socket that the program opens itself, and the loop takes over.
//!
//! What is asked and counted is in `pinging.rs`, the socket in `socket.rs`, the bytes of ICMP in `icmp.rs`.

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
Asks a host whether it is there, and how long its answers take: echoes of ICMP
(RFC 792, RFC 4443).

usage: ping [-4 | -6] [-c COUNT] [-i SECS] [-W SECS] HOST

HOST is a name, or an address of IPv4 or IPv6.

  -4, -6    use IPv4, or IPv6; if not given, what the system prefers for a name
  -c COUNT  ask so often; if not given, until Ctrl-C
  -i SECS   from one question to the next; 1 if not given, 0.01 at least
  -W SECS   an answer that takes longer is none; 5 if not given

The system has to allow it. Linux does so for the groups that the sysctl
net.ipv4.ping_group_range names, which needs no privilege, and for whoever has
the capability CAP_NET_RAW.

exit codes:
    0  there was an answer
    1  there was none, or the host is not known or cannot be reached
    2  a wrong command line, or the system does not allow it
  130  interrupted; what was counted is said";

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
    let host = given.text()?.ok_or_else(|| misused("HOST is missing: whom to ask?"))?;
    Ok(Some(Asked { host, version, count, interval, timeout }))
}

/// A time, of which a part of a second counts.
fn seconds(given: &Arguments, name: &str, range: RangeInclusive<f64>) -> Result<Option<Duration>, Failure> {
    let Some(value) = given.option_text(name)? else { return Ok(None) };
    let seconds = value.parse().ok().filter(|seconds| range.contains(seconds)).map(Duration::from_secs_f64);
    let (least, most) = (range.start(), range.end());
    seconds.map(Some).ok_or_else(|| misused(format!("{} takes seconds from {least} to {most}, not '{value}'", dashed(name))))
}
