//! How connections end.

mod once;
mod after_the_end;
mod half_close;
#[cfg(feature = "sim")]
mod lingering;
#[cfg(feature = "sim")]
mod own_errors;
mod polite;
mod shutdown;

use crate::common::{Call, Ctx, Journal, nobody};
use mainspring::{Outcome, Protocol, Reason};
use std::{cell::RefCell, net::SocketAddr, rc::Rc};

/// A listener that never answers: its backlog is full, so that whoever connects waits.
fn deaf() -> (Vec<socket2::Socket>, SocketAddr) {
    let (listener, addr) = nobody();
    listener.listen(0).expect("a backlog of nothing");
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a socket option");
        let _ = filler.connect(&addr.into()); // in progress
        sockets.push(filler);
    }
    (sockets, addr)
}

/// Notes its drop after `closed`.
struct Mortal {
    drops: Rc<RefCell<Vec<&'static str>>>,
}

impl Protocol<Journal> for Mortal {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn received(&mut self, _: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        match bytes {
            b"err" => Err("asked to fail".into()),
            b"panic" => panic!("asked to panic"),
            _ => Ok(()),
        }
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        self.drops.borrow_mut().push("closed");
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.drops.borrow_mut().push("dropped");
    }
}
