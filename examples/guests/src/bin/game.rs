//! The loop beside a loop that is yours: a game makes its steps in the main thread, at its own pace, and the network is in a
//! thread of its own. What the players want comes by a channel, what they see goes by a `Remote`; the two share nothing.
//!
//! examples/in_a_game.rs is the same game with the loop inside of it: one thread, no channel, and what the network does takes
//! its time from a step.

#[path = "../../../common/mod.rs"]
mod common;

use common::{Failure, announce, arguments, exit, listening, on_interrupt, say};
use mainspring::{Config, Context, Gone, Key, Listen, Outcome, Protocol, Reactor, Reason, Remote, Terminator};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
A game without a screen: whoever connects walks about on a field, and is told
twenty times a second where everybody is. The network has a thread of its own.

usage: game [--steps N] [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; 127.0.0.1:7005 if it is
not given. Then, in another terminal: nc 127.0.0.1 7005

The game is over after N steps; without N it goes on until Ctrl-C. Who does not
keep up misses a step or two, and who for 10 seconds takes nothing is let go.";

const STEP: Duration = Duration::from_millis(50);
const WIDTH: i32 = 40;
const HEIGHT: i32 = 20;
const PLAYERS_MAX: usize = 16;
const LINE_MAX: usize = 32;

/// So long a player may take nothing of what is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the game is over: for everybody to take the rest.
const GRACE: Duration = Duration::from_secs(1);

/// So much may wait for the next step. Beyond it the network waits for the game, and so do the players: nothing grows.
const NEWS_MAX: usize = 1024;

/// What the network tells the game.
enum News {
    Came(Key),
    Towards(Key, (i32, i32)),
    Left(Key),
    /// Ctrl-C.
    Over,
}

// -------------------------------------------------------------------------------------- the game, without a network

#[derive(Default)]
struct Game {
    steps: u64,
    players: BTreeMap<Key, Player>,
    came: u32,
}

#[derive(Default)]
struct Player {
    number: u32,
    at: (i32, i32),
    towards: (i32, i32),
}

impl Game {
    /// Whether it goes on.
    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Came(key) => {
                self.came += 1;
                self.players.insert(key, Player { number: self.came, ..Player::default() });
            }
            News::Towards(key, towards) => {
                if let Some(player) = self.players.get_mut(&key) {
                    player.towards = towards;
                }
            }
            News::Left(key) => _ = self.players.remove(&key),
            News::Over => return false,
        }
        true
    }

    fn step(&mut self) {
        self.steps += 1;
        for Player { at, towards, .. } in self.players.values_mut() {
            *at = ((at.0 + towards.0).rem_euclid(WIDTH), (at.1 + towards.1).rem_euclid(HEIGHT));
        }
    }

    /// Where everybody is.
    fn line(&self) -> String {
        let mut line = format!("step {}:", self.steps);
        for Player { number, at, .. } in self.players.values() {
            let _ = write!(line, " {number} at {},{}", at.0, at.1); // a String takes all
        }
        line + "\n"
    }
}

/// The game's loop, in the main thread. Says how late a step was at most.
fn play(game: &mut Game, news: &Receiver<News>, players: &Players, steps_max: u64) -> Duration {
    let (mut due, mut late_max) = (Instant::now() + STEP, Duration::ZERO);
    while game.steps < steps_max {
        // Whatever it waits for: here the clock, and in a game with a screen that.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late_max = late_max.max(due.elapsed());
        due += STEP;
        if !news.try_iter().all(|news| game.hear(news)) {
            break;
        }
        game.step();
        if players.show(game.line()).is_err() {
            break; // the network has failed, and says why
        }
    }
    late_max
}

/// The way from the game to its players.
struct Players {
    network: Remote<Network>,
    /// What was shown last is still on its way there.
    is_showing: Arc<AtomicBool>,
}

impl Players {
    /// If the network is behind, it does without: where everybody was is of no use to anybody.
    fn show(&self, line: String) -> Result<(), Gone> {
        if self.is_showing.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let is_showing = Arc::clone(&self.is_showing);
        self.network.post(move |net, network| {
            is_showing.store(false, Ordering::Relaxed);
            let line: Rc<[u8]> = line.into_bytes().into();
            for &key in &network.players {
                if let Some(mut link) = net.link(key).filter(|link| link.queued() == 0) {
                    link.send_shared(&line);
                }
            }
        })
    }
}

// ---------------------------------------------------------------------------------------- the network, in its thread

struct Network {
    game: SyncSender<News>,
    players: BTreeSet<Key>,
    steps: Option<u64>,
}

impl Network {
    fn tell(&self, news: News) {
        let _ = self.game.send(news); // the game is over
    }
}

struct Pad;

impl Protocol<Network> for Pad {
    fn connected(&mut self, ctx: &mut Context<'_, Network>, network: &mut Network) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        network.players.insert(ctx.key);
        network.tell(News::Came(ctx.key));
        ctx.send("left, right, up, down, stop, quit\n");
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Network>, network: &mut Network, line: &[u8]) -> Outcome {
        let towards = match line.trim_ascii() {
            b"left" => (-1, 0),
            b"right" => (1, 0),
            b"up" => (0, -1),
            b"down" => (0, 1),
            b"stop" => (0, 0),
            other => {
                if other == b"quit" {
                    ctx.close();
                } else {
                    ctx.send("left, right, up, down, stop, or quit?\n");
                }
                return Ok(());
            }
        };
        network.tell(News::Towards(ctx.key, towards));
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Network>, network: &mut Network) -> Outcome {
        if let Some(steps) = network.steps {
            writeln!(ctx, "the game is over after {steps} steps");
        }
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Network>, network: &mut Network, _: Reason) {
        network.players.remove(&ctx.key);
        network.tell(News::Left(ctx.key));
    }
}

/// The thread, from its beginning to its end. It says how to reach it when it listens.
fn serve(at: &str, game: SyncSender<News>, ready: &SyncSender<Remote<Network>>) -> Result<(), Failure> {
    let mut reactor = Reactor::with_config(Config::new().turn_frames(16).turn_accepts(4))?;
    let options = Listen::new().stall_timeout(PATIENCE).connections_max(PLAYERS_MAX, "the field is full\n");
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Pad)))?;
    let interrupted = game.clone();
    // Of a game that takes no news any more we die.
    on_interrupt(move |_| interrupted.try_send(News::Over).map_err(|_| Gone))?;
    announce(&reactor.net(), listener)?;
    let _ = ready.send(reactor.remote()); // somebody waits
    Ok(reactor.run(&mut Network { game, players: BTreeSet::new(), steps: None })?)
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["steps"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7005".into());
    let steps_max = given.number("steps", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    let (sender, news) = sync_channel(NEWS_MAX);
    let (ready, started) = sync_channel(1);
    let thread = thread::spawn(move || serve(&at, sender, &ready));
    let mut game = Game::default();
    let late_max = started.recv().ok().map(|network| {
        let players = Players { network, is_showing: Arc::default() };
        let late_max = play(&mut game, &news, &players, steps_max);
        let steps = game.steps;
        let _ = players.network.post(move |net, network| {
            network.steps = Some(steps);
            net.drain(GRACE);
        }); // it has failed, and says why
        late_max
    });
    drop(news); // nobody waits for a game that is over
    thread.join().expect("it does not panic")?;
    if let Some(late_max) = late_max {
        say(format_args!("{} steps; the latest was {late_max:?} late", game.steps));
    }
    Ok(())
}
