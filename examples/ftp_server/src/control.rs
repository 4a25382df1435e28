//! A session: the commands on the control connection are done one after the other, in order. Logins and TLS are handled here.

use crate::{
    Ctx, Ftp, Refused,
    commands::{is, verb},
    must, refuse, reply,
    transfer::{Job, Stage},
};
use mainspring::{Key, Limit, Outcome, Protocol, Reason, Terminator, Timer};
use std::{collections::VecDeque, fmt::Display, time::Duration};

const LINE_MAX: usize = 2048;

/// The time for a line, from its first byte on, and for a login.
const LINE_TIME: Duration = Duration::from_secs(60);
const LOGIN_TIME: Duration = Duration::from_secs(120);

/// How long a client may read nothing of its replies.
const STALLED_MAX: Duration = Duration::from_secs(60);

/// How many commands may wait for the end of a transfer.
const WAITING_MAX: usize = 32;

#[derive(Default)]
pub struct Control {
    pub(crate) user: Option<String>,
    pub(crate) is_in: bool,
    pub(crate) may_write: bool,
    tries: u32,
    pub(crate) cwd: String,
    pub(crate) is_binary: bool,
    pub(crate) restart_at: u64,
    /// The file whose size was asked for last: APPE goes on from there.
    pub(crate) sized: Option<String>,
    pub(crate) rename_from: Option<crate::disk::Place>,
    pub(crate) facts: u8,
    pub(crate) is_extended_only: bool,
    /// Whether PBSZ was said. `is_private`: PROT P.
    pub(crate) has_buffer_size: bool,
    pub(crate) is_private: bool,
    pub(crate) data: Option<(Key, Stage)>,
    /// Accepts data connections, once the client has asked for that. The session keeps it, because ports are few.
    pub(crate) listener: Option<Key>,
    /// How often we have waited for one there; by this we recognise one that comes too late.
    pub(crate) waits: u64,
    /// The time for it to come.
    pub(crate) patience: Option<Timer>,
    /// There was a data connection, but it ended before it was needed.
    pub(crate) has_lost_data: bool,
    /// A transfer that waits for its data connection.
    pub(crate) wanted: Option<Job>,
    /// For the log: the change that the current command makes, and the transfer that is under way.
    pub(crate) change: String,
    pub(crate) transfer: String,
    /// Commands that came during a transfer, and must wait for its end.
    pub(crate) waiting: VecDeque<String>,
    /// The number of replies that we owe; nothing else is done until then.
    owed: u8,
    /// The session ends with the transfer.
    pub(crate) quits: bool,
    /// It ends with the transfer, and the replies that we owe, because the server shuts down.
    drains: bool,
    pub(crate) aborts: bool,
}

