//! It comes back.

use super::{App, Line, Log, MINUTE, Manner, Uplink, client, client_with, is_ready, opened, returns, send, server, stop, uplink};
use crate::common::SECOND;
use mainspring::{
    Connect, Context, Limit, Outcome, Protocol, Reactor, Reason, Reconnect,
    testing::{Host, Sim, Weather, check},
};
use std::time::Duration;

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

const FIRST: Duration = Duration::from_millis(500);

/// The pauses between connections that were all refused at once.
fn pauses(sim: &mut Sim, client: Host<App>) -> Vec<Duration> {
    sim.state(client).ended.windows(2).map(|pair| pair[1] - pair[0]).collect()
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
