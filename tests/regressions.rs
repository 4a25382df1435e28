//! What a reading of the whole source found wrong, a test for each: its comment says what happened before it was mended.

mod common;

use common::{
    Bad, Call, Ctx, HUGE, Journal, Nothing, PATIENCE, Talk, dial, listen, ms, quiet, read_exactly, read_to_end, recorder, reset,
    say, settle, turn, until, until_net,
};
use mainspring::{
    Address, Config, Connect, Dispatcher, Drained, Endian, Fault, Framer, Key, Kind, Limit, Link, Listen, Net, Outcome, Panics,
    Produced, Protocol, Reactor, Reason, Refusal, Scope, Source, Step, Target, Terminator, Width,
};
use std::{
    cell::Cell,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

// ------------------------------------------------------------------------------------------------------------- output

/// An owed `writable` that could not be told, the output being congested again, kept the loop from ever sleeping.
#[test]
fn a_writable_that_is_owed_to_a_congested_connection_does_not_spin() {
    let mut talk = Talk::new(quiet);
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_output_limits(10, 20, 2 * HUGE);
    // In the timer phase above the high mark, and all of it taken when others' output leaves: `writable` is owed.
    talk.reactor.net().after(Duration::ZERO, move |net, _| _ = net.send(key, [0; 100]));
    talk.turn();
    // Before it is told: far more than the kernel takes.
    talk.reactor.net().post(move |net, _| _ = net.send(key, vec![0; HUGE]));
    talk.settle();
    assert!(talk.queued() > 1 << 20);
    talk.assert_sleeps();
    assert!(!talk.journal.has(&Call::Writable), "it is still congested");
}

/// The same by what a broadcaster does to a peer that has stopped reading: it sends on, little and much, whenever it may.
#[test]
fn a_broadcaster_whose_peer_does_not_read_sleeps_and_writable_comes_when_it_does() {
    let mut talk = Talk::with(Config::new().output_limits(10 << 10, 20 << 10, HUGE), quiet);
    let key = talk.key;
    let mut sent = 0;
    for bytes in [40_000, 3_000_000].into_iter().cycle() {
        if talk.is_congested() {
            break;
        }
        assert!(sent < 2 * HUGE, "no kernel takes that much");
        sent += bytes;
        talk.reactor.net().post(move |net, _| _ = net.send(key, vec![1; bytes]));
        talk.turn();
    }
    talk.assert_sleeps();
    let writables = |journal: &Journal| journal.calls.iter().filter(|(_, call)| *call == Call::Writable).count();
    let told = writables(&talk.journal);
    read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, sent);
    talk.until(|journal| writables(journal) == told + 1);
}

/// `close()` after a failed write saw no output left, and ended as if every byte had been handed over.
#[test]
fn a_close_after_a_failed_write_is_not_clean() {
    let mut talk = Talk::with(Config::new().turn_frames(1), |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(100)),
            Call::Frame(line) if line == b"quit" => ctx.close(),
            Call::Frame(_) => ctx.send("an answer\n"),
            _ => {}
        }
        Ok(())
    });
    say(&talk.peer, "ask\nquit\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.frames(), ["ask", "quit"], "its last words are heard");
    let Some((_, Call::Closed(why))) = talk.journal.calls.last() else { panic!("`closed` comes last") };
    assert!(why.starts_with("connection lost"), "the answer was lost, and the reason is: {why}");
}

/// What was sent after `half_close` in the same callback left all the same, before the FIN.
#[test]
fn what_is_sent_after_half_close_in_the_same_callback_is_refused() {
    let taken = Rc::new(Cell::new(None));
    let answer = taken.clone();
    let mut talk = Talk::new(move |ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.send("before ");
            ctx.half_close();
            answer.set(Some(ctx.link().send("after")));
            // Nor do new marks open it again.
            ctx.set_output_limits(1 << 10, 1 << 20, 1 << 20);
            ctx.send("later");
        }
        Ok(())
    });
    say(&talk.peer, "x");
    let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert_eq!(String::from_utf8_lossy(&got), "before ");
    assert_eq!(taken.get(), Some(false));
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

/// Higher marks left a congested connection congested until the next write happened to succeed.
#[test]
fn raising_the_marks_lets_a_congested_connection_go_on() {
    let mut talk = Talk::new(quiet);
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_output_limits(10, 20, 3 * HUGE);
    talk.reactor.net().send(key, vec![0; HUGE]);
    talk.settle();
    assert!(talk.is_congested());
    assert!(!talk.journal.has(&Call::Writable));
    talk.reactor.net().link(key).expect("it is open").set_output_limits(2 * HUGE, 2 * HUGE, 3 * HUGE);
    talk.until(|journal| journal.has(&Call::Writable));
    assert!(!talk.is_congested(), "queued {}", talk.queued());
}

