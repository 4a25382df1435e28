//! Whatever has bytes is a connection.

use super::{Guest, child, end_of, ends, is_nonblocking, pipe, tcp_pair, unix_pair};
use crate::common::{
    Call, Folder, Journal, PATIENCE, assert_sleeps, by_default, count, lines, ms, quiet, recorder, settle, turn, until,
};
use mainspring::{Adopted, Reactor, Reason, Terminator};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    io::{FdFlags, fcntl_getfd},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

#[test]
fn sockets_of_others_are_connections() {
    let descriptor = || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Adopted::from(OwnedFd::from(ours)), OwnedFd::from(theirs))
    };
    for (adopted, theirs) in [tcp_pair(), unix_pair(), descriptor()] {
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

fn fifo(folder: &Folder) -> PathBuf {
    let path = folder.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    path
}

#[test]
fn a_fifo_waits_for_its_first_writer_and_ends_with_the_last() {
    let folder = Folder::new("fifo");
    let path = fifo(&folder);
    let read = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).expect("it is there");
    let mut guest = Guest::new(Adopted::reader(read), by_default);
    settle(&mut guest.reactor, &mut guest.journal);
    assert!(!guest.is_closed(), "nobody has come yet");
    assert_sleeps(&mut guest.reactor, &mut guest.journal);
    let write = || File::options().write(true).open(&path).expect("somebody reads");
    let (mut one, mut other) = (write(), write());
    one.write_all(b"one").expect("there is room");
    guest.until(|journal| journal.received() == b"one");
    drop(one);
    settle(&mut guest.reactor, &mut guest.journal);
    assert!(!guest.is_closed(), "the other one has it still");
    other.write_all(b" other").expect("there is room");
    drop(other);
    assert_eq!(guest.end(), Reason::Eof.to_string());
    assert_eq!(guest.journal.received(), b"one other");
}

/// A drain asks everybody what has come: of a FIFO that nobody has opened, reading would say that it has ended.
#[test]
fn a_fifo_without_a_writer_is_drained() {
    let folder = Folder::new("fifo-drained");
    let path = fifo(&folder);
    let read = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).expect("it is there");
    let mut guest = Guest::new(Adopted::reader(read), by_default);
    guest.reactor.net().drain(ms(10_000));
    guest.end();
}

/// It never ends, nor does it ever say that there is nothing.
#[test]
fn what_never_ends_leaves_the_others_their_turn() {
    let (reader, writer) = (File::open("/dev/zero").expect("it is there"), File::create("/dev/null").expect("it is there"));
    let mut zeros = Guest::new(Adopted::pair(reader, writer), quiet);
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let other = zeros.reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
    theirs.write_all(b"hello").expect("there is room");
    zeros.until(|journal| journal.of(other).contains(&Call::Received(b"hello".into())));
    let key = zeros.key;
    zeros.reactor.net().link(key).expect("it is open").pause();
    zeros.turn();
    zeros.journal.calls.clear();
    assert_sleeps(&mut zeros.reactor, &mut zeros.journal);
    assert!(zeros.journal.of(key).is_empty(), "it is paused");
    zeros.reactor.net().link(key).expect("it is open").resume();
    zeros.until(|journal| !journal.of(key).is_empty());
    assert!(zeros.reactor.net().close(key));
    assert_eq!(zeros.end(), Reason::Finish.to_string());
}

#[test]
fn what_is_read_too_fast_is_throttled() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut guest = Guest::new(ours, quiet);
    let zeros = File::open("/dev/zero").expect("it is there");
    let to = guest.key;
    let on = move |ctx: &mut crate::common::Ctx<'_>, _: &mut Journal, call: &Call| {
        match call {
            Call::Connected => ctx.throttle(to),
            Call::Received(bytes) => _ = ctx.net.send(to, bytes),
            _ => {}
        }
        Ok(())
    };
    let zeros = guest.reactor.net().adopt(Adopted::reader(zeros), recorder(on)).expect("a stream");
    guest.until(|journal| journal.of(zeros).len() > 1);
    assert_sleeps(&mut guest.reactor, &mut guest.journal);
    let before = guest.journal.received().len();
    guest.read(&mut File::from(OwnedFd::from(theirs)), 8 << 20);
    assert!(guest.journal.received().len() > before, "it goes on when there is room");
}

#[test]
fn a_full_device_is_the_reason() {
    let full = || File::options().write(true).open("/dev/full").expect("it is there");
    for stream in [Adopted::writer(full()), Adopted::from(OwnedFd::from(full()))] {
        let mut guest = Guest::new(stream, by_default);
        assert!(guest.send("too much"));
        let why = guest.end();
        assert!(why.contains("No space left on device"), "{why}");
    }
    let mut pair = Guest::new(Adopted::pair(File::open("Cargo.toml").expect("it is there"), full()), |ctx, journal, call| {
        if *call == Call::Connected {
            ctx.send("too much");
        }
        by_default(ctx, journal, call)
    });
    let why = pair.end();
    assert!(why.contains("No space left on device"), "{why}");
    assert_eq!(pair.journal.received(), std::fs::read("Cargo.toml").expect("it is there"), "and all was read");
}

