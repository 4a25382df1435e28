//! Connecting by name in virtual time.

#[cfg(feature = "names")]
use super::ip;
use crate::common::SECOND;
use mainspring::{
    Config, Connect, Context, Key, NameError, Outcome, Protocol, Reason,
    testing::{Errno, Fate, Host, NameFate, Scene, Sim, Weather, check},
};
use std::{net::SocketAddr, time::Duration};

const MILLI: Duration = Duration::from_millis(1);

/// Greets, and says how many are here.
struct Greeter;

impl Protocol<i32> for Greeter {
    fn connected(&mut self, ctx: &mut Context<'_, i32>, here: &mut i32) -> Outcome {
        *here += 1;
        ctx.send("hello");
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, i32>, here: &mut i32, _: Reason) {
        *here -= 1;
    }
}

fn server(sim: &mut Sim, ip: &str) -> Host<i32> {
    let host = sim.host(ip, 0);
    sim.net(host).listen(format!("{ip}:80"), || Greeter).expect("a free port");
    host
}

/// Says when and how.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    closed: usize,
}

struct Client;

impl Protocol<Log> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.lines.push(format!("connected to {}", ctx.peer()));
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.lines.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.lines.push("draining".into());
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.lines.push(why.to_string());
        log.closed += 1;
    }
}

/// A client that has begun to connect to `both.test:80`.
fn client(sim: &mut Sim) -> (Host<Log>, Key) {
    let host = sim.host("10.0.0.9", Log::default());
    let key = sim.net(host).connect("both.test:http", Client);
    (host, key)
}

#[test]
fn a_name_with_one_dead_and_one_live_address_is_connected_within_300_ms() {
    for fate in [Fate::Silent, Fate::Refused, Fate::Unreachable] {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(5 * MILLI, Duration::ZERO));
        sim.name("both.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]).set_fate("10.0.0.1:80", fate);
        server(&mut sim, "10.0.0.2");
        let (host, _) = client(&mut sim);
        assert!(sim.run_until(300 * MILLI, |sim| sim.state(host).lines == ["connected to 10.0.0.2:80", "hello"]), "{fate:?}");
        let least = if fate == Fate::Silent { 250 * MILLI } else { Duration::ZERO };
        assert!(sim.now() >= least, "{:?}", sim.now());
        assert_eq!(sim.sockets(host), 1, "the others are closed");
        assert_eq!(sim.net(host).stats().timers, 0, "what connecting needed is gone");
    }
}

#[test]
fn with_all_dead_the_error_lists_each() {
    let mut sim = Sim::new(1);
    sim.name("both.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"]);
    sim.set_fate("10.0.0.1:80", Fate::Refused).set_fate("10.0.0.2:80", Fate::Unreachable).set_fate("10.0.0.3:80", Fate::Silent);
    sim.set_fate("[fd00::4]:80", Fate::Silent);
    let (host, _) = client(&mut sim);
    sim.run_for(31 * SECOND);
    let lines = sim.state(host).lines.join("\n");
    let os = |errno: Errno| errno.to_error();
    assert_eq!(
        lines,
        format!(
            "could not connect to 10.0.0.1:80: {}; [fd00::4]:80: timed out; 10.0.0.2:80: {}; 10.0.0.3:80: timed out",
            os(Errno::ConnectionRefused),
            os(Errno::HostUnreachable)
        )
    );
    assert_eq!(sim.sockets(host), 0);
    assert_eq!(sim.now(), 31 * SECOND);
}

/// Both are connected at the same moment and greet at once: closing the one loses nothing of the other.
#[test]
fn of_two_that_answer_together_one_is_kept_whole_and_one_is_closed() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        sim.set_weather(Weather::fair().latency(SECOND, Duration::ZERO));
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", NameFate::Slow(MILLI));
        let servers = [server(&mut sim, "10.0.0.1"), server(&mut sim, "10.0.0.2")];
        let (host, key) = client(&mut sim);
        sim.run_for(10 * SECOND);
        let peer = sim.net(host).peer(key).expect("it is open").to_string();
        assert_eq!(sim.state(host).lines, [format!("connected to {peer}"), "hello".into()]);
        assert_eq!(sim.sockets(host), 1);
        assert_eq!(servers.map(|server| *sim.state(server)).iter().sum::<i32>(), 1, "who lost the race has seen the end");
    }
}

