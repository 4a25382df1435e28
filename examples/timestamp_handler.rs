//! The time server of `timestamp` again, in the style of Python's socketserver: a request handler with verify, setup, handle
//! and finish.

mod common;

use chrono::Local;
use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, say};
use mainspring::{
    Address, Answer, Context, Fault, Limit, Listen, Net, Outcome, Reactor, Reason, Refusal, RequestHandler, Terminator,
};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Sends each line back with the local time in front:
[Sat Nov 21 10:15:00 2026] hello

usage: timestamp_handler [--clients N] [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7013. Then, in another terminal: nc 127.0.0.1 7013

There can be N clients at a time, 100 by default; more are refused. A client
that says nothing, does not finish a line or reads none of its answers for 60
seconds is disconnected, and so is one that says `bye`.";

/// Longer lines are refused: no client makes us keep more than this.
const LINE_MAX: usize = 4096;

/// A client that says nothing for this long, or takes this long for a line, is disconnected.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// After Ctrl-C, the time clients have to read their last answers.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the program.
struct Counter {
    clients: u32,
    clients_max: u32,
}

/// One for each connection.
#[derive(Default)]
struct Stamper {
    requests: u32,
}

impl RequestHandler<Counter> for Stamper {
    fn verify(&mut self, _: &mut Net<'_, Counter>, counter: &mut Counter, peer: &Address) -> Result<(), Refusal> {
        if counter.clients == counter.clients_max {
            say(format_args!("{peer} is refused"));
            return Err("too many clients; try again later\n".into());
        }
        counter.clients += 1;
        Ok(())
    }

    fn setup(&mut self, ctx: &mut Context<'_, Counter>, _: &mut Counter) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(IDLE_MAX);
        ctx.set_frame_timeout(IDLE_MAX); // a client that sends a line byte by byte is not idle
        ctx.set_stall_timeout(IDLE_MAX); // a client that keeps asking but does not read is not idle
        Ok(())
    }

    fn handle(&mut self, ctx: &mut Context<'_, Counter>, _: &mut Counter, line: &[u8]) -> Result<Answer<Self, Counter>, Fault> {
        ctx.set_deadline(None); // a line that was too long has ended
        self.requests += 1;
        if line == b"bye" {
            return Ok(Answer::last("bye\n"));
        }
        let now = Local::now().format("%a %b %e %H:%M:%S %Y"); // as ctime(3) writes it
        Ok(Answer::now([format!("[{now}] ").as_bytes(), line, b"\n"].concat()))
    }

    /// A line that is too long is answered, and the rest of it skipped. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, Counter>, _: &mut Counter, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "line too long: {LINE_MAX} bytes at most");
        ctx.set_deadline(IDLE_MAX); // for the rest, which may never end
        Ok(())
    }

    fn finish(&mut self, ctx: &mut Context<'_, Counter>, counter: &mut Counter, why: Reason) {
        counter.clients -= 1;
        say(format_args!("{}: {} requests; {why}", ctx.peer(), self.requests));
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["clients"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7013".into());
    let clients_max = given.number("clients", 1..=u32::MAX)?.unwrap_or(100);
    let mut reactor = Reactor::new()?;
    drain_on_interrupt(&reactor, GRACE)?;
    let listener = listening(reactor.net().serve(at, Listen::new(), Stamper::default))?;
    announce(&reactor.net(), listener)?;
    let mut counter = Counter { clients: 0, clients_max };
    reactor.run(&mut counter)?;
    reactor.shutdown(&mut counter); // so that clients still here at a second Ctrl-C are logged too
    Ok(())
}
