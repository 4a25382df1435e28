//! The room over a WebSocket, and its page, as dialogues.

mod support;

use mainspring::{
    Reason,
    testing::{Actor, Scene, Transcript},
};
use room::{App, page};
use std::time::Duration;
use support::{CLOCK, LINES, WEB, app, frames, masked, request, scene, typed};
use web::Http;

const SECOND: Duration = Duration::from_secs(1);

/// What follows the head of the answer.
fn talk(bytes: Vec<u8>) -> String {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert!(bytes.starts_with(b"HTTP/1.1 101 "), "{}", bytes[..end].escape_ascii());
    frames(bytes[end..].to_vec())
}

fn opens(scene: &mut Scene<App>, target: &str) -> (Actor, String) {
    let guest = scene.dials(WEB);
    scene.says(guest, request(target));
    let told = talk(scene.takes(guest));
    (guest, told)
}

fn transcript(request: &str) -> (Transcript<Http<App>, App>, String) {
    let mut t = Transcript::with_state(Http::new(page::site), app());
    t.receives(request);
    let sent = t.sent();
    let sent = String::from_utf8(sent).expect("text");
    (t, sent)
}

#[test]
fn a_browser_is_told_everything_as_objects() {
    let mut scene = scene(app());
    let (ann, told) = opens(&mut scene, "/chat");
    assert_eq!(told, "{\"type\":\"ask\",\"text\":\"Your name?\"}\n");
    let says = |scene: &mut Scene<App>, line: &str| {
        scene.says(ann, typed(line));
        frames(scene.takes(ann))
    };
    assert_eq!(
        says(&mut scene, "/x"),
        "{\"type\":\"ask\",\"text\":\"A name must have none of < > * in it, and no / in front. Your name?\"}\n"
    );
    let you = "{\"type\":\"you\",\"name\":\"ann\",\"channel\":\"lobby\"}\n{\"type\":\"who\",\"channel\":\"lobby\",\"names\":[\"ann\"],\"more\":0}\n";
    assert_eq!(says(&mut scene, " ann "), you);
    let line = "{\"type\":\"line\",\"id\":\"0000000000000abc-1\",\"channel\":\"lobby\",\"from\":\"ann\",\"text\":\"\\\"hi\\\" </script>\",\"at\":1796069700000,\"does\":false,\"old\":false}\n";
    assert_eq!(says(&mut scene, "\"hi\" </script>"), line);
    let does = "{\"type\":\"line\",\"id\":\"0000000000000abc-2\",\"channel\":\"lobby\",\"from\":\"ann\",\"text\":\"waves\",\"at\":1796069700001,\"does\":true,\"old\":false}\n";
    assert_eq!(says(&mut scene, "/me waves"), does);
    assert_eq!(says(&mut scene, "/x"), "{\"type\":\"notice\",\"text\":\"there is no command /x: /help lists the commands\"}\n");
    assert_eq!(
        says(&mut scene, "/nick anna"),
        "{\"type\":\"you\",\"name\":\"anna\",\"channel\":\"lobby\"}\n{\"type\":\"renamed\",\"from\":\"ann\",\"to\":\"anna\"}\n"
    );
    let bob = scene.dials(LINES);
    scene.says(bob, "bob\n").takes(bob);
    assert_eq!(frames(scene.takes(ann)), "{\"type\":\"joined\",\"name\":\"bob\"}\n");
    scene.says(bob, "/msg anna psst\n/quit\n");
    let told = format!(
        "{{\"type\":\"private\",\"from\":\"bob\",\"to\":\"anna\",\"text\":\"psst\",\"at\":{CLOCK}}}\n{{\"type\":\"left\",\"name\":\"bob\"}}\n"
    );
    assert_eq!(frames(scene.takes(ann)), told);
    let (_, told) = opens(&mut scene, "/chat?name=cleo&channel=lobby");
    let old = [line, does].concat().replace("\"old\":false", "\"old\":true");
    assert_eq!(
        told,
        "{\"type\":\"you\",\"name\":\"cleo\",\"channel\":\"lobby\"}\n".to_owned()
            + &old
            + "{\"type\":\"who\",\"channel\":\"lobby\",\"names\":[\"anna\",\"cleo\"],\"more\":0}\n"
    );
    // Who leaves hears what comes of all that it has said.
    scene.says(ann, [typed("bye"), typed("/quit"), typed("not said")].concat());
    let told = frames(scene.takes(ann));
    assert!(told.contains("\"bye\"") && told.ends_with("close 1000\n") && !told.contains("not said"), "{told}");
    scene.hears_end(ann);
}

