//! Panics that are to propagate.

use crate::common::{
    Call, Ctx, Journal, On, SHORT, dial, ends_with, guest, listen, note, pass, quiet, recorder, run_out, say, start_with, until,
};
use mainspring::{Config, Panics, Reactor};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

fn propagating() -> (Reactor<Journal>, Journal) {
    start_with(Config::new().panics(Panics::Propagate))
}

/// Turns until a panic leaves a turn.
#[track_caller]
fn until_panic(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> String {
    let caught = catch_unwind(AssertUnwindSafe(|| until(reactor, journal, |_| false)));
    let payload = caught.expect_err("it never ends otherwise");
    payload.downcast_ref::<&str>().map_or_else(|| "not a text".to_owned(), |text| (*text).to_owned())
}

#[test]
fn a_panic_propagates_if_the_config_lets_it_and_the_others_go_on() {
    let (mut reactor, mut journal) = propagating();
    let behave = |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match call {
        Call::Received(bytes) if bytes == b"panic" => panic!("through the turn"),
        _ => Ok(()),
    };
    let (bad, peer_of_bad) = guest(&mut reactor, &mut journal, behave);
    let (good, peer_of_good) = guest(&mut reactor, &mut journal, behave);
    say(&peer_of_bad, "panic");
    say(&peer_of_good, "fine");
    assert_eq!(until_panic(&mut reactor, &mut journal), "through the turn");
    until(&mut reactor, &mut journal, |journal| journal.of(good).len() == 2);
    ends_with(&mut reactor, &mut journal, bad, "panicked: through the turn");
}

#[test]
fn a_propagated_panic_of_a_factory_leaves_the_next_guest_alone() {
    let (mut reactor, mut journal) = propagating();
    let mut guests = 0;
    let (_, addr) = listen(&mut reactor, move || {
        guests += 1;
        if guests == 1 {
            panic!("not welcome");
        }
        recorder(quiet as On)
    });
    let _peers = [dial(addr), dial(addr)];
    assert_eq!(until_panic(&mut reactor, &mut journal), "not welcome");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
}

#[test]
fn a_propagated_panic_of_a_periodic_timer_takes_it_off() {
    let (mut reactor, mut journal) = propagating();
    reactor.net().every(Duration::from_millis(1), |_, _| panic!("once"));
    assert_eq!(until_panic(&mut reactor, &mut journal), "once");
    pass(&mut reactor, &mut journal, SHORT);
    run_out(&mut reactor, &mut journal);
}

#[test]
fn a_propagated_panic_of_a_job_leaves_the_jobs_behind_it() {
    let (mut reactor, mut journal) = propagating();
    let remote = reactor.remote();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    remote.post(|_, _| panic!("a job")).expect("the reactor lives");
    remote.post(move |_, journal| note(journal, key, "the next job")).expect("the reactor lives");
    assert_eq!(until_panic(&mut reactor, &mut journal), "a job");
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["the next job"]);
}

#[test]
fn a_propagated_panic_in_closed_leaves_the_next_closings() {
    let (mut reactor, mut journal) = propagating();
    let guests: Vec<_> = (0..2)
        .map(|_| {
            let mut has_panicked = false;
            guest(&mut reactor, &mut journal, move |_: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                if matches!(call, Call::Closed(_)) && journal.closings() == 1 && !std::mem::replace(&mut has_panicked, true) {
                    panic!("in closed");
                }
                Ok(())
            })
        })
        .collect();
    for (key, _) in &guests {
        reactor.net().close(*key);
    }
    assert_eq!(until_panic(&mut reactor, &mut journal), "in closed");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    run_out(&mut reactor, &mut journal);
}
