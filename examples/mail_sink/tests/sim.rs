//! Both sides of SMTP as dialogues, and in storms on the simulated network.

use mail_sink::{
    forward::Forward,
    session::{Server, Session},
    store::Store,
};
use mainspring::{
    Context, Key, Outcome, Protocol, Reason, Terminator,
    testing::{Actor, Scene, Sim, Transcript, Weather, check, every_cut_with},
};
use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

const S: Duration = Duration::from_secs(1);
const GREETING: &str = "220 mx.test ESMTP\r\n";

/// Gone with its test.
struct Folder(PathBuf);

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let memory = Path::new("/dev/shm"); // where nothing is written to a disk: that is not the subject here
    let base = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let folder = base.join(format!("mail-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    Folder(folder)
}

fn server(root: &Path) -> Server {
    let (store, _) = Store::open(root.to_owned(), "mx.test".into()).expect("a folder");
    Server {
        host: "mx.test".into(),
        store,
        bytes_max: 1000,
        domains: Vec::new(),
        idle: 300 * S,
        tls: None,
        requires_tls: false,
        forward: None,
        stored: 0,
    }
}

/// What is in these folders of it, name and content.
fn mails(root: &Path, folder: &str) -> Vec<(String, String)> {
    let read = fs::read_dir(root.join(folder)).expect("a folder").map(|entry| {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        (name, String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned())
    });
    let mut read: Vec<_> = read.collect();
    read.sort();
    read
}

fn count(root: &Path) -> [usize; 3] {
    ["tmp", "new", "queue"].map(|folder| mails(root, folder).len())
}

/// Greeted, and through EHLO.
fn session(name: &str) -> (Transcript<Session, Server>, Folder) {
    session_with(name, |_| ())
}

fn session_with(name: &str, set: impl FnOnce(&mut Server)) -> (Transcript<Session, Server>, Folder) {
    let root = folder(name);
    let mut server = server(&root);
    set(&mut server);
    (session_of(server), root)
}

fn session_of(server: Server) -> Transcript<Session, Server> {
    let mut t = Transcript::with_state(Session::default(), server);
    t.sends(GREETING).receives("HELO me\r\n").sends("250 mx.test\r\n");
    t
}

const ENVELOPE: &str = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
const ENVELOPE_OK: &str = "250 2.1.0 Ok.\r\n250 2.1.5 Ok.\r\n354 End with a dot on a line of its own.\r\n";
const STORED: &str = "250 2.0.0 Stored.\r\n";

#[test]
fn a_mail() {
    let (mut t, root) = session("mail");
    t.receives(ENVELOPE).sends(ENVELOPE_OK);
    t.receives("Subject: x\r\n\r\n..\r\nend\r\n.\r").sends("");
    t.receives("\nQUIT\r\n").sends(format!("{STORED}221 2.0.0 Bye.\r\n")).closes(Reason::is_clean);
    let [(_, text)] = &mails(&root, "new")[..] else { panic!("one mail") };
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines[..2], ["Return-Path: <a@x>", "Delivered-To: b@y"]);
    assert!(lines[2].starts_with("Received: from me (["), "{text}");
    assert!(lines[3].starts_with("\twith SMTP; ") && lines[3].ends_with(" +0000"), "{text}");
    assert_eq!(lines[4..], ["Subject: x", "", ".", "end", ""]);
    assert_eq!(count(&root), [0, 1, 0]);
}

#[test]
fn what_is_offered() {
    let (mut t, _root) = session("offered");
    t.receives("EHLO me\r\nHELP\r\nVRFY b\r\nNOOP\r\n");
    t.sends(
        "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n\
         214 2.0.0 See RFC 5321.\r\n252 2.1.5 Send a mail, and see.\r\n250 2.0.0 Ok.\r\n",
    );
    t.receives("STARTTLS\r\n").sends("503 5.5.1 Not possible now.\r\n").stays_open();
}

#[test]
fn however_it_is_cut_it_is_the_same() {
    let all = "EHLO me\r\nMAIL FROM:<a@x> SIZE=5\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\nRSET\r\nWHAT\r\nMAIL FROM:<>\r\n\
               RCPT TO:<b@y>\r\nDATA\r\nx\r\n..y\r\n.\r\nQUIT\r\n";
    let root = folder("cuts");
    every_cut_with(all, || (Session::default(), server(&root)));
    let mut texts: Vec<String> = mails(&root, "new").into_iter().map(|(_, text)| text).collect();
    texts.iter_mut().for_each(|text| *text = text.split_once("+0000\n").expect("a head").1.to_owned());
    texts.sort();
    let empty = texts.iter().filter(|text| *text == "\n").count();
    assert_eq!(empty, texts.iter().filter(|text| *text == "x\n.y\n").count());
    assert_eq!(empty * 2, texts.len());
}

