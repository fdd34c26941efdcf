//! TLS on the two OTLP ports: what is negotiated, who is let in, and files that are exchanged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use http::Version;
use nop_collector::{Collector, Options, Running, TlsFiles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::sender::{self, EXPORT, frame, message, post};

/// An authority, which issues certificates for localhost.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(params, key), pem)
    }

    /// A certificate and its key, in PEM.
    fn issue(&self) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A directory with the files of a collector.
struct Files {
    directory: tempfile::TempDir,
    with_client_authorities: bool,
}

impl Files {
    fn new(with_client_authorities: bool) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), with_client_authorities }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    async fn start(&self) -> Running {
        let tls = TlsFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_authorities: self.with_client_authorities.then(|| self.path("ca.crt")),
        };
        Collector::start(Options { tls: Some(tls), ..Options::ephemeral() }).await.unwrap()
    }
}

/// A client that trusts an authority and shows a certificate, if it has one.
fn client(authority: &str, identity: Option<&(String, String)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}

async fn connect(
    address: std::net::SocketAddr,
    mut config: ClientConfig,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Posts lines over HTTP/1.1 on a connection of its own; false where the connection is refused.
async fn sends(running: &Running, config: &ClientConfig, lines: std::ops::Range<u64>) -> bool {
    let Ok(stream) = connect(running.http_addr(), config.clone(), &["http/1.1"]).await else {
        return false;
    };
    let headers = [("content-type", "application/x-protobuf"), ("host", "localhost")];
    let request = post("/v1/logs", &headers, message(0, lines));
    let answer = sender::send_over(stream, Version::HTTP_11, request).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Scenario: clients that negotiate HTTP/2, HTTP/1.1 or nothing, over TLS; and one without TLS.
/// Guarantees: gRPC gets HTTP/2, HTTP both; plain text is refused; every line comes once.
#[tokio::test]
async fn both_ports_speak_tls() {
    let (authority, files) = (Authority::new(), Files::new(false));
    let (certificate, key) = authority.issue();
    files.write("tls.crt", &certificate);
    files.write("tls.key", &key);
    let running = files.start().await;
    let config = client(&authority.1, None);
    let alpn_of =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);

    let stream = connect(running.grpc_addr(), config.clone(), &["h2"]).await.unwrap();
    assert_eq!(alpn_of(&stream).as_deref(), Some(&b"h2"[..]));
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let uri = format!("https://localhost{EXPORT}");
    let request = post(&uri, &headers, frame(false, &message(0, 0..5)));
    let answer = sender::send_over(stream, Version::HTTP_2, request).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "0");

    for (alpn, version, lines) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2, 5..10),
        (&["http/1.1"], Version::HTTP_11, 10..15),
        (&[], Version::HTTP_11, 15..20),
    ] {
        let stream = connect(running.http_addr(), config.clone(), alpn).await.unwrap();
        assert_eq!(alpn_of(&stream).as_deref(), alpn.first().map(|one| one.as_bytes()));
        let headers = [("content-type", "application/x-protobuf"), ("host", "localhost")];
        let request = post("https://localhost/v1/logs", &headers, message(0, lines));
        let answer = sender::send_over(stream, version, request).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    sender::post_logs(running.http_addr(), &[], message(0, 20..25)).await.unwrap_err();
    let report = running.report();
    assert_eq!((report.received, report.gaps, report.duplicated), (20, 0, 0));
}

/// Scenario: with an authority for clients: one comes with a certificate of it, one with another's,
/// one with none.
/// Guarantees: only the first gets a line in.
#[tokio::test]
async fn clients_need_a_certificate_of_theirs() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), Files::new(true));
    let (certificate, key) = authority.issue();
    files.write("tls.crt", &certificate);
    files.write("tls.key", &key);
    files.write("ca.crt", &authority.1);
    let running = files.start().await;
    assert!(!sends(&running, &client(&authority.1, None), 0..5).await);
    let foreign = client(&authority.1, Some(&stranger.issue()));
    assert!(!sends(&running, &foreign, 0..5).await);
    assert_eq!(running.report().received, 0);
    let own = client(&authority.1, Some(&authority.issue()));
    assert!(sends(&running, &own, 0..5).await);
    assert_eq!(running.report().received, 5);
}

/// Scenario: row 28 on the receiver: certificate, key and the clients' authority are exchanged one
/// after the other while it runs.
/// Guarantees: half-way the old ones stay in force; then the new ones count for the next
/// connection, without a restart, and the old ones no longer.
#[tokio::test]
async fn files_are_taken_over_by_content() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new(true));
    let (certificate, key) = old.issue();
    files.write("tls.crt", &certificate);
    files.write("tls.key", &key);
    files.write("ca.crt", &old.1);
    let running = files.start().await;
    let old_client = client(&old.1, Some(&old.issue()));
    let new_client = client(&new.1, Some(&new.issue()));
    assert!(sends(&running, &old_client, 0..5).await);

    let (certificate, key) = new.issue();
    files.write("tls.crt", &certificate);
    assert!(sends(&running, &old_client, 5..10).await);
    assert!(!sends(&running, &new_client, 10..15).await);
    files.write("tls.key", &key);
    files.write("ca.crt", &new.1);
    assert!(sends(&running, &new_client, 10..15).await);
    assert!(!sends(&running, &old_client, 15..20).await);
    let report = running.report();
    assert_eq!((report.received, report.gaps, report.duplicated), (15, 0, 0));
}

/// Scenario: it is started with a key that is not the certificate's, and without the file.
/// Guarantees: it does not start, and says which file is wrong without quoting it.
#[tokio::test]
async fn useless_files_are_said_at_the_start() {
    let (authority, files) = (Authority::new(), Files::new(false));
    files.write("tls.crt", &authority.issue().0);
    for write_key in [false, true] {
        if write_key {
            files.write("tls.key", &authority.issue().1);
        }
        let (certificate, key) = (files.path("tls.crt"), files.path("tls.key"));
        let tls = Some(TlsFiles { certificate, key, client_authorities: None });
        let error = Collector::start(Options { tls, ..Options::ephemeral() }).await.unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("TLS: ") && error.contains("tls.key"), "{error}");
        assert!(!error.contains("PRIVATE KEY"), "{error}");
    }
}
