//! What a connection owns: listeners and connections that end with it.

use crate::common::{ABORTED, Call, Ctx, FINISHED, Journal, On, SECOND, keep_log, logged, quiet, recorder, tell};
use mainspring::{
    Config, Connect, Key, Listen, Net, Outcome, Reason, Refusal,
    testing::{Actor, Scene},
};
use std::{cell::RefCell, io::ErrorKind, rc::Rc};

const CONTROL: &str = "127.0.0.1:1";
const DATA: &str = "127.0.0.1:2";
const AWAY: &str = "127.0.0.1:9";

/// A session, and its client.
fn session(on: On) -> (Scene<Journal>, Key, Actor) {
    let mut scene = Scene::with_config(0, Journal::default(), Config::new().linger_max(SECOND));
    scene.net().listen(CONTROL, move || recorder(on)).expect("a simulated port is free");
    let client = scene.dials(CONTROL);
    let key = scene.settles().state().calls[0].0;
    (scene, key, client)
}

fn data_port(net: &mut Net<'_, Journal>, owner: Key) -> Key {
    net.listen_with(DATA, Listen::new().owner(owner), |_, _, _| Ok(recorder(quiet as On))).expect("a simulated port is free")
}

#[test]
fn a_listener_closes_when_its_owner_has_ended() {
    for polite in [true, false] {
        let (mut scene, owner, client) = session(quiet);
        let listener = data_port(&mut scene.net(), owner);
        let guest = scene.dials(DATA);
        assert!(scene.settles().net().is_open(listener));
        if polite {
            scene.net().close(owner);
        } else {
            scene.resets(client);
        }
        scene.settles();
        assert!(!scene.net().is_open(listener));
        scene.hears_reset(guest);
        let last: Vec<Call> = scene.state().calls.iter().rev().take(2).map(|(_, call)| call.clone()).collect();
        assert_eq!(last[0], Call::Closed(ABORTED.to_owned()), "whom it has let in ends, too, after its owner");
        assert_eq!(scene.connections(), 0);
        assert!(scene.net().listen(DATA, || recorder(quiet as On)).is_ok(), "the port is free");
    }
}

/// As long as its `closed` has not run: a polite close may still be flushing.
#[test]
fn until_closed_of_its_owner_a_listener_is_open() {
    let (mut scene, owner, client) = session(|ctx, journal, call| {
        if let Call::Closed(_) = call {
            let listener = ctx.net.connections().iter().find(|one| one.peer.to_string() == DATA).map(|one| one.key);
            journal.note(ctx.key, Call::Received(format!("{:?}", listener.is_some_and(|key| ctx.net.is_open(key))).into()));
        }
        Ok(())
    });
    let listener = data_port(&mut scene.net(), owner);
    scene.reads(client, false).net().send(owner, vec![b'.'; 1 << 20]);
    scene.net().close(owner);
    assert!(scene.settles().net().is_open(listener));
    scene.resets(client);
    assert_eq!(scene.state().of(owner).last(), Some(&Call::Received("true".into())));
    assert!(!scene.net().is_open(listener));
}

