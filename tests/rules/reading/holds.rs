//! Holds: reasons not to read, each of whoever has it.

use crate::common::{
    Call, Ctx, Journal, On, Recorded, Recorder, SECOND, dialogue, eof, frame, lines, note, piece, quiet, recorder,
};
use mainspring::{
    Hold, Protocol,
    testing::{Transcript, Weather},
};

fn hold(t: &mut Transcript<impl Protocol<Journal>, Journal>) -> Hold {
    let mut hold = None;
    t.link(|link| hold = Some(link.hold()));
    hold.expect("it is there")
}

fn release(t: &mut Transcript<impl Protocol<Journal>, Journal>, hold: Hold) {
    t.scene().net().release(hold);
}

#[test]
fn nothing_is_delivered_until_the_last_hold_is_released_and_a_resume_releases_none() {
    let mut t = dialogue(quiet);
    let (first, second) = (hold(&mut t), hold(&mut t));
    t.receives("x").gets_nothing();
    t.link(|link| link.resume()).gets_nothing();
    release(&mut t, second);
    t.link(|link| link.pause()).gets_nothing();
    release(&mut t, first);
    t.gets_nothing().link(|link| link.resume()).gets(&[piece("x")]);
}

#[test]
fn the_end_waits_for_a_hold_and_a_reset_does_not() {
    let mut t = dialogue(quiet);
    let held = hold(&mut t);
    t.receives("x").peer_ends().gets_nothing();
    release(&mut t, held);
    t.gets(&[piece("x"), eof("")]);
    let mut t = dialogue(quiet);
    let held = hold(&mut t);
    let calls = t.receives("x").peer_resets().calls();
    assert!(matches!(calls[..], [Call::Closed(_)]), "{calls:?}");
    release(&mut t, held);
}

#[test]
fn a_hold_inside_frame_holds_what_is_buffered() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            let hold = ctx.hold();
            ctx.net.after(SECOND, move |net, _| net.release(hold));
        }
        Ok(())
    });
    t.receives("one\ntwo\n").gets(&[frame("one")]).passes(SECOND).gets(&[frame("two")]).passes(SECOND).gets_nothing();
}

/// It would read on for the successor, who may have a hold of its own, and knows of no other.
#[test]
fn a_successor_begins_without_holds_and_its_predecessors_release_none_of_its_own() {
    let mut t = dialogue(quiet as On);
    let (key, old) = (t.key(), hold(&mut t));
    t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    t.receives("x").gets(&[Call::Connected, piece("x")]);
    let new = hold(&mut t);
    release(&mut t, old);
    t.receives("y").gets_nothing();
    release(&mut t, new);
    t.gets(&[piece("y")]);
}

#[test]
fn who_holds_and_since_when_is_shown() {
    let mut t = dialogue(quiet);
    let _first = hold(&mut t);
    let mut second = None;
    t.passes(SECOND).link(|link| second = Some(link.hold()));
    let holds = t.scene().net().connections().remove(0).holds;
    let [(first, since), (second, now)] = holds[..] else { panic!("{holds:?}") };
    assert!(first.file().ends_with("holds.rs") && first.line() < second.line());
    assert_eq!((since, now), (SECOND, SECOND - SECOND));
}

/// What follows may take a pause back, or none, or fail to: none of it is forgotten in a branch.
#[test]
fn held_work_keeps_frames_back_until_what_follows_it_has_returned() {
    fn answers(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> mainspring::Outcome {
        lines(ctx, journal, call)?;
        if let Call::Frame(line) = call {
            let line = line.clone();
            ctx.offload_held(
                move || line,
                |_: &mut Recorder<On>, ctx, journal, line| {
                    note(journal, ctx.key, format!("done {}", String::from_utf8_lossy(&line?)));
                    ctx.resume();
                    Ok(())
                },
            );
            ctx.resume();
        }
        Ok(())
    }
    let mut t = dialogue(answers as On);
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.receives("one\ntwo\n").gets(&[frame("one")]);
    t.passes(SECOND).gets(&[frame("done one"), frame("two")]);
    t.passes(SECOND).gets(&[frame("done two")]);
    assert!(t.scene().net().connections()[0].holds.is_empty());
}
