//! When each clock runs, stands still, and begins anew.

use crate::common::{
    Call, Ctx, Journal, Recorded, SECOND, STUFFED, closed, cut_from_outside, dialogue, echo, frame, lines, piece, quiet, recorder,
};
use mainspring::{
    Answer, Context, Fault, Framer, Limit, Listen, Outcome, Reason, RequestHandler, Step, Terminator,
    testing::{Scene, Weather},
};
use std::time::Duration;

/// A tenth of the time that the limits here are.
const TENTH: Duration = Duration::from_millis(100);

#[test]
fn idle_is_never_early_and_restarted_by_each_byte() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_idle_timeout(SECOND)).passes(5 * TENTH).receives("x").gets(&[piece("x")]);
    t.exceeds(Limit::Idle, SECOND);
}

#[test]
fn the_idle_clock_stands_still_while_paused() {
    let mut t = dialogue(quiet);
    t.link(|link| link.pause()).link(|link| link.set_idle_timeout(SECOND)).passes(10 * SECOND).gets_nothing();
    t.link(|link| link.resume()).exceeds(Limit::Idle, SECOND);
}

#[test]
fn the_idle_clock_stops_when_a_callback_pauses_and_runs_on_afterwards() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_idle_timeout(SECOND),
            Call::Received(bytes) if bytes == b"wait" => ctx.pause(),
            _ => {}
        }
        Ok(())
    });
    t.receives("wait").gets(&[piece("wait")]).passes(10 * SECOND).gets_nothing();
    t.link(|link| link.resume()).exceeds(Limit::Idle, SECOND);
}

#[test]
fn the_idle_clock_stands_still_while_output_is_queued() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_hold_back(false)).stuffs();
    t.link(|link| link.set_idle_timeout(SECOND)).passes(10 * SECOND).gets_nothing();
    assert_eq!(t.peer_reads().sent().len(), STUFFED);
    t.gets(&[Call::Writable]).exceeds(Limit::Idle, SECOND);
}

#[test]
fn the_idle_clock_stands_still_while_throttled() {
    let mut t = dialogue(quiet);
    let (reader, (writer, sink)) = (t.key(), t.beside());
    t.scene().reads(sink, false).net().send(writer, vec![b'.'; STUFFED]);
    t.scene().settles().net().throttle(reader, writer);
    t.link(|link| link.set_idle_timeout(SECOND)).passes(10 * SECOND).gets_nothing();
    t.scene().net().unthrottle(reader, writer);
    t.exceeds(Limit::Idle, SECOND);
}

#[test]
fn what_we_write_is_not_the_peers_activity() {
    let mut t = dialogue(|ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(SECOND);
            let key = ctx.key;
            ctx.net.every(TENTH, move |net, _| _ = net.send(key, "tick"));
        }
        Ok(())
    });
    t.exceeds(Limit::Idle, SECOND).sends("tick".repeat(10));
}

#[test]
fn a_time_out_can_be_taken_back() {
    let mut t = dialogue(lines);
    for set in [Some(SECOND), None] {
        t.link(|link| {
            link.set_idle_timeout(set);
            link.set_stall_timeout(set);
            link.set_deadline(set);
            link.set_frame_timeout(set);
        });
    }
    t.receives("unfinished").passes(10 * SECOND).gets_nothing();
}

/// What is received is never without the beginning of a frame, and each is quick enough.
#[test]
fn a_frame_that_ends_where_the_next_one_begins_restarts_the_frame_clock() {
    let mut t = dialogue(lines);
    t.link(|link| link.set_frame_timeout(SECOND)).receives("begin").gets_nothing();
    for _ in 0..12 {
        t.passes(6 * TENTH).receives(" and end\nbegin").gets(&[frame("begin and end")]);
    }
    t.exceeds(Limit::FrameTime, SECOND);
}

#[test]
fn nothing_stalls_while_nothing_is_queued() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_stall_timeout(SECOND)).passes(10 * SECOND);
    t.link(|link| assert!(link.send("x"))).sends("x").passes(10 * SECOND).gets_nothing();
}

