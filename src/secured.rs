//! What TLS has agreed on: [`Tls`].

use rustls::{CipherSuite, ProtocolVersion, pki_types::CertificateDer};

/// What the TLS handshake of a connection has agreed on, from [`Context::tls`](crate::Context::tls),
/// [`Link::tls`](crate::Link::tls) or [`Net::tls`](crate::Net::tls). It is borrowed from the connection, and copies nothing.
/// The chapter is [TLS](crate::manual::tls#what-was-agreed-on).
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    pub(crate) server_name: Option<&'a str>,
    pub(crate) alpn: Option<&'a [u8]>,
    pub(crate) certificates: &'a [CertificateDer<'static>],
    pub(crate) version: ProtocolVersion,
    pub(crate) suite: CipherSuite,
    pub(crate) is_resumed: bool,
}

impl<'a> Tls<'a> {
    /// On the server's side, the name that the client asked for (SNI, RFC 6066, 3). `None` if it asked for none, as when it
    /// connects to an address; and on the client's side, which knows what it asked for.
    pub fn server_name(&self) -> Option<&'a str> {
        self.server_name
    }

    /// The application protocol (ALPN, RFC 7301), if one was agreed on.
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.alpn
    }

    /// The certificates that the peer has shown and the config's verifier has accepted: its own first, then those of its
    /// issuers. Empty if it has shown none, as most clients do.
    pub fn peer_certificates(&self) -> &'a [CertificateDer<'static>] {
        self.certificates
    }

    /// The TLS version.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The cipher suite, which is what encrypts.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.suite
    }

    /// Whether it resumed an earlier session instead of making a full handshake.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
