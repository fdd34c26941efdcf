//! What a receiver that anything may connect to does with clients that take too much: connections,
//! requests at once, headers, time.

use std::time::Duration;

use http::Version;
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::TokioIo;
use nop_collector::limits::{HTTP2_HEADER_LIST_BYTES_MAX, PortLimits, STREAMS_PER_CONNECTION_MAX};
use nop_collector::{Collector, Fault, Options, Running, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sender::{call, frame, message, post, post_logs, read_answer, send};

/// How long anything expected may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A time-out that tests wait for.
const SHORT: Duration = Duration::from_millis(200);

/// What an HTTP/2 client begins with, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

async fn collector(limits: PortLimits) -> Running {
    Collector::start(Options { limits, ..Options::ephemeral() }).await.unwrap()
}

/// Waits until the other side ends a connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // That the connection is reset is an end, too.
    let _ended = read.expect("the connection stays open");
}

/// Scenario: a port may have one connection; one client keeps it open and uses it, another comes.
/// Guarantees: the second is served only when the first has gone.
#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let running = collector(PortLimits { connections_max: 1, ..PortLimits::default() }).await;
    let stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let headers = [("content-type", "application/x-protobuf"), ("host", "test")];
    let mut post_first = async |lines| {
        let request = post("/v1/logs", &headers, message(0, lines)).map(Full::new);
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    };
    post_first(0..1).await;
    let second = tokio::spawn(post_logs(running.http_addr(), &[], message(1, 0..1)));
    for sequence in 1..50 {
        post_first(sequence..sequence + 1).await;
    }
    assert_eq!(running.report().received, 50);
    assert!(!second.is_finished());
    connection.abort();
    let answer = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), running.report().received), (200, 51));
}

/// Scenario: an HTTP/2 client listens to what it is told at the start (RFC 9113, section 6.5).
/// Guarantees: the limits on open requests and on the bytes of their headers are among it.
#[tokio::test]
async fn requests_at_once_are_limited() {
    let running = collector(PortLimits::default()).await;
    let mut stream = TcpStream::connect(running.grpc_addr()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let [_, _, length, kind, ..] = head;
    assert_eq!(kind, 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(length)];
    stream.read_exact(&mut settings).await.unwrap();
    let setting = |wanted: u8| {
        let mut all = settings.chunks_exact(6);
        let found = all.find(|setting| setting[..2] == [0, wanted]).unwrap();
        u32::from_be_bytes(found[2..].try_into().unwrap())
    };
    assert_eq!(setting(3), STREAMS_PER_CONNECTION_MAX);
    assert_eq!(setting(6), HTTP2_HEADER_LIST_BYTES_MAX);
}

/// Scenario: heads of requests with too many headers, or too many bytes of them, over HTTP/1.1
/// and HTTP/2.
/// Guarantees: they are refused, nothing of them counts, and others are still served.
#[tokio::test]
async fn large_heads_are_refused() {
    let running = collector(PortLimits::default()).await;
    let address = running.http_addr();
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "y")).collect();
    let long = "y".repeat(300 << 10);
    for headers in [&many[..], &[("x-long", long.as_str())]] {
        let answer = post_logs(address, headers, message(0, 0..1)).await;
        assert!(answer.as_ref().is_ok_and(|answer| answer.status == 431), "{answer:?}");
    }
    let long = "y".repeat(20 << 10);
    let headers = [("content-type", "application/x-protobuf"), ("x-long", long.as_str())];
    let request = post(&format!("http://{address}/v1/logs"), &headers, message(0, 0..1));
    let answer = send(address, Version::HTTP_2, request).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
    let headers = [("x-long", long.as_str())];
    let answer = call(running.grpc_addr(), &headers, frame(false, &message(0, 0..1))).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
    assert_eq!(running.report().received, 0);
    assert_eq!(post_logs(address, &[], message(0, 0..1)).await.unwrap().status, 200);
}

/// Scenario: clients that connect and say nothing, that fall silent after HTTP/2's preface, after a
/// request, and within a head; and one whose request takes longer than all of them.
/// Guarantees: their connections are closed; the request is answered.
#[tokio::test]
async fn silent_clients_are_let_go() {
    let limits = PortLimits { header_timeout: SHORT, idle_timeout: SHORT, ..PortLimits::default() };
    let running = collector(limits).await;
    for address in [running.grpc_addr(), running.http_addr(), running.admin_addr()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ended(&mut stream).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        ended(&mut stream).await;
    }
    for address in [running.http_addr(), running.admin_addr()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_answer(&mut stream).await;
        ended(&mut stream).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhos").await.unwrap();
        ended(&mut stream).await;
    }
    running.faults().always(Fault::Delay(5 * SHORT));
    let answer = call(running.grpc_addr(), &[], frame(false, &message(0, 0..1))).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "0");
    assert_eq!(post_logs(running.http_addr(), &[], message(0, 1..2)).await.unwrap().status, 200);
}

