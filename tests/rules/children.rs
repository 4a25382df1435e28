//! Children of the process: their ends, and signals to them.

use crate::common::{is_alone, ms, turn, until};
use mainspring::{
    Context, Key, Outcome, Protocol, Reactor,
    signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM},
};
use std::{
    io::{self, Read},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

type Ends = Vec<io::Result<ExitStatus>>;

fn shell(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell")
}

fn wait(reactor: &mut Reactor<Ends>, child: Child) -> Key {
    reactor.net().wait_child(child, |_, ends, status| ends.push(status)).expect("it may be waited for")
}

/// Through a drain, until its grace is over.
struct Stays;

impl Protocol<Ends> for Stays {
    fn draining(&mut self, _: &mut Context<'_, Ends>, _: &mut Ends) -> Outcome {
        Ok(())
    }
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Their standard input is closed, or they would wait for us, and we for them.
#[test]
fn each_end_is_told_once_with_its_status_and_keeps_run_running_until_then() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let mut key = None;
    for status in [0, 7] {
        key = Some(wait(&mut reactor, shell(&format!("read line; exit {status}"))));
    }
    reactor.run(&mut ends).expect("the selector works");
    let mut codes: Vec<_> = ends.iter().map(|end| end.as_ref().expect("a status").code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(7)]);
    let key = key.expect("two were started");
    assert!(!reactor.net().signal_child(key, SIGTERM) && !reactor.net().is_open(key));
}

#[test]
fn one_that_has_ended_before_is_told_too_even_if_it_was_reaped() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let mut unreaped = shell("exit 3");
    let mut buf = Vec::new();
    unreaped.stdout.take().expect("piped").read_to_end(&mut buf).expect("its end");
    let mut reaped = shell("exit 4");
    reaped.wait().expect("it ends");
    for child in [unreaped, reaped] {
        wait(&mut reactor, child);
    }
    reactor.run(&mut ends).expect("the selector works");
    let codes: Vec<_> = ends.iter().map(|end| end.as_ref().expect("a status").code()).collect();
    assert!(codes.contains(&Some(3)) && codes.contains(&Some(4)), "{codes:?}");
}

#[test]
fn one_is_killed_at_its_deadline_and_may_stop_and_go_on_before() {
    const STOP_CONT_KILL: [i32; 3] = [SIGSTOP, SIGCONT, SIGKILL];
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let mut child = shell("read line");
    let _input = child.stdin.take();
    let key = wait(&mut reactor, child);
    for signal in STOP_CONT_KILL {
        assert!(reactor.net().signal_child(key, signal));
        if signal != SIGKILL {
            turn(&mut reactor, &mut ends, ms(10));
            assert!(ends.is_empty());
        }
    }
    reactor.run(&mut ends).expect("the selector works");
    assert_eq!(ends[0].as_ref().expect("a status").signal(), Some(9));
}

#[test]
fn what_is_no_signal_is_sent_to_nobody() {
    let mut reactor = Reactor::new().expect("a selector");
    let key = wait(&mut reactor, shell("read line"));
    assert!(
        !reactor.net().signal_child(key, 0) && !reactor.net().signal_child(key, 1_000) && !reactor.net().signal_child(key, -9)
    );
    assert!(reactor.net().signal_child(key, SIGKILL));
    reactor.run(&mut Ends::new()).expect("the selector works");
}

#[test]
fn closed_before_its_end_it_is_told_to_nobody_and_reaped_nevertheless() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let mut child = shell("read line");
    let (input, pid) = (child.stdin.take(), child.id());
    let key = wait(&mut reactor, child);
    assert!(reactor.net().close(key));
    reactor.run(&mut ends).expect("the selector works"); // it does not keep it running any more
    assert!(!reactor.net().signal_child(key, SIGKILL), "by key it is gone");
    drop(input);
    until(&mut reactor, &mut ends, |_| !is_there(pid));
    assert!(ends.is_empty());
}

