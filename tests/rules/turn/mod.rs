//! The order of a turn, and its budgets: what is over a budget comes in the next turn, which does not sleep. Over Unix
//! sockets, where what one end has written is there at the other without any delay.

mod order;
mod budgets;

use crate::common::{Call, Ctx, Journal, next_connected, recorder, settle};
use mainspring::{Key, Outcome, Reactor};
use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

fn free_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mainspring-turn-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

fn dial(path: &PathBuf) -> UnixStream {
    let peer = UnixStream::connect(path).expect("somebody listens");
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// An accepted connection with nothing left to do, and its peer, which does not block.
fn guest<F>(reactor: &mut Reactor<Journal>, journal: &mut Journal, on: F) -> (Key, UnixStream)
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static,
{
    let path = free_path();
    let listener = reactor.net().listen(path.clone(), move || recorder(on.clone())).expect("a free path");
    let before = journal.calls.len();
    let peer = dial(&path);
    let key = next_connected(reactor, journal, before);
    reactor.net().close(listener);
    settle(reactor, journal);
    (key, peer)
}

fn say(mut peer: &UnixStream, bytes: impl AsRef<[u8]>) {
    peer.write_all(bytes.as_ref()).expect("the kernel takes it");
}
