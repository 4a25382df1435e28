//! The sender: one file after the other, on one connection.

use crate::{
    common::{Failure, complain, is_misused, misused, say, stop_on_interrupt},
    line::{Answer, Header, LINE_MAX, TICK, check_name},
    printable::printable,
    sha256::Sha256,
};
use mainspring::{Connect, Context, Limit, OffloadError, Outcome, Protocol, Reactor, Reason, Target, Terminator};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How much is read from the disk at a time; as much as the output may hold before it is congested.
const PIECE: usize = 64 << 10;

/// A receiver that cannot be reached, says nothing or takes nothing for so long is given up.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

type Ctx<'a> = Context<'a, Report>;

#[derive(Default)]
struct Report {
    is_connected: bool,
    failed: usize,
    /// ADDR was none.
    misused: Option<Failure>,
}

pub(crate) fn send(to: Target, files: Vec<PathBuf>, timeout: Duration) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let how = Connect::new().timeout(timeout);
    let sender = Sender { files: files.into(), now: Stage::Idle, timeout, is_told: false, refused: None };
    reactor.net().connect_with(&to, how, sender);
    reactor.net().after(TICK, move |_, report: &mut Report| {
        if !report.is_connected {
            say(format_args!("connecting to {to}, for {} seconds at most", timeout.as_secs()));
        }
    });
    let mut report = Report::default();
    reactor.run(&mut report)?;
    reactor.shutdown(&mut report); // if we were interrupted: what is not sent is counted
    if let Some(why) = report.misused {
        return Err(why);
    }
    match report.failed {
        0 => Ok(()),
        1 => Err("a file was not sent".into()),
        failed => Err(format!("{failed} files were not sent").into()),
    }
}

struct Sender {
    files: VecDeque<PathBuf>,
    now: Stage,
    /// How long the receiver may say nothing, where it has to.
    timeout: Duration,
    /// What we wait for was said.
    is_told: bool,
    /// The file that was refused when all of it was sent already. The receiver may not have read on.
    refused: Option<String>,
}

enum Stage {
    Idle,
    /// Another thread works its checksum out, and has read so much.
    Opening(String, Arc<AtomicU64>),
    /// The header is sent.
    Asking(Source),
    /// `None` while another thread reads the next piece.
    Sending(Option<Source>, Progress),
    /// All is sent.
    Awaiting(Progress),
}

struct Progress {
    name: String,
    sent: u64,
    size: u64,
}

struct Source {
    header: Header,
    file: File,
}

impl Protocol<Report> for Sender {
    fn connected(&mut self, ctx: &mut Ctx<'_>, report: &mut Report) -> Outcome {
        report.is_connected = true;
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_frame_timeout(self.timeout);
        ctx.set_stall_timeout(self.timeout);
        ctx.every(TICK, |me: &mut Self, ctx, _| {
            if matches!(me.now, Stage::Opening(..)) {
                ctx.send(Answer::Busy.line());
            }
            me.tell();
            Ok(())
        });
        self.next(ctx);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, report: &mut Report, line: &[u8]) -> Outcome {
        let answer = Answer::parse(line).map_err(|why| format!("what answers is no receiver of files: {why}"))?;
        if answer == Answer::Busy {
            self.tell_that_it_is_busy();
            return Ok(());
        }
        self.refused = self.now.name().filter(|_| matches!(self.now, Stage::Awaiting(_))).map(str::to_owned);
        match (answer, std::mem::replace(&mut self.now, Stage::Idle)) {
            (Answer::Ready { offset }, Stage::Asking(source)) if offset <= source.header.size => self.begin(ctx, source, offset),
            (Answer::Done, Stage::Asking(source)) => {
                say(format_args!("{}: is there already", source.header.name));
                self.next(ctx);
            }
            (Answer::Done, Stage::Awaiting(Progress { name, size, .. })) => {
                say(format_args!("{name}: sent, {size} bytes"));
                self.next(ctx);
            }
            (
                Answer::Refused { why },
                Stage::Asking(Source { header: Header { name, .. }, .. }) | Stage::Awaiting(Progress { name, .. }),
            ) => {
                report.fails(&name, &why);
                self.next(ctx);
            }
            // It cannot go on with this file, nor with this connection.
            (answer, now) => {
                self.now = now;
                return Err(match answer {
                    Answer::Refused { why } => why.into(),
                    other => format!("the receiver says {other:?}, which answers nothing").into(),
                });
            }
        }
        Ok(())
    }

    fn writable(&mut self, ctx: &mut Ctx<'_>, _: &mut Report) -> Outcome {
        self.pump(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, report: &mut Report, why: Reason) {
        ctx.net.stop();
        let (again, seconds) = ("; send it again, and it goes on", self.timeout.as_secs());
        let why = match why {
            Reason::Resolve(error) if is_misused(&error) => {
                report.misused = Some(misused(error));
                return;
            }
            Reason::Eof => format!("the receiver ended before it had all{again}"),
            Reason::Shutdown => format!("interrupted{again}"),
            Reason::Limit(Limit::Stalled) => format!("the receiver has taken nothing for {seconds} seconds{again}"),
            Reason::Limit(Limit::Idle | Limit::FrameTime) => {
                format!("the receiver has said nothing for {seconds} seconds{again}")
            }
            Reason::Limit(Limit::FrameBytes) => {
                format!("what answers is no receiver of files: its line is longer than {LINE_MAX} bytes")
            }
            Reason::Failed(fault) => fault.to_string(),
            why if why.is_connect() => why.to_string(),
            why => format!("{why}{again}"),
        };
        let name = self.now.name().map(str::to_owned);
        let ended_with = |name| format!("not tried, because the connection ended with {name}");
        let why = self.refused.take().map_or(why, ended_with);
        if let Some(name) = &name {
            report.fails(name, &why);
        }
        let why = name.map_or(why, ended_with);
        for file in self.files.drain(..) {
            report.fails(&file.display().to_string(), &why);
        }
    }
}

impl Stage {
    /// Of the file that it is about.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Idle => None,
            Self::Opening(name, _) | Self::Sending(_, Progress { name, .. }) | Self::Awaiting(Progress { name, .. }) => {
                Some(name)
            }
            Self::Asking(source) => Some(&source.header.name),
        }
    }
}

