//! The room over lines, as dialogues.

mod support;

use mainspring::{
    Limit, Reason,
    testing::{Actor, Scene, Transcript, Weather, every_cut_with},
};
use room::{
    App,
    history::{Origin, Store, with_store},
    lines::Lines,
    room::{HELP, LINE_MAX, NAME_MAX},
};
use std::time::Duration;
use support::{LINES, app, app_of, scene};

const SECOND: Duration = Duration::from_secs(1);

fn transcript() -> Transcript<Lines, App> {
    Transcript::with_state(Lines::default(), app())
}

fn enters(scene: &mut Scene<App>, name: &str) -> Actor {
    let guest = scene.dials(LINES);
    scene.says(guest, format!("{name}\n"));
    let heard = String::from_utf8(scene.takes(guest)).expect("text");
    assert!(heard.starts_with(&format!("Your name?\nWelcome, {name}! You are in lobby. /help lists the commands.\n")), "{heard}");
    guest
}

#[test]
fn a_member_says_its_name_hears_what_it_says_and_leaves_with_quit() {
    let mut t = transcript();
    t.sends("Your name?\n");
    t.receives("an").sends("").receives("na\r\n");
    t.sends("Welcome, anna! You are in lobby. /help lists the commands.\n* here: anna\n");
    t.receives("is anybody here?\n").sends("<anna> is anybody here?\n");
    t.receives("/me waits\n//who\n   \n").sends("~ anna waits\n<anna> /who\n");
    t.receives("/nick Anna K\n").sends("* anna is now Anna K\n");
    t.receives("/who\n/who nowhere\n").sends("* here: Anna K\n* in nowhere: nobody\n");
    t.receives("/quit\nnot said any more\n").closes(Reason::is_clean);
    assert!(t.state().room.is_empty(), "her name is free");
}

#[test]
fn who_ends_its_side_hears_what_comes_of_all_that_it_has_said() {
    for end in ["/quit\n", ""] {
        let mut t = transcript();
        t.receives(format!("anna\nhello\n/who\n{end}")).peer_ends();
        t.sends(
            "Your name?\nWelcome, anna! You are in lobby. /help lists the commands.\n* here: anna\n<anna> hello\n* here: anna\n",
        );
        t.closes(Reason::is_clean);
    }
}

#[test]
fn a_name_that_will_not_do_is_asked_for_again() {
    let mut t = transcript();
    t.sends("Your name?\n");
    for nothing in ["\n", " \n", "\u{2028}\n", &("x".repeat(NAME_MAX + 1) + "\n")] {
        t.receives(nothing).sends("A name has 1 to 32 characters. Your name?\n");
    }
    t.receives("x".repeat(LINE_MAX + 1) + "\n").sends("* not said: a line has 1024 bytes at most\n");
    for hidden in ["\u{200b}", "\u{ad}", "\u{202e}", "\u{3164}", "\u{ffff}", "\u{e0041}", "\u{a0}"] {
        t.receives(format!("ann{hidden}a\n")).sends("A name must be UTF-8, without invisible characters. Your name?\n");
    }
    t.receives(b"\xc3\x28\n").sends("A name must be UTF-8, without invisible characters. Your name?\n");
    t.receives("\u{301}\n").sends("A name must be UTF-8, without invisible characters. Your name?\n");
    for other in ["*", "<anna>", "anna> no\u{20}<bert", "/who"] {
        t.receives(format!("{other}\n")).sends("A name must have none of < > * in it, and no / in front. Your name?\n");
    }
    t.receives("an\x1b[2Jna\n").sends("Welcome, an [2Jna! You are in lobby. /help lists the commands.\n* here: an [2Jna\n");
}

#[test]
fn what_is_no_command_is_told_and_what_is_missing() {
    let mut t = transcript();
    t.receives("anna\n").sent();
    t.receives("/x\n").sends("* there is no command /x: /help lists the commands\n");
    t.receives("/\n").sends("* there is no command /: /help lists the commands\n");
    t.receives("/me\n/nick \n").sends("* something is missing: /me DOES\n* something is missing: /nick NAME\n");
    t.receives("/join\n/msg\n").sends("* something is missing: /join CHANNEL\n* something is missing: /msg NAME TEXT\n");
    t.passes(10 * SECOND).receives("/nick anna\n/nick <x>\n");
    t.sends("* you are anna\n* A name must have none of < > * in it, and no / in front.\n");
    t.receives("/join no no\n/join lobby\n");
    t.sends("* a channel has 1 to 32 of the characters a-z 0-9 - _\n* you are in lobby\n");
    t.receives("/msg bert hi\n/channels\n").sends("* nobody is called bert here, or there is no text\n* channels: lobby (1)\n");
    t.passes(10 * SECOND).receives("/help\n").sends(HELP.map(|line| format!("* {line}\n")).concat());
}

