//! CPython's test_asyncore, on our names, and the rows of its test_socketserver that concern a loop. Each test has the name of
//! its original. Where the original runs for each family, so does ours, with both ends in one reactor: IPv4, IPv6 where the
//! machine has it, Unix sockets with a path, and Linux's abstract names. The two pollers of the original are two runs of this
//! file.
//!
//! Not here: test_compact_traceback (a failure is one line in the log, test_log), test_strerror (free with `io::Error`), and of
//! the file wrapper what ownership settles: test_recv, test_send (reading and writing are your own), test_resource_warning
//! (a descriptor cannot be forgotten).
#![cfg(unix)]

mod common;

use common::{
    Call, Journal, dial, keep_log, listen, read_exactly, read_to_end, recorder, reset, say, settle, skip, take_log, until,
    until_net,
};
use mainspring::{
    Address, Context, Dispatcher, Drained, Fault, Key, Listen, Net, Outcome, Protocol, Reactor, Reason, Refusal, Scope, Source,
    Target, Terminator,
};
use socket2::SockRef;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

// ------------------------------------------------------------------------------------------------------------ families

/// A directory that goes with the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mainspring-asyncore-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a place for temporary files");
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Somewhere to listen, in one family.
struct Place {
    family: &'static str,
    target: Target,
    _dir: Option<TempDir>,
}

impl Place {
    fn new(family: &'static str, target: impl Into<Target>) -> Self {
        Self { family, target: target.into(), _dir: None }
    }
}

/// The IP families that this machine has.
fn ip_places() -> Vec<Place> {
    let mut places = vec![Place::new("IPv4", "127.0.0.1:0")];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => places.push(Place::new("IPv6", "[::1]:0")),
        Err(error) => skip(format_args!("IPv6: {error}")),
    }
    places
}

fn places() -> Vec<Place> {
    let mut places = ip_places();
    let dir = TempDir::new();
    places.push(Place { family: "Unix", target: dir.0.join("socket").into(), _dir: Some(dir) });
    if cfg!(any(target_os = "linux", target_os = "android")) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("unix:@mainspring-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        places.push(Place::new("Unix, abstract", name));
    }
    places
}

/// A server and a client of it, about to meet.
struct Meeting {
    reactor: Reactor<Journal>,
    journal: Journal,
    listener: Key,
    address: Address,
    client: Key,
}

impl Meeting {
    fn at<F, G>(place: &Place, server: F, client: G) -> Self
    where
        F: FnMut(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + Clone + 'static,
        G: FnMut(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + 'static,
    {
        let mut reactor = Reactor::new().expect("a selector");
        let mut net = reactor.net();
        let listener = net.listen(place.target.clone(), move || recorder(server.clone())).expect(place.family);
        let address = net.local(listener).expect("it listens").clone();
        let client = net.connect(&address, recorder(client));
        Self { reactor, journal: Journal::default(), listener, address, client }
    }

    #[track_caller]
    fn until(&mut self, done: impl FnMut(&mut Journal) -> bool) {
        until(&mut self.reactor, &mut self.journal, done);
    }

    fn client(&self) -> Vec<Call> {
        self.journal.of(self.client)
    }

    /// The first that the listener let in.
    fn guest(&self) -> Option<Key> {
        self.journal.keys().into_iter().find(|key| *key != self.client)
    }
}

/// Plays no part, and ends when its peer does.
fn quiet(ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call) -> Outcome {
    if matches!(call, Call::Eof(_)) {
        ctx.close();
    }
    Ok(())
}

fn is_closed(call: &Call) -> bool {
    matches!(call, Call::Closed(_))
}

fn is_received(call: &Call) -> bool {
    matches!(call, Call::Received(_))
}

// -------------------------------------------------------------------------------------------------------- dispatchers

/// What happens to a source.
#[derive(Clone, Copy, Debug)]
enum Condition {
    /// POLLIN
    Readable,
    /// POLLOUT
    Writable,
    /// POLLHUP: the other end of a pipe is gone.
    HungUp,
    /// POLLERR: nobody will read what is written.
    Broken,
    /// POLLPRI: urgent data.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Priority,
}

impl Condition {
    const ALL: &[Self] = &[
        Self::Readable,
        Self::Writable,
        Self::HungUp,
        Self::Broken,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Self::Priority,
    ];

    /// The one callback that it comes as: the ends are met by reading.
    fn callback(self) -> &'static str {
        match self {
            Self::Readable | Self::HungUp | Self::Broken => "readable",
            Self::Writable => "writable",
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Priority => "priority",
        }
    }

    /// A source in this condition, and what keeps it there.
    fn arise(self) -> (Box<dyn mio::event::Source>, Box<dyn std::any::Any>) {
        let (mut sender, receiver) = mio::unix::pipe::new().expect("a pipe");
        match self {
            Self::Readable => {
                sender.write_all(b"x").expect("there is room");
                (Box::new(receiver), Box::new(sender))
            }
            Self::Writable => (Box::new(sender), Box::new(receiver)),
            Self::HungUp => {
                drop(sender);
                (Box::new(receiver), Box::new(()))
            }
            Self::Broken => {
                drop(receiver);
                (Box::new(sender), Box::new(()))
            }
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Priority => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let peer = dial(listener.local_addr().expect("bound"));
                let (socket, _) = listener.accept().expect("somebody dialled");
                SockRef::from(&peer).send_out_of_band(b"!").expect("connected");
                socket.set_nonblocking(true).expect("a socket option");
                (Box::new(mio::net::TcpStream::from_std(socket)), Box::new(peer))
            }
        }
    }
}

