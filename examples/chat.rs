//! A chat room: you connect and give a name, and everybody else reads what you say.
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
A chat room: you connect and give a name, and everybody else reads what you say.

usage: chat [ADDR] [--cert FILE --key FILE [--client-ca FILE]]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7001. Then, in two other terminals: nc 127.0.0.1 7001

In the room, /who lists who is there, and /quit leaves. You may be silent as
long as you like. You are disconnected if a line takes you more than 60 seconds,
if you read nothing for 60 seconds, or if you fall far behind. There is room for
500 people. Ctrl-C closes the room.

With --cert and --key the room speaks TLS: ncat --ssl 127.0.0.1 7001. The files
are those of tls_echo. This needs the feature tls,";

pub(crate) const LINE_MAX: usize = 1024;
const MEMBERS_MAX: usize = 500;

/// How long a line may take, and how long a client may read nothing of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the room closes, the time everybody has to read the rest.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the program; each callback borrows it.
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
        // No idle time-out, because a client may listen all day: TCP's keep-alive notices one that has vanished. Unix
        // sockets have no keep-alive and need none: the system tells them when the peer goes.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        ctx.send("Your name?\n");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, line: &[u8]) -> Outcome {
        ctx.set_deadline(None); // a line that was too long has ended
        let text = printable(&String::from_utf8_lossy(line));
        match room.names.get(&ctx.key) {
            Some(name) => room.say(ctx, name, text.trim()),
            None if text.trim() == "/quit" => ctx.close(),
            None => room.enter(ctx, text.trim().to_owned()),
        }
        Ok(())
    }

    /// A line that is too long is dropped, and its writer may go on. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "That was too long: {LINE_MAX} bytes at most.");
        ctx.set_deadline(PATIENCE); // for the rest of the line: it is skipped, and may never end
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Room>, _: &mut Room) -> Outcome {
        ctx.send("* the room closes\n");
        ctx.close();
        Ok(())
    }

    /// However it ended: by `/quit`, by hanging up, or because the client did not read and its output reached the cap.
    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, _: Reason) {
        if let Some(name) = room.names.remove(&ctx.key) {
            room.tell_others(&mut ctx.net, ctx.key, &format!("* {name} left\n"));
        }
    }
}

/// The bounds of the room, for all clients together and for each.
pub(crate) fn bounds() -> (Config, Listen) {
    // A few lines of each client in a turn: output leaves at the end of a turn, and a client that pastes a book must not
    // fill the queues of the readers in a single turn.
    let config = Config::new().turn_frames(4);
    // A client that reads has nothing queued; one that does not costs no more than this: about a hundred of the longest lines.
    let options = Listen::new().output_limits(8 << 10, 32 << 10, 128 << 10);
    (config, options.connections_max(MEMBERS_MAX, "* the room is full, try again later\n"))
}

/// Known without the feature too, so that we can say what is missing.
const OPTIONS: [&str; 3] = ["cert", "key", "client-ca"];
const BUILT: &str = if cfg!(feature = "tls") { "which this build has" } else { "which this build lacks" };

/// The same room over TLS, if that is asked for.
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
        Some(name) => Err(common::misused(format!("--{name} needs the feature tls, {BUILT}"))),
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
