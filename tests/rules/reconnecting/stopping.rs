//! It is stopped, and started again.

use super::{
    AT, App, Log, MINUTE, Manner, Unready, Uplink, client, client_with, is_ready, opened, returns, send, server, stop, uplink,
};
use crate::common::SECOND;
use mainspring::{
    Connect, Context, Protocol, Reason,
    testing::{Fate, Host, Sim},
};

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
fn it_stops_when_its_owner_has_ended() {
    let mut sim = Sim::new(10);
    server(&mut sim, Manner::Friendly);
    let client = client(&mut sim);
    stop(&mut sim, client);
    let owner = sim.with(client, |net, app| {
        let owner = net.connect(AT, Unready);
        app.uplink = uplink(|| Uplink).options(Connect::new().owner(owner));
        app.uplink.start(net);
        owner
    });
    sim.run_for(SECOND);
    assert!(is_ready(&mut sim, client));
    sim.net(client).abort(owner);
    sim.run_for(60 * MINUTE);
    assert!(sim.state(client).uplink.is_stopped());
    assert!(sim.has_stopped(client), "nothing keeps `run` any longer");
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