/// The successor's marks are the defaults again, but what was queued above them did not count as congestion.
#[test]
fn an_upgrade_looks_at_the_marks_anew() {
    let mut talk = Talk::new(|ctx, _, call| {
        match call {
            Call::Connected => {
                ctx.set_output_limits(2 * HUGE, 2 * HUGE, 2 * HUGE);
                ctx.send(vec![0; HUGE]);
            }
            Call::Received(_) => ctx.upgrade(Nothing),
            _ => {}
        }
        Ok(())
    });
    assert!(!talk.is_congested(), "it is below the marks that it has set");
    say(&talk.peer, "x");
    talk.until(|journal| journal.calls.len() == 2);
    talk.settle();
    assert!(talk.is_congested(), "queued {}", talk.queued());
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

// ------------------------------------------------------------------------------------------------------------- resets

/// The reset was noted while the connection was not yet paused, and forgotten: it stayed for ever.
#[test]
fn a_reset_that_came_with_the_last_bytes_ends_a_connection_that_pauses_on_them() {
    let mut talk = Talk::new(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.pause();
        }
        Ok(())
    });
    say(&talk.peer, "GET /long-poll\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.received(), b"GET /long-poll\n");
}

/// The same when somebody else pauses it, before its budget has reached the error.
#[test]
fn a_reset_ends_a_connection_that_another_pauses_before_the_error_is_read() {
    let mut talk = Talk::with(Config::new().turn_frames(1), |ctx, _, call| {
        if let Call::Connected = call {
            ctx.set_terminator(Terminator::line(9));
        }
        Ok(())
    });
    let key = talk.key;
    say(&talk.peer, "a\nb\nc\n");
    reset(talk.peer);
    until(&mut talk.reactor, &mut talk.journal, |journal| !journal.frames().is_empty());
    assert_eq!(talk.journal.frames(), ["a"], "the error is still ahead");
    talk.reactor.net().link(key).expect("it is open").pause();
    until(&mut talk.reactor, &mut talk.journal, |journal| journal.closings() == 1);
    assert_eq!(talk.journal.frames(), ["a"], "it was paused");
}

/// Closed while it was connecting, with something queued, and reset before the loop looked: it stayed until the linger
/// deadline, and its reason was that.
#[test]
fn a_connect_that_is_closed_and_reset_before_it_is_looked_at_ends_at_once() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    server.set_nonblocking(true).expect("a socket option");
    let at = server.local_addr().expect("it is bound");
    let config = || Config::new().linger_max(PATIENCE * 100).resolver(move |_| Ok(vec![at.ip()]));
    // Straight to an address, and by a race.
    for target in [Target::from(at), Target::from(("some.host", at.port()))] {
        let mut reactor = Reactor::with_config(config()).expect("a selector");
        let mut journal = Journal::default();
        let key = reactor.net().connect(target, recorder(quiet));
        assert!(reactor.net().send(key, "hello") && reactor.net().close(key));
        until(&mut reactor, &mut journal, |_| {
            server.accept().is_ok_and(|(peer, _)| {
                reset(peer);
                true
            })
        });
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        let calls = journal.of(key);
        assert!(matches!(&calls[..], [Call::Closed(why)] if why.starts_with("connection lost")), "{calls:?}");
    }
}

// ------------------------------------------------------------------------------------------------------ timers, limits

/// A limit that expired and went on set itself a timer in the past, which hid all others that were due: one a turn.
#[test]
fn a_limit_that_goes_on_does_not_keep_other_due_timers_from_this_turn() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || recorder(quiet));
    let peers: Vec<_> = (0..50).map(|_| dial(at)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == peers.len());
    for key in journal.keys() {
        reactor.net().link(key).expect("it is open").set_idle_timeout(ms(2));
    }
    let asked = Instant::now();
    while asked.elapsed() < ms(10) {
        std::hint::spin_loop(); // a program that is long in coming back to the loop
    }
    turn(&mut reactor, &mut journal, Duration::ZERO);
    let told = journal.calls.iter().filter(|(_, call)| *call == Call::Exceeded(Limit::Idle)).count();
    assert_eq!(told, peers.len(), "idle limits told in one turn, of those long due");
}

/// Each piece that a framer handed over stopped the clock, so that a frame of pieces could take any time.
#[test]
fn a_framer_of_pieces_does_not_escape_the_frame_time_out() {
    struct Pieces;
    impl Framer for Pieces {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            let is_last = input[0] == b'\n';
            Ok(match is_last {
                true => Step::Frame { bytes: 0..0, consumed: 1 },
                false => Step::Piece { bytes: 0..1, consumed: 1 },
            })
        }
    }
    let ways: [(&str, fn() -> Terminator); 2] =
        [("stream_until", || Terminator::stream_until(&b"\n"[..])), ("framer", || Terminator::custom(Pieces, 10))];
    for (name, terminator) in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
                ctx.set_frame_timeout(ms(30));
            }
            Ok(())
        });
        let asked = Instant::now();
        let mut dripping = &talk.peer;
        let exceeded = Call::Exceeded(Limit::FrameTime);
        until(&mut talk.reactor, &mut talk.journal, |journal| {
            let _ = dripping.write(b"x"); // until it is closed
            journal.has(&exceeded)
        });
        assert!(asked.elapsed() >= ms(30), "{name}: never early");

        // One byte, and then silence.
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
                ctx.set_frame_timeout(ms(5));
            }
            Ok(())
        });
        say(&talk.peer, "x");
        talk.until(|journal| journal.has(&exceeded));
        assert_eq!(talk.journal.received(), b"x", "{name}");
    }
}

