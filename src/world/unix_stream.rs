//! A connected Unix socket. Its room is asked for only while a write waits for it: the kernel reports it whenever the peer
//! has read (for TCP only to a socket that met a full buffer), and each message would wake the loop twice.

use super::{
    registered::{Registration, and_room},
    transport::NO_SIGNAL,
};
use mio::{Interest, Registry, net::UnixStream as Socket};
use socket2::SockRef;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::{fs::File, num::NonZeroUsize};
use std::{
    io::{self, IoSlice, Read},
    rc::Rc,
};

pub(crate) struct UnixStream {
    pub(super) socket: Socket,
    registration: Registration,
}

/// While it does not wait for room.
fn reads() -> Option<Interest> {
    let reads = Interest::READABLE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let reads = reads | Interest::PRIORITY;
    Some(reads)
}

impl UnixStream {
    /// Makes it, registered. A socket that is connecting waits for room.
    pub(super) fn new(mut socket: Socket, registry: Rc<Registry>, token: usize, is_connecting: bool) -> io::Result<Self> {
        let mut registration = Registration::new(registry, token);
        registration.want(&mut socket, if is_connecting { and_room(reads()) } else { reads() })?;
        Ok(Self { socket, registration })
    }

    /// The selector had dropped it.
    pub(super) fn register_again(&mut self) -> io::Result<()> {
        self.registration.register_again(&mut self.socket)
    }

    /// Not registered any more.
    pub(super) fn into_socket(mut self) -> Socket {
        let _ = self.registration.want(&mut self.socket, None);
        self.socket
    }

    pub(super) fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.socket.try_io(|| SockRef::from(&self.socket).send_with_flags(bytes, NO_SIGNAL));
        self.sent(sent, bytes.len())
    }

    pub(super) fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = self.socket.try_io(|| SockRef::from(&self.socket).send_vectored_with_flags(bytes, NO_SIGNAL));
        self.sent(sent, bytes.iter().map(|slice| slice.len()).sum())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn send_file(&mut self, file: &File, offset: usize, length: NonZeroUsize) -> io::Result<usize> {
        let sent = self.socket.try_io(|| SockRef::from(&self.socket).sendfile(file, offset, Some(length)));
        self.sent(sent, length.get())
    }

    fn sent(&mut self, sent: io::Result<usize>, of: usize) -> io::Result<usize> {
        self.registration.wrote(&mut self.socket, reads(), sent, of)
    }
}
