//! The same on the simulated network: what is lost, doubled or overtaken there, whom ICMP tells, groups, the window, and the
//! queue of a socket that may not send.

use super::common::*;
use mainspring::{
    Interface,
    testing::{Errno, Host, Scene, Sim, Weather},
};
use std::{collections::BTreeMap, time::Duration};

const SERVER: &str = "10.0.0.1";
const CLIENT: &str = "10.0.0.2";
const SECOND: Duration = Duration::from_secs(1);

/// Two hosts; the number of what is sent between them is in its bytes.
struct Two {
    sim: Sim,
    server: Host<Journal>,
    client: Host<Journal>,
}

impl Two {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut sim = Sim::new(seed);
        sim.set_weather(weather);
        let (server, client) = (sim.host(SERVER, Journal::default()), sim.host(CLIENT, Journal::default()));
        Self { sim, server, client }
    }

    fn bind(&mut self, host: Host<Journal>, at: &str, options: Bind) -> Key {
        self.sim.net(host).bind_with(at, options, silent()).unwrap_or_else(|error| panic!("{at}: {error}"))
    }

    fn sends(&mut self, key: Key, to: &str, numbers: std::ops::Range<u32>) -> Vec<bool> {
        let mut net = self.sim.net(self.client);
        numbers.map(|number| net.send_to(key, &address(to), number.to_be_bytes())).collect()
    }

    fn received(&mut self, host: Host<Journal>) -> Vec<u32> {
        self.sim.state(host).received().iter().map(|bytes| u32::from_be_bytes(bytes[..].try_into().expect("a number"))).collect()
    }

    /// A thousand, one every two milliseconds, and what has come of them.
    fn thousand(mut self) -> (Vec<u32>, u64) {
        self.bind(self.server, "10.0.0.1:7", Bind::new());
        let key = self.bind(self.client, "10.0.0.2:0", Bind::new());
        for number in 0..1000 {
            assert_eq!(self.sends(key, "10.0.0.1:7", number..number + 1), [true]);
            self.sim.run_for(Duration::from_millis(2));
        }
        self.sim.run_for(SECOND);
        (self.received(self.server), self.sim.digest())
    }
}

fn address(text: &str) -> Address {
    Address::Ip(text.parse().expect("a literal address"))
}

fn late() -> Weather {
    Weather::fair().latency(Duration::from_millis(5), Duration::ZERO)
}

/// How many of them came, how many twice, and how many behind a later one.
fn tally(received: &[u32]) -> (usize, usize, usize) {
    let mut times = BTreeMap::new();
    for number in received {
        *times.entry(number).or_insert(0) += 1;
    }
    assert!(times.values().all(|&times| times <= 2), "more than twice");
    let overtaken = received.windows(2).filter(|pair| pair[1] < pair[0]).count();
    (times.len(), received.len() - times.len(), overtaken)
}

#[test]
fn in_fair_weather_all_arrive_once_and_in_order() {
    for weather in [Weather::fair(), late()] {
        let (received, _) = Two::new(1, weather).thousand();
        assert_eq!(received, (0..1000).collect::<Vec<_>>());
    }
}

#[test]
fn with_chances_some_are_lost_doubled_and_overtaken_as_often_as_is_said() {
    let some = |lost, doubled, overtaken| tally(&Two::new(1, late().datagrams(lost, doubled, overtaken)).thousand().0);
    let (lost, ..) = some(200, 0, 0);
    assert!((750..850).contains(&lost), "{lost} of 1000 came, where each fifth is lost");
    let (all, doubled, _) = some(0, 100, 0);
    assert!(all == 1000 && (60..140).contains(&doubled), "{doubled} of {all} came twice, where each tenth does");
    let (all, twice, overtaken) = some(0, 0, 100);
    assert!(all == 1000 && twice == 0 && (60..140).contains(&overtaken), "{overtaken} of {all} came behind a later one");
    assert_eq!((some(1000, 0, 0), some(0, 1000, 0).1), ((0, 0, 0), 1000));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| Two::new(seed, Weather::rough()).thousand();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}

#[test]
fn each_goes_alone_and_is_not_kept_in_order_by_the_jitter() {
    let weather = Weather::fair().latency(Duration::ZERO, Duration::from_millis(50));
    let (all, twice, overtaken) = tally(&Two::new(1, weather).thousand().0);
    assert!((all, twice) == (1000, 0) && overtaken > 100, "{overtaken} came behind a later one");
}

