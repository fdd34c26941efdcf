//! The agent's counters as plain atomics: stages add to them, `telemetry` shows them to
//! OpenTelemetry. An addition costs nanoseconds, an instrument's hundreds.
//!
//! Conservation, in records and in source bytes:
//! `read + recovered = acknowledged + queued + dead_lettered + dropped`, where every term is counted
//! on its own, so that the equation can fail. `recovered` is what the spool held at the start. What
//! moves from one term to another moves under [`Metrics::together`], once a read or a settlement, and
//! [`Metrics::terms`] looks at all of them between two moves: so the equation holds whenever
//! somebody looks.

use std::{
    marker::PhantomData,
    sync::{
        OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use opentelemetry::metrics::Histogram;

use crate::queue::{Settled, SettledPart};

/// A counter or gauge of records beside its source bytes: bytes of the files they came from.
#[derive(Debug, Default)]
pub struct Amount {
    /// Log records.
    pub records: AtomicI64,
    /// Bytes of the source files, headers and newlines included.
    pub bytes: AtomicI64,
}

impl Amount {
    /// Adds; negative for a gauge that falls. Only while the caller holds [`Metrics::together`].
    pub fn add(&self, records: i64, bytes: i64) {
        debug_assert!(moving::is_begun(), "terms move together: see `Metrics::together`");
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records and bytes now.
    pub fn get(&self) -> (i64, i64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// A monotonic count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves it up or down: for gauges, which never fall below zero.
    pub fn add_gauge(&self, change: i64) {
        self.0.fetch_add(change as u64, Ordering::Relaxed);
    }

    /// Sets it: for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Why records were dropped; each reason has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// `retry_on_failure.max_elapsed_time` was set and used up, or retrying is switched off.
    RetryElapsed,
    /// The sink took the request and said that it rejected some of its records.
    PartialSuccess,
    /// The sink refused these records for good.
    Rejected,
    /// The sink refused a part of a request, and kept the others. Where it does not say how many,
    /// all are counted that may be among them.
    RejectedInPart,
    /// The sink took others, time after time, and never these, for reasons that need not be theirs; and
    /// what waits like them had come near its bounds.
    NeverTaken,
}

impl DropReason {
    /// All of them, in the order of [`Metrics::dropped`].
    pub const ALL: [Self; 5] = [
        Self::RetryElapsed,
        Self::PartialSuccess,
        Self::Rejected,
        Self::RejectedInPart,
        Self::NeverTaken,
    ];

    /// Value of the attribute `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryElapsed => "retry_elapsed",
            Self::PartialSuccess => "partial_success",
            Self::Rejected => "rejected",
            Self::RejectedInPart => "rejected_in_part",
            Self::NeverTaken => "never_taken",
        }
    }
}

/// Why bytes of files were never read; each reason has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum LossReason {
    /// Deleted files held more unread bytes than `deleted_files_bytes_max`.
    DeletedFilesBudget,
    /// An archive is damaged: its bytes behind the damage, compressed.
    DamagedArchive,
    /// Bytes behind the last member of an archive that are no member, and not padding.
    ArchiveTrailer,
    /// The agent ended while deleted files were unread and the spool had no room for them.
    Shutdown,
    /// It was deleted while no agent ran.
    NoAgent,
    /// A file was deleted that could not be opened, for want of descriptors or of permission.
    NotOpened,
    /// A file was cut before all that it was known to hold was read.
    Truncated,
}

impl LossReason {
    /// All of them, in the order of [`Metrics::lost_bytes`].
    pub const ALL: [Self; 7] = [
        Self::DeletedFilesBudget,
        Self::DamagedArchive,
        Self::ArchiveTrailer,
        Self::Shutdown,
        Self::NoAgent,
        Self::NotOpened,
        Self::Truncated,
    ];

    /// Value of the attribute `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeletedFilesBudget => "deleted_files_budget",
            Self::DamagedArchive => "damaged_archive",
            Self::ArchiveTrailer => "archive_trailer",
            Self::Shutdown => "shutdown",
            Self::NoAgent => "no_agent",
            Self::NotOpened => "not_opened",
            Self::Truncated => "truncated",
        }
    }
}

/// While it lives, what moves between terms moves as one for [`Metrics::terms`]. Those who move
/// don't wait for each other.
#[derive(Debug)]
#[must_use = "terms move together while it lives"]
pub struct Together<'a> {
    _shared: RwLockReadGuard<'a, ()>,
    /// It counts on its thread.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        moving::end();
    }
}

