//! What somebody sends to a server before anything is agreed on.
//!
//! What must hold: no panic comes out; what is held is bounded; whoever is refused is told an alert at most once, in whole records,
//! and the error is one line.

use super::{Tape, tls_sides};
use mainspring::{
    TlsError, TlsServer, TlsStage,
    inside::{self, Pipe, TlsEnd, TlsRoom},
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, ErrorKind},
    panic::resume_unwind,
    rc::Rc,
    sync::Arc,
};

/// So many reads there may be.
const READS_MAX: usize = 5_000;

#[derive(Default)]
struct Stranger {
    /// What comes, in these pieces.
    pieces: VecDeque<Vec<u8>>,
    heard: Vec<u8>,
}

struct Plug(Rc<RefCell<Stranger>>);

impl Pipe for Plug {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> {
        let pieces = &mut self.0.borrow_mut().pieces;
        let Some(piece) = pieces.front_mut() else { return Ok((0, true)) };
        let bytes = piece.len().min(buf.len());
        if bytes == 0 {
            pieces.pop_front();
            return Err(ErrorKind::WouldBlock.into());
        }
        buf[..bytes].copy_from_slice(&piece[..bytes]);
        piece.drain(..bytes);
        Ok((bytes, false))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        self.0.borrow_mut().heard.extend_from_slice(bytes);
        Ok((bytes.len(), false))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server, and what comes to it.
pub fn tls_hello(data: &[u8]) {
    let mut tape = Tape::new(data);
    let sides = tls_sides::made_up(&mut tape);
    let chooses = tape.below(4);
    let server = TlsServer::new(Arc::clone(&sides.server));
    let config = Arc::clone(&sides.server);
    let server = match chooses {
        0 => server,
        1 => server.choose(move |hello| {
            _ = (hello.server_name(), hello.alpn().map(Iterator::count), hello.signature_schemes().len());
            Some(Arc::clone(&config))
        }),
        2 => server.choose(|_| None),
        // Not `panic!`, which is the end to libFuzzer also if somebody catches it.
        _ => server.choose(|_| resume_unwind(Box::new("on purpose"))),
    };
    let has_some_already = tape.once_in(4);
    let mut pieces = pieces(&mut tape);
    let already = if has_some_already { pieces.pop_front().unwrap_or_default() } else { Vec::new() };
    let stranger = Rc::new(RefCell::new(Stranger { pieces, ..Stranger::default() }));
    let mut end = TlsEnd::server(Plug(Rc::clone(&stranger)), server, already, &TlsRoom::default());
    for reads in 0.. {
        assert!(reads < READS_MAX, "it reads and reads");
        let shaken = end.connected();
        let [unfinished, left, out] = end.held();
        assert!(unfinished.0 <= (64 << 10) + 5 + (16 << 10) + 256 && left.0 == 0 && out.0 <= 64 << 10);
        match shaken {
            Ok(true) => panic!("a stranger has the keys"),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                look_at(&error, chooses);
                break;
            }
        }
    }
    records(&stranger.borrow().heard);
}

/// As it stands there; or as a message of the handshake, in records.
fn pieces(tape: &mut Tape<'_>) -> VecDeque<Vec<u8>> {
    let how = tape.byte();
    let sizes: Vec<usize> = (0..how >> 5).map(|_| 1 + tape.below(256)).collect();
    let record = [16 << 10, 100, 1, 7][usize::from(how >> 3 & 3)];
    let times = if how & 7 == 7 { 1 + 16 * tape.below(256) } else { 1 };
    let mut message = tape.rest().repeat(times);
    message.truncate(80 << 10);
    let mut all = match how & 7 {
        0..4 => message,
        _ => {
            let length = message.len();
            let header = [1, (length >> 16) as u8, (length >> 8) as u8, length as u8];
            let whole = [&header[..], &message].concat();
            let record = record.max(whole.len() / 2_000);
            whole
                .chunks(record)
                .flat_map(|part| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8], part].concat())
                .collect()
        }
    };
    let mut pieces = VecDeque::new();
    for size in sizes {
        let rest = all.split_off(size.min(all.len()));
        pieces.push_back(std::mem::replace(&mut all, rest));
    }
    pieces.push_back(all);
    pieces
}

fn look_at(error: &io::Error, chooses: usize) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_control() || inside::is_odd(c)), "not one line: {text:?}");
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()).expect("no socket fails here");
    match tls.stage {
        TlsStage::Panicked => assert!(chooses == 3 && text.ends_with("on purpose"), "{text}"),
        TlsStage::Name => assert_eq!(chooses, 2, "{text}"),
        _ => {}
    }
}

/// Whole ones, in clear, with one alert at most, which is the last.
fn records(mut heard: &[u8]) {
    let mut alerts = 0;
    while let [kind, 3, _, high, low, rest @ ..] = heard {
        assert_eq!(alerts, 0, "something behind an alert");
        alerts += usize::from(*kind == 21);
        heard = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).expect("whole records");
    }
    assert!(heard.is_empty(), "no record: {heard:?}");
}
