//! Output that is read elsewhere.

use crate::common::{Call, Ctx, Journal, On, Recorded, Recorder, SECOND, dialogue, frame, note, quiet, recorder};
use mainspring::{
    Reason,
    testing::{Transcript, Weather},
};
use std::io::{self, Read};

/// Gives this many bytes, this many at a time, then fails or ends.
struct Source {
    left: usize,
    piece: usize,
    fails: bool,
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.fails {
            return Err(io::Error::other("the disk is broken"));
        }
        let given = into.len().min(self.piece).min(self.left);
        into[..given].fill(b'x');
        self.left -= given;
        Ok(given)
    }
}

fn source(left: usize, piece: usize) -> Source {
    Source { left, piece, fails: false }
}

fn send_from(ctx: &mut Ctx<'_>, source: Source) {
    ctx.send_from(source, |_: &mut Recorder<On>, ctx, journal: &mut Journal, sent| {
        note(journal, ctx.key, sent.map_or_else(|error| error.to_string(), |bytes| bytes.to_string()));
        Ok(())
    });
}

fn sending(with: impl FnOnce(&mut Ctx<'_>) + 'static) -> Transcript<Recorder<On>, Journal> {
    let mut t = dialogue(quiet as On);
    let key = t.key();
    t.scene().net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        with(ctx);
        Ok(())
    });
    t
}

/// What it was called with but `writable`: pieces may be larger than the high mark.
fn told(t: &mut Transcript<Recorder<On>, Journal>) -> Vec<Call> {
    t.calls().into_iter().filter(|call| *call != Call::Writable).collect()
}

#[test]
fn it_has_its_place_in_the_output() {
    let mut t = sending(|ctx| {
        ctx.send("<");
        send_from(ctx, source(5, 2));
        ctx.send("|");
        send_from(ctx, source(0, 2));
        send_from(ctx, source(3, 7));
        ctx.send(">");
    });
    t.sends("<xxxxx|xxx>");
    assert_eq!(told(&mut t), [frame("5"), frame("0"), frame("3")]);
}

#[test]
fn it_is_read_as_the_peer_takes_it() {
    let mut t = sending(|ctx| send_from(ctx, source(5_000_000, 1 << 20)));
    t.peer_stops_reading().settles();
    let queued = t.scene().net().connections()[0].queued;
    assert!(queued <= 256 << 10, "{queued}");
    assert_eq!(t.peer_reads().sent().len(), 5_000_000);
    assert!(t.calls().contains(&frame("5000000")));
}

#[test]
fn a_slow_source_lets_everything_else_go_on() {
    let mut t = sending(|ctx| send_from(ctx, source(3, 1)));
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.receives("hello").passes(10 * SECOND).sends("xxx");
    assert_eq!(t.calls().len(), 2);
}

#[test]
fn an_error_before_the_first_byte_is_told_and_something_else_can_be_sent() {
    let mut t = sending(|ctx| {
        send_from(ctx, Source { left: 0, piece: 1, fails: true });
        ctx.send("500");
    });
    t.sends("500").gets(&[frame("the disk is broken")]);
}

#[test]
fn an_error_after_the_first_byte_ends_the_connection() {
    for closes in [false, true] {
        let mut t = sending(move |ctx| {
            send_from(ctx, Source { left: 3, piece: 2, fails: true });
            if closes {
                ctx.close();
            }
        });
        assert_eq!(t.sent(), b"xxx");
        let calls = t.calls();
        let [Call::Closed(why)] = &calls[..] else { panic!("{calls:?}") };
        assert!(why.contains("the disk is broken"), "{why}");
    }
}

#[test]
fn a_polite_close_sends_it_all() {
    let mut t = sending(|ctx| {
        send_from(ctx, source(700_000, 100_000));
        ctx.send("end");
        ctx.close();
    });
    assert_eq!(t.sent().len(), 700_003);
    t.peer_ends().gets(&[Call::Closed(Reason::Finish.to_string())]);
}

/// Queued output stays: a file whose connection becomes something else goes out to its end.
#[test]
fn a_successor_sends_what_its_predecessor_has_begun() {
    let mut t = sending(|ctx| {
        send_from(ctx, source(700_000, 100_000));
        ctx.upgrade(recorder(quiet as On));
        ctx.send("end");
    });
    assert_eq!(t.sent().len(), 700_003);
    assert_eq!(told(&mut t), [Call::Connected]);
}

#[test]
fn a_drain_waits_for_it() {
    let mut t = sending(|ctx| send_from(ctx, source(700_000, 100_000)));
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.scene().net().drain(100 * SECOND);
    t.passes(50 * SECOND);
    assert_eq!(t.sent().len(), 700_000);
}

/// A connection that has begun to end politely, or has become something else, is not told: then the peer must not take what
/// is left for all.
#[test]
fn an_error_of_which_nobody_hears_ends_the_connection() {
    for upgrades in [false, true] {
        let mut t = sending(move |ctx| {
            send_from(ctx, Source { left: 0, piece: 1, fails: true });
            ctx.send("end");
            if upgrades {
                ctx.upgrade(recorder(quiet as On));
            } else {
                ctx.close();
            }
        });
        assert_eq!(t.sent(), b"");
        let calls = t.calls();
        let Some(Call::Closed(why)) = calls.last() else { panic!("{calls:?}") };
        assert!(why.contains("the disk is broken"), "{why}");
    }
}
