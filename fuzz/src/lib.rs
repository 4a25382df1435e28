//! Entry points of the fuzzers that look inside, by `mainspring::inside`. Compiled with `--cfg fuzzing`; targets/ has a
//! program for each.
//!
//! Each takes what the fuzzer made up, decodes it to something that somebody may do, does it, and panics if a promise is
//! broken. Those for which the public names suffice (whole reactors, the examples) stand in targets/ themselves.
#![forbid(unsafe_code)]

mod addresses;
mod cuts;
mod framers;
mod output;
mod script;
mod tape;
mod timers;
mod tls_hello;
mod tls_sides;
mod tls_wire;

pub use addresses::addresses;
pub use cuts::{cuts, loop_cuts};
pub use framers::framers;
pub use output::output;
pub use tape::Tape;
pub use timers::timers;
pub use tls_hello::tls_hello;
pub use tls_wire::tls_wire;
