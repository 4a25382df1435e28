//! The side of SMTP that takes mails: RFC 5321, 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3207 (STARTTLS),
//! 2034 (ENHANCEDSTATUSCODES). A mail goes to the disk as it comes, in flat memory, and is answered when it is there.

use crate::forward::{self, Forward, QUEUE_MAX};
use crate::store::{LINE_MAX, Reply, Store, UTF8};
use mainspring::{Context, Limit, Net, Outcome, Protocol, Terminator, TlsServer};
use std::{sync::Arc, time::Duration, time::SystemTime};

pub type Ctx<'a> = Context<'a, Server>;

/// What the program has one of.
pub struct Server {
    pub host: String,
    pub store: Arc<Store>,
    pub bytes_max: u64,
    /// Whose mail is taken; everybody's if it is nobody.
    pub domains: Vec<String>,
    pub idle: Duration,
    pub tls: Option<TlsServer>,
    pub requires_tls: bool,
    pub forward: Option<Forward>,
    pub stored: u64,
}

const RECIPIENTS_MAX: usize = 100;
const MAILS_MAX: u32 = 1000;
const ERRORS_MAX: u32 = 20;

/// Of a path, and of a domain (RFC 5321, 4.5.3.1).
const NAME_MAX: usize = 255;

/// For a whole mail, and a second more for so many bytes that it is said to have: who is slower is let go.
const MAIL_TIME: Duration = Duration::from_secs(600);
const BYTES_A_SECOND_MIN: u64 = 16 << 10;

#[derive(Default)]
pub struct Session {
    /// Who it says it is, and how.
    hello: Option<(String, &'static str)>,
    from: Option<String>,
    is_utf8: bool,
    /// As it was said; 0 if it was not.
    size: u64,
    to: Vec<String>,
    /// A mail is coming, or on its way to the disk.
    has_mail: bool,
    mails: u32,
    errors: u32,
}

impl Session {
    fn reset(&mut self) {
        (self.from, self.is_utf8, self.size, self.to, self.has_mail) = (None, false, 0, Vec::new(), false);
    }

    /// Nothing if the answer comes later. After 421 comes nothing more.
    fn answer(&mut self, ctx: &mut Ctx<'_>, answer: Result<Reply, Reply>) {
        self.errors += u32::from(answer.is_err());
        let (Ok(reply) | Err(reply)) = if self.errors > ERRORS_MAX { Err("421 4.7.0 Too many errors.") } else { answer };
        if !reply.is_empty() {
            write!(ctx, "{reply}\r\n");
        }
        if reply.starts_with("421") || reply.starts_with("221") {
            ctx.close();
        }
    }

    fn command(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &str) -> Result<Reply, Reply> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (verb, rest, is_secured) = (verb.to_ascii_uppercase(), rest.trim(), ctx.tls().is_some());
        match verb.as_str() {
            "EHLO" | "HELO" if rest.is_empty() || rest.len() > NAME_MAX || rest.contains(' ') => Err("501 5.5.4 Who are you?"),
            "HELO" | "EHLO" => {
                self.reset();
                self.hello = Some((rest.to_owned(), if verb == "EHLO" { "\twith ESMTP" } else { "\twith SMTP" }));
                if verb == "HELO" {
                    write!(ctx, "250 {}\r\n", server.host);
                    return Ok("");
                }
                let tls = if server.tls.is_some() && !is_secured { "250-STARTTLS\r\n" } else { "" };
                write!(ctx, "250-{}\r\n{tls}250-PIPELINING\r\n250-SIZE {}\r\n", server.host, server.bytes_max);
                Ok("250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP")
            }
            "STARTTLS" => match &server.tls {
                Some(tls) if !is_secured && rest.is_empty() => {
                    ctx.send("220 2.0.0 Go ahead.\r\n"); // the last word in clear
                    ctx.start_tls(tls, Session::default());
                    Ok("")
                }
                _ => Err("503 5.5.1 Not here."),
            },
            "NOOP" => Ok("250 2.0.0 Ok."),
            "QUIT" => Ok("221 2.0.0 Bye."),
            _ if server.requires_tls && !is_secured => Err("530 5.7.0 STARTTLS comes first."),
            "MAIL" => self.mail(server, rest),
            "RCPT" => self.recipient(server, rest),
            "DATA" => self.data(ctx, server),
            "RSET" => {
                self.reset();
                Ok("250 2.0.0 Ok.")
            }
            "VRFY" => Ok("252 2.1.5 Send a mail, and see."),
            "HELP" => Ok("214 2.0.0 See RFC 5321."),
            _ => Err("500 5.5.1 There is no such command."),
        }
    }

    fn mail(&mut self, server: &Server, rest: &str) -> Result<Reply, Reply> {
        let (from, parameters) = path(rest, "FROM:").ok_or("501 5.5.4 MAIL FROM:<address>")?;
        let (mut is_utf8, mut size) = (false, 0);
        for parameter in parameters.split_ascii_whitespace().map(str::to_ascii_uppercase) {
            match parameter.split_once('=').unwrap_or((&parameter, "")) {
                ("SIZE", said) => {
                    let said = said.parse().ok().filter(|said| *said <= server.bytes_max);
                    size = said.ok_or("552 5.3.4 Too large.")?;
                }
                ("BODY", "7BIT" | "8BITMIME") => {}
                ("SMTPUTF8", "") => is_utf8 = true,
                _ => return Err("555 5.5.4 There is no such parameter."),
            }
        }
        match () {
            () if self.hello.is_none() || self.from.is_some() => Err("503 5.5.1 MAIL comes after EHLO, and once."),
            () if self.mails >= MAILS_MAX => Err("421 4.7.0 Come again for more mails."),
            () if !is_utf8 && !from.is_ascii() => Err(NOT_ASCII),
            () => {
                (self.from, self.is_utf8, self.size) = (Some(from.to_owned()), is_utf8, size);
                Ok("250 2.1.0 Ok.")
            }
        }
    }

