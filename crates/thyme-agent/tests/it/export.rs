//! The exporter against real servers: nop-collector with scripted faults, tonic's stock OTLP
//! service, and a proxy that counts connections.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::Cell,
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use nop_collector::{Collector, Fault, Options, Running};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message;
use thyme_agent::{
    config::{Compression, ExporterConfig, Protocol, QueueConfig, RetryConfig, Source, TlsConfig},
    export::{Resolver, Resolving, Timing, spawn_with},
    metrics::Metrics,
    queue::{DropReason, Request, Settled, SettledPart, Settlement, Token},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::authority::{Authority, TlsDirectory};

/// Longest that anything expected is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A name server that tests change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    pub(crate) fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses.into_iter().collect())))
    }

    fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.0.lock().unwrap() = addresses.into_iter().collect();
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str, _: u16) -> Resolving<'a> {
        let addresses = self.0.lock().unwrap().clone();
        let known = host == "localhost" && !addresses.is_empty();
        Box::pin(async move {
            if known { Ok(addresses) } else { Err(io::Error::other("no such name")) }
        })
    }
}

/// A configuration that is in a hurry.
pub(crate) fn config(protocol: Protocol) -> ExporterConfig {
    ExporterConfig {
        id: "otlp/test".into(),
        protocol,
        endpoint: "http://localhost:4317".into(),
        compression: Compression::Zstd,
        compression_level: 1,
        headers: vec![("x-token".into(), "secret".into())],
        auth: None,
        timeout: Duration::from_secs(10),
        tls: TlsConfig::default(),
        proxy: None,
        retry: RetryConfig {
            enabled: true,
            initial_interval: Duration::from_millis(20),
            max_interval: Duration::from_millis(100),
            multiplier: 1.5,
            randomization_factor: 0.5,
            max_elapsed: None,
        },
        queue: QueueConfig { num_consumers: 2, queue_size: 1000, storage: None },
    }
}

pub(crate) fn timing() -> Timing {
    Timing {
        resolve_interval: Duration::from_millis(200),
        resolve_interval_min: Duration::from_millis(20),
        ejection_min: Duration::from_millis(100),
        ejection_max: Duration::from_secs(1),
        ..Timing::default()
    }
}

/// An exporter and what it settled.
pub(crate) struct Exporter {
    requests: mpsc::Sender<Request>,
    reply: crossbeam_channel::Sender<Settlement>,
    settled: Receiver<Settlement>,
    /// Parts that were told, of requests that have not ended.
    parts: Mutex<Vec<SettledPart>>,
    /// Requests that were set aside.
    aside: AtomicUsize,
    pub(crate) metrics: Arc<Metrics>,
    compression: Compression,
}

impl Exporter {
    pub(crate) fn start(config: &ExporterConfig, names: &Names) -> Self {
        Self::start_with(config, names, timing())
    }

    pub(crate) fn start_with(config: &ExporterConfig, names: &Names, timing: Timing) -> Self {
        let metrics = Arc::new(Metrics::default());
        let runtime = tokio::runtime::Handle::current();
        let names = Arc::new(names.clone());
        let requests = spawn_with(&runtime, config, Arc::clone(&metrics), names, timing).unwrap();
        let (reply, settled) = crossbeam_channel::unbounded();
        let (parts, aside, compression) =
            (Mutex::default(), AtomicUsize::new(0), config.compression);
        Self { requests, reply, settled, parts, aside, metrics, compression }
    }

