//! Forwards each connection to a target, and holds back whoever sends faster than the other side reads.

mod common;

use common::{Failure, announce, arguments, complain, exit, misused, stop_on_interrupt};
use mainspring::{Context, Key, Outcome, Protocol, Reactor, Reason, Target};
use std::process::ExitCode;

const HELP: &str = "\
Forwards each connection to a target, and holds back whoever sends faster than
the other side reads.

usage: proxy LISTEN TARGET

Both are IP:PORT or unix:/path; port 0 of LISTEN means any free one.
For example: proxy 127.0.0.1:8080 127.0.0.1:80";

/// Somebody who has just come: calls the target, and becomes one side of the pair.
struct Client;

impl Protocol<Target> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Target>, target: &mut Target) -> Outcome {
        let other = ctx.net.connect(&*target, Side { other: ctx.key });
        ctx.upgrade(Side { other });
        Ok(())
    }
}

/// One of the two sides: what it receives goes to the other. That one may still be connecting: what is sent to it then is
/// kept, and counts for its marks like any other output.
struct Side {
    other: Key,
}

impl<S> Protocol<S> for Side {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.throttle(self.other); // read while the other side can take it
        ctx.set_hold_back(false); // and for no other reason: the two directions do not wait for each other
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.net.send(self.other, bytes);
        Ok(())
    }

    /// The end of one direction is passed on; a stream whose two directions have ended closes itself.
    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        ctx.net.half_close(self.other);
        Ok(())
    }

    /// What broke off here breaks off there.
    fn closed(&mut self, ctx: &mut Context<'_, S>, _: &mut S, why: Reason) {
        if !why.is_clean() {
            ctx.net.abort(self.other);
        }
        if why.is_connect() {
            complain(why);
        }
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &[])? else { return Ok(()) };
    let (Some(at), Some(target)) = (given.text()?, given.text()?) else {
        return Err(misused("LISTEN and TARGET are both needed"));
    };
    let mut target = Target::from(target);
    let mut reactor = Reactor::new()?;
    let listener = reactor.net().listen(at, || Client)?;
    stop_on_interrupt(&reactor)?;
    announce(&reactor.net(), listener);
    Ok(reactor.run(&mut target)?)
}
