//! What the selector waits for: how it is registered, and what an event of it says. No socket is opened here,
//! and none is read.

use super::super::{Source, Stream};
use crate::flags::*;
use mio::{Interest, Registry, Token, event::Source as AnySource, net::TcpStream};
use std::io;

/// For both directions, and for what is neither: TCP's urgent data would stop a reader that is not told of it.
pub(super) fn every_interest() -> Interest {
    let both = Interest::READABLE | Interest::WRITABLE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let both = both | Interest::PRIORITY;
    both
}

#[inline]
pub(super) fn ready(event: &mio::event::Event) -> Flags {
    let mut ready = Flags::default();
    ready.insert_if(READABLE, event.is_readable());
    ready.insert_if(WRITABLE, event.is_writable());
    if event.is_read_closed() || event.is_write_closed() || event.is_priority() || event.is_error() {
        ready.insert_if(READABLE | READ_UNTIL_BLOCKED, event.is_read_closed());
        ready.insert_if(WRITABLE, event.is_write_closed());
        ready.insert_if(READ_UNTIL_BLOCKED | PRIORITY, event.is_priority());
        ready.insert_if(READABLE | WRITABLE | FAILED, event.is_error());
    }
    ready
}

pub(super) fn with_source<T>(source: Source<'_>, run: impl FnOnce(&mut dyn AnySource) -> T) -> T {
    match source {
        Source::Mio(source) => run(&mut Borrowed(source)),
        #[cfg(unix)]
        Source::Fd(fd) => {
            use std::os::fd::AsRawFd;
            run(&mut Borrowed(&mut mio::unix::SourceFd(&fd.as_raw_fd())))
        }
    }
}

/// mio registers sized sources only.
struct Borrowed<'a>(&'a mut dyn AnySource);

impl AnySource for Borrowed<'_> {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

pub(super) fn register(registry: &Registry, socket: &mut TcpStream, token: usize) -> io::Result<()> {
    registry.register(socket, Token(token), every_interest())
}

/// The selector had let go of it.
pub(super) fn register_again(registry: &Registry, stream: &mut Stream, token: usize) -> io::Result<()> {
    match stream {
        Stream::Tcp(socket) => {
            let _ = registry.deregister(socket); // it says again that it is not there
            register(registry, socket, token)
        }
        #[cfg(unix)]
        Stream::Unix(socket) => socket.register_again(),
        Stream::Dyn(_) => Ok(()),
    }
}
