//! The folder that is served. No socket, no protocol.
//!
//! A path must pass three checks: its text names visible parts only (no `..`, no dot files), the place that it really leads to
//! is below the root and visible there, and what is opened there is a plain file. Users who can write below the root are
//! trusted not to replace a folder between the second check and the third.

use crate::gopher::{Item, Kind, Request, SELECTOR_MAX};
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// How many entries of a folder are read, so that memory and answers are bounded.
const LISTING_MAX: usize = 1000;

/// How much of a file is read to find its kind, if the name does not tell.
const HEAD_BYTES: u64 = 1024;

/// The selector of the search item. Selectors of files begin with a slash.
const SEARCH: &str = "search";

/// The limits of a search: entries, bytes of one text and of all, depth of folders, items found.
const SEARCH_ENTRIES_MAX: usize = 5000;
const SEARCH_FILE_BYTES: u64 = 64 << 10;
const SEARCH_BYTES_MAX: u64 = 16 << 20;
const SEARCH_DEPTH_MAX: usize = 16;
const SEARCH_FOUND_MAX: usize = 100;

/// The server's own address, for its menus.
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Place {
    fn item(&self, kind: Kind, shown: &str, selector: String) -> Item {
        Item { kind, shown: shown.into(), selector, host: self.host.clone(), port: self.port }
    }
}

/// The answer to a request.
pub(crate) enum Answer {
    Menu(Vec<Item>),
    /// A file, and how many bytes of it to send.
    File {
        kind: Kind,
        file: File,
        bytes: u64,
    },
    Error(String),
}

/// Whether a request is a search.
pub(crate) fn is_search(request: &Request) -> bool {
    request.selector == SEARCH
}

pub(crate) struct Site {
    /// Absolute, and without links.
    root: PathBuf,
}

impl Site {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        fs::read_dir(&root)?; // find errors now rather than at the first request
        Ok(Self { root })
    }

    pub(crate) fn answer(&self, request: &Request, place: &Place) -> Answer {
        let selector = &request.selector;
        let given = match selector.as_str() {
            SEARCH => Ok(self.search(request.words.as_deref().unwrap_or_default(), place)),
            _ => self.give(selector, place),
        };
        given.unwrap_or_else(|error| {
            Answer::Error(match error.kind() {
                // Clients need not know which: files that we may not read do not exist for them.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => {
                    format!("'{selector}' does not exist")
                }
                _ => format!("'{selector}' cannot be read"), // links in a circle, no descriptors, a broken disk
            })
        })
    }

    fn give(&self, selector: &str, place: &Place) -> io::Result<Answer> {
        let below = path_of(selector).ok_or(io::ErrorKind::NotFound)?;
        let path = self.really(&self.root.join(&below))?;
        if path.is_dir() {
            return Ok(Answer::Menu(self.menu(&path, &below, place)?));
        }
        let kind = kind_of_file(&path)?; // first, because opening a device may do something
        let (file, bytes) = open(&path)?;
        Ok(Answer::File { kind, file, bytes })
    }

    /// Where a path leads after all links, if we serve that.
    fn really(&self, path: &Path) -> io::Result<PathBuf> {
        let path = path.canonicalize()?;
        let is_ours = path.strip_prefix(&self.root).is_ok_and(|below| below.components().all(is_visible));
        if is_ours { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    // -------------------------------------------------------------------------------------------------- menus

    fn menu(&self, folder: &Path, below: &Path, place: &Place) -> io::Result<Vec<Item>> {
        let (entries, is_cut) = self.entries(folder, below)?;
        let mut items: Vec<Item> = entries.into_iter().map(|entry| place.item(entry.kind, &entry.name, entry.selector)).collect();
        if is_cut {
            items.push(Item::note(Kind::Info, format!("There is more: only {LISTING_MAX} entries were read.")));
        }
        if below.as_os_str().is_empty() {
            items.push(place.item(Kind::Search, "Search names and texts", SEARCH.into()));
        }
        Ok(items)
    }

    /// The visible entries of a folder, folders first, in the order of names, and whether there were too many.
    fn entries(&self, folder: &Path, below: &Path) -> io::Result<(Vec<Entry>, bool)> {
        let mut looked_at = 0;
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)?.take(LISTING_MAX + 1) {
            looked_at += 1;
            if looked_at <= LISTING_MAX {
                entries.extend(self.entry(&entry?, below));
            }
        }
        entries.sort_by(|a, b| (a.kind != Kind::Menu, &a.name).cmp(&(b.kind != Kind::Menu, &b.name)));
        Ok((entries, looked_at > LISTING_MAX))
    }

    /// `None` if it is hidden, or clients could not ask for it.
    fn entry(&self, entry: &fs::DirEntry, below: &Path) -> Option<Entry> {
        let name = entry.file_name().into_string().ok()?;
        let selector = selector_of(&below.join(&name))?;
        let is_link = entry.file_type().ok()?.is_symlink();
        let path = if is_link { self.really(&entry.path()).ok()? } else { entry.path() };
        let kind = if path.is_dir() { Kind::Menu } else { kind_of_file(&path).ok()? };
        Some(Entry { name, selector, kind, path, is_link })
    }

    // ------------------------------------------------------------------------------------------------- search

    fn search(&self, words: &str, place: &Place) -> Answer {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return Answer::Error("no words to search for".into());
        }
        let mut search = Search {
            site: self,
            place,
            words,
            entries_left: SEARCH_ENTRIES_MAX,
            bytes_left: SEARCH_BYTES_MAX,
            is_cut: false,
            found: Vec::new(),
        };
        search.look_into(&self.root, Path::new(""), SEARCH_DEPTH_MAX);
        let mut items = search.found;
        if search.is_cut {
            items.push(Item::note(Kind::Info, "The search stopped at its limits: there may be more."));
        } else if items.is_empty() {
            items.push(Item::note(Kind::Info, "Nothing was found."));
        }
        Answer::Menu(items)
    }
}

