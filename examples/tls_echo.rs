//! Echo over TLS: a listener that speaks TLS, and how to see what was agreed on.

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

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7010. All files are PEM: FILE of --cert has the server's certificate,
followed by those that lead to its issuer; --key its private key. With
--client-ca, clients must show a certificate that one of the issuers in that
file has issued. The files of the tests will do:

  tls_echo --cert tests/certs/p256.pem --key tests/certs/p256.key
  openssl s_client -connect 127.0.0.1:7010 -CAfile tests/certs/ca.pem -quiet

If a client offers protocols (ALPN), `echo` must be among them; otherwise it is
refused with the alert no_application_protocol. A client need not offer any.
Three lines have answers of their own:

  INFO   what was agreed on: version, cipher suite, protocol, the name that the
         client asked for, whether a session was resumed, and the size of the
         client's certificate in bytes
  CLOSE  bye, and then the connection is closed properly
  ABORT  nothing: the connection is broken off, as if it were lost

A handshake may take 10 seconds, and a line may have 64 KiB. A client that says
nothing for 60 seconds is disconnected. LOG=debug says on standard error why a
handshake failed. The secrets of sessions are written to the file that
SSLKEYLOGFILE names.";

const LINE_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(2);

struct Echo;

impl Protocol for Echo {
    /// The handshake is over; before that, there is no connection for us.
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
                ctx.close(); // close_notify follows, so the client knows that this was all
            }
            b"ABORT" => ctx.abort(),
            _ => ctx.send(line),
        }
        Ok(())
    }

    /// The last line may have no end.
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
    let server = tls::server(&given, &["echo"])?.ok_or_else(|| misused("TLS needs both --cert and --key"))?;
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
