//! The protocols of the examples `chat` and `timestamp`, unchanged, on a simulated network.
#![cfg(feature = "sim")]
// Each of the programs brings its own `common`.
#![allow(clippy::duplicate_mod)]

// Whole programs: of their `main` and of what belongs to it nothing is used here.
#[allow(dead_code)]
#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../examples/timestamp/server.rs"]
mod server;

use chat::{Guest, LINE_MAX, Room, bounds};
use mainspring::{
    Context, Key, Limit, Outcome, Protocol, Reason, Terminator,
    testing::{Actor, Host, Scene, Sim, Transcript, Weather, check, every_cut},
};
use server::{IDLE_MAX, Stamper};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

// -------------------------------------------------------------------------------------------------- chat, as a dialogue

#[test]
fn a_guest_says_its_name_first_and_leaves_with_quit() {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n");
    t.receives("an").sends("").receives("na\r\n").sends("Welcome, anna! /who tells who is here, /quit leaves.\n");
    t.receives("/who\n").sends("* here: anna\n");
    t.receives("is anybody here?\n").sends("");
    t.receives("/quit\nnot said any more\n").closes(Reason::is_clean);
    assert!(t.state().names.is_empty(), "her name is free");
}

#[test]
fn a_name_that_will_not_do_is_asked_for_again() {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n");
    t.receives(" \n").sends("A name has 1 to 32 characters. Your name?\n");
    t.receives("x".repeat(33) + "\n").sends("A name has 1 to 32 characters. Your name?\n");
    t.receives("x".repeat(LINE_MAX + 1) + "\n").sends("That was too long: 1024 bytes at most.\n");
    t.receives("anna\n").sends("Welcome, anna! /who tells who is here, /quit leaves.\n").stays_open();
}

#[test]
fn a_name_that_shows_as_another_one_is_refused_and_what_turns_a_line_around_is_shown() {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n");
    t.receives(b"\xff\xfe\n").sends("A name must be UTF-8, without invisible characters. Your name?\n");
    // Without width, turned around, between letters, joined, varied, tagged, blank, or a space of another kind.
    for hidden in
        "\u{200b}\u{ad}\u{34f}\u{61c}\u{180e}\u{200c}\u{200d}\u{202e}\u{2066}\u{3164}\u{115f}\u{fe0f}\u{feff}\u{fff9}\u{ffff}\
                   \u{e0041}\u{e0100}\u{a0}\u{2003}\u{3000}"
            .chars()
    {
        for name in [format!("ann{hidden}a"), format!("x{hidden}{hidden}y")] {
            t.receives(format!("{name}\n")).sends("A name must be UTF-8, without invisible characters. Your name?\n");
        }
    }
    // Of private use, or shown on what stands before the name alone.
    for unseen in ["\u{e000}", "anna\u{f0000}", "\u{307}", &"\u{301}".repeat(32), "\u{20dd}a", "\u{64b}", "\u{3099}"] {
        t.receives(format!("{unseen}\n")).sends("A name must be UTF-8, without invisible characters. Your name?\n");
    }
    for nothing in ["\u{2800}", "\u{2028}", "\u{a0}", "\u{85}"] {
        t.receives(format!("{nothing}\n")).sends("A name has 1 to 32 characters. Your name?\n");
    }
    for other in ["*", "<anna>", "anna> no\u{20}<bert", "/who"] {
        t.receives(format!("{other}\n")).sends("A name must have none of < > * in it, and no / in front. Your name?\n");
    }
    let mut scene = room();
    let [anna, bert] = ["anna", "bert"].map(|name| enters(&mut scene, name));
    scene.says(bert, "\u{202e}txt.exe\n").hears(anna, "* bert joined\n<bert> \u{fffd}txt.exe\n");
    scene.says(bert, "one\u{2028}<anna> no\n").hears(anna, "<bert> one <anna> no\n");
}

#[test]
fn a_line_has_a_minute_however_it_drips_or_flows_and_silence_has_all_day() {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n").passes(100 * 60 * SECOND).stays_open();
    for _ in 0..59 {
        t.receives("x").passes(SECOND);
    }
    t.stays_open().passes(SECOND).closes(|why| matches!(why, Reason::Limit(Limit::FrameTime)));

    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n");
    t.receives("x".repeat(2000)).sends("That was too long: 1024 bytes at most.\n");
    for _ in 0..59 {
        t.receives("x".repeat(2000)).passes(SECOND);
    }
    t.stays_open().passes(SECOND).closes(|why| matches!(why, Reason::Limit(Limit::Deadline)));

    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.receives("x".repeat(2000) + "\nanna\n").sent();
    t.passes(100 * 60 * SECOND).stays_open();
}

