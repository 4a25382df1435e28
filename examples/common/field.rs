//! A game without a screen, and without a network: players walk about on a field. in_a_game.rs, and game.rs in guests/, decide
//! what to show of it, and when.

use mainspring::Key;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// The time of a step. Players move by steps, so they are as fast on a slow machine as on a fast one.
pub(crate) const STEP: Duration = Duration::from_millis(50);

const WIDTH: i32 = 40;
const HEIGHT: i32 = 20;

#[derive(Default)]
pub(crate) struct Game {
    pub(crate) steps: u64,
    pub(crate) players: BTreeMap<Key, Player>,
    came: u32,
}

#[derive(Default)]
pub(crate) struct Player {
    number: u32,
    at: (i32, i32),
    pub(crate) towards: (i32, i32),
}

impl Game {
    /// Adds a player and returns its number.
    pub(crate) fn enter(&mut self, key: Key) -> u32 {
        self.came += 1;
        self.players.insert(key, Player { number: self.came, ..Player::default() });
        self.came
    }

    pub(crate) fn step(&mut self) {
        self.steps += 1;
        for Player { at, towards, .. } in self.players.values_mut() {
            *at = ((at.0 + towards.0).rem_euclid(WIDTH), (at.1 + towards.1).rem_euclid(HEIGHT));
        }
    }

    /// Where everybody is.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("step {}:", self.steps);
        for Player { number, at, .. } in self.players.values() {
            let _ = write!(line, " {number} at {},{}", at.0, at.1); // a String takes everything
        }
        line + "\n"
    }
}

/// The direction that a player asks for, if the word is one.
pub(crate) fn direction(word: &[u8]) -> Option<(i32, i32)> {
    match word {
        b"left" => Some((-1, 0)),
        b"right" => Some((1, 0)),
        b"up" => Some((0, -1)),
        b"down" => Some((0, 1)),
        b"stop" => Some((0, 0)),
        _ => None,
    }
}