/// Whether this thread holds a [`Together`]: a term that moves alone is a mistake that tests find.
mod moving {
    use std::cell::Cell;

    thread_local! {
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn begin() {
        DEPTH.set(DEPTH.get() + 1);
    }

    pub(super) fn end() {
        DEPTH.set(DEPTH.get() - 1);
    }

    pub(super) fn is_begun() -> bool {
        DEPTH.get() > 0
    }
}

/// The terms of the conservation equation at one moment, each as records and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// [`Metrics::read`].
    pub read: (i64, i64),
    /// [`Metrics::acknowledged`].
    pub acknowledged: (i64, i64),
    /// [`Metrics::queued_partial`].
    pub queued_partial: (i64, i64),
    /// [`Metrics::queued_batch`].
    pub queued_batch: (i64, i64),
    /// [`Metrics::queued_request`].
    pub queued_request: (i64, i64),
    /// [`Metrics::queued_spool`].
    pub queued_spool: (i64, i64),
    /// [`Metrics::recovered`].
    pub recovered: (i64, i64),
    /// [`Metrics::dead_lettered`].
    pub dead_lettered: (i64, i64),
    /// [`Metrics::dropped`], by [`DropReason`].
    pub dropped: [(i64, i64); DropReason::ALL.len()],
}

impl Terms {
    /// Nothing has been read.
    pub const NOTHING: Self = Self {
        read: (0, 0),
        acknowledged: (0, 0),
        queued_partial: (0, 0),
        queued_batch: (0, 0),
        queued_request: (0, 0),
        queued_spool: (0, 0),
        recovered: (0, 0),
        dead_lettered: (0, 0),
        dropped: [(0, 0); DropReason::ALL.len()],
    };
}

/// What the agent counts. Counters only grow; fields called gauges move both ways.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records and bytes read from files.
    pub read: Amount,
    /// Acknowledged by the sink.
    pub acknowledged: Amount,
    /// Gauge: in open partial lines.
    pub queued_partial: Amount,
    /// Gauge: in open batches.
    pub queued_batch: Amount,
    /// Gauge: in requests that are not settled.
    pub queued_request: Amount,
    /// Gauge: in the spool on disk.
    pub queued_spool: Amount,
    /// Found in the spool at the start.
    pub recovered: Amount,
    /// Too large for the sink even alone.
    pub dead_lettered: Amount,
    /// Dropped, by [`DropReason`].
    pub dropped: [Amount; DropReason::ALL.len()],
    /// Held shared by those who move terms, and alone by those who look at all of them.
    moves: RwLock<()>,

    /// Lines that did not parse and were passed on raw.
    pub malformed_lines: Count,
    /// Bodies with invalid UTF-8, sent as bytes.
    pub invalid_utf8_bodies: Count,
    /// Records that are a piece of a longer line, because of a limit.
    pub split_records: Count,
    /// NULs before lines, which were skipped: holes.
    pub skipped_nuls: Count,
    /// Files truncated in place, or smaller than their checkpoint.
    pub truncated_files: Count,
    /// Files deleted while unread bytes were in them, and those bytes could not be read any more.
    pub lost_files: Count,
    /// Rotated files that were written to after they had been read to their end and closed.
    pub late_files: Count,
    /// Bytes of files that were deleted, or cut, before they could be read, by [`LossReason`].
    pub lost_bytes: [Count; LossReason::ALL.len()],
    /// Gauge: bytes of files that are deleted, or about to be, and that neither the sink nor the
    /// spool has.
    pub bytes_at_risk: Count,
    /// Gauge: bytes of deleted files that are kept open because they have not been read.
    pub deleted_open_bytes: Count,
    /// Directory entries refused: directories, FIFOs, devices, links that lead where none may, and files that
    /// are compressed by others than the kubelet.
    pub refused_files: Count,
    /// Paths with the kubelet's form whose names are none that Kubernetes allows.
    pub refused_paths: Count,
    /// Failures to open or read a file.
    pub file_errors: Count,
    /// Bytes of `.gz` archives read, decompressed.
    pub archive_bytes: Count,
    /// Gauge: files open now.
    pub open_files: Count,
    /// Gauge: files that could not be opened yet, or again although they have grown.
    pub unopened_files: Count,
    /// Events of the operating system about directories.
    pub directory_events: Count,
    /// Events of the operating system about idle files.
    pub file_events: Count,
    /// Overflows of the operating system's event queue.
    pub event_overflows: Count,

    /// Records of each request: an instrument of its own, since a distribution is no number. Set
    /// by `telemetry`, recorded once a request.
    pub batch_send_size: OnceLock<Histogram<u64>>,
    /// Requests built.
    pub requests: Count,
    /// Attempts to send.
    pub send_attempts: Count,
    /// Attempts that failed and are tried again.
    pub send_retries: Count,
    /// Bytes of request bodies handed to the network, each attempt counted.
    pub sent_bytes: Count,
    /// Gauge: requests being sent now.
    pub in_flight_requests: Count,
    /// Gauge: requests that wait or are being sent.
    pub queue_requests: Count,
    /// Unix time in milliseconds of the last finished attempt, good or bad; for others to see.
    pub last_attempt_unix_ms: Count,
    /// The same moment by a clock that nobody sets, see `worker::monotonic_ms`; no instrument.
    pub last_attempt_ms: Count,
    /// Gauge: requests whose sending has panicked, and that are tried again.
    pub panicked_requests: Count,
    /// Gauge: bytes of the spool's segments on disk.
    pub spool_bytes: Count,
    /// Gauge: requests in the spool.
    pub spool_requests: Count,
    /// Requests that the spool took.
    pub spool_kept_requests: Count,
    /// Copies of requests under way that the spool took, because their files are deleted or about to
    /// be.
    pub spool_secured_requests: Count,
    /// Requests of the spool that could not be read again.
    pub spool_damaged_requests: Count,
    /// Requests of the spool, found at the start, that are there a second time; they are not sent twice.
    pub spool_duplicate_requests: Count,
    /// Bytes of the spool, found at the start, that are no whole request.
    pub spool_unreadable_bytes: Count,
    /// Failures to write to the spool, for want of room or because of the disk, or to read it.
    pub spool_errors: Count,
    /// Gauge: 1 while the spool takes nothing, for want of room or because of the disk.
    pub spool_full: Count,
    /// Gauge: 1 while that is for want of room, so that less in it would help.
    pub spool_lacks_room: Count,
    /// Writes of checkpoints.
    pub checkpoints_written: Count,
    /// Failures to write one.
    pub checkpoint_errors: Count,
    /// Checkpoints of files that could not be found for long, forgotten because there were too many.
    pub checkpoints_forgotten: Count,
    /// Events of the agent's own log that stderr had no room for.
    pub log_events_dropped: Count,
    /// Bytes written for checkpoints.
    pub checkpoint_bytes: Count,
}

