//! One request and its answer, and the ways in which that can fail.

use crate::{
    common::{Failure, complain, is_misused, misused, own_up, print, stop_on_interrupt, unwritten},
    gopher::Kind,
    reply::{Reply, Verdict},
};
use mainspring::{Connect, Context, Limit, NameError, Outcome, Protocol, Reactor, Reason, Target};
use std::{
    fmt,
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) selector: String,
    pub(crate) words: Option<String>,
    pub(crate) kind: Option<Kind>,
    pub(crate) output: Option<PathBuf>,
    pub(crate) timeout: Duration,
}

impl Asked {
    fn line(&self) -> String {
        match &self.words {
            Some(words) => format!("{}\t{words}\r\n", self.selector),
            None => format!("{}\r\n", self.selector),
        }
    }
}

/// Why nothing, or not everything, was fetched: each stage has an exit code of its own.
#[derive(Debug)]
pub(crate) enum Failed {
    Here(Failure),
    NoSuchHost(String),
    Unreachable(String),
    TimedOut(String),
    ClosedEarly(String),
    Refused(String),
    Interrupted,
}

impl Failed {
    /// Says what went wrong, and returns the exit status for it.
    pub(crate) fn own_up(self) -> u8 {
        let status = match self {
            Self::Here(why) => return own_up(&why),
            Self::NoSuchHost(_) => 3,
            Self::Unreachable(_) => 4,
            Self::TimedOut(_) => 5,
            Self::ClosedEarly(_) => 6,
            Self::Refused(_) => 7,
            Self::Interrupted => 1, // which the signal's own replaces
        };
        own_up(&self.to_string().into());
        status
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(why) => write!(f, "{why}"),
            Self::NoSuchHost(why) | Self::Unreachable(why) => f.write_str(why),
            Self::TimedOut(why) => write!(f, "time-out: {why}"),
            Self::ClosedEarly(why) => write!(f, "the server closed the connection early: {why}"),
            Self::Refused(why) => write!(f, "the server says: {why}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Where the answer goes.
enum Sink {
    Screen,
    File(Kept),
}

/// A file that appears when it is complete.
struct Kept {
    path: PathBuf,
    part: PathBuf,
    file: File,
    bytes: u64,
    is_complete: bool,
}

impl Kept {
    fn new(path: PathBuf) -> Result<Self, Failure> {
        if fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
            return Err(format!("cannot write '{}': it exists, and is not a plain file", path.display()).into());
        }
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let file = File::create(&part).map_err(|error| format!("cannot write '{}': {error}", Path::new(&part).display()))?;
        Ok(Self { path, part: part.into(), file, bytes: 0, is_complete: false })
    }

    fn fails(&self, error: &io::Error) -> Failure {
        format!("cannot write '{}': {error}", self.path.display()).into()
    }

    fn complete(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.is_complete {
            let _ = fs::remove_file(&self.part); // a part is useless, and harmless if it cannot be removed
        }
    }
}

impl Sink {
    /// Writing may block, which is fine as there is nothing else to do: the server waits meanwhile.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Screen => io::stdout().write_all(bytes).map_err(unwritten),
            Self::File(kept) => {
                kept.bytes += bytes.len() as u64;
                kept.file.write_all(bytes).map_err(|error| kept.fails(&error))
            }
        }
    }

    fn complete(&mut self) -> Result<(), Failure> {
        match self {
            Self::Screen => io::stdout().flush().map_err(unwritten),
            Self::File(kept) => {
                kept.complete().map_err(|error| kept.fails(&error))?;
                print(format_args!("{} bytes in {}", kept.bytes, kept.path.display()))
            }
        }
    }

    /// Shows the progress in one line, again and again, on a terminal.
    fn show_progress(&self) {
        if let Self::File(kept) = self {
            let _ = write!(io::stderr(), "\r{} bytes ", kept.bytes); // it may be lost
        }
    }
}

/// The state of the program: how it ended, once it has.
type Ended = Option<Result<(), Failed>>;

struct Client {
    asked: Asked,
    reply: Reply,
    sink: Sink,
    shows_progress: bool,
}

