//! The eleven promises, sentence by sentence. What needs counting system calls, allocations or cuts of a corpus has test
//! binaries of its own.

mod common;

use common::{
    ABORTED, Call, Ctx, FINISHED, Journal, Nothing, On, PATIENCE, PEER_FINISHED, Recorder, SHORT, SHUT_DOWN, STUFF, TICK,
    closing_of, dial, echo, ends_with, guest, is_closed, keep_log, lines, listen, logged, nobody, note, pass, quiet,
    read_exactly, read_to_end, recorder, reset, run_out, say, settle, start, start_with, stuff, until, until_net,
};
use mainspring::{
    Config, Connect, Dispatcher, Drained, Fault, Framer, Gone, Key, Limit, Listen, Net, Outcome, Panics, Produced, Protocol,
    Reactor, Reason, Refusal, Remote, Scope, Source, Step, Terminator, Timer,
};
use std::{
    cell::{Cell, RefCell},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

/// A listener that never answers: its backlog is full, so that whoever connects waits.
fn deaf() -> (Vec<socket2::Socket>, SocketAddr) {
    let (listener, addr) = nobody();
    listener.listen(0).expect("a backlog of nothing");
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a socket option");
        let _ = filler.connect(&addr.into()); // in progress
        sockets.push(filler);
    }
    (sockets, addr)
}

// ---------------------------------------------------------------------------- 1. no callback runs inside another

/// Knows when two of those that share it run at once.
#[derive(Clone, Default)]
struct Alone(Rc<Cell<bool>>);

impl Alone {
    fn run<T>(&self, what: impl FnOnce() -> T) -> T {
        assert!(!self.0.replace(true), "inside another");
        let result = what();
        self.0.set(false);
        result
    }
}

#[test]
fn nothing_in_net_link_or_context_calls_your_code() {
    let (mut reactor, mut journal) = start();
    let alone = Alone::default();
    let quiet_alone = alone.clone();
    let calm = move |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| quiet_alone.run(|| Ok(()));
    let (a, peer_of_a) = guest(&mut reactor, &mut journal, calm.clone());
    let (b, _peer_of_b) = guest(&mut reactor, &mut journal, calm.clone());
    let (c, _peer_of_c) = guest(&mut reactor, &mut journal, calm.clone());
    let (d, peer_of_d) = guest(&mut reactor, &mut journal, calm.clone());
    for held in [a, d] {
        reactor.net().link(held).expect("open").pause();
    }
    say(&peer_of_a, "held back\n");
    say(&peer_of_d, "held back\n");
    settle(&mut reactor, &mut journal);
    let busy = alone.clone();
    let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if !matches!(call, Call::Received(_)) {
            return busy.run(|| Ok(()));
        }
        let inner = busy.clone();
        busy.run(|| {
            ctx.net.listen("127.0.0.1:0", || recorder(quiet as On)).expect("a free port");
            let factory_alone = inner.clone();
            let listener = ctx
                .net
                .listen_with("127.0.0.1:0", Listen::new(), move |_, _, _| {
                    factory_alone.run(|| Err::<Recorder<On>, _>(Refusal::silent()))
                })
                .expect("a free port");
            let addr = ctx.net.local(listener).and_then(|local| local.ip()).expect("an address");
            ctx.net.connect(addr, recorder(calm.clone()));
            ctx.net.connect("not an address", recorder(calm.clone()));
            ctx.net.link(a).expect("open").set_terminator(Terminator::line(9));
            ctx.net.link(a).expect("open").resume();
            ctx.net.close(b);
            ctx.net.abort(c);
            ctx.net.fail(d, "failed");
            let (told, posted, fired, made) = (inner.clone(), inner.clone(), inner.clone(), inner.clone());
            let own = ctx.key;
            ctx.net.post(move |_, _| posted.run(|| ()));
            ctx.net.after(Duration::ZERO, move |_, _| fired.run(|| ()));
            let _ = ctx.net.tell(own, move |_: &mut Nothing, _, _| told.run(|| Ok(())));
            ctx.net.drain(PATIENCE);
            ctx.produce(move |_: &mut Vec<u8>| made.run(|| Ok(Produced::Done)));
            ctx.set_output_limits(0, 1, 100);
            ctx.send([b'.'; 50]);
            ctx.send([b'.'; 500]);
            ctx.upgrade(Nothing);
            ctx.close();
            ctx.abort();
            Ok(())
        })
    });
    say(&peer, "go");
    until(&mut reactor, &mut journal, |journal| [b, c, d, key].iter().all(|key| is_closed(journal, *key)));
    settle(&mut reactor, &mut journal);
    for key in [a, b, c, d, key] {
        let why = closing_of(&journal, key).unwrap_or_default();
        assert!(!why.contains("panicked"), "{why}");
    }
}

#[test]
fn closings_tells_and_jobs_wait_their_turn() {
    let (mut reactor, mut journal) = start();
    let (other, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Received(_)) {
            let key = ctx.key;
            ctx.net.tell(other, move |_: &mut Recorder<On>, ctx, journal| {
                note(journal, ctx.key, "told");
                Ok(())
            });
            ctx.net.post(move |_, journal| note(journal, key, "posted"));
            ctx.net.abort(other);
            note(journal, key, "done");
        }
        Ok(())
    });
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, other));
    assert_eq!(journal.frames(), ["done", "told", "posted"]);
    assert_eq!(journal.calls.last().map(|(key, _)| *key), Some(other), "`closed` came last");
}

#[test]
fn a_factory_runs_between_callbacks_and_may_refuse() {
    let (mut reactor, mut journal) = start();
    let refusal = |_: &mut Net<'_, Journal>, journal: &mut Journal, peer: &mainspring::Address| {
        assert!(peer.ip().is_some());
        assert!(journal.calls.is_empty());
        Err::<Nothing, _>(Refusal::from("no\n"))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), refusal).expect("a free port");
    let addr = reactor.net().local(listener).and_then(|local| local.ip()).expect("an address");
    let mut peer = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"no\n");
}

// ---------------------------------------------------------------------------------- 2. `closed` exactly once, last

/// Notes its drop after `closed`.
struct Mortal {
    drops: Rc<RefCell<Vec<&'static str>>>,
}

impl Protocol<Journal> for Mortal {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn received(&mut self, _: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        match bytes {
            b"err" => Err("asked to fail".into()),
            b"panic" => panic!("asked to panic"),
            _ => Ok(()),
        }
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        self.drops.borrow_mut().push("closed");
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.drops.borrow_mut().push("dropped");
    }
}

