//! The loop inside somebody else's, which waits for its descriptor and its next deadline, and never lets it wait itself.

use crate::common::{Call, Echo, Journal, Nothing, PATIENCE, by_default, ms, recorder};
use mainspring::{Config, Datagram, Net, Outcome, Protocol, Reactor, Scope};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Somebody else's loop.
#[derive(Debug, Default)]
struct Host {
    /// How often it was woken, by the descriptor or by the deadline.
    wakes: u64,
    /// How often the reactor then had something to do.
    turns: u64,
}

impl Host {
    /// Waits as it would for its own things too, and gives a turn. Whether the reactor goes on.
    fn turn<S>(&mut self, reactor: &mut Reactor<S>, state: &mut S) -> bool {
        let now = Instant::now();
        let most = reactor.next_deadline().map_or(PATIENCE, |deadline| deadline.saturating_duration_since(now)).min(PATIENCE);
        // poll(2) waits in milliseconds, ppoll(2) in nanoseconds.
        let most = Timespec { tv_sec: most.as_secs() as _, tv_nsec: most.subsec_nanos().into() };
        let ready = {
            let mut fds = [PollFd::new(reactor, PollFlags::IN)];
            poll(&mut fds, Some(&most)).expect("poll(2)")
        };
        assert!(ready > 0 || now.elapsed() < PATIENCE, "nobody wakes it");
        let before = work(reactor);
        let goes_on = reactor.turn(state, Duration::ZERO).expect("the selector works");
        self.wakes += 1;
        self.turns += u64::from(work(reactor) > before);
        goes_on
    }

    /// Except for two: a remote that is dropped has the loop look, whatever there is to see.
    #[track_caller]
    fn assert_never_woken_in_vain(&self) {
        assert!(self.turns * 11 + 20 >= self.wakes * 10, "{self:?}");
    }
}

/// Whatever tells that something was done.
fn work<S>(reactor: &Reactor<S>) -> u64 {
    let stats = reactor.stats();
    stats.events + stats.callbacks + stats.bytes_in + stats.bytes_out + stats.closed.total()
}

/// This many echoes, one at a time, on blocking sockets of other threads.
fn clients(at: std::net::SocketAddr, count: usize, rounds: usize) -> Vec<std::thread::JoinHandle<()>> {
    let client = move || {
        let mut socket = TcpStream::connect(at).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut buf = [0; 64];
        for _ in 0..rounds {
            socket.write_all(&[7; 64]).expect("it is open");
            socket.read_exact(&mut buf).expect("it is answered in time");
        }
    };
    (0..count).map(|_| std::thread::spawn(client)).collect()
}

#[test]
fn a_thousand_turns_of_echoes_are_woken_for_something_and_nobody_is_stuck() {
    let mut reactor = Reactor::new().expect("a selector");
    let listener = reactor.net().listen("127.0.0.1:0", || Echo).expect("a port");
    let at = reactor.net().local(listener).and_then(|local| local.ip()).expect("it listens");
    let others = clients(at, 4, 500);
    let mut host = Host::default();
    while reactor.stats().closed.total() < 4 {
        host.turn(&mut reactor, &mut ());
    }
    others.into_iter().for_each(|other| other.join().expect("no panic"));
    assert!(host.turns >= 500, "{host:?}");
    host.assert_never_woken_in_vain();
}

#[test]
fn a_thousand_timers_are_neither_early_nor_late() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut late = Vec::new();
    fn set(net: &mut Net<'_, Vec<Duration>>, after: Duration) {
        let due = net.now() + after;
        net.after(after, move |net, late| {
            late.push(net.now().checked_duration_since(due).expect("it is not early"));
            if late.len() < 1_000 {
                set(net, Duration::from_micros(100 + late.len() as u64));
            }
        });
    }
    set(&mut reactor.net(), ms(1));
    let mut host = Host::default();
    while host.turn(&mut reactor, &mut late) {}
    assert_eq!(late.len(), 1_000);
    assert!(late.iter().all(|late| *late < PATIENCE / 4), "{late:?}"); // one that is not said is as late as the host has patience
    host.assert_never_woken_in_vain();
}

