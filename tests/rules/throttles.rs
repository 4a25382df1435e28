//! Readers that wait for writers.

use crate::common::{
    Call, Ctx, Journal, SHORT, STUFF, ends_with, guest, lines, quiet, read_exactly, say, settle, start, start_with, stuff, until,
};
use mainspring::{Config, Reason};

#[test]
fn a_writer_holds_several_readers() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let readers: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    stuff(&mut reactor, &mut journal, writer);
    for (reader, peer) in &readers {
        assert!(reactor.net().throttle(*reader, writer));
        say(peer, "x");
    }
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"");
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"xxx");
}

#[test]
fn a_reader_hangs_on_several_writers() {
    let (mut reactor, mut journal) = start();
    let mut writers: Vec<_> = (0..3).map(|_| guest(&mut reactor, &mut journal, quiet)).collect();
    let (reader, peer) = guest(&mut reactor, &mut journal, quiet);
    for (writer, _) in &writers {
        stuff(&mut reactor, &mut journal, *writer);
        reactor.net().throttle(reader, *writer);
    }
    say(&peer, "x");
    for (_, sink) in &mut writers {
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.received(), b"", "one of them is still congested");
        read_exactly(&mut reactor, &mut journal, sink, STUFF);
    }
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_throttle_lasts_until_its_writer_is_gone() {
    for polite in [false, true] {
        let (mut reactor, mut journal) = start_with(Config::new().linger_max(SHORT));
        let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
        let (reader, peer) = guest(&mut reactor, &mut journal, quiet);
        stuff(&mut reactor, &mut journal, writer);
        reactor.net().throttle(reader, writer);
        say(&peer, "x");
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.received(), b"");
        if polite {
            reactor.net().close(writer)
        } else {
            reactor.net().abort(writer)
        };
        until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
    }
}

#[test]
fn a_throttle_lasts_until_its_reader_is_gone() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let (reader, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().abort(reader);
    ends_with(&mut reactor, &mut journal, reader, &Reason::Abort.to_string());
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
}

#[test]
fn a_throttle_is_open_to_the_open_only() {
    let (mut reactor, mut journal) = start();
    let (open, _peer) = guest(&mut reactor, &mut journal, quiet);
    let (gone, _other) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().abort(gone);
    let mut net = reactor.net();
    assert!(!net.throttle(open, gone) && !net.throttle(gone, open));
    net.unthrottle(open, gone);
}

#[test]
fn resume_lifts_the_pause_and_not_a_throttle() {
    let (mut reactor, mut journal) = start();
    let (reader, source) = guest(&mut reactor, &mut journal, quiet);
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().link(reader).expect("open").pause();
    say(&source, "x");
    reactor.net().link(reader).expect("open").resume();
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "the throttle still holds");
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_throttle_that_is_lifted_leaves_the_pause() {
    let (mut reactor, mut journal) = start();
    let (reader, source) = guest(&mut reactor, &mut journal, quiet);
    let (writer, _sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    reactor.net().throttle(reader, writer);
    reactor.net().link(reader).expect("open").pause();
    say(&source, "x");
    reactor.net().unthrottle(reader, writer);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.received(), b"", "the pause still holds");
    reactor.net().link(reader).expect("open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received() == b"x");
}

#[test]
fn a_throttle_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, writer);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        if *call == Call::Frame(b"one".to_vec()) {
            ctx.throttle(writer);
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.frames(), ["one"]);
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}

#[test]
fn a_target_that_becomes_congested_inside_frame_holds_what_is_buffered() {
    let (mut reactor, mut journal) = start();
    let (writer, mut sink) = guest(&mut reactor, &mut journal, quiet);
    let (_, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
        lines(ctx, journal, call)?;
        match call {
            Call::Connected => ctx.throttle(writer),
            Call::Frame(line) if line == b"one" => _ = ctx.net.send(writer, vec![b'.'; STUFF]),
            _ => {}
        }
        Ok(())
    });
    say(&peer, "one\ntwo\n");
    until(&mut reactor, &mut journal, |journal| !journal.frames().is_empty());
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.frames(), ["one"]);
    read_exactly(&mut reactor, &mut journal, &mut sink, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.frames() == ["one", "two"]);
}
