//! Both by UDP: each datagram is a question; the answer is one line, or there is none.

use crate::{
    common::{Failure, announce, drain_on_interrupt, is_misused, listening, misused, print, stop_on_interrupt},
    printable::printable,
    server::{GRACE, LINE_MAX, STAMP, stamp},
};
use chrono::NaiveDateTime;
use mainspring::{Address, Bind, Datagram, Full, Key, Net, Outcome, Reactor, Reason, Scope, Target, Timer};
use std::{collections::VecDeque, io, time::Duration};

/// How long an answer may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// How often we ask, because a datagram may be lost either way.
const TRIES: u32 = 3;

// ------------------------------------------------------------------------------------------------------ the server

struct Stamper;

impl<S> Datagram<S> for Stamper {
    fn received(&mut self, scope: &mut Scope<'_, S>, _: &mut S, question: &[u8], _: &Address) -> Outcome {
        if !is_stamped(question) {
            scope.reply(answer(question));
        }
        Ok(())
    }

    fn oversized(&mut self, scope: &mut Scope<'_, S>, _: &mut S, question: &[u8], _: &Address) -> Outcome {
        if !is_stamped(question) {
            scope.reply(format!("datagram too long: {LINE_MAX} bytes at most\n"));
        }
        Ok(())
    }
}

/// One line with one stamp, even if the question has several lines, so that the answer is never much longer than the question.
/// Anybody can forge the address of the sender: with a stamp for each line, a thousand empty ones would make us send thirty
/// times as much to a victim.
fn answer(question: &[u8]) -> Vec<u8> {
    let text = question.strip_suffix(b"\n").unwrap_or(question);
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    [stamp().to_string().as_bytes(), &lines.join(&b' '), b"\n"].concat()
}

/// A datagram that begins with a stamp is an answer, and gets none. Otherwise two of these servers would write to each other
/// for ever, after one question to one of them that seems to come from the other.
fn is_stamped(question: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(&question[..question.len().min(64)]);
    NaiveDateTime::parse_and_remainder(&begin, STAMP).is_ok()
}

pub(crate) fn serve(at: String) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    let how = Bind::new().largest(LINE_MAX).queue(0, Full::DropNewest); // a time that had to wait would be wrong
    let socket = listening(reactor.net().bind_with(at, how, Stamper))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), socket)?;
    Ok(reactor.run(&mut ())?)
}

// ------------------------------------------------------------------------------------------------------ the client

/// The state of the program; each callback borrows it.
struct Asking {
    server: Target,
    question: Vec<u8>,
    /// The addresses of the server, the one to ask next first. One that refuses is not asked again.
    places: VecDeque<Target>,
    timeout: Duration,
    /// How often no answer came in time.
    timeouts: u32,
    timer: Option<Timer>,
    /// The first answer counts: there may be more, on several sockets.
    ending: Option<Result<(), Failure>>,
}

impl Asking {
    fn find(&mut self, net: &mut Net<'_, Self>) {
        match self.server.clone() {
            Target::Name(host, port) if !host.contains(':') => {
                net.resolve(&host, move |net, asking, found| match found {
                    Ok(ips) => asking.ask_in_turn(net, ips.into_iter().map(|ip| (ip, port).into())),
                    Err(error) if is_misused(&error) => asking.end(net, Err(misused(error))),
                    Err(error) => asking.end(net, Err(error.into())),
                });
            }
            literal => self.ask_in_turn(net, [literal]),
        }
    }

    fn ask_in_turn(&mut self, net: &mut Net<'_, Self>, places: impl IntoIterator<Item = Target>) {
        self.places.extend(places);
        self.ask(net);
    }

    /// Asks from a new socket, which stays open, because a late answer counts too.
    fn ask(&mut self, net: &mut Net<'_, Self>) {
        let Some(place) = self.places.front().cloned() else { return };
        self.places.rotate_left(1);
        match net.bind_to(&place, Asker { place: place.clone() }) {
            Ok(socket) => self.ask_by(net, socket),
            Err(error) => self.refused(net, &place, &error),
        }
    }

    fn ask_by(&mut self, net: &mut Net<'_, Self>, socket: Key) {
        net.send(socket, &self.question);
        let overdue = net.after(self.timeout, |net, asking: &mut Self| asking.timed_out(net));
        self.timer = Some(overdue);
    }

    fn timed_out(&mut self, net: &mut Net<'_, Self>) {
        self.timeouts += 1;
        if self.timeouts < TRIES {
            return self.ask(net);
        }
        let (server, seconds) = (&self.server, self.timeout.as_secs());
        let why = format!("the server {server} was asked {TRIES} times, and has not answered for {seconds} seconds each");
        self.end(net, Err(why.into()));
    }

    /// Asks the next address at once, if there is one.
    fn refused(&mut self, net: &mut Net<'_, Self>, place: &Target, error: &io::Error) {
        self.places.retain(|other| other != place);
        if self.places.is_empty() {
            let why = format!("cannot ask {place}: {error}");
            return self.end(net, Err(if is_misused(error) { misused(why) } else { why.into() }));
        }
        if let Some(timer) = self.timer.take() {
            net.cancel(timer);
        }
        self.ask(net);
    }

    fn end(&mut self, net: &mut Net<'_, Self>, ending: Result<(), Failure>) {
        self.ending.get_or_insert(ending);
        net.stop();
    }
}

/// One try.
struct Asker {
    place: Target,
}

impl Datagram<Asking> for Asker {
    fn received(&mut self, scope: &mut Scope<'_, Asking>, asking: &mut Asking, answer: &[u8], _: &Address) -> Outcome {
        let answer = answer.strip_suffix(b"\n").unwrap_or(answer);
        let ending = print(printable(&String::from_utf8_lossy(answer)));
        scope.close(); // one answer is enough
        asking.end(&mut scope.net, ending);
        Ok(())
    }

    /// Nobody listens there (ECONNREFUSED), or it cannot be reached at all.
    fn failed(&mut self, scope: &mut Scope<'_, Asking>, asking: &mut Asking, _: &Address, error: io::Error) -> Outcome {
        scope.close();
        asking.refused(&mut scope.net, &self.place, &error);
        Ok(())
    }

    fn closed(&mut self, scope: &mut Scope<'_, Asking>, asking: &mut Asking, why: Reason) {
        if !why.is_clean() {
            asking.end(&mut scope.net, Err(why.to_string().into()));
        }
    }
}

/// Asks, again if no answer comes, and prints the answer.
pub(crate) fn ask(server: Target, text: String, timeout: Duration) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let question = (text + "\n").into_bytes();
    let places = VecDeque::new();
    let mut asking = Asking { server, question, places, timeout, timeouts: 0, timer: None, ending: None };
    asking.find(&mut reactor.net());
    reactor.run(&mut asking)?;
    asking.ending.unwrap_or(Ok(()))
}