#[test]
fn an_upgrade_of_the_owner_changes_nothing() {
    let (mut scene, owner, client) = session(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    let listener = data_port(&mut scene.net(), owner);
    scene.says(client, "x");
    assert_eq!(scene.state().of(owner).iter().filter(|call| **call == Call::Connected).count(), 2);
    assert!(scene.net().is_open(listener));
    scene.resets(client);
    assert!(!scene.net().is_open(listener));
}

#[test]
fn a_drain_leaves_a_listener_open_as_long_as_its_owner_is() {
    let (mut scene, owner, _client) = session(quiet);
    let listener = data_port(&mut scene.net(), owner);
    scene.net().drain(3600 * SECOND);
    scene.passes(SECOND);
    assert!(scene.net().is_open(listener) && scene.net().is_draining());
    let guest = scene.dials(DATA);
    let came = scene.settles().state().calls.last().expect("it came").clone();
    assert_eq!(came.1, Call::Connected, "it is part of what is under way");
    scene.net().close(came.0);
    scene.hears_end(guest).closes(guest).passes(SECOND);
    assert!(scene.net().is_open(listener) && scene.net().is_draining());
    scene.net().close(owner);
    scene.passes(SECOND);
    assert!(!scene.net().is_open(listener));
    assert!(!scene.net().is_draining(), "nothing keeps the reactor any more");
}

/// It has not ended yet: they go when it has.
#[test]
fn who_comes_while_the_owner_still_flushes_ends_with_it() {
    let (mut scene, owner, client) = session(quiet);
    data_port(&mut scene.net(), owner);
    scene.reads(client, false).net().send(owner, vec![b'.'; 1 << 20]);
    scene.net().close(owner);
    let guest = scene.dials(DATA);
    assert_eq!(scene.settles().state().calls.last().map(|(_, call)| call), Some(&Call::Connected));
    scene.resets(client).hears_reset(guest);
}

#[test]
fn nobody_listens_for_one_that_has_begun_to_end() {
    let (mut scene, owner, _client) = session(quiet);
    scene.net().close(owner);
    let refused = scene.net().listen_with(DATA, Listen::new().owner(owner), |_, _, _| Ok(recorder(quiet as On)));
    let error = refused.expect_err("it has begun to end");
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert!(error.to_string().contains(DATA) && error.to_string().contains(&owner.to_string()), "{error}");
    scene.settles();
    assert!(scene.net().listen(DATA, || recorder(quiet as On)).is_ok(), "nothing is left of it");
}

#[test]
fn one_that_closed_before_is_forgotten_by_its_owner() {
    let (mut scene, owner, client) = session(quiet);
    for _ in 0..3 {
        let listener = data_port(&mut scene.net(), owner);
        scene.net().close(listener);
        scene.settles();
    }
    let other = scene.net().listen(DATA, || recorder(quiet as On)).expect("a simulated port is free");
    scene.resets(client);
    assert!(scene.net().is_open(other), "its slot is that of one that was owned");
}

#[test]
fn who_listens_for_somebody_is_logged_at_debug() {
    keep_log();
    let (mut scene, owner, _client) = session(quiet);
    let listener = data_port(&mut scene.net(), owner);
    let text = format!("{listener} listening on {DATA}");
    let records = logged(|line| line.contains(&text));
    assert!(records.iter().all(|record| record.0 == log::Level::Debug) && records.len() == 1, "{records:?}");
}

fn away(net: &mut Net<'_, Journal>, owner: Key) -> Key {
    net.connect_with(AWAY, Connect::new().owner(owner), recorder(quiet as On))
}

#[test]
fn a_connection_is_aborted_when_its_owner_has_ended() {
    for is_connected in [true, false] {
        let (mut scene, owner, client) = session(quiet);
        let server = scene.serves(AWAY);
        if !is_connected {
            scene.set_fate(AWAY, mainspring::testing::Fate::Silent);
        }
        let key = away(&mut scene.net(), owner);
        scene.settles().resets(client);
        let calls = scene.state().of(key);
        assert_eq!(calls.last(), Some(&Call::Closed(ABORTED.to_owned())), "{calls:?}");
        if is_connected {
            scene.hears_reset(server);
        }
        let order: Vec<Key> = scene.state().calls.iter().rev().take(2).map(|(key, _)| *key).collect();
        assert_eq!(order, [key, owner], "after the owner's `closed`");
    }
}

#[test]
fn who_has_begun_to_end_goes_on_with_that_when_its_owner_has_ended() {
    let (mut scene, owner, client) = session(quiet);
    let server = scene.serves(AWAY);
    let key = away(&mut scene.net(), owner);
    scene.settles().net().send(key, "all of it");
    scene.net().close(key);
    scene.net().abort(owner);
    scene.hears(server, "all of it").hears_end(server).hears_reset(client);
    assert_eq!(scene.state().of(key).last(), Some(&Call::Closed(FINISHED.to_owned())));
}

/// There is no moment at which it could come too late.
#[test]
fn what_is_opened_for_one_that_has_begun_to_end_is_aborted_at_once() {
    let (mut scene, owner, _client) = session(|ctx, _, call| {
        if let Call::Closed(_) = call {
            let (own, options) = (ctx.key, Connect::new());
            ctx.net.connect_with(AWAY, options.owner(own), recorder(quiet as On));
        }
        Ok(())
    });
    let _server = scene.serves(AWAY);
    scene.net().abort(owner);
    let key = away(&mut scene.net(), owner);
    assert!(!scene.net().is_open(key) && !tell(&mut scene.net(), key, "never"));
    scene.settles();
    assert_eq!(scene.state().of(key), [Call::Closed(ABORTED.to_owned())]);
    let last = scene.state().calls.last().expect("called").clone();
    assert_eq!(last.1, Call::Closed(Reason::Abort.to_string()), "the one of `closed`");
    assert_ne!(last.0, key);
}

// ------------------------------------------------------------------------------------------------- whom it lets in

/// What the factory says to each.
fn bouncer(options: Listen, verdicts: &'static str) -> (Scene<Journal>, Key) {
    let mut scene = Scene::new(0, Journal::default());
    let mut verdicts = verdicts.chars();
    let listener = scene.net().listen_with(CONTROL, options, move |_, _, _| match verdicts.next() {
        Some('-') => Err(Refusal::silent()),
        _ => Ok(recorder(quiet as On)),
    });
    (scene, listener.expect("a simulated port is free"))
}

#[test]
fn a_listener_closes_after_so_many_whom_it_let_in() {
    let (mut scene, listener) = bouncer(Listen::new().admits_max(2), "-+--+");
    for is_open in [true, true, true, true, false] {
        assert!(scene.net().is_open(listener));
        let _guest = scene.dials_deaf(CONTROL);
        assert_eq!(scene.settles().net().is_open(listener), is_open);
    }
    assert_eq!(scene.connections(), 2);
}

#[test]
fn who_is_refused_for_want_of_room_was_not_let_in() {
    let (mut scene, listener) = bouncer(Listen::new().admits_max(2).connections_max(1, "full\r\n"), "");
    let first = scene.dials(CONTROL);
    let second = scene.dials(CONTROL);
    scene.hears(second, "full\r\n").hears_end(second);
    assert!(scene.net().is_open(listener));
    scene.closes(first);
    let key = scene.settles().state().calls[0].0;
    scene.net().close(key);
    let _third = scene.settles().dials(CONTROL);
    assert!(!scene.settles().net().is_open(listener));
}

#[test]
fn nobody_is_let_in_beyond_the_last_however_many_knock_at_once() {
    let (mut scene, _) = bouncer(Listen::new().admits_max(1), "");
    scene.set_weather(mainspring::testing::Weather::fair().latency(SECOND, SECOND - SECOND));
    let _all: Vec<Actor> = (0..5).map(|_| scene.dials_deaf(CONTROL)).collect();
    scene.passes(3 * SECOND);
    assert_eq!(scene.connections(), 1);
}

#[test]
fn a_factory_knows_which_listener_it_works_for() {
    let mut scene = Scene::new(0, Journal::default());
    let seen: Rc<RefCell<Vec<Option<Key>>>> = Rc::default();
    let listeners = ["127.0.0.1:1", "127.0.0.1:2"].map(|at| {
        let seen = Rc::clone(&seen);
        let factory = move |net: &mut Net<'_, Journal>, _: &mut Journal, _: &mainspring::Address| {
            seen.borrow_mut().push(net.accepting());
            if seen.borrow().len() == 3 {
                return Err(Refusal::silent());
            }
            Ok(recorder(asks as On))
        };
        scene.net().listen_with(at, Listen::new(), factory).expect("a simulated port is free")
    });
    assert_eq!(scene.net().accepting(), None);
    for at in ["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2"] {
        let _client = scene.dials_deaf(at);
        assert_eq!(scene.settles().net().accepting(), None);
    }
    let [one, two] = listeners.map(Some);
    assert_eq!(*seen.borrow(), [two, one, one, two]);
}

fn asks(ctx: &mut Ctx<'_>, _: &mut Journal, _: &Call) -> Outcome {
    assert_eq!(ctx.net.accepting(), None, "a callback is no factory");
    Ok(())
}