#[test]
fn who_is_not_heard_is_told_which_line_that_was() {
    let mut scene = scene(app());
    let (ann, _) = opens(&mut scene, "/chat?name=ann");
    let refusal = |scene: &mut Scene<App>, line: &str| {
        scene.says(ann, typed(line));
        let told = frames(scene.takes(ann));
        let (_, refused) = told.split_once("\"refused\":\"").unwrap_or_else(|| panic!("{line}: {told}"));
        refused.strip_suffix("\"}\n").expect("its end").to_owned()
    };
    assert_eq!(refusal(&mut scene, &"x".repeat(1025)), "x".repeat(1025));
    assert_eq!(refusal(&mut scene, " /msg nobody hi"), "/msg nobody hi");
    for n in 0..9 {
        scene.says(ann, typed(&n.to_string())).takes(ann);
    }
    assert_eq!(refusal(&mut scene, "/me waves"), "/me waves");
}

#[test]
fn who_comes_back_is_told_what_it_has_missed() {
    let mut scene = scene(app());
    let (_ann, _) = opens(&mut scene, "/chat?name=ann");
    let bob = scene.dials(LINES);
    scene.says(bob, "bob\n");
    for number in 0..150 {
        scene.says(bob, format!("{number}\n")).passes(SECOND).takes(bob);
    }
    let lines = |told: &str| told.matches("\"type\":\"line\"").count();
    for (after, count) in [
        ("0000000000000abc-20", 130),
        ("0000000000000abc-150", 0),
        ("0000000000000abc-151", 100),
        ("0000000000000abd-20", 100),
        ("0000000000000abc-x1796069700000", 100),
        ("nonsense", 100),
        ("", 100),
        ("0000000000000abc-99999999999999999999", 100),
    ] {
        let (back, told) = opens(&mut scene, &format!("/chat?name=b%C3%ABrt&after={after}"));
        assert_eq!(lines(&told), count, "{after}");
        assert!(told.contains("\"name\":\"bërt\""), "{told}");
        scene.resets(back);
    }
    // Also if its name is somebody else's by now, in whose place another one is typed; and what is no channel is the lobby.
    let (back, told) = opens(&mut scene, "/chat?name=bob&channel=%3Cx%3E&after=0000000000000abc-149");
    assert_eq!(told, "{\"type\":\"ask\",\"text\":\"bob is here already. Your name?\"}\n");
    scene.says(back, typed("bob_2"));
    let told = frames(scene.takes(back));
    assert_eq!(lines(&told), 1, "{told}");
    assert!(told.contains("\"channel\":\"lobby\""), "{told}");
}

#[test]
fn what_is_too_long_is_not_said_and_what_is_no_text_ends_it() {
    let mut scene = scene(app());
    let (ann, _) = opens(&mut scene, "/chat?name=ann");
    scene.says(ann, typed(&"x".repeat(1025)));
    let told = frames(scene.takes(ann));
    assert!(told.starts_with("{\"type\":\"notice\",\"text\":\"not said: a line has 1024 bytes at most\","), "{told}");
    scene.says(ann, typed("one\r\ntwo\u{202e}\u{1b}"));
    assert!(frames(scene.takes(ann)).contains("\"text\":\"one  two\u{fffd}\""));
    scene.says(ann, masked(2, b"\x00"));
    assert_eq!(frames(scene.takes(ann)), "close 1003\n");
    scene.hears_end(ann);
    let (bob, _) = opens(&mut scene, "/chat?name=bob");
    scene.says(bob, typed(&"x".repeat(20_000)));
    assert_eq!(frames(scene.takes(bob)), "close 1009\n");
}

