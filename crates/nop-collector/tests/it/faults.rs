//! The script of faults, as an agent's tests use it, on both ports.

use std::time::{Duration, Instant};

use http::StatusCode;
use nop_collector::{Collector, Fault, Options, Running, grpc_code};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message;

use crate::sender::{self, Answer, call, frame, message, post_logs, request};

async fn start() -> Running {
    Collector::start(Options::ephemeral()).await.unwrap()
}

/// Sends five lines over gRPC and the next five over HTTP.
async fn send_both(running: &Running) -> [Result<Answer, hyper::Error>; 2] {
    let grpc = call(running.grpc_addr(), &[], frame(false, &message(0, 0..5))).await;
    let http = post_logs(running.http_addr(), &[], message(0, 5..10)).await;
    [grpc, http]
}

/// Scenario: an HTTP status with a `Retry-After` is scripted for two requests.
/// Guarantees: both ports answer with it, nothing counts, and the next requests succeed.
#[tokio::test]
async fn http_status() {
    let running = start().await;
    let fault = Fault::HttpStatus { status: 503, retry_after: Some("7".to_owned()) };
    running.faults().next(2, fault);
    for answer in send_both(&running).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((answer.header("retry-after"), answer.header("grpc-status")), ("7", ""));
    }
    assert_eq!((running.report().records, running.report().invalid["fault"]), (0, 2));
    for answer in send_both(&running).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert_eq!((running.report().received, running.report().attempts), (10, 4));
    assert_eq!(running.faults().applied(), 2);
}

/// Scenario: RESOURCE_EXHAUSTED with a `RetryInfo` of 1.5 s stands for all requests.
/// Guarantees: a stock client reads code and details; over HTTP it is 429 with `Retry-After`,
/// rounded up; clearing the script ends it.
#[tokio::test]
async fn grpc_status_with_retry_info() {
    let running = start().await;
    let retry_delay = Some(Duration::from_millis(1_500));
    let code = grpc_code::RESOURCE_EXHAUSTED;
    running.faults().always(Fault::GrpcStatus { code, retry_delay });
    let uri = format!("http://{}", running.grpc_addr());
    let mut client = LogsServiceClient::connect(uri).await.unwrap();
    let status = client.export(request(0, 0..5)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    // Status { code 8, message, details [Any { RetryInfo { Duration { 1 s, 500,000,000 ns } } }] }
    let details = status.details();
    let (retry_type, duration) = (b"google.rpc.RetryInfo", [8, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 1]);
    assert!(details.starts_with(&[8, 8]) && details.ends_with(&duration), "{details:?}");
    assert!(details.windows(retry_type.len()).any(|window| window == retry_type));

    let answer = post_logs(running.http_addr(), &[], message(0, 0..5)).await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.body, details.to_vec());
    running.faults().clear();
    client.export(request(0, 0..5)).await.unwrap();
}

/// Scenario: partial successes that reject three of five records, and more than there are.
/// Guarantees: both ports say so, and the last records don't count.
#[tokio::test]
async fn partial_success() {
    let running = start().await;
    running.faults().next(2, Fault::PartialSuccess { rejected: 3 });
    let [grpc, http] = send_both(&running).await;
    for message in [&grpc.unwrap().body[5..], &http.unwrap().body] {
        let partial = ExportLogsServiceResponse::decode(message).unwrap().partial_success.unwrap();
        assert_eq!(partial.rejected_log_records, 3);
        assert!(!partial.error_message.is_empty());
    }
    let report = running.report_with_intervals();
    assert_eq!((report.requests, report.received, report.gaps), (2, 4, 3));
    assert_eq!(report.streams_detail.unwrap()[0].intervals, [(0, 1), (5, 6)]);

    running.faults().next(1, Fault::PartialSuccess { rejected: 99 });
    let json = serde_json::to_vec(&request(1, 0..2)).unwrap();
    let headers = [("content-type", "application/json"), ("host", "test")];
    let post = sender::post("/v1/logs", &headers, json);
    let answer = sender::send(running.http_addr(), http::Version::HTTP_11, post).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedLogRecords"], "2");
    assert_eq!(running.report().received, 4);
}