#[test]
fn ten_lines_at_once_and_then_two_a_second() {
    let mut t = transcript();
    t.receives("anna\n").sent();
    let too_much = "* not said: too many lines at once, wait a moment\n";
    for number in 0..10 {
        t.receives(format!("{number}\n")).sends(format!("<anna> {number}\n"));
    }
    t.receives("10\n").sends(too_much);
    for number in 0..3 {
        t.passes(SECOND / 2).receives(format!("{number}\n")).sends(format!("<anna> {number}\n"));
        t.receives("too much\n").sends(too_much);
    }
    t.passes(60 * SECOND);
    for number in 0..10 {
        t.receives(format!("{number}\n")).sends(format!("<anna> {number}\n"));
    }
    t.receives("10\n").sends(too_much).receives("/quit\n").closes(Reason::is_clean);
}

#[test]
fn a_line_has_a_minute_however_it_drips_or_flows_and_silence_has_all_day() {
    let mut t = transcript();
    t.sends("Your name?\n").passes(100 * 60 * SECOND).stays_open();
    for _ in 0..59 {
        t.receives("x").passes(SECOND);
    }
    t.stays_open().passes(SECOND).closes(|why| matches!(why, Reason::Limit(Limit::FrameTime)));

    let mut t = transcript();
    t.sent();
    t.receives("x".repeat(2000)).sends("* not said: a line has 1024 bytes at most\n");
    for _ in 0..59 {
        t.receives("x".repeat(2000)).passes(SECOND);
    }
    t.stays_open().passes(SECOND).closes(|why| matches!(why, Reason::Limit(Limit::Deadline)));
}

#[test]
fn every_cutting_of_a_visit_is_answered_alike() {
    let visit = b"\nanna\r\nhello\n\xff\xfd\x01/who\n\x07\xff\n/nick ann\n/msg ann me\n/quit\n/who\n";
    every_cut_with::<Lines, App>(visit, || (Lines::default(), app()));
    every_cut_with::<Lines, App>(b"a\none\n/join x\ntwo\n/who\n", || (Lines::default(), app()));
}

#[test]
fn what_one_says_all_hear_and_a_name_is_free_again_however_its_owner_went() {
    let mut scene = scene(app());
    let anna = enters(&mut scene, "anna");
    for leaves in [Scene::ends, Scene::resets] {
        let bert = enters(&mut scene, "bert");
        scene.hears(anna, "* bert joined\n");
        scene.says(anna, "one\ntwo\n").hears(bert, "<anna> one\n<anna> two\n").hears(anna, "<anna> one\n<anna> two\n");
        let other_bert = scene.dials(LINES);
        scene.says(other_bert, "bert\n").hears(other_bert, "Your name?\nbert is here already. Your name?\n");
        scene.resets(other_bert).hears(anna, "");
        leaves(&mut scene, bert).hears(anna, "* bert left\n");
        scene.passes(10 * SECOND);
    }
    assert_eq!(scene.state().room.len(), 1);
    scene.says(anna, "one\u{2028}<bert> no\u{202e}\n").hears(anna, "<anna> one <bert> no\u{fffd}\n");
}

#[test]
fn what_was_said_last_is_told_on_joining_a_hundred_lines_of_it() {
    let mut scene = scene(app());
    let anna = enters(&mut scene, "anna");
    for number in 0..120 {
        scene.says(anna, format!("{number}\n")).passes(SECOND);
    }
    scene.says(anna, "/me sings\n").takes(anna);
    let bert = scene.dials(LINES);
    scene.says(bert, "bert\n");
    let heard = String::from_utf8(scene.takes(bert)).expect("text");
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 103, "{heard}");
    assert_eq!(lines[2], "2026-11-30 20:15 <anna> 21");
    assert_eq!(lines[101..], ["2026-11-30 20:15 ~ anna sings", "* here: anna, bert"]);
}