#[test]
fn only_crlf_ends_a_line_and_only_crlf_dot_crlf_a_mail() {
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r\r\n.\n", "\r\n\0.\n"] {
        let (mut t, root) = session("smuggled");
        t.receives(ENVELOPE)
            .sends(ENVELOPE_OK)
            .receives(format!("first{end}MAIL FROM:<evil@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nsecond"));
        t.sends("").receives("\r\n.\r\n");
        t.sends("550 5.6.0 A line has 998 bytes at most, ends in CRLF, and has no other CR or LF.\r\n");
        assert_eq!(count(&root), [0, 0, 0], "{end:?}");
    }
    let (mut t, _root) = session("bare");
    t.receives("NOOP\nNOOP\r\n").sends("500 5.5.2 A command is text, and ends in CRLF.\r\n");
    t.receives("NOOP\rNOOP\r\n").sends("500 5.5.2 A command is text, and ends in CRLF.\r\n");
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let (mut t, root) = session_with("long", |server| server.bytes_max = 5000);
    t.receives(ENVELOPE).sends(ENVELOPE_OK);
    t.receives("x".repeat(998)).receives("\r\n.\r\n").sends(STORED);
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives(format!(".{}\r\n.\r\n", "x".repeat(998))).sends(STORED);
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives("x".repeat(999)).receives("\r\n.\r\n");
    t.sends("550 5.6.0 A line has 998 bytes at most, ends in CRLF, and has no other CR or LF.\r\n");
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives("line\r\n".repeat(1000)).receives(".\r\n");
    t.sends("552 5.3.4 Too large.\r\n");
    t.receives("MAIL FROM:<a@x> SIZE=5001\r\n").sends("552 5.3.4 Too large.\r\n");
    t.receives("MAIL FROM:<a@x> SIZE=99999999999999999999999\r\n").sends("552 5.3.4 Too large.\r\n");
    t.receives("x".repeat(10_000)).receives("\r\nNOOP\r\n").sends("500 5.5.2 Too long.\r\n250 2.0.0 Ok.\r\n");
    assert_eq!(count(&root), [0, 2, 0]);
    t.receives("MAIL FROM:<a@x>\r\n").sends("250 2.1.0 Ok.\r\n");
    for _ in 0..100 {
        t.receives("RCPT TO:<b@y>\r\n").sends("250 2.1.5 Ok.\r\n");
    }
    t.receives("RCPT TO:<b@y>\r\nDATA\r\n.\r\n");
    t.sends(format!("452 4.5.3 Too many recipients.\r\n354 End with a dot on a line of its own.\r\n{STORED}"));
    for _ in 0..15 {
        t.receives("WHAT\r\n").sends("500 5.5.1 There is no such command.\r\n");
    }
    t.receives("WHAT\r\n").sends("421 4.7.0 Too many errors.\r\n").closes(Reason::is_clean);
}

#[test]
fn a_session_has_a_thousand_mails() {
    let (mut t, root) = session("thousand");
    for _ in 0..1000 {
        t.receives(ENVELOPE).sends(ENVELOPE_OK).receives(".\r\n").sends(STORED);
    }
    t.receives("MAIL FROM:<a@x>\r\n").sends("421 4.7.0 Connect again to send more mails.\r\n").closes(Reason::is_clean);
    assert_eq!(count(&root), [0, 1000, 0]);
}

