//! What the examples share, none of it about the network: arguments, Ctrl-C, lines of output, the exit status.
#![allow(dead_code)] // each program uses a part of it

use lexopt::prelude::*;
use mainspring::{Gone, IpProtocol, Key, NameError, Net, Reactor, Target, service_port};
#[cfg(unix)]
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    collections::VecDeque,
    error::Error,
    ffi::OsString,
    fmt::{self, Display},
    fs,
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    str::FromStr,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

// ------------------------------------------------------------------------------------------------------ how it ends

/// Errors that are more than a text: the exit status depends on them.
#[derive(Debug)]
enum Trouble {
    /// The command line was wrong.
    Misused(String),
    /// The system cannot do what the program needs, or does not let us.
    Unable(String),
    /// Standard output could not be written.
    Unwritten(io::Error),
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misused(what) => write!(f, "{what}; --help shows how it is used"),
            Self::Unable(what) => f.write_str(what),
            Self::Unwritten(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl Error for Trouble {}

/// An error in the command line; the message points to --help.
pub(crate) fn misused(what: impl Display) -> Failure {
    Trouble::Misused(what.to_string()).into()
}

/// Something that the system cannot do, or does not let us do, and what would help.
pub(crate) fn unable(what: impl Display) -> Failure {
    Trouble::Unable(what.to_string()).into()
}

/// Standard output could not be written.
pub(crate) fn unwritten(error: io::Error) -> Failure {
    Trouble::Unwritten(error).into()
}

/// A process that a signal ended has this plus the signal's number as its exit status, as in shells: 130 after Ctrl-C.
const ENDED_BY: u8 = 128;

/// The signal that ends a Unix program when the reader of its output has gone.
const SIGPIPE: u8 = 13;

/// Which signal asked us to end; 0 if none did.
static SIGNAL: AtomicU8 = AtomicU8::new(0);

/// Reports an error on standard error. The exit status is 0 without an error, 2 for a wrong command line or a system that
/// cannot do it, 1 for any other error; and after a signal always that of the signal.
pub(crate) fn exit(outcome: Result<(), Failure>) -> ExitCode {
    status(outcome.map_or_else(|why| own_up(&why), |()| 0))
}

/// Says what went wrong, in one line, and returns the exit status for it.
pub(crate) fn own_up(why: &Failure) -> u8 {
    let trouble = why.downcast_ref();
    if matches!(trouble, Some(Trouble::Unwritten(error)) if error.kind() == ErrorKind::BrokenPipe) {
        return ENDED_BY + SIGPIPE; // the reader of our output has had enough, which is no error: we end as `cat` would
    }
    complain(format_args!("error: {}", why.to_string().replace(char::is_control, " ")));
    if matches!(trouble, Some(Trouble::Misused(_) | Trouble::Unable(_))) { 2 } else { 1 }
}

/// This status, unless a signal ended us.
pub(crate) fn status(otherwise: u8) -> ExitCode {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => otherwise.into(),
        signal => (ENDED_BY + signal).into(),
    }
}

// --------------------------------------------------------------------------------------------------- the command line

/// The command line, taken apart.
#[derive(Default)]
pub(crate) struct Arguments {
    words: VecDeque<OsString>,
    options: Vec<(String, OsString)>,
    flags: Vec<String>,
    pairs: Vec<(String, OsString, OsString)>,
}

/// Takes the command line apart: at most `words_max` words, and the options named here, each with a value. `None` if help
/// was asked for, and was printed.
pub(crate) fn arguments(help: &str, words_max: usize, options: &[&str]) -> Result<Option<Arguments>, Failure> {
    arguments_and_flags(help, words_max, options, &[])
}

/// The same with flags, which are options without a value. A name of one letter has one dash, `-c`, a longer one has two.
pub(crate) fn arguments_and_flags(
    help: &str,
    words_max: usize,
    options: &[&str],
    flags: &[&str],
) -> Result<Option<Arguments>, Failure> {
    arguments_and_pairs(help, words_max, options, flags, &[])
}

/// The same with options that have two values.
pub(crate) fn arguments_and_pairs(
    help: &str,
    words_max: usize,
    options: &[&str],
    flags: &[&str],
    pairs: &[&str],
) -> Result<Option<Arguments>, Failure> {
    let mut given = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next().map_err(misused)? {
        let name = match argument {
            Short(letter) => letter.to_string(),
            Long(name) if name.len() > 1 => name.to_owned(),
            _ => String::new(),
        };
        match argument {
            Short('h') | Long("help") => {
                print(help)?;
                return Ok(None);
            }
            _ if options.contains(&&*name) => given.options.push((name, parser.value().map_err(misused)?)),
            _ if flags.contains(&&*name) => given.flags.push(name),
            _ if pairs.contains(&&*name) => {
                let mut value = || parser.value().map_err(|_| misused(format!("{} takes two values", dashed(&name))));
                given.pairs.push((name.clone(), value()?, value()?));
            }
            Value(word) if given.words.len() < words_max => given.words.push_back(word),
            other => return Err(misused(other.unexpected())),
        }
    }
    Ok(Some(given))
}

/// The same for programs that take an address and nothing else.
pub(crate) fn address(help: &str, otherwise: &str) -> Result<Option<String>, Failure> {
    let Some(mut given) = arguments(help, 1, &[])? else { return Ok(None) };
    Ok(Some(given.text()?.unwrap_or_else(|| otherwise.into())))
}

/// The options with a value, of all those that `help` lists: a line for each, which begins with `  --NAME`.
pub(crate) fn options_in<'a>(help: &'a str, flags: &[&str], pairs: &[&str]) -> Vec<&'a str> {
    let names = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
    names.filter(|name| !flags.contains(name) && !pairs.contains(name)).collect()
}

