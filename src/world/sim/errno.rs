//! The errors that the simulated system gives, named and numbered as the real one does.

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
        // Winsock's, which begin at 10000; it has no other for the whole system (ENFILE), and std knows none for EPIPE and EINTR.
        #[cfg(windows)]
        {
            io::Error::from_raw_os_error(match self {
                Self::Again => 10035,
                Self::Interrupted => return io::ErrorKind::Interrupted.into(),
                Self::ConnectionReset => 10054,
                Self::ConnectionRefused => 10061,
                Self::ConnectionAborted => 10053,
                Self::BrokenPipe => return io::ErrorKind::BrokenPipe.into(),
                Self::NoBuffers => 10055,
                Self::NoMemory => 8,
                Self::TimedOut => 10060,
                Self::TooManyFiles | Self::TooManyFilesInSystem => 10024,
                Self::NotPermitted | Self::AccessDenied => 10013,
                Self::HostUnreachable => 10065,
                Self::NetworkUnreachable => 10051,
                Self::AddressInUse => 10048,
                Self::AddressNotAvailable => 10049,
                Self::InvalidArgument => 10022,
                Self::MessageTooLong => 10040,
                Self::FamilyNotSupported => 10047,
                Self::ProtocolNotAvailable => 10042,
                Self::NoDevice => 55,
            })
        }
    }
}