#[test]
fn what_the_peer_sends_does_not_take_our_output() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_hold_back(false)).stuffs().link(|link| link.set_stall_timeout(SECOND));
    for _ in 0..9 {
        t.passes(TENTH).receives("x");
    }
    t.gets(&[piece("xxxxxxxxx")]).exceeds(Limit::Stalled, TENTH);
}

#[test]
fn the_deadline_counts_from_the_call_whatever_happens() {
    let mut t = dialogue(echo);
    t.link(|link| link.set_deadline(SECOND));
    for _ in 0..9 {
        t.passes(TENTH).receives("x").sends("x").gets(&[piece("x")]);
    }
    t.exceeds(Limit::Deadline, TENTH);
}

#[test]
fn a_deadline_set_again_counts_anew() {
    let mut t = dialogue(quiet);
    t.link(|link| link.set_deadline(SECOND)).passes(5 * TENTH);
    t.link(|link| link.set_deadline(SECOND)).exceeds(Limit::Deadline, SECOND);
}

#[test]
fn a_dripping_frame_has_its_time_from_the_first_byte() {
    let mut t = dialogue(|ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::line(1 << 20));
            ctx.set_frame_timeout(SECOND);
        }
        Ok(())
    });
    for _ in 0..10 {
        t.receives("x").gets_nothing().passes(TENTH);
    }
    t.gets(&[Call::Exceeded(Limit::FrameTime)]);
}

#[test]
fn the_frame_clock_is_off_between_frames() {
    let mut t = dialogue(lines);
    t.link(|link| link.set_frame_timeout(SECOND)).passes(10 * SECOND).receives("one\n").gets(&[frame("one")]);
    t.passes(10 * SECOND).gets_nothing().receives("tw").exceeds(Limit::FrameTime, SECOND);
}

#[test]
fn the_frame_clock_stands_still_while_reading_is_off() {
    let mut t = dialogue(lines);
    t.receives("unfinished").holds(10);
    t.link(|link| link.pause()).link(|link| link.set_frame_timeout(SECOND)).passes(10 * SECOND).gets_nothing();
    t.link(|link| link.resume()).exceeds(Limit::FrameTime, SECOND);
}

#[test]
fn the_idle_clock_does_not_run_while_connecting() {
    let mut scene = Scene::new(0, Journal::default());
    scene.set_weather(Weather::fair().latency(5 * SECOND, Duration::ZERO)).serves("10.0.0.1:80");
    let key = scene.net().connect("10.0.0.1:80", recorder(quiet));
    scene.net().link(key).expect("connecting").set_idle_timeout(SECOND);
    let mut waited = Duration::ZERO;
    while scene.state().calls.is_empty() {
        scene.passes(TENTH);
        waited += TENTH;
    }
    assert!(waited >= 5 * SECOND);
    scene.passes(SECOND);
    assert_eq!(scene.state().of(key), [Call::Connected, Call::Exceeded(Limit::Idle)]);
}

/// Each piece that a framer handed over stopped the clock, so that a frame of pieces could take any time.
#[test]
fn a_framer_of_pieces_does_not_escape_the_frame_time_out() {
    struct Pieces;
    impl Framer for Pieces {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            let is_last = input[0] == b'\n';
            Ok(match is_last {
                true => Step::Frame { bytes: 0..0, consumed: 1 },
                false => Step::Piece { bytes: 0..1, consumed: 1 },
            })
        }
    }
    let exceeded = Call::Exceeded(Limit::FrameTime);
    let ways: [fn() -> Terminator; 2] = [|| Terminator::stream_until(&b"\n"[..]), || Terminator::custom(Pieces, 10)];
    for terminator in ways {
        let timed = || {
            dialogue(move |ctx, _, call| {
                if let Call::Connected = call {
                    ctx.set_terminator(terminator());
                    ctx.set_frame_timeout(SECOND);
                }
                Ok(())
            })
        };
        let moment = Duration::from_nanos(1);
        let mut t = timed();
        for _ in 0..10 {
            t.passes(TENTH - moment).gets_nothing().passes(moment).receives("x").gets(&[piece("x")]);
        }
        t.passes(TENTH - moment).gets_nothing().passes(moment).gets(std::slice::from_ref(&exceeded));
        t.receives("rest\n").gets_nothing().receives("y").gets(&[piece("y")]);

        // One byte, and then silence.
        timed()
            .receives("x")
            .gets(&[piece("x")])
            .passes(SECOND - moment)
            .gets_nothing()
            .passes(moment)
            .gets(std::slice::from_ref(&exceeded));
    }
}