#[test]
fn half_a_line_at_the_end_is_not_a_name() {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    t.sends("Your name?\n").receives("ann").peer_ends().closes(Reason::is_clean);
    assert!(t.state().names.is_empty());
}

#[test]
fn every_cutting_of_a_visit_is_answered_alike() {
    every_cut::<Guest, Room>(b"\nanna\r\n/who\n\x07\xff\n/quit\n/who\n", || Guest);
}

// ---------------------------------------------------------------------------------------------- chat, with several peers

const AT: &str = "127.0.0.1:7001";

/// The room as the program has it: with its bounds.
fn room() -> Scene<Room> {
    let (config, options) = bounds();
    let mut scene = Scene::with_config(0, Room::default(), config);
    scene.net().listen_with(AT, options, |_, _, _| Ok(Guest)).expect("a simulated port is free");
    scene
}

fn enters(scene: &mut Scene<Room>, name: &str) -> Actor {
    let guest = scene.dials(AT);
    scene.says(guest, format!("{name}\n"));
    scene.hears(guest, format!("Your name?\nWelcome, {name}! /who tells who is here, /quit leaves.\n"));
    guest
}

#[test]
fn what_one_says_all_others_hear_and_a_name_is_free_again_however_its_owner_went() {
    let mut scene = room();
    let anna = enters(&mut scene, "anna");
    for leaves in [Scene::ends, Scene::resets] {
        let bert = enters(&mut scene, "bert");
        scene.hears(anna, "* bert joined\n");
        scene.says(anna, "one\ntwo\n").hears(bert, "<anna> one\n<anna> two\n");
        let other_bert = scene.dials(AT);
        scene.says(other_bert, "bert\n").hears(other_bert, "Your name?\nbert is here already. Your name?\n");
        scene.resets(other_bert).hears(anna, "");
        leaves(&mut scene, bert).hears(anna, "* bert left\n");
    }
    assert_eq!(scene.connections(), 1);
    assert_eq!(scene.state().names.values().collect::<Vec<_>>(), ["anna"]);
}

#[test]
fn who_does_not_read_is_let_go_and_the_others_miss_nothing() {
    let mut scene = room();
    let [anna, bert, deaf] = ["anna", "bert", "deaf"].map(|name| enters(&mut scene, name));
    scene.hears(anna, "* bert joined\n* deaf joined\n").hears(bert, "* deaf joined\n");
    scene.reads(deaf, false);
    let mut heard = Vec::new();
    // More than the socket of one who does not read and the cap of its queue hold together.
    let line = "x".repeat(1000);
    for _ in 0..1300 {
        scene.says(anna, format!("{line}\n"));
        heard.extend(scene.takes(bert));
    }
    let said = format!("<anna> {line}\n");
    assert_eq!(heard.len(), 1300 * said.len() + "* deaf left\n".len());
    let heard = String::from_utf8(heard).expect("text");
    assert_eq!(heard.matches(&said).count(), 1300);
    assert_eq!(heard.matches("* deaf left\n").count(), 1);
    scene.hears(anna, "* deaf left\n");
    assert_eq!(scene.connections(), 2);
    scene.reads(deaf, true).takes(deaf);
    scene.hears_end(deaf);
    enters(&mut scene, "deaf");
}

// ---------------------------------------------------------------------------------------------- chat, in rough weather

const ROOM: &str = "10.0.0.1:7001";
const NAMES: [&str; 4] = ["anna", "bert", "cleo", "dora"];

/// One who is in the room: says its name, and keeps what it hears.
struct Visitor {
    name: &'static str,
}

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    why_closed: Option<Reason>,
}

impl Protocol<Heard> for Visitor {
    fn connected(&mut self, ctx: &mut Context<'_, Heard>, _: &mut Heard) -> Outcome {
        ctx.set_terminator(Terminator::line(2 * LINE_MAX));
        writeln!(ctx, "{}", self.name);
        Ok(())
    }