impl Protocol<Ftp> for Control {
    fn connected(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) -> Outcome {
        ftp.sessions += 1;
        (self.cwd, self.facts) = ("/".into(), 0b1111);
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(ftp.set.idle);
        ctx.set_stall_timeout(STALLED_MAX);
        ctx.set_frame_timeout(LINE_TIME);
        ctx.set_deadline(LOGIN_TIME);
        let _ = ctx.link().with_socket(|socket| socket.set_out_of_band_inline(true)); // the telnet Synch before ABOR
        reply(ctx, 220, &ftp.set.banner);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, line: &[u8]) -> Outcome {
        let start = line.iter().position(|&byte| byte < 0xf0).unwrap_or(line.len()); // after telnet's IAC IP, IAC DM
        match std::str::from_utf8(&line[start..]) {
            Ok(line) if line.contains(['\0', '\r']) => reply(ctx, 501, "No control characters, please."),
            Ok(line) if self.must_wait(line) => {
                self.waiting.push_back(line.to_owned());
                if self.waiting.len() > WAITING_MAX {
                    reply(ctx, 421, "Too many commands while a transfer runs.");
                    ctx.close();
                }
            }
            Ok(line) => {
                self.command(ctx, ftp, line);
                self.go_on(ctx, ftp); // there may no longer be a transfer to wait for
            }
            Err(_) => reply(ctx, 501, "Not UTF-8."),
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, limit: Limit) -> Outcome {
        let text = match limit {
            Limit::FrameBytes => {
                reply(ctx, 500, "Too long.");
                return Ok(());
            }
            Limit::Idle => "Silent for too long.",
            Limit::FrameTime => "Too slow.",
            Limit::Deadline => "You have not logged in.",
            other => return Err(other.into()),
        };
        reply(ctx, 421, text);
        ctx.close();
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp) -> Outcome {
        self.drains = self.is_transferring() || self.owed > 0;
        if !self.drains {
            reply(ctx, 421, "Going down.");
            ctx.close();
        }
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, _: &[u8]) -> Outcome {
        if !self.quits {
            ctx.close(); // its transfer ends too, because a client that is gone has not sent everything
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, why: Reason) {
        ftp.sessions -= 1;
        if self.is_in {
            self.note(ctx, ftp, format_args!("left: {why}"));
        }
    }
}

/// Commands, one after the other.
impl Control {
    pub(crate) fn is_transferring(&self) -> bool {
        self.wanted.is_some() || matches!(self.data, Some((_, Stage::Running)))
    }

    fn waits_for_transfer(&self, line: &str) -> bool {
        let verb = verb(line);
        let brings_data = self.data.is_none() && ["PASV", "EPSV", "PORT", "EPRT"].contains(&&*verb);
        self.aborts || self.is_in && self.is_transferring() && is(&verb, 'd') && !brings_data
    }

    fn must_wait(&self, line: &str) -> bool {
        self.waits_for_transfer(line) || !self.waiting.is_empty() && !is(&verb(line), 'o')
    }

    /// Goes on with the commands that came meanwhile.
    pub(crate) fn go_on(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) {
        if (self.quits || self.drains) && !self.is_transferring() && self.owed == 0 {
            return ctx.close();
        }
        while let Some(line) = self.waiting.pop_front() {
            if self.owed > 0 || self.waits_for_transfer(&line) {
                return self.waiting.push_front(line);
            }
            self.command(ctx, ftp, &line);
        }
    }

    fn command(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, line: &str) {
        let arg = line.split_once(' ').map_or("", |(_, arg)| arg);
        if let Err(Refused(code, text)) = self.obey(ctx, ftp, &verb(line), arg) {
            reply(ctx, code, text);
        }
    }

    /// Does work on another thread. Nothing else is said or read until it is done.
    pub(crate) fn work<T: Send + 'static, E: Into<Refused> + Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut Ftp, T) + 'static,
    ) {
        self.owed += 1;
        ctx.offload_held(work, |me: &mut Self, ctx, ftp, done| {
            me.owed -= 1;
            match done.map_err(Refused::from).and_then(|done| done.map_err(E::into)) {
                Ok(value) => then(me, ctx, ftp, value),
                Err(Refused(code, text)) => reply(ctx, code, text),
            }
            me.go_on(ctx, ftp);
            Ok(())
        });
    }

    /// The same for work whose result is the reply.
    pub(crate) fn answer(&mut self, ctx: &mut Ctx<'_>, work: impl FnOnce() -> Result<String, Refused> + Send + 'static) {
        let change = std::mem::take(&mut self.change);
        self.work(ctx, work, move |me, ctx, ftp, reply| {
            if !change.is_empty() {
                me.note(ctx, ftp, format_args!("{change}: {reply}"));
            }
            write!(ctx, "{reply}\r\n");
        });
    }

    pub(crate) fn note(&self, ctx: &Ctx<'_>, ftp: &mut Ftp, what: impl Display) {
        ftp.note(ctx, self.user.as_deref(), what);
    }

    /// We owe a reply, until `answered` is called with it.
    pub(crate) fn owe(&mut self, ctx: &mut Ctx<'_>) {
        self.owed += 1;
        ctx.pause();
    }

    pub(crate) fn answered(&mut self, ctx: &mut Ctx<'_>) {
        self.owed -= 1;
        ctx.resume();
    }
}

/// Logins and TLS.
impl Control {
    pub(crate) fn forget(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_in {
            ctx.set_deadline(LOGIN_TIME);
        }
        (self.is_in, self.user, self.restart_at, self.sized, self.rename_from) = (false, None, 0, None, None);
    }

