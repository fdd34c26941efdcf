//! Tests of identities: a naive model says what each record's is, and readings of the same bytes
//! from different places are compared.

use std::collections::BTreeMap;

use super::*;

/// Two files of one container, the second after the first.
const FILES: [FileDigits; 2] = [*b"aaaaaaaaaaaaaaaaaaaaaaaa", *b"0123456789abcdef01234567"];

/// What a record is known by, and what it says.
type Identified = (String, Vec<u8>);

/// Reads `files` from `from` on, in its first file cut there and at `cut`, as after a start.
fn read(files: [&[u8]; 2], from: usize, cut: usize, body_bytes_max: usize) -> Vec<Identified> {
    let mut state = state(AUTO, body_bytes_max);
    state.suffixes = Suffixes::new(&[]).with_uid();
    let mut batch = batch();
    let mut counts = ParseCounts::default();
    for (index, (digits, text)) in FILES.iter().zip(files).enumerate() {
        let (mut offset, cut) = if index == 0 { (from, cut.max(from)) } else { (0, text.len()) };
        for end in [cut, text.len()] {
            state.suffixes.set_file(*digits);
            let bytes = &text[offset..end];
            let utf8 = std::str::from_utf8(bytes).is_ok();
            let chunk = Chunk { bytes, file: index as u32, offset: offset as u64, utf8 };
            let (consumed, _) = parse_lines(chunk, &mut state, &mut batch, &mut counts);
            offset += consumed;
        }
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        flush_partial(stream, &mut state, &mut batch, &mut counts, Flush::Ended);
    }
    identified(&batch)
}

fn identified(batch: &Batch) -> Vec<Identified> {
    let found = records(batch);
    found
        .iter()
        .map(|record| {
            let last = record.attributes.last().unwrap();
            assert_eq!(last.key, UID_ATTRIBUTE);
            (attribute(record, UID_ATTRIBUTE).unwrap(), body(record))
        })
        .collect()
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

/// Where a record begins, and its body so far.
type Open = Option<(usize, usize, Vec<u8>)>;

/// The oracle: the records of whole lines and joined ones, in the order in which they end.
fn model(files: [&[Line]; 2]) -> Vec<Identified> {
    let name = |file: usize| std::str::from_utf8(&FILES[file]).unwrap();
    let whole = |file: usize, start: usize| format!("{}-{start:012x}", name(file));
    let joined = |(file, start, body): (usize, usize, Vec<u8>)| {
        (format!("{}-{:08x}", whole(file, start), crc32(&body)), body)
    };
    let mut open: [Open; 2] = [None, None];
    let mut out = Vec::new();
    for (file, lines) in files.iter().enumerate() {
        let mut text = Vec::new();
        for line in *lines {
            let start = text.len();
            write_line(line, &mut text);
            let (stderr, partial, body) = match line {
                Line::Cri { stderr, partial, body } => (*stderr, *partial, body.as_slice()),
                Line::Docker { stderr, partial, body } => (*stderr, *partial, body.as_bytes()),
                Line::Junk(bytes) => {
                    let rest = behind_nuls(bytes).map(|rest| {
                        let begins = start + bytes.len() - rest.len();
                        (whole(file, begins), rest.to_vec())
                    });
                    out.extend(rest);
                    continue;
                }
            };
            let open = &mut open[usize::from(stderr)];
            match (open.take(), partial) {
                (None, false) => out.push((whole(file, start), body.to_vec())),
                (begun, _) => {
                    let mut begun = begun.unwrap_or((file, start, Vec::new()));
                    begun.2.extend_from_slice(body);
                    if partial {
                        *open = Some(begun);
                    } else {
                        out.push(joined(begun));
                    }
                }
            }
        }
    }
    out.extend(open.into_iter().flatten().map(joined));
    out
}

fn write_lines(lines: &[Line]) -> Vec<u8> {
    let mut text = Vec::new();
    lines.iter().for_each(|line| write_line(line, &mut text));
    text
}

/// The offset at which each line begins, and the end.
fn line_starts(text: &[u8]) -> Vec<usize> {
    [0].into_iter().chain(memchr_iter(b'\n', text).map(|newline| newline + 1)).collect()
}

proptest! {
    /// Scenario: CRI and docker lines of two streams, whole and in fragments, between malformed
    /// ones, over two files; the first is read in two chunks.
    /// Guarantees: each record carries the model's identity, and no two carry the same.
    #[test]
    fn identities_are_the_models(
        lines in prop::collection::vec(any_line(), 0..30), rotated_at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (first, second) = lines.split_at(rotated_at.index(lines.len() + 1));
        let texts = [write_lines(first), write_lines(second)];
        let cut = cut.index(texts[0].len() + 1);
        let found = read([&texts[0], &texts[1]], 0, cut, 1 << 20);
        prop_assert_eq!(&found, &model([first, second]));
        let distinct: BTreeMap<_, _> = found.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), found.len());
    }

    /// Scenario: the same lines are read with a smaller or larger limit on bodies, so that many are
    /// split; then again, in other chunks; then from any line on, as after a restart, and with
    /// another limit.
    /// Guarantees: the second reading gives the same; no two records have one identity; and
    /// wherever a reading begins and cuts, the same identity means the same body.
    #[test]
    fn the_same_identity_means_the_same_body(
        lines in prop::collection::vec(any_line(), 0..30), rotated_at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
        body_bytes_max in 4..60_usize, other_max in 4..60_usize,
    ) {
        let (first, second) = lines.split_at(rotated_at.index(lines.len() + 1));
        let texts = [write_lines(first), write_lines(second)];
        let files = [&texts[0][..], &texts[1][..]];
        let found = read(files, 0, 0, body_bytes_max);
        prop_assert_eq!(&found, &read(files, 0, cut.index(files[0].len() + 1), body_bytes_max));
        let bodies: BTreeMap<_, _> = found.iter().cloned().collect();
        prop_assert_eq!(bodies.len(), found.len());
        let starts = line_starts(files[0]);
        let from = *from.get(&starts);
        for again in [read(files, from, 0, body_bytes_max), read(files, from, 0, other_max)] {
            for (uid, body) in again {
                prop_assert!(bodies.get(&uid).is_none_or(|first| *first == body), "{}", uid);
            }
        }
    }
}

