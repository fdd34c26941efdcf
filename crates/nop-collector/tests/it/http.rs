//! OTLP/HTTP: protobuf and JSON, HTTP/1.1 and HTTP/2, right and wrong.

use http::{StatusCode, Version};
use nop_collector::{Collector, Format, Options};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sender::{self, get, gzip, message, post, post_logs, request};

/// The status, the reason in the report, headers, and the body.
type Wrong = (u16, &'static str, &'static [(&'static str, &'static str)], Vec<u8>);

/// Scenario: protobuf and JSON in each encoding, over HTTP/1.1 and HTTP/2.
/// Guarantees: success in the request's own format, and every line is received.
#[tokio::test]
async fn both_formats_in_every_encoding() {
    let options = Options { keep_requests: true, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let address = running.http_addr();
    let mut next = 0;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (content_type, answered) in [
            ("application/x-protobuf", "application/x-protobuf"),
            ("application/json; charset=utf-8", "application/json"),
        ] {
            for encoding in ["", "identity", "gzip", "zstd", "GZIP"] {
                let lines = next..next + 10;
                next += 10;
                let plain = if answered.ends_with("json") {
                    serde_json::to_vec(&request(0, lines)).unwrap()
                } else {
                    message(0, lines)
                };
                let body = match encoding.to_ascii_lowercase().as_str() {
                    "gzip" => gzip(&plain),
                    "zstd" => zstd::bulk::compress(&plain, 1).unwrap(),
                    _ => plain,
                };
                let mut headers = vec![("content-type", content_type), ("host", "test")];
                if !encoding.is_empty() {
                    headers.push(("content-encoding", encoding));
                }
                let uri = match version {
                    Version::HTTP_2 => format!("http://{address}/v1/logs"),
                    _ => "/v1/logs".to_owned(),
                };
                let request = post(&uri, &headers, body);
                let answer = sender::send(address, version, request).await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{headers:?} {answer:?}");
                assert_eq!(answer.header("content-type"), answered);
                let empty: &[u8] = if answered.ends_with("json") { b"{}" } else { b"" };
                assert_eq!(answer.body, empty);
            }
        }
    }
    let report = running.report();
    assert_eq!(
        (report.requests, report.received, report.gaps, report.duplicated),
        (20, next, 0, 0)
    );
    let kept = running.take_requests();
    let json = kept.iter().find(|one| one.format == Format::Json).unwrap();
    let decoded: ExportLogsServiceRequest = serde_json::from_slice(&json.message).unwrap();
    assert_eq!(decoded.resource_logs[0].scope_logs[0].log_records.len(), 10);
}

