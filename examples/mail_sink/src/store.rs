//! Mails on the disk: a Maildir (maildir(5)) with two folders more, `queue/` for mails that are to be handed on, `failed/` for those
//! that the next host refuses. All of it may block, and is called on other threads.
//!
//! A mail is written to `tmp/`, and renamed when it is whole and on the disk. In front stand its envelope, as headers that are
//! not handed on, and what else we say of it. Lines end in LF, as in any Maildir.

use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, path::PathBuf, time::Duration, time::SystemTime};

/// Without its end (RFC 5321, 4.5.3.1.6).
pub const LINE_MAX: usize = 998;

/// Servers that a mail has passed: more is a loop (RFC 5321, 6.3).
const HOPS_MAX: u32 = 50;

/// What is older in `tmp/` was left by who is dead (maildir(5)).
const TMP_AGE_MAX: Duration = Duration::from_secs(36 * 60 * 60);

/// So many mails are known at least, when they come again, though they are in `cur/` by another name, were handed on, or deleted.
const KNOWN_MIN: usize = 1 << 18;

/// Begins the second line of what is handed on, if that may not go to everybody (RFC 6531, 4.3).
pub const UTF8: &str = "\twith UTF8SMTP";

const FROM: &str = "Return-Path: <";
const TO: &str = "Delivered-To: ";

/// Of SMTP, without its end.
pub type Reply = &'static str;

pub struct Store {
    root: PathBuf,
    host: String,
    serial: AtomicU64,
    /// The last ones and those before: together at most twice `KNOWN_MIN`.
    known: Mutex<[HashSet<u128>; 2]>,
}

impl Store {
    /// And what is in its queue.
    pub fn open(root: PathBuf, host: String) -> io::Result<(Arc<Self>, Vec<String>)> {
        for folder in ["tmp", "new", "cur", "queue", "failed"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for entry in fs::read_dir(root.join("tmp"))?.flatten() {
            if entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > TMP_AGE_MAX) {
                fs::remove_file(entry.path())?;
            }
        }
        let store = Self { root, host, serial: AtomicU64::new(0), known: Mutex::default() };
        let [queue, new, cur] = [store.names("queue")?, store.names("new")?, store.names("cur")?]; // as mails move
        cur.iter().chain(&new).chain(&queue).for_each(|name| store.remember(name));
        Ok((Arc::new(store), queue))
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(folder, ""))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// With other recipients it is another mail, with another `trace` it is not.
    pub fn create(self: &Arc<Self>, from: &str, to: &[String], trace: &str, bytes_max: u64) -> Mail {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (seconds, micros, serial) = (now.as_secs(), now.subsec_micros(), self.serial.fetch_add(1, Ordering::Relaxed));
        let name = format!("{seconds}.M{micros}P{}Q{serial}.{}", std::process::id(), self.host);
        let envelope = format!("{FROM}{from}>\n{TO}{}\n", to.join(&format!("\n{TO}")));
        let (hash, text) = (Sha256::new_with_prefix(&envelope), (envelope + trace).into_bytes());
        let (store, bytes_left, line, trouble) = (Arc::clone(self), bytes_max.saturating_add(1), Vec::new(), None);
        let (file, is_body, is_received, has_id, hops) = (None, false, false, false, 0);
        Mail { store, name, file, text, line, hash, bytes_left, is_body, is_received, has_id, hops, trouble }
    }

    fn has(&self, name: &str) -> bool {
        let is_known = digest(name).is_some_and(|digest| self.known().iter().any(|known| known.contains(&digest)));
        is_known || ["queue", "new"].iter().any(|folder| self.path(folder, name).exists())
    }

    fn remember(&self, name: &str) {
        let Some(digest) = digest(name) else { return };
        let [last, before] = &mut *self.known();
        if last.len() >= KNOWN_MIN {
            *before = std::mem::take(last);
        }
        last.insert(digest);
    }

