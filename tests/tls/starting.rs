//! TLS in mid-stream (STARTTLS): what was queued leaves in clear, what stands behind what asked for it is refused.

use crate::{
    common::{
        Call, Ctx, FINISHED, Folder, Journal, On, PEER_FINISHED, Recorder, SHORT, closing_of, count, dial, ends_with, frame,
        guest, hang_up, is_closed, ms, note, pass, quiet, recorder, say, settle, start, start_with, tell, until,
    },
    configs::sides,
    ending::both_versions,
    peers::{End, Peer, Talker},
    talking::{answers, listen_how},
};
use mainspring::{
    Adopted, Config, Key, Listen, Outcome, Produced, Reactor, Terminator, TlsClient,
    rustls::{ClientConfig, pki_types::ServerName},
};
use std::{
    cell::RefCell,
    fs::File,
    net::{TcpListener, TcpStream},
    sync::Arc,
};

const CLEAR_BYTES: &str = "could not agree on TLS: bytes came in clear behind the request for TLS";

fn named(client: Arc<ClientConfig>) -> TlsClient {
    TlsClient::new(client).server_name(ServerName::try_from("localhost").expect("a name"))
}

/// Lines; STARTTLS begins, in place.
fn in_place(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(100)),
        Call::Secured => note(journal, ctx.key, "it is secured"),
        Call::Frame(line) if line == b"STARTTLS" => {
            ctx.send("go ahead\r\n");
            assert!(ctx.link().start_tls(sides().0));
        }
        Call::Frame(line) => {
            let line = line.clone();
            ctx.send(line);
            ctx.send("\r\n");
        }
        Call::Eof(_) => ctx.close(),
        _ => {}
    }
    Ok(())
}

/// The same, with a successor.
fn with_successor(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Frame(line) if line == b"STARTTLS" => {
            ctx.send("go ahead\r\n");
            ctx.start_tls(sides().0, recorder(answers));
            Ok(())
        }
        _ => in_place(ctx, journal, call),
    }
}

/// Reads in clear until this has come, exactly.
#[track_caller]
fn reads_in_clear(reactor: &mut Reactor<Journal>, journal: &mut Journal, socket: &mut TcpStream, text: &str) {
    let got = crate::common::read_exactly(reactor, journal, socket, text.len());
    assert_eq!(String::from_utf8_lossy(&got), text);
}

/// A guest that has asked for it, and was told to go ahead.
#[track_caller]
fn starts(on: On) -> (Reactor<Journal>, Journal, Key, TcpStream) {
    let (mut reactor, mut journal) = start();
    let (key, mut socket) = guest(&mut reactor, &mut journal, on);
    say(&socket, "STARTTLS\r\n");
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "go ahead\r\n");
    (reactor, journal, key, socket)
}

/// It begins by what it receives, and has said all in TLS when its side ends.
#[track_caller]
fn ends_its_side_in_tls(on: On) -> (Reactor<Journal>, Journal, Key, Peer) {
    let (mut reactor, mut journal) = start();
    let (key, socket) = guest(&mut reactor, &mut journal, on);
    say(&socket, "begin");
    until(&mut reactor, &mut journal, |journal| !journal.received().is_empty());
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    assert_eq!(peer.ends(&mut reactor, &mut journal), End::Fin);
    assert_eq!((peer.talker.plain.as_slice(), peer.talker.is_told_end), (&b"behind it"[..], true));
    (reactor, journal, key, peer)
}

#[test]
fn in_place_the_same_protocol_goes_on() {
    for client in both_versions() {
        let (mut reactor, mut journal, key, socket) = starts(in_place);
        let mut peer = Peer::new(Talker::client(client), socket);
        peer.talker.says("in its lines\r\n");
        peer.hears(&mut reactor, &mut journal, "in its lines\r\n");
        let told = [Call::Connected, frame("STARTTLS"), Call::Secured, frame("it is secured"), frame("in its lines")];
        assert_eq!(journal.of(key), told);
        peer.says_goodbye();
        ends_with(&mut reactor, &mut journal, key, PEER_FINISHED);
        assert_eq!(peer.ends(&mut reactor, &mut journal), End::Fin);
        assert!(peer.talker.is_told_end);
    }
}

