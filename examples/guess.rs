//! A guessing game: all clients guess the same number, and a right guess begins the next round.
//!
//! The network part is one call of `serve_lines`; the rest is the game, which knows nothing about the network.

mod common;

use common::{Failure, address, announce, drain_on_interrupt, exit, listening, say};
use mainspring::{Address, Net, Reactor};
use std::{cmp::Ordering, process::ExitCode, time::Duration};

const HELP: &str = "\
A guessing game: send numbers from 1 to 100, one a line. A right guess begins a
new round for everybody.

usage: guess [ADDR]

ADDR is IP:PORT (port 0: any free one) or unix:/path; the default is
127.0.0.1:7014. Then, in another terminal: nc 127.0.0.1 7014";

/// A longer line cannot be a number.
const LINE_MAX: usize = 80;

/// After Ctrl-C, the time clients have to read their last answers.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Game {
    secret: u64,
    round: u32,
    guesses: u32,
}

impl Game {
    fn begin(&mut self, chance: u64) {
        *self = Self { secret: 1 + chance % 100, round: self.round + 1, guesses: 0 };
    }

    fn answer(&mut self, who: &Address, line: &[u8], chance: u64) -> String {
        let guess: Option<u64> = std::str::from_utf8(line).ok().and_then(|line| line.trim().parse().ok());
        let Some(guess) = guess.filter(|guess| (1..=100).contains(guess)) else {
            return format!("round {}: that is not a number from 1 to 100\n", self.round);
        };
        self.guesses += 1;
        match guess.cmp(&self.secret) {
            Ordering::Less => "more\n".into(),
            Ordering::Greater => "less\n".into(),
            Ordering::Equal => {
                let (round, guesses) = (self.round, self.guesses);
                say(format_args!("round {round}: {who} found {guess} with guess number {guesses}"));
                self.begin(chance);
                format!("yes! round {round} took {guesses} guesses; round {} begins\n", self.round)
            }
        }
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(at) = address(HELP, "127.0.0.1:7014")? else { return Ok(()) };
    let mut reactor = Reactor::new()?;
    drain_on_interrupt(&reactor, GRACE)?;
    let (mut game, mut net) = (Game::default(), reactor.net());
    game.begin(net.random());
    let answer = |net: &mut Net<'_, Game>, game: &mut Game, peer: &Address, line: &[u8]| game.answer(peer, line, net.random());
    let listener = listening(net.serve_lines(at, LINE_MAX, answer))?;
    announce(&net, listener)?;
    Ok(reactor.run(&mut game)?)
}