#[test]
fn wrong_commands_are_refused_and_the_session_goes_on() {
    let (mut t, _root) = session_with("wrong", |server| server.domains = vec!["y".into()]);
    for (command, reply) in [
        ("EHLO", "501 5.5.4"),
        ("HELO a b", "501 5.5.4"),
        ("RCPT TO:<b@y>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:a@x", "501 5.5.4"),
        ("MAIL FROM:<a b@x>", "501 5.5.4"),
        ("MAIL FROM:<a@x> AUTH=me", "555 5.5.4"),
        ("MAIL FROM:<ä@x>", "553 5.6.7"),
        ("mail from: <@r,@s:a@x> body=8bitmime smtputf8 size=10", "250 2.1.0"),
        ("MAIL FROM:<a@x>", "503 5.5.1"),
        ("RCPT TO:<>", "501 5.5.4"),
        ("RCPT TO:<b@z>", "550 5.7.1"),
        ("RCPT TO:<b@y> X=1", "555 5.5.4"),
        ("RCPT TO:<Postmaster>", "250 2.1.5"),
        ("RCPT TO:<\"a,b\"@Y>", "250 2.1.5"),
        ("RCPT TO:<ü@y>", "250 2.1.5"),
        ("NOOP", "250 2.0.0"),
    ] {
        let said = t.receives(format!("{command}\r\n")).sent();
        assert!(said.starts_with(reply.as_bytes()), "{command}: {}", said.escape_ascii());
    }
    t.receives("NOOP \u{7}\r\n").sends("500 5.5.2 A command is text, and ends in CRLF.\r\n");
    t.receives("NOOP \u{fffd}\r\n").sends("250 2.0.0 Ok.\r\n").receives(b"NOOP \xff\r\n");
    t.sends("500 5.5.2 A command is text, and ends in CRLF.\r\n").stays_open();
}

#[test]
fn the_same_mail_is_there_once() {
    let (mut t, root) = session("again");
    let mut sends = |to: &str, text: &str| {
        t.receives(format!("MAIL FROM:<a@x>\r\nRCPT TO:<{to}>\r\nDATA\r\n{text}\r\n.\r\n"));
        t.sends(format!("{ENVELOPE_OK}{STORED}"));
    };
    let mail = "Message-Id: <1@x>\r\n\r\nhello";
    sends("b@y", mail);
    sends("b@y", mail);
    sends("b@y", &format!("Received: by another\r\n\tway\r\n{mail}"));
    assert_eq!(count(&root), [0, 1, 0]);
    let (name, _) = &mails(&root, "new")[0];
    fs::rename(root.join("new").join(name), root.join("cur").join(format!("{name}:2,RSx"))).expect("it is read");
    sends("b@y", mail);
    assert_eq!(count(&root), [0, 0, 0]);
    // Nor by a process that finds it there, whose folder is not looked at for each.
    let mut again = session_of(server(&root));
    fs::remove_dir_all(root.join("cur")).expect("ours");
    again.receives(format!("{ENVELOPE}{mail}\r\n.\r\n")).sends(format!("{ENVELOPE_OK}{STORED}"));
    assert_eq!(count(&root), [0, 0, 0]);
    sends("c@y", mail);
    sends("b@y", &format!("{mail}!"));
    assert_eq!(count(&root), [0, 2, 0], "another recipient, another text: other mails");
    sends("b@y", "Subject: hello");
    sends("b@y", "Subject: hello");
    assert_eq!(count(&root), [0, 4, 0], "without an id each is another one");
}

#[test]
fn what_goes_round_is_refused() {
    let (mut t, root) = session_with("round", |server| server.bytes_max = 10_000);
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives("Received: x\r\n".repeat(51)).receives("\r\n.\r\n");
    t.sends("554 5.4.6 A mail loop: too many hops.\r\n");
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives(format!("\r\n{}.\r\n", "Received: x\r\n".repeat(51))).sends(STORED);
    assert_eq!(count(&root), [0, 1, 0]);
}

#[test]
fn who_is_silent_or_slow_is_let_go() {
    let (mut t, _root) = session("silent");
    t.passes(300 * S).sends("421 4.4.2 Too slow.\r\n").closes(Reason::is_clean);
    let (mut t, root) = session("slow");
    t.receives(ENVELOPE).sends(ENVELOPE_OK);
    for _ in 0..5 {
        t.passes(110 * S).receives("x\r\n").stays_open();
    }
    t.passes(110 * S).sends("421 4.4.2 Too slow.\r\n").closes(Reason::is_clean);
    assert_eq!(count(&root), [0, 0, 0]);
    let (mut t, _root) = session("drips");
    for byte in b"NOOP\r" {
        t.receives([*byte]).passes(59 * S).stays_open();
    }
    t.passes(5 * S).sends("421 4.4.2 Too slow.\r\n").closes(Reason::is_clean);
    let (mut t, _root) = session_with("large", |server| server.bytes_max = 10 << 20);
    t.receives(ENVELOPE.replacen('>', "> SIZE=10000000", 1)).sends(ENVELOPE_OK);
    for _ in 0..12 {
        t.passes(100 * S).receives("x\r\n").stays_open();
    }
    t.passes(100 * S).sends("421 4.4.2 Too slow.\r\n").closes(Reason::is_clean);
    let (mut t, _root) = session("not-slow");
    t.receives(ENVELOPE).sends(ENVELOPE_OK).receives(".\r\n").sends(STORED);
    for _ in 0..10 {
        t.passes(110 * S).receives("NOOP\r\n").sends("250 2.0.0 Ok.\r\n");
    }
}

