//! TLS: a byte pipe on a byte pipe. Nothing above the hub knows of it; in the hub a handshake is a stage of beginning, and
//! close_notify a part of ending.

mod config;
mod engine;
mod error;

use crate::{
    address::Address,
    adopted::Adopted,
    secured::Tls,
    world::{Moved, Stream, Transport},
};
pub(crate) use config::Side;
pub use config::{TlsClient, TlsServer, TlsSide};
pub(crate) use engine::begins_a_handshake;
use engine::{Engine, Plain, Records};
pub use error::{TlsError, TlsStage};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    rc::Rc,
};

/// Of a record (RFC 8446, 5.1).
const HEADER: usize = 5;

/// The most that a record can have: header, 2^14 bytes, and what a cipher may add (RFC 8446, 5.2).
const RECORD_MAX: usize = HEADER + (16 << 10) + 256;

/// What one read takes, and what a handshake may leave unfinished, in addition to a record: the largest message that rustls
/// takes.
const READ_MAX: usize = 64 << 10;

/// What has come, and was not consumed before.
const INPUT_MAX: usize = READ_MAX + RECORD_MAX;

/// What one read of a handshake takes: what is behind its end is decrypted too, and nobody has room for it yet.
const SHAKE_MAX: usize = 16 << 10;

/// This much is encrypted at a time, four records: nothing more before the last of them has left.
const WRITE_MAX: usize = 64 << 10;

/// Pieces that are shorter are joined: each would be a record, and a call of the cipher.
const JOIN_BELOW: usize = 16 << 10;

/// This many reads in a row may bring nothing for the program before the others have their turn.
const READS_IN_VAIN: usize = 16;

/// Room for what is being encrypted or decrypted: one for all connections of a reactor, so that an idle one has none.
#[derive(Default)]
pub(crate) struct Scratch(RefCell<Buffers>);

#[derive(Default)]
struct Buffers {
    /// What has come, encrypted; or small pieces that are joined.
    input: Vec<u8>,
    records: Records,
}

