//! Datagram sockets.

mod common;
mod batch;
mod receiving;
mod sending;
mod ending;
mod kinds;
#[cfg(feature = "sim")]
mod simulated;
