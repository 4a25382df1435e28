//! Serves the files below a folder: finds them, describes them (RFC 9110), lists them. Opening a file blocks, so other threads
//! do it, unless you say that it is quick.

use crate::{
    Answer, Request,
    answer::Content,
    http::Http,
    parts::{self, Part, Parts, Wanted},
    request::is_among,
};
use mainspring::{Context, OffloadError, Produced};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::Write,
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How much of a file is read when it is opened.
const PIECE: u64 = 64 << 10;

/// A longer list of a folder ends here, and says so.
const LISTED_MAX: usize = 10_000;

const METHODS: &str = "GET, HEAD, OPTIONS";

/// A folder that is served. Names that begin with a dot are not served, except `.well-known`, nor are links that lead outside.
#[derive(Clone)]
pub struct Root {
    folder: Arc<Folder>,
    is_inline: bool,
    is_listed: bool,
}

impl Root {
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { folder: Arc::new(Folder::open(path.as_ref())?), is_inline: false, is_listed: false })
    }

    /// Opens and reads files in the loop itself, which then waits for the disk.
    pub fn inline(self, is_inline: bool) -> Self {
        Self { is_inline, ..self }
    }

    /// Shows a folder without `index.html` as a list of its files.
    pub fn listed(self, is_listed: bool) -> Self {
        Self { is_listed, ..self }
    }

    /// The file that a GET or HEAD asks for.
    pub fn answer<S: 'static>(&self, request: &Request) -> Answer<S> {
        match request.method() {
            "GET" | "HEAD" => {}
            "OPTIONS" => return Answer::text(200, "").header("Allow", METHODS),
            "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" => {
                return Answer::status(405).header("Allow", METHODS);
            }
            _ => return Answer::status(501),
        }
        let Some(asked) = Asked::of(request) else { return Answer::status(400) };
        let (folder, is_inline, is_listed) = (Arc::clone(&self.folder), self.is_inline, self.is_listed);
        if is_inline {
            return answered(Ok(look(&folder, &asked, is_inline, is_listed)));
        }
        Answer::later(move || look(&folder, &asked, is_inline, is_listed), |_, _, found| answered(found))
    }
}

/// The parts of a request that decide the answer.
struct Asked {
    path: PathBuf,
    /// As they came: a request for a folder without a slash at its end is redirected to the path with one.
    target: String,
    query: Option<String>,
    is_head: bool,
    range: Option<String>,
    if_range: Option<String>,
    if_match: Option<String>,
    if_unmodified_since: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        let owned = |name| request.header(name).map(str::to_owned);
        let list = |name| request.values(name).map(str::to_owned).reduce(|a, b| a + "," + &b);
        Some(Self {
            path: path_of(request.path_below()?)?,
            target: request.path().to_owned(),
            query: request.query().map(str::to_owned),
            is_head: request.method() == "HEAD",
            range: owned("range").filter(|_| request.method() == "GET"),
            if_range: owned("if-range"),
            if_match: list("if-match"),
            if_unmodified_since: owned("if-unmodified-since"),
            if_none_match: list("if-none-match"),
            if_modified_since: owned("if-modified-since"),
        })
    }

    fn is_hidden(&self) -> bool {
        self.path.iter().any(|part| part.as_encoded_bytes().first() == Some(&b'.') && part != ".well-known")
    }

    fn is_folder(&self) -> bool {
        self.target.ends_with('/')
    }
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(bytes).into())
}

/// On this system, a name must not lead to a drive, a device or another stream of a file.
#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains(['\\', ':']))?;
    Some(OsString::from(text).into())
}

/// What was found at a path.
enum Found {
    Nothing,
    Forbidden,
    Moved(String),
    NotModified(Version),
    Changed,
    NoRange { total: u64 },
    File(Description, Sent),
    List(String),
}

struct Description {
    version: Version,
    kind: Cow<'static, str>,
    /// For one part, with the size of the file.
    range: Option<(Part, u64)>,
    is_partial: bool,
}

/// The content of a file to be sent.
pub(crate) struct Sent {
    length: u64,
    /// Its beginning, and where the rest comes from.
    first: Vec<u8>,
    parts: Parts,
    is_inline: bool,
}

