//! The flaws of asyncore and asynchat, by their numbers in docs/flaws.md, and what has gone wrong in other loops since: one
//! regression test or a few for each. A flaw without a test here has its reason there.

mod common;

use common::{
    Call, Ctx, Journal, Nothing, Talk, assert_sleeps, assert_sleeps_at_once, by_default, closed, dial, frame, listen,
    read_exactly, read_to_end, recorder, reset, say, settle, until, until_net,
};
use mainspring::{
    Address, Config, Context, Endian, Framer, Key, Limit, Listen, Net, Outcome, Produced, Protocol, Reactor, Reason, Refusal,
    Step, Terminator, Width,
};
use std::{
    cell::Cell,
    io::{ErrorKind, Write},
    net::{Shutdown, TcpListener, TcpStream},
    rc::Rc,
    str,
    time::{Duration, Instant},
};

// --------------------------------------------------------------------------------------------------- asynchat, asyncore

/// Flaw 1: The bytes of a half-seen terminator vanished at the end of the stream: `hello\r` and the end gave only `hello`.
#[test]
fn flaw_01_a_half_seen_terminator_is_handed_over_at_the_end() {
    let rows = [
        (Terminator::crlf(100), "hello\r", "", "hello\r"),
        (Terminator::line(100), "hello\r", "", "hello\r"),
        (Terminator::delimiter(&b"\r\n.\r\n"[..], 100), "body\r\n.\r", "", "body\r\n.\r"),
        (Terminator::stream_until(&b"\r\n.\r\n"[..]), "body\r\n.\r", "body", "\r\n.\r"),
        (Terminator::exactly(10), "hello", "", "hello"),
    ];
    for (terminator, stream, received, tail) in rows {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.peer.shutdown(Shutdown::Write).expect("connected");
        talk.until(|journal| journal.closings() == 1);
        assert_eq!(talk.journal.received(), received.as_bytes(), "{shown}");
        assert!(talk.journal.has(&Call::Eof(tail.into())), "{shown}: {:?}", talk.calls());
    }
}

/// Flaw 2: A count of 0 never fired: after `Content-Length: 0` the next request was swallowed as a body.
#[test]
fn flaw_02_a_length_of_nothing_is_a_frame_of_nothing() {
    let ways: [fn() -> Terminator; 3] = [|| Terminator::exactly(0), || Terminator::declared(0, 100), || Terminator::Stream(0)];
    for body in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Frame(line) if line == b"len 0" => ctx.set_terminator(body()),
                Call::Connected | Call::Frame(_) => ctx.set_terminator(Terminator::line(100)),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "len 0\nGET /2\n");
        talk.until(|journal| journal.calls.len() == 4);
        assert_eq!(talk.calls(), [frame("len 0"), frame(""), frame("GET /2")], "{:?}", body());
    }
}

/// Flaw 3: Callbacks went on after `close()` in found_terminator: all later frames, and the rest, were delivered.
#[test]
fn flaw_03_nothing_is_delivered_after_close() {
    let ways: [(fn(&mut Ctx<'_>) -> Outcome, Reason); 4] = [
        (
            |ctx| {
                ctx.close();
                Ok(())
            },
            Reason::Finish,
        ),
        (
            |ctx| {
                ctx.abort();
                Ok(())
            },
            Reason::Abort,
        ),
        (|_| Err("enough".into()), Reason::Failed("enough".into())),
        (
            |ctx| {
                ctx.fail("enough");
                Ok(())
            },
            Reason::Failed("enough".into()),
        ),
    ];
    for (end, why) in ways {
        let mut talk = Talk::new(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(Terminator::line(100)),
                Call::Frame(_) => return end(ctx),
                _ => {}
            }
            Ok(())
        });
        say(&talk.peer, "a\nb\nc\nrest");
        talk.peer.shutdown(Shutdown::Write).expect("connected");
        talk.until(|journal| journal.closings() == 1);
        talk.settle();
        assert_eq!(talk.calls(), [frame("a"), closed(&why)]);
    }
}

/// Keeps the reason itself.
struct Ending;

impl Protocol<Vec<Reason>> for Ending {
    fn connected(&mut self, _: &mut Context<'_, Vec<Reason>>, _: &mut Vec<Reason>) -> Outcome {
        panic!("nobody is there")
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<Reason>>, endings: &mut Vec<Reason>, why: Reason) {
        endings.push(why);
    }
}

