//! The byte pipe below a connection: a TCP or a Unix socket, or something behind [`Transport`]. It is non-blocking,
//! registered once, and the only code that knows what a short read means.

use super::IS_WINSOCK;
#[cfg(unix)]
use super::unix_stream::UnixStream;
#[cfg(feature = "tls")]
use crate::secured::Tls;
use crate::{address::Address, adopted::Adopted, output::FileRange};
use mio::net::TcpStream;
use socket2::SockRef;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::num::NonZeroUsize;
use std::{
    io::{self, ErrorKind, IoSlice, Read},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

/// Writing to a peer that has gone is an error to us, never a signal: a C program that embeds us does not ignore SIGPIPE.
#[cfg(unix)]
pub(super) const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(unix))]
const NO_SIGNAL: i32 = 0;

/// Winsock is given at most this much at once. As long as it has any room it takes everything that it is given, and what it
/// has taken no longer counts for our marks, caps and time-outs. A little less than its send buffer (64 KiB), or it would
/// take nothing more before all of it is acknowledged (Microsoft's article 823764).
pub(crate) const SEND_MAX: usize = 60 << 10;

/// The kernel is asked to send this much at once.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SENDFILE_MAX: usize = 1 << 20;

/// Whether the selector reports a new edge after a read or write that moved less than it could have. epoll and kqueue do for
/// TCP; poll(2) and Windows are armed again only by `WouldBlock`, which mio's `try_io` must see.
pub(crate) const EDGES_FOLLOW: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd"
)) && !cfg!(mio_unsupported_force_poll_poll);

/// How much was moved, and whether there is nothing more to move until the next event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: usize,
    pub(crate) drained: bool,
}

/// A stream of bytes each way. `WouldBlock` is an error as for any non-blocking socket. Dropping it closes it and ends its
/// registration.
pub(crate) trait Transport {
    /// 0 bytes: the peer has ended.
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved>;
    /// Sends at most `send_max` of them.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Moved>;
    /// Of no more than `send_max` in all.
    fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved>;
    /// Whether connecting is done.
    fn connected(&mut self) -> io::Result<bool>;
    /// What failed without being asked for.
    fn take_error(&mut self) -> Option<io::Error>;
    /// What its next read would fail with, where a reset does not show in SO_ERROR.
    fn hidden_reset(&mut self) -> Option<io::Error> {
        None
    }
    /// How much is sent at once.
    fn send_max(&self) -> usize {
        usize::MAX
    }
    fn shutdown_write(&mut self) -> io::Result<()>;
    /// The drop that follows resets the connection.
    fn abort(&mut self);
    fn local(&self) -> Option<Address>;
    fn socket(&self) -> Option<SockRef<'_>>;
    /// Whether it stays after a polite end until its peer has received everything.
    fn lingers(&self) -> bool {
        true
    }
    /// Whether a write that fails says nothing of what can still be read.
    fn writes_apart(&self) -> bool {
        false
    }
    fn ways(&self) -> Ways {
        Ways::Both
    }
    /// Closing it says nothing to the peer: its end has to be said before, in words.
    fn ends_in_words(&self) -> bool {
        false
    }
    /// Only a part has come of something that is read as a whole, or some of it is here.
    fn is_amid_input(&self) -> bool {
        false
    }
    /// What still comes is only read to be dropped.
    fn stop_reading(&mut self) {}
    /// The stream that it is built on.
    fn inner(&mut self) -> Option<&mut Stream> {
        None
    }
    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<Tls<'_>> {
        None
    }
    /// Bytes that have come for what is built on another stream, whether or not they bring anything for the program.
    fn heard(&self) -> u64 {
        0
    }
    /// Whether it can be given back.
    fn detaches(&self) -> bool {
        false
    }
    /// The selector does not know it any more; or the world has to see to that, for the stream that it is built on.
    fn detach(self: Box<Self>) -> Result<Adopted, Stream>;
}

/// In which directions a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Both,
    /// It is only read.
    In,
    /// It is only written to.
    Out,
}

impl Ways {
    /// `None`: it has ended both ways.
    pub(crate) fn of(reads: bool, writes: bool) -> Option<Self> {
        match (reads, writes) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::In),
            (false, true) => Some(Self::Out),
            (false, false) => None,
        }
    }
}

/// For when it was given back after our side of it had ended, and was the only one.
pub(super) fn nothing_left() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "nothing is left of it: it was only written to, and our side has ended")
}

