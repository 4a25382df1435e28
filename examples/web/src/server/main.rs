//! A web server.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/logging.rs"]
mod logging;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused};
use mainspring::{Config, Listen, Reactor};
use std::{process::ExitCode, time::Duration, time::SystemTime};
use web::{App, http::Http, sse};

const HELP: &str = "\
Serves a folder by HTTP/1.1.

usage: web [--inline yes] [--turn-frames N] ROOT [ADDR]

ADDR is IP:PORT (port 0: any free one); 127.0.0.1:8080 if it is not given. What
is PUT to /upload/NAME is kept as upload/NAME.done; what is POSTed is counted;
/echo and /chat are WebSockets, /events tells by events what the server does.

  --inline yes     files are read by the loop itself, not by other threads
  --turn-frames N  so many requests of one client are served at a time; 1024 if
                   not given

Ctrl-C lets answers that are under way finish, for 10 seconds at most.";

/// After Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let Some(mut given) = arguments(HELP, 2, &["inline", "turn-frames"])? else { return Ok(()) };
    let root = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: which folder?"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:8080".into());
    let turn_frames = given.number("turn-frames", 1..=usize::MAX)?.unwrap_or(1024);
    let mut app = App { root, is_inline: given.option("inline").is_some(), date: date(), ..App::default() };
    let mut reactor = Reactor::with_config(Config::new().turn_frames(turn_frames))?;
    drain_on_interrupt(&reactor, GRACE)?;
    let mut net = reactor.net();
    let listener = listening(net.listen_with(at, Listen::new().connections_max(10_000, ""), |_, _, _| Ok(Http::default())))?;
    net.every(Duration::from_secs(1), |_, app: &mut App| app.date = date());
    sse::start(&mut net);
    announce(&net, listener)?;
    Ok(reactor.run(&mut app)?)
}

fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
