//! The connection that is made again: in the simulated world, where a server dies and returns as often as one likes, and an
//! hour of pauses takes no time. The pauses as numbers are tested beside `back_off`.
#![cfg(feature = "sim")]

use mainspring::{
    Connect, Context, Keep, Kind, Limit, Outcome, Protocol, Reactor, Reason, Reconnect, Terminator,
    testing::{Fate, Host, Sim, Weather, check},
};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_millis(500);
const AT: &str = "10.0.0.1:7000";

// ----------------------------------------------------------------------------------------------------------- server

/// Every line that any connection brought, in order.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Friendly,
    /// Accepts, and closes at once.
    Curt,
    /// Reads nothing.
    Deaf,
}

struct Line(Manner);

impl Protocol<Log> for Line {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        match self.0 {
            Manner::Friendly => {}
            Manner::Curt => ctx.close(),
            Manner::Deaf => ctx.pause(),
        }
        Ok(())
    }

    fn frame(&mut self, _: &mut Context<'_, Log>, log: &mut Log, line: &[u8]) -> Outcome {
        log.lines.push(String::from_utf8(line.to_vec())?);
        Ok(())
    }
}

fn server(sim: &mut Sim, manner: Manner) -> Host<Log> {
    let host = sim.host("10.0.0.1", Log::default());
    returns(sim, host, manner);
    host
}

fn returns(sim: &mut Sim, host: Host<Log>, manner: Manner) {
    sim.net(host).listen(AT, move || Line(manner)).expect("a simulated port is free");
}

// ----------------------------------------------------------------------------------------------------------- client

struct App {
    uplink: Reconnect<App>,
    /// When connections were made, and when they ended.
    began: Vec<Instant>,
    ended: Vec<Instant>,
    why: Vec<String>,
}

/// Says that it is ready at once.
struct Uplink;

impl Protocol<App> for Uplink {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        ctx.set_idle_timeout(None);
        app.began.push(ctx.net.now());
        app.uplink.ready(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.why.push(why.to_string());
        app.uplink.closed(ctx, &why);
        app.uplink.closed(ctx, &why); // says nothing new
    }
}

fn uplink<P: Protocol<App>>(factory: impl FnMut() -> P + 'static) -> Reconnect<App> {
    Reconnect::new(AT, |app: &mut App| &mut app.uplink, factory)
}

fn client_with(sim: &mut Sim, uplink: Reconnect<App>) -> Host<App> {
    let app = App { uplink, began: Vec::new(), ended: Vec::new(), why: Vec::new() };
    let host = sim.host("10.0.0.2", app);
    sim.with(host, |net, app| app.uplink.start(net));
    host
}

fn client(sim: &mut Sim) -> Host<App> {
    client_with(sim, uplink(|| Uplink))
}

fn send(sim: &mut Sim, client: Host<App>, number: u32) -> bool {
    sim.with(client, |net, app| app.uplink.send(net, format!("{number}\n")))
}

fn is_ready(sim: &mut Sim, client: Host<App>) -> bool {
    sim.state(client).uplink.is_ready()
}