struct Life {
    reactor: Reactor<Journal>,
    journal: Journal,
    key: Key,
    peer: Option<TcpStream>,
    drops: Rc<RefCell<Vec<&'static str>>>,
}

impl Life {
    fn accepted() -> Self {
        let (mut reactor, mut journal) = start();
        let drops = Rc::new(RefCell::new(Vec::new()));
        let given = Rc::clone(&drops);
        let (listener, addr) = listen(&mut reactor, move || Mortal { drops: Rc::clone(&given) });
        let peer = Some(dial(addr));
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        reactor.net().close(listener);
        let key = journal.calls[0].0;
        Self { reactor, journal, key, peer, drops }
    }

    fn connecting(to: SocketAddr, options: Connect) -> Self {
        let (mut reactor, journal) = start();
        let drops = Rc::new(RefCell::new(Vec::new()));
        let key = reactor.net().connect_with(to, options, Mortal { drops: Rc::clone(&drops) });
        Self { reactor, journal, key, peer: None, drops }
    }

    /// Exactly one `closed`, then one drop, and nothing else ever; says why.
    #[track_caller]
    fn ends(mut self) -> String {
        let key = self.key;
        until(&mut self.reactor, &mut self.journal, |journal| is_closed(journal, key));
        settle(&mut self.reactor, &mut self.journal);
        assert_eq!(*self.drops.borrow(), ["closed", "dropped"]);
        assert_eq!(self.journal.closings(), 1);
        assert!(!self.reactor.net().is_open(key));
        self.reactor.shutdown(&mut self.journal);
        assert_eq!(self.journal.closings(), 1);
        closing_of(&self.journal, key).expect("it is closed")
    }
}

#[test]
fn closed_comes_once_for_one_that_was_refused() {
    let (_socket, addr) = nobody();
    let life = Life::connecting(addr, Connect::new());
    assert!(life.ends().starts_with("could not connect to 127.0.0.1"));
}

#[test]
fn closed_comes_once_for_one_that_timed_out_connecting() {
    let (_sockets, addr) = deaf();
    let life = Life::connecting(addr, Connect::new().timeout(SHORT));
    let why = life.ends();
    assert!(why.starts_with("could not connect") && why.contains("timed out"), "{why}");
}

#[test]
fn closed_comes_once_for_an_address_that_is_none() {
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect("nonsense", recorder(quiet as On));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key).len(), 1);
}

#[test]
fn closed_comes_once_for_one_that_errs() {
    let life = Life::accepted();
    say(life.peer.as_ref().expect("a peer"), "err");
    assert_eq!(life.ends(), "failed: asked to fail");
}

#[test]
fn closed_comes_once_for_one_that_panics() {
    let life = Life::accepted();
    say(life.peer.as_ref().expect("a peer"), "panic");
    assert_eq!(life.ends(), "panicked: asked to panic");
}

#[test]
fn closed_comes_once_for_one_that_is_reset() {
    let mut life = Life::accepted();
    reset(life.peer.take().expect("a peer"));
    assert!(life.ends().starts_with("connection lost"));
}

#[test]
fn closed_comes_once_for_one_whose_peer_ends() {
    let mut life = Life::accepted();
    life.peer = None;
    assert_eq!(life.ends(), PEER_FINISHED);
}

#[test]
fn closed_comes_once_for_one_that_is_closed_or_aborted() {
    let mut life = Life::accepted();
    life.reactor.net().close(life.key);
    assert_eq!(life.ends(), FINISHED);
    let mut life = Life::accepted();
    life.reactor.net().abort(life.key);
    assert_eq!(life.ends(), ABORTED);
}

#[test]
fn closed_comes_once_for_one_that_is_shut_down() {
    let mut life = Life::accepted();
    life.reactor.shutdown(&mut life.journal);
    assert_eq!(life.ends(), SHUT_DOWN);
}

#[test]
fn plain_drop_has_no_state_to_lend_and_drops_silently() {
    let life = Life::accepted();
    let drops = Rc::clone(&life.drops);
    drop(life);
    assert_eq!(*drops.borrow(), ["dropped"]);
}

#[test]
fn during_a_shutdown_connect_opens_nothing_so_that_it_ends() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let drops = Rc::new(RefCell::new(Vec::new()));
    let given = Rc::clone(&drops);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.net.connect(addr, Mortal { drops: Rc::clone(&given) });
            assert!(!ctx.net.is_open(key) && ctx.net.link(key).is_none() && !ctx.net.send(key, "x"));
        }
        Ok(())
    });
    reactor.shutdown(&mut journal);
    assert_eq!(*drops.borrow(), ["dropped"]);
    assert_eq!(journal.closings(), 1);
}

#[test]
fn closed_may_connect_again_and_fail_at_once() {
    let (mut reactor, mut journal) = start();
    let tries = Rc::new(Cell::new(0));
    let tried = Rc::clone(&tries);
    fn again(tries: &Rc<Cell<u32>>, ctx: &mut Ctx<'_>, call: &Call) -> Outcome {
        if matches!(call, Call::Closed(_)) && tries.replace(tries.get() + 1) < 5 {
            let tries = Rc::clone(tries);
            ctx.net
                .connect("nonsense", recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| again(&tries, ctx, call)));
        }
        Ok(())
    }
    let first = recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| again(&tries, ctx, call));
    reactor.net().connect("nonsense", first);
    for closings in 1..=6 {
        // Each comes round in the next turn, which does not sleep.
        reactor.turn(&mut journal, None).expect("the selector works");
        assert_eq!(journal.closings(), closings);
    }
    assert_eq!(tried.get(), 6);
}

// --------------------------------------------------------------------------------------- 3. nothing after the end

type End = fn(&mut Ctx<'_>) -> Outcome;

const ENDS: [End; 4] = [
    |ctx| {
        ctx.close();
        Ok(())
    },
    |ctx| {
        ctx.abort();
        Ok(())
    },
    |ctx| {
        ctx.fail("asked to fail");
        Ok(())
    },
    |_| Err("asked to fail".into()),
];

#[test]
fn frames_after_the_end_are_not_delivered() {
    for end in ENDS {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            lines(ctx, journal, call)?;
            if matches!(call, Call::Frame(_)) { end(ctx) } else { Ok(()) }
        });
        say(&peer, "one\ntwo\nthree\n");
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.of(key).len(), 3, "{:?}", journal.of(key));
    }
}

/// Sets timers and asks for a tell, and ends.
struct Ends(End);

