//! Undoes a request's compression into a buffer that is reused, within a limit that holds while it
//! is being filled: a small request can't become a large allocation (CVE-2024-36129).

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::limits::{RETAINED_BUFFER_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};

/// How a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip, one or more members.
    Gzip,
    /// zstd, one or more frames.
    Zstd,
}

impl Encoding {
    /// Its name in `content-encoding` and `grpc-encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding of that name, in any case; `x-gzip` is gzip by RFC 9110.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body can't be decompressed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecompressError {
    /// It would become larger than allowed.
    #[error("the request is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// It isn't what its encoding says.
    #[error("invalid {encoding}: {cause}")]
    Invalid {
        /// The encoding's name.
        encoding: &'static str,
        /// The library's words.
        cause: String,
    },
}

/// A context and buffers that one thread uses for one request after the other.
pub(crate) struct Decompressor {
    zstd: DCtx<'static>,
    /// A compressed body in one piece.
    joined: Vec<u8>,
    /// A decompressed message.
    plain: Vec<u8>,
}

impl Default for Decompressor {
    fn default() -> Self {
        let mut zstd = DCtx::create();
        zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
            .expect("the limit is within zstd's own bounds");
        Self { zstd, joined: Vec::new(), plain: Vec::new() }
    }
}

impl Decompressor {
    /// Bytes that the buffer of the message holds at present.
    pub(crate) fn plain_capacity(&self) -> usize {
        self.plain.capacity()
    }

    /// The decompressed message, at most `bytes_max` bytes; without a copy where none is needed.
    pub(crate) fn plain<'a>(
        &'a mut self,
        encoding: Encoding,
        chunks: &'a [Bytes],
        bytes_max: usize,
    ) -> Result<&'a [u8], DecompressError> {
        for buffer in [&mut self.joined, &mut self.plain] {
            buffer.clear();
            buffer.shrink_to(RETAINED_BUFFER_BYTES_MAX);
        }
        let wire = match chunks {
            [] => &[],
            [whole] => &whole[..],
            _ => {
                chunks.iter().for_each(|chunk| self.joined.extend_from_slice(chunk));
                &self.joined
            }
        };
        match encoding {
            Encoding::Identity if wire.len() > bytes_max => {
                return Err(DecompressError::TooLarge { bytes_max });
            }
            Encoding::Identity => return Ok(wire),
            // gRPC's flag may say of an empty message that it is compressed.
            _ if wire.is_empty() => {}
            Encoding::Gzip => gunzip(wire, &mut self.plain, bytes_max)?,
            Encoding::Zstd => unzstd(&mut self.zstd, wire, &mut self.plain, bytes_max)?,
        }
        Ok(&self.plain)
    }
}

fn gunzip(wire: &[u8], plain: &mut Vec<u8>, bytes_max: usize) -> Result<(), DecompressError> {
    let mut reader = MultiGzDecoder::new(wire).take(bytes_max as u64 + 1);
    reader.read_to_end(plain).map_err(|cause| invalid(Encoding::Gzip, &cause.to_string()))?;
    within(plain, bytes_max)
}

fn unzstd(
    context: &mut DCtx<'static>,
    wire: &[u8],
    plain: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), DecompressError> {
    let error = |code| invalid(Encoding::Zstd, zstd_safe::get_error_name(code));
    // Where the frames' own headers bound the size within the limit, one call decompresses
    // straight into the buffer, with no window of its own.
    let bound = zstd_safe::decompress_bound(wire).map_err(error)?;
    if let Ok(bound) = usize::try_from(bound)
        && bound <= bytes_max
    {
        plain.reserve_exact(bound);
        context.decompress(plain, wire).map_err(error)?;
        return Ok(());
    }
    stream_zstd(context, wire, plain, bytes_max)
}

/// Decompresses a frame that doesn't say its size, or says one beyond the limit, piece by piece.
fn stream_zstd(
    context: &mut DCtx<'static>,
    wire: &[u8],
    plain: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), DecompressError> {
    let error = |code| invalid(Encoding::Zstd, zstd_safe::get_error_name(code));
    context.reset(ResetDirective::SessionOnly).map_err(error)?;
    let mut input = InBuffer::around(wire);
    loop {
        if plain.len() == plain.capacity() {
            // Doubles, and ends one byte above the limit: enough to see that it was passed.
            let more = plain.len().max(wire.len()).max(DCtx::out_size());
            plain.reserve_exact(more.min(bytes_max + 1 - plain.len()));
        }
        let filled = plain.len();
        let mut output = OutBuffer::around_pos(plain, filled);
        let hint = context.decompress_stream(&mut output, &mut input).map_err(error)?;
        within(plain, bytes_max)?;
        let all_read = input.pos() == wire.len();
        if hint == 0 && all_read {
            return Ok(());
        }
        if all_read && plain.len() < plain.capacity() {
            return Err(invalid(Encoding::Zstd, "the frame is incomplete"));
        }
    }
}

fn within(plain: &[u8], bytes_max: usize) -> Result<(), DecompressError> {
    if plain.len() > bytes_max { Err(DecompressError::TooLarge { bytes_max }) } else { Ok(()) }
}

