//! Input that is written elsewhere.

use crate::common::{Call, Ctx, Journal, On, Recorded, Recorder, SECOND, dialogue, eof, frame, note, piece, quiet, recorder};
use mainspring::{
    Outcome, Terminator,
    testing::{Transcript, Weather},
};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

type Said = Arc<Mutex<Vec<String>>>;

/// Keeps what is written; fails once it is to have more than this much; says what becomes of it.
struct Disk {
    room: usize,
    kept: Vec<u8>,
    said: Said,
}

impl Disk {
    fn says(&self, what: &str) {
        self.said.lock().expect("nobody panics").push(format!("{what} {}", self.kept.len()));
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room - self.kept.len());
        if taken == 0 {
            return Err(io::Error::other("the disk is full"));
        }
        self.kept.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.says("flushed");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.says("dropped");
    }
}

/// Notes what comes of it.
fn save(ctx: &mut Ctx<'_>, room: usize, said: &Said) {
    let disk = Disk { room, kept: Vec::new(), said: Arc::clone(said) };
    ctx.save(disk, |_: &mut Recorder<On>, ctx, journal, saved| {
        let text = saved.map_or_else(|error| error.to_string(), |disk| format!("saved {}", disk.kept.escape_ascii()));
        note(journal, ctx.key, text);
        Ok(())
    });
}

/// With this terminator the next is saved.
fn saving(terminator: Terminator, room: usize) -> (Transcript<Recorder<On>, Journal>, Said) {
    let mut t = dialogue((|_, _, _| Ok(())) as On);
    let said = begin(&mut t, terminator, room);
    (t, said)
}

fn begin(t: &mut Transcript<Recorder<On>, Journal>, terminator: Terminator, room: usize) -> Said {
    let (key, said) = (t.key(), Said::default());
    let disk = Arc::clone(&said);
    t.scene().net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(terminator);
        save(ctx, room, &disk);
        Ok(())
    });
    t.settles();
    said
}

#[track_caller]
fn assert_said(said: &Said, expected: &[&str]) {
    assert_eq!(*said.lock().expect("nobody panics"), expected);
}

#[test]
fn a_stream_is_saved_up_to_its_end_which_comes_after_what_follows() {
    let (mut t, said) = saving(Terminator::None, 1000);
    t.receives("one").receives("two").gets_nothing();
    t.peer_ends().gets(&[frame("saved onetwo"), eof("")]);
    assert_said(&said, &["flushed 6", "dropped 6"]);
}

#[test]
fn so_many_bytes_are_saved_and_what_comes_behind_is_delivered() {
    let (mut t, _) = saving(Terminator::Stream(5), 1000);
    t.receives("12345rest").gets(&[frame("saved 12345"), piece("rest")]);
    let (mut t, _) = saving(Terminator::Stream(0), 1000);
    t.gets(&[frame("saved ")]).receives("rest").gets(&[piece("rest")]);
}

#[test]
fn what_comes_up_to_a_delimiter_is_saved_however_it_is_cut_and_again_and_again() {
    for bytewise in [false, true] {
        let (mut t, _) = saving(Terminator::stream_until(&b"\r\n.\r\n"[..]), 1000);
        let text = "one\r\n..\r\n.\r\n";
        if bytewise {
            t.receives_bytewise(text)
        } else {
            t.receives(text)
        };
        t.gets(&[frame("saved one\\r\\n..")]);
        begin(&mut t, Terminator::stream_until(&b"."[..]), 1000);
        t.receives("two.").gets(&[frame("saved two")]);
    }
}

