//! A load balancer for TCP, as a program. What it does is in the library.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/logging.rs"]
mod logging;
#[path = "../../common/tls.rs"]
mod tls;

use balancer::{BACKENDS_MAX, Balancer, Front, Proxied};
use common::{Failure, announce, arguments_and_pairs, callee, drain_on_interrupt, exit, listening, misused, options_in, print};
use mainspring::{Config, Listen, Reactor, Stats};
use proxy_header::ProxyHeader;
use std::{process::ExitCode, time::Duration};
use web::{Http, inspect};

const HELP: &str = "\
Passes each connection on to the least busy of the servers that are up.

usage: balancer [OPTION]... LISTEN BACKEND...

LISTEN is IP:PORT or unix:/path, BACKEND these or HOST:PORT. A backend that
cannot be reached is skipped; a client for which there is none is reset.

  --max-clients N      clients at a time, more must wait; 10,000, or fewer if
                       fewer files can be open
  --max-per-ip N       clients from one address; no limit if not given
  --max-per-backend N  clients at one backend, more must wait; no limit if not
                       given
  --wait SECS          how long a client may wait for a backend; 30
  --connect-timeout SECS  how long to try to connect to one backend; 2
  --idle SECS          close a connection if both ends say nothing for this
                       long; 300
  --check SECS         how often to check whether backends can be reached; 2
  --proxy v1|v2|no     tell backends the client's address with the PROXY
                       protocol; no
  --accept-proxy       accept proxies only, which tell us the client's address
                       with the PROXY protocol
  --tls CERT KEY       speak TLS with clients, but not backends: files in PEM
  --inspect ADDR       pages about the balancer itself: /inspect, /metrics
  --grace SECS         the time for connections to finish after Ctrl-C; 30";

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let options = options_in(HELP, &["accept-proxy"], &["tls"]);
    let given = arguments_and_pairs(HELP, 1 + BACKENDS_MAX, &options, &["accept-proxy"], &["tls"])?;
    let Some(mut given) = given else { return Ok(()) };
    let at = given.text()?.ok_or_else(|| misused("LISTEN is missing"))?;
    let mut backends = Vec::new();
    while let Some(text) = given.text()? {
        backends.push(callee("BACKEND", &text)?);
    }
    if backends.is_empty() {
        return Err(misused("a BACKEND is missing"));
    }
    // Each client takes two descriptors, a check one; the others are for lookups and for the inspector.
    let room = common::descriptors_left().saturating_sub(40 + backends.len()) / 2;
    let mut app = Balancer::new(backends);
    app.proxy = match given.option_text("proxy")?.as_deref() {
        Some("v1") => Some(ProxyHeader::encode_v1),
        Some("v2") => Some(ProxyHeader::encode_v2),
        None | Some("no") => None,
        Some(other) => return Err(misused(format!("--proxy takes v1, v2 or no, not '{other}'"))),
    };
    app.per_backend_max = given.number("max-per-backend", 1..=usize::MAX)?.unwrap_or(app.per_backend_max);
    let seconds = |name, usual| given.seconds(name).map(|given| given.unwrap_or(Duration::from_secs(usual)));
    (app.idle, app.connect_max) = (seconds("idle", 300)?, seconds("connect-timeout", 2)?);
    let (idle, check, grace) = (app.idle, seconds("check", 2)?, seconds("grace", 30)?);
    let tls = tls::server_by_pair(&given, &[])?;
    let most = given.number("max-clients", 1..=usize::MAX)?.unwrap_or(room.clamp(1, 10_000));
    let options = Listen::new().pause_at(most).idle_timeout(idle).stall_timeout(idle).deadline(seconds("wait", 30)?);
    let options = options.per_peer_max(given.number("max-per-ip", 1..=usize::MAX)?.unwrap_or(usize::MAX), "");

    // Nothing needs to linger here: a connection is closed once its peer has ended, or it is reset.
    let mut reactor = Reactor::with_config(Config::new().lingering_max(0))?;
    drain_on_interrupt(&reactor, grace)?;
    let mut net = reactor.net();
    if let Some(at) = given.option_text("inspect")? {
        listening(net.listen_with(at, Listen::new().connections_max(16, ""), |_, _, _| Ok(Http::new(inspect::site))))?;
    }
    let listener = if given.has("accept-proxy") {
        app.tls = tls;
        net.listen_with(at, options.behind_proxy(), |_, _, _| Ok(Proxied::default()))
    } else {
        let options = if let Some(tls) = tls { options.tls(tls) } else { options };
        net.listen_with(at, options, |_, _, _| Ok(Front))
    };
    net.every(check, Balancer::check);
    announce(&net, listening(listener)?)?;
    reactor.run(&mut app)?;
    let Stats { accepted, refused, bytes_in, bytes_out, .. } = reactor.stats();
    print(format_args!("{accepted} accepted, {refused} refused, {bytes_in} bytes in, {bytes_out} out"))?;
    app.backends.iter().try_for_each(|backend| print(format_args!("{}: {} served", backend.target, backend.served)))
}