    fn frame(&mut self, _: &mut Context<'_, Heard>, heard: &mut Heard, line: &[u8]) -> Outcome {
        heard.lines.push(String::from_utf8(line.to_vec())?);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Heard>, heard: &mut Heard, why: Reason) {
        assert!(heard.why_closed.replace(why).is_none(), "`closed` comes once");
    }
}

/// Somebody at home, with a line to the room.
#[derive(Clone, Copy)]
struct Home {
    host: Host<Heard>,
    key: Key,
    name: &'static str,
}

impl Home {
    fn new(sim: &mut Sim, number: usize, name: &'static str) -> Self {
        let host = sim.host(&format!("10.0.1.{number}"), Heard::default());
        let key = sim.net(host).connect(ROOM, Visitor { name });
        Self { host, key, name }
    }

    fn says(self, sim: &mut Sim, text: &str) {
        sim.net(self.host).send(self.key, format!("{text}\n"));
    }

    fn stayed(self, sim: &mut Sim) -> bool {
        sim.state(self.host).why_closed.is_none()
    }

    /// What was said by others than these, in order.
    fn heard_without(self, sim: &mut Sim, names: &[&str]) -> Vec<String> {
        let by = |line: &String, name: &str| line.starts_with(&format!("<{name}>"));
        let lines = sim.state(self.host).lines.iter().filter(|line| line.starts_with('<'));
        lines.filter(|line| !names.iter().any(|name| by(line, name))).cloned().collect()
    }
}

fn all_say(sim: &mut Sim, homes: &[Home], text: &str) {
    for home in homes {
        home.says(sim, text);
    }
}

/// All are in the room, and know it.
fn full_room(sim: &mut Sim) -> (Host<Room>, [Home; NAMES.len()]) {
    let (config, options) = bounds();
    let server = sim.host_with("10.0.0.1", Room::default(), config);
    sim.net(server).listen_with(ROOM, options, |_, _, _| Ok(Guest)).expect("a simulated port is free");
    let mut number = 0;
    let homes = NAMES.map(|name| {
        number += 1;
        Home::new(sim, number, name)
    });
    sim.run_for(SECOND);
    assert_eq!(sim.state(server).names.len(), NAMES.len());
    (server, homes)
}

/// What holds when the storm is over: whoever stayed has heard every line of those who stayed, once and in order; of those
/// who were lost the beginning; and all have heard the same in the same order.
fn assert_all_heard_all(sim: &mut Sim, homes: &[Home], lines: usize) {
    let (stayed, lost): (Vec<Home>, Vec<Home>) = homes.iter().partition(|home| home.stayed(sim));
    let all = |name: &str| (0..lines).map(|number| format!("<{name}> {number}")).collect::<Vec<_>>();
    for me in &stayed {
        let of = |sim: &mut Sim, name: &str| {
            let others: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
            me.heard_without(sim, &others)
        };
        for other in stayed.iter().filter(|other| other.name != me.name) {
            assert_eq!(of(sim, other.name), all(other.name), "{} heard {}", me.name, other.name);
        }
        assert!(of(sim, me.name).is_empty(), "nobody hears itself");
        for other in &lost {
            assert!(all(other.name).starts_with(&of(sim, other.name)), "{} heard {}", me.name, other.name);
        }
        for other in &stayed {
            let ours = [me.name, other.name];
            assert_eq!(me.heard_without(sim, &ours), other.heard_without(sim, &ours), "{ours:?} heard the same");
        }
    }
}

#[test]
fn who_stays_through_rough_weather_hears_every_line_once_and_in_order() {
    check(0..100, |sim| {
        let (server, homes) = full_room(sim);
        sim.set_weather(Weather::rough().resets(5));
        for number in 0..20 {
            for home in homes {
                home.says(sim, &number.to_string());
                if sim.random(4) == 0 {
                    let pause = Duration::from_millis(sim.random(300));
                    sim.run_for(pause);
                }
            }
        }
        sim.run_for(60 * SECOND);
        assert_all_heard_all(sim, &homes, 20);

        sim.set_weather(Weather::fair());
        all_say(sim, &homes, "/quit");
        sim.run_for(60 * SECOND);
        assert!(sim.state(server).names.is_empty(), "names are free again");
        assert_eq!(sim.sockets(server), 1, "the listener is left");
        for (number, home) in homes.iter().enumerate() {
            assert_eq!(sim.sockets(home.host), 0);
            Home::new(sim, 100 + number, home.name);
        }
        sim.run_for(SECOND);
        assert_eq!(sim.state(server).names.len(), NAMES.len(), "whoever comes back is let in");
    });
}