#[test]
fn each_channel_is_heard_by_those_who_are_in_it() {
    let mut scene = scene(app());
    let [anna, bert] = ["anna", "bert"].map(|name| enters(&mut scene, name));
    scene.hears(anna, "* bert joined\n");
    scene.says(anna, "/join #Attic\n").hears(anna, "* you are in attic\n* here: anna\n").hears(bert, "* anna left\n");
    scene.says(bert, "in the lobby\n").hears(bert, "<bert> in the lobby\n").hears(anna, "");
    scene.says(anna, "in the attic\n").hears(anna, "<anna> in the attic\n").hears(bert, "");
    scene.says(bert, "/who attic\n/channels\n").hears(bert, "* in attic: anna\n* channels: attic (1), lobby (1)\n");
    // All at once: what is typed behind a command means where that leads.
    scene.says(bert, "/join attic\nhello\n/nick bertha\nme\n");
    scene.hears(bert, "* you are in attic\n2026-11-30 20:15 <anna> in the attic\n* here: anna, bert\n<bert> hello\n* bert is now bertha\n<bertha> me\n");
    scene.hears(anna, "* bert joined\n<bert> hello\n* bert is now bertha\n<bertha> me\n");
    scene.passes(10 * SECOND).says(anna, "/join lobby\n/join attic\n/join lobby\nhere\n");
    scene.hears(bert, "* anna left\n* anna joined\n* anna left\n");
    let heard = String::from_utf8(scene.takes(anna)).expect("text");
    assert!(heard.ends_with("* you are in lobby\n2026-11-30 20:15 <bert> in the lobby\n* here: anna\n<anna> here\n"), "{heard}");
}

#[test]
fn who_leaves_is_told_to_have_left_behind_its_last_line() {
    let mut scene = scene(app());
    let [anna, bert] = ["anna", "bert"].map(|name| enters(&mut scene, name));
    scene.says(bert, "/nick b\nbye\n/quit\n");
    scene.hears(anna, "* bert joined\n* bert is now b\n<b> bye\n* b left\n");
    // A name that is given back at once is another one in between.
    scene.says(anna, "/nick b\n/nick anna\n/nick b\nme\n/nick anna\n");
    scene.hears(anna, "* anna is now b\n* b is now anna\n* anna is now b\n<b> me\n* b is now anna\n");
    // Also if it is gone before that is stored.
    scene.set_weather(Weather::fair().work(SECOND));
    let cleo = scene.dials(LINES);
    scene.says(cleo, "cleo\n").passes(2 * SECOND).hears(anna, "* cleo joined\n");
    scene.says(cleo, "bye\n").resets(cleo).hears(anna, "").passes(5 * SECOND).hears(anna, "<cleo> bye\n* cleo left\n");
}

#[test]
fn what_is_said_to_one_alone_nobody_else_hears() {
    let mut scene = scene(app());
    let [anna, bert, third] = ["anna", "bert", "bert the third"].map(|name| enters(&mut scene, name));
    scene.takes(anna);
    scene.takes(bert);
    scene.says(anna, "/msg bert psst\n").hears(anna, "[you to bert] psst\n").hears(bert, "[anna to you] psst\n").hears(third, "");
    scene.says(anna, "/msg bert the third psst\n").hears(anna, "[you to bert the third] psst\n");
    scene.hears(third, "[anna to you] psst\n").hears(bert, "");
    scene.says(anna, "/msg bert the\n").hears(bert, "[anna to you] the\n");
}

#[test]
fn who_does_not_read_is_let_go_and_the_others_miss_nothing() {
    let mut scene = scene(app());
    let [bert, deaf] = ["bert", "deaf"].map(|name| enters(&mut scene, name));
    let speakers: Vec<Actor> = (0..10).map(|number| enters(&mut scene, &format!("s{number}"))).collect();
    scene.takes(bert);
    scene.reads(deaf, false);
    // More than the socket of one who does not read and the cap of its queue hold together, within the minute in which it may
    // take nothing.
    let (line, mut heard) = ("x".repeat(1000), Vec::new());
    for _ in 0..8 {
        for speaker in &speakers {
            scene.says(*speaker, format!("{line}\n").repeat(10)).takes(*speaker);
            heard.extend(scene.takes(bert));
        }
        scene.passes(5 * SECOND);
    }
    let heard = String::from_utf8(heard).expect("text");
    assert_eq!(heard.matches("* deaf left\n").count(), 1);
    assert_eq!(heard.matches(&format!("> {line}\n")).count(), 800);
    assert_eq!(heard.len(), 800 * (line.len() + 6) + "* deaf left\n".len(), "nothing else");
    assert_eq!(scene.connections(), 11);
    scene.reads(deaf, true).takes(deaf);
    scene.hears_end(deaf);
    enters(&mut scene, "deaf");
}

