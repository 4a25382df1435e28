//! What a callback writes into the fields of its context concerns nobody: the loop goes on with the connection that it has
//! served.

use crate::common::{
    Call, Ctx, Journal, On, PATIENCE, STUFF, dial, echo, guest, lines, note, quiet, read_exactly, read_to_end, recorder, say,
    settle, start, stuff, until,
};
use mainspring::{
    Answer, Context, Fault, Key, Limit, Listen, Net, Outcome, Protocol, Reason, RequestHandler, Terminator, testing::Sim,
};
use std::{
    cell::{Cell, RefCell},
    net::Shutdown,
    rc::Rc,
    time::Duration,
};

/// What is written into a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoil {
    Nothing,
    Key(&'static str),
    Net,
    Both,
}

/// Every kind of key that a program can have.
const SPOILS: [Spoil; 7] = [
    Spoil::Key("other"),
    Spoil::Key("listener"),
    Spoil::Key("gone"),
    Spoil::Key("lingering"),
    Spoil::Key("foreign"),
    Spoil::Net,
    Spoil::Both,
];

thread_local! {
    static KEYS: RefCell<Vec<(&'static str, Key)>> = RefCell::default();
}

fn key_of(name: &str) -> Option<Key> {
    KEYS.with_borrow(|keys| keys.iter().rev().find(|(known, _)| *known == name).map(|(_, key)| *key))
}

/// That of a reactor that lives for ever, with a connection in each slot that ours have. It is of a simulated host, so that
/// it keeps no descriptors.
fn another() -> Net<'static, Journal> {
    let sim = Box::leak(Box::new(Sim::new(1)));
    let hosts = [sim.host("10.0.0.1", Journal::default()), sim.host("10.0.0.2", Journal::default())];
    let mut net = sim.net(hosts[1]);
    for _ in 0..6 {
        net.connect("10.0.0.3:1", recorder(quiet as On));
    }
    net
}

impl Spoil {
    fn context(self, ctx: &mut Ctx<'_>) {
        if let Self::Key(name) = self {
            ctx.key = key_of(name).unwrap_or(ctx.key);
        }
        if let Self::Both = self {
            ctx.key = key_of("foreign").unwrap_or(ctx.key);
        }
        if let Self::Net | Self::Both = self {
            ctx.net = another();
        }
    }

    fn net<'a>(self, net: &mut Net<'a, Journal>) {
        if let Self::Net | Self::Both = self {
            *net = another();
        }
    }
}

/// Notes what it is called with, sends each line back, and then spoils its context.
struct Vandal(Spoil);

impl Vandal {
    fn noted(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, call: Call) -> Outcome {
        let key = ctx.key;
        match &call {
            Call::Connected => ctx.set_terminator(Terminator::line(100)),
            Call::Frame(line) => ctx.send([line, &b"!"[..]].concat()),
            _ => {}
        }
        journal.note(key, call);
        self.0.context(ctx);
        Ok(())
    }
}

impl Protocol<Journal> for Vandal {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Connected)
    }

    fn received(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, bytes: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Received(bytes.to_vec()))
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, frame: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Frame(frame.to_vec()))
    }

    fn writable(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Writable)
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, limit: Limit) -> Outcome {
        self.noted(ctx, journal, Call::Exceeded(limit))
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        self.noted(ctx, journal, Call::Draining)
    }

    fn eof(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, tail: &[u8]) -> Outcome {
        self.noted(ctx, journal, Call::Eof(tail.to_vec()))
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        let _ = self.noted(ctx, journal, Call::Closed(why.to_string()));
    }
}

