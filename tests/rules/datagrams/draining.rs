//! How datagram sockets finish, in a drain and in a shutdown.

use super::common::*;
use mainspring::{Config, Context, Dispatcher, Drained, Fault, Net, Protocol, Source};
use std::{net::TcpListener, thread};

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

/// Nobody waits: this many turns end it, or nothing does.
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

struct Watch(mio::net::UdpSocket);
impl Dispatcher<Journal> for Watch {
    fn source(&mut self) -> Source<'_> {
        Source::Mio(&mut self.0)
    }
    fn readable(&mut self, _: &mut Scope<'_, Journal>, _: &mut Journal) -> Result<Drained, Fault> {
        Ok(Drained::Yes)
    }
}

fn listen(net: &mut Net<'_, Journal>) {
    net.listen("127.0.0.1:0", || Nothing).expect("a free port");
}

fn watch(net: &mut Net<'_, Journal>) {
    net.watch(Watch(watched())).expect("it can be watched");
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

/// One refused each turn: a protocol that sends again at once does not keep it from hearing others.
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

/// As by `send`: one that has left begins the count of errors anew.
#[test]
#[cfg_attr(windows, ignore = "Wine: the news that nobody has a port is lost")]
fn who_sends_many_again_to_a_peer_that_is_not_there_is_not_ended() {
    for at_once in [false, true] {
        let (mut reactor, mut journal) = reactor();
        let gone = peer().local_addr().expect("it is bound");
        let to = Address::Ip(gone);
        let left = Cell::new(1_000);
        let datagram = recorder(move |scope, told| {
            if matches!(told, Told::Failed(..)) && left.get() > 0 {
                left.set(left.get() - 1);
                let key = scope.key;
                if at_once {
                    scope.net.send_segments(key, &to, [1; 20], 10)
                } else {
                    scope.net.send(key, "x")
                };
            }
            Ok(())
        });
        let key = reactor.net().bind_with("127.0.0.1:0", many().peer(gone), datagram).expect("a free port");
        assert!(reactor.net().send(key, "x"));
        until(&mut reactor, &mut journal, |journal| closed(journal, key) || journal.failures().len() > 1_000);
        assert!(!closed(&journal, key), "at once: {at_once}: {:?}, after {}", journal.told.last(), journal.told.len());
    }
}

/// It is asked too.
#[test]
fn whatever_is_bound_in_a_drain_ends_with_it() {
    fn bind(scope: &mut Scope<'_, Journal>) {
        scope.net.bind("127.0.0.1:0", STEPS).expect("a free port");
    }
    let binds_in_draining: Step = |scope| {
        bind(scope);
        scope.close_when_quiet();
    };
    for steps in [Steps { draining: binds_in_draining, ..STEPS }, Steps { closed: bind, ..STEPS }] {
        let (mut reactor, mut journal) = reactor();
        reactor.net().bind("127.0.0.1:0", steps).expect("a free port");
        reactor.net().drain(Duration::from_secs(60));
        assert!(ends_soon(&mut reactor, &mut journal));
        let drained = journal.told.iter().filter(|(_, told)| *told == Told::Closed(Reason::Drained.to_string())).count();
        assert_eq!(drained, 2);
    }
}

#[cfg(unix)]
#[test]
fn one_whose_queue_never_empties_ends_with_the_grace() {
    let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().expect("two descriptors");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    while reactor.net().connections()[0].queued == 0 {
        assert!(reactor.net().send(key, "fill"));
    }
    reactor.net().drain(Duration::from_millis(50));
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.of(key), [Told::Closed(Reason::Shutdown.to_string())]);
}

/// What `closed` asks for in a shutdown is over with it.
#[test]
fn a_drain_that_is_asked_for_in_a_shutdown_is_over_with_it() {
    let (mut reactor, mut journal) = reactor();
    let drains: Step = |scope| scope.net.drain(Duration::ZERO);
    for _ in 0..2 {
        reactor.net().bind("127.0.0.1:0", Steps { closed: drains, ..STEPS }).expect("a free port");
    }
    reactor.shutdown(&mut journal);
    assert_eq!(journal.told.len(), 2);
    let key = reactor.net().bind("127.0.0.1:0", STEPS).expect("a free port");
    settle(&mut reactor, &mut journal);
    assert!(reactor.net().is_open(key) && !reactor.net().is_draining());
}

/// Where a dispatcher is left when the grace ends, both end.
#[test]
fn the_end_of_the_grace_ends_what_was_opened_amid_datagram_sockets() {
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind("127.0.0.1:0", Steps { draining: |scope| watch(&mut scope.net), ..STEPS }).expect("a free port");
    reactor.net().drain(Duration::from_millis(50));
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!(journal.of(key), [Told::Closed(Reason::Shutdown.to_string())]);
}

/// It is never quiet, and ends all the same when more has come than the system keeps.
#[test]
fn a_flood_keeps_a_drain_no_longer_than_it_says() {
    struct Floods(Rc<Cell<usize>>);
    impl Datagram<Journal> for Floods {
        fn received(&mut self, scope: &mut Scope<'_, Journal>, _: &mut Journal, _: &[u8], from: &Address) -> Outcome {
            self.0.set(self.0.get() + 1);
            if self.0.get() % 64 == 1 {
                let key = scope.key;
                scope.net.send_segments(key, from, [1; 640], 10);
            }
            Ok(())
        }
    }
    let count = Rc::new(Cell::new(0));
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_with("127.0.0.1:0", many(), Floods(Rc::clone(&count))).expect("a free port");
    let ours = Address::Ip(local(&mut reactor, key));
    reactor.net().send_to(key, &ours, "x");
    reactor.net().drain(Duration::from_secs(600));
    while count.get() < 200_000 && reactor.turn(&mut journal, Duration::ZERO).expect("the selector works") {}
    assert!(count.get() <= (1 << 16) + 1_000, "{}", count.get());
}