/// But for the date in the head, which is why this is not `every_cut`.
#[test]
fn every_cutting_of_a_visit_is_answered_alike() {
    let typed = ["ann", "hello", "/who", "/join y", "there", "/quit"].map(typed).concat();
    let visit = [request("/chat?channel=x").as_bytes(), &typed].concat();
    let told = |cut: usize| {
        let mut t = Transcript::<Http<App>, App>::with_state(Http::new(page::site), app());
        let (a, b) = visit.split_at(cut);
        t.receives(a).receives(b);
        let told = talk(t.sent());
        t.closes(Reason::is_clean);
        told
    };
    let at_once = told(0);
    assert!(at_once.ends_with("close 1000\n") && at_once.lines().count() == 9, "{at_once}");
    for cut in 1..visit.len() {
        assert_eq!(told(cut), at_once, "cut after {cut} bytes");
    }
}

#[test]
fn a_page_of_another_origin_does_not_get_in() {
    let (_, sent) = transcript(&request("/chat?name=ann").replace("Origin: http://10.0.0.1:8080", "Origin: http://evil.example"));
    assert!(sent.starts_with("HTTP/1.1 403 "), "{sent}");
    let (_, sent) = transcript("GET /chat HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(sent.starts_with("HTTP/1.1 426 "), "{sent}");
}

#[test]
fn the_page_brings_all_with_it_and_may_do_nothing_else() {
    let (mut t, sent) = transcript("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(sent.starts_with("HTTP/1.1 200 ") && sent.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{sent}");
    let policy = sent.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: ")).expect("a policy");
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(policy.matches("'sha256-").count() == 2 && !policy.contains("unsafe"), "{policy}");
    for header in ["X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer", "Cross-Origin-Opener-Policy: same-origin"] {
        assert!(sent.contains(&format!("\r\n{header}\r\n")), "{header}");
    }
    let tag = sent.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag").to_owned();
    t.receives(format!("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert!(t.sent().starts_with(b"HTTP/1.1 304 "));
    for (request, status) in [("POST / HTTP/1.1", "405"), ("GET /x HTTP/1.1", "404"), ("GET /healthz HTTP/1.1", "200")] {
        t.receives(format!("{request}\r\nHost: h\r\n\r\n"));
        let sent = t.sent();
        assert!(sent.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{request}: {}", sent.escape_ascii());
    }
}

#[test]
fn the_room_says_goodbye_and_why_it_ends() {
    let mut scene = scene(app());
    let (ann, _) = opens(&mut scene, "/chat?name=ann");
    scene.net().drain(2 * SECOND);
    scene.settles();
    assert_eq!(frames(scene.takes(ann)), "{\"type\":\"notice\",\"text\":\"the room closes\"}\nclose 1001\n");
    scene.hears_end(ann);
}

#[test]
fn who_is_silent_is_pinged_and_who_does_not_answer_has_left() {
    let mut scene = scene(app());
    let bob = scene.dials(LINES);
    scene.says(bob, "bob\n").takes(bob);
    let (ann, _) = opens(&mut scene, "/chat?name=ann");
    scene.hears(bob, "* ann joined\n");
    for _ in 0..10 {
        scene.passes(21 * SECOND);
        assert_eq!(frames(scene.takes(ann)), "opcode 9\n");
        scene.says(ann, masked(10, b""));
    }
    scene.passes(60 * SECOND).hears(bob, "* ann left\n");
    assert_eq!(scene.state().room.len(), 1);
}

#[test]
fn who_reads_late_has_missed_nothing_and_who_does_not_read_is_let_go() {
    let mut scene = scene(app());
    let (ann, _) = opens(&mut scene, "/chat?name=ann");
    let speakers: Vec<Actor> = (0..10).map(|number| opens(&mut scene, &format!("/chat?name=s{number}")).0).collect();
    scene.takes(ann);
    scene.reads(ann, false);
    let say = |scene: &mut Scene<App>| {
        for speaker in &speakers {
            scene.says(*speaker, typed(&"\"".repeat(1000)).repeat(10)).takes(*speaker);
        }
        scene.passes(5 * SECOND);
    };
    say(&mut scene); // in JSON that is more than its socket takes
    scene.reads(ann, true);
    assert_eq!(frames(scene.takes(ann)).matches("\"type\":\"line\"").count(), 100);
    scene.reads(ann, false);
    (0..3).for_each(|_| say(&mut scene));
    assert_eq!(scene.state().room.len(), 10);
    scene.reads(ann, true).takes(ann);
    scene.hears_end(ann);
}
