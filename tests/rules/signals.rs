//! Signals of the process as callbacks.

use crate::common::{PATIENCE, ms, turn, until};
use mainspring::{
    Key, Net, Reactor,
    signal::{SIGALRM, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH},
};
use signal_hook::low_level::raise;
use std::time::Duration;

type Told = Vec<i32>;

#[test]
fn a_signal_is_told_between_callbacks_and_does_not_keep_run_running() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut told = Told::new();
    let key = reactor.net().on_signal(&[SIGUSR1], |_, told: &mut Told, signal| told.push(signal)).expect("a signal");
    reactor.run(&mut told).expect("the selector works");
    assert!(told.is_empty() && reactor.net().is_open(key));
    raise(SIGUSR1).expect("a signal");
    until(&mut reactor, &mut told, |told| told == &[SIGUSR1]);
    for _ in 0..10_000 {
        raise(SIGUSR1).expect("a signal");
    }
    until(&mut reactor, &mut told, |told| told.len() > 1);
    assert!(told.iter().all(|signal| *signal == SIGUSR1));
    reactor.net().close(key);
    reactor.run(&mut told).expect("the selector works");
    let before = told.len();
    raise(SIGUSR1).expect("a signal"); // which is still hooked, and nobody's
    turn(&mut reactor, &mut told, ms(5));
    assert_eq!(told.len(), before);
}

#[test]
fn one_that_comes_during_a_long_callback_is_told_after_it() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut told = Told::new();
    reactor.net().on_signal(&[SIGUSR2], |_, told: &mut Told, signal| told.push(signal)).expect("a signal");
    reactor.net().post(|_, told| {
        raise(SIGUSR2).expect("a signal");
        assert!(told.is_empty());
        told.push(0);
    });
    until(&mut reactor, &mut told, |told| told.len() == 2);
    assert_eq!(told, [0, SIGUSR2]);
}

#[test]
fn whoever_may_not_be_waited_for_is_an_error() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    for (signal, text) in
        [(9, "nobody can wait for signal 9"), (19, "signal 19"), (0, "no signal 0"), (-1, "no signal -1"), (999, "no signal 999")]
    {
        let error = reactor.net().on_signal(&[SIGUSR1, signal], |_, (), _| {}).expect_err("refused");
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(reactor.net().on_signal(&[100], |_, (), _| {}).is_err());
    assert!(reactor.net().connections().is_empty());
}

#[test]
fn it_stays_through_a_drain_and_a_panic_and_ends_with_a_shutdown() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut told = Told::new();
    let key = reactor
        .net()
        .on_signal(&[SIGWINCH], |_, told: &mut Told, signal| {
            told.push(signal);
            assert!(told.len() > 1, "on purpose");
        })
        .expect("a signal");
    raise(SIGWINCH).expect("a signal");
    until(&mut reactor, &mut told, |told| told.len() == 1);
    reactor.net().after(PATIENCE, |_, _| {});
    reactor.net().drain(Duration::ZERO);
    reactor.run(&mut told).expect("the selector works");
    raise(SIGWINCH).expect("a signal");
    until(&mut reactor, &mut told, |told| told.len() == 2);
    reactor.shutdown(&mut told);
    assert!(!reactor.net().is_open(key));
}

/// Both have come before it is told of one.
#[test]
fn closed_by_one_signal_it_is_not_told_of_the_next() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut told = Told::new();
    let close = |net: &mut Net<'_, Told>, told: &mut Told, signal| {
        told.push(signal);
        let keys: Vec<Key> = net.connections().into_iter().map(|connection| connection.key).collect();
        assert!(keys.into_iter().all(|key| net.close(key)));
    };
    reactor.net().on_signal(&[SIGALRM, SIGHUP], close).expect("a signal");
    for signal in [SIGALRM, SIGHUP] {
        raise(signal).expect("a signal");
    }
    until(&mut reactor, &mut told, |told| !told.is_empty());
    turn(&mut reactor, &mut told, ms(5));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[cfg(feature = "sim")]
#[test]
fn a_simulated_host_is_told_as_a_process_is() {
    use mainspring::{signal::SIGTERM, testing::Sim};
    let mut sim = Sim::new(1);
    let (one, other) = (sim.host("10.0.0.1", Told::new()), sim.host("10.0.0.2", Told::new()));
    assert!(!sim.raise(one, SIGTERM), "nobody waits for it");
    for _ in 0..2 {
        sim.net(one).on_signal(&[SIGTERM, SIGUSR1], |_, told: &mut Told, signal| told.push(signal)).expect("a signal");
    }
    for _ in 0..3 {
        assert!(sim.raise(one, SIGTERM) && sim.raise(one, SIGUSR1) && !sim.raise(other, SIGTERM));
    }
    sim.settle();
    let mut told = sim.state(one).clone();
    told.sort_unstable();
    assert_eq!(told, [SIGUSR1, SIGUSR1, SIGTERM, SIGTERM]);
    assert!(sim.state(other).is_empty());
    sim.shutdown(one);
    assert!(!sim.raise(one, SIGTERM));
}
