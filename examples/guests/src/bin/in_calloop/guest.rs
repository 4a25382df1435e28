//! A reactor as a guest of calloop: its descriptor is a source of that, and its deadline a timer. To be copied.
//!
//! It lives in what calloop lends to its callbacks, so each of them has the net by [`Guest::with`], and may drop it.

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

/// Where calloop's data `D` has it, if it still does.
type Find<S, D> = fn(&mut D) -> Option<&mut Guest<S, D>>;

/// A reactor, its state, and how calloop wakes it.
pub(crate) struct Guest<S: 'static, D: 'static> {
    reactor: Reactor<S>,
    state: S,
    host: LoopHandle<'static, D>,
    find: Find<S, D>,
    ended: fn(&mut D, io::Result<()>),
    source: RegistrationToken,
    /// What calloop's timer is set for, if there is one.
    deadline: Option<(Instant, RegistrationToken)>,
}

impl<S, D> Guest<S, D> {
    /// `find` says where in calloop's data this will be. `ended` is called once there is nothing left to wait for, or the
    /// reactor was stopped, or its selector has failed; then it has left calloop, and can be dropped.
    pub(crate) fn new(
        host: LoopHandle<'static, D>,
        reactor: Reactor<S>,
        state: S,
        find: Find<S, D>,
        ended: fn(&mut D, io::Result<()>),
    ) -> calloop::Result<Self> {
        // A duplicate is as readable as the descriptor itself, and calloop can own it. Level, because a turn need not have
        // looked at all that there is.
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

    /// What is queued here leaves when calloop goes on.
    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut Net<'_, S>, &mut S) -> R) -> R {
        let done = act(&mut self.reactor.net(), &mut self.state);
        self.set_timer();
        done
    }

    /// One turn, and calloop serves its others before the next, however much there is to do.
    fn turn(data: &mut D, find: Find<S, D>) {
        let Some(guest) = find(data) else { return };
        let outcome = guest.reactor.turn(&mut guest.state, Duration::ZERO);
        if let Ok(true) = outcome {
            return guest.set_timer();
        }
        guest.leave();
        (guest.ended)(data, outcome.map(|_| ()));
    }

    /// To be done after each turn, and after each use of the net: both may have changed the deadline.
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
                    guest.deadline = None; // dropped as it fires
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

/// Also inside a callback of calloop's: its own duplicate of the descriptor would go on being watched.
impl<S, D> Drop for Guest<S, D> {
    fn drop(&mut self) {
        self.leave();
    }
}
