//! The simulated network, used as its users do.
#![cfg(feature = "sim")]

use mainspring::{
    Context, Net, Outcome, Protocol, Reason, Terminator,
    testing::{Errno, Fate, Scene, Sim, Transcript, Weather, check, every_cut},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Lines;

impl<S> Protocol<S> for Lines {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        ctx.set_idle_timeout(60 * SECOND);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        match line {
            b"BYE" => ctx.close(),
            line => ctx.send([line, b"!\n"].concat()),
        }
        Ok(())
    }
}

#[test]
fn a_transcript_reads_like_a_dialogue() {
    let mut t = Transcript::<Lines>::new(Lines);
    t.receives("HEL").sends("").stays_open();
    t.receives("LO\r\n").sends("HELLO!\n");
    t.receives("BYE\n").closes(Reason::is_clean);
}

#[test]
fn an_hour_of_idling_takes_no_time() {
    let mut t = Transcript::<Lines>::new(Lines);
    for _ in 0..60 {
        t.passes(59 * SECOND).receives("x\n").sends("x!\n");
    }
    t.passes(61 * SECOND).closes(|why| matches!(why, Reason::Limit(mainspring::Limit::Idle)));
}

#[test]
fn every_cut_is_answered_alike() {
    every_cut::<Lines, ()>("one\r\ntwo\n\nthree\nBYE\nfour\n", || Lines);
}

#[test]
fn a_peer_that_resets_is_told() {
    let mut t = Transcript::<Lines>::new(Lines);
    t.receives("x").peer_resets();
    t.closes(|why| matches!(why, Reason::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset));
}

/// Connects, says so, and says why not.
struct Caller;

impl Protocol<Vec<String>> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<String>>, log: &mut Vec<String>) -> Outcome {
        log.push(format!("connected to {}", ctx.peer()));
        ctx.send("hello");
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, bytes: &[u8]) -> Outcome {
        log.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
        log.push(why.to_string());
    }
}

#[test]
fn a_scene_serves_refuses_and_is_silent() {
    let mut scene = Scene::new(1, Vec::new());
    scene.set_fate("10.0.0.2:80", Fate::Refused).set_fate("10.0.0.3:80", Fate::Silent);
    let server = scene.serves("10.0.0.1:80");
    for to in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] {
        scene.net().connect(to, Caller);
    }
    scene.hears(server, "hello").says(server, "well?").ends(server);
    scene.passes(31 * SECOND).hears_end(server);
    let log = std::mem::take(scene.state());
    assert_eq!(
        log,
        [
            "connected to 10.0.0.1:80",
            &format!("could not connect to 10.0.0.2:80: {}", Errno::ConnectionRefused.to_error()),
            "well?",
            "the peer finished",
            "could not connect to 10.0.0.3:80: timed out"
        ]
    );
    assert_eq!(scene.connections(), 0);
}

/// Sends a number of bytes, checks that they come back, in order.
struct Counter {
    left: u8,
    next: u8,
}