/// Its bare number was believed: it hit a timer of the loop's own, and the count of jobs fell below zero.
#[test]
fn a_timer_of_another_reactor_does_not_break_this_one() {
    let mut other = Reactor::<()>::new().expect("a selector");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let foreign = other.net().after(ms(9_000), |_, _| {});
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // Its time-out is the first timer of this reactor.
    reactor.net().connect(server.local_addr().expect("it is bound"), Nothing);
    assert_eq!(reactor.stats().timers, 1);
    assert!(!reactor.net().cancel(foreign), "nothing was set by that name here");
    assert_eq!(reactor.stats().timers, 1, "the time-out is still there");
    settle(&mut reactor, &mut ());
    assert!(other.net().cancel(foreign));
}

/// A time-out that the listener had for its guests ran from when one was let in: in a slow turn it was exceeded before
/// `connected`, which is in the next turn.
#[test]
fn no_time_out_is_exceeded_before_connected() {
    let bounds: [fn(Listen) -> Listen; 2] = [|listen| listen.idle_timeout(ms(1)), |listen| listen.deadline(ms(1))];
    for (number, bound) in bounds.into_iter().enumerate() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let slow = |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| -> Result<_, Refusal> {
            let began = Instant::now();
            while began.elapsed() < ms(5) {
                std::hint::spin_loop();
            }
            Ok(recorder(quiet))
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", bound(Listen::new()), slow).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let _peers = [dial(at), dial(at)];
        let is_exceeded = |call: &&(Key, Call)| matches!(call.1, Call::Exceeded(_));
        until(&mut reactor, &mut journal, |journal| journal.calls.iter().filter(is_exceeded).count() >= 2);
        for key in journal.keys() {
            let calls = journal.of(key);
            assert_eq!(calls.first(), Some(&Call::Connected), "{number}: {calls:?}");
        }
    }
}

/// The time-out of a connect that the kernel had finished long ago, while somebody's callback held the loop up.
#[test]
fn a_connect_that_is_done_is_not_given_up_because_nobody_has_looked() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = server.local_addr().expect("it is bound");
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    reactor.net().post(move |net, _| {
        net.connect_with(at, Connect::new().timeout(ms(1)), recorder(quiet));
        let began = Instant::now();
        while began.elapsed() < ms(5) {
            std::hint::spin_loop();
        }
    });
    until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
    assert_eq!(journal.calls[0].1, Call::Connected);
}

// ------------------------------------------------------------------------------------------------------------- frames

/// A length of all ones overflowed when its header was added, if the limit was no limit.
#[test]
fn a_peer_cannot_overflow_a_length() {
    let rows: [(&str, fn() -> Terminator, &[u8]); 2] = [
        ("prefixed", || Terminator::prefixed(Width::U64, Endian::Big, usize::MAX), &[0xff; 8]),
        ("netstring", || Terminator::netstring(usize::MAX), b"18446744073709551615:"),
    ];
    for (name, terminator, bytes) in rows {
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
            }
            Ok(())
        });
        let key = talk.key;
        say(&talk.peer, bytes);
        talk.until(|journal| journal.closings() == 1);
        let refused = [Call::Exceeded(Limit::FrameBytes), Call::Closed(Reason::Finish.to_string())];
        assert_eq!(talk.journal.of(key)[1..], refused, "{name}");
    }
}

/// An upgrade in `eof`, when our own end had been sent: the successor hears of the end too, and closes by itself.
#[test]
fn an_upgrade_in_eof_after_half_close_tells_the_successor_and_ends() {
    struct First;
    struct Second;
    impl Protocol<Journal> for First {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
            ctx.half_close();
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, _: &[u8]) -> Outcome {
            ctx.upgrade(Second);
            Ok(())
        }
    }
    impl Protocol<Journal> for Second {
        fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
            journal.note(ctx.key, Call::Connected);
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, tail: &[u8]) -> Outcome {
            journal.note(ctx.key, Call::Eof(tail.to_vec()));
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
            journal.note(ctx.key, Call::Closed(why.to_string()));
        }
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || First);
    let peer = dial(at);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<_> = journal.calls.iter().map(|(_, call)| call).collect();
    assert!(matches!(calls[..], [Call::Connected, Call::Eof(tail), Call::Closed(_)] if tail.is_empty()), "{calls:?}");
}

// -------------------------------------------------------------------------------------------------- opening and ending

/// Turns everybody away.
fn busy(_: &mut Net<'_, ()>, _: &mut (), _: &Address) -> Result<Nothing, Refusal> {
    Err("421 busy\r\n".into())
}

fn listen_busy(reactor: &mut Reactor<()>, options: Listen) -> SocketAddr {
    let listener = reactor.net().listen_with("127.0.0.1:0", options, busy).expect("a free port");
    reactor.net().local(listener).and_then(Address::ip).expect("an IP listener")
}

/// A refusal waited for the next turn to be written: without lingering it was reset at once.
#[test]
fn a_refusal_is_written_also_without_lingering() {
    let mut reactor = Reactor::with_config(Config::new().lingering_max(0)).expect("a selector");
    let mut peer = dial(listen_busy(&mut reactor, Listen::new()));
    let got = read_to_end(&mut reactor, &mut (), &mut peer);
    assert_eq!(String::from_utf8_lossy(&got), "421 busy\r\n");
}

/// And there was no next turn when the listener had had enough.
#[test]
fn a_refusal_is_written_before_run_returns() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut peer = dial(listen_busy(&mut reactor, Listen::new().accepts_max(1)));
    reactor.run(&mut ()).expect("the selector works");
    drop(reactor);
    let mut got = Vec::new();
    let _ = peer.read_to_end(&mut got); // the end may be a reset
    assert_eq!(String::from_utf8_lossy(&got), "421 busy\r\n");
}

