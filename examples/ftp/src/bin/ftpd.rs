//! An FTP server.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/logging.rs"]
mod logging;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused};
use mainspring::{Listen, Reactor};
use servers::ftp::{Control, Ftp, Settings};
use std::{fs, process::ExitCode, time::Duration};

const HELP: &str = "\
Serves a folder by FTP.

usage: ftpd [OPTION]... ROOT [ADDR]

ADDR is IP:PORT (port 0: any free one); 127.0.0.1:2121 if it is not given. Who
logs in as `user` may write, `anonymous` may read.

  --password WORD      of `user`; 12345 if it is not given
  --banner TEXT        the first line that a client reads
  --max N              so many clients at a time; 512 if not given
  --per-ip N           so many of one address
  --idle SECS          how long a client may be silent; 300 if not given
  --data-idle SECS     how long a transfer may stand still; 300
  --passive-wait SECS  how long a client may take to come to its data port; 30
  --active-wait SECS   how long we try to reach a client's data port; 30
  --login-delay MSECS  how long a wrong password is thought about; 3000
  --logins-max N       how many there may be; 3
  --masquerade IP      the address to say in PASV, behind a NAT
  --ports A,B,...      the ports to use for PASV and EPSV
  --foreign yes        data may come from other hosts, and go there
  --privileged yes     and go to ports below 1024
  --read-rate BYTES    a second, of each upload
  --write-rate BYTES   a second, of each download

Ctrl-C lets transfers that are under way finish, for 30 seconds at most.";

/// After Ctrl-C.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let options: Vec<&str> = HELP.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next()).collect();
    let Some(mut given) = arguments(HELP, 2, &options)? else { return Ok(()) };
    let root = given.path("ROOT")?.ok_or_else(|| misused("ROOT is missing: which folder?"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:2121".into());
    let text = |name: &str, otherwise: String| given.option_text(name).map(|given| given.unwrap_or(otherwise));
    let usual = Settings::default();
    let set = Settings {
        root: fs::canonicalize(&root).map_err(|error| format!("cannot serve '{}': {error}", root.display()))?,
        pass: text("password", usual.pass)?,
        banner: text("banner", usual.banner)?,
        idle: given.seconds("idle")?.or(usual.idle),
        data_idle: given.seconds("data-idle")?.or(usual.data_idle),
        passive_wait: given.seconds("passive-wait")?.or(usual.passive_wait),
        active_wait: given.seconds("active-wait")?.unwrap_or(usual.active_wait),
        login_delay: given.number("login-delay", 0..=60_000)?.map_or(usual.login_delay, Duration::from_millis),
        logins_max: given.number("logins-max", 1..=u32::MAX)?.unwrap_or(usual.logins_max),
        masquerade: given.option_text("masquerade")?,
        ports: text("ports", String::new())?.split_terminator(',').map(str::parse).collect::<Result<_, _>>().map_err(misused)?,
        foreign: given.option("foreign").is_some(),
        privileged: given.option("privileged").is_some(),
        read_rate: given.number("read-rate", 1..=u64::MAX)?,
        write_rate: given.number("write-rate", 1..=u64::MAX)?,
        ..usual
    };
    let connections_max = given.number("max", 1..=usize::MAX)?.unwrap_or(512);
    let mut options = Listen::new().connections_max(connections_max, "421 Full, come back later.\r\n");
    if let Some(n) = given.number("per-ip", 1..=usize::MAX)? {
        options = options.per_peer_max(n, "421 Too many from your address.\r\n");
    }
    let mut reactor = Reactor::new()?;
    drain_on_interrupt(&reactor, GRACE)?;
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Control::default())))?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut Ftp::new(set))?)
}
