//! Streams that are only read, or only written to; and much through slow pipes, both ways.

use super::{Guest, child, end_of, ends, pipe};
use crate::common::{
    Call, Ctx, Journal, SHORT, assert_sleeps, by_default, count, is_alone, ms, quiet, recorder, run_out, settle, start,
    start_with, until, until_net,
};
use mainspring::{Adopted, Config, Context, Limit, Link, Outcome, Produced, Protocol, Reactor, Reason};
use std::{fs::File, io::Write, os::unix::net::UnixStream, rc::Rc};

const MUCH: usize = 4 << 20;

fn read_end() -> (Adopted, File) {
    let (read, write) = pipe();
    (Adopted::reader(read), write.into())
}

fn write_end() -> (Adopted, File) {
    let (read, write) = pipe();
    (Adopted::writer(write), read.into())
}

/// Also of sockets, which could do both.
fn read_socket() -> (Adopted, File) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (Adopted::reader(ours), std::os::fd::OwnedFd::from(theirs).into())
}

#[test]
fn what_is_only_read_ends_when_it_has_told_the_end() {
    for (stream, mut theirs) in [read_end(), read_socket()] {
        let mut guest = Guest::new(stream, quiet); // which does not close
        theirs.write_all(b"all").expect("there is room");
        drop(theirs);
        assert_eq!(guest.end(), Reason::Eof.to_string());
        let key = guest.key;
        assert_eq!(
            guest.journal.of(key),
            [Call::Connected, Call::Received(b"all".into()), Call::Eof(Vec::new()), Call::Closed(Reason::Eof.to_string())]
        );
    }
}

#[test]
fn what_is_only_read_finishes_when_we_close_it() {
    for (stream, _theirs) in [read_end(), read_socket()] {
        let mut guest = Guest::new(stream, quiet);
        assert!(guest.reactor.net().close(guest.key));
        assert_eq!(guest.end(), Reason::Finish.to_string());
        assert!(!guest.reactor.net().is_draining());
        assert_eq!(guest.reactor.stats().lingering, 0, "whoever reads it next gets all of it");
    }
}

#[test]
fn what_is_sent_to_what_is_only_read_is_refused() {
    for (stream, mut theirs) in [read_end(), read_socket()] {
        let mut guest = Guest::new(stream, |ctx, journal, call| {
            if let Call::Connected | Call::Received(_) = call {
                ctx.send("no");
                ctx.send_shared(&Rc::from([0; 5_000]));
                assert!(ctx.is_congested(), "whoever asks first does not begin");
                ctx.half_close();
            }
            by_default(ctx, journal, call)
        });
        let key = guest.key;
        assert!(!guest.send("no"));
        assert!(!guest.reactor.net().send_shared(key, &Rc::from([0; 5_000])));
        guest.reactor.net().half_close(key);
        let mut net = guest.reactor.net();
        let mut link = net.link(key).expect("it is open");
        assert!(!link.produce(|_: &mut Vec<u8>| Ok(Produced::Done)));
        assert_eq!(link.queued(), 0);
        theirs.write_all(b"still").expect("there is room");
        guest.until(|journal| journal.received() == b"still");
        assert_sleeps(&mut guest.reactor, &mut guest.journal);
        drop(theirs);
        assert_eq!(guest.end(), Reason::Eof.to_string());
    }
}

#[test]
fn what_is_only_written_to_finishes_when_all_has_left() {
    let (stream, mut theirs) = write_end();
    let mut guest = Guest::new(stream, by_default);
    assert!(guest.send(vec![7; MUCH]));
    assert!(guest.reactor.net().close(guest.key));
    assert_eq!(guest.read(&mut theirs, usize::MAX).len(), MUCH, "then its end");
    assert_eq!(guest.end(), Reason::Finish.to_string());
    assert_eq!(count(&guest.journal, guest.key, &Call::Eof(Vec::new())), 0);
}

#[test]
fn half_closed_what_is_only_written_to_has_ended() {
    let (stream, mut theirs) = write_end();
    let mut guest = Guest::new(stream, by_default);
    assert!(guest.send("all"));
    assert!(guest.reactor.net().half_close(guest.key));
    assert_eq!(guest.read(&mut theirs, usize::MAX), b"all");
    assert_eq!(guest.end(), Reason::Finish.to_string());
}