impl Sent {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn send<S: 'static>(self, ctx: &mut Context<'_, S>) {
        ctx.send(&self.first);
        let left = self.parts.left();
        if left == 0 {
            return;
        }
        if !self.is_inline {
            return ctx.send_from(self.parts, move |_: &mut Http<S>, ctx, _, sent| {
                if sent? < left {
                    ctx.abort(); // it has become shorter: the client must not take what follows for the rest
                }
                Ok(())
            });
        }
        match self.parts.into_range() {
            Ok((file, range)) => ctx.send_file(file, range),
            Err(mut parts) => ctx.produce(move |out: &mut Vec<u8>| -> io::Result<Produced> {
                parts.read_more(PIECE, out)?;
                Ok(if parts.left() > 0 { Produced::More } else { Produced::Done })
            }),
        }
    }
}

/// What we ask the system about an open file.
struct Facts {
    is_file: bool,
    is_folder: bool,
    length: u64,
    /// Since 1970.
    modified: Duration,
}

/// By fstat(2), which does just this: std's call finds out more, and takes longer.
#[cfg(unix)]
fn facts(file: &File) -> io::Result<Facts> {
    use rustix::fs::{FileType, fstat};
    let stat = fstat(file)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let modified = match (u64::try_from(stat.st_mtime), u32::try_from(stat.st_mtime_nsec)) {
        (Ok(seconds), Ok(nanos)) => Duration::new(seconds, nanos),
        _ => Duration::ZERO, // before 1970
    };
    Ok(Facts { is_file: kind.is_file(), is_folder: kind.is_dir(), length: stat.st_size as u64, modified })
}

#[cfg(not(unix))]
fn facts(file: &File) -> io::Result<Facts> {
    let meta = file.metadata()?;
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(Facts { is_file: meta.is_file(), is_folder: meta.is_dir(), length: meta.len(), modified })
}

/// HTTP writes no later date: the last second of the year 9999.
const LATEST: u64 = 253_402_300_799;

/// The version of a file (RFC 9110, 8.8).
struct Version {
    etag: String,
    /// In whole seconds, as in a header.
    modified: SystemTime,
}

impl Version {
    fn of(facts: &Facts) -> Self {
        let since = facts.modified;
        let etag = format!("\"{:x}-{:x}\"", since.as_nanos() as u64, facts.length);
        Self { etag, modified: UNIX_EPOCH + Duration::from_secs(since.as_secs().min(LATEST)) }
    }

    /// Whether the client has it already (13.2.2): a date counts only if there is no tag.
    fn is_known(&self, asked: &Asked) -> bool {
        match (&asked.if_none_match, &asked.if_modified_since) {
            (Some(tags), _) => is_among(&self.etag, tags),
            (None, Some(date)) => httpdate::parse_http_date(date).is_ok_and(|date| self.modified <= date),
            (None, None) => false,
        }
    }

    /// Whether the client asks for a certain version only, and this is another one (13.1.1, 13.1.4).
    fn is_another(&self, asked: &Asked) -> bool {
        match (&asked.if_match, &asked.if_unmodified_since) {
            (Some(tags), _) => !tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == self.etag),
            (None, Some(date)) => httpdate::parse_http_date(date).is_ok_and(|date| self.modified > date),
            (None, None) => false,
        }
    }

    /// Whether the client's other parts are of this version (13.1.5).
    fn is_that_of(&self, if_range: &str) -> bool {
        if_range == self.etag || httpdate::parse_http_date(if_range).is_ok_and(|date| self.modified == date)
    }

    fn headers<S: 'static>(&self, answer: Answer<S>) -> Answer<S> {
        answer.header("ETag", &self.etag).header("Last-Modified", httpdate::HttpDate::from(self.modified))
    }
}

/// The Content-Type, by the end of the name. With `nosniff`, so that browsers do not guess another one.
fn kind_of(path: &Path) -> &'static str {
    match mime_guess::from_path(path).first_raw() {
        Some("text/html") => "text/html; charset=utf-8",
        Some("text/plain") => "text/plain; charset=utf-8",
        Some("text/css") => "text/css; charset=utf-8",
        Some("text/javascript") => "text/javascript; charset=utf-8",
        Some(other) => other,
        None => "application/octet-stream",
    }
}

fn look(folder: &Folder, asked: &Asked, is_inline: bool, is_listed: bool) -> io::Result<Found> {
    match look_at(folder, asked, is_inline, is_listed) {
        Err(error) if is_of_nothing(&error) => Ok(Found::Nothing),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Found::Forbidden),
        found => found,
    }
}