    /// Sends a request whose records have these bodies.
    pub(crate) async fn send(&self, bodies: &[String]) {
        let message = message_of(bodies);
        let body = match self.compression {
            Compression::None => message.clone(),
            Compression::Zstd => zstd::bulk::compress(&message, 1).unwrap(),
            Compression::Gzip => {
                use std::io::Write;
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&message).unwrap();
                encoder.finish().unwrap()
            }
        };
        // Two chunks, as runs of an uncompressed request are.
        let (head, tail) = body.split_at(body.len() / 2);
        let request = Request {
            body: vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)],
            body_bytes: body.len(),
            uncompressed_bytes: message.len(),
            records: bodies.len() as u64,
            source_bytes: message.len() as u64,
            compression: self.compression,
            reply: self.reply.clone(),
            settled: Default::default(),
            token: Token::default(),
        };
        self.requests.send(request).await.unwrap();
    }

    /// Sends `count` requests of one record each, whose body is its number.
    pub(crate) async fn send_numbers(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.send(&[number.to_string()]).await;
        }
    }

    /// The next end of a request, with what its parts have told before.
    pub(crate) async fn next_settled(&self) -> Settled {
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            match self.settled.try_recv() {
                Ok(Settlement::Part(part)) => {
                    self.parts.lock().unwrap().push(part);
                    deadline = Instant::now() + PATIENCE;
                }
                Ok(Settlement::Aside(_)) => {}
                Ok(Settlement::Ended(mut settled)) => {
                    for part in std::mem::take(&mut *self.parts.lock().unwrap()) {
                        settled.acknowledged_records += part.acknowledged_records;
                        settled.dead_lettered_records += part.dead_lettered_records;
                        settled.dropped.extend(part.dropped);
                    }
                    return settled;
                }
                Ok(other) => panic!("an exporter only ends requests: {other:?}"),
                Err(_) => assert!(Instant::now() < deadline, "nothing is settled"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Requests that have given their share of the budget back, while none ends.
    pub(crate) fn set_aside(&self) -> usize {
        for told in self.settled.try_iter() {
            match told {
                Settlement::Part(part) => self.parts.lock().unwrap().push(part),
                Settlement::Aside(_) => {
                    self.aside.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("too early: {other:?}"),
            }
        }
        self.aside.load(Ordering::Relaxed)
    }

    /// Waits for so many settlements, each an acknowledgement of everything.
    pub(crate) async fn all_acknowledged(&self, count: usize) {
        // Parts of several requests may be told in between, so that only the sums say something.
        let (mut acknowledged, mut records) = (0, 0);
        for _ in 0..count {
            let settled = self.next_settled().await;
            acknowledged += settled.acknowledged_records;
            records += settled.request.records;
        }
        assert_eq!(acknowledged, records);
    }
}

fn message_of(bodies: &[String]) -> Vec<u8> {
    let record = |body: &String| LogRecord {
        body: Some(AnyValue { value: Some(Value::StringValue(body.clone())) }),
        ..LogRecord::default()
    };
    let log_records = bodies.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

pub(crate) fn bodies_of(request: ExportLogsServiceRequest) -> Vec<String> {
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    let values = records.map(|record| record.body.unwrap().value.unwrap());
    values
        .map(|value| match value {
            Value::StringValue(body) => body,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Bodies of the records that the sink took since the last call, in the order of arrival.
pub(crate) fn taken(sink: &Running) -> Vec<String> {
    let requests = sink.take_requests().into_iter().filter(|request| request.accepted);
    let decode = |message: Bytes| ExportLogsServiceRequest::decode(message).unwrap();
    requests.flat_map(|request| bodies_of(decode(request.message))).collect()
}

async fn sink() -> Running {
    sink_with(|_| {}).await
}

pub(crate) async fn sink_with(change: impl FnOnce(&mut Options)) -> Running {
    let mut options = Options { keep_requests: true, ..Options::ephemeral() };
    change(&mut options);
    Collector::start(options).await.unwrap()
}

pub(crate) fn address(sink: &Running, protocol: Protocol) -> SocketAddr {
    match protocol {
        Protocol::Grpc => sink.grpc_addr(),
        Protocol::Http => sink.http_addr(),
    }
}

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Scenario: each protocol with each compression, into nop-collector.
/// Guarantees: records arrive as they were, with the headers that OTLP asks for and those of the
/// configuration; the counters say what happened; dropping the sender ends the exporter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_and_compression() {
    for protocol in PROTOCOLS {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let sink = sink().await;
            let config = ExporterConfig { compression, ..config(protocol) };
            let exporter = Exporter::start(&config, &Names::of([address(&sink, protocol)]));
            let bodies = numbers(0..3000);
            exporter.send(&bodies).await;
            exporter.all_acknowledged(1).await;

            let requests = sink.take_requests();
            assert_eq!(requests.len(), 1);
            let request = &requests[0];
            assert_eq!(request.message, message_of(&bodies));
            let header =
                |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("x-token"), Some("secret"));
            assert!(header("user-agent").unwrap().starts_with("thyme-agent/"));
            let (content_type, encoding) = match protocol {
                Protocol::Grpc => ("application/grpc", "grpc-encoding"),
                Protocol::Http => ("application/x-protobuf", "content-encoding"),
            };
            assert_eq!(header("content-type"), Some(content_type));
            let name = [None, Some("gzip"), Some("zstd")][compression as usize];
            assert_eq!(header(encoding), name);
            if protocol == Protocol::Grpc {
                assert_eq!(
                    (header("te"), header("grpc-timeout")),
                    (Some("trailers"), Some("10000m"))
                );
            } else {
                assert_eq!(header("host"), Some("localhost:4317"));
            }

            let metrics = &exporter.metrics;
            assert_eq!((metrics.send_attempts.get(), metrics.send_retries.get()), (1, 0));
            assert_eq!(metrics.in_flight_requests.get(), 0);
            assert!(metrics.sent_bytes.get() > 0 && metrics.last_attempt_unix_ms.get() > 0);
            let Exporter { requests, reply, settled, .. } = exporter;
            drop((requests, reply));
            assert!(matches!(settled.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)));
        }
    }
}

/// tonic's generated service, with its own limit on messages.
#[derive(Clone, Default)]
struct Stock(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl LogsService for Stock {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().extend(bodies_of(request.into_inner()));
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

/// Scenario: failure modes 22 and 23: a stock tonic server, which takes 4 MiB and answers
/// OUT_OF_RANGE to more, gets a request of 10 MiB, and one with a record that is too large alone.
/// Guarantees: the first arrives whole and in order, in parts; of the second only that record is
/// dead-lettered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_server_with_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names = Names::of([listener.local_addr().unwrap()]);
    let stock = Stock::default();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = LogsServiceServer::new(stock.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(incoming));

    let config = ExporterConfig { compression: Compression::None, ..config(Protocol::Grpc) };
    let exporter = Exporter::start(&config, &names);
    let bodies: Vec<String> = (0..10_240).map(|number| format!("{number:01024}")).collect();
    exporter.send(&bodies).await;
    exporter.all_acknowledged(1).await;
    assert!(std::mem::take(&mut *stock.0.lock().unwrap()) == bodies);

    let large = "x".repeat(5 << 20);
    exporter.send(&["a".into(), large, "b".into()]).await;
    let settled = exporter.next_settled().await;
    assert_eq!((settled.acknowledged_records, settled.dead_lettered_records), (2, 1));
    assert_eq!(*stock.0.lock().unwrap(), ["a", "b"]);
    server.abort();
}

/// Scenario: failure mode 22: a sink that takes 64 KiB, over both protocols, compressed: it says so
/// with HTTP 413 and gRPC's RESOURCE_EXHAUSTED.
/// Guarantees: every record arrives once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_are_halved_too() {
    for protocol in PROTOCOLS {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let sink = sink_with(|options| options.decompressed_bytes_max = 64 << 10).await;
            let config = ExporterConfig { compression, ..config(protocol) };
            let exporter = Exporter::start(&config, &Names::of([address(&sink, protocol)]));
            let bodies: Vec<String> = (0..3000).map(|number| format!("{number:0100}")).collect();
            exporter.send(&bodies).await;
            exporter.all_acknowledged(1).await;
            assert!(taken(&sink) == bodies);
        }
    }
}

/// An HTTP server that reads the head of a request and no more: it refuses large bodies at once, as
/// proxies do, lingers, and closes.
async fn early_refusal(body_bytes_max: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&accepted);
    let serve = async move |mut stream: TcpStream| -> io::Result<()> {
        let mut received = Vec::new();
        let head_end = loop {
            stream.read_buf(&mut received).await?;
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&received[..head_end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let length: usize = length.parse().unwrap();
        if length > body_bytes_max {
            let refusal = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\r\n";
            stream.write_all(refusal).await?;
            stream.shutdown().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Ok(());
        }
        let begun = received.len();
        received.resize(head_end + length, 0);
        stream.read_exact(&mut received[begun..]).await?;
        counted.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    });
    (address, accepted)
}

/// Scenario: failure mode 22: a proxy refuses 10 MiB before it has read them, and closes.
/// Guarantees: its answer is heard over the broken connection, and the halves get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_before_the_body_was_read() {
    let (address, accepted) = early_refusal(3 << 20).await;
    let config = ExporterConfig { compression: Compression::None, ..config(Protocol::Http) };
    let exporter = Exporter::start(&config, &Names::of([address]));
    let bodies: Vec<String> = (0..10_240).map(|number| format!("{number:01024}")).collect();
    exporter.send(&bodies).await;
    exporter.all_acknowledged(1).await;
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
}

/// Scenario: failure mode 25: the sink rejects two of three records, in both protocols.
/// Guarantees: they are dropped for that reason, and nothing is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_success() {
    for protocol in PROTOCOLS {
        let sink = sink().await;
        sink.faults().next(1, Fault::PartialSuccess { rejected: 2 });
        let exporter = Exporter::start(&config(protocol), &Names::of([address(&sink, protocol)]));
        exporter.send(&numbers(0..3)).await;
        let settled = exporter.next_settled().await;
        assert_eq!(settled.acknowledged_records, 1);
        assert_eq!(settled.dropped, [(DropReason::PartialSuccess, 2)]);
        assert_eq!(exporter.metrics.send_attempts.get(), 1);
    }
}