/// An entry of a folder.
struct Entry {
    name: String,
    selector: String,
    kind: Kind,
    path: PathBuf,
    is_link: bool,
}

/// Finds what has all the words in its name or its text. Links are not followed: their targets are found where they are.
struct Search<'a> {
    site: &'a Site,
    place: &'a Place,
    words: Vec<String>,
    entries_left: usize,
    bytes_left: u64,
    is_cut: bool,
    found: Vec<Item>,
}

impl Search<'_> {
    fn look_into(&mut self, folder: &Path, below: &Path, depth_left: usize) {
        // Skip what cannot be read.
        let Ok((entries, is_cut)) = self.site.entries(folder, below) else { return };
        self.is_cut |= is_cut || depth_left == 0;
        for entry in entries.into_iter().filter(|entry| !entry.is_link) {
            if self.entries_left == 0 || self.found.len() == SEARCH_FOUND_MAX {
                self.is_cut = true;
                return;
            }
            self.entries_left -= 1;
            if self.matches(&entry) {
                self.found.push(self.place.item(entry.kind, &entry.selector, entry.selector.clone()));
            }
            if entry.kind == Kind::Menu && depth_left > 0 {
                self.look_into(&entry.path, &below.join(&entry.name), depth_left - 1);
            }
        }
    }

    fn matches(&mut self, entry: &Entry) -> bool {
        let name = entry.name.to_lowercase();
        let mut missing = self.words.iter().filter(|word| !name.contains(*word)).peekable();
        if missing.peek().is_none() || entry.kind != Kind::Text {
            return missing.peek().is_none();
        }
        let most = SEARCH_FILE_BYTES.min(self.bytes_left);
        self.is_cut |= self.bytes_left == 0;
        let Ok(text) = head(&entry.path, most) else { return false };
        self.bytes_left -= text.len() as u64;
        let text = String::from_utf8_lossy(&text).to_lowercase();
        missing.all(|word| text.contains(word))
    }
}

// ------------------------------------------------------------------------------------------------------------- paths

/// The path below the root that a selector names; `None` if that is hidden.
fn path_of(selector: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for name in selector.split('/').filter(|name| !name.is_empty()) {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(part), None) if is_visible(part) && part.as_os_str() == name => path.push(name),
            _ => return None,
        }
    }
    Some(path)
}

/// The selector of a path below the root; `None` if clients could not ask for it.
fn selector_of(below: &Path) -> Option<String> {
    let mut selector = String::new();
    for part in below.components() {
        selector.push('/');
        selector.push_str(part.as_os_str().to_str().filter(|_| is_visible(part))?);
    }
    (selector.len() <= SELECTOR_MAX).then_some(selector)
}

/// A name, unless it is hidden or cannot be in a menu.
fn is_visible(part: Component<'_>) -> bool {
    let Component::Normal(name) = part else { return false };
    name.to_str().is_some_and(|name| !name.starts_with('.') && !name.contains(char::is_control))
}

/// The kind of a file that we serve: by its name, or else by its first bytes.
fn kind_of_file(path: &Path) -> io::Result<Kind> {
    if !path.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    match path.file_name().and_then(|name| Kind::of_name(name.to_str()?)) {
        Some(kind) => Ok(kind),
        None => Ok(Kind::of_bytes(&head(path, HEAD_BYTES)?)),
    }
}

fn head(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.0.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A plain file and its length; not a link, and without waiting for the writer of a pipe.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(io::ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_a_path_below_the_root_or_nothing() {
        let paths = [
            ("", ""),
            ("/", ""),
            ("/a", "a"),
            ("a", "a"),
            ("/a/b c", "a/b c"),
            ("//a///b/", "a/b"),
            ("/a..b", "a..b"),
            ("/größe", "größe"),
            ("/\\..\\x", "\\..\\x"),
        ];
        for (selector, path) in paths {
            if cfg!(unix) || !selector.contains('\\') {
                assert_eq!(path_of(selector), Some(path.into()), "{selector}");
            }
        }
        let refused = [
            "..",
            "/..",
            "/a/../b",
            "/a/..",
            "../../etc/passwd",
            ".",
            "/.",
            "/./a",
            "/.hidden",
            "/a/.b/c",
            "/a\nb",
            "/a\u{7f}",
            "/....",
        ];
        for selector in refused {
            assert_eq!(path_of(selector), None, "{selector}");
        }
    }

    #[test]
    fn what_could_not_be_asked_for_has_no_selector() {
        assert_eq!(selector_of(Path::new("")).as_deref(), Some(""));
        assert_eq!(selector_of(Path::new("a/b c")).as_deref(), Some("/a/b c"));
        assert_eq!(selector_of(Path::new(&"x".repeat(254))).map(|selector| selector.len()), Some(255));
        for path in [&"x".repeat(255), ".a", "a/.b", "a\tb", "a\nb", "..", "/a"] {
            assert_eq!(selector_of(Path::new(path)), None, "{path}");
        }
    }
}