#[test]
fn each_closes_once_it_is_quiet() {
    let (stream, mut theirs) = read_end();
    let mut reads = Guest::new(stream, |ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.close_when_quiet();
        }
        Ok(())
    });
    let key = reads.key;
    reads.reactor.net().link(key).expect("it is open").set_terminator(mainspring::Terminator::line(99));
    theirs.write_all(b"begun").expect("there is room");
    settle(&mut reads.reactor, &mut reads.journal);
    reads.reactor.net().link(key).expect("it is open").close_when_quiet();
    settle(&mut reads.reactor, &mut reads.journal);
    assert!(!reads.is_closed(), "a line has begun");
    theirs.write_all(b"\n").expect("there is room");
    assert_eq!(reads.end(), Reason::Drained.to_string());

    let (stream, mut theirs) = write_end();
    let mut writes = Guest::new(stream, by_default);
    assert!(writes.send(vec![7; MUCH]));
    let key = writes.key;
    writes.reactor.net().link(key).expect("it is open").close_when_quiet();
    writes.turn();
    assert!(!writes.is_closed(), "not all has left");
    assert_eq!(writes.read(&mut theirs, MUCH).len(), MUCH);
    assert_eq!(writes.end(), Reason::Drained.to_string());
}

#[test]
fn a_drain_asks_each_and_closes_it() {
    let asked = |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if *call == Call::Draining {
            ctx.close_when_quiet();
        }
        Ok(())
    };
    let (stream, _theirs) = read_end();
    let mut reads = Guest::new(stream, asked);
    let (stream, mut theirs) = write_end();
    let writes = reads.reactor.net().adopt(stream, recorder(asked)).expect("a stream");
    reads.until(|journal| journal.of(writes).contains(&Call::Connected));
    assert!(reads.reactor.net().send(writes, vec![7; MUCH]));
    let key = reads.key;
    reads.reactor.net().drain(ms(10_000));
    assert_eq!(reads.read(&mut theirs, MUCH).len(), MUCH);
    assert_eq!(end_of(&mut reads.reactor, &mut reads.journal, writes), Reason::Drained.to_string());
    assert_eq!(reads.end(), Reason::Drained.to_string());
    for key in [key, writes] {
        assert_eq!(count(&reads.journal, key, &Call::Draining), 1);
    }
    run_out(&mut reads.reactor, &mut reads.journal);
}

#[test]
fn each_has_its_time_outs() {
    let limits: [(fn(&mut Link<'_>), Limit); 2] =
        [(|link| link.set_idle_timeout(SHORT), Limit::Idle), (|link| link.set_deadline(SHORT), Limit::Deadline)];
    for (set, limit) in limits {
        for (stream, _theirs) in [read_end(), write_end(), read_socket()] {
            let mut guest = Guest::new(stream, by_default);
            let key = guest.key;
            set(&mut guest.reactor.net().link(key).expect("it is open"));
            assert_eq!(guest.end(), Reason::Limit(limit).to_string());
        }
    }
    let (stream, mut theirs) = write_end();
    let mut stalls = Guest::new(stream, by_default);
    let key = stalls.key;
    stalls.reactor.net().link(key).expect("it is open").set_stall_timeout(ms(100));
    assert!(stalls.send(vec![7; MUCH]));
    for _ in 0..5 {
        stalls.read(&mut theirs, 64 << 10);
        assert!(!stalls.is_closed(), "it goes on");
    }
    assert_eq!(stalls.end(), Reason::Limit(Limit::Stalled).to_string());
}

#[test]
fn a_polite_close_waits_for_no_longer_than_it_may() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(ms(50)));
    let (stream, _theirs) = write_end();
    let key = reactor.net().adopt(stream, recorder(by_default)).expect("a stream");
    reactor.net().send(key, vec![7; MUCH]);
    reactor.net().close(key);
    assert_eq!(end_of(&mut reactor, &mut journal, key), Reason::Limit(Limit::Linger).to_string());
}

#[test]
fn marks_producers_and_shared_bytes_are_as_ever() {
    let (stream, mut theirs) = write_end();
    let mut guest = Guest::new(stream, by_default);
    let key = guest.key;
    let mut net = guest.reactor.net();
    let mut link = net.link(key).expect("it is open");
    link.set_output_limits(1_000, 100_000, 1 << 20);
    let shared: Rc<[u8]> = vec![1; 300_000].into();
    assert!(link.send_shared(&shared) && link.send("own") && link.send_shared(&shared));
    assert!(link.is_congested());
    let mut left = 300;
    assert!(link.produce(move |into: &mut Vec<u8>| {
        into.extend_from_slice(&[2; 1_000]);
        left -= 1;
        Ok(if left == 0 { Produced::Done } else { Produced::More })
    }));
    let all = guest.read(&mut theirs, 900_003);
    let expected = [vec![1; 300_000], b"own".to_vec(), vec![1; 300_000], vec![2; 300_000]].concat();
    assert!(all == expected, "in order, and each once");
    guest.until(|journal| count(journal, key, &Call::Writable) > 0);
    drop(theirs);
    assert_eq!(guest.end(), Reason::Eof.to_string());
}

struct Successor;

impl Protocol<Journal> for Successor {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Frame(b"successor".into()));
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, tail: &[u8]) -> Outcome {
        journal.note(ctx.key, Call::Eof(tail.into()));
        ctx.close();
        Ok(())
    }
}

