//! A receiver of mail (SMTP: RFC 5321, 2920, 1870). Mails go to a spool, unstuffed, in flat memory, written by other
//! threads.

use mainspring::{Context, Limit, Outcome, Protocol, Terminator};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

pub type Ctx<'a> = Context<'a, Server>;

/// What the program has one of.
pub struct Server {
    pub host: String,
    pub spool: PathBuf,
    pub bytes_max: u64,
    pub serial: u64,
    pub stored: u64,
    pub idle: Duration,
}

const LINE_MAX: usize = 1000;
const RECIPIENTS_MAX: usize = 100;
const ERRORS_MAX: u32 = 10;

/// For a whole mail.
const MAIL_TIME: Duration = Duration::from_secs(600);

const DISK_TROUBLE: (u16, &str) = (451, "Disk trouble, come back later.");

// --------------------------------------------------------------------------------------------- mails, on other threads

/// A mail on its way to the spool. What goes wrong is said at its end: until then the client hears nothing. One that is
/// not kept leaves nothing behind.
struct Mail {
    file: File,
    part: PathBuf,
    unstuff: Unstuff,
    bytes_left: u64,
    trouble: Option<(u16, &'static str)>,
}

impl Mail {
    fn create(part: PathBuf, head: &str, bytes_max: u64) -> io::Result<Self> {
        let file = File::create_new(&part)?;
        let mut mail = Self { file, part, unstuff: Unstuff::default(), bytes_left: bytes_max, trouble: None };
        mail.file.write_all(head.as_bytes())?;
        Ok(mail)
    }

    /// It is on the disk when this returns.
    fn keep(mut self) -> Result<(), (u16, &'static str)> {
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        let synced = self.file.write_all(self.unstuff.end()).and_then(|()| self.file.sync_all());
        synced.and_then(|()| fs::rename(&self.part, self.part.with_extension("mail"))).map_err(trouble)
    }
}

fn trouble(error: io::Error) -> (u16, &'static str) {
    log::warn!("{error}");
    DISK_TROUBLE
}

impl Write for Mail {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.bytes_left.checked_sub(piece.len() as u64) {
            Some(left) => self.bytes_left = left,
            None => self.trouble = Some((552, "Too large.")),
        }
        if self.trouble.is_none() {
            let mut unstuffed = Vec::with_capacity(piece.len());
            self.unstuff.push(piece, &mut unstuffed);
            self.trouble = self.file.write_all(&unstuffed).map_err(trouble).err();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part); // it has another name if it was kept
    }
}

/// RFC 5321, 4.5.2: a dot that begins a line goes, however the bytes are cut.
#[derive(Default)]
struct Unstuff {
    at: At,
    is_begun: bool,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum At {
    #[default]
    Start,
    Cr,
    Middle,
}

impl Unstuff {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.is_begun |= !bytes.is_empty();
        for &byte in bytes {
            if byte != b'.' || self.at != At::Start {
                out.push(byte);
            }
            self.at = match byte {
                b'\r' => At::Cr,
                b'\n' if self.at == At::Cr => At::Start,
                _ => At::Middle,
            };
        }
    }

    /// The CRLF before the last dot ends the last line of the mail; an empty mail has none.
    fn end(&self) -> &'static [u8] {
        if self.is_begun { b"\r\n" } else { b"" }
    }
}

// ------------------------------------------------------------------------------------------------------------ sessions

#[derive(Default)]
pub struct Session {
    is_greeted: bool,
    from: Option<String>,
    to: Vec<String>,
    /// A mail is coming, or on its way to the disk.
    has_mail: bool,
    errors: u32,
}

fn reply(ctx: &mut Ctx<'_>, code: u16, text: &str) {
    write!(ctx, "{code} {text}\r\n");
}

impl Session {
    fn refuse(&mut self, ctx: &mut Ctx<'_>, code: u16, text: &str) {
        self.errors += 1;
        if self.errors <= ERRORS_MAX {
            return reply(ctx, code, text);
        }
        reply(ctx, 421, "Too many errors.");
        ctx.close();
    }

    fn reset(&mut self) {
        (self.from, self.to, self.has_mail) = (None, Vec::new(), false);
    }

