//! Work on the disk, which may block, so other threads do it. Nothing outside of the root can be reached, whatever links and
//! names say: cap-std makes the kernel ensure that (openat2(2)).

use crate::{Refused, must, refuse};
use cap_std::fs::{Dir, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    num::NonZero,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// How long an upload that broke off can be resumed; after that a new one replaces it.
const RESUMABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest name on most file systems, in bytes.
const NAME_MAX: usize = 255;

/// How much of a file is read when it is opened.
const FIRST: u64 = 64 << 10;

/// Where an upload begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    At(u64),
    /// At the end of the file, if there is one; otherwise of what a broken upload has left.
    End,
    /// The other way round, because the client has asked for the size of the latter.
    EndOfPart,
}

/// The place of a file, as the client sees it below the root.
#[derive(Clone)]
pub(crate) struct Place {
    root: Arc<Dir>,
    /// Without `.` and `..`, and beginning with a slash.
    pub(crate) path: String,
}

impl Place {
    /// The place of `name`, seen from the folder `cwd`. It need not exist.
    pub(crate) fn new(root: &Arc<Dir>, cwd: &str, name: &str) -> Self {
        let mut parts = Vec::new();
        for part in if name.starts_with('/') { "" } else { cwd }.split('/').chain(name.split('/')) {
            match part {
                "" | "." => {}
                ".." => _ = parts.pop(),
                part => parts.push(part),
            }
        }
        Self { root: Arc::clone(root), path: format!("/{}", parts.join("/")) }
    }

    /// Another place, by its path from the root.
    pub(crate) fn at_root(&self, path: &str) -> Self {
        Self::new(&self.root, "/", path)
    }

    /// Calls a function with the root and the path below it.
    pub(crate) fn on<'a, T>(&'a self, act: impl FnOnce(&Dir, &'a Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.path.trim_start_matches('/');
        act(&self.root, Path::new(if path.is_empty() { "." } else { path }))
    }

    /// The folder, with a slash at its end, and the name in it.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.path.split_at(self.path.rfind('/').unwrap_or(0) + 1)
    }

    pub(crate) fn below(&self, name: &str) -> Self {
        Self::new(&self.root, &self.path, name)
    }

    fn beside(&self, name: &str) -> Self {
        Self::new(&self.root, self.split().0, name)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.on(Dir::metadata)
    }

    /// The same, for a plain file only.
    pub(crate) fn plain(&self) -> Result<Metadata, Refused> {
        self.metadata().ok().filter(Metadata::is_file).ok_or(Refused(550, "Not a plain file.".into()))
    }

    pub(crate) fn rename(&self, to: &Self) -> io::Result<()> {
        self.on(|root, from| to.on(|_, to| root.rename(from, root, to)))
    }

    /// Opens a plain file, without waiting for the other end of a pipe or getting a controlling terminal.
    pub(crate) fn open(&self, options: &mut OpenOptions) -> Result<File, Refused> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let options = options.custom_flags(flags.bits() as i32);
        let file = self.on(|root, path| root.open_with(path, options))?.into_std();
        let kind = file.metadata()?;
        if kind.is_file() { Ok(file) } else { refuse(550, if kind.is_dir() { "Is a directory." } else { "Not a plain file." }) }
    }

    /// Where an upload is kept until it is complete.
    fn part(&self) -> Self {
        let name = self.split().1;
        let is_short = name.len() + "..part".len() <= NAME_MAX;
        self.beside(&if is_short { format!(".{name}.part") } else { format!(".{:x}.part", Sha256::digest(name)) })
    }

    /// Where an upload can be resumed: the size of what a broken one has left, unless the file is newer.
    pub(crate) fn resumable(&self) -> Option<u64> {
        let part = self.part().metadata().ok().filter(Metadata::is_file)?;
        let changed = part.modified().ok()?.into_std();
        let is_newest = self.metadata().and_then(|whole| whole.modified()).is_ok_and(|whole| whole.into_std() > changed);
        (!is_newest && changed.elapsed().unwrap_or_default() < RESUMABLE).then_some(part.len())
    }

    pub(crate) fn source(&self, from: u64, is_text: bool) -> Result<Source, Refused> {
        let mut file = self.open(OpenOptions::new().read(true))?;
        let length = file.metadata()?.len();
        if from > length {
            return refuse(554, format!("{from} is beyond the end, {length}."));
        }
        file.seek(SeekFrom::Start(from))?;
        if is_text {
            return Ok(Source::Reader(Box::new(Text { file, is_after_cr: false })));
        }
        if length - from > FIRST {
            return Ok(Source::File(file, from..length));
        }
        let mut bytes = Vec::new();
        file.take(length - from).read_to_end(&mut bytes)?;
        Ok(Source::Bytes(bytes))
    }

    pub(crate) fn upload(&self, start: Start, is_text: bool) -> Result<Upload, Refused> {
        let old = match self.metadata() {
            Ok(meta) if meta.is_dir() => return refuse(550, "Is a directory."),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            old => old.ok(),
        };
        let resumable = self.resumable();
        let resumable = resumable.filter(|_| start != Start::End || old.is_none());
        if !matches!(start, Start::At(_)) && old.is_some() && resumable.is_none() {
            let file = self.open(OpenOptions::new().append(true))?;
            must(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(), 450, "Somebody else is storing this file.")?;
            return Ok(Upload { file, part: None, is_text, is_after_cr: false, is_kept: true, ahead: Vec::new() });
        }
        let part = self.part();
        let file = part.open(OpenOptions::new().write(true).create(true))?;
        let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && part.metadata().is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino()));
        must(is_ours, 450, "Somebody else is storing this file.")?;
        // If anything is refused from here on, no new file stays behind.
        let is_kept = resumable.is_some();
        let mut upload =
            Upload { file, part: Some((part, self.clone())), is_text, is_after_cr: false, is_kept, ahead: Vec::new() };
        // The upload that we looked at may have finished meanwhile, and this may be a new file.
        let is_there = resumable.is_none_or(|length| upload.file.metadata().is_ok_and(|own| own.len() >= length));
        must(is_there, 450, "Somebody else has just stored this file.")?;
        let length = resumable.or(old.as_ref().map(Metadata::len)).unwrap_or(0);
        let from = if let Start::At(from) = start { from } else { resumable.unwrap_or(0) };
        if from > length {
            return refuse(554, format!("{from} is beyond the end, {length}."));
        }
        if resumable.is_none() && from > 0 {
            io::copy(&mut self.open(OpenOptions::new().read(true))?.take(from), &mut upload.file)?;
        }
        if let Some(old) = old {
            upload.file.set_permissions(old.permissions().into_std(&upload.file)?)?;
        }
        // Do not truncate a new file: some file systems write out a truncated file as soon as it is closed.
        if upload.file.metadata()?.len() > from {
            upload.file.set_len(from)?;
        }
        upload.file.seek(SeekFrom::Start(from))?;
        upload.is_kept = !is_text;
        Ok(upload)
    }

    /// A new file whose name begins with this one.
    pub(crate) fn unique(&self, chance: u64, is_text: bool) -> Result<(Upload, String), Refused> {
        let place = self.beside(&format!("{}.{:x}", self.split().1, chance >> 16));
        if place.metadata().is_ok() {
            return refuse(450, "No unique name was found: try again.");
        }
        Ok((place.upload(Start::At(0), is_text)?, place.split().1.to_owned()))
    }
}