/// Scenario: failure modes 20, 24 and 26: refused credentials, overload, a wrong path, a fault, and
/// a throttled pause, one after the other, in the words of each protocol; and 400.
/// Guarantees: all are kept and acknowledged in the end; what is refused with 400 is halved, and a
/// single record that was refused so is tried again once its neighbour has been accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_pass() {
    let http = |status| Fault::HttpStatus { status, retry_after: None };
    let grpc = |code| Fault::GrpcStatus { code, retry_delay: None };
    for protocol in PROTOCOLS {
        let sink = sink().await;
        for status in [401, 403, 404, 500, 502, 503, 429] {
            sink.faults().next(1, http(status));
        }
        for code in [16, 7, 12, 13, 14, 8, 4] {
            sink.faults().next(1, grpc(code));
        }
        let exporter = Exporter::start(&config(protocol), &Names::of([address(&sink, protocol)]));
        exporter.send(&numbers(0..2)).await;
        exporter.all_acknowledged(1).await;
        assert_eq!(sink.faults().applied(), 14);
        // The fourth failure halves the request, the twelfth puts its first record behind the second.
        assert_eq!(exporter.metrics.send_retries.get(), 12);
        // By these health tells a sink that fails from an exporter that stands still.
        assert!(exporter.metrics.last_attempt_ms.get() > 0);
        assert!(exporter.metrics.last_attempt_unix_ms.get() > 0);
        assert_eq!(taken(&sink), ["1", "0"]);

        // The whole, its first half, and then the only record of the second.
        sink.faults().next(1, grpc(3));
        exporter.send(&numbers(0..2)).await;
        exporter.all_acknowledged(1).await;
        assert_eq!(taken(&sink), numbers(0..2));
        sink.faults().next(2, grpc(3));
        exporter.send(&numbers(0..2)).await;
        let settled = exporter.next_settled().await;
        assert_eq!((settled.acknowledged_records, settled.dropped), (2, vec![]));
        assert_eq!(taken(&sink), ["1", "0"]);
    }
}

