//! Tests of where text is cut: whatever the borders of fragments, reads and pauses are, the pieces are the text,
//! and none ends within a character.

use super::*;
use crate::parse::unended::{room_for_end, room_for_piece, whole_bytes};

/// How the runtime writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Raw,
    Cri,
    Docker,
}

/// What happens while a fragment is written.
#[derive(Clone, Debug)]
struct Timing {
    /// Its line is waited for there, within its text.
    waits: Vec<prop::sample::Index>,
    /// The next one is waited for, too.
    waits_behind: bool,
}

/// One file, read as it is written.
struct Reader {
    state: LineState,
    batch: Batch,
    counts: ParseCounts,
    file: Vec<u8>,
    at: usize,
    begun: Option<Continuation>,
}

impl Reader {
    /// What was put into the batch since took no more room than was asked for.
    fn check_room(&self, before: (u64, usize), room: Room) {
        let records = self.batch.record_count - before.0;
        let bytes = self.batch.records.len() - before.1;
        assert!(records <= room.records && bytes <= room.bytes, "{records}, {bytes}: {room:?}");
    }

    fn taken(&self) -> (u64, usize) {
        (self.batch.record_count, self.batch.records.len())
    }

    /// What there is of a line has been waited for.
    fn wait(&mut self, bytes: &[u8]) {
        self.file.extend_from_slice(bytes);
        loop {
            let (rest, is_begun) = (&self.file[self.at..], self.begun.is_some());
            let end = self.at + whole_bytes(rest, is_begun, &mut self.state);
            if end == self.at {
                return;
            }
            let chunk = Chunk {
                bytes: &self.file[self.at..end],
                file: 1,
                offset: self.at as u64,
                utf8: false,
            };
            let room = room_for_piece(chunk.bytes, is_begun, &self.state);
            let before = self.taken();
            let (begun, counts) = (self.begun, &mut self.counts);
            let (consumed, line) =
                parse_piece(chunk, begun, &mut self.state, &mut self.batch, counts);
            self.check_room(before, room);
            self.at += consumed;
            self.begun = Some(line);
        }
    }

    /// The line ends.
    fn end(&mut self, bytes: &[u8]) {
        self.file.extend_from_slice(bytes);
        self.file.push(b'\n');
        let bytes = &self.file[self.at..];
        let chunk = Chunk { bytes, file: 1, offset: self.at as u64, utf8: false };
        match self.begun.take() {
            Some(begun) => {
                let (room, before) = (room_for_end(bytes.len(), &self.state), self.taken());
                end_line(chunk, begun, &mut self.state, &mut self.batch, &mut self.counts);
                self.check_room(before, room);
            }
            None => {
                let (state, batch) = (&mut self.state, &mut self.batch);
                let (consumed, _) = parse_lines(chunk, state, batch, &mut self.counts);
                assert_eq!(consumed, bytes.len());
            }
        }
        self.at = self.file.len();
    }

    /// The stream's next fragment has been waited for.
    fn pause(&mut self) {
        if !self.state.partials.is_within_character(Stream::Stdout) {
            let (state, batch) = (&mut self.state, &mut self.batch);
            flush_partial(Stream::Stdout, state, batch, &mut self.counts, Flush::Paused);
        }
    }
}

