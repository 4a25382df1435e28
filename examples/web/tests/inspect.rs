//! The inspector: dialogues with its site, in virtual time.

use mainspring::{
    Address, Closed, Config, Context, Listen, Outcome, Protocol, Reactor, Reason, Stats, Terminator,
    testing::{NameFate, Transcript},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use web::{Http, inspect, metrics};

const SECOND: Duration = Duration::from_secs(1);

type Asked = Transcript<Http<()>>;

fn ask(dialogue: &mut Asked, method: &str, path: &str, headers: &str) -> String {
    dialogue.receives(format!("{method} {path} HTTP/1.1\r\n{headers}\r\n"));
    String::from_utf8(dialogue.sent()).expect("all of it is text")
}

fn get(path: &str, headers: &str) -> String {
    ask(&mut Transcript::new(Http::new(inspect::site)), "GET", path, headers)
}

fn local(path: &str) -> String {
    get(path, "Host: localhost\r\n")
}

/// The status, and the body.
fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    (head.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3)).expect("a status"), body)
}

/// What the events say that came since it was last asked.
fn events(dialogue: &mut Asked) -> Vec<Value> {
    let sent = String::from_utf8(dialogue.sent()).expect("all of it is text");
    let data = sent.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).expect("an event is JSON")).collect()
}

