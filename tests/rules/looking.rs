//! What one can see of a connection without disturbing it.

use crate::common::{
    Call, Journal, Nothing, On, guest, listen, next_connected, quiet, recorder, reset, say, settle, start, until_net,
};
use mainspring::{Key, Net, Reactor};
use std::net::{Shutdown, TcpStream};

/// A guest that is paused, and its peer.
fn paused(reactor: &mut Reactor<Journal>, journal: &mut Journal) -> (Key, TcpStream) {
    let (key, peer) = guest(reactor, journal, quiet);
    reactor.net().link(key).expect("it is open").pause();
    (key, peer)
}

fn peer_ended(net: &mut Net<'_, Journal>, key: Key) -> bool {
    net.link(key).expect("it is open").peer_ended()
}

#[test]
fn the_end_of_a_peer_is_seen_while_reading_is_off() {
    // Wine sees an end when what stands before it is read.
    for says in if cfg!(windows) { &[""][..] } else { &["", "what nobody reads"] } {
        let (mut reactor, mut journal) = start();
        let (key, peer) = paused(&mut reactor, &mut journal);
        say(&peer, says);
        settle(&mut reactor, &mut journal);
        assert!(!peer_ended(&mut reactor.net(), key), "it has only spoken");
        peer.shutdown(Shutdown::Write).expect("it is connected");
        until_net(&mut reactor, &mut journal, |net, _| peer_ended(net, key));
        assert_eq!(journal.of(key).len(), 1, "nothing was delivered");
        reactor.net().link(key).expect("it is open").resume();
        until_net(&mut reactor, &mut journal, |_, journal| journal.of(key).last() == Some(&Call::Eof(vec![])));
        assert!(peer_ended(&mut reactor.net(), key), "nor is it forgotten");
    }
}

/// What it said and its end came in one.
#[test]
#[cfg_attr(windows, ignore = "Wine: an end is seen when what stands before it is read")]
fn the_end_of_a_peer_is_seen_behind_what_it_said() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = paused(&mut reactor, &mut journal);
    say(&peer, "last words");
    drop(peer);
    until_net(&mut reactor, &mut journal, |net, _| peer_ended(net, key));
    assert_eq!(journal.of(key).len(), 1);
}

#[cfg(unix)]
#[test]
fn the_end_of_a_peer_is_seen_on_a_unix_socket_too() {
    let (mut reactor, mut journal) = start();
    let at = std::env::temp_dir().join(format!("mainspring-looking-{}", std::process::id()));
    reactor.net().listen(at.as_path(), || recorder(quiet as On)).expect("a path");
    let peer = std::os::unix::net::UnixStream::connect(&at).expect("somebody listens");
    let key = next_connected(&mut reactor, &mut journal, 0);
    reactor.net().link(key).expect("it is open").pause();
    settle(&mut reactor, &mut journal);
    assert!(!peer_ended(&mut reactor.net(), key));
    peer.shutdown(Shutdown::Write).expect("it is connected");
    until_net(&mut reactor, &mut journal, |net, _| peer_ended(net, key));
}

/// Of one that we opened, also by a name with several addresses: what became of the others says nothing.
#[test]
fn who_has_just_been_connected_has_not_ended() {
    for target in ["127.0.0.1", "localhost"] {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen::<_, Nothing>(&mut reactor, || Nothing);
        let key = reactor.net().connect((target, at.port()), recorder(quiet as On));
        until_net(&mut reactor, &mut journal, |_, journal| journal.has(&Call::Connected));
        settle(&mut reactor, &mut journal);
        assert!(!peer_ended(&mut reactor.net(), key));
    }
}

#[test]
fn a_reset_ends_who_is_paused_and_needs_no_look() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = paused(&mut reactor, &mut journal);
    reset(peer);
    until_net(&mut reactor, &mut journal, |net, _| !net.is_open(key));
}

#[cfg(feature = "sim")]
mod simulated {
    use crate::common::{Call, Ctx, Journal, On, SECOND, dialogue, quiet, recorder};
    use mainspring::{
        Context, Key, Outcome, Protocol, Terminator,
        testing::{Fate, Scene, Transcript},
    };
    use std::time::Duration;

