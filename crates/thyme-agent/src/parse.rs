//! Lines of a file become encoded records of the open batch. Parsing never fails: a line that
//! isn't understood is passed on raw, marked and counted. It must not read, wait or allocate per
//! line, but where serde_json unescapes docker's.

mod cut;
pub(crate) mod docker;
pub mod partial;
pub mod suffix;
pub mod uid;
pub mod unended;

use std::borrow::Cow;

use memchr::memchr_iter;
use thyme_core::{
    cri::{CriLine, CriParser, OddlyTimed, Stream, parse_oddly_timed},
    otlp::encode::{Body, RecordSuffix, put_log_record},
};

use self::{
    cut::piece_end,
    docker::DockerLine,
    partial::{LineTime, Partials, Place},
    suffix::{Marker, Suffixes, write_offset},
};
use crate::{
    batch::{Batch, Room},
    config::{ContainerFormat, LineFormat},
    queue::FileRange,
};

/// What the lines of one container need besides their bytes; made once a container.
#[derive(Debug)]
pub struct LineState {
    /// Parser of CRI times.
    pub cri: CriParser,
    /// What follows each kind of body.
    pub suffixes: Suffixes,
    /// Open partial lines by stream.
    pub partials: Partials,
    /// How lines are read.
    pub format: LineFormat,
    /// A record's body never grows beyond this; longer lines are split into several records.
    pub body_bytes_max: usize,
}

impl LineState {
    /// What a body takes in a batch, together with what is open before it: one record, or as many pieces as
    /// the limit on a record makes of it. Each is cut at a character, and the first may be what is open.
    fn room_for(&self, body_bytes: usize) -> Room {
        let is_cut = body_bytes > self.body_bytes_max;
        let least_bytes = self.body_bytes_max.saturating_sub(3).max(1);
        let records = if is_cut { body_bytes.div_ceil(least_bytes) + 1 } else { 1 };
        let bytes = body_bytes + records * self.suffixes.record_bytes_max(0);
        Room { records: records as u64, bytes }
    }
}

/// What a call counted; the caller adds it to the metrics once a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseCounts {
    /// Records begun: whole ones, first fragments, and pieces of split lines.
    pub records: u64,
    /// Lines passed on raw.
    pub malformed: u64,
    /// Bodies that are not UTF-8.
    pub invalid_utf8: u64,
    /// Records that are a piece of a longer line.
    pub split: u64,
    /// NULs before lines, which were skipped.
    pub skipped_nuls: u64,
}

/// Why parsing stopped before the end of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What is left has no newline.
    NoNewline,
    /// The next record belongs into the next batch.
    BatchFull,
}

/// A piece of a file's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The bytes, beginning at the start of a line.
    pub bytes: &'a [u8],
    /// The worker's number of the file.
    pub file: u32,
    /// Where `bytes` begins in it.
    pub offset: u64,
    /// Whether the bytes up to the last newline are known to be UTF-8.
    pub utf8: bool,
}

impl Chunk<'_> {
    fn range(&self, start: usize, end: usize) -> FileRange {
        FileRange {
            file: self.file,
            start: self.offset + start as u64,
            end: self.offset + end as u64,
        }
    }
}

/// Appends the records of the complete lines of `chunk` to `batch` and returns how many bytes it
/// consumed, and why it stopped. The batch's segment must have been begun.
pub fn parse_lines(
    chunk: Chunk<'_>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Stop) {
    if state.suffixes.has_uid() {
        parse_lines_as::<true>(chunk, state, batch, counts)
    } else {
        parse_lines_as::<false>(chunk, state, batch, counts)
    }
}

