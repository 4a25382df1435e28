//! Logs to standard error: warnings, or the level in the environment variable LOG (`LOG=debug`).

use std::io::{self, Write};

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = writeln!(io::stderr(), "{} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

pub(crate) fn log_to_stderr() {
    let level = std::env::var("LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(log::LevelFilter::Warn));
    let _ = log::set_logger(&Stderr); // an error means that there is one already
}
