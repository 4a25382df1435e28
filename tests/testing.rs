//! What is in `mainspring::testing`, as its users meet it: ends that come at once, questions that can be asked, and
//! what is said to a mistake. That is said where the mistake is: at the line of the test, never at one of the crate's.
#![cfg(feature = "sim")]
#![allow(clippy::unit_arg)] // a row of a table is one expression

use mainspring::{
    Config, Connect, Context, Kind, Limit, Listen, Outcome, Protocol, Reason, Terminator,
    testing::{Actor, Errno, Fate, Scene, Sim, Transcript, Weather, check, every_cut, every_cut_with},
};
use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

// ------------------------------------------------------------------------------------------------------ ends at once

/// Does this when it is connected; afterwards it echoes.
struct Begins<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Outcome + 'static> Protocol for Begins<F> {
    fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
        (self.0)(ctx)
    }

    fn received(&mut self, ctx: &mut Context<'_>, _: &mut (), bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

type Beginning = fn(&mut Context<'_>) -> Outcome;

#[test]
fn a_protocol_may_end_while_it_is_connected() {
    let ends: [(&str, &str, Beginning, fn(&Reason) -> bool); 8] = [
        ("err", "", |_| Err("no".into()), |why| matches!(why, Reason::Failed(_))),
        ("fail", "", |ctx| Ok(ctx.fail("no")), |why| matches!(why, Reason::Failed(_))),
        ("abort", "", |ctx| Ok(ctx.abort()), |why| matches!(why, Reason::Abort)),
        ("close", "", |ctx| Ok(ctx.close()), Reason::is_clean),
        ("words and close", "bye", |ctx| Ok((ctx.send("bye"), ctx.close()).1), Reason::is_clean),
        (
            "a frame that is too long",
            "",
            |ctx| Ok(ctx.set_terminator(Terminator::declared(101, 100))),
            |why| matches!(why, Reason::Limit(Limit::FrameBytes)),
        ),
        ("a deadline", "", |ctx| Ok(ctx.set_deadline(Duration::ZERO)), |why| matches!(why, Reason::Limit(Limit::Deadline))),
        (
            "an overflow",
            "",
            |ctx| {
                ctx.set_output_limits(1, 2, 3);
                ctx.send("four");
                ctx.send("five");
                Ok(())
            },
            |why| matches!(why, Reason::Overflow),
        ),
    ];
    for (name, words, begin, why) in ends {
        println!("{name}");
        let mut t = Transcript::new(Begins(begin));
        let moment = Duration::from_millis(1); // a deadline is never early
        assert!(t.sends(words).passes(moment).end().is_some_and(|reason| why(&reason)), "{name}: {:?}", t.end());
        assert!(t.protocol().is_none());
        let key = t.passes(SECOND).closes(why).key();
        assert!(!t.scene().net().is_open(key));
        every_cut("abc", || Begins(begin));
        every_cut_with("abc", || (Begins(begin), ()));
        every_cut("", || Begins(begin));
    }
}

#[test]
fn it_may_connect_and_listen_and_stop_the_loop_before_it_ends_or_stays() {
    let beginnings: [(bool, Beginning); 4] = [
        (true, |ctx| {
            ctx.net.connect("10.0.0.9:9", Begins(|_: &mut Context<'_>| Ok(())));
            Ok(())
        }),
        (false, |ctx| {
            ctx.net.connect("10.0.0.9:9", Begins(|_: &mut Context<'_>| Ok(())));
            Err("no".into())
        }),
        (true, |ctx| {
            ctx.net.listen("10.0.0.9:9", || Begins(|_: &mut Context<'_>| Ok(())))?;
            ctx.net.stop();
            Ok(())
        }),
        (false, |ctx| Ok(ctx.net.drain(Duration::ZERO))),
    ];
    for (stays, begin) in beginnings {
        let mut t = Transcript::new(Begins(begin));
        if stays {
            t.receives("x").sends("x").stays_open();
            assert!(t.protocol().is_some(), "it is the one that was accepted");
        } else {
            assert!(t.sends("").end().is_some());
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- questions

/// Greets with this many bytes, and becomes an [`After`] with the first line.
struct Greeter(usize);

/// Counts its lines, in the state too.
struct After {
    lines: usize,
}

/// It has no default.
struct Count(usize);

impl Protocol<Count> for Greeter {
    fn connected(&mut self, ctx: &mut Context<'_, Count>, _: &mut Count) -> Outcome {
        ctx.set_terminator(Terminator::line(10));
        ctx.send(vec![b'.'; self.0]);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Count>, _: &mut Count, _: &[u8]) -> Outcome {
        ctx.upgrade(After { lines: 0 });
        Ok(())
    }
}

impl Protocol<Count> for After {
    fn connected(&mut self, ctx: &mut Context<'_, Count>, _: &mut Count) -> Outcome {
        ctx.set_terminator(Terminator::line(10));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Count>, count: &mut Count, _: &[u8]) -> Outcome {
        (self.lines, count.0) = (self.lines + 1, count.0 + 1);
        writeln!(ctx, "{}", count.0);
        Ok(())
    }
}

#[test]
fn what_it_has_become_can_be_looked_at() {
    let mut t = Transcript::with_state(Greeter(0), Count(5));
    assert!(t.protocol_as::<Greeter>().is_some() && t.protocol_as::<After>().is_none());
    t.receives("up\none\ntwo\n").sends("6\n7\n");
    assert!(t.protocol().is_none() && t.protocol_as::<Greeter>().is_none());
    assert_eq!(t.protocol_as::<After>().map(|after| after.lines), Some(2));
    t.peer_ends();
    assert!(t.protocol_as::<After>().is_none());
}

#[test]
fn every_cut_can_have_a_state_of_its_own() {
    every_cut_with("up\none\r\ntwo\n", || (Greeter(3), Count(7)));
    let text = complaint(|| {
        let states = std::cell::Cell::new(0);
        every_cut_with("up\none\n", || (Greeter(0), Count(states.replace(states.get() + 1))));
    });
    assert!(text.contains("cut after 1 bytes") && text.contains(r#"cut: "2\n""#) && text.contains(r#"at once: "1\n""#), "{text}");
}

#[test]
fn an_actor_may_be_deaf_from_the_start() {
    let mut scene = Scene::new(0, Count(0));
    scene.net().listen("10.0.0.1:7", || Greeter(1 << 20)).expect("a free port");
    let [all, deaf] = [scene.dials("10.0.0.1:7"), scene.dials_deaf("10.0.0.1:7")];
    assert_eq!((scene.heard(all), scene.heard(deaf)), (1 << 20, 0));
    let keys: Vec<_> = scene.net().connections().iter().map(|connection| connection.key).collect();
    let queued = |scene: &mut Scene<Count>, at: usize| scene.net().link(keys[at]).map(|link| link.queued());
    assert_eq!(queued(&mut scene, 1), Some(0));
    assert!(queued(&mut scene, 2).is_some_and(|bytes| bytes > 1 << 19), "nobody takes it");
    scene.reads(deaf, true);
    assert_eq!((scene.heard(deaf), queued(&mut scene, 2)), (1 << 20, Some(0)));
}

#[test]
fn an_actor_has_an_address_and_what_it_heard_can_be_looked_at_first() {
    let mut scene = Scene::new(0, Count(0));
    scene.net().listen("10.0.0.1:7", || Greeter(2)).expect("a free port");
    let client = scene.dials("10.0.0.1:7");
    let server = scene.serves("10.0.0.2:0");
    let at = scene.address(server);
    scene.net().connect(&at, Greeter(3));
    assert_eq!(scene.heard_bytes(server), b"...");
    scene.hears(server, "...").hears(server, "");
    let own = scene.address(client);
    assert!(scene.net().connections().iter().any(|connection| connection.peer == own));
    let connections = scene.resets(client).closes(server).connections();
    assert_eq!((connections, scene.address(client), scene.address(server)), (0, own, at));
}

/// Whether the reactor answers whoever comes there.
fn is_reached(scene: &mut Scene<()>, at: &str) -> bool {
    let client = scene.dials(at);
    panic::catch_unwind(AssertUnwindSafe(|| ignore(scene.says(client, "one\n").hears(client, "one!\n").closes(client)))).is_ok()
}

#[test]
fn who_listens_on_every_address_is_reached_at_any() {
    let mut scene = Scene::new(0, ());
    for (at, options) in [
        ("0.0.0.0:7", Listen::new()),
        ("[::]:7", Listen::new().v6only(true)),
        ("[::]:8", Listen::new()),
        ("0.0.0.0:9", Listen::new()),
    ] {
        let key = scene.net().listen_with(at, options, |_, _, _| Ok(Lines)).expect("a free port");
        assert_eq!(scene.net().local(key).map(ToString::to_string).as_deref(), Some(at), "as the real one says");
    }
    for at in ["10.9.8.7:7", "127.0.0.1:7", "0.0.0.0:7", "[fd00::1]:7", "[::1]:8", "[::]:8", "10.9.8.7:8", "0.0.0.0:8"] {
        assert!(is_reached(&mut scene, at), "{at}");
    }
    for at in ["[fd00::1]:9", "[::]:9", "10.9.8.7:10", "0.0.0.0:10"] {
        assert!(!is_reached(&mut scene, at), "{at}");
    }
    for at in ["0.0.0.0:7", "10.0.0.1:7", "[::]:9", "0.0.0.0:8", "[fd00::1]:7"] {
        assert!(scene.net().listen(at, || Lines).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse), "{at}");
    }
    // For its own connects it is itself that is there; for others, whatever serves there.
    let (any, one) = (scene.serves("0.0.0.0:5"), scene.serves("10.0.0.9:7"));
    assert_eq!(scene.address(any).to_string(), "0.0.0.0:5");
    scene.net().connect("10.3.3.3:5", Begins(|ctx: &mut Context<'_>| Ok(ctx.send("hello"))));
    scene.net().connect("10.0.0.9:7", Begins(|ctx: &mut Context<'_>| Ok(ctx.send("hello"))));
    scene.hears(any, "hello").hears(one, "hello");
    let before = scene.connections();
    scene.net().connect("10.0.0.10:7", Begins(|ctx: &mut Context<'_>| Ok(ctx.send("nobody is there"))));
    assert_eq!(scene.connections(), before, "refused: a server has not every address of the world");
    scene.net().connect("0.0.0.0:7", Begins(|_: &mut Context<'_>| Ok(())));
    assert_eq!(scene.connections(), before + 2, "both ends are its own");
    let other = scene.serves("0.0.0.0:9");
    scene.net().connect("127.0.0.1:9", Begins(|ctx: &mut Context<'_>| Ok(ctx.send("hello"))));
    scene.hears(other, "hello");
    assert!(is_reached(&mut scene, "127.0.0.1:9"));
}

#[test]
fn a_host_listens_on_all_its_addresses() {
    let mut sim = Sim::new(0);
    let hosts = ["10.0.0.1", "10.0.0.2"].map(|ip| sim.host(ip, ()));
    for host in hosts {
        let key = sim.net(host).listen("0.0.0.0:7", || Lines).expect("each has its own");
        assert_eq!(sim.net(host).local(key).map(ToString::to_string).as_deref(), Some("0.0.0.0:7"));
        assert!(sim.net(host).listen("[::]:7", || Lines).is_err(), "which is also IPv4's");
    }
    let from = "0.0.0.0:99".parse().expect("an address");
    sim.net(hosts[0]).connect_with("10.0.0.2:7", Connect::new().local(from), Begins(|_: &mut Context<'_>| Ok(())));
    sim.net(hosts[1]).connect("0.0.0.0:7", Begins(|_: &mut Context<'_>| Ok(())));
    sim.settle();
    let peers = hosts.map(|host| {
        let all = sim.net(host).connections();
        all.iter().filter(|one| one.kind == Kind::Accepted).map(|one| one.peer.to_string()).collect::<Vec<_>>()
    });
    assert_eq!(peers, [vec![], vec!["10.0.0.1:99".to_owned(), "10.0.0.2:32768".to_owned()]], "it is itself to who connects");
}

#[test]
fn a_reset_and_a_proper_end_are_told_apart() {
    let mut scene = Scene::new(0, ());
    scene.net().listen("10.0.0.1:7", || Begins(|ctx: &mut Context<'_>| Ok(ctx.close()))).expect("a free port");
    scene.net().listen("10.0.0.1:8", || Begins(|ctx: &mut Context<'_>| Ok(ctx.abort()))).expect("a free port");
    let [ended, reset] = [scene.dials("10.0.0.1:7"), scene.dials("10.0.0.1:8")];
    scene.hears_end(ended).hears_end(reset).hears_reset(reset);
    assert!(complaint(|| ignore(scene.hears_reset(ended))).contains("properly"));
    // An actor that has been reset may still close, as with any socket.
    scene.closes(reset);
}

// ----------------------------------------------------------------------------------------------------------- mistakes

thread_local! {
    /// The file of the last panic.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What is said to a mistake, and that it is said here.
fn complaint(mistake: impl FnOnce()) -> String {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let printing = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(|at| at.file().to_owned()).unwrap_or_default());
            printing(info);
        }));
    });
    let payload = panic::catch_unwind(AssertUnwindSafe(mistake)).expect_err("it is a mistake, and nothing was said");
    let text = text_of(&*payload);
    assert_eq!(PLACE.take(), file!(), "where it was said: {text}");
    text
}

/// For what a chain gives back.
fn ignore<T>(_: T) {}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a text")
}

struct Lines;

impl<S> Protocol<S> for Lines {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        match line {
            b"bye" => ctx.close(),
            b"abort" => ctx.abort(),
            b"pause" => ctx.pause(),
            b"panic" => panic!("as asked"),
            line => ctx.send([line, b"!\n"].concat()),
        }
        Ok(())
    }
}

fn talk() -> Transcript<Lines> {
    Transcript::new(Lines)
}

/// A dialogue that has ended by a reset.
fn ended() -> Transcript<Lines> {
    let mut t = talk();
    t.receives("abort\n").closes(|why| matches!(why, Reason::Abort));
    t
}

#[test]
fn a_dialogue_says_what_was_wrong() {
    let paused = |t: &mut Transcript<Lines>| ignore(t.receives("pause\n"));
    let mistakes: [(&str, fn(&mut Transcript<Lines>)); 11] = [
        ("5 bytes came", |t| ignore(t.receives("one\n").sends("two!\n"))),
        ("0 bytes came, 5 were expected", |t| ignore(t.sends("more\n"))),
        ("(the actor does not read)", |t| ignore(t.peer_stops_reading().receives("one\n").sends("one!\n"))),
        ("another reason: aborted", |t| ignore(t.receives("abort\n").closes(Reason::is_clean))),
        ("it is still open", |t| ignore(t.closes(Reason::is_clean))),
        ("it has ended: finished", |t| ignore(t.receives("bye\n").stays_open())),
        ("it has ended, so it receives nothing: finished", |t| ignore(t.receives("bye\n").receives("one\n"))),
        ("it has ended, so it receives nothing: aborted", |t| ignore(t.receives("abort\n").receives_bytewise("one\n"))),
        ("(it has ended: finished)", |t| ignore(t.receives("bye\nand this\n").sends("and this!\n"))),
        ("5 bytes came, 0 were expected", |t| ignore(t.receives("one\nbye\n").closes(Reason::is_clean))),
        ("it has ended its side", |t| ignore(t.scene_ends().receives("one\n"))),
    ];
    for (words, mistake) in mistakes {
        let text = complaint(|| mistake(&mut talk()));
        assert!(text.contains(words), "\"{words}\" is not in: {text}");
    }
    let mut t = talk();
    paused(&mut t);
    assert!(complaint(|| ignore(t.receives(vec![b'x'; 1 << 20]))).contains("the reactor does not read"));
    assert!(complaint(|| ignore(ended().peer_ends())).contains("its connection is gone"));
    assert!(complaint(|| ignore(talk().peer_resets().peer_resets())).contains("broken it off, before"));
    assert!(complaint(|| ignore(Transcript::new(Begins(|_: &mut Context<'_>| panic!("at once"))))).contains("at once"));
    assert!(complaint(|| every_cut::<Lines, ()>("panic\n", || Lines)).contains("as asked"));
}

/// The protocol stays although the peer has ended, so that there is somebody to say something to.
trait EndsEarly {
    fn scene_ends(&mut self) -> &mut Self;
}

impl EndsEarly for Transcript<Lines> {
    fn scene_ends(&mut self) -> &mut Self {
        self.receives("pause\n").peer_ends()
    }
}

#[test]
fn what_a_peer_may_do_after_the_end_it_may_do() {
    // A polite close waits for the peer's end, and drops what it says until then.
    let mut t = talk();
    t.receives("bye\n").closes(Reason::is_clean);
    let peer = t.peer();
    t.receives("").scene().says(peer, "late\n").hears_end(peer);
    t.peer_ends().passes(SECOND).sends("").closes(Reason::is_clean);
    // An end in the midst of what is said is the same for one piece and for many.
    talk().receives("one\nbye\ntwo\n").sends("one!\n").closes(Reason::is_clean);
    talk().receives_bytewise("one\nbye\ntwo\n").sends("one!\n").closes(Reason::is_clean);
    talk().receives([&b"abort\n"[..], &[b'x'; 1 << 20]].concat()).closes(|why| matches!(why, Reason::Abort));
    assert!(ended().passes(SECOND).peer_resets().end().is_some());
}

/// Its output is on its way, because the peer does not read, or its rate is low: the input is not read any more.
#[test]
fn a_protocol_that_has_closed_receives_nothing() {
    let mut t = talk();
    let key = t.peer_stops_reading().receives("one\n").key();
    t.scene().net().send(key, vec![b'.'; 300_000]);
    t.scene().net().close(key);
    assert!(complaint(|| ignore(t.receives("lost"))).contains("it has closed, and "));
    assert!(complaint(|| ignore(t.receives_bytewise("lost"))).contains("it receives nothing any more"));
    assert!(t.receives("").end().is_none(), "nothing is not lost");
    assert_eq!(t.peer_reads().sent().len(), 300_005);
    t.closes(Reason::is_clean);

    fn slowly(ctx: &mut Context<'_>) -> Outcome {
        ctx.set_write_rate(1);
        ctx.send("bye");
        Ok(ctx.close())
    }
    every_cut("abc", || Begins(slowly));
}

#[test]
fn what_is_asserted_when_it_is_dropped_fails_the_test() {
    /// Does as it is told, and panics when it is dropped.
    struct Asserts(Beginning);
    impl Protocol for Asserts {
        fn received(&mut self, ctx: &mut Context<'_>, _: &mut (), _: &[u8]) -> Outcome {
            (self.0)(ctx)
        }
    }
    impl Drop for Asserts {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "asserted in drop");
        }
    }
    let endings: [Beginning; 5] = [
        |ctx| Ok(ctx.close()),
        |ctx| Ok(ctx.abort()),
        |_| Err("no".into()),
        |ctx| Ok(ctx.upgrade(Begins(|_: &mut Context<'_>| Ok(())))),
        |_| Ok(()), // it is there to the last
    ];
    for ending in endings {
        let text = complaint(|| {
            let mut t = Transcript::new(Asserts(ending));
            t.receives("x");
        });
        assert!(text.contains("asserted in drop"), "{text}");
    }
    let text = complaint(|| {
        let mut sim = Sim::new(0);
        let host = sim.host("10.0.0.1", ());
        sim.net(host).listen("10.0.0.1:7", || Asserts(|_| Ok(()))).expect("a free port");
        sim.net(host).connect("10.0.0.1:7", Begins(|_: &mut Context<'_>| Ok(())));
        sim.run_for(SECOND).shutdown(host);
    });
    assert!(text.contains("asserted in drop"), "{text}");
    let text = complaint(|| {
        check(0..1, |sim| {
            let host = sim.host("10.0.0.1", ());
            sim.net(host).connect("10.0.0.1:7", Asserts(|_| Ok(())));
        });
    });
    assert!(text.contains("seed 0: asserted in drop (at tests"), "{text}");
    // Where it has failed already, that is what is told.
    assert!(complaint(|| ignore(Transcript::new(Asserts(|_| Ok(()))).sends("more"))).contains("4 were expected"));
}

#[test]
fn a_scene_says_what_was_wrong() {
    let mistakes: [(&str, fn(&mut Scene<()>)); 23] = [
        ("`nonsense` is not an IP address and port", |scene| ignore(scene.dials("nonsense"))),
        ("`localhost:80` is not an IP address and port", |scene| ignore(scene.dials_deaf("localhost:80"))),
        ("`unix:/x` is not an IP address and port", |scene| ignore(scene.serves("unix:/x"))),
        ("`10.0.0.1:7` cannot be served: somebody else", |scene| ignore(scene.serves("10.0.0.1:7"))),
        ("it serves 10.0.0.2:7", |scene| {
            let server = scene.serves("10.0.0.2:7");
            scene.says(server, "one\n");
        }),
        ("cannot close: nobody has connected", |scene| {
            let server = scene.serves("10.0.0.2:7");
            scene.closes(server);
        }),
        ("no end has come: nobody has connected", |scene| {
            let server = scene.serves("10.0.0.2:7");
            scene.hears_end(server);
        }),
        ("(nobody has connected to it yet", |scene| {
            let server = scene.serves("10.0.0.2:7");
            scene.hears(server, "hello");
        }),
        ("no end has come: the connection is still open", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.hears_end(client);
        }),
        ("there was no connection that could end", |scene| {
            let client = scene.dials("10.0.0.1:8");
            scene.hears_end(client);
        }),
        ("cannot say anything: its connection is gone: ConnectionRefused", |scene| {
            let client = scene.dials("10.0.0.1:8");
            scene.says(client, "one\n");
        }),
        ("cannot say anything: its connection is gone: ConnectionRefused", |scene| {
            let client = scene.dials_deaf("10.0.0.1:8");
            scene.says(client, "one\n");
        }),
        ("cannot say anything: it has closed", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.closes(client).says(client, "one\n");
        }),
        ("cannot close: it has closed", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.closes(client).closes(client);
        }),
        ("cannot reset: it has closed", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.resets(client).resets(client);
        }),
        ("cannot end its side: it has done so before", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.ends(client).ends(client);
        }),
        ("cannot say anything: it has ended its side", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.says(client, "pause\n").ends(client).says(client, "one\n");
        }),
        ("cannot say anything: its connection is gone", |scene| {
            let client = scene.dials("10.0.0.1:7");
            scene.says(client, "abort\n").says(client, "one\n");
        }),
        ("cannot say anything: its connection is gone", |scene| {
            let client = scene.dials_deaf("10.0.0.1:7");
            scene.says(client, "abort\n").says(client, "one\n");
        }),
        ("`x` is not an IP address", |scene| ignore(scene.set_fate("x", Fate::Silent))),
        ("`unix:/x` is not an IP address", |scene| ignore(scene.set_fate("unix:/x", Fate::Silent))),
        ("`a b` is not a host name", |scene| ignore(scene.name("a b", &["10.0.0.1"]))),
        ("`10.0.0` is not an IP address", |scene| ignore(scene.name("a.example", &["10.0.0"]))),
    ];
    for (words, mistake) in mistakes {
        let mut scene = Scene::new(0, ());
        scene.net().listen("10.0.0.1:7", || Lines).expect("a free port");
        let text = complaint(|| mistake(&mut scene));
        assert!(text.contains(words), "\"{words}\" is not in: {text}");
    }
    let stranger = {
        let mut other = Scene::new(0, ());
        (other.serves("10.0.0.3:7"), other.serves("10.0.0.4:7")).1
    };
    assert!(complaint(|| ignore(Scene::new(0, ()).hears(stranger, ""))).contains("no such actor"));
    assert!(complaint(|| ignore(Scene::new(0, ()).address(stranger))).contains("no such actor"));
    assert!(complaint(|| ignore(Scene::new(0, ()).takes(stranger))).contains("no such actor"));
}

/// Whether it is never answered, or the answer is still on its way.
#[test]
fn a_client_that_nobody_has_answered_is_not_connected() {
    let mistakes: [(&str, fn(&mut Scene<()>, Actor)); 5] = [
        ("cannot say anything: it is not connected", |scene, who| ignore(scene.says(who, "one\n"))),
        ("cannot end its side: it is not connected", |scene, who| ignore(scene.ends(who))),
        ("no end has come: it is not connected", |scene, who| ignore(scene.hears_end(who))),
        ("no end has come: it is not connected", |scene, who| ignore(scene.hears_reset(who))),
        ("(it is not connected: nobody has answered it yet)", |scene, who| ignore(scene.hears(who, "one!\n"))),
    ];
    for latency in [Duration::ZERO, SECOND] {
        for deaf in [false, true] {
            for (words, mistake) in mistakes {
                let mut scene = Scene::new(0, ());
                scene.set_weather(Weather::fair().latency(latency, Duration::ZERO));
                scene.net().listen("10.0.0.1:7", || Lines).expect("a free port");
                if latency.is_zero() {
                    scene.set_fate("10.0.0.1:7", Fate::Silent);
                }
                let client = if deaf { scene.dials_deaf("10.0.0.1:7") } else { scene.dials("10.0.0.1:7") };
                let text = complaint(|| mistake(&mut scene, client));
                assert!(text.contains(words), "\"{words}\" is not in: {text}");
                scene.hears(client, "").passes(2 * SECOND);
                if !latency.is_zero() {
                    scene.reads(client, true).says(client, "one\n").passes(2 * SECOND).hears(client, "one!\n");
                }
                assert_eq!(scene.closes(client).passes(2 * SECOND).connections(), 0, "it may always give up");
            }
        }
    }
}

/// A deaf actor does not know yet that it was reset; then it hears what it had been sent before, and the reset.
#[test]
fn what_a_write_was_told_is_not_forgotten() {
    let mut scene = Scene::new(0, ());
    scene.net().listen("10.0.0.1:7", || Lines).expect("a free port");
    let client = scene.dials_deaf("10.0.0.1:7");
    scene.says(client, "one\n").says(client, "abort\n");
    assert!(complaint(|| ignore(scene.says(client, "two\n"))).contains("ConnectionReset"));
    assert!(complaint(|| ignore(scene.ends(client))).contains("ConnectionReset"));
    scene.reads(client, true).hears(client, "one!\n").hears_reset(client);
}

#[test]
fn a_simulation_says_what_was_wrong() {
    let mistakes: [(&str, fn(&mut Sim)); 15] = [
        ("`nonsense` is not an IP address", |sim| ignore(sim.host("nonsense", ()))),
        ("`10.0.0.1:7` is not an IP address", |sim| ignore(sim.host("10.0.0.1:7", ()))),
        ("`0.0.0.0` is every address", |sim| ignore(sim.host("0.0.0.0", ()))),
        ("`::` is every address", |sim| ignore(sim.host("::", ()))),
        ("`::ffff:10.0.0.1` is 10.0.0.1", |sim| ignore((sim.host("10.0.0.1", ()), sim.host("::ffff:10.0.0.1", ())))),
        ("`224.0.0.1` is not an address of one host", |sim| ignore(sim.host("224.0.0.1", ()))),
        ("`ff02::1` is not an address of one host", |sim| ignore(sim.host("ff02::1", ()))),
        ("`255.255.255.255` is not an address of one host", |sim| ignore(sim.host_with("255.255.255.255", (), Config::new()))),
        ("`0.0.0.1` is not an address of one host", |sim| ignore(sim.host("0.0.0.1", ()))),
        ("10.0.0.1 is another host's", |sim| ignore((sim.host("10.0.0.1", ()), sim.host("10.0.0.1", 0)))),
        ("fd00::1 is another host's", |sim| ignore((sim.host("fd00::1", ()), sim.host("fd00:0::0:1", 0)))),
        ("`x` is not an IP address", |sim| ignore(sim.set_fate("x", Fate::Silent))),
        ("`10.0.0.1` is an address", |sim| ignore(sim.name("10.0.0.1", &["10.0.0.2"]))),
        ("`` is not a host name", |sim| ignore(sim.set_name_fate("", None))),
        ("`x` is not an IP address", |sim| ignore(sim.name("a.example", &["10.0.0.1", "x"]))),
    ];
    for (words, mistake) in mistakes {
        let text = complaint(|| mistake(&mut Sim::new(0)));
        assert!(text.contains(words), "\"{words}\" is not in: {text}");
    }
}

#[test]
fn a_host_of_another_simulation_is_none_of_this_one() {
    let stranger = Sim::new(0).host("10.0.0.1", "a state");
    let mistakes: [fn(&mut Sim, mainspring::testing::Host<&'static str>); 11] = [
        |sim, host| ignore(sim.net(host).stats()),
        |sim, host| ignore(sim.state(host).len()),
        |sim, host| sim.with(host, |_, _| ()),
        |sim, host| sim.shutdown(host),
        |sim, host| ignore(sim.has_stopped(host)),
        |sim, host| ignore(sim.part(host, host)),
        |sim, host| ignore(sim.join(host, host)),
        |sim, host| ignore(sim.kill(host)),
        |sim, host| ignore(sim.set_sockets_max(host, 1)),
        |sim, host| ignore(sim.fail_operation(host, 0, Errno::Again, false)),
        |sim, host| ignore((sim.sockets(host), sim.operations(host))),
    ];
    for mistake in mistakes {
        assert!(complaint(|| mistake(&mut Sim::new(0), stranger)).contains("no such host"));
    }
    let mut sim = Sim::new(0);
    sim.host("10.0.0.1", 5);
    assert!(complaint(|| ignore(sim.state(stranger).len())).contains("no such host"), "its state is of another type");
}

type Spin = fn(&mut Context<'_>) -> Outcome;

/// Does it when it is connected, and again with each frame.
struct Spins(Spin);

impl Protocol for Spins {
    fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
        (self.0)(ctx)
    }

    fn frame(&mut self, ctx: &mut Context<'_>, _: &mut (), _: &[u8]) -> Outcome {
        (self.0)(ctx)
    }
}

/// Whatever a turn of it is: a thousand callbacks, one of them, none. With the bounds that a reactor has by default.
#[test]
fn a_spinning_program_is_told_at_the_line_that_lets_time_pass() {
    fn post(net: &mut mainspring::Net<'_>, _: &mut ()) {
        net.post(post);
    }
    fn timer(_: &mut Spins, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
        ctx.after(Duration::ZERO, timer);
        Ok(())
    }
    let spins: [(&str, bool, Spin); 4] = [
        ("a post that posts itself", false, |ctx| Ok(ctx.net.post(post))),
        ("a timer that sets itself", true, |ctx| timer(&mut Spins(|_| Ok(())), ctx, &mut ())),
        ("frames of nothing", false, |ctx| Ok(ctx.set_terminator(Terminator::exactly(0)))),
        ("a producer without end", true, |ctx| {
            ctx.produce(|out: &mut Vec<u8>| {
                out.resize(out.len() + 1000, b'.');
                Ok(mainspring::Produced::More)
            });
            Ok(())
        }),
    ];
    for (name, is_told_by_turns, spin) in spins {
        let mut scene = Scene::new(9, ());
        scene.set_weather(Weather::fair().window(1)).sim().keep_trace(false); // a turn for each byte
        scene.net().listen("10.0.0.1:7", move || Spins(spin)).expect("a free port");
        let text = complaint(|| ignore(scene.dials("10.0.0.1:7")));
        assert!(text.contains("seed 9: a host spins: at 0ns 127.0.0.1 has had"), "{name}: {text}");
        assert_eq!(text.contains("has had 100001 turns"), is_told_by_turns, "{name}: {text}");
    }
    let mut sim = Sim::new(9);
    sim.keep_trace(false);
    let host = sim.host_with("10.0.0.1", (), Config::new().turn_tells(1));
    sim.run_for(SECOND).net(host).post(post);
    assert!(complaint(|| ignore(sim.run_for(SECOND))).contains("seed 9: a host spins: at 1s 10.0.0.1"));
}

/// What is done at one moment counts, not what is done in all; and much may be done at one.
#[test]
fn a_long_simulation_is_no_spin() {
    let mut t = Transcript::<Lines>::new(Lines);
    let many = b"x\n".repeat(100_000);
    t.receives(&many);
    assert_eq!(t.sent().len(), 300_000);
    let mut sim = Sim::new(0);
    let host = sim.host("10.0.0.1", 0_u32);
    sim.keep_trace(false).net(host).every(Duration::from_millis(1), |_, count| *count += 1);
    sim.run_for(150 * SECOND);
    assert_eq!(*sim.state(host), 150_000, "more turns than are a spin at one moment");
}

/// An actor is no program, so no event can be wrong for it.
#[test]
fn events_may_be_as_wrong_as_they_like() {
    for often in [1000, u32::MAX] {
        let mut scene = Scene::new(0, ());
        scene.set_weather(Weather::fair().spurious(often));
        scene.net().listen("10.0.0.1:7", || Lines).expect("a free port");
        let client = scene.dials("10.0.0.1:7");
        scene.says(client, "one\n").hears(client, "one!\n").passes(SECOND).ends(client).hears_end(client);
    }
}

#[test]
fn an_empty_range_tests_nothing_and_a_failing_check_is_told_at_its_own_line() {
    assert!(complaint(|| check(7..7, |_| ())).contains("there is no seed in 7..7"));
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 9..7;
    assert!(complaint(|| check(backwards, |_| ())).contains("there is no seed in 9..7"));
    assert!(complaint(|| check(0..2, |_| panic!("as asked"))).contains("as asked"));
    let runs = std::cell::Cell::new(0);
    let differs = complaint(|| {
        check(0..2, |sim| {
            runs.set(runs.get() + 1);
            sim.note(&format!("run {}", runs.get()));
        });
    });
    assert!(differs.contains("two different traces"), "{differs}");
}

/// Nothing in the simulation decides, so no seed has it again.
#[test]
fn a_failure_that_does_not_come_again_is_told_as_that() {
    for failing in 1..=4 {
        let runs = std::cell::Cell::new(0);
        let text = complaint(|| {
            check(0..2, |sim| {
                sim.host("10.0.0.1", ());
                runs.set(runs.get() + 1);
                assert!(runs.get() != failing, "now and then");
            });
        });
        let words = ["fails only one time out of two", "the first time it failed: now and then"];
        let words = if failing > 2 { ["it did not fail when it was run again", ": now and then (at tests"] } else { words };
        let words = words.map(|words| if failing == 2 { words.replace("first", "second") } else { words.to_owned() });
        assert!(words.iter().all(|words| text.contains(words)), "{failing}: {text}");
        assert!(!text.contains("MAINSPRING_SEED"), "a command that cannot fail: {text}");
    }
    // What always fails has its command, also if it is not the same that fails.
    let runs = std::cell::Cell::new(0);
    let text = complaint(|| {
        check(0..2, |_| {
            runs.set(runs.get() + 1);
            panic!("run {}", runs.get());
        });
    });
    assert!(text.contains("MAINSPRING_SEED=0"), "{text}");
}

#[test]
fn another_simulation_cannot_take_the_place_of_its_own() {
    let mistakes: [fn(&mut Transcript<Lines>); 9] = [
        |t| ignore(t.receives("x")),
        |t| ignore(t.protocol().is_some()),
        |t| ignore(t.protocol_as::<Spins>().is_some()),
        |t| *t.state() = (),
        |t| ignore(t.end()),
        |t| ignore(t.scene().net().stats()),
        |t| ignore(t.scene().dials("10.0.0.1:7")),
        |t| ignore(t.scene().serves("10.0.0.1:7")),
        |t| ignore(t.scene().passes(SECOND).connections()),
    ];
    for mistake in mistakes {
        let (mut one, mut other) = (talk(), talk());
        std::mem::swap(one.scene().sim(), other.scene().sim());
        assert!(complaint(|| mistake(&mut one)).contains("has been replaced by another one"));
        std::mem::swap(one.scene().sim(), other.scene().sim());
        one.receives("one\n").sends("one!\n");
        *one.scene().sim() = Sim::new(1);
        assert!(complaint(|| mistake(&mut one)).contains("has been replaced by another one"));
    }
    assert!(complaint(|| check(0..2, |sim| *sim = Sim::new(5))).contains("another simulation in the place of the one"));
}

#[test]
fn time_passes_also_when_nothing_happens() {
    let mut sim = Sim::new(0);
    let host = sim.host("10.0.0.1", 0);
    sim.net(host).after(10 * SECOND, |_, fired| *fired += 1);
    assert!(!sim.run_until(6 * SECOND, |_| false));
    assert_eq!(sim.now(), 6 * SECOND);
    sim.run_for(5 * SECOND);
    assert_eq!((sim.now(), *sim.state(host)), (11 * SECOND, 1));
    assert!(sim.run_until(SECOND, |sim| sim.now() == 12 * SECOND), "the time itself may be what is waited for");
    assert!(sim.run_until(SECOND, |_| true));
    assert_eq!(sim.now(), 12 * SECOND, "it is so already");
}

#[test]
fn time_without_end_is_no_overflow() {
    let mut t = talk();
    t.receives("one\n").sends("one!\n").passes(SECOND);
    let mut sim = Sim::new(0);
    sim.set_weather(Weather::fair());
    let server = sim.host("10.0.0.1", ());
    sim.net(server).listen_with("10.0.0.1:7", Listen::new(), |_, _, _| Ok(Lines)).expect("a free port");
    sim.run_for(Duration::MAX);
    assert!(!sim.run_until(Duration::MAX, |_| false));
    let mut scene = Scene::new(0, ());
    scene.passes(SECOND).passes(Duration::MAX);
}

/// What takes for ever never arrives, and whoever waits for it gives up in time.
#[test]
fn a_latency_without_end_is_no_overflow() {
    for (least, jitter) in [(Duration::MAX, SECOND), (Duration::MAX, Duration::MAX), (SECOND, Duration::MAX)] {
        let mut sim = Sim::new(0);
        sim.set_weather(Weather::fair().latency(least, jitter).bandwidth(1));
        sim.name("a.example", &["10.0.0.1"]);
        let host = sim.host("10.0.0.1", ());
        sim.net(host).listen_with("10.0.0.1:7", Listen::new().backlog(1), |_, _, _| Ok(Lines)).expect("a free port");
        for to in ["10.0.0.1:7", "a.example:7", "10.0.0.2:7"] {
            sim.net(host).connect(to, Lines);
        }
        sim.run_for(31 * SECOND);
        assert_eq!(sim.net(host).stats().closed.connect, 3, "{}", sim.trace());
        sim.run_for(Duration::MAX).run_for(SECOND);
    }
    // What does not need time happens also when there is none left.
    let mut scene = Scene::new(0, ());
    scene.net().listen("10.0.0.1:7", || Lines).expect("a free port");
    let client = scene.passes(Duration::MAX).dials("10.0.0.1:7");
    scene.says(client, "one\n").hears(client, "one!\n");
}
