//! Tells and posts.

use crate::common::{Call, Journal, On, guest, is_closed, nobody, post, quiet, recorder, start, start_with, tell, until};
use mainspring::{Config, Key, Net};

#[test]
fn tells_and_posts_are_one_fifo() {
    let (mut reactor, mut journal) = start();
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let (b, _other) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    tell(&mut net, a, "1");
    post(&mut net, a, "2");
    tell(&mut net, b, "3");
    tell(&mut net, a, "4");
    post(&mut net, a, "5");
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn what_tells_and_posts_queue_goes_last() {
    let (mut reactor, mut journal) = start();
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    net.post(move |net, _| {
        net.post(move |net, _| post(net, a, "last"));
        tell(net, a, "third");
    });
    tell(&mut net, a, "first");
    post(&mut net, a, "second");
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["first", "second", "third", "last"]);
}

#[test]
fn the_loop_does_not_sleep_on_tells_over_the_budget() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(2));
    let (a, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    for text in ["1", "2", "3", "4", "5"] {
        tell(&mut reactor.net(), a, text);
    }
    for told in [2, 4, 5] {
        // A turn that slept would not come back.
        reactor.turn(&mut journal, None).expect("the selector works");
        assert_eq!(journal.frames().len(), told);
    }
}

#[test]
fn a_tell_runs_before_the_closed_of_a_target_that_begins_to_end() {
    let ends: [fn(&mut Net<'_, Journal>, Key) -> bool; 3] =
        [|net, key| net.close(key), |net, key| net.abort(key), |net, key| net.fail(key, "x")];
    for end in ends {
        let (mut reactor, mut journal) = start();
        let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
        let mut net = reactor.net();
        assert!(tell(&mut net, key, "told"));
        end(&mut net, key);
        assert!(!tell(&mut net, key, "too late"));
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert_eq!(journal.of(key)[..2], [Call::Connected, Call::Frame(b"told".to_vec())]);
        assert_eq!(journal.of(key).len(), 3);
    }
}

#[test]
fn closed_waits_for_tells_that_are_over_the_budget() {
    let (mut reactor, mut journal) = start_with(Config::new().turn_tells(1));
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    let mut net = reactor.net();
    for text in ["1", "2", "3"] {
        assert!(tell(&mut net, key, text));
    }
    net.abort(key);
    for _ in 0..4 {
        reactor.turn(&mut journal, None).expect("the selector works");
    }
    assert_eq!(journal.frames(), ["1", "2", "3"]);
    assert!(matches!(journal.of(key).last(), Some(Call::Closed(_))));
}

#[test]
fn a_tell_to_a_paused_connection_runs() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet as On);
    reactor.net().link(key).expect("open").pause();
    assert!(tell(&mut reactor.net(), key, "told"));
    reactor.turn(&mut journal, None).expect("the selector works");
    assert_eq!(journal.frames(), ["told"]);
}

#[test]
fn a_tell_to_a_connecting_target_runs_before_its_closed() {
    let (mut reactor, mut journal) = start();
    let (_socket, nobody) = nobody();
    let key = reactor.net().connect(nobody, recorder(quiet as On));
    assert!(tell(&mut reactor.net(), key, "told"));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key)[0], Call::Frame(b"told".to_vec()));
    assert_eq!(journal.of(key).len(), 2);
}
