//! Lines of a file become encoded records of the open batch. Parsing never fails: a line that
//! isn't understood is passed on raw, marked and counted. It must not read, wait or allocate per
//! line.

pub(crate) mod docker;
pub mod partial;
pub mod suffix;
pub mod uid;

use memchr::memchr_iter;
use thyme_core::{
    cri::{CriLine, CriParser, OddlyTimed, Stream, parse_oddly_timed},
    otlp::encode::{Body, RecordSuffix, put_log_record},
};

use self::{
    docker::DockerLine,
    partial::{LineTime, Partials},
    suffix::{Marker, Suffixes, write_offset},
};
use crate::{
    batch::Batch,
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

#[inline]
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
    let LineFormat::Container { format, .. } = state.format else { return None };
    let is_docker = match format {
        ContainerFormat::Auto => docker::is_object(line),
        ContainerFormat::Docker => true,
        ContainerFormat::Containerd | ContainerFormat::Crio => false,
    };
    if is_docker {
        return docker::parse(line, &mut state.cri).map(RuntimeLine::Docker);
    }
    if let Some(line) = state.cri.parse(line) {
        return Some(RuntimeLine::Cri(TimedLine { line, time: None }));
    }
    let OddlyTimed { line, time } = parse_oddly_timed(line)?;
    Some(RuntimeLine::Cri(TimedLine { line, time: Some(time) }))
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
        let suffix = state.suffixes.raw().clone();
        put_line(raw, &suffix, state, batch, counts);
        return Taken::IntoBatch;
    }
    if let Some(parsed) = read_line(line, state) {
        return take_fragment(parsed.fragment(line.len()), range, state, batch, counts);
    }
    counts.malformed += 1;
    let suffix = state.suffixes.malformed().clone();
    put_line(raw, &suffix, state, batch, counts);
    Taken::IntoBatch
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
    let open_bytes = state.partials.open_bytes(fragment.stream);
    let whole_bytes = open_bytes + fragment.body.len();
    if fragment.last && !state.partials.is_midway(fragment.stream) {
        let suffix = state.suffixes.of(fragment.stream, fragment.marker);
        let suffix = state.suffixes.with_odd_time(suffix, fragment.time.odd);
        let Fragment { body, time, skipped, .. } = fragment;
        let time_unix_nano = time.unix_nano;
        let line = Line { body, time_unix_nano, utf8: false, start: range.start, skipped };
        put_line(line, &suffix, state, batch, counts);
        return Taken::IntoBatch;
    }
    let too_long = whole_bytes > state.body_bytes_max;
    if (fragment.last || too_long)
        && batch.is_full_for(state.suffixes.record_bytes_max(whole_bytes))
    {
        return Taken::NotYet;
    }
    if too_long && open_bytes > 0 {
        // The limit on a record outranks its unity: what is there leaves as a piece.
        flush_partial(fragment.stream, state, batch, counts, Flush::Piece);
    }
    if fragment.body.len() > state.body_bytes_max {
        put_long_fragment(fragment, range, state, batch, counts);
        return Taken::IntoPartial;
    }
    append_fragment(fragment, range, state, counts);
    if fragment.last {
        flush_partial(fragment.stream, state, batch, counts, Flush::Complete);
    }
    Taken::IntoPartial
}

/// Sends a fragment that is longer than a record may be. It leaves at once, all pieces of it in one
/// batch: a part that left before the line is acknowledged would come again after each start. An
/// empty range tells the pieces' places apart.
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
        let (body, after) = rest.split_at(piece_end(rest, state.body_bytes_max));
        let place = FileRange { start, end: start, ..range };
        append_fragment(Fragment { body, ..fragment }, place, state, counts);
        let mut flush = Flush::Piece;
        if after.is_empty() {
            append_fragment(Fragment { body: after, ..fragment }, range, state, counts);
            flush = if fragment.last { Flush::Complete } else { Flush::Piece };
        }
        flush_partial(fragment.stream, state, batch, counts, flush);
        rest = after;
    }
}

/// Adds a fragment to its stream's open record, which it may begin.
fn append_fragment(
    fragment: Fragment<'_>,
    range: FileRange,
    state: &mut LineState,
    counts: &mut ParseCounts,
) {
    if !state.partials.is_open(fragment.stream) {
        counts.records += 1;
    }
    let Fragment { time, stream, marker, body, .. } = fragment;
    state.partials.append(stream, time, marker, body, range, state.suffixes.file());
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
}