/// Says a last word and breaks off.
struct Rude;

impl Protocol<i32> for Rude {
    fn connected(&mut self, ctx: &mut Context<'_, i32>, _: &mut i32) -> Outcome {
        ctx.send("no");
        ctx.after(Duration::ZERO, |_: &mut Self, ctx, _| {
            ctx.abort();
            Ok(())
        });
        Ok(())
    }
}

#[test]
fn last_words_before_a_reset_are_heard_by_who_came_by_name() {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(SECOND, Duration::ZERO)).name("both.test", &["10.0.0.1"]);
    let rude = sim.host("10.0.0.1", 0);
    sim.net(rude).listen("10.0.0.1:80", || Rude).expect("a free port");
    let (host, _) = client(&mut sim);
    sim.run_for(10 * SECOND);
    let lost = format!("connection lost: {}", Errno::ConnectionReset.to_error());
    assert_eq!(sim.state(host).lines, ["connected to 10.0.0.1:80", "no", lost.as_str()]);
}

#[test]
fn a_resolver_that_sleeps_for_60_seconds_delays_nobody_else() {
    let mut sim = Sim::new(1);
    sim.name("both.test", &["10.0.0.1"]).name("slow.test", &["10.0.0.1"]).name("never.test", &["10.0.0.1"]);
    sim.set_name_fate("slow.test", NameFate::Slow(60 * SECOND)).set_name_fate("never.test", NameFate::Silent);
    server(&mut sim, "10.0.0.1");
    let config = Config::new().resolve_threads(3).resolve_queue(1);
    let host = sim.host_with("10.0.0.9", Log::default(), config);
    let patient = Connect::new().timeout(100 * SECOND);
    sim.net(host).connect_with("slow.test:80", patient.clone(), Client);
    sim.net(host).connect_with("never.test:80", patient.clone(), Client);
    for _ in 0..3 {
        let already = sim.state(host).lines.len();
        sim.net(host).connect("both.test:80", Client);
        sim.settle();
        assert_eq!(sim.state(host).lines[already..], ["connected to 10.0.0.1:80", "hello"], "one thread is left");
    }
    // The last thread hangs, the queue fills, and beyond it there is an answer at once.
    sim.net(host).connect_with("never.test:80", patient.clone(), Client);
    sim.net(host).connect_with("both.test:80", patient.clone(), Client);
    sim.net(host).connect("both.test:80", Client);
    let already = sim.state(host).lines.len();
    sim.settle();
    assert!(sim.state(host).lines[already..].iter().all(|line| line.contains("too many names")));
    assert_eq!(sim.state(host).closed, 1);
    // When the slow one is there its thread takes the one that waits.
    sim.run_for(61 * SECOND);
    assert_eq!(sim.state(host).lines.iter().filter(|line| line.starts_with("connected")).count(), 5);
    sim.run_for(50 * SECOND);
    assert_eq!(sim.state(host).lines.iter().filter(|line| line.contains("not resolved in time")).count(), 2);
}

#[test]
fn what_a_name_comes_to_is_told_by_what_it_is() {
    let mut scene = Scene::new(1, Vec::new());
    let all = [
        ("gone.test", Some(NameFate::NotFound), Err(NameError::NotFound)),
        ("later.test", Some(NameFate::TryAgain), Err(NameError::TryAgain)),
        ("broken.test", Some(NameFate::Failed), Err(NameError::Failed)),
        ("silent.test", Some(NameFate::Silent), Err(NameError::TimedOut)),
        ("slow.test", Some(NameFate::Slow(SECOND)), Ok(2)),
        ("Fair.test.", None, Ok(2)),
    ];
    for (host, fate, _) in all {
        scene.name(host, &["10.0.0.1", "fd00::1"]).set_name_fate(host, fate);
        scene.net().resolve(host, move |_, heard: &mut Vec<_>, found| {
            heard.push((host, found.map(|all| all.len()).map_err(|error| NameError::of(&error).expect("a resolver's"))));
        });
    }
    scene.net().resolve("fair.TEST", |_, _, found| assert_eq!(found.expect("names have no case").len(), 2));
    scene.passes(31 * SECOND);
    for (host, _, expected) in all {
        assert!(scene.state().contains(&(host, expected)), "{host}: {:?}", scene.state());
    }
}

