//! The typed configuration, parsed strictly from the Collector's YAML: nothing is ignored.
//!
//! This file owns the types that the stages take. It knows nothing of YAML; its submodules do.

mod component;
mod document;
mod error;
mod expand;
mod exporter;
mod extension;
mod origin;
mod processor;
mod proxy;
mod read;
mod receiver;
mod service;
mod telemetry;
mod tls;
mod units;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use credentials::regular_file;
pub use credentials::{Secret, Source};
pub use error::{ConfigError, Problem};
pub use origin::Origin;
pub use proxy::ProxyConfig;

/// Most bytes of a configuration.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// All that the agent is told: one pipeline of logs, and what stands around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The pipeline's receivers, in its order; at least one.
    pub receivers: Vec<FilelogConfig>,
    /// The pipeline's `batch` processor, or its defaults where the pipeline has none.
    pub batch: BatchConfig,
    /// The pipeline's exporter.
    pub exporter: ExporterConfig,
    /// The `file_storage` extension in service.
    pub file_storage: Option<FileStorageConfig>,
    /// The `health_check` extension in service.
    pub health_check: Option<HealthCheckConfig>,
    /// The `thyme` extension, or its defaults.
    pub thyme: ThymeConfig,
    /// `service.telemetry`.
    pub telemetry: TelemetryConfig,
    /// Where all of it was written.
    pub origin: Origin,
}

/// The name under which the state knows a receiver or an exporter: types that have two names are
/// called by the newer one, so that `filelog/pods` and `file_log/pods` are one.
pub fn canonical_name(id: &str) -> String {
    let receivers = receiver::TYPES.iter().map(|known| known.names);
    let types: Vec<_> = receivers.chain(exporter::TYPES.iter().map(|known| known.names)).collect();
    component::canonical_name(id, &types)
}

impl Config {
    /// Canonical names of the receivers, in their order.
    pub fn receiver_names(&self) -> Vec<Arc<str>> {
        self.receivers.iter().map(|receiver| canonical_name(&receiver.id).into()).collect()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read, or its text is no configuration: see [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let bytes = match regular_file::read(path, CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(source) => return Err(ConfigError::Read { file, source }),
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &file),
            Err(error) => {
                let lines = memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
                let (line, message) = (1 + lines as u64, "it is not UTF-8 text".to_owned());
                let problem = Problem { file, line, key: String::new(), message };
                Err(ConfigError::Invalid(vec![problem]))
            }
        }
    }

    /// Reads a text; `file` is its name in messages. Variables come from the environment.
    ///
    /// # Errors
    /// All that is wrong with the text, each with its line and key: a fault of the YAML, an unknown
    /// key, a value of the wrong type or out of its range, a variable that is not set, a file that
    /// can't be read, a reference to what is not defined, or something that thyme does not support.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        parse_with(text, file, expand::Lookup { variable: &variable, file: &expand::read_file })
    }
}

/// [`Config::parse`] with other variables, and where no file exists that a reference names.
pub(crate) fn parse_without_files(
    text: &str,
    file: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    parse_with(text, file, expand::Lookup { variable, file: &no_file })
}

fn parse_with(text: &str, file: &str, lookup: expand::Lookup<'_>) -> Result<Config, ConfigError> {
    let problems = read::Problems::default();
    let config = read_document(text, file, lookup, &problems);
    let problems = problems.into_list(file);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            assert!(!problems.is_empty(), "what makes no configuration has a problem");
            Err(ConfigError::Invalid(problems))
        }
    }
}

/// `None` only after noting why.
fn read_document(
    text: &str,
    file: &str,
    lookup: expand::Lookup<'_>,
    problems: &read::Problems,
) -> Option<Config> {
    let mut root = match document::parse(text) {
        Ok(root) => root,
        Err(error) => {
            problems.add(error.line, "", error.message);
            return None;
        }
    };
    expand::expand(&mut root, lookup, problems);
    let config = service::read(&read::Field::root(&root, problems), problems)?;
    let mut config = Config { origin: Origin::new(file, &root), ..config };
    for (key, message) in proxy::fill(&mut config, lookup.variable) {
        problems.add(config.origin.line(&key), &key, message);
    }
    Some(config)
}

/// A `filelog` receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilelogConfig {
    /// The receiver's name in the configuration, such as `filelog/pods`.
    pub id: String,
    /// Globs of the files to read; at least one.
    pub include: Vec<String>,
    /// Globs of the files to leave out.
    pub exclude: Vec<String>,
    /// Where files begin that exist at the first start without a checkpoint.
    pub start_at: StartAt,
    /// A growing file's longest wait for its next read.
    pub poll_interval: Duration,
    /// Sets the record attribute `log.file.path`.
    pub include_file_path: bool,
    /// Sets the record attribute `log.file.name`.
    pub include_file_name: bool,
    /// Longest body; longer ones are split.
    pub max_log_size_bytes: usize,
    /// Whether positions are kept in the `file_storage` extension.
    pub storage: bool,
    /// What a line of these files is.
    pub format: LineFormat,
}

