//! How a connection of ours is made: connecting, by address or by name.

#[cfg(feature = "tls")]
use super::shaking::Shaking;
use super::{Conn, Phase};
use crate::{
    address::Address,
    cx::{Cx, Note},
    eyeballs::{ATTEMPT_DELAY, Move, Race},
    flags::*,
    key::Timer,
    names::{NameError, Question, Resolved},
    pool::{Purpose, Ticket},
    reason::{ConnectError, Reason},
    threads::Asker,
    time::Time,
    timers::{Cue, TimerKind},
    world::{Stream, wants_descriptor},
};
use std::{io, net::SocketAddr, time::Duration};

/// A connection that is still connecting. What is done with it is named here, so that a program that only accepts links
/// nothing of that.
pub(crate) struct Connecting {
    pub(super) how: &'static How,
    /// From here.
    from: Option<SocketAddr>,
    /// By name.
    by_name: Option<Progress>,
    /// TLS follows, or is being agreed on.
    #[cfg(feature = "tls")]
    pub(super) shaking: Option<Box<Shaking>>,
}

pub(super) struct How {
    /// One of its sockets is worth a look.
    pub(super) serve: fn(&mut Conn, &mut Cx),
    /// It has waited long enough for another try.
    pub(super) try_again: fn(&mut Conn, &mut Cx),
    /// The delay after an attempt is over.
    pub(super) go_on: fn(&mut Conn, &mut Cx),
    /// Time is up.
    pub(super) time_out: fn(&mut Conn, &mut Cx),
    /// It ends.
    pub(super) stop: fn(&mut Conn, &mut Cx),
}

impl Connecting {
    fn new(how: &'static How, from: Option<SocketAddr>) -> Self {
        Self {
            how,
            from,
            by_name: None,
            #[cfg(feature = "tls")]
            shaking: None,
        }
    }

    /// It is connected, and is to be secured.
    #[cfg(feature = "tls")]
    pub(super) fn secured(how: &'static How) -> Self {
        Self::new(how, None)
    }

    pub(super) fn is_racing(&self) -> bool {
        matches!(self.by_name, Some(Progress::Racing { .. }))
    }

    #[cfg(debug_assertions)]
    pub(crate) fn is_by_name(&self) -> bool {
        self.by_name.is_some()
    }
}

/// How far it has got.
pub(super) enum Progress {
    Resolving {
        ticket: Ticket,
        host: String,
        port: u16,
    },
    /// `next`: when another address is tried.
    Racing {
        race: Race<Stream>,
        next: Option<Timer>,
    },
}

/// A Unix listener with a full backlog refuses to keep us waiting, and where no descriptor is left one is made free: this is
/// how long we wait until we ask again.
const RETRY: Duration = Duration::from_millis(10);

/// While it is connecting.
impl Conn {
    pub(crate) fn is_to_connect(&mut self, from: Option<SocketAddr>) {
        const HOW: How = How {
            serve: Conn::look_whether_connected,
            try_again: Conn::connect_again,
            go_on: Conn::race_on,
            time_out: Conn::connecting_timed_out,
            stop: |conn, cx| _ = conn.stop_racing(cx),
        };
        self.extra().odds().connecting.get_or_insert_with(|| Connecting::new(&HOW, from));
    }

    fn do_as_named(&mut self, step: fn(&How) -> fn(&mut Conn, &mut Cx), cx: &mut Cx) {
        let how = self.odds().and_then(|odds| odds.connecting.as_ref()).map(|connecting| connecting.how);
        if let Some(how) = how {
            step(how)(self, cx);
        }
    }

    /// An event while it is still connecting: is it done?
    pub(crate) fn serve_connecting(&mut self, cx: &mut Cx) {
        self.do_as_named(|how| how.serve, cx);
    }

    /// It has waited long enough for another try, unless it has ended.
    pub(super) fn try_to_connect_again(&mut self, cx: &mut Cx) {
        self.do_as_named(|how| how.try_again, cx);
    }

    /// Another address may be tried now.
    pub(super) fn go_on_connecting(&mut self, cx: &mut Cx) {
        self.do_as_named(|how| how.go_on, cx);
    }

    /// Time is up, unless it is connected: somebody's callback may have kept us from looking.
    pub(crate) fn connect_timed_out(&mut self, cx: &mut Cx) {
        self.do_as_named(|how| how.time_out, cx);
    }

    pub(super) fn stop_connecting(&mut self, cx: &mut Cx) {
        self.do_as_named(|how| how.stop, cx);
    }
}

