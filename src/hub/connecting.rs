//! Connecting by name: the name is looked up on another thread, then its addresses race. All of it is in one box of the
//! connection, which goes when it is connected or ends.

use super::{Cx, Hub};
use crate::{
    address::Address,
    conn::{Conn, Phase},
    connector::Opening,
    eyeballs::{ATTEMPT_DELAY, Move, Race},
    flags::*,
    key::{Key, Timer},
    names::{Found, Lookup, NameError, Question},
    pool::{Capacity, Purpose, Refused, Ticket},
    reason::{ConnectError, Reason},
    slots::Entry,
    time::Time,
    timers::What,
    transport::Stream,
};
use std::{io, net::SocketAddr, time::Duration};

/// Who has asked for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Connection(Key),
    /// What follows is kept under the timer of its deadline.
    Job(Timer),
}

/// What another thread brings back.
#[derive(Debug)]
pub(crate) struct LookedUp {
    pub(crate) asker: Asker,
    pub(crate) found: io::Result<Found>,
}

impl Hub {
    /// On another thread; an [`LookedUp`] comes back.
    pub(crate) fn look_up(&mut self, question: Question, asker: Asker) -> io::Result<Ticket> {
        let capacity = Capacity { threads: self.cx.config.resolve_threads, queue: self.cx.config.resolve_queue };
        let asked = question.to_string();
        let lookup: Lookup = match (&self.cx.config.resolver, &question) {
            (Some(own), Question::Addresses(host)) => own.lookup(host),
            _ => self.cx.world.lookup(question),
        };
        let given = self.give_out(Purpose::Names, capacity, move || Box::new(LookedUp { asker, found: lookup() }));
        given.map_err(|refused| match refused {
            Refused::Full => {
                let text = "too many names are being looked up: every thread is busy, and the queue is full";
                NameError::Busy.error(format!("`{asked}`: {text}"))
            }
            Refused::NoThread(error) => {
                io::Error::new(error.kind(), format!("`{asked}`: no thread could be started to look it up: {error}"))
            }
        })
    }

    pub(super) fn connect_by_name(&mut self, index: usize, host: String, port: u16) {
        let key = self.slots.conn_at(index).key;
        match self.look_up(Question::Addresses(host), Asker::Connection(key)) {
            Ok(ticket) => self.slots.conn_at_mut(index).extra().opening = Some(Box::new(Opening::Resolving { ticket, port })),
            Err(error) => _ = self.end(index, Reason::Resolve(error)),
        }
    }

    /// The name of a connection was looked up; it may have ended meanwhile.
    pub(crate) fn looked_up(&mut self, key: Key, found: io::Result<Found>) {
        let Some(Entry::Stream(conn)) = self.slots.get_mut(key) else { return };
        let Some(Opening::Resolving { port, .. }) = conn.opening() else { return };
        let (index, port) = (key.index(), *port);
        match found.and_then(|found| self.choose(index, found)) {
            Ok(addresses) => {
                log::debug!(target: "mainspring", "{key} {} is at {addresses:?}", self.slots.conn_at(index).peer);
                let delay = self.attempt_delay(index);
                let race = Race::new(addresses.into_iter().map(|address| with_port(address, port)), delay);
                self.slots.conn_at_mut(index).extra().opening = Some(Box::new(Opening::Racing { race, next: None }));
                self.run_race(index);
            }
            Err(error) => _ = self.end(index, Reason::Resolve(error)),
        }
        self.settle(index);
    }

    /// Those that can be reached from the address that was asked for, if one was.
    fn choose(&mut self, index: usize, found: Found) -> io::Result<Vec<SocketAddr>> {
        let conn = self.slots.conn_at_mut(index);
        let mut addresses = found.into_addresses();
        if addresses.is_empty() {
            return Err(NameError::NotFound.error(format!("`{}` has no address", conn.peer)));
        }
        if let Some(from) = conn.extra().from {
            addresses.retain(|address| address.is_ipv6() == from.is_ipv6());
            if addresses.is_empty() {
                let text = format!("`{}` has no address that can be reached from {from}: it is of the other family", conn.peer);
                return Err(NameError::NotFound.error(text));
            }
        }
        Ok(addresses)
    }

    /// Two sockets cannot have the same port at a time: then it is one after the other.
    fn attempt_delay(&mut self, index: usize) -> Duration {
        let from = self.slots.conn_at_mut(index).extra().from;
        if from.is_some_and(|from| from.port() != 0) { Duration::MAX } else { ATTEMPT_DELAY }
    }

    /// Begins what is to be begun. All sockets of a race have the connection's own token: an event says only that one of
    /// them is worth a look, and the winner is registered already.
    fn run_race(&mut self, index: usize) {
        loop {
            let now = self.cx.world.now();
            let conn = self.slots.conn_at_mut(index);
            let (key, from) = (conn.key, conn.extra().from);
            let Some(Opening::Racing { race, .. }) = conn.opening() else { return };
            match race.next_move(now) {
                Move::Attempt(to) => match self.cx.world.connect(&Address::Ip(to), from, key.token()) {
                    Ok(stream) => race.began(stream, now),
                    Err(error) => race.refused(error),
                },
                Move::Wait(until) => return self.race_waits(index, until),
                Move::Lost => return self.give_up(index),
            }
        }
    }