/// Scenario: failure mode 26: the sink asks for a second's pause while two consumers send.
/// Guarantees: nobody sends before it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_pause_holds_for_all() {
    let pause = Duration::from_secs(1);
    for protocol in PROTOCOLS {
        let sink = sink().await;
        sink.faults().next(
            1,
            match protocol {
                Protocol::Grpc => Fault::GrpcStatus { code: 8, retry_delay: Some(pause) },
                Protocol::Http => Fault::HttpStatus { status: 429, retry_after: Some("1".into()) },
            },
        );
        let exporter = Exporter::start(&config(protocol), &Names::of([address(&sink, protocol)]));
        let begun = Instant::now();
        exporter.send_numbers(0..1).await;
        while sink.faults().applied() == 0 || exporter.metrics.send_retries.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        exporter.send_numbers(1..9).await;
        exporter.all_acknowledged(1).await;
        assert!(begun.elapsed() >= pause, "{:?}", begun.elapsed());
        exporter.all_acknowledged(8).await;
    }
}

/// Scenario: the sink counts a request and closes the connection instead of answering.
/// Guarantees: the request is sent again: a duplicate, no loss, settled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_is_sent_again() {
    for protocol in PROTOCOLS {
        let sink = sink().await;
        let exporter = Exporter::start(&config(protocol), &Names::of([address(&sink, protocol)]));
        for round in 0..2 {
            sink.faults().next(1, Fault::Disconnect);
            exporter.send(&numbers(round..round + 1)).await;
            exporter.all_acknowledged(1).await;
            assert_eq!(taken(&sink), [round.to_string(), round.to_string()]);
        }
        assert!(exporter.settled.is_empty());
    }
}

