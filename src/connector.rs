//! Connecting: the options ([`Connect`]), and how the loop goes on after each step.

use std::{net::SocketAddr, time::Duration};

/// How to connect. All of it has a default.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    pub(crate) timeout: Option<Duration>,
    pub(crate) local: Option<SocketAddr>,
}

impl Connect {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long connecting may take. Default: [`Config::connect_max`](crate::Config::connect_max).
    #[must_use]
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(after);
        self
    }

    /// The address to connect from (bind(2)); port 0 leaves the port to the system.
    #[must_use]
    pub fn local(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }
}

/// A Unix listener with a full backlog refuses to keep us waiting: how long until we ask again.
pub(crate) const RETRY: Duration = Duration::from_millis(10);
