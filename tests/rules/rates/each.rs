//! The rate of a connection.

use super::{Log, MILLI, Shifter, Station, assert_rate, crowd};
use crate::common::{SECOND, until};
use mainspring::{
    Config, Limit, Listen, Reactor,
    testing::{Actor, Scene},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A server with one client.
fn stage(station: Station) -> (Scene<Log>, Actor) {
    let (scene, clients) = crowd(station, Listen::new(), 1);
    (scene, clients[0])
}

#[test]
fn writing_keeps_to_its_rate_at_every_moment() {
    let (mut scene, client) = stage(Station { writing: Some(10_000), sends: 60_000, ..Station::default() });
    assert_eq!(scene.heard(client), 2_500, "the burst leaves at once");
    for step in 1..=500 {
        scene.passes(10 * MILLI);
        assert_rate(scene.heard(client), 10_000, step * 10 * MILLI);
    }
    scene.passes(SECOND);
    assert_eq!(scene.heard(client), 60_000, "all of it leaves in the end");
}

#[test]
fn reading_keeps_to_its_rate_at_every_moment() {
    let (mut scene, client) = stage(Station { reading: Some(5_000), ..Station::default() });
    scene.says(client, [b'x'; 30_000]);
    assert_eq!(scene.state().received, 1_250);
    for step in 1..=500 {
        scene.passes(10 * MILLI);
        assert_rate(scene.state().received, 5_000, step * 10 * MILLI);
    }
    scene.ends(client).passes(SECOND);
    assert_eq!((scene.state().received, scene.state().eof), (30_000, 1));
}

/// An upgrade would else be how a peer gets rid of a server's policy.
#[test]
fn an_upgrade_does_not_fill_the_bucket_again() {
    for options in [Listen::new().read_rate(1_000), Listen::new().write_rate(1_000)] {
        let mut scene = Scene::new(1, Log::default());
        const LINE: &[u8] = &[b'x'; 400];
        scene.net().listen_with("10.0.0.1:80", options.clone(), |_, _, _| Ok(Shifter { says: LINE })).expect("a free port");
        let client = scene.dials("10.0.0.1:80");
        scene.says(client, [b'x'; 400]);
        for step in 1..=200_u32 {
            scene.passes(100 * MILLI).says(client, [b'x'; 400]);
            let most = 250 + 100 * step as usize;
            let moved =
                if format!("{options:?}").contains("read_rate: Some") { scene.state().received } else { scene.heard(client) };
            assert!((most - 120..=most).contains(&moved), "{moved} bytes instead of {most} after {} ms", 100 * step);
        }
    }
}

#[test]
fn after_silence_only_a_full_bucket_leaves_at_once() {
    let (mut scene, client) = stage(Station { reading: Some(4_000), writing: Some(8_000), ..Station::default() });
    for round in 0..3 {
        scene.passes(60 * SECOND);
        let key = scene.state().keys[0];
        scene.net().link(key).expect("it is open").send([0; 5_000]);
        scene.says(client, [0; 3_000]).settles();
        assert_eq!((scene.heard(client), scene.state().received), (round * 5_000 + 2_000, round * 3_000 + 1_000));
        scene.passes(2 * SECOND);
        assert_eq!((scene.heard(client), scene.state().received), ((round + 1) * 5_000, (round + 1) * 3_000));
    }
}

#[test]
fn each_connection_of_a_listener_has_a_rate_of_its_own() {
    let options = Listen::new().read_rate(2_000).write_rate(3_000);
    let (mut scene, clients) = crowd(Station { sends: 20_000, ..Station::default() }, options, 4);
    for &client in &clients {
        scene.says(client, [0; 20_000]);
    }
    scene.passes(5 * SECOND);
    for &client in &clients {
        assert_rate(scene.heard(client), 3_000, 5 * SECOND);
    }
    let most = 4 * (2_000 * 5 + 500);
    let received = scene.state().received;
    assert!((most - 4 * 40..=most).contains(&received), "{received} instead of {most}");
}

#[test]
fn a_rate_changes_while_it_runs() {
    let (mut scene, client) = stage(Station { writing: Some(1_000), sends: 50_000, ..Station::default() });
    scene.passes(4 * SECOND);
    let slow = scene.heard(client);
    assert_rate(slow, 1_000, 4 * SECOND);
    let key = scene.state().keys[0];
    scene.net().link(key).expect("it is open").set_write_rate(10_000);
    scene.passes(2 * SECOND);
    let faster = scene.heard(client) - slow;
    assert!((20_000 - 200..=20_000 + 250).contains(&faster), "{faster}: the bucket is not full again");
    scene.net().link(key).expect("it is open").set_write_rate(None);
    assert_eq!(scene.heard(client), 50_000, "without a limit it leaves at once");
}

#[test]
fn a_reading_rate_that_is_taken_back_reads_on_at_once() {
    let (mut scene, client) = stage(Station { reading: Some(10), ..Station::default() });
    scene.says(client, [0; 9_000]);
    assert_eq!(scene.state().received, 2);
    let key = scene.state().keys[0];
    scene.net().link(key).expect("it is open").set_read_rate(None);
    scene.settles();
    assert_eq!(scene.state().received, 9_000);
}

#[test]
fn a_polite_close_flushes_at_the_rate_however_long_that_takes() {
    let (mut scene, client) = stage(Station { writing: Some(100), sends: 12_000, closes: true, ..Station::default() });
    scene.passes(100 * SECOND);
    assert_rate(scene.heard(client), 100, 100 * SECOND);
    assert!(scene.state().closed.is_empty());
    scene.passes(20 * SECOND);
    assert_eq!(scene.takes(client).len(), 12_000);
    scene.hears_end(client);
    assert_eq!(scene.state().closed.len(), 1);
}

/// Longer between two writes than the peer has: it is not to blame.
#[test]
fn the_linger_deadline_stands_still_while_the_rate_holds_output_back() {
    let config = Config::new().linger_max(300 * MILLI);
    let mut scene = Scene::with_config(1, Log::default(), config);
    let station = Station { writing: Some(1), sends: 10, closes: true, ..Station::default() };
    scene.net().listen("10.0.0.1:80", move || station.clone()).expect("a free port");
    let client = scene.dials("10.0.0.1:80");
    scene.passes(5 * SECOND);
    assert_eq!(scene.heard(client), 6);
    scene.passes(5 * SECOND);
    assert_eq!(scene.takes(client).len(), 10);
    scene.hears_end(client);
}

#[test]
fn a_peer_that_takes_nothing_is_reset_whatever_the_rate() {
    let (mut scene, client) = stage(Station { writing: Some(1_000_000), sends: 3_000_000, closes: true, ..Station::default() });
    scene.reads(client, false).passes(60 * SECOND);
    assert_eq!(scene.connections(), 0);
    assert_eq!(scene.state().closed.len(), 1);
}

#[test]
fn a_fin_follows_the_last_limited_byte_at_once() {
    let (mut scene, client) = stage(Station { writing: Some(1_000), sends: 1_250, half_closes: true, ..Station::default() });
    scene.passes(990 * MILLI);
    assert!(scene.heard(client) < 1_250);
    scene.passes(10 * MILLI);
    assert_eq!(scene.takes(client).len(), 1_250);
    scene.hears_end(client);
}

#[test]
fn the_idle_clock_stands_still_while_the_rate_holds_reading_back() {
    let station = Station { reading: Some(1), idle: Some(SECOND / 2), ..Station::default() };
    let (mut scene, client) = stage(station);
    scene.says(client, [0; 10]).passes(8 * SECOND);
    assert_eq!((scene.state().limits.len(), scene.state().received), (0, 9));
    scene.passes(4 * SECOND);
    assert_eq!(scene.state().limits, [Limit::Idle; 4], "then it runs");
}

#[test]
fn the_stall_clock_counts_for_the_peer_only() {
    let (mut scene, client) = stage(Station { writing: Some(1), sends: 30, stalled: Some(SECOND / 2), ..Station::default() });
    scene.passes(20 * SECOND);
    assert_eq!((scene.state().limits.len(), scene.heard(client)), (0, 21));

    let slow = Station { writing: Some(1 << 20), sends: 1 << 20, stalled: Some(SECOND), ..Station::default() };
    let (mut scene, client) = stage(slow);
    scene.reads(client, false).passes(3 * SECOND);
    assert!(scene.state().limits.contains(&Limit::Stalled), "the peer stalls");
}

#[test]
fn frames_that_were_read_are_not_held_back() {
    let (mut scene, client) = stage(Station { reading: Some(40), is_lined: true, ..Station::default() });
    scene.says(client, "a\nb\nc\nd\ne\nfg\n");
    assert_eq!(scene.state().frames.len(), 5, "ten bytes at once");
    scene.passes(SECOND);
    assert_eq!(scene.state().frames.len(), 6);
}

#[test]
fn pausing_goes_before_a_rate_and_does_not_undo_it() {
    let (mut scene, client) = stage(Station { reading: Some(1_000), ..Station::default() });
    scene.says(client, [0; 5_000]);
    let key = scene.state().keys[0];
    scene.net().link(key).expect("it is open").pause();
    scene.passes(10 * SECOND);
    assert_eq!(scene.state().received, 250);
    scene.net().link(key).expect("it is open").resume();
    scene.settles();
    assert_eq!(scene.state().received, 500, "a full bucket, not ten seconds' worth");
}

#[test]
fn a_limited_connection_that_is_reset_ends_at_once() {
    let (mut scene, client) = stage(Station { reading: Some(1), writing: Some(1), sends: 100, ..Station::default() });
    scene.says(client, [0; 100]).resets(client).settles();
    assert_eq!(scene.connections(), 0);
    assert_eq!(scene.state().closed.len(), 1);
}

#[test]
fn a_successor_has_no_rate_but_its_listeners() {
    for (options, heard) in [(Listen::new(), 5_000), (Listen::new().write_rate(2_000), 500)] {
        let station = Station { reading: Some(100), writing: Some(10), sends: 5_000, is_lined: true, ..Station::default() };
        let (mut scene, clients) = crowd(Station { sends: 0, ..station.clone() }, options, 1);
        let key = scene.state().keys[0];
        scene.says(clients[0], "upgrade\n").settles();
        scene.net().link(key).expect("it is open").send([0; 5_000]);
        scene.passes(SECOND);
        let (least, most) = if heard == 5_000 { (5_000, 5_000) } else { (1_960, 2_500) };
        let heard = scene.heard(clients[0]);
        assert!((least..=most).contains(&heard), "{heard}");
        let before = scene.state().received;
        scene.says(clients[0], [0; 3_000]).settles();
        assert_eq!(scene.state().received, before + 3_000, "reading has no limit any more");
    }
}

#[test]
fn output_above_the_high_mark_falls_at_the_rate_and_is_told() {
    let (mut scene, client) = stage(Station { writing: Some(50_000), sends: 400_000, ..Station::default() });
    assert_eq!(scene.state().writable, 0);
    scene.passes(9 * SECOND);
    assert_eq!((scene.state().writable, scene.heard(client)), (1, 400_000));
}

/// No more than the rate allows may have left, however late the machine is; how much less is not said.
#[test]
fn real_sockets_are_never_faster() {
    const RATE: usize = 400_000;
    const BYTES: usize = 300_000;
    let mut reactor = Reactor::new().expect("a selector");
    let station = Station { writing: Some(RATE as u64), reading: Some(RATE as u64), sends: BYTES, ..Station::default() };
    let listener = reactor.net().listen("127.0.0.1:0", move || station.clone()).expect("a free port");
    let addr = reactor.net().local(listener).and_then(|local| local.ip()).expect("an address");
    let began = Instant::now();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        stream.write_all(&vec![1; BYTES]).expect("room, or a reader");
        let mut all = vec![0; BYTES];
        stream.read_exact(&mut all).expect("as many as were sent");
        let took = began.elapsed();
        assert!(all.iter().all(|&byte| byte == b'x'));
        took
    });
    let mut log = Log::default();
    until(&mut reactor, &mut log, |log| log.closed.len() == 1);
    let least = Duration::from_secs_f64((BYTES - RATE / 4) as f64 / RATE as f64);
    assert!(began.elapsed() >= least, "reading is never early");
    assert!(client.join().expect("no panic") >= least, "writing is never early");
    assert_eq!((log.received, log.eof), (BYTES, 1));
}