#[test]
fn whatever_other_threads_bring_wakes_it() {
    let mut reactor = Reactor::<usize>::new().expect("a selector");
    let mut count = 0;
    let remote = reactor.remote();
    let poster = std::thread::spawn(move || {
        for _ in 0..500 {
            remote.post(|_, count: &mut usize| *count += 1).expect("it is there");
            std::thread::yield_now();
        }
    });
    for _ in 0..100 {
        reactor.net().offload(
            || 1,
            |net, count: &mut usize, done: Result<usize, _>| {
                *count += done.expect("it ran");
                net.post(|net, count: &mut usize| {
                    *count += 1;
                    net.after(ms(1), |_, count| *count += 1);
                });
            },
        );
    }
    let mut host = Host::default();
    while host.turn(&mut reactor, &mut count) {}
    poster.join().expect("no panic");
    assert_eq!(count, 500 + 300);
    host.assert_never_woken_in_vain();
}

#[test]
fn what_is_queued_between_two_turns_is_due_at_once() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let mut host = Host::default();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let key = reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
    assert!(reactor.next_deadline().is_some_and(|deadline| deadline <= Instant::now()), "`connected` is owed");
    while !journal.has(&Call::Connected) {
        host.turn(&mut reactor, &mut journal);
    }
    while reactor.next_deadline().is_some() {
        host.turn(&mut reactor, &mut journal);
    }
    assert_eq!(reactor.next_deadline(), None, "nothing but the descriptor");
    let queue: [fn(&mut Net<'_, Journal>, mainspring::Key); 4] = [
        |net, key| _ = net.send(key, "hello"),
        |net, _| net.post(|_, _| {}),
        |net, key| _ = net.tell::<Nothing>(key, |_, _, _| Ok(())),
        |net, key| _ = net.close(key),
    ];
    for queue in queue {
        queue(&mut reactor.net(), key);
        assert!(reactor.next_deadline().is_some_and(|deadline| deadline <= Instant::now()));
        host.turn(&mut reactor, &mut journal);
    }
    drop(theirs);
    while host.turn(&mut reactor, &mut journal) {}
    assert_eq!(journal.closings(), 1);
}

struct Loud;

impl Datagram for Loud {
    fn received(&mut self, scope: &mut Scope<'_>, _: &mut (), bytes: &[u8], _: &mainspring::Address) -> Outcome {
        scope.reply(bytes);
        Ok(())
    }
}

/// More than one turn may serve: what is put off is due at once, and the descriptor stays readable for what was not looked at.
#[test]
fn a_budget_that_is_used_up_stops_nobody() {
    let mut reactor = Reactor::with_config(Config::new().turn_datagrams(1).turn_accepts(1)).expect("a selector");
    let socket = reactor.net().bind("127.0.0.1:0", Loud).expect("a port");
    let at = reactor.net().local(socket).and_then(|local| local.ip()).expect("it is bound");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.connect(at).expect("loopback");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut host = Host::default();
    for _ in 0..100 {
        for _ in 0..10 {
            client.send(b"x").expect("loopback");
        }
        let (mut answers, mut buf) = (0, [0; 8]);
        client.set_nonblocking(true).expect("a socket option");
        while answers < 10 {
            match client.recv(&mut buf) {
                Ok(_) => answers += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => _ = host.turn(&mut reactor, &mut ()),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Level: a host that does not give a turn is woken again and again, and nothing is lost.
#[test]
fn the_descriptor_stays_readable_until_a_turn_has_looked() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    let remote = reactor.remote();
    remote.stop().expect("it is there");
    for _ in 0..3 {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let fd = reactor.as_fd();
        assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&zero)).expect("poll(2)"), 1);
    }
    assert!(!reactor.turn(&mut (), Duration::ZERO).expect("the selector works"), "it was stopped");
}