/// Scenario: a client announces a body and sends a part of it.
/// Guarantees: it is told that the body took too long, and nothing of it counts.
#[tokio::test]
async fn slow_bodies_are_not_waited_for() {
    let running = collector(PortLimits { body_timeout: SHORT, ..PortLimits::default() }).await;
    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let head = b"POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
                 content-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.write_all(&message(0, 0..1)[..10]).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = read_answer(&mut stream).await;
            if !answer.starts_with("HTTP/1.1 100") {
                return answer;
            }
        }
    });
    let answer = read.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let report = running.report();
    assert_eq!((report.received, report.invalid.get("interrupted")), (0, Some(&1)));
}

/// Scenario: a client connects to a port with TLS and never begins the handshake.
/// Guarantees: its connection is closed.
#[tokio::test]
async fn handshakes_are_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let tls = Some(TlsFiles { certificate, key, client_authorities: None });
    let limits = PortLimits { handshake_timeout: SHORT, ..PortLimits::default() };
    let running = Collector::start(Options { tls, limits, ..Options::ephemeral() }).await.unwrap();
    for address in [running.grpc_addr(), running.http_addr()] {
        ended(&mut TcpStream::connect(address).await.unwrap()).await;
    }
}

/// Scenario: a collector is started with nothing said.
/// Guarantees: all its ports are on the loopback interface, and no profile is served.
#[tokio::test]
async fn nothing_said_is_localhost() {
    let default = Options::default();
    for address in [&default.grpc, &default.http, &default.admin] {
        let address: std::net::SocketAddr = address.parse().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
    }
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    for path in ["/debug/pprof/", "/debug/pprof/profile", "/debug/tracez"] {
        let answer = crate::sender::get(running.admin_addr(), path).await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

/// Scenario: a body in chunks of one byte; more manifests at once than their budget holds, each but for its
/// last byte.
/// Guarantees: the body is taken; of the manifests only so many are received as the budget allows, the
/// others are refused as a temporary condition.
#[tokio::test]
async fn bodies_hold_no_more_than_their_budget() {
    use nop_collector::limits::{MANIFEST_BYTES_MAX, MANIFESTS_BYTES_MAX};
    let running = collector(PortLimits::default()).await;
    let body = message(0, 0..300);
    let mut text = b"POST /v1/logs HTTP/1.1\r\nhost: x\r\n\
        content-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for byte in body {
        text.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    text.extend_from_slice(b"0\r\n\r\n");
    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    stream.write_all(&text).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));

    let bytes = MANIFEST_BYTES_MAX - (1 << 20);
    let head = format!("POST /manifest HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
    let piece = vec![b' '; 1 << 20];
    let mut open = Vec::new();
    for _ in 0..2 * MANIFESTS_BYTES_MAX / bytes {
        let mut stream = TcpStream::connect(running.admin_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        for part in 0..bytes >> 20 {
            let length = if (part + 1) << 20 == bytes { piece.len() - 1 } else { piece.len() };
            stream.write_all(&piece[..length]).await.unwrap();
        }
        open.push(stream);
    }
    let mut refused = 0;
    for stream in &mut open {
        // A space is no manifest, and so is none at all.
        stream.write_all(b" ").await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, read_answer(stream)).await.unwrap();
        refused += usize::from(answer.starts_with("HTTP/1.1 503"));
    }
    assert!(refused >= open.len() - MANIFESTS_BYTES_MAX / bytes, "{refused} of {}", open.len());
    assert!(refused < open.len());
}

/// Scenario: HTTP/1 requests that are ambiguous: without Host, with two, with one that is none, with two
/// lengths, with a folded header, with a length beside chunks and another request behind them; and such
/// that are not.
/// Guarantees: each of the former is answered with 400, but for the last: its chunks count, and the
/// connection is closed before anybody could take what follows for a request.
#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let running = collector(PortLimits::default()).await;
    let chunks = "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n";
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\nhost: x:1\r\n\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nhost:\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET http://x/healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", 400),
        (
            "POST /reset HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            400,
        ),
        ("POST /reset HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (&*format!("POST /reset HTTP/1.1\r\nhost: x\r\n{chunks}{smuggled}"), 200),
    ] {
        let mut stream = TcpStream::connect(running.admin_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{head}: {answer}"
        );
        if head.contains("chunked") {
            let mut rest = Vec::new();
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().ok();
            let rest = String::from_utf8_lossy(&rest);
            assert!(!rest.contains("HTTP/1.1"), "{rest}");
        }
    }
}
