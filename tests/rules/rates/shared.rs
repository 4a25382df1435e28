//! What a listener's connections share.

use super::{Log, MILLI, Station, assert_rate, crowd};
use crate::common::{SECOND, until};
use mainspring::{
    Config, Key, Kind, Limit, Listen, Reactor, Reason,
    testing::{Actor, Scene},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const TOTAL: usize = 10_000;

/// Clients that send and fetch as much as they may, of a listener with a rate of 10,000 bytes per second for all.
struct Hall {
    scene: Scene<Log>,
    clients: Vec<Actor>,
}

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

const BURST: usize = TOTAL / 4;

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

const PORTION: usize = TOTAL / 50;

#[track_caller]
fn assert_total(sum: usize, seconds: usize) {
    assert!(sum.abs_diff(seconds * TOTAL) <= PORTION, "{sum} instead of {}", seconds * TOTAL);
}

/// After the burst, `moved` together in this many seconds, each of the same.
#[track_caller]
fn assert_fair(moved: &[Vec<usize>; 2], seconds: usize) {
    for moved in moved {
        assert_total(moved.iter().sum(), seconds);
        let (least, most) = (moved.iter().min().expect("some"), moved.iter().max().expect("some"));
        assert!(most - least <= PORTION, "{moved:?} is not fair");
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

/// The clock is for peers that say nothing; one that says something and is not read is not such a peer.
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
