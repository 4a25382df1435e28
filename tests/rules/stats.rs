//! The figures of a reactor, and the watchdog that names who held it up.

use crate::common::{Call, Journal, PATIENCE, Watched, dial, keep_log, listen, logged, read_exactly, recorder, say, until};
use mainspring::{
    Address, Config, Context, Dispatcher, Drained, Fault, Kind, Limit, Listen, Net, Outcome, Protocol, Reactor, Refusal, Scope,
    Source, Terminator,
};
use std::{
    io::Write,
    time::{Duration, Instant},
};

struct Echo;

impl<S> Protocol<S> for Echo {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_idle_timeout(Duration::from_secs(60));
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

#[test]
fn what_was_done_is_counted() {
    let mut reactor = Reactor::new().expect("a selector");
    let (listener, addr) = listen(&mut reactor, || Echo);
    let mut peer = dial(addr);
    say(&peer, "hello");
    read_exactly(&mut reactor, &mut (), &mut peer, 5);

    let stats = reactor.stats();
    assert_eq!((stats.accepted, stats.opened, stats.connections), (1, 0, 1));
    assert_eq!((stats.bytes_in, stats.bytes_out, stats.queued), (5, 5, 0));
    // The factory, `connected`, `received`.
    assert_eq!((stats.callbacks, stats.timers, stats.closed.total()), (3, 1, 0));
    assert!(stats.turns > 0 && stats.events > 0);
    let longest = (stats.longest_callback, stats.longest_callback_of, stats.longest_callback_name);
    assert_eq!(longest, (Duration::ZERO, "", ""), "nobody asked for times");

    let connections = reactor.net().connections();
    let [of_listener, of_peer] = &connections[..] else { panic!("{connections:?}") };
    assert_eq!((of_listener.key, of_listener.kind, of_listener.protocol), (listener, Kind::Listener, "listener"));
    assert_eq!((of_peer.kind, of_peer.bytes_in, of_peer.bytes_out, of_peer.terminator), (Kind::Accepted, 5, 5, "None"));
    assert!(of_peer.protocol.ends_with("Echo") && of_peer.is_connected && !of_peer.is_ending && !of_peer.is_paused);
    assert_eq!(of_peer.timeouts, [(Limit::Idle, Duration::from_secs(60))]);
    assert_eq!(of_peer.peer.ip(), peer.local_addr().ok());

    drop(peer);
    let began = Instant::now();
    while reactor.stats().connections > 0 {
        assert!(began.elapsed() < PATIENCE);
        reactor.turn(&mut (), Duration::from_millis(5)).expect("the selector works");
    }
    let stats = reactor.stats();
    assert_eq!((stats.closed.eof, stats.closed.total()), (1, 1));
    assert_eq!((stats.bytes_in, stats.bytes_out), (5, 5), "what the dead have moved still counts");
}

/// Listeners counted as connections that had ended, and a guest whose factory panicked did not count at all.
#[test]
fn everybody_who_came_is_counted_once_and_so_is_everybody_who_went() {
    fn factory(net: &mut Net<'_, u32>, came: &mut u32, _: &Address) -> Result<Echo, Refusal> {
        *came += 1;
        match *came {
            1 => Ok(Echo),
            2 => Err("busy".into()),
            _ => {
                net.drain(PATIENCE);
                panic!("in the factory")
            }
        }
    }
    let (mut reactor, mut came) = (Reactor::new().expect("a selector"), 0);
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    let _peers: Vec<_> = (0..3).map(|_| dial(addr)).collect();
    let began = Instant::now();
    while reactor.turn(&mut came, Duration::from_millis(5)).expect("the selector works") {
        assert!(began.elapsed() < PATIENCE, "it does not end");
    }
    let stats = reactor.stats();
    assert_eq!((stats.accepted, stats.refused), (1, 2));
    assert_eq!((stats.closed.drained, stats.closed.total()), (1, 1), "the listener is no connection: {:?}", stats.closed);
}

/// The records of this test's thread that contain all of these words.
fn records(words: &[&str]) -> Vec<String> {
    let records = logged(|text| words[1..].iter().all(|word| text.contains(word)));
    records.into_iter().filter(|(level, _)| level.as_str() == words[0]).map(|(_, text)| text).collect()
}

#[test]
fn a_callback_that_holds_everybody_up_is_named() {
    keep_log();
    let most = Duration::from_millis(5);
    let (mut reactor, mut journal) =
        (Reactor::with_config(Config::new().watchdog(most)).expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, move || {
        recorder(move |ctx, _, call| {
            if *call == Call::Connected {
                ctx.set_terminator(Terminator::line(100));
            }
            if matches!(call, Call::Frame(_)) {
                dawdle(ctx.net.stats().longest_callback.max(most)); // whatever the machine has done to those before
            }
            Ok(())
        })
    });
    let peer = dial(addr);
    say(&peer, "compute\n");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["compute"]);
    let named = records(&["WARN", "Recorder", "`frame`", &peer.local_addr().expect("connected").to_string()]);
    assert_eq!(named.len(), 1, "{named:?}");
    let stats = reactor.stats();
    assert!(stats.longest_callback > most && stats.waited > Duration::ZERO);
    assert!(stats.longest_callback_of.contains("Recorder"), "{}", stats.longest_callback_of);
    assert_eq!(stats.longest_callback_name, "frame");

