//! When a dispatcher is told, and that the loop sleeps when there is nothing to tell: with every kind of source, whatever
//! state its descriptor is in, and also where the selector knows no edges.

use crate::common::{ms, turn, uninterrupted, until, until_net};
use mainspring::{Dispatcher, Drained, Fault, Key, Reactor, Scope, Source};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    process::Command,
};

/// What a test's dispatchers were told.
#[derive(Debug, Default)]
struct Told {
    readable: u32,
    writable: u32,
    bytes: usize,
}

/// A mio source of another crate, which reads its descriptor itself.
struct Foreign(OwnedFd);

impl mio::event::Source for Foreign {
    fn register(&mut self, registry: &mio::Registry, token: mio::Token, interests: mio::Interest) -> std::io::Result<()> {
        mio::unix::SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &mio::Registry, token: mio::Token, interests: mio::Interest) -> std::io::Result<()> {
        mio::unix::SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
        mio::unix::SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

/// A descriptor that is watched as itself, or as a source of another crate.
struct Watched {
    it: Foreign,
    is_foreign: bool,
}

impl Watched {
    fn new(fd: impl Into<OwnedFd>, is_foreign: bool) -> Self {
        Self { it: Foreign(fd.into()), is_foreign }
    }

    fn source(&mut self) -> Source<'_> {
        if self.is_foreign { Source::Mio(&mut self.it) } else { Source::Fd(self.it.0.as_fd()) }
    }

    fn file(&self) -> File {
        self.it.0.try_clone().expect("a descriptor").into()
    }
}

/// Everything as the crate has it.
struct Deaf(Watched);

impl Dispatcher<Told> for Deaf {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }
}

/// Says that it is drained, and has not touched it.
struct Careless(Watched);

impl Dispatcher<Told> for Careless {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        told.readable += 1;
        Ok(Drained::Yes)
    }

    fn writable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        told.writable += 1;
        Ok(Drained::Yes)
    }
}

/// Reads what there is, and takes neither an end nor an error for one.
struct Reads(Watched);

impl Dispatcher<Told> for Reads {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        told.readable += 1;
        match self.0.file().read(&mut [0; 10]) {
            Ok(0) | Err(_) => Ok(Drained::Yes),
            Ok(bytes) => {
                told.bytes += bytes;
                Ok(Drained::No)
            }
        }
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket option");
    theirs.set_nonblocking(true).expect("a socket option");
    (ours, theirs)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let theirs = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (ours, _) = listener.accept().expect("it has come");
    ours.set_nonblocking(true).expect("a socket option");
    (ours, theirs)
}

/// What is to stay open meanwhile.
type Rest = Box<dyn std::any::Any>;

type State = fn() -> (OwnedFd, Rest);

