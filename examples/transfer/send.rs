//! The sender: one file after the other, on one connection.

use crate::{
    common::{Failure, complain, say, stop_on_interrupt},
    line::{Answer, Header, LINE_MAX, SILENCE_MAX, check_name},
    printable::printable,
    sha256::Sha256,
};
use mainspring::{Context, OffloadError, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// How much is read from the disk at a time; as much as the output may hold before it is congested.
const PIECE: usize = 64 << 10;

/// A receiver that takes nothing for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How often progress is told.
const TICK: Duration = Duration::from_secs(1);

type Ctx<'a> = Context<'a, Report>;

#[derive(Default)]
struct Report {
    failed: usize,
}

pub(crate) fn send(to: String, files: Vec<PathBuf>) -> Result<(), Failure> {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    reactor.net().connect(to, Sender { files: files.into(), now: Stage::Idle });
    let mut report = Report::default();
    reactor.run(&mut report)?;
    reactor.shutdown(&mut report); // if we were interrupted: what is not sent is counted
    match report.failed {
        0 => Ok(()),
        1 => Err("a file was not sent".into()),
        failed => Err(format!("{failed} files were not sent").into()),
    }
}

struct Sender {
    files: VecDeque<PathBuf>,
    now: Stage,
}

enum Stage {
    Idle,
    /// Another thread works its checksum out.
    Opening(String),
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
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Report) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(SILENCE_MAX);
        ctx.set_stall_timeout(STALL_MAX);
        ctx.every(TICK, |me: &mut Self, _, _| {
            if let Stage::Sending(_, Progress { name, sent, size }) = &me.now {
                say(format_args!("{name}: {sent} of {size} bytes"));
            }
            Ok(())
        });
        self.next(ctx);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, report: &mut Report, line: &[u8]) -> Outcome {
        match (Answer::parse(line)?, std::mem::replace(&mut self.now, Stage::Idle)) {
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
        let why = match why {
            Reason::Eof => "the receiver ended before it had all; send it again, and it goes on".into(),
            Reason::Shutdown => "interrupted; send it again, and it goes on".into(),
            why => why.to_string(),
        };
        let name = match &self.now {
            Stage::Idle => None,
            Stage::Opening(name) | Stage::Sending(_, Progress { name, .. }) | Stage::Awaiting(Progress { name, .. }) => {
                Some(name)
            }
            Stage::Asking(source) => Some(&source.header.name),
        };
        if let Some(name) = name {
            report.fails(name, &why);
        }
        for file in self.files.drain(..) {
            report.fails(&file.display().to_string(), &why);
        }
        ctx.net.stop();
    }
}

impl Report {
    fn fails(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.failed += 1;
        complain(printable(&format!("{name}: {why}"))); // the receiver may have said it
    }
}

impl Sender {
    fn next(&mut self, ctx: &mut Ctx<'_>) {
        let Some(path) = self.files.pop_front() else {
            ctx.close();
            return;
        };
        self.now = Stage::Opening(path.display().to_string());
        let shown = path.display().to_string();
        ctx.offload(
            move || open(&path),
            move |me: &mut Self, ctx, report, opened: Result<io::Result<Source>, OffloadError>| {
                match opened? {
                    Ok(source) => {
                        ctx.send(source.header.line());
                        me.now = Stage::Asking(source);
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
        self.now = Stage::Sending(Some(source), Progress { name, sent: offset, size });
        self.pump(ctx);
    }

    /// Reads the next piece, unless one is being read, or the receiver is slow.
    fn pump(&mut self, ctx: &mut Ctx<'_>) {
        let Stage::Sending(source, progress) = &mut self.now else { return };
        let Progress { sent, size, .. } = *progress;
        if sent == size {
            let Stage::Sending(_, progress) = std::mem::replace(&mut self.now, Stage::Idle) else { return };
            self.now = Stage::Awaiting(progress);
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

fn open(path: &Path) -> io::Result<Source> {
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
