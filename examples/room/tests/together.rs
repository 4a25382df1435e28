//! Several servers as one room: servers, their members and the broker are hosts of one simulation.

#[path = "common/broker.rs"]
mod broker;

use broker::Broker;
use mainspring::{
    Context, Outcome, Protocol, Reason, Terminator,
    testing::{Host, Sim, Weather, check},
};
use room::{
    App,
    history::{Origin, Store},
    lines::{Lines, bounds, config},
    nats::{Nats, Told},
    room::Holder,
    together,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
const NATS: &str = "10.0.0.1:4222";
const SERVERS: [&str; 3] = ["10.0.1.1:7001", "10.0.1.2:7001", "10.0.1.3:7001"];

// ------------------------------------------------------------------------------------------------------------- members

/// A member, who comes back whenever the server is lost.
struct Home {
    name: String,
    server: &'static str,
    /// Says something now and then.
    talks: bool,
    /// Never does, and has no timer for it.
    is_silent: bool,
    said: u32,
    heard: Vec<String>,
    comings: u32,
}

impl Home {
    fn new(name: &str, server: &'static str) -> Self {
        Self { name: name.into(), server, talks: false, is_silent: false, said: 0, heard: Vec::new(), comings: 0 }
    }
}

struct Member;

impl Protocol<Home> for Member {
    fn connected(&mut self, ctx: &mut Context<'_, Home>, _: &mut Home) -> Outcome {
        ctx.set_terminator(Terminator::line(100_000));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Home>, home: &mut Home, line: &[u8]) -> Outcome {
        let line = String::from_utf8_lossy(line).into_owned();
        if line == "Your name?" {
            writeln!(ctx, "{}", home.name);
        } else if line.ends_with("Your name?") {
            ctx.after(SECOND, |_: &mut Self, ctx, home| {
                writeln!(ctx, "{}", home.name);
                Ok(())
            });
        } else if line.starts_with("Welcome") {
            home.comings += 1;
            if !home.is_silent {
                ctx.every(Duration::from_millis(600), |_: &mut Self, ctx, home| {
                    if home.talks {
                        home.said += 1;
                        writeln!(ctx, "{} {}", home.name, home.said);
                    }
                    Ok(())
                });
            }
        }
        home.heard.push(line);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Home>, home: &mut Home, _: Reason) {
        home.heard.push("(gone)".into());
        let server = home.server;
        ctx.net.after(SECOND, move |net, _| _ = net.connect(server, Member));
    }
}

fn member(sim: &mut Sim, ip: &str, name: &str, server: usize) -> Host<Home> {
    let server = SERVERS[server];
    let home = sim.host(ip, Home::new(name, server));
    sim.net(home).connect(server, Member);
    home
}

fn types(sim: &mut Sim, home: Host<Home>, line: &str) {
    let line = format!("{line}\n");
    sim.net(home).post(move |net, _| {
        let key = net.connections()[0].key;
        net.send(key, line);
    });
}

fn heard(sim: &mut Sim, home: Host<Home>) -> Vec<String> {
    std::mem::take(&mut sim.state(home).heard)
}

/// The lines that were told as they were said, by who has said them: their numbers.
fn said(heard: &[String]) -> BTreeMap<String, Vec<u32>> {
    let mut said: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for line in heard.iter().filter_map(|line| line.strip_prefix('<')) {
        let (from, text) = line.split_once("> ").expect("a line has a name");
        let (name, number) = text.rsplit_once(' ').expect("a name and a number");
        assert!(from.starts_with(name), "{line}");
        said.entry(name.into()).or_default().push(number.parse().expect("a number"));
    }
    said
}

// ------------------------------------------------------------------------------------------------------------- servers

/// A database that goes with the test.
struct Database(PathBuf);

impl Database {
    fn new(origin: Origin) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Self(std::env::temp_dir().join(format!("room-together-{process}-{number}.db")));
        database.remove();
        drop(Store::open(&database.0).expect("a new database"));
        // By chance it would be another one in each run.
        let db = rusqlite::Connection::open(&database.0).expect("it is there");
        db.execute("update meta set value = ?1", [origin.to_string()]).expect("it is a database");
        database
    }

    fn remove(&self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(end);
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.remove();
    }
}

