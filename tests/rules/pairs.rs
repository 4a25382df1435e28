//! Two connections that are one stream: what passes, and how they end together.

use crate::common::{
    ABORTED, Call, Ctx, FINISHED, Journal, On, PEER_FINISHED, Recorded, SECOND, STUFFED, dialogue, eof, frame, piece, quiet,
    recorder,
};
use mainspring::{
    Config, Context, Key, Limit, Listen, Outcome, Protocol, Reason, Terminator,
    testing::{Actor, Scene, Weather, check},
};

const FRONT: &str = "127.0.0.1:1";
const BACK: &str = "127.0.0.1:9";

/// A client, a server, and between them two connections of the reactor.
struct Proxy {
    scene: Scene<Journal>,
    client: Actor,
    server: Actor,
    front: Key,
    back: Key,
}

fn proxy() -> Proxy {
    Proxy::with(Config::new(), Listen::new(), quiet, quiet)
}

impl Proxy {
    /// `front` and `back` say what their protocols do; they are a pair at once, while the back is still connecting.
    fn with(config: Config, options: Listen, front: On, back: On) -> Self {
        let mut scene = Scene::with_config(0, Journal::default(), config.linger_max(SECOND));
        let calls = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
            front(ctx, journal, call)?;
            if *call == Call::Connected {
                let (own, back) = (ctx.key, ctx.net.connect(BACK, recorder(back)));
                assert!(ctx.net.pair(own, back));
            }
            Ok(())
        };
        scene.net().listen_with(FRONT, options, move |_, _, _| Ok(recorder(calls))).expect("a simulated port is free");
        let server = scene.serves(BACK);
        let client = scene.dials(FRONT);
        let keys = scene.settles().state().keys();
        let [front, back] = keys[..] else { panic!("two are connected: {keys:?}") };
        Self { scene, client, server, front, back }
    }

    /// What each was called with after `connected`.
    fn calls(&mut self) -> [Vec<Call>; 2] {
        let (front, back) = (self.front, self.back);
        let journal = self.scene.settles().state();
        [front, back].map(|key| journal.of(key)[1..].to_vec())
    }
}

fn closed(why: &str) -> Call {
    Call::Closed(why.to_owned())
}

#[test]
fn what_either_receives_goes_to_the_other_and_no_protocol_is_asked() {
    let mut p = proxy();
    p.scene.says(p.client, "question").hears(p.server, "question");
    p.scene.says(p.server, "answer").hears(p.client, "answer");
    assert_eq!(p.calls(), [[], []]);
}

#[test]
fn the_end_of_one_direction_is_passed_on_and_with_both_the_two_close() {
    let mut p = proxy();
    p.scene.says(p.client, "question").ends(p.client).hears(p.server, "question").hears_end(p.server);
    assert_eq!(p.calls(), [[], []], "the other direction goes on");
    p.scene.says(p.server, "answer").ends(p.server).hears(p.client, "answer").hears_end(p.client);
    let [front, back] = p.calls();
    assert_eq!((&front[..], &back[..]), (&[closed(PEER_FINISHED)][..], &[closed(FINISHED)][..]));
    assert_eq!(p.scene.connections(), 0);
}

#[test]
fn what_breaks_off_here_breaks_off_there_after_closed() {
    for by_front in [true, false] {
        let mut p = proxy();
        p.scene.says(p.client, "question").hears(p.server, "question");
        let (one, other) = if by_front { (p.client, p.server) } else { (p.server, p.client) };
        p.scene.resets(one).hears_reset(other);
        let [front, back] = p.calls();
        let (first, second) = if by_front { (front, back) } else { (back, front) };
        assert_eq!(second, [closed(ABORTED)]);
        assert!(matches!(&first[..], [Call::Closed(why)] if why != ABORTED), "{first:?}");
        let order: Vec<Key> = p.scene.state().calls.iter().map(|(key, _)| *key).collect();
        let broken = if by_front { p.front } else { p.back };
        assert_eq!(order[2], broken, "`closed` of the one comes first");
    }
}

