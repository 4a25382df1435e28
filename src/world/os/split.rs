//! A stream whose directions are separate: each is read or written through its own descriptor, or by a thread, or there is
//! only one of them.

use super::{
    super::transport::{Moved, Stream, Transport, Ways, broken_pipe, nothing_left},
    OsWorld,
    blocking::{ReadThread, WriteThread},
};
#[cfg(unix)]
use super::{
    super::{registered::Registration, transport::NO_SIGNAL},
    descriptor::{Kind, Use},
    sources::look,
};
use crate::{
    address::Address,
    adopted::{Adopted, Ends, Reader, What, Writer},
};
#[cfg(unix)]
use mio::{
    Interest,
    event::Source,
    unix::{
        SourceFd,
        pipe::{Receiver, Sender},
    },
};
use socket2::SockRef;
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

pub(super) struct SplitStream {
    /// `None`: it is only written to.
    reader: Option<ReadHalf>,
    /// `None`: it is only read, or our side has ended.
    writer: Option<WriteHalf>,
    ways: Ways,
    /// Others have the same open files.
    is_shared: bool,
}

enum ReadHalf {
    #[cfg(unix)]
    Descriptor(End<Receiver>),
    Blocking(ReadThread),
}

enum WriteHalf {
    #[cfg(unix)]
    Descriptor(End<Sender>),
    Blocking(WriteThread),
}

impl SplitStream {
    /// Makes it, registered; and returns whether it has to be read before the selector has said so: because the selector
    /// cannot wait for it, or because it is a FIFO that was opened anew. Of such a FIFO the selector does not say that the
    /// last writer had gone before (pipe(7)).
    pub(super) fn new(ends: Ends, world: &OsWorld, token: usize) -> io::Result<(Self, bool)> {
        let Ends { reader, writer, is_shared } = ends;
        let Some(ways) = Ways::of(reader.is_some(), writer.is_some()) else { return Err(nothing_left()) };
        let mut this = Self { reader: None, writer: None, ways, is_shared };
        this.writer = match writer {
            #[cfg(unix)]
            Some(Writer::Descriptor(fd)) => Some(WriteHalf::Descriptor(End::writing(fd, is_shared, world.registration(token))?)),
            Some(Writer::Blocking(sink)) => Some(WriteHalf::Blocking(WriteThread::start(sink, world.notifier(token)?)?)),
            None => None,
        };
        // The last, because its thread begins to take what does not belong to us alone.
        this.reader = match reader {
            #[cfg(unix)]
            Some(Reader::Descriptor(fd)) => Some(ReadHalf::Descriptor(End::reading(fd, is_shared, world.registration(token))?)),
            Some(Reader::Blocking(source)) => Some(ReadHalf::Blocking(ReadThread::start(source, world.notifier(token)?)?)),
            None => None,
        };
        #[cfg(unix)]
        let reads_at_once = matches!(&this.reader, Some(ReadHalf::Descriptor(end)) if is_shared || !end.kind.has_readiness);
        #[cfg(not(unix))]
        let reads_at_once = false;
        Ok((this, reads_at_once))
    }

    /// It is read and written through this one descriptor, as far as that is open for it.
    #[cfg(unix)]
    pub(super) fn of_one(fd: OwnedFd, world: &OsWorld, token: usize) -> io::Result<(Self, bool)> {
        let kind = Kind::prepare(fd.as_fd(), false)?;
        let (fd, reads) = Use::Reading.is_open(fd, kind)?;
        let (fd, writes) = Use::Writing.is_open(fd, kind)?;
        let writer = match (reads, writes) {
            (true, true) => Some(fd.try_clone()?),
            _ => None,
        };
        let ends = match writer {
            None if writes => Ends { reader: None, writer: Some(Writer::Descriptor(fd)), is_shared: false },
            writer => Ends { reader: Some(Reader::Descriptor(fd)), writer: writer.map(Writer::Descriptor), is_shared: false },
        };
        Self::new(ends, world, token)
    }

    fn take_ends(&mut self) -> Ends {
        let reader = self.reader.take().and_then(|half| match half {
            #[cfg(unix)]
            ReadHalf::Descriptor(end) => Some(Reader::Descriptor(end.into_fd())),
            ReadHalf::Blocking(_) => None,
        });
        let writer = self.writer.take().and_then(|half| match half {
            #[cfg(unix)]
            WriteHalf::Descriptor(end) => Some(Writer::Descriptor(end.into_fd())),
            WriteHalf::Blocking(_) => None,
        });
        Ends { reader, writer, is_shared: self.is_shared }
    }
}

/// Explicitly: a duplicate of a descriptor, held by somebody else, would keep it registered.
impl Drop for SplitStream {
    fn drop(&mut self) {
        let _ = self.take_ends();
    }
}

impl Transport for SplitStream {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        match &mut self.reader {
            #[cfg(unix)]
            Some(ReadHalf::Descriptor(end)) => Ok(Moved { bytes: end.read(buf)?, drained: false }),
            Some(ReadHalf::Blocking(thread)) => thread.recv(buf),
            None => Ok(Moved { bytes: 0, drained: true }),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        match &mut self.writer {
            #[cfg(unix)]
            Some(WriteHalf::Descriptor(end)) => Ok(Moved { bytes: end.write(&[IoSlice::new(bytes)])?, drained: false }),
            Some(WriteHalf::Blocking(thread)) => thread.send(bytes),
            None => Err(broken_pipe()),
        }
    }

    fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> {
        match &mut self.writer {
            #[cfg(unix)]
            Some(WriteHalf::Descriptor(end)) => Ok(Moved { bytes: end.write(bytes)?, drained: false }),
            Some(WriteHalf::Blocking(thread)) => thread.send(bytes.first().map_or(&[][..], |slice| slice)),
            None => Err(broken_pipe()),
        }
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// The writer's error: reading reports its own.
    fn take_error(&mut self) -> Option<io::Error> {
        match &self.writer {
            #[cfg(unix)]
            Some(WriteHalf::Descriptor(end)) => end.is_broken().then(broken_pipe),
            _ => None,
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self.writer.take() {
            #[cfg(unix)]
            Some(WriteHalf::Descriptor(end)) => {
                let (is_whole_socket, fd) = (end.kind.is_socket && !self.is_shared, end.into_fd());
                if is_whole_socket { SockRef::from(&fd).shutdown(Shutdown::Write) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn abort(&mut self) {}

    fn local(&self) -> Option<Address> {
        None
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        None
    }

    /// Whoever reads it after us should get all of it; we wait only for what answers what we have written.
    fn lingers(&self) -> bool {
        let is_others = match &self.reader {
            #[cfg(unix)]
            Some(ReadHalf::Descriptor(end)) => !(end.kind.is_pipe || end.kind.is_socket),
            _ => true,
        };
        self.ways == Ways::Both && !self.is_shared && !is_others
    }

    fn writes_apart(&self) -> bool {
        true
    }

    fn ways(&self) -> Ways {
        self.ways
    }

    /// What a thread reads or writes stays with it.
    fn detaches(&self) -> bool {
        !matches!(self.reader, Some(ReadHalf::Blocking(_))) && !matches!(self.writer, Some(WriteHalf::Blocking(_)))
    }

    fn detach(mut self: Box<Self>) -> Result<Adopted, Stream> {
        Ok(Adopted::new(What::Ends(self.take_ends())))
    }
}

/// One descriptor, for one direction.
#[cfg(unix)]
struct End<F> {
    fd: F,
    registration: Registration,
    kind: Kind,
}

#[cfg(unix)]
impl<F: Source + From<OwnedFd> + Into<OwnedFd>> End<F> {
    /// Not registered yet.
    fn new(what_for: Use, fd: OwnedFd, is_shared: bool, registration: Registration) -> io::Result<Self> {
        let (fd, kind) = what_for.prepare(fd, is_shared)?;
        Ok(Self { fd: fd.into(), registration, kind })
    }

    fn into_fd(mut self) -> OwnedFd {
        let _ = self.registration.want(&mut self.fd, None);
        self.fd.into()
    }
}

#[cfg(unix)]
impl End<Receiver> {
    fn reading(fd: OwnedFd, is_shared: bool, registration: Registration) -> io::Result<Self> {
        let mut this = Self::new(Use::Reading, fd, is_shared, registration)?;
        if this.kind.has_readiness {
            this.kind.has_readiness = is_waited_for(this.registration.want(&mut this.fd, Some(Interest::READABLE)))?;
        }
        Ok(this)
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.fd.read(buf) {
            // Nobody has the other side of the pseudo-terminal any more.
            Err(error) if self.kind.is_terminal && error.raw_os_error() == Some(libc::EIO) => Ok(0),
            Err(error) => self.registration.look_at(&mut self.fd, error),
            read => read,
        }
    }
}

#[cfg(unix)]
impl End<Sender> {
    fn writing(fd: OwnedFd, is_shared: bool, registration: Registration) -> io::Result<Self> {
        let mut this = Self::new(Use::Writing, fd, is_shared, registration)?;
        let idle = this.idle();
        this.registration.want(&mut this.fd, idle)?;
        Ok(this)
    }

    /// What it is registered for while no write waits for room: for a pipe, an event then says that it is broken.
    fn idle(&self) -> Option<Interest> {
        self.kind.is_pipe.then_some(Interest::READABLE)
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = &self.fd;
        let written = match self.kind.is_socket {
            true => fd.try_io(|| SockRef::from(fd).send_vectored_with_flags(slices, NO_SIGNAL)),
            false => (&*fd).write_vectored(slices),
        };
        let written = written.or_else(|error| self.registration.look_at(&mut self.fd, error));
        let idle = self.idle();
        self.registration.wrote(&mut self.fd, idle, written, slices.iter().map(|slice| slice.len()).sum())
    }

    /// Asks a second selector: a write of nothing tells nothing. Where there is no descriptor for one, an error of a pipe is
    /// believed: it can be no other.
    fn is_broken(&self) -> bool {
        match look(&mut SourceFd(&self.fd.as_raw_fd()), Interest::WRITABLE) {
            Ok(events) => events.iter().any(|event| event.is_error() || event.is_write_closed()),
            Err(_) => self.kind.is_pipe,
        }
    }
}

/// Whether the selector waits for it now: it refuses what is always ready (epoll_ctl(2)).
#[cfg(unix)]
fn is_waited_for(registered: io::Result<()>) -> io::Result<bool> {
    match registered {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        other => other.map(|()| true),
    }
}
