//! The way from a file's bytes to records, as a worker goes it: reads of any size, lines that are
//! not waited for, batches that are full, a rotation in between. Each byte is covered exactly once,
//! each record can be decoded, and the bodies of each stream are those of its lines.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    logs::v1::{LogRecord, ScopeLogs},
};
use prost::Message;
use thyme_agent::{
    batch::{Batch, BatchLimits},
    config::{ContainerFormat, LineFormat},
    fuzzing,
    parse::{
        Chunk, Flush, LineState, ParseCounts, Stop, flush_partial, parse_lines,
        partial::Partials,
        suffix::{CHUNK_OFFSET_ATTRIBUTE, Suffixes},
        uid::{FILE_DIGITS, UID_ATTRIBUTE},
        unended::{Continuation, end_line, parse_piece, room_for_end, room_for_piece, whole_bytes},
    },
    queue::FileRange,
};
use thyme_core::cri::{CriParser, Stream, parse_oddly_timed};

use crate::input::Input;

/// The first seven bytes choose how lines are read, the limits, the reads and the rotation.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let container = |format| LineFormat::Container { format, add_metadata_from_filepath: false };
    let has_uid = input.byte_ahead() / 5 % 2 == 1;
    let format = input.choose(&[
        container(ContainerFormat::Auto),
        container(ContainerFormat::Docker),
        container(ContainerFormat::Containerd),
        container(ContainerFormat::Crio),
        LineFormat::Raw,
    ]);
    let body_bytes_max = input.choose(&[4, 5, 8, 40, 100, 1 << 20]);
    let limits = BatchLimits {
        bytes_max: input.choose(&[1 << 20, 1_000, 300, 100, 1]),
        records_max: input.choose(&[1_000, 1, 2, 3]),
    };
    let line_bytes_max = input.choose(&[usize::MAX, 64, 200, 1]);
    let mut reads = Reads { seed: u64::from(input.byte()) };
    let rotated_at = usize::from(input.byte());
    let text = input.rest();
    let (older, newer) = text.split_at(text.len() * rotated_at / 255);
    let mut worker = Worker::new(format, body_bytes_max, limits, line_bytes_max);
    if has_uid {
        worker.state.suffixes = Suffixes::new(&[]).with_uid();
    }
    worker.read_file(0, older, &mut reads);
    worker.read_file(1, newer, &mut reads);
    worker.end(&[older.len(), newer.len()]);
}

/// Sizes of reads, and whether an unfinished line is waited for.
struct Reads {
    /// Zero: everything is read at once, and all lines are waited for.
    seed: u64,
}

impl Reads {
    fn next(&mut self) -> u64 {
        // xorshift64
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn bytes(&mut self) -> usize {
        if self.seed == 0 { usize::MAX } else { 1 + self.next() as usize % 80 }
    }

    fn is_impatient(&mut self) -> bool {
        self.seed != 0 && self.next().is_multiple_of(4)
    }
}

/// Where a body comes from: a stream's name, or nothing for lines that were passed on raw.
type Origin = Option<&'static str>;

struct Worker {
    state: LineState,
    batch: Batch,
    limits: BatchLimits,
    line_bytes_max: usize,
    continuation: Option<Continuation>,
    counts: ParseCounts,
    /// What the open batch may be longer by: pieces of a line leave together.
    has_pieces: bool,
    /// Bytes that were parsed.
    consumed_bytes: u64,
    /// Bytes and records in closed batches, and what they cover.
    closed_bytes: u64,
    closed_records: u64,
    covered: Vec<FileRange>,
    /// All bodies of each origin joined, as sent and as the model has them.
    sent: BTreeMap<Origin, Vec<u8>>,
    expected: BTreeMap<Origin, Vec<u8>>,
    /// Where the next piece of an origin's line begins in its body.
    next_offset: BTreeMap<Origin, i64>,
    /// The records' identities, where they carry some.
    uids: BTreeSet<String>,
}

impl Worker {
    fn new(
        format: LineFormat,
        body_bytes_max: usize,
        limits: BatchLimits,
        line_bytes_max: usize,
    ) -> Self {
        let state = LineState {
            cri: CriParser::default(),
            suffixes: Suffixes::new(&[]),
            partials: Partials::default(),
            format,
            body_bytes_max,
        };
        let mut worker = Self {
            state,
            batch: Batch::new(limits),
            limits,
            line_bytes_max,
            continuation: None,
            counts: ParseCounts::default(),
            has_pieces: false,
            consumed_bytes: 0,
            closed_bytes: 0,
            closed_records: 0,
            covered: Vec::new(),
            sent: BTreeMap::new(),
            expected: BTreeMap::new(),
            next_offset: BTreeMap::new(),
            uids: BTreeSet::new(),
        };
        worker.batch.begin_segment(0, 0);
        worker
    }