/// Scenario: row 12. Short lines, and one that is split into very many pieces: whole, or with its beginning
/// open; the limit on a batch is one of bytes or of records.
/// Guarantees: no batch is longer than it may be because of pieces that leave together, and every line comes.
#[test]
fn the_pieces_of_a_line_find_room_together() {
    let docker =
        LineFormat::Container { format: ContainerFormat::Docker, add_metadata_from_filepath: true };
    let cri = |tag: &str, body: &str| format!("2024-02-29T23:59:59.5Z stdout {tag} {body}\n");
    let json = |end: &str, body: &str| {
        format!(
            "{{\"log\":\"{body}{end}\",\"stream\":\"stdout\",\"time\":\"2024-02-29T23:59:59.5Z\"}}\n"
        )
    };
    let (long, begin) = ("a".repeat(5_000), "b".repeat(90));
    let raw = format!("{}{long}\n", "short\n".repeat(40));
    let malformed = format!("{}{long}\n", cri("F", "short").repeat(40));
    let whole = format!("{}{}", cri("F", "short").repeat(40), cri("F", &long));
    let begun = format!("{}{}{}", cri("F", "short").repeat(40), cri("P", &begin), cri("F", &long));
    let docker_whole = format!("{}{}", json("\\n", "short").repeat(40), json("\\n", &long));
    let docker_begun = format!("{}{}", docker_whole.replace("\\n", ""), json("\\n", "end"));
    let cases = [
        (LineFormat::Raw, raw),
        (AUTO, malformed),
        (AUTO, whole),
        (AUTO, begun),
        (docker, docker_whole),
        (docker, docker_begun),
    ];
    for (format, text) in cases {
        for limits in [
            BatchLimits { bytes_max: 10_000, records_max: u64::MAX },
            BatchLimits { bytes_max: usize::MAX, records_max: 60 },
        ] {
            let (mut state, mut batch) = (state(format, 100), Batch::new(limits));
            let (mut at, mut counts, mut taken) = (0, ParseCounts::default(), 0);
            loop {
                batch.begin_segment(0, 0);
                let bytes = &text.as_bytes()[at..];
                let chunk = Chunk { bytes, file: 1, offset: at as u64, utf8: true };
                let (consumed, stop) = parse_lines(chunk, &mut state, &mut batch, &mut counts);
                at += consumed;
                let (records, bytes) = (batch.record_count, batch.records.len());
                assert!(records <= limits.records_max && bytes <= limits.bytes_max, "{format:?}");
                taken += records;
                if stop == Stop::NoNewline {
                    break;
                }
                batch = Batch::new(limits);
            }
            assert_eq!((at, counts.records), (text.len(), taken));
        }
    }
}

/// Text as programs write it, with characters of every length, and now and then no text.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let characters = prop::collection::vec(
        prop::sample::select(vec!['a', 'é', '\u{7ff}', '€', '\u{ffff}', '😀', '\u{10ffff}']),
        1..60,
    );
    let bytes = prop_oneof![b' '..=255_u8, 0x80..=0xbf_u8, 0xe0..=0xf4_u8];
    prop_oneof![
        4 => characters.prop_map(|text| text.into_iter().collect::<String>().into_bytes()),
        1 => prop::collection::vec(bytes, 1..60),
    ]
}

fn any_timing() -> impl Strategy<Value = Timing> {
    let waits = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (waits, any::<bool>()).prop_map(|(waits, waits_behind)| Timing { waits, waits_behind })
}

/// Where fragments of a text begin, and its end.
fn borders_of(form: Form, text: &[u8], drawn: &[prop::sample::Index]) -> Vec<usize> {
    // A raw line has one.
    let drawn = if form == Form::Raw { &[] } else { drawn };
    let mut borders: Vec<_> = drawn.iter().map(|border| border.index(text.len() + 1)).collect();
    if form == Form::Docker {
        let text = std::str::from_utf8(text).unwrap();
        borders.iter_mut().for_each(|border| *border = text.floor_char_boundary(*border));
    }
    borders.extend([0, text.len()]);
    borders.sort_unstable();
    borders
}

/// A line of a file that has this text, and the bytes in front of it that nobody waits within.
fn line_of(form: Form, body: &[u8], is_last: bool) -> (Vec<u8>, usize) {
    match form {
        Form::Raw => (body.to_vec(), 0),
        Form::Cri => {
            let tag = if is_last { 'F' } else { 'P' };
            let header = format!("2024-02-29T23:59:59.5Z stdout {tag} ").into_bytes();
            ([&header[..], body].concat(), header.len())
        }
        Form::Docker => {
            let body = std::str::from_utf8(body).unwrap().to_owned();
            let body = if is_last { body + "\n" } else { body };
            let time = "2024-02-29T23:59:59.5Z";
            let line = serde_json::json!({"log": body, "stream": "stdout", "time": time});
            let line = line.to_string().into_bytes();
            let bytes = line.len();
            (line, bytes)
        }
    }
}

