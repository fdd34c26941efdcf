//! A node for tests: a tree of logs, a collector, and an agent in this process.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nop_collector::{Collector, OnThreads, Options};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;
use thyme_agent::{
    config::Config,
    metrics::{DropReason, Metrics},
    pipeline::{DrainReport, Pipeline},
};

/// Longest that anything expected is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds; fails the test, saying what was expected, when it never does.
pub(crate) fn wait_until(expected: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never came true: {expected}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A record as the sink got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) body_is_text: bool,
    pub(crate) time_unix_nano: u64,
}

impl Record {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The tree and the sink.
pub(crate) struct Node {
    directory: tempfile::TempDir,
    pub(crate) collector: OnThreads,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Options { keep_requests: true, ..Options::ephemeral() })
    }

    /// One whose collector only counts, for many lines.
    pub(crate) fn without_copies() -> Self {
        Self::with(Options::ephemeral())
    }

    fn with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            collector: Collector::start_on_threads(options, 1).unwrap(),
            runtime,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Directory of a pod's container, made as the kubelet names it.
    pub(crate) fn container(&self, pod: &str) -> PathBuf {
        let uid = "11111111-2222-3333-4444-555555555555";
        let directory = self.path("pods").join(format!("ns_{pod}_{uid}")).join("app");
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// The configuration of the tests: `thyme` and `exporter` are lines put into these sections.
    pub(crate) fn yaml(&self, exporter: &str, thyme: &str) -> String {
        format!(
            "extensions:
  file_storage: {{directory: {state}, create_directory: true}}
  thyme: {{scan_interval: 1s, {thyme}}}
receivers:
  filelog:
    include: [{pods}/*/*/*.log]
    start_at: beginning
    include_file_path: true
    storage: file_storage
    operators: [{{type: container}}]
processors:
  batch: {{timeout: 20ms}}
exporters:
  otlp_http:
    endpoint: http://{http}
    retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}
    {exporter}
service:
  extensions: [file_storage, thyme]
  pipelines:
    logs: {{receivers: [filelog], processors: [batch], exporters: [otlp_http]}}
",
            state = self.path("state").display(),
            pods = self.path("pods").display(),
            http = self.collector.http_addr(),
        )
    }

    pub(crate) fn start(&self) -> Agent {
        self.start_with("compression: zstd", "workers: 1")
    }

    pub(crate) fn start_with(&self, exporter: &str, thyme: &str) -> Agent {
        self.start_yaml(&self.yaml(exporter, thyme))
    }

    pub(crate) fn start_yaml(&self, yaml: &str) -> Agent {
        let config = Config::parse(yaml, "test.yaml").unwrap();
        let metrics = Arc::new(Metrics::default());
        let pipeline =
            Pipeline::start(&config, Arc::clone(&metrics), self.runtime.handle()).unwrap();
        Agent { pipeline: Some(pipeline), metrics }
    }

    /// All records that were accepted since the last call, in the order of arrival.
    pub(crate) fn take_records(&self) -> Vec<Record> {
        let requests = self.collector.take_requests();
        requests
            .iter()
            .filter(|request| request.accepted)
            .flat_map(|one| decode(&one.message))
            .collect()
    }

    /// Waits for so many records in all and returns them.
    pub(crate) fn wait_records(&self, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        wait_until(&format!("{count} records"), || {
            records.extend(self.take_records());
            records.len() >= count
        });
        records
    }
}

fn decode(message: &[u8]) -> Vec<Record> {
    let request = ExportLogsServiceRequest::decode(message).unwrap();
    let mut records = Vec::new();
    for logs in request.resource_logs {
        let resource = texts(&logs.resource.unwrap_or_default().attributes);
        for record in logs.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            let (body, body_is_text) = match record.body.unwrap().value.unwrap() {
                Value::StringValue(text) => (text.into_bytes(), true),
                Value::BytesValue(bytes) => (bytes, false),
                other => panic!("{other:?}"),
            };
            records.push(Record {
                resource: resource.clone(),
                attributes: texts(&record.attributes),
                body,
                body_is_text,
                time_unix_nano: record.time_unix_nano,
            });
        }
    }
    records
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().unwrap().value.as_ref() {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(int)) => int.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

/// A running agent.
pub(crate) struct Agent {
    pipeline: Option<Pipeline>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Agent {
    /// What its health check says.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.pipeline.as_ref().unwrap().health()()
    }

    /// Stops it as SIGTERM does, and checks that its books balance.
    pub(crate) fn stop(mut self) -> (DrainReport, Arc<Metrics>) {
        let report = self.pipeline.take().unwrap().stop();
        assert_conserved(&self.metrics);
        (report, Arc::clone(&self.metrics))
    }
}

/// read + recovered = acknowledged + queued + dead-lettered + dropped, in records and in source bytes.
pub(crate) fn assert_conserved(metrics: &Metrics) {
    let mut sum = (0, 0);
    let mut add = |(records, bytes): (i64, i64)| {
        sum.0 += records;
        sum.1 += bytes;
    };
    add(metrics.acknowledged.get());
    add(metrics.queued_partial.get());
    add(metrics.queued_batch.get());
    add(metrics.queued_request.get());
    add(metrics.queued_spool.get());
    add(metrics.dead_lettered.get());
    for reason in DropReason::ALL {
        add(metrics.dropped(reason).get());
    }
    let (read, recovered) = (metrics.read.get(), metrics.recovered.get());
    assert_eq!((read.0 + recovered.0, read.1 + recovered.1), sum, "{metrics:?}");
}

/// A complete CRI line of stdout.
pub(crate) fn cri(body: &str) -> String {
    format!("2026-01-02T03:04:05.678901234Z stdout F {body}\n")
}

/// A fragment of a CRI line.
pub(crate) fn cri_partial(stream: &str, body: &str) -> String {
    format!("2026-01-02T03:04:05.678901234Z {stream} P {body}\n")
}

/// So many lines that differ from those of other names in their bodies only, and have their length.
pub(crate) fn lines(name: &str, count: usize) -> String {
    (0..count).map(|number| cri(&format!("{name} {number:04}"))).collect()
}

pub(crate) fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Rotates as the kubelet does, without compressing.
pub(crate) fn rotate(container: &Path, time: &str) -> PathBuf {
    let rotated = container.join(format!("0.log.{time}"));
    fs::rename(container.join("0.log"), &rotated).unwrap();
    File::create(container.join("0.log")).unwrap();
    rotated
}

/// Compresses as the kubelet does: into `.tmp`, renamed to `.gz`, and the plain file unlinked.
pub(crate) fn compress(rotated: &Path) -> PathBuf {
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", rotated.display()));
    let mut encoder = flate2::write::GzEncoder::new(
        File::create(with(".tmp")).unwrap(),
        flate2::Compression::fast(),
    );
    encoder.write_all(&fs::read(rotated).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::rename(with(".tmp"), with(".gz")).unwrap();
    fs::remove_file(rotated).unwrap();
    with(".gz")
}

/// An agent that has read twenty lines of a container's rotated file, "a", and closed it, and twenty of its live one, "b".
pub(crate) fn start_with_closed(node: &Node, container: &Path) -> (Agent, PathBuf) {
    append(&container.join("0.log"), lines("a", 20));
    let agent = node.start();
    node.wait_records(20);
    let rotated = rotate(container, "20260101-000000");
    append(&container.join("0.log"), lines("b", 20));
    node.wait_records(20);
    wait_until("the rotated file is closed", || agent.metrics.open_files.get() == 1);
    (agent, rotated)
}
