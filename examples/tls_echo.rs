//! Echo over TLS: a listener that speaks it, and what was agreed on.

mod common;
#[path = "common/logging.rs"]
mod logging;
#[path = "common/tls.rs"]
mod tls;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused};
use logging::log_to_stderr;
use mainspring::{Context, Listen, Outcome, Protocol, Reactor, Terminator, Tls, rustls::ProtocolVersion};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Sends back each line that it gets, over TLS 1.2 or 1.3.

usage: tls_echo [ADDR] --cert FILE --key FILE [--client-ca FILE]

ADDR is IP:PORT (port 0: any free one) or unix:/path; 127.0.0.1:7010 if it is
not given. All files are PEM: the server's certificate, with those that lead to
its issuer behind it; its private key; and the issuers of clients, who have to
show a certificate then. Those of the tests will do:

  tls_echo --cert tests/certs/p256.pem --key tests/certs/p256.key
  openssl s_client -connect 127.0.0.1:7010 -CAfile tests/certs/ca.pem -quiet

The protocol `echo` is agreed on with who offers it (ALPN). Who offers others
alone is refused, by the alert no_application_protocol; who offers none is not.
Three lines are answered otherwise:

  INFO   what was agreed on: version, cipher suite, protocol, the name that was
         asked for, whether a session was resumed, and how many bytes the
         certificate of the client has
  CLOSE  bye, and a polite end
  ABORT  nothing: the connection is broken off, as if it were lost

A handshake has 10 seconds, a line 64 KiB. Who says nothing for 60 seconds is
let go. LOG=debug tells on standard error why a handshake failed; the secrets
of sessions are written to the file that SSLKEYLOGFILE names.";

const LINE_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(2);

struct Echo;

impl Protocol for Echo {
    /// The handshake is over: before, there is nobody.
    fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
        ctx.set_terminator(Terminator::through(&b"\n"[..], LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_>, (): &mut (), line: &[u8]) -> Outcome {
        match line.trim_ascii_end() {
            b"INFO" => {
                let told = ctx.tls().map(agreed).ok_or("this listener speaks TLS")?;
                ctx.send(told + "\n");
            }
            b"CLOSE" => {
                ctx.send("bye\n");
                ctx.close(); // close_notify stands behind it, so nobody has to ask whether that was all
            }
            b"ABORT" => ctx.abort(),
            _ => ctx.send(line),
        }
        Ok(())
    }

    /// The last line has no end, perhaps.
    fn eof(&mut self, ctx: &mut Context<'_>, (): &mut (), tail: &[u8]) -> Outcome {
        ctx.send(tail);
        ctx.close();
        Ok(())
    }
}

fn agreed(tls: Tls<'_>) -> String {
    let version = match tls.version() {
        ProtocolVersion::TLSv1_3 => "1.3",
        ProtocolVersion::TLSv1_2 => "1.2",
        _ => "another",
    };
    format!(
        "version={version} suite={} alpn={} name={} resumed={} client={}",
        tls.cipher_suite().as_str().unwrap_or("unknown"),
        tls.alpn().map_or_else(|| "none".into(), |protocol| protocol.escape_ascii().to_string()),
        tls.server_name().unwrap_or("none"),
        if tls.is_resumed() { "yes" } else { "no" },
        tls.peer_certificates().first().map_or(0, |certificate| certificate.len()),
    )
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &tls::OPTIONS)? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7010".into());
    let server = tls::server(&given, &["echo"])?.ok_or_else(|| misused("TLS wants both --cert and --key"))?;
    log_to_stderr();
    let mut reactor = Reactor::new()?;
    let options = Listen::new().tls(server).idle_timeout(PATIENCE).stall_timeout(PATIENCE);
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Echo)))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut ())?)
}

fn main() -> ExitCode {
    exit(run())
}
