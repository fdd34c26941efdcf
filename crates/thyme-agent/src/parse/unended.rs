//! Lines without their newline, which are longer than may be waited for, or were waited for long enough: they
//! leave in pieces, and go on when more of them comes.

use std::borrow::Cow;

use thyme_core::{cri::Stream, otlp::encode::put_log_record};

use super::{
    Chunk, Flush, Fragment, LineState, ParseCounts, RuntimeLine, TimedLine, append_at, classify,
    cut::{piece_end, unfinished_bytes},
    flush_begun, flush_partial, join_fragment, may_be_docker,
    partial::{LineTime, Partials},
    read_line,
    suffix::Marker,
};
use crate::{
    batch::{Batch, Room},
    config::LineFormat,
};

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
    /// Of a line that has no stream.
    const RAW: Self = Self { time_unix_nano: 0, stream: None, partial: false, emitted_bytes: 0 };

    /// The line's newline came, or never will: after a fragment, its stream's next line goes on with it.
    pub fn end(self, partials: &mut Partials) {
        if let Some(stream) = self.stream.filter(|_| self.partial) {
            partials.go_on(stream, self.emitted_bytes);
        }
    }
}

/// How much of a line without its newline may leave before the end of its last character is there. `is_begun`:
/// a part of the line has left.
pub fn whole_bytes(bytes: &[u8], is_begun: bool, state: &mut LineState) -> usize {
    let parsed = if is_begun { None } else { read_line(bytes, state) };
    let (body, unfinished) = match parsed {
        Some(RuntimeLine::Docker(_)) => return bytes.len(),
        Some(RuntimeLine::Cri(cri)) => {
            let body = cri.line.body;
            // A character that the fragment before begins may not end here either.
            let begun = state.partials.unfinished(cri.line.stream);
            let mut joined = [0; 6];
            joined[..begun.len()].copy_from_slice(begun);
            let joined = &mut joined[..begun.len() + body.len().min(3)];
            joined[begun.len()..].copy_from_slice(&body[..body.len().min(3)]);
            let is_short = body.len() < 3;
            (body, unfinished_bytes(if is_short { joined } else { body }))
        }
        None => (bytes, unfinished_bytes(bytes)),
    };
    match unfinished {
        0 => bytes.len(),
        unfinished if unfinished >= body.len() => 0,
        unfinished => bytes.len() - unfinished,
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
                // A docker line that only lacks its newline is whole: its object has an end. What may come
                // behind it is no part of it. It goes as a fragment, even if it is whole: read again with
                // more behind it, it would be another record.
                let bytes = chunk.bytes.len();
                let fragment = docker.fragment(bytes);
                join_fragment(fragment, chunk.range(0, bytes), state, batch, counts);
                return (bytes, Continuation::RAW);
            }
            Some(RuntimeLine::Cri(cri)) => {
                // What the line goes on with leaves before it, so that the stream's order is kept and its
                // next line isn't joined to an older one.
                flush_begun(cri.line.stream, state, batch, counts);
                if state.partials.is_open(cri.line.stream) {
                    return end_character(cri, chunk, state, batch, counts);
                }
                begin_cri(cri, &mut state.partials)
            }
            None => begin_raw(chunk.bytes, state, counts),
        },
    };
    let header_bytes = chunk.bytes.len() - body.len();
    let piece = &body[..piece_end(body, state.body_bytes_max)];
    let base = match line.stream {
        Some(stream) => state.suffixes.of(stream, Marker::partial_or_full(line.partial)),
        None if matches!(state.format, LineFormat::Raw) => Cow::Borrowed(state.suffixes.raw()),
        None => Cow::Borrowed(state.suffixes.malformed()),
    };
    let base = state.suffixes.with_odd_time(base, odd_time);
    // A whole line that only lacks its newline is a record like any other.
    let is_split = line.emitted_bytes > 0 || piece.len() < body.len();
    let suffix = if is_split {
        counts.split += 1;
        Cow::Owned(state.suffixes.with_chunk_offset(&base, line.emitted_bytes))
    } else {
        base
    };
    // A fragment that lacks its newline lacks those behind it, too, as far as anybody knows now.
    let is_end = !is_begun && piece.len() == body.len();
    let suffix = if line.partial && is_end {
        Cow::Owned(state.suffixes.with_partial(&suffix))
    } else {
        suffix
    };
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