#[test]
fn a_successor_is_told_that_it_is_connected_after_the_handshake() {
    for client in both_versions() {
        let (mut reactor, mut journal, key, socket) = starts(with_successor);
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.of(key), [Call::Connected, frame("STARTTLS")]);
        let mut peer = Peer::new(Talker::client(client), socket);
        peer.talker.says("not in lines");
        peer.hears(&mut reactor, &mut journal, "not in lines");
        assert_eq!(journal.of(key)[2..], [Call::Connected, Call::Received(b"not in lines".to_vec())]);
    }
}

/// The program asks for TLS as a client, and the test is the server.
fn asks(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::line(100));
            ctx.send("STARTTLS\r\n");
        }
        Call::Frame(line) if line == b"go ahead" => {
            ctx.start_tls(named(sides().1), recorder(answers));
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn a_client_asks_for_it() {
    let (mut reactor, mut journal) = start();
    let (key, listener) = crate::common::opened(&mut reactor, asks);
    let (mut socket, _) = listener.accept().expect("it comes");
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "STARTTLS\r\n");
    say(&socket, "go ahead\r\n");
    let mut peer = Peer::new(Talker::server(sides().0), socket);
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");
    assert_eq!(count(&journal, key, &Call::Connected), 2);
}

#[test]
fn a_whole_or_half_line_behind_starttls_is_refused() {
    for behind in ["RESET\r\n", "RES", "\0"] {
        for on in [in_place as On, with_successor] {
            let (mut reactor, mut journal) = start();
            let (key, mut socket) = guest(&mut reactor, &mut journal, on);
            say(&socket, format!("STARTTLS\r\n{behind}"));
            ends_with(&mut reactor, &mut journal, key, CLEAR_BYTES);
            assert_eq!(journal.frames(), ["STARTTLS"]);
            let got = crate::common::read_to_end(&mut reactor, &mut journal, &mut socket);
            assert!(b"go ahead\r\n".starts_with(&got), "{got:?}");
        }
        let (mut reactor, mut journal) = start();
        let (key, listener) = crate::common::opened(&mut reactor, asks);
        let (mut socket, _) = listener.accept().expect("it comes");
        reads_in_clear(&mut reactor, &mut journal, &mut socket, "STARTTLS\r\n");
        say(&socket, format!("go ahead\r\n{behind}"));
        ends_with(&mut reactor, &mut journal, key, CLEAR_BYTES);
        assert_eq!(crate::common::read_to_end(&mut reactor, &mut journal, &mut socket), b"", "not even a hello");
    }
}

/// What comes in a segment of its own, and in clear, is no TLS, whether the handshake has begun or not.
#[test]
fn what_comes_in_clear_later_is_refused_too() {
    let (mut reactor, mut journal, key, socket) = starts(in_place);
    say(&socket, "RESET\r\n");
    ends_with(&mut reactor, &mut journal, key, "could not agree on TLS: the peer does not speak TLS: it began with `RESET`");
    assert_eq!(journal.frames(), ["STARTTLS"]);
}