impl Conn {
    pub(crate) fn begin_to_connect(&mut self, cx: &mut Cx) {
        let (key, from) = (self.key, self.from());
        match cx.connect(&self.peer, from, key.token()) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy) => {
                let again = cx.world.now() + RETRY;
                cx.timers.set(again, TimerKind::Entry(key, Cue::TryAgain));
            }
            Err(error) => self.connect_failed(error, cx),
        }
    }

    pub(super) fn connecting(&mut self) -> Option<&mut Connecting> {
        self.odds_mut()?.connecting.as_mut()
    }

    fn from(&mut self) -> Option<SocketAddr> {
        self.connecting()?.from
    }

    fn connect_again(&mut self, cx: &mut Cx) {
        if self.stream.is_none() && self.phase != Phase::Ended {
            self.begin_to_connect(cx);
            self.settle(cx);
        }
    }

    fn connect_failed(&mut self, error: io::Error, cx: &mut Cx) {
        let tried = vec![(self.peer.clone(), error)];
        self.end(Reason::Connect(ConnectError::new(tried)), cx);
    }

    fn look_whether_connected(&mut self, cx: &mut Cx) {
        let checked = match &mut self.stream {
            Some(stream) => Some(stream.connected()),
            None => self.serve_race(cx),
        };
        let Some(checked) = checked else { return };
        match checked {
            #[cfg(feature = "tls")]
            Ok(true) if self.goes_on_by_tls(cx) => {}
            Ok(true) => {
                self.set(ESTABLISHED | WRITABLE);
                self.clear(FAILED);
                self.put(OWES_CONNECTED, self.phase == Phase::Open);
                self.end_of_connecting(cx);
            }
            Ok(false) => self.clear(WRITABLE | FAILED | PEER_ENDED),
            #[cfg(feature = "tls")]
            Err(error) if is_lost_already(&error) && self.is_to_shake() => self.is_lost_before_shaking(&error, cx),
            Err(error) if is_lost_already(&error) => {
                self.set(ESTABLISHED);
                self.clear(FAILED);
                self.put(OWES_CONNECTED, self.is_open());
                self.write_failed(error, cx);
                self.end_of_connecting(cx);
            }
            Err(error) => self.connect_failed(error, cx),
        }
    }

    /// An idle connection stays small: connecting needed things that it may never need again.
    pub(crate) fn end_of_connecting(&mut self, cx: &mut Cx) {
        let Some(extra) = &mut self.extra else { return };
        if let Some(odds) = &mut extra.odds {
            odds.connecting.take();
        }
        extra.odds.take_if(|odds| odds.are_idle());
        extra.clocks.set_connect(None);
        let timer = extra.clocks.timer;
        if extra.is_idle() {
            self.extra = None;
            self.clear(NEEDS_SETTLING);
            if let Some((timer, _)) = timer {
                cx.timers.cancel(timer);
            }
        }
    }

    fn connecting_timed_out(&mut self, cx: &mut Cx) {
        self.look_whether_connected(cx);
        if !self.is(ESTABLISHED) && self.phase != Phase::Ended {
            match self.progress() {
                Some(_) => self.give_up(cx),
                None => self.connect_failed(io::ErrorKind::TimedOut.into(), cx),
            }
        }
        self.settle(cx);
    }
}

/// By name.
impl Conn {
    pub(crate) fn connect_by_name(&mut self, host: String, port: u16, cx: &mut Cx) {
        match cx.look_up(Question::Addresses(host.clone()), Asker::Connection(self.key)) {
            Ok(ticket) => {
                if let Some(connecting) = self.connecting() {
                    connecting.by_name = Some(Progress::Resolving { ticket, host, port });
                }
            }
            Err(error) => _ = self.end(Reason::Resolve(error), cx),
        }
    }

    /// Its name was looked up; it may have ended meanwhile.
    pub(crate) fn looked_up(&mut self, found: io::Result<Resolved>, cx: &mut Cx) {
        let Some(Progress::Resolving { host, port, .. }) = self.progress() else { return };
        let (host, port) = (std::mem::take(host), *port);
        match found.and_then(|found| self.choose(found)) {
            Ok(addresses) => {
                log::debug!(target: "mainspring", "{} {} is at {addresses:?}", self.key, self.peer);
                let race = Race::new(addresses.into_iter().map(|address| with_port(address, port)), self.attempt_delay());
                if let Some(progress) = self.progress() {
                    *progress = Progress::Racing { race, next: None };
                }
                self.run_race(cx);
            }
            // A lingering one makes room, until there is enough for the resolver too.
            Err(error) if cx.lingering_now > 0 && wants_descriptor(&error) => {
                cx.lists.notes.push(Note::Room);
                self.connect_by_name(host, port, cx);
            }
            Err(error) => _ = self.end(Reason::Resolve(error), cx),
        }
        self.settle(cx);
    }

    fn progress(&mut self) -> Option<&mut Progress> {
        self.connecting()?.by_name.as_mut()
    }

