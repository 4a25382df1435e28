//! Standard input and output, which others have as well. Each test has a process of its own, which puts there what it likes.

use super::{BROKEN, Guest, is_nonblocking, pipe};
use crate::common::{
    Call, Folder, PATIENCE, by_default, is_alone, lines, ms, quiet, recorder, settle, skip, start, start_with, uninterrupted,
    until,
};
use mainspring::{Adopted, Config, Limit, Reason};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    stdio::{dup2_stdin, dup2_stdout},
};
use std::{
    fs::File,
    io::{ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What it was before comes back when this goes.
struct Instead(OwnedFd, fn(OwnedFd));

impl Instead {
    fn of_input(fd: impl AsFd) -> Self {
        let before = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        dup2_stdin(fd).expect("dup2(2)");
        Self(before, |before| dup2_stdin(before).expect("dup2(2)"))
    }

    fn of_output(fd: impl AsFd) -> Self {
        std::io::stdout().flush().expect("it is open");
        let before = std::io::stdout().as_fd().try_clone_to_owned().expect("a descriptor");
        dup2_stdout(fd).expect("dup2(2)");
        Self(before, |before| dup2_stdout(before).expect("dup2(2)"))
    }
}

impl Drop for Instead {
    fn drop(&mut self) {
        (self.1)(self.0.try_clone().expect("a descriptor"));
    }
}

fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    (master.into(), open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("the other side"))
}

fn sockets() -> (UnixStream, OwnedFd) {
    let (theirs, ours) = UnixStream::pair().expect("a pair");
    (theirs, ours.into())
}

#[test]
fn what_comes_is_read_whatever_it_is_and_nothing_of_it_is_changed() {
    if !is_alone("adopting::stdio::what_comes_is_read_whatever_it_is_and_nothing_of_it_is_changed", "") {
        return;
    }
    let (read, write) = pipe();
    let (theirs, ours) = sockets();
    for (fd, theirs) in [(read, File::from(write)), (ours, OwnedFd::from(theirs).into())] {
        let _instead = Instead::of_input(&fd);
        let mut theirs = theirs;
        let mut guest = Guest::new(Adopted::stdin().expect("it is read"), |ctx, journal, call| {
            lines(ctx, journal, call)?;
            by_default(ctx, journal, call)
        });
        assert!(!guest.send("refused"));
        for number in 1..=3 {
            theirs.write_all(b"line\n").expect("there is room");
            guest.until(|journal| journal.frames().len() == number);
        }
        assert!(!is_nonblocking(&fd));
        theirs.write_all(b"tail").expect("there is room");
        drop(theirs);
        assert_eq!(guest.end(), Reason::Eof.to_string());
        assert!(guest.journal.has(&Call::Eof(b"tail".into())));
        assert!(!is_nonblocking(&fd));
    }

    let (mut master, other) = terminal();
    let _instead = Instead::of_input(&other);
    let mut guest = Guest::new(Adopted::stdin().expect("it is read"), quiet);
    master.write_all(b"typed\n").expect("there is room");
    guest.until(|journal| journal.received() == b"typed\n");
    assert!(!is_nonblocking(&other));
    guest.reactor.net().close(guest.key);
    assert_eq!(guest.end(), Reason::Finish.to_string());
    assert_eq!(guest.reactor.stats().lingering, 0);
    master.write_all(b"ls\n").expect("there is room");
    let mut buf = [0; 9];
    let bytes = std::io::stdin().lock().read(&mut buf).expect("the shell reads on");
    assert_eq!(&buf[..bytes], b"ls\n");

    let _instead = Instead::of_input(File::open("/dev/null").expect("it is there"));
    assert_eq!(Guest::new(Adopted::stdin().expect("it is read"), by_default).end(), Reason::Eof.to_string());
}

#[test]
fn a_file_is_read_on_from_where_others_have_stopped() {
    if !is_alone("adopting::stdio::a_file_is_read_on_from_where_others_have_stopped", "") {
        return;
    }
    let folder = Folder::new("stdin");
    std::fs::write(folder.path("in"), "one\ntwo\n").expect("a file");
    let mut file = File::open(folder.path("in")).expect("a file");
    file.seek(SeekFrom::Start(4)).expect("a file");
    let _instead = Instead::of_input(&file);
    let mut guest = Guest::new(Adopted::stdin().expect("it is read"), by_default);
    assert_eq!(guest.end(), Reason::Eof.to_string());
    assert_eq!(guest.journal.received(), b"two\n");
    assert_eq!(file.stream_position().expect("a file"), 8, "who comes next reads on");
    assert!(!is_nonblocking(&file));
}

#[test]
fn nothing_that_was_written_is_written_over() {
    if !is_alone("adopting::stdio::nothing_that_was_written_is_written_over", "") {
        return;
    }
    let folder = Folder::new("stdout");
    let path = folder.path("out");
    std::fs::write(&path, "log\n").expect("a file");
    for appends in [false, true] {
        let mut file = File::options().write(true).append(appends).open(&path).expect("a file");
        if !appends {
            file.write_all(b"LOG\n").expect("a file"); // of whoever came before, as `(echo LOG; talk) > out` has it
        }
        {
            let _instead = Instead::of_output(&file);
            let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), by_default);
            assert!(guest.send("ours\n"));
            guest.reactor.net().close(guest.key);
            assert_eq!(guest.end(), Reason::Finish.to_string());
        }
        file.write_all(b"next\n").expect("a file");
        assert!(!is_nonblocking(&file));
    }
    assert_eq!(std::fs::read_to_string(path).expect("a file"), "LOG\nours\nnext\nours\nnext\n");
}