impl Report {
    fn fails(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.failed += 1;
        complain(printable(&format!("{name}: {why}"))); // the receiver may have said it
    }
}

impl Sender {
    /// How far it is; of what we wait for once.
    fn tell(&mut self) {
        let is_told = std::mem::replace(&mut self.is_told, true);
        let seconds = self.timeout.as_secs();
        match &self.now {
            Stage::Opening(name, read) => {
                let read = read.load(Ordering::Relaxed);
                say(format_args!("{}: read for its checksum, {read} bytes so far", printable(name)));
            }
            Stage::Sending(_, Progress { name, sent, size }) => say(format_args!("{name}: {sent} of {size} bytes")),
            Stage::Asking(Source { header: Header { name, .. }, .. }) | Stage::Awaiting(Progress { name, .. }) if !is_told => {
                say(format_args!("{name}: waiting for the receiver's answer, for {seconds} seconds at most"));
            }
            _ => {}
        }
    }

    /// Once.
    fn tell_that_it_is_busy(&mut self) {
        let is_told = std::mem::replace(&mut self.is_told, true);
        if let Some(name) = self.now.name().filter(|_| !is_told) {
            say(format_args!("{}: the receiver is busy with it", printable(name)));
        }
    }

    /// From here on the receiver has to say something, or has not.
    fn enter(&mut self, ctx: &mut Ctx<'_>, stage: Stage) {
        let waits = matches!(stage, Stage::Asking(_) | Stage::Awaiting(_));
        ctx.set_idle_timeout(waits.then_some(self.timeout));
        (self.now, self.is_told) = (stage, false);
    }

    fn next(&mut self, ctx: &mut Ctx<'_>) {
        let Some(path) = self.files.pop_front() else {
            ctx.close();
            return;
        };
        let (shown, read) = (path.display().to_string(), Arc::<AtomicU64>::default());
        self.enter(ctx, Stage::Opening(shown.clone(), Arc::clone(&read)));
        ctx.offload(
            move || open(&path, &read),
            move |me: &mut Self, ctx, report, opened: Result<io::Result<Source>, OffloadError>| {
                match opened? {
                    Ok(source) => {
                        ctx.send(source.header.line());
                        me.enter(ctx, Stage::Asking(source));
                    }
                    Err(error) => {
                        report.fails(&shown, &error);
                        me.now = Stage::Idle;
                        me.next(ctx);
                    }
                }
                Ok(())
            },
        );
    }

    fn begin(&mut self, ctx: &mut Ctx<'_>, source: Source, offset: u64) {
        let Header { name, size, .. } = source.header.clone();
        if offset > 0 {
            say(format_args!("{name}: goes on at {offset} of {size} bytes"));
        }
        self.enter(ctx, Stage::Sending(Some(source), Progress { name, sent: offset, size }));
        self.pump(ctx);
    }

    /// Reads the next piece, unless one is being read, or the receiver is slow.
    fn pump(&mut self, ctx: &mut Ctx<'_>) {
        let Stage::Sending(source, progress) = &mut self.now else { return };
        let Progress { sent, size, .. } = *progress;
        if sent == size {
            let Stage::Sending(_, progress) = std::mem::replace(&mut self.now, Stage::Idle) else { return };
            self.enter(ctx, Stage::Awaiting(progress));
            return;
        }
        if ctx.is_congested() {
            return; // `writable` goes on
        }
        let Some(mut source) = source.take() else { return };
        ctx.offload(
            move || source.read(sent).map(|piece| (source, piece)),
            |me: &mut Self, ctx, _, read: Result<io::Result<(Source, Vec<u8>)>, OffloadError>| {
                let (source, piece) = read??;
                let Stage::Sending(place, progress) = &mut me.now else { return Ok(()) };
                progress.sent += piece.len() as u64;
                *place = Some(source);
                ctx.send(piece);
                me.pump(ctx);
                Ok(())
            },
        );
    }
}

// ------------------------------------------------------------------------------------------ blocking, on other threads

fn open(path: &Path, counted: &AtomicU64) -> io::Result<Source> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no name that can be sent"))?;
    check_name(name).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")); // to open a pipe waits for its writer
    }
    let mut file = File::open(path)?;
    let (mut sha, mut size, mut buf) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        match file.read(&mut buf)? {
            0 => break,
            n => {
                sha.add(&buf[..n]);
                size += n as u64;
                counted.store(size, Ordering::Relaxed);
            }
        }
    }
    Ok(Source { header: Header { name: name.to_owned(), size, sha256: sha.digest() }, file })
}

impl Source {
    /// The next piece, from this place on; never an empty one.
    fn read(&mut self, from: u64) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        self.file.seek(SeekFrom::Start(from))?;
        (&mut self.file).take((self.header.size - from).min(PIECE as u64)).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter while it was sent"));
        }
        Ok(piece)
    }
}