#[test]
fn a_drain_and_a_shutdown_do_not_wait_for_it() {
    for drains in [true, false] {
        let mut reactor = Reactor::new().expect("a selector");
        let mut ends = Ends::new();
        let mut child = shell("read line");
        let input = child.stdin.take();
        wait(&mut reactor, child);
        if drains {
            reactor.net().drain(Duration::from_secs(10));
            reactor.run(&mut ends).expect("the selector works");
        } else {
            reactor.shutdown(&mut ends);
        }
        assert!(ends.is_empty());
        let refused = reactor.net().wait_child(shell("exit 0"), |_, _, _| {});
        assert!(refused.is_ok(), "the reactor may be used again");
        drop(input);
        reactor.run(&mut ends).expect("the selector works");
    }
}

/// Nothing is opened any more then, but the reactor may be used again.
#[test]
fn one_that_outlives_a_drain_and_its_grace_is_reaped_nevertheless() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let mut child = shell("read line");
    let (input, pid) = (child.stdin.take(), child.id());
    wait(&mut reactor, child);
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    reactor.net().adopt(ours, Stays).expect("a stream");
    reactor.net().drain(Duration::ZERO);
    reactor.run(&mut ends).expect("the selector works");
    assert_eq!(reactor.stats().undrained, 1, "the grace was over");
    drop(input);
    until(&mut reactor, &mut ends, |_| !is_there(pid));
    assert!(ends.is_empty());
}

/// The reactor is empty then.
#[test]
fn an_orphan_ends_with_a_shutdown() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    for closes_first in [true, false] {
        let mut child = shell("read line");
        let _input = child.stdin.take();
        let key = wait(&mut reactor, child);
        if closes_first {
            reactor.net().close(key);
            turn(&mut reactor, &mut ends, ms(1));
            assert_eq!(reactor.net().connections().len(), 1, "it is waited for");
        }
        reactor.shutdown(&mut ends);
        assert!(reactor.net().connections().is_empty());
    }
}

#[test]
fn a_panic_of_what_follows_ends_nobody() {
    let mut reactor = Reactor::new().expect("a selector");
    reactor.net().wait_child(shell("exit 0"), |_, _, _| panic!("on purpose")).expect("it may be waited for");
    let mut ends = Ends::new();
    wait(&mut reactor, shell("exit 0"));
    reactor.run(&mut ends).expect("the selector works");
    assert_eq!(ends.len(), 1);
}

/// The kernel reaps them, and has no status for us.
#[test]
fn where_the_signal_of_children_is_ignored_that_is_the_error() {
    let ignoring = "exec env --ignore-signal=CHLD \"$0\" \"$@\";";
    if !is_alone("children::where_the_signal_of_children_is_ignored_that_is_the_error", ignoring) {
        return;
    }
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let child = shell("read line");
    wait(&mut reactor, child);
    reactor.run(&mut ends).expect("the selector works");
    let error = ends[0].as_ref().expect_err("nobody knows its status");
    assert_eq!(error.raw_os_error(), Some(10), "ECHILD: {error}");
}

#[test]
fn a_thousand_children_leave_neither_a_zombie_nor_a_descriptor() {
    if !is_alone("children::a_thousand_children_leave_neither_a_zombie_nor_a_descriptor", "") {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::new();
    let before = descriptors();
    for _ in 0..10 {
        let pids: Vec<u32> = (0..100)
            .map(|_| {
                let child = Command::new("true").spawn().expect("a program");
                let pid = child.id();
                wait(&mut reactor, child);
                pid
            })
            .collect();
        reactor.run(&mut ends).expect("the selector works");
        assert!(!pids.into_iter().any(is_there));
    }
    assert_eq!((ends.len(), descriptors()), (1_000, before));
    assert!(ends.iter().all(|end| end.as_ref().is_ok_and(|status| status.success())));
}
