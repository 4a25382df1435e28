//! Configs of TLS, with the certificates of tests/certs.
#![allow(dead_code)] // each test binary uses a part of it

use mainspring::{
    TlsClient,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        version::{TLS12, TLS13},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Also for a package below this one's folder.
pub(crate) fn cert_path(file: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(|folder| folder.join("tests/certs").join(file)).find(|path| path.exists()).expect("it is checked in")
}

pub(crate) fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(cert_path(&format!("{name}.pem"))).expect("it is checked in");
    all.collect::<Result<_, _>>().expect("it is PEM")
}

pub(crate) fn key(name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(cert_path(&format!("{name}.key"))).expect("it is checked in")
}

pub(crate) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca"));
    roots
}

/// With this certificate; `localhost` and the loopback addresses.
pub(crate) fn server(certificate: &str) -> ServerConfig {
    let key_of = if ["expired", "future", "stranger", "other"].contains(&certificate) { "p256" } else { certificate };
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has both")
        .with_no_client_auth()
        .with_single_cert(certificates(certificate), key(key_of))
        .expect("they belong together")
}

pub(crate) fn client() -> ClientConfig {
    client_of(&[&TLS13, &TLS12])
}

pub(crate) fn client_of(versions: &[&'static mainspring::rustls::SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(versions)
        .expect("ring has them")
        .with_root_certificates(roots())
        .with_no_client_auth()
}

/// Both sides, of which nothing varies in length: the same seed is the same run.
pub(crate) fn sides() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    (Arc::new(server("ed25519")), Arc::new(client()))
}

/// The same with a client that asks for `localhost`, at whatever address it calls.
pub(crate) fn sides_of_localhost() -> (Arc<ServerConfig>, TlsClient) {
    let (server, client) = sides();
    (server, TlsClient::new(client).server_name("localhost".try_into().expect("a name")))
}
