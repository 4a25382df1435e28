//! The reader of what a stream writes has gone: the other direction is read to its end, and what was lost is the reason.

use super::{BROKEN, Guest, end_of, ends, pipe, shell};
use crate::common::{Call, Ctx, Journal, assert_sleeps, by_default, count, is_alone, recorder, settle, until_net};
use mainspring::{Adopted, Outcome, Reactor, Reason};
use std::{
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

/// More than a pipe or a Unix socket takes.
const MUCH: usize = 4 << 20;

/// A pair of pipes, and their other ends: what it reads from, and what it writes to.
fn pipes() -> (Adopted, File, File) {
    let ((read, input), (output, write)) = (pipe(), pipe());
    (Adopted::pair(read, write), input.into(), output.into())
}

fn sockets() -> (Adopted, File, File) {
    let ((read, input), (output, write)) = (UnixStream::pair().expect("a pair"), UnixStream::pair().expect("a pair"));
    (Adopted::pair(read, write), OwnedFd::from(input).into(), OwnedFd::from(output).into())
}

fn socket_and_pipe() -> (Adopted, File, File) {
    let ((read, input), (output, write)) = (UnixStream::pair().expect("a pair"), pipe());
    (Adopted::pair(read, write), OwnedFd::from(input).into(), output.into())
}

fn pipe_and_socket() -> (Adopted, File, File) {
    let ((read, input), (output, write)) = (pipe(), UnixStream::pair().expect("a pair"));
    (Adopted::pair(read, write), input.into(), OwnedFd::from(output).into())
}

const KINDS: [(&str, fn() -> (Adopted, File, File)); 4] =
    [("pipes", pipes), ("sockets", sockets), ("socket and pipe", socket_and_pipe), ("pipe and socket", pipe_and_socket)];

#[test]
fn nothing_lost_ends_with_the_reader() {
    for (what, kind) in KINDS {
        let (stream, mut input, mut output) = kind();
        let mut guest = Guest::new(stream, by_default);
        assert!(guest.send("all of it"), "{what}");
        guest.turn();
        output.read_exact(&mut [0; 9]).expect("it was sent");
        drop(output);
        settle(&mut guest.reactor, &mut guest.journal);
        assert!(!guest.is_closed(), "{what}: its reader lives");
        assert_sleeps(&mut guest.reactor, &mut guest.journal);
        input.write_all(b"more").expect("it is read");
        drop(input);
        assert_eq!(guest.end(), Reason::Eof.to_string(), "{what}");
        assert_eq!(guest.journal.received(), b"more", "{what}");
    }
}

#[test]
fn bytes_lost_are_the_reason_when_all_is_read() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        assert!(guest.send(vec![0; MUCH]), "{what}");
        guest.turn();
        drop(output);
        let key = guest.key;
        until_net(&mut guest.reactor, &mut guest.journal, |net, _| net.link(key).expect("it is read").queued() == 0);
        assert!(!guest.send("more"), "{what}: refused");
        assert!(guest.reactor.net().link(key).expect("it is read").is_congested(), "{what}: whoever asks first stops");
        assert_sleeps(&mut guest.reactor, &mut guest.journal);
        for _ in 0..100 {
            input.write_all(&[7; 10_000]).expect("it is read");
            guest.turn();
        }
        drop(input);
        assert_eq!(guest.end(), BROKEN, "{what}");
        assert_eq!(guest.journal.received().len(), 1_000_000, "{what}");
        assert_eq!(count(&guest.journal, key, &Call::Writable), 0, "{what}: no room came");
    }
}

