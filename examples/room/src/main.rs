//! The room as a program: where it listens, and how it ends. What it does is in the library.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/logging.rs"]
mod logging;
#[path = "../../common/tls.rs"]
mod tls;

use common::{
    Failure, announce, arguments_and_pairs, descriptors_left, drain_on_interrupt, exit, listening, misused, path, print,
};
use mainspring::{Address, Key, Listen, Net, Reactor};
use room::{App, history::Store, lines, page, together};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use web::{Http, inspect};

const HELP: &str = "\
A chat room for terminals and browsers: you connect and give a name, and
everybody else reads what you say.

usage: room [--lines ADDR] [--web ADDR] [--unix PATH] [--inspect ADDR|no]
            [--db FILE] [--tls CERT KEY] [--members N]
            [--nats HOST:PORT [--nats-ca FILE]]

  --lines ADDR      for terminals, with nc or telnet; 127.0.0.1:7001
  --web ADDR        the page for browsers; 127.0.0.1:8080
  --unix PATH       a Unix socket for terminals too
  --inspect ADDR    a page about the server itself, which shows all connections;
                    127.0.0.1:8081; no: none
  --db FILE         the database of messages; room.db
  --tls CERT KEY    TLS for terminals and browsers: files in PEM
  --members N       room for so many people; 10000, if the system allows it
  --nats HOST:PORT  share the room with all servers at this NATS server
  --nats-ca FILE    use TLS to NATS, and trust these issuers, in PEM

ADDR is IP:PORT; port 0: any free one. In the room, /help lists the commands.
Nothing else can use the database while the room runs. Ctrl-C closes the room.";

/// After Ctrl-C, the time everybody has to read the rest.
const GRACE: Duration = Duration::from_secs(2);

/// The log names a callback that takes longer. The times in the inspector are measured by this too.
const SLOW: Duration = Duration::from_millis(250);

const MEMBERS_MAX: usize = 10_000;

/// For listeners, the database, the inspector's visitors, and clients that are just told that the room is full.
const DESCRIPTORS_ELSE: usize = 60;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let options = ["lines", "web", "unix", "inspect", "db", "members", "nats", "nats-ca"];
    let Some(given) = arguments_and_pairs(HELP, 0, &options, &[], &["tls"])? else { return Ok(()) };
    let members_max = match given.number("members", 1..=1_000_000)? {
        Some(members) => members,
        None => MEMBERS_MAX.min(descriptors_left().saturating_sub(DESCRIPTORS_ELSE)).max(1),
    };
    let tls = tls::server_by_pair(&given, &["http/1.1"])?;
    let db = given.option("db").map_or_else(|| Ok(PathBuf::from("room.db")), |db| path("--db", db.clone()))?;
    let app = Store::open(&db).and_then(|store| App::new(store, members_max));
    let mut app = app.map_err(|why| format!("cannot use '{}': {why}", db.display()))?;

    let mut reactor = Reactor::with_config(lines::config().watchdog(SLOW))?;
    drain_on_interrupt(&reactor, GRACE)?;
    let mut net = reactor.net();
    let secured = |options: Listen| match &tls {
        Some(tls) => options.tls(tls.clone()),
        None => options,
    };
    let at = |name, otherwise: &str| Ok::<_, Failure>(given.option_text(name)?.unwrap_or_else(|| otherwise.into()));
    let options = secured(lines::bounds(members_max));
    let lines = listening(net.listen_with(at("lines", "127.0.0.1:7001")?, options, |_, _, _| Ok(lines::Lines::default())))?;
    let options = secured(page::bounds(members_max));
    let web = listening(net.listen_with(at("web", "127.0.0.1:8080")?, options, |_, _, _| Ok(Http::new(page::site))))?;
    let unix = given.option_text("unix")?.map(|path| {
        listening(net.listen_with(format!("unix:{path}"), lines::bounds(members_max), |_, _, _| Ok(lines::Lines::default())))
    });
    unix.transpose()?;
    let inspector = match &*at("inspect", "127.0.0.1:8081")? {
        "no" => None,
        at => {
            let options = Listen::new().connections_max(16, "");
            Some(listening(net.listen_with(at, options, |_, _, _| Ok(Http::new(inspect::site))))?)
        }
    };
    if let Some(nats) = given.option_text("nats")? {
        let ca = given.option("nats-ca").map(|file| tls::roots_of(&path("--nats-ca", file.clone())?));
        let tls = ca.transpose()?.map(|roots| tls::client(roots, &[])).transpose()?;
        together::start(&mut net, &mut app, &nats, tls.map(Arc::new)).map_err(|why| misused(format!("--nats: {why}")))?;
    }
    announce(&net, lines)?;
    say_where(&net, lines, web, inspector, tls.is_some())?;
    Ok(reactor.run(&mut app)?)
}

/// Prints what to type, and which pages to open.
fn say_where(net: &Net<'_, App>, lines: Key, web: Key, inspector: Option<Key>, is_tls: bool) -> Result<(), Failure> {
    let at = |key| net.local(key).and_then(Address::ip).expect("a listener that was just opened has an address");
    let (lines, web) = (at(lines), at(web));
    let nc = if is_tls { "ncat --ssl" } else { "nc" };
    print(format_args!("in a terminal:   {nc} {} {}", lines.ip(), lines.port()))?;
    print(format_args!("in a browser:    http{}://{web}/", if is_tls { "s" } else { "" }))?;
    match inspector {
        Some(key) => print(format_args!("the server:      http://{}/inspect", at(key))),
        None => Ok(()),
    }
}