#[test]
fn start_tls_waits_for_a_long_queue() {
    const MUCH: usize = 1 << 20;
    thread_local! { static PATH: RefCell<Option<std::path::PathBuf>> = const { RefCell::new(None) } }
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Received(_) if ctx.tls().is_none() => {
                let path = PATH.with_borrow(|path| path.clone()).expect("it was set");
                ctx.send(vec![b'a'; MUCH]);
                let mut left = MUCH;
                ctx.produce(move |out: &mut Vec<u8>| {
                    let piece = left.min(10_000);
                    out.extend(std::iter::repeat_n(b'b', piece));
                    left -= piece;
                    Ok(if left == 0 { Produced::Done } else { Produced::More })
                });
                ctx.send_file(File::open(path)?, 0..MUCH as u64);
                ctx.send("the last in clear");
                assert!(ctx.link().start_tls(sides().0));
                ctx.send("the first behind it");
                let mut is_done = false;
                ctx.produce(move |out: &mut Vec<u8>| {
                    assert!(!std::mem::replace(&mut is_done, true));
                    out.extend(std::iter::repeat_n(b'd', MUCH));
                    Ok(Produced::Done)
                });
            }
            Call::Secured => ctx.send("told"),
            _ => return answers(ctx, journal, call),
        }
        Ok(())
    }
    let folder = Folder::new("start-tls-queue");
    let path = folder.path("c");
    std::fs::write(&path, vec![b'c'; MUCH]).expect("a file");
    PATH.set(Some(path));
    let mut wanted = [b'a', b'b', b'c'].map(|byte| vec![byte; MUCH]).concat();
    wanted.extend_from_slice(b"the last in clear");
    for sendfile in [true, false] {
        for client in both_versions() {
            let (mut reactor, mut journal) =
                start_with(Config::new().sendfile(sendfile).output_limits(1 << 10, 1 << 20, 8 << 20));
            let (key, mut socket) = guest(&mut reactor, &mut journal, on);
            say(&socket, "begin");
            settle(&mut reactor, &mut journal); // nobody reads
            let got = crate::common::read_exactly(&mut reactor, &mut journal, &mut socket, wanted.len());
            assert!(got == wanted, "all of it, in clear");
            let mut peer = Peer::new(Talker::client(client), socket);
            let behind = [b"the first behind it".to_vec(), vec![b'd'; MUCH], b"told".to_vec()].concat();
            peer.hears(&mut reactor, &mut journal, behind);
            assert_eq!(count(&journal, key, &Call::Secured), 1);
        }
    }
}

/// The peer's hello lies there while we still send in clear: it waits.
#[test]
fn an_early_hello_waits_for_what_is_queued() {
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Received(_) if ctx.tls().is_none() => {
                ctx.send(vec![b'a'; 8 << 20]);
                assert!(ctx.link().start_tls(sides().0));
                Ok(())
            }
            _ => answers(ctx, journal, call),
        }
    }
    let (mut reactor, mut journal) = start();
    let (_, mut socket) = guest(&mut reactor, &mut journal, on);
    say(&socket, "begin");
    until(&mut reactor, &mut journal, |journal| !journal.received().is_empty());
    let mut talker = Talker::client(sides().1);
    talker.says("behind it");
    say(&socket, talker.speech());
    settle(&mut reactor, &mut journal);
    let got = crate::common::read_exactly(&mut reactor, &mut journal, &mut socket, 8 << 20);
    assert!(got.iter().all(|&byte| byte == b'a'));
    let mut peer = Peer::new(talker, socket);
    peer.hears(&mut reactor, &mut journal, "behind it");
}

/// All of it has `handshake_max`: also what has to leave in clear.
#[test]
fn start_tls_may_not_take_for_ever() {
    for queued in [0, 16 << 20] {
        let (mut reactor, mut journal) = start_with(Config::new().handshake_max(ms(50)).wait_for_lingering(false));
        let (key, socket) = guest(&mut reactor, &mut journal, quiet);
        reactor.net().send(key, vec![b'x'; queued]);
        assert!(reactor.net().link(key).expect("it is open").start_tls(sides().0));
        ends_with(&mut reactor, &mut journal, key, "could not agree on TLS: the handshake took longer than 50 ms");
        drop(socket);
    }
}

#[test]
fn timers_and_tells_stay_with_a_protocol_that_goes_on() {
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        if *call == Call::Connected {
            ctx.after(ms(20), |_: &mut Recorder<On>, ctx, journal| {
                note(journal, ctx.key, "a timer");
                Ok(())
            });
        }
        in_place(ctx, journal, call)
    }
    let (mut reactor, mut journal, key, socket) = starts(on);
    assert!(tell(&mut reactor.net(), key, "a tell"));
    until(&mut reactor, &mut journal, |journal| journal.has(&frame("a tell")) && journal.has(&frame("a timer")));
    assert_eq!(count(&journal, key, &Call::Secured), 0, "the peer has said nothing yet");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.until(&mut reactor, &mut journal, |_, journal| journal.has(&Call::Secured));
    assert!(tell(&mut reactor.net(), key, "another tell"));
    until(&mut reactor, &mut journal, |journal| journal.has(&frame("another tell")));
}

