//! A web server.

#[path = "../../../common/mod.rs"]
mod common;
mod log;
#[path = "../../../common/log_file.rs"]
mod log_file;
#[path = "../../../common/logging.rs"]
mod logging;
#[cfg(unix)]
#[path = "../../../common/succession.rs"]
mod succession;
#[path = "../../../common/tls.rs"]
mod tls;

use common::{Arguments, Failure, arguments_and_pairs, exit, misused, print};
use log_file::LogFile;
use mainspring::{Config, Context, Key, Listen, Net, Reactor};
use std::{ffi::OsString, process::ExitCode, time::Duration};
use web::{Answer, Http, Request, files::Root, inspect, ws};

const HELP: &str = "\
Serves the files of a folder by HTTP/1.1.

usage: web_server [--tls CERT KEY] [--log FILE] [--echo PATH] [--inspect ADDR]
                  [--inline] [--no-list] [--grace SECONDS] ROOT [ADDR]

ADDR is IP:PORT (port 0: any free one), 127.0.0.1:8080 if it is not given.
Nothing outside of ROOT is served, wherever a link leads, and nothing whose name
begins with a dot, but .well-known. A folder is its index.html, or else a list.

  --tls CERT KEY   by HTTPS: files in PEM
  --log FILE       what was answered, in the common log format; - is standard
                   error
  --echo PATH      a WebSocket that says back what it is told, up to 16 MiB at
                   once: for the tests of clients
  --inspect ADDR   there the server itself is looked at: /inspect, /metrics
  --inline         files are read by the loop itself, not by other threads:
                   faster, if the disk always answers at once
  --no-list        a folder without index.html is not found
  --grace SECONDS  10 if it is not given

Ctrl-C lets answers that are under way finish, for GRACE at most. So does
SIGHUP, on Unix, once a new process of the program, as it is then, listens in
its place: no request is lost.";

const CONNECTIONS_MAX: usize = 10_000;

/// A longer callback is named in the log. What is shown of times is measured with that.
const SLOW: Duration = Duration::from_millis(250);

/// What the program has one of.
struct App {
    root: Root,
    echo: Option<String>,
    log: Option<LogFile<Self>>,
    #[cfg(unix)]
    succession: succession::Succession<Self>,
}

fn site(_: &mut Context<'_, App>, app: &mut App, request: &Request) -> Answer<App> {
    if app.echo.as_deref() == Some(request.path()) {
        return Answer::web_socket(ws::Echo::default()).any_origin();
    }
    app.root.answer(request)
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let (options, flags) = (["log", "echo", "inspect", "grace"], ["inline", "no-list"]);
    let Some(mut given) = arguments_and_pairs(HELP, 2, &options, &flags, &["tls"])? else { return Ok(()) };
    let folder = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: which folder?"))?;
    let opened = Root::open(&folder).map_err(|error| format!("cannot serve '{}': {error}", folder.display()))?;
    let root = opened.inline(given.has("inline")).listed(!given.has("no-list"));
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:8080".into());
    let grace = given.seconds("grace")?.unwrap_or(Duration::from_secs(10));
    let echo = given.option_text("echo")?;

    let inspect_at = given.option_text("inspect")?;
    let config = Config::new().turn_frames(1024).sendfile(cfg!(target_os = "linux"));
    let mut reactor = Reactor::with_config(config.watchdog(inspect_at.as_ref().map(|_| SLOW)))?;
    let mut net = reactor.net();
    let log = given.option("log").map(|file| {
        let log = LogFile::open(&mut net, file, |app: &mut App| &mut app.log);
        log.map_err(|error| format!("cannot write to '{}': {error}", file.to_string_lossy()))
    });
    let log = log.transpose()?;
    if let Some(at) = inspect_at {
        let options = Listen::new().connections_max(16, "");
        // A successor listens there before we have ended.
        let options = if cfg!(unix) { options.reuse_port() } else { options };
        common::listening(net.listen_with(at, options, |_, _, _| Ok(Http::new(inspect::site))))?;
    }
    let options = listen_options(&given)?;
    #[cfg(unix)]
    let (listener, mut app) = {
        let again = given.options_again().into_iter().chain(["--".into(), folder.into(), succession::FROM_STDIN.into()]);
        let (listener, succession) = listen(&mut net, &at, options, again.collect(), grace)?;
        (listener, App { root, echo, log, succession })
    };
    #[cfg(not(unix))]
    let (listener, mut app) = {
        let listener = common::listening(net.listen_with(at, options, |_, _, _| Ok(connection())))?;
        common::drain_on_interrupt(&reactor, grace)?;
        (listener, App { root, echo, log })
    };
    print(format_args!("listening on {}", reactor.net().local(listener).expect("it listens")))?;
    reactor.run(&mut app)?;
    let rest = app.log.take().map_or(Ok(()), LogFile::finish);
    Ok(rest.map_err(|error| format!("the end of the log cannot be written: {error}"))?)
}

fn connection() -> Http<App> {
    Http::new(site).log(log::note)
}

fn listen_options(given: &Arguments) -> Result<Listen, Failure> {
    let most = CONNECTIONS_MAX.min(common::descriptors_left() / 2).max(1); // each may have a file open
    let options = Listen::new().connections_max(most, "").per_peer_max((most * 3 / 4).max(1), "");
    Ok(match tls::server_by_pair(given, &["http/1.1"])? {
        Some(server) => options.tls(server),
        None => options,
    })
}

/// At a socket of which a successor gets a copy.
#[cfg(unix)]
fn listen(
    net: &mut Net<'_, App>,
    at: &str,
    options: Listen,
    again: Vec<OsString>,
    grace: Duration,
) -> Result<(Key, succession::Succession<App>), Failure> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let socket = succession::socket(at)?;
    let for_successor = socket.try_clone()?;
    let listener = net.listen_on(socket, options, |_, _, _| Ok(connection()));
    let listener = listener.map_err(|error| format!("cannot listen on '{at}': {error}"))?;
    let succession = succession::Succession::new(|app: &mut App| &mut app.succession, for_successor, again, PATIENCE, grace)?;
    succession.heed_signals(net)?;
    Ok((listener, succession))
}
