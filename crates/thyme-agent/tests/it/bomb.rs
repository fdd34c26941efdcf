//! An archive that becomes a thousand times as large when it is read.

use std::{
    fs::{self, File},
    io::Write,
};

use nop_collector::{Collector, Options};

use crate::{
    node::{append, cri, wait_until},
    program::Program,
};

/// Decompressed size of the archive, bytes.
const BOMB_BYTES: usize = 96 << 20;

/// What the agent may have meanwhile, bytes: what it may hold in requests and in open lines, twice
/// 16 MiB, and room for itself as it is built for tests, where it has 84 MiB. With the archive in
/// memory it would have 180 MiB.
const RSS_BYTES_MAX: u64 = 128 << 20;

/// Longest body of the configuration, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Scenario: a rotated archive of a few hundred KiB holds a line of 96 MiB, one letter and without
/// an end; the live file has a line.
/// Guarantees: it is read as it is decompressed and leaves in pieces of `max_log_size`; the
/// program's memory stays what it may hold, far below what the archive becomes.
#[test]
fn a_bomb_among_the_archives_takes_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let archive = File::create(directory.path().join("0.log.20260102-030405.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(archive, flate2::Compression::fast());
    for _ in 0..BOMB_BYTES / BODY_BYTES_MAX {
        encoder.write_all(&vec![b'x'; BODY_BYTES_MAX]).unwrap();
    }
    let compressed_bytes = encoder.finish().unwrap().metadata().unwrap().len();
    assert!(compressed_bytes < 4 << 20, "{compressed_bytes}");
    append(&directory.path().join("0.log"), cri("the next line"));

    let sink = Collector::start_on_threads(Options::ephemeral(), 1).unwrap();
    let config = directory.path().join("agent.yaml");
    let yaml = format!(
        "receivers:
  filelog:
    include: ['{directory}/*.log']
    start_at: beginning
    max_log_size: {BODY_BYTES_MAX}
    operators: [{{type: container}}]
exporters:
  otlp: {{endpoint: 'http://{sink}', compression: zstd}}
service:
  pipelines:
    logs: {{receivers: [filelog], exporters: [otlp]}}
  telemetry:
    metrics: {{level: none}}
",
        directory = directory.path().display(),
        sink = sink.grpc_addr(),
    );
    fs::write(&config, yaml).unwrap();
    let program = Program::start(&config);
    let records = (BOMB_BYTES / BODY_BYTES_MAX) as u64 + 1;
    wait_until("everything arrives", || sink.report().records >= records);
    let rss_bytes = program.memory_peak_bytes();
    assert!(rss_bytes < RSS_BYTES_MAX, "{} MiB", rss_bytes >> 20);
    program.stop();
}
