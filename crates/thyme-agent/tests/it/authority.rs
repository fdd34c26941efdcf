//! Certificates for tests: an authority, and files that hold what it issued.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nop_collector::TlsFiles;

/// An authority that issues certificates for localhost.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate and its key, in PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        self.issue_for("localhost")
    }

    pub(crate) fn issue_for(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// `ca.crt`, `tls.crt` and `tls.key`, as in a Kubernetes secret.
pub(crate) struct TlsDirectory(tempfile::TempDir);

impl TlsDirectory {
    /// One whose certificate is `issuer`'s, and who trusts `trusted`.
    pub(crate) fn new(issuer: &Authority, trusted: &Authority) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        directory.exchange(issuer, trusted);
        directory
    }

    /// Exchanges all files, one after the other.
    pub(crate) fn exchange(&self, issuer: &Authority, trusted: &Authority) {
        let (certificate, key) = issuer.issue();
        self.write("tls.crt", &certificate);
        self.write("tls.key", &key);
        self.write("ca.crt", &trusted.pem);
    }

    /// Exchanges one file as careful programs do: it is never half there.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let new = self.path("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// For a collector; with an authority for clients, where they are to show certificates.
    pub(crate) fn for_collector(&self, mutual: bool) -> TlsFiles {
        let (certificate, key) = (self.path("tls.crt"), self.path("tls.key"));
        TlsFiles { certificate, key, client_authorities: mutual.then(|| self.path("ca.crt")) }
    }
}

impl AsRef<Path> for TlsDirectory {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}