#[test]
fn who_is_connected_hears_once_that_nobody_is_there_and_others_nothing() {
    let mut two = Two::new(1, late());
    let connected = two.sim.net(two.client).bind_to("10.0.0.1:7", silent()).expect("a free port");
    let alone = two.bind(two.client, "10.0.0.2:0", Bind::new());
    assert!(two.sim.net(two.client).send(connected, "x"));
    two.sends(alone, "10.0.0.1:7", 0..3);
    two.sim.run_for(SECOND);
    let refused = (address("10.0.0.1:7"), ErrorKind::ConnectionRefused);
    assert_eq!(two.sim.state(two.client).failures(), std::slice::from_ref(&refused));
    assert!(two.sim.state(two.client).of(alone).is_empty());
    // Of several in a row there is one error, which the next send hears; and that one leaves.
    let mut net = two.sim.net(two.client);
    assert!(net.send(connected, "x") && net.send(connected, "y"));
    two.sim.run_for(SECOND);
    let told = two.sim.state(two.client).failures();
    assert!((2..=3).contains(&told.len()) && told.iter().all(|told| *told == refused), "{told:?}");
    // Once somebody is there, it is heard.
    two.bind(two.server, "10.0.0.1:7", Bind::new());
    two.sim.net(two.client).send(connected, 7u32.to_be_bytes());
    two.sim.run_for(SECOND);
    assert_eq!(two.received(two.server), [7]);
}

#[test]
fn in_a_partition_they_are_lost_and_who_is_switched_off_swallows_them() {
    let mut two = Two::new(1, late());
    two.bind(two.server, "10.0.0.1:7", Bind::new());
    let key = two.sim.net(two.client).bind_to("10.0.0.1:7", silent()).expect("a free port");
    two.sends(key, "10.0.0.1:7", 0..1);
    let (client, server) = (two.client, two.server);
    two.sim.part(client, server).run_for(SECOND);
    two.sends(key, "10.0.0.1:7", 1..2);
    two.sim.run_for(SECOND).join(client, server).run_for(SECOND);
    two.sends(key, "10.0.0.1:7", 2..3);
    two.sim.run_for(SECOND);
    assert_eq!(two.received(server), [2], "they wait for nobody");
    two.sim.kill(server);
    two.sends(key, "10.0.0.1:7", 3..4);
    two.sim.run_for(SECOND);
    assert!(two.sim.state(client).told.is_empty());
}

#[test]
fn everybody_in_a_group_gets_a_copy_with_chances_of_its_own() {
    let mut two = Two::new(1, late().datagrams(500, 0, 0));
    let (client, server) = (two.client, two.server);
    let group = "239.1.2.3".parse().expect("a group");
    let at = [(server, "0.0.0.0:7"), (client, "0.0.0.0:7"), (server, "0.0.0.0:8"), (client, "10.0.0.2:9")];
    let keys = at.map(|(host, at)| two.bind(host, at, Bind::new()));
    for (key, (host, _)) in keys.into_iter().zip(at) {
        two.sim.net(host).join(key, group, Interface::Any).expect("an interface");
    }
    two.sends(keys[3], "239.1.2.3:7", 0..1000);
    two.sim.run_for(SECOND);
    let [there, here] = [server, client].map(|host| two.received(host));
    assert!((400..600).contains(&there.len()) && (400..600).contains(&here.len()), "{} and {}", there.len(), here.len());
    assert_ne!(there, here, "what one loses the other does not");
    let told = [(server, keys[2]), (client, keys[3])].map(|(host, key)| two.sim.state(host).of(key));
    assert!(told.iter().all(Vec::is_empty), "another port, and an address that is none of the group");
    two.sim.net(server).leave(keys[0], group, Interface::Any).expect("it had joined");
    two.sends(keys[3], "239.1.2.3:7", 0..10);
    two.sim.run_for(SECOND);
    assert_eq!(two.received(server).len(), there.len());
    let again = two.sim.net(server).leave(keys[0], group, Interface::Any);
    assert_eq!(again.map_err(|error| error.kind()), Err(ErrorKind::AddrNotAvailable));
}

