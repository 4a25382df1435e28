//! Both in one loop: the server, and a client that shows its questions and the answers.

use crate::{
    common::{Failure, announce, end_on_interrupt, listening, print},
    printable::printable,
    server::{IDLE_MAX, LINE_MAX, Stamper},
};
use mainspring::{Address, Context, Outcome, Protocol, Reactor, Reason, Terminator};
use std::slice;

/// The state of the program: how it will end.
type Ending = Result<(), Failure>;

/// Sends its lines one by one, and leaves.
struct Visitor {
    lines: slice::Iter<'static, &'static str>,
}

impl Visitor {
    fn go_on<S>(&mut self, ctx: &mut Context<'_, S>) -> Outcome {
        match self.lines.next() {
            Some(line) => {
                print(format_args!("client: {line}"))?;
                writeln!(ctx, "{line}");
            }
            None => ctx.close(),
        }
        Ok(())
    }
}

impl Protocol<Ending> for Visitor {
    fn connected(&mut self, ctx: &mut Context<'_, Ending>, _: &mut Ending) -> Outcome {
        ctx.set_terminator(Terminator::line(2 * LINE_MAX));
        self.go_on(ctx)
    }

    fn frame(&mut self, ctx: &mut Context<'_, Ending>, _: &mut Ending, answer: &[u8]) -> Outcome {
        print(format_args!("server: {}", printable(&String::from_utf8_lossy(answer))))?;
        self.go_on(ctx)
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ending>, ending: &mut Ending, why: Reason) {
        *ending = match why {
            Reason::Finish => say_what_next(ctx.peer()),
            Reason::Failed(fault) => Err(fault),
            why => Err(format!("the client got no answer: {why}").into()),
        };
        if ending.is_err() {
            ctx.net.stop();
        }
    }
}

fn say_what_next(server: &Address) -> Ending {
    print("\nServing until Ctrl-C. Now you, in another terminal:")?;
    if let Some(addr) = server.ip() {
        print(format_args!("  printf 'hello\\r\\nworld\\n' | nc -N {} {}  # ncat: without -N", addr.ip(), addr.port()))?;
    }
    print(format_args!("  cargo run --release --example timestamp -- ask {server}"))
}

pub(crate) fn both() -> Ending {
    let mut reactor = Reactor::new()?;
    end_on_interrupt(&reactor)?;
    let mut net = reactor.net();
    let listener = listening(net.listen("127.0.0.1:0", || Stamper { idle_max: IDLE_MAX }))?;
    announce(&net, listener)?;
    let server = net.local(listener).cloned().ok_or("the listener has no address")?;
    net.connect(&server, Visitor { lines: ["hello", "what time is it?"].iter() });
    let mut ending = Ok(());
    reactor.run(&mut ending)?;
    ending
}