    /// Chooses those that can be reached from the address that was asked for, if one was.
    fn choose(&mut self, found: Resolved) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = found.into_addresses();
        if addresses.is_empty() {
            return Err(NameError::NotFound.error(format!("`{}` has no address", self.peer)));
        }
        if let Some(from) = self.from() {
            addresses.retain(|address| address.is_ipv6() == from.is_ipv6());
            if addresses.is_empty() {
                let text = format!("`{}` has no address that can be reached from {from}: it is of the other family", self.peer);
                return Err(NameError::NotFound.error(text));
            }
        }
        Ok(addresses)
    }

    /// With a local port it is one after the other: two sockets cannot have the port at the same time everywhere.
    fn attempt_delay(&mut self) -> Duration {
        let from = self.from();
        if from.is_some_and(|from| from.port() != 0) { Duration::MAX } else { ATTEMPT_DELAY }
    }

    /// Begins what is to be begun. All sockets of a race have the connection's own token: an event says only that one of
    /// them is worth a look, and the winner is registered already.
    fn run_race(&mut self, cx: &mut Cx) {
        loop {
            let now = cx.world.now();
            let (key, from) = (self.key, self.from());
            let Some(Progress::Racing { race, .. }) = self.progress() else { return };
            match race.next_move(now) {
                Move::Attempt(to) => match cx.connect(&Address::Ip(to), from, key.token()) {
                    Ok(stream) => race.began(stream, now),
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        let until = cx.world.now() + RETRY;
                        race.wait(until);
                        return self.race_waits(until, cx); // room is made when this loan is over
                    }
                    Err(error) => race.refused(error),
                },
                Move::Wait(until) => return self.race_waits(until, cx),
                Move::Lost => return self.give_up(cx),
            }
        }
    }

    fn race_waits(&mut self, until: Time, cx: &mut Cx) {
        let key = self.key;
        let Some(Progress::Racing { next, .. }) = self.progress() else { return };
        match (*next, until) {
            (Some(timer), Time::NEVER) => {
                cx.timers.cancel(timer);
                *next = None;
            }
            (Some(timer), until) => cx.timers.set_again(timer, until),
            (None, Time::NEVER) => {}
            (None, until) => *next = Some(cx.timers.set(until, TimerKind::Entry(key, Cue::NextAddress))),
        }
    }

    /// The delay after an attempt is over.
    fn race_on(&mut self, cx: &mut Cx) {
        if let Some(Progress::Racing { next, .. }) = self.progress() {
            *next = None; // it has just fired
            self.run_race(cx);
            self.settle(cx);
        }
    }

    /// An event for one of the sockets of a race. The winner becomes the connection's own socket, with what its check said.
    /// Returns `None` as long as there is no winner.
    fn serve_race(&mut self, cx: &mut Cx) -> Option<io::Result<bool>> {
        let key = self.key;
        self.clear(WRITABLE | FAILED);
        let Some(Progress::Racing { race, .. }) = self.progress() else { return None };
        let running: Vec<usize> = race.running().collect();
        let is_one_of_many = running.len() > 1;
        for number in running {
            let stream = race.attempt(number)?;
            match stream.connected() {
                Ok(false) => {}
                Err(error) if !is_lost_already(&error) => {
                    log::debug!(target: "mainspring", "{key} an address failed: {error}");
                    stream.abort(); // if it was connected after all, nothing was said on it
                    race.failed(number, error);
                }
                won => {
                    if is_one_of_many {
                        self.clear(PEER_ENDED); // perhaps it was another's
                    }
                    self.race_won(number, cx);
                    return Some(won);
                }
            }
        }
        self.clear(PEER_ENDED);
        self.run_race(cx);
        None
    }

    fn race_won(&mut self, number: usize, cx: &mut Cx) {
        let Some(Progress::Racing { mut race, .. }) = self.take_by_name(cx) else { return };
        if self.output.is_some() {
            race.each_but(Some(number), Stream::abort); // as in `stop_racing`
        }
        if let Some((address, stream)) = race.won(number) {
            (self.peer, self.stream) = (Address::Ip(address), Some(stream));
        }
    }

    /// Time is up, or nothing is left to be tried.
    fn give_up(&mut self, cx: &mut Cx) {
        let peer = self.peer.clone();
        let reason = match self.stop_racing(cx) {
            None => return,
            Some(Progress::Racing { race, .. }) => Reason::Connect(race.into_error()),
            Some(Progress::Resolving { .. }) => {
                Reason::Resolve(NameError::TimedOut.error(format!("`{peer}` was not resolved in time")))
            }
        };
        self.end(reason, cx);
    }

    /// It ends: a lookup that has not begun never does, and the sockets close. One of them may have been connected without
    /// our knowledge: its peer must not take that for the whole if anything was to be sent.
    fn stop_racing(&mut self, cx: &mut Cx) -> Option<Progress> {
        let mut progress = self.take_by_name(cx)?;
        let is_cut = self.is(CUT) || self.output.is_some() || self.queued_in(cx) > 0;
        match &mut progress {
            Progress::Resolving { ticket, .. } => cx.threads.take_back(Purpose::Names, *ticket),
            Progress::Racing { race, .. } if is_cut => race.each_but(None, Stream::abort),
            Progress::Racing { .. } => {}
        }
        Some(progress)
    }

    /// Together with the timer of the next attempt.
    fn take_by_name(&mut self, cx: &mut Cx) -> Option<Progress> {
        let progress = self.connecting()?.by_name.take()?;
        if let Progress::Racing { next: Some(timer), .. } = progress {
            cx.timers.cancel(timer);
        }
        Some(progress)
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// It was connected, and is lost again: a refused connect is neither of these.
fn is_lost_already(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe)
}