    /// Reads a file to its end, as `worker/turn.rs` does.
    fn read_file(&mut self, file: u32, text: &[u8], reads: &mut Reads) {
        let (mut offset, mut visible) = (0, 0);
        self.state.suffixes.set_file([b'0' + file as u8; FILE_DIGITS]);
        while visible < text.len() {
            visible = visible.saturating_add(reads.bytes()).min(text.len());
            let start = offset;
            while self.parse(file, text, &mut offset, visible) == Stop::BatchFull {
                assert!(!self.batch.is_empty(), "an empty batch takes every line");
                self.close_batch();
            }
            let is_long = start == offset && visible - offset >= self.line_bytes_max;
            let end = self.whole_end(text, offset, visible);
            if is_long && end > offset {
                self.take_piece(file, text, &mut offset, end);
            } else if reads.is_impatient() {
                self.take_unterminated(file, text, &mut offset, visible);
            }
            self.assert_conserved();
        }
        while offset < visible {
            self.take_piece(file, text, &mut offset, visible);
        }
        assert_eq!(offset, text.len());
        if let Some(begun) = self.continuation.take() {
            begun.end(&mut self.state.partials);
        }
        self.assert_conserved();
    }

    fn parse(&mut self, file: u32, text: &[u8], offset: &mut usize, visible: usize) -> Stop {
        let bytes = &text[*offset..visible];
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if complete == 0 {
            return Stop::NoNewline;
        }
        let utf8 = std::str::from_utf8(&bytes[..complete]).is_ok();
        let mut head_bytes = 0;
        if let Some(begun) = self.continuation.take() {
            head_bytes = self.end_line(file, bytes, begun, *offset);
        }
        let at = *offset + head_bytes;
        let chunk = Chunk { bytes: &bytes[head_bytes..complete], file, offset: at as u64, utf8 };
        let splits = self.counts.split;
        let (consumed, stop) =
            parse_lines(chunk, &mut self.state, &mut self.batch, &mut self.counts);
        self.has_pieces |= self.counts.split > splits;
        for line in bytes[head_bytes..head_bytes + consumed].split_inclusive(|&b| b == b'\n') {
            self.expect_line(&line[..line.len() - 1]);
        }
        self.advance(offset, head_bytes + consumed);
        stop
    }

    /// The rest of a line that left in part, and its newline.
    fn end_line(&mut self, file: u32, bytes: &[u8], line: Continuation, offset: usize) -> usize {
        let end = bytes.iter().position(|&byte| byte == b'\n').expect("a line is complete");
        let origin = line.stream.map(Stream::as_str);
        self.expected.entry(origin).or_default().extend_from_slice(&bytes[..end]);
        if self.batch.is_full_for_all(room_for_end(end, &self.state)) {
            self.close_batch();
        }
        let chunk = Chunk { bytes: &bytes[..=end], file, offset: offset as u64, utf8: false };
        end_line(chunk, line, &mut self.state, &mut self.batch, &mut self.counts);
        self.has_pieces = true;
        end + 1
    }

    /// Up to where a line without its newline may leave now.
    fn whole_end(&mut self, text: &[u8], offset: usize, visible: usize) -> usize {
        let is_begun = self.continuation.is_some();
        offset + whole_bytes(&text[offset..visible], is_begun, &mut self.state)
    }