impl Ends {
    fn note(text: &'static str) -> impl FnMut(&mut Self, &mut Ctx<'_>, &mut Journal) -> Outcome {
        move |_, ctx, journal| {
            note(journal, ctx.key, text);
            Ok(())
        }
    }
}

impl Protocol<Journal> for Ends {
    fn received(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, _: &[u8]) -> Outcome {
        let key = ctx.key;
        // It cannot leave as a whole, so that a polite close takes its time.
        ctx.send(vec![b'.'; STUFF]);
        ctx.set_deadline(Duration::ZERO);
        ctx.set_stall_timeout(Duration::ZERO);
        ctx.after(Duration::ZERO, Self::note("a timer"));
        ctx.every(TICK, Self::note("a period"));
        ctx.net.tell_after(key, Duration::ZERO, Self::note("a tell by timer"));
        assert!(ctx.net.tell(key, Self::note("told")));
        note(journal, key, "ended");
        let outcome = self.0(ctx);
        if outcome.is_ok() {
            assert!(!ctx.net.tell(key, Self::note("told too late")));
        }
        outcome
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, limit: Limit) -> Outcome {
        journal.note(ctx.key, Call::Exceeded(limit));
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn timers_and_time_outs_stop_at_the_end_and_only_tells_accepted_before_follow_it() {
    for end in ENDS {
        let (mut reactor, mut journal) = start();
        let (_, addr) = listen(&mut reactor, move || Ends(end));
        let peer = dial(addr);
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
        let key = journal.calls[0].0;
        pass(&mut reactor, &mut journal, SHORT);
        reactor.net().abort(key);
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.frames(), ["ended", "told"]);
        assert_eq!(journal.calls.len(), 3, "{:?}", journal.calls);
        assert!(!closing_of(&journal, key).expect("closed").contains("panicked"));
    }
}

#[test]
fn by_key_a_connection_that_ends_is_not_open_any_more() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    stuff(&mut reactor, &mut journal, key);
    let mut net = reactor.net();
    assert!(net.is_open(key) && net.close(key));
    assert!(!net.is_open(key) && net.link(key).is_none());
    assert!(!net.send(key, "x") && !net.send_shared(key, &Rc::from(&b"x"[..])));
    assert!(!net.tell(key, |_: &mut Recorder<On>, _, _| Ok(())));
    assert!(!net.close(key) && !net.half_close(key) && !net.fail(key, "x"));
    assert!(!net.throttle(key, key));
    let timer = net.tell_after(key, Duration::ZERO, |_: &mut Recorder<On>, _, _| Ok(()));
    assert!(!net.cancel(timer), "it was never set");
    assert!(net.abort(key), "only `abort` still works");
    assert!(!net.abort(key));
    ends_with(&mut reactor, &mut journal, key, ABORTED);
}

#[test]
fn its_own_commands_do_nothing_after_the_end() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, journal, call| {
        if matches!(call, Call::Received(_) | Call::Closed(_)) {
            if matches!(call, Call::Received(_)) {
                ctx.send("bye");
                ctx.close();
            }
            ctx.send("more");
            write!(ctx, "and {call:?}");
            ctx.send_netstring("more");
            ctx.send_shared(&Rc::from(&b"more"[..]));
            ctx.produce(|_: &mut Vec<u8>| panic!("it was asked"));
            ctx.set_terminator(Terminator::line(1));
            ctx.set_deadline(Duration::ZERO);
            ctx.set_idle_timeout(Duration::ZERO);
            ctx.set_output_limits(0, 0, 0);
            ctx.set_hold_back(false);
            ctx.pause();
            ctx.resume();
            ctx.half_close();
            ctx.close();
            ctx.fail("too late");
            assert!(!ctx.link().send("more"));
            assert!(ctx.link().write_all(b"more").is_err());
            let timer = ctx.every(TICK, |_: &mut Nothing, _, _| panic!("it fired"));
            assert!(!ctx.net.cancel(timer));
            note(journal, ctx.key, "asked");
        }
        Ok(())
    });
    say(&peer, "x");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"bye");
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    assert_eq!(journal.frames(), ["asked", "asked"]);
}

#[test]
fn a_deadline_while_connecting_gives_closed_alone() {
    let (_sockets, addr) = deaf();
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect(addr, recorder(quiet as On));
    reactor.net().link(key).expect("the key is good at once").set_deadline(TICK);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key), [Call::Closed(Reason::Limit(Limit::Deadline).to_string())]);
}

#[test]
fn an_error_while_connecting_gives_closed_alone() {
    let (_socket, addr) = nobody();
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect(addr, recorder(quiet as On));
    reactor.net().send(key, "queued");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key).len(), 1);
}

#[test]
fn the_first_cause_wins() {
    let orders: [(fn(&mut Ctx<'_>), &str); 3] = [
        (
            |ctx| {
                ctx.fail("first");
                ctx.abort();
            },
            "failed: first",
        ),
        (
            |ctx| {
                ctx.abort();
                ctx.fail("second");
                ctx.close();
            },
            ABORTED,
        ),
        (
            |ctx| {
                ctx.fail("first");
                ctx.fail("second");
                ctx.close();
            },
            "failed: first",
        ),
    ];
    for (order, why) in orders {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if matches!(call, Call::Received(_)) {
                order(ctx);
                return Err("last".into());
            }
            Ok(())
        });
        say(&peer, "x");
        ends_with(&mut reactor, &mut journal, key, why);
    }
}

#[test]
fn a_polite_close_still_flushing_is_overtaken_by_an_error() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().close(key);
    settle(&mut reactor, &mut journal);
    assert!(!is_closed(&journal, key));
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
}

#[test]
fn a_close_inside_a_callback_that_then_fails_is_overtaken() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.close();
            return Err("after all".into());
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, "failed: after all");
}

#[test]
fn the_reason_is_eof_when_the_peer_had_ended_before_we_asked() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Eof(_)) {
            ctx.send("answer");
            ctx.close();
        }
        Ok(())
    });
    peer.shutdown(Shutdown::Write).expect("connected");
    ends_with(&mut reactor, &mut journal, key, PEER_FINISHED);
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn err_tries_one_write_of_what_is_queued() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send("500 sorry\n");
            return Err("gave up".into());
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, "failed: gave up");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"500 sorry\n");
}

#[test]
fn err_does_not_linger_over_output_that_does_not_leave() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().fail(key, "gave up");
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some("failed: gave up"));
    assert!(read_to_end(&mut reactor, &mut journal, &mut peer).len() < STUFF);
}

