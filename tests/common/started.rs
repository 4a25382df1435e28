//! A server as its users start it.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A file of tests/certs, for the command line of a package below examples/.
pub(crate) fn certs(file: &str) -> String {
    format!("{}/../../tests/certs/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// A program that runs, and does not outlive its test.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Its end that we read, or it could write no more.
    output: BufReader<ChildStdout>,
    pub(crate) at: SocketAddr,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::try_start(command).expect("it says where it listens")
    }

    /// Nothing if it says something else first, or ends.
    pub(crate) fn try_start(command: &mut Command) -> Option<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it was built");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a first line");
        match line.trim_end().strip_prefix("listening on ").and_then(|at| at.parse().ok()) {
            Some(at) => Some(Self { child, output, at }),
            None => {
                let _ = child.kill(); // it may have ended
                let _ = child.wait();
                None
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill(1) exists").success());
    }

    /// By SIGTERM; the exit status, and the rest of the output.
    pub(crate) fn ends(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it is ours").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
