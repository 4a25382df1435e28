//! The asyncore half: [`Dispatcher`], for sources that you own and read yourself.

use super::{Core, Scope};
use crate::{
    flags::*,
    key::Key,
    panics::{Payload, discard, guard},
    reason::{Fault, Reason},
    table::Table,
    text::OneLine,
    world::Source,
};
use std::{any::Any, io};

/// A source of events that you own: a pipe, a terminal, a device, a socket of another library. The loop tells you when it is
/// ready; you read and write it yourself. Registered with [`Net::watch`](crate::Net::watch).
///
/// Readiness comes as edges, and is a hint: act on what the system call says. The loop remembers an edge until you say
/// [`Drained::Yes`], and does not tell you of what is [`Unwanted`](Drained::Unwanted). An `Err` ends the dispatcher with
/// [`Reason::Failed`], a panic with [`Reason::Panicked`]. There is more in [the
/// chapter](crate::manual::protocols#dispatchers-your-own-sources).
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
    note = "write `impl Dispatcher<{S}> for {Self}`: its `source` is what the loop waits for, and you read and write that yourself",
    note = "a socket that the loop reads and writes by itself is not a dispatcher: `Net::listen` and `Net::connect` take a `Protocol`"
)]
#[allow(unused_variables)]
pub trait Dispatcher<S = ()>: Any {
    /// The source, always the same one: needed to register it, and to deregister it.
    fn source(&mut self) -> Source<'_>;

    /// There may be something to read, or the other end has gone: reading will say so. Default: it is not wanted.
    ///
    /// # Errors
    /// They end the dispatcher.
    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// There may be room to write. Default: it is not wanted.
    ///
    /// # Errors
    /// They end the dispatcher.
    fn writable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// Urgent data, or a descriptor's own exceptional condition (POLLPRI, poll(2)). Linux and Android only. Default: it is
    /// not wanted.
    ///
    /// # Errors
    /// They end the dispatcher.
    fn priority(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        Ok(Drained::Unwanted)
    }

    /// The end: the last callback, exactly once. The source is no longer registered, and still yours.
    fn closed(&mut self, scope: &mut Scope<'_, S>, state: &mut S, why: Reason) {}
}

/// What your own read or write met last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// `WouldBlock`: call again at the next edge. If it was not `WouldBlock`, and the selector knows no edges (poll(2)), it
    /// is called again after a while, a tenth of a second at most.
    Yes,
    /// There may be more: call again in the next turn.
    No,
    /// Do not call it again, and let nothing of this kind wake the loop, until [`want_readable`](crate::Net::want_readable)
    /// or [`want_writable`](crate::Net::want_writable). When you have nothing to write, this is the answer to `writable`.
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
    #[cfg(all(unix, feature = "children"))]
    fn as_any(&mut self) -> &mut dyn Any;
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

    #[cfg(all(unix, feature = "children"))]
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Those of one reactor, made with the first. What is done with them is named here, so that a program that has none links
/// nothing of it.
pub(crate) struct Dispatchers<S> {
    table: Table<Key, Box<dyn AnyDispatcher<S>>>,
    pub(crate) serve: fn(&mut Core<S>, Key, &mut S),
    pub(crate) finish: fn(&mut Core<S>, Key, Reason, &mut S) -> Result<(), Payload>,
    pub(super) discard: fn(&mut Self),
}

impl<S> Dispatchers<S> {
    fn new() -> Self {
        Self {
            table: Table::default(),
            serve: Core::serve_dispatcher,
            finish: Core::finish_dispatcher,
            discard: Self::discard_all,
        }
    }

    pub(super) fn type_name(&self, key: Key) -> Option<&'static str> {
        Some(self.table.get(key)?.type_name())
    }

    fn discard_all(&mut self) {
        for (_, dispatcher) in self.table.take_all() {
            discard("a dispatcher", dispatcher);
        }
    }
}

