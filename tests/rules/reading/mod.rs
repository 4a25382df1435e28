//! When reading is on, what it waits for, and what is delivered.

#[cfg(feature = "sim")]
mod held;
#[cfg(feature = "sim")]
mod holds;
mod sockets;
