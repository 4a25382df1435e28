//! What the examples share, because none of it is about the network: arguments, Ctrl-C, lines of output.
#![allow(dead_code)] // each program uses a part of it

use lexopt::prelude::*;
use mainspring::{Key, Net, Reactor};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    collections::VecDeque,
    error::Error,
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
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

/// The command line, taken apart.
#[derive(Default)]
pub(crate) struct Arguments {
    words: VecDeque<OsString>,
    options: Vec<(String, OsString)>,
}

/// Takes the command line apart: so many words at most, and of options those that are named here, each with a value.
/// Nothing if help was wanted, and was given.
pub(crate) fn arguments(help: &str, words_max: usize, options: &[&str]) -> Result<Option<Arguments>, Failure> {
    let mut given = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                say(help);
                return Ok(None);
            }
            Long(name) if options.contains(&name) => {
                let name = name.to_owned();
                given.options.push((name, parser.value()?));
            }
            Value(word) if given.words.len() < words_max => given.words.push_back(word),
            other => return Err(misused(other.unexpected())),
        }
    }
    Ok(Some(given))
}

/// The same for those that take an address and nothing else.
pub(crate) fn address(help: &str, otherwise: &str) -> Result<Option<String>, Failure> {
    let Some(mut given) = arguments(help, 1, &[])? else { return Ok(None) };
    Ok(Some(given.text()?.unwrap_or_else(|| otherwise.into())))
}

impl Arguments {
    /// The next word, which may be the name of a file, and so no text.
    pub(crate) fn word(&mut self) -> Option<OsString> {
        self.words.pop_front()
    }

    /// The next word, as text.
    pub(crate) fn text(&mut self) -> Result<Option<String>, Failure> {
        Ok(self.word().map(|word| word.string()).transpose()?)
    }

    /// What an option was given; of several the last.
    pub(crate) fn option(&self, name: &str) -> Option<&OsString> {
        self.options.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// The same as a number, or whatever else can be read from text.
    pub(crate) fn parsed<T: FromStr<Err: Into<Failure>>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let parse = |value: &OsString| value.parse().map_err(|error| format!("--{name}: {error}").into());
        self.option(name).map(parse).transpose()
    }
}

/// A line of standard output. A callback says it so, because `println!` panics where nobody can be told: a full disk, a
/// closed pipe. A line that is lost does no harm; a panic in `closed` would lose what stands after it.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(io::stdout(), "{what}");
}

/// The same for standard error.
pub(crate) fn complain(what: impl Display) {
    if cfg!(test) {
        return eprintln!("{what}"); // which a test shows if it fails
    }
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
