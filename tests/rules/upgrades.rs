//! A connection becomes something else.

use crate::common::{
    Call, Ctx, Journal, On, Recorded, Recorder, SECOND, STUFFED, Stranger, closed, dialogue, eof, frame, lines, note, piece,
    quiet, recorder,
};
use mainspring::{
    Config, Limit, Listen, Outcome, Protocol, Reason, Terminator,
    testing::{Scene, Transcript},
};
use std::{cell::Cell, rc::Rc, time::Duration};

/// A tell has it become a recorder.
fn upgrade<P: Protocol<Journal>>(t: &mut Transcript<P, Journal>) {
    let key = t.key();
    assert!(t.scene().net().tell(key, |_: &mut P, ctx, _| {
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    }));
}

#[test]
fn an_upgrade_happens_on_ok_and_the_unread_bytes_go_to_the_successor() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.send("yes\n");
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    t.receives("upgrade\nraw\nbytes").gets(&[frame("upgrade"), Call::Connected, piece("raw\nbytes")]);
    let key = t.sends("yes\n").key();
    t.scene().net().close(key);
    t.gets(&[closed(&Reason::Finish)]); // only the successor is told
}

#[test]
fn an_upgrade_with_an_err_does_not_happen() {
    let mut t = dialogue(|ctx, _, call| match call {
        Call::Received(_) => {
            ctx.upgrade(Stranger::default());
            Err("no".into())
        }
        _ => Ok(()),
    });
    t.receives("x").gets(&[piece("x"), closed(&Reason::Failed("no".into()))]);
}

#[test]
fn the_successor_of_a_connection_that_has_begun_to_end_is_dropped_uncalled() {
    let ends: [fn(&mut Ctx<'_>); 3] = [|ctx| ctx.close(), |ctx| ctx.abort(), |ctx| ctx.fail("gone")];
    for end in ends {
        let dropped = Rc::new(Cell::new(false));
        let seen = Rc::clone(&dropped);
        let mut t = dialogue(move |ctx, _, call| {
            if matches!(call, Call::Received(_)) {
                ctx.upgrade(Stranger { dropped: Some(Rc::clone(&seen)) });
                end(ctx);
            }
            Ok(())
        });
        let calls = t.receives("x").calls();
        assert!(matches!(&calls[..], [Call::Received(_), Call::Closed(_)]), "{calls:?}");
        assert!(dropped.get());
    }
}

/// Both are of one type: nothing but the upgrade tells them apart.
#[test]
fn work_of_the_predecessor_is_not_told_to_a_successor_of_its_own_type() {
    let mut config = Config::new();
    config = config.offload_threads(1).offload_queue(1);
    let mut scene = Scene::with_config(1, Journal::default(), config);
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        if let Call::Received(_) = call {
            // One is done, one waits, and one is refused.
            for _ in 0..3 {
                ctx.offload(
                    || (),
                    |_: &mut Recorder<On>, ctx, journal, _| {
                        note(journal, ctx.key, "told");
                        Ok(())
                    },
                );
            }
            if journal.calls.len() == 2 {
                ctx.upgrade(recorder(on as On));
            }
        }
        Ok(())
    }
    scene.net().listen("10.0.0.1:80", || recorder(on as On)).expect("a free port");
    let peer = scene.dials("10.0.0.1:80");
    scene.says(peer, "x").passes(SECOND);
    assert_eq!(
        scene.state().calls.iter().map(|(_, call)| call).collect::<Vec<_>>(),
        [&Call::Connected, &piece("x"), &Call::Connected]
    );
    scene.says(peer, "y").passes(SECOND);
    assert_eq!(scene.state().frames(), ["told"; 3], "its own");
}

#[test]
fn the_predecessor_is_dropped_without_closed() {
    let dropped = Rc::new(Cell::new(false));
    let mut t = Transcript::new(Stranger { dropped: Some(Rc::clone(&dropped)) });
    t.gets(&[Call::Connected]);
    upgrade(&mut t);
    t.gets(&[Call::Connected]);
    assert!(dropped.get());
}

#[test]
fn the_successor_starts_with_no_terminator_pause_throttle_or_time_out() {
    let mut t = dialogue(quiet as On);
    let (key, (writer, sink)) = (t.key(), t.beside());
    t.scene().reads(sink, false).net().send(writer, vec![b'.'; STUFFED]);
    t.scene().settles().net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(Terminator::line(9));
        ctx.pause();
        ctx.throttle(writer);
        ctx.set_idle_timeout(SECOND);
        ctx.set_stall_timeout(SECOND);
        ctx.set_frame_timeout(SECOND);
        ctx.set_deadline(SECOND);
        ctx.after(SECOND, |_: &mut Recorder<On>, ctx, journal| {
            note(journal, ctx.key, "a timer of the predecessor");
            Ok(())
        });
        ctx.upgrade(recorder(quiet as On));
        Ok(())
    });
    t.receives("raw").gets(&[Call::Connected, piece("raw")]).passes(10 * SECOND).gets_nothing();
}

