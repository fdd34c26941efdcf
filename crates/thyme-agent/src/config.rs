//! The typed configuration, parsed strictly from the Collector's YAML.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

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
    /// Where to, as written.
    pub endpoint: String,
    /// Compression of the requests.
    pub compression: Compression,
    /// Its level; 1 for zstd unless said.
    pub compression_level: i32,
    /// Headers (gRPC: metadata) of each request.
    pub headers: Vec<(String, String)>,
    /// Time-out of one attempt.
    pub timeout: Duration,
    /// Transport security.
    pub tls: TlsConfig,
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
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
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

/// `sending_queue` of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Requests in flight at once.
    pub num_consumers: usize,
    /// Requests waiting and in flight at once; the budget of bytes usually closes first.
    pub queue_size: usize,
}
