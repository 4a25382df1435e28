//! The client of NATS, in dialogues and beside a broker.

#[path = "common/broker.rs"]
mod broker;

use broker::Broker;
use mainspring::{
    Net,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    testing::{Actor, Scene, Sim, Weather, check},
};
use room::nats::{Message, Nats, Told};
use std::{sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const SERVER: &str = "10.0.0.1:4222";
const INFO: &str = "INFO {\"server_id\":\"x\",\"max_payload\":1048576,\"connect_urls\":[\"10.0.0.1:4222\"]} \r\n";

struct App {
    nats: Nats<App>,
    log: Vec<String>,
}

const TOLD: Told<App> = Told {
    find: |app| &mut app.nats,
    connected: |_, app| app.log.push("connected".into()),
    away: |_, app, why| app.log.push(format!("away: {why}")),
    message: |_, app, message| app.log.push(line_of(message)),
};

fn line_of(message: &Message<'_>) -> String {
    let Message { subject, reply, headers, payload } = message;
    let reply = reply.map_or_else(String::new, |reply| format!(" ({reply})"));
    let headers = if headers.is_empty() { String::new() } else { format!(" [{}]", headers.escape_ascii()) };
    format!("{subject}{reply}{headers}: {}", payload.escape_ascii())
}

fn app(url: &str) -> App {
    app_with(url, None)
}

fn app_with(url: &str, tls: Option<Arc<ClientConfig>>) -> App {
    App { nats: Nats::new(url, tls, "a test", TOLD).expect("a URL"), log: Vec::new() }
}

fn begin(net: &mut Net<'_, App>, app: &mut App) {
    app.nats.subscribe(net, "room.*");
    app.nats.start(net);
}

fn started(url: &str) -> Scene<App> {
    let mut scene = Scene::new(0, app(url));
    scene.net().post(begin);
    scene
}

/// A scripted server, which was found.
fn found(scene: &mut Scene<App>) -> Actor {
    let server = scene.serves(SERVER);
    let is_found = (0..200).any(|_| scene.passes(SECOND / 10).state().nats.key().is_some());
    assert!(is_found, "no pause is longer than 15 s");
    server
}

/// It has greeted, and heard who comes.
fn greeted(scene: &mut Scene<App>) -> Actor {
    let server = found(scene);
    scene.says(server, INFO);
    let login = String::from_utf8(scene.takes(server)).expect("text");
    assert!(login.starts_with("CONNECT {") && login.ends_with("}\r\nSUB room.* 1\r\nPING\r\n"), "{login}");
    server
}

fn connected() -> (Scene<App>, Actor) {
    let mut scene = started(SERVER);
    let server = greeted(&mut scene);
    scene.says(server, "PONG\r\n");
    assert_eq!(log(&mut scene).last().map(String::as_str), Some("connected"));
    (scene, server)
}

fn log(scene: &mut Scene<App>) -> Vec<String> {
    std::mem::take(&mut scene.state().log)
}

fn publishes(scene: &mut Scene<App>, subject: &'static str, payload: &[u8]) -> bool {
    let (done, seen) = std::sync::mpsc::channel();
    let payload = payload.to_vec();
    scene.net().post(move |net, app| done.send(app.nats.publish(net, subject, None, payload)).expect("it is waited for"));
    scene.settles();
    seen.try_recv().expect("it was done")
}

// ----------------------------------------------------------------------------------------------------------- dialogues

#[test]
fn it_logs_in_subscribes_publishes_and_answers() {
    let (mut scene, server) = connected();
    assert!(publishes(&mut scene, "room.line", b"hi\r\n"));
    scene.hears(server, "PUB room.line 4\r\nhi\r\n\r\n").says(server, "PING\r\n").hears(server, "PONG\r\n");
    scene.says(server, "MSG room.line 1 5\r\nhello\r\nMSG room.x 1 answers.1 0\r\n\r\n+OK\r\nMSG other 7 1\r\nx\r\n");
    assert_eq!(log(&mut scene), ["room.line: hello", "room.x (answers.1): "]);
    for wrong in ["", "a b", "a\r\nPUB x 0\r\n", "\u{a0}"] {
        assert!(!publishes(&mut scene, wrong, b""));
    }
    scene.net().post(|net, app| {
        assert!(app.nats.publish(net, "a", Some("back"), "x"));
        assert_eq!(app.nats.subscribe(net, "more.>"), 2);
        app.nats.unsubscribe(net, 1);
        app.nats.unsubscribe(net, 1);
    });
    scene.settles().hears(server, "PUB a back 1\r\nx\r\nSUB more.> 2\r\nUNSUB 1\r\n");
    scene.says(server, "MSG room.late 1 1\r\nx\r\nMSG more.a 2 1\r\ny\r\n");
    assert_eq!(log(&mut scene), ["more.a: y"]);
    scene.net().post(|net, app| app.nats.stop(net));
    scene.settles().hears_end(server);
    assert_eq!(log(&mut scene), [""; 0], "nobody is told that he has stopped it");
}

#[test]
fn what_is_subscribed_to_during_the_login_is_not_forgotten() {
    let mut scene = started(SERVER);
    let server = greeted(&mut scene);
    scene.net().post(|net, app| _ = app.nats.subscribe(net, "late"));
    scene.settles().hears(server, "").says(server, "PONG\r\n").hears(server, "SUB late 2\r\n");
    scene.says(server, "PONG\r\n").hears(server, "");
    assert_eq!(log(&mut scene), ["connected"]);
}

#[test]
fn however_it_is_cut_the_same_is_understood() {
    let talk = b"msg room.a 1 3\r\nabc\r\nHMSG\troom.b  1 back 12 17\r\nNATS/1.0\r\n\r\n\r\n\r\n?\r\nPING\r\nMSG room.c 1 0\n\r\n-ERR 'Permissions Violation for Publish to \"x\"'\r\nPONG\r\n";
    let heard = ["room.a: abc", "room.b (back) [NATS/1.0\\r\\n\\r\\n]: \\r\\n\\r\\n?", "room.c: "];
    for cut in 0..=talk.len() {
        let (mut scene, server) = connected();
        let pieces = if cut == 0 { talk.chunks(1).collect() } else { vec![&talk[..cut], &talk[cut..]] };
        for piece in pieces {
            scene.says(server, piece);
        }
        scene.hears(server, "PONG\r\n");
        assert_eq!(log(&mut scene), heard, "cut at {cut}");
    }
}

#[test]
fn nonsense_is_told_in_one_line_and_it_is_tried_again() {
    let info = |rest: &str| format!("{INFO}PONG\r\n{rest}");
    let cases = [
        ("HTTP/1.1 400 Bad Request\r\n\r\n".into(), "that is not a NATS server: it said 'HTTP/1.1 400 Bad Request'"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "that is not a NATS server: it said 'SSH-2.0-OpenSSH_9.2'"),
        ("\u{1b}[2J\u{202e}\r\n".into(), "that is not a NATS server: it said '\\u{1b}[2J\\u{202e}'"),
        ("PING\r\n".into(), "that is not a NATS server: it said 'PING'"),
        ("INFO\r\n".into(), "that is not a NATS server: it said 'INFO '"),
        ("INFO {\"max_payload\":-1}\r\n".into(), "that is not a NATS server: it said 'INFO {\\\"max_payload\\\":-1}'"),
        ("INFO {}\r\n".into(), "that is not a NATS server: it said 'INFO {}'"),
        ("INFO [\r\n".into(), "that is not a NATS server: it said 'INFO ['"),
        ("[".repeat(100_000), "a frame is longer than its limit"),
        (format!("INFO {}\r\n", "[".repeat(60_000)), "that is not a NATS server: it said 'INFO [[["),
        (
            "INFO {\"max_payload\":9,\"tls_required\":true}\r\n".into(),
            "the server requires TLS, which needs the certificates to trust",
        ),
        ("-ERR 'maximum connections exceeded'\r\n".into(), "the NATS server says: maximum connections exceeded"),
        (format!("{INFO}-ERR 'Authorization Violation'\r\n"), "the NATS server says: Authorization Violation"),
        (format!("{INFO}-ERR 'Permissions Violation for Subscription to \"room.*\"'\r\n"), "the NATS server says: Permissions"),
        (info("-ERR 'Stale Connection'\r\n"), "the NATS server says: Stale Connection"),
        (info("MSG\r\n"), "that is not a NATS server: it said 'MSG'"),
        (info("MSG room.a 1\r\n"), "that is not a NATS server: it said 'MSG room.a 1'"),
        (info("MSG room.a 1 a b 3\r\n"), "that is not a NATS server"),
        (info("MSG room.a x 3\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 -3\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 +3\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 99999999999999999999\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 18446744073709551615\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 9223372036854775807\r\n"), "that is not a NATS server"),
        (info("HMSG room.a 1 4\r\n"), "that is not a NATS server"),
        (info("HMSG room.a 1 5 4\r\n"), "that is not a NATS server"),
        (info("MSG room.a 1 3\r\nabcde"), "a message of the NATS server is not as long as it says"),
        (info("MESSAGE room.a 1 3\r\n"), "that is not a NATS server"),
        (info("\0\u{fffd}\r\n"), "that is not a NATS server: it said '\\u{0}\\u{fffd}'"),
        (info("\r\n"), "that is not a NATS server: it said ''"),
    ];
    for (said, why) in cases {
        let mut scene = started(SERVER);
        let server = scene.serves(SERVER);
        scene.passes(SECOND).says(server, &said);
        let told = log(&mut scene).pop().expect("it is told");
        assert!(told.starts_with(&format!("away: {why}")) && told.len() < 500, "{}: {told}", &said[..said.len().min(100)]);
        assert!(!told.contains(char::is_control), "{told}");
        let again = greeted(&mut scene);
        scene.says(again, "PONG\r\n");
        assert_eq!(log(&mut scene), ["connected"]);
    }
}

#[test]
fn who_is_there_and_says_nothing_is_left() {
    let mut scene = started(SERVER);
    let silent = scene.serves(SERVER);
    scene.passes(11 * SECOND).hears_end(silent);
    assert_eq!(log(&mut scene), ["away: the deadline passed"]);
    // Who has greeted, and does not answer; nor is a second line of INFO an answer.
    let server = greeted(&mut scene);
    scene.says(server, INFO).passes(11 * SECOND).hears_end(server);
    assert_eq!(log(&mut scene), [""; 0], "once is enough");
    // Who was there.
    let server = greeted(&mut scene);
    scene.says(server, "PONG\r\n");
    for _ in 0..10 {
        scene.passes(9 * SECOND).says(server, "+OK\r\n").hears(server, "");
    }
    for _ in 0..10 {
        scene.passes(10 * SECOND).hears(server, "PING\r\n").says(server, "PONG\r\n");
    }
    scene.passes(10 * SECOND).hears(server, "PING\r\n").passes(10 * SECOND).hears(server, "PING\r\n");
    assert!(scene.state().nats.is_connected());
    scene.passes(10 * SECOND).hears_end(server);
    assert_eq!(log(&mut scene), ["connected", "away: nothing was received for the idle time-out"]);
}

#[test]
fn a_message_that_is_too_long_is_skipped_and_one_that_never_ends_is_not_waited_for() {
    let (mut scene, server) = connected();
    let long = vec![b'x'; 600 << 10];
    scene
        .says(server, format!("MSG room.a 1 {}\r\n", long.len()))
        .says(server, &long)
        .says(server, "\r\nMSG room.b 1 1\r\ny\r\n");
    assert_eq!(log(&mut scene), ["room.b: y"]);
    scene.passes(25 * SECOND).hears(server, "PING\r\n".repeat(2)).says(server, "PONG\r\n");
    scene.says(server, "MSG room.a 1 1000000\r\n");
    for _ in 0..10 {
        scene.says(server, "x").passes(2 * SECOND);
    }
    scene.passes(11 * SECOND);
    assert_eq!(log(&mut scene), ["away: the deadline passed"]);
}

#[test]
fn what_the_server_does_not_take_is_not_queued_without_bound() {
    let (mut scene, server) = connected();
    scene.reads(server, false);
    let taken = (0..1000).take_while(|_| publishes(&mut scene, "room.line", &[b'x'; 10_000])).count();
    assert!((26..52).contains(&taken), "{taken}: the kernel's window, and the mark");
    scene.net().post(|net, app| assert!(app.nats.is_congested(net)));
    scene.reads(server, true).settles();
    assert_eq!(scene.takes(server).len(), taken * (10_000 + "PUB room.line 10000\r\n\r\n".len()), "whole ones");
    assert!(publishes(&mut scene, "room.line", b"x"));
    // One of the longest below the mark is no overflow; a longer one is refused, and so is what the server does not take.
    scene.reads(server, false);
    while publishes(&mut scene, "room.line", &[b'x'; 60_000]) && scene.state().nats.is_connected() {}
    scene.reads(server, true).settles();
    scene.takes(server);
    scene.reads(server, false);
    assert!(publishes(&mut scene, "room.line", &[b'x'; 512 << 10]) && !publishes(&mut scene, "room.line", b"x"));
    scene.reads(server, true).settles();
    assert!(!publishes(&mut scene, "room.line", &[b'x'; (512 << 10) + 1]));
    scene.says(server, INFO.replace("1048576", "3"));
    assert!(publishes(&mut scene, "room.line", b"abc") && !publishes(&mut scene, "room.line", b"abcd"));
    // Who takes nothing for long is gone.
    scene.reads(server, false);
    scene.says(server, INFO);
    while publishes(&mut scene, "room.line", &[b'x'; 10_000]) {}
    scene.passes(MINUTE);
    assert_eq!(log(&mut scene), ["away: the peer took no output for the stall time-out"]);
    assert!(!publishes(&mut scene, "room.line", b"x"));
}

#[test]
fn who_and_with_which_password_is_said_to_the_server_and_to_nobody_else() {
    let url = "nats://an%40na:se%3acret%25%zz@10.0.0.1";
    let mut scene = started(url);
    let server = scene.serves(SERVER);
    scene.passes(SECOND).says(server, INFO);
    let login = String::from_utf8(scene.takes(server)).expect("text");
    assert!(
        login.contains("\"user\":\"an@na\"") && login.contains("\"pass\":\"se:cret%%zz\"") && login.contains("\"echo\":false")
    );
    scene.says(server, "-ERR 'Authorization Violation'\r\n");
    assert_eq!(log(&mut scene), ["away: the NATS server says: Authorization Violation"]);

    let mut scene = started("s3cret@10.0.0.1:4222");
    let server = scene.serves(SERVER);
    scene.passes(SECOND).says(server, INFO);
    assert!(String::from_utf8(scene.takes(server)).expect("text").contains("\"auth_token\":\"s3cret\""));

    for wrong in
        ["http://x", "", "nats://", "nats://s3cret@", "x:0", "x:99999", "x:y", "a,b", "::1", "tls://x", "nats://u:s3cret@x:y"]
    {
        let error = Nats::new(wrong, None, "", TOLD).err().expect(wrong);
        assert!(!error.contains("s3cret"), "{error}");
    }
    for right in ["x", "x:1", "nats://x/", "[::1]", "[::1]:4222", "nats://u:p@[::1]:4222"] {
        assert!(Nats::new(right, None, "", TOLD).is_ok(), "{right}");
    }
}

#[test]
fn what_comes_in_clear_behind_the_info_is_not_believed() {
    let tls = "INFO {\"max_payload\":9,\"tls_required\":true}\r\n";
    let cases = [
        (SERVER, format!("{tls}PONG\r\nMSG room.a 1 1\r\nx\r\n"), "away: could not agree on TLS"),
        (SERVER, format!("{tls}P"), "away: could not agree on TLS"),
        ("tls://10.0.0.1", format!("{INFO}PONG\r\n"), "away: the server does not speak TLS"),
    ];
    for (url, said, why) in cases {
        let mut scene = Scene::new(0, app_with(url, Some(sides().1)));
        scene.net().post(begin);
        let server = scene.serves(SERVER);
        scene.passes(SECOND).says(server, &said).passes(SECOND);
        let told = log(&mut scene);
        assert!(told.len() == 1 && told[0].starts_with(why), "{told:?}");
        assert!(!scene.takes(server).starts_with(b"CONNECT"), "no login in clear");
    }
}

// ---------------------------------------------------------------------------------------------------- beside a broker

/// Made anew for each run: a config remembers sessions, and the next run would be another one.
fn sides() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let certs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/certs");
    let file = |name: &str| format!("{certs}/{name}");
    let chain = CertificateDer::pem_file_iter(file("ed25519.pem")).expect("a file").collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(file("ed25519.key")).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect("a file")).expect("a certificate");
    (
        Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("they fit")),
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()),
    )
}