#[test]
fn a_mail_that_is_broken_off_leaves_nothing() {
    for break_off in [Transcript::<Session, Server>::peer_ends, Transcript::peer_resets] {
        let (mut t, root) = session("off");
        t.receives(ENVELOPE).receives("hel");
        assert_eq!(count(&root), [1, 0, 0]);
        break_off(&mut t);
        assert_eq!(count(&root), [0, 0, 0]);
    }
}

#[test]
fn a_drain_waits_for_the_mail_that_is_coming() {
    let (mut t, root) = session("drain");
    t.receives(ENVELOPE).sends(ENVELOPE_OK).scene().net().drain(60 * S);
    t.passes(S).stays_open().receives("lo\r\n.\r\n").sends(STORED).closes(Reason::is_clean);
    assert_eq!(count(&root), [0, 1, 0]);
    let (mut t, _root) = session("drains");
    t.scene().net().drain(60 * S);
    t.passes(S).sends("421 4.3.2 Going down.\r\n").closes(Reason::is_clean);
}

#[test]
fn what_a_dead_process_left_goes_when_it_is_old() {
    let root = folder("left");
    server(&root);
    for (name, age) in [("old", 37 * 60 * 60 * S), ("young", 35 * 60 * 60 * S)] {
        let file = fs::File::create(root.join("tmp").join(name)).expect("a file");
        file.set_modified(std::time::SystemTime::now() - age).expect("ours");
    }
    server(&root);
    assert_eq!(mails(&root, "tmp"), [("young".to_owned(), String::new())]);
}

// --------------------------------------------------------------------------------------------------------- forwarding

/// A server that hands on to 10.0.0.2:25, and a client of it.
fn relay(name: &str) -> (Scene<Server>, Actor, Folder) {
    let root = folder(name);
    let mut scene = Scene::new(1, server(&root));
    start(&mut scene, &root);
    scene.net().listen("10.0.0.1:25", Session::default).expect("a free port");
    let client = scene.dials("10.0.0.1:25");
    scene.hears(client, GREETING).says(client, "HELO me\r\n").hears(client, "250 mx.test\r\n");
    (scene, client, root)
}

fn start(scene: &mut Scene<Server>, root: &Path) {
    let (store, queue) = Store::open(root.to_owned(), "mx.test".into()).expect("a folder");
    let forward = Forward::new(&mut scene.net(), "10.0.0.2:25".into(), None, &store, queue);
    (scene.state().forward, scene.state().store) = (Some(forward), store);
}

/// Takes what the relay says, up to its date, and gives it without that and the head of ours.
fn body(scene: &mut Scene<Server>, host: Actor) -> String {
    let said = String::from_utf8(scene.takes(host)).expect("text");
    let (head, rest) = said.split_once(" +0000\r\n").unwrap_or_else(|| panic!("no head in {said:?}"));
    assert!(head.starts_with("Received: from me ([127.0.0.1]") && head.contains("by mx.test\r\n\twith SMTP; "), "{head}");
    rest.to_owned()
}

const OFFERS: &str = "250-other\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100\r\n";
const TWO: &str = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n";
const TWO_OK: &str = "250 2.1.0 Ok.\r\n250 2.1.5 Ok.\r\n250 2.1.5 Ok.\r\n354 End with a dot on a line of its own.\r\n";