    pub(crate) fn log_in(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, password: &str) -> Result<(), Refused> {
        must(!self.is_in, 503, "You are logged in.")?;
        let Some(name) = self.user.clone() else { return refuse(503, "USER comes first.") };
        if ftp.set.anonymous && name == "anonymous" {
            self.let_in(ctx, ftp, false);
            return Ok(());
        }
        let found = ftp.set.users.iter().find(|user| user.name == name);
        // An unknown user takes as long as a known one.
        let (user, is_known) = (found.or(ftp.set.users.first()).cloned(), found.is_some());
        let (password, may_write) = (password.to_owned(), found.is_some_and(|user| user.may_write));
        let check = move || Ok::<_, Refused>(user.is_some_and(|user| user.knows(&password)) && is_known);
        self.work(ctx, check, move |me, ctx, ftp, is_right| match is_right {
            true => me.let_in(ctx, ftp, may_write),
            false => me.keep_out(ctx, ftp),
        });
        Ok(())
    }

    fn let_in(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, may_write: bool) {
        (self.is_in, self.may_write, self.cwd) = (true, may_write, "/".into());
        ctx.set_deadline(None);
        self.note(ctx, ftp, "logged in");
        reply(ctx, 230, "Welcome.");
    }

    fn keep_out(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) {
        self.note(ctx, ftp, "failed to log in");
        self.user = None;
        self.tries += 1;
        let is_last = self.tries >= ftp.set.logins_max;
        self.owe(ctx);
        ctx.after(ftp.set.login_delay, move |me: &mut Self, ctx, ftp| {
            reply(ctx, 530, "Wrong name or password.");
            if is_last {
                ctx.close();
            }
            me.answered(ctx);
            me.go_on(ctx, ftp);
            Ok(())
        });
    }

    /// AUTH, PBSZ, PROT (RFC 4217).
    pub(crate) fn secure(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, verb: &str, arg: &str) -> Result<(), Refused> {
        let Some(tls) = &ftp.set.tls else { return refuse(502, "There is no TLS here.") };
        let is_secure = ctx.tls().is_some();
        match (verb, arg.to_ascii_uppercase().as_str()) {
            ("AUTH", _) if is_secure => return refuse(503, "Already using TLS."),
            ("AUTH", "TLS" | "TLS-C" | "SSL" | "TLS-P") => {
                must(self.waiting.is_empty(), 503, "Nothing may follow AUTH.")?; // or it would be obeyed as if it had come in TLS
                reply(ctx, 234, "Go on in TLS.");
                self.drop_data(ctx, ftp);
                self.forget(ctx);
                ctx.link().start_tls(tls.control.clone());
            }
            ("AUTH", _) => return refuse(504, "Only TLS."),
            _ if !is_secure => return refuse(503, format!("{verb} not allowed on insecure control connection.")),
            ("PBSZ", size) => {
                must(size.parse::<u32>().is_ok(), 501, "A size is a number.")?;
                self.has_buffer_size = true;
                reply(ctx, 200, "PBSZ=0 successful.");
            }
            ("PROT", "P" | "C") => {
                must(self.has_buffer_size, 503, "PBSZ comes first.")?;
                self.is_private = arg.eq_ignore_ascii_case("P");
                self.drop_data(ctx, ftp); // because it was made with the old setting
                reply(ctx, 200, if self.is_private { "Data in TLS." } else { "Data in the clear." });
            }
            ("PROT", "S" | "E") => return refuse(536, "Only C and P."),
            _ => return refuse(504, "Only C and P."),
        }
        Ok(())
    }
}