impl Protocol<Result<u32, String>> for Counter {
    fn connected(&mut self, ctx: &mut Context<'_, Result<u32, String>>, _: &mut Result<u32, String>) -> Outcome {
        ctx.send((0..self.left).collect::<Vec<u8>>());
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Result<u32, String>>, _: &mut Result<u32, String>, bytes: &[u8]) -> Outcome {
        for &byte in bytes {
            assert_eq!(byte, self.next, "bytes come in order");
            self.next += 1;
        }
        if self.next == self.left {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Result<u32, String>>, done: &mut Result<u32, String>, why: Reason) {
        if why.is_clean() {
            assert_eq!(self.next, self.left, "clean and whole");
            if let Ok(done) = done {
                *done += 1;
            }
        }
    }
}

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

fn echo_through(sim: &mut Sim) -> u32 {
    let server = sim.host("10.0.0.1", ());
    let client = sim.host("10.0.0.2", Ok(0));
    sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
    for _ in 0..5 {
        sim.net(client).connect("10.0.0.1:7", Counter { left: 200, next: 0 });
    }
    sim.run_for(3600 * SECOND);
    assert_eq!(sim.sockets(client), 0, "all have ended");
    assert_eq!(sim.sockets(server), 1, "the listener is left");
    *sim.state(client).as_ref().expect("nothing went wrong")
}

#[test]
fn in_fair_weather_everything_arrives() {
    check(0..20, |sim| assert_eq!(echo_through(sim), 5));
}

#[test]
fn in_rough_weather_what_is_clean_is_whole_and_everything_ends() {
    check(0..300, |sim| {
        sim.set_weather(Weather::rough());
        echo_through(sim);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        sim.set_weather(Weather::rough());
        echo_through(&mut sim);
        (sim.trace(), sim.digest())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}

#[test]
fn a_partition_holds_everything_up_and_healing_lets_it_through() {
    let mut sim = Sim::new(3);
    let server = sim.host("10.0.0.1", ());
    let client = sim.host("10.0.0.2", Ok(0));
    sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
    sim.net(client).connect("10.0.0.1:7", Counter { left: 10, next: 0 });
    sim.part(server, client).run_for(20 * SECOND);
    assert_eq!(*sim.state(client), Ok(0));
    sim.join(server, client).run_for(SECOND);
    assert_eq!(*sim.state(client), Ok(1));
}

#[test]
fn a_listener_without_descriptors_closes_who_comes_and_serves_when_there_are_some() {
    let mut sim = Sim::new(4);
    let server = sim.host("10.0.0.1", ());
    let client = sim.host("10.0.0.2", Ok(0));
    sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
    sim.set_sockets_max(server, 1);
    sim.net(client).connect("10.0.0.1:7", Echo);
    sim.run_for(SECOND);
    assert_eq!(*sim.state(client), Ok(0));
    assert_eq!((sim.net(server).stats().shed, sim.net(client).stats().closed.total()), (1, 1), "it is told");
    sim.set_sockets_max(server, 9);
    sim.net(client).connect("10.0.0.1:7", Counter { left: 10, next: 0 });
    sim.run_for(SECOND);
    assert_eq!(*sim.state(client), Ok(1));
}

#[test]
fn a_listener_in_the_simulation_limits_each_peer() {
    let mut sim = Sim::new(5);
    let server = sim.host("10.0.0.1", ());
    let clients = ["10.0.0.2", "10.0.0.3"].map(|ip| sim.host(ip, ()));
    let options = mainspring::Listen::new().per_peer_max(2, "enough");
    sim.net(server).listen_with("10.0.0.1:7", options, |_, (), _| Ok(Echo)).expect("a free port");
    for client in clients {
        for _ in 0..3 {
            sim.net(client).connect("10.0.0.1:7", Echo);
        }
    }
    sim.run_for(SECOND);
    let stats = sim.net(server).stats();
    assert_eq!((stats.accepted, stats.refused, stats.connections), (4, 2, 4));
}

/// How often each of the ends of one talk was called with what.
#[derive(Default)]
struct Calls {
    connected: u32,
    closed: u32,
    after_the_end: u32,
}

/// Either end of a talk of a few lines; the asking end closes.
struct Talker {
    asks: bool,
    has_ended: bool,
}

impl Talker {
    fn note(&self, calls: &mut Calls) {
        calls.after_the_end += u32::from(self.has_ended);
    }
}

impl Protocol<Calls> for Talker {
    fn connected(&mut self, ctx: &mut Context<'_, Calls>, calls: &mut Calls) -> Outcome {
        self.note(calls);
        calls.connected += 1;
        ctx.set_terminator(Terminator::line(100));
        ctx.set_idle_timeout(5 * SECOND);
        ctx.set_stall_timeout(5 * SECOND);
        if self.asks {
            ctx.send("one\ntwo\nthree\n");
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Calls>, calls: &mut Calls, line: &[u8]) -> Outcome {
        self.note(calls);
        match (self.asks, line) {
            (false, line) => ctx.send([line, b"\n"].concat()),
            (true, b"three") => ctx.close(),
            (true, _) => {}
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Calls>, calls: &mut Calls, _: Reason) {
        self.note(calls);
        self.has_ended = true;
        calls.closed += 1;
    }
}

#[test]
fn any_operation_may_fail_once_or_for_good_and_everything_ends() {
    /// One talk; which host is tortured, and how. Returns how many operations each has made.
    fn talk(torture: Option<(usize, u64, Errno, bool)>) -> [u64; 2] {
        let mut sim = Sim::new(5);
        let hosts = [sim.host("10.0.0.1", Calls::default()), sim.host("10.0.0.2", Calls::default())];
        let [server, client] = hosts;
        if let Some((host, number, errno, is_persistent)) = torture {
            sim.fail_operation(hosts[host], number, errno, is_persistent);
        }
        let listening = sim.net(server).listen("10.0.0.1:7", || Talker { asks: false, has_ended: false });
        sim.net(client).connect("10.0.0.1:7", Talker { asks: true, has_ended: false });
        sim.run_for(60 * SECOND);
        let operations = hosts.map(|host| sim.operations(host));
        assert_eq!(sim.state(client).closed, 1, "the one that we opened has ended");
        assert_eq!(sim.sockets(client), 0);
        let &mut Calls { connected, closed, .. } = sim.state(server);
        assert_eq!(connected, closed, "so has each that was accepted");
        assert_eq!(sim.sockets(server), usize::from(listening.is_ok()), "the listener is left");
        for host in hosts {
            sim.shutdown(host);
            assert_eq!(sim.sockets(host), 0);
            assert_eq!(sim.state(host).after_the_end, 0, "nothing follows `closed`");
        }
        operations
    }
    let errnos = [
        Errno::Again,
        Errno::Interrupted,
        Errno::ConnectionReset,
        Errno::BrokenPipe,
        Errno::NoBuffers,
        Errno::TimedOut,
        Errno::TooManyFiles,
    ];
    let operations = talk(None);
    assert!(operations.iter().all(|&made| made > 5), "{operations:?}");
    for (host, made) in operations.into_iter().enumerate() {
        for (number, errno) in (0..made).flat_map(|number| errnos.map(|errno| (number, errno))) {
            for is_persistent in [false, true] {
                println!("host {host}, operation {number}, {errno:?}, for good: {is_persistent}");
                talk(Some((host, number, errno, is_persistent)));
            }
        }
    }
}

/// Notes of each `writable` whether `connected` had come; when it has, there is a next one.
#[derive(Default)]
struct Noter {
    is_connected: bool,
}

impl Noter {
    /// One to which `writable` is owed before it is connected.
    fn connect(net: &mut Net<'_, Vec<bool>>) {
        let key = net.connect("10.0.0.1:7", Self::default());
        let mut link = net.link(key).expect("it is connecting");
        link.send([0; 100]);
        link.set_output_limits(10, 50, 1000);
        assert!(link.is_congested());
        link.set_output_limits(200, 500, 1000);
        assert!(!link.is_congested());
    }
}

impl Protocol<Vec<bool>> for Noter {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<bool>>, log: &mut Vec<bool>) -> Outcome {
        self.is_connected = true;
        if log.len() < 6 {
            Self::connect(&mut ctx.net);
        }
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Vec<bool>>, _: &mut Vec<bool>, _: &[u8]) -> Outcome {
        Ok(())
    }

    fn writable(&mut self, _: &mut Context<'_, Vec<bool>>, log: &mut Vec<bool>) -> Outcome {
        log.push(self.is_connected);
        Ok(())
    }
}

/// A spurious event for a connecting socket told `writable`, if the marks had been raised meanwhile.
#[test]
fn writable_does_not_come_before_connected() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.set_weather(Weather::fair().latency(Duration::from_millis(10), Duration::ZERO).spurious(900));
        let server = sim.host("10.0.0.1", ());
        let client = sim.host("10.0.0.2", Vec::new());
        sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
        Noter::connect(&mut sim.net(client));
        sim.run_for(SECOND);
        assert_eq!(*sim.state(client), [true; 7], "seed {seed}");
    }
}

#[test]
fn a_failing_seed_is_reported_with_few_faults_and_a_command() {
    let outcome = std::panic::catch_unwind(|| {
        check(0..50, |sim| {
            sim.set_weather(Weather::fair().latency(Duration::from_millis(1), Duration::ZERO).resets(100));
            assert_eq!(echo_through(sim), 5, "somebody was cut off");
        });
    });
    let payload = outcome.expect_err("one of fifty seeds has a reset");
    let text = payload.downcast_ref::<String>().expect("a text");
    assert!(text.contains("somebody was cut off"), "{text}");
    assert!(text.contains("\n1 of its "), "{text}");
    assert!(text.contains("MAINSPRING_SEED="), "{text}");
    assert!(text.contains(" --test sim a_failing_seed_is_reported_with_few_faults_and_a_command -- --exact"), "{text}");
}
