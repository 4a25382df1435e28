//! Standard input and output: others have them too, so nothing of them may be changed.

use crate::adopted::{Adopted, Reader, Writer};
use std::io;

/// # Standard input and output
///
/// These are shared with the shell and with whatever comes after us, so nothing of them is changed: no `O_NONBLOCK`, no
/// terminal setting; and they do not [linger](crate::manual::closing). A pipe, a FIFO and a terminal are opened anew through
/// /proc (Linux). A regular file is duplicated, so that everybody still shares its offset, and is read and written on the
/// loop. Everything else, and everything where there is no /proc, is read or written by its own thread, which takes no more
/// from it than one buffer of 64 KiB before that is consumed; a byte counts as written when the kernel has it. Such a thread
/// ends with the process, or with its next read or write. There is more in [the
/// chapter](crate::manual::other_descriptors#standard-input-and-output).
impl Adopted {
    /// Standard input, for reading.
    ///
    /// # Errors
    /// If it is not open for reading.
    pub fn stdin() -> io::Result<Self> {
        Ok(Self::of_ends(Some(standard_input()?), None, true))
    }

    /// Standard output, for writing. It does not go through the buffer of [`std::io::stdout`]: if you use both, flush that
    /// first.
    ///
    /// # Errors
    /// If it is not open for writing.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::of_ends(None, Some(standard_output()?), true))
    }

    /// Standard input and output as one stream.
    ///
    /// # Errors
    /// The same as for [`stdin`](Self::stdin) and [`stdout`](Self::stdout).
    pub fn stdio() -> io::Result<Self> {
        Ok(Self::of_ends(Some(standard_input()?), Some(standard_output()?), true))
    }
}

#[cfg(not(unix))]
fn standard_input() -> io::Result<Reader> {
    Ok(Reader::Blocking(Box::new(io::stdin())))
}

#[cfg(not(unix))]
fn standard_output() -> io::Result<Writer> {
    Ok(Writer::Blocking(Box::new(io::stdout())))
}

#[cfg(unix)]
use unix::{standard_input, standard_output};

#[cfg(unix)]
mod unix {
    use super::{
        super::{
            descriptor::{Kind, Use},
            refused,
        },
        Reader, Writer,
    };
    use socket2::SockRef;
    use std::{
        fs::{File, OpenOptions},
        io,
        os::{
            fd::{AsFd, AsRawFd, OwnedFd},
            unix::fs::OpenOptionsExt,
        },
    };

    pub(super) fn standard_input() -> io::Result<Reader> {
        let not_open = "standard input is not open for reading (EBADF)";
        Ok(match on_the_loop(Use::Reading, io::stdin().as_fd().try_clone_to_owned()?, not_open)? {
            Ok(fd) => Reader::Descriptor(fd),
            Err(blocking) => Reader::Blocking(Box::new(blocking)),
        })
    }

    pub(super) fn standard_output() -> io::Result<Writer> {
        let not_open = "standard output is not open for writing (EBADF)";
        Ok(match on_the_loop(Use::Writing, io::stdout().as_fd().try_clone_to_owned()?, not_open)? {
            Ok(fd) => Writer::Descriptor(fd),
            Err(blocking) => Writer::Blocking(Box::new(blocking)),
        })
    }

    /// A descriptor that does not block, without a change to the open file that others have; or what blocks.
    fn on_the_loop(what_for: Use, fd: OwnedFd, not_open: &str) -> io::Result<Result<OwnedFd, File>> {
        let kind = Kind::of(fd.as_fd())?;
        let (fd, is_open) = what_for.is_open(fd, kind)?;
        if !is_open {
            return Err(refused(not_open));
        }
        // A file that is opened anew would start at its beginning, and what is there would be overwritten.
        if !kind.has_readiness || SockRef::from(&fd).nonblocking()? {
            return Ok(Ok(fd));
        }
        if cfg!(target_os = "linux") && (kind.is_pipe || kind.is_terminal) {
            if let Ok(anew) = open_anew(what_for, &fd) {
                return Ok(Ok(anew));
            }
        }
        Ok(Err(fd.into()))
    }

    /// The same pipe or terminal, with its own flags (proc(5)). What belongs to another user cannot be opened.
    fn open_anew(what_for: Use, fd: &OwnedFd) -> io::Result<OwnedFd> {
        let (reads, writes) = (what_for == Use::Reading, what_for == Use::Writing);
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file =
            OpenOptions::new().read(reads).write(writes).custom_flags(flags).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        Ok(file.into())
    }
}
