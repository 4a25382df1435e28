//! Passes standard input on to a server and its answers to standard output, and slows down whichever side is faster.
//!
//! These are three connections rather than a pair, because what to report, and what to do with the others, depends on
//! which of them ended or failed.

mod common;

use common::{Failure, arguments, callee, exit, is_misused, misused, unwritten};
use mainspring::{Adopted, Config, Context, Key, Net, Outcome, Protocol, Reactor, Reason};
use std::{io::ErrorKind, process::ExitCode, time::Duration};

const HELP: &str = "\
Passes standard input on to a server, and its answers to standard output.

usage: talk ADDR

ADDR is HOST:PORT or unix:/path. For example: talk 127.0.0.1:7000 < file

The end of standard input is passed on too; then talk prints what the server
still says until the server ends, however long that takes. If the server ends
first, it still gets what comes from standard input, until nothing has come for
half a second: at a terminal, half a second after you last typed. If the server
takes no more of it, that is an error.

The reader of the output may be slow and misses nothing. When it goes away, or
at Ctrl-C, talk ends at once. The exit status is 0 if everything was passed on.";

/// After the server has ended, how long standard input may be silent.
const SILENCE: Duration = Duration::from_millis(500);

/// The reader of our output may be slow and loses nothing: the end waits for it, and what came before a reset is kept,
/// however much that is.
fn patient() -> Config {
    Config::new().linger_max(Duration::MAX).output_limits(16 << 10, 64 << 10, usize::MAX)
}

/// The three connections, and the outcome.
struct Talk {
    input: Key,
    server: Key,
    output: Key,
    ending: Result<(), Failure>,
}

impl Talk {
    /// The first failure is the one that is reported. The connection is aborted, so that the server does not take a part for
    /// the whole.
    fn fail(&mut self, net: &mut Net<'_, Self>, why: impl Into<Failure>) {
        if self.ending.is_ok() {
            self.ending = Err(why.into());
        }
        net.abort(self.server);
    }
}

struct Input;

impl Protocol<Talk> for Input {
    fn received(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, bytes: &[u8]) -> Outcome {
        ctx.net.send(talk.server, bytes);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, why: Reason) {
        if let Reason::Io(error) = why {
            talk.fail(&mut ctx.net, format!("cannot read standard input: {error}"));
        }
        ctx.net.half_close(talk.server);
    }
}

struct Server;

impl Protocol<Talk> for Server {
    fn connected(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk) -> Outcome {
        if let Some(mut input) = ctx.net.link(talk.input) {
            input.resume();
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, bytes: &[u8]) -> Outcome {
        ctx.net.send(talk.output, bytes);
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, _: &[u8]) -> Outcome {
        if let Some(mut input) = ctx.net.link(talk.input) {
            input.set_idle_timeout(SILENCE);
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, why: Reason) {
        ctx.net.close(talk.input);
        ctx.net.close(talk.output);
        match why {
            why if why.is_clean() => {}
            Reason::Resolve(error) if is_misused(&error) => talk.fail(&mut ctx.net, misused(error)),
            why if why.is_connect() => talk.fail(&mut ctx.net, why.to_string()),
            why => {
                let why = format!("lost the server {}: {why}", ctx.peer());
                talk.fail(&mut ctx.net, why);
            }
        }
    }
}

struct Output;

impl Protocol<Talk> for Output {
    fn closed(&mut self, ctx: &mut Context<'_, Talk>, talk: &mut Talk, why: Reason) {
        match why {
            Reason::Io(error) => talk.fail(&mut ctx.net, unwritten(error)),
            Reason::Eof => talk.fail(&mut ctx.net, unwritten(ErrorKind::BrokenPipe.into())), // its reader has gone
            Reason::Finish => {}
            why => talk.fail(&mut ctx.net, format!("cannot write to standard output: {why}")),
        }
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &[])? else { return Ok(()) };
    let server = given.text()?.ok_or_else(|| misused("ADDR is missing: the server to connect to"))?;
    let server = callee("ADDR", &server)?;
    let mut reactor = Reactor::with_config(patient())?;
    let mut net = reactor.net();
    let input = net.adopt(Adopted::stdin()?, Input).map_err(|error| format!("standard input: {error}"))?;
    let output = net.adopt(Adopted::stdout()?, Output).map_err(|error| format!("standard output: {error}"))?;
    let server = net.connect(server, Server);
    net.throttle(input, server);
    net.throttle(server, output);
    if let Some(mut input) = net.link(input) {
        input.pause(); // until there is a server to send it to
    }
    let mut talk = Talk { input, server, output, ending: Ok(()) };
    reactor.run(&mut talk)?;
    talk.ending
}
