//! What waits while reading is off, and what does not.

use crate::common::{
    Call, Journal, On, Recorded, Recorder, SECOND, STUFFED, dialogue, eof, frame, lines, note, piece, quiet, recorder,
};
use mainspring::{Limit, testing::Scene};

#[test]
fn resume_does_not_lift_the_hold_back() {
    let mut t = dialogue(quiet);
    t.stuffs().link(|link| link.pause()).receives("x").link(|link| link.resume()).gets_nothing();
    assert_eq!(t.peer_reads().sent().len(), STUFFED);
    t.gets(&[Call::Writable, piece("x")]);
}

#[test]
fn the_end_of_congestion_does_not_lift_the_pause() {
    let mut t = dialogue(quiet);
    t.stuffs().link(|link| link.pause()).receives("x");
    assert_eq!(t.peer_reads().sent().len(), STUFFED);
    t.gets(&[Call::Writable]).link(|link| link.resume()).gets(&[piece("x")]);
}

#[test]
fn hold_back_can_be_switched_off_while_it_holds() {
    let mut t = dialogue(quiet);
    t.stuffs().receives("x").gets_nothing().link(|link| link.set_hold_back(false)).gets(&[piece("x")]);
}

#[test]
fn a_pause_inside_frame_holds_what_is_buffered() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    t.receives("one\ntwo\nthree\n");
    for text in ["one", "two", "three"] {
        t.gets(&[frame(text)]).link(|link| link.resume());
    }
}

#[test]
fn congestion_inside_frame_holds_what_is_buffered() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if *call == frame("one") {
            ctx.send(vec![b'.'; STUFFED]);
        }
        Ok(())
    });
    t.peer_stops_reading().receives("one\ntwo\n").gets(&[frame("one")]).holds(4);
    assert_eq!(t.peer_reads().sent().len(), STUFFED);
    t.gets(&[Call::Writable, frame("two")]);
}

#[test]
fn eof_waits_while_reading_is_off() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.pause();
        }
        Ok(())
    });
    t.receives("one\ntail").peer_ends().gets(&[frame("one")]).link(|link| link.resume()).gets(&[eof("tail")]);
}

#[test]
fn tells_and_timers_do_not_wait_for_reading() {
    let mut t = dialogue(quiet as On);
    let key = t.key();
    t.link(|link| link.pause());
    assert!(t.scene().net().tell(key, move |_: &mut Recorder<On>, ctx, journal| {
        note(journal, ctx.key, "told");
        ctx.after(SECOND, move |_: &mut Recorder<On>, ctx, journal| {
            note(journal, ctx.key, "fired");
            Ok(())
        });
        Ok(())
    }));
    t.gets(&[frame("told")]).passes(SECOND).gets(&[frame("fired")]);
}

#[test]
fn exceeded_and_writable_do_not_wait_for_reading() {
    let mut t = dialogue(quiet);
    t.link(|link| link.pause()).link(|link| link.set_deadline(SECOND)).exceeds(Limit::Deadline, SECOND);
    assert_eq!(t.stuffs().peer_reads().sent().len(), STUFFED);
    t.gets(&[Call::Writable]);
}

#[test]
fn a_pause_while_connecting_holds_from_the_first_byte() {
    let mut scene = Scene::new(0, Journal::default());
    let server = scene.serves("10.0.0.1:80");
    let key = scene.net().connect("10.0.0.1:80", recorder(quiet));
    scene.net().link(key).expect("connecting").pause();
    scene.says(server, "x");
    assert_eq!(scene.state().of(key), [Call::Connected]);
    scene.net().link(key).expect("open").resume();
    assert_eq!(scene.settles().state().of(key), [Call::Connected, piece("x")]);
}

#[test]
fn nothing_is_held_between_frames() {
    let mut t = dialogue(lines);
    t.receives("one\ntw").gets(&[frame("one")]).holds(2).receives("o\n").gets(&[frame("two")]).holds(0);
    t.link(|link| assert_eq!(link.queued(), 0));
}