    fn take_unterminated(&mut self, file: u32, text: &[u8], offset: &mut usize, visible: usize) {
        loop {
            let end = self.whole_end(text, *offset, visible);
            if end == *offset {
                return;
            }
            self.take_piece(file, text, offset, end);
        }
    }

    fn take_piece(&mut self, file: u32, text: &[u8], offset: &mut usize, visible: usize) {
        let bytes = &text[*offset..visible];
        let begun = self.continuation;
        if self.batch.is_full_for_all(room_for_piece(bytes, begun.is_some(), &self.state)) {
            self.close_batch();
        }
        // A docker line that only lacks its newline is whole.
        let docker = self.docker_line(bytes).filter(|_| begun.is_none());
        let head_bytes = match begun {
            Some(_) => 0,
            None => bytes.len() - self.body_of_begun(bytes).1.len(),
        };
        let chunk = Chunk { bytes, file, offset: *offset as u64, utf8: false };
        let (consumed, line) =
            parse_piece(chunk, begun, &mut self.state, &mut self.batch, &mut self.counts);
        assert!(consumed > 0, "a piece is empty");
        if let Some((origin, body)) = docker {
            assert_eq!(consumed, bytes.len());
            self.expected.entry(origin).or_default().extend_from_slice(&body);
            self.continuation = Some(line);
            self.has_pieces = true;
            self.advance(offset, consumed);
            return;
        }
        let origin = line.stream.map(Stream::as_str);
        if begun.is_none() {
            assert_eq!(origin, self.body_of_begun(bytes).0);
        }
        let body = &bytes[head_bytes..consumed];
        self.expected.entry(origin).or_default().extend_from_slice(body);
        self.continuation = Some(line);
        self.has_pieces = true;
        self.advance(offset, consumed);
    }

    fn advance(&mut self, offset: &mut usize, consumed: usize) {
        *offset += consumed;
        self.consumed_bytes += consumed as u64;
        self.batch.end_segment();
    }

    /// The model of a line whose end hasn't been read.
    fn body_of_begun<'a>(&self, bytes: &'a [u8]) -> (Origin, &'a [u8]) {
        let is_cri = matches!(
            self.state.format,
            LineFormat::Container {
                format: ContainerFormat::Auto | ContainerFormat::Containerd | ContainerFormat::Crio,
                ..
            }
        );
        let parsed = CriParser::default().parse(bytes);
        let parsed = parsed.or_else(|| parse_oddly_timed(bytes).map(|odd| odd.line));
        match parsed.filter(|_| is_cri && self.docker_line(bytes).is_none()) {
            Some(line) => (Some(line.stream.as_str()), line.body),
            None => (None, bytes),
        }
    }

    /// The model of a line of docker's; nothing where it is none, or not looked for.
    fn docker_line(&self, line: &[u8]) -> Option<(Origin, Vec<u8>)> {
        let is_docker = match self.state.format {
            LineFormat::Container { format: ContainerFormat::Docker, .. } => true,
            LineFormat::Container { format: ContainerFormat::Auto, .. } => {
                line.trim_ascii_start().starts_with(b"{")
            }
            _ => false,
        };
        let parsed = fuzzing::docker_line(line, &mut CriParser::default());
        parsed
            .filter(|_| is_docker)
            .map(|parsed| (Some(parsed.stream.as_str()), parsed.body.into_bytes()))
    }

    /// The model of a complete line.
    fn expect_line(&mut self, line: &[u8]) {
        let nuls = line.iter().take_while(|byte| **byte == 0).count();
        let line = &line[nuls..];
        let (origin, body) = self.docker_line(line).unwrap_or_else(|| {
            let (origin, body) = self.body_of_begun(line);
            (origin, body.to_vec())
        });
        self.expected.entry(origin).or_default().extend_from_slice(&body);
    }

    /// Nothing that was parsed is missing: it is in a batch, or held back by an open record.
    fn assert_conserved(&self) {
        let (open_records, open_bytes) = self.state.partials.queued();
        let bytes = self.closed_bytes + self.batch.source_bytes + open_bytes as u64;
        assert_eq!(bytes, self.consumed_bytes);
        let records = self.closed_records + self.batch.record_count + open_records as u64;
        assert_eq!(records, self.counts.records);
    }