/// What waits, and how much of it has gone. Empty, it has no buffer.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    gone: usize,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    fn push(&mut self, more: &[u8]) {
        if !more.is_empty() {
            self.bytes.extend_from_slice(more);
        }
    }

    /// Like a read of a socket that has more.
    fn take(&mut self, into: &mut [u8]) -> Moved {
        let bytes = into.len().min(self.bytes().len());
        into[..bytes].copy_from_slice(&self.bytes()[..bytes]);
        self.advance(bytes);
        Moved { bytes, drained: false }
    }

    fn advance(&mut self, by: usize) {
        self.gone += by;
        if self.gone == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// Plaintext that is encrypted and has not left. It counts as sent in proportion to the ciphertext that has left, so that a
/// peer that takes a byte now and then is noticed, long before a record is through; and the last byte counts with the last.
#[derive(Clone, Copy, Default)]
struct Owed {
    bytes: usize,
    reported: usize,
}

/// What speaks TLS with the peer of another stream.
pub(crate) struct TlsStream {
    inner: Stream,
    engine: Engine,
    scratch: Rc<Scratch>,
    /// Received before this was put on its stream.
    already: Rest,
    /// A part of a record, or of a handshake message in several records, that is not complete.
    unfinished: Vec<u8>,
    /// Decrypted, and not read yet.
    left: Rest,
    /// Encrypted, and not taken by the kernel yet.
    out: Rest,
    owed: Owed,
    /// To be told to the next reader, behind what came before.
    failed: Option<io::Error>,
    /// Why `out` cannot leave. The peer may have said something before: this is told where that ends.
    lost: Option<io::Error>,
    /// Bytes received.
    heard: u64,
    has_said_goodbye: bool,
    /// The socket's side has ended, too.
    is_shut: bool,
    /// What still comes is dropped by whoever reads it: nobody decrypts it.
    is_deaf: bool,
    tolerates_cut: bool,
}

impl TlsStream {
    /// `already`: the first bytes that have come for it.
    pub(crate) fn server(inner: Stream, server: TlsServer, already: Vec<u8>, scratch: Rc<Scratch>) -> Self {
        let tolerates_cut = server.tolerates_cut;
        let already = Rest { bytes: already, gone: 0 };
        Self { already, ..Self::new(inner, Engine::server(server), tolerates_cut, scratch) }
    }

    pub(crate) fn client(
        inner: Stream,
        client: &TlsClient,
        name: ServerName<'static>,
        scratch: Rc<Scratch>,
    ) -> Result<Self, (Stream, TlsError)> {
        let mut out = Rest::default();
        let begun = Engine::client(&client.config, name).and_then(|mut engine| {
            let records = &mut scratch.0.borrow_mut().records;
            records.clear();
            let mut rest = Vec::new();
            engine.read(&mut [], &mut Plain::new(&mut [], &mut rest), records).1?; // it speaks first
            out.push(records.bytes());
            Ok(engine)
        });
        match begun {
            Ok(engine) => Ok(Self { out, ..Self::new(inner, engine, client.tolerates_cut, scratch) }),
            Err(error) => Err((inner, error)),
        }
    }

    fn new(inner: Stream, engine: Engine, tolerates_cut: bool, scratch: Rc<Scratch>) -> Self {
        Self {
            inner,
            engine,
            scratch,
            already: Rest::default(),
            unfinished: Vec::new(),
            left: Rest::default(),
            out: Rest::default(),
            owed: Owed::default(),
            failed: None,
            lost: None,
            heard: 0,
            has_said_goodbye: false,
            is_shut: false,
            is_deaf: false,
            tolerates_cut,
        }
    }

    /// For the door of the fuzzers.
    #[cfg(any(fuzzing, bench, test))]
    pub(crate) fn held(&self) -> [(usize, usize); 3] {
        [&self.unfinished, &self.left.bytes, &self.out.bytes].map(|held| (held.len(), held.capacity()))
    }

    /// Sends what the kernel did not take before. `Ok`: all of it has left.
    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let sent = send_some(&mut self.inner, self.out.bytes())?;
            self.out.advance(sent);
        }
        Ok(())
    }

    /// What rustls has to say by itself: at once if the kernel takes it, otherwise before what is sent next, which is soon
    /// enough for the answer to a KeyUpdate (RFC 8446, 4.6.3). `Err`: a signal came in between, or the selector has let go
    /// of it.
    fn flush_own(&mut self) -> io::Result<()> {
        if self.out.is_empty() || self.owed.bytes > 0 || self.lost.is_some() {
            return Ok(());
        }
        match self.flush() {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => return Err(error),
            Err(error) if error.kind() != ErrorKind::WouldBlock => self.lost = Some(error),
            _ => {}
        }
        Ok(())
    }

    /// Reads once, and decrypts; returns how much of that is in `into`, and whether the socket has no more. `Err`: an error
    /// of the socket; or the peer has ended it without a word.
    fn read_once(&mut self, into: &mut [u8], most: usize) -> io::Result<Moved> {
        let scratch = Rc::clone(&self.scratch);
        let Buffers { input, records } = &mut *scratch.0.borrow_mut();
        input.resize(INPUT_MAX, 0);
        let before = self.unfinished.len();
        input[..before].copy_from_slice(&self.unfinished);
        let wanted = most.max(missing(&self.unfinished)).min(input.len() - before);
        if wanted == 0 {
            return Err(TlsError::broken("a message of the handshake is too long").into_io());
        }
        let room = &mut input[before..before + wanted];
        let moved = if self.already.is_empty() { self.inner.recv(room)? } else { self.already.take(room) };
        if moved.bytes == 0 {
            if let Some(lost) = self.lost.take() {
                return Err(lost);
            }
            let error = if self.engine.is_handshaking() { TlsError::ended_amid_handshake() } else { TlsError::cut() };
            return Err(error.into_io());
        }
        self.heard += moved.bytes as u64;
        let all = before + moved.bytes;
        let mut plain = Plain::new(into, &mut self.left.bytes);
        records.clear();
        let (used, outcome) = self.engine.read(&mut input[..all], &mut plain, records);
        let filled = plain.filled;
        if !self.is_shut {
            self.out.push(records.bytes());
        }
        match outcome {
            Ok(()) if self.engine.has_peer_ended() => self.unfinished = Vec::new(), // nothing that follows counts
            Ok(()) if used == all => self.unfinished = Vec::new(),
            // Also what was there before: rustls decrypts and joins in place, so it is not the same any more.
            Ok(()) => {
                self.unfinished.clear();
                self.unfinished.extend_from_slice(&input[used..all]);
            }
            Err(error) => {
                self.unfinished = Vec::new();
                self.failed = Some(error.into_io());
            }
        }
        Ok(Moved { bytes: filled, drained: moved.drained })
    }

    /// What comes before the end, or the end itself.
    fn recv_next(&mut self, into: &mut [u8]) -> io::Result<Moved> {
        for _ in 0..READS_IN_VAIN {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.engine.has_peer_ended() {
                return Ok(Moved { bytes: 0, drained: true });
            }
            let most = into.len().min(READ_MAX);
            let moved = match self.read_once(into, most) {
                // But not within a record: the sender did not mean that as an end.
                Err(error) if self.tolerates_cut && self.unfinished.is_empty() && error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(Moved { bytes: 0, drained: true });
                }
                other => other?,
            };
            let _ = self.flush_own();
            if moved.bytes > 0 {
                let has_more = !self.left.is_empty() || self.failed.is_some() || self.engine.has_peer_ended();
                return Ok(Moved { drained: moved.drained && !has_more, ..moved });
            }
            // There is nothing for the program, and it would take that for the end: the socket is asked until it says that
            // it has no more, since an end that was reported already is not reported again.
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// For a stream that is not read any more; but rustls remembers places in it as long as it has something to say.
    fn forget_unfinished(&mut self) {
        if self.is_deaf && self.has_said_goodbye {
            self.unfinished = Vec::new();
        }
    }

    /// How much of what is owed has left since it was last asked.
    fn report(&mut self, most: usize) -> usize {
        let Owed { bytes, reported } = self.owed;
        let left = if self.out.is_empty() { bytes } else { in_proportion(bytes, self.out.gone, self.out.bytes.len()) };
        let news = left.saturating_sub(reported).min(most);
        self.owed = if reported + news == bytes { Owed::default() } else { Owed { bytes, reported: reported + news } };
        news
    }

    /// Encrypts this, no more than four records, and sends what the kernel takes; returns how much of it counts as sent.
    fn seal(&mut self, bytes: &[u8], records: &mut Records) -> io::Result<Moved> {
        if self.engine.is_over() {
            return Err(TlsError::broken("nothing can be sent any more").into_io());
        }
        let bytes = &bytes[..bytes.len().min(WRITE_MAX)];
        records.clear();
        if let Err(error) = self.engine.write(bytes, &mut self.unfinished, records) {
            self.out.push(records.bytes());
            let _ = self.flush_own();
            return Err(error.into_io());
        }
        let all = records.bytes();
        let mut gone = 0;
        let stuck = loop {
            if gone == all.len() {
                return Ok(Moved { bytes: bytes.len(), drained: false });
            }
            match send_some(&mut self.inner, &all[gone..]) {
                Ok(sent) => gone += sent,
                Err(error) if is_for_later(&error) => break error,
                Err(error) => return Err(error),
            }
        };
        let left = in_proportion(bytes.len(), gone, all.len());
        self.out.push(all);
        self.out.gone = gone;
        self.owed = Owed { bytes: bytes.len(), reported: left };
        match left {
            0 => Err(stuck),
            left => Ok(Moved { bytes: left, drained: stuck.kind() == ErrorKind::WouldBlock }),
        }
    }

    fn send_all(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Moved> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let stuck = match self.flush() {
            Ok(()) => None,
            Err(error) if is_for_later(&error) => Some(error),
            Err(error) => return Err(error),
        };
        match (self.report(offered), stuck) {
            (0, Some(stuck)) => return Err(stuck),
            (0, None) => {}
            (news, stuck) => {
                let drained = stuck.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
                return Ok(Moved { bytes: news, drained });
            }
        }
        let scratch = Rc::clone(&self.scratch);
        let Buffers { input, records } = &mut *scratch.0.borrow_mut();
        match slices {
            [] => Ok(Moved { bytes: 0, drained: false }),
            [one] => self.seal(one, records),
            [first, ..] if first.len() >= JOIN_BELOW => self.seal(first, records),
            _ => {
                input.resize(INPUT_MAX, 0);
                let mut filled = 0;
                for slice in slices {
                    let length = slice.len().min(WRITE_MAX - filled);
                    input[filled..filled + length].copy_from_slice(&slice[..length]);
                    filled += length;
                }
                self.seal(&input[..filled], records)
            }
        }
    }
}