/// A pipe on the loop, a socket by a thread: what was closed politely has been written to its last byte.
#[test]
fn much_leaves_for_a_slow_reader_before_the_end() {
    if !is_alone("adopting::stdio::much_leaves_for_a_slow_reader_before_the_end", "") {
        return;
    }
    const MUCH: usize = 10 << 20;
    let (read, write) = pipe();
    let (theirs, ours) = sockets();
    for (fd, mut theirs) in [(write, File::from(read)), (ours, OwnedFd::from(theirs).into())] {
        let instead = Instead::of_output(&fd);
        let taken = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&taken);
        let reads = std::thread::spawn(move || {
            let (mut sum, mut buf) = (0_u64, vec![0; 10_000]);
            loop {
                let bytes = uninterrupted(|| theirs.read(&mut buf)).expect("it is open");
                let from = counts.fetch_add(bytes, Ordering::SeqCst);
                let is_right = buf[..bytes].iter().zip(from..).all(|(&byte, at)| usize::from(byte) == at % 251);
                assert!(is_right, "behind {from} bytes");
                sum += bytes as u64;
                if bytes == 0 {
                    return sum;
                }
                std::thread::yield_now();
            }
        });
        let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), by_default);
        guest.reactor.net().link(guest.key).expect("it is open").set_output_limits(1 << 10, 1 << 20, MUCH * 2);
        let all: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
        for part in all.chunks(MUCH / 7) {
            assert!(guest.send(part));
        }
        guest.reactor.net().close(guest.key);
        assert_eq!(guest.end(), Reason::Finish.to_string());
        assert!(!is_nonblocking(&fd));
        drop((instead, fd, guest)); // with which all of them have gone
        assert_eq!(reads.join().expect("it read it all"), MUCH as u64);
        assert_eq!(taken.load(Ordering::SeqCst), MUCH);
    }
}

#[test]
fn a_reader_that_goes_away_is_told() {
    if !is_alone("adopting::stdio::a_reader_that_goes_away_is_told", "") {
        return;
    }
    let (read, write) = pipe();
    let _instead = Instead::of_output(&write);
    let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), by_default);
    drop(read);
    assert_eq!(guest.end(), Reason::Eof.to_string(), "without a write");

    let (theirs, ours) = sockets();
    let _instead = Instead::of_output(&ours);
    let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), by_default);
    drop(theirs);
    assert!(guest.send("lost"), "nobody knows");
    assert_eq!(guest.end(), BROKEN);

    let (theirs, ours) = sockets();
    let _instead = Instead::of_output(&ours);
    let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), by_default);
    assert!(guest.send(vec![0; 4 << 20]));
    settle(&mut guest.reactor, &mut guest.journal);
    assert!(!guest.is_closed());
    drop(theirs);
    assert_eq!(guest.end(), BROKEN);

    // Both are its own: what is read goes on.
    let ((read, mut write), (theirs, ours)) = (sockets_of_input(), sockets());
    let (_input, _output) = (Instead::of_input(&read), Instead::of_output(&ours));
    let mut guest = Guest::new(Adopted::stdio().expect("they are open"), by_default);
    drop(theirs);
    assert!(guest.send("lost"));
    write.write_all(b"still").expect("there is room");
    guest.until(|journal| journal.received() == b"still");
    drop(write);
    assert_eq!(guest.end(), BROKEN);
}