/// Whoever was turned away lingered, also without last words; and a flood of them reset those who were still reading theirs.
#[test]
fn those_who_are_refused_do_not_take_the_places_of_lingering_sockets() {
    for words in ["", "421 busy\r\n"] {
        let mut reactor = Reactor::with_config(Config::new().lingering_max(1)).expect("a selector");
        let (mut journal, mut guests) = (Journal::default(), 0);
        let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
            guests += 1;
            if guests > 1 {
                return Err(Refusal::from(words));
            }
            Ok(recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                if matches!(call, Call::Connected) {
                    ctx.send("bye");
                    ctx.close();
                }
                Ok(())
            }))
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let guest = dial(at);
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        assert_eq!(reactor.stats().lingering, 1);
        let refused = [dial(at), dial(at)];
        until_net(&mut reactor, &mut journal, |net, _| net.stats().refused == 2);
        settle(&mut reactor, &mut journal);
        let lingering = reactor.net().connections().into_iter().filter(|one| one.kind == Kind::Lingering);
        let peers: Vec<_> = lingering.map(|one| one.peer.ip()).collect();
        assert_eq!(peers, [guest.local_addr().ok()], "{words:?}: it may still be reading");
        drop(guest);
        until_net(&mut reactor, &mut journal, |net, _| net.stats().lingering == 0);
        // There is room again: those with something to read linger.
        let _third = dial(at);
        until_net(&mut reactor, &mut journal, |net, _| net.stats().refused == 3);
        assert_eq!(reactor.stats().lingering, usize::from(!words.is_empty()), "{words:?}");
        drop(refused);
    }
}

/// `local` asked for before there was a socket was remembered as "no socket" for ever.
#[cfg(target_os = "linux")] // elsewhere a full backlog refuses
#[test]
fn local_is_asked_again_once_there_is_a_socket() {
    let path = std::env::temp_dir().join(format!("mainspring-regressions-{}.sock", std::process::id()));
    let mut server = Reactor::<()>::new().expect("a selector");
    let accept = |_: &mut Net<'_, ()>, _: &mut (), _: &Address| -> Result<Nothing, Refusal> { Ok(Nothing) };
    server.net().listen_with(path.clone(), Listen::new().backlog(0), accept).expect("a free path");
    let _first = std::os::unix::net::UnixStream::connect(&path).expect("there is room for one");
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let key = reactor.net().connect(path, recorder(quiet));
    assert_eq!(reactor.net().local(key), Some(&Address::Fd), "the backlog is full, so there is no socket");
    until(&mut reactor, &mut journal, |journal| {
        turn(&mut server, &mut (), ms(1));
        !journal.calls.is_empty()
    });
    assert_eq!(journal.calls[0].1, Call::Connected);
    assert_eq!(reactor.net().local(key), Some(&Address::Unix(None)));
}

/// A guest was not counted while its factory ran: a drain asked for there took the opened connections first.
#[test]
fn a_drain_asked_for_in_a_factory_does_not_overtake_its_guest() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if matches!(call, Call::Eof(_)) {
            ctx.close();
        }
        Ok(())
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let opened = reactor.net().connect(server.local_addr().expect("it is bound"), recorder(on));
    until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
    let factory = |net: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| -> Result<_, Refusal> {
        net.drain(Duration::from_secs(3600));
        Ok(recorder(on))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    let peer = dial(at);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert!(!journal.of(opened).contains(&Call::Draining), "the accepted one is still there: {:?}", journal.calls);
    drop(peer);
    until(&mut reactor, &mut journal, |journal| journal.of(opened).contains(&Call::Draining));
}

/// A dispatcher that `closed` opened in the last stage of a drain was not ended: `run` stayed for the whole grace.
#[cfg(unix)]
#[test]
fn a_dispatcher_opened_in_the_last_stage_of_a_drain_ends_with_it() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    struct Opener {
        socket: UnixStream,
        next: Option<UnixStream>,
    }
    impl Dispatcher<usize> for Opener {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.socket.as_fd())
        }

        fn closed(&mut self, scope: &mut Scope<'_, usize>, closed: &mut usize, _: Reason) {
            *closed += 1;
            if let Some(socket) = self.next.take() {
                scope.net.watch(Opener { socket, next: None }).expect("it can be watched");
            }
        }
    }
    let (socket, next) = UnixStream::pair().expect("a pair");
    let mut reactor = Reactor::new().expect("a selector");
    reactor.net().watch(Opener { socket, next: Some(next) }).expect("it can be watched");
    reactor.net().drain(PATIENCE * 100);
    let (began, mut closed) = (Instant::now(), 0);
    while turn(&mut reactor, &mut closed, ms(5)) {
        assert!(began.elapsed() < PATIENCE, "it waits for the whole grace");
    }
    assert_eq!(closed, 2);
}

