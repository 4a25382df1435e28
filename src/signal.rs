//! Signals by their names (signal(7)), for `Net::on_signal` and `Net::signal_child`; and what they do by default. The chapter is
//! [processes and signals](crate::manual::processes_and_signals). Features `signals` or `children`, Unix.

pub use libc::{
    SIGABRT, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGUSR1, SIGUSR2, SIGWINCH,
};

/// Does what the signal would do if nobody had waited for it. Most of them end the process, so that the process which
/// started it sees by which signal it died; SIGTSTP stops it; SIGCHLD, SIGCONT and SIGWINCH do nothing. Feature `signals`.
///
/// # Errors
/// If the number is not a signal.
#[cfg(feature = "signals")]
pub fn die_of(signal: i32) -> std::io::Result<()> {
    signal_hook::low_level::emulate_default_handler(signal)
}
