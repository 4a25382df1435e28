//! The server: a protocol for one connection, and a loop that makes one for each that comes.

use crate::common::{Failure, announce, drain_on_interrupt, listening};
use chrono::Local;
use mainspring::{Context, Limit, Outcome, Protocol, Reactor, Terminator};
use std::{fmt::Display, time::Duration};

/// Longer lines are refused: nobody makes us keep more than this.
pub(crate) const LINE_MAX: usize = 4096;

/// Who says nothing for so long, or takes so long for a line, is let go.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);

/// After Ctrl-C: for everybody to take its answers.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Before each line, as ctime(3) writes the time.
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
        ctx.set_frame_timeout(self.idle_max); // whoever drips, or never ends a line, is not idle
        ctx.set_stall_timeout(self.idle_max); // whoever asks on and on but does not read is not idle
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        ctx.set_deadline(None); // if the line before was too long, that has ended
        write!(ctx, "{}", stamp());
        ctx.send(line);
        ctx.send("\n");
        Ok(())
    }

    /// Too long a line is answered, and what remains of it skipped. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, S>, _: &mut S, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "line too long: {LINE_MAX} bytes at most");
        ctx.set_deadline(self.idle_max); // for that rest, which may have no end
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
