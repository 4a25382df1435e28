//! Unix sockets: at a file, which is removed with its listener, or under one of Linux's abstract names. What moves bytes
//! through a connected one is in src/world/transport.rs.

use super::{
    super::{ARMS_BY_ITSELF, ListenHow, Listener, Stream, registered::Registered, unix_stream::UnixStream},
    begin_connect, non_blocking,
    socket_file::SocketFile,
    spare::Spare,
};
use crate::address::Address;
use mio::{Registry, net::UnixListener};
use socket2::{Domain, SockAddr, SockRef, Socket};
use std::{io, os::fd::OwnedFd, rc::Rc};

pub(super) fn listen(
    at: &Address,
    how: ListenHow,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    let name = at.to_socket()?;
    let socket = non_blocking(Domain::UNIX, None)?;
    let file = match at {
        Address::Unix(Some(path)) => Some(SocketFile::bind(&socket, path)?),
        _ => {
            socket.bind(&name)?;
            None
        }
    };
    socket.listen(i32::try_from(how.backlog).unwrap_or(i32::MAX))?;
    listen_on(file, socket, at.clone(), registry, spare, token)
}

/// The same for a socket that already listens, and does not block; the file is removed with it, if it is ours.
pub(super) fn listen_on(
    file: Option<SocketFile>,
    socket: Socket,
    at: Address,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    let socket = Registered::new(UnixListener::from_std(OwnedFd::from(socket).into()), Rc::clone(&registry), token)?;
    Ok((Box::new(OsUnixListener { _file: file, socket, registry, spare }), at))
}

pub(super) fn connect(to: &Address, registry: Rc<Registry>, token: usize) -> io::Result<Stream> {
    let socket = non_blocking(Domain::UNIX, None)?;
    // EAGAIN: the listener's backlog is full, and no connect is in progress (connect(2)).
    begin_connect(&socket, &to.to_socket()?)?;
    stream(socket, registry, token, true)
}

pub(super) fn stream(socket: Socket, registry: Rc<Registry>, token: usize, is_connecting: bool) -> io::Result<Stream> {
    let socket = mio::net::UnixStream::from_std(OwnedFd::from(socket).into());
    Ok(Stream::Unix(Box::new(UnixStream::new(socket, registry, token, is_connecting)?)))
}

struct OsUnixListener {
    /// Dropped before the socket.
    _file: Option<SocketFile>,
    socket: Registered<UnixListener>,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
}

impl OsUnixListener {
    /// Not by mio's `accept`, which panics on a client that is bound to a path of 108 bytes.
    fn accept_plain(&mut self) -> io::Result<(Socket, SockAddr)> {
        let accepted = SockRef::from(&self.socket.socket).accept();
        if !ARMS_BY_ITSELF && accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.socket.want_writable(false)?; // this arms it again
        }
        accepted
    }
}

impl Listener for OsUnixListener {
    fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        let (socket, peer) = self.accept_plain()?;
        socket.set_nonblocking(true)?;
        let stream = stream(socket, Rc::clone(&self.registry), token, false)?;
        Ok((stream, Address::of_socket(&peer)))
    }

    fn accept_on_spare(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        self.spare.give_way()?;
        self.accept(token).inspect_err(|_| self.spare.keep())
    }

    fn keep_spare(&mut self) {
        self.spare.keep();
    }
}