#[test]
fn a_tell_for_the_predecessor_is_dropped_with_it() {
    let mut t = dialogue(quiet as On);
    let key = t.key();
    upgrade(&mut t);
    assert!(t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, journal| {
        note(journal, ctx.key, "for the predecessor");
        Ok(())
    }));
    t.gets(&[Call::Connected]);
    t.scene().net().close(key);
    t.gets(&[closed(&Reason::Finish)]);
}

#[test]
fn connected_of_a_successor_comes_once_and_only_when_connected() {
    let mut scene = Scene::new(0, Journal::default());
    scene.serves("10.0.0.1:80");
    let key = scene.net().connect("10.0.0.1:80", recorder(quiet as On));
    scene.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                note(journal, ctx.key, "the successor");
            }
            Ok(())
        }));
        Ok(())
    });
    assert_eq!(scene.settles().state().of(key), [Call::Connected, frame("the successor")]);
}

#[test]
fn eof_that_was_seen_before_comes_to_the_successor_too() {
    let mut t = dialogue(quiet as On);
    t.peer_ends().gets(&[eof("")]);
    upgrade(&mut t);
    t.gets(&[Call::Connected, eof("")]);
}

#[test]
fn an_upgrade_inside_eof_hands_the_tail_over() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Eof(_)) {
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    t.receives("tail").peer_ends().gets(&[eof("tail"), Call::Connected, piece("tail"), eof("")]);
}

#[test]
fn nothing_comes_to_a_successor_before_its_connected() {
    let mut t = dialogue(|ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            // Congested, and all of it taken by the write that follows: `writable` is owed.
            ctx.set_output_limits(10, 20, 1 << 20);
            ctx.send([b'.'; 100]);
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    });
    assert_eq!(t.receives("x").calls()[..2], [piece("x"), Call::Connected]);
}

#[test]
fn a_successor_cuts_the_unread_bytes_with_a_terminator_of_its_own() {
    let mut t = dialogue(|ctx, journal, call| {
        lines(ctx, journal, call)?;
        if matches!(call, Call::Frame(_)) {
            ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::delimiter(&b";"[..], 99));
                }
                Ok(())
            }));
        }
        Ok(())
    });
    let expected = [frame("upgrade"), Call::Connected, frame("one\ntwo"), frame("three")];
    t.receives("upgrade\none\ntwo;three;").gets(&expected);
}

#[test]
fn a_tell_that_upgrades_leaves_frames_in_the_buffer_to_the_successor() {
    let mut t = dialogue(lines as On);
    t.receives("unfinished").holds(10);
    upgrade(&mut t);
    t.gets(&[Call::Connected, piece("unfinished")]);
}

/// A policy of the server that ended with the first upgrade was none: the peer chooses when that comes.
mod policy {
    use super::*;