#[test]
fn abort_drops_what_is_queued_and_resets() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send("never");
            ctx.abort();
        }
        Ok(())
    });
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, key, ABORTED);
    let error = peer.read(&mut [0; 9]).expect_err("a reset is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

// ------------------------------------------------------------------------------ 4. registered once, edge-triggered

#[test]
fn readiness_is_remembered_while_nobody_reads() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").pause();
    say(&peer, "an edge that comes once");
    settle(&mut reactor, &mut journal);
    reactor.net().link(key).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received().len() == 23);
}

#[test]
fn urgent_data_does_not_stall_a_stream() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    let out_of_band = |byte: &[u8]| {
        socket2::SockRef::from(&peer).send_out_of_band(byte).expect("connected");
    };
    for n in 1..=5 {
        out_of_band(b"!");
        say(&peer, "x");
        until(&mut reactor, &mut journal, |journal| journal.received().iter().filter(|byte| **byte == b'x').count() == n);
    }
}

#[test]
fn more_than_a_turn_may_read_comes_without_another_edge() {
    let (mut reactor, mut journal) = start_with(Config::new().read_bytes(4096).turn_bytes(4096));
    let (_, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, vec![b'.'; 60_000]);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
    assert_eq!(journal.received().len(), 60_000);
}

// ------------------------------------------------------------------------------------------ 5. everything is bounded

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

#[test]
fn length_and_stream_fire_once_and_fall_back_to_none() {
    let cases: [(Terminator, &[u8], usize); 4] = [
        (Terminator::exactly(3), b"abcrest", 1),
        (Terminator::exactly(0), b"rest", 1),
        (Terminator::Stream(3), b"abcrest", 1),
        (Terminator::Stream(0), b"rest", 1),
    ];
    for (terminator, input, frames) in cases {
        let name = format!("{terminator:?}");
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        settle(&mut reactor, &mut journal);
        say(&peer, input);
        until(&mut reactor, &mut journal, |journal| journal.received().ends_with(b"rest"));
        assert_eq!(journal.frames().len(), frames, "{name}");
    }
}

#[test]
fn an_empty_delimiter_means_none() {
    for terminator in [Terminator::delimiter(&b""[..], 9), Terminator::stream_until(&b""[..])] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, "raw");
        until(&mut reactor, &mut journal, |journal| journal.received() == b"raw");
        assert!(journal.frames().is_empty());
    }
}

struct Repeats(Step);

impl Framer for Repeats {
    fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_framers_step_without_progress_or_beyond_the_input_is_failed() {
    let steps = [
        Step::Frame { bytes: 0..0, consumed: 0 },
        Step::Piece { bytes: 0..0, consumed: 0 },
        Step::Need(0),
        Step::Need(1),
        Step::Frame { bytes: 0..9, consumed: 1 },
        Step::Frame { bytes: 0..1, consumed: 9 },
        Step::Piece { bytes: std::ops::Range { start: 1, end: 0 }, consumed: 1 },
    ];
    for step in steps {
        let name = format!("{step:?}");
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(Terminator::custom(Repeats(step), 100));
        say(&peer, "abc");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(closing_of(&journal, key).expect("closed").starts_with("failed: "), "{name}");
    }
}

#[test]
fn a_period_is_at_least_a_millisecond() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let began = Instant::now();
    reactor.net().every(Duration::ZERO, |net, fired| {
        *fired += 1;
        if *fired == 10 {
            net.stop();
        }
    });
    reactor.run(&mut 0).expect("the selector works");
    assert!(began.elapsed() >= Duration::from_millis(10));
}

#[test]
fn an_accepted_connection_stops_reading_above_the_high_mark_and_goes_on_at_the_low_one() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, echo);
    peer.set_nonblocking(true).expect("a socket option");
    let (mut sent, mut most) = (0, 0);
    let block = [b'.'; 64 << 10];
    // Until neither end takes any more, however long we offer it.
    let mut refused = 0;
    while refused < 20 {
        match peer.write(&block) {
            Ok(n) => (sent, refused) = (sent + n, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        reactor.turn(&mut journal, Duration::from_millis(1)).expect("the selector works");
        most = most.max(reactor.net().link(key).expect("open").queued());
    }
    assert!(most > 64 << 10, "it was congested");
    assert!(most <= (64 + 64) << 10, "the high mark and one read: {most}");
    peer.set_nonblocking(false).expect("a socket option");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, sent).len(), sent);
}

#[test]
fn a_connecting_one_does_not_hold_back_unless_asked_to() {
    for hold_back in [false, true] {
        let (mut reactor, mut journal) = start();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let key = reactor.net().connect(listener.local_addr().expect("bound"), recorder(quiet as On));
        let (peer, _) = listener.accept().expect("it connects");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        if hold_back {
            reactor.net().link(key).expect("open").set_hold_back(true);
        }
        stuff(&mut reactor, &mut journal, key);
        say(&peer, "x");
        if hold_back {
            settle(&mut reactor, &mut journal);
            assert_eq!(journal.received(), b"");
        } else {
            until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
        }
    }
}

// ------------------------------------------------------------------------------ 6. an `Err` or a panic ends one only

#[test]
fn an_err_or_a_panic_ends_one_connection_and_never_the_turn() {
    let (mut reactor, mut journal) = start();
    let behave = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes == b"err" => Err("asked to fail".into()),
        Call::Received(bytes) if bytes == b"panic" => panic!("asked to panic"),
        _ => Ok(()),
    };
    let (err, peer_of_err) = guest(&mut reactor, &mut journal, behave);
    let (panic, peer_of_panic) = guest(&mut reactor, &mut journal, behave);
    let (fine, peer) = guest(&mut reactor, &mut journal, behave);
    say(&peer_of_err, "err");
    say(&peer_of_panic, "panic");
    say(&peer, "fine");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2 && journal.of(fine).len() == 2);
    assert_eq!(closing_of(&journal, err).as_deref(), Some("failed: asked to fail"));
    assert_eq!(closing_of(&journal, panic).as_deref(), Some("panicked: asked to panic"));
    assert!(reactor.net().is_open(fine));
}

