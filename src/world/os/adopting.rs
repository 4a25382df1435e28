//! Taking over streams that somebody else has opened, and giving them back.

#[cfg(unix)]
use super::{super::unix_stream::UnixStream, descriptor::peer_of};
use super::{
    super::{Stream, TakenOver},
    OsWorld,
    sources::register,
    split::SplitStream,
};
use crate::{
    address::Address,
    adopted::{Adopted, What},
};
use mio::net::TcpStream;
use socket2::Socket;
#[cfg(unix)]
use socket2::{Domain, SockRef};
use std::io::{self, ErrorKind};
#[cfg(unix)]
use std::{os::fd::OwnedFd, rc::Rc};

impl OsWorld {
    pub(in super::super) fn take_over(&mut self, adopted: Adopted, token: usize) -> io::Result<TakenOver> {
        let Adopted { what, unread } = adopted;
        let (stream, peer, reads_at_once) = match what {
            What::Socket(socket) => self.take_over_socket(socket, token)?,
            #[cfg(unix)]
            What::Descriptor(fd) => match std::fs::File::from(fd.try_clone()?).metadata()?.file_type() {
                kind if std::os::unix::fs::FileTypeExt::is_socket(&kind) => self.take_over_socket(fd.into(), token)?,
                _ => split(SplitStream::of_one(fd, self, token)?, Address::Fd),
            },
            What::Ends(ends) => split(SplitStream::new(ends, self, token)?, Address::Fd),
            #[cfg(feature = "sim")]
            What::Simulated(_) => return Err(unsupported("a simulated socket is of another world")),
            What::Nothing => return Err(unsupported("it was taken over already")),
        };
        Ok(TakenOver { stream, peer, reads_at_once, unread })
    }

    fn take_over_socket(&mut self, socket: Socket, token: usize) -> io::Result<(Stream, Address, bool)> {
        #[cfg(unix)]
        let peer = peer_of(&SockRef::from(&socket))?;
        #[cfg(not(unix))]
        let peer = socket.peer_addr()?;
        socket.set_nonblocking(true)?;
        #[cfg(unix)]
        socket.set_cloexec(true)?;
        #[cfg(unix)]
        match peer.domain() {
            Domain::IPV4 | Domain::IPV6 => {}
            Domain::UNIX => {
                let socket = mio::net::UnixStream::from_std(OwnedFd::from(socket).into());
                let stream = UnixStream::new(socket, Rc::clone(&self.registry), token, false)?;
                return Ok((Stream::Unix(Box::new(stream)), Address::of_socket(&peer), false));
            }
            _ => return Ok(split(SplitStream::of_one(socket.into(), self, token)?, Address::Fd)),
        }
        let mut socket = TcpStream::from_std(socket.into());
        register(&self.registry, &mut socket, token)?;
        Ok((Stream::Tcp(socket), peer.as_socket().map_or(Address::Fd, Address::Ip), false))
    }

    /// Not registered any more.
    pub(in super::super) fn detach(&mut self, stream: Stream) -> Adopted {
        match stream {
            Stream::Tcp(mut socket) => {
                let _ = self.registry.deregister(&mut socket); // poll(2) may have let go of it
                std::net::TcpStream::from(socket).into()
            }
            #[cfg(unix)]
            Stream::Unix(socket) => std::os::unix::net::UnixStream::from(socket.into_socket()).into(),
            Stream::Dyn(other) => other.detach(),
        }
    }
}

fn split((stream, reads_at_once): (SplitStream, bool), peer: Address) -> (Stream, Address, bool) {
    (Stream::Dyn(Box::new(Box::new(stream))), peer, reads_at_once)
}

fn unsupported(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}