fn sockets_of_input() -> (OwnedFd, UnixStream) {
    let (theirs, ours) = sockets();
    (ours, theirs)
}

/// What a thread writes is bounded in time too.
#[test]
fn a_polite_close_waits_no_longer_than_it_may() {
    if !is_alone("adopting::stdio::a_polite_close_waits_no_longer_than_it_may", "") {
        return;
    }
    let (_theirs, ours) = sockets();
    let _instead = Instead::of_output(&ours);
    let (mut reactor, mut journal) = start_with(Config::new().linger_max(ms(50)));
    let key = reactor.net().adopt(Adopted::stdout().expect("it is written to"), recorder(by_default)).expect("a stream");
    reactor.net().send(key, vec![0; 4 << 20]);
    reactor.net().close(key);
    assert_eq!(super::end_of(&mut reactor, &mut journal, key), Reason::Limit(Limit::Linger).to_string());
}

/// Whoever comes after us on the same input finds the rest of it.
#[test]
fn a_thread_takes_no_more_than_a_buffer_before_that_is_consumed() {
    if !is_alone("adopting::stdio::a_thread_takes_no_more_than_a_buffer_before_that_is_consumed", "") {
        return;
    }
    let (theirs, ours) = sockets();
    let _instead = Instead::of_input(&ours);
    let (mut reactor, mut journal) = start();
    let on = |ctx: &mut crate::common::Ctx<'_>, _: &mut crate::common::Journal, call: &Call| {
        if *call == Call::Connected {
            ctx.pause();
        }
        Ok(())
    };
    let key = reactor.net().adopt(Adopted::stdin().expect("it is read"), recorder(on)).expect("a stream");
    assert!(!reactor.net().detach(key), "a thread has it");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    assert!(!reactor.net().detach(key), "a thread has it");
    theirs.set_nonblocking(true).expect("fcntl(2)");
    let mut sent = 0;
    for _ in 0..50 {
        settle(&mut reactor, &mut journal);
        loop {
            match (&theirs).write(&[7; 4096]) {
                Ok(bytes) => sent += bytes,
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
    assert!(sent > 128 << 10, "there is more than a buffer");
    assert_eq!(journal.received(), b"");
    let rest = ours.try_clone().expect("a descriptor");
    socket2::SockRef::from(&rest).set_nonblocking(true).expect("fcntl(2)");
    let (mut left, mut buf, mut rest) = (0, vec![0; 64 << 10], File::from(rest));
    while let Ok(bytes) = rest.read(&mut buf) {
        left += bytes;
    }
    assert!(sent - left <= 64 << 10, "it has taken {} bytes", sent - left);
    assert!(sent > left, "it has taken something");
    reactor.net().link(key).expect("it is open").resume();
    until(&mut reactor, &mut journal, |journal| journal.received().len() == sent - left);
}

/// As an `Err` writes once what is queued; only that the thread does it.
#[test]
fn the_last_words_that_a_thread_was_given_are_written() {
    if !is_alone("adopting::stdio::the_last_words_that_a_thread_was_given_are_written", "") {
        return;
    }
    for _ in 0..20 {
        let (mut theirs, ours) = sockets();
        let _instead = Instead::of_output(&ours);
        let mut guest = Guest::new(Adopted::stdout().expect("it is written to"), |ctx, _, call| match call {
            Call::Connected => {
                ctx.send("sorry");
                Err("on purpose".into())
            }
            _ => Ok(()),
        });
        guest.end();
        theirs.set_read_timeout(Some(PATIENCE)).expect("setsockopt(2)");
        let mut buf = [0; 5];
        theirs.read_exact(&mut buf).expect("they come");
        assert_eq!(&buf, b"sorry");
    }
}

#[test]
fn what_is_not_open_for_it_is_refused() {
    if !is_alone("adopting::stdio::what_is_not_open_for_it_is_refused", "") {
        return;
    }
    let (read, write) = pipe();
    {
        let _instead = Instead::of_input(&write);
        let error = Adopted::stdin().expect_err("its bytes are somebody else's");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("standard input is not open for reading"), "{error}");
        assert!(Adopted::stdio().is_err());
    }
    let _instead = Instead::of_output(&read);
    let error = Adopted::stdout().expect_err("nothing can be written to it");
    assert!(error.to_string().contains("standard output is not open for writing"), "{error}");
    assert!(!is_nonblocking(&read) && !is_nonblocking(&write));
}

/// Rust opens /dev/null in its place.
#[test]
fn an_input_that_is_closed_has_ended() {
    if !is_alone("adopting::stdio::an_input_that_is_closed_has_ended", "exec <&-;") {
        return;
    }
    assert_eq!(Guest::new(Adopted::stdin().expect("it is read"), by_default).end(), Reason::Eof.to_string());
}

/// Opened anew, it does not say that it has ended.
#[test]
fn a_fifo_whose_writer_has_come_and_gone_before_has_ended() {
    if !is_alone("adopting::stdio::a_fifo_whose_writer_has_come_and_gone_before_has_ended", "") {
        return;
    }
    let folder = Folder::new("fifo-before");
    let path = folder.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let writer = File::options().read(true).write(true).open(&path).expect("Linux lets us");
    let read = File::open(&path).expect("somebody may write");
    drop(writer);
    let _instead = Instead::of_input(&read);
    let mut guest = Guest::new(Adopted::stdin().expect("it is read"), by_default);
    assert_eq!((guest.end(), guest.journal.received()), (Reason::Eof.to_string(), Vec::new()));
}

/// What is opened anew has nothing to do with what others have, and is given back as any pipe.
#[test]
fn a_pipe_is_given_back() {
    if !is_alone("adopting::stdio::a_pipe_is_given_back", "") {
        return;
    }
    let (read, write) = pipe();
    let _instead = Instead::of_input(&read);
    let mut guest = Guest::new(Adopted::stdin().expect("it is read"), quiet);
    assert!(guest.reactor.net().detach(guest.key));
    assert_eq!(guest.end(), "detached");
    File::from(write).write_all(b"ours again").expect("there is room");
    let mut buf = [0; 10];
    std::io::stdin().lock().read_exact(&mut buf).expect("it is there");
    assert_eq!(&buf, b"ours again");
}

/// Both are one terminal, of a session of its own.
#[test]
fn a_terminal_is_talked_with() {
    const IS_INSIDE: &str = "MAINSPRING_TEST_IS_ON_A_TERMINAL";
    const NAME: &str = "adopting::stdio::a_terminal_is_talked_with";
    if std::env::var_os(IS_INSIDE).is_some() {
        assert!(std::io::stdin().is_terminal());
        let mut guest = Guest::new(Adopted::stdio().expect("they are open"), |ctx, journal, call| {
            lines(ctx, journal, call)?;
            match call {
                Call::Connected => ctx.send("ready\n"),
                Call::Frame(line) if line == b"bye" => ctx.close(),
                Call::Frame(line) => ctx.send([b"you said ", &**line, b"\n"].concat()),
                _ => {}
            }
            by_default(ctx, journal, call)
        });
        assert_eq!(guest.end(), Reason::Finish.to_string());
        let (input, output) = (is_nonblocking(std::io::stdin()), is_nonblocking(std::io::stdout()));
        println!("changed: {input} {output}");
        return;
    }
    let has_script = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has_script.is_ok_and(|status| status.success()) {
        return skip("there is no script(1) of util-linux");
    }
    let program = std::env::current_exe().expect("a test is a program");
    let mut script = Command::new("script")
        .args(["-qec", &format!("'{}' --exact {NAME} --nocapture --test-threads=1", program.display()), "/dev/null"])
        .env(IS_INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is there");
    let mut guest = Guest::new(super::ends(&mut script), |ctx, journal, call| {
        lines(ctx, journal, call)?;
        match call {
            Call::Frame(line) if line.ends_with(b"ready") => ctx.send("hello\n"),
            Call::Frame(line) if line == b"you said hello" => ctx.send("bye\n"),
            Call::Connected => ctx.set_deadline(PATIENCE),
            _ => {}
        }
        by_default(ctx, journal, call)
    });
    guest.end();
    let frames = guest.journal.frames();
    assert!(script.wait().expect("it is ours").success(), "{frames:?}");
    assert!(frames.iter().any(|line| line == "changed: false false"), "{frames:?}");
}
