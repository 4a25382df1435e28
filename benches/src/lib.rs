//! What the benchmarks share. docs/benchmarks.md says how to run them and how to read what they print.

pub mod crates;
pub mod protocols;
