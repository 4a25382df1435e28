//! By real threads.

use super::{Witness, held, narrow, start};
use crate::common::{
    Call, Ctx, HUGE, Journal, PATIENCE, Talk, dial, listen, read_exactly, read_to_end, recorder, say, until, until_net,
};
use mainspring::{Address, Config, Context, OffloadError, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    cell::Cell,
    io::Write,
    rc::Rc,
    str,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

#[test]
fn work_runs_elsewhere_and_its_end_on_the_loop() {
    let mut reactor = start::<Vec<String>>();
    let here = thread::current().id();
    let not_send = Rc::new(5);
    reactor.net().offload(
        move || (thread::current().id(), thread::current().name().map(str::to_owned)),
        move |_, log, result| {
            let (there, name) = result.expect("it did not panic");
            assert_ne!(there, here);
            assert_eq!(thread::current().id(), here);
            log.push(format!("{} {not_send}", name.expect("it has a name")));
        },
    );
    let mut log = Vec::new();
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(log, ["mainspring-work 5"]);
}

#[test]
fn run_waits_for_pending_work_and_for_nothing_else() {
    let mut reactor = start::<u32>();
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, ended, _| *ended += 1);
    begins.recv_timeout(PATIENCE).expect("it begins");
    let mut ended = 0;
    assert!(reactor.turn(&mut ended, Duration::ZERO).expect("the selector works"), "there is something to wait for");
    assert_eq!((reactor.stats().offloads, ended), (1, 0));
    drop(let_go);
    reactor.run(&mut ended).expect("the selector works");
    assert_eq!((reactor.stats().offloads, ended), (0, 1));
}

#[test]
fn a_panic_of_the_work_is_an_error_for_done() {
    let mut reactor = start::<Vec<String>>();
    for text in ["one", "two"] {
        reactor.net().offload(
            move || std::panic::resume_unwind(Box::new(text)),
            |_, log, result: Result<(), OffloadError>| log.push(result.expect_err("it panicked").to_string()),
        );
    }
    let mut log = Vec::new();
    reactor.run(&mut log).expect("the selector works");
    log.sort();
    assert_eq!(log, ["offloaded work panicked: one", "offloaded work panicked: two"]);
}

#[test]
fn what_finds_no_room_is_refused_later_and_not_inside_the_call() {
    let mut reactor = narrow::<Vec<&str>>(1, 1);
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    let mut net = reactor.net();
    net.offload(held(begun.clone(), wait), |_, log, result| {
        result.expect("it had a thread");
        log.push("first");
    });
    begins.recv_timeout(PATIENCE).expect("it begins");
    net.offload(
        || (),
        |_, log, result| {
            result.expect("it had room");
            log.push("second");
        },
    );
    let inside = Rc::new(Cell::new(true));
    let is_inside = Rc::clone(&inside);
    net.offload(
        || unreachable!("it has no room"),
        move |_, log, result: Result<(), _>| {
            assert!(!is_inside.get(), "no callback runs inside another");
            assert!(matches!(result, Err(OffloadError::Full)));
            log.push("refused");
        },
    );
    inside.set(false);
    let mut log = Vec::new();
    until(&mut reactor, &mut log, |log| !log.is_empty());
    assert_eq!(log, ["refused"]);
    drop(let_go);
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(log, ["refused", "first", "second"]);
}

/// Gives out a piece of work for each line that it gets, as often as its client likes.
struct Eager;

impl Protocol<usize> for Eager {
    fn connected(&mut self, ctx: &mut Context<'_, usize>, _: &mut usize) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, usize>, _: &mut usize, _: &[u8]) -> Outcome {
        ctx.offload(
            || (),
            |_: &mut Self, _, told: &mut usize, _| {
                *told += 1;
                Ok(())
            },
        );
        Ok(())
    }
}

