//! What a descriptor is that somebody else has opened, and making it ready for the loop.

use super::sources::has_no_readiness;
use socket2::{SockRef, Type};
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
    /// The side of a pseudo-terminal that a program has for itself (pts(4)).
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
}

/// What one descriptor is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Reading,
    Writing,
}

impl Use {
    /// Makes it ready for the loop.
    ///
    /// # Errors
    /// For what it cannot be used for.
    pub(super) fn prepare(self, fd: OwnedFd, is_shared: bool) -> io::Result<(OwnedFd, Kind)> {
        let kind = Kind::of(fd.as_fd())?;
        if kind.is_directory {
            return Err(refused("a directory is no stream"));
        }
        if kind.is_socket && SockRef::from(&fd).r#type()? != Type::STREAM {
            return Err(carries_packets());
        }
        let socket = SockRef::from(&fd); // of any descriptor: fcntl(2)
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
        let (fd, is_open) = self.is_open(fd)?;
        if is_open {
            return Ok((fd, kind));
        }
        Err(refused(match self {
            Self::Reading => "the descriptor is not open for reading (EBADF)",
            Self::Writing => "the descriptor is not open for writing (EBADF)",
        }))
    }

    /// Reading or writing nothing tells, and moves nothing. Every socket is open for both.
    pub(super) fn is_open(self, fd: OwnedFd) -> io::Result<(OwnedFd, bool)> {
        let mut file = File::from(fd);
        let tried = match self {
            _ if file.metadata()?.file_type().is_socket() => Ok(0),
            Self::Reading => file.read(&mut []),
            Self::Writing => file.write(&[]),
        };
        let is_open = match tried {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => false,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => true,
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => true, // it is refused as what it is
            Err(error) if error.kind() == ErrorKind::StorageFull => true,     // full(4) says so of nothing, too: a write tells it
            Err(error) => return Err(refused(&format!("the descriptor is no stream: {error}"))),
        };
        Ok((file.into(), is_open))
    }
}

pub(super) fn carries_packets() -> io::Error {
    refused("a socket that carries packets is no stream: `Net::bind_on` takes it")
}

fn refused(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}