fn look_at(folder: &Folder, asked: &Asked, is_inline: bool, is_listed: bool) -> io::Result<Found> {
    if asked.is_hidden() {
        return Ok(Found::Nothing);
    }
    let (mut file, mut path) = (folder.file(&asked.path)?, Cow::Borrowed(&*asked.path));
    let mut facts = facts(&file)?;
    if facts.is_folder && !asked.is_folder() {
        let query = asked.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        return Ok(Found::Moved(format!("{}/{query}", asked.target)));
    }
    if facts.is_folder {
        path.to_mut().push("index.html");
        match folder.file(&path) {
            Ok(index) => file = index,
            Err(error) if is_of_nothing(&error) && is_listed => return list(folder, &file, asked).map(Found::List),
            Err(error) => return Err(error),
        }
        facts = self::facts(&file)?;
    } else if asked.is_folder() {
        return Ok(Found::Nothing);
    }
    if !facts.is_file {
        return Ok(Found::Nothing);
    }
    let (total, version) = (facts.length, Version::of(&facts));
    if version.is_another(asked) {
        return Ok(Found::Changed);
    }
    if version.is_known(asked) {
        return Ok(Found::NotModified(version));
    }
    let is_same = asked.if_range.as_deref().is_none_or(|known| version.is_that_of(known));
    let wanted = asked.range.as_deref().filter(|_| is_same).map_or(Wanted::All, |range| parts::wanted(range, total));
    let (is_partial, kind) = (wanted != Wanted::All, kind_of(&path));
    let (mut parts, kind, range) = match wanted {
        Wanted::All => (Parts::one(file, (0, total)), kind.into(), None),
        Wanted::Nothing => return Ok(Found::NoRange { total }),
        Wanted::Parts(parts) => match parts[..] {
            [part] => (Parts::one(file, part), kind.into(), Some((part, total))),
            _ => {
                let (parts, kind) = Parts::several(file, &parts, kind, total);
                (parts, kind.into(), None)
            }
        },
    };
    let (length, mut first) = (parts.left(), Vec::new());
    // If the loop reads files itself, it also sends long ones itself: by the kernel, if that was asked for.
    if !asked.is_head && (length <= PIECE || !is_inline) {
        parts.read_more(PIECE, &mut first)?;
    }
    Ok(Found::File(Description { version, kind, range, is_partial }, Sent { length, first, parts, is_inline }))
}

/// Errors that look to a client as if there were no such file.
fn is_of_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) || leads_nowhere(error)
}

fn answered<S: 'static>(found: Result<io::Result<Found>, OffloadError>) -> Answer<S> {
    match found {
        Ok(Ok(Found::File(what, sent))) => {
            let answer = Answer::with(if what.is_partial { 206 } else { 200 }, Content::File(sent));
            let answer = what.version.headers(answer).header("Content-Type", what.kind);
            let answer = answer.header("X-Content-Type-Options", "nosniff").header("Accept-Ranges", "bytes");
            match what.range {
                Some(((from, to), total)) => answer.header("Content-Range", format_args!("bytes {from}-{}/{total}", to - 1)),
                None => answer,
            }
        }
        Ok(Ok(Found::Nothing)) => Answer::status(404),
        Ok(Ok(Found::Changed)) => Answer::status(412),
        Ok(Ok(Found::Forbidden)) => Answer::status(403),
        Ok(Ok(Found::Moved(to))) => Answer::redirect(301, &to),
        Ok(Ok(Found::NoRange { total })) => Answer::status(416).header("Content-Range", format_args!("bytes */{total}")),
        Ok(Ok(Found::NotModified(version))) => version.headers(Answer::not_modified()),
        Ok(Ok(Found::List(text))) => Answer::html(text).header("Content-Security-Policy", "default-src 'none'"),
        Ok(Err(error)) => {
            log::debug!("cannot read a file: {error}");
            Answer::status(500)
        }
        Err(OffloadError::Full) => Answer::status(503),
        Err(error) => {
            log::debug!("cannot look for a file: {error}");
            Answer::status(500)
        }
    }
}

// ----------------------------------------------------------------------------------------------------- what is listed

/// The list of a folder: folders first.
struct Entry {
    is_file: bool,
    name: OsString,
    bytes: u64,
}