/// Nothing was queued, and its own peer got a FIN: a part looked like the whole.
#[test]
fn who_ends_by_an_error_of_its_own_resets_both_ends() {
    let idle: On = |ctx, _, call| match call {
        Call::Connected => {
            ctx.set_idle_timeout(10 * SECOND);
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    };
    for (front, back) in [(idle, quiet as On), (quiet, idle)] {
        let mut p = Proxy::with(Config::new(), Listen::new(), front, back);
        p.scene.says(p.server, "half of it").hears(p.client, "half of it").passes(20 * SECOND);
        p.scene.hears_reset(p.client).hears_reset(p.server);
    }
}

#[test]
fn last_words_before_a_reset_are_passed_on() {
    let mut p = proxy();
    p.scene.says(p.client, "last words").resets(p.client);
    assert_eq!(p.scene.takes(p.server), b"last words");
    p.scene.hears_reset(p.server);
}

#[test]
fn a_connect_that_fails_breaks_off_who_is_paired_with_it() {
    let mut scene = Scene::new(0, Journal::default());
    let on = |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if *call == Call::Connected {
            let (own, back) = (ctx.key, ctx.net.connect(BACK, recorder(quiet as On)));
            assert!(ctx.net.pair(own, back));
        }
        Ok(())
    };
    scene.net().listen(FRONT, move || recorder(on)).expect("a simulated port is free");
    let client = scene.dials(FRONT);
    scene.hears_reset(client);
}

/// What was queued on it leaves first; its mate has nobody to speak to any more.
#[test]
fn a_clean_end_of_the_one_closes_the_other_politely() {
    let mut p = proxy();
    p.scene.says(p.client, "question").net().close(p.front);
    p.scene.hears_end(p.client).hears(p.server, "question").hears_end(p.server);
    assert_eq!(p.calls(), [[closed(FINISHED)], [closed(FINISHED)]]);
}

/// In its `closed` a protocol may have the other do something other than break off.
#[test]
fn who_has_begun_to_end_goes_on_with_that_when_its_mate_has_ended() {
    let mut p = Proxy::with(Config::new(), Listen::new(), quiet, |ctx, journal, call| {
        if let Call::Closed(_) = call {
            let front = journal.calls[0].0;
            ctx.net.send(front, "502\n");
            ctx.net.close(front);
        }
        Ok(())
    });
    p.scene.resets(p.server).hears(p.client, "502\n").hears_end(p.client);
    assert_eq!(p.calls()[0], [closed(FINISHED)]);
}

#[test]
fn each_is_read_while_the_other_can_take_it_and_nothing_is_lost() {
    // Also where the cap is the high mark, and where both are smaller than a read.
    for (low, high, cap) in [(16 << 10, 64 << 10, 1 << 20), (0, 0, 0), (0, 100, 100), (10, 1000, 1000)] {
        let mut p = Proxy::with(Config::new().output_limits(low, high, cap), Listen::new(), quiet, quiet);
        p.scene.set_weather(Weather::fair().window(2_000));
        let all: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for (from, to) in [(p.client, p.server), (p.server, p.client)] {
            p.scene.reads(to, false);
            let mut said = 0;
            // As much as is taken in all: the marks, and three windows.
            while said < high + 3_000 {
                p.scene.says(from, &all[said..said + 500]);
                said += 500;
            }
            let [front, back] = [p.front, p.back].map(|key| p.scene.net().link(key).expect("it is open").queued());
            assert!(front <= high + 1 && back <= high + 1, "{front} and {back} are queued, above {high}");
            p.scene.reads(to, true);
            assert!(p.scene.takes(to) == all[..said], "all of it, in order");
        }
        let made: Vec<Vec<Call>> =
            p.calls().map(|calls| calls.into_iter().filter(|call| *call != Call::Writable).collect()).into();
        assert_eq!(made, [[], []]);
    }
}

#[test]
fn the_two_directions_do_not_wait_for_each_other() {
    let mut p = proxy();
    p.scene.reads(p.client, false).net().send(p.front, vec![b'.'; STUFFED]);
    assert!(p.scene.settles().net().link(p.front).expect("it is open").is_congested());
    p.scene.says(p.client, "and more").hears(p.server, "and more");
}

#[test]
fn one_is_idle_when_neither_has_received_anything() {
    for speaks in [0, 1] {
        let idle: On = |ctx, _, call| {
            if *call == Call::Connected {
                ctx.set_idle_timeout(10 * SECOND);
            }
            Ok(())
        };
        let mut p = Proxy::with(Config::new(), Listen::new(), idle, idle);
        let who = [p.client, p.server][speaks];
        for _ in 0..5 {
            p.scene.passes(9 * SECOND).says(who, ".");
        }
        assert_eq!(p.calls(), [[], []], "the one that is silent is not idle");
        p.scene.passes(10 * SECOND);
        assert_eq!(p.calls(), [[Call::Exceeded(Limit::Idle)], [Call::Exceeded(Limit::Idle)]]);
    }
}

