//! Things that other threads work on, one piece after another; and what is saved and sent by them.

#[cfg(feature = "sim")]
mod saving;
#[cfg(feature = "sim")]
mod sending;
mod threads;
