//! TLS over a wire of which the fuzzer is master: two ends of ours; or one, and one of rustls' own buffered ones, which may go on as
//! somebody who has the keys and keeps to nothing.
//!
//! What must hold: what is received is what was sent, in order, once; the end is told only if it was said, and behind all that
//! was sent; no more counts as sent than was offered, and all of it where the wire is fair; no panic, also none that is caught; and
//! the bounds of what an end holds, which is nothing while it is idle.

use super::{
    Tape,
    tls_sides::{self, Sides},
};
use mainspring::{
    TlsClient, TlsError, TlsServer, TlsStage,
    inside::{self, Pipe, TlsEnd, TlsRoom},
    rustls::{
        ClientConnection, Connection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConnection,
        SupportedCipherSuite,
        crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
        pki_types::ServerName,
    },
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

/// Of one run, each way.
const BYTES_MAX: usize = 400 << 10;

const STEPS_MAX: usize = 150;

/// So often rustls lets its peer change its keys with nothing said between.
const KEYS_MAX: usize = 32;

/// What a record may have (RFC 8446, 5.2), with its header.
const RECORD_MAX: usize = 5 + (16 << 10) + 256;

/// One direction.
#[derive(Default)]
struct Way {
    /// Has left its writer, and is under way.
    written: VecDeque<u8>,
    has_writer_ended: bool,
    /// Can be read.
    arrived: VecDeque<u8>,
    has_end_arrived: bool,
    /// So much its writer may write.
    room: usize,
    /// So much a call moves.
    most: usize,
    /// So many calls are interrupted first.
    interrupts: usize,
    /// A read says whether there is more.
    says_drained: bool,
}

impl Way {
    fn interrupted(&mut self) -> io::Result<()> {
        match self.interrupts {
            0 => Ok(()),
            _ => {
                self.interrupts -= 1;
                Err(ErrorKind::Interrupted.into())
            }
        }
    }

    fn pass(&mut self, most: usize) {
        let most = most.min(self.written.len());
        self.arrived.extend(self.written.drain(..most));
        self.has_end_arrived |= self.has_writer_ended && self.written.is_empty();
    }
}

type Shared = Rc<RefCell<Way>>;

struct Plug {
    out: Shared,
    into: Shared,
}

impl Pipe for Plug {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> {
        let way = &mut *self.into.borrow_mut();
        way.interrupted()?;
        assert!(!buf.is_empty(), "an empty read would be taken for the end");
        if way.arrived.is_empty() {
            return if way.has_end_arrived { Ok((0, true)) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let bytes = buf.len().min(way.arrived.len()).min(way.most.max(1));
        for (to, from) in buf.iter_mut().zip(way.arrived.drain(..bytes)) {
            *to = from;
        }
        Ok((bytes, way.says_drained && way.arrived.is_empty() && !way.has_end_arrived))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let way = &mut *self.out.borrow_mut();
        way.interrupted()?;
        if way.has_writer_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(way.room).min(way.most.max(1));
        if taken == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        way.room -= taken;
        way.written.extend(&bytes[..taken]);
        Ok((taken, way.says_drained && taken < bytes.len()))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.out.borrow_mut().has_writer_ended = true;
        Ok(())
    }
}

/// What stands at this place of what a side says.
fn letter(side: usize, at: usize) -> u8 {
    (at.wrapping_mul(at + 7 * side + 3) >> 5) as u8 ^ at as u8
}

fn text(side: usize, from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|at| letter(side, at)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Shaking,
    Open,
    /// It is told nothing more.
    Over,
}

/// An end of ours, and what is known of it.
struct Ours {
    side: usize,
    end: Option<TlsEnd>,
    phase: Phase,
    out: Shared,
    /// Counts as sent.
    sent: usize,
    /// What has been offered at most: so much its peer may have.
    offered: usize,
    received: usize,
    has_asked_for_goodbye: bool,
    has_said_goodbye: bool,
    has_got_end: bool,
    is_deaf: bool,
    tolerates_cut: bool,
    out_max: usize,
    error: Option<String>,
}

impl Ours {
    fn new(side: usize, sides: &Sides, tolerates_cut: bool, out: &Shared, into: &Shared, room: &TlsRoom) -> Self {
        let plug = Plug { out: Rc::clone(out), into: Rc::clone(into) };
        let end = match side {
            0 => {
                let client = TlsClient::new(sides.client.clone());
                let client = if tolerates_cut { client.tolerate_cut() } else { client };
                TlsEnd::client(plug, &client, name(), room).expect("it begins")
            }
            _ => {
                let server = TlsServer::new(sides.server.clone());
                let server = if tolerates_cut { server.tolerate_cut() } else { server };
                TlsEnd::server(plug, server, Vec::new(), room)
            }
        };
        let records = (64 << 10) / sides.fragment_max + 1;
        Self {
            side,
            end: Some(end),
            phase: Phase::Shaking,
            out: Rc::clone(out),
            sent: 0,
            offered: 0,
            received: 0,
            has_asked_for_goodbye: false,
            has_said_goodbye: false,
            has_got_end: false,
            is_deaf: false,
            tolerates_cut,
            out_max: (64 << 10) + records * 32 + (16 << 10),
            error: None,
        }
    }

    fn end(&mut self) -> &mut TlsEnd {
        self.end.as_mut().expect("it is not over")
    }

    /// It is dropped, which says nothing to its peer but that the socket has ended.
    fn is_over(&mut self) {
        self.phase = Phase::Over;
        self.end = None;
        self.out.borrow_mut().has_writer_ended = true;
    }

    fn fails(&mut self, error: &io::Error) {
        // Where its assertions are on, rustls has one for alerts that it does not keep itself: what comes behind our goodbye is
        // answered by a fatal one.
        if !(self.has_asked_for_goodbye && error.to_string().ends_with("assertion failed: !self.sent_fatal_alert")) {
            look_at(error);
        }
        self.error = Some(error.to_string());
        self.is_over();
    }

    /// Whether it waits for something.
    fn shake(&mut self) -> bool {
        match self.end().connected() {
            Ok(true) => {
                assert!(self.end().tls().is_some(), "agreed, on nothing");
                self.phase = Phase::Open;
                false
            }
            Ok(false) => true,
            Err(error) if error.kind() == ErrorKind::Interrupted => false,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "that is no error of a handshake");
                self.fails(&error);
                false
            }
        }
    }

    /// Offers so much from where it stands, in pieces of at most `piece` if that is not 0.
    fn send(&mut self, bytes: usize, piece: usize) {
        let bytes = bytes.min(BYTES_MAX - self.sent);
        let offer = text(self.side, self.sent, bytes);
        self.offered = self.offered.max(self.sent + bytes);
        let moved = match piece {
            0 => self.end().send(&offer),
            piece => {
                let slices: Vec<IoSlice<'_>> = offer.chunks(piece).take(64).map(IoSlice::new).collect();
                self.end().send_vectored(&slices)
            }
        };
        match moved {
            Ok(moved) => {
                assert!(moved <= bytes, "{moved} of {bytes} were sent");
                self.sent += moved;
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) => {
                self.fails(&error);
            }
        }
    }

    /// Whether there was nothing. What `peer` says is what its other side may have sent, has sent, and whether it has said goodbye.
    fn recv(&mut self, bytes: usize, peer: Said) -> bool {
        let mut buf = vec![0; bytes.clamp(1, 64 << 10)];
        match self.end().recv(&mut buf) {
            Ok((0, _)) if self.is_deaf => self.has_got_end = true,
            Ok((0, _)) => {
                self.has_got_end = true;
                let is_whole = peer.goodbye && self.received == peer.sent;
                assert!(self.tolerates_cut || is_whole, "the end behind {} of {peer:?}", self.received);
            }
            Ok(_) if self.is_deaf => {} // nobody looks at it
            Ok((moved, _)) => {
                assert!(self.received + moved <= peer.offered, "{} and {moved} more of {peer:?}", self.received);
                let expected = text(1 - self.side, self.received, moved);
                assert!(buf[..moved] == expected, "at {}, {moved} bytes: something else", self.received);
                self.received += moved;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                self.fails(&error);
            }
        }
        false
    }

    /// As a connection that has sent all that it was to send.
    fn say_goodbye(&mut self) {
        self.has_asked_for_goodbye = true;
        if self.sent < self.offered {
            return;
        }
        match self.end().shutdown_write() {
            Ok(()) => self.has_said_goodbye = true,
            Err(error) => {
                assert!([ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::BrokenPipe].contains(&error.kind()), "{error}")
            }
        }
    }

    fn said(&self) -> Said {
        Said { offered: self.offered, sent: self.sent, goodbye: self.has_asked_for_goodbye && self.sent == self.offered }
    }

    fn check(&self) {
        let Some(end) = &self.end else { return };
        let held = end.held();
        let [unfinished, left, out] = held;
        assert!(unfinished.0 <= (64 << 10) + RECORD_MAX, "unfinished: {held:?}");
        assert!(left.0 <= 32 << 10, "left over: {held:?}");
        assert!(out.0 <= self.out_max, "to be sent: {held:?}");
        assert!(held.iter().all(|(bytes, room)| *bytes > 0 || *room == 0), "room for nothing: {held:?}");
    }
}

/// What is known of who speaks to an end of ours.
#[derive(Clone, Copy, Debug)]
struct Said {
    offered: usize,
    sent: usize,
    goodbye: bool,
}

fn look_at(error: &io::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_control() || inside::is_odd(c)), "not one line: {text:?}");
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        assert_ne!(tls.stage, TlsStage::Panicked, "{text}");
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}

