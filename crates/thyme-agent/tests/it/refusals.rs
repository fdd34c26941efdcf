//! What a sink refuses, over HTTP: a scripted sink that answers as Loki, VictoriaLogs and proxies do.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use thyme_agent::{
    config::{Compression, ExporterConfig, Protocol},
    metrics::Metrics,
    queue::{DropReason, Settled},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::export::{Exporter, Names, PATIENCE, bodies_of, config, numbers};

/// An answer: its status, its type, its body, and whether the records count as stored.
struct Answer(u16, &'static str, Vec<u8>, bool);

const OTLP: &str = "application/x-protobuf";

fn stored() -> Answer {
    Answer(200, OTLP, Vec::new(), true)
}

fn refused(status: u16, content_type: &'static str, said: &str) -> Answer {
    Answer(status, content_type, said.as_bytes().to_vec(), false)
}

/// How often each body was stored, and how many requests came.
#[derive(Default)]
struct Sink {
    bodies: Mutex<BTreeMap<String, u32>>,
    requests: AtomicU64,
}

impl Sink {
    fn all_once(&self, bodies: &[String]) -> bool {
        let stored = self.bodies.lock().unwrap();
        stored.len() == bodies.len() && bodies.iter().all(|body| stored.get(body) == Some(&1))
    }
}

/// Serves answers by the bodies of a request and its length, until the test's runtime ends.
async fn serve(
    script: impl Fn(&[String], usize) -> Answer + Send + Sync + 'static,
) -> (SocketAddr, Arc<Sink>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sink, script) = (Arc::new(Sink::default()), Arc::new(script));
    let shared = Arc::clone(&sink);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sink, script) = (Arc::clone(&shared), Arc::clone(&script));
            tokio::spawn(async move { connection(stream, &sink, &*script).await.ok() });
        }
    });
    (address, sink)
}

