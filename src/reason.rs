//! Why things end: [`Reason`] for a connection, [`Limit`] for a bound that was reached, [`Fault`] for your own code; and why
//! offloaded work brought nothing.

use crate::{
    address::Address,
    adopted::Adopted,
    panics::{self, Payload},
    text::OneLine,
};
use std::{error::Error, fmt, io};

/// Whatever your code fails with. Anything that is an [`Error`] becomes one by `?`, a `&str` or `String` by `.into()`.
pub type Fault = Box<dyn Error + Send + Sync>;

/// What a callback returns: an `Err` ends its own connection, and nothing else.
pub type Outcome = Result<(), Fault>;

/// A bound of one connection, set by you or by its terminator; [a table](crate::manual::errors#a-bound-was-reached) shows
/// what sets each.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// No byte was received for the idle time-out.
    Idle,
    /// Output was queued, and the peer took no byte of it for the stall time-out.
    Stalled,
    /// The deadline passed.
    Deadline,
    /// A frame was begun and not finished within the frame time-out.
    FrameTime,
    /// A frame is longer than its terminator allows.
    FrameBytes,
    /// The connection was closed politely, and the peer took no more of what was queued.
    Linger,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing was received for the idle time-out",
            Self::Stalled => "the peer took no output for the stall time-out",
            Self::Deadline => "the deadline passed",
            Self::FrameTime => "a frame was not finished within the frame time-out",
            Self::FrameBytes => "a frame is longer than its limit",
            Self::Linger => "the peer did not take the rest of the output while closing",
        })
    }
}

impl Error for Limit {}

/// Why a connection could not be made: each address that was tried, with its error. As text it is one line. [The
/// chapter](crate::manual::errors#could-not-connect) says what each error means.
#[derive(Debug)]
pub struct ConnectError {
    tried: Vec<(Address, io::Error)>,
}

impl ConnectError {
    pub(crate) fn new(tried: Vec<(Address, io::Error)>) -> Self {
        Self { tried }
    }

    /// The addresses in the order in which they were tried, each with its error; one that did not answer in time has
    /// [`io::ErrorKind::TimedOut`]. Addresses that there was no time to try are not among them.
    pub fn tried(&self) -> &[(Address, io::Error)] {
        &self.tried
    }

    fn last(&self) -> Option<&io::Error> {
        self.tried.last().map(|(_, error)| error)
    }

    /// The kind of the last address's error.
    pub fn kind(&self) -> io::ErrorKind {
        self.last().map_or(io::ErrorKind::Other, io::Error::kind)
    }

    /// The errno of the last address's error, if it came from the system.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.last().and_then(io::Error::raw_os_error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (address, error)) in self.tried.iter().enumerate() {
            write!(f, "{}{address}: {}", if n > 0 { "; " } else { "" }, OneLine(error))?;
        }
        Ok(())
    }
}

impl Error for ConnectError {}

/// Why [offloaded](crate::Net::offload) work brought nothing. The chapter is
/// [work elsewhere](crate::manual::blocking_work#how-much).
#[non_exhaustive]
#[derive(Debug)]
pub enum OffloadError {
    /// It panicked; this is the text of the panic.
    Panicked(String),
    /// It was not begun: every thread was busy, and the queue was full.
    Full,
    /// It was not begun: the system gave no thread, and there was none yet.
    NoThread(io::Error),
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => write!(f, "offloaded work panicked: {}", OneLine(text)),
            Self::Full => f.write_str("too much blocking work waits already: every thread is busy, and the queue is full"),
            Self::NoThread(error) => write!(f, "no thread could be started for blocking work: {error}"),
        }
    }
}

impl Error for OffloadError {}