/// Two ends of ours, or one and one of rustls.
pub fn tls_wire(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.below(4) {
        0 | 1 => two_ends(&mut tape),
        2 => against_rustls(&mut tape, false),
        _ => against_rustls(&mut tape, true),
    }
}

/// A size: mostly a small one, or one that fills records or the room for them.
fn size(tape: &mut Tape<'_>) -> usize {
    match tape.below(8) {
        0..4 => 1 + tape.below(256),
        4 | 5 => tape.below(256) << 4,
        6 => tape.below(256) << 9,
        _ => (16 << 10) * (1 + tape.below(4)) - 2 + tape.below(5),
    }
}

struct Wire {
    ways: [Shared; 2],
    /// Nothing was forged.
    is_fair: bool,
}

impl Wire {
    fn new(tape: &mut Tape<'_>) -> Self {
        let says_drained = tape.once_in(2);
        let way = || Way { room: usize::MAX, most: usize::MAX, says_drained, ..Way::default() };
        Self { ways: [0, 1].map(|_| Rc::new(RefCell::new(way()))), is_fair: true }
    }

    /// It is kind from now on.
    fn open(&self) {
        for way in &self.ways {
            let way = &mut *way.borrow_mut();
            (way.room, way.most, way.interrupts) = (usize::MAX, usize::MAX, 0);
        }
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        let way = &mut *self.ways[tape.below(2)].borrow_mut();
        match tape.below(16) {
            0..6 => way.pass(size(tape)),
            6..9 => way.pass(usize::MAX),
            9 => way.room = if tape.once_in(2) { usize::MAX } else { size(tape) },
            10 => way.most = if tape.once_in(2) { usize::MAX } else { size(tape) },
            11 => way.interrupts = tape.below(4),
            _ if way.written.is_empty() => way.pass(1),
            12 => {
                self.is_fair = false;
                let at = size(tape) % way.written.len();
                way.written[at] ^= 1 << tape.below(8);
            }
            13 => {
                self.is_fair = false;
                let at = size(tape) % way.written.len();
                let most = size(tape).min(way.written.len() - at);
                way.written.drain(at..at + most);
            }
            14 => {
                self.is_fair = false;
                let most = size(tape).min(way.written.len()).min(8 << 10);
                let again: Vec<u8> = way.written.range(..most).copied().collect();
                again.into_iter().rev().for_each(|byte| way.written.push_front(byte));
            }
            _ => {
                self.is_fair = false;
                let (made_up, at) = (tape.bytes(tape.clone().below(32)), size(tape) % way.written.len());
                let rest = way.written.split_off(at);
                way.written.extend(made_up);
                way.written.extend(rest);
            }
        }
    }
}