    #[test]
    fn in_the_simulated_world_the_end_of_a_peer_is_seen_too() {
        let mut t = dialogue(|ctx, _, call| {
            if let Call::Received(_) = call {
                ctx.pause();
            }
            Ok(())
        });
        t.receives("x").receives("unread");
        let key = t.key();
        let ended = |t: &mut Transcript<_, Journal>| t.scene().net().link(key).expect("it is open").peer_ended();
        assert!(!ended(&mut t));
        t.peer_ends();
        assert!(ended(&mut t));
    }

    /// All sockets of a race share the connection's token.
    #[test]
    fn what_became_of_another_address_says_nothing_of_the_one_that_was_reached() {
        for fate in [Fate::Refused, Fate::Silent] {
            let mut scene = Scene::new(0, Journal::default());
            scene.name("two.test", &["10.0.0.8", "10.0.0.9"]).set_fate("10.0.0.8:1", fate);
            let server = scene.serves("10.0.0.9:1");
            let key = scene.net().connect("two.test:1", recorder(quiet as On));
            scene.passes(SECOND).says(server, "hello");
            assert!(!scene.net().link(key).expect("it is open").peer_ended());
            scene.ends(server);
            assert!(scene.net().link(key).expect("it is open").peer_ended());
        }
    }

    // ------------------------------------------------------------------------------------------------------ peek

    struct Member(u32);

    impl Protocol<Vec<Key>> for Member {
        fn connected(&mut self, ctx: &mut Context<'_, Vec<Key>>, keys: &mut Vec<Key>) -> Outcome {
            keys.push(ctx.key);
            Ok(())
        }

        fn received(&mut self, ctx: &mut Context<'_, Vec<Key>>, keys: &mut Vec<Key>, _: &[u8]) -> Outcome {
            self.0 += 1;
            let seen: Vec<_> = keys.iter().map(|&key| ctx.net.peek::<Self>(key).map(|other| other.0)).collect();
            ctx.send(format!("{seen:?}"));
            Ok(())
        }
    }

    struct Other;

    impl Protocol<Vec<Key>> for Other {}

    #[test]
    fn another_protocol_can_be_looked_at_and_ones_own_not() {
        let mut scene = Scene::new(0, Vec::new());
        scene.net().listen("127.0.0.1:1", || Member(0)).expect("a simulated port is free");
        let [one, other] = [0; 2].map(|_| scene.dials("127.0.0.1:1"));
        scene.says(one, "x").hears(one, "[None, Some(0)]");
        scene.says(other, "x").hears(other, "[Some(1), None]");
        let [a, b] = scene.state()[..] else { panic!("two have come") };
        assert_eq!(scene.net().peek::<Member>(a).map(|member| member.0), Some(1), "between callbacks");
        assert!(scene.net().peek::<Other>(a).is_none(), "of another type");
        scene.net().close(b);
        assert!(scene.net().peek::<Member>(b).is_none(), "it has begun to end");
        scene.settles();
        assert!(scene.net().peek::<Member>(b).is_none(), "it is gone");
        let connecting = scene.net().connect("127.0.0.1:9", Member(7));
        assert_eq!(scene.net().peek::<Member>(connecting).map(|member| member.0), Some(7), "also while connecting");
        let listener = scene.net().connections().iter().find(|one| one.peer.to_string() == "127.0.0.1:1").expect("it").key;
        assert!(scene.net().peek::<Member>(listener).is_none());
    }

    #[test]
    fn a_successor_is_looked_at_by_its_own_type() {
        let mut scene = Scene::new(0, Vec::new());
        scene.net().listen("127.0.0.1:1", || Member(3)).expect("a simulated port is free");
        let _peer = scene.dials("127.0.0.1:1");
        let key = scene.settles().state()[0];
        scene.net().tell(key, |_: &mut Member, ctx, _| {
            ctx.upgrade(Other);
            Ok(())
        });
        scene.settles();
        assert!(scene.net().peek::<Member>(key).is_none() && scene.net().peek::<Other>(key).is_some());
    }

    // ------------------------------------------------------------------------------------------------ how long ago

