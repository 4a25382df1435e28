//! Telling what kind of descriptor somebody else has opened, and making it ready for the loop.

use super::{refused, sources::has_no_readiness};
use socket2::{SockAddr, SockRef, Type};
use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
};

#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) is_socket: bool,
    /// Or a FIFO.
    pub(super) is_pipe: bool,
    pub(super) is_terminal: bool,
    /// The selector can wait for it.
    pub(super) has_readiness: bool,
    is_directory: bool,
    /// The side of a pseudo-terminal that belongs to one program (pts(4)).
    is_master: bool,
}

impl Kind {
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?).metadata()?;
        let kind = file.file_type();
        Ok(Self {
            is_socket: kind.is_socket(),
            is_pipe: kind.is_fifo(),
            is_terminal: fd.is_terminal(),
            has_readiness: !has_no_readiness(&file),
            is_directory: kind.is_dir(),
            is_master: cfg!(target_os = "linux") && kind.is_char_device() && file.rdev() == 0x502,
        })
    }

    /// Makes it ready for the loop.
    ///
    /// # Errors
    /// For what is not a stream.
    pub(super) fn prepare(fd: BorrowedFd<'_>, is_shared: bool) -> io::Result<Self> {
        let kind = Self::of(fd)?;
        if kind.is_directory {
            return Err(refused("a directory is not a stream"));
        }
        let socket = SockRef::from(&fd); // of any descriptor: fcntl(2)
        if kind.is_socket {
            peer_of(&socket)?;
        }
        socket.set_cloexec(true)?;
        if kind.has_readiness && !is_shared && !socket.nonblocking()? {
            if kind.is_terminal && !kind.is_master {
                return Err(refused(
                    "a terminal that blocks could stop the loop, and the shell shares it: open it anew with O_NONBLOCK, as /dev/tty, \
                     or take Adopted::stdin",
                ));
            }
            socket.set_nonblocking(true)?;
        }
        Ok(kind)
    }
}

/// What one descriptor is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Reading,
    Writing,
}

impl Use {
    /// Makes it ready for the loop, as [`Kind::prepare`] does.
    ///
    /// # Errors
    /// Also if it cannot be used for that.
    pub(super) fn prepare(self, fd: OwnedFd, is_shared: bool) -> io::Result<(OwnedFd, Kind)> {
        let kind = Kind::prepare(fd.as_fd(), is_shared)?;
        let (fd, is_open) = self.is_open(fd, kind)?;
        if is_open {
            return Ok((fd, kind));
        }
        Err(refused(match self {
            Self::Reading => "the descriptor is not open for reading (EBADF)",
            Self::Writing => "the descriptor is not open for writing (EBADF)",
        }))
    }

    /// To read or write nothing tells whether it is open, and moves nothing; but inotify(7) waits even then, if it may.
    /// Every socket is open for both.
    pub(super) fn is_open(self, fd: OwnedFd, kind: Kind) -> io::Result<(OwnedFd, bool)> {
        let mut file = File::from(fd);
        let tried = match self {
            _ if kind.is_socket => Ok(0),
            Self::Reading => file.read(&mut []),
            Self::Writing => file.write(&[]),
        };
        let is_open = match tried {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => false,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(refused("what gives no bytes is not a stream (EINVAL)"));
            }
            _ => true, // /dev/full has no room for nothing either: the first write says so
        };
        Ok((file.into(), is_open))
    }
}

/// The peer that a stream socket is connected to.
pub(super) fn peer_of(socket: &SockRef<'_>) -> io::Result<SockAddr> {
    if socket.r#type()? != Type::STREAM {
        return Err(refused("a socket that carries packets is not a stream: `Net::bind_on` takes it"));
    }
    socket.peer_addr().map_err(|error| match error.kind() {
        ErrorKind::NotConnected => io::Error::new(
            ErrorKind::NotConnected,
            "a socket that is not connected, or not any more, or that listens, is not a stream",
        ),
        _ => error,
    })
}
