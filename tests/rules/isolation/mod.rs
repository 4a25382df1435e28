//! An error or a panic ends one connection, and never the turn.

mod panics;
mod propagating;
mod drops;
#[cfg(feature = "sim")]
mod misuse;
