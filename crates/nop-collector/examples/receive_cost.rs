//! Measures what receiving and verifying costs beside decompression alone: the release binary's
//! whole CPU time (user and system) over the CPU time of one thread that only decompresses the same
//! requests with a reused context. The limit is 2.5.
//!
//! `cargo build --release -p nop-collector --bin nop-collector --example receive_cost &&
//! target/release/examples/receive_cost [LINES]`

#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use log_generator::corpus::{CorpusOptions, write_corpus};
use log_generator::line::Kind;
use nop_collector::report::Report;
use thyme_core::cri::CriParser;
use thyme_core::otlp::encode::{
    Body, RecordSuffix, Value, put_log_record, put_record_attribute, put_resource_attribute,
    put_resource_logs_prefix,
};
use tokio::net::TcpStream;

/// Requests as thyme-agent makes them by default.
const RECORDS_A_REQUEST: usize = 8_192;
const PODS: u32 = 20;
const PAIRS: usize = 5;

struct Corpus {
    lines: u64,
    /// One zstd frame of level 1 each, and the decompressed size.
    requests: Vec<(Bytes, usize)>,
}

fn main() {
    let lines = std::env::args().nth(1).map_or(1_000_000, |lines| lines.parse().unwrap());
    let mut out = std::io::stdout().lock();
    for kind in [Kind::Mixed, Kind::Random] {
        let corpus = make_corpus(kind, lines);
        let wire: usize = corpus.requests.iter().map(|(wire, _)| wire.len()).sum();
        let plain: usize = corpus.requests.iter().map(|(_, plain)| plain).sum();
        writeln!(
            out,
            "{kind:?}: {lines} lines, {} requests, {plain} bytes, {wire} compressed",
            corpus.requests.len(),
        )
        .unwrap();
        for grpc in [true, false] {
            let mut pairs: Vec<_> = (0..PAIRS).map(|_| measure(&corpus, grpc)).collect();
            pairs.sort_by(|one, other| (one.1 / one.0).total_cmp(&(other.1 / other.0)));
            let (reference, collector, rss) = &pairs[PAIRS / 2];
            let protocol = if grpc { "gRPC" } else { "HTTP" };
            let each = |seconds: f64| seconds * 1e9 / lines as f64;
            writeln!(
                out,
                "  {protocol}: decompression {:.0} ns/line, collector {:.0} ns/line, ratio {:.2} \
                 (of {:.2} to {:.2}), peak RSS {rss}",
                each(*reference),
                each(*collector),
                collector / reference,
                pairs[0].1 / pairs[0].0,
                pairs[PAIRS - 1].1 / pairs[PAIRS - 1].0,
            )
            .unwrap();
        }
    }
}

/// Writes CRI files and encodes them: each request holds a stretch of every pod's lines.
fn make_corpus(kind: Kind, lines: u64) -> Corpus {
    let directory = tempfile::tempdir().unwrap();
    let corpus = write_corpus(directory.path(), &CorpusOptions::new(kind, PODS, lines)).unwrap();
    let files: Vec<_> = corpus.files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut pods: Vec<_> = files.iter().map(|file| file.split(|&byte| byte == b'\n')).collect();
    let stretch = RECORDS_A_REQUEST / PODS as usize;
    let mut requests = Vec::new();
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let mut encoded_lines = 0;
    loop {
        let mut request = Vec::new();
        for (pod, path) in pods.iter_mut().zip(&corpus.files) {
            let some = pod.by_ref().filter(|line| !line.is_empty()).take(stretch);
            encoded_lines += encode_pod(&mut request, path, some);
        }
        if request.is_empty() {
            break;
        }
        let wire = compressor.compress(&request).unwrap();
        requests.push((Bytes::from(wire), request.len()));
    }
    assert_eq!(encoded_lines, lines);
    Corpus { lines, requests }
}

