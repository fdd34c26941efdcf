//! The agent's counters as plain atomics: stages add to them, `telemetry` shows them to
//! OpenTelemetry. An addition costs nanoseconds, an instrument's hundreds.
//!
//! Conservation, in records and in source bytes:
//! `read = acknowledged + queued + dead_lettered + dropped`, where every term is counted on its
//! own, so that the equation can fail.

use std::sync::{
    OnceLock,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use opentelemetry::metrics::Histogram;

/// A counter or gauge of records beside its source bytes: bytes of the files they came from.
#[derive(Debug, Default)]
pub struct Amount {
    /// Log records.
    pub records: AtomicI64,
    /// Bytes of the source files, headers and newlines included.
    pub bytes: AtomicI64,
}

impl Amount {
    /// Adds; negative for a gauge that falls.
    pub fn add(&self, records: i64, bytes: i64) {
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
    /// The sink refused the request for good.
    Rejected,
}

impl DropReason {
    /// All of them, in the order of [`Metrics::dropped`].
    pub const ALL: [Self; 3] = [Self::RetryElapsed, Self::PartialSuccess, Self::Rejected];

    /// Value of the attribute `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryElapsed => "retry_elapsed",
            Self::PartialSuccess => "partial_success",
            Self::Rejected => "rejected",
        }
    }
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
    /// Too large for the sink even alone.
    pub dead_lettered: Amount,
    /// Dropped, by [`DropReason`].
    pub dropped: [Amount; DropReason::ALL.len()],

    /// Lines that did not parse and were passed on raw.
    pub malformed_lines: Count,
    /// Bodies with invalid UTF-8, sent as bytes.
    pub invalid_utf8_bodies: Count,
    /// Records that are a piece of a longer line, because of a limit.
    pub split_records: Count,
    /// Files truncated in place, or smaller than their checkpoint.
    pub truncated_files: Count,
    /// Files deleted while unread bytes were in them, and those bytes could not be read any more.
    pub lost_files: Count,
    /// Directory entries refused: symbolic links, FIFOs, devices.
    pub refused_files: Count,
    /// Failures to open or read a file.
    pub file_errors: Count,
    /// Bytes of `.gz` archives read, decompressed.
    pub archive_bytes: Count,
    /// Gauge: files open now.
    pub open_files: Count,
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
    /// Unix time in milliseconds of the last finished attempt, good or bad.
    pub last_attempt_unix_ms: Count,
    /// Checkpoint files written.
    pub checkpoints_written: Count,
    /// Failures to write one.
    pub checkpoint_errors: Count,
}

impl Metrics {
    /// Records and bytes dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> &Amount {
        &self.dropped[reason as usize]
    }
}
