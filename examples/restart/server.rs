//! The server, which is restarted as `succession.rs` has it.

use crate::{
    common::{Failure, arguments, print},
    succession::{FROM_STDIN, Succession, socket, tell},
};
use mainspring::{Context, Listen, Outcome, Protocol, Reactor, Terminator};
use std::time::Duration;

const HELP: &str = "\
A server that is restarted and loses nobody. It takes a line, answers it with
the number of its process in front, and closes. On SIGHUP it starts its program
anew, from the file that it was started from (where that was a link, from what
that led to), and gives it the listening socket.
When the new one says that it is ready, the old one finishes what is under way,
and ends. If the new one ends before, or says nothing in time, the old one goes
on.

usage: restart [--patience SECONDS] [--grace SECONDS] [ADDR]

ADDR is where it listens, 127.0.0.1:7000 if it is not given. With - that is its
standard input, a socket that listens already; and one that systemd has opened
(LISTEN_FDS) comes before any. A successor has so long to be ready: 10 seconds,
or --patience. Who is connected has 10 seconds for his line, and all together
have 30 when it ends, or --grace. Standard output has one line, `listening on`,
for whoever has started it; what it does is told on standard error, which a
successor has too. SIGTERM and SIGINT end it, and also a successor that is not
ready yet.";

const LINE_MAX: usize = 1024;

/// From being connected to the last byte of the answer: less than a drain has.
const VISIT_MAX: Duration = Duration::from_secs(10);

/// What the program has one of.
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

    /// Who has connected may have sent a line that is still on its way. So everybody has his answer, or his deadline: the default
    /// would close who is quiet.
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