fn app(store: Store) -> App {
    let mut app = App::new(store, 1000).expect("a good database");
    app.clock = || 1_764_533_700_123;
    app
}

fn origin(server: usize) -> Origin {
    Origin(0x1111_1111_1111_1111 * (server as u64 + 1))
}

fn begins(sim: &mut Sim, host: Host<App>, server: usize) {
    sim.with(host, |net, app| {
        net.listen_with(SERVERS[server], bounds(1000), |_, _, _| Ok(Lines::default())).expect("a free port");
        together::start(net, app, NATS, None).expect("a good address");
    });
}

fn server(sim: &mut Sim, server: usize, store: Store) -> Host<App> {
    let ip = SERVERS[server].split(':').next().expect("an address");
    let host = sim.host_with(ip, app(store), config());
    begins(sim, host, server);
    host
}

fn broker(sim: &mut Sim) -> Host<Broker> {
    let broker = sim.host("10.0.0.1", Broker::default());
    Broker::listen(&mut sim.net(broker), NATS).expect("a free port");
    broker
}

/// As if its process had been killed: nothing is said any more.
fn kill(sim: &mut Sim, host: Host<App>) {
    sim.shutdown(host);
    *sim.state(host) = app(Store::in_memory(Origin(1)));
}

/// Three servers with members each, who have met.
fn three(sim: &mut Sim, stores: [Store; 3]) -> (Host<Broker>, [Host<App>; 3], Vec<Host<Home>>) {
    let broker = broker(sim);
    let mut number = 0;
    let servers = stores.map(|store| {
        number += 1;
        server(sim, number - 1, store)
    });
    let names = ["ann", "anton", "bob", "berta", "carl", "cleo"];
    let members = names.iter().enumerate().map(|(i, name)| member(sim, &format!("10.0.2.{}", i + 1), name, i / 2)).collect();
    sim.run_for(5 * SECOND);
    (broker, servers, members)
}

fn memory() -> [Store; 3] {
    [0, 1, 2].map(|server| Store::in_memory(origin(server)))
}

const ALONE: &str = "* NATS is away: only people on this server hear you";

const ALL: &str = "* here: ann, anton, berta, bob, carl, cleo";

// --------------------------------------------------------------------------------------------------------------- tests

#[test]
fn every_confirmed_line_reaches_all_who_stayed_once_and_in_order() {
    check(0..8, |sim| {
        let database = Database::new(origin(1));
        let stores = [Store::in_memory(origin(0)), Store::open(&database.0).expect("it is free"), Store::in_memory(origin(2))];
        let (broker, servers, members) = three(sim, stores);
        for &home in &members {
            assert_eq!(sim.state(home).comings, 1);
            sim.state(home).talks = true;
        }
        sim.set_weather(Weather::fair().latency(Duration::from_millis(1), Duration::from_millis(100)).work(SECOND / 5));
        sim.state(broker).lost = 50;
        for round in 0..2 {
            let pause = Duration::from_millis(3000 + sim.random(3000));
            sim.run_for(pause);
            kill(sim, servers[1]);
            let pause = Duration::from_millis(5000 + sim.random(10_000));
            sim.run_for(pause);
            *sim.state(servers[1]) = app(Store::open(&database.0).expect("it is free again"));
            begins(sim, servers[1], 1);
            let pause = Duration::from_millis(1000 + sim.random(3000));
            sim.run_for(pause);
            sim.shutdown(broker);
            sim.run_for((2 + 10 * round) * SECOND);
            Broker::listen(&mut sim.net(broker), NATS).expect("it is free again");
        }
        sim.run_for(10 * SECOND);
        for &home in &members {
            sim.state(home).talks = false;
        }
        sim.run_for(SECOND);
        sim.state(broker).lost = 0;
        sim.run_for(30 * SECOND);
        for &home in &members {
            types(sim, home, "/who");
        }
        sim.run_for(SECOND);

        let logs: Vec<Vec<String>> = members.iter().map(|&home| heard(sim, home)).collect();
        let mut confirmed: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (log, &home) in logs.iter().zip(&members) {
            let name = sim.state(home).name.clone();
            let own = said(log).remove(&name).unwrap_or_default();
            assert!(own.len() > 20, "{name} was heard");
            confirmed.insert(name, own);
        }
        for (i, log) in logs.iter().enumerate() {
            assert_eq!(log.last().map(String::as_str), Some(ALL));
            if [2, 3].contains(&i) {
                assert!(log.contains(&"(gone)".into()), "theirs is the server that was killed");
                continue;
            }
            assert_eq!(sim.state(members[i]).comings, 1, "the others have stayed");
            for (name, heard) in said(log) {
                assert!(heard.is_sorted_by(|a, b| a < b), "{name}, as {} hears it: {heard:?}", sim.state(members[i]).name);
                let missing: Vec<&u32> = confirmed[&name].iter().filter(|number| !heard.contains(number)).collect();
                assert!(missing.is_empty(), "{} has not heard {missing:?} of {name}", sim.state(members[i]).name);
            }
            assert_eq!(said(log).len(), 6);
        }
    });
}

