//! A receiver of mail.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/logging.rs"]
mod logging;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused, say};
use mainspring::{Listen, Reactor};
use servers::smtp::{Server, Session};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Takes mails by SMTP, and keeps each as a file.

usage: smtpd [--host NAME] [--size BYTES] [--idle SECS] SPOOL [ADDR]

SPOOL is a folder. ADDR is IP:PORT (port 0: any free one); 127.0.0.1:2525 if it
is not given. A mail has 10485760 bytes at most if --size does not say
otherwise; who is silent for 300 seconds (--idle) is let go. Ctrl-C lets mails
that are coming come, for 30 seconds at most.";

/// After Ctrl-C.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    logging::log_to_stderr();
    let Some(mut given) = arguments(HELP, 2, &["host", "size", "idle"])? else { return Ok(()) };
    let spool = given.path("SPOOL")?.ok_or_else(|| misused("SPOOL is missing: which folder?"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:2525".into());
    let host = given.option_text("host")?.unwrap_or_else(|| "mx.test".into());
    let bytes_max = given.number("size", 1..=u64::MAX)?.unwrap_or(10 << 20);
    let idle = given.seconds("idle")?.unwrap_or(Duration::from_secs(300));
    let mut server = Server { host, spool, bytes_max, serial: 0, stored: 0, idle };
    let mut reactor = Reactor::new()?;
    drain_on_interrupt(&reactor, GRACE)?;
    let options = Listen::new().connections_max(500, "421 Too busy.\r\n").per_peer_max(50, "421 Too many of you.\r\n");
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Session::default())))?;
    announce(&reactor.net(), listener)?;
    reactor.run(&mut server)?;
    say(format_args!("{} stored", server.stored));
    Ok(())
}
