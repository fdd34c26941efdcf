//! OTLP/gRPC: a stock client, and frames made by hand.

use http::{StatusCode, Version};
use nop_collector::{Collector, Encoding, Options, Protocol, grpc_code};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use crate::sender::{self, EXPORT, call, frame, gzip, message, request};

/// What is wrong, the status that it gets, a header, and the body.
type Wrong = (&'static str, u32, Option<(&'static str, &'static str)>, Vec<u8>);

/// Scenario: tonic's client sends several requests over one connection, plain and with gzip, and
/// accepts gzip.
/// Guarantees: each is answered with success, and every line is received once.
#[tokio::test]
async fn a_stock_client_is_served() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    let uri = format!("http://{}", running.grpc_addr());
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
    let mut plain = LogsServiceClient::new(channel.clone());
    let mut compressing = LogsServiceClient::new(channel)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    for start in (0..100).step_by(20) {
        let response = plain.export(request(0, start..start + 10)).await.unwrap();
        assert_eq!(response.into_inner().partial_success, None);
        compressing.export(request(0, start + 10..start + 20)).await.unwrap();
    }
    plain.export(ExportLogsServiceRequest::default()).await.unwrap();
    let report = running.report();
    assert_eq!((report.requests, report.records, report.received), (11, 100, 100));
    assert_eq!((report.gaps, report.duplicated, report.reordered), (0, 0, 0));
    assert!(report.wire_bytes < report.decompressed_bytes);
}