/// Scenario: the sink dies with requests under way and comes back; one consumer sends.
/// Guarantees: every record arrives, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_kept_over_an_outage() {
    for protocol in PROTOCOLS {
        let sink = sink().await;
        let mut config = config(protocol);
        config.queue.num_consumers = 1;
        let exporter = Exporter::start(&config, &Names::of([address(&sink, protocol)]));
        exporter.send_numbers(0..50).await;
        exporter.all_acknowledged(10).await;
        sink.stop_listening().await;
        exporter.send_numbers(50..100).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        sink.listen_again().await.unwrap();
        exporter.all_acknowledged(90).await;
        let mut arrived = taken(&sink);
        arrived.dedup();
        assert_eq!(arrived, numbers(0..100));
    }
}

/// Scenario: failure mode 27: three sinks; DNS then names three others, while the first ones stay
/// up; then one of them dies.
/// Guarantees: requests go to all in turn; the new ones get all within the resolution's interval;
/// the dead one is left out, and no request is lost or dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_in_turn_as_dns_names_them() {
    for protocol in PROTOCOLS {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            old.push(sink().await);
            new.push(sink().await);
        }
        let addresses = |sinks: &[Running]| {
            sinks.iter().map(|sink| address(sink, protocol)).collect::<Vec<_>>()
        };
        let names = Names::of(addresses(&old));
        let exporter = Exporter::start(&config(protocol), &names);
        // The first requests go to the first address that answered; the others join beside them.
        let joined = |sinks: &[Running]| sinks.iter().all(|sink| sink.report().records > 0);
        let sent = Cell::new(0);
        let send = async |count: usize| {
            let from = sent.replace(sent.get() + count);
            exporter.send_numbers(from..from + count).await;
            exporter.all_acknowledged(count).await;
        };
        let deadline = Instant::now() + PATIENCE;
        while !joined(&old) {
            assert!(Instant::now() < deadline, "not all sinks get requests");
            send(3).await;
        }
        names.set(addresses(&new));
        while !joined(&new) {
            assert!(Instant::now() < deadline, "the new sinks get no requests");
            send(3).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        old.iter().chain(&new).for_each(|sink| sink.reset());
        send(90).await;
        assert!(old.iter().all(|sink| sink.report().records == 0));
        assert_eq!(new.iter().map(|sink| sink.report().records).collect::<Vec<_>>(), [30; 3]);

        new[1].stop_listening().await;
        new.iter().for_each(Running::reset);
        send(90).await;
        let records = new.iter().map(|sink| sink.report().records).collect::<Vec<_>>();
        assert_eq!(records.iter().sum::<u64>() - records[1], 90);
        let mut arrived = BTreeSet::new();
        for sink in old.iter().chain(&new) {
            arrived.extend(taken(sink));
        }
        assert_eq!(arrived.len(), sent.get());

        new[1].listen_again().await.unwrap();
        while new[1].report().records == 0 {
            assert!(Instant::now() < deadline, "the sink that came back gets no requests");
            send(3).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Scenario: one of two sinks takes connections and requests, but never answers.
/// Guarantees: after a time-out it is left out, and all requests arrive at the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_is_left_out() {
    for protocol in PROTOCOLS {
        let (good, hung) = (sink().await, sink().await);
        hung.faults().always(Fault::Stall);
        let names = Names::of([address(&good, protocol), address(&hung, protocol)]);
        let config = ExporterConfig { timeout: Duration::from_millis(300), ..config(protocol) };
        let timing = Timing {
            ejection_min: Duration::from_secs(60),
            ejection_max: Duration::from_secs(60),
            ..timing()
        };
        let exporter = Exporter::start_with(&config, &names, timing);
        exporter.send_numbers(0..40).await;
        exporter.all_acknowledged(40).await;
        assert_eq!(taken(&good).len(), 40);
        // Both consumers may have been on it, and in HTTP a probe's connection is used once more.
        assert!(hung.faults().applied() <= 3, "{}", hung.faults().applied());
    }
}

/// Scenario: TLS over both protocols, first with an authority that the sink's certificate isn't of;
/// failure mode 28: then the authority file is exchanged.
/// Guarantees: nothing is sent to a sink that isn't trusted, nothing is lost, and the new file
/// counts without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_exchanged_authority() {
    for protocol in PROTOCOLS {
        let authority = Authority::new();
        let files = TlsDirectory::new(&authority, &authority);
        let sink = sink_with(|options| options.tls = Some(files.for_collector(false))).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), Authority::new().pem).unwrap();
        let authorities = Some(Source::File(file.path().to_owned()));
        let tls = TlsConfig { authorities, ..TlsConfig::default() };
        let endpoint = "https://localhost:4317".to_owned();
        let config = ExporterConfig { tls, endpoint, ..config(protocol) };
        let exporter = Exporter::start(&config, &Names::of([address(&sink, protocol)]));
        exporter.send_numbers(0..3).await;
        while exporter.metrics.send_retries.get() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sink.report().requests, 0);
        std::fs::write(file.path(), &authority.pem).unwrap();
        exporter.all_acknowledged(3).await;
        assert_eq!(taken(&sink).len(), 3);
    }
}

