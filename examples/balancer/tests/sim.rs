//! The balancer on the simulated network: dialogues, and storms.

#[path = "../../../tests/common/tls.rs"]
mod tls;

use balancer::{Balancer, Front, Proxied};
use mainspring::{
    Connect, Context, Key, Listen, Net, Outcome, Produced, Protocol, Reason, Target, TlsClient,
    testing::{Actor, Errno, Fate, Host, Scene, Sim, Weather, check},
};
use proxy_header::ProxyHeader;
use std::{cell::RefCell, io, time::Duration};

const S: Duration = Duration::from_secs(1);

const AT: &str = "10.0.0.1:80";

/// As the program sets them.
fn options() -> Listen {
    Listen::new().idle_timeout(300 * S).stall_timeout(300 * S).deadline(30 * S)
}

fn backends(n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("10.0.1.{i}:80")).collect()
}

fn balancer(n: usize) -> Balancer {
    Balancer::new(backends(n).into_iter().map(Target::from))
}

/// A balancer that checks nobody, and whom it calls.
fn scene_of(balancer: Balancer) -> Scene<Balancer> {
    let mut scene = Scene::new(0, balancer);
    scene.net().listen_with(AT, options(), |_, _, _| Ok(Front)).unwrap();
    scene
}

fn scene(n: usize) -> Scene<Balancer> {
    scene_of(balancer(n))
}

fn active(balancer: &Balancer) -> Vec<usize> {
    balancer.backends.iter().map(|backend| backend.active).collect()
}

fn up(balancer: &Balancer) -> Vec<bool> {
    balancer.backends.iter().map(|backend| backend.is_up).collect()
}

// ------------------------------------------------------------------------------------------------------ what passes

#[test]
fn what_either_says_and_the_end_of_either_pass() {
    let mut scene = scene(1);
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    scene.says(client, "hello").hears(server, "hello").says(server, "hi").hears(client, "hi");
    scene.says(client, "that was all").ends(client).hears(server, "that was all").hears_end(server);
    scene.says(server, "not for me").hears(client, "not for me").ends(server).hears_end(client);
    assert_eq!((scene.connections(), active(scene.state())), (0, vec![0]));
}

#[test]
fn a_server_may_end_first() {
    let mut scene = scene(1);
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    scene.says(server, "bye").ends(server).hears(client, "bye").hears_end(client);
    scene.says(client, "wait").hears(server, "wait").ends(client).hears_end(server);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_reset_passes_as_a_reset() {
    for is_client in [true, false] {
        let mut scene = scene(1);
        let server = scene.serves("10.0.1.1:80");
        let client = scene.dials(AT);
        let (one, other) = if is_client { (client, server) } else { (server, client) };
        scene.says(one, "half of").hears(other, "half of").resets(one).hears_reset(other);
        assert_eq!((scene.connections(), active(scene.state())), (0, vec![0]));
    }
}

/// Says so much, and that it was all.
struct Pour(usize);

impl<S> Protocol<S> for Pour {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        let mut left = self.0;
        ctx.produce(move |out: &mut Vec<u8>| -> io::Result<Produced> {
            let n = left.min(10_000);
            out.extend((left - n..left).rev().map(|n| n as u8));
            left -= n;
            Ok(if left == 0 { Produced::Done } else { Produced::More })
        });
        ctx.half_close();
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        Ok(())
    }
}

/// Counts, once it reads.
struct Slow;

impl Protocol<usize> for Slow {
    fn connected(&mut self, ctx: &mut Context<'_, usize>, _: &mut usize) -> Outcome {
        ctx.pause();
        ctx.after(20 * S, |_: &mut Self, ctx, _| {
            ctx.resume();
            Ok(())
        });
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, usize>, got: &mut usize, bytes: &[u8]) -> Outcome {
        *got += bytes.len();
        Ok(())
    }
}

