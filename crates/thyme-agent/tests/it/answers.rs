//! Answers that are hard to read, from servers that give them: compressed, long, and an OK that is
//! none.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
    logs_service_server::{LogsService, LogsServiceServer},
};
use prost::Message;
use thyme_agent::{
    config::{Compression, ExporterConfig, Protocol},
    queue::DropReason,
};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;

use crate::export::{Exporter, Names, config, numbers};

/// tonic's generated service, which rejects 3 records, with words of so many bytes.
#[derive(Clone)]
struct Rejecting {
    words: usize,
    requests: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl LogsService for Rejecting {
    async fn export(
        &self,
        _: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(tonic::Response::new(rejecting_three(self.words)))
    }
}

fn rejecting_three(words: usize) -> ExportLogsServiceResponse {
    let partial_success = Some(ExportLogsPartialSuccess {
        rejected_log_records: 3,
        error_message: "m".repeat(words),
    });
    ExportLogsServiceResponse { partial_success }
}

/// Starts one that compresses its answers, where the client takes that.
async fn serve(service: Rejecting, compression: Option<CompressionEncoding>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut service = LogsServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
    if let Some(compression) = compression {
        service = service.send_compressed(compression);
    }
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

/// Sends ten records in one request, of which three are to be rejected.
async fn three_of_ten_are_rejected(address: SocketAddr) {
    let config = ExporterConfig { compression: Compression::Gzip, ..config(Protocol::Grpc) };
    let exporter = Exporter::start(&config, &Names::of([address]));
    exporter.send(&numbers(0..10)).await;
    let settled = exporter.next_settled().await;
    assert_eq!(settled.acknowledged_records, 7);
    assert_eq!(settled.dropped, [(DropReason::PartialSuccess, 3)]);
    assert_eq!(exporter.metrics.send_attempts.get(), 1);
}

/// Scenario: rows 25 and 58: servers that compress what they answer reject 3 of 10 records: a stock one
/// with gzip, and one with zstd. They do so only because the agent says that it takes that.
/// Guarantees: the 3 are counted as rejected, and nothing is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_partial_success_is_counted() {
    let service = Rejecting { words: 1000, requests: Arc::default() };
    let requests = Arc::clone(&service.requests);
    let address = serve(service, Some(CompressionEncoding::Gzip)).await;
    three_of_ten_are_rejected(address).await;
    assert_eq!(requests.load(Ordering::Relaxed), 1);

    let address = serve_scripted(|_, headers| {
        let accepted = headers["grpc-accept-encoding"].to_str().unwrap();
        assert!(accepted.split(',').any(|coding| coding == "zstd"), "{accepted}");
        let message = zstd::bulk::compress(&rejecting_three(1000).encode_to_vec(), 1).unwrap();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[1], &length[..], &message].concat();
        let mut response = response((200, GRPC, &[], Some("0")), body.into());
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static("zstd"));
        response
    })
    .await;
    three_of_ten_are_rejected(address).await;
}

/// Scenario: the same with words of more bytes than are kept, and of more than are read; plain and
/// compressed.
/// Guarantees: the rejections are counted, and nothing is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_no_reason_to_send_again() {
    for words in [66_000, 300_000, 6_000_000] {
        for compression in [None, Some(CompressionEncoding::Gzip)] {
            let service = Rejecting { words, requests: Arc::default() };
            let requests = Arc::clone(&service.requests);
            three_of_ten_are_rejected(serve(service, compression).await).await;
            assert_eq!(requests.load(Ordering::Relaxed), 1);
        }
    }
}

const GRPC: &str = "application/grpc";

/// An answer of a server that is scripted: its status, its type, its body, and its trailers' status.
type Scripted = (u16, &'static str, &'static [u8], Option<&'static str>);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn response((status, content_type, _, trailer): Scripted, body: Bytes) -> Answer {
    let trailers = trailer.map(|status| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        Ok(trailers)
    });
    let body = Full::new(body).with_trailers(std::future::ready(trailers));
    let response = Response::builder().status(status).header("content-type", content_type);
    response.body(body.boxed_unsync()).unwrap()
}

/// Serves answers by the number of a request and by its headers, until the test's runtime ends.
async fn serve_scripted(
    script: impl Fn(usize, &HeaderMap) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (next, script) = (Arc::new(AtomicUsize::new(0)), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (next, script) = (Arc::clone(&next), Arc::clone(&script));
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let (next, script) = (Arc::clone(&next), Arc::clone(&script));
                async move {
                    let (head, body) = request.into_parts();
                    body.collect().await?;
                    let step = next.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, hyper::Error>(script(step, &head.headers))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Scenario: servers and proxies say OK without having taken anything: without a message, with half of
/// one, as a page, beside another status of HTTP, before a message and not behind it. Then the sink takes the
/// request, with an empty message.
/// Guarantees: none of them counts as acknowledged: the request is sent until it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ok_that_is_none_is_no_acknowledgement() {
    const SCRIPT: [Scripted; 8] = [
        (200, GRPC, b"", Some("0")),
        (200, GRPC, b"\0\0\0\0\x20abc", Some("0")),
        (200, "text/html", b"<html>log in</html>", Some("0")),
        (503, GRPC, &[0; 5], Some("0")),
        (404, GRPC, &[0; 5], Some("0")),
        (200, GRPC, &[0; 5], None),
        (200, GRPC, &[0; 5], None),
        (200, GRPC, &[0; 5], Some("0")),
    ];
    let address = serve_scripted(|step, _| {
        let mut response = response(SCRIPT[step], Bytes::from_static(SCRIPT[step].2));
        if step == SCRIPT.len() - 2 {
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
        }
        response
    })
    .await;
    let config = ExporterConfig { compression: Compression::None, ..config(Protocol::Grpc) };
    let exporter = Exporter::start(&config, &Names::of([address]));
    // One record, which can't be halved.
    exporter.send(&numbers(0..1)).await;
    exporter.all_acknowledged(1).await;
    assert_eq!(exporter.metrics.send_attempts.get(), SCRIPT.len() as u64);
}