/// Notes which callback comes, and does what it was told to.
struct Probe {
    source: Box<dyn mio::event::Source>,
    act: fn(&mut Scope<'_, Vec<String>>) -> Result<Drained, Fault>,
}

impl Probe {
    fn met(&mut self, what: &str, scope: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>) -> Result<Drained, Fault> {
        seen.push(what.into());
        (self.act)(scope)
    }
}

impl Dispatcher<Vec<String>> for Probe {
    fn source(&mut self) -> Source<'_> {
        Source::Mio(&mut *self.source)
    }

    fn readable(&mut self, scope: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>) -> Result<Drained, Fault> {
        self.met("readable", scope, seen)
    }

    fn writable(&mut self, scope: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>) -> Result<Drained, Fault> {
        self.met("writable", scope, seen)
    }

    fn priority(&mut self, scope: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>) -> Result<Drained, Fault> {
        self.met("priority", scope, seen)
    }

    fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>, why: Reason) {
        seen.push(format!("closed: {why}"));
    }
}

/// What one is called with, in a reactor that has another one too, which must not notice.
fn probe(condition: Condition, act: fn(&mut Scope<'_, Vec<String>>) -> Result<Drained, Fault>) -> Vec<String> {
    let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
    let (source, _other_end) = condition.arise();
    let (silent, _its_sender) = {
        let (sender, receiver) = mio::unix::pipe::new().expect("a pipe");
        (Box::new(receiver), sender)
    };
    let mut net = reactor.net();
    let bystander = net.watch(Probe { source: silent, act: |_| Err("nothing happened to it".into()) }).expect("a pipe");
    net.watch(Probe { source, act }).expect("it can be waited for");
    until(&mut reactor, &mut seen, |seen| seen.iter().any(|what| what.starts_with("closed")));
    assert!(reactor.net().is_open(bystander), "{condition:?}: {seen:?}");
    seen
}

/// Stopping leaves the loop from any callback; a failure ends what failed, and nothing else.
#[test]
fn test_readwriteexc() {
    for &condition in Condition::ALL {
        let failed = probe(condition, |_| Err("no spam".into()));
        assert_eq!(failed, [condition.callback(), "closed: failed: no spam"], "{condition:?}");
        let panicked = probe(condition, |_| panic!("no spam at all"));
        assert_eq!(panicked, [condition.callback(), "closed: panicked: no spam at all"], "{condition:?}");

        let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
        let (source, _other_end) = condition.arise();
        let act = |scope: &mut Scope<'_, Vec<String>>| {
            scope.net.stop();
            Ok(Drained::Yes)
        };
        let key = reactor.net().watch(Probe { source, act }).expect("it can be waited for");
        reactor.run(&mut seen).expect("the selector works");
        assert!(seen.contains(&condition.callback().to_owned()), "{condition:?}: {seen:?}");
        assert!(reactor.net().is_open(key), "stopping ends nothing");
    }
}

/// Each condition calls the callback that it belongs to.
#[test]
fn test_readwrite() {
    for &condition in Condition::ALL {
        let act = |scope: &mut Scope<'_, Vec<String>>| {
            scope.close();
            Ok(Drained::Yes)
        };
        assert_eq!(probe(condition, act), [condition.callback(), "closed: finished"], "{condition:?}");
    }
}