#[test]
fn who_reads_slowly_holds_the_other_back() {
    const MUCH: usize = 5_000_000;
    for is_download in [true, false] {
        let mut sim = Sim::new(0);
        let (proxy, server, client) = (sim.host("10.0.0.1", balancer(1)), sim.host("10.0.1.1", 0), sim.host("10.0.2.1", 0));
        sim.net(proxy).listen_with(AT, options(), |_, _, _| Ok(Front)).unwrap();
        let reader = if is_download {
            sim.net(server).listen("10.0.1.1:80", || Pour(MUCH)).unwrap();
            sim.net(client).connect(AT, Slow);
            client
        } else {
            sim.net(server).listen("10.0.1.1:80", || Slow).unwrap();
            sim.net(client).connect(AT, Pour(MUCH));
            server
        };
        for _ in 0..15 {
            sim.run_for(S);
            let waits: usize = sim.net(proxy).connections().iter().map(|one| one.queued + one.unread).sum();
            assert!(waits < 300_000, "{waits} bytes are kept");
        }
        sim.run_for(60 * S);
        assert_eq!(*sim.state(reader), MUCH, "download: {is_download}");
    }
}

#[test]
fn who_is_silent_for_long_is_let_go_of_on_both_sides() {
    let mut scene = scene(1);
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    for _ in 0..5 {
        scene.passes(200 * S).says(server, "x").hears(client, "x"); // a download is not idle
    }
    scene.passes(299 * S);
    assert_eq!(scene.connections(), 2);
    scene.passes(S).hears_reset(client).hears_reset(server);
    assert_eq!(active(scene.state()), [0]);
}

#[test]
fn so_is_who_is_held_back_by_a_server_that_takes_nothing() {
    let mut scene = scene(1);
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    scene.says(client, "x").hears(server, "x").reads(server, false).says(client, [0; 250_000]);
    scene.passes(299 * S);
    assert_eq!(scene.connections(), 2);
    scene.passes(2 * S).hears_reset(client);
    assert_eq!((scene.connections(), active(scene.state())), (0, vec![0]));
}

// --------------------------------------------------------------------------------------------------- who is chosen

#[test]
fn who_cannot_be_reached_is_passed_over_and_nothing_is_lost() {
    let mut scene = scene(4);
    scene.set_fate("10.0.1.2:80", Fate::Silent).set_fate("10.0.1.3:80", Fate::Unreachable);
    let server = scene.serves("10.0.1.4:80");
    let client = scene.dials(AT);
    scene.says(client, "is anybody ").says(client, "there?").hears(server, "");
    scene.passes(2 * S).hears(server, "is anybody there?").says(server, "yes").hears(client, "yes");
    assert_eq!(active(scene.state()), [0, 0, 0, 1]);
}

#[test]
fn each_is_tried_once_and_then_the_client_is_reset() {
    let mut scene = scene(3);
    for clients in 1..=3 {
        assert_eq!(up(scene.state()), [true; 3], "{clients} clients make so many failures of each");
        let client = scene.dials(AT);
        scene.settles().hears_reset(client);
    }
    assert_eq!((up(scene.state()), active(scene.state()), scene.connections()), (vec![false; 3], vec![0; 3], 0));

    // Who is down is tried all the same, when nobody else is there.
    let server = scene.serves("10.0.1.2:80");
    let client = scene.dials(AT);
    scene.says(client, "hello").hears(server, "hello");
}

#[test]
fn who_is_down_is_not_tried_as_long_as_another_is_up() {
    let mut scene = scene(2);
    scene.set_fate("10.0.1.1:80", Fate::Silent);
    for _ in 0..3 {
        let server = scene.serves("10.0.1.2:80");
        let client = scene.dials(AT);
        scene.says(client, "x").hears(server, "").passes(2 * S).hears(server, "x");
    }
    let server = scene.serves("10.0.1.2:80");
    let client = scene.dials(AT);
    scene.says(client, "x").hears(server, "x");
    assert_eq!((up(scene.state()), active(scene.state())), (vec![false, true], vec![0, 4]));
}

