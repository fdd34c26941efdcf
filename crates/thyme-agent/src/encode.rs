//! A closed batch becomes the body of one request: segments are put together by container, and the
//! nested lengths come from sums.
//!
//! The compressors take one contiguous message, so the pieces are gathered into it first: given
//! piece by piece, zstd copies them into a window of its own all the same, and then compresses
//! slower wherever the window wraps. Without compression the pieces leave as they are.

use std::{io::Write, ops::Range};

use bytes::Bytes;
use flate2::write::GzEncoder;
use thyme_core::otlp::encode::put_resource_logs_prefix;
use zstd_safe::{CCtx, CParameter, compress_bound};

use crate::{
    batch::{Batch, ContainerIndex, Segment},
    config::Compression,
};

/// Failures of the compressor: out of memory, or a level that it doesn't know.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// zstd said so.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// flate2 said so.
    #[error("gzip: {0}")]
    Gzip(#[from] std::io::Error),
}

/// The bytes of one request.
#[derive(Debug)]
pub struct Encoded {
    /// In order; one chunk when compressed.
    pub body: Vec<Bytes>,
    /// Sum of the chunks' lengths.
    pub body_bytes: usize,
    /// Length before compression.
    pub uncompressed_bytes: usize,
    /// The memory behind `body`, to be given back to [`Encoder::recycle`].
    pub buffer: Bytes,
    /// What it holds, in bytes.
    pub buffer_bytes: usize,
}

/// Turns batches into bodies; reuses its compressor and its buffers.
pub struct Encoder {
    compression: Compression,
    level: i32,
    zstd: CCtx<'static>,
    /// Segments of the batch at hand, by container.
    order: Vec<Segment>,
    /// What stands before each container's records.
    prefixes: Vec<u8>,
    pieces: Vec<Piece>,
    /// The message at hand, gathered for the compressor.
    message: Vec<u8>,
    /// Buffers to use again; at most `spare_bytes_max` in all.
    spare: Vec<Vec<u8>>,
    spare_bytes_max: usize,
    /// Compressed bytes of recent requests per 1024 bytes of theirs.
    compressed_per_kib: usize,
}

/// A part of the message.
#[derive(Clone, Debug)]
enum Piece {
    /// In `prefixes`.
    Prefix(Range<usize>),
    /// In the batch's records.
    Records(Range<usize>),
}

/// What a request is taken to shrink to before the first one was seen: to a half.
const COMPRESSED_PER_KIB_AT_START: usize = 512;

/// Least room for a compressed request.
const COMPRESSED_BYTES_MIN: usize = 4 * 1024;

impl Encoder {
    /// An encoder that keeps at most `spare_bytes_max` bytes of buffers for later.
    pub fn new(
        compression: Compression,
        level: i32,
        spare_bytes_max: usize,
    ) -> Result<Self, EncodeError> {
        let mut zstd = CCtx::create();
        zstd.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
        Ok(Self {
            compression,
            level,
            zstd,
            order: Vec::new(),
            prefixes: Vec::new(),
            pieces: Vec::new(),
            message: Vec::new(),
            spare: Vec::new(),
            spare_bytes_max,
            compressed_per_kib: COMPRESSED_PER_KIB_AT_START,
        })
    }

