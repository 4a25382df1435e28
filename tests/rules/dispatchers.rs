//! Descriptors of other kinds, watched.

use crate::common::{
    Call, Journal, PATIENCE, SHORT, SHUT_DOWN, Watched, guest, is_closed, local_pair, ms, quiet, settle, start, turn, until,
};
use mainspring::{Dispatcher, Drained, Fault, Reactor, Reason, Scope, Source};
use std::{
    io::{ErrorKind, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

struct Watcher(Watched);

impl Dispatcher<u32> for Watcher {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, u32>, calls: &mut u32) -> Result<Drained, Fault> {
        *calls += 1;
        let mut buf = [0; 9];
        match self.0.read(&mut buf) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Drained::Yes),
            other => other.map(|_| Drained::No).map_err(Fault::from),
        }
    }
}

#[test]
fn a_watched_descriptor_is_deregistered_so_that_a_duplicate_delivers_nothing() {
    let mut reactor = Reactor::new().expect("a selector");
    let (ours, theirs) = local_pair();
    let duplicate = ours.try_clone().expect("a descriptor");
    let key = reactor.net().watch(Watcher(Watched::new(ours))).expect("it can be watched");
    let mut calls = 0;
    (&theirs).write_all(b"x").expect("the pair is open");
    until(&mut reactor, &mut calls, |calls| *calls >= 2);
    reactor.net().close(key);
    settle(&mut reactor, &mut calls);
    let before = calls;
    (&theirs).write_all(b"y").expect("the duplicate is open");
    // An event, for nobody, would end this sleep.
    let began = Instant::now();
    reactor.turn(&mut calls, SHORT).expect("the selector works");
    assert!(began.elapsed() >= SHORT);
    assert_eq!(calls, before);
    drop(duplicate);
}

/// Of a library that is asked now and then.
struct Asked;

impl Dispatcher<Vec<&'static str>> for Asked {
    fn source(&mut self) -> Source<'_> {
        Source::Nothing
    }

    fn readable(&mut self, _: &mut Scope<'_, Vec<&'static str>>, told: &mut Vec<&'static str>) -> Result<Drained, Fault> {
        told.push("readable");
        Ok(Drained::Yes)
    }

    fn writable(&mut self, _: &mut Scope<'_, Vec<&'static str>>, told: &mut Vec<&'static str>) -> Result<Drained, Fault> {
        told.push("writable");
        Ok(Drained::Unwanted)
    }

    fn closed(&mut self, _: &mut Scope<'_, Vec<&'static str>>, told: &mut Vec<&'static str>, _: Reason) {
        told.push("closed");
    }
}

#[test]
fn what_has_no_source_is_told_what_was_asked_for_each_time_once() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut told = Vec::new();
    let key = reactor.net().watch(Asked).expect("there is nothing to be waited for");
    settle(&mut reactor, &mut told);
    assert!(told.is_empty());
    for _ in 0..2 {
        assert!(reactor.net().want_readable(key));
        settle(&mut reactor, &mut told);
        assert!(reactor.net().want_writable(key));
        settle(&mut reactor, &mut told);
    }
    reactor.net().close(key);
    reactor.run(&mut told).expect("the selector works");
    assert_eq!(told, ["readable", "writable", "readable", "writable", "closed"]);
}

/// Whose library has deadlines beside its descriptor.
#[test]
fn what_has_a_source_is_told_what_was_asked_for_too_and_what_comes_after_that() {
    struct Alarm(Watched);

    impl Dispatcher<usize> for Alarm {
        fn source(&mut self) -> Source<'_> {
            self.0.source()
        }

        fn readable(&mut self, _: &mut Scope<'_, usize>, told: &mut usize) -> Result<Drained, Fault> {
            *told += 1;
            while self.0.read(&mut [0; 8]).is_ok() {}
            Ok(Drained::Yes)
        }
    }

    let (ours, mut theirs) = Watched::pair();
    let (mut reactor, mut told) = (Reactor::new().expect("a selector"), 0);
    let key = reactor.net().watch(Alarm(ours)).expect("it can be watched");
    settle(&mut reactor, &mut told);
    for _ in 0..3 {
        let before = told;
        assert!(reactor.net().want_readable(key));
        settle(&mut reactor, &mut told);
        assert_eq!(told, before + 1, "once for each time");
        theirs.write_all(b"x").expect("room");
        until(&mut reactor, &mut told, |told| *told >= before + 2);
    }
}