#[test]
fn who_comes_later_is_told_what_was_said_on_other_servers() {
    let mut sim = Sim::new(1);
    let (_, servers, members) = three(&mut sim, memory());
    sim.state(servers[1]).clock = || 1_764_533_760_000;
    sim.state(servers[2]).clock = || 1_764_533_820_000;
    types(&mut sim, members[0], "ann 1");
    sim.run_for(SECOND);
    assert_eq!(heard(&mut sim, members[2]).last().map(String::as_str), Some("<ann> ann 1"));
    let told = heard(&mut sim, members[4]);
    assert_eq!(told.last().map(String::as_str), Some("2025-11-30 20:15 <ann> ann 1"), "it was said a while ago");
    let late = member(&mut sim, "10.0.3.1", "dora", 2);
    sim.run_for(SECOND);
    let heard = heard(&mut sim, late);
    assert_eq!(heard[heard.len() - 2..], ["2025-11-30 20:15 <ann> ann 1", "* here: ann, anton, berta, bob, carl, cleo, dora"]);
}

#[test]
fn without_nats_each_goes_on_by_itself_and_afterwards_they_catch_up() {
    check(0..50, |sim| {
        let (broker, _, members) = three(sim, memory());
        sim.set_weather(Weather::fair().latency(Duration::from_millis(1), Duration::from_millis(20)));
        members.iter().for_each(|&home| drop(heard(sim, home)));
        sim.shutdown(broker);
        sim.run_for(SECOND);
        for i in 1..=3 {
            types(sim, members[0], &format!("ann {i}"));
            types(sim, members[4], &format!("carl {i}"));
            sim.run_for(2 * SECOND);
        }
        let told = heard(sim, members[1]);
        assert_eq!(told[0], ALONE);
        assert_eq!(told[1..], ["<ann> ann 1", "<ann> ann 2", "<ann> ann 3"]);
        let late = member(sim, "10.0.3.1", "dora", 1);
        sim.run_for(SECOND);
        assert_eq!(heard(sim, late).last().map(String::as_str), Some(ALONE), "who comes now is told too");
        sim.run_for(20 * SECOND);
        let told = heard(sim, members[1]);
        assert_eq!(told, ["* berta left", "* bob left", "* carl left", "* cleo left"]);
        Broker::listen(&mut sim.net(broker), NATS).expect("it is free again");
        sim.run_for(20 * SECOND);
        let mut told = heard(sim, members[1]);
        assert_eq!(told[0], "* NATS is back: you are one room with the other servers again");
        assert_eq!(said(&told), BTreeMap::from([("carl".into(), vec![1, 2, 3])]));
        told.sort();
        assert_eq!(told[1..6], ["* berta joined", "* bob joined", "* carl joined", "* cleo joined", "* dora joined"]);
        assert_eq!(told.len(), 9);
    });
}

