//! Streams that the program has opened itself: taken over, and given back.

use super::Hub;
use crate::{
    adopted::Adopted,
    endpoint::Conn,
    flags::*,
    framing::Input,
    key::Key,
    world::{TakenOver, Ways},
};
use std::io;

impl Hub {
    /// It counts as opened: `connected` is owed.
    pub(crate) fn adopt(&mut self, adopted: Adopted) -> io::Result<Key> {
        self.refuse_if_shut()?;
        let key = self.next_key()?;
        let TakenOver { stream, peer, reads_at_once, unread } = self.cx.world.take_over(adopted, key.token())?;
        self.cx.forget_adopted = |world, stream| drop(world.detach(stream));
        let ways = stream.ways();
        if ways == Ways::Out && !unread.is_empty() {
            let text = "what is only written to is never read: nobody could be given what was read of it before";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        log::debug!(target: "mainspring", "{key} {peer} adopted");
        let mut conn = Conn::new(key, Some(stream), peer, self.cx.world.now());
        conn.set(ESTABLISHED | OWES_CONNECTED | WRITABLE);
        conn.set_if(READABLE, reads_at_once);
        conn.is_adopted = true;
        match ways {
            Ways::Both => {}
            Ways::In => conn.set(FIN_ASKED | FIN_SENT),
            Ways::Out => conn.set(EOF_SEEN | EOF_TOLD),
        }
        if !unread.is_empty() {
            conn.held = Some(Box::new(Input::of(&unread)));
            conn.set(MAY_HAVE_FRAME | UNANSWERED);
        }
        self.slots.insert(conn);
        self.counts.opened += 1;
        self.cx.stats.opened += 1;
        self.requeue(key);
        Ok(key)
    }

    /// Returns whether it was there, and can be given back.
    pub(crate) fn detach(&mut self, key: Key) -> bool {
        self.lend_if_open(key, Conn::detach)
    }
}