    let took = stats.longest_callback;
    reactor.net().after(Duration::ZERO, move |_, _| dawdle(took));
    until(&mut reactor, &mut journal, |_| !records(&["WARN", "a timer"]).is_empty());
    let stats = reactor.stats();
    assert!(stats.longest_callback > took);
    assert_eq!((stats.longest_callback_of, stats.longest_callback_name), ("", "a timer"), "it is no connection's");
}

fn dawdle(most: Duration) {
    let began = Instant::now();
    while began.elapsed() <= most {}
}

/// Closes as soon as it is read, and is slow about it.
struct Slow(Watched, Duration);

impl<S> Dispatcher<S> for Slow {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, scope: &mut Scope<'_, S>, _: &mut S) -> Result<Drained, Fault> {
        scope.close();
        Ok(Drained::Yes)
    }

    fn closed(&mut self, _: &mut Scope<'_, S>, _: &mut S, _: mainspring::Reason) {
        dawdle(self.1);
    }
}

/// Has a tell, a timer and some work, each of which is slow.
struct Starter(Duration);

impl Protocol<u32> for Starter {
    fn connected(&mut self, ctx: &mut Context<'_, u32>, _: &mut u32) -> Outcome {
        fn slow(me: &mut Starter, done: &mut u32) -> Outcome {
            dawdle(me.0);
            *done += 1;
            Ok(())
        }
        let key = ctx.key;
        ctx.net.tell(key, |me: &mut Self, _, done| slow(me, done));
        ctx.after(Duration::ZERO, |me: &mut Self, _, done| slow(me, done));
        ctx.offload(|| (), |me: &mut Self, _, done, _| slow(me, done));
        Ok(())
    }
}

/// What is no callback of a protocol was neither named nor counted.
#[test]
fn whatever_of_yours_holds_everybody_up_is_named() {
    keep_log();
    let most = Duration::from_millis(5);
    let mut reactor = Reactor::with_config(Config::new().watchdog(most)).expect("a selector");
    let (ours, mut theirs) = Watched::pair();
    theirs.write_all(b"x").expect("the peer takes it");
    reactor.net().watch(Slow(ours, most)).expect("a socket can be watched");
    let (_, addr) = listen(&mut reactor, move || {
        dawdle(most);
        Starter(most)
    });
    let peer = dial(addr);
    let mut done = 0;
    until(&mut reactor, &mut done, |done| *done == 3);
    let began = Instant::now();
    while records(&["WARN", "Slow", "`closed`"]).is_empty() {
        assert!(began.elapsed() < PATIENCE, "a dispatcher's `closed` is not named");
        reactor.turn(&mut done, Duration::from_millis(5)).expect("the selector works");
    }
    for what in ["a tell", "a timer", "what follows offloaded work"] {
        let words = ["WARN", "Starter", what, &peer.local_addr().expect("connected").to_string()];
        assert_eq!(records(&words).len(), 1, "{what}");
    }
    assert_eq!(records(&["WARN", "listener", "`factory`"]).len(), 1);
    // The factory, `connected`, the three, and two of the dispatcher; it may also have been told that it can write.
    let callbacks = reactor.stats().callbacks;
    assert!((7..=8).contains(&callbacks), "{callbacks}");
}

/// Says for ever that there is more.
struct Liar(Watched);

impl Dispatcher<u32> for Liar {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, u32>, times: &mut u32) -> Result<Drained, Fault> {
        *times += 1;
        Ok(Drained::No)
    }
}

#[test]
fn a_dispatcher_that_is_never_drained_is_named_once() {
    keep_log();
    let (ours, mut theirs) = Watched::pair();
    theirs.write_all(b"x").expect("the peer takes it");
    let (mut reactor, mut times) = (Reactor::new().expect("a selector"), 0);
    reactor.net().watch(Liar(ours)).expect("a socket can be watched");
    until(&mut reactor, &mut times, |times| *times > 0);
    for _ in 0..100_010 {
        reactor.turn(&mut times, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(records(&["WARN", "Liar", "100000 times in a row"]).len(), 1);
}
