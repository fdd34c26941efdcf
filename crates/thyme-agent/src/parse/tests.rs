//! Tests of the parser: a naive model of one container's lines is the oracle.

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value as AnyValue,
    logs::v1::{LogRecord, ScopeLogs},
};
use proptest::prelude::*;
use prost::Message;

use super::{
    suffix::TIME_ATTRIBUTE,
    uid::{FileDigits, UID_ATTRIBUTE},
    unended::{Continuation, end_line, parse_piece},
    *,
};
use crate::batch::BatchLimits;

mod cuts;
mod uids;

const AUTO: LineFormat =
    LineFormat::Container { format: ContainerFormat::Auto, add_metadata_from_filepath: true };

fn state(format: LineFormat, body_bytes_max: usize) -> LineState {
    LineState {
        cri: CriParser::default(),
        suffixes: Suffixes::new(&[]),
        partials: Partials::default(),
        format,
        body_bytes_max,
    }
}

fn batch() -> Batch {
    let mut batch = Batch::new(BatchLimits { bytes_max: 1 << 24, records_max: 1 << 20 });
    batch.begin_segment(0, 0);
    batch
}

fn records(batch: &Batch) -> Vec<LogRecord> {
    ScopeLogs::decode(&batch.records[..]).unwrap().log_records
}

fn body(record: &LogRecord) -> Vec<u8> {
    match record.body.as_ref().unwrap().value.as_ref().unwrap() {
        AnyValue::StringValue(text) => text.clone().into_bytes(),
        AnyValue::BytesValue(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

fn attribute(record: &LogRecord, key: &str) -> Option<String> {
    let found = record.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        AnyValue::StringValue(text) => text.clone(),
        AnyValue::IntValue(int) => int.to_string(),
        AnyValue::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    })
}

fn parse_all(text: &[u8], state: &mut LineState, batch: &mut Batch) -> (usize, ParseCounts) {
    let mut counts = ParseCounts::default();
    let chunk = Chunk { bytes: text, file: 1, offset: 0, utf8: std::str::from_utf8(text).is_ok() };
    let (consumed, stop) = parse_lines(chunk, state, batch, &mut counts);
    assert_eq!(stop, Stop::NoNewline);
    (consumed, counts)
}

/// What one line of a container says.
#[derive(Clone, Debug)]
enum Line {
    Cri { stderr: bool, partial: bool, body: Vec<u8> },
    Docker { stderr: bool, partial: bool, body: String },
    Junk(Vec<u8>),
}

fn any_line() -> impl Strategy<Value = Line> {
    let bytes =
        prop::collection::vec(any::<u8>().prop_map(|b| if b == b'\n' { 0 } else { b }), 0..40);
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), bytes.clone())
            .prop_map(|(stderr, partial, body)| Line::Cri { stderr, partial, body }),
        1 => (any::<bool>(), any::<bool>(), "\\PC{0,20}")
            .prop_map(|(stderr, partial, body)| Line::Docker { stderr, partial, body }),
        1 => bytes.prop_filter("must not parse", |junk| {
            CriParser::default().parse(junk).is_none() && junk.first() != Some(&b'{')
        }).prop_map(Line::Junk),
    ]
}

fn write_line(line: &Line, out: &mut Vec<u8>) {
    const TIME: &str = "2024-02-29T23:59:59.5Z";
    let name = |stderr: bool| if stderr { "stderr" } else { "stdout" };
    match line {
        Line::Cri { stderr, partial, body } => {
            let tag = if *partial { 'P' } else { 'F' };
            out.extend_from_slice(format!("{TIME} {} {tag} ", name(*stderr)).as_bytes());
            out.extend_from_slice(body);
        }
        Line::Docker { stderr, partial, body } => {
            let log = if *partial { body.clone() } else { format!("{body}\n") };
            let object = serde_json::json!({"log": log, "stream": name(*stderr), "time": TIME});
            out.extend_from_slice(object.to_string().as_bytes());
        }
        Line::Junk(bytes) => out.extend_from_slice(bytes),
    }
    out.push(b'\n');
}