/// A dispatcher whose `priority` congested whom it reads for was told once more to read.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_dispatcher_that_congests_its_writer_in_priority_is_not_told_to_read() {
    use std::os::fd::AsFd;
    struct Urgent(TcpStream, Key);
    impl Dispatcher<Journal> for Urgent {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn priority(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Result<Drained, Fault> {
            socket2::SockRef::from(&self.0).recv_out_of_band(&mut [std::mem::MaybeUninit::uninit()])?;
            journal.note(scope.key, Call::Received(b"urgent".to_vec()));
            assert!(scope.net.throttle(scope.key, self.1) && scope.net.send(self.1, vec![b'.'; HUGE]));
            Ok(Drained::Yes)
        }

        fn readable(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Result<Drained, Fault> {
            let is_congested = scope.net.link(self.1).expect("open").is_congested();
            journal.note(scope.key, Call::Received(format!("congested: {is_congested}").into_bytes()));
            while (&self.0).read(&mut [0; 10]).is_ok_and(|bytes| bytes > 0) {}
            Ok(Drained::Yes)
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = dial(listener.local_addr().expect("bound"));
    let (socket, _) = listener.accept().expect("somebody dialled");
    socket.set_nonblocking(true).expect("a socket option");
    let mut talk = Talk::new(|_, _, _| Ok(()));
    say(&peer, "x");
    socket2::SockRef::from(&peer).send_out_of_band(b"!").expect("connected");
    let watcher = talk.reactor.net().watch(Urgent(socket, talk.key)).expect("it can be watched");
    talk.until(|journal| !journal.of(watcher).is_empty());
    talk.settle();
    read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, HUGE);
    talk.settle();
    let calls = ["urgent", "congested: false"].map(|call| Call::Received(call.into()));
    assert_eq!(talk.journal.of(watcher), calls);
}

/// What drains at once still went through its stages one a turn, and the loop slept between two of them: for the whole grace.
#[cfg(unix)]
#[test]
fn a_drain_does_not_sleep_between_its_stages() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    struct Watcher(UnixStream);
    impl Dispatcher<Journal> for Watcher {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
            journal.note(scope.key, Call::Closed(why.to_string()));
        }
    }
    let hour = Duration::from_secs(3600);
    for has_guest in [false, true] {
        let (socket, _other) = UnixStream::pair().expect("a pair");
        let mut talk = Talk::new(|ctx, _, call| {
            if matches!(call, Call::Draining) {
                ctx.abort();
            }
            Ok(())
        });
        if !has_guest {
            talk.reactor.shutdown(&mut talk.journal);
        }
        let watcher = talk.reactor.net().watch(Watcher(socket)).expect("it can be watched");
        talk.settle();
        talk.reactor.net().drain(hour);
        let began = Instant::now();
        while turn(&mut talk.reactor, &mut talk.journal, PATIENCE) {
            assert!(began.elapsed() < PATIENCE, "it waits for the whole grace (a guest: {has_guest})");
        }
        assert_eq!(talk.journal.of(watcher), [Call::Closed(Reason::Shutdown.to_string())], "a guest: {has_guest}");
    }
}

/// A shutdown dropped the jobs of other threads, and then took the alarm of one that had come in the meantime: it lay there
/// until somebody rang again. Of so many tries several hit the moment.
#[test]
fn a_job_posted_during_a_shutdown_is_run_or_dropped_soon() {
    const TRIES: usize = 50_000;
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (remote, job) = (reactor.remote(), Arc::new(()));
    // Asked for by the one, done by the other.
    let (asked, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=TRIES {
                while asked.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
                (0..number % 40).for_each(|_| std::hint::spin_loop());
                let held = Arc::clone(&job);
                let _ = remote.post(move |_, _| drop(held));
                done.store(number, Ordering::Release);
            }
        });
        let (began, mut lies) = (Instant::now(), None);
        for number in 1..=TRIES {
            asked.store(number, Ordering::Release);
            if lies.is_some() || began.elapsed() > Duration::from_secs(2) {
                continue; // the other one is to end
            }
            reactor.shutdown(&mut ());
            while done.load(Ordering::Acquire) < number {
                std::thread::yield_now();
            }
            turn(&mut reactor, &mut (), Duration::ZERO);
            lies = (Arc::strong_count(&job) > 1).then_some(number);
        }
        assert_eq!(lies, None, "the job of this try lies there");
    });
}

// ------------------------------------------------------------------------------------------------------------- panics

/// `source` was asked outside the guard: its panic left the turn, and the dispatcher's slot was never free again.
#[cfg(unix)]
#[test]
fn a_panic_in_source_ends_its_dispatcher_only() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    struct Bad {
        socket: UnixStream,
        asked: u32,
        drains: bool,
    }
    impl Dispatcher<Vec<String>> for Bad {
        fn source(&mut self) -> Source<'_> {
            self.asked += 1;
            assert!(self.asked != 2, "asked again");
            Source::Fd(self.socket.as_fd())
        }

        fn readable(&mut self, scope: &mut Scope<'_, Vec<String>>, _: &mut Vec<String>) -> Result<Drained, Fault> {
            let _ = (&self.socket).read(&mut [0; 9])?;
            if self.drains {
                return Ok(Drained::Yes);
            }
            scope.close();
            Ok(Drained::No)
        }

        fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, closed: &mut Vec<String>, why: Reason) {
            closed.push(why.to_string());
        }
    }
    // It is asked again when it is drained, and when it ends.
    for (drains, cause) in [(true, "asked again"), (false, "finished")] {
        let (socket, mut peer) = UnixStream::pair().expect("a pair");
        socket.set_nonblocking(true).expect("a socket option");
        let (mut reactor, mut closed) = (Reactor::new().expect("a selector"), Vec::new());
        reactor.net().watch(Bad { socket, asked: 0, drains }).expect("it can be watched");
        peer.write_all(b"x").expect("room in an empty buffer");
        let began = Instant::now();
        let turned = catch_unwind(AssertUnwindSafe(|| {
            while turn(&mut reactor, &mut closed, ms(5)) {
                assert!(began.elapsed() < PATIENCE, "its slot is never free again");
            }
        }));
        assert!(turned.is_ok(), "the panic left the turn (drains: {drains})");
        assert!(reactor.net().connections().is_empty(), "its slot is free again (drains: {drains})");
        assert!(matches!(&closed[..], [why] if why.contains(cause)), "drains: {drains}, closed: {closed:?}");
    }
}

