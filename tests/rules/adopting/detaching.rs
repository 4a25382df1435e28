//! A stream is given back with all that belongs to it, and goes on elsewhere.

use super::{descriptors, pipe};
use crate::common::{
    Call, PATIENCE, SHORT, assert_sleeps, dial, is_alone, listen, settle, turn, uninterrupted, until, until_net,
};
use mainspring::{
    Address, Adopted, Config, Context, Detached, Endian, Fault, Framer, Key, Kind, Limit, Listen, Outcome, Produced, Protocol,
    Reactor, Reason, Step, Terminator, Width,
};
use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    rc::Rc,
    time::Duration,
};

/// What such protocols were called with, and what was given back.
#[derive(Default)]
struct Desk {
    calls: Vec<Call>,
    detached: Option<Box<Detached>>,
    /// In `closed`: peer and local.
    ends: Option<(Address, Address)>,
}

impl Desk {
    fn has(&self, call: &Call) -> bool {
        self.calls.contains(call)
    }

    fn received(&self) -> Vec<u8> {
        let pieces =
            self.calls.iter().filter_map(|call| if let Call::Received(piece) = call { Some(piece.as_slice()) } else { None });
        pieces.collect::<Vec<_>>().concat()
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.calls.iter().filter_map(|call| if let Call::Frame(frame) = call { Some(frame.clone()) } else { None }).collect()
    }

    fn why(&self) -> Option<&str> {
        self.calls.iter().find_map(|call| if let Call::Closed(why) = call { Some(why.as_str()) } else { None })
    }

    #[track_caller]
    fn take(&mut self) -> Detached {
        *self.detached.take().expect("it was given back")
    }
}

struct Giver<F>(F);

type DeskCtx<'a> = Context<'a, Desk>;