/// What is left of a line without the NULs that it begins with; nothing where that is nothing.
fn behind_nuls(line: &[u8]) -> Option<&[u8]> {
    let rest = line.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &line[at..]);
    (line.is_empty() || !rest.is_empty()).then_some(rest)
}

/// The oracle: bodies in the order in which their records end.
fn model(lines: &[Line]) -> Vec<Vec<u8>> {
    let mut open: [Option<Vec<u8>>; 2] = [None, None];
    let mut out = Vec::new();
    for line in lines {
        let (stderr, partial, body) = match line {
            Line::Cri { stderr, partial, body } => (*stderr, *partial, body.clone()),
            Line::Docker { stderr, partial, body } => {
                (*stderr, *partial, body.clone().into_bytes())
            }
            Line::Junk(bytes) => {
                out.extend(behind_nuls(bytes).map(<[u8]>::to_vec));
                continue;
            }
        };
        let mut whole = open[usize::from(stderr)].take().unwrap_or_default();
        whole.extend_from_slice(&body);
        if partial {
            open[usize::from(stderr)] = Some(whole);
        } else {
            out.push(whole);
        }
    }
    out
}

proptest! {
    /// Scenario: row 9. CRI and docker lines of two streams, whole and in fragments, between
    /// malformed ones, with any bytes in them; read at once, or cut anywhere.
    /// Guarantees: the bodies are the model's, byte by byte; each byte of the source is covered by
    /// the batch or held back by an open record, once; all records are counted.
    #[test]
    fn lines_join_as_in_the_model(
        lines in prop::collection::vec(any_line(), 0..30), cut in any::<prop::sample::Index>(),
    ) {
        let mut text = Vec::new();
        for line in &lines {
            write_line(line, &mut text);
        }
        let mut state = state(AUTO, 1 << 20);
        let mut batch = batch();
        let mut counts = ParseCounts::default();
        let mut offset = 0;
        for end in [cut.index(text.len() + 1), text.len()] {
            let bytes = &text[offset..end];
            let utf8 = std::str::from_utf8(bytes).is_ok();
            let chunk = Chunk { bytes, file: 1, offset: offset as u64, utf8 };
            let (consumed, stop) = parse_lines(chunk, &mut state, &mut batch, &mut counts);
            prop_assert_eq!(stop, Stop::NoNewline);
            offset += consumed;
        }
        prop_assert_eq!(offset, text.len());
        let found = records(&batch);
        prop_assert_eq!(found.iter().map(body).collect::<Vec<_>>(), model(&lines));
        for record in &found {
            let is_text = std::str::from_utf8(&body(record)).is_ok();
            let sent = record.body.as_ref().unwrap().value.as_ref().unwrap();
            prop_assert_eq!(is_text, matches!(sent, AnyValue::StringValue(_)));
        }
        let (open, held) = state.partials.queued();
        prop_assert_eq!(counts.records, batch.record_count + open as u64);
        prop_assert_eq!(text.len() as u64, batch.source_bytes + held as u64);
    }
}

/// Scenario: a chain of fragments longer than a record may be (row 11).
/// Guarantees: it leaves in pieces that carry their offsets and together are the whole body.
#[test]
fn long_chains_leave_in_pieces() {
    let mut state = state(AUTO, 100);
    let mut batch = batch();
    let mut text = Vec::new();
    for number in 0..10_u8 {
        let tag = if number == 9 { 'F' } else { 'P' };
        text.extend_from_slice(format!("2024-02-29T23:59:59.5Z stdout {tag} ").as_bytes());
        text.extend([b'a' + number; 40]);
        text.push(b'\n');
    }
    let (consumed, counts) = parse_all(&text, &mut state, &mut batch);
    assert_eq!(consumed, text.len());
    let found = records(&batch);
    let offsets: Vec<_> =
        found.iter().map(|record| attribute(record, "thyme.chunk.offset").unwrap()).collect();
    assert_eq!(offsets, ["0", "80", "160", "240", "320"]);
    let whole: Vec<u8> = found.iter().flat_map(body).collect();
    assert_eq!(whole.len(), 400);
    assert!(whole.is_sorted());
    assert_eq!((counts.records, counts.split), (5, 5));
    assert_eq!(batch.source_bytes, text.len() as u64);
}