    fn known(&self) -> MutexGuard<'_, [HashSet<u128>; 2]> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mail of the queue; nothing if it has left, because it was there twice.
    pub fn queued(&self, name: &str) -> io::Result<Option<Queued>> {
        let path = self.path("queue", name);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(path)?;
        let (mut from, mut to, mut wire) = (String::new(), Vec::new(), Vec::with_capacity(text.len() * 17 / 16));
        for line in text.split_inclusive(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line)) {
            let header = if wire.is_empty() { String::from_utf8_lossy(line) } else { "".into() };
            if let Some(path) = header.strip_prefix(FROM) {
                from = path.trim_end_matches('>').to_owned();
            } else if let Some(path) = header.strip_prefix(TO) {
                to.push(path.to_owned());
            } else {
                wire.extend_from_slice(if line.starts_with(b".") { b"." } else { b"" });
                wire.extend_from_slice(line);
                wire.extend_from_slice(b"\r\n");
            }
        }
        let is_utf8 = wire.split(|&byte| byte == b'\n').nth(1).is_some_and(|line| line.starts_with(UTF8.as_bytes()));
        Ok(Some(Queued { name: name.to_owned(), from, to, is_utf8, wire: wire.into() }))
    }

    /// A mail of the queue was tried, and its recipients have these replies. Whoever may take it later stays in the queue; who
    /// never will is named in `failed/`, and may be sent it again. Whether it stays.
    pub fn settle(self: &Arc<Self>, mail: &Queued, replies: &[String]) -> io::Result<bool> {
        let (mut left, mut refused, mut why) = (Vec::new(), Vec::new(), String::new());
        for (to, reply) in mail.to.iter().zip(replies).filter(|(_, reply)| !reply.starts_with('2')) {
            let is_refused = reply.starts_with('5');
            if is_refused { &mut refused } else { &mut left }.push(to.clone());
            why += &if is_refused { format!("X-Not-Forwarded: {reply} <{to}>\n") } else { String::new() };
        }
        let copy = |to: &[String], why: &str| {
            let mut copy = self.create(&mail.from, to, why, u64::MAX);
            copy.write_all(&mail.wire).map(|()| copy)
        };
        if !refused.is_empty() {
            let copy = copy(&refused, &why)?;
            let name = copy.name();
            copy.place("failed", name.clone())?;
            log::warn!("failed/{name}, for {} of {}: {}", refused.len(), mail.to.len(), why.lines().next().unwrap_or_default());
            self.known().iter_mut().for_each(|known| _ = digest(&mail.name).is_some_and(|digest| known.remove(&digest)));
        }
        if left.is_empty() {
            fs::remove_file(self.path("queue", &mail.name))?;
        } else if left.len() < mail.to.len() {
            copy(&left, "")?.place("queue", mail.name.clone())?;
        }
        Ok(!left.is_empty())
    }

    fn path(&self, folder: &str, name: &str) -> PathBuf {
        self.root.join(folder).join(name)
    }

    /// Where it cannot be opened, a folder is not to be synced either.
    fn sync(&self, folder: &str) -> io::Result<()> {
        if cfg!(unix) { fs::File::open(self.path(folder, ""))?.sync_all() } else { Ok(()) }
    }
}

/// A mail that is to be handed on.
pub struct Queued {
    name: String,
    pub from: String,
    pub to: Vec<String>,
    pub is_utf8: bool,
    /// As SMTP has it, but for its end.
    pub wire: Arc<[u8]>,
}

/// A mail that is written, as SMTP has it. What is wrong with it is said at its end, because until then the client hears nothing.
/// One that is not kept leaves nothing behind.
pub struct Mail {
    store: Arc<Store>,
    name: String,
    /// It has a file when something was written.
    file: Option<fs::File>,
    /// Not written yet.
    text: Vec<u8>,
    /// It has not ended.
    line: Vec<u8>,
    hash: Sha256,
    bytes_left: u64,
    is_body: bool,
    is_received: bool,
    has_id: bool,
    hops: u32,
    trouble: Option<Reply>,
}

