//! A session: what the client says on its control connection, and what it is answered.

use super::{
    Ctx, Ftp, Refused,
    data::{Data, Job},
    disk::{FACTS, Form, Place, create_unique, facts, stamp, unstamp, wanted},
    must, refuse, reply,
};
use mainspring::{Connect, Key, Limit, Listen, Outcome, Protocol, Reason, Refusal, Terminator};
use std::{
    collections::VecDeque,
    fs::{self, File, Permissions},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    time::Duration,
};

const LINE_MAX: usize = 2048;

/// So many commands may wait for the end of a transfer.
const WAITING_MAX: usize = 32;

const WITHOUT_ARGUMENT: &[&str] = &["ABOR", "CDUP", "FEAT", "NOOP", "PASV", "PWD", "QUIT", "REIN", "SYST", "XCUP", "XPWD"];
const WITH_ARGUMENT: &[&str] = &[
    "ALLO", "APPE", "DELE", "EPRT", "MDTM", "MFMT", "MKD", "MODE", "OPTS", "PORT", "REST", "RETR", "RMD", "RNFR", "RNTO", "SITE",
    "SIZE", "STOR", "STRU", "TYPE", "USER", "XMKD", "XRMD",
];
const WITH_OR_WITHOUT: &[&str] = &["CWD", "EPSV", "HELP", "LIST", "MLSD", "MLST", "NLST", "PASS", "STAT", "STOU", "XCWD"];

/// These need no login.
const FOR_ALL: &[&str] = &["FEAT", "HELP", "NOOP", "USER", "PASS", "STAT", "SYST", "QUIT", "SITE"];
const WRITES: &[&str] = &["STOR", "APPE", "STOU", "DELE", "MKD", "XMKD", "RMD", "XRMD", "RNFR", "RNTO", "MFMT"];

/// These want the data connection: while there is a transfer they wait, and all that was said behind them does.
const OF_DATA: &[&str] = &["PASV", "EPSV", "PORT", "EPRT", "RETR", "STOR", "APPE", "STOU", "LIST", "NLST", "MLSD", "REST"];
/// But not these.
const OVERTAKES: &[&str] = &["ABOR", "STAT", "QUIT"];

const LOG_IN: &str = "Who are you? USER and PASS come first.";

fn is_known(verb: &str) -> bool {
    [WITHOUT_ARGUMENT, WITH_ARGUMENT, WITH_OR_WITHOUT].iter().any(|some| some.contains(&verb))
}

fn verb(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_ascii_uppercase()
}

/// How far the data connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is to come to a port of ours; until then it is the listener that has the key.
    Awaited,
    /// We connect to the client. The reply to its PORT is owed.
    Coming,
    Open,
    /// A transfer is under way.
    Running,
}

#[derive(Default)]
pub struct Control {
    user: Option<String>,
    is_in: bool,
    tries: u32,
    cwd: String,
    is_binary: bool,
    restart_at: u64,
    rename_from: Option<PathBuf>,
    facts: u8,
    is_extended_only: bool,
    data: Option<(Key, Stage)>,
    /// A transfer that waits for its data connection.
    wanted: Option<Job>,
    /// What was said during a transfer, and has to come after it.
    waiting: VecDeque<String>,
    /// An answer is owed, and nothing else is done until then.
    is_busy: bool,
    /// The end of the transfer is the end of the session.
    quits: bool,
    aborts: bool,
}

