//! Sends back whatever it gets. The README shows this file.
use mainspring::{Context, Outcome, Protocol, Reactor};
use std::io::Write;

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

fn main() -> std::io::Result<()> {
    let at = std::env::args_os().nth(1).unwrap_or("127.0.0.1:7000".into());
    let at = at.into_string().map_err(|at| std::io::Error::other(format!("an address is text, not {at:?}")))?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.net().listen(at, || Echo)?;
    writeln!(std::io::stdout(), "listening on {}", reactor.net().local(listener).expect("it listens"))?;
    reactor.run(&mut ())
}
