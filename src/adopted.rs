//! Streams that somebody else has opened: what the program hands over, and what it gets back.

#[cfg(feature = "sim")]
use crate::parked::Parked;
use socket2::Socket;
#[cfg(unix)]
use std::os::{fd::OwnedFd, unix::net::UnixStream};
use std::{
    fmt,
    io::{Read, Write},
    net::TcpStream,
};

/// A stream that was opened outside of the loop, by the program itself, another library or its parent, for
/// [`Net::adopt`](crate::Net::adopt). It is made from a [`std::net::TcpStream`], a [`std::os::unix::net::UnixStream`], a
/// [`socket2::Socket`], or an [`OwnedFd`](std::os::fd::OwnedFd), for which the kernel is asked what it is: a socket, a pipe,
/// a FIFO, a terminal, a device, a file. What is read and written through two descriptors is a [`pair`](Self::pair). The
/// chapter is [other descriptors](crate::manual::other_descriptors).
///
/// ```no_run
/// # use mainspring::{Adopted, Protocol, Reactor};
/// # use std::process::{Command, Stdio};
/// # struct Sorting; impl<S> Protocol<S> for Sorting {}
/// # fn main() -> std::io::Result<()> {
/// # let mut reactor = Reactor::<()>::new()?;
/// let mut sort = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let (output, input) = (sort.stdout.take().expect("piped"), sort.stdin.take().expect("piped"));
/// reactor.net().adopt(Adopted::pair(output, input), Sorting)?;
/// # Ok(())
/// # }
/// ```
pub struct Adopted {
    pub(crate) what: What,
    pub(crate) unread: Vec<u8>,
}

pub(crate) enum What {
    /// Perhaps of streams.
    Socket(Socket),
    /// Whatever it is: the kernel is asked.
    #[cfg(unix)]
    Descriptor(OwnedFd),
    Ends(Ends),
    #[cfg(feature = "sim")]
    Simulated(Parked),
    /// It was handed over already.
    Nothing,
}

/// At least one of them.
pub(crate) struct Ends {
    pub(crate) reader: Option<Reader>,
    pub(crate) writer: Option<Writer>,
    /// Others have the same open file, as the shell has our standard input: nothing that was not asked for is done to it, or
    /// taken from it.
    pub(crate) is_shared: bool,
}

pub(crate) enum Reader {
    #[cfg(unix)]
    Descriptor(OwnedFd),
    /// What blocks, and is read by its own thread.
    Blocking(Box<dyn Read + Send + Sync>),
}

pub(crate) enum Writer {
    #[cfg(unix)]
    Descriptor(OwnedFd),
    Blocking(Box<dyn Write + Send + Sync>),
}

impl Adopted {
    pub(crate) fn new(what: What) -> Self {
        Self { what, unread: Vec::new() }
    }

    /// Handed over already.
    pub(crate) fn nothing() -> Self {
        Self::new(What::Nothing)
    }

    /// Makes a stream that is only read: what is sent to it is refused. When its protocol has been told the end, it is
    /// closed.
    #[cfg(unix)]
    pub fn reader(fd: impl Into<OwnedFd>) -> Self {
        Self::of_ends(Some(Reader::Descriptor(fd.into())), None, false)
    }

    /// Makes a stream that is only written to. When its reader has gone, it is closed: a pipe at once, anything else with
    /// the next write.
    #[cfg(unix)]
    pub fn writer(fd: impl Into<OwnedFd>) -> Self {
        Self::of_ends(None, Some(Writer::Descriptor(fd.into())), false)
    }