/// Flaw 4: A failed connect came as an "uncaptured python exception", through the handler of errors of one's own.
#[test]
fn flaw_04_a_failed_connect_is_closed_alone_with_its_stage_and_errno() {
    let refusing = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (mut reactor, mut endings) = (Reactor::new().expect("a selector"), Vec::new());
    let key = reactor.net().connect(refusing, Ending);
    assert!(reactor.net().send(key, "queued, and dropped"), "it is not known yet");
    reactor.run(&mut endings).expect("the selector works");
    let [Reason::Connect(error)] = &endings[..] else { panic!("{endings:?}") };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.raw_os_error().is_some());
    assert_eq!(error.tried()[0].0, Address::Ip(refusing));
    assert!(endings[0].is_connect());
}

/// Flaw 5: Under poll, handle_close was called twice in one turn.
#[test]
fn flaw_05_closed_is_called_once_however_often_it_is_closed() {
    let ways: [fn(&mut Ctx<'_>) -> Outcome; 3] = [
        |ctx| {
            ctx.close();
            Ok(())
        },
        |ctx| {
            let key = ctx.key;
            ctx.close();
            ctx.close();
            ctx.net.close(key);
            ctx.half_close();
            Ok(())
        },
        |ctx| {
            ctx.close();
            ctx.abort();
            ctx.abort();
            Err("and failed".into())
        },
    ];
    for end in ways {
        let mut talk = Talk::new(move |ctx, _, call| if matches!(call, Call::Eof(_)) { end(ctx) } else { Ok(()) });
        say(&talk.peer, "hi");
        talk.peer.shutdown(Shutdown::Both).expect("connected");
        talk.until(|journal| journal.closings() > 0);
        let key = talk.key;
        talk.reactor.net().close(key);
        talk.reactor.net().abort(key);
        talk.settle();
        let calls = talk.calls();
        assert_eq!(calls[..2], [Call::Received(b"hi".into()), Call::Eof(Vec::new())]);
        assert!(matches!(calls[2..], [Call::Closed(_)]), "{calls:?}");
    }
}

/// Flaw 6: What failed while a connection was being accepted closed the *listener*.
#[test]
fn flaw_06_a_failing_factory_or_guest_does_not_close_the_listener() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let mut guests = 0;
    let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
        guests += 1;
        let number = guests;
        match number {
            1 => panic!("no protocol"),
            2 => Err(Refusal::silent()),
            _ => Ok(recorder(move |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match (call, number) {
                (Call::Connected, 3) => Err("not ready".into()),
                (Call::Connected, 4) => panic!("not at all"),
                _ => Ok(()),
            })),
        }
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    let _peers: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 5);
    assert_eq!(journal.closings(), 2, "{journal:?}");
    assert_eq!(journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count(), 3);
    assert!(reactor.net().is_open(listener));
}

/// The other half of flaw 6: so did a lack of descriptors. Those who come then are closed at once, others are let in when there are some again.
///
/// The lack is made in a process of its own, because all tests share their descriptors.
#[cfg(unix)]
#[test]
fn flaw_06_a_lack_of_descriptors_does_not_close_the_listener() {
    const IS_CHILD: &str = "MAINSPRING_TEST_HAS_FEW_DESCRIPTORS";
    if std::env::var_os(IS_CHILD).is_some() {
        return run_out_of_descriptors();
    }
    let this = std::env::current_exe().expect("a test is a program");
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", "flaw_06_a_lack_of_descriptors_does_not_close_the_listener", "--nocapture", "--test-threads=1"])
        .env(IS_CHILD, "1")
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it ran");
}

#[cfg(unix)]
fn run_out_of_descriptors() {
    let config = Config::new().accept_back_off(Duration::from_millis(5));
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let (listener, addr) = listen(&mut reactor, || recorder(by_default));
    let mut turned_away: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    for peer in &mut turned_away {
        assert_eq!(read_to_end(&mut reactor, &mut journal, peer), b"", "it is told that it is not let in");
    }
    assert!(reactor.net().is_open(listener));
    assert_eq!(journal.calls.len(), 0, "nobody can be let in");
    assert_eq!(reactor.net().stats().shed, 5);
    drop((hoard, turned_away));
    let peers: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 5);
    drop(peers);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 5);
    assert!(reactor.net().is_open(listener));
}

