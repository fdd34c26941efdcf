//! Whom to trust when connecting with TLS, and what to show for oneself. Authorities, certificate
//! and key are read again for each connection, so that they can be exchanged while the agent runs
//! (failure mode 28); the handshake itself is rustls's business.

use std::sync::Arc;

use credentials::{ByContent, Contents, Fault, Refreshed};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};

use super::{ExportError, outcome::Quote, verify};
use crate::config::{Protocol, TlsConfig, TlsIdentity, TlsVersion};

/// Makes rustls configurations from the current content of the files.
#[derive(Debug)]
pub(crate) struct Trust(Arc<ByContent<ClientConfig>>);

/// The order of the sources.
pub(super) const AUTHORITIES: usize = 0;
pub(super) const CERTIFICATE: usize = 1;
pub(super) const KEY: usize = 2;

impl Trust {
    /// Reads authorities and certificates for the first time.
    ///
    /// # Errors
    /// When there are none, or a file is of no use: better said at the start than at each
    /// connection.
    pub(crate) fn load(tls: &TlsConfig, protocol: Protocol) -> Result<Self, ExportError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = match (&tls.authorities, tls.insecure_skip_verify) {
            (_, true) => Verifier::TakeAny,
            (Some(_), false) => Verifier::Authorities,
            (None, false) => Verifier::System(system_authorities()?),
        };
        let (certificate, key) = match tls.identity.clone() {
            Some(TlsIdentity { certificate, key }) => (Some(certificate), Some(key)),
            None => (None, None),
        };
        let make = Make { provider, verifier, min_version: tls.min_version, protocol };
        let sources = vec![tls.authorities.clone(), certificate, key];
        let made = ByContent::load(sources, move |contents| make.client_config(contents));
        Ok(Self(Arc::new(made.map_err(ExportError::TlsContent)?)))
    }

    /// The configuration for the next connection.
    pub(crate) async fn client_config(&self) -> Arc<ClientConfig> {
        if self.0.has_files() {
            let files = Arc::clone(&self.0);
            // Only a panic or the end of the runtime fails it; what is there will do then.
            if let Ok(refreshed) = tokio::task::spawn_blocking(move || files.refresh()).await {
                say(&refreshed);
            }
        }
        self.0.current().0
    }
}

fn say(refreshed: &Refreshed) {
    match refreshed {
        Refreshed::Same => {}
        Refreshed::Changed => {
            tracing::info!("took over changed authorities or certificates for new connections");
        }
        Refreshed::Failed(error) => tracing::warn!(
            error = %Quote::of_error(error),
            "can't take over changed authorities or certificates; those before stay in force"
        ),
    }
}

/// How the sink's certificate is looked at.
enum Verifier {
    /// By the authorities of the configuration.
    Authorities,
    /// By the system's, as they were at the start.
    System(Arc<[CertificateDer<'static>]>),
    /// Not at all.
    TakeAny,
}

/// All that a rustls configuration is made from beside contents.
struct Make {
    provider: Arc<CryptoProvider>,
    verifier: Verifier,
    min_version: TlsVersion,
    protocol: Protocol,
}

impl Make {
    fn by_authorities(
        &self,
        authorities: Arc<[CertificateDer<'static>]>,
    ) -> Result<Arc<verify::Verifier>, String> {
        verify::Verifier::new(authorities, Arc::clone(&self.provider)).map(Arc::new)
    }

    fn client_config(&self, contents: &Contents) -> Result<ClientConfig, Fault> {
        let fault = |source| move |cause: String| Fault { source, cause };
        let content = |source: usize| contents[source].as_deref();
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            TlsVersion::V1_2 => &[&TLS12, &TLS13],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|error| fault(AUTHORITIES)(error.to_string()))?;
        let builder = match &self.verifier {
            Verifier::TakeAny => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TakeAny(Arc::clone(&self.provider)))),
            Verifier::System(authorities) => builder.dangerous().with_custom_certificate_verifier(
                self.by_authorities(Arc::clone(authorities)).map_err(fault(AUTHORITIES))?,
            ),
            Verifier::Authorities => {
                let pem = content(AUTHORITIES).unwrap_or_default();
                // What is no authority is said before it is needed.
                credentials::roots(pem).map_err(fault(AUTHORITIES))?;
                let authorities = credentials::certificates(pem).map_err(fault(AUTHORITIES))?;
                builder.dangerous().with_custom_certificate_verifier(
                    self.by_authorities(authorities.into()).map_err(fault(AUTHORITIES))?,
                )
            }
        };
        let mut config = match (content(CERTIFICATE), content(KEY)) {
            (Some(certificate), Some(key)) => {
                let chain = credentials::certificates(certificate).map_err(fault(CERTIFICATE))?;
                let key = credentials::key(key).map_err(fault(KEY))?;
                let with_key = builder.with_client_auth_cert(chain, key);
                with_key.map_err(|error| {
                    // An exchange half-way has a key that is not the certificate's.
                    let is_key = matches!(error, rustls::Error::InconsistentKeys(_));
                    let words = verify::in_words(&error, "the certificate");
                    let words = words.unwrap_or_else(|| error.to_string());
                    fault(if is_key { KEY } else { CERTIFICATE })(words)
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match self.protocol {
            Protocol::Grpc => vec![b"h2".to_vec()],
            Protocol::Http => vec![b"http/1.1".to_vec()],
        };
        Ok(config)
    }
}

fn system_authorities() -> Result<Arc<[CertificateDer<'static>]>, ExportError> {
    let found = rustls_native_certs::load_native_certs();
    // Systems carry a few authorities that webpki does not take; the others are what is needed.
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(found.certs.iter().cloned());
    if usable == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ExportError::SystemAuthorities { errors: errors.join("; ") });
    }
    Ok(found.certs.into())
}

/// `insecure_skip_verify`: any certificate will do. That the peer has its private key is verified
/// all the same, so the connection is with whoever showed it, and with nobody in between.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The handshake could not be verified, and would say that the signature is wrong.
        verify::refuse_short_key(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use credentials::Source;
    use std::{fs, path::Path};

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    /// A certificate and its key.
    fn identity() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn trust_of(path: &Path) -> Result<Trust, ExportError> {
        let authorities = Some(Source::File(path.to_owned()));
        Trust::load(&TlsConfig { authorities, ..TlsConfig::default() }, Protocol::Grpc)
    }

    /// Scenario: failure mode 28: the authority file is exchanged, then broken, then removed.
    /// Guarantees: the new content counts from the next connection on; a broken or missing file
    /// changes nothing, nor does an unchanged one.
    #[tokio::test]
    async fn authorities_are_reloaded_by_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), authority()).unwrap();
        let trust = trust_of(file.path()).unwrap();
        let first = trust.client_config().await;
        assert!(Arc::ptr_eq(&first, &trust.client_config().await));
        assert_eq!(first.alpn_protocols, [b"h2"]);

