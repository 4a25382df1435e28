//! Files from one machine to another, whole or not at all: both ends in one program.
//!
//! What goes over the line is in `line.rs`. The ends are in `receive.rs` and `send.rs`: whatever touches a disk is done on
//! another thread, by `ctx.offload_held` and `ctx.send_from`, and the loop never waits for one.

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
Sends files to another machine. One that arrives is checked, and appears when it
is whole; what was broken off goes on where it stood when it is sent again.

usage: transfer receive [--limit BYTES] FOLDER [ADDR]
       transfer send [--timeout SECS] ADDR FILE...

ADDR is IP:PORT (port 0: any free one) or unix:/path; the receiver's is
127.0.0.1:7015 if it is not given. Files of more than BYTES are refused; there
is no limit if it is not given. A file that is there already with another
content is not replaced. Whoever can connect can send: let none but friends.

What was broken off waits in FOLDER as .NAME.DIGITS.part. After Ctrl-C a file
that is coming has 10 seconds, or until a second Ctrl-C. A receiver that for 60
seconds (--timeout) cannot be reached, says nothing or takes nothing is given
up.";

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
    /// It was given already.
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
        (Some("receive"), _) if timeout.is_some() => Err(misused("--timeout is for who sends")),
        (Some("receive"), Some(folder)) => {
            let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7015".into());
            match given.word() {
                None => Ok(Command::Receive { folder: path("FOLDER", folder)?, at, limit: limit.unwrap_or(u64::MAX) }),
                Some(surplus) => Err(misused(format!("'{}' is too much", surplus.to_string_lossy()))),
            }
        }
        (Some("receive"), None) => Err(misused("a FOLDER is missing")),
        (Some("send"), Some(to)) if limit.is_none() => {
            let to = to.into_string().map_err(|_| misused("ADDR is no text"))?;
            let to = callee("ADDR", &to)?;
            let files = std::iter::from_fn(|| given.path("FILE").transpose()).collect::<Result<Vec<_>, _>>()?;
            if files.is_empty() {
                return Err(misused("a FILE is missing"));
            }
            Ok(Command::Send { to, files, timeout: timeout.unwrap_or(send::TIMEOUT) })
        }
        (Some("send"), None) => Err(misused("an ADDR is missing")),
        (Some("send"), Some(_)) => Err(misused("--limit is for who receives")),
        (Some(what), _) => Err(misused(format!("receive or send? '{what}' is neither"))),
        (None, _) => Err(misused("receive or send? neither is there")),
    }
}
