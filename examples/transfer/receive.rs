//! The receiver. A file that is on its way is `.NAME.DIGEST.part` in its later folder; when it is complete and its checksum is
//! right, it gets its name.

use crate::{
    common::{Failure, announce, drain_on_interrupt, listening, say},
    line::{Answer, Header, LINE_MAX, TICK, check_name},
    sha256::Sha256,
};
use mainspring::{Context, OffloadError, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A sender that sends nothing for this long, or reads nothing, is disconnected.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// After Ctrl-C, the time for files that are coming.
const GRACE: Duration = Duration::from_secs(10);

type Ctx<'a> = Context<'a, ()>;

pub(crate) fn receive(folder: PathBuf, at: String, limit: u64) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(format!("'{}' is not a folder", folder.display()).into());
    }
    let depot = Rc::new(Depot { folder, limit, coming: Arc::default() });
    let mut reactor = Reactor::new()?;
    let receiver = move || Receiver { depot: Rc::clone(&depot), part: None, work: Work::None };
    let listener = listening(reactor.net().listen(at, receiver))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    reactor.run(&mut ())?;
    reactor.shutdown(&mut ()); // which reports what breaks off
    Ok(())
}

struct Depot {
    folder: PathBuf,
    limit: u64,
    /// The names of files that are on their way: only one sender at a time for each.
    coming: Arc<Mutex<BTreeSet<String>>>,
}

struct Receiver {
    depot: Rc<Depot>,
    /// The file that is coming; `None` while another thread has it.
    part: Option<Part>,
    work: Work,
}

/// What is under way.
#[derive(PartialEq, Eq)]
enum Work {
    None,
    /// Another thread reads what we have of a file, or waits until all of it is on the disk. We keep telling the sender.
    Busy,
    /// A file is coming.
    Coming,
}

