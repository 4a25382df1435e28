//! A reactor's figures with their names for Prometheus, and in its text format (exposition format 0.0.4). Pure.

use mainspring::{Closed, Stats};
use std::{fmt::Write, time::Duration};

/// The Content-Type of `/metrics`.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One figure. A name in `_total` is a counter, which only grows as long as the reactor lives; all others are values of now.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub help: &'static str,
    /// Exact up to 2^53. In seconds, in bytes, or a number of things.
    pub value: f64,
}

/// Everything that a reactor counts, except how its connections have ended. What only a watchdog measures is left out without
/// one: otherwise the loop would look busy all the time.
pub fn figures(stats: &Stats) -> Vec<Figure> {
    let count = |name, help, value: u64| Figure { name, help, value: value as f64 };
    let now = |name, help, value: usize| Figure { name, help, value: value as f64 };
    let time = |name, help, value: Duration| Figure { name, help, value: value.as_secs_f64() };
    let mut all = vec![
        count("turns_total", "Turns of the loop.", stats.turns),
        count("events_total", "Events of the selector.", stats.events),
        count("stale_events_total", "Events for sockets that were gone.", stats.stale_events),
        count("callbacks_total", "Calls of the program's code.", stats.callbacks),
        count("received_bytes_total", "Bytes received on connections.", stats.bytes_in),
        count("sent_bytes_total", "Bytes of connections that the kernel took.", stats.bytes_out),
        count("datagrams_received_total", "Datagrams received.", stats.datagrams_in),
        count("datagrams_sent_total", "Datagrams that the kernel took.", stats.datagrams_out),
        count("datagrams_dropped_total", "Datagrams that could not be sent.", stats.datagrams_dropped),
        count("datagrams_oversized_total", "Datagrams received that were too long.", stats.datagrams_oversized),
        count("accepted_total", "Connections accepted.", stats.accepted),
        count("refused_total", "Connections refused by a limit or by the program.", stats.refused),
        count("shed_total", "Connections closed at once because there were no descriptors.", stats.shed),
        count("opened_total", "Connections opened by the program.", stats.opened),
        now("connections", "Connections with a protocol.", stats.connections),
        now("lingering", "Sockets that wait for their peer's end.", stats.lingering),
        now("queued_bytes", "Bytes sent and not yet taken by the kernel.", stats.queued),
        now("timers", "Timers set, time-outs included.", stats.timers),
        now("offloads", "Blocking work on other threads, not yet reported back.", stats.offloads),
        count("handshakes_total", "Handshakes of TLS done.", stats.handshakes),
        count("handshakes_resumed_total", "Handshakes that resumed a session.", stats.handshakes_resumed),
        count("handshakes_failed_total", "Handshakes that failed.", stats.handshakes_failed),
        now("drain_begun", "Connections when the last drain began.", stats.to_drain),
        now("drain_cut", "Connections that did not end within the grace of that drain.", stats.undrained),
    ];
    if !stats.waited.is_zero() {
        all.extend([
            time("waited_seconds_total", "Time spent waiting for events.", stats.waited),
            time("longest_callback_seconds", "The longest call of the program's code.", stats.longest_callback),
        ]);
    }
    all
}

/// How many connections have ended for which reason.
pub fn reasons(closed: &Closed) -> [(&'static str, u64); 12] {
    [
        ("finish", closed.finish),
        ("eof", closed.eof),
        ("drained", closed.drained),
        ("abort", closed.abort),
        ("shutdown", closed.shutdown),
        ("detached", closed.detached),
        ("connect", closed.connect),
        ("io", closed.io),
        ("limit", closed.limit),
        ("overflow", closed.overflow),
        ("failed", closed.failed),
        ("panicked", closed.panicked),
    ]
}

/// The answer to a scrape. It has no names of peers or protocols in it: each would be a series of its own, kept for weeks.
pub fn text(stats: &Stats) -> String {
    let mut text = String::with_capacity(4096);
    for Figure { name, help, value } in figures(stats) {
        describe(&mut text, name, help);
        let _ = writeln!(text, "mainspring_{name} {value}"); // a String takes everything
    }
    describe(&mut text, "closed_total", "Connections, dispatchers and datagram sockets that have ended.");
    for (reason, count) in reasons(&stats.closed) {
        let _ = writeln!(text, "mainspring_closed_total{{reason=\"{reason}\"}} {count}");
    }
    text
}

/// Neither name nor help has anything in it that needs escaping.
fn describe(text: &mut String, name: &str, help: &str) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    let _ = writeln!(text, "# HELP mainspring_{name} {help}\n# TYPE mainspring_{name} {kind}");
}
