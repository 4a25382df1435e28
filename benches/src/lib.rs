//! What the benchmarks share. docs/benchmarks.md says how to run them and how to read what they print.

pub mod cells;
pub mod by_name;
pub mod crates;
pub mod load;
pub mod machine;
pub mod process;
