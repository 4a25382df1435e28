//! Blocking work on other threads.

mod threads;
#[cfg(feature = "sim")]
mod simulated;