    /// Encodes the records of `batch`, which is empty afterwards. `resource_of` gives the content
    /// of a container's `Resource`.
    pub fn encode<'a>(
        &mut self,
        batch: &mut Batch,
        resource_of: impl Fn(ContainerIndex) -> &'a [u8],
    ) -> Result<Encoded, EncodeError> {
        self.arrange(&batch.segments, resource_of);
        let uncompressed_bytes = self.prefixes.len() + batch.records.len();
        let encoded = match self.compression {
            Compression::None => {
                let next = self.spare.pop().unwrap_or_default();
                let buffer = Bytes::from(batch.reset(next));
                return Ok(self.uncompressed(buffer));
            }
            Compression::Zstd => {
                self.gather(&batch.records);
                self.zstd()?
            }
            Compression::Gzip => {
                self.gather(&batch.records);
                self.gzip()?
            }
        };
        self.learn(encoded.len(), uncompressed_bytes);
        let own = std::mem::take(&mut batch.records);
        batch.reset(own);
        let buffer_bytes = encoded.capacity();
        let buffer = Bytes::from(encoded);
        let (body, body_bytes) = (vec![buffer.clone()], buffer.len());
        Ok(Encoded { body, body_bytes, uncompressed_bytes, buffer, buffer_bytes })
    }

    /// Takes the memory of a settled request back. The chunks of its body must be gone.
    pub fn recycle(&mut self, mut buffer: Bytes) {
        let held: usize = self.spare.iter().map(Vec::capacity).sum();
        if held >= self.spare_bytes_max || !buffer.is_unique() {
            return;
        }
        // All but emptied first, so that nothing is moved to the buffer's front; cut to zero,
        // `Bytes` would give the memory away.
        buffer.truncate(1);
        let mut spare = Vec::from(buffer);
        spare.clear();
        self.spare.push(spare);
    }

    /// Orders the segments by container and writes what stands before each one's records.
    fn arrange<'a>(
        &mut self,
        segments: &[Segment],
        resource_of: impl Fn(ContainerIndex) -> &'a [u8],
    ) {
        self.order.clear();
        self.order.extend(segments.iter().filter(|segment| segment.start < segment.end));
        // Within a container the order of reading is the order of the buffer.
        self.order.sort_unstable_by_key(|segment| (segment.container, segment.start));
        self.prefixes.clear();
        self.pieces.clear();
        for group in self.order.chunk_by(|left, right| left.container == right.container) {
            let records_bytes = group.iter().map(|segment| segment.range().len()).sum();
            let start = self.prefixes.len();
            let resource = resource_of(group[0].container);
            put_resource_logs_prefix(&mut self.prefixes, resource, records_bytes);
            self.pieces.push(Piece::Prefix(start..self.prefixes.len()));
            self.pieces.extend(group.iter().map(|segment| Piece::Records(segment.range())));
        }
    }

    fn uncompressed(&self, buffer: Bytes) -> Encoded {
        let prefixes = Bytes::copy_from_slice(&self.prefixes);
        let body: Vec<Bytes> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Prefix(range) => prefixes.slice(range.clone()),
                Piece::Records(range) => buffer.slice(range.clone()),
            })
            .collect();
        let body_bytes = prefixes.len() + buffer.len();
        let buffer_bytes = body_bytes;
        Encoded { body, body_bytes, uncompressed_bytes: body_bytes, buffer, buffer_bytes }
    }

    /// Puts the pieces one behind the other.
    fn gather(&mut self, records: &[u8]) {
        self.message.clear();
        for piece in &self.pieces {
            self.message.extend_from_slice(piece.bytes(&self.prefixes, records));
        }
    }

    /// One frame, whose size is declared.
    fn zstd(&mut self) -> Result<Vec<u8>, EncodeError> {
        let mut out = self.take_spare(self.message.len());
        let room = out.capacity();
        if self.zstd.compress2(&mut out, &self.message).is_ok() {
            return Ok(out);
        }
        // It was larger than recent requests let expect: with all the room that it can need, only
        // a real failure is left.
        out.reserve(compress_bound(self.message.len()).max(room));
        self.zstd.compress2(&mut out, &self.message).map_err(zstd_error)?;
        Ok(out)
    }

    fn gzip(&mut self) -> Result<Vec<u8>, EncodeError> {
        let out = self.take_spare(self.message.len());
        let level = u32::try_from(self.level).ok().filter(|level| *level <= 9);
        let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
        let mut encoder = GzEncoder::new(out, level);
        encoder.write_all(&self.message)?;
        Ok(encoder.finish()?)
    }

    /// An empty buffer with the room that the request will probably need.
    fn take_spare(&mut self, uncompressed_bytes: usize) -> Vec<u8> {
        let expected = uncompressed_bytes / 1024 * self.compressed_per_kib;
        let expected = COMPRESSED_BYTES_MIN.max(expected + expected / 16);
        let mut out = self.spare.pop().unwrap_or_default();
        out.reserve(expected);
        out
    }

    fn learn(&mut self, compressed_bytes: usize, uncompressed_bytes: usize) {
        let seen = compressed_bytes * 1024 / uncompressed_bytes.max(1);
        // A slow mean, so that one odd request doesn't size the next one's buffer.
        self.compressed_per_kib = (self.compressed_per_kib * 3 + seen).div_ceil(4);
    }
}

impl Piece {
    fn bytes<'a>(&self, prefixes: &'a [u8], records: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Prefix(range) => &prefixes[range.clone()],
            Self::Records(range) => &records[range.clone()],
        }
    }
}

fn zstd_error(code: usize) -> EncodeError {
    EncodeError::Zstd(zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests;