impl Flush {
    /// Whether the stream's next line goes on with the record.
    fn is_followed(self) -> bool {
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
    let Some(open) = state.partials.take(stream) else { return };
    let suffix = state.suffixes.of(stream, open.marker());
    let mut suffix = state.suffixes.with_odd_time(suffix, open.odd_time());
    let is_piece = flush == Flush::Piece || open.emitted_bytes > 0;
    if is_piece {
        suffix = state.suffixes.with_chunk_offset(&suffix, open.emitted_bytes);
        counts.split += 1;
    }
    if matches!(flush, Flush::Ended | Flush::Paused) {
        suffix = state.suffixes.with_partial(&suffix);
    }
    suffix = state.suffixes.with_cut_uid(suffix, open.file, open.start(), &open.body);
    let body = classify(&open.body, false, counts);
    put_log_record(&mut batch.records, open.time_unix_nano, body, &suffix);
    batch.record_count += 1;
    for range in &open.ranges {
        batch.cover(*range);
    }
    state.partials.put_back(stream, open, flush.is_followed());
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

/// Appends a line, in several records when its body is longer than one may be.
fn put_line(
    line: Line<'_>,
    suffix: &RecordSuffix,
    state: &LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) {
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
        return;
    }
    while !body.is_empty() {
        let (piece, rest) = body.split_at(piece_end(body, state.body_bytes_max));
        let content = classify(piece, utf8, counts);
        let offset = (whole_bytes - body.len()) as u64;
        let begins_at = start + if offset == 0 { 0 } else { skipped + offset };
        let marked = state.suffixes.with_chunk_offset(suffix, offset);
        let file = state.suffixes.file();
        let marked = state.suffixes.with_cut_uid(marked, file, begins_at, piece);
        put_log_record(&mut batch.records, time_unix_nano, content, &marked);
        counts.split += 1;
        batch.record_count += 1;
        counts.records += 1;
        body = rest;
    }
}

/// Where to cut a body that may have `bytes_max` bytes: not inside a UTF-8 sequence, if it is one.
fn piece_end(body: &[u8], bytes_max: usize) -> usize {
    if body.len() <= bytes_max {
        return body.len();
    }
    let is_continuation = |at: usize| body[at] & 0b1100_0000 == 0b1000_0000;
    let lowest = bytes_max.saturating_sub(3).max(1);
    (lowest..=bytes_max).rev().find(|&at| !is_continuation(at)).unwrap_or(bytes_max)
}

/// A line whose newline hasn't been seen yet, of which a part already left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Time of the line, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Its stream, if it has one.
    pub stream: Option<Stream>,
    /// Whether it is a CRI line tagged `P`.
    pub partial: bool,
    /// Bytes of its body that have left.
    pub emitted_bytes: u64,
}

impl Continuation {
    /// The line's newline came, or never will: after a fragment, its stream's next line goes on with it.
    pub fn end(self, partials: &mut Partials) {
        if let Some(stream) = self.stream.filter(|_| self.partial) {
            partials.go_on(stream, self.emitted_bytes);
        }
    }
}

