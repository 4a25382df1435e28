//! The client side of SMTP: forwards the mails in the queue to one host, over a few connections at a time. A mail that the host
//! does not accept now is tried again later, after a longer pause each time; other mails overtake it meanwhile.

use crate::session::{Ctx, Server};
use crate::store::{LINE_MAX, Queued, Store, trouble};
use mainspring::{Connect, Lane, Net, Outcome, Protocol, Reason, Target, Terminator, TlsClient};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Cursor, Read};
use std::{sync::Arc, time::Duration, time::Instant};

const SENDERS_MAX: usize = 4;
pub(crate) const QUEUE_MAX: usize = 100_000;

/// The most mails on one connection.
const MAILS_MAX: u32 = 100;

const REPLY_LINES_MAX: usize = 100;
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// The time for a reply, and for a part of a mail (RFC 5321, 4.5.3.2).
const PATIENCE: Duration = Duration::from_secs(600);

const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

pub struct Forward {
    to: Target,
    tls: Option<TlsClient>,
    store: Arc<Store>,
    lane: Lane<Arc<Store>>,
    /// The mails of the queue that are not being sent: when each is due, and how often it has failed.
    pub(crate) due: BTreeMap<(Instant, String), u32>,
    senders: usize,
    /// How often the host could not be reached, and until when we leave it alone.
    failures: u32,
    not_before: Instant,
    pub forwarded: u64,
}

impl Forward {
    pub fn new(net: &mut Net<'_, Server>, to: Target, tls: Option<TlsClient>, store: &Arc<Store>, queue: Vec<String>) -> Self {
        net.every(PAUSE, start);
        let (now, lane, store) = (net.now(), net.lane(Arc::clone(store)), Arc::clone(store));
        let due = queue.into_iter().map(|name| ((now, name), 0)).collect();
        Self { to, tls, store, lane, due, senders: 0, failures: 0, not_before: now, forwarded: 0 }
    }
}

/// A mail has come into the queue, or stays there after so many failures.
pub fn wait(net: &mut Net<'_, Server>, server: &mut Server, name: String, failures: u32) {
    let due = net.now() + if failures > 0 { pause(net, failures) } else { Duration::ZERO };
    if let Some(forward) = &mut server.forward {
        forward.due.insert((due, name), failures);
    }
    start(net, server);
}

/// One second, doubled with each failure; a random part of up to a half is taken off.
fn pause(net: &mut Net<'_, Server>, failures: u32) -> Duration {
    let most = PAUSE_MAX.min(PAUSE * (1 << failures.saturating_sub(1).min(16)));
    most - most / 2 * (net.random() % 1000) as u32 / 1000
}

/// Starts one more sender, if a mail is due and the host can be tried.
fn start(net: &mut Net<'_, Server>, server: &mut Server) {
    let Some(forward) = &mut server.forward else { return };
    let (now, most) = (net.now(), if forward.failures > 0 { 1 } else { SENDERS_MAX });
    let is_due = forward.due.keys().next().is_some_and(|(due, _)| *due <= now);
    if is_due && now >= forward.not_before && forward.senders < most && !net.is_draining() {
        forward.senders += 1;
        net.connect_with(&forward.to, Connect::new().timeout(CONNECT_TIME), Sender::default());
    }
}

/// A connection to the host.
#[derive(Default)]
struct Sender {
    /// The extensions that the host offers; `None` before it has said so.
    offers: Option<Vec<String>>,
    /// Commands to send; the first `sent` of them have been sent, and have no reply yet.
    script: VecDeque<String>,
    sent: usize,
    lines: Vec<String>,
    /// The current mail, and how often it has failed.
    name: Option<(String, u32)>,
    mail: Option<Queued>,
    /// The replies for its recipients.
    replies: Vec<String>,
    mails: u32,
}

