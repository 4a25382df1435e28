//! A time server and a client of it: each line comes back with the local time in front.
//!
//! The server is in `server.rs`, the client in `client.rs`; `show.rs` runs both in one reactor. `udp.rs` has both for UDP.

mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/printable.rs"]
mod printable;
mod server;
mod show;
mod udp;

use common::{Arguments, Failure, arguments_and_flags, callee, callee_by, exit, misused};
use mainspring::{IpProtocol, Target};
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
         empty one; on a terminal you get a prompt
       timestamp serve --udp [ADDR]
       timestamp ask --udp [--timeout SECS] ADDR TEXT...
         both by UDP: each datagram is a question, and its answer is one line

ADDR is IP:PORT (port 0: any free one) or unix:/path; the server's default is
127.0.0.1:7013. A client that says nothing, does not finish a line or reads none
of its answers for 60 seconds (--idle) is disconnected. The client gives up if
the server cannot be reached or does not answer for 30 seconds (--timeout); by
UDP it asks three times, and waits 2 seconds each time.";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    match command()? {
        Command::Help => {}
        Command::Show => show::both()?,
        Command::Serve { at, idle_max } => server::serve(at, idle_max)?,
        Command::Ask { server, text, timeout } => client::ask(server, text, timeout)?,
        Command::ServeUdp { at } => udp::serve(at)?,
        Command::AskUdp { server, text, timeout } => udp::ask(server, text, timeout)?,
    }
    Ok(())
}

enum Command {
    /// The help was printed already.
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
    ServeUdp {
        at: String,
    },
    AskUdp {
        server: Target,
        text: String,
        timeout: Duration,
    },
}

fn command() -> Result<Command, Failure> {
    let given = arguments_and_flags(HELP, usize::MAX, &["idle", "timeout"], &["udp"])?;
    let Some(mut given) = given else { return Ok(Command::Help) };
    let what = given.text()?;
    let is_udp = given.has("udp");
    if given.option("idle").is_some() && (what.as_deref() != Some("serve") || is_udp) {
        return Err(misused("--idle is for serve, without --udp"));
    }
    if given.option("timeout").is_some() && what.as_deref() != Some("ask") {
        return Err(misused("--timeout is for ask"));
    }
    match what.as_deref() {
        None if is_udp => Err(misused("--udp is for serve and ask")),
        None => Ok(Command::Show),
        Some("serve") => serve(given, is_udp),
        Some("ask") => ask(given, is_udp),
        Some(what) => Err(misused(format!("serve or ask? '{what}' is neither"))),
    }
}

fn serve(mut given: Arguments, is_udp: bool) -> Result<Command, Failure> {
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7013".into());
    if let Some(surplus) = given.text()? {
        return Err(misused(format!("'{surplus}' is too much")));
    }
    if is_udp {
        return Ok(Command::ServeUdp { at: no_path(at)? });
    }
    Ok(Command::Serve { at, idle_max: given.seconds("idle")?.unwrap_or(server::IDLE_MAX) })
}

fn ask(mut given: Arguments, is_udp: bool) -> Result<Command, Failure> {
    let server = given.text()?.ok_or_else(|| misused("ADDR is missing: the server to ask"))?;
    let words = std::iter::from_fn(|| given.text().transpose()).collect::<Result<Vec<_>, _>>()?;
    let text = (!words.is_empty()).then(|| words.join(" "));
    let timeout = given.seconds("timeout")?;
    if is_udp {
        let server = callee_by(IpProtocol::Udp, "ADDR", &no_path(server)?)?;
        let text = text.ok_or_else(|| misused("TEXT is missing: --udp needs a question"))?;
        return Ok(Command::AskUdp { server, text, timeout: timeout.unwrap_or(udp::TIMEOUT) });
    }
    Ok(Command::Ask { server: callee("ADDR", &server)?, text, timeout: timeout.unwrap_or(client::TIMEOUT) })
}

fn no_path(at: String) -> Result<String, Failure> {
    if at.starts_with("unix:") { Err(misused(format!("--udp needs IP:PORT, not `{at}`"))) } else { Ok(at) }
}
