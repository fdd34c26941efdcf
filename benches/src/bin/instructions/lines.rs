//! Lines of each format in one buffer of the agent's, and a batch of the default size.

use std::fmt::Write;

use log_generator::{CorpusOptions, Kind, write_corpus};
use thyme_agent::{
    batch::{Batch, BatchLimits},
    config::{Compression, LineFormat},
    encode::Encoder,
    limits::READ_BYTES,
    parse::{Chunk, LineState, ParseCounts, parse_lines},
};
use thyme_benches::assemble::{LIMITS, line_state};
use thyme_core::cri::{CriParser, Stream};

const ROOMY: BatchLimits = BatchLimits { bytes_max: 1 << 30, records_max: u64::MAX };

/// Longest content of a CRI line where records are cut into fragments: three to a record.
const FRAGMENT_BYTES_MAX: usize = 64;

/// The agent's first buffer of a file, and what parses it.
pub(super) struct Lines {
    text: Vec<u8>,
    state: LineState,
    batch: Batch,
    records: u64,
}

impl Lines {
    /// By name: format and kind of lines.
    pub(super) fn new(name: &str) -> Self {
        let mut state = line_state("/var/log/pods/ns_pod_uid/app/0.log");
        let text = match name {
            "cri_mixed" => corpus(Kind::Mixed, usize::MAX),
            "cri_random" => corpus(Kind::Random, usize::MAX),
            "docker_mixed" => docker(&corpus(Kind::Mixed, usize::MAX)),
            "raw_mixed" => {
                state.format = LineFormat::Raw;
                corpus(Kind::Mixed, usize::MAX)
            }
            "fragments_mixed" => corpus(Kind::Mixed, FRAGMENT_BYTES_MAX),
            other => panic!("no lines are called {other}"),
        };
        let mut lines = Self { text, state, batch: Batch::new(ROOMY), records: 0 };
        // Once before, so that buffers have their sizes and the processor's features are known.
        lines.records = lines.parse();
        assert!(lines.records > 100, "{} records", lines.records);
        lines
    }

    /// Parses and encodes all of it; the same records each time.
    pub(super) fn parse(&mut self) -> u64 {
        let records = std::mem::take(&mut self.batch.records);
        self.batch.reset(records);
        let mut counts = ParseCounts::default();
        self.batch.begin_segment(0, 0);
        let chunk = Chunk { bytes: &self.text, file: 0, offset: 0, utf8: true };
        parse_lines(chunk, &mut self.state, &mut self.batch, &mut counts);
        self.batch.end_segment();
        assert_eq!(counts.malformed, 0);
        assert!(self.records == 0 || counts.records == self.records);
        counts.records
    }
}

/// A batch of many containers, ready to be closed.
pub(super) struct ClosedBatch {
    encoder: Encoder,
    batch: Batch,
    resources: Vec<Vec<u8>>,
}

/// Containers whose lines take turns in the batch.
const CONTAINERS: u32 = 20;

/// Bytes of each turn, as many as a reader wants at least. With much smaller ones the copies' alignment,
/// which any change anywhere moves, makes 4 % of our share.
const TURN_BYTES: usize = 48 * 1024;

impl ClosedBatch {
    pub(super) fn new() -> Self {
        let encoder = Encoder::new(Compression::Zstd, 1, 2 * LIMITS.bytes_max);
        let encoder = encoder.expect("level 1 is known");
        let resources = (0..CONTAINERS).map(|one| vec![b'a' + one as u8; 200]).collect();
        let mut batch = Self { encoder, batch: Batch::new(LIMITS), resources };
        // Twice, so that all buffers are those of an agent that has been running.
        for _ in 0..2 {
            batch.fill();
            batch.encode();
        }
        batch.fill();
        batch
    }

    fn fill(&mut self) {
        let text = corpus(Kind::Mixed, usize::MAX);
        let mut state = line_state("/var/log/pods/ns_pod_uid/app/0.log");
        let mut counts = ParseCounts::default();
        for turn in 0_u32.. {
            let container = turn % CONTAINERS;
            let at = turn as usize * TURN_BYTES % (text.len() - TURN_BYTES);
            let start = at + text[at..].iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
            self.batch.begin_segment(container, self.resources[container as usize].len());
            let bytes = &text[start..at + TURN_BYTES];
            let chunk = Chunk { bytes, file: turn, offset: 0, utf8: true };
            let (_, stop) = parse_lines(chunk, &mut state, &mut self.batch, &mut counts);
            self.batch.end_segment();
            if stop == thyme_agent::parse::Stop::BatchFull {
                return;
            }
        }
    }

    /// Closes, gathers and compresses it.
    pub(super) fn encode(&mut self) {
        let resources = &self.resources;
        let encoded = self.encoder.encode(&mut self.batch, |number| &resources[number as usize]);
        let encoded = encoded.expect("memory suffices");
        assert!(encoded.uncompressed_bytes > LIMITS.bytes_max / 4 * 3);
        drop(encoded.body);
        self.encoder.recycle(encoded.buffer);
    }
}

/// What the agent reads of such a file at once.
fn corpus(kind: Kind, partial_bytes_max: usize) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = CorpusOptions::new(kind, 1, 5_000);
    options.partial_bytes_max = partial_bytes_max.min(options.partial_bytes_max);
    let corpus = write_corpus(directory.path(), &options).expect("a fresh directory");
    let mut text = std::fs::read(&corpus.files[0]).expect("the corpus was written");
    text.truncate(READ_BYTES);
    assert_eq!(text.len(), READ_BYTES);
    // The last line is whole, and the end of its record.
    let newline = text.iter().rposition(|byte| *byte == b'\n').expect("many lines");
    let full = text[..newline].windows(10).rposition(|bytes| bytes == b" stdout F ");
    let full = full.expect("complete records");
    let end = full + text[full..].iter().position(|byte| *byte == b'\n').expect("its end");
    text.truncate(end + 1);
    text
}

/// The same lines as docker's json-file has them.
fn docker(cri: &[u8]) -> Vec<u8> {
    let mut parser = CriParser::default();
    let mut text = String::new();
    for line in cri.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let time = line.split(|byte| *byte == b' ').next().expect("a time");
        let time = String::from_utf8_lossy(time);
        let parsed = parser.parse(line).expect("a CRI line");
        let body = String::from_utf8_lossy(parsed.body);
        let body = serde_json::to_string(&format!("{body}\n")).expect("a text");
        let stream = if parsed.stream == Stream::Stdout { "stdout" } else { "stderr" };
        writeln!(text, r#"{{"log":{body},"stream":"{stream}","time":"{time}"}}"#).expect("memory");
    }
    text.into_bytes()
}