/// The front's protocol hears of lines, and from a `bye` on it is not asked any more.
fn looks(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    let other = |journal: &Journal| journal.calls.iter().map(|(key, _)| *key).find(|key| *key != journal.calls[0].0);
    match call {
        Call::Connected => ctx.set_terminator(Terminator::line(100)),
        Call::Frame(line) => {
            let back = other(journal).expect("it is connected");
            ctx.net.send(back, format!("{}!\n", String::from_utf8_lossy(line)));
            if line == b"bye" {
                ctx.set_terminator(Terminator::None);
            }
        }
        Call::Eof(tail) => _ = ctx.net.send(other(journal).expect("it is connected"), tail),
        _ => {}
    }
    Ok(())
}

#[test]
fn what_a_terminator_cuts_is_the_protocols_and_the_rest_is_passed_on() {
    let mut p = Proxy::with(Config::new(), Listen::new(), looks, quiet);
    p.scene.says(p.server, "hello\n").hears(p.client, "hello\n");
    p.scene.says(p.client, "one\ntw").hears(p.server, "one!\n");
    p.scene.says(p.client, "o\nbye\nall the rest\n").hears(p.server, "two!\nbye!\nall the rest\n");
    p.scene.says(p.client, "and more").hears(p.server, "and more");
    assert_eq!(p.calls(), [vec![frame("one"), frame("two"), frame("bye")], vec![]]);
}

#[test]
fn an_end_that_is_the_protocols_is_passed_on_behind_what_it_sends() {
    let mut p = Proxy::with(Config::new(), Listen::new(), looks, quiet);
    p.scene.says(p.client, "one\ntai").ends(p.client).hears(p.server, "one!\ntai").hears_end(p.server);
    assert_eq!(p.calls()[0], [frame("one"), eof("tai")]);
}

/// Counting what passes is a terminator that hands everything over.
#[test]
fn pieces_of_a_stream_are_the_protocols() {
    let mut p = Proxy::with(Config::new(), Listen::new(), quiet, |ctx, journal, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::Stream(u64::MAX)),
            Call::Received(bytes) => _ = ctx.net.send(journal.calls[0].0, bytes),
            _ => {}
        }
        Ok(())
    });
    p.scene.says(p.server, "counted").hears(p.client, "counted");
    assert_eq!(p.calls(), [vec![], vec![piece("counted")]]);
}

#[test]
fn a_pair_is_of_two_that_are_open_and_have_no_other_partner() {
    let mut p = proxy();
    let third = p.scene.dials_deaf(FRONT);
    let key = p.scene.settles().state().keys()[2];
    let (front, back) = (p.front, p.back);
    let mut net = p.scene.net();
    assert!(!net.pair(front, front), "with itself");
    assert!(!net.pair(front, key) && !net.pair(key, back), "it has another partner");
    assert!(net.pair(front, back) && net.pair(back, front), "it is one already");
    net.abort(front);
    assert!(!net.pair(front, back), "one has begun to end");
    p.scene.settles();
    assert!(!p.scene.net().pair(front, back), "both are gone");
    p.scene.closes(third);
}

#[test]
fn an_end_that_was_told_before_is_passed_on() {
    let mut scene = Scene::new(0, Journal::default());
    for port in [1, 2] {
        scene.net().listen(format!("127.0.0.1:{port}"), || recorder(quiet as On)).expect("a simulated port is free");
    }
    let [one, other] = [1, 2].map(|port| scene.dials(&format!("127.0.0.1:{port}")));
    let [a, b] = [0, 1].map(|at| scene.settles().state().keys()[at]);
    scene.says(one, "to the protocol").ends(one);
    assert!(scene.net().pair(a, b));
    scene.settles().hears_end(other).says(other, "heard").hears(one, "heard");
}

/// What was received before belongs to the pair if it was not delivered.
#[test]
fn what_waits_for_a_pause_to_be_taken_back_is_passed_on() {
    let mut p = Proxy::with(
        Config::new(),
        Listen::new(),
        |ctx, _, call| {
            if *call == Call::Connected {
                ctx.pause();
            }
            Ok(())
        },
        quiet,
    );
    p.scene.says(p.client, "early").ends(p.client).hears(p.server, "");
    p.scene.net().link(p.front).expect("it is open").resume();
    p.scene.hears(p.server, "early").hears_end(p.server);
}