/// The pauses between connections that were all refused at once.
fn pauses(sim: &mut Sim, client: Host<App>) -> Vec<Duration> {
    sim.state(client).ended.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

// ------------------------------------------------------------------------------------------------- dying and returning

#[test]
fn a_server_that_dies_and_returns_gets_what_was_kept_in_order() {
    let mut sim = Sim::new(1);
    let (server, client) = (server(&mut sim, Manner::Friendly), client(&mut sim));
    assert!(send(&mut sim, client, 0), "kept before there is a connection");
    sim.run_for(SECOND);
    assert!(send(&mut sim, client, 1));
    sim.run_for(SECOND).shutdown(server);
    sim.run_for(SECOND);
    assert!(!is_ready(&mut sim, client));
    for number in 2..5 {
        assert!(send(&mut sim, client, number));
        sim.run_for(MINUTE);
    }
    assert_eq!(sim.state(client).uplink.kept(), "2\n3\n4\n".len());
    returns(&mut sim, server, Manner::Friendly);
    sim.run_for(MINUTE);
    assert!(is_ready(&mut sim, client) && send(&mut sim, client, 5));
    sim.run_for(SECOND);
    assert_eq!(sim.state(server).lines, ["0", "1", "2", "3", "4", "5"]);
    let app = sim.state(client);
    assert_eq!((app.began.len(), app.uplink.kept()), (2, 0));
    assert!(app.uplink.key().is_some() && !app.uplink.is_stopped());
}

#[test]
fn pauses_double_up_to_the_cap_less_a_random_part() {
    let mut sim = Sim::new(2);
    let client = client(&mut sim);
    sim.run_for(60 * MINUTE);
    let pauses = pauses(&mut sim, client);
    assert!((60..=130).contains(&pauses.len()), "{}", pauses.len());
    for (number, pause) in pauses.iter().enumerate() {
        let full = FIRST.saturating_mul(1 << number.min(20)).min(MINUTE);
        assert!((full / 2..=full + Duration::from_millis(2)).contains(pause), "{number}: {pause:?} of {full:?}");
    }
    assert!(pauses[10..].iter().any(|pause| *pause < 45 * SECOND) && pauses[10..].iter().any(|pause| *pause > 45 * SECOND));
    let app = sim.state(client);
    assert_eq!(app.uplink.failures() as usize, pauses.len() + 1);
    assert!(app.why.iter().all(|why| why.contains("connect")), "each failure is told to the protocol");
}

#[test]
fn a_stable_connection_makes_the_pauses_short_again_and_a_short_one_does_not() {
    let mut sim = Sim::new(3);
    let host = sim.host("10.0.0.1", Log::default());
    let client = client(&mut sim);
    sim.run_for(20 * MINUTE);
    for (lasts, is_stable) in [(9 * SECOND, false), (11 * SECOND, true)] {
        returns(&mut sim, host, Manner::Friendly);
        assert!(sim.run_until(2 * MINUTE, |sim| is_ready(sim, client)));
        sim.run_for(lasts).shutdown(host);
        sim.run_for(FIRST);
        let pause_is_short =
            sim.state(client).uplink.failures() <= 1 && sim.state(client).ended.len() > sim.state(client).began.len();
        assert_eq!(pause_is_short, is_stable, "after {lasts:?}");
        sim.run_for(20 * MINUTE);
    }
}

#[test]
fn a_server_that_accepts_and_closes_is_not_called_without_end() {
    let mut sim = Sim::new(4);
    server(&mut sim, Manner::Curt);
    let client = client(&mut sim);
    sim.run_for(60 * MINUTE);
    let connections = sim.state(client).began.len();
    assert!((60..=130).contains(&connections), "{connections} in an hour");
}

#[test]
fn the_clients_of_a_server_that_restarts_do_not_come_back_in_step() {
    let mut sim = Sim::new(5);
    let host = server(&mut sim, Manner::Friendly);
    let clients: Vec<Host<App>> = (0..50)
        .map(|number| {
            let app = App { uplink: uplink(|| Uplink), began: Vec::new(), ended: Vec::new(), why: Vec::new() };
            let client = sim.host(&format!("10.0.1.{number}"), app);
            sim.with(client, |net, app| app.uplink.start(net));
            client
        })
        .collect();
    sim.run_for(MINUTE).shutdown(host);
    sim.run_for(10 * MINUTE);
    returns(&mut sim, host, Manner::Friendly);
    let returned = sim.now();
    sim.run_for(MINUTE + SECOND);
    let mut came: Vec<Duration> = Vec::new();
    for &client in &clients {
        let app = sim.state(client);
        assert_eq!(app.began.len(), 2, "everybody is back within the cap");
        came.push(app.began[1] - app.began[0]);
    }
    assert!(returned > 10 * MINUTE);
    let (earliest, latest) = (came.iter().min().expect("fifty"), came.iter().max().expect("fifty"));
    assert!(*latest - *earliest > 20 * SECOND, "{earliest:?} to {latest:?}");
}

#[test]
fn a_server_that_moves_is_found_where_its_name_leads() {
    let mut sim = Sim::new(20);
    let old = server(&mut sim, Manner::Friendly);
    let new = sim.host("10.0.0.9", Log::default());
    let to = Reconnect::new("server.example:7000", |app: &mut App| &mut app.uplink, || Uplink);
    let client = client_with(&mut sim, to);
    sim.run_for(MINUTE);
    let app = sim.state(client);
    assert!(app.uplink.failures() > 3 && app.why.iter().all(|why| why.starts_with("could not resolve")), "{:?}", app.why);
    sim.name("server.example", &["10.0.0.1"]).run_for(MINUTE);
    assert!(send(&mut sim, client, 1));
    sim.run_for(SECOND).shutdown(old);
    sim.run_for(SECOND).name("server.example", &["10.0.0.9"]);
    sim.net(new).listen("10.0.0.9:7000", || Line(Manner::Friendly)).expect("a simulated port is free");
    assert!(send(&mut sim, client, 2));
    sim.run_for(MINUTE);
    assert_eq!(sim.state(old).lines, ["1"]);
    assert_eq!(sim.state(new).lines, ["2"]);
}

// --------------------------------------------------------------------------------------------------------- partition

/// Says that it is there, and expects to hear the same.
struct Beating;

impl Protocol<App> for Beating {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        ctx.set_deadline(20 * SECOND); // stands for a heart beat that fails to come
        app.began.push(ctx.net.now());
        app.uplink.ready(ctx);
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, App>, _: &mut App, limit: Limit) -> Outcome {
        ctx.abort(); // what is queued would not arrive
        Err(limit.into())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.uplink.closed(ctx, &why);
    }
}

