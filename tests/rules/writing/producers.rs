//! Producers.

use crate::common::{
    Call, FINISHED, HUGE, Journal, LONG, SHORT, STUFF, TICK, Talk, assert_sleeps, by_default, closing_of, ends_with, guest,
    is_closed, quiet, read_exactly, read_to_end, say, settle, start, start_with, until, until_net,
};
use mainspring::{Config, Key, Limit, Produced, Reactor, Reason, Terminator};
use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    net::{Shutdown, TcpStream},
    rc::Rc,
    time::Instant,
};

/// What a test lets a producer say, and how often it was asked.
#[derive(Clone, Default)]
struct Tap {
    ready: Rc<RefCell<Vec<u8>>>,
    is_done: Rc<Cell<bool>>,
    asked: Rc<Cell<usize>>,
}

impl Tap {
    fn fill(&self, bytes: &str) {
        self.ready.borrow_mut().extend_from_slice(bytes.as_bytes());
    }
}

impl mainspring::Producer for Tap {
    fn more(&mut self, out: &mut Vec<u8>) -> std::io::Result<Produced> {
        self.asked.set(self.asked.get() + 1);
        out.append(&mut self.ready.borrow_mut());
        Ok(if self.is_done.get() { Produced::Done } else { Produced::NotYet })
    }
}

#[test]
fn a_producer_that_said_not_yet_is_asked_again_when_woken() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    let tap = Tap::default();
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.send("<");
    link.produce(tap.clone());
    link.send(">");
    settle(&mut reactor, &mut journal);
    assert_eq!(tap.asked.get(), 1, "nobody woke it");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 1), b"<");
    tap.fill("some ");
    reactor.net().link(key).expect("open").wake();
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"some ");
    tap.fill("more");
    tap.is_done.set(true);
    reactor.net().link(key).expect("open").wake();
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"more>", "it kept its place in the queue");
    assert_eq!(tap.asked.get(), 3);
}

#[test]
fn close_waits_for_a_producer() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    let mut left = 200;
    reactor.net().link(key).expect("open").produce(move |out: &mut Vec<u8>| {
        out.extend_from_slice(&[b'.'; 64 << 10]);
        left -= 1;
        Ok(if left == 0 { Produced::Done } else { Produced::More })
    });
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer).len(), 200 * (64 << 10));
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn close_waits_for_a_producer_that_said_not_yet_up_to_the_linger_deadline() {
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(LONG));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let began = Instant::now();
    reactor.net().link(key).expect("open").produce(Tap::default());
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::Linger).to_string());
    assert!(began.elapsed() >= LONG);
}

/// A guest, and what it produces.
fn tapped(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> (Key, TcpStream, Tap) {
    let (key, peer) = guest(reactor, journal, quiet);
    let tap = Tap::default();
    assert!(reactor.net().link(key).expect("open").produce(tap.clone()));
    (key, peer, tap)
}

#[test]
fn a_producer_that_said_not_yet_counts_neither_for_idle_nor_for_stalled() {
    let (mut reactor, mut journal) = start();
    let (key, _peer, _) = tapped(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.set_stall_timeout(TICK);
    link.set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)));
}

#[test]
fn what_stands_behind_a_producer_that_said_not_yet_does_not_stall_before_that_is_woken() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer, tap) = tapped(&mut reactor, &mut journal);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.send(">");
    link.set_stall_timeout(TICK);
    link.set_idle_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)), "the peer is not to blame");
    tap.fill(&"<".repeat(STUFF));
    tap.is_done.set(true);
    reactor.net().link(key).expect("open").wake();
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Stalled)));
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, STUFF + 1).last(), Some(&b'>'));
}

#[test]
fn a_producer_is_woken_also_while_its_connection_flushes() {
    for peer_ends in [false, true] {
        let (mut reactor, mut journal) = start();
        let (key, mut peer, tap) = tapped(&mut reactor, &mut journal);
        let mut net = reactor.net();
        let mut link = net.link(key).expect("open");
        if peer_ends {
            link.half_close();
            peer.shutdown(Shutdown::Write).expect("connected");
        } else {
            link.close();
        }
        until_net(&mut reactor, &mut journal, |net, _| net.link(key).is_none());
        settle(&mut reactor, &mut journal);
        tap.fill("late");
        tap.is_done.set(true);
        assert!(reactor.net().wake(key), "it is still there");
        assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 4), b"late");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(!reactor.net().wake(key), "it is gone");
    }
}

#[test]
fn a_producer_without_progress_and_one_with_an_error_fail() {
    let (mut reactor, mut journal) = start();
    let (lazy, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (broken, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(lazy).expect("open").produce(|_: &mut Vec<u8>| Ok(Produced::More));
    reactor.net().link(broken).expect("open").produce(|_: &mut Vec<u8>| Err(ErrorKind::NotFound.into()));
    for key in [lazy, broken] {
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("failed: "));
    }
}

/// What a producer made did not count for the marks.
#[test]
fn what_a_producer_makes_beyond_the_high_mark_congests() {
    let mut talk = Talk::new(|ctx, _, call| {
        if let Call::Connected = call {
            ctx.produce(|out: &mut Vec<u8>| {
                out.resize(HUGE, 1);
                Ok(Produced::Done)
            });
        }
        Ok(())
    });
    talk.settle();
    assert!(talk.is_congested(), "queued {}", talk.queued());
}

/// Producers did not count for the marks either: a peer that asked and never read made the loop keep any number of them.
#[test]
fn a_peer_that_does_not_read_cannot_pile_up_producers() {
    const ASKED: usize = 20_000;
    /// What it is made of, an open file say.
    struct File(Rc<Cell<usize>>);
    impl Drop for File {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    let open = Rc::new(Cell::new(0));
    let count = open.clone();
    let mut talk = Talk::new(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Frame(_) => {
                count.set(count.get() + 1);
                let file = File(count.clone());
                ctx.produce(move |out: &mut Vec<u8>| {
                    let _open = &file;
                    out.resize(out.len() + 60_000, 0);
                    Ok(Produced::More)
                });
            }
            _ => {}
        }
        Ok(())
    });
    say(&talk.peer, "\n".repeat(ASKED));
    talk.until(|journal| journal.calls.len() > 1);
    talk.settle();
    assert!((1..10).contains(&open.get()), "{} producers are queued", open.get());
}

/// Flaw 9: A producer that had nothing once was discarded: there was no "not yet".
#[test]
fn flaw_09_a_producer_with_nothing_yet_keeps_its_place() {
    let mut talk = Talk::new(by_default);
    let key = talk.key;
    let mut step = 0;
    let producer = move |out: &mut Vec<u8>| {
        step += 1;
        match step {
            1 => out.extend_from_slice(b"one "),
            2 => return Ok(Produced::NotYet),
            _ => out.extend_from_slice(b"two "),
        }
        Ok(if step == 1 { Produced::More } else { Produced::Done })
    };
    let mut net = talk.reactor.net();
    let mut link = net.link(key).expect("it is open");
    assert!(link.produce(producer) && link.send("three"));
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 4), b"one ");
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    talk.reactor.net().link(key).expect("it is open").wake();
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 9), b"two three");
}
