//! What is kept while it is not there.

use super::{
    AT, App, Log, MINUTE, Manner, Unready, Uplink, client, client_with, is_ready, opened, returns, send, server, uplink,
};
use crate::common::SECOND;
use mainspring::{Context, Keep, Outcome, Protocol, Reason, testing::Sim};

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