/// Everything that can be called of one connection, beside another one that has a part of a line; what either was called with.
fn play(spoil: Spoil) -> [Vec<Call>; 2] {
    let (mut reactor, mut journal) = start();
    let (gone, _) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().abort(gone);
    let (lingering, lingers) = guest(&mut reactor, &mut journal, quiet);
    reactor.net().close(lingering);
    settle(&mut reactor, &mut journal);
    let (other, mut other_peer) = guest(&mut reactor, &mut journal, lines);
    let factory = move |net: &mut Net<'_, Journal>, _: &mut Journal, _: &_| {
        spoil.net(net);
        Ok(Vandal(spoil))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let foreign = another().connect("10.0.0.3:1", recorder(quiet as On));
    let names = [("gone", gone), ("lingering", lingering), ("other", other), ("listener", listener), ("foreign", foreign)];
    KEYS.set(names.into());
    let at = reactor.net().local(listener).and_then(|address| address.ip()).expect("it listens");

    say(&other_peer, "the other's fi");
    settle(&mut reactor, &mut journal);
    let before = journal.calls.len();
    let mut peer = dial(at);
    say(&peer, "one\ntw");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Frame(b"one".into())));
    let key = journal.calls[before].0;
    say(&other_peer, "rst\nsec");
    settle(&mut reactor, &mut journal);
    say(&peer, "o\nthr");
    settle(&mut reactor, &mut journal);

    tell_everything(&mut reactor.net(), key, spoil);
    let noted = |journal: &Journal| {
        journal.calls.iter().filter(|(_, call)| matches!(call, Call::Frame(text) if text.starts_with(b"by"))).count()
    };
    until(&mut reactor, &mut journal, |journal| noted(journal) >= 7);
    reactor.net().link(key).expect("it is open").set_deadline(Duration::ZERO);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Deadline)));
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 8), b"one!two!");
    stuff(&mut reactor, &mut journal, key);
    read_exactly(&mut reactor, &mut journal, &mut peer, STUFF);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Writable));
    reactor.net().drain(PATIENCE);
    settle(&mut reactor, &mut journal);
    peer.shutdown(Shutdown::Write).expect("connected");
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(b"thr".into())));
    reactor.net().close(key);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"", "nobody else's answer");

    say(&other_peer, "ond\n");
    other_peer.shutdown(Shutdown::Write).expect("connected");
    settle(&mut reactor, &mut journal);
    reactor.net().close(other);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut other_peer), b"", "nothing was sent to it");
    drop(lingers);
    settle(&mut reactor, &mut journal);
    [journal.of(key), journal.of(other)]
}

/// A tell, timers, posts and offloads, of the connection and of nobody, each of which spoils what it is given.
fn tell_everything(net: &mut Net<'_, Journal>, key: Key, spoil: Spoil) {
    let told = move |text: &'static str| {
        move |_: &mut Vandal, ctx: &mut Ctx<'_>, journal: &mut Journal| {
            note(journal, ctx.key, text);
            spoil.context(ctx);
            Ok(())
        }
    };
    net.tell(key, told("by a tell"));
    net.tell_after(key, Duration::ZERO, told("by a timer"));
    net.tell(key, move |_: &mut Vandal, ctx, _| {
        let left = Cell::new(2_u32);
        ctx.every(Duration::ZERO, move |_: &mut Vandal, ctx, journal| {
            if left.replace(left.get().saturating_sub(1)) > 0 {
                note(journal, ctx.key, "by a timer again");
                spoil.context(ctx);
            }
            Ok(())
        });
        Ok(())
    });
    net.offload_for(
        key,
        || (),
        move |_: &mut Vandal, ctx, journal, _| {
            note(journal, ctx.key, "by an offload");
            spoil.context(ctx);
            Ok(())
        },
    );
    net.post(move |net, journal| {
        note(journal, key, "by a post");
        spoil.net(net);
    });
    net.after(Duration::ZERO, move |net, journal| {
        note(journal, key, "by nobody's timer");
        spoil.net(net);
    });
    let left = Cell::new(2_u32);
    net.every(Duration::from_millis(1), move |net, _| {
        if left.replace(left.get().saturating_sub(1)) > 0 {
            spoil.net(net);
        }
    });
    net.offload(|| (), move |net, _, _| spoil.net(net));
    net.resolve("127.0.0.1", move |net, _, _| spoil.net(net));
}

/// In whatever order timers and other threads came.
fn sorted(calls: [Vec<Call>; 2]) -> [Vec<String>; 2] {
    calls.map(|calls| {
        let mut texts: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
        texts.sort();
        texts
    })
}

#[test]
fn a_context_that_is_written_into_changes_nothing_for_anybody() {
    let expected = sorted(play(Spoil::Nothing));
    assert!(expected[0].iter().any(|call| call.contains("Closed(\"the peer finished\")")), "{expected:?}");
    for spoil in SPOILS {
        assert_eq!(sorted(play(spoil)), expected, "{spoil:?}");
    }
}