    /// A guest that has become something else a second after it came, on what `before` left.
    fn upgraded(options: Listen, before: fn(&mut Ctx<'_>)) -> (Scene<Journal>, mainspring::testing::Actor) {
        let mut scene = Scene::new(1, Journal::default());
        let first = move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            match call {
                Call::Connected => before(ctx),
                Call::Received(_) => ctx.upgrade(recorder(strict as On)),
                _ => {}
            }
            Ok(())
        };
        scene.net().listen_with("10.0.0.1:80", options, move |_, _, _| Ok(recorder(first))).expect("a free port");
        let client = scene.dials("10.0.0.1:80");
        scene.passes(SECOND).says(client, "up").settles();
        (scene, client)
    }

    /// The default, and lines.
    fn strict(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> mainspring::Outcome {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(9)),
            Call::Exceeded(limit) => return Err((*limit).into()),
            _ => {}
        }
        Ok(())
    }

    fn ends_with(scene: &mut Scene<Journal>, limit: Limit, after: Duration) {
        let moment = Duration::from_nanos(1);
        scene.passes(after - moment);
        assert_eq!(scene.state().closings(), 0, "{limit:?}");
        scene.passes(moment);
        assert!(scene.state().has(&closed(&Reason::Limit(limit))), "{limit:?}: {:?}", scene.state());
    }

    #[test]
    fn an_upgrade_does_not_end_the_listeners_idle_time_out() {
        for before in [|_: &mut Ctx<'_>| {}, |ctx: &mut Ctx<'_>| ctx.set_idle_timeout(None)] {
            let (mut scene, _) = upgraded(Listen::new().idle_timeout(5 * SECOND), before);
            ends_with(&mut scene, Limit::Idle, 5 * SECOND);
        }
    }

    #[test]
    fn an_upgrade_does_not_end_the_listeners_frame_time_out() {
        let (mut scene, client) = upgraded(Listen::new().frame_timeout(5 * SECOND), |_| {});
        scene.says(client, "a begin");
        ends_with(&mut scene, Limit::FrameTime, 5 * SECOND);
    }

    #[test]
    fn an_upgrade_does_not_end_the_listeners_stall_time_out_and_output_limits() {
        let options = Listen::new().stall_timeout(5 * SECOND).output_limits(1, 1 << 20, 4 << 20);
        let (mut scene, client) = upgraded(options, |_| {});
        let key = scene.state().keys()[0];
        assert!(scene.reads(client, false).net().send(key, vec![0; 1 << 20]));
        assert!(scene.settles().net().send(key, vec![0; 1 << 20]), "beyond the default cap");
        ends_with(&mut scene, Limit::Stalled, 5 * SECOND);
    }

    #[test]
    fn no_upgrade_gives_more_time_than_the_listeners_deadline() {
        let (mut scene, _) = upgraded(Listen::new().deadline(5 * SECOND), |_| {});
        ends_with(&mut scene, Limit::Deadline, 4 * SECOND);
    }

    #[test]
    fn the_listeners_deadline_begins_anew_after_one_that_was_set_or_taken_back() {
        for before in [|ctx: &mut Ctx<'_>| ctx.set_deadline(2 * SECOND), |ctx: &mut Ctx<'_>| ctx.set_deadline(None)] {
            let (mut scene, _) = upgraded(Listen::new().deadline(5 * SECOND), before);
            ends_with(&mut scene, Limit::Deadline, 5 * SECOND);
        }
    }

    #[test]
    fn a_successor_holds_back_though_its_predecessor_did_not() {
        let (mut scene, client) = upgraded(Listen::new(), |ctx| ctx.set_hold_back(false));
        let key = scene.state().keys()[0];
        scene.reads(client, false).net().send(key, vec![0; STUFFED]);
        scene.settles().says(client, "x\n").settles();
        assert!(!scene.state().has(&frame("x")));
    }
}