impl Metrics {
    /// For moving records and bytes between terms. Held for a few additions, once a read or a
    /// settlement; twice on one thread might wait for itself.
    pub fn together(&self) -> Together<'_> {
        debug_assert!(!moving::is_begun(), "one move at a time");
        let shared = self.moves.read().unwrap_or_else(PoisonError::into_inner);
        moving::begin();
        Together { _shared: shared, _not_send: PhantomData }
    }

    /// All terms at one moment.
    pub fn terms(&self) -> Terms {
        let _alone = self.moves.write().unwrap_or_else(PoisonError::into_inner);
        Terms {
            read: self.read.get(),
            acknowledged: self.acknowledged.get(),
            queued_partial: self.queued_partial.get(),
            queued_batch: self.queued_batch.get(),
            queued_request: self.queued_request.get(),
            queued_spool: self.queued_spool.get(),
            recovered: self.recovered.get(),
            dead_lettered: self.dead_lettered.get(),
            dropped: DropReason::ALL.map(|reason| self.dropped(reason).get()),
        }
    }

    /// Books the end of a request whose records and bytes have been taken from where they were
    /// queued. The source bytes of a part of the records are their share of the request's; what is
    /// acknowledged takes the rest, so that the sum is exact. The caller holds [`Metrics::together`].
    pub fn book_end(&self, settled: &Settled) {
        let taken = (settled.acknowledged_records, settled.dead_lettered_records);
        self.book(settled.request.unsettled(), taken, &settled.dropped);
    }

    /// The same for a part of a request.
    pub fn book_part(&self, part: &SettledPart) {
        let taken = (part.acknowledged_records, part.dead_lettered_records);
        self.book((part.records, part.source_bytes), taken, &part.dropped);
    }

    fn book(
        &self,
        (records, bytes): (u64, u64),
        (acknowledged, dead_lettered): (u64, u64),
        dropped: &[(DropReason, u64)],
    ) {
        let share = |part: u64| {
            let share = u128::from(bytes) * u128::from(part) / u128::from(records.max(1));
            i64::try_from(share).unwrap_or(i64::MAX)
        };
        let mut rest = bytes as i64;
        if dead_lettered > 0 {
            let is_all = dead_lettered == records;
            let part = if is_all { rest } else { share(dead_lettered) };
            rest -= part;
            self.dead_lettered.add(dead_lettered as i64, part);
        }
        for (number, &(reason, part_records)) in (1..).zip(dropped) {
            let is_all_that_is_left = acknowledged == 0 && number == dropped.len();
            let part = if is_all_that_is_left { rest } else { share(part_records) };
            rest -= part;
            self.dropped(reason).add(part_records as i64, part);
        }
        self.acknowledged.add(acknowledged as i64, rest);
    }

    /// Bytes lost for a reason.
    pub fn lost(&self, reason: LossReason) -> &Count {
        &self.lost_bytes[reason as usize]
    }

    /// Records and bytes dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> &Amount {
        &self.dropped[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config::Compression, queue::Request};

    /// Scenario: D20: a request of ten records ends in every way at once, and in each way alone.
    /// Guarantees: each record is booked where it belongs, and nowhere else; the shares of the bytes
    /// add up, and none goes where no record does.
    #[test]
    fn every_end_is_booked_where_it_belongs() {
        use DropReason::{PartialSuccess, Rejected, RejectedInPart, RetryElapsed};
        let all = vec![(RetryElapsed, 1), (PartialSuccess, 2), (Rejected, 1), (RejectedInPart, 2)];
        for (acknowledged, dead_lettered, dropped) in [
            (3, 1, all),
            (10, 0, vec![]),
            (0, 0, vec![(PartialSuccess, 10)]),
            (0, 10, vec![]),
            (0, 1, vec![(Rejected, 4), (PartialSuccess, 5)]),
        ] {
            let metrics = Arc::new(Metrics::default());
            let _together = metrics.together();
            let request = Request {
                body: Vec::new(),
                body_bytes: 0,
                uncompressed_bytes: 0,
                records: 10,
                source_bytes: 1_003,
                compression: Compression::None,
                reply: crossbeam_channel::unbounded().0,
                settled: Default::default(),
                token: crate::queue::Token::default(),
            };
            let settled = Settled {
                request,
                acknowledged_records: acknowledged,
                dead_lettered_records: dead_lettered,
                dropped: dropped.clone(),
            };
            metrics.book_end(&settled);
            let of = |reason| dropped.iter().filter(move |(known, _)| *known == reason);
            let expected = DropReason::ALL.map(|reason| of(reason).map(|(_, count)| *count).sum());
            let places = [&metrics.acknowledged, &metrics.dead_lettered];
            let places = places.into_iter().chain(&metrics.dropped);
            let booked: Vec<_> = places.map(Amount::get).collect();
            let expected: Vec<u64> =
                [acknowledged, dead_lettered].into_iter().chain(expected).collect();
            assert_eq!(booked.iter().map(|(count, _)| *count as u64).collect::<Vec<_>>(), expected);
            assert!(booked.iter().all(|(count, bytes)| (*count > 0) == (*bytes > 0)), "{booked:?}");
            assert_eq!(booked.iter().map(|(_, bytes)| bytes).sum::<i64>(), 1_003);
        }
    }

    /// Scenario: the scrapes that were off by up to 13,867 records: two threads move records between
    /// terms without a pause, while a third looks at all terms 20,000 times.
    /// Guarantees: the equation holds each time.
    #[test]
    fn terms_that_are_looked_at_while_they_move_balance() {
        let metrics = Arc::new(Metrics::default());
        let done = Arc::new(AtomicU64::new(0));
        let movers = [1, 2].map(|step| {
            let (metrics, done) = (Arc::clone(&metrics), Arc::clone(&done));
            std::thread::spawn(move || {
                while done.load(Ordering::Relaxed) == 0 {
                    {
                        let _together = metrics.together();
                        metrics.read.add(step, 10 * step);
                        metrics.queued_batch.add(step, 10 * step);
                    }
                    let _together = metrics.together();
                    metrics.queued_batch.add(-step, -10 * step);
                    metrics.acknowledged.add(step, 10 * step);
                }
            })
        });
        for _ in 0..20_000 {
            let terms = metrics.terms();
            let somewhere = (
                terms.acknowledged.0 + terms.queued_batch.0,
                terms.acknowledged.1 + terms.queued_batch.1,
            );
            assert_eq!(terms.read, somewhere);
        }
        done.store(1, Ordering::Relaxed);
        movers.into_iter().for_each(|mover| mover.join().unwrap());
    }
}
