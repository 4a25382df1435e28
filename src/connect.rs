//! Connecting: the options.

use crate::key::Key;
#[cfg(feature = "tls")]
use crate::tls::TlsClient;
use std::{net::SocketAddr, time::Duration};

/// How to connect. Everything has a default. The chapter is [connecting](crate::manual::connecting#bounds-and-options).
#[derive(Clone, Debug, Default)]
pub struct Connect {
    pub(crate) timeout: Option<Duration>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) owner: Option<Key>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsClient>,
}

impl Connect {
    /// Makes options with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long connecting may take, including looking the name up. Default:
    /// [`Config::connect_max`](crate::Config::connect_max).
    #[must_use]
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(after);
        self
    }

    /// The address to connect from (bind(2)); port 0 leaves the port to the system. Only those addresses of a name that are
    /// of the same family are tried then; with a port, one after the other. A literal address of the other family cannot be
    /// reached from it. It means nothing for Unix sockets.
    ///
    /// A port can be used again as soon as its connection has ended, to another server (SO_REUSEADDR). To the same server
    /// TCP needs a pause if it was this end that closed first (TIME_WAIT): until then connecting fails with
    /// [`AddrNotAvailable`](std::io::ErrorKind::AddrNotAvailable).
    #[must_use]
    pub fn local(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }

    /// Makes the new connection belong to this one: it is aborted when the owner has ended, after the owner's `closed`,
    /// unless it has begun to end itself by then. An upgrade of either changes nothing. If the owner has already begun to
    /// end, the new one is aborted at once: `closed` comes alone. Default: nobody's.
    #[must_use]
    pub fn owner(mut self, connection: Key) -> Self {
        self.owner = Some(connection);
        self
    }

    /// Speaks TLS as soon as it is connected, as the client; [`connected`](crate::Protocol::connected) comes after the
    /// handshake. Takes an `Arc<rustls::ClientConfig>`, or a [`TlsClient`]. The server has to show a certificate for the
    /// host of the target, a name or an address, or for the one that [`TlsClient::server_name`] names. The
    /// [`timeout`](Self::timeout) includes the handshake; if that fails, the reason is [`Reason::Tls`](crate::Reason::Tls).
    /// The chapter is [TLS](crate::manual::tls). Default: in clear.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, client: impl Into<TlsClient>) -> Self {
        self.tls = Some(client.into());
        self
    }
}
