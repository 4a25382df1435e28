//! A reactor inside of another, for example because a library brings its own: an echo server, and a status server, which has a
//! reactor and a state of its own. nested.rs joins the two.

#[path = "../../../../common/mod.rs"]
mod common;
mod nested;
mod status;

use common::{Failure, announce, arguments, exit, listening, on_interrupt, print};
use mainspring::{Context, Net, Outcome, Protocol, Reactor, Reason, Remote};
use nested::Nested;
use status::Status;
use std::{process::ExitCode, time::Duration};

const HELP: &str = "\
An echo server, and a second server that tells how the first one is doing: it
has an event loop of its own, inside the loop of the first.

usage: nested [ADDR [STATUS_ADDR]]

Each is IP:PORT (port 0: any free one) or unix:/path; the defaults are
127.0.0.1:7007 and 127.0.0.1:7008. Then, in two other terminals:

  nc 127.0.0.1 7007
  nc 127.0.0.1 7008

Ctrl-C ends both: what is under way has two seconds to finish.";

const GRACE: Duration = Duration::from_secs(2);

/// How often the outer reactor tells the inner one what it has done.
const NEWS: Duration = Duration::from_millis(100);

struct Served {
    pieces: u64,
    status: Remote<Status>,
    ending: Result<(), Failure>,
}

/// The inner one has ended, drained at Ctrl-C or failed. Then the outer one ends too.
fn inner_ended(net: &mut Net<'_, Served>, served: &mut Served, why: Reason) {
    if !why.is_clean() {
        served.ending = Err(why.to_string().into());
    }
    net.drain(GRACE);
}

struct Echo;

impl Protocol<Served> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, Served>, served: &mut Served, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        served.pieces += 1;
        Ok(())
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &[])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7007".into());
    let status_at = given.text()?.unwrap_or_else(|| "127.0.0.1:7008".into());

    let mut inner = Reactor::new()?;
    let status_listener = listening(status::listen(&mut inner.net(), &status_at))?;
    let status_at = inner.net().local(status_listener).expect("it listens").to_string();
    let status = inner.remote();

    let mut reactor = Reactor::new()?;
    let listener = listening(reactor.net().listen(at, || Echo))?;
    // The inner one finishes first, then the outer one.
    let to_finish = status.clone();
    on_interrupt(move |_| to_finish.post(|net, _| net.drain(GRACE)))?;
    announce(&reactor.net(), listener)?;
    print(format_args!("status on {status_at}"))?;

    let mut net = reactor.net();
    Nested::watch(&mut net, inner, Status::default(), inner_ended)?;
    net.every(NEWS, |_, served: &mut Served| {
        let pieces = served.pieces;
        let _ = served.status.post(move |_, status| status.pieces = pieces); // an error: it has ended
    });
    let mut served = Served { pieces: 0, status, ending: Ok(()) };
    reactor.run(&mut served)?;
    served.ending
}
