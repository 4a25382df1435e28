//! The file of a Unix socket: who gets a path, and who removes the file. bind(2) creates it, and fails if there is one. What
//! a dead program left there is removed by one of the programs that start, however many start together.
//!
//! Nobody removes a file without a claim on it: a socket beside it, whose name is made from the file's inode. Only one
//! program can have that claim, and it ends with its owner, in whatever way that ends. Creating it is also a barrier: any
//! program that was inside bind(2) in that folder is through by then, so that what looks dead after that is dead.

use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process,
};

/// How often we look again when files come and go.
const ROUNDS_MAX: u32 = 100;

/// Claims on the claims of the dead: each is left by a program that was killed between two system calls.
const DEPTH_MAX: u32 = 8;

/// Removes the file with the listener, unless it has become another's. A child of fork(2), which has a copy of this, does
/// not.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    made_by: u32,
}

/// Device and inode.
type Identity = (u64, u64);

impl SocketFile {
    /// Binds the socket there. A file without a living owner is replaced.
    pub(super) fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        occupy(path, socket, 0)?;
        let path = if path.is_absolute() { path.to_path_buf() } else { env::current_dir()?.join(path) };
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(Self { path, identity, made_by: process::id() })
    }
}

/// As long as the socket lives, nobody else takes its file for dead: so this happens before it is closed.
impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = || fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity);
        if self.made_by == process::id() && is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn occupy(path: &Path, socket: &Socket, depth: u32) -> io::Result<()> {
    for _ in 0..ROUNDS_MAX {
        if bind(socket, path)? {
            return Ok(());
        }
        let Some(dead) = look_for_dead(path)? else { continue };
        let _claim = Claim::new(path, dead, depth)?;
        if look_for_dead(path)? != Some(dead) {
            continue;
        }
        fs::remove_file(path)?;
        // The claim is kept meanwhile: the next file may well have the same inode.
        if bind(socket, path)? {
            return Ok(());
        }
    }
    Err(in_use("other programs come and go there"))
}

/// `false`: there is already a file.
fn bind(socket: &Socket, path: &Path) -> io::Result<bool> {
    match name_of(path).and_then(|(name, _way)| socket.bind(&name)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(false),
        bound => bound.map(|()| true),
    }
}

/// Finds a socket file whose owner has ended; `None` if there is no file any more. Everything else is in use.
fn look_for_dead(path: &Path) -> io::Result<Option<Identity>> {
    let Some(file) = file_at(path)? else { return Ok(None) };
    if !file.file_type().is_socket() {
        return Err(in_use("there is a file of that name which is not a socket"));
    }
    match probe(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(in_use(&format!("there is a socket that we must not use: {error}")));
        }
        Err(error) if super::super::wants_descriptor(&error) => return Err(error),
        _ => return Err(in_use("another program listens there")),
    }
    let is_the_same = file_at(path)?.is_some_and(|after| identity(&after) == identity(&file));
    Ok(is_the_same.then(|| identity(&file)))
}

/// Uses a socket of a kind that no stream connects to: it finds a socket that is bound there and does not listen yet, and
/// one that listens does not notice.
fn probe(path: &Path) -> io::Result<()> {
    let socket = datagram()?;
    let (name, _way) = name_of(path)?;
    socket.connect(&name)
}

/// The right to remove one file.
struct Claim {
    path: PathBuf,
    _socket: Socket,
}

impl Claim {
    fn new(on: &Path, (_, inode): Identity, depth: u32) -> io::Result<Self> {
        if depth == DEPTH_MAX {
            return Err(in_use("too many programs have died while replacing it"));
        }
        let (path, socket) = (on.with_file_name(format!(".stale-{inode:x}")), datagram()?);
        occupy(&path, &socket, depth + 1)?;
        Ok(Self { path, _socket: socket })
    }
}

/// Before the socket closes.
impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn datagram() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket's path is short (unix(7)), and a claim's may be a little longer than that of the file: Linux has a way round,
/// through an open folder.
fn name_of(path: &Path) -> io::Result<(SockAddr, Option<File>)> {
    match (SockAddr::unix(path), path.parent(), path.file_name()) {
        (Err(_), Some(folder), Some(file)) if cfg!(target_os = "linux") => {
            let folder = File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
            let way_round = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(file);
            Ok((SockAddr::unix(way_round)?, Some(folder)))
        }
        (name, ..) => Ok((name?, None)),
    }
}

fn file_at(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino())
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child of fork(2) dropped its copy, and its parent's server could not be found any more.
    #[test]
    fn only_the_process_that_made_a_file_removes_it() {
        let path = std::env::temp_dir().join(format!("mainspring-made-by-{}", process::id()));
        let socket = datagram().expect("a descriptor");
        let mut file = SocketFile::bind(&socket, &path).expect("a free path");
        let ours = std::mem::replace(&mut file.made_by, 0);
        let copy = SocketFile { path: file.path.clone(), identity: file.identity, made_by: ours };
        drop(file);
        assert!(path.exists(), "it was another's to remove");
        drop(copy);
        assert!(!path.exists());
    }
}
