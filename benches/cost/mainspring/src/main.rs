//! The smallest echo server on mainspring.

use mainspring::{Context, Outcome, Protocol, Reactor};

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

fn main() -> std::io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.net().listen("127.0.0.1:7000", || Echo)?;
    reactor.run(&mut ())
}
