//! The instruments as a Prometheus server and an OTLP receiver see them.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    metrics::v1::{Metric, metric::Data, number_data_point::Value},
};
use prost::Message;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tonic::{Request, Response, Status};

use super::{
    Telemetry,
    catalog::{DERIVED, DROPPED, PLAIN, TERMS},
};
use crate::{
    config::{Config, MetricsReader, OtlpReaderConfig, Protocol, Temporality},
    metrics::{DropReason, LossReason, Metrics},
};

const CONFIG: &str = "\
receivers: {filelog/pods: {include: [/a.log]}}
processors: {batch: }
exporters: {otlp/backend: {endpoint: 'c:4317'}}
service:
  pipelines: {logs: {receivers: [filelog/pods], processors: [batch], exporters: [otlp/backend]}}
";

/// The longest that a test waits for an export.
const DEADLINE: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn config() -> Config {
    Config::parse(CONFIG, "test").unwrap()
}

fn page(config: &Config, metrics: &Arc<Metrics>) -> (Telemetry, String) {
    let runtime = runtime();
    let telemetry = Telemetry::start(config, Arc::clone(metrics), runtime.handle()).unwrap();
    metrics.batch_send_size.get().unwrap().record(700, &[]);
    let text = telemetry.pages()[0].render().unwrap();
    (telemetry, text)
}

/// The value of a line `series value`.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

/// Scenario: the default reader, fetched once.
/// Guarantees: each instrument is there, under the Collector's names without units and `_total`,
/// with the Collector's attributes.
#[test]
fn prometheus_shows_every_instrument_under_its_name() {
    let (_telemetry, page) = page(&config(), &Arc::new(Metrics::default()));
    let plain = PLAIN.iter().map(|row| row.instrument.name);
    let derived = DERIVED.iter().map(|row| row.instrument.name);
    let terms = TERMS.iter().flat_map(|term| term.names).chain(DROPPED);
    let others = [
        "otelcol_exporter_queue_capacity",
        "otelcol_processor_batch_batch_send_size",
        "otelcol_process_cpu_seconds",
        "otelcol_process_memory_rss",
        "otelcol_process_uptime",
    ];
    for name in plain.chain(derived).chain(terms).chain(others) {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} is missing in\n{page}");
    }
    for series in [
        "otelcol_receiver_accepted_log_records{receiver=\"filelog/pods\",transport=\"\"}",
        "otelcol_receiver_refused_log_records{receiver=\"filelog/pods\",transport=\"\"}",
        "otelcol_receiver_failed_log_records{receiver=\"filelog/pods\",transport=\"\"}",
        "otelcol_processor_incoming_items{otel_signal=\"logs\",processor=\"batch\"}",
        "otelcol_exporter_sent_log_records{exporter=\"otlp/backend\"}",
        "otelcol_exporter_queue_size{data_type=\"logs\",exporter=\"otlp/backend\"}",
        "thyme_conservation_dropped_bytes{reason=\"partial_success\"}",
    ] {
        assert_eq!(value(&page, series), 0.0);
    }
    assert!(page.contains("target_info{") && page.contains("service_name=\"thyme-agent\""));
    let capacity = "otelcol_exporter_queue_capacity{data_type=\"logs\",exporter=\"otlp/backend\"}";
    assert_eq!(value(&page, capacity), 1000.0);
    assert_eq!(value(&page, "otelcol_processor_batch_batch_send_size_bucket{le=\"750\"}"), 1.0);
}

/// Scenario: the fields of `Metrics`, by their names in its `Debug` output.
/// Guarantees: each of them has a row in the catalog, so that none is forgotten.
#[test]
fn no_field_is_forgotten() {
    let debug = format!("{:?}", Metrics::default());
    // Amounts and counts are flattened to nothing: what is left are the names of the fields.
    let mut depth = 0;
    let mut flat = String::new();
    for c in debug.chars() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ if depth == 1 => flat.push(c),
            _ => {}
        }
    }
    let mut fields: Vec<_> = flat
        .split(',')
        .filter_map(|part| part.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    fields.sort_unstable();
    let known = PLAIN.iter().map(|row| row.field).chain(TERMS.iter().map(|term| term.field));
    let mut known: Vec<_> = known
        .chain(["dropped", "lost_bytes", "batch_send_size", "last_attempt_ms", "moves"])
        .collect();
    known.sort_unstable();
    assert!(fields.contains(&"malformed_lines"), "{debug}");
    assert_eq!(known, fields);
}

