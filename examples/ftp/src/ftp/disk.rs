//! What the FTP server does with the disk. It may block: all of it is called on other threads, but for what is pure.

use super::{Refused, refuse};
use std::{
    collections::VecDeque,
    fs::{self, File, Metadata, ReadDir},
    io::{self, Error, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

// -------------------------------------------------------------------------------------------------------------- places

/// A file as the client names it, below the root that it sees.
pub(super) struct Place {
    root: PathBuf,
    /// Without dots, beginning with a slash.
    pub(super) path: String,
}

impl Place {
    /// `name` as seen from the folder `cwd`. It need not exist.
    pub(super) fn new(root: &Path, cwd: &str, name: &str) -> Self {
        let mut parts = Vec::new();
        for part in if name.starts_with('/') { "" } else { cwd }.split('/').chain(name.split('/')) {
            match part {
                "" | "." => {}
                ".." => _ = parts.pop(),
                part => parts.push(part),
            }
        }
        Self { root: root.to_owned(), path: format!("/{}", parts.join("/")) }
    }

    /// Where it is; an error if a link leads out of the root. The last part need not exist.
    pub(super) fn real(&self) -> io::Result<PathBuf> {
        let path = self.root.join(self.path.trim_start_matches('/'));
        let real = match (path.canonicalize(), path.parent(), path.file_name()) {
            (Err(error), Some(parent), Some(name))
                if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() =>
            {
                parent.canonicalize()?.join(name)
            }
            (real, ..) => real?, // that of a link to nowhere is an error too
        };
        if real.starts_with(&self.root) { Ok(real) } else { Err(ErrorKind::PermissionDenied.into()) }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self.real()?)
    }

    /// The folder's entries, or the file itself, a line each.
    pub(super) fn list(&self, form: Form) -> Result<Box<dyn Read + Send>, Refused> {
        let (path, meta) = (self.real()?, self.metadata()?);
        if meta.is_dir() {
            return Ok(Box::new(Listing { folder: fs::read_dir(path)?, form, lines: VecDeque::new() }));
        }
        if let Form::Facts { .. } = form {
            return refuse(501, say(&ErrorKind::NotADirectory.into()));
        }
        let name = self.path.rsplit('/').next().unwrap_or_default();
        Ok(Box::new(io::Cursor::new(form.line(&meta, name))))
    }

    pub(super) fn open(&self, from: u64, is_text: bool) -> Result<Box<dyn Read + Send>, Refused> {
        let file = File::open(self.real()?)?;
        if !file.metadata()?.is_file() {
            return Err(Error::from(ErrorKind::IsADirectory).into());
        }
        let file = at(from, file)?;
        Ok(if is_text { Box::new(Text { file, is_after_cr: false }) } else { Box::new(file) })
    }

    pub(super) fn create(&self, from: u64, appends: bool, is_text: bool) -> Result<Sink, Refused> {
        let mut options = File::options();
        options.write(true).create(from == 0).truncate(from == 0 && !appends).append(appends);
        let file = at(from, options.open(self.real()?)?)?;
        Ok(Sink { file, is_text, is_after_cr: false })
    }
}

/// A new file whose name begins so, and its name.
pub(super) fn create_unique(root: &Path, cwd: &str, stem: &str, chance: u64, is_text: bool) -> io::Result<(Sink, String)> {
    for n in 0..50 {
        let name = format!("{stem}.{:x}", (chance >> 16) + n);
        match File::create_new(Place::new(root, cwd, &name).real()?) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            file => return Ok((Sink { file: file?, is_text, is_after_cr: false }, name)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn at(from: u64, mut file: File) -> Result<File, Refused> {
    let length = file.metadata()?.len();
    if from > length {
        return refuse(554, format!("{from} is beyond the end, {length}."));
    }
    file.seek(SeekFrom::Start(from))?;
    Ok(file)
}

pub(super) fn say(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "No such file or directory.",
        ErrorKind::AlreadyExists => "File exists.",
        ErrorKind::NotADirectory => "Not a directory.",
        ErrorKind::IsADirectory => "Is a directory.",
        ErrorKind::DirectoryNotEmpty => "Directory not empty.",
        ErrorKind::PermissionDenied => "Permission denied.",
        ErrorKind::StorageFull => "No space left.",
        _ => "Not possible.",
    }
}

// ------------------------------------------------------------------------------------------------ what is said of them

pub(super) const FACTS: [&str; 8] = ["type", "perm", "size", "modify", "unique", "unix.mode", "unix.uid", "unix.gid"];

/// The facts that are wanted, a bit each.
pub(super) fn wanted(facts: u8) -> impl Iterator<Item = &'static str> {
    FACTS.into_iter().enumerate().filter_map(move |(n, fact)| (facts & 1 << n != 0).then_some(fact))
}

pub(super) fn facts(meta: &Metadata, facts: u8, may_write: bool) -> String {
    let value = |fact| match fact {
        "type" => if meta.is_dir() { "dir" } else { "file" }.to_owned(),
        "perm" => match (meta.is_dir(), may_write) {
            (true, true) => "elcmpdf",
            (true, false) => "el",
            (false, true) => "radfw",
            (false, false) => "r",
        }
        .to_owned(),
        "size" => meta.len().to_string(),
        "modify" => stamp(meta.mtime()),
        "unique" => format!("{:x}g{:x}", meta.dev(), meta.ino()),
        "unix.mode" => format!("{:04o}", meta.mode() & 0o7777),
        "unix.uid" => meta.uid().to_string(),
        _ => meta.gid().to_string(),
    };
    wanted(facts).map(|fact| format!("{fact}={};", value(fact))).collect()
}

/// How an entry is listed.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Long { indent: &'static str, now: i64 },
    Names,
    Facts { facts: u8, may_write: bool },
}

impl Form {
    pub(super) fn long(indent: &'static str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::Long { indent, now: since.as_secs() as i64 }
    }

    fn line(self, meta: &Metadata, name: &str) -> String {
        match self {
            Self::Long { indent, now } => format!("{indent}{} {name}\r\n", long(meta, now)),
            Self::Names => format!("{name}\r\n"),
            Self::Facts { facts: wanted, may_write } => format!("{} {name}\r\n", facts(meta, wanted, may_write)),
        }
    }
}

fn long(meta: &Metadata, now: i64) -> String {
    let kind = if meta.is_dir() {
        'd'
    } else if meta.is_symlink() {
        'l'
    } else {
        '-'
    };
    let mode: String = (0..9).rev().map(|bit| if meta.mode() & 1 << bit != 0 { ['x', 'w', 'r'][bit % 3] } else { '-' }).collect();
    let (year, month, day, hour, minute, _) = civil(meta.mtime());
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
    let is_new = (now - meta.mtime()).abs() < 180 * 86_400;
    let when = if is_new { format!("{hour:02}:{minute:02}") } else { format!("{year:5}") };
    let (links, user, group, size) = (meta.nlink(), meta.uid(), meta.gid(), meta.len());
    format!("{kind}{mode} {links:3} {user:<8} {group:<8} {size:8} {month} {day:2} {when}")
}

/// YYYYMMDDhhmmss, in UTC.
pub(super) fn stamp(secs: i64) -> String {
    let (year, month, day, hour, minute, second) = civil(secs);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

pub(super) fn unstamp(text: &str) -> Option<SystemTime> {
    if text.len() != 14 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let secs = days(year.into(), month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(secs).ok()?))
}

/// Year, month, day, hour, minute and second of seconds since 1970: Howard Hinnant's `civil_from_days`.
fn civil(secs: i64) -> (i64, u32, u32, u32, u32, u32) {
    let (days, rest) = (secs.div_euclid(86_400) + 719_468, secs.rem_euclid(86_400) as u32);
    let (era, doe) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Its inverse: days since 1970.
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (year.div_euclid(400), year.rem_euclid(400));
    let mp = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

// ------------------------------------------------------------------------------------------- what is sent and received

/// A folder's entries, listed as they are taken.
struct Listing {
    folder: ReadDir,
    form: Form,
    lines: VecDeque<u8>,
}

impl Read for Listing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.lines.len() < out.len() {
            let Some(entry) = self.folder.next().transpose()? else { break };
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(mut meta) = entry.metadata() else { continue }; // it has gone meanwhile
            if let Form::Facts { .. } = self.form {
                meta = fs::metadata(entry.path()).unwrap_or(meta); // of what a link leads to
            }
            if !name.contains(['\r', '\n']) {
                self.lines.extend(self.form.line(&meta, &name).bytes());
            }
        }
        self.lines.read(out)
    }
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

/// Where an upload goes. Of text CRLF becomes LF.
pub(super) struct Sink {
    file: File,
    is_text: bool,
    /// A CR that is not written yet.
    is_after_cr: bool,
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if !self.is_text {
            return self.file.write(piece);
        }
        let mut out = Vec::with_capacity(piece.len() + 1);
        for &byte in piece {
            if self.is_after_cr && byte != b'\n' {
                out.push(b'\r');
            }
            self.is_after_cr = byte == b'\r';
            if !self.is_after_cr {
                out.push(byte);
            }
        }
        self.file.write_all(&out)?;
        Ok(piece.len())
    }

    /// That was all.
    fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_after_cr) {
            self.file.write_all(b"\r")?;
        }
        Ok(())
    }
}
