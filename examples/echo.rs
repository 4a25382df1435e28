//! Sends back whatever it gets.

mod common;

use common::{Failure, address, announce, exit, stop_on_interrupt};
use mainspring::{Context, Listen, Outcome, Protocol, Reactor};
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
Sends back whatever it gets.

usage: echo [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; 127.0.0.1:7007 if it is
not given. Then, in another terminal: nc 127.0.0.1 7007

Who for 10 minutes says nothing, or takes nothing of what comes back, is let
go.";

/// How long that is: it may be a person who types, or a peer that has vanished without a word.
const IDLE_MAX: Duration = Duration::from_secs(600);

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(at) = address(HELP, "127.0.0.1:7007")? else { return Ok(()) };
    let mut reactor = Reactor::new()?;
    let options = Listen::new().idle_timeout(IDLE_MAX).stall_timeout(IDLE_MAX);
    let listener = reactor.net().listen_with(at, options, |_, _, _| Ok(Echo))?;
    stop_on_interrupt(&reactor)?;
    announce(&reactor.net(), listener);
    Ok(reactor.run(&mut ())?)
}