/// A periodic closure that panicked, and whose captures panicked again when dropped: the second panic left the turn.
#[test]
fn a_closure_that_panics_and_panics_when_dropped_stays_in_its_turn() {
    let mut reactor = Reactor::<u32>::new().expect("a selector");
    let mut fired = 0;
    let bad = Bad(Rc::default());
    reactor.net().every(ms(1), move |_, fired| {
        let _bad = &bad;
        *fired += 1;
        panic!("in every");
    });
    let turned = catch_unwind(AssertUnwindSafe(|| {
        until(&mut reactor, &mut fired, |fired| *fired > 0);
        settle(&mut reactor, &mut fired);
    }));
    assert!(turned.is_ok(), "the panic of the closure's drop left the turn");
    assert_eq!((fired, reactor.stats().timers), (1, 0), "it does not fire again");
}

/// Panics whenever it is dropped, with another one.
struct Chain(u32);

impl Drop for Chain {
    fn drop(&mut self) {
        panic_with_chain(self.0);
    }
}

fn panic_with_chain(links: u32) {
    if links > 0 {
        std::panic::resume_unwind(Box::new(Chain(links - 1)));
    }
}

/// What was panicked with was dropped outside a guard: a payload whose own drop panicked left the turn.
#[test]
fn a_payload_that_panics_when_it_is_dropped_stays_in_its_turn() {
    let on = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        match call {
            Call::Received(_) => panic_with_chain(3),
            Call::Closed(_) => panic_with_chain(3),
            _ => {}
        }
        Ok(())
    };
    for panics in [Panics::Isolate, Panics::Propagate] {
        let resolver = |_: &str| {
            panic_with_chain(3);
            Ok(Vec::new())
        };
        let config = Config::new().panics(panics).resolver(resolver);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let mut guests = 0;
        let (_, addr) = listen(&mut reactor, move || {
            guests += 1;
            if guests == 1 {
                panic_with_chain(3);
            }
            recorder(on)
        });
        let peers = [dial(addr), dial(addr)];
        let called = Rc::new(Cell::new(0));
        let [posted, resolved, worked] = [(); 3].map(|()| Rc::clone(&called));
        let count = |called: &Cell<u32>| called.set(called.get() + 1);
        let mut net = reactor.net();
        net.post(|_, _| panic_with_chain(3));
        net.after(ms(1), |_, _| panic_with_chain(3));
        net.every(ms(1), |_, _| panic_with_chain(3));
        net.resolve("odd.test", move |_, _, found| {
            assert!(found.is_err(), "it is told at once, and not at the deadline");
            count(&resolved);
        });
        net.offload(
            || panic_with_chain(3),
            move |_, _, result| {
                assert!(result.is_err());
                count(&worked);
            },
        );
        net.post(move |_, _| count(&posted));
        say(&peers[1], "x");
        let began = Instant::now();
        while journal.closings() < 1 || called.get() < 3 || reactor.stats().timers > 0 {
            assert!(began.elapsed() < PATIENCE, "{:?}, and {} of 3 called", journal.calls, called.get());
            let turned = catch_unwind(AssertUnwindSafe(|| turn(&mut reactor, &mut journal, ms(5))));
            if let Err(payload) = turned {
                assert!(panics == Panics::Propagate, "the panic of a payload's drop left the turn");
                std::mem::forget(payload);
            }
        }
        let why = journal.calls.iter().find_map(|(_, call)| if let Call::Closed(why) = call { Some(why.clone()) } else { None });
        assert_eq!(why.as_deref(), Some("panicked: (not a text)"));
    }
}