async fn connection(
    mut stream: TcpStream,
    sink: &Sink,
    script: &(dyn Fn(&[String], usize) -> Answer + Send + Sync),
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let head_end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&received[..head_end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let end = head_end + length.parse::<usize>().unwrap();
        while received.len() < end {
            stream.read_buf(&mut received).await?;
        }
        let message = &received[head_end..end];
        let bodies = bodies_of(ExportLogsServiceRequest::decode(message).unwrap());
        let Answer(status, content_type, body, is_stored) = script(&bodies, message.len());
        sink.requests.fetch_add(1, Ordering::Relaxed);
        if is_stored {
            let mut stored = sink.bodies.lock().unwrap();
            bodies.into_iter().for_each(|body| *stored.entry(body).or_default() += 1);
        }
        received.drain(..end);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        // In one piece, for which nobody waits.
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

fn start(address: SocketAddr) -> Exporter {
    let config = ExporterConfig { compression: Compression::None, ..config(Protocol::Http) };
    Exporter::start(&config, &Names::of([address]))
}

async fn until(metrics: &Metrics, condition: impl Fn(&Metrics) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(metrics) {
        assert!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn counts(settled: &Settled) -> (u64, u64, &[(DropReason, u64)]) {
    (settled.acknowledged_records, settled.dead_lettered_records, &settled.dropped)
}

/// Scenario: row 56, D17: Loki with its defaults: a request that grows beyond 4 MiB on its way to
/// the ingester is 503 for ever; ten of them, and a small one.
/// Guarantees: every record is stored once, and a large request costs three attempts, or two once its
/// size is known to be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_with_503_for_its_size_is_halved() {
    let (address, sink) = serve(|_, bytes| {
        let said = format!("rpc error: received message larger than max ({bytes} vs. 60000)");
        if bytes > 60_000 { refused(503, "application/octet-stream", &said) } else { stored() }
    })
    .await;
    let exporter = start(address);
    let all: Vec<String> = (0..10_000).map(|number| format!("{number:0100}")).collect();
    for chunk in all.chunks(1_000) {
        exporter.send(chunk).await;
    }
    exporter.send(&numbers(0..1)).await;
    exporter.all_acknowledged(11).await;
    assert!(sink.all_once(&[all, numbers(0..1)].concat()));
    let requests = sink.requests.load(Ordering::Relaxed);
    assert!((22..=31).contains(&requests), "{requests}");
}

/// Scenario: row 57, D2 and D18: a wrong path (VictoriaLogs), a header that the sink can't read, and
/// a proxy that wants a certificate, each with 400, to everything; then somebody mends it.
/// Guarantees: nothing is given up, and every record is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_a_sink_has_accepted_anything_a_refusal_is_about_the_configuration() {
    for (content_type, said) in [
        ("text/plain", "unsupported path requested: \"/insert/opentelemetry/v1/logs/v1/logs\""),
        ("text/plain", "cannot parse common params from request: abc"),
        ("text/html", "<html><title>400 No required SSL certificate was sent</title></html>"),
        ("text/plain", "something that nobody knows"),
    ] {
        let is_mended = Arc::new(AtomicBool::new(false));
        let mended = Arc::clone(&is_mended);
        let (address, sink) = serve(move |_, _| {
            if mended.load(Ordering::Relaxed) { stored() } else { refused(400, content_type, said) }
        })
        .await;
        let exporter = start(address);
        for number in 0..20 {
            exporter.send(&numbers(number * 10..number * 10 + 10)).await;
        }
        let requests = || sink.requests.load(Ordering::Relaxed);
        until(&exporter.metrics, |_| requests() >= 40).await;
        assert!(sink.bodies.lock().unwrap().is_empty());
        is_mended.store(true, Ordering::Relaxed);
        exporter.all_acknowledged(20).await;
        assert!(sink.all_once(&numbers(0..200)), "{said}");
    }
}

/// Scenario: D2: a sink that accepts others refuses one of a hundred records with 400, in words that
/// nobody knows.
/// Guarantees: that record alone is dropped as rejected; the others are stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refused_record_alone_is_dropped() {
    let (address, sink) = serve(|bodies, _| {
        let is_bad = bodies.iter().any(|body| body == "41");
        if is_bad { refused(400, "text/plain", "no") } else { stored() }
    })
    .await;
    let exporter = start(address);
    exporter.send(&numbers(0..100)).await;
    let settled = exporter.next_settled().await;
    assert_eq!(counts(&settled), (99, 0, &[(DropReason::Rejected, 1)][..]));
    assert!(sink.all_once(&[numbers(0..41), numbers(42..100)].concat()));
}

/// Scenario: row 58, D20: Loki refuses one record of 1,999, or those of a stream that are too old,
/// with 400, and keeps the others.
/// Guarantees: nothing is sent again; what is lost is counted as rejected in part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_part_is_counted_and_not_sent_again() {
    let long = "max entry size '262144' bytes exceeded for stream '{}' while adding an entry with \
                length '300000' bytes";
    let behind = "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry too far \
                  behind, entry timestamp is: 2026-11-01T00:00:00Z, oldest acceptable timestamp is: \
                  2026-11-02T00:00:00Z',\nuser 'fake', total ignored: 10 out of 20 for stream: {}";
    for (said, records, lost) in [(long, 1_999, 1), (behind, 20, 10), (behind, 100, 90)] {
        // A `google.rpc.Status`, as Loki writes it.
        let mut status = vec![0x12];
        prost::encoding::encode_varint(said.len() as u64, &mut status);
        status.extend_from_slice(said.as_bytes());
        let (address, sink) =
            serve(move |_, _| Answer(400, "application/octet-stream", status.clone(), false)).await;
        let exporter = start(address);
        exporter.send(&numbers(0..records)).await;
        let settled = exporter.next_settled().await;
        let dropped = [(DropReason::RejectedInPart, lost)];
        assert_eq!(counts(&settled), (records as u64 - lost, 0, &dropped[..]));
        assert_eq!(sink.requests.load(Ordering::Relaxed), 1);
    }
}

/// Scenario: row 58, D2 beside D20: a sink that is not Loki refuses each request with a certain record with 400,
/// keeps nothing of it, and says so in a phrase of Loki's, or in a whole message of Loki's with numbers of another
/// request.
/// Guarantees: it is halved as any other: that record alone is given up, and each other one is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phrase_of_loki_from_a_sink_that_keeps_nothing_costs_the_refused_record_alone() {
    for said in [
        "max entry size exceeded",
        "record has timestamp too old: 2020-01-01",
        "entry too far behind",
        "total ignored: 1 out of 101 for stream",
        "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry out of order',\nuser 'a', \
         total ignored: 1 out of 4201 for stream: {}",
        "4201 errors like: entry for stream '{}' has timestamp too new: 2026-11-01T00:00:00Z",
    ] {
        let (address, sink) = serve(move |bodies, _| {
            let is_bad = bodies.iter().any(|body| body == "41");
            if is_bad { refused(400, "text/plain", said) } else { stored() }
        })
        .await;
        let exporter = start(address);
        exporter.send(&numbers(0..100)).await;
        let settled = exporter.next_settled().await;
        let (acknowledged, dead_lettered, dropped) = counts(&settled);
        let lost = dead_lettered + dropped.iter().map(|(_, records)| records).sum::<u64>();
        assert_eq!((acknowledged, lost), (99, 1), "{said}");
        assert!(dropped.iter().all(|(reason, _)| *reason == DropReason::Rejected), "{said}");
        assert!(sink.all_once(&[numbers(0..41), numbers(42..100)].concat()), "{said}");
    }
}