#[test]
fn a_partition_is_outlived_and_what_was_sent_meanwhile_arrives() {
    let mut sim = Sim::new(6);
    let server = server(&mut sim, Manner::Friendly);
    let to = uplink(|| Beating).options(Connect::new().timeout(5 * SECOND)).back_off(FIRST, 10 * SECOND);
    let client = client_with(&mut sim, to);
    sim.run_for(SECOND).part(server, client);
    assert!(sim.run_until(MINUTE, |sim| !is_ready(sim, client)), "the heart beat was missed");
    sim.run_for(5 * MINUTE);
    let app = sim.state(client);
    assert!(app.began.len() == 1 && app.ended.len() > 10, "attempts time out");
    for number in 0..3 {
        assert!(send(&mut sim, client, number));
    }
    sim.join(server, client).run_for(16 * SECOND);
    assert!(sim.state(client).began.len() >= 2);
    assert_eq!(sim.state(server).lines, ["0", "1", "2"]);
}

// ------------------------------------------------------------------------------------------------------------ stopping

/// Never says that it is ready.
struct Unready;

impl Protocol<App> for Unready {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        app.began.push(ctx.net.now());
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.uplink.closed(ctx, &why);
    }
}

fn stop(sim: &mut Sim, client: Host<App>) {
    sim.with(client, |net, app| app.uplink.stop(net));
}

/// Whatever it was doing: nothing follows, and nothing is left.
fn assert_stops(sim: &mut Sim, client: Host<App>) {
    send(sim, client, 0);
    stop(sim, client);
    assert!(sim.state(client).uplink.is_stopped());
    assert!(!send(sim, client, 1), "nobody would ever send it");
    let attempts = sim.state(client).began.len();
    sim.run_for(60 * MINUTE);
    assert!(!send(sim, client, 2));
    let app = sim.state(client);
    assert_eq!((app.began.len(), app.uplink.kept(), app.uplink.key(), app.uplink.failures()), (attempts, 0, None, 0));
    assert_eq!(sim.sockets(client), 0);
    assert!(sim.has_stopped(client), "nothing keeps `run` any longer");
}

#[test]
fn stop_ends_it_while_it_pauses() {
    let mut sim = Sim::new(7);
    let client = client(&mut sim);
    sim.run_for(SECOND);
    assert_stops(&mut sim, client);
    assert!(sim.state(client).ended.len() < 4);

    sim.with(client, |net, app| app.uplink.start(net));
    sim.run_for(MINUTE);
    stop(&mut sim, client);
    assert_eq!(sim.net(client).stats().timers, 0, "its timer is gone at once");
}

#[test]
fn stop_ends_it_while_it_connects() {
    let mut sim = Sim::new(8);
    server(&mut sim, Manner::Friendly);
    sim.set_fate(AT, Fate::Silent);
    let client = client(&mut sim);
    sim.run_for(SECOND);
    assert_stops(&mut sim, client);
    assert_eq!(sim.state(client).why, ["aborted"], "its protocol is told");
}

