//! What is not a stream, or not open for what it is to be used for: nothing is taken over, and what was handed over is closed.

use super::{descriptors, pipe};
use crate::common::{Call, Folder, Nothing, is_alone, recorder, run_out, start, turn, until};
use mainspring::{Adopted, Reactor};
use rustix::{
    fs::{Mode, OFlags, inotify, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use socket2::{Domain, Socket, Type};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    time::Duration,
};

fn opened(path: &str, write: bool) -> OwnedFd {
    File::options().read(!write).write(write).open(path).expect("it is there").into()
}

fn unix_listener(folder: &Folder) -> OwnedFd {
    let path = folder.path("listens");
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(path).expect("a path of its own").into()
}

fn socket(domain: Domain, kind: Type) -> Socket {
    Socket::new(domain, kind, None).expect("a socket")
}

/// Which others have as well.
fn terminal() -> OwnedFd {
    thread_local! { static MASTER: std::cell::OnceCell<OwnedFd> = const { std::cell::OnceCell::new() }; }
    MASTER.with(|master| other_side(master.get_or_init(new_terminal)))
}

fn new_terminal() -> OwnedFd {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    master
}

fn other_side(master: &OwnedFd) -> OwnedFd {
    let name = ptsname(master, Vec::new()).expect("it has a name");
    open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("the other side")
}

/// What is refused, how, and with which words.
fn refused(folder: &Folder) -> Vec<(&'static str, Adopted, ErrorKind, &'static str)> {
    use ErrorKind::{InvalidInput, NotConnected};
    const NOT_READ: &str = "not open for reading";
    const NOT_WRITTEN: &str = "not open for writing";
    const PACKETS: &str = "a socket that carries packets is not a stream: `Net::bind_on` takes it";
    const NOBODY: &str = "not connected";
    let tcp = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let packets = || socket(Domain::UNIX, Type::SEQPACKET);
    let writes = |fd: OwnedFd| Adopted::pair(pipe().0, fd);
    let reads = |fd: OwnedFd| Adopted::pair(fd, pipe().1);
    vec![
        ("a write end as reader", Adopted::reader(pipe().1), InvalidInput, NOT_READ),
        ("a read end as writer", Adopted::writer(pipe().0), InvalidInput, NOT_WRITTEN),
        ("a pair in the wrong order", Adopted::pair(pipe().1, pipe().0), InvalidInput, NOT_WRITTEN),
        ("a pair of read ends", writes(pipe().0), InvalidInput, NOT_WRITTEN),
        ("a file that is written", Adopted::reader(opened("/dev/null", true)), InvalidInput, NOT_READ),
        ("a file that is read", Adopted::writer(opened("Cargo.toml", false)), InvalidInput, NOT_WRITTEN),
        ("a directory", opened("/", false).into(), InvalidInput, "a directory is not a stream"),
        ("a directory as reader", Adopted::reader(opened("/", false)), InvalidInput, "a directory is not a stream"),
        ("a directory of a pair", reads(opened("/", false)), InvalidInput, "a directory is not a stream"),
        ("a listener", OwnedFd::from(tcp()).into(), NotConnected, "or that listens, is not a stream"),
        ("a listener as a socket", Socket::from(tcp()).into(), NotConnected, "or that listens, is not a stream"),
        ("a listener as reader", Adopted::reader(tcp()), NotConnected, "or that listens, is not a stream"),
        ("a listener as writer", Adopted::writer(tcp()), NotConnected, "or that listens, is not a stream"),
        ("a Unix listener", unix_listener(folder).into(), NotConnected, "or that listens, is not a stream"),
        ("a Unix listener as reader", Adopted::reader(unix_listener(folder)), NotConnected, "or that listens"),
        ("a Unix listener of a pair", reads(unix_listener(folder)), NotConnected, "or that listens"),
        ("UDP", OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a port")).into(), InvalidInput, PACKETS),
        ("UDP as a socket", Socket::from(UdpSocket::bind("127.0.0.1:0").expect("a port")).into(), InvalidInput, PACKETS),
        ("Unix datagrams", OwnedFd::from(UnixDatagram::unbound().expect("a socket")).into(), InvalidInput, PACKETS),
        ("SEQPACKET", packets().into(), InvalidInput, PACKETS),
        ("SEQPACKET as a descriptor", OwnedFd::from(packets()).into(), InvalidInput, PACKETS),
        ("SEQPACKET as reader", Adopted::reader(packets()), InvalidInput, PACKETS),
        ("SEQPACKET as writer", Adopted::writer(packets()), InvalidInput, PACKETS),
        ("SEQPACKET of a pair", writes(packets().into()), InvalidInput, PACKETS),
        ("unconnected", socket(Domain::IPV4, Type::STREAM).into(), NotConnected, NOBODY),
        ("unconnected Unix", socket(Domain::UNIX, Type::STREAM).into(), NotConnected, NOBODY),
        ("unconnected as reader", Adopted::reader(socket(Domain::IPV4, Type::STREAM)), NotConnected, NOBODY),
        ("unconnected of a pair", writes(socket(Domain::UNIX, Type::STREAM).into()), NotConnected, NOBODY),
        ("a terminal that blocks", terminal().into(), InvalidInput, "a terminal that blocks could stop the loop"),
        ("a terminal as reader", Adopted::reader(terminal()), InvalidInput, "a terminal that blocks could stop the loop"),
        ("a path", open("Cargo.toml", OFlags::PATH, Mode::empty()).expect("it is there").into(), InvalidInput, "not open for"),
    ]
}

#[test]
fn what_is_no_stream_is_refused_with_a_word_that_helps() {
    let folder = Folder::new("refused");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    for (what, stream, kind, text) in refused(&folder) {
        let error = reactor.net().adopt(stream, Nothing).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(text), "{what}: {error}");
    }
    assert!(!turn(&mut reactor, &mut (), Duration::ZERO), "nothing of them is left");
    assert_eq!((reactor.stats().opened, reactor.stats().closed.total()), (0, 0));
}

/// Reading nothing of these is an error, or waits.
#[test]
fn what_tells_of_events_is_no_stream() {
    let watched = || inotify::init(inotify::CreateFlags::CLOEXEC).expect("a watch");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    for stream in [Adopted::from(watched()), Adopted::reader(watched())] {
        // It gives records, which are bytes: what matters is that nothing waits for one.
        let key = reactor.net().adopt(stream, Nothing).expect("something to read");
        assert!(reactor.net().abort(key));
    }
    #[cfg(not(mio_unsupported_force_poll_poll))]
    {
        let selector = mio::Poll::new().expect("a selector");
        let fd = selector.registry().as_fd().try_clone_to_owned().expect("a descriptor");
        for stream in [Adopted::from(fd.try_clone().expect("a descriptor")), Adopted::reader(fd)] {
            let error = reactor.net().adopt(stream, Nothing).expect_err("a selector is not a stream");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}

#[test]
fn the_other_side_of_what_is_refused_sees_its_end() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let (mut theirs, ours) = UnixStream::pair().expect("a pair");
    reactor.net().adopt_pair(ours, pipe().0, Nothing).expect_err("the second is not open for writing");
    assert_eq!(theirs.read(&mut [0]).expect("it has ended"), 0);
    let (read, write) = pipe();
    reactor.net().adopt_pair(write, pipe().1, Nothing).expect_err("the first is not open for reading");
    assert_eq!(File::from(read).read(&mut [0]).expect("it has ended"), 0);
}

#[test]
fn during_a_shutdown_nothing_is_adopted() {
    let (mut reactor, mut journal) = start();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let (more, mut last) = UnixStream::pair().expect("a pair");
    let mut more = Some(more);
    let on = recorder(move |ctx, journal, call| {
        if let Call::Closed(_) = call {
            let error = ctx.net.adopt(more.take().expect("it ends once"), Nothing).expect_err("it is shut");
            assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
            journal.note(ctx.key, Call::Writable);
        }
        Ok(())
    });
    reactor.net().adopt(ours, on).expect("a stream");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    reactor.shutdown(&mut journal);
    assert!(journal.has(&Call::Writable), "it has tried");
    assert_eq!(last.read(&mut [0]).expect("it has ended"), 0);
}

/// What is refused is not registered, and everything that was handed over is closed.
#[test]
fn a_thousand_rounds_leave_no_descriptor() {
    if !is_alone("adopting::refused::a_thousand_rounds_leave_no_descriptor", "") {
        return;
    }
    let folder = Folder::new("rounds");
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut round = |is_first: bool| {
        for (_, stream, ..) in refused(&folder) {
            assert!(reactor.net().adopt(stream, Nothing).is_err());
        }
        let (read, write) = pipe();
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let tcp = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
        let (guest, _) = listener.accept().expect("somebody came");
        let pair = UnixStream::pair().expect("a pair");
        let keys = [
            reactor.net().adopt(Adopted::reader(read), Nothing).expect("a stream"),
            reactor.net().adopt(Adopted::writer(write), Nothing).expect("a stream"),
            reactor.net().adopt(OwnedFd::from(ours), Nothing).expect("a stream"),
            reactor.net().adopt(tcp, Nothing).expect("a stream"),
            reactor.net().adopt_pair(pair.0, pair.1, Nothing).expect("a stream"),
            reactor.net().adopt(opened("/dev/null", false), Nothing).expect("a stream"),
        ];
        if is_first {
            turn(&mut reactor, &mut (), Duration::ZERO);
        }
        for key in keys {
            let _ = reactor.net().abort(key); // that of the device has ended
        }
        run_out(&mut reactor, &mut ());
        drop((theirs, guest));
        descriptors()
    };
    let first = round(true);
    let rounds: Vec<usize> = (0..1_000).map(|number| round(number % 2 == 0)).collect();
    assert!(rounds.iter().all(|&count| count == first), "{first}: {:?}", rounds.iter().max());
}