#[test]
fn an_upgrade_leaves_them_a_pair() {
    let mut scene = Scene::new(0, Journal::default());
    let server = scene.serves(BACK);
    let on = |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if *call == Call::Connected {
            let (own, back) = (ctx.key, ctx.net.connect(BACK, recorder(quiet as On)));
            assert!(ctx.net.pair(own, back));
            ctx.set_terminator(Terminator::line(10));
            ctx.upgrade(recorder(quiet as On));
        }
        Ok(())
    };
    scene.net().listen(FRONT, move || recorder(on)).expect("a simulated port is free");
    let client = scene.dials(FRONT);
    scene.says(client, "question").hears(server, "question");
    scene.reads(client, false).says(server, "answer");
    let (front, back) = (scene.state().keys()[0], scene.state().keys()[1]);
    // Still throttled, and holding nothing back.
    scene.net().send(front, vec![b'.'; STUFFED]);
    scene.says(client, "more").hears(server, "more").says(server, "waits");
    assert_eq!(scene.net().link(back).expect("it is open").unread(), 0, "the back is not read");
    scene.resets(client).hears_reset(server);
}

#[test]
fn a_drain_closes_a_pair_on_which_nothing_was_said_and_no_other() {
    let default: On = |ctx, _, call| {
        if *call == Call::Draining {
            ctx.close_when_quiet();
        }
        Ok(())
    };
    let mut p = Proxy::with(Config::new(), Listen::new(), default, default);
    let (silent, other) = (p.client, p.server);
    p.scene.net().drain(3600 * SECOND);
    p.scene.passes(SECOND).hears_end(silent).hears_end(other);
    assert_eq!(p.scene.connections(), 0);

    let mut p = Proxy::with(Config::new(), Listen::new(), default, default);
    p.scene.says(p.client, "question").says(p.server, "an answer, and");
    p.scene.net().drain(3600 * SECOND);
    p.scene.passes(600 * SECOND).says(p.server, " what follows").ends(p.server);
    p.scene.hears(p.client, "an answer, and what follows").hears_end(p.client).ends(p.client).hears(p.server, "question");
    p.scene.passes(SECOND);
    assert_eq!(p.scene.connections(), 0);
}

/// Each was sent something since it received something, and yet neither has had an answer.
#[test]
fn a_pair_on_which_both_spoke_at_once_is_not_quiet() {
    let mut p = proxy();
    let keys = [p.front, p.back];
    for key in keys {
        p.scene.net().link(key).expect("it is open").pause();
    }
    p.scene.says(p.client, "from here").says(p.server, "from there");
    for key in keys {
        p.scene.net().link(key).expect("it is open").resume();
    }
    p.scene.hears(p.client, "from there").hears(p.server, "from here");
    p.scene.net().link(p.front).expect("it is open").close_when_quiet();
    p.scene.passes(SECOND);
    assert_eq!(p.scene.connections(), 2);
}

const CAP: usize = 1 << 20;

/// Of one that has lost its connection, while its mate can take no more.
#[test]
fn who_is_lost_does_not_wait_for_its_mate() {
    let mut p = proxy();
    p.scene.reads(p.server, false).net().send(p.back, vec![b'.'; STUFFED]);
    let queued = p.scene.settles().net().link(p.back).expect("it is open").queued();
    p.scene.net().send(p.back, vec![b'.'; CAP - queued]);
    p.scene.says(p.client, "never read").resets(p.client);
    let [front, back] = p.calls();
    assert!(matches!(&front[..], [Call::Closed(_)]), "{front:?}");
    assert_eq!(back, [closed(&Reason::Abort.to_string())]);
}

/// What comes after a throttle of the pair was taken back is not waited for: the cap decides, as with any other send.
#[test]
fn without_its_throttle_the_cap_decides() {
    let mut p = proxy();
    p.scene.reads(p.server, false);
    p.scene.net().unthrottle(p.front, p.back);
    p.scene.net().send(p.back, vec![b'.'; 900_000]);
    for _ in 0..200 {
        if p.scene.settles().connections() == 0 {
            break;
        }
        p.scene.says(p.client, vec![b'.'; 4_000]);
    }
    assert_eq!(p.calls()[1], [closed(&Reason::Overflow.to_string())]);
}