#[test]
fn it_begins_in_a_timer_in_a_tell_and_from_another_connection() {
    fn in_a_timer(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        if *call == Call::Connected {
            ctx.after(ms(1), |_: &mut Recorder<On>, ctx, _| {
                ctx.send("go ahead\r\n");
                ctx.start_tls(sides().0, recorder(answers));
                Ok(())
            });
        }
        hang_up(ctx, journal, call)
    }
    let (mut reactor, mut journal) = start();
    let (_, mut socket) = guest(&mut reactor, &mut journal, in_a_timer as On);
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "go ahead\r\n");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");

    thread_local! { static OTHER: RefCell<Option<Key>> = const { RefCell::new(None) } }
    fn by_another(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if let Call::Received(_) = call {
            let other = OTHER.with_borrow(|other| *other).expect("it was set");
            let mut link = ctx.net.link(other).expect("it is open");
            assert!(link.send("go ahead\r\n") && link.start_tls(sides().0) && !link.start_tls(sides().0));
            assert!(link.send("the first behind it"));
        }
        Ok(())
    }
    let (other, mut socket) = guest(&mut reactor, &mut journal, answers as On);
    let (_, first) = guest(&mut reactor, &mut journal, by_another as On);
    OTHER.set(Some(other));
    say(&first, "begin");
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "go ahead\r\n");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.hears(&mut reactor, &mut journal, "the first behind it");
    assert_eq!(count(&journal, other, &Call::Secured), 1);
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");

    // By a tell.
    let (key, mut socket) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().tell(key, |_: &mut Recorder<On>, ctx, _| {
        ctx.send("go ahead\r\n");
        ctx.start_tls(sides().0, recorder(answers as On));
        Ok(())
    });
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "go ahead\r\n");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");
}

#[test]
fn it_does_not_begin_where_it_cannot() {
    let (mut reactor, mut journal) = start();
    // While it connects.
    let (key, _listener) = crate::common::opened(&mut reactor, quiet);
    assert!(!reactor.net().link(key).expect("it is there").start_tls(named(sides().1)));
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));

    // After a half-close.
    let (key, _socket) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().half_close(key);
    assert!(!reactor.net().link(key).expect("it is open").start_tls(sides().0));
    assert!(reactor.net().is_open(key));

    // After a close.
    let (key, _socket) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(key);
    assert!(!reactor.net().link(key).is_some_and(|mut link| link.start_tls(sides().0)));
    ends_with(&mut reactor, &mut journal, key, FINISHED);

    // Twice.
    let (key, _socket) = guest(&mut reactor, &mut journal, quiet);
    let net = &mut reactor.net();
    let mut link = net.link(key).expect("it is open");
    assert!(link.start_tls(sides().0) && !link.start_tls(sides().0));

    // A client that does not say to whom.
    let (key, mut socket) = guest(&mut reactor, &mut journal, quiet);
    assert!(!reactor.net().link(key).expect("it is open").start_tls(sides().1));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.starts_with("could not agree on TLS: it is not said whose certificate"), "{why}");
    assert_eq!(crate::common::read_to_end(&mut reactor, &mut journal, &mut socket), b"");
}

#[test]
fn at_the_peers_end_it_is_too_late() {
    for in_eof in [true, false] {
        fn in_its_eof(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
            if let Call::Eof(_) = call {
                ctx.start_tls(sides().0, recorder(quiet));
            }
            Ok(())
        }
        let (mut reactor, mut journal) = start();
        let (key, socket) = guest(&mut reactor, &mut journal, if in_eof { in_its_eof as On } else { in_place });
        if !in_eof {
            say(&socket, "STARTTLS\r\n");
        }
        socket.shutdown(std::net::Shutdown::Write).expect("it is there");
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        let why = closing_of(&journal, key).expect("it is closed");
        assert!(why.starts_with("could not agree on TLS: "), "{why}");
    }
}

#[test]
fn half_closed_behind_start_tls_it_ends_its_side_in_tls() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if let Call::Received(_) = call {
            if ctx.tls().is_none() {
                assert!(ctx.link().start_tls(sides().0));
                ctx.send("behind it");
                ctx.half_close();
            }
        }
        Ok(())
    }
    let (mut reactor, mut journal, key, mut peer) = ends_its_side_in_tls(on);
    peer.talker.says("it still reads");
    peer.until(&mut reactor, &mut journal, |_, journal| journal.received() == b"beginit still reads");
    peer.says_goodbye();
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
}

