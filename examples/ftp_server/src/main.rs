//! An FTP server as a program. What it does is in the library.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/logging.rs"]
mod logging;
#[path = "../../common/tls.rs"]
mod tls;

use common::{Arguments, Failure, announce, arguments_and_pairs, drain_on_interrupt, exit, listening, misused, options_in};
use ftp_server::{Control, Ftp, Settings, Tls, User, log_file::LogFile};
use mainspring::{Config, Listen, Reactor};
use std::{ops::RangeInclusive, path::Path, process::ExitCode, sync::Arc, time::Duration};
use web::{Http, inspect};

const HELP: &str = "\
Serves a folder by FTP.

usage: ftp_server [OPTION]... ROOT [ADDR]

ADDR is IP:PORT (port 0: any free one); the default is 127.0.0.1:2121. Clients
cannot leave ROOT, wherever a link leads. Without --user, anybody can log in as
`anonymous`, and read.

  --user NAME:PASSWORD[:rw]  a user, who may read, and write with `rw`. Others
                       can see the password in the list of processes, unless
                       it is a hash as the program argon2 prints it with `-e`
  --anonymous          `anonymous` may read, with any password
  --tls CERT KEY       offer AUTH TLS: files in PEM
  --require-tls        refuse passwords and files without TLS
  --implicit-tls       use TLS from the first byte on, as on port 990
  --passive-ports A-B  the ports for PASV and EPSV, one for each client that we
                       wait for; any free ones if not given
  --public-address IP  the address to announce in PASV, behind a NAT
  --limit-rate BYTES   the most that each transfer may do in a second
  --max-clients N      at a time; 512, or fewer if fewer files can be open
  --max-per-ip N       clients from one address; no limit if not given
  --idle SECS          close a client that says nothing, or whose transfer
                       stands still, for this long; 300
  --logins-max N       close a client after so many wrong passwords; 3
  --banner TEXT        the first line that a client reads
  --log FILE           log clients and what they did; - is standard error
  --inspect ADDR       pages about the server itself: /inspect, /metrics
  --grace SECS         the time for transfers to finish after Ctrl-C; 30";

/// The log names a callback that takes longer. The times in the inspector are measured by this too.
const SLOW: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let flags = ["anonymous", "require-tls", "implicit-tls"];
    let options = options_in(HELP, &flags, &["tls"]);
    let Some(mut given) = arguments_and_pairs(HELP, 2, &options, &flags, &["tls"])? else { return Ok(()) };
    let root = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: the folder to serve"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:2121".into());
    let inspect_at = given.option_text("inspect")?;
    let tls = tls::config_by_pair(&given, &[])?.map(Tls::from);
    let most = given.number("max-clients", 1..=usize::MAX)?.unwrap_or(512.min(common::descriptors_left() / 8).max(1));
    let mut options = Listen::new().connections_max(most, "421 Too many clients, come back later.\r\n");
    if let Some(n) = given.number("max-per-ip", 1..=usize::MAX)? {
        options = options.per_peer_max(n, "421 Too many from your address.\r\n");
    }
    if given.has("implicit-tls") {
        options = options.tls(tls.as_ref().ok_or_else(|| misused("--implicit-tls needs --tls"))?.control.clone());
    }
    let mut ftp = Ftp::new(settings(&given, &root, tls)?);

    let config = Config::new().sendfile(true).linger_max(ftp.set.idle).watchdog(inspect_at.as_ref().map(|_| SLOW));
    let mut reactor = Reactor::with_config(config)?;
    let mut net = reactor.net();
    if let Some(file) = given.option("log") {
        let log = LogFile::open(&mut net, file, |ftp: &mut Ftp| &mut ftp.log);
        ftp.log = Some(log.map_err(|error| format!("cannot write to '{}': {error}", file.to_string_lossy()))?);
    }
    if let Some(at) = inspect_at {
        let options = Listen::new().connections_max(16, "");
        listening(net.listen_with(at, options, |_, _, _| Ok(Http::new(inspect::site))))?;
    }
    drain_on_interrupt(&reactor, given.seconds("grace")?.unwrap_or(Duration::from_secs(30)))?;
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Control::default())))?;
    announce(&reactor.net(), listener)?;
    reactor.run(&mut ftp)?;
    let rest = ftp.log.take().map_or(Ok(()), LogFile::finish);
    Ok(rest.map_err(|error| format!("cannot write the end of the log: {error}"))?)
}

fn settings(given: &Arguments, root: &Path, tls: Option<Tls>) -> Result<Settings, Failure> {
    let usual = Settings::new(root).map_err(|error| format!("cannot serve '{}': {error}", root.display()))?;
    let mut users = Vec::new();
    for user in given.option_all("user") {
        users
            .push(user.to_str().ok_or("it is not UTF-8").and_then(User::parse).map_err(|why| misused(format!("--user: {why}")))?);
    }
    let requires_tls = given.has("require-tls");
    if requires_tls && tls.is_none() {
        return Err(misused("--require-tls needs --tls"));
    }
    let public_address = given.option_text("public-address")?.map(|ip| ip.parse());
    let public_address = public_address.transpose().map_err(|_| misused("--public-address takes an IPv4 address"))?;
    let passive_ports = given.option_text("passive-ports")?.map(|ports| ports_of(&ports));
    Ok(Settings {
        anonymous: given.has("anonymous") || users.is_empty(),
        users: users.into_iter().map(Arc::new).collect(),
        tls,
        requires_tls,
        banner: given.option_text("banner")?.unwrap_or(usual.banner),
        logins_max: given.number("logins-max", 1..=u32::MAX)?.unwrap_or(usual.logins_max),
        idle: given.seconds("idle")?.unwrap_or(usual.idle),
        public_address,
        passive_ports: passive_ports.transpose()?,
        rate: given.number("limit-rate", 1..=u64::MAX)?,
        ..usual
    })
}

fn ports_of(text: &str) -> Result<RangeInclusive<u16>, Failure> {
    let ports = text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    let ports = ports.filter(|ports| *ports.start() > 0 && !ports.is_empty());
    ports.ok_or_else(|| misused("--passive-ports takes a range, as 50000-50100"))
}
