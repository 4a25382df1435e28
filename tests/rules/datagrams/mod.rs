//! Datagram sockets.

mod common;
mod batch;
mod receiving;
mod sending;
mod ending;
mod kinds;
#[cfg(unix)]
mod unix;
#[cfg(any(target_os = "linux", windows))]
mod draining;
#[cfg(target_os = "linux")]
mod slow;
#[cfg(feature = "sim")]
mod simulated;