struct Reader<R>(R);

impl<R: Read + mio::event::Source + 'static> Dispatcher<usize> for Reader<R> {
    fn source(&mut self) -> Source<'_> {
        Source::Mio(&mut self.0)
    }

    fn readable(&mut self, scope: &mut Scope<'_, usize>, got: &mut usize) -> Result<Drained, Fault> {
        match self.0.read(&mut [0; 4096])? {
            0 => scope.close(),
            n => *got += n,
        }
        Ok(Drained::No)
    }
}

#[test]
fn flaw_12_a_dispatcher_reads_on_behind_a_hang_up() {
    #[cfg(unix)]
    let (mut sender, receiver) = mio::unix::pipe::new().expect("a pipe");
    #[cfg(not(unix))]
    let (receiver, mut sender) = {
        let (ours, theirs) = local_pair();
        ours.set_nonblocking(true).expect("a socket option");
        (mio::net::TcpStream::from_std(ours), theirs)
    };
    sender.write_all(&[b'x'; 20_000]).expect("it holds 64 KiB");
    drop(sender);
    let (mut reactor, mut got) = (Reactor::new().expect("a selector"), 0);
    reactor.net().watch(Reader(receiver)).expect("it can be watched");
    reactor.run(&mut got).expect("the selector works");
    assert_eq!(got, 20_000);
}

#[test]
fn a_drain_ends_dispatchers_last_and_with_shutdown() {
    struct Watcher(Watched);
    impl Dispatcher<Journal> for Watcher {
        fn source(&mut self) -> Source<'_> {
            self.0.source()
        }

        fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
            journal.note(scope.key, Call::Closed(why.to_string()));
        }
    }
    let (mut reactor, mut journal) = start();
    let (ours, _theirs) = Watched::pair();
    let watched = reactor.net().watch(Watcher(ours)).expect("it can be watched");
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Draining));
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().is_open(watched));
    reactor.net().close(key);
    reactor.run(&mut journal).expect("the selector works");
    assert!(is_closed(&journal, key));
    assert_eq!(journal.calls.last(), Some(&(watched, Call::Closed(SHUT_DOWN.into()))));
}

/// A dispatcher that `closed` opened in the last stage of a drain was not ended: `run` stayed for the whole grace.
#[test]
fn a_dispatcher_opened_in_the_last_stage_of_a_drain_ends_with_it() {
    struct Opener {
        socket: Watched,
        next: Option<Watched>,
    }
    impl Dispatcher<usize> for Opener {
        fn source(&mut self) -> Source<'_> {
            self.socket.source()
        }

        fn closed(&mut self, scope: &mut Scope<'_, usize>, closed: &mut usize, _: Reason) {
            *closed += 1;
            if let Some(socket) = self.next.take() {
                scope.net.watch(Opener { socket, next: None }).expect("it can be watched");
            }
        }
    }
    let (socket, next) = local_pair();
    let mut reactor = Reactor::new().expect("a selector");
    reactor.net().watch(Opener { socket: Watched::new(socket), next: Some(Watched::new(next)) }).expect("it can be watched");
    reactor.net().drain(PATIENCE * 100);
    let (began, mut closed) = (Instant::now(), 0);
    while turn(&mut reactor, &mut closed, ms(5)) {
        assert!(began.elapsed() < PATIENCE, "it waits for the whole grace");
    }
    assert_eq!(closed, 2);
}

