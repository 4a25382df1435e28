//! The reactor inside a loop of your own: the game makes its steps on time, whatever the network does, and `turn` gets the
//! time that is left between them. The players' side is text, so that you can play with nc(1).

mod common;
#[path = "common/field.rs"]
mod field;

use common::{Failure, announce, arguments, end_on_interrupt, exit, listening, say};
use field::{Game, STEP, direction};
use mainspring::{Config, Context, Listen, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

const HELP: &str = "\
A game without a screen: you connect and walk about on a field, and are told
twenty times a second where everybody is.

usage: in_a_game [--steps N] [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7004. Then, in another terminal: nc 127.0.0.1 7004

The game is over after N steps; without N it goes on until Ctrl-C. A player that
does not keep up misses a step or two, and one that reads nothing for 10 seconds
is disconnected.";

const PLAYERS_MAX: usize = 16;
const LINE_MAX: usize = 32;

/// How long a player may read nothing of what is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the game is over, the time everybody has to read the rest.
const GRACE: Duration = Duration::from_secs(1);

// ---------------------------------------------------------------------------------------------------- the network

/// One buffer for all, queued by reference. A player that has not read the last step yet does not get this one: old
/// positions are of no use.
fn show(net: &mut Net<'_, Game>, game: &Game) {
    let line: Rc<[u8]> = game.line().into_bytes().into();
    for &key in game.players.keys() {
        if let Some(mut link) = net.link(key).filter(|link| link.queued() == 0) {
            link.send_shared(&line);
        }
    }
}

struct Pad;

impl Protocol<Game> for Pad {
    fn connected(&mut self, ctx: &mut Context<'_, Game>, game: &mut Game) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        let number = game.enter(ctx.key);
        writeln!(ctx, "you are {number}: left, right, up, down, stop, quit");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Game>, game: &mut Game, line: &[u8]) -> Outcome {
        let Some(player) = game.players.get_mut(&ctx.key) else { return Ok(()) };
        let word = line.trim_ascii();
        match (word, direction(word)) {
            (_, Some(towards)) => player.towards = towards,
            (b"quit", None) => ctx.close(),
            _ => ctx.send("left, right, up, down, stop, or quit?\n"),
        }
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Game>, game: &mut Game) -> Outcome {
        writeln!(ctx, "the game is over after {} steps", game.steps);
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Game>, game: &mut Game, _: Reason) {
        game.players.remove(&ctx.key);
    }
}

// --------------------------------------------------------------------------------------------------- the game's loop

/// Until the game is over, or somebody asks the reactor to stop. Returns how late the latest step was.
fn play(reactor: &mut Reactor<Game>, game: &mut Game, steps_max: u64) -> std::io::Result<Duration> {
    let (mut due, mut late_max) = (Instant::now() + STEP, Duration::ZERO);
    while game.steps < steps_max {
        // The network may sleep until the next step is due; if that is late already, it only has a quick look. (A game that
        // draws whenever it can passes Duration::ZERO, and never sleeps here.)
        if !reactor.turn(game, due.saturating_duration_since(Instant::now()))? {
            break;
        }
        // One step a turn: after a pause the missed steps follow one by one, and the network is served in between.
        let now = Instant::now();
        if now >= due {
            late_max = late_max.max(now - due);
            due += STEP;
            game.step();
            show(&mut reactor.net(), game);
        }
    }
    Ok(late_max)
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["steps"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7004".into());
    let steps_max = given.number("steps", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    // These bounds on each player's input keep a turn far shorter than a step.
    let mut reactor = Reactor::with_config(Config::new().turn_frames(16).turn_bytes(4096).turn_accepts(4))?;
    let options = Listen::new().stall_timeout(PATIENCE).connections_max(PLAYERS_MAX, "the field is full\n");
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Pad)))?;
    end_on_interrupt(&reactor)?;
    announce(&reactor.net(), listener)?;
    let mut game = Game::default();
    let late_max = play(&mut reactor, &mut game, steps_max)?;
    reactor.net().drain(GRACE);
    reactor.run(&mut game)?;
    say(format_args!("{} steps; the latest was {late_max:?} late", game.steps));
    Ok(())
}

/// `cargo test --features sim --example in_a_game` runs it; so does tests/examples.rs.
#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use mainspring::testing::Scene;

    fn steps(scene: &mut Scene<Game>, count: usize) {
        for _ in 0..count {
            scene.net().post(|net, game| {
                game.step();
                show(net, game);
            });
            scene.settles();
        }
    }

    #[test]
    fn who_does_not_keep_up_sees_where_all_are_and_not_where_they_were() {
        let mut scene = Scene::new(0, Game::default());
        scene.net().listen("10.0.0.1:7", || Pad).expect("a free port");
        let player = scene.dials("10.0.0.1:7");
        scene.says(player, "right\n").hears(player, "you are 1: left, right, up, down, stop, quit\n");
        steps(&mut scene, 2);
        scene.hears(player, "step 1: 1 at 1,0\nstep 2: 1 at 2,0\n").reads(player, false);
        steps(&mut scene, 100_000); // far more than its window
        let key = *scene.state().players.keys().next().expect("it is still there");
        let queued = scene.net().link(key).expect("it is still there").queued();
        assert!((1..100).contains(&queued), "{queued} bytes");
        scene.reads(player, true).takes(player);
        steps(&mut scene, 1);
        scene.hears(player, "step 100003: 1 at 3,0\n");
    }
}
