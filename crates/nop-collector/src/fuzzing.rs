//! Doors for the fuzz targets into what is private to this crate. Nothing else may use them: they
//! are no interface, and they change with what is behind them. They only pass on.

use bytes::Bytes;

use crate::{
    Encoding, base64,
    decompress::{DecompressError, Decompressor},
    json,
    observe::Observations,
};

/// Consecutive lines of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The run in their stamps.
    pub run: u32,
    /// The writer in their stamps.
    pub writer: u32,
    /// First and last sequence number.
    pub numbers: (u64, u64),
    /// Whether the writer's last line is among them.
    pub end: bool,
}

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Records.
    pub records: u64,
    /// Records without a stamp.
    pub unstamped: u64,
    /// Records whose body is a string that isn't UTF-8.
    pub invalid_utf8: u64,
    /// Stretches of streams, in the order of arrival.
    pub stretches: Vec<Stretch>,
    /// From write to receipt, microseconds.
    pub latencies_us: Vec<u64>,
}

impl Seen {
    fn of(observations: Observations) -> Self {
        let stretch = |one: &crate::observe::Stretch| Stretch {
            run: one.stream.run,
            writer: one.stream.writer,
            numbers: (one.numbers.first, one.numbers.last),
            end: one.end,
        };
        Self {
            records: observations.records,
            unstamped: observations.unstamped,
            invalid_utf8: observations.invalid_utf8,
            stretches: observations.stretches.iter().map(stretch).collect(),
            latencies_us: observations.latencies_us,
        }
    }
}

/// When the requests of a target are received, nanoseconds since the Unix epoch.
const RECEIVED_UNIX_NANO: u64 = 1 << 60;

/// Reads a request in JSON, of which `records_max` records count; `None` when it is none.
pub fn read_json(request: &[u8], records_max: u64) -> Option<Seen> {
    let mut observations = Observations::default();
    observations.begin(RECEIVED_UNIX_NANO);
    json::read(request, records_max, &mut observations).ok()?;
    Some(Seen::of(observations))
}

/// Reads a request in protobuf, of which `records_max` records count; `None` when it is none.
pub fn read_protobuf(request: &[u8], records_max: u64) -> Option<Seen> {
    let mut observations = Observations::default();
    observations.begin(RECEIVED_UNIX_NANO);
    observations.read_protobuf(request, records_max).ok()?;
    Some(Seen::of(observations))
}

/// Decodes base64.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    base64::decode(text)
}

/// Encodes base64 without padding.
pub fn base64_encode(bytes: &[u8]) -> String {
    base64::encode(bytes)
}

/// Why a body wasn't decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would become larger than allowed.
    TooLarge,
    /// It isn't what its encoding says.
    Invalid,
}

/// A context and buffers that one request after the other uses.
#[derive(Default)]
pub struct Inflater(Decompressor);

impl Inflater {
    /// The message in `chunks`, at most `bytes_max` bytes.
    ///
    /// # Errors
    /// It is too large, or malformed.
    pub fn plain(
        &mut self,
        encoding: Encoding,
        chunks: &[Bytes],
        bytes_max: usize,
    ) -> Result<Vec<u8>, Refused> {
        match self.0.plain(encoding, chunks, bytes_max) {
            Ok(plain) => Ok(plain.to_vec()),
            Err(DecompressError::TooLarge { .. }) => Err(Refused::TooLarge),
            Err(DecompressError::Invalid { .. }) => Err(Refused::Invalid),
        }
    }

    /// Bytes that the buffer of the message holds.
    pub fn plain_capacity(&self) -> usize {
        self.0.plain_capacity()
    }
}
