//! A spool segment's bytes: records that follow each other, each with a header that says where it
//! ends and what it must look like. It must not know what is in a record's body.
//!
//! ```text
//! record = header (64 bytes, little endian) body note
//! header = magic(8) id(8) records(8) source_bytes(8) uncompressed_bytes(8) kept_unix_ms(8)
//!          body_bytes(4) body_crc32(4) compression(1) note_bytes(3) header_crc32(4)
//! ```
//!
//! The note says which bytes of which files the record covers, see `covers`. It stands behind the body,
//! so that an older version, which knows of none, reads the record and passes over it.
//!
//! The header has a checksum of its own, so that a damaged body costs that one record, and a
//! damaged header what lies between it and the next whole one.

use std::io;

use crate::{config::Compression, world::StateFile};

/// Length of a header.
pub const HEADER_BYTES: usize = 64;

/// What a header begins with: a byte that no text has, and a version.
const MAGIC: [u8; 8] = *b"\x89thymeS1";

/// Longest note that a header can say.
pub(super) const NOTE_BYTES_MAX: usize = (1 << 24) - 1;

/// Bytes that a search for the next header reads at once.
const SEARCH_BYTES: usize = 64 * 1024;

/// What a segment says about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the record, over all segments; a number is never used again.
    pub id: u64,
    /// Log records in it.
    pub records: u64,
    /// Bytes of the files that they came from.
    pub source_bytes: u64,
    /// Length of the message before compression.
    pub uncompressed_bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub kept_unix_ms: u64,
    /// Length of the body that follows.
    pub body_bytes: u32,
    /// CRC-32 (ISO-HDLC) of the body.
    pub body_crc32: u32,
    /// How the body is compressed.
    pub compression: Compression,
    /// Length of the note behind the body, less than 16 MiB.
    pub note_bytes: u32,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        let longs =
            [self.id, self.records, self.source_bytes, self.uncompressed_bytes, self.kept_unix_ms];
        for (place, value) in out[8..48].chunks_exact_mut(8).zip(longs) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        out[48..52].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[52..56].copy_from_slice(&self.body_crc32.to_le_bytes());
        out[56] = match self.compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
        };
        out[57..60].copy_from_slice(&self.note_bytes.to_le_bytes()[..3]);
        let crc32 = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc32.to_le_bytes());
        out
    }

    /// What [`Header::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let long = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
        if bytes[..8] != MAGIC || short(60)? != crc32fast::hash(&bytes[..60]) {
            return None;
        }
        let compression = match bytes[56] {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Zstd,
            _ => return None,
        };
        Some(Self {
            id: long(8)?,
            records: long(16)?,
            source_bytes: long(24)?,
            uncompressed_bytes: long(32)?,
            kept_unix_ms: long(40)?,
            body_bytes: short(48)?,
            body_crc32: short(52)?,
            compression,
            note_bytes: u32::from_le_bytes([bytes[57], bytes[58], bytes[59], 0]),
        })
    }

    /// Bytes that the record takes in its segment.
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.note_bytes) + u64::from(self.body_bytes)
    }
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record whose header is whole, and whose body is all there.
    Record(Header),
    /// No record until `end`, where the next one or the end of the segment is.
    Nothing {
        /// One past the last byte of it.
        end: u64,
        /// Whether it is what a write leaves that was cut short: nothing follows, and it is less than
        /// a header, less than the body that its header says, or room that was never written.
        is_torn: bool,
    },
    /// The end of the segment.
    End,
}

/// Looks at `offset` of a segment of `length` bytes.
///
/// # Errors
/// When the file can't be read.
pub fn look(file: &dyn StateFile, offset: u64, length: u64) -> io::Result<Found> {
    if offset >= length {
        return Ok(Found::End);
    }
    let mut bytes = [0; HEADER_BYTES];
    let filled = read_full(file, &mut bytes, offset)?;
    let header = Header::decode(&bytes[..filled]);
    if let Some(header) = header
        && offset + header.record_bytes() <= length
    {
        return Ok(Found::Record(header));
    }
    let end = next_header(file, offset + 1, length)?;
    let is_short = header.is_some() || filled < HEADER_BYTES;
    let is_torn = end == length && (is_short || is_unwritten(file, offset, length)?);
    Ok(Found::Nothing { end, is_torn })
}

/// Whether there are only zeros: room that a loss of power leaves where a write was to be.
fn is_unwritten(file: &dyn StateFile, mut offset: u64, length: u64) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    while offset < length {
        let filled = read_full(file, &mut buffer, offset)?;
        if filled == 0 || buffer[..filled].iter().any(|byte| *byte != 0) {
            return Ok(filled == 0);
        }
        offset += filled as u64;
    }
    Ok(true)
}