/// Reads a file that it owns.
struct FileReader(File);

impl Dispatcher<Vec<String>> for FileReader {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.0.as_fd())
    }

    fn readable(&mut self, scope: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>) -> Result<Drained, Fault> {
        let mut buf = [0; 29];
        match self.0.read(&mut buf)? {
            0 => scope.close(),
            n => seen.push(std::str::from_utf8(&buf[..n])?.into()),
        }
        Ok(Drained::No)
    }

    fn closed(&mut self, _: &mut Scope<'_, Vec<String>>, seen: &mut Vec<String>, why: Reason) {
        let end = self.0.read(&mut [0]).expect("it is still ours, and still open");
        seen.push(format!("{end} more, {why}"));
    }
}

fn file_reader(dir: &TempDir) -> FileReader {
    let path = dir.0.join("parrot");
    fs::write(&path, "It's not dead, it's sleeping!").expect("a temporary file");
    FileReader(File::open(path).expect("just written"))
}

/// A plain file, for which no selector waits, is read to its end.
#[test]
fn test_dispatcher() {
    let dir = TempDir::new();
    let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
    reactor.net().watch(file_reader(&dir)).expect("files are always ready");
    reactor.run(&mut seen).expect("the selector works");
    assert_eq!(seen, ["It's not dead, it's sleeping!", "0 more, finished"]);
}

/// Closing twice does nothing.
#[test]
fn test_close_twice() {
    let dir = TempDir::new();
    let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
    let mut net = reactor.net();
    let key = net.watch(file_reader(&dir)).expect("files are always ready");
    assert!(net.close(key));
    assert!(!net.is_open(key));
    net.close(key);
    reactor.run(&mut seen).expect("the selector works");
    assert_eq!(seen, ["1 more, finished"], "it is told once, and the file is still open");
    assert!(!reactor.net().close(key) && !reactor.net().abort(key), "its name is stale");
}

// ------------------------------------------------------------------------------------------------------------ closing all

fn ten_connections(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> Vec<TcpStream> {
    let (_, addr) = listen(reactor, || recorder(quiet));
    let peers: Vec<TcpStream> = (0..10).map(|_| dial(addr)).collect();
    until(reactor, journal, |journal| journal.calls.len() == 10);
    peers
}

fn assert_closed(peers: &mut [TcpStream]) {
    for peer in peers {
        match peer.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A shutdown closes everything, says so, and leaves nothing.
#[test]
fn test_closeall() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let mut peers = ten_connections(&mut reactor, &mut journal);
    reactor.shutdown(&mut journal);
    assert_eq!(journal.closings(), 10);
    assert!(journal.has(&Call::Closed(Reason::Shutdown.to_string())));
    assert_closed(&mut peers);
    assert!(!reactor.turn(&mut journal, Duration::ZERO).expect("the selector works"), "nothing is left to wait for");
    assert!(format!("{reactor:?}").contains("slots: 0"), "{reactor:?}");
}

/// So does dropping the reactor, which has no state to lend and calls nothing. (There is no global map to forget.)
#[test]
fn test_closeall_default() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let mut peers = ten_connections(&mut reactor, &mut journal);
    drop(reactor);
    assert_eq!(journal.closings(), 0);
    assert_closed(&mut peers);
}

// --------------------------------------------------------------------------------------------------------- text and log

/// What a new connection is like.
#[test]
fn test_basic() {
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        meeting.until(|journal| journal.calls.len() == 2);
        for key in [meeting.client, meeting.guest().expect("it was let in")] {
            let mut net = meeting.reactor.net();
            let link = net.link(key).expect("it is open");
            assert!(!link.is_congested(), "{}", place.family);
            assert_eq!((link.queued(), link.unread()), (0, 0), "{}", place.family);
        }
    }
}

/// The text form says who, with whom and how it stands.
#[test]
fn test_repr() {
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        meeting.until(|journal| journal.calls.len() == 2);
        let (client, address) = (meeting.client, meeting.address.clone());
        let text = format!("{:?}", meeting.reactor.net().link(client).expect("it is open"));
        for part in [format!("key: {client:?}"), format!("peer: {address:?}"), "is_connected: true".into(), "Open".into()] {
            assert!(text.contains(&part), "{}: no `{part}` in {text}", place.family);
        }
    }
}