#[test]
fn of_two_who_are_called_alike_one_gets_another_name() {
    check(0..50, |sim| {
        let broker = sim.host("10.0.0.1", Broker::default());
        let servers = [0, 1, 2].map(|number| server(sim, number, Store::in_memory(origin(number))));
        let members = [0, 1, 2].map(|number| member(sim, &format!("10.0.2.{number}"), "ann", number));
        sim.set_weather(Weather::fair().latency(Duration::from_millis(1), Duration::from_millis(20)));
        sim.run_for(5 * SECOND);
        Broker::listen(&mut sim.net(broker), NATS).expect("a free port");
        sim.run_for(30 * SECOND);
        for home in members {
            types(sim, home, "/who");
        }
        sim.run_for(SECOND);
        let told = members.map(|home| heard(sim, home));
        let who = told[0].last().expect("the list").clone();
        let names: Vec<&str> = who.strip_prefix("* here: ").expect("a list").split(", ").collect();
        assert!(names.len() == 3 && names[0] == "ann" && names[1..].iter().all(|name| name.starts_with("ann_")), "{who}");
        for (i, told) in told.iter().enumerate() {
            assert_eq!(told.last(), Some(&who), "all see the same");
            let is_told =
                told.iter().any(|line| line.starts_with("* somebody on another server is called ann too: you are ann_"));
            assert_eq!(is_told, i > 0, "the lowest origin's keeps it: {told:?}");
        }
        // And afterwards nobody can take what somebody elsewhere has.
        types(sim, members[2], "/nick ann");
        sim.run_for(SECOND);
        assert_eq!(heard(sim, members[2]), ["* ann is here already."]);
        // Who gives a name up makes it free everywhere.
        types(sim, members[0], "/nick dora");
        sim.run_for(SECOND);
        types(sim, members[2], "/nick ann");
        sim.run_for(SECOND);
        let told = heard(sim, members[1]);
        assert_eq!(told[0], "* ann is now dora");
        assert!(told[1].ends_with("is now ann") && told.len() == 2, "{told:?}");
        kill(sim, servers[2]);
        sim.run_for(15 * SECOND);
        assert_eq!(heard(sim, members[0]).last().map(String::as_str), Some("* ann left"));
    });
}

#[test]
fn a_name_that_is_free_here_goes_to_who_has_it_elsewhere() {
    let mut sim = Sim::new(1);
    let broker = broker(&mut sim);
    let lower = server(&mut sim, 0, Store::in_memory(origin(0)));
    sim.run_for(SECOND); // so that they say in turns how far they are
    server(&mut sim, 1, Store::in_memory(origin(1)));
    sim.run_for(9 * SECOND + SECOND / 10);
    sim.state(broker).lost_to = Some("room.all");
    let members = [0, 1].map(|number| member(&mut sim, &format!("10.0.2.{number}"), "ann", number));
    sim.run_for(SECOND / 2);
    sim.state(broker).lost_to = None;
    sim.run_for(SECOND);
    // The lower one knows of both by now, and the other one does not.
    assert!(matches!(sim.state(lower).room.holder("ann"), Some(Holder::Here(_))));
    types(&mut sim, members[0], "/quit");
    sim.run_for(SECOND / 10);
    assert_eq!(sim.state(lower).room.holder("ann"), Some(Holder::Elsewhere(origin(1))));
    sim.run_for(SECOND * 5);
    let told = heard(&mut sim, members[0]);
    assert_eq!(told.last().map(String::as_str), Some("ann is here already. Your name?"));
}

#[test]
fn what_is_said_to_one_alone_reaches_him_on_his_server_or_the_sender_is_told() {
    let mut sim = Sim::new(1);
    let (broker, servers, members) = three(&mut sim, memory());
    members.iter().for_each(|&home| drop(heard(&mut sim, home)));
    types(&mut sim, members[0], "/msg carl psst");
    sim.run_for(10 * SECOND);
    assert_eq!(heard(&mut sim, members[0]), ["[you to carl] psst"]);
    assert_eq!(heard(&mut sim, members[4]), ["[ann to you] psst"]);
    assert!(heard(&mut sim, members[5]).is_empty() && heard(&mut sim, members[2]).is_empty());

    // It vanishes without a word.
    sim.part(servers[2], broker);
    types(&mut sim, members[0], "/msg carl psst?");
    sim.run_for(6 * SECOND);
    assert_eq!(heard(&mut sim, members[0]), ["[you to carl] psst?", "* carl may not have heard you: there was no answer"]);
    sim.run_for(4 * SECOND);
    types(&mut sim, members[0], "/msg carl psst!");
    sim.run_for(SECOND);
    let told = heard(&mut sim, members[0]);
    assert_eq!(told, ["* carl left", "* cleo left", "* nobody is called carl here, or there is no text"]);

    // He goes while it is on its way; and NATS is away.
    sim.set_weather(Weather::fair().latency(SECOND / 2, Duration::ZERO));
    types(&mut sim, members[2], "/nick bert");
    types(&mut sim, members[0], "/msg bob psst");
    sim.run_for(5 * SECOND);
    let told = heard(&mut sim, members[0]);
    assert!(told.contains(&"* bob has not heard you: nobody has that name any more".into()), "{told:?}");
    sim.shutdown(broker);
    types(&mut sim, members[0], "/msg bert psst");
    sim.run_for(SECOND * 2);
    let told = heard(&mut sim, members[0]);
    assert!(told.contains(&"* bert cannot hear you now: the connection to the other servers is bad".into()), "{told:?}");
}

