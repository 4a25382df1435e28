//! WebSocket (RFC 6455), the server's side.

use crate::{
    App, Ctx,
    deflate::{Agreed, Broken, Deflate},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use mainspring::{Fault, Limit, Outcome, Protocol, Reason, Step, Terminator};
use sha1::{Digest, Sha1};
use std::{collections::BTreeMap, rc::Rc, str, time::Duration};

pub const MESSAGE_MAX: usize = 16 << 20;
const PING_AFTER: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_secs(30);

/// The payload of a control frame.
const CONTROL_MAX: u64 = 125;

/// What `cut` is shown at once.
const INPUT_MAX: usize = 64_000;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The message is compressed (RFC 7692, 6): in its first frame only.
const RSV1: u8 = 0x40;

/// Shorter messages are not compressed: they would hardly be shorter.
const COMPRESS_MIN: usize = 64;

/// What follows from a client's `Sec-WebSocket-Key`; `None` if that is none.
pub fn accept(key: &str) -> Option<String> {
    BASE64_STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 16)?;
    Some(BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))))
}

/// A whole message, compressed if that was agreed on and is worth it.
pub fn message(kind: Kind, payload: &[u8], agreed: Option<Agreed>, deflate: &mut Deflate) -> Vec<u8> {
    let opcode = if kind == Kind::Text { TEXT } else { BINARY };
    match agreed {
        Some(agreed) if payload.len() >= COMPRESS_MIN => frame(RSV1 | opcode, &deflate.compressed(payload, agreed)),
        _ => frame(opcode, payload),
    }
}