#[test]
fn a_file_is_read_and_written_where_it_stands() {
    let folder = Folder::new("where-it-stands");
    let path = folder.path("file");
    std::fs::write(&path, "one\ntwo\nthree\n").expect("a file");
    let open = || File::options().read(true).write(true).open(&path).expect("it is there");
    let mut file = open();
    file.seek(SeekFrom::Start(4)).expect("a file");
    let elsewhere = file.try_clone().expect("a descriptor");
    let mut reads = Guest::new(Adopted::reader(file), |ctx, journal, call| {
        lines(ctx, journal, call)?;
        by_default(ctx, journal, call)
    });
    assert_eq!(reads.end(), Reason::Eof.to_string());
    assert_eq!(reads.journal.frames(), ["two", "three"]);
    assert!(!is_nonblocking(&elsewhere), "of a file that would only be seen by others");

    let mut file = open();
    file.seek(SeekFrom::Start(4)).expect("a file");
    let mut writes = Guest::new(Adopted::writer(file), by_default);
    assert!(writes.send("TWO"));
    assert!(writes.reactor.net().close(writes.key));
    assert_eq!(writes.end(), Reason::Finish.to_string());
    assert_eq!(std::fs::read(&path).expect("a file"), b"one\nTWO\nthree\n");

    let mut both = Guest::new(OwnedFd::from(open()), |ctx, journal, call| {
        if let Call::Eof(_) = call {
            ctx.send("four\n");
        }
        by_default(ctx, journal, call)
    });
    assert_eq!(both.end(), Reason::Eof.to_string());
    assert_eq!(both.journal.received(), b"one\nTWO\nthree\n");
    assert_eq!(std::fs::read(&path).expect("a file"), b"one\nTWO\nthree\nfour\n");
}

#[test]
fn what_is_adopted_does_not_block_and_stays_with_us() {
    let (read, write) = pipe();
    let (socket, _theirs) = UnixStream::pair().expect("a pair");
    let clones = [read.try_clone(), write.try_clone(), socket.as_fd().try_clone_to_owned()].map(|fd| fd.expect("a descriptor"));
    for fd in [&read, &write] {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).expect("fcntl(2)");
    }
    rustix::io::fcntl_setfd(&socket, FdFlags::empty()).expect("fcntl(2)");
    let mut guest = Guest::new(Adopted::pair(read, write), quiet);
    let other = guest.reactor.net().adopt(socket, recorder(quiet)).expect("a stream");
    for fd in &clones {
        assert!(is_nonblocking(fd));
    }
    let key = guest.key;
    let closes = guest.reactor.net().link(other).expect("it is open").with_socket(|socket| fcntl_getfd(&*socket));
    assert_eq!(closes.expect("a socket").expect("fcntl(2)"), FdFlags::CLOEXEC);
    assert!(guest.reactor.net().detach(key));
    // /proc shows which of them a child would have got: the flag is the descriptor's, not the open file's.
    assert!(guest.end().starts_with("detached"));
}

/// Our side, and the name of the other.
fn terminal() -> (OwnedFd, std::ffi::CString) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    (master, name)
}

fn other_side(name: &std::ffi::CStr, flags: OFlags) -> File {
    open(name, OFlags::RDWR | OFlags::NOCTTY | flags, Mode::empty()).expect("it is there").into()
}

#[test]
fn a_pseudo_terminal_is_a_stream_until_the_other_side_has_gone() {
    let (master, name) = terminal();
    let mut other = other_side(&name, OFlags::empty());
    let mut guest = Guest::new(master, |ctx, journal, call| {
        lines(ctx, journal, call)?;
        by_default(ctx, journal, call)
    });
    other.write_all(b"one\ntwo\n").expect("there is room");
    guest.until(|journal| journal.frames() == ["one", "two"]);
    assert!(guest.send("typed\n"));
    guest.until(|journal| journal.frames().len() == 3);
    assert_eq!(guest.journal.frames()[2], "typed", "which is its echo");
    let mut buf = [0; 99];
    let bytes = other.read(&mut buf).expect("it is there");
    assert_eq!(&buf[..bytes], b"typed\n");
    drop(other);
    assert_eq!(guest.end(), Reason::Eof.to_string(), "EIO is its end");
}

#[test]
fn half_closed_a_pseudo_terminal_is_only_read() {
    let (master, name) = terminal();
    let mut other = other_side(&name, OFlags::empty());
    let mut guest = Guest::new(master, quiet);
    let key = guest.key;
    assert!(guest.reactor.net().half_close(key));
    guest.turn();
    assert!(!guest.send("no"));
    other.write_all(b"still").expect("there is room");
    guest.until(|journal| journal.received() == b"still");
    drop(other);
    assert_eq!(guest.end(), Reason::Finish.to_string());
}

