//! Files from one machine to another, whole or not at all: both ends in one program.
//!
//! What goes over the line is in `line.rs`. The ends are in `receive.rs` and `send.rs`: whatever touches a disk is done on
//! another thread, by `ctx.offload`, and the loop never waits for one.

#[path = "../common/mod.rs"]
mod common;
mod line;
#[path = "../common/printable.rs"]
mod printable;
mod receive;
mod send;
mod sha256;

use common::{Failure, exit, misused};
use lexopt::prelude::*;
use std::{path::PathBuf, process::ExitCode};

const HELP: &str = "\
Sends files to another machine. One that arrives is checked, and appears when it is whole; what was
broken off goes on where it stood when it is sent again.

usage: transfer receive [--limit BYTES] FOLDER [ADDR]
       transfer send ADDR FILE...

ADDR is IP:PORT or unix:/path; the receiver's is 127.0.0.1:7015 if it is not given, and port 0 means any
free one. Files of more than BYTES are refused; there is no limit if it is not given. A file that is there
already with another content is not replaced. Whoever can connect can send: let none but friends.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match arguments()? {
        Command::Help => println!("{HELP}"),
        Command::Receive { folder, at, limit } => receive::receive(folder, at, limit)?,
        Command::Send { to, files } => send::send(to, files)?,
    }
    Ok(())
}

enum Command {
    Help,
    Receive { folder: PathBuf, at: String, limit: u64 },
    Send { to: String, files: Vec<PathBuf> },
}

fn arguments() -> Result<Command, Failure> {
    let (mut words, mut limit) = (Vec::new(), None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("limit") => limit = Some(parser.value()?.parse()?),
            Value(word) => words.push(word),
            other => return Err(misused(other.unexpected())),
        }
    }
    let mut words = words.into_iter();
    let what = words.next().map(|word| word.string()).transpose()?;
    match (what.as_deref(), words.next()) {
        (Some("receive"), Some(folder)) => {
            let at = words.next().map_or(Ok("127.0.0.1:7015".into()), |at| at.string())?;
            match words.next() {
                None => Ok(Command::Receive { folder: folder.into(), at, limit: limit.unwrap_or(u64::MAX) }),
                Some(surplus) => Err(misused(format!("{} is too much", surplus.to_string_lossy()))),
            }
        }
        (Some("receive"), None) => Err(misused("a FOLDER is missing")),
        (Some("send"), Some(to)) if limit.is_none() => {
            let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
            if files.is_empty() { Err(misused("a FILE is missing")) } else { Ok(Command::Send { to: to.string()?, files }) }
        }
        (Some("send"), None) => Err(misused("an ADDR is missing")),
        (Some("send"), Some(_)) => Err(misused("--limit is for who receives")),
        _ => Err(misused("receive or send?")),
    }
}