/// Something, or `WouldBlock`; or `Interrupted`: then the caller asks again in the next turn, after the others.
fn send_some(inner: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    match inner.send(bytes)? {
        Moved { bytes: 0, .. } => Err(ErrorKind::WouldBlock.into()),
        moved => Ok(moved.bytes),
    }
}

/// What waits is tried again later.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// How many of `bytes` of plaintext have left when `gone` of `all` of their ciphertext have; never all of them before the
/// last.
fn in_proportion(bytes: usize, gone: usize, all: usize) -> usize {
    let left = bytes as u64 * gone as u64 / all.max(1) as u64;
    (left as usize).min(bytes.saturating_sub(1))
}

/// How much is missing up to the end of the record that has begun, or of its header.
fn missing(unfinished: &[u8]) -> usize {
    match unfinished {
        [_, _, _, high, low, body @ ..] => usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(body.len()).max(1),
        short => HEADER - short.len(),
    }
}

impl Transport for TlsStream {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        if self.is_deaf {
            return self.inner.recv(buf);
        }
        if self.left.is_empty() {
            return self.recv_next(buf);
        }
        Ok(self.left.take(buf))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        self.send_all(&[IoSlice::new(bytes)])
    }

    fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> {
        self.send_all(bytes)
    }

    /// A step of the handshake, as far as the socket has something to read, and room. A TLS error is a [`TlsError`] inside
    /// an error of the system.
    fn connected(&mut self) -> io::Result<bool> {
        for _ in 0..READS_IN_VAIN {
            self.flush_own()?;
            // What is wrong behind the last message is told to the reader: the handshake is done.
            if !self.engine.is_handshaking() {
                return Ok(self.out.is_empty() || self.lost.is_some()); // the peer may wait for what has not left
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            // Also while what it has to say is stuck, which is bounded: the peer may not read before it has said everything
            // itself.
            match self.read_once(&mut [], SHAKE_MAX) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.inner.take_error()
    }

    /// close_notify, and then the end of the socket's side. `WouldBlock`: not yet.
    fn shutdown_write(&mut self) -> io::Result<()> {
        if !self.has_said_goodbye {
            self.has_said_goodbye = true;
            if !self.engine.is_over() && !self.engine.is_handshaking() {
                let scratch = Rc::clone(&self.scratch);
                let records = &mut scratch.0.borrow_mut().records;
                records.clear();
                self.engine.close_notify(&mut self.unfinished, records);
                self.out.push(records.bytes());
            }
            self.forget_unfinished();
        }
        self.flush()?;
        self.is_shut = true;
        self.inner.shutdown_write()
    }

    /// Says nothing in TLS: the peer must not take what it got for the whole.
    fn abort(&mut self) {
        self.inner.abort();
    }

    fn local(&self) -> Option<Address> {
        self.inner.local()
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        self.inner.socket()
    }

    fn lingers(&self) -> bool {
        self.inner.lingers()
    }

    fn ends_in_words(&self) -> bool {
        true
    }

    fn is_amid_input(&self) -> bool {
        !(self.left.is_empty() && self.unfinished.is_empty())
    }

    fn stop_reading(&mut self) {
        self.is_deaf = true;
        (self.left, self.already) = (Rest::default(), Rest::default());
        self.forget_unfinished();
    }

    fn inner(&mut self) -> Option<&mut Stream> {
        Some(&mut self.inner)
    }

    fn tls(&self) -> Option<Tls<'_>> {
        self.engine.facts().filter(|_| !self.engine.is_handshaking())
    }

    fn heard(&self) -> u64 {
        self.heard
    }

    fn detach(self: Box<Self>) -> Result<Adopted, Stream> {
        Err(self.inner)
    }
}

#[cfg(test)]
mod tests;
