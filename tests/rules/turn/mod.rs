//! The order of a turn, and its budgets: what is over a budget comes in the next turn, which does not sleep. Over Unix
//! sockets, where what one end has written is there at the other without any delay; where there are none, over TCP.

mod order;
mod budgets;

use crate::common::{self, Call, Ctx, Journal, LocalStream, SHORT, next_connected, recorder, settle};
use mainspring::{Address, Key, Outcome, Reactor};
use std::{io::Write, thread, time::Duration};

#[cfg(unix)]
fn free_place() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mainspring-turn-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

#[cfg(not(unix))]
fn free_place() -> &'static str {
    "127.0.0.1:0"
}

fn dial(reactor: &mut Reactor<Journal>, listener: Key) -> LocalStream {
    let peer = match reactor.net().local(listener) {
        #[cfg(unix)]
        Some(Address::Unix(Some(path))) => LocalStream::connect(path),
        #[cfg(not(unix))]
        Some(Address::Ip(addr)) => LocalStream::connect(addr),
        other => panic!("it listens at {other:?}"),
    };
    let peer = peer.expect("somebody listens");
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// An accepted connection with nothing left to do, and its peer, which does not block.
fn guest<F>(reactor: &mut Reactor<Journal>, journal: &mut Journal, on: F) -> (Key, LocalStream)
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static,
{
    let listener = reactor.net().listen(free_place(), move || recorder(on.clone())).expect("a free place");
    let before = journal.calls.len();
    let peer = dial(reactor, listener);
    let key = next_connected(reactor, journal, before);
    reactor.net().close(listener);
    settle(reactor, journal);
    (key, peer)
}

/// A turn in which all that was said is there.
fn turn(reactor: &mut Reactor<Journal>, journal: &mut Journal, wait_max: impl Into<Option<Duration>>) -> bool {
    arrives();
    common::turn(reactor, journal, wait_max)
}

/// The selector of Windows hears of what was said a moment later, and nothing tells when it has.
fn arrives() {
    if cfg!(windows) {
        thread::sleep(SHORT);
    }
}

fn say(mut peer: &LocalStream, bytes: impl AsRef<[u8]>) {
    peer.write_all(bytes.as_ref()).expect("the kernel takes it");
}
