//! What stands in PEM files (RFC 7468): certificates, and one private key.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// All certificates of a PEM text, in their order; at least one.
///
/// # Errors
/// In words, where there is none, or one is broken.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("a certificate is broken: {error}"))?;
    if found.is_empty() { Err("there is no certificate in it".into()) } else { Ok(found) }
}

/// The authorities of a PEM text; at least one.
///
/// # Errors
/// In words, where there is none, or one can't be an authority.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("a certificate is broken: {error}"))?;
    }
    Ok(roots)
}

/// The first private key of a PEM text, in PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// In words that have nothing of the key.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => "there is no private key in it".to_owned(),
        // The library's words may quote a line of the file.
        _ => "the private key is broken".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: texts with nothing, the wrong thing, or half of the right thing in them.
    /// Guarantees: each is refused in words without any of the content; the right ones are read.
    #[test]
    fn broken_texts_are_refused_without_quoting_them() {
        let own = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&own).unwrap().pem();
        let key_pem = own.serialize_pem();
        assert_eq!(
            certificates(format!("{certificate}{certificate}").as_bytes()).unwrap().len(),
            2
        );
        assert_eq!(roots(certificate.as_bytes()).unwrap().len(), 1);
        assert!(key(key_pem.as_bytes()).is_ok());

        for text in ["", "hunter2", "-----BEGIN hunter2", &key_pem, &key_pem[..40]] {
            let error = certificates(text.as_bytes()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let cut = key_pem.replace("-----END PRIVATE KEY-----", "");
        let garbled = "-----BEGIN PRIVATE KEY-----\nhunter2?\n-----END PRIVATE KEY-----\n";
        for text in ["", "hunter2", garbled, &cut, &certificate] {
            let error = key(text.as_bytes()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let garbled = garbled.replace("PRIVATE KEY", "CERTIFICATE");
        let error = certificates(garbled.as_bytes()).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