/// Why a connection ended, by what happened. Each connection gets exactly one, with its last callback, `closed`.
///
/// As text it is one line, whatever the text of an error or a panic contains: control characters are escaped. The chapter on
/// [closing](crate::manual::closing#the-reasons) says what leads to which reason, and the one on [which error means
/// what](crate::manual::errors) says what to do about each.
#[non_exhaustive]
#[derive(Debug)]
pub enum Reason {
    /// Clean, and we ended first: every queued byte was handed to the kernel.
    Finish,
    /// Clean, and the peer ended first: every queued byte was handed to the kernel.
    Eof,
    /// Clean, and nothing was under way: [`close_when_quiet`](crate::Context::close_when_quiet), the default of
    /// [`draining`](crate::Protocol::draining). Every queued byte was handed to the kernel.
    Drained,
    /// `abort` was called.
    Abort,
    /// The reactor was shut down.
    Shutdown,
    /// [`detach`](crate::Net::detach) was called: here is the socket, and what belongs to it.
    Detached(Box<Detached>),
    /// Never connected: the target leads to no address. A name could not be resolved ([`NameError`](crate::NameError) says
    /// why), a service is unknown, or the text is not a target.
    Resolve(io::Error),
    /// Never connected: no address could be reached.
    Connect(ConnectError),
    /// Could not agree on TLS. The connection was never connected; or, if it [began in
    /// clear](crate::manual::tls#in-mid-stream), it was connected and is lost by this. [The
    /// chapter](crate::manual::tls#what-went-wrong) says what the error is; `TlsError::of` finds its stage.
    Tls(Fault),
    /// The peer or the kernel ended it.
    Io(io::Error),
    /// A bound was reached, and `exceeded` did not let it go on.
    Limit(Limit),
    /// More was sent than the hard cap of the output queue allows.
    Overflow,
    /// A callback returned `Err`, or [`fail`](crate::Net::fail) was called.
    Failed(Fault),
    /// A callback panicked; this is the text of the panic.
    Panicked(String),
}

/// A connection that is not one any more, from [`Net::detach`](crate::Net::detach). If you go on with it, deliver `unread`
/// before what you read, and send `unsent` before anything else. It is still non-blocking. The chapter has [a program for
/// each](crate::manual::other_descriptors#given-back).
#[non_exhaustive]
#[derive(Debug)]
pub struct Detached {
    /// The socket, or the descriptors. Get it as what it is by [`Adopted::into_socket`] or `Adopted::into_fds`, or have
    /// another reactor adopt it.
    pub socket: Adopted,
    /// What was received and not delivered, including all of an unfinished frame.
    pub unread: Vec<u8>,
    /// What was sent and not taken by the kernel.
    pub unsent: Vec<u8>,
}

impl Default for Detached {
    fn default() -> Self {
        Self { socket: Adopted::nothing(), unread: Vec::new(), unsent: Vec::new() }
    }
}