pub(crate) fn say(error: &io::Error) -> (u16, &'static str) {
    match error.kind() {
        ErrorKind::NotFound => (550, "No such file or directory."),
        ErrorKind::AlreadyExists => (550, "File exists."),
        ErrorKind::NotADirectory => (550, "Not a directory."),
        ErrorKind::IsADirectory => (550, "Is a directory."),
        ErrorKind::DirectoryNotEmpty => (550, "Directory not empty."),
        ErrorKind::PermissionDenied => (550, "Permission denied."),
        ErrorKind::InvalidFilename => (553, "File name not allowed."),
        ErrorKind::StorageFull => (452, "No space left."),
        ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => (552, "More than may be stored."),
        _ => (550, "Not possible."),
    }
}

/// What to send.
pub(crate) enum Source {
    Bytes(Vec<u8>),
    File(File, Range<u64>),
    Reader(Box<dyn Read + Send>),
}

/// Loads a part of a file into memory, so that the loop need not wait for the disk when it sends it.
pub(crate) fn load(file: &File, range: &Range<u64>) -> io::Result<()> {
    const STEP: usize = 512 << 10; // asked for in order, so that it is read in order
    let _ = fadvise(file, range.start, NonZero::new(range.end - range.start), Advice::WillNeed); // only advice
    for at in range.clone().step_by(STEP) {
        file.read_at(&mut [0], at)?;
    }
    Ok(())
}

/// A file as text: LF becomes CRLF, and CRLF stays.
struct Text {
    file: File,
    is_after_cr: bool,
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut raw = vec![0; out.len() / 2];
        let (read, mut filled) = (self.file.read(&mut raw)?, 0);
        for &byte in &raw[..read] {
            if byte == b'\n' && !self.is_after_cr {
                out[filled] = b'\r';
                filled += 1;
            }
            out[filled] = byte;
            filled += 1;
            self.is_after_cr = byte == b'\r';
        }
        Ok(filled)
    }
}

/// A file that a client sends. In text, CRLF becomes LF.
pub(crate) struct Upload {
    file: File,
    /// Where it is kept, and its later name; `None` if it is appended to an existing file.
    part: Option<(Place, Place)>,
    is_text: bool,
    /// A CR that is not written yet.
    is_after_cr: bool,
    /// If it breaks off, what has come is kept, so that it can be resumed.
    is_kept: bool,
    /// What is still to be written: a small file is written when it is complete.
    pub(crate) ahead: Vec<u8>,
}

impl Upload {
    /// Completes the file.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if self.is_after_cr {
            self.file.write_all(b"\r")?;
        }
        if let Some((part, whole)) = &self.part {
            part.rename(whole)?;
        }
        self.part = None;
        Ok(())
    }

    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut text = Vec::new();
        if self.is_text {
            text.reserve(piece.len() + 1);
            for &byte in piece {
                if self.is_after_cr && byte != b'\n' {
                    text.push(b'\r');
                }
                self.is_after_cr = byte == b'\r';
                if !self.is_after_cr {
                    text.push(byte);
                }
            }
        }
        let written = self.file.write_all(if self.is_text { &text } else { piece });
        // On a full disk it cannot be resumed, and others need the room.
        self.is_kept &= !matches!(&written, Err(error) if error.kind() == ErrorKind::StorageFull);
        written
    }
}

impl Write for Upload {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.flush()?;
        self.put(piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let ahead = std::mem::take(&mut self.ahead);
        self.put(&ahead)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = self.flush(); // as much as there is, if there is room
        let Some((part, _)) = &self.part else { return };
        if !self.is_kept || self.file.metadata().is_ok_and(|meta| meta.len() == 0) {
            let _ = part.on(Dir::remove_file); // it may be gone already
        }
    }
}
