//! Who speaks TLS here: configs, made once, with the certificates of tests/certs. Nothing is resumed, and the signatures have one
//! length: each run is like the last one but for the keys.

use super::Tape;
use mainspring::rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use std::sync::{Arc, LazyLock};

pub(super) struct Sides {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    /// They can agree.
    pub(super) agree: bool,
    /// No record has more of plaintext.
    pub(super) fragment_max: usize,
    pub(super) is_tls13: bool,
}

static ALL: LazyLock<Vec<Sides>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for version in [&TLS13, &TLS12] {
        for shows in [None, Some("client")] {
            for fragment in [None, Some(512), Some(32)] {
                all.push(made(version, version, shows, shows.is_some(), fragment));
            }
        }
    }
    all.push(made(&TLS13, &TLS12, None, false, None));
    all.push(made(&TLS13, &TLS13, None, true, None));
    all.push(made(&TLS12, &TLS12, None, true, Some(32)));
    all
});

pub(super) fn made_up(tape: &mut Tape<'_>) -> &'static Sides {
    &ALL[tape.below(ALL.len())]
}

fn made(
    server: &'static SupportedProtocolVersion,
    client: &'static SupportedProtocolVersion,
    shows: Option<&str>,
    asks: bool,
    fragment: Option<usize>,
) -> Sides {
    let provider = Arc::new(ring::default_provider());
    let begun =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[server]).expect("ring has it");
    let begun = match asks {
        true => begun.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots().into(), Arc::clone(&provider)).build().expect("there is a root"),
        ),
        false => begun.with_no_client_auth(),
    };
    let (chain, key) = identity("server");
    let mut server_config = begun.with_single_cert(chain, key).expect("they belong together");
    let begun = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[client]).expect("ring has it");
    let begun = begun.with_root_certificates(roots());
    let mut client_config = match shows {
        Some(name) => {
            let (chain, key) = identity(name);
            begun.with_client_auth_cert(chain, key).expect("they belong together")
        }
        None => begun.with_no_client_auth(),
    };
    client_config.resumption = Resumption::disabled();
    (server_config.max_fragment_size, client_config.max_fragment_size) = (fragment, fragment);
    (server_config.enable_secret_extraction, client_config.enable_secret_extraction) = (true, true);
    Sides {
        server: server_config.into(),
        client: client_config.into(),
        agree: std::ptr::eq(server, client) && shows.is_some() == asks,
        fragment_max: fragment.unwrap_or(16 << 10),
        is_tls13: std::ptr::eq(server, &TLS13),
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(include_bytes!("../../tests/certs/ca.pem")).flatten());
    roots
}

fn identity(whose: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (chain, key): (&[u8], &[u8]) = match whose {
        "client" => (include_bytes!("../../tests/certs/client.pem"), include_bytes!("../../tests/certs/client.key")),
        _ => (include_bytes!("../../tests/certs/ed25519.pem"), include_bytes!("../../tests/certs/ed25519.key")),
    };
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().expect("it is PEM");
    (chain, PrivateKeyDer::from_pem_slice(key).expect("it is PEM"))
}