#[test]
fn stop_ends_it_before_and_after_it_is_ready_and_what_was_sent_still_leaves() {
    let mut sim = Sim::new(9);
    let host = server(&mut sim, Manner::Friendly);
    let unready = client_with(&mut sim, uplink(|| Unready));
    sim.run_for(SECOND);
    assert_eq!(sim.state(unready).began.len(), 1);
    assert_stops(&mut sim, unready);
    assert_eq!(sim.state(host).lines, [""; 0], "what was only kept is dropped");

    let mut sim = Sim::new(9);
    let host = server(&mut sim, Manner::Friendly);
    let client = client(&mut sim);
    sim.run_for(SECOND);
    assert_stops(&mut sim, client);
    assert_eq!(sim.state(host).lines, ["0"]);
}

#[test]
fn stop_from_inside_closed_holds_before_and_after_it_was_told() {
    struct Quitting {
        early: bool,
    }
    impl Protocol<App> for Quitting {
        fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
            app.ended.push(ctx.net.now());
            if self.early {
                app.uplink.stop(&mut ctx.net);
            }
            app.uplink.closed(ctx, &why);
            app.uplink.stop(&mut ctx.net);
        }
    }
    for early in [true, false] {
        let mut sim = Sim::new(10);
        let client = client_with(&mut sim, uplink(move || Quitting { early }));
        sim.run_for(60 * MINUTE);
        assert_eq!(sim.state(client).ended.len(), 1);
        assert!(sim.state(client).uplink.is_stopped() && sim.has_stopped(client));
    }
}

#[test]
fn started_again_it_waits_for_the_end_of_the_old_connection() {
    let mut sim = Sim::new(11);
    let host = server(&mut sim, Manner::Deaf);
    let client = client(&mut sim);
    sim.run_for(SECOND);
    sim.with(client, |net, app| assert!(app.uplink.send(net, vec![b'x'; 900_000])));
    sim.run_for(SECOND);
    sim.with(client, |net, app| {
        app.uplink.stop(net);
        app.uplink.start(net);
        assert!(app.uplink.send(net, "for the next\n") && app.uplink.kept() == 13);
    });
    sim.run_for(5 * SECOND);
    assert_eq!(opened(&mut sim, client), 1, "it is still flushing");
    sim.run_for(10 * SECOND);
    let app = sim.state(client);
    assert_eq!((app.began.len(), app.ended.len(), app.uplink.is_ready(), app.uplink.failures()), (2, 1, true, 0));
    sim.shutdown(host);
}

#[test]
fn started_while_it_pauses_it_tries_at_once_and_twice_is_once() {
    let mut sim = Sim::new(12);
    let host = sim.host("10.0.0.1", Log::default());
    let client = client(&mut sim);
    sim.run_for(20 * MINUTE);
    returns(&mut sim, host, Manner::Friendly);
    sim.with(client, |net, app| {
        app.uplink.start(net);
        app.uplink.start(net);
    });
    sim.run_for(SECOND / 10);
    assert!(is_ready(&mut sim, client));
    assert_eq!(sim.net(client).stats().timers, 0, "the pause's timer is gone");
    sim.with(client, |net, app| app.uplink.start(net));
    sim.run_for(20 * MINUTE);
    assert_eq!((sim.state(client).began.len(), opened(&mut sim, client)), (1, 1));
}

/// Its connections that have a protocol.
fn opened<S: 'static>(sim: &mut Sim, host: Host<S>) -> usize {
    sim.net(host).connections().iter().filter(|connection| connection.kind == Kind::Opened).count()
}

// ---------------------------------------------------------------------------------------------- the end of the reactor

/// Keeps a drain waiting.
struct Stubborn;

impl Protocol<App> for Stubborn {
    fn draining(&mut self, _: &mut Context<'_, App>, _: &mut App) -> Outcome {
        Ok(())
    }
}

#[test]
fn while_the_loop_drains_it_does_not_come_back() {
    for is_there in [true, false] {
        let mut sim = Sim::new(13);
        let host = sim.host("10.0.0.1", Log::default());
        if is_there {
            returns(&mut sim, host, Manner::Friendly);
        }
        let client = client(&mut sim);
        sim.net(client).listen("10.0.0.2:1", || Stubborn).expect("a simulated port is free");
        let guest = sim.host("10.0.0.3", Log::default());
        sim.net(guest).connect("10.0.0.2:1", Line(Manner::Deaf));
        sim.run_for(10 * MINUTE);
        assert_eq!(is_ready(&mut sim, client), is_there);
        let attempts = sim.state(client).ended.len();
        sim.net(client).drain(30 * MINUTE);
        sim.run_for(SECOND).shutdown(host);
        if is_there {
            assert!(sim.run_until(SECOND, |sim| !is_ready(sim, client)));
            assert!(sim.state(client).uplink.is_stopped(), "at once, and not after a pause");
        }
        sim.run_for(20 * MINUTE);
        assert!(sim.net(client).is_draining());
        let app = sim.state(client);
        assert!(app.uplink.is_stopped() && app.ended.len() == attempts + usize::from(is_there));
    }
}

