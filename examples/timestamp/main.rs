//! A time server and a client of it: each line comes back with the local time in front.
//!
//! The server is in `server.rs`, the client in `client.rs`; `show.rs` runs both in one reactor.

mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/printable.rs"]
mod printable;
mod server;
mod show;

use common::{Failure, arguments, callee, exit, misused};
use mainspring::Target;
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Sends each line back with the local time in front:
[Sat Nov 21 10:15:00 2026] hello

usage: timestamp
         a server on a free port and a client of it, in one loop
       timestamp serve [--idle SECS] [ADDR]
         the server
       timestamp ask [--timeout SECS] ADDR [TEXT...]
         a client: sends TEXT as a line, or the lines of standard input up to an
         empty one, on a terminal at a prompt

ADDR is IP:PORT (port 0: any free one) or unix:/path; the server's is
127.0.0.1:7013 if it is not given. A client that for 60 seconds (--idle) says
nothing, does not finish a line or takes none of its answers is let go. A server
that cannot be reached or does not answer for 30 seconds (--timeout) is given
up.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match command()? {
        Command::Help => {}
        Command::Show => show::both()?,
        Command::Serve { at, idle_max } => server::serve(at, idle_max)?,
        Command::Ask { server, text, timeout } => client::ask(server, text, timeout)?,
    }
    Ok(())
}

enum Command {
    /// It was given already.
    Help,
    Show,
    Serve {
        at: String,
        idle_max: Duration,
    },
    Ask {
        server: Target,
        text: Option<String>,
        timeout: Duration,
    },
}

fn command() -> Result<Command, Failure> {
    let Some(mut given) = arguments(HELP, usize::MAX, &["idle", "timeout"])? else { return Ok(Command::Help) };
    let (idle, timeout) = (given.seconds("idle")?, given.seconds("timeout")?);
    let what = given.text()?;
    if idle.is_some() && what.as_deref() != Some("serve") {
        return Err(misused("--idle is for serve"));
    }
    if timeout.is_some() && what.as_deref() != Some("ask") {
        return Err(misused("--timeout is for ask"));
    }
    let words = std::iter::from_fn(|| given.text().transpose()).collect::<Result<Vec<_>, _>>()?;
    match (what.as_deref(), words.as_slice()) {
        (None, _) => Ok(Command::Show),
        (Some("serve"), [_, surplus, ..]) => Err(misused(format!("'{surplus}' is too much"))),
        (Some("serve"), at) => {
            let at = at.first().map_or_else(|| "127.0.0.1:7013".into(), String::clone);
            Ok(Command::Serve { at, idle_max: idle.unwrap_or(server::IDLE_MAX) })
        }
        (Some("ask"), []) => Err(misused("whom to ask? an address is missing")),
        (Some("ask"), [server, text @ ..]) => {
            let text = (!text.is_empty()).then(|| text.join(" "));
            Ok(Command::Ask { server: callee("ADDR", server)?, text, timeout: timeout.unwrap_or(client::TIMEOUT) })
        }
        (Some(what), _) => Err(misused(format!("serve or ask? '{what}' is neither"))),
    }
}
