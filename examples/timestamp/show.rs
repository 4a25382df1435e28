//! Both in one loop: the server, and a client that shows what it said and what came back.

use crate::{
    common::{Failure, announce, complain, say, stop_on_interrupt},
    server::{IDLE_MAX, LINE_MAX, Stamper},
};
use mainspring::{Address, Context, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    io::{self, Write},
    slice,
};

/// Says its lines one by one, and leaves.
struct Visitor {
    lines: slice::Iter<'static, &'static str>,
}

impl Visitor {
    fn go_on<S>(&mut self, ctx: &mut Context<'_, S>) -> Outcome {
        match self.lines.next() {
            Some(line) => {
                writeln!(io::stdout(), "client: {line}")?;
                writeln!(ctx, "{line}");
            }
            None => ctx.close(),
        }
        Ok(())
    }
}

impl<S> Protocol<S> for Visitor {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(2 * LINE_MAX));
        self.go_on(ctx)
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, answer: &[u8]) -> Outcome {
        writeln!(io::stdout(), "server: {}", String::from_utf8_lossy(answer))?;
        self.go_on(ctx)
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, _: &mut S, why: Reason) {
        match why {
            Reason::Finish => say_what_next(ctx.peer()),
            why => complain(format_args!("the client was not served: {why}")),
        }
    }
}

fn say_what_next(server: &Address) {
    say("\nServing until Ctrl-C. Now you, in another terminal:");
    if let Some(addr) = server.ip() {
        say(format_args!("  printf 'hello\\r\\nworld\\n' | nc -N {} {}", addr.ip(), addr.port()));
    }
    say(format_args!("  cargo run --release --example timestamp -- ask {server}"));
}

pub(crate) fn both() -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let mut net = reactor.net();
    let listener = net.listen("127.0.0.1:0", || Stamper { idle_max: IDLE_MAX })?;
    announce(&net, listener);
    let server = net.local(listener).cloned().ok_or("the listener has no address")?;
    net.connect(&server, Visitor { lines: ["hello", "what time is it?"].iter() });
    Ok(reactor.run(&mut ())?)
}