#[test]
fn a_broadcast_reaches_all_if_it_was_asked_for() {
    let mut two = Two::new(1, late());
    let options = || Bind::new().broadcast();
    two.bind(two.server, "0.0.0.0:7", Bind::new());
    two.bind(two.client, "0.0.0.0:7", Bind::new());
    let (quiet, loud) = (two.bind(two.client, "10.0.0.2:0", Bind::new()), two.bind(two.client, "10.0.0.2:0", options()));
    two.sends(quiet, "255.255.255.255:7", 0..1);
    two.sends(loud, "255.255.255.255:7", 1..2);
    two.sim.run_for(SECOND);
    assert_eq!((two.received(two.server), two.received(two.client)), (vec![1], vec![1]));
    let failed = (address("255.255.255.255:7"), ErrorKind::PermissionDenied);
    assert_eq!(two.sim.state(two.client).failures(), [failed]);
}

#[test]
fn what_finds_the_window_full_is_lost_without_a_word() {
    let mut two = Two::new(1, late().window(1000));
    two.bind(two.server, "10.0.0.1:7", Bind::new());
    two.bind(two.server, "10.0.0.1:8", Bind::new().buffers(300, None));
    let key = two.bind(two.client, "10.0.0.2:0", Bind::new());
    assert!(two.sends(key, "10.0.0.1:7", 0..100).into_iter().all(|was_taken| was_taken));
    assert!(two.sends(key, "10.0.0.1:8", 100..200).into_iter().all(|was_taken| was_taken));
    two.sim.run_for(SECOND);
    let sixteen_and_five: Vec<u32> = (0..16).chain(100..105).collect(); // 64 bytes each
    assert_eq!(two.received(two.server), sixteen_and_five);
    assert!(two.sim.state(two.client).told.is_empty());
}

/// What the kernel says to each, which tests/agree.rs compares.
#[test]
fn what_cannot_be_sent_or_bound_fails_as_on_the_real_system() {
    let mut two = Two::new(1, late());
    let key = two.bind(two.client, "10.0.0.2:0", Bind::new());
    let failures = [
        ("[::1]:7", 0, None),
        ("10.0.0.1:0", 0, Some(ErrorKind::InvalidInput)),
        ("10.0.0.1:7", 65_508, None),
        ("255.255.255.255:7", 0, Some(ErrorKind::PermissionDenied)),
    ];
    for (to, bytes, _) in failures {
        assert!(two.sim.net(two.client).send_to(key, &address(to), vec![0; bytes]), "`failed` will say of {to}");
    }
    assert!(two.sim.net(two.client).send_to(key, &Address::Fd, "x"));
    two.sim.run_for(SECOND);
    let told = two.sim.state(two.client).failures();
    assert_eq!(told.len(), 5);
    for ((to, kind), (wanted, _, only)) in told.iter().zip(failures) {
        assert!(*to == address(wanted) && only.is_none_or(|only| only == *kind), "{to}: {kind}");
    }
    let refused = |two: &mut Two, at: &str, options| {
        let bound = two.sim.net(two.client).bind_with(at, options, silent());
        bound.expect_err("it cannot be bound").kind()
    };
    let shared = || Bind::new().reuse_port();
    two.bind(two.client, "10.0.0.2:9", shared());
    two.bind(two.client, "10.0.0.2:9", shared());
    assert_eq!(refused(&mut two, "10.0.0.2:9", Bind::new()), ErrorKind::AddrInUse);
    assert_eq!(refused(&mut two, "0.0.0.0:9", Bind::new()), ErrorKind::AddrInUse);
    assert_eq!(refused(&mut two, "[::]:9", Bind::new()), ErrorKind::AddrInUse);
    assert_eq!(refused(&mut two, "10.0.0.1:9", Bind::new()), ErrorKind::AddrNotAvailable);
    two.bind(two.client, "[::]:9", Bind::new().v6only(true));
    two.sim.set_sockets_max(two.client, 4);
    let one_more = two.sim.net(two.client).bind("0.0.0.0:10", silent());
    assert!(one_more.is_err(), "it has as many sockets as it may");
}

#[test]
fn what_several_share_comes_to_one_of_them_and_of_one_sender_to_the_same() {
    let mut two = Two::new(1, late());
    let keys = [0; 4].map(|_| two.bind(two.server, "0.0.0.0:7", Bind::new().reuse_port()));
    let senders = [0; 20].map(|_| two.bind(two.client, "10.0.0.2:0", Bind::new()));
    for key in senders {
        two.sends(key, "10.0.0.1:7", 0..3);
    }
    two.sim.run_for(SECOND);
    let counts = keys.map(|key| two.sim.state(two.server).of(key).len());
    assert!(counts.iter().all(|count| count % 3 == 0) && counts.iter().sum::<usize>() == 60, "{counts:?}");
    assert!(counts.iter().filter(|&&count| count > 0).count() > 1, "{counts:?}");
}