/// What is logged meanwhile.
fn logged(run: impl FnOnce()) -> Vec<(log::Level, String)> {
    keep_log();
    take_log();
    run();
    take_log()
}

/// What is logged when the server ends in the way that `end` says, upon the client's first words.
fn logged_end(end: fn(&mut Context<'_, Journal>) -> Outcome) -> Vec<(log::Level, String)> {
    logged(|| {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let (_, addr) =
            listen(&mut reactor, move || recorder(move |ctx, _, call| if is_received(call) { end(ctx) } else { Ok(()) }));
        let peer = dial(addr);
        say(&peer, "spam");
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        drop(peer);
        settle(&mut reactor, &mut journal);
    })
}

/// An end is logged once, with the key, the peer, the protocol's type and the reason.
#[test]
fn test_log() {
    let lines = logged_end(|_| Err("I don't like spam!".into()));
    let ends: Vec<_> = lines.iter().filter(|(_, line)| line.contains("I don't like spam!")).collect();
    let [(_, end)] = ends[..] else { panic!("not once: {lines:?}") };
    for part in ["127.0.0.1:", "Recorder", "closed: failed"] {
        assert!(end.contains(part), "no `{part}` in {end}");
    }
    let key = end.split(' ').next().expect("it begins with the key");
    assert!(key.split('.').count() == 2 && key.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()), "{end}");
}

/// The level says whom an end concerns: a clean one concerns those who ask, a failure of yours you, a panic everybody.
#[test]
fn test_log_info() {
    let level_of = |end, text: &str| {
        let lines = logged_end(end);
        let found = lines.iter().find(|(_, line)| line.contains(text));
        found.unwrap_or_else(|| panic!("no `{text}` in {lines:?}")).0
    };
    let clean = level_of(
        |ctx| {
            ctx.close();
            Ok(())
        },
        "closed: finished",
    );
    assert_eq!(clean, log::Level::Debug);
    assert_eq!(level_of(|_| Err("eggs".into()), "closed: failed: eggs"), log::Level::Warn);
    assert_eq!(level_of(|_| panic!("bacon"), "closed: panicked: bacon"), log::Level::Error);
}

/// Implements nothing.
struct Bare {
    terminator: fn() -> Terminator,
}

impl Protocol<Journal> for Bare {
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        ctx.set_terminator((self.terminator)());
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, why: Reason) {
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

/// What nobody handles is said in the log and ends the connection, instead of being dropped in silence.
#[test]
fn test_unhandled() {
    let rows: [(fn() -> Terminator, &str); 2] =
        [(|| Terminator::None, "unexpected bytes"), (|| Terminator::line(100), "unexpected frame")];
    for (terminator, expected) in rows {
        let lines = logged(|| {
            let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
            let (_, addr) = listen(&mut reactor, move || Bare { terminator });
            let peer = dial(addr);
            say(&peer, "spam\n");
            until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
            assert!(matches!(&journal.calls[0].1, Call::Closed(why) if why.contains(expected)), "{journal:?}");
        });
        let warnings: Vec<_> = lines.iter().filter(|(level, _)| *level <= log::Level::Warn).collect();
        assert!(matches!(&warnings[..], [(_, line)] if line.contains(expected) && line.contains("Bare")), "{lines:?}");
    }
}

// ------------------------------------------------------------------------------------------------------- sending, callbacks

/// What is sent one by one before the connection is there arrives joined, and the queue is empty then.
#[test]
fn test_send() {
    let data = "Suppose there isn't a 16-ton weight?";
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        let client = meeting.client;
        for piece in [data, data, "\n"] {
            assert!(meeting.reactor.net().send(client, piece));
        }
        assert_eq!(meeting.reactor.net().link(client).expect("it is open").queued(), 2 * data.len() + 1);
        meeting.until(|journal| journal.received().ends_with(b"\n"));
        assert_eq!(meeting.journal.received(), format!("{data}{data}\n").as_bytes(), "{}", place.family);
        assert_eq!(meeting.reactor.net().link(client).expect("it is open").queued(), 0, "{}", place.family);
    }
}

/// `connected` is called on the side that connects.
#[test]
fn test_handle_connect() {
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        let client = meeting.client;
        meeting.until(|journal| journal.of(client) == [Call::Connected]);
    }
}

