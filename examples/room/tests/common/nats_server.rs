//! The real server of NATS, which Debian has as the package `nats-server`.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    process::{Child, Command, Stdio},
};

/// By TLS, for `localhost`, and with a login: anna, secret.
pub const SECURED: [&str; 9] = [
    "--tls",
    "--tlscert",
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/certs/p256.pem"),
    "--tlskey",
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/certs/p256.key"),
    "--user",
    "anna",
    "--pass",
    "secret",
];

/// It runs until it is dropped, and is killed then.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// At this port, `-1`: at any free one. Nothing if there is no such program.
    pub fn start(port: &str, options: &[&str]) -> Option<Self> {
        let child =
            Command::new("nats-server").args(["-a", "127.0.0.1", "-p", port]).args(options).stderr(Stdio::piped()).spawn();
        let mut child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: there is no nats-server (apt-get install nats-server)");
                return None;
            }
            child => child.expect("nats-server starts"),
        };
        let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let lines = log.by_ref().map(|line| line.expect("a line"));
        let port = lines.filter_map(|line| line.rsplit_once("client connections on 127.0.0.1:")?.1.parse().ok()).next();
        std::thread::spawn(move || log.for_each(drop)); // somebody has to read it
        Some(Self { port: port.expect("it says where it listens"), child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