/// What was never open cannot end.
#[test]
fn a_successor_on_what_is_only_written_to_is_told_no_end() {
    let (stream, mut theirs) = write_end();
    let mut guest = Guest::new(stream, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.upgrade(Successor);
        }
        Ok(())
    });
    guest.until(|journal| journal.frames() == ["successor"]);
    settle(&mut guest.reactor, &mut guest.journal);
    assert_eq!(count(&guest.journal, guest.key, &Call::Eof(Vec::new())), 0);
    assert!(guest.send("still"));
    assert_eq!(guest.read(&mut theirs, 5), b"still");
}

/// As what was received: without a terminator it is not over before it was answered.
#[test]
fn what_was_read_before_is_delivered_first() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"three").expect("there is room");
    let mut guest = Guest::new(Adopted::from(ours).unread(*b"one\ntwo\n"), |ctx, journal, call| {
        crate::common::lines(ctx, journal, call)?;
        by_default(ctx, journal, call)
    });
    guest.until(|journal| journal.frames() == ["one", "two"]);
    drop(theirs);
    guest.end();
    assert!(guest.journal.has(&Call::Eof(b"three".into())));

    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let mut guest = Guest::new(Adopted::from(ours).unread(*b"a question"), quiet);
    guest.until(|journal| journal.received() == b"a question");
    let key = guest.key;
    guest.reactor.net().link(key).expect("it is open").close_when_quiet();
    settle(&mut guest.reactor, &mut guest.journal);
    assert!(!guest.is_closed(), "it was not answered");
    guest.send("an answer");
    assert_eq!(guest.end(), Reason::Drained.to_string());
}

#[test]
fn what_was_read_before_an_end_comes_before_it() {
    let (stream, theirs) = read_end();
    drop(theirs);
    let mut guest = Guest::new(stream.unread(*b"last words"), by_default);
    assert_eq!(guest.end(), Reason::Eof.to_string());
    assert_eq!(guest.journal.received(), b"last words");
}

/// Sends this much of a known stream, and checks what comes back.
struct Through {
    sent: u64,
    received: u64,
    all: u64,
}

/// Of a stream in which each eight bytes differ.
fn piece(from: u64, bytes: u64) -> Vec<u8> {
    let words = (from / 8)..(from + bytes) / 8;
    words.flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

impl Through {
    fn fill(&mut self, ctx: &mut Context<'_, u64>) {
        while self.sent < self.all && !ctx.is_congested() {
            ctx.send(piece(self.sent, 32 << 10));
            self.sent += 32 << 10;
        }
        if self.sent == self.all {
            ctx.half_close();
        }
    }
}

impl Protocol<u64> for Through {
    fn connected(&mut self, ctx: &mut Context<'_, u64>, _: &mut u64) -> Outcome {
        self.fill(ctx);
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, u64>, _: &mut u64, bytes: &[u8]) -> Outcome {
        let (begin, end) = (self.received / 8 * 8, (self.received + bytes.len() as u64).next_multiple_of(8));
        let skip = (self.received - begin) as usize;
        assert!(piece(begin, end - begin)[skip..][..bytes.len()] == *bytes, "behind {} bytes", self.received);
        self.received += bytes.len() as u64;
        Ok(())
    }

    fn writable(&mut self, ctx: &mut Context<'_, u64>, _: &mut u64) -> Outcome {
        self.fill(ctx);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, u64>, all: &mut u64, why: Reason) {
        assert!(why.is_clean(), "{why}");
        *all = self.received;
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("proc(5)");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_hundred_megabytes_go_through_a_child_and_memory_stays() {
    if !is_alone("adopting::one_way::a_hundred_megabytes_go_through_a_child_and_memory_stays", "") {
        return;
    }
    let mut reactor = Reactor::<u64>::new().expect("a selector");
    let mut cat = child("cat", &[]);
    let through = Through { sent: 0, received: 0, all: 100 << 20 };
    reactor.net().adopt(ends(&mut cat), through).expect("a pair of pipes");
    let (mut all, before) = (0, resident_kib());
    until(&mut reactor, &mut all, |all| *all > 0);
    assert_eq!(all, 100 << 20);
    assert!(cat.wait().expect("it ended").success());
    let more = resident_kib() - before;
    assert!(more < 8 << 10, "{more} KiB more");
}

/// Little at a time, many pieces with each write.
#[test]
fn a_slow_child_gets_it_all() {
    let (mut reactor, mut journal) = start();
    let mut dd = child("dd", &["bs=777", "status=none"]);
    let key = reactor.net().adopt(ends(&mut dd), recorder(by_default)).expect("a pair of pipes");
    let text: Vec<u8> = piece(0, 800_000);
    for part in text.chunks(10_000) {
        assert!(reactor.net().send(key, part));
    }
    reactor.net().half_close(key);
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).is_none_or(|link| link.queued() == 0));
    assert_eq!(end_of(&mut reactor, &mut journal, key), Reason::Finish.to_string());
    assert!(journal.received() == text);
    dd.wait().expect("it ended");
}