/// `start_at` of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Every byte is read.
    Beginning,
    /// Only what is written from now on.
    End,
}

/// What a line of a receiver's files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// No operator: a line is a record.
    Raw,
    /// The `container` operator.
    Container {
        /// Which runtime wrote the lines.
        format: ContainerFormat,
        /// Takes the `k8s.*` resource attributes from the file's path.
        add_metadata_from_filepath: bool,
    },
}

/// `format` of the `container` operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerFormat {
    /// Found line by line.
    Auto,
    /// CRI, as containerd writes it.
    Containerd,
    /// CRI, as CRI-O writes it (with a zone offset).
    Crio,
    /// Docker's `json-file`.
    Docker,
}

/// A `batch` processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// The processor's name in the configuration; `batch` where the pipeline has none.
    pub id: String,
    /// Records at which a batch closes.
    pub send_batch_size: u64,
    /// Most records of a request; 0 is no limit.
    pub send_batch_max_size: u64,
    /// Age at which a batch closes; zero closes it after each read.
    pub timeout: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            id: "batch".into(),
            send_batch_size: 8192,
            send_batch_max_size: 0,
            timeout: Duration::from_millis(200),
        }
    }
}

/// How a request's bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, one frame a request.
    Zstd,
}

/// Which OTLP transport an exporter speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

/// An `otlp` or `otlphttp` exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct ExporterConfig {
    /// The exporter's name in the configuration, such as `otlp/backend`.
    pub id: String,
    /// Transport.
    pub protocol: Protocol,
    /// Where to, as written: `host:port` or a URL for gRPC, a URL for HTTP (its path, if any, is
    /// the base that `/v1/logs` is added to).
    pub endpoint: String,
    /// Compression of the requests.
    pub compression: Compression,
    /// Its level; unless said 1 for zstd, 6 for gzip, 0 for none.
    pub compression_level: i32,
    /// Headers (gRPC: metadata) of each request.
    pub headers: Vec<(String, Secret)>,
    /// The `bearertokenauth` extension that `auth` names.
    pub auth: Option<BearerTokenConfig>,
    /// Time-out of one attempt.
    pub timeout: Duration,
    /// Transport security.
    pub tls: TlsConfig,
    /// The proxy on the way to the endpoint: `proxy_url`, or what the environment says.
    pub proxy: Option<ProxyConfig>,
    /// What happens after a failed attempt.
    pub retry: RetryConfig,
    /// Requests waiting and in flight.
    pub queue: QueueConfig,
}

/// `tls` of an exporter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// No TLS at all (gRPC without a scheme; the scheme decides where there is one).
    pub insecure: bool,
    /// Takes any certificate of the sink.
    pub insecure_skip_verify: bool,
    /// The authorities to trust instead of the system's, in PEM.
    pub authorities: Option<Source>,
    /// What the agent shows the sink.
    pub identity: Option<TlsIdentity>,
    /// The name to find in the sink's certificate, instead of the endpoint's host.
    pub server_name_override: Option<String>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Age at which a connection is replaced, so that new certificates come into use; `None` is
    /// the exporter's own.
    pub reload_interval: Option<Duration>,
}

/// A client's certificate with its private key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, and what lies between it and its authority.
    pub certificate: Source,
    /// Its private key.
    pub key: Source,
}

/// `min_version` of `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A `bearertokenauth` extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerTokenConfig {
    /// The extension's name in the configuration.
    pub id: String,
    /// The header that carries the token.
    pub header: String,
    /// What stands before the token, with a blank between; nothing if empty.
    pub scheme: String,
    /// The token, or the file that it stands in.
    pub token: Source,
}

/// `retry_on_failure` of an exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// Without it, one failed attempt drops the request.
    pub enabled: bool,
    /// First wait.
    pub initial_interval: Duration,
    /// Longest wait.
    pub max_interval: Duration,
    /// Growth of the wait.
    pub multiplier: f64,
    /// Share of the wait that is random, on both sides.
    pub randomization_factor: f64,
    /// After this the request is dropped; `None` is never.
    pub max_elapsed: Option<Duration>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            max_interval: Duration::from_secs(30),
            multiplier: 1.5,
            randomization_factor: 0.5,
            max_elapsed: None,
        }
    }
}

/// `sending_queue` of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Requests in flight at once.
    pub num_consumers: usize,
    /// Requests waiting and in flight at once; the budget of bytes usually closes first.
    pub queue_size: usize,
    /// The `file_storage` extension in which requests are kept whose files are deleted or about to
    /// be; `None` keeps nothing on disk.
    pub storage: Option<String>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { num_consumers: 10, queue_size: 1000, storage: None }
    }
}

/// A `file_storage` extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStorageConfig {
    /// The extension's name in the configuration.
    pub id: String,
    /// Where the agent keeps its state.
    pub directory: PathBuf,
    /// Creates the directory where it is missing.
    pub create_directory: bool,
}