#[test]
fn a_host_that_does_not_give_a_turn_loses_nothing() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
    while !journal.has(&Call::Connected) || reactor.next_deadline().is_some() {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    theirs.write_all(b"hello").expect("it is open");
    for _ in 0..100 {
        assert!(is_readable(&reactor), "it is woken again and again");
    }
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert!(journal.has(&Call::Received(b"hello".to_vec())));
    assert!(!is_readable(&reactor));
}

fn is_readable(fd: impl AsFd) -> bool {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&zero)).expect("poll(2)") > 0
}

/// It waits for something of its own, and that takes long.
fn oversleep(until: Instant) {
    while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::sleep(rest);
    }
}

#[test]
fn a_host_that_waits_too_long_has_its_timers_late_and_none_lost() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut fired = Vec::new();
    for number in (1..=5_u64).rev() {
        reactor.net().after(ms(number), move |_, fired: &mut Vec<u64>| fired.push(number));
    }
    let due = reactor.next_deadline().expect("the first of them");
    oversleep(due + ms(20));
    assert_eq!(reactor.next_deadline(), Some(due));
    reactor.turn(&mut fired, Duration::ZERO).expect("the selector works");
    assert_eq!(fired, [1, 2, 3, 4, 5]);
    assert_eq!(reactor.next_deadline(), None);
}

/// What came in time counts, however late the host looks.
#[test]
fn a_host_that_waits_too_long_ends_nobody_who_was_in_time() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let key = reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
    reactor.net().link(key).expect("it is there").set_idle_timeout(ms(20));
    while !journal.has(&Call::Connected) {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    theirs.write_all(b"x").expect("it is open");
    oversleep(reactor.next_deadline().expect("its time-out") + ms(20));
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert!(journal.has(&Call::Received(b"x".to_vec())) && journal.closings() == 0, "{journal:?}");
    oversleep(reactor.next_deadline().expect("its time-out") + ms(1));
    reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    assert_eq!(journal.closings(), 1, "now it has said nothing for too long");
}

#[test]
fn the_deadline_is_another_one_after_each_use_of_the_net() {
    let mut reactor = Reactor::<()>::new().expect("a selector");
    assert_eq!(reactor.next_deadline(), None);
    let late = reactor.net().after(Duration::from_secs(3600), |_, _| {});
    let at_first = reactor.next_deadline().expect("it is set");
    let soon = reactor.net().after(Duration::from_secs(60), |_, _| {});
    assert!(reactor.next_deadline().is_some_and(|due| due + Duration::from_secs(3000) < at_first));
    assert!(reactor.net().cancel(soon));
    assert_eq!(reactor.next_deadline(), Some(at_first));
    assert!(reactor.net().cancel(late));
    assert_eq!(reactor.next_deadline(), None);
}

#[test]
fn a_reactor_that_is_stopped_inside_says_so_once_and_may_be_turned_again() {
    let mut reactor = Reactor::<usize>::new().expect("a selector");
    reactor.net().every(ms(1), |net, count| {
        *count += 1;
        if *count == 1 {
            net.stop();
        }
    });
    let (mut host, mut count) = (Host::default(), 0);
    while host.turn(&mut reactor, &mut count) {}
    assert_eq!(count, 1);
    while count < 3 {
        assert!(host.turn(&mut reactor, &mut count), "it goes on");
    }
}