    fn close_batch(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.limits));
        self.batch.begin_segment(0, 0);
        let has_pieces = std::mem::take(&mut self.has_pieces);
        let is_within = batch.records.len() <= self.limits.bytes_max
            && batch.record_count <= self.limits.records_max;
        assert!(is_within || has_pieces || batch.record_count == 1, "the batch is too long");
        let decoded = ScopeLogs::decode(&batch.records[..]).expect("records can be decoded");
        assert_eq!(decoded.log_records.len() as u64, batch.record_count);
        for record in &decoded.log_records {
            self.take_record(record);
        }
        self.closed_records += batch.record_count;
        self.closed_bytes += batch.source_bytes;
        self.covered.extend(&batch.ranges);
    }

    fn take_record(&mut self, record: &LogRecord) {
        let body = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
            Some(Value::StringValue(text)) => text.as_bytes(),
            Some(Value::BytesValue(bytes)) => {
                assert!(std::str::from_utf8(bytes).is_err(), "text was sent as bytes");
                bytes
            }
            other => panic!("{other:?} is no body"),
        };
        let bytes_max = self.state.body_bytes_max;
        assert!(body.len() <= bytes_max, "{} bytes, {bytes_max} are allowed", body.len());
        // A record is one field of its scope.
        let encoded = record.encoded_len() + 1 + prost::length_delimiter_len(record.encoded_len());
        let room = self.state.suffixes.record_bytes_max(body.len());
        assert!(encoded <= room, "{encoded} bytes, room was made for {room}");
        match attribute(record, UID_ATTRIBUTE) {
            Some(Value::StringValue(uid)) => {
                assert!(self.uids.insert(uid.clone()), "two records are {uid}");
            }
            other => assert!(other.is_none() && !self.state.suffixes.has_uid(), "{other:?}"),
        }
        let origin = match attribute(record, "log.iostream") {
            Some(Value::StringValue(name)) => {
                let stream = Stream::from_name(name.as_bytes()).expect("there are two streams");
                Some(stream.as_str())
            }
            Some(other) => panic!("{other:?} is no stream"),
            None => None,
        };
        self.sent.entry(origin).or_default().extend_from_slice(body);
        // A line that only lacked its newline left without a mark, and may turn out to go on.
        let next_offset = self.next_offset.get(&origin).copied();
        let offset = match attribute(record, CHUNK_OFFSET_ATTRIBUTE) {
            None => 0,
            Some(Value::IntValue(offset)) => *offset,
            Some(other) => panic!("{other:?} is no offset"),
        };
        assert!(offset == 0 || next_offset == Some(offset), "{offset}, not {next_offset:?}");
        self.next_offset.insert(origin, offset + body.len() as i64);
    }

    fn end(mut self, file_bytes: &[usize; 2]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            flush_partial(stream, &mut self.state, &mut self.batch, &mut self.counts, Flush::Ended);
            self.has_pieces = true;
        }
        self.assert_conserved();
        self.close_batch();
        assert_eq!(self.closed_bytes, self.consumed_bytes);
        self.sent.retain(|_, bodies| !bodies.is_empty());
        self.expected.retain(|_, bodies| !bodies.is_empty());
        for (origin, expected) in &self.expected {
            let sent = self.sent.get(origin).map_or(&[][..], Vec::as_slice);
            let (sent, expected) = (sent.escape_ascii(), expected.escape_ascii());
            assert_eq!(sent.to_string(), expected.to_string(), "{origin:?}");
        }
        assert!(self.sent.keys().eq(self.expected.keys()));
        self.covered.sort_by_key(|range| (range.file, range.start));
        for (file, &bytes) in file_bytes.iter().enumerate() {
            let mut end = 0;
            for range in self.covered.iter().filter(|range| range.file as usize == file) {
                assert_eq!(range.start, end, "bytes are covered twice, or not at all");
                end = range.end;
            }
            assert_eq!(end, bytes as u64, "the end is not covered");
        }
    }
}

fn attribute<'a>(record: &'a LogRecord, key: &str) -> Option<&'a Value> {
    let found = record.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}
