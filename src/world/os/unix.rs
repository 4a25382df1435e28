//! Unix sockets: at a file, which goes with its listener, or under one of Linux's abstract names. What moves bytes through
//! one that is connected stands in src/world/transport.rs.

use super::{
    super::{ARMS_BY_ITSELF, ListenHow, Listener, Stream},
    begin_connect, non_blocking,
    sources::register,
    spare::Spare,
};
use crate::address::Address;
use mio::{
    Interest, Registry, Token,
    net::{UnixListener, UnixStream},
};
use socket2::{Domain, SockAddr, SockRef, Socket};
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

pub(super) fn listen(
    at: &Address,
    how: ListenHow,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
) -> io::Result<(Box<dyn Listener>, Address)> {
    let name = at.to_socket()?;
    let socket = non_blocking(Domain::UNIX, None)?;
    match (socket.bind(&name), at) {
        (Err(error), Address::Unix(Some(path))) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_if_stale(path, &name)?;
            socket.bind(&name)?;
        }
        (bound, _) => bound?,
    }
    let file = if let Address::Unix(Some(path)) = at { Some(SocketFile::new(path)?) } else { None };
    socket.listen(i32::try_from(how.backlog).unwrap_or(i32::MAX))?;
    let mut socket = UnixListener::from_std(OwnedFd::from(socket).into());
    registry.register(&mut socket, Token(token), Interest::READABLE)?;
    Ok((Box::new(OsUnixListener { socket, registry, spare, token, _file: file }), at.clone()))
}

pub(super) fn connect(to: &Address) -> io::Result<UnixStream> {
    let socket = non_blocking(Domain::UNIX, None)?;
    // EAGAIN: the listener's backlog is full, and no connect is in progress (connect(2)).
    begin_connect(&socket, &to.to_socket()?)?;
    Ok(UnixStream::from_std(OwnedFd::from(socket).into()))
}

/// A socket file whose server has died is in the way, one with a server is in use, and anything else is somebody's file.
fn remove_if_stale(path: &Path, name: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is a file of that name which is no socket"));
    }
    match non_blocking(Domain::UNIX, None)?.connect(name) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

/// Removes the file with the listener, unless it has become another's.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct OsUnixListener {
    socket: UnixListener,
    registry: Rc<Registry>,
    spare: Rc<Spare>,
    token: usize,
    _file: Option<SocketFile>,
}

impl OsUnixListener {
    /// Not by mio's `accept`, which panics on a client that is bound to a path of 108 bytes.
    fn accept_plain(&mut self) -> io::Result<(Socket, SockAddr)> {
        let accepted = SockRef::from(&self.socket).accept();
        if !ARMS_BY_ITSELF && accepted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.registry.reregister(&mut self.socket, Token(self.token), Interest::READABLE)?;
        }
        accepted
    }
}

impl Listener for OsUnixListener {
    fn accept(&mut self, token: usize) -> io::Result<(Stream, Address)> {
        let (socket, peer) = self.accept_plain()?;
        socket.set_nonblocking(true)?;
        let mut stream = Stream::Unix(UnixStream::from_std(OwnedFd::from(socket).into()));
        register(&self.registry, &mut stream, token)?;
        Ok((stream, Address::of_socket(&peer)))
    }

    fn shed(&mut self) -> io::Result<()> {
        let spare = Rc::clone(&self.spare);
        spare.lend(|| self.accept_plain())
    }
}