/// A host that was given a duplicate of its descriptor, because its loop owns what it watches, is not woken by sockets that
/// are gone. (What its remotes had posted before still wakes it, until they are gone too: it lets go of the duplicate with
/// the reactor.)
#[test]
fn a_reactor_that_was_dropped_wakes_nobody() {
    let mut reactor = Reactor::<Journal>::new().expect("a selector");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
    let duplicate = reactor.as_fd().try_clone_to_owned().expect("a descriptor");
    let remote = reactor.remote();
    theirs.write_all(b"never read").expect("it is open");
    assert!(is_readable(&duplicate));
    drop(reactor);
    assert!(!is_readable(&duplicate));
    assert!(remote.post(|_, _| {}).is_err());
    assert!(!is_readable(&duplicate));
}

/// Both are woken, and the one that comes second finds nothing.
#[test]
fn two_hosts_of_one_reactor_lose_nothing() {
    let mut reactor = Reactor::new().expect("a selector");
    let listener = reactor.net().listen("127.0.0.1:0", || Echo).expect("a port");
    let at = reactor.net().local(listener).and_then(|local| local.ip()).expect("it listens");
    let others = clients(at, 2, 200);
    while !others.iter().all(|other| other.is_finished()) {
        let mut fds = [PollFd::new(&reactor, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).expect("poll(2)");
        for _host in 0..2 {
            reactor.turn(&mut (), Duration::ZERO).expect("the selector works");
        }
    }
    others.into_iter().for_each(|other| other.join().expect("all were answered"));
}

// ----------------------------------------------------------------------------------------------- one inside of another

/// The module of the examples, as it is copied.
#[path = "../../examples/guests/src/bin/nested/nested.rs"]
mod nested;

use mainspring::Reason;
use nested::Nested;

struct Counting;

impl Protocol<usize> for Counting {
    fn received(&mut self, ctx: &mut mainspring::Context<'_, usize>, served: &mut usize, bytes: &[u8]) -> Outcome {
        *served += bytes.len();
        ctx.send(bytes);
        Ok(())
    }
}

impl Datagram<usize> for Counting {
    fn received(&mut self, _: &mut Scope<'_, usize>, served: &mut usize, _: &[u8], _: &mainspring::Address) -> Outcome {
        *served += 1;
        Ok(())
    }
}

/// What the outer one has.
#[derive(Default)]
struct Outer {
    ends: Vec<Reason>,
    served: std::rc::Rc<std::cell::Cell<usize>>,
}

fn ended(_: &mut Net<'_, Outer>, outer: &mut Outer, why: Reason) {
    outer.ends.push(why);
}

/// Its own timers, which have to be in time, and say what it has served.
fn tells(inner: &mut Reactor<usize>, outer: &Outer) {
    let told = std::rc::Rc::clone(&outer.served);
    inner.net().every(ms(1), move |_, served| told.set(*served));
}

#[test]
fn a_reactor_may_be_a_dispatcher_of_another() {
    let (mut inner, mut outer, mut state) = (Reactor::new().expect("a selector"), Reactor::new().expect("one"), Outer::default());
    let listener = inner.net().listen("127.0.0.1:0", || Counting).expect("a port");
    let at = inner.net().local(listener).and_then(|local| local.ip()).expect("it listens");
    tells(&mut inner, &state);
    let remote = inner.remote();
    Nested::watch(&mut outer.net(), inner, 0, ended).expect("a descriptor that can be waited for");
    let others = clients(at, 2, 200);
    let began = Instant::now();
    while state.served.get() < 2 * 200 * 64 {
        assert!(began.elapsed() < PATIENCE, "{}", state.served.get());
        outer.turn(&mut state, PATIENCE).expect("the selector works");
    }
    others.into_iter().for_each(|other| other.join().expect("no panic"));
    assert!(outer.stats().timers <= 1, "one for its deadline");
    // Nothing but the inner one is left, and ends both.
    remote.stop().expect("it is there");
    outer.run(&mut state).expect("the selector works");
    assert_eq!(state.ends.len(), 1);
    assert!(state.ends[0].is_clean());
    assert!(remote.stop().is_err(), "it is gone");
}

/// More than one look of a selector tells: a dispatcher has edges, and there is no second one for the rest.
#[test]
fn a_nested_reactor_serves_all_of_more_than_a_selector_tells_at_once() {
    const SOCKETS: usize = 1_500;
    if !crate::common::has_room_for(SOCKETS + 100) {
        return;
    }
    let (mut inner, mut outer, mut state) = (Reactor::new().expect("a selector"), Reactor::new().expect("one"), Outer::default());
    let mut addresses = Vec::new();
    for _ in 0..SOCKETS {
        let socket = inner.net().bind("127.0.0.1:0", Counting).expect("a port");
        addresses.push(inner.net().local(socket).and_then(|local| local.ip()).expect("it is bound"));
    }
    let remote = inner.remote();
    Nested::watch(&mut outer.net(), inner, 0, ended).expect("a descriptor that can be waited for");
    crate::common::settle(&mut outer, &mut state);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for at in addresses {
        client.send_to(b"x", at).expect("loopback");
    }
    crate::common::settle(&mut outer, &mut state);
    // A post would have it look once more: what it finds then would not count.
    let (sender, receiver) = std::sync::mpsc::channel();
    remote.post(move |_, served: &mut usize| sender.send(*served).expect("somebody waits")).expect("it is there");
    crate::common::settle(&mut outer, &mut state);
    assert_eq!(receiver.try_recv(), Ok(SOCKETS));
}

#[test]
fn a_nested_reactor_ends_with_the_outer_one_and_is_dropped_with_it() {
    for ends in [|outer: &mut Reactor<Outer>| outer.net().drain(Duration::ZERO), |outer: &mut Reactor<Outer>| outer.net().stop()]
    {
        let (mut inner, mut outer) = (Reactor::<usize>::new().expect("a selector"), Reactor::new().expect("one"));
        let mut state = Outer::default();
        inner.net().listen("127.0.0.1:0", || Counting).expect("a port");
        let remote = inner.remote();
        Nested::watch(&mut outer.net(), inner, 0, ended).expect("a descriptor that can be waited for");
        crate::common::settle(&mut outer, &mut state);
        ends(&mut outer);
        outer.run(&mut state).expect("the selector works");
        drop(outer);
        assert!(remote.stop().is_err(), "it is gone");
    }
}

/// What a program by chance has begun, and what of it has come to its end.
#[derive(Default)]
struct Chance {
    random: u64,
    begun: u64,
    done: u64,
    /// How late timers were.
    late: Vec<Duration>,
}

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) % end
    }
}

