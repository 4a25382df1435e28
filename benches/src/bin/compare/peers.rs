//! Who is compared, and running them.

use mainspring_benches::{load::Failure, process::succeed};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    /// The package, which is also the program; nothing for Python.
    package: Option<&'static str>,
    variant: Option<&'static str>,
    pub(crate) modes: &'static [&'static str],
    /// It cannot have more idle connections, or takes too long.
    pub(crate) idle_max: usize,
}

pub(crate) const OURS: &str = "mainspring";

/// All ratios are to this one.
pub(crate) const REFERENCE: &str = "epoll";

const STREAMS: &[&str] = &["echo", "line", "sink", "source"];
const ALL: &[&str] = &["echo", "line", "sink", "source", "udp"];

const fn rust(name: &'static str, says: &'static str, package: &'static str) -> Peer {
    Peer { name, says, package: Some(package), variant: None, modes: ALL, idle_max: usize::MAX }
}

pub(crate) const PEERS: [Peer; 10] = [
    rust(OURS, "this crate", "server"),
    Peer {
        variant: Some("50"),
        modes: &["echo"],
        ..rust("mainspring-spin", "this crate with `Config::spin` of 50 µs, which keeps a core busy", "server")
    },
    rust(REFERENCE, "a loop written by hand on epoll(7), edge-triggered: the limit", "peer-epoll"),
    Peer {
        variant: Some("spin"),
        modes: &["echo"],
        ..rust("epoll-spin", "the same, which polls for 50 µs before it sleeps", "peer-epoll")
    },
    rust("epoll-direct", "the same, whose system calls are made in place instead of through libc", "peer-epoll-direct"),
    rust("mio", "the same loop written by hand on mio", "peer-mio"),
    rust("tokio", "current_thread runtime, a task for each connection, LinesCodec", "peer-tokio"),
    Peer {
        variant: Some("bytes"),
        modes: &["line"],
        ..rust("tokio-bytes", "tokio, lines by hand over one buffer", "peer-tokio")
    },
    rust("calloop", "level-triggered, an event source for each connection", "peer-calloop"),
    Peer {
        package: None,
        modes: STREAMS,
        idle_max: 1_000,
        ..rust("asyncore", "asyncore and asynchat of Python, poll(2); amid 1,000 idle connections only", "")
    },
];

/// Those of a list, and the reference.
pub(crate) fn named(list: &str) -> Result<Vec<Peer>, Failure> {
    let names: Vec<&str> = list.split(',').collect();
    if let Some(unknown) = names.iter().find(|name| !PEERS.iter().any(|peer| peer.name == **name)) {
        let known: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        return Err(format!("there is no peer \"{unknown}\": one of {}", known.join(", ")).into());
    }
    Ok(PEERS.into_iter().filter(|peer| peer.name == REFERENCE || names.contains(&peer.name)).collect())
}

/// What was built, and where.
pub(crate) struct Build {
    pub(crate) folder: &'static Path,
    pub(crate) target: PathBuf,
    profile: String,
    /// Those that can be run here.
    pub(crate) peers: Vec<Peer>,
    pub(crate) python: Option<String>,
}

impl Build {
    pub(crate) fn all(profile: &str, peers: &[Peer]) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target directory")?.to_owned();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut build = Self { folder, target, profile: profile.to_owned(), peers: peers.to_vec(), python: None };
        let mut packages: Vec<&str> = peers.iter().filter_map(|peer| peer.package).collect();
        packages.dedup();
        for package in packages {
            // Each by itself, or one would get its crates with the features that another one wants.
            succeed(build.cargo("build").args(["--quiet", "--locked", "--profile", profile, "-p", package, "--bins"]))?;
        }
        if peers.iter().any(|peer| peer.package.is_none()) {
            build.python = python_with_asyncore();
        }
        if build.python.is_none() {
            if peers.iter().any(|peer| peer.package.is_none()) {
                println!("asyncore is left out: no python3 here has it (it went with 3.12; pyasynchat is its backport)");
            }
            build.peers.retain(|peer| peer.package.is_some());
        }
        Ok(build)
    }

    /// Of this workspace, with nothing from the environment that changes what is built.
    pub(crate) fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg(command).current_dir(self.folder);
        cargo.env("CARGO_TARGET_DIR", &self.target).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo
    }

    /// Where what a server complains of is kept.
    pub(crate) fn complaints(&self) -> PathBuf {
        self.target.join("server.stderr")
    }

    pub(crate) fn command(&self, peer: Peer, mode: &str) -> Command {
        let mut command = match (peer.package, &self.python) {
            (Some(package), _) => Command::new(self.target.join(&self.profile).join(package)),
            (None, python) => {
                let mut command = Command::new(python.as_deref().unwrap_or("python3"));
                command.arg(self.folder.join("peers/asyncore_server.py"));
                command
            }
        };
        command.args([mode, "0"]).args(peer.variant);
        command
    }
}

fn python_with_asyncore() -> Option<String> {
    let has_it = |python: &str| {
        let mut command = Command::new(python);
        command.args(["-W", "ignore", "-c", "import asyncore, asynchat"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let names = ["python3", "python3.11", "python3.10", "python3.9", "/usr/bin/python3"];
    names.into_iter().find(|python| has_it(python)).map(str::to_owned)
}
