//! What lingers after a polite end, and what is gone at once.

use super::{Guest, end_of, ends, pipe, shell, tcp_pair, unix_pair};
use crate::common::{Call, Folder, by_default, ms, recorder, run_out, settle, start_with, until};
use mainspring::{Adopted, Config, Reactor, Reason};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Instant,
};

fn write_nonblocking(file: &mut File, bytes: &[u8]) -> Option<ErrorKind> {
    socket2::SockRef::from(&*file).set_nonblocking(true).expect("fcntl(2)");
    file.write(bytes).err().map(|error| error.kind())
}

/// It talks after its input has ended; whoever went away at once would have it killed.
#[test]
fn a_child_that_talks_on_after_a_polite_close_is_heard_out() {
    let folder = Folder::new("heard-out");
    let done = folder.path("done");
    let script = format!("cat >/dev/null; head -c 1000000 /dev/zero && echo fine >{}", done.display());
    let mut talker = shell(&script);
    let mut guest = Guest::new(ends(&mut talker), by_default);
    assert!(guest.send("all"));
    assert!(guest.reactor.net().close(guest.key));
    assert_eq!(guest.end(), Reason::Finish.to_string());
    assert_eq!(guest.reactor.stats().lingering, 1);
    until(&mut guest.reactor, &mut guest.journal, |_| talker.try_wait().expect("it is ours").is_some());
    assert!(talker.wait().expect("it ended").success(), "nobody sent it SIGPIPE");
    assert_eq!(std::fs::read(done).expect("it got there"), b"fine\n");
    run_out(&mut guest.reactor, &mut guest.journal);
    assert_eq!(guest.reactor.stats().lingering, 0, "gone with the child");
    assert!(guest.journal.received().is_empty(), "nobody was told");
}

/// Also one that never ends, but not for ever.
#[test]
fn a_pair_of_pipes_lingers_no_longer_than_it_may() {
    for how in [0, 1] {
        let (mut reactor, mut journal) = start_with(Config::new().linger_max(ms(100)));
        let ((read, input), (output, write)) = (pipe(), pipe());
        let (mut input, mut output) = (File::from(input), File::from(output));
        let key = reactor.net().adopt_pair(read, write, recorder(by_default)).expect("a pair of pipes");
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        if how == 1 {
            assert!(reactor.net().half_close(key)); // which has ended it already
            settle(&mut reactor, &mut journal);
        }
        let began = Instant::now();
        assert!(reactor.net().close(key));
        end_of(&mut reactor, &mut journal, key);
        assert_eq!(output.read(&mut [0]).expect("its end"), 0, "that is sent at once");
        assert_eq!(reactor.stats().lingering, 1);
        let mut error = None;
        until(&mut reactor, &mut journal, |_| {
            error = write_nonblocking(&mut input, &[0; 4096]);
            error.is_some()
        });
        assert_eq!(error, Some(ErrorKind::BrokenPipe), "what was written before was taken, however much it was");
        assert!(began.elapsed() >= ms(100));
        assert_eq!(reactor.stats().lingering, 0);
    }
}

fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let other = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty()).expect("the other side");
    (master, other.into())
}

/// What is typed next is the shell's.
#[test]
fn terminals_files_and_ends_are_gone_at_once() {
    let folder = Folder::new("gone-at-once");
    let file = || File::options().create(true).truncate(false).read(true).write(true).open(folder.path("file")).expect("a file");
    let (master, other) = terminal();
    let other_fd = other.try_clone().expect("a descriptor");
    let ((read, _input), (_output, write)) = (pipe(), pipe());
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let all: [(&str, Adopted); 6] = [
        ("a terminal", OwnedFd::from(other).into()),
        ("a file", Adopted::writer(file())),
        ("the end of a pipe that is read", Adopted::reader(read)),
        ("the end of a pipe that is written to", Adopted::writer(write)),
        (
            "two devices",
            Adopted::pair(File::open("/dev/zero").expect("it is there"), File::create("/dev/null").expect("it is there")),
        ),
        ("a socket that is only read", Adopted::reader(ours)),
    ];
    for (what, stream) in all {
        let mut guest = Guest::new(stream, |_, _, _| Ok(()));
        guest.reactor.net().close(guest.key);
        guest.end();
        assert_eq!(guest.reactor.stats().lingering, 0, "{what}");
    }
    let mut master = File::from(master);
    master.write_all(b"ls\n").expect("there is room");
    let mut buf = [0; 9];
    let bytes = (&other_fd).read(&mut buf).expect("it was typed");
    assert_eq!(&buf[..bytes], b"ls\n");
}

/// The peer's bytes are taken until it ends.
#[test]
fn sockets_linger_as_ever() {
    let both = || {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Adopted::pair(ours.try_clone().expect("a descriptor"), ours), OwnedFd::from(theirs))
    };
    for (stream, theirs) in [tcp_pair(), unix_pair(), both()] {
        let mut guest = Guest::new(stream, by_default);
        guest.send("bye");
        guest.reactor.net().close(guest.key);
        assert_eq!(guest.end(), Reason::Finish.to_string());
        assert_eq!(guest.reactor.stats().lingering, 1);
        let mut theirs = File::from(theirs);
        theirs.write_all(b"late").expect("it is taken");
        assert_eq!(guest.read(&mut theirs, usize::MAX), b"bye", "then its end");
        drop(theirs);
        run_out(&mut guest.reactor, &mut guest.journal);
        settle(&mut guest.reactor, &mut guest.journal);
        assert_eq!(guest.reactor.stats().lingering, 0);
    }
}

/// A stream that is broken off waits for nobody.
#[test]
fn what_is_aborted_or_fails_is_gone_at_once() {
    for how in [0, 1] {
        let ((read, input), (output, write)) = (pipe(), pipe());
        let mut guest = Guest::new(Adopted::pair(read, write), by_default);
        match how {
            0 => guest.reactor.net().abort(guest.key),
            _ => guest.reactor.net().fail(guest.key, "of our own"),
        };
        guest.end();
        assert_eq!(guest.reactor.stats().lingering, 0);
        assert_eq!(File::from(output).read(&mut [0]).expect("its end"), 0);
        assert_eq!(write_nonblocking(&mut File::from(input), b"late"), Some(ErrorKind::BrokenPipe));
    }
}

/// A run waits for sockets that linger, and a child that has ended with its output unread is no reason to wait.
#[test]
fn a_run_ends_when_the_children_have() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Default::default();
    let mut echo = shell("read line; echo $line; exec >&-; read more");
    let key = reactor.net().adopt(
        ends(&mut echo),
        recorder(|ctx, _, call| {
            match call {
                Call::Connected => ctx.send("hello\n"),
                Call::Received(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        }),
    );
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.received(), b"hello\n");
    assert!(key.is_ok());
    assert!(!echo.wait().expect("it ended").success(), "`read` has met the end");
    assert_eq!(journal.closings(), 1);
}