/// Scenario: one complete line, then a malformed one, each longer than a record may be; the limit
/// falls inside a two-byte character.
/// Guarantees: pieces are cut between characters, stay text, and are together the whole body.
#[test]
fn long_lines_are_cut_between_characters() {
    for head in ["2024-02-29T23:59:59.5Z stdout F ", "junk "] {
        let mut state = state(AUTO, 101);
        let mut batch = batch();
        let content = "é".repeat(200);
        let text = format!("{head}{content}\n");
        parse_all(text.as_bytes(), &mut state, &mut batch);
        let found = records(&batch);
        assert!(found.len() >= 4);
        let whole: Vec<u8> = found
            .iter()
            .flat_map(|record| {
                let sent = record.body.as_ref().unwrap().value.as_ref().unwrap();
                assert!(matches!(sent, AnyValue::StringValue(_)));
                body(record)
            })
            .collect();
        assert!(String::from_utf8(whole).unwrap().ends_with(&content));
    }
}

/// Scenario: the batch fills up in the middle of a chunk.
/// Guarantees: parsing stops before the line that doesn't fit, and goes on with it afterwards.
#[test]
fn a_full_batch_stops_at_a_line() {
    let mut state = state(AUTO, 1 << 20);
    let mut batch = Batch::new(BatchLimits { bytes_max: 1 << 20, records_max: 3 });
    batch.begin_segment(0, 0);
    let line = b"2024-02-29T23:59:59.5Z stdout F x\n";
    let text = line.repeat(5);
    let mut counts = ParseCounts::default();
    let chunk = Chunk { bytes: &text, file: 1, offset: 10, utf8: true };
    let (consumed, stop) = parse_lines(chunk, &mut state, &mut batch, &mut counts);
    assert_eq!((consumed, stop), (3 * line.len(), Stop::BatchFull));
    assert_eq!(batch.ranges, [FileRange { file: 1, start: 10, end: 10 + consumed as u64 }]);
}

/// Scenario: a line of 1 MiB without a newline arrives in pieces (row 12), then its end.
/// Guarantees: every byte leaves, under the line's own time and stream, marked with its offset.
#[test]
fn endless_lines_leave_in_pieces() {
    let mut state = state(AUTO, 1_000);
    let mut batch = batch();
    let mut counts = ParseCounts::default();
    let text = [b"2024-02-29T23:59:59.5Z stderr F ".to_vec(), vec![b'x'; 2_500]].concat();
    let mut at = 0;
    let mut line = None;
    while at < text.len() {
        let chunk = Chunk { bytes: &text[at..], file: 1, offset: at as u64, utf8: false };
        let (consumed, next) = parse_piece(chunk, line, &mut state, &mut batch, &mut counts);
        at += consumed;
        line = Some(next);
    }
    let found = records(&batch);
    assert_eq!(
        found.iter().map(|record| body(record).len()).collect::<Vec<_>>(),
        [1000, 1000, 500]
    );
    for record in &found {
        assert_eq!(attribute(record, "log.iostream").as_deref(), Some("stderr"));
        assert_eq!(record.time_unix_nano, 1_709_251_199_500_000_000);
    }
    assert_eq!(batch.source_bytes, text.len() as u64);
}

/// Scenario: one fragment of a chain is longer than a record may be.
/// Guarantees: no record is longer than its limit; the pieces carry their offsets; the fragment leaves
/// as a whole, since a part of it that left alone would come again after a start.
#[test]
fn a_fragment_longer_than_a_record_leaves_in_pieces() {
    let mut state = state(AUTO, 100);
    let mut batch = batch();
    let head = "2024-02-29T23:59:59.5Z stdout";
    let text = format!("{head} P {}\n{head} P {}\n", "a".repeat(10), "b".repeat(250));
    let (_, counts) = parse_all(text.as_bytes(), &mut state, &mut batch);
    assert_eq!(state.partials.queued(), (0, 0));
    let found = records(&batch);
    let pieces: Vec<_> = found
        .iter()
        .map(|record| (body(record).len(), attribute(record, "thyme.chunk.offset").unwrap()))
        .collect();
    let expected = [(10, 0), (100, 10), (100, 110), (50, 210)];
    assert_eq!(pieces, expected.map(|(bytes, offset)| (bytes, offset.to_string())));
    assert_eq!(counts.records, 4);
    assert_eq!(batch.source_bytes, text.len() as u64);
}

