//! TCP: sockets that listen and sockets that connect. What moves bytes through a connected one is in src/world/transport.rs.

use super::{
    super::{ListenHow, Listener, Stream, registered::Registered},
    begin_connect, non_blocking,
    sources::register,
    spare::Spare,
};
use crate::address::Address;
use mio::{
    Registry,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket};
use std::{io, net::SocketAddr, rc::Rc};

pub(super) fn listen(
    at: SocketAddr,
    how: ListenHow,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    if how.reuse_port && !cfg!(unix) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"));
    }
    let socket = non_blocking(Domain::for_address(at), Some(Protocol::TCP))?;
    // On Windows SO_REUSEADDR would let a second program take the port away (pyftpdlib had to learn this).
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(how.reuse_port)?;
    if let (true, Some(only)) = (at.is_ipv6(), how.v6only) {
        socket.set_only_v6(only)?;
    }
    // Accepted sockets inherit it (Linux): no system call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&at.into())?;
    socket.listen(i32::try_from(how.backlog).unwrap_or(i32::MAX))?;
    register_listener(socket, registry, spare, token)
}

/// The same for a socket that already listens, and does not block.
pub(super) fn listen_on(
    socket: Socket,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    socket.set_tcp_nodelay(true)?;
    register_listener(socket, registry, spare, token)
}

fn register_listener(
    socket: Socket,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    let socket = TcpListener::from_std(socket.into());
    let local = socket.local_addr()?;
    let socket = Registered::new(socket, Rc::clone(&registry), token)?;
    Ok((Box::new(OsTcpListener { socket, registry, spare }), Address::Ip(local)))
}

pub(super) fn connect(to: SocketAddr, from: Option<SocketAddr>, registry: &Registry, token: usize) -> io::Result<Stream> {
    let socket = non_blocking(Domain::for_address(to), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        // Otherwise a local port could not be used again for a minute after its connection has ended (TIME_WAIT).
        #[cfg(unix)]
        socket.set_reuse_address(from.port() != 0)?;
        socket.bind(&from.into())?;
    }
    begin_connect(&socket, &to.into())?;
    let mut socket = TcpStream::from_std(socket.into());
    register(registry, &mut socket, token)?;
    Ok(Stream::Tcp(socket))
}

struct OsTcpListener {
    socket: Registered<TcpListener>,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
}

impl Listener for OsTcpListener {
    fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        let (mut socket, peer) = self.socket.socket.accept()?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = socket.set_nodelay(true); // the socket may be gone already; the first read will say so
        register(&self.registry, &mut socket, token)?;
        Ok((Stream::Tcp(socket), Address::Ip(peer)))
    }

    fn accept_on_spare(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        self.spare.give_way()?;
        self.accept(token).inspect_err(|_| self.spare.keep())
    }

    fn keep_spare(&mut self) {
        self.spare.keep();
    }
}