/// Scenario: one connection carries a request with a length, a chunked one in small pieces, one
/// that is wrong, and one that waits for `100 Continue`.
/// Guarantees: each is answered on the same connection, in order.
#[tokio::test]
async fn a_connection_is_kept_alive() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n";
    let mut expect = async |send: Vec<Vec<u8>>, start: &str| {
        for piece in send {
            stream.write_all(&piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let answer = sender::read_answer(&mut stream).await;
        assert!(answer.starts_with(start), "{answer}");
    };
    let with_length = |body: &[u8]| {
        [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    expect(vec![with_length(&message(0, 0..5))], "HTTP/1.1 200 OK").await;

    let mut pieces = vec![format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes()];
    for piece in message(0, 5..10).chunks(7) {
        pieces.push([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    pieces.push(b"0\r\n\r\n".to_vec());
    expect(pieces, "HTTP/1.1 200 OK").await;

    let broken = with_length(&[0x0a, 4, 0x12, 0x7f, 0, 0]);
    expect(vec![broken], "HTTP/1.1 400 Bad Request").await;

    let body = message(0, 10..15);
    let waiting = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    expect(vec![waiting.into_bytes()], "HTTP/1.1 100 Continue").await;
    expect(vec![body], "HTTP/1.1 200 OK").await;
    let report = running.report();
    assert_eq!((report.received, report.gaps, report.attempts), (15, 0, 4));
}

/// Scenario: requests that are wrong in every way that a client could get wrong.
/// Guarantees: the status of the specification, the body a `google.rpc.Status` in the request's
/// format where that is known, and the reason in the report.
#[tokio::test]
async fn wrong_requests_get_the_specified_status() {
    let options = Options { decompressed_bytes_max: 10_000, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let large = message(0, 0..500);
    let bomb = zstd::bulk::compress(&large, 1).unwrap();
    const JSON: (&str, &str) = ("content-type", "application/json");
    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    let cases: [Wrong; 10] = [
        (415, "content_type", &[], message(0, 0..1)),
        (415, "content_type", &[("content-type", "text/plain")], message(0, 0..1)),
        (415, "content_encoding", &[PROTOBUF, ("content-encoding", "br")], vec![]),
        (415, "content_encoding", &[JSON, ("content-encoding", "gzip, gzip")], vec![]),
        (400, "malformed", &[PROTOBUF], b"\x0a\xffhello".to_vec()),
        (400, "malformed", &[JSON], b"{\"resourceLogs\": 7}".to_vec()),
        (400, "decompression", &[PROTOBUF, ("content-encoding", "gzip")], message(0, 0..1)),
        (400, "decompression", &[JSON, ("content-encoding", "zstd")], b"{}".to_vec()),
        (413, "too_large", &[PROTOBUF], large.clone()),
        (413, "too_large", &[JSON, ("content-encoding", "zstd")], bomb),
    ];
    let wrong = cases.len() as u64;
    for (status, reason, headers, body) in cases {
        let before = running.report().invalid.get(reason).copied().unwrap_or_default();
        let mut headers = headers.to_vec();
        headers.push(("host", "test"));
        let request = post("/v1/logs", &headers, body);
        let answer = sender::send(running.http_addr(), Version::HTTP_11, request).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        assert_eq!(running.report().invalid[reason], before + 1, "{headers:?}");
        match headers[0].1 {
            "application/json" => {
                let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert!(!status["message"].as_str().unwrap().is_empty());
            }
            "application/x-protobuf" => {
                assert_eq!(answer.header("content-type"), "application/x-protobuf");
                assert_eq!(answer.body[0], 0x08, "the code of a google.rpc.Status");
            }
            _ => assert!(answer.header("content-type").starts_with("text/plain")),
        }
    }
    let answer = get(running.http_addr(), "/v1/logs").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    let answer = get(running.http_addr(), "/v1/traces").await;
    assert_eq!(answer.status.as_u16(), 404);
    let report = running.report();
    assert_eq!((report.requests, report.attempts), (0, wrong + 2));
    post_logs(running.http_addr(), &[], message(0, 0..9)).await.unwrap();
    assert_eq!(running.report().received, 9);
}

/// Scenario: a client sends megabytes more than are accepted, or to where nothing is served, and
/// reads the answer only when it has sent them all.
/// Guarantees: it does read the answer, and its connection stays usable.
#[tokio::test]
async fn refused_bodies_are_read_to_their_end() {
    let options = Options { decompressed_bytes_max: 10_000, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let body = vec![b'x'; 8 << 20];
    for (path, status) in [("/v1/logs", "413"), ("/v1/traces", "404"), ("/v1/logs", "413")] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let answer = sender::read_answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(running.report().attempts, 3);
}

/// Scenario: a client breaks off in the middle of a body, and one announces too large a body.
/// Guarantees: the first is counted as interrupted; the second is refused before it sends any.
#[tokio::test]
async fn bodies_that_never_come() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n";
    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let half = format!("{head}content-length: 100\r\n\r\nhalf");
    stream.write_all(half.as_bytes()).await.unwrap();
    drop(stream);
    sender::until("the interruption is counted", || {
        running.report().invalid.contains_key("interrupted")
    })
    .await;

    let mut stream = TcpStream::connect(running.http_addr()).await.unwrap();
    let huge = format!("{head}content-length: 99999999999\r\n\r\n");
    stream.write_all(huge.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
