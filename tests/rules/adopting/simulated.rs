//! What needs no kernel: pairs and pipes of the simulated network.

use crate::common::{Call, Journal, by_default, recorder};
use mainspring::{
    Adopted, Context, Detached, Key, Outcome, Protocol, Reason, Terminator,
    testing::{Errno, Host, Sim},
};
use std::{cell::RefCell, rc::Rc, time::Duration};

fn sim() -> (Sim, Host<Journal>) {
    let mut sim = Sim::new(1);
    let host = sim.host("10.0.0.1", Journal::default());
    (sim, host)
}

fn adopt(sim: &mut Sim, host: Host<Journal>, adopted: Adopted) -> Key {
    let key = sim.net(host).adopt(adopted, recorder(by_default)).expect("a stream of this network");
    sim.settle();
    key
}

/// The reader has gone; what the other end said before is still read, and then its end.
#[test]
fn a_pipe_that_nobody_reads_breaks_and_the_other_is_read_to_its_end() {
    for sends in [false, true] {
        let (mut sim, host) = sim();
        let (one, other) = sim.pipes(host);
        let (one, other) = (adopt(&mut sim, host, one), adopt(&mut sim, host, other));
        sim.net(host).send(other, "last words");
        sim.run_for(Duration::from_millis(1));
        sim.net(host).link(one).expect("it is open").pause();
        sim.net(host).abort(other);
        if sends {
            sim.net(host).send(one, "never read");
        }
        sim.run_for(Duration::from_secs(1));
        assert!(!sim.net(host).send(one, "refused"));
        sim.net(host).link(one).expect("its reader is open").resume();
        sim.run_for(Duration::from_secs(1));
        let calls = sim.state(host).of(one);
        assert_eq!(sim.state(host).received(), b"last words");
        assert_eq!(calls.last(), Some(&Call::Closed(Reason::Eof.to_string())));
        assert_eq!(sim.sockets(host), 0);
    }
}

/// The same by the error of a write, before any event has told of it: a paused one is not ended for that.
#[test]
fn a_pipe_that_a_write_finds_broken_is_the_reason_once_the_other_is_read() {
    let (mut sim, host) = sim();
    let (one, other) = sim.pipes(host);
    let (one, other) = (adopt(&mut sim, host, one), adopt(&mut sim, host, other));
    sim.net(host).link(one).expect("it is open").pause();
    sim.net(host).send(other, "last words");
    sim.run_for(Duration::from_millis(1));
    sim.net(host).send(one, "never read");
    let next = sim.operations(host) + 1; // behind the wait
    sim.fail_operation(host, next, Errno::BrokenPipe, false);
    sim.run_for(Duration::from_secs(1));
    assert!(sim.net(host).is_open(one) && !sim.net(host).send(one, "refused"));
    sim.net(host).link(one).expect("its reader is open").resume();
    sim.net(host).close(other);
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.state(host).received(), b"last words");
    let Some(Call::Closed(why)) = sim.state(host).of(one).pop() else { panic!("`closed` is the last") };
    assert!(why.starts_with("connection lost: Broken pipe"), "{why}");
}

#[test]
fn ends_that_are_dropped_without_being_adopted_give_their_descriptors_back() {
    let (mut sim, host) = sim();
    drop((sim.pair(host), sim.pipe(host), sim.pipes(host)));
    assert_eq!(sim.sockets(host), 0);
    let (one, _) = sim.pair(host);
    let key = adopt(&mut sim, host, one);
    sim.net(host).detach(key);
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.sockets(host), 0, "what was given back was dropped");
}

/// Becomes another, and is told no end: there is no other direction.
struct Changes;

impl Protocol<Journal> for Changes {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        ctx.upgrade(recorder(by_default));
        Ok(())
    }
}

#[test]
fn a_successor_on_what_is_only_written_to_is_told_no_end() {
    let (mut sim, host) = sim();
    let (reader, writer) = sim.pipe(host);
    let reader = adopt(&mut sim, host, reader);
    let key = sim.net(host).adopt(writer, Changes).expect("a stream of this network");
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.state(host).of(key), [Call::Connected]);
    assert!(sim.net(host).send(key, "on it goes"));
    sim.run_for(Duration::from_secs(1));
    sim.net(host).close(key);
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.state(host).received(), b"on it goes");
    assert_eq!(sim.state(host).of(reader).last(), Some(&Call::Closed(Reason::Eof.to_string())));
}

