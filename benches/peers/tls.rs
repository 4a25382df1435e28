//! Who speaks TLS with whom here: the certificates of the tests (P-256), and rustls' own defaults with ring.
#![allow(dead_code, reason = "a server needs one of the two")]

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{error::Error, sync::Arc};

/// For `localhost`, signed by `ca`: tests/certs/make.sh.
const CERTIFICATE: &[u8] = include_bytes!("../../tests/certs/p256.pem");
const KEY: &[u8] = include_bytes!("../../tests/certs/p256.key");
const CA: &[u8] = include_bytes!("../../tests/certs/ca.pem");

type Failure = Box<dyn Error + Send + Sync>;

pub fn server() -> Result<Arc<ServerConfig>, Failure> {
    let chain = CertificateDer::pem_slice_iter(CERTIFICATE).collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY)?)?))
}

/// It is a cache too: whoever connects with it a second time resumes the first session.
pub fn client() -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CA)?)?;
    let config = ClientConfig::builder_with_provider(ring::default_provider().into()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

pub fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("it is a name")
}