/// The close waits for the handshake, as that of a connection that is still connecting waits to be connected.
#[test]
fn closed_behind_start_tls_what_was_sent_leaves_in_tls() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if let Call::Received(_) = call {
            assert!(ctx.link().start_tls(sides().0));
            ctx.send("behind it");
            ctx.close();
        }
        Ok(())
    }
    let (mut reactor, mut journal, key, _peer) = ends_its_side_in_tls(on);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn paused_before_it_begins_it_agrees_all_the_same_and_is_read_when_it_resumes() {
    for holds in [false, true] {
        let (mut reactor, mut journal) = start();
        let (key, socket) = guest(&mut reactor, &mut journal, answers);
        let mut net = reactor.net();
        let mut link = net.link(key).expect("it is open");
        let hold = if holds {
            Some(link.hold())
        } else {
            link.pause();
            None
        };
        assert!(link.start_tls(sides().0));
        let mut peer = Peer::new(Talker::client(sides().1), socket);
        peer.talker.says("x");
        peer.until(&mut reactor, &mut journal, |peer, journal| peer.talker.is_agreed() && journal.has(&Call::Secured));
        pass(&mut reactor, &mut journal, SHORT);
        assert_eq!(journal.received(), b"");
        let mut net = reactor.net();
        match hold {
            Some(hold) => net.release(hold),
            None => net.link(key).expect("it is open").resume(),
        }
        peer.hears(&mut reactor, &mut journal, "x");
    }
}

/// What came in clear, and lies in the kernel while it is paused, is no TLS.
#[test]
fn what_came_while_it_was_paused_is_refused() {
    let (mut reactor, mut journal) = start();
    let (key, socket) = guest(&mut reactor, &mut journal, answers);
    reactor.net().link(key).expect("it is open").pause();
    say(&socket, "RESET\r\n");
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().link(key).expect("it is open").start_tls(sides().0));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.starts_with("could not agree on TLS: "), "{why}");
    assert_eq!(journal.received(), b"");
}

#[test]
fn tls_in_tls() {
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Received(bytes) if bytes == b"once more" => {
                ctx.send("go ahead");
                ctx.start_tls(sides().0, recorder(answers));
                Ok(())
            }
            _ => answers(ctx, journal, call),
        }
    }
    let (mut reactor, mut journal) = start();
    let (_, at) = listen_how(&mut reactor, Listen::new().tls(sides().0), on);
    let mut outer = Peer::dials(at, sides().1);
    outer.talker.says("once more");
    outer.hears(&mut reactor, &mut journal, "go ahead");
    let mut inner = Talker::client(sides().1);
    inner.says("twice secret");
    until(&mut reactor, &mut journal, |_| {
        outer.talker.says(inner.speech());
        outer.pump();
        let plain = std::mem::take(&mut outer.talker.plain);
        inner.hears(&plain);
        inner.plain == b"twice secret"
    });
    inner.tls.send_close_notify();
    outer.talker.says(inner.speech());
    outer.pump();
    until(&mut reactor, &mut journal, |journal| {
        outer.pump();
        journal.closings() == 1
    });
    let plain = std::mem::take(&mut outer.talker.plain);
    inner.hears(&plain);
    outer.ends(&mut reactor, &mut journal);
    assert!(inner.is_told_end && outer.talker.is_told_end, "{} {}", inner.is_told_end, outer.talker.is_told_end);
}

