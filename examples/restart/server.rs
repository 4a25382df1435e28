//! The server; `succession.rs` restarts it.

use crate::{
    common::{Failure, arguments, print},
    succession::{FROM_STDIN, Succession, socket, tell},
};
use mainspring::{Context, Listen, Outcome, Protocol, Reactor, Terminator};
use std::time::Duration;

const HELP: &str = "\
A server that you can restart without losing a client. It sends each line back
with its process id in front, and closes the connection. On SIGHUP it starts its
program anew and gives it the listening socket. The program is the file that it
was started from; if that was a link, its target.
When the new process says that it is ready, the old one finishes what is under
way, and ends. If the new one ends before that, or says nothing in time, the old
one goes on.

usage: restart [--patience SECONDS] [--grace SECONDS] [ADDR]

ADDR is where it listens; the default is 127.0.0.1:7000. If ADDR is -, the
listening socket is its standard input. A socket that systemd has opened
(LISTEN_FDS) is used before any other.

A successor has 10 seconds (--patience) to get ready. A client has 10 seconds
for its line; when the server ends, all clients together have 30 (--grace). The
only line on standard output is `listening on`; everything else is reported on
standard error, which a successor has too. SIGTERM and SIGINT end the server,
and a successor that is not ready yet.";

const LINE_MAX: usize = 1024;

/// The time from connecting to the last byte of the answer: less than a drain's.
const VISIT_MAX: Duration = Duration::from_secs(10);

/// The state of the program.
struct Server {
    succession: Succession<Self>,
}

/// One line, one answer.
struct Visit;

impl Protocol<Server> for Visit {
    fn connected(&mut self, ctx: &mut Context<'_, Server>, _: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Server>, _: &mut Server, line: &[u8]) -> Outcome {
        ctx.send(format!("{} ", std::process::id()));
        ctx.send(line);
        ctx.send("\n");
        ctx.close();
        Ok(())
    }

    /// A client may have sent a line that is still on its way, so every client gets its answer, or its deadline: the default
    /// would close quiet ones.
    fn draining(&mut self, _: &mut Context<'_, Server>, _: &mut Server) -> Outcome {
        Ok(())
    }
}

pub(crate) fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["patience", "grace"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7000".into());
    let patience = given.seconds("patience")?.unwrap_or(Duration::from_secs(10));
    let grace = given.seconds("grace")?.unwrap_or(Duration::from_secs(30));
    let socket = socket(&at)?;
    let for_successor = socket.try_clone()?;
    let times = [format!("--patience={}", patience.as_secs()), format!("--grace={}", grace.as_secs())];
    let again = times.into_iter().map(Into::into).chain([FROM_STDIN.into()]).collect();
    let succession = Succession::new(|server: &mut Server| &mut server.succession, for_successor, again, patience, grace)?;

    let mut reactor = Reactor::new()?;
    let mut net = reactor.net();
    let listener = net.listen_on(socket, Listen::new().deadline(VISIT_MAX), |_, _, _| Ok(Visit));
    let listener = listener.map_err(|error| format!("cannot listen on '{at}': {error}"))?;
    succession.heed_signals(&mut net)?;
    print(format_args!("listening on {}", net.local(listener).expect("it listens")))?;

    reactor.run(&mut Server { succession })?;
    tell("ended");
    Ok(())
}
