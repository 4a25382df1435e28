//! Server-sent events (HTML, 9.2).

use crate::answer::Event;
use mainspring::{Context, Outcome, Protocol};
use std::{fmt::Write, time::Duration};

/// An event with a name, which must not have line ends in it, and data of any number of lines.
pub fn event(name: &str, data: &str) -> String {
    let mut text = format!("event: {name}\n");
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        let _ = writeln!(text, "data: {line}"); // a String takes everything
    }
    text + "\n"
}

/// A connection that has asked for events; from now on it only listens.
pub(crate) struct Events<S> {
    pub(crate) period: Duration,
    pub(crate) event: Event<S>,
    pub(crate) stall: Duration,
}

impl<S: 'static> Protocol<S> for Events<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.set_stall_timeout(self.stall);
        let first = (self.event)(ctx, state);
        ctx.send(first);
        ctx.every(self.period, |events: &mut Self, ctx, state| {
            if !ctx.is_congested() {
                let event = (events.event)(ctx, state);
                ctx.send(event);
            }
            Ok(())
        });
        if ctx.net.is_draining() {
            ctx.close(); // only the protocol before us was told by `draining`
        }
        Ok(())
    }

    /// A request after this one is never answered: we have said `Connection: close`.
    fn received(&mut self, _: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        Ok(())
    }

    /// Events never end, so when draining we must end them.
    fn draining(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::event;

    #[test]
    fn data_is_data_whatever_ends_its_lines() {
        assert_eq!(event("said", "one\r\ntwo\rthree\nfour"), "event: said\ndata: one\ndata: two\ndata: three\ndata: four\n\n");
        assert_eq!(event("said", ""), "event: said\ndata: \n\n");
    }
}
