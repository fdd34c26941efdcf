//! Doors for the fuzz targets into what is private to this crate. Nothing else may use them: they
//! are no interface, and they change with what is behind them. They only pass on.

use std::time::Duration;

use prost::Message;
use thyme_core::cri::{CriParser, Stream};

use crate::{
    checkpoint::{FileCheckpoint, FormatError, format, store},
    config::{self, Config, ConfigError},
    export::{
        endpoint::Endpoint,
        partial,
        reply::{self, Status},
    },
    parse::docker,
};

/// A line of docker's json-file, unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerLine {
    /// Nanoseconds since the Unix epoch; 0 where it has no time that a record can carry.
    pub time_unix_nano: u64,
    /// The time as written, where a record can't carry it.
    pub odd_time: Option<Vec<u8>>,
    /// Where it came from.
    pub stream: Stream,
    /// Whether its text ended in a newline.
    pub complete: bool,
    /// The text without that newline.
    pub body: String,
}

/// Reads a line of docker's json-file; `None` when it isn't one.
pub fn docker_line(line: &[u8], times: &mut CriParser) -> Option<DockerLine> {
    docker::parse(line, times).map(|parsed| DockerLine {
        time_unix_nano: parsed.time_unix_nano,
        odd_time: parsed.odd_time,
        stream: parsed.stream,
        complete: parsed.complete,
        body: parsed.body.into_owned(),
    })
}

/// The exporter that positions are of.
const SINK: &str = "otlp_grpc/fuzz";

/// Reads a checkpoint file.
///
/// # Errors
/// It is damaged, or none.
pub fn decode_checkpoints(bytes: &[u8]) -> Result<Vec<FileCheckpoint>, FormatError> {
    let files = format::decode(bytes)?;
    Ok(files.into_values().map(|file| file.of_sink(SINK)).collect())
}

/// What a journal makes of the files of a snapshot, and how many of its last bytes are not whole.
pub fn replay_journal(files: &[FileCheckpoint], journal: &[u8]) -> (Vec<FileCheckpoint>, usize) {
    let mut known = (0..).zip(files.iter().cloned()).collect();
    let torn_bytes = store::replay(journal, &mut known);
    (known.into_values().map(|file| file.of_sink(SINK)).collect(), torn_bytes)
}

/// A batch of records of a journal, with its frame.
pub fn journal_batch(records: &[u8]) -> Vec<u8> {
    store::batch(records)
}

/// Writes a checkpoint file.
pub fn encode_checkpoints(files: &[FileCheckpoint]) -> Vec<u8> {
    format::encode((0..).zip(files), SINK)
}

/// Reads a configuration whose environment variables come from `lookup`, and that has no files.
///
/// # Errors
/// As [`Config::parse`].
pub fn config(
    text: &str,
    file: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    config::parse_without_files(text, file, lookup)
}

/// The endpoint of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkEndpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `host[:port]` as requests name it.
    pub authority: String,
    /// Path of every request.
    pub path: String,
}

impl SinkEndpoint {
    /// Reads the endpoint of an `otlp` exporter; `None` when it is none.
    pub fn grpc(text: &str, insecure: bool) -> Option<Self> {
        Endpoint::grpc(text, insecure).ok().map(Self::from)
    }

    /// Reads the endpoint of an `otlphttp` exporter; `None` when it is none.
    pub fn http(text: &str) -> Option<Self> {
        Endpoint::http(text).ok().map(Self::from)
    }
}

impl From<Endpoint> for SinkEndpoint {
    fn from(Endpoint { tls, host, port, authority, path }: Endpoint) -> Self {
        Self { tls, host, port, authority, path }
    }
}

/// What a sink's answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkAnswer {
    /// Records that a response says were rejected, read as protobuf; nothing where it is none.
    pub rejected: Option<i64>,
    /// The same, read as JSON.
    pub rejected_json: i64,
    /// The delay that a `google.rpc.Status` asks for.
    pub retry_delay: Option<Duration>,
    /// The bytes as base64.
    pub base64: Option<Vec<u8>>,
    /// The bytes as a percent-encoded message.
    pub percent: Vec<u8>,
}

/// Reads bytes as everything that a sink may answer with.
pub fn sink_answer(bytes: &[u8]) -> SinkAnswer {
    SinkAnswer {
        rejected: partial::partial_success(bytes).map(|partial| partial.rejected_log_records),
        rejected_json: partial::partial_success_json(bytes)
            .unwrap_or_default()
            .rejected_log_records,
        retry_delay: Status::decode(bytes).ok().and_then(|status| status.retry_delay()),
        base64: reply::base64_decode(bytes),
        percent: reply::percent_decode(bytes),
    }
}