#[test]
fn two_servers_with_copies_of_one_database_are_told_so() {
    let mut sim = Sim::new(1);
    broker(&mut sim);
    for number in [0, 1] {
        server(&mut sim, number, Store::in_memory(origin(0)));
    }
    let members = [0, 1].map(|number| member(&mut sim, &format!("10.0.2.{number}"), ["ann", "bob"][number], number));
    sim.run_for(10 * SECOND);
    for (i, home) in members.into_iter().enumerate() {
        types(&mut sim, home, ["ann 1", "bob 1"][i]);
        sim.run_for(SECOND);
        let told = heard(&mut sim, home);
        let twin = |line: &&String| line.starts_with("* another server has a copy of this server's database");
        assert_eq!(told.iter().filter(twin).count(), 1, "{told:?}");
        assert_eq!(said(&told).len(), 1, "the other's lines would be numbered alike");
    }
}

/// Whom the room is said to have had all along, by what was told.
fn there(heard: &[String]) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for line in heard.iter().filter_map(|line| line.strip_prefix("* ")) {
        if let Some(name) = line.strip_suffix(" joined") {
            assert!(there.insert(name.to_owned()), "{name} is there already");
        } else if let Some(name) = line.strip_suffix(" left") {
            assert!(there.remove(name), "{name} was not there");
        } else if let Some((from, to)) = line.split_once(" is now ") {
            assert!(there.remove(from) && there.insert(to.to_owned()), "{line}");
        }
    }
    there
}

/// The last who came has this name now.
fn renames(sim: &mut Sim, crowd: Host<Home>, number: usize, name: &str) {
    let line = format!("/nick {name}\n");
    sim.net(crowd).post(move |net, _| {
        let key = net.connections()[number].key;
        net.send(key, line);
    });
}

/// A server with a crowd, and the members that another one would list, which has one of its own.
fn crowded(sim: &mut Sim, members: usize) -> (Host<Broker>, Host<App>, Host<Home>) {
    let broker = broker(sim);
    let full = server(sim, 0, Store::in_memory(origin(0)));
    let crowd = sim.host("10.0.2.1", Home { is_silent: true, ..Home::new("", SERVERS[0]) });
    for number in 0..members {
        sim.net(crowd).post(move |net, home: &mut Home| {
            home.name = format!("member {number}");
            net.connect(SERVERS[0], Member);
        });
        sim.run_for(SECOND / 100);
    }
    (broker, full, crowd)
}

fn who(sim: &mut Sim, host: Host<App>) -> String {
    format!("{:?}", sim.state(host).room.who("lobby"))
}