fn two_ends(tape: &mut Tape<'_>) {
    let (sides, mut wire, room) = (tls_sides::made_up(tape), Wire::new(tape), TlsRoom::default());
    let tolerates = tape.byte();
    let [there, back] = &wire.ways;
    let mut ends = [
        Ours::new(0, sides, tolerates & 7 == 7, there, back, &room),
        Ours::new(1, sides, tolerates >> 4 & 7 == 7, back, there, &room),
    ];
    // Half of them begin behind the handshake, which is most of the work and least of what may happen.
    if tolerates & 8 != 0 {
        shake_hands(&mut ends, &wire);
    }
    let mut was_dropped = false;
    for _ in 0..STEPS_MAX {
        if tape.is_over() {
            break;
        }
        let what = tape.below(32);
        if what < 12 {
            wire.step(tape);
            continue;
        }
        let which = what % 2;
        let peer = ends[1 - which].said();
        let end = &mut ends[which];
        match (end.phase, what) {
            (Phase::Over, _) => {}
            (_, 30 | 31) if tape.once_in(4) => {
                was_dropped = true;
                end.is_over();
            }
            (Phase::Shaking, _) => _ = end.shake(),
            (Phase::Open, 12..20) if !end.has_asked_for_goodbye => {
                let bytes = size(tape);
                let piece = if tape.once_in(4) { size(tape).max(1) } else { 0 };
                end.send(bytes, piece);
            }
            (Phase::Open, 26 | 27) => end.say_goodbye(),
            (Phase::Open, 28 | 29) if tape.once_in(4) => {
                // As one that lingers: it may still have to say goodbye.
                end.is_deaf = true;
                end.end().stop_reading();
            }
            (Phase::Open, _) if end.has_got_end => {}
            (Phase::Open, _) => _ = end.recv(size(tape), peer),
        }
        ends.iter().for_each(Ours::check);
    }
    finish_both(&mut ends, &wire);
    if !wire.is_fair || was_dropped || !sides.agree {
        return;
    }
    for end in &ends {
        assert_eq!(end.phase, Phase::Open, "side {} on a fair wire: {:?}", end.side, end.error);
        assert_eq!(end.sent, end.offered);
        assert!(end.has_said_goodbye && end.has_got_end);
        let peer = &ends[1 - end.side];
        assert!(end.is_deaf || end.received == peer.sent, "{} of {} came", end.received, peer.sent);
        let held = end.end.as_ref().expect("it is open").held();
        let reads = !end.is_deaf && !peer.has_said_goodbye;
        assert!(!reads || held[0].0 == 0, "an idle one holds {held:?}");
        assert!(held[1].0 == 0, "an idle one holds {held:?}");
    }
}