#[test]
fn every_callback_may_fail_or_panic() {
    let calls: [fn(&Call) -> bool; 6] = [
        |call| *call == Call::Connected,
        |call| matches!(call, Call::Frame(_)),
        |call| matches!(call, Call::Exceeded(_)),
        |call| *call == Call::Draining,
        |call| *call == Call::Writable,
        |call| matches!(call, Call::Eof(_)),
    ];
    for panics in [false, true] {
        for (n, is_it) in calls.into_iter().enumerate() {
            let (mut reactor, mut journal) = start();
            let on = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                lines(ctx, journal, call)?;
                match is_it(call) {
                    true if panics => panic!("asked to"),
                    true => Err("asked to".into()),
                    false => Ok(()),
                }
            };
            let (key, mut peer) = guest(&mut reactor, &mut journal, on);
            match n {
                1 => say(&peer, "line\n"),
                2 => _ = reactor.net().link(key).map(|mut link| link.set_deadline(Duration::ZERO)),
                3 => reactor.net().drain(PATIENCE),
                4 => {
                    stuff(&mut reactor, &mut journal, key);
                    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
                }
                5 => peer.shutdown(Shutdown::Write).expect("connected"),
                _ => {}
            }
            until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
            let why = closing_of(&journal, key).expect("closed");
            let expected = if panics { "panicked: asked to" } else { "failed: asked to" };
            assert!(why == expected || n == 2 && !panics, "{n}: {why}");
            assert_eq!(journal.closings(), 1);
        }
    }
}

#[test]
fn a_panic_in_closed_is_isolated_and_the_slot_is_free() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_, _, call| match call {
        Call::Closed(_) => panic!("in closed"),
        _ => Ok(()),
    });
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 1);
    assert!(!reactor.net().is_open(key));
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_panic_of_a_factory_resets_that_guest_only() {
    let (mut reactor, mut journal) = start();
    let mut guests = 0;
    let (_, addr) = listen(&mut reactor, move || {
        guests += 1;
        assert!(guests != 1, "the first one is not welcome");
        recorder(quiet as On)
    });
    let mut first = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut first), b"");
    let _second = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    assert_eq!(journal.keys().len(), 1);
}

#[test]
fn a_panic_of_a_timer_a_post_or_a_tell_is_isolated() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    net.post(|_, _| panic!("a post"));
    net.after(Duration::ZERO, |_, _| panic!("a timer"));
    net.every(Duration::from_millis(1), |_, _| panic!("a period"));
    net.tell(key, |_: &mut Recorder<On>, _, _| panic!("a tell"));
    net.post(move |_, journal| note(journal, key, "the next one"));
    ends_with(&mut reactor, &mut journal, key, "panicked: a tell");
    assert_eq!(journal.frames(), ["the next one"]);
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_panic_of_a_connections_own_timer_ends_the_connection() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell_after(key, Duration::ZERO, |_: &mut Recorder<On>, _, _| panic!("a timer"));
    ends_with(&mut reactor, &mut journal, key, "panicked: a timer");
}

/// Panics when it is dropped.
struct Grenade;

impl Protocol<Journal> for Grenade {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[test]
fn a_panic_of_a_handlers_own_drop_is_isolated() {
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Grenade);
    for closings in 1..=3 {
        let peer = dial(addr);
        until(&mut reactor, &mut journal, |journal| journal.keys().len() == closings);
        drop(peer);
        until(&mut reactor, &mut journal, |journal| journal.closings() == closings);
        settle(&mut reactor, &mut journal);
    }
}

#[test]
fn a_panic_of_a_producer_or_framer_ends_its_connection() {
    struct Bomb;
    impl Framer for Bomb {
        fn next(&mut self, _: &mut [u8]) -> Result<Step, Fault> {
            panic!("a framer")
        }
    }
    let (mut reactor, mut journal) = start();
    let (a, peer) = guest(&mut reactor, &mut journal, quiet);
    let (b, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(a).expect("open").set_terminator(Terminator::custom(Bomb, 9));
    reactor.net().link(b).expect("open").produce(|_: &mut Vec<u8>| panic!("a producer"));
    say(&peer, "x");
    ends_with(&mut reactor, &mut journal, a, "panicked: a framer");
    ends_with(&mut reactor, &mut journal, b, "panicked: a producer");
}

/// An error that panics when it is shown, and when it is dropped.
struct Mine;

impl std::fmt::Debug for Mine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mine")
    }
}

impl std::fmt::Display for Mine {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("shown")
    }
}

impl std::error::Error for Mine {}

impl Drop for Mine {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "an error dropped");
    }
}

/// Fails with one of these, and has ended before or not.
struct Miner;

impl Protocol<Journal> for Miner {
    fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        if bytes == b"late" {
            ctx.abort();
        }
        Err(Mine.into())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(format!("{why:?}")));
    }
}

#[test]
fn a_panic_of_an_errors_own_display_or_drop_is_isolated() {
    keep_log(); // which shows it
    let (mut reactor, mut journal) = start();
    let (_, addr) = listen(&mut reactor, || Miner);
    for (word, why) in [("x", "Failed(Mine)"), ("late", "Abort")] {
        let peer = dial(addr);
        say(&peer, word);
        until(&mut reactor, &mut journal, |journal| {
            journal.calls.pop().is_some_and(|(_, call)| call == Call::Closed(why.into()))
        });
        settle(&mut reactor, &mut journal);
    }
    let _peer = dial(addr);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().connections == 1);
    let key = reactor.net().connections().iter().find(|one| one.kind == mainspring::Kind::Accepted).expect("it is open").key;
    reactor.net().fail(key, Mine);
    drop(reactor);
}

/// Named in the log.
struct Unlucky;

