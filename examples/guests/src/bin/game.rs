//! The reactor beside a loop of your own: the game makes its steps in the main thread, at its own pace, and the network has a
//! thread of its own. What the players want comes through a channel, what they see goes through a `Remote`; the two threads
//! share nothing.
//!
//! examples/in_a_game.rs is the same game with the reactor inside its loop: one thread, no channel, but the network takes time
//! from the steps.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/field.rs"]
mod field;

use common::{Failure, announce, arguments, exit, listening, on_interrupt, say};
use field::{Game, STEP, direction};
use mainspring::{Config, Context, Gone, Key, Listen, Outcome, Protocol, Reactor, Reason, Remote, Terminator};
use std::{
    collections::BTreeSet,
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
A game without a screen: you connect and walk about on a field, and are told
twenty times a second where everybody is. The network has a thread of its own.

usage: game [--steps N] [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7005. Then, in another terminal: nc 127.0.0.1 7005

The game is over after N steps; without N it goes on until Ctrl-C. A player that
does not keep up misses a step or two, and one that reads nothing for 10 seconds
is disconnected.";

const PLAYERS_MAX: usize = 16;
const LINE_MAX: usize = 32;

/// How long a player may read nothing of what is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the game is over, the time everybody has to read the rest.
const GRACE: Duration = Duration::from_secs(1);

/// How much may wait for the next step. Beyond it the network waits for the game, and so do the players: nothing grows.
const NEWS_MAX: usize = 1024;

/// What the network tells the game.
enum News {
    Came(Key),
    Towards(Key, (i32, i32)),
    Left(Key),
    /// Ctrl-C.
    Over,
}

// ------------------------------------------------------------------------------------------------------- the game

impl News {
    /// Takes a message; returns whether the game goes on.
    fn reach(self, game: &mut Game) -> bool {
        match self {
            Self::Came(key) => _ = game.enter(key),
            Self::Towards(key, towards) => {
                if let Some(player) = game.players.get_mut(&key) {
                    player.towards = towards;
                }
            }
            Self::Left(key) => _ = game.players.remove(&key),
            Self::Over => return false,
        }
        true
    }
}

/// The game's loop, in the main thread. Returns how late the latest step was.
fn play(game: &mut Game, news: &Receiver<News>, players: &Players, steps_max: u64) -> Duration {
    let (mut due, mut late_max) = (Instant::now() + STEP, Duration::ZERO);
    while game.steps < steps_max {
        // Your loop may wait for anything: here for the clock, in a game with a screen for that.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late_max = late_max.max(due.elapsed());
        due += STEP;
        if !news.try_iter().all(|news| news.reach(game)) {
            break;
        }
        game.step();
        if players.show(game.line()).is_err() {
            break; // the network has failed, and reports why
        }
    }
    late_max
}

/// The way from the game to its players.
struct Players {
    network: Remote<Network>,
    /// The last picture is still on its way there.
    is_showing: Arc<AtomicBool>,
}

impl Players {
    /// If the network is behind, this step is skipped: old positions are of no use.
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
        let word = line.trim_ascii();
        match (word, direction(word)) {
            (_, Some(towards)) => network.tell(News::Towards(ctx.key, towards)),
            (b"quit", None) => ctx.close(),
            _ => ctx.send("left, right, up, down, stop, or quit?\n"),
        }
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

/// The network's thread, from its beginning to its end. When it listens, it sends back a `Remote`.
fn serve(at: &str, game: SyncSender<News>, ready: &SyncSender<Remote<Network>>) -> Result<(), Failure> {
    let mut reactor = Reactor::with_config(Config::new().turn_frames(16).turn_accepts(4))?;
    let options = Listen::new().stall_timeout(PATIENCE).connections_max(PLAYERS_MAX, "the field is full\n");
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Pad)))?;
    let interrupted = game.clone();
    // If the game takes no more messages, Ctrl-C kills us.
    on_interrupt(move |_| interrupted.try_send(News::Over).map_err(|_| Gone))?;
    announce(&reactor.net(), listener)?;
    let _ = ready.send(reactor.remote()); // the main thread waits for it
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
        }); // an error: the thread has failed, and reports why
        late_max
    });
    drop(news); // so that the network does not wait for a game that is over
    thread.join().expect("it does not panic")?;
    if let Some(late_max) = late_max {
        say(format_args!("{} steps; the latest was {late_max:?} late", game.steps));
    }
    Ok(())
}
