//! FTP (RFC 959, 2389, 2428, 3659): [`Control`] is a session, [`Data`](data::Data) one data connection of it, and what
//! they want of the disk is in `disk.rs`.

mod control;
mod data;
mod disk;

pub use control::Control;
use mainspring::{Context, OffloadError};
use std::{borrow::Cow, fmt::Display, io, path::PathBuf, time::Duration};

pub type Ctx<'a> = Context<'a, Ftp>;

/// What the program has one of.
pub struct Ftp {
    pub set: Settings,
    pub sessions: u64,
}

impl Ftp {
    pub fn new(set: Settings) -> Self {
        Self { set, sessions: 0 }
    }
}

pub struct Settings {
    pub root: PathBuf,
    pub user: String,
    pub pass: String,
    /// Whether `anonymous` may read.
    pub anonymous: bool,
    pub banner: String,
    /// How long a session may be silent, and how long a data connection may make nothing of a transfer.
    pub idle: Option<Duration>,
    pub data_idle: Option<Duration>,
    /// How long we wait for a client to come to its data port, and how long for it to let us in.
    pub passive_wait: Option<Duration>,
    pub active_wait: Duration,
    /// After a wrong password.
    pub login_delay: Duration,
    pub logins_max: u32,
    /// The IPv4 address to say in PASV, if it is not the one that the client came to.
    pub masquerade: Option<String>,
    /// Where data connections come to; any port if there are none, or none is free.
    pub ports: Vec<u16>,
    /// Whether data may come from, and go to, another host than the client's; and go to ports below 1024.
    pub foreign: bool,
    pub privileged: bool,
    /// Of each data connection, in bytes a second.
    pub read_rate: Option<u64>,
    pub write_rate: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            root: "/nowhere".into(),
            user: "user".into(),
            pass: "12345".into(),
            anonymous: true,
            banner: "ready.".into(),
            idle: Some(seconds(300)),
            data_idle: Some(seconds(300)),
            passive_wait: Some(seconds(30)),
            active_wait: seconds(30),
            login_delay: seconds(3),
            logins_max: 3,
            masquerade: None,
            ports: Vec::new(),
            foreign: false,
            privileged: false,
            read_rate: None,
            write_rate: None,
        }
    }
}

fn reply(ctx: &mut Ctx<'_>, code: u16, text: impl Display) {
    write!(ctx, "{code} {text}\r\n");
}

/// A command that is not done, and the reply to it.
struct Refused(u16, Cow<'static, str>);

fn refuse<T>(code: u16, text: impl Into<Cow<'static, str>>) -> Result<T, Refused> {
    Err(Refused(code, text.into()))
}

fn must(is_so: bool, code: u16, otherwise: &'static str) -> Result<(), Refused> {
    if is_so { Ok(()) } else { refuse(code, otherwise) }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self(550, disk::say(&error).into())
    }
}

impl From<OffloadError> for Refused {
    fn from(error: OffloadError) -> Self {
        log::error!("{error}");
        Self(451, "Local error.".into())
    }
}
