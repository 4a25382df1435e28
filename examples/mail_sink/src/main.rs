//! A receiver of mail: where it listens, and how it ends. What it does is in the library.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/logging.rs"]
mod logging;
#[path = "../../common/roots.rs"]
mod roots;
#[path = "../../common/tls.rs"]
mod tls;

use common::{
    Failure, announce, arguments_and_pairs, callee, drain_on_interrupt, exit, listening, misused, options_in, path, say,
};
use mail_sink::{forward::Forward, session::Server, session::Session, store::Store};
use mainspring::{Config, Listen, Reactor, TlsClient};
use std::{process::ExitCode, sync::Arc, time::Duration};
use web::{Http, inspect};

const HELP: &str = "\
Accepts mails by SMTP, and keeps them in a Maildir or forwards them to another
server.

usage: mail_sink [OPTION]... MAILDIR [ADDR]

ADDR is IP:PORT (port 0: any free one); the default is 127.0.0.1:2525.

  --host NAME         our name in SMTP; localhost
  --for DOMAIN,...    accept mail for these domains only; for all if not given
  --size BYTES        the largest mail to accept; 10485760
  --tls CERT KEY      offer STARTTLS: files in PEM
  --require-tls       accept no mail without TLS
  --forward HOST[:PORT]  forward mails, which wait in MAILDIR/queue. A mail that
                      HOST refuses for good (5xx) is moved to MAILDIR/failed,
                      with the reason in its head and in the log: no bounce is
                      sent
  --forward-tls       forward with STARTTLS only, and check HOST's certificate
  --forward-ca FILE   the issuers to trust for that; those of the system
  --max-clients N     clients at a time; 500
  --max-per-ip N      clients from one address at a time; 50
  --idle SECS         close a client that says nothing for this long; 300
  --inspect ADDR      pages about the server itself: /inspect, /metrics
  --grace SECS        the time for mails to finish after Ctrl-C; 30";

/// Threads that write mails: each waits for the disk, which can do many things at once.
const WRITERS: usize = 32;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let flags = ["require-tls", "forward-tls"];
    let options = options_in(HELP, &flags, &["tls"]);
    let Some(mut given) = arguments_and_pairs(HELP, 2, &options, &flags, &["tls"])? else { return Ok(()) };
    let root = given.path("MAILDIR")?.ok_or_else(|| misused("MAILDIR is missing: the folder for mails"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:2525".into());
    let host = given.option_text("host")?.unwrap_or_else(|| "localhost".into());
    if host.is_empty() || host.len() > 255 || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) {
        return Err(misused(format!("--host: `{host}` is not the name of a host")));
    }
    let domains = given.option_text("for")?.unwrap_or_default();
    let domains = domains.split(',').filter(|domain| !domain.is_empty()).map(str::to_owned).collect();
    let bytes_max = given.number("size", 1..=u64::MAX)?.unwrap_or(10 << 20);
    let (tls, requires_tls) = (tls::server_by_pair(&given, &[])?, given.has("require-tls"));
    if requires_tls && tls.is_none() {
        return Err(misused("--require-tls needs --tls CERT KEY"));
    }
    let idle = given.seconds("idle")?.unwrap_or(Duration::from_secs(300));
    let grace = given.seconds("grace")?.unwrap_or(Duration::from_secs(30));
    let clients = given.number("max-clients", 1..=1_000_000)?.unwrap_or(500);
    let per_ip = given.number("max-per-ip", 1..=1_000_000)?.unwrap_or(50);

    let opened = Store::open(root.clone(), host.clone());
    let (store, queue) = opened.map_err(|error| format!("cannot use '{}': {error}", root.display()))?;
    let mut reactor = Reactor::with_config(Config::new().offload_threads(WRITERS))?;
    drain_on_interrupt(&reactor, grace)?;
    let mut server = Server { host, store, bytes_max, domains, idle, tls, requires_tls, forward: None, stored: 0 };
    let mut net = reactor.net();
    if let Some(at) = given.option_text("inspect")? {
        listening(net.listen_with(at, Listen::new().connections_max(16, ""), |_, _, _| Ok(Http::new(inspect::site))))?;
    }
    if let Some(to) = given.option_text("forward")? {
        let to = if to.contains(':') { to } else { format!("{to}:25") };
        let name = to.rsplit_once(':').map_or("", |(name, _)| name.trim_matches(['[', ']'])).to_owned();
        let mut client = None;
        if given.has("forward-tls") {
            let roots = match given.option("forward-ca") {
                Some(file) => tls::roots_of(&path("--forward-ca", file.clone())?)?,
                None => roots::roots_of_system("--forward-ca")?,
            };
            let config = tls::client(roots, &[])?;
            client = Some(TlsClient::new(Arc::new(config)).server_name(name.try_into().map_err(misused)?));
        }
        server.forward = Some(Forward::new(&mut net, callee("--forward", &to)?, client, &server.store, queue));
    }
    let options = Listen::new().connections_max(clients, "421 4.3.2 Too busy.\r\n");
    let options = options.per_peer_max(per_ip, "421 4.7.0 Too many from your address.\r\n");
    let listener = listening(net.listen_with(at, options, |_, _, _| Ok(Session::default())))?;
    announce(&net, listener)?;
    reactor.run(&mut server)?;
    let forwarded = server.forward.map_or(0, |forward| forward.forwarded);
    say(format_args!("{} stored, {forwarded} forwarded", server.stored));
    Ok(())
}
