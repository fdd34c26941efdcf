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
        refuse_short_key(end_entity)?;
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // webpki has found it valid at this time before it looked at what it is for, and that, too,
            // before it looked for who signed it; that the peer has its key, the handshake proves.
            // What is left is its name.
            Err(error)
                if (is_authority(&error) || is_of_nobody(&error))
                    && self.authorities.contains(end_entity) =>
            {
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

/// Whether nobody is known who signed a certificate, or only somebody else of the same name.
fn is_of_nobody(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(error) = error else { return false };
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}

/// Bits that an RSA key has at least, by which a signature can be verified.
const RSA_BITS_MIN: usize = 2048;

/// A key by which no signature can be verified, so that each of them would seem to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its RSA key has {bits} bits, expected at least {RSA_BITS_MIN}")]
struct ShortKey {
    bits: usize,
}

/// Says of a certificate with a short key what is wrong with it.
pub(super) fn refuse_short_key(certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return Ok(()) };
    match rsa_bits(&parsed.subject_public_key_info()) {
        Some(bits) if bits < RSA_BITS_MIN => {
            let reason = rustls::OtherError(Arc::new(ShortKey { bits }));
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(reason)))
        }
        _ => Ok(()),
    }
}

/// Length of the modulus of an RSA key's SubjectPublicKeyInfo (RFC 3279, 2.3.1); `None` for other
/// keys.
fn rsa_bits(key_info: &[u8]) -> Option<usize> {
    /// The algorithm `rsaEncryption`, without parameters.
    const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    const SEQUENCE: u8 = 0x30;
    const BITS: u8 = 3;
    const INTEGER: u8 = 2;
    let key = value_of(SEQUENCE, key_info)?.strip_prefix(RSA)?;
    let numbers = value_of(SEQUENCE, value_of(BITS, key)?.strip_prefix(&[0])?)?;
    let modulus = value_of(INTEGER, numbers)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = *modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// The value of a DER element with this tag, which may be followed by others.
fn value_of(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (length, rest) = match *der.strip_prefix(&[tag])? {
        [length @ 0..=0x7f, ref rest @ ..] => (usize::from(length), rest),
        [0x81, length, ref rest @ ..] => (usize::from(length), rest),
        [0x82, high, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return None,
    };
    rest.get(..length)
}

/// Whether a certificate was refused for being an authority's.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// What an error of TLS means, where its own words are a library's types; `certificate` is the one that it
/// may be about, as in "the sink's certificate".
pub(super) fn in_words(error: &(dyn Error + 'static), certificate: &str) -> Option<String> {
    let tls = match error.downcast_ref::<io::Error>() {
        // rustls gives it an address of its manual.
        Some(error) if error.to_string().contains("close_notify") => {
            return Some("it closed the connection in the midst of TLS".to_owned());
        }
        Some(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        None => error.downcast_ref::<rustls::Error>()?,
    };
    let words = match tls {
        rustls::Error::InvalidCertificate(_) if is_authority(tls) => {
            "is that of an authority, and none of those that are trusted: add it to tls.ca_file"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "is of an authority that is not trusted: add that to tls.ca_file"
        }
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "is not signed by the authority that it names, or that one has an RSA key of less than \
             2048 bits"
        }
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => "can't be read",
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            let words = readable(&other.0.to_string());
            return Some(format!("{certificate} is not accepted: {words}"));
        }
        rustls::Error::InconsistentKeys(_) => {
            return Some("the key is not the certificate's".to_owned());
        }
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            return Some("what answers does not speak TLS".to_owned());
        }
        rustls::Error::AlertReceived(alert) => {
            return Some(format!("the sink refuses TLS: {}", spaced(&format!("{alert:?}"))));
        }
        rustls::Error::InvalidCertificate(other) => {
            return Some(format!("{certificate}: {}", readable(&other.to_string())));
        }
        _ => return None,
    };
    Some(format!("{certificate} {words}"))
}

/// Words as they are; the name of a type, or of a variant as webpki has it, as words.
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

    const RSA_1024: &str = "\
-----BEGIN CERTIFICATE-----
MIICJTCCAY6gAwIBAgIUZKIpJWODG4tWAXmgHBGeGJrr/QMwDQYJKoZIhvcNAQEL
BQAwFzEVMBMGA1UEAwwMc2luay5leGFtcGxlMCAXDTI2MTEzMDA0NTgyNVoYDzIx
MjYxMTA2MDQ1ODI1WjAXMRUwEwYDVQQDDAxzaW5rLmV4YW1wbGUwgZ8wDQYJKoZI
hvcNAQEBBQADgY0AMIGJAoGBAKYdAXDH9grwkdGiekirkZvGQPgHmvhtY9UBC8lG
Rfl2ZuZCV6y3dAT4H8LIlGWSk0pHWsBLQleprpfNmrQfd4YXbTJBGKzMytEbpQDS
LsJCmJVFPE+uAbdp3y6WNo3qmI4QJSQmXM4rqcPVkNGPrfCymkzxnQtXrMmMG1YN
OtSfAgMBAAGjbDBqMB0GA1UdDgQWBBR0wwtOG69UvDDB9A/BpMUz4o0QYjAfBgNV
HSMEGDAWgBR0wwtOG69UvDDB9A/BpMUz4o0QYjAPBgNVHRMBAf8EBTADAQH/MBcG
A1UdEQQQMA6CDHNpbmsuZXhhbXBsZTANBgkqhkiG9w0BAQsFAAOBgQAxNtLND77+
/fx1Xu3yL89iIJNuZf0Nyk7CknP9t+XFliEuPvHfXUjIuiY95vhrqw6xdGD7CriM
SAyq96R8VxAdh4rzkGVgt6vdbNDmMDrQHaGeXB5UYJDDClNisClWP7qBw1JVIenm
WQdlhFfL+c5sgJ/ZSTkbdtHm2O+tfdNNOQ==
-----END CERTIFICATE-----
";

    const RSA_2048: &str = "\
-----BEGIN CERTIFICATE-----
MIIDKjCCAhKgAwIBAgIUUsBiL/geTVNT5NXOH93/3QcIAN4wDQYJKoZIhvcNAQEL
BQAwFzEVMBMGA1UEAwwMc2luay5leGFtcGxlMCAXDTI2MTEzMDA0NTgyNloYDzIx
MjYxMTA2MDQ1ODI2WjAXMRUwEwYDVQQDDAxzaW5rLmV4YW1wbGUwggEiMA0GCSqG
SIb3DQEBAQUAA4IBDwAwggEKAoIBAQDkF65GR8kmi3HF6Jt6HbrA0+fwHMDddxth
QNZQT1u6cmQHN8PRdLpoEqcLRltd1vR/jduGvf9kpB3JJStlvsa8VM97B+mkmSLs
xB/fTjHhDjX6HtKkv5DabC4juIaZTb8zyb7CAI0Rr+0oSv6lYK0slCGGZrokV0eg
6HZVVsA+WgRPD/jv12C+dlewS66j8den6nDvTbbndlO2/PC2VLcRYzWil0f/Q4Ig
ZXZcC5b1OwcgmH0qmW2wYtKin1FTe39+RUxaKwy+wmhuEPpP8zxl5MtSSLhA5ut/
O8zZbVO4/k8ld71GCFfVdzhyMzHKWzGHasxlj1zt52jCYRqnybujAgMBAAGjbDBq
MB0GA1UdDgQWBBQ15rV2aJy0W7tO8fyZM3NeKgJe/zAfBgNVHSMEGDAWgBQ15rV2
aJy0W7tO8fyZM3NeKgJe/zAPBgNVHRMBAf8EBTADAQH/MBcGA1UdEQQQMA6CDHNp
bmsuZXhhbXBsZTANBgkqhkiG9w0BAQsFAAOCAQEAv2/CPQSYdFGzZgCLY96AoJ0W
4rF3brK8tMEFTkED9uS3ExA9CxKhTnVYGL7YsBNrSNtBDjOXwYgGd4czL8GDW+xx
fbxDeb6n4N6iE2p6br63+aD0wVbkMuRRZesP7jc0EuaWIu3ue+AUw5cgSapoBQ1o
AMydTpgcIIdV+nzF8Yi6R/0x3ZOw/9L0LcGKaGcRfveW9/aMvSZYuqyjtl/p5REc
UorQjyzb4fmXpN1ZVtMYd2eBY05HKQDumiRFz/DeEnZwhQLJSndGYgyDfOK0oN9M
SR9wnoiZXQwIZwrr8uBzevyjsja8KYXnxhBrcT3O/Sz4udd37uK6G0Rmb34whA==
-----END CERTIFICATE-----
";

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
            in_words(&error, "the sink's certificate").unwrap()
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

    /// Scenario: `ca_file` is the sink's own certificate, which an authority has signed that nobody knows.
    /// Guarantees: accepted by its name and in its time, as Go and OpenSSL do; another one of that
    /// authority is not.
    #[test]
    fn a_trusted_certificate_needs_no_authority() {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let leaf = |years: [i32; 2]| {
            let mut params = CertificateParams::new(["sink.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(years[0], 1, 1);
            params.not_after = rcgen::date_time_ymd(years[1], 1, 1);
            let signed = params.signed_by(&KeyPair::generate().unwrap(), &issuer);
            signed.unwrap().der().clone()
        };
        let own = leaf([2020, 2040]);
        verify(&own, &own, "sink.example").unwrap();
        let refused = |trusted, shown, name| {
            let error = verify(trusted, shown, name).unwrap_err();
            in_words(&error, "the sink's certificate").unwrap()
        };
        assert!(refused(&own, &own, "other.example").contains("not valid for name"));
        let other = leaf([2020, 2040]);
        assert!(refused(&own, &other, "sink.example").contains("that is not trusted"));
        let old = leaf([2020, 2021]);
        assert!(refused(&old, &old, "sink.example").contains("expired"));
    }

    /// Scenario: certificates with RSA keys of 1024 and 2048 bits, and with another kind of key.
    /// Guarantees: the first is refused for its key, also where any certificate is taken; the others
    /// are not.
    #[test]
    fn a_short_key_is_called_short() {
        for (pem, bits) in [(RSA_1024, Some(1024)), (RSA_2048, Some(2048))] {
            let certificate = credentials::certificates(pem.as_bytes()).unwrap().remove(0);
            let parsed = ParsedCertificate::try_from(&certificate).unwrap();
            assert_eq!(rsa_bits(&parsed.subject_public_key_info()), bits);
            let refused = refuse_short_key(&certificate).err();
            assert_eq!(refused.is_some(), bits == Some(1024));
            if let Some(error) = refused {
                let words = in_words(&error, "the sink's certificate").unwrap();
                let expected = "its RSA key has 1024 bits, expected at least 2048";
                assert!(words.contains(expected), "{words}");
                let error = verify(&certificate, &certificate, "sink.example").unwrap_err();
                assert!(in_words(&error, "the sink's certificate").unwrap().contains(expected));
            }
        }
        refuse_short_key(&self_signed([2020, 2040], "sink.example")).unwrap();
        for broken in [&[][..], &[0x30, 0x82], &[0x30, 0x84, 1, 1, 1, 1], &[0x30, 2, 3]] {
            assert_eq!(rsa_bits(broken), None);
        }
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
            let words = in_words(&io::Error::other(error), "the sink's certificate").unwrap();
            // A type's name has a capital within a word.
            let has_type = words
                .as_bytes()
                .windows(2)
                .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
            assert!(!has_type && !words.contains('('), "{words}");
        }
        assert_eq!(spaced("CertificateRequired"), "certificate required");
        assert!(in_words(&io::Error::other("x"), "the sink's certificate").is_none());
        let cut = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls";
        let words =
            in_words(&io::Error::new(io::ErrorKind::UnexpectedEof, cut), "the sink's certificate")
                .unwrap();
        assert!(!words.contains("https"), "{words}");
    }
}
