//! A load balancer for TCP: [`Front`] is a client's connection, [`Back`] the one to the server that was chosen for it.
//! When that is there, they are a pair, and the loop passes on what either says.

use mainspring::{Connect, Context, Key, Net, Outcome, Protocol, Reason};
use std::{net::SocketAddr, time::Duration};

pub type Ctx<'a> = Context<'a, App>;

pub struct Backend {
    pub at: SocketAddr,
    pub is_up: bool,
    /// Tries that failed, one after the other.
    pub failures: u32,
    pub active: usize,
    pub served: u64,
}

/// What the program has one of.
pub struct App {
    pub backends: Vec<Backend>,
    pub turn: usize,
    /// Whether a backend is told who comes, by a line in front (the PROXY protocol, version 1).
    pub header: bool,
    pub connect_max: Duration,
    pub idle: Option<Duration>,
}

impl App {
    pub fn new(backends: Vec<SocketAddr>) -> Self {
        let backend = |at| Backend { at, is_up: true, failures: 0, active: 0, served: 0 };
        let (connect_max, idle) = (Duration::from_millis(500), Some(Duration::from_secs(60)));
        Self { backends: backends.into_iter().map(backend).collect(), turn: 0, header: true, connect_max, idle }
    }

    /// The least busy one of those that are up and were not tried; if there is none, one that is said to be down.
    fn pick(&mut self, tried: u64) -> Option<usize> {
        self.turn += 1;
        let (n, turn, backends) = (self.backends.len(), self.turn, &self.backends);
        let all = (0..n).map(|i| (i + turn) % n);
        all.filter(|i| tried & 1 << i == 0).min_by_key(|&i| (!backends[i].is_up, backends[i].active))
    }

    fn judge(&mut self, i: usize, is_good: bool) {
        let backend = &mut self.backends[i];
        backend.failures = if is_good { 0 } else { backend.failures + 1 };
        let is_up = backend.failures < 2;
        if is_up != backend.is_up {
            log::warn!("{} is {}", backend.at, if is_up { "up" } else { "down" });
        }
        backend.is_up = is_up;
    }
}

#[derive(Default)]
pub struct Front {
    /// A bit for each backend.
    tried: u64,
}

impl Front {
    fn try_next(&mut self, ctx: &mut Ctx<'_>, app: &mut App) {
        let Some(i) = app.pick(self.tried) else { return ctx.abort() };
        self.tried |= 1 << i;
        let backend = &mut app.backends[i];
        backend.active += 1;
        let how = Connect::new().timeout(app.connect_max).owner(ctx.key);
        let back = ctx.net.connect_with(backend.at, how, Back { front: ctx.key, i, is_there: false });
        if let (true, Some(from), Some(to)) = (app.header, ctx.peer().ip(), ctx.local().ip()) {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            ctx.net.send(back, format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()));
        }
    }
}

impl Protocol<App> for Front {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        ctx.pause(); // what it says must not be lost with a backend that is not there
        ctx.set_idle_timeout(app.idle);
        ctx.set_stall_timeout(app.idle);
        self.try_next(ctx, app);
        Ok(())
    }
}

struct Back {
    front: Key,
    i: usize,
    is_there: bool,
}

impl Protocol<App> for Back {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        self.is_there = true;
        app.backends[self.i].served += 1;
        app.judge(self.i, true);
        ctx.set_stall_timeout(app.idle);
        let back = ctx.key;
        ctx.net.pair(self.front, back);
        if let Some(mut front) = ctx.net.link(self.front) {
            front.resume();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, why: Reason) {
        app.backends[self.i].active -= 1;
        if why.is_connect() {
            app.judge(self.i, false);
        }
        if !self.is_there {
            ctx.net.tell(self.front, |front: &mut Front, ctx, app| {
                front.try_next(ctx, app);
                Ok(())
            });
        }
    }
}

/// Whether a backend can be reached.
struct Probe(usize);

impl Protocol<App> for Probe {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        app.judge(self.0, true);
        ctx.abort();
        Ok(())
    }

    fn closed(&mut self, _: &mut Ctx<'_>, app: &mut App, why: Reason) {
        if why.is_connect() {
            app.judge(self.0, false);
        }
    }
}

/// Call it now and then.
pub fn probe(net: &mut Net<'_, App>, app: &mut App) {
    if net.is_draining() {
        return;
    }
    for (i, backend) in app.backends.iter().enumerate() {
        net.connect_with(backend.at, Connect::new().timeout(app.connect_max), Probe(i));
    }
}
