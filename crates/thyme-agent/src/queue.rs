//! What stands between a worker and the exporter: encoded requests one way, their settlement the
//! other. It must not know how either side works.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Compression;
pub use crate::metrics::DropReason;

/// What a worker needs back to move its checkpoints; the exporter only carries it.
#[derive(Debug, Default)]
pub struct Token {
    /// The owner's own number of the request.
    pub number: u64,
    /// Whether it was given to the spool.
    pub to_spool: bool,
    /// What the records cover; their order is the order of reading.
    pub ranges: Arc<[FileRange]>,
    /// The memory behind the body, to be used again.
    pub buffer: Bytes,
    /// What the request takes from the budget of bytes in flight.
    pub charged_bytes: usize,
}

/// Bytes `start..end` of a file that a request covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// The worker's own number of the file.
    pub file: u32,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// One encoded `ExportLogsServiceRequest` on its way to the sink. It is immutable, so the wire, a
/// retry and the disk share its bytes.
#[derive(Debug)]
pub struct Request {
    /// The message, compressed as `compression` says; its chunks follow each other.
    pub body: Vec<Bytes>,
    /// Sum of the chunks' lengths.
    pub body_bytes: usize,
    /// Length before compression.
    pub uncompressed_bytes: usize,
    /// Log records in it.
    pub records: u64,
    /// Bytes of the files that they came from.
    pub source_bytes: u64,
    /// How `body` is compressed.
    pub compression: Compression,
    /// Where the settlement goes. It has room for every request that may be outstanding, so
    /// sending never blocks.
    pub reply: crossbeam_channel::Sender<Settlement>,
    /// For the worker.
    pub token: Token,
}

/// What became of a request, as its owner is told.
#[derive(Debug)]
pub enum Settlement {
    /// It came to its end.
    Ended(Settled),
    /// The spool has it on disk, and sees to the rest.
    Kept(Request),
    /// The spool has a copy of the request with this number on disk; the request itself goes on.
    Secured(u64),
    /// That copy can't be read any more, and is given up.
    CopyLost(u64),
}

/// The end of a request. Every record of it is accounted for in exactly one of the three:
/// `request.records == acknowledged + dead_lettered + sum(dropped)`.
#[derive(Debug)]
pub struct Settled {
    /// The request itself, whose buffers the worker uses again.
    pub request: Request,
    /// Taken by the sink.
    pub acknowledged_records: u64,
    /// Refused by the sink as too large even alone.
    pub dead_lettered_records: u64,
    /// Dropped, by reason.
    pub dropped: Vec<(DropReason, u64)>,
}