/// The factory is called for each client that comes, between callbacks, and sees its address.
#[test]
fn test_handle_accept() {
    for place in places() {
        let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
        let mut net = reactor.net();
        let factory = |_: &mut Net<'_, Vec<Address>>, seen: &mut Vec<Address>, peer: &Address| {
            seen.push(peer.clone());
            Ok(Silent)
        };
        let listener = net.listen_with(place.target.clone(), Listen::new(), factory).expect(place.family);
        let at = net.local(listener).expect("it listens").clone();
        let clients = [net.connect(&at, Silent), net.connect(&at, Silent)];
        until(&mut reactor, &mut seen, |seen| seen.len() == 2);
        let locals = clients.map(|key| reactor.net().local(key).expect("it is open").clone());
        assert!(locals.iter().all(|local| seen.contains(local)), "{}: {locals:?}, {seen:?}", place.family);
    }
}

struct Silent;
impl<S> Protocol<S> for Silent {}

/// `connected` is called on the side that accepts, which may close at once.
#[test]
fn test_handle_accepted() {
    for place in places() {
        let close = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                ctx.close();
            }
            Ok(())
        };
        let mut meeting = Meeting::at(&place, close, quiet);
        meeting.until(|journal| journal.has(&Call::Closed(Reason::Finish.to_string())));
        let guest = meeting.guest().expect("it was let in");
        assert_eq!(meeting.journal.of(guest), [Call::Connected, Call::Closed("finished".into())], "{}", place.family);
    }
}

/// `received` is called with what comes.
#[test]
fn test_handle_read() {
    for place in places() {
        let greet = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                ctx.send([b'x'; 1024]);
            }
            Ok(())
        };
        let mut meeting = Meeting::at(&place, greet, quiet);
        meeting.until(|journal| journal.received() == [b'x'; 1024]);
        assert!(meeting.client()[1..].iter().all(is_received), "{}", place.family);
    }
}

/// `writable` is called, once, when the kernel has taken what was too much for it; not when nothing was sent (flaw 8).
#[test]
fn test_handle_write() {
    const MUCH: usize = 16 << 20;
    for place in places() {
        let greet = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                ctx.send(vec![b'x'; MUCH]);
                assert!(ctx.is_congested());
            }
            Ok(())
        };
        let mut meeting = Meeting::at(&place, greet, quiet);
        let client = meeting.client;
        let mut got = 0;
        meeting.until(|journal| {
            // The bytes themselves are not kept: only how many there were.
            for (_, call) in &mut journal.calls {
                if let Call::Received(bytes) = call {
                    got += std::mem::take(bytes).len();
                }
            }
            got == MUCH
        });
        settle(&mut meeting.reactor, &mut meeting.journal);
        let writables: Vec<_> = meeting.journal.calls.iter().filter(|(_, call)| *call == Call::Writable).collect();
        assert_eq!(writables.len(), 1, "{}", place.family);
        assert_ne!(writables[0].0, client, "{}: the client sent nothing", place.family);
    }
}

/// When the other end closes, `eof` is called and then `closed`, once each.
#[test]
fn test_handle_close() {
    for place in places() {
        let close = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                ctx.close();
            }
            Ok(())
        };
        let mut meeting = Meeting::at(&place, close, quiet);
        meeting.until(|journal| journal.closings() == 2);
        settle(&mut meeting.reactor, &mut meeting.journal);
        let expected = [Call::Connected, Call::Eof(Vec::new()), Call::Closed(Reason::Eof.to_string())];
        assert_eq!(meeting.client(), expected, "{}", place.family);
    }
}

/// A connection that the other end has broken off ends with the system's error, once, however often it is written to.
#[test]
fn test_handle_close_after_conn_broken() {
    for place in places() {
        let abort = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if is_received(call) {
                ctx.abort();
            }
            Ok(())
        };
        let go_on = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                let key = ctx.key;
                ctx.net.every(Duration::from_millis(1), move |net, _| _ = net.send(key, [0; 128]));
            }
            Ok(()) // to `eof` as well: where there is no reset (a Unix socket), writing tells the rest
        };
        let mut meeting = Meeting::at(&place, abort, go_on);
        let client = meeting.client;
        meeting.until(|journal| journal.of(client).iter().any(is_closed));
        settle(&mut meeting.reactor, &mut meeting.journal);
        let calls = meeting.client();
        assert_eq!(calls.iter().filter(|call| is_closed(call)).count(), 1, "{}: {calls:?}", place.family);
        let broken = [libc::ECONNRESET, libc::EPIPE].map(|errno| io::Error::from_raw_os_error(errno).to_string());
        let Some(Call::Closed(why)) = calls.last() else { panic!("{}: {calls:?}", place.family) };
        assert!(broken.iter().any(|error| why.contains(error)), "{}: {why}", place.family);
    }
}