/// Only so many refusals were told in a turn, and many more came: millions waited, and what was done behind them.
#[test]
fn those_who_find_no_room_are_told_in_the_next_turn_however_many_they_are() {
    const CLIENTS: usize = 4;
    const LINES: usize = 30_000;
    let (threads, queue, frames) = (1, 8, 1_024);
    let config = Config::new().offload_threads(threads).offload_queue(queue).turn_frames(frames).turn_jobs(4);
    let mut reactor = Reactor::with_config(config).expect("a selector");
    let listener = reactor.net().listen("127.0.0.1:0", || Eager).expect("a free port");
    let at = reactor.net().local(listener).and_then(Address::ip).expect("it has an address");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client = dial(at);
            let mut writer = client.try_clone().expect("a descriptor");
            (client, thread::spawn(move || writer.write_all(&b"\n".repeat(LINES))))
        })
        .collect();
    let (mut told, began) = (0, Instant::now());
    while told < CLIENTS * LINES {
        reactor.turn(&mut told, Duration::from_millis(5)).expect("the selector works");
        let waiting = reactor.stats().offloads;
        assert!(waiting <= threads + queue + CLIENTS * frames, "{waiting} wait, after {told}");
        assert!(began.elapsed() < PATIENCE, "{told} were told");
    }
    for (client, writer) in clients {
        writer.join().expect("it does not panic").expect("all of it is read");
        drop(client);
    }
}

#[test]
fn work_that_never_returns_delays_no_other() {
    let mut reactor = narrow::<u32>(2, 100);
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, _, _| unreachable!("it never returns"));
    begins.recv_timeout(PATIENCE).expect("it begins");
    for _ in 0..100 {
        reactor.net().offload(|| 1, |_, sum, one| *sum += one.expect("room for it"));
    }
    let mut sum = 0;
    until(&mut reactor, &mut sum, |sum| *sum == 100);
    let began = Instant::now();
    drop(reactor); // and waits for nobody
    assert!(began.elapsed() < PATIENCE);
    drop(let_go);
}

/// Offloads a line each time it gets one, and answers with its length.
struct Lengths {
    /// Waits for the answer before it takes another line.
    in_order: bool,
}

impl Protocol<Journal> for Lengths {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, line: &[u8]) -> Outcome {
        let line = line.to_vec();
        if self.in_order {
            ctx.pause();
        }
        ctx.offload(
            move || {
                // The later the line, the sooner it is done.
                thread::sleep(Duration::from_millis(if line.len() < 3 { 30 } else { 0 }));
                assert!(!line.is_empty(), "an empty line");
                line.len()
            },
            |_: &mut Self, ctx, _, length| {
                ctx.send(format!("{}\n", length?));
                ctx.resume();
                Ok(())
            },
        );
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn a_handler_that_pauses_answers_in_order() {
    let (mut reactor, mut journal) = (start(), Journal::default());
    let (_, at) = listen(&mut reactor, || Lengths { in_order: true });
    let mut peer = dial(at);
    say(&peer, "1\n22\n333\n4444\n");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 8), b"1\n2\n3\n4\n");
}

#[test]
fn an_error_of_done_ends_the_connection() {
    let (mut reactor, mut journal) = (start(), Journal::default());
    let (_, at) = listen(&mut reactor, || Lengths { in_order: false });
    let mut peer = dial(at);
    say(&peer, "\n");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert!(matches!(&journal.calls[0].1, Call::Closed(why) if why == "failed: offloaded work panicked: an empty line"));
}

/// Panics when its work is done, if it is asked to.
struct Careless;

impl Protocol<Journal> for Careless {
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        let bytes = bytes.to_vec();
        ctx.offload(
            || (),
            move |_: &mut Self, ctx, _, _| {
                if bytes == b"panic" {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                ctx.send(bytes);
                Ok(())
            },
        );
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn a_panic_of_done_ends_its_connection_only() {
    let (mut reactor, mut journal) = (start(), Journal::default());
    let (_, at) = listen(&mut reactor, || Careless);
    reactor.net().offload(|| (), |_, _, _| std::panic::resume_unwind(Box::new("on purpose")));
    let (mut careful, mut careless) = (dial(at), dial(at));
    say(&careless, "panic");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut careless), b"");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert_eq!(journal.calls[0].1, Call::Closed("panicked: on purpose".to_owned()));
    say(&careful, "well?");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut careful, 5), b"well?");
}

