//! What every example needs: arguments, Ctrl-C, lines of output.

use mainspring::{Key, Net, Reactor};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    thread,
};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Errors go to standard error, and make the exit code 1.
pub(crate) fn exit(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(format_args!("error: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// A line of standard output. A callback says it so, because `println!` panics where nobody can be told: a full disk, a
/// closed pipe. A line that is lost does no harm; a panic in `closed` would lose what stands after it.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(io::stdout(), "{what}");
}

/// The same for standard error.
pub(crate) fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// The first line of output: whoever started us may connect now.
pub(crate) fn announce<S>(net: &Net<'_, S>, listener: Key) {
    let local = net.local(listener).expect("a listener that was just opened has an address");
    say(format_args!("listening on {local}"));
}

/// Ctrl-C (and SIGTERM) ends the loop cleanly. The waiting thread holds a remote, so `run` does not end by itself.
pub(crate) fn stop_on_interrupt<S: 'static>(reactor: &Reactor<S>) -> io::Result<()> {
    let remote = reactor.remote();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if remote.stop().is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// What was wrong with the command line, and where to look.
pub(crate) fn misused(what: impl Display) -> Failure {
    format!("{what}; --help shows how it is used").into()
}
