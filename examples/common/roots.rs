//! The issuers of certificates that the system trusts.

use super::common::{Failure, unable};
use mainspring::rustls::RootCertStore;

/// If there are none, the error names the option that says which to trust.
pub(crate) fn roots_of_system(option: &str) -> Result<RootCertStore, Failure> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match found.errors.pop() {
        _ if !roots.is_empty() => Ok(roots), // those that cannot be read are not trusted
        Some(error) => Err(unable(format!("no trusted certificates: {error}; give some with {option}"))),
        None => Err(unable(format!("this system has no trusted certificates; give some with {option}"))),
    }
}