/// Starts anew from each `closed`, whatever the reason.
struct Eager;

impl Protocol<App> for Eager {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        app.uplink.ready(ctx);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.ended.push(ctx.net.now());
        app.uplink.closed(ctx, &why);
        app.uplink.start(&mut ctx.net);
    }
}

/// A real reactor: it is `run` that is to end.
#[test]
fn a_drain_ends_whoever_starts_it_again_meanwhile() {
    let mut reactor = Reactor::new().expect("a selector");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    let made = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&made);
    let uplink = Reconnect::new(
        at,
        |app: &mut App| &mut app.uplink,
        move || {
            count.set(count.get() + 1);
            Eager
        },
    );
    let mut app = App { uplink, began: Vec::new(), ended: Vec::new(), why: Vec::new() };
    for round in 1..=2 {
        app.uplink.start(&mut reactor.net());
        while !app.uplink.is_ready() {
            reactor.turn(&mut app, MINUTE).expect("the selector works");
        }
        reactor.net().drain(MINUTE);
        app.uplink.start(&mut reactor.net());
        assert!(app.uplink.is_ready(), "what there is stays until the drain asks it to end");
        reactor.run(&mut app).expect("the selector works");
        assert_eq!(
            (reactor.stats().undrained, app.ended.len(), made.get()),
            (0, round, round),
            "ended by the drain, not its grace"
        );
        assert!(app.uplink.is_stopped() && !app.uplink.send(&mut reactor.net(), "lost"));
    }
}

#[test]
fn started_or_pausing_while_the_loop_drains_it_is_stopped_and_keeps_nothing() {
    let mut sim = Sim::new(20);
    let client = client(&mut sim);
    sim.net(client).listen("10.0.0.2:1", || Stubborn).expect("a simulated port is free");
    let guest = sim.host("10.0.0.3", Log::default());
    sim.net(guest).connect("10.0.0.2:1", Line(Manner::Deaf));
    sim.run_for(10 * MINUTE);
    assert!(send(&mut sim, client, 1), "it pauses, and keeps");
    let attempts = sim.state(client).ended.len();
    sim.net(client).drain(30 * MINUTE);
    for _ in 0..3 {
        sim.with(client, |net, app| app.uplink.start(net));
        assert!(sim.state(client).uplink.is_stopped() && sim.state(client).uplink.kept() == 0);
        assert!(!send(&mut sim, client, 2));
        sim.run_for(5 * MINUTE);
    }
    assert_eq!((sim.state(client).ended.len(), opened(&mut sim, client)), (attempts, 0));
    // The drain is over, and the reactor is used again.
    server(&mut sim, Manner::Friendly);
    sim.run_for(30 * MINUTE).with(client, |net, app| app.uplink.start(net));
    sim.run_for(SECOND);
    assert!(is_ready(&mut sim, client));
}

#[test]
fn stopped_and_started_again_while_the_loop_drains_it_stays_stopped() {
    let mut sim = Sim::new(21);
    server(&mut sim, Manner::Friendly);
    let client = client(&mut sim);
    sim.run_for(SECOND).net(client).drain(MINUTE);
    sim.with(client, |net, app| {
        app.uplink.stop(net);
        app.uplink.start(net);
        assert!(app.uplink.is_stopped() && !app.uplink.send(net, "lost"));
    });
    sim.run_for(10 * MINUTE);
    assert_eq!((sim.state(client).began.len(), sim.state(client).ended.len(), sim.sockets(client)), (1, 1, 0));
}

