//! Forwards each connection to a target, and slows down a side that sends faster than the other one reads.

mod common;

use common::{
    Failure, announce, arguments, callee, complain, descriptors_left, drain_on_interrupt, exit, is_misused, listening, misused,
};
use mainspring::{Config, Context, Listen, Outcome, Protocol, Reactor, Reason, Target};
use std::{io, net::IpAddr, process::ExitCode, time::Duration};

const HELP: &str = "\
Forwards each connection to a target, and slows down a side that sends faster
than the other one reads.

usage: proxy LISTEN TARGET

LISTEN is IP:PORT (port 0: any free one) or unix:/path, TARGET one of these or
HOST:PORT. A HOST is looked up at the start, and again for each connection.
For example: proxy 127.0.0.1:8080 127.0.0.1:80

The limit of descriptors (ulimit -n; each connection takes two) says how many
connections there can be at a time, 10,000 at most; more clients wait until one
has ended. Ctrl-C closes connections through which nothing has passed yet, and
gives the others 10 seconds to finish; a second Ctrl-C ends them.";

/// Names looked up at a time.
const LOOKUPS_MAX: usize = 2;

/// Whatever the limit of descriptors: more would take more memory than you expect.
const CONNECTIONS_MAX: usize = 10_000;

/// After Ctrl-C, the time for connections to finish.
const GRACE: Duration = Duration::from_secs(10);

/// The state of the program.
struct Proxy {
    target: Target,
    /// The result of looking up its host.
    found: Option<io::Result<Vec<IpAddr>>>,
}

/// A new client: we connect to the target, and from then on the loop passes the bytes on in both directions.
struct Client;

impl Protocol<Proxy> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy) -> Outcome {
        let (client, server) = (ctx.key, ctx.net.connect(&proxy.target, Server));
        ctx.net.pair(client, server);
        keep_alive(ctx);
        Ok(())
    }
}

struct Server;

impl<S> Protocol<S> for Server {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        keep_alive(ctx);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, S>, _: &mut S, why: Reason) {
        if why.is_connect() {
            complain(why);
        }
    }
}

/// Either side may be silent all day; TCP notices one that has vanished.
fn keep_alive<S>(ctx: &mut Context<'_, S>) {
    let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &[])? else { return Ok(()) };
    let (Some(at), Some(target)) = (given.text()?, given.text()?) else {
        return Err(misused("LISTEN and TARGET are both needed"));
    };
    let target = callee("TARGET", &target)?;
    // Nothing needs to linger here: a connection is closed once its peer has ended, or it is reset.
    let mut reactor = Reactor::with_config(Config::new().lingering_max(0).resolve_threads(LOOKUPS_MAX))?;
    drain_on_interrupt(&reactor, GRACE)?;
    let mut proxy = Proxy { target, found: None };
    if !is_found(&mut reactor, &mut proxy)? {
        return Ok(());
    }
    let options = Listen::new().pause_at(connections_max(&proxy.target));
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Client)))?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut proxy)?)
}

/// Whether TARGET's host was found, so that a wrong one is reported now and not at the first client. False: we were
/// interrupted.
fn is_found(reactor: &mut Reactor<Proxy>, proxy: &mut Proxy) -> Result<bool, Failure> {
    let Target::Name(host, _) = proxy.target.clone() else { return Ok(true) };
    reactor.net().resolve(&host, |net, proxy, found| {
        proxy.found = Some(found);
        net.stop();
    });
    reactor.run(proxy)?;
    match proxy.found.take() {
        Some(Ok(_)) => Ok(true),
        Some(Err(error)) if is_misused(&error) => Err(misused(format!("TARGET: {error}"))),
        Some(Err(error)) => Err(format!("TARGET: {error}").into()),
        None => Ok(false),
    }
}

/// Each connection takes two descriptors. Others are needed for the listener, for the spare one that is kept for when
/// none are left, and for looking up names.
fn connections_max(target: &Target) -> usize {
    let others = if matches!(target, Target::Name(..)) { 3 + 4 * LOOKUPS_MAX } else { 3 };
    (descriptors_left().saturating_sub(others) / 2).clamp(1, CONNECTIONS_MAX)
}