/// What the commands of a spoilt context come to.
fn command(spoil: Spoil, command: fn(&mut Ctx<'_>)) -> (Vec<Call>, Vec<u8>, Vec<Call>, Vec<u8>) {
    let (mut reactor, mut journal) = start();
    let (other, mut other_peer) = guest(&mut reactor, &mut journal, quiet);
    KEYS.set(vec![("other", other)]);
    let (key, mut peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if let Call::Received(_) = call {
            spoil.context(ctx);
            command(ctx);
        }
        Ok(())
    });
    say(&peer, "now");
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() >= 2);
    settle(&mut reactor, &mut journal);
    for key in [key, other] {
        reactor.net().close(key);
    }
    let bytes = [&mut peer, &mut other_peer].map(|peer| read_to_end(&mut reactor, &mut journal, peer));
    settle(&mut reactor, &mut journal);
    let [of_peer, of_other] = bytes;
    (journal.of(key), of_peer, journal.of(other), of_other)
}

const COMMANDS: [fn(&mut Ctx<'_>); 15] = [
    |ctx| ctx.send("mine"),
    |ctx| ctx.send_shared(&vec![b'm'; 10_000].into()),
    |ctx| ctx.send_netstring("mine"),
    |ctx| write!(ctx, "mine {}", ctx.queued()),
    |ctx| assert_eq!(ctx.link().local().clone(), ctx.local().clone()),
    |ctx| assert_eq!((ctx.queued(), ctx.unread()), (ctx.link().queued(), ctx.link().unread())),
    |ctx| assert_eq!(format!("{:?}", ctx.link()).is_empty(), format!("{ctx:?}").is_empty()),
    |ctx| _ = ctx.link().with_socket(|_| ()),
    |ctx| ctx.close(),
    |ctx| ctx.fail("mine"),
    |ctx| ctx.half_close(),
    |ctx| ctx.upgrade(recorder(echo as On)),
    |ctx| _ = ctx.after(Duration::ZERO, |_: &mut Vandal, _, _| panic!("of another type")),
    |ctx| ctx.throttle(ctx.key),
    |ctx| ctx.set_idle_timeout(Duration::from_millis(1)),
];

#[test]
fn commands_go_to_the_connection_whose_callback_is_running_and_to_nobody_if_there_is_none() {
    for (n, run) in COMMANDS.into_iter().enumerate() {
        let plain = command(Spoil::Nothing, run);
        if n != 13 {
            assert_eq!(command(Spoil::Key("other"), run), plain, "{n}");
        }
        for spoil in [Spoil::Net, Spoil::Both] {
            let (calls, bytes, of_other, bytes_of_other) = command(spoil, run);
            let closed = || Call::Closed("finished".into());
            assert_eq!(calls, [Call::Connected, Call::Received(b"now".into()), closed()], "{n} {spoil:?}");
            assert_eq!((bytes, bytes_of_other), (vec![], vec![]), "{n} {spoil:?}");
            assert_eq!(of_other, [Call::Connected, closed()], "{n} {spoil:?}");
        }
    }
}

/// Answers with the name that it was given, now or later.
struct Named(Spoil, u32);

impl RequestHandler<Journal> for Named {
    fn setup(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
        ctx.set_terminator(Terminator::line(100));
        KEYS.with_borrow_mut(|keys| keys.push(("other", ctx.key)));
        self.0.context(ctx);
        Ok(())
    }

    fn handle(&mut self, ctx: &mut Ctx<'_>, _: &mut Journal, line: &[u8]) -> Result<Answer<Self, Journal>, Fault> {
        let (spoil, text) = (self.0, format!("{} of {}\n", line.escape_ascii(), self.1));
        spoil.context(ctx);
        Ok(match line {
            b"later" => Answer::later(
                || (),
                move |_, ctx, _, _| {
                    spoil.context(ctx);
                    Ok(Answer::now(text))
                },
            ),
            b"last" => Answer::last(text),
            _ => Answer::now(text),
        })
    }

    fn finish(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        note(journal, ctx.key, why.to_string());
        self.0.context(ctx);
    }
}

#[test]
fn answers_go_to_who_has_asked_whatever_a_request_handler_writes_into_its_context() {
    for spoil in SPOILS {
        let (mut reactor, mut journal) = start();
        KEYS.set(Vec::new());
        let mut count = 0;
        let make = move || {
            count += 1;
            Named(spoil, count)
        };
        let listener = reactor.net().serve("127.0.0.1:0", Listen::new(), make).expect("a free port");
        let at = reactor.net().local(listener).and_then(|address| address.ip()).expect("it listens");
        let mut peers = [1, 2].map(|n| {
            let peer = dial(at);
            until(&mut reactor, &mut journal, |_| KEYS.with_borrow(|keys| keys.len() == n));
            peer
        });
        for peer in &peers {
            say(peer, "now\nlater\nla");
        }
        settle(&mut reactor, &mut journal);
        for (peer, n) in peers.iter_mut().zip(1..) {
            say(peer, "st\n");
            let expected = format!("now of {n}\nlater of {n}\nlast of {n}\n");
            assert_eq!(String::from_utf8_lossy(&read_to_end(&mut reactor, &mut journal, peer)), expected, "{spoil:?}");
        }
        until(&mut reactor, &mut journal, |journal| journal.frames().len() == 2);
        assert_eq!(journal.frames(), ["finished", "finished"], "{spoil:?}");
    }
}

#[test]
fn an_answered_line_goes_to_who_has_said_it_whatever_is_put_in_the_place_of_the_net() {
    let (mut reactor, mut journal) = start();
    let reply = |net: &mut Net<'_, Journal>, _: &mut Journal, _: &_, line: &[u8]| {
        Spoil::Net.net(net);
        [line, b"\n"].concat()
    };
    let listener = reactor.net().serve_lines("127.0.0.1:0", 100, reply).expect("a free port");
    let at = reactor.net().local(listener).and_then(|address| address.ip()).expect("it listens");
    let mut peers = [dial(at), dial(at)];
    for (peer, text) in peers.iter_mut().zip(["one\n", "two\n"]) {
        say(peer, text);
        assert_eq!(read_exactly(&mut reactor, &mut journal, peer, 4), text.as_bytes());
    }
}