        fs::write(file.path(), authority() + &authority()).unwrap();
        let second = trust.client_config().await;
        assert!(!Arc::ptr_eq(&first, &second));
        for broken in ["", "garbage", "-----BEGIN CERTIFICATE-----\n?\n"] {
            fs::write(file.path(), broken).unwrap();
            assert!(Arc::ptr_eq(&second, &trust.client_config().await));
        }
        fs::remove_file(file.path()).unwrap();
        assert!(Arc::ptr_eq(&second, &trust.client_config().await));
    }

    /// Scenario: failure mode 28: certificate and key are exchanged one after the other, in either
    /// order, as files that are written separately are.
    /// Guarantees: half-way the old pair stays in force; the new one counts once it is whole.
    #[tokio::test]
    async fn a_half_exchanged_pair_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
        let (first_certificate, first_key) = identity();
        fs::write(&certificate, first_certificate).unwrap();
        fs::write(&key, first_key).unwrap();
        let authorities = Some(Source::Inline(authority().into()));
        let identity_of_files = TlsIdentity {
            certificate: Source::File(certificate.clone()),
            key: Source::File(key.clone()),
        };
        let tls =
            TlsConfig { authorities, identity: Some(identity_of_files), ..TlsConfig::default() };
        let trust = Trust::load(&tls, Protocol::Http).unwrap();
        let mut in_force = trust.client_config().await;
        for certificate_first in [true, false] {
            let (new_certificate, new_key) = identity();
            let mut steps = [(&certificate, new_certificate), (&key, new_key)];
            if !certificate_first {
                steps.reverse();
            }
            let [(path, content), (other_path, other_content)] = steps;
            fs::write(path, content).unwrap();
            assert!(Arc::ptr_eq(&in_force, &trust.client_config().await));
            fs::write(other_path, other_content).unwrap();
            let changed = trust.client_config().await;
            assert!(!Arc::ptr_eq(&in_force, &changed));
            in_force = changed;
        }
    }

    /// Scenario: the agent starts with an authority file that is missing or empty, and with a key
    /// that is not the certificate's.
    /// Guarantees: it says so instead of failing at each connection.
    #[test]
    fn bad_files_are_said_at_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(trust_of(file.path()), Err(ExportError::TlsContent(_))));
        let missing = file.path().with_extension("missing");
        assert!(matches!(trust_of(&missing), Err(ExportError::TlsContent(_))));
        let identity = TlsIdentity {
            certificate: Source::Inline(identity().0.into()),
            key: Source::Inline(identity().1.into()),
        };
        let authorities = Some(Source::Inline(authority().into()));
        let tls = TlsConfig { authorities, identity: Some(identity), ..TlsConfig::default() };
        let error = Trust::load(&tls, Protocol::Grpc).unwrap_err().to_string();
        assert!(error.contains("the configuration: the key is not the certificate's"), "{error}");
    }

    /// Scenario: the agent's own certificate is of X.509 version 1, which rustls takes of nobody.
    /// Guarantees: the certificate is named, and it is not taken for the sink's.
    #[test]
    fn an_own_certificate_of_no_use_is_told_from_the_sinks() {
        let (pem, key) = identity();
        let mut der = credentials::certificates(pem.as_bytes()).unwrap().remove(0).to_vec();
        // RFC 5280, 4.1.2.1: the version is explicit, and counts from 0.
        let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
        der[version + 4] = 0;
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        );
        let identity = TlsIdentity {
            certificate: Source::Inline(pem.into()),
            key: Source::Inline(key.into()),
        };
        let authorities = Some(Source::Inline(authority().into()));
        let tls = TlsConfig { authorities, identity: Some(identity), ..TlsConfig::default() };
        let error = Trust::load(&tls, Protocol::Grpc).unwrap_err();
        let ExportError::TlsContent(content) = &error else { panic!("{error}") };
        assert_eq!(content.index, CERTIFICATE);
        assert!(error.to_string().contains("the certificate is not accepted"), "{error}");
    }
}