/// A year: nobody means more.
const SECONDS_MAX: u64 = 365 * 24 * 60 * 60;

impl Arguments {
    /// The next word; it may be the name of a file, which need not be text.
    pub(crate) fn word(&mut self) -> Option<OsString> {
        self.words.pop_front()
    }

    /// The next word, as the name of a file or a folder.
    pub(crate) fn path(&mut self, what: &str) -> Result<Option<PathBuf>, Failure> {
        self.word().map(|word| path(what, word)).transpose()
    }

    /// The next word, as text.
    pub(crate) fn text(&mut self) -> Result<Option<String>, Failure> {
        self.word().map(|word| word.string().map_err(misused)).transpose()
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// The value of an option; if it was given several times, the last one.
    pub(crate) fn option(&self, name: &str) -> Option<&OsString> {
        self.options.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// All values of an option.
    pub(crate) fn option_all(&self, name: &str) -> impl Iterator<Item = &OsString> {
        self.options.iter().filter(move |(given, _)| given == name).map(|(_, value)| value)
    }

    /// All options without the words, to start another process with.
    pub(crate) fn options_again(&self) -> Vec<OsString> {
        let mut again: Vec<OsString> = self.flags.iter().map(|flag| dashed(flag).into()).collect();
        for (name, value) in &self.options {
            again.extend([dashed(name).into(), value.clone()]);
        }
        for (name, one, two) in &self.pairs {
            again.extend([dashed(name).into(), one.clone(), two.clone()]);
        }
        again
    }

    /// The two values of an option; if it was given several times, the last ones.
    pub(crate) fn pair(&self, name: &str) -> Option<(&OsString, &OsString)> {
        self.pairs.iter().rev().find(|(given, ..)| given == name).map(|(_, one, two)| (one, two))
    }

    /// The value of an option, as text.
    pub(crate) fn option_text(&self, name: &str) -> Result<Option<String>, Failure> {
        self.option(name).map(|value| value.clone().string().map_err(misused)).transpose()
    }

    /// The same as a whole number.
    pub(crate) fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Failure>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(value) = self.option(name) else { return Ok(None) };
        let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
        let (least, most, value) = (range.start(), range.end(), value.to_string_lossy());
        number
            .map(Some)
            .ok_or_else(|| misused(format!("{} takes a whole number from {least} to {most}, not '{value}'", dashed(name))))
    }

    /// The same as a time in seconds, at least one.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<Duration>, Failure> {
        Ok(self.number(name, 1..=SECONDS_MAX)?.map(Duration::from_secs))
    }
}

