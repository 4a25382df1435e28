//! Tests without sockets (feature `sim`): a simulated network with virtual time and seeded faults.
//!
//! * [`Transcript`] drives one protocol as a dialogue.
//! * [`Scene`] puts scripted peers around a reactor.
//! * [`Sim`] is the whole network: several hosts, each a reactor with its own state, and a [`Weather`] that delays, cuts and
//!   resets as the seed decides.
//! * [`check`] runs many seeds, and reduces the faults of one that fails as far as it can.
//! * [`every_cut`] and [`every_cut_with`] feed a protocol the same bytes in every cutting.
//!
//! The chapter is [testing](crate::manual::testing).
//!
//! The protocols are the ones that you ship, unchanged; an hour of time-outs takes milliseconds; the same seed gives the
//! same trace, byte for byte. A panic, including that of an assertion inside a callback, leaves the simulation.

mod check;
mod scene;
mod sim;
mod transcript;

pub use crate::world::sim::{Errno, Fate, Kernel, NameFate, Weather};
pub use check::{check, every_cut, every_cut_with};
pub use scene::{Actor, Peer, Scene};
pub use sim::{Host, Losses, Sim};
pub use transcript::Transcript;