/// One that is refused by EAGAIN until it is let go.
fn with_a_full_kernel(full: Full, room: usize) -> (Two, Key) {
    let mut two = Two::new(1, late());
    two.bind(two.server, "10.0.0.1:7", Bind::new());
    let key = two.bind(two.client, "10.0.0.2:0", Bind::new().queue(room, full));
    let next = two.sim.operations(two.client);
    two.sim.fail_operation(two.client, next, Errno::Again, true);
    (two, key)
}

impl Two {
    fn is_congested(&mut self, key: Key) -> bool {
        let all = self.sim.net(self.client).connections();
        all.into_iter().find(|socket| socket.key == key).is_some_and(|socket| socket.is_congested)
    }

    /// The kernel takes packets again, and all of this has happened.
    fn lets_go(&mut self) {
        self.sim.fail_operation(self.client, u64::MAX, Errno::Again, false).run_for(SECOND);
    }
}

#[test]
fn with_drop_newest_what_finds_no_room_is_refused_and_the_rest_leaves_in_order() {
    let (mut two, key) = with_a_full_kernel(Full::DropNewest, 640);
    let taken = two.sends(key, "10.0.0.1:7", 0..15);
    assert_eq!(taken, [vec![true; 10], vec![false; 5]].concat());
    two.sim.run_for(SECOND);
    assert!(two.received(two.server).is_empty() && two.sim.state(two.client).told.is_empty());
    assert!(two.is_congested(key));
    two.lets_go();
    assert_eq!(two.received(two.server), (0..10).collect::<Vec<_>>());
    assert_eq!(two.sim.state(two.client).told, [(key, Told::Writable)], "once, when all has left");
    assert!(!two.is_congested(key));
    two.sends(key, "10.0.0.1:7", 20..21);
    two.sim.run_for(SECOND);
    assert_eq!(two.sim.state(two.client).count(&Told::Writable), 1, "nothing had to wait");
}

#[test]
fn with_drop_oldest_the_newest_are_kept() {
    let (mut two, key) = with_a_full_kernel(Full::DropOldest, 640);
    assert_eq!(two.sends(key, "10.0.0.1:7", 0..15), vec![true; 15]);
    let too_long = two.sim.net(two.client).send_to(key, &address("10.0.0.1:7"), vec![0; 641]);
    assert!(!too_long, "what is larger than the queue is dropped itself");
    two.lets_go();
    assert_eq!(two.received(two.server), (5..15).collect::<Vec<_>>());
    assert_eq!(two.sim.state(two.client).told, [(key, Told::Writable)]);
}

#[test]
fn with_close_it_ends_by_overflow() {
    let (mut two, key) = with_a_full_kernel(Full::Close, 640);
    assert_eq!(two.sends(key, "10.0.0.1:7", 0..12), [vec![true; 10], vec![false; 2]].concat());
    two.lets_go();
    let told = two.sim.state(two.client).of(key);
    assert_eq!(told, [Told::Closed(Reason::Overflow.to_string())]);
    assert_eq!(two.sim.sockets(two.client), 0);
}

#[test]
fn each_time_that_something_waits_there_is_one_writable() {
    let (mut two, key) = with_a_full_kernel(Full::DropNewest, 640);
    for episode in 1..4 {
        two.sends(key, "10.0.0.1:7", 0..3);
        two.lets_go();
        assert_eq!(two.sim.state(two.client).count(&Told::Writable), episode);
        let next = two.sim.operations(two.client);
        two.sim.fail_operation(two.client, next, Errno::Again, true);
    }
}

