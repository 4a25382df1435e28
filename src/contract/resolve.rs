//! Looking up names for the program: asked elsewhere, told here.

use super::{Core, Net, TimerJob};
use crate::{
    address,
    hub::Hub,
    key::Timer,
    names::{NameError, Question, Resolved},
    pool::{Purpose, Ticket},
    reason::OffloadError,
    threads::{Asker, LookedUp, Product},
    time::Time,
    timers::TimerKind,
};
use std::{io, net::IpAddr};

/// What to do with what was found.
pub(crate) type Then<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S, io::Result<Resolved>)>;

/// # Names
///
/// The chapter is [connecting](crate::manual::connecting).
impl<S> Net<'_, S> {
    /// Looks up a host's addresses without a connection: all of them, in the order in which the system prefers them. `done`
    /// runs later on the loop, never inside this call, and once. A [shutdown](crate::Reactor::shutdown) drops it uncalled;
    /// so does this call during one, and after the grace of a [drain](Self::drain) until everything has ended: the timer is
    /// stale then.
    ///
    /// The system's own resolver is asked (getaddrinfo(3): /etc/hosts and nsswitch.conf count), on a thread of a small pool,
    /// [`Config::resolve_threads`](crate::Config::resolve_threads); or yours is,
    /// [`Config::resolver`](crate::Config::resolver). A literal address is its own answer, and nobody is asked. An answer
    /// has no zones: to reach an address that is valid on one link only (`fe80::1%eth0`), give its text to
    /// [`connect`](Self::connect).
    ///
    /// The timer is the lookup's deadline, [`Config::connect_max`](crate::Config::connect_max): [`cancel`](Self::cancel)
    /// takes the lookup back, and `done` is dropped. Like any timer it keeps [`run`](crate::Reactor::run) running, but not
    /// during a [drain](Self::drain).
    ///
    /// # Errors
    /// `done` is told; [`NameError::of`](crate::NameError::of) says what it was. Text that cannot be a name (empty, too
    /// long, with a zero byte) is [`io::ErrorKind::InvalidInput`].
    pub fn resolve(
        &mut self,
        host: &str,
        done: impl FnOnce(&mut Net<'_, S>, &mut S, io::Result<Vec<IpAddr>>) + 'static,
    ) -> Timer {
        let asked = host.to_owned();
        let then: Then<S> = Box::new(move |net, state, found| done(net, state, found.and_then(|found| ips(found, &asked))));
        match address::literal(host) {
            Ok(Some(address)) => self.core.tell_found(host, Ok(Resolved::Addresses(vec![address])), then),
            Ok(None) => self.core.look_up(Question::Addresses(host.to_owned()), then),
            Err(error) => self.core.tell_found(host, Err(error), then),
        }
    }

    /// Looks up the name that belongs to an address. Where there is none the result is [`NameError::NotFound`], and never
    /// the address, or any other number, as if it were a name. Whoever owns the address decides what is said here: resolve
    /// the name again before you believe it. An IPv4 address mapped to IPv6, as a listener for both sees its peers, has the
    /// name of the IPv4 address ([`IpAddr::to_canonical`] helps to find it in what the name gives). Otherwise it is like
    /// [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// `done` is told; [`NameError::of`](crate::NameError::of) says what it was.
    #[cfg(feature = "names")]
    pub fn resolve_back(
        &mut self,
        ip: IpAddr,
        done: impl FnOnce(&mut Net<'_, S>, &mut S, io::Result<String>) + 'static,
    ) -> Timer {
        let then: Then<S> = Box::new(move |net, state, found| {
            done(
                net,
                state,
                found.map(|found| match found {
                    Resolved::Name(name) => name,
                    Resolved::Addresses(_) => unreachable!("a name was asked for"),
                }),
            );
        });
        self.core.look_up(Question::Name(ip.to_canonical()), then)
    }
}

fn ips(found: Resolved, asked: &str) -> io::Result<Vec<IpAddr>> {
    let mut all: Vec<IpAddr> = Vec::new();
    for address in found.into_addresses() {
        if !all.contains(&address.ip()) {
            all.push(address.ip());
        }
    }
    if all.is_empty() { Err(NameError::NotFound.error(format!("`{asked}` has no address"))) } else { Ok(all) }
}

impl<S> Core<S> {
    fn look_up(&mut self, question: Question, then: Then<S>) -> Timer {
        self.begin_lookup(question.to_string(), then, |hub, asker| match hub.cx.look_up(question, asker) {
            Ok(ticket) => Some(ticket),
            Err(error) => {
                hub.cx.threads.known.get_or_insert_with(Vec::new).push(LookedUp { asker, found: Err(error) });
                None
            }
        })
    }

    /// What is known without asking is told like an answer.
    fn tell_found(&mut self, asked: &str, found: io::Result<Resolved>, then: Then<S>) -> Timer {
        self.begin_lookup(asked.to_owned(), then, |hub, asker| {
            hub.cx.threads.known.get_or_insert_with(Vec::new).push(LookedUp { asker, found });
            None
        })
    }

    fn begin_lookup(&mut self, asked: String, then: Then<S>, ask: impl FnOnce(&mut Hub, Asker) -> Option<Ticket>) -> Timer {
        if self.hub.cx.is_shut {
            return self.hub.cx.timers.stale();
        }
        self.on_return[Purpose::Names as usize] = Some(Self::looked_up);
        self.on_known = Some(Self::tell_known);
        let deadline = self.hub.cx.world.now() + self.hub.cx.config.connect_max;
        let timer = self.hub.cx.timers.set(Time::NEVER, TimerKind::Job);
        let ticket = ask(&mut self.hub, Asker::Job(timer));
        if ticket.is_some() {
            self.hub.cx.timers.set_again(timer, deadline); // what is already known cannot come too late
        } else {
            self.has_known = true;
        }
        self.keep(timer, TimerJob::Lookup(ticket, asked, then));
        timer
    }

    /// All that was there when this began.
    fn tell_known(&mut self, state: &mut S) {
        let known = self.hub.cx.threads.known.as_mut().map(std::mem::take);
        for answer in known.unwrap_or_default() {
            self.tell_answer(answer, state);
            self.run_deferred(state);
        }
    }

    /// Another thread has an answer, or nothing (after a panic that was not caught there).
    pub(super) fn looked_up(&mut self, _: Ticket, product: Result<Product, OffloadError>, state: &mut S) {
        let Some(answer) = product.ok().and_then(|product| product.downcast().ok()) else { return };
        self.tell_answer(*answer, state);
    }

    fn tell_answer(&mut self, LookedUp { asker, found }: LookedUp, state: &mut S) {
        match asker {
            Asker::Connection(key) => _ = self.hub.lend_if_there(key, |conn, cx| conn.looked_up(found, cx)),
            Asker::Job(timer) => {
                let Some(timer) = self.hub.cx.timers.job(timer) else { return };
                if let Some(TimerJob::Lookup(.., then)) = self.take_timer_job(timer) {
                    self.cancel(timer);
                    self.run_job("what follows a lookup", state, |net, state| then(net, state, found));
                }
            }
        }
    }

    /// No answer came before the deadline.
    pub(super) fn lookup_timed_out(&mut self, timer: Timer, ticket: Option<Ticket>, asked: &str, then: Then<S>, state: &mut S) {
        self.cancel(timer);
        self.forget_lookup(ticket);
        let found = Err(NameError::TimedOut.error(format!("`{asked}` was not resolved in time")));
        self.run_job("what follows a lookup", state, |net, state| then(net, state, found));
    }

    pub(super) fn forget_lookup(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.hub.cx.threads.take_back(Purpose::Names, ticket);
        }
    }
}
