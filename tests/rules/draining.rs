//! Drains.

use crate::common::{
    Call, Ctx, FINISHED, Journal, LONG, On, PATIENCE, SHORT, SHUT_DOWN, Stranger, Talk, closing_of, count, dial, ends_with,
    guest, is_closed, listen, opened, pass, quiet, recorder, say, settle, start, stuff, turn, until,
};
use mainspring::{Address, Dispatcher, Listen, Net, Outcome, Reactor, Reason, Refusal, Scope, Source};
use std::{
    cell::Cell,
    io::Read,
    net::TcpListener,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn a_drain_closes_listeners_and_asks_accepted_connections_to_finish() {
    let (mut reactor, mut journal) = start();
    let (listener, addr) = listen(&mut reactor, || recorder(quiet as On));
    let _peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let key = journal.calls[0].0;
    reactor.net().link(key).expect("open").pause();
    reactor.net().drain(PATIENCE);
    assert!(reactor.net().is_draining());
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    assert!(!reactor.net().is_open(listener) && reactor.net().local(listener).is_none());
    assert!(reactor.net().is_open(key), "it may take its time");
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(closing_of(&journal, key).as_deref(), Some(FINISHED));
    assert_eq!(count(&journal, key, &Call::Draining), 1);
    assert!(!reactor.net().is_draining());
}

#[test]
fn a_drain_counts_those_it_found_and_those_its_grace_was_too_short_for() {
    let (mut reactor, mut journal) = start();
    let stay: On = |_, _, _| Ok(());
    let (stays, _peer) = guest(&mut reactor, &mut journal, stay);
    let (goes, _other) = guest(&mut reactor, &mut journal, stay);
    reactor.net().drain(SHORT);
    assert_eq!((reactor.stats().to_drain, reactor.stats().undrained), (2, 0));
    reactor.net().close(goes);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!((reactor.stats().to_drain, reactor.stats().undrained), (2, 1));
    assert_eq!(journal.of(stays).last(), Some(&Call::Closed(Reason::Shutdown.to_string())));
}

/// The last word counts, be it longer or shorter.
#[cfg(feature = "sim")]
#[test]
fn a_drain_that_is_asked_for_again_counts_its_grace_anew() {
    use crate::common::{Recorded, SECOND, dialogue};
    for (first, second) in [(2, 10), (10, 2)] {
        let mut t = dialogue(quiet);
        t.scene().net().drain(first * SECOND);
        t.passes(SECOND).gets(&[Call::Draining]);
        t.scene().net().drain(second * SECOND);
        t.passes(second * SECOND - Duration::from_nanos(1)).gets(&[]);
        t.passes(Duration::from_nanos(1)).gets(&[Call::Closed(SHUT_DOWN.into())]);
        t.passes(20 * SECOND).gets(&[]);
    }
}

#[test]
fn connections_that_we_opened_are_asked_when_no_accepted_one_remains() {
    let (mut reactor, mut journal) = start();
    let (accepted, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (ours, listener) = opened(&mut reactor, quiet);
    let _other = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| !journal.of(ours).is_empty());
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| count(journal, accepted, &Call::Draining) == 1);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(ours), [Call::Connected]);
    reactor.net().close(accepted);
    until(&mut reactor, &mut journal, |journal| count(journal, ours, &Call::Draining) == 1);
    reactor.net().close(ours);
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.closings(), 2);
}

#[test]
fn one_still_connecting_gets_draining_right_after_connected() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = opened(&mut reactor, quiet);
    reactor.net().drain(PATIENCE);
    let _peer = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 2);
    assert_eq!(journal.of(key), [Call::Connected, Call::Draining]);
}

#[test]
fn connect_stays_allowed_during_a_drain() {
    let (mut reactor, mut journal) = start();
    let (accepted, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    let (key, listener) = opened(&mut reactor, quiet);
    let _other = listener.accept().expect("it connects");
    until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
    assert_eq!(journal.of(key), [Call::Connected]);
    reactor.net().close(accepted);
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 2);
    assert_eq!(journal.of(key)[1], Call::Draining);
}