#[test]
fn failures_count_only_in_a_row() {
    let mut scene = scene(1);
    for is_there in [false, true, false, false] {
        let server = is_there.then(|| scene.serves("10.0.1.1:80"));
        let client = scene.dials(AT);
        match server {
            Some(server) => scene.says(client, "x").hears(server, "x"),
            None => scene.settles().hears_reset(client),
        };
    }
    assert_eq!(up(scene.state()), [true]);
    scene.dials(AT);
    scene.settles();
    assert_eq!(up(scene.state()), [false]);
}

#[test]
fn a_client_that_leaves_while_servers_are_tried_is_no_failure_of_theirs() {
    let mut scene = scene(1);
    scene.set_fate("10.0.1.1:80", Fate::Silent);
    for _ in 0..5 {
        let client = scene.dials(AT);
        scene.settles();
        assert_eq!(active(scene.state()), [1]);
        scene.resets(client).settles();
    }
    assert_eq!((up(scene.state()), active(scene.state()), scene.connections()), (vec![true], vec![0], 0));
}

#[test]
fn a_name_is_looked_up_for_each_connection() {
    let mut scene = scene_of(Balancer::new(["app.test:80".into()]));
    for ip in ["10.0.1.1", "10.0.1.2"] {
        scene.name("app.test", &[ip]);
        let server = scene.serves(&format!("{ip}:80"));
        let client = scene.dials(AT);
        scene.says(client, "hello").hears(server, "hello");
    }
    let client = scene.name("app.test", &[]).dials(AT);
    scene.settles().hears_reset(client);
}

#[test]
fn who_failed_with_one_server_comes_first_and_stops_nobody_who_finds_room() {
    let mut balancer = balancer(2);
    balancer.per_backend_max = 1;
    let mut scene = scene_of(balancer);
    scene.set_fate("10.0.1.1:80", Fate::Silent);
    let server = scene.serves("10.0.1.2:80");
    let clients = [(); 4].map(|()| scene.dials(AT));
    for (i, client) in clients.iter().enumerate() {
        scene.says(*client, format!("it is {i}"));
    }
    scene.hears(server, "it is 1").passes(2 * S); // and so 0 has failed: 2 is tried with the first one, 3 waits behind 0
    assert_eq!(active(scene.state()), [1, 1]);
    let next = scene.serves("10.0.1.2:80");
    scene.resets(clients[1]).hears(next, "it is 0");
    assert_eq!(active(scene.state()), [1, 1]);
}

/// Says what it hears, and ends when it has heard the end.
struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        ctx.half_close();
        Ok(())
    }
}

/// Is connected, and says nothing.
struct Silent;

impl<S> Protocol<S> for Silent {}

/// A host, and its listener.
type Server = (Host<()>, Key);

/// A balancer that checks, its servers, and a host for clients.
fn sim_of(sim: &mut Sim, balancer: Balancer) -> (Host<Balancer>, Vec<Server>, Host<()>) {
    let servers = (1..=balancer.backends.len()).map(|i| {
        let host = sim.host(&format!("10.0.1.{i}"), ());
        (host, sim.net(host).listen(format!("10.0.1.{i}:80"), || Echo).unwrap())
    });
    let servers = servers.collect();
    let proxy = sim.host("10.0.0.1", balancer);
    sim.net(proxy).listen_with(AT, options(), |_, _, _| Ok(Front)).unwrap();
    sim.net(proxy).every(2 * S, Balancer::check);
    (proxy, servers, sim.host("10.0.2.1", ()))
}

