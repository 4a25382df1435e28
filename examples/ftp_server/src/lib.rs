//! An FTP server: RFC 959 and 1123, with TLS (2228, 4217), FEAT (2389), IPv6 (2428), what mirrors need (3659) and names in UTF-8
//! (2640). [`Control`] is a session: `control.rs` reads its commands, one after the other, `commands.rs` obeys them,
//! `transfer.rs` has the second connection that a transfer needs. What they want of the disk is in `disk.rs` and `listing.rs`, on
//! other threads.

mod commands;
mod control;
mod disk;
mod listing;
#[path = "../../common/log_file.rs"]
pub mod log_file;
#[path = "../../common/printable.rs"]
mod printable;
mod transfer;
mod users;

use cap_std::{ambient_authority, fs::Dir};
use chrono::{SecondsFormat, Utc};
pub use control::Control;
use log_file::LogFile;
use mainspring::{Context, OffloadError, TlsServer, rustls::ServerConfig};
use printable::printable;
use std::{borrow::Cow, fmt::Display, io, net::Ipv4Addr, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};
pub use users::User;

pub type Ctx<'a> = Context<'a, Ftp>;

/// What the program has one of.
pub struct Ftp {
    pub set: Settings,
    pub log: Option<LogFile<Self>>,
    pub sessions: u64,
}

impl Ftp {
    pub fn new(set: Settings) -> Self {
        Self { set, log: None, sessions: 0 }
    }

    /// A line for whoever runs the server.
    fn note(&mut self, ctx: &Ctx<'_>, user: Option<&str>, what: impl Display) {
        if let Some(log) = &mut self.log {
            let (time, user) = (Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true), user.unwrap_or("-"));
            log.note(printable(&format!("{time} {} {user} {what}", ctx.peer())));
        }
    }
}

pub struct Settings {
    pub root: Arc<Dir>,
    pub users: Vec<Arc<User>>,
    /// Whether `anonymous` may read.
    pub anonymous: bool,
    pub banner: String,
    /// Without it there is no AUTH.
    pub tls: Option<Tls>,
    /// Neither passwords nor data in clear.
    pub requires_tls: bool,
    /// How long a session may be silent, and how long a data connection may make nothing of a transfer.
    pub idle: Duration,
    /// After a wrong password.
    pub login_delay: Duration,
    pub logins_max: u32,
    /// The address to say in PASV, if it is not the one that the client came to.
    pub public_address: Option<Ipv4Addr>,
    /// Where data connections come to; any port if it is not said.
    pub passive_ports: Option<RangeInclusive<u16>>,
    /// Of each transfer, in bytes a second.
    pub rate: Option<u64>,
}

impl Settings {
    /// The usual ones, for this folder.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: Arc::new(Dir::open_ambient_dir(root, ambient_authority())?),
            users: Vec::new(),
            anonymous: false,
            banner: "ready.".into(),
            tls: None,
            requires_tls: false,
            idle: Duration::from_secs(300),
            login_delay: Duration::from_secs(1),
            logins_max: 3,
            public_address: None,
            passive_ports: None,
            rate: None,
        })
    }
}

/// TLS of both kinds of connections.
pub struct Tls {
    pub control: TlsServer,
    pub data: TlsServer,
}

impl From<ServerConfig> for Tls {
    fn from(config: ServerConfig) -> Self {
        // A client that only sends reads no ticket: its system would reset what it closes, and what it has sent would be lost.
        let mut data = config.clone();
        data.send_tls13_tickets = 0;
        Self { control: Arc::new(config).into(), data: Arc::new(data).into() }
    }
}

fn reply(ctx: &mut Ctx<'_>, code: u16, text: impl Display) {
    write!(ctx, "{code} {text}\r\n");
}

/// A command that is not done, and the reply to it.
#[derive(Debug)]
struct Refused(u16, Cow<'static, str>);

fn refuse<T>(code: u16, text: impl Into<Cow<'static, str>>) -> Result<T, Refused> {
    Err(Refused(code, text.into()))
}

fn must(is_so: bool, code: u16, otherwise: &'static str) -> Result<(), Refused> {
    if is_so { Ok(()) } else { refuse(code, otherwise) }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let (code, text) = disk::say(&error);
        Self(code, text.into())
    }
}

impl From<OffloadError> for Refused {
    fn from(error: OffloadError) -> Self {
        log::error!("{error}");
        Self(451, "Local error.".into())
    }
}