#[test]
fn a_mail_is_handed_on_in_one_go_to_who_takes_that() {
    let (mut scene, client, root) = relay("pipelined");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}Subject: \u{fc}\r\n\r\n..\r\n.\r\n")).hears(client, format!("{TWO_OK}{STORED}"));
    scene.says(host, "220 other\r\n").hears(host, "EHLO mx.test\r\n").says(host, OFFERS);
    let said = String::from_utf8(scene.takes(host)).expect("text");
    let (size, rest) = said.strip_prefix("MAIL FROM:<a@x> SIZE=").and_then(|rest| rest.split_once(' ')).expect("its size");
    assert_eq!(rest, "BODY=8BITMIME\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\n");
    scene.says(host, "250 ok\r\n250 ok\r\n250 ok\r\n").hears(host, "DATA\r\n").says(host, "354 go\r\n");
    assert_eq!(scene.heard_bytes(host).len(), size.parse::<usize>().expect("a number") + 3);
    assert_eq!(body(&mut scene, host), "Subject: \u{fc}\r\n\r\n..\r\n.\r\n");
    assert_eq!(count(&root), [0, 0, 1], "not before it was taken");
    scene.says(host, "250 mine\r\n").hears(host, "RSET\r\n").says(host, "250 ok\r\n").hears(host, "QUIT\r\n");
    scene.says(host, "221 bye\r\n").hears_end(host);
    assert_eq!(count(&root), [0, 0, 0]);
}

#[test]
fn one_who_does_not_take_that_is_asked_one_thing_after_the_other() {
    let (mut scene, client, root) = relay("slowly");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}.\r\n")).takes(client);
    scene.says(host, "220-hello\r\n220 other\r\n").hears(host, "EHLO mx.test\r\n").says(host, "250 other\r\n");
    scene.hears(host, "MAIL FROM:<a@x>\r\n").says(host, "250 ok\r\n").hears(host, "RCPT TO:<b@y>\r\n");
    scene.says(host, "250 ok\r\n").hears(host, "RCPT TO:<c@y>\r\n").says(host, "250 ok\r\n").hears(host, "DATA\r\n");
    scene.says(host, "354 go\r\n");
    assert_eq!(body(&mut scene, host), "\r\n.\r\n");
    scene.says(host, "250 mine\r\n").hears(host, "RSET\r\n");
    assert_eq!(count(&root), [0, 0, 0]);
}

#[test]
fn each_recipient_has_its_own_fate() {
    let (mut scene, client, root) = relay("fates");
    let host = scene.serves("10.0.0.2:25");
    let mail = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\nDATA\r\nMessage-ID: <1>\r\n.\r\n";
    scene.says(client, mail).takes(client);
    scene.says(host, "220 other\r\n").says(host, OFFERS).takes(host);
    scene.says(host, "250 ok\r\n250 ok\r\n450 later\r\n550-never\r\n550 ever\r\n").hears(host, "DATA\r\n");
    scene.says(host, "354 go\r\n").takes(host);
    scene.says(host, "250 mine\r\n").hears(host, "RSET\r\n").says(host, "250 ok\r\n").hears(host, "QUIT\r\n").closes(host);
    assert_eq!((count(&root), mails(&root, "failed").len()), ([0, 0, 1], 1));
    let (_, text) = &mails(&root, "failed")[0];
    let head = "Return-Path: <a@x>\nDelivered-To: d@y\nX-Not-Forwarded: 550-never 550 ever <d@y>\nReceived: from me";
    assert!(text.starts_with(head) && text.ends_with(" +0000\nMessage-ID: <1>\n"), "{text}");
    let (_, text) = &mails(&root, "queue")[0];
    assert!(text.starts_with("Return-Path: <a@x>\nDelivered-To: c@y\nReceived: from me"), "{text}");
    let again = scene.serves("10.0.0.2:25");
    scene.passes(2 * S).says(again, "220 other\r\n250 other\r\n").hears(again, "EHLO mx.test\r\nMAIL FROM:<a@x>\r\n");
    scene.says(again, "250 ok\r\n").hears(again, "RCPT TO:<c@y>\r\n").says(again, "550 no\r\n").hears(again, "RSET\r\n");
    assert_eq!((count(&root), mails(&root, "failed").len()), ([0, 0, 0], 2));
}

