//! The examples of Gopher: texts go there and back, an answer is the same however it is cut, and no question gets anything
//! from outside of the root.
#![no_main]

#[allow(dead_code)]
#[path = "../../examples/common/printable.rs"]
mod printable;

#[allow(dead_code)]
#[path = "../../examples/gopher/gopher.rs"]
mod gopher;
#[allow(dead_code)]
#[path = "../../examples/gopher/client/reply.rs"]
mod reply;
#[allow(dead_code)]
#[path = "../../examples/gopher/server/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../../examples/gopher/server/site.rs"]
mod site;

use gopher::{Ending, Item, Kind, Stuffer, Unstuffer, refusal};
use libfuzzer_sys::fuzz_target;
use mainspring::testing::Scene;
use mainspring_fuzz::Tape;
use reply::Reply;
use server::{Server, Visitor};
use site::Site;
use std::{
    fs,
    os::unix::fs::symlink,
    sync::{Arc, OnceLock},
    time::Duration,
};

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    match tape.below(3) {
        0 => there_and_back(tape),
        1 => any_answer(tape),
        _ => any_question(tape),
    }
});

/// Two pieces of the rest.
fn cut<'a>(tape: &mut Tape<'a>) -> [&'a [u8]; 2] {
    let at = tape.size();
    let rest = tape.rest();
    rest.split_at(at % (rest.len() + 1)).into()
}

fn there_and_back(mut tape: Tape<'_>) {
    let pieces = cut(&mut tape);
    let (mut stuffer, mut sent) = (Stuffer::new(), Vec::new());
    for piece in pieces {
        stuffer.push(piece, &mut sent);
    }
    stuffer.finish(&mut sent);
    let (mut unstuffer, mut received) = (Unstuffer::new(), Vec::new());
    unstuffer.push(&sent, &mut received);
    assert!(unstuffer.is_done() && unstuffer.ending() == Ending::Complete);
    let mut text = String::from_utf8_lossy(&pieces.concat()).replace("\r\n", "\n");
    if !text.is_empty() && !text.ends_with('\n') {
        text = text.strip_suffix('\r').unwrap_or(&text).to_owned() + "\n";
    }
    assert_eq!(String::from_utf8_lossy(&received), text);
}

fn any_answer(mut tape: Tape<'_>) {
    let kind = tape.once_in(2).then(|| Kind::of(tape.byte()));
    let is_on_terminal = tape.once_in(2);
    let pieces = cut(&mut tape);
    let whole = pieces.concat();
    let made = |pieces: &[&[u8]]| {
        let (mut reply, mut out) = (Reply::new(("host".into(), 70), kind, is_on_terminal), Vec::new());
        for piece in pieces {
            reply.push(piece, &mut out);
        }
        reply.end(&mut out);
        (out, reply.verdict())
    };
    assert_eq!(made(&pieces), made(&[&whole]));
    refusal(&whole);
    for line in String::from_utf8_lossy(&whole).lines() {
        let Some(item) = Item::parse(line) else { continue };
        let written = item.to_string();
        let again = Item::parse(written.strip_suffix("\r\n").expect("the end of a line")).expect("what we write we read");
        assert_eq!(again.to_string(), written);
    }
}

const AT: &str = "127.0.0.1:70";
const SECRET: &str = "not to be seen";

/// A small site, and beside it a secret that links lead to.
fn site() -> Arc<Site> {
    static SITE: OnceLock<Arc<Site>> = OnceLock::new();
    Arc::clone(SITE.get_or_init(|| {
        let place = std::env::temp_dir().join("mainspring-fuzz-gopher");
        let root = place.join("root");
        fs::create_dir_all(root.join("a/b")).expect("writable");
        fs::create_dir_all(root.join(".h")).expect("writable");
        for (name, text) in [("../s.txt", SECRET), ("a/t.txt", "text"), (".h/s.txt", SECRET), (".s.txt", SECRET)] {
            fs::write(root.join(name), text).expect("writable");
        }
        for (name, to) in [("in", "a"), ("out", ".."), ("s", "../s.txt"), ("h", ".h"), ("a/up", "..")] {
            let _ = symlink(to, root.join(name)); // there already, of an earlier run
        }
        Arc::new(Site::new(&root).expect("it was just made"))
    }))
}

const WORDS: [&str; 16] = ["/", "/", "..", ".", "a", "b", "t.txt", "in", "out", "s", "s.txt", "h", ".h", "up", "search\t", "not"];

fn any_question(mut tape: Tape<'_>) {
    let mut question = Vec::new();
    while !tape.is_over() {
        match tape.below(20) {
            word if word < WORDS.len() => question.extend_from_slice(WORDS[word].as_bytes()),
            _ => question.push(tape.byte()),
        }
    }
    let is_asked = question.contains(&b'\n');
    let ask = |piece_bytes: usize| {
        let server = Server { site: site(), searches: Arc::default(), host: None, patience: Duration::from_secs(60) };
        let mut scene = Scene::new(0, server);
        scene.sim().keep_trace(false);
        scene.net().listen(AT, || Visitor).expect("a free port");
        let peer = scene.dials(AT);
        for piece in question.chunks(piece_bytes) {
            scene.says(peer, piece);
        }
        (scene.takes(peer), scene.connections() == 0)
    };
    let (answer, has_ended) = ask(question.len().max(1));
    assert_eq!(ask(1), (answer.clone(), has_ended));
    let text = String::from_utf8(answer).expect("there are only texts and menus");
    assert!(!text.contains(SECRET), "{}", question.escape_ascii());
    assert!(if has_ended { text.ends_with(".\r\n") } else { text.is_empty() && !is_asked }, "{text}");
}