impl Protocol<Journal> for Unlucky {
    fn received(&mut self, _: &mut Ctx<'_>, _: &mut Journal, bytes: &[u8]) -> Outcome {
        if bytes == b"panic" { panic!("seven years") } else { Err("seven months".into()) }
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

#[test]
fn a_panic_is_logged_once_as_an_error_with_key_peer_and_protocol_type() {
    keep_log();
    for (word, text, level) in [("panic", "seven years", log::Level::Error), ("err", "seven months", log::Level::Warn)] {
        let (mut reactor, mut journal) = start();
        let (_, addr) = listen(&mut reactor, || Unlucky);
        let peer = dial(addr);
        say(&peer, word);
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        settle(&mut reactor, &mut journal);
        let records = logged(|record| record.contains(text));
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(records[0].0, level);
        let who = peer.local_addr().expect("connected").to_string();
        for part in [&journal.calls[0].0.to_string(), &who, std::any::type_name::<Unlucky>()] {
            assert!(records[0].1.contains(part), "{part} is not in {records:?}");
        }
    }
}

// ------------------------------------------------------------------------------------- and if panics are to propagate

fn propagating() -> (Reactor<Journal>, Journal) {
    start_with(Config::new().panics(Panics::Propagate))
}

/// Turns until a panic leaves a turn.
#[track_caller]
fn until_panic(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> String {
    let caught = catch_unwind(AssertUnwindSafe(|| until(reactor, journal, |_| false)));
    let payload = caught.expect_err("it never ends otherwise");
    payload.downcast_ref::<&str>().map_or_else(|| "not a text".to_owned(), |text| (*text).to_owned())
}

#[test]
fn a_panic_propagates_if_the_config_lets_it_and_the_others_go_on() {
    let (mut reactor, mut journal) = propagating();
    let behave = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes == b"panic" => panic!("through the turn"),
        _ => Ok(()),
    };
    let (bad, peer_of_bad) = guest(&mut reactor, &mut journal, behave);
    let (good, peer_of_good) = guest(&mut reactor, &mut journal, behave);
    say(&peer_of_bad, "panic");
    say(&peer_of_good, "fine");
    assert_eq!(until_panic(&mut reactor, &mut journal), "through the turn");
    until(&mut reactor, &mut journal, |journal| journal.of(good).len() == 2);
    ends_with(&mut reactor, &mut journal, bad, "panicked: through the turn");
}

#[test]
fn a_propagated_panic_of_a_factory_leaves_the_next_guest_alone() {
    let (mut reactor, mut journal) = propagating();
    let mut guests = 0;
    let (_, addr) = listen(&mut reactor, move || {
        guests += 1;
        if guests == 1 {
            panic!("not welcome");
        }
        recorder(quiet as On)
    });
    let _peers = [dial(addr), dial(addr)];
    assert_eq!(until_panic(&mut reactor, &mut journal), "not welcome");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
}

#[test]
fn a_propagated_panic_of_a_periodic_timer_takes_it_off() {
    let (mut reactor, mut journal) = propagating();
    reactor.net().every(Duration::from_millis(1), |_, _| panic!("once"));
    assert_eq!(until_panic(&mut reactor, &mut journal), "once");
    pass(&mut reactor, &mut journal, SHORT);
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_propagated_panic_of_a_job_leaves_the_jobs_behind_it() {
    let (mut reactor, mut journal) = propagating();
    let remote = reactor.remote();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    remote.post(|_, _| panic!("a job")).expect("the reactor lives");
    remote.post(move |_, journal| note(journal, key, "the next job")).expect("the reactor lives");
    assert_eq!(until_panic(&mut reactor, &mut journal), "a job");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["the next job"]);
}

#[test]
fn a_propagated_panic_in_closed_leaves_the_next_closings() {
    let (mut reactor, mut journal) = propagating();
    let guests: Vec<_> = (0..2)
        .map(|_| {
            let mut has_panicked = false;
            guest(&mut reactor, &mut journal, move |_: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                if matches!(call, Call::Closed(_)) && journal.closings() == 1 && !std::mem::replace(&mut has_panicked, true) {
                    panic!("in closed");
                }
                Ok(())
            })
        })
        .collect();
    for (key, _) in &guests {
        reactor.net().close(*key);
    }
    assert_eq!(until_panic(&mut reactor, &mut journal), "in closed");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    run_out(&mut reactor, &mut journal);
}

// ------------------------------------------------------------------------------- 7. a key never names another's socket

#[test]
fn a_key_is_never_used_again() {
    let (mut reactor, mut journal) = start();
    let mut keys = Vec::new();
    for _ in 0..20 {
        let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().abort(key);
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(!keys.contains(&key));
        keys.push(key);
    }
    let (alive, _peer) = guest(&mut reactor, &mut journal, quiet);
    for key in keys {
        let mut net = reactor.net();
        assert!(net.link(key).is_none() && net.peer(key).is_none() && net.local(key).is_none());
        assert!(!net.send(key, "x") && !net.close(key) && !net.abort(key) && !net.fail(key, "x") && !net.is_open(key));
        assert!(!net.throttle(key, alive) && !net.throttle(alive, key));
    }
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(alive), [Call::Connected]);
}

#[test]
fn after_closed_a_key_finds_nothing_even_while_its_socket_lingers() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    assert!(reactor.net().peer(key).is_some() && reactor.net().local(key).is_some());
    reactor.net().close(key);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    let net = reactor.net();
    assert!(net.peer(key).is_none() && net.local(key).is_none());
}

#[test]
fn an_event_for_the_gone_reaches_no_successor() {
    let (mut reactor, mut journal) = start();
    let (victim, peer) = guest(&mut reactor, &mut journal, quiet);
    let (_, addr) = listen(&mut reactor, || recorder(quiet as On));
    // In one turn: bytes for the one that is aborted before they are served, and a new one for its slot.
    say(&peer, "for the dead");
    let next = dial(addr);
    reactor.net().abort(victim);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1 && journal.keys().len() >= 2);
    let newcomer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count() == 3);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    drop((next, newcomer));
}

#[cfg(unix)]
mod adopted {
    use super::*;
    use std::os::{fd::AsFd, unix::net::UnixStream};

    struct Watcher(UnixStream);

    impl Dispatcher<u32> for Watcher {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn readable(&mut self, _: &mut Scope<'_, u32>, calls: &mut u32) -> Result<Drained, Fault> {
            *calls += 1;
            let mut buf = [0; 9];
            match self.0.read(&mut buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Drained::Yes),
                other => other.map(|_| Drained::No).map_err(Fault::from),
            }
        }
    }

    #[test]
    fn a_watched_descriptor_is_deregistered_so_that_a_duplicate_delivers_nothing() {
        let mut reactor = Reactor::new().expect("a selector");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket option");
        let duplicate = ours.try_clone().expect("a descriptor");
        let key = reactor.net().watch(Watcher(ours)).expect("it can be watched");
        let mut calls = 0;
        (&theirs).write_all(b"x").expect("the pair is open");
        until(&mut reactor, &mut calls, |calls| *calls >= 2);
        reactor.net().close(key);
        settle(&mut reactor, &mut calls);
        let before = calls;
        (&theirs).write_all(b"y").expect("the duplicate is open");
        // An event, for nobody, would end this sleep.
        let began = Instant::now();
        reactor.turn(&mut calls, SHORT).expect("the selector works");
        assert!(began.elapsed() >= SHORT);
        assert_eq!(calls, before);
        drop(duplicate);
    }
}

// ------------------------------------------------------------------------------------- 8. any cutting, the same frames

