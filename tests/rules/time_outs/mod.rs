//! Idle, stalled, too slow, too late: when a limit is exceeded.

#[cfg(feature = "sim")]
mod clocks;
mod sockets;
