//! Signals that somebody waits for: those of the process, or of a simulated host.

use super::Source;
#[cfg(feature = "sim")]
use super::sim::SimSignals;
use signal_hook::{
    consts::FORBIDDEN,
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};
use std::{
    io,
    ops::Range,
    os::{fd::AsFd, unix::net::UnixStream},
};

pub(crate) enum Signals {
    /// What a handler writes to wakes the selector. (signal-hook-mio has the same, but poll(2) would report it once: it is
    /// not read through mio.)
    Os(SignalDelivery<UnixStream, SignalOnly>),
    #[cfg(feature = "sim")]
    Sim(SimSignals),
}

impl Signals {
    /// What the selector waits for.
    pub(crate) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Os(delivery) => Source::Fd(delivery.get_read().as_fd()),
            #[cfg(feature = "sim")]
            Self::Sim(_) => Source::Nothing, // its token is told
        }
    }

    /// Those that have come since it was last asked, each once.
    pub(crate) fn take(&mut self) -> Vec<i32> {
        match self {
            Self::Os(delivery) => delivery.pending().collect(),
            #[cfg(feature = "sim")]
            Self::Sim(signals) => signals.take(),
        }
    }
}

/// What the system has, or what signal-hook has room for.
const SIGNALS: Range<i32> = 1..if cfg!(target_os = "linux") { 65 } else { 128 };

/// Those of the process.
pub(super) fn hook(signals: &[i32]) -> io::Result<Signals> {
    check(signals)?;
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    SignalDelivery::with_pipe(read, write, SignalOnly, signals).map(Signals::Os)
}

/// # Errors
/// For a number that is not a signal, or a signal that a program may not wait for.
pub(super) fn check(signals: &[i32]) -> io::Result<()> {
    let refused = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    for signal in signals {
        if FORBIDDEN.contains(signal) {
            return refused(format!(
                "nobody can wait for signal {signal}: it is the kernel's, or tells of a broken program (signal(7))"
            ));
        }
        if !SIGNALS.contains(signal) {
            return refused(format!("there is no signal {signal}"));
        }
    }
    Ok(())
}