    /// Makes a stream that is read through one descriptor and written through another, such as a child's output and input.
    /// If it is [half-closed](crate::Link::half_close), its writer is closed. If the writer breaks, because its reader has
    /// gone, what is sent is refused, and the other direction is read to its end.
    #[cfg(unix)]
    pub fn pair(reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Self {
        Self::of_ends(Some(Reader::Descriptor(reader.into())), Some(Writer::Descriptor(writer.into())), false)
    }

    /// Adds what was already read of it, which is delivered first.
    pub fn unread(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.unread = bytes.into();
        self
    }

    pub(crate) fn of_ends(reader: Option<Reader>, writer: Option<Writer>, is_shared: bool) -> Self {
        Self::new(What::Ends(Ends { reader, writer, is_shared }))
    }

    /// The socket itself, if it is a socket.
    ///
    /// # Errors
    /// Gives it back if it is not.
    pub fn into_socket(self) -> Result<Socket, Self> {
        match self.what {
            What::Socket(socket) => Ok(socket),
            what => Err(Self { what, ..self }),
        }
    }

    /// What it is read through, and what it is written through. A single descriptor that is both comes as the first.
    #[cfg(unix)]
    pub fn into_fds(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        match self.what {
            What::Socket(socket) => (Some(socket.into()), None),
            What::Descriptor(fd) => (Some(fd), None),
            What::Ends(Ends { reader, writer, .. }) => {
                let reader = reader.and_then(|reader| match reader {
                    Reader::Descriptor(fd) => Some(fd),
                    Reader::Blocking(_) => None,
                });
                let writer = writer.and_then(|writer| match writer {
                    Writer::Descriptor(fd) => Some(fd),
                    Writer::Blocking(_) => None,
                });
                (reader, writer)
            }
            #[cfg(feature = "sim")]
            What::Simulated(_) => (None, None),
            What::Nothing => (None, None),
        }
    }
}

impl From<TcpStream> for Adopted {
    fn from(socket: TcpStream) -> Self {
        Self::new(What::Socket(socket.into()))
    }
}

#[cfg(unix)]
impl From<UnixStream> for Adopted {
    fn from(socket: UnixStream) -> Self {
        Self::new(What::Socket(OwnedFd::from(socket).into()))
    }
}

impl From<Socket> for Adopted {
    fn from(socket: Socket) -> Self {
        Self::new(What::Socket(socket))
    }
}

#[cfg(unix)]
impl From<OwnedFd> for Adopted {
    fn from(fd: OwnedFd) -> Self {
        Self::new(What::Descriptor(fd))
    }
}

/// A socket that already listens, opened by the program itself or by the process that started it, for
/// [`Net::listen_on`](crate::Net::listen_on). Made from a [`std::net::TcpListener`], a [`std::os::unix::net::UnixListener`],
/// a [`socket2::Socket`], or an [`OwnedFd`](std::os::fd::OwnedFd). The chapter is [restarting](crate::manual::restarting).
#[derive(Debug)]
pub struct AdoptedListener(pub(crate) Socket);

impl From<std::net::TcpListener> for AdoptedListener {
    fn from(socket: std::net::TcpListener) -> Self {
        Self(socket.into())
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixListener> for AdoptedListener {
    fn from(socket: std::os::unix::net::UnixListener) -> Self {
        Self(OwnedFd::from(socket).into())
    }
}

impl From<Socket> for AdoptedListener {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

#[cfg(unix)]
impl From<OwnedFd> for AdoptedListener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Socket(socket) => socket.fmt(f),
            #[cfg(unix)]
            What::Descriptor(fd) => fd.fmt(f),
            What::Ends(Ends { reader, writer, .. }) => {
                f.debug_struct("Ends").field("reader", reader).field("writer", writer).finish()
            }
            #[cfg(feature = "sim")]
            What::Simulated(_) => f.write_str("Simulated"),
            What::Nothing => f.write_str("Nothing"),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(unix)]
            Self::Descriptor(fd) => fd.fmt(f),
            Self::Blocking(_) => f.write_str("Blocking"),
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(unix)]
            Self::Descriptor(fd) => fd.fmt(f),
            Self::Blocking(_) => f.write_str("Blocking"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{Detached, Reason};

    fn may_go_anywhere<T: Send + Sync>() {}

    #[test]
    fn what_is_given_back_may_be_sent_to_another_thread() {
        may_go_anywhere::<Adopted>();
        may_go_anywhere::<Detached>();
        may_go_anywhere::<Reason>();
    }
}
