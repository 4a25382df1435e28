//! Rate limits, in virtual time, and once on real sockets.
#![cfg(feature = "sim")]

mod common;

use common::until;
use mainspring::{
    Config, Context, Key, Kind, Limit, Listen, Outcome, Protocol, Reactor, Reason, Terminator,
    testing::{Actor, Scene},
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Log {
    keys: Vec<Key>,
    received: usize,
    received_by: BTreeMap<Key, usize>,
    frames: Vec<Vec<u8>>,
    limits: Vec<Limit>,
    writable: usize,
    eof: usize,
    closed: Vec<String>,
}

/// Sets what it is told, sends what it is told, writes down what it is called with.
#[derive(Clone, Default)]
struct Station {
    reading: Option<u64>,
    writing: Option<u64>,
    sends: usize,
    closes: bool,
    half_closes: bool,
    idle: Option<Duration>,
    stalled: Option<Duration>,
    is_lined: bool,
}

impl Protocol<Log> for Station {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.keys.push(ctx.key);
        if self.reading.is_some() {
            ctx.set_read_rate(self.reading);
        }
        if self.writing.is_some() {
            ctx.set_write_rate(self.writing);
        }
        ctx.set_idle_timeout(self.idle);
        ctx.set_stall_timeout(self.stalled);
        if self.is_lined {
            ctx.set_terminator(Terminator::line(100));
        }
        ctx.send(vec![b'x'; self.sends]);
        if self.closes {
            ctx.close();
        }
        if self.half_closes {
            ctx.half_close();
        }
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        *log.received_by.entry(ctx.key).or_default() += bytes.len();
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, frame: &[u8]) -> Outcome {
        log.frames.push(frame.to_vec());
        if frame == b"upgrade" {
            ctx.upgrade(Station { sends: self.sends, ..Station::default() });
        }
        Ok(())
    }

    fn writable(&mut self, _: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.writable += 1;
        Ok(())
    }

    fn exceeded(&mut self, _: &mut Context<'_, Log>, log: &mut Log, limit: Limit) -> Outcome {
        log.limits.push(limit);
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, _: &[u8]) -> Outcome {
        log.eof += 1;
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.closed.push(why.to_string());
    }
}

/// A server with one client.
fn stage(station: Station) -> (Scene<Log>, Actor) {
    let (scene, clients) = crowd(station, Listen::new(), 1);
    (scene, clients[0])
}

fn crowd(station: Station, options: Listen, clients: usize) -> (Scene<Log>, Vec<Actor>) {
    let mut scene = Scene::new(1, Log::default());
    scene.net().listen_with("10.0.0.1:80", options, move |_, _, _| Ok(station.clone())).expect("a free port");
    let clients = (0..clients).map(|_| scene.dials("10.0.0.1:80")).collect();
    scene.settles();
    (scene, clients)
}