/// Appends a piece of a line that is longer than may be waited for: `bytes` has no newline, or is
/// the end of a line that was begun that way, up to and without its newline.
///
/// Returns the bytes consumed and how the line goes on.
pub fn parse_piece(
    chunk: Chunk<'_>,
    begun: Option<Continuation>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Continuation) {
    let is_begun = begun.is_some();
    let (mut line, body, odd_time) = match begun {
        Some(begun) => (begun, chunk.bytes, None),
        None => match read_line(chunk.bytes, state) {
            Some(docker @ RuntimeLine::Docker(_)) => {
                let fragment = docker.fragment(chunk.bytes.len());
                return put_unended_docker(chunk, fragment, state, batch, counts);
            }
            Some(RuntimeLine::Cri(cri)) => begin_cri(cri, state, batch, counts),
            None => begin_raw(chunk.bytes, state, counts),
        },
    };
    let header_bytes = chunk.bytes.len() - body.len();
    let piece = &body[..piece_end(body, state.body_bytes_max)];
    let base = match line.stream {
        Some(stream) => state.suffixes.of(stream, Marker::partial_or_full(line.partial)),
        None if matches!(state.format, LineFormat::Raw) => state.suffixes.raw().clone(),
        None => state.suffixes.malformed().clone(),
    };
    let base = state.suffixes.with_odd_time(base, odd_time);
    // A whole line that only lacks its newline is a record like any other.
    let is_split = line.emitted_bytes > 0 || piece.len() < body.len();
    let suffix = if is_split {
        counts.split += 1;
        state.suffixes.with_chunk_offset(&base, line.emitted_bytes)
    } else {
        base
    };
    // A fragment that lacks its newline lacks those behind it, too, as far as anybody knows now.
    let is_end = !is_begun && piece.len() == body.len();
    let suffix = if line.partial && is_end { state.suffixes.with_partial(&suffix) } else { suffix };
    // Even the whole line may come with more behind it, when it is read again.
    let file = state.suffixes.file();
    let suffix = state.suffixes.with_cut_uid(suffix, file, chunk.offset, piece);
    let content = classify(piece, false, counts);
    put_log_record(&mut batch.records, line.time_unix_nano, content, &suffix);
    batch.record_count += 1;
    counts.records += 1;
    line.emitted_bytes += piece.len() as u64;
    let consumed = header_bytes + piece.len();
    batch.cover(chunk.range(0, consumed));
    (consumed, line)
}

/// Begins a line that has no end yet. What it goes on with leaves before it, so that the stream's
/// order is kept and its next line isn't joined to an older one.
fn begin_cri<'a>(
    cri: TimedLine<'a>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (Continuation, &'a [u8], Option<&'a [u8]>) {
    let TimedLine { line: cri, time } = cri;
    flush_partial(cri.stream, state, batch, counts, Flush::Piece);
    let line = Continuation {
        time_unix_nano: cri.time_unix_nano,
        stream: Some(cri.stream),
        partial: cri.is_partial(),
        emitted_bytes: state.partials.take_emitted(cri.stream),
    };
    (line, cri.body, time)
}

/// The same for a line of no format.
fn begin_raw<'a>(
    bytes: &'a [u8],
    state: &LineState,
    counts: &mut ParseCounts,
) -> (Continuation, &'a [u8], Option<&'a [u8]>) {
    if !matches!(state.format, LineFormat::Raw) {
        counts.malformed += 1;
    }
    let line = Continuation { time_unix_nano: 0, stream: None, partial: false, emitted_bytes: 0 };
    (line, bytes, None)
}

/// A docker line that only lacks its newline is whole: its object has an end. What may come behind it
/// is no part of it.
fn put_unended_docker(
    chunk: Chunk<'_>,
    fragment: Fragment<'_>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Continuation) {
    let bytes = chunk.bytes.len();
    let range = chunk.range(0, bytes);
    let open_bytes = state.partials.open_bytes(fragment.stream);
    if open_bytes + fragment.body.len() > state.body_bytes_max {
        flush_partial(fragment.stream, state, batch, counts, Flush::Piece);
    }
    // As a fragment, even if it is whole: read again with more behind it, it would be another record.
    if fragment.body.len() > state.body_bytes_max {
        put_long_fragment(fragment, range, state, batch, counts);
    } else {
        append_fragment(fragment, range, state, counts);
        if fragment.last {
            flush_partial(fragment.stream, state, batch, counts, Flush::Complete);
        }
    }
    let rest = Continuation { time_unix_nano: 0, stream: None, partial: false, emitted_bytes: 0 };
    (bytes, rest)
}

/// Room that [`parse_piece`] may need in a batch for a body of `body_bytes`, and for the open record
/// that may have to leave before it.
pub fn piece_record_bytes_max(state: &LineState, body_bytes: usize) -> usize {
    let open_bytes = [Stream::Stdout, Stream::Stderr].map(|one| state.partials.open_bytes(one));
    let open_bytes = open_bytes[0].max(open_bytes[1]);
    state.suffixes.record_bytes_max(body_bytes.min(state.body_bytes_max))
        + state.suffixes.record_bytes_max(open_bytes)
}

#[cfg(test)]
mod tests;
