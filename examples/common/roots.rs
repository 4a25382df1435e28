//! Whom the system trusts.

use super::common::{Failure, unable};
use mainspring::rustls::RootCertStore;

/// If that is nobody, the user is told of the option that says whom to trust.
pub(crate) fn roots_of_system(option: &str) -> Result<RootCertStore, Failure> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match found.errors.pop() {
        _ if !roots.is_empty() => Ok(roots), // what cannot be read of them is trusted by nobody
        Some(error) => Err(unable(format!("nobody is trusted: {error}; {option} says whom to trust"))),
        None => Err(unable(format!("this system trusts nobody; {option} says whom to trust"))),
    }
}