impl Protocol for Receiver {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut ()) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(IDLE_MAX);
        ctx.set_frame_timeout(IDLE_MAX);
        ctx.set_stall_timeout(IDLE_MAX);
        ctx.every(TICK, |me: &mut Self, ctx, _| {
            if me.work == Work::Busy {
                ctx.send(Answer::Busy.line());
            }
            Ok(())
        });
        Ok(())
    }

    /// Bytes of the file. No more come until these are written, so there is never more than one piece in memory.
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut (), bytes: &[u8]) -> Outcome {
        let part = self.part.take().expect("bytes come for a file that is coming");
        let (bytes, what) = (bytes.to_vec(), part.to_string());
        ctx.offload_held(
            move || part.write(&bytes),
            move |me: &mut Self, ctx, _, written: Result<io::Result<Part>, OffloadError>| {
                match written? {
                    Ok(part) => me.part = Some(part),
                    Err(error) => {
                        say(format_args!("{what}, from {}: cannot write it, so it is removed: {error}", ctx.peer()));
                        refuse(ctx, format!("the receiver cannot write it: {error}"));
                        ctx.close(); // the rest of what it sends is not lines
                    }
                }
                Ok(())
            },
        );
        Ok(())
    }

    /// A header, or the end of the bytes.
    fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut (), line: &[u8]) -> Outcome {
        if let Some(part) = self.part.take() {
            self.finish(ctx, part);
            return Ok(());
        }
        if Answer::parse(line) == Ok(Answer::Busy) {
            return Ok(()); // the sender reads the next file for its checksum
        }
        match Header::parse(line).map(|header| self.depot.admit(header)) {
            Ok(Ok(job)) => self.begin(ctx, job),
            Ok(Err(why)) => refuse(ctx, why),
            Err(why) => {
                refuse(ctx, why);
                ctx.close(); // it is not a sender of ours, so no header will follow
            }
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut ()) -> Outcome {
        if self.work == Work::None {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, _: &mut (), why: Reason) {
        if let Some(part) = &self.part {
            say(format_args!("{part}, from {}: broken off: {why}", ctx.peer()));
        }
    }
}

fn refuse(ctx: &mut Ctx<'_>, why: String) {
    ctx.send(Answer::Refused { why }.line());
}

impl Receiver {
    /// Looks at what we have already.
    fn begin(&mut self, ctx: &mut Ctx<'_>, job: Job) {
        self.work = Work::Busy;
        ctx.offload_held(
            || job.begin(),
            |me: &mut Self, ctx, _, begun: Result<Result<Option<Part>, String>, OffloadError>| {
                me.work = Work::None;
                match begun? {
                    Ok(Some(part)) => {
                        ctx.send(Answer::Ready { offset: part.has }.line());
                        ctx.set_terminator(Terminator::Stream(part.size() - part.has));
                        (me.part, me.work) = (Some(part), Work::Coming);
                    }
                    Ok(None) => ctx.send(Answer::Done.line()),
                    Err(why) => refuse(ctx, why),
                }
                me.leave_if_draining(ctx);
                Ok(())
            },
        );
    }

    /// All bytes are here.
    fn finish(&mut self, ctx: &mut Ctx<'_>, part: Part) {
        let what = format!("{}: {} bytes", part.job.header.name, part.size());
        ctx.set_terminator(Terminator::line(LINE_MAX));
        self.work = Work::Busy;
        ctx.offload_held(
            || part.finish(),
            move |me: &mut Self, ctx, _, finished: Result<Result<(), String>, OffloadError>| {
                me.work = Work::None;
                match finished? {
                    Ok(()) => {
                        ctx.send(Answer::Done.line());
                        say(format_args!("{what} from {}", ctx.peer()));
                    }
                    Err(why) => {
                        say(format_args!("{what} from {}: {why}", ctx.peer()));
                        refuse(ctx, why);
                    }
                }
                me.leave_if_draining(ctx);
                Ok(())
            },
        );
    }

    /// After Ctrl-C, the file under way was the last.
    fn leave_if_draining(&self, ctx: &mut Ctx<'_>) {
        if self.work == Work::None && ctx.net.is_draining() {
            ctx.close();
        }
    }
}

// ------------------------------------------------------------------------------------------ blocking, on other threads

impl Depot {
    fn admit(&self, header: Header) -> Result<Job, String> {
        check_name(&header.name)?;
        if header.size > self.limit {
            return Err(format!("{} bytes are too many: {} at most", header.size, self.limit));
        }
        let claim = Claim::new(&self.coming, &header.name).ok_or("somebody else is sending a file of that name")?;
        let part = self.folder.join(format!(".{}.{}.part", header.name, &header.sha256[..16]));
        Ok(Job { whole: self.folder.join(&header.name), part, header, _claim: claim })
    }
}

/// A name that nobody else may send meanwhile. It is free again when the last owner of the file drops it, on whatever thread.
struct Claim {
    coming: Arc<Mutex<BTreeSet<String>>>,
    name: String,
}

impl Claim {
    fn new(coming: &Arc<Mutex<BTreeSet<String>>>, name: &str) -> Option<Self> {
        let is_new = coming.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        is_new.then(|| Self { coming: Arc::clone(coming), name: name.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// A file that a sender offers.
struct Job {
    header: Header,
    whole: PathBuf,
    part: PathBuf,
    _claim: Claim,
}

impl Job {
    /// `None` if the same file is here already.
    fn begin(self) -> Result<Option<Part>, String> {
        if fs::symlink_metadata(&self.whole).is_ok() {
            return match digest_of(&self.whole) {
                Ok((size, sha)) if size == self.header.size && sha.clone().digest() == self.header.sha256 => Ok(None),
                _ => Err("a file of that name exists, with another content".into()),
            };
        }
        self.resume().map(Some).map_err(|error| format!("cannot keep it: {error}"))
    }

    /// Goes on where an earlier try broke off.
    fn resume(self) -> io::Result<Part> {
        let (mut has, mut sha) = match digest_of(&self.part) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, Sha256::new()),
            Err(error) => return Err(error),
        };
        if has > self.header.size {
            fs::remove_file(&self.part)?;
            (has, sha) = (0, Sha256::new());
        }
        Ok(Part { job: self, file: None, sha, has })
    }
}

/// A file that is coming.
struct Part {
    job: Job,
    /// Opened at the first byte, so that a header alone leaves nothing behind.
    file: Option<File>,
    sha: Sha256,
    has: u64,
}

impl Part {
    fn size(&self) -> u64 {
        self.job.header.size
    }

    fn opened(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => append_to(&self.job.part)?,
        };
        Ok(self.file.insert(file))
    }

    /// If it cannot be written, it is removed: there is no room for it.
    fn write(mut self, bytes: &[u8]) -> io::Result<Self> {
        match self.opened().and_then(|file| file.write_all(bytes)) {
            Ok(()) => {
                self.sha.add(bytes);
                self.has += bytes.len() as u64;
                Ok(self)
            }
            Err(error) => {
                let _ = fs::remove_file(&self.job.part); // it may not exist
                Err(error)
            }
        }
    }

    /// Checks the file, and gives it its name.
    fn finish(mut self) -> Result<(), String> {
        if self.sha.clone().digest() != self.job.header.sha256 {
            let _ = fs::remove_file(&self.job.part); // the next try begins from the start
            return Err("the checksum is wrong: it changed while it was sent, or on the way".into());
        }
        // On the disk before it gets its name, so that a name always means a complete file, even after a power failure.
        let synced = self.opened().and_then(|file| file.sync_all());
        let named = synced.and_then(|()| rename_new(&self.job.part, &self.job.whole));
        named.map_err(|error| format!("cannot keep it: {error}"))
    }
}

/// How much of it we have.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} bytes", self.job.header.name, self.has, self.size())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name has appeared meanwhile"));
    }
    fs::rename(from, to)?;
    #[cfg(unix)]
    if let Some(folder) = to.parent() {
        File::open(folder)?.sync_all()?; // the name too (fsync(2))
    }
    Ok(())
}

/// The length of a plain file, and its digest so far.
fn digest_of(path: &Path) -> io::Result<(u64, Sha256)> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
    }
    let (mut file, mut sha, mut size) = (File::open(path)?, Sha256::new(), 0);
    let mut buf = vec![0; 64 << 10];
    loop {
        match file.read(&mut buf)? {
            0 => return Ok((size, sha)),
            n => {
                sha.add(&buf[..n]);
                size += n as u64;
            }
        }
    }
}