#[test]
#[cfg(feature = "names")]
fn the_way_back_is_in_the_simulated_world_too() {
    let mut scene = Scene::new(1, Vec::new());
    scene.name("printer.test", &["10.0.0.7"]);
    for text in ["10.0.0.7", "10.0.0.8"] {
        scene.net().resolve_back(ip(text), |_, heard: &mut Vec<_>, found| {
            heard.push(found.map_err(|error| (NameError::of(&error), error.to_string())));
        });
    }
    scene.settles();
    let unknown = (Some(NameError::NotFound), "`10.0.0.8`: it has no name".to_owned());
    assert_eq!(*scene.state(), [Ok("printer.test".to_owned()), Err(unknown)]);
}

/// As a listener for both families has its peers.
#[test]
#[cfg(feature = "names")]
fn an_ipv4_address_mapped_to_ipv6_has_the_name_of_the_ipv4_address() {
    let mut scene = Scene::new(1, Vec::new());
    scene.name("printer.test", &["10.0.0.7"]);
    scene.net().resolve_back(ip("::ffff:10.0.0.7"), |_, heard: &mut Vec<_>, found| heard.push(found.ok()));
    scene.settles();
    assert_eq!(*scene.state(), [Some("printer.test".to_owned())]);
}

#[test]
fn a_connection_ends_in_a_race_as_it_would_at_any_time() {
    let end: [(&str, fn(&mut Sim, Host<Log>, Key)); 5] = [
        ("aborted", |sim, host, key| _ = sim.net(host).abort(key)),
        ("finished", |sim, host, key| _ = sim.net(host).close(key)),
        ("failed: enough", |sim, host, key| _ = sim.net(host).fail(key, "enough")),
        ("the reactor was shut down", |sim, host, _| sim.shutdown(host)),
        ("the deadline passed", |sim, host, key| {
            sim.net(host).link(key).expect("it is open").set_deadline(MILLI);
        }),
    ];
    for (why, end) in end {
        for after in [0, 100, 300, 600] {
            let mut sim = Sim::new(1);
            sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", NameFate::Slow(10 * MILLI));
            sim.set_fate("10.0.0.1:80", Fate::Silent).set_fate("10.0.0.2:80", Fate::Silent);
            let (host, key) = client(&mut sim);
            sim.run_for(after * MILLI);
            assert_eq!(sim.sockets(host), [0, 1, 2, 2][[0, 100, 300, 600].iter().position(|&at| at == after).expect("listed")]);
            end(&mut sim, host, key);
            sim.run_for(SECOND);
            assert_eq!(sim.state(host).lines, [why], "after {after} ms");
            assert_eq!(sim.sockets(host), 0);
            assert!(!sim.net(host).send(key, "too late"));
            assert_eq!(sim.net(host).stats().timers, 0);
        }
    }
}

/// Notes every byte and every end.
struct Witness;

impl Protocol<Vec<String>> for Witness {
    fn received(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, bytes: &[u8]) -> Outcome {
        log.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<String>>, log: &mut Vec<String>, why: Reason) {
        log.push(why.is_clean().to_string());
    }
}

/// A witness at both.test, a tenth of a second away, and a client's host.
fn a_witness_far_away() -> (Sim, Host<Vec<String>>, Host<Log>) {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(100 * MILLI, Duration::ZERO)).name("both.test", &["10.0.0.1"]);
    sim.set_name_fate("both.test", NameFate::Slow(MILLI));
    let witness = sim.host("10.0.0.1", Vec::new());
    sim.net(witness).listen("10.0.0.1:80", || Witness).expect("a free port");
    let host = sim.host("10.0.0.9", Log::default());
    (sim, witness, host)
}

