//! What the tests share: turning until a condition holds, a protocol that writes down what it is called with, peers made
//! of std's sockets.
#![allow(dead_code, unused_imports)] // each test binary uses a part of it

#[cfg(feature = "sim")]
mod dialogue;
mod folder;
mod guests;
mod local;
mod logged;
mod skips;
mod uninterrupted;

#[cfg(feature = "sim")]
pub(crate) use dialogue::*;
pub(crate) use folder::Folder;
pub(crate) use guests::*;
pub(crate) use local::{LocalStream, Watched, local_pair, tcp_pair};
pub(crate) use logged::{keep_log, logged, take_log};
pub(crate) use skips::{descriptors_max, has_room_for, skip};
pub(crate) use uninterrupted::uninterrupted;

use mainspring::{Context, Key, Limit, Net, Outcome, Protocol, Reactor, Reason};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// No test waits longer for what it expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Turns until `done`, in short waits; panics when it takes too long.
#[track_caller]
pub(crate) fn until<S>(reactor: &mut Reactor<S>, state: &mut S, mut done: impl FnMut(&mut S) -> bool) {
    let began = Instant::now();
    while !done(state) {
        assert!(began.elapsed() < PATIENCE, "the condition did not come true");
        reactor.turn(state, Duration::from_millis(5)).expect("the selector works");
    }
}

/// The same for a condition that looks at the network.
#[track_caller]
pub(crate) fn until_net<S>(reactor: &mut Reactor<S>, state: &mut S, mut done: impl FnMut(&mut Net<'_, S>, &mut S) -> bool) {
    let began = Instant::now();
    while !done(&mut reactor.net(), state) {
        assert!(began.elapsed() < PATIENCE, "the condition did not come true");
        reactor.turn(state, Duration::from_millis(5)).expect("the selector works");
    }
}

/// Turns until nothing is ready any more: this many turns that do not sleep, none of which may find anything to do for long.
pub(crate) fn settle<S>(reactor: &mut Reactor<S>, state: &mut S) {
    for _ in 0..20 {
        reactor.turn(state, Duration::from_millis(1)).expect("the selector works");
    }
}

/// What a protocol was called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Connected,
    /// TLS, in mid-stream.
    Secured,
    Received(Vec<u8>),
    Frame(Vec<u8>),
    Writable,
    Exceeded(Limit),
    Draining,
    Eof(Vec<u8>),
    /// The reason's text: `Reason` cannot be compared.
    Closed(String),
}

/// Everything that any protocol was called with, in order.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) calls: Vec<(Key, Call)>,
}

impl Journal {
    pub(crate) fn note(&mut self, key: Key, call: Call) {
        self.calls.push((key, call));
    }

    /// What one of them was called with.
    pub(crate) fn of(&self, key: Key) -> Vec<Call> {
        self.calls.iter().filter(|(owner, _)| *owner == key).map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn frames(&self) -> Vec<String> {
        let frames = self.calls.iter().filter_map(|(_, call)| match call {
            Call::Frame(frame) => Some(String::from_utf8_lossy(frame).into_owned()),
            _ => None,
        });
        frames.collect()
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        let pieces = self.calls.iter().filter_map(|(_, call)| match call {
            Call::Received(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        pieces.collect::<Vec<_>>().concat()
    }

    pub(crate) fn closings(&self) -> usize {
        self.calls.iter().filter(|(_, call)| matches!(call, Call::Closed(_))).count()
    }

    pub(crate) fn has(&self, wanted: &Call) -> bool {
        self.calls.iter().any(|(_, call)| call == wanted)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.calls.iter().map(|(key, _)| *key).collect();
        keys.dedup();
        keys
    }
}

/// Writes down what it is called with; `on` is asked what to do.
pub(crate) struct Recorder<F> {
    pub(crate) on: F,
}

/// A protocol that notes each call in the journal and then runs `on`.
pub(crate) fn recorder<F>(on: F) -> Recorder<F>
where
    F: FnMut(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + 'static,
{
    Recorder { on }
}

impl<F> Recorder<F>
where
    F: FnMut(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + 'static,
{
    fn noted(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, call: Call) -> Outcome {
        journal.note(ctx.key, call.clone());
        (self.on)(ctx, journal, &call)
    }
}

impl<F> Protocol<Journal> for Recorder<F>
where
    F: FnMut(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + 'static,
{
    fn connected(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Connected)
    }

    #[cfg(feature = "tls")]
    fn secured(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Secured)
    }

    fn received(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, bytes: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Received(bytes.to_vec()))
    }

    fn frame(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, frame: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Frame(frame.to_vec()))
    }

    fn writable(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Writable)
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, limit: Limit) -> Outcome {
        self.noted(ctx, journal, Call::Exceeded(limit))
    }

    fn draining(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Draining)
    }

    fn eof(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, tail: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Eof(tail.to_vec()))
    }

