//! What a second look at the end of datagram sockets found.

use super::common::*;
use mainspring::{Config, Context, Dispatcher, Drained, Fault, Net, Protocol, Source};
use socket2::{Domain, Socket, Type};
use std::{
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixDatagram},
    thread,
};

type Step = fn(&mut Scope<'_, Journal>);

/// Notes its end; runs `draining`, and `closed` at its end.
struct Steps {
    draining: Step,
    failed: Step,
    closed: Step,
}

const STEPS: Steps = Steps { draining: |scope| scope.close_when_quiet(), failed: |_| {}, closed: |_| {} };

impl Datagram<Journal> for Steps {
    fn received(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, bytes: &[u8], from: &Address) -> Outcome {
        journal.told.push((scope.key, Told::Received(bytes.to_vec(), from.clone())));
        Ok(())
    }

    fn failed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, to: &Address, error: io::Error) -> Outcome {
        journal.told.push((scope.key, Told::Failed(to.clone(), error.kind(), None)));
        (self.failed)(scope);
        Ok(())
    }

    fn draining(&mut self, scope: &mut Scope<'_, Journal>, _: &mut Journal) -> Outcome {
        (self.draining)(scope);
        Ok(())
    }

    fn closed(&mut self, scope: &mut Scope<'_, Journal>, journal: &mut Journal, why: Reason) {
        journal.told.push((scope.key, Told::Closed(why.to_string())));
        (self.closed)(scope);
    }
}

/// Nobody waits: so many turns end it, or nothing does.
fn ends_soon(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> bool {
    (0..100).any(|_| !reactor.turn(journal, Duration::ZERO).expect("the selector works"))
}

fn fail_twice(scope: &mut Scope<'_, Journal>) {
    let key = scope.key;
    for _ in 0..2 {
        scope.net.send_to(key, &Address::Unix(None), "x");
    }
    scope.close_when_quiet();
}

/// The last failure is told as the last thing of a turn: by the number of datagrams, or by the time that it took.
#[test]
fn a_drain_ends_one_whose_turn_was_over_when_it_had_been_told_what_failed() {
    let slow: Step = |_| thread::sleep(Duration::from_millis(3)); // more than its share
    let by_time = Config::new().turn_time(Duration::from_millis(1));
    let by_number = Config::new().turn_datagrams(2);
    for (config, failed) in [(by_time, slow), (by_number, STEPS.failed)] {
        let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
        let key = reactor.net().bind("127.0.0.1:0", Steps { draining: fail_twice, failed, ..STEPS }).expect("a free port");
        reactor.net().drain(Duration::from_secs(60));
        assert!(ends_soon(&mut reactor, &mut journal), "it waits for ever: {:?}", journal.told);
        assert_eq!(journal.of(key).last(), Some(&Told::Closed(Reason::Drained.to_string())));
    }
}

struct Quiet;
impl Protocol<Journal> for Quiet {}

struct Watch(UnixDatagram);
impl Dispatcher<Journal> for Watch {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.0.as_fd())
    }
    fn readable(&mut self, _: &mut Scope<'_, Journal>, _: &mut Journal) -> Result<Drained, Fault> {
        Ok(Drained::Yes)
    }
}

fn listen(net: &mut Net<'_, Journal>) {
    net.listen("127.0.0.1:0", || Quiet).expect("a free port");
}

fn watch(net: &mut Net<'_, Journal>) {
    let (ours, _) = UnixDatagram::pair().expect("two descriptors");
    net.watch(Watch(ours)).expect("it can be watched");
}