#[test]
fn a_broker_that_is_killed_and_comes_back_is_found_and_subscribed_to_again() {
    check(0..50, |sim| {
        let broker = sim.host("10.0.0.1", Broker::default());
        Broker::listen(&mut sim.net(broker), SERVER).expect("a free port");
        let [a, b] = ["10.0.0.2", "10.0.0.3"].map(|ip| sim.host(ip, app(SERVER)));
        sim.with(a, |net, app| app.nats.start(net));
        sim.with(b, begin);
        sim.set_weather(Weather::fair().latency(Duration::from_millis(1), Duration::from_millis(50)));
        sim.run_for(SECOND);
        for round in 0..5 {
            assert!(sim.with(a, |net, app| app.nats.publish(net, "room.line", None, format!("{round}"))));
            assert!(!sim.with(a, |net, app| app.nats.publish(net, "room.line", None, [0; 65_537])), "the broker's own limit");
            sim.with(b, |net, app| app.nats.publish(net, "room.line", None, "no echo of one's own"));
            sim.run_for(SECOND);
            sim.shutdown(broker);
            sim.run_for(20 * SECOND);
            assert!(!sim.with(a, |net, app| app.nats.publish(net, "room.line", None, "lost")));
            Broker::listen(&mut sim.net(broker), SERVER).expect("it is free again");
            sim.run_for(16 * SECOND);
        }
        let log = &sim.state(b).log;
        let [connected, messages] =
            ["connected", "room.line: "].map(|begin| log.iter().filter(|line| line.starts_with(begin)).count());
        let away = log.iter().filter(|line| line.starts_with("away: ")).count();
        assert_eq!((connected, messages, away), (6, 5, 5), "{log:?}");
        assert_eq!(sim.state(broker).logins, 12);
    });
}

