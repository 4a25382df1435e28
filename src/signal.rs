//! The signals that a program may wait for, by [`Net::on_signal`](crate::Net::on_signal) (signal(7)); and what they do by
//! default. The chapter is [processes and signals](crate::manual::processes_and_signals). Feature `signals`, Unix.

pub use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
    SIGWINCH,
};
use std::io;

/// Does what the signal would do if nobody had waited for it: most of them end the process, so that whoever started it sees by which
/// signal it died; SIGTSTP stops it; SIGCHLD, SIGCONT and SIGWINCH do nothing.
///
/// # Errors
/// For what is no signal.
pub fn die_of(signal: i32) -> io::Result<()> {
    signal_hook::low_level::emulate_default_handler(signal)
}