impl Sender {
    fn offers(&self, what: &str) -> bool {
        self.offers.iter().flatten().any(|offer| offer.split(' ').next() == Some(what))
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>, command: &str) -> Outcome {
        self.script.push_back(command.to_owned());
        self.go_on(ctx)
    }

    fn go_on(&mut self, ctx: &mut Ctx<'_>) -> Outcome {
        while self.sent < self.script.len() && (self.sent == 0 || self.offers("PIPELINING")) {
            write!(ctx, "{}\r\n", self.script[self.sent]);
            self.sent += 1;
        }
        Ok(())
    }

    fn replied(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, command: &str, lines: &[String]) -> Outcome {
        let Some(forward) = &mut server.forward else { return Ok(()) };
        let reply: String = lines.join(" ").chars().take(LINE_MAX).collect();
        let (verb, recipients) = (command.get(..4).unwrap_or(command), self.mail.as_ref().map_or(0, |mail| mail.to.len()));
        match (verb, reply.as_bytes().first()) {
            ("", Some(b'2')) => return self.ask(ctx, &format!("EHLO {}", server.host)),
            ("EHLO", Some(b'2')) if forward.tls.is_some() && ctx.tls().is_none() => return self.ask(ctx, "STARTTLS"),
            ("EHLO", Some(b'2')) => {
                forward.failures = 0;
                self.offers = Some(lines.iter().filter_map(|line| line.get(4..)).map(str::to_ascii_uppercase).collect());
                return self.next(ctx, server);
            }
            ("STAR", Some(b'2')) => forward.tls.iter().for_each(|tls| ctx.start_tls(tls, Self::default())),
            ("MAIL", Some(b'2')) => {}
            ("MAIL", _) => self.replies = vec![reply; recipients],
            ("RCPT", _) if self.replies.len() < recipients => self.replies.push(reply),
            ("RCPT", _) => {} // more replies than recipients
            ("DATA", Some(b'3')) => {
                let wire = self.mail.as_ref().map(|mail| Arc::clone(&mail.wire)).ok_or("no mail")?;
                ctx.set_idle_timeout(None);
                ctx.send_from(Cursor::new(wire).chain(&b".\r\n"[..]), |_: &mut Self, ctx, _, sent| {
                    ctx.set_idle_timeout(PATIENCE);
                    Ok(sent.map(|_| ())?)
                });
                (self.sent, self.script) = (1, [".".to_owned()].into());
            }
            ("DATA", Some(b'4' | b'5')) | (".", _) => {
                self.replies.iter_mut().filter(|of| of.starts_with('2')).for_each(|of| of.clone_from(&reply));
                return self.settle(ctx, server);
            }
            ("RSET", Some(b'2')) => return self.next(ctx, server),
            ("QUIT", _) => ctx.close(),
            _ => return gives_up(ctx, &reply),
        }
        if matches!(verb, "MAIL" | "RCPT") && self.replies.len() == recipients && self.sent == 0 {
            self.script.clear(); // no recipients are sent if the sender was refused
            let some = self.replies.iter().any(|reply| reply.starts_with('2'));
            return if some { self.ask(ctx, "DATA") } else { self.settle(ctx, server) };
        }
        Ok(())
    }

    fn next(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        let Some(forward) = &mut server.forward else { return Ok(()) };
        let (now, is_last) = (ctx.net.now(), self.mails >= MAILS_MAX || ctx.net.is_draining());
        let due = forward.due.first_entry().filter(|entry| entry.key().0 <= now && !is_last);
        let Some(((_, name), failures)) = due.map(|entry| entry.remove_entry()) else { return self.ask(ctx, "QUIT") };
        let store = Arc::clone(&forward.store);
        (self.name, self.mails) = (Some((name.clone(), failures)), self.mails + 1);
        start(&mut ctx.net, server);
        let read = move || store.queued(&name).map_err(trouble);
        ctx.offload_held(read, |me: &mut Self, ctx, server, mail| me.begin(ctx, server, mail??));
        Ok(())
    }