#[test]
fn a_mail_that_is_refused_as_a_whole_is_kept_and_says_why() {
    for (replies, why) in [
        ("550 not you\r\n503 no\r\n503 no\r\n", "550 not you"),
        ("250 ok\r\n550 no\r\n551 no\r\n", "550 no <b@y>\nX-Not-Forwarded: 551 no"),
        ("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n552 much\r\n", "552 much"),
        ("250 ok\r\n250 ok\r\n250 ok\r\n554 no\r\n", "554 no"),
    ] {
        let (mut scene, client, root) = relay("refused");
        let host = scene.serves("10.0.0.2:25");
        scene.says(client, format!("{TWO}Message-ID: <1>\r\n\r\nhello\r\n.\r\n")).takes(client);
        scene.says(host, "220 other\r\n").says(host, OFFERS);
        for reply in replies.split_inclusive('\n') {
            scene.says(host, reply);
        }
        assert!(scene.takes(host).ends_with(b"RSET\r\n"), "{replies}");
        assert_eq!((count(&root), mails(&root, "failed").len()), ([0, 0, 0], 1));
        let (_, text) = &mails(&root, "failed")[0];
        assert!(text.contains(&format!("X-Not-Forwarded: {why}")) && text.ends_with("\nhello\n"), "{text}");
        assert_eq!(scene.state().forward.as_ref().map(|forward| forward.forwarded), Some(0));
    }
}

#[test]
fn a_mail_that_was_refused_may_be_sent_again_and_one_that_was_taken_is_known() {
    let (mut scene, client, root) = relay("refused-again");
    let host = scene.serves("10.0.0.2:25");
    let mail = format!("{TWO}Message-ID: <1>\r\n\r\nhello\r\n.\r\n");
    scene.says(client, &mail).hears(client, format!("{TWO_OK}{STORED}"));
    scene.says(host, "220 other\r\n").says(host, OFFERS).says(host, "550 not you\r\n503 no\r\n503 no\r\n").takes(host);
    scene.says(client, &mail).says(host, "250 ok\r\n").says(host, "250 ok\r\n250 ok\r\n250 ok\r\n").says(host, "354 go\r\n");
    scene.says(host, "250 mine\r\n");
    assert!(scene.takes(host).ends_with(b"hello\r\n.\r\nRSET\r\n"), "it was offered again");
    assert_eq!((count(&root), mails(&root, "failed").len()), ([0, 0, 0], 1));
    scene.takes(client);
    scene.says(client, &mail).hears(client, format!("{TWO_OK}{STORED}")).passes(2 * S);
    assert_eq!((count(&root), scene.state().stored), ([0, 0, 0], 2), "not a third time");
}

#[test]
fn a_mail_is_handed_on_though_its_client_died_before_it_was_answered() {
    let mut died = 0;
    for step in 0..40 {
        let (mut scene, client, root) = relay("died");
        let host = scene.serves("10.0.0.2:25");
        scene.set_weather(Weather::fair().work(S)); // it takes its time to write a mail
        scene.says(client, format!("{TWO}\r\nhello\r\n.\r\n")).passes(step * S / 20);
        let is_answered = scene.heard_bytes(client).ends_with(STORED.as_bytes());
        scene.resets(client).passes(3 * S);
        if count(&root)[2] == 1 {
            scene.says(host, "220 other\r\n").hears(host, "EHLO mx.test\r\n");
            assert_eq!(scene.state().stored, 1);
            died += u32::from(!is_answered);
        }
    }
    assert!(died > 0, "none did while it was written");
}

#[test]
fn what_is_in_utf_8_goes_to_who_takes_that() {
    let mail = "MAIL FROM:<\u{e4}@x> SMTPUTF8\r\nRCPT TO:<b@y>\r\nDATA\r\n\r\nhello\r\n.\r\n";
    let (mut scene, client, root) = relay("no-utf8");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, mail).takes(client);
    scene.says(host, "220 other\r\n").says(host, OFFERS).hears(host, "EHLO mx.test\r\nRSET\r\n");
    assert_eq!((count(&root), mails(&root, "failed").len()), ([0, 0, 0], 1));
    assert!(
        mails(&root, "failed")[0].1.contains("\nX-Not-Forwarded: 550 5.6.7 The next host does not support SMTPUTF8. <b@y>\n")
    );
    let (mut scene, client, _root) = relay("utf8");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, mail).takes(client);
    scene.says(host, "220 other\r\n").says(host, "250-other\r\n250 smtputf8\r\n");
    scene.hears(host, "EHLO mx.test\r\nMAIL FROM:<\u{e4}@x> SMTPUTF8\r\n");
}