/// `bytes` after `time` at `rate`: the rate and a quarter of a second's worth, no more, less by no more than the 20 ms'
/// worth that is waited for.
#[track_caller]
fn assert_rate(bytes: usize, rate: usize, time: Duration) {
    let most = (rate as u128 * time.as_millis() / 1000) as usize + rate / 4;
    assert!((most - rate / 50..=most).contains(&bytes), "{bytes} bytes instead of {most} after {time:?}");
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

// ------------------------------------------------------------------------------------- what a listener's connections share

/// Clients that send and fetch as much as they may, of a listener with a rate of 10,000 bytes per second for all.
struct Hall {
    scene: Scene<Log>,
    clients: Vec<Actor>,
}

const TOTAL: usize = 10_000;
const BURST: usize = TOTAL / 4;
const PORTION: usize = TOTAL / 50;

impl Hall {
    fn of(clients: usize) -> Self {
        Self::with(clients, Listen::new())
    }

    fn with(clients: usize, options: Listen) -> Self {
        let options = options.total_read_rate(TOTAL as u64).total_write_rate(TOTAL as u64);
        let (mut scene, clients) = crowd(Station { sends: 60_000, ..Station::default() }, options, clients);
        for &client in &clients {
            scene.says(client, [b'x'; 60_000]);
        }
        Self { scene, clients }
    }

    fn key(&mut self, client: usize) -> Key {
        self.scene.state().keys[client]
    }

    /// How much each has sent, and how much each has fetched.
    fn moved(&mut self) -> [Vec<usize>; 2] {
        let (keys, by) = (self.scene.state().keys.clone(), self.scene.state().received_by.clone());
        let sent = keys.iter().map(|key| by.get(key).copied().unwrap_or_default()).collect();
        let fetched = self.clients.clone().into_iter().map(|client| self.scene.heard(client)).collect();
        [sent, fetched]
    }

    /// What each sends and fetches meanwhile.
    fn passes(&mut self, time: Duration) -> [Vec<usize>; 2] {
        let before = self.moved();
        self.scene.passes(time);
        let after = self.moved();
        [0, 1].map(|way| after[way].iter().zip(&before[way]).map(|(after, before)| after - before).collect())
    }
}

/// After the burst, `moved` together in so many seconds, each of the same.
#[track_caller]
fn assert_fair(moved: &[Vec<usize>; 2], seconds: usize) {
    for moved in moved {
        assert_total(moved.iter().sum(), seconds);
        let (least, most) = (moved.iter().min().expect("some"), moved.iter().max().expect("some"));
        assert!(most - least <= PORTION, "{moved:?} is not fair");
    }
}

#[track_caller]
fn assert_total(sum: usize, seconds: usize) {
    assert!(sum.abs_diff(seconds * TOTAL) <= PORTION, "{sum} instead of {}", seconds * TOTAL);
}

#[test]
fn all_connections_of_a_listener_share_its_total_rate() {
    for clients in [1, 3, 50] {
        let mut hall = Hall::of(clients);
        let mut history = vec![[0; 2]];
        for step in 1..=300 {
            let moved = hall.moved().map(|moved| moved.iter().sum::<usize>());
            history.push(moved);
            for sum in moved {
                assert_rate(sum, TOTAL, (step - 1) * 10 * MILLI);
            }
            hall.scene.passes(10 * MILLI);
        }
        for (from, before) in history.iter().enumerate() {
            for (to, after) in history.iter().enumerate().skip(from) {
                for way in [0, 1] {
                    let (moved, most) = (after[way] - before[way], (to - from) * TOTAL / 100 + BURST);
                    assert!(moved <= most, "{clients} clients moved {moved} bytes {way} in {} steps", to - from);
                }
            }
        }
    }
}

#[test]
fn each_who_wants_more_of_a_total_rate_gets_a_fair_share() {
    for clients in [2, 3, 7, 50] {
        let mut hall = Hall::of(clients);
        hall.scene.passes(SECOND);
        for _ in 0..3 {
            assert_fair(&hall.passes(SECOND), 1);
        }
    }
}

#[test]
fn who_has_less_of_its_own_leaves_the_rest_of_a_total_rate_to_the_others() {
    let mut hall = Hall::of(4);
    let slow = hall.key(0);
    for way in [0, 1] {
        let mut net = hall.scene.net();
        let mut link = net.link(slow).expect("it is open");
        if way == 0 { link.set_read_rate(1_000) } else { link.set_write_rate(1_000) }
    }
    hall.scene.passes(SECOND);
    for moved in hall.passes(4 * SECOND) {
        assert_total(moved.iter().sum(), 4);
        assert!(moved[0].abs_diff(4_000) <= 2 * PORTION, "{moved:?}");
        assert!(moved[1..].iter().all(|moved| moved.abs_diff(12_000) <= 2 * PORTION), "{moved:?}");
    }
}

#[test]
fn a_rate_of_each_and_one_of_all_hold_both() {
    let mut hall = Hall::with(3, Listen::new().read_rate(1_000).write_rate(2_000));
    hall.scene.passes(SECOND);
    let [sent, fetched] = hall.passes(4 * SECOND);
    assert!(sent.iter().all(|sent| sent.abs_diff(4_000) <= 40), "{sent:?}");
    assert!(fetched.iter().all(|fetched| fetched.abs_diff(8_000) <= 80), "{fetched:?}");
}

/// Whoever it is, wherever in the queue, at whatever moment.
#[test]
fn who_goes_while_it_waits_for_a_total_rate_does_not_stop_the_others() {
    let ways: [fn(&mut Hall, Key, Actor); 8] = [
        |hall, key, _| _ = hall.scene.net().close(key),
        |hall, key, _| _ = hall.scene.net().abort(key),
        |hall, key, _| hall.scene.net().link(key).expect("it is open").fail("enough"),
        |hall, _, client| _ = hall.scene.resets(client),
        |hall, _, client| _ = hall.scene.ends(client),
        |hall, key, _| hall.scene.net().link(key).expect("it is open").pause(),
        |hall, key, _| {
            hall.scene.net().link(key).expect("it is open").set_read_rate(1);
            hall.scene.net().link(key).expect("it is open").set_write_rate(1);
        },
        |hall, key, _| {
            hall.scene.net().tell(key, |_: &mut Station, ctx, _| {
                ctx.upgrade(Station::default());
                Ok(())
            });
        },
    ];
    for (number, way) in ways.into_iter().enumerate() {
        for who in 0..4 {
            for after in [0, 1, 13, 20, 57] {
                let mut hall = Hall::of(4);
                hall.scene.passes(SECOND + after * MILLI);
                let (key, client) = (hall.key(who), hall.clients[who]);
                way(&mut hall, key, client);
                hall.scene.settles();
                for mut moved in hall.passes(2 * SECOND) {
                    let its = moved.remove(who);
                    let (sum, rest) = (moved.iter().sum::<usize>(), 2 * TOTAL - its.min(TOTAL / 2 + PORTION));
                    assert!(sum + PORTION >= rest, "way {number} of {who}: {moved:?}");
                    let (least, most) = (moved.iter().min().expect("some"), moved.iter().max().expect("some"));
                    assert!(most - least <= 2 * PORTION, "way {number} of {who}: {moved:?} is not fair");
                }
            }
        }
    }
}

/// In the very moment in which it is its turn. If what was kept for them were kept for ever, twelve would hold all there is.
#[test]
fn who_is_paused_when_it_may_go_on_does_not_stop_the_others() {
    const CLIENTS: usize = 13;
    let mut hall = Hall::of(CLIENTS);
    let mut order = Vec::new();
    for _ in 0..CLIENTS {
        let [sent, _] = hall.passes(20 * MILLI);
        order.push(sent.iter().position(|&sent| sent > 0).expect("a portion each time"));
    }
    for &who in &order[..CLIENTS - 1] {
        hall.passes(10 * MILLI);
        let key = hall.key(who);
        hall.scene.net().after(10 * MILLI, move |net, _| net.link(key).expect("it is open").pause());
        let [sent, _] = hall.passes(10 * MILLI);
        assert_eq!(sent[who], 0, "it was stopped");
    }
    let [sent, fetched] = hall.passes(2 * SECOND);
    assert_total(sent[order[CLIENTS - 1]], 2);
    assert_total(fetched.iter().sum(), 2);
    for &who in &order[..CLIENTS - 1] {
        let key = hall.key(who);
        hall.scene.net().link(key).expect("it is open").resume();
    }
    hall.passes(SECOND);
    assert_fair(&hall.passes(2 * SECOND), 2);
}

#[test]
fn who_takes_nothing_leaves_a_total_rate_to_the_others() {
    let options = Listen::new().total_write_rate(400_000);
    let (mut scene, clients) = crowd(Station { sends: 2_000_000, ..Station::default() }, options, 3);
    scene.reads(clients[0], false).passes(SECOND);
    let before = [scene.heard(clients[1]), scene.heard(clients[2])];
    scene.passes(2 * SECOND);
    for (client, before) in clients[1..].iter().zip(before) {
        let heard = scene.heard(*client) - before;
        assert!(heard.abs_diff(400_000) <= 8_000, "{heard}");
    }
}

#[test]
fn all_may_go_in_any_order_and_no_timer_stays() {
    for first in 0..4 {
        let mut hall = Hall::of(4);
        hall.scene.passes(SECOND);
        assert_eq!(hall.scene.net().stats().timers, 2, "one for each direction, however many wait");
        for client in 0..4 {
            let key = hall.key((first + client) % 4);
            hall.scene.net().abort(key);
            hall.scene.settles();
        }
        assert_eq!(hall.scene.net().stats().timers, 0);
        let late = hall.scene.dials("10.0.0.1:80");
        hall.scene.passes(SECOND);
        assert!(hall.scene.heard(late) >= TOTAL, "who comes now is served");
    }
}

#[test]
fn a_total_rate_outlives_its_listener_and_is_not_that_of_another() {
    let mut hall = Hall::of(3);
    hall.scene.passes(SECOND);
    let listener = hall.scene.net().connections().iter().find(|it| it.kind == Kind::Listener).expect("it listens").key;
    hall.scene.net().close(listener);
    hall.scene.settles();
    assert_fair(&hall.passes(2 * SECOND), 2);
    hall.scene.net().listen("10.0.0.1:80", || Station { sends: 50_000, ..Station::default() }).expect("it is free again");
    let free = hall.scene.dials("10.0.0.1:80");
    assert_eq!(hall.scene.heard(free), 50_000);
    assert_fair(&hall.passes(SECOND).map(|moved| moved[..3].to_vec()), 1);
    for client in hall.clients.clone() {
        hall.scene.resets(client);
    }
    assert_eq!(hall.scene.net().stats().timers, 0);
}

#[test]
fn a_successor_shares_the_total_rate_of_its_listener() {
    let options = Listen::new().total_write_rate(TOTAL as u64).total_read_rate(TOTAL as u64);
    let (mut scene, clients) = crowd(Station { is_lined: true, ..Station::default() }, options, 2);
    for &client in &clients {
        scene.says(client, "upgrade\n").says(client, [0; 40_000]);
        let key = scene.state().keys[0];
        scene.net().link(key).expect("it is open").set_write_rate(None);
    }
    for key in scene.state().keys.clone() {
        scene.net().send(key, [0; 40_000]);
    }
    scene.passes(2 * SECOND);
    let fetched: usize = clients.iter().map(|&client| scene.heard(client)).sum();
    assert_rate(fetched, TOTAL, 2 * SECOND);
    assert_rate(scene.state().received + 16, TOTAL, 2 * SECOND);
}

#[test]
fn polite_closes_flush_at_the_total_rate_and_nobody_is_reset_for_it() {
    let config = Config::new().linger_max(300 * MILLI);
    let mut scene = Scene::with_config(1, Log::default(), config);
    let station = Station { sends: 1_000, closes: true, ..Station::default() };
    let options = Listen::new().total_write_rate(100);
    scene.net().listen_with("10.0.0.1:80", options, move |_, _, _| Ok(station.clone())).expect("a free port");
    let clients: Vec<Actor> = (0..5).map(|_| scene.dials("10.0.0.1:80")).collect();
    scene.passes(30 * SECOND);
    assert_rate(clients.iter().map(|&client| scene.heard(client)).sum(), 100, 30 * SECOND);
    scene.passes(25 * SECOND);
    for client in clients {
        assert_eq!(scene.takes(client).len(), 1_000);
        scene.hears_end(client);
    }
    assert!(scene.state().closed.iter().all(|why| why == &Reason::Finish.to_string()), "{:?}", scene.state().closed);
}

#[test]
fn last_words_do_not_wait_for_a_total_rate() {
    let options = Listen::new().total_write_rate(1).connections_max(1, "421 too many connections\r\n");
    let (mut scene, clients) = crowd(Station { sends: 100, ..Station::default() }, options, 2);
    assert_eq!(scene.heard(clients[0]), 1);
    scene.hears(clients[1], "421 too many connections\r\n");
}

/// The clock is for peers that say nothing; who says something and is not read is not one.
#[test]
fn the_idle_clock_stands_still_for_who_waits_for_a_total_rate_and_for_nobody_else() {
    let station = Station { idle: Some(SECOND / 2), ..Station::default() };
    let (mut scene, clients) = crowd(station, Listen::new().total_read_rate(1), 3);
    scene.says(clients[0], [0; 10]).says(clients[1], [0; 10]);
    scene.passes(SECOND * 3 / 4);
    assert_eq!(scene.state().limits, [Limit::Idle], "of the third");
    scene.ends(clients[2]).passes(9 * SECOND);
    assert_eq!((scene.state().limits.len(), scene.state().received), (1, 10));
}

/// A full bucket is a byte here: what is kept for one is all there is.
#[test]
fn the_slowest_total_rate_serves_all_in_turn() {
    let (mut scene, clients) = crowd(Station::default(), Listen::new().total_read_rate(1), 3);
    scene.says(clients[0], "ab").says(clients[1], "c").says(clients[2], "defg");
    for second in 1..=7 {
        assert_eq!(scene.state().received, second);
        scene.passes(SECOND);
    }
    let received: Vec<usize> = scene.state().received_by.values().copied().collect();
    assert_eq!(received, [2, 1, 4]);
    assert_eq!(scene.net().stats().timers, 0);

    let (mut scene, clients) = crowd(Station::default(), Listen::new().total_write_rate(1), 3);
    for (at, bytes) in [2, 1, 4].into_iter().enumerate() {
        let key = scene.state().keys[at];
        scene.net().send(key, vec![0; bytes]);
    }
    for second in 1..=7 {
        assert_eq!(clients.iter().map(|&client| scene.heard(client)).sum::<usize>(), second);
        scene.passes(SECOND);
    }
    assert_eq!(scene.net().stats().timers, 0);
}

#[test]
fn what_comes_after_closed_is_not_of_the_total_rate() {
    let options = Listen::new().total_read_rate(10);
    let (mut scene, clients) = crowd(Station { closes: true, ..Station::default() }, options, 1);
    scene.says(clients[0], [0; 10_000]).ends(clients[0]).settles();
    assert_eq!(scene.net().stats().lingering, 0);
}

#[test]
fn who_wants_little_of_a_total_rate_does_not_wait_for_what_others_leave() {
    let options = Listen::new().total_read_rate(TOTAL as u64);
    let (mut scene, clients) = crowd(Station { is_lined: true, ..Station::default() }, options, 20);
    for round in 1..=50 {
        for &client in &clients {
            scene.says(client, "hello\n");
        }
        scene.passes(20 * MILLI);
        assert_eq!(scene.state().frames.len(), round * 20, "6,000 bytes a second are fewer");
    }
}

#[test]
fn real_connections_that_share_a_rate_are_never_faster() {
    const RATE: usize = 400_000;
    const BYTES: usize = 60_000;
    const CLIENTS: usize = 4;
    let mut reactor = Reactor::new().expect("a selector");
    let options = Listen::new().total_read_rate(RATE as u64).total_write_rate(RATE as u64);
    let station = Station { sends: BYTES, ..Station::default() };
    let listener = reactor.net().listen_with("127.0.0.1:0", options, move |_, _, _| Ok(station.clone())).expect("a free port");
    let addr = reactor.net().local(listener).and_then(|local| local.ip()).expect("an address");
    let began = Instant::now();
    let client = move || {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        stream.write_all(&[1; BYTES]).expect("room, or a reader");
        let mut all = vec![0; BYTES];
        stream.read_exact(&mut all).expect("as many as were sent");
        assert!(all.iter().all(|&byte| byte == b'x'));
        began.elapsed()
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client)).collect();
    let mut log = Log::default();
    until(&mut reactor, &mut log, |log| log.closed.len() == CLIENTS);
    let least = Duration::from_secs_f64((CLIENTS * BYTES - RATE / 4) as f64 / RATE as f64);
    assert!(began.elapsed() >= least, "reading is never early");
    let last = clients.into_iter().map(|client| client.join().expect("no panic")).max();
    assert!(last >= Some(least), "writing is never early");
    assert_eq!((log.received, log.eof), (CLIENTS * BYTES, CLIENTS));
}
