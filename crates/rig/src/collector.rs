//! nop-collector as a process: its addresses, its report, and the manifest it is given.

use crate::{
    error::{Error, Result},
    http,
    process::Process,
    usage::Usage,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, net::SocketAddr, path::Path};

const NAME: &str = "nop-collector";

/// Where it listens, as it prints at its start.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    /// OTLP/gRPC.
    pub grpc: SocketAddr,
    /// OTLP/HTTP.
    pub http: SocketAddr,
    /// Report and manifest.
    pub admin: SocketAddr,
}

/// Time from a line's write to its receipt, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// What the collector knows of one run, that is of one start of a generator.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RunReport {
    /// The run in its stamps.
    pub run: u32,
    /// Distinct lines.
    pub received: u64,
    /// The latencies' distribution so far, pairs of microseconds and count, ascending.
    pub latency_us_counts: Vec<(u64, u64)>,
}

/// What the collector knows of one writer's lines.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StreamReport {
    /// The run in its stamps.
    pub run: u32,
    /// The writer in its stamps.
    pub writer: u32,
    /// Records beyond the first of each line.
    pub duplicated: u64,
    /// The first sequence number that was seen to come again.
    #[serde(default)]
    pub first_duplicated: Option<u64>,
    /// The sequence numbers that came: first and last of each interval, ascending.
    pub intervals: Vec<(u64, u64)>,
}

/// What `GET /report` says, as far as it is needed here.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Records of any kind.
    pub records: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes of their bodies as they came.
    pub wire_bytes: u64,
    /// Bytes of their bodies, decompressed.
    pub decompressed_bytes: u64,
    /// Distinct stamped lines.
    pub received: u64,
    /// Lines of the manifest that did not come; unknown until one was posted.
    pub lost: Option<u64>,
    /// Stamped lines that came again.
    pub duplicated: u64,
    /// Of these, those that a sink could remove by the record's identity.
    #[serde(default)]
    pub duplicated_removable: u64,
    /// Records whose identity had come before on another line.
    #[serde(default)]
    pub uid_collisions: u64,
    /// Stamped records with an identity.
    #[serde(default)]
    pub uid_records: u64,
    /// Lines that came after a later one of their writer.
    pub reordered: u64,
    /// Records without a stamp.
    pub unstamped: u64,
    /// Absent until a stamped line was received.
    #[serde(default)]
    pub latency_ms: Option<Latency>,
    /// Whether a manifest was posted.
    pub manifest: bool,
    /// Each run; only when asked for.
    #[serde(default)]
    pub runs: Vec<RunReport>,
    /// Each writer; only when asked for.
    #[serde(default)]
    pub streams_detail: Vec<StreamReport>,
}

/// A running nop-collector.
#[derive(Debug)]
pub struct Collector {
    process: Process,
}

impl Collector {
    /// Starts it on ports of its own choice.
    pub fn spawn(program: &Path, directory: &Path) -> Result<Self> {
        let arguments: Vec<OsString> =
            ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
                .map(OsString::from)
                .into();
        Ok(Self { process: Process::spawn(NAME, program, &arguments, directory)? })
    }

    /// Its addresses, once it has said them.
    pub fn addresses(&self) -> Result<Option<Addresses>> {
        let Some(line) = self.process.first_line()? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).map_err(|error| not_understood(&error, &line))
    }

    /// Asks for the report.
    pub fn report(&self, admin: SocketAddr) -> Result<Report> {
        self.ask(admin, "/report")
    }

    /// Asks for the report with each run.
    pub fn report_with_runs(&self, admin: SocketAddr) -> Result<Report> {
        self.ask(admin, "/report?runs=1")
    }

    /// Asks for what it knows of each writer.
    pub fn streams(&self, admin: SocketAddr) -> Result<Vec<StreamReport>> {
        self.ask(admin, "/report?intervals=1").map(|report| report.streams_detail)
    }

    fn ask(&self, admin: SocketAddr, path: &str) -> Result<Report> {
        let body = exchange(admin, "GET", path, &[])?;
        serde_json::from_slice(&body)
            .map_err(|error| not_understood(&error, &String::from_utf8_lossy(&body)))
    }

    /// Tells it what was written.
    pub fn post_manifest(&self, admin: SocketAddr, manifest: &[u8]) -> Result<()> {
        exchange(admin, "POST", "/manifest", manifest).map(drop)
    }

    /// Stops it where it stands; connections stay open and fill up.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn exchange(admin: SocketAddr, method: &'static str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    http::request(admin, method, path, body)
        .and_then(http::Response::ok)
        .map_err(|source| Error::Http { method, address: admin, path: path.into(), source })
}

fn not_understood(error: &serde_json::Error, text: &str) -> Error {
    let start: String = text.chars().take(200).collect();
    Error::Answer { name: NAME, detail: format!("{error} in {start:?}") }
}