#[test]
fn who_is_not_there_is_called_again_later_and_later() {
    let (mut scene, client, root) = relay("away");
    scene.says(client, format!("{TWO}.\r\n")).takes(client);
    let mut tries = Vec::new();
    for _ in 0..2000 {
        let before = scene.net().stats().closed.connect;
        scene.passes(S);
        tries.push(scene.net().stats().closed.connect - before);
    }
    let n: u64 = tries.iter().sum();
    assert!((10..25).contains(&n), "{n} in 2000 s");
    assert!(tries[..10].iter().sum::<u64>() >= 2, "soon at first");
    let host = scene.serves("10.0.0.2:25");
    scene.passes(301 * S).says(host, "220 other\r\n").hears(host, "EHLO mx.test\r\n");
    assert_eq!(count(&root), [0, 0, 1]);
}

#[test]
fn others_pass_a_mail_that_is_not_taken_now() {
    let (mut scene, client, root) = relay("passes");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}Subject: one\r\n.\r\n")).takes(client);
    scene.says(host, "220 other\r\n250 other\r\n").says(host, "451 later\r\n").closes(host);
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}Subject: two\r\n.\r\n")).takes(client);
    scene.says(host, "220 other\r\n250 other\r\n250 ok\r\n").says(host, "250 ok\r\n").says(host, "250 ok\r\n");
    scene.takes(host);
    scene.says(host, "354 go\r\n");
    assert_eq!(body(&mut scene, host), "Subject: two\r\n.\r\n");
    scene.closes(host); // without a word
    assert_eq!(count(&root), [0, 0, 2]);
    let host = scene.serves("10.0.0.2:25");
    scene.passes(3 * S).says(host, "220 other\r\n250 other\r\n").hears(host, "EHLO mx.test\r\nMAIL FROM:<a@x>\r\n");
}

#[test]
fn the_queue_is_taken_up_again_and_a_drain_finishes_the_mail_at_hand() {
    let (mut scene, client, root) = relay("taken-up");
    scene.says(client, format!("{TWO}Subject: one\r\n.\r\n")).says(client, format!("{TWO}Subject: two\r\n.\r\n")).takes(client);
    drop(scene);
    let mut scene = Scene::new(1, server(&root));
    let host = scene.serves("10.0.0.2:25");
    start(&mut scene, &root);
    scene.passes(S).says(host, "220 other\r\n").says(host, OFFERS).says(host, "250 ok\r\n250 ok\r\n250 ok\r\n");
    scene.net().drain(60 * S);
    scene.passes(S).says(host, "354 go\r\n").says(host, "250 mine\r\n");
    assert!(scene.takes(host).ends_with(b".\r\nRSET\r\n"));
    scene.says(host, "250 ok\r\n").hears(host, "QUIT\r\n").says(host, "221 bye\r\n").hears_end(host);
    assert_eq!(count(&root), [0, 0, 1]);
}

#[test]
fn a_host_that_says_nonsense_does_no_harm() {
    let (mut scene, client, root) = relay("hasty");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}.\r\n")).takes(client);
    scene.says(host, "220 other\r\n").says(host, OFFERS).says(host, "250 ok\r\n250 ok\r\n250 ok\r\n");
    scene.says(host, "250 without having it\r\n").passes(S);
    assert_eq!(count(&root), [0, 0, 1], "it has no mail yet");
    for nonsense in ["\r\n", "what\r\n", "999\r\n", "220 ok\r\n220 ok\r\n", "\0\r\n"] {
        let (mut scene, client, root) = relay("nonsense");
        let host = scene.serves("10.0.0.2:25");
        scene.says(client, format!("{TWO}.\r\n")).takes(client);
        scene.says(host, nonsense).passes(S).closes(host);
        assert_eq!(count(&root), [0, 0, 1]);
    }
    let (mut scene, client, root) = relay("drips");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}.\r\n")).takes(client);
    scene.says(host, "2").passes(400 * S).says(host, "2").passes(201 * S).hears_end(host);
    assert_eq!(count(&root), [0, 0, 1]);
    let (mut scene, client, root) = relay("endless");
    let host = scene.serves("10.0.0.2:25");
    scene.says(client, format!("{TWO}.\r\n")).takes(client);
    scene.says(host, "220-on and on\r\n".repeat(101)).passes(S).hears_reset(host);
    assert_eq!(count(&root), [0, 0, 1]);
}

// ------------------------------------------------------------------- in storms: what was acknowledged arrives, and once

