//! What is fuzzed, in seconds: with its seeds, and with random input.

use mainspring::inside::{Pipe, TlsEnd, TlsRoom};
use rustls::{ServerConnection, pki_types::ServerName};
use std::{
    cell::RefCell,
    collections::VecDeque,
    fs,
    io::{self, ErrorKind},
    path::Path,
    rc::Rc,
};

#[path = "../../fuzz/src/tape.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is there for all fuzzers")]
mod tape;
#[path = "../../fuzz/src/tls_hello.rs"]
#[allow(unreachable_pub, reason = "there it is the crate's own")]
mod tls_hello;
#[path = "../../fuzz/src/tls_sides.rs"]
mod tls_sides;
#[path = "../../fuzz/src/tls_wire.rs"]
#[allow(unreachable_pub, reason = "there it is the crate's own")]
mod tls_wire;

use tape::Tape;

fn runs(target: &str, made_up: u64, body: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for seed in fs::read_dir(&seeds).expect("they are checked in") {
        let path = seed.expect("readable").path();
        let input = fs::read(&path).expect("readable");
        look(&path.display().to_string(), &input, body);
        count += 1;
    }
    assert!(count > 10, "{count} seeds");
    for number in 1..=made_up {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let length = 1 + 2 * usize::from(dice());
        let input: Vec<u8> = (0..length).map(|_| dice()).collect();
        look(&format!("number {number}"), &input, body);
    }
}

fn look(which: &str, input: &[u8], body: fn(&[u8])) {
    if let Err(payload) = std::panic::catch_unwind(|| body(input)) {
        eprintln!("it was {which}: {input:?}");
        std::panic::resume_unwind(payload);
    }
}

#[test]
fn a_wire_that_does_as_it_likes_breaks_no_promise() {
    runs("tls_wire", 1_000, tls_wire::tls_wire);
}

#[test]
fn what_comes_before_anything_is_agreed_on_breaks_no_promise() {
    runs("tls_hello", 3_000, tls_hello::tls_hello);
}

/// What comes to a client, a piece at a time, and what it has said.
#[derive(Clone, Default)]
struct Pieces {
    come: Rc<RefCell<VecDeque<Vec<u8>>>>,
    said: Rc<RefCell<Vec<u8>>>,
}

impl Pipe for Pieces {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> {
        let piece = self.come.borrow_mut().pop_front().ok_or(ErrorKind::WouldBlock)?;
        buf[..piece.len()].copy_from_slice(&piece);
        Ok((piece.len(), false))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        self.said.borrow_mut().extend_from_slice(bytes);
        Ok((bytes.len(), false))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that has agreed with a server of rustls' own. That server has sent two tickets since, in records of 32 bytes,
/// which are returned.
fn agreed() -> (TlsEnd, Pieces, ServerConnection, VecDeque<Vec<u8>>) {
    let sides = tls_sides::made_up(&mut Tape::new(&[2]));
    let (pieces, name) = (Pieces::default(), ServerName::try_from("localhost").expect("a name"));
    let client = super::TlsClient::new(sides.client.clone());
    let mut end = TlsEnd::client(pieces.clone(), &client, name, &TlsRoom::default()).expect("it begins");
    let mut server = ServerConnection::new(sides.server.clone()).expect("a good config");
    let mut is_done = false;
    loop {
        is_done = is_done || end.connected().expect("nothing is wrong");
        let said = std::mem::take(&mut *pieces.said.borrow_mut());
        server.read_tls(&mut &said[..]).expect("there is room");
        server.process_new_packets().expect("nothing is wrong");
        let mut written = Vec::new();
        server.write_tls(&mut written).expect("a Vec takes all");
        if is_done {
            return (end, pieces, server, records(&written));
        }
        pieces.come.borrow_mut().push_back(written);
    }
}

fn records(mut bytes: &[u8]) -> VecDeque<Vec<u8>> {
    let mut all = VecDeque::new();
    while let [_, _, _, high, low, ..] = *bytes {
        let (record, rest) = bytes.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        all.push_back(record.to_vec());
        bytes = rest;
    }
    all
}

#[test]
fn a_message_in_many_records_comes_a_record_at_a_time() {
    let (mut end, pieces, mut server, tickets) = agreed();
    assert!(tickets.len() >= 6, "{} records", tickets.len());
    server.send_close_notify();
    let mut written = Vec::new();
    server.write_tls(&mut written).expect("a Vec takes all");
    *pieces.come.borrow_mut() = tickets;
    pieces.come.borrow_mut().push_back(written);
    let end = loop {
        match end.recv(&mut [0; 100]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other.expect("nothing is wrong").0,
        }
    };
    assert_eq!(end, 0);
}

#[test]
fn who_is_not_read_any_more_is_told_goodbye_also_amid_a_message() {
    let (mut end, pieces, mut server, mut tickets) = agreed();
    pieces.come.borrow_mut().push_back(tickets.pop_front().expect("the beginning of one"));
    let nothing_yet = end.recv(&mut [0; 100]).expect_err("half a ticket");
    assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
    end.stop_reading();
    end.shutdown_write().expect("there is room");
    let said = pieces.said.borrow().clone();
    server.read_tls(&mut &said[..]).expect("there is room");
    let state = server.process_new_packets().expect("nothing is wrong");
    assert!(state.peer_has_closed(), "it said {said:?}");
}
