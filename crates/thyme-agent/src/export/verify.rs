//! Verifies the sink's certificate, as webpki does, and takes one more: a certificate that is itself
//! among the authorities of the configuration, as curl and Go do. People make such a certificate
//! with one line of openssl, and webpki refuses it for being an authority's.
//!
//! Errors of TLS are put into words here, too: rustls prints some of them as its types.

use std::{error::Error, io, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Takes certificates that lead to an authority, and the authorities' own.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    authorities: Arc<[CertificateDer<'static>]>,
}

impl Verifier {
    /// # Errors
    /// In words, where there is no authority.
    pub(super) fn new(
        authorities: Arc<[CertificateDer<'static>]>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        // Systems carry a few authorities that webpki does not take; the others are what is needed.
        roots.add_parsable_certificates(authorities.iter().cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { webpki, authorities })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // webpki has found it valid at this time before it looked at what it is for; that the
            // peer has its key, the handshake proves. What is left is its name.
            Err(error) if is_authority(&error) && self.authorities.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Whether a certificate was refused for being an authority's.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// What an error of TLS means, where its own words are a library's types.
pub(super) fn in_words(error: &(dyn Error + 'static)) -> Option<String> {
    let tls = match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        None => error.downcast_ref::<rustls::Error>()?,
    };
    let words = match tls {
        rustls::Error::InvalidCertificate(_) if is_authority(tls) => {
            "the sink's certificate is that of an authority, and none of those that are trusted: add \
             it to tls.ca_file"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the sink's certificate is of an authority that is not trusted: add that to tls.ca_file"
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the sink's certificate is not signed by the authority that it names"
        }
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "the sink's certificate can't be read"
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            return Some(format!("the sink's certificate is not accepted: {}", of_type(&*other.0)));
        }
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's",
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "what answers does not speak TLS"
        }
        rustls::Error::AlertReceived(alert) => {
            return Some(format!("the sink refuses TLS: {}", spaced(&format!("{alert:?}"))));
        }
        rustls::Error::InvalidCertificate(other) => {
            return Some(format!("the sink's certificate: {}", readable(&other.to_string())));
        }
        _ => return None,
    };
    Some(words.to_owned())
}

/// An error of webpki, whose words are the names of its variants.
fn of_type(error: &(dyn Error + Send + Sync + 'static)) -> String {
    readable(&error.to_string())
}

/// Words as they are; the name of a type as words.
fn readable(words: &str) -> String {
    let is_name = words.chars().all(|c| c.is_ascii_alphanumeric());
    if is_name { spaced(words) } else { words.to_owned() }
}

/// `HandshakeFailure` as `handshake failure`; several capitals in a row stay what they are.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    let characters: Vec<char> = name.chars().collect();
    for (at, character) in characters.iter().enumerate() {
        let after_small = at > 0 && !characters[at - 1].is_ascii_uppercase();
        let is_acronym = characters.get(at + 1).is_some_and(char::is_ascii_uppercase)
            || (at > 0 && characters[at - 1].is_ascii_uppercase());
        if character.is_ascii_uppercase() && after_small {
            words.push(' ');
        }
        match is_acronym {
            true => words.push(*character),
            false => words.push(character.to_ascii_lowercase()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::crypto::ring;

    use super::*;

    /// A certificate that is its own authority, for `sink.example`, valid in these years.
    fn self_signed(years: [i32; 2], name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(years[0], 1, 1);
        params.not_after = rcgen::date_time_ymd(years[1], 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(
        trusted: &CertificateDer<'static>,
        shown: &CertificateDer<'static>,
        name: &str,
    ) -> Result<(), rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new([trusted.clone()].into(), provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        // The middle of 2026.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_782_000_000));
        verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop)
    }

    /// Scenario: a self-signed certificate with CA:TRUE, as `openssl req -x509` makes it, is the
    /// `ca_file` and the sink's certificate.
    /// Guarantees: it is accepted, but only by its own name and in its time, and no other one is.
    #[test]
    fn a_certificate_that_is_its_own_authority_is_accepted() {
        let own = self_signed([2020, 2040], "sink.example");
        verify(&own, &own, "sink.example").unwrap();
        let refused = |trusted, shown, name| {
            let error = verify(trusted, shown, name).unwrap_err();
            in_words(&error).unwrap()
        };
        let name = refused(&own, &own, "other.example");
        assert!(name.contains("sink.example") || name.contains("not valid for name"), "{name}");
        let another = self_signed([2020, 2040], "sink.example");
        let other = refused(&own, &another, "sink.example");
        assert!(other.contains("none of those that are trusted"), "{other}");
        let old = self_signed([2020, 2021], "sink.example");
        let expired = refused(&old, &old, "sink.example");
        assert!(expired.contains("expired"), "{expired}");
        let future = self_signed([2039, 2040], "sink.example");
        let early = refused(&future, &future, "sink.example");
        assert!(early.contains("not valid yet"), "{early}");
    }

    /// Scenario: errors of TLS as they come: within an I/O error, and alerts of the sink.
    /// Guarantees: words for people, and no name of a type.
    #[test]
    fn errors_of_tls_are_said_in_words() {
        use rustls::{AlertDescription, Error, InconsistentKeys, InvalidMessage};
        let errors = [
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::BadSignature),
            Error::InvalidCertificate(CertificateError::Revoked),
            Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(
                webpki::Error::CaUsedAsEndEntity,
            )))),
            Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(
                webpki::Error::UnsupportedCriticalExtension,
            )))),
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::AlertReceived(AlertDescription::CertificateRequired),
        ];
        for error in errors {
            let words = in_words(&io::Error::other(error)).unwrap();
            // A type's name has a capital within a word.
            let has_type = words
                .as_bytes()
                .windows(2)
                .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
            assert!(!has_type && !words.contains('('), "{words}");
        }
        assert_eq!(spaced("CertificateRequired"), "certificate required");
        assert!(in_words(&io::Error::other("x")).is_none());
    }
}