/// An option as you write it.
pub(crate) fn dashed(name: &str) -> String {
    format!("{}{name}", if name.len() == 1 { "-" } else { "--" })
}

/// The name of a file or a folder.
pub(crate) fn path(what: &str, word: OsString) -> Result<PathBuf, Failure> {
    if word.is_empty() { Err(misused(format!("{what} '' names nothing"))) } else { Ok(word.into()) }
}

/// The address to connect to. What cannot be an address is a wrong command line, whatever the network would say to it.
pub(crate) fn callee(what: &str, text: &str) -> Result<Target, Failure> {
    callee_by(IpProtocol::Tcp, what, text)
}

/// The same for another protocol: a service may have another port there.
pub(crate) fn callee_by(protocol: IpProtocol, what: &str, text: &str) -> Result<Target, Failure> {
    callee_of(protocol, text).map_err(|why| misused(format!("{what}: {why}")))
}

fn callee_of(protocol: IpProtocol, text: &str) -> Result<Target, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        let name = path.strip_prefix('@').unwrap_or(path);
        return if is_path_of_a_socket(name) {
            Ok(text.into())
        } else {
            Err(format!("a Unix socket's path of {} bytes is too long for this system", name.len()))
        };
    }
    let parts = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains([':', '/'])),
    };
    let Some((host, port)) = parts.filter(|(host, port)| !host.is_empty() && !port.is_empty()) else {
        return Err(format!("`{text}` is not an address: write HOST:PORT, IP:PORT, [IPv6]:PORT or unix:/path"));
    };
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) {
        port.parse().map_err(|_| format!("there is no port {port}: the highest is 65535"))?
    } else {
        service_port(port, protocol).map_err(|error| error.to_string())?
    };
    if port == 0 {
        return Err(format!("`{text}`: cannot connect to port 0, which is only for listening"));
    }
    Ok(text.parse::<SocketAddr>().map_or_else(|_| (host, port).into(), Target::from))
}

#[cfg(unix)]
fn is_path_of_a_socket(name: &str) -> bool {
    std::os::unix::net::SocketAddr::from_pathname(name).is_ok()
}

/// There are no Unix sockets here: connecting or listening says so.
#[cfg(not(unix))]
fn is_path_of_a_socket(_: &str) -> bool {
    true
}

/// Whether a name or an address is wrong by itself, whatever a name server would say to it, for example because its zone does
/// not exist.
pub(crate) fn is_misused(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::InvalidInput => true,
        ErrorKind::NotFound => error.raw_os_error().is_none() && NameError::of(error).is_none(),
        _ => false,
    }
}

/// The outcome of listening; if it was not an address, the command line was wrong.
pub(crate) fn listening(outcome: io::Result<Key>) -> Result<Key, Failure> {
    outcome.map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => misused(error),
        // An unknown service. (If a folder is missing, the message begins with "cannot listen".)
        ErrorKind::NotFound if !error.to_string().starts_with("cannot ") => misused(error),
        _ => error.into(),
    })
}

// ------------------------------------------------------------------------------------------------------------- output

/// Prints a line of the result: if that cannot be written, it is an error.
pub(crate) fn print(what: impl Display) -> Result<(), Failure> {
    put(format_args!("{what}\n"))
}

/// The same without the end of the line.
pub(crate) fn put(what: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    write!(stdout, "{what}").and_then(|()| stdout.flush()).map_err(unwritten)
}

