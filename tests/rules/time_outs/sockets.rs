//! On real sockets: what the kernel takes, and loops that are late.

use crate::common::{
    Call, Ctx, Journal, LONG, SHORT, dial, guest, lines, listen, ms, pass, quiet, recorder, say, start, stuff, turn, until,
    until_net,
};
use mainspring::{Address, Key, Limit, Listen, Net, Reactor, Refusal};
use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};

/// What everybody else does meanwhile waits, and is no fault of theirs.
fn be_long(reactor: &mut Reactor<Journal>, mut meanwhile: impl FnMut() + 'static) {
    reactor.net().post(move |_, _| {
        meanwhile();
        thread::sleep(2 * LONG);
    });
}

#[test]
fn what_came_during_a_long_callback_comes_before_the_time_out_that_it_was_in_time_for() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, lines);
    let mut net = reactor.net();
    net.link(key).expect("open").set_idle_timeout(LONG);
    net.link(key).expect("open").set_frame_timeout(LONG);
    say(&peer, "an unfinished ");
    until_net(&mut reactor, &mut journal, |net, _| net.link(key).expect("open").unread() > 0);
    be_long(&mut reactor, move || say(&peer, "line\n"));
    until(&mut reactor, &mut journal, |journal| journal.of(key).len() > 1);
    assert_eq!(journal.of(key)[1], Call::Frame(b"an unfinished line".to_vec()));
}

#[test]
fn output_that_the_peer_would_have_taken_during_a_long_callback_did_not_stall() {
    let (mut reactor, mut journal) = start();
    let (key, mut peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    reactor.net().link(key).expect("open").set_stall_timeout(LONG);
    peer.set_nonblocking(true).expect("a socket option");
    let mut piece = vec![0; 64 << 10];
    be_long(&mut reactor, move || while peer.read(&mut piece).is_ok() {});
    for _ in 0..2 {
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    assert!(!journal.has(&Call::Exceeded(Limit::Stalled)));
}

#[test]
fn a_time_out_of_nothing_that_starts_afresh_does_not_keep_the_loop_awake() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, |_: &mut Ctx<'_>, _: &mut Journal, _: &Call| Ok(()));
    reactor.net().link(key).expect("open").set_idle_timeout(Duration::ZERO);
    let began = Instant::now();
    pass(&mut reactor, &mut journal, LONG);
    let told = journal.of(key).iter().filter(|call| **call == Call::Exceeded(Limit::Idle)).count();
    assert!(0 < told && told as u128 <= began.elapsed().as_millis(), "{told} times");
}

#[test]
fn stalled_is_output_of_which_no_byte_is_taken() {
    let (mut reactor, mut journal) = start();
    let (key, _peer) = guest(&mut reactor, &mut journal, quiet);
    stuff(&mut reactor, &mut journal, key);
    let began = Instant::now();
    reactor.net().link(key).expect("open").set_stall_timeout(SHORT);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Stalled)));
    assert!(began.elapsed() >= SHORT);
}

/// A limit that expired and went on set itself a timer in the past, which hid all others that were due: one a turn.
#[test]
fn a_limit_that_goes_on_does_not_keep_other_due_timers_from_this_turn() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut journal = Journal::default();
    let (_, at) = listen(&mut reactor, || recorder(quiet));
    let peers: Vec<_> = (0..50).map(|_| dial(at)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == peers.len());
    for key in journal.keys() {
        reactor.net().link(key).expect("it is open").set_idle_timeout(ms(2));
    }
    let asked = Instant::now();
    while asked.elapsed() < ms(10) {
        std::hint::spin_loop(); // a program that is long in coming back to the loop
    }
    turn(&mut reactor, &mut journal, Duration::ZERO);
    let told = journal.calls.iter().filter(|(_, call)| *call == Call::Exceeded(Limit::Idle)).count();
    assert_eq!(told, peers.len(), "idle limits told in one turn, of those long due");
}

/// A time-out that the listener had for its guests ran from when one was let in: in a slow turn it was exceeded before
/// `connected`, which is in the next turn.
#[test]
fn no_time_out_is_exceeded_before_connected() {
    let bounds: [fn(Listen) -> Listen; 2] = [|listen| listen.idle_timeout(ms(1)), |listen| listen.deadline(ms(1))];
    for (number, bound) in bounds.into_iter().enumerate() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let slow = |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| -> Result<_, Refusal> {
            let began = Instant::now();
            while began.elapsed() < ms(5) {
                std::hint::spin_loop();
            }
            Ok(recorder(quiet))
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", bound(Listen::new()), slow).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let _peers = [dial(at), dial(at)];
        let is_exceeded = |call: &&(Key, Call)| matches!(call.1, Call::Exceeded(_));
        until(&mut reactor, &mut journal, |journal| journal.calls.iter().filter(is_exceeded).count() >= 2);
        for key in journal.keys() {
            let calls = journal.of(key);
            assert_eq!(calls.first(), Some(&Call::Connected), "{number}: {calls:?}");
        }
    }
}