    fn race_waits(&mut self, index: usize, until: Time) {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        let Some(Opening::Racing { next, .. }) = conn.opening() else { return };
        match (*next, until) {
            (Some(timer), Time::NEVER) => {
                self.cx.timers.cancel(timer);
                *next = None;
            }
            (Some(timer), until) => self.cx.timers.set_again(timer, until),
            (None, Time::NEVER) => {}
            (None, until) => *next = Some(self.cx.timers.set(until, What::NextAddress(key))),
        }
    }

    /// The delay after an attempt is over.
    pub(crate) fn race_on(&mut self, key: Key) {
        let Some(Entry::Stream(conn)) = self.slots.get_mut(key) else { return };
        if let Some(Opening::Racing { next, .. }) = conn.opening() {
            *next = None; // it has just fired
            self.run_race(key.index());
            self.settle(key.index());
        }
    }

    /// An event for one of the sockets of a race. The winner becomes the connection's own, with what its check said; nobody
    /// as long as there is none.
    pub(super) fn serve_race(&mut self, index: usize) -> Option<io::Result<bool>> {
        let conn = self.slots.conn_at_mut(index);
        let key = conn.key;
        conn.clear(WRITABLE | FAILED);
        let Some(Opening::Racing { race, .. }) = conn.opening() else { return None };
        let running: Vec<usize> = race.running().collect();
        for number in running {
            let stream = race.attempt(number)?;
            match stream.connected() {
                Ok(false) => {}
                Err(error) if !is_lost_already(&error) => {
                    log::debug!(target: "mainspring", "{key} an address failed: {error}");
                    stream.abort(); // if it was connected after all, that was no conversation
                    race.failed(number, error);
                }
                won => {
                    self.race_won(index, number);
                    return Some(won);
                }
            }
        }
        self.run_race(index);
        None
    }

    fn race_won(&mut self, index: usize, number: usize) {
        let Some(Opening::Racing { mut race, .. }) = self.slots.conn_at_mut(index).take_opening(&mut self.cx) else { return };
        let conn = self.slots.conn_at_mut(index);
        if conn.output.is_some() {
            race.each_but(Some(number), Stream::abort); // as in `stop_opening`
        }
        if let Some((address, stream)) = race.won(number) {
            (conn.peer, conn.stream) = (Address::Ip(address), Some(stream));
        }
    }

    /// Time is up, unless it is connected: somebody's callback may have kept us from looking.
    pub(crate) fn connect_timed_out(&mut self, index: usize) {
        self.serve_connecting(index);
        let conn = self.slots.conn_at(index);
        if !conn.is(ESTABLISHED) && conn.phase != Phase::Ended {
            self.give_up(index);
        }
        self.settle(index);
    }

    /// Time is up, or nothing is left to be tried.
    fn give_up(&mut self, index: usize) {
        let peer = self.slots.conn_at(index).peer.clone();
        let reason = match self.slots.conn_at_mut(index).stop_opening(&mut self.cx) {
            None => Reason::Connect(ConnectError::new(vec![(peer, io::ErrorKind::TimedOut.into())])),
            Some(Opening::Racing { race, .. }) => Reason::Connect(race.into_error()),
            Some(Opening::Resolving { .. }) => {
                Reason::Resolve(NameError::TimedOut.error(format!("`{peer}` was not resolved in time")))
            }
        };
        self.end(index, reason);
    }
}

impl Conn {
    /// It ends: a lookup that has not begun never does, and the sockets close. One of them may have been connected without
    /// our knowledge: its peer must not take it for whole if anything was to be sent.
    pub(super) fn stop_opening(&mut self, cx: &mut Cx) -> Option<Opening> {
        let mut opening = self.take_opening(cx)?;
        let is_cut = self.is(CUT) || self.output.is_some() || self.queued_in(cx) > 0;
        match &mut opening {
            Opening::Resolving { ticket, .. } => _ = cx.take_back(Purpose::Names, *ticket),
            Opening::Racing { race, .. } if is_cut => race.each_but(None, Stream::abort),
            Opening::Racing { .. } => {}
        }
        Some(opening)
    }

    /// With the timer of the next attempt.
    fn take_opening(&mut self, cx: &mut Cx) -> Option<Opening> {
        let opening = self.extra.as_mut()?.opening.take()?;
        if let Opening::Racing { next: Some(timer), .. } = *opening {
            cx.timers.cancel(timer);
        }
        Some(*opening)
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// It was connected, and is lost again: a refused connect is neither of these.
pub(super) fn is_lost_already(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