#[test]
fn a_whole_frame_is_saved_too() {
    let (mut t, _) = saving(Terminator::line(100), 1000);
    t.receives("one\ntwo\n").gets(&[frame("saved one"), frame("two")]);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error_and_the_writer_goes() {
    let (mut t, said) = saving(Terminator::Stream(5), 1000);
    t.receives("123").peer_ends().gets(&[frame("the stream ended within a frame"), eof("")]);
    assert_said(&said, &["flushed 3", "dropped 3"]);
}

#[test]
fn an_error_of_the_writer_is_told_and_what_still_comes_is_delivered() {
    let (mut t, said) = saving(Terminator::Stream(10), 4);
    t.receives("123456").gets(&[frame("the disk is full")]);
    assert_said(&said, &["dropped 4"]);
    t.receives("7890").gets(&[piece("7890"), frame("")]).receives("x").gets(&[piece("x")]);
}

/// Two pieces are in memory, and no more.
#[test]
fn who_sends_faster_than_the_disk_writes_waits() {
    let (mut t, _) = saving(Terminator::None, 10_000_000);
    t.scene().set_weather(Weather::fair().work(SECOND).window(4_000_000));
    t.receives(vec![b'x'; 3_000_000]);
    let mut most = 0;
    for _ in 0..20 {
        let connection = t.scene().net().connections().remove(0);
        most = most.max(connection.bytes_in);
        if connection.bytes_in < 3_000_000 {
            assert!(connection.bytes_in <= 1_300_000 || most > 1_300_000, "{}", connection.bytes_in);
        }
        t.passes(SECOND);
    }
    t.peer_ends().passes(20 * SECOND);
    let calls = t.calls();
    assert!(matches!(&calls[..], [Call::Frame(saved), Call::Eof(_)] if saved.len() == 3_000_006), "{} calls", calls.len());
}

#[test]
fn a_connection_that_is_lost_drops_the_writer_once_it_has_what_was_given() {
    let (mut t, said) = saving(Terminator::None, 1000);
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.receives("one");
    let calls = t.peer_resets().calls();
    assert!(matches!(calls[..], [Call::Closed(_)]), "{calls:?}");
    assert_said(&said, &[]);
    t.scene().passes(3 * SECOND);
    assert_said(&said, &["dropped 3"]);
}

/// Whatever speaks to it meanwhile reaches it, and it can answer.
#[test]
fn everything_but_input_goes_to_the_protocol_meanwhile() {
    let (mut t, _) = saving(Terminator::None, 1000);
    let key = t.key();
    t.receives("one");
    assert!(t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, journal| {
        note(journal, ctx.key, "told");
        ctx.send("answer");
        Ok(())
    }));
    t.gets(&[frame("told")]).sends("answer").link(|link| link.set_deadline(SECOND)).passes(SECOND);
    t.gets(&[Call::Exceeded(mainspring::Limit::Deadline)]).peer_ends().gets(&[frame("saved one"), eof("")]);
}

/// The protocol had half-closed: its peer's end would have been the end of all, before anything was saved.
#[test]
fn a_stream_of_which_we_have_closed_our_half_is_saved_whole() {
    let (mut t, _) = saving(Terminator::None, 1000);
    t.scene().set_weather(Weather::fair().work(SECOND));
    t.link(|link| link.half_close()).receives("one").peer_ends().gets_nothing();
    t.passes(3 * SECOND);
    let calls = t.calls();
    assert!(matches!(&calls[..], [saved, end, Call::Closed(_)] if *saved == frame("saved one") && *end == eof("")), "{calls:?}");
}

#[test]
fn a_second_save_before_the_first_has_ended_ends_the_connection_and_says_why() {
    let (mut t, said) = saving(Terminator::None, 1000);
    t.receives("one");
    begin(&mut t, Terminator::None, 1000);
    let calls = t.calls();
    let [Call::Closed(why)] = &calls[..] else { panic!("{calls:?}") };
    assert!(why.contains("`save` while"), "{why}");
    t.scene().passes(SECOND);
    assert_said(&said, &["dropped 3"]);
}

/// The next save is begun by what follows the one before, as often as one likes.
#[test]
fn what_follows_may_save_again() {
    fn again(ctx: &mut Ctx<'_>, left: usize) {
        ctx.set_terminator(Terminator::Stream(1));
        ctx.save(Vec::new(), move |_: &mut Recorder<On>, ctx, journal, saved| -> Outcome {
            note(journal, ctx.key, String::from_utf8_lossy(&saved?));
            if left > 0 {
                again(ctx, left - 1);
            }
            Ok(())
        });
    }
    let mut t = dialogue((|_, _, _| Ok(())) as On);
    let key = t.key();
    t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        again(ctx, 2);
        Ok(())
    });
    t.receives("abcd").gets(&[frame("a"), frame("b"), frame("c"), piece("d")]);
}

/// What came behind the frame that was given up went into the same writer, and that was called whole.
#[test]
fn a_frame_that_takes_too_long_ends_the_saving_with_that() {
    for terminator in [Terminator::Stream(10), Terminator::stream_until(&b"."[..])] {
        let (mut t, said) = saving(terminator, 1000);
        t.link(|link| link.set_frame_timeout(SECOND)).receives("12345").passes(2 * SECOND);
        t.gets(&[Call::Exceeded(mainspring::Limit::FrameTime), frame(mainspring::Limit::FrameTime.to_string())]);
        assert_said(&said, &["flushed 5", "dropped 5"]);
    }
}

#[test]
fn a_frame_that_is_too_long_ends_the_saving_with_that() {
    let (mut t, _) = saving(Terminator::line(3), 1000);
    t.receives("too long\nok\n");
    t.gets(&[Call::Exceeded(mainspring::Limit::FrameBytes), frame(mainspring::Limit::FrameBytes.to_string()), frame("ok")]);
}

