//! The line client in a command-line tool: S = ().
#[path = "common/line_client.rs"]
pub mod line_client;
use line_client::LineClient;
use mainspring::*;
use std::io;

fn main() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    let client = LineClient::new(|me, ctx, _| {
        me.ask(ctx, "HELLO", |me, ctx, _, answer| {
            println!("{answer:?}");
            me.ask(ctx, "BYE", |_, ctx, _, answer| {
                println!("{answer:?}");
                ctx.close();
                Ok(())
            });
            Ok(())
        });
        Ok(())
    })
    .on_unasked(|_, _, news| {
        println!("news: {news}");
        Ok(())
    })
    .on_closed(|ctx, _, why| {
        eprintln!("{why}");
        ctx.net.stop()
    });
    reactor.net().connect("localhost:7000", client);
    reactor.run(&mut ())
}
