//! What is queued, when it leaves, and the cap.

use crate::common::{
    Call, Ctx, Talk, assert_sleeps, by_default, closed, dial, ends_with, guest, listen, quiet, read_exactly, read_to_end, reset,
    say, start, stuff, until,
};
use mainspring::{Config, Context, Endian, Key, Link, Outcome, Protocol, Reactor, Reason, Width};
use std::{cell::Cell, io::Write, net::Shutdown, rc::Rc, time::Duration};

#[test]
fn a_send_beyond_the_cap_closes_with_overflow() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    assert!(!reactor.net().send(key, vec![b'.'; 1 << 20]));
    ends_with(&mut reactor, &mut journal, key, &Reason::Overflow.to_string());
}

#[test]
fn the_cap_is_checked_before_appending() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    let mut net = reactor.net();
    let mut link = net.link(key).expect("open");
    link.set_output_limits(10, 20, 100);
    assert!(link.send([b'.'; 60]) && link.send([b'.'; 40]));
    assert_eq!(link.queued(), 100);
    assert!(!link.send("x"));
    ends_with(&mut reactor, &mut journal, key, &Reason::Overflow.to_string());
}

#[test]
fn one_message_larger_than_the_cap_is_taken_on_an_empty_queue() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.set_output_limits(10, 20, 100);
            ctx.send([b'.'; 5000]);
        }
        Ok(())
    });
    say(&peer, "x");
    read_exactly(&mut reactor, &mut journal, &mut peer, 5000);
    assert!(reactor.net().is_open(key));
}

#[test]
fn a_send_beyond_the_cap_inside_a_callback_ends_it_too() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.set_output_limits(10, 20, 100);
            ctx.send([b'.'; 99]);
            ctx.send([b'.'; 2]);
            assert!(!ctx.link().send("x"));
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, &Reason::Overflow.to_string());
}

/// The prefix was queued first, so that a payload larger than the cap met a queue that was not empty: `Overflow`.
#[test]
fn one_message_larger_than_the_cap_is_taken_on_an_empty_queue_however_it_is_framed() {
    const BIG: usize = 2 << 20;
    type Send = fn(&mut Link<'_>, &[u8]) -> bool;
    let ways: [(&str, Send, usize); 3] = [
        ("plain", |link, big| link.send(big), BIG),
        ("prefixed", |link, big| link.send_prefixed(Width::U32, Endian::Big, big), 4 + BIG),
        ("netstring", |link, big| link.send_netstring(big), "2097152:,".len() + BIG),
    ];
    for (name, send, bytes) in ways {
        let taken = Rc::new(Cell::new(false));
        let answer = taken.clone();
        let mut talk = Talk::with(Config::new().output_limits(16 << 10, 64 << 10, 1 << 20), move |ctx, _, call| {
            if let Call::Received(_) = call {
                answer.set(send(&mut ctx.link(), &[1; BIG]));
            }
            Ok(())
        });
        say(&talk.peer, "x");
        read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, bytes);
        assert!(taken.get(), "{name}");
        assert_eq!(talk.journal.closings(), 0, "{name}: {:?}", talk.journal.calls.last());
    }
}

/// What was formatted was a message for each of its pieces: one larger than the cap ended the connection, because its line
/// feed stood behind it.
#[test]
fn a_formatted_message_is_one_message_and_taken_on_an_empty_queue_whatever_its_size() {
    let config = Config::new().output_limits(10, 100, 1000);
    let mut talk = Talk::with(config, |ctx, _, call| {
        if let Call::Received(_) = call {
            writeln!(ctx, "<{}>", "=".repeat(5000));
        }
        Ok(())
    });
    say(&talk.peer, "x");
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 5003).last(), Some(&b'\n'));
    let mut net = talk.reactor.net();
    let mut link = net.link(talk.key).expect("open");
    writeln!(link, "<{}>", "=".repeat(5000)).expect("the queue is empty");
    let refused = writeln!(link, "<{}>", "=".repeat(5000)).map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::BrokenPipe), "the queue is not empty");
    talk.until(|journal| journal.closings() == 1);
    assert!(matches!(talk.journal.of(talk.key).last(), Some(Call::Closed(why)) if *why == Reason::Overflow.to_string()));
}