#[test]
fn the_least_busy_is_chosen_and_among_equals_each_in_turn() {
    let mut sim = Sim::new(0);
    let (proxy, _, home) = sim_of(&mut sim, balancer(3));
    let mut clients = Vec::new();
    for n in 1..=9 {
        clients.push(sim.net(home).connect(AT, Silent));
        sim.run_for(S);
        assert_eq!(active(sim.state(proxy)).iter().sum::<usize>(), n, "checks are none");
    }
    assert_eq!(active(sim.state(proxy)), [3; 3]);
    for client in [1, 4, 7] {
        sim.net(home).abort(clients[client]); // all of the second one
    }
    sim.run_for(S);
    assert_eq!(active(sim.state(proxy)), [3, 0, 3]);
    for _ in 0..2 {
        sim.net(home).connect(AT, Silent);
        sim.run_for(S);
    }
    assert_eq!(active(sim.state(proxy)), [3, 2, 3]);
}

#[test]
fn who_comes_one_after_the_other_comes_to_each() {
    let mut sim = Sim::new(0);
    let (proxy, _, home) = sim_of(&mut sim, balancer(3));
    for _ in 0..9 {
        let client = sim.net(home).connect(AT, Silent);
        sim.run_for(S);
        sim.net(home).abort(client);
        sim.run_for(S);
    }
    assert_eq!(sim.state(proxy).backends.iter().map(|backend| backend.served).collect::<Vec<_>>(), [3; 3]);
}

#[test]
fn three_failed_checks_and_it_is_down_two_good_ones_and_it_is_up() {
    let mut sim = Sim::new(0);
    let (proxy, servers, home) = sim_of(&mut sim, balancer(2));
    let (host, listener) = servers[0];
    sim.run_for(5 * S);
    let stays = sim.net(home).connect(AT, Silent);
    sim.run_for(S);
    sim.net(host).close(listener); // as a server does that is drained: the check at 8 is the first that fails
    sim.run_for(5 * S);
    assert_eq!(up(sim.state(proxy)), [true, true]);
    sim.run_for(2 * S);
    assert_eq!(up(sim.state(proxy)), [false, true]);
    assert!(sim.net(home).is_open(stays), "whom it has it keeps");
    for _ in 0..4 {
        sim.net(home).connect(AT, Silent);
    }
    sim.run_for(S / 2);
    assert_eq!(active(sim.state(proxy)), [1, 4]);
    sim.net(host).listen("10.0.1.1:80", || Echo).unwrap();
    sim.run_for(2 * S);
    assert_eq!(up(sim.state(proxy)), [false, true]);
    sim.run_for(2 * S);
    assert_eq!(up(sim.state(proxy)), [true, true]);
}

#[test]
fn who_finds_all_servers_full_waits_in_turn_and_not_for_ever() {
    let mut balancer = balancer(2);
    balancer.per_backend_max = 1;
    let mut scene = scene_of(balancer);
    let servers = [scene.serves("10.0.1.1:80"), scene.serves("10.0.1.2:80")];
    let clients = [(); 6].map(|()| scene.dials(AT));
    let mut server_of = [None; 2];
    for server in servers {
        scene.says(server, "hello");
        let i = if scene.heard(clients[0]) > 0 && server_of[0].is_none() { 0 } else { 1 };
        server_of[i] = Some(server);
    }
    scene.hears(clients[0], "hello").hears(clients[1], "hello");
    for (i, client) in clients.iter().enumerate().skip(2) {
        scene.says(*client, format!("it is {i}"));
    }
    scene.passes(10 * S).resets(clients[3]); // who left is not waited for
    let again = scene.address(server_of[0].unwrap()).to_string();
    let server = scene.serves(&again);
    scene.resets(clients[0]).hears(server, "it is 2");
    let server_2 = scene.serves(&again);
    scene.resets(clients[2]).hears(server_2, "it is 4");
    assert_eq!(active(scene.state()), [1, 1]);
    scene.passes(20 * S).hears_reset(clients[5]);
    scene.says(server, "").says(server_2, "still").hears(clients[4], "still");
    assert_eq!(scene.connections(), 4);
}

// ----------------------------------------------------------------------------------------------- the PROXY protocol

