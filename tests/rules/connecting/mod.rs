//! Connections that we open.

mod meanwhile;
mod by_name;
mod from;
mod lookups;
#[cfg(feature = "sim")]
mod simulated;

use crate::common::{Call, Journal, until};
use mainspring::{Address, Config, Context, Key, NameError, Outcome, Protocol, Reactor, Reason};
use std::{io, net::IpAddr};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// What lookups have brought: their number, and all addresses or what failed.
type Heard = Vec<(usize, Result<Vec<IpAddr>, (io::ErrorKind, Option<NameError>)>)>;

fn resolve(reactor: &mut Reactor<Heard>, number: usize, host: &str) -> mainspring::Timer {
    reactor.net().resolve(host, move |_, heard, found| {
        heard.push((number, found.map_err(|error| (error.kind(), NameError::of(&error)))));
    })
}

fn with_resolver<S>(config: Config, resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Reactor<S> {
    Reactor::with_config(config.resolver(resolve)).expect("a selector")
}

/// A reactor that finds each name at these addresses.
fn with_names<S>(names: &'static [(&'static str, &'static [&'static str])]) -> Reactor<S> {
    with_resolver(Config::new(), move |host| match names.iter().find(|(name, _)| *name == host) {
        Some((_, addresses)) => Ok(addresses.iter().map(|text| ip(text)).collect()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("`{host}`: there is no such name"))),
    })
}

/// How one connection ended.
fn ending(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key) -> String {
    until(reactor, journal, |journal| matches!(journal.of(key).last(), Some(Call::Closed(_))));
    match &journal.of(key)[..] {
        [Call::Closed(why)] => why.clone(),
        more => panic!("`closed` alone: {more:?}"),
    }
}

/// Keeps its reason, and where it was connected to.
#[derive(Default)]
struct Ends {
    connected: Vec<Address>,
    reasons: Vec<Reason>,
}

struct Caller;

impl Protocol<Ends> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends) -> Outcome {
        ends.connected.push(ctx.peer().clone());
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Ends>, ends: &mut Ends, why: Reason) {
        ends.reasons.push(why);
    }
}