fn shake_hands(ends: &mut [Ours; 2], wire: &Wire) {
    for _ in 0..12 {
        ends.iter_mut().filter(|end| end.phase == Phase::Shaking).for_each(|end| _ = end.shake());
        wire.ways.iter().for_each(|way| way.borrow_mut().pass(usize::MAX));
    }
}

/// Everybody says all that he was to say, and goodbye, and reads to the end.
fn finish_both(ends: &mut [Ours; 2], wire: &Wire) {
    wire.open();
    for _ in 0..400 {
        wire.ways.iter().for_each(|way| way.borrow_mut().pass(usize::MAX));
        for which in [0, 1] {
            let peer = ends[1 - which].said();
            let end = &mut ends[which];
            match end.phase {
                Phase::Over => {}
                Phase::Shaking => _ = end.shake(),
                Phase::Open => {
                    if end.sent < end.offered {
                        end.send(end.offered - end.sent, 0);
                    } else if !end.has_said_goodbye {
                        end.say_goodbye();
                    }
                    for _ in 0..40 {
                        if end.phase != Phase::Open || end.has_got_end || end.recv(64 << 10, peer) {
                            break;
                        }
                    }
                }
            }
            end.check();
        }
        if ends.iter().all(|end| end.phase == Phase::Over || end.has_got_end && end.has_said_goodbye) {
            return;
        }
    }
}