#[test]
fn a_server_is_told_who_comes() {
    let mut one = balancer(2);
    one.proxy = Some(ProxyHeader::encode_v1);
    let mut scene = scene_of(one);
    let server = scene.serves("10.0.1.2:80"); // the first one cannot be reached
    let client = scene.dials(AT);
    let who = scene.address(client).ip().unwrap();
    scene.says(client, "hello");
    scene.hears(server, format!("PROXY TCP4 {} 10.0.0.1 {} 80\r\nhello", who.ip(), who.port()));

    let mut two = balancer(1);
    two.proxy = Some(ProxyHeader::encode_v2);
    let mut scene = scene_of(two);
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    let who = scene.address(client).ip().unwrap();
    let std::net::IpAddr::V4(ip) = who.ip() else { panic!("{who}") };
    let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    wanted.extend(ip.octets());
    wanted.extend([10, 0, 0, 1]);
    wanted.extend(who.port().to_be_bytes());
    wanted.extend([0, 80]);
    scene.hears(server, wanted);
}

/// A balancer behind another one, its client who says this, and its server.
fn chained(pieces: &[&[u8]], per_peer_max: usize) -> (Scene<Balancer>, Actor, Actor) {
    let mut balancer = balancer(1);
    balancer.proxy = Some(ProxyHeader::encode_v1);
    let mut scene = Scene::new(0, balancer);
    let options = options().behind_proxy().per_peer_max(per_peer_max, "");
    scene.net().listen_with(AT, options, |_, _, _| Ok(Proxied::default())).unwrap();
    let server = scene.serves("10.0.1.1:80");
    let client = scene.dials(AT);
    for bytes in pieces {
        scene.says(client, bytes);
    }
    (scene, client, server)
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x07\x0a\0\0\x63\x30\x39\0\x50\x04\0\0hello";

#[test]
fn for_whom_a_proxy_comes_is_passed_on_however_it_is_cut() {
    let one = b"PROXY TCP4 192.0.2.7 10.0.0.99 12345 80\r\nhello";
    for whole in [&one[..], V2] {
        for cut in 0..whole.len() - 5 {
            let (mut scene, _, server) = chained(&[&whole[..cut], &whole[cut..]], 1);
            scene.hears(server, "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\nhello");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let (mut scene, _, server) = chained(&bytes, 1);
        scene.hears(server, "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\nhello");
    }
}

#[test]
fn what_a_proxy_says_of_itself_or_of_another_family_is_as_good() {
    for (head, known) in [
        (&b"PROXY UNKNOWN\r\n"[..], true),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", true),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", false),
    ] {
        let (mut scene, client, server) = chained(&[head, b"hello"], 1);
        let who = scene.address(client).ip().unwrap();
        let told = format!("PROXY TCP4 {} 10.0.0.1 {} 80\r\nhello", who.ip(), who.port());
        scene.hears(server, if known { told } else { "PROXY UNKNOWN\r\nhello".into() });
    }
}

#[test]
fn who_is_no_proxy_is_let_go() {
    let endless = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 5000]].concat();
    let line = format!("PROXY TCP4 {}", "1".repeat(200));
    for wrong in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01",
        b"PROXY TCP4 192.0.2.7 10.0.0.99 123456 80\r\n",
        b"PROXY TCP4 192.0.2 10.0.0.99 1 80\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        line.as_bytes(),
        &endless,
    ] {
        let (mut scene, _, server) = chained(&[wrong], 1);
        scene.settles().hears(server, "");
        assert_eq!(scene.connections(), 0, "{:?}", wrong.escape_ascii().to_string());
    }
    // Nor may one take its time.
    let (mut scene, client, _) = chained(&[b"PROXY"], 1);
    scene.passes(29 * S);
    assert_eq!(scene.connections(), 1);
    scene.passes(S).hears_end(client);
}

