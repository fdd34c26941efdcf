//! The open batch: encoded records in the order in which they were read, in one buffer, with marks
//! that say which container each segment belongs to. It must not know files' contents or the sink.
//!
//! One buffer a batch bounds memory by arithmetic, whatever the number of containers is; segments
//! are put together by container only when the batch closes, without moving a byte.

use std::{ops::Range, sync::Arc, time::Instant};

use crate::{
    limits::SPAN_BYTES,
    queue::{FileRange, Span},
};

/// Number of a container within its worker.
pub type ContainerIndex = u32;

/// Records of one container that follow each other in the batch's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whose records.
    pub container: ContainerIndex,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Records of the batch before it.
    pub records_before: u64,
}

/// Which records have to be settled before a range of the batch is, as places in the order of reading.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where the segment of them stands in [`Batch::segments`].
    segment: usize,
    start: u64,
    end: u64,
}

impl Segment {
    /// Where its records lie in [`Batch::records`].
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What records take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Records.
    pub records: u64,
    /// Encoded bytes.
    pub bytes: usize,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Encoded bytes, resources included; outranks the count.
    pub bytes_max: usize,
    /// Records.
    pub records_max: u64,
}

/// Records on their way to becoming one request.
#[derive(Debug)]
pub struct Batch {
    /// `ScopeLogs.log_records` entries. Never longer than `limits.bytes_max`, unless one line's are.
    pub records: Vec<u8>,
    /// Parts of `records`, in order, without gaps, each belonging to one container.
    pub segments: Vec<Segment>,
    /// What the records cover; those of a file are disjoint.
    pub ranges: Vec<FileRange>,
    /// Count of records.
    pub record_count: u64,
    /// Sum of the lengths of what the records cover.
    pub source_bytes: u64,
    /// When the first record came; `None` while empty.
    pub opened_at: Option<Instant>,
    /// Of each range.
    places: Vec<Place>,
    /// Records before the last mark.
    marked: u64,
    /// Memory of [`Self::spans`].
    order: Vec<usize>,
    before: Vec<u64>,
    /// Ranges are joined up to this length.
    pub span_bytes: u64,
    /// Bytes that the prefixes of the containers may add, an upper bound.
    prefix_bytes: usize,
    limits: BatchLimits,
}

/// Bytes that the nested lengths and tags of one `ResourceLogs` add to its resource, at most.
const PREFIX_BYTES_MAX: usize = 24;