/// Scenario: the acknowledgement of two requests is lost, and they are sent again.
/// Guarantees: the connections break without an answer, the lines count, then count as duplicates.
#[tokio::test]
async fn lost_acknowledgements() {
    let running = start().await;
    running.faults().next(2, Fault::Disconnect);
    for answer in send_both(&running).await {
        answer.unwrap_err();
    }
    assert_eq!((running.report().received, running.report().duplicated), (10, 0));
    for answer in send_both(&running).await {
        answer.unwrap();
    }
    assert_eq!((running.report().received, running.report().duplicated), (10, 10));
}

/// Scenario: answers are delayed; then requests are stalled, and their clients give up.
/// Guarantees: delayed requests count at once and are answered late; stalled ones don't count.
#[tokio::test]
async fn delays_and_stalls() {
    let running = start().await;
    let delay = Duration::from_millis(150);
    running.faults().next(2, Fault::Delay(delay));
    let begin = Instant::now();
    for answer in send_both(&running).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert!(begin.elapsed() >= 2 * delay);
    assert_eq!(running.report().received, 10);

    running.faults().next(2, Fault::Stall);
    let patience = Duration::from_millis(100);
    let grpc = call(running.grpc_addr(), &[], frame(false, &message(0, 10..11)));
    tokio::time::timeout(patience, grpc).await.unwrap_err();
    let http = post_logs(running.http_addr(), &[], message(0, 10..11));
    tokio::time::timeout(patience, http).await.unwrap_err();
    sender::until("both requests have come", || running.report().attempts == 4).await;
    assert_eq!(running.report().records, 10);
}

/// Scenario: requests above a size are refused as tonic's server does, with OUT_OF_RANGE.
/// Guarantees: smaller ones pass, and take nothing from the rest of the script.
#[tokio::test]
async fn large_requests_are_refused() {
    const OUT_OF_RANGE: u32 = 11;
    let running = start().await;
    let limit = message(0, 0..5).len();
    let fault = Fault::GrpcStatus { code: OUT_OF_RANGE, retry_delay: None };
    running.faults().refuse_larger_than(limit, fault);
    let answer = call(running.grpc_addr(), &[], frame(false, &message(0, 0..6))).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "11");
    let answer = call(running.grpc_addr(), &[], frame(false, &message(0, 0..5))).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "0");
}

/// Scenario: the sink dies while a request is stalled, and comes back.
/// Guarantees: connections break, new ones are refused, and afterwards the same ports serve again,
/// with what was received before still known.
#[tokio::test]
async fn the_sink_dies_and_comes_back() {
    let running = start().await;
    for answer in send_both(&running).await {
        answer.unwrap();
    }
    running.faults().next(1, Fault::Stall);
    let address = running.grpc_addr();
    let stalled = tokio::spawn(call(address, &[], frame(false, &message(0, 10..11))));
    sender::until("the request has come", || running.report().attempts == 3).await;
    for _ in 0..2 {
        running.stop_listening().await;
    }
    stalled.await.unwrap().unwrap_err();
    for address in [running.grpc_addr(), running.http_addr()] {
        tokio::net::TcpStream::connect(address).await.unwrap_err();
    }
    assert_eq!(sender::get(running.admin_addr(), "/healthz").await.status, StatusCode::OK);
    for _ in 0..2 {
        running.listen_again().await.unwrap();
    }
    for answer in send_both(&running).await {
        answer.unwrap();
    }
    assert_eq!((running.report().received, running.report().duplicated), (10, 10));
}

/// Scenario: a test that isn't asynchronous starts a collector on threads of its own, stops and
/// reopens its ports, and drops it.
/// Guarantees: it serves; afterwards its port is free.
#[test]
fn on_threads_of_its_own() {
    let collector = Collector::start_on_threads(Options::ephemeral(), 1).unwrap();
    let address = collector.http_addr();
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(post_logs(address, &[], message(0, 0..5))).unwrap();
    collector.stop_listening();
    std::net::TcpStream::connect(address).unwrap_err();
    collector.listen_again().unwrap();
    collector.faults().next(1, Fault::Stall);
    let stalled = client.spawn(post_logs(address, &[], message(0, 5..6)));
    client.block_on(sender::until("it has come", || collector.report().attempts == 2));
    assert_eq!(collector.report().received, 5);
    drop(collector);
    client.block_on(stalled).unwrap().unwrap_err();
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "the port stays open");
    }
}
