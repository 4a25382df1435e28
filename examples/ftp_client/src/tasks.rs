//! The tasks, a file or a folder at a time.

use crate::{App, Control, Ctx, Done, control::Reply, data::Job};
use chrono::{DateTime, NaiveDateTime, Utc};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::SystemTime,
};

const STAMP: &str = "%Y%m%d%H%M%S";

/// How deep folders may be nested.
const DEPTH_MAX: usize = 64;

/// `Show` writes to standard output. `FetchAll` and `StoreAll` transfer the files of a folder that are missing on the other
/// side, or differ there. A task is unknown if it comes from the list of a server that has only names: it may be a folder, or
/// the same file already.
#[derive(Clone)]
pub enum Task {
    List(String),
    Show(String),
    Fetch { remote: String, local: PathBuf, is_unknown: bool },
    Store { local: PathBuf, remote: String, is_unknown: bool },
    FetchAll { remote: String, local: PathBuf },
    StoreAll { local: PathBuf, remote: String },
    MakeFolder(String),
    Remove(String),
    Rename(String, String),
}

/// What we know about a remote file.
#[derive(Clone, Copy, Default)]
struct Facts {
    is_folder: bool,
    size: Option<u64>,
    modified: Option<SystemTime>,
}

/// Servers report whole seconds.
fn seconds(time: SystemTime) -> i64 {
    DateTime::<Utc>::from(time).timestamp()
}

/// Whether both are known, and one is before the other.
fn is_before(one: Option<SystemTime>, other: Option<SystemTime>) -> bool {
    one.zip(other).is_some_and(|(one, other)| seconds(one) < seconds(other))
}

impl Facts {
    /// Whether the local file is the same, as far as we can know without reading it. If the server does not keep times, its file
    /// may be younger.
    fn are_of(&self, local: &Path, keeps_times: bool) -> bool {
        let Ok(here) = local.metadata() else { return false };
        let time = here.modified().ok();
        let fits = self.modified.is_some() && !is_before(self.modified, time) && !(keeps_times && is_before(time, self.modified));
        here.is_file() && self.size == Some(here.len()) && fits
    }
}

fn moment(stamp: &str) -> Option<SystemTime> {
    Some(NaiveDateTime::parse_from_str(stamp.get(..14)?, STAMP).ok()?.and_utc().into())
}

/// A line of MLSD: `type=file;size=6;modify=20261201000000; name`.
fn entry(line: &str) -> Option<(String, Facts)> {
    let (facts, name) = line.trim_end_matches('\r').split_once(' ')?;
    let mut found = Facts::default();
    for (fact, value) in facts.split(';').filter_map(|fact| fact.split_once('=')) {
        match fact.to_ascii_lowercase().as_str() {
            "type" if value.eq_ignore_ascii_case("dir") => found.is_folder = true,
            "type" if !value.eq_ignore_ascii_case("file") => return None, // the folder itself, or the one above
            "size" => found.size = value.parse().ok(),
            "modify" => found.modified = moment(value),
            _ => {}
        }
    }
    Some((name.to_owned(), found))
}

/// Whether this may be the name of a local file: nothing is written elsewhere, whatever a server says.
fn is_name(name: &str) -> bool {
    !["", ".", ".."].contains(&name) && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\')
}

fn path(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.into() } else { format!("{}/{name}", folder.trim_end_matches('/')) }
}

/// The argument for a folder, or none for the current one.
fn command(verb: &str, folder: &str) -> String {
    if folder.is_empty() { verb.into() } else { format!("{verb} {folder}") }
}

/// The path in `257 "/a ""b""" is where you are`.
fn quoted(text: &str) -> Option<String> {
    Some(text.split_once('"')?.1.rsplit_once('"')?.0.replace("\"\"", "\""))
}

/// Opens a file to read. Anything else, such as a pipe, could keep us waiting for ever.
fn open(local: &Path) -> Result<(File, Metadata), String> {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let opened = options.read(true).open(local).and_then(|file| Ok((file.metadata()?, file)));
    let (meta, file) = opened.map_err(|error| of(local, error))?;
    if meta.is_dir() {
        return Err(format!("'{}' is a folder: `mirror --upload` stores it", local.display()));
    }
    if meta.is_file() { Ok((file, meta)) } else { Err(format!("'{}' is not a file", local.display())) }
}