#[derive(Default)]
struct Clients {
    next: u32,
    stop: bool,
    acknowledged: Vec<u32>,
}

/// Sends one mail, again and again, until it is told that it is stored.
struct Client {
    mail: u32,
    step: usize,
}

fn text(mail: u32) -> String {
    format!("Message-ID: <{mail}@test>\r\n\r\n{}\r\n", format!("mail {mail}\r\n..\r\n").repeat(mail as usize % 7 * 300))
}

fn call(net: &mut mainspring::Net<'_, Clients>, mail: u32) -> Key {
    net.connect("10.0.0.1:25", Client { mail, step: 0 })
}

impl Protocol<Clients> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Clients>, _: &mut Clients) -> Outcome {
        ctx.set_terminator(Terminator::line(1000));
        ctx.set_idle_timeout(20 * S);
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Clients>, all: &mut Clients, line: &[u8]) -> Outcome {
        let line = std::str::from_utf8(line)?;
        self.step += 1;
        match (self.step, line.get(..3)) {
            (1, Some("220")) => ctx.send(format!("HELO me\r\n{ENVELOPE}")),
            (2..=4, Some("250")) => {}
            (5, Some("354")) => ctx.send(format!("{}.\r\n", text(self.mail))),
            (6, Some("250")) => {
                all.acknowledged.push(self.mail);
                all.next += 1;
                self.mail = all.next;
                ctx.close();
            }
            _ => return Err(format!("step {}: {line}", self.step).into()),
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Clients>, all: &mut Clients, _: Reason) {
        let mail = self.mail;
        if !all.stop {
            ctx.net.after(S / 3, move |net, _| _ = call(net, mail));
        }
    }
}

fn arrived(root: &Path) -> Vec<u32> {
    let number = |text: &str| {
        let number: u32 = text.split_once("Message-ID: <")?.1.split_once('@')?.0.parse().ok()?;
        let whole = format!(" +0000\n{}", self::text(number).replace("\r\n", "\n").replace("..", "."));
        assert!(text.ends_with(&whole), "{number} is not as it was sent");
        Some(number)
    };
    let mut all: Vec<u32> = mails(root, "new").iter().map(|(_, text)| number(text).expect("a number")).collect();
    all.sort_unstable();
    all
}

fn relay_in(sim: &mut Sim, root: &Path) -> mainspring::testing::Host<Server> {
    let host = sim.host("10.0.0.1", Server { bytes_max: 1 << 20, ..server(root) });
    let (store, queue) = Store::open(root.to_owned(), "mx.test".into()).expect("a folder");
    let forward = Forward::new(&mut sim.net(host), "10.0.0.2:25".into(), None, &store, queue);
    sim.with(host, |net, state: &mut Server| {
        (state.forward, state.store) = (Some(forward), store);
        net.listen("10.0.0.1:25", Session::default).expect("a free port");
    });
    host
}

#[test]
fn what_was_acknowledged_arrives_and_once() {
    check(0..seeds(), |sim| {
        let [first, last] = ["first", "last"].map(|name| folder(&format!("{name}-{}", sim.seed())));
        let host = sim.host("10.0.0.2", Server { bytes_max: 1 << 20, ..server(&last) });
        sim.net(host).listen("10.0.0.2:25", Session::default).expect("a free port");
        let relay = relay_in(sim, &first);
        let home = sim.host("10.0.0.3", Clients { next: 2, ..Clients::default() });
        (0..3).for_each(|mail| _ = call(&mut sim.net(home), mail));
        sim.set_weather(Weather::rough().work(S / 50)).run_for(60 * S);
        sim.with(home, |_, all| all.stop = true);
        sim.set_weather(Weather::fair()).run_for(1500 * S);
        assert_eq!((sim.sockets(relay), sim.sockets(host), sim.sockets(home)), (1, 1, 0), "nobody is forgotten");
        assert_eq!((count(&first), mails(&last, "tmp").len()), ([0, 0, 0], 0));
        let all = arrived(&last);
        assert!(all.windows(2).all(|two| two[0] < two[1]), "one came twice: {all:?}");
        let acknowledged = &sim.state(home).acknowledged;
        assert!(acknowledged.len() > 5, "{}", acknowledged.len());
        let lost: Vec<_> = acknowledged.iter().filter(|mail| !all.contains(mail)).collect();
        assert!(lost.is_empty(), "{lost:?} of {acknowledged:?} are lost");
    });
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}
