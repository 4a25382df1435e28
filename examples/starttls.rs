//! TLS in mid-stream (STARTTLS), as in SMTP: the same connection with another protocol, which trusts nothing that was said
//! before.

mod common;
#[path = "common/tls.rs"]
mod tls;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused};
use mainspring::{Context, Listen, Outcome, Protocol, Reactor, Terminator, TlsServer};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Greets in the clear, as a mail server does (RFC 3207), and does nothing until
the client asks for TLS. Then it sends back each line that it gets.

usage: starttls [ADDR] --cert FILE --key FILE [--client-ca FILE]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7011. The files are the same as for tls_echo.

  starttls --cert tests/certs/p256.pem --key tests/certs/p256.key
  openssl s_client -connect 127.0.0.1:7011 -starttls smtp -quiet

In the clear there are EHLO, STARTTLS and QUIT, in TLS EHLO and QUIT. A client
that sends anything right behind STARTTLS, without waiting for the answer, is
disconnected: somebody on the way may have added it. So is a client that says
nothing for 60 seconds.";

const LINE_MAX: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(2);

/// Before TLS: the only command with an effect is STARTTLS.
struct InClear {
    tls: TlsServer,
}

impl Protocol for InClear {
    fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.send("220 ready\r\n");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_>, (): &mut (), line: &[u8]) -> Outcome {
        match command(line).as_str() {
            "EHLO" => ctx.send("250-localhost\r\n250 STARTTLS\r\n"),
            "STARTTLS" => {
                ctx.send("220 go ahead\r\n"); // still in the clear: it is sent before TLS begins
                ctx.start_tls(&self.tls, InTls);
            }
            "QUIT" => quit(ctx),
            _ => ctx.send("530 STARTTLS comes first\r\n"),
        }
        Ok(())
    }
}

/// The client begins anew, whatever it said before.
struct InTls;

impl Protocol for InTls {
    fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_>, (): &mut (), line: &[u8]) -> Outcome {
        match command(line).as_str() {
            "EHLO" => ctx.send("250 localhost\r\n"),
            "QUIT" => quit(ctx),
            _ => {
                ctx.send(line);
                ctx.send("\r\n");
            }
        }
        Ok(())
    }
}

/// The first word.
fn command(line: &[u8]) -> String {
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

fn quit(ctx: &mut Context<'_>) {
    ctx.send("221 bye\r\n");
    ctx.close();
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &tls::OPTIONS)? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7011".into());
    let tls = tls::server(&given, &[])?.ok_or_else(|| misused("TLS needs both --cert and --key"))?;
    let mut reactor = Reactor::new()?;
    let options = Listen::new().idle_timeout(PATIENCE).stall_timeout(PATIENCE);
    let listener = listening(reactor.net().listen_with(at, options, move |_, _, _| Ok(InClear { tls: tls.clone() })))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut ())?)
}

fn main() -> ExitCode {
    exit(run())
}
