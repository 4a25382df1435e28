//! Streams that somebody else has opened: taken over, and given back.

mod broken;
mod detaching;
mod ending;
mod kinds;
mod one_way;
mod refused;
#[cfg(feature = "sim")]
mod simulated;
mod stdio;

use crate::common::{Call, Ctx, Journal, closing_of, is_closed, recorder, start, turn, until};
use mainspring::{Adopted, Key, Outcome, Reactor};
use rustix::pipe::{PipeFlags, pipe_with};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

pub(super) const BROKEN: &str = "connection lost: Broken pipe (os error 32)";

/// It has been told the end of it; how.
#[track_caller]
pub(super) fn end_of(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key) -> String {
    until(reactor, journal, |journal| is_closed(journal, key));
    match journal.of(key).pop() {
        Some(Call::Closed(why)) => why,
        other => panic!("`closed` is the last: {other:?}"),
    }
}

pub(super) fn child(program: &str, arguments: &[&str]) -> Child {
    Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program")
}

pub(super) fn shell(script: &str) -> Child {
    child("sh", &["-c", script])
}

pub(super) fn ends(child: &mut Child) -> Adopted {
    Adopted::pair(child.stdout.take().expect("piped"), child.stdin.take().expect("piped"))
}

/// The end that is read, and the one that is written to; both block.
pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
}

/// A socket to be adopted, and the other end.
pub(super) fn tcp_pair() -> (Adopted, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let theirs = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
    (listener.accept().expect("somebody came").0.into(), theirs.into())
}

pub(super) fn unix_pair() -> (Adopted, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (ours.into(), theirs.into())
}

pub(super) fn is_nonblocking(fd: impl AsFd) -> bool {
    socket2::SockRef::from(&fd.as_fd().try_clone_to_owned().expect("a descriptor")).nonblocking().expect("fcntl(2)")
}

/// How many descriptors this process has.
pub(super) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// An adopted stream that has had its `connected`.
pub(super) struct Guest {
    pub(super) reactor: Reactor<Journal>,
    pub(super) journal: Journal,
    pub(super) key: Key,
}

impl Guest {
    #[track_caller]
    pub(super) fn new(
        stream: impl Into<Adopted>,
        on: impl FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + 'static,
    ) -> Self {
        let (mut reactor, mut journal) = start();
        let key = reactor.net().adopt(stream, recorder(on)).expect("a stream");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        Self { reactor, journal, key }
    }

    #[track_caller]
    pub(super) fn until(&mut self, done: impl FnMut(&mut Journal) -> bool) {
        until(&mut self.reactor, &mut self.journal, done);
    }

    pub(super) fn turn(&mut self) {
        turn(&mut self.reactor, &mut self.journal, Duration::ZERO);
    }

    #[track_caller]
    pub(super) fn end(&mut self) -> String {
        end_of(&mut self.reactor, &mut self.journal, self.key)
    }

    pub(super) fn is_closed(&self) -> bool {
        closing_of(&self.journal, self.key).is_some()
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reactor.net().send(self.key, bytes)
    }

    /// What comes out of such an end until this many bytes have, or it has ended, while the reactor turns.
    #[track_caller]
    pub(super) fn read(&mut self, from: &mut File, bytes: usize) -> Vec<u8> {
        socket2::SockRef::from(&*from).set_nonblocking(true).expect("fcntl(2)");
        let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
        until(&mut self.reactor, &mut self.journal, |_| {
            while all.len() < bytes {
                match from.read(&mut buf) {
                    Ok(0) => return true,
                    Ok(count) => all.extend_from_slice(&buf[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                    Err(error) => panic!("after {} bytes: {error}", all.len()),
                }
            }
            true
        });
        all
    }
}