/// A dispatcher whose `priority` congested whom it reads for was told once more to read.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_dispatcher_that_congests_its_writer_in_priority_is_not_told_to_read() {
    use crate::common::{HUGE, Talk, dial, read_exactly, say};
    use mainspring::Key;
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };
    struct Urgent(TcpStream, Key);
    impl Dispatcher<Journal> for Urgent {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn priority(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Result<Drained, Fault> {
            socket2::SockRef::from(&self.0).recv_out_of_band(&mut [std::mem::MaybeUninit::uninit()])?;
            journal.note(scope.key, Call::Received(b"urgent".to_vec()));
            assert!(scope.net.throttle(scope.key, self.1) && scope.net.send(self.1, vec![b'.'; HUGE]));
            Ok(Drained::Yes)
        }

        fn readable(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Result<Drained, Fault> {
            let is_congested = scope.net.link(self.1).expect("open").is_congested();
            journal.note(scope.key, Call::Received(format!("congested: {is_congested}").into_bytes()));
            while (&self.0).read(&mut [0; 10]).is_ok_and(|bytes| bytes > 0) {}
            Ok(Drained::Yes)
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = dial(listener.local_addr().expect("bound"));
    let (socket, _) = listener.accept().expect("somebody dialled");
    socket.set_nonblocking(true).expect("a socket option");
    let mut talk = Talk::new(|_, _, _| Ok(()));
    say(&peer, "x");
    socket2::SockRef::from(&peer).send_out_of_band(b"!").expect("connected");
    let watcher = talk.reactor.net().watch(Urgent(socket, talk.key)).expect("it can be watched");
    talk.until(|journal| !journal.of(watcher).is_empty());
    talk.settle();
    read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, HUGE);
    talk.settle();
    let calls = ["urgent", "congested: false"].map(|call| Call::Received(call.into()));
    assert_eq!(talk.journal.of(watcher), calls);
}

/// `source` was asked outside the guard: its panic left the turn, and the dispatcher's slot was never free again.
#[test]
fn a_panic_in_source_ends_its_dispatcher_only() {
    struct Bad {
        socket: Watched,
        asked: u32,
        drains: bool,
    }
    impl Dispatcher<Vec<String>> for Bad {
        fn source(&mut self) -> Source<'_> {
            self.asked += 1;
            assert!(self.asked != 2, "asked again");
            self.socket.source()
        }

        fn readable(&mut self, scope: &mut Scope<'_, Vec<String>>, _: &mut Vec<String>) -> Result<Drained, Fault> {
            let _ = self.socket.read(&mut [0; 9])?;
            if self.drains {
                return Ok(Drained::Yes);
            }
            scope.close();
            Ok(Drained::No)
        }

        fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, closed: &mut Vec<String>, why: Reason) {
            closed.push(why.to_string());
        }
    }
    // It is asked again when it is drained, and when it ends.
    for (drains, cause) in [(true, "asked again"), (false, "finished")] {
        let (socket, mut peer) = Watched::pair();
        let (mut reactor, mut closed) = (Reactor::new().expect("a selector"), Vec::new());
        reactor.net().watch(Bad { socket, asked: 0, drains }).expect("it can be watched");
        peer.write_all(b"x").expect("room in an empty buffer");
        let began = Instant::now();
        let turned = catch_unwind(AssertUnwindSafe(|| {
            while turn(&mut reactor, &mut closed, ms(5)) {
                assert!(began.elapsed() < PATIENCE, "its slot is never free again");
            }
        }));
        assert!(turned.is_ok(), "the panic left the turn (drains: {drains})");
        assert!(reactor.net().connections().is_empty(), "its slot is free again (drains: {drains})");
        assert!(matches!(&closed[..], [why] if why.contains(cause)), "drains: {drains}, closed: {closed:?}");
    }
}