#[test]
fn a_shutdown_ends_it_and_it_can_be_started_again() {
    let mut sim = Sim::new(14);
    let host = sim.host("10.0.0.1", Log::default());
    let client = client(&mut sim);
    for is_there in [false, true, false] {
        if is_there {
            returns(&mut sim, host, Manner::Friendly);
        } else {
            sim.shutdown(host);
        }
        sim.run_for(10 * MINUTE);
        assert_eq!(is_ready(&mut sim, client), is_there);
        sim.shutdown(client);
        assert!(!is_there || sim.state(client).uplink.is_stopped());
        let ended = sim.state(client).ended.len();
        sim.run_for(10 * MINUTE);
        assert_eq!((sim.state(client).ended.len(), sim.sockets(client)), (ended, 0));
        sim.with(client, |net, app| app.uplink.start(net));
    }
    sim.run_for(MINUTE);
    assert!(sim.state(client).uplink.failures() > 0, "it tries again");
}

#[test]
fn started_where_nothing_is_opened_any_more_it_can_be_started_later() {
    let mut sim = Sim::new(19);
    server(&mut sim, Manner::Friendly);
    let client = client_with(&mut sim, uplink(|| Eager));
    sim.run_for(SECOND).shutdown(client);
    let app = sim.state(client);
    assert!(app.uplink.is_stopped() && app.uplink.key().is_none(), "`closed` has started it, and nothing was opened");
    assert!(!send(&mut sim, client, 1));
    sim.with(client, |net, app| app.uplink.start(net));
    sim.run_for(SECOND);
    assert_eq!((opened(&mut sim, client), sim.state(client).ended.len()), (1, 1));
}

// ------------------------------------------------------------------------------------------------------------ keeping

#[test]
fn what_is_kept_follows_the_policy_and_may_exceed_the_cap_of_the_output() {
    let all: Vec<String> = (1000..4000).map(|number| format!("{number}{}", "x".repeat(90))).collect();
    let bytes = all[0].len() + 1;
    for (keep, arrives) in [
        (Keep::Nothing, 0..0),
        (Keep::First { bytes_max: 1500 * bytes + 1 }, 0..1500),
        (Keep::Last { bytes_max: 1500 * bytes + 1 }, 1500..3000),
        (Keep::First { bytes_max: 4 << 20 }, 0..3000),
    ] {
        let mut sim = Sim::new(15);
        let host = sim.host("10.0.0.1", Log::default());
        let client = client_with(&mut sim, uplink(|| Uplink).keep(keep));
        sim.run_for(MINUTE);
        let taken: Vec<bool> =
            sim.with(client, |net, app| all.iter().map(|line| app.uplink.send(net, format!("{line}\n"))).collect());
        let is_last = matches!(keep, Keep::Last { .. });
        assert!(
            taken.iter().enumerate().all(|(number, &was_taken)| was_taken == (is_last || arrives.contains(&number))),
            "{keep:?}"
        );
        returns(&mut sim, host, Manner::Friendly);
        sim.run_for(5 * MINUTE);
        assert!(sim.state(host).lines == all[arrives], "{keep:?}");
        assert_eq!(sim.state(client).began.len(), 1);
    }
    assert!(3000 * bytes < 4 << 20);
}

#[test]
fn what_a_login_sends_leaves_before_what_was_kept() {
    /// Logs in, and becomes the session, which is ready.
    struct Login;
    impl Protocol<App> for Login {
        fn connected(&mut self, ctx: &mut Context<'_, App>, _: &mut App) -> Outcome {
            ctx.send("login\n");
            ctx.upgrade(Uplink);
            Ok(())
        }
        fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
            app.uplink.closed(ctx, &why);
        }
    }
    let mut sim = Sim::new(16);
    let host = server(&mut sim, Manner::Friendly);
    let client = client_with(&mut sim, uplink(|| Login));
    send(&mut sim, client, 1);
    sim.run_for(SECOND);
    send(&mut sim, client, 2);
    sim.run_for(SECOND).shutdown(host);
    sim.run_for(SECOND);
    send(&mut sim, client, 3);
    returns(&mut sim, host, Manner::Friendly);
    sim.run_for(MINUTE);
    assert_eq!(sim.state(host).lines, ["login", "1", "2", "login", "3"], "an upgrade's successor is reconnected too");
}

#[test]
fn what_is_sent_to_a_connection_that_has_begun_to_end_is_kept_for_the_next() {
    let mut sim = Sim::new(17);
    let host = server(&mut sim, Manner::Friendly);
    let client = client(&mut sim);
    sim.run_for(SECOND);
    sim.with(client, |net, app| {
        let key = app.uplink.key().expect("it is connected");
        net.abort(key);
        assert!(app.uplink.send(net, "1\n") && app.uplink.kept() == 2);
    });
    sim.run_for(MINUTE);
    assert_eq!(sim.state(host).lines, ["1"]);
}

