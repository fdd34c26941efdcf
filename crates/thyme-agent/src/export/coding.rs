//! The content of an answer as it comes: decoded by the name of its coding, looked through to a
//! limit, and kept only as far as it is of use, so that neither long answers nor bombs cost memory.
//! Both transports read through this; nothing here knows what a status means.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::{raw, zio};

use super::{
    limits::{
        JSON_STRING_BYTES_MAX, RESPONSE_BYTES_MAX, RESPONSE_KEPT_BYTES_MAX,
        RESPONSE_WINDOW_BYTES_LOG_MAX,
    },
    partial::{self, PartialSuccess},
};

/// Length of the buffer between brotli's decoder and what it writes to.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// What an answer holds, without its coding.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Its first bytes, at most [`RESPONSE_KEPT_BYTES_MAX`]. What came before an error is among them.
    pub(super) kept: Vec<u8>,
    /// What it is as an `ExportLogsServiceResponse` in protobuf, if it is one. Of one that is too
    /// long, what came of it, if that tells of rejections.
    pub(super) partial: Option<PartialSuccess>,
    /// Whether it has more than [`RESPONSE_BYTES_MAX`].
    pub(super) is_too_long: bool,
    /// What can be said of one of which nothing could be decoded.
    pub(super) undecoded: Option<String>,
}

/// Reads a content in whatever pieces it comes.
pub(super) struct Reader {
    coding: String,
    coded_bytes: u64,
    /// From the first byte on.
    decoder: Option<Box<dyn Decode>>,
    is_broken: bool,
}

impl Reader {
    /// A reader for a coding by its name in a header; an empty one is none.
    pub(super) fn new(coding: &[u8]) -> Self {
        let coding = String::from_utf8_lossy(coding.trim_ascii()).to_ascii_lowercase();
        Self { coding, coded_bytes: 0, decoder: None, is_broken: false }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let Some(first) = bytes.first() else { return };
        self.coded_bytes += bytes.len() as u64;
        if self.is_broken {
            return;
        }
        if self.decoder.is_none() {
            self.decoder = decoder(&self.coding, *first);
        }
        let written = self.decoder.as_mut().map(|decoder| decoder.write_all(bytes));
        self.is_broken = !matches!(written, Some(Ok(())));
    }

    /// Whether what follows would not be looked at.
    pub(super) fn is_too_long(&mut self) -> bool {
        // As it comes, too: of a coding that is unknown, or broken, nothing is looked at.
        self.coded_bytes > RESPONSE_BYTES_MAX as u64
            || self.decoder.as_mut().is_some_and(|decoder| decoder.looked().is_too_long)
    }

    /// What has come.
    pub(super) fn end(self) -> Content {
        let Self { coding, coded_bytes, decoder, is_broken } = self;
        let mut looked = Looked::default();
        let mut is_whole = coded_bytes == 0;
        if let Some(mut decoder) = decoder {
            // One that is broken may still hold what came before that.
            is_whole = decoder.finish().is_ok() && !is_broken;
            looked = std::mem::take(decoder.looked());
        }
        let Looked { kept, partial, is_too_long, .. } = looked;
        let is_undecoded = kept.is_empty() && !is_whole;
        let undecoded = is_undecoded.then(|| format!("({coded_bytes} bytes of {coding:.20})"));
        let partial =
            if is_too_long { partial.so_far() } else { partial.end().filter(|_| is_whole) };
        Content { kept, partial, is_too_long, undecoded }
    }
}

/// A decoder that writes to [`Looked`].
trait Decode: Write + Send {
    fn looked(&mut self) -> &mut Looked;

    /// Writes what is left; an error where the end is missing or wrong.
    fn finish(&mut self) -> io::Result<()>;
}

/// A decoder for a coding, by the first byte where its name has two meanings; none for an unknown one.
fn decoder(coding: &str, first: u8) -> Option<Box<dyn Decode>> {
    let looked = Looked::default();
    let is_zlib = first & 0x0f == 8;
    Some(match coding {
        "" | "identity" => Box::new(looked),
        "gzip" | "x-gzip" => Box::new(GzDecoder::new(looked)),
        "deflate" if is_zlib => Box::new(ZlibDecoder::new(looked)),
        "deflate" => Box::new(DeflateDecoder::new(looked)),
        "zstd" => {
            let mut decoder = raw::Decoder::new().ok()?;
            let window = raw::DParameter::WindowLogMax(RESPONSE_WINDOW_BYTES_LOG_MAX);
            decoder.set_parameter(window).ok()?;
            Box::new(zio::Writer::new(looked, decoder))
        }
        "br" => Box::new(DecompressorWriter::new(looked, BROTLI_BUFFER_BYTES)),
        _ => return None,
    })
}