#[test]
fn a_broker_that_vanishes_without_a_word_is_noticed() {
    let mut sim = Sim::new(1);
    let broker = sim.host("10.0.0.1", Broker::default());
    Broker::listen(&mut sim.net(broker), SERVER).expect("a free port");
    let client = sim.host("10.0.0.2", app(SERVER));
    sim.with(client, begin);
    sim.run_for(60 * SECOND);
    assert_eq!(sim.state(client).log, ["connected"]);
    sim.part(broker, client).run_for(29 * SECOND);
    assert_eq!(sim.state(client).log.len(), 1);
    sim.run_for(2 * SECOND);
    assert_eq!(sim.state(client).log, ["connected", "away: nothing was received for the idle time-out"]);
    sim.join(broker, client).run_for(60 * SECOND);
    assert_eq!(sim.state(client).log.last().map(String::as_str), Some("connected"));
}

#[test]
fn in_tls_with_a_login() {
    let run = |url: &str, tls: bool, trusts: bool| {
        let mut sim = Sim::new(1);
        let (server, client) = sides();
        let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let client = if trusts { client } else { Arc::new(nobody) };
        let login = Some(("anna", "secret"));
        let broker = sim.host("127.0.0.1", Broker { login, tls: tls.then_some(server), ..Broker::default() });
        Broker::listen(&mut sim.net(broker), "127.0.0.1:4222").expect("a free port");
        sim.name("localhost", &["127.0.0.1"]);
        let client = sim.host("10.0.0.2", app_with(url, Some(client)));
        sim.with(client, begin);
        sim.run_for(5 * SECOND);
        sim.with(broker, |_, broker| broker.lost = 0);
        std::mem::take(&mut sim.state(client).log)
    };
    assert_eq!(run("nats://anna:secret@localhost", true, true), ["connected"]);
    assert_eq!(run("tls://anna:secret@localhost:4222", true, true), ["connected"]);
    assert_eq!(run("anna:secret@localhost", false, true), ["away: the server does not speak TLS"]);
    assert_eq!(run("tls://anna:secret@localhost", false, true), ["away: the server does not speak TLS"]);
    assert_eq!(run("nats://anna:wrong@localhost", true, true), ["away: the NATS server says: Authorization Violation"]);
    let told = run("tls://anna:secret@localhost", true, false);
    assert!(told.len() == 1 && told[0].starts_with("away: could not agree on TLS"), "{told:?}");
}

#[test]
fn what_is_forbidden_is_told_and_costs_nobody_the_connection_that_works() {
    let mut sim = Sim::new(1);
    let broker = sim.host("10.0.0.1", Broker { forbidden: Some("x.secret"), ..Broker::default() });
    Broker::listen(&mut sim.net(broker), SERVER).expect("a free port");
    let client = sim.host("10.0.0.2", app(SERVER));
    sim.with(client, begin);
    sim.run_for(SECOND);
    assert!(sim.with(client, |net, app| app.nats.publish(net, "x.secret", None, "x")));
    sim.run_for(SECOND);
    assert_eq!(sim.state(client).log, ["connected"]);
    sim.state(broker).forbidden = Some("room.*");
    sim.shutdown(broker);
    Broker::listen(&mut sim.net(broker), SERVER).expect("it is free again");
    sim.run_for(5 * SECOND);
    let log = &sim.state(client).log;
    assert!(log.len() == 2 && !sim.state(client).nats.is_connected(), "it would hear nothing");
    let away = sim.state(client).nats.away().expect("it says why").to_owned();
    assert!(away.starts_with("the NATS server says: Permissions Violation for Subscription"), "{away}");
}