/// Scenario: a fragment whose pieces are alike, read with an identity in each record.
/// Guarantees: no two pieces have the same one, or a sink would take one for the other's repetition.
#[test]
fn pieces_of_a_fragment_are_told_apart() {
    let mut state = state(AUTO, 100);
    state.suffixes = Suffixes::new(&[]).with_uid();
    let mut batch = batch();
    let text = format!("2024-02-29T23:59:59.5Z stdout P {}\n", "x".repeat(400));
    let (_, mut counts) = parse_all(text.as_bytes(), &mut state, &mut batch);
    flush_partial(Stream::Stdout, &mut state, &mut batch, &mut counts, Flush::Ended);
    let uids: std::collections::BTreeSet<_> =
        records(&batch).iter().map(|record| attribute(record, UID_ATTRIBUTE).unwrap()).collect();
    assert_eq!((uids.len(), batch.record_count), (4, 4));
}

/// Scenario: the last fragment of a record has no newline yet and isn't waited for; then a whole line
/// follows.
/// Guarantees: what was open leaves first, the fragment goes on from there, and the line that
/// follows is a record of its own.
#[test]
fn a_line_without_its_end_goes_on_with_the_open_record() {
    let mut state = state(AUTO, 1_000);
    let mut batch = batch();
    let head = "2024-02-29T23:59:59.5Z stdout";
    let begun = format!("{head} P one\n");
    let (at, mut counts) = parse_all(begun.as_bytes(), &mut state, &mut batch);
    let open = format!("{head} F two");
    let chunk = Chunk { bytes: open.as_bytes(), file: 1, offset: at as u64, utf8: false };
    let (_, line) = parse_piece(chunk, None, &mut state, &mut batch, &mut counts);
    assert_eq!(line.emitted_bytes, 6);
    parse_all(format!("{head} F three\n").as_bytes(), &mut state, &mut batch);
    let found: Vec<_> = records(&batch)
        .iter()
        .map(|record| {
            let text = String::from_utf8(body(record)).unwrap();
            (text, attribute(record, "thyme.chunk.offset"))
        })
        .collect();
    let expected = [("one", Some("0")), ("two", Some("3")), ("three", None)]
        .map(|(text, offset)| (text.to_owned(), offset.map(str::to_owned)));
    assert_eq!(found, expected);
}

/// Scenario: a record whose tags are as long as they are shown, and no UTF-8, that is a piece without
/// an end.
/// Guarantees: it fits the room that is made for it in the batch.
#[test]
fn marks_of_odd_tags_fit_their_room() {
    let mut state = state(AUTO, 1_000);
    let mut batch = batch();
    let mut text = b"2024-02-29T23:59:59.5Z stdout P:".to_vec();
    text.extend([0xff; 40]);
    text.extend_from_slice(b" x\n");
    let (_, mut counts) = parse_all(&text, &mut state, &mut batch);
    flush_partial(Stream::Stdout, &mut state, &mut batch, &mut counts, Flush::Ended);
    let ended = state.suffixes.of(Stream::Stdout, Marker::Tags(&[0xff; 40]));
    let marked = state.suffixes.with_chunk_offset(&state.suffixes.with_partial(&ended), u64::MAX);
    let mut longest = Vec::new();
    put_log_record(&mut longest, u64::MAX, Body::Bytes(b"x"), &marked);
    for bytes in [batch.records.len(), longest.len()] {
        assert!(bytes <= state.suffixes.record_bytes_max(1), "{bytes}");
    }
}

/// Scenario: a container ends after a fragment (row 10).
/// Guarantees: the fragment leaves, marked as partial.
#[test]
fn an_ended_partial_leaves_marked() {
    let mut state = state(AUTO, 1_000);
    let mut batch = batch();
    parse_all(b"2024-02-29T23:59:59.5Z stdout P tail\n", &mut state, &mut batch);
    assert!(batch.is_empty());
    let mut counts = ParseCounts::default();
    flush_partial(Stream::Stdout, &mut state, &mut batch, &mut counts, Flush::Ended);
    let found = records(&batch);
    assert_eq!(body(&found[0]), b"tail");
    assert_eq!(attribute(&found[0], "logtag").as_deref(), Some("P"));
    assert_eq!(attribute(&found[0], "thyme.partial").as_deref(), Some("true"));
}