/// The kinds that nearly all connections have need neither a box nor a table of functions.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(Box<UnixStream>),
    /// A box of a box, because every connection has room for this.
    Dyn(Box<Box<dyn Transport>>),
}

impl Stream {
    #[inline]
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        match self {
            Self::Tcp(socket) => {
                let bytes = socket.read(buf)?;
                Ok(Moved { bytes, drained: EDGES_FOLLOW && bytes < buf.len() })
            }
            // A read that ends early may have met passed descriptors, not the end of what there is.
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Moved { bytes: socket.recv(buf)?, drained: false }),
            Self::Dyn(other) => other.recv(buf),
        }
    }

    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        match self {
            Self::Tcp(socket) => {
                let bytes = if IS_WINSOCK { first(bytes, SEND_MAX) } else { bytes };
                let moved = socket.try_io(|| SockRef::from(&*socket).send_with_flags(bytes, NO_SIGNAL))?;
                Ok(Moved { bytes: moved, drained: EDGES_FOLLOW && moved < bytes.len() })
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Moved { bytes: socket.send(bytes)?, drained: false }),
            Self::Dyn(other) => other.send(bytes),
        }
    }

    /// How much is sent at once. `send` takes care of it by itself; a caller of `send_vectored` has to.
    pub(crate) fn send_max(&self) -> usize {
        match self {
            Self::Dyn(other) => other.send_max(),
            Self::Tcp(_) if IS_WINSOCK => SEND_MAX,
            _ => usize::MAX,
        }
    }

    pub(crate) fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> {
        match self {
            Self::Tcp(socket) => {
                let moved = socket.try_io(|| SockRef::from(&*socket).send_vectored_with_flags(bytes, NO_SIGNAL))?;
                let all: usize = bytes.iter().map(|slice| slice.len()).sum();
                Ok(Moved { bytes: moved, drained: EDGES_FOLLOW && moved < all })
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Moved { bytes: socket.send_vectored(bytes)?, drained: false }),
            Self::Dyn(other) => other.send_vectored(bytes),
        }
    }

    /// mio's own check (`TcpStream::connect`): an error that waits, then whether there is a peer; and whether that is
    /// somebody else.
    pub(crate) fn connected(&mut self) -> io::Result<bool> {
        let is_connected = self.has_connected()?;
        match self.hidden_reset() {
            Some(error) => Err(error),
            None => Ok(is_connected),
        }
    }

    fn has_connected(&mut self) -> io::Result<bool> {
        let has_peer = match self {
            Self::Tcp(socket) => match socket.take_error()? {
                Some(error) => return Err(error),
                None => socket.peer_addr().and_then(|peer| refuse_oneself(socket, peer)),
            },
            #[cfg(unix)]
            Self::Unix(unix) => match unix.socket.take_error()? {
                Some(error) => return Err(error),
                None => unix.socket.peer_addr().map(|_| ()),
            },
            Self::Dyn(other) => return other.connected(),
        };
        match has_peer {
            Ok(()) => Ok(true),
            Err(error) if is_still_connecting(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        let error = match self {
            Self::Tcp(socket) => socket.take_error().unwrap_or_else(Some),
            #[cfg(unix)]
            Self::Unix(unix) => unix.socket.take_error().unwrap_or_else(Some),
            Self::Dyn(other) => other.take_error(),
        };
        error.or_else(|| self.hidden_reset())
    }

    fn hidden_reset(&mut self) -> Option<io::Error> {
        match self {
            Self::Tcp(socket) if IS_WINSOCK => {
                let is_none = |error: &io::Error| error.kind() == ErrorKind::WouldBlock || is_still_connecting(error);
                socket.peek(&mut [0]).err().filter(|error| !is_none(error))
            }
            Self::Dyn(other) => other.hidden_reset(),
            _ => None,
        }
    }

    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(unix) => unix.socket.shutdown(Shutdown::Write),
            Self::Dyn(other) => other.shutdown_write(),
        }
    }

    pub(crate) fn abort(&mut self) {
        match self {
            // It fails only for a socket that is gone already.
            Self::Tcp(socket) => _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO)),
            // The kernel resets a Unix socket by itself if something in it was not read.
            #[cfg(unix)]
            Self::Unix(_) => {}
            Self::Dyn(other) => other.abort(),
        }
    }

    pub(crate) fn local(&self) -> Option<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok().map(Address::Ip),
            #[cfg(unix)]
            Self::Unix(unix) => SockRef::from(&unix.socket).local_addr().ok().map(|addr| Address::of_socket(&addr)),
            Self::Dyn(other) => other.local(),
        }
    }

    pub(crate) fn socket(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Tcp(socket) => Some(SockRef::from(socket)),
            #[cfg(unix)]
            Self::Unix(unix) => Some(SockRef::from(&unix.socket)),
            Self::Dyn(other) => other.socket(),
        }
    }

    /// A part of a file, by the kernel, no more than `most` at once; 0: it has no more. `None`: this kernel does not do it,
    /// or not to this stream, or not for this file.
    pub(crate) fn send_file(&mut self, file: &FileRange, most: usize) -> Option<io::Result<Moved>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let (file, offset, length) = file.next(most.min(SENDFILE_MAX));
            let (offset, length) = (usize::try_from(offset).ok()?, NonZeroUsize::new(length)?);
            let sent = match self {
                Self::Tcp(socket) => socket.try_io(|| SockRef::from(&*socket).sendfile(file, offset, Some(length))),
                Self::Unix(socket) => socket.send_file(file, offset, length),
                Self::Dyn(_) => return None,
            };
            match sent {
                Err(error) if is_no_file_for_the_kernel(&error) => None,
                sent => Some(sent.map(|bytes| Moved { bytes, drained: false })),
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = (file, most);
            None
        }
    }

    pub(crate) fn lingers(&self) -> bool {
        match self {
            Self::Dyn(other) => other.lingers(),
            _ => true,
        }
    }

    pub(crate) fn writes_apart(&self) -> bool {
        match self {
            Self::Dyn(other) => other.writes_apart(),
            _ => false,
        }
    }

    pub(crate) fn ways(&self) -> Ways {
        match self {
            Self::Dyn(other) => other.ways(),
            _ => Ways::Both,
        }
    }

    pub(crate) fn ends_in_words(&self) -> bool {
        match self {
            Self::Dyn(other) => other.ends_in_words(),
            _ => false,
        }
    }

    pub(crate) fn is_amid_input(&self) -> bool {
        match self {
            Self::Dyn(other) => other.is_amid_input(),
            _ => false,
        }
    }

    pub(crate) fn stop_reading(&mut self) {
        if let Self::Dyn(other) = self {
            other.stop_reading();
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<Tls<'_>> {
        match self {
            Self::Dyn(other) => other.tls(),
            _ => None,
        }
    }

    pub(crate) fn heard(&self) -> u64 {
        match self {
            Self::Dyn(other) => other.heard(),
            _ => 0,
        }
    }

    pub(crate) fn detaches(&self) -> bool {
        match self {
            Self::Dyn(other) => other.detaches(),
            _ => true,
        }
    }
}