/// As for the data connection of a transfer that is to finish.
#[test]
fn whom_a_listener_lets_in_that_is_opened_during_a_drain_is_waited_for_and_not_asked() {
    let (mut reactor, mut journal) = start();
    let (control, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| count(journal, control, &Call::Draining) == 1);
    let (listener, addr) = listen(&mut reactor, || recorder(quiet as On));
    let _other = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.iter().any(|(key, _)| *key != control));
    let data = journal.calls.last().expect("just seen").0;
    reactor.net().close(control);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.of(data), [Call::Connected]);
    assert!(reactor.net().is_open(listener) && reactor.net().is_draining());
    reactor.net().close(data);
    reactor.run(&mut journal).expect("the selector works");
    assert!(!reactor.net().is_open(listener), "nobody is left who could want it");
    assert_eq!(closing_of(&journal, data).as_deref(), Some(FINISHED));
}

#[test]
fn neither_timers_nor_a_live_remote_keep_a_draining_run() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Draining {
            ctx.close();
        }
        Ok(())
    });
    let _remote = reactor.remote();
    reactor.net().every(Duration::from_millis(1), |_, _| {});
    reactor.net().drain(PATIENCE * 100);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
}

#[test]
fn what_is_left_after_the_grace_ends_with_shutdown() {
    let (mut reactor, mut journal) = start();
    let (stubborn, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (flushing, _other) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, flushing);
    reactor.net().close(flushing);
    let began = Instant::now();
    reactor.net().drain(SHORT);
    reactor.run(&mut journal).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
    for key in [stubborn, flushing] {
        assert_eq!(closing_of(&journal, key).as_deref(), Some(SHUT_DOWN));
    }
    assert!(journal.has(&Call::Draining));
}

#[test]
fn after_the_grace_connect_opens_nothing() {
    let (mut reactor, mut journal) = start();
    let dropped = Rc::new(Cell::new(false));
    let seen = Rc::clone(&dropped);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.net.connect("127.0.0.1:1", Stranger { dropped: Some(Rc::clone(&seen)) });
            assert!(!ctx.net.is_open(key) && ctx.net.peer(key).is_none(), "its key is stale");
        }
        Ok(())
    });
    reactor.net().drain(Duration::ZERO);
    reactor.run(&mut journal).expect("the selector works");
    assert!(dropped.get());
    assert_eq!(journal.closings(), 1);
    assert!(!journal.has(&Call::Closed("panicked".into())));
}

#[test]
fn a_second_drain_with_less_grace_is_heard() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE * 100);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    reactor.net().drain(Duration::ZERO);
    ends_with(&mut reactor, &mut journal, key, SHUT_DOWN);
    assert_eq!(count(&journal, key, &Call::Draining), 1);
}

#[test]
fn the_grace_of_a_drain_that_is_over_does_not_cut_the_next_one_short() {
    let (mut reactor, mut journal) = start();
    reactor.net().drain(SHORT);
    reactor.run(&mut journal).expect("nothing is left");
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE * 100);
    pass(&mut reactor, &mut journal, LONG);
    assert!(reactor.net().is_open(key), "its own grace is long");
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

const LINE: Serve = |at, reactor| reactor.net().serve_lines(at, 99, |_, _, _, line| [line, b"!\n"].concat());
type Serve = fn(&str, &mut Reactor<Journal>) -> std::io::Result<mainspring::Key>;

/// Answers each request with itself and a mark.
struct Marks;

impl mainspring::RequestHandler<Journal> for Marks {
    fn handle(
        &mut self,
        _: &mut Ctx<'_>,
        _: &mut Journal,
        line: &[u8],
    ) -> Result<mainspring::Answer<Self, Journal>, mainspring::Fault> {
        Ok(mainspring::Answer::now([line, b"!\n"].concat()))
    }
}

