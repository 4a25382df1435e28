//! WebSocket (RFC 6455), the server's side.

use crate::deflate::{self, Agreed, Broken};
use base64::{Engine, prelude::BASE64_STANDARD};
use mainspring::{Context, Fault, Limit, Outcome, Protocol, Reason, Step, Terminator};
use sha1::{Digest, Sha1};
use std::{str, time::Duration};

/// The bounds of a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The longest message, compressed or not; a longer one ends the WebSocket with 1009. 4 GiB at most.
    pub message_max: usize,
    /// The most that may be queued for a client that does not read.
    pub queue_max: usize,
    /// A client that is silent for this long is pinged; if it is silent for as long again, it is gone.
    pub idle: Duration,
    /// A client that reads nothing of what is queued for this long is disconnected.
    pub stall: Duration,
}

impl Options {
    pub const DEFAULT: Self =
        Self { message_max: 64 << 10, queue_max: 256 << 10, idle: Duration::from_secs(20), stall: Duration::from_secs(30) };
}

/// The payload of a control frame.
const CONTROL_MAX: u64 = 125;

/// The most that `cut` sees at once.
const INPUT_MAX: usize = 64_000;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The message is compressed (RFC 7692, 6): in its first frame only.
const RSV1: u8 = 0x40;

/// Codes of close frames (7.4.1).
pub const NORMAL: u16 = 1000;
pub const GOING_AWAY: u16 = 1001;
pub const UNSUPPORTED: u16 = 1003;
const PROTOCOL_ERROR: u16 = 1002;
const NO_TEXT: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Shorter messages are not compressed: they would hardly be shorter.
const COMPRESS_MIN: usize = 64;

/// The answer to a client's `Sec-WebSocket-Key`; `None` if that is not a valid key.
pub fn accept(key: &str) -> Option<String> {
    BASE64_STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 16)?;
    Some(BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))))
}

/// A whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

/// A text as a frame to send, compressed if that was agreed on and is worth it.
pub fn text(agreed: Option<Agreed>, text: &str) -> Vec<u8> {
    framed(agreed, Message::Text(text))
}

/// A message as a frame to send, compressed if that was agreed on and is worth it. You can send it to all clients with the same
/// agreement.
pub fn framed(agreed: Option<Agreed>, message: Message<'_>) -> Vec<u8> {
    let (opcode, payload) = match message {
        Message::Text(text) => (TEXT, text.as_bytes()),
        Message::Binary(bytes) => (BINARY, bytes),
    };
    match agreed {
        Some(agreed) if payload.len() >= COMPRESS_MIN => frame(RSV1 | opcode, &deflate::compressed(payload, agreed)),
        _ => frame(opcode, payload),
    }
}

/// Ends a WebSocket with this code, after what is queued.
pub fn close<S>(ctx: &mut Context<'_, S>, code: u16) {
    ctx.send(frame(CLOSE, &code.to_be_bytes()));
    ctx.close();
}

/// A frame of ours: not masked, final.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
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