/// Flaw 7: In one turn, A closed B, and C took B's descriptor: C got B's event.
#[test]
fn flaw_07_events_of_the_closed_reach_nobody_else() {
    let ways: [fn(&mut Net<'_, Journal>, Key) -> bool; 3] =
        [|net, key| net.close(key), |net, key| net.abort(key), |net, key| net.fail(key, "kicked")];
    for end in ways {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let silent_at = silent.local_addr().expect("bound");
        let guests: Rc<Cell<[Option<Key>; 2]>> = Rc::default();
        let opened: Rc<Cell<Option<Key>>> = Rc::default();
        let (by_guest, by_opened) = (Rc::clone(&guests), Rc::clone(&opened));
        let (_, addr) = listen(&mut reactor, move || {
            let (guests, opened) = (Rc::clone(&by_guest), Rc::clone(&by_opened));
            recorder(move |ctx, _, call| {
                if let (Call::Received(_), [Some(a), Some(b)]) = (call, guests.get()) {
                    let other = if ctx.key == a { b } else { a };
                    assert!(end(&mut ctx.net, other));
                    opened.set(Some(ctx.net.connect(silent_at, recorder(by_default))));
                }
                Ok(())
            })
        });
        let peers = [dial(addr), dial(addr)];
        until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
        guests.set([Some(journal.calls[0].0), Some(journal.calls[1].0)]);
        // Both are ready in the same turn: whoever is served first ends the other.
        for peer in &peers {
            say(peer, "for you alone");
        }
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        settle(&mut reactor, &mut journal);
        let third = opened.get().expect("one of them opened it");
        assert_eq!(journal.of(third), [Call::Connected], "nobody speaks to it");
        let of_guests = guests.get().map(|key| journal.of(key.expect("set above")));
        let ended = of_guests.iter().find(|calls| calls.iter().any(|call| matches!(call, Call::Closed(_))));
        assert!(matches!(ended.expect("one has ended")[..], [Call::Connected, Call::Closed(_)]), "{of_guests:?}");
        assert_eq!(journal.received(), b"for you alone", "the other had its own, once");
    }
}

/// Flaw 8: By default each turn asked for writability, and found it: an idle connection took a whole processor.
#[test]
fn flaw_08_an_idle_connection_is_not_written_and_the_loop_sleeps() {
    let mut talk = Talk::new(by_default);
    for _ in 0..200 {
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(talk.calls(), []);
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    // Nor after something was written.
    let key = talk.key;
    talk.reactor.net().send(key, "word");
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 4), b"word");
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    assert_eq!(talk.calls(), []);
}

/// The same for a socket that is not connected yet: the listener's queue is full, and Linux does not answer.
#[cfg(target_os = "linux")]
#[test]
fn flaw_08_a_connection_that_waits_is_left_alone() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let loopback: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&loopback.into()).expect("a free port");
    listener.listen(0).expect("it is bound");
    let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound");
    let _first = dial(addr);
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let key = reactor.net().connect(addr, recorder(by_default));
    for _ in 0..50 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_sleeps(&mut reactor, &mut journal);
    assert!(journal.calls.is_empty(), "{journal:?}");
    assert!(reactor.net().is_open(key));
}

/// And one queued chunk left each turn: fifty chunks took fifty.
#[test]
fn flaw_08_fifty_queued_chunks_leave_in_one_turn() {
    let mut talk = Talk::new(by_default);
    let key = talk.key;
    for _ in 0..50 {
        assert!(talk.reactor.net().send(key, [b'x'; 1000]));
    }
    talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
    assert_eq!(talk.reactor.net().link(key).expect("it is open").queued(), 0);
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 50_000), [b'x'; 50_000]);
}

/// Flaw 9: A producer that had nothing once was discarded: there was no "not yet".
#[test]
fn flaw_09_a_producer_with_nothing_yet_keeps_its_place() {
    let mut talk = Talk::new(by_default);
    let key = talk.key;
    let mut step = 0;
    let producer = move |out: &mut Vec<u8>| {
        step += 1;
        match step {
            1 => out.extend_from_slice(b"one "),
            2 => return Ok(Produced::NotYet),
            _ => out.extend_from_slice(b"two "),
        }
        Ok(if step == 1 { Produced::More } else { Produced::Done })
    };
    let mut net = talk.reactor.net();
    let mut link = net.link(key).expect("it is open");
    assert!(link.produce(producer) && link.send("three"));
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 4), b"one ");
    assert_sleeps(&mut talk.reactor, &mut talk.journal);
    talk.reactor.net().link(key).expect("it is open").wake();
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 9), b"two three");
}

/// Flaw 10: A terminator set from outside a callback was not tried on what was held until more came.
#[test]
fn flaw_10_a_terminator_set_from_outside_is_tried_on_what_is_held() {
    let rows =
        [("x\r", Terminator::delimiter(&b"\r"[..], 100), frame("x")), ("four bytes", Terminator::exactly(4), frame("four"))];
    for (held, terminator, expected) in rows {
        let mut talk = Talk::cut_by(Terminator::crlf(100));
        say(&talk.peer, held);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, _| net.link(key).expect("open").unread() == held.len());
        talk.reactor.net().link(key).expect("it is open").set_terminator(terminator);
        talk.until(|journal| journal.calls.len() > 1); // the peer says nothing more
        assert_eq!(talk.calls()[0], expected);
    }
}

