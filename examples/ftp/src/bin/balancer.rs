//! A load balancer for TCP.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/logging.rs"]
mod logging;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused, say};
use mainspring::{Listen, Reactor};
use servers::balancer::{App, Front, probe};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Gives each connection to one of some servers: to the one that has the fewest, of
those that can be reached.

usage: balancer [OPTION]... ADDR SERVER...

ADDR and each SERVER are IP:PORT (port 0 of ADDR: any free one).

  --header no    do not tell a server who comes, by a PROXY line in front
  --per-ip N     so many connections of one address at a time
  --idle SECS    how long both ends may be silent; 60 if not given
  --grace SECS   how long connections may go on after Ctrl-C; 10";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let Some(mut given) = arguments(HELP, 1 + 64, &["header", "per-ip", "idle", "grace"])? else { return Ok(()) };
    let at = given.text()?.ok_or_else(|| misused("ADDR is missing"))?;
    let mut servers = Vec::new();
    while let Some(server) = given.text()? {
        servers.push(server.parse().map_err(|error| misused(format!("SERVER '{server}': {error}")))?);
    }
    if servers.is_empty() {
        return Err(misused("a SERVER is missing"));
    }
    let mut app = App::new(servers);
    app.header = given.option("header").is_none_or(|header| header != "no");
    app.idle = given.seconds("idle")?.or(app.idle);
    let mut options = Listen::new().connections_max(5000, "");
    if let Some(n) = given.number("per-ip", 1..=usize::MAX)? {
        options = options.per_peer_max(n, "");
    }
    let mut reactor = Reactor::new()?;
    drain_on_interrupt(&reactor, given.seconds("grace")?.unwrap_or(Duration::from_secs(10)))?;
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Front::default())))?;
    reactor.net().every(Duration::from_millis(500), probe);
    announce(&reactor.net(), listener)?;
    reactor.run(&mut app)?;
    let stats = reactor.stats();
    say(format_args!(
        "{} accepted, {} refused, {} bytes in, {} out",
        stats.accepted, stats.refused, stats.bytes_in, stats.bytes_out
    ));
    for backend in &app.backends {
        say(format_args!("{}: {} served, {} left", backend.at, backend.served, backend.active));
    }
    Ok(())
}
