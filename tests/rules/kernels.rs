//! Kernels other than Linux promise less: what is promised here holds with them too.

use crate::common::{Call, Ctx, Journal, Recorded, Recorder, SECOND, closed, dialogue, frame, piece, quiet};
use mainspring::{
    Answer, Config, Context, Fault, Limit, Listen, Outcome, Produced, Protocol, Reason, RequestHandler, Terminator,
    testing::{Kernel, Scene, Transcript, Weather},
};
use std::{cell::Cell, rc::Rc, time::Duration};

fn windows() -> Weather {
    Weather::fair().kernel(Kernel::Windows)
}

/// A dialogue with a recorder on such a host.
fn over_windows<F>(on: F) -> Transcript<Recorder<F>, Journal>
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + 'static,
{
    let mut t = dialogue(on);
    t.scene().set_weather(windows());
    t
}

/// It is told that it is lost, and nothing else.
#[track_caller]
fn assert_lost(calls: &[Call]) {
    assert!(matches!(calls, [Call::Closed(why)] if why.starts_with("connection lost")), "{calls:?}");
}

const MIB: usize = 1 << 20;

/// What a socket's window and one send can be.
const KERNEL_MAX: usize = 256 << 10;

/// The kernel took 32 MiB of each, and all of them had "finished"; nothing of it had arrived.
#[test]
fn who_never_reads_is_met_by_its_limits_where_the_kernel_takes_whatever_it_is_given() {
    const PEERS: usize = 20;
    let much: Rc<[u8]> = vec![b'x'; 32 * MIB].into();
    let mut scene = Scene::with_config(0, Vec::new(), Config::new().linger_max(SECOND));
    scene.set_weather(windows());
    let listening = scene.net().listen("10.0.0.1:7", move || Sender(Rc::clone(&much)));
    listening.expect("a simulated port is free");
    for _ in 0..PEERS {
        scene.dials_deaf("10.0.0.1:7");
    }
    scene.settles();
    assert_eq!(scene.state().len(), 0, "nobody has finished");
    let queued: Vec<usize> =
        scene.net().connections().into_iter().filter(|each| each.queued > 0).map(|each| each.queued).collect();
    assert!(queued.len() == PEERS && queued.iter().all(|bytes| bytes + KERNEL_MAX > 32 * MIB), "{queued:?}");
    scene.passes(SECOND);
    let expected = vec![Reason::Limit(Limit::Linger).to_string(); PEERS];
    assert_eq!(*scene.state(), expected);
}

struct Sender(Rc<[u8]>);

impl Protocol<Vec<String>> for Sender {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<String>>, _: &mut Vec<String>) -> Outcome {
        ctx.send_shared(&self.0);
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<String>>, ends: &mut Vec<String>, why: Reason) {
        ends.push(why.to_string());
    }
}

#[test]
fn back_pressure_the_cap_and_the_stall_time_out_hold_there() {
    let mut t = over_windows(quiet);
    t.stuffs().link(|link| link.set_stall_timeout(SECOND)).exceeds(Limit::Stalled, SECOND);
    t.link(|link| link.set_output_limits(100, 1_000, MIB));
    t.link(|link| assert!(!link.send(vec![b'.'; MIB]), "it is beyond the cap"));
    t.gets(&[closed(&Reason::Overflow)]);

    // In several pieces.
    let mut t = over_windows(quiet);
    let piece: Rc<[u8]> = vec![b'.'; MIB / 4].into();
    t.peer_stops_reading().link(|link| assert!((0..4).all(|_| link.send_shared(&piece))));
    t.link(|link| assert!(link.queued() + KERNEL_MAX > MIB, "{} bytes wait", link.queued()));

    let mut t = over_windows(quiet);
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    t.peer_stops_reading().link(|link| {
        link.produce(move |out: &mut Vec<u8>| {
            out.extend([b'p'; 1_000]);
            count.set(count.get() + 1_000);
            Ok(Produced::More)
        });
    });
    assert!(made.get() < KERNEL_MAX, "{} bytes were made for somebody who takes nothing", made.get());
}

#[test]
fn all_of_a_long_output_leaves_there_in_order() {
    let mut t = over_windows(quiet);
    let all: Vec<u8> = (0..MIB as u32).map(|n| (n % 251) as u8).collect();
    let parts = all.clone();
    t.link(move |link| {
        for (number, part) in parts.chunks(100_000).enumerate() {
            if number % 2 == 0 {
                link.send(part)
            } else {
                link.send_shared(&Rc::from(part))
            };
        }
        link.close();
    });
    assert!(t.sent() == all);
    t.peer_ends().gets(&[closed(&Reason::Finish)]);
}

/// It was no error of the socket, so nobody looked.
#[test]
fn who_does_not_read_is_told_of_a_reset_that_only_a_read_would_show() {
    let mut paused = over_windows(quiet);
    paused.link(|link| link.pause()).receives("never read").peer_resets();
    assert_lost(&paused.calls());

    let mut held_back = over_windows(quiet);
    held_back.stuffs().peer_resets();
    assert_lost(&held_back.calls());

    struct Slow;

    impl RequestHandler<()> for Slow {
        fn handle(&mut self, _: &mut Context<'_, ()>, (): &mut (), _: &[u8]) -> Result<Answer<Self, ()>, Fault> {
            Ok(Answer::later(|| (), |_, _, _, _| Ok(Answer::now("made"))))
        }
    }
    let mut scene = Scene::new(0, ());
    scene.set_weather(windows().work(SECOND * 100));
    scene.net().serve("10.0.0.1:7", Listen::new(), || Slow).expect("a simulated port is free");
    let peer = scene.dials("10.0.0.1:7");
    scene.says(peer, "one\n");
    assert_eq!(scene.connections(), 1);
    scene.resets(peer).settles();
    assert_eq!(scene.connections(), 0, "its work is still done");
}

#[test]
fn who_lingers_goes_at_a_reset_there() {
    let mut t = over_windows(quiet);
    t.receives("x").gets(&[piece("x")]);
    t.link(|link| {
        link.send("bye");
        link.close();
    });
    t.gets(&[closed(&Reason::Finish)]);
    assert_eq!(t.scene().net().stats().lingering, 1);
    t.peer_resets();
    assert_eq!(t.scene().net().stats().lingering, 0);
}

/// Between the kernel's word that it is connected, and ours.
#[test]
fn a_connection_that_is_reset_as_it_begins_is_told_both() {
    let mut scene = Scene::new(0, Vec::new());
    scene.set_weather(windows().latency(SECOND, Duration::ZERO));
    let server = scene.serves("10.0.0.2:7");
    scene.net().connect("10.0.0.2:7", Sender(Rc::from(&b""[..])));
    scene.passes(SECOND);
    scene.resets(server).passes(SECOND * 5);
    assert_eq!(scene.state().len(), 1, "{:?}", scene.state());
    assert!(scene.state()[0].starts_with("connection lost"), "{:?}", scene.state());
}

/// What had come and was not read goes with it: there no promise can save it, and no error is lost.
#[test]
fn last_words_may_be_lost_there_and_the_reset_never() {
    let mut t = over_windows(|ctx, _, call| {
        if *call == Call::Frame(b"one".into()) {
            ctx.pause();
        }
        Ok(())
    });
    t.link(|link| link.set_terminator(Terminator::line(10))).receives("one\ntwo\n").gets(&[frame("one")]);
    t.peer_resets();
    assert_lost(&t.calls());
}