fn invalid(encoding: Encoding, cause: &str) -> DecompressError {
    DecompressError::Invalid { encoding: encoding.as_str(), cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// One frame whose header says its size.
    fn zstd_sized(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 1).unwrap()
    }

    /// One frame that doesn't say its size, as streaming encoders write.
    fn zstd_streamed(plain: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(plain, 1).unwrap()
    }

    fn pieces(wire: &[u8], at: usize) -> Vec<Bytes> {
        let (head, tail) = wire.split_at(at.min(wire.len()));
        vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)]
    }

    const MAX: usize = 1 << 20;

    proptest! {
        /// Scenario: bodies in every encoding, in one or two pieces, one or two frames, one after
        /// the other through the same context.
        /// Guarantees: the message comes out; at a limit one byte lower it is too large.
        #[test]
        fn every_encoding_is_undone(
            bodies in prop::collection::vec((prop::collection::vec(0..4_u8, 1..60_000), 0..6), 1..4),
            at in 0..1_000_usize,
        ) {
            let mut decompressor = Decompressor::default();
            for (plain, kind) in &bodies {
                let (encoding, wire) = match kind {
                    0 => (Encoding::Identity, plain.clone()),
                    1 => (Encoding::Gzip, gzip(plain)),
                    2 => (Encoding::Gzip, [gzip(&plain[..1]), gzip(&plain[1..])].concat()),
                    3 => (Encoding::Zstd, zstd_sized(plain)),
                    4 => (Encoding::Zstd, zstd_streamed(plain)),
                    _ => {
                        let frames = [zstd_streamed(&plain[..1]), zstd_sized(&plain[1..])];
                        (Encoding::Zstd, frames.concat())
                    }
                };
                for chunks in [vec![Bytes::copy_from_slice(&wire)], pieces(&wire, at)] {
                    let found = decompressor.plain(encoding, &chunks, MAX).unwrap();
                    prop_assert_eq!(found, &plain[..]);
                    let found = decompressor.plain(encoding, &chunks, plain.len()).unwrap();
                    prop_assert_eq!(found, &plain[..]);
                    let bytes_max = plain.len() - 1;
                    let error = decompressor.plain(encoding, &chunks, bytes_max).unwrap_err();
                    prop_assert_eq!(error, DecompressError::TooLarge { bytes_max });
                }
            }
        }

        /// Scenario: compressed bodies cut off or changed, and arbitrary bytes.
        /// Guarantees: an error or a message within the limit, and the context stays usable.
        #[test]
        fn damage_is_an_error(bytes: Vec<u8>, cut in 1..40_usize, flip in 0..40_usize) {
            let plain = b"the same words, the same words, the same words".repeat(9);
            let mut decompressor = Decompressor::default();
            for (encoding, wire) in [
                (Encoding::Gzip, gzip(&plain)),
                (Encoding::Zstd, zstd_sized(&plain)),
                (Encoding::Zstd, zstd_streamed(&plain)),
            ] {
                let cut = pieces(&wire[..wire.len() - cut.min(wire.len() - 1)], 9);
                prop_assert!(decompressor.plain(encoding, &cut, MAX).is_err());
                let mut flipped = wire.clone();
                flipped[flip.min(wire.len() - 1)] ^= 0x55;
                for body in [flipped, bytes.clone()] {
                    if let Ok(plain) = decompressor.plain(encoding, &pieces(&body, 5), MAX) {
                        prop_assert!(plain.len() <= MAX);
                    }
                }
                let whole = pieces(&wire, 5);
                let found = decompressor.plain(encoding, &whole, MAX).unwrap();
                prop_assert_eq!(found, &plain[..]);
            }
        }
    }

    /// Scenario: a few kilobytes that would become a gigabyte, with and without a size in the
    /// header.
    /// Guarantees: they are refused, and no buffer grows beyond the limit.
    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0_u8; 64 << 20];
        let bomb = [zstd_streamed(&zeros)].concat().repeat(16);
        let sized = zstd_sized(&zeros);
        let mut decompressor = Decompressor::default();
        for (encoding, wire) in
            [(Encoding::Zstd, bomb), (Encoding::Zstd, sized), (Encoding::Gzip, gzip(&zeros))]
        {
            let chunks = [Bytes::from(wire)];
            let error = decompressor.plain(encoding, &chunks, MAX).unwrap_err();
            assert_eq!(error, DecompressError::TooLarge { bytes_max: MAX });
            assert!(decompressor.plain.capacity() <= 2 * MAX);
        }
    }

    /// Scenario: a frame that needs a window beyond the limit.
    /// Guarantees: it is refused rather than given the memory.
    #[test]
    fn large_windows_are_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![7; 1 << 20]).unwrap();
        let wire = encoder.finish().unwrap();
        let mut decompressor = Decompressor::default();
        // Above the bound of its blocks, so that only streaming is left.
        let error = decompressor.plain(Encoding::Zstd, &[Bytes::from(wire)], MAX / 2).unwrap_err();
        assert!(matches!(error, DecompressError::Invalid { encoding: "zstd", .. }), "{error}");
    }
}
