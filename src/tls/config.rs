//! How TLS is spoken: [`TlsServer`], [`TlsClient`]; and in mid-stream, [`TlsSide`].

use super::error::TlsError;
use crate::address::Address;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName, server::ClientHello};
use std::{fmt, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

type Choose = dyn Fn(&ClientHello<'_>) -> Option<Arc<ServerConfig>>;

/// How a server speaks TLS: [`Listen::tls`](crate::Listen::tls), [`Context::start_tls`](crate::Context::start_tls). Made
/// from an `Arc<rustls::ServerConfig>`, which has the certificate and its key, the protocols for ALPN, whether clients show
/// certificates, and the sessions that may be resumed. Cheap to clone. The chapter is [TLS](crate::manual::tls).
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    choose: Option<Rc<Choose>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) tolerates_cut: bool,
}

impl TlsServer {
    /// Speaks TLS with this config for everybody.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, choose: None, timeout: None, tolerates_cut: false }
    }

    /// Chooses the config by what the client asks for: a name (SNI), ALPN. The one of [`new`](Self::new) is not used then.
    /// `None` refuses the client, with the alert `unrecognized_name`. The function runs on the loop, and must not block; if
    /// it panics, that connection ends.
    #[must_use]
    pub fn choose(mut self, choose: impl Fn(&ClientHello<'_>) -> Option<Arc<ServerConfig>> + 'static) -> Self {
        self.choose = Some(Rc::new(choose));
        self
    }

    /// How long a handshake may take. Default: [`Config::handshake_max`](crate::Config::handshake_max).
    #[must_use]
    pub fn handshake_timeout(mut self, most: Duration) -> Self {
        self.timeout = Some(most);
        self
    }

    /// Makes an end without close_notify an [`eof`](crate::Protocol::eof) instead of an error. It is for protocols that know
    /// by themselves where a message ends, and whose peers are known to end like this. Anybody on the way can cut such a
    /// stream. Default: an error, [`Reason::Io`](crate::Reason::Io) of the kind `UnexpectedEof`.
    #[must_use]
    pub fn tolerate_cut(mut self) -> Self {
        self.tolerates_cut = true;
        self
    }

    pub(super) fn choose_config(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        match &self.choose {
            Some(choose) => choose(hello),
            None => Some(Arc::clone(&self.config)),
        }
    }
}

impl From<Arc<ServerConfig>> for TlsServer {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self::new(config)
    }
}

impl From<&TlsServer> for TlsServer {
    fn from(server: &TlsServer) -> Self {
        server.clone()
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("chooses", &self.choose.is_some())
            .field("timeout", &self.timeout)
            .field("tolerates_cut", &self.tolerates_cut)
            .finish_non_exhaustive()
    }
}

/// How a client speaks TLS: [`Connect::tls`](crate::Connect::tls), [`Context::start_tls`](crate::Context::start_tls). Made
/// from an `Arc<rustls::ClientConfig>`, which has the roots that are trusted, the protocols for ALPN, the client's own
/// certificate if it has one, and the sessions that may be resumed: connections that share it resume each other's. Cheap to
/// clone. The chapter is [TLS](crate::manual::tls).
#[derive(Clone, Debug)]
pub struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: Option<ServerName<'static>>,
    pub(crate) tolerates_cut: bool,
}

impl TlsClient {
    /// Speaks TLS with this config; the server has to be the host that the connection goes to.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, name: None, tolerates_cut: false }
    }

    /// The name that the server's certificate has to be for. Default: the host of the target, a name or an address. There is
    /// no default for a Unix socket, and in [mid-stream](crate::Context::start_tls): without a name such a connection ends,
    /// with [`TlsStage::Name`](crate::TlsStage::Name).
    #[must_use]
    pub fn server_name(mut self, name: ServerName<'static>) -> Self {
        self.name = Some(name);
        self
    }

    /// For a connection to this host, or, if it has none, to this address.
    pub(crate) fn name_for<T, E>(
        &self,
        named: &Result<Option<(String, T)>, E>,
        peer: &Address,
    ) -> Result<ServerName<'static>, TlsError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        match (named, peer) {
            (Ok(Some((host, _))), _) => {
                let host = host.strip_suffix('.').unwrap_or(host);
                ServerName::try_from(host.to_owned()).map_err(|_| TlsError::bad_name(host))
            }
            (Ok(None), Address::Ip(at)) => Ok(ServerName::from(at.ip())),
            (Ok(None), _) => Err(TlsError::no_name()),
            (Err(_), _) => Ok(ServerName::from(IpAddr::from([0, 0, 0, 0]))), // it leads nowhere, and that is reported
        }
    }

    /// Makes an end without close_notify an [`eof`](crate::Protocol::eof) instead of an error, as
    /// [`TlsServer::tolerate_cut`] does.
    #[must_use]
    pub fn tolerate_cut(mut self) -> Self {
        self.tolerates_cut = true;
        self
    }
}

impl From<Arc<ClientConfig>> for TlsClient {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self::new(config)
    }
}

impl From<&TlsClient> for TlsClient {
    fn from(client: &TlsClient) -> Self {
        client.clone()
    }
}

/// Which side of TLS a connection becomes in mid-stream: [`Context::start_tls`](crate::Context::start_tls),
/// [`Link::start_tls`](crate::Link::start_tls). Made by `into` from a [`TlsServer`], a [`TlsClient`], or a rustls config. It
/// need not be the side that the connection had in TCP.
#[derive(Clone, Debug)]
pub struct TlsSide(pub(crate) Side);

#[derive(Clone, Debug)]
pub(crate) enum Side {
    Server(TlsServer),
    Client(TlsClient),
}

macro_rules! sides {
    ($($of:ty => $side:ident,)*) => {
        $(impl From<$of> for TlsSide {
            fn from(of: $of) -> Self {
                Self(Side::$side(of.into()))
            }
        })*
    };
}

sides! {
    TlsServer => Server,
    &TlsServer => Server,
    Arc<ServerConfig> => Server,
    TlsClient => Client,
    &TlsClient => Client,
    Arc<ClientConfig> => Client,
}