/// In whatever weather: what comes through is a part of it from the front, a clean end means all of it, and nobody is left.
#[test]
fn what_comes_through_is_a_prefix_and_a_clean_end_is_all_of_it() {
    check(0..20, |sim| {
        let server = sim.host("10.0.0.1", Tally::default());
        sim.net(server).listen("10.0.0.1:1", || Echo).expect("a simulated port is free");
        let config = Config::new().output_limits(100, 1_000, 1_000).linger_max(SECOND);
        let proxy = sim.host_with("10.0.0.2", (), config);
        sim.net(proxy).listen("10.0.0.2:1", || Front).expect("a simulated port is free");
        let client = sim.host("10.0.0.3", Tally::default());
        for _ in 0..5 {
            sim.net(client).connect("10.0.0.2:1", Caller { heard: 0 });
        }
        sim.set_weather(Weather::rough());
        sim.run_for(60 * SECOND);
        sim.set_weather(Weather::fair());
        sim.run_for(600 * SECOND);
        let Tally { whole, broken } = *sim.state(client);
        assert_eq!(whole + broken, 5, "{whole} whole");
        assert_eq!(sim.net(proxy).stats().connections, 0);
    });
}

#[derive(Default)]
struct Tally {
    whole: u32,
    broken: u32,
}

struct Front;

impl Protocol for Front {
    fn connected(&mut self, ctx: &mut Context<'_>, (): &mut ()) -> Outcome {
        let (front, back) = (ctx.key, ctx.net.connect("10.0.0.1:1", Back));
        assert!(ctx.net.pair(front, back));
        Ok(())
    }
}

struct Back;

impl Protocol for Back {}

struct Echo;

impl Protocol<Tally> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

struct Caller {
    heard: usize,
}

const ALL: usize = 100_000;

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

impl Protocol<Tally> for Caller {
    fn connected(&mut self, ctx: &mut Context<'_, Tally>, _: &mut Tally) -> Outcome {
        ctx.set_idle_timeout(300 * SECOND);
        ctx.set_stall_timeout(300 * SECOND);
        ctx.send((0..ALL).map(byte).collect::<Vec<u8>>());
        ctx.half_close();
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Tally>, _: &mut Tally, bytes: &[u8]) -> Outcome {
        assert!(bytes.iter().enumerate().all(|(at, &is)| is == byte(self.heard + at)), "none is missing, and none is twice");
        self.heard += bytes.len();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Tally>, tally: &mut Tally, why: Reason) {
        if why.is_clean() {
            assert_eq!(self.heard, ALL, "{why}");
            tally.whole += 1;
        } else {
            tally.broken += 1;
        }
    }
}

/// One looks at the first bytes, and then knows where they belong: what it put back stayed behind, and was lost with the end.
#[test]
fn what_was_put_back_goes_to_the_partner_whenever_they_become_a_pair() {
    for later in [false, true] {
        let shared = std::rc::Rc::new(std::cell::Cell::new(None));
        let found = std::rc::Rc::clone(&shared);
        let mut t = dialogue(move |ctx, _, call| {
            if let Call::Received(bytes) = call {
                ctx.put_back(bytes.len());
                if let Some(partner) = found.get().filter(|_| !later) {
                    let own = ctx.key;
                    assert!(ctx.net.pair(own, partner));
                }
            }
            Ok(())
        });
        let (other, peer) = t.beside();
        shared.set(Some(other));
        t.receives("hello");
        if later {
            let key = t.key();
            assert!(t.scene().net().pair(key, other));
        }
        t.peer_ends();
        t.scene().hears(peer, "hello").hears_end(peer);
    }
}

/// What comes behind it has no terminator any more, and was given to the protocol.
#[test]
fn what_comes_behind_a_frame_that_was_refused_is_passed_on() {
    let refuses: On = |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::declared(5, 0));
        }
        Ok(())
    };
    for together in [true, false] {
        let mut p = Proxy::with(Config::new(), Listen::new(), refuses, quiet);
        if together {
            p.scene.says(p.client, "12345rest");
        } else {
            p.scene.says(p.client, "123").says(p.client, "45rest");
        }
        p.scene.hears(p.server, "rest");
        assert_eq!(p.calls()[0], [Call::Exceeded(Limit::FrameBytes)]);
    }
}

/// A lost connection is read whatever its mate can take, and what that could not take is gone: nothing behind it may be
/// passed on, and no end, or the server takes it for all.
#[test]
fn nothing_is_passed_on_behind_what_was_lost() {
    let all: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    for ends in [false, true] {
        let config = Config::new().output_limits(0, 10, 1_000).read_bytes(4096).turn_bytes(1);
        let mut p = Proxy::with(config, Listen::new(), quiet, quiet);
        p.scene.net().link(p.front).expect("it is open").set_read_rate(1);
        p.scene.says(p.client, &all);
        if ends {
            p.scene.ends(p.client);
        }
        let heard = p.scene.resets(p.client).takes(p.server);
        p.scene.hears_reset(p.server);
        assert!(all.starts_with(&heard) && heard.len() < all.len(), "{} bytes, which are not the first", heard.len());
    }
}