#[test]
fn many_members_are_listed_in_pieces_whatever_is_lost_and_changes_meanwhile() {
    const MEMBERS: usize = 220;
    check(0..2, |sim| {
        let (broker, full, crowd) = crowded(sim, MEMBERS);
        sim.set_weather(Weather::fair().latency(SECOND / 5, SECOND / 5)); // so that the list takes its time
        sim.state(broker).lost = 200;
        let other = server(sim, 1, Store::in_memory(origin(1)));
        let ann = member(sim, "10.0.3.1", "ann", 1);
        for number in 0..60 {
            renames(sim, crowd, number * 17 % MEMBERS, &format!("{} {number}", ["a", "m", "z"][number % 3]));
            sim.run_for(SECOND / 20);
        }
        sim.run_for(10 * SECOND);
        sim.state(broker).lost = 0;
        sim.run_for(10 * SECOND);
        assert_eq!(sim.state(full).room.len(), MEMBERS);
        assert_eq!(sim.state(other).room.channels()["lobby"], MEMBERS + 1);
        assert_eq!(who(sim, other), who(sim, full));
        assert_eq!(sim.state(ann).comings, 1);
        let told = heard(sim, ann);
        assert_eq!(there(&told).len(), MEMBERS);
        sim.shutdown(crowd);
        kill(sim, full);
        sim.run_for(30 * SECOND);
        assert!(there(&[told, heard(sim, ann)].concat()).is_empty());
        assert_eq!(sim.state(other).room.channels()["lobby"], 1);
    });
}

#[test]
fn a_change_that_is_lost_is_noticed_by_the_next_one_and_in_the_midst_of_the_list() {
    let mut sim = Sim::new(1);
    let (broker, full, crowd) = crowded(&mut sim, 220);
    sim.set_weather(Weather::fair().latency(SECOND / 5, Duration::ZERO));
    let other = server(&mut sim, 1, Store::in_memory(origin(1)));
    let is_begun = sim.run_until(10 * SECOND, |sim| sim.state(other).room.channels()["lobby"] > 50);
    assert!(is_begun && sim.state(other).room.channels()["lobby"] < 150, "it has one of three parts");
    let loses = |sim: &mut Sim, name: &str| {
        sim.state(broker).lost_to = Some("room.all");
        renames(sim, crowd, 0, name);
        sim.run_for(SECOND);
        sim.state(broker).lost_to = None;
    };
    loses(&mut sim, "a 1");
    sim.run_for(8 * SECOND);
    assert_eq!(who(&mut sim, other), who(&mut sim, full));
    loses(&mut sim, "a 2");
    renames(&mut sim, crowd, 1, "b 1"); // before anybody has said how far it is
    sim.run_for(8 * SECOND);
    assert_eq!(who(&mut sim, other), who(&mut sim, full));
    loses(&mut sim, "a 3");
    sim.run_for(8 * SECOND);
    assert_eq!(who(&mut sim, other), who(&mut sim, full));
}

/// As whom somebody else at the same NATS server passes himself off.
const STRANGE: Origin = Origin(u64::MAX);

struct Stranger {
    nats: Nats<Stranger>,
    heard: Vec<String>,
}

const STRANGER: Told<Stranger> = Told {
    find: |stranger| &mut stranger.nats,
    connected: |_, _| {},
    away: |_, _, why| panic!("{why}"),
    message: |_, stranger, message| stranger.heard.push(String::from_utf8_lossy(message.payload).into_owned()),
};