fn begin_cri<'a>(
    cri: TimedLine<'a>,
    partials: &mut Partials,
) -> (Continuation, &'a [u8], Option<&'a [u8]>) {
    let TimedLine { line: cri, time } = cri;
    let line = Continuation {
        time_unix_nano: cri.time_unix_nano,
        stream: Some(cri.stream),
        partial: cri.is_partial(),
        emitted_bytes: partials.take_emitted(cri.stream),
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
    (Continuation::RAW, bytes, None)
}

/// Begins a CRI line whose fragment before has left but for the beginning of a character: both leave as one
/// piece.
fn end_character(
    cri: TimedLine<'_>,
    chunk: Chunk<'_>,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) -> (usize, Continuation) {
    let (stream, body) = (cri.line.stream, cri.line.body);
    let bytes_max = state.body_bytes_max - state.partials.open_bytes(stream);
    let piece = &body[..piece_end(body, bytes_max)];
    let consumed = chunk.bytes.len() - body.len() + piece.len();
    let parsed = RuntimeLine::Cri(cri);
    let fragment = Fragment { body: piece, ..parsed.fragment(chunk.bytes.len()) };
    let (unix_nano, partial) = (fragment.time.unix_nano, !fragment.last);
    append_at(chunk.offset, fragment, chunk.range(0, consumed), state, counts);
    flush_partial(stream, state, batch, counts, Flush::Released);
    let emitted_bytes = state.partials.take_emitted(stream);
    let line =
        Continuation { time_unix_nano: unix_nano, stream: Some(stream), partial, emitted_bytes };
    (consumed, line)
}

/// The rest of a line that left in part: `chunk` ends with its newline.
pub fn end_line(
    chunk: Chunk<'_>,
    begun: Continuation,
    state: &mut LineState,
    batch: &mut Batch,
    counts: &mut ParseCounts,
) {
    let bytes = chunk.bytes.len() - 1;
    let rest = &chunk.bytes[..bytes];
    let stream = begun.stream.filter(|_| begun.partial);
    let whole_bytes = stream.map_or(bytes, |_| bytes - unfinished_bytes(rest));
    let (mut at, mut line) = (0, begun);
    while at < whole_bytes {
        let offset = chunk.offset + at as u64;
        let piece = Chunk { bytes: &rest[at..whole_bytes], offset, ..chunk };
        let (consumed, next) = parse_piece(piece, Some(line), state, batch, counts);
        at += consumed;
        line = next;
    }
    line.end(&mut state.partials);
    let range = chunk.range(whole_bytes, bytes + 1);
    let Some(stream) = stream.filter(|_| whole_bytes < bytes) else {
        batch.cover(range);
        return;
    };
    // The stream's next fragment ends the character.
    let fragment = Fragment {
        time: LineTime { unix_nano: line.time_unix_nano, odd: None },
        stream,
        marker: Marker::partial_or_full(true),
        last: false,
        body: &rest[whole_bytes..],
        skipped: 0,
    };
    append_at(range.start, fragment, range, state, counts);
}

/// Room that [`parse_piece`] may need in a batch for these bytes, which begin a line or go on with one, and for
/// the open record that may have to leave before them.
pub fn room_for_piece(bytes: &[u8], is_begun: bool, state: &LineState) -> Room {
    let open_bytes = [Stream::Stdout, Stream::Stderr].map(|one| state.partials.open_bytes(one));
    // Docker's leave whole, any other line piece by piece.
    let is_whole = !is_begun && may_be_docker(bytes, state.format);
    let body_bytes = if is_whole { bytes.len() } else { bytes.len().min(state.body_bytes_max) };
    let open = state.room_for(open_bytes[0].max(open_bytes[1]));
    let own = state.room_for(body_bytes);
    Room { records: open.records + own.records, bytes: open.bytes + own.bytes }
}

/// Room that [`end_line`] may need in a batch for the rest of a line.
pub fn room_for_end(rest_bytes: usize, state: &LineState) -> Room {
    state.room_for(rest_bytes)
}