/// Descriptors in all the states in which poll(2) reports them for ever.
fn states() -> [(&'static str, State); 8] {
    fn keep(fd: impl Into<OwnedFd>, rest: impl std::any::Any) -> (OwnedFd, Rest) {
        (fd.into(), Box::new(rest))
    }
    [
        ("idle and writable", || {
            let (ours, theirs) = pair();
            keep(ours, theirs)
        }),
        ("the other end has gone", || keep(pair().0, ())),
        ("the other end has gone, and there is input", || {
            let (ours, mut theirs) = pair();
            theirs.write_all(b"last words").expect("room");
            keep(ours, ())
        }),
        ("the other end has ended", || {
            let (ours, theirs) = pair();
            theirs.shutdown(std::net::Shutdown::Write).expect("connected");
            keep(ours, theirs)
        }),
        ("there is input", || {
            let (ours, mut theirs) = pair();
            theirs.write_all(b"input").expect("room");
            keep(ours, theirs)
        }),
        ("reset", || {
            let (ours, theirs) = tcp_pair();
            socket2::SockRef::from(&theirs).set_linger(Some(ms(0))).expect("a socket option");
            keep(ours, ())
        }),
        ("nobody reads the pipe", || {
            let (writer, reader) = mio::unix::pipe::new().expect("a pipe");
            drop(reader);
            keep(writer.as_fd().try_clone_to_owned().expect("a descriptor"), ())
        }),
        ("nobody is at the port", || {
            let ours = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let nobody = UdpSocket::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
            ours.connect(nobody).expect("an address");
            ours.set_nonblocking(true).expect("a socket option");
            ours.send(b"?").expect("it is sent");
            keep(ours, ())
        }),
    ]
}

/// This many turns that do not wait: how many events they brought, and how many calls.
fn busy_turns(reactor: &mut Reactor<Told>, told: &mut Told) -> (u64, u32) {
    let (events, calls) = (reactor.stats().events, told.readable + told.writable);
    for _ in 0..1_000 {
        turn(reactor, told, ms(0));
    }
    (reactor.stats().events - events, told.readable + told.writable - calls)
}

/// Under poll(2) what was called drained was armed again, and was reported at once if it was not: tens of thousands of turns
/// a second.
#[test]
fn nothing_that_stands_is_told_again_and_again() {
    type Watch = fn(&mut Reactor<Told>, Watched) -> Key;
    let kinds: [(&str, Watch); 3] = [
        ("deaf", |reactor, it| reactor.net().watch(Deaf(it)).expect("it can be watched")),
        ("careless", |reactor, it| reactor.net().watch(Careless(it)).expect("it can be watched")),
        ("reads", |reactor, it| reactor.net().watch(Reads(it)).expect("it can be watched")),
    ];
    for (state, make) in states() {
        for (kind, watch) in kinds {
            for is_foreign in [false, true] {
                let (fd, _rest) = make();
                let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
                let key = watch(&mut reactor, Watched::new(fd, is_foreign));
                let (events, calls) = busy_turns(&mut reactor, &mut told);
                assert!(events <= 20 && calls <= 40, "{state}, {kind}, foreign: {is_foreign}: {events} events, {calls} calls");
                assert!(reactor.net().is_open(key), "{state}, {kind}: it goes on");
                reactor.net().close(key);
                until_net(&mut reactor, &mut told, |net, _| net.connections().is_empty());
            }
        }
    }
}

/// What only reads is not woken by room, nor by what nobody asked for, and sleeps.
#[test]
fn what_is_unwanted_wakes_nobody() {
    for is_foreign in [false, true] {
        let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
        let (ours, mut theirs) = pair();
        reactor.net().watch(Deaf(Watched::new(ours, is_foreign))).expect("it can be watched");
        theirs.write_all(b"it is told of it once").expect("room");
        busy_turns(&mut reactor, &mut told);
        theirs.write_all(b"input that nobody wants").expect("room");
        assert_eq!(busy_turns(&mut reactor, &mut told).0, 0, "foreign: {is_foreign}");
    }
}

/// A source of another crate was never armed again under poll(2): the second signal never came.
#[test]
fn whatever_was_drained_is_reported_again() {
    for is_foreign in [false, true] {
        let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
        let (ours, mut theirs) = pair();
        reactor.net().watch(Reads(Watched::new(ours, is_foreign))).expect("it can be watched");
        for bytes in 1..=100 {
            theirs.write_all(b"x").expect("room");
            until(&mut reactor, &mut told, |told| told.bytes == bytes);
            turn(&mut reactor, &mut told, ms(0)); // in which it meets WouldBlock
        }
    }
}

/// Echoes each message.
struct Echoes(Watched);

impl Dispatcher<Told> for Echoes {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        let mut buf = [0; 10];
        match self.0.file().read(&mut buf) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Drained::Yes),
            read => {
                told.bytes += read?;
                self.0.file().write_all(&buf[..1])?;
                Ok(Drained::No)
            }
        }
    }
}

/// The kernel says that there is room whenever a peer has read, to whoever is registered for it.
#[test]
fn a_dispatcher_that_reads_a_unix_socket_is_woken_once_a_message() {
    let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
    let (ours, mut theirs) = pair();
    reactor.net().watch(Echoes(Watched::new(ours, false))).expect("it can be watched");
    busy_turns(&mut reactor, &mut told);
    let before = reactor.stats().events;
    for message in 1..=1_000 {
        theirs.write_all(b"x").expect("room");
        until(&mut reactor, &mut told, |told| told.bytes == message);
        turn(&mut reactor, &mut told, ms(0)); // in which it meets WouldBlock
        assert_eq!(uninterrupted(|| theirs.read(&mut [0; 10])).expect("it was answered"), 1);
        turn(&mut reactor, &mut told, ms(0)); // in which it would hear that there is room again
    }
    let events = reactor.stats().events - before;
    assert!((1_000..=1_010).contains(&events), "{events}");
}

/// The end of a FIFO is none for a reader that waits for the next writer.
#[test]
fn a_fifo_whose_writers_come_and_go_is_reported_again() {
    let path = std::env::temp_dir().join(format!("mainspring-fifo-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo(1)").success());
    let ours = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("a FIFO");
    let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
    reactor.net().watch(Reads(Watched::new(ours, false))).expect("it can be watched");
    for bytes in 1..=3 {
        let mut writer = File::options().write(true).open(&path).expect("somebody reads");
        writer.write_all(b"x").expect("room");
        until(&mut reactor, &mut told, |told| told.bytes == bytes);
        drop(writer);
        busy_turns(&mut reactor, &mut told);
    }
    std::fs::remove_file(&path).expect("it is there");
}

/// Writes much, each time that it is asked to.
struct Writes {
    it: Watched,
    left: usize,
}

impl Dispatcher<Told> for Writes {
    fn source(&mut self) -> Source<'_> {
        self.it.source()
    }

    fn writable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        told.writable += 1;
        while self.left > 0 {
            match self.it.file().write(&[7; 4096][..self.left.min(4096)]) {
                Ok(bytes) => self.left -= bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Yes),
                Err(error) => return Err(error.into()),
            }
        }
        self.left = MUCH; // for the next time
        Ok(Drained::Unwanted)
    }
}

