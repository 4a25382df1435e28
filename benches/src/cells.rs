//! What is compared.

use crate::load::{Failure, Load};

/// One load on one kind of server.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub name: &'static str,
    pub says: &'static str,
    /// What the server is told to be.
    pub mode: &'static str,
    pub load: Load,
    pub unit: &'static str,
    /// From requests a second to the unit.
    pub scale: f64,
}

/// All of them, with this many idle connections in the last one.
pub fn all(idle: usize) -> Vec<Cell> {
    let cell = |name, mode, load, unit, says| Cell { name, says, mode, load, unit, scale: 1.0 };
    let bulk = |name, mode, load, says| Cell { name, says, mode, load, unit: "GB/s", scale: 65_536e-9 };
    let echo = |connections, size, depth| Load::Echo { connections, size, depth };
    vec![
        cell("echo-1", "echo", echo(1, 64, 1), "requests/s", "one connection, 64 bytes there and back"),
        cell("echo-64", "echo", echo(64, 64, 1), "requests/s", "the same on 64 connections"),
        cell("echo-64x16", "echo", echo(64, 64, 16), "requests/s", "16 under way on each"),
        cell("echo-64-4k", "echo", echo(64, 4096, 1), "requests/s", "64 connections, 4 KiB"),
        cell(
            "line-16x16",
            "line",
            Load::Lines { connections: 16, depth: 16 },
            "lines/s",
            "16 connections, 16 lines under way on each",
        ),
        cell("line-16x256", "line", Load::Lines { connections: 16, depth: 256 }, "lines/s", "256 lines under way on each"),
        bulk("sink-1", "sink", Load::Sink, "one connection writes, the server drops"),
        bulk("source-1", "source", Load::Source, "the server writes, one connection drops"),
        cell(
            "churn-32",
            "echo",
            Load::Churn { connections: 32 },
            "connections/s",
            "connect, 64 bytes there and back, close; 32 at a time",
        ),
        cell("udp", "udp", Load::Datagrams { size: 100, depth: 64 }, "datagrams/s", "100 bytes there and back, 64 under way"),
        cell("idle", "echo", Load::Idle { connections: idle }, "requests/s", "echo-64 amid idle connections"),
    ]
}

/// The one of this name.
pub fn named(name: &str, idle: usize) -> Result<Cell, Failure> {
    let cells = all(idle);
    let names: Vec<&str> = cells.iter().map(|cell| cell.name).collect();
    let found = cells.iter().find(|cell| cell.name == name);
    found.copied().ok_or_else(|| format!("there is no cell \"{name}\": one of {}", names.join(", ")).into())
}
