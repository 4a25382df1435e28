//! No value of an option is one that panics, overflows, or never sleeps.

use crate::common::{Call, Ctx, Echo, Journal, dial, ms, quiet, read_exactly, recorder, say, settle, start, until, until_net};
use mainspring::{Config, Connect, Listen, Net, Reactor};
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

/// One byte there and back, and both ends.
fn echoes(config: Config, options: Listen, what: &str) {
    let mut reactor = Reactor::<()>::with_config(config).expect(what);
    let mut net = reactor.net();
    let listener = net.listen_with("127.0.0.1:0", options, |_, _, _| Ok(Echo)).expect(what);
    let at = net.local(listener).and_then(|at| at.ip()).expect("it listens");
    let mut peer = dial(at);
    say(&peer, "x");
    assert_eq!(read_exactly(&mut reactor, &mut (), &mut peer, 1), b"x", "{what}");
    drop(peer);
    until_net(&mut reactor, &mut (), |net, _| net.stats().closed.total() == 1);
    reactor.net().drain(Duration::MAX);
    until_net(&mut reactor, &mut (), |net, _| net.connections().is_empty());
}

#[test]
fn every_size_of_a_config_may_be_anything() {
    type Set = fn(Config, usize) -> Config;
    let sizes: [(&str, Set); 15] = [
        ("output_limits", |config, size| config.output_limits(size, size, size)),
        ("read_bytes", Config::read_bytes),
        ("turn_bytes", Config::turn_bytes),
        ("turn_frames", Config::turn_frames),
        ("turn_accepts", Config::turn_accepts),
        ("turn_jobs", Config::turn_jobs),
        ("turn_tells", Config::turn_tells),
        ("turn_timers", Config::turn_timers),
        ("turn_closings", Config::turn_closings),
        ("lingering_max", Config::lingering_max),
        ("resolve_threads", Config::resolve_threads),
        ("resolve_queue", Config::resolve_queue),
        ("offload_threads", Config::offload_threads),
        ("offload_queue", Config::offload_queue),
        ("all", |config, size| config.read_bytes(size).turn_bytes(size).turn_frames(size).turn_accepts(size)),
    ];
    for (name, set) in sizes {
        for size in [0, 1, usize::MAX] {
            echoes(set(Config::new(), size), Listen::new(), &format!("{name}({size})"));
        }
    }
}

#[test]
fn every_time_of_a_config_may_be_anything() {
    type Set = fn(Config, Duration) -> Config;
    let times: [(&str, Set); 6] = [
        ("turn_time", |config, time| config.turn_time(time)),
        ("linger_max", Config::linger_max),
        ("connect_max", Config::connect_max),
        ("accept_back_off", Config::accept_back_off),
        ("watchdog", |config, time| config.watchdog(time)),
        ("spin", Config::spin),
    ];
    for (name, set) in times {
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            echoes(set(Config::new(), time), Listen::new(), &format!("{name}({time:?})"));
        }
    }
}

#[test]
fn every_option_of_a_listener_may_be_anything() {
    type Set = fn(Listen, u64) -> Listen;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let numbers: [(&str, Set); 5] = [
        ("accepts_max", Listen::accepts_max),
        ("read_rate", Listen::read_rate),
        ("write_rate", Listen::write_rate),
        ("total_read_rate", Listen::total_read_rate),
        ("total_write_rate", Listen::total_write_rate),
    ];
    for (name, set) in numbers {
        for number in [0, 1, u64::MAX] {
            echoes(Config::new(), set(Listen::new(), number), &format!("{name}({number})"));
        }
    }
    for number in [0, 1, u64::MAX] {
        let backlog = u32::try_from(number).unwrap_or(u32::MAX);
        echoes(Config::new(), Listen::new().backlog(backlog), "backlog");
        let size = size(number);
        echoes(Config::new(), Listen::new().output_limits(size, size, size), "output_limits");
        let options = Listen::new().connections_max(size.max(1), "full").per_peer_max(size.max(1), "full");
        echoes(Config::new(), options, "so many connections");
    }
    let times = Listen::new().idle_timeout(Duration::MAX).stall_timeout(Duration::MAX).deadline(Duration::MAX);
    echoes(Config::new(), times, "time-outs");
}

/// A listener that lets nobody in says so, and goes on.
#[test]
fn a_listener_with_no_place_at_all_refuses_everybody() {
    for options in [Listen::new().connections_max(0, "full"), Listen::new().per_peer_max(0, "full")] {
        let mut reactor = Reactor::<()>::new().expect("a selector");
        let listener = reactor.net().listen_with("127.0.0.1:0", options, |_, _, _| Ok(Echo)).expect("a free port");
        let at = reactor.net().local(listener).and_then(|at| at.ip()).expect("it listens");
        for _ in 0..3 {
            assert_eq!(read_exactly(&mut reactor, &mut (), &mut dial(at), 4), b"full");
        }
    }
}

#[test]
fn a_time_of_connecting_may_be_anything() {
    let (mut reactor, mut journal) = start();
    let listener = reactor.net().listen("127.0.0.1:0", || recorder(quiet)).expect("a free port");
    let at: SocketAddr = reactor.net().local(listener).and_then(|at| at.ip()).expect("it listens");
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let said = |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| Ok(());
        let key = reactor.net().connect_with(at, Connect::new().timeout(time), recorder(said));
        until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
        reactor.net().abort(key);
        until_net(&mut reactor, &mut journal, |net, _| !net.is_open(key));
    }
}

/// What repeats without a pause does so every millisecond, and what is for ever is never due.
#[test]
fn a_time_of_a_timer_may_be_anything() {
    let (mut reactor, mut journal) = start();
    let fired = Rc::new(Cell::new([0; 4]));
    let count = |at: usize| {
        let fired = Rc::clone(&fired);
        move |_: &mut Net<'_, Journal>, _: &mut Journal| {
            let mut now = fired.get();
            now[at] += 1;
            fired.set(now);
        }
    };
    reactor.net().every(Duration::ZERO, count(0));
    reactor.net().every(Duration::MAX, count(1));
    reactor.net().after(Duration::ZERO, count(2));
    reactor.net().after(Duration::MAX, count(3));
    until(&mut reactor, &mut journal, |_| fired.get()[0] >= 3);
    settle(&mut reactor, &mut journal);
    assert_eq!(fired.get()[1..], [0, 1, 0]);
    let before = reactor.stats().turns;
    let fired_before = fired.get()[0];
    until(&mut reactor, &mut journal, |_| fired.get()[0] >= fired_before + 3);
    let turns = reactor.stats().turns - before;
    assert!(turns <= 20, "{turns} turns for three times of a timer that has a pause of {:?}", ms(1));
}