/// One of rustls' own at the other end. Its handshake is whole; then it talks, changes its keys and ends as the fuzzer says, or lets
/// somebody with its keys say what he will: records of any kind, of any content.
fn against_rustls(tape: &mut Tape<'_>, has_scribe: bool) {
    let (sides, mut wire, room) = (tls_sides::made_up(tape), Wire::new(tape), TlsRoom::default());
    if !sides.agree {
        return;
    }
    let which = tape.below(2);
    let [there, back] = &wire.ways;
    let (out, into) = if which == 0 { (there, back) } else { (back, there) };
    let mut ours = Ours::new(which, sides, false, out, into, &room);
    let plug = Plug { out: Rc::clone(into), into: Rc::clone(out) };
    let conn = match which {
        0 => Connection::Server(ServerConnection::new(sides.server.clone()).expect("a good config")),
        _ => Connection::Client(ClientConnection::new(sides.client.clone(), name()).expect("a good config")),
    };
    let mut theirs = Theirs { conn, plug, sent: 0, received: 0, has_said_goodbye: false, keys_changed: 0 };
    for _ in 0..12 {
        if ours.phase == Phase::Shaking {
            ours.shake();
        }
        theirs.talk();
        wire.ways.iter().for_each(|way| way.borrow_mut().pass(usize::MAX));
    }
    assert_eq!(ours.phase, Phase::Open, "no handshake with rustls");
    if has_scribe && sides.is_tls13 {
        return against_scribe(tape, ours, theirs, &wire);
    }
    for _ in 0..STEPS_MAX {
        if tape.is_over() || ours.phase == Phase::Over {
            break;
        }
        match tape.below(16) {
            0..4 => wire.step(tape),
            4..7 if !ours.has_asked_for_goodbye => ours.send(size(tape), 0),
            7..9 if !ours.has_got_end => _ = ours.recv(size(tape), theirs.said()),
            9 if tape.once_in(4) => ours.say_goodbye(),
            10 | 11 => theirs.say(size(tape)),
            12 => theirs.change_keys(),
            13 if tape.once_in(4) => theirs.say_goodbye(),
            _ => theirs.talk(),
        }
        ours.check();
    }
    wire.open();
    for _ in 0..400 {
        theirs.say_goodbye();
        theirs.talk();
        wire.ways.iter().for_each(|way| way.borrow_mut().pass(usize::MAX));
        for _ in 0..40 {
            if ours.phase != Phase::Open || ours.has_got_end || ours.recv(64 << 10, theirs.said()) {
                break;
            }
        }
        if ours.phase == Phase::Open && ours.sent < ours.offered {
            ours.send(ours.offered - ours.sent, 0);
        }
        if ours.phase == Phase::Over || ours.has_got_end && ours.sent == ours.offered {
            break;
        }
        ours.check();
    }
    wire.ways.iter().for_each(|way| way.borrow_mut().pass(usize::MAX));
    theirs.talk();
    if wire.is_fair {
        assert!(ours.phase == Phase::Open && ours.has_got_end, "on a fair wire: {:?}", ours.error);
        assert_eq!((theirs.received, ours.received), (ours.sent, theirs.sent));
    }
}

/// One of rustls' own.
struct Theirs {
    conn: Connection,
    plug: Plug,
    sent: usize,
    received: usize,
    has_said_goodbye: bool,
    keys_changed: usize,
}

impl Theirs {
    /// Reads and writes what it can.
    fn talk(&mut self) {
        let mut buf = vec![0; 64 << 10];
        while let Ok((bytes @ 1.., _)) = self.plug.recv(&mut buf) {
            let mut rest = &buf[..bytes];
            while !rest.is_empty() && self.conn.read_tls(&mut rest).is_ok_and(|read| read > 0) {
                // See `Ours::fails`: it has the same assertion, and nobody to catch it.
                let looks = AssertUnwindSafe(|| self.conn.process_new_packets().is_ok());
                if !catch_unwind(looks).unwrap_or(false) {
                    break;
                }
                self.read();
            }
        }
        self.write();
    }

    fn read(&mut self) {
        let mut buf = vec![0; 20 << 10];
        while let Ok(bytes @ 1..) = self.conn.reader().read(&mut buf) {
            let side = if matches!(self.conn, Connection::Server(_)) { 0 } else { 1 };
            assert!(buf[..bytes] == text(side, self.received, bytes), "rustls has got something else");
            self.received += bytes;
        }
    }

    fn write(&mut self) {
        let mut bytes = Vec::new();
        while self.conn.wants_write() {
            _ = self.conn.write_tls(&mut bytes);
        }
        // It is not its sending that is looked at.
        self.plug.out.borrow_mut().written.extend(bytes);
    }

    fn say(&mut self, bytes: usize) {
        if !self.has_said_goodbye && self.sent + bytes < BYTES_MAX {
            let side = if matches!(self.conn, Connection::Server(_)) { 1 } else { 0 };
            let text = text(side, self.sent, bytes);
            self.sent += self.conn.writer().write(&text).unwrap_or(0);
            self.write();
        }
    }

    fn change_keys(&mut self) {
        if !self.has_said_goodbye && self.keys_changed < KEYS_MAX {
            self.keys_changed += 1;
            _ = self.conn.refresh_traffic_keys(); // not of TLS 1.2
            self.write();
        }
    }

    fn say_goodbye(&mut self) {
        if !self.has_said_goodbye {
            self.has_said_goodbye = true;
            self.conn.send_close_notify();
            self.write();
        }
    }

    fn said(&self) -> Said {
        Said { offered: self.sent, sent: self.sent, goodbye: self.has_said_goodbye }
    }
}