#[test]
fn the_limit_of_an_address_is_for_whom_the_proxy_comes() {
    let (mut scene, _, server) = chained(&[b"PROXY TCP4 192.0.2.7 10.0.0.99 1 80\r\nhello"], 1);
    scene.hears(server, "PROXY TCP4 192.0.2.7 10.0.0.1 1 80\r\nhello");
    let again = scene.dials(AT);
    scene.says(again, "PROXY TCP4 192.0.2.7 10.0.0.99 2 80\r\nhello").hears_end(again);
    let server = scene.serves("10.0.1.1:80");
    let other = scene.dials(AT);
    scene.says(other, "PROXY TCP4 192.0.2.8 10.0.0.99 3 80\r\nhi").hears(server, "PROXY TCP4 192.0.2.8 10.0.0.1 3 80\r\nhi");
}

// ------------------------------------------------------------------------------------------------- when we lack something

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Of this thread's test.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "balancer" {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn warnings() -> Vec<String> {
    WARNINGS.take()
}

/// A balancer with one backend, which serves.
fn sim_of_one() -> (Sim, Host<Balancer>, Host<()>) {
    let _ = log::set_logger(&Warnings).map(|()| log::set_max_level(log::LevelFilter::Warn));
    let mut sim = Sim::new(0);
    let (proxy, server, home) = (sim.host("10.0.0.1", balancer(1)), sim.host("10.0.1.1", ()), sim.host("10.0.2.1", ()));
    sim.net(proxy).listen_with(AT, options(), |_, _, _| Ok(Front)).unwrap();
    sim.net(server).listen("10.0.1.1:80", || Echo).unwrap();
    warnings();
    (sim, proxy, home)
}

#[test]
fn no_backend_is_to_blame_when_descriptors_are_used_up() {
    let (mut sim, proxy, home) = sim_of_one();
    sim.net(proxy).every(2 * S, Balancer::check);
    sim.set_sockets_max(proxy, 2); // the listener's, and one that a client or a check takes
    for _ in 0..5 {
        let client = sim.net(home).connect(AT, Echo);
        sim.run_for(S);
        assert!(!sim.net(home).is_open(client), "it is let go");
        assert_eq!((up(sim.state(proxy)), active(sim.state(proxy))), (vec![true], vec![0]));
    }
    sim.set_sockets_max(proxy, 1).run_for(20 * S);
    assert_eq!(up(sim.state(proxy)), [true], "nor do checks that cannot be made say anything");
    let said = warnings();
    assert!(said.len() == 1 && said[0].contains("os error"), "once: {said:?}");
    sim.set_sockets_max(proxy, 9);
    let client = sim.net(home).connect(AT, Echo);
    sim.run_for(S);
    assert!(sim.net(home).is_open(client));
}

#[test]
fn no_backend_is_to_blame_when_ports_are_used_up() {
    for (errno, is_up) in
        [(Errno::AddressNotAvailable, true), (Errno::TooManyFilesInSystem, true), (Errno::HostUnreachable, false)]
    {
        let (mut sim, proxy, _) = sim_of_one();
        for _ in 0..3 {
            let next = sim.operations(proxy);
            sim.fail_operation(proxy, next, errno, false);
            sim.with(proxy, Balancer::check);
            sim.run_for(S);
        }
        assert_eq!(up(sim.state(proxy)), [is_up], "{errno:?}");
        assert_eq!(warnings().len(), 1, "{errno:?}");
    }
}

// -------------------------------------------------------------------------------------------------------- going down