    fn silent_for(scene: &mut Scene<Journal>, key: Key) -> Duration {
        scene.net().link(key).expect("it is open").silent_for()
    }

    /// With a time-out, with none, paused.
    #[test]
    fn the_time_since_the_last_byte_is_known_of_whom_one_asks() {
        for idle in [Some(3600 * SECOND), None] {
            let mut t = dialogue(move |ctx, _, call| {
                if *call == Call::Connected {
                    ctx.set_idle_timeout(idle);
                }
                Ok(())
            });
            let key = t.key();
            t.passes(2 * SECOND);
            assert_eq!(silent_for(t.scene(), key), 2 * SECOND, "since it came");
            t.receives("x").passes(5 * SECOND);
            assert_eq!(silent_for(t.scene(), key), 5 * SECOND);
            t.scene().net().send(key, "ours");
            t.passes(SECOND);
            assert_eq!(silent_for(t.scene(), key), 6 * SECOND, "what we say does not count");
            t.scene().net().link(key).expect("it is open").pause();
            t.passes(SECOND);
            assert_eq!(silent_for(t.scene(), key), 7 * SECOND, "nor does a pause");
        }
    }

    /// It has to be kept from some time on.
    #[test]
    fn of_one_that_was_never_asked_and_has_nothing_to_time_it_counts_from_the_question() {
        let mut t = dialogue(quiet);
        let key = t.key();
        t.receives("x").passes(SECOND);
        assert_eq!(silent_for(t.scene(), key), Duration::ZERO);
        t.passes(SECOND);
        assert_eq!(silent_for(t.scene(), key), SECOND);
        t.receives("x").passes(3 * SECOND);
        assert_eq!(silent_for(t.scene(), key), 3 * SECOND);
    }

    // --------------------------------------------------------------------------------------------- how long it took

    /// How long each frame took, in seconds, as it is delivered.
    #[derive(Default)]
    struct Ages {
        ages: Vec<(String, u64)>,
    }

    impl Protocol for Ages {
        fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
            ctx.set_terminator(Terminator::line(100));
            ctx.set_frame_timeout(3600 * SECOND);
            Ok(())
        }

        fn frame(&mut self, ctx: &mut Context<'_>, (): &mut (), line: &[u8]) -> Outcome {
            self.ages.push((String::from_utf8_lossy(line).into_owned(), ctx.frame_age().as_secs()));
            Ok(())
        }
    }

    #[test]
    fn the_age_of_a_frame_holds_under_every_cut() {
        let text = b"one\ntwo\n\nfour\n";
        let begins = [0, 4, 8, 9];
        let ends = [4, 8, 9, 14];
        // Bytes that come in three pieces, a second after each other.
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut t = Transcript::new(Ages::default());
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    t.receives(piece).passes(SECOND);
                }
                let when = |at: usize| u64::from(at >= first) + u64::from(at >= second);
                let expected: Vec<u64> = begins.iter().zip(ends).map(|(&begin, end)| when(end - 1) - when(begin)).collect();
                let ages: Vec<u64> = t.protocol().expect("it is open").ages.iter().map(|(_, age)| *age).collect();
                assert_eq!(ages, expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_frame_does_not_age_while_reading_is_off() {
        let mut t = Transcript::new(Ages::default());
        let key = t.key();
        t.receives("on").passes(SECOND);
        t.scene().net().link(key).expect("it is open").pause();
        t.passes(10 * SECOND).receives("e\n");
        t.scene().net().link(key).expect("it is open").resume();
        t.settles();
        assert_eq!(t.protocol().expect("it is open").ages, [("one".to_owned(), 1)]);
    }

    #[test]
    fn without_a_frame_time_out_there_is_no_age() {
        let mut t = dialogue(|ctx: &mut Ctx<'_>, _, call| {
            match call {
                Call::Connected => {
                    ctx.set_terminator(Terminator::line(100));
                    ctx.set_idle_timeout(3600 * SECOND);
                }
                Call::Frame(_) => assert_eq!(ctx.frame_age(), Duration::ZERO),
                _ => {}
            }
            Ok(())
        });
        t.receives("on").passes(SECOND).receives("e\n").stays_open();
    }
}
