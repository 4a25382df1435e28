//! What TLS has agreed on: [`Tls`].

use rustls::{CipherSuite, ProtocolVersion, pki_types::CertificateDer};

/// What the handshake of a connection has agreed on: [`Context::tls`](crate::Context::tls), [`Link::tls`](crate::Link::tls),
/// [`Net::tls`](crate::Net::tls). It is asked of the connection, and copies nothing.
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
    /// The name that the client asked for (SNI, RFC 6066, 3), to its server. `None` for an address, which is not said, and on
    /// the client's side, which has asked for it.
    pub fn server_name(&self) -> Option<&'a str> {
        self.server_name
    }

    /// The application protocol (ALPN, RFC 7301), if one was agreed on.
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.alpn
    }

    /// What the peer has shown and the config's verifier has accepted: its own certificate first, then those that lead to who
    /// has issued it. Empty if it has shown none.
    pub fn peer_certificates(&self) -> &'a [CertificateDer<'static>] {
        self.certificates
    }

    /// The version of TLS.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// What encrypts.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.suite
    }

    /// Whether it goes on with a session of before, by its ticket or its number, and not by a full handshake.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
