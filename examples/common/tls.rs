//! TLS from files: a server's certificate and key, and the issuers of its clients' certificates; for a client, the issuers that
//! it trusts. The cryptography is ring's.
#![allow(dead_code)] // each program uses a part of it

use super::common::{Arguments, Failure, misused, path};
use mainspring::{
    TlsServer,
    rustls::{
        self, ClientConfig, KeyLogFile, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{Error as PemError, PemObject},
        },
        server::WebPkiClientVerifier,
    },
};
use std::{fs, path::Path, sync::Arc};

/// The options of a server.
pub(crate) const OPTIONS: [&str; 3] = ["cert", "key", "client-ca"];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// From `--cert`, `--key` and, if clients have to show a certificate, `--client-ca`; with these protocols (ALPN). `None` if
/// none of them was given.
pub(crate) fn server(given: &Arguments, protocols: &[&str]) -> Result<Option<TlsServer>, Failure> {
    let file = |name: &str| given.option(name).map(|file| path(&format!("--{name}"), file.clone())).transpose();
    let client_ca = file("client-ca")?;
    let (cert, key) = match (file("cert")?, file("key")?) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if client_ca.is_none() => return Ok(None),
        _ => return Err(misused("TLS needs both --cert and --key")),
    };
    let config = config_of(&cert, &key, client_ca.as_deref(), protocols)?;
    Ok(Some(Arc::new(config).into()))
}

/// From `--tls CERT KEY`, with these protocols (ALPN). `None` if that was not given.
pub(crate) fn server_by_pair(given: &Arguments, protocols: &[&str]) -> Result<Option<TlsServer>, Failure> {
    Ok(config_by_pair(given, protocols)?.map(|config| Arc::new(config).into()))
}

/// The same, for programs that make more than one server of it.
pub(crate) fn config_by_pair(given: &Arguments, protocols: &[&str]) -> Result<Option<ServerConfig>, Failure> {
    let Some((cert, key)) = given.pair("tls") else { return Ok(None) };
    let (cert, key) = (path("--tls", cert.clone())?, path("--tls", key.clone())?);
    config_of(&cert, &key, None, protocols).map(Some)
}

/// From its files, with these protocols (ALPN); with `client_ca`, clients have to show a certificate.
fn config_of(cert: &Path, key: &Path, client_ca: Option<&Path>, protocols: &[&str]) -> Result<ServerConfig, Failure> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(file)?), provider());
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let config = builder.with_single_cert(certificates(cert)?, private_key(key)?);
    let mut config = config.map_err(|error| unfit(&error, cert, key))?;
    config.alpn_protocols = protocols.iter().map(|protocol| (*protocol).into()).collect();
    config.key_log = Arc::new(KeyLogFile::new()); // to the file in SSLKEYLOGFILE, for reading captured traffic
    Ok(config)
}

/// For a client that trusts these issuers, and shows no certificate.
pub(crate) fn client(roots: RootCertStore, protocols: &[&str]) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| (*protocol).into()).collect();
    config.key_log = Arc::new(KeyLogFile::new());
    Ok(config)
}

/// The issuers in this file, to be trusted.
pub(crate) fn roots_of(file: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|_| format!("'{}' has a certificate that cannot be read", file.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(all) if all.is_empty() => Err(format!("'{}' has no certificate in PEM", file.display()).into()),
        Ok(all) => Ok(all),
        Err(_) => Err(damaged(file)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let bytes = read(file)?;
    let is_encrypted =
        bytes.windows(11).any(|word| word == b" ENCRYPTED ") || bytes.windows(10).any(|word| word == b",ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        _ if is_encrypted => format!("the key in '{}' is encrypted: it is wanted in clear", file.display()).into(),
        PemError::NoItemsFound => format!("'{}' has no private key in PEM", file.display()).into(),
        _ => damaged(file),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| format!("cannot read '{}': {error}", file.display()).into())
}

fn damaged(file: &Path) -> Failure {
    format!("'{}' is damaged: its PEM cannot be read", file.display()).into()
}

/// Why this certificate and this key cannot be used together.
fn unfit(error: &rustls::Error, cert: &Path, key: &Path) -> Failure {
    let (cert, key) = (cert.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => format!("the key in '{key}' does not belong to the certificate in '{cert}'").into(),
        rustls::Error::InvalidCertificate(_) => format!("'{cert}' has a certificate that cannot be read").into(),
        other => format!("the key in '{key}' cannot be used: {other}").into(),
    }
}
