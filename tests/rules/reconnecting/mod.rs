//! The connection that is made again: in the simulated world, where a server dies and returns as often as one likes, and an
//! hour of pauses takes no time. The pauses as numbers are tested beside `back_off`.

mod returning;
mod stopping;
mod ending;
mod keeping;

use mainspring::{
    Context, Kind, Outcome, Protocol, Reason, Reconnect, Terminator,
    testing::{Host, Sim},
};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

const AT: &str = "10.0.0.1:7000";

/// Every line that any connection brought, in order.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Friendly,
    /// Accepts, and closes at once.
    Curt,
    /// Reads nothing.
    Deaf,
}

struct Line(Manner);

impl Protocol<Log> for Line {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        match self.0 {
            Manner::Friendly => {}
            Manner::Curt => ctx.close(),
            Manner::Deaf => ctx.pause(),
        }
        Ok(())
    }

    fn frame(&mut self, _: &mut Context<'_, Log>, log: &mut Log, line: &[u8]) -> Outcome {
        log.lines.push(String::from_utf8(line.to_vec())?);
        Ok(())
    }
}

fn returns(sim: &mut Sim, host: Host<Log>, manner: Manner) {
    sim.net(host).listen(AT, move || Line(manner)).expect("a simulated port is free");
}

fn server(sim: &mut Sim, manner: Manner) -> Host<Log> {
    let host = sim.host("10.0.0.1", Log::default());
    returns(sim, host, manner);
    host
}

struct App {
    uplink: Reconnect<App>,
    /// When connections were made, and when they ended.
    began: Vec<Instant>,
    ended: Vec<Instant>,
    why: Vec<String>,
}

/// Says that it is ready at once.
struct Uplink;

impl Protocol<App> for Uplink {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        ctx.set_idle_timeout(None);
        app.began.push(ctx.net.now());
        app.uplink.ready(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.why.push(why.to_string());
        app.uplink.closed(ctx, &why);
        app.uplink.closed(ctx, &why); // says nothing new
    }
}

fn uplink<P: Protocol<App>>(factory: impl FnMut() -> P + 'static) -> Reconnect<App> {
    Reconnect::new(AT, |app: &mut App| &mut app.uplink, factory)
}

fn client_with(sim: &mut Sim, uplink: Reconnect<App>) -> Host<App> {
    let app = App { uplink, began: Vec::new(), ended: Vec::new(), why: Vec::new() };
    let host = sim.host("10.0.0.2", app);
    sim.with(host, |net, app| app.uplink.start(net));
    host
}

fn client(sim: &mut Sim) -> Host<App> {
    client_with(sim, uplink(|| Uplink))
}

fn send(sim: &mut Sim, client: Host<App>, number: u32) -> bool {
    sim.with(client, |net, app| app.uplink.send(net, format!("{number}\n")))
}

fn is_ready(sim: &mut Sim, client: Host<App>) -> bool {
    sim.state(client).uplink.is_ready()
}

/// Never says that it is ready.
struct Unready;

impl Protocol<App> for Unready {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        app.began.push(ctx.net.now());
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.uplink.closed(ctx, &why);
    }
}

fn stop(sim: &mut Sim, client: Host<App>) {
    sim.with(client, |net, app| app.uplink.stop(net));
}

/// Its connections that have a protocol.
fn opened<S: 'static>(sim: &mut Sim, host: Host<S>) -> usize {
    sim.net(host).connections().iter().filter(|connection| connection.kind == Kind::Opened).count()
}