/// Nothing is written: the selector says it. Of a socket it does not.
#[test]
fn a_pipe_that_breaks_is_noticed_without_a_write() {
    for (what, kind) in [KINDS[0], KINDS[2]] {
        let (stream, input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        settle(&mut guest.reactor, &mut guest.journal);
        drop(output);
        let key = guest.key;
        until_net(&mut guest.reactor, &mut guest.journal, |net, _| net.link(key).expect("it is read").is_congested());
        assert!(!guest.send("refused"), "{what}");
        drop(input);
        assert_eq!(guest.end(), Reason::Eof.to_string(), "{what}");
    }
}

/// What a callback sends leaves when it is over.
#[test]
fn what_breaks_while_it_is_answered_is_read_on() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut output = Some(output);
        let mut guest = Guest::new(stream, move |ctx, journal, call| {
            if let Call::Received(_) = call {
                drop(output.take());
                ctx.send("answer");
                ctx.send("and more");
            }
            by_default(ctx, journal, call)
        });
        input.write_all(b"question").expect("there is room");
        guest.until(|journal| !journal.received().is_empty());
        for number in 1..=10 {
            input.write_all(b"question").expect("it is read");
            guest.until(|journal| journal.received().len() > 8 * number);
        }
        drop(input);
        assert_eq!(guest.end(), BROKEN, "{what}");
        assert_eq!(guest.journal.received().len(), 88, "{what}");
    }
}

/// A stream that does not read on while its own output is congested reads on when there is none any more.
#[test]
fn who_holds_back_goes_on() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut guest = Guest::new(stream, |ctx, journal, call| {
            if *call == Call::Connected {
                ctx.set_hold_back(true);
                ctx.send(vec![0; MUCH]);
            }
            by_default(ctx, journal, call)
        });
        input.write_all(b"held back").expect("there is room");
        settle(&mut guest.reactor, &mut guest.journal);
        assert_eq!(guest.journal.received(), b"", "{what}");
        drop(output);
        guest.until(|journal| journal.received() == b"held back");
        input.write_all(b", and on").expect("it is read");
        drop(input);
        assert_eq!(guest.end(), BROKEN, "{what}");
        assert_eq!(guest.journal.received(), b"held back, and on", "{what}");
    }
}

#[test]
fn who_has_paused_is_told_when_it_resumes() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut guest = Guest::new(stream, |ctx, journal, call| {
            if *call == Call::Connected {
                ctx.pause();
                ctx.send(vec![0; MUCH]);
            }
            by_default(ctx, journal, call)
        });
        input.write_all(b"last words").expect("there is room");
        drop((input, output));
        let key = guest.key;
        until_net(&mut guest.reactor, &mut guest.journal, |net, _| net.link(key).expect("it has paused").queued() == 0);
        settle(&mut guest.reactor, &mut guest.journal);
        assert!(!guest.is_closed(), "{what}");
        assert_sleeps(&mut guest.reactor, &mut guest.journal);
        guest.reactor.net().link(key).expect("it has paused").resume();
        assert_eq!(guest.end(), BROKEN, "{what}");
        assert_eq!(guest.journal.received(), b"last words", "{what}");
    }
}

#[test]
fn what_breaks_while_it_is_flushed_ends_with_that() {
    for (what, kind) in KINDS {
        let (stream, input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        assert!(guest.send(vec![0; MUCH]));
        assert!(guest.reactor.net().close(guest.key));
        guest.turn();
        assert!(!guest.is_closed(), "{what}: it is flushing");
        drop(output);
        assert_eq!(guest.end(), BROKEN, "{what}");
        drop(input);
    }
}

/// An end that was asked for and has not left is lost with what stands before it.
#[test]
fn what_breaks_after_a_half_close_is_read_on() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        assert!(guest.send(vec![0; MUCH]));
        assert!(guest.reactor.net().half_close(guest.key));
        guest.turn();
        drop(output);
        settle(&mut guest.reactor, &mut guest.journal);
        input.write_all(b"still").expect("it is read");
        guest.until(|journal| journal.received() == b"still");
        drop(input);
        assert_eq!(guest.end(), BROKEN, "{what}");
    }
}

