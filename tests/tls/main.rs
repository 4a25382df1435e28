//! TLS: what its page promises, a test each.
#![cfg(feature = "tls")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tls.rs"]
mod configs;

mod proxied;
mod talking;