/// Flaw 11: The peer's half-close closed us: nobody could answer after the end of the question.
#[test]
fn flaw_11_an_answer_can_follow_the_end_of_the_question() {
    let mut talk = Talk::new(|ctx, journal, call| {
        if let Call::Eof(_) = call {
            write!(ctx, "{} bytes, ", journal.received().len());
        }
        Ok(())
    });
    say(&talk.peer, "question");
    talk.peer.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 9), b"8 bytes, ");
    talk.settle();
    assert_eq!(talk.journal.closings(), 0, "it is ours to close");
    let key = talk.key;
    let mut net = talk.reactor.net();
    assert!(net.send(key, "and later some more") && net.close(key));
    assert_eq!(read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer), b"and later some more");
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls().last(), Some(&closed(&Reason::Eof)));
}

/// Flaw 12: The end that came with the last bytes cost them: one read, then handle_close; 4,096 of 20,000 bytes arrived.
#[test]
fn flaw_12_what_came_before_the_end_is_delivered_before_the_end() {
    for turn_bytes in [4096, 256 << 10] {
        let config = Config::new().read_bytes(4096).turn_bytes(turn_bytes);
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let (_, addr) = listen(&mut reactor, || recorder(by_default));
        let mut peer = dial(addr);
        peer.write_all(&[b'x'; 20_000]).expect("the kernel takes it");
        drop(peer); // before it is accepted
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        assert_eq!(journal.received().len(), 20_000);
        let ending = &journal.calls[journal.calls.len() - 2..];
        assert!(matches!(ending, [(_, Call::Eof(_)), (_, Call::Closed(_))]), "{ending:?}");
    }
}

/// The same through a pipe, which is what it was seen with.
#[cfg(unix)]
mod flaw_12_pipe {
    use super::*;
    use mainspring::{Dispatcher, Drained, Fault, Scope, Source};
    use std::io::Read;

    struct Reader(mio::unix::pipe::Receiver);

    impl Dispatcher<usize> for Reader {
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
        let (mut sender, receiver) = mio::unix::pipe::new().expect("a pipe");
        sender.write_all(&[b'x'; 20_000]).expect("a pipe holds 64 KiB");
        drop(sender);
        let (mut reactor, mut got) = (Reactor::new().expect("a selector"), 0);
        reactor.net().watch(Reader(receiver)).expect("a pipe");
        reactor.run(&mut got).expect("the selector works");
        assert_eq!(got, 20_000);
    }
}

/// Flaw 14: Nothing had a limit: smtpd and pyftpdlib each had to add one.
#[test]
fn flaw_14_no_frame_is_longer_than_its_terminator_allows() {
    let rows = [
        (Terminator::line(100), "x".repeat(200)),
        (Terminator::crlf(100), "x".repeat(200)),
        (Terminator::delimiter(&b"qqq"[..], 100), "x".repeat(200)),
        (Terminator::declared(101, 100), String::new()),
        (Terminator::prefixed(Width::U8, Endian::Big, 100), "\x65".into()), // 101
        (Terminator::netstring(100), "101:".into()),
    ];
    for (terminator, stream) in rows {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.until(|journal| journal.closings() == 1);
        let expected = [Call::Exceeded(Limit::FrameBytes), closed(&Reason::Limit(Limit::FrameBytes))];
        assert_eq!(talk.calls(), expected, "{shown}");
    }
}

/// Flaw 15: The buffer was sliced anew for each frame and each read, and searched from its beginning: quadratic work.
///
/// A line of 4 MiB, 64 bytes a turn. Searched from its beginning each time that would be 128 GiB, far beyond the test's
/// patience; and so would be copying.
#[cfg(unix)]
#[test]
fn flaw_15_a_long_line_in_small_pieces_is_searched_once() {
    const LINE: usize = 4 << 20;
    let dir = std::env::temp_dir().join(format!("mainspring-flaws-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a place for temporary files");
    let path = dir.join("socket");
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    reactor
        .net()
        .listen(path.as_path(), || {
            recorder(|ctx, _, call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::crlf(LINE));
                }
                Ok(())
            })
        })
        .expect("a new directory");
    let mut peer = std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
    std::fs::remove_dir_all(&dir).expect("they have met");
    let began = Instant::now();
    for _ in 0..LINE / 64 {
        assert!(began.elapsed() < common::PATIENCE, "the work grows with the square");
        // Bare halves of the delimiter everywhere: none of them may make it begin again.
        peer.write_all(&[b"x".repeat(62).as_slice(), b"\n\r"].concat()).expect("there is room");
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    peer.write_all(b"\r\n").expect("there is room");
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
    assert!(matches!(&journal.calls[1].1, Call::Frame(line) if line.len() == LINE));
}