pub(super) fn first(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

/// What sendfile(2) says about the file, its kind or its disk. A read says it again, or goes on; if it was about the socket
/// after all, the next write says so.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_no_file_for_the_kernel(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::ENOSYS
                | libc::EOPNOTSUPP
                | libc::ESPIPE
                | libc::EOVERFLOW
                | libc::EISDIR
                | libc::EBADF
                | libc::EACCES
                | libc::EPERM
                | libc::EIO
                | libc::ESTALE
                | libc::EUCLEAN
                | libc::EBADMSG
        )
    )
}

/// Nobody reads what is written.
pub(crate) fn broken_pipe() -> io::Error {
    #[cfg(unix)]
    return io::Error::from_raw_os_error(libc::EPIPE);
    #[cfg(not(unix))]
    return ErrorKind::BrokenPipe.into();
}

/// Nobody listens there, and the system chose that very port to come from: TCP has connected the socket to itself (RFC 9293,
/// 3.5, simultaneous open), and as long as it lives the server cannot listen.
fn refuse_oneself(socket: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    if socket.local_addr()? != peer {
        return Ok(());
    }
    SockRef::from(socket).set_linger(Some(Duration::ZERO))?; // nothing of it stays in TIME_WAIT
    #[cfg(unix)]
    return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    #[cfg(not(unix))]
    return Err(ErrorKind::ConnectionRefused.into());
}

fn is_still_connecting(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == ErrorKind::NotConnected
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(socket) => socket.fmt(f),
            #[cfg(unix)]
            Self::Unix(unix) => unix.socket.fmt(f),
            Self::Dyn(_) => f.write_str("Dyn"),
        }
    }
}