/// A proxy in front of a sink; counts connections.
async fn counting_proxy(target: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (address, connections)
}

/// Scenario: failure mode 27: many requests to one address, then more over several times the
/// maximum age of connections.
/// Guarantees: connections are used again (one in all for gRPC, one a consumer for HTTP), and
/// replaced when they are old, without a failed attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_and_replaced_by_age() {
    for protocol in PROTOCOLS {
        let sink = sink().await;
        let (proxy, connections) = counting_proxy(address(&sink, protocol)).await;
        let exporter = Exporter::start(&config(protocol), &Names::of([proxy]));
        exporter.send_numbers(0..100).await;
        exporter.all_acknowledged(100).await;
        let limit = if protocol == Protocol::Grpc { 1 } else { 2 };
        assert!((1..=limit).contains(&connections.load(Ordering::Relaxed)));

        let (proxy, connections) = counting_proxy(address(&sink, protocol)).await;
        let timing = Timing { connection_age_max: Duration::from_millis(50), ..timing() };
        let exporter = Exporter::start_with(&config(protocol), &Names::of([proxy]), timing);
        let deadline = Instant::now() + PATIENCE;
        let mut sent = 0;
        while connections.load(Ordering::Relaxed) < 5 {
            assert!(Instant::now() < deadline, "connections are not replaced");
            exporter.send_numbers(sent..sent + 1).await;
            exporter.all_acknowledged(1).await;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(exporter.metrics.send_retries.get(), 0);
        assert_eq!(exporter.metrics.send_attempts.get(), sent as u64);
    }
}

/// Scenario: the name can't be resolved at the start, then it can.
/// Guarantees: the request waits and arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_comes_late() {
    let sink = sink().await;
    let names = Names::default();
    let exporter = Exporter::start(&config(Protocol::Grpc), &names);
    exporter.send_numbers(0..1).await;
    while exporter.metrics.send_retries.get() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    names.set([sink.grpc_addr()]);
    exporter.all_acknowledged(1).await;
}