/// Counts what it is shown.
struct Counting {
    asked: Rc<Cell<(usize, usize)>>,
}

impl Framer for Counting {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, mainspring::Fault> {
        let (times, bytes) = self.asked.get();
        self.asked.set((times + 1, bytes + input.len()));
        const WHOLE: usize = 20_000;
        if input.len() < WHOLE {
            return Ok(Step::Need(WHOLE));
        }
        Ok(Step::Frame { bytes: 0..WHOLE, consumed: WHOLE })
    }
}

/// And a framer of your own is not asked again before there is what it needs.
#[test]
fn flaw_15_a_framer_is_asked_only_when_it_can_answer() {
    let asked: Rc<Cell<(usize, usize)>> = Rc::default();
    let mut talk = Talk::cut_by(Terminator::custom(Counting { asked: Rc::clone(&asked) }, 20_000));
    for n in 1..=200 {
        say(&talk.peer, [b'x'; 100]);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, journal| {
            journal.frames().len() == 1 || net.link(key).expect("open").unread() == n * 100
        });
    }
    talk.until(|journal| journal.frames().len() == 1);
    assert_eq!(asked.get(), (2, 100 + 20_000), "at the first bytes, and at the whole");
}

/// Sends to another connection, and says when it begins and when it is through.
struct Sender {
    to: Rc<Cell<Option<Key>>>,
}

impl Protocol<Vec<&'static str>> for Sender {
    fn received(&mut self, ctx: &mut Context<'_, Vec<&'static str>>, seen: &mut Vec<&'static str>, _: &[u8]) -> Outcome {
        seen.push("begin");
        for _ in 0..100 {
            ctx.net.send(self.to.get().expect("set before anything is said"), [0; 1000]);
        }
        seen.push("end");
        Ok(())
    }
}

/// Says when it is connected and closed.
struct Receiver {
    key: Rc<Cell<Option<Key>>>,
}

impl Protocol<Vec<&'static str>> for Receiver {
    fn connected(&mut self, ctx: &mut Context<'_, Vec<&'static str>>, _: &mut Vec<&'static str>) -> Outcome {
        self.key.set(Some(ctx.key));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<&'static str>>, seen: &mut Vec<&'static str>, _: Reason) {
        seen.push("closed");
    }
}

/// Flaw 16: `push` to a dead peer ran its handle_close inside the push.
#[test]
fn flaw_16_sending_to_the_dead_calls_nobody() {
    let (mut reactor, mut seen) = (Reactor::new().expect("a selector"), Vec::new());
    let to: Rc<Cell<Option<Key>>> = Rc::default();
    let (for_sender, for_receiver) = (Rc::clone(&to), Rc::clone(&to));
    let (_, receivers) = listen(&mut reactor, move || Receiver { key: Rc::clone(&for_receiver) });
    let (_, senders) = listen(&mut reactor, move || Sender { to: Rc::clone(&for_sender) });
    let dying = dial(receivers);
    let sender = dial(senders);
    until(&mut reactor, &mut seen, |_| to.get().is_some());
    // Both are noticed in the same turn.
    say(&sender, "go");
    reset(dying);
    until(&mut reactor, &mut seen, |seen| seen.len() == 3);
    assert_eq!(seen, ["begin", "end", "closed"]);
}

/// Flaw 17: What was pushed after close_when_done was never sent, and nobody was told; and dispatcher_with_send.close dropped what
/// was before it.
#[test]
fn flaw_17_close_flushes_what_was_sent_and_refuses_what_comes_late() {
    const MUCH: usize = 8 << 20;
    let mut talk = Talk::new(|ctx, _, call| {
        if matches!(call, Call::Received(_)) {
            ctx.send(vec![b'x'; MUCH]);
            ctx.close();
            assert!(!ctx.link().send("late"), "refused, and it says so");
            assert!(ctx.is_congested(), "so that a source that asks first stops");
        }
        Ok(())
    });
    say(&talk.peer, "go");
    let key = talk.key;
    until_net(&mut talk.reactor, &mut talk.journal, |net, _| !net.is_open(key));
    assert!(!talk.reactor.net().send(key, "later"));
    let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert!(got.len() == MUCH && got.iter().all(|&byte| byte == b'x'), "{} of {MUCH} bytes", got.len());
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls().last(), Some(&closed(&Reason::Finish)));
}

