//! Server-sent events of the reactor's own figures.

use crate::{App, Ctx};
use mainspring::{Net, Outcome, Protocol, Reason};
use std::{fmt::Write, rc::Rc, time::Duration};

/// A connection that has asked for events, and only listens from now on.
pub struct Events;

impl Protocol<App> for Events {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        app.watchers.insert(ctx.key);
        ctx.set_stall_timeout(Duration::from_secs(30));
        let event = event(&ctx.net);
        ctx.send(event);
        Ok(())
    }

    fn received(&mut self, _: &mut Ctx<'_>, _: &mut App, _: &[u8]) -> Outcome {
        Ok(()) // a pipelined request after this one is never answered: we said `Connection: close`
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, _: Reason) {
        app.watchers.remove(&ctx.key);
    }
}

/// Call it once: an event a second for everybody who watches.
pub fn start(net: &mut Net<'_, App>) {
    net.every(Duration::from_secs(1), |net, app| {
        if app.watchers.is_empty() {
            return;
        }
        let event: Rc<[u8]> = event(net).into_bytes().into();
        for &key in &app.watchers {
            if net.link(key).is_some_and(|link| !link.is_congested()) {
                net.send_shared(key, &event);
            }
        }
    });
}

fn event(net: &Net<'_, App>) -> String {
    let stats = net.stats();
    let mut text = format!(
        "event: stats\ndata: {{\"turns\":{},\"callbacks\":{},\"bytes_in\":{},\"bytes_out\":{},\"accepted\":{},\"connections\":{},\
         \"lingering\":{},\"queued\":{},\"timers\":{},\"offloads\":{}}}\n\n",
        stats.turns,
        stats.callbacks,
        stats.bytes_in,
        stats.bytes_out,
        stats.accepted,
        stats.connections,
        stats.lingering,
        stats.queued,
        stats.timers,
        stats.offloads
    );
    for c in net.connections().iter().take(50) {
        let _ = write!(
            text,
            "event: connection\ndata: {{\"key\":\"{}\",\"kind\":\"{:?}\",\"protocol\":\"{}\",\"peer\":\"{}\",\"age\":{},\"in\":{},\"out\":{},\
             \"queued\":{},\"unread\":{},\"terminator\":\"{}\"}}\n\n",
            c.key,
            c.kind,
            c.protocol,
            c.peer.to_string().replace(['"', '\\'], "?"),
            c.age.as_secs(),
            c.bytes_in,
            c.bytes_out,
            c.queued,
            c.unread,
            c.terminator
        );
    }
    text
}
