//! Criterion benches of the agent's stages on one file's lines: each asserts what it counted.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::{
    fs::File,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use criterion::{
    Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use log_generator::{CorpusOptions, Kind, write_corpus};
use thyme_agent::{
    batch::{Batch, BatchLimits},
    config::Compression,
    encode::Encoder,
    limits::READ_BYTES,
    parse::{Chunk, ParseCounts, parse_lines},
    tail::source::Source,
};
use thyme_benches::assemble;

/// Lines of the file that all benches use.
const LINES: u64 = 20_000;

type Criterion = criterion::Criterion<Lines>;

/// Wall time, with the throughput in lines.
struct Lines;

impl Measurement for Lines {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Lines {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let Throughput::Elements(lines) = *throughput else {
            return WallTime.formatter().scale_throughputs(typical, throughput, values);
        };
        // Times are nanoseconds.
        values.iter_mut().for_each(|value| *value = lines as f64 * 1e9 / *value / 1e6);
        "million lines/s"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}

struct Input {
    _directory: tempfile::TempDir,
    files: Vec<PathBuf>,
    text: Vec<u8>,
}

fn input(kind: Kind) -> Input {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let corpus = write_corpus(directory.path(), &CorpusOptions::new(kind, 1, LINES))
        .expect("a corpus in a fresh directory");
    let text = std::fs::read(&corpus.files[0]).expect("the corpus was written");
    Input { files: corpus.files, _directory: directory, text }
}

fn kinds() -> [(&'static str, Input); 2] {
    [("random", input(Kind::Random)), ("mixed", input(Kind::Mixed))]
}

const ROOMY: BatchLimits = BatchLimits { bytes_max: 1 << 30, records_max: u64::MAX };

fn parse_and_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse_and_encode");
    for (name, input) in kinds() {
        let mut batch = Batch::new(ROOMY);
        let mut state = assemble::line_state("/var/log/pods/ns_pod_uid/app/0.log");
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut counts = ParseCounts::default();
                batch.begin_segment(0, 0);
                let chunk = Chunk { bytes: &input.text, file: 0, offset: 0, utf8: true };
                parse_lines(black_box(chunk), &mut state, &mut batch, &mut counts);
                batch.end_segment();
                assert_eq!(counts.records, LINES);
                let own = std::mem::take(&mut batch.records);
                batch.reset(own);
            });
        });
    }
    group.finish();
}

fn tail(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tail");
    for (name, input) in kinds() {
        let mut source =
            Source::Plain(Box::new(File::open(&input.files[0]).expect("the corpus is there")));
        let mut buffer = vec![0; READ_BYTES];
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut offset = 0;
                loop {
                    match source.fill(&mut buffer, 0, offset).expect("the corpus can be read") {
                        0 => break,
                        read => offset += read as u64,
                    }
                }
                assert_eq!(offset, input.text.len() as u64);
            });
        });
    }
    group.finish();
}

fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress");
    group.sample_size(20);
    for (name, input) in kinds() {
        let mut encoder = Encoder::new(Compression::Zstd, 1, 1 << 26).expect("level 1 is known");
        let mut batch = Batch::new(ROOMY);
        // What the agent compresses are records, not lines.
        batch.begin_segment(0, 0);
        let mut state = assemble::line_state("/var/log/pods/ns_pod_uid/app/0.log");
        let chunk = Chunk { bytes: &input.text, file: 0, offset: 0, utf8: true };
        parse_lines(chunk, &mut state, &mut batch, &mut ParseCounts::default());
        batch.end_segment();
        let records = std::mem::take(&mut batch.records);
        batch.reset(Vec::new());
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                batch.begin_segment(0, 0);
                batch.records.extend_from_slice(&records);
                batch.end_segment();
                let encoded = encoder.encode(&mut batch, |_| &[]).expect("memory suffices");
                assert!(encoded.body_bytes < records.len());
                drop(encoded.body);
                encoder.recycle(encoded.buffer);
            });
        });
    }
    group.finish();
}

fn whole_pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_to_request");
    group.sample_size(20);
    for (name, input) in kinds() {
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut containers = assemble::open(&input.files).expect("the corpus is there");
                let records =
                    assemble::requests(&mut containers, Compression::Zstd, |encoder, encoded| {
                        drop(encoded.body);
                        encoder.recycle(encoded.buffer);
                        Ok(())
                    });
                assert_eq!(records.expect("the corpus is complete"), LINES);
            });
        });
    }
    group.finish();
}

criterion_group!(
    name = stages;
    config = criterion::Criterion::default().with_measurement(Lines);
    targets = tail, parse_and_encode, compress, whole_pipeline
);
criterion_main!(stages);