/// Receives urgent data, which comes beside the stream.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct Urgent(TcpStream);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Dispatcher<Vec<u8>> for Urgent {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.0.as_fd())
    }

    fn priority(&mut self, _: &mut Scope<'_, Vec<u8>>, seen: &mut Vec<u8>) -> Result<Drained, Fault> {
        // What is in the buffer afterwards cannot be looked at without `unsafe`: that there was a byte must do.
        let bytes = SockRef::from(&self.0).recv_out_of_band(&mut [MaybeUninit::uninit()])?;
        seen.extend(vec![b'!'; bytes]);
        Ok(Drained::Yes)
    }
}

/// Urgent data calls `priority` of a dispatcher; a protocol does not get it, and reads on behind it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn test_handle_expt() {
    for place in ip_places() {
        let target = place.target.clone();
        let Target::Text(text) = &target else { panic!("an IP address") };
        let listener = TcpListener::bind(text).expect("a free port");
        let peer = dial(listener.local_addr().expect("bound"));
        let (socket, _) = listener.accept().expect("somebody dialled");
        socket.set_nonblocking(true).expect("a socket option");
        let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
        reactor.net().watch(Urgent(socket)).expect("a socket");
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, b"", "nothing yet");
        SockRef::from(&peer).send_out_of_band(&[244]).expect("connected");
        until(&mut reactor, &mut seen, |seen| !seen.is_empty());
        settle(&mut reactor, &mut seen);
        assert_eq!(seen, b"!", "{}", place.family);

        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let mut net = reactor.net();
        let listener = net.listen(target, || recorder(quiet)).expect(place.family);
        let addr = net.local(listener).and_then(Address::ip).expect("an IP listener");
        let peer = dial(addr);
        say(&peer, "before ");
        SockRef::from(&peer).send_out_of_band(&[244]).expect("connected");
        say(&peer, "after");
        until(&mut reactor, &mut journal, |journal| journal.received() == b"before after");
    }
}

/// A failing callback ends its own connection, with what it said.
#[test]
fn test_handle_error() {
    for place in places() {
        for (fail, expected) in [
            ((|| Err("1.0 / 0".into())) as fn() -> Outcome, "failed: 1.0 / 0"),
            (|| panic!("division by zero"), "panicked: division by zero"),
        ] {
            let on = move |_: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| match call {
                Call::Connected => fail(),
                _ => Ok(()),
            };
            let mut meeting = Meeting::at(&place, quiet, on);
            meeting.until(|journal| journal.closings() == 2);
            assert_eq!(meeting.client(), [Call::Connected, Call::Closed(expected.into())], "{}", place.family);
            assert!(meeting.reactor.net().is_open(meeting.listener), "{}", place.family);
        }
    }
}

/// What is open, and who the ends are, over a life.
#[test]
fn test_connection_attributes() {
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        let (listener, client, address) = (meeting.listener, meeting.client, meeting.address.clone());
        let mut net = meeting.reactor.net();
        assert!(net.is_open(listener) && net.is_open(client), "{}: connecting is open", place.family);
        assert_eq!(net.peer(client), Some(&address), "{}: the target, before it is the peer", place.family);
        assert!(net.link(listener).is_none(), "a listener is no connection");

        meeting.until(|journal| journal.calls.len() == 2);
        let guest = meeting.guest().expect("it was let in");
        let mut net = meeting.reactor.net();
        assert!(net.is_open(listener) && net.is_open(client) && net.is_open(guest), "{}", place.family);
        assert_eq!(net.peer(client), Some(&address), "{}", place.family);
        assert_eq!(net.local(guest), Some(&address), "{}", place.family);
        assert_eq!(net.peer(guest), net.local(client), "{}", place.family);

        assert!(net.close(client));
        assert!(!net.is_open(client) && net.is_open(listener), "{}", place.family);
        assert!(net.link(client).is_none() && !net.send(client, "late") && !net.close(client), "{}", place.family);
        assert_eq!(net.peer(client), Some(&address), "{}: still known until `closed`", place.family);
        meeting.until(|journal| journal.closings() == 2);

        let mut net = meeting.reactor.net();
        assert!(net.is_open(listener) && net.close(listener) && !net.is_open(listener), "{}", place.family);
        settle(&mut meeting.reactor, &mut meeting.journal);
        let mut net = meeting.reactor.net();
        assert!(net.peer(client).is_none() && net.local(listener).is_none() && !net.close(listener), "{}", place.family);
    }
}