const MUCH: usize = 3 << 20;

#[test]
fn what_was_unwanted_is_told_when_it_is_wanted_again() {
    for is_foreign in [false, true] {
        let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
        let (ours, mut theirs) = pair();
        let key = reactor.net().watch(Writes { it: Watched::new(ours, is_foreign), left: MUCH }).expect("it can be watched");
        for _ in 0..3 {
            let (mut got, mut buf) = (0, vec![0; 64 << 10]);
            until(&mut reactor, &mut told, |_| {
                got += theirs.read(&mut buf).unwrap_or(0);
                got == MUCH
            });
            assert_eq!(busy_turns(&mut reactor, &mut told), (0, 0), "it has all left");
            assert!(reactor.net().want_writable(key));
        }
        reactor.net().close(key);
        assert!(!reactor.net().want_writable(key) && !reactor.net().want_readable(key), "it is no more");
    }
}

/// Takes one piece at a time, and no more until it is asked to.
struct Sips(Watched);

impl Dispatcher<Told> for Sips {
    fn source(&mut self) -> Source<'_> {
        self.0.source()
    }

    fn readable(&mut self, _: &mut Scope<'_, Told>, told: &mut Told) -> Result<Drained, Fault> {
        match self.0.file().read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Yes),
            read => told.bytes += read?,
        }
        Ok(Drained::Unwanted)
    }
}

#[test]
fn input_that_is_unwanted_stays_until_it_is_wanted() {
    for is_foreign in [false, true] {
        let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
        let (ours, mut theirs) = pair();
        let key = reactor.net().watch(Sips(Watched::new(ours, is_foreign))).expect("it can be watched");
        theirs.write_all(b"abc").expect("room");
        for bytes in 1..=3 {
            until(&mut reactor, &mut told, |told| told.bytes == bytes);
            busy_turns(&mut reactor, &mut told);
            assert_eq!(told.bytes, bytes, "a piece for each time");
            assert!(reactor.net().want_readable(key));
        }
        busy_turns(&mut reactor, &mut told); // it meets WouldBlock, and is armed
        theirs.write_all(b"d").expect("room");
        until(&mut reactor, &mut told, |told| told.bytes == 4);
    }
}

/// One read of it stopped the loop, and all that it serves, without a word.
#[test]
fn a_blocking_descriptor_does_not_stop_the_loop() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let (sender, receiver) = mio::unix::pipe::new().expect("a pipe");
    receiver.set_nonblocking(false).expect("an option");
    let (mut other_side, tcp) = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let theirs = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (theirs, listener.accept().expect("it has come").0)
    };
    let pipe = receiver.as_fd().try_clone_to_owned().expect("a descriptor");
    let blocking: [(&str, OwnedFd); 3] = [("a Unix socket", ours.into()), ("a TCP socket", tcp.into()), ("a pipe", pipe)];
    let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
    for (what, fd) in blocking {
        let same = fd.try_clone().expect("a descriptor");
        reactor.net().watch(Reads(Watched::new(fd, false))).expect(what);
        assert!(socket2::SockRef::from(&same).nonblocking().expect("an open file"), "{what}");
    }
    theirs.write_all(b"x").expect("room");
    (&sender).write_all(b"x").expect("room");
    other_side.write_all(b"x").expect("room");
    until(&mut reactor, &mut told, |told| told.bytes == 3);
    busy_turns(&mut reactor, &mut told); // each has met WouldBlock
}

/// It is not made non-blocking: the shell has the same open file.
#[test]
fn a_terminal_that_blocks_is_refused_and_left_as_it_is() {
    let Ok(terminal) = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx") else {
        return println!("skipped: there is no /dev/ptmx");
    };
    let other = terminal.try_clone().expect("a descriptor");
    let mut reactor = Reactor::<Told>::new().expect("a selector");
    let error = reactor.net().watch(Deaf(Watched::new(terminal, false))).expect_err("it blocks");
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("O_NONBLOCK"), "{error}");
    assert!(reactor.net().connections().is_empty());
    let options = socket2::SockRef::from(&other);
    assert!(!options.nonblocking().expect("an open file"), "it is as it was");
    options.set_nonblocking(true).expect("an open file");
    reactor.net().watch(Deaf(Watched::new(other, false))).expect("it does not block");
}

/// They never block, whatever their flags say.
#[test]
fn what_is_always_ready_is_reported_once_under_every_selector() {
    let file = std::env::current_exe().expect("a test is a program");
    for path in [file.as_path(), "/dev/null".as_ref(), "/dev/zero".as_ref()] {
        let (mut reactor, mut told) = (Reactor::new().expect("a selector"), Told::default());
        let file = File::open(path).expect("it is there");
        reactor.net().watch(Careless(Watched::new(file, false))).expect("it can be watched");
        busy_turns(&mut reactor, &mut told);
        assert_eq!((told.readable, told.writable), (1, 1), "{path:?}");
    }
}
