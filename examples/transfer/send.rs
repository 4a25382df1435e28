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

/// We give up on a receiver that cannot be reached, says nothing or reads nothing for this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

type Ctx<'a> = Context<'a, Report>;

#[derive(Default)]
struct Report {
    is_connected: bool,
    failed: usize,
    /// ADDR was wrong.
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
    reactor.shutdown(&mut report); // if we were interrupted, this counts what was not sent
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
    /// How long the receiver may say nothing while we wait for it.
    timeout: Duration,
    /// Whether we have reported what we wait for.
    is_told: bool,
    /// A file that was refused after we had sent all of it. The receiver may have stopped reading.
    refused: Option<String>,
}

enum Stage {
    Idle,
    /// Another thread computes its checksum, and has read so much.
    Opening(String, Arc<AtomicU64>),
    /// The header is sent.
    Asking(Source),
    /// Another thread reads it, and has read so much. After all of it, the receiver must answer.
    Sending(Header, Arc<AtomicU64>),
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
        let answer = Answer::parse(line).map_err(|why| format!("the other end is not a receiver of files: {why}"))?;
        if answer == Answer::Busy {
            self.tell_that_it_is_busy();
            return Ok(());
        }
        let waits = self.now.waits();
        self.refused = self.now.name().filter(|_| waits && matches!(self.now, Stage::Sending(..))).map(str::to_owned);
        match (answer, std::mem::replace(&mut self.now, Stage::Idle)) {
            (Answer::Ready { offset }, Stage::Asking(source)) if offset <= source.header.size => {
                self.begin(ctx, source, offset)?;
            }
            (Answer::Done, Stage::Asking(source)) => {
                say(format_args!("{}: is there already", source.header.name));
                self.next(ctx);
            }
            (Answer::Done, Stage::Sending(Header { name, size, .. }, _)) if waits => {
                say(format_args!("{name}: sent, {size} bytes"));
                self.next(ctx);
            }
            (Answer::Refused { why }, now) if waits => {
                report.fails(now.name().unwrap_or_default(), &why);
                self.next(ctx);
            }
            // We cannot go on with this file, nor with this connection.
            (answer, now) => {
                self.now = now;
                return Err(match answer {
                    Answer::Refused { why } => why.into(),
                    other => format!("the receiver says {other:?}, which is not an answer to anything").into(),
                });
            }
        }
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
                format!("the other end is not a receiver of files: its line is longer than {LINE_MAX} bytes")
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
    /// The name of the file at hand.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Idle => None,
            Self::Opening(name, _) => Some(name),
            Self::Asking(Source { header, .. }) | Self::Sending(header, _) => Some(&header.name),
        }
    }

    /// Whether it is the receiver's turn to say something.
    fn waits(&self) -> bool {
        match self {
            Self::Asking(_) => true,
            Self::Sending(header, read) => read.load(Ordering::Relaxed) == header.size,
            _ => false,
        }
    }
}

impl Report {
    fn fails(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.failed += 1;
        complain(printable(&format!("{name}: {why}"))); // the text may come from the receiver
    }
}

impl Sender {
    /// Reports the progress, or, once, what we wait for.
    fn tell(&mut self) {
        let is_told = std::mem::replace(&mut self.is_told, true);
        let seconds = self.timeout.as_secs();
        match &self.now {
            now if now.waits() => {
                if let Some(name) = now.name().filter(|_| !is_told) {
                    say(format_args!("{name}: waiting for the receiver's answer, for {seconds} seconds at most"));
                }
            }
            Stage::Opening(name, read) => {
                let read = read.load(Ordering::Relaxed);
                say(format_args!("{}: read for its checksum, {read} bytes so far", printable(name)));
            }
            Stage::Sending(Header { name, size, .. }, read) => {
                say(format_args!("{name}: {} of {size} bytes", read.load(Ordering::Relaxed)));
            }
            _ => {}
        }
    }

    /// Only once for each file.
    fn tell_that_it_is_busy(&mut self) {
        let is_told = std::mem::replace(&mut self.is_told, true);
        if let Some(name) = self.now.name().filter(|_| !is_told) {
            say(format_args!("{}: the receiver is busy with it", printable(name)));
        }
    }

    /// Begins a stage; the time-out runs only if it is the receiver's turn.
    fn enter(&mut self, ctx: &mut Ctx<'_>, stage: Stage) {
        ctx.set_idle_timeout(stage.waits().then_some(self.timeout));
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

    fn begin(&mut self, ctx: &mut Ctx<'_>, Source { header, mut file }: Source, offset: u64) -> Outcome {
        let Header { name, size, .. } = &header;
        if offset > 0 {
            say(format_args!("{name}: goes on at {offset} of {size} bytes"));
        }
        file.seek(SeekFrom::Start(offset))?; // does not touch the disk
        let (left, read) = (size - offset, Arc::new(AtomicU64::new(offset)));
        let reader = Counted { reader: file.take(left), read: Arc::clone(&read) };
        self.enter(ctx, Stage::Sending(header, Arc::clone(&read)));
        ctx.send_from(reader, move |me: &mut Self, ctx, _, sent| {
            if sent? < left {
                return Err("it became shorter while it was sent".into());
            }
            // Unless there was an answer already, and this is another file by now.
            if matches!(&me.now, Stage::Sending(_, now) if Arc::ptr_eq(now, &read)) {
                ctx.set_idle_timeout(me.timeout);
                me.is_told = false;
            }
            Ok(())
        });
        Ok(())
    }
}

// ------------------------------------------------------------------------------------------ blocking, on other threads

fn open(path: &Path, counted: &AtomicU64) -> io::Result<Source> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no name that can be sent"))?;
    check_name(name).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")); // opening a pipe waits for its writer
    }
    let mut file = File::open(path)?;
    let (mut sha, mut size, mut buf) = (Sha256::new(), 0, vec![0; 64 << 10]);
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

/// Counts what it has read, for another thread.
struct Counted<R> {
    reader: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