#[test]
fn any_cutting_of_the_same_bytes_gives_the_same_frames() {
    let text = b"one\r\n\ntwo\nthree\r\r\nfour";
    let frames = ["one", "", "two", "three\r"];
    for cut in 0..=text.len() {
        let (mut reactor, mut journal) = start();
        let (_, mut peer) = guest(&mut reactor, &mut journal, lines);
        say(&peer, &text[..cut]);
        reactor.turn(&mut journal, Duration::from_millis(1)).expect("the selector works");
        say(&peer, &text[cut..]);
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"four".to_vec())));
        assert_eq!(journal.frames(), frames, "cut at {cut}");
        reactor.shutdown(&mut journal);
        let _ = peer.read(&mut [0]);
    }
}

#[test]
fn a_terminator_changed_from_outside_is_tried_on_what_is_held() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "one;two;");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 8);
    reactor.net().link(key).expect("open").set_terminator(Terminator::delimiter(&b";"[..], 9));
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

#[test]
fn at_end_of_stream_the_unfinished_tail_comes_with_eof_the_half_seen_terminator_included() {
    for (terminator, tail) in [
        (Terminator::crlf(99), "tail\r"),
        (Terminator::line(99), "tail\r"),
        (Terminator::exactly(99), "tail"),
        (Terminator::delimiter(&b"--end"[..], 99), "tail--en"),
        (Terminator::netstring(99), "9:tail"),
    ] {
        let (mut reactor, mut journal) = start();
        let (key, peer) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().link(key).expect("open").set_terminator(terminator);
        say(&peer, tail);
        peer.shutdown(Shutdown::Write).expect("connected");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(tail.into())));
        assert_eq!(journal.of(key).len(), 2);
    }
}

#[test]
fn of_a_stream_until_a_delimiter_only_the_half_seen_one_is_the_tail() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().link(key).expect("open").set_terminator(Terminator::stream_until(&b"--end"[..]));
    say(&peer, "body--en");
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"--en".to_vec())));
    assert_eq!(journal.received(), b"body");
}

// -------------------------------------------------------------------------------------------- 9. time is monotonic

#[test]
fn a_timer_is_never_early_and_never_twice() {
    let mut reactor: Reactor<Vec<Duration>> = Reactor::new().expect("a selector");
    let mut fired = Vec::new();
    for millis in [7, 1, 12, 3, 0] {
        let delay = Duration::from_millis(millis);
        let set = Instant::now();
        reactor.net().after(delay, move |_, fired| {
            assert!(set.elapsed() >= delay, "early");
            fired.push(delay);
        });
    }
    reactor.run(&mut fired).expect("the selector works");
    let expected: Vec<Duration> = [0, 1, 3, 7, 12].map(Duration::from_millis).into();
    assert_eq!(fired, expected);
}

#[test]
fn timers_of_one_deadline_fire_in_the_order_of_setting() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::new().expect("a selector");
    let mut fired = Vec::new();
    for n in 0..100 {
        reactor.net().after(Duration::ZERO, move |_, fired: &mut Vec<u32>| fired.push(n));
    }
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_timer_set_by_a_timer_fires_in_a_later_turn() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    reactor.net().after(Duration::ZERO, |net, fired| {
        *fired += 1;
        net.after(Duration::ZERO, |_, fired| *fired += 1);
    });
    let mut fired = 0;
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 1);
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 2);
}

#[test]
fn a_delay_of_nothing_does_not_sleep_first() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    reactor.net().every(PATIENCE * 100, |_, _| {});
    reactor.net().after(Duration::ZERO, |_, fired| *fired += 1);
    let mut fired = 0;
    reactor.turn(&mut fired, None).expect("the selector works");
    assert_eq!(fired, 1);
}

#[test]
fn every_keeps_its_phase_and_skips_what_it_missed() {
    let period = Duration::from_millis(10);
    let mut reactor: Reactor<Vec<Duration>> = Reactor::new().expect("a selector");
    let began = Instant::now();
    reactor.net().every(period, move |net, fired: &mut Vec<Duration>| {
        fired.push(began.elapsed());
        if fired.len() == 1 {
            thread::sleep(period * 7 / 2); // a callback that takes its time
        }
        if fired.len() == 4 {
            net.stop();
        }
    });
    let mut fired = Vec::new();
    reactor.run(&mut fired).expect("the selector works");
    // One late call for those that were missed; the others not before the times of their phase.
    let late = fired[1];
    let skipped = u32::try_from(late.as_millis() / period.as_millis()).expect("a short test");
    assert!(fired[0] >= period && late >= period * 4);
    assert!(fired[2] >= period * (skipped + 1), "{fired:?}");
    assert!(fired[3] >= period * (skipped + 2), "{fired:?}");
}

#[test]
fn a_periodic_timer_can_be_cancelled_inside_its_own_callback() {
    let mut reactor: Reactor<(u32, Option<Timer>)> = Reactor::new().expect("a selector");
    let timer = reactor.net().every(Duration::from_millis(1), |net, (fired, timer): &mut (u32, Option<Timer>)| {
        *fired += 1;
        if *fired == 3 {
            assert!(net.cancel(timer.expect("it is set")));
            assert!(!net.cancel(timer.expect("it was set")));
        }
    });
    let mut state = (0, Some(timer));
    reactor.run(&mut state).expect("the selector works");
    assert_eq!(state.0, 3);
}

#[test]
fn a_cancelled_timer_does_not_fire_even_when_it_is_due() {
    let mut reactor: Reactor<Vec<&'static str>> = Reactor::new().expect("a selector");
    let mut net = reactor.net();
    let victim = Rc::new(Cell::new(None));
    let named = Rc::clone(&victim);
    net.after(Duration::ZERO, move |net, fired: &mut Vec<_>| {
        fired.push("first");
        assert!(net.cancel(named.get().expect("it is set")));
    });
    victim.set(Some(net.after(Duration::ZERO, |_, fired: &mut Vec<_>| fired.push("victim"))));
    let mut fired = Vec::new();
    reactor.run(&mut fired).expect("the selector works");
    assert_eq!(fired, ["first"]);
    let gone = victim.get().expect("it was set");
    assert!(!reactor.net().cancel(gone));
}

#[test]
fn a_timers_name_is_never_used_again() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    let first = reactor.net().after(PATIENCE, |_, ()| {});
    assert!(reactor.net().cancel(first));
    let second = reactor.net().after(PATIENCE, |_, ()| {});
    assert_ne!(first, second);
    assert!(!reactor.net().cancel(first) && reactor.net().cancel(second));
}