/// Reads the body of the record at `offset`; `None` if it isn't what the header says.
///
/// # Errors
/// When the file can't be read.
pub fn read_body(
    file: &dyn StateFile,
    offset: u64,
    header: &Header,
) -> io::Result<Option<Vec<u8>>> {
    let mut body = vec![0; header.body_bytes as usize];
    let filled = read_full(file, &mut body, offset + HEADER_BYTES as u64)?;
    let is_whole = filled == body.len() && crc32fast::hash(&body) == header.body_crc32;
    Ok(is_whole.then_some(body))
}

/// Reads the note of the record at `offset`, which may be damaged.
///
/// # Errors
/// When the file can't be read.
pub(super) fn read_note(file: &dyn StateFile, offset: u64, header: &Header) -> io::Result<Vec<u8>> {
    let mut note = vec![0; header.note_bytes as usize];
    let start = offset + HEADER_BYTES as u64 + u64::from(header.body_bytes);
    let filled = read_full(file, &mut note, start)?;
    note.truncate(filled);
    Ok(note)
}

/// Where the next whole header begins, from `offset` on; `length` where there is none.
pub(super) fn next_header(file: &dyn StateFile, mut offset: u64, length: u64) -> io::Result<u64> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let mut buffer = vec![0; SEARCH_BYTES];
    while offset + (HEADER_BYTES as u64) <= length {
        let filled = read_full(file, &mut buffer, offset)?;
        for at in finder.find_iter(&buffer[..filled]) {
            let mut bytes = [0; HEADER_BYTES];
            let place = offset + at as u64;
            let header_bytes = read_full(file, &mut bytes, place)?;
            if Header::decode(&bytes[..header_bytes]).is_some() {
                return Ok(place);
            }
        }
        if filled < buffer.len() {
            break;
        }
        // A magic may lie across the border of two reads.
        offset += (filled - (MAGIC.len() - 1)) as u64;
    }
    Ok(length)
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &dyn StateFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{StateDisk, real::NodeDisk};
    use proptest::prelude::*;

    fn header(id: u64, body: &[u8]) -> Header {
        Header {
            id,
            records: id + 1,
            source_bytes: 300,
            uncompressed_bytes: 200,
            kept_unix_ms: 1_800_000_000_000,
            body_bytes: body.len() as u32,
            body_crc32: crc32fast::hash(body),
            compression: Compression::Zstd,
            note_bytes: 0,
        }
    }

    fn segment(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, body) in bodies.iter().enumerate() {
            bytes.extend(header(id as u64, body).encode());
            bytes.extend(body);
        }
        bytes
    }

    /// Ids and bodies that reading from the front to the end gives, damaged ones left out.
    fn read_all(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let directory = tempfile::tempdir().unwrap();
        let mut file = NodeDisk::new(directory.path()).create("segment").unwrap();
        file.append(bytes).unwrap();
        let (mut offset, mut read) = (0, Vec::new());
        loop {
            match look(&*file, offset, bytes.len() as u64).unwrap() {
                Found::End => return read,
                Found::Nothing { end, .. } => {
                    assert!(end > offset && end <= bytes.len() as u64);
                    offset = end;
                }
                Found::Record(header) => {
                    if let Some(body) = read_body(&*file, offset, &header).unwrap() {
                        read.push((header.id, body));
                    }
                    offset += header.record_bytes();
                }
            }
        }
    }

    proptest! {
        /// Scenario: row 17. Records of any length; then a byte is changed anywhere, or the segment
        /// is cut anywhere.
        /// Guarantees: without damage all come back in order; one changed byte costs one record and
        /// no other; a cut costs only the records that it reaches.
        #[test]
        fn the_rest_of_a_damaged_segment_is_salvaged(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = segment(&bodies);
            let all: Vec<(u64, Vec<u8>)> =
                bodies.iter().enumerate().map(|(id, body)| (id as u64, body.clone())).collect();
            prop_assert_eq!(&read_all(&bytes), &all);

            let at = at.index(bytes.len());
            let ends = bodies.iter().scan(0, |end, body| {
                *end += HEADER_BYTES + body.len();
                Some(*end)
            });
            let hit = ends.take_while(|end| *end <= at).count();
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            let mut without = all.clone();
            without.remove(hit);
            prop_assert_eq!(read_all(&flipped), without);
            prop_assert_eq!(&read_all(&bytes[..at])[..], &all[..hit]);
        }
    }

    /// Scenario: a body that holds a magic, a whole record and half of one, behind a damaged header.
    /// Guarantees: what a body holds is found only where the header before it is gone, and then
    /// only what is whole; the search crosses the border of two reads.
    #[test]
    fn a_search_crosses_the_border_of_reads() {
        let mut damaged = vec![b'x'; SEARCH_BYTES - 3];
        damaged.extend(segment(&[b"inner".to_vec()]));
        damaged.extend(MAGIC);
        assert_eq!(read_all(&damaged), [(0, b"inner".to_vec())]);
        let whole = segment(&[damaged.clone()]);
        assert_eq!(read_all(&whole), [(0, damaged)]);
    }
}