/// Scenario: the same lines read as plain text, without the container operator.
/// Guarantees: each line is a record as it is.
#[test]
fn raw_lines_are_left_alone() {
    let mut state = state(LineFormat::Raw, 1_000);
    let mut batch = batch();
    parse_all(b"2024-02-29T23:59:59.5Z stdout P tail\n {\r\n\n", &mut state, &mut batch);
    let bodies: Vec<_> = records(&batch).iter().map(body).collect();
    assert_eq!(bodies, [&b"2024-02-29T23:59:59.5Z stdout P tail"[..], b" {\r", b""]);
}

/// Bodies, times and marks of all records of a batch.
fn told(batch: &Batch) -> Vec<(String, u64, Option<String>, Option<String>)> {
    let told = |record: &LogRecord| {
        (
            String::from_utf8_lossy(&body(record)).into_owned(),
            record.time_unix_nano,
            attribute(record, "log.iostream"),
            attribute(record, TIME_ATTRIBUTE),
        )
    };
    records(batch).iter().map(told).collect()
}

/// Scenario: tags that are neither `F` nor `P`, and none at all, between usual lines.
/// Guarantees: each is a whole line with its tags as they are.
#[test]
fn unknown_tags_are_whole_lines() {
    let text = b"2024-02-29T23:59:59Z stdout X one\n2024-02-29T23:59:59Z stdout F two\n\
        2024-02-29T23:59:59Z stderr X:P three\n2024-02-29T23:59:59Z stdout  four\n";
    let (mut state, mut batch) = (state(AUTO, 1_000), batch());
    let (_, counts) = parse_all(text, &mut state, &mut batch);
    assert_eq!((counts.records, counts.malformed), (4, 0));
    let found: Vec<_> = records(&batch)
        .iter()
        .map(|record| (body(record), attribute(record, "logtag").unwrap()))
        .collect();
    let expected = [("one", "X"), ("two", "F"), ("three", "X:P"), ("four", "")];
    assert_eq!(found, expected.map(|(body, tag)| (body.as_bytes().to_vec(), tag.to_owned())));
}

/// Scenario: times that no record can carry, on a whole line, on fragments, on a line without its end, and
/// on docker's; with a body that is split.
/// Guarantees: stream and body are there, the time is unknown or the end of the second before, and stands
/// beside it as written. A record has the time of its first fragment.
#[test]
fn times_that_no_record_can_carry_are_marked() {
    let text = b"1969-12-31T23:59:59Z stdout F early\n\
        9999-12-31T23:59:59Z stderr P la\n2024-02-29T23:59:59Z stderr F te\n\
        {\"log\":\"leap\\n\",\"stream\":\"stdout\",\"time\":\"2016-12-31T23:59:60Z\"}\n";
    let (mut state, mut batch) = (state(AUTO, 1_000), batch());
    let (_, counts) = parse_all(text, &mut state, &mut batch);
    assert_eq!((counts.records, counts.malformed), (3, 0));
    let end = b"2024-02-30T00:00:00Z stdout F end";
    let chunk = Chunk { bytes: end, file: 1, offset: 0, utf8: false };
    parse_piece(chunk, None, &mut state, &mut batch, &mut ParseCounts::default());
    let line = |body: &str, unix_nano: u64, stream: &str, time: &str| {
        (body.to_owned(), unix_nano, Some(stream.to_owned()), Some(time.to_owned()))
    };
    let expected = [
        line("early", 0, "stdout", "1969-12-31T23:59:59Z"),
        line("late", 0, "stderr", "9999-12-31T23:59:59Z"),
        line("leap", 1_483_228_799_999_999_999, "stdout", "2016-12-31T23:59:60Z"),
        line("end", 0, "stdout", "2024-02-30T00:00:00Z"),
    ];
    assert_eq!(told(&batch), expected);
}