#[test]
fn a_drain_lets_what_is_under_way_finish_and_those_who_wait_be_served() {
    let mut balancer = balancer(1);
    balancer.per_backend_max = 1;
    let mut scene = scene_of(balancer);
    scene.net().every(2 * S, Balancer::check);
    let server = scene.serves("10.0.1.1:80");
    let clients = [scene.dials(AT), scene.dials(AT)];
    scene.says(clients[0], "one").hears(server, "one").says(clients[1], "two");
    scene.net().drain(60 * S);
    scene.passes(5 * S).says(server, "1").hears(clients[0], "1");
    let next = scene.serves("10.0.1.1:80");
    scene.ends(clients[0]).hears_end(server).ends(server).hears_end(clients[0]).hears(next, "two");
    scene.says(next, "2").hears(clients[1], "2").ends(next).ends(clients[1]).hears_end(clients[1]);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_drain_does_not_wait_for_checks() {
    let mut scene = scene(1);
    scene.set_fate("10.0.1.1:80", Fate::Silent);
    scene.net().every(2 * S, Balancer::check);
    scene.passes(3 * S);
    assert_eq!(scene.connections(), 1);
    scene.net().drain(60 * S);
    scene.passes(2 * S);
    assert_eq!(scene.connections(), 0);
}

// ------------------------------------------------------------------------------------------------------------ storms

#[derive(Default)]
struct Tally {
    tls: Option<TlsClient>,
    whole: u32,
    short: u32,
    stop: bool,
}

/// Says a lot, ends, and wants the same back.
#[derive(Default)]
struct Caller(usize);

const MUCH: usize = 40_000;

fn call(net: &mut Net<'_, Tally>, tally: &mut Tally) {
    if !tally.stop {
        let options = tally.tls.clone().map_or(Connect::new(), |tls| Connect::new().tls(tls));
        net.connect_with(AT, options, Caller::default());
    }
}

impl Protocol<Tally> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally) -> Outcome {
        ctx.set_deadline(60 * S);
        ctx.send((0..MUCH).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        ctx.half_close();
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        for &byte in bytes {
            assert_eq!(byte, (self.0 % 251) as u8, "a part of what was said, always");
            self.0 += 1;
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        let is_whole = self.0 == MUCH;
        assert!(is_whole || !why.is_clean(), "{} of {MUCH}: {why}", self.0);
        tally.whole += u32::from(is_whole);
        tally.short += u32::from(!is_whole);
        ctx.net.after(Duration::from_millis(700), call);
    }
}

fn storm(seeds: u64, is_private: bool) {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(seeds);
    check(0..seeds, |sim| {
        let mut balancer = balancer(3);
        balancer.per_backend_max = if sim.seed() % 2 == 0 { 1 } else { usize::MAX };
        let most = balancer.per_backend_max;
        let proxy = sim.host("10.0.0.1", balancer);
        let mut tally = Tally::default();
        let mut options = options();
        if is_private {
            let (server_side, client_side) = tls::sides_of_localhost(); // anew: what they have agreed on before is remembered
            tally.tls = Some(client_side);
            options = options.tls(server_side);
        }
        sim.net(proxy).listen_with(AT, options, |_, _, _| Ok(Front)).unwrap();
        sim.net(proxy).every(2 * S, Balancer::check);
        let servers = [1, 2, 3].map(|i| {
            let server = sim.host(&format!("10.0.1.{i}"), ());
            sim.net(server).listen(format!("10.0.1.{i}:80"), || Echo).unwrap();
            server
        });
        let home = sim.host("10.0.2.1", tally);
        for _ in 0..5 {
            sim.with(home, call);
        }
        sim.set_weather(Weather::rough());
        for round in 0..10 {
            sim.run_for(2 * S);
            if round == 5 {
                sim.kill(servers[0]);
            }
            assert!(active(sim.state(proxy)).iter().all(|&active| active <= most));
        }
        sim.set_weather(Weather::fair());
        sim.run_for(15 * S);
        assert_eq!(up(sim.state(proxy)), [false, true, true]);
        sim.with(home, |_, tally| tally.stop = true);
        sim.run_for(700 * S);
        let Tally { whole, short, .. } = *sim.state(home);
        assert!(whole > 10, "{whole} were whole, {short} not");
        assert_eq!(active(sim.state(proxy)), [0; 3], "nobody is forgotten");
        assert!(sim.sockets(proxy) <= 4, "the listener and checks are left");
    });
}

#[test]
fn what_comes_through_is_a_part_and_a_clean_end_is_whole() {
    storm(200, false);
}

#[test]
fn and_so_in_tls() {
    storm(40, true);
}