proptest! {
    /// Scenario: rows 11 and 12. One line of text, or of what is no text: raw, CRI's or docker's. It is cut into
    /// fragments, some of them longer than a record may be, anywhere; a fragment is waited for in vain
    /// within its text, before its newline, and behind it.
    /// Guarantees: the pieces joined are the text, and each says where it begins; none is longer than a
    /// record may be; each piece of text is text. Each byte of the file is covered once, by pieces in
    /// the order of the text, and nothing stays open.
    #[test]
    fn text_is_cut_between_characters(
        text in any_text(), form in prop::sample::select(vec![Form::Raw, Form::Cri, Form::Docker]),
        borders in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        timings in prop::collection::vec(any_timing(), 7), body_bytes_max in 4..40_usize,
    ) {
        let text = match form {
            // Docker makes text of everything.
            Form::Docker => String::from_utf8_lossy(&text).into_owned().into_bytes(),
            Form::Raw | Form::Cri => text,
        };
        let borders = borders_of(form, &text, &borders);
        let format = if form == Form::Raw { LineFormat::Raw } else { AUTO };
        let mut reader = Reader {
            state: state(format, body_bytes_max),
            batch: batch(),
            counts: ParseCounts::default(),
            file: Vec::new(),
            at: 0,
            begun: None,
        };
        let count = borders.len() - 1;
        for (index, timing) in timings.iter().enumerate().take(count) {
            let body = &text[borders[index]..borders[index + 1]];
            let is_last = index + 1 == count;
            let (line, header_bytes) = line_of(form, body, is_last);
            let mut waits: Vec<_> = timing
                .waits
                .iter()
                .map(|wait| header_bytes + wait.index(line.len() - header_bytes + 1))
                .collect();
            waits.sort_unstable();
            let mut written = 0;
            for wait in waits {
                reader.wait(&line[written..wait]);
                written = wait;
            }
            reader.end(&line[written..]);
            if timing.waits_behind && !is_last {
                reader.pause();
            }
        }
        let is_text = std::str::from_utf8(&text).is_ok();
        let mut offset = 0;
        for record in &records(&reader.batch) {
            let piece = body(record);
            prop_assert_eq!(&text[offset..offset + piece.len()], &piece[..]);
            prop_assert!(piece.len() <= body_bytes_max);
            let sent = record.body.as_ref().unwrap().value.as_ref().unwrap();
            prop_assert!(!is_text || matches!(sent, AnyValue::StringValue(_)), "{:?}", sent);
            let said = attribute(record, "thyme.chunk.offset");
            prop_assert!(said == Some(offset.to_string()) || (said.is_none() && offset == 0));
            offset += piece.len();
        }
        prop_assert_eq!(offset, text.len());
        prop_assert_eq!(reader.state.partials.queued(), (0, 0));
        prop_assert_eq!(reader.counts.records, reader.batch.record_count);
        let mut ranges = reader.batch.ranges.clone();
        ranges.sort_by_key(|range| range.start);
        let mut covered = 0;
        for range in ranges {
            prop_assert_eq!(range.start, covered);
            covered = range.end;
        }
        prop_assert_eq!(covered, reader.file.len() as u64);
    }
}

/// Scenario: row 11. A line of CRI is longer than a record may be, and the limit is a multiple of its fragments',
/// as containerd's and the default one are; fragments end within a character.
/// Guarantees: of the last fragment of a piece, the beginning of that character is covered by the next piece, with
/// the newline: no piece is settled by what another holds.
#[test]
fn a_character_is_covered_by_the_piece_that_has_it() {
    let (mut state, mut batch) = (state(AUTO, 64), batch());
    state.suffixes = Suffixes::new(&[]).with_uid();
    let content = "€".repeat(40);
    let mut text = Vec::new();
    for (index, body) in content.as_bytes().chunks(16).enumerate() {
        let tag = if index == 7 { 'F' } else { 'P' };
        text.extend_from_slice(format!("2024-02-29T23:59:59.5Z stdout {tag} ").as_bytes());
        text.extend_from_slice(body);
        text.push(b'\n');
    }
    batch.span_bytes = 0;
    let (consumed, counts) = parse_all(&text, &mut state, &mut batch);
    assert_eq!((consumed, batch.source_bytes), (text.len(), text.len() as u64));
    assert_eq!((counts.records, counts.invalid_utf8), (2, 0));
    let bodies: Vec<_> = records(&batch).iter().map(|record| body(record).len()).collect();
    assert_eq!(bodies, [63, 57]);
    let fourth = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(3).unwrap().0;
    let ranges: Vec<_> = batch.ranges.iter().map(|range| (range.start, range.end)).collect();
    let cut = fourth as u64 - 1;
    assert_eq!(ranges, [(0, cut), (cut, text.len() as u64)]);
    let uid = attribute(&records(&batch)[1], UID_ATTRIBUTE).unwrap();
    assert_eq!(uid.split('-').nth(1), Some(&*format!("{cut:012x}")));
}
