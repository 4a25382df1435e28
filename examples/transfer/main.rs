//! Sends files from one machine to another, completely or not at all: both ends in one program.
//!
//! The protocol is in `line.rs`, the ends are in `receive.rs` and `send.rs`. All work on a disk is done on other threads, by
//! `ctx.offload_held` and `ctx.send_from`, so the loop never waits for one.

#[path = "../common/mod.rs"]
mod common;
mod line;
#[path = "../common/printable.rs"]
mod printable;
mod receive;
mod send;
mod sha256;

use common::{Failure, arguments, callee, exit, misused, path};
use mainspring::Target;
use std::{path::PathBuf, process::ExitCode, time::Duration};

const HELP: &str = "\
Sends files to another machine. Each file is checked, and appears there when it
is complete. If a transfer breaks off, send the file again: it goes on where it
stopped.

usage: transfer receive [--limit BYTES] FOLDER [ADDR]
       transfer send [--timeout SECS] ADDR FILE...

ADDR is IP:PORT (port 0: any free one) or unix:/path; the receiver's default is
127.0.0.1:7015. With --limit, files of more than BYTES are refused. A file that
exists with another content is not replaced. Everybody who can connect can send,
so let only friends connect.

Incomplete files are kept in FOLDER as .NAME.DIGITS.part. After Ctrl-C a file
that is coming has 10 seconds, or until a second Ctrl-C. The sender gives up if
the receiver cannot be reached, says nothing or reads nothing for 60 seconds
(--timeout).";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match command()? {
        Command::Help => {}
        Command::Receive { folder, at, limit } => receive::receive(folder, at, limit)?,
        Command::Send { to, files, timeout } => send::send(to, files, timeout)?,
    }
    Ok(())
}

enum Command {
    /// The help was printed already.
    Help,
    Receive {
        folder: PathBuf,
        at: String,
        limit: u64,
    },
    Send {
        to: Target,
        files: Vec<PathBuf>,
        timeout: Duration,
    },
}

fn command() -> Result<Command, Failure> {
    let Some(mut given) = arguments(HELP, usize::MAX, &["limit", "timeout"])? else { return Ok(Command::Help) };
    let (limit, timeout) = (given.number("limit", 0..=u64::MAX)?, given.seconds("timeout")?);
    match (given.text()?.as_deref(), given.word()) {
        (Some("receive"), _) if timeout.is_some() => Err(misused("--timeout is for send")),
        (Some("receive"), Some(folder)) => {
            let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7015".into());
            match given.word() {
                None => Ok(Command::Receive { folder: path("FOLDER", folder)?, at, limit: limit.unwrap_or(u64::MAX) }),
                Some(surplus) => Err(misused(format!("'{}' is one word too many", surplus.to_string_lossy()))),
            }
        }
        (Some("receive"), None) => Err(misused("a FOLDER is missing")),
        (Some("send"), Some(to)) if limit.is_none() => {
            let to = to.into_string().map_err(|_| misused("ADDR is not text"))?;
            let to = callee("ADDR", &to)?;
            let files = std::iter::from_fn(|| given.path("FILE").transpose()).collect::<Result<Vec<_>, _>>()?;
            if files.is_empty() {
                return Err(misused("a FILE is missing"));
            }
            Ok(Command::Send { to, files, timeout: timeout.unwrap_or(send::TIMEOUT) })
        }
        (Some("send"), None) => Err(misused("an ADDR is missing")),
        (Some("send"), Some(_)) => Err(misused("--limit is for receive")),
        (Some(what), _) => Err(misused(format!("receive or send? '{what}' is neither"))),
        (None, _) => Err(misused("receive or send? the first word says which")),
    }
}