    fn closed(&mut self, ctx: &mut Context<'_, Journal>, journal: &mut Journal, why: Reason) {
        let _ = self.noted(ctx, journal, Call::Closed(why.to_string()));
    }
}

/// Listens on a free port of the loopback.
pub(crate) fn listen<S, P: Protocol<S>>(reactor: &mut Reactor<S>, factory: impl FnMut() -> P + 'static) -> (Key, SocketAddr) {
    let mut net = reactor.net();
    let key = net.listen("127.0.0.1:0", factory).expect("a free port");
    (key, net.local(key).and_then(|address| address.ip()).expect("an IP listener"))
}

/// A blocking client that does not wait for ever.
pub(crate) fn dial(to: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(to).expect("somebody listens");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    peer.set_write_timeout(Some(PATIENCE)).expect("a socket option");
    peer.set_nodelay(true).expect("a socket option");
    peer
}

/// Resets the connection instead of ending it.
pub(crate) fn reset(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket option");
}

/// What the peer gets until its end, while the reactor turns. `Err` of the read counts as the end.
#[track_caller]
pub(crate) fn read_to_end<S>(reactor: &mut Reactor<S>, state: &mut S, peer: &mut TcpStream) -> Vec<u8> {
    peer.set_nonblocking(true).expect("a socket option");
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    until(reactor, state, |_| {
        loop {
            match peer.read(&mut buf) {
                Ok(0) => return true,
                Ok(n) => all.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    });
    peer.set_nonblocking(false).expect("a socket option");
    all
}

/// Exactly this many bytes, while the reactor turns.
#[track_caller]
pub(crate) fn read_exactly<S>(reactor: &mut Reactor<S>, state: &mut S, peer: &mut TcpStream, bytes: usize) -> Vec<u8> {
    peer.set_nonblocking(true).expect("a socket option");
    let (mut all, mut have) = (vec![0; bytes], 0);
    until(reactor, state, |_| {
        loop {
            if have == bytes {
                return true;
            }
            match peer.read(&mut all[have..]) {
                Ok(0) => panic!("the stream ended after {have} of {bytes} bytes"),
                Ok(n) => have += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("after {have} of {bytes} bytes: {error}"),
            }
        }
    });
    peer.set_nonblocking(false).expect("a socket option");
    all
}

pub(crate) fn say(mut peer: &TcpStream, text: impl AsRef<[u8]>) {
    peer.write_all(text.as_ref()).expect("the peer takes it");
}

/// Runs this test once more, alone in a process of its own, after these commands of a shell; whether this is that process.
#[track_caller]
pub(crate) fn is_alone(test: &str, first: &str) -> bool {
    const IS_ALONE: &str = "MAINSPRING_TEST_IS_ALONE";
    if std::env::var_os(IS_ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test is a program");
    let mut command = std::process::Command::new(if first.is_empty() { program.as_path() } else { "sh".as_ref() });
    if !first.is_empty() {
        command.args(["-c", &format!("{first} exec \"$0\" \"$@\"")]).arg(&program);
    }
    let output =
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(IS_ALONE, "1").output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it ran");
    false
}