/// A listener, and a dispatcher, do not keep a drain, whoever opened them when.
#[test]
fn what_a_datagram_socket_opens_at_its_end_does_not_keep_a_drain() {
    let draining_listens: Step = |scope| {
        listen(&mut scope.net);
        scope.close_when_quiet();
    };
    let draining_watches: Step = |scope| {
        watch(&mut scope.net);
        scope.close_when_quiet();
    };
    let cases = [
        ("draining listens", Steps { draining: draining_listens, ..STEPS }),
        ("draining watches", Steps { draining: draining_watches, ..STEPS }),
        ("closed listens", Steps { closed: |scope| listen(&mut scope.net), ..STEPS }),
        ("closed watches", Steps { closed: |scope| watch(&mut scope.net), ..STEPS }),
    ];
    let mut wrong = Vec::new();
    for (what, steps) in cases {
        let (mut reactor, mut journal) = reactor();
        reactor.net().bind("127.0.0.1:0", steps).expect("a free port");
        reactor.net().drain(Duration::from_secs(60));
        if !ends_soon(&mut reactor, &mut journal) {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "these keep it: {wrong:?}");
}

/// Of others that are closed in several turns, each may answer.
#[test]
fn in_a_shutdown_amid_a_drain_it_is_the_last_too() {
    struct Last(Key, Rc<Cell<usize>>);
    impl Protocol<Journal> for Last {
        fn closed(&mut self, ctx: &mut Context<'_, Journal>, _: &mut Journal, _: Reason) {
            let to = ctx.net.local(self.0).cloned().expect("it is there");
            self.1.set(self.1.get() + usize::from(ctx.net.send_to(self.0, &to, "last words")));
        }
        fn draining(&mut self, _: &mut Context<'_, Journal>, _: &mut Journal) -> Outcome {
            Ok(())
        }
    }
    let config = Config::new().turn_closings(1);
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let key = reactor.net().bind("127.0.0.1:0", Steps { draining: |_| {}, ..STEPS }).expect("a free port");
    reactor.net().drain(Duration::from_secs(60));
    settle(&mut reactor, &mut journal);
    let answered = Rc::new(Cell::new(0));
    let theirs = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = theirs.local_addr().expect("it listens");
    for _ in 0..3 {
        reactor.net().connect(at, Last(key, Rc::clone(&answered)));
    }
    reactor.shutdown(&mut journal);
    assert_eq!(answered.get(), 3, "of three");
}

/// One refused each turn: who sends again at once does not keep it from hearing others.
#[test]
fn who_sends_again_what_failed_hears_others_too() {
    let again: Step = |scope| {
        let key = scope.key;
        scope.net.send_to(key, &Address::Unix(None), "x");
    };
    let config = Config::new().turn_datagrams(1);
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let key = reactor.net().bind("127.0.0.1:0", Steps { failed: again, ..STEPS }).expect("a free port");
    let (to, peer) = (local(&mut reactor, key), peer());
    reactor.net().send_to(key, &Address::Unix(None), "x");
    peer.send_to(b"hello", to).expect("it is sent");
    for _ in 0..200 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert_eq!(journal.received().len(), 1, "after {} failures", journal.failures().len());
}

/// Each of many has left, or is dropped and counted.
#[test]
fn of_many_that_have_no_room_each_is_counted() {
    let (ours, _theirs) = UnixDatagram::pair().expect("two descriptors");
    let (mut reactor, _journal) = reactor();
    let key = reactor.net().bind_on(ours, Bind::new().queue(0, Full::DropNewest), silent()).expect("a socket of packets");
    assert!(!reactor.net().send_segments(key, &Address::Unix(None), [7; 100_000], 10), "nobody receives");
    let stats = reactor.stats();
    assert_eq!(stats.datagrams_out + stats.datagrams_dropped, 10_000, "{} left", stats.datagrams_out);
}

/// While one is read, more may come.
#[test]
fn a_flood_of_empty_messages_is_no_end() {
    const COUNT: usize = 200_000;
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new().largest(10), silent()).expect("a socket of packets");
    let floods = thread::spawn(move || {
        let sent = (0..COUNT).take_while(|_| theirs.send(b"").is_ok()).count();
        let _ = theirs.send(b"last");
        (sent, theirs)
    });
    until(&mut reactor, &mut journal, |journal| {
        closed(journal, key) || matches!(journal.told.last(), Some((_, Told::Received(bytes, _))) if bytes == b"last")
    });
    let told = journal.told.len();
    assert!(!closed(&journal, key), "ended after {told} messages, and the peer is there: {:?}", journal.told.last());
    assert_eq!((told, floods.join().expect("no panic").0), (COUNT + 1, COUNT));
}
