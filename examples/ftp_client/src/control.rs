//! The control connection: commands, replies, logging in.

use crate::{
    App, Ctx, Done, Task,
    data::{Data, Job},
};
use mainspring::{Connect, Key, Limit, Listen, Outcome, Protocol, Reason, Refusal, Terminator};
use std::{collections::VecDeque, fs, path::PathBuf};

const LINE_MAX: usize = 8192;

/// The limit of a reply of many lines.
const REPLY_MAX: usize = 256 << 10;

pub(crate) struct Reply {
    pub(crate) code: u16,
    /// All lines of it.
    pub(crate) text: String,
}

impl Reply {
    /// Succeeds if the code is one of these; otherwise the reply's text is the error.
    pub(crate) fn must(&self, codes: &[u16]) -> Result<(), String> {
        if codes.contains(&self.code) { Ok(()) } else { Err(self.text.lines().last().unwrap_or_default().to_owned()) }
    }

    /// The text after the code.
    pub(crate) fn value(&self) -> &str {
        self.text.get(4..).unwrap_or_default().trim()
    }
}

/// What to do with a reply.
pub(crate) type Then<T> = Box<dyn FnOnce(&mut Control, &mut Ctx<'_>, &mut App, T) -> Done>;

/// A transfer has ended when both the server and the data connection have reported.
struct Transfer {
    data: Key,
    reply: Option<Reply>,
    carried: Option<Result<Vec<u8>, String>>,
    then: Then<Vec<u8>>,
}

#[derive(Default)]
pub struct Control {
    /// What to do with the replies that are still to come.
    owed: VecDeque<Then<Reply>>,
    lines: String,
    features: String,
    transfer: Option<Transfer>,
    /// The number of the transfer: a data connection may report its end after the next one has begun.
    transfers: u64,
    /// How a data connection ended that the server opened and that finished before the server's reply.
    early: Option<Result<Vec<u8>, String>>,
    /// One that the server opened before its reply.
    came: Option<Key>,
    /// The name of the current task, and a copy of it, unless this is the second try.
    pub(crate) task: String,
    again: Option<Task>,
    /// The file that is being fetched.
    pub(crate) part: Option<PathBuf>,
    /// This server knows PASV and PORT, but not the newer EPSV and EPRT.
    is_old: bool,
    is_done: bool,
}

impl Protocol<App> for Control {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(app.timeout);
        self.owed.push_back(Box::new(Self::greeted));
        Ok(())
    }

    fn secured(&mut self, ctx: &mut Ctx<'_>, _: &mut App) -> Outcome {
        self.ask(ctx, "PBSZ 0", |me, ctx, _, _| {
            me.ask(ctx, "PROT P", |me, ctx, app, reply| {
                reply.must(&[200])?;
                me.log_in(ctx, app)
            })
        })?;
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, app: &mut App, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line);
        let is_last = |first: &str| line.get(..3) == first.get(..3) && line.get(3..4) == Some(" ");
        if self.lines.len() + line.len() > REPLY_MAX {
            return Err("a reply without end".into());
        }
        self.lines.push_str(&line);
        let code = self.lines.get(..3).and_then(|code| code.parse().ok());
        let code: u16 = code.ok_or_else(|| format!("not a reply of FTP: {line}"))?;
        if self.lines.get(3..4) == Some("-") && !(self.lines.len() > line.len() && is_last(&self.lines)) {
            self.lines.push('\n');
            return Ok(());
        }
        let reply = Reply { code, text: std::mem::take(&mut self.lines) };
        if code == 421 {
            return Err(reply.text.into());
        }
        if code < 200 {
            return Ok(()); // the final reply follows
        }
        let then = self.owed.pop_front().ok_or_else(|| format!("a reply without a command: {}", reply.text))?;
        let done = then(self, ctx, app, reply);
        self.unless_failed(ctx, app, done);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, why: Reason) {
        ctx.net.stop();
        self.drop_empty_part();
        if !self.is_done && app.broken.is_none() {
            app.broken = Some(match why {
                Reason::Limit(Limit::Idle) => "the server is silent".into(),
                why if why.is_clean() => "the server has ended the connection".into(),
                why => why.to_string(),
            });
        }
    }
}