/// Without an end of ours the stream stays, and whoever opens the other side is heard.
#[test]
fn the_other_side_of_a_pseudo_terminal_opens_again_before_we_look() {
    let (master, name) = terminal();
    let ours = master.try_clone().expect("a descriptor");
    let mut guest = Guest::new(master, quiet);
    drop(other_side(&name, OFlags::empty()));
    guest.until(|journal| journal.has(&Call::Eof(Vec::new())));
    assert!(!guest.is_closed(), "it was told the end, and stays");
    assert_sleeps(&mut guest.reactor, &mut guest.journal);
    let mut again = other_side(&name, OFlags::empty());
    again.write_all(b"again\n").expect("there is room");
    settle(&mut guest.reactor, &mut guest.journal);
    assert_eq!(count(&guest.journal, guest.key, &Call::Eof(Vec::new())), 1);
    drop(guest);
    let mut next = Guest::new(ours, quiet);
    next.until(|journal| journal.received() == b"again\r\n");
}

#[test]
fn a_terminal_that_was_opened_for_us_alone_is_taken() {
    let (master, name) = terminal();
    let mut guest = Guest::new(OwnedFd::from(other_side(&name, OFlags::NONBLOCK)), |ctx, journal, call| {
        lines(ctx, journal, call)?;
        by_default(ctx, journal, call)
    });
    File::from(master.try_clone().expect("a descriptor")).write_all(b"typed\n").expect("there is room");
    guest.until(|journal| journal.frames() == ["typed"]);
    drop(master);
    guest.end();
}

/// Both read the same pipe; what one has got the other has not.
#[test]
fn the_same_pipe_is_adopted_twice() {
    let (read, write) = pipe();
    let mut one = Guest::new(Adopted::reader(read.try_clone().expect("a descriptor")), by_default);
    let other = one.reactor.net().adopt(Adopted::reader(read), recorder(by_default)).expect("a stream");
    let mut write = File::from(write);
    for byte in 0..100 {
        write.write_all(&[byte]).expect("there is room");
        one.until(|journal| journal.received().len() == usize::from(byte) + 1);
    }
    drop(write);
    assert_eq!(end_of(&mut one.reactor, &mut one.journal, other), Reason::Eof.to_string());
    assert_eq!(one.end(), Reason::Eof.to_string());
    assert_eq!(one.journal.received(), (0..100).collect::<Vec<u8>>());
}

/// Closing ours is not enough for that.
#[test]
fn the_peer_of_what_others_keep_a_duplicate_of_is_told_its_end() {
    for peer_ends_first in [true, false] {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let kept = ours.try_clone().expect("a descriptor");
        if peer_ends_first {
            theirs.shutdown(Shutdown::Write).expect("it is connected");
        }
        let mut guest = Guest::new(ours, |ctx, _, call| {
            match call {
                Call::Connected => {
                    ctx.send("all");
                }
                Call::Received(_) => return Err("on purpose".into()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        });
        if !peer_ends_first {
            theirs.write_all(b"?").expect("there is room");
        }
        guest.end();
        theirs.set_read_timeout(Some(PATIENCE)).expect("setsockopt(2)");
        let mut all = String::new();
        theirs.read_to_string(&mut all).expect("it ends");
        assert_eq!(all, "all");
        drop(kept);
    }
}

/// epoll(7) keeps what it was told of an open file until the last duplicate is gone.
#[test]
fn what_others_keep_a_duplicate_of_is_forgotten_when_it_is_closed() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp = || {
        let theirs = TcpStream::connect(tcp.local_addr().expect("it listens")).expect("it listens");
        let ours = tcp.accept().expect("somebody came").0;
        (Adopted::from(ours.try_clone().expect("a descriptor")), OwnedFd::from(ours), OwnedFd::from(theirs))
    };
    let unix = |how: fn(OwnedFd) -> Adopted| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (how(ours.try_clone().expect("a descriptor").into()), OwnedFd::from(ours), OwnedFd::from(theirs))
    };
    let (read, write) = pipe();
    let read_end = (Adopted::reader(read.try_clone().expect("a descriptor")), read, write);
    let all = [tcp(), unix(|fd| fd.into()), unix(|fd| UnixStream::from(fd).into()), unix(Adopted::reader), read_end];
    for (number, (ours, kept, theirs)) in all.into_iter().enumerate() {
        let mut guest = Guest::new(ours, quiet);
        settle(&mut guest.reactor, &mut guest.journal);
        let key = guest.key;
        assert!(guest.reactor.net().abort(key));
        guest.end();
        let (events, stale) = (guest.reactor.stats().events, guest.reactor.stats().stale_events);
        let mut theirs = File::from(theirs);
        theirs.write_all(b"for whoever has it now").expect("there is room");
        assert_sleeps(&mut guest.reactor, &mut guest.journal);
        assert_eq!((guest.reactor.stats().events, guest.reactor.stats().stale_events), (events, stale), "{number}");
        let mut buf = [0; 99];
        let bytes = File::from(kept).read(&mut buf).expect("it is open still");
        assert_eq!(&buf[..bytes], b"for whoever has it now", "{number}");
    }
}
