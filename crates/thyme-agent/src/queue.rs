//! What stands between a worker and the exporter: encoded requests one way, their settlement the
//! other. It must not know how either side works.

use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;

pub use crate::metrics::DropReason;
use crate::{config::Compression, spool::Covered, tail::acknowledge::Acknowledged};

/// What a worker needs back to move its checkpoints; the exporter only carries it.
#[derive(Debug, Default)]
pub struct Token {
    /// The owner's own number of the request.
    pub number: u64,
    /// Whether it was given to the spool.
    pub to_spool: bool,
    /// What the records cover; their order is the order of reading.
    pub spans: Arc<[Span]>,
    /// What they cover by the numbers that files have in checkpoints, as far as the spool is to know.
    pub covers: Vec<Covered>,
    /// The memory behind the body, to be used again.
    pub buffer: Bytes,
    /// What the request takes from the budget of bytes in flight.
    pub charged_bytes: usize,
    /// Whether it was set aside, see [`SetAside`].
    pub is_aside: bool,
    /// Whether the spool holds it or a copy of it, so that room there comes back when it ends.
    pub in_spool: Arc<AtomicBool>,
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

/// A piece of a file, and the records that have to be settled before it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The piece.
    pub range: FileRange,
    /// Place of the first of those records among the request's, in the order of the message.
    pub start: u64,
    /// One past the last of them.
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
    /// Records of it, by their place in the message, of whose end the owner has been told: they are
    /// not sent again.
    pub settled: Acknowledged,
    /// For the worker.
    pub token: Token,
}

impl Request {
    /// Records, and bytes of the files, of whose end the owner has not been told.
    pub fn unsettled(&self) -> (u64, u64) {
        unsettled(self.records, self.source_bytes, self.settled.count())
    }
}

/// What is left of records, and of the bytes that they share, where so many of them are settled.
pub fn unsettled(records: u64, source_bytes: u64, settled: u64) -> (u64, u64) {
    let settled = settled.min(records);
    let share = u128::from(source_bytes) * u128::from(settled) / u128::from(records.max(1));
    (records - settled, source_bytes.saturating_sub(u64::try_from(share).unwrap_or(u64::MAX)))
}

/// What became of a request, as its owner is told.
#[derive(Debug)]
pub enum Settlement {
    /// A part of it came to its end, and is not the last.
    Part(SettledPart),
    /// All of it is settled but for a few records, which the exporter holds from now on: the owner gets
    /// the request's share of its budget back.
    Aside(SetAside),
    /// It came to its end.
    Ended(Settled),
    /// The spool has it on disk, and sees to the rest.
    Kept(Request),
    /// The spool has a copy of the request with this number on disk; the request itself goes on.
    Secured(u64),
    /// That copy can't be read any more, and is given up.
    CopyLost(u64),
}

/// The end of a part of a request: `records == acknowledged + dead_lettered + sum(dropped)`.
#[derive(Debug)]
pub struct SettledPart {
    /// The owner's own number of the request.
    pub number: u64,
    /// What the records of the whole request cover.
    pub spans: Arc<[Span]>,
    /// Places of the part's records.
    pub places: Range<u64>,
    /// Places of all records of the request that are settled by now, this part's among them.
    pub settled: Acknowledged,
    /// Records of the part.
    pub records: u64,
    /// Bytes of the files that they count for.
    pub source_bytes: u64,
    /// Taken by the sink.
    pub acknowledged_records: u64,
    /// Refused by the sink as too large even alone.
    pub dead_lettered_records: u64,
    /// Dropped, by reason.
    pub dropped: Vec<(DropReason, u64)>,
}

impl SettledPart {
    /// Pieces of the files that this part has settled: all of their records are, and some of them
    /// only now.
    pub fn ranges(&self) -> impl Iterator<Item = FileRange> + '_ {
        let is_of_the_part =
            |span: &&Span| span.start < self.places.end && self.places.start < span.end;
        let is_settled = |span: &&Span| self.settled.contains(span.start, span.end);
        self.spans.iter().filter(is_of_the_part).filter(is_settled).map(|span| span.range)
    }
}

/// What a request has given back, and what is left of it. Its end comes as any other's.
#[derive(Debug)]
pub struct SetAside {
    /// The owner's own number of the request.
    pub number: u64,
    /// Whether it was given to the spool.
    pub to_spool: bool,
    /// What it has taken from the budget of bytes in flight until now.
    pub charged_bytes: usize,
    /// Bytes of its body, which is gone.
    pub body_bytes: usize,
    /// What is left.
    pub rest: Rest,
}

/// The records of a request that are not settled, as a message of their own.
#[derive(Debug)]
pub struct Rest {
    /// The message, compressed as the request's was.
    pub body: Vec<Bytes>,
    /// Sum of the chunks' lengths.
    pub body_bytes: usize,
    /// Length before compression.
    pub uncompressed_bytes: usize,
    /// Log records in it.
    pub records: u64,
    /// Bytes of the files that they count for.
    pub source_bytes: u64,
    /// What of the files they cover, with the places that they have in the request.
    pub spans: Arc<[Span]>,
    /// Places of the request's records that are not in it.
    pub left_out: Acknowledged,
}

/// The end of a request. Every record of it of which no part has told is accounted for in exactly one
/// of the three: `request.unsettled().0 == acknowledged + dead_lettered + sum(dropped)`.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a request of three spans of several records each is halved within the second one; the
    /// end of its first half is told, then that of its second.
    /// Guarantees: a span is settled with the last of its records, and once.
    #[test]
    fn a_span_is_settled_with_the_last_of_its_records() {
        let range = |number: u64| FileRange { file: 1, start: 10 * number, end: 10 * (number + 1) };
        let span = |number, start, end| Span { range: range(number), start, end };
        let spans: Arc<[Span]> = [span(0, 0, 3), span(1, 3, 6), span(2, 6, 9)].into();
        let mut settled = Acknowledged::default();
        let mut part = |places: Range<u64>| {
            settled.add(places.start, places.end);
            let part = SettledPart {
                number: 0,
                spans: Arc::clone(&spans),
                records: places.end - places.start,
                places,
                settled: settled.clone(),
                source_bytes: 0,
                acknowledged_records: 0,
                dead_lettered_records: 0,
                dropped: Vec::new(),
            };
            part.ranges().collect::<Vec<_>>()
        };
        assert_eq!(part(0..4), [range(0)]);
        assert_eq!(part(8..9), []);
        assert_eq!(part(4..8), [range(1), range(2)]);
    }
}