#[test]
fn there_are_so_many_places_and_so_many_channels() {
    let mut scene = scene(App::new(Store::in_memory(Origin(1)), 2).expect("in memory"));
    let [_anna, bert] = ["anna", "bert"].map(|name| enters(&mut scene, name));
    let third = scene.dials(LINES);
    scene.says(third, "cleo\n").hears(third, "Your name?\nThe room is full, try again later. Your name?\n");
    scene.says(bert, "/quit\n").hears_end(bert).says(third, "cleo\n").takes(third);
    assert_eq!(scene.state().room.len(), 2);
}

#[test]
fn a_crowd_is_told_of_those_who_come_and_go_a_little_later_and_all_at_once() {
    let mut scene = scene(app());
    let first = enters(&mut scene, "first");
    let others: Vec<Actor> = (0..150).map(|number| enters(&mut scene, &format!("m{number:03}"))).collect();
    scene.passes(SECOND);
    let heard = String::from_utf8(scene.takes(first)).expect("text");
    let joined: Vec<String> = (0..150).map(|number| format!("* m{number:03} joined\n")).collect();
    assert_eq!(heard, joined.concat());
    for other in &others[..120] {
        scene.resets(*other);
    }
    let last = others[149];
    scene.takes(last);
    scene.says(last, "hello\n").hears(first, "<m149> hello\n").hears(last, "<m149> hello\n");
    // Whom nobody was told of, nobody is told of.
    let passing = enters(&mut scene, "passing");
    scene.resets(passing).passes(SECOND);
    let heard = String::from_utf8(scene.takes(first)).expect("text");
    assert_eq!(heard, joined[..120].concat().replace("joined", "left"));
    assert_eq!(scene.state().room.len(), 31);
}

#[test]
fn the_room_says_goodbye() {
    let mut scene = scene(app());
    let anna = enters(&mut scene, "anna");
    let unnamed = scene.dials(LINES);
    scene.net().drain(2 * SECOND);
    scene.settles();
    scene.hears(anna, "* the room closes\n").hears_end(anna);
    scene.hears(unnamed, "Your name?\n* the room closes\n").hears_end(unnamed);
}

#[test]
fn what_cannot_be_stored_is_told_nevertheless_and_why_once() {
    for (pragma, value, why) in
        [("query_only", 1, "attempt to write a readonly database"), ("max_page_count", 1, "database or disk is full")]
    {
        let store = Store::in_memory(Origin(1));
        store.set(pragma, value);
        let mut scene = scene(app_of(store));
        let anna = enters(&mut scene, "anna");
        let mut told = String::new();
        for number in 0..60 {
            // More than fits into the pages that there are.
            let text = format!("{number} {}", "x".repeat(1000));
            told += &format!("<anna> {text}\n");
            scene.says(anna, format!("{text}\n")).passes(SECOND);
        }
        let heard = String::from_utf8(scene.takes(anna)).expect("text");
        let notice = format!("* messages are not being saved: {why}\n");
        assert_eq!(heard.matches(&notice).count(), 1, "{heard}");
        assert_eq!(heard.replace(&notice, ""), told);
        let back = if value == 1 && pragma == "query_only" { 0 } else { 1000 };
        scene.net().post(move |net, app| with_store(net, app, move |store| store.set(pragma, back), |_, _, _| ()));
        scene.says(anna, "and now\n").hears(anna, "<anna> and now\n* messages are saved again\n");
        let bert = scene.dials(LINES);
        scene.says(bert, "bert\n");
        let heard = String::from_utf8(scene.takes(bert)).expect("text");
        assert!(heard.contains("<anna> and now\n") && !heard.contains("<anna> 59"), "{heard}");
    }
}
