//! Streams within this machine: Unix sockets, or TCP where there are none; and one of them as a source of a dispatcher.

use mainspring::Source;
#[cfg(not(unix))]
pub(crate) use std::net::TcpStream as LocalStream;
#[cfg(unix)]
pub(crate) use std::os::unix::net::UnixStream as LocalStream;
use std::{
    io::{Read, Result},
    net::{TcpListener, TcpStream},
};

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ours = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
    let (theirs, _) = listener.accept().expect("somebody has come");
    (ours, theirs)
}

pub(crate) fn local_pair() -> (LocalStream, LocalStream) {
    #[cfg(unix)]
    return LocalStream::pair().expect("two descriptors");
    #[cfg(not(unix))]
    tcp_pair()
}

/// One end of such a pair, which does not block: what a dispatcher watches, by its descriptor where there are some.
pub(crate) struct Watched(#[cfg(unix)] LocalStream, #[cfg(not(unix))] mio::net::TcpStream);

impl Watched {
    pub(crate) fn pair() -> (Self, LocalStream) {
        let (ours, theirs) = local_pair();
        (Self::new(ours), theirs)
    }

    pub(crate) fn new(stream: LocalStream) -> Self {
        stream.set_nonblocking(true).expect("a socket option");
        #[cfg(unix)]
        return Self(stream);
        #[cfg(not(unix))]
        Self(mio::net::TcpStream::from_std(stream))
    }

    pub(crate) fn source(&mut self) -> Source<'_> {
        #[cfg(unix)]
        return Source::Fd(std::os::fd::AsFd::as_fd(&self.0));
        #[cfg(not(unix))]
        Source::Mio(&mut self.0)
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.0.read(buf)
    }
}
