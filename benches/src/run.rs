//! One run of the release agent over a corpus, into a local nop-collector: from start to the last
//! acknowledgement.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rig::{
    collector::{Addresses, Collector},
    process::Process,
};
use rustix::process::Signal;

use crate::corpus::Corpus;

/// Longest that a run may take.
const RUN_MAX: Duration = Duration::from_secs(300);

/// How the agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// `grpc` or `http`.
    pub protocol: &'static str,
    /// `zstd` or `none`.
    pub compression: &'static str,
    /// Threads that read and compress.
    pub workers: usize,
}

impl Variant {
    /// Whether its processor time is held against that of pure compression.
    pub fn ratio_is_limited(&self) -> bool {
        self.compression == "zstd" && self.workers == 1
    }

    /// What to call it in the table.
    pub fn title(&self) -> String {
        let workers = if self.workers > 1 { format!(" x{}", self.workers) } else { String::new() };
        format!("{} {}{workers}", self.protocol, self.compression)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Whole processor time of the agent, user and system, from its start to its end.
    pub agent_cpu_seconds: f64,
    /// Processor time of the receiver meanwhile.
    pub receiver_cpu_seconds: f64,
    /// From the agent's start to the last acknowledgement.
    pub wall_seconds: f64,
    /// The agent's largest resident memory.
    pub rss_peak_bytes: u64,
    /// Bodies as they came over the wire.
    pub wire_bytes: u64,
    /// Lines that came, each counted once.
    pub lines: u64,
}

/// Runs the agent once. The children write into `scratch`, which is emptied first.
pub fn run(corpus: &Corpus, variant: Variant, scratch: &Path) -> anyhow::Result<Outcome> {
    if scratch.exists() {
        fs::remove_dir_all(scratch).with_context(|| format!("emptying {}", scratch.display()))?;
    }
    fs::create_dir_all(scratch).with_context(|| format!("making {}", scratch.display()))?;
    let mut collector = Collector::spawn(&beside_this("nop-collector")?, scratch)?;
    let addresses = wait_for("the collector's addresses", || {
        collector.process().expect_running()?;
        Ok(collector.addresses()?)
    })?;
    let config = scratch.join("agent.yaml");
    fs::write(&config, configuration(corpus, variant, scratch, &addresses))?;
    let receiver_before = collector.usage().cpu_seconds;
    let arguments: [OsString; 2] = ["--config".into(), config.into_os_string()];
    let start = Instant::now();
    let mut agent = Process::spawn("agent", &beside_this("thyme-agent")?, &arguments, scratch)?;
    let (wall_seconds, rss_peak_bytes) = watch(&mut agent, &collector, &addresses, corpus, start)?;
    let receiver_cpu_seconds = collector.usage().cpu_seconds - receiver_before;
    agent.signal(Signal::TERM)?;
    let ended = wait_for("the agent's end", || Ok(agent.poll()?))?;
    ensure!(ended.status.success(), "the agent ended with {}: {}", ended.status, agent.log_tail());
    let report = collector.report(addresses.admin)?;
    // Each line that came is counted once: that all have come says that none is lost.
    ensure!(report.duplicated == 0, "lines came twice: {report:?}");
    collector.process().kill()?;
    Ok(Outcome {
        agent_cpu_seconds: ended.cpu_seconds,
        receiver_cpu_seconds,
        wall_seconds,
        rss_peak_bytes,
        wire_bytes: report.wire_bytes,
        lines: report.received,
    })
}

/// Waits for the last line, and samples the agent's memory until then.
fn watch(
    agent: &mut Process,
    collector: &Collector,
    addresses: &Addresses,
    corpus: &Corpus,
    start: Instant,
) -> anyhow::Result<(f64, u64)> {
    let mut rss_peak_bytes = 0;
    loop {
        agent.expect_running()?;
        rss_peak_bytes = rss_peak_bytes.max(agent.usage().rss_peak_bytes);
        if collector.report(addresses.admin)?.received >= corpus.lines {
            return Ok((start.elapsed().as_secs_f64(), rss_peak_bytes));
        }
        ensure!(start.elapsed() < RUN_MAX, "the run takes too long: {}", agent.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_for<T>(
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn beside_this(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("looking for this executable")?;
    let path = own.parent().unwrap_or(Path::new("/")).join(name);
    ensure!(path.is_file(), "{} isn't built", path.display());
    Ok(path)
}

/// The agent's configuration for a run.
pub fn configuration(
    corpus: &Corpus,
    variant: Variant,
    scratch: &Path,
    addresses: &Addresses,
) -> String {
    let endpoint = |address: SocketAddr| match variant.protocol {
        "grpc" => format!("endpoint: {address}, tls: {{insecure: true}}"),
        _ => format!("endpoint: http://{address}"),
    };
    let address = if variant.protocol == "grpc" { addresses.grpc } else { addresses.http };
    format!(
        "extensions:
  file_storage: {{directory: {state}, create_directory: true}}
  thyme: {{workers: {workers}}}
receivers:
  file_log:
    include: [{logs}/*/*/*.log]
    start_at: beginning
    include_file_path: true
    storage: file_storage
    operators: [{{type: container}}]
processors:
  batch: {{send_batch_size: 8192, timeout: 200ms}}
exporters:
  otlp_{protocol}: {{{endpoint}, compression: {compression}}}
service:
  extensions: [file_storage, thyme]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [file_log], processors: [batch], exporters: [otlp_{protocol}]}}
",
        state = scratch.join("state").display(),
        workers = variant.workers,
        logs = corpus.directory.display(),
        protocol = variant.protocol,
        endpoint = endpoint(address),
        compression = variant.compression,
    )
}