impl Control {
    pub(crate) fn ask(
        &mut self,
        ctx: &mut Ctx<'_>,
        line: &str,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut App, Reply) -> Done + 'static,
    ) -> Done {
        if line.contains(['\r', '\n', '\0']) {
            return Err("FTP cannot send a name with a line end or NUL in it".into());
        }
        write!(ctx, "{line}\r\n");
        self.owed.push_back(Box::new(then));
        Ok(())
    }

    pub(crate) fn has(&self, feature: &str) -> bool {
        self.features.lines().any(|line| line.trim().split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(feature)))
    }

    fn unless_failed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, done: Result<(), String>) {
        if let Err(what) = done {
            if self.task.is_empty() {
                app.broken = Some(what); // there is no session
                return ctx.close();
            }
            self.failed(ctx, app, &what);
            let _ = self.next(ctx, app); // it reports errors itself, and goes on
        }
    }

    fn failed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, what: &str) {
        app.fail(&format!("{}: {what}", self.task));
        self.drop_empty_part();
        if let Some(transfer) = self.transfer.take() {
            ctx.net.abort(transfer.data);
        }
    }

    /// Removes an empty part, from which nothing could be resumed.
    fn drop_empty_part(&mut self) {
        if let Some(part) = self.part.take().filter(|part| part.metadata().is_ok_and(|meta| meta.len() == 0)) {
            let _ = fs::remove_file(part); // it is ours, and useless
        }
    }

    fn greeted(&mut self, ctx: &mut Ctx<'_>, app: &mut App, reply: Reply) -> Done {
        reply.must(&[220])?;
        match app.tls.clone() {
            Some(_) if app.is_implicit => {
                let _ = self.secured(ctx, app); // it only asks, which cannot fail
                Ok(())
            }
            Some(tls) => self.ask(ctx, "AUTH TLS", |_, ctx, _, reply| {
                reply.must(&[234])?;
                ctx.link().start_tls(tls);
                Ok(())
            }),
            None => self.log_in(ctx, app),
        }
    }

    fn log_in(&mut self, ctx: &mut Ctx<'_>, app: &App) -> Done {
        self.ask(ctx, &format!("USER {}", app.user), |me, ctx, app, reply| {
            if reply.code == 230 {
                return me.prepare(ctx);
            }
            reply.must(&[331])?;
            let Some(password) = &app.password else {
                return Err(format!("{} has a password: FTP_PASSWORD or --password-file says it", app.user));
            };
            me.ask(ctx, &format!("PASS {password}"), |me, ctx, _, reply| {
                reply.must(&[230, 202])?;
                me.prepare(ctx)
            })
        })
    }

    fn prepare(&mut self, ctx: &mut Ctx<'_>) -> Done {
        self.ask(ctx, "FEAT", |me, ctx, _, reply| {
            me.features = if reply.code == 211 { reply.text } else { String::new() };
            if me.has("UTF8") {
                me.ask(ctx, "OPTS UTF8 ON", |_, _, _, _| Ok(()))?; // some servers need it, some do not know it
            }
            me.ask(ctx, "TYPE I", |me, ctx, app, reply| {
                reply.must(&[200])?;
                if app.folder.is_empty() {
                    return me.next(ctx, app);
                }
                me.ask(ctx, &format!("CWD {}", app.folder), |me, ctx, app, reply| {
                    reply.must(&[250])?;
                    me.next(ctx, app)
                })
            })
        })
    }

    /// Goes on with the next task that can begin.
    pub(crate) fn next(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Done {
        while let Some(task) = app.tasks.pop_front() {
            self.again = Some(task.clone());
            let Err(what) = self.begin(ctx, app, task) else { return Ok(()) };
            self.failed(ctx, app, &what);
        }
        self.is_done = true;
        self.ask(ctx, "QUIT", |_, ctx, _, _| {
            ctx.close();
            Ok(())
        })
    }
}

