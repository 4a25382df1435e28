//! Taking over streams that somebody else has opened, and giving them back.

use super::{
    super::{Listener, Stream, TakenOver},
    OsWorld, refused,
    sources::register,
    split::SplitStream,
    tcp,
};
#[cfg(unix)]
use super::{
    descriptor::{Kind, peer_of},
    unix,
};
use crate::{
    address::Address,
    adopted::{Adopted, AdoptedListener, What},
};
use mio::net::TcpStream;
#[cfg(unix)]
use socket2::SockRef;
use socket2::{Domain, Socket, Type};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::{io, rc::Rc};

impl OsWorld {
    pub(in super::super) fn take_over(&mut self, adopted: Adopted, token: usize) -> io::Result<TakenOver> {
        let Adopted { what, unread } = adopted;
        let (stream, peer, reads_at_once) = match what {
            What::Socket(socket) => self.take_over_socket(socket, token)?,
            #[cfg(unix)]
            What::Descriptor(fd) => match Kind::of(fd.as_fd())?.is_socket {
                true => self.take_over_socket(fd.into(), token)?,
                false => split(SplitStream::of_one(fd, self, token)?, Address::Fd),
            },
            What::Ends(ends) => split(SplitStream::new(ends, self, token)?, Address::Fd),
            #[cfg(feature = "sim")]
            What::Simulated(_) => return Err(refused("a simulated socket belongs to another world")),
            What::Nothing => return Err(refused("it was taken over already")),
        };
        Ok(TakenOver { stream, peer, reads_at_once, unread })
    }

    fn take_over_socket(&mut self, socket: Socket, token: usize) -> io::Result<(Stream, Address, bool)> {
        #[cfg(unix)]
        let peer = peer_of(&SockRef::from(&socket))?;
        #[cfg(not(unix))]
        let peer = {
            if socket.r#type()? != Type::STREAM || socket.local_addr()?.as_socket().is_none() {
                return Err(refused("only a TCP socket can be taken over on this system"));
            }
            socket.peer_addr()?
        };
        socket.set_nonblocking(true)?;
        #[cfg(unix)]
        socket.set_cloexec(true)?;
        #[cfg(unix)]
        match peer.domain() {
            Domain::IPV4 | Domain::IPV6 => {}
            Domain::UNIX => {
                let stream = unix::stream(socket, Rc::clone(&self.registry), token, false)?;
                return Ok((stream, Address::of_socket(&peer), false));
            }
            _ => return Ok(split(SplitStream::of_one(socket.into(), self, token)?, Address::Fd)),
        }
        let mut socket = TcpStream::from_std(socket.into());
        register(&self.registry, &mut socket, token)?;
        Ok((Stream::Tcp(socket), peer.as_socket().map_or(Address::Fd, Address::Ip), false))
    }

    pub(in super::super) fn take_over_listener(
        &mut self,
        listener: AdoptedListener,
        token: usize,
    ) -> io::Result<(Box<dyn Listener>, Address)> {
        let socket = listener.0;
        if socket.r#type()? != Type::STREAM {
            return Err(refused("a socket that carries packets accepts nobody: `Net::bind_on` takes it"));
        }
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        if !socket.is_listener()? {
            return Err(refused("a socket that does not listen: call `listen` on it first"));
        }
        socket.set_nonblocking(true)?;
        #[cfg(unix)]
        socket.set_cloexec(true)?;
        let local = socket.local_addr()?;
        let (registry, spare) = (Rc::clone(&self.registry), Rc::clone(&self.spare));
        let listening = match local.domain() {
            Domain::IPV4 | Domain::IPV6 => tcp::listen_on(socket, registry, spare, token),
            #[cfg(unix)]
            Domain::UNIX => unix::listen_on(None, socket, Address::of_socket(&local), registry, spare, token),
            _ => Err(refused("a listening socket of an unknown kind")),
        }?;
        self.spare.fill()?;
        Ok(listening)
    }

    /// Not registered any more.
    pub(in super::super) fn detach(&mut self, stream: Stream) -> Adopted {
        match stream {
            Stream::Tcp(mut socket) => {
                let _ = self.registry.deregister(&mut socket); // poll(2) may have dropped it
                std::net::TcpStream::from(socket).into()
            }
            #[cfg(unix)]
            Stream::Unix(socket) => std::os::unix::net::UnixStream::from(socket.into_socket()).into(),
            Stream::Dyn(other) => other.detach().unwrap_or_else(|inner| self.detach(inner)),
        }
    }
}

fn split((stream, reads_at_once): (SplitStream, bool), peer: Address) -> (Stream, Address, bool) {
    (Stream::Dyn(Box::new(Box::new(stream))), peer, reads_at_once)
}
