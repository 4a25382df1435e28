//! A connected Unix socket. Its room is asked for only while a write waits for it: the kernel reports it whenever the peer
//! has read (for TCP only to who met a full buffer), and each message would wake the loop twice.

use super::transport::NO_SIGNAL;
use mio::{Interest, Registry, Token, event::Source as _, net::UnixStream as Socket};
use socket2::SockRef;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::{fs::File, num::NonZeroUsize};
use std::{
    io::{self, ErrorKind, IoSlice, Read},
    rc::Rc,
};

pub(crate) struct UnixStream {
    pub(super) socket: Socket,
    registry: Rc<Registry>,
    token: Token,
    /// A write met `WouldBlock`, or it is connecting: WRITABLE is among the interests.
    waits_for_room: bool,
}

impl UnixStream {
    /// Registered. `waits_for_room`: it is connecting.
    pub(super) fn new(socket: Socket, registry: Rc<Registry>, token: usize, waits_for_room: bool) -> io::Result<Self> {
        let mut stream = Self { socket, registry, token: Token(token), waits_for_room };
        stream.register()?;
        Ok(stream)
    }

    fn register(&mut self) -> io::Result<()> {
        let interests = self.interests();
        self.socket.register(&self.registry, self.token, interests)
    }

    /// The selector had let go of it.
    pub(super) fn register_again(&mut self) -> io::Result<()> {
        let _ = self.socket.deregister(&self.registry); // it says again that it is not there
        self.register()
    }

    fn interests(&self) -> Interest {
        let reads = Interest::READABLE;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let reads = reads | Interest::PRIORITY;
        if self.waits_for_room { reads | Interest::WRITABLE } else { reads }
    }

    /// Room that is there already is reported, too.
    fn wait_for_room(&mut self, on: bool) -> io::Result<()> {
        self.waits_for_room = on;
        let interests = self.interests();
        self.socket.reregister(&self.registry, self.token, interests)
    }

    /// Not registered any more.
    pub(super) fn into_socket(mut self) -> Socket {
        let _ = self.socket.deregister(&self.registry); // poll(2) may have let go of it
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
        match &sent {
            Ok(bytes) if self.waits_for_room && *bytes == of => _ = self.wait_for_room(false), // or it is woken in vain
            Err(error) if !self.waits_for_room && error.kind() == ErrorKind::WouldBlock => self.wait_for_room(true)?,
            _ => {}
        }
        sent
    }
}
