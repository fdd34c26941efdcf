//! Segments of the spool: reading one ends whatever its bytes are, and damage costs the records that
//! it touches and no others.

use std::io;

use thyme_agent::{
    config::Compression,
    spool::segment::{Found, HEADER_BYTES, Header, look, read_body},
    world::StateFile,
};

use crate::input::Input;

/// Reads the bytes as a segment; then makes one of them, damages it where the first bytes say, and
/// reads it.
pub(crate) fn check(data: &[u8]) {
    read_all(data);
    check_header(data);
    let mut input = Input::new(data);
    let (place, length, change) = (input.number(), usize::from(input.byte()), input.byte());
    let is_cut = input.byte().is_multiple_of(4);
    let records = records_of(input);
    let mut segment = Vec::new();
    let mut spans = Vec::new();
    for (header, body) in &records {
        let start = segment.len();
        segment.extend_from_slice(&header.encode());
        segment.extend_from_slice(body);
        spans.push(start..segment.len());
    }
    assert!(
        read_all(&segment).iter().eq(&records),
        "an undamaged segment is read as it was written"
    );
    if segment.is_empty() {
        return;
    }
    let start = (place % segment.len() as u64) as usize;
    let end = if is_cut { segment.len() } else { (start + length).min(segment.len()) };
    if is_cut {
        segment.truncate(start);
    } else {
        segment[start..end].iter_mut().for_each(|byte| *byte ^= change | 1);
    }
    let found = read_all(&segment);
    // A body that holds what looks like a record is told from one only by the header before it.
    let is_nested = records.iter().any(|(_, body)| contains_header(body));
    let untouched =
        records.iter().zip(&spans).filter(|(_, span)| span.end <= start || end <= span.start);
    let mut found = found.iter();
    for (record, _) in untouched {
        let is_there = found.any(|one| one == record);
        assert!(is_there || is_nested, "record {} is lost", record.0.id);
    }
}

/// Each byte takes the next so many bytes as a body.
fn records_of(mut input: Input<'_>) -> Vec<(Header, Vec<u8>)> {
    let mut records = Vec::new();
    while !input.rest().is_empty() {
        let kind = input.byte();
        let compression =
            [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(kind % 3)];
        let length = usize::from(input.byte()).min(input.rest().len());
        let body: Vec<u8> = (0..length).map(|_| input.byte()).collect();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let header = Header {
            id: records.len() as u64,
            records: u64::from(kind),
            source_bytes: u64::MAX - u64::from(kind),
            uncompressed_bytes: body.len() as u64 * 2,
            kept_unix_ms: 1_800_000_000_000,
            body_bytes: body.len() as u32,
            body_crc32: crc.sum(),
            compression,
            note_bytes: 0,
        };
        records.push((header, body));
    }
    records
}

fn contains_header(bytes: &[u8]) -> bool {
    bytes.windows(HEADER_BYTES).any(|window| Header::decode(window).is_some())
}

fn check_header(bytes: &[u8]) {
    if let Some(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }
}

/// The records of a segment, those left out whose body is damaged.
fn read_all(bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let file = Bytes(bytes);
    let length = bytes.len() as u64;
    let (mut offset, mut read) = (0, Vec::new());
    loop {
        match look(&file, offset, length).expect("memory can be read") {
            Found::End => {
                assert_eq!(offset, length);
                return read;
            }
            Found::Nothing { end, .. } => {
                assert!(offset < end && end <= length);
                offset = end;
            }
            Found::Record(header) => {
                assert!(offset + header.record_bytes() <= length);
                let body = read_body(&file, offset, &header).expect("memory can be read");
                read.extend(body.map(|body| (header, body)));
                offset += header.record_bytes();
            }
        }
    }
}

/// A segment in memory, which is only read, in small portions.
struct Bytes<'a>(&'a [u8]);

impl StateFile for Bytes<'_> {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reserve(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len()).min(1_000);
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