/// What a connection that ends had been given was dropped at once, inside whatever callback ended it. If that panicked, the
/// callback's own connection failed, and the other one never got its `closed`.
#[test]
fn what_was_given_to_another_is_not_dropped_inside_the_callback_that_ends_it() {
    /// Gives the first connection something.
    type Give = fn(&mut Ctx<'_>, Bad);
    /// Ends it, from a callback of the other one.
    type End = fn(&mut Ctx<'_>, Key);
    let producer: Give = |ctx, bad| {
        ctx.produce(move |_: &mut Vec<u8>| {
            let _bad = &bad;
            Ok(Produced::NotYet)
        });
    };
    let timer: Give = |ctx, bad| {
        ctx.after(ms(3_600_000), move |_: &mut Nothing, _, _| {
            drop(bad);
            Ok(())
        });
    };
    let abort: End = |ctx, key| assert!(ctx.net.abort(key));
    // The new timer gets the number of the dead one.
    let close: End = |ctx, key| {
        assert!(ctx.net.close(key));
        ctx.net.after(ms(3_600_000), |_, _| {});
    };
    for (name, give, end) in [("producer", producer, abort), ("timer", timer, close)] {
        let dropped = Rc::new(Cell::new(0));
        let count = Rc::clone(&dropped);
        let (other, then) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let seen = Rc::clone(&then);
        let mut talk = Talk::new(move |ctx, _, call| {
            match (call, other.get()) {
                (Call::Connected, None) => {
                    other.set(Some(ctx.key));
                    give(ctx, Bad(Rc::clone(&count)));
                }
                (Call::Received(_), Some(other)) => {
                    end(ctx, other);
                    seen.set(Some(count.get()));
                }
                _ => {}
            }
            Ok(())
        });
        let at = talk.peer.peer_addr().expect("it is connected");
        let second = dial(at);
        say(&second, "x");
        talk.until(|_| then.get().is_some());
        talk.until(|journal| journal.closings() == 1);
        assert_eq!((then.get(), dropped.get()), (Some(0), 1), "{name}: during the callback, and afterwards");
        assert_eq!(talk.reactor.stats().closed.panicked, 0, "{name}");
        assert!(matches!(talk.journal.of(talk.key).last(), Some(Call::Closed(_))), "{name}");
        talk.reactor.shutdown(&mut talk.journal);
        assert_eq!((talk.journal.closings(), talk.reactor.stats().connections), (2, 0), "{name}");
        assert!(!turn(&mut talk.reactor, &mut talk.journal, Duration::ZERO), "{name}: no job is counted that is not there");
    }
}

/// A framer that panics when an upgrade drops it left the connection as the one that is being served, and its output lent.
#[test]
fn a_framer_that_panics_when_an_upgrade_drops_it_stays_in_its_turn() {
    struct Framed(#[allow(dead_code, reason = "it is dropped")] Bad);
    impl Framer for Framed {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            Ok(Step::Frame { bytes: 0..input.len(), consumed: input.len() })
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    let mut talk = Talk::new(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(Framed(Bad(Rc::clone(&count))), 100)),
            Call::Frame(_) => {
                ctx.send("hello");
                ctx.upgrade(Nothing);
            }
            _ => {}
        }
        Ok(())
    });
    say(&talk.peer, "x");
    let got = read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 5);
    assert_eq!((&got[..], dropped.get(), talk.reactor.stats().connections), (&b"hello"[..], 1, 1));
}

