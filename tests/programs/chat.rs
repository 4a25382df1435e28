//! A chat room, and an echo that works with any state.
use mainspring::{Context, Key, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{collections::BTreeMap, io, str, time::Duration};

#[derive(Default)]
struct Room {
    names: BTreeMap<Key, String>,
}
struct Guest;

impl Protocol<Room> for Guest {
    fn connected(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room) -> Outcome {
        ctx.set_terminator(Terminator::line(1024));
        ctx.set_idle_timeout(Duration::from_secs(600));
        ctx.send("Your name?\n");
        Ok(())
    }
    fn frame(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, line: &[u8]) -> Outcome {
        let line = str::from_utf8(line)?;
        let Some(name) = room.names.get(&ctx.key) else {
            room.names.insert(ctx.key, line.to_owned());
            writeln!(ctx, "Welcome, {line}. {} here.", room.names.len());
            return Ok(());
        };
        let said = format!("<{name}> {line}\n");
        for &other in room.names.keys().filter(|key| **key != ctx.key) {
            ctx.net.send(other, &said);
        }
        Ok(())
    }
    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, _why: Reason) {
        room.names.remove(&ctx.key);
    }
}

struct Echo;
impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

fn hourly(net: &mut Net<'_, Room>, room: &mut Room) {
    for &key in room.names.keys() {
        net.send(key, "* another hour\n");
    }
}

fn main() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    let mut net = reactor.net();
    net.listen("127.0.0.1:7001", || Guest)?;
    net.listen("127.0.0.1:7007", || Echo)?;
    net.every(Duration::from_secs(3600), hourly);
    reactor.run(&mut Room::default())
}