/// Scenario: a line leaves before its newline has come, in pieces; the next time it is complete,
/// and longer (rows 11, 12).
/// Guarantees: each piece has an identity of its own, which no part of the longer line has.
#[test]
fn a_line_that_grew_is_another_record() {
    let text = [b"2024-02-29T23:59:59.5Z stderr F ".to_vec(), (b'a'..=b'y').collect()].concat();
    let mut unfinished = state(AUTO, 10);
    unfinished.suffixes = Suffixes::new(&[]).with_uid();
    unfinished.suffixes.set_file(FILES[0]);
    let mut batch = batch();
    let mut counts = ParseCounts::default();
    let (mut at, mut line) = (0, None);
    while at < text.len() {
        let chunk = Chunk { bytes: &text[at..], file: 1, offset: at as u64, utf8: false };
        let (consumed, next) = parse_piece(chunk, line, &mut unfinished, &mut batch, &mut counts);
        (at, line) = (at + consumed, Some(next));
    }
    let mut found = identified(&batch);
    assert_eq!(found.len(), 3);
    assert!(found[0].0.starts_with("aaaaaaaaaaaaaaaaaaaaaaaa-000000000000-"));
    let grown = [&text[..], b"z\n"].concat();
    // The first two pieces are cut alike: there, the same identity is right.
    let grown = read([&grown, b""], 0, 0, 10);
    assert_eq!(grown[..2], found[..2]);
    found.extend_from_slice(&grown[2..]);
    let whole = read([&[&text[..], b"\n"].concat(), b""], 0, 0, 1_000);
    found.extend(whole);
    let distinct: BTreeMap<_, _> = found.iter().cloned().collect();
    assert_eq!(distinct.len(), found.len());
}