/// One whom its congestion had kept from reading.
#[test]
fn who_is_throttled_by_it_goes_on() {
    for (what, kind) in KINDS {
        let (stream, input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        let writer = guest.key;
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let on = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| -> Outcome {
            match call {
                Call::Connected => ctx.throttle(writer),
                Call::Received(bytes) => _ = ctx.net.send(writer, bytes),
                _ => {}
            }
            by_default(ctx, journal, call)
        };
        let reader = guest.reactor.net().adopt(ours, recorder(on)).expect("a stream");
        guest.until(|journal| journal.of(reader).contains(&Call::Connected));
        assert!(guest.send(vec![0; MUCH]));
        guest.turn();
        theirs.write_all(b"waits").expect("there is room");
        settle(&mut guest.reactor, &mut guest.journal);
        assert_eq!(guest.journal.received(), b"", "{what}: it is throttled");
        drop(output);
        guest.until(|journal| journal.received() == b"waits");
        drop((theirs, input));
        assert_eq!(end_of(&mut guest.reactor, &mut guest.journal, reader), Reason::Eof.to_string(), "{what}");
        assert_eq!(guest.end(), BROKEN, "{what}");
    }
}

/// What is passed on to a child that reads no more: its own words still pass the other way.
#[test]
fn one_of_a_pair_passes_on_what_its_reader_says() {
    for (what, kind) in KINDS {
        let (stream, mut input, output) = kind();
        let mut guest = Guest::new(stream, by_default);
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let socket = guest.reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
        guest.until(|journal| journal.of(socket).contains(&Call::Connected));
        let key = guest.key;
        assert!(guest.reactor.net().pair(key, socket), "{what}");
        let talks = std::thread::spawn(move || {
            let written = theirs.write_all(&vec![1; MUCH]);
            let _ = theirs.shutdown(Shutdown::Write);
            let mut all = Vec::new();
            let _ = theirs.read_to_end(&mut all);
            (written.is_ok(), all)
        });
        settle(&mut guest.reactor, &mut guest.journal);
        drop(output);
        settle(&mut guest.reactor, &mut guest.journal);
        input.write_all(b"last words").expect("it is read");
        drop(input);
        guest.end();
        end_of(&mut guest.reactor, &mut guest.journal, socket);
        let (_, heard) = talks.join().expect("it has ended");
        assert_eq!(heard, b"last words", "{what}");
    }
}

/// What comes for it from its mate is lost, and so neither ends as if all had passed.
#[test]
fn what_a_pair_passes_on_to_a_broken_writer_is_lost() {
    for (is_said, why) in [(true, BROKEN.to_owned()), (false, Reason::Eof.to_string())] {
        let ((read, input), (output, write)) = (pipe(), pipe());
        let mut guest = Guest::new(Adopted::pair(read, write), by_default);
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let socket = guest.reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
        guest.until(|journal| journal.of(socket).contains(&Call::Connected));
        assert!(guest.reactor.net().pair(guest.key, socket));
        drop(output);
        settle(&mut guest.reactor, &mut guest.journal);
        if is_said {
            theirs.write_all(b"for nobody").expect("there is room");
            settle(&mut guest.reactor, &mut guest.journal);
        }
        drop(input);
        assert_eq!(guest.end(), why);
        let other = end_of(&mut guest.reactor, &mut guest.journal, socket);
        assert_eq!(other == Reason::Abort.to_string(), is_said, "{other}");
    }
}

/// What comes for it without an end would be thrown away without one.
#[test]
fn one_whose_mate_has_lost_its_writer_is_read_no_more() {
    let ((read, _input), (output, write)) = (pipe(), pipe());
    let mut guest = Guest::new(Adopted::pair(read, write), by_default);
    let zeros = File::open("/dev/zero").expect("null(4)");
    let source = guest.reactor.net().adopt(Adopted::reader(zeros), recorder(by_default)).expect("a stream");
    guest.until(|journal| journal.of(source).contains(&Call::Connected));
    assert!(guest.reactor.net().pair(guest.key, source));
    guest.turn();
    drop(output);
    settle(&mut guest.reactor, &mut guest.journal);
    let read = |reactor: &mut Reactor<Journal>| {
        let all = reactor.net().connections();
        all.iter().find(|one| one.key == source).map_or(0, |one| one.bytes_in)
    };
    let before = read(&mut guest.reactor);
    settle(&mut guest.reactor, &mut guest.journal);
    assert_eq!(read(&mut guest.reactor), before);
}

/// Nothing was asked, so there is no answer to be waited for.
#[test]
fn a_drain_does_not_wait_for_who_has_lost_its_writer() {
    let ((read, _input), (output, write)) = (pipe(), pipe());
    let mut guest = Guest::new(Adopted::pair(read, write), |ctx, journal, call| {
        if *call == Call::Draining {
            ctx.close_when_quiet();
        }
        by_default(ctx, journal, call)
    });
    drop(output);
    settle(&mut guest.reactor, &mut guest.journal);
    guest.reactor.net().drain(2 * crate::common::PATIENCE);
    assert_eq!(guest.end(), Reason::Eof.to_string(), "it was the other side that ended first");
}

#[test]
fn what_was_read_of_what_is_never_read_is_refused() {
    let (_read, write) = pipe();
    let mut reactor = Reactor::new().expect("a selector");
    let refused = reactor.net().adopt(Adopted::writer(write).unread("of whom?"), recorder(by_default));
    assert_eq!(refused.expect_err("nobody could be given it").kind(), std::io::ErrorKind::InvalidInput);
}

/// A writer that nobody reads any more ends by itself.
#[test]
fn what_is_only_written_to_ends_when_its_reader_has_gone() {
    let (read, write) = pipe();
    let mut idle = Guest::new(Adopted::writer(write), by_default);
    settle(&mut idle.reactor, &mut idle.journal);
    drop(read);
    assert_eq!(idle.end(), Reason::Eof.to_string());
    assert_eq!(count(&idle.journal, idle.key, &Call::Eof(Vec::new())), 0, "nothing was heard that could end");

    let (read, write) = pipe();
    let mut busy = Guest::new(Adopted::writer(write), by_default);
    assert!(busy.send(vec![0; MUCH]));
    busy.turn();
    drop(read);
    assert_eq!(busy.end(), BROKEN);

    let (read, write) = pipe();
    drop(read);
    let (mut reactor, mut journal) = crate::common::start();
    let gone = reactor.net().adopt(Adopted::writer(write), recorder(by_default)).expect("a stream");
    assert_eq!(end_of(&mut reactor, &mut journal, gone), Reason::Eof.to_string());
    assert_eq!(journal.of(gone)[0], Call::Connected);

    let (read, write) = UnixStream::pair().expect("a pair");
    let mut socket = Guest::new(Adopted::writer(write), by_default);
    drop(read);
    socket.send("lost");
    assert_eq!(socket.end(), BROKEN);
}

/// It closes its standard input at once, and talks on.
#[test]
fn a_writer_that_breaks_leaves_its_reader_alone() {
    let mut talker = shell("exec <&-; sleep 0.1; echo one; sleep 0.1; echo two");
    let mut guest = Guest::new(ends(&mut talker), by_default);
    let why = guest.end();
    assert_eq!(guest.journal.received(), b"one\ntwo\n");
    assert_eq!(why, Reason::Eof.to_string());
    talker.wait().expect("it ended");
}

/// It reads a line of what it was sent, and no more.
#[test]
fn bytes_that_a_broken_writer_has_lost_are_the_reason_once_all_is_read() {
    let mut talker = shell("read line; exec <&-; echo $line; echo more");
    let mut guest = Guest::new(ends(&mut talker), |ctx, journal, call| {
        if *call == Call::Connected {
            ctx.send("one\n");
            ctx.send(vec![0; 300 << 10]);
        }
        by_default(ctx, journal, call)
    });
    let why = guest.end();
    assert_eq!(guest.journal.received(), b"one\nmore\n");
    assert_eq!(why, BROKEN);
    talker.wait().expect("it ended");
}

/// Looking whether it is broken takes a descriptor.
#[test]
fn what_breaks_is_noticed_where_no_descriptor_is_left() {
    if !is_alone("adopting::broken::what_breaks_is_noticed_where_no_descriptor_is_left", "ulimit -n 64;") {
        return;
    }
    let (read, write) = pipe();
    let mut guest = Guest::new(Adopted::writer(write), by_default);
    settle(&mut guest.reactor, &mut guest.journal);
    let mut all = Vec::new();
    let mut fill = || {
        while let Ok(file) = File::open("/dev/null") {
            all.push(file);
        }
    };
    fill();
    drop(read);
    fill();
    assert_eq!(guest.end(), Reason::Eof.to_string());
}