/// Flaw 19: `connected` was still False inside handle_connect.
#[test]
fn flaw_19_inside_connected_it_is_connected() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let key = reactor.net().connect(
        addr,
        recorder(move |ctx, _, call| {
            if *call == Call::Connected {
                let key = ctx.key;
                assert!(ctx.net.is_open(key));
                assert!(format!("{:?}", ctx.link()).contains("is_connected: true"));
                assert_eq!(ctx.peer(), &Address::Ip(addr));
                assert!(ctx.link().with_socket(|socket| socket.peer_addr().is_ok()).expect("there is a socket"));
                write!(ctx, "I am {}", ctx.local().clone());
            }
            by_default(ctx, &mut Journal::default(), call)
        }),
    );
    let (mut peer, from) = listener.accept().expect("it dialled");
    let text = format!("I am {from}");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, text.len()), text.as_bytes());
    assert_eq!(journal.of(key), [Call::Connected], "its assertions hold");
}

// ------------------------------------------------------------------------------------------- what others have met since

/// asyncore's servers died of clients that had gone before they were accepted (CVE-2010-3492, CVE-2010-3493): accept gave
/// nothing, or getpeername failed. Ours takes the address from accept, and goes on.
#[test]
fn clients_gone_before_accept_are_let_in_and_closed_once_each() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let listener = reactor.net().listen("127.0.0.1:0", || recorder(by_default)).expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    for n in 0..200 {
        let peer = dial(addr);
        match n % 3 {
            0 => reset(peer),
            1 => drop(peer),
            _ => {
                say(&peer, "bye");
                reset(peer);
            }
        }
    }
    until(&mut reactor, &mut journal, |journal| journal.closings() == 200);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 200, "once each");
    assert_eq!(journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count(), 200);
    let still = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.last().is_some_and(|(_, call)| *call == Call::Connected));
    drop(still);
}

/// Slots are used again, names are not: elsewhere the wrong entry was removed, or a successor got what was meant for
/// another (sozu, calloop).
#[test]
fn a_stale_key_finds_nothing_when_its_slot_is_used_again() {
    let mut talk = Talk::new(by_default);
    let old = talk.key;
    assert!(talk.reactor.net().abort(old));
    talk.until(|journal| journal.closings() == 1);
    talk.settle();
    let addr = talk.reactor.net().local(talk.listener).and_then(Address::ip).expect("an IP listener");
    let mut peer = dial(addr);
    talk.until(|journal| journal.calls.last().is_some_and(|(_, call)| *call == Call::Connected));
    let new = talk.journal.calls.last().expect("just looked at").0;
    assert!(old != new && slot(old) == slot(new), "{old} and {new}");

    let mut net = talk.reactor.net();
    assert!(net.link(old).is_none() && !net.is_open(old) && net.peer(old).is_none() && net.local(old).is_none());
    assert!(!net.send(old, "x") && !net.close(old) && !net.abort(old) && !net.half_close(old) && !net.fail(old, "x"));
    assert!(!net.throttle(old, new) && !net.throttle(new, old));
    assert!(!net.tell(old, |_: &mut Nothing, _, _| panic!("told to nobody")));
    let timer = net.tell_after(old, Duration::ZERO, |_: &mut Nothing, _, _| panic!("told to nobody"));
    assert!(!net.cancel(timer), "it is not even set");
    talk.settle();
    assert!(talk.reactor.net().send(new, "alive"));
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut peer, 5), b"alive");
    assert_eq!(talk.journal.of(new), [Call::Connected]);
}

/// The first part of a key's text.
fn slot(key: Key) -> Option<String> {
    key.to_string().split('.').next().map(str::to_owned)
}

#[cfg(unix)]
mod stale_events {
    use super::*;
    use mainspring::{Dispatcher, Drained, Fault, Scope, Source};
    use std::os::{fd::AsFd, unix::net::UnixStream};

    /// Counts how often it is called.
    struct Watching {
        socket: Rc<UnixStream>,
        /// What it says instead, when it is set: a dispatcher must not do that.
        lie: Rc<Cell<bool>>,
        other: UnixStream,
    }

    impl Watching {
        fn new(socket: &Rc<UnixStream>) -> Self {
            let (other, _) = UnixStream::pair().expect("a pair");
            Self { socket: Rc::clone(socket), lie: Rc::default(), other }
        }
    }

    impl Dispatcher<u32> for Watching {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(if self.lie.get() { self.other.as_fd() } else { self.socket.as_fd() })
        }

