//! What is done with the disk, by other threads: it may block. Nothing outside of the root is reached: cap-std has the kernel see to
//! that (openat2(2)), whatever links and names say.

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

/// What a cut upload has left can be resumed so long; later it is in nobody's way.
const RESUMABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a name has room for on most file systems, in bytes.
const NAME_MAX: usize = 255;

/// What is read of a file together with opening it.
const FIRST: u64 = 64 << 10;

/// Where an upload begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    At(u64),
    /// Of the file, if there is one; or else of what a cut upload has left.
    End,
    /// The other way round: the client has asked how much that is.
    EndOfPart,
}

/// A file as the client names it, below the root that it sees.
#[derive(Clone)]
pub(crate) struct Place {
    root: Arc<Dir>,
    /// Without dots, beginning with a slash.
    pub(crate) path: String,
}

impl Place {
    /// `name` as seen from the folder `cwd`. It need not exist.
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

    /// Another one, by its path from the root.
    pub(crate) fn at_root(&self, path: &str) -> Self {
        Self::new(&self.root, "/", path)
    }

    /// Has the root do something with it.
    pub(crate) fn on<'a, T>(&'a self, act: impl FnOnce(&Dir, &'a Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.path.trim_start_matches('/');
        act(&self.root, Path::new(if path.is_empty() { "." } else { path }))
    }

    /// The folder, with a slash behind it, and the name in it.
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

    /// The same of a plain file.
    pub(crate) fn plain(&self) -> Result<Metadata, Refused> {
        self.metadata().ok().filter(Metadata::is_file).ok_or(Refused(550, "No plain file.".into()))
    }

    pub(crate) fn rename(&self, to: &Self) -> io::Result<()> {
        self.on(|root, from| to.on(|_, to| root.rename(from, root, to)))
    }

    /// A plain file: not to wait for the other end of a pipe, nor to be given a terminal.
    pub(crate) fn open(&self, options: &mut OpenOptions) -> Result<File, Refused> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let options = options.custom_flags(flags.bits() as i32);
        let file = self.on(|root, path| root.open_with(path, options))?.into_std();
        let kind = file.metadata()?;
        if kind.is_file() { Ok(file) } else { refuse(550, if kind.is_dir() { "Is a directory." } else { "No plain file." }) }
    }

    /// Where an upload stands until it is whole.
    fn part(&self) -> Self {
        let name = self.split().1;
        let is_short = name.len() + "..part".len() <= NAME_MAX;
        self.beside(&if is_short { format!(".{name}.part") } else { format!(".{:x}.part", Sha256::digest(name)) })
    }

    /// How far somebody who writes can go on: what a cut upload has left, unless the file is newer.
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
        if matches!(start, Start::End | Start::EndOfPart) && old.is_some() && resumable.is_none() {
            let file = self.open(OpenOptions::new().append(true))?;
            must(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(), 450, "Somebody else is storing this file.")?;
            return Ok(Upload { file, part: None, is_text, is_after_cr: false, is_kept: true, ahead: Vec::new() });
        }
        let part = self.part();
        let file = part.open(OpenOptions::new().write(true).create(true))?;
        let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && part.metadata().is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino()));
        must(is_ours, 450, "Somebody else is storing this file.")?;
        // Whatever is refused from here on leaves no file that was not there.
        let is_kept = resumable.is_some();
        let mut upload =
            Upload { file, part: Some((part, self.clone())), is_text, is_after_cr: false, is_kept, ahead: Vec::new() };
        // Who was looked at may have been done meanwhile, and this be a new one.
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
        // Not of a new one: a file that was cut to nothing is written out by some file systems as soon as it is closed.
        if upload.file.metadata()?.len() > from {
            upload.file.set_len(from)?;
        }
        upload.file.seek(SeekFrom::Start(from))?;
        upload.is_kept = !is_text;
        Ok(upload)
    }

    /// A new file whose name begins so.
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

/// What is sent.
pub(crate) enum Source {
    Bytes(Vec<u8>),
    File(File, Range<u64>),
    Reader(Box<dyn Read + Send>),
}

/// Sees to it that a part of a file is in memory, so that the loop need not wait for the disk when that is sent.
pub(crate) fn load(file: &File, range: &Range<u64>) -> io::Result<()> {
    const STEP: usize = 512 << 10; // what is asked for in order is read in order
    let _ = fadvise(file, range.start, NonZero::new(range.end - range.start), Advice::WillNeed); // it may know better
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

/// A file on its way. Of text CRLF becomes LF.
pub(crate) struct Upload {
    file: File,
    /// Where it stands, and what it will be called; none if it is appended to a file that is there.
    part: Option<(Place, Place)>,
    is_text: bool,
    /// A CR that is not written yet.
    is_after_cr: bool,
    /// What there is stays when it is cut: somebody may go on there.
    is_kept: bool,
    /// What is still to be written: a small file is, when it is whole.
    pub(crate) ahead: Vec<u8>,
}

impl Upload {
    /// It is whole.
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
        // Nobody can go on where there is no room, and others want it.
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
        let _ = self.flush(); // what there is of it, if there is room
        let Some((part, _)) = &self.part else { return };
        if !self.is_kept || self.file.metadata().is_ok_and(|meta| meta.len() == 0) {
            let _ = part.on(Dir::remove_file); // somebody else may have
        }
    }
}
