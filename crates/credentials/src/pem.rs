//! What stands in PEM files (RFC 7468): certificates, and one private key.

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
};

/// All certificates of a PEM text, in their order; at least one.
///
/// # Errors
/// In words, where there is none, or one is broken: which, and from which line.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let broken = |error| at(pem, found.len(), words(&error));
        found.push(certificate.map_err(broken)?);
    }
    if found.is_empty() { Err("there is no certificate in it".into()) } else { Ok(found) }
}

/// The authorities of a PEM text; at least one.
///
/// # Errors
/// As [`certificates`], and where one can't be an authority.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        let what = "what it holds is no X.509 certificate: its DER can't be read";
        roots.add(certificate).map_err(|_| at(pem, index, what))?;
    }
    Ok(roots)
}

/// The first private key of a PEM text, in PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// In words that have nothing of the key.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => "there is no private key in it".to_owned(),
        // The library's words may quote a line of the file.
        error => format!("the private key is broken: {}", words(&error)),
    })
}

/// What is wrong with the certificate behind so many whole ones, and where it begins.
fn at(pem: &[u8], before: usize, what: &str) -> String {
    let begins = |line: &&[u8]| line.trim_ascii_start().starts_with(b"-----BEGIN");
    let lines = pem.split(|byte| *byte == b'\n').enumerate();
    let mut begun = lines.filter(|(_, line)| begins(line)).filter(|(_, line)| {
        // Keys and others may stand between certificates.
        line.trim_ascii().ends_with(b" CERTIFICATE-----") || !line.trim_ascii().ends_with(b"-----")
    });
    match begun.nth(before) {
        Some((index, _)) => format!("certificate {}, from line {}: {what}", before + 1, index + 1),
        None => format!("certificate {}: {what}", before + 1),
    }
}

/// An error in words that quote nothing.
fn words(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "its line `-----END …-----` is missing: it is cut short",
        Error::IllegalSectionStart { .. } => "its line `-----BEGIN …` does not end in `-----`",
        Error::Base64Decode(_) => "what it holds is not base64",
        Error::Io(_) => "it can't be read",
        _ => "it is malformed",
    }
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
        let text = format!("# first\n{certificate}{certificate}");
        let second = 2 + certificate.lines().count();
        let cut = text.rsplit_once("-----END").unwrap().0;
        let error = certificates(cut.as_bytes()).unwrap_err();
        let expected =
            format!("certificate 2, from line {second}: its line `-----END …-----` is miss");
        assert!(error.starts_with(&expected), "{error}");
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = roots(format!("{certificate}{no_der}").as_bytes()).unwrap_err();
        let expected =
            format!("certificate 2, from line {}: what it holds is no X.509", second - 1);
        assert!(error.starts_with(&expected), "{error}");
        let error = roots(no_der.replace("AAAA", "A?").as_bytes()).unwrap_err();
        assert_eq!(error, "certificate 1, from line 1: what it holds is not base64");

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