/// With or without an identity in each record: two loops, so that neither asks at each line.
fn parse_lines_as<const HAS_UID: bool>(
    chunk: Chunk<'_>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Stop) {
    let mut line_start = 0;
    // Bytes from here to `line_start` belong to records of this batch, and are not yet covered.
    let mut covered_from = 0;
    let mut stop = Stop::NoNewline;
    for newline in memchr_iter(b'\n', chunk.bytes) {
        let line = &chunk.bytes[line_start..newline];
        if batch.is_full_for(state.suffixes.record_bytes_max(line.len())) {
            stop = Stop::BatchFull;
            break;
        }
        if let Some(cri) = parse_cri(line, state)
            && let [b'F'] = cri.tags
            && !state.partials.is_midway(cri.stream)
            && cri.body.len() <= state.body_bytes_max
        {
            let body = classify(cri.body, chunk.utf8, counts);
            let suffix = state.suffixes.full(cri.stream);
            put_log_record(&mut batch.records, cri.time_unix_nano, body, suffix);
            if HAS_UID {
                write_offset(&mut batch.records, chunk.offset + line_start as u64);
            }
            batch.record_count += 1;
            counts.records += 1;
        } else {
            let mut span = LineSpan { start: line_start, end: newline + 1 };
            match parse_unusual(chunk, &mut span, state, batch, counts) {
                Taken::IntoBatch => {}
                Taken::IntoPartial => {
                    batch.cover(chunk.range(covered_from, span.start));
                    covered_from = newline + 1;
                }
                Taken::NotYet => {
                    line_start = span.start;
                    stop = Stop::BatchFull;
                    break;
                }
            }
        }
        line_start = newline + 1;
    }
    batch.cover(chunk.range(covered_from, line_start));
    (line_start, stop)
}

#[inline(always)]
fn parse_cri<'a>(line: &'a [u8], state: &mut LineState) -> Option<CriLine<'a>> {
    match state.format {
        LineFormat::Container { format: ContainerFormat::Docker, .. } | LineFormat::Raw => None,
        LineFormat::Container { .. } => state.cri.parse(line),
    }
}

/// Whether a line, or its beginning, has a time that the runtime wrote.
pub fn carries_time(line: &[u8], state: &mut LineState) -> bool {
    match read_line(line, state) {
        Some(RuntimeLine::Cri(cri)) => cri.time.is_none(),
        Some(RuntimeLine::Docker(docker)) => docker.odd_time.is_none() && docker.time_unix_nano > 0,
        None => false,
    }
}

/// A line that a runtime wrote, in one of its formats.
enum RuntimeLine<'a> {
    Cri(TimedLine<'a>),
    Docker(DockerLine<'a>),
}

/// A CRI line.
struct TimedLine<'a> {
    line: CriLine<'a>,
    /// Its time as written, where a record can't carry it.
    time: Option<&'a [u8]>,
}

/// Reads a line that is not the usual kind; `None` when no runtime writes such a one.
fn read_line<'a>(line: &'a [u8], state: &mut LineState) -> Option<RuntimeLine<'a>> {
    if matches!(state.format, LineFormat::Raw) {
        return None;
    }
    if may_be_docker(line, state.format) {
        return docker::parse(line, &mut state.cri).map(RuntimeLine::Docker);
    }
    if let Some(line) = state.cri.parse(line) {
        return Some(RuntimeLine::Cri(TimedLine { line, time: None }));
    }
    let OddlyTimed { line, time } = parse_oddly_timed(line)?;
    Some(RuntimeLine::Cri(TimedLine { line, time: Some(time) }))
}

/// Whether a line is docker's, if it is a runtime's.
fn may_be_docker(line: &[u8], format: LineFormat) -> bool {
    match format {
        LineFormat::Container { format: ContainerFormat::Auto, .. } => docker::is_object(line),
        LineFormat::Container { format: ContainerFormat::Docker, .. } => true,
        LineFormat::Container { .. } | LineFormat::Raw => false,
    }
}

