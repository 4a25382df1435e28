//! Readers that wait for writers.

use crate::common::{Call, Ctx, Journal, SECOND, STUFFED, closed, frame, lines, piece, quiet, recorder};
use mainspring::{
    Config, Key, Outcome, Reason,
    testing::{Actor, Scene},
};

/// A reactor with some guests.
struct Hall {
    scene: Scene<Journal>,
    guests: u16,
}

impl Hall {
    fn new() -> Self {
        Self { scene: Scene::with_config(0, Journal::default(), Config::new().linger_max(SECOND)), guests: 0 }
    }

    fn guest<F>(&mut self, on: F) -> (Key, Actor)
    where
        F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static,
    {
        self.guests += 1;
        let at = format!("127.0.0.1:{}", self.guests);
        self.scene.net().listen(&*at, move || recorder(on.clone())).expect("a simulated port is free");
        let peer = self.scene.dials(&at);
        let (key, call) = self.scene.state().calls.pop().expect("it was called");
        assert_eq!(call, Call::Connected);
        (key, peer)
    }

    /// A guest that reads nothing of all that was sent to it.
    fn stuffed(&mut self) -> (Key, Actor) {
        let (key, peer) = self.guest(quiet);
        self.scene.reads(peer, false).net().send(key, vec![b'.'; STUFFED]);
        assert!(self.scene.settles().net().link(key).expect("it is open").is_congested());
        (key, peer)
    }

    fn drains(&mut self, peer: Actor) {
        assert_eq!(self.scene.reads(peer, true).takes(peer).len(), STUFFED);
    }

    /// It was called with exactly this, all in all.
    #[track_caller]
    fn assert_got(&mut self, key: Key, calls: &[Call]) {
        assert_eq!(self.scene.settles().state().of(key), calls);
    }
}

#[test]
fn a_writer_holds_several_readers() {
    let mut hall = Hall::new();
    let (writer, sink) = hall.stuffed();
    let readers = [0; 3].map(|_| hall.guest(quiet));
    for (reader, peer) in readers {
        assert!(hall.scene.net().throttle(reader, writer));
        hall.scene.says(peer, "x");
        hall.assert_got(reader, &[]);
    }
    hall.drains(sink);
    for (reader, _) in readers {
        hall.assert_got(reader, &[piece("x")]);
    }
}

#[test]
fn a_reader_hangs_on_several_writers() {
    let mut hall = Hall::new();
    let writers = [0; 3].map(|_| hall.stuffed());
    let (reader, peer) = hall.guest(quiet);
    for (writer, _) in writers {
        hall.scene.net().throttle(reader, writer);
    }
    hall.scene.says(peer, "x");
    for (_, sink) in writers {
        hall.assert_got(reader, &[]); // one of them is still congested
        hall.drains(sink);
    }
    hall.assert_got(reader, &[piece("x")]);
}

#[test]
fn a_throttle_lasts_until_its_writer_is_gone() {
    for polite in [false, true] {
        let mut hall = Hall::new();
        let (writer, _) = hall.stuffed();
        let (reader, peer) = hall.guest(quiet);
        hall.scene.net().throttle(reader, writer);
        hall.scene.says(peer, "x");
        hall.assert_got(reader, &[]);
        if polite {
            hall.scene.net().close(writer);
            hall.assert_got(reader, &[]);
            hall.scene.passes(SECOND);
        } else {
            hall.scene.net().abort(writer);
        }
        hall.assert_got(reader, &[piece("x")]);
    }
}

#[test]
fn a_throttle_lasts_until_its_reader_is_gone() {
    let mut hall = Hall::new();
    let (writer, sink) = hall.stuffed();
    let (reader, _) = hall.guest(quiet);
    hall.scene.net().throttle(reader, writer);
    hall.scene.net().abort(reader);
    hall.assert_got(reader, &[closed(&Reason::Abort)]);
    hall.drains(sink);
    hall.assert_got(writer, &[Call::Writable]);
}

#[test]
fn a_throttle_is_open_to_the_open_only() {
    let mut hall = Hall::new();
    let [(open, _), (gone, _)] = [0; 2].map(|_| hall.guest(quiet));
    hall.scene.net().abort(gone);
    let mut net = hall.scene.net();
    assert!(!net.throttle(open, gone) && !net.throttle(gone, open));
    net.unthrottle(open, gone);
}

#[test]
fn resume_lifts_the_pause_and_not_a_throttle() {
    let mut hall = Hall::new();
    let (reader, source) = hall.guest(quiet);
    let (writer, sink) = hall.stuffed();
    hall.scene.net().throttle(reader, writer);
    hall.scene.net().link(reader).expect("open").pause();
    hall.scene.says(source, "x").net().link(reader).expect("open").resume();
    hall.assert_got(reader, &[]); // the throttle still holds
    hall.drains(sink);
    hall.assert_got(reader, &[piece("x")]);
}

#[test]
fn a_throttle_that_is_lifted_leaves_the_pause() {
    let mut hall = Hall::new();
    let (reader, source) = hall.guest(quiet);
    let (writer, _) = hall.stuffed();
    hall.scene.net().throttle(reader, writer);
    hall.scene.net().link(reader).expect("open").pause();
    hall.scene.says(source, "x").net().unthrottle(reader, writer);
    hall.assert_got(reader, &[]); // the pause still holds
    hall.scene.net().link(reader).expect("open").resume();
    hall.assert_got(reader, &[piece("x")]);
}

#[test]
fn a_throttle_inside_frame_holds_what_is_buffered() {
    let mut hall = Hall::new();
    let (writer, sink) = hall.stuffed();
    let (reader, peer) = hall.guest(move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        if *call == frame("one") {
            ctx.throttle(writer);
        }
        Ok(())
    });
    hall.scene.says(peer, "one\ntwo\n");
    hall.assert_got(reader, &[frame("one")]);
    hall.drains(sink);
    hall.assert_got(reader, &[frame("one"), frame("two")]);
}

#[test]
fn a_target_that_becomes_congested_inside_frame_holds_what_is_buffered() {
    let mut hall = Hall::new();
    let (writer, sink) = hall.guest(quiet);
    let (reader, peer) = hall.guest(move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        match call {
            Call::Connected => ctx.throttle(writer),
            Call::Frame(line) if line == b"one" => _ = ctx.net.send(writer, vec![b'.'; STUFFED]),
            _ => {}
        }
        Ok(())
    });
    hall.scene.reads(sink, false).says(peer, "one\ntwo\n");
    hall.assert_got(reader, &[frame("one")]);
    hall.drains(sink);
    hall.assert_got(reader, &[frame("one"), frame("two")]);
}