/// Scenario: many requests at a time over one connection of a stock client.
/// Guarantees: every line is received once, in whichever order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_are_all_counted() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    let uri = format!("http://{}", running.grpc_addr());
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
    let client = LogsServiceClient::new(channel);
    let calls: Vec<_> = (0..200)
        .map(|index| {
            let mut client = client.clone();
            let request =
                request(index % 3, u64::from(index / 3) * 50..u64::from(index / 3) * 50 + 50);
            tokio::spawn(async move { client.export(request).await.unwrap() })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let report = running.report();
    assert_eq!(
        (report.streams, report.received, report.gaps, report.duplicated),
        (3, 10_000, 0, 0)
    );
}

/// Scenario: frames made by hand in each encoding, the flag set or not.
/// Guarantees: the answer is gRPC's (content type, empty message, status in the trailers), and the
/// message is what was sent.
#[tokio::test]
async fn every_encoding_is_accepted() {
    let options = Options { keep_requests: true, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 1).unwrap();
    let plain = message(0, 0..9);
    for (encoding, body) in [
        ("", frame(false, &plain)),
        ("identity", frame(false, &plain)),
        ("zstd", frame(true, &zstd(&plain))),
        ("gzip", frame(true, &gzip(&plain))),
        ("zstd", frame(true, &zstd::stream::encode_all(&plain[..], 3).unwrap())),
        // The flag outranks the header, message by message.
        ("zstd", frame(false, &plain)),
    ] {
        let headers = [("grpc-encoding", encoding), ("x-tenant", "t")];
        let headers = if encoding.is_empty() { &headers[1..] } else { &headers[..] };
        let answer = call(running.grpc_addr(), headers, body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/grpc");
        assert_eq!(answer.header("grpc-accept-encoding"), "zstd,gzip,identity");
        assert_eq!(answer.body, frame(false, &[]));
        assert_eq!(answer.trailers["grpc-status"], "0", "{encoding}: {answer:?}");
    }
    let kept = running.take_requests();
    let encodings: Vec<_> = kept.iter().map(|one| one.encoding).collect();
    let Encoding::Zstd = encodings[2] else { panic!("{encodings:?}") };
    assert_eq!(encodings.iter().filter(|one| **one == Encoding::Zstd).count(), 2);
    for one in kept {
        assert_eq!((one.protocol, &one.message[..]), (Protocol::Grpc, &plain[..]));
        assert_eq!(one.headers["x-tenant"], "t");
    }
    assert!(running.take_requests().is_empty());
}

/// Scenario: calls that are wrong in every way that a client could get wrong.
/// Guarantees: each gets the status that stock servers answer with, nothing of it counts, the
/// report says why, and the connection's next call succeeds.
#[tokio::test]
async fn wrong_calls_get_the_status_of_stock_servers() {
    let options = Options { decompressed_bytes_max: 10_000, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let plain = message(0, 0..9);
    let large = message(0, 0..500);
    let large_zstd = zstd::bulk::compress(&large, 1).unwrap();
    assert!(large.len() > 10_000 && large_zstd.len() < 10_000);
    let zstd = ("grpc-encoding", "zstd");
    let cases: [Wrong; 11] = [
        ("no message", grpc_code::INTERNAL, None, vec![]),
        ("half a prefix", grpc_code::INTERNAL, None, vec![0, 0]),
        ("incomplete", grpc_code::INTERNAL, None, frame(false, &plain)[..50].to_vec()),
        ("two messages", grpc_code::INTERNAL, None, frame(false, &plain).repeat(2)),
        ("flag without encoding", grpc_code::INTERNAL, None, frame(true, &plain)),
        ("unknown flag", grpc_code::INTERNAL, None, [&[2], &frame(false, &plain)[1..]].concat()),
        (
            "unknown encoding",
            grpc_code::UNIMPLEMENTED,
            Some(("grpc-encoding", "br")),
            frame(true, b""),
        ),
        ("not zstd", grpc_code::INTERNAL, Some(zstd), frame(true, &plain)),
        ("not protobuf", grpc_code::INVALID_ARGUMENT, None, frame(false, b"\x0a\xffhello")),
        ("large", grpc_code::RESOURCE_EXHAUSTED, None, frame(false, &large)),
        ("large inside", grpc_code::RESOURCE_EXHAUSTED, Some(zstd), frame(true, &large_zstd)),
    ];
    let wrong = cases.len() as u64;
    for (what, code, header, body) in cases {
        let answer = call(running.grpc_addr(), header.as_slice(), body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{what}");
        assert_eq!(answer.header("grpc-status"), code.to_string(), "{what}: {answer:?}");
        assert!(!answer.header("grpc-message").is_empty(), "{what}");
    }
    let report = running.report();
    assert_eq!((report.requests, report.attempts), (0, wrong));
    assert_eq!(report.invalid.values().sum::<u64>(), wrong);
    assert_eq!(report.invalid["too_large"], 2);
    let answer = call(running.grpc_addr(), &[], frame(false, &plain)).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "0");
}

/// Scenario: another method, another content type, and HTTP/1.1 on the gRPC port.
/// Guarantees: UNIMPLEMENTED; 415; the connection is refused.
#[tokio::test]
async fn what_is_not_the_method_is_refused() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    let address = running.grpc_addr();
    let grpc = ("content-type", "application/grpc");
    let traces = EXPORT.replace("logs", "trace").replace("Logs", "Trace");
    let request = sender::post(&format!("http://{address}{traces}"), &[grpc], frame(false, b""));
    let answer = sender::send(address, Version::HTTP_2, request).await.unwrap();
    assert_eq!(answer.header("grpc-status"), grpc_code::UNIMPLEMENTED.to_string());

    let json = ("content-type", "application/json");
    let request = sender::post(&format!("http://{address}{EXPORT}"), &[json], "{}");
    let answer = sender::send(address, Version::HTTP_2, request).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let request = sender::post(EXPORT, &[grpc, ("host", "test")], frame(false, b""));
    sender::send(address, Version::HTTP_11, request).await.unwrap_err();
}

/// Scenario: a stock client sends more than the limit allows.
/// Guarantees: it reads RESOURCE_EXHAUSTED, and can go on with smaller requests.
#[tokio::test]
async fn a_stock_client_learns_of_the_limit() {
    let options = Options { decompressed_bytes_max: 100_000, ..Options::ephemeral() };
    let running = Collector::start(options).await.unwrap();
    let uri = format!("http://{}", running.grpc_addr());
    let mut client = LogsServiceClient::connect(uri).await.unwrap();
    let large = request(0, 0..50_000);
    assert!(large.encoded_len() > 20 * 100_000);
    let status = client.export(large).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    client.export(request(0, 0..500)).await.unwrap();
    assert_eq!(running.report().received, 500);
}
