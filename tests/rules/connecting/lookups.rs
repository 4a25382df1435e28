//! Looking names up: resolvers that hang, and `net.resolve`.

use super::{Caller, Ends, Heard, ending, ip, resolve, with_names, with_resolver};
use crate::common::{Call, Echo, Journal, On, SECOND, dial, listen, quiet, read_exactly, recorder, say, settle, until};
use mainspring::{Config, Connect, Key, NameError, Reactor};
#[cfg(feature = "names")]
use std::net::IpAddr;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

#[test]
fn a_resolver_that_sleeps_for_60_seconds_delays_nobody_else() {
    let mut reactor = with_resolver(Config::new(), |host| {
        if host == "asleep.test" {
            thread::sleep(60 * SECOND); // it ends with the process, and nobody waits for it
        }
        Ok(vec![ip("127.0.0.1")])
    });
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || Echo);
    let asleep: Vec<Key> = (0..7).map(|_| reactor.net().connect(("asleep.test", at.port()), recorder(quiet as On))).collect();
    // One thread of eight is left: another name is found, and what needs no lookup has all there is.
    let on: On = |ctx, _, call| {
        match call {
            Call::Connected => ctx.send("ping"),
            Call::Received(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    };
    for to in [format!("awake.test:{}", at.port()), at.to_string(), format!("awake.test:{}", at.port())] {
        let key = reactor.net().connect(to, recorder(on));
        until(&mut reactor, &mut journal, |journal| journal.of(key).contains(&Call::Closed("finished".into())));
    }
    let mut client = dial(at);
    say(&client, "pong");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut client, 4), b"pong");
    assert!(asleep.iter().all(|&key| reactor.net().is_open(key) && journal.of(key).is_empty()), "they still wait");
    // Nor does the end wait.
    let began = Instant::now();
    reactor.shutdown(&mut journal);
    drop(reactor);
    assert!(began.elapsed() < 30 * SECOND);
    assert!(asleep.iter().all(|&key| journal.of(key) == [Call::Closed("the reactor was shut down".into())]));
}

/// Names that begin with `slow` hang until the other end is dropped; how many do.
fn hanging(config: Config) -> (Reactor<Journal>, mpsc::SyncSender<()>, Arc<AtomicUsize>) {
    let (let_go, wait) = mpsc::sync_channel::<()>(0);
    let (wait, hang) = (Arc::new(std::sync::Mutex::new(wait)), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&hang);
    let reactor = with_resolver(config, move |host| {
        if host.starts_with("slow") {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().map(|wait| wait.recv());
        }
        Ok(vec![ip("127.0.0.1")])
    });
    (reactor, let_go, hang)
}

#[test]
fn when_every_thread_hangs_and_the_queue_is_full_a_lookup_fails_at_once() {
    let (mut reactor, _let_go, hang) = hanging(Config::new().resolve_threads(2).resolve_queue(1));
    let mut journal = Journal::default();
    let slow: Vec<Key> = (0..2).map(|_| reactor.net().connect("slow.test:80", recorder(quiet as On))).collect();
    until(&mut reactor, &mut journal, |_| hang.load(Ordering::SeqCst) >= 1);
    let queued = reactor.net().connect("quick.test:80", recorder(quiet as On));
    let refused = reactor.net().connect("other.test:80", recorder(quiet as On));
    let why = ending(&mut reactor, &mut journal, refused);
    assert!(why.starts_with("could not resolve: `other.test`: too many names"), "{why}");
    assert!(reactor.net().is_open(queued) && slow.iter().all(|&key| reactor.net().is_open(key)));
    // One that gives up makes room in the queue.
    reactor.net().abort(queued);
    let next = reactor.net().connect_with("next.test:80", Connect::new().timeout(SECOND / 20), recorder(quiet as On));
    let why = ending(&mut reactor, &mut journal, next);
    assert!(why.contains("`next.test:80` was not resolved in time"), "{why}");
}

