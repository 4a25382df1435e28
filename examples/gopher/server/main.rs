//! Serves a folder by Gopher (RFC 1436): menus, texts, binaries, and a search.
//!
//! What the folder holds is in `site.rs`, the protocol of one connection in `server.rs`.

#[path = "../../common/mod.rs"]
mod common;
#[allow(dead_code)] // a client needs the rest
#[path = "../gopher.rs"]
mod gopher;
mod server;
mod site;

use common::{Failure, announce, arguments, descriptors_left, drain_on_interrupt, exit, listening, misused};
use gopher::is_host;
use mainspring::{Config, Listen, Reactor};
use server::{Server, Visitor};
use site::Site;
use std::{process::ExitCode, sync::Arc, time::Duration};

const HELP: &str = "\
Serves a folder by Gopher (RFC 1436): menus, texts, binaries, and a search in
names and texts.

usage: gopher_server [--host NAME] [--patience SECS] ROOT [ADDR]

ADDR is IP:PORT (port 0: any free one); the default is 127.0.0.1:7070. Then, in
another terminal: curl gopher://127.0.0.1:7070/

  --host NAME      our host's name in menus; if not given, the address that the
                   client connected to
  --patience SECS  how long a client may take to ask, and to read the next bytes
                   of its answer; 60 if not given

400 clients are served at a time, or as many as the limit of descriptors allows
(ulimit -n); more clients wait until one has ended. 2 searches run at a time;
for more, the answer is to try again later. Ctrl-C lets answers that are under
way finish.

You see folders (1), texts (0), images (g, I), HTML (h) and other files (9).
Names that begin with a dot or are not UTF-8 are not shown or served, nor is
anything outside of ROOT, whatever links lead there.";

/// How many clients are served at a time, if there are descriptors for them.
const CONNECTIONS_MAX: usize = 400;

/// How many clients may still be reading the end of their answers.
const LINGERING_MAX: usize = 100;

/// Threads for blocking work; each may have a folder open, and a file in it.
const OFFLOAD_THREADS: usize = 4;

/// After Ctrl-C, the time for answers to finish.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &["host", "patience"])? else { return Ok(()) };
    let root = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: the folder to serve"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7070".into());
    if let Some(host) = given.option_text("host")?.filter(|host| !is_host(host)) {
        return Err(misused(format!("--host takes the name of a host or an IP address, not '{host}'")));
    }
    let (host, patience) = (given.option_text("host")?, given.seconds("patience")?.unwrap_or(Duration::from_secs(60)));
    let site = Site::new(&root).map_err(|error| format!("cannot serve '{}': {error}", root.display()))?;
    // A connection is closed as soon as its answer is queued, so it is the linger clock that waits for slow readers.
    let (connections_max, lingering_max) = bounds();
    let config = Config::new().linger_max(patience).lingering_max(lingering_max).offload_threads(OFFLOAD_THREADS);
    let mut reactor = Reactor::with_config(config)?;
    let listener = listening(reactor.net().listen_with(at, Listen::new().pause_at(connections_max), |_, _, _| Ok(Visitor)))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    let mut server = Server { site: Arc::new(site), searches: Arc::default(), host, patience };
    Ok(reactor.run(&mut server)?)
}

/// How many clients are served at a time, each with a descriptor for its connection and one for its file, and how many may
/// linger. Lingering ones get a fifth of what the loop, the signals and the listener leave.
fn bounds() -> (usize, usize) {
    let left = descriptors_left().saturating_sub(7 + 2 * OFFLOAD_THREADS);
    let lingering = (left / 5).min(LINGERING_MAX);
    (((left - lingering) / 2).clamp(1, CONNECTIONS_MAX), lingering)
}
