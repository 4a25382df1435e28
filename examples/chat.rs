//! A room to talk in: whoever connects gives a name, and what one says all others read.
#![allow(unexpected_cfgs)] // it is built, and copied, where there is no feature `tls`

mod common;
#[path = "common/printable.rs"]
mod printable;
#[cfg(feature = "tls")]
#[path = "common/tls.rs"]
mod tls;

use common::{Arguments, Failure, announce, arguments, drain_on_interrupt, exit, listening};
use mainspring::{Config, Context, Key, Limit, Listen, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use printable::{check_name, printable};
use std::{collections::BTreeMap, process::ExitCode, rc::Rc, time::Duration};

const HELP: &str = "\
A room to talk in: whoever connects gives a name, and what one says all others
read.

usage: chat [ADDR] [--cert FILE --key FILE [--client-ca FILE]]

ADDR is IP:PORT (port 0: any free one) or unix:/path; 127.0.0.1:7001 if it is
not given. Then, in two other terminals: nc 127.0.0.1 7001

In the room, /who tells who is there, and /quit leaves. Silence is welcome; but
who takes more than 60 seconds for a line, or for 60 seconds takes nothing of
what others say, or falls far behind, is let go. There are 500 places. Ctrl-C
closes the room.

With --cert and --key one talks in TLS: ncat --ssl 127.0.0.1 7001. The files are
as those of tls_echo. This takes the feature tls,";

pub(crate) const LINE_MAX: usize = 1024;
const MEMBERS_MAX: usize = 500;

/// So long a line may take, and so long who is told something may take none of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the room closes: for everybody to take the rest.
const GRACE: Duration = Duration::from_secs(2);

/// What the program has one of; every callback is lent it.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) names: BTreeMap<Key, String>,
}

impl Room {
    fn enter(&mut self, ctx: &mut Context<'_, Room>, name: String) {
        if let Err(why) = check_name(&name) {
            writeln!(ctx, "{why} Your name?");
        } else if self.names.values().any(|taken| *taken == name) {
            writeln!(ctx, "{name} is here already. Your name?");
        } else {
            writeln!(ctx, "Welcome, {name}! /who tells who is here, /quit leaves.");
            self.tell_others(&mut ctx.net, ctx.key, &format!("* {name} joined\n"));
            self.names.insert(ctx.key, name);
        }
    }

    fn say(&self, ctx: &mut Context<'_, Room>, name: &str, text: &str) {
        match text {
            "" => {}
            "/who" => writeln!(ctx, "* here: {}", self.names.values().cloned().collect::<Vec<_>>().join(", ")),
            "/quit" => ctx.close(),
            _ if text.starts_with('/') => writeln!(ctx, "Not said: there is /who and /quit, and no other command."),
            _ => self.tell_others(&mut ctx.net, ctx.key, &format!("<{name}> {text}\n")),
        }
    }

    /// One buffer for all: written once, queued by reference.
    fn tell_others(&self, net: &mut Net<'_, Room>, me: Key, text: &str) {
        let text: Rc<[u8]> = text.as_bytes().into();
        for &other in self.names.keys().filter(|&&key| key != me) {
            net.send_shared(other, &text);
        }
    }
}

pub(crate) struct Guest;

impl Protocol<Room> for Guest {
    fn connected(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_frame_timeout(PATIENCE);
        ctx.set_stall_timeout(PATIENCE);
        // No idle time-out, because one may listen all day: who has vanished without a word is noticed by TCP's keep-alive.
        // A socket that has none, as a Unix one, is told by the system when its peer goes.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        ctx.send("Your name?\n");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, line: &[u8]) -> Outcome {
        ctx.set_deadline(None); // if the line before was too long, that has ended
        let text = printable(&String::from_utf8_lossy(line));
        match room.names.get(&ctx.key) {
            Some(name) => room.say(ctx, name, text.trim()),
            None if text.trim() == "/quit" => ctx.close(),
            None => room.enter(ctx, text.trim().to_owned()),
        }
        Ok(())
    }

    /// Too long a line is not said; who wrote it may go on. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "That was too long: {LINE_MAX} bytes at most.");
        ctx.set_deadline(PATIENCE); // for the rest of the line, which is skipped, and may have no end
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room) -> Outcome {
        ctx.send("* the room closes\n");
        ctx.close();
        Ok(())
    }

    /// However it ended: by `/quit`, by hanging up, or because it did not read and its output reached the cap.
    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, _: Reason) {
        if let Some(name) = room.names.remove(&ctx.key) {
            room.tell_others(&mut ctx.net, ctx.key, &format!("* {name} left\n"));
        }
    }
}

/// What the room bounds, of all and of each.
pub(crate) fn bounds() -> (Config, Listen) {
    // A few lines of each in a turn: what is said leaves at its end, and those who paste a book must not fill, in a single
    // turn, the queues of those who read.
    let config = Config::new().turn_frames(4);
    // Who reads has nothing queued, and who does not costs no more than this: some hundred lines of the longest.
    let options = Listen::new().output_limits(8 << 10, 32 << 10, 128 << 10);
    (config, options.connections_max(MEMBERS_MAX, "* the room is full, try again later\n"))
}

/// Known without the feature too, to say what is missing.
const OPTIONS: [&str; 3] = ["cert", "key", "client-ca"];
const BUILT: &str = if cfg!(feature = "tls") { "with which it was built" } else { "without which it was built" };

/// The same room in TLS, if that is asked for.
#[cfg(feature = "tls")]
fn secured(options: Listen, given: &Arguments) -> Result<Listen, Failure> {
    Ok(match tls::server(given, &[])? {
        Some(server) => options.tls(server),
        None => options,
    })
}
#[cfg(not(feature = "tls"))]
fn secured(options: Listen, given: &Arguments) -> Result<Listen, Failure> {
    match OPTIONS.iter().find(|name| given.option(name).is_some()) {
        Some(name) => Err(common::misused(format!("--{name} takes the feature tls, {BUILT}"))),
        None => Ok(options),
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(&format!("{HELP} {BUILT}."), 1, &OPTIONS)? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7001".into());
    let (config, options) = bounds();
    let options = secured(options, &given)?;
    let mut reactor = Reactor::with_config(config)?;
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Guest)))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut Room::default())?)
}
