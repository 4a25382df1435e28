//! TLS: what its page promises, a test each.
#![cfg(feature = "tls")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tls.rs"]
mod configs;

mod beginning;
mod ending;
mod limits;
mod peers;
#[cfg(feature = "sim")]
mod pieces;
mod proxied;
#[cfg(feature = "sim")]
mod simulated;
mod starting;
mod talking;
mod wire;
