//! Servers that answer requests: `serve` with a handler, `serve_lines` with a function.

mod threads;
#[cfg(feature = "sim")]
mod simulated;