#[test]
fn nonsense_of_others_at_the_same_nats_server_does_no_harm() {
    let mut sim = Sim::new(1);
    let (_, servers, members) = three(&mut sim, memory());
    let nats = Nats::new(NATS, None, "a stranger", STRANGER).expect("an address");
    let stranger = sim.host("10.0.9.9", Stranger { nats, heard: Vec::new() });
    sim.with(stranger, |net, stranger| {
        stranger.nats.subscribe(net, "room.>");
        stranger.nats.start(net);
    });
    sim.run_for(SECOND);
    let huge = u64::MAX;
    let line = |n: u64, after: u64, channel: &str, from: &str, text: &str| {
        let (origin, does, at) = (STRANGE, false, i64::MIN);
        let line = json!({ "origin": origin, "n": n, "channel": channel, "from": from, "text": text, "does": does, "at": at });
        json!({ "line": { "after": after, "line": line } }).to_string()
    };
    let words = vec![
        r#"{"here":{"last":3,"first":1,"version":5}}"#.to_owned(),
        format!(r#"{{"here":{{"last":{huge},"first":1,"version":5}}}}"#),
        format!(r#"{{"here":{{"last":1,"first":{huge},"version":{huge}}}}}"#),
        r#"{"here":{"last":-1,"first":1,"version":5}}"#.to_owned(),
        r#"{"here":{"last":3,"first":1,"version":5}}"#.to_owned(),
        line(1, 0, "lobby", "eve", "a\u{1b}[2J"),
        line(2, 1, "lobby", "e\nve", "b"),
        line(3, 2, "LOBBY", "eve", "c"),
        line(4, 3, "lobby", "eve", "fine"),
        line(4, 3, "lobby", "eve", "twice"),
        line(huge, 4, "lobby", "eve", "d"),
        line(3, 9, "lobby", "eve", "e"),
        r#"{"want_lines":{"after":18446744073709551615}}"#.to_owned(),
        r#"{"want_members":{"after":"zzz"}}"#.to_owned(),
        format!(r#"{{"came":{{"version":{huge},"name":"eve","channel":"lobby"}}}}"#),
        r#"{"members":{"version":9,"after":"","to":"a","members":[["ann","lobby"],["e\u0007ve","lobby"],["eva","x y"]]}}"#
            .to_owned(),
        r#"{"members":{"version":9,"after":"a","to":"a","members":[]}}"#.to_owned(),
        r#"{"members":{"version":9,"after":"a","to":null,"members":[["eve","lobby"],["e\u0007ve","lobby"],["eva","x y"]]}}"#
            .to_owned(),
        format!(r#"{{"went":{{"version":{huge},"name":"ann"}}}}"#),
        r#"{"renamed":{"version":10,"from":"nobody","to":"ann"}}"#.to_owned(),
        r#"{"private":{"id":1,"from":"eve","to":"ann","text":"a\nb","at":0}}"#.to_owned(),
        r#"{"private":{"id":1,"from":"e*ve","to":"ann","text":"b","at":0}}"#.to_owned(),
        r#"{"answer":{"id":1,"is_told":true}}"#.to_owned(),
        r#"{"unknown":{}}"#.to_owned(),
        "[".repeat(60_000),
        String::new(),
    ];
    let says = |sim: &mut Sim, from: Origin, word: String| {
        for to in [format!("room.to.{}", origin(0)), "room.all".into(), "room.to.7".into()] {
            let letter = format!(r#"{{"from":"{from}","word":{word}}}"#);
            sim.with(stranger, |net, stranger| assert!(stranger.nats.publish(net, &to, None, letter)));
        }
        sim.run_for(SECOND / 100);
    };
    for word in words {
        says(&mut sim, STRANGE, word);
    }
    // What was sound of it was believed; nothing else was shown to anybody.
    assert!(matches!(sim.state(servers[0]).room.holder("eve"), Some(Holder::Elsewhere(STRANGE))));
    let (names, _) = sim.state(servers[0]).room.who("lobby");
    assert_eq!(names, ["ann", "anton", "berta", "bob", "carl", "cleo", "eve"]);
    // More servers than there can be.
    for i in 0..2000 {
        says(&mut sim, Origin(1000 + i), format!(r#"{{"here":{{"last":{i},"first":1,"version":5}}}}"#));
    }
    sim.with(stranger, |net, stranger| assert!(stranger.nats.publish(net, "room.all", None, [0xff; 300])));
    sim.run_for(20 * SECOND);
    for &home in &members {
        let told = heard(&mut sim, home);
        assert!(!told.iter().any(|line| line.contains(char::is_control) || line.starts_with("[e") || line == "b"), "{told:?}");
    }
    for (i, &home) in members.iter().enumerate() {
        types(&mut sim, home, &format!("{} 1", ["ann", "anton", "bob", "berta", "carl", "cleo"][i]));
    }
    sim.run_for(SECOND);
    for &home in &members {
        types(&mut sim, home, "/who");
    }
    sim.run_for(SECOND);
    for &home in &members {
        let told = heard(&mut sim, home);
        assert_eq!((said(&told).len(), told.len()), (6, 7), "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some(ALL));
    }
    let late = member(&mut sim, "10.0.3.1", "dora", 0);
    sim.run_for(SECOND);
    let history: Vec<String> = heard(&mut sim, late).into_iter().filter(|line| line.contains("<eve>")).collect();
    assert!(history.len() == 1 && history[0].ends_with("<eve> fine"), "{history:?}");
    assert!(sim.state(servers[0]).room.channels().len() == 1);
}