#[test]
fn a_literal_address_asks_nobody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut reactor = with_resolver(Config::new().resolve_queue(0), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    });
    let mut ends = Ends::default();
    let (_, at) = listen(&mut reactor, || Caller);
    reactor.net().connect(("127.0.0.1", at.port()), Caller);
    reactor.net().connect(at.to_string(), Caller);
    until(&mut reactor, &mut ends, |ends| ends.connected.len() == 4);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_connection_ends_while_its_name_is_looked_up_as_it_would_at_any_time() {
    let (mut reactor, let_go, hang) = hanging(Config::new());
    let mut journal = Journal::default();
    let begin = |reactor: &mut Reactor<Journal>, journal: &mut Journal, options: Connect| {
        let key = reactor.net().connect_with("slow.test:80", options, recorder(quiet as On));
        let before = hang.load(Ordering::SeqCst);
        until(reactor, journal, |_| hang.load(Ordering::SeqCst) > before || before > 0);
        key
    };
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().abort(key);
    assert_eq!(ending(&mut reactor, &mut journal, key), "aborted");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().close(key);
    assert_eq!(ending(&mut reactor, &mut journal, key), "finished");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().link(key).expect("it is open").set_deadline(SECOND / 20);
    assert_eq!(ending(&mut reactor, &mut journal, key), "the deadline passed");
    let key = begin(&mut reactor, &mut journal, Connect::new().timeout(SECOND / 20));
    assert_eq!(ending(&mut reactor, &mut journal, key), "could not resolve: `slow.test:80` was not resolved in time");
    let key = begin(&mut reactor, &mut journal, Connect::new());
    reactor.net().fail(key, "no more");
    assert_eq!(ending(&mut reactor, &mut journal, key), "failed: no more");
    // The answers come, and find nobody.
    drop(let_go);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 5);
    assert_eq!(reactor.stats().timers, 0, "no timer is left behind");
}

#[test]
fn resolve_gives_all_addresses_once_and_later() {
    let (mut reactor, mut heard) = (with_names(&[("two.test", &["192.0.2.1", "::1", "192.0.2.1"])]), Heard::new());
    resolve(&mut reactor, 0, "two.test");
    resolve(&mut reactor, 1, "127.0.0.1");
    resolve(&mut reactor, 2, "missing.test");
    resolve(&mut reactor, 3, "a\0b");
    resolve(&mut reactor, 4, "::1");
    reactor.run(&mut heard).expect("it ends when the last is told");
    heard.sort_by_key(|(number, _)| *number);
    assert_eq!(
        heard,
        [
            (0, Ok(vec![ip("192.0.2.1"), ip("::1")])),
            (1, Ok(vec![ip("127.0.0.1")])),
            (2, Err((io::ErrorKind::NotFound, None))),
            (3, Err((io::ErrorKind::InvalidInput, None))),
            (4, Ok(vec![ip("::1")])),
        ]
    );
}

/// Found by the model: the deadline passed while the callback that asked was still running.
#[test]
fn what_is_known_without_asking_cannot_come_too_late() {
    let (mut reactor, mut heard) = (with_resolver(Config::new().connect_max(SECOND / 1000), |_| Ok(Vec::new())), Heard::new());
    reactor.net().post(|net, _| {
        net.resolve("127.0.0.1", |_, heard: &mut Heard, found| heard.push((0, found.map_err(|error| (error.kind(), None)))));
        let asked = Instant::now();
        while asked.elapsed() < SECOND / 200 {}
    });
    reactor.run(&mut heard).expect("it ends when it is told");
    assert_eq!(heard, [(0, Ok(vec![ip("127.0.0.1")]))]);
}

#[test]
fn a_lookup_can_be_taken_back_and_has_a_deadline() {
    let mut reactor = with_resolver(Config::new().connect_max(SECOND / 20), |_| {
        thread::sleep(60 * SECOND);
        Ok(Vec::new())
    });
    let mut heard = Heard::new();
    let taken_back = resolve(&mut reactor, 0, "slow.test");
    assert!(reactor.net().cancel(taken_back) && !reactor.net().cancel(taken_back));
    resolve(&mut reactor, 1, "slow.test");
    reactor.run(&mut heard).expect("nothing is left after the deadline");
    assert_eq!(heard, [(1, Err((io::ErrorKind::TimedOut, Some(NameError::TimedOut))))]);
}