fn list(folder: &Folder, open: &File, asked: &Asked) -> io::Result<String> {
    let mut entries = folder.entries(open, &asked.path)?;
    entries.retain(|entry| entry.name.as_encoded_bytes().first() != Some(&b'.'));
    let is_cut = entries.len() > LISTED_MAX;
    entries.truncate(LISTED_MAX);
    entries.sort_unstable_by(|a, b| (a.is_file, &a.name).cmp(&(b.is_file, &b.name)));
    let title = format!("/{}", escaped(&asked.path.to_string_lossy()));
    let mut text = format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
         <meta name=color-scheme content=\"light dark\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !asked.path.as_os_str().is_empty() {
        text += "<li><a href=\"../\">../</a>\n";
    }
    for Entry { is_file, name, bytes } in entries {
        let slash = if is_file { "" } else { "/" };
        let (link, shown) = (percent_encode(name.as_encoded_bytes(), ESCAPED), escaped(&name.to_string_lossy()));
        let _ = write!(text, "<li><a href=\"./{link}{slash}\">{shown}{slash}</a>"); // a String takes everything
        text += &if is_file { format!(" {bytes}\n") } else { "\n".into() };
    }
    text += "</ul>\n";
    if is_cut {
        let _ = writeln!(text, "<p>There are more: only {LISTED_MAX} are shown.");
    }
    Ok(text)
}

/// As text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Everything except what may stand unescaped in a part of a path (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

// ------------------------------------------------------------------------------------------------- what leads outside

/// Gives access to a folder, and to nothing that is not below it.
struct Folder {
    path: PathBuf,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    handle: File,
}

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if !path.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            handle: File::open(&path)?,
            path,
        })
    }

    /// Checks the real name, for systems where the kernel cannot keep us inside: somebody who changes links at the same time can
    /// still make this one lead outside.
    fn file_by_name(&self, path: &Path) -> io::Result<File> {
        let real = self.path.join(path).canonicalize()?;
        let meta = real.metadata()?;
        if !real.starts_with(&self.path) || !meta.is_file() && !meta.is_dir() {
            return Err(ErrorKind::NotFound.into());
        }
        File::open(real)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Folder {
    /// The kernel makes sure that no link leads outside, even if somebody changes links at the same time (openat2(2)).
    fn file(&self, path: &Path) -> io::Result<File> {
        use rustix::{
            fs::{Mode, OFlags, ResolveFlags, openat2},
            io::Errno,
        };
        /// While folders are being moved, the kernel cannot always tell what is below (EAGAIN).
        const TRIES: usize = 8;
        let path_or_root = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // So that we do not wait for the other end of a pipe, nor get a controlling terminal.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |resolve| openat2(&self.handle, path_or_root, flags, Mode::empty(), resolve);
        // Without links nothing leads outside, as there is no `..` in the path; so the kernel has less to check.
        let mut opened = open(ResolveFlags::NO_SYMLINKS);
        let mut tries = 0;
        while matches!(opened, Err(Errno::LOOP | Errno::AGAIN)) && tries < TRIES {
            opened = open(ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
            tries += if matches!(opened, Err(Errno::LOOP)) { TRIES } else { 1 };
        }
        match opened {
            Err(Errno::NOSYS | Errno::PERM) => self.file_by_name(path), // an old kernel, or the call is forbidden
            opened => Ok(opened?.into()),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Folder {
    fn file(&self, path: &Path) -> io::Result<File> {
        self.file_by_name(path)
    }
}

#[cfg(unix)]
impl Folder {
    /// At most one more than are shown, besides `.` and `..`.
    fn entries(&self, open: &File, _: &Path) -> io::Result<Vec<Entry>> {
        use rustix::fs::{AtFlags, Dir, FileType, statat};
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let mut entries = Vec::new();
        for entry in Dir::read_from(open)?.take(LISTED_MAX + 3) {
            let entry = entry?;
            let Ok(stat) = statat(open, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_file = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            entries.push(Entry { is_file, name, bytes: stat.st_size as u64 });
        }
        Ok(entries)
    }
}

#[cfg(not(unix))]
impl Folder {
    fn entries(&self, _: &File, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in self.path.join(path).read_dir()?.take(LISTED_MAX + 1) {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            entries.push(Entry { is_file: !meta.is_dir(), name: entry.file_name(), bytes: meta.len() });
        }
        Ok(entries)
    }
}

/// Whether this is the kernel's error for a path that leads outside, in a circle, or cannot exist.
#[cfg(unix)]
fn leads_nowhere(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::XDEV, Errno::LOOP, Errno::NAMETOOLONG].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(not(unix))]
fn leads_nowhere(_: &io::Error) -> bool {
    false
}
