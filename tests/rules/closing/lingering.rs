//! Sockets that linger make room for whoever needs a descriptor.

use mainspring::{
    Config, Context, Listen, Outcome, Protocol, Reason, Refusal,
    testing::{Host, Sim},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Answers, and closes, politely.
struct Once;

impl Protocol for Once {
    fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
        ctx.send("hello");
        ctx.close();
        Ok(())
    }
}

/// Does not end when the server does.
struct Keeps;

impl Protocol<u32> for Keeps {
    fn received(&mut self, _: &mut Context<'_, u32>, heard: &mut u32, _: &[u8]) -> Outcome {
        *heard += 1;
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_, u32>, _: &mut u32, _: &[u8]) -> Outcome {
        Ok(())
    }
}

/// A server with four sockets that linger, and no descriptor left.
fn crowded(listen: impl FnOnce(&mut Sim, Host<()>)) -> (Sim, Host<()>, Host<u32>) {
    let mut sim = Sim::new(1);
    let server = sim.host_with("10.0.0.1", (), Config::new().linger_max(3600 * SECOND));
    let client = sim.host("10.0.0.2", 0);
    listen(&mut sim, server);
    for _ in 0..4 {
        sim.net(client).connect("10.0.0.1:7", Keeps);
    }
    sim.run_for(SECOND);
    assert_eq!((sim.net(server).stats().lingering, *sim.state(client)), (4, 4));
    let sockets = sim.sockets(server);
    sim.set_sockets_max(server, sockets);
    (sim, server, client)
}

fn once(sim: &mut Sim, server: Host<()>) {
    sim.net(server).listen("10.0.0.1:7", || Once).expect("a free port");
}

#[test]
fn who_comes_is_let_in_in_the_place_of_the_one_that_lingers_longest() {
    let (mut sim, server, client) = crowded(once);
    for _ in 0..10 {
        sim.net(client).connect("10.0.0.1:7", Keeps);
        sim.run_for(SECOND);
        assert_eq!(sim.net(server).stats().lingering, 4, "nobody was reset for somebody who did not come");
    }
    assert_eq!(*sim.state(client), 14);
    assert_eq!((sim.net(server).stats().shed, sim.net(server).stats().accepted), (0, 14));
}

/// They lingered with their last words, and nobody else was served: one address could shut a server.
#[test]
fn who_is_refused_with_words_does_not_cost_the_place_of_who_is_let_in() {
    for by_factory in [false, true] {
        let refused = |sim: &mut Sim, server: Host<()>| {
            let options = if by_factory { Listen::new() } else { Listen::new().per_peer_max(0, "enough of you") };
            let listener = sim.net(server).listen_with("10.0.0.1:7", options, move |_, (), peer| {
                let is_other = peer.ip().is_some_and(|at| at.ip().to_string() == "10.0.0.3");
                if is_other { Ok(Once) } else { Err(Refusal::from("not you")) }
            });
            listener.expect("a free port");
            sim.net(server).listen("10.0.0.1:8", || Once).expect("a free port");
        };
        let (mut sim, server, client) = crowded(refused);
        let other = sim.host("10.0.0.3", 0);
        for _ in 0..4 {
            sim.net(client).connect("10.0.0.1:7", Keeps);
            sim.net(other).connect(if by_factory { "10.0.0.1:7" } else { "10.0.0.1:8" }, Keeps);
            sim.run_for(SECOND);
        }
        assert_eq!(*sim.state(other), 4, "refused by the factory: {by_factory}");
        assert_eq!(sim.net(server).stats().shed, 0);
    }
}

#[test]
fn whoever_connects_or_listens_has_the_descriptor_of_one_that_lingers() {
    struct Client;
    impl Protocol for Client {
        fn closed(&mut self, _: &mut Context<'_>, (): &mut (), why: Reason) {
            panic!("{why}");
        }
    }
    for target in ["10.0.0.2:9", "there:9"] {
        let (mut sim, server, client) = crowded(once);
        sim.name("there", &["10.0.0.9", "10.0.0.2"]);
        sim.net(client).listen("10.0.0.2:9", || Keeps).expect("a free port");
        sim.net(server).connect(target, Client);
        sim.run_for(SECOND);
        assert_eq!(sim.net(client).stats().accepted, 1, "by `{target}`");
        assert_eq!(sim.net(server).stats().lingering, 3, "one made room");
    }
    let (mut sim, server, _) = crowded(once);
    sim.net(server).listen("10.0.0.1:8", || Once).expect("a descriptor");
    assert_eq!(sim.net(server).stats().lingering, 3);
}