/// How often the progress is shown.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

impl Protocol<Ended> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Ended>, _: &mut Ended) -> Outcome {
        ctx.send(self.asked.line());
        ctx.set_idle_timeout(self.asked.timeout);
        if self.shows_progress {
            ctx.every(PROGRESS_PERIOD, |me: &mut Self, _, _| {
                me.sink.show_progress();
                Ok(())
            });
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Ended>, _: &mut Ended, bytes: &[u8]) -> Outcome {
        let mut out = Vec::new();
        self.reply.push(bytes, &mut out);
        self.put(&out)?;
        if self.reply.is_done() {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ended>, ended: &mut Ended, why: Reason) {
        if self.shows_progress {
            complain("");
        }
        *ended = Some(self.end(why));
        ctx.net.stop();
    }
}

impl Client {
    fn put(&mut self, out: &[u8]) -> Result<(), Failure> {
        if self.reply.is_raw() && matches!(self.sink, Sink::Screen) && io::stdout().is_terminal() {
            return Err("this is binary: use --output to write it to a file".into());
        }
        self.sink.write(out)
    }

    fn end(&mut self, why: Reason) -> Result<(), Failed> {
        match why {
            Reason::Finish | Reason::Eof => self.end_of_answer(),
            Reason::Resolve(error) => Err(unresolved(&error)),
            Reason::Connect(error) if error.kind() == io::ErrorKind::TimedOut => Err(Failed::TimedOut(error.to_string())),
            Reason::Connect(_) => Err(Failed::Unreachable(why.to_string())),
            Reason::Limit(Limit::Idle) => {
                Err(Failed::TimedOut(format!("nothing came for {} seconds", self.asked.timeout.as_secs())))
            }
            Reason::Io(error) => Err(Failed::ClosedEarly(error.to_string())),
            Reason::Failed(fault) => Err(Failed::Here(fault)),
            other => Err(Failed::Here(other.to_string().into())),
        }
    }

    fn end_of_answer(&mut self) -> Result<(), Failed> {
        let mut out = Vec::new();
        self.reply.end(&mut out);
        let verdict = self.reply.verdict();
        self.put(&out).map_err(Failed::Here)?;
        match verdict {
            Verdict::Refused(why) => return Err(Failed::Refused(why)),
            Verdict::Early => return Err(Failed::ClosedEarly("the answer is not complete".into())),
            Verdict::WithoutLastLine => complain("note: the last line, a single dot, is missing; the text may not be complete"),
            Verdict::Complete => {}
        }
        self.sink.complete().map_err(Failed::Here)
    }
}

fn unresolved(error: &io::Error) -> Failed {
    match NameError::of(error) {
        Some(NameError::TimedOut) => Failed::TimedOut(error.to_string()),
        Some(NameError::NotFound) => Failed::NoSuchHost(format!("no such host: {error}")),
        None if is_misused(error) => Failed::Here(misused(error)),
        // It may exist; we just could not find out. (Without the feature `names`, only the text of the resolver can tell.)
        _ => Failed::NoSuchHost(format!("could not look the host up: {error}")),
    }
}

pub(crate) fn fetch(asked: Asked) -> Result<(), Failed> {
    let mut ended = None;
    run(asked, &mut ended).map_err(Failed::Here)?;
    ended.unwrap_or(Err(Failed::Interrupted))
}

fn run(asked: Asked, ended: &mut Ended) -> Result<(), Failure> {
    let sink = match &asked.output {
        Some(path) => Sink::File(Kept::new(path.clone())?),
        None => Sink::Screen,
    };
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let is_on_terminal = matches!(sink, Sink::Screen) && io::stdout().is_terminal();
    let shows_progress = matches!(sink, Sink::File(_)) && io::stderr().is_terminal();
    let reply = Reply::new((asked.host.clone(), asked.port), asked.kind, is_on_terminal);
    let (to, how) = (Target::Name(asked.host.clone(), asked.port), Connect::new().timeout(asked.timeout));
    reactor.net().connect_with(to, how, Client { asked, reply, sink, shows_progress });
    Ok(reactor.run(ended)?)
}
