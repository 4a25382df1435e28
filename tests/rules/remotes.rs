//! Jobs from other threads.

use crate::common::{Nothing, SHORT, TICK, settle, start};
use mainspring::{Config, Gone, Reactor, Remote};
use std::{cell::Cell, rc::Rc, thread, time::Instant};

#[test]
fn a_remote_is_send_and_sync_whatever_the_state() {
    fn is_shared_between_threads<T: Send + Sync + Clone>() {}
    is_shared_between_threads::<Remote<()>>();
    is_shared_between_threads::<Remote<Rc<Cell<u32>>>>();
}

#[test]
fn jobs_of_each_thread_run_in_order() {
    const THREADS: usize = 4;
    const JOBS: usize = 2000;
    let mut reactor: Reactor<Vec<Vec<usize>>> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = remote.clone();
            thread::spawn(move || {
                for n in 0..JOBS {
                    remote.post(move |_, seen: &mut Vec<Vec<usize>>| seen[thread].push(n)).expect("the reactor lives");
                }
            })
        })
        .collect();
    drop(remote);
    let mut seen = vec![Vec::new(); THREADS];
    reactor.run(&mut seen).expect("the selector works");
    for jobs in &seen {
        assert_eq!(*jobs, (0..JOBS).collect::<Vec<_>>());
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

#[test]
fn many_posts_before_a_turn_all_run_in_it() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    for _ in 0..500 {
        remote.post(|_, count| *count += 1).expect("the reactor lives");
    }
    let mut jobs = 0;
    reactor.turn(&mut jobs, None).expect("the selector works");
    assert_eq!(jobs, 500);
    // They were one wake-up: nothing is left that would end a sleep.
    settle(&mut reactor, &mut jobs);
    let began = Instant::now();
    reactor.turn(&mut jobs, SHORT).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
}

#[test]
fn a_post_wakes_a_sleeping_loop() {
    let mut reactor: Reactor<bool> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let thread = thread::spawn(move || {
        thread::sleep(TICK); // the loop sleeps by then
        remote.post(|_, ran| *ran = true).expect("the reactor lives");
        remote
    });
    let mut ran = false;
    while !ran {
        reactor.turn(&mut ran, None).expect("the selector works");
    }
    thread.join().expect("it does not panic");
}

#[test]
fn a_job_may_post_from_the_loops_own_thread() {
    let mut reactor: Reactor<u32> = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let again = remote.clone();
    remote
        .post(move |_, ran| {
            *ran += 1;
            again.post(|_, ran| *ran += 1).expect("the reactor lives");
        })
        .expect("the reactor lives");
    drop(remote);
    let mut ran = 0;
    reactor.run(&mut ran).expect("the selector works");
    assert_eq!(ran, 2);
}

#[test]
fn a_post_to_a_reactor_that_was_dropped_is_gone() {
    let reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    drop(reactor);
    assert_eq!(remote.post(|_, ()| {}), Err(Gone));
    assert_eq!(remote.stop(), Err(Gone));
    assert_eq!(remote.clone().stop(), Err(Gone));
}

#[test]
fn jobs_that_wait_when_the_reactor_is_dropped_are_dropped_uncalled() {
    let reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    remote.post(move |_, ()| sender.send(()).expect("somebody listens")).expect("the reactor lives");
    drop(reactor);
    assert!(receiver.recv().is_err(), "the job was dropped, and its sender with it");
}

#[test]
fn a_remote_dropped_by_a_callback_lets_run_return() {
    let (mut reactor, mut journal) = start();
    let remote = reactor.remote();
    reactor.net().post(move |_, _| drop(remote));
    reactor.run(&mut journal).expect("the selector works");
}

#[test]
fn a_live_remote_keeps_run_running_until_another_thread_drops_it() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::new().expect("a selector");
    let (remote, other) = (reactor.remote(), reactor.remote());
    let began = Instant::now();
    let thread = thread::spawn(move || {
        remote.post(|_, seen| seen.push(1)).expect("the reactor lives");
        drop(other);
        thread::sleep(SHORT); // the loop sleeps by then
        drop(remote);
    });
    let mut seen = Vec::new();
    reactor.run(&mut seen).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
    assert_eq!(seen, [1]);
    thread.join().expect("it does not panic");
}

#[test]
fn run_does_not_return_before_the_jobs_of_a_dropped_remote_have_run() {
    let mut reactor: Reactor<Vec<u32>> = Reactor::with_config(Config::new().turn_jobs(1)).expect("a selector");
    let remote = reactor.remote();
    for n in 0..5 {
        remote.post(move |_, seen| seen.push(n)).expect("the reactor lives");
    }
    drop(remote);
    let mut seen = Vec::new();
    reactor.run(&mut seen).expect("the selector works");
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn remote_stop_ends_run() {
    let mut reactor: Reactor = Reactor::new().expect("a selector");
    let remote = reactor.remote();
    reactor.net().listen("127.0.0.1:0", || Nothing).expect("a free port");
    let thread = thread::spawn(move || remote.stop().expect("the reactor lives"));
    reactor.run(&mut ()).expect("the selector works");
    thread.join().expect("it does not panic");
}