impl Batch {
    /// An empty batch.
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            records: Vec::new(),
            segments: Vec::new(),
            ranges: Vec::new(),
            record_count: 0,
            source_bytes: 0,
            opened_at: None,
            places: Vec::new(),
            marked: 0,
            order: Vec::new(),
            before: Vec::new(),
            span_bytes: SPAN_BYTES,
            prefix_bytes: 0,
            limits,
        }
    }

    /// The same with ranges that are joined up to another length.
    pub fn with_spans_of(mut self, span_bytes: u64) -> Self {
        self.span_bytes = span_bytes;
        self
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Makes the records to come belong to `container`, whose resource has that many bytes.
    pub fn begin_segment(&mut self, container: ContainerIndex, resource_bytes: usize) {
        let at = self.records.len() as u32;
        self.mark();
        let segment = Segment { container, start: at, end: at, records_before: self.record_count };
        if let Some(last) = self.segments.last_mut() {
            if last.container == container {
                return;
            }
            if last.start == last.end {
                // Nothing was added to it: the next container takes its place.
                *last = segment;
                self.prefix_bytes += resource_bytes + PREFIX_BYTES_MAX;
                return;
            }
        }
        self.segments.push(segment);
        self.prefix_bytes += resource_bytes + PREFIX_BYTES_MAX;
    }

    /// Takes the bytes appended to `records` since into the segment that was begun last.
    pub fn end_segment(&mut self) {
        let end = self.records.len() as u32;
        if let Some(last) = self.segments.last_mut() {
            last.end = end;
        }
    }

    /// Whether a record of so many encoded bytes must wait for the next batch. An empty batch
    /// takes every record, so that a record larger than the limit still leaves, alone.
    #[inline]
    pub fn is_full_for(&self, record_bytes: usize) -> bool {
        self.record_count >= self.limits.records_max
            || (self.records.len() + self.prefix_bytes + record_bytes > self.limits.bytes_max
                && self.record_count > 0)
    }

    /// The same of several records that leave together.
    pub fn is_full_for_all(&self, Room { records, bytes }: Room) -> bool {
        self.record_count.saturating_add(records) > self.limits.records_max && self.record_count > 0
            || self.is_full_for(bytes)
    }

    /// What is covered from now on is so by records to come. In between, records and what they cover
    /// are not told apart.
    pub fn mark(&mut self) {
        self.marked = self.record_count;
    }

    /// What the records cover, each piece with the places that its records have in the message.
    pub fn spans(&mut self) -> Arc<[Span]> {
        let (order, before) = (&mut self.order, &mut self.before);
        order.clear();
        order.extend(0..self.segments.len());
        // As the encoder puts them together.
        order.sort_unstable_by_key(|at| (self.segments[*at].container, *at));
        before.clear();
        before.resize(self.segments.len(), 0);
        let mut place = 0;
        for &mut at in order {
            before[at] = place;
            let next =
                self.segments.get(at + 1).map_or(self.record_count, |one| one.records_before);
            place += next - self.segments[at].records_before;
        }
        let span = |(range, place): (&FileRange, &Place)| {
            let moved = |at: u64| {
                let segment = self.segments.get(place.segment);
                let within = at - segment.map_or(0, |one| one.records_before.min(at));
                before.get(place.segment).copied().unwrap_or(0) + within
            };
            Span { range: *range, start: moved(place.start), end: moved(place.end) }
        };
        self.ranges.iter().zip(&self.places).map(span).collect()
    }

    /// Notes that the records since the last mark cover these bytes of a file.
    pub fn cover(&mut self, range: FileRange) {
        if range.start == range.end {
            return;
        }
        self.source_bytes += range.end - range.start;
        let segment = self.segments.len().saturating_sub(1);
        let place = Place { segment, start: self.marked, end: self.record_count };
        if let (Some(last), Some(last_place)) = (self.ranges.last_mut(), self.places.last_mut())
            && last.file == range.file
            && last.end == range.start
            && last_place.segment == segment
            && range.end - last.start <= self.span_bytes
        {
            last.end = range.end;
            last_place.end = place.end;
            return;
        }
        self.ranges.push(range);
        self.places.push(place);
    }

    /// Empties it; keeps the marks' memory, and takes `records` as the next buffer.
    pub fn reset(&mut self, mut records: Vec<u8>) -> Vec<u8> {
        records.clear();
        self.segments.clear();
        self.ranges.clear();
        self.places.clear();
        self.marked = 0;
        self.record_count = 0;
        self.source_bytes = 0;
        self.opened_at = None;
        self.prefix_bytes = 0;
        std::mem::replace(&mut self.records, records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { bytes_max: 1_000, records_max: 3 };

    /// Scenario: containers take turns, one of them without adding a record.
    /// Guarantees: segments follow each other without gaps, and none is empty but the last.
    #[test]
    fn segments_have_no_gaps() {
        let mut batch = Batch::new(LIMITS);
        for (container, bytes) in [(1, 10), (1, 5), (2, 0), (3, 7), (1, 1)] {
            batch.begin_segment(container, 20);
            batch.records.extend(std::iter::repeat_n(0, bytes));
            batch.end_segment();
        }
        let segments: Vec<_> =
            batch.segments.iter().map(|one| (one.container, one.range())).collect();
        assert_eq!(segments, [(1, 0..15), (3, 15..22), (1, 22..23)]);
    }

    /// Scenario: a batch near its limits of bytes and records.
    /// Guarantees: it is full before it would exceed one, but an empty one takes any record.
    #[test]
    fn limits_hold() {
        let mut batch = Batch::new(LIMITS);
        batch.begin_segment(1, 20);
        assert!(!batch.is_full_for(5_000));
        batch.records.extend([0; 900]);
        batch.record_count = 1;
        assert!(!batch.is_full_for(56));
        assert!(batch.is_full_for(57));
        batch.record_count = 3;
        assert!(batch.is_full_for(0));
    }

    /// Scenario: ranges of two files, some of them adjacent.
    /// Guarantees: neighbours are joined, the source bytes are their sum.
    #[test]
    fn adjacent_ranges_join() {
        let mut batch = Batch::new(LIMITS);
        for (file, start, end) in [(1, 0, 5), (1, 5, 9), (2, 9, 10), (1, 9, 12), (1, 12, 12)] {
            batch.cover(FileRange { file, start, end });
        }
        let ranges: Vec<_> =
            batch.ranges.iter().map(|one| (one.file, one.start, one.end)).collect();
        assert_eq!(ranges, [(1, 0, 9), (2, 9, 10), (1, 9, 12)]);
        assert_eq!(batch.source_bytes, 13);
    }

    /// Scenario: two containers take turns in a batch, the one with the greater number first; a line
    /// that has left already ends without a record; pieces are longer than is joined.
    /// Guarantees: each piece has the places of its own records in the message, where a container's
    /// records stand together; pieces are joined up to the length of a span.
    #[test]
    fn spans_have_the_places_of_the_message() {
        let mut batch = Batch::new(LIMITS);
        batch.span_bytes = 10;
        for (container, start, end, records) in [
            (7, 0, 6, 2),
            (2, 0, 4, 1),
            (7, 6, 10, 1),
            (7, 10, 11, 0),
            (7, 11, 15, 3),
            (2, 4, 9, 2),
        ] {
            batch.begin_segment(container, 20);
            batch.records.extend(vec![0; records]);
            batch.record_count += records as u64;
            batch.cover(FileRange { file: container, start, end });
            batch.end_segment();
        }
        let spans = batch.spans();
        let spans: Vec<_> = spans
            .iter()
            .map(|span| (span.range.file, span.range.start..span.range.end, span.start..span.end))
            .collect();
        let expected = [(7, 0..6, 3..5), (2, 0..4, 0..1), (7, 6..15, 5..9), (2, 4..9, 1..3)];
        assert_eq!(spans, expected);
    }
}