fn watch(dialogue: &mut Asked) {
    dialogue.receives("GET /inspect/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

#[test]
fn the_page_brings_everything_with_it_and_may_do_nothing_else() {
    let answer = local("/inspect");
    let (status, page) = parts(&answer);
    assert_eq!(status, "200");
    let policy = answer.lines().find(|line| line.starts_with("Content-Security-Policy: ")).expect("a policy");
    assert!(policy.contains("default-src 'none'; style-src 'sha256-") && policy.contains("; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(answer.contains("\r\nCache-Control: no-store\r\n") && answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"));
    for tag in ["<style", "<script", "</style>", "</script>"] {
        assert_eq!(page.matches(tag).count(), 1, "{tag}: the policy names one");
    }
    assert!(page.contains("<style>") && page.contains("<script>"), "the policy finds them without attributes");
    for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "style=", "onclick="] {
        assert!(!page.contains(markup), "{markup}");
    }
}

#[test]
fn each_path_has_its_answer() {
    assert_eq!(parts(&local("/")).0, "302");
    assert!(local("/").contains("\r\nLocation: /inspect\r\n"));
    assert_eq!(parts(&local("/inspect?x=1")).0, "200");
    assert_eq!(parts(&local("/inspect/")).0, "404");
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    let refused = ask(&mut dialogue, "POST", "/metrics", "Host: localhost\r\nContent-Length: 0\r\n");
    assert!(parts(&refused).0 == "405" && refused.contains("\r\nAllow: GET, HEAD\r\n"));
    let head = ask(&mut dialogue, "HEAD", "/inspect", "Host: localhost\r\n");
    assert_eq!(parts(&head), ("200", ""), "and the same connection goes on");
    assert_eq!(parts(&ask(&mut dialogue, "GET", "/metrics", "Host: localhost\r\n")).0, "200");
}

/// A page whose name was made to mean this address asks by that name.
#[test]
fn who_asks_by_a_name_that_could_be_anybodys_gets_nothing() {
    for host in ["localhost", "LocalHost:8081", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8081", "192.0.2.7:8081", ""] {
        let answer = get("/metrics", &format!("Host: {host}\r\n"));
        assert_eq!(parts(&answer).0, "200", "{host}");
    }
    let names = [
        "evil.example",
        "evil.example:8081",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "localhost.",
        "[evil]",
        "[127.0.0.1]",
    ];
    for host in names.into_iter().chain(["::1", "localhost:80:80", "127.1", "0x7f.1:80", "[::1]evil", "[::1", "evil.example:x"]) {
        for path in ["/", "/inspect", "/inspect/events", "/metrics", "/else"] {
            let answer = get(path, &format!("Host: {host}\r\n"));
            let (status, body) = parts(&answer);
            assert!(["400", "403"].contains(&status) && !body.contains("mainspring_"), "{host} {path}: {answer}");
        }
    }
    let mut behind_a_proxy = Transcript::<Http<()>>::new(Http::new(inspect::any_host));
    assert_eq!(parts(&ask(&mut behind_a_proxy, "GET", "/metrics", "Host: figures.example\r\n")).0, "200");
}

/// It could not read an answer anyway, but it would take the places of those who watch.
#[test]
fn another_sites_page_may_link_here_and_load_nothing() {
    let from = |path, site, mode| {
        let headers = format!("Host: 127.0.0.1\r\nSec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\n");
        parts(&get(path, &headers)).0.to_owned()
    };
    for site in ["cross-site", "same-site"] {
        assert_eq!(from("/inspect/events", site, "cors"), "403");
        assert_eq!(from("/metrics", site, "no-cors"), "403");
        assert_eq!(from("/inspect", site, "navigate"), "200");
    }
    assert_eq!(from("/inspect/events", "same-origin", "cors"), "200");
    assert_eq!(from("/inspect", "none", "navigate"), "200");
}

/// Names of a metric with its labels and value, as Prometheus' own documentation has the format.
fn scraped(text: &str) -> Vec<(String, f64)> {
    let (mut described, mut typed, mut all) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    assert!(text.ends_with('\n'), "the last line too");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and a help");
            assert!(!help.is_empty() && !help.contains('\\') && described.insert(name), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" });
            assert!(described.contains(name) && typed.insert(name), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && name.starts_with("mainspring_"), "{line}");
        assert!(described.contains(name) && typed.contains(name), "{line}: HELP and TYPE stand before it");
        let labels = labels.strip_suffix('}').expect("labels end");
        let is_label = |label: &str| label.strip_prefix("reason=\"").and_then(|label| label.strip_suffix('"')).is_some();
        assert!(labels.is_empty() || is_label(labels), "{line}");
        let value = value.parse().expect("a number");
        assert!(all.iter().all(|(other, _)| other != series), "{series} is there twice");
        all.push((series.to_owned(), value));
    }
    assert_eq!(described, typed);
    all
}

fn value(all: &[(String, f64)], series: &str) -> Option<f64> {
    all.iter().find(|(other, _)| other == series).map(|(_, value)| *value)
}

#[test]
fn metrics_are_in_prometheus_text_form() {
    let answer = local("/metrics");
    assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\r\nCache-Control: no-store\r\n"));
    let all = scraped(parts(&answer).1);
    assert_eq!(value(&all, "mainspring_accepted_total"), Some(1.0));
    assert_eq!(value(&all, "mainspring_connections"), Some(1.0));
    assert_eq!(value(&all, "mainspring_received_bytes_total"), Some(42.0), "what has asked");
    assert_eq!(all.iter().filter(|(series, _)| series.starts_with("mainspring_closed_total{")).count(), 12);
    assert_eq!(value(&all, "mainspring_waited_seconds_total"), None, "nothing is measured without a watchdog");
}

#[test]
fn figures_are_exact_and_in_seconds_and_bytes() {
    let mut stats = Stats::default();
    (stats.bytes_in, stats.queued, stats.closed.io) = (9_007_199_254_740_991, 7, 3);
    (stats.waited, stats.longest_callback) = (Duration::from_nanos(1_500_000_001), Duration::from_micros(2));
    let all = scraped(&metrics::text(&stats));
    let expected = [
        ("received_bytes_total", 9_007_199_254_740_991.0),
        ("queued_bytes", 7.0),
        ("closed_total{reason=\"io\"}", 3.0),
        ("closed_total{reason=\"eof\"}", 0.0),
        ("waited_seconds_total", 1.500_000_001),
        ("longest_callback_seconds", 0.000_002),
    ];
    for (series, wanted) in expected {
        assert_eq!(value(&all, &format!("mainspring_{series}")), Some(wanted), "{series}");
    }
}

/// A reason that the crate has and the page has not would be missed by nobody.
#[test]
fn all_reasons_are_told() {
    let told: BTreeSet<_> = metrics::reasons(&Closed::default()).map(|(reason, _)| reason.to_owned()).into();
    let debug = format!("{:?}", Closed::default());
    let fields = debug.trim_start_matches("Closed { ").trim_end_matches(" }").split(", ");
    let has: BTreeSet<_> = fields.filter_map(|field| Some(field.split_once(':')?.0.to_owned())).collect();
    assert_eq!(told, has);
}

#[test]
fn an_event_comes_at_once_and_each_second() {
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    watch(&mut dialogue);
    let answer = String::from_utf8(dialogue.sent()).expect("text");
    assert!(answer.contains("\r\nContent-Type: text/event-stream\r\n") && answer.contains("\r\nCache-Control: no-store\r\n"));
    assert!(parts(&answer).1.starts_with("event: reactor\ndata: {") && answer.ends_with("}\n\n"), "{answer}");
    dialogue.passes(SECOND * 9 / 10);
    assert!(events(&mut dialogue).is_empty());
    dialogue.passes(SECOND * 21 / 10);
    let came = events(&mut dialogue);
    assert_eq!(came.iter().map(|event| event["at"].as_f64().expect("a number")).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    assert!(came[2]["figures"]["turns_total"].as_f64() > came[1]["figures"]["turns_total"].as_f64());
    assert_eq!(came[0]["held"], 1, "itself");
    dialogue.peer_ends().closes(Reason::is_clean);
}

#[test]
fn nothing_goes_on_when_nobody_watches_any_more() {
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    watch(&mut dialogue);
    dialogue.sent();
    dialogue.peer_resets();
    assert_eq!(dialogue.scene().net().stats().timers, 0);
}

/// A name of a type may have any character in it.
struct Odd<const C: char>;

impl<const C: char> Protocol<()> for Odd<C> {
    fn received(&mut self, ctx: &mut Context<'_, ()>, _: &mut (), bytes: &[u8]) -> Outcome {
        match bytes {
            b"hold" => drop(ctx.hold()),
            b"pause" => ctx.pause(),
            b"frames" => ctx.set_terminator(Terminator::exactly(1000)),
            _ => ctx.send(bytes),
        }
        Ok(())
    }
}

fn row(event: &Value, is: impl Fn(&Value) -> bool) -> &Value {
    event["rows"].as_array().and_then(|rows| rows.iter().find(|row| is(row))).unwrap_or_else(|| panic!("no such row: {event}"))
}

#[test]
fn names_of_strangers_are_only_text() {
    let hostile = "\"},<b>\\\u{202e}<script>.example";
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    dialogue.scene().set_name_fate(hostile, NameFate::Silent);
    dialogue.scene().net().connect((hostile, 80), Odd::<'"'>);
    watch(&mut dialogue);
    let came = events(&mut dialogue);
    let [event] = &came[..] else { panic!("an event is one line: {came:?}") };
    let row = row(event, |row| row["kind"] == "Opened");
    assert!(row["protocol"].as_str().is_some_and(|name| name.contains("Odd<'\"'>")), "{row}");
    assert!(row["peer"].as_str().is_some_and(|peer| peer.starts_with("\"},<b>\\") && peer.contains("<script>.example")), "{row}");
    assert_eq!(row["state"], serde_json::json!(["connecting"]));
}

#[test]
fn a_row_says_how_a_connection_is() {
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    let scene = dialogue.scene();
    scene.net().listen_with("127.0.0.1:9", Listen::new(), |_, _, _| Ok(Odd::<'x'>)).expect("a simulated port");
    let [held, paused, talking] = ["hold", "pause", "hello"].map(|said| {
        let peer = scene.dials("127.0.0.1:9");
        scene.says(peer, said);
        scene.address(peer).to_string()
    });
    scene.passes(2 * SECOND);
    watch(&mut dialogue);
    let came = events(&mut dialogue);
    let of = |peer: &str| row(&came[0], |row| row["peer"] == *peer).clone();
    assert_eq!(of(&paused)["state"], serde_json::json!(["paused"]));
    let place = &of(&held)["holds"][0];
    assert_eq!(of(&held)["state"], serde_json::json!(["held"]));
    assert!(place[0].as_str().is_some_and(|place| place.contains("inspect.rs:")) && place[1] == 2, "{place}");
    let talking = of(&talking);
    assert_eq!(
        (&talking["in"], &talking["out"], &talking["age"], &talking["kind"]),
        (&5.into(), &5.into(), &2.into(), &"Accepted".into())
    );
    assert!(talking.get("state").is_none() && talking.get("queued").is_none(), "{talking}");
    let own = row(&came[0], |row| row["protocol"] == "this page's feed");
    assert_eq!(own["kind"], "Accepted");
}

/// A crowd that has said a little, one of which has said much, one has begun a frame, and one is held.
fn crowd(dialogue: &mut Asked, size: usize) -> [String; 3] {
    let scene = dialogue.scene();
    scene.net().listen_with("127.0.0.1:9", Listen::new().backlog(2000), |_, _, _| Ok(Odd::<'x'>)).expect("a simulated port");
    let all: Vec<_> = (0..size).map(|_| scene.dials("127.0.0.1:9")).collect();
    let [held, amid, loud] = [all[size - 3], all[size - 2], all[size - 1]];
    scene.says(held, "hold").says(amid, "frames").says(amid, "x").says(loud, [b'x'; 5000]);
    for &peer in &all[..size - 3] {
        scene.says(peer, "hello, all of you");
    }
    [held, amid, loud].map(|who| scene.address(who).to_string())
}

#[test]
fn of_many_the_busiest_are_listed_and_all_are_counted() {
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    let busy = crowd(&mut dialogue, 700);
    watch(&mut dialogue);
    let came = events(&mut dialogue);
    assert_eq!(came[0]["rows"].as_array().map(Vec::len), Some(500));
    assert_eq!((&came[0]["held"], &came[0]["figures"]["connections"]), (&702.into(), &701.into()), "and a listener");
    for peer in busy {
        row(&came[0], |row| row["peer"] == *peer);
    }
    row(&came[0], |row| row["kind"] == "Listener" && row["peer"] == "127.0.0.1:9");
}

#[test]
fn who_does_not_read_is_left_out_and_goes_on_where_it_is() {
    let mut dialogue = Transcript::new(Http::new(inspect::site));
    crowd(&mut dialogue, 600);
    dialogue.peer_stops_reading();
    watch(&mut dialogue);
    dialogue.passes(20 * SECOND);
    let key = dialogue.key();
    let all = dialogue.scene().net().connections();
    let own = all.iter().find(|conn| conn.key == key).expect("it is still there");
    assert!(own.is_congested && own.queued < 300_000, "{}", own.queued);
    dialogue.peer_reads().passes(2 * SECOND);
    let ats: Vec<_> = events(&mut dialogue).iter().map(|event| event["at"].as_f64().expect("a number")).collect();
    assert!(ats.len() < 10 && ats.contains(&0.0) && ats.ends_with(&[21.0, 22.0]), "{ats:?}");
}

/// With real time: that of a simulated network passes between two turns, so nothing takes any.
#[test]
fn with_a_watchdog_the_longest_callback_is_named_and_waiting_is_measured() {
    let mut reactor = Reactor::with_config(Config::new().watchdog(60 * SECOND)).expect("a selector");
    let key =
        reactor.net().listen_with("127.0.0.1:0", Listen::new(), |_, _, _| Ok(Http::new(inspect::site))).expect("a free port");
    let at = reactor.net().local(key).and_then(Address::ip).expect("an IP listener");
    let mut client = TcpStream::connect(at).expect("it listens");
    client.set_nonblocking(true).expect("a socket");
    client.write_all(b"GET /inspect/events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it takes it");
    let (mut sent, began) = (Vec::new(), Instant::now());
    while !sent.ends_with(b"}\n\n") {
        assert!(began.elapsed() < 30 * SECOND, "{sent:?}");
        reactor.turn(&mut (), Duration::from_millis(5)).expect("the selector works");
        let mut some = [0; 4096];
        sent.extend(client.read(&mut some).map_or(&[][..], |n| &some[..n]));
    }
    let sent = String::from_utf8(sent).expect("text");
    let event: Value =
        serde_json::from_str(sent.lines().find_map(|line| line.strip_prefix("data: ")).expect("data")).expect("JSON");
    for name in ["waited_seconds_total", "longest_callback_seconds"] {
        assert!(event["figures"][name].as_f64().is_some_and(|seconds| seconds > 0.0), "{event}");
    }
    assert!(event["longest"][1].as_str().is_some_and(|name| ["factory", "connected", "frame"].contains(&name)), "{event}");
}
