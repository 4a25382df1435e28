//! The room over lines of text: for nc, telnet, and `screen` of examples/guests, by TCP or a Unix socket.

use crate::{
    ASK, App, TOO_LONG,
    events::Form,
    history::in_order,
    room::{LINE_MAX, QUEUE_MAX},
};
use mainspring::{Config, Context, Limit, Listen, Outcome, Protocol, Reason, Terminator};
use std::{borrow::Cow, time::Duration};

/// So long a line may take, and so long who is told something may take none of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the room bounds, of all and of each.
pub fn config() -> Config {
    // A few lines of each in a turn: what is said leaves at its end, and those who paste a book must not fill, in a single
    // turn, the queues of those who read.
    Config::new().turn_frames(4)
}

/// Of one address there may be three quarters of all: many people may share one, and one must not shut everybody out.
pub fn per_peer_max(members_max: usize) -> usize {
    (members_max * 3 / 4).max(1)
}

pub fn bounds(members_max: usize) -> Listen {
    let options = Listen::new().output_limits(8 << 10, 32 << 10, QUEUE_MAX);
    let options = options.per_peer_max(per_peer_max(members_max), "* too many of your address are here, try again later\n");
    options.connections_max(members_max, "* the room is full, try again later\n")
}

/// What is typed is typed by a member, or is a name.
#[derive(Default)]
pub struct Lines {
    /// It has said all that it will. It is let go when it has heard what comes of that.
    leaves: bool,
}

impl Lines {
    fn leave(&mut self, ctx: &mut Context<'_, App>, app: &mut App) {
        let key = ctx.key;
        self.leaves = true;
        in_order(&mut ctx.net, app, move |net, _| _ = net.close(key));
    }
}

impl Protocol<App> for Lines {
    fn connected(&mut self, ctx: &mut Context<'_, App>, _: &mut App) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_frame_timeout(PATIENCE);
        ctx.set_stall_timeout(PATIENCE);
        // No idle time-out, because one may listen all day: who has vanished without a word is noticed by TCP's keep-alive.
        // A socket that has none, as a Unix one, is told by the system when its peer goes.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        writeln!(ctx, "{ASK}");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, App>, app: &mut App, line: &[u8]) -> Outcome {
        if self.leaves {
            return Ok(());
        }
        ctx.set_deadline(None); // if the line before was too long, that has ended
        let line = without_telnet(line);
        if !app.typed(&mut ctx.net, ctx.key, Form::Line, None, &String::from_utf8_lossy(&line)) {
            self.leave(ctx, app);
        }
        Ok(())
    }

    /// As `/quit`: `printf 'ann\nhello\n' | nc -N …` hears what it has said. Half a line is none.
    fn eof(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: &[u8]) -> Outcome {
        self.leave(ctx, app);
        Ok(())
    }

    /// Too long a line is not said; who wrote it may go on. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, App>, _: &mut App, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "* {TOO_LONG}");
        ctx.set_deadline(PATIENCE); // for the rest of the line, which is skipped, and may have no end
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, App>, _: &mut App) -> Outcome {
        ctx.send("* the room closes\n");
        ctx.close();
        Ok(())
    }

    /// However it ended: by `/quit`, by hanging up, or because it did not read and its output reached the cap.
    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: Reason) {
        app.left(&mut ctx.net, ctx.key);
    }
}

/// Begins a command of telnet (RFC 854).
const IAC: u8 = 255;

/// A line without the commands that telnet puts into it. We ask for nothing and agree to nothing.
fn without_telnet(line: &[u8]) -> Cow<'_, [u8]> {
    const SUBNEGOTIATION: u8 = 250;
    const SUBNEGOTIATION_ENDS: u8 = 240;
    let Some(first) = line.iter().position(|&byte| byte == IAC) else { return line.into() };
    let (mut out, mut rest) = (line[..first].to_vec(), &line[first..]);
    while let [byte, after @ ..] = rest {
        rest = match (*byte, after) {
            (IAC, [SUBNEGOTIATION, data @ ..]) => {
                let end = data.windows(2).position(|two| two == [IAC, SUBNEGOTIATION_ENDS]);
                end.map_or(&[], |end| &data[end + 2..])
            }
            (IAC, [251..=254, _, rest @ ..]) => rest, // will, won't, do, don't
            (IAC, [IAC, rest @ ..]) => {
                out.push(IAC);
                rest
            }
            (IAC, [_, rest @ ..]) => rest,
            (IAC, []) => after,
            (byte, rest) => {
                out.push(byte);
                rest
            }
        };
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::without_telnet;

    #[test]
    fn what_telnet_says_to_telnet_is_not_heard() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"hello", b"hello"),
            (b"\xff\xfd\x01\xff\xfb\x1fann", b"ann"),
            (b"a\xff\xfa\x1f\0\x50\0\x18\xff\xf0b", b"ab"),
            (b"a\xff\xff\xff\xf1b\xff", b"a\xffb"),
            (b"\xff\xfa\x18", b""),
            (b"\xff\xfd", b""),
        ];
        for (line, text) in cases {
            assert_eq!(&*without_telnet(line), text, "{}", line.escape_ascii());
        }
    }
}
