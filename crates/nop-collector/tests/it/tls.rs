//! TLS on the two OTLP ports, as tests of agents use it.

use std::sync::Arc;

use http::Version;
use nop_collector::{Collector, Options};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::sender::{self, EXPORT, frame, message, post};

fn configs() -> (ServerConfig, RootCertStore) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(signed.cert);
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (server, roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Scenario: clients that negotiate HTTP/2, HTTP/1.1 or nothing, over TLS; and one without TLS.
/// Guarantees: gRPC gets HTTP/2, HTTP both; plain text is refused; every line comes once.
#[tokio::test]
async fn both_ports_speak_tls() {
    let (server, roots) = configs();
    let options = Options { tls: Some(Arc::new(server)), ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let connect = async |address, alpn: &[&str]| {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    };
    let alpn_of = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    };

    let stream = connect(running.grpc_addr(), &["h2"]).await;
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
        let stream = connect(running.http_addr(), alpn).await;
        assert_eq!(alpn_of(&stream).as_deref(), alpn.first().map(|one| one.as_bytes()));
        let headers = [("content-type", "application/x-protobuf")];
        let request = post("https://localhost/v1/logs", &headers, message(0, lines));
        let answer = sender::send_over(stream, version, request).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    sender::post_logs(running.http_addr(), &[], message(0, 20..25)).await.unwrap_err();
    let report = running.report();
    assert_eq!((report.received, report.lost, report.duplicated), (20, 0, 0));
}