#[test]
fn a_partition_delays_what_is_said_and_loses_nothing() {
    check(0..30, |sim| {
        let (server, homes) = full_room(sim);
        sim.set_weather(Weather::rough().resets(0));
        for number in 0..10 {
            let cut_off = homes[sim.random(4) as usize].host;
            sim.part(server, cut_off);
            all_say(sim, &homes, &number.to_string());
            sim.run_for(3 * SECOND).join(server, cut_off);
        }
        sim.run_for(60 * SECOND);
        assert!(homes.iter().all(|home| home.stayed(sim)), "a partition resets nobody");
        assert_all_heard_all(sim, &homes, 10);
    });
}

#[test]
fn one_who_does_not_read_is_let_go_in_any_weather_and_the_others_hear_all() {
    check(0..5, |sim| {
        let (server, homes) = full_room(sim);
        let [.., deaf] = homes;
        sim.with(deaf.host, |net, _| net.link(deaf.key).expect("still there").pause());
        sim.set_weather(Weather::rough().resets(0));
        let long = "x".repeat(1000);
        // More than the window and the cap of the queue of one who does not read.
        for _ in 0..400 {
            all_say(sim, &homes, &long);
            sim.run_for(SECOND / 10);
        }
        sim.run_for(60 * SECOND);
        assert_eq!(sim.state(server).names.values().collect::<Vec<_>>(), NAMES[..3]);
        assert!(matches!(sim.state(deaf.host).why_closed, Some(Reason::Io(_))), "the room broke it off");
        for home in &homes[..3] {
            let lines = home.heard_without(sim, &[deaf.name]);
            assert_eq!(lines.len(), 2 * 400);
            assert!(lines.iter().all(|line| line.ends_with(&long)));
        }
    });
}

// ------------------------------------------------------------------------------------------ the chapter's bug, and its fix

/// The room of docs/testing.md: somebody who comes back under a name takes it over from a connection that may be dead.
mod takeover {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Members(BTreeMap<String, Key>);

    struct Guest {
        name: Option<String>,
        is_mended: bool,
    }

    impl Protocol<Members> for Guest {
        fn connected(&mut self, ctx: &mut Context<'_, Members>, _: &mut Members) -> Outcome {
            ctx.set_terminator(Terminator::line(LINE_MAX));
            Ok(())
        }

        fn frame(&mut self, ctx: &mut Context<'_, Members>, members: &mut Members, line: &[u8]) -> Outcome {
            let line = std::str::from_utf8(line)?;
            let Some(name) = &self.name else {
                self.name = Some(line.to_owned());
                if let Some(old) = members.0.insert(line.to_owned(), ctx.key) {
                    ctx.net.close(old);
                }
                return Ok(());
            };
            for &other in members.0.values().filter(|&&key| key != ctx.key) {
                ctx.net.send(other, format!("<{name}> {line}\n"));
            }
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Context<'_, Members>, members: &mut Members, _: Reason) {
            if self.is_mended {
                members.0.retain(|_, &mut key| key != ctx.key);
            } else if let Some(name) = &self.name {
                members.0.remove(name);
            }
        }
    }

    struct Member {
        name: &'static str,
    }

    impl Protocol for Member {
        fn connected(&mut self, ctx: &mut Context<'_>, _: &mut ()) -> Outcome {
            writeln!(ctx, "{}", self.name);
            ctx.every(SECOND, |_: &mut Self, ctx, _| {
                ctx.send("hello\n");
                Ok(())
            });
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_>, _: &mut (), _: &[u8]) -> Outcome {
            Ok(())
        }

        fn closed(&mut self, ctx: &mut Context<'_>, _: &mut (), _: Reason) {
            ctx.net.connect(ROOM, Member { name: self.name });
        }
    }