fn of(local: &Path, error: io::Error) -> String {
    format!("'{}': {error}", local.display())
}

fn said(error: io::Error) -> String {
    error.to_string()
}

impl Control {
    pub(crate) fn begin(&mut self, ctx: &mut Ctx<'_>, app: &mut App, task: Task) -> Done {
        self.task = match &task {
            Task::List(name) | Task::Show(name) | Task::MakeFolder(name) | Task::Remove(name) | Task::Rename(name, _) => name,
            Task::Fetch { remote, .. } | Task::FetchAll { remote, .. } => remote,
            Task::Store { remote, .. } | Task::StoreAll { remote, .. } => remote,
        }
        .clone();
        if self.task.is_empty() {
            self.task = ".".into();
        }
        match task {
            Task::List(name) => {
                let then = |me: &mut Self, ctx: &mut Ctx<'_>, app: &mut App, list: Vec<u8>| {
                    for line in String::from_utf8_lossy(&list).lines() {
                        if let Err(error) = (app.print)(&crate::printable::printable(line)) {
                            app.end_unwritten(ctx, error);
                            return Ok(());
                        }
                    }
                    me.next(ctx, app)
                };
                self.carry(ctx, app, command("LIST", &name), 0, Job::List, Box::new(then))
            }
            Task::Show(name) => {
                let then = |me: &mut Self, ctx: &mut Ctx<'_>, app: &mut App, _| me.next(ctx, app);
                self.carry(ctx, app, format!("RETR {name}"), 0, Job::Show, Box::new(then))
            }
            Task::Fetch { remote, local, is_unknown } => self.look(ctx, remote.clone(), move |me, ctx, app, facts| {
                if (is_unknown || app.continues) && facts.are_of(&local, true) {
                    return me.next(ctx, app);
                }
                if !is_unknown || facts.size.is_some() {
                    return me.fetch(ctx, app, remote, local, facts);
                }
                me.try_folder(ctx, remote.clone(), move |me, ctx, app, is_folder| match is_folder {
                    true => me.begin(ctx, app, Task::FetchAll { remote, local }),
                    false => me.fetch(ctx, app, remote, local, facts),
                })
            }),
            Task::Store { local, remote, is_unknown } if is_unknown || app.continues => {
                self.look(ctx, remote.clone(), move |me, ctx, app, facts| {
                    let is_there = facts.are_of(&local, me.has("MFMT"));
                    if is_there { me.next(ctx, app) } else { me.store(ctx, app, &local, remote, facts) }
                })
            }
            Task::Store { local, remote, .. } => self.store(ctx, app, &local, remote, Facts::default()),
            Task::FetchAll { remote, local } => {
                fs::create_dir_all(&local).map_err(|error| of(&local, error))?;
                if local.components().count() > DEPTH_MAX {
                    return Err("folders are nested too deep".into());
                }
                self.list(ctx, app, remote.clone(), move |me, ctx, app, entries| {
                    for (name, facts) in entries.into_iter().rev() {
                        if !is_name(&name) || name.ends_with(".part") {
                            app.fail(&format!("{remote}: nothing that is fetched can be called `{name}`"));
                            continue;
                        }
                        let (remote, local) = (path(&remote, &name), local.join(name));
                        match facts {
                            Some(facts) if facts.is_folder => app.tasks.push_front(Task::FetchAll { remote, local }),
                            Some(facts) if facts.are_of(&local, true) => {}
                            _ => app.tasks.push_front(Task::Fetch { remote, local, is_unknown: facts.is_none() }),
                        }
                    }
                    me.next(ctx, app)
                })
            }
            Task::StoreAll { local, remote } => {
                let here = fs::read_dir(&local).and_then(Iterator::collect::<io::Result<Vec<_>>>);
                let here = here.map_err(|error| of(&local, error))?;
                self.ask(ctx, &format!("MKD {remote}"), move |me, ctx, app, _| {
                    me.list(ctx, app, remote.clone(), move |me, ctx, app, entries| {
                        let (there, keeps_times): (HashMap<_, _>, _) = (entries.into_iter().collect(), me.has("MFMT"));
                        for entry in here.into_iter().rev() {
                            let (name, local) = (entry.file_name(), entry.path());
                            let Some(name) = name.to_str().filter(|name| is_name(name)) else {
                                app.fail(&format!("{}: no server could know this name", local.display()));
                                continue;
                            };
                            let (remote, there) = (path(&remote, name), there.get(name));
                            match local.symlink_metadata() {
                                Ok(meta) if meta.is_dir() => app.tasks.push_front(Task::StoreAll { local, remote }),
                                Ok(meta) if !meta.is_file() => {
                                    let what = if meta.is_symlink() { "links are not followed" } else { "not a file or folder" };
                                    app.fail(&format!("{}: {what}", local.display()));
                                }
                                Ok(_) if there.copied().flatten().is_some_and(|facts| facts.are_of(&local, keeps_times)) => {}
                                Ok(_) => {
                                    let is_unknown = there.is_some_and(Option::is_none);
                                    app.tasks.push_front(Task::Store { local, remote, is_unknown });
                                }
                                Err(error) => app.fail(&format!("{}: {error}", local.display())),
                            }
                        }
                        me.next(ctx, app)
                    })
                })
            }
            Task::MakeFolder(name) => {
                self.ask(ctx, &format!("MKD {name}"), |me, ctx, app, reply| me.done(ctx, app, &reply, &[257]))
            }
            Task::Remove(name) => self.ask(ctx, &format!("DELE {name}"), move |me, ctx, app, reply| {
                if reply.code == 250 {
                    return me.done(ctx, app, &reply, &[250]);
                }
                // Perhaps it is an empty folder.
                me.ask(ctx, &format!("RMD {name}"), move |me, ctx, app, other| {
                    let why = if reply.text == other.text { String::new() } else { format!("{}; ", reply.text) };
                    other.must(&[250]).map_err(|other| why + &other)?;
                    me.next(ctx, app)
                })
            }),
            Task::Rename(from, to) => self.ask(ctx, &format!("RNFR {from}"), move |me, ctx, _, reply| {
                reply.must(&[350])?;
                me.ask(ctx, &format!("RNTO {to}"), |me, ctx, app, reply| me.done(ctx, app, &reply, &[250]))
            }),
        }
    }

    fn done(&mut self, ctx: &mut Ctx<'_>, app: &mut App, reply: &Reply, codes: &[u16]) -> Done {
        reply.must(codes)?;
        self.next(ctx, app)
    }

    /// Asks what is known about a file.
    fn look(
        &mut self,
        ctx: &mut Ctx<'_>,
        remote: String,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut App, Facts) -> Done + 'static,
    ) -> Done {
        self.ask(ctx, &format!("SIZE {remote}"), move |me, ctx, _, reply| {
            let size = if reply.code == 213 { reply.value().parse().ok() } else { None };
            me.ask(ctx, &format!("MDTM {remote}"), move |me, ctx, app, reply| {
                let modified = if reply.code == 213 { moment(reply.value()) } else { None };
                then(me, ctx, app, Facts { is_folder: false, size, modified })
            })
        })
    }

    /// Whether it is a folder: tries to go there, and comes back.
    fn try_folder(
        &mut self,
        ctx: &mut Ctx<'_>,
        remote: String,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut App, bool) -> Done + 'static,
    ) -> Done {
        self.ask(ctx, "PWD", move |me, ctx, _, reply| {
            let home = quoted(&reply.text).ok_or("the server tells neither the type of the file, nor our folder")?;
            me.ask(ctx, &format!("CWD {remote}"), move |me, ctx, app, reply| {
                if reply.code != 250 {
                    return then(me, ctx, app, false);
                }
                me.ask(ctx, &format!("CWD {home}"), move |me, ctx, app, reply| {
                    if reply.code == 250 {
                        return then(me, ctx, app, true);
                    }
                    app.broken = Some(format!("there is no way back: {}", reply.text)); // names mean other files here
                    ctx.close();
                    Ok(())
                })
            })
        })
    }

    /// Lists a folder. A server without MLSD tells only the names.
    fn list(
        &mut self,
        ctx: &mut Ctx<'_>,
        app: &App,
        remote: String,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut App, Vec<(String, Option<Facts>)>) -> Done + 'static,
    ) -> Done {
        let has_facts = self.has("MLST");
        let verb = if has_facts { "MLSD" } else { "NLST" };
        let read = move |me: &mut Self, ctx: &mut Ctx<'_>, app: &mut App, list: Vec<u8>| {
            let text = String::from_utf8_lossy(&list);
            let bare = |line: &str| (line.rsplit('/').next().unwrap_or_default().to_owned(), None);
            let entries = match has_facts {
                true => text.lines().filter_map(entry).map(|(name, facts)| (name, Some(facts))).collect(),
                false => text.lines().map(bare).filter(|(name, _)| ![".", ".."].contains(&name.as_str())).collect(),
            };
            then(me, ctx, app, entries)
        };
        self.carry(ctx, app, command(verb, &remote), 0, Job::List, Box::new(read))
    }

    fn fetch(&mut self, ctx: &mut Ctx<'_>, app: &mut App, remote: String, local: PathBuf, facts: Facts) -> Done {
        if local.metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(format!("'{}' is not a file", local.display())); // the new file would replace it, as root even a device
        }
        let mut part = local.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        // Go on after what we have, unless the file was changed since.
        let old = part.metadata().ok().filter(|old| facts.size.is_none_or(|size| old.len() <= size));
        let old = old.filter(|old| app.continues && !is_before(old.modified().ok(), facts.modified));
        let from = old.map_or(0, |old| old.len());
        let mut file = File::options().write(true).create(true).truncate(from == 0).open(&part).map_err(said)?;
        file.seek(SeekFrom::Start(from)).map_err(said)?;
        self.part = Some(part.clone());
        let bar = app.bar(&remote, facts.size.unwrap_or(0), from);
        let then = move |me: &mut Self, ctx: &mut Ctx<'_>, app: &mut App, _| {
            let got = part.metadata().map_err(said)?.len();
            if let Some(size) = facts.size.filter(|&size| size != got) {
                return Err(format!("{got} bytes have come of {size}: they are in {}", part.display()));
            }
            if let Some(modified) = facts.modified {
                File::options().write(true).open(&part).and_then(|file| file.set_modified(modified)).map_err(said)?;
            }
            fs::rename(&part, &local).map_err(said)?;
            me.next(ctx, app)
        };
        let writer = Box::new(bar.wrap_write(file));
        self.carry(ctx, app, format!("RETR {remote}"), from, Job::Fetch(writer), Box::new(then))
    }

    fn store(&mut self, ctx: &mut Ctx<'_>, app: &mut App, local: &Path, remote: String, there: Facts) -> Done {
        let (mut file, meta) = open(local)?;
        let length = meta.len();
        // Go on after what the server has, unless the file was changed since.
        let goes_on = app.continues && !is_before(there.modified, meta.modified().ok());
        let from = there.size.filter(|&size| goes_on && size < length).unwrap_or(0);
        file.seek(SeekFrom::Start(from)).map_err(said)?;
        let bar = app.bar(&remote, length, from);
        let (command, reader) = (format!("STOR {remote}"), Box::new(bar.wrap_read(file)));
        let then = move |me: &mut Self, ctx: &mut Ctx<'_>, _: &mut App, _| {
            me.ask(ctx, &format!("SIZE {remote}"), move |me, ctx, app, reply| {
                if let Some(size) = reply.value().parse::<u64>().ok().filter(|&size| reply.code == 213 && size != length) {
                    return Err(format!("{size} bytes are there of {length}"));
                }
                let Some(time) = meta.modified().ok().filter(|_| me.has("MFMT")) else {
                    return me.next(ctx, app);
                };
                let stamp = DateTime::<Utc>::from(time).format(STAMP);
                me.ask(ctx, &format!("MFMT {stamp} {remote}"), |me, ctx, app, reply| me.done(ctx, app, &reply, &[213]))
            })
        };
        self.carry(ctx, app, command, from, Job::Store(reader), Box::new(then))
    }
}