/// Sockets do not block, and are not inherited by other programs: those that we open and those that we accept.
#[test]
fn test_create_socket() {
    for place in places() {
        let mut meeting = Meeting::at(&place, quiet, quiet);
        meeting.until(|journal| journal.calls.len() == 2);
        for key in [meeting.client, meeting.guest().expect("it was let in")] {
            let mut net = meeting.reactor.net();
            let link = net.link(key).expect("it is open");
            let is_right = link.with_socket(|socket| {
                let is_stream = socket.r#type()? == socket2::Type::STREAM;
                let domain = match &meeting.address {
                    Address::Ip(addr) => socket2::Domain::for_address(*addr),
                    _ => socket2::Domain::UNIX,
                };
                Ok::<_, io::Error>(is_stream && socket.domain()? == domain && socket.nonblocking()? && is_cloexec(&socket))
            });
            assert!(is_right.expect("there is a socket").expect("it says"), "{}", place.family);
        }
    }
}

/// O_CLOEXEC, as Linux shows it.
fn is_cloexec(socket: &SockRef<'_>) -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", socket.as_raw_fd())).expect("proc(5)");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("proc(5)");
    i32::from_str_radix(flags.trim(), 8).expect("octal") & libc::O_CLOEXEC != 0
}

/// Where somebody listens nobody else can, and the error says where; afterwards somebody can again.
#[test]
fn test_bind() {
    for place in places() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let mut net = reactor.net();
        let first = net.listen(place.target.clone(), || recorder(quiet)).expect(place.family);
        let taken = net.local(first).expect("it listens").clone();
        let error = net.listen(&taken, || recorder(quiet)).expect_err(place.family);
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{}: {error}", place.family);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        assert!(net.close(first));
        settle(&mut reactor, &mut journal);
        if let Address::Unix(Some(path)) = &taken {
            assert!(!path.exists(), "the socket file goes with the listener");
        }
        reactor.net().listen(&taken, || recorder(quiet)).expect("nobody has it any more");
    }
}

/// A server that comes back at once gets its port, although the kernel still keeps an old connection there (TIME_WAIT).
#[test]
fn test_set_reuse_addr() {
    for place in ip_places() {
        // Another process may take the port in between: one time out of ten is enough.
        assert!((0..10).any(|_| listens_again(&place)), "{}", place.family);
    }
}

/// Whether the port could be listened on again, though it could not without the option.
fn listens_again(place: &Place) -> bool {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let mut net = reactor.net();
    let close = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
        if *call == Call::Connected {
            ctx.close(); // whoever ends first keeps the TIME_WAIT
        }
        Ok(())
    };
    let listener = net.listen(place.target.clone(), move || recorder(close)).expect(place.family);
    let addr = net.local(listener).and_then(Address::ip).expect("an IP listener");
    let mut peer = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
    drop(peer);
    reactor.net().close(listener);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    until_net(&mut reactor, &mut journal, |net, _| !net.is_open(listener));
    settle(&mut reactor, &mut journal);
    assert!(format!("{reactor:?}").contains("slots: 0"), "nothing lingers: {reactor:?}");
    is_address_in_use(addr) && reactor.net().listen(addr, || recorder(quiet)).is_ok()
}

/// To somebody who does not set SO_REUSEADDR.
fn is_address_in_use(addr: SocketAddr) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).expect("a socket");
    matches!(socket.bind(&addr.into()), Err(error) if error.kind() == ErrorKind::AddrInUse)
}

/// Clients that reset their connection before it is accepted do not disturb the server.
#[test]
fn test_quick_connect() {
    for place in ip_places() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let mut net = reactor.net();
        let echo = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
            match call {
                Call::Received(bytes) => ctx.send(bytes),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        };
        let listener = net.listen(place.target.clone(), move || recorder(echo)).expect(place.family);
        let addr = net.local(listener).and_then(Address::ip).expect("an IP listener");
        for n in 0..50 {
            let peer = dial(addr);
            if n % 2 == 0 { reset(peer) } else { drop(peer) }
        }
        let mut last = dial(addr);
        say(&last, "still there?");
        let reply = read_exactly(&mut reactor, &mut journal, &mut last, 12);
        assert_eq!(reply, b"still there?", "{}", place.family);
        drop(last);
        let guests = journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count();
        until(&mut reactor, &mut journal, |journal| journal.closings() == guests);
        assert!(reactor.net().is_open(listener), "{}", place.family);
    }
}