    fn recipient(&mut self, server: &Server, rest: &str) -> Result<Reply, Reply> {
        let (to, parameters) = path(rest, "TO:").filter(|(to, _)| !to.is_empty()).ok_or("501 5.5.4 RCPT TO:<address>")?;
        let domain = to.rsplit_once('@').map(|(_, domain)| domain); // postmaster has none
        let is = |ours: &String| domain.is_none_or(|domain| ours.eq_ignore_ascii_case(domain));
        match () {
            () if self.from.is_none() => Err("503 5.5.1 MAIL comes first."),
            () if !parameters.is_empty() => Err("555 5.5.4 There is no such parameter."),
            () if !self.is_utf8 && !to.is_ascii() => Err(NOT_ASCII),
            () if !server.domains.is_empty() && !server.domains.iter().any(is) => Err("550 5.7.1 Nobody of ours."),
            () if self.to.len() >= RECIPIENTS_MAX => Ok("452 4.5.3 Too many recipients."), // who knows that sends again
            () => {
                self.to.push(to.to_owned());
                Ok("250 2.1.5 Ok.")
            }
        }
    }

    fn data(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Result<Reply, Reply> {
        let Some((hello, with)) = self.hello.as_ref().filter(|_| !self.to.is_empty()) else {
            return Err("503 5.5.1 RCPT comes first.");
        };
        if server.forward.as_ref().is_some_and(|forward| forward.due.len() >= QUEUE_MAX) {
            return Err("452 4.3.1 The queue is full.");
        }
        let (ip, by) = (ctx.peer().ip().map_or("local".into(), |at| at.ip().to_string()), &server.host);
        let (with, secured) = (if self.is_utf8 { UTF8 } else { with }, if ctx.tls().is_some() { "S" } else { "" });
        let date = httpdate::fmt_http_date(SystemTime::now()).replace("GMT", "+0000");
        let trace = format!("Received: from {hello} ([{ip}]) by {by}\n{with}{secured}; {date}\n");
        let mail = server.store.create(self.from.as_deref().unwrap_or_default(), &self.to, &trace, server.bytes_max);
        (self.has_mail, self.mails) = (true, self.mails + 1);
        ctx.set_deadline(MAIL_TIME + Duration::from_secs(self.size / BYTES_A_SECOND_MIN));
        ctx.set_frame_timeout(None);
        ctx.set_terminator(Terminator::StreamUntil { bytes: b"\r\n.\r\n".into(), seen: 2 });
        ctx.save(mail, |_: &mut Self, ctx, server, saved| {
            let Ok(mail) = saved else { return Ok(()) }; // the stream has ended before the mail has
            ctx.set_deadline(None);
            ctx.set_terminator(Terminator::crlf(LINE_MAX));
            ctx.set_frame_timeout(server.idle);
            let folder = if server.forward.is_some() { "queue" } else { "new" };
            let remote = ctx.net.remote();
            let keep = move || {
                if let Some(name) = mail.keep(folder)? {
                    // Not by what follows: that is not called if the client has left meanwhile.
                    let _ = remote.post(|net, server| kept(net, server, name));
                }
                Ok("250 2.0.0 Stored.")
            };
            ctx.offload_held(keep, |me: &mut Self, ctx, _, answer| {
                me.reset();
                me.answer(ctx, answer?);
                Ok(())
            });
            Ok(())
        });
        Ok("354 End with a dot on a line of its own.")
    }
}

fn kept(net: &mut Net<'_, Server>, server: &mut Server, name: String) {
    server.stored += 1;
    forward::wait(net, server, name, 0);
}

const NOT_ASCII: Reply = "553 5.6.7 That takes SMTPUTF8.";

impl Protocol<Server> for Session {
    fn connected(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::crlf(LINE_MAX));
        ctx.set_idle_timeout(server.idle);
        ctx.set_frame_timeout(server.idle); // who sends a byte of a command now and then is not idle
        ctx.set_stall_timeout(server.idle);
        if ctx.tls().is_none() {
            write!(ctx, "220 {} ESMTP\r\n", server.host);
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &[u8]) -> Outcome {
        let answer = match std::str::from_utf8(line) {
            Ok(line) if !line.contains(char::is_control) => self.command(ctx, server, line),
            _ => Err("500 5.5.2 A command is text, and ends in CRLF."),
        };
        self.answer(ctx, answer);
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Server, limit: Limit) -> Outcome {
        match limit {
            Limit::FrameBytes => self.answer(ctx, Err("500 5.5.2 Too long.")),
            Limit::Idle | Limit::FrameTime | Limit::Deadline => self.answer(ctx, Ok("421 4.4.2 Too slow.")),
            other => return Err(other.into()),
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut Server) -> Outcome {
        if self.has_mail {
            ctx.close_when_quiet();
        } else {
            self.answer(ctx, Ok("421 4.3.2 Going down."));
        }
        Ok(())
    }
}

/// The address behind `FROM:` or `TO:`, and what stands behind it. A route to it is left out (RFC 5321, appendix C).
fn path<'a>(rest: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    rest.get(..word.len()).filter(|begin| begin.eq_ignore_ascii_case(word))?;
    let (address, parameters) = rest[word.len()..].trim_start().strip_prefix('<')?.split_once('>')?;
    let address = if address.starts_with('@') { address.split_once(':')?.1 } else { address };
    (address.len() <= NAME_MAX && !address.contains(['<', ' '])).then_some((address, parameters))
}