/// Transfers.
impl Control {
    /// Transfers what the job says by a command, from an offset on.
    pub(crate) fn carry(&mut self, ctx: &mut Ctx<'_>, app: &App, line: String, rest: u64, job: Job, then: Then<Vec<u8>>) -> Done {
        self.transfers += 1;
        let (number, peer) = (self.transfers, ctx.peer().ip().map(|peer| peer.ip()));
        (self.early, self.came) = (None, None);
        if app.is_active {
            let (mut job, control) = (Some(job), ctx.key);
            let Some(here) = ctx.local().ip().map(|here| here.ip()) else {
                return Err("the server is not at an IP address".into());
            };
            let options = Listen::new().owner(control).admits_max(1).deadline(app.timeout);
            let listener = ctx.net.listen_with((here, 0), options, move |_, _, from| {
                match job.take_if(|_| from.ip().map(|from| from.ip()) == peer) {
                    Some(job) => Ok(Data::new(control, number, job, true)),
                    None => Err(Refusal::silent()),
                }
            });
            let listener = listener.map_err(|error| format!("no port for the server to connect to: {error}"))?;
            let port = ctx.net.local(listener).and_then(|at| at.ip()).map_or(0, |at| at.port());
            let go = move |me: &mut Self, ctx: &mut Ctx<'_>, app: &mut App, reply: Reply| {
                reply.must(&[200])?;
                me.go(ctx, app, line, rest, listener, then)
            };
            let old = format!("PORT {},{},{}", here.to_string().replace('.', ","), port >> 8, port & 0xff);
            if self.is_old {
                return self.ask(ctx, &old, go);
            }
            let family = if here.is_ipv4() { 1 } else { 2 };
            return self.ask(ctx, &format!("EPRT |{family}|{here}|{port}|"), move |me, ctx, app, reply| {
                me.is_old = here.is_ipv4() && reply.code >= 500;
                if me.is_old { me.ask(ctx, &old, go) } else { go(me, ctx, app, reply) }
            });
        }
        let verb = if self.is_old { "PASV" } else { "EPSV" };
        self.ask(ctx, verb, move |me, ctx, app, reply| {
            if !me.is_old && reply.code >= 500 {
                me.is_old = true;
                return me.carry(ctx, app, line, rest, job, then);
            }
            let port = if me.is_old { passive(&reply) } else { extended(&reply) };
            // Always to the address that we are talking to: otherwise a server could make us connect to anybody.
            let (Some(port), Some(peer)) = (port, peer) else { return Err(format!("no port in: {}", reply.text)) };
            let mut options = Connect::new().owner(ctx.key).timeout(app.timeout);
            if let Some(tls) = &app.tls {
                options = options.tls(tls.clone());
            }
            let data = ctx.net.connect_with((peer, port), options, Data::new(ctx.key, number, job, false));
            me.go(ctx, app, line, rest, data, then)
        })
    }

    fn go(&mut self, ctx: &mut Ctx<'_>, app: &App, command: String, rest: u64, data: Key, then: Then<Vec<u8>>) -> Done {
        let (carried, came) = (self.early.take(), self.came.take());
        if carried.is_none() && (came.is_some() || !app.is_active) {
            ctx.set_idle_timeout(None); // the data connection has its own
        }
        self.transfer = Some(Transfer { data: came.unwrap_or(data), reply: None, carried, then });
        if rest == 0 {
            return self.command(ctx, &command);
        }
        self.ask(ctx, &format!("REST {rest}"), move |me, ctx, _, reply| {
            reply.must(&[350])?;
            me.command(ctx, &command)
        })
    }

    fn command(&mut self, ctx: &mut Ctx<'_>, command: &str) -> Done {
        self.ask(ctx, command, |me, ctx, app, reply| {
            if let Some(transfer) = &mut me.transfer {
                transfer.reply = Some(reply);
            }
            me.both_ended(ctx, app)
        })
    }

    /// The data connection has another key than the listener that accepted it.
    pub(crate) fn data_came(&mut self, ctx: &mut Ctx<'_>, number: u64, data: Key) {
        match &mut self.transfer {
            _ if number != self.transfers => {}
            Some(transfer) => {
                transfer.data = data;
                ctx.set_idle_timeout(None);
            }
            None => self.came = Some(data),
        }
    }

    pub(crate) fn data_ended(&mut self, ctx: &mut Ctx<'_>, app: &mut App, number: u64, carried: Result<Vec<u8>, String>) {
        if number != self.transfers {
            return;
        }
        let Some(transfer) = &mut self.transfer else {
            self.early = Some(carried);
            return;
        };
        transfer.carried = Some(carried);
        ctx.set_idle_timeout(app.timeout);
        let done = self.both_ended(ctx, app);
        self.unless_failed(ctx, app, done);
    }

    fn both_ended(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Done {
        let Some(transfer) = &mut self.transfer else { return Ok(()) };
        let refused = transfer.reply.as_ref().and_then(|reply| reply.must(&[226, 250]).err());
        let (Some(_), true) = (&transfer.reply, refused.is_some() || transfer.carried.is_some()) else { return Ok(()) };
        let Some(Transfer { data, carried, then, .. }) = self.transfer.take() else { return Ok(()) };
        ctx.set_idle_timeout(app.timeout);
        if let Some(refused) = refused {
            ctx.net.abort(data);
            // Some servers insist on resuming a session of TLS, and rustls uses each once. The refused connection brought new ones.
            let is_of_tls = app.tls.is_some() && ["425", "522"].iter().any(|code| refused.starts_with(code));
            if let Some(task) = self.again.take_if(|_| is_of_tls) {
                return self.begin(ctx, app, task);
            }
            let own = carried.and_then(Result::err).map(|own| format!("; {own}")).unwrap_or_default();
            return Err(format!("{refused}{own}"));
        }
        then(self, ctx, app, carried.unwrap_or(Ok(Vec::new()))?)
    }
}

/// The port in `229 Entering Extended Passive Mode (|||6446|)`.
fn extended(reply: &Reply) -> Option<u16> {
    reply.must(&[229]).ok()?;
    reply.text.split('|').nth(3)?.parse().ok()
}

/// The port in `227 Entering Passive Mode (127,0,0,1,25,46)`.
fn passive(reply: &Reply) -> Option<u16> {
    reply.must(&[227]).ok()?;
    let numbers = reply.value().rsplit(|c: char| !c.is_ascii_digit() && c != ',').find(|part| part.contains(','))?;
    let mut last = numbers.rsplit(',').map(str::parse::<u8>);
    let (low, high) = (last.next()?.ok()?, last.next()?.ok()?);
    Some(u16::from_be_bytes([high, low]))
}
