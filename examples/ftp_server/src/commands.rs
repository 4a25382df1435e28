//! The commands: which there are, who may use them and when, and what each does.

use crate::{
    Control, Ctx, Ftp, Refused,
    disk::{Place, Source, Start},
    listing::{FACTS, Form, facts, list, stamp, unstamp, wanted},
    must, refuse, reply,
    transfer::Job,
};
use cap_std::fs::{Dir, OpenOptions, Permissions, PermissionsExt};

/// All commands, each with its properties: `-` takes no argument, `+` needs one, otherwise it is optional; `a` is allowed before
/// a login too; `w` writes; `d` needs the data connection, so it waits for the end of a transfer, as do commands after it; `o`
/// overtakes these.
const COMMANDS: &[&str] = &[
    "ABOR -o", "ALLO +", "APPE +wd", "AUTH +ad", "CDUP -", "CWD ", "DELE +w", "EPRT +d", "EPSV d", "FEAT -a", "HELP a", "LIST d",
    "MDTM +", "MFMT +w", "MKD +w", "MLSD d", "MLST ", "MODE +", "NLST d", "NOOP -a", "OPTS +", "PASS a", "PASV -d", "PBSZ +a",
    "PORT +d", "PROT +ad", "PWD -", "QUIT -a", "REIN -", "REST +d", "RETR +d", "RMD +w", "RNFR +w", "RNTO +w", "SITE +a",
    "SIZE +", "STAT ao", "STOR +wd", "STOU wd", "STRU +", "SYST -a", "TYPE +", "USER +a", "XCUP -", "XCWD ", "XMKD +w", "XPWD -",
    "XRMD +w",
];

/// Commands of the same documents that we do not support.
const NOT_HERE: &[&str] = &["ACCT", "ADAT", "CCC", "CONF", "ENC", "LANG", "MIC", "SMNT"];

const LOG_IN: &str = "Who are you? USER and PASS come first.";

/// The properties of a command, if there is one of this name.
fn manner(verb: &str) -> Option<&'static str> {
    COMMANDS.iter().find_map(|command| command.strip_prefix(verb)?.strip_prefix(' '))
}

pub(crate) fn is(verb: &str, manner_of: char) -> bool {
    manner(verb).is_some_and(|how| how.contains(manner_of))
}

pub(crate) fn verb(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_ascii_uppercase()
}