/// Two that were thrown away in one heap, and panicked both, aborted the program.
#[test]
fn two_producers_and_a_factory_with_its_error_that_panic_when_they_are_dropped_end_no_program() {
    #[derive(Debug)]
    struct Sour(#[allow(dead_code, reason = "it is dropped")] Panicky);
    #[derive(Debug)]
    struct Panicky;
    impl Drop for Panicky {
        fn drop(&mut self) {
            panic_with_chain(1);
        }
    }
    impl std::fmt::Display for Sour {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("sour")
        }
    }
    impl std::error::Error for Sour {}
    let produce_two = |talk: &mut Talk| {
        for _ in 0..2 {
            let held = Panicky;
            let mut net = talk.reactor.net();
            net.link(talk.key).expect("open").produce(move |_: &mut Vec<u8>| {
                let _held = &held;
                Ok(Produced::NotYet)
            });
        }
    };
    let mut talk = Talk::new(|_, _, _| Ok(()));
    produce_two(&mut talk);
    talk.reactor.net().abort(talk.key);
    talk.until(|journal| journal.closings() == 1);

    let held = Panicky;
    let factory = move || {
        let _held = &held;
        recorder(|_, _, _| Ok(()))
    };
    let listener = talk.reactor.net().listen("127.0.0.1:0", factory).expect("a free port");
    assert!(talk.reactor.net().fail(listener, Sour(Panicky)));
    talk.settle();
    assert!(talk.reactor.net().local(listener).is_none(), "it has ended");

    let mut talk = Talk::new(|_, _, _| Ok(()));
    produce_two(&mut talk);
    drop(talk); // with its reactor
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

/// A framer that panicked when another terminator took its place ended whoever had set that, and what was held was not cut by
/// the new one.
#[test]
fn a_framer_that_panics_when_another_terminator_is_set_ends_nobody() {
    struct Framed(#[allow(dead_code, reason = "it is dropped")] Bad);
    impl Framer for Framed {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            Ok(Step::Need(input.len() + 1))
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let mut talk = Talk::new(|_, _, _| Ok(()));
    let framer = Framed(Bad(Rc::clone(&dropped)));
    talk.reactor.net().link(talk.key).expect("open").set_terminator(Terminator::custom(framer, 100));
    say(&talk.peer, "a line\n");
    let key = talk.key;
    until_net(&mut talk.reactor, &mut talk.journal, |net, _| net.link(key).expect("open").unread() > 0);
    let has_run = Rc::new(Cell::new(false));
    let end = Rc::clone(&has_run);
    talk.reactor.net().post(move |net, _| {
        net.link(key).expect("open").set_terminator(Terminator::line(100));
        end.set(true);
    });
    talk.until(|journal| !journal.frames().is_empty());
    assert_eq!((dropped.get(), has_run.get()), (1, true), "it was dropped, and its panic met nobody");
}

/// A producer that panicked was dropped by its own panic: when that panicked too, the program was aborted.
#[test]
fn a_producer_that_panics_and_panics_when_dropped_ends_its_connection_only() {
    let mut talk = Talk::new(|_, _, _| Ok(()));
    let chain = Chain(2);
    let mut net = talk.reactor.net();
    net.link(talk.key).expect("open").produce(move |_: &mut Vec<u8>| {
        let _chain = &chain;
        panic!("in more");
    });
    talk.until(|journal| journal.closings() == 1);
    assert!(matches!(talk.journal.of(talk.key).last(), Some(Call::Closed(why)) if why.contains("in more")));
}

/// What many timers of one that has ended would have run was thrown away in one heap, when no other timer was set: one
/// panic left the turn.
#[test]
fn many_timers_of_the_dead_that_panic_when_they_are_dropped_stay_in_their_turn() {
    const MANY: usize = 2_000;
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    let mut talk = Talk::new(move |ctx, _, call| {
        match call {
            Call::Connected => {
                for _ in 0..MANY {
                    let bad = Bad(Rc::clone(&count));
                    ctx.after(ms(3_600_000), move |_: &mut Nothing, _, _| {
                        drop(bad);
                        Ok(())
                    });
                }
            }
            Call::Received(_) => ctx.abort(),
            _ => {}
        }
        Ok(())
    });
    say(&talk.peer, "x");
    talk.until(|journal| journal.closings() == 1);
    assert_eq!((dropped.get(), talk.reactor.stats().timers), (MANY, 0));
}

/// Offloaded work of a connection that was upgraded, or closed with output left, was taken back only when some connection
/// ended: until then it could begin, and what was to follow it kept `run` running.
#[test]
fn offloaded_work_of_who_is_upgraded_or_flushes_is_taken_back_at_once() {
    struct Next;
    impl Protocol<Journal> for Next {}
    let steps: [fn(&mut Ctx<'_>); 2] = [
        |ctx| ctx.upgrade(Next),
        |ctx| {
            ctx.send(vec![0; HUGE]);
            ctx.close();
        },
    ];
    for step in steps {
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let config = Config::new().offload_threads(1);
        let mut talk = Talk::with(config, move |ctx, _, call| {
            if matches!(call, Call::Received(_)) {
                ctx.offload(|| unreachable!("it has not begun"), |_: &mut Next, _, _, _| Ok(()));
                step(ctx);
            }
            Ok(())
        });
        talk.reactor.net().offload(move || wait.recv().is_err(), |_, _, _| ());
        say(&talk.peer, "x");
        talk.until(|journal| journal.calls.len() > 1);
        assert_eq!((talk.reactor.stats().offloads, talk.journal.closings()), (1, 0), "only the other one is left");
        drop(let_go);
    }
}

/// A factory finds its own guest among the connections. What it told it, gave it to do or did to it was for a connection
/// that perhaps never came to be: a refusal then panicked out of the turn.
#[test]
fn a_factory_cannot_reach_its_guest() {
    fn meddle(net: &mut Net<'_, Journal>, key: Key) -> bool {
        let is_told = net.tell(key, |_: &mut Meek, _, _| unreachable!("it was not open"));
        let is_given = net.offload_for(key, || (), |_: &mut Meek, _, _, _| unreachable!("it was not open"));
        is_told || is_given || net.send(key, "x") || net.is_open(key) || net.close(key) || net.fail(key, "x") || net.abort(key)
    }
    struct Meek;
    impl Protocol<Journal> for Meek {
        fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
            journal.note(ctx.key, Call::Connected);
            Ok(())
        }
    }
    let answers: [fn() -> Result<Meek, Refusal>; 3] = [|| Ok(Meek), || Err("no".into()), || panic!("in the factory")];
    for (number, answer) in answers.into_iter().enumerate() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let met = Rc::new(Cell::new(0));
        let meets = Rc::clone(&met);
        let factory = move |net: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
            for guest in net.connections().into_iter().filter(|one| one.kind == Kind::Accepted) {
                assert!(!guest.is_ending && !meddle(net, guest.key));
                meets.set(meets.get() + 1);
            }
            answer()
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
        let at = reactor.net().local(listener).and_then(|at| at.ip()).expect("it listens");
        let _peer = dial(at);
        until(&mut reactor, &mut journal, |_| met.get() > 0);
        settle(&mut reactor, &mut journal);
        let is_let_in = usize::from(number == 0);
        assert_eq!((met.get(), journal.calls.len(), reactor.stats().connections), (1, is_let_in, is_let_in), "{number}");
    }
}

/// An error with which a listener was ended was dropped outside a guard.
#[test]
fn an_error_that_panics_when_it_is_dropped_may_end_a_listener() {
    #[derive(Debug)]
    struct Sour;
    impl std::fmt::Display for Sour {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("sour")
        }
    }
    impl std::error::Error for Sour {}
    impl Drop for Sour {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("in the drop of an error"));
        }
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let listener = reactor.net().listen("127.0.0.1:0", || recorder(|_, _, _| Ok(()))).expect("a free port");
    assert!(reactor.net().fail(listener, Sour));
    let turned = catch_unwind(AssertUnwindSafe(|| turn(&mut reactor, &mut journal, Duration::ZERO)));
    assert!(turned.is_ok(), "the panic of the error's drop left the turn");
    assert!(reactor.net().local(listener).is_none(), "it has ended");
}
