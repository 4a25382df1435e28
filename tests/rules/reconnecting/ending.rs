//! While the reactor drains, and after a shutdown.

use super::{App, Line, Log, MINUTE, Manner, client, client_with, is_ready, opened, returns, send, server, uplink};
use crate::common::SECOND;
use mainspring::{Context, Outcome, Protocol, Reactor, Reason, Reconnect, testing::Sim};

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
