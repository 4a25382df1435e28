//! Dispatchers: sources that the program owns.

use super::Hub;
#[cfg(all(unix, feature = "signals"))]
use crate::world::Signals;
use crate::{endpoint::Dispatching, flags::*, key::Key, reason::Reason, world::Source};
use std::io;

impl Hub {
    pub(crate) fn watch(&mut self, source: Source<'_>) -> io::Result<Key> {
        let key = self.next_key()?;
        let dispatching = match source {
            Source::Nothing => Dispatching::of_nothing(key),
            source => Dispatching::new(key, self.cx.world.watch(source, key.token())?),
        };
        self.slots.insert(dispatching);
        self.counts.dispatchers += 1;
        self.requeue(key);
        Ok(key)
    }

    /// Neither `run` nor a drain waits for it.
    #[cfg(all(unix, any(feature = "children", feature = "signals")))]
    pub(crate) fn keep_in_background(&mut self, key: Key) {
        if let Some(dispatching) = self.slots.dispatcher(key).filter(|dispatching| !dispatching.is_background) {
            dispatching.is_background = true;
            self.counts.dispatchers -= 1;
        }
    }

    /// It is told of this once more after a while: longer each time, a tenth of a second at most.
    #[cfg(all(unix, feature = "children"))]
    pub(crate) fn rest_dispatcher(&mut self, key: Key, what: Flags) {
        if let Some(dispatching) = self.slots.dispatcher(key) {
            dispatching.rest(what, &mut self.cx);
        }
    }

    /// Signals, and the dispatcher that they are for.
    #[cfg(all(unix, feature = "signals"))]
    pub(crate) fn watch_signals(&mut self, signals: &[i32]) -> io::Result<(Key, Signals)> {
        self.refuse_if_shut()?;
        let key = self.next_key()?;
        let mut signals = self.cx.world.hook_signals(signals, key.token())?;
        self.watch(signals.source())?;
        self.keep_in_background(key);
        self.dispatcher_wants(key, READABLE); // one may have come already
        Ok((key, signals))
    }

    /// What is to be told to it.
    pub(crate) fn dispatcher_ready(&mut self, key: Key) -> Flags {
        self.slots.dispatcher(key).map_or(Flags::default(), |dispatching| dispatching.ready())
    }

    /// It has met `WouldBlock`: nothing more until the next edge.
    pub(crate) fn dispatcher_drained(&mut self, key: Key, what: Flags, source: Source<'_>) {
        let Some(dispatching) = self.slots.dispatcher(key) else { return };
        if let Err(error) = dispatching.drained(what, source, &mut self.cx) {
            self.end(key, Reason::Io(error));
        }
    }

    /// It is not to be told of this any more.
    pub(crate) fn dispatcher_unwanted(&mut self, key: Key, what: Flags, source: Source<'_>) {
        let Some(dispatching) = self.slots.dispatcher(key) else { return };
        if let Err(error) = dispatching.unwanted(what, source, &mut self.cx) {
            self.end(key, Reason::Io(error));
        }
    }

    /// It is to be told of this again. Returns whether it is there.
    pub(crate) fn dispatcher_wants(&mut self, key: Key, what: Flags) -> bool {
        let Some(dispatching) = self.slots.dispatcher(key).filter(|dispatching| !dispatching.flags.has_any(SHUT)) else {
            return false;
        };
        dispatching.want(what);
        self.requeue(key);
        true
    }

    /// It says that there is more.
    pub(crate) fn dispatcher_not_drained(&mut self, key: Key, protocol: &str) {
        if let Some(dispatching) = self.slots.dispatcher(key) {
            dispatching.not_drained(protocol);
        }
    }
}