#[test]
fn a_done_for_another_type_than_the_connections_is_dropped() {
    let (mut reactor, mut journal) = (start(), Journal::default());
    let (_, at) = listen(&mut reactor, || {
        recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call| {
            if *call == Call::Connected {
                ctx.offload(|| (), |_: &mut Careless, _, _, _| unreachable!("it is another's"));
            }
            Ok(())
        })
    });
    let _peer = dial(at);
    until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
    until_net(&mut reactor, &mut journal, |net, _| net.stats().offloads == 0);
    assert_eq!(journal.closings(), 0);
}

#[test]
fn an_offload_dies_with_its_connection_and_so_does_work_that_has_not_begun() {
    let (mut reactor, mut journal) = (narrow::<Journal>(1, 10), Journal::default());
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    let dropped = Rc::new(Cell::new(0));
    let mut wait = Some(wait);
    let witness = Rc::clone(&dropped);
    let (listener, at) = listen(&mut reactor, move || {
        let (begun, mut wait, witness) = (begun.clone(), wait.take(), Rc::clone(&witness));
        recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call| {
            if matches!(call, Call::Eof(_)) {
                ctx.close();
            }
            if matches!(call, Call::Received(_)) {
                let wait = wait.take().expect("one piece arrives");
                let key = ctx.key;
                let (first, second) = (Witness(Rc::clone(&witness)), Witness(Rc::clone(&witness)));
                let is_taken = ctx.net.offload_for(key, held(begun.clone(), wait), move |_: &mut Lengths, _, _, _| {
                    let _ = &first;
                    unreachable!("the connection has ended")
                });
                assert!(is_taken);
                let begun = begun.clone();
                ctx.net.offload_for(
                    key,
                    move || begun.send(()).expect("the test listens"),
                    move |_: &mut Lengths, _, _, _| {
                        let _ = &second;
                        unreachable!("the connection has ended")
                    },
                );
            }
            Ok(())
        })
    });
    let peer = dial(at);
    say(&peer, "x");
    until(&mut reactor, &mut journal, |_| begins.try_recv().is_ok());
    let key = journal.keys()[0];
    assert_eq!(reactor.stats().offloads, 2);
    drop(peer);
    reactor.net().close(listener);
    // The first piece still hangs in its thread: nobody waits for it.
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!((journal.closings(), dropped.get(), reactor.stats().offloads), (1, 2, 0));
    assert!(!reactor.net().offload_for(key, || (), |_: &mut Lengths, _, _, _| Ok(())), "its key is stale");
    drop(let_go);
    // The thread is free again, and the second piece was taken back: what comes next is the next to begin.
    reactor.net().offload(|| (), |_, journal: &mut Journal, _| journal.calls.clear());
    reactor.run(&mut journal).expect("the selector works");
    assert!(journal.calls.is_empty());
    assert!(begins.try_recv().is_err(), "it never began");
}

#[test]
fn a_successor_has_none_of_its_predecessors_offloads() {
    struct Successor;
    impl Protocol<Journal> for Successor {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
            ctx.offload(
                || "its own\n",
                |_: &mut Self, ctx, _, text| {
                    ctx.send(text?);
                    ctx.close();
                    Ok(())
                },
            );
            Ok(())
        }
    }
    struct First;
    impl Protocol<Journal> for First {
        fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, _: &[u8]) -> Outcome {
            ctx.offload(|| (), |_: &mut Self, _, _, _| unreachable!("it has become something else"));
            ctx.offload(
                || (),
                |_: &mut Successor, ctx, _, _| {
                    ctx.send("its predecessor's\n");
                    Ok(())
                },
            );
            ctx.upgrade(Successor);
            Ok(())
        }
    }
    let (mut reactor, mut journal) = (narrow(1, 10), Journal::default());
    let (_, at) = listen(&mut reactor, || First);
    let mut peer = dial(at);
    say(&peer, "x");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"its own\n");
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