/// A message that is too long for its prefix ended also who had been closed politely, and what was queued was lost.
#[test]
fn a_message_too_long_for_its_prefix_does_nothing_to_who_has_begun_to_end() {
    let ends: [fn(&mut Ctx<'_>); 2] = [|ctx| ctx.close(), |ctx| ctx.half_close()];
    for (number, end) in ends.into_iter().enumerate() {
        let taken = Rc::new(Cell::new(true));
        let answer = taken.clone();
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Received(_) => {
                    ctx.send("goodbye");
                    end(ctx);
                    answer.set(ctx.link().send_prefixed(Width::U8, Endian::Big, [0; 300]));
                }
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "x");
        let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
        assert_eq!((&got[..], taken.get()), (&b"goodbye"[..], false), "{number}");
        talk.peer.shutdown(Shutdown::Write).expect("it is connected");
        talk.until(|journal| journal.closings() == 1);
        assert_eq!(talk.reactor.stats().closed.overflow, 0, "{number}");
    }
}

/// An output queue without a cap let a peer that does not read use up all memory (RUSTSEC-2020-0043).
#[test]
fn output_that_nobody_reads_ends_at_the_cap() {
    const CAP: usize = 256 << 10;
    let mut talk = Talk::with(Config::new().output_limits(16 << 10, 64 << 10, CAP), by_default);
    let key = talk.key;
    let (mut most, mut sent) = (0, 0);
    while talk.reactor.net().send(key, [b'x'; 16 << 10]) {
        sent += 16 << 10;
        assert!(sent < 64 << 20, "neither the kernel nor the queue takes so much");
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
        most = most.max(talk.reactor.net().link(key).expect("it is open").queued());
    }
    assert!(most <= CAP, "{most} bytes were queued");
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls(), [closed(&Reason::Overflow)]);
}

/// Flaw 8: By default each turn asked for writability, and found it: an idle connection took a whole processor.
#[test]
fn flaw_08_an_idle_connection_is_not_written_and_the_loop_sleeps() {
    let mut talk = Talk::new(by_default);
    for _ in 0..200 {
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(talk.calls(), []);
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    // Nor after something was written.
    let key = talk.key;
    talk.reactor.net().send(key, "word");
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 4), b"word");
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    assert_eq!(talk.calls(), []);
}

/// And one queued chunk left each turn: fifty chunks took fifty.
#[test]
fn flaw_08_fifty_queued_chunks_leave_in_one_turn() {
    let mut talk = Talk::new(by_default);
    let key = talk.key;
    for _ in 0..50 {
        assert!(talk.reactor.net().send(key, [b'x'; 1000]));
    }
    talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
    assert_eq!(talk.reactor.net().link(key).expect("it is open").queued(), 0);
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 50_000), [b'x'; 50_000]);
}

/// Sends to another connection, and says when it begins and when it is through.
struct Sender {
    to: Rc<Cell<Option<Key>>>,
}

impl Protocol<Vec<&'static str>> for Sender {
    fn received(&mut self, ctx: &mut Context<'_, Vec<&'static str>>, seen: &mut Vec<&'static str>, _: &[u8]) -> Outcome {
        seen.push("begin");
        for _ in 0..100 {
            ctx.net.send(self.to.get().expect("set before anything is said"), [0; 1000]);
        }
        seen.push("end");
        Ok(())
    }
}

/// Says when it is connected and closed.
struct Receiver {
    key: Rc<Cell<Option<Key>>>,
}

impl Protocol<Vec<&'static str>> for Receiver {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<&'static str>>, _: &mut Vec<&'static str>) -> Outcome {
        self.key.set(Some(ctx.key));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<&'static str>>, seen: &mut Vec<&'static str>, _: Reason) {
        seen.push("closed");
    }
}

/// Flaw 16: `push` to a dead peer ran its handle_close inside the push.
#[test]
fn flaw_16_sending_to_the_dead_calls_nobody() {
    let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
    let to: Rc<Cell<Option<Key>>> = Rc::default();
    let (for_sender, for_receiver) = (Rc::clone(&to), Rc::clone(&to));
    let (_, receivers) = listen(&mut reactor, move || Receiver { key: Rc::clone(&for_receiver) });
    let (_, senders) = listen(&mut reactor, move || Sender { to: Rc::clone(&for_sender) });
    let dying = dial(receivers);
    let sender = dial(senders);
    until(&mut reactor, &mut seen, |_| to.get().is_some());
    // Both are noticed in the same turn.
    say(&sender, "go");
    reset(dying);
    until(&mut reactor, &mut seen, |seen| seen.len() == 3);
    assert_eq!(seen, ["begin", "end", "closed"]);
}