/// Scenario: row 59, D11: a sink that accepts something, then answers 413 to everything for a while,
/// then only to what is large.
/// Guarantees: meanwhile nothing is given up; afterwards the record that is too large even alone is
/// a dead letter, and every other is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_sink_finds_everything_too_large_nothing_is_given_up() {
    let is_narrow = Arc::new(AtomicBool::new(false));
    let narrow = Arc::clone(&is_narrow);
    let (address, sink) = serve(move |bodies, _| {
        let is_large = bodies.iter().any(|body| body.len() > 1_000);
        if narrow.load(Ordering::Relaxed) || is_large {
            return refused(413, "text/html", "<h1>413 Request Entity Too Large</h1>");
        }
        stored()
    })
    .await;
    let exporter = start(address);
    exporter.send(&numbers(0..1)).await;
    exporter.all_acknowledged(1).await;
    is_narrow.store(true, Ordering::Relaxed);
    exporter.send(&["x".repeat(2_000)]).await;
    for number in 1..31 {
        exporter.send(&numbers(number..number + 1)).await;
    }
    let requests = || sink.requests.load(Ordering::Relaxed);
    until(&exporter.metrics, |_| requests() >= 60).await;
    is_narrow.store(false, Ordering::Relaxed);
    let (mut acknowledged, mut dead_lettered) = (0, 0);
    for _ in 0..31 {
        let settled = exporter.next_settled().await;
        acknowledged += settled.acknowledged_records;
        dead_lettered += settled.dead_lettered_records;
    }
    assert_eq!((acknowledged, dead_lettered), (30, 1));
    assert!(sink.all_once(&numbers(0..31)));
}

/// Scenario: D2, D24: a page with status 200, as a proxy's login has it; Loki's 260; a body that is
/// no answer of OTLP.
/// Guarantees: the first takes nothing, and the request is kept; the others are accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successes_that_are_none() {
    let answered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&answered);
    let (address, sink) = serve(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        0..5 => refused(200, "text/html", "<!DOCTYPE html><title>Log in</title>"),
        5 => Answer(260, "application/octet-stream", b"blocked".to_vec(), true),
        _ => Answer(200, "text/plain", b"ok".to_vec(), true),
    })
    .await;
    let exporter = start(address);
    exporter.send(&numbers(0..1)).await;
    exporter.all_acknowledged(1).await;
    assert_eq!(sink.requests.load(Ordering::Relaxed), 6);
    exporter.send(&numbers(1..2)).await;
    exporter.all_acknowledged(1).await;
    assert!(sink.all_once(&numbers(0..2)));
}

/// Scenario: row 56: a firewall before the sink answers 403 to each request that has a certain text; 240
/// requests of twenty records come at once, each with one record of it, which is far more than there are consumers.
/// Then somebody mends the firewall.
/// Guarantees: all other records are stored within seconds, in requests of their own; of each request only the
/// record with the text is held, and the owner has its budget back; in the end each record is stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_a_firewall_refuses_stops_nothing_else() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let (address, sink) = serve(move |bodies, _| {
        let is_refused = bodies.iter().any(|body| body.contains("DROP TABLE"));
        if is_refused && !mended.load(Ordering::Relaxed) {
            return refused(403, "text/plain", "Forbidden");
        }
        stored()
    })
    .await;
    let exporter = start(address);
    let mut all = Vec::new();
    for request in 0..240 {
        let mut bodies = numbers(request * 20..request * 20 + 20);
        bodies[request % 20].push_str(" DROP TABLE");
        exporter.send(&bodies).await;
        all.extend(bodies);
    }
    until(&exporter.metrics, |_| sink.bodies.lock().unwrap().len() == 240 * 19).await;
    until(&exporter.metrics, |_| exporter.set_aside() == 240).await;
    is_mended.store(true, Ordering::Relaxed);
    exporter.all_acknowledged(240).await;
    assert!(sink.all_once(&all));
}