// ------------------------------------------------------------------------------------------------------- test_socketserver

/// Another thread can always end the serving: before it began, while it sleeps, and while it serves.
#[test]
fn test_shutdown() {
    for _ in 0..20 {
        let (send, receive) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
            let (_, addr) = listen(&mut reactor, || recorder(quiet));
            send.send((reactor.remote(), addr)).expect("somebody waits for it");
            reactor.run(&mut journal).expect("the selector works");
            reactor.shutdown(&mut journal);
            journal
        });
        let (remote, addr) = receive.recv().expect("the server says where it is");
        let _peer = dial(addr);
        remote.stop().expect("it is running");
        let journal = server.join().expect("it did not panic");
        assert_eq!(journal.closings(), journal.keys().len(), "{journal:?}");
    }
}

/// And so can a handler, from the inside.
#[test]
fn test_shutdown_from_a_handler() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (listener, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            if is_received(call) {
                ctx.net.stop();
            }
            Ok(())
        })
    });
    let peer = dial(addr);
    say(&peer, "shut down");
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.received(), b"shut down");
    assert!(reactor.net().is_open(listener), "stopping closes nothing");
}

/// A server that is closed before it served anybody: nothing is left, and `run` returns.
#[test]
fn test_close_immediately() {
    for place in places() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let mut net = reactor.net();
        let listener = net.listen(place.target.clone(), || recorder(quiet)).expect(place.family);
        assert!(net.close(listener));
        reactor.run(&mut journal).expect("the selector works");
        assert!(format!("{reactor:?}").contains("slots: 0"), "{}: {reactor:?}", place.family);
    }
}

/// A server that cannot be made leaves nothing behind.
#[test]
fn test_tcpserver_bind_leak() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound");
    for _ in 0..100 {
        reactor.net().listen(addr, || Silent).expect_err("it is taken");
        reactor.net().listen("127.0.0.1:-1", || Silent).expect_err("that is not a port");
    }
    assert!(format!("{reactor:?}").contains("slots: 0"), "{reactor:?}");
}

/// verify_request that says no is a factory that refuses: the client is told and let go, and no protocol is made.
#[test]
fn test_shutdown_request_called_if_verify_request_false() {
    for words in [
        "",
        "421 not you
",
    ] {
        let (mut reactor, mut refused) = (Reactor::new().expect("a selector"), 0);
        let mut net = reactor.net();
        let factory = move |_: &mut Net<'_, u32>, refused: &mut u32, _: &Address| -> Result<Silent, Refusal> {
            *refused += 1;
            Err(words.into())
        };
        let listener = net.listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
        let addr = net.local(listener).and_then(Address::ip).expect("an IP listener");
        let mut peer = dial(addr);
        assert_eq!(read_to_end(&mut reactor, &mut refused, &mut peer), words.as_bytes());
        assert_eq!(refused, 1);
        drop(peer);
        drop(dial(addr));
        until(&mut reactor, &mut refused, |refused| *refused == 2);
        until_net(&mut reactor, &mut refused, |net, _| format!("{net:?}").contains("slots: 1"));
        assert!(reactor.net().is_open(listener));
    }
}

/// Small replies leave at once, and a large one is not cut short, however slowly it is read.
#[test]
fn test_write() {
    const BIG: usize = 16 << 20;
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            match call {
                Call::Connected => ctx.send(
                    "write data
",
                ),
                Call::Received(_) => {
                    ctx.send(vec![0; BIG]);
                    ctx.close();
                }
                _ => {}
            }
            Ok(())
        })
    });
    let mut peer = dial(addr);
    let first = read_exactly(&mut reactor, &mut journal, &mut peer, 11);
    assert_eq!(
        first,
        b"write data
",
        "without flushing"
    );
    say(
        &peer,
        "client response
",
    );
    let rest = read_to_end(&mut reactor, &mut journal, &mut peer);
    assert!(rest.len() == BIG && rest.iter().all(|&byte| byte == 0), "{} of {BIG} bytes", rest.len());
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Closed(Reason::Finish.to_string())));
}
