//! The server: a protocol for one connection, and a loop that makes one for each client.

use crate::common::{Failure, announce, drain_on_interrupt, listening};
use chrono::Local;
use mainspring::{Context, Limit, Outcome, Protocol, Reactor, Terminator};
use std::{fmt::Display, time::Duration};

/// Longer lines are refused: no client makes us keep more than this.
pub(crate) const LINE_MAX: usize = 4096;

/// A client that says nothing for this long, or takes this long for a line, is disconnected.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);

/// After Ctrl-C, the time clients have to read their last answers.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Comes before each line; the time is written as by ctime(3).
pub(crate) const STAMP: &str = "[%a %b %e %H:%M:%S %Y] ";

pub(crate) fn stamp() -> impl Display {
    Local::now().format(STAMP)
}

pub(crate) struct Stamper {
    pub(crate) idle_max: Duration,
}

impl<S> Protocol<S> for Stamper {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(self.idle_max);
        ctx.set_frame_timeout(self.idle_max); // a client that sends a line byte by byte is not idle
        ctx.set_stall_timeout(self.idle_max); // a client that keeps asking but does not read is not idle
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        ctx.set_deadline(None); // a line that was too long has ended
        write!(ctx, "{}", stamp());
        ctx.send(line);
        ctx.send("\n");
        Ok(())
    }

    /// A line that is too long is answered, and the rest of it skipped. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, S>, _: &mut S, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "line too long: {LINE_MAX} bytes at most");
        ctx.set_deadline(self.idle_max); // for the rest, which may never end
        Ok(())
    }
}

pub(crate) fn serve(at: String, idle_max: Duration) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    let listener = listening(reactor.net().listen(at, move || Stamper { idle_max }))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut ())?)
}