/// Who has the keys of a peer.
struct Scribe {
    encrypts: Box<dyn MessageEncrypter>,
    number: u64,
    out: Shared,
    said: Said,
    side: usize,
}

impl Scribe {
    fn new(theirs: Theirs, side: usize) -> Option<Self> {
        let suite = match theirs.conn.negotiated_cipher_suite()? {
            SupportedCipherSuite::Tls13(suite) => suite,
            SupportedCipherSuite::Tls12(_) => return None,
        };
        let (number, secrets) = theirs.conn.dangerous_extract_secrets().ok()?.tx;
        let encrypts = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => suite.aead_alg.encrypter(key, iv),
            _ => return None,
        };
        Some(Self { encrypts, number, out: theirs.plug.out, said: Said { offered: 0, sent: 0, goodbye: false }, side })
    }

    fn write(&mut self, typ: ContentType, bytes: &[u8]) {
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: OutboundChunks::Single(bytes) };
        let record = self.encrypts.encrypt(plain, self.number).expect("a key encrypts").encode();
        self.number += 1;
        self.out.borrow_mut().written.extend(record);
    }

    /// A message of the handshake, in records of so much.
    fn say(&mut self, message: &[u8], most: usize) {
        message.chunks(most.max(1)).for_each(|part| self.write(ContentType::Handshake, part));
    }
}

fn against_scribe(tape: &mut Tape<'_>, mut ours: Ours, theirs: Theirs, wire: &Wire) {
    let Some(mut scribe) = Scribe::new(theirs, 1 - ours.side) else { return };
    ours.tolerates_cut = true; // whatever it ends with, it is its own word
    for _ in 0..STEPS_MAX {
        if tape.is_over() || ours.phase == Phase::Over {
            break;
        }
        match tape.below(16) {
            0 => {
                let bytes = size(tape).min(16 << 10);
                let said = text(scribe.side, scribe.said.sent, bytes);
                scribe.write(ContentType::ApplicationData, &said);
                scribe.said.sent += bytes;
                scribe.said.offered += bytes;
            }
            1 => {
                let message = tape.bytes(tape.clone().below(64));
                scribe.say(message, 64);
            }
            2 => {
                // A message that says how long it is, whole or not, in records of any size.
                let (kind, declared) = ([4, 24, 13, 0, 8][tape.below(5)], size(tape));
                let whole: Vec<u8> = [kind, (declared >> 16) as u8, (declared >> 8) as u8, declared as u8]
                    .into_iter()
                    .chain(tape.bytes(tape.clone().below(32)).iter().copied().chain(std::iter::repeat(0)).take(declared))
                    .collect();
                let part = if tape.once_in(2) { whole.len() } else { size(tape).min(whole.len()) };
                scribe.say(&whole[..part], size(tape).clamp(part / 300 + 1, 16 << 10));
            }
            // A KeyUpdate, after which it does not know the keys; or the begin of one.
            3 => scribe.say(&[24, 0, 0, 1, 1][..1 + tape.below(5)], 1 + tape.below(5)),
            4 => scribe.write(ContentType::Alert, tape.bytes(2)),
            5 if tape.once_in(4) => scribe.write(ContentType::Alert, &[1, 0]),
            6 => {
                let typ = ContentType::from(tape.byte() % 23); // what is none of data
                scribe.write(typ, tape.bytes(tape.clone().below(16)));
            }
            7 if !ours.has_asked_for_goodbye => ours.send(size(tape), 0),
            8 if tape.once_in(4) => ours.say_goodbye(),
            9 if tape.once_in(4) => {
                ours.is_deaf = true;
                ours.end().stop_reading();
            }
            10 | 11 => ours.out.borrow_mut().room = if tape.once_in(2) { usize::MAX } else { size(tape) },
            _ => {
                let to_us = &wire.ways[scribe.side];
                to_us.borrow_mut().pass(if tape.once_in(2) { usize::MAX } else { size(tape) });
                let said = scribe.said;
                for _ in 0..1 + tape.below(8) {
                    if ours.phase != Phase::Open || ours.has_got_end || ours.recv(size(tape), said) {
                        break;
                    }
                }
            }
        }
        ours.check();
    }
    wire.open();
    if ours.phase == Phase::Open {
        ours.send(ours.offered - ours.sent, 0);
    }
    if ours.phase == Phase::Open {
        ours.say_goodbye();
        ours.check();
    }
}