impl RuntimeLine<'_> {
    /// `line_bytes` is its length as it stands in the file.
    fn fragment(&self, line_bytes: usize) -> Fragment<'_> {
        match self {
            Self::Docker(docker) => Fragment {
                time: LineTime {
                    unix_nano: docker.time_unix_nano,
                    odd: docker.odd_time.as_deref(),
                },
                stream: docker.stream,
                marker: Marker::Docker,
                last: docker.complete,
                body: docker.body.as_bytes(),
                skipped: 0,
            },
            Self::Cri(TimedLine { line, time }) => Fragment {
                time: LineTime { unix_nano: line.time_unix_nano, odd: *time },
                stream: line.stream,
                marker: Marker::Tags(line.tags),
                last: !line.is_partial(),
                body: line.body,
                skipped: (line_bytes - line.body.len()) as u64,
            },
        }
    }
}

/// The byte order mark that some programs begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes at the beginning of `bytes`, which stand at `offset` of a file and where a line may begin, that
/// belong to no line: a byte order mark at the very start, and the NULs that a crash, or a writer that
/// goes on at its old offset after a truncation, leaves.
pub fn bytes_before_line(bytes: &[u8], offset: u64) -> usize {
    let mark_bytes = if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) { 3 } else { 0 };
    mark_bytes + leading_nuls(&bytes[mark_bytes..])
}

/// NULs that `bytes` begins with.
pub fn leading_nuls(bytes: &[u8]) -> usize {
    if bytes.first() != Some(&0) {
        return 0;
    }
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// Text where that is allowed, bytes otherwise.
#[inline]
fn classify<'a>(body: &'a [u8], known_utf8: bool, counts: &mut ParseCounts) -> Body<'a> {
    if known_utf8 || simdutf8::basic::from_utf8(body).is_ok() {
        return Body::Text(body);
    }
    counts.invalid_utf8 += 1;
    Body::Bytes(body)
}

/// A line within its chunk, newline included.
#[derive(Clone, Copy)]
struct LineSpan {
    start: usize,
    end: usize,
}

/// Where a line went.
enum Taken {
    IntoBatch,
    IntoPartial,
    /// Nowhere: its record needs an empty batch.
    NotYet,
}

/// Everything but a complete CRI line: fragments, other formats, malformed and over-long lines.
#[inline(never)]
fn parse_unusual(
    chunk: Chunk<'_>,
    span: &mut LineSpan,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> Taken {
    let nuls = leading_nuls(&chunk.bytes[span.start..span.end - 1]);
    if nuls > 0 {
        counts.skipped_nuls += nuls as u64;
        span.start += nuls;
        if span.start == span.end - 1 {
            return Taken::IntoBatch;
        }
    }
    let line = &chunk.bytes[span.start..span.end - 1];
    let range = chunk.range(span.start, span.end);
    let raw =
        Line { body: line, time_unix_nano: 0, utf8: chunk.utf8, start: range.start, skipped: 0 };
    if matches!(state.format, LineFormat::Raw) {
        return put_line(raw, state.suffixes.raw(), state, batch, counts);
    }
    if let Some(parsed) = read_line(line, state) {
        return take_fragment(parsed.fragment(line.len()), range, state, batch, counts);
    }
    let taken = put_line(raw, state.suffixes.malformed(), state, batch, counts);
    counts.malformed += u64::from(matches!(taken, Taken::IntoBatch));
    taken
}

/// One physical line of a record, whatever its format is.
#[derive(Clone, Copy)]
struct Fragment<'a> {
    time: LineTime<'a>,
    stream: Stream,
    marker: Marker<'a>,
    last: bool,
    body: &'a [u8],
    /// Bytes of the line before the body, where the body is the rest of it as it stands.
    skipped: u64,
}