    fn command(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                self.reset();
                self.is_greeted = true;
                write!(ctx, "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE {}\r\n", server.host, server.bytes_max);
            }
            "HELO" => {
                self.reset();
                self.is_greeted = true;
                reply(ctx, 250, &server.host);
            }
            "MAIL" if !self.is_greeted => self.refuse(ctx, 503, "Say hello first."),
            "MAIL" if self.from.is_some() => self.refuse(ctx, 503, "One mail at a time."),
            "MAIL" => match path(rest, "FROM:") {
                None => self.refuse(ctx, 501, "MAIL FROM:<address>"),
                Some((_, args)) if size(args) > server.bytes_max => self.refuse(ctx, 552, "Too large."),
                Some((from, _)) => {
                    self.from = Some(from.to_owned());
                    reply(ctx, 250, "Ok.");
                }
            },
            "RCPT" => match path(rest, "TO:") {
                _ if self.from.is_none() => self.refuse(ctx, 503, "MAIL first."),
                None | Some(("", _)) => self.refuse(ctx, 501, "RCPT TO:<address>"),
                Some(_) if self.to.len() >= RECIPIENTS_MAX => reply(ctx, 452, "Too many recipients."),
                Some((to, _)) => {
                    self.to.push(to.to_owned());
                    reply(ctx, 250, "Ok.");
                }
            },
            "DATA" if self.to.is_empty() => self.refuse(ctx, 503, "RCPT first."),
            "DATA" => self.begin(ctx, server),
            "RSET" => {
                self.reset();
                reply(ctx, 250, "Ok.");
            }
            "NOOP" => reply(ctx, 250, "Ok."),
            "VRFY" => reply(ctx, 252, "Try it."),
            "HELP" => reply(ctx, 214, "RFC 5321."),
            "QUIT" => {
                reply(ctx, 221, "Bye.");
                ctx.close();
            }
            _ => self.refuse(ctx, 500, "There is no such command."),
        }
    }

    /// What is pipelined behind DATA, against the RFC, waits until the reply is there.
    fn begin(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) {
        server.serial += 1;
        self.has_mail = true;
        let part = server.spool.join(format!("{}-{}.part", ctx.key, server.serial));
        let head = format!("X-From: <{}>\r\nX-To: <{}>\r\n", self.from.as_deref().unwrap_or_default(), self.to.join(">, <"));
        let bytes_max = server.bytes_max;
        ctx.offload_held(
            move || Mail::create(part, &head, bytes_max).map_err(trouble),
            |me: &mut Self, ctx, _, mail| {
                match mail? {
                    Ok(mail) => receive(ctx, mail),
                    Err((code, text)) => {
                        me.has_mail = false;
                        reply(ctx, code, text);
                    }
                }
                Ok(())
            },
        );
    }
}

fn receive(ctx: &mut Ctx<'_>, mail: Mail) {
    ctx.set_deadline(MAIL_TIME);
    ctx.set_terminator(Terminator::StreamUntil { bytes: b"\r\n.\r\n".into(), seen: 2 });
    reply(ctx, 354, "End with a dot on a line of its own.");
    ctx.save(mail, |_: &mut Session, ctx, _, saved| {
        let Ok(mail) = saved else { return Ok(()) }; // the stream has ended before the mail has
        ctx.set_deadline(None);
        ctx.set_terminator(Terminator::crlf(LINE_MAX));
        ctx.offload_held(
            || mail.keep(),
            |me: &mut Session, ctx, server, kept| {
                me.reset();
                match kept? {
                    Ok(()) => {
                        server.stored += 1;
                        reply(ctx, 250, "Stored.");
                    }
                    Err((code, text)) => me.refuse(ctx, code, text),
                }
                Ok(())
            },
        );
        Ok(())
    });
}

impl Protocol<Server> for Session {
    fn connected(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::crlf(LINE_MAX));
        ctx.set_idle_timeout(server.idle);
        ctx.set_stall_timeout(server.idle);
        write!(ctx, "220 {} ESMTP\r\n", server.host);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &[u8]) -> Outcome {
        match std::str::from_utf8(line) {
            Ok(line) if !line.contains(['\r', '\n', '\0']) => self.command(ctx, server, line),
            _ => self.refuse(ctx, 500, "No text."),
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Server, limit: Limit) -> Outcome {
        match limit {
            Limit::FrameBytes => self.refuse(ctx, 500, "Too long."),
            Limit::Idle | Limit::Deadline | Limit::FrameTime => {
                reply(ctx, 421, "Too slow.");
                ctx.close();
            }
            other => return Err(other.into()),
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut Server) -> Outcome {
        if self.has_mail {
            ctx.close_when_quiet();
        } else {
            reply(ctx, 421, "Going down.");
            ctx.close();
        }
        Ok(())
    }
}

/// The address behind `FROM:` or `TO:`, and what stands behind it.
fn path<'a>(rest: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    rest.get(..word.len()).filter(|begin| begin.eq_ignore_ascii_case(word))?;
    let (address, args) = rest[word.len()..].trim_start().strip_prefix('<')?.split_once('>')?;
    Some((address, args.trim()))
}

/// What SIZE says; 0 if it is not there.
fn size(args: &str) -> u64 {
    let declared = |arg: &str| {
        arg.get(..5).filter(|word| word.eq_ignore_ascii_case("SIZE="))?;
        arg[5..].parse().ok()
    };
    args.split(' ').find_map(declared).unwrap_or_default()
}
