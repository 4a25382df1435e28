//! A time server and a client of it: each line comes back with the local time in front.
//!
//! The server is in `server.rs`, the client in `client.rs`; `show.rs` runs both in one reactor.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod server;
mod show;

use common::{Failure, arguments, exit, misused};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Sends each line back with the local time in front:
[Sat Nov 21 10:15:00 2026] hello

usage: timestamp
         a server on a free port and a client of it, in one loop
       timestamp serve [--idle SECS] [ADDR]
         the server
       timestamp ask ADDR [TEXT...]
         a client: sends TEXT as a line, or the lines of standard input at a
         prompt, up to an empty one

ADDR is IP:PORT (port 0: any free one) or unix:/path; the server's is
127.0.0.1:7013 if it is not given. A client that for 60 seconds (--idle) says
nothing, does not finish a line or takes none of its answers is let go.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match command()? {
        Command::Help => {}
        Command::Show => show::both()?,
        Command::Serve { at, idle_max } => server::serve(at, idle_max)?,
        Command::Ask { server, text } => client::ask(server, text)?,
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
        server: String,
        text: Option<String>,
    },
}

fn command() -> Result<Command, Failure> {
    let Some(mut given) = arguments(HELP, usize::MAX, &["idle"])? else { return Ok(Command::Help) };
    let idle = given.parsed("idle")?.map(Duration::from_secs);
    let words = std::iter::from_fn(|| given.text().transpose()).collect::<Result<Vec<_>, _>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), idle) {
        ([], None) => Ok(Command::Show),
        (["serve"], _) => Ok(Command::Serve { at: "127.0.0.1:7013".into(), idle_max: idle.unwrap_or(server::IDLE_MAX) }),
        (["serve", at], _) => Ok(Command::Serve { at: (*at).into(), idle_max: idle.unwrap_or(server::IDLE_MAX) }),
        (["ask", server], None) => Ok(Command::Ask { server: (*server).into(), text: None }),
        (["ask", server, text @ ..], None) => Ok(Command::Ask { server: (*server).into(), text: Some(text.join(" ")) }),
        (["ask"], None) => Err(misused("whom to ask? an address is missing")),
        (["ask", ..], Some(_)) => Err(misused("--idle is for serve")),
        (["serve", _, surplus, ..], _) => Err(misused(format!("'{surplus}' is too much"))),
        ([what, ..], _) => Err(misused(format!("serve or ask? '{what}' is neither"))),
        ([], Some(_)) => Err(misused("--idle is for serve")),
    }
}