/// Your side of a WebSocket. [`Answer::web_socket`](crate::Answer::web_socket) opens it.
pub trait Talk<S>: 'static {
    /// The options. It is called whenever they are needed, so that nobody has to store them; return the same ones always.
    fn options(&self) -> Options {
        Options::DEFAULT
    }

    /// The WebSocket is open: you can send from now on, by its key too. `agreed` says how messages may be compressed.
    fn open(&mut self, _: &mut Context<'_, S>, _: &mut S, _agreed: Option<Agreed>) {}

    fn message(&mut self, ctx: &mut Context<'_, S>, state: &mut S, message: Message<'_>);

    /// The server shuts down; the close frame follows.
    fn draining(&mut self, _: &mut Context<'_, S>, _: &mut S) {}

    /// Called once, last, whatever the reason; without an `open` before if it ended too early.
    fn closed(&mut self, _: &mut Context<'_, S>, _: &mut S, _: Reason) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// What can be wrong with a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nonsense,
    TooBig,
}

/// A connection that has become a WebSocket. There may be very many, most of them silent, so it is small.
pub struct Ws<T> {
    talk: T,
    /// Messages may be compressed.
    agreed: Option<Agreed>,
    /// The message that is coming, whether it is compressed, and how many bytes at its end may be the beginning of a character.
    kind: Option<Kind>,
    is_compressed: bool,
    message: Vec<u8>,
    unchecked: u8,
    /// The first byte of the frame that is coming, and how much of its payload has not come yet.
    first: u8,
    mask: [u8; 4],
    left: u32,
    /// Why the connection ends here.
    wrong: Option<Wrong>,
    is_pinged: bool,
}

impl<T> Ws<T> {
    pub(crate) fn new(talk: T, agreed: Option<Agreed>) -> Self {
        Self {
            talk,
            agreed,
            kind: None,
            is_compressed: false,
            message: Vec::new(),
            unchecked: 0,
            first: 0,
            mask: [0; 4],
            left: 0,
            wrong: None,
            is_pinged: false,
        }
    }

    fn is_final(&self) -> bool {
        self.first & 0x80 != 0
    }

    fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    fn is_control(&self) -> bool {
        self.first & 8 != 0
    }

    /// Reads the header of a frame; returns its length. What is wrong with it is kept in `wrong`.
    fn header(&mut self, input: &[u8], message_max: usize) -> Result<usize, Step> {
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
        self.first = first;
        let is_control = self.is_control();
        let kind = match (self.opcode(), self.kind) {
            (TEXT, None) => Some(Kind::Text),
            (BINARY, None) => Some(Kind::Binary),
            (0, kind) => kind,
            _ => None,
        };
        let begins = kind.is_some() && self.kind.is_none();
        let is_compressed = first & RSV1 != 0;
        let is_minimal = extended == 0 || length > if extended == 2 { 125 } else { 0xffff };
        let is_wrong = !is_masked
            || !is_minimal
            || first & 0x70 & !RSV1 != 0
            || is_compressed && !(begins && self.agreed.is_some())
            || length >> 63 != 0;
        let most = u64::from(u32::MAX).min(message_max as u64);
        self.wrong = match is_control {
            _ if is_wrong => Some(Wrong::Nonsense),
            true if !self.is_final() || length > CONTROL_MAX => Some(Wrong::Nonsense),
            true if (payload.len() as u64) < length => return Err(Step::Need(end + length as usize)),
            false if kind.is_none() => Some(Wrong::Nonsense),
            false if length.saturating_add(self.message.len() as u64) > most => Some(Wrong::TooBig),
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
        self.left = u32::try_from(length).unwrap_or(u32::MAX); // longer ones are wrong, and end here
        Ok(end)
    }

    fn control<S>(&mut self, ctx: &mut Context<'_, S>, payload: &[u8]) {
        match (self.opcode(), payload) {
            (PING, _) => ctx.send(frame(PONG, payload)),
            (PONG, _) => {}
            (CLOSE, []) => {
                ctx.send(frame(CLOSE, &[]));
                ctx.close();
            }
            (CLOSE, [a, b, why @ ..]) => {
                let code = u16::from_be_bytes([*a, *b]);
                let is_fine = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                let is_text = str::from_utf8(why).is_ok();
                close(
                    ctx,
                    if !is_fine {
                        PROTOCOL_ERROR
                    } else if is_text {
                        code
                    } else {
                        NO_TEXT
                    },
                );
            }
            _ => close(ctx, PROTOCOL_ERROR),
        }
    }

    /// The whole message is here.
    fn message_came<S>(&mut self, ctx: &mut Context<'_, S>, state: &mut S, kind: Kind, message: &[u8])
    where
        T: Talk<S>,
    {
        self.kind = None;
        let whole;
        let message = match self.is_compressed.then(|| deflate::decompressed(message, self.talk.options().message_max)) {
            None => message,
            Some(Ok(message)) => {
                whole = message;
                &whole
            }
            Some(Err(Broken::Nonsense)) => return close(ctx, NO_TEXT),
            Some(Err(Broken::TooLarge)) => return close(ctx, TOO_BIG),
        };
        match (kind, str::from_utf8(message)) {
            (Kind::Binary, _) => self.talk.message(ctx, state, Message::Binary(message)),
            (Kind::Text, Ok(text)) => self.talk.message(ctx, state, Message::Text(text)),
            (Kind::Text, Err(_)) => close(ctx, NO_TEXT),
        }
    }

    /// Keeps a part of the message that is coming. Returns false if it says that it is text, but is not UTF-8.
    fn keep(&mut self, part: &[u8], is_last: bool) -> bool {
        let from = self.message.len() - usize::from(self.unchecked);
        self.message.extend(part);
        if self.kind != Some(Kind::Text) || self.is_compressed {
            return true;
        }
        let begun = match str::from_utf8(&self.message[from..]) {
            Ok(_) => 0,
            Err(error) if error.error_len().is_some() || is_last => return false,
            Err(error) => self.message.len() - from - error.valid_up_to(),
        };
        self.unchecked = begun as u8; // three at most
        true
    }
}

impl<S: 'static, T: Talk<S>> Protocol<S> for Ws<T> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::own(INPUT_MAX));
        let Options { queue_max, idle, stall, .. } = self.talk.options();
        ctx.set_idle_timeout(idle);
        ctx.set_stall_timeout(stall);
        let high = (queue_max / 4).max(1);
        ctx.set_output_limits(high / 4, high, queue_max);
        self.talk.open(ctx, state, self.agreed);
        if ctx.net.is_draining() {
            self.draining(ctx, state)?; // only the protocol before us has been told so far
        }
        Ok(())
    }

    /// A frame's payload, unmasked: of a control frame as a whole, of others in pieces as they come.
    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let mut begin = 0;
        if self.left == 0 {
            match self.header(input, self.talk.options().message_max) {
                Ok(end) => begin = end,
                Err(step) => return Ok(step),
            }
        }
        let n = (self.left as usize).min(input.len() - begin);
        let bytes = begin..begin + n;
        unmask(&mut input[bytes.clone()], self.mask);
        self.mask.rotate_left(n % 4);
        self.left -= n as u32;
        let consumed = bytes.end;
        let is_whole = self.left == 0 || self.wrong.is_some();
        Ok(if is_whole { Step::Frame { bytes, consumed } } else { Step::Piece { bytes, consumed } })
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, part: &[u8]) -> Outcome {
        self.is_pinged = false;
        if !self.keep(part, false) {
            close(ctx, NO_TEXT);
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, part: &[u8]) -> Outcome {
        self.is_pinged = false;
        match (self.wrong, self.kind) {
            (Some(Wrong::Nonsense), _) => close(ctx, PROTOCOL_ERROR),
            (Some(Wrong::TooBig), _) => close(ctx, TOO_BIG),
            _ if self.is_control() => self.control(ctx, part),
            // A message that came in one piece is not copied.
            (None, Some(kind)) if self.is_final() && self.message.is_empty() => self.message_came(ctx, state, kind, part),
            (None, _) if !self.keep(part, self.is_final()) => close(ctx, NO_TEXT),
            (None, Some(kind)) if self.is_final() => {
                let message = std::mem::take(&mut self.message);
                self.message_came(ctx, state, kind, &message);
            }
            _ => {}
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, _: &mut S, limit: Limit) -> Outcome {
        if limit != Limit::Idle || self.is_pinged {
            return Err(limit.into());
        }
        self.is_pinged = true;
        ctx.send(frame(PING, b"?"));
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.talk.draining(ctx, state);
        close(ctx, GOING_AWAY);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        self.talk.closed(ctx, state, why);
    }
}

/// Sends back what it gets, for the tests of clients.
#[derive(Default)]
pub struct Echo {
    agreed: Option<Agreed>,
}

impl<S: 'static> Talk<S> for Echo {
    fn options(&self) -> Options {
        Options { message_max: 16 << 20, queue_max: 33 << 20, ..Options::DEFAULT }
    }

    fn open(&mut self, _: &mut Context<'_, S>, _: &mut S, agreed: Option<Agreed>) {
        self.agreed = agreed;
    }

    fn message(&mut self, ctx: &mut Context<'_, S>, _: &mut S, message: Message<'_>) {
        ctx.send(framed(self.agreed, message));
    }
}
