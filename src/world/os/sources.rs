//! What the selector waits for: how it is registered, and what one of its events says. No socket is opened here, and none is
//! read.

#[cfg(unix)]
use super::super::ARMS_BY_ITSELF;
use super::super::{IS_WINSOCK, Source, Stands, Stream, readiness::Ended};
use crate::flags::*;
use mio::{Events, Interest, Poll, Registry, Token, event::Source as AnySource, net::TcpStream};
use std::{io, time::Duration};

/// For both directions, and for nothing else: TCP's urgent data would stop a reader that is not told of it.
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
        let (read_closed, write_closed, error) = (event.is_read_closed(), event.is_write_closed(), event.is_error());
        ready.insert(Ended { read_closed, write_closed, error }.flags(IS_WINSOCK));
        ready.insert_if(READ_UNTIL_BLOCKED | PRIORITY, event.is_priority());
    }
    ready
}

/// For these of `READABLE`, `WRITABLE`, `PRIORITY`; `None` if there are none.
pub(super) fn interests(what: Flags) -> Option<Interest> {
    let one = |flag, interest| what.has_any(flag).then_some(interest);
    let both = [one(READABLE, Interest::READABLE), one(WRITABLE, Interest::WRITABLE)];
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let urgent = one(PRIORITY, Interest::PRIORITY);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let urgent = None;
    both.into_iter().chain([urgent]).flatten().reduce(Interest::add)
}

/// What epoll refuses because it is always ready, and poll(2) reports for ever.
pub(super) fn is_always_ready(source: &Source<'_>) -> bool {
    #[cfg(unix)]
    if let (false, Source::Fd(fd)) = (ARMS_BY_ITSELF, source) {
        let file = fd.try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
        return file.is_ok_and(|file| has_no_readiness(&file));
    }
    let _ = source;
    false
}

#[cfg(unix)]
pub(super) fn has_no_readiness(file: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = file.file_type();
    // null(4): /dev/null, /dev/zero and /dev/full of Linux
    let is_null = cfg!(target_os = "linux") && kind.is_char_device() && matches!(file.rdev(), 0x103 | 0x105 | 0x107);
    kind.is_file() || kind.is_dir() || kind.is_block_device() || is_null
}

/// The loop would wait in its read, and everything else with it. A terminal is left as it is: the shell has the same open
/// file, and would find it non-blocking.
pub(super) fn make_non_blocking(source: &Source<'_>) -> io::Result<()> {
    #[cfg(unix)]
    if let Source::Fd(fd) = source {
        use std::io::IsTerminal;
        let socket = socket2::SockRef::from(fd); // works on any descriptor: fcntl(2)
        match socket.nonblocking()? {
            true => {}
            false if fd.is_terminal() => {
                let text = "a terminal that blocks could stop the loop: open it anew with O_NONBLOCK, as /dev/tty; the shell shares \
                            this one";
                return Err(super::refused(text));
            }
            false => socket.set_nonblocking(true)?,
        }
    }
    let _ = source;
    Ok(())
}

/// How ready a source is.
pub(super) fn stands(source: Source<'_>, what: Flags) -> io::Result<Stands> {
    let Some(interests) = interests(what) else { return Ok(Stands::No) };
    match with_source(source, |source| look(source, interests)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Stands::ArmsItself),
        looked => looked.map(|events| if events.is_empty() { Stands::No } else { Stands::Yes }),
    }
}

/// What is so of a source now, independently of the selector that waits. Each time with a new one: mio's poll(2) drops what
/// has an error, and may then miss it in the next look.
pub(super) fn look(source: &mut (impl AnySource + ?Sized), interests: Interest) -> io::Result<Events> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1));
    poll.registry().register(source, Token(0), interests)?;
    let polled = poll.poll(&mut events, Some(Duration::ZERO));
    let _ = poll.registry().deregister(source);
    polled.map(|()| events)
}

pub(super) fn with_source<T>(source: Source<'_>, run: impl FnOnce(&mut dyn AnySource) -> T) -> T {
    match source {
        Source::Mio(source) => run(&mut Borrowed(source)),
        #[cfg(unix)]
        Source::Fd(fd) => {
            use std::os::fd::AsRawFd;
            run(&mut Borrowed(&mut mio::unix::SourceFd(&fd.as_raw_fd())))
        }
        Source::Nothing => panic!("a dispatcher has changed its source: that is to be always the same one"),
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

/// The selector had dropped it.
pub(super) fn register_again(registry: &Registry, stream: &mut Stream, token: usize) -> io::Result<()> {
    match stream {
        Stream::Tcp(socket) => {
            let _ = registry.deregister(socket); // it fails again: nothing is registered
            register(registry, socket, token)
        }
        #[cfg(unix)]
        Stream::Unix(socket) => socket.register_again(),
        Stream::Dyn(other) => match other.inner() {
            Some(inner) => register_again(registry, inner, token),
            None => Ok(()),
        },
    }
}
