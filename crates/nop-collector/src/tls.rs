//! TLS of the two OTLP ports: certificate, key and the clients' authorities, from files that may be
//! exchanged while the collector runs. Each connection gets what the files hold then; a content
//! that nothing can be made from leaves what was there in force, and is said on standard error.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use credentials::{ByContent, ContentError, Contents, Fault, Refreshed, Source};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// Where the OTLP ports' TLS comes from, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The ports' certificate, and what lies between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of the clients: with them, clients without a certificate of theirs are refused.
    pub client_authorities: Option<PathBuf>,
}

/// The order of the sources.
const CERTIFICATE: usize = 0;
const KEY: usize = 1;
const CLIENT_AUTHORITIES: usize = 2;

/// One port's TLS.
#[derive(Clone, Debug)]
pub(crate) struct PortTls(Arc<ByContent<ServerConfig>>);

impl PortTls {
    /// Reads the files for the first time. `alpn` is what the port speaks, best first.
    pub(crate) fn load(files: &TlsFiles, alpn: &[&str]) -> Result<Self, ContentError> {
        let alpn: Vec<_> = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        let TlsFiles { certificate, key, client_authorities } = files.clone();
        let file = |path| Some(Source::File(path));
        let sources = vec![file(certificate), file(key), client_authorities.and_then(file)];
        let made = ByContent::load(sources, move |contents| server_config(contents, &alpn));
        Ok(Self(Arc::new(made?)))
    }

    /// What the next connection is accepted with.
    pub(crate) async fn acceptor(&self) -> TlsAcceptor {
        let files = Arc::clone(&self.0);
        let refreshed = tokio::task::spawn_blocking(move || files.refresh()).await;
        if let Ok(Refreshed::Failed(error)) = refreshed {
            let mut out = std::io::stderr();
            // Nothing is left to be done if standard error is closed.
            let _closed = writeln!(out, "nop-collector: {error}: the TLS before stays in force");
        }
        TlsAcceptor::from(self.0.current().0)
    }
}

fn server_config(contents: &Contents, alpn: &[Vec<u8>]) -> Result<ServerConfig, Fault> {
    let fault = |source| move |cause: String| Fault { source, cause };
    let content = |source: usize| contents[source].as_deref();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(CERTIFICATE)(error.to_string()))?;
    let builder = match content(CLIENT_AUTHORITIES) {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = credentials::roots(pem).map_err(fault(CLIENT_AUTHORITIES))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.build();
            let verifier =
                verifier.map_err(|error| fault(CLIENT_AUTHORITIES)(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = credentials::certificates(content(CERTIFICATE).unwrap_or_default())
        .map_err(fault(CERTIFICATE))?;
    let key = credentials::key(content(KEY).unwrap_or_default()).map_err(fault(KEY))?;
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| fault(KEY)(error.to_string()))?;
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}