/// The peer has accepted already when the client gives up, and does not know it yet.
#[test]
fn who_gives_up_a_race_with_something_to_send_ends_with_a_reset_not_a_fin() {
    for (says, times_out) in [("", false), ("half a word", false), ("half a word", true)] {
        let (mut sim, witness, host) = a_witness_far_away();
        let key = sim.net(host).connect_with("both.test:80", Connect::new().timeout(150 * MILLI), Client);
        sim.net(host).send(key, says);
        if !times_out {
            sim.run_for(150 * MILLI - MILLI);
            sim.net(host).fail(key, "enough");
        }
        sim.run_for(SECOND);
        assert_eq!(sim.state(host).closed, 1);
        assert_eq!(*sim.state(witness), [says.is_empty().to_string()], "clean only if nothing is missing");
    }
}

/// Both are connected at the same moment, and one of them is not kept: it gets no FIN, as if what it was to be sent were
/// nothing.
#[test]
fn who_loses_a_race_with_something_to_send_ends_with_a_reset_not_a_fin() {
    for says in ["", "half a word"] {
        let mut sim = Sim::new(1);
        sim.set_weather(Weather::fair().latency(SECOND, Duration::ZERO)).name("both.test", &["10.0.0.1", "10.0.0.2"]);
        sim.set_name_fate("both.test", NameFate::Slow(MILLI));
        let witnesses = ["10.0.0.1", "10.0.0.2"].map(|ip| {
            let witness = sim.host(ip, Vec::new());
            sim.net(witness).listen(format!("{ip}:80"), || Witness).expect("a free port");
            witness
        });
        let (host, key) = client(&mut sim);
        sim.net(host).send(key, says);
        sim.run_for(10 * SECOND);
        assert!(sim.net(host).is_open(key));
        let mut seen: Vec<String> = witnesses.iter().flat_map(|&witness| sim.state(witness).clone()).collect();
        seen.retain(|line| line != says);
        assert_eq!(seen, [says.is_empty().to_string()], "clean only if nothing is missing");
    }
}

/// Found by the model: the peer may see the end before `closed` runs, which accepted tells may put off for long.
#[test]
fn the_sockets_of_a_race_close_at_once_when_it_is_given_up() {
    let (mut sim, witness, host) = a_witness_far_away();
    let key = sim.net(host).connect("both.test:80", Client);
    sim.run_for(150 * MILLI - MILLI);
    assert_eq!(sim.sockets(host), 1);
    sim.net(host).fail(key, "enough");
    assert_eq!((sim.sockets(host), sim.state(host).closed), (0, 0), "not first in `closed`");
    sim.run_for(SECOND);
    assert_eq!((sim.state(host).closed, &sim.state(witness)[..]), (1, &["true".to_owned()][..]));
}

/// Found by the model: what was sent in that callback is still in the reactor's buffer.
#[test]
fn so_does_who_fails_in_the_callback_in_which_it_sends() {
    let (mut sim, witness, host) = a_witness_far_away();
    let key = sim.net(host).connect("both.test:80", Client);
    sim.run_for(150 * MILLI - MILLI);
    let is_told = sim.net(host).tell(key, |_: &mut Client, ctx, _| {
        ctx.send("half a word");
        Err("enough".into())
    });
    assert!(is_told);
    sim.run_for(SECOND);
    assert_eq!(sim.state(host).closed, 1);
    assert_eq!(*sim.state(witness), ["false"]);
}

