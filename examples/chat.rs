//! A room to talk in: whoever connects gives a name, and what one says all others read.

mod common;

use common::{Failure, address, announce, exit, stop_on_interrupt};
use mainspring::{Config, Context, Key, Limit, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{collections::BTreeMap, process::ExitCode, rc::Rc, time::Duration};

const HELP: &str = "\
A room to talk in: whoever connects gives a name, and what one says all others
read.

usage: chat [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; 127.0.0.1:7001 if it is
not given. Then, in two other terminals: nc 127.0.0.1 7001

In the room, /who tells who is there, and /quit leaves. Silence is welcome; but
who takes more than 60 seconds for a line, or for 60 seconds takes nothing of
what others say, is let go.";

pub(crate) const LINE_MAX: usize = 1024;
const NAME_MAX: usize = 32;

/// So long a line may take, and so long who is told something may take none of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the program has one of; every callback is lent it.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) names: BTreeMap<Key, String>,
}

impl Room {
    fn enter(&mut self, ctx: &mut Context<'_, Room>, name: String) {
        if name.is_empty() || name.chars().count() > NAME_MAX {
            writeln!(ctx, "A name has 1 to {NAME_MAX} characters. Your name?");
        } else if name.contains(char::REPLACEMENT_CHARACTER) {
            writeln!(ctx, "A name is UTF-8, and all of it can be seen. Your name?");
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
        let text = printable(line);
        match room.names.get(&ctx.key) {
            Some(name) => room.say(ctx, name, text.trim()),
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

    /// However it ended: by `/quit`, by hanging up, or because it did not read and its output reached the cap.
    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, _: Reason) {
        if let Some(name) = room.names.remove(&ctx.key) {
            room.tell_others(&mut ctx.net, ctx.key, &format!("* {name} left\n"));
        }
    }
}

/// What cannot do anything to the terminals of others. What is no UTF-8 shows as U+FFFD, and so does what cannot be seen
/// but changes what is: marks that turn the direction of writing around, and characters without width.
fn printable(line: &[u8]) -> String {
    let shown = |c: char| match c {
        c if c.is_control() => ' ',
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    String::from_utf8_lossy(line).chars().map(shown).collect()
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(at) = address(HELP, "127.0.0.1:7001")? else { return Ok(()) };
    // A few lines of each in a turn: what is said leaves at its end, and one who pastes a book must not fill, in a single
    // turn, the queues of those who read.
    let mut reactor = Reactor::with_config(Config::new().turn_frames(16))?;
    let listener = reactor.net().listen(at, || Guest)?;
    stop_on_interrupt(&reactor)?;
    announce(&reactor.net(), listener);
    Ok(reactor.run(&mut Room::default())?)
}
