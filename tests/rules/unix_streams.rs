//! Streams of Unix sockets, where they differ from TCP.

use crate::common::{Call, Ctx, Echo, Journal, ms, quiet, recorder, start, turn, until};
use mainspring::{Protocol, Reactor};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mainspring-{name}-{}", std::process::id()))
}

/// Somebody who has come to a listener of such protocols.
fn guest<S, P: Protocol<S>>(reactor: &mut Reactor<S>, name: &str, factory: impl FnMut() -> P + 'static) -> UnixStream {
    reactor.net().listen(path(name), factory).expect("a path of its own");
    let peer = UnixStream::connect(path(name)).expect("it listens");
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// Somebody to whom such a protocol has connected.
fn host<S>(reactor: &mut Reactor<S>, name: &str, protocol: impl Protocol<S>) -> UnixStream {
    let listener = UnixListener::bind(path(name)).expect("a path of its own");
    reactor.net().connect(path(name), protocol);
    std::fs::remove_file(path(name)).expect("it was there");
    let (peer, _) = listener.accept().expect("somebody has connected");
    peer.set_nonblocking(true).expect("a socket option");
    peer
}

/// Reads this many bytes while the reactor turns.
#[track_caller]
fn read_exactly<S>(reactor: &mut Reactor<S>, state: &mut S, peer: &mut UnixStream, bytes: usize) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    until(reactor, state, |_| {
        match peer.read(&mut buf) {
            Ok(bytes) => all.extend_from_slice(&buf[..bytes]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        all.len() >= bytes
    });
    all
}

/// This many messages there and back, each after the one before has been read: how many events that took.
fn events_of_echoes(reactor: &mut Reactor<()>, peer: &mut UnixStream, messages: u64) -> u64 {
    let before = reactor.stats().events;
    for _ in 0..messages {
        peer.write_all(b"paced").expect("there is room");
        assert_eq!(read_exactly(reactor, &mut (), peer, 5), b"paced");
        turn(reactor, &mut (), ms(0)); // in which it would hear that there is room again
    }
    reactor.stats().events - before
}

/// The kernel says that there is room whenever a peer has read: each message woke the loop twice.
#[test]
fn a_message_there_and_back_is_one_event() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut accepted = guest(&mut reactor, "echo-accepted", || Echo);
    let mut opened = host(&mut reactor, "echo-opened", Echo);
    for (peer, who) in [(&mut accepted, "accepted"), (&mut opened, "opened")] {
        events_of_echoes(&mut reactor, peer, 1); // its beginning
        let events = events_of_echoes(&mut reactor, peer, 1_000);
        assert!((1_000..=1_010).contains(&events), "{who}: {events}");
    }
}

fn floods(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> mainspring::Outcome {
    if *call == Call::Connected {
        ctx.send(vec![7; MUCH]);
    }
    Ok(())
}

/// More than the kernel takes at once, many times over.
const MUCH: usize = 4 << 20;

/// Room is asked for while a write waits for it, as often as one does, and no longer.
#[test]
fn what_finds_no_room_leaves_when_the_peer_has_read() {
    type Come = fn(&mut Reactor<Journal>) -> UnixStream;
    let ways: [Come; 2] = [
        |reactor| guest(reactor, "flood-accepted", || recorder(floods)),
        |reactor| host(reactor, "flood-opened", recorder(floods)),
    ];
    for come in ways {
        let (mut reactor, mut journal) = start();
        let mut peer = come(&mut reactor);
        assert!(read_exactly(&mut reactor, &mut journal, &mut peer, MUCH).iter().all(|&byte| byte == 7));
        let key = journal.calls[0].0;
        for round in 0..3 {
            assert!(reactor.net().send(key, vec![round; MUCH]));
            assert!(read_exactly(&mut reactor, &mut journal, &mut peer, MUCH).iter().all(|&byte| byte == round));
        }
        let before = reactor.stats().events;
        reactor.net().send(key, "small");
        assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 5), b"small");
        turn(&mut reactor, &mut journal, ms(0));
        assert_eq!(reactor.stats().events, before, "nobody asked for room");
    }
}

/// With a descriptor, which nobody takes.
fn send_with_descriptor(peer: &UnixStream, bytes: &[u8]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    let descriptors = [peer.as_fd()];
    assert!(passed.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(peer, &[IoSlice::new(bytes)], &mut passed, SendFlags::empty()).expect("there is room");
    assert_eq!(sent, bytes.len());
}

/// A read ends early where a descriptor was passed, and that is not the end of what there is.
#[test]
fn bytes_behind_passed_descriptors_come() {
    let (mut reactor, mut journal) = start();
    let mut peer = guest(&mut reactor, "passed", || recorder(quiet));
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    send_with_descriptor(&peer, b"abc");
    send_with_descriptor(&peer, b"def");
    peer.write_all(b"ghi").expect("there is room");
    until(&mut reactor, &mut journal, |journal| journal.received() == b"abcdefghi");
}