/// A server waited without bound for a version line (CVE-2022-21716). Waiting has a deadline, dripping has another.
#[test]
fn a_first_line_that_does_not_come_is_not_waited_for() {
    let mut t = cut_from_outside(Terminator::crlf(100));
    let expected = [Call::Exceeded(Limit::Deadline), closed(&Reason::Limit(Limit::Deadline))];
    t.link(|link| link.set_deadline(SECOND)).passes(SECOND).gets(&expected);

    let mut t = cut_from_outside(Terminator::crlf(1 << 20));
    t.link(|link| link.set_frame_timeout(SECOND));
    for _ in 0..10 {
        t.receives("x").gets_nothing().passes(TENTH);
    }
    t.gets(&[Call::Exceeded(Limit::FrameTime), closed(&Reason::Limit(Limit::FrameTime))]);
}

/// A reader who took a little now and then held a closing connection for ever.
#[test]
fn a_deadline_holds_while_a_polite_close_flushes() {
    let close: fn(&mut Ctx<'_>) = |ctx| ctx.close();
    let half_close: fn(&mut Ctx<'_>) = |ctx| ctx.half_close();
    for (end, is_told) in [(close, false), (half_close, true)] {
        let mut t = dialogue(move |ctx, _, call| {
            match call {
                Call::Connected => {
                    ctx.set_terminator(Terminator::line(9));
                    ctx.set_deadline(5 * SECOND);
                }
                Call::Frame(_) => {
                    ctx.send(vec![0; 900 << 10]);
                    end(ctx);
                }
                _ => {}
            }
            Ok(())
        });
        t.peer_stops_reading().receives("go\n");
        t.passes(5 * SECOND - Duration::from_nanos(1)).gets(&[frame("go")]).passes(Duration::from_nanos(1));
        let told = [Call::Exceeded(Limit::Deadline), closed(&Reason::Limit(Limit::Deadline))];
        t.gets(if is_told { &told[..1] } else { &told[1..] });
    }
}

/// Also where the protocol is the crate's own.
#[test]
fn a_deadline_holds_while_a_last_answer_flushes() {
    struct Last;
    impl RequestHandler<Vec<String>> for Last {
        fn setup(&mut self, ctx: &mut Context<'_, Vec<String>>, _: &mut Vec<String>) -> Outcome {
            ctx.set_terminator(Terminator::line(9));
            ctx.set_deadline(5 * SECOND);
            Ok(())
        }

        fn handle(
            &mut self,
            _: &mut Context<'_, Vec<String>>,
            _: &mut Vec<String>,
            _: &[u8],
        ) -> Result<Answer<Self, Vec<String>>, Fault> {
            Ok(Answer::last(vec![0; 900 << 10]))
        }

        fn finish(&mut self, _: &mut Context<'_, Vec<String>>, ends: &mut Vec<String>, why: Reason) {
            ends.push(why.to_string());
        }
    }
    let mut scene = Scene::new(1, Vec::new());
    scene.net().serve("10.0.0.1:80", Listen::new(), || Last).expect("a free port");
    let client = scene.dials("10.0.0.1:80");
    scene.reads(client, false).says(client, "go\n").passes(4 * SECOND);
    assert!(scene.state().is_empty());
    scene.passes(SECOND);
    assert_eq!(*scene.state(), [Reason::Limit(Limit::Deadline).to_string()]);
}
