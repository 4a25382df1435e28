//! Drains, shutdowns and drops while work is under way, by real threads.

use super::{Witness, held, narrow, start};
use crate::common::{Call, Ctx, Journal, PATIENCE, dial, listen, until, until_net};
use mainspring::{Outcome, Protocol, Reason};
use std::{
    cell::Cell,
    rc::Rc,
    str,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

#[test]
fn a_drain_waits_for_pending_work() {
    let mut reactor = start::<Vec<&str>>();
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |net, log, _| {
        assert!(net.is_draining());
        log.push("done");
    });
    begins.recv_timeout(PATIENCE).expect("it begins");
    reactor.net().drain(PATIENCE);
    let mut log = Vec::new();
    for _ in 0..5 {
        assert!(reactor.turn(&mut log, Duration::ZERO).expect("the selector works"), "it waits");
    }
    drop(let_go);
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(log, ["done"]);
}

#[test]
fn a_drain_does_not_wait_beyond_its_grace() {
    let mut reactor = start::<u32>();
    let (_let_go, wait) = channel::<()>();
    let (begun, _begins) = channel();
    let dropped = Rc::new(Cell::new(0));
    let witness = Witness(Rc::clone(&dropped));
    reactor.net().offload(held(begun, wait), move |_, _, _| {
        let _ = &witness;
        unreachable!("the grace was over")
    });
    reactor.net().drain(Duration::from_millis(20));
    reactor.run(&mut 0).expect("the selector works");
    assert_eq!(dropped.get(), 1);
}

/// Offloads as its last word, which nobody waits for.
struct Last;

impl Protocol<Journal> for Last {
    fn draining(&mut self, _: &mut Ctx<'_>, _: &mut Journal) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
        ctx.net.offload(|| std::process::abort(), |_, _, _: Result<(), _>| unreachable!("the grace was over"));
    }
}

#[test]
fn after_the_grace_no_work_is_begun() {
    let (mut reactor, mut journal) = (start::<Journal>(), Journal::default());
    let (_, at) = listen(&mut reactor, || Last);
    let _peer = dial(at);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().connections == 1);
    reactor.net().drain(Duration::from_millis(20));
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.calls[0].1, Call::Closed("the reactor was shut down".to_owned()));
    // Had it been begun, the only thread would not live to see this.
    reactor.net().offload(|| (), |_, journal: &mut Journal, _| journal.calls.clear());
    reactor.run(&mut journal).expect("the selector works");
    assert!(journal.calls.is_empty());
}

#[test]
fn a_shutdown_drops_what_was_to_follow_and_the_reactor_can_be_used_again() {
    struct Last(Rc<Cell<u32>>);
    impl Protocol<Journal> for Last {
        fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
            journal.note(ctx.key, Call::Closed(why.to_string()));
            let witness = Witness(Rc::clone(&self.0));
            ctx.net.offload(
                || unreachable!("the reactor goes down"),
                move |_, _, _: Result<(), _>| {
                    let _ = &witness;
                    unreachable!("the reactor goes down")
                },
            );
        }
    }
    let (mut reactor, mut journal) = (start::<Journal>(), Journal::default());
    let dropped = Rc::new(Cell::new(0));
    let witness = Rc::clone(&dropped);
    let (_, at) = listen(&mut reactor, move || Last(Rc::clone(&witness)));
    let peer = dial(at);
    until(&mut reactor, &mut journal, |_| peer.peer_addr().is_ok());
    until_net(&mut reactor, &mut journal, |net, _| net.stats().connections == 1);
    let (let_go, wait) = channel::<()>();
    let (begun, _begins) = channel();
    let witness = Witness(Rc::clone(&dropped));
    reactor.net().offload(held(begun, wait), move |_, _, _| {
        let _ = &witness;
        unreachable!("the reactor went down")
    });
    reactor.shutdown(&mut journal);
    assert_eq!((journal.closings(), dropped.get(), reactor.stats().offloads), (1, 2, 0));
    drop(let_go);
    reactor.net().offload(|| (), |_, journal: &mut Journal, _| journal.calls.clear());
    reactor.run(&mut journal).expect("the selector works");
    assert!(journal.calls.is_empty());
}

#[test]
fn drops_that_panic_leave_neither_the_turn_nor_the_drop_of_a_reactor() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        }
    }
    let mut reactor = narrow::<u32>(1, 10);
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, _, _| ());
    begins.recv_timeout(PATIENCE).expect("it begins");
    let (in_work, in_done) = (Bomb, Bomb);
    reactor.net().offload(
        move || {
            let _ = &in_work;
        },
        move |_, _, _| {
            let _ = &in_done;
        },
    );
    let (in_work, in_done) = (Bomb, Bomb);
    reactor.net().offload(
        move || {
            let _ = &in_work;
            std::panic::resume_unwind(Box::new(Bomb));
        },
        move |_, ended, _: Result<(), _>| {
            *ended += 1;
            let _ = &in_done;
        },
    );
    drop(let_go);
    let mut ended = 0;
    until(&mut reactor, &mut ended, |ended| *ended == 1);
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, _, _| ());
    begins.recv_timeout(PATIENCE).expect("it begins");
    let (in_work, in_done) = (Bomb, Bomb);
    reactor.net().offload(move || drop(in_work), move |_, _, _| drop(in_done));
    drop(reactor);
    drop(let_go);
}

#[cfg(unix)]
#[test]
fn dispatchers_are_there_until_pending_work_is_done() {
    use mainspring::{Dispatcher, Scope, Source};
    use std::os::{fd::AsFd, unix::net::UnixStream};

    struct Watcher(UnixStream);
    impl Dispatcher<Vec<&'static str>> for Watcher {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }
        fn closed(&mut self, _: &mut Scope<'_, Vec<&'static str>>, log: &mut Vec<&'static str>, _: Reason) {
            log.push("closed");
        }
    }
    let mut reactor = start::<Vec<&'static str>>();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket option");
    reactor.net().watch(Watcher(ours)).expect("it can be watched");
    let (let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, log, _| log.push("done"));
    begins.recv_timeout(PATIENCE).expect("it begins");
    reactor.net().drain(PATIENCE);
    let mut log = Vec::new();
    for _ in 0..5 {
        reactor.turn(&mut log, Duration::ZERO).expect("the selector works");
    }
    drop(let_go);
    reactor.run(&mut log).expect("the selector works");
    assert_eq!(log, ["done", "closed"]);
}

/// What had come back and was not looked at yet stayed until the next piece of work was done.
#[test]
fn a_shutdown_drops_what_has_come_back() {
    struct Product(Sender<()>);
    impl Drop for Product {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let mut reactor = narrow::<u32>(1, 1);
    let (dropped, drops) = channel();
    reactor.net().offload(move || Product(dropped), |_, _, _| unreachable!("it is shut down"));
    let (_let_go, wait) = channel::<()>();
    let (begun, begins) = channel();
    reactor.net().offload(held(begun, wait), |_, _, _| unreachable!("it is shut down"));
    begins.recv_timeout(PATIENCE).expect("it begins when the one before is through");
    assert!(drops.try_recv().is_err());
    reactor.shutdown(&mut 0);
    drops.recv_timeout(PATIENCE).expect("it does not outlive the shutdown");
}