/// The agent's own source without its tests, and without what only shows counters: all blanks taken
/// away, so that a call over several lines is found.
fn source() -> String {
    fn gather(directory: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !["simulation", "tests", "telemetry"].contains(&name.as_str()) {
                    gather(&path, text);
                }
            } else if name != "tests.rs" && name != "simulation.rs" {
                let file = std::fs::read_to_string(&path).unwrap();
                let code = file.split("\n#[cfg(test)]\nmod tests").next().unwrap();
                text.extend(code.chars().filter(|c| !c.is_whitespace()));
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = std::fs::read_to_string(root.join("telemetry/log_writer.rs")).unwrap();
    text = text.chars().filter(|c| !c.is_whitespace()).collect();
    gather(&root, &mut text);
    text
}

/// Scenario: each instrument of the catalog, and each reason of those that have one.
/// Guarantees: some code of the agent writes it: `thyme_files_archive_bytes` was shown for months,
/// and was 0 for ever.
#[test]
fn every_instrument_has_a_writer() {
    let source = source();
    let is_written = |field: &str| {
        ["add", "add_gauge", "increment", "set"]
            .iter()
            .any(|call| source.contains(&format!(".{field}.{call}(")))
    };
    assert!(!is_written("no_such_counter") && is_written("malformed_lines"));
    let fields = PLAIN.iter().map(|row| row.field).chain(TERMS.iter().map(|term| term.field));
    let silent: Vec<_> = fields.filter(|field| !is_written(field)).collect();
    assert!(silent.is_empty(), "nobody writes {silent:?}");
    let reasons = DropReason::ALL.map(|reason| format!("DropReason::{reason:?}"));
    for reason in
        reasons.into_iter().chain(LossReason::ALL.map(|one| format!("LossReason::{one:?}")))
    {
        assert!(source.contains(&reason), "nobody gives the reason {reason}");
    }
}

/// Scenario: every term of the conservation equation has another value.
/// Guarantees: each arrives in records and bytes, and the equation holds on the page.
#[test]
fn conservation_can_be_checked_from_outside() {
    let metrics = Arc::new(Metrics::default());
    let together = metrics.together();
    metrics.acknowledged.add(1000, 100_000);
    metrics.queued_partial.add(1, 30);
    metrics.queued_batch.add(20, 2000);
    metrics.queued_request.add(300, 30_000);
    metrics.queued_spool.add(7, 70);
    metrics.recovered.add(7, 70);
    metrics.dead_lettered.add(4, 4_000_000);
    for (i, reason) in (1..).zip(DropReason::ALL) {
        metrics.dropped(reason).add(i * 5, i * 500);
    }
    metrics.read.add(1400, 4_139_530);
    drop(together);
    let (_telemetry, page) = page(&config(), &metrics);
    for unit in ["records", "bytes"] {
        let sum: f64 = page
            .lines()
            .filter(|line| line.starts_with("thyme_conservation_"))
            .filter(|line| line.contains(unit))
            .filter(|line| !line.contains("_read_") && !line.contains("_recovered_"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum();
        let read = value(&page, &format!("thyme_conservation_read_{unit}"));
        let recovered = value(&page, &format!("thyme_conservation_recovered_{unit}"));
        assert_eq!(read + recovered, sum, "{page}");
    }
    assert_eq!(value(&page, "thyme_conservation_queued_records{stage=\"batch\"}"), 20.0);
    assert_eq!(value(&page, "thyme_conservation_queued_bytes{stage=\"partial\"}"), 30.0);
    assert_eq!(value(&page, "thyme_conservation_dropped_records{reason=\"rejected\"}"), 15.0);
    let exporter = "{exporter=\"otlp/backend\"}";
    let failed = format!("otelcol_exporter_send_failed_log_records{exporter}");
    assert_eq!(value(&page, &failed), 79.0);
    let processor = "{otel_signal=\"logs\",processor=\"batch\"}";
    assert_eq!(value(&page, &format!("otelcol_processor_incoming_items{processor}")), 1399.0);
    assert_eq!(value(&page, &format!("otelcol_processor_outgoing_items{processor}")), 1379.0);
}

/// Both sides of the conservation equation in records, as a page shows them.
fn sides(page: &str) -> (f64, f64) {
    let mut sides = (0.0, 0.0);
    for line in page.lines().filter(|line| line.starts_with("thyme_conservation_")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let value: f64 = value.parse().unwrap();
        match name {
            _ if !name.ends_with("_records") => {}
            "thyme_conservation_read_records" | "thyme_conservation_recovered_records" => {
                sides.0 += value;
            }
            _ => sides.1 += value,
        }
    }
    sides
}

/// Scenario: records move between terms without a pause, while two pages are fetched at once, as
/// several Prometheus servers do.
/// Guarantees: the equation holds on every page, and what the Collector's names show agrees with it.
#[test]
fn every_page_balances_while_records_move() {
    let metrics = Arc::new(Metrics::default());
    let (telemetry, _) = page(&config(), &metrics);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let is_done = &is_done;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                for (from, to) in [
                    (None, &metrics.queued_batch),
                    (Some(&metrics.queued_batch), &metrics.queued_request),
                    (Some(&metrics.queued_request), &metrics.acknowledged),
                ] {
                    let _together = metrics.together();
                    match from {
                        Some(from) => from.add(-7, -700),
                        None => metrics.read.add(7, 700),
                    }
                    to.add(7, 700);
                }
            }
        });
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                for _ in 0..200 {
                    let page = telemetry.pages()[0].render().unwrap();
                    let (read, somewhere) = sides(&page);
                    assert_eq!(read, somewhere, "{page}");
                    let sent = "otelcol_exporter_sent_log_records{exporter=\"otlp/backend\"}";
                    let acknowledged = value(&page, "thyme_conservation_acknowledged_records");
                    assert_eq!(value(&page, sent), acknowledged);
                }
            })
        });
        let read = readers.map(std::thread::ScopedJoinHandle::join);
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        read.into_iter().for_each(|read| read.unwrap());
    });
}