#[test]
fn a_scene_has_peers_that_send_and_take_datagrams() {
    let mut scene = Scene::new(1, Journal::default());
    let key = scene.net().bind("0.0.0.0:7", echo()).expect("a free port");
    let peer = scene.binds("192.0.2.1:0");
    scene.sends(peer, "127.0.0.1:7", "one").sends(peer, "192.0.2.9:7", "").takes_datagrams(peer, &[b"one", b""]);
    let [there, connected] = ["192.0.2.2:53"; 2];
    let server = scene.binds(there);
    let asking = scene.net().bind_to(connected, silent()).expect("a free port");
    scene.net().send(asking, "who?");
    let asked = scene.datagrams(server);
    let [(from, bytes)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((Some(from), &bytes[..]), (scene.net().local(asking).cloned().as_ref(), &b"who?"[..]));
    scene.sends(server, &from.to_string(), "me").sends(peer, &from.to_string(), "not me");
    assert_eq!(scene.state().of(asking), [Told::Received(b"me".to_vec(), address(there))]);
    scene.unbinds(server);
    scene.net().send(asking, "who?");
    scene.settles();
    assert_eq!(scene.state().failures(), [(address(there), ErrorKind::ConnectionRefused)]);
    assert_eq!(scene.state().of(key).len(), 2);
}

/// Whichever send of those that follow meets a full kernel again.
#[test]
fn there_is_no_writable_while_something_waits_again() {
    let mut told = 0;
    for further in 0..12 {
        let mut two = Two::new(1, late());
        let answers = recorder(|scope, told| {
            let waiting = scope.net.connections().into_iter().map(|socket| socket.queued).sum::<usize>();
            match told {
                Told::Failed(..) => _ = scope.net.send_to(scope.key, &address("10.0.0.1:7"), "again"),
                Told::Writable => assert_eq!(waiting, 0, "{waiting} bytes wait"),
                _ => {}
            }
            Ok(())
        });
        let key = two.sim.net(two.client).bind("10.0.0.2:0", answers).expect("a free port");
        let next = two.sim.operations(two.client);
        two.sim.fail_operation(two.client, next, Errno::Again, false);
        for to in ["[::1]:7", "10.0.0.1:7"] {
            assert!(two.sim.net(two.client).send_to(key, &address(to), "x"));
        }
        two.sim.settle();
        let next = two.sim.operations(two.client) + further;
        two.sim.fail_operation(two.client, next, Errno::Again, false).run_for(SECOND);
        let journal = two.sim.state(two.client);
        assert_eq!(journal.failures().len(), 1);
        told += journal.count(&Told::Writable);
    }
    assert!(told >= 12, "{told}");
}

/// It would be tried for ever.
#[test]
fn who_ends_while_every_send_is_interrupted_ends_all_the_same() {
    let (mut two, key) = with_a_full_kernel(Full::DropNewest, 640);
    two.sends(key, "10.0.0.1:7", 0..3);
    let next = two.sim.operations(two.client);
    two.sim.fail_operation(two.client, next, Errno::Interrupted, true);
    two.sim.net(two.client).close(key);
    two.sim.run_for(SECOND);
    assert_eq!(two.sim.state(two.client).of(key), [Told::Closed(Reason::Finish.to_string())]);
    assert!(two.received(two.server).is_empty());
}

/// What fails again and again, and never says that nothing is there, is for ever.
#[test]
fn as_many_errors_of_receiving_in_a_row_as_a_turn_has_datagrams_end_the_socket() {
    let mut two = Two::new(1, late());
    let key = two.bind(two.server, "10.0.0.1:7", Bind::new());
    let sender = two.bind(two.client, "10.0.0.2:0", Bind::new());
    let next = two.sim.operations(two.server);
    two.sim.fail_operation(two.server, next, Errno::NoMemory, true);
    two.sends(sender, "10.0.0.1:7", 0..1);
    two.sim.run_for(10 * SECOND);
    let told = two.sim.state(two.server).of(key);
    let (last, failures) = told.split_last().expect("it was told something");
    assert!(matches!(last, Told::Closed(why) if why.starts_with("connection lost: ")), "{last:?}");
    assert_eq!(failures.len(), 127, "and the last is the reason");
    assert!(failures.iter().all(|told| matches!(told, Told::Failed(Address::Fd, ..))), "{:?}", failures[0]);
}

/// Of those there is one for each that was sent, at most.
#[test]
fn refusals_in_a_row_do_not_end_the_socket() {
    const COUNT: u32 = 300;
    let mut two = Two::new(1, late());
    let heard = Cell::new(0);
    let closes = recorder(move |scope, told| {
        heard.set(heard.get() + u32::from(matches!(told, Told::Failed(..))));
        if heard.get() == COUNT {
            scope.close();
        }
        Ok(())
    });
    let key = two.sim.net(two.server).bind("10.0.0.1:7", closes).expect("a free port");
    let sender = two.bind(two.client, "10.0.0.2:0", Bind::new());
    let next = two.sim.operations(two.server);
    two.sim.fail_operation(two.server, next, Errno::ConnectionRefused, true);
    two.sends(sender, "10.0.0.1:7", 0..1);
    two.sim.run_for(10 * SECOND);
    assert_eq!(two.sim.state(two.server).of(key).last(), Some(&Told::Closed(Reason::Finish.to_string())));
}