/// Scenario: a docker line without its newline: whole, a fragment, the end of an open line, one that is
/// longer than a record may be, and half of one; its newline follows.
/// Guarantees: those with an end have body, stream and time; half of one is raw.
#[test]
fn a_docker_line_needs_no_newline() {
    let line = |log: &str| {
        format!(r#"{{"log":"{log}","stream":"stderr","time":"2024-02-29T23:59:59.5Z"}}"#)
    };
    let (mut state, mut batch) = (state(AUTO, 20), batch());
    let mut counts = ParseCounts::default();
    let mut piece = |text: &str, state: &mut LineState, batch: &mut Batch| {
        let chunk = Chunk { bytes: text.as_bytes(), file: 1, offset: 0, utf8: false };
        parse_piece(chunk, None, state, batch, &mut counts)
    };
    for log in [r"whole\n", "begun ", r"ended\n", r"0123456789012345678901234\n"] {
        let text = line(log);
        let (consumed, rest) = piece(&text, &mut state, &mut batch);
        assert_eq!((consumed, rest.stream, rest.emitted_bytes), (text.len(), None, 0));
    }
    let half = &line("half")[..14];
    assert_eq!(piece(half, &mut state, &mut batch).0, 14);
    assert_eq!((counts.malformed, counts.records), (1, 5));
    let bodies: Vec<_> = told(&batch).into_iter().map(|one| (one.0, one.1, one.2)).collect();
    let told = |body: &str| (body.to_owned(), 1_709_251_199_500_000_000, Some("stderr".to_owned()));
    assert_eq!(bodies[..2], [told("whole"), told("begun ended")]);
    assert_eq!(bodies[2..4], [told("01234567890123456789"), told("01234")]);
    assert_eq!(bodies[4], (half.to_owned(), 0, None));
}

/// Scenario: runs of NULs before a whole line, a fragment, a docker line and an empty line, and within a
/// body; of every format.
/// Guarantees: those before a line belong to none and are counted, the line is read; those within stay.
/// All bytes are covered.
#[test]
fn nuls_before_a_line_are_skipped() {
    let docker = r#"{"log":"c\n","stream":"stdout","time":"2024-02-29T23:59:59.5Z"}"#;
    let text = format!(
        "\0\0\02024-02-29T23:59:59Z stdout F a\0b\n\0{docker}\n\0\0\n\
         2024-02-29T23:59:59Z stderr F d\n\0\02024-02-29T23:59:59Z stdout P e\n\
         \02024-02-29T23:59:59Z stdout F f\n"
    );
    for format in [AUTO, LineFormat::Raw] {
        let (mut state, mut batch) = (state(format, 1_000), batch());
        let (consumed, counts) = parse_all(text.as_bytes(), &mut state, &mut batch);
        assert_eq!((consumed, batch.source_bytes), (text.len(), text.len() as u64));
        assert_eq!((counts.skipped_nuls, counts.malformed), (9, 0));
        let found: Vec<_> = told(&batch).into_iter().map(|one| one.0).collect();
        if format == AUTO {
            assert_eq!(found, ["a\0b", "c", "d", "ef"]);
        } else {
            assert_eq!(found.len(), 5);
            assert_eq!(found[1], docker);
        }
        let mut ranges = batch.ranges.clone();
        ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in ranges {
            assert_eq!(range.start, end);
            end = range.end;
        }
    }
}

/// Scenario: files that begin with a byte order mark, NULs, both, or something alike; the same in their
/// middle.
/// Guarantees: a mark is no part of a line at the very start only; NULs are none anywhere.
#[test]
fn what_stands_before_a_line_is_known() {
    let mark = "\u{feff}";
    for (text, at_start, later) in [
        ("line", 0, 0),
        (&*format!("{mark}line"), 3, 0),
        (&format!("{mark}\0\0line"), 5, 0),
        (&format!("\0{mark}line"), 1, 1),
        ("\0\0", 2, 2),
        ("", 0, 0),
    ] {
        assert_eq!(bytes_before_line(text.as_bytes(), 0), at_start, "{text:?}");
        assert_eq!(bytes_before_line(text.as_bytes(), 7), later, "{text:?}");
    }
    assert_eq!(bytes_before_line(b"\xef\xbbx", 0), 0);
}
