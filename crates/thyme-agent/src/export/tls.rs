//! Whom to trust when connecting with TLS. An authority file is read again for each connection, so
//! that authorities can be exchanged while the agent runs (failure mode 28); the handshake itself
//! is rustls's business.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{ExportError, outcome::Quote};
use crate::config::{Protocol, TlsConfig};

/// Makes rustls configurations from the current content of the authority file.
#[derive(Debug)]
pub(super) struct Trust {
    /// The authority file; `None` trusts the system's authorities, as they were at the start.
    ca_file: Option<PathBuf>,
    protocol: Protocol,
    current: Mutex<Loaded>,
}

/// A configuration and what it was made from.
#[derive(Debug, Clone)]
struct Loaded {
    /// Content of the authority file; empty where there is none.
    pem: Vec<u8>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Reads the authorities for the first time.
    ///
    /// # Errors
    /// When there are none, or the file can't be read: better said at the start than at each
    /// connection.
    pub(super) fn load(tls: &TlsConfig, protocol: Protocol) -> Result<Self, ExportError> {
        let (pem, roots) = match &tls.ca_file {
            Some(path) => {
                let failed = |source| ExportError::CaFile { path: path.clone(), source };
                let pem = std::fs::read(path).map_err(failed)?;
                let roots = roots_of_pem(&pem).map_err(failed)?;
                (pem, roots)
            }
            None => (Vec::new(), system_roots()?),
        };
        let config = client_config(roots, protocol)?;
        let current = Mutex::new(Loaded { pem, config });
        Ok(Self { ca_file: tls.ca_file.clone(), protocol, current })
    }

    /// The configuration for the next connection.
    pub(super) async fn client_config(&self) -> Arc<ClientConfig> {
        if let Some(path) = self.ca_file.clone() {
            let read = tokio::task::spawn_blocking(move || (std::fs::read(&path), path));
            if let Ok((content, path)) = read.await {
                self.take_over(&path, content);
            }
        }
        Arc::clone(&self.lock().config)
    }

    /// Takes over a new content of the file. A file that is missing or broken, as for a moment
    /// while it is exchanged, leaves what is there in force.
    fn take_over(&self, path: &Path, content: io::Result<Vec<u8>>) {
        let loaded = content.and_then(|pem| {
            if pem == self.lock().pem {
                return Ok(None);
            }
            let roots = roots_of_pem(&pem)?;
            let config = client_config(roots, self.protocol).map_err(io::Error::other)?;
            Ok(Some(Loaded { pem, config }))
        });
        match loaded {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                *self.lock() = loaded;
                tracing::info!(path = %path.display(), "took over the changed ca_file");
            }
            Err(error) => tracing::warn!(
                path = %path.display(),
                error = %Quote::of_error(&error),
                "can't take over the ca_file; the authorities read before stay in force"
            ),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn roots_of_pem(pem: &[u8]) -> io::Result<RootCertStore> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("there is no certificate in it".into()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, ExportError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry a few authorities that webpki does not take; the others are what is needed.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ExportError::SystemAuthorities { errors: errors.join("; ") });
    }
    Ok(roots)
}

fn client_config(
    roots: RootCertStore,
    protocol: Protocol,
) -> Result<Arc<ClientConfig>, ExportError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ExportError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn trust_of(path: &Path) -> Result<Trust, ExportError> {
        let tls = TlsConfig { insecure: false, ca_file: Some(path.to_owned()) };
        Trust::load(&tls, Protocol::Grpc)
    }

    /// Scenario: failure mode 28: the authority file is exchanged, then broken, then removed.
    /// Guarantees: the new content counts from the next connection on; a broken or missing file
    /// changes nothing, nor does an unchanged one.
    #[tokio::test]
    async fn authorities_are_reloaded_by_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority()).unwrap();
        let trust = trust_of(file.path()).unwrap();
        let first = trust.client_config().await;
        assert!(Arc::ptr_eq(&first, &trust.client_config().await));
        assert_eq!(first.alpn_protocols, [b"h2"]);

        std::fs::write(file.path(), authority() + &authority()).unwrap();
        let second = trust.client_config().await;
        assert!(!Arc::ptr_eq(&first, &second));
        for broken in ["", "garbage", "-----BEGIN CERTIFICATE-----\n?\n"] {
            std::fs::write(file.path(), broken).unwrap();
            assert!(Arc::ptr_eq(&second, &trust.client_config().await));
        }
        std::fs::remove_file(file.path()).unwrap();
        assert!(Arc::ptr_eq(&second, &trust.client_config().await));
    }

    /// Scenario: the agent starts with an authority file that is missing or empty.
    /// Guarantees: it says so instead of failing at each connection.
    #[test]
    fn a_bad_authority_file_is_said_at_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(trust_of(file.path()), Err(ExportError::CaFile { .. })));
        let missing = file.path().with_extension("missing");
        assert!(matches!(trust_of(&missing), Err(ExportError::CaFile { .. })));
    }
}