fn giver<F: FnMut(&mut DeskCtx<'_>, &Call) -> Outcome + 'static>(on: F) -> Giver<F> {
    Giver(on)
}

impl<F: FnMut(&mut DeskCtx<'_>, &Call) -> Outcome + 'static> Giver<F> {
    fn noted(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, call: Call) -> Outcome {
        desk.calls.push(call.clone());
        (self.0)(ctx, &call)
    }
}

impl<F: FnMut(&mut DeskCtx<'_>, &Call) -> Outcome + 'static> Protocol<Desk> for Giver<F> {
    fn connected(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk) -> Outcome {
        self.noted(ctx, desk, Call::Connected)
    }

    fn received(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, bytes: &[u8]) -> Outcome {
        self.noted(ctx, desk, Call::Received(bytes.into()))
    }

    fn frame(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, frame: &[u8]) -> Outcome {
        self.noted(ctx, desk, Call::Frame(frame.into()))
    }

    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(by_count(input))
    }

    fn writable(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk) -> Outcome {
        self.noted(ctx, desk, Call::Writable)
    }

    fn exceeded(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, limit: Limit) -> Outcome {
        self.noted(ctx, desk, Call::Exceeded(limit))
    }

    fn draining(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk) -> Outcome {
        self.noted(ctx, desk, Call::Draining)
    }

    fn eof(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, tail: &[u8]) -> Outcome {
        self.noted(ctx, desk, Call::Eof(tail.into()))
    }

    fn closed(&mut self, ctx: &mut DeskCtx<'_>, desk: &mut Desk, why: Reason) {
        desk.calls.push(Call::Closed(why.to_string()));
        desk.ends = Some((ctx.peer().clone(), ctx.local().clone()));
        if let Reason::Detached(detached) = why {
            desk.detached = Some(detached);
        }
    }
}

fn idle(_: &mut DeskCtx<'_>, _: &Call) -> Outcome {
    Ok(())
}

struct Talk {
    reactor: Reactor<Desk>,
    desk: Desk,
    key: Key,
    peer: UnixStream,
}

impl Talk {
    fn new(on: impl FnMut(&mut DeskCtx<'_>, &Call) -> Outcome + 'static) -> Self {
        let (ours, peer) = UnixStream::pair().expect("a pair");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut reactor = Reactor::with_config(Config::new().wait_for_lingering(false)).expect("a selector");
        let key = reactor.net().adopt(ours, giver(on)).expect("a stream");
        Self { reactor, desk: Desk::default(), key, peer }
    }

    fn connected(on: impl FnMut(&mut DeskCtx<'_>, &Call) -> Outcome + 'static) -> Self {
        let mut talk = Self::new(on);
        talk.until(|desk| desk.has(&Call::Connected));
        talk
    }

    #[track_caller]
    fn until(&mut self, done: impl FnMut(&mut Desk) -> bool) {
        until(&mut self.reactor, &mut self.desk, done);
    }

    fn settle(&mut self) {
        settle(&mut self.reactor, &mut self.desk);
    }

    #[track_caller]
    fn detached(&mut self) -> Detached {
        self.until(|desk| desk.why().is_some());
        assert_eq!(self.desk.why(), Some("detached"));
        self.desk.take()
    }

    #[track_caller]
    fn detach(&mut self) -> Detached {
        assert!(self.reactor.net().detach(self.key), "it is open");
        self.detached()
    }
}

#[track_caller]
fn file(detached: Detached) -> File {
    let (reader, writer) = detached.socket.into_fds();
    assert!(writer.is_none(), "one descriptor, which is both");
    let fd = reader.expect("there was one");
    socket2::SockRef::from(&fd).set_nonblocking(false).expect("fcntl(2)");
    fd.into()
}

/// Each terminator with a whole frame and what follows, and how much of that belongs to frames.
fn terminators() -> Vec<(&'static str, fn() -> Terminator, &'static [u8])> {
    vec![
        ("lines", || Terminator::line(99), b"one\r\ntwo\nthree\r\n"),
        ("a delimiter", || Terminator::delimiter(&b"--"[..], 99), b"one--t-o--three--"),
        ("through", || Terminator::through(&b"\n\n"[..], 99), b"one\n\ntwo\nmore\n\n"),
        ("exactly", || Terminator::exactly(5), b"12345678901234567890"),
        ("prefixed", || Terminator::prefixed(Width::U16, Endian::Big, 99), b"\0\x03one\0\x02to\0\0\0\x05three"),
        ("netstrings", || Terminator::netstring(99), b"3:one,2:to,0:,5:three,"),
        ("its own", || Terminator::own(99), b"1a2bb3ccc0"),
        ("a framer", || Terminator::custom(ByCount, 99), b"1a2bb3ccc0"),
    ]
}

/// A digit says how many bytes follow.
fn by_count(input: &[u8]) -> Step {
    let whole = 1 + input.first().map_or(0, |digit| usize::from(digit - b'0'));
    if input.len() >= whole { Step::Frame { bytes: 1..whole, consumed: whole } } else { Step::Need(whole) }
}

struct ByCount;

impl Framer for ByCount {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(by_count(input))
    }
}

/// Cut anywhere: what one loop has not delivered another one does, and what was given back is what is not in a frame.
#[test]
fn under_every_terminator_nothing_is_lost() {
    for (what, terminator, wire) in terminators() {
        for cut in 0..=wire.len() {
            let on = move |ctx: &mut DeskCtx<'_>, call: &Call| {
                if matches!(call, Call::Connected | Call::Frame(_)) {
                    ctx.set_terminator(terminator());
                }
                Ok(())
            };
            let mut talk = Talk::connected(on);
            talk.peer.write_all(&wire[..cut]).expect("there is room");
            turn(&mut talk.reactor, &mut talk.desk, Duration::ZERO);
            turn(&mut talk.reactor, &mut talk.desk, Duration::ZERO);
            let unread = talk.reactor.net().link(talk.key).expect("it is open").unread();
            let detached = talk.detach();
            assert_eq!(detached.unread.len(), unread, "{what}, cut at {cut}");
            assert!(wire[..cut].ends_with(&detached.unread), "{what}, cut at {cut}");
            let mut next = Reactor::new().expect("a selector");
            let frames = talk.desk.frames().len();
            next.net().adopt(detached.socket.unread(detached.unread), giver(on)).expect("a stream");
            talk.peer.write_all(&wire[cut..]).expect("there is room");
            drop(talk.peer);
            until(&mut next, &mut talk.desk, |desk| desk.calls.iter().any(|call| matches!(call, Call::Eof(_))));
            let (mut whole, mut all) = (Talk::connected(on), Vec::new());
            whole.peer.write_all(wire).expect("there is room");
            drop(whole.peer);
            until(&mut whole.reactor, &mut whole.desk, |desk| desk.calls.iter().any(|call| matches!(call, Call::Eof(_))));
            all.extend(whole.desk.frames());
            assert_eq!(talk.desk.frames(), all, "{what}, cut at {cut}, behind {frames} frames");
        }
    }
}

/// What is delivered as it comes is never given back; the beginning of a delimiter is.
#[test]
fn what_comes_in_pieces_is_given_back_behind_them() {
    let terminators: [(fn() -> Terminator, &[u8]); 2] =
        [(|| Terminator::Stream(8), b"12345678abc"), (|| Terminator::stream_until(&b"--"[..]), b"123-45--ab-")];
    for (terminator, wire) in terminators {
        for cut in 0..=wire.len() {
            let mut talk = Talk::connected(move |ctx, call| {
                match call {
                    Call::Connected => ctx.set_terminator(terminator()),
                    Call::Frame(_) => _ = ctx.net.detach(ctx.key),
                    _ => {}
                }
                Ok(())
            });
            talk.peer.write_all(&wire[..cut]).expect("there is room");
            talk.settle();
            let is_over = talk.desk.why().is_some();
            let detached = if is_over { talk.detached() } else { talk.detach() };
            let mut all = talk.desk.received();
            if is_over && wire.contains(&b'-') {
                all.extend_from_slice(b"--");
            }
            all.extend_from_slice(&detached.unread);
            assert_eq!(all, wire[..cut], "cut at {cut}");
        }
    }
}

const WIRE: &[u8] = b"one\ntwo\nthree";

/// In any callback; what had been received and not delivered is given back, whatever else it says.
#[test]
fn every_callback_may_detach() {
    type Come = fn(&mut Talk);
    let calls: [(&str, fn(&Call) -> bool, Come, &[u8]); 7] = [
        ("connected", |call| *call == Call::Connected, |_| {}, b""),
        ("received", |call| matches!(call, Call::Received(_)), |talk| talk.peer.write_all(WIRE).expect("there is room"), b""),
        (
            "frame",
            |call| matches!(call, Call::Frame(_)),
            |talk| {
                talk.reactor.net().link(talk.key).expect("it is open").set_terminator(Terminator::line(99));
                talk.peer.write_all(WIRE).expect("there is room");
            },
            b"two\nthree",
        ),
        (
            "eof",
            |call| matches!(call, Call::Eof(_)),
            |talk| {
                talk.reactor.net().link(talk.key).expect("it is open").set_terminator(Terminator::line(99));
                talk.peer.write_all(WIRE).expect("there is room");
                talk.peer.shutdown(Shutdown::Write).expect("it is open");
            },
            b"",
        ),
        (
            "writable",
            |call| *call == Call::Writable,
            |talk| {
                talk.reactor.net().send(talk.key, vec![0; 4 << 20]);
                turn(&mut talk.reactor, &mut talk.desk, Duration::ZERO);
                let mut peer = talk.peer.try_clone().expect("a descriptor");
                let mut left = 4 << 20;
                let mut buf = vec![0; 64 << 10];
                until(&mut talk.reactor, &mut talk.desk, |_| {
                    peer.set_nonblocking(true).expect("fcntl(2)");
                    left -= peer.read(&mut buf).unwrap_or(0);
                    left == 0
                });
                peer.set_nonblocking(false).expect("fcntl(2)");
            },
            b"",
        ),
        ("draining", |call| *call == Call::Draining, |talk| talk.reactor.net().drain(PATIENCE), b""),
        (
            "exceeded",
            |call| matches!(call, Call::Exceeded(_)),
            |talk| {
                let mut net = talk.reactor.net();
                let mut link = net.link(talk.key).expect("it is open");
                link.set_terminator(Terminator::line(99));
                link.set_frame_timeout(SHORT);
                talk.peer.write_all(b"begun").expect("there is room");
            },
            b"begun",
        ),
    ];
    for fails in [false, true] {
        for (what, is_it, come, unread) in calls {
            let mut talk = Talk::new(move |ctx, call| {
                if is_it(call) {
                    ctx.send("sent before");
                    assert!(ctx.net.detach(ctx.key), "it is open");
                    ctx.send("refused");
                    if fails {
                        return Err("after that nothing counts".into());
                    }
                }
                Ok(())
            });
            if what != "connected" {
                talk.until(|desk| desk.has(&Call::Connected));
            }
            come(&mut talk);
            let detached = talk.detached();
            assert_eq!(detached.unread, unread, "{what}");
            assert_eq!(detached.unsent, b"sent before", "{what}");
            let calls = talk.desk.calls.clone();
            let _ = talk.peer.write_all(b"more"); // who has ended says no more
            assert_sleeps(&mut talk.reactor, &mut talk.desk);
            assert!(talk.desk.calls == calls, "{what}: nothing after the end");
            assert_eq!(talk.reactor.stats().stale_events, 0, "{what}");
            let mut socket = file(detached);
            if what != "eof" {
                let mut buf = [0; 99];
                let bytes = uninterrupted(|| socket.read(&mut buf)).expect("it is open");
                assert_eq!(&buf[..bytes], b"more", "{what}");
            }
            socket.write_all(b"answer").expect("it is open");
            let mut buf = [0; 6];
            talk.peer.read_exact(&mut buf).expect("it is open");
            assert_eq!(&buf, b"answer", "{what}");
        }
    }
}

#[test]
fn so_may_a_tell_a_post_and_a_timer() {
    type How = fn(&mut Talk);
    type Any = Giver<fn(&mut DeskCtx<'_>, &Call) -> Outcome>;
    let hows: [How; 4] = [
        |talk| {
            assert!(talk.reactor.net().tell(talk.key, |_: &mut Any, ctx, _| {
                ctx.send("sent before");
                assert!(ctx.net.detach(ctx.key));
                Ok(())
            }));
        },
        |talk| {
            let key = talk.key;
            talk.reactor.net().post(move |net, _| {
                assert!(net.send(key, "sent before"));
                assert!(net.detach(key));
            });
        },
        |talk| {
            let key = talk.key;
            talk.reactor.net().after(SHORT, move |net, _| {
                assert!(net.send(key, "sent before"));
                assert!(net.detach(key));
            });
        },
        |talk| {
            assert!(talk.reactor.net().tell(talk.key, |_: &mut Any, ctx, _| {
                ctx.after(SHORT, |_: &mut Any, ctx, _| {
                    ctx.send("sent before");
                    assert!(ctx.net.detach(ctx.key));
                    Ok(())
                });
                Ok(())
            }));
        },
    ];
    for how in hows {
        let mut talk = Talk::connected(idle as fn(&mut DeskCtx<'_>, &Call) -> Outcome);
        let key = talk.key;
        talk.reactor.net().link(key).expect("it is open").set_terminator(Terminator::line(99));
        talk.peer.write_all(b"one\nbegun").expect("there is room");
        talk.until(|desk| desk.frames() == [b"one"]);
        how(&mut talk);
        let detached = talk.detached();
        assert_eq!((detached.unread, detached.unsent), (b"begun".to_vec(), b"sent before".to_vec()));
    }
}

/// In whichever order.
#[test]
fn what_is_put_back_is_given_back() {
    for (first, fails) in [(true, false), (false, false), (true, true), (false, true)] {
        for terminator in [|| Terminator::exactly(4), || Terminator::None, || Terminator::delimiter(&b";"[..], 9)] {
            let mut talk = Talk::connected(move |ctx, call| {
                if let Call::Frame(bytes) | Call::Received(bytes) = call {
                    if first {
                        ctx.put_back(bytes.len() - 1);
                    }
                    assert!(ctx.net.detach(ctx.key));
                    if !first {
                        ctx.put_back(bytes.len() - 1);
                    }
                    if fails {
                        return Err("too late".into());
                    }
                }
                Ok(())
            });
            talk.reactor.net().link(talk.key).expect("it is open").set_terminator(terminator());
            talk.peer.write_all(b"abcd;efg").expect("there is room");
            assert_eq!(talk.detached().unread, b"bcd;efg", "put back first: {first}, fails: {fails}");
        }
    }
}

/// A panic ends nothing any more either.
#[test]
fn who_panics_after_it_has_been_detached_loses_nothing() {
    let mut talk = Talk::connected(|ctx, call| {
        if let Call::Frame(_) = call {
            assert!(ctx.net.detach(ctx.key));
            panic!("too late");
        }
        Ok(())
    });
    talk.reactor.net().link(talk.key).expect("it is open").set_terminator(Terminator::line(99));
    talk.peer.write_all(WIRE).expect("there is room");
    assert_eq!(talk.detached().unread, b"two\nthree");
}

/// Own bytes, shared ones, what a callback sends: in order, and each byte once, here or there.
#[test]
fn what_has_not_left_is_given_back() {
    let part = |byte: u8, bytes: usize| vec![byte; bytes];
    let mut talk = Talk::connected(move |ctx, call| {
        if let Call::Received(_) = call {
            ctx.send(part(4, 10));
            ctx.send_shared(&part(5, 5_000).into());
            ctx.send(part(6, 10));
            assert!(ctx.net.detach(ctx.key));
        }
        Ok(())
    });
    let shared: Rc<[u8]> = part(2, 1 << 20).into();
    talk.reactor.net().link(talk.key).expect("it is open").set_output_limits(1 << 10, 1 << 20, 8 << 20);
    for bytes in [part(1, 1 << 20), part(3, 100)] {
        assert!(talk.reactor.net().send(talk.key, bytes));
        assert!(talk.reactor.net().send_shared(talk.key, &shared));
    }
    turn(&mut talk.reactor, &mut talk.desk, Duration::ZERO);
    talk.peer.write_all(b"now").expect("there is room");
    let detached = talk.detached();
    talk.peer.set_nonblocking(true).expect("fcntl(2)");
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(bytes) = talk.peer.read(&mut buf) {
        all.extend_from_slice(&buf[..bytes]);
    }
    assert!(!all.is_empty(), "the kernel has taken some");
    all.extend_from_slice(&detached.unsent);
    let expected = [part(1, 1 << 20), part(2, 1 << 20), part(3, 100), part(2, 1 << 20), part(4, 10), part(5, 5_000), part(6, 10)];
    assert!(all == expected.concat());
}

/// An accepted connection, its peer, and the address of the listener, which takes one connection at a time.
fn accepted(reactor: &mut Reactor<Desk>, desk: &mut Desk) -> (Key, TcpStream, std::net::SocketAddr) {
    let mut net = reactor.net();
    let options = Listen::new().connections_max(1, "full").per_peer_max(1, "full");
    let listener = net.listen_with("127.0.0.1:0", options, |_, _, _| Ok(giver(idle))).expect("a free port");
    let at = net.local(listener).and_then(|at| at.ip()).expect("it listens");
    let peer = dial(at);
    until(reactor, desk, |desk| desk.has(&Call::Connected));
    let key = reactor.net().connections().iter().find(|conn| conn.kind == Kind::Accepted).expect("it came").key;
    (key, peer, at)
}

#[test]
fn an_accepted_connection_counts_no_more_when_it_is_given_back() {
    let (mut reactor, mut desk) = (Reactor::new().expect("a selector"), Desk::default());
    let (key, mut peer, at) = accepted(&mut reactor, &mut desk);
    let mut refused = dial(at);
    settle(&mut reactor, &mut desk);
    let mut buf = [0; 4];
    refused.read_exact(&mut buf).expect("a refusal");
    assert!(reactor.net().detach(key));
    until(&mut reactor, &mut desk, |desk| desk.detached.is_some());
    let (from, to) = desk.ends.clone().expect("it is closed");
    assert_eq!(from.ip(), peer.local_addr().ok());
    assert_eq!(to.ip(), Some(at));
    let _next = dial(at);
    until(&mut reactor, &mut desk, |desk| desk.calls.iter().filter(|call| **call == Call::Connected).count() == 2);
    let detached = desk.take();
    let socket = detached.socket.into_socket().expect("a socket");
    assert_eq!(socket.peer_addr().ok().and_then(|peer| peer.as_socket()), peer.local_addr().ok());
    let mut socket = TcpStream::from(socket);
    socket.set_nonblocking(false).expect("fcntl(2)");
    socket.write_all(b"by std").expect("it is open");
    let mut buf = [0; 6];
    peer.read_exact(&mut buf).expect("it is open");
    assert_eq!(&buf, b"by std");
    assert_eq!(reactor.stats().closed.detached, 1);
}

#[test]
fn ends_are_given_back_as_they_were() {
    let ((read, mut input), (mut output, write)) = {
        let ((read, input), (output, write)) = (pipe(), pipe());
        ((read, File::from(input)), (File::from(output), write))
    };
    let mut reactor = Reactor::new().expect("a selector");
    let mut desk = Desk::default();
    let key = reactor.net().adopt_pair(read, write, giver(idle)).expect("a pair of pipes");
    until(&mut reactor, &mut desk, |desk| desk.has(&Call::Connected));
    assert!(reactor.net().send(key, vec![1; 1 << 20]));
    turn(&mut reactor, &mut desk, Duration::ZERO);
    assert!(reactor.net().detach(key));
    until(&mut reactor, &mut desk, |desk| desk.detached.is_some());
    let detached = desk.take();
    assert!(!detached.unsent.is_empty());
    let more = detached.unsent.len();
    let again = reactor.net().adopt(detached.socket, giver(idle)).expect("it is what it was");
    assert!(reactor.net().send(again, &detached.unsent));
    socket2::SockRef::from(&output).set_nonblocking(true).expect("fcntl(2)");
    let (mut all, mut buf) = (0, vec![0; 64 << 10]);
    until(&mut reactor, &mut desk, |_| {
        all += output.read(&mut buf).unwrap_or(0);
        all == 1 << 20
    });
    assert!(more > 0);
    input.write_all(b"still").expect("it is read");
    until(&mut reactor, &mut desk, |desk| desk.received() == b"still");
    assert!(reactor.net().half_close(again));
    turn(&mut reactor, &mut desk, Duration::ZERO);
    assert!(reactor.net().detach(again));
    until(&mut reactor, &mut desk, |desk| desk.detached.is_some());
    let (reader, writer) = desk.take().socket.into_fds();
    assert!(reader.is_some() && writer.is_none(), "our side had ended");
    assert_eq!(desk.ends.as_ref().map(|(peer, _)| peer.to_string()), Some(Address::Fd.to_string()));

    let ((read, input), (output, write)) = (pipe(), pipe());
    for (stream, is_reader) in [(Adopted::reader(read), true), (Adopted::writer(write), false)] {
        desk.calls.clear();
        let key = reactor.net().adopt(stream, giver(idle)).expect("a stream");
        until(&mut reactor, &mut desk, |desk| desk.has(&Call::Connected));
        assert!(reactor.net().detach(key));
        until(&mut reactor, &mut desk, |desk| desk.detached.is_some());
        let (reader, writer) = desk.take().socket.into_fds();
        assert_eq!((reader.is_some(), writer.is_some()), (is_reader, !is_reader));
    }
    drop((input, output));
}

/// What was taken over and what came by itself.
#[test]
fn what_cannot_be_given_back_stays() {
    let (mut reactor, mut desk) = (Reactor::new().expect("a selector"), Desk::default());
    let (socket, at) = crate::common::nobody();
    let connecting = reactor.net().connect(at, giver(idle));
    assert!(!reactor.net().detach(connecting), "it is not connected");
    reactor.net().abort(connecting);
    drop(socket);
    let (listener, _) = listen(&mut reactor, || giver(idle));
    assert!(!reactor.net().detach(listener), "it has no stream");
    reactor.net().close(listener);

    let mut talk = Talk::connected(idle);
    let key = talk.key;
    let mut net = talk.reactor.net();
    assert!(net.link(key).expect("it is open").produce(|_: &mut Vec<u8>| Ok(Produced::NotYet)));
    assert!(!net.detach(key), "a producer is queued");
    assert!(net.abort(key));
    assert!(!net.detach(key), "it has ended");
    talk.until(|desk| desk.why() == Some("aborted"));
    assert!(!talk.reactor.net().detach(key), "it is gone");

    let mut talk = Talk::connected(idle);
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let mate = talk.reactor.net().adopt(ours, giver(idle)).expect("a stream");
    talk.settle();
    assert!(talk.reactor.net().pair(talk.key, mate));
    assert!(!talk.reactor.net().detach(talk.key) && !talk.reactor.net().detach(mate), "it is one of a pair");

    let mut talk = Talk::connected(|ctx, call| {
        if *call == Call::Connected {
            ctx.save(std::io::sink(), |_: &mut Giver<fn(&mut DeskCtx<'_>, &Call) -> Outcome>, _, _, _| Ok(()));
        }
        Ok(())
    });
    assert!(!talk.reactor.net().detach(talk.key), "it is saved");

    let mut talk = Talk::connected(idle);
    talk.reactor.net().send(talk.key, vec![0; 4 << 20]);
    turn(&mut talk.reactor, &mut talk.desk, Duration::ZERO);
    assert!(talk.reactor.net().close(talk.key));
    assert!(!talk.reactor.net().detach(talk.key), "it flushes its end");

    let ((read, input), (output, write)) = (pipe(), pipe());
    desk.calls.clear();
    let lost = reactor.net().adopt_pair(read, write, giver(idle)).expect("a pair of pipes");
    assert!(reactor.net().send(lost, vec![0; 1 << 20]));
    until(&mut reactor, &mut desk, |desk| desk.has(&Call::Connected));
    drop(output);
    until_net(&mut reactor, &mut desk, |net, _| net.link(lost).expect("it is read").queued() == 0);
    assert!(!reactor.net().detach(lost), "it has lost something");
    drop(input);
    assert!(!reactor.net().detach(mate), "of another reactor");
}

#[test]
fn what_follows_finds_nobody() {
    let mut talk = Talk::connected(idle);
    let (key, mut net) = (talk.key, talk.reactor.net());
    assert!(net.detach(key));
    assert!(!net.detach(key) && !net.close(key) && !net.abort(key) && !net.fail(key, "late") && !net.half_close(key));
    assert!(!net.send(key, "late") && !net.is_open(key) && net.link(key).is_none());
    assert!(talk.detached().unsent.is_empty());
    assert_eq!(talk.desk.calls.iter().filter(|call| matches!(call, Call::Closed(_))).count(), 1);
}

/// Ended in the same turn by its peer, which the next one sees.
#[test]
fn another_loop_goes_on_where_this_one_stopped() {
    let mut talk = Talk::connected(|ctx, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(99)),
            Call::Frame(frame) if frame == b"upgrade" => _ = ctx.net.detach(ctx.key),
            _ => {}
        }
        Ok(())
    });
    talk.peer.write_all(b"upgrade\nfirst\nsec").expect("there is room");
    let detached = talk.detached();
    talk.peer.write_all(b"ond\n").expect("there is room");
    drop(talk.peer);
    let mut next = Reactor::new().expect("a selector");
    let on = |ctx: &mut DeskCtx<'_>, call: &Call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::line(99)),
            Call::Eof(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    };
    next.net().adopt(detached.socket.unread(detached.unread), giver(on)).expect("a stream");
    talk.desk.calls.clear();
    until(&mut next, &mut talk.desk, |desk| desk.why().is_some());
    assert_eq!(talk.desk.frames(), [b"first".to_vec(), b"second".to_vec()]);
}

/// With what a kernel has of it, no descriptor is left.
#[test]
fn a_shutdown_or_a_drop_right_after_it_leaves_nothing() {
    if !is_alone("adopting::detaching::a_shutdown_or_a_drop_right_after_it_leaves_nothing", "") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("it listens");
    let before = descriptors();
    for number in 0..200 {
        let (mut reactor, mut desk) = (Reactor::new().expect("a selector"), Desk::default());
        let (read, write) = (pipe(), pipe());
        let tcp = TcpStream::connect(at).expect("it listens");
        let keys = [
            reactor.net().adopt(UnixStream::pair().expect("a pair").0, giver(idle)).expect("a stream"),
            reactor.net().adopt_pair(read.0, write.1, giver(idle)).expect("a stream"),
            reactor.net().adopt(tcp, giver(idle)).expect("a stream"),
        ];
        if number % 3 > 0 {
            turn(&mut reactor, &mut desk, Duration::ZERO);
        }
        for key in keys {
            reactor.net().send(key, vec![0; 1 << 20]);
            reactor.net().detach(key);
        }
        if number % 2 == 0 {
            reactor.shutdown(&mut desk);
            assert_eq!(desk.calls.iter().filter(|call| matches!(call, Call::Closed(_))).count(), 3);
        }
        drop((reactor, desk));
        drop(listener.accept().expect("somebody came"));
        drop((read.1, write.0));
    }
    assert_eq!(descriptors(), before);
}

/// What the selector was told of it is forgotten: nobody is woken by what the next owner gets.
#[test]
fn what_was_given_back_wakes_nobody() {
    let mut talk = Talk::connected(idle);
    let detached = talk.detach();
    let events = talk.reactor.stats().events;
    talk.peer.write_all(b"for the next one").expect("there is room");
    assert_sleeps(&mut talk.reactor, &mut talk.desk);
    assert_eq!(talk.reactor.stats().events, events);
    let mut socket = file(detached);
    let mut buf = [0; 99];
    assert_eq!(uninterrupted(|| socket.read(&mut buf)).expect("it is open"), 16);
}