/// Has said all, and is held; a successor has no holds.
struct HasSaidAll;

impl Protocol<Journal> for HasSaidAll {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        let _hold = ctx.hold(); // it is released by its name only
        ctx.half_close();
        ctx.upgrade(recorder(by_default));
        Ok(())
    }
}

#[test]
fn what_has_ended_both_ways_closes_when_its_holds_go_with_a_predecessor() {
    let (mut sim, host) = sim();
    let (_reader, writer) = sim.pipe(host);
    let key = sim.net(host).adopt(writer, HasSaidAll).expect("a stream of this network");
    sim.run_for(Duration::from_secs(1));
    assert_eq!(sim.state(host).of(key), [Call::Closed(Reason::Finish.to_string())]);
}

/// Keeps what it is given back.
type Kept = Rc<RefCell<Option<Detached>>>;

/// Detaches itself by the first line, or at the end, and fails then, or does something else.
struct Leaves {
    how: &'static str,
    kept: Kept,
}

impl Leaves {
    fn leave(&mut self, ctx: &mut Context<'_, Journal>) -> Outcome {
        assert!(ctx.net.detach(ctx.key));
        match self.how {
            "fails" => return Err("on purpose".into()),
            "upgrades" => ctx.upgrade(recorder(by_default)),
            _ => {}
        }
        Ok(())
    }
}

impl Protocol<Journal> for Leaves {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        ctx.set_terminator(Terminator::line(99));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal, _: &[u8]) -> Outcome {
        if self.how == "puts back" {
            ctx.put_back(2);
        }
        self.leave(ctx)
    }

    fn eof(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, tail: &[u8]) -> Outcome {
        journal.note(ctx.key, Call::Eof(tail.to_vec()));
        self.leave(ctx)
    }

    fn closed(&mut self, _: &mut Context<'_, Journal>, _: &mut Journal, why: Reason) {
        match why {
            Reason::Detached(detached) => *self.kept.borrow_mut() = Some(*detached),
            why => panic!("it was detached first: {why}"),
        }
    }
}

/// What comes back as unread of one that leaves so, having been sent this.
fn unread(how: &'static str, sent: &str) -> (Vec<u8>, Vec<Call>) {
    let (mut sim, host) = sim();
    let (one, other) = sim.pair(host);
    let other = adopt(&mut sim, host, other);
    sim.net(host).send(other, sent);
    sim.net(host).half_close(other);
    sim.settle();
    let kept = Kept::default();
    let key = sim.net(host).adopt(one, Leaves { how, kept: Rc::clone(&kept) }).expect("a stream of this network");
    sim.run_for(Duration::from_secs(1));
    assert!(!sim.net(host).is_open(key));
    let detached = kept.take().expect("it was given back");
    (detached.unread, sim.state(host).of(key))
}

#[test]
fn a_callback_that_detaches_and_does_more_loses_nothing() {
    for (how, rest) in [("goes on", "two\nthr"), ("puts back", "ne\ntwo\nthr"), ("fails", "two\nthr"), ("upgrades", "two\nthr")] {
        assert_eq!(unread(how, "one\ntwo\nthr").0, rest.as_bytes(), "{how}");
    }
}

#[test]
fn the_tail_that_eof_was_told_is_not_given_back_too() {
    for how in ["goes on", "fails", "upgrades"] {
        assert_eq!(unread(how, "thr"), (Vec::new(), vec![Call::Eof(b"thr".to_vec())]), "{how}");
    }
}

#[test]
fn of_what_is_only_written_to_nothing_is_left_once_our_side_has_ended() {
    let (mut sim, host) = sim();
    let (reader, writer) = sim.pipe(host);
    let _reader = adopt(&mut sim, host, reader);
    let kept = Kept::default();
    let key = sim.net(host).adopt(writer, Leaves { how: "", kept: Rc::clone(&kept) }).expect("a stream of this network");
    let hold = sim.net(host).link(key).expect("it is open").hold();
    sim.net(host).half_close(key);
    sim.settle();
    assert!(sim.net(host).detach(key));
    sim.settle();
    drop(hold);
    let detached = kept.take().expect("it was given back");
    let error = sim.net(host).adopt(detached.socket, recorder(by_default)).expect_err("nothing is left of it");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
