//! Signals of the process as callbacks.

use super::{Core, Dispatcher, Drained, Net, Scope};
use crate::{
    key::Key,
    reason::Fault,
    world::{Signals, Source},
};
use std::{fmt, io};

/// # Signals
///
/// The chapter is [processes and signals](crate::manual::processes_and_signals).
impl<S> Net<'_, S> {
    /// Runs `then` for each of these signals that the process gets, on the loop and never inside anything, so it may do
    /// whatever a callback may. The names are in [`signal`](crate::signal). If a signal comes several times before `then`
    /// has run, it is told once (signal(7)). It does not keep [`run`](crate::Reactor::run) running, and stays through a
    /// [drain](Self::drain). If `then` panics, that is reported, and it is called again next time.
    ///
    /// From here on these signals do nothing else in this process, also after the key is [closed](Self::close): their
    /// default action never comes back. [`die_of`](crate::signal::die_of) does what it would. Several reactors may wait for
    /// one signal, and all are told.
    ///
    /// ```no_run
    /// # use mainspring::{Reactor, signal::{SIGINT, SIGTERM, die_of}};
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// # let mut reactor = Reactor::<()>::new()?;
    /// reactor.net().on_signal(&[SIGINT, SIGTERM], |net, _, signal| {
    ///     if net.is_draining() {
    ///         let _ = die_of(signal); // asked for again: at once
    ///     } else {
    ///         net.drain(Duration::from_secs(10));
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for a number that is not a signal, and for signals that nobody can wait for: SIGKILL, SIGSTOP, SIGILL,
    /// SIGFPE, SIGSEGV; errors for a lack of descriptors; and `NotConnected` during a shutdown.
    pub fn on_signal(&mut self, signals: &[i32], then: impl FnMut(&mut Net<'_, S>, &mut S, i32) + 'static) -> io::Result<Key> {
        self.core.on_signal(signals, then)
    }
}

impl<S> Core<S> {
    fn on_signal(&mut self, signals: &[i32], then: impl FnMut(&mut Net<'_, S>, &mut S, i32) + 'static) -> io::Result<Key> {
        let (key, signals) = self.hub.watch_signals(signals)?;
        self.keep_dispatcher(key, Box::new(OnSignal { signals, then }));
        Ok(key)
    }
}

struct OnSignal<F> {
    signals: Signals,
    then: F,
}

impl<S, F: FnMut(&mut Net<'_, S>, &mut S, i32) + 'static> Dispatcher<S> for OnSignal<F> {
    fn source(&mut self) -> Source<'_> {
        self.signals.source()
    }

    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        for signal in self.signals.take() {
            if !scope.net.is_open(scope.key) {
                break; // what followed the one before has closed it
            }
            let then = &mut self.then;
            scope.net.core.run_job("what follows a signal", state, |net, state| then(net, state, signal));
        }
        Ok(Drained::Yes)
    }
}

impl<F> fmt::Debug for OnSignal<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSignal")
    }
}