impl<S> Core<S> {
    pub(super) fn watch(&mut self, mut dispatcher: Box<dyn AnyDispatcher<S>>) -> io::Result<Key> {
        self.hub.refuse_if_shut()?;
        let key = self.hub.watch(dispatcher.source())?;
        self.keep_dispatcher(key, dispatcher);
        Ok(key)
    }

    pub(super) fn keep_dispatcher(&mut self, key: Key, dispatcher: Box<dyn AnyDispatcher<S>>) {
        self.dispatchers.get_or_insert_with(Dispatchers::new).table.put(key, dispatcher);
    }

    /// One of our own kinds, if it is one.
    #[cfg(all(unix, feature = "children"))]
    pub(super) fn dispatcher<D: Any>(&mut self, key: Key) -> Option<&mut D> {
        self.dispatchers.as_mut()?.table.get_mut(key)?.as_any().downcast_mut()
    }

    fn serve_dispatcher(&mut self, key: Key, state: &mut S) {
        let Some(mut dispatcher) = self.dispatchers.as_mut().and_then(|all| all.table.take(key)) else { return };
        for kind in [Readiness::Priority, Readiness::Readable, Readiness::Writable] {
            // Asked anew each time: the one before may have ended it, or congested the connection that it reads for.
            if self.hub.dispatcher_ready(key).has_any(kind.flag()) {
                self.tell_ready(key, &mut *dispatcher, kind, state);
            }
        }
        if let Some(all) = self.dispatchers.as_mut() {
            all.table.put(key, dispatcher);
        }
        self.hub.requeue(key);
    }

    fn tell_ready(&mut self, key: Key, dispatcher: &mut dyn AnyDispatcher<S>, kind: Readiness, state: &mut S) {
        let name = dispatcher.type_name();
        let drained = self.run_guarded(Some(key), name, kind.name(), |net| {
            let mut scope = Scope::new(net.core, key);
            match kind {
                Readiness::Priority => dispatcher.priority(&mut scope, state),
                Readiness::Readable => dispatcher.readable(&mut scope, state),
                Readiness::Writable => dispatcher.writable(&mut scope, state),
            }
        });
        match self.hub.obey(key, drained) {
            Some(Drained::No) => self.hub.dispatcher_not_drained(key, name),
            Some(drained) => {
                let hub = &mut self.hub;
                let noted = guard(|| match drained {
                    Drained::Unwanted => hub.dispatcher_unwanted(key, kind.flag(), dispatcher.source()),
                    _ => hub.dispatcher_drained(key, kind.flag(), dispatcher.source()),
                });
                hub.obey(key, noted.map(Ok));
            }
            None => {}
        }
    }

    fn finish_dispatcher(&mut self, key: Key, why: Reason, state: &mut S) -> Result<(), Payload> {
        self.hub.cx.stats.closed.count(&why);
        let Some(mut dispatcher) = self.dispatchers.as_mut().and_then(|all| all.table.remove(key)) else { return Ok(()) };
        let is_watched = self.hub.slots.dispatcher(key).is_some_and(|dispatching| dispatching.is_watched());
        let unwatched = guard(|| {
            if is_watched {
                self.unwatch(key, dispatcher.source());
            }
        });
        let name = dispatcher.type_name();
        let closed = self.run_guarded(Some(key), name, "closed", |net| {
            dispatcher.closed(&mut Scope::new(net.core, key), state, why);
        });
        discard("a dispatcher", dispatcher);
        unwatched.and(closed)
    }

    /// Explicitly: a duplicate of the descriptor would go on delivering events.
    fn unwatch(&mut self, key: Key, source: Source<'_>) {
        if let Err(error) = self.hub.cx.world.unwatch(source) {
            log::debug!(target: "mainspring", "{key} cannot be deregistered: {}", OneLine(error));
        }
    }
}

#[derive(Clone, Copy)]
enum Readiness {
    Priority,
    Readable,
    Writable,
}

impl Readiness {
    fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Readable => "readable",
            Self::Writable => "writable",
        }
    }

    fn flag(self) -> Flags {
        match self {
            Self::Priority => PRIORITY,
            Self::Readable => READABLE,
            Self::Writable => WRITABLE,
        }
    }
}
