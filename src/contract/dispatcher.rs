//! The asyncore half: [`Dispatcher`], for sources that you own and read yourself.

use super::Scope;
use crate::{
    reason::{Fault, Reason},
    world::Source,
};
use std::any::Any;

/// A source of events that you own: a pipe, a terminal, a device, a socket of another library. The loop tells you when it
/// is ready; reading and writing it is yours. Registered with [`Net::watch`](crate::Net::watch).
///
/// Readiness comes as edges, and is a hint: act on what the system call says. The loop remembers an edge until you say
/// [`Drained::Yes`], and does not tell you of what is [`Unwanted`](Drained::Unwanted). An `Err` ends the dispatcher
/// with [`Reason::Failed`], a panic with [`Reason::Panicked`]. More has
/// [the chapter](crate::manual::protocols#dispatchers-your-own-sources).
///
/// ```no_run
/// # use mainspring::{Dispatcher, Drained, Fault, Scope, Source};
/// # use std::{fs::File, io::{ErrorKind, Read}, os::fd::AsFd};
/// struct Sensor(File); // opened with O_NONBLOCK
/// impl Dispatcher for Sensor {
///     fn source(&mut self) -> Source<'_> {
///         Source::Fd(self.0.as_fd())
///     }
///     fn readable(&mut self, scope: &mut Scope<'_>, _: &mut ()) -> Result<Drained, Fault> {
///         let mut buf = [0; 256];
///         match self.0.read(&mut buf) {
///             Ok(0) => scope.close(),
///             Ok(n) => println!("{}", buf[..n].escape_ascii()),
///             Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Drained::Yes),
///             Err(e) => return Err(e.into()),
///         }
///         Ok(Drained::No)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a dispatcher for the state `{S}`",
    label = "this has to be a `Dispatcher<{S}>`",
    note = "write `impl Dispatcher<{S}> for {Self}`: its `source` is what the loop waits for, and reading and writing that is yours",
    note = "a socket that the loop reads and writes by itself is no dispatcher: `Net::listen` and `Net::connect` take a `Protocol`"
)]
#[allow(unused_variables)]
pub trait Dispatcher<S = ()>: Any {
    /// The source, always the same one: for registering it, and for letting it go.
    fn source(&mut self) -> Source<'_>;

    /// There may be something to read. Also when the other end has gone: reading says so. Default: it is not wanted.
    ///
    /// # Errors
    /// End the dispatcher.
    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// There may be room to write. Default: it is not wanted.
    ///
    /// # Errors
    /// End the dispatcher.
    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// Urgent data, or a descriptor's own exceptional condition (POLLPRI, poll(2)). Linux and Android only. Default: it is
    /// not wanted.
    ///
    /// # Errors
    /// End the dispatcher.
    fn priority(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// The end: the last callback, exactly once. The source is no longer registered, and still yours.
    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {}
}

/// What your own read or write last met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// `WouldBlock`: call again at the next edge. Where the selector knows no edges (poll(2)), and it was not `WouldBlock`,
    /// it is called again after a while, a tenth of a second at most.
    Yes,
    /// There may be more: call again next turn.
    No,
    /// Do not call it again, and let nothing of this kind wake the loop, until
    /// [`want_readable`](crate::Net::want_readable) or [`want_writable`](crate::Net::want_writable). With nothing to write, this
    /// is the answer to `writable`.
    Unwanted,
}

/// The object behind a slot. It hands out no `&mut dyn Dispatcher<S>`, so `S` need not be `'static`.
pub(crate) trait AnyDispatcher<S> {
    fn source(&mut self) -> Source<'_>;
    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault>;
    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault>;
    fn priority(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault>;
    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason);
    fn type_name(&self) -> &'static str;
}

impl<S, D: Dispatcher<S>> AnyDispatcher<S> for D {
    fn source(&mut self) -> Source<'_> {
        Dispatcher::source(self)
    }

    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Dispatcher::readable(self, scope, state)
    }

    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Dispatcher::writable(self, scope, state)
    }

    fn priority(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Dispatcher::priority(self, scope, state)
    }

    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {
        Dispatcher::closed(self, scope, state, why);
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<D>()
    }
}