        fn readable(&mut self, _: &mut Scope<'_, u32>, calls: &mut u32) -> Result<Drained, Fault> {
            *calls += 1;
            Ok(Drained::Yes)
        }
    }

    fn pair() -> (Rc<UnixStream>, UnixStream) {
        let (socket, peer) = UnixStream::pair().expect("a pair");
        socket.set_nonblocking(true).expect("a socket option");
        (Rc::new(socket), peer)
    }

    /// A descriptor that lives on keeps the selector reporting it. So it is deregistered, and the loop sleeps.
    #[test]
    fn what_a_closed_dispatcher_watched_wakes_nobody() {
        let (socket, mut peer) = pair();
        let (mut reactor, mut calls) = (Reactor::new().expect("a selector"), 0);
        let key = reactor.net().watch(Watching::new(&socket)).expect("a socket");
        settle(&mut reactor, &mut calls);
        reactor.net().close(key);
        settle(&mut reactor, &mut calls);
        peer.write_all(b"anybody?").expect("we have the other end");
        assert_sleeps_at_once(&mut reactor, &mut calls);
        assert_eq!(calls, 0);
    }

    /// Where that fails, events come for a token that nobody has any more (CVE-2024-27308); and its slot may have a new
    /// owner, who is not called.
    #[test]
    fn an_event_for_the_gone_does_not_reach_the_next_owner_of_the_slot() {
        let (socket, mut peer) = pair();
        let (silent, _its_peer) = pair();
        let (mut reactor, mut calls) = (Reactor::new().expect("a selector"), 0);
        let watching = Watching::new(&socket);
        let lie = Rc::clone(&watching.lie);
        let old = reactor.net().watch(watching).expect("a socket");
        settle(&mut reactor, &mut calls);
        lie.set(true);
        reactor.net().close(old);
        settle(&mut reactor, &mut calls);
        let new = reactor.net().watch(Watching::new(&silent)).expect("a socket");
        assert!(old != new && slot(old) == slot(new), "{old} and {new}");
        settle(&mut reactor, &mut calls);
        peer.write_all(b"anybody?").expect("we have the other end");
        settle(&mut reactor, &mut calls);
        assert_eq!(calls, 0);
    }
}

/// Elsewhere a buffer was made as large as the peer declared, which ended the process (RUSTSEC-2022-0035). Ours waits for
/// bytes, whatever was declared; and beyond the limit it does not even wait.
#[test]
fn a_huge_declared_length_allocates_nothing() {
    let huge = |bytes: u64| [&bytes.to_be_bytes()[..], b"abc"].concat();
    let prefixed = |limit| Terminator::prefixed(Width::U64, Endian::Big, limit);
    let waits = [
        (prefixed(usize::MAX), huge(1 << 62)),
        (Terminator::declared(usize::MAX, usize::MAX), huge(0)),
        (Terminator::Stream(u64::MAX), Vec::new()),
        (Terminator::netstring(usize::MAX), b"999999999999999:abc".to_vec()),
    ];
    for (terminator, bytes) in waits {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, &bytes);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, _| net.link(key).expect(&shown).unread() == bytes.len());
        talk.settle();
        assert_eq!(talk.calls(), [], "{shown}");
    }
    let refused = [
        (prefixed(1 << 20), huge(1 << 62)),
        (prefixed(1 << 20), huge(u64::MAX)),
        (prefixed(usize::MAX), huge(u64::MAX)),
        (Terminator::netstring(1 << 20), b"999999999999999:".to_vec()),
        (Terminator::netstring(usize::MAX), b"99999999999999999999999999:".to_vec()),
    ];
    for (terminator, bytes) in refused {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, &bytes);
        talk.until(|journal| journal.closings() == 1);
        assert!(matches!(talk.calls().last(), Some(Call::Closed(_))), "{shown}");
    }
}

/// A bare LF that ended a mail let strangers smuggle in another (CVE-2023-51764 and its kin). Delimiters are exact; `line`,
/// which takes both, says so.
#[test]
fn a_bare_line_feed_does_not_end_what_crlf_ends() {
    let rows: [(Terminator, &str, &[&str]); 4] = [
        (Terminator::crlf(100), "a\nb\rc\r\n", &["a\nb\rc"]),
        (Terminator::crlf(100), "\n\r\n\r\r\n", &["\n", "\r"]),
        (Terminator::delimiter(&b"\r\n.\r\n"[..], 100), "mail\n.\n\r\n.\nmore\n.\r\n\r\n.\r\n", &["mail\n.\n\r\n.\nmore\n.\r\n"]),
        (Terminator::line(100), "a\nb\rc\r\n", &["a", "b\rc"]),
    ];
    for (terminator, stream, expected) in rows {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.until(|journal| journal.frames().len() == expected.len());
        talk.settle();
        assert_eq!(talk.journal.frames(), expected, "{shown}");
        assert_eq!(talk.unread(), 0, "{shown}");
    }
}