/// What had arrived was dropped unanswered, and whoever stood in the backlog was reset.
#[test]
fn who_had_asked_before_the_drain_is_answered_also_out_of_the_backlog() {
    let requests: Serve = |at, reactor| reactor.net().serve(at, Listen::new(), || Marks);
    for (serve, is_accepted) in [(LINE, false), (LINE, true), (requests, false), (requests, true)] {
        let (mut reactor, mut journal) = start();
        let listener = serve("127.0.0.1:0", &mut reactor).expect("a free port");
        let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let mut peers: Vec<_> = (0..10).map(|_| dial(addr)).collect();
        if is_accepted {
            while reactor.stats().accepted < 10 {
                turn(&mut reactor, &mut journal, SHORT);
            }
        }
        for peer in &peers {
            say(peer, "one\ntwo\n");
        }
        reactor.net().drain(PATIENCE);
        reactor.run(&mut journal).expect("the selector works");
        for peer in &mut peers {
            let mut got = String::new();
            peer.read_to_string(&mut got).expect("a clean end");
            assert_eq!(got, "one!\ntwo!\n", "accepted before: {is_accepted}");
        }
        let stats = reactor.stats();
        assert_eq!((stats.closed.drained, stats.undrained), (10, 0));
    }
}

/// The end that the default of `draining` makes comes when nothing is under way.
#[cfg(feature = "sim")]
mod quiet {
    use crate::common::{Call, Ctx as JournalCtx, Journal, On, Recorder, dialogue};
    use mainspring::{
        Config, Context, Endian, Key, OffloadError, Outcome, Produced, Protocol, Reason, Terminator, Width,
        testing::{Actor, Scene, Weather},
    };
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(10);
    const PIECES: usize = 100;
    static PIECE: [u8; 65536] = [7; 65536];

    type Log = Vec<String>;
    type Ctx<'a> = Context<'a, Log>;

    /// What each test has a connection do.
    enum Does {
        Nothing,
        /// Sends by `writable`, and then closes, or not.
        Feeds {
            left: usize,
            closes: bool,
        },
        Produces,
        /// Takes this many bytes in a stream, and then answers.
        Takes(u64),
        Lines,
        Offloads,
        Pauses,
    }

    impl Does {
        fn feed(&mut self, ctx: &mut Ctx<'_>) {
            let Self::Feeds { left, closes } = self else { return };
            while !ctx.is_congested() && *left > 0 {
                ctx.send(PIECE);
                *left -= 1;
            }
            if *left == 0 && *closes {
                ctx.close();
            }
        }
    }

    impl Protocol<Log> for Does {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
            match self {
                Self::Lines | Self::Offloads => ctx.set_terminator(Terminator::line(99)),
                Self::Takes(bytes) => ctx.set_terminator(Terminator::Stream(*bytes)),
                Self::Pauses => ctx.pause(),
                _ => {}
            }
            Ok(())
        }

        fn received(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, bytes: &[u8]) -> Outcome {
            match self {
                Self::Produces => {
                    let mut left = PIECES;
                    ctx.produce(move |out: &mut Vec<u8>| -> std::io::Result<Produced> {
                        out.extend(PIECE);
                        left -= 1;
                        Ok(if left == 0 { Produced::Done } else { Produced::More })
                    });
                }
                Self::Feeds { .. } => self.feed(ctx),
                _ => log.push(format!("{} bytes", bytes.len())),
            }
            Ok(())
        }

        fn frame(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, frame: &[u8]) -> Outcome {
            if let Self::Offloads = self {
                ctx.offload(
                    || 1,
                    |_: &mut Self, ctx, _, brought: Result<i32, OffloadError>| {
                        ctx.send(if brought.is_ok() { "done\n" } else { "busy\n" });
                        Ok(())
                    },
                );
            } else {
                ctx.send([frame, b"!\n"].concat());
            }
            Ok(())
        }

        fn writable(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
            self.feed(ctx);
            Ok(())
        }