/// Scenario: a reader with all three `without_` switches off.
/// Guarantees: names carry their type and unit, and series their scope.
#[test]
fn names_can_have_types_and_units() {
    let mut config = config();
    let MetricsReader::Prometheus(reader) = &mut config.telemetry.readers[0] else {
        panic!("the default is a Prometheus reader")
    };
    reader.without_scope_info = false;
    reader.without_type_suffix = false;
    reader.without_units = false;
    let (_telemetry, page) = page(&config, &Arc::new(Metrics::default()));
    let series = "otelcol_process_uptime_seconds_total{otel_scope_name=\"thyme-agent\"}";
    assert!(value(&page, series) >= 0.0);
}

/// Values of the pushed metrics, by name; of those with several series, their sum.
fn pushed_values(metrics: &[Metric]) -> BTreeMap<String, i64> {
    let number = |metric: &Metric| {
        let points = match metric.data.as_ref()? {
            Data::Sum(sum) => &sum.data_points,
            Data::Gauge(gauge) => &gauge.data_points,
            _ => return None,
        };
        let value = |point: &Value| if let Value::AsInt(number) = point { *number } else { 0 };
        let sum = points.iter().filter_map(|point| point.value.as_ref()).map(value).sum();
        Some((metric.name.clone(), sum))
    };
    metrics.iter().filter_map(number).collect()
}

fn metrics_of(request: ExportMetricsServiceRequest) -> Vec<Metric> {
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

/// Starts the agent's telemetry with one OTLP reader, and gives the first push that `received` gets.
fn push(
    runtime: &Runtime,
    reader: OtlpReaderConfig,
    received: &mpsc::Receiver<Vec<Metric>>,
) -> BTreeMap<String, i64> {
    let mut config = config();
    config.telemetry.readers = vec![MetricsReader::Otlp(reader)];
    let metrics = Arc::new(Metrics::default());
    let together = metrics.together();
    metrics.read.add(7, 700);
    drop(together);
    let telemetry = Telemetry::start(&config, metrics, runtime.handle()).unwrap();
    let first = received.recv_timeout(DEADLINE).expect("a push");
    telemetry.shutdown();
    pushed_values(&first)
}

fn reader(protocol: Protocol, endpoint: String) -> OtlpReaderConfig {
    OtlpReaderConfig {
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(10),
        protocol,
        endpoint,
        headers: vec![("x-tenant".into(), "42".into())],
        temporality: Temporality::Cumulative,
        proxy: None,
    }
}

/// Scenario: a periodic reader with OTLP/HTTP, to a server of this process.
/// Guarantees: metrics arrive as protobuf at the URL as written, with the configured headers.
#[test]
fn metrics_are_pushed_by_http() {
    let runtime = runtime();
    let (sender, received) = mpsc::channel();
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-tenant"], "42");
        sender.send(metrics_of(ExportMetricsServiceRequest::decode(body).unwrap())).ok();
    };
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}/some/v1/metrics", listener.local_addr().unwrap());
    let app = Router::new().route("/some/v1/metrics", post(handler));
    runtime.spawn(async { axum::serve(listener, app).await });
    let values = push(&runtime, reader(Protocol::Http, endpoint), &received);
    assert_eq!(values["otelcol_receiver_accepted_log_records"], 7);
    assert_eq!(values["thyme_conservation_read_bytes"], 700);
}

struct Receiver(mpsc::SyncSender<Vec<Metric>>);

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        assert_eq!(request.metadata().get("x-tenant").unwrap(), "42");
        self.0.try_send(metrics_of(request.into_inner())).ok();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Scenario: a periodic reader with OTLP/gRPC, to a stock server of this process.
/// Guarantees: metrics arrive with the configured headers.
#[test]
fn metrics_are_pushed_by_grpc() {
    let runtime = runtime();
    let (sender, received) = mpsc::sync_channel(1);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = MetricsServiceServer::new(Receiver(sender));
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(incoming));
    let values = push(&runtime, reader(Protocol::Grpc, endpoint), &received);
    assert_eq!(values["otelcol_receiver_accepted_log_records"], 7);
    assert_eq!(values["thyme_conservation_read_bytes"], 700);
}

/// Scenario: an HTTPS endpoint of either protocol where nobody listens.
/// Guarantees: the agent starts all the same.
#[test]
fn a_silent_endpoint_is_no_error() {
    let runtime = runtime();
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let mut config = config();
        let mut reader = reader(protocol, "https://127.0.0.1:1".into());
        reader.timeout = Duration::from_millis(100);
        config.telemetry.readers = vec![MetricsReader::Otlp(reader)];
        Telemetry::start(&config, Arc::new(Metrics::default()), runtime.handle()).unwrap();
    }
}