fn encode_pod<'a>(
    request: &mut Vec<u8>,
    path: &Path,
    lines: impl Iterator<Item = &'a [u8]>,
) -> u64 {
    let mut attributes = Vec::new();
    put_record_attribute(&mut attributes, "log.iostream", Value::Text("stdout"));
    put_record_attribute(&mut attributes, "logtag", Value::Text("F"));
    put_record_attribute(&mut attributes, "log.file.path", Value::Text(path.to_str().unwrap()));
    let suffix = RecordSuffix::new(&attributes);
    let (mut records, mut count) = (Vec::new(), 0);
    let mut parser = CriParser::default();
    for line in lines {
        let line = parser.parse(line).unwrap();
        put_log_record(&mut records, line.time_unix_nano, Body::Text(line.body), &suffix);
        count += 1;
    }
    if count > 0 {
        let mut resource = Vec::new();
        for key in ["k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name"] {
            put_resource_attribute(&mut resource, key, Value::Text("some-name-of-usual-length"));
        }
        put_resource_logs_prefix(request, &resource, records.len());
        request.extend_from_slice(&records);
    }
    count
}

/// CPU seconds of the reference and of the collector, and the collector's peak RSS.
fn measure(corpus: &Corpus, grpc: bool) -> (f64, f64, String) {
    let reference = decompress_all(corpus);
    let mut collector = Collector::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = cpu_seconds(collector.child.id());
    let address = collector.addresses[usize::from(!grpc)];
    runtime.block_on(send_all(corpus, address, grpc));
    let cost = cpu_seconds(collector.child.id()) - before;
    let report = runtime.block_on(collector.report());
    assert_eq!((report.received, report.gaps, report.duplicated), (corpus.lines, 0, 0));
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.child.id())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    collector.child.kill().unwrap();
    collector.child.wait().unwrap();
    (reference, cost, rss.to_owned())
}

fn decompress_all(corpus: &Corpus) -> f64 {
    let mut context = zstd::bulk::Decompressor::new().unwrap();
    let largest = corpus.requests.iter().map(|(_, plain)| *plain).max().unwrap();
    let mut plain = Vec::with_capacity(largest);
    let before = thread_cpu_seconds("/proc/thread-self/schedstat");
    for (wire, size) in &corpus.requests {
        plain.clear();
        assert_eq!(context.decompress_to_buffer(wire, &mut plain).unwrap(), *size);
    }
    thread_cpu_seconds("/proc/thread-self/schedstat") - before
}

/// Sends one request after the other over one connection.
async fn send_all(corpus: &Corpus, address: SocketAddr, grpc: bool) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let io = TokioIo::new(stream);
    if grpc {
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let uri =
            format!("http://{address}/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        for (wire, _) in &corpus.requests {
            let length = u32::try_from(wire.len()).unwrap().to_be_bytes();
            let framed = [&[1], &length[..], wire].concat();
            let request = Request::post(&uri)
                .header("content-type", "application/grpc")
                .header("grpc-encoding", "zstd")
                .header("te", "trailers")
                .body(Full::new(Bytes::from(framed)))
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let answer = answer.into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        }
        return;
    }
    let (mut sender, connection) = conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for (wire, _) in &corpus.requests {
        let request = Request::post("/v1/logs")
            .header("host", "collector")
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "zstd")
            .body(Full::new(wire.clone()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    }
}

/// The release binary beside this example.
struct Collector {
    child: Child,
    /// gRPC, HTTP, admin.
    addresses: [SocketAddr; 3],
}

impl Collector {
    fn start() -> Self {
        let example = std::env::current_exe().unwrap();
        let binary = example.parent().unwrap().with_file_name("nop-collector");
        let any = "127.0.0.1:0";
        let mut child = Command::new(binary)
            .args(["--grpc", any, "--http", any, "--admin", any])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let addresses =
            ["grpc", "http", "admin"].map(|port| json[port].as_str().unwrap().parse().unwrap());
        Self { child, addresses }
    }

    async fn report(&mut self) -> Report {
        let url = format!("http://{}", self.addresses[2]);
        serde_json::from_slice(&nop_collector::fetch::report(&url).await.unwrap()).unwrap()
    }
}

/// CPU time of all threads of a process.
fn cpu_seconds(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stat = |task: std::fs::DirEntry| task.path().join("schedstat");
    tasks.map(|task| thread_cpu_seconds(stat(task.unwrap()))).sum()
}

/// The first figure of a `schedstat`: nanoseconds on a CPU, user and system.
fn thread_cpu_seconds(schedstat: impl AsRef<Path>) -> f64 {
    let text = std::fs::read_to_string(schedstat).unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}