#[test]
fn a_deadline_counts_from_a_fresh_reading_of_the_clock() {
    let mut reactor: Reactor<bool> = Reactor::new().expect("a selector");
    reactor.net().post(|net, _| {
        thread::sleep(SHORT); // a callback that takes its time
        let set = Instant::now();
        net.after(SHORT, move |_, fired| {
            assert!(set.elapsed() >= SHORT, "early");
            *fired = true;
        });
    });
    let mut fired = false;
    until(&mut reactor, &mut fired, |fired| *fired);
}

#[test]
fn a_connections_timers_run_with_it_and_die_with_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.every(Duration::from_millis(1), |_: &mut Recorder<On>, ctx, journal| {
            note(journal, ctx.key, "tick");
            if journal.frames().len() == 3 {
                ctx.close();
            }
            Ok(())
        });
        Ok(())
    });
    ends_with(&mut reactor, &mut journal, key, FINISHED);
    run_out(&mut reactor, &mut journal);
    assert_eq!(journal.frames().len(), 3);
}

#[test]
fn an_err_of_a_connections_timer_ends_it() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell_after(key, TICK, |_: &mut Recorder<On>, _, _| Err("too late".into()));
    ends_with(&mut reactor, &mut journal, key, "failed: too late");
}

// --------------------------------------------------------------------------- 10. an idle connection owns no buffer

#[test]
fn nothing_is_held_between_frames() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "one\ntw");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() == 2);
    say(&peer, "o\n");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
    assert_eq!(reactor.net().link(key).expect("open").unread(), 0);
    assert_eq!(reactor.net().link(key).expect("open").queued(), 0);
}

// ------------------------------------------------------------ 11. what arrived is delivered before what failed

#[test]
fn last_words_before_a_reset_are_delivered() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "413\nto");
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["413"]);
    assert!(closing_of(&journal, key).expect("closed").starts_with("connection lost"));
    assert!(!journal.calls.iter().any(|(_, call)| matches!(call, Call::Eof(_))), "a reset is no end of the stream");
}

#[test]
fn last_words_are_delivered_before_a_write_fails() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    reactor.net().link(key).expect("open").set_hold_back(false);
    stuff(&mut reactor, &mut journal, key);
    say(&peer, "413\n");
    reset(peer);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.frames(), ["413"]);
}

#[test]
fn last_words_are_delivered_when_a_write_meets_the_reset_first() {
    let (mut reactor, mut journal) = start();
    let (writer, peer) = guest(&mut reactor, &mut journal, lines);
    say(&peer, "413\n");
    reset(peer);
    // Sent from outside: whether the write comes before the read or after it, both are told in order.
    reactor.net().send(writer, "the rest of the upload");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, writer));
    assert_eq!(journal.frames(), ["413"]);
    assert!(closing_of(&journal, writer).expect("closed").starts_with("connection lost"));
}

// --------------------------------------------------------------------------------------------------- other threads

#[test]
fn a_remote_is_send_and_sync_whatever_the_state() {
    fn is_shared_between_threads<T: Send + Sync + Clone>() {}
    is_shared_between_threads::<Remote<()>>();
    is_shared_between_threads::<Remote<Rc<Cell<u32>>>>();
}

#[test]
fn jobs_of_each_thread_run_in_order() {
    const THREADS: usize = 4;
    const JOBS: usize = 2000;
    let mut reactor: Reactor<Vec<Vec<usize>>> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = remote.clone();
            thread::spawn(move || {
                for n in 0..JOBS {
                    remote.post(move |_, seen: &mut Vec<Vec<usize>>| seen[thread].push(n)).expect("the reactor lives");
                }
            })
        })
        .collect();
    drop(remote);
    let mut seen = vec![Vec::new(); THREADS];
    reactor.run(&mut seen).expect("the selector works");
    for jobs in &seen {
        assert_eq!(*jobs, (0..JOBS).collect::<Vec<_>>());
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

#[test]
fn many_posts_before_a_turn_all_run_in_it() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    for _ in 0..500 {
        remote.post(|_, count| *count += 1).expect("the reactor lives");
    }
    let mut jobs = 0;
    reactor.turn(&mut jobs, None).expect("the selector works");
    assert_eq!(jobs, 500);
    // They were one wake-up: nothing is left that would end a sleep.
    settle(&mut reactor, &mut jobs);
    let began = Instant::now();
    reactor.turn(&mut jobs, SHORT).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
}

#[test]
fn a_post_wakes_a_sleeping_loop() {
    let mut reactor: Reactor<bool> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let thread = thread::spawn(move || {
        thread::sleep(TICK); // the loop sleeps by then
        remote.post(|_, ran| *ran = true).expect("the reactor lives");
        remote
    });
    let mut ran = false;
    while !ran {
        reactor.turn(&mut ran, None).expect("the selector works");
    }
    thread.join().expect("it does not panic");
}

#[test]
fn a_job_may_post_from_the_loops_own_thread() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let again = remote.clone();
    remote
        .post(move |_, ran| {
            *ran += 1;
            again.post(|_, ran| *ran += 1).expect("the reactor lives");
        })
        .expect("the reactor lives");
    drop(remote);
    let mut ran = 0;
    reactor.run(&mut ran).expect("the selector works");
    assert_eq!(ran, 2);
}

#[test]
fn a_post_to_a_reactor_that_was_dropped_is_gone() {
    let reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    drop(reactor);
    assert_eq!(remote.post(|_, ()| {}), Err(Gone));
    assert_eq!(remote.stop(), Err(Gone));
    assert_eq!(remote.clone().stop(), Err(Gone));
}

#[test]
fn jobs_that_wait_when_the_reactor_is_dropped_are_dropped_uncalled() {
    let reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    remote.post(move |_, ()| sender.send(()).expect("somebody listens")).expect("the reactor lives");
    drop(reactor);
    assert!(receiver.recv().is_err(), "the job was dropped, and its sender with it");
}

#[test]
fn for_ever_is_no_time_at_all_to_set() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    let timers = [
        net.after(Duration::MAX, |_, _| panic!("it fired")),
        net.every(Duration::MAX, |_, _| panic!("it fired")),
        net.tell_after(key, Duration::MAX, |_: &mut Recorder<On>, _, _| panic!("it fired")),
    ];
    let mut link = net.link(key).expect("open");
    link.set_idle_timeout(Duration::MAX);
    link.set_deadline(Duration::MAX);
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    for timer in timers {
        assert!(reactor.net().cancel(timer));
    }
    reactor.net().drain(Duration::MAX);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(key), [Call::Connected, Call::Received(b"x".to_vec()), Call::Draining]);
}
