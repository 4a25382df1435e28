//! The rules that a program can rely on, a module for each subject: `cargo test --features sim --test rules half_close` runs
//! what is named after it. A test of a flaw in docs/flaws.md has its number in its name.
//!
//! Real sockets where the kernel is the subject; what needs the simulated network is left out without the feature `sim`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(unix)]
mod adopting;
mod bounds;
#[cfg(all(unix, feature = "children"))]
mod children;
mod closing;
mod connecting;
mod dispatchers;
mod datagrams;
mod draining;
#[cfg(feature = "sim")]
mod errnos;
#[cfg(feature = "sim")]
mod exceeded;
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
mod embedding;
mod files;
mod framing;
mod isolation;
#[cfg(feature = "sim")]
mod kernels;
mod keys;
mod lanes;
mod lingering;
mod listening;
mod listening_on;
mod logging;
mod looking;
mod nesting;
mod offloading;
#[cfg(feature = "sim")]
mod ownership;
#[cfg(feature = "sim")]
mod pairs;
#[cfg(feature = "sim")]
mod rates;
mod reading;
#[cfg(all(unix, feature = "signals"))]
mod signals;
#[cfg(feature = "sim")]
mod reconnecting;
mod remotes;
mod requests;
mod resets;
mod running;
mod stats;
mod tells;
#[cfg(feature = "sim")]
mod throttles;
mod time_outs;
mod timers;
mod turn;
#[cfg(feature = "sim")]
mod upgrades;
#[cfg(unix)]
mod unix_paths;
#[cfg(target_os = "linux")]
mod unix_streams;
#[cfg(target_os = "linux")]
mod watching;
mod writing;