#[test]
fn an_adopted_socket_begins_too() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let theirs = dial(listener.local_addr().expect("it is bound"));
    let (ours, _) = listener.accept().expect("it comes");
    let (mut reactor, mut journal) = start();
    let key = reactor.net().adopt(ours, recorder(in_place as On)).expect("a socket");
    say(&theirs, "STARTTLS\r\n");
    let mut socket = theirs;
    reads_in_clear(&mut reactor, &mut journal, &mut socket, "go ahead\r\n");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.talker.says("line\r\n");
    peer.hears(&mut reactor, &mut journal, "line\r\n");
    assert!(!reactor.net().detach(key), "what is agreed on cannot be handed over");
    peer.talker.says("line\r\n");
    peer.hears(&mut reactor, &mut journal, "line\r\n");
    reactor.net().close(key);
    assert_eq!(peer.ends(&mut reactor, &mut journal), End::Fin);
    assert!(peer.talker.is_told_end);
    ends_with(&mut reactor, &mut journal, key, FINISHED);
}

#[test]
fn a_proxy_says_in_clear_for_whom_it_comes() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(107)),
            Call::Frame(_) => {
                assert!(ctx.link().set_peer("192.0.2.7:1234".parse().expect("an address")));
                ctx.start_tls(sides().0, recorder(answers));
            }
            _ => {}
        }
        Ok(())
    }
    let (mut reactor, mut journal) = start();
    let (_, at) = listen_how(&mut reactor, Listen::new().behind_proxy(), on);
    let socket = dial(at);
    say(&socket, "PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\n");
    let key = crate::common::next_connected(&mut reactor, &mut journal, 0);
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 1);
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");
    assert_eq!(reactor.net().peer(key).map(ToString::to_string).as_deref(), Some("192.0.2.7:1234"));
}

#[test]
fn a_proxys_header_and_the_hello_come_in_one_segment() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(107)),
            Call::Frame(_) => ctx.start_tls(sides().0, recorder(answers)),
            _ => {}
        }
        Ok(())
    }
    let (mut reactor, mut journal) = start();
    let (_, at) = listen_how(&mut reactor, Listen::new().behind_proxy(), on);
    let socket = dial(at);
    let mut talker = Talker::client(sides().1);
    talker.says("x");
    let mut first = b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\n".to_vec();
    first.extend(talker.speech());
    say(&socket, first);
    let mut peer = Peer::new(talker, socket);
    peer.hears(&mut reactor, &mut journal, "x");
}

#[test]
fn detach_is_refused_once_tls_has_begun() {
    let (mut reactor, mut journal) = start();
    let (key, socket) = guest(&mut reactor, &mut journal, answers);
    assert!(reactor.net().link(key).expect("it is open").start_tls(sides().0));
    assert!(!reactor.net().detach(key), "amid the handshake");
    let mut peer = Peer::new(Talker::client(sides().1), socket);
    peer.agrees(&mut reactor, &mut journal);
    assert!(!reactor.net().detach(key), "afterwards");
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");
}

/// A failed handshake in mid-stream ends a connection that was told before that it is connected.
#[test]
fn who_cannot_agree_in_mid_stream_ends() {
    let (mut reactor, mut journal, key, socket) = starts(with_successor);
    let mut peer = Peer::new(Talker::client_for(sides().1, "else.example"), socket);
    peer.until(&mut reactor, &mut journal, |_, journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.starts_with("could not agree on TLS: the peer refused: "), "{why}");
    assert_eq!(count(&journal, key, &Call::Connected), 1, "the successor was never connected");
}

/// The reader of what leaves in clear has gone: what could be read on would be in clear.
#[test]
#[cfg(unix)]
fn a_pair_of_descriptors_whose_writer_breaks_before_it_begins_ends() {
    use std::os::unix::net::UnixStream;
    let ((read, _input), (write, output)) = (UnixStream::pair().expect("a pair"), UnixStream::pair().expect("a pair"));
    let (mut reactor, mut journal) = start();
    let key = reactor.net().adopt(Adopted::pair(read, write), recorder(quiet as On)).expect("a pair");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    reactor.net().send(key, vec![b'x'; 4 << 20]);
    assert!(reactor.net().link(key).expect("it is open").start_tls(sides().0));
    settle(&mut reactor, &mut journal);
    drop(output);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.starts_with("connection lost: "), "{why}");
}

#[test]
fn its_own_address_is_known_meanwhile() {
    let (mut reactor, _, key, socket) = starts(in_place);
    let at = socket.peer_addr().expect("it is connected");
    assert_eq!(reactor.net().local(key).and_then(|local| local.ip()), Some(at));
}
