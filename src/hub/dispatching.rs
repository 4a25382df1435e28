//! Dispatchers: sources that the program owns.

use super::Hub;
use crate::{endpoint::Dispatching, flags::*, key::Key, reason::Reason, world::Source};
use std::io;

impl Hub {
    pub(crate) fn watch(&mut self, source: Source<'_>) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let key = self.next_key()?;
        let is_registered = self.cx.world.watch(source, key.token())?;
        self.slots.insert(Dispatching::new(key, is_registered));
        self.counts.dispatchers += 1;
        self.requeue(key);
        Ok(key)
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

    /// It is not to be told of it any more.
    pub(crate) fn dispatcher_unwanted(&mut self, key: Key, what: Flags, source: Source<'_>) {
        let Some(dispatching) = self.slots.dispatcher(key) else { return };
        if let Err(error) = dispatching.unwanted(what, source, &mut self.cx) {
            self.end(key, Reason::Io(error));
        }
    }

    /// It is to be told of it again. Whether it is there.
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
