//! Bodies in the collector: what comes out is what the stock decoders make of it, and never more
//! than the limit, nor is more memory kept.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{bufread::MultiGzDecoder, write::GzEncoder};
use nop_collector::{
    Encoding,
    fuzzing::{Inflater, Refused},
};

use crate::input::Input;

/// Limits of a message, bytes.
const LIMITS: [usize; 6] = [0, 1, 100, 5_000, 100_000, 1 << 20];

/// Memory that an empty buffer may grow to at once: zstd's own block, rounded up.
const BLOCK_BYTES: usize = 256 << 10;

/// The first bytes choose encoding, limit, cut, and whether the rest is compressed or plain.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let encoding = input.choose(&[Encoding::Identity, Encoding::Gzip, Encoding::Zstd]);
    let bytes_max = input.choose(&LIMITS);
    let cut = usize::from(input.byte());
    let is_plain = input.byte().is_multiple_of(2);
    let bytes = input.rest();
    let mut inflater = Inflater::default();
    if is_plain {
        let wire = compress(encoding, bytes);
        let found = inflater.plain(encoding, &pieces(&wire, cut), bytes_max);
        let is_within = bytes.len() <= bytes_max;
        assert_eq!(found, if is_within { Ok(bytes.to_vec()) } else { Err(Refused::TooLarge) });
        return;
    }
    let expected = oracle(encoding, bytes, bytes_max);
    for chunks in [vec![Bytes::copy_from_slice(bytes)], pieces(bytes, cut)] {
        // Twice, since a context that refused one request serves the next one.
        for _ in 0..2 {
            let found = inflater.plain(encoding, &chunks, bytes_max);
            assert!(inflater.plain_capacity() <= bytes_max.max(BLOCK_BYTES) * 2 + bytes.len());
            match (&found, &expected) {
                (Ok(found), Some(expected)) => assert!(found == expected, "another message"),
                (Ok(found), None) => panic!("{} bytes out of what is none", found.len()),
                // The window's limit refuses what the stock decoder takes; a limit that is passed
                // before the damage is reached hides it.
                (Err(_), _) => {}
            }
        }
    }
    // The context is still good.
    let wire = compress(encoding, b"still good");
    let found = inflater.plain(encoding, &[Bytes::from(wire)], LIMITS[LIMITS.len() - 1]);
    assert_eq!(found.as_deref(), Ok(&b"still good"[..]));
}

fn pieces(wire: &[u8], cut: usize) -> Vec<Bytes> {
    let (head, tail) = wire.split_at(cut.min(wire.len()));
    vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)]
}

fn compress(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => plain.to_vec(),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        Encoding::Zstd => zstd::stream::encode_all(plain, 1).expect("memory takes everything"),
    }
}

/// What the stock decoders read, at most one byte more than the limit.
fn oracle(encoding: Encoding, wire: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    if wire.is_empty() {
        return Some(plain);
    }
    let take = bytes_max as u64 + 1;
    let read = match encoding {
        Encoding::Identity => wire.take(take).read_to_end(&mut plain),
        Encoding::Gzip => MultiGzDecoder::new(wire).take(take).read_to_end(&mut plain),
        Encoding::Zstd => zstd::stream::Decoder::new(wire)
            .and_then(|decoder| decoder.take(take).read_to_end(&mut plain)),
    };
    if read.is_ok() {
        return Some(plain);
    }
    // libzstd takes some frames in one piece that it refuses piece by piece, such as those with a run
    // that is longer than a block may be; the collector uses whichever way the size allows.
    let is_zstd = encoding == Encoding::Zstd;
    is_zstd.then(|| zstd::bulk::decompress(wire, bytes_max).ok()).flatten()
}
