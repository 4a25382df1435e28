//! Forwards each connection to a target, and holds back whoever sends faster than the other side reads.

mod common;

use common::{
    Failure, announce, arguments, callee, complain, descriptors_left, drain_on_interrupt, exit, is_misused, listening, misused,
};
use mainspring::{Config, Context, Key, Listen, Outcome, Protocol, Reactor, Reason, Target};
use std::{io, net::IpAddr, process::ExitCode, time::Duration};

const HELP: &str = "\
Forwards each connection to a target, and holds back whoever sends faster than
the other side reads.

usage: proxy LISTEN TARGET

LISTEN is IP:PORT (port 0: any free one) or unix:/path, TARGET one of these or
HOST:PORT; a HOST is looked up at once, and again for each connection.
For example: proxy 127.0.0.1:8080 127.0.0.1:80

There are as many connections at a time as the limit of descriptors allows
(ulimit -n; each takes two), 10,000 at most; who comes then waits until one has
ended. Ctrl-C lets what is under way go on for 10 seconds; a second one ends it.";

/// Of names at a time.
const LOOKUPS_MAX: usize = 2;

/// Whatever the limit of descriptors: more would want more memory than one expects.
const CONNECTIONS_MAX: usize = 10_000;

/// After Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// What the program has one of.
struct Proxy {
    target: Target,
    /// What a lookup of its host has brought.
    found: Option<io::Result<Vec<IpAddr>>>,
}

/// Somebody who has just come: calls the target, and becomes one side of the pair.
struct Client;

impl Protocol<Proxy> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Proxy>, proxy: &mut Proxy) -> Outcome {
        let other = ctx.net.connect(&proxy.target, Side { other: ctx.key });
        ctx.upgrade(Side { other });
        Ok(())
    }
}

/// One of the two sides: what it receives goes to the other. That one may still be connecting: what is sent to it then is
/// kept, and counts for its marks like any other output.
struct Side {
    other: Key,
}

impl<S> Protocol<S> for Side {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.throttle(self.other); // read while the other side can take it
        ctx.set_hold_back(false); // and for no other reason: the two directions do not wait for each other
        // Either may be silent all day: who has vanished without a word is noticed by TCP.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.net.send(self.other, bytes);
        Ok(())
    }

    /// The end of one direction is passed on; a stream whose two directions have ended closes itself.
    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        ctx.net.half_close(self.other);
        Ok(())
    }

    /// Only its two ends know what is under way: it goes on until they end it, or the grace does.
    fn draining(&mut self, _: &mut Context<'_, S>, _: &mut S) -> Outcome {
        Ok(())
    }

    /// What broke off here breaks off there.
    fn closed(&mut self, ctx: &mut Context<'_, S>, _: &mut S, why: Reason) {
        if !why.is_clean() {
            ctx.net.abort(self.other);
        }
        if why.is_connect() {
            complain(why);
        }
    }
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
    // Nothing need linger here: who is closed has ended, or is reset.
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

/// Whether TARGET's host was found: a wrong one is known now, and not to the first client. If not, we were interrupted.
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

/// Each takes two descriptors. Besides there are the listener, one that is kept for want of others, and what looking a name
/// up takes.
fn connections_max(target: &Target) -> usize {
    let others = if matches!(target, Target::Name(..)) { 3 + 4 * LOOKUPS_MAX } else { 3 };
    (descriptors_left().saturating_sub(others) / 2).clamp(1, CONNECTIONS_MAX)
}