impl Write for Mail {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.bytes_left = self.bytes_left.saturating_sub(piece.len() as u64);
        let taken = piece.split_inclusive(|&byte| byte == b'\n').try_for_each(|part| self.take(part));
        self.trouble = self.trouble.or(taken.and_then(|()| self.flush().map_err(trouble)).err());
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(fs::File::create_new(self.store.path("tmp", &self.name))?);
        }
        let text = std::mem::take(&mut self.text);
        self.file.iter_mut().try_for_each(|file| file.write_all(&text))
    }
}

impl Mail {
    /// A part of a line. Who takes a bare LF or CR for the end of one finds other mails in a mail than who does not (SMTP smuggling,
    /// CVE-2023-51764), so nobody gets one from us. A dot in front was put there for the way (RFC 5321, 4.5.2).
    fn take(&mut self, part: &[u8]) -> Result<(), Reply> {
        let too_large = (self.bytes_left == 0).then_some("552 5.3.4 Too large.");
        self.trouble.or(too_large).map_or(Ok(()), Err)?;
        self.line.extend_from_slice(part);
        if !part.ends_with(b"\n") && self.line.len() <= LINE_MAX + 2 {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n").map(|line| line.strip_prefix(b".").unwrap_or(line));
        let line = line.filter(|line| line.len() <= LINE_MAX && !line.contains(&b'\r'));
        let line = line.ok_or("550 5.6.0 A line has 998 bytes at most, ends in CRLF, and has no other CR or LF.")?;
        self.is_body |= line.is_empty();
        if !self.is_body && !line[0].is_ascii_whitespace() {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            self.is_received = name.eq_ignore_ascii_case(b"Received");
            self.hops += u32::from(self.is_received);
            self.has_id |= name.eq_ignore_ascii_case(b"Message-ID") && line.contains(&b'<');
        }
        for bytes in [line, b"\n"] {
            self.text.extend_from_slice(bytes);
            if self.is_body || !self.is_received {
                self.hash.update(bytes); // on another way it would still be the same mail
            }
        }
        Ok(())
    }

    /// It is on the disk when this returns, with this name. The client may have lost our answer, and send it again: then it is there,
    /// and nothing is to be done.
    pub fn keep(mut self, folder: &str) -> Result<Option<String>, Reply> {
        self.write_all(b"\r\n").map_err(trouble)?; // of the last line, seen as a part of the end
        let looped = (self.hops > HOPS_MAX).then_some("554 5.4.6 It goes round in circles.");
        self.trouble.or(looped).map_or(Ok(()), Err)?;
        let name = self.name();
        let (store, is_there) = (Arc::clone(&self.store), self.has_id && self.store.has(&name));
        let kept = if is_there { store.sync(folder) } else { self.place(folder, name.clone()) }; // since this moment perhaps
        kept.map_err(trouble)?;
        store.remember(&name);
        Ok((!is_there).then_some(name))
    }

    /// The same mail has the same name. Without a Message-ID each is another one: mails may well say the same.
    fn name(&self) -> String {
        if self.has_id { format!("{:x}", self.hash.clone().finalize()) } else { self.name.clone() }
    }

    fn place(mut self, folder: &str, name: String) -> io::Result<()> {
        self.trouble.map_or(Ok(()), |trouble| Err(io::Error::other(trouble)))?;
        self.file.iter_mut().try_for_each(|file| file.sync_all())?;
        fs::rename(self.store.path("tmp", &self.name), self.store.path(folder, &name))?;
        self.store.sync(folder)
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.store.path("tmp", &self.name)); // it has another name if it was kept
    }
}

/// By what a mail with a Message-ID is known: the first half of its name, which is its hash.
fn digest(name: &str) -> Option<u128> {
    u128::from_str_radix(name.get(..32)?, 16).ok()
}

pub fn trouble(error: io::Error) -> Reply {
    log::warn!("the disk: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "452 4.3.1 The disk is full.",
        _ => "451 4.3.0 The disk fails.",
    }
}
