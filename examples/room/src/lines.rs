//! The room over lines of text: for nc, telnet, and `screen` of examples/guests, by TCP or a Unix socket.

use crate::{
    ASK, App, TOO_LONG,
    events::Form,
    history::in_order,
    room::{LINE_MAX, QUEUE_MAX},
};
use mainspring::{Config, Context, Limit, Listen, Outcome, Protocol, Reason, Terminator};
use std::{borrow::Cow, time::Duration};

/// How long a line may take, and how long a client may read nothing of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bounds of the room, for all clients together and for each.
pub fn config() -> Config {
    // A few lines of each client in a turn: output leaves at the end of a turn, and a client that pastes a book must not
    // fill the queues of the readers in a single turn.
    Config::new().turn_frames(4)
}

/// One address may have three quarters of all places: many people may share it, but it must not shut everybody else out.
pub fn per_peer_max(members_max: usize) -> usize {
    (members_max * 3 / 4).max(1)
}

pub fn bounds(members_max: usize) -> Listen {
    let options = Listen::new().output_limits(8 << 10, 32 << 10, QUEUE_MAX);
    let options = options.per_peer_max(per_peer_max(members_max), "* too many clients from your address, try again later\n");
    options.connections_max(members_max, "* the room is full, try again later\n")
}

/// Each typed line comes from a member, or is the name of a new one.
#[derive(Default)]
pub struct Lines {
    /// It will say nothing more. It is disconnected once it has heard the result of what it said.
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
        // No idle time-out, because a client may listen all day: TCP's keep-alive notices one that has vanished. Unix
        // sockets have no keep-alive and need none: the system tells them when the peer goes.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        writeln!(ctx, "{ASK}");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, App>, app: &mut App, line: &[u8]) -> Outcome {
        if self.leaves {
            return Ok(());
        }
        ctx.set_deadline(None); // a line that was too long has ended
        let line = without_telnet(line);
        if !app.typed(&mut ctx.net, ctx.key, Form::Line, None, &String::from_utf8_lossy(&line)) {
            self.leave(ctx, app);
        }
        Ok(())
    }

    /// The same as `/quit`: `printf 'ann\nhello\n' | nc -N …` hears its own line. Half a line is ignored.
    fn eof(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: &[u8]) -> Outcome {
        self.leave(ctx, app);
        Ok(())
    }

    /// A line that is too long is dropped, and its writer may go on. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, App>, _: &mut App, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "* {TOO_LONG}");
        ctx.set_deadline(PATIENCE); // for the rest of the line: it is skipped, and may never end
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, App>, _: &mut App) -> Outcome {
        ctx.send("* the room closes\n");
        ctx.close();
        Ok(())
    }

    /// However it ended: by `/quit`, by hanging up, or because the client did not read and its output reached the cap.
    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: Reason) {
        app.left(&mut ctx.net, ctx.key);
    }
}

/// The first byte of a telnet command (RFC 854).
const IAC: u8 = 255;

/// A line without the commands that telnet puts into it. We ask for no options and agree to none.
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