impl Reason {
    /// Whether every byte that was queued was handed to the kernel, and nobody broke anything off.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Finish | Self::Eof | Self::Drained)
    }

    /// Whether it never was connected: `connected` was not called. Only with a [`Tls`](Self::Tls) it may have been, before
    /// TLS began in mid-stream.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Resolve(_) | Self::Connect(_) | Self::Tls(_))
    }

    /// Your own error that a callback returned as its `Err`, or that [`fail`](crate::Net::fail) was given, if it is an `E`:
    /// so `closed` learns exactly what went wrong.
    ///
    /// ```
    /// # use mainspring::{Context, Protocol, Reason};
    /// # #[derive(Debug)]
    /// # struct DiskFull { missing: u64 }
    /// # impl std::fmt::Display for DiskFull {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{} bytes are missing", self.missing) }
    /// # }
    /// # impl std::error::Error for DiskFull {}
    /// # struct Upload;
    /// impl Protocol<u64> for Upload {
    ///     // A callback returns `Err(DiskFull { missing }.into())` …
    ///     fn closed(&mut self, _: &mut Context<'_, u64>, missing: &mut u64, why: Reason) {
    ///         if let Some(full) = why.downcast_ref::<DiskFull>() {
    ///             *missing = full.missing;
    ///         }
    ///     }
    /// }
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Failed(fault) => fault.downcast_ref(),
            Self::Limit(limit) => (limit as &(dyn Error + 'static)).downcast_ref(),
            _ => None,
        }
    }

    /// What a callback's `Err` means: a [`Limit`] that is handed back keeps its own name.
    pub(crate) fn from_fault(fault: Fault) -> Self {
        match fault.downcast::<Limit>() {
            Ok(limit) => Self::Limit(*limit),
            Err(fault) => Self::Failed(fault),
        }
    }

    /// The same for how a callback failed; and its panic, if it was one.
    pub(crate) fn from_failure(failure: Result<Fault, Payload>) -> (Self, Option<Payload>) {
        match failure {
            Ok(fault) => (Self::from_fault(fault), None),
            Err(payload) => (Self::Panicked(panics::text(&payload)), Some(payload)),
        }
    }

    /// The same again, for a test that asks after the callback has had it.
    #[cfg(feature = "sim")]
    pub(crate) fn duplicate(&self) -> Self {
        let io = |error: &io::Error| match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => match crate::names::Unresolved::of(error) {
                Some(unresolved) => unresolved.clone().into(),
                None => io::Error::new(error.kind(), error.to_string()),
            },
        };
        match self {
            Self::Finish => Self::Finish,
            Self::Eof => Self::Eof,
            Self::Drained => Self::Drained,
            Self::Abort => Self::Abort,
            Self::Shutdown => Self::Shutdown,
            Self::Detached(_) => Self::Detached(Box::default()),
            Self::Resolve(error) => Self::Resolve(io(error)),
            Self::Connect(error) => {
                Self::Connect(ConnectError { tried: error.tried.iter().map(|(at, error)| (at.clone(), io(error))).collect() })
            }
            Self::Tls(fault) => Self::Tls(fault.to_string().into()),
            Self::Io(error) => Self::Io(io(error)),
            Self::Limit(limit) => Self::Limit(*limit),
            Self::Overflow => Self::Overflow,
            Self::Failed(fault) => Self::Failed(fault.to_string().into()),
            Self::Panicked(text) => Self::Panicked(text.clone()),
        }
    }

    /// Whether what is queued is still worth one write: our own side failed, and the peer may want to read the last words.
    pub(crate) fn allows_last_write(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Limit(_) | Self::Panicked(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finish => f.write_str("finished"),
            Self::Eof => f.write_str("the peer finished"),
            Self::Drained => f.write_str("drained"),
            Self::Abort => f.write_str("aborted"),
            Self::Shutdown => f.write_str("the reactor was shut down"),
            Self::Detached(_) => f.write_str("detached"),
            Self::Resolve(error) => write!(f, "could not resolve: {}", OneLine(error)),
            Self::Connect(error) => write!(f, "could not connect to {error}"),
            Self::Tls(fault) => write!(f, "could not agree on TLS: {}", OneLine(fault)),
            Self::Io(error) => write!(f, "connection lost: {}", OneLine(error)),
            Self::Limit(limit) => write!(f, "{limit}"),
            Self::Overflow => f.write_str("the output queue overflowed its hard cap"),
            Self::Failed(fault) => write!(f, "failed: {}", OneLine(fault)),
            Self::Panicked(text) => write!(f, "panicked: {}", OneLine(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_handed_back_keeps_its_name() {
        assert!(matches!(Reason::from_fault(Limit::Idle.into()), Reason::Limit(Limit::Idle)));
        assert!(matches!(Reason::from_fault("own".into()), Reason::Failed(_)));
    }

    #[test]
    fn what_an_err_gave_can_be_had_again() {
        let reason = Reason::from_fault(ConnectError::new(vec![]).into());
        assert!(reason.downcast_ref::<ConnectError>().is_some() && reason.downcast_ref::<Limit>().is_none());
        assert_eq!(Reason::from_fault(Limit::Idle.into()).downcast_ref(), Some(&Limit::Idle));
        assert!(Reason::Io(io::ErrorKind::TimedOut.into()).downcast_ref::<io::Error>().is_none(), "nobody returned it");
    }

    #[test]
    fn whatever_others_have_written_a_reason_is_one_line() {
        let text = "a\nb\x1b[2J";
        let path = Address::Unix(Some(text.into()));
        let error = || io::Error::other(text);
        let connect = ConnectError::new(vec![(path, error())]);
        assert_eq!(connect.to_string(), r"unix:a\nb\u{1b}[2J: a\nb\u{1b}[2J");
        let reasons = [
            Reason::Resolve(error()),
            Reason::Connect(connect),
            Reason::Tls(text.into()),
            Reason::Io(error()),
            Reason::Failed(text.into()),
            Reason::Panicked(text.into()),
        ];
        for reason in reasons {
            assert!(reason.to_string().ends_with(r": a\nb\u{1b}[2J"), "{reason}");
        }
        assert_eq!(OffloadError::Panicked(text.into()).to_string(), r"offloaded work panicked: a\nb\u{1b}[2J");
    }

    fn refused() -> io::Error {
        #[cfg(unix)]
        return io::Error::from_raw_os_error(libc::ECONNREFUSED);
        #[cfg(not(unix))]
        return io::ErrorKind::ConnectionRefused.into();
    }

    #[test]
    fn a_connect_error_prints_one_line_and_keeps_the_errno() {
        let addr: std::net::SocketAddr = "127.0.0.1:9".parse().expect("literal");
        let error = |tried| Reason::Connect(ConnectError::new(tried)).to_string();
        assert_eq!(error(vec![(addr.into(), io::ErrorKind::TimedOut.into())]), "could not connect to 127.0.0.1:9: timed out");
        let tried = || {
            vec![
                ("[::1]:9".parse::<std::net::SocketAddr>().expect("literal").into(), io::ErrorKind::TimedOut.into()),
                (addr.into(), refused()),
            ]
        };
        assert_eq!(error(tried()), format!("could not connect to [::1]:9: timed out; 127.0.0.1:9: {}", refused()));
        let error = ConnectError::new(tried());
        assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::ConnectionRefused, refused().raw_os_error()));
    }
}