/// A `health_check` extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// The extension's name in the configuration.
    pub id: String,
    /// `host:port` to listen on; port 0 picks one.
    pub endpoint: String,
    /// Path that answers, beside `/healthz`.
    pub path: String,
}

/// The `thyme` extension: what the Collector has no key for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThymeConfig {
    /// Threads that read, parse, encode and compress.
    pub workers: usize,
    /// Most bytes of a request before compression; outranks `send_batch_size`.
    pub request_bytes_max: usize,
    /// Most bytes of open batches and unsettled requests, all workers together.
    pub in_flight_bytes_max: usize,
    /// Most bytes of open partial lines, all workers together.
    pub partial_bytes_max: usize,
    /// Longest drain after SIGTERM.
    pub shutdown_timeout: Duration,
    /// Most files open at once.
    pub open_files_max: usize,
    /// Most bytes of the spool on disk.
    pub spool_bytes_max: usize,
    /// Most bytes of deleted files that are kept open until they are read.
    pub deleted_files_bytes_max: usize,
    /// The kubelet's `containerLogMaxFiles`: the oldest archives go to the spool before it removes
    /// them.
    pub container_log_max_files: usize,
    /// Time between two scans of the directories.
    pub scan_interval: Duration,
    /// Directories that symbolic links may lead into, beside what receivers include.
    pub link_roots: Vec<PathBuf>,
    /// Sets the record attribute `log.record.uid`.
    pub record_uid: bool,
}

impl Default for ThymeConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            request_bytes_max: 3_670_016, // 3.5 MiB: stock receivers take 4 MiB.
            in_flight_bytes_max: 16 << 20,
            partial_bytes_max: 16 << 20,
            shutdown_timeout: Duration::from_secs(20),
            open_files_max: 100_000,
            spool_bytes_max: 10 << 30,
            deleted_files_bytes_max: 1 << 30,
            container_log_max_files: 5,
            scan_interval: Duration::from_secs(5),
            link_roots: Vec::new(),
            record_uid: false,
        }
    }
}

/// `service.telemetry`.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Lowest level that is logged.
    pub log_level: LogLevel,
    /// Shape of the agent's own log.
    pub log_encoding: LogEncoding,
    /// Attributes of the agent's own resource, beside those it finds itself. `None` takes one of
    /// those away, as an empty value does in the Collector.
    pub resource: Vec<(String, Option<String>)>,
    /// Where the agent's metrics can be had; empty with `metrics.level: none`.
    pub readers: Vec<MetricsReader>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_level: LogLevel::Info,
            log_encoding: LogEncoding::Console,
            resource: Vec::new(),
            readers: vec![MetricsReader::Prometheus(PrometheusConfig::default())],
        }
    }
}

/// `service.telemetry.logs.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything about the agent's own work.
    Debug,
    /// Starts, stops, and what an operator wants to know.
    Info,
    /// What may need attention.
    Warn,
    /// What does.
    Error,
}

/// `service.telemetry.logs.encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEncoding {
    /// Lines for people.
    Console,
    /// One JSON object a line.
    Json,
}

/// One of `service.telemetry.metrics.readers`.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsReader {
    /// `pull.exporter.prometheus`: others fetch.
    Prometheus(PrometheusConfig),
    /// `periodic.exporter.otlp`: the agent sends.
    Otlp(OtlpReaderConfig),
}

/// `pull.exporter.prometheus` of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Host to listen on.
    pub host: String,
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// Leaves out the labels `otel_scope_*`.
    pub without_scope_info: bool,
    /// Leaves out the suffix `_total` of counters.
    pub without_type_suffix: bool,
    /// Leaves out the units in names.
    pub without_units: bool,
}

impl PrometheusConfig {
    /// `host:port` to listen on.
    pub fn endpoint(&self) -> String {
        match self.host.as_str() {
            host if host.contains(':') => format!("[{host}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 8888,
            without_scope_info: true,
            without_type_suffix: true,
            without_units: true,
        }
    }
}

/// `periodic` of a reader with its `exporter.otlp`.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpReaderConfig {
    /// Time between two exports.
    pub interval: Duration,
    /// Time-out of one export.
    pub timeout: Duration,
    /// Transport.
    pub protocol: Protocol,
    /// A URL with its scheme; for HTTP used as it is.
    pub endpoint: String,
    /// Headers (gRPC: metadata) of each export.
    pub headers: Vec<(String, Secret)>,
    /// What a sum counts from.
    pub temporality: Temporality,
    /// The proxy that the environment says is on the way to the endpoint.
    pub proxy: Option<ProxyConfig>,
}

/// `temporality_preference` of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// From the start of the agent.
    Cumulative,
    /// From the last export, gauges and up-down counters aside.
    Delta,
    /// As `Delta` for what is counted at once, as `Cumulative` for what is observed.
    LowMemory,
}

#[cfg(test)]
mod tests;