/// Adds a fragment to its stream's open record, and sends the record when it is complete.
fn take_fragment(
    fragment: Fragment<'_>,
    range: FileRange,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> Taken {
    let whole_bytes = state.partials.open_bytes(fragment.stream) + fragment.body.len();
    if fragment.last && !state.partials.is_midway(fragment.stream) {
        let suffix = state.suffixes.of(fragment.stream, fragment.marker);
        let suffix = state.suffixes.with_odd_time(suffix, fragment.time.odd);
        let Fragment { body, time, skipped, .. } = fragment;
        let time_unix_nano = time.unix_nano;
        let line = Line { body, time_unix_nano, utf8: false, start: range.start, skipped };
        return put_line(line, &suffix, state, batch, counts);
    }
    let too_long = whole_bytes > state.body_bytes_max;
    if (fragment.last || too_long) && batch.is_full_for_all(state.room_for(whole_bytes)) {
        return Taken::NotYet;
    }
    join_fragment(fragment, range, state, batch, counts);
    Taken::IntoPartial
}

/// Adds a fragment to its stream's open record, which leaves when it is complete or too long. The batch has
/// room for both.
#[inline]
fn join_fragment(
    fragment: Fragment<'_>,
    range: FileRange,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) {
    let (stream, body_bytes) = (fragment.stream, fragment.body.len());
    if state.partials.open_bytes(stream) + body_bytes > state.body_bytes_max {
        // The limit on a record outranks its unity: what is there leaves as a piece.
        flush_begun(stream, state, batch, counts);
        if state.partials.open_bytes(stream) + body_bytes > state.body_bytes_max {
            put_long_fragment(fragment, range, state, batch, counts);
            return;
        }
    }
    append_at(range.start, fragment, range, state, counts);
    if fragment.last {
        flush_partial(stream, state, batch, counts, Flush::Complete);
    }
}

/// Lets what a stream has open go before the fragment that follows, as a piece. The beginning of a character at
/// its end stays for that fragment.
#[cold]
fn flush_begun(stream: Stream, state: &mut LineState, batch: &mut Batch, counts: &mut ParseCounts) {
    if !state.partials.is_within_character(stream) {
        flush_partial(stream, state, batch, counts, Flush::Piece);
    }
}

/// Sends a fragment that is longer than a record may be. It leaves at once, all pieces of it in one
/// batch, but for the beginning of a character at its end: a part that left before the line is acknowledged
/// would come again after each start.
#[cold]
fn put_long_fragment(
    fragment: Fragment<'_>,
    range: FileRange,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) {
    let mut rest = fragment.body;
    while !rest.is_empty() {
        let offset = (fragment.body.len() - rest.len()) as u64;
        let start = range.start + if offset == 0 { 0 } else { fragment.skipped + offset };
        // The beginning of a character may be there.
        let bytes_max = state.body_bytes_max - state.partials.open_bytes(fragment.stream);
        let (body, after) = rest.split_at(piece_end(rest, bytes_max));
        let is_last = after.is_empty();
        // The last piece covers all of the line.
        let covered = if is_last { range } else { FileRange { end: range.start, ..range } };
        append_at(start, Fragment { body, ..fragment }, covered, state, counts);
        if is_last && fragment.last {
            flush_partial(fragment.stream, state, batch, counts, Flush::Complete);
        } else {
            flush_begun(fragment.stream, state, batch, counts);
        }
        rest = after;
    }
}

/// Adds a fragment to its stream's open record, or a part of one. It may begin that, at `start` of its file.
#[inline]
fn append_at(
    start: u64,
    fragment: Fragment<'_>,
    range: FileRange,
    state: &mut LineState,
    counts: &mut ParseCounts,
) {
    if !state.partials.is_open(fragment.stream) {
        counts.records += 1;
    }
    let Fragment { time, stream, marker, body, .. } = fragment;
    let place = Place { range, start, file: state.suffixes.file() };
    state.partials.append(stream, time, marker, body, place);
}

/// Why an open record leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Its last fragment came.
    Complete,
    /// Its last fragment will never come.
    Ended,
    /// Its last fragment is not waited for any longer; what comes of it all the same follows as a piece.
    Paused,
    /// It is longer than a record may be; more of it follows.
    Piece,
    /// It has to leave now, all of it; more of it may follow.
    Released,
}