#[test]
fn a_limited_connection_that_ends_leaves_no_timer() {
    let station = Station { reading: Some(10), writing: Some(10), sends: 100, ..Station::default() };
    let (mut scene, client) = stage(station);
    scene.says(client, [0; 100]).settles();
    assert_eq!(scene.net().stats().timers, 2, "one for each direction");
    let key = scene.state().keys[0];
    scene.net().abort(key);
    scene.settles();
    assert_eq!(scene.net().stats().timers, 0);
}

#[test]
fn what_comes_after_closed_is_dropped_without_a_limit() {
    let (mut scene, client) = stage(Station { reading: Some(10), closes: true, ..Station::default() });
    scene.says(client, [0; 10_000]).ends(client).settles();
    assert_eq!((scene.net().stats().lingering, scene.state().closed.len()), (0, 1));
}

#[test]
fn what_an_error_leaves_queued_is_tried_once_without_a_limit() {
    let (mut scene, client) = stage(Station { writing: Some(10), sends: 500, ..Station::default() });
    assert_eq!(scene.heard(client), 2);
    let key = scene.state().keys[0];
    scene.net().link(key).expect("it is open").fail("enough");
    assert_eq!(scene.heard(client), 500);
}

#[test]
fn the_grace_of_a_drain_ends_what_flushes_too_slowly() {
    let (mut scene, client) = stage(Station { writing: Some(10), sends: 500, closes: true, ..Station::default() });
    scene.net().drain(5 * SECOND);
    scene.passes(4 * SECOND);
    assert_eq!(scene.connections(), 1);
    scene.passes(2 * SECOND);
    assert_eq!(scene.connections(), 0);
    assert!(scene.heard(client) <= 53);
}
