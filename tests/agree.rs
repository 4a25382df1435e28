//! The simulation is checked against the kernel, not trusted: the scenarios of tests/torture.rs, and some that ask for the
//! fine points of TCP, are run on the loopback and in the simulation, and every connection must be called with the same,
//! pieces joined and addresses left out.
#![cfg(feature = "sim")]

#[cfg(target_os = "linux")]
#[path = "agree/datagrams.rs"]
mod datagrams;
#[allow(dead_code)] // it also knows of descriptors
#[path = "common/skips.rs"]
mod skips;
#[path = "torture.rs"]
mod torture;

use mainspring::{
    Key, Outcome,
    testing::{Kernel, Weather},
};
use std::time::Duration;
use torture::{CLIENT, Call, Door, Journals, Kind, Me, Player, SERVER, Scenario, Stage, difference, player};

/// The weathers in which a simulation must say what the loopback says: nothing is lost, but some is late and in pieces.
fn weathers() -> [Weather; 3] {
    let kernel = if cfg!(windows) { Kernel::Windows } else { Kernel::Linux };
    let fair = Weather::fair().kernel(kernel);
    let slow = fair.clone().latency(Duration::from_millis(2), Duration::from_millis(5)).short(300, 300).window(32 << 10);
    [fair.clone(), fair.latency(Duration::from_millis(1), Duration::ZERO), slow]
}

/// What the system at hand does differently.
const LEFT_OUT: &[(&str, &str)] = if cfg!(windows) {
    &[
        ("a_failure_with_output_left_is_no_clean_end", "Wine: a socket whose last send is not through outlives its reset"),
        ("a_reset_before_anybody_accepts", "Wine: has no address of who is gone"),
        ("a_reset_right_behind_the_end", "Winsock: what comes before a reset is read by who looks in time"),
        ("words_end_and_reset_while_the_reader_is_busy", "Winsock: what comes before a reset is read by who looks in time"),
        ("datagrams_to_nobody", "Wine: tells no datagram socket that nobody has a port"),
        ("time_outs_of_idle_slow_and_stalled_peers", "Wine: a socket whose last send is not through outlives its reset"),
    ]
} else {
    &[]
};

fn is_left_out(scenario: Scenario) -> bool {
    let found = LEFT_OUT.iter().find(|(name, _)| *name == scenario.name);
    found.inspect(|(_, why)| skips::skip(why)).is_some()
}

fn play(mut stage: Stage, scenario: Scenario) -> Journals {
    (scenario.run)(&mut stage);
    stage.finish()
}

fn agree(scenario: Scenario) {
    if is_left_out(scenario) {
        return;
    }
    let real = play(Stage::real(), scenario);
    for (seed, weather) in (1..).zip(weathers()) {
        let simulated = play(Stage::simulated(seed, weather.clone()), scenario);
        assert!(
            simulated == real,
            "{} in {weather:?}: what only the loopback said (-), and only the simulation (+)\n{}",
            scenario.name,
            difference(&real, &simulated)
        );
    }
}

/// On the loopback the scenarios of tests/torture.rs are compared where nothing but what is said counts; of the others the
/// conduct is checked.
macro_rules! test_each {
    (Causal: $($causal:ident)+; Timed: $($timed:ident)+; $(Simulated: $($simulated:ident)+;)?) => {
        $(
            #[test]
            fn $causal() {
                crate::agree(Scenario { name: stringify!($causal), kind: Kind::Causal, run: super::$causal });
            }
        )+
        $(
            #[test]
            fn $timed() {
                let scenario = Scenario { name: stringify!($timed), kind: Kind::Timed, run: super::$timed };
                if !crate::is_left_out(scenario) {
                    crate::play(crate::Stage::real(), scenario);
                }
            }
        )+
    };
}
pub(crate) use test_each;

/// A test of a scenario of this file.
macro_rules! agrees {
    ($($name:ident)+) => {
        mod tcp {
            use super::{Kind, Scenario, agree};
            $(
                #[test]
                fn $name() {
                    agree(Scenario { name: stringify!($name), kind: Kind::Causal, run: super::$name });
                }
            )+
        }
    };
}