/// Says this many bytes, and is done when they have come back.
struct Asks(usize);

impl Protocol<Chance> for Asks {
    fn connected(&mut self, ctx: &mut mainspring::Context<'_, Chance>, _: &mut Chance) -> Outcome {
        ctx.send(vec![1; self.0]);
        Ok(())
    }

    fn received(&mut self, ctx: &mut mainspring::Context<'_, Chance>, chance: &mut Chance, bytes: &[u8]) -> Outcome {
        self.0 -= bytes.len();
        if self.0 == 0 {
            chance.done += 1;
            ctx.close();
        }
        Ok(())
    }
}

struct Box4;

impl Datagram<Chance> for Box4 {
    fn received(&mut self, _: &mut Scope<'_, Chance>, chance: &mut Chance, _: &[u8], _: &mainspring::Address) -> Outcome {
        chance.done += 1;
        Ok(())
    }
}

/// Something at random, whose end is counted.
fn begin(net: &mut Net<'_, Chance>, chance: &mut Chance, listener: mainspring::Key, socket: mainspring::Key) {
    chance.begun += 1;
    match chance.below(8) {
        0 => {
            let (due, after) = (net.now(), Duration::from_micros(chance.below(3_000)));
            net.after(after, move |net, chance| {
                chance.late.push(net.now().saturating_duration_since(due + after));
                chance.done += 1;
            });
        }
        1 => net.post(|net, _| net.post(|_, chance: &mut Chance| chance.done += 1)),
        2 => net.offload(|| (), |_, chance: &mut Chance, _| chance.done += 1),
        3 => {
            let remote = net.remote();
            std::thread::spawn(move || remote.post(|_, chance: &mut Chance| chance.done += 1));
        }
        4 => {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            net.adopt(ours, Asks(1 + chance.below(100_000) as usize)).expect("a stream");
            net.adopt(theirs, Echo).expect("a stream");
        }
        5 => {
            let to = net.local(socket).cloned().expect("it is bound");
            net.send_to(socket, &to, "x");
        }
        _ => {
            let to = net.local(listener).cloned().expect("it listens");
            net.connect(&to, Asks(1 + chance.below(300_000) as usize));
        }
    }
}