    fn after_the_storm_everybody_is_in_the_room(sim: &mut Sim, is_mended: bool) {
        let server = sim.host("10.0.0.1", Members::default());
        sim.net(server).listen(ROOM, move || Guest { name: None, is_mended }).expect("a simulated port is free");
        for (ip, name) in [("10.0.0.2", "anna"), ("10.0.0.3", "bert"), ("10.0.0.4", "cleo")] {
            let home = sim.host(ip, ());
            sim.net(home).connect(ROOM, Member { name });
        }
        sim.set_weather(Weather::fair().latency(SECOND / 100, SECOND / 2).resets(20));
        sim.run_for(30 * SECOND);
        sim.set_weather(Weather::fair());
        sim.run_for(10 * SECOND);
        let here: Vec<&String> = sim.state(server).0.keys().collect();
        assert_eq!(here, ["anna", "bert", "cleo"]);
    }

    #[test]
    fn the_chapters_bug_is_found_and_needs_few_faults() {
        let found = std::panic::catch_unwind(|| check(0..1000, |sim| after_the_storm_everybody_is_in_the_room(sim, false)));
        let report = *found.expect_err("a seed of a thousand finds it").downcast::<String>().expect("a text");
        assert!(report.contains("Reset towards"), "{report}");
        let left = report.split_once("of its").and_then(|(before, _)| before.lines().last()?.trim().parse::<u32>().ok());
        assert!(left.is_some_and(|left| left < 10), "{report}");
    }

    #[test]
    fn the_chapters_mend_holds() {
        check(0..200, |sim| after_the_storm_everybody_is_in_the_room(sim, true));
    }
}

// ------------------------------------------------------------------------------------------------------------ timestamp

/// Without what changes: `[Sat Nov 21 10:15:00 2026] `.
fn unstamped(bytes: &[u8]) -> &[u8] {
    assert_eq!((bytes.first(), bytes.get(25..27)), (Some(&b'['), Some(&b"] "[..])), "{}", bytes.escape_ascii());
    &bytes[27..]
}

#[test]
fn a_client_of_the_time_server_that_says_nothing_for_60_seconds_is_let_go() {
    let mut scene = Scene::new(0, ());
    scene.net().listen(AT, || Stamper { idle_max: IDLE_MAX }).expect("a simulated port is free");
    let client = scene.dials(AT);
    for _ in 0..60 {
        scene.passes(59 * SECOND).says(client, "hello\r\n");
        assert_eq!(unstamped(&scene.takes(client)), b"hello\n");
    }
    scene.passes(59 * SECOND);
    assert_eq!(scene.connections(), 1);
    scene.passes(SECOND).hears_end(client);
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_client_of_the_time_server_that_asks_and_does_not_read_is_let_go_too() {
    let mut t = Transcript::<Stamper>::new(Stamper { idle_max: IDLE_MAX });
    t.peer_stops_reading();
    // More than its window and the high mark hold: it is not read any more, or its questions would keep it awake.
    for _ in 0..60 {
        t.receives("x".repeat(4000) + "\n");
    }
    t.passes(59 * SECOND).stays_open();
    t.passes(SECOND).closes(|why| matches!(why, Reason::Limit(Limit::Stalled)));
}

#[test]
fn a_client_of_the_time_server_that_does_not_finish_a_line_is_let_go_however_it_drips_or_flows() {
    for (piece, limit) in [("x".to_owned(), Limit::FrameTime), ("x".repeat(5000), Limit::Deadline)] {
        let mut t = Transcript::<Stamper>::new(Stamper { idle_max: IDLE_MAX });
        for _ in 0..60 {
            t.stays_open().receives(&piece).passes(SECOND);
        }
        t.sent();
        t.closes(|why| matches!(why, Reason::Limit(reached) if *reached == limit));
    }
}

#[test]
fn the_time_server_answers_every_cutting_alike() {
    let lines = "hello\r\n\nworld\n".to_owned() + &"x".repeat(30);
    for cut in 1..lines.len() {
        let (a, b) = lines.split_at(cut);
        let mut scene = Scene::new(0, ());
        scene.net().listen(AT, || Stamper { idle_max: IDLE_MAX }).expect("a simulated port is free");
        let client = scene.dials(AT);
        scene.says(client, a).says(client, b).ends(client);
        let heard = scene.takes(client);
        let answers: Vec<&[u8]> = heard.split_inclusive(|&byte| byte == b'\n').map(unstamped).collect();
        assert_eq!(answers, [&b"hello\n"[..], b"\n", b"world\n"], "cut after {cut}");
    }
}