#[test]
fn each_failure_of_a_lookup_names_what_was_asked() {
    let failures = |config: Config, hosts: &[&str]| {
        let resolver = |host: &str| {
            if host == "slow.test" {
                thread::sleep(60 * SECOND);
            }
            Ok(Vec::new())
        };
        let (mut reactor, mut heard) = (with_resolver(config, resolver), Vec::new());
        for &host in hosts {
            reactor.net().resolve(host, |_, heard: &mut Vec<_>, found| heard.push(found.expect_err("no address").to_string()));
        }
        reactor.run(&mut heard).expect("each is told");
        heard
    };
    assert_eq!(failures(Config::new(), &["none.test"]), ["`none.test` has no address"]);
    let narrow = Config::new().connect_max(SECOND / 20).resolve_threads(1).resolve_queue(0);
    let busy = "`busy.test`: too many names are being looked up: every thread is busy, and the queue is full";
    assert_eq!(failures(narrow, &["slow.test", "busy.test"]), [busy, "`slow.test` was not resolved in time"]);
}

#[test]
fn a_lookup_that_is_taken_back_makes_room_for_another() {
    let mut reactor = with_resolver(Config::new().resolve_threads(1).resolve_queue(1), |_| {
        thread::sleep(60 * SECOND);
        Ok(Vec::new())
    });
    let mut heard = Heard::new();
    // The queue has room for one beside what the thread is to take next, or has taken.
    let all: Vec<_> = (0..4).map(|number| resolve(&mut reactor, number, "slow.test")).collect();
    settle(&mut reactor, &mut heard);
    assert!(heard.len() >= 2 && heard.iter().all(|(_, found)| matches!(found, Err((_, Some(NameError::Busy))))), "{heard:?}");
    for timer in all {
        reactor.net().cancel(timer);
    }
    heard.clear();
    resolve(&mut reactor, 4, "slow.test");
    settle(&mut reactor, &mut heard);
    assert_eq!(heard, [], "it waits in the queue");
}

#[test]
fn lookups_beyond_the_bounds_fail_at_once_and_one_that_panics_is_told() {
    let mut reactor = with_resolver(Config::new().resolve_threads(1).resolve_queue(1), |host| match host {
        "odd.test" => std::panic::resume_unwind(Box::new("on purpose")),
        _ => Ok(vec![ip("192.0.2.1")]),
    });
    let mut heard = Heard::new();
    resolve(&mut reactor, 0, "odd.test");
    reactor.run(&mut heard).expect("a selector");
    assert_eq!(heard, [(0, Err((io::ErrorKind::Other, Some(NameError::Failed))))]);
    heard.clear();
    for number in 0..50 {
        resolve(&mut reactor, number, "here.test");
    }
    reactor.run(&mut heard).expect("a selector");
    let busy = heard.iter().filter(|(_, found)| *found == Err((io::ErrorKind::ResourceBusy, Some(NameError::Busy)))).count();
    assert_eq!(heard.len(), 50, "each is told");
    assert!(busy < 50, "{busy} were refused");
}

#[test]
fn a_shutdown_drops_what_was_to_follow_a_lookup() {
    let (mut reactor, mut heard) = (with_names(&[("here.test", &["192.0.2.1"])]), Heard::new());
    resolve(&mut reactor, 0, "here.test");
    reactor.shutdown(&mut heard);
    settle(&mut reactor, &mut heard);
    assert_eq!(heard, []);
    resolve(&mut reactor, 1, "here.test");
    reactor.run(&mut heard).expect("it may be used again");
    assert_eq!(heard, [(1, Ok(vec![ip("192.0.2.1")]))]);
}

#[test]
#[cfg(feature = "names")]
fn the_way_back_finds_a_name_or_says_that_there_is_none() {
    let mut reactor: Reactor<Vec<io::Result<String>>> = Reactor::new().expect("a selector");
    let mut heard = Vec::new();
    for text in ["127.0.0.1", "192.0.2.1"] {
        reactor.net().resolve_back(ip(text), |_, heard: &mut Vec<_>, found| heard.push(found));
    }
    reactor.run(&mut heard).expect("a selector");
    assert_eq!(heard.len(), 2);
    for found in heard {
        match found {
            Ok(name) => assert!(name.parse::<IpAddr>().is_err(), "`{name}` is an address, not a name"),
            Err(error) => assert!(NameError::of(&error).is_some(), "{error:?}"),
        }
    }
}