impl Protocol<Ftp> for Control {
    fn connected(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) -> Outcome {
        ftp.sessions += 1;
        (self.cwd, self.facts) = ("/".into(), 0b1111);
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(ftp.set.idle);
        ctx.set_stall_timeout(Duration::from_secs(60));
        let _ = ctx.link().with_socket(|socket| socket.set_out_of_band_inline(true)); // the telnet Synch before ABOR
        reply(ctx, 220, &ftp.set.banner);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, line: &[u8]) -> Outcome {
        let start = line.iter().position(|&byte| byte < 0xf0).unwrap_or(line.len()); // behind telnet's IAC IP, IAC DM
        match std::str::from_utf8(&line[start..]) {
            Ok(line) if line.contains('\0') => reply(ctx, 501, "A zero byte."),
            Ok(line) if self.must_wait(line) => {
                self.waiting.push_back(line.to_owned());
                if self.waiting.len() > WAITING_MAX {
                    reply(ctx, 421, "Too many commands while a transfer runs.");
                    ctx.close();
                }
            }
            Ok(line) => {
                self.command(ctx, ftp, line);
                self.go_on(ctx, ftp); // there may be no transfer to wait for any more
            }
            Err(_) => reply(ctx, 501, "Not UTF-8."),
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp, limit: Limit) -> Outcome {
        match limit {
            Limit::FrameBytes => reply(ctx, 500, "Too long."),
            Limit::Idle => {
                reply(ctx, 421, "Silent for too long.");
                ctx.close();
            }
            other => return Err(other.into()),
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut Ftp) -> Outcome {
        self.quits = self.is_transferring();
        if !self.quits {
            reply(ctx, 421, "Going down.");
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Ctx<'_>, ftp: &mut Ftp, _: Reason) {
        ftp.sessions -= 1;
    }
}

/// One command after the other.
impl Control {
    fn is_transferring(&self) -> bool {
        self.wanted.is_some() || matches!(self.data, Some((_, Stage::Running)))
    }

    fn waits_for_transfer(&self, line: &str) -> bool {
        self.aborts || self.is_transferring() && OF_DATA.contains(&&*verb(line))
    }

    fn must_wait(&self, line: &str) -> bool {
        self.waits_for_transfer(line) || !self.waiting.is_empty() && !OVERTAKES.contains(&&*verb(line))
    }

    /// On with what was said meanwhile.
    fn go_on(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp) {
        if self.quits && !self.is_transferring() {
            return ctx.close();
        }
        while let Some(line) = self.waiting.pop_front() {
            if self.is_busy || self.waits_for_transfer(&line) {
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

    /// Has the disk do something. Nothing else is said or read until that is done.
    fn work<T: Send + 'static, E: Into<Refused> + Send + 'static>(
        &mut self,
        ctx: &mut Ctx<'_>,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&mut Self, &mut Ctx<'_>, T) + 'static,
    ) {
        self.is_busy = true;
        ctx.offload_held(work, |me: &mut Self, ctx, ftp, done| {
            me.is_busy = false;
            match done.map_err(Refused::from).and_then(|done| done.map_err(E::into)) {
                Ok(value) => then(me, ctx, value),
                Err(Refused(code, text)) => reply(ctx, code, text),
            }
            me.go_on(ctx, ftp);
            Ok(())
        });
    }

    /// An answer is owed, and is given by who calls `answered`.
    fn owe(&mut self, ctx: &mut Ctx<'_>) {
        self.is_busy = true;
        ctx.pause();
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>) {
        self.is_busy = false;
        ctx.resume();
    }

    fn obey(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, verb: &str, arg: &str) -> Result<(), Refused> {
        must(is_known(verb), 500, "There is no such command.")?;
        must(!arg.is_empty() || !WITH_ARGUMENT.contains(&verb), 501, "An argument is missing.")?;
        must(arg.is_empty() || !WITHOUT_ARGUMENT.contains(&verb), 501, "No argument goes with this.")?;
        must(self.is_in || FOR_ALL.contains(&verb) && (verb != "STAT" || arg.is_empty()), 530, LOG_IN)?;
        must(self.may_write() || !WRITES.contains(&verb), 550, "You may only read.")?;
        let place = Place::new(&ftp.set.root, &self.cwd, arg);
        match verb {
            "USER" => {
                let was_in = std::mem::take(&mut self.is_in);
                self.user = Some(arg.to_owned());
                reply(ctx, 331, if was_in { "Logged out; now the password." } else { "Now the password." });
            }
            "PASS" => self.log_in(ctx, ftp, arg)?,
            "REIN" => {
                (self.is_in, self.user, self.restart_at, self.rename_from) = (false, None, 0, None);
                reply(ctx, 230, "Ready for new user.");
            }
            "QUIT" => {
                reply(ctx, 221, "Goodbye.");
                self.quits = self.is_transferring();
                if !self.quits {
                    ctx.close();
                }
            }
            "NOOP" => reply(ctx, 200, "Yes."),
            "SYST" => reply(ctx, 215, "UNIX Type: L8"),
            "ALLO" => reply(ctx, 202, "Not needed."),
            "HELP" => help(ctx, arg)?,
            "FEAT" => {
                ctx.send("211-Beyond RFC 959:\r\n EPRT\r\n EPSV\r\n MDTM\r\n MFMT\r\n MLST ");
                for (n, fact) in FACTS.iter().enumerate() {
                    write!(ctx, "{fact}{};", if self.facts & 1 << n != 0 { "*" } else { "" });
                }
                ctx.send("\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End.\r\n");
            }
            "OPTS" => self.options(ctx, arg)?,
            "TYPE" => {
                self.is_binary = match arg.to_ascii_uppercase().replace(' ', "").as_str() {
                    "A" | "AN" | "L7" => false,
                    "I" | "L8" => true,
                    _ => return refuse(504, "Only A, I and L8."),
                };
                reply(ctx, 200, if self.is_binary { "Binary." } else { "ASCII." });
            }
            "STRU" | "MODE" => match (verb, arg.to_ascii_uppercase().as_str()) {
                ("STRU", "F") | ("MODE", "S") => reply(ctx, 200, "Ok."),
                ("STRU", "P" | "R") | ("MODE", "B" | "C") => return refuse(504, "Not this one."),
                _ => return refuse(501, "What is that?"),
            },
            "SITE" => self.site(ctx, ftp, arg)?,
            "STAT" if arg.is_empty() => self.status(ctx),
            "STAT" => {
                must(!arg.contains(['*', '?', '[']), 550, "No wildcards.")?;
                let list = move || place.list(Form::long(" "));
                self.work(ctx, list, |_, ctx, list| {
                    ctx.send("213-Status:\r\n");
                    ctx.send_from(list, |_: &mut Self, _, _, _| Ok(()));
                    ctx.send("213 End of status.\r\n");
                });
            }

            "PWD" | "XPWD" => reply(ctx, 257, format_args!("{} is the current directory.", quoted(&self.cwd))),
            "CWD" | "XCWD" | "CDUP" | "XCUP" => {
                let name = match arg {
                    "" if verb.ends_with("UP") => "..",
                    "" => "/",
                    arg => arg,
                };
                let place = Place::new(&ftp.set.root, &self.cwd, name);
                let look = move || fs::read_dir(place.real()?).map(|_| place.path);
                self.work(ctx, look, |me, ctx, path| {
                    reply(ctx, 250, format_args!("{} is the current directory.", quoted(&path)));
                    me.cwd = path;
                });
            }
            "MKD" | "XMKD" => {
                let create = move || fs::create_dir(place.real()?).map(|()| quoted(&place.path));
                self.work(ctx, create, |_, ctx, path| reply(ctx, 257, format_args!("{path} directory created.")));
            }
            "RMD" | "XRMD" | "RNFR" if place.path == "/" => return refuse(550, "Not the root."),
            "RMD" | "XRMD" => self.work(ctx, move || fs::remove_dir(place.real()?), |_, ctx, ()| reply(ctx, 250, "Gone.")),
            "DELE" => self.work(ctx, move || fs::remove_file(place.real()?), |_, ctx, ()| reply(ctx, 250, "Gone.")),
            "RNFR" => {
                let exists = move || place.real().and_then(|from| fs::symlink_metadata(&from).map(|_| from));
                self.work(ctx, exists, |me, ctx, from| {
                    me.rename_from = Some(from);
                    reply(ctx, 350, "And to?");
                });
            }
            "RNTO" => {
                let Some(from) = self.rename_from.take() else { return refuse(503, "RNFR comes first.") };
                self.work(ctx, move || fs::rename(from, place.real()?), |_, ctx, ()| reply(ctx, 250, "Renamed."));
            }
            "SIZE" | "MDTM" => {
                let is_size = verb == "SIZE";
                must(self.is_binary || !is_size, 550, "Only in binary: TYPE I.")?;
                let plain = move || match place.metadata() {
                    Ok(meta) if meta.is_file() => Ok(meta),
                    _ => refuse(550, "No plain file."),
                };
                self.work(ctx, plain, move |_, ctx, meta| {
                    reply(ctx, 213, if is_size { meta.len().to_string() } else { stamp(meta.mtime()) });
                });
            }
            "MFMT" => {
                let Some((time, name)) = arg.split_once(' ') else { return refuse(501, "A time and a name, please.") };
                let Some(when) = unstamp(time) else { return refuse(550, "A time is YYYYMMDDhhmmss.") };
                let (place, done) = (Place::new(&ftp.set.root, &self.cwd, name), format!("Modify={time}; {name}."));
                let touch = move || File::options().write(true).open(place.real()?)?.set_modified(when);
                self.work(ctx, touch, |_, ctx, ()| reply(ctx, 213, done));
            }
            "MLST" => {
                let (wanted, may_write) = (self.facts, self.may_write());
                let look = move || place.metadata().map(|meta| (facts(&meta, wanted, may_write), place.path));
                self.work(ctx, look, |_, ctx, (facts, path)| {
                    write!(ctx, "250-Listing:\r\n {facts} {path}\r\n250 End MLST.\r\n");
                });
            }

            "PASV" | "EPSV" => self.passive(ctx, ftp, verb == "EPSV", arg)?,
            "PORT" | "EPRT" => self.active(ctx, ftp, verb == "EPRT", arg)?,
            "REST" => {
                must(self.is_binary, 501, "Only in binary: TYPE I.")?;
                self.restart_at = arg.parse().or_else(|_| refuse(501, "A number, please."))?;
                reply(ctx, 350, format_args!("From {} on.", self.restart_at));
            }
            "LIST" | "NLST" | "MLSD" => {
                let (form, name) = match verb {
                    "LIST" if arg.starts_with('-') => (Form::long(""), arg.split_once(' ').map_or("", |(_, name)| name)),
                    "LIST" => (Form::long(""), arg),
                    "NLST" => (Form::Names, arg),
                    _ => (Form::Facts { facts: self.facts, may_write: self.may_write() }, arg),
                };
                let place = Place::new(&ftp.set.root, &self.cwd, name);
                self.work(ctx, move || place.list(form), |me, ctx, list| me.begin(ctx, Job::Send(list), "Here it goes."));
            }
            "RETR" => {
                let (from, is_text) = (std::mem::take(&mut self.restart_at), !self.is_binary);
                let open = move || place.open(from, is_text);
                self.work(ctx, open, |me, ctx, file| me.begin(ctx, Job::Send(file), "Here it goes."));
            }
            "STOR" | "APPE" | "STOU" => {
                let (from, is_text, appends) = (std::mem::take(&mut self.restart_at), !self.is_binary, verb == "APPE");
                if from > 0 && verb != "STOR" {
                    return refuse(450, format!("{verb} does not go with REST."));
                }
                if verb != "STOU" {
                    let create = move || place.create(from, appends, is_text);
                    self.work(ctx, create, |me, ctx, file| me.begin(ctx, Job::Receive(file), "Here it goes."));
                    return Ok(());
                }
                let (root, cwd, chance) = (ftp.set.root.clone(), self.cwd.clone(), ctx.net.random());
                let stem = if arg.is_empty() { "ftpd" } else { arg }.to_owned();
                let create = move || create_unique(&root, &cwd, &stem, chance, is_text);
                self.work(ctx, create, |me, ctx, (file, name)| {
                    me.begin(ctx, Job::Receive(file), &format!("FILE: {name}"));
                });
            }
            "ABOR" => self.abort(ctx, ftp),
            _ => return refuse(502, "Not here."),
        }
        Ok(())
    }

    fn may_write(&self) -> bool {
        self.user.as_deref() != Some("anonymous")
    }

    fn log_in(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, pass: &str) -> Result<(), Refused> {
        must(!self.is_in, 503, "You are logged in.")?;
        let Some(user) = &self.user else { return refuse(503, "USER comes first.") };
        if *user == ftp.set.user && pass == ftp.set.pass || ftp.set.anonymous && user == "anonymous" {
            (self.is_in, self.tries, self.cwd) = (true, 0, "/".into());
            reply(ctx, 230, "Welcome.");
            return Ok(());
        }
        (self.user, self.tries) = (None, self.tries + 1);
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
        Ok(())
    }

    fn options(&mut self, ctx: &mut Ctx<'_>, arg: &str) -> Result<(), Refused> {
        let (what, how) = arg.split_once(' ').unwrap_or((arg, ""));
        match what.to_ascii_uppercase().as_str() {
            "UTF8" => reply(ctx, 200, "Always in UTF8."),
            "MLST" => {
                must(!how.contains(' '), 501, "One list of facts, please.")?;
                must(how.is_empty() || how.contains(';'), 501, "A fact ends with a semicolon.")?;
                let is_wanted = |fact: &str| how.split(';').any(|name| name.eq_ignore_ascii_case(fact));
                self.facts = FACTS.iter().rev().fold(0, |bits, fact| bits << 1 | u8::from(is_wanted(fact)));
                let list: String = wanted(self.facts).map(|fact| format!("{fact};")).collect();
                reply(ctx, 200, format_args!("MLST OPTS {list}"));
            }
            _ => return refuse(501, "It has no options."),
        }
        Ok(())
    }

    fn site(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, arg: &str) -> Result<(), Refused> {
        let mut words = arg.splitn(3, ' ');
        match (verb(words.next().unwrap_or_default()).as_str(), words.next(), words.next()) {
            ("HELP", None, _) => reply(ctx, 214, "SITE CHMOD, SITE HELP."),
            ("HELP", Some(name), _) => {
                must(matches!(verb(name).as_str(), "HELP" | "CHMOD"), 501, "There is no such command.")?;
                reply(ctx, 214, "It is known.");
            }
            ("CHMOD", mode, name) => {
                must(self.is_in, 530, LOG_IN)?;
                let Some(mode) = mode else { return refuse(501, "An argument is missing.") };
                let Some(name) = name else { return refuse(501, "A mode and a name, please.") };
                must(self.may_write(), 550, "You may only read.")?;
                let is_octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
                must(is_octal, 501, "A mode is three octal digits.")?;
                let mode = Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap_or_default());
                let place = Place::new(&ftp.set.root, &self.cwd, name);
                self.work(ctx, move || fs::set_permissions(place.real()?, mode), |_, ctx, ()| reply(ctx, 200, "Done."));
            }
            ("RMDIR" | "MFMT", ..) if !self.is_in => return refuse(530, LOG_IN),
            _ => return refuse(500, "There is no such command."),
        }
        Ok(())
    }

    fn status(&mut self, ctx: &mut Ctx<'_>) {
        let (peer, stats) = (ctx.peer().clone(), ctx.net.stats());
        let login = if self.is_in { "Logged in" } else { "Not logged in" };
        let data = match self.data {
            Some((_, Stage::Running)) => "A transfer is under way",
            Some(_) => "A data connection is awaited or open",
            None => "No data connection",
        };
        write!(ctx, "211-Status:\r\n Connected from {peer}\r\n {login}\r\n {data}\r\n");
        write!(ctx, " {} received, {} sent by all\r\n211 End of status.\r\n", stats.bytes_in, stats.bytes_out);
    }
}

/// The data connection. It is owned by the session: what is awaited or open ends with it.
impl Control {
    fn passive(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, is_extended: bool, arg: &str) -> Result<(), Refused> {
        must(is_extended || !self.is_extended_only, 501, "You said EPSV ALL.")?;
        let (here, peer) = ends(ctx)?;
        match (arg.to_ascii_uppercase().as_str(), here.is_ipv4()) {
            ("", _) | ("1", true) | ("2", false) => {}
            ("ALL", _) => {
                self.is_extended_only = true;
                reply(ctx, 220, "EPSV only, then.");
                return Ok(());
            }
            ("1" | "2", is_ipv4) => return refuse_protocol(is_ipv4),
            _ => return refuse(501, "1, 2 or ALL."),
        }
        self.drop_data(ctx, ftp);
        let (control, foreign) = (ctx.key, ftp.set.foreign);
        let mut ports = ftp.set.ports.clone();
        if !ports.is_empty() {
            let n = ctx.net.random() as usize % ports.len();
            ports.rotate_left(n);
        }
        ports.push(0);
        let bind = ctx.local().ip().map_or(here, |local| local.ip());
        let listener = ports.into_iter().find_map(|port| {
            let options = Listen::new().owner(control).admits_max(1).backlog(4);
            let let_in = ctx.net.listen_with((bind, port), options, move |net, _, from| {
                let is_known = from.ip().is_some_and(|from| from.ip().to_canonical() == peer);
                if foreign || is_known { Ok(Data { control, listener: net.accepting() }) } else { Err(Refusal::silent()) }
            });
            let_in.ok()
        });
        let Some(listener) = listener else { return refuse(425, "No port free.") };
        self.data = Some((listener, Stage::Awaited));
        if let Some(wait) = ftp.set.passive_wait {
            ctx.after(wait, move |me: &mut Self, ctx, ftp| {
                if me.data == Some((listener, Stage::Awaited)) {
                    me.drop_data(ctx, ftp);
                    reply(ctx, 421, "Nobody came to the data port.");
                    me.go_on(ctx, ftp);
                }
                Ok(())
            });
        }
        let port = ctx.net.local(listener).and_then(|at| at.ip()).map_or(0, |at| at.port());
        if is_extended {
            reply(ctx, 229, format_args!("Come to (|||{port}|)."));
            return Ok(());
        }
        let host = match (&ftp.set.masquerade, here) {
            (Some(host), _) => host.replace('.', ","),
            (None, IpAddr::V4(ip)) => ip.to_string().replace('.', ","),
            (None, IpAddr::V6(_)) => "0,0,0,0".into(),
        };
        reply(ctx, 227, format_args!("Come to ({host},{},{}).", port >> 8, port & 255));
        Ok(())
    }

    fn active(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, is_extended: bool, arg: &str) -> Result<(), Refused> {
        must(!self.is_extended_only, 501, "You said EPSV ALL.")?;
        let (here, peer) = ends(ctx)?;
        must(is_extended || here.is_ipv4(), 501, "EPRT, over IPv6.")?;
        let Some(to) = (if is_extended { extended_address(arg) } else { address(arg).map(Some) }) else {
            return refuse(501, "No address.");
        };
        let Some(to) = to.filter(|to| to.is_ipv4() == here.is_ipv4()) else { return refuse_protocol(here.is_ipv4()) };
        must(ftp.set.foreign || to.ip().to_canonical() == peer, 501, "Only to your own address.")?;
        must(ftp.set.privileged || to.port() >= 1024, 501, "Not to a port below 1024.")?;
        self.drop_data(ctx, ftp);
        let control = ctx.key;
        let options = Connect::new().owner(control).timeout(ftp.set.active_wait).local((here, 0).into());
        self.data = Some((ctx.net.connect_with(to, options, Data { control, listener: None }), Stage::Coming));
        self.owe(ctx);
        Ok(())
    }

    /// And the transfer that waits for it.
    fn drop_data(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        self.wanted = None;
        if let Some((key, _)) = self.data.take() {
            ctx.net.abort(key);
            ctx.set_idle_timeout(ftp.set.idle);
        }
    }

    fn begin(&mut self, ctx: &mut Ctx<'_>, job: Job, text: &str) {
        match self.data {
            None => reply(ctx, 425, "Use PASV or PORT first."),
            Some((data, Stage::Open)) => {
                reply(ctx, 125, text);
                self.start(ctx, data, job);
            }
            Some(_) => {
                reply(ctx, 150, text);
                self.wanted = Some(job);
            }
        }
    }

    fn start(&mut self, ctx: &mut Ctx<'_>, data: Key, job: Job) {
        self.data = Some((data, Stage::Running));
        ctx.net.tell(data, |data: &mut Data, ctx, ftp| data.start(ctx, ftp, job)); // if it has ended, we are told next
    }

    /// It is there. Before, it was known as another, perhaps: the listener that has let it in.
    pub(super) fn data_came(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, data: Key, known_as: Key) -> Outcome {
        match self.data {
            Some((key, Stage::Awaited)) if key == known_as => {}
            Some((key, Stage::Coming)) if key == known_as => {
                reply(ctx, 200, "Connected.");
                self.answered(ctx);
            }
            _ => {
                ctx.net.abort(data); // too late
                return Ok(());
            }
        }
        self.data = Some((data, Stage::Open));
        ctx.set_idle_timeout(None); // the time-outs of the data connection watch from now on
        if let Some(job) = self.wanted.take() {
            self.start(ctx, data, job);
        }
        self.go_on(ctx, ftp);
        Ok(())
    }

    pub(super) fn data_gone(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, data: Key, why: &Reason) -> Outcome {
        let Some((_, stage)) = self.data.take_if(|(key, _)| *key == data) else { return Ok(()) };
        ctx.set_idle_timeout(ftp.set.idle);
        match (stage, why) {
            (Stage::Coming, why) => {
                reply(ctx, 425, format_args!("Not reached: {why}."));
                self.answered(ctx);
            }
            (_, Reason::Limit(Limit::Idle | Limit::Stalled | Limit::Deadline)) => {
                reply(ctx, 421, "The data connection was silent for too long.");
                ctx.close();
            }
            (Stage::Running, why) if why.is_clean() => reply(ctx, 226, "Done."),
            (Stage::Running, _) if self.aborts => reply(ctx, 426, "Cut off, as you wished."),
            (Stage::Running, Reason::Failed(_)) => reply(ctx, 426, "The file could not be read or written."),
            (Stage::Running, _) => reply(ctx, 426, "The data connection broke."),
            (Stage::Awaited | Stage::Open, _) => {}
        }
        if std::mem::take(&mut self.aborts) {
            reply(ctx, 226, "Aborted.");
        }
        self.go_on(ctx, ftp);
        Ok(())
    }

    fn abort(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        match self.data {
            Some((data, Stage::Running)) => {
                self.aborts = true; // both replies come when it has ended
                ctx.net.abort(data);
            }
            Some(_) if self.wanted.is_some() => {
                self.drop_data(ctx, ftp);
                reply(ctx, 426, "Cut off, as you wished.");
                reply(ctx, 226, "Aborted.");
            }
            Some(_) => {
                self.drop_data(ctx, ftp);
                reply(ctx, 225, "Closed.");
            }
            None => reply(ctx, 225, "Nothing to abort."),
        }
    }
}

fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

fn help(ctx: &mut Ctx<'_>, arg: &str) -> Result<(), Refused> {
    if arg.is_empty() {
        ctx.send("214-What there is:\r\n");
        for some in [WITHOUT_ARGUMENT, WITH_ARGUMENT, WITH_OR_WITHOUT] {
            write!(ctx, " {}\r\n", some.join(" "));
        }
        ctx.send("214 That is all.\r\n");
        return Ok(());
    }
    must(is_known(&arg.to_ascii_uppercase()) || verb(arg) == "SITE", 501, "There is no such command.")?;
    reply(ctx, 214, format_args!("{arg} is known."));
    Ok(())
}

/// The IP addresses of the control connection, ours and the client's.
fn ends(ctx: &Ctx<'_>) -> Result<(IpAddr, IpAddr), Refused> {
    match (ctx.local().ip(), ctx.peer().ip()) {
        (Some(here), Some(peer)) => Ok((here.ip().to_canonical(), peer.ip().to_canonical())),
        _ => refuse(425, "Not over IP."),
    }
}

fn refuse_protocol<T>(is_ipv4: bool) -> Result<T, Refused> {
    refuse(522, format!("Network protocol not supported (use {}).", if is_ipv4 { 1 } else { 2 }))
}

/// As PORT has it: `127,0,0,1,4,1`.
fn address(arg: &str) -> Option<SocketAddr> {
    let numbers: Vec<u8> = arg.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [a, b, c, d, high, low] = numbers[..] else { return None };
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
}

/// As EPRT has it: `|1|127.0.0.1|1025|`. `Some(None)`: of a protocol that we do not know.
fn extended_address(arg: &str) -> Option<Option<SocketAddr>> {
    let parts: Vec<&str> = arg.split(arg.chars().next()?).collect();
    let ["", protocol, ip, port, ""] = parts[..] else { return None };
    let port = port.parse().ok()?;
    match protocol {
        "1" => Some(Some((ip.parse::<Ipv4Addr>().ok()?, port).into())),
        "2" => Some(Some((ip.parse::<Ipv6Addr>().ok()?, port).into())),
        other => other.parse::<u32>().ok().map(|_| None),
    }
}
