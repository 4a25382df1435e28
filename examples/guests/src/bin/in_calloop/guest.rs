//! A reactor as a guest of calloop: its descriptor becomes an event source there, and its deadline a timer. Made to be copied.
//!
//! It lives in the data that calloop lends to its callbacks, so each of them gets the net by [`Guest::with`], and may drop the
//! guest.

use calloop::{
    Interest, LoopHandle, Mode, PostAction, RegistrationToken,
    generic::Generic,
    timer::{TimeoutAction, Timer},
};
use mainspring::{Net, Reactor};
use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Finds the guest in calloop's data `D`, if it is still there.
type Find<S, D> = fn(&mut D) -> Option<&mut Guest<S, D>>;

/// A reactor, its state, and how calloop wakes it.
pub(crate) struct Guest<S: 'static, D: 'static> {
    reactor: Reactor<S>,
    state: S,
    host: LoopHandle<'static, D>,
    find: Find<S, D>,
    ended: fn(&mut D, io::Result<()>),
    source: RegistrationToken,
    /// The time of calloop's timer, if there is one.
    deadline: Option<(Instant, RegistrationToken)>,
}

impl<S, D> Guest<S, D> {
    /// `find` says where in calloop's data this will be. `ended` is called once there is nothing left to wait for, the reactor
    /// was stopped, or its selector has failed; then it has left calloop, and you can drop it.
    pub(crate) fn new(
        host: LoopHandle<'static, D>,
        reactor: Reactor<S>,
        state: S,
        find: Find<S, D>,
        ended: fn(&mut D, io::Result<()>),
    ) -> calloop::Result<Self> {
        // A duplicate is readable whenever the descriptor is, and calloop can own it. Level-triggered, because a turn may leave
        // some events for the next one.
        let readable = Generic::new(reactor.as_fd().try_clone_to_owned()?, Interest::READ, Mode::Level);
        let inserted = host.insert_source(readable, move |_, _, data: &mut D| {
            Self::turn(data, find);
            Ok(PostAction::Continue)
        });
        let source = inserted.map_err(|failed| failed.error)?;
        let mut guest = Self { reactor, state, host, find, ended, source, deadline: None };
        guest.set_timer();
        Ok(guest)
    }

    /// Lends the net. What you queue leaves when calloop goes on.
    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut Net<'_, S>, &mut S) -> R) -> R {
        let done = act(&mut self.reactor.net(), &mut self.state);
        self.set_timer();
        done
    }

    /// One turn; calloop serves its other sources before the next one, however much there is to do.
    fn turn(data: &mut D, find: Find<S, D>) {
        let Some(guest) = find(data) else { return };
        let outcome = guest.reactor.turn(&mut guest.state, Duration::ZERO);
        if let Ok(true) = outcome {
            return guest.set_timer();
        }
        guest.leave();
        (guest.ended)(data, outcome.map(|_| ()));
    }

    /// Call this after each turn, and after each use of the net, because both may change the deadline.
    fn set_timer(&mut self) {
        let deadline = self.reactor.next_deadline();
        if deadline == self.deadline.as_ref().map(|(at, _)| *at) {
            return;
        }
        self.cancel_timer();
        let find = self.find;
        self.deadline = deadline.map(|at| {
            let fired = move |_, _: &mut (), data: &mut D| {
                if let Some(guest) = find(data) {
                    guest.deadline = None; // calloop drops a timer when it fires
                }
                Self::turn(data, find);
                TimeoutAction::Drop
            };
            (at, self.host.insert_source(Timer::from_deadline(at), fired).expect("a timer needs nothing of the system"))
        });
    }

    fn cancel_timer(&mut self) {
        if let Some((_, timer)) = self.deadline.take() {
            self.host.remove(timer);
        }
    }

    fn leave(&mut self) {
        self.cancel_timer();
        self.host.remove(self.source);
    }
}

/// Works inside a callback of calloop's too. Without this, calloop would go on watching its duplicate of the descriptor.
impl<S, D> Drop for Guest<S, D> {
    fn drop(&mut self) {
        self.leave();
    }
}
