//! Lists of files, in the forms of LIST, of NLST, and of MLSD and MLST (RFC 3659, 7).

use crate::{Refused, disk::Place, refuse};
use cap_std::fs::{Dir, Metadata, MetadataExt, ReadDir};
use chrono::{DateTime, Days, NaiveDateTime, Utc};
use std::{
    collections::VecDeque,
    io::{self, Read},
    time::SystemTime,
};
use wildmatch::WildMatch;

pub(crate) const FACTS: [&str; 8] = ["type", "perm", "size", "modify", "unique", "unix.mode", "unix.uid", "unix.gid"];

/// The facts that the client wants, a bit each.
pub(crate) fn wanted(facts: u8) -> impl Iterator<Item = &'static str> {
    FACTS.into_iter().enumerate().filter_map(move |(n, fact)| (facts & 1 << n != 0).then_some(fact))
}

pub(crate) fn facts(meta: &Metadata, facts: u8, may_write: bool) -> String {
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
        "modify" => stamp(meta),
        "unique" => format!("{:x}g{:x}", meta.dev(), meta.ino()),
        "unix.mode" => format!("{:04o}", meta.mode() & 0o7777),
        "unix.uid" => meta.uid().to_string(),
        _ => meta.gid().to_string(),
    };
    wanted(facts).map(|fact| format!("{fact}={};", value(fact))).collect()
}

const STAMP: &str = "%Y%m%d%H%M%S";

fn modified(meta: &Metadata) -> DateTime<Utc> {
    DateTime::from_timestamp(meta.mtime(), 0).unwrap_or_default()
}

/// When a file was changed: YYYYMMDDhhmmss, in UTC.
pub(crate) fn stamp(meta: &Metadata) -> String {
    modified(meta).format(STAMP).to_string()
}

pub(crate) fn unstamp(text: &str) -> Option<SystemTime> {
    let time = NaiveDateTime::parse_from_str(text, STAMP).ok().filter(|_| text.len() == 14)?;
    Some(time.and_utc().into())
}

/// The form of an entry.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Long { indent: &'static str },
    Names,
    Facts { facts: u8, may_write: bool },
}

impl Form {
    fn line(self, meta: &Metadata, name: &str) -> String {
        match self {
            Self::Long { indent } => format!("{indent}{} {name}\r\n", long(meta)),
            Self::Names => format!("{name}\r\n"),
            Self::Facts { facts: wanted, may_write } => format!("{} {name}\r\n", facts(meta, wanted, may_write)),
        }
    }
}

/// As `ls -l` writes it.
fn long(meta: &Metadata) -> String {
    let kind = if meta.is_dir() {
        'd'
    } else if meta.is_symlink() {
        'l'
    } else {
        '-'
    };
    let mode: String = (0..9).rev().map(|bit| if meta.mode() & 1 << bit != 0 { ['x', 'w', 'r'][bit % 3] } else { '-' }).collect();
    let (when, now) = (modified(meta), Utc::now());
    let is_new = when <= now && when.checked_add_days(Days::new(180)).is_some_and(|later| later > now);
    let when = when.format(if is_new { "%b %e %H:%M" } else { "%b %e  %Y" });
    let (links, user, group, size) = (meta.nlink(), meta.uid(), meta.gid(), meta.len());
    format!("{kind}{mode} {links:3} {user:<8} {group:<8} {size:8} {when}")
}

/// The entries of a folder, those whose names match, or the file itself, one a line.
pub(crate) fn list(place: &Place, form: Form) -> Result<Box<dyn Read + Send>, Refused> {
    let (folder, name) = place.split();
    let of = |place: &Place, matching| -> Result<Box<dyn Read + Send>, Refused> {
        let folder = place.on(Dir::open_dir)?;
        Ok(Box::new(Listing { entries: folder.entries()?, folder, form, matching, lines: VecDeque::new() }))
    };
    match place.metadata() {
        Ok(meta) if meta.is_dir() => of(place, WildMatch::new("*")),
        Ok(_) if matches!(form, Form::Facts { .. }) => refuse(501, "Not a directory."),
        Ok(meta) => Ok(Box::new(io::Cursor::new(form.line(&meta, name)))),
        Err(_) if name.contains(['*', '?']) => of(&place.at_root(folder), WildMatch::new(name)),
        Err(error) => Err(error.into()),
    }
}

/// A folder's entries, read one by one as they are sent.
struct Listing {
    folder: Dir,
    entries: ReadDir,
    form: Form,
    matching: WildMatch,
    lines: VecDeque<u8>,
}

impl Read for Listing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.lines.len() < out.len() {
            let Some(entry) = self.entries.next().transpose()? else { break };
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(mut meta) = entry.metadata() else { continue }; // it is gone already
            if matches!(self.form, Form::Facts { .. }) {
                meta = self.folder.metadata(&name).unwrap_or(meta); // of the target of a link
            }
            if self.matching.matches(&name) && !name.contains(['\r', '\n']) {
                self.lines.extend(self.form.line(&meta, &name).bytes());
            }
        }
        self.lines.read(out)
    }
}
