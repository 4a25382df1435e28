//! The errors that the simulated system gives: as the real one names and numbers them.

use std::io;

/// An error of an operation.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Errno {
    /// EAGAIN: nothing now, and an event later.
    Again,
    /// EINTR.
    Interrupted,
    /// ECONNRESET.
    ConnectionReset,
    /// ECONNREFUSED.
    ConnectionRefused,
    /// ECONNABORTED.
    ConnectionAborted,
    /// EPIPE.
    BrokenPipe,
    /// ENOBUFS.
    NoBuffers,
    /// ENOMEM.
    NoMemory,
    /// ETIMEDOUT.
    TimedOut,
    /// EMFILE.
    TooManyFiles,
    /// ENFILE.
    TooManyFilesInSystem,
    /// EPERM.
    NotPermitted,
    /// EHOSTUNREACH.
    HostUnreachable,
    /// ENETUNREACH.
    NetworkUnreachable,
    /// EADDRINUSE.
    AddressInUse,
    /// EADDRNOTAVAIL.
    AddressNotAvailable,
    /// EACCES.
    AccessDenied,
    /// EINVAL.
    InvalidArgument,
    /// EMSGSIZE.
    MessageTooLong,
    /// EAFNOSUPPORT.
    FamilyNotSupported,
    /// ENOPROTOOPT.
    ProtocolNotAvailable,
    /// ENODEV.
    NoDevice,
}

impl Errno {
    /// This error as the system would report it, with its number where there is one.
    pub fn to_error(self) -> io::Error {
        #[cfg(unix)]
        {
            io::Error::from_raw_os_error(match self {
                Self::Again => libc::EAGAIN,
                Self::Interrupted => libc::EINTR,
                Self::ConnectionReset => libc::ECONNRESET,
                Self::ConnectionRefused => libc::ECONNREFUSED,
                Self::ConnectionAborted => libc::ECONNABORTED,
                Self::BrokenPipe => libc::EPIPE,
                Self::NoBuffers => libc::ENOBUFS,
                Self::NoMemory => libc::ENOMEM,
                Self::TimedOut => libc::ETIMEDOUT,
                Self::TooManyFiles => libc::EMFILE,
                Self::TooManyFilesInSystem => libc::ENFILE,
                Self::NotPermitted => libc::EPERM,
                Self::HostUnreachable => libc::EHOSTUNREACH,
                Self::NetworkUnreachable => libc::ENETUNREACH,
                Self::AddressInUse => libc::EADDRINUSE,
                Self::AddressNotAvailable => libc::EADDRNOTAVAIL,
                Self::AccessDenied => libc::EACCES,
                Self::InvalidArgument => libc::EINVAL,
                Self::MessageTooLong => libc::EMSGSIZE,
                Self::FamilyNotSupported => libc::EAFNOSUPPORT,
                Self::ProtocolNotAvailable => libc::ENOPROTOOPT,
                Self::NoDevice => libc::ENODEV,
            })
        }
        #[cfg(not(unix))]
        {
            io::Error::from(match self {
                Self::Again => io::ErrorKind::WouldBlock,
                Self::Interrupted => io::ErrorKind::Interrupted,
                Self::ConnectionReset => io::ErrorKind::ConnectionReset,
                Self::ConnectionRefused => io::ErrorKind::ConnectionRefused,
                Self::ConnectionAborted => io::ErrorKind::ConnectionAborted,
                Self::BrokenPipe => io::ErrorKind::BrokenPipe,
                Self::NoBuffers | Self::TooManyFiles | Self::TooManyFilesInSystem => io::ErrorKind::Other,
                Self::NoMemory => io::ErrorKind::OutOfMemory,
                Self::TimedOut => io::ErrorKind::TimedOut,
                Self::NotPermitted => io::ErrorKind::PermissionDenied,
                Self::HostUnreachable => io::ErrorKind::HostUnreachable,
                Self::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
                Self::AddressInUse => io::ErrorKind::AddrInUse,
                Self::AddressNotAvailable => io::ErrorKind::AddrNotAvailable,
                Self::AccessDenied => io::ErrorKind::PermissionDenied,
                Self::InvalidArgument => io::ErrorKind::InvalidInput,
                Self::FamilyNotSupported | Self::ProtocolNotAvailable => io::ErrorKind::Unsupported,
                Self::MessageTooLong | Self::NoDevice => io::ErrorKind::Other,
            })
        }
    }
}
