//! Whatever has bytes is a connection.

use crate::common::{Call, Journal, by_default, ms, recorder, turn, until};
use mainspring::{Adopted, Key, Reactor, Reason, Terminator};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

/// It has been told the end of it; how.
#[track_caller]
fn end_of(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key) -> String {
    until(reactor, journal, |journal| journal.of(key).iter().any(|call| matches!(call, Call::Closed(_))));
    match journal.of(key).pop() {
        Some(Call::Closed(why)) => why,
        other => panic!("`closed` is the last: {other:?}"),
    }
}

fn child(program: &str, arguments: &[&str]) -> Child {
    Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program")
}

fn ends(child: &mut Child) -> Adopted {
    Adopted::pair(child.stdout.take().expect("piped"), child.stdin.take().expect("piped"))
}

#[test]
fn sockets_of_others_are_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp = || {
        let theirs = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
        (Adopted::from(listener.accept().expect("somebody came").0), OwnedFd::from(theirs))
    };
    let unix = || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Adopted::from(ours), OwnedFd::from(theirs))
    };
    let descriptor = || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Adopted::from(OwnedFd::from(ours)), OwnedFd::from(theirs))
    };
    for (adopted, theirs) in [tcp(), unix(), descriptor()] {
        let mut reactor = Reactor::new().expect("a selector");
        let mut journal = Journal::default();
        let key = reactor
            .net()
            .adopt(
                adopted,
                recorder(|ctx, _, call| {
                    if let Call::Received(bytes) = call {
                        ctx.send(bytes);
                    }
                    by_default(ctx, &mut Journal::default(), call)
                }),
            )
            .expect("a stream");
        let mut theirs = File::from(theirs);
        theirs.write_all(b"hello").expect("it is open");
        until(&mut reactor, &mut journal, |journal| journal.received() == b"hello");
        let mut buf = [0; 5];
        turn(&mut reactor, &mut journal, ms(0));
        theirs.read_exact(&mut buf).expect("it was answered");
        assert_eq!(&buf, b"hello");
        drop(theirs);
        assert_eq!(end_of(&mut reactor, &mut journal, key), Reason::Eof.to_string());
        assert_eq!(journal.of(key)[0], Call::Connected);
    }
}

#[test]
fn a_childs_output_and_input_are_one_stream() {
    let mut sort = child("sort", &["-n"]);
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let adopted = ends(&mut sort);
    let key = reactor
        .net()
        .adopt(
            adopted,
            recorder(|ctx, _, call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::line(99));
                    for number in (0..20_000).rev() {
                        writeln!(ctx, "{number}");
                    }
                    ctx.half_close();
                }
                by_default(ctx, &mut Journal::default(), call)
            }),
        )
        .expect("a pair of pipes");
    let why = end_of(&mut reactor, &mut journal, key);
    let sorted: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    assert_eq!(journal.frames(), sorted);
    assert_eq!(why, Reason::Finish.to_string());
    assert!(sort.wait().expect("it ended").success());
}

/// It closes its standard input at once, and talks on.
#[test]
fn a_writer_that_breaks_leaves_its_reader_alone() {
    let mut talker = child("sh", &["-c", "exec <&-; sleep 0.1; echo one; sleep 0.1; echo two"]);
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let adopted = ends(&mut talker);
    let key = reactor.net().adopt(adopted, recorder(by_default)).expect("a pair of pipes");
    let why = end_of(&mut reactor, &mut journal, key);
    assert_eq!(journal.received(), b"one\ntwo\n");
    assert_eq!(why, Reason::Eof.to_string());
    talker.wait().expect("it ended");
}

/// It reads a line of what it was sent, and no more.
#[test]
fn bytes_that_a_broken_writer_has_lost_are_the_reason_once_all_is_read() {
    let mut talker = child("sh", &["-c", "read line; exec <&-; echo $line; echo more"]);
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let adopted = ends(&mut talker);
    let protocol = recorder(|ctx, _, call| {
        if *call == Call::Connected {
            ctx.send("one\n");
            ctx.send(vec![0; 300 << 10]);
        }
        by_default(ctx, &mut Journal::default(), call)
    });
    let key = reactor.net().adopt(adopted, protocol).expect("a pair of pipes");
    let why = end_of(&mut reactor, &mut journal, key);
    assert_eq!(journal.received(), b"one\nmore\n");
    assert!(why.starts_with("connection lost: Broken pipe"), "{why}");
    talker.wait().expect("it ended");
}

#[test]
fn files_are_read_to_their_end() {
    for path in ["Cargo.toml", "/dev/null"] {
        let file = File::open(path).expect("it is there");
        let mut reactor = Reactor::new().expect("a selector");
        let mut journal = Journal::default();
        let key = reactor.net().adopt(OwnedFd::from(file), recorder(by_default)).expect("a stream");
        assert_eq!(end_of(&mut reactor, &mut journal, key), Reason::Eof.to_string());
        assert_eq!(journal.received(), std::fs::read(path).expect("it is there"));
    }
}

/// It is open for writing, and what is written fails.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_taken_over_and_is_full_for_who_writes() {
    let full = File::options().write(true).open("/dev/full").expect("full(4)");
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let protocol = recorder(|ctx, _, call| {
        if *call == Call::Connected {
            ctx.send("one");
        }
        by_default(ctx, &mut Journal::default(), call)
    });
    let key = reactor.net().adopt(Adopted::writer(full), protocol).expect("a stream");
    let why = end_of(&mut reactor, &mut journal, key);
    assert!(why.starts_with("connection lost: No space left on device"), "{why}");
}