impl Control {
    pub(crate) fn obey(&mut self, ctx: &mut Ctx<'_>, ftp: &mut Ftp, verb: &str, arg: &str) -> Result<(), Refused> {
        must(!NOT_HERE.contains(&verb), 502, "Not supported.")?;
        must(manner(verb).is_some(), 500, "There is no such command.")?;
        must(self.is_in || is(verb, 'a') && (verb != "STAT" || arg.is_empty()), 530, LOG_IN)?;
        must(!arg.is_empty() || !is(verb, '+'), 501, "An argument is missing.")?;
        must(arg.is_empty() || !is(verb, '-'), 501, "This takes no argument.")?;
        must(self.may_write || !is(verb, 'w'), 550, "You may only read.")?;
        let is_open = ftp.set.requires_tls && ctx.tls().is_none();
        must(!is_open || !["USER", "PASS"].contains(&verb), 550, "SSL/TLS required on the control channel.")?;
        let place = Place::new(&ftp.set.root, &self.cwd, arg);
        self.change = if is(verb, 'w') || verb == "SITE" { format!("{verb} {arg}") } else { String::new() };
        match verb {
            "USER" => {
                let was_in = self.is_in;
                self.forget(ctx);
                self.user = Some(arg.to_owned());
                reply(ctx, 331, if was_in { "Logged out; now the password." } else { "Now the password." });
            }
            "PASS" => self.log_in(ctx, ftp, arg)?,
            "REIN" => {
                self.forget(ctx);
                reply(ctx, 230, "Ready for new user.");
            }
            "AUTH" | "PBSZ" | "PROT" => self.secure(ctx, ftp, verb, arg)?,
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
            "FEAT" => self.features(ctx, ftp),
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
                self.work(
                    ctx,
                    move || list(&place, Form::Long { indent: " " }),
                    |_, ctx, _, list| {
                        ctx.send("213-Status:\r\n");
                        ctx.send_from(list, |_: &mut Self, _, _, _| Ok(()));
                        ctx.send("213 End of status.\r\n");
                    },
                );
            }

            "PWD" | "XPWD" => reply(ctx, 257, format_args!("{} is the current directory.", quoted(&self.cwd))),
            "CWD" | "XCWD" | "CDUP" | "XCUP" => {
                let place = match arg {
                    "" if verb.ends_with("UP") => Place::new(&ftp.set.root, &self.cwd, ".."),
                    "" => place.at_root(""),
                    _ => place,
                };
                self.work(
                    ctx,
                    move || place.on(Dir::read_dir).map(|_| place.path),
                    |me, ctx, _, path| {
                        reply(ctx, 250, format_args!("{} is the current directory.", quoted(&path)));
                        me.cwd = path;
                    },
                );
            }
            "MKD" | "XMKD" => self.answer(ctx, move || {
                place.on(Dir::create_dir)?;
                Ok(format!("257 {} directory created.", quoted(&place.path)))
            }),
            "RMD" | "XRMD" | "RNFR" | "DELE" | "RNTO" if place.path == "/" => {
                self.rename_from = None;
                return refuse(550, "Not the root.");
            }
            "RMD" | "XRMD" => self.answer(ctx, move || Ok(place.on(Dir::remove_dir).map(|()| "250 Gone.".into())?)),
            "DELE" => self.answer(ctx, move || Ok(place.on(Dir::remove_file).map(|()| "250 Gone.".into())?)),
            "RNFR" => self.work(
                ctx,
                move || place.on(Dir::symlink_metadata).map(|_| place),
                |me, ctx, _, from| {
                    me.rename_from = Some(from);
                    reply(ctx, 350, "And to?");
                },
            ),
            "RNTO" => {
                let Some(from) = self.rename_from.take() else { return refuse(503, "RNFR comes first.") };
                self.change = format!("RNFR {} {}", from.path, self.change);
                self.answer(ctx, move || Ok(from.rename(&place).map(|()| "250 Renamed.".into())?));
            }
            "SIZE" => {
                must(self.is_binary, 550, "Only in binary: TYPE I.")?;
                let may_write = self.may_write;
                self.sized = Some(place.path.clone());
                self.answer(ctx, move || match place.resumable().filter(|_| may_write) {
                    Some(size) => Ok(format!("213 {size}")),
                    None => Ok(format!("213 {}", place.plain()?.len())),
                });
            }
            "MDTM" => self.answer(ctx, move || Ok(format!("213 {}", stamp(&place.plain()?)))),
            "MFMT" => {
                let Some((time, name)) = arg.split_once(' ') else { return refuse(501, "A time and a name, please.") };
                let Some(when) = unstamp(time) else { return refuse(501, "A time is YYYYMMDDhhmmss.") };
                let (place, done) = (Place::new(&ftp.set.root, &self.cwd, name), format!("213 Modify={time}; {name}."));
                self.answer(ctx, move || Ok(place.open(OpenOptions::new().write(true))?.set_modified(when).map(|()| done)?));
            }
            "MLST" => {
                let (wanted, may_write) = (self.facts, self.may_write);
                self.answer(ctx, move || {
                    let facts = facts(&place.metadata()?, wanted, may_write);
                    Ok(format!("250-Listing:\r\n {facts} {}\r\n250 End MLST.", place.path))
                });
            }

            "PASV" | "EPSV" => self.passive(ctx, ftp, verb == "EPSV", arg)?,
            "PORT" | "EPRT" => self.active(ctx, ftp, verb == "EPRT", arg)?,
            "REST" => {
                must(self.is_binary, 501, "Only in binary: TYPE I.")?;
                self.restart_at = arg.parse().or_else(|_| refuse(501, "A number, please."))?;
                reply(ctx, 350, format_args!("From {} on.", self.restart_at));
            }
            "ABOR" => self.abort(ctx, ftp),
            "LIST" | "NLST" | "MLSD" | "RETR" | "STOU" | "STOR" | "APPE" => return self.transfer(ctx, ftp, verb, arg, place),
            _ => return refuse(502, "Not supported."),
        }
        Ok(())
    }

    fn transfer(&mut self, ctx: &mut Ctx<'_>, ftp: &Ftp, verb: &str, arg: &str, place: Place) -> Result<(), Refused> {
        let from = std::mem::take(&mut self.restart_at);
        self.transfer = format!("{verb} {}", place.path);
        let is_private = self.is_private || !ftp.set.requires_tls;
        must(is_private, 550, "SSL/TLS required on the data channel.")?;
        must(from == 0 || !["APPE", "STOU"].contains(&verb), 450, "That does not go with REST.")?;
        let is_text = !self.is_binary;
        match verb {
            "LIST" | "NLST" | "MLSD" => {
                let (form, name) = match verb {
                    "LIST" if arg.starts_with('-') => {
                        (Form::Long { indent: "" }, arg.split_once(' ').map_or("", |(_, name)| name))
                    }
                    "LIST" => (Form::Long { indent: "" }, arg),
                    "NLST" => (Form::Names, arg),
                    _ => (Form::Facts { facts: self.facts, may_write: self.may_write }, arg),
                };
                let place = Place::new(&ftp.set.root, &self.cwd, name);
                let list = move || list(&place, form).map(Source::Reader);
                self.work(ctx, list, |me, ctx, ftp, list| me.begin(ctx, ftp, Job::Send(list), "Here it goes."));
            }
            "RETR" => {
                let open = move || place.source(from, is_text);
                self.work(ctx, open, |me, ctx, ftp, file| me.begin(ctx, ftp, Job::Send(file), "Here it goes."));
            }
            "STOU" => {
                let (place, chance) =
                    (if arg.is_empty() { place.at_root(&self.cwd).below("ftp") } else { place }, ctx.net.random());
                self.work(
                    ctx,
                    move || place.unique(chance, is_text),
                    |me, ctx, ftp, (file, name)| {
                        me.begin(ctx, ftp, Job::Receive(file), &format!("FILE: {name}"));
                    },
                );
            }
            _ => {
                must(place.path != "/", 550, "Not the root.")?;
                let start = match verb {
                    "APPE" if self.sized.as_ref() == Some(&place.path) => Start::EndOfPart,
                    "APPE" => Start::End,
                    _ => Start::At(from),
                };
                let create = move || place.upload(start, is_text);
                self.work(ctx, create, |me, ctx, ftp, file| me.begin(ctx, ftp, Job::Receive(file), "Here it goes."));
            }
        }
        Ok(())
    }

    fn features(&self, ctx: &mut Ctx<'_>, ftp: &Ftp) {
        ctx.send("211-Beyond RFC 959:\r\n");
        if ftp.set.tls.is_some() {
            ctx.send(" AUTH SSL\r\n AUTH TLS\r\n PBSZ\r\n PROT\r\n");
        }
        ctx.send(" EPRT\r\n EPSV\r\n MDTM\r\n MFMT\r\n MLST ");
        for (n, fact) in FACTS.iter().enumerate() {
            write!(ctx, "{fact}{};", if self.facts & 1 << n != 0 { "*" } else { "" });
        }
        ctx.send("\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End.\r\n");
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
                let (Some(mode), Some(name)) = (mode, name) else { return refuse(501, "A mode and a name, please.") };
                must(self.may_write, 550, "You may only read.")?;
                let is_octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
                must(is_octal, 501, "A mode is three octal digits.")?;
                let mode = Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap_or_default() & 0o777);
                let place = Place::new(&ftp.set.root, &self.cwd, name);
                self.answer(ctx, move || {
                    place.on(|root, path| root.set_permissions(path, mode))?;
                    Ok("200 Done.".into())
                });
            }
            ("RMDIR" | "MFMT", ..) if !self.is_in => return refuse(530, LOG_IN),
            _ => return refuse(500, "There is no such command."),
        }
        Ok(())
    }

    fn status(&mut self, ctx: &mut Ctx<'_>) {
        let (peer, stats) = (ctx.peer().clone(), ctx.net.stats());
        let login = if self.is_in { "Logged in" } else { "Not logged in" };
        let data = if self.is_transferring() { "A transfer is under way" } else { "No transfer" };
        write!(ctx, "211-Status:\r\n Connected from {peer}\r\n {login}\r\n {data}\r\n");
        write!(ctx, " {} received, {} sent by all\r\n211 End of status.\r\n", stats.bytes_in, stats.bytes_out);
    }
}

fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

fn help(ctx: &mut Ctx<'_>, arg: &str) -> Result<(), Refused> {
    if !arg.is_empty() {
        must(manner(&arg.to_ascii_uppercase()).is_some(), 501, "There is no such command.")?;
        reply(ctx, 214, format_args!("{arg} is known."));
        return Ok(());
    }
    ctx.send("214-What there is:\r\n");
    for some in COMMANDS.chunks(8) {
        let names: Vec<&str> = some.iter().filter_map(|command| command.split(' ').next()).collect();
        write!(ctx, " {}\r\n", names.join(" "));
    }
    ctx.send("214 That is all.\r\n");
    Ok(())
}
