//! What a library might bring along: a server with a reactor and a state of its own.

use mainspring::{Context, Key, Net, Outcome, Protocol, Terminator};
use std::{io, time::Duration};

const LINE_MAX: usize = 64;

/// The state of this reactor, and of no other.
#[derive(Default)]
pub(crate) struct Status {
    /// How much the outer one has echoed, as it told us.
    pub(crate) pieces: u64,
    asked: u64,
    seconds: u64,
}

pub(crate) fn listen(net: &mut Net<'_, Status>, at: &str) -> io::Result<Key> {
    net.every(Duration::from_secs(1), |_, status| status.seconds += 1);
    net.listen(at, || Teller)
}

struct Teller;

impl Protocol<Status> for Teller {
    fn connected(&mut self, ctx: &mut Context<'_, Status>, _: &mut Status) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    /// Any line gets the same answer.
    fn frame(&mut self, ctx: &mut Context<'_, Status>, status: &mut Status, _: &[u8]) -> Outcome {
        status.asked += 1;
        let Status { pieces, asked, seconds } = status;
        writeln!(ctx, "{pieces} pieces echoed, up for {seconds} s, asked {asked} times");
        Ok(())
    }
}