/// What was put back is what comes next.
#[test]
fn what_was_put_back_is_saved() {
    let mut t = dialogue(
        (|ctx, _, call| {
            if let Call::Received(bytes) = call {
                ctx.put_back(bytes.len());
                save(ctx, 1000, &Said::default());
            }
            Ok(())
        }) as On,
    );
    t.receives("one").peer_ends().gets(&[piece("one"), frame("saved one"), eof("")]);
}

#[test]
fn an_end_that_was_told_is_not_told_again() {
    let (mut t, _) = saving(Terminator::None, 1000);
    t.peer_ends().gets(&[frame("saved "), eof("")]);
    begin(&mut t, Terminator::None, 1000);
    t.gets(&[frame("saved ")]);
    begin(&mut t, Terminator::Stream(5), 1000);
    t.gets(&[frame("the stream ended within a frame")]);
}

/// The default of `draining` closed in the middle of it, with a clean reason.
#[test]
fn a_drain_waits_for_it() {
    let (mut t, _) = saving(Terminator::None, 1000);
    let key = t.key();
    t.receives("one").link(|link| {
        link.send("progress");
        link.close_when_quiet();
    });
    t.passes(SECOND).sends("progress");
    assert!(t.scene().net().is_open(key));
    t.receives("two").peer_ends().gets(&[frame("saved onetwo"), eof("")]);
}

/// A pair passes on what nobody else wants.
#[test]
fn a_pair_passes_on_what_comes_behind_it() {
    let (mut t, _) = saving(Terminator::Stream(3), 1000);
    let (key, (other, _peer)) = (t.key(), t.beside());
    let (mut t2, _) = (t, ());
    assert!(t2.scene().net().pair(key, other));
    t2.receives("onerest").gets(&[frame("saved one")]);
    assert_eq!(t2.scene().net().link(other).expect("open").unread(), 0);
}

/// What follows a save is told of the end before `eof`, and may put that off as ever.
#[test]
fn an_end_behind_what_is_saved_waits_while_reading_is_off() {
    let mut t = dialogue((|_, _, _| Ok(())) as On);
    let key = t.key();
    t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(Terminator::line(100));
        ctx.save(Vec::new(), |_: &mut Recorder<On>, ctx, journal, saved| {
            note(journal, ctx.key, saved.map_or_else(|error| error.to_string(), |_| "saved".to_owned()));
            assert_eq!(ctx.unread(), 4, "the tail");
            ctx.pause();
            Ok(())
        });
        Ok(())
    });
    t.receives("tail").peer_ends().gets(&[frame("the stream ended within a frame")]);
    t.link(|link| link.resume()).gets(&[eof("tail")]);
}

#[test]
fn what_is_left_at_the_end_is_cut_by_the_terminator_that_follows_a_save() {
    let mut t = dialogue((|_, _, _| Ok(())) as On);
    let key = t.key();
    t.scene().net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.set_terminator(Terminator::line(100));
        ctx.save(Vec::new(), |_: &mut Recorder<On>, ctx, _, _| {
            ctx.set_terminator(Terminator::exactly(3));
            Ok(())
        });
        Ok(())
    });
    t.receives("onetail").peer_ends().gets(&[frame("one"), piece("tail"), eof("")]);
}

/// As in `eof`; also if our half had ended before.
#[test]
fn a_successor_made_when_the_stream_is_saved_is_given_what_is_left_and_the_end() {
    for is_half_closed in [false, true] {
        let mut t = dialogue((|_, _, _| Ok(())) as On);
        let key = t.key();
        t.scene().net().tell(key, move |_: &mut Recorder<On>, ctx, _| {
            if is_half_closed {
                ctx.half_close();
            }
            ctx.set_terminator(Terminator::line(100));
            ctx.save(Vec::new(), |_: &mut Recorder<On>, ctx, _, _| {
                ctx.upgrade(recorder(quiet as On));
                Ok(())
            });
            Ok(())
        });
        let calls = t.receives("tail").peer_ends().calls();
        assert_eq!(calls[..3], [Call::Connected, piece("tail"), eof("")]);
        assert_eq!(calls.len(), 3 + usize::from(is_half_closed), "{calls:?}");
    }
}

/// It was given another piece all the same.
#[test]
fn who_closes_because_the_frame_is_too_long_saves_no_more() {
    let mut t = dialogue(
        (|ctx, _, call| {
            if let Call::Exceeded(_) = call {
                ctx.close();
            }
            Ok(())
        }) as On,
    );
    let said = begin(&mut t, Terminator::line(3), 1000);
    t.receives("too long\n").peer_ends();
    let calls = t.calls();
    assert!(matches!(calls[..], [Call::Exceeded(_), Call::Closed(_)]), "{calls:?}");
    t.scene().passes(SECOND);
    assert_said(&said, &["dropped 0"]);
}
