//! What needs virtual time: slow peers, and how long things take.

use crate::{
    common::{Call, Ctx, FINISHED, Journal, PEER_FINISHED, SECOND, closing_of, is_closed, ms, quiet, recorder},
    configs::sides,
    ending::both_versions,
    peers::Talker,
    talking::answers,
};
use mainspring::{
    Config, Connect, Key, Limit, Listen, Outcome, Reason,
    testing::{Actor, Scene, Weather},
};
use std::{sync::Arc, time::Duration};

/// A scripted peer that speaks TLS.
struct Stage {
    scene: Scene<Journal>,
    actor: Actor,
    talker: Talker,
}

impl Stage {
    /// Of a guest that has agreed.
    fn new(config: Config, weather: Weather, client: Arc<mainspring::rustls::ClientConfig>, on: crate::common::On) -> Self {
        let mut scene = Scene::with_config(1, Journal::default(), config);
        scene.set_weather(weather);
        let options = Listen::new().tls(sides().0);
        scene.net().listen_with("127.0.0.1:7", options, move |_, _, _| Ok(recorder(on))).expect("a simulated port is free");
        let actor = scene.dials("127.0.0.1:7");
        let mut stage = Self { scene, actor, talker: Talker::client(client) };
        for _ in 0..100 {
            stage.exchanges();
        }
        assert!(stage.talker.is_agreed() && stage.scene.state().has(&Call::Connected));
        stage
    }

    fn exchanges(&mut self) {
        let speech = self.talker.speech();
        self.scene.says(self.actor, speech);
        let heard = self.scene.takes(self.actor);
        self.talker.hears(&heard);
    }

    fn key(&mut self) -> Key {
        self.scene.state().calls[0].0
    }

    fn closing(&mut self) -> Option<String> {
        let key = self.key();
        closing_of(self.scene.state(), key)
    }
}

/// So much is written that a peer which takes 2,000 bytes a second needs a minute for it.
const MUCH: usize = 120_000;

fn stalls_after_five_seconds(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_stall_timeout(5 * SECOND),
        Call::Received(bytes) => {
            ctx.send(vec![b'x'; MUCH]);
            if bytes == b"and close" {
                ctx.close();
            }
        }
        Call::Exceeded(limit) => return Err((*limit).into()),
        Call::Eof(_) => ctx.close(),
        _ => {}
    }
    Ok(())
}

#[test]
fn slow_is_not_stalled() {
    for asks in ["much", "and close"] {
        for client in both_versions() {
            let config = Config::new().linger_max(5 * SECOND);
            let mut stage = Stage::new(config, Weather::fair().window(4 << 10), client, stalls_after_five_seconds);
            stage.scene.set_weather(Weather::fair().window(4 << 10).bandwidth(2_000));
            stage.talker.says(asks);
            let mut seconds = 0;
            while stage.talker.plain.len() < MUCH {
                seconds += 1;
                assert!(seconds < 100, "{} of {MUCH} bytes", stage.talker.plain.len());
                stage.scene.passes(SECOND);
                stage.exchanges();
            }
            assert!(seconds >= 50, "{seconds} seconds");
            stage.scene.passes(SECOND);
            stage.exchanges();
            match asks {
                "much" => assert_eq!(stage.closing(), None),
                _ => assert_eq!((stage.closing().as_deref(), stage.talker.is_told_end), (Some(FINISHED), true)),
            }
        }
    }
}

#[test]
fn who_takes_nothing_is_stalled() {
    let mut stage = Stage::new(Config::new(), Weather::fair().window(4 << 10), sides().1, stalls_after_five_seconds);
    stage.scene.reads(stage.actor, false);
    stage.talker.says("much");
    let speech = stage.talker.speech();
    stage.scene.says(stage.actor, speech).passes(ms(4_900));
    assert_eq!(stage.closing(), None);
    stage.scene.passes(ms(200));
    assert_eq!(stage.closing(), Some(Reason::Limit(Limit::Stalled).to_string()));
}

/// To the moment, for guests and for openers; a peer that drips is not one that works.
#[test]
fn a_handshake_has_its_time_to_the_moment() {
    for drips in [false, true] {
        let mut scene = Scene::with_config(1, Journal::default(), Config::new());
        let options = Listen::new().tls(sides().0);
        scene.net().listen_with("127.0.0.1:7", options, |_, _, _| Ok(recorder(quiet))).expect("a simulated port is free");
        let actor = scene.dials("127.0.0.1:7");
        let hello = Talker::client(sides().1).speech();
        for byte in &hello[..99] {
            if drips {
                scene.says(actor, [*byte]);
            }
            scene.passes(ms(100));
        }
        assert_eq!(scene.net().stats().handshakes_failed, 0);
        scene.passes(ms(100));
        assert_eq!(scene.net().stats().handshakes_failed, 1, "after ten seconds");
        scene.hears_end(actor);
        assert_eq!(scene.state().calls, []);
    }
    let cases = [
        (Config::new(), Connect::new(), 10),
        (Config::new(), Connect::new().timeout(3 * SECOND), 3),
        (Config::new().handshake_max(2 * SECOND), Connect::new().timeout(3 * SECOND), 2),
        (Config::new().connect_max(4 * SECOND), Connect::new(), 4),
    ];
    for (config, options, seconds) in cases {
        let mut scene = Scene::with_config(1, Journal::default(), config);
        let actor = scene.serves("10.0.0.1:7");
        let key = scene.net().connect_with("10.0.0.1:7", options.tls(sides().1), recorder(quiet));
        let moment = Duration::from_nanos(1);
        scene.settles().passes(seconds * SECOND - moment);
        assert!(!is_closed(scene.state(), key), "{seconds} s");
        scene.passes(moment);
        assert!(is_closed(scene.state(), key), "{seconds} s");
        let _ = scene.heard(actor);
    }
}

/// Both ends are the library's, in bad weather: all comes, once, in order, and both end politely.
#[test]
fn two_of_them_talk_in_rough_weather() {
    for seed in 0..40 {
        let mut sim = mainspring::testing::Sim::new(seed);
        let server = sim.host("10.0.0.1", Journal::default());
        let client = sim.host("10.0.0.2", Journal::default());
        sim.set_weather(Weather::rough().resets(0).refusals(0, 0));
        let options = Listen::new().tls(sides().0);
        sim.net(server).listen_with("10.0.0.1:7", options, |_, _, _| Ok(recorder(answers))).expect("a port");
        let named = mainspring::TlsClient::new(sides().1)
            .server_name(mainspring::rustls::pki_types::ServerName::try_from("localhost").expect("a name"));
        fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
            if let Call::Received(_) = call {
                if journal.received().len() == 50_000 {
                    ctx.close();
                }
            }
            Ok(())
        }
        let key = sim.net(client).connect_with("10.0.0.1:7", Connect::new().tls(named), recorder(on));
        let bytes: Vec<u8> = (0..50_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        sim.net(client).send(key, &bytes);
        let done = sim.run_until(600 * SECOND, |sim| sim.state(client).closings() == 1 && sim.state(server).closings() == 1);
        assert!(done, "seed {seed}: {:?}", sim.state(client).calls.len());
        assert!(sim.state(client).received() == bytes, "seed {seed}");
        assert_eq!(closing_of(sim.state(client), key).as_deref(), Some(FINISHED), "seed {seed}");
        assert!(sim.state(server).has(&Call::Closed(PEER_FINISHED.into())), "seed {seed}");
    }
}