/// A frame of ours: not masked, final.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=0xffff => {
            out.push(126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().expect("eight bytes"));
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let unmasked = u64::from_ne_bytes((&*chunk).try_into().expect("eight bytes")) ^ wide;
        chunk.copy_from_slice(&unmasked.to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What is spoken on a WebSocket.
pub trait Talk: 'static {
    /// The most that may be queued for somebody who does not read.
    const QUEUE_MAX: usize = 1 << 20;
    /// `agreed` says how what is sent to it may be compressed.
    fn open(&mut self, _: &mut Ctx<'_>, _: &mut App, _agreed: Option<Agreed>) {}
    fn message(&mut self, ctx: &mut Ctx<'_>, app: &mut App, kind: Kind, message: &[u8], agreed: Option<Agreed>);
    fn left(&mut self, _: &mut Ctx<'_>, _: &mut App) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

pub struct Ws<T> {
    talk: T,
    /// Messages may be compressed.
    agreed: Option<Agreed>,
    /// The message that is coming, whether it is compressed, and how much of it is known to be UTF-8.
    kind: Option<Kind>,
    is_compressed: bool,
    message: Vec<u8>,
    checked: usize,
    /// Of the frame that is coming, and how much of its payload has not come.
    is_final: bool,
    opcode: u8,
    mask: [u8; 4],
    left: u64,
    /// Why it ends here.
    fault: Option<u16>,
    is_pinged: bool,
}

impl<T: Talk> Ws<T> {
    pub fn new(talk: T, agreed: Option<Agreed>) -> Self {
        Self {
            talk,
            agreed,
            kind: None,
            is_compressed: false,
            message: Vec::new(),
            checked: 0,
            is_final: false,
            opcode: 0,
            mask: [0; 4],
            left: 0,
            fault: None,
            is_pinged: false,
        }
    }

    /// Reads the header of a frame; how long it is. What is wrong with it stays in `fault`.
    fn header(&mut self, input: &[u8]) -> Result<usize, Step> {
        let &[first, second, ..] = input else { return Err(Step::Need(2)) };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let is_masked = second & 0x80 != 0;
        let end = 2 + extended + if is_masked { 4 } else { 0 };
        let Some((header, payload)) = input.split_at_checked(end) else { return Err(Step::Need(end)) };
        let length = match extended {
            0 => u64::from(second & 0x7f),
            n => header[2..2 + n].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        (self.is_final, self.opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = self.opcode & 8 != 0;
        let kind = match (self.opcode, self.kind) {
            (TEXT, None) => Some(Kind::Text),
            (BINARY, None) => Some(Kind::Binary),
            (0, kind) => kind,
            _ => None,
        };
        let begins = kind.is_some() && self.kind.is_none();
        let is_compressed = first & RSV1 != 0;
        let is_wrong =
            !is_masked || first & 0x70 & !RSV1 != 0 || is_compressed && !(begins && self.agreed.is_some()) || length >> 63 != 0;
        self.fault = match is_control {
            _ if is_wrong => Some(1002),
            true if !self.is_final || length > CONTROL_MAX => Some(1002),
            true if (payload.len() as u64) < length => return Err(Step::Need(end + length as usize)),
            false if kind.is_none() => Some(1002),
            false if length.saturating_add(self.message.len() as u64) > MESSAGE_MAX as u64 => Some(1009),
            _ => None,
        };
        if begins {
            self.is_compressed = is_compressed;
        }
        if !is_control {
            self.kind = kind;
        }
        if is_masked {
            self.mask.copy_from_slice(&header[end - 4..]);
        }
        self.left = length;
        Ok(end)
    }

    fn end(&mut self, ctx: &mut Ctx<'_>, code: u16) -> Outcome {
        ctx.send(frame(CLOSE, &code.to_be_bytes()));
        ctx.close();
        Ok(())
    }

    fn control(&mut self, ctx: &mut Ctx<'_>, payload: &[u8]) -> Outcome {
        match (self.opcode, payload) {
            (PING, _) => ctx.send(frame(PONG, payload)),
            (PONG, _) => {}
            (CLOSE, []) => {
                ctx.send(frame(CLOSE, &[]));
                ctx.close();
            }
            (CLOSE, [a, b, why @ ..]) => {
                let code = u16::from_be_bytes([*a, *b]);
                let is_fine = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                return self.end(
                    ctx,
                    if !is_fine {
                        1002
                    } else if str::from_utf8(why).is_err() {
                        1007
                    } else {
                        code
                    },
                );
            }
            _ => return self.end(ctx, 1002),
        }
        Ok(())
    }

    /// All of it is here. What is not compressed is known to be what it says that it is.
    fn message_came(&mut self, ctx: &mut Ctx<'_>, app: &mut App, kind: Kind, message: &[u8]) -> Outcome {
        self.kind = None;
        if !self.is_compressed {
            self.talk.message(ctx, app, kind, message, self.agreed);
            return Ok(());
        }
        match app.deflate.decompressed(message, MESSAGE_MAX) {
            Ok(message) if kind == Kind::Text && str::from_utf8(&message).is_err() => return self.end(ctx, 1007),
            Ok(message) => self.talk.message(ctx, app, kind, &message, self.agreed),
            Err(Broken::Nonsense) => return self.end(ctx, 1007),
            Err(Broken::TooLarge) => return self.end(ctx, 1009),
        }
        Ok(())
    }

    /// Keeps a part of the message that is coming. Whether it can be what it says that it is.
    fn keep(&mut self, part: &[u8], is_last: bool) -> bool {
        self.message.extend(part);
        if self.kind != Some(Kind::Text) || self.is_compressed {
            return true;
        }
        match str::from_utf8(&self.message[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_some() || is_last => return false,
            Err(error) => self.checked += error.valid_up_to(),
        }
        true
    }
}

impl<T: Talk> Protocol<App> for Ws<T> {
    fn connected(&mut self, ctx: &mut Ctx<'_>, app: &mut App) -> Outcome {
        ctx.set_terminator(Terminator::own(INPUT_MAX));
        ctx.set_idle_timeout(PING_AFTER);
        ctx.set_stall_timeout(STALL);
        ctx.set_output_limits(16 << 10, 64 << 10, T::QUEUE_MAX);
        self.talk.open(ctx, app, self.agreed);
        Ok(())
    }

    /// A frame's payload, unmasked: that of a control frame whole, that of others in pieces if it is not there yet.
    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let mut begin = 0;
        if self.left == 0 {
            match self.header(input) {
                Ok(end) => begin = end,
                Err(step) => return Ok(step),
            }
        }
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - begin);
        let bytes = begin..begin + n;
        unmask(&mut input[bytes.clone()], self.mask);
        self.mask.rotate_left(n % 4);
        self.left -= n as u64;
        let consumed = bytes.end;
        let is_whole = self.left == 0 || self.fault.is_some();
        Ok(if is_whole { Step::Frame { bytes, consumed } } else { Step::Piece { bytes, consumed } })
    }

    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut App, part: &[u8]) -> Outcome {
        self.is_pinged = false;
        if self.keep(part, false) { Ok(()) } else { self.end(ctx, 1007) }
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, app: &mut App, part: &[u8]) -> Outcome {
        self.is_pinged = false;
        match (self.fault, self.kind) {
            (Some(code), _) => return self.end(ctx, code),
            _ if self.opcode & 8 != 0 => return self.control(ctx, part),
            // A message that came in one piece is not copied.
            (None, Some(kind)) if self.is_final && self.message.is_empty() => {
                let is_text = kind == Kind::Text && !self.is_compressed;
                if is_text && str::from_utf8(part).is_err() {
                    return self.end(ctx, 1007);
                }
                return self.message_came(ctx, app, kind, part);
            }
            (None, _) if !self.keep(part, self.is_final) => return self.end(ctx, 1007),
            (None, Some(kind)) if self.is_final => {
                let message = std::mem::take(&mut self.message);
                self.checked = 0;
                return self.message_came(ctx, app, kind, &message);
            }
            _ => {}
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, _: &mut App, limit: Limit) -> Outcome {
        if limit != Limit::Idle || self.is_pinged {
            return Err(limit.into());
        }
        self.is_pinged = true;
        ctx.send(frame(PING, b"?"));
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, _: &mut App) -> Outcome {
        self.end(ctx, 1001)
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, app: &mut App, _: Reason) {
        self.talk.left(ctx, app);
    }
}

pub struct Echo;

impl Talk for Echo {
    const QUEUE_MAX: usize = 2 * MESSAGE_MAX;

    fn message(&mut self, ctx: &mut Ctx<'_>, app: &mut App, kind: Kind, message: &[u8], agreed: Option<Agreed>) {
        ctx.send(self::message(kind, message, agreed, &mut app.deflate));
    }
}

pub struct Member;

impl Talk for Member {
    fn open(&mut self, ctx: &mut Ctx<'_>, app: &mut App, agreed: Option<Agreed>) {
        app.room.insert(ctx.key, agreed);
    }

    /// Compressed once for all who have agreed on the same.
    fn message(&mut self, ctx: &mut Ctx<'_>, app: &mut App, kind: Kind, message: &[u8], _: Option<Agreed>) {
        if kind != Kind::Text {
            return;
        }
        let mut said: BTreeMap<Option<Agreed>, Rc<[u8]>> = BTreeMap::new();
        for (&member, &agreed) in &app.room {
            let said = said.entry(agreed).or_insert_with(|| self::message(kind, message, agreed, &mut app.deflate).into());
            ctx.net.send_shared(member, said);
        }
    }

    fn left(&mut self, ctx: &mut Ctx<'_>, app: &mut App) {
        app.room.remove(&ctx.key);
    }
}
