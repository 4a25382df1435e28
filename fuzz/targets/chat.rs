//! The protocol of the example `chat`: some guests say what the fuzzer says, in any pieces.
#![no_main]

#[allow(dead_code)]
#[path = "../../examples/chat.rs"]
mod chat;

use chat::{Guest, Room};
use libfuzzer_sys::fuzz_target;
use mainspring::testing::{Scene, Transcript};
use mainspring_fuzz::Tape;

const AT: &str = "127.0.0.1:7001";

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape::new(data);
    if tape.once_in(2) { one_guest(tape) } else { several(tape) }
});

/// The same bytes are answered alike, whole and cut.
fn one_guest(mut tape: Tape<'_>) {
    let cuts: Vec<usize> = (0..tape.below(6)).map(|_| tape.size()).collect();
    let said = tape.rest();
    let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at % (said.len() + 1)).chain([0, said.len()]).collect();
    cuts.sort_unstable();
    let whole = answers(&[said]);
    let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &said[pair[0]..pair[1]]).collect();
    assert_eq!(answers(&pieces).escape_ascii().to_string(), whole.escape_ascii().to_string());
}

fn answers(pieces: &[&[u8]]) -> Vec<u8> {
    let mut scene = Scene::new(0, Room::default());
    scene.sim().keep_trace(false);
    scene.net().listen(AT, || Guest).expect("a free port");
    let peer = scene.dials(AT);
    for piece in pieces {
        scene.says(peer, piece);
    }
    scene.ends(peer).hears_some(peer, usize::MAX)
}

/// Nobody hears what could do anything to a terminal; a name belongs to one guest at a time, and goes with its guest.
fn several(mut tape: Tape<'_>) {
    let mut t = Transcript::<Guest, Room>::new(Guest);
    let scene = t.scene();
    scene.sim().keep_trace(false);
    scene.net().listen(AT, || Guest).expect("a free port");
    let peers: Vec<_> = (0..3).map(|_| scene.dials(AT)).collect();
    let mut is_here = [true; 3];
    while !tape.is_over() {
        let n = tape.below(peers.len());
        let (peer, length) = (peers[n], 1 + tape.below(60));
        match tape.below(32) {
            _ if !is_here[n] => {}
            0 => {
                scene.resets(peer);
                is_here[n] = false;
            }
            1 => {
                scene.ends(peer);
                is_here[n] = false;
            }
            _ => _ = scene.says(peer, tape.bytes(length)),
        }
        for &peer in &peers {
            let heard = String::from_utf8(scene.hears_some(peer, usize::MAX)).expect("only text is passed on");
            assert!(heard.chars().all(|c| c == '\n' || !c.is_control()), "{heard:?}");
        }
        let names = scene.state().names.clone();
        assert!(names.keys().all(|&key| scene.net().is_open(key)), "a guest who has left is still in the room");
        let mut all: Vec<&String> = names.values().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), names.len(), "two guests have one name");
    }
    for (n, &peer) in peers.iter().enumerate() {
        if is_here[n] {
            scene.ends(peer);
        }
    }
    t.peer_ends();
    assert!(t.state().names.is_empty());
}