        fn closed(&mut self, _: &mut Ctx<'_>, log: &mut Log, why: Reason) {
            log.push(format!("{why}, clean {}", why.is_clean()));
        }
    }

    fn scene(make: fn() -> Does) -> (Scene<Log>, mainspring::testing::Actor) {
        let mut scene = Scene::with_config(1, Log::new(), Config::new().offload_threads(1).offload_queue(0));
        scene.net().listen("10.0.0.1:80", make).expect("a free port");
        let client = scene.dials("10.0.0.1:80");
        (scene, client)
    }

    #[test]
    fn who_has_nothing_under_way_is_closed_at_once() {
        let (mut scene, client) = scene(|| Does::Lines);
        scene.says(client, "hello\n").hears(client, "hello!\n").net().drain(GRACE);
        scene.settles().hears_end(client);
        assert_eq!(*scene.state(), ["drained, clean true"]);
    }

    #[test]
    fn a_source_is_whole() {
        let makes: [(fn() -> Does, &str); 3] = [
            (|| Does::Feeds { left: PIECES, closes: true }, "finished, clean true"),
            (|| Does::Feeds { left: PIECES, closes: false }, "drained, clean true"),
            (|| Does::Produces, "drained, clean true"),
        ];
        for (make, end) in makes {
            let (mut scene, client) = scene(make);
            scene.reads(client, false).says(client, "get").net().drain(GRACE);
            scene.settles().passes(SECOND).reads(client, true).passes(SECOND);
            assert_eq!(scene.takes(client).len(), PIECES * PIECE.len());
            assert_eq!(*scene.state(), [end]);
        }
    }

    #[test]
    fn a_frame_that_was_begun_is_waited_for_and_answered() {
        let (mut scene, client) = scene(|| Does::Lines);
        scene.says(client, "hel").net().drain(GRACE);
        scene.passes(SECOND).says(client, "lo\n").hears(client, "hello!\n").hears_end(client);
        assert_eq!(*scene.state(), ["drained, clean true"]);
    }

    #[test]
    fn an_upload_is_whole_or_not_called_so() {
        let makes: [fn() -> Does; 2] = [|| Does::Nothing, || Does::Takes(2000)];
        for make in makes {
            for goes_on in [true, false] {
                let (mut scene, client) = scene(make);
                scene.says(client, [1; 1000]).net().drain(GRACE);
                scene.passes(GRACE - SECOND);
                if goes_on {
                    scene.says(client, [1; 1000]).ends(client);
                }
                scene.passes(2 * SECOND);
                let end = if goes_on { "the peer finished, clean true" } else { "the reactor was shut down, clean false" };
                let pieces = if goes_on { 2 } else { 1 };
                assert_eq!(scene.state().len(), pieces + 1, "{:?}", scene.state());
                // One that takes a length is through with it, and closes before the peer's end comes.
                let last = scene.state().last().cloned().expect("an end");
                assert!(last == end || (goes_on && last == "drained, clean true"), "{last}");
            }
        }
    }

    #[test]
    fn work_that_is_under_way_or_was_refused_is_waited_for() {
        let (mut scene, client) = scene(|| Does::Offloads);
        let other = scene.dials("10.0.0.1:80");
        scene.set_weather(Weather::fair().work(SECOND));
        scene.says(client, "work\n").says(other, "work\n").net().drain(GRACE);
        scene.passes(2 * SECOND);
        let mut heard = [client, other].map(|who| String::from_utf8_lossy(&scene.takes(who)).into_owned());
        heard.sort();
        assert_eq!(heard, ["busy\n", "done\n"]);
        assert_eq!(*scene.state(), ["drained, clean true", "drained, clean true"]);
    }

    #[test]
    fn who_has_paused_is_waited_for() {
        let (mut scene, client) = scene(|| Does::Pauses);
        scene.says(client, "unread").net().drain(GRACE);
        scene.passes(GRACE - SECOND);
        assert_eq!(scene.connections(), 1);
        scene.passes(SECOND);
        assert_eq!(*scene.state(), ["the reactor was shut down, clean false"]);
    }

    /// The proxy of the chapter on back-pressure.
    struct Side(Option<Key>);

    impl Protocol<Log> for Side {
        fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
            if self.0.is_none() {
                let front = ctx.key;
                let back = ctx.net.connect("10.0.0.2:80", Side(Some(front)));
                ctx.set_hold_back(false);
                ctx.net.throttle(front, back);
                ctx.net.throttle(back, front);
                self.0 = Some(back);
            }
            Ok(())
        }

        fn received(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, bytes: &[u8]) -> Outcome {
            self.0.map(|other| ctx.net.send(other, bytes));
            Ok(())
        }

        fn eof(&mut self, ctx: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
            self.0.map(|other| ctx.net.half_close(other));
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Ctx<'_>, log: &mut Log, why: Reason) {
            if let Some(other) = self.0.filter(|_| !why.is_clean()) {
                ctx.net.abort(other);
            }
            log.push(why.to_string());
        }
    }

    /// With the client before the proxy, and who is behind it.
    fn proxied() -> (Scene<Log>, Actor, Actor) {
        let mut scene = Scene::new(1, Log::new());
        let back = scene.serves("10.0.0.2:80");
        scene.net().listen("10.0.0.1:80", || Side(None)).expect("a free port");
        let client = scene.dials("10.0.0.1:80");
        (scene, client, back)
    }

    #[test]
    fn a_response_through_a_proxy_is_whole_or_not_called_so() {
        for goes_on in [true, false] {
            let (mut scene, client, back) = proxied();
            scene.says(client, "GET\n").hears(back, "GET\n").says(back, "0123456789").hears(client, "0123456789");
            scene.net().drain(GRACE);
            scene.passes(GRACE - SECOND);
            assert_eq!(scene.connections(), 2, "ten of twenty bytes: nobody knows that");
            if goes_on {
                scene.says(back, "0123456789").ends(back).hears(client, "0123456789").hears_end(client).ends(client);
            }
            scene.passes(2 * SECOND);
            assert_eq!(scene.connections(), 0);
            let is_clean = !scene.state().iter().any(|why| why.contains("shut down"));
            assert_eq!(is_clean, goes_on, "{:?}", scene.state());
        }
    }

    /// A peer that has only finished asking waits for the answer, before the first byte of it too.
    #[test]
    fn a_response_to_who_has_finished_asking_is_whole_or_not_called_so() {
        for answers in [true, false] {
            let (mut scene, client, back) = proxied();
            scene.says(client, "GET").ends(client).hears(back, "GET").hears_end(back).net().drain(GRACE);
            scene.passes(GRACE - SECOND);
            assert_eq!(scene.connections(), 2);
            if answers {
                scene.says(back, "0123456789").ends(back).hears(client, "0123456789").hears_end(client);
            }
            scene.passes(2 * SECOND);
            let is_clean = !scene.state().iter().any(|why| why.contains("shut down"));
            assert_eq!((scene.connections(), is_clean), (0, answers), "{:?}", scene.state());
        }
    }

    #[test]
    fn a_stream_of_which_one_direction_has_ended_is_under_way() {
        let ends: [fn(&mut JournalCtx<'_>, &mut Journal, &Call) -> Outcome; 2] = [
            // The answer comes later.
            |ctx, _, call| {
                if matches!(call, Call::Eof(_)) {
                    ctx.after(SECOND, |_: &mut Recorder<On>, ctx, _| {
                        ctx.send("answer");
                        ctx.close();
                        Ok(())
                    });
                }
                by_default_of_a_drain(ctx, call)
            },
            // We have finished asking.
            |ctx, _, call| {
                if matches!(call, Call::Connected) {
                    ctx.half_close();
                }
                by_default_of_a_drain(ctx, call)
            },
        ];
        for (on, ends_first) in ends.into_iter().zip([true, false]) {
            let mut t = dialogue(on as On);
            if ends_first {
                t.peer_ends();
            }
            t.scene().net().drain(GRACE);
            if ends_first {
                assert_eq!(t.passes(2 * SECOND).sent(), b"answer");
                t.closes(|why| matches!(why, Reason::Eof));
            } else {
                t.passes(GRACE - SECOND);
                t.peer_ends().closes(|why| matches!(why, Reason::Finish));
            }
        }
    }

    fn by_default_of_a_drain(ctx: &mut JournalCtx<'_>, call: &Call) -> Outcome {
        if *call == Call::Draining {
            ctx.close_when_quiet();
        }
        Ok(())
    }

    /// Its end, and what stands behind it, come later.
    #[test]
    fn a_frame_that_is_skipped_is_under_way() {
        let mut t = dialogue(
            (|ctx, _, call| {
                match call {
                    Call::Connected => ctx.set_terminator(Terminator::prefixed(Width::U16, Endian::Big, 4)),
                    Call::Frame(frame) => ctx.send(frame),
                    _ => {}
                }
                by_default_of_a_drain(ctx, call)
            }) as On,
        );
        t.receives(b"\0\x06too");
        t.scene().net().drain(GRACE);
        t.passes(GRACE - SECOND).receives(b"big\0\x02ok").sends("ok").closes(|why| matches!(why, Reason::Drained));
    }

    /// Without a bound it could put `draining` off as long as it likes.
    #[test]
    fn a_peer_that_never_ceases_to_send_does_not_put_draining_off() {
        struct Sink;
        impl Protocol<Log> for Sink {
            fn received(&mut self, _: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
                Ok(())
            }

            fn draining(&mut self, ctx: &mut Ctx<'_>, log: &mut Log) -> Outcome {
                log.push("draining".into());
                ctx.close();
                Ok(())
            }
        }
        struct Flood;
        impl Protocol<Log> for Flood {
            fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut Log) -> Outcome {
                ctx.produce(|out: &mut Vec<u8>| -> std::io::Result<Produced> {
                    out.extend(PIECE);
                    Ok(Produced::More)
                });
                Ok(())
            }

            fn received(&mut self, _: &mut Ctx<'_>, _: &mut Log, _: &[u8]) -> Outcome {
                Ok(())
            }
        }
        let mut sim = mainspring::testing::Sim::new(1);
        sim.set_weather(Weather::fair().latency(SECOND / 1000, Duration::ZERO));
        let [server, client] = ["10.0.0.1", "10.0.0.2"].map(|at| sim.host(at, Log::new()));
        sim.net(server).listen("10.0.0.1:80", || Sink).expect("a free port");
        sim.net(client).connect("10.0.0.1:80", Flood);
        sim.run_for(SECOND / 100);
        sim.net(server).drain(3600 * SECOND);
        assert!(sim.run_until(60 * SECOND, |sim| !sim.state(server).is_empty()), "it is told");
    }

    #[test]
    fn a_connection_can_be_asked_for_it_by_itself() {
        let (mut scene, client) = scene(|| Does::Lines);
        let key = scene.net().connections().iter().find(|it| it.is_connected).expect("one").key;
        scene.says(client, "hel").net().link(key).expect("open").close_when_quiet();
        scene.passes(3600 * SECOND);
        assert_eq!(scene.connections(), 1);
        scene.says(client, "lo\n").hears(client, "hello!\n").hears_end(client);
        assert_eq!(*scene.state(), ["drained, clean true"]);
    }

    /// A connection that reads only while another is not congested is tied to it until it ends: nobody looked again then.
    #[test]
    fn who_is_tied_to_it_no_more_is_not_waited_for() {
        for by_end in [true, false] {
            let (mut scene, client) = scene(|| Does::Lines);
            let other = scene.dials("10.0.0.1:80");
            let keys: Vec<Key> = scene.net().connections().iter().filter(|it| it.is_connected).map(|it| it.key).collect();
            let (quiet, amid) = (keys[0], keys[1]);
            assert!(scene.net().throttle(amid, quiet));
            scene.says(other, "a line that was beg").net().link(quiet).expect("open").close_when_quiet();
            scene.passes(SECOND);
            assert_eq!(scene.connections(), 2);
            if by_end {
                scene.resets(other);
            } else {
                scene.net().unthrottle(amid, quiet);
            }
            scene.settles().hears_end(client);
            assert!(scene.state().contains(&"drained, clean true".to_owned()), "{:?}", scene.state());
        }
    }

    #[test]
    fn a_close_after_it_is_a_close() {
        let (mut scene, client) = scene(|| Does::Lines);
        let key = scene.net().connections().iter().find(|it| it.is_connected).expect("one").key;
        scene.says(client, "hel").net().link(key).expect("open").close_when_quiet();
        scene.settles().net().close(key);
        scene.hears_end(client);
        assert_eq!(*scene.state(), ["finished, clean true"]);
    }
}
