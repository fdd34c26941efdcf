//! Sinks that speak something else than they are spoken to, and certificates that say who they are
//! themselves: what the log tells.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

use nop_collector::{Collector, Options, TlsFiles};

use crate::{
    node::{Node, append, cri, wait_until},
    program::{Program, Setup},
};

/// A server that begins with these bytes once it has heard something.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut heard = [0; 4096];
            let _first = client.read(&mut heard);
            client.write_all(answer).ok();
            // What is still sent is taken, or a reset would overtake the answer.
            client.set_read_timeout(Some(std::time::Duration::from_millis(200))).ok();
            while client.read(&mut heard).is_ok_and(|read| read > 0) {}
        }
    });
    address
}

/// What the agent logs about a sink at `endpoint`.
fn said(node: &Node, grpc: bool, endpoint: &str) -> String {
    let path = Setup::default().write(node);
    let mut text = fs::read_to_string(&path).unwrap();
    let own = format!("endpoint: http://{}", node.collector.http_addr());
    text = text.replace(&own, &format!("endpoint: {endpoint}"));
    if grpc {
        text = text.replace("otlp_http", "otlp_grpc");
    }
    fs::write(&path, text).unwrap();
    append(&node.container("pod").join("0.log"), cri("one"));
    let mut agent = Program::start(&path);
    let line = agent.line("what answers");
    agent.kill();
    line
}

/// Scenario: `otlp` is pointed at a port for HTTP, as of Go's server and nop-collector's; `otlphttp`
/// at one for gRPC; plain text at a port with TLS, and TLS at one without.
/// Guarantees: the log says what is probably spoken there, and what to change.
#[test]
fn the_wrong_port_is_said() {
    const GO: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Connection: close\r\n\r\n400 Bad Request";
    const SETTINGS: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0];
    const ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 10];
    let node = Node::new();
    let http = "speaks HTTP/1.1 and not gRPC: it may be the port for OTLP/HTTP";
    let grpc = "speaks HTTP/2: it may be the port for OTLP/gRPC";
    let line = said(&node, true, &format!("http://{}", server(GO)));
    assert!(line.contains(http), "{line}");
    let line = said(&node, false, &format!("http://{}", server(SETTINGS)));
    assert!(line.contains(grpc), "{line}");
    for is_grpc in [true, false] {
        let line = said(&node, is_grpc, &format!("http://{}", server(ALERT)));
        assert!(line.contains("speaks TLS: the endpoint needs https://"), "{line}");
        let line = said(&node, is_grpc, &format!("https://{}", server(GO)));
        assert!(line.contains("does not speak TLS: the endpoint needs http://"), "{line}");
    }
    let line = said(&node, false, &format!("http://{}", node.collector.grpc_addr()));
    assert!(line.contains(grpc), "{line}");
}

/// Scenario: the sink's certificate is self-signed with CA:TRUE, as `openssl req -x509` makes it,
/// and is the exporter's `ca_file`; then that is another one of this kind.
/// Guarantees: lines arrive, as with curl and Go; the other is refused in words, without the name of
/// a type of a library.
#[test]
fn a_self_signed_certificate_is_its_own_authority() {
    let node = Node::new();
    let own = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        fs::write(node.path(name), params.self_signed(&key).unwrap().pem()).unwrap();
        key.serialize_pem()
    };
    fs::write(node.path("tls.key"), own("tls.crt")).unwrap();
    own("other.crt");
    let (certificate, key) = (node.path("tls.crt"), node.path("tls.key"));
    let files = TlsFiles { certificate, key, client_authorities: None };
    let options = Options { tls: Some(files), ..Options::ephemeral() };
    let sink = Collector::start_on_threads(options, 1).unwrap();
    append(&node.container("pod").join("0.log"), cri("one"));
    let start = |ca: &str| {
        let path = Setup::default().write(&node);
        let text = fs::read_to_string(&path).unwrap();
        let plain = format!("endpoint: http://{}", node.collector.http_addr());
        let tls = format!(
            "endpoint: https://localhost:{}\n    tls: {{ca_file: {}}}",
            sink.http_addr().port(),
            node.path(ca).display()
        );
        fs::write(&path, text.replace(&plain, &tls)).unwrap();
        Program::start(&path)
    };
    let mut agent = start("other.crt");
    let line = agent.line("no connection to the sink");
    assert!(line.contains("none of those that are trusted"), "{line}");
    assert!(!line.contains("Other") && !line.contains("CaUsed"), "{line}");
    agent.stop();
    let agent = start("tls.crt");
    wait_until("the record arrives", || sink.report().records == 1);
    agent.stop();
}
