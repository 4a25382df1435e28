//! What panics when it is dropped.

use crate::common::{
    Bad, Call, Ctx, Journal, Nothing, PATIENCE, Talk, dial, listen, ms, read_exactly, recorder, say, settle, turn, until,
    until_net,
};
use mainspring::{Config, Fault, Framer, Key, Panics, Produced, Reactor, Step, Terminator};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

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

/// Two that were thrown away together, and both panicked, aborted the program.
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

/// What many timers of one that has ended would have run was thrown away in one go, when no other timer was set: one
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
