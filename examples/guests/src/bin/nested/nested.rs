//! A reactor inside of another, which has another state: the outer one waits for the inner one's descriptor, and keeps a timer
//! for its deadline. Made to be copied.
//!
//! To do something in the inner one from outside, post it by its [`Remote`](mainspring::Remote), which wakes it.

use mainspring::{Dispatcher, Drained, Fault, Key, Net, Reactor, Reason, Scope, Source, Timer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{io, os::fd::AsFd, time::Duration};

/// A reactor with its state, as a dispatcher of another one with the state `S`.
pub(crate) struct Nested<I, S> {
    reactor: Reactor<I>,
    state: I,
    ended: fn(&mut Net<'_, S>, &mut S, Reason),
    timer: Option<Timer>,
}

impl<I: 'static, S: 'static> Nested<I, S> {
    /// `ended` is called when the inner one has nothing left to wait for or was stopped (with [`Reason::Finish`]), when its
    /// selector has failed, and when the outer one was drained or shut down. That does not wait for the inner one: if you want
    /// both to finish, drain the inner one, and in `ended` the outer one.
    pub(crate) fn watch(
        net: &mut Net<'_, S>,
        reactor: Reactor<I>,
        state: I,
        ended: fn(&mut Net<'_, S>, &mut S, Reason),
    ) -> io::Result<Key> {
        let key = net.watch(Self { reactor, state, ended, timer: None })?;
        net.want_readable(key); // there may be a deadline, or something to do, without anything to read
        Ok(key)
    }

    /// A dispatcher is edge-triggered: it may say that it is drained only if nothing is left, and a turn may leave events for the
    /// next one.
    fn is_readable(&self) -> io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(&self.reactor, PollFlags::IN)], Some(&at_once))? > 0)
    }
}

impl<I: 'static, S: 'static> Dispatcher<S> for Nested<I, S> {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.reactor.as_fd())
    }

    /// One turn; the outer one serves its other sources before the next, however much there is to do.
    fn readable(&mut self, scope: &mut Scope<'_, S>, _: &mut S) -> Result<Drained, Fault> {
        if let Some(timer) = self.timer.take() {
            scope.net.cancel(timer);
        }
        if !self.reactor.turn(&mut self.state, Duration::ZERO)? {
            scope.close(); // it was stopped, or has nothing left to wait for
            return Ok(Drained::Yes);
        }
        if self.is_readable()? {
            return Ok(Drained::No);
        }
        if let Some(due) = self.reactor.next_deadline() {
            let (key, delay) = (scope.key, due.saturating_duration_since(scope.net.now()));
            if delay.is_zero() {
                return Ok(Drained::No);
            }
            self.timer = Some(scope.net.after(delay, move |net, _| _ = net.want_readable(key)));
        }
        Ok(Drained::Yes)
    }

    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {
        if let Some(timer) = self.timer.take() {
            scope.net.cancel(timer);
        }
        self.reactor.shutdown(&mut self.state); // calls `closed` of what is left in it
        (self.ended)(&mut scope.net, state, why);
    }
}