/// A drop of it is counted.
struct Counted(Rc<Cell<u32>>);

impl Protocol<Journal> for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn what_another_reactors_net_is_upgraded_to_is_dropped() {
    let (mut reactor, mut journal) = start();
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    let (key, peer) = guest(&mut reactor, &mut journal, move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if let Call::Received(_) = call {
            ctx.net = another();
            ctx.upgrade(Counted(Rc::clone(&count)));
            assert_eq!(count.get(), 1, "at once");
        }
        Ok(())
    });
    say(&peer, "x");
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() == 2);
    settle(&mut reactor, &mut journal);
    assert_eq!((dropped.get(), journal.closings()), (1, 0));
}

#[cfg(unix)]
mod dispatchers {
    use super::*;
    use mainspring::{Dispatcher, Drained, Scope, Source};
    use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream};

    struct Watching(UnixStream, Spoil);

    impl Watching {
        fn spoil(&self, scope: &mut Scope<'_, Journal>) {
            if let Spoil::Key(_) = self.1 {
                scope.key = key_of("other").expect("a connection");
            }
            self.1.net(&mut scope.net);
        }
    }

    impl Dispatcher<Journal> for Watching {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_fd())
        }

        fn readable(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal) -> Result<Drained, Fault> {
            note(journal, scope.key, "readable");
            self.spoil(scope);
            scope.close();
            Ok(Drained::Yes)
        }

        fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
            note(journal, scope.key, why.to_string());
            self.spoil(scope);
        }
    }

    #[test]
    fn a_dispatcher_that_writes_into_its_scope_ends_only_itself() {
        for (spoil, ends) in [(Spoil::Nothing, true), (Spoil::Key("other"), true), (Spoil::Net, false)] {
            let (mut reactor, mut journal) = start();
            let (other, _peer) = guest(&mut reactor, &mut journal, quiet);
            KEYS.set(vec![("other", other)]);
            let (socket, mut far) = UnixStream::pair().expect("a pair");
            socket.set_nonblocking(true).expect("a socket option");
            let key = reactor.net().watch(Watching(socket, spoil)).expect("a socket");
            far.write_all(b"x").expect("we have the other end");
            until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
            settle(&mut reactor, &mut journal);
            assert_eq!((reactor.net().is_open(key), reactor.net().is_open(other)), (!ends, true), "{spoil:?}");
        }
    }
}
