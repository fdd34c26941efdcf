//! Criterion benches of the agent's stages on one file's lines: each asserts what it counted.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::{fs::File, hint::black_box, path::PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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
use thyme_core::{
    cri::CriParser,
    otlp::encode::{Body, RecordSuffix, put_log_record},
};

/// Lines of the file that all benches use.
const LINES: u64 = 20_000;

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

fn parse_cri(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse_cri");
    for (name, input) in kinds() {
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut parser = CriParser::default();
                let lines = input.text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let parsed = lines.filter_map(|line| parser.parse(black_box(line))).count();
                assert_eq!(parsed as u64, LINES);
            });
        });
    }
    group.finish();
}

fn encode_records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_records");
    for (name, input) in kinds() {
        let mut parser = CriParser::default();
        let lines = input.text.split(|byte| *byte == b'\n');
        let bodies: Vec<&[u8]> =
            lines.filter_map(|line| parser.parse(line)).map(|line| line.body).collect();
        let suffix = RecordSuffix::new(&[0; 120]);
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                for body in &bodies {
                    put_log_record(&mut out, 1, Body::Text(black_box(body)), &suffix);
                }
                assert!(out.len() > input.text.len());
            });
        });
    }
    group.finish();
}

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
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                batch.begin_segment(0, 0);
                batch.records.extend_from_slice(&input.text);
                batch.end_segment();
                let encoded = encoder.encode(&mut batch, |_| &[]).expect("memory suffices");
                assert!(encoded.body_bytes < input.text.len());
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
    stages,
    parse_cri,
    encode_records,
    parse_and_encode,
    tail,
    compress,
    whole_pipeline
);
criterion_main!(stages);
