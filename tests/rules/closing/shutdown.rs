//! Shutdowns.

use super::Mortal;
use crate::common::{
    Call, Ctx, Journal, Nothing, On, SHUT_DOWN, closing_of, guest, opened, post, quiet, read_to_end, say, start, tell, turn,
    until,
};
use mainspring::Reactor;
use std::{
    cell::RefCell,
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

#[test]
fn during_a_shutdown_connect_opens_nothing_so_that_it_ends() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let drops = Rc::new(RefCell::new(Vec::new()));
    let given = Rc::clone(&drops);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.net.connect(addr, Mortal { drops: Rc::clone(&given) });
            assert!(!ctx.net.is_open(key) && ctx.net.link(key).is_none() && !ctx.net.send(key, "x"));
        }
        Ok(())
    });
    reactor.shutdown(&mut journal);
    assert_eq!(*drops.borrow(), ["dropped"]);
    assert_eq!(journal.closings(), 1);
}

#[test]
fn a_shutdown_gives_closed_to_all_flushes_nothing_and_drops_tells_timers_and_jobs() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (connecting, _listener) = opened(&mut reactor, quiet);
    let remote = reactor.remote();
    let mut net = reactor.net();
    net.send(key, "never leaves");
    tell(&mut net, key, "told");
    post(&mut net, key, "posted");
    net.after(Duration::ZERO, move |_, journal| journal.note(key, Call::Frame(b"fired".to_vec())));
    remote.post(move |_, journal| journal.note(key, Call::Frame(b"job".to_vec()))).expect("the reactor lives");
    reactor.shutdown(&mut journal);
    for key in [key, connecting] {
        assert_eq!(closing_of(&journal, key).as_deref(), Some(SHUT_DOWN));
    }
    drop(remote);
    reactor.run(&mut journal).expect("nothing is left");
    assert!(journal.frames().is_empty(), "{:?}", journal.frames());
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
}

#[test]
fn what_closed_sets_up_during_a_shutdown_is_dropped() {
    let (mut reactor, mut journal) = start();
    let (other, _second) = guest(&mut reactor, &mut journal, quiet as On);
    let (_, _peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        if matches!(call, Call::Closed(_)) {
            let key = ctx.key;
            ctx.net.after(Duration::ZERO, move |_, journal| journal.note(key, Call::Frame(b"fired".to_vec())));
            post(&mut ctx.net, key, "posted");
            tell(&mut ctx.net, other, "told");
            assert!(ctx.net.listen("127.0.0.1:0", || Nothing).is_err());
            journal.note(key, Call::Frame(b"asked".to_vec()));
        }
        Ok(())
    });
    reactor.shutdown(&mut journal);
    assert_eq!(journal.closings(), 2);
    reactor.run(&mut journal).expect("nothing is left");
    assert_eq!(journal.frames(), ["asked"]);
}

#[test]
fn a_reactor_can_be_used_again_after_a_shutdown() {
    let (mut reactor, mut journal) = start();
    let (_, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.shutdown(&mut journal);
    let (key, peer) = guest(&mut reactor, &mut journal, quiet);
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    assert!(reactor.net().is_open(key));
}

/// A shutdown dropped the jobs of other threads, and then took the alarm of one that had come in the meantime: it lay there
/// until somebody rang again. Of this many tries several hit the moment.
#[test]
fn a_job_posted_during_a_shutdown_is_run_or_dropped_soon() {
    const TRIES: usize = 50_000;
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (remote, job) = (reactor.remote(), Arc::new(()));
    // Asked for by the one, done by the other.
    let (asked, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=TRIES {
                while asked.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
                (0..number % 40).for_each(|_| std::hint::spin_loop());
                let held = Arc::clone(&job);
                let _ = remote.post(move |_, _| drop(held));
                done.store(number, Ordering::Release);
            }
        });
        let (began, mut lies) = (Instant::now(), None);
        for number in 1..=TRIES {
            asked.store(number, Ordering::Release);
            if lies.is_some() || began.elapsed() > Duration::from_secs(2) {
                continue; // the other one is to end
            }
            reactor.shutdown(&mut ());
            while done.load(Ordering::Acquire) < number {
                std::thread::yield_now();
            }
            turn(&mut reactor, &mut (), Duration::ZERO);
            lies = (Arc::strong_count(&job) > 1).then_some(number);
        }
        assert_eq!(lies, None, "the job of this try lies there");
    });
}