impl Decode for Looked {
    fn looked(&mut self) -> &mut Looked {
        self
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decode for GzDecoder<Looked> {
    fn looked(&mut self) -> &mut Looked {
        self.get_mut()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }
}

impl Decode for ZlibDecoder<Looked> {
    fn looked(&mut self) -> &mut Looked {
        self.get_mut()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }
}

impl Decode for DeflateDecoder<Looked> {
    fn looked(&mut self) -> &mut Looked {
        self.get_mut()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }
}

impl Decode for zio::Writer<Looked, raw::Decoder<'static>> {
    fn looked(&mut self) -> &mut Looked {
        self.writer_mut()
    }

    fn finish(&mut self) -> io::Result<()> {
        Self::finish(self)
    }
}

impl Decode for DecompressorWriter<Looked> {
    fn looked(&mut self) -> &mut Looked {
        self.get_mut()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.close()
    }
}

/// What decoded bytes are looked at for. It takes no more than [`RESPONSE_BYTES_MAX`], by which it
/// ends a bomb.
#[derive(Debug, Default)]
struct Looked {
    kept: Vec<u8>,
    partial: partial::Reader,
    strings: Strings,
    bytes: usize,
    is_too_long: bool,
}

impl Write for Looked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = RESPONSE_BYTES_MAX - self.bytes;
        if room == 0 && !bytes.is_empty() {
            self.is_too_long = true;
            return Err(io::Error::other("longer than an answer may be"));
        }
        let bytes = &bytes[..bytes.len().min(room)];
        self.bytes += bytes.len();
        self.partial.feed(bytes);
        if self.kept.first().or(bytes.first()) == Some(&b'{') {
            let room = RESPONSE_KEPT_BYTES_MAX - self.kept.len();
            self.kept.extend(bytes.iter().filter(|byte| self.strings.keeps(**byte)).take(room));
        } else {
            let room = RESPONSE_KEPT_BYTES_MAX - self.kept.len();
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shortens the strings of JSON to [`JSON_STRING_BYTES_MAX`], so that what stands behind a long one
/// is among the bytes that are kept. What it makes of JSON is JSON.
#[derive(Debug, Default)]
struct Strings {
    is_within: bool,
    string_bytes: usize,
    is_cut: bool,
    /// Bytes that are left of an escape, as far as that is known.
    escape_bytes: usize,
}

impl Strings {
    /// Whether the next byte is kept.
    fn keeps(&mut self, byte: u8) -> bool {
        if !self.is_within {
            *self = Self { is_within: byte == b'"', ..Self::default() };
            return true;
        }
        let begins = self.escape_bytes == 0 && byte & 0xc0 != 0x80;
        if begins && byte == b'"' {
            self.is_within = false;
            return true;
        }
        // Neither an escape nor a character is cut in two.
        self.is_cut |= begins && self.string_bytes >= JSON_STRING_BYTES_MAX;
        self.string_bytes += 1;
        self.escape_bytes = match (self.escape_bytes, byte) {
            (0, b'\\') => 1,
            (1, b'u') => 4,
            (left, _) => left.saturating_sub(1),
        };
        !self.is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scenario: an answer without end, in a coding that nobody knows, or that breaks right away.
    /// Guarantees: it is left after as much as is read of any other.
    #[test]
    fn an_endless_answer_that_cannot_be_decoded_is_left() {
        for coding in [&b"snappy"[..], b"gzip"] {
            let mut reader = Reader::new(coding);
            let piece = vec![7; 1 << 16];
            let pieces = (0..1_000).take_while(|_| {
                reader.feed(&piece);
                !reader.is_too_long()
            });
            assert_eq!(pieces.count(), RESPONSE_BYTES_MAX / piece.len());
            assert!(reader.end().undecoded.is_some());
        }
    }

    proptest! {
        /// Scenario: JSON with a string that is too long, of escapes and of characters of every length,
        /// so that the limit falls anywhere; it comes in pieces of any length.
        /// Guarantees: what is kept is JSON, with the beginning of the string and all of what follows.
        #[test]
        fn long_strings_of_json_are_shortened(
            before in 0_usize..20,
            piece in 1_usize..5000,
            parts in prop::collection::vec(
                prop::sample::select(vec!["\\\"", "\\\\", "\\u20ac", "a", "\u{e9}", "\u{20ac}", "\u{1f600}"]),
                1..9,
            ),
        ) {
            let part = parts.concat();
            let count = 2 * JSON_STRING_BYTES_MAX / part.len() + 1;
            let string = "x".repeat(before) + &part.repeat(count);
            let json = format!(r#"{{"long":"{string}","after":[3,"\\\\"]}}"#);
            let mut reader = Reader::new(b"");
            json.as_bytes().chunks(piece).for_each(|piece| reader.feed(piece));
            let content = reader.end();
            let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text);
            let read = json(&content.kept).unwrap();
            prop_assert_eq!(&read["after"], &serde_json::json!([3, "\\\\"]));
            let whole = json(format!("\"{string}\"").as_bytes()).unwrap();
            let beginning = read["long"].as_str().unwrap();
            prop_assert!(whole.as_str().unwrap().starts_with(beginning));
            prop_assert!(content.kept.len() >= JSON_STRING_BYTES_MAX);
            prop_assert!(content.kept.len() < JSON_STRING_BYTES_MAX + 100);
        }
    }
}