agrees! {
    a_reset_comes_after_the_bytes_before_it
    a_reset_right_behind_the_end
    words_end_and_reset_while_the_reader_is_busy
    last_words_and_a_reset_before_the_client_looks
    a_reset_after_the_end
    a_reset_after_the_end_while_paused
    a_reset_while_output_waits
    a_reset_while_paused_ends_at_once
    closing_with_unread_bytes_resets
    a_fin_before_a_reset_is_the_end
    writing_to_one_who_has_gone
    writing_again_to_one_who_has_gone
    refused_and_what_was_sent_before
    bytes_and_an_end_before_anybody_accepts
    a_reset_before_anybody_accepts
    a_listener_that_closes_resets_who_waits
    both_ends_close_at_once
    both_ends_half_close_at_once
    a_half_close_after_the_peer_has_gone
    an_end_right_behind_the_bytes
    a_failure_with_output_left_is_no_clean_end
    a_pause_holds_back_the_end
}

fn quiet(label: &'static str) -> Player {
    player(label, |me, call| me.usual(call))
}

/// Stays when the other ends.
fn stays(label: &'static str) -> Player {
    player(label, |me, call| match call {
        Call::Eof(_) => Ok(()),
        call => me.usual(call),
    })
}

fn paused(label: &'static str) -> Player {
    player(label, |me, call| match call {
        Call::Connected => {
            me.ctx.pause();
            Ok(())
        }
        call => me.usual(call),
    })
}

/// A connection of which both ends are there: the keys of the server's and the client's.
fn pair(stage: &mut Stage, server: impl Fn() -> Player + 'static, client: Player) -> [(usize, Key); 2] {
    let door = stage.listen(SERVER, server);
    let key = stage.connect(CLIENT, &door, client);
    stage.until_book(CLIENT, |book| book.key_of("client").is_some());
    stage.until_book(SERVER, |book| book.key_of("server").is_some());
    let server = stage.with(SERVER, |_, book| book.key_of("server").expect("it is connected"));
    [(SERVER, server), (CLIENT, key)]
}

fn send(stage: &mut Stage, (host, key): (usize, Key), text: &str) {
    stage.with(host, |net, book| book.send(net, key, text));
}

fn close(stage: &mut Stage, (host, key): (usize, Key)) {
    stage.with(host, |net, book| book.close(net, key));
}

fn abort(stage: &mut Stage, (host, key): (usize, Key)) {
    stage.with(host, |net, book| book.abort(net, key));
}

fn resume(stage: &mut Stage, (host, key): (usize, Key)) {
    stage.with(host, |net, _| net.link(key).map(|mut link| link.resume()));
}

/// Long enough for whatever is under way to arrive; what does not depend on it is waited for by name.
fn settle(stage: &mut Stage) {
    stage.pass(Duration::from_millis(30));
}

fn is_closed(call: &Call) -> bool {
    matches!(call, Call::Closed(_))
}

/// Says its last words, and resets when they have left, in the same turn: so soon that a client which has its turn late
/// meets both at once.
fn blurts(me: &mut Me<'_, '_>, call: &Call, ends_first: bool) -> Outcome {
    match call {
        Call::Connected => {
            me.send("last words");
            if ends_first {
                me.ctx.half_close();
            }
            let key = me.ctx.key;
            me.tell(key, "abort");
            Ok(())
        }
        // A short write: not yet.
        Call::Told(_) | Call::Alarm if me.ctx.queued() > 0 => {
            me.after(Duration::from_millis(1));
            Ok(())
        }
        Call::Told(_) | Call::Alarm => {
            me.abort();
            Ok(())
        }
        call => me.usual(call),
    }
}

