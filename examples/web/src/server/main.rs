//! A web server for the files of a folder.

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

ADDR is IP:PORT (port 0: any free one); the default is 127.0.0.1:8080. Files
outside of ROOT are never served, wherever a link leads, nor are names that
begin with a dot, except .well-known. For a folder you get its index.html, or a
list of its files if there is none.

  --tls CERT KEY   serve HTTPS: files in PEM
  --log FILE       log each answer in the common log format; - is standard error
  --echo PATH      a WebSocket that sends back what it gets, up to 16 MiB at
                   once, to test clients with
  --inspect ADDR   pages about the server itself: /inspect, /metrics
  --inline         read files in the loop itself, not in other threads: faster,
                   if the disk always answers at once
  --no-list        a folder without index.html is not found
  --grace SECONDS  the time for answers to finish at the end; 10

Ctrl-C lets answers that are under way finish, for at most the grace. On Unix,
SIGHUP restarts the server without losing a request: it starts the program anew
(after an update, the new version), which takes over the listening socket; then
the old process finishes its answers and ends.";

const CONNECTIONS_MAX: usize = 10_000;

/// The log names a callback that takes longer. The times in the inspector are measured by this too.
const SLOW: Duration = Duration::from_millis(250);

/// The state of the program.
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
    let folder = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: the folder to serve"))?;
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
        // Because a successor listens there before we have ended.
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
    Ok(rest.map_err(|error| format!("cannot write the end of the log: {error}"))?)
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

/// Listens on a socket that is shared with a successor.
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