#[test]
fn what_other_connections_say_is_not_taken_for_its_own() {
    let mut sim = Sim::new(18);
    let host = server(&mut sim, Manner::Friendly);
    let client = client_with(&mut sim, uplink(|| Unready));
    sim.run_for(SECOND);
    let stranger = sim.net(client).connect(AT, Uplink);
    sim.run_for(SECOND);
    assert!(!is_ready(&mut sim, client), "the stranger said that it was");
    sim.net(client).close(stranger);
    sim.run_for(MINUTE);
    let app = sim.state(client);
    assert_eq!((app.why.as_slice(), app.uplink.failures()), (&["finished".to_owned()][..], 0));
    assert_eq!(opened(&mut sim, client), 1);
    sim.shutdown(host);
}

// ---------------------------------------------------------------------------------------------------------- any weather

#[test]
fn in_any_weather_there_is_one_connection_at_most_nothing_comes_twice_and_in_the_end_it_is_back() {
    check(0..150, |sim| {
        sim.set_weather(Weather::rough().resets(10));
        let server = server(sim, Manner::Friendly);
        let client = client_with(sim, uplink(|| Beating).options(Connect::new().timeout(10 * SECOND)));
        let (mut number, mut is_up, mut is_wanted) = (0, true, true);
        for _ in 0..60 {
            match sim.random(10) {
                0 if is_up => {
                    sim.shutdown(server);
                    is_up = false;
                }
                0 | 1 if !is_up => {
                    returns(sim, server, Manner::Friendly);
                    is_up = true;
                }
                2 => {
                    sim.part(server, client);
                }
                3 | 4 => {
                    sim.join(server, client);
                }
                5 => {
                    stop(sim, client);
                    is_wanted = false;
                }
                6 => {
                    sim.with(client, |net, app| app.uplink.start(net));
                    is_wanted = true;
                }
                _ => {
                    send(sim, client, number);
                    number += 1;
                }
            }
            let until = sim.now() + Duration::from_millis(1 + sim.random(8000));
            while sim.now() < until {
                sim.run_for(SECOND / 5);
                assert!(opened(sim, client) <= 1, "two connections at once");
            }
            assert_eq!(sim.state(client).uplink.is_stopped(), !is_wanted);
        }
        sim.set_weather(Weather::fair()).join(server, client);
        if !is_up {
            returns(sim, server, Manner::Friendly);
        }
        sim.with(client, |net, app| app.uplink.start(net));
        sim.run_for(3 * MINUTE);
        assert!(sim.run_until(2 * MINUTE, |sim| is_ready(sim, client)), "it is back");
        assert!(send(sim, client, number));
        sim.run_for(SECOND);
        let mut lines = sim.state(server).lines.clone();
        assert_eq!(lines.last(), Some(&number.to_string()));
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), sim.state(server).lines.len(), "nothing came twice");
        stop(sim, client);
        sim.run_for(MINUTE);
        assert_eq!(opened(sim, client), 0);
    });
}

// ------------------------------------------------------------------------------------------------------- other states

#[test]
fn several_live_in_one_state_that_may_borrow() {
    struct Many<'a> {
        uplinks: Vec<Reconnect<Many<'a>>>,
        failures: &'a mut Vec<usize>,
    }
    struct Nth(usize);
    impl<'a> Protocol<Many<'a>> for Nth {
        fn closed(&mut self, ctx: &mut Context<'_, Many<'a>>, many: &mut Many<'a>, why: Reason) {
            many.failures.push(self.0);
            many.uplinks[self.0].closed(ctx, &why);
            if many.uplinks[self.0].failures() == 3 {
                many.uplinks[self.0].stop(&mut ctx.net);
            }
        }
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let mut failures = Vec::new();
    let mut many = Many { uplinks: Vec::new(), failures: &mut failures };
    let mut reactor = Reactor::new().expect("a selector");
    for n in 0..3 {
        let uplink = Reconnect::new(nobody, move |many: &mut Many<'_>| &mut many.uplinks[n], move || Nth(n));
        many.uplinks.push(uplink.back_off(Duration::from_millis(2), Duration::from_millis(5)));
        many.uplinks[n].start(&mut reactor.net());
    }
    reactor.run(&mut many).expect("the selector works");
    many.failures.sort_unstable();
    assert_eq!(*many.failures, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}