/// Prints a line that may be lost, as one of a log. Callbacks use this because `println!` panics if the line cannot be
/// written (a full disk, a closed pipe), and a panic in `closed` would skip what comes after it.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(io::stdout(), "{what}");
}

/// The same for standard error.
pub(crate) fn complain(what: impl Display) {
    if cfg!(test) {
        return eprintln!("{what}"); // a failing test shows it
    }
    let _ = writeln!(io::stderr(), "{what}");
}

/// The first line of output: from now on clients can connect.
pub(crate) fn announce<S>(net: &Net<'_, S>, listener: Key) -> Result<(), Failure> {
    let local = net.local(listener).expect("a listener that was just opened has an address");
    print(format_args!("listening on {local}"))
}

// ------------------------------------------------------------------------------------------------------- the system

/// Ctrl-C (and SIGTERM) ends the loop before the program is done; the exit status says so.
pub(crate) fn stop_on_interrupt<S: 'static>(reactor: &Reactor<S>) -> io::Result<()> {
    let remote = reactor.remote();
    on_interrupt(move |signal| {
        SIGNAL.store(signal as u8, Ordering::Relaxed);
        remote.stop()
    })
}

/// Ctrl-C (and SIGTERM) ends the loop; this is the normal way to end the program.
pub(crate) fn end_on_interrupt<S: 'static>(reactor: &Reactor<S>) -> io::Result<()> {
    let remote = reactor.remote();
    on_interrupt(move |_| remote.stop())
}

/// Ctrl-C (and SIGTERM) lets what is under way finish, for at most `grace`.
pub(crate) fn drain_on_interrupt<S: 'static>(reactor: &Reactor<S>, grace: Duration) -> io::Result<()> {
    let remote = reactor.remote();
    on_interrupt(move |_| remote.post(move |net, _| net.drain(grace)))
}

/// The first Ctrl-C calls `first`; the second one kills us. The crate can do this without a thread, by `net.on_signal`, with
/// the feature `signals`; the examples use no features, so that you can start each by its name alone. (The waiting thread
/// holds a remote, so `run` does not end by itself.)
#[cfg(unix)]
pub(crate) fn on_interrupt(mut first: impl FnMut(i32) -> Result<(), Gone> + Send + 'static) -> io::Result<()> {
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| io::Error::new(error.kind(), format!("cannot wait for Ctrl-C: {error}")))?;
    std::thread::spawn(move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if !std::mem::replace(&mut is_first, false) || first(signal).is_err() {
                let _ = emulate_default_handler(signal); // it does not fail for these two
            }
        }
    });
    Ok(())
}

/// The same where Ctrl-C is not a signal.
#[cfg(windows)]
pub(crate) fn on_interrupt(mut first: impl FnMut(i32) -> Result<(), Gone> + Send + 'static) -> io::Result<()> {
    const SIGINT: u8 = 2;
    let mut is_first = true;
    let set = ctrlc::set_handler(move || {
        if !std::mem::replace(&mut is_first, false) || first(SIGINT.into()).is_err() {
            std::process::exit((ENDED_BY + SIGINT).into());
        }
    });
    set.map_err(|error| io::Error::other(format!("cannot wait for Ctrl-C: {error}")))
}

/// How many descriptors we may still open. A shell has our limit and prints it; getrlimit(2) would need a crate, or `unsafe`.
pub(crate) fn descriptors_left() -> usize {
    if cfg!(windows) {
        return usize::MAX; // processes have no limit there
    }
    let told = Command::new("sh").args(["-c", "ulimit -n"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let told = told.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let most = match told.trim() {
        "unlimited" => usize::MAX,
        number => number.parse().unwrap_or(256), // no system gives less
    };
    let open = fs::read_dir("/dev/fd").map_or(3, Iterator::count);
    most.saturating_sub(open)
}