    /// The mail may be gone by now: somebody may have removed it.
    fn begin(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, mail: Option<Queued>) -> Outcome {
        let Some(mail) = mail else {
            self.name = None;
            return self.next(ctx, server);
        };
        let size = if self.offers("SIZE") { format!(" SIZE={}", mail.wire.len()) } else { String::new() };
        let body = if !mail.wire.is_ascii() && self.offers("8BITMIME") { " BODY=8BITMIME" } else { "" };
        let (utf8, lacks_utf8) = (if mail.is_utf8 { " SMTPUTF8" } else { "" }, mail.is_utf8 && !self.offers("SMTPUTF8"));
        let from = [format!("MAIL FROM:<{}>{size}{body}{utf8}", mail.from)];
        let commands = from.into_iter().chain(mail.to.iter().map(|to| format!("RCPT TO:<{to}>")));
        if lacks_utf8 {
            self.replies = vec!["550 5.6.7 The next host does not support SMTPUTF8.".to_owned(); mail.to.len()];
        } else {
            self.script.extend(commands);
        }
        self.mail = Some(mail);
        if lacks_utf8 { self.settle(ctx, server) } else { self.go_on(ctx) }
    }

    /// The current mail is finished. The lane does the work on the disk, so it is done even if the host disconnects.
    fn settle(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        let (name, mail, replies) = (self.name.take(), self.mail.take(), std::mem::take(&mut self.replies));
        if let (Some((name, failures)), Some(mail), Some(forward)) = (name, mail, &mut server.forward) {
            let is_taken = replies.iter().any(|reply| reply.starts_with('2'));
            let work = move |store: &mut Arc<Store>| store.settle(&mail, &replies).map_err(trouble);
            forward.lane.offload_net(&mut ctx.net, work, move |net, server, stays| match stays {
                Ok(Ok(false)) => server.forward.iter_mut().for_each(|forward| forward.forwarded += u64::from(is_taken)),
                _ => wait(net, server, name, failures + 1),
            });
        }
        self.ask(ctx, "RSET")
    }
}

impl Protocol<Server> for Sender {
    fn connected(&mut self, ctx: &mut Ctx<'_>, server: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(PATIENCE);
        ctx.set_frame_timeout(PATIENCE);
        ctx.set_stall_timeout(PATIENCE);
        if ctx.tls().is_some() {
            return self.ask(ctx, &format!("EHLO {}", server.host));
        }
        (self.sent, self.script) = (1, [String::new()].into()); // the greeting comes without a command
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).replace(char::is_control, " ");
        let is_last = line.as_bytes().get(3) != Some(&b'-');
        self.lines.push(line);
        if self.lines.len() > REPLY_LINES_MAX || self.sent == 0 {
            return gives_up(ctx, "it sends too many lines");
        }
        if is_last {
            let (lines, command) = (std::mem::take(&mut self.lines), self.script.pop_front());
            self.sent -= 1;
            self.replied(ctx, server, &command.unwrap_or_default(), &lines)?;
        }
        self.go_on(ctx)
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut Server) -> Outcome {
        if self.name.is_none() {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, server: &mut Server, why: Reason) {
        let Some(forward) = &mut server.forward else { return };
        forward.senders -= 1;
        if self.offers.is_none() {
            log::info!("cannot forward mail to {}: {why}", forward.to);
            forward.failures += 1;
            forward.not_before = ctx.net.now() + pause(&mut ctx.net, forward.failures);
        }
        match self.name.take() {
            Some((name, failures)) => wait(&mut ctx.net, server, name, failures + 1),
            None => start(&mut ctx.net, server),
        }
    }
}

/// Does not use `Err`, which would log a warning: errors of the host are normal.
fn gives_up(ctx: &mut Ctx<'_>, why: &str) -> Outcome {
    log::info!("{}: {why}", ctx.peer());
    ctx.abort();
    Ok(())
}