/// Found by the model: an event for one of several sockets is served before anybody has won.
#[test]
fn nobody_is_told_writable_before_connected() {
    #[derive(Default)]
    struct Told(Vec<&'static str>);
    struct Sender;
    impl Protocol<Told> for Sender {
        fn connected(&mut self, _: &mut Context<'_, Told>, told: &mut Told) -> Outcome {
            told.0.push("connected");
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_, Told>, _: &mut Told, _: &[u8]) -> Outcome {
            Ok(())
        }

        fn writable(&mut self, _: &mut Context<'_, Told>, told: &mut Told) -> Outcome {
            told.0.push("writable");
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(100 * MILLI, Duration::ZERO));
    sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Refused);
    server(&mut sim, "10.0.0.2");
    let host = sim.host("10.0.0.9", Told::default());
    let key = sim.net(host).connect("both.test:80", Sender);
    let mut net = sim.net(host);
    let mut link = net.link(key).expect("it is open");
    link.send([0; 100]);
    link.set_output_limits(0, 10, 1000);
    assert!(link.is_congested());
    link.set_output_limits(500, 1000, 1000);
    assert!(!link.is_congested());
    sim.run_for(SECOND);
    assert_eq!(sim.state(host).0, ["connected", "writable"]);
}

#[test]
fn a_drain_waits_for_a_connect_by_name_and_asks_it_right_after_connected() {
    let mut sim = Sim::new(1);
    sim.set_weather(Weather::fair().latency(50 * MILLI, Duration::ZERO));
    sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
    server(&mut sim, "10.0.0.2");
    let (host, _) = client(&mut sim);
    sim.net(host).drain(10 * SECOND);
    sim.run_for(5 * SECOND);
    assert_eq!(sim.state(host).lines, ["connected to 10.0.0.2:80", "hello", "draining", "finished"]);
    assert!(sim.has_stopped(host));
}

/// A polite close while connecting was bounded by the linger deadline, and what was queued was lost with it.
#[test]
fn a_polite_close_leaves_connecting_its_own_time_out() {
    let mut sim = Sim::new(1);
    sim.name("slow.test", &["10.0.0.2"]).set_name_fate("slow.test", NameFate::Slow(15 * SECOND));
    sim.set_fate("10.0.0.1:80", Fate::Silent);
    let serving = server(&mut sim, "10.0.0.2");
    let config = Config::new().linger_max(10 * SECOND);
    let calls = [("slow.test:80", "finished"), ("10.0.0.1:80", "could not connect to 10.0.0.1:80: timed out")];
    for (target, reason) in calls {
        let host = sim.host_with(&format!("10.0.1.{}", target.len()), Log::default(), config.clone());
        let key = sim.net(host).connect_with(target, Connect::new().timeout(60 * SECOND), Client);
        assert!(sim.net(host).send(key, "a message") && sim.net(host).close(key));
        sim.run_for(14 * SECOND);
        assert_eq!(sim.state(host).lines, Vec::<String>::new(), "{target}");
        sim.run_for(47 * SECOND);
        assert_eq!(sim.state(host).lines, [reason]);
    }
    assert_eq!(sim.net(serving).stats().bytes_in, 9);
}

#[test]
fn the_grace_of_a_drain_ends_a_lookup_and_a_race() {
    for fate in [None, Some(NameFate::Silent)] {
        let mut sim = Sim::new(1);
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_name_fate("both.test", fate);
        sim.set_fate("10.0.0.1:80", Fate::Silent).set_fate("10.0.0.2:80", Fate::Silent);
        let (host, _) = client(&mut sim);
        sim.net(host).drain(SECOND);
        sim.run_for(2 * SECOND);
        assert_eq!(sim.state(host).lines, ["the reactor was shut down"]);
        assert!(sim.has_stopped(host) && sim.sockets(host) == 0);
    }
}

#[test]
fn with_a_port_of_its_own_one_address_is_tried_after_the_other() {
    let mut sim = Sim::new(1);
    sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
    server(&mut sim, "10.0.0.2");
    let host = sim.host("10.0.0.9", Log::default());
    let local = Connect::new().local(SocketAddr::from(([10, 0, 0, 9], 4711))).timeout(5 * SECOND);
    sim.net(host).connect_with("both.test:80", local.clone(), Client);
    sim.run_for(4 * SECOND);
    assert_eq!((sim.state(host).lines.len(), sim.sockets(host)), (0, 1));
    sim.run_for(2 * SECOND);
    assert_eq!(sim.state(host).lines, ["could not connect to 10.0.0.1:80: timed out"]);
    sim.set_fate("10.0.0.1:80", Fate::Refused);
    sim.net(host).connect_with("both.test:80", local, Client);
    sim.run_for(SECOND);
    assert_eq!(sim.state(host).lines[1..], ["connected to 10.0.0.2:80", "hello"]);
}

/// Whatever the weather does: `closed` once, and nothing is left.
#[test]
fn in_rough_weather_each_connect_by_name_ends_once_and_leaves_nothing() {
    check(0..300, |sim| {
        sim.set_weather(Weather::rough());
        sim.name("both.test", &["10.0.0.1", "fd00::1", "10.0.0.2"]).name("dead.test", &["10.0.0.7", "fd00::7"]);
        sim.set_fate("[fd00::1]:80", Fate::Silent);
        sim.set_name_fate("slow.test", NameFate::Slow(20 * SECOND)).name("slow.test", &["10.0.0.2"]);
        server(sim, "10.0.0.1");
        server(sim, "10.0.0.2");
        let config = Config::new().resolve_threads(2).resolve_queue(2);
        let host = sim.host_with("10.0.0.9", Log::default(), config);
        let mut keys = Vec::new();
        for round in 0..12 {
            let to = ["both.test:80", "dead.test:80", "slow.test:80", "missing.test:80"][round % 4];
            let key = sim.net(host).connect(to, Client);
            sim.net(host).send(key, "well?");
            keys.push(key);
            let pause = sim.random(2000);
            sim.run_for(Duration::from_millis(pause));
            if sim.random(4) == 0 {
                sim.net(host).close(key);
            }
        }
        sim.run_for(60 * SECOND);
        for key in keys {
            sim.net(host).close(key);
        }
        sim.run_for(60 * SECOND);
        assert_eq!(sim.state(host).closed, 12);
        assert_eq!(sim.sockets(host), 0);
    });
}

/// Found by the model: a connection that is told `connected` by it reads what the peer has said, whatever holds it back.
#[test]
fn a_connect_that_fails_on_purpose_is_a_loss() {
    let losses = |number: u64| {
        let mut sim = Sim::new(1);
        server(&mut sim, "10.0.0.2");
        let host = sim.host("10.0.0.9", Log::default());
        sim.fail_operation(host, number, Errno::ConnectionReset, false);
        sim.net(host).connect("10.0.0.2:80", Client);
        sim.run_for(SECOND);
        let [local, peer] = ["10.0.0.9:32768", "10.0.0.2:80"].map(|at| at.parse().expect("an address"));
        let is_lost = sim.losses().includes(local, peer);
        sim.trace().contains("connected fails on purpose").then_some(is_lost)
    };
    let found: Vec<bool> = (0..20).filter_map(losses).collect();
    assert_eq!(found, [true]);
}

/// Found by the model: the sibling of a write that fails.
#[test]
fn who_was_lost_before_connected_has_nothing_queued_any_more() {
    struct Sender;
    impl Protocol<Vec<usize>> for Sender {
        fn connected(&mut self, ctx: &mut Context<'_, Vec<usize>>, queued: &mut Vec<usize>) -> Outcome {
            queued.push(ctx.queued());
            Ok(())
        }
    }
    let queued = |number: u64| {
        let mut sim = Sim::new(1);
        server(&mut sim, "10.0.0.2");
        let host = sim.host("10.0.0.9", Vec::new());
        sim.fail_operation(host, number, Errno::ConnectionReset, false);
        let key = sim.net(host).connect("10.0.0.2:80", Sender);
        sim.net(host).send(key, "never leaves");
        sim.run_for(SECOND);
        sim.trace().contains("connected fails on purpose").then(|| sim.state(host).clone())
    };
    assert_eq!((0..20).find_map(queued), Some(vec![0]));
}

/// The n-th operation fails, for every n: closed once, nothing left.
#[test]
fn whatever_fails_on_the_way_it_ends_once() {
    let run = |fault: Option<(u64, Errno, bool)>| {
        let mut sim = Sim::new(1);
        sim.name("both.test", &["10.0.0.1", "10.0.0.2"]).set_fate("10.0.0.1:80", Fate::Silent);
        server(&mut sim, "10.0.0.2");
        let host = sim.host("10.0.0.9", Log::default());
        if let Some((number, errno, is_persistent)) = fault {
            sim.fail_operation(host, number, errno, is_persistent);
        }
        let key = sim.net(host).connect("both.test:80", Client);
        sim.run_for(40 * SECOND);
        sim.net(host).close(key);
        sim.run_for(40 * SECOND);
        assert_eq!((sim.state(host).closed, sim.sockets(host)), (1, 0), "{fault:?}: {:?}", sim.state(host).lines);
        sim.operations(host)
    };
    let operations = run(None);
    assert!((8..200).contains(&operations), "{operations}");
    for number in 0..operations {
        for errno in [Errno::Again, Errno::Interrupted, Errno::TooManyFiles, Errno::ConnectionReset, Errno::NoMemory] {
            run(Some((number, errno, false)));
        }
    }
}