#[test]
fn whatever_a_program_does_in_a_thousand_turns_nothing_is_late_or_stuck() {
    for seed in 1..=5 {
        let mut reactor = Reactor::with_config(Config::new().turn_frames(2).turn_tells(2)).expect("a selector");
        let mut chance = Chance { random: seed, ..Chance::default() };
        let listener = reactor.net().listen("127.0.0.1:0", || Echo).expect("a port");
        let socket = reactor.net().bind("127.0.0.1:0", Box4).expect("a port");
        let mut host = Host::default();
        while host.turns < 1_000 {
            for _ in 0..chance.below(3) {
                begin(&mut reactor.net(), &mut chance, listener, socket);
            }
            if reactor.next_deadline().is_some() || chance.done < chance.begun {
                host.turn(&mut reactor, &mut chance);
            }
        }
        while chance.done < chance.begun {
            host.turn(&mut reactor, &mut chance);
        }
        host.assert_never_woken_in_vain();
        assert!(chance.late.iter().all(|late| *late < PATIENCE / 4), "seed {seed}: {:?}", chance.late);
    }
}

#[test]
fn of_two_hosts_of_one_descriptor_both_are_woken_and_one_finds_nothing() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut posted = 0;
    reactor.remote().post(|_, posted: &mut u32| *posted += 1).expect("it is there");
    {
        let mut both = [PollFd::new(&reactor, PollFlags::IN), PollFd::new(&reactor, PollFlags::IN)];
        assert_eq!(poll(&mut both, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll(2)"), 2);
    }
    reactor.turn(&mut posted, Duration::ZERO).expect("the selector works");
    reactor.turn(&mut posted, Duration::ZERO).expect("the selector works");
    assert_eq!(posted, 1);
}

#[test]
fn a_reactor_may_be_dropped_in_a_callback_of_its_host() {
    use mainspring::{Dispatcher, Drained, Fault, Source};

    struct Inner(Option<Reactor>);

    impl Dispatcher for Inner {
        fn source(&mut self) -> Source<'_> {
            Source::Fd(self.0.as_ref().expect("until it is closed").as_fd())
        }

        fn readable(&mut self, scope: &mut Scope<'_>, _: &mut ()) -> Result<Drained, Fault> {
            let key = scope.key;
            scope.net.close(key);
            Ok(Drained::Yes)
        }

        /// It is not watched any more.
        fn closed(&mut self, _: &mut Scope<'_>, _: &mut (), _: mainspring::Reason) {
            self.0 = None;
        }
    }

    let inner = Reactor::<()>::new().expect("a selector");
    let remote = inner.remote();
    let mut outer = Reactor::new().expect("a selector");
    outer.net().watch(Inner(Some(inner))).expect("a descriptor that can be waited for");
    remote.post(|_, _| {}).expect("it is there");
    let mut turns = 0;
    while outer.turn(&mut (), PATIENCE).expect("the selector works") {
        turns += 1;
        assert!(turns < 10, "nobody has closed it");
    }
    assert!(remote.post(|_, _| {}).is_err(), "it is gone");
}