/// Peers that never read kept loseConnection from ever completing, until a cluster ran out of sockets (Twisted #7153). A
/// polite close has a linger deadline, then the connection is reset.
#[test]
fn peers_that_never_read_cannot_hold_a_close() {
    const PEERS: usize = 20;
    let config = Config::new().linger_max(Duration::from_millis(20));
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    // More than the kernel takes for somebody who does not read.
    let much: Rc<[u8]> = vec![b'x'; 32 << 20].into();
    let (_, addr) = listen(&mut reactor, move || {
        let much = Rc::clone(&much);
        recorder(move |ctx, _, call| {
            if *call == Call::Connected {
                ctx.send_shared(&much);
                ctx.close();
            }
            Ok(())
        })
    });
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.closings() == PEERS);
    let lingered = journal.calls.iter().filter(|(_, call)| *call == closed(&Reason::Limit(Limit::Linger))).count();
    assert_eq!(lingered, PEERS, "{journal:?}");
    settle(&mut reactor, &mut journal);
    assert!(format!("{reactor:?}").contains("slots: 1"), "only the listener is left: {reactor:?}");
    // A reset, not an end: nobody takes what they got for the whole.
    let error = std::io::copy(&mut peers[0], &mut std::io::sink()).expect_err("it is cut");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// An output queue without a cap let a peer that does not read use up all memory (RUSTSEC-2020-0043).
#[test]
fn output_that_nobody_reads_ends_at_the_cap() {
    const CAP: usize = 256 << 10;
    let mut talk = Talk::with(Config::new().output_limits(16 << 10, 64 << 10, CAP), by_default);
    let key = talk.key;
    let (mut most, mut sent) = (0, 0);
    while talk.reactor.net().send(key, [b'x'; 16 << 10]) {
        sent += 16 << 10;
        assert!(sent < 64 << 20, "neither the kernel nor the queue takes so much");
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
        most = most.max(talk.reactor.net().link(key).expect("it is open").queued());
    }
    assert!(most <= CAP, "{most} bytes were queued");
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls(), [closed(&Reason::Overflow)]);
}

/// Questions were read faster than their answers left (CVE-2019-9512 and its kin): an accepted connection is not read while
/// its own output stands above the high mark.
#[test]
fn questions_are_not_read_faster_than_their_answers_leave() {
    const HIGH: usize = 64 << 10;
    let mut talk = Talk::with(Config::new().read_bytes(4096).output_limits(16 << 10, HIGH, 1 << 20), |ctx, journal, call| {
        if let Call::Received(bytes) = call {
            journal.calls.pop(); // how much was read is counted by the peer
            for _ in bytes {
                ctx.send([b'x'; 16]); // sixteen times as much
            }
        }
        Ok(())
    });
    talk.peer.set_nonblocking(true).expect("a socket option");
    let key = talk.key;
    let (mut most, mut asked, mut stuck) = (0, 0, 0);
    // Until the peer, who reads nothing, can ask no more.
    while stuck < 20 {
        match talk.peer.write(&[b'?'; 16 << 10]) {
            Ok(bytes) => (asked, stuck) = (asked + bytes, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("after {asked} questions: {error}"),
        }
        talk.reactor.turn(&mut talk.journal, Duration::ZERO).expect("the selector works");
        most = most.max(talk.reactor.net().link(key).expect("it is not closed").queued());
    }
    assert!(most <= HIGH + 16 * 4096, "{most} bytes were queued");
}

/// A server waited without bound for a version line (CVE-2022-21716). Waiting has a deadline, dripping has another.
#[test]
fn a_first_line_that_does_not_come_is_not_waited_for() {
    let wait = Duration::from_millis(20);
    let mut talk = Talk::cut_by(Terminator::crlf(100));
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_deadline(wait);
    talk.until(|journal| journal.closings() == 1);
    assert_eq!(talk.calls(), [Call::Exceeded(Limit::Deadline), closed(&Reason::Limit(Limit::Deadline))]);

    let mut talk = Talk::cut_by(Terminator::crlf(1 << 20));
    let key = talk.key;
    talk.reactor.net().link(key).expect("it is open").set_frame_timeout(wait);
    talk.peer.set_nonblocking(true).expect("a socket option");
    let mut drip = talk.peer.try_clone().expect("a descriptor");
    talk.until(|journal| {
        let _ = drip.write(b"x"); // it is reset in the end
        journal.closings() == 1
    });
    assert_eq!(talk.calls(), [Call::Exceeded(Limit::FrameTime), closed(&Reason::Limit(Limit::FrameTime))]);
}