/// The client is known to be connected when it asks.
fn asked(stage: &mut Stage, ends_first: bool) {
    let door = stage.listen(SERVER, move || {
        player("server", move |me, call| match call {
            Call::Connected => Ok(()),
            Call::Received(_) if me.got() == 3 => blurts(me, &Call::Connected, ends_first),
            call => blurts(me, call, ends_first),
        })
    });
    let asks = player("client", |me, call| match call {
        Call::Connected => {
            me.send("ask");
            Ok(())
        }
        Call::Eof(_) => Ok(()),
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, asks);
}

fn a_reset_comes_after_the_bytes_before_it(stage: &mut Stage) {
    asked(stage, false);
}

fn a_reset_right_behind_the_end(stage: &mut Stage) {
    asked(stage, true);
}

fn words_end_and_reset_while_the_reader_is_busy(stage: &mut Stage) {
    let [server, _] = pair(stage, || quiet("server"), stays("client"));
    stage.hold(CLIENT);
    send(stage, server, "last words");
    stage.with(SERVER, |net, _| net.half_close(server.1));
    settle(stage);
    abort(stage, server);
    settle(stage);
    stage.let_go();
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn last_words_and_a_reset_before_the_client_looks(stage: &mut Stage) {
    // All of connecting, words and reset happen while the client does something else.
    let door = stage.listen(SERVER, || player("server", |me, call| blurts(me, call, false)));
    stage.connect(CLIENT, &door, quiet("client"));
    stage.hold(CLIENT);
    stage.until_book(SERVER, |book| book.count("server", is_closed) == 1);
    settle(stage);
    stage.let_go();
}

/// Whether the end is told before the reset depends on when the client looks; its bytes are not to be lost.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn last_words_are_not_lost_when_an_end_and_a_reset_come_before_the_client_looks() {
    let stages = weathers().map(|weather| Stage::simulated(1, weather)).into_iter().chain([Stage::real()]);
    for mut stage in stages {
        let world = if stage.is_real() { "the loopback" } else { "the simulation" };
        let door = stage.listen(SERVER, || player("server", |me, call| blurts(me, call, true)));
        stage.connect(CLIENT, &door, stays("client"));
        stage.hold(CLIENT);
        stage.until_book(SERVER, |book| book.count("server", is_closed) == 1);
        settle(&mut stage);
        stage.let_go();
        let journals = stage.finish();
        let heard = |calls: &[Call]| calls.contains(&Call::Received(b"last words".to_vec()));
        assert!(journals.iter().any(|(host, _, calls)| *host == CLIENT && heard(calls)), "on {world}: {journals:?}");
    }
}

fn a_reset_after_the_end(stage: &mut Stage) {
    let [server, _] = pair(stage, || quiet("server"), stays("client"));
    stage.with(SERVER, |net, _| net.half_close(server.1));
    stage.until_book(CLIENT, |book| book.count("client", |call| matches!(call, Call::Eof(_))) == 1);
    abort(stage, server);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn a_reset_after_the_end_while_paused(stage: &mut Stage) {
    let [server, _] = pair(stage, || quiet("server"), paused("client"));
    stage.with(SERVER, |net, _| net.half_close(server.1));
    settle(stage);
    abort(stage, server);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn a_reset_while_output_waits(stage: &mut Stage) {
    let [server, client] = pair(stage, || paused("server"), quiet("client"));
    let much = "x".repeat(if stage.is_real() { 16 << 20 } else { 1 << 20 });
    send(stage, client, &much);
    settle(stage);
    abort(stage, server);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn a_reset_while_paused_ends_at_once(stage: &mut Stage) {
    let [server, _] = pair(stage, || quiet("server"), paused("client"));
    send(stage, server, "nobody reads this");
    settle(stage);
    abort(stage, server);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn closing_with_unread_bytes_resets(stage: &mut Stage) {
    // An `Err` does not linger: the bytes that the server has not read make the kernel send a reset instead of a FIN.
    let [server, client] = pair(stage, || paused("server"), quiet("client"));
    send(stage, client, "unread");
    settle(stage);
    stage.with(SERVER, |net, book| {
        net.fail(server.1, "no time for this");
        book.note_end(server.1);
    });
}

fn a_fin_before_a_reset_is_the_end(stage: &mut Stage) {
    // The client sees neither before it resumes.
    let [server, client] = pair(stage, || quiet("server"), paused("client"));
    send(stage, server, "words");
    settle(stage);
    stage.with(SERVER, |net, _| net.half_close(server.1));
    settle(stage);
    resume(stage, client);
    stage.until_book(CLIENT, |book| book.count("client", |call| matches!(call, Call::Eof(_))) == 1);
}

/// The server has gone without lingering; its client has seen the end, and stays.
fn gone(stage: &mut Stage) -> (usize, Key) {
    let [server, client] = pair(stage, || quiet("server"), stays("client"));
    stage.with(SERVER, |net, book| {
        net.fail(server.1, "gone");
        book.note_end(server.1);
    });
    stage.until_book(CLIENT, |book| book.count("client", |call| matches!(call, Call::Eof(_))) == 1);
    client
}

fn writing_to_one_who_has_gone(stage: &mut Stage) {
    let client = gone(stage);
    send(stage, client, "anybody?");
    settle(stage);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn writing_again_to_one_who_has_gone(stage: &mut Stage) {
    let client = gone(stage);
    for _ in 0..3 {
        send(stage, client, "anybody?");
    }
    settle(stage);
    send(stage, client, "nobody!");
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn refused_and_what_was_sent_before(stage: &mut Stage) {
    let door = stage.listen(SERVER, || quiet("server"));
    stage.stop_listening(SERVER, &door);
    settle(stage);
    let key = stage.connect(CLIENT, &door, quiet("client"));
    send(stage, (CLIENT, key), "never leaves");
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

/// A client that has connected and sent before anybody accepts it: that is the kernel's matter.
fn early(stage: &mut Stage, client: Player) -> (Door, (usize, Key)) {
    let door = stage.listen(SERVER, || quiet("server"));
    stage.hold(SERVER);
    let key = stage.connect(CLIENT, &door, client);
    send(stage, (CLIENT, key), "early words");
    stage.until_book(CLIENT, |book| book.key_of("client").is_some());
    (door, (CLIENT, key))
}

fn bytes_and_an_end_before_anybody_accepts(stage: &mut Stage) {
    let (_, (host, key)) = early(stage, quiet("client"));
    stage.with(host, |net, _| net.half_close(key));
    settle(stage);
    stage.let_go();
}

fn a_reset_before_anybody_accepts(stage: &mut Stage) {
    let (_, client) = early(stage, quiet("client"));
    settle(stage);
    abort(stage, client);
    settle(stage);
    stage.let_go();
    stage.until_book(SERVER, |book| book.count("server", is_closed) == 1);
}

fn a_listener_that_closes_resets_who_waits(stage: &mut Stage) {
    let (door, _) = early(stage, quiet("client"));
    settle(stage);
    stage.stop_listening(SERVER, &door);
    stage.shutdown(SERVER);
    stage.let_go();
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn both_ends_close_at_once(stage: &mut Stage) {
    let [server, client] = pair(stage, || quiet("server"), quiet("client"));
    send(stage, server, "to the client");
    send(stage, client, "to the server");
    close(stage, server);
    close(stage, client);
}

fn both_ends_half_close_at_once(stage: &mut Stage) {
    let [server, client] = pair(stage, || stays("server"), stays("client"));
    for (end, text) in [(server, "to the client"), (client, "to the server")] {
        send(stage, end, text);
        stage.with(end.0, |net, _| net.half_close(end.1));
    }
}

fn a_half_close_after_the_peer_has_gone(stage: &mut Stage) {
    let client = gone(stage);
    stage.with(CLIENT, |net, _| net.half_close(client.1));
}

fn an_end_right_behind_the_bytes(stage: &mut Stage) {
    let [server, _] = pair(stage, || quiet("server"), quiet("client"));
    send(stage, server, "words");
    close(stage, server);
}

fn a_failure_with_output_left_is_no_clean_end(stage: &mut Stage) {
    // More than any loopback's buffers hold: the client gets a part, and must not take it for the whole.
    let [server, client] = pair(stage, || quiet("server"), paused("client"));
    let much = "x".repeat(if stage.is_real() { 16 << 20 } else { 1 << 20 });
    send(stage, server, &much);
    settle(stage);
    stage.with(SERVER, |net, book| {
        net.fail(server.1, "enough");
        book.note_end(server.1);
    });
    settle(stage);
    resume(stage, client);
    stage.until_book(CLIENT, |book| book.count("client", is_closed) == 1);
}

fn a_pause_holds_back_the_end(stage: &mut Stage) {
    let [server, client] = pair(stage, || quiet("server"), paused("client"));
    send(stage, server, "words");
    close(stage, server);
    stage.until_book(SERVER, |book| book.count("server", is_closed) == 1);
    settle(stage);
    resume(stage, client);
}