impl Flush {
    /// Whether the stream's next line goes on with the record.
    fn is_followed(self) -> bool {
        matches!(self, Self::Paused | Self::Piece | Self::Released)
    }

    /// Whether the beginning of a character at its end leaves with what follows.
    fn leaves_characters_whole(self) -> bool {
        matches!(self, Self::Paused | Self::Piece)
    }
}

/// Moves the open record of a stream, if there is one, into the batch. The caller has made sure
/// that the batch has room, or that it is empty.
pub fn flush_partial(
    stream: Stream,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
    flush: Flush,
) {
    let Some(mut open) = state.partials.take(stream) else { return };
    let rest = if flush.leaves_characters_whole() { open.split_unfinished() } else { None };
    let suffix = state.suffixes.of(stream, open.marker());
    let mut suffix = state.suffixes.with_odd_time(suffix, open.odd_time());
    let is_piece = matches!(flush, Flush::Piece | Flush::Released) || open.emitted_bytes > 0;
    if is_piece {
        suffix = Cow::Owned(state.suffixes.with_chunk_offset(&suffix, open.emitted_bytes));
        counts.split += 1;
    }
    if matches!(flush, Flush::Ended | Flush::Paused) {
        suffix = Cow::Owned(state.suffixes.with_partial(&suffix));
    }
    suffix = state.suffixes.with_cut_uid(suffix, open.file, open.start, &open.body);
    let body = classify(&open.body, false, counts);
    put_log_record(&mut batch.records, open.time_unix_nano, body, &suffix);
    batch.record_count += 1;
    for range in &open.ranges {
        batch.cover(*range);
    }
    state.partials.put_back(stream, open, flush.is_followed());
    if let Some(rest) = rest {
        counts.records += 1;
        state.partials.go_on_with(stream, rest);
    }
}

/// A complete line whose body leaves at once.
struct Line<'a> {
    body: &'a [u8],
    time_unix_nano: u64,
    /// Whether the body is known to be UTF-8.
    utf8: bool,
    /// Offset of the line's first byte in its file.
    start: u64,
    /// Bytes of the line before the body, where the body is the rest of it as it stands.
    skipped: u64,
}

/// Appends a line, in several records when its body is longer than one may be, if the batch has room for all
/// of them.
fn put_line(
    line: Line<'_>,
    suffix: &RecordSuffix,
    state: &LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> Taken {
    let Line { mut body, time_unix_nano, utf8, start, skipped } = line;
    let whole_bytes = body.len();
    if whole_bytes <= state.body_bytes_max {
        let content = classify(body, utf8, counts);
        put_log_record(&mut batch.records, time_unix_nano, content, suffix);
        if state.suffixes.has_uid() {
            write_offset(&mut batch.records, start);
        }
        batch.record_count += 1;
        counts.records += 1;
        return Taken::IntoBatch;
    }
    if batch.is_full_for_all(state.room_for(whole_bytes)) {
        return Taken::NotYet;
    }
    while !body.is_empty() {
        let (piece, rest) = body.split_at(piece_end(body, state.body_bytes_max));
        let content = classify(piece, utf8, counts);
        let offset = (whole_bytes - body.len()) as u64;
        let begins_at = start + if offset == 0 { 0 } else { skipped + offset };
        let marked = Cow::Owned(state.suffixes.with_chunk_offset(suffix, offset));
        let file = state.suffixes.file();
        let marked = state.suffixes.with_cut_uid(marked, file, begins_at, piece);
        put_log_record(&mut batch.records, time_unix_nano, content, &marked);
        counts.split += 1;
        batch.record_count += 1;
        counts.records += 1;
        body = rest;
    }
    Taken::IntoBatch
}

#[cfg(test)]
mod tests;
